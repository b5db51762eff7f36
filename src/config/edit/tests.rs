//! Operations on every file that the tests have, in every way a file can be written.

use std::{fs, path::Path};

use serde_json::{Map, json};
use toml::Value;

use super::{
    layout::{Layout, Spot},
    model::{PathPart, perform, read, resolve, same},
    refusal::EditRefusal,
    splice::splice,
};
use crate::{
    config::{keys, secrecy},
    fixture,
    view::{Neighbour, Operation},
};

/// Written as few people write: what is inline, dotted, quoted, over several lines, and apart.
const ODD: &str = r#"# Top comment

hostname = "relay.corp.example" # behind
limits.message_size = "1MiB"
limits . recipients = 5
log = { level = "info" }
"default_domain" = 'corp.example'

client = [
  # the first
  { name = "one", networks = ["10.0.0.0/8"] }, # behind one
  { name = "two", networks = [
    "10.1.0.0/16", # a network
  ], lf_only = true },
]
user = [{ name = "u", password = "$argon2id$x" }, { name = "v", password = "x" }]
# About the listener.
[[listener]]
	name = "a"   # tabs
	address = "127.0.0.1:25"
# touches the last key

# Commented example
# [[listener]]
# name = "x"

[[connector]]
name = "first"
type = "smtp"
oauth = { provider = "microsoft", tenant.x = "a", tenant.y = "b" }
text = """
# no comment
[[connector]]
"""
# of the next
[[connector]]
name = "second"
type = "smtp"
oauth.provider = "google"
oauth.mailbox = "a@b.c"
port=25
[connector.x]
y = 1

# stays

[[connector.overrides]]
code = 1
[queue]
retry = [
  "1m", # one
  "2m",
]
[[connector]]
name = "third"
[ connector . oauth ]
provider = "google"

  # indented
  [[rewrite]]
  senders = ["a"]
  to = "b@c.d"

[[rewrite]]
senders = ["b"]
[[rewrite]]
senders = ["c"]

[bounce]
"#;

/// Every text, with the ways it can stand in a file.
fn every_text() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![
        ("odd".to_owned(), ODD.to_owned()),
        ("empty".to_owned(), String::new()),
        ("blank".to_owned(), "\n".to_owned()),
        ("comment".to_owned(), "# nothing\n".to_owned()),
        (
            "inline".to_owned(),
            "connector = []\nroute = [ ]\nqueue = {}\n".to_owned(),
        ),
    ];
    let mut paths = vec![root.join("config.example.toml")];
    for folder in ["good", "warned", "bad"] {
        let entries = fs::read_dir(root.join("tests/config").join(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    for path in paths {
        if path.extension().is_some_and(|end| end == "toml")
            && let Ok(text) = fs::read_to_string(&path)
        {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, text));
        }
    }
    let mut all = Vec::new();
    for (name, text) in found {
        // What is no TOML is no file for this.
        if read(&text).is_err() || Layout::new(&text).is_err() {
            continue;
        }
        let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let open = text.trim_end_matches('\n').to_owned();
        all.push((format!("{name} crlf"), crlf));
        all.push((format!("{name} open"), open));
        all.push((name, text));
    }
    assert!(all.len() > 150, "{}", all.len());
    all
}

/// Those that are tried one after the other.
fn texts() -> Vec<(String, String)> {
    let mut all = every_text();
    if !fixture::is_thorough() {
        // The odd ones, and a share of those that are much alike.
        let is_odd = |name: &str| !name.contains(".toml") || name.starts_with("config.example");
        let mut n = 0;
        all.retain(|(name, _)| {
            n += 1;
            is_odd(name) || n % 19 == 0
        });
    }
    all
}

