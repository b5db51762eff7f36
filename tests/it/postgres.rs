//! What only the store in PostgreSQL can be asked: several nodes, and a server that goes away in the middle.

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use postern::{
    mail::{
        message::{Body, MessageId},
        outcome::LaneState,
    },
    queue::{
        event::EventKind,
        postgres::{PostgresStore, Server, Settings},
        store::{
            Ask, Beat, Filter, Health, Job, JobState, Kept, LaneRow, Lease, NodeId, Retention,
            Settled, Standing, Start, Store, StoreError, Used, Verb,
        },
    },
    route::{ConnectorName, LaneId, Routed},
};
use tempfile::TempDir;

use crate::{
    harness::{
        postgres::{Cut, Cutter, Postgres},
        time::until,
    },
    store::{ask, at, deferred, done, failed, looks, mail, mail_with, only, settlement},
};

const MINUTE: Duration = Duration::from_mins(1);

/// A gateway's store and its node.
pub struct Member {
    pub store: Arc<PostgresStore>,
    pub node: NodeId,
    dir: TempDir,
}

/// A member of this name, with a directory of its own.
pub async fn member(settings: &Settings, name: &str) -> Member {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        data_dir: dir.path().join("data"),
        ..settings.clone()
    };
    let store = PostgresStore::open(settings).await.unwrap();
    let standing = Standing {
        name: name.to_owned(),
        dead_after: MINUTE,
        ..Standing::default()
    };
    let node = store.beat(&standing).await.unwrap().node;
    Member { store, node, dir }
}

impl Member {
    pub async fn insert(&self, n: u128) -> Routed {
        let sent = mail(n, &["a@x.example", "b@x.example"]);
        self.store.insert(&sent, &[], at(0)).await.unwrap();
        sent
    }

    pub async fn claim(&self, limit: usize, now: SystemTime) -> Vec<Job> {
        let asks = vec![Ask {
            connector: Some(ConnectorName::from("up")),
            ..ask(limit).remove(0)
        }];
        self.store.claim(&asks, self.node, now).await.unwrap()
    }

    pub async fn claim_pinned(&self, now: SystemTime) -> Vec<Job> {
        let asks = vec![Ask {
            pinned: Some(ConnectorName::from("up")),
            ..ask(10).remove(0)
        }];
        self.store.claim(&asks, self.node, now).await.unwrap()
    }

    pub async fn settle(&self, job: &Job, each: Settled) -> Kept {
        let recipients = ["a@x.example", "b@x.example"].map(|to| (to, each.clone()));
        let settlement = settlement(job, recipients.into());
        self.store.settle(settlement, at(1)).await.unwrap()
    }

    pub async fn beat(&self) -> Beat {
        self.store.beat(&Standing::of(self.node)).await.unwrap()
    }

    pub async fn kinds(&self, id: MessageId) -> Vec<EventKind> {
        let events = self.store.events(id).await.unwrap();
        events.iter().map(|event| event.kind).collect()
    }
}

pub fn settings() -> Settings {
    Postgres::shared().settings("/nonexistent".as_ref())
}

/// However they come between each other, and whatever is inserted and settled meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn nodes_that_claim_together_never_have_the_same_job() {
    let settings = settings();
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        members.push(Arc::new(member(&settings, name).await));
    }
    for n in 0..300 {
        members[0].insert(n).await;
    }
    let mut all = tokio::task::JoinSet::new();
    for (which, member) in members.iter().enumerate() {
        let member = Arc::clone(member);
        all.spawn(async move {
            let mut claimed = Vec::new();
            let mut idle = 0;
            while idle < 5 {
                let jobs = member.claim(7 + which, at(5)).await;
                idle = if jobs.is_empty() { idle + 1 } else { 0 };
                for job in jobs {
                    claimed.push((job.message.id, job.lease));
                    assert_eq!(member.settle(&job, done()).await, Kept::Written);
                }
            }
            claimed
        });
    }
    let claimed: Vec<(MessageId, Lease)> = all.join_all().await.concat();
    let messages: HashSet<MessageId> = claimed.iter().map(|(id, _)| *id).collect();
    assert_eq!((claimed.len(), messages.len()), (300, 300));
    assert!(claimed.iter().all(|(_, lease)| lease.claim == 1));
    let stats = members[1].store.stats().await.unwrap();
    assert_eq!((stats.waiting, stats.sending), (0, 0));
}

