//! What only the store over two can be asked: a database that goes, and comes back to what was taken and done meanwhile.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use postern::{
    mail::{
        message::{Body, MessageId},
        outcome::LaneState,
    },
    queue::{
        event::EventKind,
        postgres::{self, OpenError, PostgresStore, Server},
        spill::{SpillSettings, SpillStore},
        store::{
            Ask, Commanded, Filter, Health, Job, JobState, Kept, LaneRow, Lease, NodeId, Search,
            Settled, Standing, Start, Store, StoreError, Verb,
        },
    },
    route::{ConnectorName, LaneId, Routed},
};

use crate::{
    harness::{
        postgres::{Cut, Postgres},
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
        // It is seen all the same, and no verb changes that nobody sends it.
        assert_eq!(store.stats().await.unwrap().waiting, 1);
        let waiting = Filter {
            states: vec![JobState::Waiting],
            ..Filter::default()
        };
        assert_eq!(store.list(&waiting, at(9)).await.unwrap().len(), 1);
        let search = Search {
            filter: waiting.clone(),
            limit: 9,
            ..Search::default()
        };
        assert_eq!(store.search(&search).await.unwrap().entries.len(), 1);
        let verb = store.command(&waiting, &Verb::Retry, at(9)).await;
        assert!(matches!(verb, Err(StoreError::Away(_))), "{verb:?}");
        assert!(claim(&store, node, 9, at(9)).await.is_empty(), "{cut:?}");
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

/// Until it was done.
async fn took(begun: Instant, work: impl Future<Output = ()>) -> Duration {
    work.await;
    begun.elapsed()
}

/// Nothing comes through, and nothing ends: only who may have been heard waits for ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn nobody_waits_for_one_that_says_nothing() {
    let mut site = Site::new();
    let patience = Duration::from_secs(2);
    site.settings.patience = patience;
    let store = site.open(SPILLS).await.unwrap();
    let node = node(&store).await;
    for n in 1..=2 {
        insert(&store, n).await;
    }
    let job = claim(&store, node, 1, at(0)).await.remove(0);
    site.cutter.silence();
    let begun = Instant::now();
    let (unsure, settled, looked, claimed, told) = tokio::join!(
        took(begun, async {
            insert(&store, 3).await;
        }),
        took(begun, async {
            assert_eq!(settle(&store, &job, done()).await, Kept::Written);
        }),
        took(begun, async {
            assert!(store.due(at(0)).await.unwrap().is_empty());
        }),
        took(begun, async {
            assert!(claim(&store, node, 9, at(0)).await.is_empty());
        }),
        took(begun, async {
            let beat = store.beat(&Standing::of(node)).await;
            assert!(matches!(beat, Err(StoreError::Away(_))), "{beat:?}");
        }),
    );
    let soon = patience + Duration::from_secs(2);
    for took in [settled, looked, claimed, told] {
        assert!(took < soon, "{took:?}");
    }
    assert!(unsure < Duration::from_secs(13), "{unsure:?}");
    // From now on nobody waits.
    let begun = Instant::now();
    insert(&store, 4).await;
    let jobs = claim(&store, node, 9, at(0)).await;
    assert!(jobs.iter().any(|job| job.message.id == id(4)));
    for job in &jobs {
        settle(&store, job, done()).await;
    }
    assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
    site.comes(&store).await;
    until("its node", async || {
        store.beat(&Standing::of(node)).await.is_ok()
    })
    .await;
    let mut left = vec![id(1), id(2), id(3)];
    // The third was sent from here, if it had certainly not been written.
    left.retain(|id| *id != job.message.id && jobs.iter().all(|sent| sent.message.id != *id));
    let mut sent: Vec<MessageId> = claim(&store, node, 9, at(9))
        .await
        .iter()
        .map(|job| job.message.id)
        .collect();
    sent.sort_by_key(|id| id.to_bytes());
    assert_eq!(sent, left);
}

/// The database refuses such messages, with this code.
fn refuse(site: &Site, which: &str, code: &str) {
    let schema = site.settings.schema.replace('"', "\"\"");
    Postgres::shared().sql(
        "postern",
        &format!(
            "CREATE OR REPLACE FUNCTION \"{schema}\".refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF {which} THEN RAISE EXCEPTION ''no'' USING ERRCODE = ''{code}''; END IF; RETURN NEW; END';
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON \"{schema}\".message FOR EACH ROW
             EXECUTE FUNCTION \"{schema}\".refuse()"
        ),
    );
}

/// A database whose disk is full answers, and takes nothing: it is left alone for a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_database_whose_disk_is_full_is_away() {
    let (site, store, node) = begun().await;
    refuse(&site, "true", "53100");
    insert(&store, 1).await;
    let away = store.remote().unwrap().away.unwrap();
    assert_eq!(away.1, "its disk is full");
    assert_eq!(store.health(), Health::Fine);
    let job = claim(&store, node, 9, at(0)).await.remove(0);
    assert_eq!(job.lease.node, NODE);
    settle(&store, &job, deferred()).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let now = store.remote().unwrap().away;
        assert_eq!(now.map(|away| away.0), Some(away.0), "it stays away");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    refuse(&site, "false", "53100");
    is_home(&store).await;
    assert_eq!(looks(&*store, id(1)).await.0, JobState::Waiting);
}

