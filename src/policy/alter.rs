//! `[[header]]`: fields that a rule takes out, puts in, and a subject that it begins with a prefix.
//!
//! It works on the header as it came, repaired and before it is judged, so that nothing a rule writes escapes the judge. Which fields no
//! rule may touch was said when the rule was made; what stays keeps its octets.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail_parser::MessageParser;

use super::scope::{Posted, Scope};
use crate::mail::{
    headers::{self, Field, fields},
    recipient::Recipient,
    text::encoded_words,
};

/// A line may have so many octets without its end (RFC 5322 §2.1.1), and should have so many.
const LINE: usize = 998;
const SHOULD: usize = 78;
/// One with an encoded word (RFC 2047 §2), and the word itself.
const ENCODED_LINE: usize = 76;
const ENCODED_WORD: usize = 75;
/// Octets of a prefix.
const PREFIX: usize = 60;
/// Octets of a subject that are looked at for a prefix that stands there already.
const LOOKED_AT: usize = 2000;

/// Fields that say who, to whom, when and by what way, and how the body is to be read: no rule touches them.
const FORBIDDEN: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Apparently-To",
    "Date",
    "Message-ID",
    "Received",
    "Return-Path",
    "DKIM-Signature",
    "MIME-Version",
];
/// The same, of whole families.
const FAMILIES: [&str; 2] = ["Resent-", "Content-"];

/// One `[[header]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRule {
    /// Whose mail, and where any recipient is one of its.
    pub scope: Scope,
    /// Names of fields that go, all of that name.
    pub remove: Vec<FieldName>,
    /// Fields that are put at the end of the header.
    pub add: Vec<AddedField>,
    /// What the subject begins with.
    pub subject_prefix: Option<SubjectPrefix>,
}

/// The name of a field that a rule may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(String);

/// A field as it is put into a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedField {
    name: FieldName,
    /// Folded, encoded where it was not ASCII.
    value: String,
}

/// What a subject begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPrefix {
    /// As somebody reads it; it may end in a blank.
    text: String,
    /// It is not ASCII: as an encoded word, with its last blank and without it.
    encoded: Option<(String, String)>,
}

/// Why a rule cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterFault {
    /// It is no name of a field.
    #[error("\"{0}\" is not the name of a header field")]
    NoName(String),
    /// No rule may touch it.
    #[error("no rule may change {0}")]
    Forbidden(String),
    /// There is no colon.
    #[error("a field has a name, a colon and a value")]
    NoColon,
    /// There is nothing behind the colon.
    #[error("there is no value behind the colon")]
    Empty,
    /// Something in it may end a field, or is not to be seen.
    #[error("a control character cannot stand in a header field")]
    Control,
    /// A word that cannot be folded is longer than a line may be.
    #[error("it has a word of more than {LINE} octets, and no line may be longer")]
    TooLong,
    /// There is nothing in a prefix, or it begins with a blank.
    #[error("a prefix begins with something that can be seen")]
    BlankPrefix,
    /// The prefix is too long.
    #[error(
        "the prefix is too long: at most {PREFIX} octets, or {ENCODED_WORD} when it is encoded as one word (RFC 2047)"
    )]
    LongPrefix,
}

