//! A display name that was written without its quotes: `Doe, Jane <a@b>`.
//!
//! `mailboxes` takes a field as it stands. Such marks can belong to a name only where there is one address; what stands before
//! them never becomes an address. An encoded word means nothing inside quotes (RFC 2047 §5), so it stays outside them.

use super::{
    headers::unfold,
    lexer::{Lexeme, Lexer, TokenKind},
    text::quoted,
};

/// The value with its name quoted. `None` when nothing in it asks for that, or when it is not a name and one address in
/// brackets behind it.
pub fn in_quotes(value: &[u8]) -> Option<Vec<u8>> {
    let value = unfold(value);
    let value = value.trim_ascii();
    let open = value.iter().position(|b| *b == b'<')?;
    let (name, address) = value.split_at(open);
    let inside = address.strip_prefix(b"<")?.strip_suffix(b">")?;
    if inside.iter().any(|b| b"<>\"(),;:".contains(b)) {
        return None;
    }
    let mut lexer = Lexer::new(name);
    let mut words = Vec::new();
    let mut marked = false;
    loop {
        let token = lexer.next().ok()?;
        match token.kind {
            TokenKind::End => break,
            TokenKind::At | TokenKind::Open | TokenKind::Close => return None,
            TokenKind::Quoted if token.addressed => return None,
            TokenKind::Comma | TokenKind::Semicolon | TokenKind::Colon => marked = true,
            _ => {}
        }
        words.push(token);
    }
    if !marked || lexer.comments > 0 || lexer.escapes {
        return None;
    }
    let mut out = Vec::with_capacity(value.len() + 32);
    let mut charset: Option<&[u8]> = None;
    for run in words.chunk_by(|a, b| encoded(name, a).is_none() && encoded(name, b).is_none()) {
        let [first, ..] = run else { continue };
        if let Some(of) = encoded(name, first) {
            charset = Some(of);
            push(&mut out, name.get(first.start..first.end)?);
            continue;
        }
        let glued = charset.take().filter(|_| !first.spaced);
        text(name, run, glued, &mut out)?;
    }
    push(&mut out, address);
    Some(out)
}

/// Words that are no encoded words: in quotes where they need them. What hangs on an encoded word (`glued`: its charset)
/// would be drawn off it by quotes, and becomes one itself.
fn text(name: &[u8], run: &[Lexeme], glued: Option<&[u8]>, out: &mut Vec<u8>) -> Option<()> {
    let mut run = run;
    if let Some(charset) = glued {
        let mark = |w: &Lexeme| {
            matches!(
                w.kind,
                TokenKind::Comma | TokenKind::Semicolon | TokenKind::Colon
            )
        };
        let marks = run
            .iter()
            .enumerate()
            .take_while(|(i, w)| mark(w) && (*i == 0 || !w.spaced))
            .count();
        let (hanging, rest) = run.split_at(marks);
        if !hanging.is_empty() {
            let mut word = [b"=?", charset, b"?q?"].concat();
            for token in hanging {
                let b = name.get(token.start)?;
                word.extend_from_slice(format!("={b:02X}").as_bytes());
            }
            word.extend_from_slice(b"?=");
            push(out, &word);
        }
        run = rest;
    }
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Some(());
    };
    let raw = name.get(first.start..last.end)?;
    if run
        .iter()
        .all(|w| matches!(w.kind, TokenKind::Atom | TokenKind::Quoted))
    {
        push(out, raw);
        return Some(());
    }
    // Quotes inside are taken out: there is no backslash in here.
    let bare = raw.iter().copied().filter(|b| *b != b'"');
    push(out, &quoted(bare));
    Some(())
}

fn push(out: &mut Vec<u8>, word: &[u8]) {
    if !out.is_empty() {
        out.push(b' ');
    }
    out.extend_from_slice(word);
}

/// The charset of an encoded word (RFC 2047 §2).
fn encoded<'a>(name: &'a [u8], token: &Lexeme) -> Option<&'a [u8]> {
    let word = name.get(token.start..token.end)?;
    let inner = word.strip_prefix(b"=?")?.strip_suffix(b"?=")?;
    let mut parts = inner.split(|b| *b == b'?');
    let charset = parts.next().filter(|c| !c.is_empty())?;
    let encoding = parts.next()?;
    (token.kind == TokenKind::Atom && encoding.len() == 1 && parts.next().is_some())
        .then_some(charset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mailboxes;

    #[test]
    fn names_in_quotes() {
        for (value, expected) in [
            (" Doe, Jane <a@b>", Some("\"Doe, Jane\" <a@b>")),
            ("Doe,Jane<a@b> ", Some("\"Doe,Jane\" <a@b>")),
            ("Doe,\r\n Jane <a@b>", Some("\"Doe, Jane\" <a@b>")),
            ("Doe, <a@b>", Some("\"Doe,\" <a@b>")),
            (
                "Alert: disk; full <a@b>",
                Some("\"Alert: disk; full\" <a@b>"),
            ),
            ("Doe, Jane <root>", Some("\"Doe, Jane\" <root>")),
            ("Doe, \"Jane\" J. <a@b>", Some("\"Doe, Jane J.\" <a@b>")),
            ("M\u{fc}ller, J <a@b>", Some("\"M\u{fc}ller, J\" <a@b>")),
            ("CORP\\doe, x <a@b>", Some("\"CORP\\\\doe, x\" <a@b>")),
            (
                "=?utf-8?q?M=C3=BCller?=, Jane <a@b>",
                Some("=?utf-8?q?M=C3=BCller?= =?utf-8?q?=2C?= Jane <a@b>"),
            ),
            (
                "=?utf-8?b?TQ==?=,; Jane, x <a@b>",
                Some("=?utf-8?b?TQ==?= =?utf-8?q?=2C=3B?= \"Jane, x\" <a@b>"),
            ),
            (
                "Doe, =?utf-8?q?J?= <a@b>",
                Some("\"Doe,\" =?utf-8?q?J?= <a@b>"),
            ),
            (
                "=?utf-8?q?M?=, =?utf-8?q?J?= <a@b>",
                Some("=?utf-8?q?M?= =?utf-8?q?=2C?= =?utf-8?q?J?= <a@b>"),
            ),
            ("Jane Doe <a@b>", None),
            ("Doe, Jane", None),
            ("a@b, Jane <a@b>", None),
            ("Doe, Jane <a@b>, x", None),
            ("Doe, Jane <a@b> (x)", None),
            ("<a@b>, Doe <a@b>", None),
            ("Doe, (x) Jane <a@b>", None),
            ("\"<x@y>\", Jane <a@b>", None),
            ("\"x\\\"\", Jane <a@b>", None),
            ("\"x, Jane <a@b>", None),
            ("Doe, Jane <a@b,c@d>", None),
            ("Doe, Jane <<a@b>>", None),
            ("Doe\0, Jane <a@b>", None),
        ] {
            let found = in_quotes(value.as_bytes()).map(|v| String::from_utf8(v).unwrap());
            assert_eq!(found.as_deref(), expected, "{value:?}");
            if let Some(value) = found.filter(|v| !v.contains("root")) {
                let read = mailboxes::parse(value.as_bytes()).unwrap();
                assert_eq!(read.len(), 1, "{value:?}");
            }
        }
    }
}
