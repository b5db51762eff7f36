//! What the two halves of a `config.yml` share: keys that nobody knows are named, and lists are read as texts.
//!
//! Nothing here knows what a key means.

use super::super::{draft::ImportDraft, yaml::YamlNode};

/// No more users and networks are read.
pub(super) const MOST: usize = 2000;

/// Keys that are not known here are named.
pub(super) fn unknown(node: &YamlNode, above: &str, known: &[&str], draft: &mut ImportDraft) {
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in node.pairs().iter().take(MOST) {
        if !known.contains(&key.as_str()) {
            // A slip may have put a password there; letters alone are hardly one.
            let is_word = key.len() <= 40 && key.bytes().all(|b| b.is_ascii_alphabetic());
            let name = if is_word { key.as_str() } else { "(a key)" };
            draft.leaves(
                format!("{above}{name}"),
                value.place(),
                "this key is not known here",
            );
        } else if seen.contains(&key.as_str()) {
            draft.leaves(
                format!("{above}{key}"),
                value.place(),
                "it stands there twice; the first counts",
            );
        }
        seen.push(key);
    }
}

pub(super) fn texts(node: Option<&YamlNode>) -> Option<Vec<(String, &YamlNode)>> {
    let list = node?.list()?;
    Some(
        list.iter()
            .take(MOST)
            .filter_map(|item| Some((item.text()?.to_owned(), item)))
            .collect(),
    )
}
