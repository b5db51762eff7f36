//! What dialogues cannot show: steps that are not replies, spool pieces, settings that change under a session.

use std::time::Duration;

use super::*;
use crate::{fixture, policy::client::ToleranceLevel};

fn conditions() -> Conditions {
    Conditions {
        quotas: None,
        learned: None,
        rules: Arc::new(Rules {
            recipients: 10,
            ..fixture::rules("gw", fixture::policy("*", "*"))
        }),
        store: Health::Fine,
        throttled: false,
    }
}

fn session() -> Session {
    Session::new(
        Arc::new(fixture::listener()),
        "127.0.0.1:9".parse().unwrap(),
        false,
        conditions(),
    )
}

/// Feeds and names the steps, making an id where one is asked for.
fn feed(session: &mut Session, octets: &[u8]) -> Vec<String> {
    feed_more(session, &mut BytesMut::new(), octets)
}

/// The same, with what was left over.
fn feed_more(session: &mut Session, input: &mut BytesMut, octets: &[u8]) -> Vec<String> {
    input.extend_from_slice(octets);
    let mut steps = Vec::new();
    while let Some(step) = session.feed(input) {
        let step = match step {
            Step::Data => {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
                match session.data(MessageId::from_bytes([1; 16]), now) {
                    Some(step) => step,
                    None => continue,
                }
            }
            other => other,
        };
        steps.push(name(&step));
    }
    steps
}

fn name(step: &Step) -> String {
    match step {
        Step::Reply(reply) => reply.code.to_string(),
        Step::Pause(_) => "pause".into(),
        Step::StartTls(_) | Step::ImplicitTls => "tls".into(),
        Step::Verify(_) => "verify".into(),
        Step::Data => "data".into(),
        Step::Chunk => "chunk".into(),
        Step::Spool(_) => "spool".into(),
        Step::Unspool => "unspool".into(),
        Step::Enqueue(_) => "enqueue".into(),
        Step::Rejected(refusal) => format!("rejected {}", refusal.stage),
        Step::Close(reply) => format!("close {}", reply.as_ref().map_or(0, |r| r.code)),
    }
}

const OPEN: &[u8] = b"HELO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n";

fn opened() -> Session {
    let mut session = session();
    let _ = session.greet();
    assert_eq!(feed(&mut session, OPEN), ["250", "250", "250", "354"]);
    assert_eq!(session.stage(), InputStage::Data);
    session
}

#[test]
fn nothing_is_said_before_it_is_on_disk() {
    let mut session = opened();
    let steps = feed(&mut session, b"Subject: s\r\n\r\nx\r\n.\r\nNOOP\r\n");
    assert_eq!(steps, ["enqueue"], "the NOOP waits too");
    assert!(!session.is_idle());
    assert_eq!(name(&session.enqueued(Ok(()))), "250");
    assert!(session.is_idle());

    let mut session = opened();
    feed(&mut session, b"Subject: s\r\n\r\nx\r\n.\r\n");
    let step = session.enqueued(Err(Reply::storage_full()));
    assert_eq!(name(&step), "rejected data");
    assert_eq!(feed(&mut session, b"NOOP\r\n"), ["452", "250"]);
}

#[test]
fn large_bodies_go_out_in_pieces() {
    let mut session = opened();
    let line = [&[b'a'; 998][..], b"\r\n"].concat();
    let body = line.repeat(200);
    let steps = feed(&mut session, &[b"Subject: s\r\n\r\n", &body[..]].concat());
    assert!(
        steps.len() >= 2 && steps.iter().all(|s| s == "spool"),
        "{steps:?}"
    );
    let end = feed(&mut session, b".\r\n");
    assert_eq!(end.last().map(String::as_str), Some("enqueue"), "{end:?}");
}

#[test]
fn a_refused_large_message_leaves_no_file() {
    let mut session = opened();
    let line = [&[b'a'; 998][..], b"\r\n"].concat();
    let body = line.repeat(200);
    feed(&mut session, &[b"Subject: s\r\n\r\n", &body[..]].concat());
    assert_eq!(feed(&mut session, b"a\rb\r\n"), ["unspool"]);
    assert_eq!(feed(&mut session, &body), Vec::<String>::new());
    assert_eq!(feed(&mut session, b".\r\n"), ["rejected data", "close 550"]);
}

#[test]
fn a_full_disk_in_the_middle_and_at_the_end() {
    let line = [&[b'a'; 998][..], b"\r\n"].concat();
    let message = [b"Subject: s\r\n\r\n", &line.repeat(100)[..]].concat();
    let mut session = opened();
    assert_eq!(feed(&mut session, &message), ["spool"]);
    session.spool_failed(Health::Full);
    assert_eq!(
        feed(&mut session, b"x\r\n.\r\n"),
        ["unspool", "rejected data", "452"]
    );

    let mut session = opened();
    feed(&mut session, &message);
    let mut input = BytesMut::from(&b"x\r\n.\r\n"[..]);
    let step = session.feed(&mut input).unwrap();
    assert_eq!(name(&step), "spool");
    session.spool_failed(Health::Failing);
    assert_eq!(feed(&mut session, b""), ["unspool", "rejected data", "451"]);
    assert!(session.is_idle());
}

