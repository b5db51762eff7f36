// A site where things are to be watched: strangers, a device that is learned, incidents, and channels that are told of them.

import { createHash } from "node:crypto";
import http from "node:http";
import net from "node:net";
import { Site, hostile, until } from "./site.mjs";

const token = "the token of these tests";

/** Who is told: `/taken` takes it, `/failing` does not. */
async function receiver() {
	const heard = [];
	const server = http.createServer((request, answer) => {
		heard.push(request.url);
		request.resume().on("end", () => answer.writeHead(request.url === "/taken" ? 204 : 503).end());
	});
	server.listen(0, "127.0.0.1");
	await new Promise((done) => server.once("listening", done));
	return { heard, server, port: server.address().port };
}

export class Watched {
	static async start() {
		const watched = new Watched();
		watched.receiver = await receiver();
		watched.site = await Site.start({ admin: 'write_config = "write"', more: () => watched.config() });
		return watched;
	}

	config() {
		const url = `http://127.0.0.1:${this.receiver.port}`;
		const hash = createHash("sha256").update(token).digest("hex");
		return `
[[admin_token]]
name = "tests"
hash = "sha256:${hash}"
role = "admin"

[[client]]
name = "erp"
networks = ["127.0.0.1/32"]

[incidents]
open_after = "1s"
recover_after = "1s"

[[notify]]
name = "oncall"
type = "webhook"
url = "${url}/taken"

[[notify]]
name = "pager"
type = "webhook"
url = "${url}/failing"
min_severity = "warning"
kinds = ["connector_closed", "mail_failed"]

[[notify]]
name = "heart"
type = "heartbeat"
url = "${url}/taken"
`;
	}

	/** Asks as a program does. */
	async ask(method, path, body) {
		const answer = await fetch(`${this.site.url}/api/v1${path}`, {
			method,
			headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
			body: body && JSON.stringify(body),
		});
		if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
		return answer.json();
	}

	/** Says these lines from that address, each after the reply to the one before; the replies. */
	async talk(from, ...lines) {
		const socket = net.connect({ port: this.site.smtp, host: "127.0.0.1", localAddress: from });
		socket.on("error", () => {});
		let text = "";
		let is_over = false;
		socket.on("data", (octets) => (text += octets.toString("latin1")));
		socket.on("close", () => (is_over = true));
		const replies = [];
		const reply = async () => {
			const found = await until("a reply", () => /^(?:\d{3}-.*\r\n)*(\d{3}) .*\r\n/.exec(text) ?? (is_over && [""]));
			text = text.slice(found[0].length);
			replies.push(found[0].trim());
		};
		await reply();
		for (const line of lines) {
			socket.write(line);
			socket.write("\r\n");
			await reply();
		}
		socket.end("QUIT\r\n");
		await until("the end", () => is_over);
		return replies;
	}

	/** Until the gateway knows that it was here. */
	device(address, is = () => true) {
		return until(`device ${address}`, async () => {
			const { items } = await this.ask("GET", "/devices?limit=500");
			return items.find((device) => device.address === address && is(device));
		});
	}

	/** Until there is such an incident. */
	incident(kind, is = () => true) {
		return until(`an incident ${kind}`, async () => {
			const { items } = await this.ask("GET", "/incidents");
			return items.find((incident) => incident.kind === kind && is(incident));
		});
	}

	/** A printer that is refused, a sensor that is learned, one who means harm, and what needs somebody. */
	async fill() {
		const { site } = this;
		await site.trouble();
		for (const printer of ["127.0.0.5", "127.0.0.7"]) await this.talk(printer, "HELO copier");
		await this.talk("127.0.0.1", "EHLO erp.corp.example", "MAIL FROM:<boss@evil.example>");
		await this.ask("POST", "/learning", { networks: ["127.0.0.6", "127.0.0.9"], for: "1h" });
		await this.talk("127.0.0.9", "MAIL FROM:sensor@corp.example", "RCPT TO:<anna@corp.example>", "DATA", "Subject: 21 degrees\r\n\r\nwarm\r\n.");
		const { id } = await this.ask("POST", "/captures", { address: "127.0.0.6", for: "1h" });
		this.capture = id;
		const turned = Buffer.from(hostile.turned);
		await this.talk(
			"127.0.0.6",
			`HELO ${hostile.markup}`,
			Buffer.concat([Buffer.from("HELO "), turned, Buffer.from([0x1b, 0xff])]),
			`MAIL FROM:<${hostile.markup.replaceAll(" ", "")}@evil.example>`,
			'MAIL FROM:<"<script>owned=1</script>"@evil.example>',
			"MAIL FROM:<a@corp.example>",
			`RCPT TO:<${hostile.markup.replaceAll(" ", "")}@evil.example>`,
			Buffer.concat([Buffer.from("RCPT TO:<"), turned, Buffer.from("@evil.example>")]),
			`HELO ${"x".repeat(100_000)}`,
		);
		for (const address of ["127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.9"]) await this.device(address);
		await this.device("127.0.0.1", (device) => device.refused > 0);
		this.closed = (await this.incident("connector_closed")).id;
		this.failed = (await this.incident("mail_failed", (one) => one.told.some((told) => told.result === "503"))).id;
	}

	async stop() {
		this.receiver.server.close();
		await this.site.stop();
	}
}
