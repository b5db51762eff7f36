//! A connector that is not saved, as it is tried out: its settings, by the rules that a saved one would meet.
//!
//! Its secrets are in memory only; `{"secret": "keep"}` is the saved one of the connector of that name.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{
    keep::in_keys,
    mask::split_mark,
    model::{read, typed},
    place,
    proposal::Ground,
    refusal::{EditRefusal, Why},
    render::inside,
    rules,
};
use crate::{
    config::{load::parse, secrecy, shown::without_login},
    connector::Settings,
    secret::Secret,
    view::Problem,
};

const SECTION: &str = "connector";
/// What stands in the place of the saved secret.
const KEEP: &str = "keep";
/// What a secret of the request is called while the rules are asked.
const FRESH: &str = "draft";

/// The settings of a connector that is not saved, with warnings and notes about all of the file with it. Secrets are resolved as
/// `ground` says.
///
/// # Errors
/// It may not be tried, or it is no connector: then `problems` says why, without places.
pub fn draft(
    connector: &Json,
    ground: Ground<'_>,
) -> Result<(Settings, Vec<Problem>), EditRefusal> {
    let bad = |detail: &str| EditRefusal::new(Why::BadRequest, detail);
    let text = std::str::from_utf8(ground.octets)
        .map_err(|_| EditRefusal::not_provable("the file is not UTF-8"))?;
    let root = read(split_mark(text).1)?;
    let mut connector = connector.clone();
    let Json::Object(values) = &mut connector else {
        return Err(bad("a connector is an object"));
    };
    values.entry("name").or_insert_with(|| FRESH.into());
    let mut secrets = Vec::new();
    for (key, value) in values.iter_mut() {
        in_keys(SECTION, key, value, &mut |_, secret| {
            secrets.push(secret);
            format!("{FRESH}:{}", secrets.len() - 1)
        })?;
    }
    let mut draft = typed(&connector)?;
    let name = draft.get("name").and_then(Value::as_str).map(str::to_owned);
    let name = name.ok_or_else(|| bad("`name` is a string"))?;
    let saved = root.get(SECTION).and_then(Value::as_array).and_then(|all| {
        let mut all = all.iter();
        all.find(|one| one.get("name").and_then(Value::as_str) == Some(&name))
    });
    keep_saved(&mut draft, saved, &secrets)?;
    unmask(&mut draft, saved);
    let kind = draft.get("type").and_then(Value::as_str);
    if !kind.is_some_and(|kind| ["smtp", "graph"].contains(&kind)) {
        let detail = "only smtp and graph can be tried before they are saved";
        return Err(EditRefusal::new(Why::OnlyInFile, detail));
    }
    let fresh: Vec<String> = (0..secrets.len())
        .map(|at| format!("{FRESH}:{at}"))
        .collect();
    rules::may_become(SECTION, saved, Some(&draft), &fresh)?;
    rules::nothing_moved(&root, &with(&root, &name, draft.clone()), &fresh)?;
    reveal(&mut draft, &secrets);
    let text = toml::to_string(&with(&root, &name, draft))
        .map_err(|_| EditRefusal::not_provable("the draft cannot be written down"))?;
    let found = parse(&text, ground.path, ground.secrets, ground.env);
    let (config, notes) = found.map_err(|found| {
        let mut refusal = EditRefusal::new(Why::Invalid, "the draft is no connector");
        refusal.problems = nowhere(place::problems(found.iter(), &text));
        refusal
    })?;
    let mut all = config.connectors.into_iter();
    let settings = all.find(|settings| settings.name.as_str() == name);
    let settings = settings.ok_or_else(|| bad("the draft is no connector"))?;
    Ok((settings, nowhere(place::problems(notes.iter(), &text))))
}

/// The text was made here, and nobody sees its lines.
fn nowhere(problems: Vec<Problem>) -> Vec<Problem> {
    let unseen = |problem: Problem| Problem {
        line: None,
        column: None,
        ..problem
    };
    problems.into_iter().map(unseen).collect()
}

