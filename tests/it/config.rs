//! The configuration as an administrator meets it: secrets, the example held to the code, what keys become, and noise. The files
//! that load or do not, and what is said about them, are tests of their own (`tests/files`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::fixture::environment;
use postern::config::{self, Config, Diagnostics, Environment, Secrets, Severity};

fn parse(text: &str) -> Result<Config, Diagnostics> {
    config::parse(
        text,
        Path::new("config.toml"),
        Secrets::Resolve,
        &environment(),
    )
    .map(|(config, _)| config)
}

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")).unwrap()
}

/// A secret of a container's manager that was made with `echo` ends with a line break.
#[test]
fn a_secret_from_the_environment_ends_where_its_line_does() {
    let text = r#"
[[listener]]
name = "local"
address = "127.0.0.1:25"
[allowlist]
senders = ["corp.example"]
recipients = ["corp.example"]
[[route]]
name = "default"
connectors = ["smarthost"]
[[connector]]
name = "smarthost"
type = "smtp"
host = "smtp.corp.example"
username = "relay"
password = { env = "SMARTHOST_PASSWORD" }
"#;
    for (value, warned) in [
        ("hunter2", 0),
        ("hunter2\n", 0),
        ("hunter2\r\n", 0),
        ("hunter2\n\nx", 1),
        ("hunter2 ", 1),
    ] {
        let mut environment = environment();
        environment
            .vars
            .insert("SMARTHOST_PASSWORD".to_owned(), value.to_owned());
        let (config, notes) = config::parse(
            text,
            Path::new("config.toml"),
            Secrets::Resolve,
            &environment,
        )
        .unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(notes.len(), warned, "{value:?}: {notes:?}");
        let postern::connector::Kind::Smtp(smtp) = &config.connectors[0].kind else {
            panic!("not an smtp connector");
        };
        let (_, password) = smtp.login.as_ref().unwrap();
        assert_eq!(password.reveal(), value.trim_end_matches(['\r', '\n']));
    }
}

#[test]
fn the_example_loads_as_it_stands() {
    match config::parse(
        &example(),
        Path::new("config.example.toml"),
        Secrets::CheckOnly,
        &environment(),
    ) {
        Ok((_, notes)) => assert!(notes.is_empty(), "{notes:?}"),
        Err(why) => panic!("{why}"),
    }
}

/// The example with every `# key = value` and `# [section]` in force.
fn uncommented() -> String {
    let mut text = String::new();
    for line in example().lines() {
        let bare = line.strip_prefix("# ").filter(|rest| {
            rest.starts_with('[')
                || rest.split_once(" = ").is_some_and(|(key, _)| {
                    !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                })
        });
        text.push_str(bare.unwrap_or(line));
        text.push('\n');
    }
    text
}

/// A part of the schema with the section and the kind (`type`, `provider`) that it is of.
struct Part<'a> {
    section: String,
    kind: String,
    schema: &'a serde_json::Value,
}

/// The parts that a value of this key may be: none, but for sections and tables.
fn parts<'a>(
    all: &'a serde_json::Value,
    section: &str,
    key: &str,
    value: &'a serde_json::Value,
) -> Vec<Part<'a>> {
    let value = value.get("items").unwrap_or(value);
    let alternatives = value["oneOf"].as_array().cloned().unwrap_or_default();
    if alternatives.iter().any(|one| one.get("$ref").is_some()) {
        let schema = &all["$defs"]["secret"];
        return vec![Part {
            section: "secret".to_owned(),
            kind: String::new(),
            schema,
        }];
    }
    let inner = if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    };
    let list = value["oneOf"]
        .as_array()
        .map_or_else(|| vec![value], |list| list.iter().collect());
    list.into_iter()
        .filter(|schema| schema.get("properties").is_some())
        .map(|schema| {
            let kind = ["type", "provider"]
                .iter()
                .find_map(|key| schema["properties"][key]["const"].as_str());
            Part {
                section: inner.clone(),
                kind: kind.unwrap_or_default().to_owned(),
                schema,
            }
        })
        .collect()
}

/// Every part of the schema, the whole first.
fn every_part(all: &serde_json::Value) -> Vec<Part<'_>> {
    let mut found = vec![Part {
        section: String::new(),
        kind: String::new(),
        schema: all,
    }];
    let mut at = 0;
    while let Some(part) = found.get(at) {
        let properties = part.schema["properties"].as_object().unwrap();
        let inner: Vec<_> = properties
            .iter()
            .flat_map(|(key, value)| parts(all, &part.section, key, value))
            .collect();
        at += 1;
        for part in inner {
            if !found
                .iter()
                .any(|known| known.section == part.section && known.kind == part.kind)
            {
                found.push(part);
            }
        }
    }
    found
}

