//! The commands, as a shell sees them: the real binary, its output and its exit status.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::harness::{
    peers::free_port,
    upstream::{Act, Script, Upstream},
};

fn postern(arguments: &[&str], input: &str) -> Output {
    postern_with(arguments, input, &[])
}

fn postern_with(arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(arguments)
        .env_remove("POSTERN_CONFIG")
        .env_remove("POSTERN_SMTP")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn exit_statuses_of_the_command_line() {
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["nonsense"], 64),
        (&[], 64),
        (&["queue", "retry"], 64),
        (&["queue", "list", "--older", "1x"], 64),
        (&["queue", "show", "nonsense"], 64),
        (&["explain", "--from", "a@b.c"], 64),
        (&["cert"], 64),
        (&["sendmail", "-bp"], 64),
        (&["sendmail", "--help"], 0),
        (&["check", "-c", "/nonexistent/config.toml"], 78),
        (&["-c", "/nonexistent/config.toml", "status"], 78),
        (&["queue", "list", "-c", "/nonexistent/config.toml"], 78),
    ] {
        let output = postern(arguments, "");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        if code != 0 {
            assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
        }
    }
}

#[test]
fn hash_password() {
    let output = postern(&["hash-password"], "correct horse\n");
    let hash = text(&output.stdout);
    let hash = hash.lines().last().unwrap();
    assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
    assert_eq!(output.status.code(), Some(0));
    for bad in ["", "\n", "two\nlines\n"] {
        let output = postern(&["hash-password"], bad);
        assert_eq!(output.status.code(), Some(65), "{bad:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn services_man_and_completions() {
    let services = text(&postern(&["services"], "").stdout);
    assert!(services.lines().next().unwrap().starts_with("SERVICE"));
    assert!(services.contains("smtp.gmail.com"), "{services}");
    let json = postern(&["services", "--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json.as_array().unwrap().len() > 20);
    let page = text(&postern(&["man"], "").stdout);
    for part in [
        ".TH postern",
        "postern queue retry",
        "postern hash\\-password",
        "config",
    ] {
        assert!(
            page.contains(part) || page.contains(&part.replace('\\', "")),
            "{part}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = postern(&["completions", shell], "");
        assert!(text(&script.stdout).contains("postern"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = postern(&["man", "--dir", dir.path().to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(dir.path().join("postern-queue-list.1").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("man")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn certificates() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("certs");
    let base = [
        "cert",
        "--dir",
        at.to_str().unwrap(),
        "--name",
        "relay.corp.example",
        "--ip",
        "10.0.0.5",
    ];
    let output = postern(&base, "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("[[listener]]") && said.contains("ca.pem"),
        "{said}"
    );
    for (file, mode) in [
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("relay.pem", 0o644),
        ("relay.key", 0o600),
    ] {
        let found = std::fs::metadata(at.join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found & !mode, 0, "{file}: {found:o}");
    }
    let ca = std::fs::read(at.join("ca.pem")).unwrap();
    let relay = std::fs::read(at.join("relay.pem")).unwrap();
    assert!(relay.ends_with(&ca), "the chain holds the CA");
    assert_eq!(
        postern(&base, "").status.code(),
        Some(73),
        "it refuses to overwrite"
    );
    assert_eq!(std::fs::read(at.join("relay.pem")).unwrap(), relay);
    let mut forced = base.to_vec();
    forced.push("--force");
    assert_eq!(postern(&forced, "").status.code(), Some(0));
    assert_ne!(std::fs::read(at.join("relay.pem")).unwrap(), relay);
    assert_eq!(
        std::fs::read(at.join("ca.pem")).unwrap(),
        ca,
        "the CA is kept"
    );
    let output = postern(
        &["cert", "--dir", at.to_str().unwrap(), "--name", "a b"],
        "",
    );
    assert_eq!(output.status.code(), Some(64));
}

/// A listener that plays its replies one after the other, and hangs up when they are over.
fn script(replies: &'static [&'static str]) -> (String, Upstream) {
    let asked = AtomicUsize::new(0);
    let upstream = Script::default()
        .when(move |at| {
            if at.stage == "BODY" {
                return None;
            }
            let reply = replies.get(asked.fetch_add(1, Ordering::SeqCst));
            Some(reply.map_or(Act::Fin, |text| Act::says(*text)))
        })
        .start();
    (upstream.address.to_string(), upstream)
}

#[test]
fn sendmail_hands_over() {
    let (address, upstream) = script(&[
        "220 x",
        "250 x",
        "250 2.1.0 ok",
        "250 2.1.5 ok",
        "250 2.1.5 ok",
        "354 go",
        "250 2.0.0 queued as ID",
        "221 bye",
    ]);
    let output = postern_with(
        &["sendmail", "-t", "-i", "-fbounce@corp.example"],
        "From: a@corp.example\nTo: b@corp.example\nBcc: c@corp.example\nSubject: s\n\n.\n..x\nb\u{e4}d\n",
        &[("POSTERN_SMTP", &address)],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let told = upstream.all();
    let (_, told) = told.split_once("\r\n").unwrap();
    assert_eq!(
        told,
        "MAIL FROM:<bounce@corp.example>\r\nRCPT TO:<b@corp.example>\r\nRCPT TO:<c@corp.example>\r\nDATA\r\n\
         From: a@corp.example\r\nTo: b@corp.example\r\nSubject: s\r\n\r\n..\r\n...x\r\nb\u{e4}d\r\n.\r\nQUIT\r\n"
    );
}

#[test]
fn sendmail_says_why_not() {
    for (replies, code) in [
        (&["421 4.3.2 later"][..], 75),
        (&["220 x", "250 x", "550 5.7.1 sender not allowed"], 77),
        (
            &[
                "220 x",
                "250 x",
                "250 ok",
                "550 5.7.1 recipient not allowed",
                "221 bye",
            ],
            77,
        ),
        (
            &["220 x", "250 x", "250 ok", "550 5.1.1 who", "221 bye"],
            67,
        ),
        (
            &[
                "220 x",
                "250 x",
                "250 ok",
                "250 ok",
                "354 go",
                "550 5.6.0 what",
            ],
            65,
        ),
        (
            &[
                "220 x",
                "250 x",
                "250 ok",
                "250 ok",
                "354 go",
                "452 4.3.1 full",
            ],
            75,
        ),
    ] {
        let (address, upstream) = script(replies);
        let output = postern_with(
            &["sendmail", "-f", "a@b.c", "x@y.z"],
            "Subject: s\n\nx\n.\nnot sent\n",
            &[("POSTERN_SMTP", &address)],
        );
        assert_eq!(
            output.status.code(),
            Some(code),
            "{replies:?}: {}",
            text(&output.stderr)
        );
        assert!(!output.stderr.is_empty(), "{replies:?}");
        assert!(!upstream.all().contains("not sent"));
    }
    let free = format!("127.0.0.1:{}", free_port());
    let output = postern_with(
        &["sendmail", "-f", "a@b.c", "x@y.z"],
        "x\n",
        &[("POSTERN_SMTP", &free)],
    );
    assert_eq!(output.status.code(), Some(75));
}

#[test]
fn sendmail_speaks_smtp() {
    let (address, upstream) = script(&["220 hello", "250 x", "221 bye"]);
    let output = postern_with(
        &["sendmail", "-bs"],
        "EHLO x\r\nQUIT\r\n",
        &[("POSTERN_SMTP", &address)],
    );
    assert_eq!(text(&output.stdout), "220 hello\r\n250 x\r\n221 bye\r\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(upstream.all(), "EHLO x\r\nQUIT\r\n");
}

#[test]
fn send_composes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list.csv");
    std::fs::write(&file, "a,b\n").unwrap();
    let (address, upstream) = script(&[
        "220 x",
        "250 x",
        "250 ok",
        "250 ok",
        "250 ok",
        "354 go",
        "250 2.0.0 queued as ID",
        "221 bye",
    ]);
    let output = postern_with(
        &[
            "send",
            "--from",
            "ERP <erp@corp.example>",
            "--to",
            "b@corp.example",
            "--bcc",
            "c@corp.example",
            "--subject",
            "Gr\u{fc}\u{df}e",
            "--attach",
            file.to_str().unwrap(),
        ],
        "# Hi\n\n<script>x</script>\n",
        &[("POSTERN_SMTP", &address)],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "queued as ID\n");
    let told = upstream.all();
    for part in [
        "MAIL FROM:<erp@corp.example>",
        "RCPT TO:<c@corp.example>",
        "multipart/mixed",
        "multipart/alternative",
        "<h1>Hi</h1>",
        "# Hi",
        "list.csv",
        "text/csv",
        "&lt;script&gt;",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(!told.contains("\nBcc:"), "{told}");
}
