//! A change of the configuration that is cut off: whatever step the gateway or the command is killed at, the file is the old one or the
//! new one, and its proposal says which.

use std::{
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::harness::{
    gateway::{Gateway, basic, read, signal, stdout, wait},
    peers::need,
    upstream::Upstream,
    window::Window,
};

/// The steps of a change at its file and at `window.db`, by the calls that make them. Each is counted by itself, and in each thread.
const STEPS: [&str; 9] = [
    "openat",
    "flock",
    "fchmod",
    "ftruncate",
    "write",
    "fsync",
    "rename",
    "pwrite64",
    "fdatasync",
];
/// No write has as many.
const MOST: usize = 200;

/// Kills whoever makes the step of this number at the files that a change goes through.
fn killing(gateway: &Gateway, steps: &str, number: usize) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-o", "strace.out", "-e"])
        .arg(format!("trace={steps}"))
        .arg("-e")
        .arg(format!("inject={steps}:signal=KILL:when={number}"))
        .current_dir(gateway.dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    for file in [
        "",
        "config.toml",
        ".config.toml.new",
        "data/window.db",
        "data/window.db-wal",
    ] {
        strace.arg("-P").arg(gateway.path(file));
        // As it was opened.
        if !file.is_empty() {
            strace.arg("-P").arg(file);
        }
    }
    strace
}

/// Waits until every thread is seen.
fn attached(gateway: &Gateway) {
    wait("strace attached", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).ok()?;
        let mut all = tasks.map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status"));
            let status = status.unwrap_or_default();
            let tracer = status.lines().find(|line| line.starts_with("TracerPid:"));
            tracer.is_some_and(|line| !line.ends_with("\t0"))
        });
        all.all(|is_traced| is_traced).then_some(())
    });
}

/// `is_alive`: the one it looks at is. With one that was killed it ends by itself; told to end meanwhile it would wait for ever.
fn end(mut strace: Child, is_alive: bool) {
    if is_alive {
        signal(strace.id(), "INT");
    }
    strace.wait().unwrap();
}

fn recipients(value: usize) -> Value {
    json!([{ "op": "set", "section": "limits", "key": "recipients", "value": value }])
}

/// What the proposal says is what the file says; whether it is written.
fn is_true(gateway: &Gateway, window: Window, id: &str, before: &str, value: usize) -> bool {
    let file = read(&gateway.config_path());
    let is_new = file.contains(&format!("recipients = {value}\n"));
    assert!(is_new || file == before, "{file}");
    let state = window.get(&format!("/proposals/{id}"))["state"].clone();
    let expected = if is_new { "applied" } else { "open" };
    assert_eq!(state, expected, "{file}");
    is_new
}

