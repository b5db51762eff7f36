//! The grammar of commands (RFC 5321 §4.1): a line to a [`Command`], the argument of MAIL and RCPT to an address.
//!
//! Apart from the session so that it can be tested as a table. It knows what is well-formed, not what may come when, and
//! it finds exactly one address in an argument or none: what is judged is what is transmitted.

use std::borrow::Cow;

use crate::mail::{
    address::{Address, AddressError, Domain},
    reply::Reply,
};

use super::tolerance::Tolerance;

/// Octets of a command line with its CRLF (RFC 5321 §4.5.3.1.4 asks for 512).
pub const LINE_LIMIT: usize = 4_096;
/// Octets of a line of AUTH (RFC 4954 §4).
pub const AUTH_LINE_LIMIT: usize = 12_288;

/// A command whose line is well-formed; arguments are looked at when the command may come at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with its argument.
    Helo(&'a [u8]),
    /// EHLO with its argument.
    Ehlo(&'a [u8]),
    /// MAIL and what follows it, for [`mail`].
    Mail(&'a [u8]),
    /// RCPT and what follows it, for [`rcpt`].
    Rcpt(&'a [u8]),
    /// DATA; the argument should be empty.
    Data(&'a [u8]),
    /// RSET; the argument should be empty.
    Rset(&'a [u8]),
    /// NOOP.
    Noop,
    /// HELP.
    Help,
    /// VRFY.
    Vrfy,
    /// QUIT.
    Quit,
    /// STARTTLS; the argument should be empty.
    StartTls(&'a [u8]),
    /// AUTH: mechanism and initial response.
    Auth(&'a [u8]),
    /// BDAT: what follows it would be read as commands.
    Bdat,
    /// EXPN, ETRN, TURN and their like: known, not done here.
    NotImplemented,
    /// A browser, a proxy or a scanner.
    Http,
    /// An empty line.
    Blank,
    /// None of these.
    Unknown,
}

/// Reads a line without its line ending.
///
/// # Errors
/// 500 for control characters: a CR or NUL inside a command is somebody's line ending (RFC 5321 §4.1.1).
pub fn parse<'a>(line: &'a [u8], tolerance: &Tolerance) -> Result<Command<'a>, Reply> {
    if line.iter().any(|&b| (b < b' ' && b != b'\t') || b == 127) {
        return Err(Reply::control_character());
    }
    let trimmed = if tolerance.blanks {
        line.trim_ascii_end()
    } else {
        line
    };
    if trimmed.is_empty() {
        return Ok(Command::Blank);
    }
    let end = trimmed
        .iter()
        .position(|b| b" \t".contains(b))
        .unwrap_or(trimmed.len());
    let (verb, rest) = trimmed.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    Ok(match verb.to_ascii_uppercase().as_slice() {
        b"HELO" => Command::Helo(rest),
        b"EHLO" => Command::Ehlo(rest),
        b"MAIL" => Command::Mail(rest),
        b"RCPT" => Command::Rcpt(rest),
        b"DATA" => Command::Data(rest),
        b"RSET" => Command::Rset(rest),
        b"NOOP" => Command::Noop,
        b"HELP" => Command::Help,
        b"VRFY" => Command::Vrfy,
        b"QUIT" => Command::Quit,
        b"STARTTLS" => Command::StartTls(rest),
        b"AUTH" => Command::Auth(rest),
        b"BDAT" => Command::Bdat,
        b"EXPN" | b"ETRN" | b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML" => {
            Command::NotImplemented
        }
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" | b"PRI" => Command::Http,
        _ => Command::Unknown,
    })
}

/// The argument of HELO or EHLO as it may stand in `Received:` and in a log: one word, bounded, nothing that could
/// be read as syntax. `unknown` when there is none.
pub fn helo_name(argument: &[u8]) -> String {
    let name: String = argument
        .trim_ascii()
        .iter()
        .take(255)
        .map(|&b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'[' | b']' => {
                char::from(b)
            }
            _ => '?',
        })
        .collect();
    if name.is_empty() {
        "unknown".into()
    } else {
        name
    }
}

/// A well-formed MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `None` is `<>`.
    pub sender: Option<Address>,
    /// `SIZE=`; beyond `u64` it is `u64::MAX`.
    pub size: Option<u64>,
    /// `BODY=8BITMIME`.
    pub eight_bit: bool,
}

/// Reads the argument of MAIL (RFC 5321 §4.1.1.2).
///
/// # Errors
/// 501, 553 or 555 with the reason.
pub fn mail(rest: &[u8], tolerance: &Tolerance, bare: Option<&Domain>) -> Result<Mail, Reply> {
    let text = behind_colon(rest, "FROM", tolerance).map_err(Wrong::sender)?;
    let (path, parameters) = path_of(&text, tolerance).map_err(Wrong::sender)?;
    let sender = match path {
        Path::Null => None,
        Path::Mailbox(text) => Some(address(text, tolerance, bare).map_err(Wrong::sender)?),
    };
    let mut mail = Mail {
        sender,
        size: None,
        eight_bit: false,
    };
    for (key, value) in keywords(parameters)? {
        match (key.as_str(), value) {
            ("SIZE", value) => mail.size = Some(size(value)?),
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {}
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => {
                mail.eight_bit = true;
            }
            ("BODY", _) => return Err(Reply::bad_parameter("BODY is 7BIT or 8BITMIME")),
            // RFC 4954 §5: what an untrusted client says of the original sender's login counts for nothing.
            ("AUTH", Some(_)) => {}
            ("RET" | "ENVID", Some(_)) | ("SMTPUTF8", None) if tolerance.foreign_parameters => {}
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(mail)
}

/// Reads the argument of RCPT (RFC 5321 §4.1.1.3).
///
/// # Errors
/// 501, 553 or 555 with the reason.
pub fn rcpt(rest: &[u8], tolerance: &Tolerance, bare: Option<&Domain>) -> Result<Address, Reply> {
    let text = behind_colon(rest, "TO", tolerance).map_err(Wrong::recipient)?;
    let (path, parameters) = path_of(&text, tolerance).map_err(Wrong::recipient)?;
    let address = match path {
        Path::Null => Err(Wrong::Syntax("<> is no recipient")),
        Path::Mailbox(text) => address(text, tolerance, bare),
    }
    .map_err(Wrong::recipient)?;
    for (key, value) in keywords(parameters)? {
        match (key.as_str(), value) {
            ("NOTIFY" | "ORCPT", Some(_)) if tolerance.foreign_parameters => {}
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(address)
}

enum Path<'a> {
    Null,
    Mailbox(&'a str),
}

enum Wrong {
    Syntax(&'static str),
    NotAscii,
    Bare,
}

impl Wrong {
    fn sender(self) -> Reply {
        self.reply((5, 1, 7))
    }

    fn recipient(self) -> Reply {
        self.reply((5, 1, 3))
    }

    fn reply(self, enhanced: (u8, u16, u16)) -> Reply {
        match self {
            Wrong::Syntax(why) => Reply::new(501, enhanced, why),
            Wrong::NotAscii => Reply::not_ascii(),
            Wrong::Bare => Reply::bare_local_part(),
        }
    }
}

impl From<AddressError> for Wrong {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NotAscii => Wrong::NotAscii,
            AddressError::Syntax(why) => Wrong::Syntax(why),
        }
    }
}

/// What stands behind `FROM:` or `TO:`.
fn behind_colon<'a>(
    rest: &'a [u8],
    word: &str,
    tolerance: &Tolerance,
) -> Result<Cow<'a, str>, Wrong> {
    const FORM: Wrong = Wrong::Syntax("the form is MAIL FROM:<address> or RCPT TO:<address>");
    if !rest.is_ascii() {
        return Err(Wrong::NotAscii);
    }
    let text = std::str::from_utf8(rest).map_err(|_| Wrong::NotAscii)?;
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
fn path_of<'a>(text: &'a str, tolerance: &Tolerance) -> Result<(Path<'a>, &'a str), Wrong> {
    let (path, parameters) = match split_path(text, tolerance) {
        Ok(found) => found,
        Err(wrong) if tolerance.names_in_paths => named(text).ok_or(wrong)?,
        Err(wrong) => return Err(wrong),
    };
    // Between path and parameters stands a blank: `<a@b>,<c@d>` is two addresses and therefore none.
    if !parameters.is_empty() && !parameters.starts_with([' ', '\t']) {
        return Err(Wrong::Syntax(
            "nothing but parameters may follow the address",
        ));
    }
    Ok((path, parameters))
}

/// Marks that a list in a form field leaves behind an address; behind the bracket also those that end a sentence.
const MARKS: [char; 2] = [',', ';'];
const MARKS_BEHIND: [char; 4] = [',', ';', ':', '.'];

/// The argument without comments and marks in and behind its path; parameters stay as they are. `None` when there are none,
/// or when what is left could be another address.
fn without_marks(text: &str) -> Option<String> {
    let mut path = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut bracket, mut domain) = (false, false, false, false);
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let c = rest.chars().next()?;
        if !quoted && !bracket && domain && matches!(c, ' ' | '\t') {
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
        path.push(c);
        at += c.len_utf8();
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => domain = true,
            '<' if !quoted => bracket = true,
            '>' if !quoted && !text.get(at..).is_some_and(|rest| rest.starts_with('>')) => break,
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

fn split_path<'a>(text: &'a str, tolerance: &Tolerance) -> Result<(Path<'a>, &'a str), Wrong> {
    if let Some(inner) = text.strip_prefix('<') {
        let end = unquoted(inner, |b| b == b'>').ok_or(Wrong::Syntax("the > is missing"))?;
        let (inner, after) = (&inner[..end], &inner[end + 1..]);
        if inner.is_empty() {
            return Ok((Path::Null, after));
        }
        if unquoted(inner, |b| b == b'<').is_some() {
            return Err(Wrong::Syntax("one address, in one pair of angle brackets"));
        }
        return Ok((Path::Mailbox(inner), after));
    }
    if !tolerance.no_brackets {
        return Err(Wrong::Syntax("the address stands in angle brackets"));
    }
    let end = unquoted(text, |b| b == b' ' || b == b'\t').unwrap_or(text.len());
    let (path, after) = text.split_at(end);
    if path.is_empty() {
        return Err(Wrong::Syntax("the address is missing"));
    }
    // `AUTH=<>` is a parameter, `<a@b>` is another address.
    if after
        .split_ascii_whitespace()
        .any(|word| word.starts_with('<'))
    {
        return Err(Wrong::Syntax(
            "one address, and nothing but parameters behind it",
        ));
    }
    Ok((Path::Mailbox(path), after))
}

/// `Name <a@b>`, `<"Name" <a@b>>`: the one address inside, if there is but one and nothing else looks like one.
fn named(text: &str) -> Option<(Path<'_>, &str)> {
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
    Some((Path::Mailbox(inner), after))
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
fn address(text: &str, tolerance: &Tolerance, bare: Option<&Domain>) -> Result<Address, Wrong> {
    let text = if tolerance.blanks {
        text.trim_ascii()
    } else {
        text
    };
    let text = if tolerance.names_in_paths {
        unwrap_quotes(text)
    } else {
        text
    };
    let text = match text.strip_prefix('@') {
        Some(_) if tolerance.source_route => behind_route(text)?,
        Some(_) => return Err(Wrong::Syntax("source routes are not accepted")),
        None => text,
    };
    let anything = Domain::parse("invalid")?;
    if Address::complete(text, bare.unwrap_or(&anything)).is_ok() {
        // RFC 5321 §4.1.1.3: postmaster needs no domain, at any level.
        if !tolerance.bare_local_part && !text.eq_ignore_ascii_case("postmaster") {
            return Err(Wrong::Syntax("the address has no @domain"));
        }
        return match bare {
            Some(domain) => Ok(Address::complete(text, domain)?),
            None => Err(Wrong::Bare),
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

/// Drops a source route `@a,@b:` (RFC 5321 §4.1.2 A-d-l); each hop must be a domain.
fn behind_route(text: &str) -> Result<&str, Wrong> {
    const ROUTE: Wrong = Wrong::Syntax("not a source route");
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

/// The parameters behind a path, each once.
fn keywords(parameters: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    let mut seen: Vec<(String, Option<&str>)> = Vec::new();
    for parameter in parameters.split_ascii_whitespace() {
        let (key, value) = keyword(parameter)?;
        if seen.iter().any(|(other, _)| *other == key) {
            return Err(Reply::bad_parameter("a parameter stands twice"));
        }
        seen.push((key, value));
    }
    Ok(seen)
}

/// One `KEY` or `KEY=VALUE` (RFC 5321 §4.1.2 esmtp-param).
fn keyword(parameter: &str) -> Result<(String, Option<&str>), Reply> {
    let (key, value) = match parameter.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (parameter, None),
    };
    let well = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if key.is_empty() || key.starts_with('-') || !key.bytes().all(well) || value == Some("") {
        return Err(Reply::bad_parameter("parameters are KEY or KEY=VALUE"));
    }
    Ok((key.to_ascii_uppercase(), value))
}

/// RFC 1870 §3: up to 20 digits.
fn size(value: Option<&str>) -> Result<u64, Reply> {
    match value {
        Some(digits) if digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            // 20 digits may still be too many: such a message is too big for anybody.
            Ok(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Err(Reply::bad_parameter("SIZE is a number of octets")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::network::ToleranceLevel::{self, Device, Standard, Strict};

    fn say(level: ToleranceLevel, verb: &str, rest: &str) -> String {
        let (tolerance, domain) = (Tolerance::of(level), Domain::parse("corp.com").unwrap());
        let rest = rest.as_bytes();
        let said = match verb {
            "MAIL" => mail(rest, &tolerance, Some(&domain))
                .map(|m| m.sender.map_or("<>".into(), |a| a.to_string())),
            _ => rcpt(rest, &tolerance, Some(&domain)).map(|a| a.to_string()),
        };
        said.unwrap_or_else(|reply| {
            let (a, b, c) = reply.status();
            format!("{} {a}.{b}.{c}", reply.code)
        })
    }

    fn check(verb: &str, rest: &str, expected: [&str; 3]) {
        for (level, expected) in [Strict, Standard, Device].into_iter().zip(expected) {
            assert_eq!(say(level, verb, rest), expected, "{verb} {rest} {level:?}");
        }
    }

    #[test]
    fn senders() {
        const NO: &str = "501 5.1.7";
        for (rest, expected) in [
            ("FROM:<a@corp.com>", ["a@corp.com"; 3]),
            ("from:<A@CORP.com.>", ["A@corp.com"; 3]),
            ("FROM:<>", ["<>"; 3]),
            ("FROM:<> SIZE=10 BODY=8BITMIME AUTH=<>", ["<>"; 3]),
            ("FROM:a@corp.com", [NO, "a@corp.com", "a@corp.com"]),
            ("FROM: <a@corp.com>", [NO, "a@corp.com", "a@corp.com"]),
            ("FROM: a@corp.com SIZE=5", [NO, "a@corp.com", "a@corp.com"]),
            ("FROM :<a@corp.com>", [NO, "a@corp.com", "a@corp.com"]),
            ("FROM:<root>", [NO, "root@corp.com", "root@corp.com"]),
            ("FROM:root", [NO, "root@corp.com", "root@corp.com"]),
            ("FROM:App <a@corp.com>", [NO, NO, "a@corp.com"]),
            ("FROM:<\"A\" <a@corp.com>>", [NO, NO, "a@corp.com"]),
            ("FROM:App <a@corp.com> SIZE=5", [NO, NO, "a@corp.com"]),
            ("FROM:<'a@corp.com'>", [NO, NO, "a@corp.com"]),
            (
                "FROM:<\"a@corp.com\">",
                [NO, "\"a@corp.com\"@corp.com", "a@corp.com"],
            ),
            ("FROM:b@evil.tld <a@corp.com>", [NO, NO, NO]),
            ("FROM:<b@evil.tld <a@corp.com>>", [NO, NO, NO]),
            ("FROM:", [NO; 3]),
            ("", [NO; 3]),
            ("FROM", [NO; 3]),
            ("TO:<a@corp.com>", [NO; 3]),
            ("FROM:<a@corp.com", [NO; 3]),
            ("FROM:<a@corp.com>x", [NO; 3]),
            ("FROM:<a@corp.com> AUTH=<>", ["a@corp.com"; 3]),
            ("FROM:<a@corp.com> FOO=1", ["555 5.5.4"; 3]),
            (
                "FROM:<a@corp.com> RET=HDRS ENVID=a+2Bb SMTPUTF8",
                ["555 5.5.4", "555 5.5.4", "a@corp.com"],
            ),
            (
                "FROM:<a@corp.com> SMTPUTF8",
                ["555 5.5.4", "555 5.5.4", "a@corp.com"],
            ),
            ("FROM:<> ret=full SIZE=1", ["555 5.5.4", "555 5.5.4", "<>"]),
            ("FROM:<a@corp.com> NOTIFY=NEVER", ["555 5.5.4"; 3]),
            ("FROM:<a@corp.com> SMTPUTF8=1", ["555 5.5.4"; 3]),
            ("FROM:<a@corp.com> MT-PRIORITY=3", ["555 5.5.4"; 3]),
            ("FROM:<a@corp.com> RET=FULL RET=FULL", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com>,", [NO, NO, "a@corp.com"]),
            ("FROM:<a@corp.com>;; SIZE=5", [NO, NO, "a@corp.com"]),
            ("FROM:<a@corp.com,>", [NO, NO, "a@corp.com"]),
            ("FROM:<>,", [NO, NO, "<>"]),
            (
                "FROM:<a@corp.com> (Scanner)",
                ["501 5.5.4", "501 5.5.4", "a@corp.com"],
            ),
            ("FROM:<a@corp.com (Scan (2) \\) x)>", [NO, NO, "a@corp.com"]),
            ("FROM:(x) <a@corp.com>", [NO, NO, "a@corp.com"]),
            ("FROM:App <a@corp.com>, ", [NO, NO, "a@corp.com"]),
            ("FROM:<App <a@corp.com>>;", [NO, NO, "a@corp.com"]),
            ("FROM:a@corp.com; SIZE=5", [NO, NO, "a@corp.com"]),
            (
                "FROM:a@corp.com (Scanner) SIZE=5",
                [NO, "501 5.5.4", "a@corp.com"],
            ),
            ("FROM:<root>,", [NO, NO, "root@corp.com"]),
            ("FROM:<a(x)b@corp.com>", [NO; 3]),
            ("FROM:<a@corp.com> (b@evil.tld)", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com (b@evil.tld)>", [NO; 3]),
            ("FROM:<a@corp.com (x>", [NO; 3]),
            ("FROM:<a@corp.com>;SIZE=5", [NO; 3]),
            ("FROM:<a@corp.com> SIZE=1 SIZE=1", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com> SIZE=-1", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com> SIZE=abc", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com> SIZE=", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com> SIZE", ["501 5.5.4"; 3]),
            ("FROM:<a@corp.com> BODY=BINARYMIME", ["501 5.5.4"; 3]),
            ("FROM:<\u{e4}@corp.com>", ["553 5.6.7"; 3]),
        ] {
            check("MAIL", rest, expected);
        }
    }

    #[test]
    fn recipients() {
        const NO: &str = "501 5.1.3";
        for (rest, expected) in [
            ("TO:<postmaster>", ["postmaster@corp.com"; 3]),
            ("TO:<@a,@[IPv6:::1]:v@x.tld>", [NO, "v@x.tld", "v@x.tld"]),
            ("TO:<@gw.corp.com:v@x.tld>", [NO, "v@x.tld", "v@x.tld"]),
            ("TO:<@gw.corp.com>", [NO; 3]),
            ("TO:<@:v@x.tld>", [NO; 3]),
            ("TO:<>", [NO; 3]),
            ("TO:<x@corp.com>,<v@victim.tld>", [NO; 3]),
            ("TO:<x@corp.com> <v@victim.tld>", ["501 5.5.4"; 3]),
            ("TO:x@corp.com <v@victim.tld>", [NO; 3]),
            ("TO:x@corp.com,v@victim.tld", [NO; 3]),
            ("TO:<x@corp.com,v@victim.tld>", [NO; 3]),
            ("TO:<v@victim.tld@corp.com>", [NO; 3]),
            ("TO:<v@victim.tld@>", [NO; 3]),
            ("TO:<x@corp.com>, <v@victim.tld>", [NO, NO, "501 5.5.4"]),
            ("TO:<ilo.>", [NO, "ilo.@corp.com", "ilo.@corp.com"]),
            ("TO:<x@corp.com>;,<v@victim.tld>", [NO; 3]),
            ("TO:<x@corp.com>(x)<v@victim.tld>", [NO; 3]),
            ("TO:x@corp.com, v@victim.tld", [NO, NO, "501 5.5.4"]),
            ("TO:<x@corp.com;v@victim.tld>", [NO; 3]),
            ("TO:<x@corp.com>;", [NO, NO, "x@corp.com"]),
            ("TO:x@corp.com;", [NO, NO, "x@corp.com"]),
            ("TO:<\"a,(b\"@corp.com>", ["\"a,(b\"@corp.com"; 3]),
            ("TO:<\"a;\"@corp.com>;", [NO, NO, "\"a;\"@corp.com"]),
            ("TO:<>;", [NO; 3]),
            ("TO:<x..y@corp.com>", ["x..y@corp.com"; 3]),
            ("TO:<.x@corp.com>", [NO; 3]),
            ("TO:<ilo.@corp.com>", ["ilo.@corp.com"; 3]),
            (
                "TO:<x@corp.com> NOTIFY=FAILURE,DELAY",
                ["555 5.5.4", "555 5.5.4", "x@corp.com"],
            ),
            (
                "TO:<v@victim.tld> ORCPT=rfc822;x@corp.com notify=never",
                ["555 5.5.4", "555 5.5.4", "v@victim.tld"],
            ),
            ("TO:<x@corp.com> RET=HDRS", ["555 5.5.4"; 3]),
            (
                "TO:<x@corp.com> NOTIFY=NEVER NOTIFY=NEVER",
                ["501 5.5.4"; 3],
            ),
            (
                "TO:<\"foo@evil.tld> ORCPT=a@b\"@corp.com>",
                ["\"foo@evil.tld> ORCPT=a@b\"@corp.com"; 3],
            ),
            (
                "TO:<\"v@victim.tld\"@corp.com>",
                ["\"v@victim.tld\"@corp.com"; 3],
            ),
            ("TO:<x@\u{212a}orp.com>", ["553 5.6.7"; 3]),
            (
                "TO:<v%victim.tld>",
                [NO, "v%victim.tld@corp.com", "v%victim.tld@corp.com"],
            ),
        ] {
            check("RCPT", rest, expected);
        }
        let reply = rcpt(b"TO:<root>", &Tolerance::of(Standard), None).unwrap_err();
        assert_eq!((reply.code, reply.enhanced), (553, Some((5, 1, 3))));
        assert!(reply.text.contains("default_domain"));
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("FROM:<> SIZE=0", Some(0)),
            ("FROM:<> size=18446744073709551615", Some(u64::MAX)),
            ("FROM:<> SIZE=18446744073709551616", Some(u64::MAX)),
            ("FROM:<> SIZE=184467440737095516160", None),
        ] {
            let read = mail(text.as_bytes(), &Tolerance::of(Standard), None);
            assert_eq!(read.ok().and_then(|m| m.size), expected, "{text}");
        }
    }

    #[test]
    fn commands() {
        let tolerance = Tolerance::of(Standard);
        for (line, expected) in [
            (&b"eHlO my_host \t"[..], Ok(Command::Ehlo(b"my_host"))),
            (b"HELO", Ok(Command::Helo(b""))),
            (b"quit", Ok(Command::Quit)),
            (b"  ", Ok(Command::Blank)),
            (b"GET / HTTP/1.1", Ok(Command::Http)),
            (b"XCLIENT ADDR=127.0.0.1", Ok(Command::Unknown)),
            (b"PROXY TCP4 127.0.0.1", Ok(Command::Unknown)),
            (b"\x80\x81", Ok(Command::Unknown)),
            (b"NO\0OP", Err(500)),
            (b"RCPT TO:<a@b>\rRCPT TO:<c@d>", Err(500)),
        ] {
            let read = parse(line, &tolerance).map_err(|r| r.code);
            assert_eq!(read, expected, "{}", line.escape_ascii());
        }
        assert_eq!(helo_name(b"x (by evil)\t"), "x??by?evil?");
        assert_eq!(helo_name(b" "), "unknown");
        assert_eq!(helo_name(&[b'a'; 4000]).len(), 255);
    }
}
