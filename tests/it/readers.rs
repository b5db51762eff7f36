//! Readers of other worlds against the judge of the header: whoever any of them sees as sender or recipient in what leaves was
//! admitted. They are lax in different ways, and what they repair is not what we would.
//!
//! Many headers are made (by a grammar, and from what has fooled somebody, with octets changed), the policy judges them, and what
//! leaves is given to each reader, a process for all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fastrand::Rng;
use postern::{
    mail::{
        address::{Address, Domain},
        headers,
        pattern::admitting,
        reply::Reply,
    },
    policy::{
        About, Policy, Who,
        redirect::Redirected,
        rewrite::{ReplyTo, Rewrite},
    },
};

use super::fixture;
use super::{
    fuzz::properties::{id, origin},
    harness::peers::{command, need, peers},
};

const HEADERS: usize = 120_000;

/// What has fooled a reader once, ours or another's, and what is good beside it.
const NASTY: &[&str] = &[
    "a@corp.test .evil.tld <a@corp.test>",
    "a@corp.test evil.tld <a@corp.test>",
    "a@corp.test (x) .evil.tld <a@corp.test>",
    "'a@corp.test' .evil.tld <a@corp.test>",
    "a@corp.test <a@corp.test>",
    "'a@corp.test' <a@corp.test>",
    "\"a@corp.test\" <a@corp.test>",
    "\"ceo@evil.tld\" <a@corp.test>",
    "\"<ceo@evil.tld>\" <a@corp.test>",
    "\"x\\\"\" \"<ceo@evil.tld>\" <a@corp.test>",
    "(x\\) \" ) \"<ceo@evil.tld>\" <a@corp.test>",
    "\"Jane\" \"Doe\" <a@corp.test>",
    "\"Doe, Jane\" <a@corp.test>",
    "Doe, Jane <a@corp.test>",
    "=?utf-8?q?Doe?=, Jane <a@corp.test>",
    "staff: a@corp.test;",
    "undisclosed-recipients:;",
    "a@corp.test, b@corp.test",
    "<@evil.tld:a@corp.test>",
    "X <@evil.tld,@x:a@corp.test>",
    "mdadm <root>",
    "root, a@corp.test",
    "root",
    "a@corp.test (Cron (nested) Daemon)",
    "(x) a@corp.test",
    "a (x) @ (y) corp.test",
    "\"a\"@corp.test",
    "\"x@evil.tld\"@corp.test",
    "x <ceo@evil.tld> <a@corp.test>",
    "a@corp.test (<ceo@evil.tld>)",
    "[Alert 1.2] disk <a@corp.test>",
    "CORP\\user <a@corp.test>",
    "=?utf-8?q?ceo=40evil.tld?= <a@corp.test>",
    "\"=?utf-8?q?=22?=\" <a@corp.test>",
    "ilo.@corp.test",
    "a@corp.test.",
    "A. B. C <a@corp.test>",
    "A; B <a@corp.test>",
    "x\r\n <a@corp.test>,\r\n\tb@corp.test",
    "O'Neil 'x <a@corp.test>",
    "root@h <root@h>",
];

const PIECES: &[&str] = &[
    "a@corp.test",
    "b@corp.test",
    "ceo@evil.tld",
    "root@h",
    "<a@corp.test>",
    "<ceo@evil.tld>",
    "<root>",
    "root",
    "corp.test",
    "evil.tld",
    ".evil.tld",
    "@evil.tld",
    "@",
    "<",
    ">",
    "\"",
    "\\",
    "\\\"",
    "(",
    ")",
    "(x)",
    "(\\))",
    "(\")",
    ",",
    ";",
    ":",
    ".",
    " ",
    "  ",
    "\t",
    "\r\n ",
    "'",
    "[",
    "]",
    "=?utf-8?q?x?=",
    "=?utf-8?q?=22?=",
    "\u{fc}",
    "\u{ff20}",
    "x",
    "X Y",
    "-",
    "=",
    "\"x\"",
    "\"<x@y>\"",
    "\"\"",
    "<>",
    "%",
    "!",
    "/",
    "*",
    "#",
    "`",
    "~",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
];

