//! Several gateways on one PostgreSQL: what is acknowledged arrives once, whoever dies, and a limit is one limit for all.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{
    gateway::{Client, Gateway, basic, stdout},
    postgres::Postgres,
    time::wait,
    upstream::Upstream,
};

/// A queue for gateways: a schema in a database.
struct Cluster {
    schema: String,
    port: u16,
    sink: Upstream,
    /// More of `[[connector]]`.
    connector: &'static str,
}

impl Cluster {
    fn new(server: &Postgres, connector: &'static str) -> Self {
        Self {
            schema: format!("cluster_{:016x}", fastrand::u64(..)),
            port: server.port,
            sink: Upstream::start(),
            connector,
        }
    }

    /// A member of this name, in a directory of its own.
    fn member(&self, name: &str) -> Gateway {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("config.toml"), self.config(name)).unwrap();
        Gateway::start_in(dir)
    }

    fn config(&self, name: &str) -> String {
        let (port, schema) = (self.port, &self.schema);
        format!(
            "{}{}\n[queue]\nstore = \"postgres\"\n\
             [postgres]\nhosts = [\"127.0.0.1:{port}\"]\ndatabase = \"postern\"\nusername = \"postern\"\n\
             password = \"a password\"\ntls = \"off\"\nschema = \"{schema}\"\n\
             [cluster]\nname = \"{name}\"\ndead_after = \"10s\"\n",
            basic(self.sink.address),
            self.connector
        )
    }

    /// How often each subject has arrived.
    fn arrived(&self) -> HashMap<String, usize> {
        let mut arrived = HashMap::new();
        for mail in self.sink.mails() {
            *arrived.entry(mail.subject()).or_default() += 1;
        }
        arrived
    }
}

/// Sends one message; whether it was acknowledged.
fn send(gateway: &Gateway, subject: &str) -> bool {
    let Ok(mut client) = Client::try_connect(gateway.address("local")) else {
        return false;
    };
    let content = format!("Subject: {subject}\r\n\r\ntext\r\n.\r\n");
    [
        ("", "220"),
        ("HELO x\r\n", "250"),
        ("MAIL FROM:<app@corp.example>\r\n", "250"),
        ("RCPT TO:<x@corp.example>\r\n", "250"),
        ("DATA\r\n", "354"),
        (&content, "250"),
    ]
    .into_iter()
    .all(|(said, code)| client.tries(said.as_bytes(), code))
}

#[test]
#[ignore = "needs PostgreSQL"]
fn what_any_of_three_gateways_takes_arrives_once() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let members = ["relay-a", "relay-b", "relay-c"].map(|name| cluster.member(name));
    for n in 0..60 {
        assert!(send(&members[n % 3], &format!("m{n}")));
    }
    wait("all of it", || (cluster.sink.count() >= 60).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    let arrived = cluster.arrived();
    assert_eq!(arrived.len(), 60);
    assert!(arrived.values().all(|n| *n == 1), "{arrived:?}");
    for mut member in members {
        assert_eq!(member.terminate(), 0, "{}", member.log());
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_rate_is_one_rate_for_all_gateways() {
    const MOST: usize = 5;
    const PER: Duration = Duration::from_secs(4);
    let cluster = Cluster::new(Postgres::shared(), "rate = \"5/4s\"\n");
    let members = ["relay-a", "relay-b", "relay-c"].map(|name| cluster.member(name));
    let begun = Instant::now();
    for n in 0..24 {
        assert!(send(&members[n % 3], &format!("m{n}")));
    }
    let mut times: Vec<Instant> = Vec::new();
    wait("all of it", || {
        let count = cluster.sink.count();
        times.resize(count.max(times.len()), Instant::now());
        (count >= 24).then_some(())
    });
    assert!(begun.elapsed() >= PER * 4, "{:?}", begun.elapsed());
    for (at, first) in times.iter().enumerate() {
        let within = times[at..]
            .iter()
            .filter(|time| **time - *first < PER - Duration::from_millis(300));
        assert!(within.count() <= MOST, "{times:?}");
    }
    let arrived = cluster.arrived();
    assert!(
        arrived.len() == 24 && arrived.values().all(|n| *n == 1),
        "{arrived:?}"
    );
    let _ = stdout;
}
