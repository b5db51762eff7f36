//! The fuzz properties on seeded input: mutated samples of what each target reads. `cargo fuzz` goes further.

#[path = "../fuzz/properties.rs"]
pub mod properties;

/// Grains that make random input reach the interesting states.
const GRAINS: &[&str] = &[
    "EHLO x\r\n",
    "HELO\r\n",
    "MAIL FROM:<a@corp.test>\r\n",
    "MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
    "RCPT TO:<b@corp.test>\r\n",
    "RCPT TO:<v%w@corp.test>\r\n",
    "RCPT TO:<@x:\"a b\"@corp.test>\r\n",
    "DATA\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN AGEAYg==\r\n",
    "AUTH LOGIN\r\n",
    "YQ==\r\n",
    "From: a@corp.test\r\n",
    "From: \"x\" <a@corp.test>, b@corp.test\r\n",
    "Sender: evil@evil.test\r\n",
    "From : x\r\n",
    " folded\r\n",
    "Subject: s\r\n",
    "Bcc: q@corp.test\r\n",
    "\r\n",
    ".\r\n",
    "..\r\n",
    ".",
    "\r",
    "\n",
    "\r\n.\r\n",
    "\n.\n",
    "\r\n.\n",
    "\0",
    "<",
    ">",
    "@",
    "\"",
    "\\",
    "(",
    ")",
    ":",
    ";",
    ",",
    " ",
    "a",
    "corp.test",
    "[127.0.0.1]",
    "\u{e4}",
    "\u{308}",
    "\u{ff20}",
    "\u{202e}",
    "\u{fc}@corp.test",
    "RCPT TO:<\u{fc}@corp.test>\r\n",
    " SMTPUTF8\r\n",
    "MAIL FROM:<\u{fc}@corp.test> SMTPUTF8\r\n",
    "=?utf-8?q?x?=",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "PROXY UNKNOWN\r\n",
    "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}",
];

/// Inputs that reach what mutation seldom does, the property on all of them and on many mutated ones; every place of the property
/// that is named must have been reached, and there is no other.
fn run(seed: u64, property: fn(&[u8]), seeds: &[&[u8]], places: &[&str]) {
    properties::all_reached();
    for seed in seeds {
        property(seed);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        property(&mutated(&mut random));
    }
    all_were_reached(places);
}

fn all_were_reached(places: &[&str]) {
    let reached: Vec<&str> = properties::all_reached().into_keys().collect();
    let mut places = places.to_vec();
    places.sort_unstable();
    assert_eq!(reached, places);
}

fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..random.usize(0..24) {
        if random.u8(0..8) == 0 {
            input.push(random.u8(..));
        } else {
            input.extend_from_slice(GRAINS[random.usize(0..GRAINS.len())].as_bytes());
        }
    }
    if !input.is_empty() && random.u8(0..4) == 0 {
        let at = random.usize(0..input.len());
        input[at] = random.u8(..);
    }
    input
}

#[test]
fn address() {
    run(
        1,
        properties::address,
        &[
            b"a@corp.test",
            b"\"a b\"@corp.test",
            b"a@[127.0.0.1]",
            b"a.b+c@x",
            "\u{fc}@corp.test".as_bytes(),
            "\"\u{fc} x\"@b\u{fc}cher.test".as_bytes(),
            "bu\u{308}@corp.test".as_bytes(),
            "a\u{ff20}b@corp.test".as_bytes(),
            "\u{fc}@xn--bcher-kva.test".as_bytes(),
        ],
        &[
            "an address",
            "a quoted address",
            "an address that is not ASCII",
        ],
    );
}

#[test]
fn command() {
    run(
        2,
        properties::command,
        &[
            b"TO:<b@corp.test>",
            b" TO:<@x:\"a b\"@corp.test>",
            b"\nTo:\n\nvvvvvvvv@v",
            b"TO: b@corp.test",
            b"to:<b@[127.0.0.1]> ",
            "TO:<\u{fc}@b\u{fc}cher.test> ORCPT=utf-8;\u{fc}\\x{FC}@x".as_bytes(),
            "TO:<b\u{308}@corp.test>".as_bytes(),
        ],
        &[
            "an original recipient",
            "a recipient, strict",
            "a recipient, standard",
            "a recipient, device",
        ],
    );
}

#[test]
fn data() {
    run(
        3,
        properties::data,
        &[
            b"\x04a\r\n..b\r\n.\r\n",
            b"\x40..\r\n.\r\nQUIT\r\n",
            b"\x80a\n.\r\nb\r\n.\r\n",
        ],
        &[
            "a fault, however it is cut",
            "a message, stuffed and read again",
            "a line that begins with a dot",
        ],
    );
}

#[test]
fn headers() {
    run(
        4,
        properties::headers,
        &[
            b"From: a@corp.test\nSender: A <a@corp.test>\n\nbody",
            b"From: a@corp.test, \"B\" <b@corp.test>\nSender: a@corp.test\n",
            "From: \u{fc}@corp.test\nTo: \u{fc}@b\u{fc}cher.test\n".as_bytes(),
        ],
        &[
            "a sender that is not ASCII",
            "a From that was accepted",
            "a Sender that was accepted",
            "several addresses in one field",
        ],
    );
}

#[test]
fn proxy() {
    run(
        5,
        properties::proxy,
        &[
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nEHLO x\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02EHLO x\r\n",
        ],
        &["a PROXY header of version 1", "a PROXY header of version 2"],
    );
}

#[test]
fn session() {
    run(
        6,
        properties::session,
        &[
            b"\x03EHLO x\r\nMAIL FROM:<a@corp.test>\r\nRCPT TO:<b@corp.test>\r\nDATA\r\nSubject: s\r\n\r\nb\r\n.\r\nQUIT\r\n",
            b"\x04EHLO x\r\nMAIL FROM:<a@corp.test>\r\nRCPT TO:<b@corp.test>\r\nDATA\r\nSubject: s\r\n\r\nb\r\n.\r\nQUIT\r\n",
            b"\x05EHLO x\r\nMAIL FROM:<a@corp.test>\r\nRCPT TO:<b@corp.test>\r\nDATA\r\nSubject: s\r\n\r\nb\r\n.\r\nQUIT\r\n",
            b"\x03EHLO x\r\nMAIL FROM:<a@corp.test>\r\nRCPT TO:<b@corp.test>\r\nBDAT 14\r\nSubject: s\r\n\r\nBDAT 1 LAST\r\nbQUIT\r\n",
            b"\x64EHLO x\r\nSTARTTLS\r\n",
            b"\x08EHLO x\r\nAUTH PLAIN AGEAYg==\r\n",
        ],
        &[
            "a reply",
            "the end of a session",
            "TLS",
            "a login",
            "a chunk",
            "a message, strict",
            "a message, standard",
            "a message, device",
        ],
    );
    // And with whole transactions around the noise, so that messages are really accepted.
    let mut random = fastrand::Rng::with_seed(7);
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut input = vec![random.u8(..)];
        input.extend_from_slice(b"EHLO x\r\nMAIL FROM:<a@corp.test>\r\n");
        let noise = mutated(&mut random);
        let (first, second) = noise.split_at(noise.len() / 4);
        input.extend_from_slice(if random.bool() { first } else { b"" });
        input.extend_from_slice(b"RCPT TO:<b@corp.test>\r\nDATA\r\n");
        input.extend_from_slice(second);
        input.extend_from_slice(b"\r\n.\r\n");
        taken += properties::conversation(&input);
    }
    assert!(taken > 1000, "{taken} accepted");
}
