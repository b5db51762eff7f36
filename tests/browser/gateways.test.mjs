// Several gateways on one PostgreSQL, as somebody sees them who looks at one: who is at work, silent, taken over; and the database, which goes
// away and comes back.
//
// Needs what `pages.test.mjs` needs; DATABASE_PORT is where the database is, DATABASE_KEEPER who stops and starts it.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import net from "node:net";
import { Site, hostile, roles, until } from "./site.mjs";
import { close, fits, isClean, launch, leave, looksRight, readsRight, visit } from "./visit.mjs";

const schema = `window_${process.pid}`;
const member = (name, wait = "10m") => () => `
[queue]
store = "postgres"
in_doubt_wait = "${wait}"

[postgres]
hosts = ["127.0.0.1:${process.env.DATABASE_PORT}"]
database = "postern"
username = "postern"
password = "a password"
tls = "off"
schema = "${schema}"

[cluster]
name = "${name}"
dead_after = "10s"

[incidents]
open_after = "5s"
`;
/** The database is told something. */
async function database(line) {
	const [host, port] = process.env.DATABASE_KEEPER.split(":");
	const socket = net.connect(port, host);
	let said = "";
	socket.on("data", (octets) => (said += octets));
	socket.write(`${line}\n`);
	await until(`the database to ${line}`, () => said === "done\n", 30);
	socket.end();
}

let one;
let two;
before(async () => {
	await launch();
	one = await Site.start({ more: member("relay-a") });
	two = await Site.start({ more: member("relay-b"), beside: one });
});
after(async () => {
	await close();
	await two?.stop();
	await one?.stop();
});
afterEach(leave);

const row = (page, name) => page.getByTestId("gateways").locator(`tr[data-id="${name}"]`);
/** Until the page says so by itself. */
const says = (page, place, what, seconds = 30) => until(`${what}`, async () => what.test(await place.innerText()), seconds);
const both = async (word) => {
	for (const [role, colorScheme] of [["viewer", "light"], ["admin", "dark"]]) {
		const { page, go } = await visit(one, role, { colorScheme, viewport: { width: 1600, height: 900 } });
		await go("/");
		await page.getByTestId("gateways").waitFor();
		await fits(page, "/", { role, colorScheme }, word);
	}
};

test("a gateway alone says nothing of others", async () => {
	const alone = await Site.start();
	try {
		const { page, go } = await visit(alone, "admin");
		await go("/");
		assert.equal(await page.getByTestId("gateways").count(), 0);
		assert.equal(await page.locator("#store").count(), 0);
	} finally {
		await alone.stop();
	}
});

describe("two at work", () => {
	test("are seen from either", async () => {
		for (const [site, own, other] of [[one, "relay-a", "relay-b"], [two, "relay-b", "relay-a"]]) {
			for (const javaScriptEnabled of [true, false]) {
				const { page, go } = await visit(site, "viewer", { javaScriptEnabled });
				const seen = async () => {
					await go("/");
					return (await page.getByTestId("gateways").locator("tbody tr[data-id]").count()) === 2;
				};
				await until("both", seen);
				assert.match(await row(page, own).innerText(), /this gateway/);
				const text = await row(page, other).innerText();
				assert.match(text, /at work/);
				assert.match(text, /[0-3] s ago/);
				assert.match(text, /the same/);
				assert.doesNotMatch(text, /this gateway|taken over/);
				const store = await page.locator("#store").innerText();
				assert.match(store, new RegExp(`127.0.0.1:${process.env.DATABASE_PORT}\\s+ok`));
				assert.match(store, /on the disk of the primary/);
				assert.match(store, /\b0 messages/);
			}
		}
	});

	test("say who took a message in and who sent it", async () => {
		const id = await two.send({ to: "anna@elsewhere.example", header: "Subject: By the other\r\n" });
		await one.state(id, "done");
		const [{ accepted_by, sent_by }] = one.entries().filter((entry) => entry.id === id);
		assert.deepEqual([accepted_by, sent_by], ["relay-b", "relay-b"]);
		const { page, go } = await visit(one, "viewer");
		await go("/messages?all=true");
		const listed = await page.locator(`tr[data-id="${id}"]`).innerText();
		assert.equal(listed.match(/by relay-b/g).length, 2, listed);
		await go(`/messages/${id}`);
		assert.match(await page.locator("dl.facts").first().innerText(), /by gateway relay-b/);
		assert.match(await page.getByTestId("recipients").innerText(), /by relay-b/);
		one.waiting = await one.send({ to: "ben@partner.example" });
		for (const [role, colorScheme] of [["viewer", "light"], ["admin", "dark"]]) {
			await looksRight(one, { kind: "gateways", role, colorScheme }, [["/", "overview"], ["/messages?all=true", "messages"], [`/messages/${id}`, "message"]]);
		}
	});

	for (const role of roles) {
		test(`${role}, without script`, () => readsRight(one, role, [["/", "overview"]]));
	}
});

