//! Where everything stands in the text: headers, keys and values, each with its place.
//!
//! The parser is asked for places only; the file is never written from what it read.

use std::ops::Range;

use toml_edit::{Document, Item, Table, Value};

use super::{lexis, model::PathPart, refusal::EditRefusal};

/// A header with the keys below it; the first has none and is the top of the file.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) path: Vec<PathPart>,
    pub(super) header: Option<Range<usize>>,
    pub(super) pairs: Vec<KeyPlace>,
}

/// A key and its value, below a header.
#[derive(Debug)]
pub(super) struct KeyPlace {
    pub(super) key: Vec<String>,
    /// Where the last word of the key begins.
    start: usize,
    pub(super) value: Value,
    pub(super) span: Range<usize>,
}

/// A text and its pieces, in order.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) text: &'a str,
    pub(super) pieces: Vec<Piece>,
}

impl<'a> Layout<'a> {
    /// Of a text without the mark of UTF-8.
    pub(super) fn new(text: &'a str) -> Result<Self, EditRefusal> {
        let document = Document::parse(text)
            .map_err(|_| EditRefusal::not_provable("the file is not TOML; mend that first"))?;
        let mut pieces = Vec::new();
        piece(document.as_table(), &[], None, &mut pieces);
        pieces.sort_by_key(|piece| piece.header.as_ref().map_or(0, |header| header.start + 1));
        for piece in &mut pieces {
            piece.pairs.sort_by_key(|pair| pair.start);
        }
        Ok(Self { text, pieces })
    }

    /// Where the line of the piece's header begins.
    pub(super) fn start(&self, at: usize) -> usize {
        let header = self.pieces.get(at).and_then(|piece| piece.header.as_ref());
        match header {
            Some(header) => lexis::line_start(self.text, header.start),
            None if at == 0 => 0,
            None => self.text.len(),
        }
    }

    /// Behind the line of the piece's last key, or of its header.
    pub(super) fn end(&self, at: usize) -> usize {
        let Some(piece) = self.pieces.get(at) else {
            return self.text.len();
        };
        let last = piece.pairs.last().map(|pair| pair.span.end);
        let last = last.or_else(|| piece.header.as_ref().map(|header| header.end));
        last.map_or(0, |last| lexis::line_end(self.text, last))
    }

    /// The lines of a pair.
    pub(super) fn lines(&self, pair: &KeyPlace) -> Range<usize> {
        lexis::line_start(self.text, pair.start)..lexis::line_end(self.text, pair.span.end)
    }
}

fn piece(table: &Table, path: &[PathPart], header: Option<Range<usize>>, pieces: &mut Vec<Piece>) {
    let mut pairs = Vec::new();
    let mut words = Vec::new();
    walk(table, path, &mut words, &mut pairs, pieces);
    if header.is_some() || path.is_empty() || !pairs.is_empty() {
        pieces.push(Piece {
            path: path.to_vec(),
            header,
            pairs,
        });
    }
}

/// The pairs of a table, those of dotted keys too; sections below it become pieces of their own.
fn walk(
    table: &Table,
    path: &[PathPart],
    words: &mut Vec<String>,
    pairs: &mut Vec<KeyPlace>,
    pieces: &mut Vec<Piece>,
) {
    for (name, item) in table {
        words.push(name.to_owned());
        let here = || {
            let words = words.iter().cloned().map(PathPart::Key);
            path.iter().cloned().chain(words).collect::<Vec<_>>()
        };
        match item {
            Item::Value(value) => {
                let start = table.key(name).and_then(toml_edit::Key::span);
                if let (Some(start), Some(span)) = (start, value.span()) {
                    pairs.push(KeyPlace {
                        key: words.clone(),
                        start: start.start,
                        value: value.clone(),
                        span,
                    });
                }
            }
            Item::Table(inner) if inner.is_dotted() => walk(inner, path, words, pairs, pieces),
            Item::Table(inner) => {
                let header = (!inner.is_implicit()).then(|| inner.span()).flatten();
                piece(inner, &here(), header, pieces);
            }
            Item::ArrayOfTables(list) => {
                for (at, inner) in list.iter().enumerate() {
                    let mut path = here();
                    path.push(PathPart::At(at));
                    piece(inner, &path, inner.span(), pieces);
                }
            }
            Item::None => {}
        }
        words.pop();
    }
}

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Spot<'a> {
    /// A value below a header.
    Pair(&'a KeyPlace),
    /// A value in an inline table or list.
    Inner {
        /// The values around it, from the outermost: that of a pair.
        around: &'a Value,
        value: &'a Value,
        /// Its place among those of `around`.
        at: Inside,
    },
    /// Sections of its own (their numbers), dotted keys (piece and pair), or both.
    Spread(Vec<usize>, Vec<(usize, usize)>),
    /// Nothing.
    Absent,
}

/// Where an inner value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    /// In a table, by its (dotted) key.
    Table(Vec<String>),
    /// In a list.
    List(usize),
}

impl Layout<'_> {
    /// What stands at a path.
    pub(super) fn find(&self, path: &[PathPart]) -> Spot<'_> {
        for piece in &self.pieces {
            for pair in &piece.pairs {
                let own: Vec<PathPart> = join(&piece.path, &pair.key);
                if own.as_slice() == path {
                    return Spot::Pair(pair);
                }
                if let Some(rest) = path.strip_prefix(own.as_slice())
                    && !rest.is_empty()
                {
                    return inner(&pair.value, rest);
                }
            }
        }
        let mut sections = Vec::new();
        let mut dotted = Vec::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            if piece.header.is_some() && piece.path.starts_with(path) {
                sections.push(at);
                continue;
            }
            for (number, pair) in piece.pairs.iter().enumerate() {
                if join(&piece.path, &pair.key).starts_with(path) {
                    dotted.push((at, number));
                }
            }
        }
        if sections.is_empty() && dotted.is_empty() {
            return Spot::Absent;
        }
        Spot::Spread(sections, dotted)
    }
}

fn join(path: &[PathPart], words: &[String]) -> Vec<PathPart> {
    let words = words.iter().cloned().map(PathPart::Key);
    path.iter().cloned().chain(words).collect()
}

/// What stands at a path below a value.
fn inner<'a>(around: &'a Value, path: &[PathPart]) -> Spot<'a> {
    let Some((first, rest)) = path.split_first() else {
        return Spot::Absent;
    };
    let (value, inside, rest) = match (around, first) {
        (Value::Array(list), PathPart::At(at)) => (list.get(*at), Inside::List(*at), rest),
        (Value::InlineTable(table), PathPart::Key(key)) => {
            let mut words = vec![key.clone()];
            let mut value = table.get(key);
            let mut rest = rest;
            while let (Some(Value::InlineTable(dotted)), Some((PathPart::Key(key), after))) =
                (value, rest.split_first())
                && dotted.is_dotted()
            {
                words.push(key.clone());
                value = dotted.get(key);
                rest = after;
            }
            (value, Inside::Table(words), rest)
        }
        _ => return Spot::Absent,
    };
    match value {
        Some(value) if rest.is_empty() => Spot::Inner {
            around,
            value,
            at: inside,
        },
        Some(value) => inner(value, rest),
        None => Spot::Absent,
    }
}
