//! `postern doctor`: the usual mistakes, each made, each named.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    cloud::{Tenant, error},
    cloud_token::Endpoint,
    gateway::{Gateway, basic},
    upstream::{Act, Script},
};

fn config(connector: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!("{front}[[connector]]\nname = \"up\"\n{connector}\n")
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

const LOGIN: &str = "tls = \"off\"\nusername = \"app\"\npassword = \"hush-hush-value\"\nplaintext_credentials = true\n";

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
fn what_a_smarthost_refuses_is_named() {
    for (offers, said, more, check, cause) in [
        (
            "AUTH_PLAIN",
            "535 5.7.8 authentication failed",
            LOGIN,
            "login",
            "login-refused",
        ),
        (
            "AUTH_PLAIN",
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
            LOGIN,
            "login",
            "smtp-auth-off",
        ),
        (
            "AUTH_PLAIN",
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
            LOGIN,
            "login",
            "basic-ended",
        ),
        (
            "AUTH_PLAIN",
            "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully.",
            LOGIN,
            "login",
            "access-policy-entra",
        ),
        (
            "AUTH_PLAIN",
            "550 5.7.30 Basic authentication is not supported",
            LOGIN,
            "login",
            "basic-ended",
        ),
        ("SIZE_1000", "", LOGIN, "login", "auth-missing"),
        ("AUTH_GSSAPI", "", LOGIN, "login", "auth-missing"),
        (
            "SIZE_1000",
            "",
            "tls = \"starttls\"\n",
            "tls",
            "starttls-missing",
        ),
        ("SIZE_1000", "", "tls = \"implicit\"\n", "tls", "tls-mode"),
    ] {
        let upstream = Script::default()
            .offers(offers)
            .when(move |at| (at.stage == "AUTH" && !said.is_empty()).then(|| Act::says(said)))
            .start();
        let (code, text, json) = doctor(&config(&smtp(upstream.address, more)), &[]);
        let found = failed(&json);
        assert_eq!(code, 69, "{text}");
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (check, cause),
            "{said}: {text}"
        );
    }
    let upstream = Script::default().start();
    let (code, text, json) = doctor(&config(&smtp(upstream.address, "tls = \"off\"\n")), &[]);
    assert_eq!((code, failed(&json).0.as_str()), (0, "-"), "{text}");
    assert_eq!(upstream.count(), 0, "nothing is sent");
    // And what is asked for is sent.
    let connector = smtp(upstream.address, "tls = \"off\"\n");
    let send = ["--send", "x@corp.example", "--from", "app@corp.example"];
    let (code, text, _) = doctor(&config(&connector), &send);
    assert_eq!((code, upstream.count()), (0, 2), "{text}");
}

#[test]
fn what_entra_and_exchange_refuse_is_named() {
    for (code, check, cause) in [
        (7_000_222, "token", "secret-expired"),
        (7_000_215, "token", "secret-wrong"),
        (90_002, "token", "tenant-unknown"),
        (700_016, "token", "app-unknown"),
        (65_001, "token", "consent-missing"),
        (53_003, "token", "access-policy-entra"),
    ] {
        let body = format!(
            r#"{{"error":"invalid_client","error_description":"AADSTS{code}: words","error_codes":[{code}]}}"#
        );
        let endpoint = Endpoint::start(move |_| (401, String::new(), body.clone()));
        let (exit, text, json) = doctor(&config(&graph(&endpoint.url(""))), &[]);
        let found = failed(&json);
        assert_eq!(exit, 69, "{text}");
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (check, cause),
            "{text}"
        );
        assert!(found.2.contains(&"mailbox".to_owned()), "{text}");
    }
    for (status, code, cause) in [
        (403, "ErrorAccessDenied", "mailbox-denied"),
        (404, "ErrorInvalidUser", "mailbox-unknown"),
        (404, "MailboxNotEnabledForRESTAPI", "mailbox-elsewhere"),
        (403, "ErrorMessageSubmissionBlocked", "mailbox-blocked"),
        (507, "ErrorQuotaExceeded", "mailbox-full"),
    ] {
        let tenant = Tenant::start(move |_, _| Some(error(status, code, "")));
        let connector = format!("{}mailbox = \"relay@corp.example\"\n", tenant.connector());
        let connector = connector.replace("[[connector]]\nname = \"up\"\n", "");
        let (exit, text, json) = doctor(&config(&connector), &[]);
        let found = failed(&json);
        assert_eq!(exit, 69, "{text}");
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            ("mailbox", cause),
            "{text}"
        );
        assert!(tenant.mails().is_empty(), "nothing is sent");
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
