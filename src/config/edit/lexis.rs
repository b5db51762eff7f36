//! Where comments and strings are in a text that is TOML, and what its lines are.

use std::ops::Range;

/// The comments of a text, each from `#` to the end of its line.
pub(super) fn comments(text: &str) -> Vec<Range<usize>> {
    let octets = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&octet) = octets.get(at) {
        match octet {
            b'#' => {
                let end = line_end(text, at);
                let length = text.get(at..end).unwrap_or_default().trim_end().len();
                found.push(at..at + length);
                at = end;
            }
            b'"' | b'\'' => at = string_end(octets, at, octet),
            _ => at += 1,
        }
    }
    found
}

/// Behind the string that begins at `at` with this quote.
fn string_end(octets: &[u8], at: usize, quote: u8) -> usize {
    let is_at = |at: usize, count: usize| {
        octets
            .get(at..at + count)
            .is_some_and(|some| some.iter().all(|octet| *octet == quote))
    };
    let count = if is_at(at, 3) { 3 } else { 1 };
    let mut at = at + count;
    while at < octets.len() {
        if quote == b'"' && octets.get(at) == Some(&b'\\') {
            at += 2;
        } else if is_at(at, count) {
            at += count;
            // Two more quotes may belong to the text itself.
            while count == 3 && octets.get(at) == Some(&quote) {
                at += 1;
            }
            return at;
        } else {
            at += 1;
        }
    }
    octets.len()
}

/// Behind blanks, line ends, comments and commas.
pub(super) fn skip(text: &str, mut at: usize) -> usize {
    while let Some(octet) = text.as_bytes().get(at) {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => at += 1,
            b'#' => at = line_end(text, at),
            _ => break,
        }
    }
    at
}

/// Behind the next comma that is in no comment, if nothing else stands before it.
pub(super) fn comma(text: &str, mut at: usize) -> Option<usize> {
    while let Some(octet) = text.as_bytes().get(at) {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'#' => at = line_end(text, at),
            b',' => return Some(at + 1),
            _ => return None,
        }
    }
    None
}

/// Where the line of `at` begins.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.rfind('\n').map_or(0, |found| found + 1)
}

/// Behind the line of `at`, with its line end.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.find('\n').map_or(text.len(), |found| at + found + 1)
}

/// How this file ends its lines: as its first line.
pub(super) fn newline(text: &str) -> &'static str {
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if first.ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_not_in_strings() {
        let text = "a = \"#\" # one\nb = '''\n# no''' # two\nc = \"\"\"x\\\"\"\"\" # \"three\nd = '\\' # four\n";
        let found: Vec<_> = comments(text).into_iter().map(|at| &text[at]).collect();
        assert_eq!(found, ["# one", "# two", "# \"three", "# four"]);
    }
}