#[test]
fn errors_slow_down_and_then_end_the_session() {
    let mut session = session();
    let _ = session.greet();
    let steps = feed(&mut session, &b"FOO\r\n".repeat(30));
    assert_eq!(steps.iter().filter(|s| *s == "500").count(), 19);
    assert_eq!(steps.iter().position(|s| s == "pause"), Some(9));
    assert_eq!(steps.last().map(String::as_str), Some("close 421"));
}

#[test]
fn who_is_looked_at_before_the_greeting() {
    assert!(
        !session().looks_before_greeting(),
        "a listed client need not wait"
    );
    let mut device = session();
    device.tolerance = Tolerance::of(ToleranceLevel::Device);
    assert!(!device.looks_before_greeting());
    device.listener = Arc::new(ListenerRules {
        certificate: true,
        ..(*device.listener).clone()
    });
    assert!(device.looks_before_greeting(), "it may speak TLS at once");
}

/// Cut in two at any octet, the steps are the same.
#[test]
fn cut_anywhere_it_is_the_same_session() {
    let wire = [OPEN, b"Subject: s\r\n\r\n..x\r\n.\r\n"].concat();
    let whole = {
        let mut session = session();
        let _ = session.greet();
        feed(&mut session, &wire)
    };
    for cut in 0..wire.len() {
        let mut session = session();
        let _ = session.greet();
        let mut input = BytesMut::new();
        let mut steps = feed_more(&mut session, &mut input, &wire[..cut]);
        steps.extend(feed_more(&mut session, &mut input, &wire[cut..]));
        assert_eq!(steps, whole, "cut at {cut}");
    }
}

/// What an administrator must find in the log: why a device was turned away before it could name a sender.
#[test]
fn refusals_without_a_transaction_are_told() {
    let told = |lines: &str| {
        let mut session = session();
        session.greet();
        let steps = feed(&mut session, lines.as_bytes());
        steps
            .into_iter()
            .filter(|step| step.starts_with("rejected") || step.starts_with("close"))
            .collect::<Vec<_>>()
    };
    for (lines, expected) in [
        ("AUTH LOGIN\r\n".to_owned(), &["rejected auth"][..]),
        ("X\r\n".repeat(20), &["rejected connect", "close 421"]),
        ("NOOP\r\n".repeat(101), &["rejected connect", "close 421"]),
        ("QUIT\r\n".to_owned(), &["close 221"]),
    ] {
        assert_eq!(told(&lines), expected, "{lines}");
    }
    let mut early = session();
    assert_eq!(
        feed(&mut early, b"GET / HTTP/1.1\r\n"),
        ["rejected connect", "close 421"]
    );
}

/// A disk that is full between two chunks: the message is refused, whenever that is found out, and the session goes on.
#[test]
fn a_spool_file_that_fails_between_chunks_refuses_the_message() {
    for left in [0, 10] {
        let mut session = chunked();
        let first = format!(
            "BDAT {}\r\nA: b\r\n\r\n{}",
            90_008 + left,
            "x".repeat(90_000)
        );
        let steps = feed(&mut session, first.as_bytes());
        assert_eq!(
            steps.first().map(String::as_str),
            Some("spool"),
            "{steps:?}"
        );
        assert_eq!(steps.last().map(String::as_str) == Some("250"), left == 0);
        session.spool_failed(Health::Full);
        let rest = format!("{}BDAT 0 LAST\r\n", "y".repeat(left));
        let steps = feed(&mut session, rest.as_bytes()).join(" ");
        assert!(
            steps.starts_with("unspool") && steps.contains("rejected data 452"),
            "{steps}"
        );
        assert!(
            !steps.contains("enqueue") && !steps.contains("close"),
            "{steps}"
        );
        let again = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT 8 LAST\r\nA: b\r\n\r\n";
        assert_eq!(feed(&mut session, again), ["250", "250", "enqueue"]);
    }
}

/// What went out of a message that is given up is taken back.
#[test]
fn a_message_in_chunks_that_is_given_up_leaves_no_file() {
    for last in ["RSET\r\n", "EHLO a\r\n", "BDAT 2000000\r\n"] {
        let mut session = chunked();
        let first = format!("BDAT 90008\r\nA: b\r\n\r\n{}", "x".repeat(90_000));
        let steps = feed(&mut session, first.as_bytes());
        assert_eq!(steps.last().map(String::as_str), Some("250"), "{steps:?}");
        let steps = feed(&mut session, last.as_bytes());
        let is_taken_back = steps.iter().any(|step| step == "unspool");
        let is_over = steps.iter().any(|step| step == "close 552");
        assert!(is_taken_back || is_over, "{last} {steps:?}");
    }
}

fn chunked() -> Session {
    let listener = ListenerRules {
        chunking: true,
        ..fixture::listener()
    };
    let peer = "127.0.0.1:9".parse().unwrap();
    let mut session = Session::new(Arc::new(listener), peer, false, conditions());
    let _ = session.greet();
    let open = b"EHLO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n";
    assert_eq!(feed(&mut session, open), ["250", "250", "250"]);
    session
}
