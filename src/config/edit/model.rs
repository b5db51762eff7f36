//! What the text means, and what an operation does to that.
//!
//! Here nothing is written: `splice` does the same to the text, and the two are held against each other.

use toml::{Table, Value};

use super::refusal::{EditRefusal, Why};
use crate::{
    config::{keys, secrecy},
    view::{Neighbour, Operation},
};

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathPart {
    /// Of a table.
    Key(String),
    /// Of a list, from 0.
    At(usize),
}

/// An operation whose section has been found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deed {
    pub(super) section: String,
    /// The section that it is about; of `Add` the list, or the section that is not there yet.
    pub(super) at: Vec<PathPart>,
    pub(super) what: DeedKind,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DeedKind {
    Set(Vec<String>, Value),
    Unset(Vec<String>),
    Add(Table),
    Remove,
    /// Before that one, counted without the one that moves; none: to the end.
    Move(Option<usize>),
}

/// Reads a text without the mark of UTF-8.
pub(super) fn read(text: &str) -> Result<Value, EditRefusal> {
    let table = text.parse::<Table>();
    table
        .map(Value::Table)
        .map_err(|_| EditRefusal::not_provable("the file is not TOML; mend that first"))
}

pub(super) fn look<'a>(value: &'a Value, at: &[PathPart]) -> Option<&'a Value> {
    at.iter().try_fold(value, |value, part| match part {
        PathPart::Key(key) => value.as_table()?.get(key),
        PathPart::At(at) => value.as_array()?.get(*at),
    })
}

/// The path of a key below a section.
pub(super) fn below(at: &[PathPart], keys: &[String]) -> Vec<PathPart> {
    let keys = keys.iter().cloned().map(PathPart::Key);
    at.iter().cloned().chain(keys).collect()
}

/// Whether two files say the same. A section that is empty says what one says that is absent, and so does a table in it: where the last
/// of its dotted keys goes, it goes with it.
pub(super) fn same(one: &Value, other: &Value, depth: usize) -> bool {
    let (Value::Table(a), Value::Table(b)) = (one, other) else {
        return match (one, other) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, depth + 1))
            }
            _ => one == other,
        };
    };
    let is_nothing = |value: &Value| match value {
        Value::Table(table) => table.is_empty(),
        Value::Array(list) => depth == 0 && list.is_empty(),
        _ => false,
    };
    let covers = |a: &Table, b: &Table| {
        a.iter().all(|(key, value)| match b.get(key) {
            Some(other) => same(value, other, depth + 1),
            None => is_nothing(value),
        })
    };
    covers(a, b)
        && b.iter()
            .all(|(key, value)| a.contains_key(key) || is_nothing(value))
}

/// Finds what an operation is about.
///
/// # Errors
/// There is nothing of that name, or it cannot be asked for in this way.
pub(super) fn resolve(root: &Value, operation: &Operation) -> Result<Deed, EditRefusal> {
    let (section, name, number) = operation.place();
    let found = |what: DeedKind| {
        let at = find(root, section, name, number)?;
        Ok(Deed {
            section: section.to_owned(),
            at,
            what,
        })
    };
    match operation {
        Operation::Set { key, value, .. } => {
            found(DeedKind::Set(path(section, key)?, typed(value)?))
        }
        Operation::Unset { key, .. } => found(DeedKind::Unset(path(section, key)?)),
        Operation::Remove { .. } if section.is_empty() => {
            Err(bad("the top of the file cannot be removed"))
        }
        Operation::Remove { .. } => {
            let deed = found(DeedKind::Remove)?;
            missing_unless(look(root, &deed.at).is_some(), section)?;
            Ok(deed)
        }
        Operation::Move { before, .. } => {
            let at = find(root, section, name, number)?;
            let Some(PathPart::At(from)) = at.last() else {
                return Err(bad(format!("[{section}] stands once and has no order")));
            };
            let before = match before {
                None => None,
                Some(Neighbour::Name(name)) => Some(find(root, section, Some(name), None)?),
                Some(Neighbour::At(at)) => Some(find(root, section, None, Some(*at))?),
            };
            let before = match before.as_deref().and_then(<[PathPart]>::last) {
                Some(PathPart::At(to)) if to > from => Some(to - 1),
                Some(PathPart::At(to)) => Some(*to),
                _ => None,
            };
            found(DeedKind::Move(before))
        }
        Operation::Add { values, .. } => added(root, section, name, values),
    }
}

