//! What an operation does to the text: the fewest octets that do it.
//!
//! Nothing here is trusted: `proposal` reads the result and holds it against what was meant.

use toml::{Table, Value};

use super::{
    layout::{Inside, Layout, Spot},
    lexis::{line_start, newline},
    lists::Entries,
    model::{Deed, DeedKind, PathPart, below, look, perform, read},
    refusal::EditRefusal,
    regions::{cut, head, lines, put, put_section, replace, tail, whole},
    render,
};
use crate::config::keys;

/// The text with the operation done. It has no mark of UTF-8.
pub(super) fn splice(text: &str, deed: &Deed) -> Result<String, EditRefusal> {
    match &deed.what {
        DeedKind::Set(keys, value) => set(text, deed, keys, value),
        DeedKind::Unset(keys) => unset(text, &below(&deed.at, keys)),
        DeedKind::Remove => unset(text, &deed.at),
        DeedKind::Add(table) => add(text, &deed.section, table),
        DeedKind::Move(before) => shift(text, deed, *before),
    }
}

fn set(text: &str, deed: &Deed, keys: &[String], value: &Value) -> Result<String, EditRefusal> {
    let path = below(&deed.at, keys);
    let before = read(text)?;
    let old = look(&before, &path);
    if old == Some(value) {
        return Ok(text.to_owned());
    }
    let layout = Layout::new(text)?;
    let rendered = || {
        let above = keys.iter().fold(deed.section.clone(), |section, key| {
            render::inside(&section, key)
        });
        render::value(value, &above)
    };
    match layout.find(&path) {
        Spot::Pair(pair) => Ok(replace(text, &pair.span, &rendered())),
        Spot::Inner { value, .. } if !is_dotted(value) => {
            let span = value.span().ok_or_else(lost)?;
            Ok(replace(text, &span, &rendered()))
        }
        Spot::Absent => new_key(&layout, deed, keys, value),
        Spot::Inner { .. } | Spot::Spread(..) => {
            let (Some(Value::Table(old)), Value::Table(new)) = (old, value) else {
                let text = unset(text, &path)?;
                return set(&text, deed, keys, value);
            };
            piecewise(text, deed, keys, old, new)
        }
    }
}

/// A table that is spread over the file: key by key.
fn piecewise(
    text: &str,
    deed: &Deed,
    keys: &[String],
    old: &Table,
    new: &Table,
) -> Result<String, EditRefusal> {
    let of = |key: &String| keys.iter().chain([key]).cloned().collect::<Vec<_>>();
    let mut text = text.to_owned();
    for (key, value) in new {
        text = set(&text, deed, &of(key), value)?;
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        text = unset(&text, &below(&deed.at, &of(key)))?;
    }
    Ok(text)
}

/// A key that is not there yet: behind its siblings, in the nearest table around it that is.
fn new_key(
    layout: &Layout<'_>,
    deed: &Deed,
    keys: &[String],
    value: &Value,
) -> Result<String, EditRefusal> {
    let text = layout.text;
    for depth in (0..keys.len()).rev() {
        let (above, rest) = keys.split_at_checked(depth).ok_or_else(lost)?;
        let path = below(&deed.at, above);
        let section = above.iter().fold(deed.section.clone(), |section, key| {
            render::inside(&section, key)
        });
        let line = render::pair(rest, value, &section);
        if path.is_empty() {
            return Ok(new_line(layout, 0, None, &line));
        }
        let (around, line) = match layout.find(&path) {
            Spot::Pair(pair) => (&pair.value, line),
            Spot::Inner {
                around,
                value,
                at: Inside::Table(words),
            } if is_dotted(value) => (around, format!("{}.{line}", words.join("."))),
            Spot::Inner { value, .. } => (value, line),
            Spot::Spread(sections, dotted) => {
                let own = sections
                    .iter()
                    .find(|at| layout.pieces.get(**at).is_some_and(|one| one.path == path));
                if let Some(at) = own {
                    return Ok(new_line(layout, *at, None, &line));
                }
                let Some((at, number)) = dotted.last() else {
                    continue;
                };
                let piece = layout.pieces.get(*at).ok_or_else(lost)?;
                let mut words: Vec<String> = path
                    .iter()
                    .skip(piece.path.len())
                    .filter_map(|part| match part {
                        PathPart::Key(key) => Some(key.clone()),
                        PathPart::At(_) => None,
                    })
                    .collect();
                words.push(line);
                return Ok(new_line(layout, *at, Some(*number), &words.join(".")));
            }
            Spot::Absent => continue,
        };
        let entries = Entries::of(text, around).ok_or_else(lost)?;
        return Ok(entries.put(text, None, &line));
    }
    let [PathPart::Key(_)] = deed.at.as_slice() else {
        return Err(lost());
    };
    let nested =
        |inner: Value, key: &String| Value::Table(Table::from_iter([(key.clone(), inner)]));
    match keys.iter().rev().fold(value.clone(), nested) {
        Value::Table(table) => add(text, &deed.section, &table),
        _ => Err(lost()),
    }
}

/// A line behind that pair of a piece, or behind its last.
fn new_line(layout: &Layout<'_>, at: usize, behind: Option<usize>, line: &str) -> String {
    let text = layout.text;
    let piece = layout.pieces.get(at);
    let pair = piece.and_then(|piece| match behind {
        Some(number) => piece.pairs.get(number),
        None => piece.pairs.last(),
    });
    if let Some(pair) = pair {
        let own = layout.lines(pair);
        let written = text.get(own.clone()).unwrap_or_default();
        let indent = written.len() - written.trim_start_matches([' ', '\t']).len();
        let indent = written.get(..indent).unwrap_or_default();
        return put(text, own.end, &format!("{indent}{line}"));
    }
    if piece.is_some_and(|piece| piece.header.is_some()) {
        return put(text, layout.end(at), line);
    }
    // The first key of the top of the file.
    if layout.pieces.len() > 1 {
        return put(text, head(layout, 1), &format!("{line}{}", newline(text)));
    }
    put(text, text.len(), line)
}

