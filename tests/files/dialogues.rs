//! Plays `tests/dialogues/*.smtp` against the session, in memory, three ways: line by line, pipelined, octet by octet.
//!
//! A file is a few lines `# comment`, then `key = value` lines (see [`Setting`]), then the conversation:
//! `C: text` (CRLF is added), `C! text\r\n\x00` (exactly these octets), `S: reply` (`*` stands for anything),
//! `S: close`, `TLS` (handshake now), `--- connection` (a new one), `reload key = value`, `sink: N` (messages accepted
//! so far), `body: text`, `header: line`, `no-header: line`, `envelope: from to`, `rules: what rules made of it`, `archives: who gets a copy` (or `none`), `held: ROUTE by QUOTA` (or `held: no`)
//! and `dsn: RET= ENVID=; to NOTIFY= ORCPT=` (of the last message). `later: 1h` moves the clock of the quotas. `play = whole` (or `lines`,
//! `octets`) restricts how it is played.

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use postern::{
    config::values,
    mail::{
        address::{Address, Domain},
        health::Health,
        message::MessageId,
        reply::Reply,
    },
    policy::{
        AuthMode,
        alter::{AddedField, FieldName, HeaderRule, SubjectPrefix},
        archive::{Archive, ArchiveForm},
        certificate::{CertificateNames, CertificatePattern, ClientCertificates},
        client::{ToleranceLevel, User},
        ledger::{Ledger, QuotaView},
        quota::{Beyond, CountedBy, Quota},
        redirect::Redirect,
        rewrite::{ReplyTo, Rewrite},
        scope::Scope,
    },
    secret::Secret,
    smtp::server::session::{
        Accepted, Authentication, Conditions, ListenerRules, Rules, Session, Step,
    },
};

use crate::fixture::{self, patterns, policy, rules};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Lines,
    Whole,
    Octets,
}

/// What a file can set; the base is the fixture of the attack catalogue.
#[derive(Debug, Clone)]
struct Setting {
    peer: SocketAddr,
    listener: ListenerRules,
    rules: Rules,
    store: Health,
    throttled: bool,
    implicit: bool,
    /// What the client shows in the handshake, where it is asked for a certificate.
    shows: Option<CertificateNames>,
    ways: Vec<Way>,
}

