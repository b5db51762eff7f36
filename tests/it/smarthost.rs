//! A real smarthost behind the gateway: Debian's Postfix with STARTTLS and SASL.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::harness::{
    cloud_token::{Endpoint, granted},
    gateway::{Gateway, basic, queued_id, stdout, wait},
    peers::{Postfix, TOKEN_KEY},
};

fn config(postfix: &Postfix, port: u16, tls: &str, auth: &str, password: &str) -> String {
    basic(([127, 0, 0, 1], port).into()).replace("retry = [\"1s\"]", "retry = [\"2s\"]").replace(
        "tls = \"off\"",
        &format!(
            "tls = \"{tls}\"\nauth = \"{auth}\"\nca_file = \"{}\"\nusername = \"relay\"\npassword = \"{password}\"",
            postfix.dir.path().join("ca.pem").display()
        ),
    )
}

fn send(gateway: &Gateway, subject: &str, lines: usize) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    let body = "\u{e4} line of text\r\n..\r\n".repeat(lines);
    queued_id(&client.mail(
        "app@corp.example",
        &["x@corp.example"],
        &format!("From: app@corp.example\r\nSubject: {subject}\r\n\r\n{body}"),
    ))
}

#[test]
#[ignore = "needs Postfix and Dovecot, which tests/run installs"]
fn postfix_with_starttls_and_with_implicit_tls() {
    let postfix = Postfix::start();
    let mut arrived = 0;
    for (port, tls) in [
        (postfix.starttls, "starttls"),
        (postfix.implicit, "implicit"),
    ] {
        for auth in ["plain", "login"] {
            let gateway = Gateway::start(&config(&postfix, port, tls, auth, "secret"));
            assert!(
                stdout(&gateway.cli(&["check", "--connect"])).contains("up"),
                "check --connect"
            );
            let subject = format!("{tls}-{auth}");
            let id = send(&gateway, &subject, 3);
            send(&gateway, &format!("{subject}-large"), 20_000);
            arrived += 2;
            let inbox = postfix.wait(arrived);
            let small = inbox
                .iter()
                .map(|m| String::from_utf8_lossy(m).into_owned())
                .find(|m| m.contains(&format!("Subject: {subject}\n")))
                .unwrap();
            assert!(small.contains("ESMTPSA"), "{small}");
            assert!(
                small.ends_with(&"\u{e4} line of text\n.\n".repeat(3)),
                "{small}"
            );
            let large = inbox
                .iter()
                .map(|m| String::from_utf8_lossy(m).into_owned())
                .find(|m| m.contains(&format!("Subject: {subject}-large\n")))
                .unwrap();
            assert!(
                large.ends_with(&"\u{e4} line of text\n.\n".repeat(20_000)),
                "the large body differs"
            );
            wait("delivered in the trace", || {
                stdout(&gateway.cli(&["trace", &id]))
                    .contains("delivered")
                    .then_some(())
            });
            let test = stdout(&gateway.cli(&[
                "test",
                "up",
                "--from",
                "app@corp.example",
                "--to",
                "y@corp.example",
            ]));
            assert!(
                test.contains("250 2.0.0") && test.contains("***") && !test.contains("secret"),
                "{test}"
            );
            arrived += 1;
            postfix.wait(arrived);
        }
    }
}

#[test]
#[ignore = "needs Postfix and Dovecot, which tests/run installs"]
fn a_wrong_password_pauses_the_connector_and_keeps_the_mail() {
    let postfix = Postfix::start();
    let gateway = Gateway::start(&config(
        &postfix,
        postfix.starttls,
        "starttls",
        "plain",
        "wrong",
    ));
    let id = send(&gateway, "waits", 1);
    wait("the connector is paused", || {
        let output = gateway.cli(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text.contains("paused") && text.contains("535") && output.status.code() == Some(1))
            .then_some(())
    });
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
    assert_eq!(list[0]["id"], id.as_str());
    assert_eq!(list[0]["state"], "waiting");
    assert_eq!(list[0]["blocked_by"], "up");
    let check = gateway.cli(&["check", "--connect"]);
    assert!(!check.status.success());
    std::fs::write(
        gateway.config_path(),
        config(&postfix, postfix.starttls, "starttls", "plain", "secret"),
    )
    .unwrap();
    stdout(&gateway.cli(&["reload"]));
    postfix.wait(1);
    wait("the connector is open again", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        (!text.contains("paused")).then_some(())
    });
    let log = gateway.log();
    assert!(
        !log.contains("wrong\"") && !log.contains("AHdyb25n"),
        "no credentials in the log"
    );
}

