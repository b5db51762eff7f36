//! What goes wrong behind the gateway and below it: upstreams that vanish, hang or come back, disks that fill.

use crate::harness::time::{Latch, growth, stays};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::harness::{
    gateway::{Gateway, basic, queued_id, stdout, wait},
    peers::{free_port, small_disk},
    upstream::Upstream,
};

const CONTENT: &str = "From: App <app@corp.example>\r\nSubject: hello\r\n\r\nline\r\n";

fn send(gateway: &Gateway, to: &str) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&client.mail("app@corp.example", &[to], CONTENT))
}

fn field(text: &str, name: &str) -> String {
    text.lines()
        .find(|l| l.starts_with(name))
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .to_owned()
}

/// A second connector, with its route keys.
fn two(first: std::net::SocketAddr, second: std::net::SocketAddr) -> String {
    basic(first).replace("connectors = [\"up\"]", "connectors = [\"up\", \"second\"]")
        + &format!(
            "\n[[connector]]\nname = \"second\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
            second.port()
        )
}

#[test]
fn an_answer_lost_after_the_last_byte_is_in_doubt_and_sent_again_the_same() {
    let dots = AtomicUsize::new(0);
    let sink = Upstream::scripted(move |line| {
        (line == "." && dots.fetch_add(1, Ordering::SeqCst) == 0).then(String::new)
    });
    let other = Upstream::start();
    let config = two(sink.address, other.address) + "\n[queue]\nin_doubt_wait = \"8s\"\n";
    let gateway = Gateway::start(&config);
    let id = send(&gateway, "x@corp.example");
    let first = sink.wait(1).remove(0);
    wait("in doubt", || {
        stdout(&gateway.cli(&["trace", &id]))
            .contains("in doubt")
            .then_some(())
    });
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
    assert_eq!(list[0]["recipients"][0]["state"], "in doubt", "{list}");
    let second = sink.wait(2).remove(1);
    for name in ["Message-ID: ", "Date: "] {
        assert_eq!(field(&first.text(), name), field(&second.text(), name));
    }
    assert_eq!(first.data, second.data);
    assert_eq!(other.count(), 0, "never over to another connector at once");
    wait("done", || {
        (stdout(&gateway.cli(&["queue", "list", "--json"])).trim() == "[]").then_some(())
    });
    assert_eq!(sink.count(), 2);
}

#[test]
fn reply_before_its_question_is_neither_done_nor_failed() {
    for early in ["250 2.0.0 early", "451 4.3.0 early", "550 5.7.1 early"] {
        let sink = Upstream::scripted(move |line| match line {
            "DATA" => Some(format!("354 go\r\n{early}")),
            "." => Some("550 5.7.1 refused".to_owned()),
            _ => None,
        });
        let gateway =
            Gateway::start(&basic(sink.address).replace("retry = [\"1s\"]", "retry = [\"1h\"]"));
        let id = send(&gateway, "x@corp.example");
        let trace = wait("it is put off", || {
            let trace = stdout(&gateway.cli(&["trace", &id]));
            trace.contains("deferred").then_some(trace)
        });
        assert!(trace.contains(early), "{trace}");
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--all", "--json"])))
                .unwrap();
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 1, "no bounce: {list:?}");
        assert_eq!(list[0]["state"], "waiting", "{list:?}");
        assert_eq!(list[0]["recipients"][0]["state"], "waiting", "{list:?}");
        assert_eq!(sink.count(), 0);
    }
}

#[test]
fn what_stays_in_doubt_is_given_up_and_the_bounce_says_that_it_may_have_arrived() {
    let sink = Upstream::scripted(|line| (line == ".").then(String::new));
    let config = basic(sink.address)
        .replace("retry = [\"1s\"]", "retry = [\"1s\"]\ngive_up = \"3s\"")
        + "\n[queue]\nin_doubt_wait = \"1s\"\n\n[bounce]\nfrom = \"postmaster@corp.example\"\n";
    let gateway = Gateway::start(&config);
    let id = send(&gateway, "x@corp.example");
    wait("failed", || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        list.as_array()
            .unwrap()
            .iter()
            .any(|e| e["id"] == id.as_str() && e["state"] == "failed")
            .then_some(())
    });
    let bounce = wait("the bounce", || {
        sink.mails().into_iter().find(|m| m.from.is_empty())
    })
    .text();
    assert!(bounce.contains("may have arrived"), "{bounce}");
    let bounces = |gateway: &Gateway| {
        stdout(&gateway.cli(&["queue", "list", "--all", "--json"]))
            .matches("\"sender\": null")
            .count()
    };
    stays("one bounce", Duration::from_secs(2), || {
        bounces(&gateway) <= 1
    });
}