/// Two jobs of a message that end at the same moment on two nodes: one of them sees that it was the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_last_job_of_a_message_ends_it_whoever_settles_it() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    for n in 0..40 {
        let mut sent = mail(n, &["a@x.example", "b@x.example"]);
        let recipients = sent.jobs.remove(0).1;
        for recipient in recipients {
            sent.jobs.push(("main".into(), vec![recipient]));
        }
        one.store.insert(&sent, &[], at(0)).await.unwrap();
        let (first, second) = (
            one.claim(1, at(1)).await.remove(0),
            two.claim(1, at(1)).await.remove(0),
        );
        let settled = |job: &Job| {
            let to = job.recipients[0].to_string();
            settlement(job, vec![(to.as_str(), done())])
        };
        let (a, b) = tokio::join!(
            one.store.settle(settled(&first), at(2)),
            two.store.settle(settled(&second), at(2))
        );
        assert_eq!((a.unwrap(), b.unwrap()), (Kept::Written, Kept::Written));
        assert!(
            one.store.content(sent.message.id).await.unwrap().is_none(),
            "{n}"
        );
    }
}

/// What a node held that went silent may have arrived: only the same connector may try again, and later.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_a_silent_node_held_is_in_doubt() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let sent = one.insert(1).await;
    let fast = mail(2, &["a@x.example", "b@x.example"]);
    let start = Start::Now(one.node, ConnectorName::from("fast"));
    one.store.insert(&fast, &[start], at(0)).await.unwrap();
    let held = one.insert(3).await;
    let jobs = one.claim(9, at(1)).await;
    assert_eq!(jobs.len(), 2);
    // Of two connectors it went to the second.
    let second = ConnectorName::from("second");
    let on = jobs.iter().find(|job| job.message.id == held.message.id);
    one.store.goes_by(on.unwrap(), &second).await.unwrap();
    two.store
        .command(&only(held.message.id), &Verb::Hold, at(1))
        .await
        .unwrap();
    let lane = LaneId::parse("up");
    assert!(one.store.hold(&lane, one.node).await.unwrap().is_some());
    assert!(two.store.hold(&lane, two.node).await.unwrap().is_none());
    let nodes = two.beat().await.nodes;
    let silent = nodes
        .iter()
        .find(|node| node.id == one.node)
        .unwrap()
        .clone();
    assert_eq!((silent.name.as_str(), silent.dead_after), ("one", MINUTE));
    // It was heard of since.
    one.beat().await;
    assert!(!two.store.take_over(&silent, at(300), at(10)).await.unwrap());
    let nodes = two.beat().await.nodes;
    let silent = nodes
        .iter()
        .find(|node| node.id == one.node)
        .unwrap()
        .clone();
    assert!(two.store.take_over(&silent, at(300), at(10)).await.unwrap());
    assert!(two.claim_pinned(at(299)).await.is_empty());
    let jobs = two.claim_pinned(at(300)).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].message.id, jobs[0].lease.claim, jobs[0].attempts),
        (sent.message.id, 2, 0)
    );
    let (_, recipients) = looks(&*two.store, sent.message.id).await;
    assert_eq!(recipients, ["a@x.example in doubt", "b@x.example in doubt"]);
    assert_eq!(looks(&*two.store, held.message.id).await.0, JobState::Held);
    let gone_on = two.store.list(&only(held.message.id), at(0)).await.unwrap();
    assert_eq!(gone_on[0].pinned, Some(second));
    let pinned = two.store.list(&only(fast.message.id), at(0)).await.unwrap();
    assert_eq!(pinned[0].pinned, Some(ConnectorName::from("fast")));
    let kinds = two.kinds(sent.message.id).await;
    assert_eq!(kinds, [EventKind::Accepted, EventKind::InDoubt]);
    // Its lane is free, and nobody can say what it used.
    assert_eq!(
        two.store.hold(&lane, two.node).await.unwrap(),
        Some(Used::default())
    );
    // It finds itself gone; and a second take-over finds nothing more to do.
    let own = one.beat().await.nodes;
    assert!(own.iter().any(|node| node.id == one.node && node.is_gone));
    assert!(two.store.take_over(&silent, at(300), at(10)).await.unwrap());
    assert_eq!(two.claim_pinned(at(301)).await.len(), 0);
}