#[test]
#[ignore = "needs Postfix and Dovecot, which tests/run installs"]
fn an_unknown_root_is_named_and_no_password_is_sent() {
    let postfix = Postfix::start();
    let text = config(&postfix, postfix.starttls, "starttls", "plain", "secret");
    let without: String = text
        .lines()
        .filter(|l| !l.starts_with("ca_file"))
        .map(|l| format!("{l}\n"))
        .collect();
    let gateway = Gateway::start(&without);
    send(&gateway, "waits", 1);
    let status = wait("the connector is closed", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains("closed").then_some(text)
    });
    assert!(status.to_lowercase().contains("certificate"), "{status}");
    assert!(postfix.inbox().is_empty());
    let log = std::fs::read_to_string(postfix.dir.path().join("mail.log")).unwrap_or_default();
    assert!(!log.contains("sasl_username"), "{log}");
}

/// A token for a mailbox that Dovecot judges by itself: so many seconds from now it ends, and it is at least so long.
fn token(mailbox: &str, seconds: i64, length: usize) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let claims = serde_json::json!({
        "sub": mailbox, "iat": now - 7200, "nbf": now - 7200, "exp": now + seconds, "pad": "x".repeat(length),
    });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_KEY);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

fn by_token(postfix: &Postfix, port: u16, tls: &str, auth: &str, endpoint: &Endpoint) -> Gateway {
    let text = config(postfix, port, tls, auth, "");
    let (front, _) = text.split_once("username").unwrap();
    Gateway::start(&format!(
        "{front}oauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\", login_url = \"{}\" }}\n",
        endpoint.url("")
    ))
}

#[test]
#[ignore = "needs Postfix and Dovecot, which tests/run installs"]
fn postfix_and_dovecot_take_tokens() {
    let postfix = Postfix::start_with_tokens();
    let mut arrived = 0;
    for (port, tls) in [
        (postfix.starttls, "starttls"),
        (postfix.implicit, "implicit"),
    ] {
        for auth in ["xoauth2", "oauthbearer"] {
            // A short one goes on the command line, a long one after an empty 334.
            for length in [0, 3000] {
                let endpoint = Endpoint::start(move |_| {
                    granted(&token("erp@corp.example", 3600, length), 3599)
                });
                let gateway = by_token(&postfix, port, tls, auth, &endpoint);
                let check = stdout(&gateway.cli(&["check", "--connect"]));
                let name = auth.to_uppercase();
                assert!(check.contains(&format!("logged in with {name}")), "{check}");
                send(&gateway, &format!("{tls}-{auth}-{length}"), 3);
                arrived += 1;
                let inbox = postfix.wait(arrived);
                let subject = format!("Subject: {tls}-{auth}-{length}\n");
                assert!(
                    inbox
                        .iter()
                        .any(|m| String::from_utf8_lossy(m).contains(&subject)),
                    "{subject}"
                );
                assert!(!gateway.log().contains("eyJ"));
            }
        }
    }
}

#[test]
#[ignore = "needs Postfix and Dovecot, which tests/run installs"]
fn dovecot_refuses_a_token_that_has_ended_and_takes_the_renewed_one() {
    let postfix = Postfix::start_with_tokens();
    for auth in ["xoauth2", "oauthbearer"] {
        let before = postfix.inbox().len();
        let count = AtomicUsize::new(0);
        // The endpoint says that the first one is good, and it is not.
        let endpoint = Endpoint::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => granted(&token("erp@corp.example", -60, 0), 3599),
            _ => granted(&token("erp@corp.example", 3600, 0), 3599),
        });
        let gateway = by_token(&postfix, postfix.starttls, "starttls", auth, &endpoint);
        send(&gateway, "renewed", 1);
        postfix.wait(before + 1);
        assert_eq!(endpoint.asked().len(), 2, "renewed once");
        let log = std::fs::read_to_string(postfix.dir.path().join("mail.log")).unwrap();
        assert!(
            log.contains("authentication failed"),
            "the first one was seen: {log}"
        );
    }
    // One that is for somebody else is refused however often it is renewed.
    let endpoint = Endpoint::start(|_| granted(&token("boss@corp.example", 3600, 0), 3599));
    let gateway = by_token(&postfix, postfix.starttls, "starttls", "xoauth2", &endpoint);
    let id = send(&gateway, "never", 1);
    let status = wait("paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains("paused").then_some(text)
    });
    assert!(
        status.contains("535") && status.contains("mailbox"),
        "{status}"
    );
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
    assert_eq!(
        (list[0]["id"].as_str(), list[0]["state"].as_str()),
        (Some(id.as_str()), Some("waiting"))
    );
}
