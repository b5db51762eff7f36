//! Quotas and header rules in the real gateway: what is held and let go, what is refused, what a restart and a crash remember.

use crate::harness::time::stays;
use std::{fs, time::Duration};

use serde_json::Value;

use super::harness::{
    gateway::{Client, Gateway, basic, queued_id, stdout, wait},
    upstream::Upstream,
};

const CONTENT: &str = "From: app@corp.example\r\nSubject: report\r\n\r\nbody\r\n";
const USED_UP: &str = "450 4.7.1 quota erp: 3 recipients an hour are used up";

/// A gateway with this quota, and more.
fn with_quota(upstream: &Upstream, over: &str, more: &str) -> String {
    let quota = format!(
        "\n[[quota]]\nname = \"erp\"\nper = \"sender\"\nmax = \"3/h\"\nover = \"{over}\"\n{more}\n"
    );
    basic(upstream.address) + &quota
}

fn session(gateway: &Gateway) -> Client {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    client
}

fn mail(client: &mut Client) -> String {
    queued_id(&client.mail("app@corp.example", &["x@corp.example"], CONTENT))
}

/// What RCPT is answered.
fn rcpt(gateway: &Gateway) -> String {
    let mut client = session(gateway);
    client.expect("MAIL FROM:<app@corp.example>", "250");
    client.say("RCPT TO:<x@corp.example>")
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&gateway.cli(arguments))).unwrap()
}

#[test]
fn what_is_held_waits_until_it_is_released_and_is_not_counted_again() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&with_quota(&sink, "hold", ""));
    let mut client = session(&gateway);
    let ids: Vec<String> = (0..6).map(|_| mail(&mut client)).collect();
    sink.wait(3);
    let held = json(&gateway, &["queue", "list", "--quota", "erp", "--json"]);
    let held = held.as_array().unwrap();
    assert_eq!(held.len(), 3, "{held:?}");
    for entry in held {
        assert_eq!(entry["state"], "held");
        assert_eq!(entry["held_by"], "quota erp");
    }
    let shown = stdout(&gateway.cli(&["queue", "list"]));
    assert!(shown.contains("held by quota erp"), "{shown}");
    let life = stdout(&gateway.cli(&["trace", &ids[5]]));
    assert!(life.contains("held by quota erp on route all"), "{life}");
    gateway.wait_for_log(&["event=accepted", &ids[5], "held by quota erp"]);
    wait("who has no room", || {
        let status = stdout(&gateway.cli(&["status"]));
        let line = "quota       erp is used up for 1: app@corp.example";
        status.contains(line).then_some(())
    });
    // Neither a crash nor a restart sends it.
    gateway.kill();
    gateway.restart();
    assert_eq!(gateway.terminate(), 0);
    gateway.restart();
    stays("held", Duration::from_secs(2), || sink.count() == 3);
    let one = gateway.cli(&["queue", "release", &ids[3]]);
    assert_eq!(stdout(&one).trim(), "1 message released");
    sink.wait(4);
    let rest = gateway.cli(&["queue", "release", "--quota", "erp"]);
    assert_eq!(stdout(&rest).trim(), "2 messages released");
    sink.wait(6);
    wait("done", || {
        (stdout(&gateway.cli(&["queue", "list", "--json"])).trim() == "[]").then_some(())
    });
    assert_eq!(sink.count(), 6, "each once");
}

#[test]
fn the_windows_outlive_a_stop_and_a_reload() {
    let sink = Upstream::start();
    let config = with_quota(&sink, "refuse", "");
    let mut gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    for _ in 0..3 {
        mail(&mut client);
    }
    drop(client);
    assert_eq!(rcpt(&gateway).trim(), USED_UP);
    assert_eq!(gateway.terminate(), 0);
    gateway.restart();
    assert_eq!(rcpt(&gateway).trim(), USED_UP, "after a stop");
    // Another number holds for what was counted already.
    let wider = config.replace("3/h", "4/h");
    fs::write(gateway.config_path(), &wider).unwrap();
    gateway.hang_up();
    wait("a wider quota", || {
        rcpt(&gateway).starts_with("250").then_some(())
    });
    fs::write(gateway.config_path(), &config).unwrap();
    gateway.hang_up();
    wait("the quota as it was", || {
        (rcpt(&gateway).trim() == USED_UP).then_some(())
    });
    assert_eq!(sink.wait(3).len(), 3);
}

#[test]
fn a_crash_forgives_no_more_than_ten_seconds() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&with_quota(&sink, "refuse", ""));
    let mut client = session(&gateway);
    for _ in 0..3 {
        mail(&mut client);
    }
    drop(client);
    // The note of the windows is the gateway's own, and is written every ten seconds.
    let database = gateway.path("data").join("queue.db");
    wait("the note", || {
        let store = rusqlite::Connection::open(&database).ok()?;
        let note: String = store
            .query_row(
                "SELECT value FROM note WHERE key = 'quota windows'",
                [],
                |row| row.get(0),
            )
            .ok()?;
        note.contains("app@corp.example").then_some(())
    });
    gateway.kill();
    gateway.restart();
    assert_eq!(rcpt(&gateway).trim(), USED_UP);
}

#[test]
fn header_rules_mark_what_leaves_and_are_told() {
    let sink = Upstream::start();
    let rules = "\n[[header]]\nsubject_prefix = \"[TEST] \"\nadd = [\"X-Environment: staging\"]\nremove = [\"X-Originating-IP\"]\n";
    let gateway = Gateway::start(&(basic(sink.address) + rules));
    let mut client = session(&gateway);
    let content =
        "From: app@corp.example\r\nX-Originating-IP: 10.0.0.1\r\nSubject: report\r\n\r\nbody\r\n";
    let id = queued_id(&client.mail("app@corp.example", &["x@corp.example"], content));
    let got = sink.wait(1).remove(0).text();
    assert!(got.contains("Subject: [TEST] report\r\n"), "{got}");
    assert!(
        got.contains("X-Environment: staging\r\n") && !got.contains("Originating"),
        "{got}"
    );
    let words = "[[header]] 1: -X-Originating-IP +X-Environment subject_prefix";
    let life = stdout(&gateway.cli(&["trace", &id]));
    assert!(life.contains(words), "{life}");
    let explained = gateway.cli(&[
        "explain",
        "--from",
        "app@corp.example",
        "--to",
        "x@corp.example",
    ]);
    assert!(stdout(&explained).contains(words), "{}", stdout(&explained));
    gateway.wait_for_log(&["event=accepted", &id, words]);
}
