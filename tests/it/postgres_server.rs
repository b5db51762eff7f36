//! The server that a queue is in: ways to it, rights in it, its settings and its clock.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use postern::{
    queue::{
        postgres::{Durability, OpenError, PostgresStore, Server, Settings, examine, script},
        store::{Filter, NodeId, Standing, Stats, Store},
    },
    secret::Secret,
};

use crate::{
    harness::{postgres::Postgres, time::until},
    postgres::{member, settings},
    store::{ask, at, mail},
};

/// The database's own clock was set: whatever node sees it first moves what the queue holds, and nobody moves it twice.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_is_queued_moves_with_the_clock_of_the_database() {
    let (server, settings) = tokio::task::spawn_blocking(|| {
        let server = Postgres::start("");
        let settings = Settings {
            callers_clock: false,
            ..server.settings("/nonexistent".as_ref())
        };
        (server, settings)
    })
    .await
    .unwrap();
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let now = SystemTime::now();
    let sent = mail(1, &["a@x.example", "b@x.example"]);
    one.store.insert(&sent, &[], now).await.unwrap();
    let held = two.store.list(&Filter::default(), now).await.unwrap();
    // In its schema, which is looked through first.
    let schema = settings.schema.replace('"', "\"\"");
    let set = format!(
        "CREATE FUNCTION \"{schema}\".clock_timestamp() RETURNS timestamptz LANGUAGE sql
         AS 'SELECT pg_catalog.clock_timestamp() + interval ''1 hour'''"
    );
    server.sql("postern", &set);
    let end =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'postern'";
    server.sql("postgres", end);
    for _ in 0..3 {
        one.beat().await;
        two.beat().await;
    }
    let moved = two.store.list(&Filter::default(), now).await.unwrap();
    let by = |now: SystemTime, then: SystemTime| now.duration_since(then).unwrap().as_secs_f64();
    let hour = by(moved[0].accepted, held[0].accepted);
    assert!((hour - 3600.0).abs() < 5.0, "moved once by {hour} s");
    assert_eq!(moved[0].next_attempt, Some(moved[0].accepted));
    // For the gateways, whose clocks are as they were, it came when it came.
    let mut jobs = Vec::new();
    while jobs.is_empty() {
        let now = SystemTime::now();
        jobs = one.store.claim(&ask(1), one.node, now).await.unwrap();
    }
    let job = jobs.remove(0);
    let far = job
        .accepted
        .duration_since(now)
        .unwrap_or_else(|e| e.duration());
    assert!(far < Duration::from_secs(30), "{far:?}");
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
}

/// How it gets in: by TLS with a login bound to it, by the socket, by the server that answers; and who does not.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn ways_to_the_server() {
    let server = Postgres::shared();
    let base = settings();
    let dir = tempfile::tempdir().unwrap();
    let base = Settings {
        data_dir: dir.path().join("data"),
        ..base
    };
    let opened = PostgresStore::open(base.clone()).await.unwrap();
    until("a login", async || {
        opened.stats().await.unwrap();
        let question = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'postern' AND s.ssl";
        server.sql("postgres", question) != "0"
    })
    .await;
    let dead = Server::Host("127.0.0.1".to_owned(), crate::harness::peers::free_port());
    let socket = Server::Socket(server.socket().to_owned(), server.port);
    for (hosts, tls) in [
        (
            vec![
                dead.clone(),
                Server::Host("localhost".to_owned(), server.port),
            ],
            Some(server.tls()),
        ),
        (vec![socket], None),
    ] {
        let settings = Settings {
            hosts,
            tls,
            ..base.clone()
        };
        let store = PostgresStore::open(settings).await.unwrap();
        assert_eq!(store.stats().await.unwrap(), Stats::default());
        assert!(store.durability().fsync && store.durability().version.contains('.'));
    }
    let empty = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    let wrong = |change: &dyn Fn(&mut Settings)| {
        let mut settings = base.clone();
        change(&mut settings);
        PostgresStore::open(settings)
    };
    let away = wrong(&|settings| settings.hosts = vec![dead.clone()])
        .await
        .unwrap_err();
    assert!(
        matches!(&away, OpenError::Away(why) if why.contains("refused")),
        "{away}"
    );
    let stranger = wrong(&|settings| settings.tls = Some(Arc::new(empty.clone())))
        .await
        .unwrap_err();
    assert!(
        matches!(&stranger, OpenError::Away(why) if why.contains("TLS: for 127.0.0.1: ")),
        "{stranger}"
    );
    let login = wrong(&|settings| settings.password = Some(Secret::new("other")))
        .await
        .unwrap_err();
    assert!(
        matches!(&login, OpenError::Refused(why) if why.contains("password")),
        "{login}"
    );
    let database = wrong(&|settings| settings.database = "other".to_owned())
        .await
        .unwrap_err();
    assert!(
        matches!(&database, OpenError::Refused(why) if why.contains("other")),
        "{database}"
    );
}