impl FieldName {
    /// A name that a rule may use.
    ///
    /// # Errors
    /// It is none (RFC 5322 §2.2), or one of a field that no rule may touch.
    pub fn parse(text: &str) -> Result<Self, AlterFault> {
        let is_name = |b: u8| matches!(b, b'!'..=b'9' | b';'..=b'~');
        if text.is_empty() || text.len() > SHOULD - 2 || !text.bytes().all(is_name) {
            return Err(AlterFault::NoName(text.to_owned()));
        }
        let begins = |family: &&str| {
            let beginning = text.get(..family.len());
            beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(family))
        };
        let is_forbidden = FORBIDDEN.iter().any(|name| text.eq_ignore_ascii_case(name));
        if is_forbidden || FAMILIES.iter().any(begins) {
            return Err(AlterFault::Forbidden(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AddedField {
    /// `Name: value`.
    ///
    /// # Errors
    /// There is no such field, or a rule may not add it.
    pub fn parse(text: &str) -> Result<Self, AlterFault> {
        if text.chars().any(is_control) {
            return Err(AlterFault::Control);
        }
        let (name, value) = text.split_once(':').ok_or(AlterFault::NoColon)?;
        let name = FieldName::parse(name)?;
        let value = value.trim_matches(' ');
        if value.is_empty() {
            return Err(AlterFault::Empty);
        }
        let value = if value.is_ascii() {
            folded(name.0.len() + 2, value)
        } else {
            encoded_words(value)
        };
        if headers::lines(value.as_bytes()).any(|line| name.0.len() + 2 + line.len() > LINE) {
            return Err(AlterFault::TooLong);
        }
        Ok(Self { name, value })
    }

    /// Its name.
    pub fn name(&self) -> &FieldName {
        &self.name
    }
}

impl SubjectPrefix {
    /// A prefix; a blank at its end stands between it and the subject.
    ///
    /// # Errors
    /// It is blank, too long, or has a control character in it.
    pub fn parse(text: &str) -> Result<Self, AlterFault> {
        if text.chars().any(is_control) {
            return Err(AlterFault::Control);
        }
        if text.is_empty() || text.starts_with(' ') {
            return Err(AlterFault::BlankPrefix);
        }
        let encoded = (!text.is_ascii()).then(|| {
            let word = |text: &str| format!("=?utf-8?B?{}?=", STANDARD.encode(text));
            (word(text), word(text.trim_end_matches(' ')))
        });
        let is_long = match &encoded {
            None => text.len() > PREFIX,
            Some((word, _)) => word.len() > ENCODED_WORD,
        };
        if is_long {
            return Err(AlterFault::LongPrefix);
        }
        Ok(Self {
            text: text.to_owned(),
            encoded,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The header with it before every subject there is: of several, nobody knows which one a reader shows.
    fn applied(&self, header: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(header.len() + 128);
        let mut has_subject = false;
        for field in fields(header) {
            let is_subject = field.is("Subject");
            has_subject |= is_subject;
            match is_subject.then(|| self.before(field)).flatten() {
                Some(value) => {
                    out.extend_from_slice(field.name);
                    out.push(b':');
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                None => out.extend_from_slice(field.raw),
            }
        }
        if !has_subject {
            headers::append(&mut out, "Subject", self.alone().as_bytes());
        }
        out
    }

    /// The value of a Subject field that has it before the first octet; `None`: it stands there already.
    fn before(&self, field: Field<'_>) -> Option<Vec<u8>> {
        let blanks = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        let from = field.value.iter().position(|b| !blanks(b));
        let Some(rest) = from.and_then(|at| field.value.get(at..)) else {
            return Some([b" ", self.alone().as_bytes()].concat());
        };
        if self.stands_in(rest) {
            return None;
        }
        let is_word = rest.starts_with(b"=?");
        let is_apart = self.text.ends_with(' ');
        let (head, gap) = match &self.encoded {
            // A blank between two encoded words is not seen (RFC 2047 §6.2); one before other text is.
            Some((whole, _)) if is_word => (whole.as_str(), true),
            Some((_, trimmed)) => (trimmed.as_str(), true),
            None => (self.text.trim_end_matches(' '), is_word || is_apart),
        };
        let first = headers::lines(rest).next().unwrap_or_default();
        let width = field.name.len() + 2 + head.len() + usize::from(gap) + first.len();
        let is_encoded = is_word || self.encoded.is_some();
        let most = if is_encoded { ENCODED_LINE } else { SHOULD };
        let between: &[u8] = match gap {
            // A line that was too long already gets no longer.
            true if width > most => b"\r\n ",
            true => b" ",
            false if width > LINE => b"\r\n ",
            false => b"",
        };
        Some([b" ", head.as_bytes(), between, rest].concat())
    }

    /// As the value of a field of its own.
    fn alone(&self) -> &str {
        match &self.encoded {
            Some((_, trimmed)) => trimmed,
            None => self.text.trim_end_matches(' '),
        }
    }

    /// Whether a value begins with it, as it is written or as it is read.
    fn stands_in(&self, value: &[u8]) -> bool {
        let wanted = self.text.trim_end_matches(' ');
        let is_there = |text: &[u8]| {
            let rest = text.strip_prefix(wanted.as_bytes());
            // A prefix that ends in a blank is a word of its own.
            rest.is_some_and(|rest| {
                wanted.len() == self.text.len()
                    || rest.first().is_none_or(|b| matches!(b, b' ' | b'\t'))
            })
        };
        let some = value.get(..LOOKED_AT).unwrap_or(value);
        let line = headers::unfold(some);
        if is_there(&line) {
            return true;
        }
        if !line.starts_with(b"=?") {
            return false;
        }
        let field = [b"Subject: ", line.as_ref(), b"\r\n\r\n"].concat();
        let parsed = MessageParser::new().parse_headers(&field);
        let read = parsed.as_ref().and_then(|message| message.subject());
        read.is_some_and(|read| is_there(read.as_bytes()))
    }
}

impl HeaderRule {
    /// What it does, in a few words.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.remove.iter().map(|name| format!("-{}", name.0)));
        words.extend(self.add.iter().map(|field| format!("+{}", field.name.0)));
        if self.subject_prefix.is_some() {
            words.push("subject_prefix".to_owned());
        }
        words.join(" ")
    }

    fn is_for(&self, mail: Posted<'_>, recipients: &[Recipient]) -> bool {
        let is_one = |one: &Recipient| self.scope.takes_recipient(&one.address);
        self.scope.takes(mail) && recipients.iter().any(is_one)
    }

    /// The header by this rule: first what goes, then what comes, then what the subject begins with.
    fn applied(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(raw.len() + 256);
        let is_removed = |field: &Field<'_>| self.remove.iter().any(|name| field.is(&name.0));
        for field in fields(raw).filter(|field| !is_removed(field)) {
            out.extend_from_slice(field.raw);
        }
        // The last line of a header may lack its end.
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        for field in &self.add {
            headers::append(&mut out, &field.name.0, field.value.as_bytes());
        }
        match &self.subject_prefix {
            Some(prefix) => prefix.applied(&out),
            None => out,
        }
    }
}

/// The rules that are for a message to these recipients, in their order, each with its place.
pub(super) fn meant<'a>(
    rules: &'a [HeaderRule],
    mail: Posted<'a>,
    recipients: &'a [Recipient],
) -> impl Iterator<Item = (usize, &'a HeaderRule)> {
    let all = rules.iter().enumerate();
    all.filter(move |(_, rule)| rule.is_for(mail, recipients))
}

/// A header after all rules that are for its message.
pub(super) fn altered<'a>(
    rules: &[HeaderRule],
    raw: &'a [u8],
    mail: Posted<'_>,
    recipients: &[Recipient],
) -> Cow<'a, [u8]> {
    let mut header = Cow::Borrowed(raw);
    for (_, rule) in meant(rules, mail, recipients) {
        header = Cow::Owned(rule.applied(&header));
    }
    header
}

/// What may end a line for some reader, or is not to be seen at all.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A value on lines of a fair length, folded at blanks; `begun`: octets of its first line that are taken.
fn folded(begun: usize, value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 16);
    let mut width = begun;
    for (at, word) in value.split(' ').enumerate() {
        // Never before a blank: a line of nothing but blanks is no line of a header.
        if at > 0 && !word.is_empty() && width + 1 + word.len() > SHOULD {
            out.push_str("\r\n ");
            width = 1;
        } else if at > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed(prefix: &str, header: &str) -> String {
        let prefix = SubjectPrefix::parse(prefix).unwrap();
        String::from_utf8(prefix.applied(header.as_bytes())).unwrap()
    }

    #[test]
    fn a_prefix_stands_before_the_first_octet_of_the_value() {
        let long = "x".repeat(990);
        let (seventy, sixty) = ("y".repeat(70), "z".repeat(60));
        for (prefix, header, expected) in [
            ("[TEST] ", "Subject: a\r\n", "Subject: [TEST] a\r\n"),
            ("[TEST] ", "SUBJECT:a\r\n", "SUBJECT: [TEST] a\r\n"),
            ("[TEST]", "Subject: a\r\n", "Subject: [TEST]a\r\n"),
            (
                "[TEST] ",
                "Subject:\r\n\ta\r\n  b\r\n",
                "Subject: [TEST] a\r\n  b\r\n",
            ),
            // It stands there already.
            ("[TEST] ", "Subject: [TEST] a\r\n", "Subject: [TEST] a\r\n"),
            ("[TEST] ", "Subject:[TEST]\r\n", "Subject:[TEST]\r\n"),
            (
                "[TEST] ",
                "Subject: [TEST]\r\n a\r\n",
                "Subject: [TEST]\r\n a\r\n",
            ),
            ("[TEST]", "Subject: [TEST]a\r\n", "Subject: [TEST]a\r\n"),
            (
                "[TEST] ",
                "Subject: =?utf-8?Q?[TEST]_a?=\r\n",
                "Subject: =?utf-8?Q?[TEST]_a?=\r\n",
            ),
            // It does not: it is another word, or is further behind.
            (
                "[TEST] ",
                "Subject: [TEST]a\r\n",
                "Subject: [TEST] [TEST]a\r\n",
            ),
            (
                "[TEST] ",
                "Subject: Re: [TEST] a\r\n",
                "Subject: [TEST] Re: [TEST] a\r\n",
            ),
            (
                "[TEST] ",
                "Subject: [test] a\r\n",
                "Subject: [TEST] [test] a\r\n",
            ),
            // There is nothing to stand before.
            ("[TEST] ", "X: 1\r\n", "X: 1\r\nSubject: [TEST]\r\n"),
            ("[TEST] ", "Subject:\r\n", "Subject: [TEST]\r\n"),
            ("[TEST] ", "Subject: \t \r\n", "Subject: [TEST]\r\n"),
            ("[TEST] ", "", "Subject: [TEST]\r\n"),
            ("Prüf ", "", "Subject: =?utf-8?B?UHLDvGY=?=\r\n"),
            // Of several each.
            (
                "T ",
                "Subject: a\r\nX: 1\r\nsubject: b\r\n",
                "Subject: T a\r\nX: 1\r\nsubject: T b\r\n",
            ),
            // A blank before an encoded word, else it is none.
            (
                "[TEST]",
                "Subject: =?utf-8?Q?=C3=BC?=\r\n",
                "Subject: [TEST] =?utf-8?Q?=C3=BC?=\r\n",
            ),
            (
                "Prüf ",
                "Subject: a\r\n",
                "Subject: =?utf-8?B?UHLDvGY=?= a\r\n",
            ),
            (
                "Prüf ",
                "Subject: =?utf-8?Q?=C3=BC?=\r\n",
                "Subject: =?utf-8?B?UHLDvGYg?= =?utf-8?Q?=C3=BC?=\r\n",
            ),
            (
                "Prüf ",
                "Subject: =?utf-8?B?UHLDvGY=?= a\r\n",
                "Subject: =?utf-8?B?UHLDvGY=?= a\r\n",
            ),
            (
                "Prüf ",
                "Subject: =?utf-8?B?UHLDvGYg?= =?utf-8?Q?=C3=BC?=\r\n",
                "Subject: =?utf-8?B?UHLDvGYg?= =?utf-8?Q?=C3=BC?=\r\n",
            ),
            // A line that would be too long begins anew; what stands on it stays.
            (
                "[TEST] ",
                &format!("Subject: {seventy}\r\n"),
                &format!("Subject: [TEST]\r\n {seventy}\r\n"),
            ),
            (
                "[TEST] ",
                &format!("Subject: {sixty}\r\n"),
                &format!("Subject: [TEST] {sixty}\r\n"),
            ),
            (
                "[TEST]",
                &format!("Subject: {seventy}\r\n"),
                &format!("Subject: [TEST]{seventy}\r\n"),
            ),
            (
                "[TEST]",
                &format!("Subject: {long}\r\n"),
                &format!("Subject: [TEST]\r\n {long}\r\n"),
            ),
        ] {
            let once = prefixed(prefix, header);
            assert_eq!(once, expected, "{prefix:?} {header:?}");
            assert_eq!(prefixed(prefix, &once), once, "twice is once: {prefix:?}");
        }
    }

    #[test]
    fn what_a_rule_may_be() {
        let name = |text: &str| FieldName::parse(text).map(|_| ());
        let field = |text: &str| AddedField::parse(text).map(|field| field.value);
        let prefix = |text: &str| SubjectPrefix::parse(text).map(|_| ());
        for text in [
            "X-Environment",
            "Subject",
            "List-Id",
            "Organization",
            "Contents",
            "Resend-X",
            "X",
        ] {
            assert_eq!(name(text), Ok(()), "{text}");
        }
        for text in "From sender REPLY-TO to Cc bCC apparently-to Resent-From resent-message-id RESENT- Date message-id \
             Received Return-Path DKIM-signature MIME-Version Content-Type content-X"
            .split_whitespace()
        {
            assert_eq!(name(text), Err(AlterFault::Forbidden(text.to_owned())), "{text}");
            let added = field(&format!("{text}: x"));
            assert_eq!(added, Err(AlterFault::Forbidden(text.to_owned())), "{text}");
        }
        for text in ["", "X Y", "X\n", "X:", "Ü", "X\u{0}", " X", "X\u{7f}"] {
            assert_eq!(
                name(text),
                Err(AlterFault::NoName(text.to_owned())),
                "{text:?}"
            );
        }
        for text in [
            "X: a\r\nBcc: b",
            "X: a\n b",
            "X: a\rb",
            "X: \u{0}",
            "X: a\tb",
            "X: \u{85}",
            "X: \u{2028}",
            "X\n: a",
        ] {
            assert_eq!(field(text), Err(AlterFault::Control), "{text:?}");
            assert_eq!(prefix(text), Err(AlterFault::Control), "{text:?}");
        }
        assert_eq!(field("X a"), Err(AlterFault::NoColon));
        assert_eq!(field("X:  "), Err(AlterFault::Empty));
        assert_eq!(
            field(&format!("X: {}", "a".repeat(999))),
            Err(AlterFault::TooLong)
        );
        assert_eq!(field("X:a b"), Ok("a b".to_owned()));
        assert_eq!(field("X: Prüf"), Ok("=?utf-8?B?UHLDvGY=?=".to_owned()));
        assert_eq!(prefix(""), Err(AlterFault::BlankPrefix));
        assert_eq!(prefix(" x"), Err(AlterFault::BlankPrefix));
        assert_eq!(prefix(&"x".repeat(61)), Err(AlterFault::LongPrefix));
        assert_eq!(prefix(&"ü".repeat(24)), Err(AlterFault::LongPrefix));
        assert_eq!(prefix(&"ü".repeat(22)), Ok(()));
    }

    #[test]
    fn a_long_field_is_folded_and_reads_as_it_was_written() {
        for words in [1, 7, 30, 60] {
            let text = ["wörter und mehr", "plain words"][words % 2];
            let value = vec![text; words].join(if words == 7 { "  " } else { " " });
            let field = AddedField::parse(&format!("X-Long: {value}")).unwrap();
            let mut header = Vec::new();
            headers::append(&mut header, "Subject", field.value.as_bytes());
            assert!(
                headers::lines(&header)
                    .all(|line| line.len() <= 90 && !line.trim_ascii().is_empty())
            );
            assert_eq!(headers::fields(&header).count(), 1);
            assert_eq!(
                headers::subject(&header).unwrap().trim(),
                value.get(..2000).unwrap_or(&value).trim()
            );
        }
    }

    #[test]
    fn first_what_goes_then_what_comes_then_the_prefix() {
        let rule = HeaderRule {
            remove: vec![FieldName::parse("subject").unwrap()],
            add: vec![AddedField::parse("Subject: new").unwrap()],
            subject_prefix: Some(SubjectPrefix::parse("T ").unwrap()),
            ..HeaderRule::default()
        };
        assert_eq!(rule.words(), "-subject +Subject subject_prefix");
        let header = b"Subject: old\r\n more\r\nX: 1";
        assert_eq!(rule.applied(header), b"X: 1\r\nSubject: T new\r\n");
    }
}
