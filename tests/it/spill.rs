//! What only the store over two can be asked: a database that goes, and comes back to what was taken and done meanwhile.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use postern::{
    mail::message::MessageId,
    queue::{
        postgres::{self, OpenError},
        spill::{SpillSettings, SpillStore},
        store::{
            Filter, Health, Job, JobState, Kept, Lease, NodeId, Settled, Standing, Start, Store,
            StoreError, Verb,
        },
    },
    route::{ConnectorName, Routed},
};

use crate::{
    harness::{
        postgres::Cut,
        spill::{SPILLS, Site, is_home},
        time::until,
    },
    store::{
        NODE, ask, at, deferred, done, failed, in_doubt, looks, mail, mail_with, only, settlement,
    },
};

const TWO: [&str; 2] = ["a@x.example", "b@x.example"];

fn id(n: u128) -> MessageId {
    mail(n, &[]).message.id
}

async fn node(store: &SpillStore) -> NodeId {
    let standing = Standing {
        name: "one".to_owned(),
        dead_after: Duration::from_mins(1),
        ..Standing::default()
    };
    store.beat(&standing).await.unwrap().node
}

async fn insert(store: &SpillStore, n: u128) -> Routed {
    let sent = mail(n, &TWO);
    store.insert(&sent, &[], at(0)).await.unwrap();
    sent
}

async fn claim(store: &SpillStore, node: NodeId, limit: usize, now: SystemTime) -> Vec<Job> {
    store.claim(&ask(limit), node, now).await.unwrap()
}

async fn settle(store: &SpillStore, job: &Job, each: Settled) -> Kept {
    let recipients = TWO.map(|to| (to, each.clone()));
    let settled = settlement(job, recipients.into());
    store.settle(settled, at(1)).await.unwrap()
}

/// A site whose store and node are there.
async fn begun() -> (Site, Arc<SpillStore>, NodeId) {
    let site = Site::new();
    let store = site.open(SPILLS).await.unwrap();
    let node = node(&store).await;
    (site, store, node)
}

/// The database goes: mail is taken and sent all the same, and what is left moves when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn mail_goes_on_while_the_database_is_away() {
    let (site, store, node) = begun().await;
    for n in 1..=3 {
        insert(&store, n).await;
    }
    let mut sent = claim(&store, node, 2, at(0)).await;
    site.goes(&store).await;
    for n in 4..=6 {
        insert(&store, n).await;
    }
    let fast = mail(7, &TWO);
    let start = Start::Now(node, ConnectorName::from("up"));
    let inserted = store.insert(&fast, &[start], at(0)).await.unwrap();
    assert_eq!(inserted.leases, [Lease::default()], "it is of this machine");
    let state = store.remote().unwrap();
    assert_eq!((state.spilled, state.unwritten), (4, 0));
    assert_eq!(state.oldest, Some(at(0)));
    assert_eq!(store.health(), Health::Fine);
    // What waits in the database waits; two of what lies here are sent, and what came of it is kept.
    let here = claim(&store, node, 2, at(1)).await;
    assert!(here.iter().all(|job| job.lease.node == NODE));
    assert_eq!(settle(&store, &here[0], done()).await, Kept::Written);
    let first = sent.remove(0);
    assert_eq!(settle(&store, &first, done()).await, Kept::Written);
    assert_eq!(settle(&store, &first, done()).await, Kept::Written);
    let mut bounced = settlement(&sent[0], TWO.map(|to| (to, failed())).into());
    bounced.bounces = vec![mail(9, &["app@corp.example"])];
    assert_eq!(store.settle(bounced, at(2)).await.unwrap(), Kept::Written);
    assert_eq!(store.remote().unwrap().unwritten, 2);
    // The bounce goes at once.
    let bounce = claim(&store, node, 9, at(3)).await;
    assert!(bounce.iter().any(|job| job.message.id == id(9)));
    for job in bounce.iter().filter(|job| job.message.id != id(9)) {
        settle(&store, job, deferred()).await;
    }
    site.comes(&store).await;
    // What is being sent moves when it was settled: one of them is done, the other waits.
    let lies_here = store.local().spilled().await.unwrap();
    assert_eq!(lies_here.messages, 3, "claimed, fast, and the bounce");
    settle(&store, &here[1], deferred()).await;
    settle(
        &store,
        bounce.iter().find(|job| job.message.id == id(9)).unwrap(),
        done(),
    )
    .await;
    let fast = Job {
        id: inserted.jobs[0],
        lease: inserted.leases[0],
        message: fast.message,
        ..bounce[0].clone()
    };
    settle(&store, &fast, done()).await;
    until("all of it has moved", async || {
        store.local().spilled().await.unwrap().messages == 0
    })
    .await;
    assert_eq!(looks(&*store, first.message.id).await.0, JobState::Done);
    assert_eq!(looks(&*store, sent[0].message.id).await.0, JobState::Failed);
    let mut all = BTreeMap::new();
    for job in claim(&store, node, 99, at(100)).await {
        assert_ne!(job.lease.node, NODE, "it is in the database");
        *all.entry(job.message.id).or_insert(0) += 1;
    }
    assert!(all.values().all(|count| *count == 1));
    // Of seven two were delivered from there, two from here, one failed; the bounce was delivered.
    assert_eq!(all.len(), 4, "{all:?}");
    drop(store);
    assert!(
        site.open(SPILLS)
            .await
            .unwrap()
            .local()
            .stats()
            .await
            .unwrap()
            .sending
            == 0
    );
}