#[test]
fn what_the_first_connector_cannot_take_goes_to_the_second_at_once_and_back_when_it_can() {
    let port = free_port();
    let second = Upstream::start();
    let gateway = Gateway::start(&two(([127, 0, 0, 1], port).into(), second.address));
    let id = send(&gateway, "x@corp.example");
    second.wait(1);
    let trace = wait("the trace says how it went", || {
        let trace = stdout(&gateway.cli(&["trace", &id]));
        trace.contains("delivered").then_some(trace)
    });
    assert!(
        trace.contains("passed over") && trace.contains("it went to second"),
        "{trace}"
    );
    let status = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
    assert!(
        status.contains("closed") && status.contains("Connection refused"),
        "{status}"
    );
    // It is back: once its time has come, a message probes it and it is the first again.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port));
    drop(listener);
    let first = Upstream::start();
    fs::write(gateway.config_path(), two(first.address, second.address)).unwrap();
    stdout(&gateway.cli(&["reload"]));
    wait("the first takes mail again", || {
        let before = first.count() + second.count();
        send(&gateway, "x@corp.example");
        wait("one more", || {
            (first.count() + second.count() > before).then_some(())
        });
        (first.count() > 0).then_some(())
    });
}

/// A closed connector is probed on its own clock: what is back takes mail soon, though the messages' own steps are an hour long.
#[test]
fn mail_leaves_soon_after_the_upstream_is_back() {
    let is_away = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let sink = Upstream::scripted({
        let (is_away, asked) = (is_away.clone(), asked.clone());
        move |line| {
            if !line.starts_with("EHLO") {
                return None;
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let refused = || "421 4.3.2 not now".to_owned();
            is_away.load(Ordering::SeqCst).then(refused)
        }
    });
    let config = basic(sink.address).replace("retry = [\"1s\"]", "retry = [\"1h\"]")
        + "probe = \"1s\"\nmax_connections = 1\nmax_concurrent = 1\n";
    let gateway = Gateway::start(&config);
    let to = |n: usize| format!("x{n}@corp.example");
    for n in 0..6 {
        send(&gateway, &to(n));
    }
    gateway.wait_for_log(&["closed"]);
    let begun = Instant::now();
    stays("nothing leaves", Duration::from_secs(3), || {
        sink.count() == 0
    });
    let most = begun.elapsed().div_duration_f64(Duration::from_millis(900)) as usize;
    let probes = asked.load(Ordering::SeqCst);
    assert!((2..=most + 2).contains(&probes), "one a second: {probes}");
    is_away.store(false, Ordering::SeqCst);
    let back = Instant::now();
    let mails = sink.wait(6);
    // The wait is a second and a tenth at most; the rest is for a busy machine.
    assert!(back.elapsed() < Duration::from_secs(20));
    let order: Vec<&str> = mails.iter().map(|mail| mail.to[0].as_str()).collect();
    assert_eq!(
        order,
        (0..6).map(to).collect::<Vec<_>>(),
        "the oldest first"
    );
}

#[test]
fn an_upstream_that_hangs_does_not_slow_another() {
    let hung = Upstream::scripted(|line| {
        if line.starts_with("MAIL") {
            Latch::default().wait();
        }
        None
    });
    let quick = Upstream::start();
    let config = two(quick.address, hung.address)
        .replace("connectors = [\"up\", \"second\"]", "connectors = [\"up\"]")
        .replace(
            "[[route]]\nname = \"all\"",
            "[[route]]\nname = \"slow\"\nrecipients = [\"partner.example\"]\nconnectors = [\"second\"]\n\n[[route]]\nname = \"all\"",
        );
    let gateway = Gateway::start(&config);
    for n in 0..20 {
        send(&gateway, &format!("p{n}@partner.example"));
    }
    let start = Instant::now();
    for n in 0..20 {
        send(&gateway, &format!("x{n}@corp.example"));
    }
    quick.wait(20);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(hung.count(), 0);
}

#[test]
fn a_rate_is_never_exceeded_in_any_window() {
    let sink = Upstream::start();
    let config = basic(sink.address) + "rate = \"3/min\"\n";
    let gateway = Gateway::start(&config);
    for n in 0..6 {
        send(&gateway, &format!("x{n}@corp.example"));
    }
    sink.wait(3);
    stays("three in a minute", Duration::from_secs(3), || {
        sink.count() == 3
    });
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert!(
        String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).contains("open"),
        "waiting for a rate is not down"
    );
}

