//! What the compiler does not hold: who may import whom, what stays pure, how long a file may be, that the map in
//! `src/lib.rs` is true, and that words keep their meaning. `src/lib.rs` explains the rules.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::case_sensitive_file_extension_comparisons
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The layers, lowest first. A module imports only from lower rows, or from itself.
const ROWS: &[&[&str]] = &[
    &["mail", "secret", "systemd", "watch"],
    &["policy", "route", "telemetry"],
    &["smtp", "queue"],
    &["listener", "connector"],
    &["delivery"],
    &["view"],
    &["admin"],
    &["config"],
    &["gateway"],
    &["cli"],
];

/// Files that hold decisions: no runtime, no clock, no environment.
const PURE: &[&str] = &[
    "mail/",
    "policy/",
    "route.rs",
    "smtp/",
    "delivery/plan.rs",
    "delivery/gate.rs",
    "delivery/clock.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 30, "the walk found the tree");
    found
}

/// The lines of a file without its tests, with their numbers. A test is what `#[cfg(test)]` stands before, wherever that is: up to
/// the end of the item, which rustfmt puts as far to the left as it began.
fn untested(text: &str) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let item = line.trim_start();
        if !item.starts_with("#[cfg(test)]") {
            kept.push((number, line));
            continue;
        }
        let indent = &line[..line.len() - item.len()];
        let ends = |line: &str| {
            let at_the_left = line.strip_prefix(indent);
            at_the_left.is_some_and(|rest| !rest.starts_with([' ', '#', '/']))
                && line.ends_with(['}', ';', ','])
        };
        // The item may stand on one line, that of the attribute even.
        if ends(line) {
            continue;
        }
        lines.by_ref().find(|(_, line)| ends(line));
    }
    kept
}

/// The same without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    untested(text)
        .into_iter()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn tests_are_cut_out_wherever_they_stand() {
    let text = "//! Top.\n#[cfg(test)]\nmod tests;\nuse a;\nfn b() {\n    #[cfg(test)]\n    looked(1);\n    c();\n}\n\
                #[cfg(test)]\n/// Why.\n#[allow(x)]\nfn d() {\n    if e {\n    }\n}\n// Comment.\nfn f() {}\n\
                #[cfg(test)]\nmod more {\n    use tokio;\n\n    fn g() {}\n}\nfn h() {}\n";
    let kept: Vec<(usize, &str)> = code(text).collect();
    let expected = [
        (4, "use a;"),
        (5, "fn b() {"),
        (8, "    c();"),
        (9, "}"),
        (18, "fn f() {}"),
        (25, "fn h() {}"),
    ];
    assert_eq!(kept, expected);
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Top modules named by `crate::…` paths in a line, `crate::{a::…, b}` on one line included.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let body: Vec<(usize, &str)> = code(text).collect();
    let mut depth_of_group: Option<i32> = None;
    for (number, line) in body {
        let mut rest = line;
        if let Some(depth) = depth_of_group {
            // Inside `use crate::{`: names at depth 1 are modules.
            let mut depth = depth;
            let mut word = String::new();
            for c in line.chars() {
                match c {
                    '{' => {
                        if depth == 1 && !word.is_empty() {
                            found.push((number, std::mem::take(&mut word)));
                        }
                        depth += 1;
                    }
                    '}' => depth -= 1,
                    ':' | ',' | ';' | ' ' if depth == 1 => {
                        if !word.is_empty() {
                            found.push((number, std::mem::take(&mut word)));
                        }
                        if c == ':' {
                            word = "\u{0}".into();
                        } else {
                            word.clear();
                        }
                    }
                    _ if depth == 1 && !word.starts_with('\u{0}') => word.push(c),
                    _ => {}
                }
            }
            if depth == 1 && !word.is_empty() && !word.starts_with('\u{0}') {
                found.push((number, word));
            }
            depth_of_group = (depth > 0).then_some(depth);
            continue;
        }
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + 7..];
            if rest.trim_end() == "{" {
                depth_of_group = Some(1);
                break;
            }
            if let Some(group) = rest.strip_prefix('{') {
                let inner = group.split('}').next().unwrap_or_default();
                for part in inner.split(',') {
                    found.push((
                        number,
                        part.trim()
                            .split("::")
                            .next()
                            .unwrap_or_default()
                            .to_owned(),
                    ));
                }
                break;
            }
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            found.push((number, name));
        }
    }
    found.retain(|(_, name)| row_of(name.trim_start_matches('\u{0}')).is_some());
    found
}