/// A start while it is away, of a gateway that saw it once; no other begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_start_without_the_database() {
    let site = Site::new();
    site.cutter.shut(true);
    let refused = site.open(SPILLS).await;
    assert!(matches!(refused, Err(OpenError::Away(_))), "{refused:?}");
    site.cutter.shut(false);
    drop(site.open(SPILLS).await.unwrap());
    site.cutter.shut(true);
    let store = site.open(SPILLS).await.unwrap();
    let beat = store.beat(&Standing::default()).await;
    assert!(matches!(beat, Err(StoreError::Away(_))), "{beat:?}");
    let mut body = store.bodies().writer(id(2));
    body.append(&b"0123456789".repeat(150_000)).await.unwrap();
    let large = mail_with(2, &TWO, body.finish().await.unwrap());
    insert(&store, 1).await;
    store.insert(&large, &[], at(0)).await.unwrap();
    // Another schema is not the one that was seen.
    let other = postgres::Settings {
        schema: "other".to_owned(),
        ..site.settings.clone()
    };
    let refused = crate::harness::spill::open(&other, site.dir.path(), SPILLS).await;
    assert!(matches!(refused, Err(OpenError::Away(_))), "{refused:?}");
    // It ends, and begins again: what it had is there.
    drop(store);
    drop(large);
    let store = site.open(SPILLS).await.unwrap();
    assert_eq!(store.stats().await.unwrap().waiting, 2);
    assert_eq!(store.remote().unwrap().spilled, 2);
    site.comes(&store).await;
    let node = node(&store).await;
    let jobs = claim(&store, node, 9, at(0)).await;
    assert_eq!(jobs.len(), 2);
    let large = jobs.iter().find(|job| job.message.id == id(2)).unwrap();
    let mut body = large.message.body.open().await.unwrap();
    let mut octets = Vec::new();
    while let Some(piece) = body.next().await.unwrap() {
        octets.extend_from_slice(&piece);
    }
    assert!(octets == b"0123456789".repeat(150_000));
    for directory in ["data/spool", "data/incoming"] {
        let left = std::fs::read_dir(site.dir.path().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
}

/// Where it is not to spill nothing is taken, and outcomes are kept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn who_does_not_spill_refuses() {
    let site = Site::new();
    let refuses = SpillSettings {
        spills: false,
        ..SPILLS
    };
    let store = site.open(refuses).await.unwrap();
    let node = node(&store).await;
    insert(&store, 1).await;
    let job = claim(&store, node, 1, at(0)).await.remove(0);
    site.goes(&store).await;
    assert_eq!(store.health(), Health::Failing);
    let refused = store.insert(&mail(2, &TWO), &[], at(0)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    let mut bounced = settlement(&job, TWO.map(|to| (to, failed())).into());
    bounced.bounces = vec![mail(9, &["app@corp.example"])];
    assert_eq!(store.settle(bounced, at(2)).await.unwrap(), Kept::Written);
    // Its bounce waits with it.
    assert!(claim(&store, node, 9, at(9)).await.is_empty());
    assert_eq!(store.remote().unwrap().unwritten, 1);
    site.comes(&store).await;
    assert_eq!(looks(&*store, id(1)).await.0, JobState::Failed);
    let bounce = claim(&store, node, 9, at(9)).await;
    assert_eq!(bounce.len(), 1);
    assert_eq!(bounce[0].message.id, id(9));
    assert_eq!(store.health(), Health::Fine);
}

/// There is room for so much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn what_is_spilled_has_a_size() {
    let site = Site::new();
    let size = mail(1, &TWO).message.size() * 3;
    let small = SpillSettings { size, ..SPILLS };
    let store = site.open(small).await.unwrap();
    let node = node(&store).await;
    insert(&store, 1).await;
    let job = claim(&store, node, 1, at(0)).await.remove(0);
    site.goes(&store).await;
    for n in 2..=4 {
        assert_eq!(store.health(), Health::Fine);
        insert(&store, n).await;
    }
    assert_eq!(store.health(), Health::Full);
    let refused = store.insert(&mail(5, &TWO), &[], at(0)).await;
    assert!(matches!(refused, Err(StoreError::Full)));
    // What is over has room, and makes some.
    assert_eq!(settle(&store, &job, done()).await, Kept::Written);
    let sent = claim(&store, node, 1, at(0)).await.remove(0);
    settle(&store, &sent, done()).await;
    until("it was counted", async || store.health() == Health::Fine).await;
    insert(&store, 5).await;
    site.comes(&store).await;
    assert_eq!(store.stats().await.unwrap().waiting, 3);
}

