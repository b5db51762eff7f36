//! The configuration from the window: changes that are looked at, kept, made by the page or on the machine, and connectors that are
//! tried before they are saved.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use postern::config;
use serde_json::{Value, json};

use super::harness::{
    gateway::{Gateway, basic, read, stdout},
    peers::small_disk,
    upstream::Upstream,
    window::{ROLES, Window},
};

fn set(section: &str, name: &str, key: &str, value: impl Into<Value>) -> Value {
    let value = value.into();
    json!({ "op": "set", "section": section, "name": name, "key": key, "value": value })
}

/// Of what stands once.
fn limit(key: &str, value: impl Into<Value>) -> Value {
    let value = value.into();
    json!([{ "op": "set", "section": "limits", "key": key, "value": value }])
}

/// Three connectors with credentials, none of which is used.
fn with_credentials(upstream: &Upstream) -> String {
    basic(upstream.address)
        + r#"
[[connector]]
name = "password"
type = "smtp"
host = "127.0.0.1"
tls = "off"
plaintext_credentials = true
username = "me"
password = "hunter2"

[[connector]]
name = "tokens"
type = "smtp"
host = "smtp.example"
auth = "xoauth2"

[connector.oauth]
provider = "google"
mailbox = "a@b.example"
client_id = "1.apps.googleusercontent.com"
client_secret = "hunter2"
refresh_token = "hunter2"

[[connector]]
name = "graph"
type = "graph"
tenant_id = "00000000-0000-0000-0000-000000000000"
client_id = "00000000-0000-0000-0000-000000000000"
client_secret = "hunter2"
"#
}

/// What is wrong with what was refused, without what is only advice.
fn errors(body: &Value) -> Vec<&Value> {
    let all = body["problems"].as_array().unwrap();
    all.iter()
        .filter(|problem| problem["severity"] == "error")
        .collect()
}

/// The newest rows of the audit of this action.
fn audit(window: Window, action: &str) -> Vec<Value> {
    let found = window.get(&format!("/audit?action={action}"));
    found["items"].as_array().unwrap().clone()
}

