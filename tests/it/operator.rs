//! The administrator's commands against a running gateway and a stopped one.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use super::harness::{
    gateway::{Gateway, basic, stdout, wait},
    peers::free_port,
    upstream::Upstream,
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
    let sink = Upstream::start();
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
    let sink = Upstream::start();
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
    let sink = Upstream::start();
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
#[ignore = "needs systemd-socket-activate, which tests/run installs"]
fn a_socket_from_systemd_is_taken_over() {
    super::harness::peers::need("systemd-socket-activate");
    let sink = Upstream::start();
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

fn both(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(output)))
}

#[test]
fn status_of_a_gateway_that_is_gone_is_no_present_truth() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let mut gateway = Gateway::start(&basic(nobody));
    let never = both(&gateway.cli(&["status", "--data-dir", "elsewhere"]));
    assert!(
        never.contains("not running") && never.contains("no gateway has ever run there"),
        "{never}"
    );
    super::harness::gateway::send(&gateway);
    wait("the connector is closed", || {
        both(&gateway.cli(&["status"]))
            .contains("connector   up is closed since")
            .then_some(())
    });
    let alive = gateway.cli(&["status", "--json"]);
    assert_eq!(alive.status.code(), Some(0));
    let alive = json(&alive);
    assert_eq!(alive["ok"], true);
    assert_eq!(alive["pid"], gateway.pid());
    assert_eq!(alive["connectors"][0]["current"], true);
    gateway.kill();
    let gone = gateway.cli(&["status", "--json"]);
    assert_eq!(gone.status.code(), Some(69));
    let gone = json(&gone);
    assert_eq!(gone["ok"], false);
    assert_eq!(gone["running"], false);
    assert_eq!(gone["listeners"], serde_json::json!([]));
    assert_eq!(gone["connectors"][0]["current"], false);
    assert_eq!(gone["connectors"][0]["next_probe"], serde_json::Value::Null);
    let text = gateway.cli(&["status"]);
    assert_eq!(text.status.code(), Some(69));
    let text = both(&text);
    assert!(
        text.contains("gateway     not running")
            && text.contains("up was last seen closed, since "),
        "{text}"
    );
}

/// While a file is being mended, whoever mends it sees the queue.
#[test]
fn a_wrong_file_does_not_blind_the_operator() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let good = basic(nobody);
    let mut gateway = Gateway::start(&good);
    let id = super::harness::gateway::send(&gateway);
    let files = [
        good.replace("[\"corp.example\"]\nrec", "[\"corp.example\", \"@x\"]\nrec"),
        good.replace("hostname = \"relay.corp.example\"", "hostname = \"relay"),
        good.replace("[[listener]]", "[[listener"),
        good.replace("[[route]]", "}\n[[route]]"),
        good.replace("data_dir = \"data\"", "data_dir = data"),
        good.replace("data_dir = \"data\"", "datadir = \"data\""),
        good.clone()
            + "username = \"relay\"\npassword = { env = \"NOT_SET_ANYWHERE\" }\nport = 1\n",
    ];
    for round in 0..2 {
        for file in &files {
            assert_ne!(*file, good);
            fs::write(gateway.config_path(), file).unwrap();
            if round == 0 {
                assert_eq!(gateway.cli(&["reload"]).status.code(), Some(78), "{file}");
            }
            let status = gateway.cli(&["status"]);
            let expected = if round == 0 { 0 } else { 69 };
            let said = both(&status);
            assert_eq!(status.status.code(), Some(expected), "{said}");
            assert!(said.contains("config.toml has errors"), "{said}");
            assert!(!said.contains("0 waiting, 0 being sent"), "{said}");
            let problems = json(&gateway.cli(&["status", "--json"]))["problems"].clone();
            assert_eq!(problems[0]["severity"], "error", "{problems}");
            for args in [
                &["queue", "list"][..],
                &["queue", "show", &id],
                &["trace", "x@corp.example"],
                &["queue", "hold", &id],
                &["queue", "release", &id],
            ] {
                let said = gateway.cli(args);
                assert!(said.status.success(), "{args:?}: {} {file}", both(&said));
            }
            let list = json(&gateway.cli(&["queue", "list", "--json"]));
            assert_eq!(list[0]["id"], *id);
        }
        // What cannot be told is asked for.
        fs::write(gateway.config_path(), good.replace("\"data\"", "5")).unwrap();
        for args in [&["status"][..], &["queue", "list"], &["trace", &id]] {
            let blind = gateway.cli(args);
            assert_eq!(blind.status.code(), Some(78));
            assert!(both(&blind).contains("--data-dir"), "{}", both(&blind));
            let told = gateway.cli(&[args, &["--data-dir", "data"]].concat());
            assert_ne!(told.status.code(), Some(78), "{}", both(&told));
        }
        fs::remove_file(gateway.config_path()).unwrap();
        let said = both(&gateway.cli(&["queue", "list"]));
        assert!(
            said.contains("cannot be read") && said.contains("--data-dir"),
            "{said}"
        );
        assert!(stdout(&gateway.cli(&["queue", "list", "--data-dir", "data"])).contains(&id));
        fs::write(gateway.config_path(), &good).unwrap();
        if round == 0 {
            gateway.terminate();
        }
    }
}