/// A settlement that comes late: what was delivered counts until somebody else has claimed the job.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_late_settlement_counts_for_what_was_delivered() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let mut jobs = Vec::new();
    for n in 1..=4 {
        one.insert(n).await;
        jobs.push(one.claim(1, at(1)).await.remove(0));
    }
    let nodes = two.beat().await.nodes;
    let silent = nodes.iter().find(|node| node.id == one.node).unwrap();
    assert!(two.store.take_over(silent, at(300), at(10)).await.unwrap());
    let id = |at: usize| jobs[at].message.id;
    // All of it was delivered: the job is over.
    assert_eq!(one.settle(&jobs[0], done()).await, Kept::Late);
    assert_eq!(looks(&*two.store, id(0)).await.0, JobState::Done);
    assert!(two.store.content(id(0)).await.unwrap().is_none());
    assert_eq!(
        one.settle(&jobs[0], done()).await,
        Kept::Written,
        "written before"
    );
    // One was: the other waits as the others have decided, and no bounce is made.
    let mut part = settlement(
        &jobs[1],
        vec![("a@x.example", done()), ("b@x.example", failed())],
    );
    part.bounces = vec![mail(99, &["app@corp.example"])];
    assert_eq!(one.store.settle(part, at(20)).await.unwrap(), Kept::Late);
    let (state, recipients) = looks(&*two.store, id(1)).await;
    assert_eq!(
        (state, recipients),
        (
            JobState::Waiting,
            vec![
                "a@x.example done".to_owned(),
                "b@x.example in doubt".to_owned()
            ]
        )
    );
    assert!(
        two.store
            .list(&only(mail(99, &[]).message.id), at(0))
            .await
            .unwrap()
            .is_empty()
    );
    // Nothing was.
    assert_eq!(one.settle(&jobs[2], deferred()).await, Kept::Late);
    assert_eq!(looks(&*two.store, id(2)).await.0, JobState::Waiting);
    // Somebody has claimed it since: twice is once too often, and it is told.
    let again = two.claim_pinned(at(300)).await;
    assert_eq!(again.len(), 3);
    assert_eq!(one.settle(&jobs[3], done()).await, Kept::Lost);
    assert_eq!(looks(&*two.store, id(3)).await.0, JobState::Sending);
    let events = two.store.events(id(3)).await.unwrap();
    assert!(
        events.last().unwrap().text.contains("sent twice"),
        "{events:?}"
    );
    // The same when the other has finished it.
    let own = again.iter().find(|job| job.message.id == id(3)).unwrap();
    assert_eq!(two.settle(own, done()).await, Kept::Written);
    assert_eq!(one.settle(&jobs[3], done()).await, Kept::Lost);
    assert_eq!(two.settle(own, done()).await, Kept::Written);
}

/// A late insert of a node that is gone is found.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_comes_late_from_a_node_that_is_gone_is_taken_over_too() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let nodes = two.beat().await.nodes;
    let silent = nodes.iter().find(|node| node.id == one.node).unwrap();
    assert!(two.store.take_over(silent, at(300), at(0)).await.unwrap());
    let fast = mail(2, &["a@x.example", "b@x.example"]);
    let start = Start::Now(one.node, ConnectorName::from("up"));
    one.store.insert(&fast, &[start], at(5)).await.unwrap();
    assert!(two.claim_pinned(at(999)).await.is_empty());
    two.store
        .maintain(&Retention::default(), at(10))
        .await
        .unwrap();
    assert!(two.claim_pinned(at(309)).await.is_empty());
    assert_eq!(two.claim_pinned(at(310)).await.len(), 1);
}

/// Between its being taken over and its next beat a gateway has no number: what it is given then is everybody's, and not leased to nobody.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_a_gateway_without_a_number_takes_is_left_to_whoever_may_send() {
    let settings = settings();
    let one = member(&settings, "one").await;
    let start = Start::Now(NodeId::default(), ConnectorName::from("up"));
    let mine = mail(2, &["a@x.example"]);
    let inserted = one.store.insert(&mine, &[start], at(5)).await.unwrap();
    assert_eq!((inserted.jobs.len(), inserted.leases.len()), (1, 0));
    let nobodys = one.store.claim(&ask(9), NodeId::default(), at(6)).await;
    assert!(nobodys.unwrap().is_empty());
    let claimed = one.claim(9, at(6)).await;
    assert_eq!(claimed[0].message.id, mine.message.id);
}

