//! The words and marks of an address field: atoms, quoted strings, literals, and what stands between them.
//!
//! What they mean together is known to `mailboxes`. What other readers could take for other words is an
//! error here already. Linear time, no recursion.

use super::address::is_atext;

#[cfg(test)]
thread_local! {
    /// Octets and words that were looked at: what a field costs.
    pub(super) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counted in tests, which hold that a field costs so many steps for each of its octets and no more.
#[inline]
pub(super) fn looked_at(count: usize) {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + count));
    #[cfg(not(test))]
    let _ = count;
}

/// Comments in comments.
const COMMENT_DEPTH: usize = 16;

/// Why a field cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// It can be read in two ways, or in none.
    #[error("{0}")]
    Syntax(&'static str),
    /// An address that is not ASCII, where none may be, or not in the one form of such an address.
    #[error("{0}")]
    Unicode(&'static str),
}

impl MailboxError {
    /// The reason.
    pub fn why(self) -> &'static str {
        match self {
            Self::Syntax(why) | Self::Unicode(why) => why,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
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
pub(super) struct Lexeme {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// White space or a comment stands before it.
    pub(super) spaced: bool,
    /// A quoted string that holds `<`, `>` or `@`.
    pub(super) addressed: bool,
}

pub(super) struct Lexer<'a> {
    value: &'a [u8],
    pub(super) at: usize,
    /// Comments so far.
    pub(super) comments: usize,
    /// Quoted strings so far that hold `<`, `>` or `@`.
    pub(super) addresses: usize,
    /// A backslash stands in a quoted string.
    pub(super) escapes: bool,
    /// A comment holds a backslash, a quote or a comment: who knows no comments, or none inside one, ends it elsewhere.
    pub(super) odd_comment: bool,
    /// Where a line ends inside a quoted string or a comment: some readers take it for the end of that, too.
    pub(super) folds: Vec<usize>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self {
            value,
            at: 0,
            comments: 0,
            addresses: 0,
            escapes: false,
            odd_comment: false,
            folds: Vec::new(),
        }
    }

    fn peek(&self) -> Option<u8> {
        looked_at(1);
        self.value.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Result<Lexeme, MailboxError> {
        let before = self.at;
        self.skip_white()?;
        let start = self.at;
        let spaced = start > before;
        let addresses = self.addresses;
        let kind = match self.peek() {
            None => TokenKind::End,
            Some(b) => {
                self.at += 1;
                match b {
                    b'"' => {
                        self.quoted()?;
                        TokenKind::Quoted
                    }
                    b'[' => {
                        self.literal()?;
                        TokenKind::Literal
                    }
                    b'.' => TokenKind::Dot,
                    b'@' => TokenKind::At,
                    b',' => TokenKind::Comma,
                    b';' => TokenKind::Semicolon,
                    b':' => TokenKind::Colon,
                    b'<' => TokenKind::Open,
                    b'>' => TokenKind::Close,
                    // A reader that takes a quoted pair here must not see another structure than we do.
                    b'\\' if self.peek().is_some_and(is_word) => TokenKind::Backslash,
                    b if is_word(b) => {
                        while self.peek().is_some_and(is_word) {
                            self.at += 1;
                        }
                        TokenKind::Atom
                    }
                    b')' | b']' | b'\\' => {
                        return Err(MailboxError::Syntax(
                            "a bracket or backslash where none may be",
                        ));
                    }
                    _ => return Err(MailboxError::Syntax("a control character")),
                }
            }
        };
        Ok(Lexeme {
            kind,
            start,
            end: self.at,
            spaced,
            addressed: self.addresses > addresses,
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
            _ => Err(MailboxError::Syntax("a line end inside the field")),
        }
    }

    fn comment(&mut self) -> Result<(), MailboxError> {
        self.comments += 1;
        let mut depth = 0;
        loop {
            match self.peek() {
                None => return Err(MailboxError::Syntax("a comment has no end")),
                Some(b'(') => {
                    self.odd_comment |= depth > 0;
                    depth += 1;
                }
                Some(b')') => depth -= 1,
                Some(b'\\') => {
                    self.odd_comment = true;
                    self.at += 1;
                    if !self.peek().is_some_and(|b| b >= b' ' && b != 127) {
                        return Err(MailboxError::Syntax("a comment has no end"));
                    }
                }
                Some(b'\r' | b'\n') => {
                    self.folds.push(self.at);
                    self.fold()?;
                    continue;
                }
                // Readers that do not know comments find an address in it.
                Some(b'<' | b'>' | b'@') => {
                    return Err(MailboxError::Syntax("an address in a comment"));
                }
                Some(b'"') => self.odd_comment = true,
                Some(b) if b < b' ' && b != b'\t' || b == 127 => {
                    return Err(MailboxError::Syntax("a control character"));
                }
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
            if depth > COMMENT_DEPTH {
                return Err(MailboxError::Syntax("comments are nested too deep"));
            }
        }
    }

    /// Behind the opening quote, to behind the closing one (RFC 5322 §3.2.4).
    fn quoted(&mut self) -> Result<(), MailboxError> {
        let (mut escaped_quote, mut address) = (false, false);
        loop {
            match self.peek() {
                None => return Err(MailboxError::Syntax("a quoted string has no end")),
                Some(b'"') => {
                    self.at += 1;
                    self.addresses += usize::from(address);
                    // Readers that do not know `\"` find the address outside the quotes.
                    return if escaped_quote && address {
                        Err(MailboxError::Syntax("an address beside an escaped quote"))
                    } else {
                        Ok(())
                    };
                }
                Some(b'\\') => {
                    self.escapes = true;
                    self.at += 1;
                    match self.peek() {
                        Some(b) if b >= b' ' && b != 127 => {
                            escaped_quote |= b == b'"';
                            address |= matches!(b, b'<' | b'>' | b'@');
                        }
                        _ => return Err(MailboxError::Syntax("a quoted string has no end")),
                    }
                    self.at += 1;
                }
                Some(b'\r' | b'\n') => {
                    self.folds.push(self.at);
                    self.fold()?;
                }
                Some(b) if b < b' ' && b != b'\t' || b == 127 => {
                    return Err(MailboxError::Syntax("a control character"));
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
                _ => return Err(MailboxError::Syntax("a [ without ]")),
            }
        }
    }
}

/// The value without the line ends inside quoted strings and comments; other folding stays. `None` when it is not understood.
pub(crate) fn unfolded_inside(value: &[u8]) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(value);
    while lexer.next().ok()?.kind != TokenKind::End {}
    let mut out = Vec::with_capacity(value.len());
    let mut copied = 0;
    for at in lexer.folds {
        out.extend_from_slice(value.get(copied..at)?);
        copied = at + b"\r\n".len();
    }
    out.extend_from_slice(value.get(copied..)?);
    Some(out)
}

/// RFC 5322 atext, and octets above 127: old clients write names in some 8-bit charset. An address with one is
/// refused when it is read.
fn is_word(b: u8) -> bool {
    b >= 128 || is_atext(b)
}
