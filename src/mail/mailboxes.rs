//! The judge's reader of From, Sender, To and their like: it understands the whole field or it errs.
//!
//! The allowlist stands on it: a library that repairs what it reads sees other addresses than the next
//! reader. The grammar is RFC 5322 §3.4 without its obsolete forms inside an address; encoded words are plain atoms,
//! nothing is decoded. Two leniencies: unquoted words before one final `<address>` are its name, with whatever they
//! hold, and a bare local part may be completed. [`judged`] takes of that only what every reader reads alike; [`parse`]
//! is for those who only want to know who is named. Linear time, no recursion.

use std::ops::Range;

use super::{
    address::{Address, AddressError, Domain},
    lexer::{Lexeme, Lexer, TokenKind, looked_at},
};

pub use super::lexer::MailboxError;
pub(crate) use super::lexer::unfolded_inside;

/// An address of a field, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The canonical address.
    pub address: Address,
    /// The octets to replace when another address takes its place: all between `<` and `>`, or from the local part to the
    /// domain.
    pub span: Range<usize>,
    /// The display name, as it stands; empty when there is none.
    pub name: Range<usize>,
    /// It stands in the display name of the next one: `a@b <a@b>`.
    pub in_name: bool,
    /// A source route (`<@a,@b:c@d>`) stands before it.
    pub routed: bool,
    /// It stands between `<` and `>`.
    pub bracketed: bool,
    /// Only its local part stands there.
    pub bare: bool,
}

/// A line ends inside a quoted string or a comment. Without that line end ([`unfolded_inside`]) the value has one reading.
pub(crate) const FOLDED: MailboxError =
    MailboxError::Syntax("a line ends inside a quoted string or a comment");

const NO_ADDRESS: MailboxError = MailboxError::Syntax("words that are no address");

/// Which single words without `<` and `>` are bare local parts. Between them every bare local part is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Any: `To: root, admin`.
    All,
    /// A word alone (`Sender: root`), or beside an address without `<` and `>` (`root, a@b`). Words before a comma and
    /// one `Name <a@b>` are a name that was cut in two.
    Alone,
    /// Only beside an address without `<` and `>`: a word alone is a name.
    Beside,
}

/// What [`judged`] takes in a field.
#[derive(Debug, Clone, Copy)]
pub struct FieldRules<'a> {
    /// Completes a bare local part; without it there may be none.
    pub default_domain: Option<&'a Domain>,
    /// Where a single word is one.
    pub words: Words,
    /// Whether it may hold groups (RFC 5322 §3.4): some readers take a group in From for one address.
    pub groups: bool,
    /// Whether an address may be other than ASCII (RFC 6532 §3.2): the client asked for SMTPUTF8.
    pub utf8: bool,
}

/// Reads a field value (still folded) as a list of mailboxes; groups are flattened, so the list may be empty.
///
/// # Errors
/// The first thing that is not understood, or that others read in another way.
pub fn parse(value: &[u8]) -> Result<Vec<Mailbox>, MailboxError> {
    Reader::new(value, None).read()
}

/// As [`parse`], but takes only what every reader reads alike: a name with an `@` outside quotes is the very address behind
/// it, and a quoted string with an address in it is a whole name without a backslash.
///
/// # Errors
/// As [`parse`].
pub fn judged(value: &[u8], kind: FieldRules<'_>) -> Result<Vec<Mailbox>, MailboxError> {
    Reader::new(value, Some(kind)).read()
}

/// The value with other text at these places, which stand in order; `None` when there are none.
pub fn substitute(value: &[u8], changes: &[(Range<usize>, String)]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len() + 64);
    let mut copied = 0;
    for (span, text) in changes {
        out.extend_from_slice(value.get(copied..span.start).unwrap_or_default());
        out.extend_from_slice(text.as_bytes());
        copied = span.end;
    }
    out.extend_from_slice(value.get(copied..).unwrap_or_default());
    (!changes.is_empty()).then_some(out)
}

struct Reader<'a> {
    value: &'a [u8],
    lexer: Lexer<'a>,
    kind: Option<FieldRules<'a>>,
    mailboxes: Vec<Mailbox>,
    words: Vec<Lexeme>,
    /// How many comments stood before this mailbox.
    comments: usize,
}

