//! `postern health`: what a container's probe is told of a gateway that works, that was killed, that ends, and whose disk is full.

use std::{fs, os::unix::fs::symlink, time::Duration};

use super::harness::{
    gateway::{Gateway, basic, signal},
    peers::free_port,
    time::wait,
};
use serde_json::Value;

/// The exit status, and what was said.
fn health(gateway: &Gateway, arguments: &[&str]) -> (i32, String) {
    let output = gateway.cli(&[&["health"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

/// Nobody is there: the state of an upstream is no part of it.
fn config() -> String {
    basic(([127, 0, 0, 1], free_port()).into())
}

fn file(gateway: &Gateway) -> Value {
    serde_json::from_slice(&fs::read(gateway.path("data/health")).unwrap()).unwrap()
}

#[test]
fn of_one_that_works_that_was_killed_and_that_works_again() {
    let mut gateway = Gateway::start(&config());
    wait("ready", || {
        (health(&gateway, &["--ready"]).0 == 0).then_some(())
    });
    assert_eq!(health(&gateway, &[]), (0, "ready\n".to_owned()));
    let expected = serde_json::json!({
        "ready": true,
        "checks": { "listeners": true, "store": true, "space": true, "draining": false },
    });
    assert_eq!(file(&gateway), expected);
    // It needs nothing of the configuration but where the directory is.
    let broken = format!("{}\nnonsense = 1\n", config());
    fs::write(gateway.config_path(), broken).unwrap();
    assert_eq!(health(&gateway, &["--ready"]).0, 0);
    fs::write(gateway.config_path(), config()).unwrap();
    // It is written though nothing changes.
    let modified = || {
        let file = fs::metadata(gateway.path("data/health")).unwrap();
        file.modified().unwrap()
    };
    let before = modified();
    wait("another write", || (modified() > before).then_some(()));
    assert!(modified().duration_since(before).unwrap() <= Duration::from_secs(7));
    gateway.kill();
    for arguments in [&[][..], &["--ready"]] {
        let (code, said) = health(&gateway, arguments);
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("no gateway runs on"), "{said}");
    }
    assert_eq!(
        file(&gateway),
        expected,
        "the file of the dead one is young and says that all is well"
    );
    gateway.restart();
    wait("ready", || {
        (health(&gateway, &["--ready"]).0 == 0).then_some(())
    });
}

#[test]
fn of_one_that_ends_and_of_one_that_hangs() {
    let mut gateway = Gateway::start(&config());
    wait("ready", || {
        (health(&gateway, &["--ready"]).0 == 0).then_some(())
    });
    // A process that stands still lets the file grow old.
    signal(gateway.pid(), "STOP");
    let old = std::time::SystemTime::now() - Duration::from_secs(16);
    let written = fs::File::options()
        .write(true)
        .open(gateway.path("data/health"))
        .unwrap();
    written.set_modified(old).unwrap();
    let (code, said) = health(&gateway, &[]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("does not work"), "{said}");
    signal(gateway.pid(), "CONT");
    wait("alive", || (health(&gateway, &[]).0 == 0).then_some(()));
    // A client in the middle of its message keeps it from ending.
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    client.expect("MAIL FROM:<a@corp.example>", "250");
    client.expect("RCPT TO:<b@corp.example>", "250");
    client.expect("DATA", "354");
    signal(gateway.pid(), "TERM");
    let (code, said) = wait("not ready", || {
        let (code, said) = health(&gateway, &["--ready"]);
        (code != 0).then_some((code, said))
    });
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("it ends"), "{said}");
    assert_eq!(health(&gateway, &[]).0, 0, "it lives until it has ended");
    assert_eq!(file(&gateway)["checks"]["draining"], true);
    client.send(b"Subject: s\r\n\r\nb\r\n.\r\n");
    assert_eq!(gateway.terminate(), 0);
    assert_eq!(health(&gateway, &["--ready"]).0, 69);
}

#[test]
fn of_one_whose_disk_is_full() {
    let full = format!("{}\n[limits]\nfree_disk = \"1000GiB\"\n", config());
    let gateway = Gateway::start(&full);
    let (code, said) = wait("it listens", || {
        let (code, said) = health(&gateway, &["--ready"]);
        said.contains("free_disk").then_some((code, said))
    });
    assert_eq!(code, 75, "{said}");
    assert_eq!(health(&gateway, &[]).0, 0, "no restart makes room");
    // Room that is enough now is seen.
    fs::write(gateway.config_path(), config()).unwrap();
    assert_eq!(gateway.cli(&["reload"]).status.code(), Some(0));
    wait("ready", || {
        (health(&gateway, &["--ready"]).0 == 0).then_some(())
    });
}

/// Whoever may write to the directory, and not to another one, has nothing written there.
#[test]
fn attack_links_in_the_data_directory_are_not_written_through() {
    let mut gateway = Gateway::start(&config());
    gateway.terminate();
    let data = gateway.dir.path().join("data");
    let victim = gateway.dir.path().join("victim");
    let precious = "precious\n".repeat(1_000);
    fs::write(&victim, &precious).unwrap();
    for name in ["health", "ballast"] {
        fs::remove_file(data.join(name)).unwrap();
        symlink(&victim, data.join(name)).unwrap();
    }
    gateway.restart();
    wait("both files", || {
        let is_file =
            |name| fs::symlink_metadata(data.join(name)).is_ok_and(|found| found.is_file());
        (is_file("health") && is_file("ballast")).then_some(())
    });
    assert_eq!(fs::read_to_string(&victim).unwrap(), precious);
    assert_eq!(health(&gateway, &[]).0, 0);
    // Who runs it stands in the lock: without one there is no start.
    gateway.terminate();
    fs::remove_file(data.join("lock")).unwrap();
    symlink(&victim, data.join("lock")).unwrap();
    let output = gateway.cli(&["run"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lock"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), precious);
}
