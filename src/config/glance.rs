//! Where the queue is, from a file that may be wrong elsewhere: looking after mail needs no more than `data_dir`.
//!
//! `load` takes all or nothing. What is found here runs no gateway.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    file::{LARGEST, read_bounded},
    keys::DATA_DIR,
    load::load,
    settings::{Config, Secrets},
};

/// What a look at the file gave.
#[derive(Debug)]
pub struct Glance {
    /// The settings with warnings and notes, or everything that is wrong.
    pub loaded: Result<(Config, Vec<Diagnostic>), Diagnostics>,
    /// `data_dir`, also of a file with errors. `None`: it cannot be known.
    pub data_dir: Option<PathBuf>,
}

/// Reads the file as far as it can be read; secrets are not looked at.
pub fn glance(path: &Path) -> Glance {
    let loaded = load(path, Secrets::Ignore);
    let data_dir = match &loaded {
        Ok((config, _)) => Some(config.data_dir.clone()),
        Err(_) => read_bounded(path, LARGEST).ok().and_then(|octets| {
            let base = path.parent().unwrap_or(Path::new(""));
            data_dir(&String::from_utf8_lossy(&octets)).map(|found| base.join(found))
        }),
    };
    Glance { loaded, data_dir }
}

/// The value of `data_dir`, or its default where the key is nowhere. `None`: there is a key whose value cannot be read.
fn data_dir(text: &str) -> Option<PathBuf> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (root, _) = DeTable::parse_recoverable(text);
    if let Some(value) = root.get_ref().get("data_dir")
        && let DeValue::String(value) = value.get_ref()
        && !value.is_empty()
    {
        return Some(value.as_ref().into());
    }
    // Behind a slip of the pen the parser may have seen nothing of it, below a section it is in the wrong place, and the key
    // itself may be misspelt; what was meant is plain.
    let mut written = text.lines().filter_map(assignment).peekable();
    if written.peek().is_none() {
        return Some(DATA_DIR.into());
    }
    written.find(|value| !value.is_empty()).map(PathBuf::from)
}

/// The value of a line that sets the key; empty when it cannot be read.
fn assignment(line: &str) -> Option<&str> {
    let (key, value) = line.split_once('=')?;
    let key: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if key != "datadir" || line.trim_start().starts_with('#') {
        return None;
    }
    let value = value.trim();
    let text = match value.chars().next() {
        // The other quote may be what is missing.
        Some(quote @ ('"' | '\'')) => value
            .strip_prefix(quote)
            .and_then(|rest| rest.split(quote).next()),
        _ => value.split('#').next(),
    };
    let text = text.unwrap_or_default().trim();
    let is_path = text.starts_with(['/', '.']) || is_name(text);
    Some(if is_path { text } else { "" })
}

/// A relative path without anything that could be more of the file.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().any(char::is_alphabetic)
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || "/._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_in_files_that_are_wrong() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(data_dir(text).as_deref(), expected.map(Path::new), "{text}");
        }
        for (text, expected) in [
            ("", DATA_DIR),
            ("hostname = \"x\"\n# data_dir = \"/no\"\n", DATA_DIR),
            ("data_dir = \"/q\"\n", "/q"),
            ("\u{feff}data_dir = '/q'\r\n", "/q"),
            ("data_dir = \"/\\u0071\"\nhostname = 5", "/q"),
            ("hostname = \ndata_dir = \"/q\"\n", "/q"),
            ("data_dir = \"/q\"\n[[listener\nname = 'x'\n", "/q"),
            ("[[listener\nname = 'x'\ndata_dir = \"/q\"\n", "/q"),
            ("hostname = \"x\ndata_dir = \"/q\"\n", "/q"),
            ("hostname = \"\"\"x\ndata_dir = \"/q\"\n", "/q"),
            ("data_dir = \"/q\n[log]\nlevel = 'info'\n", "/q"),
            ("data_dir = /q # here\n", "/q"),
            ("data_dir = data\n", "data"),
            ("\"data_dir\" = '/q'\n}", "/q"),
            ("data-dir = \"/q\"\n", "/q"),
            ("[log]\ndata_dir = \"/q\"\n", "/q"),
            ("data_dir = 5\ndata_dir = '/q'\n", "/q"),
        ] {
            check(text, Some(expected));
        }
        for text in [
            "data_dir = 5\n",
            "data_dir = \"\"\n",
            "data_dir =\n",
            "data_dir = [\"/q\"]\n",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_says_nothing() {
        let glance = glance(Path::new("/nonexistent/config.toml"));
        assert!(glance.loaded.is_err() && glance.data_dir.is_none());
    }
}