fn one<'a>(random: &mut Rng, list: &[&'a str]) -> &'a str {
    list[random.usize(..list.len())]
}

/// A mailbox as people and programs write it, good for the most part.
fn mailbox(random: &mut Rng) -> String {
    let address = [
        "a@corp.test",
        "b.c@corp.test",
        "A@Corp.Test",
        "root@h",
        "a+x@corp.test.",
        "\"q r\"@corp.test",
        "ceo@evil.tld",
    ][if random.u8(..16) == 0 {
        6
    } else {
        random.usize(..6)
    }];
    let name = match random.u8(..20) {
        0 => return address.to_owned(),
        1 => return format!("{address} ({})", word(random)),
        2 => return format!("<{address}>"),
        3 => return format!("{} <root>", word(random)),
        4 => address.to_owned(),
        5 => format!("'{address}'"),
        6 => format!("\"{address}\""),
        7 => format!(
            "\"{}\"",
            one(
                random,
                &["ceo@evil.tld", "<ceo@evil.tld>", "x@y, <z@w>", "@", "a>b"]
            )
        ),
        8 => format!("\"{} \\\"{}\\\"\"", word(random), word(random)),
        9 => format!("\"{}\\\\\" {}", word(random), word(random)),
        10 => format!(
            "\"{}\" \"{}, {}\"",
            word(random),
            word(random),
            word(random)
        ),
        11 => format!(
            "=?utf-8?q?{}?= {}",
            one(random, &["x", "=22", "a=40b", "=3Cx=40y=3E", "=2C"]),
            word(random)
        ),
        12 => format!("{}, {}", word(random), word(random)),
        13 => format!(
            "({}) {}",
            one(random, &["x", "x (y)", "\\)", "it's", "a;b", "="]),
            word(random)
        ),
        14 => format!("{}\r\n {}", word(random), word(random)),
        15 => format!("[{} 1.2] {}", word(random), word(random)),
        16 => format!("CORP\\{}", word(random)),
        17 => format!("@x,@evil.tld:{address}"),
        _ => format!("{} {}", word(random), word(random)),
    };
    match name.strip_prefix('@') {
        Some(route) => format!("{} <@{route}>", word(random)),
        None => format!(
            "{name}{}<{address}>",
            one(random, &[" ", "", "\r\n\t", " (c) "])
        ),
    }
}

fn word<'a>(random: &mut Rng) -> &'a str {
    one(
        random,
        &[
            "Jane",
            "Doe",
            "x",
            "O'Neil",
            "J.",
            "M\u{fc}ller",
            "2nd",
            "-",
            "=?utf-8?b?eA==?=",
            "it",
            "root",
        ],
    )
}

fn value(random: &mut Rng) -> String {
    let text: String = match random.u8(..8) {
        0 => one(random, NASTY).to_owned(),
        1 => format!("{}, {}", one(random, NASTY), one(random, NASTY)),
        2 => (0..random.usize(1..7))
            .map(|_| one(random, PIECES))
            .collect(),
        3 => format!(
            "{}: {}, {};",
            word(random),
            mailbox(random),
            mailbox(random)
        ),
        4 | 5 => (0..random.usize(1..4))
            .map(|_| mailbox(random))
            .collect::<Vec<_>>()
            .join(one(random, &[",", ", ", ",\r\n "])),
        _ => mailbox(random),
    };
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..[0, 0, 0, 1, 1, 2][random.usize(..6)] {
        let at = random.usize(..=text.len());
        match random.u8(..4) {
            0 => drop(text.drain(at..text.len().min(at + 1))),
            1 => {
                let again: Vec<char> = text[at..].iter().copied().take(random.usize(..9)).collect();
                text.splice(at..at, again);
            }
            _ => drop(text.splice(at..at, one(random, PIECES).chars())),
        }
    }
    text.into_iter().collect()
}

fn header(random: &mut Rng) -> String {
    let mut out = format!("From: {}\r\n", value(random));
    for name in [
        "Sender",
        "Resent-From",
        "Resent-Sender",
        "To",
        "Cc",
        "Resent-To",
        "Apparently-To",
    ] {
        if random.u8(..8) == 0 {
            let space = one(random, &[" ", "", "\r\n "]);
            out += &[name, ":", space, &value(random), "\r\n"].concat();
        }
    }
    out
}