#[test]
fn the_example_has_every_key_with_its_default_and_no_other() {
    /// What is written: the section and the key, and whether a default is shown of it; keys of the kind `kind` are what it has.
    fn walk(
        all: &serde_json::Value,
        part: &Part<'_>,
        table: &serde_json::Value,
        shown: &mut BTreeMap<(String, String, String), Option<bool>>,
    ) {
        for (key, value) in table.as_object().unwrap() {
            let schema = &part.schema["properties"][key];
            assert!(
                !schema.is_null(),
                "[{}] {} `{key}`",
                part.section,
                part.kind
            );
            let is_default = schema.get("default").map(|default| default == value);
            let shown_as = shown
                .entry((part.section.clone(), part.kind.clone(), key.clone()))
                .or_default();
            *shown_as = (*shown_as).max(is_default);
            for table in value.as_array().unwrap_or(&vec![value.clone()]) {
                for inner in parts(all, &part.section, key, schema) {
                    let kind = table.get("type").or_else(|| table.get("provider"));
                    let kind = kind.and_then(|kind| kind.as_str()).unwrap_or_default();
                    if table.is_object() && inner.kind == kind {
                        walk(all, &inner, table, shown);
                    }
                }
            }
        }
    }
    let all = config::schema();
    let text: toml::Table = uncommented().parse().unwrap();
    let mut shown = BTreeMap::new();
    let whole = Part {
        section: String::new(),
        kind: String::new(),
        schema: &all,
    };
    walk(
        &all,
        &whole,
        &serde_json::to_value(text).unwrap(),
        &mut shown,
    );
    let wrong: Vec<_> = shown
        .iter()
        .filter(|(_, is_default)| **is_default == Some(false))
        .collect();
    assert!(wrong.is_empty(), "other defaults: {wrong:?}");

    let written: BTreeSet<String> = shown
        .keys()
        .map(|(section, _, key)| format!("{section}.{key}"))
        .collect();
    let mut known = BTreeSet::new();
    for part in every_part(&all) {
        let keys = part.schema["properties"].as_object().unwrap().keys();
        known.extend(keys.map(|key| format!("{}.{key}", part.section)));
    }
    assert_eq!(known, written);
    assert!(known.len() > 90, "{}", known.len());
}

