//! Messages on their way from the queue in one file into the one in PostgreSQL.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use postern::{
    mail::message::MessageId,
    queue::{
        postgres::{PostgresStore, Settings},
        sqlite::SqliteStore,
        store::{Entry, Filter, Job, JobState, NodeId, Standing, Start, Store, Verb},
    },
    route::{ConnectorName, LaneId},
};

use crate::{
    harness::postgres::Postgres,
    store::{
        NODE, ask, at, deferred, done, failed, in_doubt, looks, mail, mail_with, only, open,
        settlement,
    },
};

/// Messages in every state that there is.
pub(crate) const ALL: u128 = 8;

pub(crate) fn id(n: u128) -> MessageId {
    mail(n, &[]).message.id
}

async fn first(store: &SqliteStore, now: SystemTime) -> Job {
    store.claim(&ask(1), NODE, now).await.unwrap().remove(0)
}

/// One of each kind: it waits, waits for a lane, is held, was deferred, is half delivered, in doubt, given up, and large.
pub(crate) async fn fill(store: &SqliteStore) {
    let two = ["a@x.example", "b@x.example"];
    for n in 3..=7 {
        store.insert(&mail(n, &two), &[], at(0)).await.unwrap();
    }
    store
        .command(&only(id(3)), &Verb::Hold, at(1))
        .await
        .unwrap();
    let settle = async |each: [_; 2]| {
        let job = first(store, at(1)).await;
        let mut settlement = settlement(&job, two.into_iter().zip(each).collect());
        settlement.in_doubt = Some((ConnectorName::from("up"), at(300)));
        store.settle(settlement, at(2)).await.unwrap();
    };
    settle([deferred(), deferred()]).await;
    settle([done(), deferred()]).await;
    settle([in_doubt(), done()]).await;
    settle([failed(), done()]).await;
    store.insert(&mail(1, &two), &[], at(0)).await.unwrap();
    let lane = Start::In(LaneId::parse("up/m"));
    store.insert(&mail(2, &two), &[lane], at(0)).await.unwrap();
    let mut body = store.bodies().writer(id(8));
    body.append(&b"0123456789".repeat(150_000)).await.unwrap();
    let large = mail_with(8, &two, body.finish().await.unwrap());
    store.insert(&large, &[], at(0)).await.unwrap();
}

/// All that can be asked about a message.
async fn told(store: &dyn Store, n: u128) -> Vec<String> {
    let filter = Filter {
        states: JobState::ALL.to_vec(),
        ..only(id(n))
    };
    let entries: Vec<Entry> = store.list(&filter, at(5)).await.unwrap();
    let mut told: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    for event in store.events(id(n)).await.unwrap() {
        told.push(format!("{event:?}"));
    }
    let message = store.content(id(n)).await.unwrap().unwrap();
    let mut body = message.body.open().await.unwrap();
    let mut octets = Vec::new();
    while let Some(piece) = body.next().await.unwrap() {
        octets.extend_from_slice(&piece);
    }
    let hash = octets
        .iter()
        .fold(0_u64, |sum, octet| sum.rotate_left(5) ^ u64::from(*octet));
    told.push(format!(
        "{:?} {:?} {:?} {} {hash}",
        message.envelope,
        message.origin,
        message.header,
        octets.len()
    ));
    told
}

async fn everything(store: &dyn Store) -> BTreeMap<u128, Vec<String>> {
    let mut all = BTreeMap::new();
    for n in 1..=ALL {
        all.insert(n, told(store, n).await);
    }
    all
}

async fn remote() -> (Arc<PostgresStore>, NodeId, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let settings: Settings = Postgres::shared().settings(&dir.path().join("data"));
    let store = PostgresStore::open(settings).await.unwrap();
    // Without a name, which lists and lives would show.
    let standing = Standing {
        dead_after: Duration::from_mins(1),
        ..Standing::default()
    };
    let node = store.beat(&standing).await.unwrap().node;
    (store, node, dir)
}

/// What is due of it here, claimed.
async fn claimed(store: &dyn Store, node: NodeId, now: SystemTime) -> usize {
    store.claim(&ask(100), node, now).await.unwrap().len()
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_arrives_is_what_left() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    fill(&local).await;
    let before = everything(&*local).await;
    let (remote, node, _dir) = remote().await;
    let (mut after, mut left) = (0, Vec::new());
    loop {
        let (batch, last) = local.leave(after, 3).await.unwrap();
        let Some(last) = last else { break };
        after = last;
        let ids: Vec<MessageId> = batch.iter().map(|moving| moving.message.id).collect();
        // An answer that was lost: it is said again.
        remote.arrive(batch.clone(), at(5)).await.unwrap();
        remote.arrive(batch, at(5)).await.unwrap();
        left.extend(ids);
    }
    assert_eq!(left.len() as u128, ALL);
    // On their way they are there, and sent by nobody here.
    assert_eq!(claimed(&*local, NODE, at(1_000)).await, 0);
    assert_eq!(looks(&*local, id(1)).await.0, JobState::Waiting);
    local.left(left).await.unwrap();
    assert_eq!(everything(&*remote).await, before);
    for n in 1..=ALL {
        assert!(local.content(id(n)).await.unwrap().is_none(), "{n}");
        assert!(local.events(id(n)).await.unwrap().is_empty(), "{n}");
    }
    let bodies = std::fs::read_dir(dir.path().join("data/spool")).unwrap();
    assert_eq!(bodies.count(), 0);
    // They are sent from there, but for the one that is held, the one that failed and those that wait elsewhere.
    assert_eq!(claimed(&*remote, node, at(1_000)).await, 4);
    // And new ones are taken here, by the same ids.
    local
        .insert(&mail(1, &["a@x.example"]), &[], at(6))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn an_end_on_the_way_leaves_one_that_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, _, _dir) = remote().await;
    let local = open(dir.path());
    fill(&local).await;
    let before = everything(&*local).await;
    // One is being sent: it stays until that is over.
    let sent = first(&local, at(3)).await;
    let (batch, _) = local.leave(0, 100).await.unwrap();
    assert_eq!(batch.len() as u128, ALL - 1);
    assert!(batch.iter().all(|one| one.message.id != sent.message.id));
    remote.arrive(batch, at(5)).await.unwrap();
    // It ends before it has forgotten them.
    drop(local);
    let local = open(dir.path());
    local.beat(&Standing::default()).await.unwrap();
    let here = local.claim(&ask(100), NODE, at(1_000)).await.unwrap();
    let here: Vec<MessageId> = here.iter().map(|job| job.message.id).collect();
    assert_eq!(here, [sent.message.id]);
    let (again, _) = local.leave(0, 100).await.unwrap();
    let ids = again.iter().map(|one| one.message.id).collect();
    remote.arrive(again, at(6)).await.unwrap();
    local.left(ids).await.unwrap();
    for (n, expected) in before {
        if id(n) != sent.message.id {
            assert_eq!(told(&*remote, n).await, expected, "{n}");
        }
    }
}

#[tokio::test]
async fn what_did_not_leave_stays() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    fill(&local).await;
    let before = everything(&*local).await;
    let (batch, _) = local.leave(0, 100).await.unwrap();
    assert_eq!(batch.len() as u128, ALL);
    assert_eq!(claimed(&*local, NODE, at(1_000)).await, 0);
    assert!(local.stay().await.unwrap() >= 8);
    assert_eq!(everything(&*local).await, before);
    assert_eq!(claimed(&*local, NODE, at(1_000)).await, 4);
}
