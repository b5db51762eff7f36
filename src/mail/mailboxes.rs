//! The judge's reader of From, Sender, To and their like: it understands the whole field or it errs.
//!
//! Apart because the allowlist stands on it: a library that repairs what it reads sees other addresses than the next
//! reader. The grammar is RFC 5322 §3.4 without its obsolete forms inside an address; encoded words are plain atoms,
//! nothing is decoded. One leniency (`design.md` §3): unquoted words before one final `<address>` are its name, with
//! whatever they hold; a word with `@` among them is an address to be judged, too. Linear time, no recursion.

use std::ops::Range;

use super::address::{Address, is_atext};

/// Comments in comments.
const COMMENT_DEPTH: usize = 16;

/// An address of a field, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The canonical address.
    pub address: Address,
    /// The octets to replace when another address takes its place: without `<` and `>`, with a source route.
    pub span: Range<usize>,
    /// The display name, as it stands; empty when there is none.
    pub name: Range<usize>,
    /// It stands in the display name of the next one: `a@b <a@b>`.
    pub in_name: bool,
    /// A source route (`<@a,@b:c@d>`) stands before it.
    pub routed: bool,
}

/// Why a field cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MailboxError(pub &'static str);

/// Reads a field value (still folded) as a list of mailboxes; groups are flattened, so the list may be empty.
///
/// # Errors
/// The first thing that is not understood, or that others read in another way.
pub fn parse(value: &[u8]) -> Result<Vec<Mailbox>, MailboxError> {
    let mut lexer = Lexer::new(value);
    let mut mailboxes = Vec::new();
    let mut words: Vec<Token> = Vec::new();
    // Behind `<address>` or a group nothing but a separator may follow.
    let mut closed = false;
    let mut in_group = false;
    loop {
        let token = lexer.next()?;
        match token.kind {
            Kind::End | Kind::Comma | Kind::Semicolon => {
                if !words.is_empty() {
                    mailboxes.push(plain(value, &words)?);
                    words.clear();
                }
                closed = false;
                match (token.kind, in_group) {
                    (Kind::End, true) => return Err(MailboxError("a group has no end")),
                    (Kind::End, false) => return Ok(mailboxes),
                    (Kind::Semicolon, false) => {
                        return Err(MailboxError("a semicolon outside a group"));
                    }
                    (Kind::Semicolon, true) => {
                        in_group = false;
                        closed = true;
                    }
                    _ => {}
                }
            }
            _ if closed => {
                return Err(MailboxError("something follows an address or a group"));
            }
            Kind::Colon => {
                if in_group || words.is_empty() || words.iter().any(|w| w.kind == Kind::At) {
                    return Err(MailboxError("a colon where none may be"));
                }
                words.clear();
                in_group = true;
            }
            Kind::Open => {
                named(value, &words, &mut mailboxes)?;
                let name = match (words.first(), words.last()) {
                    (Some(first), Some(last)) => first.start..last.end,
                    _ => token.start..token.start,
                };
                mailboxes.push(angle(value, &mut lexer, &mut words, name)?);
                words.clear();
                closed = true;
            }
            Kind::Close => return Err(MailboxError("a > without <")),
            _ => words.push(token),
        }
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
    clean.then_some(name)
}

/// Words alone (RFC 5322 §3.2.5): a display name that needs no quotes.
pub(crate) fn is_phrase(value: &[u8]) -> bool {
    let mut lexer = Lexer::new(value);
    loop {
        match lexer.next().map(|t| t.kind) {
            Ok(Kind::End) => return !lexer.commented,
            Ok(Kind::Atom | Kind::Quoted) => {}
            _ => return false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Atom,
    Quoted,
    /// `[…]`, brackets included.
    Literal,
    /// A backslash in an unquoted name (`CORP\user`).
    Backslash,
    Dot,
    At,
    Comma,
    Semicolon,
    Colon,
    Open,
    Close,
    End,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
    /// White space or a comment stands before it.
    spaced: bool,
}

struct Lexer<'a> {
    value: &'a [u8],
    at: usize,
    /// A comment was seen.
    commented: bool,
}

impl<'a> Lexer<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self {
            value,
            at: 0,
            commented: false,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn next(&mut self) -> Result<Token, MailboxError> {
        let before = self.at;
        self.skip_white()?;
        let start = self.at;
        let spaced = start > before;
        let kind = match self.peek() {
            None => Kind::End,
            Some(b) => {
                self.at += 1;
                match b {
                    b'"' => {
                        self.quoted()?;
                        Kind::Quoted
                    }
                    b'[' => {
                        self.literal()?;
                        Kind::Literal
                    }
                    b'.' => Kind::Dot,
                    b'@' => Kind::At,
                    b',' => Kind::Comma,
                    b';' => Kind::Semicolon,
                    b':' => Kind::Colon,
                    b'<' => Kind::Open,
                    b'>' => Kind::Close,
                    // A reader that takes a quoted pair here must not see another structure than we do.
                    b'\\' if self.peek().is_some_and(is_word) => Kind::Backslash,
                    b if is_word(b) => {
                        while self.peek().is_some_and(is_word) {
                            self.at += 1;
                        }
                        Kind::Atom
                    }
                    b')' | b']' | b'\\' => {
                        return Err(MailboxError("a bracket or backslash where none may be"));
                    }
                    _ => return Err(MailboxError("a control character")),
                }
            }
        };
        Ok(Token {
            kind,
            start,
            end: self.at,
            spaced,
        })
    }

    /// White space, folding and comments (RFC 5322 §3.2.2).
    fn skip_white(&mut self) -> Result<(), MailboxError> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\r' | b'\n') => self.fold()?,
                Some(b'(') => self.comment()?,
                _ => return Ok(()),
            }
        }
    }

    /// A line end is white space only where a line goes on behind it.
    fn fold(&mut self) -> Result<(), MailboxError> {
        match self.value.get(self.at..self.at + 3) {
            Some([b'\r', b'\n', b' ' | b'\t']) => {
                self.at += 3;
                Ok(())
            }
            _ => Err(MailboxError("a line end inside the field")),
        }
    }

    fn comment(&mut self) -> Result<(), MailboxError> {
        self.commented = true;
        let mut depth = 0;
        loop {
            match self.peek() {
                None => return Err(MailboxError("a comment has no end")),
                Some(b'(') => depth += 1,
                Some(b')') => depth -= 1,
                Some(b'\\') => {
                    self.at += 1;
                    if !self.peek().is_some_and(|b| b >= b' ' && b != 127) {
                        return Err(MailboxError("a comment has no end"));
                    }
                }
                Some(b'\r' | b'\n') => {
                    self.fold()?;
                    continue;
                }
                // Readers that do not know comments find an address in it.
                Some(b'<' | b'>' | b'@') => return Err(MailboxError("an address in a comment")),
                Some(b) if b < b' ' && b != b'\t' || b == 127 => {
                    return Err(MailboxError("a control character"));
                }
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
            if depth > COMMENT_DEPTH {
                return Err(MailboxError("comments are nested too deep"));
            }
        }
    }

    /// Behind the opening quote, to behind the closing one (RFC 5322 §3.2.4).
    fn quoted(&mut self) -> Result<(), MailboxError> {
        let (mut escaped_quote, mut address) = (false, false);
        loop {
            match self.peek() {
                None => return Err(MailboxError("a quoted string has no end")),
                Some(b'"') => {
                    self.at += 1;
                    // Readers that do not know `\"` find the address outside the quotes.
                    return if escaped_quote && address {
                        Err(MailboxError("an address beside an escaped quote"))
                    } else {
                        Ok(())
                    };
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b) if b >= b' ' && b != 127 => escaped_quote |= b == b'"',
                        _ => return Err(MailboxError("a quoted string has no end")),
                    }
                    self.at += 1;
                }
                Some(b'\r' | b'\n') => self.fold()?,
                Some(b) if b < b' ' && b != b'\t' || b == 127 => {
                    return Err(MailboxError("a control character"));
                }
                Some(b) => {
                    address |= matches!(b, b'<' | b'>' | b'@');
                    self.at += 1;
                }
            }
        }
    }

    /// Behind `[`, to behind `]`. In a display name (`[Alert] x <a@b>`) it may hold spaces, but nothing that another
    /// reader takes for structure.
    fn literal(&mut self) -> Result<(), MailboxError> {
        loop {
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b) if is_word(b) || b" .:".contains(&b) => self.at += 1,
                _ => return Err(MailboxError("a [ without ]")),
            }
        }
    }
}