impl Setting {
    fn new() -> Self {
        let mut rules = rules("gw.corp.com", policy("corp.com", "corp.com p@ext.org"));
        rules.message_size = 100_000;
        rules.policy.users = vec![User {
            name: "erp".into(),
            password: Secret::new("hash-1"),
            certificates: Vec::new(),
            senders: Some(patterns("erp@corp.com")),
            recipients: None,
        }];
        Self {
            peer: "127.0.0.1:4000".parse().unwrap(),
            listener: fixture::listener(),
            rules,
            store: Health::Fine,
            throttled: false,
            implicit: false,
            shows: None,
            ways: vec![Way::Lines, Way::Whole, Way::Octets],
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm a key")]
    fn set(&mut self, key: &str, value: &str) {
        let client = self.rules.policy.clients.first_mut();
        let yes = value == "true";
        match key {
            "peer" => self.peer = value.parse().unwrap(),
            "tolerance" => {
                client.unwrap().tolerance = match value {
                    "strict" => ToleranceLevel::Strict,
                    "device" => ToleranceLevel::Device,
                    _ => ToleranceLevel::Standard,
                }
            }
            "lf_only" => client.unwrap().lf_only = yes,
            "hide_starttls" => client.unwrap().hide_starttls = yes,
            "require_auth" => client.unwrap().require_auth = yes,
            "any_credentials" => client.unwrap().any_credentials = yes,
            "clients" => {
                let networks = value
                    .split_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect();
                client.unwrap().networks = networks;
            }
            "starttls" => (self.listener.starttls, self.listener.certificate) = (yes, yes),
            "require_tls" => self.listener.require_tls = yes,
            "certificate" => self.listener.certificate = yes,
            "plaintext_auth" => self.listener.plaintext_auth = yes,
            "chunking" => self.listener.chunking = yes,
            "smtputf8" => self.listener.smtputf8 = yes,
            "implicit" => self.implicit = yes,
            "auth" => {
                self.listener.auth = match value {
                    "required" => AuthMode::Required,
                    "optional" => AuthMode::Optional,
                    _ => AuthMode::Off,
                }
            }
            "client_certificates" => {
                self.listener.client_certificates = match value {
                    "required" => ClientCertificates::Required,
                    "optional" => ClientCertificates::Optional,
                    _ => ClientCertificates::Off,
                }
            }
            // Of the user erp, and of another one by the name of scan.
            "user_certificate" => {
                let one = CertificatePattern::parse(value).unwrap();
                self.rules.policy.users[0].certificates = vec![one];
            }
            "second_certificate" => {
                let one = CertificatePattern::parse(value).unwrap();
                let second = User {
                    name: "scan".into(),
                    password: Secret::default(),
                    certificates: vec![one],
                    ..self.rules.policy.users[0].clone()
                };
                self.rules.policy.users.push(second);
            }
            "no_user" => self.rules.policy.users.retain(|user| user.name != value),
            // dns:NAME … with blanks between them
            "shows" => {
                let of = |kind: &str| {
                    let all = value.split_whitespace();
                    all.filter_map(|name| Some(name.strip_prefix(kind)?.to_owned()))
                        .collect()
                };
                let names = CertificateNames::new(of("dns:"), of("email:"), of("cn:"), [7; 32]);
                self.shows = Some(names);
            }
            "hash" => self.rules.policy.users[0].password = Secret::new(value),
            "senders" => self.rules.policy.allowlist.senders = patterns(value),
            "recipients" => self.rules.policy.allowlist.recipients = patterns(value),
            "routed_recipients" => {
                self.rules.router.routes[0].recipients = Some(patterns(value));
            }
            "route_max_size" => {
                self.rules.router.routes[0].max_size = Some(value.parse().unwrap());
            }
            "second_route" => {
                let mut second = self.rules.router.routes[0].clone();
                second.recipients = Some(patterns(value));
                second.max_size = None;
                self.rules.router.routes.insert(0, second);
            }
            "rewrite" => {
                let (from, to) = value.split_once(" to ").unwrap();
                self.rules.policy.rewrites.push(Rewrite {
                    senders: patterns(from),
                    to: Address::parse(to).unwrap(),
                    reply_to: ReplyTo::Original,
                });
            }
            // NAME to ADDRESSES [from PATTERNS] [for PATTERNS] [except PATTERNS] [client NAME]
            "redirect" => self.rules.policy.redirects.push(redirect(value)),
            // NAME to ADDRESS [from PATTERNS] [for PATTERNS] [client NAME]
            "archive" => {
                let Redirect {
                    name, scope, to, ..
                } = redirect(value);
                let to = to.into_iter().next().unwrap();
                let by = (to.clone(), "gw.corp.com".to_owned());
                let form = ArchiveForm::Copy;
                self.rules.policy.archives.push(Arc::new(Archive {
                    name,
                    scope,
                    to,
                    form,
                    by,
                }));
            }
            "header_recipients" => self.rules.policy.allowlist.header_recipients = yes,
            // add NAME: VALUE | remove NAME | prefix "TEXT", several with ` & ` between them
            "header" => {
                let mut rule = HeaderRule::default();
                for part in value.split(" & ") {
                    match part.split_once(' ').unwrap() {
                        ("add", field) => rule.add.push(AddedField::parse(field).unwrap()),
                        ("remove", name) => rule.remove.push(FieldName::parse(name).unwrap()),
                        ("prefix", text) => {
                            let prefix = SubjectPrefix::parse(text.trim_matches('"'));
                            rule.subject_prefix = Some(prefix.unwrap());
                        }
                        ("from", senders) => rule.scope.senders = Some(patterns(senders)),
                        ("to", recipients) => rule.scope.recipients = Some(patterns(recipients)),
                        (name, _) => panic!("unknown part {name}"),
                    }
                }
                self.rules.policy.header_rules.push(rule);
            }
            // NAME per KEY max RATE over WORD [from PATTERNS]
            "quota" => {
                let words: Vec<&str> = value.split(' ').collect();
                let [name, "per", per, "max", max, "over", over, rest @ ..] = words.as_slice()
                else {
                    panic!("not a quota: {value}")
                };
                let rate = values::rate(max).unwrap();
                let by = CountedBy::ALL.into_iter().find(|by| by.as_str() == *per);
                let all = [Beyond::Alert, Beyond::Hold, Beyond::Refuse];
                let mut scope = Scope::default();
                if let [key, patterns @ ..] = rest {
                    let found = Some(fixture::patterns(&patterns.join(" ")));
                    match *key {
                        "from" => scope.senders = found,
                        _ => scope.recipients = found,
                    }
                }
                self.rules.policy.quotas.push(Quota {
                    name: (*name).into(),
                    scope,
                    per: by.unwrap(),
                    most: rate.count,
                    window: rate.per,
                    over: all.into_iter().find(|word| word.as_str() == *over).unwrap(),
                    hold_for: Duration::from_hours(48),
                });
            }
            "default_domain" => {
                self.rules.policy.default_domain = Some(Domain::parse(value).unwrap());
            }
            "message_size" => self.rules.message_size = value.parse().unwrap(),
            "max_recipients" => self.rules.recipients = value.parse().unwrap(),
            "session_errors" => self.rules.session_errors = value.parse().unwrap(),
            "store" => {
                self.store = match value {
                    "full" => Health::Full,
                    "failing" => Health::Failing,
                    _ => Health::Fine,
                }
            }
            "throttled" => self.throttled = yes,
            "play" => {
                self.ways = vec![match value {
                    "whole" => Way::Whole,
                    "lines" => Way::Lines,
                    _ => Way::Octets,
                }];
            }
            _ => panic!("unknown key {key}"),
        }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            learned: None,
            quotas: None,
            rules: Arc::new(self.rules.clone()),
            store: self.store,
            throttled: self.throttled,
        }
    }
}

fn redirect(text: &str) -> Redirect {
    let (name, rest) = text.split_once(' ').unwrap();
    let mut redirect = Redirect {
        name: name.into(),
        scope: Scope::default(),
        to: Vec::new(),
        except: Vec::new(),
    };
    let mut key = "";
    for word in rest.split(' ') {
        let more = |list: &mut Option<Vec<_>>| {
            list.get_or_insert_default().extend(patterns(word));
        };
        match (key, word) {
            (_, "to" | "from" | "for" | "except" | "client") => key = word,
            ("to", _) => redirect.to.push(Address::parse(word).unwrap()),
            ("from", _) => more(&mut redirect.scope.senders),
            ("for", _) => more(&mut redirect.scope.recipients),
            ("except", _) => redirect.except.extend(patterns(word)),
            ("client", _) => redirect.scope.clients = Some(vec![word.to_owned()]),
            _ => panic!("not a redirect: {text}"),
        }
    }
    redirect
}

/// A session with its driver.
struct Player {
    session: Session,
    shows: Option<CertificateNames>,
    conditions: Conditions,
    input: BytesMut,
    lines: VecDeque<String>,
    closed: bool,
    handshake: bool,
    greeted: bool,
    spool: Vec<u8>,
    accepted: Vec<(Accepted, Vec<u8>)>,
}

impl Player {
    /// `view`: what the sessions before have counted.
    fn new(setting: &Setting, view: &QuotaView) -> Self {
        view.ledger.adopt(&setting.rules.policy.quotas);
        let mut conditions = setting.conditions();
        conditions.quotas = Some(view.clone());
        let listener = Arc::new(setting.listener.clone());
        let mut session =
            Session::new(listener, setting.peer, setting.implicit, conditions.clone());
        let shows = setting.shows.clone();
        if let (true, Some(names)) = (setting.implicit, shows.clone()) {
            session.shown(names);
        }
        Self {
            session,
            shows,
            conditions,
            input: BytesMut::new(),
            lines: VecDeque::new(),
            closed: false,
            handshake: false,
            greeted: false,
            spool: Vec::new(),
            accepted: Vec::new(),
        }
    }

