//! Disks that fill up, files that vanish, signals in the wrong moment, upstreams that lose the answer: the real binary.

use crate::harness::time::{Latch, growth, stays};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use super::harness::{
    gateway::{Client, Gateway, basic, queued_id, stdout, wait},
    upstream::Upstream,
};

const CONTENT: &str = "Subject: s\r\n\r\nbody\r\n";

fn session(gateway: &Gateway) -> Client {
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    client
}

fn mail(client: &mut Client) -> String {
    client.mail("app@corp.example", &["x@corp.example"], CONTENT)
}

/// Every entry of the queue, done ones too.
fn entries(gateway: &Gateway) -> Vec<Value> {
    let text = stdout(&gateway.cli(&["queue", "list", "--all", "--json"]));
    serde_json::from_str::<Vec<Value>>(&text).unwrap()
}

fn states(gateway: &Gateway) -> Vec<String> {
    let mut states: Vec<String> = entries(gateway)
        .iter()
        .map(|entry| entry["state"].as_str().unwrap().to_owned())
        .collect();
    states.sort();
    states
}

fn wait_for_states(gateway: &Gateway, wanted: &[&str]) {
    wait(&format!("states {wanted:?}"), || {
        (states(gateway) == wanted).then_some(())
    });
}

/// A disk of its own, as large as said. Only root may mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|out| out.status.success());
        assert!(mounted, "a small tmpfs is mounted by root only");
        Self(at.to_owned())
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'f'; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn on_disk(config: &str) -> String {
    config.replace(
        "data_dir = \"data\"",
        "data_dir = \"disk/data\"\n[limits]\nfree_disk = \"4KiB\"\n",
    )
}

fn start_on_disk(config: &str, size: &str) -> (Disk, Gateway) {
    let dir = tempfile::TempDir::new().unwrap();
    let disk = Disk::mount(&dir.path().join("disk"), size);
    fs::write(dir.path().join("config.toml"), on_disk(config)).unwrap();
    (disk, Gateway::start_in(dir))
}

/// A message of 60 KB, offered: whether it is on disk. If not, the disk is full: at MAIL, or, since the free space is not asked
/// for every time, by the store itself.
fn is_taken(client: &mut Client) -> bool {
    let mut reply = client.say("MAIL FROM:<app@corp.example>");
    if reply.starts_with("250") {
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        client.send(b"Subject: s\r\n\r\n");
        client.send("0123456789\r\n".repeat(5000).as_bytes());
        reply = client.say(".");
    }
    let is_taken = reply.starts_with("250");
    assert!(is_taken || reply.starts_with("452 4.3.1"), "{reply}");
    is_taken
}

fn refused(client: &mut Client) {
    assert!(!is_taken(client), "taken, though the disk is full");
}

#[test]
#[ignore = "mounts a small disk as root; tests/run runs it"]
fn a_disk_without_a_byte_left_refuses_new_mail_and_delivers_the_old() {
    let go = Arc::new(AtomicBool::new(false));
    let sink = Upstream::scripted({
        let go = go.clone();
        move |line| {
            (line.starts_with("MAIL") && !go.load(Ordering::Relaxed))
                .then(|| "450 4.2.0 not now".to_owned())
        }
    });
    let (disk, mut gateway) = start_on_disk(&basic(sink.address), "40m");
    let mut client = session(&gateway);
    for _ in 0..30 {
        queued_id(&mail(&mut client));
    }
    disk.fill();
    // As long as nobody has looked at the free space again, a message may find room in what the journal has already: one that
    // is taken so is as safe as the others.
    let mut taken = 30;
    wait("a full disk", || {
        let is_taken = is_taken(&mut client);
        taken += usize::from(is_taken);
        let seen = client.say("MAIL FROM:<app@corp.example>");
        client.expect("RSET", "250");
        (!is_taken && seen.starts_with("452 4.3.1")).then_some(())
    });
    for _ in 0..10 {
        refused(&mut client);
    }
    gateway.kill();
    gateway.restart();
    let mut client = session(&gateway);
    refused(&mut client);
    go.store(true, Ordering::Relaxed);
    sink.wait(taken);
    wait_for_states(&gateway, &vec!["done"; taken]);
    refused(&mut client);
    disk.empty();
    wait("room again", || {
        (client.say("MAIL FROM:<app@corp.example>"))
            .starts_with("250")
            .then_some(())?;
        client.expect("RSET", "250");
        mail(&mut client).starts_with("250").then_some(())
    });
    sink.wait(taken + 1);
    wait_for_states(&gateway, &vec!["done"; taken + 1]);
    assert_eq!(sink.count(), taken + 1);
}

