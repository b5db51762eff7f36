//! Other relays as upstreams, some way off: Postfix, Exim and OpenSMTPD answer a message's commands behind the content of another as
//! they should, and Postfix with a limit of connections is found out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::harness::{
    delay::delay,
    gateway::{Client, Gateway, basic, stdout, wait},
    peers::{free_port, peers},
    upstream::Upstream,
};

/// A relay of the benchmark: it takes everything from loopback and sends it on to a sink.
pub(super) struct Relay {
    name: &'static str,
    dir: TempDir,
    port: u16,
    sink: Upstream,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("bench/peers/{name}.sh"))
}

impl Relay {
    fn start(name: &'static str) -> Self {
        Self::start_to(name, None, &[])
    }

    /// The same, sending on to this port of loopback, with more in the environment of its script.
    pub(super) fn start_to(name: &'static str, next: Option<u16>, more: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("postern-relay")
            .tempdir_in("/tmp")
            .unwrap();
        let sink = Upstream::start();
        let port = free_port();
        let relay = Self {
            name,
            dir,
            port,
            sink,
        };
        let next = next.unwrap_or(relay.sink.address.port());
        relay.run("start", Some(next), more);
        wait(name, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        relay
    }

    /// Where it takes mail.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where it sends its mail, unless that is elsewhere.
    pub(super) fn sink(&self) -> &Upstream {
        &self.sink
    }

    fn run(&self, verb: &str, next: Option<u16>, more: &[(&str, &str)]) {
        let dir = self.dir.path().to_str().unwrap();
        let mut command = Command::new(script(self.name));
        command.arg(verb).envs(more.iter().copied());
        if let Some(next) = next {
            let (port, sink) = (self.port.to_string(), next.to_string());
            command.arg(peers()).args([dir, &port, &sink]);
        } else {
            command.arg(dir);
        }
        let done = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "{} {verb}", self.name);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.run("stop", None, &[]);
    }
}

/// Sends so many messages over eight connections, and waits until all of them are at the sink.
fn burst(gateway: &Gateway, relay: &Relay, count: usize) {
    let senders: Vec<_> = (0..8)
        .map(|part| {
            let mut client = gateway.connect("local");
            thread::spawn(move || {
                client.expect("EHLO app", "250");
                for number in (0..count).filter(|n| n % 8 == part) {
                    let text =
                        format!("From: app@corp.example\r\nSubject: number {number}\r\n\r\n.x\r\n");
                    client.mail("app@corp.example", &["x@corp.example"], &text);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    wait(&format!("{count} messages by {}", relay.name), || {
        (relay.sink.mails().len() >= count).then_some(())
    });
    let mails = relay.sink.mails();
    let subjects: BTreeSet<String> = mails
        .iter()
        .map(|mail| {
            let text = mail.text();
            let subject = text.lines().find(|line| line.starts_with("Subject: "));
            subject.unwrap().to_owned()
        })
        .collect();
    assert_eq!((mails.len(), subjects.len()), (count, count), "each once");
    let log = gateway.log();
    for word in [
        "event=deferred",
        "event=\"connector paused\"",
        "pipelining=",
    ] {
        assert!(!log.contains(word), "{}: {log}", relay.name);
    }
}

#[test]
#[ignore = "needs Postfix, Exim and OpenSMTPD, which tests/run gets"]
fn a_burst_over_a_line_of_some_length_is_taken_by_real_relays() {
    for name in ["postfix", "exim", "opensmtpd"] {
        let relay = Relay::start(name);
        let at = ([127, 0, 0, 1], relay.port).into();
        let far = delay(at, Duration::from_millis(20));
        // Few connections, so that a message waits behind each.
        let config = basic(far) + "max_connections = 2\n";
        let gateway = Gateway::start(&config);
        burst(&gateway, &relay, 120);
    }
}

#[test]
#[ignore = "needs Postfix, which tests/run installs"]
fn a_postfix_that_takes_two_connections_is_given_two() {
    let relay = Relay::start("postfix");
    let etc = relay.dir.path().join("etc");
    let set = Command::new("postconf")
        .arg("-c")
        .arg(&etc)
        .args(["-e", "smtpd_client_connection_count_limit=2"])
        .arg("smtpd_client_event_limit_exceptions=")
        .status();
    assert!(set.unwrap().success());
    let reload = Command::new("postfix")
        .arg("-c")
        .arg(&etc)
        .arg("reload")
        .stderr(Stdio::null())
        .status();
    assert!(reload.unwrap().success());
    let at = ([127, 0, 0, 1], relay.port).into();
    let gateway = Gateway::start(&basic(delay(at, Duration::from_millis(20))));
    burst(&gateway, &relay, 60);
    wait("status says it", || {
        let said = stdout(&gateway.cli(&["status"]));
        said.contains("(the upstream takes 2 at once)")
            .then_some(())
    });
}

/// Exim sends by BDAT wherever it may; what it sends arrives as it was written, dots, long lines and all.
#[test]
#[ignore = "needs Exim, which tests/run gets"]
fn exim_sends_in_chunks() {
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\nchunking = true",
    ) + "[[client]]\nname = \"here\"\nnetworks = [\"127.0.0.0/8\"]\ntranscript = true\n";
    let gateway = Gateway::start(&config);
    let relay = Relay::start_to("exim", Some(gateway.address("local").port()), &[]);
    let large = (0..20_000).map(|n| format!(".{n} {}\r\n", "y".repeat(n % 70)));
    let bodies = [
        ".\r\n..\r\nMAIL FROM:<evil@corp.example>\r\n.x\r\n".to_owned(),
        String::new(),
        large.collect(),
        format!("{}\r\n", "z".repeat(900)),
    ];
    let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
    assert!(client.reply().starts_with("220"));
    client.expect("EHLO app", "250");
    for (n, body) in bodies.iter().enumerate() {
        let stuffed = body.replace("\r\n.", "\r\n..");
        let stuffed = match stuffed.strip_prefix('.') {
            Some(rest) => format!("..{rest}"),
            None => stuffed,
        };
        let text = format!("From: app@corp.example\r\nSubject: number {n}\r\n\r\n{stuffed}");
        client.mail("app@corp.example", &["x@corp.example"], &text);
    }
    wait("all of them", || {
        (sink.mails().len() >= bodies.len()).then_some(())
    });
    let mails = sink.mails();
    for (n, body) in bodies.iter().enumerate() {
        let subject = format!("Subject: number {n}\r\n");
        let mail = mails.iter().find(|mail| mail.text().contains(&subject));
        let text = mail.unwrap().text();
        let (_, arrived) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            arrived == body,
            "number {n}: {} of {}",
            arrived.len(),
            body.len()
        );
    }
    assert_eq!(mails.len(), bodies.len());
    let log = gateway.log();
    let chunks = log.lines().filter(|line| line.contains("line=\"BDAT "));
    assert!(chunks.count() >= bodies.len(), "{log}");
    assert!(
        !log.contains("line=DATA") && !log.contains("rejected"),
        "{log}"
    );
}
