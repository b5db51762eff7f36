//! What the compiler does not hold: who may import whom, that no files lead to each other in a circle, what stays pure, how long a
//! file may be and how much code a module, that the map in `src/lib.rs` is true, and that words keep their meaning. `src/lib.rs`
//! explains the rules.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::case_sensitive_file_extension_comparisons
)]

#[path = "tidy/paths.rs"]
mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The layers, lowest first. A module imports only from lower rows, or from itself.
const ROWS: &[&[&str]] = &[
    &["mail", "secret", "systemd", "watch"],
    &["old_tls"],
    &["policy", "route", "telemetry"],
    &["smtp", "queue", "window"],
    &["listener", "connector"],
    &["delivery"],
    &["view"],
    &["incident"],
    &["admin"],
    &["config"],
    &["gateway"],
    &["cli"],
    // The map, and what starts `cli`.
    &["lib", "main"],
];

/// Files and folders that hold decisions: no runtime, no clock, no environment, no files.
const PURE: &[&str] = &[
    "mail/",
    "policy/",
    "route.rs",
    "smtp/",
    "delivery/plan.rs",
    "delivery/verdict.rs",
    "delivery/look.rs",
    "delivery/lanes/gate.rs",
    "delivery/lanes/window.rs",
    "delivery/lanes/probes.rs",
    "delivery/lanes/strangers.rs",
    "delivery/clock.rs",
    "connector/oauth/rotation.rs",
    "delivery/members/",
    "queue/turns.rs",
    "incident/book",
    "incident/catalogue.rs",
    "incident/shown.rs",
    "gateway/watcher/conditions",
    "cli/import/",
];

/// What a decision asks nobody for.
const IMPURE: &[&str] = &[
    "tokio",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
];

/// The same, of what is not a path from its root.
const IMPURE_WORDS: &[&str] = &[
    "async ",
    ".await",
    "SystemTime::now",
    "Instant::now",
    ".elapsed()",
];

/// Lines of code, without tests, comments and blank lines, that a module may have. One that needs more says why in the commit that
/// raises its row; one that has become smaller may have its row lowered.
const BUDGETS: &[(&str, usize)] = &[
    ("mail", 3_310),
    ("old_tls", 420),
    ("secret", 50),
    ("systemd", 50),
    ("policy", 2_260),
    ("route", 200),
    ("telemetry", 1_930),
    ("smtp", 5_520),
    ("queue", 15_600),
    ("listener", 4_860),
    ("connector", 12_400),
    ("delivery", 7_220),
    ("view", 960),
    ("incident", 1_560),
    ("window", 1_360),
    ("admin", 9_400),
    ("config", 10_640),
    ("watch", 50),
    ("gateway", 6_110),
    ("cli", 14_760),
    ("lib", 50),
    ("main", 50),
];

/// Type names that every module may have for its own.
const EVERYWHERE: &[&str] = &["Settings", "Arguments"];

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

fn top_module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Every file with its paths.
fn crate_paths() -> Vec<(String, Vec<paths::Path>)> {
    sources(&root().join("src"))
        .into_iter()
        .map(|(file, text)| (file, paths::paths(code(&text))))
        .collect()
}

#[test]
fn modules_import_only_from_lower_rows() {
    let files = crate_paths();
    let tree = paths::Crate::new(files.iter().cloned());
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, found) in &files {
        let module = top_module(file);
        let Some(own) = row_of(module) else {
            wrong.push(format!("src/{file}: `{module}` has no row"));
            continue;
        };
        for path in found {
            let target = tree.absolute(&paths::module_of(file), &path.segments);
            let Some(name) = target.as_ref().and_then(|target| target.first()) else {
                continue;
            };
            seen += 1;
            if name != module && row_of(name).is_some_and(|row| row >= own) {
                let line = path.line;
                wrong.push(format!(
                    "src/{file}:{line}: `{module}` may not import `{name}`"
                ));
            }
        }
    }
    assert!(seen > 1000, "imports were recognised ({seen})");
    assert!(
        wrong.is_empty(),
        "upward or sideways imports:\n{}",
        wrong.join("\n")
    );
}

