// What changes the configuration, in a real browser: proposals, the form of a connector, stop and start; with script and without, by
// mouse and by keys.
//
// It needs what pages.test.mjs needs.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { Site, hostile, roles, until } from "./site.mjs";
import { Hands, close, fits, launch, leave, visit } from "./visit.mjs";

const WRITE = 'write_config = "write"';
const SECRET = "correct: hunter2 <&>";
const both = [["", true], [", without script", false]];

let site;
before(async () => {
	await launch();
	site = await Site.start({ admin: WRITE, sections: withPassword() });
	site.hostile = await propose(site, `${hostile.markup} ${hostile.turned}`, [
		{ op: "set", section: "connector", name: "login", key: "username", value: hostile.markup },
	]);
	site.open = await propose(site, "More recipients", [limit("recipients", 50)]);
	site.applied = await propose(site, "Fewer connections", [limit("connections", 900)]);
	await ask(site, "POST", `/proposals/${site.applied}/apply`, {});
	site.dropped = await propose(site, "", [limit("connections", 800)]);
	await ask(site, "POST", `/proposals/${site.dropped}/drop`, {});
});
after(async () => {
	await close();
	await site?.stop();
});
afterEach(leave);

const limit = (key, value) => ({ op: "set", section: "limits", key, value });

/** A connector with a saved password, and a comment that means harm. */
function withPassword() {
	return `
# ${hostile.markup}
[[connector]]
name = "login"
type = "smtp"
host = "127.0.0.1"
port = 9
tls = "off"
plaintext_credentials = true
username = "me"  # ${hostile.markup}
password = "hunter1"
overrides = [{ code = 450, class = "throttled" }]
`;
}