#[test]
fn a_deleted_body_is_put_aside_and_the_others_go_on() {
    let go = Arc::new(AtomicBool::new(false));
    let sink = Upstream::scripted({
        let go = go.clone();
        move |line| {
            (line.starts_with("MAIL") && !go.load(Ordering::Relaxed))
                .then(|| "450 4.2.0 not now".to_owned())
        }
    });
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    let large = format!("Subject: s\r\n\r\n{}", "0123456789\r\n".repeat(20_000));
    let id = queued_id(&client.mail("app@corp.example", &["x@corp.example"], &large));
    queued_id(&mail(&mut client));
    let body = gateway.path("data/spool").join(&id);
    wait("the first try", || {
        gateway.log().contains("not now").then_some(())
    });
    fs::remove_file(&body).unwrap();
    go.store(true, Ordering::Relaxed);
    sink.wait(1);
    wait_for_states(&gateway, &["done", "held"]);
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(trace.contains("body file"), "{trace}");
    assert_eq!(sink.count(), 1);
    assert_eq!(
        fs::read_dir(gateway.path("data/spool")).unwrap().count(),
        0,
        "nothing is left over"
    );
}

/// How often its threads went to sleep so far: a loop that spins does it all the time.
fn sleeps(gateway: &Gateway) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .filter_map(|status| {
            let line = status
                .lines()
                .find(|l| l.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn a_closed_connector_without_mail_costs_nothing() {
    // Nobody listens at the first; the second takes what there is. The first stays closed with nothing to probe with.
    let sink = Upstream::start();
    let config = basic(sink.address)
        .replace("connectors = [\"up\"]", "connectors = [\"dead\", \"up\"]")
        + "\n[[connector]]\nname = \"dead\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"off\"\n";
    let gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    let id = queued_id(&mail(&mut client));
    sink.wait(1);
    gateway.wait_for_log(&["dead", "closed"]);
    wait_for_states(&gateway, &["done"]);
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(trace.contains("dead is closed: 451 4.4.1"), "{trace}");
    assert!(trace.contains("; it went to up"), "{trace}");
    // What follows a delivery comes to rest first.
    growth(Duration::from_secs(2), || sleeps(&gateway));
    let slept = growth(Duration::from_secs(3), || sleeps(&gateway));
    // A look a second is all there is to do.
    assert!(slept < 150, "woken {slept} times in 3 s of idleness");
}

#[test]
fn an_answer_lost_after_the_dot_is_in_doubt_to_the_end() {
    let taken = Arc::new(AtomicUsize::new(0));
    let sink = Upstream::scripted({
        let taken = taken.clone();
        move |line| (line == "." && taken.fetch_add(1, Ordering::Relaxed) < 2).then(String::new)
    });
    let config = basic(sink.address).replace(
        "[[connector]]",
        "give_up = \"3h\"\n[queue]\nin_doubt_wait = \"1s\"\n[[connector]]",
    );
    let gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    let id = queued_id(&mail(&mut client));
    let mails = sink.wait(2);
    let field = |at: usize, name: &str| {
        mails[at]
            .text()
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert_eq!(field(0, "Message-ID:"), field(1, "Message-ID:"));
    assert_eq!(field(0, "Date:"), field(1, "Date:"));
    assert_eq!(mails[0].data, mails[1].data);
    sink.wait(3);
    wait("done", || {
        states(&gateway).iter().all(|s| s == "done").then_some(())
    });
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(trace.contains("in doubt"), "{trace}");
    assert!(trace.contains("may have arrived"), "{trace}");
}

#[test]
fn in_doubt_until_given_up_and_the_bounce_says_so() {
    let bounced = Arc::new(AtomicBool::new(false));
    let sink = Upstream::scripted({
        let bounced = bounced.clone();
        move |line| {
            if line == "MAIL FROM:<>" || line.starts_with("MAIL FROM:<> ") {
                bounced.store(true, Ordering::Relaxed);
            }
            (line == "." && !bounced.load(Ordering::Relaxed)).then(String::new)
        }
    });
    let config = basic(sink.address).replace(
        "[[connector]]",
        "give_up = \"3s\"\n[queue]\nin_doubt_wait = \"1s\"\n[[connector]]",
    );
    let gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    queued_id(&mail(&mut client));
    wait_for_states(&gateway, &["done", "failed"]);
    let bounces: Vec<_> = sink
        .mails()
        .into_iter()
        .filter(|m| m.from.is_empty())
        .collect();
    assert_eq!(bounces.len(), 1);
    let text = bounces[0].text();
    assert!(text.contains("may have arrived"), "{text}");
}

fn two(first: u16, second: u16) -> String {
    basic(([127, 0, 0, 1], second).into())
        .replace("connectors = [\"up\"]", "connectors = [\"one\", \"up\"]")
        + &format!(
            "\n[[connector]]\nname = \"one\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {first}\ntls = \"off\"\n"
        )
}

#[test]
fn to_the_second_connector_and_back() {
    let down = Arc::new(AtomicBool::new(true));
    let one = Upstream::scripted({
        let down = down.clone();
        move |line| {
            (line.starts_with("EHLO") && down.load(Ordering::Relaxed))
                .then(|| "421 4.3.2 closed for today".to_owned())
        }
    });
    let second = Upstream::start();
    let gateway = Gateway::start(&two(one.address.port(), second.address.port()));
    let mut client = session(&gateway);
    for n in 1..=3 {
        queued_id(&mail(&mut client));
        second.wait(n);
    }
    assert_eq!(one.count(), 0);
    down.store(false, Ordering::Relaxed);
    wait("back at the first", || {
        let before = one.count() + second.count();
        queued_id(&mail(&mut client));
        wait("one more", || {
            (one.count() + second.count() > before).then_some(())
        });
        (one.count() > 0).then_some(())
    });
    wait("all of it", || {
        states(&gateway).iter().all(|s| s == "done").then_some(())
    });
    assert_eq!(one.count() + second.count(), states(&gateway).len());
}

#[test]
fn a_hung_connector_does_not_slow_the_other() {
    let hang = Upstream::scripted(|line| {
        if line.starts_with("MAIL") {
            Latch::default().wait();
        }
        None
    });
    let good = Upstream::start();
    let config = basic(good.address).replace(
        "[[route]]\n",
        "[[route]]\nname = \"hung\"\nrecipients = [\"partner.example\"]\nconnectors = [\"one\"]\n[[route]]\n",
    ) + &format!(
        "\n[[connector]]\nname = \"one\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        hang.address.port()
    );
    let mut gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    for _ in 0..20 {
        let reply = client.mail("app@corp.example", &["x@partner.example"], CONTENT);
        queued_id(&reply);
    }
    for _ in 0..50 {
        queued_id(&mail(&mut client));
    }
    good.wait(50);
    assert_eq!(hang.count(), 0);
    wait("what was sent is recorded as sent", || {
        let done = states(&gateway).iter().filter(|s| *s == "done").count();
        (done == 50).then_some(())
    });
    // Cut off hard, the hung ones are still there.
    gateway.kill();
    gateway.restart();
    let waiting = states(&gateway).iter().filter(|s| *s != "done").count();
    assert_eq!(waiting, 20);
}

#[test]
fn killed_between_the_upstreams_answer_and_the_settlement() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&basic(sink.address));
    for round in 1..=5 {
        let mut client = session(&gateway);
        for _ in 0..10 {
            queued_id(&mail(&mut client));
        }
        gateway.kill();
        gateway.restart();
        wait("done", || {
            let states = states(&gateway);
            (states.len() == round * 10 && states.iter().all(|s| s == "done")).then_some(())
        });
    }
    let mut copies = std::collections::HashMap::<String, usize>::new();
    for mail in sink.mails() {
        let id = mail
            .text()
            .lines()
            .find(|l| l.starts_with("Message-ID:"))
            .unwrap()
            .to_owned();
        *copies.entry(id).or_default() += 1;
    }
    assert_eq!(copies.len(), 50, "nothing is lost");
    assert!(copies.values().all(|n| *n <= 2), "{copies:?}");
}

#[test]
fn a_route_that_is_renamed_and_a_connector_that_is_removed_lose_nothing() {
    let go = Arc::new(AtomicBool::new(false));
    let first = Upstream::scripted(|line| {
        line.starts_with("MAIL")
            .then(|| "450 4.2.0 not now".to_owned())
    });
    let second = Upstream::scripted({
        let go = go.clone();
        move |line| {
            (line.starts_with("MAIL") && !go.load(Ordering::Relaxed))
                .then(|| "450 4.2.0 not now".to_owned())
        }
    });
    let config = basic(first.address).replace("retry = [\"1s\"]", "retry = [\"10s\"]");
    let gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    for _ in 0..5 {
        queued_id(&mail(&mut client));
    }
    gateway.wait_for_log(&["not now"]);
    // Not while one of them is under way, since such a one keeps its route for another minute.
    wait_for_states(&gateway, &["waiting"; 5]);
    let config = basic(second.address)
        .replace("name = \"all\"", "name = \"everything\"")
        .replace("\"up\"", "\"other\"");
    fs::write(gateway.config_path(), config).unwrap();
    gateway.hang_up();
    gateway.wait_for_log(&["reloaded"]);
    go.store(true, Ordering::Relaxed);
    second.wait(5);
    wait_for_states(&gateway, &["done"; 5]);
    assert_eq!(second.count(), 5);
    for entry in entries(&gateway) {
        assert_eq!(entry["route"], "everything");
    }
}

#[test]
fn terminated_while_the_upstream_thinks_about_the_dot() {
    let asked = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(Latch::default());
    let sink = Upstream::scripted({
        let (asked, answers) = (asked.clone(), answers.clone());
        move |line| {
            if line == "." {
                asked.store(true, Ordering::Relaxed);
                answers.wait();
            }
            None
        }
    });
    let mut gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    queued_id(&mail(&mut client));
    wait("the dot", || asked.load(Ordering::Relaxed).then_some(()));
    let code = std::thread::scope(|threads| {
        let ended = threads.spawn(|| gateway.terminate());
        // The upstream answers while the gateway waits for it.
        stays("nothing", Duration::from_secs(1), || sink.count() == 0);
        answers.open();
        ended.join().unwrap()
    });
    assert_eq!(code, 0);
    assert_eq!(states(&gateway), ["done"]);
    gateway.restart();
    stays("once", Duration::from_millis(500), || sink.count() == 1);
}

#[test]
fn held_while_it_is_under_way() {
    let go = Arc::new(Latch::default());
    let asked = Arc::new(AtomicUsize::new(0));
    let sink = Upstream::scripted({
        let (asked, go) = (asked.clone(), go.clone());
        move |line| {
            (line == "." && asked.fetch_add(1, Ordering::Relaxed) == 0).then(|| {
                go.wait();
                "451 4.3.0 again".to_owned()
            })
        }
    });
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    let id = queued_id(&mail(&mut client));
    wait("the dot", || {
        (asked.load(Ordering::Relaxed) > 0).then_some(())
    });
    assert_eq!(states(&gateway), ["sending"]);
    stdout(&gateway.cli(&["queue", "hold", &id]));
    go.open();
    wait_for_states(&gateway, &["held"]);
    stays("held", Duration::from_millis(1500), || sink.count() == 0);
    stdout(&gateway.cli(&["queue", "release", &id]));
    wait_for_states(&gateway, &["done"]);
    assert_eq!(sink.count(), 1);
}

#[test]
fn refused_for_good_bounces_once_and_a_bounce_never() {
    let sink = Upstream::scripted(|line| {
        (line.starts_with("RCPT")).then(|| "550 5.1.1 nobody here".to_owned())
    });
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    queued_id(&mail(&mut client));
    // The message and its bounce, which is refused, too.
    wait_for_states(&gateway, &["failed", "failed"]);
    stays("no bounce of a bounce", Duration::from_secs(2), || {
        states(&gateway) == ["failed", "failed"]
    });
    let bounced = gateway
        .log()
        .lines()
        .filter(|l| l.contains("event=bounced"))
        .count();
    assert_eq!(bounced, 1);
}

#[test]
fn what_is_no_longer_kept_leaves_no_file() {
    let sink = Upstream::scripted(|line| {
        (line.starts_with("RCPT")).then(|| "550 5.1.1 nobody here".to_owned())
    });
    let config = basic(sink.address)
        + "[bounce]\nto_sender = false\n[queue]\nkeep_failed = \"1s\"\nkeep_history = \"2s\"\n";
    let mut gateway = Gateway::start(&config);
    let mut client = session(&gateway);
    let large = format!("Subject: s\r\n\r\n{}", "0123456789\r\n".repeat(20_000));
    let id = queued_id(&client.mail("app@corp.example", &["x@corp.example"], &large));
    wait_for_states(&gateway, &["failed"]);
    assert!(gateway.path("data/spool").join(&id).exists());
    // Longer than it is kept: what a start finds is over.
    std::thread::sleep(Duration::from_millis(2500));
    gateway.terminate();
    gateway.restart();
    wait("nothing left", || {
        entries(&gateway).is_empty().then_some(())
    });
    assert_eq!(fs::read_dir(gateway.path("data/spool")).unwrap().count(), 0);
}

#[test]
fn a_damaged_page_keeps_back_its_own_messages_alone() {
    let go = Arc::new(AtomicBool::new(false));
    let sink = Upstream::scripted({
        let go = go.clone();
        move |line| {
            (line.starts_with("MAIL") && !go.load(Ordering::Relaxed))
                .then(|| "450 4.2.0 not now".to_owned())
        }
    });
    let mut gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    for n in 0..30 {
        let content = format!(
            "Subject: MARK{n:02}\r\n\r\n{}",
            "0123456789\r\n".repeat(n * 10)
        );
        queued_id(&client.mail("app@corp.example", &["x@corp.example"], &content));
    }
    assert_eq!(gateway.terminate(), 0);
    let file = gateway.path("data/queue.db");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|w| w == b"MARK20").unwrap();
    bytes[at / 4096 * 4096..][..4096].fill(0xAA);
    fs::write(&file, bytes).unwrap();
    gateway.restart();
    go.store(true, Ordering::Relaxed);
    wait("all that can be read", || {
        let states = states(&gateway);
        let held = states.iter().filter(|s| *s == "held").count();
        let done = states.iter().filter(|s| *s == "done").count();
        // The rows and texts of so many may lie in half a page of 8 KiB.
        ((1..=8).contains(&held) && held + done == 30).then_some(())
    });
    let done = states(&gateway).iter().filter(|s| *s == "done").count();
    assert_eq!(sink.count(), done);
}

#[test]
fn a_second_signal_ends_it_at_once_and_the_message_is_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let sink = Upstream::scripted({
        let asked = asked.clone();
        move |line| {
            if line == "." && asked.fetch_add(1, Ordering::Relaxed) == 0 {
                Latch::default().wait();
            }
            None
        }
    });
    let mut gateway = Gateway::start(&basic(sink.address));
    let mut client = session(&gateway);
    let id = queued_id(&mail(&mut client));
    wait("the dot", || {
        (asked.load(Ordering::Relaxed) > 0).then_some(())
    });
    let pid = gateway.pid().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    gateway.wait_for_log(&["event=stopping"]);
    assert_eq!(gateway.terminate(), 0);
    assert_eq!(states(&gateway), ["sending"]);
    gateway.restart();
    sink.wait(1);
    wait_for_states(&gateway, &["done"]);
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(trace.contains("it may arrive twice"), "{trace}");
}