impl<'a> Reader<'a> {
    fn new(value: &'a [u8], kind: Option<FieldRules<'a>>) -> Self {
        Self {
            value,
            lexer: Lexer::new(value),
            kind,
            mailboxes: Vec::new(),
            words: Vec::new(),
            comments: 0,
        }
    }

    fn read(mut self) -> Result<Vec<Mailbox>, MailboxError> {
        // Behind `<address>` or a group nothing but a separator may follow.
        let mut closed = false;
        let mut in_group = false;
        loop {
            let token = self.lexer.next()?;
            match token.kind {
                TokenKind::End | TokenKind::Comma | TokenKind::Semicolon => {
                    self.plain()?;
                    closed = false;
                    match (token.kind, in_group) {
                        (TokenKind::End, true) => {
                            return Err(MailboxError::Syntax("a group has no end"));
                        }
                        (TokenKind::End, false) => return self.finish(),
                        (TokenKind::Semicolon, false) => {
                            return Err(MailboxError::Syntax("a semicolon outside a group"));
                        }
                        (TokenKind::Semicolon, true) => {
                            in_group = false;
                            closed = true;
                        }
                        _ => {}
                    }
                }
                _ if closed => {
                    return Err(MailboxError::Syntax(
                        "something follows an address or a group",
                    ));
                }
                TokenKind::Colon => {
                    looked_at(self.words.len());
                    if in_group
                        || self.words.is_empty()
                        || self.words.iter().any(|w| w.kind == TokenKind::At)
                    {
                        return Err(MailboxError::Syntax("a colon where none may be"));
                    }
                    if self.kind.is_some_and(|kind| !kind.groups) {
                        return Err(MailboxError::Syntax("a group where none may be"));
                    }
                    self.whole_strings(0)?;
                    self.words.clear();
                    self.comments = self.lexer.comments;
                    in_group = true;
                }
                TokenKind::Open => {
                    self.angle(token.start)?;
                    closed = true;
                }
                TokenKind::Close => return Err(MailboxError::Syntax("a > without <")),
                _ => self.words.push(token),
            }
        }
    }

    fn finish(self) -> Result<Vec<Mailbox>, MailboxError> {
        let Some(kind) = self.kind else {
            return Ok(self.mailboxes);
        };
        if !self.lexer.folds.is_empty() {
            return Err(FOLDED);
        }
        if self.lexer.odd_comment {
            return Err(MailboxError::Syntax(
                "a comment with a comment, a quote or a backslash in it, which others end elsewhere",
            ));
        }
        // Who knows no `\"` takes the quotes the other way round, here and in what follows.
        if self.lexer.addresses > 0 && self.lexer.escapes {
            return Err(MailboxError::Syntax(
                "an address in a quoted string, and a backslash beside it",
            ));
        }
        let word = |m: &Mailbox| m.bare && !m.bracketed;
        let beside = self
            .mailboxes
            .iter()
            .any(|m| !m.bracketed && !m.in_name && !m.bare);
        let alone = kind.words == Words::Alone && self.mailboxes.len() == 1;
        if self.mailboxes.iter().any(word) && kind.words != Words::All && !beside && !alone {
            return Err(NO_ADDRESS);
        }
        Ok(self.mailboxes)
    }

    /// `local@domain` without brackets, or a bare word.
    fn plain(&mut self) -> Result<(), MailboxError> {
        self.comments = self.lexer.comments;
        if self.words.is_empty() {
            return Ok(());
        }
        looked_at(self.words.len());
        let words = std::mem::take(&mut self.words);
        let bare = !words.iter().any(|w| w.kind == TokenKind::At);
        // Quoted words without brackets are a name.
        if bare && words.iter().any(|w| w.kind == TokenKind::Quoted) {
            return Err(NO_ADDRESS);
        }
        let (address, span) = self.address(&words)?;
        self.mailboxes.push(Mailbox {
            address,
            name: span.start..span.start,
            span,
            in_name: false,
            routed: false,
            bracketed: false,
            bare,
        });
        Ok(())
    }