    fn say(&mut self, reply: &Reply) {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        for line in String::from_utf8(wire).unwrap().lines() {
            self.lines.push_back(line.to_owned());
        }
    }

    fn greet(&mut self) {
        if !self.greeted {
            self.greeted = true;
            let step = self.session.greet();
            self.perform(step);
        }
    }

    fn feed(&mut self, octets: &[u8]) {
        if self.closed {
            return;
        }
        self.input.extend_from_slice(octets);
        self.session.refresh(self.conditions.clone());
        while let Some(step) = self.session.feed(&mut self.input) {
            self.perform(step);
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Reply(reply) => self.say(&reply),
            Step::Pause(_) | Step::Rejected(_) | Step::Chunk => {}
            Step::StartTls(reply) => {
                assert!(self.input.is_empty(), "nothing may be left before TLS");
                self.say(&reply);
                self.handshake = true;
            }
            Step::ImplicitTls => self.handshake = true,
            Step::Verify(credentials) => {
                let right = credentials.user == "erp" && credentials.password.reveal() == "secret";
                let step = self.session.verified(match credentials.user.as_str() {
                    "throttled" => Authentication::Throttled,
                    _ if right => Authentication::Accepted,
                    _ => Authentication::Refused,
                });
                self.perform(step);
            }
            Step::Data => {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                let step = self
                    .session
                    .data(MessageId::new(now, self.accepted.len() as u128), now);
                if let Some(step) = step {
                    self.perform(step);
                }
            }
            Step::Spool(piece) => self.spool.extend_from_slice(&piece),
            Step::Unspool => self.spool.clear(),
            Step::Enqueue(accepted) => {
                if let Some(view) = &self.conditions.quotas {
                    view.ledger.count(&accepted.tally, view.now);
                }
                let body = accepted
                    .body
                    .as_ref()
                    .map_or_else(|| std::mem::take(&mut self.spool), |b| b.to_vec());
                self.accepted.push((*accepted, body));
                let step = self.session.enqueued(Ok(()));
                self.perform(step);
            }
            Step::Close(reply) => {
                if let Some(reply) = reply {
                    self.say(&reply);
                }
                self.lines.push_back("close".into());
                self.closed = true;
            }
        }
    }

