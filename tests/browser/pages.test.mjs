// Every page of the window, in a real browser: as each role, light and dark, with script and without, wide and narrow.
//
// Needs POSTERN (the binary) and, of Node's packages, playwright-core and axe-core; CHROMIUM is where the browser is.
// PICTURES is a directory that every page is drawn into.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Site, hostile, roles, until } from "./site.mjs";
import { Hands, close, isAccessible, isClean, launch, leave, looksRight, picture, readsRight, sideways, visit } from "./visit.mjs";

let browser;
const sites = {};

before(async () => {
	browser = await launch();
	for (const kind of ["empty", "calm", "troubled"]) sites[kind] = await Site.start();
	await sites.calm.calm();
	await sites.troubled.trouble();
});
after(async () => {
	await close();
	await Promise.all(Object.values(sites).map((site) => site.stop()));
});
afterEach(leave);

/** Each page with its word. */
function pages(site, role) {
	const all = [
		["/", "overview"],
		["/messages", "messages"],
		["/messages?all=true", "messages"],
		["/messages?state=held&sender=*%40corp.example", "messages"],
		["/connectors", "connectors"],
		["/connectors/partner-mx", "connector"],
		["/try", "try"],
		["/try?from=erp%40corp.example&to=ben%40partner.example&client=127.0.0.1", "try"],
		["/try?from=erp%40corp.example&to=ben%40partner.example&client=192.0.2.1", "try"],
		["/config", "config"],
		["/nothing-here", "problem"],
	];
	for (const id of [site.delivered, site.waiting, site.failed, site.held, ...(site.hostile ?? [])]) {
		if (id) all.push([`/messages/${id}`, "message"]);
	}
	if (role === "admin") all.push(["/audit", "audit"]);
	return all;
}

describe("every page", () => {
	// All roles where there is most to be seen; of the others who sees the most.
	for (const [kind, who] of [["empty", ["admin"]], ["calm", ["admin"]], ["troubled", roles]]) {
		for (const role of who) {
			for (const colorScheme of ["light", "dark"]) {
				test(`${kind}, ${role}, ${colorScheme}`, () => looksRight(sites[kind], { kind, role, colorScheme }, pages(sites[kind], role)));
			}
			test(`${kind}, ${role}, without script`, () => readsRight(sites[kind], role, pages(sites[kind], role)));
		}
	}

	test("the login", async () => {
		for (const colorScheme of ["light", "dark"]) {
			const context = await browser.newContext({ colorScheme, viewport: { width: 320, height: 700 } });
			const page = await context.newPage();
			const { url } = sites.calm;
			await page.goto(`${url}/messages?state=held`);
			assert.equal(new URL(page.url()).pathname, "/login");
			await isAccessible(page, "/login");
			assert.equal(await page.evaluate(sideways), 0);
			await picture(page, "login", colorScheme);
			await page.getByLabel("Name").fill("viewer");
			await page.getByLabel("Password").fill("wrong");
			await page.getByRole("button", { name: "Log in" }).click();
			assert.equal(await page.getByRole("alert").count(), 1);
			await isAccessible(page, "/login, refused");
			await picture(page, "login-refused", colorScheme);
			// A link of `postern admin login` says so first.
			const link = sites.calm.command("admin", "login", "--role", "viewer").match(/http\S+/)[0];
			await page.goto(url + new URL(link).pathname + new URL(link).search);
			await isAccessible(page, "/login?code");
			await page.getByRole("button", { name: "Continue" }).click();
			await page.waitForURL(`${url}/`);
			await page.getByRole("button", { name: "Log out" }).click();
			await page.waitForURL(`${url}/login`);
			await context.close();
		}
	});

	test("what a role lacks is not there", async () => {
		const site = sites.troubled;
		const viewer = await visit(site, "viewer");
		for (const [path] of pages(site, "viewer")) {
			await viewer.go(path);
			assert.equal(await viewer.page.locator("main form[method=post]:not(:has(table)) button").count(), 0, path);
			assert.equal(await viewer.page.locator("nav a[href='/audit']").count(), 0, path);
		}
		const operator = await visit(site, "operator");
		await operator.go(`/messages/${site.held}`);
		assert.equal(await operator.page.getByRole("button", { name: "Show header and body" }).count(), 0);
		assert.equal((await operator.go("/audit")).status(), 403);
		assert.equal(await operator.page.getByRole("alert").count(), 1);
	});
});