/// No key takes a date with a time, so that each says what it takes, if it is read.
#[test]
fn every_key_is_read() {
    let all = config::schema();
    let date = toml::Value::Datetime("1979-05-27".parse().unwrap());
    let moment = toml::Value::Datetime("1979-05-27T07:32:00Z".parse().unwrap());
    let mut seen = 0;
    for part in every_part(&all) {
        for key in part.schema["properties"].as_object().unwrap().keys() {
            let mut text: toml::Table = around("", "type = \"smtp\"\nhost = \"h.example\"", "")
                .parse()
                .unwrap();
            let mut table = toml::Table::new();
            let kind = part.kind.as_str();
            match (part.section.as_str(), kind) {
                ("connector" | "notify", _) => drop(table.insert("type".to_owned(), kind.into())),
                ("connector.oauth", _) => drop(table.insert("provider".to_owned(), kind.into())),
                _ => {}
            }
            let takes_a_day = ["client_secret_expires", "active_from", "active_until"];
            let date = if takes_a_day.contains(&key.as_str()) {
                &moment
            } else {
                &date
            };
            table.insert(key.clone(), date.clone());
            let smtp = text["connector"][0].as_table_mut().unwrap();
            match part.section.as_str() {
                "" => drop(text.insert(key.clone(), date.clone())),
                "connector.oauth" => drop(smtp.insert("oauth".to_owned(), table.into())),
                "connector.overrides" => {
                    drop(smtp.insert("overrides".to_owned(), vec![table].into()));
                }
                "secret" => drop(smtp.insert("password".to_owned(), table.into())),
                section if all["properties"][section].get("items").is_some() => {
                    text.insert(section.to_owned(), vec![table].into());
                }
                section => drop(text.insert(section.to_owned(), table.into())),
            }
            let said = parse(&text.to_string()).unwrap_err();
            let is_said = said.iter().any(|said| {
                said.message.starts_with(&format!("`{key}` "))
                    && said.message.contains(", not a date")
            });
            assert!(is_said, "[{}] {kind} `{key}`: {said}", part.section);
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

/// With an independent validator: `python3-jsonschema`.
#[test]
#[ignore = "needs python3-jsonschema, which tests/run installs"]
fn editors_are_told_what_the_reader_takes() {
    const CHECK: &str = "import json, sys\nfrom jsonschema import Draft202012Validator as V\nschema, files = json.load(sys.stdin)\n\
                         V.check_schema(schema)\nfor name, value in files:\n  for error in V(schema).iter_errors(value): \
                         print(name, error.json_path, error.message[:200])\n";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<(String, String)> = ["good", "warned", "bad"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join("tests/config").join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    files.push(("example".to_owned(), example()));
    files.push(("uncommented".to_owned(), uncommented()));
    for file in ["src/cli/demo.toml", "bench/peers/postern.toml"] {
        files.push((
            file.to_owned(),
            fs::read_to_string(root.join(file)).unwrap(),
        ));
    }
    for block in blocks_of_the_page_on_exchange() {
        files.push((block.clone(), around("", "type = \"discard\"", &block)));
    }
    let values: Vec<_> = files
        .iter()
        .filter_map(|(name, text)| {
            let value = serde_json::to_value(text.parse::<toml::Table>().ok()?).unwrap();
            Some((name, with_days(value)))
        })
        .collect();
    let mut python = std::process::Command::new("python3")
        .args(["-c", CHECK])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(python.stdin.take().unwrap(), &(config::schema(), values)).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let (bad, good): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains("/bad/"));
    assert!(good.is_empty(), "{good:#?}");
    for name in [
        "choices",
        "duration-without-unit",
        "names-missing",
        "networks-as-a-string",
        "no-route",
        "out-of-range",
        "secret-of-two-kinds",
        "single-brackets",
        "unknown-key",
        "unknown-key-of-another-type",
        "unknown-section",
        "wrong-types",
    ] {
        assert!(
            bad.iter()
                .any(|line| line.contains(&format!("/{name}.toml "))),
            "{name}: {bad:#?}"
        );
    }
}

/// A day is a string to an editor.
fn with_days(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => match fields.get("$__toml_private_datetime") {
            Some(day) => day.clone(),
            None => fields.into_iter().map(|(k, v)| (k, with_days(v))).collect(),
        },
        Value::Array(all) => all.into_iter().map(with_days).collect(),
        other => other,
    }
}

#[test]
fn the_commented_keys_are_right_too() {
    let text = uncommented();
    let Err(said) = config::parse(
        &text,
        Path::new("config.toml"),
        Secrets::Ignore,
        &environment(),
    ) else {
        panic!("`service` beside `host`, and several credentials, are errors");
    };
    for diagnostic in said.iter().filter(|d| d.severity == Severity::Error) {
        // The alternatives that the example shows side by side, and nothing else.
        let alternatives = [
            "`service` already says",
            "one credential is enough: ",
            "a managed identity needs no ",
            "`token_url` already says `login_url`",
            "`client_id` goes with a refresh token",
            "`client_secret` goes with a refresh token",
        ];
        assert!(
            alternatives
                .iter()
                .any(|start| diagnostic.message.starts_with(start)),
            "{diagnostic}"
        );
    }
}

/// The example says defaults: without those keys the settings are the same.
#[test]
fn the_example_shows_the_defaults() {
    let short = r#"
hostname = "relay.corp.example"
[[listener]]
name = "local"
address = "127.0.0.1:25"
[[client]]
name = "printers"
networks = ["10.20.0.0/16"]
[[client]]
name = "this-machine"
networks = ["127.0.0.0/8", "::1"]
[allowlist]
senders = ["corp.example"]
recipients = ["corp.example", "*.partner.example"]
[[rewrite]]
senders = ["*@localhost", "root@*"]
to = "noreply@corp.example"
[[redirect]]
name = "staging"
senders = ["*@staging.corp.example"]
recipients = ["*"]
clients = ["printers"]
listeners = ["local"]
to = ["qa@corp.example"]
except = ["*@qa.corp.example"]
[[archive]]
name = "journal"
senders = ["corp.example"]
recipients = ["*"]
clients = ["printers"]
listeners = ["local"]
to = "archive@corp.example"
connectors = ["archive"]
[[header]]
senders = ["*@staging.corp.example"]
recipients = ["*"]
clients = ["printers"]
listeners = ["local"]
subject_prefix = "[TEST] "
add = ["X-Environment: staging"]
remove = ["X-Originating-IP"]
[[quota]]
name = "printers"
senders = ["printer@corp.example"]
recipients = ["*"]
clients = ["printers"]
listeners = ["local"]
per = "sender"
max = "200/h"
over = "hold"
[[route]]
name = "billing"
senders = ["billing@corp.example"]
recipients = ["corp.example"]
clients = ["printers"]
listeners = ["local"]
connectors = ["smarthost", "archive"]
retry = ["1m", "5m"]
give_up = "1d"
[[route]]
name = "default"
connectors = ["smarthost"]
[[connector]]
name = "smarthost"
type = "smtp"
host = "smtp.corp.example"
[[connector]]
name = "archive"
type = "capture"
directory = "/var/lib/postern/captured"
"#;
    let (short, mut long) = (parse(short).unwrap(), parse(&example()).unwrap());
    // Of that it is known that somebody has written it, which says that gateways share it.
    let given = long.connectors.iter_mut();
    let given = given.map(|one| std::mem::take(&mut one.is_concurrency_given));
    assert_eq!(given.filter(|is_given| *is_given).count(), 1);
    assert_eq!(format!("{short:#?}"), format!("{long:#?}"));
}

#[test]
fn secrets_come_from_where_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pw"), "from file\n").unwrap();
    fs::write(folder.path().join("cred"), "from systemd").unwrap();
    let environment = Environment {
        credentials_directory: Some(folder.path().to_owned()),
        ..environment()
    };
    for (written, expected) in [
        ("\"in the file\"", "in the file"),
        ("{ env = \"SMARTHOST_PASSWORD\" }", "hunter2"),
        ("{ file = \"pw\" }", "from file"),
        ("{ credential = \"cred\" }", "from systemd"),
    ] {
        let text = format!(
            "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:25\"\n[allowlist]\nsenders = []\nrecipients = []\n\
             [[route]]\nname = \"r\"\nconnectors = [\"c\"]\n[[connector]]\nname = \"c\"\ntype = \"smtp\"\n\
             host = \"h.example\"\nusername = \"u\"\npassword = {written}\n"
        );
        let path = folder.path().join("config.toml");
        let (config, _) = config::parse(&text, &path, Secrets::Resolve, &environment).unwrap();
        let postern::connector::Kind::Smtp(smtp) = &config.connectors[0].kind else {
            panic!("smtp");
        };
        assert_eq!(smtp.login.as_ref().unwrap().1.reveal(), expected);
        assert!(
            !format!("{config:?}").contains(expected),
            "a secret prints as ***"
        );
        assert!(config::parse(&text, &path, Secrets::Ignore, &Environment::default()).is_ok());
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let said = |path: &Path| config::load(path, Secrets::Ignore).unwrap_err().to_string();
    assert!(
        said(&path).contains("cannot be read: No such file"),
        "{}",
        said(&path)
    );
    assert!(said(folder.path()).contains("cannot be read: "));
    fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();
    assert!(
        said(&path).contains("line 2 is not UTF-8"),
        "{}",
        said(&path)
    );
}

#[test]
fn a_file_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, example()).unwrap();
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (_, notes) = config::load(&path, Secrets::Ignore).unwrap();
        assert_eq!(notes.len(), warnings, "{notes:?}");
        assert!(notes.iter().all(|n| n.to_string().contains("chmod o-rwx ")));
    }
}