/// Commits that are cut off, before the server has them and after: one message, one answer, one copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_commit_that_is_cut_off_is_one_copy() {
    for cut in [Cut::Before, Cut::After] {
        let (site, store, node) = begun().await;
        insert(&store, 1).await;
        let job = claim(&store, node, 1, at(0)).await.remove(0);
        settle(&store, &job, done()).await;
        for n in 2..5 {
            // The connection comes back: it is asked again.
            site.cutter.cut(cut, 1);
            insert(&store, n).await;
            assert_eq!(site.cutter.left(), 0);
        }
        assert_eq!(store.remote().unwrap().spilled, 0);
        // It does not: nobody knows, and nobody sends it before that is known.
        site.cutter.cut(cut, 1);
        let begun = Instant::now();
        let fast = mail(5, &TWO);
        let start = Start::Now(node, ConnectorName::from("up"));
        let starts = [start];
        let inserting = store.insert(&fast, &starts, at(0));
        let shutting = async {
            until("the cut", async || site.cutter.left() == 0).await;
            site.cutter.shut(true);
        };
        let (inserted, ()) = tokio::join!(inserting, shutting);
        assert!(begun.elapsed() > Duration::from_secs(9));
        assert!(inserted.unwrap().leases.is_empty());
        assert!(claim(&store, node, 9, at(9)).await.is_empty(), "{cut:?}");
        assert_eq!(store.remote().unwrap().spilled, 1);
        // Not after a start either.
        insert(&store, 6).await;
        drop(store);
        let store = site.open(SPILLS).await.unwrap();
        let jobs = claim(&store, node, 9, at(9)).await;
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].message.id, id(6));
        settle(&store, &jobs[0], done()).await;
        site.comes(&store).await;
        let node = self::node(&store).await;
        let mut sent: Vec<MessageId> = claim(&store, node, 99, at(9))
            .await
            .iter()
            .map(|job| job.message.id)
            .collect();
        sent.sort_by_key(|id| id.to_bytes());
        assert_eq!(sent, [id(2), id(3), id(4), id(5)], "{cut:?}");
    }
}

/// A lease that nobody has is given back, without a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_lease_of_which_nobody_heard_is_given_back() {
    let (site, store, node) = begun().await;
    insert(&store, 1).await;
    site.cutter.cut(Cut::After, 1);
    let fast = mail(5, &TWO);
    let starts = [Start::Now(node, ConnectorName::from("up"))];
    let shutting = async {
        until("the cut", async || site.cutter.left() == 0).await;
        site.cutter.shut(true);
    };
    let (inserted, ()) = tokio::join!(store.insert(&fast, &starts, at(0)), shutting);
    assert!(inserted.unwrap().leases.is_empty());
    site.comes(&store).await;
    until("it may be claimed", async || {
        store.beat(&Standing::of(node)).await.unwrap();
        store.stats().await.unwrap().waiting == 2
    })
    .await;
    assert_eq!(claim(&store, node, 9, at(9)).await.len(), 2);
}

