//! The text as it may be shown, and what a change does to it, line by line.
//!
//! Masked are values of keys that hold secrets, hashes, and logins inside URLs; in comments everything that looks like one of them.

use std::ops::Range;

use similar::TextDiff;
use toml_edit::Value;

use super::{layout::Layout, lexis, model::PathPart, render::inside, rules::has_login};
use crate::config::{
    diagnostic::{holds_secret, masks},
    secrecy,
};

/// Its comments speak of passwords and hold none: one that stands there word by word is shown.
const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// The text with `"***"` in the place of every secret. `None`: it does not parse, and nobody knows what in it is a secret.
pub fn masked(text: &str) -> Option<String> {
    let (mark, body) = split_mark(text);
    let layout = Layout::new(body).ok()?;
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    for piece in &layout.pieces {
        let mut section = String::new();
        for part in &piece.path {
            if let PathPart::Key(key) = part {
                section = inside(&section, key);
            }
        }
        for pair in &piece.pairs {
            let mut section = section.clone();
            let mut is_hidden = false;
            for key in &pair.key {
                is_hidden |= is_secret(&section, key);
                section = inside(&section, key);
            }
            value(body, &pair.value, &section, is_hidden, &mut found);
        }
    }
    comments(body, &mut found);
    found.sort_by_key(|(range, _)| range.start);
    let mut shown = String::from(mark);
    let mut from = 0;
    for (range, by) in found {
        // A comment inside a value that is masked as a whole.
        if range.start < from {
            continue;
        }
        shown.push_str(body.get(from..range.start).unwrap_or_default());
        shown.push_str(&by);
        from = range.end;
    }
    shown.push_str(body.get(from..).unwrap_or_default());
    Some(shown)
}

/// A text and the mark of UTF-8 before it.
pub(super) fn split_mark(text: &str) -> (&str, &str) {
    let length = if text.starts_with('\u{feff}') { 3 } else { 0 };
    text.split_at_checked(length).unwrap_or(("", text))
}

fn is_secret(section: &str, key: &str) -> bool {
    secrecy::is_secret(section, key) || holds_secret(key)
}

/// The secrets in a value. Of a hidden one everything is one but where the secret is.
fn value(
    text: &str,
    value: &Value,
    section: &str,
    is_hidden: bool,
    found: &mut Vec<(Range<usize>, String)>,
) {
    match value {
        Value::Array(list) => {
            for item in list {
                self::value(text, item, section, is_hidden, found);
            }
        }
        Value::InlineTable(table) => {
            for (key, inner) in table {
                let is_place = ["env", "file", "credential"].contains(&key);
                let is_hidden = (is_hidden || is_secret(section, key)) && !is_place;
                self::value(text, inner, &inside(section, key), is_hidden, found);
            }
        }
        scalar => {
            let Some(span) = scalar.span() else {
                return;
            };
            let said = scalar.as_str().unwrap_or_default();
            if is_hidden || is_hash(said) {
                found.push((span, "\"***\"".to_owned()));
            } else if has_login(said) {
                let raw = text.get(span.clone()).unwrap_or_default();
                let token = login(raw).map_or_else(
                    || "\"***\"".to_owned(),
                    |login| super::regions::replace(raw, &login, "***"),
                );
                found.push((span, token));
            }
        }
    }
}

fn is_hash(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("$argon2")
        || text.strip_prefix("sha256:").is_some_and(|hash| {
            hash.len() >= 64 && hash.bytes().take(64).all(|octet| octet.is_ascii_hexdigit())
        })
}

/// The login of a URL in a text.
fn login(text: &str) -> Option<Range<usize>> {
    let start = text.find("://")? + 3;
    let end = text.rfind('@').filter(|end| *end >= start)?;
    Some(start..end)
}

