//! YAML as a small tree with line numbers, made from the parser's events.
//!
//! Aliases are refused, so that a few lines cannot stand for millions; depth and size have bounds. Anchors alone do nothing.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::note::{NotUnderstood, SourcePlace};

const DEEPEST: usize = 30;
const MOST: usize = 100_000;

/// A node and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct YamlNode {
    pub(super) line: usize,
    pub(super) value: YamlValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum YamlValue {
    /// Text, and whether it was written without quotes.
    Scalar(String, bool),
    List(Vec<YamlNode>),
    /// In their order, doubled keys included.
    Map(Vec<(String, YamlNode)>),
}

impl YamlNode {
    pub(super) fn get(&self, key: &str) -> Option<&YamlNode> {
        match &self.value {
            YamlValue::Map(pairs) => pairs
                .iter()
                .find(|(known, _)| known == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// A scalar that says something.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            YamlValue::Scalar(text, is_plain) => {
                let is_null =
                    *is_plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
                (!is_null).then_some(text.as_str())
            }
            _ => None,
        }
    }

    /// As JavaScript takes what its YAML reader makes of it: `yes` is a text there, and a text is true.
    pub(super) fn flag(&self) -> Option<bool> {
        let is_plain = matches!(&self.value, YamlValue::Scalar(_, true));
        match self.text()? {
            "" => Some(false),
            "false" | "False" | "FALSE" | "0" | "-0" | "+0" | "0.0" | ".nan" | ".NaN" | ".NAN"
                if is_plain =>
            {
                Some(false)
            }
            _ => Some(true),
        }
    }

    pub(super) fn list(&self) -> Option<&[YamlNode]> {
        match &self.value {
            YamlValue::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn pairs(&self) -> &[(String, YamlNode)] {
        match &self.value {
            YamlValue::Map(pairs) => pairs,
            _ => &[],
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a note may be about no place")]
    pub(super) fn place(&self) -> Option<SourcePlace> {
        Some(SourcePlace {
            file: None,
            line: self.line,
        })
    }
}

/// What is being read.
struct OpenNode {
    node: YamlNode,
    /// Of a map: the key whose value comes next.
    key: Option<String>,
}

/// The first document.
pub(super) fn parse(text: &str) -> Result<YamlNode, NotUnderstood> {
    let fault =
        |line: usize, why: &str| NotUnderstood::new(Some(SourcePlace { file: None, line }), why);
    let mut open: Vec<OpenNode> = Vec::new();
    let mut count = 0usize;
    for event in Parser::new_from_str(text) {
        // Its own words may repeat what stands in the file, which may be a secret.
        let (event, span) = event
            .map_err(|fault_| fault(fault_.marker().line(), "this is no YAML that is read here"))?;
        let line = span.start.line();
        count += 1;
        if count > MOST {
            return Err(fault(line, "it is too large"));
        }
        let done = match event {
            Event::Alias(_) => {
                return Err(fault(
                    line,
                    "aliases are not followed: write the value itself",
                ));
            }
            Event::Scalar(text, style, ..) => Some(YamlNode {
                line,
                value: YamlValue::Scalar(text.into_owned(), style == ScalarStyle::Plain),
            }),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= DEEPEST {
                    return Err(fault(line, "it is nested too deeply"));
                }
                let value = if matches!(event, Event::SequenceStart(..)) {
                    YamlValue::List(Vec::new())
                } else {
                    YamlValue::Map(Vec::new())
                };
                open.push(OpenNode {
                    node: YamlNode { line, value },
                    key: None,
                });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.node),
            Event::DocumentEnd => break,
            _ => None,
        };
        let Some(done) = done else { continue };
        let Some(parent) = open.last_mut() else {
            return Ok(done);
        };
        match &mut parent.node.value {
            YamlValue::List(list) => list.push(done),
            YamlValue::Map(pairs) => match (parent.key.take(), done.value) {
                (Some(key), value) => pairs.push((
                    key,
                    YamlNode {
                        line: done.line,
                        value,
                    },
                )),
                (None, YamlValue::Scalar(key, _)) => parent.key = Some(key),
                (None, _) => return Err(fault(line, "a key is a word")),
            },
            YamlValue::Scalar(..) => {}
        }
    }
    Err(fault(1, "there is nothing in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_lines() {
        let tree = parse("a: 1\nb:\n  - x\n  - \"null\"\nc: {d: yes, e: ~}\n").unwrap();
        assert_eq!(tree.get("a").and_then(YamlNode::text), Some("1"));
        let list = tree.get("b").unwrap().list().unwrap();
        assert_eq!((list[1].text(), list[1].line), (Some("null"), 4));
        assert_eq!(tree.get("c").unwrap().get("e").unwrap().text(), None);
    }

    #[test]
    fn bombs_are_refused() {
        let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert!(parse(laughs).unwrap_err().why.contains("aliases"));
        for deep in [40, 100_000] {
            assert!(parse(&"[".repeat(deep)).is_err());
            assert!(parse(&format!("{}{}", "[".repeat(deep), "]".repeat(deep))).is_err());
        }
        assert!(
            parse(&format!("[{}x]", "x, ".repeat(200_000)))
                .unwrap_err()
                .why
                .contains("too large")
        );
        for odd in ["", "a: [", "{a", "\u{0}", "- - -\n\t- x"] {
            let _ = parse(odd);
        }
    }
}