#[test]
#[ignore = "needs strace, which tests/run installs"]
fn kill_9_at_any_step_of_a_write_leaves_a_whole_file_and_a_proposal_that_tells_the_truth() {
    need("strace");
    let sink = Upstream::start();
    let (mut gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    let mut value = 100;
    let mut seen = [0, 0];
    for steps in STEPS {
        for number in 1.. {
            assert!(number < MOST, "it never comes to an end");
            value += 1;
            let before = read(&gateway.config_path());
            let id = window.propose(&recipients(value));
            let mut strace = killing(&gateway, steps, number);
            strace.args(["-p", &gateway.pid().to_string()]);
            let strace = strace.spawn().unwrap();
            attached(&gateway);
            let path = format!("/proposals/{id}/apply");
            let answer = window.try_ask("admin", "POST", &path, Some(&json!({})));
            end(strace, answer.is_some());
            if let Some((status, body)) = answer {
                assert_eq!(status, 200, "{body}");
                assert!(is_true(&gateway, window, &id, &before, value));
                break;
            }
            gateway.kill();
            gateway.restart();
            window.is_there();
            let is_new = is_true(&gateway, window, &id, &before, value);
            seen[usize::from(is_new)] += 1;
            // What was left behind is in nobody's way.
            if !is_new {
                let (status, body) = window.post(&path, &json!({}));
                assert_eq!(status, 200, "{body}");
            }
        }
        println!("{steps}: {} times old, {} times new", seen[0], seen[1]);
    }
    // Every step before the file is the new one, and some behind it.
    assert!(seen[0] > 12 && seen[1] > 3, "{seen:?}");
}

#[test]
#[ignore = "needs strace, which tests/run installs"]
fn kill_9_at_any_step_of_config_apply_leaves_a_whole_file_and_a_proposal_that_tells_the_truth() {
    need("strace");
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&basic(sink.address), "");
    let mut value = 100;
    let mut seen = [0, 0];
    for steps in STEPS {
        for number in 1.. {
            assert!(number < MOST, "it never comes to an end");
            value += 1;
            let before = read(&gateway.config_path());
            let id = window.propose(&recipients(value));
            let mut command = killing(&gateway, steps, number);
            command.arg("--").arg(Gateway::binary());
            command.args(["config", "apply", &id, "--yes", "-c", "config.toml"]);
            let is_done = command.stdout(Stdio::null()).status().unwrap().success();
            // The next command finds out, and so does the gateway.
            let shown = stdout(&gateway.cli(&["config", "show", &id, "--json"]));
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let is_new = is_true(&gateway, window, &id, &before, value);
            assert_eq!(shown["state"], if is_new { "applied" } else { "open" });
            if is_done {
                assert!(is_new);
                break;
            }
            seen[usize::from(is_new)] += 1;
            if !is_new {
                stdout(&gateway.cli(&["config", "apply", &id, "--yes"]));
            }
        }
        println!("{steps}: {} times old, {} times new", seen[0], seen[1]);
    }
    // Every step before the file is the new one, and some behind it.
    assert!(seen[0] > 12 && seen[1] > 3, "{seen:?}");
}

/// Of a section without names nothing says that it stands there already.
#[test]
fn attack_one_proposal_is_written_by_two_at_once() {
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    for round in 0..5 {
        let to = format!("n{round}@corp.example");
        let values = json!({ "senders": [format!("r{round}@localhost")], "to": to });
        let add = json!([{ "op": "add", "section": "rewrite", "values": values }]);
        let id = window.propose(&add);
        let path = format!("/proposals/{id}/apply");
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || window.post(&path, &json!({})).0)
            })
            .collect();
        let mut statuses: Vec<u16> = askers.into_iter().map(|one| one.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409]);
        assert_eq!(read(&gateway.config_path()).matches(&to).count(), 1);
        assert_eq!(window.get(&format!("/proposals/{id}"))["state"], "applied");
    }
}

/// Each is made on the file as the other left it, or refused; the file is never half of one and half of the other.
#[test]
fn attack_two_proposals_are_written_at_once_by_the_page_and_on_the_machine() {
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    let other = |value: usize| json!([{ "op": "set", "section": "limits", "key": "session_errors", "value": value }]);
    for round in 0..6 {
        let (first, second) = (
            window.propose(&recipients(200 + round)),
            window.propose(&other(10 + round)),
        );
        let path = format!("/proposals/{first}/apply");
        let asker = thread::spawn(move || window.post(&path, &json!({})).0);
        let by_hand = gateway.cli(&["config", "apply", &second, "--yes"]).status;
        let by_page = asker.join().unwrap();
        let file = read(&gateway.config_path());
        for (id, is_taken, line) in [
            (
                &first,
                by_page == 200,
                format!("recipients = {}\n", 200 + round),
            ),
            (
                &second,
                by_hand.success(),
                format!("session_errors = {}\n", 10 + round),
            ),
        ] {
            assert_eq!(
                file.contains(&line),
                is_taken,
                "{line}: {by_page} {by_hand}\n{file}"
            );
            let state = window.get(&format!("/proposals/{id}"))["state"].clone();
            assert_eq!(state, if is_taken { "applied" } else { "open" }, "{line}");
        }
        assert!(by_page == 200 || by_hand.success());
        assert!([200, 409].contains(&by_page), "{by_page}");
    }
}