fn added(
    root: &Value,
    section: &str,
    name: Option<&str>,
    values: &serde_json::Map<String, serde_json::Value>,
) -> Result<Deed, EditRefusal> {
    is_bare(section)?;
    let mut table = Table::new();
    for (key, value) in values {
        put(&mut table, &path(section, key)?, typed(value)?)?;
    }
    if let Some(name) = name {
        match table.insert("name".to_owned(), Value::String(name.to_owned())) {
            Some(Value::String(other)) if other != name => {
                return Err(bad("`name` is said twice, and not the same"));
            }
            _ => {}
        }
    }
    if table.is_empty() {
        return Err(bad("a section needs a key"));
    }
    let at = vec![PathPart::Key(section.to_owned())];
    let is_there = |value: &Value| match (value, table.get("name")) {
        (Value::Array(list), Some(name)) => list.iter().any(|one| one.get("name") == Some(name)),
        (Value::Array(_), None) => false,
        _ => true,
    };
    if look(root, &at).is_some_and(is_there) {
        return Err(EditRefusal::not_provable(format!(
            "there is one already: {section} {}",
            name.unwrap_or_default()
        )));
    }
    Ok(Deed {
        section: section.to_owned(),
        at,
        what: DeedKind::Add(table),
    })
}

/// Where the section is.
fn find(
    root: &Value,
    section: &str,
    name: Option<&str>,
    number: Option<usize>,
) -> Result<Vec<PathPart>, EditRefusal> {
    let one = match (name, number) {
        (Some(_), Some(_)) => return Err(bad("a section has `name` or `at`, not both")),
        (None, None) => None,
        one => Some(one),
    };
    if section.is_empty() {
        let nothing = one.is_none().then(Vec::new);
        return nothing.ok_or_else(|| bad("the top of the file has neither `name` nor `at`"));
    }
    is_bare(section)?;
    let mut at = vec![PathPart::Key(section.to_owned())];
    match (look(root, &at), one) {
        (Some(Value::Array(list)), Some((name, number))) => {
            let is_it = |item: &Value| {
                name.is_some_and(|name| item.get("name").and_then(Value::as_str) == Some(name))
            };
            let mut named = (0..list.len()).filter(|at| list.get(*at).is_some_and(is_it));
            let found = match number {
                Some(number) => number.checked_sub(1).filter(|at| *at < list.len()),
                None => named.next(),
            };
            missing_unless(found.is_some() && named.next().is_none(), section)?;
            at.extend(found.map(PathPart::At));
            Ok(at)
        }
        (Some(Value::Array(_)), None) => Err(bad(format!(
            "there may be several [[{section}]]: say `name` or `at`"
        ))),
        (Some(Value::Table(_)), None) => Ok(at),
        (None, None) if !keys::is_repeated(section) => Ok(at),
        _ => Err(missing_unless(false, section)
            .err()
            .unwrap_or_else(|| bad(""))),
    }
}

fn bad(detail: impl Into<String>) -> EditRefusal {
    EditRefusal::new(Why::BadRequest, detail)
}

fn missing_unless(is_there: bool, section: &str) -> Result<(), EditRefusal> {
    if is_there {
        return Ok(());
    }
    let detail = format!("the file has no such [{section}], or more than one");
    Err(EditRefusal::not_provable(detail))
}

fn is_bare(word: &str) -> Result<(), EditRefusal> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !word.is_empty() && word.chars().all(fine) {
        return Ok(());
    }
    Err(bad(
        "a section or a key has letters, digits, `_` and `-` only",
    ))
}

/// The words of a dotted key. A section is no key of the top.
fn path(section: &str, key: &str) -> Result<Vec<String>, EditRefusal> {
    let words: Vec<String> = key.split('.').map(str::to_owned).collect();
    for word in &words {
        is_bare(word)?;
    }
    if section.is_empty() && (words.len() > 1 || secrecy::is_section(key)) {
        return Err(bad(format!(
            "`{key}` is a section: say which `section` it is"
        )));
    }
    Ok(words)
}

