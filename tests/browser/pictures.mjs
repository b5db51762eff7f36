// Draws the pictures in docs/pictures anew: a gateway in trouble, as an administrator sees it.
//
//     cargo build && POSTERN=target/debug/postern MODULES=target/peers/node_modules/ node tests/browser/pictures.mjs docs/pictures

import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Site, hostile, logIn } from "./site.mjs";

const require = createRequire(process.env.MODULES ?? import.meta.url);
const { chromium } = require("playwright-core");

const into = process.argv[2];
if (!into) throw new Error("the folder to draw into");
mkdirSync(into, { recursive: true });

hostile.reply = "550 5.1.1 <fail@elsewhere.example>: Recipient address rejected: User unknown";
const site = await Site.start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
	await site.calm();
	for (let n = 0; n < 12; n += 1) await site.send({ to: `team${n}@elsewhere.example`, header: `Subject: Nightly report ${n}\r\n` });
	for (const name of ["anna", "ben", "cem"]) await site.send({ to: `${name}@partner.example`, header: `Subject: Order for ${name}\r\n` });
	site.failed = await site.send({ to: "fail@elsewhere.example", header: "Subject: Reminder\r\n" });
	await site.state(site.failed, "failed");
	const draw = async (name, path) => {
		const context = await browser.newContext({ viewport: { width: 1200, height: 760 } });
		const page = await context.newPage();
		await logIn(page, site, "admin");
		await page.goto(site.url + path);
		await page.waitForTimeout(500);
		await page.screenshot({ path: join(into, `${name}.png`) });
		await context.close();
	};
	await draw("overview", "/");
	await draw("message", `/messages/${site.failed}`);
	await draw("connector", "/connectors/smarthost/edit");
} finally {
	await browser.close();
	await site.stop();
}
