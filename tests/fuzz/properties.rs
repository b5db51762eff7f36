//! What must hold for any octets; each is a fuzz target (`cargo fuzz run NAME --fuzz-dir tests/fuzz`), and a seeded run of all
//! of them is part of `cargo test`. Each assertion that needs a certain input notes that it was reached: the seeded run holds that
//! all of them are.

#[path = "../fixture/mod.rs"]
pub mod fixture;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use postern::{
    mail::{
        address::Address,
        health::Health,
        mailboxes,
        message::{MessageId, Origin},
        pattern::admitting,
        repair,
        reply::Reply,
        text, utf8_header, xtext,
    },
    policy::{
        About, AuthMode, Policy, Who,
        client::{Client, ToleranceLevel},
        redirect::Redirected,
    },
    smtp::{
        data::{Decoder, DotStuffer, End, Leniency},
        server::{
            command::{self, Extensions},
            proxy,
            session::{Authentication, Conditions, ListenerRules, Rules, Session, Step},
            tolerance::Tolerance,
        },
    },
};

const ALL: Extensions = Extensions {
    esmtp: true,
    utf8: true,
};

const LEVELS: [ToleranceLevel; 3] = [
    ToleranceLevel::Strict,
    ToleranceLevel::Standard,
    ToleranceLevel::Device,
];

thread_local! {
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

fn reached(what: &'static str) {
    REACHED.with_borrow_mut(|all| *all.entry(what).or_default() += 1);
}

/// How often each place was reached by this thread since it was asked last.
pub fn all_reached() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}

/// What parses prints back to what parses the same.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(address) = Address::parse(text) {
        let printed = address.to_string();
        reached("an address");
        if printed.starts_with('"') {
            reached("a quoted address");
        }
        if address.needs_utf8() {
            reached("an address that is not ASCII");
            assert!(printed.len() <= 400, "{printed:?}");
        }
        assert!(address.domain().as_str().is_ascii());
        assert!(printed.chars().all(text::is_printable), "{printed:?}");
        assert_eq!(Address::parse(&printed).as_ref(), Ok(&address));
    }
}

/// A recipient that is taken is one address, and the wire form of it is one word of a RCPT command.
pub fn command(data: &[u8]) {
    for level in LEVELS {
        let tolerance = Tolerance::of(level);
        let _ = command::parse(data, &tolerance);
        let _ = command::mail(data, &tolerance, None, ALL);
        if let Ok(recipient) = command::rcpt(data, &tolerance, None, ALL) {
            let ascii = Extensions { utf8: false, ..ALL };
            let without = command::rcpt(data, &tolerance, None, ascii);
            assert_eq!(without.is_ok(), data.is_ascii(), "{}", data.escape_ascii());
            reached(match level {
                ToleranceLevel::Strict => "a recipient, strict",
                ToleranceLevel::Standard => "a recipient, standard",
                ToleranceLevel::Device => "a recipient, device",
            });
            let mut again = format!("TO:<{recipient}>");
            if let Some(original) = recipient.dsn.as_ref().and_then(|dsn| dsn.original.as_ref()) {
                reached("an original recipient");
                again = format!("{again} ORCPT={original}");
                let shown = xtext::shown_original(original, true).unwrap();
                assert!(
                    shown.bytes().all(|b| (b' '..=b'~').contains(&b)),
                    "{shown:?}"
                );
                if let Some(sent) = xtext::sent_original(original, false) {
                    assert!(
                        sent.is_ascii() && xtext::is_original(&sent, true),
                        "{sent:?}"
                    );
                }
            }
            if let Some(notify) = recipient.notify() {
                again = format!("{again} NOTIFY={notify}");
            }
            let read = command::rcpt(again.as_bytes(), &tolerance, None, ALL);
            assert_eq!(read.as_ref(), Ok(&recipient), "{again}");
        }
    }
}

