//! What a change may do: some things only the file may say, and a saved credential goes nowhere new.
//!
//! Both are asked of values, before and after: it does not matter how a key was written, nor which operations led there.

use toml::{Table, Value};

use super::{
    refusal::{EditRefusal, Why},
    render::inside,
};
use crate::config::secrecy;

/// The innermost values of a section, each with the section that its key stands in.
#[derive(Debug, Clone, PartialEq)]
struct Leaf<'a> {
    section: String,
    key: String,
    /// From the section at the top, dotted; lists are counted.
    path: String,
    value: &'a Value,
}

fn leaves<'a>(section: &str, path: &str, table: &'a Table, found: &mut Vec<Leaf<'a>>) {
    for (key, value) in table {
        let path = inside(path, key);
        let below = inside(section, key);
        let is_one = secrecy::is_secret(section, key)
            || secrecy::is_only_in_file(section, key)
            || secrecy::is_endpoint(key);
        match value {
            // Whatever stands where a secret, a path or a host should is judged as that.
            Value::Table(inner) if !is_one && !inner.is_empty() => {
                leaves(&below, &path, inner, found);
            }
            Value::Array(list) if !is_one && list.iter().any(Value::is_table) => {
                for (at, item) in list.iter().enumerate() {
                    if let Value::Table(inner) = item {
                        leaves(&below, &format!("{path}.{at}"), inner, found);
                    }
                }
            }
            _ => found.push(Leaf {
                section: section.to_owned(),
                key: key.clone(),
                path,
                value,
            }),
        }
    }
}

fn leaves_of<'a>(section: &str, value: Option<&'a Value>) -> Vec<Leaf<'a>> {
    let mut found = Vec::new();
    if let Some(Value::Table(table)) = value {
        leaves(section, "", table, &mut found);
    }
    found
}

/// Whether the value says that a secret is in one of these files.
fn is_fresh(value: &Value, fresh: &[String]) -> bool {
    let file = value
        .as_table()
        .filter(|table| table.len() == 1)
        .and_then(|table| table.get("file")?.as_str());
    file.is_some_and(|file| fresh.iter().any(|one| one == file))
}

/// Whether a section may become that. `fresh`: the files of the secrets that came with the request.
///
/// # Errors
/// `only_in_file`, or a secret that is none.
pub(super) fn may_become(
    section: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    fresh: &[String],
) -> Result<(), EditRefusal> {
    may_change(section)?;
    let old = leaves_of(section, before);
    let new = leaves_of(section, after);
    for leaf in &new {
        if !old.contains(leaf) {
            may_be_said(leaf, fresh)?;
        }
    }
    for leaf in &old {
        let is_gone = !new.iter().any(|other| other.path == leaf.path);
        if is_gone && secrecy::is_only_in_file(&leaf.section, &leaf.key) {
            return Err(only_in_file(&leaf.path));
        }
    }
    Ok(())
}

/// Whether anything may be changed in a section.
pub(super) fn may_change(section: &str) -> Result<(), EditRefusal> {
    if secrecy::ONLY_IN_FILE.contains(&section) {
        return Err(only_in_file(section));
    }
    Ok(())
}

fn may_be_said(leaf: &Leaf<'_>, fresh: &[String]) -> Result<(), EditRefusal> {
    if secrecy::is_only_in_file(&leaf.section, &leaf.key) {
        return Err(only_in_file(&leaf.path));
    }
    if secrecy::is_secret(&leaf.section, &leaf.key) {
        if is_fresh(leaf.value, fresh) {
            return Ok(());
        }
        let says_where = leaf.value.as_table().is_some_and(|table| {
            ["env", "file", "credential"]
                .iter()
                .any(|key| table.contains_key(*key))
        });
        if says_where {
            return Err(only_in_file(&leaf.path));
        }
        let detail = format!("`{}` takes {{\"secret\": \"…\"}} only", leaf.path);
        return Err(EditRefusal::new(Why::BadRequest, detail));
    }
    let texts: Vec<&str> = match leaf.value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    };
    if texts.into_iter().any(has_login) {
        let detail = format!(
            "`{}` with a login in it can be set in the file only",
            leaf.path
        );
        return Err(EditRefusal::new(Why::OnlyInFile, detail));
    }
    Ok(())
}

/// Whether a URL says who logs in.
pub(super) fn has_login(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(_, rest)| rest.contains('@'))
}

fn only_in_file(path: &str) -> EditRefusal {
    EditRefusal::new(
        Why::OnlyInFile,
        format!("`{path}` can be changed in the file only"),
    )
}

/// Whether each credential goes where it went: it came with the request, or there was a section of its kind with the same one and the
/// same endpoint.
///
/// # Errors
/// `secret_needed`, or `only_in_file` where a request cannot bring it.
pub(super) fn nothing_moved(
    before: &Value,
    after: &Value,
    fresh: &[String],
) -> Result<(), EditRefusal> {
    for section in secrecy::OUTGOING {
        let old: Vec<Vec<Leaf<'_>>> = sections(before, section)
            .map(|one| leaves_of(section, Some(one)))
            .collect();
        for one in sections(after, section) {
            let new = leaves_of(section, Some(one));
            let stays = |credential: &Leaf<'_>| {
                old.iter()
                    .any(|old| old.contains(credential) && endpoint(old) == endpoint(&new))
            };
            let is_kept = |leaf: &&Leaf<'_>| secrecy::is_kept_elsewhere(&leaf.section, &leaf.key);
            if let Some(leaf) = new.iter().find(|leaf| is_kept(leaf) && !stays(leaf)) {
                return Err(EditRefusal::new(
                    Why::OnlyInFile,
                    format!(
                        "where it goes can be changed in the file only: it has `{}`",
                        leaf.path
                    ),
                ));
            }
            let needed = new.iter().find(|leaf| {
                secrecy::is_secret(&leaf.section, &leaf.key)
                    && !is_fresh(leaf.value, fresh)
                    && !stays(leaf)
            });
            if let Some(leaf) = needed {
                return Err(EditRefusal::new(
                    Why::SecretNeeded,
                    format!(
                        "where its credentials go is changed: say `{}` again too",
                        leaf.path
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn sections<'a>(root: &'a Value, section: &str) -> impl Iterator<Item = &'a Value> {
    let list = root.get(section).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// What decides where the credentials of a section go.
fn endpoint<'a>(leaves: &'a [Leaf<'_>]) -> Vec<(&'a str, &'a Value)> {
    leaves
        .iter()
        .filter(|leaf| secrecy::is_endpoint(&leaf.key))
        .map(|leaf| (leaf.path.as_str(), leaf.value))
        .collect()
}