/// A beat that lay on the way for long says what was so when it was sent: since then its gateway may send by itself.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_beat_that_comes_long_after_the_one_before_is_of_one_apart() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let nodes = |beat: Beat| {
        let known = beat.nodes.into_iter().find(|row| row.id == one.node);
        known.map(|row| (row.is_apart, row.seen)).unwrap()
    };
    one.beat().await;
    let (is_apart, first) = nodes(two.beat().await);
    assert!(!is_apart);
    for (second, is_late) in [(9, false), (20, true), (0, false)] {
        let schema = settings.schema.replace('"', "\"\"");
        let back =
            format!("UPDATE \"{schema}\".node SET seen = seen - {second}000000 WHERE name = 'one'");
        Postgres::shared().sql("postern", &back);
        one.beat().await;
        let (is_apart, seen) = nodes(two.beat().await);
        assert_eq!(is_apart, is_late, "{second} s");
        assert!(seen > first, "it moves");
    }
}

/// A start on the same directory is a successor: nobody has to wait until it is sure that the one before has ended.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_start_frees_what_its_predecessor_held_and_nobody_elses() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let (mine, other) = (one.insert(1).await, one.insert(2).await);
    assert_eq!(one.claim(1, at(1)).await[0].message.id, mine.message.id);
    assert_eq!(two.claim(1, at(1)).await[0].message.id, other.message.id);
    let again = Standing {
        name: "one".to_owned(),
        ..Standing::default()
    };
    let heard = one.store.beat(&again).await.unwrap();
    assert_ne!(heard.node, one.node);
    assert!(
        !heard
            .nodes
            .iter()
            .any(|node| node.id == one.node && !node.is_gone)
    );
    assert_eq!(
        looks(&*two.store, mine.message.id).await.0,
        JobState::Waiting
    );
    assert_eq!(
        looks(&*two.store, other.message.id).await.0,
        JobState::Sending
    );
    assert_eq!(
        one.kinds(mine.message.id).await,
        [EventKind::Accepted, EventKind::Interrupted]
    );
    // A ninth member finds no place.
    for n in 3..=8 {
        let standing = Standing {
            name: format!("member {n}"),
            ..Standing::default()
        };
        two.store.beat(&standing).await.unwrap();
    }
    let ninth = Standing {
        name: "ninth".to_owned(),
        ..Standing::default()
    };
    let refused = two.store.beat(&ninth).await.unwrap_err();
    assert!(refused.to_string().contains("eight"), "{refused}");
}

/// Whoever leaves says so, and hands its lanes on.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn lanes_go_from_hand_to_hand_with_what_was_used() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let lane = LaneId::parse("graph/a@x.example");
    // Nobody ever sent from it: nothing was used.
    let nothing = Used {
        windows: Some("{}".to_owned()),
    };
    assert_eq!(
        one.store.hold(&lane, one.node).await.unwrap(),
        Some(nothing)
    );
    assert_eq!(two.store.hold(&lane, two.node).await.unwrap(), None);
    // A lane that is held is not one that was ever not open.
    assert!(one.store.lanes().await.unwrap().is_empty());
    let used = Used {
        windows: Some(r#"{"minute": 7}"#.to_owned()),
    };
    two.store
        .let_go(&lane, two.node, &Used::default())
        .await
        .unwrap();
    assert_eq!(
        two.store.hold(&lane, two.node).await.unwrap(),
        None,
        "it is not its to let go"
    );
    one.store.let_go(&lane, one.node, &used).await.unwrap();
    assert_eq!(two.store.hold(&lane, two.node).await.unwrap(), Some(used));
    let row = LaneRow {
        lane: lane.clone(),
        state: LaneState::Paused,
        since: at(1),
        why: "consent is missing".into(),
        probe: None,
        version: 0,
        node: NodeId::default(),
    };
    let (before, seen) = (one.beat().await.changes, two.beat().await.changes);
    assert_eq!(before, seen);
    assert!(two.store.set_lane(row.clone()).await.unwrap());
    assert!(!one.store.set_lane(row.clone()).await.unwrap());
    // The other hears of it, and whoever wrote it does not.
    one.beat().await;
    two.beat().await;
    let told = |member: &Member| {
        let store = Arc::clone(&member.store);
        async move {
            tokio::time::timeout(Duration::ZERO, store.changed())
                .await
                .is_ok()
        }
    };
    assert!(told(&one).await && !told(&two).await);
    // Open again it is forgotten, and still held.
    let open = LaneRow {
        state: LaneState::Open,
        version: 1,
        ..row
    };
    assert!(two.store.set_lane(open).await.unwrap());
    assert!(two.store.lanes().await.unwrap().is_empty());
    assert_eq!(one.store.hold(&lane, one.node).await.unwrap(), None);
    let leaving = Standing {
        is_leaving: true,
        ..Standing::of(two.node)
    };
    two.store.beat(&leaving).await.unwrap();
    let nodes = one.beat().await.nodes;
    assert!(
        nodes.iter().all(|node| node.id != two.node),
        "who left is not missed"
    );
}