/// RFC 5322 atext, and octets above 127: old clients write names in some 8-bit charset. An address with one is
/// refused when it is read.
fn is_word(b: u8) -> bool {
    b >= 128 || is_atext(b)
}

/// `local@domain` without brackets.
fn plain(value: &[u8], words: &[Token]) -> Result<Mailbox, MailboxError> {
    let (address, span) = addr_spec(value, words)?;
    Ok(Mailbox {
        address,
        name: span.start..span.start,
        span,
        in_name: false,
        routed: false,
    })
}

/// The rest of `<address>`, behind the `<`; the route is dropped (RFC 5322 §4.4).
fn angle(
    value: &[u8],
    lexer: &mut Lexer<'_>,
    words: &mut Vec<Token>,
    name: Range<usize>,
) -> Result<Mailbox, MailboxError> {
    words.clear();
    let mut routed = false;
    let start = lexer.at;
    let close = loop {
        let token = lexer.next()?;
        match token.kind {
            Kind::Close => break token,
            Kind::Comma if !routed && words.first().is_some_and(|w| w.kind == Kind::At) => {}
            Kind::Colon if !routed && words.first().is_some_and(|w| w.kind == Kind::At) => {
                routed = true;
                words.clear();
            }
            Kind::End => return Err(MailboxError("a < without >")),
            Kind::Comma | Kind::Colon | Kind::Semicolon | Kind::Open => {
                return Err(MailboxError("not one address between < and >"));
            }
            _ => words.push(token),
        }
    };
    let (address, spec) = addr_spec(value, words)?;
    Ok(Mailbox {
        address,
        span: if routed { start..close.start } else { spec },
        name,
        in_name: false,
        routed,
    })
}

