// The pages to watch with: incidents, devices, refusals, captures; the overview's part in them; and that all of it changes by itself.
//
// Needs what `pages.test.mjs` needs.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Site, hostile, roles, until } from "./site.mjs";
import { Hands, close, isAccessible, isClean, launch, leave, looksRight, readsRight, visit } from "./visit.mjs";
import { Watched } from "./watched.mjs";

let empty;
let watched;
before(async () => {
	await launch();
	empty = await Site.start();
	watched = await Watched.start();
	await watched.fill();
});
after(async () => {
	await close();
	await empty?.stop();
	await watched?.stop();
});
afterEach(leave);

const lists = [
	["/", "overview"],
	["/incidents", "incidents"],
	["/incidents?state=acknowledged", "incidents"],
	["/devices", "devices"],
	["/devices?client=none&refused=true", "devices"],
	["/refused", "refused"],
	["/refused?address=192.0.2.1", "refused"],
];
function pages(role) {
	const all = [
		...lists,
		[`/incidents/${watched.closed}`, "incident"],
		[`/incidents/${watched.failed}`, "incident"],
		["/incidents/i9999", "problem"],
		...["127.0.0.1", "127.0.0.5", "127.0.0.6", "127.0.0.9"].map((address) => [`/devices/${address}`, "device"]),
		["/devices/192.0.2.1", "problem"],
	];
	if (role !== "viewer") all.push([`/captures/${watched.capture}`, "capture"]);
	return all;
}

describe("every page", () => {
	test("empty, light", () => looksRight(empty, { kind: "nothing", role: "admin", colorScheme: "light" }, lists));
	for (const role of roles) {
		for (const colorScheme of ["light", "dark"]) {
			test(`${role}, ${colorScheme}`, () => looksRight(watched.site, { kind: "watched", role, colorScheme }, pages(role)));
		}
		test(`${role}, without script`, () => readsRight(watched.site, role, pages(role)));
	}

	test("what a role lacks is not there", async () => {
		const viewer = await visit(watched.site, "viewer");
		for (const [path] of pages("viewer")) {
			await viewer.go(path);
			assert.equal(await viewer.page.locator("main form[method=post]:not(:has(table)) button").count(), 0, path);
			assert.equal(await viewer.page.getByRole("button", { name: /Adopt|Learn|Capture|Acknowledge|^Test/ }).count(), 0, path);
			assert.equal(await viewer.page.getByRole("link", { name: /^Adopt/ }).count(), 0, path);
		}
		assert.equal((await viewer.go(`/captures/${watched.capture}`)).status(), 403);
		const operator = await visit(watched.site, "operator");
		for (const path of ["/devices", "/devices/127.0.0.5", "/refused"]) {
			await operator.go(path);
			assert.equal(await operator.page.getByRole("button", { name: /Adopt|Learn/ }).count(), 0, path);
			assert.equal(await operator.page.getByRole("link", { name: /^Adopt/ }).count(), 0, path);
		}
	});

	test("a filter that is none is said, and the list is there", async () => {
		const { page, go } = await visit(watched.site, "viewer");
		for (const path of ["/incidents?state=gone", "/devices?refused=perhaps", "/refused?cursor=x"]) {
			assert.equal((await go(path)).status(), 400, path);
			assert.equal(await page.getByRole("alert").count(), 1, path);
			assert.ok((await page.locator("tr[data-id]").count()) > 0, path);
		}
	});
});