/** As a program with a token. */
async function ask(site, method, path, body) {
	const headers = { Authorization: `Bearer ${site.token()}`, "Content-Type": "application/json" };
	const answer = await fetch(`${site.url}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
	return { status: answer.status, body: await answer.json() };
}

/** The id of a new proposal. */
async function propose(site, title, changes) {
	const { body: file } = await ask(site, "GET", "/config");
	const { status, body } = await ask(site, "POST", "/proposals", { base: file.sha256, title, changes });
	assert.equal(status, 201, JSON.stringify(body));
	return body.id;
}

/** How the gateway greets who comes from there. */
function greeting(site, localAddress) {
	return new Promise((done, failed) => {
		const socket = net.connect({ port: site.smtp, host: "127.0.0.1", localAddress });
		socket.once("error", failed);
		socket.once("data", (octets) => {
			done(octets.toString());
			socket.destroy();
		});
	});
}

const config = (site) => readFileSync(join(site.dir, "config.toml"), "utf8");
const button = (page, name) => page.getByRole("button", { name, exact: true });
const field = (page, key) => page.locator(`[data-testid=connector-form] [name="${key}"]`);

/** The pages of a role, each with its word. */
function pages(role) {
	const all = [["/config", "config"], ["/connectors", "connectors"], ["/connectors/login", "connector"]];
	for (const id of [site.hostile, site.open, site.applied, site.dropped]) all.push([`/proposals/${id}`, "proposal"]);
	if (role !== "admin") return all;
	const forms = ["new", "new?type=smtp", "new?type=smtp&service=Gmail", "new?type=graph", "new?type=discard", "login/edit", "smarthost/edit"];
	return [...all, ...forms.map((path) => [`/connectors/${path}`, "connector-form"])];
}

describe("every page of a change", () => {
	for (const role of roles) {
		for (const colorScheme of ["light", "dark"]) {
			test(`${role}, ${colorScheme}`, async () => {
				const { page, faults, go } = await visit(site, role, { colorScheme, viewport: { width: 1600, height: 900 } });
				for (const [path, word] of pages(role)) {
					const answer = await go(path);
					assert.equal(answer.status(), 200, path);
					assert.equal(await page.locator("body").getAttribute("data-page"), word, path);
					assert.equal(await page.locator("h1").count(), 1, path);
					await fits(page, path, { role, colorScheme }, "change");
					assert.equal(await page.evaluate(() => window.owned), undefined, path);
					assert.equal(await page.locator("main script, main img").count(), 0, path);
					assert.doesNotMatch(await page.locator("body").innerText(), /[\u202a-\u202e\u2066-\u2069\x1b]/, path);
				}
				assert.deepEqual(faults, []);
			});
		}
	}

	for (const colorScheme of ["light", "dark"]) {
		test(`what a form answers, ${colorScheme}`, async () => {
			const { page, go } = await visit(site, "admin", { colorScheme, viewport: { width: 1600, height: 900 } });
			const looks = (what) => fits(page, what, { role: "admin", colorScheme }, "answer");
			await go("/connectors/new?type=smtp");
			await field(page, "port").fill("many");
			await button(page, "Review").click();
			await page.getByRole("alert").waitFor();
			await looks("refused");
			await go("/connectors/smarthost/edit");
			await field(page, "port").fill(String(site.upstream.port));
			await button(page, "Test").click();
			await page.getByTestId("conversation").waitFor();
			await looks("tried");
			await page.getByText("More settings").click();
			await field(page, "timeout").fill("10m");
			await button(page, "Review").click();
			await page.getByTestId("diff").waitFor();
			await looks("looked at");
			await go("/connectors/smarthost/edit");
			await button(page, "Remove this connector").click();
			await page.getByRole("alert").waitFor();
			await looks("still named");
			await go("/connectors/login/edit");
			await button(page, "Remove this connector").click();
			await page.getByTestId("diff").waitFor();
			await looks("removed");
		});
	}

	test("who may not change anything is offered nothing", async () => {
		for (const role of ["viewer", "operator"]) {
			const { page, go } = await visit(site, role);
			for (const [path] of pages(role)) {
				await go(path);
				for (const name of ["Apply", "Drop"]) assert.equal(await button(page, name).count(), 0, `${role} ${path}`);
				assert.equal(await page.locator("main a[href*='/edit'], main a[href='/connectors/new']").count(), 0, `${role} ${path}`);
			}
			for (const path of ["/connectors/new", "/connectors/login/edit"]) assert.equal((await go(path)).status(), 403, `${role} ${path}`);
		}
	});

	test("a proposal says what it is", async () => {
		const { page, go } = await visit(site, "viewer");
		await go(`/proposals/${site.open}`);
		const main = await page.locator("main").innerText();
		for (const part of ["More recipients", "open", "token"]) assert.ok(main.includes(part), `${part} in ${main}`);
		assert.match(await page.getByTestId("diff").innerText(), /^\+recipients = 50$/m);
		await go(`/proposals/${site.hostile}`);
		const text = await page.locator("main").innerText();
		assert.ok(text.includes(hostile.markup) && text.includes("\\u{202e}"), text);
		await go("/config");
		const rows = page.getByTestId("proposals").locator("tr[data-id]");
		assert.deepEqual(await rows.evaluateAll((rows) => rows.map((row) => row.dataset.id)), [site.dropped, site.applied, site.open, site.hostile]);
		assert.match(await rows.nth(0).innerText(), /dropped/);
	});
});

describe("the tasks of a change", () => {
	for (const [how, javaScriptEnabled] of both) {
		test(`change a password${how}`, async () => {
			const site = await Site.start({ admin: WRITE, login: SECRET });
			try {
				const { page, go } = await visit(site, "admin", { javaScriptEnabled });
				const { click, spent } = new Hands();
				await go("/");
				await click(page.getByRole("link", { name: "Connectors" }));
				await click(page.locator("tr[data-id=guarded]").getByRole("link", { name: /^Edit/ }));
				await field(page, "password").fill(SECRET);
				await click(button(page, "Review"));
				assert.match(await page.getByTestId("diff").innerText(), /^-password = "\*\*\*"$/m);
				await click(button(page, "Write now"));
				assert.match(await page.getByRole("status").first().innerText(), /written to the file and is in force/);
				assert.equal(new URL(page.url()).pathname, "/connectors/guarded");
				spent(5);
				const id = await site.send({ to: "kim@elsewhere.example" });
				await site.state(id, "done");
				assert.ok(!config(site).includes("hunter2"));
			} finally {
				await site.stop();
			}
		});

		test(`change a password, by way of a proposal${how}`, async () => {
			const site = await Site.start({ admin: WRITE, login: SECRET });
			try {
				const { page, go } = await visit(site, "admin", { javaScriptEnabled });
				const { click, spent } = new Hands();
				await go("/");
				await click(page.getByRole("link", { name: "Connectors" }));
				await click(page.locator("tr[data-id=guarded]").getByRole("link", { name: /^Edit/ }));
				await field(page, "password").fill(SECRET);
				await click(button(page, "Review"));
				await click(button(page, "Save as proposal"));
				await click(button(page, "Apply"));
				assert.match(await page.getByRole("status").first().innerText(), /is in force/);
				assert.equal(await button(page, "Apply").count(), 0);
				spent(5);
			} finally {
				await site.stop();
			}
		});

		test(`admit a refused device${how}`, async () => {
			const client = '\n[[client]]\nname = "erp"\nnetworks = ["127.0.0.1/32"]\n';
			const site = await Site.start({ admin: WRITE, sections: client });
			try {
				assert.match(await greeting(site, "127.0.0.7"), /^554 /);
				const { page, go } = await visit(site, "admin", { javaScriptEnabled });
				const { click, spent } = new Hands();
				await go("/");
				await click(page.locator("main").getByRole("link", { name: /refused$/ }));
				await click(page.getByRole("link", { name: "Adopt 127.0.0.7" }).first());
				await click(button(page, "Adopt"));
				await click(button(page, "Apply"));
				assert.match(await page.getByRole("status").first().innerText(), /is in force/);
				spent(4);
				assert.match(await greeting(site, "127.0.0.7"), /^220 /);
			} finally {
				await site.stop();
			}
		});

		test(`stop a connector, and start it${how}`, async () => {
			const { page, go } = await visit(site, "operator", { javaScriptEnabled });
			const { click, spent } = new Hands();
			await go("/");
			await click(page.getByRole("link", { name: "Connectors" }));
			const row = page.locator("tr[data-id=partner-mx]");
			await click(row.getByRole("link", { name: /^Stop/ }));
			await page.getByLabel(/^Why/).fill(`they move ${hostile.markup}`);
			await click(button(page, "Stop"));
			spent(3);
			assert.match(await page.getByRole("status").first().innerText(), /^It is stopped/);
			for (const path of ["/connectors/partner-mx", "/connectors"]) {
				await go(path);
				const text = await (path === "/connectors" ? row : page.locator("main")).innerText();
				assert.ok(text.includes(`stopped by operator: they move ${hostile.markup}`), text);
				assert.match(text, /Since \d{4}-/);
				assert.equal(await page.evaluate(() => window.owned), undefined);
			}
			assert.equal(await row.getByRole("link", { name: /^Stop/ }).count(), 0);
			await row.getByRole("button", { name: "Start" }).click();
			assert.match(await page.getByRole("status").first().innerText(), /^It is started/);
			assert.doesNotMatch(await page.locator(".standing").innerText(), /stopped/);
		});

		test(`a new connector, from nothing to the file${how}`, async () => {
			const site = await Site.start({ admin: WRITE, login: SECRET });
			try {
				const { page, go } = await visit(site, "admin", { javaScriptEnabled });
				await go("/connectors");
				await page.getByRole("link", { name: "New connector" }).click();
				await page.getByRole("link", { name: /^An SMTP server/ }).click();
				await field(page, "name").fill("spare");
				await field(page, "port").fill("many");
				await field(page, "tls").selectOption("off");
				await field(page, "username").fill("me");
				await field(page, "password").fill("wrong");
				// It says what is wrong, where.
				await button(page, "Test").click();
				assert.match(await page.getByRole("alert").innerText(), /nothing was tried/);
				const faultOf = (key) => page.locator(".field", { has: page.locator(`[name="${key}"]`) }).locator(".fault");
				assert.match(await faultOf("port").innerText(), /port takes a number/);
				assert.match(await faultOf("host").innerText(), /needs host/);
				await field(page, "host").fill("127.0.0.1");
				await field(page, "port").fill(String(site.upstream.port));
				await page.getByText("More settings").click();
				await field(page, "plaintext_credentials").selectOption("true");
				await button(page, "Test").click();
				assert.match(await page.getByTestId("conversation").innerText(), /535/);
				const checks = await page.getByTestId("checks").innerText();
				assert.match(checks, /greeting|tcp/);
				assert.match(checks, /failed\s+login/);
				assert.match(await page.getByRole("status").first().innerText(), /^misconfigured|^paused/);
				assert.equal(await field(page, "port").inputValue(), String(site.upstream.port));
				assert.equal(await field(page, "password").inputValue(), "");
				await field(page, "password").fill(SECRET);
				await page.getByLabel(/^To /).fill("kim@elsewhere.example");
				await button(page, "Test").click();
				assert.match(await page.getByRole("status").first().innerText(), /^delivered/);
				assert.ok(!(await page.content()).includes("hunter2"), "it is not in the page");
				// From here on the password is not typed again.
				await button(page, "Review").click();
				assert.match(await page.getByTestId("diff").innerText(), /^\+name = "spare"$/m);
				assert.ok(!(await page.content()).includes("hunter2"));
				// What was looked at is what is written, or it is looked at again.
				await field(page, "timeout").fill("10m");
				await button(page, "Write now").click();
				assert.match(await page.getByRole("alert").innerText(), /changed after the review/);
				assert.match(await page.getByTestId("diff").innerText(), /^\+timeout = "10m"$/m);
				await button(page, "Write now").click();
				assert.equal(new URL(page.url()).pathname, "/connectors/spare");
				const text = config(site);
				assert.match(text, /\n\[\[connector\]\]\nname = "spare"\ntype = "smtp"\n/);
				assert.ok(!text.includes("hunter2"));
				const secrets = join(site.dir, "data/secrets");
				const [file] = readdirSync(secrets);
				assert.equal(readFileSync(join(secrets, file), "utf8"), SECRET);
				await page.getByLabel("To", { exact: true }).fill("kim@elsewhere.example");
				await button(page, "Send the test").click();
				assert.match(await page.getByRole("status").first().innerText(), /^delivered/);
			} finally {
				await site.stop();
			}
		});

		test(`a proposal, and the command for it${how}`, async () => {
			const site = await Site.start({ sections: withPassword() });
			try {
				const { page, go } = await visit(site, "admin", { javaScriptEnabled });
				await go("/config");
				assert.match(await page.locator("main").innerText(), /an admin can propose changes/);
				// A saved password goes nowhere new.
				await go("/connectors/login/edit");
				await field(page, "host").fill("127.0.0.2");
				await button(page, "Review").click();
				const fault = page.locator(".field", { has: page.locator('[name="password"]') }).locator(".fault");
				assert.match(await fault.innerText(), /say password again/);
				assert.equal(await field(page, "host").inputValue(), "127.0.0.2");
				await field(page, "password").fill(SECRET);
				await button(page, "Review").click();
				assert.equal(await button(page, "Write now").count(), 0);
				await page.getByLabel("What for").fill("It has moved");
				await button(page, "Save as proposal").click();
				await page.waitForURL((url) => url.pathname === "/proposals/p1");
				assert.match(await page.locator("main").innerText(), /It has moved[^]*postern config apply p1/);
				assert.equal(await button(page, "Apply").count(), 0);
				site.command("config", "apply", "p1", "--yes");
				await page.reload();
				assert.match(await page.locator("main").innerText(), /applied/);
				assert.match(config(site), /host = "127.0.0.2"/);
				// What only the file says is shown, and cannot be changed.
				await go("/connectors/login/edit");
				assert.match(await page.getByLabel("overrides").inputValue(), /throttled/);
				assert.equal(await page.getByLabel("overrides").isEditable(), false);
				// Somebody edits the file meanwhile.
				await field(page, "username").fill("you");
				writeFileSync(join(site.dir, "config.toml"), `${config(site)}# more\n`);
				await button(page, "Review").click();
				assert.match(await page.getByRole("alert").innerText(), /changed the file since/);
				assert.equal(await field(page, "username").inputValue(), "you");
				await button(page, "Review").click();
				assert.match(await page.getByTestId("diff").innerText(), /^\+username = "you"/m);
				// It can be given up.
				await button(page, "Save as proposal").click();
				await button(page, "Drop").click();
				assert.match(await page.getByRole("status").first().innerText(), /was dropped/);
			} finally {
				await site.stop();
			}
		});

		test(`a connector goes, once no route names it${how}`, async () => {
			const { page, go } = await visit(site, "admin", { javaScriptEnabled });
			await go("/connectors/smarthost/edit");
			await button(page, "Remove this connector").click();
			assert.match(await page.getByTestId("problems").innerText(), /there is no \[\[connector\]\] named "smarthost"/);
			assert.equal(await button(page, "Save as proposal").count(), 0);
			await go("/connectors/login/edit");
			await button(page, "Remove this connector").click();
			assert.match(await page.getByTestId("diff").innerText(), /^-name = "login"$/m);
			await button(page, "Save as proposal").click();
			await button(page, "Drop").click();
		});
	}

	test("change a password, by keys", async () => {
		const site = await Site.start({ admin: WRITE, login: SECRET });
		try {
			const { page, go } = await visit(site, "admin");
			const key = (name) => page.keyboard.press(name);
			const at = (path) => page.waitForURL((url) => url.pathname === path);
			/** With Tab alone. */
			const tabTo = async (target) => {
				for (let presses = 0; presses < 80; presses += 1) {
					if (await target.evaluate((element) => element === document.activeElement)) return;
					await key("Tab");
				}
				assert.fail("it is not reached by Tab");
			};
			await go("/");
			await key("g");
			await key("c");
			await at("/connectors");
			await tabTo(page.locator("tr[data-id=guarded]").getByRole("link", { name: /^Edit/ }));
			await key("Enter");
			await at("/connectors/guarded/edit");
			await tabTo(field(page, "password"));
			await page.keyboard.type(SECRET);
			// Enter in a field looks at it, and saves nothing.
			await key("Enter");
			await page.getByTestId("diff").waitFor();
			await tabTo(button(page, "Write now"));
			await key("Enter");
			await at("/connectors/guarded");
			await key("Escape");
			await at("/connectors");
			await key("g");
			await key("f");
			await at("/config");
			await key("j");
			await key("Enter");
			await at("/proposals/p1");
		} finally {
			await site.stop();
		}
	});
});