/// Whatever the text, the answer is settings or a list of at least one error, and it can be printed.
#[test]
fn noise_is_answered() {
    let mut random = fastrand::Rng::with_seed(25);
    let text = uncommented();
    let lines: Vec<&str> = text.lines().collect();
    let bits = [
        "\"",
        "[",
        "]",
        "=",
        "\n",
        "{",
        "}",
        "é",
        "\u{202e}",
        "\0",
        "0",
        "99999999999999999999",
        "-1",
        "''' ",
        "\"\"\"",
        "#",
        ".",
        "*",
        "<>",
        "@",
        "\r\n",
        "\t",
    ];
    for _ in 0..3000 {
        let mut mutated = if random.bool() {
            text.clone()
        } else {
            example()
        };
        for _ in 0..random.usize(1..6) {
            let mut at = random.usize(0..=mutated.len());
            while !mutated.is_char_boundary(at) {
                at -= 1;
            }
            match random.u8(0..4) {
                0 => mutated.insert_str(at, bits[random.usize(0..bits.len())]),
                1 => {
                    if let Some(c) = mutated[at..].chars().next() {
                        mutated.replace_range(at..at + c.len_utf8(), "");
                    }
                }
                2 => {
                    let line = lines[random.usize(0..lines.len())];
                    mutated.insert_str(at, &format!("\n{line}\n"));
                }
                _ => mutated.truncate(at),
            }
            if mutated.len() < 200 {
                break;
            }
        }
        match config::parse(
            &mutated,
            Path::new("config.toml"),
            Secrets::Ignore,
            &environment(),
        ) {
            Ok(_) => {}
            Err(said) => {
                assert!(said.errors() > 0, "{mutated}");
                let said = said.to_string();
                assert!(
                    !said.chars().any(|c| c.is_control() && c != '\n'),
                    "{said:?}"
                );
                assert!(!said.contains('\u{202e}'), "{said:?}");
            }
        }
    }
}

/// A small file around one connector; what is left out stands for itself.
fn around(listener: &str, connector: &str, rest: &str) -> String {
    format!(
        "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:25\"\n{listener}\n[allowlist]\nsenders = []\nrecipients = []\n\
         [[route]]\nname = \"r\"\nconnectors = [\"c\"]\n[[connector]]\nname = \"c\"\n{connector}\n{rest}"
    )
}

#[test]
fn port_and_tls_complete_each_other() {
    use postern::connector::{Kind, Tls};
    for (written, port, tls) in [
        ("", 587, Tls::StartTls),
        ("port = 465", 465, Tls::Implicit),
        ("port = 25", 25, Tls::StartTls),
        ("tls = \"implicit\"", 465, Tls::Implicit),
        ("tls = \"opportunistic\"", 25, Tls::Opportunistic),
        ("tls = \"off\"\nport = 2525", 2525, Tls::Off),
    ] {
        let smtp = format!("type = \"smtp\"\nhost = \"h.example\"\n{written}");
        let config = parse(&around("", &smtp, "")).unwrap();
        let Kind::Smtp(smtp) = &config.connectors[0].kind else {
            panic!("smtp");
        };
        assert_eq!((smtp.port, smtp.tls), (port, tls), "{written}");
        assert_eq!(smtp.helo, "relay.corp.example");
        assert_eq!(smtp.own_addresses, ["127.0.0.1:25".parse().unwrap()]);
    }
}