/// As `Proposal` does it, without rules and check.
fn done(text: &str, operation: &Operation) -> Result<String, EditRefusal> {
    let mut root = read(text)?;
    let deed = resolve(&root, operation)?;
    perform(&mut root, &deed)?;
    let new = splice(text, &deed)?;
    match read(&new) {
        Ok(meant) if same(&meant, &root, 0) => Ok(new),
        Ok(meant) => Err(EditRefusal::not_provable(format!(
            "{new}\nmeans {meant:#?}\nnot {root:#?}"
        ))),
        Err(_) => Err(EditRefusal::not_provable(format!("no TOML:\n{new}"))),
    }
}

fn must(name: &str, text: &str, operation: &Operation) -> String {
    match done(text, operation) {
        Ok(new) => new,
        Err(why) => panic!("{name}: {operation:?}: {why}\nof:\n{text}"),
    }
}

fn set(place: &Place, key: &str, value: serde_json::Value) -> Operation {
    Operation::Set {
        section: place.section.clone(),
        name: place.name.clone(),
        at: place.at,
        key: key.to_owned(),
        value,
    }
}

fn unset(place: &Place, key: &str) -> Operation {
    Operation::Unset {
        section: place.section.clone(),
        name: place.name.clone(),
        at: place.at,
        key: key.to_owned(),
    }
}

fn remove(place: &Place) -> Operation {
    Operation::Remove {
        section: place.section.clone(),
        name: place.name.clone(),
        at: place.at,
    }
}

#[derive(Debug, Clone)]
struct Place {
    section: String,
    name: Option<String>,
    at: Option<usize>,
    path: Vec<PathPart>,
    keys: Vec<String>,
}

/// Every section of a text with its keys, dotted ones too.
fn places(text: &str) -> Vec<Place> {
    let root = read(text).unwrap();
    let mut found = Vec::new();
    let place = |section: &str, at: Option<usize>, value: &Value| {
        let mut keys = Vec::new();
        dotted("", value, &mut keys);
        let mut path = vec![PathPart::Key(section.to_owned())];
        path.extend(at.map(PathPart::At));
        Place {
            section: section.to_owned(),
            name: None,
            at: at.map(|at| at + 1),
            path,
            keys,
        }
    };
    let mut top = Vec::new();
    for (section, value) in root.as_table().unwrap() {
        match value {
            Value::Array(list) if list.iter().all(Value::is_table) => {
                for (at, one) in list.iter().enumerate() {
                    found.push(place(section, Some(at), one));
                }
            }
            Value::Table(_) => found.push(place(section, None, value)),
            _ if secrecy::is_section(section) => {}
            _ => top.push(section.clone()),
        }
    }
    found.push(Place {
        section: String::new(),
        name: None,
        at: None,
        path: Vec::new(),
        keys: top,
    });
    found
}

fn dotted(above: &str, value: &Value, keys: &mut Vec<String>) {
    for (key, value) in value.as_table().unwrap() {
        if !key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        {
            continue;
        }
        let key = if above.is_empty() {
            key.clone()
        } else {
            format!("{above}.{key}")
        };
        if value.is_table() {
            dotted(&key, value, keys);
        }
        keys.push(key);
    }
}

/// What both texts begin and end with, and what is between: of the one, of the other.
fn window<'a>(old: &'a str, new: &'a str) -> (usize, &'a str, &'a str) {
    let (a, b) = (old.as_bytes(), new.as_bytes());
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let most = a.len().min(b.len()) - start;
    let ends = a.iter().rev().zip(b.iter().rev());
    let end = ends.take(most).take_while(|(a, b)| a == b).count();
    let start = old.floor_char_boundary(start);
    let of = |text: &'a str| &text[start..text.ceil_char_boundary(text.len() - end)];
    (start, of(old), of(new))
}