/// The addresses among the unquoted words of a name.
fn named(value: &[u8], words: &[Token], mailboxes: &mut Vec<Mailbox>) -> Result<(), MailboxError> {
    if !words.iter().any(|w| w.kind == Kind::At) {
        return Ok(());
    }
    for run in words.chunk_by(|_, next| !next.spaced) {
        if run.iter().any(|w| w.kind == Kind::At) {
            let mut run = run.to_vec();
            strip_apostrophes(value, &mut run);
            mailboxes.push(Mailbox {
                in_name: true,
                ..plain(value, &run)?
            });
        }
    }
    Ok(())
}

/// `'a@b' <a@b>`, as Outlook writes it.
fn strip_apostrophes(value: &[u8], run: &mut [Token]) {
    let framed = |t: Option<&Token>, at: fn(&Token) -> usize| {
        t.is_some_and(|t| t.kind == Kind::Atom && value.get(at(t)) == Some(&b'\''))
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

/// RFC 5322 §3.4.1, comments and white space only around the `@` and at the borders.
fn addr_spec(value: &[u8], words: &[Token]) -> Result<(Address, Range<usize>), MailboxError> {
    const NONE: MailboxError = MailboxError("words that are no address");
    let at = words.iter().position(|w| w.kind == Kind::At).ok_or(NONE)?;
    let (local, domain) = (&words[..at], &words[at + 1..]);
    let local_text = dotted(value, local, Kind::Quoted).ok_or(NONE)?;
    let domain_text = dotted(value, domain, Kind::Literal).ok_or(NONE)?;
    if local_text.windows(2).any(|w| w == b"=?") {
        // Readers that decode before they parse find another address in it.
        return Err(MailboxError("an encoded word in an address"));
    }
    let text = [local_text, b"@", domain_text].concat();
    let text = str::from_utf8(&text).map_err(|_| MailboxError("an address that is not ASCII"))?;
    let address = Address::parse(text).map_err(|_| MailboxError("not a valid address"))?;
    match (words.first(), words.last()) {
        (Some(first), Some(last)) => Ok((address, first.start..last.end)),
        _ => Err(NONE),
    }
}

/// The text of atoms and dots without a gap, or of one token of the other kind.
fn dotted<'a>(value: &'a [u8], words: &[Token], other: Kind) -> Option<&'a [u8]> {
    let (first, last) = (words.first()?, words.last()?);
    let one = words.len() == 1 && first.kind == other;
    let atoms = words
        .iter()
        .all(|w| matches!(w.kind, Kind::Atom | Kind::Dot))
        && words.iter().skip(1).all(|w| !w.spaced);
    (one || atoms)
        .then(|| value.get(first.start..last.end))
        .flatten()
}
