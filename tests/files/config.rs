//! Configuration files: those that load, those that do not, and exactly what is said about them.
//!
//! `POSTERN_BLESS=1` writes what is said now to the `.txt` beside the file; read it before it is committed.

use std::{fs, path::Path};

use postern::config::{self, Secrets};

use crate::fixture::environment;

pub fn loads_without_a_word(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    match config::parse(&text, file, Secrets::Resolve, &environment()) {
        Ok((_, notes)) => assert!(notes.is_empty(), "{notes:?}"),
        Err(why) => panic!("{why}"),
    }
}

pub fn is_refused_with_exactly_this_answer(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let Err(said) = config::parse(&text, name(file), Secrets::CheckOnly, &environment()) else {
        panic!("it loads");
    };
    compare(file, &said.to_string());
}

/// What is taken, and probably not meant.
pub fn loads_with_exactly_this_warning(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    match config::parse(&text, name(file), Secrets::CheckOnly, &environment()) {
        Ok((_, notes)) => compare(
            file,
            &notes.iter().map(ToString::to_string).collect::<String>(),
        ),
        Err(why) => panic!("{why}"),
    }
}

fn name(file: &Path) -> &Path {
    Path::new(file.file_name().unwrap())
}

fn compare(file: &Path, said: &str) {
    assert!(!said.is_empty(), "nothing is said");
    assert!(!said.contains("hunter2"), "{said}");
    let expected = file.with_extension("txt");
    if std::env::var_os("POSTERN_BLESS").is_some() {
        fs::write(&expected, said).unwrap();
    }
    let expected = fs::read_to_string(&expected).unwrap_or_default();
    assert!(expected == said, "said:\n{said}\nexpected:\n{expected}");
}
