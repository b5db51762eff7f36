// A real gateway with its window, an upstream that does as the recipient's address says, and mail in between.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync, readFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const binary = process.env.POSTERN;
if (!binary) throw new Error("POSTERN names the binary");
export const password = "correct horse battery staple";
export const roles = ["viewer", "operator", "admin"];

/** A word that no page may take for markup, in every place that a stranger can write to. */
export const hostile = {
	markup: "<script>window.owned = true</script><img src=x onerror=owned=true>",
	turned: "abc\u202Egnp.exe",
	reply: "550 5.7.1 <script>window.owned = true</script> \u202E no \x1b[31m",
};

async function free() {
	const server = net.createServer().listen(0, "127.0.0.1");
	await new Promise((done) => server.once("listening", done));
	const { port } = server.address();
	await new Promise((done) => server.close(done));
	return port;
}

/** Until it is so. */
export async function until(what, is, seconds = 20) {
	const end = Date.now() + seconds * 1000;
	for (;;) {
		const found = await is();
		if (found) return found;
		if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
		await sleep(50);
	}
}

/** An SMTP server: `fail…@` is refused for good, `later…@` for now, everything else is taken; with a password from who says it. */
function upstream(password) {
	const mails = [];
	const server = net.createServer((socket) => {
		let text = "";
		let data = null;
		let is_known = !password;
		const say = (line) => socket.write(`${line}\r\n`);
		say("220 upstream.example ESMTP");
		socket.on("error", () => {});
		socket.on("data", (octets) => {
			text += octets.toString("latin1");
			for (let end; (end = text.indexOf("\r\n")) >= 0; ) {
				const line = text.slice(0, end);
				text = text.slice(end + 2);
				if (data !== null) {
					if (line === ".") {
						mails.push(data);
						data = null;
						say("250 2.0.0 Ok: queued as 4bXyz");
					} else data += `${line}\n`;
				} else if (/^(EHLO|HELO)/i.test(line)) say(`250-upstream.example\r\n250-8BITMIME\r\n${password ? "250-AUTH PLAIN\r\n" : ""}250 SIZE 100000000`);
				else if (/^AUTH PLAIN /i.test(line)) {
					is_known = Buffer.from(line.slice(11), "base64").toString().split("\0")[2] === password;
					say(is_known ? "235 2.7.0 welcome" : "535 5.7.8 Authentication credentials invalid");
				} else if (!is_known && /^MAIL/i.test(line)) say("530 5.7.0 Authentication required");
				else if (/^RCPT TO:<fail/i.test(line)) socket.write(Buffer.from(`${hostile.reply}\r\n`));
				else if (/^RCPT TO:<later/i.test(line)) say("451 4.7.1 Greylisted, come back later");
				else if (/^DATA/i.test(line)) {
					data = "";
					say("354 go on");
				} else if (/^QUIT/i.test(line)) {
					say("221 bye");
					socket.end();
				} else say("250 Ok");
			}
		});
	});
	server.listen(0, "127.0.0.1");
	return new Promise((done) => server.once("listening", () => done({ server, mails, port: server.address().port })));
}

/** Sends one message as a client does; octets as they are. */
export async function send(port, { from, to, header = "", body = "Hello." }) {
	const socket = net.connect(port, "127.0.0.1");
	let text = "";
	socket.on("data", (octets) => (text += octets.toString("latin1")));
	const reply = async () => {
		const found = await until("a reply", () => /^(?:\d{3}-.*\r\n)*(\d{3}) .*\r\n/.exec(text));
		text = text.slice(found[0].length);
		return found[0];
	};
	await reply();
	const lines = ["EHLO printer.corp.example", `MAIL FROM:<${from}>`, ...[to].flat().map((one) => `RCPT TO:<${one}>`), "DATA"];
	for (const line of lines) {
		socket.write(`${line}\r\n`);
		const said = await reply();
		if (!/^[23]/.test(said)) throw new Error(`${line}: ${said}`);
	}
	socket.write(Buffer.concat([Buffer.from(`From: erp@corp.example\r\n`), Buffer.from(header), Buffer.from(`\r\n${body}\r\n.\r\n`)]));
	const said = await reply();
	socket.end("QUIT\r\n");
	const id = /[0-9A-HJKMNP-TV-Z]{26}/.exec(said)?.[0];
	if (!id) throw new Error(said);
	return id;
}

const hashes = new Map();
function hash() {
	if (!hashes.has(password)) {
		const made = spawnSync(binary, ["hash-password"], { input: `${password}\n`, encoding: "utf8" });
		hashes.set(password, made.stdout.trim().split("\n").at(-1));
	}
	return hashes.get(password);
}

export class Site {
	/**
	 * `admin`: keys of its section; `sections`: what the file has besides; `login`: the password that the upstream wants to hear;
	 * `more`: what the file ends with, of this site; `beside`: another one that sends to the same.
	 */
	static async start({ admin = "", sections = "", login, more = () => "", beside } = {}) {
		const site = new Site();
		Object.assign(site, { admin, sections, login, more });
		site.dir = mkdtempSync(join(tmpdir(), "postern-browser-"));
		site.upstream = beside?.upstream ?? (await upstream(login));
		[site.smtp, site.port, site.dead] = [await free(), await free(), beside?.dead ?? (await free())];
		site.url = `http://127.0.0.1:${site.port}`;
		writeFileSync(join(site.dir, "config.toml"), site.config());
		await site.run();
		return site;
	}

