//! Who stands in a field of addresses, with the name people know them by.
//!
//! It forgives what `mailboxes`, on which the allowlist stands, must not: lists with semicolons, apostrophes, two
//! addresses without a comma. That is safe here, and only here, since of what is found nothing is kept but the addresses that the
//! envelope has already, each written anew. It decides nothing.

use std::borrow::Cow;

use crate::mail::{address::Address, headers, mailboxes};

/// An address of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) address: Address,
    /// As it stands there: quotes, encoded words and all. Empty when there is none.
    pub(super) name: Vec<u8>,
}

/// Everybody in a field value (still folded), as far as they can be made out.
pub(super) fn listed(value: &[u8]) -> Vec<Person> {
    let Ok(found) = mailboxes::parse(value) else {
        return made_out(&headers::unfold(value));
    };
    let mut people = Vec::new();
    for mailbox in found.into_iter().filter(|mailbox| !mailbox.in_name) {
        let raw = value.get(mailbox.name.clone()).unwrap_or_default();
        let mut name = headers::unfold(raw).trim_ascii().to_vec();
        if name.is_empty() {
            let end = mailbox.span.end + usize::from(mailbox.bracketed);
            name = comment(value.get(end..).unwrap_or_default());
        }
        people.push(Person {
            address: mailbox.address,
            name,
        });
    }
    people
}

/// The comment that follows an address: a name, before there were names (RFC 5322 §A.5). One with an address in it is none.
fn comment(behind: &[u8]) -> Vec<u8> {
    let behind = headers::unfold(behind);
    let Some(inner) = behind.trim_ascii_start().strip_prefix(b"(") else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let (mut depth, mut octets) = (1, inner.iter());
    while let Some(b) = octets.next() {
        match b {
            b'\\' => out.extend(octets.next()),
            b'(' => depth += 1,
            b')' if depth == 1 => break,
            b')' => depth -= 1,
            _ => {}
        }
        if *b != b'\\' {
            out.push(*b);
        }
    }
    plain_name(&out)
}

/// A name without quotes around it; whatever could be read as more than a name is dropped.
fn plain_name(text: &[u8]) -> Vec<u8> {
    if text.iter().any(|b| matches!(b, b'@' | b'<' | b'>')) {
        return Vec::new();
    }
    let quotes = |b: &&u8| !matches!(b, b'"' | b'\\');
    let name: Vec<u8> = text.iter().filter(quotes).copied().collect();
    name.trim_ascii().to_vec()
}

/// Of a field that is not understood: what can be made out, piece by piece.
fn made_out(text: &[u8]) -> Vec<Person> {
    pieces(text)
        .iter()
        .flat_map(|piece| person(piece))
        .collect()
}

/// Between commas, semicolons, and behind each `>`; without the names of groups.
fn pieces(text: &[u8]) -> Vec<Vec<u8>> {
    let count = |wanted: u8| memchr::memchr_iter(wanted, text).count();
    // A quote or a parenthesis that has no end would take all the rest with it.
    let has_quotes = count(b'"').is_multiple_of(2);
    let has_comments = count(b'(') == count(b')');
    let mut all = Vec::new();
    let mut piece = Vec::new();
    let (mut quoted, mut depth, mut angle) = (false, 0_usize, false);
    let mut octets = text.iter();
    while let Some(b) = octets.next() {
        match b {
            b'\\' if quoted || depth > 0 => {
                piece.push(*b);
                piece.extend(octets.next());
                continue;
            }
            b'"' if has_quotes && depth == 0 => quoted = !quoted,
            b'(' if has_comments && !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            _ if quoted || depth > 0 => {}
            b',' | b';' if !angle => {
                all.push(std::mem::take(&mut piece));
                continue;
            }
            // A group's name, or `mailto`.
            b':' if !angle && !piece.contains(&b'@') => {
                piece.clear();
                continue;
            }
            b'<' => angle = true,
            b'>' => {
                angle = false;
                piece.push(*b);
                all.push(std::mem::take(&mut piece));
                continue;
            }
            _ => {}
        }
        piece.push(*b);
    }
    all.push(piece);
    all
}