/// The text without what stands at a path.
fn unset(text: &str, path: &[PathPart]) -> Result<String, EditRefusal> {
    let layout = Layout::new(text)?;
    match layout.find(path) {
        Spot::Pair(pair) => Ok(cut(text, &lines(text, layout.lines(pair)))),
        Spot::Inner { around, at, .. } => {
            let entries = Entries::of(text, around).ok_or_else(lost)?;
            let which = match &at {
                Inside::List(at) => vec![*at],
                Inside::Table(key) => entries.with_key(key),
            };
            let (Some(first), is_one) = (which.last(), which.len() == 1) else {
                return Err(lost());
            };
            let text = entries.take(text, *first);
            if is_one { Ok(text) } else { unset(&text, path) }
        }
        Spot::Spread(sections, dotted) => {
            let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
            for at in sections {
                match runs.last_mut() {
                    Some(run) if run.end == at => run.end += 1,
                    _ => runs.push(at..at + 1),
                }
            }
            let mut ranges: Vec<_> = runs.iter().map(|run| whole(&layout, run)).collect();
            for (piece, pair) in dotted {
                let piece = layout.pieces.get(piece);
                let pair = piece.and_then(|piece| piece.pairs.get(pair));
                ranges.extend(pair.map(|pair| lines(text, layout.lines(pair))));
            }
            ranges.sort_by_key(|range| range.start);
            let taken = |text: String, range: &std::ops::Range<usize>| cut(&text, range);
            Ok(ranges.iter().rev().fold(text.to_owned(), taken))
        }
        Spot::Absent => Err(lost()),
    }
}

fn add(text: &str, name: &str, table: &Table) -> Result<String, EditRefusal> {
    let layout = Layout::new(text)?;
    let path = [PathPart::Key(name.to_owned())];
    let rendered = render::section(name, keys::is_repeated(name), table, newline(text));
    match layout.find(&path) {
        Spot::Pair(pair) => {
            let entries = Entries::of(text, &pair.value).ok_or_else(lost)?;
            let entry = render::value(&Value::Table(table.clone()), name);
            Ok(entries.put(text, None, &entry))
        }
        Spot::Spread(sections, _) if !sections.is_empty() => {
            let last = sections.last().copied().unwrap_or_default();
            Ok(put_section(text, tail(&layout, last), &rendered))
        }
        Spot::Absent => Ok(put_section(text, text.len(), &rendered)),
        Spot::Inner { .. } | Spot::Spread(..) => Err(lost()),
    }
}

/// Moves a section before another, counted without it, or to the end.
fn shift(text: &str, deed: &Deed, before: Option<usize>) -> Result<String, EditRefusal> {
    let old = read(text)?;
    let mut new = old.clone();
    perform(&mut new, deed)?;
    if new == old {
        return Ok(text.to_owned());
    }
    let layout = Layout::new(text)?;
    let list = PathPart::Key(deed.section.clone());
    match layout.find(&deed.at) {
        Spot::Inner {
            around,
            at: Inside::List(at),
            ..
        } => {
            let entries = Entries::of(text, around).ok_or_else(lost)?;
            let entry = entries.text(text, at).to_owned();
            let rest = entries.take(text, at);
            let layout = Layout::new(&rest)?;
            let Spot::Pair(pair) = layout.find(&[list]) else {
                return Err(lost());
            };
            let entries = Entries::of(&rest, &pair.value).ok_or_else(lost)?;
            Ok(entries.put(&rest, before, &entry))
        }
        Spot::Spread(sections, dotted) if dotted.is_empty() => {
            let (first, last) = (sections.first().copied(), sections.last().copied());
            let (Some(first), Some(last)) = (first, last) else {
                return Err(lost());
            };
            if last - first + 1 != sections.len() {
                return Err(EditRefusal::not_provable(
                    "its parts do not stand together; put them together in the file first",
                ));
            }
            let own = head(&layout, first)..tail(&layout, last);
            let section = text.get(own).unwrap_or_default();
            let section = section.strip_suffix('\n').unwrap_or(section);
            let section = section.strip_suffix('\r').unwrap_or(section);
            let rest = cut(text, &whole(&layout, &(first..last + 1)));
            let layout = Layout::new(&rest)?;
            let Some(before) = before else {
                let Spot::Spread(sections, _) = layout.find(&[list]) else {
                    return Ok(text.to_owned());
                };
                let last = sections.last().copied().unwrap_or_default();
                return Ok(put_section(&rest, tail(&layout, last), section));
            };
            let Spot::Spread(sections, _) = layout.find(&[list, PathPart::At(before)]) else {
                return Err(lost());
            };
            let next = head(&layout, sections.first().copied().unwrap_or_default());
            let newline = newline(text);
            debug_assert_eq!(next, line_start(&rest, next));
            Ok(put(&rest, next, &format!("{section}{newline}")))
        }
        _ => Err(lost()),
    }
}

/// Whether it is what dotted keys in an inline table mean, and no token of its own.
fn is_dotted(value: &toml_edit::Value) -> bool {
    matches!(value, toml_edit::Value::InlineTable(table) if table.is_dotted())
}

fn lost() -> EditRefusal {
    EditRefusal::not_provable("the text does not show where this stands")
}