#[test]
fn a_value_is_replaced_and_nothing_else() {
    for (name, text) in texts() {
        for place in places(&text) {
            for key in &place.keys {
                let new = must(&name, &text, &set(&place, key, json!("anew \\ \"x\"\n#")));
                let layout = Layout::new(&text).unwrap();
                let mut path = place.path.clone();
                path.extend(key.split('.').map(|key| PathPart::Key(key.to_owned())));
                let span = match layout.find(&path) {
                    Spot::Pair(pair) => pair.span.clone(),
                    Spot::Inner { value, .. } => value.span().unwrap(),
                    other => {
                        assert!(!matches!(other, Spot::Absent), "{name}: {key}");
                        continue;
                    }
                };
                if matches!(layout.find(&path), Spot::Inner { value, .. } if value.as_inline_table().is_some_and(toml_edit::InlineTable::is_dotted))
                {
                    continue;
                }
                let expected = format!(
                    "{}\"anew \\\\ \\\"x\\\"\\n#\"{}",
                    &text[..span.start],
                    &text[span.end..]
                );
                assert_eq!(new, expected, "{name}: {key}");
            }
        }
    }
}

#[test]
fn a_new_key_is_one_piece_and_goes_without_a_trace() {
    for (name, text) in texts() {
        for place in places(&text) {
            for key in ["zzz", "zzz.y", "oauth.zzz", "x.z"] {
                if place.section.is_empty() && key.contains('.') {
                    continue;
                }
                let Ok(new) = done(&text, &set(&place, key, json!(["a", 1]))) else {
                    // Where `oauth` or `x` is a string.
                    let owner = key.split('.').next().unwrap();
                    let is_there = place.keys.iter().any(|key| key == owner);
                    assert!(key != "zzz" && is_there, "{name}: {place:?} {key}");
                    continue;
                };
                let (_, gone, come) = window(&text, &new);
                assert_eq!(gone, "", "{name}: {key}: {come}");
                assert!(come.contains("[\"a\", 1]"), "{come}");
                assert!(come.matches('\n').count() <= 3, "{name}: {come}");
                // An empty top of the file keeps the blank line that parts it from the sections.
                if place.section.is_empty() && place.keys.is_empty() {
                    continue;
                }
                let back = must(&name, &new, &unset(&place, key));
                assert_eq!(back, text, "{name}: {place:?} {key}");
            }
        }
    }
}

#[test]
fn a_key_goes_with_its_line_alone() {
    for (name, text) in texts() {
        for place in places(&text) {
            for key in &place.keys {
                let new = must(&name, &text, &unset(&place, key));
                let layout = Layout::new(&text).unwrap();
                let mut path = place.path.clone();
                path.extend(key.split('.').map(|key| PathPart::Key(key.to_owned())));
                if let Spot::Pair(pair) = layout.find(&path) {
                    let (_, gone, come) = window(&text, &new);
                    assert_eq!(come.trim_matches(['\r', '\n']), "", "{name}: {key}");
                    let lines = text[pair.span.clone()].lines().count();
                    assert_eq!(gone.matches('\n').count(), lines, "{name}: {key}: {gone}");
                }
                let comments = |text: &str| {
                    let lines = text.lines().filter(|line| line.trim().starts_with('#'));
                    lines.count()
                };
                // Those inside a value go with it, and those of a section with that.
                if !text.contains("[connector.") && !name.starts_with("odd") {
                    assert_eq!(comments(&text), comments(&new), "{name}: {key}");
                }
            }
        }
    }
}

#[test]
fn add_and_remove_together_change_no_octet() {
    let values = |name: &str| -> Map<String, serde_json::Value> {
        let values = json!({ "name": name, "oauth": { "provider": "google", "x.y": 1 }, "host": "h", "list": [{ "a": 1 }] });
        values.as_object().unwrap().clone()
    };
    for (name, text) in texts() {
        let root = read(&text).unwrap();
        for section in [
            "listener",
            "client",
            "user",
            "rewrite",
            "route",
            "connector",
            "notify",
            "limits",
            "bounce",
            "queue",
        ] {
            let add = Operation::Add {
                section: section.to_owned(),
                name: Some("added".to_owned()),
                values: values("added"),
            };
            let there = root.get(section);
            let is_once = !keys::is_repeated(section);
            if is_once && there.is_some() || there.is_some_and(|there| !there.is_array()) {
                assert!(done(&text, &add).is_err(), "{name}: {section}");
                continue;
            }
            if there.is_some_and(|there| !there.as_array().unwrap().iter().all(Value::is_table)) {
                continue;
            }
            let new = must(&name, &text, &add);
            let (_, gone, _) = window(&text, &new);
            assert_eq!(gone, "", "{name}: {section}");
            assert_eq!(new.contains("\r\n"), text.contains("\r\n"));
            assert_eq!(
                new.replace("\r\n", "").contains('\n'),
                text.replace("\r\n", "").contains('\n') || !text.contains('\n'),
                "{name}: one kind of line end"
            );
            let remove = Operation::Remove {
                section: section.to_owned(),
                name: (!is_once).then(|| "added".to_owned()),
                at: None,
            };
            assert_eq!(must(&name, &new, &remove), text, "{name}: {section}\n{new}");
        }
    }
}

