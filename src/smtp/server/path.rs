//! The path of MAIL and RCPT (RFC 5321 §4.1.2): the one address in it, or none, whatever stands around it.
//!
//! This is where two readings could hide, unlike in the rest of the grammar of commands: what is judged is what is
//! transmitted. Tested by the tables of `command`.

use std::borrow::Cow;

use crate::mail::{
    address::{Address, AddressError, Domain},
    reply::Reply,
};

use super::tolerance::Tolerance;

/// What stands between `FROM:` or `TO:` and the parameters.
pub(super) enum EnvelopePath<'a> {
    Null,
    Mailbox(&'a str),
}

/// Why there is no address.
pub(super) enum PathError {
    Syntax(&'static str),
    /// An octet above 127, and MAIL was said without SMTPUTF8.
    NotAscii,
    /// Not in the one form of an address that is not ASCII.
    Unicode(&'static str),
    Bare,
}

impl PathError {
    pub(super) fn sender(self) -> Reply {
        self.reply(Reply::bad_sender)
    }

    pub(super) fn recipient(self) -> Reply {
        self.reply(Reply::bad_recipient)
    }

    fn reply(self, bad_syntax: fn(&str) -> Reply) -> Reply {
        match self {
            PathError::Syntax(why) => bad_syntax(why),
            PathError::NotAscii => Reply::not_ascii(),
            PathError::Unicode(why) => Reply::not_one_form(why),
            PathError::Bare => Reply::bare_local_part(),
        }
    }
}

impl From<AddressError> for PathError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Unicode(why) => PathError::Unicode(why),
            AddressError::Syntax(why) => PathError::Syntax(why),
        }
    }
}

/// What stands behind `FROM:` or `TO:`; `utf8`: it may be other than ASCII.
pub(super) fn behind_colon<'a>(
    rest: &'a [u8],
    word: &str,
    tolerance: &Tolerance,
    utf8: bool,
) -> Result<Cow<'a, str>, PathError> {
    const FORM: PathError =
        PathError::Syntax("the form is MAIL FROM:<address> or RCPT TO:<address>");
    if !utf8 && !rest.is_ascii() {
        return Err(PathError::NotAscii);
    }
    let text = std::str::from_utf8(rest)
        .map_err(|_| PathError::Unicode("the command is not valid UTF-8"))?;
    let forgive = |text: &'a str| {
        if tolerance.blanks {
            text.trim_ascii_start()
        } else {
            text
        }
    };
    let text = forgive(text);
    match text.get(..word.len()) {
        Some(found) if found.eq_ignore_ascii_case(word) => {}
        _ => return Err(FORM),
    }
    let text = forgive(&text[word.len()..]);
    let text = forgive(text.strip_prefix(':').ok_or(FORM)?);
    let plain = tolerance
        .marks_beside_paths
        .then(|| without_marks(text))
        .flatten();
    Ok(plain.map_or(Cow::Borrowed(text), Cow::Owned))
}

/// Splits `<path> parameters`.
pub(super) fn path_of<'a>(
    text: &'a str,
    tolerance: &Tolerance,
) -> Result<(EnvelopePath<'a>, &'a str), PathError> {
    let (path, parameters) = match split_path(text, tolerance) {
        Ok(found) => found,
        Err(wrong) if tolerance.names_in_paths => named(text).ok_or(wrong)?,
        Err(wrong) => return Err(wrong),
    };
    // Between path and parameters stands a blank: `<a@b>,<c@d>` is two addresses and therefore none.
    if !parameters.is_empty() && !parameters.starts_with([' ', '\t']) {
        return Err(PathError::Syntax(
            "nothing but parameters may follow the address",
        ));
    }
    Ok((path, parameters))
}

/// Marks that a list in a form field leaves behind an address; behind the bracket also those that end a sentence or a quotation
/// (and a bracket that closes nothing).
const MARKS: [char; 2] = [',', ';'];
const MARKS_BEHIND: [char; 6] = [',', ';', ':', '.', '\'', '"'];

/// The argument without comments and marks in and behind its path; parameters stay as they are. `None` when there are none,
/// or when what is left could be another address.
fn without_marks(text: &str) -> Option<String> {
    let mut path = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut bracket, mut domain) = (false, false, false, false);
    let (mut at, mut open) = (0, 0_usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let c = rest.chars().next()?;
        let closed = bracket && open == 0 && c != '>';
        if !quoted && (closed || (!bracket && domain && matches!(c, ' ' | '\t'))) {
            break;
        }
        if !quoted && c == '(' {
            // A comment parts words: nothing may grow together where it stood.
            path.push(' ');
            at += comment(rest)?;
            continue;
        }
        if !quoted && c == '>' {
            let end = path.trim_end_matches(MARKS).len();
            path.truncate(end);
        }
        at += c.len_utf8();
        if !quoted && c == '>' && bracket && open == 0 {
            continue;
        }
        path.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => domain = true,
            '<' if !quoted => (bracket, open) = (true, open + 1),
            '>' if !quoted => open = open.saturating_sub(1),
            _ => {}
        }
    }
    if !bracket {
        let end = path.trim_end().trim_end_matches(MARKS).len();
        path.truncate(end);
    }
    let mut rest = text.get(at..)?;
    loop {
        let next = rest.trim_ascii_start();
        if next.starts_with('(') {
            rest = next.get(comment(next)?..)?;
        } else if next.starts_with(MARKS_BEHIND) {
            rest = next.trim_start_matches(MARKS_BEHIND);
        } else {
            break;
        }
        if !rest.is_empty() && !rest.starts_with([' ', '\t', '(']) {
            return None;
        }
    }
    path.push_str(rest);
    (path != text).then_some(path)
}

