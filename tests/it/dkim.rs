//! What leaves is verified by three programs of others (dkimpy, Mail::DKIM, OpenDKIM), whatever text it is; what is added to it is
//! found by them; and the gateway and its commands as a whole.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use postern::{
    connector::{
        Connector as _, Services,
        dkim::{DkimKey, DkimPair},
        smtp::{Smtp, Timeouts},
    },
    mail::{
        address::Domain,
        headers,
        message::{Body, Envelope, Message, MessageId},
        outcome::{Outcome, Report},
    },
};
use tempfile::TempDir;

use super::{
    fixture,
    harness::{
        client::{Client, queued_id},
        gateway::{Gateway, basic, stdout},
        peers::{command, need, peers},
        time::wait,
        upstream::{Script, Upstream},
    },
};

/// Keys, and the records that publish them.
struct Published {
    keys: Vec<DkimKey>,
    records: BTreeMap<String, String>,
}

impl Published {
    fn new(keys: &[(&str, &str, bool)]) -> Self {
        let mut published = Self {
            keys: Vec::new(),
            records: BTreeMap::new(),
        };
        for (domain, selector, is_ed25519) in keys {
            let (pair, key) = DkimPair::generate(*is_ed25519).unwrap();
            let key = DkimKey {
                domain: Domain::parse(domain).unwrap(),
                selector: (*selector).to_owned(),
                key: Some(key),
                from: None,
                until: None,
            };
            let name = key.record_name();
            published.records.insert(name, pair.record().unwrap());
            published.keys.push(key);
        }
        published
    }

    fn both() -> Self {
        Self::new(&[("corp.example", "r1", false), ("corp.example", "e1", true)])
    }

    fn connector(&self, upstream: &Upstream) -> Smtp {
        let address = upstream.address;
        let settings = postern::connector::SmtpSettings {
            dkim: Some(self.keys.clone()),
            ..fixture::smtp(&address.ip().to_string(), address.port())
        };
        let services = Services::default();
        Smtp::new("up".into(), 100, &settings, Timeouts::default(), services).unwrap()
    }
}

fn message(header: impl Into<Vec<u8>>, body: Body) -> Message {
    Message {
        id: MessageId::new(SystemTime::now(), 7),
        envelope: Envelope {
            sender: None,
            recipients: vec![fixture::address("b@corp.example").into()],
            eight_bit: false,
            dsn: None,
        },
        origin: fixture::origin(SystemTime::now()),
        header: header.into().into(),
        body,
    }
}

async fn deliver(connector: &Smtp, message: &Message) -> String {
    let deadline = (Instant::now() + Duration::from_mins(1)).into();
    let recipients = &message.envelope.recipients;
    let report = connector.deliver(message, recipients, &deadline).await;
    let Report::Tried { outcomes, via, .. } = report else {
        panic!("{report:?}");
    };
    let is_delivered = |outcome: &Outcome| matches!(outcome, Outcome::Delivered(_));
    assert!(
        outcomes.iter().all(|(_, one)| is_delivered(one)),
        "{outcomes:?}"
    );
    via
}

/// What each of the others says of each signature: a selector, and nothing or the fault.
type Verdicts = Vec<(String, Result<(), String>)>;

/// Texts in a folder, and the programs that verify them.
struct Verifiers {
    dir: TempDir,
    records: PathBuf,
    files: Vec<PathBuf>,
}

