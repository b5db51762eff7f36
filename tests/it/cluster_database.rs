//! Gateways and their database: what a command finds out about it, who may make its tables, and mail while it fails over.

use std::{
    collections::{HashMap, HashSet},
    fs,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Cluster, send, timed};
use crate::harness::{
    gateway::{Gateway, basic, stdout, wait},
    peers::free_port,
    postgres::Postgres,
    upstream::{Received, Upstream},
};

/// A file for a gateway of this name; `postgres`: more of that section, its hosts among it.
fn config(sink: &Upstream, name: &str, postgres: &str) -> String {
    format!(
        "{}\n[queue]\nstore = \"postgres\"\nin_doubt_wait = \"1s\"\n[postgres]\n{postgres}\npassword = \"a password\"\n\
         [cluster]\nname = \"{name}\"\ndead_after = \"10s\"\n",
        basic(sink.address)
    )
}

/// In the clear, to these servers.
fn hosts(servers: &[&Postgres]) -> String {
    let hosts = servers
        .iter()
        .map(|server| format!("\"127.0.0.1:{}\"", server.port));
    let hosts: Vec<String> = hosts.collect();
    format!("hosts = [{}]\ntls = \"off\"", hosts.join(", "))
}

fn gateway(sink: &Upstream, name: &str, postgres: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), config(sink, name, postgres)).unwrap();
    Gateway::start_in(dir)
}