#[test]
fn a_reload_that_failed_is_in_the_status() {
    let sink = Upstream::start();
    let good = basic(sink.address);
    let gateway = Gateway::start(&good);
    fs::write(
        gateway.config_path(),
        good.replace("[[route]]", "nonsense = 1\n[[route]]"),
    )
    .unwrap();
    gateway.hang_up();
    gateway.wait_for_log(&["not reloaded"]);
    let said = wait("the note of the reload", || {
        let said = both(&gateway.cli(&["status"]));
        said.contains("reload      failed at").then_some(said)
    });
    // Once: what was wrong then is wrong now.
    assert_eq!(said.matches("has no key `nonsense`").count(), 1, "{said}");
    // The file is right again, and what happened still happened.
    fs::write(gateway.config_path(), &good).unwrap();
    let said = both(&gateway.cli(&["status"]));
    assert!(said.contains("has no key `nonsense`"), "{said}");
    stdout(&gateway.cli(&["reload"]));
    let said = both(&gateway.cli(&["status"]));
    assert!(
        said.contains("reload      done at") && !said.contains("nonsense"),
        "{said}"
    );
}

#[test]
fn another_data_dir_needs_a_restart_and_reload_says_so() {
    let sink = Upstream::start();
    let good = basic(sink.address);
    let gateway = Gateway::start(&good);
    fs::write(
        gateway.config_path(),
        good.replace("data_dir = \"data\"", "data_dir = \"data2\""),
    )
    .unwrap();
    let reload = gateway.cli(&["reload"]);
    assert_eq!(reload.status.code(), Some(69));
    let said = both(&reload);
    for words in [
        "a new `data_dir` needs a restart",
        &format!("runs as pid {} on ", gateway.pid()),
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = both(&gateway.cli(&["status"]));
    assert!(
        said.contains(&format!("runs as pid {} on ", gateway.pid())) && said.contains("--data-dir"),
        "{said}"
    );
    assert!(!gateway.path("data2").exists());
    // The same by its signal.
    gateway.hang_up();
    gateway.wait_for_log(&["data_dir has changed; that needs a restart"]);
    super::harness::gateway::send(&gateway);
    sink.wait(1);
}

/// A gateway in a container says its number there, and that number may be anybody here.
#[test]
#[ignore = "needs unshare, which tests/run installs"]
fn reload_signals_nobody_by_a_number_of_another_pid_namespace() {
    super::harness::peers::need("unshare");
    let sink = Upstream::start();
    let dir = tempfile::TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), basic(sink.address)).unwrap();
    let cli = |args: &[&str]| {
        std::process::Command::new(Gateway::binary())
            .args(args)
            .args(["-c", "config.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let mut contained = std::process::Command::new("unshare")
        .args(["--map-root-user", "--pid", "--fork", "--kill-child"])
        .args([Gateway::binary(), "run", "-c", "config.toml"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // From out here its processes are seen, and their numbers are ours; what is inside counts from 1. So the lock is looked at
    // from a third place.
    let status = wait("the gateway in its namespace", || {
        assert!(contained.try_wait().unwrap().is_none(), "it ended");
        let status = cli(&["status", "--json"]);
        status.status.success().then(|| json(&status))
    });
    assert_ne!(status["pid"], 1);
    stdout(&cli(&["reload"]));
    let stranger = |args: &[&str]| {
        std::process::Command::new("unshare")
            .args(["--map-root-user", "--pid", "--fork"])
            .arg(Gateway::binary())
            .args(args)
            .args(["-c", "config.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let reload = stranger(&["reload"]);
    let said = both(&reload);
    assert_eq!(reload.status.code(), Some(69), "{said}");
    assert!(said.contains("another PID namespace"), "{said}");
    let status = json(&stranger(&["status", "--json"]));
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], serde_json::Value::Null);
    contained.kill().unwrap();
    contained.wait().unwrap();
}

#[test]
fn trace_says_what_a_message_that_was_never_tried_waits_for() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let mut gateway = Gateway::start(&basic(nobody));
    super::harness::gateway::send(&gateway);
    wait("the connector is closed", || {
        both(&gateway.cli(&["status"]))
            .contains("up is closed")
            .then_some(())
    });
    // Behind a closed connector it costs no attempt, so no event tells of it.
    let id = super::harness::gateway::send(&gateway);
    let said = stdout(&gateway.cli(&["trace", &id]));
    assert!(
        said.contains("waits for: blocked by connector up, closed since"),
        "{said}"
    );
    let life = json(&gateway.cli(&["trace", &id, "--json"]));
    assert_eq!(life[0]["entries"][0]["blocked_by"], "up");
    stdout(&gateway.cli(&["queue", "hold", &id]));
    let said = stdout(&gateway.cli(&["trace", &id]));
    assert!(said.contains("waits for: held by an operator"), "{said}");
    stdout(&gateway.cli(&["queue", "release", &id]));
    gateway.terminate();
    let said = stdout(&gateway.cli(&["trace", &id]));
    assert!(said.contains("no gateway runs"), "{said}");
    let renamed = basic(nobody).replace("name = \"all\"", "name = \"other\"");
    fs::write(gateway.config_path(), renamed).unwrap();
    let said = stdout(&gateway.cli(&["trace", &id]));
    assert!(
        said.contains("its route all is no longer in the configuration"),
        "{said}"
    );
}

/// A queue whose database was lost: what is left of its messages is nobody's, and nobody deletes it.
#[test]
fn a_spool_without_its_database_is_set_aside_and_said() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let mut gateway = Gateway::start(&basic(nobody));
    let large = "From: a@corp.example\r\nSubject: s\r\n\r\n".to_owned() + &"x\r\n".repeat(50_000);
    for lost in ["", "empty"] {
        let mut client = gateway.connect("local");
        client.expect("EHLO x", "250");
        let reply = client.mail("a@corp.example", &["b@corp.example"], &large);
        let id = super::harness::gateway::queued_id(&reply);
        drop(client);
        gateway.terminate();
        let body = fs::read(gateway.path("data/spool").join(&id)).unwrap();
        for file in ["queue.db", "queue.db-wal", "queue.db-shm"] {
            let _ = fs::remove_file(gateway.path("data").join(file));
        }
        if lost == "empty" {
            fs::write(gateway.path("data/queue.db"), "").unwrap();
        }
        gateway.restart();
        let line = gateway.wait_for_log(&["queue lost", "bodies=1", "set aside"]);
        assert!(line.contains("ERROR"), "{line}");
        // It stays through every further start.
        gateway.terminate();
        gateway.restart();
        assert!(!gateway.log().contains("queue lost"));
        let kept = fs::read_dir(gateway.path("data"))
            .unwrap()
            .find_map(|entry| fs::read(entry.unwrap().path().join(&id)).ok());
        assert!(kept.is_some_and(|kept| kept == body), "the body is gone");
    }
}

/// What a failure report says is old news by the time somebody brings the failed mail back.
#[test]
fn a_retry_of_all_that_failed_leaves_failed_reports() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let gateway = Gateway::start(&basic(nobody).replace(
        "senders = [\"corp.example\"]",
        "senders = [\"corp.example\", \"<>\"]",
    ));
    let mail = super::harness::gateway::send(&gateway);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let reply = client.mail(
        "",
        &["b@corp.example"],
        "From: <>\r\nSubject: s\r\n\r\nb\r\n",
    );
    let report = reply.rsplit(' ').next().unwrap().to_owned();
    let state = |id: &str| {
        let list = json(&gateway.cli(&["queue", "list", "--json", id]));
        list[0]["state"].as_str().unwrap().to_owned()
    };
    for (args, took) in [
        (&["--state", "failed"][..], [true, false]),
        (&["--all"], [true, false]),
        (&["--state", "failed", "--reports"], [true, true]),
        (&["--sender", "<>"], [false, true]),
        (&[&report], [false, true]),
    ] {
        stdout(&gateway.cli(&["queue", "fail", "--all"]));
        wait("both have failed", || {
            (state(&mail) == "failed" && state(&report) == "failed").then_some(())
        });
        let said = gateway.cli(&[&["queue", "retry"][..], args].concat());
        let is_left = both(&said).contains("1 failure report that failed");
        assert_eq!(is_left, !took[1], "{args:?}: {}", both(&said));
        assert_eq!(
            [state(&mail) != "failed", state(&report) != "failed"],
            took,
            "{args:?}"
        );
    }
}

/// Secrets end in no core dump and before no other process of the user.
#[test]
fn a_process_that_holds_secrets_shows_its_memory_to_nobody() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // A process that is not dumpable belongs to root in /proc, whoever runs it: proc(5).
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let umask = status.lines().find(|l| l.starts_with("Umask:")).unwrap();
    assert!(umask.ends_with("0077"), "{umask}");
    // Commands too: a message that is written down is its owner's alone.
    let id = super::harness::gateway::send(&gateway);
    sink.wait(1);
    let nobody = ([127, 0, 0, 1], free_port()).into();
    fs::write(gateway.config_path(), basic(nobody)).unwrap();
    stdout(&gateway.cli(&["reload"]));
    let waiting = super::harness::gateway::send(&gateway);
    assert_ne!(id, waiting);
    stdout(&gateway.cli(&["queue", "export", &waiting, "-o", "out.eml"]));
    let mode = fs::metadata(gateway.path("out.eml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_data_dir_that_others_may_look_into_is_said_with_its_chmod() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let said = |gateway: &Gateway| both(&gateway.cli(&["check"]));
    assert!(!said(&gateway).contains("where the mail is kept"));
    let data = gateway.path("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let text = said(&gateway);
    assert!(
        text.contains("every user of this machine can look into")
            && text.contains("chmod o-rwx data"),
        "{text}"
    );
}

/// Whoever renews a certificate means the listener: what goes out keeps its connection, and a file that is half edited stays untaken.
#[test]
fn a_renewed_certificate_is_taken_and_nothing_else() {
    let mint = |dir: &std::path::Path| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (name, text) in [
            ("relay.pem", made.cert.pem()),
            ("relay.key", made.signing_key.serialize_pem()),
        ] {
            fs::write(dir.join(format!("{name}.new")), text).unwrap();
            fs::rename(dir.join(format!("{name}.new")), dir.join(name)).unwrap();
        }
    };
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sink = Upstream::scripted({
        let opened = std::sync::Arc::clone(&opened);
        move |line| {
            if line.starts_with("EHLO") {
                opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            None
        }
    });
    let connections = || opened.load(std::sync::atomic::Ordering::Relaxed);
    let dir = tempfile::TempDir::new().unwrap();
    mint(dir.path());
    let config = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"",
    ) + "idle_timeout = \"10m\"\n";
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    let gateway = Gateway::start_in(dir);
    super::harness::gateway::send(&gateway);
    sink.wait(1);
    // Half edited: nobody asked for it to be taken.
    fs::write(gateway.config_path(), config.clone() + "nonsense =").unwrap();
    mint(gateway.dir.path());
    gateway.wait_for_log(&["file changed"]);
    gateway.wait_for_log(&["reloaded", "config=config.toml"]);
    super::harness::gateway::send(&gateway);
    sink.wait(2);
    assert_eq!(
        connections(),
        1,
        "the connection to the upstream was thrown away"
    );
    // Nor does a reload throw it away that changes nothing.
    fs::write(gateway.config_path(), &config).unwrap();
    stdout(&gateway.cli(&["reload"]));
    super::harness::gateway::send(&gateway);
    sink.wait(3);
    assert_eq!(connections(), 1);
}

/// A certificate that was made by a clock that runs ahead, or for next year.
#[test]
fn a_certificate_that_is_not_valid_yet_is_said_by_check_and_status() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(dir.path().join("a.pem"), pem).unwrap();
    fs::write(dir.path().join("a.key"), key.serialize_pem()).unwrap();
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"a.pem\"\nkey = \"a.key\"",
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let gateway = Gateway::start_in(dir);
    gateway.wait_for_log(&["certificate is not valid yet"]);
    assert!(both(&gateway.cli(&["check"])).contains("2090-01-01"));
    let status = gateway.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    let said = both(&status);
    assert!(
        said.contains("credential  listener local certificate is not valid before 2090-01-01"),
        "{said}"
    );
    let json = json(&gateway.cli(&["status", "--json"]));
    assert_eq!(json["ok"], false);
    assert_eq!(json["certificates"][0]["expired"], false);
}

#[test]
fn an_expired_certificate_is_said_by_check_and_status() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(
        dir.path().join("a.pem"),
        params.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    fs::write(dir.path().join("a.key"), key.serialize_pem()).unwrap();
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"a.pem\"\nkey = \"a.key\"",
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let gateway = Gateway::start_in(dir);
    gateway.wait_for_log(&["certificate expired"]);
    let check = gateway.cli(&["check"]);
    let said = both(&check);
    assert!(check.status.success(), "{said}");
    assert!(said.contains("a.pem expired on 2020-02-01"), "{said}");
    let status = gateway.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(both(&status).contains("credential  listener local certificate expired on 2020-02-01"));
    let json = json(&gateway.cli(&["status", "--json"]));
    assert_eq!(json["ok"], false);
    assert_eq!(json["certificates"][0]["expired"], true);
}