#[test]
fn modules_import_only_from_lower_rows() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in sources(&root().join("src")) {
        let Some(own) = row_of(module_of(&file)) else {
            continue;
        };
        for (line, name) in imports(&text) {
            seen += 1;
            if name != module_of(&file) && row_of(&name).is_some_and(|row| row >= own) {
                wrong.push(format!(
                    "src/{file}:{line}: `{}` may not import `{name}`",
                    module_of(&file)
                ));
            }
        }
    }
    assert!(seen > 50, "imports were recognised ({seen})");
    assert!(
        wrong.is_empty(),
        "upward or sideways imports:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_import_reader_sees_what_it_must() {
    let text = "use crate::{\n    mail::{address::Address, reply::Reply},\n    queue,\n};\nlet x = crate::cli::y();\nuse crate::{route::A, smtp::B};\n";
    let names: Vec<String> = imports(text).into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, ["mail", "queue", "cli", "route", "smtp"]);
}

/// A new way out is a file of its own, an arm in `connector/mod.rs` and one in the configuration: nobody else asks which kind it is.
#[test]
fn kinds_of_connectors_are_known_in_two_places() {
    for kind in ["Smtp", "Graph", "Capture", "Discard"] {
        let word = format!("Kind::{kind}");
        let named = |text: &str| {
            code(text).any(|(_, line)| {
                let mut after = line.split(&word).skip(1);
                after.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
            })
        };
        let places: Vec<String> = sources(&root().join("src"))
            .into_iter()
            .filter_map(|(file, text)| named(&text).then_some(file))
            .collect();
        assert_eq!(places.len(), 2, "{kind}: {places:?}");
        assert_eq!(places[1], "connector/mod.rs");
        assert!(places[0].starts_with("config/sections/"), "{places:?}");
    }
}

#[test]
fn decisions_are_pure() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        if !PURE.iter().any(|pure| file.starts_with(pure)) {
            continue;
        }
        for (line, content) in code(&text) {
            for word in [
                "tokio",
                "async ",
                "SystemTime::now",
                "Instant::now",
                "std::env",
                "std::net::Tcp",
                "std::fs",
                "std::process",
            ] {
                // A body that no row names takes its file with it.
                let is_known = file == "mail/message.rs" && word == "std::fs";
                if content.contains(word) && !is_known {
                    wrong.push(format!("src/{file}:{line}: {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn files_can_be_read_in_a_sitting() {
    let mut long = Vec::new();
    let mut lengths = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        let lines = untested(&text).len();
        lengths.push(lines);
        if lines > 500 {
            long.push(format!("src/{file}: {lines} lines without its tests"));
        }
    }
    assert!(long.is_empty(), "over 500:\n{}", long.join("\n"));
    lengths.sort_unstable();
    assert!(
        lengths[lengths.len() / 2] <= 260,
        "median {}",
        lengths[lengths.len() / 2]
    );
}

#[test]
fn every_module_says_what_it_is() {
    let mut silent = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        let head: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
        if head.join(" ").len() < 60 {
            silent.push(format!("src/{file}"));
        }
    }
    assert!(
        silent.is_empty(),
        "no word at the top of:\n{}",
        silent.join("\n")
    );
}

#[test]
fn the_map_in_lib_rs_is_true() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut map = BTreeSet::new();
    for line in text.lines().filter(|l| l.starts_with("//!")) {
        for word in line.split(|c: char| c.is_whitespace() || c == '`' || c == ',') {
            if word.ends_with(".rs") || (word.ends_with('/') && word.len() > 2) {
                map.insert(word.to_owned());
            }
        }
    }
    let mut real = BTreeSet::new();
    for (file, _) in sources(&root().join("src")) {
        real.insert(file.rsplit('/').next().unwrap().to_owned());
        let parts: Vec<&str> = file.split('/').collect();
        for folder in &parts[..parts.len() - 1] {
            real.insert(format!("{folder}/"));
        }
    }
    let folders: BTreeSet<&String> = real.iter().filter(|n| n.ends_with('/')).collect();
    let missing: Vec<_> = folders
        .iter()
        .filter(|f| !map.contains(f.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "folders that the map does not name: {missing:?}"
    );
    let gone: Vec<_> = map.iter().filter(|n| !real.contains(n.as_str())).collect();
    assert!(gone.is_empty(), "the map names what is not there: {gone:?}");
}

#[test]
fn names_say_what_things_are() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        for (line, content) in code(&text) {
            for banned in [
                "fn get_",
                "mod util",
                "mod helper",
                "mod common",
                "Manager",
                "struct I",
            ] {
                let hit = match banned {
                    "struct I" => content
                        .split("struct I")
                        .nth(1)
                        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())),
                    _ => content.contains(banned),
                };
                if hit {
                    wrong.push(format!("src/{file}:{line}: {banned}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