    /// The rest of `<address>`, behind the `<`; the route is dropped (RFC 5322 §4.4).
    fn angle(&mut self, at: usize) -> Result<(), MailboxError> {
        let name = match (self.words.first(), self.words.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => at..at,
        };
        let in_name = self.named()?;
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let mut routed = false;
        let start = self.lexer.at;
        let close = loop {
            let token = self.lexer.next()?;
            let in_route = !routed && words.first().is_some_and(|w| w.kind == TokenKind::At);
            match token.kind {
                TokenKind::Close => break token,
                TokenKind::Comma if in_route => {}
                TokenKind::Colon if in_route => {
                    routed = true;
                    words.clear();
                }
                TokenKind::End => return Err(MailboxError::Syntax("a < without >")),
                TokenKind::Comma | TokenKind::Colon | TokenKind::Semicolon | TokenKind::Open => {
                    return Err(MailboxError::Syntax("not one address between < and >"));
                }
                _ => words.push(token),
            }
        };
        let (address, _) = self.address(&words)?;
        if let Some(mailbox) = &in_name
            && self.kind.is_some()
            && !mailbox
                .address
                .to_string()
                .eq_ignore_ascii_case(&address.to_string())
        {
            return Err(MailboxError::Syntax(
                "another address in the name of an address",
            ));
        }
        self.mailboxes.extend(in_name);
        self.mailboxes.push(Mailbox {
            address,
            span: start..close.start,
            name,
            in_name: false,
            routed,
            bracketed: true,
            bare: !words.iter().any(|w| w.kind == TokenKind::At),
        });
        Ok(())
    }

    /// The address in the unquoted words of a name.
    fn named(&mut self) -> Result<Option<Mailbox>, MailboxError> {
        self.whole_strings(1)?;
        looked_at(self.words.len());
        if !self.words.iter().any(|w| w.kind == TokenKind::At) {
            return Ok(None);
        }
        if self.kind.is_some() {
            let joined = self.words.iter().skip(1).all(|w| !w.spaced);
            let plain =
                |w: &Lexeme| matches!(w.kind, TokenKind::Atom | TokenKind::Dot | TokenKind::At);
            if !joined || !self.words.iter().all(plain) || self.lexer.comments > self.comments {
                return Err(MailboxError::Syntax(
                    "a name with an @ outside quotes that is not the address behind it",
                ));
            }
        }
        let mut found = None;
        for run in self.words.chunk_by(|_, next| !next.spaced) {
            if run.iter().any(|w| w.kind == TokenKind::At) {
                let mut inner = run.to_vec();
                strip_apostrophes(self.value, &mut inner);
                let (address, span) = self.addr_spec(&inner)?;
                // Readers that know no such apostrophes take them for a part of it: they go, too.
                let span = match (self.kind, run.first(), run.last()) {
                    (Some(_), Some(first), Some(last)) => first.start..last.end,
                    _ => span,
                };
                found = Some(Mailbox {
                    address,
                    name: span.start..span.start,
                    span,
                    in_name: true,
                    routed: false,
                    bracketed: false,
                    bare: false,
                });
                if self.kind.is_none() {
                    self.mailboxes.extend(found.take());
                }
            }
        }
        Ok(found)
    }

    /// A quoted string with an address in it is taken for what it is only where nothing stands beside it: `most` such
    /// strings, each a name of its own.
    fn whole_strings(&self, most: usize) -> Result<(), MailboxError> {
        looked_at(self.words.len());
        let addressed = |w: &Lexeme| w.kind == TokenKind::Quoted && w.addressed;
        if self.kind.is_none() || !self.words.iter().any(addressed) {
            return Ok(());
        }
        if self.words.len() > most || self.lexer.comments > self.comments {
            return Err(MailboxError::Syntax(
                "an address in a quoted string that is not the whole name",
            ));
        }
        Ok(())
    }

    /// An address, or a bare local part, completed.
    fn address(&self, words: &[Lexeme]) -> Result<(Address, Range<usize>), MailboxError> {
        looked_at(words.len());
        let (Some(kind), Some(first), Some(last)) = (self.kind, words.first(), words.last()) else {
            return self.addr_spec(words);
        };
        if words.iter().any(|w| w.kind == TokenKind::At) {
            return self.addr_spec(words);
        }
        let local = dotted(self.value, words, TokenKind::Quoted).ok_or(NO_ADDRESS)?;
        let domain = kind.default_domain.ok_or(MailboxError::Syntax(
            "an address has no @domain and no default_domain is configured",
        ))?;
        no_encoded_word(local)?;
        let address = Address::complete(self.text(local)?, domain)?;
        Ok((address, first.start..last.end))
    }

