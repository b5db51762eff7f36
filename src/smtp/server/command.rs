//! The grammar of commands (RFC 5321 §4.1): a line to a [`Command`], the argument of MAIL and RCPT to an address (which `path`
//! finds) and its parameters.
//!
//! It can be tested as a table. It knows what is well-formed, not what may come when.

use crate::mail::{
    address::{Address, Domain},
    recipient::{DsnWish, Notify, Recipient, ReportWish, ReturnedContent},
    reply::Reply,
    text, xtext,
};

use super::{
    path::{EnvelopePath, PathError, address, behind_colon, path_of},
    tolerance::Tolerance,
};

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
    /// BDAT and what follows it, for [`chunk`]; what follows the line is no command.
    Bdat(&'a [u8]),
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
        b"BDAT" => Command::Bdat(rest),
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
    text::word(argument.trim_ascii().iter().copied().map(char::from), 255)
}

/// A well-formed MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// `None` is `<>`.
    pub sender: Option<Address>,
    /// `SIZE=`; beyond `u64` it is `u64::MAX`.
    pub size: Option<u64>,
    /// `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// `SMTPUTF8`.
    pub utf8: bool,
    /// `RET=` and `ENVID=`.
    pub dsn: Option<ReportWish>,
}

/// Which extensions the client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    /// It said EHLO: those that are always offered.
    pub esmtp: bool,
    /// For MAIL: SMTPUTF8 was offered. For RCPT: MAIL asked for it.
    pub utf8: bool,
}

