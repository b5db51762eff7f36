//! What a change may do, and what becomes of one that has waited.

use std::{fs, path::Path};

use serde_json::json;

use super::{Ground, Plan, Proposal, digest};
use crate::{
    config::{
        edit::refusal::{EditRefusal, Why},
        keys, secrecy,
        settings::{Environment, Secrets},
    },
    view::Changes,
};

const HOST: &str = r#"
data_dir = "/var/lib/postern"
[[listener]]
name = "a"
address = "127.0.0.1:25"
[allowlist]
senders = ["*"]
recipients = ["a@b.example"]
[[route]]
name = "r"
connectors = ["password"]
[queue]
store = "sqlite"
[[connector]]
name = "password"
type = "smtp"
host = "smtp.corp.example"
username = "me"
password = "hunter2"
[[connector]]
name = "tokens"
type = "smtp"
host = "smtp.corp.example"
auth = "xoauth2"
[connector.oauth]
provider = "google"
mailbox = "a@b.example"
client_id = "1.apps.googleusercontent.com"
client_secret = { env = "CLIENT" }
refresh_token = { file = "refresh" }
[[connector]]
name = "graph"
type = "graph"
tenant_id = "00000000-0000-0000-0000-000000000000"
client_id = "00000000-0000-0000-0000-000000000000"
client_secret = { credential = "graph" }
[[connector]]
name = "certificate"
type = "graph"
tenant_id = "00000000-0000-0000-0000-000000000000"
client_id = "00000000-0000-0000-0000-000000000000"
certificate = "graph.pem"
key = "graph.key"
"#;

fn plan(text: &str, changes: &serde_json::Value) -> Result<Plan, EditRefusal> {
    let request = json!({ "base": digest(text.as_bytes()), "title": "t", "changes": changes });
    let changes: Changes = serde_json::from_value(request).unwrap();
    let env = Environment {
        hostname: "relay.corp.example".to_owned(),
        ..Environment::default()
    };
    let ground = Ground {
        path: Path::new("/etc/postern/config.toml"),
        octets: text.as_bytes(),
        env: &env,
        secrets: Secrets::Ignore,
    };
    Plan::new(&changes, ground, Path::new("/var/lib/postern"))
}

fn why(text: &str, changes: &serde_json::Value) -> Option<&'static str> {
    plan(text, changes)
        .err()
        .map(|refusal| refusal.why.as_str())
}

/// All ways to say that a key becomes something else.
fn ways(name: &str, key: &str) -> Vec<serde_json::Value> {
    let place = json!({ "section": "connector", "name": name });
    let with = |more: serde_json::Value| {
        let mut all = place.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        serde_json::Value::Object(all)
    };
    let value = "other.example";
    let set = with(json!({ "op": "set", "key": key, "value": value }));
    let mut ways = vec![
        json!([set]),
        json!([with(json!({ "op": "set", "key": "name", "value": "new" })), { "op": "set", "section": "connector", "name": "new", "key": key, "value": value }]),
        json!([set, with(json!({ "op": "move", "before": null }))]),
        json!([
            with(json!({ "op": "set", "key": "type", "value": "discard" })),
            set,
            with(json!({ "op": "set", "key": "type", "value": "smtp" }))
        ]),
        json!([with(json!({ "op": "set", "key": key, "value": 25 }))]),
        json!([with(json!({ "op": "set", "key": key, "value": [value] }))]),
    ];
    if let Some((table, inner)) = key.split_once('.') {
        ways.push(json!([with(
            json!({ "op": "set", "key": format!("{table}.{inner}.x"), "value": value })
        )]));
    }
    ways
}

