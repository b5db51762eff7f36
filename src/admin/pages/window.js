// What the pages gain by a script: they change by themselves, they can be used by keys, and their times are local. Each works without.
// Text from the gateway is put in by textContent alone; rows are copies of a <template> of the page.

const page = document.body.dataset.page;
const one = (query, from = document) => from.querySelector(query);
const all = (query, from = document) => [...from.querySelectorAll(query)];
const main = one("main");

/* Values, written as `filters.rs` writes them. */

const odd = /[\p{Cc}\u{ad}\u{61c}\u{180e}\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{fff9}-\u{fffb}\u{e0000}-\u{e0fff}]/gu;
const escaped = (text) => text.replace(odd, (c) => (c === "\n" ? c : `\\u{${c.codePointAt(0).toString(16)}}`));
function shown(text, most) {
	const whole = escaped(String(text)).replaceAll("\n", "\\n");
	const points = [...whole];
	return points.length > most ? `${points.slice(0, most - 1).join("")}…` : whole;
}
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
function size(octets) {
	const in_units = (unit, name) => {
		const tenths = Math.round((octets * 10) / unit);
		return tenths < 100 ? `${(tenths / 10).toFixed(1)} ${name}` : `${count(Math.floor(tenths / 10))} ${name}`;
	};
	if (octets < 1024) return `${octets} B`;
	if (octets < 1024 ** 2) return in_units(1024, "KB");
	return octets < 1024 ** 3 ? in_units(1024 ** 2, "MB") : in_units(1024 ** 3, "GB");
}
function span(seconds) {
	const two = (more, unit, less, small) => (less ? `${more} ${unit} ${less} ${small}` : `${more} ${unit}`);
	const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
	if (seconds < 60) return `${seconds} s`;
	if (seconds < 3600) return `${minutes} min`;
	return seconds < 86400 ? two(hours, "h", minutes % 60, "min") : two(days, "d", hours % 24, "h");
}
function element(name, className, text) {
	const made = document.createElement(name);
	if (className) made.className = className;
	if (text !== undefined) made.textContent = text;
	return made;
}
function icon(name) {
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	svg.setAttribute("class", "icon");
	svg.setAttribute("aria-hidden", "true");
	const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
	use.setAttribute("href", `${document.body.dataset.icons}#${name}`);
	svg.append(use);
	return svg;
}
function state(word) {
	const name = word.replace(/[^a-z0-9]+/gi, "-");
	const made = element("span", `state ${name}`);
	made.append(icon(name), element("span", "", word));
	return made;
}
const two = (number) => String(number).padStart(2, "0");
function local(time) {
	const at = new Date(time.dateTime);
	if (Number.isNaN(at.getTime())) return;
	const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
	time.textContent = `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
function when(text) {
	const made = element("time");
	made.dateTime = text;
	made.title = `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`;
	local(made);
	return made;
}
const whenOr = (text) => (text ? when(text) : "–");
/** Puts it there, if it is not there already: what does not change is not touched. */
function put(place, ...parts) {
	if (!place) return false;
	const next = element("div");
	next.append(...parts);
	if (place.textContent === next.textContent) return false;
	place.replaceChildren(...next.childNodes);
	return true;
}
/** Words of ours, with commands and keys between backticks. */
const coded = (text) => escaped(text).split("`").map((part, at) => (at % 2 ? element("code", "", part) : part));
const slot = (row, name) => one(`[data-f="${name}"]`, row);
const copy = (id) => one(`#${id}`).content.firstElementChild.cloneNode(true);

all("time[datetime]").forEach(local);
const zone = one("#zone");
if (zone) zone.textContent = `Times are local (${Intl.DateTimeFormat().resolvedOptions().timeZone}); pointed at, they say UTC.`;

// What was done is said once, and not again when the page is loaded anew.
const address = new URL(location.href);
if (address.searchParams.has("done")) {
	address.searchParams.delete("done");
	history.replaceState(null, "", address);
}

/* What is said to whoever is read to: one sentence in ten seconds, the latest. */

let said = 0;
let waiting = "";
function say(sentence) {
	const is_due = !waiting;
	waiting = sentence;
	if (!is_due) return;
	setTimeout(() => {
		put(one("#polite"), waiting);
		said = Date.now();
		waiting = "";
	}, Math.max(0, said + 10_000 - Date.now()));
}

/* Each page, as the gateway has it now. */

class LoggedOut extends Error {}
async function ask(path) {
	const answer = await fetch(path, { headers: { Accept: "application/json" } });
	if (answer.status === 401) throw new LoggedOut();
	// Not ready is an answer, too.
	if (!answer.ok && path !== "/healthz") throw new Error(answer.status);
	return answer.json();
}

/* The list of messages. */

/** The gateway that sends it, or has sent it, where there are several. */
const sender = (entry) => (entry.sent_by ? [element("span", "also any", `by ${shown(entry.sent_by, 80)}`)] : []);
const keyOf = (id, route) => `${id} ${route}`;
function fillMessage(row, entry) {
	row.dataset.id = entry.id;
	row.dataset.route = entry.route;
	const tick = one("input[name=id]", row);
	if (tick && tick.value !== entry.id) {
		tick.value = entry.id;
		tick.setAttribute("aria-label", `Tick ${entry.id}`);
	}
	const link = one("a", row);
	link.href = `/messages/${entry.id}`;
	put(link, entry.id);
	put(slot(row, "accepted_at"), when(entry.accepted_at));
	put(slot(row, "accepted_by"), entry.accepted_by ? `by ${shown(entry.accepted_by, 80)}` : "");
	const has_changed = put(slot(row, "state"), state(entry.state), ...sender(entry));
	put(slot(row, "sender"), shown(entry.sender, 120));
	const [first, ...others] = entry.recipients;
	put(slot(row, "recipients"), first ? shown(first.address, 120) : "", others.length ? ` and ${others.length} more` : "");
	put(slot(row, "subject"), entry.subject ? shown(entry.subject, 120) : "");
	put(slot(row, "route"), shown(entry.route, 80));
	put(slot(row, "size"), size(entry.size));
	const parts = [];
	if (entry.blocked_by) parts.push(element("span", "", `Connector ${shown(entry.blocked_by, 80)} is shut.`));
	if (entry.held_by) parts.push(" ", element("span", "", `Held by ${shown(entry.held_by, 80)}.`));
	if (entry.waits_for) parts.push(" ", element("span", "", `Its turn in ${shown(entry.waits_for, 120)}.`));
	if (entry.state === "waiting" && !entry.blocked_by && entry.next_attempt) {
		const next = element("span", "", "Next try ");
		next.append(when(entry.next_attempt), ".");
		parts.push(" ", next);
	}
	const reply = entry.recipients.find((recipient) => recipient.last_reply)?.last_reply;
	if (reply && entry.state !== "done") parts.push(" ", element("q", "reply", shown(reply, 200)));
	put(slot(row, "waits"), ...parts);
	return has_changed;
}
function newMessage(entry) {
	const row = copy("row");
	fillMessage(row, entry);
	return row;
}
const query = () => {
	const params = new URLSearchParams(location.search);
	params.delete("done");
	return params;
};
/* What is new in a list comes as a button, so that nothing moves under the pointer. */

let fresh = [];
function offer(made) {
	fresh = made;
	const button = one("#new");
	button.hidden = fresh.length === 0;
	return put(button, `${fresh.length} new`) && fresh.length > 0;
}
one("#new")?.addEventListener("click", () => {
	const body = one(":scope > p.new ~ table tbody", one("#new").parentElement.parentElement);
	one("tr.empty", body)?.remove();
	const rows = fresh.map((make) => make());
	rows.forEach((row) => row.classList.add("new"));
	body.prepend(...rows);
	offer([]);
	one("a", rows[0])?.focus();
	setTimeout(() => rows.forEach((row) => row.classList.remove("new")), 3_000);
});
async function messages() {
	if (query().has("cursor")) return;
	const list = await ask(`/api/v1/messages?${query()}`);
	const body = one("[data-testid=messages] tbody");
	const rows = new Map(all("tr[data-id]", body).map((row) => [keyOf(row.dataset.id, row.dataset.route), row]));
	const has = new Set();
	let changed = 0;
	let unknown = [];
	for (const entry of list.items) {
		const key = keyOf(entry.id, entry.route);
		has.add(key);
		const row = rows.get(key);
		if (row) changed += fillMessage(row, entry) ? 1 : 0;
		else unknown.push(entry);
	}
	// One that has left the list stays where it is, and says what became of it.
	const oldest = list.next ? list.items.at(-1)?.accepted_at : "";
	const gone = [...rows].filter(([key, row]) => !has.has(key) && !row.dataset.ended && (one("time", row)?.dateTime ?? "") >= oldest);
	for (const [, row] of gone.slice(0, 10)) {
		const found = await ask(`/api/v1/messages/${row.dataset.id}`).catch((error) => {
			// Only one that is not there is gone; of the others it is asked again.
			if (error.message === "404") return { entries: [] };
			throw error;
		});
		const entry = found.entries.find((entry) => entry.route === row.dataset.route);
		// Nothing comes after that, so it is not asked for again.
		if (!entry || entry.state === "done") row.dataset.ended = "true";
		if (entry) changed += fillMessage(row, { ...entry, subject: entry.subject ?? slot(row, "subject")?.textContent }) ? 1 : 0;
		else changed += put(slot(row, "state"), state("gone")) ? 1 : 0;
	}
	// Those below the end of a full page are older, and not new.
	const last = [...rows.values()].at(-1);
	const end = last ? one("time", last).dateTime : "";
	unknown = unknown.filter((entry) => entry.accepted_at >= end || rows.size < 50);
	if (offer(unknown.map((entry) => () => newMessage(entry)))) say(`${unknown.length} new in the list.`);
	else if (changed) say(changed === 1 ? "1 message has changed." : `${changed} messages have changed.`);
}
/** A search that has not come to its end goes on while somebody looks. */
async function goOn() {
	const searched = one("#searched");
	while (searched && !searched.hidden && !document.hidden) {
		const params = query();
		params.set("cursor", searched.dataset.cursor);
		const list = await ask(`/api/v1/messages?${params}`);
		const body = one("[data-testid=messages] tbody");
		if (list.items.length) one("tr.empty", body)?.remove();
		body.append(...list.items.map(newMessage));
		if (list.searched_to && list.next && all("tr[data-id]", body).length < 50) {
			searched.dataset.cursor = list.next;
			put(one("span", searched), when(list.searched_to));
		} else {
			searched.hidden = true;
			const older = one("a[rel=next]");
			if (older && list.next) {
				params.set("cursor", list.next);
				older.href = `/messages?${params}`;
			} else older?.remove();
		}
	}
}

/* One message. */

async function message() {
	const id = one("h1 code").textContent;
	const life = await ask(`/api/v1/messages/${id}/events`);
	const list = one("[data-testid=life]");
	const known = all("li[data-at]", list).length;
	for (const event of life.events.slice(known)) {
		const row = copy("event");
		row.dataset.at = event.at;
		put(slot(row, "head"), state(event.event), " ", when(event.at));
		put(slot(row, "to"), event.recipients.slice(0, 5).map((to) => shown(to, 120)).join(", "),
			event.recipients.length > 5 ? ` and ${event.recipients.length - 5} more` : "");
		put(slot(row, "text"), shown(event.text, 1200));
		list.append(row);
		say(`${event.event}: ${shown(event.text, 120)}`);
	}
	for (const entry of life.entries) {
		for (const recipient of entry.recipients) {
			const row = all("[data-testid=recipients] tr[data-id]").find((row) => row.dataset.id === shown(recipient.address, 320));
			if (!row) continue;
			const word = entry.state === "held" && recipient.state === "waiting" ? "held" : recipient.state;
			put(slot(row, "state"), state(word), ...sender(entry));
			put(slot(row, "reply"), recipient.last_reply ? element("q", "reply", shown(recipient.last_reply, 1000)) : "–");
		}
	}
	const waits = one("#waits");
	waits.hidden = !life.waits_for;
	if (life.waits_for) put(one("span", waits), `Waits for: ${escaped(life.waits_for)}`);
}

/* Connectors. */

function fillConnector(row, connector) {
	const has_changed = put(slot(row, "state"), state(connector.state));
	put(slot(row, "why"), connector.why ? escaped(connector.why) : "");
	if (page === "overview") put(slot(row, "next_probe"), whenOr(connector.next_probe));
	else if (connector.next_probe) put(slot(row, "next_probe"), "Next try ", when(connector.next_probe), ".");
	else put(slot(row, "next_probe"), "");
	if (connector.since) put(slot(row, "since"), "Since ", when(connector.since), ".");
	else put(slot(row, "since"), "");
	const is_stopped = connector.state === "stopped";
	for (const part of all("[data-when]", row)) part.hidden = (part.dataset.when === "stopped") !== is_stopped;
	const why = one(".said.why", row);
	if (why) why.hidden = !connector.why;
	put(slot(row, "waiting"), count(connector.waiting));
	put(slot(row, "in_flight"), count(connector.in_flight));
	if (connector.last_success) put(slot(row, "last_success"), when(connector.last_success));
	if (has_changed) say(`Connector ${shown(connector.name, 80)} is ${connector.state}.`);
}
async function connectors() {
	const list = await ask("/api/v1/connectors");
	for (const connector of list.items) {
		const row = all("table tr[data-id]").find((row) => row.dataset.id === shown(connector.name, 200) && slot(row, "state"));
		if (row) fillConnector(row, connector);
	}
}
async function connector() {
	const name = decodeURIComponent(location.pathname.split("/")[2]);
	fillConnector(main, await ask(`/api/v1/connectors/${encodeURIComponent(name)}`));
}

/* Changes of the configuration. */

/** As `progress` of `filters.rs` draws it. */
function progress(word) {
	const made = element("span", `state ${{ open: "waiting", applied: "done" }[word] ?? "dropped"}`);
	made.append(icon(made.classList[1]), element("span", "", word));
	return made;
}
async function config() {
	const list = await ask("/api/v1/proposals");
	const body = one("[data-testid=proposals] tbody");
	const rows = new Map(all("tr[data-id]", body).map((row) => [row.dataset.id, row]));
	const unseen = [];
	for (const proposal of list.items) {
		const row = rows.get(proposal.id);
		if (!row) unseen.push(proposal);
		else if (put(slot(row, "state"), progress(proposal.state))) say(`Proposal ${proposal.id} is ${proposal.state}.`);
	}
	const button = one("#new-proposals");
	button.hidden = unseen.length === 0;
	if (put(button, `${unseen.length} new`) && unseen.length) say(`${unseen.length} new in the list of proposals.`);
	button.onclick = () => {
		one("tr.empty", body)?.remove();
		const made = unseen.map((proposal) => {
			const row = copy("proposal");
			row.dataset.id = proposal.id;
			const link = one("a", row);
			link.href = `/proposals/${proposal.id}`;
			put(link, proposal.id);
			put(slot(row, "state"), progress(proposal.state));
			put(slot(row, "title"), shown(proposal.title, 400));
			put(slot(row, "by"), shown(proposal.by, 200));
			put(slot(row, "at"), when(proposal.at));
			return row;
		});
		body.prepend(...made);
		button.hidden = true;
		one("a", made[0])?.focus();
	};
}
async function proposal() {
	const { id, state: word } = await ask(`/api/v1/proposals/${one("h1").dataset.id}`);
	if (put(slot(main, "state"), progress(word))) say(`Proposal ${id} is ${word}.`);
	// What is done needs no buttons.
	if (word !== "open") one("#open")?.remove();
}

/* Incidents, devices and refusals. */

const words = { open: "unmet", acknowledged: "met" };
function attended(word) {
	const name = words[word] ?? "recovered";
	const made = element("span", `state ${name}`);
	made.append(icon(name), element("span", "", word));
	return made;
}
const reply = (text) => element("q", "reply", text);
const pathTo = (kind, name) => `/${kind}/${encodeURIComponent(name)}`;
function fillIncident(row, incident) {
	row.dataset.id = row.dataset.key = incident.id;
	const link = slot(row, "title");
	link.href = pathTo("incidents", incident.id);
	put(link, shown(incident.title, 300));
	put(slot(row, "kind"), `${incident.id}, ${shown(incident.kind, 60)}`);
	put(slot(row, "severity"), state(incident.severity));
	const has_changed = put(slot(row, "state"), attended(incident.state));
	put(slot(row, "opened_at"), when(incident.opened_at));
	put(slot(row, "last_seen_at"), when(incident.last_seen_at));
	put(slot(row, "count"), count(incident.count));
	return has_changed;
}
function fillDevice(row, device) {
	row.dataset.id = row.dataset.key = device.address;
	const link = slot(row, "address");
	link.href = pathTo("devices", device.address);
	put(link, device.address);
	const session = device.last_session ?? {};
	put(slot(row, "helo"), session.helo ? shown(session.helo, 80) : "");
	put(slot(row, "client"), device.client ? shown(device.client, 80) : "none");
	const has_changed = put(slot(row, "last_seen"), when(device.last_seen));
	put(slot(row, "accepted"), count(device.accepted));
	put(slot(row, "refused"), count(device.refused));
	put(slot(row, "reply"), session.last_reply ? reply(shown(session.last_reply, 200)) : "");
	return has_changed;
}
function fillRefusal(row, refusal) {
	row.dataset.id = refusal.address;
	row.dataset.key = refusal.number;
	const link = slot(row, "address");
	link.href = pathTo("devices", refusal.address);
	put(link, refusal.address);
	const client = refusal.client === null ? "in no client" : `client ${shown(refusal.client, 80)}`;
	put(slot(row, "client"), `${client}, listener ${shown(refusal.listener, 60)}`);
	put(slot(row, "at"), when(refusal.at));
	put(slot(row, "stage"), refusal.stage);
	put(slot(row, "sender"), refusal.sender === null ? "" : shown(refusal.sender, 120));
	put(slot(row, "recipient"), refusal.recipient === null ? "" : shown(refusal.recipient, 120));
	put(slot(row, "reply"), reply(shown(refusal.reply, 320)));
	const known = { from: refusal.sender === "<>" ? null : refusal.sender, to: refusal.recipient, client: refusal.address, listener: refusal.listener };
	const link_to_try = slot(row, "try");
	link_to_try.href = `/try?${new URLSearchParams(Object.entries(known).filter(([, value]) => value !== null))}`;
	link_to_try.setAttribute("aria-label", `Try it: ${refusal.address}`);
	const adopt = slot(row, "adopt");
	if (refusal.client !== null) adopt?.remove();
	else if (adopt) {
		adopt.href = `${pathTo("devices", refusal.address)}#adopt`;
		adopt.setAttribute("aria-label", `Adopt ${refusal.address}`);
	}
	return false;
}
/** A list: rows change where they stand, new ones are offered. */
const list = (path, keyOf, fill, noun) => async () => {
	if (query().has("cursor")) return;
	const { items, next } = await ask(`${path}?${query()}`);
	const rows = new Map(all("tr[data-key]", main).map((row) => [row.dataset.key, row]));
	const unknown = [];
	let changed = 0;
	for (const item of items) {
		const row = rows.get(String(keyOf(item)));
		if (row) changed += fill(row, item) ? 1 : 0;
		else unknown.push(item);
		rows.delete(String(keyOf(item)));
	}
	// One that the filter no longer takes says why.
	if (page === "incidents" && !next) {
		for (const [id, row] of [...rows].slice(0, 10)) changed += fill(row, await ask(`${path}/${id}`)) ? 1 : 0;
	}
	const made = unknown.map((item) => () => {
		const row = copy("row");
		fill(row, item);
		return row;
	});
	if (offer(made)) say(`${made.length} new in the list.`);
	else if (changed) say(changed === 1 ? `1 ${noun} has changed.` : `${changed} ${noun}s have changed.`);
};
/** Rows that only grow, each by its place. */
function follow(body, items, fill) {
	const rows = all("tr:not(.empty)", body);
	if (items.length) one("tr.empty", body)?.remove();
	items.forEach((item, at) => {
		const row = rows[at] ?? copy("row");
		fill(row, item);
		if (!rows[at]) body.append(row);
	});
	rows.slice(items.length).forEach((row) => row.remove());
}
const last = () => decodeURIComponent(location.pathname.split("/")[2]);
async function incident() {
	const found = await ask(`/api/v1/incidents/${last()}`);
	put(slot(main, "severity"), state(found.severity));
	if (put(slot(main, "state"), attended(found.state))) say(`The incident is ${found.state}.`);
	put(slot(main, "count"), count(found.count));
	put(slot(main, "last_seen_at"), when(found.last_seen_at));
	put(slot(main, "recovered_at"), whenOr(found.recovered_at));
	put(slot(main, "note"), found.note ? escaped(found.note) : "–");
	const lines = found.evidence.map((line) => {
		const item = element("li");
		item.append(reply(shown(line, 600)));
		return item;
	});
	if (lines.length) put(one("#evidence"), ...lines);
	const form = one("#acknowledge");
	if (found.state === "recovered") form?.remove();
	follow(one("[data-testid=told] tbody"), found.told, (row, told) => {
		row.dataset.id = told.channel;
		put(slot(row, "channel"), shown(told.channel, 100));
		put(slot(row, "transition"), told.transition);
		put(slot(row, "at"), told.at ? when(told.at) : "not yet");
		put(slot(row, "result"), told.result ? shown(told.result, 300) : "–");
	});
}
const seen = list("/api/v1/devices", (one) => one.address, fillDevice, "device");
async function devices() {
	await seen();
	const { learning: now, candidates } = await ask("/api/v1/learning");
	learning(now);
	const met = candidates.length - Number(one("[data-testid=candidates]").dataset.count);
	const button = one("#met");
	button.hidden = met <= 0;
	if (put(button, met === 1 ? "1 new candidate" : `${met} new candidates`) && met > 0) say(`${button.textContent}.`);
}
// What they need is the gateway's to say.
one("#met")?.addEventListener("click", () => location.reload());
async function device() {
	const found = await ask(`/api/v1${pathTo("devices", last())}`);
	if (put(slot(main, "last_seen"), when(found.last_seen))) say("The device was seen again.");
	put(slot(main, "accepted"), count(found.accepted));
	put(slot(main, "refused"), count(found.refused));
	put(slot(main, "senders"), found.senders.map((sender) => shown(sender, 320)).join(", ") || "–");
	follow(one("[data-testid=refusals] tbody"), found.refusals, (row, refusal) => {
		row.dataset.id = refusal.stage;
		put(slot(row, "stage"), refusal.stage);
		put(slot(row, "reply"), reply(shown(refusal.reply, 400)));
		put(slot(row, "count"), count(refusal.count));
	});
	const session = found.last_session;
	const facts = one("#last-session");
	if (!session || !facts) return;
	put(slot(facts, "at"), when(session.at));
	put(slot(facts, "helo"), session.helo === null ? "–" : shown(session.helo, 400));
	put(slot(facts, "tls"), session.tls ?? "none");
	put(slot(facts, "user"), session.user === null ? "–" : shown(session.user, 200));
	put(slot(facts, "tolerances"), session.tolerances.join(", ") || "nothing");
	put(slot(facts, "last_reply"), session.last_reply === null ? "–" : reply(shown(session.last_reply, 400)));
}
const marks = { client: "C", postern: "S", note: "#" };
/** The latest conversations, as many as the page has without script. */
async function capture() {
	const found = await ask(`/api/v1${pathTo("captures", last())}`);
	const place = one("#sessions");
	const sessions = found.sessions.slice(-10).reverse();
	const known = all(".session", place);
	// They come on top; those that are there stay where they are.
	const more = Math.max(0, sessions.length - known.length);
	sessions.forEach((session, at) => {
		const made = at < more ? copy("session") : known[at - more];
		put(slot(made, "head") ?? one("h2", made), when(session.at), `, ${session.tls ?? "without TLS"}`);
		const text = one("pre", made);
		const lines = session.lines.slice(0, 100);
		for (const line of lines.slice(all(".line", text).length)) {
			const row = element("span", `line said-${marks[line.from]}`);
			row.append(element("span", "n", marks[line.from]), `${shown(line.text, 400)}\n`);
			text.append(row);
		}
		const left = session.lines.length - lines.length;
		const rest = slot(made, "more");
		if (rest && left > 0) {
			rest.hidden = false;
			put(rest, `${left} more lines; the text has them.`);
		}
		if (at < more) {
			if (at === 0) place.prepend(made);
			else place.children[at - 1].after(made);
		}
	});
	if (more) {
		one("#nothing")?.remove();
		say(more === 1 ? "A conversation has begun." : `${more} conversations have begun.`);
	}
	// A line is no news to the stream: it would be told of each.
	if (Date.now() < Date.parse(one("#until").dataset.until) + 60_000) setTimeout(() => document.hidden || later(), 2_000);
}

/* The overview. */

async function overview() {
	const { status } = await ask("/healthz");
	for (const [word, number] of Object.entries(status.messages ?? {})) put(one(`[data-count="${word}"]`), count(number));
	const { waiting = 0, sending = 0 } = status.messages ?? {};
	const retry = one("#retry-all");
	if (retry) retry.disabled = waiting === 0;
	const oldest = status.oldest_seconds === null ? "" : ` The oldest has waited for ${span(status.oldest_seconds)}.`;
	const amount = waiting + sending === 0 ? "Nothing waits." : `${count(waiting)} waiting, ${count(sending)} on the way.`;
	put(one("#standing"), amount + oldest);
	learning(status.learning);
	gateways(status.members ?? [], status.store);
	await connectors();
	await judge();
}
const standing = { alive: "at work", draining: "ending", apart: "was away", gone: "taken over" };
const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
function gateways(members, store) {
	const body = one("[data-testid=gateways] tbody");
	if (!body || !store) return;
	const rows = new Map(all("tr", body).map((row) => [row.dataset.id, row]));
	members.forEach((member, at) => {
		const name = shown(member.name, 200);
		const row = rows.get(name) ?? copy("gateway");
		rows.delete(name);
		row.dataset.id = name;
		put(slot(row, "name"), name);
		put(slot(row, "this"), member.this ? "this gateway" : "");
		const word = standing[member.state] ?? member.state;
		if (put(slot(row, "state"), state(word))) say(`Gateway ${name} is ${word}.`);
		const left = member.taken_over_in === undefined ? "" : `, taken over in ${span(member.taken_over_in)}`;
		put(slot(row, "seen"), `${span(member.seen_seconds)} ago${left}`);
		put(slot(row, "lanes"), count(member.lanes));
		const since = member.differs_since ? [" since ", when(member.differs_since)] : [];
		put(slot(row, "config"), ...(member.same_config ? ["the same"] : [icon("warning"), " another", ...since]));
		put(slot(row, "version"), shown(member.version, 60));
		// One that comes takes the place of its name.
		if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
	});
	if (members.length) rows.forEach((row) => row.remove());
	const facts = one("#store");
	if (store.host) put(slot(facts, "host"), element("code", "", shown(store.host, 200)));
	if (put(slot(facts, "state"), state(store.state))) say(`The database is ${store.state}.`);
	put(slot(facts, "since"), ...(store.since ? [" since ", when(store.since)] : []));
	put(slot(facts, "why"), store.why ? `: ${shown(store.why, 400)}` : "");
	if (store.durability) put(slot(facts, "durability"), shown(store.durability, 200));
	const oldest = store.spilled_oldest_seconds === undefined ? "" : `, the oldest for ${span(store.spilled_oldest_seconds)}`;
	const unwritten = store.unwritten ? `; ${many(store.unwritten, "outcome")} to be written there` : "";
	put(slot(facts, "spilled"), many(store.spilled, "message") + oldest + unwritten);
}
function learning(now) {
	const place = one("#learning");
	place.hidden = !now;
	if (now) put(one("#learned"), ` in ${now.networks.join(", ")} until `, when(now.until));
}
/** What needs somebody is found out by the gateway; it is in the page as it would be now. */
async function judge() {
	const { verdict, mood, items, looked_after, day, disk } = await ask("/api/v1/needs");
	for (const [word, number] of Object.entries(day)) put(one(`[data-day="${word}"]`), count(number));
	put(one("#day-since"), when(day.since));
	if (disk.free !== null) put(one("#free"), size(disk.free));
	const after = one("#looked-after");
	after.hidden = looked_after === 0;
	put(one("a", after), looked_after === 1 ? "1 incident is looked after" : `${looked_after} incidents are looked after`);
	const banner = one("#verdict");
	if (put(one("h1", banner), verdict)) say(`${verdict}.`);
	if (!banner.classList.contains(mood)) {
		banner.className = `verdict ${mood}`;
		one(".icon", banner).replaceWith(icon(mood));
	}
	const table = one("#needs");
	const rows = items.map((need) => {
		const row = copy("need");
		row.dataset.id = need.object;
		put(slot(row, "severity"), state(need.severity));
		const link = slot(row, "what");
		link.href = need.href;
		put(link, shown(need.what, 300));
		put(slot(row, "why"), ...coded(need.why));
		if (need.since) put(slot(row, "since"), when(need.since));
		return row;
	});
	const text = (rows) => rows.map((row) => row.textContent.replace(/\s+/g, "")).join();
	const body = one("tbody", table);
	if (text(rows) === text(all("tr", body))) return;
	const show = () => {
		body.replaceChildren(...rows);
		table.hidden = rows.length === 0;
		one("#changed").hidden = true;
	};
	// Nothing moves under the pointer, nor from under whoever is in there.
	if (table.parentElement.matches(":hover") || main.contains(document.activeElement)) {
		one("#changed").hidden = false;
		one("#changed").onclick = show;
	} else show();
}

/* When it is asked: as the stream says that something has changed, or every ten seconds where there is none. */

const pages = {
	overview, messages, message, connectors, connector, config, proposal, incident, devices, device, capture,
	incidents: list("/api/v1/incidents", (one) => one.id, fillIncident, "incident"),
	refused: list("/api/v1/refused", (one) => one.number, fillRefusal, "refusal"),
};
/** What a page is told of. */
const hears = {
	overview: ["status", "message", "connector", "incident", "device"],
	connectors: ["status", "message", "connector"], connector: ["status", "message", "connector"],
	messages: ["status", "message"], message: ["message"],
	incidents: ["incident"], incident: ["incident"],
	devices: ["device", "status"], device: ["device"], refused: ["device"], capture: ["device"],
	config: ["proposal"], proposal: ["proposal"],
};
const load = pages[page];
let stream = null;
let poll = 0;
let again = 0;
let slow = 0;
let soon = 0;
let asked = 0;
let busy = false;
function live(word) {
	const place = one("[data-testid=live]");
	put(place, word);
	place.closest(".live").className = `live ${word === "off" ? "" : `live-${word === "live" ? "on" : word}`}`;
}
function stop(word) {
	stream?.close();
	stream = null;
	for (const timer of [poll, again, slow, soon]) clearTimeout(timer);
	poll = again = slow = soon = 0;
	live(word);
}
async function refresh() {
	soon = 0;
	if (busy) return later();
	busy = true;
	asked = Date.now();
	try {
		await load();
	} catch (error) {
		if (error instanceof LoggedOut) {
			stop("off");
			say("You have been logged out.");
		} else if (!soon) {
			// Nobody may tell again of what was missed.
			soon = setTimeout(refresh, 5_000);
		}
	} finally {
		busy = false;
	}
}
/** What comes together is one question, and where something comes all the time there is one every two seconds: each costs the gateway a look. */
function later() {
	if (!soon) soon = setTimeout(refresh, Math.max(500, asked + 2_000 - Date.now()));
}
function polling() {
	if (poll) return;
	live("polling");
	poll = setInterval(refresh, 10_000);
	again = setTimeout(start, 60_000);
}
function start() {
	stop("polling");
	stream = new EventSource("/api/v1/events");
	// What only time changes, as the age of the oldest, nobody tells.
	clearInterval(slow);
	slow = setInterval(refresh, 30_000);
	stream.onopen = () => {
		clearInterval(poll);
		clearTimeout(again);
		poll = again = 0;
		live("live");
		later();
	};
	// The browser tries again by itself where it can; until then it is asked.
	stream.onerror = () => polling();
	for (const kind of [...(hears[page] ?? []), "reset"]) stream.addEventListener(kind, later);
}
if (load && one("[data-testid=live]")) {
	document.addEventListener("visibilitychange", () => (document.hidden ? stop("off") : start()));
	addEventListener("pagehide", () => stop("off"));
	addEventListener("pageshow", (event) => event.persisted && start());
	if (!document.hidden) start();
	if (page === "messages") goOn().catch(() => {});
}

/* All of the page at once. */

for (const box of all("th.box")) {
	const tick = element("input");
	tick.type = "checkbox";
	tick.setAttribute("aria-label", "Tick all that are shown");
	const table = box.closest("table");
	tick.addEventListener("change", () => all("td.box input", table).forEach((one) => (one.checked = tick.checked)));
	box.replaceChildren(tick);
}

/* Keys. */

const help = one("#help");
const keys = {
	get on() {
		try {
			return localStorage.getItem("keys") !== "off";
		} catch {
			return true;
		}
	},
	set on(is_on) {
		try {
			localStorage.setItem("keys", is_on ? "on" : "off");
		} catch {
			// It is forgotten with the page.
		}
	},
};
if (help) {
	const button = one("#keys");
	button.hidden = false;
	button.addEventListener("click", () => help.showModal());
	const toggle = one("#keys-on");
	toggle.checked = keys.on;
	toggle.addEventListener("change", () => (keys.on = toggle.checked));
}
const rows = () => all("tbody tr[data-id]", main).filter((row) => one("a[href]", row) && row.offsetParent);
const current = () => document.activeElement?.closest?.("tbody tr[data-id]");
function move(by) {
	const list = rows();
	if (!list.length) return;
	const at = list.indexOf(current());
	const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + by, 0), list.length - 1);
	one("a[href]", list[next]).focus();
}
function act(verb) {
	const row = current();
	const ticks = all("input[name=id]", main);
	if (ticks.length && !ticks.some((tick) => tick.checked)) {
		const own = row && one("input[name=id]", row);
		if (!own) return;
		own.checked = true;
	}
	const within = ticks.length ? one("#verbs") : (page === "connectors" ? row : main);
	const button = within && one(`button[name=do][value=${verb}]`, within);
	if (ticks.length) one("input[name=scope][value=ids]").checked = true;
	button?.click();
}
let went = 0;
const does = {
	"/": () => one("[role=search] input")?.focus(),
	"?": () => help.showModal(),
	g: () => (went = Date.now()),
	j: () => move(1),
	k: () => move(-1),
	x: () => one("td.box input", current() ?? element("p"))?.click(),
	r: () => act("retry"),
	h: () => act("hold"),
};
const isTyping = (target) =>
	target.matches?.("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=submit])");
document.addEventListener("keydown", (event) => {
	if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || !help || help.open) return;
	if (event.key === "Escape") {
		if (isTyping(event.target)) return event.target.blur();
		if (!keys.on) return;
		const up = one("a[rel=up]");
		if (up) up.click();
		else if (page !== "overview") history.back();
		return;
	}
	if (!keys.on || isTyping(event.target)) return;
	const place = Date.now() - went < 2_000 && one(`.rail [data-key="${CSS.escape(event.key)}"]`);
	went = 0;
	const what = place ? () => place.click() : does[event.key];
	if (!what) return;
	event.preventDefault();
	what();
});
