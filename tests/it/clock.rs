//! The wall clock is set, back or on, under the gateway or while it is away: nothing waits longer than before, nothing is given
//! up or forgotten earlier, and the order stays.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::TempDir;

use super::harness::{
    clock::Clock,
    gateway::{Gateway, basic, queued_id, stdout, wait},
    upstream::Upstream,
};

const DAY: i64 = 86_400;
const YEARS: i64 = 3_650 * DAY;

/// What keeps the mail: the reply to the MAIL, RCPT or dot of every message as long as the upstream is ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    /// The connector is closed.
    Closed,
    /// The recipient is deferred.
    Deferred,
    /// What became of it is in doubt.
    InDoubt,
    /// The connector is paused.
    Paused,
}

struct World {
    clock: Clock,
    gateway: Gateway,
    sink: Upstream,
    is_ill: Arc<AtomicBool>,
}

fn world(ill: Ill, at: i64, more: &str) -> World {
    let is_ill = Arc::new(AtomicBool::new(true));
    let sink = Upstream::scripted({
        let is_ill = is_ill.clone();
        move |line| {
            if !is_ill.load(Ordering::SeqCst) {
                return None;
            }
            let word = line.split(' ').next().unwrap_or_default();
            match (ill, word) {
                (Ill::Closed, "EHLO" | "HELO") => Some("421 4.3.2 not now".to_owned()),
                (Ill::Deferred, "RCPT") => Some("450 4.2.1 later".to_owned()),
                (Ill::InDoubt, ".") => Some(String::new()),
                (Ill::Paused, "MAIL") => Some("530 5.7.0 log in first".to_owned()),
                _ => None,
            }
        }
    });
    let dir = TempDir::new().unwrap();
    let clock = Clock::new(dir.path());
    clock.set(at);
    let config = basic(sink.address)
        .replace("retry = [\"1s\"]", "retry = [\"3s\"]\ngive_up = \"1h\"")
        + "[queue]\nin_doubt_wait = \"3s\"\n"
        + more;
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let gateway = Gateway::start_with(dir, clock.env());
    World {
        clock,
        gateway,
        sink,
        is_ill,
    }
}

impl World {
    fn mail(&self) -> String {
        let mut client = self.gateway.connect("local");
        client.expect("EHLO app", "250");
        let content = "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n";
        queued_id(&client.mail("a@corp.example", &["x@partner.example"], content))
    }

    /// Of `queue list`.
    fn entries(&self) -> Vec<serde_json::Value> {
        let list = stdout(&self.gateway.cli(&["queue", "list", "--all", "--json"]));
        serde_json::from_str(&list).unwrap()
    }

    fn attempts(&self) -> u64 {
        self.entries()[0]["attempts"].as_u64().unwrap()
    }

    fn wait_for(&self, ill: Ill) {
        let word = match ill {
            Ill::Closed => "is closed",
            Ill::Deferred => "deferred",
            Ill::InDoubt => "in doubt",
            Ill::Paused => "is paused",
        };
        wait(word, || {
            let entries = self.entries();
            let entry = &entries[0];
            let trace = stdout(&self.gateway.cli(&["trace", entry["id"].as_str()?]));
            let is_so = match ill {
                Ill::Closed | Ill::Paused => entry["blocked_by"] == "up",
                Ill::Deferred | Ill::InDoubt => trace.contains(word),
            };
            (is_so && entry["state"] == "waiting").then_some(())
        });
    }

    /// Once the upstream is well again, the mail arrives by itself, though the clock was set.
    fn arrives(&self, ill: Ill) {
        self.is_ill.store(false, Ordering::SeqCst);
        if ill == Ill::Paused {
            // Its own time is five minutes. Nobody knows the clock of whoever says it.
            let _ = self.gateway.cli(&["queue", "retry", "--all"]);
        }
        // What is in doubt arrives twice.
        let count = if ill == Ill::InDoubt { 2 } else { 1 };
        self.sink.wait(count);
        wait("done", || {
            self.entries()
                .iter()
                .all(|e| e["state"] == "done")
                .then_some(())
        });
        assert_eq!(self.sink.count(), count, "no bounce, nothing twice");
    }
}

const ALL: [Ill; 4] = [Ill::Closed, Ill::Deferred, Ill::InDoubt, Ill::Paused];

#[test]
fn set_while_it_runs() {
    for ill in ALL {
        for seconds in [-DAY, YEARS] {
            let world = world(ill, 0, "");
            world.mail();
            world.wait_for(ill);
            world.clock.set(seconds);
            world.gateway.wait_for_log(&["event=clock"]);
            if ill == Ill::Deferred {
                // It would be given up now, were it a day or ten years old.
                let before = world.attempts();
                wait("further attempts", || {
                    (world.attempts() >= before + 2).then_some(())
                });
                assert_eq!(world.entries()[0]["state"], "waiting");
            }
            world.arrives(ill);
        }
    }
}

/// The gateway writes every row of a shut connector anew when it sees the step; the operator's wish stands in one of them.
#[test]
fn a_retry_right_after_the_clock_was_set_is_not_lost() {
    for seconds in [-DAY, YEARS] {
        let world = world(Ill::Paused, 0, "");
        world.mail();
        world.wait_for(Ill::Paused);
        world.clock.set(seconds);
        world.arrives(Ill::Paused);
    }
}

#[test]
fn set_while_it_is_away() {
    for ill in ALL {
        for seconds in [-DAY, YEARS] {
            let mut world = world(ill, 0, "");
            world.mail();
            world.wait_for(ill);
            world.gateway.kill();
            world.clock.set(seconds);
            world.gateway.restart();
            world.arrives(ill);
        }
    }
}

/// A machine without a battery: mail comes in 1970, and then somebody tells it the time. And a clock that was years ahead.
#[test]
fn mail_that_came_at_a_wrong_time_is_neither_given_up_at_once_nor_kept_for_years() {
    for wrong in [-YEARS, YEARS] {
        let world = world(Ill::Deferred, wrong, "");
        let first = world.mail();
        world.wait_for(Ill::Deferred);
        world.clock.set(0);
        world.gateway.wait_for_log(&["event=clock"]);
        let second = world.mail();
        assert!(wrong < 0 || first < second, "ids keep their order");
        wait("both are of today", || {
            let entries = world.entries();
            let today = stdout(&world.gateway.cli(&["queue", "list"]));
            let year =
                |e: &serde_json::Value| e["accepted_at"].as_str().map(|at| at[..10].to_owned());
            (entries.len() == 2 && year(&entries[0]) == year(&entries[1])).then_some(today)
        });
        assert!(world.entries().iter().all(|e| e["state"] == "waiting"));
        world.is_ill.store(false, Ordering::SeqCst);
        world.sink.wait(2);
    }
}

/// What was delivered is remembered for `keep_history` of real time.
#[test]
fn a_clock_that_runs_ahead_makes_nobody_forget() {
    let mut world = world(
        Ill::Deferred,
        0,
        "keep_history = \"1h\"\nkeep_failed = \"1h\"\n",
    );
    world.is_ill.store(false, Ordering::SeqCst);
    let id = world.mail();
    wait("done", || {
        world
            .entries()
            .iter()
            .all(|e| e["state"] == "done")
            .then_some(())
    });
    world.gateway.kill();
    world.clock.set(YEARS);
    // It looks for what is over when it starts.
    world.gateway.restart();
    let later = world.mail();
    world.sink.wait(2);
    for id in [id, later] {
        stdout(&world.gateway.cli(&["trace", &id]));
    }
}
