//! Which key of which section a problem is about, for a form that has a field for it.

use super::{
    layout::{KeyPlace, Layout, Piece},
    mask::split_mark,
    model::PathPart,
};
use crate::{
    config::diagnostic::Diagnostic,
    view::{Problem, ProblemPlace},
};

/// Problems of a text, each with its place.
pub(super) fn problems<'a>(
    found: impl Iterator<Item = &'a Diagnostic>,
    text: &str,
) -> Vec<Problem> {
    let text = split_mark(text).1;
    let layout = Layout::new(text).ok();
    let placed = |diagnostic: &Diagnostic| Problem {
        place: layout
            .as_ref()
            .and_then(|layout| place(layout, offset(text, diagnostic)?)),
        ..diagnostic.problem()
    };
    found.map(placed).collect()
}

/// Where it begins, in octets.
fn offset(text: &str, diagnostic: &Diagnostic) -> Option<usize> {
    let before = diagnostic.line.checked_sub(1)?;
    let lines = text.split_inclusive('\n');
    let start: usize = lines.clone().take(before).map(str::len).sum();
    let line = lines.clone().nth(before)?;
    let column = line.char_indices().nth(diagnostic.column.checked_sub(1)?);
    Some(start + column.map_or(0, |(octet, _)| octet))
}

fn place(layout: &Layout<'_>, offset: usize) -> Option<ProblemPlace> {
    let begins = |at: &usize| layout.start(*at) <= offset;
    let at = (0..layout.pieces.len()).rev().find(begins)?;
    let piece = layout.pieces.get(at)?;
    let pair = piece
        .pairs
        .iter()
        .find(|pair| layout.lines(pair).contains(&offset));
    let mut keys = keys(&piece.path);
    let section = keys.next()?.to_owned();
    let mut words: Vec<String> = keys.map(str::to_owned).collect();
    words.extend(pair.into_iter().flat_map(|pair| inside(pair, offset)));
    Some(ProblemPlace {
        section,
        name: name(layout, piece),
        key: words.join("."),
    })
}

fn keys(path: &[PathPart]) -> impl Iterator<Item = &str> {
    path.iter().filter_map(|part| match part {
        PathPart::Key(key) => Some(key.as_str()),
        PathPart::At(_) => None,
    })
}

/// The words of a key, those in an inline table too.
fn inside(pair: &KeyPlace, offset: usize) -> Vec<String> {
    let mut words = pair.key.clone();
    let mut value = &pair.value;
    while let toml_edit::Value::InlineTable(table) = value {
        let mut inner = table.iter();
        let found =
            inner.find(|(_, value)| value.span().is_some_and(|span| span.contains(&offset)));
        let Some((key, next)) = found else {
            break;
        };
        words.push(key.to_owned());
        value = next;
    }
    words
}

/// Of the section at the top that the piece is part of.
fn name(layout: &Layout<'_>, piece: &Piece) -> Option<String> {
    let path = piece.path.get(..2)?;
    let mut pieces = layout.pieces.iter();
    let top = pieces.find(|one| one.path == path)?;
    let pair = top.pairs.iter().find(|pair| pair.key == ["name"])?;
    pair.value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_section_and_its_key() {
        let text = concat!(
            "hostname = \"é\" # x\n",
            "[[connector]]\n",
            "name = \"a\"\n",
            "port = 70000\n",
            "oauth = { provider = \"x\", mailbox = \"y\" }\n",
            "[[connector]]\n",
            "port = 1\n",
            "name = \"b\"\n",
            "[connector.oauth]\n",
            "mailbox = 5\n",
        );
        let layout = Layout::new(text).unwrap();
        let at = |needle: &str| {
            let place = place(&layout, text.find(needle).unwrap());
            place.map(|place| {
                let name = place.name.unwrap_or_default();
                format!("{} {name} {}", place.section, place.key)
            })
        };
        assert_eq!(at("é"), None, "what stands at the top is in no section");
        assert_eq!(at("70000").unwrap(), "connector a port");
        assert_eq!(at("\"y\"").unwrap(), "connector a oauth.mailbox");
        assert_eq!(at("{ provider").unwrap(), "connector a oauth");
        assert_eq!(at("[[connector]]").unwrap(), "connector a ");
        assert_eq!(at("1\nname").unwrap(), "connector b port");
        assert_eq!(at("5").unwrap(), "connector b oauth.mailbox");
    }
}