impl Verifiers {
    fn new(records: &BTreeMap<String, String>) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("records.json");
        fs::write(&file, serde_json::to_vec(records).unwrap()).unwrap();
        Self {
            records: file,
            dir,
            files: Vec::new(),
        }
    }

    fn add(&mut self, text: &[u8]) {
        let file = self.dir.path().join(format!("{:05}.eml", self.files.len()));
        fs::write(&file, text).unwrap();
        self.files.push(file);
    }

    fn ask(&self, mut program: Command) -> Vec<Verdicts> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers");
        let output = program
            .current_dir(script)
            .arg(&self.records)
            .args(&self.files)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of_file = |file: &PathBuf| {
            let verdicts = found[file.to_str().unwrap()].as_array().unwrap();
            let one = |verdict: &serde_json::Value| {
                let selector = verdict[0].as_str().unwrap_or("?").to_owned();
                let fault = verdict[1].as_str().map(str::to_owned);
                (selector, fault.map_or(Ok(()), Err))
            };
            verdicts.iter().map(one).collect()
        };
        self.files.iter().map(of_file).collect()
    }

    fn dkimpy(&self) -> Vec<Verdicts> {
        let mut program = Command::new(peers().join("dkim/bin/python"));
        program.arg("dkimpy.py");
        self.ask(program)
    }

    /// It knows no Ed25519.
    fn mail_dkim(&self) -> Vec<Verdicts> {
        let mut program = command("perl");
        program.arg("mail_dkim.pl");
        let all = self.ask(program);
        let mut unknown = 0;
        let known = all.into_iter().map(|verdicts| {
            let before = verdicts.len();
            let unsupported = "unsupported algorithm ed25519-sha256";
            let known = verdicts
                .into_iter()
                .filter(|(_, verdict)| !matches!(verdict, Err(why) if why.contains(unsupported)));
            let known: Verdicts = known.collect();
            unknown += before - known.len();
            known
        });
        known.collect()
    }

    /// Whether each file is good. Only root has a network of its own.
    fn opendkim(&self) -> Vec<bool> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers/opendkim.sh");
        let output = command(script.to_str().unwrap())
            .arg(self.dir.path())
            .arg(&self.records)
            .args(&self.files)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let said = stdout(&output);
        let lines = self.files.iter().map(|file| {
            let good = format!("good {}", file.display());
            let bad = format!("bad {}:", file.display());
            let mut lines = said.lines();
            let found = lines.find(|line| *line == good || line.starts_with(&bad));
            found.unwrap_or_else(|| panic!("{said}")) == good
        });
        lines.collect()
    }
}

/// The text with only one of its signatures, since some look no further than the first that is good.
fn only(text: &[u8], number: usize) -> Vec<u8> {
    let end = memchr::memmem::find(text, b"\r\n\r\n").unwrap() + 2;
    let (header, rest) = text.split_at(end);
    let mut seen = 0;
    let mut out = Vec::new();
    for field in headers::fields(header) {
        if field.is("DKIM-Signature") {
            seen += 1;
            if seen != number + 1 {
                continue;
            }
        }
        out.extend_from_slice(field.raw);
    }
    [&out, rest].concat()
}

/// Headers and bodies that have fooled somebody, or might.
fn texts() -> Vec<(String, Vec<u8>)> {
    let plain = "Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nFrom: A <a@corp.example>\r\nTo: b@corp.example\r\nSubject: s\r\n";
    let long = "x".repeat(900);
    let folded = "a b\r\n\t c \t d\r\n ".repeat(300);
    let mut texts: Vec<(String, Vec<u8>)> = [
        (plain.to_owned(), "hello\r\n"),
        (plain.to_owned(), ""),
        (plain.to_owned(), "\r\n"),
        (plain.to_owned(), "\r\n\r\n \t\r\n"),
        (plain.to_owned(), " "),
        (plain.to_owned(), "no end"),
        (plain.to_owned(), "blanks \t at  the\tend \t\r\n\r\n\r\n"),
        (plain.to_owned(), ".\r\n..\r\n.x\r\n\r\n."),
        (plain.to_owned(), "\t\r\n\t a\r\n \r\nb\r\n"),
        (plain.to_owned(), "gr\u{fc}\u{df}e \u{1f600}\r\n"),
        (format!("{plain}X-Empty:\r\nReply-To:\r\nCc: \t \r\n"), "x\r\n"),
        (format!("{plain}subject: another\r\nTO: c@corp.example\r\nTo: d@corp.example\r\n"), "x\r\n"),
        (format!("{plain}References: <{long}@corp.example>\r\n"), "x\r\n"),
        (format!("{plain}References: {folded}<e@corp.example>\r\n"), "x\r\n"),
        (format!("{plain}Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID:\r\n <a@corp.example>\r\n"), "x\r\n"),
        ("From:\r\n\t\"A\r\n B\" \r\n <a@corp.example>\r\nSubject:  two   blanks\t\r\n".to_owned(), "x\r\n"),
        ("FROM: a@deep.corp.example, z@other.example\r\nSubject: gr\u{fc}\u{df}e\r\n".to_owned(), "x\r\n"),
        (format!("{plain}List-Id: <l.corp.example>\r\nlist-Odd_1: y\r\nList-x;l=0: z\r\nList-Unsubscribe: <mailto:u@corp.example>\r\n"), "x\r\n"),
        (format!("{plain}MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"), "\u{e9}\r\n"),
        (format!("DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=AAAA; b=AAAA\r\nReceived: from x\r\n{plain}"), "x\r\n"),
    ]
    .map(|(header, body)| (header, body.as_bytes().to_vec()))
    .into();
    texts.push((
        plain.to_owned(),
        vec![0xff, 0xe9, b'\r', b'\n', 0x01, b' ', 0x80],
    ));
    texts.push((plain.to_owned(), b"a b\r\n".repeat(50_000)));
    texts
}

