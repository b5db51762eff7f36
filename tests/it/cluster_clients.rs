//! The clients that people have, before two gateways: a Postfix that sends everything to both, swaks and msmtp in a script that tries the
//! other one. Whichever gateway ends, mail goes on by the one that is left, and each message arrives once.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;

use crate::{
    cluster::{Cluster, send},
    harness::{
        client::Client,
        gateway::{Gateway, wait},
        peers::{command, free_port, need, peers, run},
        postgres::Postgres,
    },
};

/// A Postfix that sends what it takes from loopback to two relays.
struct NullClient {
    dir: TempDir,
    port: u16,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/postfix.sh")
}

impl NullClient {
    /// `settings`: where it sends to.
    fn start(settings: &str) -> Self {
        need("postfix");
        let dir = tempfile::Builder::new()
            .prefix("postern-null")
            .tempdir_in("/tmp")
            .unwrap();
        let port = free_port();
        let this = Self { dir, port };
        let at = this.dir.path().to_str().unwrap().to_owned();
        // Its master may wait for a log that another one beside it keeps busy: then once more.
        let is_started = || {
            Command::new("timeout")
                .args(["-k", "5", "40"])
                .arg(script())
                .arg("start")
                .arg(peers())
                .args([&at, &port.to_string(), "9"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        assert!((0..3).any(|_| is_started()), "Postfix does not start");
        let main = this.dir.path().join("etc/main.cf");
        // Nothing twice: Postfix warns of each, and its master waits for the log that it has not started yet.
        let is_ours = |line: &&str| {
            line.starts_with("relayhost") || line.starts_with("smtp_connection_cache")
        };
        let all = fs::read_to_string(&main).unwrap();
        let all: String = all
            .lines()
            .filter(|line| !is_ours(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let all = format!(
            "{all}minimal_backoff_time = 1s\nmaximal_backoff_time = 4s\nqueue_run_delay = 1s\n{settings}"
        );
        fs::write(main, all).unwrap();
        run("postfix", &["-c", &format!("{at}/etc"), "reload"]);
        wait("Postfix", || TcpStream::connect(("127.0.0.1", port)).ok());
        this
    }

    /// By a few at once; what it has acknowledged is its own to deliver.
    fn take(&self, phase: &str, count: usize, mut meanwhile: impl FnMut(&AtomicUsize)) {
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for part in 0..4 {
                let taken = &taken;
                scope.spawn(move || {
                    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
                    assert!(client.reply().starts_with("220"));
                    client.expect("EHLO app", "250");
                    for n in (0..count).filter(|n| n % 4 == part) {
                        let text = format!(
                            "From: app@corp.example\r\nSubject: {phase} {n}\r\n\r\ntext\r\n"
                        );
                        let reply = client.mail("app@corp.example", &["x@corp.example"], &text);
                        assert!(reply.starts_with("250"), "{reply}");
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            meanwhile(&taken);
        });
    }
}

impl Drop for NullClient {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- log of Postfix\n{log}");
        }
        let _ = Command::new(script())
            .arg("stop")
            .arg(self.dir.path())
            .status();
    }
}

fn arrived(cluster: &Cluster) -> HashMap<String, usize> {
    let mut arrived = HashMap::new();
    for mail in cluster.sink.mails() {
        *arrived.entry(mail.subject()).or_default() += 1;
    }
    arrived
}

/// Each of so many, and none of them twice.
fn each_once(cluster: &Cluster, count: usize) {
    wait(&format!("{count} messages"), || {
        (arrived(cluster).len() >= count).then_some(())
    });
    // And written down: what is not may be sent again by whoever comes after one that is killed.
    wait("an empty queue", || {
        let left = format!("SELECT count(*) FROM {}.job", cluster.schema);
        (Postgres::shared().sql("postern", &left) == "0").then_some(())
    });
    let twice: Vec<_> = arrived(cluster)
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(cluster.sink.count(), count);
}

/// The listener stays where it is when the gateway starts anew, as its clients know it.
fn on_a_port(cluster: &Cluster, name: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    let config = cluster.config(name);
    let config = config.replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()));
    fs::write(dir.path().join("config.toml"), config).unwrap();
    Gateway::start_in(dir)
}

/// Each counts the other: of one that dies before that, the part it had is all there is, and it is kept for it.
fn know_each_other(cluster: &Cluster) {
    let knew = format!(
        "SELECT min(knew) FROM {}.node WHERE gone IS NULL",
        cluster.schema
    );
    wait("each counts the other", || {
        (Postgres::shared().sql("postern", &knew) == "2").then_some(())
    });
}

fn goes_on(settings: fn(u16, u16) -> String) {
    let cluster = Cluster::new(Postgres::shared(), "");
    let [mut one, mut two] = ["relay-a", "relay-b"].map(|name| on_a_port(&cluster, name));
    let port = |gateway: &Gateway| gateway.address("local").port();
    know_each_other(&cluster);
    let postfix = NullClient::start(&settings(port(&one), port(&two)));
    postfix.take("both", 40, |_| {});
    each_once(&cluster, 40);
    one.kill();
    postfix.take("one is dead", 60, |_| {});
    each_once(&cluster, 100);
    one.restart();
    // The other one ends under way: what it has not taken goes by the first.
    postfix.take("the other ends", 200, |taken| {
        wait("some", || {
            (taken.load(Ordering::SeqCst) >= 60).then_some(())
        });
        assert_eq!(two.terminate(), 0, "{}", two.log());
    });
    each_once(&cluster, 300);
    two.restart();
    assert!(send(&two, "by hand"));
    each_once(&cluster, 301);
}

/// One after the other: two Postfix that start at once wait for each other.
#[test]
#[ignore = "needs PostgreSQL and Postfix, which tests/run installs"]
fn a_postfix_with_two_relay_hosts_or_a_fallback_relay() {
    goes_on(|one, two| format!("relayhost = [127.0.0.1]:{one}, [127.0.0.1]:{two}\n"));
    goes_on(|one, two| {
        format!("relayhost = [127.0.0.1]:{one}\nsmtp_fallback_relay = [127.0.0.1]:{two}\n")
    });
}

fn swaks(port: u16, subject: &str) -> bool {
    let said = command("swaks")
        .args(["--server", "127.0.0.1", "--port", &port.to_string()])
        .args(["--from", "app@corp.example", "--to", "x@corp.example"])
        .args(["--header", &format!("Subject: {subject}"), "--body", "b"])
        .stdin(Stdio::null())
        .output();
    said.unwrap().status.success()
}

fn msmtp(port: u16, subject: &str) -> bool {
    let mut msmtp = command("msmtp")
        .args(["--host=127.0.0.1", &format!("--port={port}")])
        .args([
            "--file=/dev/null",
            "--from=app@corp.example",
            "x@corp.example",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let text = format!("From: app@corp.example\nSubject: {subject}\n\ntext\n");
    // One that nobody listens to may be gone before it has read it.
    let _ = msmtp.stdin.take().unwrap().write_all(text.as_bytes());
    msmtp.wait().unwrap().success()
}

#[test]
#[ignore = "needs PostgreSQL, swaks and msmtp, which tests/run installs"]
fn scripts_that_try_the_other_one() {
    need("swaks");
    need("msmtp");
    let cluster = Cluster::new(Postgres::shared(), "");
    let [mut one, mut two] = ["relay-a", "relay-b"].map(|name| on_a_port(&cluster, name));
    know_each_other(&cluster);
    let ports = [&one, &two].map(|gateway| gateway.address("local").port());
    let by = |phase: &str| {
        let mut taken_by = Vec::new();
        for n in 0..6 {
            let subject = format!("{phase} {n}");
            let client: fn(u16, &str) -> bool = if n % 2 == 0 { swaks } else { msmtp };
            let taker = ports.iter().position(|port| client(*port, &subject));
            taken_by.push(taker.expect("one of them takes it"));
        }
        taken_by
    };
    assert_eq!(by("both"), [0; 6]);
    each_once(&cluster, 6);
    one.kill();
    assert_eq!(by("one is dead"), [1; 6]);
    each_once(&cluster, 12);
    one.restart();
    assert_eq!(two.terminate(), 0, "{}", two.log());
    assert_eq!(by("the other has ended"), [0; 6]);
    each_once(&cluster, 18);
}
