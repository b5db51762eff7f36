//! What a listener forgives old clients, field by field, each with its reason.
//!
//! A quirk is one field here and one use, and nobody compares levels anywhere else. Sources of the quirks
//! are the bug trackers of other mail servers, named where one stands for many.

use crate::policy::client::ToleranceLevel;

/// What is forgiven. `strict` forgives nothing of it, `standard` the first half, `device` all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// HELO and EHLO without an argument: UPS cards, frequency converters.
    pub empty_helo: bool,
    /// `MAIL FROM:a@b` without angle brackets: LSI MegaRAID, Papercut.
    pub no_brackets: bool,
    /// Blanks after the colon and at the end of the line: Outlook and many scripts.
    pub blanks: bool,
    /// `MAIL FROM:<root>`: completed with `default_domain`.
    pub bare_local_part: bool,
    /// `<@a,@b:c@d>`: dropped, as RFC 5321 §4.1.1.3 advises.
    pub source_route: bool,
    /// Empty lines between commands: temperature and humidity sensors.
    pub blank_lines: bool,
    /// Commands that end in LF alone: shell scripts.
    pub bare_lf: bool,
    /// Commands that end in CR CR LF: Windows programs that write CRLF through a text stream.
    pub repeated_cr: bool,

    /// MAIL without HELO: the smallest of embedded clients. Only on a trusted network: HELO tells people from bots.
    pub no_helo: bool,
    /// Talking before the greeting, where the session looks at it: the same clients write all they have at once.
    pub early_talk: bool,
    /// `RCPT TO:<Name <a@b>>`, `<'a@b'>`: two readings are possible, so it must be asked for.
    pub names_in_paths: bool,
    /// `RCPT TO:<a@b>;`, `<a@b,>`, `<a@b> (Name)`: a mark or a comment that form fields and mail programs leave beside the path.
    pub marks_beside_paths: bool,
    /// RET, ENVID, NOTIFY and ORCPT after HELO, and SMTPUTF8: read and ignored. Line-of-business software and
    /// PHPMailer send them whatever was offered.
    pub foreign_parameters: bool,
    /// `From: Doe, Jane <a@b>`: a comma, semicolon or colon in the name of the only address, without quotes.
    pub unquoted_names: bool,
    /// A bare CR in DATA is a line ending: old Macintosh software and its heirs. Elsewhere it is a smuggler's tool.
    pub bare_cr: bool,
    /// A TLS `ClientHello` on a plain port is served, when there is a certificate: HP multi-function printers.
    pub tls_on_plain_port: bool,
}

impl Tolerance {
    /// What a level means.
    pub const fn of(level: ToleranceLevel) -> Self {
        let standard = !matches!(level, ToleranceLevel::Strict);
        let device = matches!(level, ToleranceLevel::Device);
        Self {
            empty_helo: standard,
            no_brackets: standard,
            blanks: standard,
            bare_local_part: standard,
            source_route: standard,
            blank_lines: standard,
            bare_lf: standard,
            repeated_cr: standard,
            no_helo: device,
            early_talk: device,
            names_in_paths: device,
            marks_beside_paths: device,
            foreign_parameters: device,
            unquoted_names: device,
            bare_cr: device,
            tls_on_plain_port: device,
        }
    }
}

/// Something that was forgiven, by the name of its field; `lf_only` is the client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// [`Tolerance::empty_helo`]
    EmptyHelo,
    /// [`Tolerance::no_brackets`]
    NoBrackets,
    /// [`Tolerance::blanks`]
    Blanks,
    /// [`Tolerance::bare_local_part`]
    BareLocalPart,
    /// [`Tolerance::source_route`]
    SourceRoute,
    /// [`Tolerance::blank_lines`]
    BlankLines,
    /// [`Tolerance::bare_lf`]
    BareLf,
    /// [`Tolerance::repeated_cr`]
    RepeatedCr,
    /// [`Tolerance::no_helo`]
    NoHelo,
    /// [`Tolerance::early_talk`]
    EarlyTalk,
    /// [`Tolerance::names_in_paths`]
    NamesInPaths,
    /// [`Tolerance::marks_beside_paths`]
    MarksBesidePaths,
    /// [`Tolerance::foreign_parameters`]
    ForeignParameters,
    /// [`Tolerance::unquoted_names`]
    UnquotedNames,
    /// [`Tolerance::bare_cr`]
    BareCr,
    /// [`Tolerance::tls_on_plain_port`]
    TlsOnPlainPort,
    /// A dot line that no CRLF frames.
    LfOnly,
}

impl Quirk {
    /// All of them; the first eight are those of `standard`.
    pub const ALL: [Self; 17] = [
        Self::EmptyHelo,
        Self::NoBrackets,
        Self::Blanks,
        Self::BareLocalPart,
        Self::SourceRoute,
        Self::BlankLines,
        Self::BareLf,
        Self::RepeatedCr,
        Self::NoHelo,
        Self::EarlyTalk,
        Self::NamesInPaths,
        Self::MarksBesidePaths,
        Self::ForeignParameters,
        Self::UnquotedNames,
        Self::BareCr,
        Self::TlsOnPlainPort,
        Self::LfOnly,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptyHelo => "empty_helo",
            Self::NoBrackets => "no_brackets",
            Self::Blanks => "blanks",
            Self::BareLocalPart => "bare_local_part",
            Self::SourceRoute => "source_route",
            Self::BlankLines => "blank_lines",
            Self::BareLf => "bare_lf",
            Self::RepeatedCr => "repeated_cr",
            Self::NoHelo => "no_helo",
            Self::EarlyTalk => "early_talk",
            Self::NamesInPaths => "names_in_paths",
            Self::MarksBesidePaths => "marks_beside_paths",
            Self::ForeignParameters => "foreign_parameters",
            Self::UnquotedNames => "unquoted_names",
            Self::BareCr => "bare_cr",
            Self::TlsOnPlainPort => "tls_on_plain_port",
            Self::LfOnly => "lf_only",
        }
    }

    /// Whether `tolerance = "device"` is needed for it.
    pub fn is_of_device(word: &str) -> bool {
        let found = Self::ALL.iter().position(|quirk| quirk.as_str() == word);
        found.is_some_and(|at| (8..16).contains(&at))
    }
}