#[test]
fn what_is_left_out_is_filled_in() {
    let config = parse(&around(
        "",
        "type = \"discard\"",
        "[queue]\nretry = [\"7s\"]\ngive_up = \"1h\"\n",
    ))
    .unwrap();
    let loopback = &config.policy.clients[0];
    assert_eq!(loopback.name, "loopback");
    assert_eq!(format!("{:?}", loopback.networks), "[127.0.0.0/8, ::1/128]");
    let route = &config.router.routes[0];
    assert_eq!(route.retry, [std::time::Duration::from_secs(7)]);
    assert_eq!(route.give_up, std::time::Duration::from_hours(1));
    assert_eq!(route.max_recipients, 1000);
    assert_eq!(config.connectors[0].max_concurrent, 16);
    assert_eq!(
        config.bounce_from.to_string(),
        "postmaster@relay.corp.example"
    );
    assert_eq!(config.data_dir, Path::new("/var/lib/postern"));
}

/// A machine without a full name: EHLO says an address, and `check` says so, unless the file has a name.
#[test]
fn a_bare_machine_name_is_not_said_in_ehlo() {
    let smtp = "type = \"smtp\"\nhost = \"h.example\"";
    let named = format!("{smtp}\nhelo = \"relay.corp.example\"");
    for (machine, file, connector, is_said) in [
        ("vm", "", smtp, false),
        ("localhost.localdomain", "", smtp, false),
        ("my_host.corp.example", "", smtp, false),
        ("vm", "", named.as_str(), true),
        ("vm", "hostname = \"relay.corp.example\"\n", smtp, true),
        ("relay.corp.example", "hostname = \"vm\"\n", smtp, false),
        ("relay.corp.example", "", smtp, true),
    ] {
        let machine = Environment {
            hostname: machine.to_owned(),
            ..environment()
        };
        let text = format!("{file}{}", around("", connector, ""));
        let (config, notes) = config::parse(
            &text,
            Path::new("config.toml"),
            Secrets::CheckOnly,
            &machine,
        )
        .unwrap();
        let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
        let connectors = &config.connectors;
        let postern::connector::Kind::Smtp(smtp) = &connectors[0].kind else {
            panic!("smtp");
        };
        assert_eq!(smtp.says_address, !is_said, "{text}");
        let warned = notes
            .iter()
            .any(|n| n.contains("EHLO says the address") && n.contains("hostname"));
        assert_eq!(warned, !is_said, "{notes:?}");
    }
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    fn check(text: &str, expected: &str) {
        match config::parse(
            text,
            Path::new("config.toml"),
            Secrets::CheckOnly,
            &environment(),
        ) {
            Ok((_, notes)) => {
                let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
                assert!(
                    notes.len() == 1 && notes[0].contains(expected),
                    "{expected}: {notes:#?}"
                );
            }
            Err(why) => panic!("{why}"),
        }
    }
    let smtp = "type = \"smtp\"\nhost = \"h.example\"";
    let login = "username = \"u\"\npassword = \"p\"";
    check(
        &around("", &format!("{smtp}\nport = 465\ntls = \"starttls\""), ""),
        "port 465 speaks TLS",
    );
    check(
        &around("", &format!("{smtp}\nport = 587\ntls = \"implicit\""), ""),
        "begin without TLS",
    );
    check(
        &around("", &format!("{smtp}\ntls = \"opportunistic\""), ""),
        "in plain text where the upstream offers no TLS or the handshake fails",
    );
    check(
        &around("", &format!("{smtp}\n{login}\nverify = \"none\""), ""),
        "anybody on the way",
    );
    check(
        &around(
            "",
            &format!("{smtp}\nusername = \"u\"\npassword = {{ credential = \"c\" }}"),
            "",
        ),
        ": the credential c is known to the unit only",
    );
    check(
        &around("plaintext_auth = true", smtp, ""),
        "`plaintext_auth` has no effect",
    );
    check(
        &around(
            "",
            smtp,
            "[[connector]]\nname = \"d\"\ntype = \"discard\"\n",
        ),
        "no route leads to",
    );
    let graph = format!("type = \"graph\"\n{APPLICATION}");
    check(
        &around("", &graph, ""),
        "bounces are sent from the mailbox postmaster@relay.corp.example",
    );
    let graph = format!("{graph}mailbox = \"p@corp.example\"\n");
    check(
        &around("", &graph, "[bounce]\nfrom = \"postmaster@corp.example\"\n"),
        "connector \"c\" sends bounces from postmaster@corp.example through the mailbox p@corp.example, which needs the Send As permission",
    );
    check(
        &around("", smtp, "").replace("senders = []", "senders = [\"*\"]"),
        "a bounce goes to a sender only where `recipients` admits it",
    );
    for (keys, expected) in [
        ("max_concurrent = 5", "refuses the fifth"),
        ("mime_limit = \"4MiB\"", "3 MiB of a message"),
    ] {
        check(&around("", &format!("{graph}{keys}"), ""), expected);
    }
    check(
        &around("", &graph.replace("hunter2", TENANT), ""),
        "looks like the ID of the client secret",
    );
    check(
        &around(
            "",
            &format!("{graph}cloud = \"china\""),
            "[outbound]\nallowed_hosts = [\"*.cn\"]\n",
        ),
        "only when there is a large message",
    );
    check(
        &around("", smtp, "[queue]\ngive_up = \"10s\"\n"),
        "given up after one attempt",
    );
}

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APPLICATION: &str = "tenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
                           client_id = \"66666666-7777-8888-9999-AAAAAAAAAAAA\"\nclient_secret = \"hunter2\"\n";