describe("hostile mail", () => {
	test("is text on every page", async () => {
		const site = sites.troubled;
		const visited = await visit(site, "admin");
		const { page, go } = visited;
		for (const [path] of pages(site, "admin")) {
			await go(path);
			await isClean(page, path);
		}
		for (const id of site.hostile) {
			await go(`/messages/${id}`);
			await page.getByRole("button", { name: "Show header and body" }).click();
			await isClean(page, `content of ${id}`);
			assert.ok((await page.getByTestId("content").innerText()).length > 100);
		}
		await go(`/messages/${site.failed}`);
		const life = await page.getByTestId("life").innerText();
		assert.ok(life.includes("<script>window.owned = true</script>"), life);
		await go(`/messages/${site.hostile[0]}`);
		assert.ok((await page.locator("main").innerText()).includes(hostile.markup.slice(0, 8)));
	});
});

test("a subject is seen by whoever may, on the list and on the message", async () => {
	const site = sites.troubled;
	for (const [role, sees] of [["operator", true], ["viewer", false]]) {
		const { page, go } = await visit(site, role);
		for (const path of ["/messages", `/messages/${site.waiting}`]) {
			await go(path);
			assert.equal((await page.locator("main").innerText()).includes("Order 7"), sees, `${role}, ${path}`);
		}
	}
});

describe("the tasks", () => {
	test("is mail flowing", async () => {
		const calm = await visit(sites.calm, "viewer");
		await calm.go("/");
		assert.equal(await calm.page.getByTestId("verdict").innerText(), "Mail flows");
		const troubled = await visit(sites.troubled, "viewer");
		await troubled.go("/");
		assert.match(await troubled.page.getByTestId("verdict").innerText(), /^\d+ things? needs? you$/);
	});

	for (const javaScriptEnabled of [true, false]) {
		const how = javaScriptEnabled ? "" : ", without script";
		test(`where is a mail, and why does it wait${how}`, async () => {
			const site = sites.troubled;
			const visited = await visit(site, "viewer", { javaScriptEnabled });
			const { page, go } = visited;
			const { click, spent } = new Hands();
			await go("/");
			await page.getByRole("search").getByRole("searchbox").fill(site.waiting);
			await click(page.getByRole("button", { name: "Search" }));
			await click(page.locator(`tr[data-id="${site.waiting}"] a`).first());
			assert.match(await page.locator("main").innerText(), /Waits for: /);
			assert.match(await page.getByTestId("life").innerText(), /Connection refused/);
			spent(2);
		});

		test(`retry all of a connector${how}`, async () => {
			const visited = await visit(sites.troubled, "operator", { javaScriptEnabled });
			const { page, go } = visited;
			const { click, spent } = new Hands();
			await go("/");
			await click(page.getByRole("link", { name: "Connectors" }));
			await click(page.locator("tr[data-id=partner-mx]").getByRole("button", { name: "Try now" }));
			assert.match(await page.getByRole("status").first().innerText(), /^\d+ messages? will be tried now/);
			spent(3);
		});

		test(`test a connector${how}`, async () => {
			const visited = await visit(sites.calm, "operator", { javaScriptEnabled });
			const { page, go } = visited;
			const { click, spent } = new Hands();
			await go("/");
			await click(page.getByRole("link", { name: "Connectors" }));
			await click(page.locator("tr[data-id=smarthost]").getByRole("link", { name: /^Test/ }));
			await page.getByLabel("To", { exact: true }).fill("kim@elsewhere.example");
			await click(page.getByRole("button", { name: "Send the test" }));
			assert.match(await page.getByTestId("conversation").innerText(), /EHLO/);
			spent(3);
		});
	}

	test("all by keys", async () => {
		const site = sites.troubled;
		const visited = await visit(site, "operator");
		const { page, go } = visited;
		await go("/");
		const at = (path) => page.waitForURL((url) => url.pathname === path);
		for (const [key, path] of [["m", "/messages"], ["c", "/connectors"], ["d", "/devices"], ["t", "/try"], ["f", "/config"], ["i", "/incidents"], ["o", "/"]]) {
			await page.keyboard.press("g");
			await page.keyboard.press(key);
			await at(path);
		}
		await page.keyboard.press("/");
		await page.keyboard.type(site.waiting);
		await page.keyboard.press("Enter");
		await at("/messages");
		await page.keyboard.press("j");
		await page.keyboard.press("Enter");
		await at(`/messages/${site.waiting}`);
		await page.keyboard.press("Escape");
		await at("/messages");
		await page.keyboard.press("?");
		const help = page.getByRole("dialog");
		await help.waitFor();
		await isAccessible(page, "help");
		await page.getByRole("switch").uncheck();
		await page.keyboard.press("Escape");
		await help.waitFor({ state: "hidden" });
		await page.keyboard.press("g");
		await page.keyboard.press("o");
		await page.keyboard.press("?");
		assert.equal(await help.isVisible(), false);
		assert.equal(new URL(page.url()).pathname, "/messages");
		await page.reload();
		await page.getByRole("button", { name: "Keys" }).click();
		await page.getByRole("switch").check();
	});
});