/// What the database does not take for what it is stays, and is sent from here; the others go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn one_that_the_database_refuses_holds_up_nobody() {
    let (site, store, node) = begun().await;
    refuse(&site, "NEW.size > 100", "P0001");
    site.goes(&store).await;
    for n in 1..=2 {
        insert(&store, n).await;
    }
    let large = mail_with(3, &TWO, Body::Memory("x".repeat(200).into()));
    store.insert(&large, &[], at(0)).await.unwrap();
    insert(&store, 4).await;
    site.cutter.shut(false);
    until("the others", async || {
        let is_here = store.remote().unwrap().away.is_none();
        is_here && store.local().spilled().await.unwrap().messages == 1
    })
    .await;
    let mut all = Vec::new();
    until("all four", async || {
        all.extend(claim(&store, node, 9, at(0)).await);
        all.len() == 4
    })
    .await;
    for job in &all {
        let is_here = job.lease.node == NODE;
        assert_eq!(is_here, job.message.id == id(3));
        assert_eq!(settle(&store, job, done()).await, Kept::Written);
    }
    assert_eq!(store.stats().await.unwrap().sending, 0);
}

/// Others had taken over meanwhile: what was delivered counts until one of them has claimed it, and then it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn an_outcome_that_comes_late() {
    let (site, store, node) = begun().await;
    for n in 1..=2 {
        insert(&store, n).await;
    }
    let mut jobs = claim(&store, node, 2, at(0)).await;
    jobs.sort_by_key(|job| job.message.id.to_bytes());
    site.goes(&store).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = postgres::Settings {
        data_dir: dir.path().join("data"),
        hosts: vec![Server::Host(
            "127.0.0.1".to_owned(),
            Postgres::shared().port,
        )],
        ..site.settings.clone()
    };
    let other = PostgresStore::open(settings).await.unwrap();
    let standing = Standing {
        name: "two".to_owned(),
        ..Standing::default()
    };
    let two = other.beat(&standing).await.unwrap();
    let silent = two.nodes.iter().find(|row| row.id == node).unwrap();
    assert!(other.take_over(silent, at(300), at(10)).await.unwrap());
    let pinned = vec![Ask {
        pinned: Some(ConnectorName::from("up")),
        ..ask(1).remove(0)
    }];
    let asks = [ask(1), pinned].concat();
    let again = other.claim(&asks, two.node, at(300)).await.unwrap();
    assert_eq!(again.len(), 1);
    for job in &jobs {
        assert_eq!(settle(&store, job, done()).await, Kept::Written);
    }
    site.comes(&store).await;
    for job in &jobs {
        let (state, _) = looks(&*store, job.message.id).await;
        let is_claimed = job.message.id == again[0].message.id;
        let told = store.events(job.message.id).await.unwrap();
        let is_told = told.iter().any(|event| event.text.contains("sent twice"));
        assert_eq!(is_told, is_claimed, "{told:?}");
        let expected = if is_claimed {
            JobState::Sending
        } else {
            JobState::Done
        };
        assert_eq!(state, expected);
    }
    assert_eq!(store.remote().unwrap().unwritten, 0);
}

/// `store = "postgres"` after `"sqlite"`: the queue moves, its history stays; a file of the schema before will do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_queue_in_one_file_moves_into_the_database() {
    let site = Site::new();
    {
        let before = crate::store::open(site.dir.path());
        for n in 1..=250 {
            before.insert(&mail(n, &TWO), &[], at(0)).await.unwrap();
        }
        let job = before.claim(&ask(1), NODE, at(0)).await.unwrap().remove(0);
        assert_eq!(job.message.id, id(1));
        let settled = settlement(&job, TWO.map(|to| (to, done())).into());
        before.settle(settled, at(1)).await.unwrap();
        let stopped = |name: &str, state| LaneRow {
            lane: LaneId::parse(name),
            state,
            since: at(1),
            why: "by somebody".to_owned(),
            probe: None,
            version: 0,
            node: NodeId(0),
        };
        let (up, down) = (
            stopped("up", LaneState::Stopped),
            stopped("down", LaneState::Closed),
        );
        assert!(before.set_lane(up).await.unwrap() && before.set_lane(down).await.unwrap());
        // This one is being sent when it ends.
        before.claim(&ask(1), NODE, at(0)).await.unwrap();
    }
    let raw = rusqlite::Connection::open(site.dir.path().join("data/queue.db")).unwrap();
    raw.execute_batch("DROP TABLE outcome; PRAGMA user_version = 5")
        .unwrap();
    raw.execute_batch(crate::store::WITHOUT_DSN).unwrap();
    drop(raw);
    let store = site.open(SPILLS).await.unwrap();
    is_home(&store).await;
    let node = node(&store).await;
    let jobs = claim(&store, node, 999, at(0)).await;
    let messages: BTreeMap<_, _> = jobs
        .iter()
        .map(|job| (job.message.id.to_bytes(), job.lease.node))
        .collect();
    assert_eq!((jobs.len(), messages.len()), (249, 249));
    assert!(messages.values().all(|of| *of == node));
    assert!(!store.events(id(1)).await.unwrap().is_empty());
    let lanes = store.lanes().await.unwrap();
    assert_eq!(lanes.len(), 1, "what was closed is found out anew");
    assert_eq!(lanes[0].state, LaneState::Stopped);
    let interrupted = store.events(id(2)).await.unwrap();
    assert!(interrupted.iter().any(|e| e.kind == EventKind::Interrupted));
    let all = store.list(&Filter::default(), at(0)).await.unwrap();
    assert_eq!(all.len(), 250);
}

