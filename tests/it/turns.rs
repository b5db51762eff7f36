//! Who waits for whom in a lane: what every store must do, and what a gateway makes of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use postern::{
    mail::message::{Body, Envelope, Message, MessageId, Origin},
    queue::{
        sqlite::SqliteStore,
        store::{Ask, Job, Start, Store, Whose},
        turns::{LOOKED_AT, Pair, TURN},
    },
    route::{LaneId, Routed},
};

use crate::{
    fixture::address,
    harness::{
        cloud::Tenant,
        gateway::{Gateway, basic, wait},
        upstream::Upstream,
    },
    store::{NODE, ask, at, deferred, in_doubt, mail, on_every_store, settings, settlement},
};

on_every_store!(
    another_waits_for_one_turn,
    what_is_due_is_looked_at_within_bounds,
    one_pair_alone,
    what_is_past_its_time_is_found_whosever_it_is,
    what_waits_is_counted_by_its_place,
);

/// Mail of a client and a sender.
fn mail_of(n: u128, client: &str, sender: &str) -> Routed {
    let sent = mail(n, &["x@partner.example"]);
    let Message {
        id,
        envelope,
        origin,
        header,
        body,
    } = (*sent.message).clone();
    Routed {
        message: Arc::new(Message {
            id,
            envelope: Envelope {
                sender: Some(address(&format!("{sender}@corp.example"))),
                ..envelope
            },
            origin: Origin {
                peer: format!("{client}:25").parse().unwrap(),
                ..origin
            },
            header,
            body,
        }),
        jobs: sent.jobs,
        copies: Vec::new(),
    }
}

fn pair(job: &Job) -> Pair {
    Pair::of_message(&job.message)
}

fn who(job: &Job) -> String {
    job.message
        .envelope
        .sender
        .as_ref()
        .unwrap()
        .local()
        .to_owned()
}

fn asking(whose: Whose, lane: Option<&str>, limit: usize) -> Vec<Ask> {
    vec![Ask {
        whose,
        lane: lane.map(LaneId::parse),
        ..ask(limit).remove(0)
    }]
}

/// A flood of one client, then a message of another; and the same of two senders of one client; where any connector takes it, and
/// in the lane of a mailbox. However few are claimed at once, it waits for one turn.
async fn another_waits_for_one_turn(store: Arc<dyn Store>) {
    let mut number = 0;
    for (other, lane) in [
        (("10.0.0.2", "flood"), None),
        (("10.0.0.1", "other"), None),
        (("10.0.0.2", "flood"), Some("up/box@corp.example")),
    ] {
        for limit in [1, 3, 8, 9, 50] {
            let start = lane.map_or(Start::Any, |lane| Start::In(LaneId::parse(lane)));
            for n in 0..60_u64 {
                let (client, sender) = if n == 59 {
                    other
                } else {
                    ("10.0.0.1", "flood")
                };
                number += 1;
                let sent = mail_of(number, client, sender);
                store.insert(&sent, &[start.clone()], at(n)).await.unwrap();
            }
            let due = store.due(at(99)).await.unwrap();
            assert!(due.len() == 1 && due[0].at <= at(99));
            assert_eq!(due[0].whose, Whose::InTurns);
            let mut left = Vec::new();
            while left.len() < 60 {
                let asks = asking(due[0].whose, lane, limit);
                let jobs = store.claim(&asks, NODE, at(99)).await.unwrap();
                assert_eq!(jobs.len(), limit.min(60 - left.len()));
                left.extend(jobs);
            }
            let is_other =
                |job: &Job| pair(job) == Pair::of_message(&mail_of(0, other.0, other.1).message);
            let at = left.iter().position(is_other).unwrap();
            assert!(at <= TURN, "{limit}: {at} were before it");
            let flood: Vec<_> = left.iter().filter(|job| !is_other(job)).collect();
            assert!(flood.iter().map(|job| job.accepted).is_sorted());
        }
    }
}

