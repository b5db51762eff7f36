//! The queue of several gateways becomes that of one again: whatever the command meets, nothing is lost and nothing is there twice.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern::{
    config::Secrets,
    gateway::tokens::StoredTokens,
    mail::{
        message::{Body, Message},
        outcome::LaneState,
    },
    queue::{
        moving::{KeptOutcome, MovingTally},
        postgres::{PostgresStore, Settings},
        spill::BackMove,
        sqlite::SqliteStore,
        store::{Inserted, Job, LaneRow, NodeId, Settlement, Standing, Start, Store, Verb},
    },
    route::{ConnectorName, LaneId, Routed},
};
use tempfile::TempDir;

use crate::{
    harness::{
        gateway::{Gateway, basic},
        postgres::Postgres,
        time::wait,
        upstream::{Received, Upstream},
    },
    moving::{ALL, fill, id},
    store::{NODE, ask, at, done, mail, mail_with, only, open, settings, settlement},
};

const TO: [&str; 1] = ["x@corp.example"];

/// All that is known of a message, with its content as long as that is kept.
async fn told(store: &dyn Store, n: u128) -> Vec<String> {
    let entries = store.list(&only(id(n)), at(5)).await.unwrap();
    let mut told: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    for event in store.events(id(n)).await.unwrap() {
        told.push(format!("{event:?}"));
    }
    let Some(message) = store.content(id(n)).await.unwrap() else {
        told.push("no content".to_owned());
        return told;
    };
    let mut body = message.body.open().await.unwrap();
    let mut octets = Vec::new();
    while let Some(piece) = body.next().await.unwrap() {
        octets.extend_from_slice(&piece);
    }
    let hash = octets
        .iter()
        .fold(0_u64, |sum, octet| sum.rotate_left(5) ^ u64::from(*octet));
    let late = store.late(at(100_000), 1_000).await.unwrap();
    told.push(format!("tells late: {}", late.contains(&id(n))));
    let (envelope, origin, header) = (&message.envelope, &message.origin, &message.header);
    told.push(format!(
        "{envelope:?} {origin:?} {header:?} {} {hash}",
        octets.len()
    ));
    told
}

async fn every(store: &dyn Store, last: u128) -> BTreeMap<u128, Vec<String>> {
    let mut all = BTreeMap::new();
    for n in 1..=last {
        all.insert(n, told(store, n).await);
    }
    all
}

/// One with this header.
fn with_header(n: u128, header: Vec<u8>, body: Body) -> Routed {
    let mut sent = mail_with(n, &TO, body);
    let mut message = Message::clone(&sent.message);
    message.header = header.into();
    sent.message = Arc::new(message);
    sent
}

async fn begins(store: &PostgresStore, dead_after: Duration) -> NodeId {
    // Without a name, which lists and lives would show.
    let standing = Standing {
        dead_after,
        ..Standing::default()
    };
    store.beat(&standing).await.unwrap().node
}

async fn ends(store: &PostgresStore, node: NodeId) {
    let standing = Standing {
        node: Some(node),
        is_leaving: true,
        ..Standing::default()
    };
    store.beat(&standing).await.unwrap();
}