/// What was forgiven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgiven(u32);

impl Forgiven {
    /// One more.
    pub fn add(&mut self, quirk: Quirk) {
        self.0 |= 1 << quirk as u32;
    }

    /// And these.
    pub fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// What is new since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self(self.0 & !before.0)
    }

    /// The words.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let all = Quirk::ALL.into_iter();
        all.filter(move |quirk| self.0 & (1 << *quirk as u32) != 0)
            .map(Quirk::as_str)
    }
}

/// Forgives one thing less.
type TakeAway = fn(&mut Tolerance);

impl Tolerance {
    /// The least of it with which this is right: what only devices do is given up first.
    pub(super) fn needed(&self, is_right: impl Fn(&Self) -> bool) -> Forgiven {
        let fields: [(Quirk, TakeAway); 7] = [
            (Quirk::ForeignParameters, |t| t.foreign_parameters = false),
            (Quirk::MarksBesidePaths, |t| t.marks_beside_paths = false),
            (Quirk::NamesInPaths, |t| t.names_in_paths = false),
            (Quirk::SourceRoute, |t| t.source_route = false),
            (Quirk::BareLocalPart, |t| t.bare_local_part = false),
            (Quirk::NoBrackets, |t| t.no_brackets = false),
            (Quirk::Blanks, |t| t.blanks = false),
        ];
        let (mut needed, mut least) = (Forgiven::default(), *self);
        for (quirk, take_away) in fields {
            let mut less = least;
            take_away(&mut less);
            if is_right(&less) {
                least = less;
            } else {
                needed.add(quirk);
            }
        }
        needed
    }
}

/// Whether the argument of MAIL or RCPT is as the RFC has it, seen at once: so are nearly all.
/// `esmtp`: after EHLO, where DSN is offered.
pub(super) fn is_plain_path(argument: &[u8], word: &[u8], esmtp: bool) -> bool {
    let Some((found, rest)) = argument.split_at_checked(word.len()) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix(b":<") else {
        return false;
    };
    if !found.eq_ignore_ascii_case(word) {
        return false;
    }
    let Some(end) = rest.iter().position(|octet| *octet == b'>') else {
        return false;
    };
    let (path, parameters) = rest.split_at(end);
    let is_mailbox = path
        .iter()
        .enumerate()
        .any(|(at, octet)| *octet == b'@' && at > 0);
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"@._-+=".contains(octet);
    let begins = |word: &[u8], keys: &[&[u8]]| {
        let is = |key: &&[u8]| {
            word.get(..key.len())
                .is_some_and(|w| w.eq_ignore_ascii_case(key))
        };
        keys.iter().any(is)
    };
    let is_known = |word: &[u8]| {
        begins(word, &[b"SIZE=", b"BODY="])
            || esmtp && begins(word, &[b"RET=", b"ENVID=", b"NOTIFY=", b"ORCPT="])
    };
    let parameters = parameters.get(1..).unwrap_or_default();
    (path.is_empty() || is_mailbox && path.iter().all(is_plain))
        && (parameters.is_empty()
            || parameters.first() == Some(&b' ')
                && parameters
                    .get(1..)
                    .unwrap_or_default()
                    .split(|b| *b == b' ')
                    .all(is_known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mail::address::Domain, smtp::server::command};

    #[test]
    fn what_is_forgiven_is_known() {
        let device = Tolerance::of(ToleranceLevel::Device);
        let domain = Domain::parse("corp.example").unwrap();
        for (argument, expected) in [
            ("FROM:<a@b.example>", ""),
            ("from:<>", ""),
            ("FROM:<a@b.example> SIZE=5 BODY=8BITMIME", ""),
            ("FROM:<a@b.example> SIZE=5 RET=HDRS", "foreign_parameters"),
            ("FROM: <a@b.example>", "blanks"),
            ("FROM:a@b.example", "no_brackets"),
            ("FROM:<root>", "bare_local_part"),
            ("FROM: root", "no_brackets blanks bare_local_part"),
            ("FROM:<@x.example:a@b.example>", "source_route"),
            ("FROM:<Scanner <a@b.example>>", "names_in_paths"),
            ("FROM:<'a@b.example'>", "names_in_paths"),
            ("FROM:<a@b.example>;", "marks_beside_paths"),
        ] {
            let argument = argument.as_bytes();
            let helo = command::Extensions {
                esmtp: false,
                utf8: false,
            };
            let is_right = |t: &Tolerance| command::mail(argument, t, Some(&domain), helo).is_ok();
            assert!(is_right(&device), "{}", argument.escape_ascii());
            let needed = device
                .needed(is_right)
                .words()
                .collect::<Vec<_>>()
                .join(" ");
            assert_eq!(needed, expected, "{}", argument.escape_ascii());
            assert_eq!(
                is_plain_path(argument, b"FROM", false),
                expected.is_empty(),
                "{}",
                argument.escape_ascii()
            );
        }
        assert!(Quirk::is_of_device("bare_cr") && !Quirk::is_of_device("bare_lf"));
        assert!(!Quirk::is_of_device("lf_only") && !Quirk::is_of_device("x"));
        for (at, quirk) in Quirk::ALL.into_iter().enumerate() {
            assert_eq!(at, quirk as usize);
        }
    }
}