#[test]
fn no_saved_credential_goes_elsewhere() {
    let names = ["password", "tokens", "graph", "certificate"];
    for name in names {
        for part in keys::SECTIONS
            .iter()
            .filter(|part| ["connector", "connector.oauth"].contains(&part.name))
        {
            for key in part.keys.iter().copied().flatten() {
                let dotted = match part.name {
                    "connector" => key.name.to_owned(),
                    _ => format!("oauth.{}", key.name),
                };
                if !secrecy::is_endpoint(key.name) && !secrecy::is_path(part.name, key.name) {
                    continue;
                }
                for way in ways(name, &dotted) {
                    // A type that is what it was in the end has changed nothing.
                    if dotted == "type" && way.as_array().unwrap().len() == 3 {
                        continue;
                    }
                    let said = why(HOST, &way);
                    let expected =
                        if secrecy::is_only_in_file(part.name, key.name) || name == "certificate" {
                            "only_in_file"
                        } else {
                            "secret_needed"
                        };
                    // A key below one that is no table, or beside what the first change left.
                    let is_nothing = matches!(said, Some("not_provable"));
                    assert!(
                        said == Some(expected) || is_nothing && way[0]["key"] != *dotted,
                        "{name} {dotted}: {way}: {said:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_credential_that_came_with_the_request_goes_where_it_says() {
    let place = |op: &str, name: &str, key: &str, value: serde_json::Value| json!({ "op": op, "section": "connector", "name": name, "key": key, "value": value });
    let host = place("set", "password", "host", json!("other.example"));
    let secret = |key: &str, name: &str| place("set", name, key, json!({ "secret": "anew" }));
    assert_eq!(
        why(HOST, &json!([host, secret("password", "password")])),
        None
    );
    assert_eq!(
        why(HOST, &json!([secret("password", "password"), host])),
        None
    );
    let host = place("set", "tokens", "host", json!("other.example"));
    let one = secret("oauth.client_secret", "tokens");
    assert_eq!(why(HOST, &json!([host, one])), Some("secret_needed"));
    assert_eq!(
        why(
            HOST,
            &json!([host, one, secret("oauth.refresh_token", "tokens")])
        ),
        None
    );
    // Gone is as good.
    let unset =
        |key: &str| json!({ "op": "unset", "section": "connector", "name": "tokens", "key": key });
    assert_eq!(
        why(HOST, &json!([host, unset("oauth"), unset("auth")])),
        None
    );
    // As is all that changes no endpoint.
    assert_eq!(
        why(
            HOST,
            &json!([place("set", "certificate", "rate", json!("20/min"))])
        ),
        None
    );
    assert_eq!(
        why(
            HOST,
            &json!([{ "op": "remove", "section": "connector", "name": "certificate" }])
        ),
        None
    );
}

#[test]
fn nothing_but_a_secret_stands_in_its_place() {
    for (value, expected) in [
        (json!("hunter3"), "bad_request"),
        (json!("***"), "bad_request"),
        (json!(5), "bad_request"),
        (json!({ "secret": 5 }), "bad_request"),
        (json!({ "secret": "" }), "bad_request"),
        (json!({ "secret": "x", "file": "y" }), "only_in_file"),
        (json!({ "file": "/etc/shadow" }), "only_in_file"),
        (json!({ "env": "HOME" }), "only_in_file"),
        (json!({ "credential": "x" }), "only_in_file"),
        (json!(["x"]), "bad_request"),
    ] {
        let key = json!([{ "op": "set", "section": "connector", "name": "password", "key": "password", "value": value }]);
        assert_eq!(why(HOST, &key), Some(expected), "{value}");
        let new = json!([{ "op": "add", "section": "connector", "name": "new", "values": { "type": "smtp", "host": "x", "username": "u", "password": value } }]);
        assert_eq!(why(HOST, &new), Some(expected), "{value}");
        let whole = json!([{ "op": "set", "section": "connector", "name": "tokens", "key": "oauth", "value": { "provider": "google", "client_secret": value } }]);
        assert_eq!(why(HOST, &whole), Some(expected), "{value}");
    }
    let inside = json!([{ "op": "set", "section": "connector", "name": "tokens", "key": "oauth.client_secret.env", "value": "HOME" }]);
    assert_eq!(why(HOST, &inside), Some("only_in_file"));
    let proxy = json!([{ "op": "add", "section": "connector", "name": "new", "values": { "type": "smtp", "host": "x", "proxy": "http://me:***@x:1" } }]);
    assert_eq!(why(HOST, &proxy), Some("only_in_file"));
}

#[test]
fn only_the_file_says_some_things() {
    let key = |section: &str, key: &str, value: &str| json!([{ "op": "set", "section": section, "key": key, "value": value }]);
    for (section, name) in [
        ("", "data_dir"),
        ("queue", "store"),
        ("outbound", "proxy"),
        ("outbound", "allowed_hosts"),
        ("admin", "write_config"),
        ("postgres", "url"),
        ("cluster", "x"),
    ] {
        assert_eq!(
            why(HOST, &key(section, name, "x")),
            Some("only_in_file"),
            "{section} {name}"
        );
    }
    for section in secrecy::ONLY_IN_FILE {
        let add = json!([{ "op": "add", "section": section, "name": "x", "values": { "a": 1 } }]);
        assert_eq!(why(HOST, &add), Some("only_in_file"), "{section}");
        // Not as a key of the top either.
        let top = json!([{ "op": "set", "section": "", "key": section, "value": { "x": 1 } }]);
        assert_eq!(why(HOST, &top), Some("bad_request"), "{section}");
        let quoted = json!([{ "op": "set", "section": "", "key": format!("\"{section}\""), "value": { "x": 1 } }]);
        assert_eq!(why(HOST, &quoted), Some("bad_request"), "{section}");
    }
    let remove = |section: &str| json!([{ "op": "remove", "section": section }]);
    assert_eq!(why(HOST, &remove("queue")), Some("only_in_file"));
    for part in keys::SECTIONS {
        for name in part.keys.iter().copied().flatten().map(|key| key.name) {
            if !secrecy::is_only_in_file(part.name, name) || part.name == "secret" {
                continue;
            }
            let (section, above) = part.name.split_once('.').unwrap_or((part.name, ""));
            let dotted = if above.is_empty() {
                name.to_owned()
            } else {
                format!("{above}.{name}")
            };
            if keys::is_repeated(section) {
                let mut values = json!({ dotted.as_str(): true, "name": "new" });
                for value in [
                    json!("x"),
                    json!(["x"]),
                    json!(true),
                    json!({ "secret": "x" }),
                ] {
                    values[dotted.as_str()] = value;
                    let add = json!([{ "op": "add", "section": section, "values": values }]);
                    assert_eq!(why(HOST, &add), Some("only_in_file"), "{section} {dotted}");
                }
            }
        }
    }
    // What there is of them stays, and cannot be taken away.
    for name in ["certificate", "key"] {
        let unset =
            json!([{ "op": "unset", "section": "connector", "name": "certificate", "key": name }]);
        assert_eq!(why(HOST, &unset), Some("only_in_file"));
    }
}

#[test]
fn a_proposal_is_done_anew_on_the_file_of_now() {
    let home = tempfile::tempdir().unwrap();
    let env = Environment {
        hostname: "relay.corp.example".to_owned(),
        ..Environment::default()
    };
    let changes = json!([
        { "op": "set", "section": "connector", "name": "password", "key": "host", "value": "new.example" },
        { "op": "set", "section": "connector", "name": "password", "key": "password", "value": { "secret": "of-the-new-one" } },
        { "op": "unset", "section": "connector", "name": "password", "key": "username" },
        { "op": "set", "section": "connector", "name": "password", "key": "username", "value": "you" },
    ]);
    let text = HOST.replace('\n', "\r\n");
    let request = json!({ "base": digest(text.as_bytes()), "title": "t", "changes": changes });
    let ground = Ground {
        path: Path::new("/etc/postern/config.toml"),
        octets: text.as_bytes(),
        env: &env,
        secrets: Secrets::Ignore,
    };
    let request: Changes = serde_json::from_value(request).unwrap();
    let plan = Plan::new(&request, ground, home.path()).unwrap();
    let (proposal, edited) = plan.keep(home.path()).unwrap();
    let stored = proposal.written();
    assert!(
        !stored.contains("of-the-new-one") && !stored.contains("hunter2"),
        "{stored}"
    );
    assert!(!edited.diff.contains("hunter2"), "{}", edited.diff);
    assert!(
        edited.diff.contains("-password = \"***\"")
            && edited.diff.contains("+host = \"new.example\""),
        "{}",
        edited.diff
    );
    assert_eq!(
        fs::read_to_string(&proposal.secrets[0]).unwrap(),
        "of-the-new-one"
    );
    let proposal = Proposal::read(&stored).unwrap();
    let apply = |text: &str| {
        let ground = Ground {
            octets: text.as_bytes(),
            ..ground
        };
        proposal
            .apply(ground)
            .map(|edited| String::from_utf8(edited.octets).unwrap())
    };
    let here = |text: &str| {
        text.replace(
            "smtp.corp.example\"\r\nusername = \"me\"\r\npassword = \"hunter2\"",
            &format!(
                "new.example\"\r\npassword = {{ file = \"{}\" }}\r\nusername = \"you\"",
                proposal.secrets[0]
            ),
        )
    };
    assert_eq!(apply(&text).unwrap(), here(&text));
    // An unrelated edit does no harm.
    let other = format!(
        "\u{feff}# new\r\n{}\r\n[bounce]\r\n",
        text.replace("\"r\"", "\"other\"")
    );
    assert_eq!(apply(&other).unwrap(), here(&other));
    // What was seen is not there any more.
    for (from, to) in [
        ("hunter2", "hunter3"),
        ("\"me\"", "\"somebody\""),
        ("smtp.corp.example\"\r\nusername", "x\"\r\nusername"),
        ("\"password\"\r\ntype", "\"renamed\"\r\ntype"),
    ] {
        let other = text
            .replace(from, to)
            .replace("[\"password\"]", "[\"tokens\"]");
        assert_ne!(other, text);
        assert_eq!(apply(&other).unwrap_err().why, Why::Changed, "{from}");
    }
    // The result must be a configuration.
    let other = text.replace("senders = [\"*\"]", "senders = 5");
    let refusal = apply(&other).unwrap_err();
    assert_eq!(refusal.why, Why::Invalid);
    assert!(
        refusal
            .problems
            .iter()
            .any(|problem| problem.line == Some(7)),
        "{refusal:?}"
    );
}

#[test]
fn another_base_and_bad_values() {
    let changes = json!([{ "op": "set", "section": "limits", "key": "recipients", "value": 5 }]);
    let mut request = json!({ "base": "00", "title": "t", "changes": changes });
    let env = Environment::default();
    let ground = Ground {
        path: Path::new("x"),
        octets: HOST.as_bytes(),
        env: &env,
        secrets: Secrets::Ignore,
    };
    let read = |request: &serde_json::Value| -> Changes {
        serde_json::from_value(request.clone()).unwrap()
    };
    let refusal = Plan::new(&read(&request), ground, Path::new("/x")).unwrap_err();
    assert_eq!((refusal.why, refusal.why.status()), (Why::OtherBase, 412));
    request["base"] = digest(HOST.as_bytes()).into();
    assert!(Plan::new(&read(&request), ground, Path::new("/x")).is_ok());
    for value in [json!(null), json!(1.5), json!({ "a b": 1 })] {
        let set =
            json!([{ "op": "set", "section": "limits", "key": "recipients", "value": value }]);
        assert_eq!(why(HOST, &set), Some("bad_request"), "{value}");
    }
    let unset = json!([{ "op": "unset", "section": "limits", "key": "recipients" }]);
    assert_eq!(why(HOST, &unset), Some("not_provable"));
    let unknown = json!([{ "op": "set", "section": "limits", "key": "recipient", "value": 5 }]);
    assert_eq!(why(HOST, &unknown), Some("unprocessable_content"));
}