/// What looks like a secret in comments; one may be opened with three quotes and go on in the next.
fn comments(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    let mut is_inside = false;
    let mut last = 0;
    for range in lexis::comments(text) {
        // Only comments on lines of their own that follow each other belong together.
        let between = text.get(last..range.start).unwrap_or_default();
        is_inside &= between.trim().is_empty() && between.matches('\n').count() == 1;
        last = range.end;
        let Some(comment) = text
            .get(range.clone())
            .and_then(|text| text.strip_prefix('#'))
        else {
            continue;
        };
        let quotes = comment.matches("\"\"\"").count() + comment.matches("'''").count();
        let was_inside = is_inside;
        is_inside ^= quotes % 2 == 1;
        let from = range.start + 1;
        if was_inside {
            found.push((from..range.end, "***".to_owned()));
            continue;
        }
        let octet = |at: usize| {
            let found = comment.char_indices().nth(at).map(|(octet, _)| octet);
            from + found.unwrap_or(comment.len())
        };
        let chars: Vec<char> = comment.chars().collect();
        let words = comment.split_inclusive(|c: char| c.is_whitespace() || "\"',=".contains(c));
        let mut at = from;
        let line = text.get(lexis::line_start(text, range.start)..range.end);
        let masks = if EXAMPLE.lines().any(|known| Some(known) == line) {
            Vec::new()
        } else {
            masks(&chars)
        };
        let mut own: Vec<Range<usize>> = masks
            .iter()
            .map(|mask| octet(mask.start)..octet(mask.end))
            .collect();
        for word in words {
            let bare = word.trim_end_matches(|c: char| c.is_whitespace() || "\"',=".contains(c));
            if is_hash(bare) {
                // What follows a comma in a hash of Argon2 is still the hash.
                own.push(at..range.end);
            }
            at += word.len();
        }
        own.extend(login(comment).map(|login| from + login.start..from + login.end));
        own.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in own {
            if range.end <= end {
                continue;
            }
            found.push((range.start.max(end)..range.end, "***".to_owned()));
            end = range.end;
        }
    }
}

/// What becomes of a text, as a unified diff with its secrets masked. Empty: nothing. `None`: one of them does not parse.
pub fn diff(before: &str, after: &str, name: &str) -> Option<String> {
    let (before, after) = (masked(before)?, masked(after)?);
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    let diff = diff
        .unified_diff()
        .context_radius(3)
        .header(name, name)
        .to_string();
    Some(diff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let text = concat!(
            "\u{feff}# password = \"hunter2\"\r\n",
            "# password = { env = \"PW\" }\r\n",
            "# proxy = \"http://me:hunter2@proxy:3128\" # x\n",
            "#password = '''\n# hunter2\n#'''\n",
            "# \"$argon2id$v=19$m=1,t=2,p=1$hunter2\"\n",
            "[[user]]\nname = \"a\"\npassword = \"$argon2id$hunter2\" # hunter\n",
            "[[connector]]\nname = \"b\" # password: hunter2\n\"password\" = \"\"\"\nhunter2\nx\"\"\"\n",
            "proxy = \"http://me:hunter2@proxy:3128\"\n",
            "oauth.client_secret = 'hunter2'\n",
            "oauth.refresh_token = { file = \"/x\" }\n",
            "pasword = [\"hunter2\", 5]\n",
            "x = { password = 'hunter2', hash = \"sha256:{HASH}\" }\n",
            "proxy2 = \"http://me:hunter2\\u0040proxy\"\n",
            "[connector.oauth2]\nclient_secret = \"hunter2\"\n",
        );
        let shown = masked(text).unwrap();
        assert!(
            !shown.replace("hash = \"sha256", "").contains("hunter2\""),
            "{shown}"
        );
        let expected = concat!(
            "\u{feff}# password = ***\r\n",
            "# password = { env = \"PW\" }\r\n",
            "# proxy = \"http://***@proxy:3128\" # x\n",
            "#password = ***\n#***\n#***\n",
            "# \"***\n",
            "[[user]]\nname = \"a\"\npassword = \"***\" # hunter\n",
            "[[connector]]\nname = \"b\" # password: ***\n\"password\" = \"***\"\n",
            "proxy = \"http://***@proxy:3128\"\n",
            "oauth.client_secret = \"***\"\n",
            "oauth.refresh_token = { file = \"/x\" }\n",
            "pasword = [\"***\", \"***\"]\n",
        );
        assert!(shown.starts_with(expected), "{shown}");
        assert!(masked("password = ").is_none());
    }

    #[test]
    fn the_example_is_shown_as_it_is() {
        let shown = masked(EXAMPLE).unwrap();
        let lines = EXAMPLE.lines().zip(shown.lines());
        let other: Vec<_> = lines.filter(|(line, shown)| line != shown).collect();
        assert!(
            other
                .iter()
                .all(|(line, _)| ["$argon2id$", "\"sha256:", "user:password@"]
                    .iter()
                    .any(|secret| line.contains(secret))),
            "{other:?}"
        );
        assert_eq!(other.len(), 5);
        assert!(!shown.contains("$argon2id$"));
    }
}