/// Ends anywhere on the way back, and begins again: every message is there once, every outcome was written once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn an_end_at_any_step_of_the_return_loses_nothing() {
    let mut ended = 0;
    for steps in 1.. {
        let (site, store, node) = begun().await;
        for n in 1..=5 {
            insert(&store, n).await;
        }
        let sent = claim(&store, node, 4, at(0)).await;
        site.goes(&store).await;
        for n in 6..=8 {
            insert(&store, n).await;
        }
        let here = claim(&store, node, 1, at(0)).await;
        settle(&store, &here[0], deferred()).await;
        settle(&store, &sent[0], done()).await;
        settle(&store, &sent[1], deferred()).await;
        let mut doubtful = settlement(&sent[2], TWO.map(|to| (to, in_doubt())).into());
        doubtful.in_doubt = Some((ConnectorName::from("up"), at(300)));
        store.settle(doubtful, at(2)).await.unwrap();
        let mut bounced = settlement(&sent[3], TWO.map(|to| (to, failed())).into());
        bounced.bounces = vec![mail(9, &["app@corp.example"])];
        store.settle(bounced, at(2)).await.unwrap();
        store.end_after(steps);
        site.cutter.shut(false);
        until("the end", async || {
            let lies_here = store.local().spilled().await.unwrap();
            store.has_ended() || (lies_here.messages, lies_here.outcomes) == (0, 0)
        })
        .await;
        let is_over = !store.has_ended();
        ended += usize::from(!is_over);
        drop(store);
        let store = site.open(SPILLS).await.unwrap();
        let node = self::node(&store).await;
        is_home(&store).await;
        assert_eq!(looks(&*store, sent[0].message.id).await.0, JobState::Done);
        let (state, recipients) = looks(&*store, sent[2].message.id).await;
        assert_eq!(state, JobState::Waiting);
        assert_eq!(recipients, ["a@x.example in doubt", "b@x.example in doubt"]);
        assert_eq!(looks(&*store, sent[3].message.id).await.0, JobState::Failed);
        let jobs = claim(&store, node, 99, at(100)).await;
        let mut all: Vec<_> = jobs
            .iter()
            .map(|job| (job.message.id, job.attempts))
            .collect();
        all.sort_by_key(|(id, _)| id.to_bytes());
        let deferred_here = here[0].message.id;
        let attempts = |id| u32::from(id == sent[1].message.id || id == deferred_here);
        let waits: Vec<MessageId> = (1..=9)
            .map(id)
            .filter(|id| {
                ![0, 2, 3]
                    .iter()
                    .any(|at: &usize| sent[*at].message.id == *id)
            })
            .collect();
        let expected: Vec<_> = waits.iter().map(|id| (*id, attempts(*id))).collect();
        assert_eq!(all, expected, "{steps}");
        assert!(jobs.iter().all(|job| job.lease.node == node));
        if is_over {
            break;
        }
    }
    assert!(ended > 6, "{ended} steps");
}

/// A job whose outcome could not be written is over for this node, though it starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn what_was_sent_is_not_sent_again_by_the_next_start() {
    for cut in [Cut::Before, Cut::After] {
        let (site, store, node) = begun().await;
        for n in 1..=2 {
            insert(&store, n).await;
        }
        let jobs = claim(&store, node, 2, at(0)).await;
        site.cutter.cut(cut, 1);
        let settling = settle(&store, &jobs[0], done());
        let shutting = async {
            until("the cut", async || site.cutter.left() == 0).await;
            site.cutter.shut(true);
        };
        let (kept, ()) = tokio::join!(settling, shutting);
        assert_eq!(kept, Kept::Written);
        settle(&store, &jobs[1], done()).await;
        assert_eq!(store.remote().unwrap().unwritten, 2);
        drop(store);
        site.cutter.shut(false);
        let store = site.open(SPILLS).await.unwrap();
        let node = self::node(&store).await;
        assert!(claim(&store, node, 9, at(999)).await.is_empty());
        for n in 1..=2 {
            assert_eq!(looks(&*store, id(n)).await.0, JobState::Done, "{cut:?}");
        }
    }
}

/// What lies here is seen and obeys; what is in the database is not, while that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn verbs_and_lists_while_it_is_away() {
    let (site, store, node) = begun().await;
    insert(&store, 1).await;
    site.goes(&store).await;
    insert(&store, 2).await;
    let all = store.list(&Filter::default(), at(0)).await.unwrap();
    assert_eq!(all.len(), 1);
    let verb = store.command(&only(id(1)), &Verb::Hold, at(1)).await;
    assert!(matches!(verb, Err(StoreError::Away(_))), "{verb:?}");
    let verb = store.command(&only(id(2)), &Verb::Hold, at(1)).await;
    assert_eq!(verb.unwrap(), 1);
    assert!(claim(&store, node, 9, at(9)).await.is_empty());
    site.comes(&store).await;
    assert_eq!(looks(&*store, id(2)).await.0, JobState::Held);
    assert_eq!(looks(&*store, id(1)).await.0, JobState::Waiting);
}
