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
    "=?utf-8?q?x?=",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "PROXY UNKNOWN\r\n",
    "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}",
];

fn run(seed: u64, property: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        property(&mutated(&mut random));
    }
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
    run(1, properties::address);
}

#[test]
fn command() {
    run(2, properties::command);
}

#[test]
fn data() {
    run(3, properties::data);
}

#[test]
fn headers() {
    run(4, properties::headers);
}

#[test]
fn proxy() {
    run(5, properties::proxy);
}

#[test]
fn session() {
    run(6, properties::session);
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
