//! The whole path over real sockets: from a client, through the queue, to an upstream that is not our code.

use crate::harness::time::stays;
use std::fs;

use super::harness::{
    gateway::{Gateway, basic, queued_id, read, stdout, wait},
    upstream::Upstream,
};

const CONTENT: &str =
    "From: App <app@corp.example>\r\nTo: x@corp.example\r\nSubject: hello\r\n\r\nline\r\n..dot\r\n";

#[test]
fn one_message_from_client_to_upstream() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = gateway.connect("local");
    let ehlo = client.say("EHLO app.corp.example");
    for keyword in [
        "PIPELINING",
        "8BITMIME",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "SIZE 36700160",
    ] {
        assert!(ehlo.contains(keyword), "{ehlo}");
    }
    assert!(
        !ehlo.contains("AUTH") && !ehlo.contains("STARTTLS"),
        "{ehlo}"
    );
    let id = queued_id(&client.mail(
        "app@corp.example",
        &["x@corp.example", "y@partner.example"],
        CONTENT,
    ));
    client.expect("QUIT", "221");

    let mail = sink.wait(1).remove(0);
    assert_eq!(mail.from, "app@corp.example");
    assert_eq!(mail.to, ["x@corp.example", "y@partner.example"]);
    let text = mail.text();
    assert!(
        text.starts_with("Received: from app.corp.example"),
        "{text}"
    );
    assert!(
        text.contains(&id) && text.contains("with ESMTP id"),
        "{text}"
    );
    assert!(
        text.contains("\r\nDate: ") && text.contains("\r\nMessage-ID: <"),
        "{text}"
    );
    assert!(text.ends_with("\r\n\r\nline\r\n.dot\r\n"), "{text}");

    wait("the queue is empty", || {
        (stdout(&gateway.cli(&["queue", "list", "--json"])).trim() == "[]").then_some(())
    });
    let trace = stdout(&gateway.cli(&["trace", &id]));
    for word in [
        "accepted",
        "delivered",
        "x@corp.example",
        "y@partner.example",
    ] {
        assert!(trace.contains(word), "{trace}");
    }
    gateway.wait_for_log(&["accepted", &id]);
    gateway.wait_for_log(&["delivered", &id]);
    assert_eq!(sink.count(), 1);
}

/// In memory and as a file: every octet but NUL, which is refused, and the line ends, dots, blanks at the end, no last words.
#[test]
fn a_body_leaves_exactly_as_it_came() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let every: Vec<u8> = (1..=255).filter(|b| !b"\r\n".contains(b)).collect();
    let lines: [&[u8]; 7] = [&every, b"", b".", b"..", b".a ", b" \t", &[b'x'; 990]];
    for (count, times) in [(1, 1), (2, 200)] {
        let body = [&lines.join(&b"\r\n"[..])[..], b"\r\n\r\n"]
            .concat()
            .repeat(times);
        let stuffed: Vec<u8> = body
            .split_inclusive(|b| *b == b'\n')
            .flat_map(|line| {
                [
                    if line.starts_with(b".") {
                        &b"."[..]
                    } else {
                        b""
                    },
                    line,
                ]
                .concat()
            })
            .collect();
        let mut client = gateway.connect("local");
        client.expect("EHLO app", "250");
        client.expect("MAIL FROM:<app@corp.example> BODY=8BITMIME", "250");
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        client.send(b"From: app@corp.example\r\n\r\n");
        client.send(&stuffed);
        client.expect(".", "250");
        let mail = sink.wait(count).remove(count - 1);
        let begins = mail.data.windows(4).position(|four| four == b"\r\n\r\n");
        assert!(mail.data[begins.unwrap() + 4..] == body, "{}", mail.text());
    }
}