/// Real texts of others, taken in by the gateway's own tests.
fn real_texts() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
            let Some((header, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let header = format!("{header}\r\n");
            let is_header = headers::fields(header.as_bytes())
                .all(|field| !field.name.is_empty() && !field.is_spaced());
            if is_header {
                let others = headers::remove(header.as_bytes(), &["From"]);
                let others = String::from_utf8(others).unwrap();
                found.push((
                    format!("From: a@corp.example\r\n{others}"),
                    body.as_bytes().to_vec(),
                ));
            }
        }
    }
    found
}

fn random_text(random: &mut fastrand::Rng) -> (String, Vec<u8>) {
    let words = [
        "a",
        "b.c",
        " ",
        "  ",
        "\t",
        "\r\n ",
        "\r\n\t",
        "=?utf-8?q?x?=",
        ";",
        ":",
        "\u{e9}",
        "\"q\"",
        "<x@y>",
        "(c)",
    ];
    let names = [
        "To",
        "Cc",
        "subject",
        "SUBJECT",
        "Date",
        "X-Own",
        "References",
        "List-Id",
        "list-other",
        "Content-Type",
        "DKIM-Signature",
        "Sender",
    ];
    let mut header =
        String::from("Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nFrom: a@corp.example\r\n");
    for _ in 0..random.usize(..6) {
        let name = names[random.usize(..names.len())];
        let value: String = (0..random.usize(..8))
            .map(|_| words[random.usize(..words.len())])
            .collect();
        // A line of blanks inside a header does not get as far as this.
        let blank = value
            .split("\r\n")
            .skip(1)
            .any(|line| line.trim().is_empty());
        if !blank {
            write!(header, "{name}:{value}\r\n").unwrap();
        }
    }
    let parts = [
        "a", "word", " ", "  ", "\t", "\r\n", "\r\n\r\n", ".", "..", "\u{e9}", "=20", "From x",
    ];
    let body: String = (0..random.usize(..20))
        .map(|_| parts[random.usize(..parts.len())])
        .collect();
    (header, body.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs dkimpy, Mail::DKIM and OpenDKIM (tests/run)"]
async fn three_programs_verify_what_leaves() {
    need("opendkim-testmsg");
    let published = Published::both();
    let upstream = Script::default().offers("PIPELINING").start();
    let connector = published.connector(&upstream);
    let mut random = fastrand::Rng::with_seed(8463);
    let mut texts = texts();
    let real = real_texts();
    assert!(real.len() > 5, "{}", real.len());
    texts.extend(real);
    texts.extend((0..fixture::times(1_500)).map(|_| random_text(&mut random)));
    for (header, body) in &texts {
        let message = message(header.as_bytes(), Body::Memory(body.clone().into()));
        let via = deliver(&connector, &message).await;
        assert!(via.ends_with("(DKIM corp.example r1, e1)"), "{via}");
    }
    let mails = upstream.wait(texts.len());
    let mut verifiers = Verifiers::new(&published.records);
    for mail in &mails {
        verifiers.add(&mail.data);
    }
    for (verdicts, mail) in verifiers.dkimpy().iter().zip(&mails) {
        assert_eq!(good(verdicts, &mail.data), ["r1", "e1"]);
    }
    for (verdicts, mail) in verifiers.mail_dkim().iter().zip(&mails) {
        assert_eq!(good(verdicts, &mail.data), ["r1"]);
    }
    // A process for each, so of some.
    let mut verifiers = Verifiers::new(&published.records);
    let fit: Vec<_> = mails
        .iter()
        .filter(|mail| has_no_field_twice(&mail.data))
        .take(120)
        .collect();
    assert!(fit.len() > 60, "{}", fit.len());
    for mail in &fit {
        verifiers.add(&only(&mail.data, 0));
        verifiers.add(&only(&mail.data, 1));
    }
    for (at, is_good) in verifiers.opendkim().into_iter().enumerate() {
        assert!(is_good, "{at}: {}", shown(&fit[at / 2].data));
    }
}

/// OpenDKIM looks at no other message (RFC 5322 §3.6), and at none with a `;` in the name of a field.
fn has_no_field_twice(text: &[u8]) -> bool {
    let end = memchr::memmem::find(text, b"\r\n\r\n").unwrap() + 2;
    let count = |name: &str| {
        headers::fields(&text[..end])
            .filter(|field| field.is(name))
            .count()
    };
    let once = [
        "To",
        "Cc",
        "Subject",
        "Sender",
        "Reply-To",
        "Message-ID",
        "In-Reply-To",
        "References",
    ];
    let is_odd = headers::fields(&text[..end]).any(|field| field.name.contains(&b';'));
    !is_odd && count("Date") == 1 && once.iter().all(|name| count(name) < 2)
}

/// The selectors of our signatures, the uppermost first: those that stood there before are the business of others.
fn good(verdicts: &Verdicts, text: &[u8]) -> Vec<String> {
    let ours = verdicts
        .iter()
        .filter(|(selector, _)| selector != "x" && selector != "?");
    ours.map(|(selector, verdict)| {
        assert_eq!(verdict, &Ok(()), "{selector} of {}", shown(text));
        selector.clone()
    })
    .collect()
}

fn shown(text: &[u8]) -> String {
    let text = text.get(..text.len().min(4_000)).unwrap();
    text.escape_ascii().to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs dkimpy, Mail::DKIM and OpenDKIM (tests/run)"]
async fn what_is_added_or_changed_later_is_found() {
    need("opendkim-testmsg");
    let published = Published::both();
    let upstream = Upstream::start();
    let connector = published.connector(&upstream);
    let header = "From: a@corp.example\r\nTo: b@corp.example\r\nSubject: s\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@corp.example>\r\n";
    let body = Body::Memory("text\r\n".into());
    deliver(&connector, &message(header, body)).await;
    let text = upstream.wait(1).remove(0).data;
    let mut changed: Vec<Vec<u8>> = Vec::new();
    for field in [
        "From: evil@corp.example",
        "from: evil@other.example",
        "Subject: another",
        "To: c@corp.example",
        "Cc: c@corp.example",
        "Date: Tue, 01 Dec 2026 10:00:00 +0000",
        "Message-ID: <b@corp.example>",
        "Reply-To: evil@other.example",
        "Sender: evil@other.example",
        "MIME-Version: 1.0",
        "Content-Type: text/html",
        "Content-Transfer-Encoding: base64",
        "In-Reply-To: <c@corp.example>",
        "References: <c@corp.example>",
        "List-Unsubscribe: <https://other.example>",
        "List-Id: <evil.other.example>",
    ] {
        // Above all, and behind all.
        changed.push([field.as_bytes(), b"\r\n", &text].concat());
        let end = memchr::memmem::find(&text, b"\r\n\r\n").unwrap() + 2;
        changed.push([&text[..end], field.as_bytes(), b"\r\n", &text[end..]].concat());
    }
    changed.push([&text[..], b"more\r\n"].concat());
    let replaced = |from: &str, to: &str| {
        let text = String::from_utf8(text.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    changed.push(replaced("Subject: s", "Subject: t"));
    changed.push(replaced("\r\n\r\ntext", "\r\n\r\ntex t"));
    let mut verifiers = Verifiers::new(&published.records);
    for text in &changed {
        verifiers.add(&only(text, 0));
        verifiers.add(&only(text, 1));
    }
    let bad = |verdicts: &Verdicts| verdicts.iter().all(|(_, verdict)| verdict.is_err());
    let (dkimpy, perl) = (verifiers.dkimpy(), verifiers.mail_dkim());
    let opendkim = verifiers.opendkim();
    for (at, file) in verifiers.files.iter().enumerate() {
        let text = shown(&fs::read(file).unwrap());
        assert!(bad(&dkimpy[at]), "dkimpy: {text}");
        assert!(bad(&perl[at]), "Mail::DKIM: {text}");
        // It refuses a second From by itself.
        assert!(!opendkim[at], "OpenDKIM: {text}");
    }
    // What others add on the way harms nothing.
    let mut verifiers = Verifiers::new(&published.records);
    for field in [
        "Received: from x by y; Mon, 30 Nov 2026 10:00:00 +0000",
        "Return-Path: <a@corp.example>",
        "X-Spam: no",
        "Authentication-Results: y; dkim=pass",
    ] {
        let text = [field.as_bytes(), b"\r\n", &text].concat();
        verifiers.add(&only(&text, 0));
        verifiers.add(&only(&text, 1));
    }
    for (verdicts, file) in verifiers.dkimpy().iter().zip(&verifiers.files) {
        assert_eq!(good(verdicts, &fs::read(file).unwrap()).len(), 1);
    }
    assert!(verifiers.opendkim().into_iter().all(|is_good| is_good));
}

/// A signature costs no memory by the size of what is signed.
#[test]
#[ignore = "needs dkimpy, Mail::DKIM and OpenDKIM (tests/run)"]
fn thirty_megabytes_are_signed_piece_by_piece() {
    need("opendkim-testmsg");
    let upstream = Upstream::start();
    let made = Made::new(&upstream, &[("corp.example", "r1", false)], "");
    let line = format!("{}\r\n", "0123456789".repeat(7));
    let body = line.repeat((30 << 20) / line.len());
    let mut client = greeted(&made.gateway);
    let content = format!("From: a@corp.example\r\nSubject: big\r\n\r\n{body}");
    // Warm, so that what is measured is the large one.
    client.mail(
        "a@corp.example",
        &["b@corp.example"],
        "From: a@corp.example\r\n\r\nx\r\n",
    );
    upstream.wait(1);
    let (before, _) = made.gateway.memory_kib();
    client.mail("a@corp.example", &["b@corp.example"], &content);
    let mails = upstream.wait(2);
    let (_, most) = made.gateway.memory_kib();
    assert!(
        most < before + 16 * 1024,
        "{before} KiB before, {most} KiB at most"
    );
    let mut verifiers = Verifiers::new(&made.records);
    verifiers.add(&mails[1].data);
    assert!(mails[1].data.len() > 30 << 20);
    assert_eq!(good(&verifiers.dkimpy()[0], &mails[1].data), ["r1"]);
    assert_eq!(good(&verifiers.mail_dkim()[0], &mails[1].data), ["r1"]);
    assert_eq!(verifiers.opendkim(), [true]);
}

/// A gateway whose keys its own command has made.
struct Made {
    gateway: Gateway,
    records: BTreeMap<String, String>,
}

impl Made {
    fn new(upstream: &Upstream, keys: &[(&str, &str, bool)], more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = basic(upstream.address) + "dkim = true\n" + more;
        let mut records = BTreeMap::new();
        for (domain, selector, is_ed25519) in keys {
            let (section, record) = new_key(dir.path(), domain, selector, *is_ed25519);
            config.push_str(&section);
            records.insert(format!("{selector}._domainkey.{domain}"), record);
        }
        fs::write(dir.path().join("config.toml"), config).unwrap();
        Self {
            gateway: Gateway::start_in(dir),
            records,
        }
    }

    fn verdicts(&self, text: &[u8]) -> Vec<String> {
        let mut verifiers = Verifiers::new(&self.records);
        verifiers.add(text);
        good(&verifiers.dkimpy()[0], text)
    }
}

fn greeted(gateway: &Gateway) -> Client {
    let mut client = gateway.connect("local");
    client.expect("EHLO app.corp.example", "250");
    client
}

/// The section that the command prints, and the record, read as a name server reads it.
fn new_key(dir: &Path, domain: &str, selector: &str, is_ed25519: bool) -> (String, String) {
    let mut program = Command::new(Gateway::binary());
    program
        .current_dir(dir)
        .args(["dkim", "new", domain, "--selector", selector]);
    if is_ed25519 {
        program.arg("--ed25519");
    }
    let output = program.output().unwrap();
    let said = stdout(&output);
    assert!(
        output.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (before, section) = said.split_once("[[dkim]]").unwrap();
    let name = format!("{selector}._domainkey.{domain}. IN TXT");
    let (_, strings) = before.split_once(&name).unwrap();
    let strings: Vec<&str> = strings.split('"').skip(1).step_by(2).collect();
    assert!(
        strings.iter().all(|string| string.len() <= 255),
        "{strings:?}"
    );
    (format!("[[dkim]]{section}"), strings.concat())
}

#[test]
#[ignore = "needs dkimpy (tests/run)"]
fn the_gateway_signs_what_leaves_and_says_so() {
    let upstream =
        Upstream::scripted(|line| line.contains("bad@").then(|| "550 5.1.1 nobody".to_owned()));
    let keys = [("corp.example", "r1", false), ("corp.example", "e1", true)];
    let more = "[bounce]\nfrom = \"postmaster@corp.example\"\n";
    let made = Made::new(&upstream, &keys, more);
    let gateway = &made.gateway;
    let mut client = greeted(gateway);
    let header = "From: a@corp.example\r\nTo: b@corp.example\r\nBcc: secret@corp.example\r\nSubject: one\r\n\r\nx\r\n";
    let reply = client.mail("a@corp.example", &["b@corp.example"], header);
    let mail = upstream.wait(1).remove(0);
    assert!(
        mail.data.starts_with(
            b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=corp.example;\r\n"
        ),
        "{}",
        mail.text()
    );
    assert!(!mail.text().contains("secret"));
    assert_eq!(made.verdicts(&mail.data), ["r1", "e1"]);
    // What MAIL said of the size holds.
    let said = upstream.all();
    let line = gateway.wait_for_log(&["event=delivered"]);
    assert!(line.contains("(DKIM corp.example r1, e1)"), "{line} {said}");
    let id = queued_id(&reply);
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(trace.contains("DKIM corp.example r1, e1"), "{trace}");

    // A report has a From as well.
    client.mail(
        "a@corp.example",
        &["bad@corp.example"],
        "From: a@corp.example\r\nSubject: two\r\n\r\nx\r\n",
    );
    let report = upstream.wait(2).remove(1);
    assert_eq!(report.from, "");
    assert!(
        report.text().contains("multipart/report"),
        "{}",
        report.text()
    );
    assert_eq!(made.verdicts(&report.data), ["r1", "e1"]);

    let explained = gateway.cli(&[
        "explain",
        "--from",
        "a@corp.example",
        "--to",
        "b@corp.example",
    ]);
    assert!(
        stdout(&explained).contains("dkim       up signs as corp.example with r1 and e1"),
        "{}",
        stdout(&explained)
    );

    let shown = stdout(&gateway.cli(&["dkim", "show"]));
    for (name, record) in &made.records {
        assert!(shown.contains(name), "{shown}");
        let joined = shown.replace("\"\n    \"", "");
        assert!(joined.contains(record), "{shown}");
    }
    let json = stdout(&gateway.cli(&["dkim", "show", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["keys"][1]["algorithm"], "ed25519-sha256");
    assert_eq!(json["keys"][0]["signs"], true);
    assert_eq!(
        json["keys"][0]["record"],
        made.records["r1._domainkey.corp.example"]
    );
    let log = gateway.log();
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[test]
#[ignore = "needs dkimpy (tests/run)"]
fn another_key_in_the_file_signs_without_a_restart() {
    let upstream = Upstream::start();
    let mut made = Made::new(&upstream, &[("corp.example", "r1", false)], "");
    let mut client = greeted(&made.gateway);
    let content = "From: a@corp.example\r\nSubject: one\r\n\r\nx\r\n";
    client.mail("a@corp.example", &["b@corp.example"], content);
    let mail = upstream.wait(1).remove(0);
    assert_eq!(made.verdicts(&mail.data), ["r1"]);
    let elsewhere = TempDir::new().unwrap();
    let (_, record) = new_key(elsewhere.path(), "corp.example", "r1", false);
    let file = made.gateway.path("r1.key");
    fs::copy(elsewhere.path().join("r1.key"), &file).unwrap();
    made.gateway.wait_for_log(&["event=reloaded"]);
    client.mail("a@corp.example", &["b@corp.example"], content);
    let mail = upstream.wait(2).remove(1);
    made.records
        .insert("r1._domainkey.corp.example".to_owned(), record);
    assert_eq!(made.verdicts(&mail.data), ["r1"]);
    // One that is none is refused, and the one before goes on.
    fs::write(&file, "hunter2\n").unwrap();
    let log = made
        .gateway
        .wait_for_log(&["reload", "not a private key in PEM form"]);
    assert!(!log.contains("hunter2"), "{log}");
    client.mail("a@corp.example", &["b@corp.example"], content);
    let mail = upstream.wait(3).remove(2);
    assert_eq!(made.verdicts(&mail.data), ["r1"]);
}

#[test]
fn a_domain_without_a_key_is_named() {
    let upstream = Upstream::start();
    let dir = TempDir::new().unwrap();
    let (section, _) = new_key(dir.path(), "sub.corp.example", "s1", true);
    let config = basic(upstream.address).replace(
        "[\"corp.example\"]",
        "[\"corp.example\", \"*.corp.example\"]",
    );
    fs::write(
        dir.path().join("config.toml"),
        config + "dkim = true\n" + &section,
    )
    .unwrap();
    let gateway = Gateway::start_in(dir);
    let mut client = greeted(&gateway);
    for from in ["a@corp.example", "a@x.sub.corp.example", "b@corp.example"] {
        client.mail(
            from,
            &["b@corp.example"],
            &format!("From: {from}\r\nSubject: one\r\n\r\nx\r\n"),
        );
    }
    // From decides, and not the envelope.
    client.mail(
        "bounces@lists.corp.example",
        &["b@corp.example"],
        "From: a@sub.corp.example\r\nSubject: one\r\n\r\nx\r\n",
    );
    let mails = upstream.wait(4);
    let signed: Vec<bool> = mails
        .iter()
        .map(|mail| mail.text().contains("DKIM-Signature: "))
        .collect();
    assert_eq!(signed.iter().filter(|is_signed| **is_signed).count(), 2);
    wait("all to be done", || {
        let listed = stdout(&gateway.cli(&["queue", "list"]));
        (!listed.contains("corp.example")).then_some(())
    });
    let checked = gateway.cli(&["check", "--connect"]);
    let said = stdout(&checked);
    assert!(checked.status.success(), "{said}");
    let line = "unsigned  corp.example: 2 messages in the last day by envelope sender, and no [[dkim]] signs for it";
    assert!(said.contains(line), "{said}");
    assert_eq!(said.matches("unsigned").count(), 1, "{said}");
    let json = stdout(&gateway.cli(&["check", "--connect", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["unsigned"][0]["domain"], "corp.example");
    let explained = stdout(&gateway.cli(&[
        "explain",
        "--from",
        "a@corp.example",
        "--to",
        "b@corp.example",
    ]));
    assert!(
        explained.contains("up does not sign: no [[dkim]] is for corp.example today"),
        "{explained}"
    );
}

/// Whoever checks a configuration by hand is not the unit that is handed its credentials.
#[test]
fn a_configuration_whose_secrets_the_unit_alone_knows_passes() {
    let dir = TempDir::new().unwrap();
    let secrets = r#"username = "u"
password = { credential = "password" }
dkim = true

[[dkim]]
domain = "corp.example"
selector = "p"
key = { credential = "dkim" }

[[user]]
name = "erp"
password = { credential = "erp" }

[admin]
address = "127.0.0.1:0"

[[admin_user]]
name = "kim"
password = { credential = "kim" }
role = "viewer"

[[notify]]
name = "oncall"
type = "webhook"
url = { credential = "url" }
secret = { credential = "secret" }

[[notify]]
name = "phone"
type = "ntfy"
url = "https://ntfy.corp.example"
topic = "postern"
token = { credential = "token" }

[[connector]]
name = "graph"
type = "graph"
tenant_id = "00000000-0000-0000-0000-000000000001"
client_id = "00000000-0000-0000-0000-000000000002"
client_secret = { credential = "graph" }

[[connector]]
name = "gmail"
type = "smtp"
service = "Gmail"
auth = "xoauth2"
[connector.oauth]
provider = "google"
client_id = "123.apps.googleusercontent.com"
client_secret = { credential = "google" }
refresh_token = { credential = "refresh" }
mailbox = "printer@corp.example"

[cluster]
name = "relay-a"
key = { credential = "cluster" }

[queue]
store = "postgres"

[postgres]
hosts = ["db1.corp.example"]
password = { credential = "postgres" }
"#;
    let config = basic("127.0.0.1:25".parse().unwrap())
        .replace("[\"up\"]", "[\"up\", \"graph\", \"gmail\"]");
    let path = dir.path().join("config.toml");
    fs::write(&path, config + secrets).unwrap();
    let postern = |args: &[&str]| {
        Command::new(Gateway::binary())
            .args(args)
            .arg("-c")
            .arg(&path)
            .env_remove("CREDENTIALS_DIRECTORY")
            .output()
            .unwrap()
    };
    let output = postern(&["check"]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{notes}");
    assert_eq!(
        notes.matches("known to the unit only").count(),
        secrets.matches("{ credential = ").count(),
        "{notes}"
    );
    assert!(!notes.contains("error"), "{notes}");
    let shown = stdout(&postern(&["dkim", "show"]));
    assert!(
        shown.contains("p._domainkey.corp.example: the key is a credential of the unit"),
        "{shown}"
    );
}

#[test]
fn the_command_makes_a_key_and_overwrites_none() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let mut program = Command::new(Gateway::binary());
        program
            .current_dir(dir.path())
            .args(["dkim", "new"])
            .args(arguments);
        let output = program.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(
        run(&["b\u{fc}cher.example", "--selector", "A.b"]),
        (0, String::new())
    );
    let file = dir.path().join("a.b.key");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&file).unwrap();
    let (code, said) = run(&["corp.example", "--selector", "a.b"]);
    assert_eq!(code, 73);
    assert!(
        said.contains("a.b.key exists, and a key is never overwritten"),
        "{said}"
    );
    std::os::unix::fs::symlink("nowhere", dir.path().join("link.key")).unwrap();
    assert_eq!(run(&["corp.example", "--selector", "link"]).0, 73);
    assert_eq!(fs::read(&file).unwrap(), before);
    let long = format!("{}.example", ["a"; 120].join("."));
    for arguments in [
        &["corp.example\r\nX: y", "--selector", "a"][..],
        &["corp.example", "--selector", "a\r\nb"],
        &["corp.example", "--selector", "a;b"],
        &["corp.example", "--selector", "../a"],
        &["corp.example", "--selector", ""],
        &["[192.0.2.1]", "--selector", "a"],
        &["a@corp.example", "--selector", "a"],
        &["corp.example"],
        &[&long, "--selector", "a234567890"],
    ] {
        let (code, said) = run(arguments);
        assert_eq!(code, 64, "{arguments:?} {said}");
        assert!(!said.contains('\r'), "{said:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