/// A value of JSON, as the file can have it.
pub(super) fn typed(value: &serde_json::Value) -> Result<Value, EditRefusal> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => return Err(bad("null is no value; `unset` takes a key away")),
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => return Err(bad(format!("{number} is no whole number"))),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(list) => Value::Array(list.iter().map(typed).collect::<Result<_, _>>()?),
        Json::Object(map) => {
            let mut table = Table::new();
            for (key, value) in map {
                let words: Vec<String> = key.split('.').map(str::to_owned).collect();
                for word in &words {
                    is_bare(word)?;
                }
                put(&mut table, &words, typed(value)?)?;
            }
            Value::Table(table)
        }
    })
}

/// Puts a value where a dotted key says.
fn put(table: &mut Table, keys: &[String], value: Value) -> Result<(), EditRefusal> {
    let Some((last, above)) = keys.split_last() else {
        return Err(bad("a key is missing"));
    };
    let mut here = table;
    for key in above {
        let next = here
            .entry(key.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else {
            return Err(EditRefusal::not_provable(format!("`{key}` is no table")));
        };
        here = next;
    }
    here.insert(last.clone(), value);
    Ok(())
}

/// Does it.
///
/// # Errors
/// It cannot be done to these values.
pub(super) fn perform(root: &mut Value, deed: &Deed) -> Result<(), EditRefusal> {
    let lost = || EditRefusal::not_provable("it is not there");
    match &deed.what {
        DeedKind::Set(keys, value) => {
            let table = section(root, &deed.at).ok_or_else(lost)?;
            put(table, keys, value.clone())
        }
        DeedKind::Unset(keys) => {
            let Some((last, above)) = keys.split_last() else {
                return Err(lost());
            };
            let mut here = section(root, &deed.at).ok_or_else(lost)?;
            for key in above {
                let next = here.get_mut(key).and_then(Value::as_table_mut);
                here = next.ok_or_else(lost)?;
            }
            here.remove(last).map(drop).ok_or_else(|| {
                EditRefusal::not_provable(format!("there is no `{}` to take away", keys.join(".")))
            })
        }
        DeedKind::Add(table) => {
            let root = root.as_table_mut().ok_or_else(lost)?;
            let table = Value::Table(table.clone());
            if let Some(Value::Array(list)) = root.get_mut(&deed.section) {
                list.push(table);
                return Ok(());
            }
            let value = if keys::is_repeated(&deed.section) {
                Value::Array(vec![table])
            } else {
                table
            };
            root.insert(deed.section.clone(), value);
            Ok(())
        }
        DeedKind::Remove => {
            let root = root.as_table_mut().ok_or_else(lost)?;
            if let Some(PathPart::At(at)) = deed.at.last() {
                let list = root.get_mut(&deed.section).and_then(Value::as_array_mut);
                list.filter(|list| *at < list.len())
                    .map(|list| drop(list.remove(*at)))
                    .ok_or_else(lost)
            } else {
                root.remove(&deed.section).map(drop).ok_or_else(lost)
            }
        }
        DeedKind::Move(before) => {
            let list = root.get_mut(&deed.section).and_then(Value::as_array_mut);
            let (Some(list), Some(PathPart::At(from))) = (list, deed.at.last()) else {
                return Err(lost());
            };
            if *from >= list.len() {
                return Err(lost());
            }
            let one = list.remove(*from);
            list.insert(before.unwrap_or(list.len()).min(list.len()), one);
            Ok(())
        }
    }
}

/// The table of a section; one that stands once is made.
fn section<'a>(root: &'a mut Value, at: &[PathPart]) -> Option<&'a mut Table> {
    let root = root.as_table_mut()?;
    match at {
        [] => Some(root),
        [PathPart::Key(key)] => root
            .entry(key.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut(),
        [PathPart::Key(key), PathPart::At(at)] => root
            .get_mut(key)?
            .as_array_mut()?
            .get_mut(*at)?
            .as_table_mut(),
        _ => None,
    }
}
