//! What commands print for programs, octet by octet. `POSTERN_BLESS=1` writes what is said now to `tests/json/`; read it before
//! it is committed.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;

use super::harness::{
    gateway::{Gateway, basic, send, stdout, wait},
    peers::free_port,
};

/// Without what differs from run to run: a time is `TIME`, to the millisecond `TIME.ms`, and `words` stand for what they name.
fn settled(text: &str, words: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (found, word) in words {
        text = text.replace(found, word);
    }
    // The client's port, and the date in Received.
    for (before, after, word) in [
        ("from 127.0.0.1:", " by listener", "CLIENT"),
        (";\\r\\n\\t", "\\r\\n", "DATE"),
        ("closed since ", ": 451", "MOMENT"),
        ("Date: ", "\\r\\n", "DATE"),
        ("\"oldest_seconds\": ", ",", "N"),
        ("\"days\": ", ",", "N"),
    ] {
        if let Some((head, tail)) = text.split_once(before)
            && let Some((_, rest)) = tail.split_once(after)
        {
            text = format!("{head}{before}{word}{after}{rest}");
        }
    }
    let parts: Vec<&str> = text.split('"').collect();
    let time = |part: &&str| {
        let is_time = part.starts_with("20") && part.ends_with('Z') && part.contains('T');
        match part.len() {
            20 if is_time => "TIME".to_owned(),
            24 if is_time => "TIME.ms".to_owned(),
            _ => (*part).to_owned(),
        }
    };
    parts.iter().map(time).collect::<Vec<_>>().join("\"")
}

fn check(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/json/{name}.json"));
    if std::env::var_os("POSTERN_BLESS").is_some() {
        fs::write(&file, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&file).unwrap(), "{name}");
}

#[test]
fn json_for_programs_is_what_it_was() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("relay.pem"), made.cert.pem()).unwrap();
    fs::write(
        dir.path().join("relay.key"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let config = basic(nobody).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"",
    );
    let config = config.replace("[\"1s\"]", "[\"1h\"]");
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    for file in ["relay.key", "config.toml"] {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(dir.path().join(file), mode).unwrap();
    }
    let mut gateway = Gateway::start_in(dir);
    let id = send(&gateway);
    wait("the connector is closed", || {
        let out = gateway.cli(&["status"]).stdout;
        String::from_utf8_lossy(&out)
            .contains("up is closed since")
            .then_some(())
    });
    stdout(&gateway.cli(&["reload"]));
    let (pid, port, upstream) = (
        format!("\"pid\": {}", gateway.pid()),
        format!(":{}", gateway.address("local").port()),
        format!(":{}", nobody.port()),
    );
    let here = gateway.dir.path().canonicalize().unwrap();
    let words = |text: &str| {
        let words = [
            (here.to_str().unwrap(), "DIR"),
            (id.as_str(), "ID"),
            (pid.as_str(), "\"pid\": PID"),
            (port.as_str(), ":PORT"),
            (upstream.as_str(), ":UPSTREAM"),
        ];
        settled(text, &words)
    };
    let said = |gateway: &Gateway, args: &[&str]| {
        words(&String::from_utf8(gateway.cli(args).stdout).unwrap())
    };
    check("status", &said(&gateway, &["status", "--json"]));
    check("queue-list", &said(&gateway, &["queue", "list", "--json"]));
    check(
        "queue-show",
        &said(&gateway, &["queue", "show", &id, "--json"]),
    );
    check("trace", &said(&gateway, &["trace", &id, "--json"]));
    stdout(&gateway.cli(&["queue", "hold", &id]));
    check("trace-held", &said(&gateway, &["trace", &id, "--json"]));
    fs::write(gateway.config_path(), config.replace("[\"1h\"]", "[1]")).unwrap();
    gateway.hang_up();
    wait("the reload failed", || {
        let text = said(&gateway, &["status", "--json"]);
        // And whoever looks for incidents has seen it.
        let is_seen = text.contains("\"error\": \"") && text.contains("\"warning\": 1");
        is_seen.then_some(())
    });
    check("status-broken", &said(&gateway, &["status", "--json"]));
    gateway.terminate();
    check("status-gone", &said(&gateway, &["status", "--json"]));
    check(
        "queue-none",
        &said(
            &gateway,
            &["queue", "list", "--json", "--data-dir", "elsewhere"],
        ),
    );
}