/// The file with the draft in the place of the connector of its name.
fn with(root: &Value, name: &str, draft: Value) -> Value {
    let mut root = root.clone();
    if let Value::Table(table) = &mut root {
        let list = table
            .entry(SECTION)
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            let is_it = |one: &Value| one.get("name").and_then(Value::as_str) == Some(name);
            match list.iter_mut().find(|one| is_it(one)) {
                Some(one) => *one = draft,
                None => list.push(draft),
            }
        }
    }
    root
}

/// Which secret of the request a value stands for.
fn which<'a>(value: &Value, secrets: &'a [Secret]) -> Option<&'a Secret> {
    let file = value.as_table()?.get("file")?.as_str()?;
    let number = file.strip_prefix(FRESH)?.strip_prefix(':')?;
    secrets.get(number.parse::<usize>().ok()?)
}

fn keep_saved(
    draft: &mut Value,
    saved: Option<&Value>,
    secrets: &[Secret],
) -> Result<(), EditRefusal> {
    let Value::Table(table) = draft else {
        return Ok(());
    };
    each(SECTION, table, saved, &mut |key, value, saved| {
        if which(value, secrets).is_some_and(|secret| secret.reveal() == KEEP) {
            let saved = saved.ok_or_else(|| {
                EditRefusal::new(
                    Why::SecretNeeded,
                    format!("there is no saved `{key}` to keep"),
                )
            })?;
            *value = saved.clone();
        }
        Ok(())
    })
}

/// A URL that is as it is shown is the saved one, with the login in it.
fn unmask(draft: &mut Value, saved: Option<&Value>) {
    let (Value::Table(table), Some(Value::Table(saved))) = (draft, saved) else {
        return;
    };
    for (key, value) in table {
        let saved = saved.get(key);
        match saved {
            Some(Value::String(url))
                if rules::has_login(url) && value.as_str() == Some(&without_login(url)) =>
            {
                *value = Value::String(url.clone());
            }
            _ => unmask(value, saved),
        }
    }
}

fn reveal(draft: &mut Value, secrets: &[Secret]) {
    if let Value::Table(table) = draft {
        let put = &mut |_: &str, value: &mut Value, _: Option<&Value>| {
            if let Some(secret) = which(value, secrets) {
                *value = Value::String(secret.reveal().to_owned());
            }
            Ok(())
        };
        // It has no errors of its own.
        let _ = each(SECTION, table, None, put);
    }
}

/// What is done to a secret: its key, its value, and the saved one.
type Put<'a> = dyn FnMut(&str, &mut Value, Option<&Value>) -> Result<(), EditRefusal> + 'a;

