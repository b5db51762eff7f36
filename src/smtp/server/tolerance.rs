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
    /// RET, ENVID, NOTIFY, ORCPT and SMTPUTF8, also after HELO: read and ignored. Line-of-business software and
    /// PHPMailer send them whatever EHLO said.
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