fn person(piece: &[u8]) -> Vec<Person> {
    let address = |text: &[u8]| {
        let text = text.trim_ascii();
        let inner = text
            .iter()
            .position(|b| !matches!(b, b'\'' | b'"' | b'`' | b'<' | b'>' | b' '));
        let text = text.get(inner.unwrap_or_default()..).unwrap_or_default();
        let end = text
            .iter()
            .rposition(|b| !matches!(b, b'\'' | b'"' | b'`' | b'<' | b'>' | b' ' | b'.'));
        let text = text.get(..=end?).unwrap_or_default();
        Address::parse(std::str::from_utf8(text).ok()?).ok()
    };
    if let Some(open) = memchr::memrchr(b'<', piece) {
        let (before, behind) = piece.split_at(open);
        let inner = behind.split(|b| *b == b'>').next().unwrap_or_default();
        let name = before.trim_ascii();
        let is_whole = name.first() == Some(&b'"') && name.last() == Some(&b'"') && name.len() > 1;
        let name = if is_whole {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(plain_name(name))
        };
        let found = address(inner).map(|address| Person {
            address,
            name: name.into_owned(),
        });
        return found.into_iter().collect();
    }
    let words = piece.split(u8::is_ascii_whitespace);
    let found = words.filter(|word| word.contains(&b'@'));
    found
        .filter_map(|word| {
            // Of `x@a.b(Name)` the first part.
            let word = word.split(|b| *b == b'(').next().unwrap_or_default();
            Some(Person {
                address: address(word)?,
                name: Vec::new(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        let people = listed(value.as_bytes());
        let each = people.iter().map(|person| {
            let name = String::from_utf8_lossy(&person.name);
            match name.as_ref() {
                "" => person.address.to_string(),
                name => format!("{name}={}", person.address),
            }
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn fields_that_are_no_list_are_made_out() {
        for (value, expected) in [
            ("x@a.b; y@a.b", "x@a.b y@a.b"),
            ("x@a.b;", "x@a.b"),
            (";x@a.b,;y@a.b", "x@a.b y@a.b"),
            ("'x@a.b'", "x@a.b"),
            ("'x@a.b'; 'y@a.b'", "x@a.b y@a.b"),
            ("<x@a.b> <y@a.b>", "x@a.b y@a.b"),
            ("Jane <x@a.b> Bob <y@a.b>", "Jane=x@a.b Bob=y@a.b"),
            ("Doe; Jane <x@a.b>; y@a.b", "Jane=x@a.b y@a.b"),
            ("\"Doe; Jane\" <x@a.b>; y@a.b", "\"Doe; Jane\"=x@a.b y@a.b"),
            ("team: x@a.b, Y <y@a.b>", "x@a.b Y=y@a.b"),
            ("x@a.b y@a.b", "x@a.b y@a.b"),
            ("mailto:x@a.b", "x@a.b"),
            ("\"Jane <x@a.b>, y@a.b", "Jane=x@a.b y@a.b"),
            ("Jane (x <x@a.b>, y@a.b", "Jane (x=x@a.b y@a.b"),
            ("<<x@a.b>>", "x@a.b"),
            ("<x@a.b", "x@a.b"),
            ("x@a.b.;", "x@a.b"),
            ("nobody", ""),
            ("", ""),
            ("<>", ""),
            // What is none, and what could be taken for more than a name.
            ("v@w <x@a.b>;", "x@a.b"),
            ("x@", ""),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }

    #[test]
    fn a_comment_behind_an_address_is_its_name() {
        for (value, expected) in [
            ("x@a.b (Front desk)", "Front desk=x@a.b"),
            (
                "x@a.b\r\n (Front\r\n desk), y@a.b",
                "Front desk=x@a.b y@a.b",
            ),
            ("<x@a.b> (Jane)", "Jane=x@a.b"),
            ("Jane <x@a.b> (work)", "Jane=x@a.b"),
            ("x@a.b (a (b) \\) \"c\")", "a (b) ) c=x@a.b"),
            ("x@a.b (v@victim.tld)", "x@a.b"),
            ("(before) x@a.b", "x@a.b"),
            ("x@a.b ()", "x@a.b"),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }
}