test("one that comes and goes is there and is gone, and its configuration is another", async () => {
	const { page, go, faults } = await visit(one, "viewer");
	await go("/");
	await page.getByTestId("live").getByText("live").waitFor();
	const three = await Site.start({ more: member("relay-c", "20m") });
	try {
		await says(page, page.getByTestId("gateways"), /relay-c[^]*another since \d{4}-/);
		await fits(page, "/", { role: "viewer", colorScheme: "light" }, "another");
		three.child.kill("SIGTERM");
		await until("relay-c to leave", async () => (await row(page, "relay-c").count()) === 0, 60);
	} finally {
		await three.stop();
	}
	assert.deepEqual(faults, []);
});

test("what stands in the database is text", async () => {
	const name = hostile.markup.replaceAll("'", "''");
	await database(`INSERT INTO ${schema}.node (name, token, version, config_hash, started, seen, dead_after, knew, draining, apart) SELECT '${name}', 'x', '${name}', 'x', started, seen, dead_after, knew, false, false FROM ${schema}.node LIMIT 1`);
	const { page, go } = await visit(one, "viewer");
	await go("/");
	await says(page, page.getByTestId("gateways"), /<script>/);
	await isClean(page, "/");
	await go("/");
	await isClean(page, "/, anew");
	await fits(page, "/", { role: "viewer", colorScheme: "light" }, "hostile");
});

test("one that stands still is silent, and taken over when it is dead", async () => {
	const { page, go, faults } = await visit(one, "viewer");
	await go("/");
	await page.getByTestId("live").getByText("live").waitFor();
	two.child.kill("SIGSTOP");
	await says(page, row(page, "relay-b"), /silent[^]*taken over in \d s/);
	await says(page, page.locator("#needs"), /relay-b/);
	two.child.kill("SIGKILL");
	await says(page, row(page, "relay-b"), /taken over/);
	await says(page, row(page, "relay-b"), /^(?![^]*taken over in)/);
	await both("taken-over");
	assert.deepEqual(faults, []);
});

test("the database goes away and comes back, and mail is spilled meanwhile", async () => {
	const { page, go } = await visit(one, "viewer");
	await go("/");
	await page.getByTestId("live").getByText("live").waitFor();
	await database("stop");
	const store = page.locator("#store");
	await says(page, store, /away\s+since \d{4}-[^]*: \S/);
	await one.send({ to: "ben@partner.example" });
	await says(page, store, /\b1 message, the oldest for/);
	// An outage is an incident when it lasts.
	await says(page, page.locator("#needs"), /database/i, 60);
	await both("away");
	await looksRight(one, { kind: "away", role: "admin", colorScheme: "light" }, [["/messages", "messages"], ["/connectors", "connectors"], ["/incidents", "incidents"]]);
	await database("start");
	await says(page, store, /^(?![^]*away)[^]*\b0 messages/);
});
