//! Credentials that end: who tells it, and when.

use std::{fs, path::Path};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::harness::{
    cloud::Tenant,
    gateway::{Gateway, basic, send, wait},
    window::Window,
};

/// The day so many days from now.
fn day(from_now: i64) -> String {
    let at = OffsetDateTime::now_utc() + Duration::days(from_now);
    at.date().to_string()
}

/// A root that ends so many days from now.
fn root(from_now: i64) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["root".to_owned()]).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1_000);
    params.not_after = now + Duration::days(from_now) + Duration::hours(1);
    params
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap()
        .pem()
}

/// `basic` with this connector in the place of its own.
pub fn with_connector(connector: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!("{front}{connector}")
}

fn command(dir: &Path, config: &str, args: &[&str]) -> (i32, String) {
    fs::write(dir.join("config.toml"), config).unwrap();
    let output = std::process::Command::new(Gateway::binary())
        .args(args)
        .args(["-c", "config.toml"])
        .current_dir(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

#[test]
fn check_warns_of_a_secret_and_of_roots_and_exits_with_0() {
    let dir = tempfile::TempDir::new().unwrap();
    let tenant = Tenant::start(|_, _| None);
    let quoted = |from_now: i64| format!("\"{}\"", day(from_now));
    for (day, code, words) in [
        (quoted(5), 0, "the client secret ends in 4 days, on"),
        // A date of TOML.
        (day(2), 0, "the client secret ends in 1 day, on"),
        (day(1), 0, "the client secret ends within a day, on"),
        (quoted(-3), 0, "the client secret expired on"),
        (quoted(40), 0, ""),
        ("\"soon\"".to_owned(), 78, "this is not a day"),
        (
            "2027-05-01T10:00:00Z".to_owned(),
            78,
            "write it without the time, as in 2027-05-01",
        ),
        (
            "7".to_owned(),
            78,
            "takes a day such as \"2027-05-01\", not a number",
        ),
    ] {
        let config = with_connector(&format!(
            "{}client_secret_expires = {day}\n",
            tenant.connector()
        ));
        let (exit, said) = command(dir.path(), &config, &["check"]);
        assert_eq!(exit, code, "{day}: {said}");
        assert!(said.contains(words), "{day}: {said}");
        assert_eq!(
            said.contains("client secret"),
            code == 0 && !words.is_empty(),
            "{said}"
        );
    }
    let of_nothing = tenant.connector().replace(
        "client_secret = \"hush-hush-value\"",
        "managed_identity = true\nclient_secret_expires = \"2027-05-01\"",
    );
    let (exit, said) = command(dir.path(), &with_connector(&of_nothing), &["check"]);
    assert_eq!(exit, 78, "{said}");
    assert!(
        said.contains(
            "`client_secret_expires` says when a `client_secret` ends, and there is none"
        ),
        "{said}"
    );
    // The first of those that are good yet; of the roots of a whole system none.
    for (roots, words) in [
        (
            vec![root(12), root(400)],
            "a root in roots.pem ends in 12 days, on",
        ),
        (vec![root(400), root(-5)], ""),
        (vec![root(-5), root(-9)], "a root in roots.pem expired on"),
        ((0..11).map(root).collect(), ""),
    ] {
        fs::write(dir.path().join("roots.pem"), roots.concat()).unwrap();
        let config = with_connector(&(tenant.connector() + "ca_file = \"roots.pem\"\n"));
        let (exit, said) = command(dir.path(), &config, &["check"]);
        assert_eq!(exit, 0, "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.contains("a root in"), !words.is_empty(), "{said}");
    }
}

/// Of one connector that has several, `status` lists each, and metric and incident go by the first.
#[test]
fn the_end_of_a_secret_is_in_status_metric_and_incident() {
    let tenant = Tenant::start(|_, _| None);
    tenant.grant_send_as("erp@corp.example");
    let dir = tempfile::TempDir::new().unwrap();
    fs::write(dir.path().join("roots.pem"), root(400)).unwrap();
    let connector = |from_now| {
        format!(
            "{}mailbox = \"p@corp.example\"\nclient_secret_expires = \"{}\"\nca_file = \"roots.pem\"\n",
            tenant.connector(),
            day(from_now)
        )
    };
    let (window, section) = Window::planned("");
    let write = |dir: &Path, from_now| {
        let config = with_connector(&(connector(from_now) + &section));
        fs::write(dir.join("config.toml"), config).unwrap();
    };
    write(dir.path(), 10);
    let gateway = Gateway::start_in(dir);
    window.is_there();
    let status = |exit: i32| -> (String, Value) {
        let text = gateway.cli(&["status"]);
        assert_eq!(text.status.code(), Some(exit));
        let json = gateway.cli(&["status", "--json"]).stdout;
        (
            String::from_utf8_lossy(&text.stdout).into_owned(),
            serde_json::from_slice(&json).unwrap(),
        )
    };
    let (text, json) = status(0);
    let line = format!("credential  up client_secret ends {} (in 9 days)", day(10));
    assert!(text.contains(&line), "{text}");
    let listed = json["credentials"].as_array().unwrap();
    let kinds: Vec<_> = listed
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["client_secret", "ca_file"]);
    let expected = serde_json::json!({
        "connector": "up", "listener": null, "kind": "client_secret", "not_after": format!("{}T00:00:00Z", day(10)),
        "days": 9, "rotates_at": null, "rotation": null, "why": null,
    });
    assert_eq!(listed[0], expected);
    let opened = |severity: &str| {
        wait(&format!("the incident, {severity}"), || {
            let all = window.get("/incidents?state=open");
            let all = all["items"].as_array().or(all.as_array()).cloned()?;
            all.into_iter()
                .find(|one| one["kind"] == "credential_expires" && one["severity"] == severity)
        })
    };
    assert_eq!(opened("warning")["object"], "up");
    let end = OffsetDateTime::now_utc().date() + Duration::days(10);
    let end = end.midnight().assume_utc().unix_timestamp();
    let metric = format!("postern_credential_expiry_timestamp_seconds{{connector=\"up\"}} {end}");
    assert!(window.metrics().contains(&metric), "{}", window.metrics());
    // From seven days before somebody is needed; mail flows all the same.
    for (from_now, severity) in [(7, "warning"), (-1, "critical")] {
        write(gateway.dir.path(), from_now);
        assert!(gateway.cli(&["reload"]).status.success());
        let (text, json) = status(1);
        assert_eq!(json["ok"], false, "{text}");
        assert_eq!(json["credentials"][0]["days"], from_now - 1);
        assert_eq!(opened(severity)["object"], "up");
    }
    send(&gateway);
    tenant.wait(1);
}