/// Where the connection is cut at a commit, before the server has it or before its answer comes: one message, one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_commit_that_is_cut_off_is_one_message_and_one_answer() {
    for cut in [Cut::Before, Cut::After, Cut::Silence] {
        let cutter = Cutter::start(Postgres::shared().port);
        let settings = Settings {
            hosts: vec![Server::Host("127.0.0.1".to_owned(), cutter.port)],
            tls: None,
            // So long it is unknown what became of it, where nothing ends.
            patience: if cut == Cut::Silence {
                Duration::from_secs(2)
            } else {
                Settings::PATIENCE
            },
            ..settings()
        };
        let one = member(&settings, "one").await;
        // The statements are prepared.
        one.insert(1).await;
        let job = one.claim(1, at(1)).await.remove(0);
        one.settle(&job, done()).await;
        for n in 2..5 {
            cutter.cut(cut, 1);
            let sent = one.insert(n).await;
            assert_eq!(cutter.left(), 0, "it was cut");
            assert_eq!(one.store.stats().await.unwrap().waiting, 1, "{cut:?}");
            let job = one.claim(5, at(1)).await.remove(0);
            assert_eq!(job.message.id, sent.message.id);
            let both = vec![("a@x.example", done()), ("b@x.example", failed())];
            let mut settled = settlement(&job, both);
            settled.bounces = vec![mail(100 + n, &["app@corp.example"])];
            cutter.cut(cut, 1);
            let kept = one.store.settle(settled, at(2)).await.unwrap();
            assert_eq!((kept, cutter.left()), (Kept::Written, 0));
            let kinds = one.kinds(sent.message.id).await;
            let told = kinds.iter().filter(|kind| **kind == EventKind::Deferred);
            assert_eq!(told.count(), 1, "{cut:?}: {kinds:?}");
            let bounce = only(mail(100 + n, &[]).message.id);
            assert_eq!(one.store.stats().await.unwrap().waiting, 1, "{cut:?}");
            let dropped = one.store.command(&bounce, &Verb::Drop, at(2)).await;
            assert_eq!(dropped.unwrap(), 1);
        }
        // A claim of which nobody knows is asked again, and what it may have taken is given back.
        for behind in 0..3 {
            one.insert(9 + behind as u128).await;
            cutter.cut_behind(cut, behind);
            let mut claimed = one.claim(1, at(1)).await;
            cutter.cut(Cut::Nothing, 0);
            if claimed.is_empty() {
                until("the job", async || {
                    let _ = one.store.beat(&Standing::of(one.node)).await;
                    let stats = one.store.stats().await;
                    stats.is_ok_and(|stats| stats.waiting == 1)
                })
                .await;
                claimed = one.claim(1, at(1)).await;
            }
            assert_eq!(claimed.len(), 1, "{cut:?} {behind}");
            assert_eq!(one.settle(&claimed[0], done()).await, Kept::Written);
        }
    }
}