fn policy() -> Policy {
    let mut policy = fixture::policy("corp.test", "corp.test");
    policy.allowlist.header_recipients = true;
    policy.default_domain = Some(Domain::parse("corp.test").unwrap());
    policy.rewrites = vec![Rewrite {
        senders: fixture::patterns("root@*"),
        to: fixture::address("noreply@corp.test"),
        reply_to: ReplyTo::Keep,
    }];
    policy
}

fn judged(policy: &Policy, raw: &[u8], unquoted_names: bool) -> Result<Vec<u8>, Reply> {
    let origin = origin();
    let sender = fixture::address("me@corp.test");
    policy.header(
        raw,
        &About {
            who: Who::default(),
            id: id(),
            origin: &origin,
            sender_given: Some(&sender),
            sender: Some(&sender),
            rewrite: None,
            recipients: &[sender.clone().into()],
            redirected: &Redirected::default(),
            hostname: "gw.test",
            bounce_from: &sender,
            unquoted_names,
        },
    )
}

/// What of the nasty got through, where it may.
fn features(given: &str, leaves: &[u8]) -> Vec<&'static str> {
    let leaves = String::from_utf8_lossy(leaves);
    let from = headers::value_of(leaves.as_bytes(), "From").unwrap_or_default();
    let from = String::from_utf8_lossy(from).into_owned();
    let has = |what: &'static str, held: bool| held.then_some(what);
    let names = from.split('<').next().unwrap_or_default();
    [
        has("accepted", true),
        has(
            "address as name",
            from.contains("@corp.test <a@corp.test>") && !from.contains('"'),
        ),
        has(
            "address in a quoted name",
            names.contains('"') && names.contains('@'),
        ),
        has("backslash", from.contains("\\\"")),
        has("comment", from.contains('(')),
        has("encoded word", from.contains("=?")),
        has("folded", from.contains("\r\n")),
        has("list", from.matches("@corp.test").count() > 1),
        has(
            "route dropped",
            given.contains("<@") && !leaves.contains("<@"),
        ),
        has(
            "completed",
            given.contains("<root>") && from.contains("noreply@corp.test"),
        ),
        has(
            "rewritten",
            given.contains("root@h") && from.contains("noreply@corp.test"),
        ),
        has(
            "name quoted",
            given.contains("From: Doe, J") && from.contains("\"Doe, J"),
        ),
        has(
            "group in To",
            leaves.contains("To:") && leaves.contains(";\r\n"),
        ),
        has("8-bit", !from.is_ascii()),
        has("bracket", from.contains('[')),
        has("apostrophe", from.contains('\'')),
        has("several strings", from.matches('"').count() > 2),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Reader {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Reader {
    fn start(dir: &Path, name: &'static str, program: &str, script: &str) -> Self {
        let output = dir.join(name);
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/readers")
            .join(script);
        let child = command("timeout")
            .args(["300", program])
            .arg(script)
            .env("NODE_PATH", peers().join("node_modules"))
            .stdin(Stdio::from(File::open(dir.join("headers")).unwrap()))
            .stdout(Stdio::from(File::create(&output).unwrap()))
            // Perl's complains of what it repairs.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            name,
            child,
            output,
        }
    }

    /// For each header whom it sees: `s` for senders, `r` for recipients.
    fn seen(mut self) -> Vec<Vec<(char, Vec<u8>)>> {
        assert!(self.child.wait().unwrap().success(), "{} failed", self.name);
        let text = fs::read_to_string(&self.output).unwrap();
        text.lines()
            .map(|line| {
                line.split(' ')
                    .filter_map(|word| word.split_once(':'))
                    .map(|(kind, address)| {
                        (
                            kind.chars().next().unwrap(),
                            BASE64.decode(address).unwrap(),
                        )
                    })
                    .collect()
            })
            .collect()
    }
}

/// Whether what a reader took for an address may be seen there. What has no `@` is no address; some give a quoted local part
/// without its quotes.
fn may(policy: &Policy, kind: char, seen: &[u8]) -> bool {
    if !seen.contains(&b'@') {
        return true;
    }
    let list = match kind {
        's' => &policy.allowlist.senders,
        _ => &policy.allowlist.recipients,
    };
    let read = |text: &str| {
        let (local, domain) = text.rsplit_once('@')?;
        let bare = || Address::from_parts(local, Domain::parse(domain).ok()?).ok();
        Address::parse(text).ok().or_else(bare)
    };
    str::from_utf8(seen.trim_ascii())
        .ok()
        .and_then(read)
        .is_some_and(|address| admitting(list, Some(&address)).is_some())
}

/// Whether Perl has its two readers.
fn modules() -> bool {
    command("perl")
        .args(["-MMail::Address", "-MEmail::Address::XS", "-e", "1"])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
#[ignore = "needs Python, Perl and nodemailer, which tests/run installs"]
fn whoever_a_reader_of_another_world_sees_was_admitted() {
    for program in ["python3", "perl", "node"] {
        need(program);
    }
    assert!(modules(), "tests/run installs them");
    let policy = policy();
    let dir = tempfile::TempDir::new().unwrap();
    let mut random = Rng::with_seed(2026);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut given = Vec::new();
    let mut known = BTreeSet::new();
    let mut lines = String::new();
    for turn in 0..HEADERS {
        let raw = header(&mut random);
        let Ok(leaves) = judged(&policy, raw.as_bytes(), turn % 2 == 0) else {
            continue;
        };
        let leaves = headers::remove(&leaves, &["Received", "Date", "Message-ID"]);
        for feature in features(&raw, &leaves) {
            *counts.entry(feature).or_default() += 1;
        }
        if known.insert(leaves.clone()) {
            lines += &BASE64.encode(&leaves);
            lines.push('\n');
            given.push((raw, leaves));
        }
    }
    fs::write(dir.path().join("headers"), lines).unwrap();
    let readers = [
        Reader::start(dir.path(), "python", "python3", "python.py"),
        Reader::start(dir.path(), "javascript", "node", "javascript.js"),
        Reader::start(dir.path(), "perl", "perl", "perl.pl"),
    ];
    eprintln!(
        "{} of {HEADERS} different and accepted: {counts:?}",
        given.len()
    );
    let mut strangers = BTreeMap::new();
    for reader in readers {
        let name = reader.name;
        let seen = reader.seen();
        assert_eq!(seen.len(), given.len(), "{name} answers each");
        let mut found = 0;
        for (whom, (raw, leaves)) in seen.iter().zip(&given) {
            found += usize::from(
                whom.iter()
                    .any(|(kind, a)| *kind == 's' && a.contains(&b'@')),
            );
            for (kind, address) in whom {
                if !may(&policy, *kind, address) {
                    strangers
                        .entry((leaves.len(), leaves.clone()))
                        .or_insert_with(|| {
                            format!(
                                "{name} sees {kind} {:?} in {:?}, given {raw:?}",
                                String::from_utf8_lossy(address),
                                String::from_utf8_lossy(leaves)
                            )
                        });
                }
            }
        }
        assert!(
            found > given.len() / 2,
            "{name} reads {found} of {}",
            given.len()
        );
    }
    let shortest: Vec<_> = strangers.values().take(30).cloned().collect();
    assert!(
        strangers.is_empty(),
        "{} strangers:\n{}",
        strangers.len(),
        shortest.join("\n")
    );
    for (feature, least) in [
        ("accepted", 20_000),
        ("address as name", 200),
        ("address in a quoted name", 200),
        ("backslash", 200),
        ("comment", 200),
        ("encoded word", 200),
        ("folded", 200),
        ("list", 200),
        ("route dropped", 200),
        ("completed", 200),
        ("rewritten", 200),
        ("name quoted", 50),
        ("group in To", 50),
        ("8-bit", 200),
        ("bracket", 200),
        ("apostrophe", 200),
        ("several strings", 200),
    ] {
        let count = counts.get(feature).copied().unwrap_or_default();
        assert!(count >= least, "{feature}: {count} accepted");
    }
}
