//! What happens to real databases: one fails over to its standby, loses its standbys, is demoted, has a full disk, or a pooler before it;
//! and the logins that need no password.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern::{
    config::cluster::{
        ClusterSettings, DatabaseDurability, DatabaseHost, DatabaseTls, OnOutage, PostgresSettings,
    },
    connector::Verify,
    gateway::database,
    mail::message::{Body, MessageId},
    queue::{
        postgres::{Durability, OpenError, PostgresStore, Server, Settings},
        store::{Filter, Health, Kept, Standing, Store, StoreError},
    },
};

use crate::{
    harness::{
        peers::small_disk,
        postgres::{Pooler, Postgres},
        time::until,
    },
    postgres::{Member, member},
    store::{at, done, mail, mail_with},
};

/// A server, and another that follows it under the name `second`.
fn pair() -> (Postgres, Postgres) {
    let first = Postgres::start("");
    let second = first.standby("second");
    (first, second)
}

/// Both of them, in the clear: each may be the one.
fn settings_of(servers: &[&Postgres]) -> Settings {
    let host = |server: &&Postgres| Server::Host("127.0.0.1".to_owned(), server.port);
    Settings {
        hosts: servers.iter().map(host).collect(),
        tls: None,
        ..servers[0].settings("/nonexistent".as_ref())
    }
}

async fn waits_for_a_standby(server: &Postgres) -> Vec<String> {
    let question =
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'postern'";
    let mut found = Vec::new();
    until("a commit that waits for a standby", async || {
        found = server
            .sql("postgres", question)
            .lines()
            .map(str::to_owned)
            .collect();
        !found.is_empty()
    })
    .await;
    found
}

async fn beats_again(one: &Member) {
    until("the database", async || {
        let beaten = one.store.beat(&Standing::of(one.node)).await;
        beaten.is_ok() && one.store.health() == Health::Fine
    })
    .await;
}

/// A commit waits for the standby, so whatever was acknowledged when the primary died is there; and the store finds the other by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn nothing_acknowledged_is_lost_when_the_primary_dies() {
    let (first, second) = pair();
    let one = Arc::new(member(&settings_of(&[&first, &second]), "one").await);
    assert_eq!(
        one.store.durability().promise(),
        "on the disk of the primary"
    );
    first.set("synchronous_standby_names", "ANY 1 (second)");
    let (count, is_over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut all = tokio::task::JoinSet::new();
    for n in 0..8_u128 {
        let (one, count, is_over) = (one.clone(), count.clone(), is_over.clone());
        all.spawn(async move {
            let (mut acknowledged, mut refused) = (Vec::new(), 0);
            for m in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let sent = mail(n << 64 | m, &["a@x.example"]);
                if one.store.insert(&sent, &[], at(0)).await.is_ok() {
                    acknowledged.push(sent.message.id);
                    count.fetch_add(1, Ordering::SeqCst);
                } else {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            (acknowledged, refused)
        });
    }
    until("mail", async || count.load(Ordering::SeqCst) > 300).await;
    first.kill();
    second.promote();
    let before = count.load(Ordering::SeqCst);
    until("mail again", async || {
        count.load(Ordering::SeqCst) > before + 300
    })
    .await;
    is_over.store(true, Ordering::SeqCst);
    let (acknowledged, refused): (Vec<Vec<MessageId>>, Vec<usize>) =
        all.join_all().await.into_iter().unzip();
    let acknowledged = acknowledged.concat();
    beats_again(&one).await;
    assert_eq!(one.store.server(), format!("127.0.0.1:{}", second.port));
    let there = one.store.list(&Filter::default(), at(0)).await.unwrap();
    let ids: HashSet<MessageId> = there.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), there.len(), "none twice");
    let lost = acknowledged.iter().filter(|id| !ids.contains(id)).count();
    assert_eq!(lost, 0, "of {}", acknowledged.len());
    // What was refused may be there: whoever sent it was told that nobody knows.
    let refused: usize = refused.iter().sum();
    assert!(ids.len() <= acknowledged.len() + refused);
    // Each of them goes out once.
    let mut sent = HashSet::new();
    loop {
        let jobs = one.claim(100, at(5)).await;
        if jobs.is_empty() {
            break;
        }
        for job in jobs {
            assert!(sent.insert(job.message.id));
            assert_eq!(one.settle(&job, done()).await, Kept::Written);
        }
    }
    assert_eq!(sent, ids);
}

