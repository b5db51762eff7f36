//! `postern doctor`: the usual mistakes, each made, each named.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    cloud::{Tenant, error},
    gateway::{Gateway, basic},
    upstream::{Act, Script},
};

fn config(connector: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!("{front}[[connector]]\nname = \"up\"\n{connector}\n")
}

/// With this route before the one for all.
fn routed(config: &str, route: &str) -> String {
    config.replacen("[[route]]", &format!("{route}[[route]]"), 1)
}

fn graph(at: &str) -> String {
    format!(
        "type = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_secret = \"hush-hush-value\"\nmailbox = \"relay@corp.example\"\nlogin_url = \"{at}\"\ngraph_url = \"{at}\"\n"
    )
}

fn smtp(at: SocketAddr, more: &str) -> String {
    format!(
        "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n{more}",
        at.port()
    )
}

/// The status, the text, and the JSON.
fn doctor(config: &str, more: &[&str]) -> (i32, String, Value) {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(Gateway::binary())
            .args(["doctor", "-c", "config.toml"])
            .args(args)
            .args(more)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("hush") && !text.contains("aHVza"), "{text}");
        (output.status.code().unwrap(), text)
    };
    let (code, text) = run(&[]);
    let (again, json) = run(&["--json"]);
    assert_eq!(code, again, "{text}\n{json}");
    assert!(!dir.path().join("data").exists(), "it makes nothing");
    (code, text, serde_json::from_str(&json).unwrap())
}

/// The check that failed, its cause, and which were skipped behind it.
fn failed(json: &Value) -> (String, String, Vec<String>) {
    let checks = json["checks"].as_array().unwrap();
    let word = |check: &Value, key: &str| check[key].as_str().unwrap_or("-").to_owned();
    let of = |state: &'static str| checks.iter().filter(move |check| check["state"] == state);
    let one = of("failed").next();
    let (check, cause) = one.map_or(("-".into(), "-".into()), |one| {
        (word(one, "check"), word(one, "cause"))
    });
    (
        check,
        cause,
        of("skipped").map(|one| word(one, "check")).collect(),
    )
}

#[test]
fn what_is_wrong_on_the_way_out_is_named() {
    for (connector, check, cause, skipped) in [
        (
            "type = \"smtp\"\nhost = \"no-such-host.invalid\"\ntls = \"off\"\n".to_owned(),
            "dns",
            "dns-failed",
            &["tcp", "login"][..],
        ),
        (smtp(([127, 0, 0, 1], 1).into(), "tls = \"off\"\n"), "tcp", "host-unreachable", &["login"]),
        (
            "type = \"smtp\"\nhost = \"mx.corp.example\"\ntls = \"off\"\nproxy = \"http://127.0.0.1:1\"\n".to_owned(),
            "proxy",
            "proxy-unreachable",
            &["login"],
        ),
        (graph("https://no-such-host.invalid"), "dns", "dns-failed", &["tcp", "tls", "token", "mailbox"]),
    ] {
        let (code, text, json) = doctor(&config(&connector), &[]);
        let found = failed(&json);
        assert_eq!(code, 69, "{text}");
        assert_eq!((found.0.as_str(), found.1.as_str()), (check, cause), "{text}");
        for one in skipped {
            assert!(found.2.contains(&(*one).to_owned()), "{one}: {text}");
        }
        assert!(text.contains(&format!("[{cause}]\n         do: ")), "{text}");
    }
}

#[test]
fn nothing_is_sent_but_what_is_asked_for() {
    let upstream = Script::default().start();
    let (code, text, json) = doctor(&config(&smtp(upstream.address, "tls = \"off\"\n")), &[]);
    assert_eq!((code, failed(&json).0.as_str()), (0, "-"), "{text}");
    assert_eq!(upstream.count(), 0, "nothing is sent");
    // And what is asked for is sent.
    let connector = smtp(upstream.address, "tls = \"off\"\n");
    let send = ["--send", "x@corp.example", "--from", "app@corp.example"];
    let (code, text, _) = doctor(&config(&connector), &send);
    assert_eq!((code, upstream.count()), (0, 2), "{text}");
    assert!(
        text.contains("         > MAIL FROM:<app@corp.example>"),
        "{text}"
    );
}