    /// RFC 5322 §3.4.1, comments and white space only around the `@` and at the borders.
    fn addr_spec(&self, words: &[Lexeme]) -> Result<(Address, Range<usize>), MailboxError> {
        let at = words
            .iter()
            .position(|w| w.kind == TokenKind::At)
            .ok_or(NO_ADDRESS)?;
        let (local, domain) = (&words[..at], &words[at + 1..]);
        let local_text = dotted(self.value, local, TokenKind::Quoted).ok_or(NO_ADDRESS)?;
        let domain_text = dotted(self.value, domain, TokenKind::Literal).ok_or(NO_ADDRESS)?;
        no_encoded_word(local_text)?;
        let text = [local_text, b"@", domain_text].concat();
        let address = Address::parse(self.text(&text)?)?;
        match (words.first(), words.last()) {
            (Some(first), Some(last)) => Ok((address, first.start..last.end)),
            _ => Err(NO_ADDRESS),
        }
    }

    /// The text of an address, or of a part of one.
    fn text<'t>(&self, octets: &'t [u8]) -> Result<&'t str, MailboxError> {
        let text = str::from_utf8(octets)
            .map_err(|_| MailboxError::Unicode("an address that is not valid UTF-8"))?;
        if !text.is_ascii() && self.kind.is_some_and(|kind| !kind.utf8) {
            return Err(MailboxError::Unicode(
                "an address that is not ASCII, and MAIL was said without SMTPUTF8",
            ));
        }
        Ok(text)
    }
}

/// The name in a value that holds no address at all: without `@`, and without angle brackets but for an empty pair at the
/// end. `None` when there may be an address, or a control character.
pub(crate) fn name_alone(value: &[u8]) -> Option<&[u8]> {
    let trimmed = value.trim_ascii_end();
    let name = match trimmed.strip_suffix(b">") {
        Some(inner) => inner.trim_ascii_end().strip_suffix(b"<")?,
        None => trimmed,
    };
    let clean = name
        .iter()
        .all(|&b| !matches!(b, b'@' | b'<' | b'>' | 127) && (b >= b' ' || b"\t\r\n".contains(&b)));
    (clean && !is_group(value)).then_some(name)
}

/// `staff:;` or `staff: anna, bert;`: a list of others (RFC 5322 §3.4), and nobody's name.
fn is_group(value: &[u8]) -> bool {
    let mut lexer = Lexer::new(value);
    let (mut colon, mut last) = (false, TokenKind::End);
    loop {
        match lexer.next().map(|token| token.kind) {
            Ok(TokenKind::End) => return colon && last == TokenKind::Semicolon,
            Ok(mark) => {
                colon |= mark == TokenKind::Colon;
                last = mark;
            }
            // What no reader takes apart is as it looks.
            Err(_) => {
                return value.contains(&b':') && value.trim_ascii_end().ends_with(b";");
            }
        }
    }
}

/// Words alone (RFC 5322 §3.2.5), quoted ones on one line: a display name that needs no other quotes.
pub(crate) fn is_phrase(value: &[u8]) -> bool {
    let mut lexer = Lexer::new(value);
    loop {
        match lexer.next().map(|t| t.kind) {
            Ok(TokenKind::End) => return lexer.comments == 0 && lexer.folds.is_empty(),
            Ok(TokenKind::Atom | TokenKind::Quoted) => {}
            _ => return false,
        }
    }
}

/// `'a@b' <a@b>`, as Outlook writes it.
fn strip_apostrophes(value: &[u8], run: &mut [Lexeme]) {
    let framed = |t: Option<&Lexeme>, at: fn(&Lexeme) -> usize| {
        t.is_some_and(|t| t.kind == TokenKind::Atom && value.get(at(t)) == Some(&b'\''))
    };
    if framed(run.first(), |t| t.start) && framed(run.last(), |t| t.end - 1) {
        if let Some(first) = run.first_mut() {
            first.start += 1;
        }
        if let Some(last) = run.last_mut() {
            last.end -= 1;
        }
    }
}

impl From<AddressError> for MailboxError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Syntax(_) => Self::Syntax("not a valid address"),
            AddressError::Unicode(why) => Self::Unicode(why),
        }
    }
}

/// Readers that decode before they parse find another address in it.
fn no_encoded_word(local: &[u8]) -> Result<(), MailboxError> {
    if local.windows(2).any(|w| w == b"=?") {
        return Err(MailboxError::Syntax("an encoded word in an address"));
    }
    Ok(())
}