/// Lanes and what gateways share are the database's, and remembered here; what a gateway says of itself is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn lanes_and_notes_without_the_database() {
    const TOKEN: &str = "refresh token of x at y from z";
    let (site, store, _) = begun().await;
    let stopped = LaneRow {
        lane: LaneId::parse("up"),
        state: LaneState::Stopped,
        since: at(1),
        why: "by somebody".to_owned(),
        probe: Some(at(9)),
        version: 0,
        node: NodeId(0),
    };
    assert!(store.set_lane(stopped.clone()).await.unwrap());
    assert!(!store.set_lane(stopped.clone()).await.unwrap());
    store.set_note(TOKEN, "sealed".to_owned()).await.unwrap();
    store.set_note("gateway", "well".to_owned()).await.unwrap();
    let note = store.local().note("gateway").await.unwrap();
    assert_eq!(note.as_deref(), Some("well"));
    let none = format!("{TOKEN} other");
    assert_eq!(store.note(&none).await.unwrap(), None);
    drop(store);
    site.cutter.shut(true);
    let store = site.open(SPILLS).await.unwrap();
    let expected = LaneRow {
        version: 1,
        ..stopped.clone()
    };
    assert_eq!(store.lanes().await.unwrap(), [expected]);
    let written = store.set_lane(stopped).await;
    assert!(matches!(written, Err(StoreError::Away(_))), "{written:?}");
    assert_eq!(store.note(TOKEN).await.unwrap().as_deref(), Some("sealed"));
    assert_eq!(store.note(&none).await.unwrap(), None, "it was looked for");
    let unseen = store.note(&format!("{TOKEN} third")).await;
    assert!(matches!(unseen, Err(StoreError::Away(_))), "{unseen:?}");
    let written = store.set_note(TOKEN, "other".to_owned()).await;
    assert!(matches!(written, Err(StoreError::Away(_))), "{written:?}");
    store.set_note("gateway", "fair".to_owned()).await.unwrap();
    let note = store.note("gateway").await.unwrap();
    assert_eq!(note.as_deref(), Some("fair"));
    site.comes(&store).await;
    store.set_note(TOKEN, "other".to_owned()).await.unwrap();
}

/// What is being sent from here is in the pages, too, each message once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn pages_and_verbs_of_both() {
    let (site, store, node) = begun().await;
    for n in 1..=3 {
        insert(&store, n).await;
    }
    site.goes(&store).await;
    for n in 4..=5 {
        insert(&store, n).await;
    }
    let here = claim(&store, node, 9, at(0)).await;
    assert_eq!(here.len(), 2);
    site.comes(&store).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.waiting, stats.sending), (3, 2));
    let mut search = Search {
        limit: 2,
        ..Search::default()
    };
    let mut all = Vec::new();
    loop {
        let found = store.search(&search).await.unwrap();
        all.extend(found.entries.iter().map(|entry| entry.id.to_bytes()));
        let Some(next) = found.next else { break };
        search.from = Some(next.to_string().parse().unwrap());
    }
    all.sort_unstable();
    let expected: Vec<_> = (1..=5).map(|n| id(n).to_bytes()).collect();
    assert_eq!(all, expected);
    let every = Filter::default();
    let listed = store.list(&every, at(0)).await.unwrap();
    assert_eq!(listed.len(), 5);
    for wrong in [0, 2, 3, 6] {
        let done = store.command_if(&every, &Verb::Hold, Some(wrong), at(2));
        assert_eq!(done.await.unwrap(), Commanded::Unexpected(5), "{wrong}");
    }
    let done = store.command_if(&every, &Verb::Hold, Some(5), at(2)).await;
    assert_eq!(done.unwrap(), Commanded::Taken(5));
    // A wish on what is being sent from here is obeyed, and moves with it.
    for job in &here {
        settle(&store, job, deferred()).await;
    }
    is_home(&store).await;
    for n in 1..=5 {
        assert_eq!(looks(&*store, id(n)).await.0, JobState::Held, "{n}");
    }
}