#[test]
fn what_the_lists_refuse_never_leaves() {
    let sink = Upstream::start();
    let patient = "[limits]\nsession_errors = 1000\n\n[allowlist]";
    let gateway = Gateway::start(&basic(sink.address).replace("[allowlist]", patient));
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    for sender in [
        "a@evil.tld",
        "a@corp.example.evil.tld",
        "a@evilcorp.example",
        "a@sub.corp.example",
        "",
        "a%b@corp.example",
    ] {
        let reply = client.say(&format!("MAIL FROM:<{sender}>"));
        assert!(reply.starts_with('5'), "MAIL FROM:<{sender}> -> {reply}");
    }
    client.expect("MAIL FROM:<a@corp.example>", "250");
    for recipient in [
        "<v@victim.tld>",
        "<v%victim.tld@corp.example>",
        "<v%victim.tld>",
        "<\"v@victim.tld\">",
        "<\"v@victim.tld\"@corp.example>",
        "<v@victim.tld@corp.example>",
        "<v@victim.tld@>",
        "<@corp.example:v@victim.tld>",
        "<@a,@b:v@victim.tld>",
        "<victim.tld!v>",
        "<victim.tld!v@corp.example>",
        "<x@corp.example>,<v@victim.tld>",
        "<x@corp.example> <v@victim.tld>",
        "<v@victim.tld> ORCPT=rfc822;x@corp.example",
        "<x@[127.0.0.1]>",
        "<\"x@corp.example> NOTIFY=NEVER\"@victim.tld>",
        "<\u{445}@corp.example>",
        "<x@c\u{43e}rp.example>",
    ] {
        let reply = client.say(&format!("RCPT TO:{recipient}"));
        assert!(reply.starts_with('5'), "RCPT TO:{recipient} -> {reply}");
    }
    assert!(client.say("DATA").starts_with('5'));
    client.expect("RSET", "250");

    for header in [
        "From: ceo@evil.tld",
        "From: x <ceo@evil.tld> <a@corp.example>",
        "From: a@corp.example, ceo@evil.tld",
        "From: a@corp.example\r\nFrom: ceo@evil.tld",
        "From : ceo@evil.tld\r\nFrom: a@corp.example",
        "From: a@corp.example\r\nSender: ceo@evil.tld",
        "From: a@corp.example\r\nResent-From: ceo@evil.tld",
        "From: \"a@corp.example\" <ceo@evil.tld>",
        "From: ceo@evil.tld <a@corp.example>",
        "From: =?utf-8?q?ceo=40evil.tld?= <ceo@evil.tld>",
        "From: group: ceo@evil.tld;",
    ] {
        client.expect("MAIL FROM:<a@corp.example>", "250");
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        let reply = client.say(&format!("{header}\r\nSubject: s\r\n\r\nbody\r\n."));
        assert!(reply.starts_with('5'), "{header} -> {reply}");
    }
    // The session goes on, and the one good message is the only one that leaves. Text that begins with a blank is all body, so
    // what it says of a sender is said to nobody.
    for text in [
        "From: a@corp.example\r\nSubject: good\r\n\r\nb\r\n",
        " folded\r\nFrom: ceo@evil.tld\r\n\r\nb\r\n",
    ] {
        queued_id(&client.mail("a@corp.example", &["x@corp.example"], text));
    }
    let mails = sink.wait(2);
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().any(|m| m.text().contains("Subject: good")));
    for mail in &mails {
        let text = mail.text();
        let (header, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.contains("From: a@corp.example"), "{text}");
        assert!(!header.contains("evil.tld"), "{text}");
    }
    assert!(
        gateway.log().matches("rejected").count() > 20,
        "refusals are in the log"
    );
}

#[test]
fn three_recipients_three_fates() {
    let sink = Upstream::scripted({
        let seen = std::sync::atomic::AtomicUsize::new(0);
        move |line| {
            if line.contains("bad@") {
                return Some("550 5.1.1 no such user".into());
            }
            if line.contains("later@")
                && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0
            {
                return Some("451 4.2.0 not now".into());
            }
            None
        }
    });
    let config = basic(sink.address).replace(
        "[allowlist]",
        "[bounce]\nfrom = \"postmaster@corp.example\"\n\n[allowlist]",
    );
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let id = queued_id(&client.mail(
        "app@corp.example",
        &[
            "good@corp.example",
            "bad@corp.example",
            "later@corp.example",
        ],
        CONTENT,
    ));
    let mails = sink.wait(3);
    let by = |who: &str| {
        mails
            .iter()
            .filter(|m| m.to.iter().any(|t| t.starts_with(who)))
            .count()
    };
    assert_eq!(
        (by("good"), by("bad"), by("later"), by("app")),
        (1, 0, 1, 1),
        "{mails:#?}"
    );
    let bounce = mails
        .iter()
        .find(|m| m.from.is_empty())
        .expect("a bounce")
        .text();
    for part in [
        "multipart/report",
        "delivery-status",
        "Auto-Submitted: auto-replied",
        "bad@corp.example",
        "5.1.1",
        "Action: failed",
    ] {
        assert!(bounce.contains(part), "{part}: {bounce}");
    }
    assert!(
        !bounce.contains("rfc822; good@") && !bounce.contains("rfc822;good@"),
        "{bounce}"
    );
    // The failed recipient stays visible.
    let list = wait("only the failed one is left", || {
        let list = stdout(&gateway.cli(&["queue", "list", "--json"]));
        let value: serde_json::Value = serde_json::from_str(&list).unwrap();
        let entries = value.as_array().unwrap().clone();
        (entries.len() == 1 && entries[0]["state"] == "failed").then_some(entries)
    });
    assert_eq!(list[0]["id"], id.as_str());
    let while_another_would_come = std::time::Duration::from_millis(1500);
    stays("no second copy", while_another_would_come, || {
        sink.count() == 3
    });
}

