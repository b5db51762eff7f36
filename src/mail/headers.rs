//! Header fields in raw bytes: find, unfold, replace, remove, put on top. Whatever is not named stays as it is.
//!
//! Nobody re-serialises a message to change one field of it. It knows lines and names, not meanings:
//! addresses are `mailboxes`', where a header ends is `repair`'s, what may stand in it is `policy::content`'s. Names
//! compare without case (RFC 5322 §1.2.2).

use std::borrow::Cow;

use mail_parser::MessageParser;
use memchr::memchr;

/// Octets of a subject that are read.
const SUBJECT: usize = 2000;

/// One field, as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without the colon and without white space before it; empty when the first line of the header is no
    /// field (a continuation of nothing).
    pub name: &'a [u8],
    /// All its lines, with their line ends.
    pub raw: &'a [u8],
    /// Behind the colon, still folded, without the last line end.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether it has this name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// White space between name and colon: obsolete (RFC 5322 §4.5), and read in two ways.
    pub fn is_spaced(&self) -> bool {
        matches!(self.raw.get(self.name.len()), Some(b' ' | b'\t'))
    }

    /// Nothing but white space behind the colon.
    pub fn is_blank(&self) -> bool {
        self.value.trim_ascii().is_empty()
    }
}

/// The fields of a header (complete lines, without the empty one), in their order.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { rest: header }
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut end = line_end(self.rest);
        while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
            end += line_end(self.rest.get(end..).unwrap_or_default());
        }
        let (raw, rest) = self.rest.split_at(end);
        self.rest = rest;
        let (name, value) = match name_of(raw) {
            Some((name, colon)) => (
                raw.get(..name).unwrap_or_default(),
                raw.get(colon + 1..).unwrap_or_default(),
            ),
            None => (&raw[..0], raw),
        };
        Some(Field {
            name,
            raw,
            value: without_line_end(value),
        })
    }
}

/// The lines of a header, without their line ends.
pub fn lines(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = rest.split_at(line_end(rest));
        rest = after;
        Some(without_line_end(line))
    })
}

/// The value of the first field of that name, still folded.
pub fn value_of<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(header).find(|f| f.is(name)).map(|f| f.value)
}

/// The subject, to be read: decoded (RFC 2047), of one that is long the beginning. What a terminal or a page must not see is still in
/// it.
pub fn subject(header: &[u8]) -> Option<String> {
    let value = value_of(header, "Subject")?;
    let value = value.get(..value.len().min(SUBJECT)).unwrap_or_default();
    let field = [b"Subject:", value, b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&field)?;
    parsed.subject().map(str::to_owned)
}

/// A value on one line: every line end is taken out, the white space behind it stays (RFC 5322 §2.2.3).
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    Cow::Owned(
        value
            .iter()
            .copied()
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .collect(),
    )
}

/// Puts a field at the end. `value` holds its own folding.
pub fn append(header: &mut Vec<u8>, name: &str, value: &[u8]) {
    header.extend_from_slice(name.as_bytes());
    header.extend_from_slice(b": ");
    header.extend_from_slice(value);
    header.extend_from_slice(b"\r\n");
}

/// The header with every field of that name given another value; the others keep their bytes.
pub fn replace(header: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + value.len());
    for field in fields(header) {
        if field.is(name) {
            append(&mut out, name, value);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

/// The header without the fields of these names; the others keep their bytes.
pub fn remove(header: &[u8], names: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len());
    for field in fields(header) {
        if !names.iter().any(|name| field.is(name)) {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

/// Where the name of a field line ends and where its colon stands: printable ASCII (RFC 5322 §2.2), then white space
/// that should not be there, then the colon.
pub(crate) fn name_of(line: &[u8]) -> Option<(usize, usize)> {
    let name = line
        .iter()
        .position(|b| !matches!(b, b'!'..=b'9' | b';'..=b'~'))?;
    let colon = name
        + line
            .get(name..)?
            .iter()
            .position(|b| !matches!(b, b' ' | b'\t'))?;
    (name > 0 && line.get(colon) == Some(&b':')).then_some((name, colon))
}

/// Behind the line end of the first line.
fn line_end(text: &[u8]) -> usize {
    memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"Subject: a\r\n b\r\nfROM:x\r\nX-1 : y\r\nTo: z\r\n";

    #[test]
    fn reading() {
        let seen: Vec<_> = fields(HEADER)
            .map(|f| (f.name, f.value, f.is_spaced()))
            .collect();
        let expected: [(&[u8], &[u8], bool); 4] = [
            (b"Subject", b" a\r\n b", false),
            (b"fROM", b"x", false),
            (b"X-1", b" y", true),
            (b"To", b" z", false),
        ];
        assert_eq!(seen, expected);
        let raw: Vec<u8> = fields(HEADER).flat_map(|f| f.raw.to_vec()).collect();
        assert_eq!(raw, HEADER, "no byte is lost");
        assert_eq!(value_of(HEADER, "From"), Some(&b"x"[..]));
        assert_eq!(value_of(HEADER, "Fro"), None);
        assert_eq!(&*unfold(b" a\r\n b"), b" a b");
        assert_eq!(fields(b" x\r\nA: b\r\n").next().unwrap().name, b"");
    }

    #[test]
    fn changing() {
        assert_eq!(
            replace(HEADER, "SUBJECT", b"c"),
            b"SUBJECT: c\r\nfROM:x\r\nX-1 : y\r\nTo: z\r\n"
        );
        assert_eq!(
            remove(HEADER, &["from", "x-1"]),
            b"Subject: a\r\n b\r\nTo: z\r\n"
        );
        let mut header = b"A: b\r\n".to_vec();
        append(&mut header, "X", b"1\r\n\t2");
        assert_eq!(header, b"A: b\r\nX: 1\r\n\t2\r\n");
    }

    #[test]
    fn names() {
        for (line, expected) in [
            (&b"From: x"[..], Some((4, 4))),
            (b"From \t: x", Some((4, 6))),
            (b":x", None),
            (b" From: x", None),
            (b"From x: y", None),
            (b"Fr\xc3\xb6m: x", None),
            (b"From", None),
            (b"", None),
        ] {
            assert_eq!(name_of(line), expected, "{line:?}");
        }
    }
}