/// Any two pieces are the whole; what is decoded, stuffed and decoded again is the same.
pub fn data(data: &[u8]) {
    let Some((&cut, content)) = data.split_first() else {
        return;
    };
    let leniency = Leniency {
        lf_only: cut & 1 == 1,
        bare_cr: cut & 2 == 2,
    };
    let (whole, end, fault) = decoded(leniency, &[content]);
    let at = usize::from(cut) * content.len() / 256;
    let (first, second) = content.split_at(at);
    let parted = decoded(leniency, &[first, second]);
    assert_eq!((&whole, &end, &fault), (&parted.0, &parted.1, &parted.2));
    let octets: Vec<&[u8]> = content.chunks(1).collect();
    let single = decoded(leniency, &octets);
    assert_eq!((&whole, &end, &fault), (&single.0, &single.1, &single.2));

    let strict = Leniency {
        lf_only: false,
        bare_cr: false,
    };
    if fault.is_some() {
        reached("a fault, however it is cut");
    }
    if end.is_some() && fault.is_none() {
        reached("a message, stuffed and read again");
        if whole.starts_with(b".")
            || whole.windows(3).any(|three| three == b"\r\n.")
            || whole.windows(2).any(|two| two == b"\n.")
        {
            reached("a line that begins with a dot");
        }
        let mut stuffer = DotStuffer::new();
        let mut wire = Vec::new();
        stuffer.encode(&whole, &mut wire);
        stuffer.finish(&mut wire);
        let (again, end, fault) = decoded(strict, &[&wire]);
        assert_eq!((again, fault), (whole, None));
        assert!(end.is_some_and(|(taken, _)| taken == wire.len()));
    }
}

type Decoded = (Vec<u8>, Option<(usize, String)>, Option<String>);

fn decoded(leniency: Leniency, pieces: &[&[u8]]) -> Decoded {
    let mut decoder = Decoder::new(leniency);
    let mut out = Vec::new();
    let mut taken_before = 0;
    let mut end = None;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && end.is_none() {
            let (taken, found): (usize, Option<End>) = decoder.decode(rest, &mut out);
            assert!(taken <= rest.len() && (taken > 0 || found.is_some()));
            taken_before += taken;
            end = found.map(|found| (taken_before, format!("{found:?}")));
            rest = &rest[taken..];
        }
    }
    let fault = decoder.fault().map(|fault| format!("{fault:?}"));
    (out, end, fault)
}

/// A PROXY header never reaches beyond the input.
pub fn proxy(data: &[u8]) {
    if let Ok(Some(header)) = proxy::parse(data) {
        reached(if data.first() == Some(&b'\r') {
            "a PROXY header of version 2"
        } else {
            "a PROXY header of version 1"
        });
        assert!(header.len > 0 && header.len <= data.len());
    }
}

/// A header that is accepted has one From, and every address in From and Sender is on the list.
pub fn headers(data: &[u8]) {
    let mut raw = Vec::new();
    for line in data.split(|b| *b == b'\n') {
        raw.extend(line.iter().filter(|b| **b != b'\r'));
        raw.extend_from_slice(b"\r\n");
    }
    let Some(end) = repair::header_end(&raw, &mut 0, true) else {
        panic!("no more is to come, and no end was found");
    };
    assert!(end.start <= end.end && end.end <= end.body && end.body <= raw.len());
    for utf8 in [false, true] {
        judged(&raw[end.start..end.end], utf8);
    }
}

fn judged(raw: &[u8], utf8: bool) {
    let policy = policy(ToleranceLevel::Standard);
    let origin = Origin { utf8, ..origin() };
    let sender = listed();
    let about = About {
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
        unquoted_names: true,
    };
    let Ok(header) = policy.header(raw, &about) else {
        return;
    };
    assert!(header.ends_with(b"\r\n"));
    let mut senders = 0;
    for field in postern::mail::headers::fields(&header) {
        if field.is("From") || field.is("Sender") {
            senders += usize::from(field.is("From"));
            reached(if field.is("From") {
                "a From that was accepted"
            } else {
                "a Sender that was accepted"
            });
            let found = mailboxes::parse(field.value)
                .unwrap_or_else(|e| panic!("accepted, and not understood: {e:?}"));
            if found.len() > 1 {
                reached("several addresses in one field");
            }
            for mailbox in found {
                let address = Some(&mailbox.address);
                if mailbox.address.needs_utf8() {
                    reached("a sender that is not ASCII");
                    assert!(utf8 && utf8_header::needs_utf8(&header, utf8));
                }
                assert!(
                    admitting(&policy.allowlist.senders, address).is_some(),
                    "{}",
                    mailbox.address
                );
            }
        }
        assert!(!field.is("Bcc") && !field.is("Return-Path"));
    }
    assert_eq!(senders, 1);
}