/// What it was looked at shows: whose it is when it is one pair's, and no later than now when it is too much to look at.
async fn what_is_due_is_looked_at_within_bounds(store: Arc<dyn Store>) {
    let mut pairs = std::collections::BTreeSet::new();
    let mut first = None;
    for n in 0.. {
        let sent = mail_of(n, &format!("10.0.{}.{}", n / 200, n % 200), "a");
        let pair = Pair::of_message(&sent.message);
        if !pairs.insert(pair) {
            continue;
        }
        store.insert(&sent, &[], at(100)).await.unwrap();
        let only = *first.get_or_insert(pair);
        let due = store.due(at(5)).await.unwrap().remove(0);
        assert_eq!(due.whose, Whose::met(only, pairs.len().min(LOOKED_AT)));
        let is_more = pairs.len() > LOOKED_AT;
        assert_eq!(due.at, if is_more { at(5) } else { at(100) });
        if is_more {
            break;
        }
    }
    assert_eq!(store.due(at(500)).await.unwrap()[0].at, at(100));
    assert!(
        store
            .claim(&ask(200), NODE, at(99))
            .await
            .unwrap()
            .is_empty()
    );
    let all = store.claim(&ask(200), NODE, at(100)).await.unwrap();
    assert_eq!(all.len(), LOOKED_AT + 1);
}

/// A pair is asked for by itself, and nobody else's mail comes.
async fn one_pair_alone(store: Arc<dyn Store>) {
    for n in 0..20 {
        let sender = if n % 2 == 0 { "a" } else { "b" };
        let sent = mail_of(n, "10.0.0.1", sender);
        store.insert(&sent, &[], at(n as u64)).await.unwrap();
    }
    store.due(at(20)).await.unwrap();
    let b = Pair::of_message(&mail_of(0, "10.0.0.1", "b").message);
    let jobs = store
        .claim(&asking(Whose::Of(b), None, 99), NODE, at(20))
        .await
        .unwrap();
    assert_eq!(jobs.len(), 10);
    assert!(jobs.iter().all(|job| who(job) == "b"));
}

/// What waited too long is found among everybody's mail, however much of it came since; and the parts of a job keep its turn.
async fn what_is_past_its_time_is_found_whosever_it_is(store: Arc<dyn Store>) {
    for n in 0..200_u64 {
        let sent = mail_of(n.into(), &format!("10.0.0.{}", n % 20), "young");
        store.insert(&sent, &[], at(50 + n)).await.unwrap();
    }
    for n in 0..30_u64 {
        let sent = mail_of(1000 + u128::from(n), &format!("10.0.1.{}", n % 10), "old");
        store.insert(&sent, &[], at(n)).await.unwrap();
    }
    let asks = asking(Whose::AcceptedBy(at(40)), None, 12);
    let mut found = Vec::new();
    for expected in [12, 12, 6, 0] {
        let jobs = store.claim(&asks, NODE, at(300)).await.unwrap();
        assert_eq!(jobs.len(), expected);
        found.extend(jobs);
    }
    assert!(found.iter().all(|job| who(job) == "old"));
    // Deferred, and in doubt for one recipient: both are still theirs, and old.
    let mut parted = settlement(&found[0], vec![("x@partner.example", deferred())]);
    parted.next = at(60);
    store.settle(parted, at(50)).await.unwrap();
    let mut doubt = settlement(&found[1], vec![("x@partner.example", in_doubt())]);
    doubt.in_doubt = Some(("up".into(), at(60)));
    store.settle(doubt, at(50)).await.unwrap();
    let jobs = store.claim(&asks, NODE, at(59)).await.unwrap();
    assert!(jobs.is_empty(), "not due");
    let jobs = store.claim(&asks, NODE, at(60)).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].id), (1, found[0].id));
    let due = store.due(at(60)).await.unwrap();
    let pinned = due.iter().find(|due| due.pinned.is_some()).unwrap();
    assert_eq!(pinned.whose, Whose::Of(pair(&found[1])));
}

/// The look that one pair's mail is asked for by is some milliseconds old: whoever came since is seen all the same.
#[tokio::test]
async fn who_comes_after_the_look_waits_for_one_turn() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&settings(dir.path())).unwrap();
    for n in 0..100 {
        store
            .insert(&mail_of(n, "10.0.0.1", "flood"), &[], at(n as u64))
            .await
            .unwrap();
    }
    let due = store.due(at(200)).await.unwrap();
    assert!(matches!(due[0].whose, Whose::Of(_)));
    let asks = asking(due[0].whose, None, 1);
    store.claim(&asks, NODE, at(200)).await.unwrap();
    store
        .insert(&mail_of(500, "10.0.0.2", "late"), &[], at(150))
        .await
        .unwrap();
    let mut before = 0;
    while who(&store.claim(&asks, NODE, at(200)).await.unwrap()[0]) != "late" {
        before += 1;
    }
    assert!(before <= TURN, "{before} were before it");
}

const FLOOD: usize = 3000;

