//! Every file of `tests/dialogues`, `tests/config` and `tests/messages` is a test with its own name.
//!
//! `cargo test --test files dialogue_starttls` plays `tests/dialogues/starttls.smtp` alone; a shorter word runs every test that has
//! it in its name. A binary of its own, so that one dialogue is linked and run in a few seconds. What a test is made of stands in its
//! file: no test here is written in Rust.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]
#![allow(unreachable_pub)]

#[path = "../fixture/mod.rs"]
mod fixture;

mod config;
mod dialogues;
mod messages;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Trial};

/// A folder below `tests`, how its files end, how few of them would mean that they were not found, and what each has to pass.
struct Folder {
    path: &'static str,
    extension: &'static str,
    least: usize,
    prefix: &'static str,
    test: fn(&Path),
}

const FOLDERS: &[Folder] = &[
    Folder {
        path: "dialogues",
        extension: "smtp",
        least: 100,
        prefix: "dialogue",
        test: dialogues::plays_three_ways,
    },
    Folder {
        path: "config/good",
        extension: "toml",
        least: 5,
        prefix: "config_good",
        test: config::loads_without_a_word,
    },
    Folder {
        path: "config/bad",
        extension: "toml",
        least: 90,
        prefix: "config_bad",
        test: config::is_refused_with_exactly_this_answer,
    },
    Folder {
        path: "config/warned",
        extension: "toml",
        least: 9,
        prefix: "config_warned",
        test: config::loads_with_exactly_this_warning,
    },
    Folder {
        path: "messages",
        extension: "eml",
        least: 8,
        prefix: "message",
        test: messages::leaves_as_written,
    },
];

fn files(folder: &Folder) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder.path);
    let mut files: Vec<PathBuf> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == folder.extension))
        .collect();
    files.sort();
    let count = files.len();
    assert!(count >= folder.least, "{}: {count} files", path.display());
    files
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut tests = Vec::new();
    for folder in FOLDERS {
        for file in files(folder) {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let name = format!("{}_{}", folder.prefix, name.replace('-', "_"));
            let test = folder.test;
            tests.push(Trial::test(name, move || {
                test(&file);
                Ok(())
            }));
        }
    }
    // A whole name means that test, and not those whose names go on.
    arguments.exact |= tests
        .iter()
        .any(|test| Some(test.name()) == arguments.filter.as_deref());
    libtest_mimic::run(&arguments, tests).exit_code()
}
