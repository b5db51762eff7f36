//! Entries of inline tables and of lists: put in, taken out, moved, with their commas.

use std::ops::Range;

use toml_edit::Value;

use super::{
    lexis::{comma, line_start, newline, skip},
    regions::{cut, replace},
};

/// A list or an inline table: where its inside begins, and its entries.
#[derive(Debug)]
pub(super) struct Entries {
    open: usize,
    ranges: Vec<Range<usize>>,
    /// The keys of those of a table.
    keys: Vec<Vec<String>>,
}

impl Entries {
    /// Of a value; nothing of one that is neither.
    pub(super) fn of(text: &str, value: &Value) -> Option<Self> {
        let span = value.span()?;
        let open = span.start + 1;
        let mut found: Vec<(Vec<String>, Range<usize>)> = Vec::new();
        match value {
            Value::Array(list) => {
                found.extend(
                    list.iter()
                        .filter_map(|value| Some((Vec::new(), value.span()?))),
                );
            }
            Value::InlineTable(table) => leaves(table, &mut Vec::new(), &mut found),
            _ => return None,
        }
        found.sort_by_key(|(_, span)| span.start);
        let mut from = open;
        let (mut entries, mut keys) = (Vec::new(), Vec::new());
        for (key, span) in found {
            entries.push(skip(text, from)..span.end);
            keys.push(key);
            from = span.end;
        }
        Some(Self {
            open,
            ranges: entries,
            keys,
        })
    }

    /// Those with this key, or below it.
    pub(super) fn with_key(&self, key: &[String]) -> Vec<usize> {
        let keys = self.keys.iter().enumerate();
        keys.filter(|(_, own)| own.starts_with(key))
            .map(|(at, _)| at)
            .collect()
    }

    /// The text with an entry before that one, or behind all.
    pub(super) fn put(&self, text: &str, before: Option<usize>, entry: &str) -> String {
        let between = self.between(text);
        if let Some(next) = before.and_then(|at| self.ranges.get(at)) {
            return insert(text, next.start, &format!("{entry}{between}"));
        }
        match self.ranges.last() {
            Some(last) => insert(text, last.end, &format!("{between}{entry}")),
            None => insert(text, self.open, entry),
        }
    }

    /// What stands between two entries: a comma, and a line end where each has a line of its own.
    fn between(&self, text: &str) -> String {
        let Some(last) = self.ranges.last() else {
            return String::new();
        };
        let start = line_start(text, last.start);
        let indent = text.get(start..last.start).unwrap_or_default();
        if start > self.open && indent.trim().is_empty() {
            return format!(",{}{indent}", newline(text));
        }
        ", ".to_owned()
    }

    /// The text without an entry. Comments beside it stay.
    pub(super) fn take(&self, text: &str, at: usize) -> String {
        let Some(own) = self.ranges.get(at) else {
            return text.to_owned();
        };
        let has_comment =
            |range: &Range<usize>| text.get(range.clone()).is_some_and(|gap| gap.contains('#'));
        let with_comma = || own.start..comma(text, own.end).unwrap_or(own.end);
        let range = match (at.checked_sub(1), self.ranges.get(at + 1)) {
            (_, Some(next)) if !has_comment(&(own.end..next.start)) => own.start..next.start,
            (Some(before), None) => {
                let end = self.ranges.get(before).map_or(own.start, |one| one.end);
                if has_comment(&(end..own.start)) {
                    with_comma()
                } else {
                    end..own.end
                }
            }
            (_, Some(_)) => {
                // The comma alone goes with it; a comment between stays where it is.
                let end = comma(text, own.end).unwrap_or(own.end);
                let rest = text.get(own.end..end.saturating_sub(1)).unwrap_or_default();
                return replace(
                    text,
                    &(own.start..end),
                    rest.trim_start_matches([' ', '\t']),
                );
            }
            (None, None) => with_comma(),
        };
        cut(text, &range)
    }

    /// The text of an entry.
    pub(super) fn text<'a>(&self, text: &'a str, at: usize) -> &'a str {
        let range = self.ranges.get(at).cloned();
        range.and_then(|range| text.get(range)).unwrap_or_default()
    }
}

fn insert(text: &str, at: usize, what: &str) -> String {
    replace(text, &(at..at), what)
}

/// The values of a table with their keys, those of dotted keys too.
fn leaves(
    table: &toml_edit::InlineTable,
    words: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Range<usize>)>,
) {
    for (key, value) in table {
        words.push(key.to_owned());
        match value {
            Value::InlineTable(dotted) if dotted.is_dotted() => leaves(dotted, words, found),
            value => found.extend(value.span().map(|span| (words.clone(), span))),
        }
        words.pop();
    }
}