#[test]
fn a_section_goes_as_a_whole_and_alone() {
    for (name, text) in texts() {
        for place in places(&text)
            .iter()
            .filter(|place| !place.section.is_empty())
        {
            let new = must(&name, &text, &remove(place));
            let (start, gone, come) = window(&text, &new);
            assert_eq!(come.trim_matches(['\r', '\n']), "", "{name}: {place:?}");
            // What lies together is cut out as one, and says nothing but that section.
            let layout = Layout::new(&text).unwrap();
            if let Spot::Spread(pieces, dotted) = layout.find(&place.path)
                && dotted.is_empty()
                && pieces.windows(2).all(|two| two[0] + 1 == two[1])
                && come.is_empty()
            {
                // The same octets may be seen to go from a little further up.
                let is_section = (0..=start).any(|up| {
                    let range = start - up..start - up + gone.len();
                    let one = text.get(range.clone()).unwrap_or_default();
                    let rest = text.get(range.end..).unwrap_or_default();
                    let is_so = new.get(range.start..) == Some(rest);
                    is_so
                        && read(one).is_ok_and(|alone| {
                            let alone = alone.as_table().unwrap();
                            alone.len() == 1 && alone.contains_key(&place.section)
                        })
                });
                assert!(is_section, "{name}: {gone}");
            }
        }
    }
}

#[test]
fn a_section_that_moves_takes_its_lines_along() {
    for (name, text) in texts() {
        let places = places(&text);
        for place in places.iter().filter(|place| place.at.is_some()) {
            let count = places
                .iter()
                .filter(|one| one.section == place.section)
                .count();
            for to in (1..=count).map(Some).chain([None]) {
                if to == place.at {
                    continue;
                }
                let operation = Operation::Move {
                    section: place.section.clone(),
                    name: None,
                    at: place.at,
                    before: to.map(Neighbour::At),
                };
                let new = match done(&text, &operation) {
                    Err(why) if why.detail.contains("stand together") => continue,
                    _ => must(&name, &text, &operation),
                };
                let lines = |text: &str| {
                    let parts = text.split(['\n', ',']).map(str::trim);
                    let mut lines: Vec<_> = parts
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned)
                        .collect();
                    lines.sort();
                    lines
                };
                if !text.contains("= [{") && !name.starts_with("odd") {
                    assert_eq!(lines(&text), lines(&new), "{name}: {operation:?}");
                }
                assert_eq!(
                    text.ends_with('\n'),
                    new.ends_with('\n'),
                    "{name}: {operation:?}"
                );
            }
        }
    }
}