/// Who may not make the schema says what to do; with what that prints he may do all he has to.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn rights_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Settings {
        username: "guest".to_owned(),
        data_dir: dir.path().join("data"),
        ..settings()
    };
    let refused = PostgresStore::open(guest.clone()).await.unwrap_err();
    let expected = "the database lacks schema 2 of Postern: have its owner run what \"postern queue schema\" prints";
    assert_eq!(refused.to_string(), expected);
    Postgres::shared().sql("postern", &script(&guest.schema, "guest"));
    let store = PostgresStore::open(guest.clone()).await.unwrap();
    store.beat(&Standing::default()).await.unwrap();
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    assert_eq!(
        store.list(&Filter::default(), at(0)).await.unwrap().len(),
        1
    );
    // A command makes no schema.
    let command = Settings {
        migrates: false,
        schema: "none".to_owned(),
        ..settings()
    };
    let refused = PostgresStore::open(Settings {
        data_dir: guest.data_dir,
        ..command
    })
    .await
    .unwrap_err();
    assert_eq!(refused.to_string(), expected);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_newer_schema_is_used_as_far_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        data_dir: dir.path().join("data"),
        ..settings()
    };
    drop(PostgresStore::open(settings.clone()).await.unwrap());
    let table = format!("\"{}\".schema", settings.schema.replace('"', "\"\""));
    let sql = |sql: &str| Postgres::shared().sql("postern", &format!("UPDATE {table} SET {sql}"));
    sql("version = 3");
    PostgresStore::open(settings.clone()).await.unwrap();
    sql("version = 4, readable_by = 3");
    let refused = PostgresStore::open(settings.clone()).await.unwrap_err();
    let here = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "the queue was written by a newer postern (schema 4, where this one knows 2); this is {here}: nothing was touched"
    );
    assert!(
        matches!(&refused, OpenError::Refused(why) if *why == expected),
        "{refused}"
    );
    // The one that wrote it stood among the members.
    let node = format!("\"{}\".node", settings.schema.replace('"', "\"\""));
    Postgres::shared().sql(
        "postern",
        &format!(
            "INSERT INTO {node} (name, token, version, config_hash, started, seen, dead_after, knew, draining, apart)
             VALUES ('new', 't', '0.4.0', '', 0, 0, 1, 0, false, false)"
        ),
    );
    let refused = PostgresStore::open(settings.clone()).await.unwrap_err();
    let expected =
        format!("the queue was written by postern 0.4.0; this is {here}: nothing was touched");
    assert_eq!(refused.to_string(), expected);
}

/// As the release before left it, mail and all; by the gateway itself, or by the owner of the schema.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn an_older_schema_is_brought_up_to_date_with_its_mail() {
    let older =
        "ALTER TABLE message DROP COLUMN dsn, DROP COLUMN tell_late; UPDATE schema SET version = 1";
    for by_owner in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            data_dir: dir.path().join("data"),
            ..settings()
        };
        let schema = settings.schema.replace('"', "\"\"");
        let sql = |sql: &str| {
            Postgres::shared().sql("postern", &format!("SET search_path = \"{schema}\"; {sql}"))
        };
        let store = PostgresStore::open(settings.clone()).await.unwrap();
        store
            .insert(&mail(1, &["a@x.example"]), &[], at(0))
            .await
            .unwrap();
        drop(store);
        sql(older);
        let command = Settings {
            migrates: false,
            ..settings.clone()
        };
        let refused = PostgresStore::open(command.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("lacks schema 2"), "{refused}");
        // Who may bring it up to date is not told that it is wrong.
        assert_eq!(examine(settings.clone()).await.unwrap().schema, Some(1));
        if by_owner {
            // Twice is as good as once.
            for _ in 0..2 {
                Postgres::shared().sql("postern", &script(&settings.schema, "postern"));
            }
            PostgresStore::open(command).await.unwrap();
        }
        let store = PostgresStore::open(settings.clone()).await.unwrap();
        let kept = store
            .content(mail(1, &[]).message.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.envelope.recipients[0].dsn, None);
        store
            .insert(&mail(2, &["a@x.example"]), &[], at(0))
            .await
            .unwrap();
        let kept = store
            .content(mail(2, &[]).message.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.envelope, mail(2, &["a@x.example"]).message.envelope);
        assert_eq!(
            store.late(at(9), 9).await.unwrap(),
            [mail(2, &[]).message.id]
        );
        // The release before goes on beside it: it names the columns that it knows.
        sql(
            "INSERT INTO message (id, accepted, node, sender, eight_bit, origin, size) VALUES ('\\x00', 0, 0, NULL, false, '{}', 3)",
        );
    }
}