describe("hostile clients", () => {
	test("are text on every page", async () => {
		const { page, go } = await visit(watched.site, "admin");
		for (const [path] of pages("admin")) {
			await go(path);
			await isClean(page, path);
			assert.ok((await page.content()).length < 400_000, path);
		}
		await go("/refused");
		assert.ok((await page.getByTestId("refused").innerText()).includes("<script>window.owned=true</script>"));
		await go("/devices/127.0.0.6");
		assert.ok((await page.getByTestId("refusals").innerText()).includes('sender <"<script>owned=1</script>"@evil.example>'));
		await go(`/captures/${watched.capture}`);
		const said = await page.getByTestId("capture").innerText();
		assert.ok(said.includes(hostile.markup), said);
		assert.ok(said.includes("\\x1b\\xff"), said);
		// Its link to /try says the same, and is no markup there either.
		await go("/refused?address=127.0.0.6");
		await page.getByRole("link", { name: "Try it" }).first().click();
		await page.waitForURL((url) => url.pathname === "/try");
		await isClean(page, "/try");
		assert.equal(await page.getByLabel(/^Client address/).inputValue(), "127.0.0.6");
	});

	test("what a page says of them is the same without script", async () => {
		const plain = await visit(watched.site, "admin", { javaScriptEnabled: false });
		const live = await visit(watched.site, "admin");
		for (const path of ["/devices", "/refused", "/devices/127.0.0.6", `/captures/${watched.capture}`, `/incidents/${watched.closed}`]) {
			const texts = [];
			for (const { page, go } of [plain, live]) {
				await go(path);
				// Again, as the script writes it.
				if (page === live.page) await until("the stream", async () => (await page.getByTestId("live").innerText()) === "live");
				await page.waitForTimeout(page === live.page ? 1_500 : 0);
				const main = page.locator("main");
				texts.push((await main.evaluate((main) => {
					main.querySelectorAll("time, template, .box, [hidden]").forEach((one) => one.remove());
					return main.textContent.replace(/\s+/g, "");
				})).replaceAll("–", ""));
			}
			assert.equal(texts[1], texts[0], path);
		}
	});
});

describe("the tasks", () => {
	for (const javaScriptEnabled of [true, false]) {
		const how = javaScriptEnabled ? "" : ", without script";
		test(`why was this printer refused${how}`, async () => {
			const { page, go } = await visit(watched.site, "viewer", { javaScriptEnabled });
			const { click, spent } = new Hands();
			await go("/");
			await click(page.locator("main").getByRole("link", { name: /refused$/ }));
			const row = page.getByTestId("refused").locator('tr[data-id="127.0.0.5"]').first();
			assert.match(await row.innerText(), /554 5\.7\.1 127\.0\.0\.5 is in no \[\[client\]\]/);
			await click(row.getByRole("link").first());
			assert.equal(await page.locator("h1").innerText(), "Device 127.0.0.5");
			assert.match(await page.getByTestId("refusals").innerText(), /554 5\.7\.1/);
			spent(2);
		});

		test(`admit a refused device${how}`, async () => {
			const printer = javaScriptEnabled ? "127.0.0.5" : "127.0.0.7";
			const { page, go } = await visit(watched.site, "admin", { javaScriptEnabled });
			const { click, spent } = new Hands();
			await go("/");
			await click(page.locator("main").getByRole("link", { name: /refused$/ }));
			await click(page.getByTestId("refused").getByRole("link", { name: `Adopt ${printer}` }).first());
			await click(page.getByRole("button", { name: "Adopt" }));
			await page.waitForURL((url) => url.pathname.startsWith("/proposals/p"));
			assert.match(await page.getByTestId("diff").innerText(), new RegExp(`\\+networks = \\["${printer}"\\]`));
			await click(page.getByRole("button", { name: "Apply" }));
			assert.match(await page.getByRole("status").first().innerText(), /in force/);
			spent(4);
			const [greeting] = await watched.talk(printer, "NOOP");
			assert.match(greeting, /^220 /);
		});

		test(`acknowledge${how}`, async () => {
			watched.site.command("connector", "stop", "smarthost", "--why", "the provider moves");
			const { id } = await watched.incident("connector_stopped", (incident) => incident.state === "open");
			const { page, go } = await visit(watched.site, "operator", { javaScriptEnabled });
			const { click, spent } = new Hands();
			await go("/");
			await click(page.locator("#needs").getByRole("link", { name: /smarthost was stopped/ }));
			assert.match(await page.getByTestId("remedy").innerText(), /postern connector start NAME lets it send again/);
			await page.getByLabel(/^Note/).fill("Kim calls the provider");
			await click(page.getByRole("button", { name: "Acknowledge" }));
			assert.match(await page.getByRole("status").first().innerText(), /looked after/);
			assert.equal((await watched.ask("GET", `/incidents/${id}`)).note, "Kim calls the provider");
			spent(2);
			await go("/");
			assert.equal(await page.locator("#needs").getByRole("link", { name: /smarthost/ }).count(), 0);
			assert.equal(await page.getByRole("link", { name: "1 incident is looked after" }).count(), 1);
			watched.site.command("connector", "start", "smarthost");
			await watched.incident("connector_stopped", (incident) => incident.state === "recovered");
		});
	}

	test("by keys", async () => {
		const { page, go } = await visit(watched.site, "admin");
		const at = (path) => page.waitForURL((url) => url.pathname === path);
		const keys = async (...all) => {
			for (const key of all) await page.keyboard.press(key);
		};
		await go("/");
		await keys("g", "i");
		await at("/incidents");
		await keys("j", "Enter");
		await page.waitForURL(/\/incidents\/i\d+$/);
		await keys("Escape");
		await at("/incidents");
		await keys("g", "d");
		await at("/devices");
		// The first row of the page is a candidate.
		await keys("j", "x");
		assert.equal(await page.getByRole("checkbox", { name: "Tick 127.0.0.9" }).isChecked(), true);
		await page.getByLabel("Name of the client").fill("sensors");
		await keys("Enter");
		await page.waitForURL(/\/proposals\/p\d+/);
		const id = new URL(page.url()).pathname.split("/").at(-1);
		const { diff } = await watched.ask("GET", `/proposals/${id}`);
		assert.match(diff, /\+tolerance = "device"/);
		assert.match(diff, /\+senders = \["sensor@corp\.example"\]/);
		await watched.ask("POST", `/proposals/${id}/drop`);
	});

	test("adopting nobody, or under a name that is taken, says so where it was asked", async () => {
		const { page, go } = await visit(watched.site, "admin");
		await go("/devices");
		await page.getByLabel("Name of the client").fill("sensors");
		await page.getByRole("button", { name: "Adopt" }).click();
		assert.match(await page.getByRole("alert").innerText(), /No device is ticked/);
		await go("/devices/127.0.0.6");
		await page.getByLabel("Name of the client").fill("erp");
		await page.getByRole("button", { name: "Adopt" }).click();
		assert.match(await page.getByRole("alert").innerText(), /erp/);
		assert.equal(await page.locator("h1").innerText(), "Device 127.0.0.6");
		assert.equal(await page.getByLabel("Name of the client").inputValue(), "erp");
		await isAccessible(page, "a refused adoption");
	});

	test("a channel is tested", async () => {
		const { page, go } = await visit(watched.site, "operator");
		await go("/incidents");
		await page.getByRole("button", { name: "Test oncall" }).click();
		assert.match(await page.getByTestId("tried").innerText(), /oncall took the test/);
		await go(`/incidents/${watched.failed}`);
		await page.getByRole("button", { name: "Test pager" }).first().click();
		assert.match(await page.getByTestId("tried").innerText(), /pager did not take the test: .*503/);
		await isAccessible(page, "a tested channel");
	});
});