/// Each secret of a table, with the saved one in its place.
fn each(
    section: &str,
    table: &mut Table,
    saved: Option<&Value>,
    put: &mut Put<'_>,
) -> Result<(), EditRefusal> {
    for (key, value) in table.iter_mut() {
        let saved = saved.and_then(|saved| saved.get(key));
        if secrecy::is_secret(section, key) {
            put(key, value, saved)?;
        } else if let Value::Table(inner) = value {
            each(&inside(section, key), inner, saved, put)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::settings::{Environment, Secrets};

    const FILE: &str = concat!(
        "[[listener]]\n",
        "name = \"a\"\n",
        "address = \"127.0.0.1:25\"\n",
        "[allowlist]\n",
        "senders = [\"*\"]\n",
        "recipients = [\"a@b.example\"]\n",
        "[outbound]\n",
        "allowed_hosts = [\"*.example\"]\n",
        "[[route]]\n",
        "name = \"r\"\n",
        "connectors = [\"saved\"]\n",
        "[[connector]]\n",
        "name = \"saved\"\n",
        "type = \"smtp\"\n",
        "host = \"smtp.corp.example\"\n",
        "username = \"me\"\n",
        "password = \"hunter2\"\n",
        "[[connector]]\n",
        "name = \"rooted\"\n",
        "type = \"smtp\"\n",
        "host = \"smtp.corp.example\"\n",
        "ca_file = \"ca.pem\"\n",
        "[[connector]]\n",
        "name = \"behind\"\n",
        "type = \"smtp\"\n",
        "host = \"smtp.corp.example\"\n",
        "proxy = \"http://me:hunter3@proxy.example:3128\"\n",
    );

    fn try_out(connector: &Json) -> Result<(Settings, Vec<Problem>), &'static str> {
        let env = Environment {
            hostname: "relay.corp.example".to_owned(),
            ..Environment::default()
        };
        let ground = Ground {
            path: Path::new("/etc/postern/config.toml"),
            octets: FILE.as_bytes(),
            env: &env,
            secrets: Secrets::Ignore,
        };
        draft(connector, ground).map_err(|refusal| refusal.why.as_str())
    }

    /// The password that the connector would log in with.
    fn password(settings: &Settings) -> String {
        let crate::connector::Kind::Smtp(smtp) = &settings.kind else {
            panic!("{settings:?}");
        };
        smtp.login.as_ref().unwrap().1.reveal().to_owned()
    }

    #[test]
    fn a_draft_meets_the_rules_of_a_saved_one() {
        let base = json!({ "name": "saved", "type": "smtp", "host": "smtp.corp.example", "username": "me", "password": { "secret": "keep" } });
        let with = |key: &str, value: Json| {
            let mut connector = base.clone();
            connector[key] = value;
            try_out(&connector).map(|(settings, _)| password(&settings))
        };
        assert!(with("port", json!(587)).is_err_and(|why| why == "secret_needed"));
        assert_eq!(with("timeout", json!("1m")).unwrap(), "hunter2");
        assert_eq!(
            with("host", json!("x.example")).unwrap_err(),
            "secret_needed"
        );
        assert_eq!(with("name", json!("other")).unwrap_err(), "secret_needed");
        assert_eq!(with("ca_file", json!("/x")).unwrap_err(), "only_in_file");
        assert_eq!(with("type", json!("capture")).unwrap_err(), "only_in_file");
        assert_eq!(with("password", json!("x")).unwrap_err(), "bad_request");
        assert_eq!(
            with("password", json!({ "file": "/x" })).unwrap_err(),
            "only_in_file"
        );
        assert_eq!(
            with("nothing", json!("x")).unwrap_err(),
            "unprocessable_content"
        );
        let mut anew = base.clone();
        anew["password"] = json!({ "secret": "anew" });
        anew["host"] = json!("x.example");
        assert_eq!(password(&try_out(&anew).unwrap().0), "anew");
        anew["host"] = json!("elsewhere.test");
        assert_eq!(try_out(&anew).unwrap_err(), "unprocessable_content");
        // What only the file says is there as it is saved, or not at all.
        let rooted = |ca: Json| {
            let ca = json!({ "name": "rooted", "type": "smtp", "host": "smtp.corp.example", "ca_file": ca });
            try_out(&ca).map(drop)
        };
        assert_eq!(rooted(json!("ca.pem")), Ok(()));
        assert_eq!(rooted(json!("other.pem")), Err("only_in_file"));
    }
    /// A proxy that is sent back as it was shown is the saved one, login and all; changed in any way it has no login of ours.
    #[test]
    fn a_proxy_as_it_was_shown_is_the_saved_one() {
        let shown = without_login("http://me:hunter3@proxy.example:3128");
        assert!(!shown.contains("hunter3"));
        let with = |name: &str, host: &str, proxy: &str| {
            let connector = json!({ "name": name, "type": "smtp", "host": host, "proxy": proxy });
            let (settings, _) = try_out(&connector)?;
            let crate::connector::Kind::Smtp(smtp) = settings.kind else {
                panic!("{settings:?}");
            };
            let login = smtp.proxy.via.and_then(|via| via.login);
            Ok::<_, &str>(login.map(|(_, password)| password.reveal().to_owned()))
        };
        let own = Ok(Some("hunter3".to_owned()));
        // The proxy hears its login, whatever host lies behind it.
        for host in ["smtp.corp.example", "other.example"] {
            assert_eq!(with("behind", host, &shown), own);
        }
        for (name, proxy) in [
            ("behind", shown.replace("proxy.", "evil.")),
            ("behind", shown.replace("3128", "3129")),
            ("another", shown.clone()),
        ] {
            let found = with(name, "smtp.corp.example", &proxy);
            assert_ne!(found, own, "{name} {proxy}");
        }
    }
}