fn graph(written: &str) -> postern::connector::graph::Settings {
    let config = parse(&around("", &format!("type = \"graph\"\n{written}"), "")).unwrap();
    let postern::connector::Kind::Graph(graph) = &config.connectors[0].kind else {
        panic!("graph");
    };
    (**graph).clone()
}

#[test]
fn graph_by_cloud_and_by_hand() {
    /// Keys, token endpoint, scope, Graph.
    fn check(written: &str, token_url: &str, scope: &str, graph_url: &str) {
        let graph = graph(&format!("{APPLICATION}{written}"));
        assert_eq!(graph.oauth.token_url, token_url, "{written}");
        assert_eq!(graph.oauth.scope, scope, "{written}");
        assert_eq!(graph.graph_url, graph_url, "{written}");
    }
    let at = |login: &str| format!("{login}/{TENANT}/oauth2/v2.0/token");
    for (cloud, login, graph) in [
        ("global", "login.microsoftonline.com", "graph.microsoft.com"),
        ("gcc-high", "login.microsoftonline.us", "graph.microsoft.us"),
        ("dod", "login.microsoftonline.us", "dod-graph.microsoft.us"),
        (
            "china",
            "login.partner.microsoftonline.cn",
            "microsoftgraph.chinacloudapi.cn",
        ),
    ] {
        check(
            &format!("cloud = \"{cloud}\""),
            &at(&format!("https://{login}")),
            &format!("https://{graph}/.default"),
            &format!("https://{graph}"),
        );
    }
    check(
        "login_url = \"http://127.0.0.1:4001/\"\ngraph_url = \"http://localhost:4002/\"",
        &at("http://127.0.0.1:4001"),
        "https://graph.microsoft.com/.default",
        "http://localhost:4002",
    );
    check(
        "scope = \"https://graph.example/.default\"",
        &at("https://login.microsoftonline.com"),
        "https://graph.example/.default",
        "https://graph.microsoft.com",
    );
}

#[test]
fn the_hosts_of_a_cloud_must_be_allowed() {
    /// Hosts that are allowed, keys; the host that is missing.
    fn check(hosts: &[&str], written: &str, missing: Option<&str>) {
        let text = around(
            "",
            &format!("type = \"graph\"\n{APPLICATION}{written}"),
            &format!("[outbound]\nallowed_hosts = {hosts:?}\n"),
        );
        let said = parse(&text).err().map(|e| e.to_string());
        match (&said, missing) {
            (None, None) => {}
            (Some(said), Some(host)) => assert!(
                said.contains(&format!(
                    "the host {host} is not in [outbound] `allowed_hosts`"
                )) && said.contains("1 error"),
                "{hosts:?} {written}: {said}"
            ),
            _ => panic!("{hosts:?} {written}: {said:?}"),
        }
    }
    for (cloud, login, graph, upload) in [
        (
            "global",
            "login.microsoftonline.com",
            "graph.microsoft.com",
            Some("outlook.office.com"),
        ),
        (
            "gcc-high",
            "login.microsoftonline.us",
            "graph.microsoft.us",
            None,
        ),
        (
            "dod",
            "login.microsoftonline.us",
            "dod-graph.microsoft.us",
            None,
        ),
        (
            "china",
            "login.partner.microsoftonline.cn",
            "microsoftgraph.chinacloudapi.cn",
            None,
        ),
    ] {
        let written = format!("cloud = \"{cloud}\"\n");
        let all: Vec<&str> = [Some(login), Some(graph), upload]
            .into_iter()
            .flatten()
            .collect();
        check(&all, &written, None);
        for host in &all {
            let rest: Vec<&str> = all.iter().filter(|h| *h != host).copied().collect();
            check(&rest, &written, Some(host));
        }
        // Without uploads their host is not needed.
        check(
            &[login, graph],
            &format!("{written}large_messages = \"refuse\"\n"),
            None,
        );
        // By hand: what is written counts, not the cloud.
        check(
            &["login.example", "*.graph.example"],
            &format!(
                "{written}login_url = \"https://login.example\"\ngraph_url = \"https://a.graph.example\"\n"
            ),
            None,
        );
        check(
            &[login, graph],
            &format!(
                "{written}login_url = \"https://login.example\"\nlarge_messages = \"refuse\"\n"
            ),
            Some("login.example"),
        );
    }
    check(
        &["127.0.0.1"],
        "login_url = \"http://127.0.0.1:1\"\ngraph_url = \"http://127.0.0.1:2\"\n",
        None,
    );
}