describe("it lives", () => {
	const live = async (page) => until("the stream", async () => (await page.getByTestId("live").innerText()) === "live");

	test("learning, what is refused, and who comes", async () => {
		const site = await Watched.start();
		try {
			const admin = await visit(site.site, "admin");
			const list = await visit(site.site, "viewer");
			const overview = await visit(site.site, "viewer");
			await list.go("/refused");
			await overview.go("/");
			await live(list.page);
			await live(overview.page);
			await admin.go("/devices");
			await admin.page.getByLabel(/^Networks/).fill("8.8.8.0/24");
			await admin.page.getByRole("button", { name: "Learn" }).click();
			assert.match(await admin.page.getByRole("alert").innerText(), /no private network/);
			await admin.page.getByLabel(/^Networks/).fill("127.0.0.9, 127.0.0.10");
			await admin.page.getByRole("button", { name: "Learn" }).click();
			assert.match(await admin.page.getByRole("status").first().innerText(), /Learning is on/);
			await until("the overview says so", () => overview.page.locator("#learning").isVisible());
			assert.match(await overview.page.locator("#learning").innerText(), /127\.0\.0\.9\/32, 127\.0\.0\.10\/32/);
			await live(admin.page);
			await site.talk("127.0.0.5", "HELO copier");
			const fresh = list.page.getByRole("button", { name: "1 new" });
			await fresh.waitFor();
			assert.equal(await list.page.locator("tbody tr[data-id]").count(), 0);
			await fresh.click();
			const row = list.page.locator('tr[data-id="127.0.0.5"]');
			assert.match(await row.innerText(), /connect/);
			assert.match(await row.getByRole("link", { name: "Try it" }).getAttribute("href"), /^\/try\?client=127\.0\.0\.5&listener=lan$/);
			await admin.page.getByRole("button", { name: "1 new" }).click();
			const device = admin.page.getByTestId("devices").locator('tr[data-id="127.0.0.5"]');
			const refused = device.locator("[data-f=refused]");
			const before = Number(await refused.innerText());
			await site.talk("127.0.0.5", "HELO copier");
			await until("the row to count", async () => Number(await refused.innerText()) > before);
			await until("the overview to count", async () => Number(await overview.page.locator('[data-day="refused"]').innerText()) > 1, 40);
			await site.talk("127.0.0.9", "MAIL FROM:sensor@corp.example", "RCPT TO:<anna@corp.example>", "DATA", "Subject: 21 degrees\r\n\r\nwarm\r\n.");
			await admin.page.getByRole("button", { name: "1 new candidate" }).click();
			await admin.page.getByTestId("candidates").locator('tr[data-id="127.0.0.9"]').waitFor();
			await admin.page.getByRole("button", { name: "Stop learning" }).click();
			assert.match(await admin.page.getByRole("status").first().innerText(), /Learning is off/);
			await until("the overview says no more", async () => !(await overview.page.locator("#learning").isVisible()));
		} finally {
			await site.stop();
		}
	});

	test("incidents open, are acknowledged by a command, and recover", async () => {
		const site = await Watched.start();
		try {
			const list = await visit(site.site, "viewer");
			const overview = await visit(site.site, "viewer");
			await list.go("/incidents");
			await overview.go("/");
			await live(list.page);
			await live(overview.page);
			await site.site.send({ to: "fail@elsewhere.example" });
			await list.page.getByRole("button", { name: "1 new" }).click();
			const row = list.page.locator("[data-testid=incidents] tr[data-id]");
			assert.match(await row.innerText(), /given up/);
			await until("the verdict", async () => /needs you/.test(await overview.page.getByTestId("verdict").innerText()));
			await until("its incident", async () => (await overview.page.locator('#needs a[href^="/incidents/"]').count()) === 1);
			await site.site.send({ to: "ben@partner.example" });
			const { id } = await site.incident("connector_closed");
			const one = await visit(site.site, "viewer");
			await one.go(`/incidents/${id}`);
			await live(one.page);
			site.site.command("incident", "ack", id, "--note", "Kim looks");
			const facts = one.page.locator("main");
			await until("the page to say so", async () => /acknowledged/.test(await facts.innerText()));
			assert.match(await facts.innerText(), /Kim looks/);
			await until("the list to say so", async () => {
				const rows = await list.page.locator(`tr[data-id="${id}"]`).count();
				if (!rows) await list.page.getByRole("button", { name: "1 new" }).click();
				return rows > 0;
			});
			await until("its row to say so", async () => /acknowledged/.test(await list.page.locator(`tr[data-id="${id}"]`).innerText()));
		} finally {
			await site.stop();
		}
	});

	test("a conversation is shown as it comes", async () => {
		const site = await Watched.start();
		try {
			await site.talk("127.0.0.1", "EHLO first");
			await site.device("127.0.0.1");
			const { page, go } = await visit(site.site, "operator");
			await go("/devices/127.0.0.1");
			await page.getByRole("button", { name: "Capture" }).click();
			await page.waitForURL(/\/captures\/c\d+/);
			await live(page);
			assert.equal(await page.locator(".session").count(), 0);
			await site.talk("127.0.0.1", "EHLO second", "MAIL FROM:<boss@evil.example>");
			const text = page.getByTestId("capture");
			await until("the conversation", async () => /MAIL FROM:<boss@evil\.example>/.test(await text.innerText()));
			await until("its reply", async () => /550 5\.7\.1/.test(await text.innerText()));
			await site.talk("127.0.0.1", "EHLO third");
			await until("the next one on top", async () => /third/.test(await page.locator(".session").first().innerText()));
			assert.equal(await page.locator(".session").count(), 2);
			const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "All of it as text" }).click()]);
			assert.match(download.suggestedFilename(), /^c\d+\.txt$/);
		} finally {
			await site.stop();
		}
	});
});