/// Inserted and sent by this node, as an upstream took it.
async fn delivered(store: &PostgresStore, sent: &Routed, node: NodeId, now: SystemTime) {
    let start = Start::Now(node, ConnectorName::from("up"));
    let Inserted { jobs, leases } = store.insert(sent, &[start], now).await.unwrap();
    let (route, recipients) = sent.jobs[0].clone();
    let job = Job {
        id: jobs[0],
        lease: leases[0],
        message: Arc::clone(&sent.message),
        route,
        recipients,
        pinned: None,
        lane: None,
        attempts: 0,
        accepted: now,
    };
    let settled: Settlement = settlement(&job, vec![(TO[0], done())]);
    store.settle(settled, now).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_went_there_comes_back() {
    const LAST: u128 = ALL + 4;
    let (first, second, third) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let local = open(first.path());
    fill(&local).await;
    let octets = b"Subject: \xff\xfe \x80 caf\xe9\r\nX: \xc3\r\n".to_vec();
    let eight = with_header(
        ALL + 1,
        octets,
        Body::Memory(b"\x80\xff\x01\r\n".to_vec().into()),
    );
    local.insert(&eight, &[], at(0)).await.unwrap();
    let before = every(&*local, ALL + 1).await;
    let remote_settings: Settings = Postgres::shared().settings(&second.path().join("data"));
    let one = PostgresStore::open(remote_settings.clone()).await.unwrap();
    let node = begins(&one, Duration::from_mins(1)).await;
    let two = PostgresStore::open(Settings {
        data_dir: third.path().join("data"),
        ..remote_settings.clone()
    });
    let two = two.await.unwrap();
    let other = begins(&two, Duration::from_mins(1)).await;
    let (batch, _) = local.leave(0, 100).await.unwrap();
    let ids = batch.iter().map(|moving| moving.message.id).collect();
    one.arrive(batch, at(5)).await.unwrap();
    local.left(ids).await.unwrap();
    // One that is dropped, one that is delivered, and one that the other was sending when it died.
    one.insert(&mail(ALL + 2, &TO), &[], at(1)).await.unwrap();
    let dropped = one.command(&only(id(ALL + 2)), &Verb::Drop, at(2)).await;
    assert_eq!(dropped.unwrap(), 1);
    delivered(&two, &mail(ALL + 3, &TO), other, at(2)).await;
    let start = Start::Now(other, ConnectorName::from("up"));
    two.insert(&mail(ALL + 4, &TO), &[start], at(3))
        .await
        .unwrap();
    let lane = LaneRow {
        lane: LaneId::parse("up"),
        state: LaneState::Stopped,
        since: at(1),
        why: "by hand".to_owned(),
        probe: None,
        version: 0,
        node: NodeId::default(),
    };
    assert!(one.set_lane(lane).await.unwrap());
    ends(&one, node).await;

    let home = tempfile::tempdir().unwrap();
    let moving = BackMove::open(
        Settings {
            data_dir: home.path().join("data"),
            migrates: false,
            ..remote_settings
        },
        settings(home.path()),
    );
    let moving = moving.await.unwrap();
    assert!(
        moving.copy(at(5)).await.is_err(),
        "the other has not ended yet"
    );
    let silent = moving.at_work().await.unwrap();
    assert_eq!(silent.len(), 1);
    let wait = Duration::from_mins(1);
    assert!(moving.take_over(&silent, wait, at(5)).await.unwrap());
    let there = every(&*one, LAST).await;
    for (n, expected) in &before {
        assert_eq!(&there[n], expected, "{n}");
    }
    assert!(there[&(ALL + 4)][0].contains("pinned: Some"), "{there:?}");
    let copied = moving.copy(at(5)).await.unwrap();
    assert!(copied.is_whole(), "{copied:?}");
    assert_eq!(
        (copied.messages(), copied.history),
        (LAST as u64, 2),
        "{copied:?}"
    );
    assert_eq!(copied.there.messages, LAST as u64);
    // It is not all done yet: nobody sends it from here, and another copy of all of it changes nothing.
    let here = open(home.path());
    let claims = async || here.claim(&ask(100), NODE, at(10_000)).await.unwrap().len();
    assert_eq!(claims().await, 0);
    let again = moving.copy(at(5)).await.unwrap();
    assert!(again.is_whole(), "{again:?}");
    // What is over is there already.
    assert_eq!(again.there.messages, LAST as u64 - 2);
    moving.bring_lanes().await.unwrap();
    assert_eq!(moving.finish(&again).await.unwrap(), 0);
    assert_eq!(every(&*here, LAST).await, there);
    let lanes = here.lanes().await.unwrap();
    assert_eq!(
        (lanes.len(), lanes[0].state, lanes[0].why.as_str()),
        (1, LaneState::Stopped, "by hand")
    );
    for n in 1..=LAST {
        let gone = told(&*one, n).await;
        assert_eq!(gone, ["no content"], "{n}");
    }
    let none = moving.copy(at(6)).await.unwrap();
    assert_eq!((none.messages(), none.there), (0, MovingTally::default()));
    assert!(claims().await >= 5);
}

/// A place for a gateway on a queue in this schema.
struct Home {
    dir: TempDir,
    schema: String,
    port: u16,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            schema: format!("back_{:016x}", fastrand::u64(..)),
            port: Postgres::shared().port,
        }
    }

    fn config(&self, store: &str, name: &str, sink: &Upstream) -> String {
        let (port, schema) = (self.port, &self.schema);
        format!(
            "{}\n[queue]\nstore = \"{store}\"\nin_doubt_wait = \"1s\"\n\
             [postgres]\nhosts = [\"127.0.0.1:{port}\"]\ndatabase = \"postern\"\nusername = \"postern\"\n\
             password = \"a password\"\ntls = \"off\"\nschema = \"{schema}\"\n\
             [cluster]\nname = \"{name}\"\ndead_after = \"10s\"\n",
            basic(sink.address).replace("name = \"all\"", "name = \"main\"")
        )
    }

    fn write(&self, config: &str) {
        std::fs::write(self.dir.path().join("config.toml"), config).unwrap();
    }

    /// A gateway of this schema, in a directory of its own, as the tests have it.
    async fn node(&self, dir: &Path, dead_after: Duration) -> (Arc<PostgresStore>, NodeId) {
        let store = PostgresStore::open(Settings {
            schema: self.schema.clone(),
            callers_clock: false,
            ..Postgres::shared().settings(dir)
        });
        let store = store.await.unwrap();
        let node = begins(&store, dead_after).await;
        (store, node)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(Gateway::binary());
        command
            .args(["queue", "move", "--from-postgres", "-c", "config.toml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn moves(&self) -> Output {
        self.command().output().unwrap()
    }
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

fn arrived(sink: &Upstream) -> HashMap<String, usize> {
    let mut arrived = HashMap::new();
    for mail in sink.mails() {
        *arrived.entry(mail.subject()).or_default() += 1;
    }
    arrived
}

fn numbered(n: u128, body: Body) -> Routed {
    with_header(n, format!("Subject: m{n}\r\n").into_bytes(), body)
}

/// How many of each kind: waiting (every tenth of them is held), and over.
async fn fill_there(home: &Home, waiting: u128, over: u128) {
    let now = SystemTime::now();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let minute = Duration::from_mins(1);
    let gateways = [
        home.node(first.path(), minute).await,
        home.node(second.path(), minute).await,
    ];
    for n in 0..waiting + over {
        let (store, node) = &gateways[(n % 2) as usize];
        if n >= waiting {
            delivered(
                store,
                &numbered(n, Body::Memory("x\r\n".into())),
                *node,
                now,
            )
            .await;
            continue;
        }
        let body = if n % 50 == 7 {
            let mut body = store.bodies().writer(id(n));
            body.append(&b"0123456789\r\n".repeat(60_000))
                .await
                .unwrap();
            body.finish().await.unwrap()
        } else {
            Body::Memory("text\r\n".into())
        };
        store.insert(&numbered(n, body), &[], now).await.unwrap();
        if n % 10 == 0 {
            store.command(&only(id(n)), &Verb::Hold, now).await.unwrap();
        }
    }
    for (store, node) in &gateways {
        ends(store, *node).await;
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn killed_and_repeated_nothing_is_lost_and_nothing_twice() {
    const WAITING: u128 = 400;
    const OVER: u128 = 200;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sink = Upstream::start();
    let mut random = fastrand::Rng::with_seed(15);
    let (mut kills, mut ends) = (0, 0);
    // Whatever the machine does: until it was killed often enough, and ended by itself as well.
    while kills < 12 || ends == 0 {
        let home = Home::new();
        runtime.block_on(fill_there(&home, WAITING, OVER));
        home.write(&home.config("sqlite", "relay-a", &sink));
        let mut most = 200;
        let said = loop {
            let mut child = home
                .command()
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let time = Duration::from_millis(random.u64(20..most));
            most += 60;
            std::thread::sleep(time);
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
                child.wait().unwrap();
            } else {
                ends += 1;
                break child.wait_with_output().unwrap();
            }
        };
        assert!(said.status.success(), "{}", text(&said));
        let again = home.moves();
        assert!(
            again.status.success() && text(&again).contains("there is nothing to move"),
            "{}",
            text(&again)
        );
        let before = sink.count();
        let held = WAITING.div_ceil(10) as usize;
        let sent = WAITING as usize - held;
        let gateway = Gateway::start_in(home.dir);
        wait("all of it", || {
            (sink.count() >= before + sent).then_some(())
        });
        std::thread::sleep(Duration::from_secs(1));
        let mails = sink.mails().split_off(before);
        assert_eq!(mails.len(), sent);
        let mut subjects: Vec<String> = mails.iter().map(Received::subject).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), sent);
        let listed = gateway.cli(&["queue", "list", "--all", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let count = |state: &str| {
            let all = listed.as_array().unwrap().iter();
            all.filter(|entry| entry["state"] == state).count()
        };
        assert_eq!((count("held"), count("done")), (held, sent + OVER as usize));
        assert!(!gateway.log().contains("queue not moved"));
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn it_waits_for_gateways_to_end_and_says_what_is_missing() {
    let sink = Upstream::start();
    let home = Home::new();
    let dir = TempDir::new().unwrap();
    std::fs::write(
        dir.path().join("config.toml"),
        home.config("postgres", "relay-b", &sink),
    )
    .unwrap();
    let mut other = Gateway::start_in(dir);
    let refused = |code: i32, words: &str| {
        let said = home.moves();
        let text = text(&said);
        assert_eq!(said.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    };
    home.write(&home.config("postgres", "relay-a", &sink));
    refused(78, "write store = \"sqlite\"");
    let alone = home.config("sqlite", "relay-a", &sink);
    home.write(&alone);
    refused(75, "relay-b is at work: end it first");
    let without = alone.split("[postgres]").next().unwrap();
    home.write(without);
    refused(78, "[postgres] is missing");
    let nowhere = format!(":{}\"", crate::harness::peers::free_port());
    home.write(&alone.replace(&format!(":{}\"", home.port), &nowhere));
    refused(69, "the database is away");
    home.write(&alone);
    assert_eq!(other.terminate(), 0, "{}", other.log());
    let done = home.moves();
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains("there is nothing to move in postgres at 127.0.0.1:"));
    let gateway = Gateway::start_in(home.dir);
    let held = gateway.cli(&["queue", "move", "--from-postgres"]);
    assert_eq!(held.status.code(), Some(75), "{}", text(&held));
    assert!(text(&held).contains("a gateway already runs on"));
}

/// As a gateway among others leaves its directory when it dies while the database is away.
async fn leave_behind(home: &Home) {
    let now = SystemTime::now();
    let local = SqliteStore::open(&settings(home.dir.path())).unwrap();
    let dir = TempDir::new().unwrap();
    let (remote, node) = home.node(dir.path(), Duration::from_secs(1)).await;
    let sent = |n| numbered(n, Body::Memory("text\r\n".into()));
    // 1 has arrived there and 2 has not; 3 was sent, which only this machine knows; 4 is only there.
    for n in [1, 2] {
        local.insert(&sent(n), &[], now).await.unwrap();
    }
    let (batch, _) = local.leave(0, 1).await.unwrap();
    remote.arrive(batch, now).await.unwrap();
    local.leave(0, 2).await.unwrap();
    let start = Start::Now(node, ConnectorName::from("up"));
    let Inserted { jobs, leases } = remote.insert(&sent(3), &[start], now).await.unwrap();
    remote.insert(&sent(4), &[], now).await.unwrap();
    let kept = KeptOutcome {
        message: id(3),
        job: jobs[0].0,
        node: node.0,
        claim: leases[0].claim,
        at: now,
        settlement: r#"{"recipients":[["x@corp.example",{"done":{"delivered":{"code":250,"enhanced":null,"text":"ok"}}}]],
            "attempted":true,"next":0,"lane":null,"apart":[],"in_doubt":null,"events":[]}"#
            .to_owned(),
    };
    assert!(
        local
            .keep_outcome(kept, Vec::new(), false, now)
            .await
            .unwrap()
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn what_lies_here_is_not_sent_before_it_has_moved() {
    let sink = Upstream::start();
    let home = Home::new();
    home.write(&home.config("sqlite", "relay-a", &sink));
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(leave_behind(&home));
    let mut gateway = Gateway::start_in(home.dir);
    gateway.wait_for_log(&["WARN", "postern queue move --from-postgres"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sink.count(), 0);
    assert_eq!(gateway.terminate(), 0);
    let moved = gateway.cli(&["queue", "move", "--from-postgres"]);
    assert!(moved.status.success(), "{}", text(&moved));
    let said = text(&moved);
    assert!(
        said.contains(
            "moved 3 messages (2 waiting, 0 held, 0 failed, 1 history) from postgres at 127.0.0.1:"
        ),
        "{said}"
    );
    gateway.restart();
    sink.wait(3);
    std::thread::sleep(Duration::from_secs(2));
    let arrived = arrived(&sink);
    let expected = [1, 2, 4].map(|n| (format!("m{n}"), 1));
    assert_eq!(arrived, HashMap::from(expected));
    let traced = gateway.cli(&["trace", &id(3).to_string()]);
    assert!(
        text(&traced).contains("x@corp.example is done"),
        "{}",
        text(&traced)
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn nothing_is_deleted_that_did_not_come_and_tokens_are_opened() {
    const TOKEN: &str = "refresh token of up";
    let (sink, home) = (Upstream::start(), Home::new());
    let with_key = |store: &str, octet: u8| {
        let key = STANDARD.encode([octet; 32]);
        let config = home.config(store, "relay-a", &sink);
        config.replace("[cluster]\n", &format!("[cluster]\nkey = \"{key}\"\n"))
    };
    home.write(&with_key("postgres", 1));
    let path = home.dir.path().join("config.toml");
    let (config, _) = postern::config::load(&path, Secrets::Resolve).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = TempDir::new().unwrap();
    let remote = runtime.block_on(async {
        let (store, node) = home.node(dir.path(), Duration::from_mins(1)).await;
        let now = SystemTime::now();
        for n in 1..=3 {
            let sent = numbered(n, Body::Memory("text\r\n".into()));
            store.insert(&sent, &[], now).await.unwrap();
        }
        let shared: Arc<dyn Store> = store.clone();
        let tokens = StoredTokens::of(&shared, &config);
        tokens.save(TOKEN, "a secret".to_owned()).await.unwrap();
        ends(&store, node).await;
        store
    });
    let notes = || runtime.block_on(remote.notes("")).unwrap();
    assert!(!notes()[0].1.contains("a secret"), "{:?}", notes());
    let damage = |sql: &str| {
        let octets = id(2).to_bytes();
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let sql = format!("{sql} WHERE message = '\\x{hex}'");
        let schema = format!("\"{}\"", home.schema);
        Postgres::shared().sql("postern", &sql.replace("SCHEMA", &schema));
    };
    damage("DELETE FROM SCHEMA.content");
    home.write(&with_key("sqlite", 1));
    let refused = home.moves();
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(74), "{said}");
    let named = format!("{} cannot be read: its content is gone", id(2));
    assert!(
        said.contains(&named) && said.contains("nothing was deleted"),
        "{said}"
    );
    let there = || runtime.block_on(remote.places((0, i64::MAX), 10)).unwrap();
    assert_eq!((there().len(), notes().len()), (3, 1));
    // It is over, for somebody has seen to it; and the key is another one.
    damage("DELETE FROM SCHEMA.job");
    home.write(&with_key("sqlite", 2));
    let refused = home.moves();
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused));
    assert!(text(&refused).contains("cluster.key"), "{}", text(&refused));
    assert_eq!((there().len(), notes().len()), (3, 1));
    home.write(&with_key("sqlite", 1));
    let moved = home.moves();
    assert!(
        text(&moved).contains("moved 3 messages (2 waiting, 0 held, 0 failed, 1 history)"),
        "{}",
        text(&moved)
    );
    assert_eq!((there().len(), notes().len()), (0, 0));
    let local = open(home.dir.path());
    let kept = runtime.block_on(local.note(TOKEN)).unwrap();
    assert_eq!(kept.as_deref(), Some("a secret"));
}