/// With `quorum` there is no acknowledgement without standbys: not at the start, and not when they are taken away while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_quorum_that_is_taken_away_is_missed() {
    let (first, _second) = pair();
    first.set("synchronous_standby_names", "ANY 1 (second)");
    let settings = Settings {
        durability: Durability::Quorum,
        ..settings_of(&[&first])
    };
    let one = member(&settings, "one").await;
    let promise = "on the disks of the primary and of its synchronous standbys";
    assert_eq!(one.store.durability().promise(), promise);
    one.insert(1).await;
    first.set("synchronous_standby_names", "");
    let standing = Standing::of(one.node);
    let beat = || one.store.beat(&standing);
    let why = "durability = \"quorum\", but synchronous_standby_names is empty";
    let heard = beat().await.unwrap_err();
    assert!(heard.to_string().contains(why), "{heard}");
    assert_eq!(one.store.health(), Health::Failing);
    // Whichever connection it is on, and however often it is tried.
    for n in 2..20 {
        let refused = one
            .store
            .insert(&mail(n, &["a@x.example"]), &[], at(0))
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(beat().await.unwrap_err().to_string().contains(why));
    let schema = settings.schema.replace('"', "\"\"");
    let count = format!("SELECT count(*) FROM \"{schema}\".message");
    assert_eq!(first.sql("postern", &count), "1");
    // A start is refused for good.
    let dir = tempfile::tempdir().unwrap();
    let start = Settings {
        data_dir: dir.path().join("data"),
        ..settings
    };
    let refused = PostgresStore::open(start).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused(said) if said.contains(why)),
        "{refused}"
    );
    first.set("synchronous_standby_names", "ANY 1 (second)");
    beats_again(&one).await;
    one.insert(20).await;
    assert_eq!(one.store.stats().await.unwrap().waiting, 2);
}

/// A commit whose wait was cut off says that it is done, and warns. It is on one disk only: whoever waits is not told before it is on the
/// others, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_wait_for_a_standby_that_is_cut_off_is_no_acknowledgement() {
    let server = Postgres::start("");
    let one = Arc::new(member(&settings_of(&[&server]), "one").await);
    let before = one.insert(1).await;
    let job = one.claim(1, at(1)).await.remove(0);
    let cancel = |pids: Vec<String>| {
        for pid in pids {
            server.sql("postgres", &format!("SELECT pg_cancel_backend({pid})"));
        }
    };
    server.set("synchronous_standby_names", "ANY 1 (nobody)");
    let insert = {
        let one = Arc::clone(&one);
        tokio::spawn(async move {
            let sent = mail(2, &["a@x.example", "b@x.example"]);
            one.store.insert(&sent, &[], at(0)).await
        })
    };
    let first = waits_for_a_standby(&server).await;
    cancel(first.clone());
    until("another try", async || {
        waits_for_a_standby(&server).await != first
    })
    .await;
    // It is there, as everybody sees, and not acknowledged.
    let stats = one.store.stats().await.unwrap();
    assert_eq!((stats.waiting, stats.sending), (1, 1));
    assert!(!insert.is_finished());
    server.set("synchronous_standby_names", "");
    assert_eq!(insert.await.unwrap().unwrap().jobs.len(), 1);
    assert_eq!(one.store.stats().await.unwrap().waiting, 1);
    // The same with what became of one.
    server.set("synchronous_standby_names", "ANY 1 (nobody)");
    let settle = {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.settle(&job, done()).await })
    };
    let first = waits_for_a_standby(&server).await;
    cancel(first.clone());
    until("another try", async || {
        waits_for_a_standby(&server).await != first
    })
    .await;
    assert!(!settle.is_finished());
    server.set("synchronous_standby_names", "");
    assert_eq!(settle.await.unwrap(), Kept::Written);
    assert!(
        one.store
            .content(before.message.id)
            .await
            .unwrap()
            .is_none()
    );
}

/// Where no standby answers no commit does: the store says that it does not work, and does again when they are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn commits_that_wait_for_ever_are_a_store_that_does_not_work() {
    let server = Postgres::start("");
    let settings = Settings {
        patience: Duration::from_secs(1),
        ..settings_of(&[&server])
    };
    let one = Arc::new(member(&settings, "one").await);
    server.set("synchronous_standby_names", "ANY 1 (nobody)");
    let insert = {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.insert(1).await })
    };
    until("the store to say so", async || {
        one.store.health() == Health::Failing
    })
    .await;
    assert!(one.store.beat(&Standing::of(one.node)).await.is_err());
    assert!(one.store.probe().await.is_err());
    assert_eq!(one.store.health(), Health::Failing);
    server.set("synchronous_standby_names", "");
    insert.await.unwrap();
    one.store.probe().await.unwrap();
    beats_again(&one).await;
    assert_eq!(one.store.stats().await.unwrap().waiting, 1);
}