/// Two gateways that start on an empty database at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_schema_is_made_once() {
    let settings = settings();
    let mut all = tokio::task::JoinSet::new();
    for name in ["one", "two", "three", "four"] {
        let settings = settings.clone();
        all.spawn(async move { member(&settings, name).await.node });
    }
    let nodes: HashSet<NodeId> = all.join_all().await.into_iter().collect();
    assert_eq!(nodes.len(), 4);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_does_not_sync_is_refused() {
    let (server, settings) = tokio::task::spawn_blocking(|| {
        let server = Postgres::start("fsync = off\nfull_page_writes = off");
        let settings = server.settings("/nonexistent".as_ref());
        (server, settings)
    })
    .await
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        data_dir: dir.path().join("data"),
        ..settings
    };
    let refused = PostgresStore::open(settings.clone()).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused(why) if why.contains("fsync = off")),
        "{refused}"
    );
    server.sql("postgres", "ALTER SYSTEM SET fsync = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until("the setting", async || {
        server.sql("postgres", "SHOW fsync") == "on"
    })
    .await;
    let store = PostgresStore::open(settings.clone()).await.unwrap();
    let facts = store.durability();
    assert!(facts.fsync && !facts.full_page_writes && !facts.has_standbys);
    assert_eq!(facts.warnings().len(), 2);
    server.sql(
        "postgres",
        "CREATE DATABASE latin OWNER postern ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'",
    );
    let latin = Settings {
        database: "latin".to_owned(),
        ..settings.clone()
    };
    let refused = PostgresStore::open(latin).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused(why) if why.contains("UTF8")),
        "{refused}"
    );
    let quorum = Settings {
        durability: Durability::Quorum,
        ..settings
    };
    let refused = PostgresStore::open(quorum).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused(why) if why.contains("synchronous_standby_names")),
        "{refused}"
    );
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
}

/// Looked at, a database is as it was, and says what a gateway would meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn what_a_look_at_the_database_finds() {
    let base = settings();
    let look = |change: &dyn Fn(&mut Settings)| {
        let mut settings = base.clone();
        change(&mut settings);
        examine(settings)
    };
    let missing = "the database lacks schema 2 of Postern: have its owner run what \"postern queue schema\" prints";
    let found = look(&|_| ()).await.unwrap();
    assert_eq!((found.schema, found.at_work), (None, 0));
    assert_eq!(
        found.server,
        format!("127.0.0.1:{}", Postgres::shared().port)
    );
    assert!(found.facts.fsync && !found.facts.has_standbys);
    let guest = |settings: &mut Settings| settings.username = "guest".to_owned();
    let refused = look(&guest).await.unwrap_err();
    assert_eq!(refused.to_string(), missing);
    // Of three that were there one beats, one has left, and one has fallen silent.
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        members.push(member(&base, name).await);
    }
    let leaving = Standing {
        is_leaving: true,
        ..Standing::of(members[1].node)
    };
    members[1].store.beat(&leaving).await.unwrap();
    let beats = async {
        loop {
            members[0].beat().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let found = tokio::select! {
        found = look(&|_| ()) => found.unwrap(),
        () = beats => unreachable!(),
    };
    assert_eq!((found.schema, found.at_work), (Some(2), 1));
    // Who may use a part of it only.
    let refused = look(&guest).await.unwrap_err();
    assert_eq!(refused.to_string(), missing);
    let schema = base.schema.replace('"', "\"\"");
    let grant = |rights: &str| {
        let tables = format!(
            "GRANT USAGE ON SCHEMA \"{schema}\" TO guest; GRANT {rights} ON ALL TABLES IN SCHEMA \"{schema}\" TO guest"
        );
        Postgres::shared().sql("postern", &tables);
    };
    grant("SELECT, INSERT, UPDATE");
    let refused = look(&guest).await.unwrap_err();
    let words = "the role \"guest\" may not use all of change, chunk,";
    assert!(
        matches!(&refused, OpenError::Refused(why) if why.starts_with(words)),
        "{refused}"
    );
    grant("DELETE");
    look(&guest).await.unwrap();
}