    fn tls(&mut self) {
        assert!(self.handshake, "no handshake was asked for");
        self.handshake = false;
        self.input.clear();
        if let Some(names) = self.shows.clone() {
            self.session.shown(names);
        }
        if let Some(step) = self.session.tls_started() {
            self.perform(step);
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next().unwrap() {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'\\' => out.push(b'\\'),
            b'x' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            // `\{N*c}`: N times the character c.
            b'{' => {
                let inner: Vec<u8> = bytes.by_ref().take_while(|&b| b != b'}').collect();
                let inner = String::from_utf8(inner).unwrap();
                let (count, what) = inner.split_once('*').unwrap();
                out.extend(what.as_bytes().repeat(count.parse().unwrap()));
            }
            other => panic!("unknown escape {}", char::from(other)),
        }
    }
    out
}

fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What a message says of reports, as the commands that say it.
fn asked_of_reports(accepted: &Accepted) -> String {
    let wish = accepted.envelope.dsn.clone().unwrap_or_default();
    let ret = wish.content.map(|ret| format!("RET={}", ret.as_str()));
    let mut seen: Vec<String> = ret.into_iter().collect();
    seen.extend(wish.id.map(|id| format!("ENVID={id}")));
    let mut all = vec![seen.join(" ")];
    for recipient in &accepted.envelope.recipients {
        let notify = recipient.notify().map(|notify| format!(" NOTIFY={notify}"));
        let original = recipient.dsn.as_ref().and_then(|dsn| dsn.original.as_ref());
        let original = original.map(|original| format!(" ORCPT={original}"));
        all.push(format!(
            "{recipient}{}{}",
            notify.unwrap_or_default(),
            original.unwrap_or_default()
        ));
    }
    let of_jobs = accepted.jobs.iter().flat_map(|(_, recipients)| recipients);
    assert!(
        accepted
            .envelope
            .recipients
            .iter()
            .all(|r| of_jobs.clone().any(|j| j == r))
    );
    all.join("; ")
}

#[expect(clippy::too_many_lines, reason = "one arm a kind of line")]
fn play(path: &Path, text: &str, way: Way, setting: &Setting) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut setting = setting.clone();
    let mut view = QuotaView {
        ledger: Arc::new(Ledger::default()),
        now: Duration::from_hours(24),
    };
    let mut player = Player::new(&setting, &view);
    let mut accepted = 0;
    let mut waiting: Vec<u8> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{} {way:?}", number + 1);
        let octets = if let Some(said) = line.strip_prefix("C: ") {
            [said.as_bytes(), b"\r\n"].concat()
        } else if line == "C:" {
            b"\r\n".to_vec()
        } else if let Some(said) = line.strip_prefix("C! ") {
            unescape(said)
        } else {
            Vec::new()
        };
        if !octets.is_empty() {
            // What is sent before any `S:` line is early talk; a greeting that is expected was asked for by its `S:`.
            match way {
                Way::Whole => waiting.extend(octets),
                Way::Lines => player.feed(&octets),
                Way::Octets => octets.iter().for_each(|o| player.feed(&[*o])),
            }
            continue;
        }
        if !waiting.is_empty() {
            player.feed(&std::mem::take(&mut waiting));
        }
        if let Some(expected) = line.strip_prefix("S: ") {
            if player.lines.is_empty() {
                player.greet();
            }
            player.greeted = true;
            let got = player.lines.pop_front();
            assert!(
                got.as_deref().is_some_and(|got| matches(expected, got)),
                "{at}: expected {expected:?}, got {got:?} and then {:?}",
                player.lines
            );
        } else if line == "TLS" {
            player.tls();
        } else if line == "--- connection" {
            accepted += player.accepted.len();
            assert!(player.lines.is_empty(), "{at}: unread {:?}", player.lines);
            player = Player::new(&setting, &view);
        } else if let Some(change) = line.strip_prefix("reload ") {
            let (key, value) = change.split_once('=').unwrap();
            setting.set(key.trim(), value.trim());
            player.conditions = setting.conditions();
            view.ledger.adopt(&setting.rules.policy.quotas);
            player.conditions.quotas = Some(view.clone());
        } else if let Some(time) = line.strip_prefix("later: ") {
            view.now += values::duration(time).unwrap();
            player.conditions.quotas = Some(view.clone());
        } else if let Some(held) = line.strip_prefix("held: ") {
            let (last, _) = player.accepted.last().unwrap();
            let all: Vec<String> = last
                .held
                .iter()
                .map(|(route, by)| format!("{route} by {by}"))
                .collect();
            let said = if all.is_empty() {
                "no".into()
            } else {
                all.join(", ")
            };
            assert_eq!(said, held, "{at}");
        } else if let Some(names) = line.strip_prefix("archives: ") {
            let (last, _) = player.accepted.last().unwrap();
            let all: Vec<&str> = last.archives.iter().map(|one| &*one.name).collect();
            let said = if all.is_empty() {
                "none".into()
            } else {
                all.join(" ")
            };
            assert_eq!(said, names, "{at}");
        } else if let Some(rules) = line.strip_prefix("rules: ") {
            let (last, _) = player.accepted.last().unwrap();
            let said = last.origin.rules.join("; ");
            assert!(matches(rules, &said), "{at}: {said}");
        } else if let Some(count) = line.strip_prefix("sink: ") {
            let seen = accepted + player.accepted.len();
            assert_eq!(seen.to_string(), count, "{at}: messages");
        } else if let Some(body) = line.strip_prefix("body: ") {
            let (_, last) = player.accepted.last().unwrap();
            assert_eq!(
                last.escape_ascii().to_string(),
                unescape(body).escape_ascii().to_string(),
                "{at}"
            );
        } else if let Some((field, wanted)) = line
            .strip_prefix("header: ")
            .map(|field| (field, true))
            .or_else(|| line.strip_prefix("no-header: ").map(|field| (field, false)))
        {
            let (last, _) = player.accepted.last().unwrap();
            let header = String::from_utf8_lossy(&last.header).into_owned();
            assert!(
                header.lines().any(|line| matches(field, line)) == wanted,
                "{at}: {field:?} in {header}"
            );
        } else if let Some(envelope) = line.strip_prefix("envelope: ") {
            let (last, _) = player.accepted.last().unwrap();
            let sender = last.envelope.sender.as_ref();
            let mut seen = sender.map_or("<>".to_owned(), ToString::to_string);
            for recipient in &last.envelope.recipients {
                seen = format!("{seen} {recipient}");
            }
            assert_eq!(seen, envelope, "{at}");
        } else if let Some(wishes) = line.strip_prefix("dsn: ") {
            let (last, _) = player.accepted.last().unwrap();
            assert_eq!(asked_of_reports(last), wishes, "{at}");
        }
    }
    if !waiting.is_empty() {
        player.feed(&waiting);
    }
    assert!(
        player.lines.is_empty(),
        "{name} {way:?}: unread at the end: {:?}",
        player.lines
    );
}

pub fn plays_three_ways(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let mut setting = Setting::new();
    for line in text.lines().take_while(|l| !l.starts_with(['C', 'S'])) {
        if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            setting.set(key.trim(), value.trim());
        }
    }
    for &way in &setting.ways {
        play(file, &text, way, &setting);
    }
}
