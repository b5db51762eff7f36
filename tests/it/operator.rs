//! The administrator's commands against a running gateway and a stopped one.

use std::{fs, io::Write as _, process::Stdio};

use super::harness::{
    gateway::{Gateway, basic, stdout, wait},
    peers::free_port,
    sink::Sink,
};

/// Runs a command with standard input and the gateway's configuration; status and both outputs.
fn run(gateway: &Gateway, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = std::process::Command::new(Gateway::binary())
        .args(args)
        .current_dir(gateway.dir.path())
        .env("POSTERN_CONFIG", "config.toml")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// `basic`, on a port that the configuration names.
fn fixed(upstream: std::net::SocketAddr) -> String {
    basic(upstream).replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()))
}

#[test]
fn send_and_sendmail_go_through_the_listener() {
    let sink = Sink::start();
    // The commands read the listener's address from the configuration.
    let gateway = Gateway::start(&fixed(sink.address));
    fs::write(gateway.path("\u{e4} b.txt"), "attached").unwrap();

    let markdown = "# Hello **there**\n\n- one <script>\n";
    let args = [
        "send",
        "--from",
        "a@corp.example",
        "--to",
        "b@corp.example",
        "--subject",
        "Gr\u{f6}\u{df}e",
        "--attach",
        "\u{e4} b.txt",
    ];
    let (code, out, err) = run(&gateway, &args, markdown.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("queued as"), "{out}");
    let mail = sink.wait(1).remove(0);
    let parsed = mail_parser::MessageParser::default()
        .parse(&mail.data)
        .unwrap();
    assert_eq!(parsed.subject(), Some("Gr\u{f6}\u{df}e"));
    assert!(parsed.body_text(0).unwrap().contains("# Hello **there**"));
    let html = parsed.body_html(0).unwrap();
    assert!(
        html.contains("<strong>there</strong>") && !html.contains("<script>"),
        "{html}"
    );
    let attachment = parsed.attachments().next().unwrap();
    assert_eq!(
        mail_parser::MimeHeaders::attachment_name(attachment),
        Some("\u{e4} b.txt")
    );
    assert_eq!(attachment.contents(), b"attached");

    let mail = b"From: a@corp.example\nTo: b@corp.example, c@partner.example\nBcc: d@corp.example\nSubject: s\n\nbody\n..\n.\nbehind the dot\n";
    let (code, _, err) = run(&gateway, &["sendmail", "-t"], mail);
    assert_eq!(code, 0, "{err}");
    let got = sink.wait(2).remove(1);
    assert_eq!(
        got.to,
        ["b@corp.example", "c@partner.example", "d@corp.example"]
    );
    assert!(
        got.text().ends_with("\r\n\r\nbody\r\n..\r\n"),
        "{}",
        got.text()
    );
    assert!(
        !got.text().contains("d@corp.example"),
        "a blind copy is seen"
    );

    let (code, _, err) = run(
        &gateway,
        &[
            "sendmail",
            "-i",
            "-oem",
            "-fa@corp.example",
            "b@corp.example",
        ],
        b"Subject: s\n\nx\n.\ny\n",
    );
    assert_eq!(code, 0, "{err}");
    assert!(sink.wait(3)[2].text().ends_with("\r\n\r\nx\r\n.\r\ny\r\n"));
    let (code, _, err) = run(
        &gateway,
        &["sendmail", "-f", "a@evil.tld", "b@corp.example"],
        b"Subject: s\n\nx\n",
    );
    assert!(code == 77 && err.contains("550 5.7.1"), "{code} {err}");
    let (code, out, _) = run(&gateway, &["sendmail", "-bs"], b"EHLO x\r\nQUIT\r\n");
    assert!(
        code == 0 && out.starts_with("220 ") && out.contains("221 2.0.0"),
        "{code} {out}"
    );
    assert_eq!(sink.count(), 3);
}

#[test]
fn sendmail_without_a_gateway_says_try_again() {
    let sink = Sink::start();
    let mut gateway = Gateway::start(&fixed(sink.address));
    gateway.kill();
    let (code, _, err) = run(
        &gateway,
        &["sendmail", "-f", "a@corp.example", "b@corp.example"],
        b"Subject: s\n\nx\n",
    );
    assert_eq!(code, 75, "{err}");
}

