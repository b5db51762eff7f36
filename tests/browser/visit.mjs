// Visits to a window: a browser that is logged in, what it must find on every page, and hands that count their clicks.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { logIn } from "./site.mjs";

const require = createRequire(process.env.MODULES ?? import.meta.url);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

let browser;
export async function launch() {
	const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
	browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
	return browser;
}
export const close = () => browser?.close();

const open = [];
/** Closes what a test has opened. */
export const leave = () => Promise.all(open.splice(0).map((context) => context.close()));

/** What a browser keeps of a login, by site and role. */
const logins = new Map();
export async function visit(site, role, options = {}) {
	const key = `${site.url} ${role}`;
	if (!logins.has(key)) {
		const context = await browser.newContext();
		await logIn(await context.newPage(), site, role);
		logins.set(key, await context.storageState());
		await context.close();
	}
	const context = await browser.newContext({ storageState: logins.get(key), ...options });
	const page = await context.newPage();
	const faults = [];
	page.on("pageerror", (error) => faults.push(error.message));
	page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
	open.push(context);
	return { page, faults, go: (path) => page.goto(site.url + path) };
}

/** What axe-core is asked for. */
const rules = { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] };
/**
 * Nothing that axe-core knows stands in anybody's way. It runs in the page itself: what `@axe-core/playwright` does for frames, of which
 * there are none here, takes five times as long.
 */
export async function isAccessible(page, where) {
	if (!(await page.evaluate("'axe' in window"))) await page.evaluate(axe);
	const look = async (runOnly) => {
		const { violations, passes } = await window.axe.run({ runOnly, resultTypes: ["violations"] });
		return { violations, looked: passes.length };
	};
	const { violations, looked } = await page.evaluate(look, rules);
	assert.ok(looked > 10, `${where}: ${looked} rules were tried`);
	const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`).join("\n")}`);
	assert.deepEqual(found, [], where);
}

export const sideways = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;

export async function picture(page, ...name) {
	if (!process.env.PICTURES) return;
	const height = Math.min(2_400, await page.evaluate(() => document.documentElement.scrollHeight));
	const { width } = page.viewportSize();
	const path = join(process.env.PICTURES, `${name.join("-").replaceAll(/[^a-z0-9-]+/gi, "_")}.png`);
	await page.screenshot({ path, fullPage: true, clip: { x: 0, y: 0, width, height } });
}

/** At which widths a page is looked at: a theme changes no place, and a role only takes away. */
const widths = (role, colorScheme) => (colorScheme === "dark" ? [1600] : role === "admin" ? [1600, 1280, 1100, 1000, 800, 320] : [1600, 800, 320]);

/** What is shown is accessible and scrolls down only, at all widths. */
export async function fits(page, where, { role, colorScheme }, ...name) {
	await isAccessible(page, where);
	for (const width of widths(role, colorScheme)) {
		await page.setViewportSize({ width, height: 900 });
		assert.equal(await page.evaluate(sideways), 0, `${where} scrolls sideways at ${width}`);
		await picture(page, ...name, role, colorScheme, width, where);
		if (width === 320) await isAccessible(page, `${where} at 320`);
	}
	await page.setViewportSize({ width: 1600, height: 900 });
}

/** Pages, each with its word: found, without a fault, accessible at all widths. */
export async function looksRight(site, { kind, role, colorScheme }, pages) {
	const { page, faults, go } = await visit(site, role, { colorScheme, viewport: { width: 1600, height: 900 } });
	for (const [path, word] of pages) {
		const answer = await go(path);
		assert.equal(answer.status(), word === "problem" ? 404 : 200, path);
		assert.equal(await page.locator("body").getAttribute("data-page"), word, path);
		assert.equal(await page.locator("h1").count(), 1, path);
		await fits(page, path.replaceAll(/[0-9A-HJKMNP-TV-Z]{26}/g, "ID"), { role, colorScheme }, kind);
	}
	const odd = faults.filter((fault) => !fault.includes("404"));
	assert.deepEqual(odd, []);
}

/** The same without script. */
export async function readsRight(site, role, pages) {
	const { page, go } = await visit(site, role, { javaScriptEnabled: false, viewport: { width: 320, height: 900 } });
	for (const [path, word] of pages) {
		await go(path);
		assert.equal(await page.locator("body").getAttribute("data-page"), word, path);
		assert.equal(await page.locator("h1").count(), 1, path);
	}
	await go("/");
	assert.match(await page.locator("footer").innerText(), /UTC/);
}

/** No text of a stranger is markup, turns what stands around it, or hides. */
export async function isClean(page, where) {
	assert.equal(await page.evaluate(() => window.owned), undefined, where);
	assert.equal(await page.locator("main script, main img").count(), 0, where);
	assert.doesNotMatch(await page.locator("body").innerText(), /[\u202a-\u202e\u2066-\u2069\x1b]/, where);
}

/** Clicks, counted. */
export class Hands {
	clicks = 0;
	click = async (target) => {
		this.clicks += 1;
		await target.click();
	};
	spent = (most) => assert.ok(this.clicks <= most, `${this.clicks} clicks, and not ${most}`);
}