#[test]
fn an_upstream_that_is_down_keeps_the_mail_until_it_is_back() {
    let port = super::harness::peers::free_port();
    let config = basic(([127, 0, 0, 1], port).into());
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    for n in 0..3 {
        queued_id(&client.mail(
            "app@corp.example",
            &["x@corp.example"],
            &format!("Subject: n{n}\r\n\r\nb\r\n"),
        ));
    }
    wait("the connector is closed", || {
        let output = gateway.cli(&["status"]);
        String::from_utf8_lossy(&output.stdout)
            .contains("closed")
            .then_some(())
    });
    // A probe has one of them under way for a moment.
    wait("they wait for it", || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 3);
        list.iter()
            .all(|entry| entry["state"] == "waiting" && entry["blocked_by"] == "up")
            .then_some(())
    });
    let sink = Upstream::start();
    // The corrected connector heals what waits.
    fs::write(gateway.config_path(), basic(sink.address)).unwrap();
    stdout(&gateway.cli(&["reload"]));
    let mails = sink.wait(3);
    assert_eq!(mails.len(), 3);
}

#[test]
fn a_wrong_key_is_answered_with_the_line_and_the_right_key() {
    let dir = tempfile::TempDir::new().unwrap();
    let text =
        basic(([127, 0, 0, 1], 25).into()).replace("recipients = [\"corp", "recipient = [\"corp");
    fs::write(dir.path().join("config.toml"), &text).unwrap();
    let line = text
        .lines()
        .position(|l| l.starts_with("recipient ="))
        .unwrap()
        + 1;
    for command in ["check", "run"] {
        let output = std::process::Command::new(Gateway::binary())
            .args([command, "-c", "config.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("config.toml:{line}:1")), "{text}");
        assert!(text.contains("recipients"), "{text}");
    }
}

#[test]
fn a_second_instance_refuses_to_start() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let output = gateway.cli(&["run"]);
    assert_eq!(output.status.code(), Some(75));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&gateway.pid().to_string()), "{text}");
}

#[test]
fn a_busy_port_is_named() {
    let sink = Upstream::start();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let address = holder.local_addr().unwrap().to_string();
    fs::write(
        dir.path().join("config.toml"),
        basic(sink.address).replace("127.0.0.1:0", &address),
    )
    .unwrap();
    let output = std::process::Command::new(Gateway::binary())
        .args(["run", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(71));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&address), "{text}");
}

#[test]
fn a_bad_reload_changes_nothing_and_says_so() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let good = fs::read_to_string(gateway.config_path()).unwrap();
    fs::write(gateway.config_path(), good.clone() + "\n[nonsense]\n").unwrap();
    let output = gateway.cli(&["reload"]);
    assert_eq!(output.status.code(), Some(78));
    gateway.hang_up();
    gateway.wait_for_log(&["not reloaded"]);
    queued_id(&client.mail("app@corp.example", &["x@corp.example"], CONTENT));
    sink.wait(1);
    let status = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
    let _ = read(&gateway.config_path());
    fs::write(
        gateway.config_path(),
        good.replace("\"corp.example\"", "\"other.example\""),
    )
    .unwrap();
    stdout(&gateway.cli(&["reload"]));
    // The next MAIL is judged by the new settings, in the same session.
    let reply = client.say("MAIL FROM:<app@corp.example>");
    assert!(reply.starts_with("550 5.7.1"), "{reply}\n{status}");
}

#[test]
fn sigterm_drains_and_exits_0() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&basic(sink.address));
    let mut idle = gateway.connect("local");
    idle.expect("EHLO x", "250");
    let mut busy = gateway.connect("local");
    busy.expect("EHLO x", "250");
    queued_id(&busy.mail("app@corp.example", &["x@corp.example"], CONTENT));
    assert_eq!(gateway.terminate(), 0);
    assert!(idle.reply().starts_with("421 4.3.2"));
}