#[test]
fn the_verbs_of_the_queue_work_while_it_runs_and_while_it_does_not() {
    let port = free_port();
    let mut gateway = Gateway::start(&basic(([127, 0, 0, 1], port).into()));
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let mut ids = Vec::new();
    for to in ["b1@corp.example", "b2@partner.example", "b3@corp.example"] {
        let reply = client.mail(
            "a@corp.example",
            &[to],
            "From: a@corp.example\r\nSubject: =?utf-8?q?n=1b[31m=E2=80=AE?=\r\n\r\nbody\r\n",
        );
        ids.push(reply.rsplit(' ').next().unwrap().to_owned());
    }
    drop(client);
    wait("the connector is closed", || {
        String::from_utf8_lossy(&gateway.cli(&["status"]).stdout)
            .contains("closed")
            .then_some(())
    });
    for round in 0..2 {
        let states = || -> Vec<String> {
            let list: serde_json::Value =
                serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
            list.as_array()
                .unwrap()
                .iter()
                .map(|e| e["state"].as_str().unwrap().to_owned())
                .collect()
        };
        let settled = |wanted: &[&str]| {
            wait(&format!("{wanted:?} in round {round}"), || {
                (states() == wanted).then_some(())
            });
        };
        settled(&["waiting", "waiting", "waiting"]);
        let verb = |args: &[&str], said: &str| {
            let output = gateway.cli(args);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && text.contains(said),
                "{args:?}: {text}"
            );
        };
        verb(&["queue", "hold", &ids[0]], "1 message held");
        settled(&["held", "waiting", "waiting"]);
        verb(
            &["queue", "release", "--state", "held"],
            "1 message released",
        );
        verb(
            &["queue", "fail", "--recipient", "partner.example"],
            "1 message given up",
        );
        settled(&["waiting", "failed", "waiting"]);
        verb(
            &["queue", "retry", "--state", "failed"],
            "1 message to be tried again",
        );
        settled(&["waiting", "waiting", "waiting"]);
        // Nothing of the mail reaches the terminal raw.
        let shown = stdout(&gateway.cli(&["queue", "show", &ids[0]]));
        assert!(
            shown.contains("b1@corp.example")
                && !shown.contains('\u{1b}')
                && !shown.contains('\u{202e}'),
            "{shown}"
        );
        let exported = stdout(&gateway.cli(&["queue", "export", &ids[0]]));
        assert!(exported.ends_with("\r\n\r\nbody\r\n"), "{exported}");
        let none = gateway.cli(&["queue", "hold", "--recipient", "nobody@corp.example"]);
        assert_eq!(none.status.code(), Some(1));
        assert_eq!(
            gateway.cli(&["queue", "drop"]).status.code(),
            Some(64),
            "a verb wants to know which"
        );
        if round == 0 {
            // Not cut off: a job under way would stay so.
            gateway.terminate();
        }
    }
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
    for key in [
        "id",
        "route",
        "state",
        "sender",
        "recipients",
        "attempts",
        "next_attempt",
        "blocked_by",
        "waits_for",
        "size",
        "accepted_at",
    ] {
        assert!(list[0].get(key).is_some(), "{key}: {list}");
    }
    let trace = stdout(&gateway.cli(&["trace", &ids[1]]));
    for word in ["accepted", "failed", "retried"] {
        assert!(trace.contains(word), "{word}: {trace}");
    }
    assert!(stdout(&gateway.cli(&["queue", "drop", "--all"])).contains("3 messages dropped"));
    assert_eq!(
        gateway.cli(&["queue", "drop", "--all"]).status.code(),
        Some(1)
    );
    // What was dropped stays dropped after a start, and its upstream coming back changes nothing.
    gateway.restart();
    assert_eq!(
        stdout(&gateway.cli(&["queue", "list", "--json"])).trim(),
        "[]"
    );
}

#[test]
fn a_reload_that_asks_for_logins_holds_for_open_sessions() {
    let sink = Sink::start();
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    client.expect("MAIL FROM:<a@corp.example>", "250");
    let (_, hash, _) = run(&gateway, &["hash-password"], b"secret\n");
    let stricter = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\nauth = \"required\"\nplaintext_auth = true",
    ) + &format!(
        "\n[[user]]\nname = \"erp\"\npassword = '{}'\n",
        hash.lines().last().unwrap()
    );
    fs::write(gateway.config_path(), stricter).unwrap();
    stdout(&gateway.cli(&["reload"]));
    // The transaction under way finishes as it began; the next one is asked for a login.
    client.expect("RCPT TO:<x@corp.example>", "250");
    client.expect("DATA", "354");
    assert!(client.say("Subject: s\r\n\r\nb\r\n.").starts_with("250"));
    client.expect("MAIL FROM:<a@corp.example>", "530 5.7.0");
    client.expect("AUTH PLAIN AGVycABzZWNyZXQ=", "235");
    client.expect("MAIL FROM:<a@corp.example>", "250");
    sink.wait(1);
}

#[test]
fn a_socket_from_systemd_is_taken_over() {
    if !super::harness::peers::has("systemd-socket-activate") {
        return;
    }
    let sink = Sink::start();
    let dir = tempfile::TempDir::new().unwrap();
    let config = basic(sink.address).replace("127.0.0.1:0", "socket:smtp");
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], free_port()).into();
    // It holds the socket and starts the gateway, as the process it is, at the first connection.
    let mut child = std::process::Command::new("systemd-socket-activate")
        .args(["-l", &address.to_string(), "--fdname=smtp"])
        .args([Gateway::binary(), "run", "-c", "config.toml"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = wait("the activated gateway", || {
        std::net::TcpStream::connect(address).ok()?;
        let mut client = super::harness::gateway::Client::connect(address);
        client.reply().starts_with("220 ").then_some(client)
    });
    client.expect("EHLO x", "250");
    let reply = client.mail(
        "a@corp.example",
        &["b@corp.example"],
        "Subject: s\r\n\r\nb\r\n",
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reply.starts_with("250 2.0.0 queued"), "{reply}");
}
