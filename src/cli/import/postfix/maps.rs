//! Postfix' tables: `hash:/etc/postfix/transport` and its like, read from the text that the database was made of.
//!
//! Tables of rules (regexp, pcre, cidr) and those that are asked over a network are not read; who uses one is told so.

use super::{
    super::{files::NamedFiles, note::SourcePlace},
    main_cf::{logical_lines, words},
};
use crate::mail::unicode;

/// The key of `static:VALUE`, which has the value for every key.
pub(super) const EVERY_KEY: &str = "(every key)";
/// Every kind of table that Postfix has (postconf -m).
const KINDS: [&str; 32] = [
    "btree",
    "cdb",
    "cidr",
    "dbm",
    "environ",
    "fail",
    "hash",
    "inline",
    "internal",
    "ldap",
    "lmdb",
    "memcache",
    "mongodb",
    "mysql",
    "netinfo",
    "nis",
    "nisplus",
    "pcre",
    "pgsql",
    "pipemap",
    "proxy",
    "randmap",
    "regexp",
    "sdbm",
    "socketmap",
    "sqlite",
    "static",
    "tcp",
    "texthash",
    "unionmap",
    "unix",
    "debug",
];
/// No more entries of one table are read.
const MOST: usize = 20_000;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MapEntry {
    /// In lower case.
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: SourcePlace,
}

/// A table that is not read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnreadMap {
    pub(super) map: String,
    pub(super) why: String,
}

/// All entries of the tables of a list, in their order, and the tables that are not read. `fallback` is `default_database_type`.
pub(super) fn read(
    maps: &[String],
    fallback: &str,
    files: &dyn NamedFiles,
    place: Option<&SourcePlace>,
) -> (Vec<MapEntry>, Vec<UnreadMap>) {
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    for map in maps {
        let bare = map.strip_prefix("proxy:").unwrap_or(map);
        let (kind, rest) = match bare.split_once(':') {
            Some((kind, rest)) if !bare.starts_with('/') => (kind, rest),
            _ => (fallback, bare),
        };
        let shown = shown(kind, rest);
        let mut refuse = |why: String| {
            unread.push(UnreadMap {
                map: shown.clone(),
                why,
            });
        };
        match kind {
            "hash" | "lmdb" | "btree" | "dbm" | "cdb" | "sdbm" | "texthash" => {
                match files.text(rest) {
                    Ok(text) => entries.extend(of_text(&text, rest)),
                    Err(why) if !rest.is_empty() && !rest.starts_with('/') => {
                        refuse(why.replace(rest, "…"));
                    }
                    Err(why) => refuse(why),
                }
            }
            "inline" => entries.extend(of_braces(rest, place)),
            "static" => entries.push(MapEntry {
                key: EVERY_KEY.to_owned(),
                value: braceless(rest).to_owned(),
                place: place.cloned().unwrap_or_default(),
            }),
            _ if KINDS.contains(&kind) => {
                refuse(format!("tables of the kind {kind} are not read"));
            }
            _ => refuse("this is no table of a kind that Postfix has".to_owned()),
        }
        if entries.len() > MOST {
            entries.truncate(MOST);
            unread.push(UnreadMap {
                map: shown,
                why: format!("only its first {MOST} entries are read"),
            });
        }
    }
    (entries, unread)
}

/// The name of a table for people: only a path is one, all else may hold a password.
fn shown(kind: &str, rest: &str) -> String {
    let is_path =
        rest.starts_with('/') && !rest.contains(|c: char| c.is_whitespace() || "{}:@".contains(c));
    match (KINDS.contains(&kind), is_path) {
        (true, true) => format!("{kind}:{rest}"),
        (true, false) => format!("{kind}:…"),
        (false, _) => "…".to_owned(),
    }
}

fn of_text(text: &str, file: &str) -> Vec<MapEntry> {
    let lines = logical_lines(text).into_iter().take(MOST + 1);
    lines
        .filter_map(|(line, text)| {
            // A key in quotes may hold blanks; nobody's does here.
            let (key, value) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
            Some(MapEntry {
                key: unicode::lower(key.trim_matches('"')).into_owned(),
                value: value.trim().to_owned(),
                place: SourcePlace {
                    file: Some(file.to_owned()),
                    line,
                },
            })
            .filter(|entry| !entry.key.is_empty())
        })
        .collect()
}

fn braceless(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .map_or(text, str::trim)
}

/// `{ key=value, { key = value with blanks } }`.
fn of_braces(text: &str, place: Option<&SourcePlace>) -> Vec<MapEntry> {
    words(braceless(text))
        .into_iter()
        .take(MOST + 1)
        .filter_map(|word| {
            let word = word.trim_start_matches('{').trim_end_matches('}');
            let (key, value) = word.split_once('=')?;
            Some(MapEntry {
                key: unicode::lower(key.trim()).into_owned(),
                value: value.trim().to_owned(),
                place: place.cloned().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::super::files::tests::Shelf, *};

    fn check(map: &str, expected: &str) {
        let shelf = Shelf::of(&[("/t", "# c\nA@b.c  x:y\n z\n\n@d.e  f\n")]);
        let (entries, unread) = read(&[map.to_owned()], "hash", &shelf, None);
        let mut found: Vec<_> = entries
            .iter()
            .map(|e| format!("{}={}", e.key, e.value))
            .collect();
        found.extend(unread.iter().map(|one| format!("! {}", one.why)));
        assert_eq!(found.join(" | "), expected, "{map}");
    }

    #[test]
    fn tables() {
        for kind in ["hash:", "lmdb:", "texthash:", "proxy:hash:", ""] {
            check(&format!("{kind}/t"), "a@b.c=x:y z | @d.e=f");
        }
        check("inline:{ a=1, {b = 2 3} }", "a=1 | b=2 3");
        check("hash:/no", "! not there");
        check("static:a:b", "(every key)=a:b");
        for kind in ["regexp", "pcre", "ldap", "mysql", "pgsql", "sqlite"] {
            check(
                &format!("{kind}:/t"),
                &format!("! tables of the kind {kind} are not read"),
            );
        }
    }
}