/// Reads the argument of MAIL (RFC 5321 §4.1.1.2).
///
/// # Errors
/// 501, 553 or 555 with the reason.
pub fn mail(
    rest: &[u8],
    tolerance: &Tolerance,
    bare: Option<&Domain>,
    Extensions { esmtp, utf8 }: Extensions,
) -> Result<MailCommand, Reply> {
    let text = behind_colon(rest, "FROM", tolerance, utf8).map_err(PathError::sender)?;
    let (path, parameters) = path_of(&text, tolerance).map_err(PathError::sender)?;
    if !text.is_ascii() && !has_keyword(parameters, "SMTPUTF8") {
        return Err(PathError::NotAscii.sender());
    }
    let sender = match path {
        EnvelopePath::Null => None,
        EnvelopePath::Mailbox(text) => {
            Some(address(text, tolerance, bare).map_err(PathError::sender)?)
        }
    };
    let mut mail = MailCommand {
        sender,
        size: None,
        eight_bit: false,
        utf8: false,
        dsn: None,
    };
    for (key, value) in keywords(parameters)? {
        match (key.as_str(), value) {
            ("SIZE", value) => mail.size = Some(size(value)?),
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {}
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => {
                mail.eight_bit = true;
            }
            // RFC 3030 §3: nobody takes it onwards, and a recoded body breaks what was signed.
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("BINARYMIME") => {
                return Err(Reply::unknown_parameter("BODY=BINARYMIME"));
            }
            ("BODY", _) => return Err(Reply::bad_parameter("BODY is 7BIT or 8BITMIME")),
            // RFC 4954 §5: what an untrusted client says of the original sender's login counts for nothing.
            ("AUTH", Some(_)) => {}
            ("RET", value) if esmtp => {
                let content = value.and_then(ReturnedContent::parse);
                let content = content.ok_or_else(|| Reply::bad_parameter("RET is FULL or HDRS"))?;
                mail.dsn.get_or_insert_default().content = Some(content);
            }
            ("ENVID", value) if esmtp => {
                let id = value
                    .filter(|id| xtext::is_envelope_id(id))
                    .ok_or_else(|| {
                        Reply::bad_parameter(
                            "ENVID is 1 to 100 octets of xtext (RFC 3461), printable",
                        )
                    })?;
                mail.dsn.get_or_insert_default().id = Some(id.to_owned());
            }
            ("SMTPUTF8", None) if utf8 => mail.utf8 = true,
            ("SMTPUTF8", Some(_)) if utf8 => {
                return Err(Reply::bad_parameter("SMTPUTF8 takes no value"));
            }
            ("RET" | "ENVID", _) | ("SMTPUTF8", None) if tolerance.foreign_parameters => {}
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(mail)
}

/// Reads the argument of RCPT (RFC 5321 §4.1.1.3).
///
/// # Errors
/// 501, 553 or 555 with the reason.
pub fn rcpt(
    rest: &[u8],
    tolerance: &Tolerance,
    bare: Option<&Domain>,
    Extensions { esmtp, utf8 }: Extensions,
) -> Result<Recipient, Reply> {
    let text = behind_colon(rest, "TO", tolerance, utf8).map_err(PathError::recipient)?;
    let (path, parameters) = path_of(&text, tolerance).map_err(PathError::recipient)?;
    let address = match path {
        EnvelopePath::Null => Err(PathError::Syntax("<> is no recipient")),
        EnvelopePath::Mailbox(text) => address(text, tolerance, bare),
    }
    .map_err(PathError::recipient)?;
    let mut dsn: Option<DsnWish> = None;
    for (key, value) in keywords(parameters)? {
        match (key.as_str(), value) {
            ("NOTIFY", value) if esmtp => {
                let notify = value.and_then(Notify::parse).ok_or_else(|| {
                    Reply::bad_parameter("NOTIFY is NEVER, or a list of SUCCESS,FAILURE,DELAY")
                })?;
                dsn.get_or_insert_default().notify = Some(notify);
            }
            ("ORCPT", value) if esmtp => {
                let original = value.filter(|text| xtext::is_original(text, utf8)).ok_or_else(|| {
                    Reply::bad_parameter("ORCPT is a type, a semicolon and xtext (RFC 3461), printable, to 500 octets")
                })?;
                dsn.get_or_insert_default().original = Some(original.to_owned());
            }
            ("NOTIFY" | "ORCPT", _) if tolerance.foreign_parameters => {}
            _ => return Err(Reply::unknown_parameter(&key)),
        }
    }
    Ok(Recipient { address, dsn })
}

/// Reads the argument of BDAT (RFC 3030 §2): how many octets follow, and whether they are the last.
///
/// # Errors
/// 501: nobody can say where the chunk ends.
pub fn chunk(rest: &[u8]) -> Result<(u64, bool), Reply> {
    let fault = || Reply::bad_argument("BDAT takes a number of octets, and LAST");
    let mut words = rest
        .split(|octet| b" \t".contains(octet))
        .filter(|word| !word.is_empty());
    let digits = words.next().ok_or_else(fault)?;
    if digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(fault());
    }
    let size = std::str::from_utf8(digits).ok();
    let size = size.and_then(|digits| digits.parse().ok());
    let size = size.ok_or_else(fault)?;
    match (words.next(), words.next()) {
        (None, _) => Ok((size, false)),
        (Some(last), None) if last.eq_ignore_ascii_case(b"LAST") => Ok((size, true)),
        _ => Err(fault()),
    }
}

/// Whether a parameter is among those behind a path, rightly or with a value that it must not have.
fn has_keyword(parameters: &str, word: &str) -> bool {
    parameters
        .split_ascii_whitespace()
        .filter_map(|parameter| parameter.split('=').next())
        .any(|key| key.eq_ignore_ascii_case(word))
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
    use crate::policy::client::ToleranceLevel::{self, Device, Standard, Strict};

    const HELO: Extensions = Extensions {
        esmtp: false,
        utf8: false,
    };
    const EHLO: Extensions = Extensions {
        esmtp: true,
        utf8: false,
    };

    /// After HELO.
    fn say(level: ToleranceLevel, verb: &str, rest: &str) -> String {
        let (tolerance, domain) = (Tolerance::of(level), Domain::parse("corp.com").unwrap());
        let rest = rest.as_bytes();
        let said = match verb {
            "MAIL" => mail(rest, &tolerance, Some(&domain), HELO)
                .map(|m| m.sender.map_or("<>".into(), |a| a.to_string())),
            _ => rcpt(rest, &tolerance, Some(&domain), HELO).map(|a| a.to_string()),
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
    fn chunks() {
        for (rest, expected) in [
            ("0", Ok((0, false))),
            ("0 LAST", Ok((0, true))),
            ("12 last", Ok((12, true))),
            ("  12   LAST ", Ok((12, true))),
            ("00000000000000000012", Ok((12, false))),
            ("18446744073709551615", Ok((u64::MAX, false))),
            ("18446744073709551616", Err(())),
            ("000000000000000000012", Err(())),
            ("", Err(())),
            ("LAST", Err(())),
            ("x", Err(())),
            ("-1", Err(())),
            ("+1", Err(())),
            ("0x10", Err(())),
            ("1.0", Err(())),
            ("12 FIRST", Err(())),
            ("12 LAST LAST", Err(())),
            ("12,LAST", Err(())),
            ("1 2", Err(())),
            ("\u{661}", Err(())),
        ] {
            let read = chunk(rest.as_bytes()).map_err(|reply| {
                assert_eq!((reply.code, reply.status()), (501, (5, 5, 4)), "{rest:?}");
            });
            assert_eq!(read, expected, "{rest:?}");
        }
    }

    #[test]
    fn with_smtputf8() {
        let both = Extensions {
            esmtp: true,
            utf8: true,
        };
        let say = |level, verb: &str, rest: &[u8]| {
            let (tolerance, domain) = (Tolerance::of(level), Domain::parse("corp.com").unwrap());
            let said = match verb {
                "MAIL" => mail(rest, &tolerance, Some(&domain), both).map(|m| {
                    let sender = m.sender.map_or("<>".into(), |a| a.to_string());
                    format!("{sender} {}", m.utf8)
                }),
                _ => rcpt(rest, &tolerance, Some(&domain), both).map(|a| a.to_string()),
            };
            said.unwrap_or_else(|reply| {
                let (a, b, c) = reply.status();
                format!("{} {a}.{b}.{c}", reply.code)
            })
        };
        for (verb, rest, expected) in [
            (
                "MAIL",
                "FROM:<b\u{fc}ro@corp.com> SMTPUTF8",
                "b\u{fc}ro@corp.com true",
            ),
            (
                "MAIL",
                "FROM:<b\u{fc}ro@corp.com> SIZE=1 smtputf8",
                "b\u{fc}ro@corp.com true",
            ),
            ("MAIL", "FROM:<a@corp.com> SMTPUTF8", "a@corp.com true"),
            ("MAIL", "FROM:<> SMTPUTF8", "<> true"),
            ("MAIL", "FROM:<a@corp.com>", "a@corp.com false"),
            (
                "MAIL",
                "FROM:<a@b\u{fc}cher.example> SMTPUTF8",
                "a@xn--bcher-kva.example true",
            ),
            ("MAIL", "FROM:<b\u{fc}ro@corp.com>", "553 5.6.7"),
            ("MAIL", "FROM:<a@b\u{fc}cher.example>", "553 5.6.7"),
            ("MAIL", "FROM:<b\u{fc}ro@corp.com> XSMTPUTF8", "553 5.6.7"),
            ("MAIL", "FROM:<\"b\u{fc}> SMTPUTF8\"@corp.com>", "553 5.6.7"),
            ("MAIL", "FROM:<b\u{fc}ro@corp.com> SMTPUTF8=1", "501 5.5.4"),
            ("MAIL", "FROM:<b\u{fc}ro@corp.com> SMTPUTF8=", "501 5.5.4"),
            ("MAIL", "FROM:<b\u{fc}ro@corp.com> SMTPUTF8X", "553 5.6.7"),
            ("MAIL", "FROM:<a@corp.com> SMTPUTF8=1", "501 5.5.4"),
            ("MAIL", "FROM:<a@corp.com> SMTPUTF8=", "501 5.5.4"),
            ("MAIL", "FROM:<a@corp.com> SMTPUTF8 SMTPUTF8", "501 5.5.4"),
            ("MAIL", "FROM:<a@corp.com> SMTPUTF8 X\u{fc}=1", "501 5.5.4"),
            (
                "MAIL",
                "FROM:<a@corp.com> SMTPUTF8 ENVID=\u{fc}",
                "501 5.5.4",
            ),
            ("RCPT", "TO:<b\u{fc}ro@corp.com>", "b\u{fc}ro@corp.com"),
            ("RCPT", "TO:<b\u{fc}ro@corp.com> SMTPUTF8", "555 5.5.4"),
            (
                "RCPT",
                "TO:<b\u{fc}ro\u{ff20}evil.tld@corp.com>",
                "553 5.6.7",
            ),
            ("RCPT", "TO:<bu\u{308}ro@corp.com>", "553 5.6.7"),
            (
                "RCPT",
                "TO:<a@corp.com> ORCPT=utf-8;b\u{fc}ro@corp.com",
                "a@corp.com",
            ),
            (
                "RCPT",
                "TO:<a@corp.com> ORCPT=rfc822;b\u{fc}ro@corp.com",
                "501 5.5.4",
            ),
            (
                "RCPT",
                "TO:<a@corp.com> ORCPT=utf-8;b\u{202e}@corp.com",
                "501 5.5.4",
            ),
        ] {
            for level in [Strict, Standard, Device] {
                assert_eq!(
                    say(level, verb, rest.as_bytes()),
                    expected,
                    "{verb} {rest} {level:?}"
                );
            }
        }
        for (verb, rest) in [
            ("MAIL", &b"FROM:<b\xfcro@corp.com> SMTPUTF8"[..]),
            ("RCPT", b"TO:<b\xc0\xaero@corp.com>"),
            ("RCPT", b"TO:<\xed\xa0\x80@corp.com>"),
            ("RCPT", b"TO:<\xf5\x80\x80\x80@corp.com>"),
        ] {
            assert_eq!(
                say(Standard, verb, rest),
                "553 5.6.7",
                "{}",
                rest.escape_ascii()
            );
        }
        let bare = say(Standard, "RCPT", "TO:<b\u{fc}ro>".as_bytes());
        assert_eq!(bare, "b\u{fc}ro@corp.com");
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
            ("FROM:<a@corp.com>>", [NO, NO, "a@corp.com"]),
            ("FROM:<a@corp.com>> SIZE=1", [NO, NO, "a@corp.com"]),
            ("FROM:<a@corp.com>>b@evil.tld", [NO, NO, NO]),
            ("FROM:<a@corp.com>><b@evil.tld>", [NO, NO, NO]),
            ("FROM:<a@corp.com>>,<b@evil.tld>", [NO, NO, NO]),
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
            ("FROM:<a@corp.com> BODY=BINARYMIME", ["555 5.5.4"; 3]),
            ("FROM:<a@corp.com> BODY=9BIT", ["501 5.5.4"; 3]),
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
            ("TO:<x@corp.com>'", [NO, NO, "x@corp.com"]),
            ("TO:<SMTP:x@corp.com>", [NO, NO, "x@corp.com"]),
            ("TO:<mailto:x@corp.com>", [NO, NO, "x@corp.com"]),
            ("TO:<mailto:v@victim.tld,x@corp.com>", [NO; 3]),
            ("TO:<http:x@corp.com>", [NO; 3]),
            ("TO:<smtp:mailto:x@corp.com>", [NO; 3]),
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
        let reply = rcpt(b"TO:<root>", &Tolerance::of(Standard), None, EHLO).unwrap_err();
        assert_eq!((reply.code, reply.enhanced), (553, Some((5, 1, 3))));
        assert!(reply.text.contains("default_domain"));
    }

    /// Whatever stands around it: with two addresses in the argument there is none, at no level.
    #[test]
    fn two_addresses_are_none() {
        const PIECES: [&str; 14] = [
            "a@b.cc", "x@y.zz", "<", ">", ">", ",", ";", " ", "(", ")", "'", "SMTP:", "name", ".",
        ];
        let mut random = fastrand::Rng::with_seed(11);
        let (mut taken, mut two) = (0, 0);
        for _ in 0..crate::fixture::times(50_000) {
            let count = random.usize(1..8);
            let path: String = (0..count)
                .map(|_| PIECES[random.usize(0..PIECES.len())])
                .collect();
            let addresses = path.matches('@').count();
            two += usize::from(addresses == 2);
            for level in [Strict, Standard, Device] {
                let text = format!("TO:{path}");
                if let Ok(found) = rcpt(text.as_bytes(), &Tolerance::of(level), None, EHLO) {
                    taken += 1;
                    assert_eq!(addresses, 1, "{text:?}: {found}");
                    // Nothing has grown together with it.
                    assert!(path.contains(&found.to_string()), "{text:?}: {found}");
                }
            }
        }
        assert!(taken > 500 && two > 500, "{taken} taken of {two}");
    }

    /// What a command says of reports, at every level the same: after EHLO DSN is offered.
    fn wish(verb: &str, parameters: &str) -> String {
        let said = |level| {
            let tolerance = Tolerance::of(level);
            let text = match verb {
                "MAIL" => format!("FROM:<a@corp.com> {parameters}"),
                _ => format!("TO:<x@corp.com> {parameters}"),
            };
            let rest = text.as_bytes();
            let found = match verb {
                "MAIL" => mail(rest, &tolerance, None, EHLO).map(|mail| {
                    let wish = mail.dsn.unwrap_or_default();
                    let content = wish.content.map_or("-", ReturnedContent::as_str);
                    format!("{content} {}", wish.id.unwrap_or_default())
                }),
                _ => rcpt(rest, &tolerance, None, EHLO).map(|recipient| {
                    assert_eq!(recipient.address.to_string(), "x@corp.com");
                    let wish = recipient.dsn.unwrap_or_default();
                    let notify = wish.notify.map_or("-".to_owned(), |n| n.to_string());
                    format!("{notify} {}", wish.original.unwrap_or_default())
                }),
            };
            found.unwrap_or_else(|reply| {
                let (a, b, c) = reply.status();
                format!("{} {a}.{b}.{c}", reply.code)
            })
        };
        let all = [Strict, Standard, Device].map(said);
        assert!(
            all[0] == all[1] && all[1] == all[2],
            "{parameters}: {all:?}"
        );
        let [one, ..] = all;
        one
    }

    #[test]
    fn what_is_asked_of_reports() {
        const BAD: &str = "501 5.5.4";
        const OTHER: &str = "555 5.5.4";
        let long = |count: usize| "x".repeat(count);
        for (parameters, expected) in [
            ("RET=FULL", "FULL "),
            ("ret=hdrs ENVID=QQ+2B314", "HDRS QQ+2B314"),
            ("envid=<a>", "- <a>"),
            ("RET=ALL", BAD),
            ("RET", BAD),
            ("RET=", BAD),
            ("RET=FULL RET=FULL", BAD),
            ("ENVID", BAD),
            ("ENVID=a=b", BAD),
            ("ENVID=a+2b", BAD),
            ("ENVID=a+0D+0Ab", BAD),
            ("ENVID=a+00", BAD),
            ("NOTIFY=NEVER", OTHER),
            ("ORCPT=rfc822;a@b.example", OTHER),
        ] {
            assert_eq!(wish("MAIL", parameters), expected, "{parameters}");
        }
        assert_eq!(
            wish("MAIL", &format!("ENVID={}", long(100))),
            format!("- {}", long(100))
        );
        assert_eq!(wish("MAIL", &format!("ENVID={}", long(101))), BAD);
        for (parameters, expected) in [
            ("NOTIFY=NEVER", "NEVER "),
            ("notify=delay,Success", "SUCCESS,DELAY "),
            ("NOTIFY=FAILURE,FAILURE", "FAILURE "),
            (
                "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;v@victim.tld",
                "SUCCESS,FAILURE,DELAY rfc822;v@victim.tld",
            ),
            ("ORCPT=x400;<y@corp.com>", "- x400;<y@corp.com>"),
            ("ORCPT=utf-8;\\x{FC}@corp.com", "- utf-8;\\x{FC}@corp.com"),
            (
                "ORCPT=rfc822;a,<b@corp.com>;(c)",
                "- rfc822;a,<b@corp.com>;(c)",
            ),
            ("NOTIFY=NEVER,SUCCESS", BAD),
            ("NOTIFY=SUCCESS,", BAD),
            ("NOTIFY=ALWAYS", BAD),
            ("NOTIFY", BAD),
            ("NOTIFY=NEVER NOTIFY=NEVER", BAD),
            ("ORCPT=y@corp.com", BAD),
            ("ORCPT", BAD),
            ("ORCPT=rfc822;", BAD),
            ("ORCPT=rfc822;a+0A.", BAD),
            ("ORCPT=rfc822;a+00", BAD),
            ("ORCPT=utf-8;\\x{A}", BAD),
            ("RET=FULL", OTHER),
            ("ENVID=x", OTHER),
        ] {
            assert_eq!(wish("RCPT", parameters), expected, "{parameters}");
        }
        let of = |count: usize| format!("ORCPT=rfc822;{}", long(count - 7));
        assert_eq!(wish("RCPT", &of(500)), format!("- {}", &of(500)[6..]));
        assert_eq!(wish("RCPT", &of(501)), BAD);
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("FROM:<> SIZE=0", Some(0)),
            ("FROM:<> size=18446744073709551615", Some(u64::MAX)),
            ("FROM:<> SIZE=18446744073709551616", Some(u64::MAX)),
            ("FROM:<> SIZE=184467440737095516160", None),
        ] {
            let read = mail(text.as_bytes(), &Tolerance::of(Standard), None, EHLO);
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