describe("a form", () => {
	test("keeps what is typed as a secret for its session alone", async () => {
		const { page, go } = await visit(site, "admin");
		await go("/connectors/login/edit");
		await field(page, "host").fill("127.0.0.2");
		await field(page, "password").fill(SECRET);
		await button(page, "Review").click();
		await page.getByTestId("diff").waitFor();
		const name = await field(page, "typed").inputValue();
		assert.ok(name.length > 40);
		const other = await visit(site, "admin");
		await other.go("/logout");
		await other.go("/connectors/login/edit");
		// The same name in the form of nobody's: it says that it has to be typed again, and nothing is saved.
		await other.page.evaluate(() => {
			const typed = document.createElement("input");
			[typed.type, typed.name, typed.value] = ["hidden", "typed", "x".repeat(43)];
			document.querySelector("[data-testid=connector-form]").append(typed);
		});
		await button(other.page, "Review").click();
		assert.match(await other.page.getByRole("alert").innerText(), /type it again/);
		assert.equal(await other.page.getByTestId("diff").count(), 0);
	});

	test("shows the fields of a provider, and takes a whole table away", async () => {
		const { page, go } = await visit(site, "admin", { javaScriptEnabled: false });
		await go("/connectors/new?type=smtp&service=Gmail");
		assert.match(await page.locator("main").innerText(), /smtp\.gmail\.com, port 465/);
		await field(page, "name").fill("gmail");
		await page.getByText(/^Tokens/).click();
		await field(page, "oauth.provider").selectOption("google");
		await button(page, "Show the provider's fields").click();
		await field(page, "oauth.mailbox").fill("kim@corp.example");
		await field(page, "oauth.client_id").fill("1.apps.googleusercontent.com");
		await field(page, "oauth.client_secret").fill("one");
		await field(page, "oauth.refresh_token").fill("two");
		await button(page, "Review").click();
		const diff = await page.getByTestId("diff").innerText();
		assert.match(diff, /\+service = "Gmail"[^]*\+\[connector\.oauth\]\n\+provider = "google"/);
		await button(page, "Write now").click();
		assert.equal(new URL(page.url()).pathname, "/connectors/gmail");
		await go("/connectors/gmail/edit");
		await field(page, "oauth.provider").selectOption("");
		await button(page, "Review").click();
		assert.match(await page.getByTestId("diff").innerText(), /^-\[connector\.oauth\]$/m);
	});

	test("says that a name is taken", async () => {
		const { page, go } = await visit(site, "admin");
		await go("/connectors/new?type=discard");
		await field(page, "name").fill("smarthost");
		await button(page, "Review").click();
		assert.match(await page.locator(".fault").innerText(), /there is one already: connector smarthost/);
	});

	test("of a connector that is called new", async () => {
		const { page, go } = await visit(site, "admin");
		await go("/connectors/new?type=discard");
		await field(page, "name").fill("new");
		await button(page, "Review").click();
		await button(page, "Write now").click();
		assert.match(await page.locator("h1").innerText(), /^Connector new$/);
		await page.getByRole("link", { name: "Edit" }).click();
		assert.match(await page.locator("h1").innerText(), /^Edit connector new$/);
	});
});