/// A type that a `mod.rs` and its files share stands in a file of its own.
#[test]
fn files_lead_to_each_other_in_no_circle() {
    let graph = paths::Crate::new(crate_paths().into_iter()).graph();
    let wrong: Vec<String> = paths::circles(&graph)
        .iter()
        .map(|group| {
            let way = paths::circle(&graph, group.first().unwrap()).unwrap();
            format!("{}\n  (all of it: {group:?})", way.join(" → "))
        })
        .collect();
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
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

/// The files that call a method of this name on one of these.
fn callers(of: &[&str], method: &str) -> BTreeSet<String> {
    let calls: Vec<String> = of.iter().map(|of| format!("{of}.{method}(")).collect();
    sources(&root().join("src"))
        .into_iter()
        .filter(|(_, text)| {
            let mut lines = code(text);
            lines.any(|(_, line)| calls.iter().any(|call| line.contains(call)))
        })
        .map(|(file, _)| file)
        .collect()
}

/// Invariant 3 of `src/lib.rs`.
#[test]
fn only_listener_and_delivery_insert_and_connectors_see_neither_queue_nor_routes() {
    for (of, method, known) in [
        (&["queue"][..], "accept", &["listener/intake.rs"][..]),
        (&["store"], "insert", &["queue/mod.rs"]),
        (
            &["connector"],
            "deliver",
            &[
                "delivery/attempt.rs",
                "gateway/report/trial.rs",
                "gateway/watcher/post.rs",
            ],
        ),
        (
            &["connector"],
            "probe",
            &[
                "connector/examine.rs",
                "delivery/login.rs",
                "gateway/report/login.rs",
            ],
        ),
    ] {
        let found: Vec<String> = callers(of, method).into_iter().collect();
        assert_eq!(found, known, "{of:?}.{method}");
    }
    let files = crate_paths();
    let tree = paths::Crate::new(files.iter().cloned());
    let mut names = BTreeSet::new();
    for (file, found) in files.iter().filter(|(f, _)| f.starts_with("connector/")) {
        for path in found {
            let target = tree.absolute(&paths::module_of(file), &path.segments);
            let target = target.unwrap_or_default();
            assert!(
                target.first().is_none_or(|module| module != "queue"),
                "src/{file}:{}: {}",
                path.line,
                path.text()
            );
            if target.first().is_some_and(|module| module == "route") {
                names.extend(target.get(1).cloned());
            }
        }
    }
    let known = ["ConnectorName", "LaneId"].map(str::to_owned);
    assert_eq!(names, known.into(), "what connectors know of routes");
}

/// Invariant 7 of `src/lib.rs`: what is shared is passed on.
#[test]
fn there_is_no_static_but_the_allocator() {
    let mut found = Vec::new();
    for (file, text) in sources(&root().join("src")) {
        for (_, line) in code(&text) {
            let mut words = line.split_whitespace();
            if words.any(|word| word == "static" || word == "thread_local!") {
                found.push((file.clone(), line.to_owned()));
            }
        }
    }
    assert!(
        found.len() == 1 && found[0].0 == "main.rs",
        "statics: {found:?}"
    );
}

#[test]
fn decisions_are_pure() {
    let mut wrong = Vec::new();
    let mut unseen: BTreeSet<&str> = PURE.iter().copied().collect();
    for (file, text) in sources(&root().join("src")) {
        let Some(pure) = PURE.iter().find(|pure| file.starts_with(**pure)) else {
            continue;
        };
        unseen.remove(pure);
        for path in paths::paths(code(&text)) {
            let line = path.line;
            let path = path.text();
            if IMPURE.iter().any(|word| path.starts_with(word)) {
                wrong.push(format!("src/{file}:{line}: {path}"));
            }
        }
        for (line, content) in code(&text) {
            for word in IMPURE_WORDS.iter().filter(|word| content.contains(**word)) {
                wrong.push(format!("src/{file}:{line}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
    assert!(
        unseen.is_empty(),
        "in PURE, but not in the tree: {unseen:?}"
    );
}

#[test]
fn modules_keep_to_their_budgets() {
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for (file, text) in sources(&root().join("src")) {
        let lines = code(&text).filter(|(_, line)| !line.trim().is_empty());
        *sizes.entry(top_module(&file).to_owned()).or_default() += lines.count();
    }
    let budgets: BTreeMap<&str, usize> = BUDGETS.iter().copied().collect();
    let over: Vec<String> = sizes
        .iter()
        .filter(|(module, lines)| {
            budgets
                .get(module.as_str())
                .is_none_or(|most| *lines > most)
        })
        .map(|(module, lines)| {
            let most = budgets.get(module.as_str());
            format!("{module}: {lines} lines of code, its budget is {most:?}")
        })
        .collect();
    assert!(over.is_empty(), "{}", over.join("\n"));
    let gone: Vec<&&str> = budgets
        .keys()
        .filter(|module| !sizes.contains_key(**module))
        .collect();
    assert!(gone.is_empty(), "budgets of no module: {gone:?}");
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

/// The name of the type that a line begins to define, if it does.
fn defined(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(public) = rest.strip_prefix("pub") {
        let limited = public.strip_prefix('(').and_then(|p| p.split_once(')'));
        rest = limited.map_or(public, |(_, rest)| rest).trim_start();
    }
    let (keyword, rest) = rest.split_once(' ')?;
    // One that is indented belongs to a trait.
    let is_alias = keyword == "type" && !line.starts_with(' ');
    if !is_alias && !matches!(keyword, "struct" | "enum" | "union" | "trait") {
        return None;
    }
    rest.split(|c: char| !c.is_alphanumeric()).next()
}

#[test]
fn a_type_name_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in sources(&root().join("src")) {
        for name in code(&text).filter_map(|(_, line)| defined(line)) {
            places
                .entry(name.to_owned())
                .or_default()
                .push(file.clone());
        }
    }
    assert!(
        places.len() > 300,
        "types were recognised ({})",
        places.len()
    );
    let mut wrong = Vec::new();
    for (name, files) in places.iter().filter(|(_, files)| files.len() > 1) {
        if !EVERYWHERE.contains(&&**name) {
            wrong.push(format!("`{name}` means more than one thing: {files:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