describe("verbs", () => {
	for (const javaScriptEnabled of [true, false]) {
		test(`of what is ticked, and of a filter${javaScriptEnabled ? "" : ", without script"}`, async () => {
			const site = await Site.start();
			try {
				const { page, go } = await visit(site, "operator", { javaScriptEnabled });
				const button = (name) => page.getByRole("button", { name, exact: true });
				const mails = Array.from({ length: 54 }, (_, n) => ({ to: `n${n}@partner.example` }));
				const ids = [];
				while (mails.length) ids.push(...(await Promise.all(mails.splice(0, 18).map((mail) => site.send(mail)))));
				// As the list has them: the newest first.
				ids.sort();
				await site.state(ids[0], "waiting");
				await go("/messages");
				await button("Hold").click();
				assert.match(await page.getByRole("alert").innerText(), /No message is ticked/);
				await page.locator(`input[value="${ids[53]}"]`).check();
				await page.locator(`input[value="${ids[52]}"]`).check();
				await button("Hold").click();
				assert.match(await page.getByRole("status").first().innerText(), /^2 messages held/);
				assert.equal((await site.entries()).filter((entry) => entry.state === "held").length, 2);
				// What cannot be undone is asked about.
				await page.locator(`input[value="${ids[53]}"]`).check();
				await button("Drop").click();
				assert.match(await page.locator("h1").innerText(), /^Drop 1 message/);
				if (javaScriptEnabled) await isAccessible(page, "the question");
				await button("Drop 1").click();
				assert.match(await page.getByRole("status").first().innerText(), /^1 message dropped/);
				// Above fifty the number is typed.
				await page.getByLabel("All of this filter").check();
				await button("Hold").click();
				assert.match(await page.locator("h1").innerText(), /^Hold 52 messages/);
				await page.getByRole("textbox", { name: /^Type 52/ }).fill("52");
				await button("Hold 52").click();
				await page.getByRole("status").first().waitFor();
				assert.ok(site.entries().filter((entry) => entry.state !== "done").every((entry) => entry.state === "held"));
			} finally {
				await site.stop();
			}
		});
	}
});

describe("it lives", () => {
	test("what changes elsewhere changes here", async () => {
		const site = await Site.start();
		try {
			const visited = await visit(site, "operator");
			const { page, go } = visited;
			await go("/messages");
			await until("the stream", async () => (await page.getByTestId("live").innerText()) === "live");
			const id = await site.send({ to: "ben@partner.example" });
			const fresh = page.getByRole("button", { name: "1 new" });
			await fresh.waitFor();
			assert.equal(await page.locator("tr[data-id]").count(), 0);
			await fresh.click();
			const row = page.locator(`tr[data-id="${id}"]`);
			assert.match(await row.innerText(), /waiting|sending/);
			site.command("queue", "hold", id);
			await until("the row to change", async () => /held/.test(await row.innerText()));
		} finally {
			await site.stop();
		}
	});
});

test("all assets and the largest page are under 100 KB, compressed", async () => {
	const { gzipSync } = await import("node:zlib");
	const visited = await visit(sites.troubled, "admin");
	const { page, go } = visited;
	const assets = new Map();
	page.on("response", async (response) => {
		if (!response.url().includes("/assets/")) return;
		// One that came while the page was left has no body any more; it is asked for again on the next page.
		const body = await response.body().catch(() => undefined);
		if (body) assets.set(response.url(), gzipSync(body).length);
	});
	let largest = 0;
	for (const [path] of pages(sites.troubled, "admin")) {
		const answer = await go(path);
		largest = Math.max(largest, gzipSync(await answer.body()).length);
	}
	const octets = [...assets.values()].reduce((sum, one) => sum + one, 0);
	assert.ok(assets.size >= 3 && octets > 5_000 && octets + largest < 100 * 1024, `${octets} and ${largest}`);
});