/// The text of atoms and dots without a gap, or of one token of the other kind.
fn dotted<'a>(value: &'a [u8], words: &[Lexeme], other: TokenKind) -> Option<&'a [u8]> {
    let (first, last) = (words.first()?, words.last()?);
    let one = words.len() == 1 && first.kind == other;
    let atoms = words
        .iter()
        .all(|w| matches!(w.kind, TokenKind::Atom | TokenKind::Dot))
        && words.iter().skip(1).all(|w| !w.spaced);
    (one || atoms)
        .then(|| value.get(first.start..last.end))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::lexer::STEPS;

    /// Addresses in order; those in a name with `~` before them.
    fn check(value: &str, expected: &[&str]) {
        let found = parse(value.as_bytes()).unwrap_or_else(|e| panic!("{value:?}: {e}"));
        let seen: Vec<String> = found
            .iter()
            .map(|m| format!("{}{}", if m.in_name { "~" } else { "" }, m.address))
            .collect();
        assert_eq!(seen, expected, "{value:?}");
        for m in &found {
            // What stands at the span reads as the address, and what is printed reads back.
            let other = Address::parse("other@x.example").unwrap();
            let replaced = format!("{}{other}{}", &value[..m.span.start], &value[m.span.end..]);
            let again = parse(replaced.as_bytes()).unwrap();
            assert!(again.iter().any(|m| m.address == other), "{replaced:?}");
            assert_eq!(again.len(), found.len(), "{replaced:?}");
            assert_eq!(
                Address::parse(&m.address.to_string()).as_ref(),
                Ok(&m.address)
            );
        }
    }

    #[test]
    fn understood() {
        for (value, expected) in [
            (" a@corp.com", &["a@corp.com"][..]),
            ("<a@corp.com>", &["a@corp.com"]),
            ("A B <a@Corp.Com.>", &["a@corp.com"]),
            ("A. B. C <a@corp.com>", &["a@corp.com"]),
            ("\"A, <B>\" <a@corp.com>", &["a@corp.com"]),
            ("\"ceo@evil.tld\" <a@corp.com>", &["a@corp.com"]),
            ("\"John \\\"Jack\\\" Doe\" <a@corp.com>", &["a@corp.com"]),
            ("a@corp.com (Cron (nested) Daemon)", &["a@corp.com"]),
            ("(x) a@corp.com", &["a@corp.com"]),
            ("(x\\)y) a@corp.com", &["a@corp.com"]),
            ("a (x) @ (y) corp.com", &["a@corp.com"]),
            ("x\r\n <a@corp.com>\r\n ", &["a@corp.com"]),
            ("a@b, , c@d,", &["a@b", "c@d"]),
            ("x: a@b, C <c@d>;", &["a@b", "c@d"]),
            ("undisclosed-recipients:;", &[]),
            ("Undisclosed recipients: ;", &[]),
            ("x:;, a@b", &["a@b"]),
            ("", &[]),
            ("<@evil.tld:a@corp.com>", &["a@corp.com"]),
            ("X <@a,@b:a@corp.com>", &["a@corp.com"]),
            ("\"a b\"@corp.com", &["\"a b\"@corp.com"]),
            ("\"a\"@corp.com", &["a@corp.com"]),
            ("<\"x@evil.tld\"@corp.com>", &["\"x@evil.tld\"@corp.com"]),
            ("a@[10.0.0.5]", &["a@[10.0.0.5]"]),
            ("[Alert 1.2] disk <a@corp.com>", &["a@corp.com"]),
            ("CORP\\user <a@corp.com>", &["a@corp.com"]),
            ("B\u{fc}ro \u{202e} <a@corp.com>", &["a@corp.com"]),
            ("=?utf-8?q?ceo=40evil.tld?= <a@corp.com>", &["a@corp.com"]),
            ("a@b <a@b>", &["~a@b", "a@b"]),
            ("'a@b' <a@b>", &["~a@b", "a@b"]),
            ("x ceo@evil.tld y <a@b>", &["~ceo@evil.tld", "a@b"]),
            ("\"c\"@evil.tld <a@b>", &["~c@evil.tld", "a@b"]),
            ("\"x\"<a@b>", &["a@b"]),
            ("x<a@b>", &["a@b"]),
            ("ilo.@corp.com", &["ilo.@corp.com"]),
        ] {
            check(value, expected);
        }
    }

    #[test]
    fn refused() {
        let deep = format!("{}{} a@b", "(".repeat(40), ")".repeat(40));
        for value in [
            "x <ceo@evil.tld> <a@corp.com>",
            "<a@corp.com> x",
            "<a@corp.com> <b@corp.com>",
            "<<a@corp.com>>",
            "<a@corp.com",
            "a@corp.com>",
            "<>",
            "x <>",
            "root",
            "Doe, John <a@corp.com>",
            "a@corp.com; b@corp.com",
            "a@corp.com b@corp.com",
            "x a@corp.com",
            "ceo@evil.tld@corp.com",
            "<ceo@evil.tld@corp.com>",
            "<a@corp.com, ceo@evil.tld>",
            "\"x\" ceo@evil.tld",
            "ceo@evil.tld (<a@corp.com>)",
            "(<ceo@evil.tld>) a@corp.com",
            "\"\\\" <ceo@evil.tld> \" <a@corp.com>",
            "x \\\" <ceo@evil.tld> \" <a@corp.com>",
            "\"x <a@corp.com>",
            "(x a@corp.com",
            "x) a@corp.com",
            "a@evil.tld (x) .corp.com",
            "a@evil.tld .corp.com",
            "a . b@corp.com",
            "a@corp .com",
            "a@corp.com\r\nFrom: b@c",
            "a@corp.com\0",
            "a\u{1b}b <a@corp.com>",
            "\"a\u{7}\" <a@corp.com>",
            "bu\u{308}ro@corp.com",
            "ceo\u{ff20}evil.tld@corp.com",
            "a@corp\u{ff0e}com",
            "=?utf-8?q?ceo=40evil.tld=3e?=@corp.com",
            "x@[corp.com]",
            "[ceo@evil.tld] <a@corp.com>",
            "Scanner: x <a@corp.com>",
            "x: y: a@b;;",
            "x: a@b; c@d",
            "a@b: c@d;",
            ": a@b;",
            ".x@corp.com",
            "..x@corp.com",
            "@evil.tld:a@corp.com",
            "<@evil.tld a@corp.com>",
            "ceo @evil.tld <a@corp.com>",
            "a@corp.com,\"",
            deep.as_str(),
        ] {
            let found = parse(value.as_bytes());
            assert!(found.is_err(), "{value:?}: {found:?}");
        }
    }

    /// As `check`, by the judge; completed ones have `!` before them.
    fn judge(value: &str, words: Words, groups: bool, domain: Option<&str>) -> Option<String> {
        let domain = domain.map(|d| Domain::parse(d).unwrap());
        let kind = FieldRules {
            default_domain: domain.as_ref(),
            words,
            groups,
            utf8: false,
        };
        let found = judged(value.as_bytes(), kind).ok()?;
        let seen: Vec<String> = found
            .iter()
            .map(|m| {
                let mark = match (m.in_name, m.bare) {
                    (true, _) => "~",
                    (_, true) => "!",
                    _ => "",
                };
                format!("{mark}{}", m.address)
            })
            .collect();
        Some(seen.join(" "))
    }

    #[test]
    fn one_reading_for_all() {
        for (value, expected) in [
            ("a@b.c <a@b.c>", Some("~a@b.c a@b.c")),
            ("A@B.c <a@b.C>", Some("~A@b.c a@b.c")),
            ("a@b.c. <a@b.c>", Some("~a@b.c a@b.c")),
            ("'a@b.c' <a@b.c>", Some("~a@b.c a@b.c")),
            ("a@b.c\r\n <a@b.c>, d@e", Some("~a@b.c a@b.c d@e")),
            // Words, quotes, apostrophes, comments, other addresses beside the `@` word.
            ("a@b.c .evil.tld <a@b.c>", None),
            ("a@b.c evil.tld <a@b.c>", None),
            ("a@b.c (x) .evil.tld <a@b.c>", None),
            ("a@b.c(x) <a@b.c>", None),
            ("(x)a@b.c <a@b.c>", None),
            ("x a@b.c <a@b.c>", None),
            ("a@b.c x <a@b.c>", None),
            ("a@b.c - <a@b.c>", None),
            ("a@b.c' <a@b.c>", None),
            ("'a@b.c <a@b.c>", None),
            ("''a@b.c'' <a@b.c>", None),
            ("'a@b.c' .evil.tld <a@b.c>", None),
            ("'a@b.c'.evil.tld <a@b.c>", None),
            ("\"x\" a@b.c <a@b.c>", None),
            ("a@b.c \"x\" <a@b.c>", None),
            ("\"a\"@b.c <a@b.c>", None),
            ("a@b.c a@b.c <a@b.c>", None),
            ("a @b.c <a@b.c>", None),
            ("a@b .c <a@b.c>", None),
            ("a@b.d <a@b.c>", None),
            ("a@[10.0.0.5] <a@[10.0.0.5]>", None),
            ("=?utf-8?q?x?= a@b.c <a@b.c>", None),
            ("CORP\\a@b.c <a@b.c>", None),
            ("a@b.c, a@b.c .evil.tld <a@b.c>", None),
            // Several quoted strings: one with an address in it only by itself, and without a backslash anywhere.
            ("\"Jane\" \"Doe\" <a@b.c>", Some("a@b.c")),
            ("\"Jane \\\"J\\\"\" Doe <a@b.c>", Some("a@b.c")),
            ("\"<x@y>\" <a@b.c>", Some("a@b.c")),
            ("\"a@b.c\" <a@b.c> (x), \"J\" <d@e>", Some("a@b.c d@e")),
            ("\"x\\\"\" \"<ceo@evil.tld>\" <a@b.c>", None),
            ("(x\\) \" ) \"<ceo@evil.tld>\" <a@b.c>", None),
            ("\"x\" \"<ceo@evil.tld>\" <a@b.c>", None),
            ("x \"<ceo@evil.tld>\" <a@b.c>", None),
            ("\"<ceo@evil.tld>\" x <a@b.c>", None),
            ("(x) \"<ceo@evil.tld>\" <a@b.c>", None),
            ("\"<ceo@evil.tld>\" (x) <a@b.c>", None),
            ("\"<ceo@evil.tld>\\\\\" <a@b.c>", None),
            ("\"\\<ceo\\@evil.tld\\>\" <a@b.c>", None),
            ("\"x\\\"\" <a@b.c>, \"<ceo@evil.tld>\" <a@b.c>", None),
            ("(\") <a@b.c>, \"<ceo@evil.tld>\" <a@b.c>", None),
            ("\"<ceo@evil.tld>\" <a@b.c> (\\))", None),
            // Comments that end elsewhere for others, and what then stands outside of them.
            ("a@b.c (x\\) .evil.tld \"), \"b\" <a@b.c>", None),
            ("a@b.c (x (y) .evil.tld)", None),
            ("a@b.c (\\)) .evil.tld", None),
            ("a@b.c (it's)", Some("a@b.c")),
            // A line end ends a string or a comment for some.
            ("\"x\r\n ceo@evil.tld\" <a@b.c>", None),
            ("a@b.c (x\r\n .evil.tld)", None),
            ("staff: a@b.c;", None),
            ("undisclosed:;, a@b.c", None),
        ] {
            let seen = judge(value, Words::Beside, false, None);
            assert_eq!(seen.as_deref(), expected, "{value:?}");
        }
        let groups = |value| judge(value, Words::All, true, None);
        assert_eq!(groups("x: a@b;, c@d").as_deref(), Some("a@b c@d"));
        assert_eq!(groups("\"x@y\": a@b;"), None);
    }

    #[test]
    fn bare_local_parts() {
        use Words::{All, Alone, Beside};
        for (value, words, expected) in [
            ("mdadm monitoring <root>", Beside, Some("!root@c.d")),
            (
                "<root>, A <x.y> , b@c",
                Beside,
                Some("!root@c.d !x.y@c.d b@c"),
            ),
            ("< root >", Beside, Some("!root@c.d")),
            ("<\"a b\">", Beside, Some("!\"a b\"@c.d")),
            ("<@x:root>", Beside, Some("!root@c.d")),
            ("root@c.d <root>", Beside, Some("~root@c.d !root@c.d")),
            ("root@x <root>", Beside, None),
            ("<>", Beside, None),
            ("<a b>", Beside, None),
            ("<=?q?v=40evil.tld=3e?=>", Beside, None),
            ("<r\u{f6}\u{f6}t>", Beside, None),
            ("root", Beside, None),
            ("root", Alone, Some("!root@c.d")),
            ("root (Cron)", Alone, Some("!root@c.d")),
            ("root", All, Some("!root@c.d")),
            ("root, cron", Beside, None),
            ("root, cron", Alone, None),
            ("root, cron", All, Some("!root@c.d !cron@c.d")),
            ("root, a@b", Beside, Some("!root@c.d a@b")),
            ("a@b, root, J <j@b>", Beside, Some("a@b !root@c.d j@b")),
            // A name cut in two.
            ("Doe, Jane <a@b>", Beside, None),
            ("Doe, <a@b>", Beside, None),
            ("Doe, <root>", Beside, None),
            ("Doe, a@b <a@b>", Beside, None),
            ("Doe, Jane <a@b>", Alone, None),
            ("Doe, Jane <a@b>", All, Some("!Doe@c.d a@b")),
            ("Jane Doe, a@b", Beside, None),
            ("Jane Doe", All, None),
            ("\"root\"", All, None),
            ("x: root, <admin>;", All, Some("!root@c.d !admin@c.d")),
        ] {
            let seen = judge(value, words, true, Some("c.d"));
            assert_eq!(seen.as_deref(), expected, "{value:?} {words:?}");
            if expected.is_some_and(|e| e.contains('!')) {
                assert_eq!(judge(value, words, true, None), None, "{value:?}");
            }
        }
    }

    #[test]
    fn addresses_that_are_not_ascii() {
        let read = |value: &[u8], utf8| {
            let kind = FieldRules {
                default_domain: None,
                words: Words::Beside,
                groups: false,
                utf8,
            };
            let found = judged(value, kind);
            found.map(|all| {
                let all = all.iter().map(|m| m.address.to_string());
                all.collect::<Vec<_>>().join(" ")
            })
        };
        for (value, expected) in [
            ("B\u{fc}ro <b\u{fc}ro@corp.com>", "b\u{fc}ro@corp.com"),
            ("b\u{fc}ro@corp.com, A <a@b.c>", "b\u{fc}ro@corp.com a@b.c"),
            ("\"\u{fc} x\"@corp.com", "\"\u{fc} x\"@corp.com"),
            (
                "b\u{fc}ro@corp.com <b\u{fc}ro@Corp.com>",
                "b\u{fc}ro@corp.com b\u{fc}ro@corp.com",
            ),
            ("a@c\u{43e}rp.com", "a@xn--crp-sed.com"),
        ] {
            assert_eq!(
                read(value.as_bytes(), true).as_deref(),
                Ok(expected),
                "{value}"
            );
            let without = read(value.as_bytes(), false);
            assert!(
                matches!(without, Err(MailboxError::Unicode(_))),
                "{value}: {without:?}"
            );
        }
        for value in [
            "bu\u{308}ro@corp.com".as_bytes(),
            "<\u{338}x@corp.com>".as_bytes(),
            "a\u{ff20}evil.tld@corp.com".as_bytes(),
            "a@b\u{fc}cher\u{3002}com".as_bytes(),
            b"b\xfcro@corp.com",
        ] {
            let found = read(value, true);
            assert!(
                matches!(found, Err(MailboxError::Unicode(_))),
                "{value:?}: {found:?}"
            );
        }
        // A name is no address, whatever it is written in.
        for utf8 in [false, true] {
            for value in [&b"B\xfcro <a@b.c>"[..], "\u{fc}\u{202e} <a@b.c>".as_bytes()] {
                assert_eq!(read(value, utf8).as_deref(), Ok("a@b.c"));
            }
        }
        let other = read("b\u{fc}ro@evil.tld <b\u{fc}ro@corp.com>".as_bytes(), true);
        assert!(matches!(other, Err(MailboxError::Syntax(_))), "{other:?}");
    }

    #[test]
    fn the_worst_header_costs_a_few_steps_for_each_octet() {
        let kind = FieldRules {
            default_domain: None,
            words: Words::All,
            groups: true,
            utf8: false,
        };
        for piece in [
            "(", "\"", "<", "a@b,", "a ", ",", "a@b ", "(x)", "[", "\\\\", "<@a,", "x:;,",
        ] {
            let value = piece.repeat(256 * 1024 / piece.len());
            for value in [value.clone(), format!("{value}<a@b>")] {
                for kind in [None, Some(kind)] {
                    STEPS.set(0);
                    let _ = Reader::new(value.as_bytes(), kind).read();
                    let steps = STEPS.get();
                    assert!(steps > 0 && steps <= 8 * value.len(), "{piece}: {steps}");
                }
            }
        }
    }
}
