//! Reads which file of the crate names which: every `use` and every other path, in macros too.
//!
//! A path counts for the file where its item stands: one that a `mod.rs` only passes on (`pub use`) is followed. A module that is
//! imported counts by what is taken through it. What a method call leads to is not seen.

#![allow(unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The files, by their names below `src`, and which other files each of them names.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// A path as it is written, groups of a `use` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub line: usize,
    pub segments: Vec<String>,
    /// What a `use` makes of it: the name by which the file knows it, `*` for all.
    pub imported_as: Option<String>,
}

impl Path {
    pub fn text(&self) -> String {
        self.segments.join("::")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Sign(char),
}

/// Words and signs with their lines; comments and what stands in quotes left out.
fn tokens<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<(usize, Token)> {
    let mut text: Vec<(usize, char)> = Vec::new();
    for (number, line) in lines {
        text.extend(line.chars().map(|c| (number, c)));
        text.push((number, '\n'));
    }
    let at = |index: usize| text.get(index).map_or('\0', |(_, c)| *c);
    let mut found = Vec::new();
    let mut here = 0;
    while let Some(&(line, c)) = text.get(here) {
        here += 1;
        match c {
            '/' if at(here) == '/' => {
                while !matches!(at(here), '\n' | '\0') {
                    here += 1;
                }
            }
            '/' if at(here) == '*' => {
                while here < text.len() && (at(here), at(here + 1)) != ('*', '/') {
                    here += 1;
                }
                here += 2;
            }
            '"' => {
                while !matches!(at(here), '"' | '\0') {
                    here += if at(here) == '\\' { 2 } else { 1 };
                }
                here += 1;
            }
            // A character, `'a'` or `'\n'`; else a lifetime.
            '\'' if at(here) == '\\' => {
                here += 2;
                while !matches!(at(here), '\'' | '\0') {
                    here += 1;
                }
                here += 1;
            }
            '\'' if at(here + 1) == '\'' => here += 2,
            ':' if at(here) == ':' => {
                here += 1;
                found.push((line, Token::Colons));
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while at(here).is_alphanumeric() || at(here) == '_' {
                    word.push(at(here));
                    here += 1;
                }
                let hashes = text[here..].iter().take_while(|(_, c)| *c == '#').count();
                if matches!(&*word, "r" | "br") && at(here + hashes) == '"' {
                    here += hashes + 1;
                    let ends = |from: usize| {
                        at(from) == '"' && (1..=hashes).all(|more| at(from + more) == '#')
                    };
                    while here < text.len() && !ends(here) {
                        here += 1;
                    }
                    here += hashes + 1;
                } else {
                    found.push((line, Token::Word(word)));
                }
            }
            c if c.is_whitespace() => {}
            c => found.push((line, Token::Sign(c))),
        }
    }
    found
}

/// Every path of two segments or more, and all of a `use`.
pub fn paths<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Path> {
    let tokens = tokens(lines);
    let mut found = Vec::new();
    let mut here = 0;
    while let Some((line, token)) = tokens.get(here) {
        here += 1;
        let Token::Word(word) = token else { continue };
        let before = here.checked_sub(2).and_then(|index| tokens.get(index));
        // `use<'a>` of a bound names no path.
        let is_import = word == "use" && !matches!(tokens.get(here), Some((_, Token::Sign('<'))));
        if is_import {
            tree(&tokens, &mut here, &[], &mut found);
            continue;
        }
        if matches!(before, Some((_, Token::Colons | Token::Sign('.')))) {
            continue;
        }
        let mut segments = vec![word.clone()];
        while let (Some((_, Token::Colons)), Some((_, Token::Word(next)))) =
            (tokens.get(here), tokens.get(here + 1))
        {
            segments.push(next.clone());
            here += 2;
        }
        if segments.len() > 1 {
            let line = *line;
            found.push(Path {
                line,
                segments,
                imported_as: None,
            });
        }
    }
    found
}

/// One branch of a `use`, up to and without what ends it.
fn tree(tokens: &[(usize, Token)], here: &mut usize, above: &[String], found: &mut Vec<Path>) {
    let mut segments = above.to_vec();
    let mut name = None;
    let mut line = 0;
    while let Some((number, token)) = tokens.get(*here) {
        *here += 1;
        match token {
            Token::Word(word) if word == "as" => {
                if let Some((_, Token::Word(alias))) = tokens.get(*here) {
                    name = Some(alias.clone());
                    *here += 1;
                }
            }
            Token::Word(word) => {
                // `{self}` is the module before it.
                if word != "self" || segments.is_empty() {
                    segments.push(word.clone());
                }
                line = *number;
            }
            Token::Sign('*') => {
                name = Some("*".into());
                line = *number;
            }
            Token::Colons => {}
            Token::Sign('{') => {
                while !matches!(tokens.get(*here), None | Some((_, Token::Sign('}')))) {
                    tree(tokens, here, &segments, found);
                    if matches!(tokens.get(*here), Some((_, Token::Sign(',')))) {
                        *here += 1;
                    }
                }
                *here += 1;
                return;
            }
            Token::Sign(_) => {
                *here -= 1;
                break;
            }
        }
    }
    if let Some(last) = segments.last() {
        let imported_as = name.or_else(|| Some(last.clone()));
        found.push(Path {
            line,
            segments,
            imported_as,
        });
    }
}

/// The module that a file is: `a/mod.rs` and `a.rs` are `a`, `lib.rs` is the root.
pub fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

/// A file with its paths.
struct Source {
    file: String,
    paths: Vec<Path>,
}

/// The crate's files by their modules.
pub struct Crate(BTreeMap<Vec<String>, Source>);

impl Crate {
    pub fn new(files: impl Iterator<Item = (String, Vec<Path>)>) -> Self {
        Self(
            files
                .map(|(file, paths)| (module_of(&file), Source { file, paths }))
                .collect(),
        )
    }