/// Whatever a client says: what is accepted is on the lists, and every reply is lines of printable ASCII.
pub fn session(data: &[u8]) {
    conversation(data);
}

/// As [`session`]; the number of messages that were accepted.
pub fn conversation(data: &[u8]) -> usize {
    let mut taken = 0;
    let Some((&first, input)) = data.split_first() else {
        return taken;
    };
    let level = LEVELS[usize::from(first) % 3];
    let policy = policy(level);
    let lists = policy.allowlist.clone();
    let mut rules = Rules {
        bounce_from: listed(),
        message_size: 10_000,
        recipients: 5,
        session_errors: 50,
        ..fixture::rules("gw.test", policy)
    };
    rules.router.routes[0].max_recipients = 3;
    let conditions = Conditions {
        quotas: None,
        learned: None,
        rules: Arc::new(rules),
        store: Health::Fine,
        throttled: false,
    };
    let listener = ListenerRules {
        starttls: first & 4 == 4,
        certificate: first & 4 == 4,
        auth: if first & 8 == 8 {
            AuthMode::Optional
        } else {
            AuthMode::Off
        },
        plaintext_auth: true,
        chunking: first & 1 == 1,
        smtputf8: first & 16 == 16,
        ..fixture::listener()
    };
    let mut session = Session::new(Arc::new(listener), origin().peer, false, conditions.clone());
    let mut step = Some(session.greet());
    let mut pieces = input.chunks(1 + usize::from(first) % 97);
    let mut buffer = BytesMut::new();
    loop {
        while let Some(now) = step.take() {
            step = match now {
                Step::Reply(reply) => {
                    reached("a reply");
                    printable(&reply);
                    None
                }
                Step::Close(reply) => {
                    reached("the end of a session");
                    if let Some(reply) = reply {
                        printable(&reply);
                    }
                    return taken;
                }
                Step::StartTls(_) | Step::ImplicitTls => {
                    reached("TLS");
                    buffer.clear();
                    session.tls_started()
                }
                Step::Data => session.data(id(), origin().at),
                Step::Verify(_) => {
                    reached("a login");
                    Some(session.verified(Authentication::Refused))
                }
                Step::Enqueue(accepted) => {
                    reached(match level {
                        ToleranceLevel::Strict => "a message, strict",
                        ToleranceLevel::Standard => "a message, standard",
                        ToleranceLevel::Device => "a message, device",
                    });
                    assert!(admitting(&lists.senders, accepted.envelope.sender.as_ref()).is_some());
                    assert!(!accepted.envelope.recipients.is_empty());
                    for recipient in &accepted.envelope.recipients {
                        assert!(
                            admitting(&lists.recipients, Some(&recipient.address)).is_some(),
                            "{recipient}"
                        );
                    }
                    let routed: usize = accepted.jobs.iter().map(|(_, to)| to.len()).sum();
                    assert_eq!(routed, accepted.envelope.recipients.len());
                    taken += 1;
                    Some(session.enqueued(Ok(())))
                }
                Step::Chunk => {
                    reached("a chunk");
                    None
                }
                Step::Pause(_) | Step::Spool(_) | Step::Unspool | Step::Rejected(_) => None,
            };
            if step.is_none() {
                session.refresh(conditions.clone());
                step = session.feed(&mut buffer);
            }
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None => return taken,
        }
        step = session.feed(&mut buffer);
    }
}

fn printable(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    for line in wire.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\r\n") else {
            panic!("a reply line without its end");
        };
        assert!(text.len() <= 510 && text.iter().all(|b| (b' '..=b'~').contains(b)));
    }
}

fn listed() -> Address {
    fixture::address("a@corp.test")
}

pub fn id() -> MessageId {
    MessageId::new(origin().at, 7)
}

pub fn origin() -> Origin {
    fixture::origin(SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
}

fn policy(tolerance: ToleranceLevel) -> Policy {
    Policy {
        clients: vec![Client {
            tolerance,
            ..fixture::client("local", "127.0.0.0/8")
        }],
        ..fixture::policy("corp.test", "corp.test")
    }
}