/// One after the other, on what the one before left.
#[test]
fn any_operations_in_any_order() {
    let texts = every_text();
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = std::collections::BTreeMap::new();
    for round in 0..fixture::times(600) {
        let (name, text) = &texts[random.usize(..texts.len())];
        let mut text = text.clone();
        for _ in 0..8 {
            let places = places(&text);
            let place = &places[random.usize(..places.len())];
            let key = match random.usize(..=place.keys.len()) {
                0 => "new".to_owned() + if place.section.is_empty() { "" } else { ".key" },
                at => place.keys[at - 1].clone(),
            };
            let value = match random.u8(..5) {
                0 => json!("a\\b\"c'd\r\ne\u{7f}\u{1f600}"),
                1 => json!(["x", "#", 5, { "a": [true] }]),
                2 => json!({ "provider": "x", "y": { "z": 1 } }),
                3 => json!(-5),
                _ => json!({}),
            };
            let operation = match random.u8(..5) {
                0 if !place.section.is_empty() => remove(place),
                1 => unset(place, &key),
                2 if place.at.is_some() => Operation::Move {
                    section: place.section.clone(),
                    name: None,
                    at: place.at,
                    before: random.bool().then_some(Neighbour::At(1)),
                },
                3 => Operation::Add {
                    section: ["route", "connector", "client"][random.usize(..3)].to_owned(),
                    name: Some(format!("n{}", random.u32(..))),
                    values: Map::from_iter([("x.y".to_owned(), value)]),
                },
                _ => set(place, &key, value),
            };
            match done(&text, &operation) {
                Ok(new) => text = new,
                // What a person may do to the file all the same; nothing is written that was not meant.
                Err(why) => {
                    let is_wrong = ["no TOML:", "means", "does not show"]
                        .iter()
                        .any(|part| why.detail.contains(part));
                    assert!(!is_wrong, "{round} {name}: {operation:?}\n{text}\n{why}");
                    *refused.entry(why.detail).or_insert(0) += 1;
                }
            }
        }
    }
    // Only keys that are not there, or that cannot be below one which is there.
    let may_be = ["it is not there", "to take away", "is no table"];
    let is_known = |why: &String| may_be.iter().any(|part| why.contains(part));
    assert!(refused.keys().all(is_known), "{refused:?}");
}

#[test]
fn what_is_written() {
    let check = |text: &str, operation: serde_json::Value, expected: &str| {
        let operation: Operation = serde_json::from_value(operation).unwrap();
        assert_eq!(must("", text, &operation), expected);
    };
    let connector = "[[connector]]\nname = \"a\"\n# [x]\n\n[queue]\n";
    check(
        connector,
        json!({ "op": "add", "section": "connector", "name": "b", "values": { "port": 25, "type": "smtp", "oauth.mailbox": "x" } }),
        "[[connector]]\nname = \"a\"\n# [x]\n\n[[connector]]\nname = \"b\"\ntype = \"smtp\"\nport = 25\n[connector.oauth]\nmailbox = \"x\"\n\n[queue]\n",
    );
    check(
        "connector = [{ name = 'a' }]",
        json!({ "op": "set", "section": "connector", "name": "a", "key": "oauth.mailbox", "value": "x" }),
        "connector = [{ name = 'a', oauth.mailbox = \"x\" }]",
    );
    check(
        "[log]\nlevel = \"info\"\n",
        json!({ "op": "set", "section": "", "key": "hostname", "value": "x" }),
        "hostname = \"x\"\n\n[log]\nlevel = \"info\"\n",
    );
    check(
        "limits.recipients = 5\r\n[log]\r\n",
        json!({ "op": "set", "section": "limits", "key": "connections", "value": 9 }),
        "limits.recipients = 5\r\nlimits.connections = 9\r\n[log]\r\n",
    );
    check(
        "[log]",
        json!({ "op": "set", "section": "queue", "key": "give_up", "value": "1d" }),
        "[log]\n\n[queue]\ngive_up = \"1d\"",
    );
    check(
        "[[route]]\nname = \"a\"\n\n# About b\n[[route]]\nname = \"b\"\n\n[log]\n",
        json!({ "op": "move", "section": "route", "name": "b", "before": "a" }),
        "# About b\n[[route]]\nname = \"b\"\n\n[[route]]\nname = \"a\"\n\n[log]\n",
    );
    check(
        "[[route]]\nname = \"a\"\n\n# About b\n[[route]]\nname = \"b\"",
        json!({ "op": "move", "section": "route", "name": "a", "before": null }),
        "\n# About b\n[[route]]\nname = \"b\"\n\n[[route]]\nname = \"a\"",
    );
}