    /// The path from the root of the crate; `None`: it leads out of it.
    pub fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        self.absolute_within(module, path, 8)
    }

    fn absolute_within(
        &self,
        module: &[String],
        path: &[String],
        steps: usize,
    ) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut from = match first.as_str() {
            "crate" | "postern" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let child = [module, &[name.to_owned()]].concat();
                if self.0.contains_key(&child) {
                    child
                } else {
                    let import = self.import(module, name)?;
                    // An import that names itself is of another crate: `use bytes;`.
                    let steps = steps.checked_sub(1)?;
                    self.absolute_within(module, &import.segments, steps)?
                }
            }
        };
        for segment in rest {
            if segment == "super" {
                from.pop()?;
            } else {
                from.push(segment.clone());
            }
        }
        Some(from)
    }

    fn import(&self, module: &[String], name: &str) -> Option<&Path> {
        let paths = &self.0.get(module)?.paths;
        paths
            .iter()
            .find(|path| path.imported_as.as_deref() == Some(name) && path.segments != [name])
    }

    /// The file that holds what a path from the root leads to; `None` for a module itself.
    fn holder(&self, path: &[String], steps: usize) -> Option<&str> {
        let deepest = (0..=path.len())
            .rev()
            .find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, item) = path.split_at(deepest);
        let source = self.0.get(module)?;
        let (name, rest) = item.split_first()?;
        let passed_on = self
            .import(module, name)
            .filter(|_| steps > 0)
            .and_then(|import| self.absolute_within(module, &import.segments, steps))
            .and_then(|target| self.holder(&[&target[..], rest].concat(), steps - 1));
        Some(passed_on.unwrap_or(&source.file))
    }

    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, source) in &self.0 {
            let named = source.paths.iter().filter_map(|path| {
                let mut target = self.absolute(module, &path.segments)?;
                if path.imported_as.as_deref() == Some("*") {
                    target.push("*".into());
                }
                self.holder(&target, 8)
            });
            let others = named.filter(|file| *file != source.file);
            graph.insert(source.file.clone(), others.map(str::to_owned).collect());
        }
        graph
    }
}