/// MAIL and RCPT, taken back; what need not concern mail is a warning.
#[test]
fn a_smarthost_is_asked_whether_it_takes_the_sender() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let upstream = Script::default()
        .offers("SIZE_1000")
        .when(move |at| {
            seen.lock().unwrap().push(at.line.to_owned());
            let is_unknown = at.line.starts_with("RCPT TO:<b@");
            is_unknown.then(|| Act::says("550 5.1.1 no such user"))
        })
        .start();
    let connector = config(&smtp(upstream.address, "tls = \"off\"\n"));
    let literal = (0..7).map(|n| {
        format!(
            "\"{}@corp.example\"",
            ["a", "b", "c", "d", "e", "f", "g"][n]
        )
    });
    let literal = literal.collect::<Vec<_>>().join(", ");
    let route = format!(
        "[[route]]\nname = \"some\"\nsenders = [\"*@x.example\", {literal}]\nconnectors = [\"up\"]\n"
    );
    let (code, text, json) = doctor(&routed(&connector, &route), &[]);
    assert_eq!((code, failed(&json).0.as_str()), (0, "-"), "{text}");
    let states = |name: &str| -> Vec<String> {
        let checks = json["checks"].as_array().unwrap().iter();
        let its = checks.filter(|check| check["check"] == name);
        its.map(|check| check["state"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(states("greeting"), ["ok"], "{text}");
    assert_eq!(
        states("sender"),
        ["ok", "warning", "ok", "ok", "ok"],
        "{text}"
    );
    assert_eq!(states("limits"), ["warning"], "{text}");
    assert!(text.contains("takes up to 1000 octets"), "{text}");
    let asked = asked.lock().unwrap().join("\n");
    assert!(
        asked.contains("MAIL FROM:<a@corp.example>\nRCPT TO:<a@corp.example>\nRSET\nMAIL FROM:<b@"),
        "{asked}"
    );
    assert!(!asked.contains("DATA") && !asked.contains("<f@"), "{asked}");
    assert_eq!(upstream.count(), 0, "nothing is sent");
    // Patterns alone are nobody to ask with; that is said, and the limits are looked at all the same.
    let route = "[[route]]\nname = \"some\"\nsenders = [\"*@x.example\"]\nconnectors = [\"up\"]\n";
    let (code, text, json) = doctor(&routed(&connector, route), &[]);
    assert_eq!((code, failed(&json).0.as_str()), (0, "-"), "{text}");
    let checks = json["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    assert_eq!(of("sender")["state"], "skipped", "{text}");
    assert_eq!(of("limits")["state"], "warning", "{text}");
    assert!(text.contains("needs an address: its routes"), "{text}");
}

#[test]
fn without_a_mailbox_those_of_the_routes_are_asked_for() {
    let tenant = Tenant::start(|_, mailbox| {
        (mailbox == "b@corp.example").then(|| error(404, "ErrorInvalidUser", ""))
    });
    let connector = tenant
        .connector()
        .replace("[[connector]]\nname = \"up\"\n", "");
    let route = "[[route]]\nname = \"some\"\nsenders = [\"a@corp.example\", \"b@corp.example\"]\nconnectors = [\"up\"]\n";
    let (code, text, json) = doctor(&routed(&config(&connector), route), &[]);
    assert_eq!(code, 69, "{text}");
    assert!(
        text.contains("Graph takes mail of a@corp.example"),
        "{text}"
    );
    let found = failed(&json);
    assert_eq!(
        (found.0.as_str(), found.1.as_str()),
        ("mailbox", "mailbox-unknown"),
        "{text}"
    );
    // More is asked for than the provider allows.
    let connector = connector.replace(
        "rate = \"1000/min\"",
        "rate = \"1000/min\"\nmax_concurrent = 9",
    );
    let (_, text, _) = doctor(&routed(&config(&connector), route), &[]);
    assert!(
        text.contains("limits    max_concurrent = 9: Exchange Online takes 4"),
        "{text}"
    );
    assert!(
        text.contains("limits    rate = 1000/60s: Exchange Online takes 30"),
        "{text}"
    );
}

/// What can never work is an error of the configuration; the rest is a warning, with which mail may go.
#[test]
fn a_mistake_in_the_file_has_its_word_there() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let keys = ["one", "two"].map(|name| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["postern".to_owned()]).unwrap();
        if name == "two" {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        std::fs::write(
            at(&format!("{name}.pem")),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(at(&format!("{name}.key")), key.serialize_pem()).unwrap();
        key
    });
    drop(keys);
    let young = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["postern".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    std::fs::write(at("young.pem"), params.self_signed(&young).unwrap().pem()).unwrap();
    std::fs::write(at("young.key"), young.serialize_pem()).unwrap();
    let curve = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["postern".to_owned()]).unwrap();
    std::fs::write(at("curve.pem"), params.self_signed(&curve).unwrap().pem()).unwrap();
    std::fs::write(at("curve.key"), curve.serialize_pem()).unwrap();
    std::fs::write(
        at("none.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    std::fs::write(at("empty"), "\n").unwrap();
    let app = |more: &str| {
        format!(
            "type = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\nmailbox = \"relay@corp.example\"\n\
             login_url = \"https://127.0.0.1:1\"\ngraph_url = \"https://127.0.0.1:1\"\n{more}\n"
        )
    };
    let pair = |certificate: &str, key: &str| {
        app(&format!(
            "certificate = \"{}\"\nkey = \"{}\"",
            at(certificate),
            at(key)
        ))
    };
    let exchange = |more: &str| {
        format!(
            "type = \"smtp\"\nhost = \"smtp.office365.com\"\nproxy = \"http://127.0.0.1:1\"\n{more}"
        )
    };
    for (is_error, cause, connector) in [
        (
            true,
            "tenant-common",
            app("client_secret = \"hush-hush-value\"")
                .replace("corp.example\"\nclient", "common\"\nclient"),
        ),
        (true, "certificate-mismatch", pair("one.pem", "two.key")),
        (true, "key-unusable", pair("curve.pem", "curve.key")),
        (true, "key-unusable", pair("one.pem", "none.key")),
        (false, "certificate-expired", pair("two.pem", "two.key")),
        (false, "certificate-early", pair("young.pem", "young.key")),
        (
            false,
            "secret-expired",
            app("client_secret = \"hush-hush-value\"\nclient_secret_expires = \"2020-05-01\""),
        ),
        (
            false,
            "secret-id",
            app("client_secret = \"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\""),
        ),
        (
            false,
            "federated-file",
            app(&format!("federated_token_file = \"{}\"", at("missing"))),
        ),
        (
            false,
            "federated-file",
            app(&format!("federated_token_file = \"{}\"", at("empty"))),
        ),
        (
            false,
            "port-465-office",
            exchange("port = 465\ntls = \"implicit\"\n"),
        ),
        (
            false,
            "basic-ended",
            exchange(
                "port = 587\ntls = \"starttls\"\nusername = \"a@corp.example\"\npassword = \"hush-hush-value\"\n",
            ),
        ),
        (
            true,
            "host-not-allowed",
            format!(
                "{}[outbound]\nallowed_hosts = [\"*.corp.example\"]\n",
                app("client_secret = \"hush-hush-value\"")
            ),
        ),
    ] {
        let (code, text, json) = doctor(&config(&connector), &[]);
        assert_eq!(code, if is_error { 78 } else { 69 }, "{cause}: {text}");
        let checks = json["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["cause"] == cause);
        let found = found.unwrap_or_else(|| panic!("{cause}: {text}"));
        let state = if is_error { "failed" } else { "warning" };
        assert_eq!(
            (&found["check"], &found["state"]),
            (&"config".into(), &state.into()),
            "{text}"
        );
        assert!(found["fix"].is_string(), "{text}");
    }
}

#[test]
fn a_mailbox_that_may_be_sent_from_is_found_without_a_mail() {
    let tenant = Tenant::start(|_, _| None);
    let connector = format!("{}mailbox = \"relay@corp.example\"\n", tenant.connector());
    let connector = connector.replace("[[connector]]\nname = \"up\"\n", "");
    let (exit, text, json) = doctor(&config(&connector), &[]);
    assert_eq!((exit, failed(&json).0.as_str()), (0, "-"), "{text}");
    assert!(
        text.contains("Graph takes mail of relay@corp.example"),
        "{text}"
    );
    assert!(tenant.mails().is_empty(), "nothing is sent");
}

#[test]
fn a_config_that_is_wrong_is_the_first_check() {
    let (code, text, json) = doctor("[[listner]]\nname = \"a\"\n", &[]);
    assert_eq!(code, 78, "{text}");
    assert_eq!(failed(&json).0, "config");
    assert!(text.contains("config.toml:1:"), "{text}");
    // What stands in the file reaches no terminal as it is.
    let (_, text, _) = doctor(
        "\"lis\u{1b}[31mtener\" = 1\n[[listener]]\n\"na\u{7}me\" = \"a\"\n",
        &[],
    );
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    let connector = config("type = \"discard\"\n");
    let (code, _, json) = doctor(&connector, &[]);
    assert_eq!((code, &json["ok"]), (0, &Value::from(true)));
}
