//! Early groups: MAIL, RCPT and DATA of a message behind the final dot of the one before. Whatever an upstream does at a dot or behind
//! it, no outcome is another message's, and at most one message is in doubt for a connection that is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use postern::{
    connector::{
        Connector, Services, SmtpSettings,
        smtp::{Smtp, Timeouts},
    },
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId},
        outcome::{ObstacleKind, Outcome, Report},
        recipient::Recipient,
    },
};
use tokio::task::JoinSet;

use super::{
    fixture,
    harness::{
        time::until,
        upstream::{Act, At, Form, Script, Seen, Spoils, Upstream},
    },
};

/// What the upstream does when it has read a certain dot, the message safe in its hands.
#[derive(Debug, Clone)]
enum AtDot {
    Does(Act),
    /// Refuses every recipient of the next message and says 354 all the same.
    Confused,
}

/// Of each message, by its number: how often it arrived.
type Arrived = BTreeMap<usize, usize>;

fn arrived(seen: &Seen) -> Arrived {
    let mut arrived = Arrived::new();
    for message in &seen.messages {
        *arrived
            .entry(message.subject().parse().unwrap())
            .or_default() += 1;
    }
    arrived
}

fn upstream() -> Script {
    Script::default().offers("PIPELINING")
}

fn at_dot(number: usize, trick: AtDot) -> Upstream {
    let is_there = move |at: &At| at.stage == "EOD" && at.dot == number;
    match trick {
        AtDot::Does(act) => upstream().when(move |at| is_there(at).then(|| act.clone())),
        AtDot::Confused => {
            let refuses = AtomicBool::new(false);
            upstream().when(move |at| {
                if is_there(at) {
                    refuses.store(true, Ordering::SeqCst);
                    return None;
                }
                if !refuses.load(Ordering::SeqCst) {
                    return None;
                }
                match (at.stage, at.line) {
                    ("RCPT1", _) => Some(Act::says("550 5.1.1 nobody")),
                    (_, "DATA") => Some(Act::says("354 go on")),
                    ("EOD", _) => {
                        refuses.store(false, Ordering::SeqCst);
                        Some(Act::says("554 5.5.1 nobody to send to"))
                    }
                    _ => None,
                }
            })
        }
    }
    .start_here()
}

fn connector(address: SocketAddr, connections: usize) -> Arc<Smtp> {
    patient(address, connections, Duration::from_millis(400))
}

fn patient(address: SocketAddr, connections: usize, short: Duration) -> Arc<Smtp> {
    let timeouts = Timeouts {
        connect: short,
        connect_each: short,
        tls: short,
        greeting: short,
        command: short,
        data: short,
        block: short,
        dot: short,
        quit: short,
    };
    let settings = SmtpSettings {
        max_connections: connections,
        ..fixture::smtp("127.0.0.1", address.port())
    };
    let services = Services::default();
    Arc::new(Smtp::new("up".into(), 100, &settings, timeouts, services).unwrap())
}

fn to() -> Vec<Recipient> {
    vec![Address::parse("a@x.example").unwrap().into()]
}

fn message(number: usize) -> Message {
    Message {
        id: MessageId::new(SystemTime::now(), number as u128),
        envelope: Envelope {
            sender: Some(Address::parse("s@corp.example").unwrap()),
            recipients: to(),
            eight_bit: false,
            dsn: None,
        },
        origin: fixture::origin(SystemTime::now()),
        header: format!("Subject: {number}\r\n").into(),
        body: Body::Memory(format!("text of {number}\r\n.\r\n").into()),
    }
}

/// What became of a message at last, and whether it ever was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    is_failed: bool,
    doubts: usize,
    /// Attempts that were reported as such.
    attempts: usize,
}