describe("what may not be written", () => {
	test("is not offered", async () => {
		const off = await Site.start({ admin: 'write_config = "off"' });
		try {
			const { page, go } = await visit(off, "admin");
			await go("/config");
			assert.match(await page.locator("main").innerText(), /it cannot be changed/);
			await go("/connectors");
			assert.equal(await page.getByRole("link", { name: /^(New|Edit)/ }).count(), 0);
			for (const path of ["/connectors/new", "/connectors/smarthost/edit"]) {
				assert.equal((await go(path)).status(), 403);
				assert.match(await page.getByRole("alert").innerText(), /write_config is off/);
			}
		} finally {
			await off.stop();
		}
	});
});

describe("it lives", () => {
	test("proposals come and go as commands make them", async () => {
		const site = await Site.start();
		try {
			const { page, go } = await visit(site, "viewer");
			const isLive = () => until("the stream", async () => (await page.getByTestId("live").innerText()) === "live");
			await go("/config");
			await isLive();
			const id = await propose(site, hostile.markup, [limit("recipients", 50)]);
			await page.getByRole("button", { name: "1 new" }).click();
			const row = page.locator(`tr[data-id=${id}]`);
			assert.match(await row.innerText(), /open/);
			assert.ok((await row.innerText()).includes(hostile.markup));
			assert.equal(await page.evaluate(() => window.owned), undefined);
			const admin = await visit(site, "admin");
			await admin.go(`/proposals/${id}`);
			await until("the stream", async () => (await admin.page.getByTestId("live").innerText()) === "live");
			site.command("config", "apply", id, "--yes");
			await until("the row to change", async () => /applied/.test(await row.innerText()));
			await until("the page to change", async () => /applied/.test(await admin.page.locator("[data-f=state]").innerText()));
			assert.equal(await button(admin.page, "Drop").count(), 0);
		} finally {
			await site.stop();
		}
	});
});