#[test]
fn graph_has_the_limits_of_a_mailbox() {
    use postern::connector::{Rate, graph::Large, oauth::Grant};
    let text = around(
        "",
        &format!("type = \"graph\"\n{APPLICATION}"),
        "[outbound]\nproxy = \"http://p:1\"\nproxy_bypass = [\"corp.example\"]\n",
    );
    let connector = parse(&text).unwrap().connectors.remove(0);
    let minute = std::time::Duration::from_mins(1);
    assert_eq!(
        connector.rate,
        Some(Rate {
            count: 30,
            per: minute
        })
    );
    assert_eq!(
        (connector.max_concurrent, connector.max_recipients),
        (4, 500)
    );
    assert_eq!(connector.probe, minute, "as of every type");
    let postern::connector::Kind::Graph(graph) = connector.kind else {
        panic!("graph");
    };
    assert_eq!(graph.mime_limit, 3_000_000);
    assert_eq!(graph.max_connections, 16);
    let upload = graph.upload_rate.unwrap();
    assert_eq!(
        (upload.octets, upload.per.as_secs()),
        (150_000_000, 300),
        "octets and seconds"
    );
    assert_eq!(graph.large_messages, Large::Upload);
    assert_eq!(graph.oauth.http.allowed_hosts, ["*"]);
    assert_eq!(graph.oauth.http.proxy.bypass_hosts, ["corp.example"]);
    let Grant::ClientSecret {
        client_id,
        client_secret,
        basic,
    } = graph.oauth.grant
    else {
        panic!("a secret");
    };
    assert_eq!(client_id, "66666666-7777-8888-9999-aaaaaaaaaaaa");
    assert_eq!((client_secret.reveal(), basic), ("hunter2", false));
}

#[test]
fn a_managed_identity_is_asked_for_a_resource() {
    use postern::connector::oauth::{Azure, Grant};
    let settings = graph("managed_identity = true").oauth;
    assert_eq!(
        settings.token_url,
        "http://169.254.169.254/metadata/identity/oauth2/token"
    );
    assert_eq!(settings.scope, "https://graph.microsoft.com/");
    assert_eq!(
        settings.grant,
        Grant::ManagedIdentity {
            client_id: None,
            host: Azure::Machine
        }
    );
    let settings = graph(&format!(
        "managed_identity = \"{TENANT}\"\nlogin_url = \"http://127.0.0.1:9\"\ncloud = \"gcc-high\""
    ))
    .oauth;
    assert_eq!(
        settings.token_url,
        "http://127.0.0.1:9/metadata/identity/oauth2/token"
    );
    assert_eq!(settings.scope, "https://graph.microsoft.us/");
}

#[test]
fn tokens_for_smtp() {
    use postern::{
        connector::{Auth, Kind},
        smtp::sasl::Mechanism,
    };
    /// Keys of the connector and of its `oauth`; login, mailbox, token endpoint, scope.
    fn check(connector: &str, oauth: &str, expected: (Auth, &str, &str, &str)) {
        let text = format!("type = \"smtp\"\n{connector}\n[connector.oauth]\n{oauth}");
        let config = parse(&around("", &text, "")).unwrap();
        let Kind::Smtp(smtp) = &config.connectors[0].kind else {
            panic!("smtp");
        };
        let (settings, mailbox) = smtp.oauth.as_ref().unwrap();
        let found = (
            smtp.auth,
            mailbox.as_str(),
            settings.token_url.as_str(),
            settings.scope.as_str(),
        );
        assert_eq!(found, expected, "{oauth}");
    }
    let entra =
        "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token";
    let microsoft =
        format!("provider = \"microsoft\"\nmailbox = \"p@Corp.example\"\n{APPLICATION}");
    let office = "service = \"Outlook365\"";
    let scope = "https://outlook.office365.com/.default";
    check(
        office,
        &microsoft,
        (
            Auth::With(Mechanism::Xoauth2),
            "p@corp.example",
            entra,
            scope,
        ),
    );
    check(
        "service = \"Outlook365\"\nauth = \"oauthbearer\"",
        &microsoft,
        (
            Auth::With(Mechanism::OauthBearer),
            "p@corp.example",
            entra,
            scope,
        ),
    );
    check(
        "host = \"smtp.hve.mx.microsoft\"\nauth = \"auto\"",
        &microsoft,
        (
            Auth::With(Mechanism::Xoauth2),
            "p@corp.example",
            entra,
            "https://outlook.office.com/.default",
        ),
    );
    check(
        "host = \"smtp-hve.office365.com\"",
        &microsoft,
        (
            Auth::With(Mechanism::Xoauth2),
            "p@corp.example",
            entra,
            "https://outlook.office.com/.default",
        ),
    );
    let google = "provider = \"google\"\nclient_id = \"c\"\nclient_secret = \"s\"\nrefresh_token = \"r\"\nmailbox = \"p@corp.example\"\n";
    check(
        "service = \"Gmail\"",
        google,
        (
            Auth::With(Mechanism::Xoauth2),
            "p@corp.example",
            "https://oauth2.googleapis.com/token",
            "https://mail.google.com/",
        ),
    );
    check(
        "service = \"Gmail\"",
        &format!("{google}token_url = \"http://127.0.0.1:9/t\""),
        (
            Auth::With(Mechanism::Xoauth2),
            "p@corp.example",
            "http://127.0.0.1:9/t",
            "https://mail.google.com/",
        ),
    );
    check(
        "service = \"Hotmail\"",
        &format!(
            "provider = \"microsoft\"\nmailbox = \"p@outlook.com\"\ntenant_id = \"consumers\"\nclient_id = \"{TENANT}\"\nrefresh_token = \"r\""
        ),
        (
            Auth::With(Mechanism::Xoauth2),
            "p@outlook.com",
            "https://login.microsoftonline.com/consumers/oauth2/v2.0/token",
            "https://outlook.office.com/SMTP.Send offline_access",
        ),
    );
}