/// The answer to nobody: the insert is done, and the lease that came with it is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_lease_nobody_heard_of_is_given_back() {
    let one = member(&settings(), "one").await;
    let fast = mail(1, &["a@x.example"]);
    let starts = [Start::Now(one.node, ConnectorName::from("up"))];
    {
        // Polled once: it is handed in, and the caller is gone.
        let mut insert = one.store.insert(&fast, &starts, at(0));
        let mut context = Context::from_waker(Waker::noop());
        assert!(insert.as_mut().poll(&mut context).is_pending());
    }
    until("the insert", async || {
        one.store.stats().await.unwrap().sending == 1
    })
    .await;
    until("its lease", async || {
        one.beat().await;
        one.store.stats().await.unwrap().waiting == 1
    })
    .await;
    {
        let asks = ask(1);
        let mut claim = one.store.claim(&asks, one.node, at(1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(claim.as_mut().poll(&mut context).is_pending());
    }
    until("the claim", async || {
        one.store.stats().await.unwrap().sending == 1
    })
    .await;
    until("its end", async || {
        one.beat().await;
        one.store.stats().await.unwrap().waiting == 1
    })
    .await;
    assert_eq!(one.claim(1, at(1)).await[0].lease.claim, 2);
}

/// A server that is killed and comes back, on all connections at once: nothing that was acknowledged is lost, and nobody has to do
/// anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_was_killed_comes_back() {
    let server = Postgres::start("");
    let settings = server.settings("/nonexistent".as_ref());
    let one = Arc::new(member(&settings, "one").await);
    let mut all = tokio::task::JoinSet::new();
    for n in 0..8_u128 {
        let one = Arc::clone(&one);
        all.spawn(async move {
            let mut acknowledged = Vec::new();
            for m in 0.. {
                let sent = mail(n * 1_000_000 + m, &["a@x.example"]);
                match one.store.insert(&sent, &[], at(0)).await {
                    Ok(_) => acknowledged.push(sent.message.id),
                    Err(StoreError::Away(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged
        });
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (server, acknowledged) = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    })
    .await
    .map(|server| (server, all.join_all()))
    .unwrap();
    let acknowledged = acknowledged.await.concat();
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    assert_eq!(one.store.health(), Health::Failing);
    let server = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.start_again();
        server
    })
    .await
    .unwrap();
    until("the database", async || {
        let _ = one.store.beat(&Standing::of(one.node)).await;
        one.store.health() == Health::Fine
    })
    .await;
    let there = one.store.list(&Filter::default(), at(0)).await.unwrap();
    let there: HashSet<MessageId> = there.iter().map(|entry| entry.id).collect();
    assert!(acknowledged.iter().all(|id| there.contains(id)));
    // Its connections are ended one and all: whoever asks next notices nothing.
    let end =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'postern'";
    for n in 0..20 {
        if n % 5 == 0 {
            assert_ne!(server.sql("postgres", end), "0");
        }
        one.insert(1 << 60 | n).await;
        one.store.stats().await.unwrap();
    }
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
}

/// A large body is in the database: another node sends it, whatever becomes of the first one's files.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_large_body_is_everybodys() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let octets: Vec<u8> = (0..1_500_000_u32).map(|n| (n / 7 % 251) as u8).collect();
    let sent = {
        let id = mail(1, &[]).message.id;
        let mut writer = one.store.bodies().writer(id);
        for piece in octets.chunks(70_000) {
            writer.append(piece).await.unwrap();
        }
        mail_with(
            1,
            &["a@x.example", "b@x.example"],
            writer.finish().await.unwrap(),
        )
    };
    one.store.insert(&sent, &[], at(0)).await.unwrap();
    // Another try of it, which was thought lost, changes nothing.
    assert!(one.store.insert(&sent, &[], at(0)).await.is_err());
    drop(sent);
    let files = |member: &Member| {
        std::fs::read_dir(member.dir.path().join("data/incoming"))
            .unwrap()
            .count()
    };
    assert_eq!(files(&one), 0, "nobody needs it here any more");
    let job = two.claim(1, at(1)).await.remove(0);
    let read = async |body: &Body| {
        let (mut all, mut reader) = (Vec::new(), body.open().await?);
        while let Some(piece) = reader.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok::<_, std::io::Error>(all)
    };
    assert_eq!(job.message.body.len(), octets.len() as u64);
    assert!(read(&job.message.body).await.unwrap() == octets);
    assert_eq!(files(&two), 0);
    let schema = settings.schema.replace('"', "\"\"");
    let sql = |sql: &str| {
        Postgres::shared().sql("postern", &format!("SET search_path = \"{schema}\"; {sql}"))
    };
    assert_eq!(sql("SELECT count(*) FROM chunk"), "3");
    // One of which a part is missing is not sent in part.
    sql("UPDATE chunk SET seq = 7 WHERE seq = 1");
    assert!(read(&job.message.body).await.is_err());
    two.settle(&job, done()).await;
    assert_eq!(sql("SELECT count(*) FROM chunk"), "0");
    // What cannot be read is put aside, and the others go.
    let (broken, good) = (one.insert(2).await, one.insert(3).await);
    sql(
        "UPDATE content SET body = 'x' WHERE message IN (SELECT id FROM message ORDER BY place DESC OFFSET 1 LIMIT 1)",
    );
    let jobs = two.claim(9, at(1)).await;
    assert_eq!((jobs.len(), jobs[0].message.id), (1, good.message.id));
    assert_eq!(
        looks(&*two.store, broken.message.id).await.0,
        JobState::Held
    );
}