/// A switch-over: the old primary comes back as a standby, at its place in `hosts`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_primary_that_was_demoted_is_left_for_the_other() {
    let (mut first, second) = pair();
    let one = member(&settings_of(&[&first, &second]), "one").await;
    one.insert(1).await;
    until("the standby to have it", async || {
        let far =
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
        first.sql("postgres", far) == "1"
    })
    .await;
    first.stop();
    second.promote();
    first.follow(&second, "first");
    beats_again(&one).await;
    one.insert(2).await;
    assert_eq!(one.store.server(), format!("127.0.0.1:{}", second.port));
    assert_eq!(one.store.stats().await.unwrap().waiting, 2);
    // One that takes no writes is none that is away, and says so.
    let dir = tempfile::tempdir().unwrap();
    let alone = Settings {
        data_dir: dir.path().join("data"),
        ..settings_of(&[&first])
    };
    let said = PostgresStore::open(alone).await.unwrap_err();
    assert!(
        matches!(&said, OpenError::Away(why) if why.ends_with("it takes no writes: it is a standby")),
        "{said}"
    );
    second.sql(
        "postgres",
        "ALTER SYSTEM SET default_transaction_read_only = on",
    );
    second.reload();
    until("a refusal", async || {
        second.end_connections();
        let said = one.store.beat(&Standing::of(one.node)).await;
        said.is_err_and(|said| {
            said.to_string()
                .contains("default_transaction_read_only is on")
        })
    })
    .await;
    assert_eq!(one.store.health(), Health::Failing);
    second.sql(
        "postgres",
        "ALTER SYSTEM RESET default_transaction_read_only",
    );
    second.reload();
    beats_again(&one).await;
    one.insert(3).await;
    assert_eq!(one.store.stats().await.unwrap().waiting, 3);
}

/// The database's disk is full: it takes no mail, keeps what it has, and takes mail again when there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_database_on_a_disk_that_is_full_takes_no_mail_and_loses_none() {
    let server = Postgres::start("");
    let settings = settings_of(&[&server]);
    let one = member(&settings, "one").await;
    let mut disk = None;
    let folder = server.folder("small", |folder| disk = Some(small_disk(folder, 4)));
    let schema = settings.schema.replace('"', "\"\"");
    let sql = |sql: &str| server.sql("postern", &format!("SET search_path = \"{schema}\"; {sql}"));
    server.sql(
        "postern",
        &format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()),
    );
    sql("ALTER TABLE content SET TABLESPACE small");
    let mut acknowledged = 0;
    let body = Body::Memory((0..50_000).map(|_| fastrand::u8(..)).collect());
    let refused = loop {
        let sent = mail_with(acknowledged, &["a@x.example"], body.clone());
        match one.store.insert(&sent, &[], at(0)).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert_eq!(one.store.health(), Health::Full);
    assert!((20..100).contains(&acknowledged), "{acknowledged}");
    // What is sent meanwhile can be written.
    let job = one.claim(1, at(1)).await.remove(0);
    assert_eq!(one.settle(&job, done()).await, Kept::Written);
    sql("ALTER TABLE content SET TABLESPACE pg_default");
    let sent = mail_with(acknowledged, &["a@x.example"], body);
    one.store.insert(&sent, &[], at(0)).await.unwrap();
    assert_eq!(one.store.health(), Health::Fine);
    let waiting = one.store.stats().await.unwrap().waiting;
    assert_eq!(u128::from(waiting), acknowledged);
    drop(server);
}