/// Delivers so many messages at once; what is not over after a report is delivered again, as delivery would.
async fn deliver(connector: &Arc<Smtp>, count: usize) -> BTreeMap<usize, Fate> {
    let mut tasks = JoinSet::new();
    for number in 1..=count {
        let connector = Arc::clone(connector);
        tasks.spawn(async move {
            let (message, to) = (message(number), to());
            let mut fate = Fate {
                is_failed: false,
                doubts: 0,
                attempts: 0,
            };
            for _ in 0..30 {
                let deadline = Instant::now() + Duration::from_secs(20);
                match connector.deliver(&message, &to, &deadline.into()).await {
                    Report::Tried { outcomes, .. } => {
                        fate.attempts += 1;
                        match &outcomes[0].1 {
                            Outcome::Delivered(_) => return (number, fate),
                            Outcome::Failed(_) => {
                                fate.is_failed = true;
                                return (number, fate);
                            }
                            Outcome::InDoubt(_) => fate.doubts += 1,
                            _ => {}
                        }
                    }
                    Report::NotTried(obstacle) => {
                        let passes = [ObstacleKind::Down, ObstacleKind::Throttled];
                        assert!(passes.contains(&obstacle.kind), "{number}: {obstacle:?}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{number} never ended: {fate:?}");
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// What must hold whatever the upstream did.
fn check(fates: &BTreeMap<usize, Fate>, arrived: &Arrived, what: &str) {
    for (number, fate) in fates {
        let times = arrived.get(number).copied().unwrap_or(0);
        if fate.is_failed {
            assert_eq!(times, fate.doubts, "{what}: {number} failed, {fate:?}");
        } else {
            assert!(times >= 1, "{what}: {number} never arrived, {fate:?}");
            assert!(
                times <= 1 + fate.doubts,
                "{what}: {number} arrived {times} times, {fate:?}"
            );
        }
    }
    let doubts: usize = fates.values().map(|fate| fate.doubts).sum();
    assert!(doubts <= 1, "{what}: {doubts} in doubt for one connection");
}

const COUNT: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_connection_takes_a_message_in_each_round_trip() {
    let upstream = upstream().start_here();
    let fates = deliver(&connector(upstream.address, 1), COUNT).await;
    let seen = upstream.seen();
    check(&fates, &arrived(&seen), "nothing wrong");
    assert_eq!(seen.connections, 1);
    // Not behind the first dot, which has to be answered first; nor behind the last.
    assert!(seen.early >= COUNT - 3, "{} early groups", seen.early);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_a_dot_happens_to_one_message() {
    use AtDot::{Confused, Does};
    for at in 1..=COUNT {
        for trick in [
            Does(Act::Fin),
            Does(Act::Rst),
            Does(Act::Hang),
            Does(Act::says("421 4.3.2 closing")),
            Does(Act::says("451 4.3.0 later")),
            Does(Act::says("554 5.6.0 not this")),
            Does(Act::More("250 2.0.0 and this", Form::Together)),
            Does(Act::More("451 4.3.0 and this", Form::Together)),
            Does(Act::More("554 5.0.0 and this", Form::Together)),
            Does(Act::More("250 2.0.0 and this", Form::Apart)),
            Does(Act::More("550 5.0.0 and this", Form::Apart)),
            Does(Act::Flushes),
            Does(Act::Leaves("")),
            Does(Act::Sleeps),
            Confused,
        ] {
            let what = format!("{trick:?} at dot {at}");
            let upstream = at_dot(at, trick.clone());
            let fates = deliver(&connector(upstream.address, 1), COUNT).await;
            let seen = upstream.seen();
            check(&fates, &arrived(&seen), &what);
            let failed = fates.values().filter(|fate| fate.is_failed).count();
            let doubts = fates.values().filter(|fate| fate.doubts > 0).count();
            let retried = fates.values().filter(|fate| fate.attempts > 1).count();
            let expected = match trick {
                Does(Act::Fin | Act::Rst | Act::Hang) => (0, 1, 1),
                Does(Act::Says(text)) if text.starts_with('5') => (1, 0, 0),
                Does(Act::Says(_)) => (0, 0, 1),
                // The one whose recipients were refused; none where the dot was the last.
                Confused => (usize::from(at < COUNT), 0, 0),
                Does(_) => (0, doubts, retried),
            };
            assert_eq!((failed, doubts, retried), expected, "{what}: {fates:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_and_extra_replies_at_any_octet_confuse_no_outcome() {
    let mut random = fastrand::Rng::with_seed(29);
    // All replies of ten messages are some 600 octets.
    for round in 0..160 {
        let at = random.usize(0..650);
        let spoils = if round % 2 == 0 {
            Spoils::CutAfter(at)
        } else {
            let more = [
                "250 ok\r\n",
                "354 go on\r\n",
                "451 later\r\n",
                "550 no\r\n",
                "x",
            ];
            Spoils::InsertAt(at, more[random.usize(0..more.len())])
        };
        let connections = random.usize(1..4);
        let what = format!("{spoils:?} with {connections} connections");
        let upstream = upstream().spoils(spoils).start_here();
        let fates = deliver(&connector(upstream.address, connections), COUNT).await;
        let seen = upstream.seen();
        check(&fates, &arrived(&seen), &what);
    }
}

/// The second connection greets late, when the first one has taken both messages; so it was never used when it dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_opened_in_vain_and_died_closes_nothing() {
    let upstream = upstream()
        .when(|at| match (at.stage, at.connection) {
            // Both are being opened before one is, and the second is when there is nothing left for it.
            ("banner", 1) => Some(Act::Once(|seen| seen.connections == 2)),
            ("banner", 2) => Some(Act::Once(|seen| seen.dots == 2)),
            _ => None,
        })
        .start_here();
    let connector = patient(upstream.address, 2, Duration::from_mins(1));
    deliver(&connector, 2).await;
    until("the second connection is idle", async || {
        connector.connections().unwrap().open == 2
    })
    .await;
    assert_eq!(upstream.seen().connections, 2);
    upstream.hang_up().await;
    // Both are dead, and neither is said to be an upstream that is down.
    let (message, to) = (message(3), to());
    let deadline = Instant::now() + Duration::from_secs(20);
    let report = connector.deliver(&message, &to, &deadline.into()).await;
    let Report::Tried { outcomes, .. } = report else {
        panic!("{report:?}");
    };
    assert!(
        matches!(outcomes[0].1, Outcome::Delivered(_)),
        "{outcomes:?}"
    );
}