/// The database has a clock of its own, and so has each gateway: ages and waits are what they are.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn times_are_the_databases_whatever_a_gateway_thinks() {
    let settings = Settings {
        callers_clock: false,
        ..settings()
    };
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let hour = Duration::from_hours(1);
    let (ahead, behind) = (|| SystemTime::now() + hour, || SystemTime::now() - hour);
    let sent = mail(1, &["a@x.example", "b@x.example"]);
    one.store.insert(&sent, &[], ahead()).await.unwrap();
    let near = |a: SystemTime, b: SystemTime| {
        let far = a.duration_since(b).unwrap_or_else(|e| e.duration());
        assert!(far < Duration::from_secs(20), "{far:?}");
    };
    let listed = two.store.list(&Filter::default(), behind()).await.unwrap();
    near(listed[0].accepted, SystemTime::now());
    // For one that is behind it came just now, by its own clock.
    near(two.store.due(behind()).await.unwrap()[0].at, behind());
    // What the two know of the database's time may be some milliseconds apart.
    let mut jobs = Vec::new();
    while jobs.is_empty() {
        jobs = two.store.claim(&ask(1), two.node, behind()).await.unwrap();
    }
    let job = jobs.remove(0);
    near(job.accepted, behind());
    let mut later = settlement(
        &job,
        ["a@x.example", "b@x.example"]
            .map(|to| (to, deferred()))
            .into(),
    );
    later.next = behind() + Duration::from_mins(10);
    two.store.settle(later, behind()).await.unwrap();
    near(
        one.store.due(ahead()).await.unwrap()[0].at,
        ahead() + Duration::from_mins(10),
    );
    let none = one
        .store
        .claim(&ask(1), one.node, ahead() + Duration::from_secs(500))
        .await;
    assert!(none.unwrap().is_empty(), "a now is a now, whatever it says");
}

/// How fast it is, for whoever wants to know: a message in, claimed, and its outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn many_share_a_commit() {
    let one = Arc::new(member(&settings(), "one").await);
    let (count, begun) = (2_000_u128, Instant::now());
    let body = Body::Memory(vec![b'x'; 10_000].into());
    let mut all = tokio::task::JoinSet::new();
    for each in 0..100 {
        let (one, body) = (Arc::clone(&one), body.clone());
        all.spawn(async move {
            for n in (each..count).step_by(100) {
                let sent = mail_with(n, &["a@x.example", "b@x.example"], body.clone());
                let starts = [Start::Now(one.node, ConnectorName::from("up"))];
                one.store.insert(&sent, &starts, at(0)).await.unwrap();
                let job = Job {
                    id: postern::queue::store::JobId(0),
                    lease: Lease {
                        node: one.node,
                        claim: 0,
                    },
                    route: sent.jobs[0].0.clone(),
                    recipients: sent.jobs[0].1.clone(),
                    message: sent.message,
                    pinned: None,
                    lane: None,
                    attempts: 0,
                    accepted: at(0),
                };
                assert_eq!(one.settle(&job, done()).await, Kept::Written);
            }
        });
    }
    all.join_all().await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} messages a second, accepted and settled");
    let stats = one.store.stats().await.unwrap();
    assert_eq!((stats.sending, stats.waiting), (0, 0));
}
