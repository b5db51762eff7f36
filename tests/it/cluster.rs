//! Several gateways on one PostgreSQL: what is acknowledged arrives once, whoever dies, and a limit is one limit for all.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{
    cloud::Tenant,
    cloud_limits::Limits,
    gateway::{Client, Gateway, basic},
    hole::Hole,
    postgres::Postgres,
    time::wait,
    upstream::{Act, Script, Upstream},
};

/// A queue for gateways: a schema in a database.
pub(crate) struct Cluster {
    pub(crate) schema: String,
    pub(crate) port: u16,
    pub(crate) sink: Upstream,
    /// More of `[[connector]]`; of a tenant, its rate.
    pub(crate) connector: &'static str,
    /// Where it goes in place of the sink.
    pub(crate) tenant: Option<Tenant>,
}

impl Cluster {
    pub(crate) fn new(server: &Postgres, connector: &'static str) -> Self {
        Self {
            schema: format!("cluster_{:016x}", fastrand::u64(..)),
            port: server.port,
            sink: Upstream::start(),
            connector,
            tenant: None,
        }
    }

    /// A member of this name, in a directory of its own.
    pub(crate) fn member(&self, name: &str) -> Gateway {
        self.member_by(name, self.port)
    }

    /// The same, with another way to the database.
    fn member_by(&self, name: &str, port: u16) -> Gateway {
        let dir = TempDir::new().unwrap();
        let config = self.config(name);
        let config = config.replace(
            &format!("127.0.0.1:{}", self.port),
            &format!("127.0.0.1:{port}"),
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        Gateway::start_in(dir)
    }

    pub(crate) fn config(&self, name: &str) -> String {
        let (port, schema) = (self.port, &self.schema);
        let (front, own) = match &self.tenant {
            Some(tenant) => {
                let basic = basic(self.sink.address);
                let (front, _) = basic.split_once("[[connector]]").unwrap();
                let rate = format!("rate = \"{}\"", self.connector);
                (
                    front.to_owned(),
                    tenant.connector().replace("rate = \"1000/min\"", &rate),
                )
            }
            None => (basic(self.sink.address), self.connector.to_owned()),
        };
        format!(
            "{front}{own}\n[queue]\nstore = \"postgres\"\nin_doubt_wait = \"1s\"\n\
             [postgres]\nhosts = [\"127.0.0.1:{port}\"]\ndatabase = \"postern\"\nusername = \"postern\"\n\
             password = \"a password\"\ntls = \"off\"\nschema = \"{schema}\"\n\
             [cluster]\nname = \"{name}\"\ndead_after = \"10s\"\n"
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
pub(crate) fn send(gateway: &Gateway, subject: &str) -> bool {
    send_to(gateway.address("local"), subject)
}

fn send_to(address: SocketAddr, subject: &str) -> bool {
    let Ok(mut client) = Client::try_connect(address) else {
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
    let (sink, times) = timed(Duration::ZERO);
    let cluster = Cluster {
        sink,
        ..Cluster::new(Postgres::shared(), "rate = \"5/4s\"\n")
    };
    let members = ["relay-a", "relay-b", "relay-c"].map(|name| cluster.member(name));
    let begun = Instant::now();
    for n in 0..24 {
        assert!(send(&members[n % 3], &format!("m{n}")));
    }
    cluster.sink.wait(24);
    assert!(begun.elapsed() >= PER * 4, "{:?}", begun.elapsed());
    let times = times.lock().unwrap();
    assert!(most_in(&times, PER * 98 / 100) <= MOST, "{times:?}");
    let arrived = cluster.arrived();
    assert!(
        arrived.len() == 24 && arrived.values().all(|n| *n == 1),
        "{arrived:?}"
    );
}

/// What befalls a gateway.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// `kill -9`, and a start soon after.
    Kill,
    /// `kill -9`, and a start when it has been taken over.
    Death,
    /// It stands still for a moment.
    Pause,
    /// It stands still until it has been taken over.
    Sleep,
    /// It ends as it should, and starts.
    Restart,
    /// It is cut off from the database for longer than it takes to be dead: no connection ends, and nothing comes through.
    Cut,
    /// The database is stopped for a moment.
    Database,
    /// The database is away for longer than it takes to be dead.
    Outage,
}

/// Takes everything, answers each dot after this time, and remembers when it came.
pub(crate) fn timed(answer: Duration) -> (Upstream, Arc<Mutex<Vec<Instant>>>) {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let heard = Arc::clone(&times);
    let upstream = Script::default().when(move |at| {
        (at.stage == "EOD").then(|| {
            heard.lock().unwrap().push(Instant::now());
            Act::After(answer)
        })
    });
    (upstream.start(), times)
}

/// The most that came within such a time.
fn most_in(times: &[Instant], window: Duration) -> usize {
    let within = |at: usize| {
        let later = times[at..].iter();
        later.take_while(|time| **time - times[at] < window).count()
    };
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// Seeded faults while mail comes in everywhere: acknowledged mail arrives, more than once only what was in doubt, and neither the rate nor
/// the concurrency of the connector is exceeded by all together.
fn befalls(seed: u64, faults: usize) {
    const RATE: (usize, Duration) = (30, Duration::from_secs(3));
    const CONCURRENT: usize = 4;
    const ANSWER: Duration = Duration::from_millis(300);
    let mut random = fastrand::Rng::with_seed(seed);
    let (sink, times) = timed(ANSWER);
    let mut server = Postgres::start("");
    let cluster = Cluster {
        sink,
        ..Cluster::new(&server, "rate = \"30/3s\"\nmax_concurrent = 4\n")
    };
    let holes = [(); 3].map(|()| Hole::before(server.port));
    let mut members: Vec<Gateway> = ["relay-a", "relay-b", "relay-c"]
        .iter()
        .zip(&holes)
        .map(|(name, hole)| cluster.member_by(name, hole.address.port()))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let addresses: Arc<Mutex<Vec<SocketAddr>>> = Arc::new(Mutex::new(
        members
            .iter()
            .map(|member| member.address("local"))
            .collect(),
    ));
    let acknowledged: Arc<Mutex<HashSet<String>>> = Arc::default();
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let (stop, addresses, acknowledged) =
                (stop.clone(), addresses.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let subject = format!("s{sender}n{n}");
                    let address = addresses.lock().unwrap()[sender];
                    if send_to(address, &subject) {
                        acknowledged.lock().unwrap().insert(subject);
                    }
                    std::thread::sleep(Duration::from_millis(180));
                }
            })
        })
        .collect();
    let mut log = Vec::new();
    let mut doubts = 0;
    for _ in 0..faults {
        std::thread::sleep(Duration::from_millis(random.u64(1_500..5_000)));
        let which = random.usize(..members.len());
        let fault = random
            .choice([
                Fault::Kill,
                Fault::Death,
                Fault::Pause,
                Fault::Sleep,
                Fault::Restart,
                Fault::Cut,
                Fault::Database,
                Fault::Outage,
            ])
            .unwrap();
        log.push((which, fault));
        let member = &mut members[which];
        match fault {
            Fault::Kill | Fault::Death => {
                doubts += CONCURRENT;
                member.kill();
                let wait = if matches!(fault, Fault::Kill) {
                    500
                } else {
                    14_000
                };
                std::thread::sleep(Duration::from_millis(wait));
                member.restart();
            }
            Fault::Pause | Fault::Sleep => {
                member.send_signal("STOP");
                let wait = if matches!(fault, Fault::Pause) {
                    2_000
                } else {
                    14_000
                };
                std::thread::sleep(Duration::from_millis(wait));
                member.send_signal("CONT");
                doubts += CONCURRENT;
            }
            Fault::Database | Fault::Outage => {
                server.stop();
                let wait = if matches!(fault, Fault::Database) {
                    1_500
                } else {
                    14_000
                };
                std::thread::sleep(Duration::from_millis(wait));
                server.start_again();
            }
            Fault::Cut => {
                holes[which].set(true);
                std::thread::sleep(Duration::from_secs(14));
                holes[which].set(false);
                doubts += CONCURRENT;
            }
            Fault::Restart => {
                assert_eq!(member.terminate(), 0, "{}", member.log());
                member.restart();
            }
        }
        addresses.lock().unwrap()[which] = member.address("local");
    }
    std::thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 30, "{}", acknowledged.len());
    // However much has piled up: it goes on as long as something arrives.
    let mut last = (0, Instant::now());
    loop {
        let arrived = cluster.arrived();
        if arrived.len() > last.0 {
            last = (arrived.len(), Instant::now());
        }
        let missing: Vec<_> = acknowledged
            .iter()
            .filter(|one| !arrived.contains_key(*one))
            .collect();
        if missing.is_empty() {
            break;
        }
        if last.1.elapsed() > Duration::from_secs(75) {
            let schema = &cluster.schema;
            let jobs = format!("SELECT * FROM {schema}.job; SELECT * FROM {schema}.node");
            let jobs = server.sql("postern", &jobs);
            panic!("seed {seed}: {log:?}: missing {missing:?}\n{jobs}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let arrived = cluster.arrived();
    let copies: usize = arrived.values().map(|n| n - 1).sum();
    assert!(
        copies <= doubts,
        "seed {seed}: {log:?}: {copies} copies, {doubts} may have been in doubt"
    );
    let times = times.lock().unwrap();
    // The sink hears the end of a message a little later than the gateway begins it, and one later than another.
    let (at_once, in_one) = (
        most_in(&times, ANSWER * 5 / 6),
        most_in(&times, RATE.1 * 98 / 100),
    );
    assert!(
        at_once <= CONCURRENT,
        "seed {seed}: {log:?}: {at_once} at once"
    );
    assert!(
        in_one <= RATE.0,
        "seed {seed}: {log:?}: {in_one} in one window"
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn three_gateways_under_faults() {
    // In tests/run --long others are tried.
    let seeds = std::env::var("POSTERN_SEEDS").unwrap_or_else(|_| "1".to_owned());
    for seed in seeds.split(' ').filter(|seed| !seed.is_empty()) {
        let begun = Instant::now();
        befalls(seed.parse().unwrap(), 6);
        eprintln!("seed {seed}: {:?}", begun.elapsed());
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn mail_goes_on_while_the_database_is_away_and_moves_when_it_is_back() {
    let mut server = Postgres::start("");
    let cluster = Cluster::new(&server, "");
    let [one, two] = ["relay-a", "relay-b"].map(|name| cluster.member(name));
    assert!(send(&one, "before") && send(&two, "before too"));
    cluster.sink.wait(2);
    server.stop();
    wait("the database is missed", || {
        let said = text(&one.cli(&["status"]));
        said.contains("away since").then_some(())
    });
    assert_eq!(one.cli(&["status"]).status.code(), Some(1));
    // What no limit is shared for goes out at once.
    for n in 0..10 {
        assert!(send(&one, &format!("away {n}")));
    }
    cluster.sink.wait(12);
    // What cannot be sent lies here, and is seen here.
    assert!(one.cli(&["connector", "stop", "up"]).status.code() == Some(69));
    let list = one.cli(&["queue", "list"]);
    assert_eq!(list.status.code(), Some(69), "{}", text(&list));
    assert!(
        text(&list).contains("; this is what is spilled here"),
        "{}",
        text(&list)
    );
    server.start_again();
    wait("both are back", || {
        let said = [text(&one.cli(&["status"])), text(&two.cli(&["status"]))];
        let is_back = |said: &String| {
            !said.contains("away since") && said.contains("spilled here: 0 messages")
        };
        said.iter().all(is_back).then_some(())
    });
    assert!(send(&two, "after"));
    cluster.sink.wait(13);
    std::thread::sleep(Duration::from_secs(2));
    let arrived = cluster.arrived();
    assert!(
        arrived.len() == 13 && arrived.values().all(|n| *n == 1),
        "{arrived:?}"
    );
    // What was sent meanwhile is in the history of the gateway that sent it.
    let all = text(&one.cli(&["queue", "list", "--all"]));
    assert_eq!(all.matches("app@corp.example").count(), 13, "{all}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_gateways_of_one_name_do_not_work_side_by_side() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let one = cluster.member("relay-a");
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), cluster.config("relay-a")).unwrap();
    let other = std::process::Command::new(Gateway::binary())
        .args(["run", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = text(&other);
    assert_eq!(other.status.code(), Some(75), "{said}");
    assert!(
        said.contains(
            "a gateway named \"relay-a\" is already at work; give this one another cluster.name"
        ),
        "{said}"
    );
    assert!(send(&one, "still at work"));
    cluster.sink.wait(1);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_others_are_seen_and_forgotten() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let one = cluster.member("relay-a");
    let mut two = cluster.member("relay-b");
    let status = || text(&one.cli(&["status"]));
    wait("the other one", || {
        let said = status();
        (said.contains("relay-a is running")
            && said.contains("2 members")
            && said.contains("member      relay-b"))
        .then_some(())
    });
    let seen = one.cli(&["status", "--json"]);
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["store"]["kind"], "postgres");
    assert_eq!(seen["store"]["state"], "ok");
    let members = seen["members"].as_array().unwrap();
    let named = |name: &str| {
        members
            .iter()
            .find(|member| member["name"] == name)
            .unwrap()
    };
    assert_eq!(
        (&named("relay-a")["this"], &named("relay-b")["this"]),
        (&true.into(), &false.into())
    );
    assert_eq!(named("relay-b")["same_config"], true);
    // One that lives is not forgotten.
    let refused = one.cli(&["queue", "forget", "relay-b"]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused));
    two.kill();
    wait("it is missed", || {
        status().contains("silent for").then_some(())
    });
    assert_eq!(one.cli(&["status"]).status.code(), Some(1));
    let done = one.cli(&["queue", "forget", "relay-b"]);
    assert!(done.status.success(), "{}", text(&done));
    wait("it is forgotten", || {
        let said = status();
        (!said.contains("relay-b") && said.contains("1 member")).then_some(())
    });
    assert_eq!(
        one.cli(&["queue", "forget", "relay-x"]).status.code(),
        Some(1)
    );
}

/// Exchange Online counts by mailbox, whoever of the gateways sends: four requests at once, and so many messages in a window.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_mailbox_is_sent_no_more_by_three_gateways_than_by_one() {
    const MOST: usize = 12;
    const PER: Duration = Duration::from_secs(4);
    let limits = Limits {
        messages: (MOST, PER),
        ..Limits::default()
    };
    let tenant = Tenant::limited(limits, |_, _| {
        std::thread::sleep(Duration::from_millis(60));
        None
    });
    let cluster = Cluster {
        tenant: Some(tenant),
        ..Cluster::new(Postgres::shared(), "12/4s")
    };
    let tenant = cluster.tenant.as_ref().unwrap();
    let mut members = ["relay-a", "relay-b", "relay-c"].map(|name| cluster.member(name));
    let senders = ["one@corp.example", "two@corp.example"];
    for n in 0..60 {
        let mut client = members[n % 3].connect("local");
        client.expect("EHLO app", "250");
        let from = senders[n % 2];
        let content = format!("From: {from}\r\nSubject: m{n}.\r\n\r\ntext\r\n");
        client.mail(from, &["x@corp.example"], &content);
        if n == 40 {
            // Whoever has the lanes: the others go on with what is left of the window.
            assert_eq!(members[0].terminate(), 0, "{}", members[0].log());
            members[0].restart();
        }
    }
    wait("all of it", || (tenant.mails().len() >= 60).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(tenant.mails().len(), 60, "each once");
    assert_eq!(tenant.violations(), Vec::<String>::new());
    assert!(tenant.most_at_once() > 1, "nothing was under way together");
}
