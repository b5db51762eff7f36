//! A database that is not what its nodes have made of it: rows of nodes are missing, their numbers are given again, or it is what it was a
//! while ago.

use std::time::Duration;

use postern::{
    queue::{
        event::EventKind,
        postgres::Settings,
        store::{JobState, NodeRow, Retention, Standing, Start, Store},
    },
    route::ConnectorName,
};

use crate::{
    harness::postgres::Postgres,
    postgres::{Member, member, settings},
    store::{at, done, looks, mail},
};

/// As the superuser, in the schema of the store.
fn sql(settings: &Settings, sql: &str) -> String {
    let schema = settings.schema.replace('"', "\"\"");
    let sql = format!("SET search_path = \"{schema}\"; {sql}");
    Postgres::shared().sql("postern", &sql)
}

async fn beat_as(member: &Member, name: &str) -> Vec<NodeRow> {
    let standing = Standing {
        name: name.to_owned(),
        ..Standing::of(member.node)
    };
    member.store.beat(&standing).await.unwrap().nodes
}

fn names(nodes: &[NodeRow]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

/// What a node has leased whose row somebody has deleted is taken over like that of one which is gone.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_is_leased_to_a_number_without_a_node_is_taken_over() {
    let settings = settings();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let sent = one.insert(1).await;
    assert_eq!(one.claim(9, at(1)).await.len(), 1);
    let fast = mail(2, &["a@x.example"]);
    let start = Start::Now(one.node, ConnectorName::from("up"));
    one.store.insert(&fast, &[start], at(1)).await.unwrap();
    let own = two.insert(3).await;
    assert_eq!(two.claim(9, at(1)).await[0].message.id, own.message.id);
    sql(&settings, "DELETE FROM node WHERE name = 'one'");
    two.store
        .maintain(&Retention::default(), at(10))
        .await
        .unwrap();
    // Due after the time that mail in doubt waits, ten minutes where nobody has said; on the connector that had it.
    let due = at(10) + Duration::from_mins(10);
    let before = due - Duration::from_secs(1);
    assert!(two.claim_pinned(before).await.is_empty());
    let jobs = two.claim_pinned(due).await;
    let mut found: Vec<_> = jobs.iter().map(|job| job.message.id).collect();
    found.sort();
    assert_eq!(found, [sent.message.id, fast.message.id]);
    assert_eq!(
        looks(&*two.store, own.message.id).await.0,
        JobState::Sending
    );
    let events = two.store.events(sent.message.id).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!(
        (last.kind, last.text.as_str()),
        (
            EventKind::InDoubt,
            "a gateway that is not known any more was sending this; it may arrive twice [two]"
        )
    );
}

/// Alone or among others, a node whose row is missing hears that it is none, and begins anew.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_node_without_a_row_hears_that_it_is_none() {
    let settings = settings();
    let one = member(&settings, "one").await;
    sql(&settings, "DELETE FROM node");
    assert_eq!(names(&beat_as(&one, "one").await), [""; 0]);
    let again = Standing {
        name: "one".to_owned(),
        ..Standing::default()
    };
    let again = one.store.beat(&again).await.unwrap();
    assert_ne!(again.node, one.node);
    assert_eq!(names(&again.nodes), ["one"]);
}

/// Two that have the same number: the one that it was not given to notices, and the other one is not heard by its beats.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_number_that_is_given_again_is_one_gateways() {
    let settings = settings();
    let one = member(&settings, "one").await;
    let fresh = "DELETE FROM node; ALTER TABLE node ALTER COLUMN id RESTART WITH";
    sql(&settings, &format!("{fresh} {}", one.node.0));
    let two = member(&settings, "two").await;
    assert_eq!(two.node, one.node);
    let seen = || sql(&settings, "SELECT seen FROM node");
    let before = seen();
    assert_eq!(names(&beat_as(&one, "one").await), [""; 0]);
    assert_eq!(seen(), before);
    assert_eq!(names(&beat_as(&two, "two").await), ["two"]);
    let again = Standing {
        name: "one".to_owned(),
        ..Standing::default()
    };
    let again = one.store.beat(&again).await.unwrap();
    assert_ne!(again.node, two.node);
}

/// The database is what it was a while ago, the row of the node among it: what it had leased then it may have settled since, so it begins
/// anew, and all of that is due again.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_node_notices_that_the_database_has_gone_back() {
    let settings = settings();
    let one = member(&settings, "one").await;
    let sent = one.insert(1).await;
    let job = one.claim(9, at(1)).await.remove(0);
    let tables = ["node", "job", "recipient", "message", "event"];
    let kept = tables.map(|table| format!("CREATE TABLE kept_{table} AS TABLE {table};"));
    sql(&settings, &kept.concat());
    assert_eq!(names(&beat_as(&one, "one").await), ["one"]);
    one.settle(&job, done()).await;
    assert_eq!(looks(&*one.store, sent.message.id).await.0, JobState::Done);
    assert_eq!(names(&beat_as(&one, "one").await), ["one"]);
    let back = tables.map(|table| {
        format!(
            "DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{table};"
        )
    });
    sql(&settings, &back.concat());
    assert_eq!(
        looks(&*one.store, sent.message.id).await.0,
        JobState::Sending
    );
    assert_eq!(names(&beat_as(&one, "one").await), [""; 0]);
    let again = Standing {
        name: "one".to_owned(),
        ..Standing::default()
    };
    one.store.beat(&again).await.unwrap();
    assert_eq!(
        looks(&*one.store, sent.message.id).await.0,
        JobState::Waiting
    );
}