#[test]
#[ignore = "mounts a small disk as root; tests/run runs it"]
fn a_disk_that_is_full_refuses_and_recovers() {
    let dir = tempfile::TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let _disk = small_disk(&data, 40);
    let sink = Upstream::start();
    let port = free_port();
    let config = basic(([127, 0, 0, 1], port).into()).replace(
        "[allowlist]",
        "[limits]\nfree_disk = \"2MiB\"\n\n[allowlist]",
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let gateway = Gateway::start_in(dir);
    // Until it is full; every message that was acknowledged must come out in the end.
    let body = "0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n"
        .repeat(600);
    let mut acknowledged = 0;
    let refused = loop {
        let mut client = gateway.connect("local");
        client.expect("EHLO x", "250");
        let reply = client.say("MAIL FROM:<app@corp.example>");
        if !reply.starts_with("250") {
            break reply;
        }
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        client.send(format!("Subject: s\r\n\r\n{body}").as_bytes());
        let reply = client.say(".");
        if !reply.starts_with("250") {
            break reply;
        }
        acknowledged += 1;
        assert!(acknowledged < 2000, "40 MiB hold that much?");
    };
    assert!(refused.starts_with("452 4.3.1"), "{refused}");
    assert!(acknowledged > 10, "{acknowledged}");
    // What waits goes out although the disk is full, and then there is room again.
    fs::write(
        gateway.config_path(),
        fs::read_to_string(gateway.config_path()).unwrap().replace(
            &format!("port = {port}"),
            &format!("port = {}", sink.address.port()),
        ),
    )
    .unwrap();
    stdout(&gateway.cli(&["reload"]));
    sink.wait(acknowledged);
    // Whole messages, as many as before, without a wait for the hourly tidying up.
    let mut again = 0;
    wait("mail is taken again", || {
        let mut client = gateway.connect("local");
        client.expect("EHLO x", "250");
        if !client
            .say("MAIL FROM:<app@corp.example>")
            .starts_with("250")
        {
            return None;
        }
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        client.send(format!("Subject: s\r\n\r\n{body}").as_bytes());
        again += usize::from(client.say(".").starts_with("250"));
        (again == acknowledged).then_some(())
    });
    sink.wait(acknowledged + again);
    assert_eq!(sink.count(), acknowledged + again, "no copy more");
    drop(gateway);
}

#[test]
fn nothing_to_do_costs_nothing() {
    let gateway = Gateway::start(&basic(([127, 0, 0, 1], free_port()).into()));
    for n in 0..20 {
        send(&gateway, &format!("x{n}@corp.example"));
    }
    wait("the connector is closed", || {
        String::from_utf8_lossy(&gateway.cli(&["status"]).stdout)
            .contains("closed")
            .then_some(())
    });
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let spent = growth(Duration::from_secs(3), ticks);
    // A busy loop would be some 300 ticks of 10 ms.
    assert!(
        spent < 100,
        "{spent} ticks of CPU in 3 s with everything blocked"
    );
}

#[test]
fn a_password_file_that_is_corrected_heals_a_paused_connector_by_itself() {
    let sink = Upstream::scripted(|line| {
        if line.starts_with("EHLO") {
            return Some("250-sink\r\n250 AUTH PLAIN".to_owned());
        }
        // AUTH PLAIN, user "u": "right" is AHUAcmlnaHQ=.
        line.starts_with("AUTH").then(|| {
            if line.ends_with("AHUAcmlnaHQ=") {
                "235 2.7.0 ok"
            } else {
                "535 5.7.8 wrong"
            }
            .to_owned()
        })
    });
    let dir = tempfile::TempDir::new().unwrap();
    let config = basic(sink.address) + "username = \"u\"\npassword = { file = \"password\" }\n";
    fs::write(dir.path().join("config.toml"), config).unwrap();
    fs::write(dir.path().join("password"), "wrong\n").unwrap();
    let gateway = Gateway::start_in(dir);
    send(&gateway, "x@corp.example");
    wait("paused", || {
        String::from_utf8_lossy(&gateway.cli(&["status"]).stdout)
            .contains("paused")
            .then_some(())
    });
    fs::write(gateway.path("password"), "right\n").unwrap();
    sink.wait(1);
    gateway.wait_for_log(&["connector resumed"]);
}

#[test]
fn a_reload_keeps_the_connections_of_connectors_that_did_not_change() {
    let greeted = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = greeted.clone();
    let sink = Upstream::scripted(move |line| {
        if line.starts_with("EHLO") {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let gateway = Gateway::start(&basic(sink.address));
    send(&gateway, "x@corp.example");
    sink.wait(1);
    stdout(&gateway.cli(&["reload"]));
    send(&gateway, "x@corp.example");
    sink.wait(2);
    assert_eq!(greeted.load(Ordering::SeqCst), 1, "one connection for both");
    let other = fs::read_to_string(gateway.config_path()).unwrap() + "helo = \"other.example\"\n";
    fs::write(gateway.config_path(), other).unwrap();
    stdout(&gateway.cli(&["reload"]));
    send(&gateway, "x@corp.example");
    sink.wait(3);
    assert_eq!(
        greeted.load(Ordering::SeqCst),
        2,
        "other settings, another connection"
    );
}