/// A certificate of its own, from the words of the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_client_certificate_is_a_login() {
    let server = Postgres::start("");
    let dir = tempfile::tempdir().unwrap();
    for name in ["postern", "stranger"] {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        fs::write(dir.path().join(format!("{name}.pem")), own.pem()).unwrap();
        fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let trusted = server.folder("trusted", |folder| {
        let owner = fs::metadata(server.socket()).unwrap();
        let both = ["postern.pem", "stranger.pem"]
            .map(|name| fs::read_to_string(dir.path().join(name)).unwrap());
        let file = folder.join("clients.pem");
        fs::write(&file, both.concat()).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    });
    let clients = trusted.join("clients.pem");
    server.set("ssl_ca_file", clients.to_str().unwrap());
    server.lets_in("hostssl postern postern 127.0.0.1/32 cert", "");
    let open = |pair: Option<&str>| {
        let pair = pair.map(|name| {
            let file = |end| dir.path().join(format!("{name}.{end}"));
            (file("pem"), file("key"))
        });
        let postgres = PostgresSettings {
            hosts: vec![DatabaseHost::Tcp("localhost".to_owned(), server.port)],
            password: None,
            tls: Some(DatabaseTls {
                verify: Verify::Full,
                ca_file: Some(server.socket().join("ca.pem")),
                client_certificate: pair,
            }),
            ..postgres_of(&server)
        };
        let data_dir = dir.path().join("data");
        let settings = database::settings(&postgres, &cluster(), &data_dir, true).unwrap();
        PostgresStore::open(settings)
    };
    let store = open(Some("postern")).await.unwrap();
    store.beat(&Standing::default()).await.unwrap();
    assert_eq!(store.server(), format!("localhost:{}", server.port));
    for (pair, words) in [
        (None, "certificate"),
        (Some("stranger"), "certificate authentication failed"),
    ] {
        let refused = open(pair).await.unwrap_err();
        assert!(
            matches!(&refused, OpenError::Refused(why) if why.contains(words)),
            "{refused}"
        );
    }
}

/// On its socket the server knows who asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_user_of_the_process_is_a_login_on_the_socket() {
    let server = Postgres::start("");
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        hosts: vec![Server::Socket(server.socket().to_owned(), server.port)],
        tls: None,
        password: None,
        data_dir: dir.path().join("data"),
        ..server.settings(dir.path())
    };
    let refused = PostgresStore::open(settings.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("password"), "{refused}");
    server.lets_in(
        "local postern postern peer map=gateways",
        "gateways /^(.*)$ postern",
    );
    let store = PostgresStore::open(settings).await.unwrap();
    store.beat(&Standing::default()).await.unwrap();
    assert_eq!(store.health(), Health::Fine);
}

/// One that lends a connection for a transaction loses what was prepared on it, and a start says so; one that lends it for a session does
/// not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and PgBouncer"]
async fn a_pooler_that_loses_statements_is_named() {
    let server = Postgres::shared();
    let settings = |pooler: &Pooler| Settings {
        hosts: vec![Server::Host("127.0.0.1".to_owned(), pooler.port)],
        tls: None,
        ..server.settings("/nonexistent".as_ref())
    };
    let pooler = Pooler::start(server, "transaction");
    let dir = tempfile::tempdir().unwrap();
    let opened = PostgresStore::open(Settings {
        data_dir: dir.path().join("data"),
        ..settings(&pooler)
    });
    let refused = opened.await.unwrap_err();
    let words = "let PgBouncer have pool_mode = session, or from 1.21 on max_prepared_statements";
    assert!(
        matches!(&refused, OpenError::Refused(why) if why.contains(words)),
        "{refused}"
    );
    drop(pooler);
    let pooler = Pooler::start(server, "session");
    let settings = settings(&pooler);
    let (one, two) = (
        member(&settings, "one").await,
        member(&settings, "two").await,
    );
    let sent = one.insert(1).await;
    let job = two.claim(1, at(1)).await.remove(0);
    assert_eq!(job.message.id, sent.message.id);
    assert_eq!(two.settle(&job, done()).await, Kept::Written);
    // What it knows of the server is the server's.
    assert!(one.store.durability().fsync);
}

fn postgres_of(server: &Postgres) -> PostgresSettings {
    PostgresSettings {
        hosts: vec![DatabaseHost::Tcp("127.0.0.1".to_owned(), server.port)],
        database: "postern".to_owned(),
        username: "postern".to_owned(),
        password: None,
        tls: None,
        schema: "postern".to_owned(),
        connections: 4,
        durability: DatabaseDurability::Primary,
        on_outage: OnOutage::Spill,
    }
}

fn cluster() -> ClusterSettings {
    ClusterSettings {
        name: "relay-a".to_owned(),
        keys: Vec::new(),
        dead_after: Duration::from_mins(1),
        share_for: Duration::from_hours(1),
        spill_size: 1 << 30,
    }
}