/// The shortest way from a file back to itself.
pub fn circle(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for next in graph.get(here)? {
            if next == start {
                let mut way = vec![start.to_owned()];
                let mut last = here;
                while last != start {
                    way.push(last.to_owned());
                    last = came_from[last];
                }
                way.push(start.to_owned());
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The files that lead to each other, each group sorted; groups of one are none.
pub fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(here) = open.pop() {
            for next in graph.get(here).into_iter().flatten() {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|file| (file.as_str(), reach(file)))
        .collect();
    let mut groups = BTreeSet::new();
    for (file, seen) in &reached {
        let group: BTreeSet<String> = seen
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .map(|&other| other.to_owned())
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn read(text: &str) -> Vec<Path> {
    paths((1..).zip(text.lines()))
}

#[test]
fn a_path_is_read_wherever_it_stands() {
    let text = "use std::{fs, io::{self, Read as _}};\npub(crate) use self::a::{b::C, d::*, e as f};\n\
                // use crate::comment;\nlet s = \"crate::text\"; let c = '\"'; let r = r#\"crate::\"raw\"#;\n\
                fn g<'a>(x: &'a super::T) -> impl Sized + use<'a> { m!(crate::h::i(), x.k::<J>()) }\n\
                /* crate::block */ let y = K::<L>::new(M::N::o);\n";
    let seen: Vec<String> = read(text)
        .iter()
        .map(|path| {
            let name = path.imported_as.as_ref();
            let name = name.map_or(String::new(), |name| format!(" as {name}"));
            format!("{} {}{name}", path.line, path.text())
        })
        .collect();
    let expected = [
        "1 std::fs as fs",
        "1 std::io as io",
        "1 std::io::Read as _",
        "2 self::a::b::C as C",
        "2 self::a::d as *",
        "2 self::a::e as f",
        "5 super::T",
        "5 crate::h::i",
        "6 M::N::o",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_circle_is_seen_through_parents_and_what_they_pass_on() {
    let tree = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(file, text)| ((*file).to_owned(), read(text)));
        Crate::new(files).graph()
    };
    let names = |graph: &Graph| -> Vec<String> {
        circles(graph)
            .iter()
            .map(|group| group.iter().cloned().collect::<Vec<_>>().join(" "))
            .collect()
    };
    // A child that takes from its parent, which uses it.
    let graph = tree(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; mod c; pub struct T; fn f() { b::g(); }"),
        ("a/b.rs", "use super::T; pub fn g() {}"),
        ("a/c.rs", "use crate::a; fn h(x: a::T) {}"),
    ]);
    assert_eq!(names(&graph), ["a/b.rs a/mod.rs"]);
    assert_eq!(
        circle(&graph, "a/b.rs").unwrap(),
        ["a/b.rs", "a/mod.rs", "a/b.rs"]
    );
    // What the parent only passes on is its child's; a module alone is nothing.
    let graph = tree(&[
        ("lib.rs", ""),
        (
            "a.rs",
            "mod b; mod c; pub use c::{T as U, V}; fn f() { b::g(); }",
        ),
        (
            "a/b.rs",
            "use super::{U, c}; use crate::a; fn g(x: a::V) {}",
        ),
        ("a/c.rs", "pub struct T; use tokio::c;"),
    ]);
    assert_eq!(names(&graph), [""; 0]);
    assert_eq!(graph["a/b.rs"], BTreeSet::from(["a/c.rs".to_owned()]));
    // A circle of three, and all of a module.
    let graph = tree(&[
        ("a.rs", "use crate::b::*;"),
        ("b.rs", "use crate::c; fn f() { c::g() }"),
        ("c.rs", "fn g() { crate::a::h() }"),
        ("d.rs", "use crate::a::h;"),
    ]);
    assert_eq!(names(&graph), ["a.rs b.rs c.rs"]);
    assert_eq!(
        circle(&graph, "a.rs").unwrap(),
        ["a.rs", "b.rs", "c.rs", "a.rs"]
    );
}