/// Octets of a comment at the front (RFC 5322 §3.2.2). `None` when it has no end, or holds what could be an address.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0_usize, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'@' | b'<' | b'>' => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn split_path<'a>(
    text: &'a str,
    tolerance: &Tolerance,
) -> Result<(EnvelopePath<'a>, &'a str), PathError> {
    if let Some(inner) = text.strip_prefix('<') {
        let end = unquoted(inner, |b| b == b'>').ok_or(PathError::Syntax("the > is missing"))?;
        let (inner, after) = (&inner[..end], &inner[end + 1..]);
        if inner.is_empty() {
            return Ok((EnvelopePath::Null, after));
        }
        if unquoted(inner, |b| b == b'<').is_some() {
            return Err(PathError::Syntax(
                "one address, in one pair of angle brackets",
            ));
        }
        return Ok((EnvelopePath::Mailbox(inner), after));
    }
    if !tolerance.no_brackets {
        return Err(PathError::Syntax("the address stands in angle brackets"));
    }
    let end = unquoted(text, |b| b == b' ' || b == b'\t').unwrap_or(text.len());
    let (path, after) = text.split_at(end);
    if path.is_empty() {
        return Err(PathError::Syntax("the address is missing"));
    }
    // `AUTH=<>` is a parameter, `<a@b>` is another address.
    if after
        .split_ascii_whitespace()
        .any(|word| word.starts_with('<'))
    {
        return Err(PathError::Syntax(
            "one address, and nothing but parameters behind it",
        ));
    }
    Ok((EnvelopePath::Mailbox(path), after))
}

/// `Name <a@b>`, `<"Name" <a@b>>`: the one address inside, if there is but one and nothing else looks like one.
fn named(text: &str) -> Option<(EnvelopePath<'_>, &str)> {
    let open = text.rfind('<')?;
    let (name, rest) = (&text[..open], &text[open + 1..]);
    let close = rest.find('>')?;
    let (inner, mut after) = (&rest[..close], &rest[close + 1..]);
    let name = match name.strip_prefix('<') {
        Some(name) => {
            after = after.strip_prefix('>')?;
            name
        }
        None => name,
    };
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b" \t\"'._-()".contains(&b);
    if inner.is_empty() || !name.bytes().all(harmless) || after.contains(['<', '>']) {
        return None;
    }
    Some((EnvelopePath::Mailbox(inner), after))
}

/// The place of the first such octet outside a quoted string.
fn unquoted(text: &str, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match b {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if wanted(b) {
            return Some(i);
        } else if b == b'"' {
            quoted = true;
        }
    }
    None
}

/// The mailbox of a path, canonical.
pub(super) fn address(
    text: &str,
    tolerance: &Tolerance,
    bare: Option<&Domain>,
) -> Result<Address, PathError> {
    let text = if tolerance.blanks {
        text.trim_ascii()
    } else {
        text
    };
    let text = if tolerance.names_in_paths {
        without_scheme(unwrap_quotes(text))
    } else {
        text
    };
    let text = match text.strip_prefix('@') {
        Some(_) if tolerance.source_route => behind_route(text)?,
        Some(_) => return Err(PathError::Syntax("source routes are not accepted")),
        None => text,
    };
    let anything = Domain::parse("invalid")?;
    if Address::complete(text, bare.unwrap_or(&anything)).is_ok() {
        // RFC 5321 §4.1.1.3: postmaster needs no domain, at any level.
        if !tolerance.bare_local_part && !text.eq_ignore_ascii_case("postmaster") {
            return Err(PathError::Syntax("the address has no @domain"));
        }
        return match bare {
            Some(domain) => Ok(Address::complete(text, domain)?),
            None => Err(PathError::Bare),
        };
    }
    Ok(Address::parse(text)?)
}

/// `'a@b'` and `"a@b"` of devices that quote the whole address.
fn unwrap_quotes(text: &str) -> &str {
    for quote in ['\'', '"'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner
            && !inner.contains(quote)
            && inner.contains('@')
        {
            return inner;
        }
    }
    text
}

/// `SMTP:a@b` and `mailto:a@b`, as address books of directories and of browsers have them.
fn without_scheme(text: &str) -> &str {
    match text.split_once(':') {
        Some((scheme, address))
            if scheme.eq_ignore_ascii_case("smtp") || scheme.eq_ignore_ascii_case("mailto") =>
        {
            address
        }
        _ => text,
    }
}

/// Drops a source route `@a,@b:` (RFC 5321 §4.1.2 A-d-l); each hop must be a domain.
fn behind_route(text: &str) -> Result<&str, PathError> {
    const ROUTE: PathError = PathError::Syntax("not a source route");
    let mut rest = text;
    loop {
        rest = rest.strip_prefix('@').ok_or(ROUTE)?;
        let literal = if rest.starts_with('[') {
            rest.find(']').ok_or(ROUTE)? + 1
        } else {
            0
        };
        let end = rest[literal..].find([',', ':']).ok_or(ROUTE)? + literal;
        Domain::parse(&rest[..end])?;
        let (mark, after) = rest[end..].split_at(1);
        if mark == ":" {
            return Ok(after);
        }
        rest = after;
    }
}
