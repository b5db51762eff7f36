//! What the upstream says of our standing, of one sender, of one recipient and of quotas: who waits for it, and who does not.

use super::harness::{
    gateway::{Gateway, basic, queued_id, stdout, wait},
    upstream::Upstream,
};

fn send(gateway: &Gateway, from: &str, to: &[&str]) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    let content = format!("From: {from}\r\nSubject: hello\r\n\r\nline\r\n");
    queued_id(&client.mail(from, to, &content))
}

/// The states of all messages, and what is said of the connectors, once `status` says this.
fn status_with(gateway: &Gateway, words: &str) -> (Option<i32>, String) {
    wait(words, || {
        let status = gateway.cli(&["status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        text.contains(words).then(|| (status.status.code(), text))
    })
}

fn states(gateway: &Gateway) -> Vec<String> {
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--all", "--json"]))).unwrap();
    let mut states: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["state"].as_str().unwrap().to_owned())
        .collect();
    states.sort();
    states
}

/// A refusal of our standing, at whatever stage and in whosever words: nothing fails, nothing bounces, `status` exits 1 and has
/// the remedy.
#[test]
fn a_lost_standing_keeps_all_mail_and_names_the_remedy() {
    for (command, reply, said, remedy) in [
        (
            "RCPT",
            "550 5.7.64 TenantAttribution; Relay Access Denied",
            "5.7.64",
            "inbound connector",
        ),
        (
            "RCPT",
            "550 relay not permitted",
            "relay not permitted",
            "set username",
        ),
        (
            "MAIL",
            "503 5.5.1 authenticate first",
            "authenticate first",
            "set username",
        ),
        (
            "RCPT",
            "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname",
            "5.5.2",
            "set hostname",
        ),
        (
            ".",
            "550 5.7.705 Access denied, tenant has exceeded threshold",
            "5.7.705",
            "Microsoft",
        ),
        (
            "DATA",
            "530 5.7.0 Authentication required",
            "5.7.0",
            "username and password",
        ),
    ] {
        let sink =
            Upstream::scripted(move |line| line.starts_with(command).then(|| reply.to_owned()));
        let gateway = Gateway::start(&basic(sink.address));
        for _ in 0..3 {
            send(&gateway, "app@corp.example", &["x@corp.example"]);
        }
        let (code, text) = status_with(&gateway, remedy);
        assert_eq!(code, Some(1), "{reply}");
        assert!(text.contains("paused") && text.contains(said), "{text}");
        assert_eq!(
            states(&gateway),
            ["waiting", "waiting", "waiting"],
            "{reply}"
        );
    }
}

/// The next connector of the route takes what this one may not relay.
#[test]
fn a_lost_standing_leads_to_the_next_connector() {
    let sink = Upstream::scripted(|line| {
        line.starts_with("RCPT")
            .then(|| "554 5.7.1 Relay access denied".to_owned())
    });
    let other = Upstream::start();
    let config = basic(sink.address)
        .replace("connectors = [\"up\"]", "connectors = [\"up\", \"second\"]")
        + &format!(
            "\n[[connector]]\nname = \"second\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
            other.address.port()
        );
    let gateway = Gateway::start(&config);
    send(&gateway, "app@corp.example", &["x@corp.example"]);
    other.wait(1);
}

/// One recipient that the smarthost does not relay for stops nobody else, in the same message and in others.
#[test]
fn one_recipient_that_is_not_relayed_waits_alone() {
    let sink = Upstream::scripted(|line| {
        (line.starts_with("RCPT") && line.contains("partner"))
            .then(|| "554 5.7.1 <x@partner.example>: Relay access denied".to_owned())
    });
    let config = basic(sink.address).replace("retry = [\"1s\"]", "retry = [\"1m\"]");
    let gateway = Gateway::start(&config);
    send(
        &gateway,
        "app@corp.example",
        &["a@corp.example", "x@partner.example"],
    );
    sink.wait(1);
    send(&gateway, "app@corp.example", &["x@partner.example"]);
    for n in 2..5 {
        send(&gateway, "app@corp.example", &["b@corp.example"]);
        sink.wait(n);
    }
    assert_eq!(
        states(&gateway).iter().filter(|s| *s == "waiting").count(),
        2
    );
    assert!(!stdout(&gateway.cli(&["status"])).contains("paused"));
}

/// A sender that the account may not use waits alone.
#[test]
fn one_sender_that_is_refused_waits_alone() {
    for reply in [
        "553 5.7.1 <bad@corp.example>: Sender address rejected: not owned by user relay",
        "550 5.1.8 Access denied, bad outbound sender",
        "550-Requested action not taken: mailbox unavailable\r\n550 Sender address is not allowed.",
    ] {
        let sink = Upstream::scripted(move |line| {
            (line.starts_with("MAIL") && line.contains("bad@")).then(|| reply.to_owned())
        });
        let gateway = Gateway::start(&basic(sink.address));
        send(&gateway, "bad@corp.example", &["x@corp.example"]);
        let (code, text) = status_with(&gateway, "up/bad@corp.example");
        assert!(code == Some(1) && text.contains("paused"), "{text}");
        for n in 1..4 {
            send(&gateway, "good@corp.example", &["x@corp.example"]);
            sink.wait(n);
        }
        assert_eq!(
            states(&gateway).iter().filter(|s| *s == "waiting").count(),
            1,
            "{reply}"
        );
    }
}

/// A used-up quota holds the connector, costs no attempt and bounces nothing.
#[test]
fn a_quota_makes_mail_wait() {
    for (command, reply) in [
        (".", "550 5.7.233 tenant external recipient rate limit"),
        (
            ".",
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; quota",
        ),
        (
            "MAIL",
            "454 Throttling failure: Daily message quota exceeded.",
        ),
    ] {
        let sink =
            Upstream::scripted(move |line| line.starts_with(command).then(|| reply.to_owned()));
        let gateway = Gateway::start(&basic(sink.address));
        send(&gateway, "app@corp.example", &["x@corp.example"]);
        let (_, text) = status_with(&gateway, "throttled");
        assert!(text.contains("mail waits"), "{text}");
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        assert_eq!(
            (&list[0]["state"], &list[0]["attempts"]),
            (&"waiting".into(), &0.into()),
            "{list}"
        );
    }
}