/// A gateway that starts with a flood of one client in its queue and one message of another behind it, in a lane.
fn flooded(config: &str, flood: usize, other: (&str, &str), lane: Option<&str>) -> Gateway {
    let dir = tempfile::TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&settings(dir.path())).unwrap();
        let begun = SystemTime::now() - Duration::from_mins(1);
        let mut all = tokio::task::JoinSet::new();
        for n in 0..=flood {
            let (client, sender) = if n == flood {
                other
            } else {
                ("10.0.0.1", "flood")
            };
            let mut sent = mail_of(0, client, sender);
            let message = Arc::make_mut(&mut sent.message);
            let at = begun + Duration::from_millis(n as u64);
            message.id = MessageId::new(at, n as u128);
            message.header = format!("From: {sender}@corp.example\r\nSubject: {n}.\r\n").into();
            message.body = Body::Memory("x\r\n".into());
            sent.jobs[0].0 = "all".into();
            let start = lane.map_or(Start::Any, |lane| Start::In(LaneId::parse(lane)));
            let store = Arc::clone(&store);
            all.spawn(async move { store.insert(&sent, &[start], at).await.map(|_| ()) });
        }
        assert!(all.join_all().await.iter().all(Result::is_ok));
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    Gateway::start_in(dir)
}

#[test]
fn a_flood_holds_up_another_for_one_turn() {
    for (concurrent, other) in [
        (1, ("10.0.0.2", "flood")),
        (4, ("10.0.0.2", "flood")),
        (2, ("10.0.0.1", "other")),
    ] {
        let sink = Upstream::start();
        let limits = format!("max_connections = {concurrent}\nmax_concurrent = {concurrent}\n");
        let gateway = flooded(&(basic(sink.address) + &limits), FLOOD, other, None);
        let subject = format!("Subject: {FLOOD}.");
        let before = wait("the other's message", || {
            sink.mails()
                .iter()
                .position(|mail| mail.text().contains(&subject))
        });
        assert!(
            before <= TURN + concurrent,
            "{concurrent}: {before} were before it"
        );
        drop(gateway);
    }
}

/// The same while the flood is on its way, of a client that comes then.
#[test]
fn who_comes_into_a_flood_waits_for_one_turn() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sink = Upstream::scripted(move |line| {
        if line == "." {
            std::thread::sleep(Duration::from_millis(20));
            counted.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let config = basic(sink.address) + "max_connections = 2\nmax_concurrent = 2\n";
    let gateway = flooded(&config, 1000, ("10.0.0.1", "flood"), None);
    wait("the flood is on its way", || {
        (sink.count() > 20).then_some(())
    });
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    let content = "From: late@corp.example\r\nSubject: late.\r\n\r\nx\r\n";
    client.mail("late@corp.example", &["x@partner.example"], content);
    let accepted = sent.load(Ordering::SeqCst);
    let at = wait("the late message", || {
        sink.mails()
            .iter()
            .position(|mail| mail.from.starts_with("late"))
    });
    // One turn, what was on its way, and what the sink took between the commit and our look at it.
    assert!(
        at <= accepted + TURN + 6,
        "{accepted} before it came, {at} before it left"
    );
}

#[test]
fn mailboxes_have_turns_too() {
    let tenant = Tenant::start(|_, _| None);
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let lane = Some("up/flood@corp.example");
    let config = format!("{front}{}", tenant.connector());
    let _gateway = flooded(&config, 200, ("10.0.0.2", "flood"), lane);
    let before = wait("the other's message", || {
        let is_it = |mail: &crate::harness::cloud::Taken| mail.content.contains("Subject: 200.");
        tenant.mails().iter().position(is_it)
    });
    assert!(before <= TURN + 4, "{before} were before it");
}

/// How much waits where, whatever else there is: what is held, sent or over does not wait.
async fn what_waits_is_counted_by_its_place(store: Arc<dyn Store>) {
    let lane = LaneId::parse("up/box@corp.example");
    for n in 0..5_u64 {
        let start = if n < 2 {
            Start::In(lane.clone())
        } else {
            Start::Any
        };
        let sent = mail_of(n.into(), "10.0.0.1", "a");
        store.insert(&sent, &[start], at(n)).await.unwrap();
    }
    let route = asking(Whose::InTurns, None, 1)[0].route.clone();
    let mut waiting = store.waiting().await.unwrap();
    waiting.sort();
    let places = [
        ((route.clone(), None, None), 3),
        ((route.clone(), None, Some(lane.clone())), 2),
    ];
    assert_eq!(waiting, places);
    store
        .claim(&asking(Whose::InTurns, None, 2), NODE, at(9))
        .await
        .unwrap();
    let mut waiting = store.waiting().await.unwrap();
    waiting.sort();
    assert_eq!((waiting[0].1, waiting[1].1), (1, 2));
}
