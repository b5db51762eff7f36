//! Gateways whose wall clocks are off by an hour, in either direction, and are set while they run, beside one that is right: the queue's
//! times are the database's, so nothing is sent early or late, limits hold, who dies is taken over as always, and lists agree.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, send},
    harness::{
        clock::Clock,
        gateway::{Gateway, queued_id, stdout},
        postgres::Postgres,
        time::wait,
        upstream::{Act, Script},
    },
};

const HOUR: i64 = 3_600;
const MOST: usize = 5;
const PER: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Seen {
    /// When the end of each message came.
    ends: Vec<Instant>,
    /// When each recipient was tried.
    tried: HashMap<String, Vec<Instant>>,
    /// The next message gets no answer to its end, ever.
    is_deaf: bool,
}

fn gateway(cluster: &Cluster, name: &str, off: i64) -> (Gateway, Clock) {
    let dir = TempDir::new().unwrap();
    let clock = Clock::new(dir.path());
    clock.set(off);
    let config = cluster.config(name);
    let config = config.replace("retry = [\"1s\"]", "retry = [\"3s\"]");
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let env = clock.env();
    (Gateway::start_with(dir, env), clock)
}

/// To this recipient; its id.
fn send_to(gateway: &Gateway, to: &str) -> String {
    let mut client = gateway.connect("local");
    client.expect("HELO app", "250");
    let content = "From: app@corp.example\r\nSubject: s\r\n\r\ntext\r\n";
    queued_id(&client.mail("app@corp.example", &[to], content))
}

fn seconds(time: &str) -> i64 {
    let time = time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339);
    time.unwrap().unix_timestamp()
}

/// What must hold, however the clocks are: the limit, what is deferred, and what lists and lives say.
fn all_is_as_always(cluster: &Cluster, seen: &Mutex<Seen>, gateways: [&Gateway; 3], round: &str) {
    let before = cluster.sink.count();
    seen.lock().unwrap().ends.clear();
    for n in 0..15 {
        assert!(send(gateways[n % 3], &format!("{round} {n}")));
    }
    cluster.sink.wait(before + 15);
    let ends = seen.lock().unwrap().ends.clone();
    let in_window = |at: usize| {
        let later = ends[at..].iter();
        later
            .take_while(|end| **end - ends[at] < PER * 98 / 100)
            .count()
    };
    let most = (0..ends.len()).map(in_window).max().unwrap();
    assert!(most <= MOST, "{round}: {most} in one window");
    let whole = *ends.last().unwrap() - ends[0];
    assert!(whole < PER * 6, "{round}: {whole:?}");
    let mut ids = Vec::new();
    for (n, gateway) in gateways.iter().enumerate() {
        ids.push(send_to(gateway, &format!("later-{round}-{n}@corp.example")));
    }
    cluster.sink.wait(before + 18);
    for (to, tried) in &seen.lock().unwrap().tried {
        if to.contains(&format!("later-{round}-")) {
            assert_eq!(tried.len(), 2, "{to}");
            let waited = tried[1] - tried[0];
            // A wait is up to a fifth shorter or longer.
            let is_due = waited > RETRY * 78 / 100 && waited < RETRY + PER * 3;
            assert!(is_due, "{to}: {waited:?}");
        }
    }
    let now: i64 = Postgres::shared()
        .sql("postern", "SELECT extract(epoch FROM now())::bigint")
        .parse()
        .unwrap();
    let listed = gateways.map(|gateway| {
        let all = stdout(&gateway.cli(&["queue", "list", "--all", "--json"]));
        let all: Value = serde_json::from_str(&all).unwrap();
        let times = all.as_array().unwrap().iter().map(|one| {
            let at = one["accepted_at"].as_str().unwrap();
            assert!((now - seconds(at)).abs() < 300, "{round}: {at}");
            at.to_owned()
        });
        times.collect::<Vec<_>>()
    });
    assert_eq!((&listed[0], &listed[1]), (&listed[1], &listed[2]));
    for id in ids {
        let life = stdout(&gateways[0].cli(&["trace", &id, "--json"]));
        let life: Value = serde_json::from_str(&life).unwrap();
        let times: Vec<i64> = life[0]["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{life}"))
            .iter()
            .map(|event| seconds(event["at"].as_str().unwrap()))
            .collect();
        assert!(times.len() >= 3 && times.is_sorted(), "{round}: {life}");
        assert!((now - times[0]).abs() < 300, "{round}: {life}");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn gateways_whose_clocks_are_off_by_an_hour() {
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let heard = Arc::clone(&seen);
    let sink = Script::default()
        .when(move |at| {
            let mut seen = heard.lock().unwrap();
            match at.stage {
                "EOD" => {
                    seen.ends.push(Instant::now());
                    std::mem::take(&mut seen.is_deaf).then_some(Act::Hang)
                }
                "RCPT" | "RCPT1" if at.line.contains("later-") => {
                    let tried = seen.tried.entry(at.line.to_owned()).or_default();
                    tried.push(Instant::now());
                    (tried.len() == 1).then_some(Act::says("450 4.2.1 later"))
                }
                _ => None,
            }
        })
        .start();
    let cluster = Cluster {
        sink,
        ..Cluster::new(Postgres::shared(), "rate = \"5/4s\"\n")
    };
    let (mut ahead, ahead_clock) = gateway(&cluster, "relay-a", HOUR);
    let (behind, behind_clock) = gateway(&cluster, "relay-b", -HOUR);
    let right = cluster.member("relay-c");
    let config = fs::read_to_string(right.config_path()).unwrap();
    let config = config.replace("retry = [\"1s\"]", "retry = [\"3s\"]");
    fs::write(right.config_path(), config).unwrap();
    right.hang_up();
    right.wait_for_log(&["event=reloaded"]);
    all_is_as_always(&cluster, &seen, [&ahead, &behind, &right], "off");
    // Set while they run, far across.
    ahead_clock.set(-2 * HOUR);
    behind_clock.set(2 * HOUR);
    all_is_as_always(&cluster, &seen, [&ahead, &behind, &right], "set");
    for gateway in [&ahead, &behind, &right] {
        let said = String::from_utf8(gateway.cli(&["status"]).stdout).unwrap();
        assert!(said.contains("3 members"), "{said}");
        assert!(!said.contains("silent"), "{said}");
    }
    // Whoever sends it dies with it.
    seen.lock().unwrap().is_deaf = true;
    let before = cluster.sink.count();
    let id = send_to(&ahead, "x@corp.example");
    let sender = wait("it is being sent", || {
        let all = stdout(&right.cli(&["queue", "list", "--state", "sending", "--json"]));
        let all: Value = serde_json::from_str(&all).unwrap();
        let by = all.get(0)?["sent_by"].as_str()?.to_owned();
        (!seen.lock().unwrap().is_deaf).then_some(by)
    });
    let died = Instant::now();
    let mut behind = behind;
    let mut right = right;
    let others = match sender.as_str() {
        "relay-a" => {
            ahead.kill();
            [&behind, &right]
        }
        "relay-b" => {
            behind.kill();
            [&ahead, &right]
        }
        _ => {
            right.kill();
            [&ahead, &behind]
        }
    };
    // With the one that it has not answered.
    cluster.sink.wait(before + 2);
    let waited = died.elapsed();
    assert!(
        waited > Duration::from_secs(8) && waited < Duration::from_secs(40),
        "{waited:?}"
    );
    let life = stdout(&others[0].cli(&["trace", &id]));
    let told = format!("{sender} went silent while it sent this");
    assert!(life.contains(&told), "{life}");
}