#[test]
fn a_proposal_is_made_on_the_machine_and_leaves_every_other_octet() {
    let sink = Upstream::start();
    let (window, section) = Window::planned("");
    let text = format!(
        "# My relay\n{}\n# Not yet\n# [[route]]\n# name = \"later\"\n\n{section}# The end",
        basic(sink.address)
    )
    .replace('\n', "\r\n");
    let gateway = Gateway::start(&text);
    window.is_there();
    let shown = window.get("/config");
    assert_eq!(shown["write"], "propose");
    let change = window.change(&json!([
        set("connector", "up", "username", json!("me")),
        set(
            "connector",
            "up",
            "password",
            json!({ "secret": "hunter2" })
        ),
        set("connector", "up", "plaintext_credentials", json!(true)),
    ]));
    let (status, checked) = window.post("/config/check", &change);
    assert_eq!(status, 200, "{checked}");
    assert!(!gateway.path("data/secrets").exists(), "nothing is stored");
    assert_eq!(window.get("/proposals")["items"], json!([]));

    let (status, proposal) = window.post("/proposals", &change);
    assert_eq!(status, 201, "{proposal}");
    assert_eq!(proposal["id"], "p1");
    assert_eq!(
        (&proposal["state"], &proposal["by"]),
        (&json!("open"), &json!("admin"))
    );
    assert_eq!(proposal["base"], shown["sha256"]);
    // Who may not change the file gets nothing to hold guesses of what is masked against.
    for role in ["viewer", "operator"] {
        let ask = |path| window.try_ask(role, "GET", path, None).unwrap().1;
        assert_eq!(ask("/config")["sha256"], json!(null), "{role}");
        assert!(ask("/config")["text"].is_string());
        assert_eq!(ask("/proposals/p1")["base"], json!(null), "{role}");
        assert_eq!(ask("/proposals")["items"][0]["base"], json!(null));
    }
    let diff = proposal["diff"].as_str().unwrap();
    assert!(diff.contains("+username = \"me\""), "{diff}");
    let secrets: Vec<_> = fs::read_dir(gateway.path("data/secrets"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    assert_eq!(read(&secrets[0]), "hunter2");
    let mode = fs::metadata(&secrets[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    for file in ["window.db", "window.db-wal"] {
        assert!(!read(&gateway.path(&format!("data/{file}"))).contains("hunter2"));
    }
    assert_eq!(window.get("/proposals")["items"][0], proposal);
    assert_eq!(window.get("/proposals/p1"), proposal);
    let refused = window.refused("/proposals/p1/apply", &json!({}));
    assert_eq!(refused, (403, "only_on_the_machine".to_owned()));

    // Meanwhile somebody edits something else.
    let edited = text
        .replace("# My relay", "# Our relay")
        .replace("[\"1s\"]", "[\"2s\"]");
    assert_ne!(edited, text);
    fs::write(gateway.config_path(), &edited).unwrap();
    assert!(stdout(&gateway.cli(&["config", "list"])).contains("p1  open"));
    assert!(stdout(&gateway.cli(&["config", "show", "p1"])).contains("+username"));
    let code = |args: &[&str]| gateway.cli(args).status.code().unwrap();
    assert_eq!(code(&["config", "apply", "p1"]), 64, "nobody can be asked");
    assert_eq!(code(&["config", "apply", "p2", "--yes"]), 1);
    assert_eq!(read(&gateway.config_path()), edited);
    let said = stdout(&gateway.cli(&["config", "apply", "p1", "--yes"]));
    assert!(
        said.contains("+username") && said.contains("reloaded"),
        "{said}"
    );
    let path = secrets[0].to_str().unwrap();
    let expected = edited.replacen(
        "tls = \"off\"\r\n",
        &format!("tls = \"off\"\r\nusername = \"me\"\r\npassword = {{ file = \"{path}\" }}\r\nplaintext_credentials = true\r\n"),
        1,
    );
    assert_eq!(read(&gateway.config_path()), expected);
    gateway.wait_for_log(&["reloaded"]);
    assert_eq!(window.get("/proposals/p1")["state"], "applied");
    let settings = window.get("/connectors/up")["settings"].clone();
    assert_eq!(settings["username"], "me");
    assert_eq!(code(&["config", "apply", "p1", "--yes"]), 1, "it is made");
    assert_eq!(code(&["config", "drop", "p1"]), 1);

    let row = &audit(window, "propose")[0];
    assert!(row["after"].as_str().unwrap().contains("username = \"me\""));
    assert!(!row.to_string().contains("hunter2"));
    let row = &audit(window, "apply")[0];
    assert_eq!(
        (&row["from"], &row["result"]),
        (&json!("command"), &json!("ok"))
    );
    assert_eq!(row["request"], "postern config apply");
    let other = window.propose(&limit("recipients", 5));
    stdout(&gateway.cli(&["config", "drop", &other]));
    assert_eq!(window.get("/proposals/p2")["state"], "dropped");
    assert_eq!(window.refused("/proposals/p2/drop", &json!({})).0, 409);
}

#[test]
fn each_refusal_has_its_code_and_stores_nothing() {
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&with_credentials(&sink), "write_config = \"write\"");
    let text = read(&gateway.config_path());
    let refused = |operations: Value| window.refused("/proposals", &window.change(&operations));
    let code = |status: u16, code: &str| (status, code.to_owned());

    let mut change = window.change(&limit("recipients", 5));
    change["base"] = "00".into();
    assert_eq!(window.refused("/proposals", &change), code(412, "changed"));
    assert_eq!(
        window.refused("/config/check", &change),
        code(412, "changed")
    );
    change["more"] = 1.into();
    assert_eq!(
        window.refused("/proposals", &change),
        code(400, "unknown_key")
    );
    let mut inner = limit("recipients", 5);
    inner[0]["more"] = 1.into();
    assert_eq!(refused(inner), code(400, "unknown_key"));
    assert_eq!(refused(json!([{ "op": "sat" }])), code(400, "bad_request"));
    assert_eq!(refused(json!([])), code(400, "bad_request"), "nothing");
    assert_eq!(refused(limit("recipients", ())), code(400, "bad_request"));
    let unset = json!([{ "op": "unset", "section": "limits", "key": "recipients" }]);
    assert_eq!(refused(unset), code(422, "not_provable"));
    let (status, body) = window.post("/proposals", &window.change(&limit("recipients", 0)));
    assert_eq!(status, 422);
    assert!(errors(&body)[0]["line"].is_number(), "{body}");
    for (section, key) in [
        ("admin", "content"),
        ("outbound", "proxy"),
        ("", "data_dir"),
        ("queue", "store"),
    ] {
        let set = json!([{ "op": "set", "section": section, "key": key, "value": "x" }]);
        assert_eq!(refused(set), code(403, "only_in_file"), "{section} {key}");
    }
    let user = json!([{ "op": "add", "section": "admin_user", "values": { "name": "eve", "role": "admin", "password": { "secret": "x" } } }]);
    assert_eq!(refused(user), code(403, "only_in_file"));
    let env = json!([set(
        "connector",
        "password",
        "password",
        json!({ "env": "X" })
    )]);
    assert_eq!(refused(env), code(403, "only_in_file"));
    let bare = json!([set("connector", "password", "password", json!("hunter3"))]);
    assert_eq!(refused(bare), code(400, "bad_request"));
    let (status, body) = window.post(
        "/proposals",
        &window.change(&json!([set(
            "connector",
            "password",
            "host",
            json!("else.example")
        )])),
    );
    assert_eq!((status, &body["code"]), (409, &json!("secret_needed")));
    assert!(
        body["detail"].as_str().unwrap().contains("`password`"),
        "{body}"
    );
    assert_eq!(window.get("/proposals")["items"], json!([]));
    assert!(!gateway.path("data/secrets").exists());
    assert_eq!(read(&gateway.config_path()), text);
    assert_eq!(
        window.refused("/proposals/p1/apply", &json!({})),
        code(404, "not_found")
    );
    assert_eq!(
        window.refused("/proposals/1/drop", &json!({})),
        code(404, "not_found")
    );
    let row = &audit(window, "propose")[0];
    assert!(
        row["result"].as_str().unwrap().starts_with("refused: "),
        "{row}"
    );
}

#[test]
fn the_page_writes_and_what_the_gateway_refuses_is_undone() {
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    let config = gateway.config_path();
    let text = read(&config);
    assert_eq!(window.get("/config")["write"], "write");
    let apply = |id: &str| window.post(&format!("/proposals/{id}/apply"), &json!({}));
    let id = window.propose(&limit("recipients", 50));
    let other = window.propose(&limit("recipients", 60));
    let (status, body) = apply(&id);
    assert_eq!((status, &body["state"]), (200, &json!("applied")), "{body}");
    let written = read(&config);
    assert!(written.contains("[limits]\nrecipients = 50\n"), "{written}");
    assert_eq!(written.replace("\n[limits]\nrecipients = 50\n", ""), text);
    gateway.wait_for_log(&["reloaded"]);
    let row = &audit(window, "apply")[0];
    assert!(
        row["after"].as_str().unwrap().contains("recipients = 50"),
        "{row}"
    );
    // Something else stands there than the other one saw.
    let (status, body) = apply(&other);
    assert_eq!((status, &body["code"]), (409, &json!("changed")), "{body}");
    assert_eq!(
        gateway
            .cli(&["config", "apply", &other, "--yes"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(apply(&id).0, 409, "it is made");
    assert_eq!(window.get(&format!("/proposals/{other}"))["state"], "open");
    assert_eq!(read(&config), written);

    // The file is right, and the gateway cannot take it.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let second = json!([{ "op": "add", "section": "listener", "name": "second", "values": { "address": address } }]);
    let id = window.propose(&second);
    let (status, body) = apply(&id);
    assert_eq!(
        (status, &body["code"]),
        (422, &json!("not_reloaded")),
        "{body}"
    );
    assert_eq!(read(&config), written);
    let reload = window.get("/status")["reload"].clone();
    assert_eq!(
        reload["error"],
        Value::Null,
        "nothing is left to mend: {reload}"
    );
    assert_eq!(
        gateway
            .cli(&["config", "apply", &id, "--yes"])
            .status
            .code(),
        Some(78)
    );
    assert_eq!(read(&config), written);
    assert_eq!(window.get(&format!("/proposals/{id}"))["state"], "open");
    drop(taken);
    let (status, body) = apply(&id);
    assert_eq!(status, 200, "{body}");

    // Now its own directory lets nobody write, unless he is root.
    let id = window.propose(&limit("recipients", 70));
    let written = read(&config);
    let mode =
        |mode| fs::set_permissions(gateway.dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    let is_root = fs::write(gateway.path("root"), "").is_ok();
    if !is_root {
        let (status, body) = apply(&id);
        assert_eq!(
            (status, &body["code"]),
            (409, &json!("read_only")),
            "{body}"
        );
        let shown = window.get("/config");
        assert_eq!(shown["write"], "propose");
        assert!(shown["read_only"].is_string(), "{shown}");
        assert_eq!(
            gateway
                .cli(&["config", "apply", &id, "--yes"])
                .status
                .code(),
            Some(73)
        );
        let said = gateway.cli(&["check"]).stderr;
        assert!(String::from_utf8_lossy(&said).contains("cannot change this file"));
        assert_eq!(read(&config), written);
        assert_eq!(window.get(&format!("/proposals/{id}"))["state"], "open");
    }
    mode(0o700);
    assert_eq!(apply(&id).0, 200);
}

/// As Kubernetes gives it: the file is a link into a volume that nobody may write. The page says so, and the proposal stays to be
/// made by hand.
#[test]
#[ignore = "mounts a small disk as root; tests/run runs it"]
fn a_file_on_a_read_only_disk_stays() {
    let sink = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let _unmount = small_disk(&volume, 1);
    let (window, section) = Window::planned("write_config = \"write\"");
    let text = format!("{}{section}", basic(sink.address));
    fs::write(volume.join("config.toml"), &text).unwrap();
    std::os::unix::fs::symlink("volume/config.toml", dir.path().join("config.toml")).unwrap();
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&volume)
        .status();
    assert!(remounted.is_ok_and(|status| status.success()));
    let gateway = Gateway::start_in(dir);
    window.is_there();
    let shown = window.get("/config");
    assert_eq!(shown["write"], "propose", "{shown}");
    assert!(shown["read_only"].is_string(), "{shown}");
    let id = window.propose(&limit("recipients", 50));
    let (status, body) = window.post(&format!("/proposals/{id}/apply"), &json!({}));
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("read_only")),
        "{body}"
    );
    assert_eq!(window.get(&format!("/proposals/{id}"))["state"], "open");
    assert_eq!(read(&gateway.config_path()), text);
    let by_hand = gateway.cli(&["config", "apply", &id, "--yes"]);
    assert_ne!(by_hand.status.code(), Some(0));
    assert_eq!(read(&gateway.config_path()), text);
}

#[test]
fn whoever_may_not_changes_nothing() {
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    let text = read(&gateway.config_path());
    let change = window.change(&limit("recipients", 5));
    let id = window.propose(&limit("recipients", 6));
    let draft = json!({ "connector": { "name": "x", "type": "smtp", "host": "127.0.0.1" } });
    let calls = [
        ("/config/check".to_owned(), change.clone()),
        ("/proposals".to_owned(), change),
        (format!("/proposals/{id}/apply"), json!({})),
        (format!("/proposals/{id}/drop"), json!({})),
        ("/connectors/test".to_owned(), draft),
    ];
    for role in ROLES.iter().filter(|role| **role != "admin") {
        for (path, body) in &calls {
            let (status, said) = window.try_ask(role, "POST", path, Some(body)).unwrap();
            assert_eq!(
                (status, &said["code"]),
                (403, &json!("forbidden")),
                "{role} {path}"
            );
        }
        let (status, _) = window.try_ask(role, "GET", "/proposals", None).unwrap();
        assert_eq!(status, if *role == "metrics" { 403 } else { 200 });
    }
    for (path, body) in &calls {
        let (status, _) = window.try_ask("", "POST", path, Some(body)).unwrap();
        assert_eq!(status, 401, "{path}");
    }
    let all = window.get("/proposals");
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    assert_eq!(all["items"][0]["state"], "open");
    assert_eq!(read(&gateway.config_path()), text);

    let (_gateway, window) = Window::start(&basic(sink.address), "write_config = \"off\"");
    let change = window.change(&limit("recipients", 5));
    assert_eq!(window.get("/config")["write"], "off");
    for path in ["/config/check", "/proposals"] {
        let off = (403, "config_off".to_owned());
        assert_eq!(window.refused(path, &change), off, "{path}");
        assert_eq!(window.refused("/proposals/p1/apply", &json!({})), off);
        assert_eq!(window.refused("/proposals/p1/drop", &json!({})), off);
    }
}

/// Keys that decide where a credential goes.
const ENDPOINT: [&str; 15] = [
    "type",
    "service",
    "host",
    "port",
    "tls",
    "verify",
    "proxy",
    "provider",
    "tenant_id",
    "cloud",
    "login_url",
    "token_url",
    "graph_url",
    "url",
    "plaintext_credentials",
];

#[test]
fn a_saved_credential_goes_nowhere_else() {
    let trap = Upstream::start();
    let sink = Upstream::start();
    let (gateway, window) = Window::start(&with_credentials(&sink), "write_config = \"write\"");
    let text = read(&gateway.config_path());
    let port = trap.address.port();
    let mut keys: Vec<(String, bool)> = Vec::new();
    for form in config::forms::connectors() {
        for field in form.fields {
            let last = field.name.rsplit('.').next().unwrap();
            if field.is_only_in_file || ENDPOINT.contains(&last) {
                keys.push((field.name.clone(), field.is_only_in_file));
            }
        }
    }
    keys.sort();
    keys.dedup();
    assert!(keys.len() > 20, "{keys:?}");
    for name in ["password", "tokens", "graph"] {
        for (key, is_only_in_file) in &keys {
            let last = key.rsplit('.').next().unwrap();
            let value = match last {
                "type" if name == "graph" => json!("smtp"),
                "type" => json!("graph"),
                "port" => json!(port),
                "plaintext_credentials" => json!(name != "password"),
                "tls" => json!("opportunistic"),
                "verify" => json!("none"),
                "provider" => json!("microsoft"),
                "cloud" => json!("china"),
                _ if last.ends_with("url") => json!(format!("http://127.0.0.1:{port}/")),
                "proxy" => json!(format!("http://127.0.0.1:{port}")),
                _ => json!("127.0.0.2"),
            };
            let change = window.change(&json!([set("connector", name, key, value)]));
            for path in ["/config/check", "/proposals"] {
                let (status, code) = window.refused(path, &change);
                let expected = if *is_only_in_file {
                    (403, "only_in_file")
                } else {
                    (409, "secret_needed")
                };
                // Below a key that the connector has not, there is no table.
                let is_nowhere = key.starts_with("oauth.") && name != "tokens" && status == 422;
                assert!(
                    (status, code.as_str()) == expected || is_nowhere,
                    "{name} {key}: {status} {code}"
                );
            }
        }
    }
    // Neither by another name, nor by way of a copy, nor of a removal.
    let saved = json!({ "type": "smtp", "host": "127.0.0.1", "port": port, "tls": "off", "plaintext_credentials": true, "username": "me" });
    let mut kept = saved.clone();
    kept["password"] = json!({ "secret": "keep" });
    let remove = json!({ "op": "remove", "section": "connector", "name": "password" });
    let add = json!({ "op": "add", "section": "connector", "name": "password", "values": saved });
    for operations in [
        json!([
            set("connector", "password", "name", json!("x")),
            set("connector", "x", "port", json!(port))
        ]),
        json!([
            remove,
            add,
            set("connector", "password", "password", json!("hunter2"))
        ]),
        json!([set(
            "connector",
            "up",
            "password",
            json!({ "file": "/etc/passwd" })
        )]),
    ] {
        let (status, _) = window.refused("/proposals", &window.change(&operations));
        assert!([400, 403, 409].contains(&status), "{operations}: {status}");
    }
    for (key, value) in [
        ("port", json!(port)),
        ("name", json!("up")),
        ("name", json!("new")),
        ("proxy", json!(format!("http://127.0.0.1:{port}"))),
    ] {
        let mut draft = kept.clone();
        draft["name"] = "password".into();
        draft["port"] = 25.into();
        draft[key] = value;
        let answer = window.refused("/connectors/test", &json!({ "connector": draft }));
        assert_eq!(answer, (409, "secret_needed".to_owned()), "{draft}");
    }
    let mut draft = kept.clone();
    draft["name"] = "password".into();
    draft["ca_file"] = "/etc/passwd".into();
    let answer = window.refused("/connectors/test", &json!({ "connector": draft }));
    assert_eq!(answer, (403, "only_in_file".to_owned()));
    assert_eq!(trap.seen().connections, 0, "nobody came to the trap");
    assert_eq!(read(&gateway.config_path()), text);
    assert_eq!(window.get("/proposals")["items"], json!([]));
}

#[test]
fn a_draft_is_tried_before_it_is_saved() {
    let sink = Upstream::start();
    let outbound = "\n[outbound]\nallowed_hosts = [\"127.0.0.1\"]\n";
    let (gateway, window) = Window::start(&(basic(sink.address) + outbound), "");
    let text = read(&gateway.config_path());
    let draft = json!({ "name": "new", "type": "smtp", "host": "127.0.0.1", "port": sink.address.port(), "tls": "off" });
    let test = |connector: &Value, to: Option<&str>| {
        let mut body = json!({ "connector": connector });
        if let Some(to) = to {
            body["to"] = to.into();
        }
        window.post("/connectors/test", &body)
    };
    let (status, tried) = test(&draft, None);
    assert_eq!(status, 200, "{tried}");
    assert_eq!(
        (&tried["ok"], &tried["outcome"]),
        (&json!(true), &json!("open"))
    );
    assert_eq!(tried["connector"], "new");
    // Step by step, as `postern doctor` has it.
    let looked = |tried: &Value, state: &str| -> Vec<String> {
        let all = tried["checks"].as_array().unwrap().iter();
        let all = all.filter(|check| check["state"] == state);
        all.map(|check| check["check"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        looked(&tried, "ok"),
        ["files", "dns", "tcp", "greeting", "login", "limits"]
    );
    assert_eq!(looked(&tried, "skipped"), ["sender"]);
    assert!(
        tried["conversation"].as_array().unwrap().len() > 2,
        "{tried}"
    );
    let (status, tried) = test(&draft, Some("b@corp.example"));
    assert_eq!(
        (status, &tried["outcome"]),
        (200, &json!("delivered")),
        "{tried}"
    );
    assert_eq!(sink.wait(1)[0].to, ["b@corp.example"]);
    let code = |answer: (u16, Value)| {
        (
            answer.0,
            answer.1["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    // By the same lists as everybody's.
    let (status, said) = code(test(&draft, Some("b@elsewhere.example")));
    assert_eq!((status, said.as_str()), (422, "not_tried"));
    let with = |key: &str, value: Value| {
        let mut other = draft.clone();
        other[key] = value;
        test(&other, None)
    };
    let (status, body) = with("host", json!("localhost"));
    assert_eq!(status, 422, "only allowed hosts: {body}");
    assert_eq!(errors(&body).len(), 1, "{body}");
    assert_eq!(
        code(with("type", json!("capture"))),
        (403, "only_in_file".to_owned())
    );
    let (status, body) = with("port", json!(1));
    assert_eq!((status, &body["ok"]), (200, &json!(false)), "{body}");
    assert_eq!(body["outcome"], "down");
    assert_eq!(looked(&body, "failed"), ["tcp"]);
    assert_eq!(looked(&body, "skipped"), ["login", "sender"]);
    let mut more = json!({ "connector": draft });
    more["more"] = 1.into();
    assert_eq!(
        window.refused("/connectors/test", &more),
        (400, "unknown_key".to_owned())
    );
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(test(&json!({ "name": "x", "type": "discard" }), None).0);
    }
    assert_eq!(statuses.last(), Some(&429), "ten a minute: {statuses:?}");
    assert_eq!(read(&gateway.config_path()), text);
    assert_eq!(
        window.get("/connectors")["items"].as_array().unwrap().len(),
        1
    );
    let rows = audit(window, "test");
    assert!(
        rows.iter()
            .any(|row| row["object"] == "draft new" && row["result"] == "delivered")
    );
    // A connector may be called `test`.
    let (status, _) = window
        .try_ask("viewer", "GET", "/connectors/test", None)
        .unwrap();
    assert_eq!(status, 404);
}

#[test]
fn an_end_in_the_middle_leaves_the_old_file_or_the_new() {
    let sink = Upstream::start();
    let (mut gateway, window) = Window::start(&basic(sink.address), "write_config = \"write\"");
    let mut seen = [0, 0];
    for round in 0..8_u64 {
        let before = read(&gateway.config_path());
        let number = 100 + round;
        let id = window.propose(&limit("recipients", number));
        let asker = thread::spawn(move || {
            window.try_ask(
                "admin",
                "POST",
                &format!("/proposals/{id}/apply"),
                Some(&json!({})),
            )
        });
        // How long a write takes is the disk's to say: somewhere in it.
        let end = Instant::now() + Duration::from_millis(round * 4);
        while Instant::now() < end {
            thread::yield_now();
        }
        gateway.kill();
        let _ = asker.join().unwrap();
        let after = read(&gateway.config_path());
        let is_new = after.contains(&format!("recipients = {number}"));
        assert!(is_new || after == before, "{after}");
        seen[usize::from(is_new)] += 1;
        // What was left behind is in nobody's way.
        gateway.restart();
        window.is_there();
    }
    println!("old: {}, new: {}", seen[0], seen[1]);
    let id = window.propose(&limit("session_errors", 7));
    let (status, body) = window.post(&format!("/proposals/{id}/apply"), &json!({}));
    assert_eq!(status, 200, "{body}");
}