	config() {
		const token = createHash("sha256").update(this.token()).digest("hex");
		const users = roles.map((role) => `[[admin_user]]\nname = "${role}"\npassword = '${hash()}'\nrole = "${role}"\n`);
		return `hostname = "relay.corp.example"
data_dir = "data"

[[listener]]
name = "lan"
address = "127.0.0.1:${this.smtp}"

[allowlist]
senders = ["corp.example", '"<script>owned=1</script>"@corp.example']
recipients = ["*", '"<img src=x onerror=owned=1>"@partner.example']

[[route]]
name = "partner"
recipients = ["partner.example"]
connectors = ["partner-mx"]
retry = ["1h"]

[[route]]
name = "internet"
connectors = ["${this.login ? "guarded" : "smarthost"}"]
retry = ["1h"]

[[connector]]
name = "smarthost"
type = "smtp"
host = "127.0.0.1"
port = ${this.upstream.port}
tls = "off"

[[connector]]
name = "partner-mx"
type = "smtp"
host = "127.0.0.1"
port = ${this.dead}
tls = "off"
${this.login ? this.guarded() : ""}${this.sections}
[admin]
address = "127.0.0.1:${this.port}"
content = "all"
${this.admin}

[[admin_token]]
name = "token"
hash = "sha256:${token}"
role = "admin"

${users.join("\n")}
${this.more(this)}`;
	}

	/** A connector that logs in with a password that is not the right one any more. */
	guarded() {
		return `
[[connector]]
name = "guarded"
type = "smtp"
host = "127.0.0.1"
port = ${this.upstream.port}
tls = "off"
plaintext_credentials = true
username = "me"
password = "hunter1"
`;
	}

	/** Of an admin. */
	token() {
		return "a token of the tests";
	}

	async run() {
		this.child = spawn(binary, ["run", "-c", "config.toml"], { cwd: this.dir, stdio: ["ignore", "pipe", "pipe"] });
		this.log = "";
		for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (octets) => (this.log += octets));
		await until("the window", async () => {
			if (this.child.exitCode !== null) throw new Error(this.log);
			return fetch(`${this.url}/livez`).then((answer) => answer.ok, () => false);
		});
	}

	/** A command of the same binary; what it prints. */
	command(...words) {
		const ended = spawnSync(binary, [...words, "-c", "config.toml"], { cwd: this.dir, encoding: "utf8" });
		if (ended.status !== 0) throw new Error(`${words.join(" ")}: ${ended.stdout}${ended.stderr}`);
		return ended.stdout;
	}

	entries() {
		return JSON.parse(this.command("queue", "list", "--all", "--json"));
	}

	/** Until the message is in this state. */
	state(id, state) {
		return until(`${id} to be ${state}`, () => this.entries().find((entry) => entry.id === id && entry.state === state));
	}

	send(mail) {
		return send(this.smtp, { from: "erp@corp.example", ...mail });
	}

	/** What every gateway has once it has worked for a while. */
	async calm() {
		this.delivered = await this.send({ to: "anna@elsewhere.example", header: "Subject: Invoice 1187\r\n" });
		await until("the delivery", () => this.upstream.mails.length > 0);
	}

	/** A connector that is shut, mail that waits, is held and has failed, and mail of somebody who means harm. */
	async trouble() {
		await this.calm();
		this.waiting = await this.send({ to: ["ben@partner.example", "cem@partner.example"], header: "Subject: Order 7\r\n" });
		this.failed = await this.send({ to: "fail@elsewhere.example", header: "Subject: Bounces\r\n" });
		await this.state(this.failed, "failed");
		this.held = await this.send({ to: "later@elsewhere.example" });
		await until("a reply", () => this.entries().find((entry) => entry.id === this.held)?.recipients[0].last_reply);
		this.command("queue", "hold", this.held);
		this.hostile = [
			await this.send({
				from: '"<script>owned=1</script>"@corp.example',
				to: '"<img src=x onerror=owned=1>"@partner.example',
				header: `Subject: ${hostile.markup}\r\n`,
				body: hostile.markup,
			}),
			await this.send({ to: "rlo@partner.example", header: `Subject: ${hostile.turned}\r\n`, body: hostile.turned }),
			await this.send({ to: "long@partner.example", header: `Subject: ${"long ".repeat(20_000).replaceAll(/(.{900})/g, "$1\r\n ")}\r\n` }),
			await this.send({
				to: "octets@partner.example",
				header: Buffer.concat([Buffer.from("Subject: "), Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x80]), Buffer.from("\r\n")]),
			}),
		];
		await until("the connector to close", () => {
			const status = spawnSync(binary, ["status", "--json", "-c", "config.toml"], { cwd: this.dir, encoding: "utf8" });
			return JSON.parse(status.stdout).connectors.some((lane) => lane.state === "closed");
		});
	}

	async stop() {
		this.child?.kill("SIGKILL");
		this.upstream?.server.close();
		rmSync(this.dir, { recursive: true, force: true });
	}
}

/** Logs in at the page, as people do. */
export async function logIn(page, site, role) {
	await page.goto(`${site.url}/login`);
	await page.getByLabel("Name").fill(role);
	await page.getByLabel("Password").fill(password);
	await page.getByRole("button", { name: "Log in" }).click();
	await page.waitForURL((url) => url.pathname === "/");
}