/// A command with this file, without a gateway.
fn command(config: &str, arguments: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let output = Command::new(Gateway::binary())
        .args(arguments)
        .args(["-c", "config.toml"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!dir.path().join("data").exists(), "it makes nothing");
    output
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// What is due when the database is back begins at once, and nothing of it is cut off for what was before: only what was under way at a cut
/// may arrive twice.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_that_was_away_for_long_puts_nothing_in_doubt() {
    let (sink, times) = timed(Duration::from_millis(300));
    let mut server = Postgres::start("");
    let cluster = Cluster {
        sink,
        ..Cluster::new(&server, "max_concurrent = 4\n")
    };
    let members = ["relay-a", "relay-b"].map(|name| cluster.member(name));
    let mut count = 0;
    let mut fill = |messages: usize| {
        for _ in 0..messages {
            assert!(send(&members[count % 2], &format!("m{count}")));
            count += 1;
        }
        count
    };
    for _ in 0..3 {
        fill(60);
        server.stop();
        fill(30);
        std::thread::sleep(Duration::from_secs(12));
        server.start_again();
        std::thread::sleep(Duration::from_secs(4));
    }
    let all = fill(1);
    let arrived = || {
        let mails = cluster.sink.mails();
        let subjects = mails.iter().map(Received::subject);
        subjects.collect::<HashSet<_>>().len()
    };
    wait("all of it", || (arrived() >= all).then_some(()));
    for member in &members {
        let log = member.log();
        assert!(log.contains("the database is there"), "{log}");
        assert!(!log.contains("in_doubt=true"), "{log}");
    }
    assert_eq!(times.lock().unwrap().len(), all, "each once");
}

/// As the page of the documentation has it, word for word; by TLS, which is trusted as a connector's would be.
#[test]
#[ignore = "needs PostgreSQL"]
fn check_connect_says_what_a_250_means() {
    let server = Postgres::start("");
    let sink = Upstream::start();
    let ca = server.socket().join("ca.pem");
    let postgres = format!(
        "hosts = [\"localhost:{}\"]\nca_file = \"{}\"",
        server.port,
        ca.display()
    );
    let file = config(&sink, "relay-a", &postgres);
    let found = stdout(&command(&file, &["check", "--connect"]));
    let version = server.sql("postgres", "SHOW server_version");
    let version = version.split(' ').next().unwrap();
    let expected = format!(
        "\
store       postgres {version} at localhost:{}, no schema yet (the first gateway makes it), 0 gateways at work
            a 250 means: on the disk of the primary
warning     synchronous_standby_names is empty: a failover may forget mail that was answered with 250 just before it.
            Let the database have synchronous standbys (Patroni: synchronous_mode), then write durability = \"quorum\"
ok      up: ",
        server.port
    );
    assert!(found.contains(&expected), "{found}");
    let gateways = ["relay-a", "relay-b"].map(|name| gateway(&sink, name, &postgres));
    let found = stdout(&gateways[0].cli(&["check", "--connect", "--json"]));
    let found: Value = serde_json::from_str(&found).unwrap();
    let store = &found["store"];
    assert_eq!(
        (&store["ok"], &store["schema"], &store["gateways"]),
        (&true.into(), &2.into(), &2.into()),
        "{found}"
    );
    // Nobody whom it trusts, nobody there, and one that does not sync.
    let port = server.port;
    for (postgres, code, words) in [
        (
            format!(
                "hosts = [\"localhost:{port}\"]\nca_file = \"{}\"",
                ca.with_file_name("none.pem").display()
            ),
            78,
            "none.pem",
        ),
        (
            format!("hosts = [\"localhost:{}\"]", free_port()),
            69,
            "failed  store: the database is away (localhost:",
        ),
    ] {
        let output = command(
            &config(&sink, "relay-a", &postgres),
            &["check", "--connect"],
        );
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    }
    server.set("fsync", "off");
    let output = command(&file, &["check", "--connect"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("fsync = off"), "{}", said(&output));
}

/// Whose role may not make the tables starts when the owner of the database has run what is printed.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_owner_of_the_database_runs_what_is_printed() {
    let server = Postgres::shared();
    let sink = Upstream::start();
    let schema = format!("printed_{:016x}", fastrand::u64(..));
    let postgres = format!(
        "{}\nusername = \"guest\"\nschema = \"{schema}\"",
        hosts(&[server])
    );
    let file = config(&sink, "relay-a", &postgres);
    let expected = "the database lacks schema 2 of Postern: have its owner run what \"postern queue schema\" prints";
    let refused = command(&file, &["check", "--connect"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(said(&refused).contains(expected), "{}", said(&refused));
    // Without the secret, and without the database.
    let elsewhere = file
        .replace(&format!("127.0.0.1:{}", server.port), "db1.invalid:5432")
        .replace("tls = \"off\"\nusername", "username")
        .replace(
            "password = \"a password\"",
            "password = { file = \"not-there\" }",
        );
    let printed = stdout(&command(&elsewhere, &["queue", "schema"]));
    server.sql("postern", &printed);
    let gateway = gateway(&sink, "relay-a", &postgres);
    crate::harness::gateway::send(&gateway);
    sink.wait(1);
    let none = command(&basic(sink.address), &["queue", "schema"]);
    assert_eq!(none.status.code(), Some(78), "{}", said(&none));
}

/// The primary of two gateways dies under load, and its standby, for which commits wait, takes its place: all that was acknowledged arrives.
#[test]
#[ignore = "needs PostgreSQL"]
fn gateways_go_on_with_the_standby() {
    let first = Postgres::start("");
    let second = first.standby("second");
    let sink = Upstream::start();
    let hosts = hosts(&[&first, &second]);
    let gateways = Arc::new(["relay-a", "relay-b"].map(|name| gateway(&sink, name, &hosts)));
    first.set("synchronous_standby_names", "ANY 1 (second)");
    let (acknowledged, is_over) = (
        Arc::new(Mutex::new(HashSet::new())),
        Arc::new(AtomicBool::new(false)),
    );
    let senders: Vec<_> = (0..6)
        .map(|n| {
            let (gateways, acknowledged, is_over) =
                (gateways.clone(), acknowledged.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut m = 0;
                while !is_over.load(Ordering::SeqCst) {
                    let subject = format!("m{n}-{m}");
                    m += 1;
                    if send(&gateways[n % 2], &subject) {
                        acknowledged.lock().unwrap().insert(subject);
                    } else {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            })
        })
        .collect();
    let count = || acknowledged.lock().unwrap().len();
    wait("mail", || (count() > 200).then_some(()));
    first.kill();
    second.promote();
    let before = count();
    wait("mail again", || (count() > before + 200).then_some(()));
    is_over.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let arrived = || {
        let mut arrived: HashMap<String, usize> = HashMap::new();
        for mail in sink.mails() {
            *arrived.entry(mail.subject()).or_default() += 1;
        }
        arrived
    };
    wait("all that was acknowledged", || {
        let arrived = arrived();
        acknowledged
            .iter()
            .all(|subject| arrived.contains_key(subject))
            .then_some(())
    });
    wait("an empty queue", || {
        let question = "SELECT count(*) FROM postern.job";
        (second.sql("postern", question) == "0").then_some(())
    });
    let twice: Vec<String> = arrived()
        .into_iter()
        .filter_map(|(subject, count)| (count > 1).then_some(subject))
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}