#[test]
fn the_key_of_a_service_account_is_looked_into() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("google.json");
    let smtp = "type = \"smtp\"\nservice = \"Gmail\"\n[connector.oauth]\nprovider = \"google\"\n\
                service_account_file = \"google.json\"\nsubject = \"p@corp.example\"";
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let path = folder.path().join("config.toml");
        config::parse(
            &around("", smtp, ""),
            &path,
            Secrets::CheckOnly,
            &environment(),
        )
    };
    let key = "-----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY-----";
    let whole = format!(
        "{{\"type\":\"service_account\",\"client_email\":\"a@b\",\"private_key\":\"{key}\"}}"
    );
    assert!(check(&whole).is_ok());
    for text in [
        "",
        "{}",
        "[]",
        "hunter2",
        &whole.replace("service_account", "authorized_user"),
        &whole.replace("client_email", "x"),
    ] {
        let said = check(text).unwrap_err().to_string();
        assert!(
            said.contains("is not the key of a service account"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_route_knows_what_no_connector_of_it_takes() {
    fn check(connectors: &str, expected: Option<u64>) {
        let graph = |name: &str, keys: &str| {
            format!(
                "[[connector]]\nname = \"{name}\"\ntype = \"graph\"\nmailbox = \"p@corp.example\"\n{APPLICATION}{keys}\n"
            )
        };
        let rest = [
            graph("small", "large_messages = \"refuse\"\nmime_limit = \"2MB\""),
            graph("large", "large_messages = \"refuse\""),
            graph("upload", ""),
        ]
        .concat();
        let text = around("", "type = \"discard\"", &rest).replace(
            "connectors = [\"c\"]",
            &format!("connectors = [{connectors}]"),
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.router.routes[0].max_size, expected, "{connectors}");
    }
    check("\"small\"", Some(2_000_000));
    check("\"small\", \"large\"", Some(3_000_000));
    check("\"small\", \"upload\"", None);
    check("\"small\", \"c\"", None);
    check("\"c\"", None);
}

fn blocks_of_the_page_on_exchange() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/exchange-online.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// What the page says to write can be written.
#[test]
fn the_examples_of_the_page_on_exchange_load() {
    let blocks = blocks_of_the_page_on_exchange();
    assert!(blocks.len() >= 7);
    for block in blocks {
        let text = around("", "type = \"discard\"", &block);
        let environment = environment();
        if let Err(why) = config::parse(&text, Path::new("c.toml"), Secrets::Ignore, &environment) {
            panic!("{block}\n{why}");
        }
    }
}

/// The pages show parts of a file, which say nothing of what they leave out; but no key that there is not, and no value that cannot be.
#[test]
fn the_examples_of_every_page_can_be_written() {
    let mut count = 0;
    for page in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        let page = page.unwrap().path();
        let Ok(text) = fs::read_to_string(&page) else {
            continue;
        };
        for block in text.split("```toml\n").skip(1) {
            count += 1;
            let block = block.split("```").next().unwrap();
            let environment = environment();
            let found = config::parse(block, Path::new("c.toml"), Secrets::Ignore, &environment);
            let said = found.err().map_or_else(String::new, |why| why.to_string());
            for words in [
                "cannot be a name",
                "unknown key",
                "unknown section",
                "takes ",
            ] {
                let is_said = said
                    .lines()
                    .any(|line| line.contains("error") && line.contains(words));
                assert!(!is_said, "{}: {block}\n{said}", page.display());
            }
        }
    }
    assert!(count >= 25, "{count}");
}

/// No way of writing a password wrongly shows it.
#[test]
fn a_mistake_near_a_password_does_not_show_it() {
    for line in [
        "password = \"hunter2",
        "password = hunter2",
        "password \"hunter2\"",
        "password: \"hunter2\"",
        "pasword = \"hunter2\"",
        "passwort = \"hunter2\"",
        "Password = \"hunter2\"",
        "password = [\"hunter2\"]",
        "password = { value = \"hunter2\" }",
        "password = { env = 5, value = \"hunter2\" }",
        "password = \"\"\"\nhunter2\n",
        "password = '''\nhunter2\n",
        "oauth = { client_secret = \"hunter2\" }",
        "refresh_token = \"hunter2\"",
        "proxy = \"https://me:hunter2@proxy:1\"",
        "proxy = \"http://me:hunter2@proxy\"",
        "password = \"hunter2\" x",
    ] {
        let smtp = "type = \"smtp\"\nhost = \"h.example\"\nusername = \"u\"";
        let said = parse(&around("", smtp, line)).unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{line}: {said}");
    }
}
