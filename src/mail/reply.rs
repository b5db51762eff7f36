//! SMTP replies; every reply Postern itself ever sends is named here.
//!
//! Codes and wording stand on one screen. It holds no rule: `policy` and `smtp` choose which to send.
//! Replies of upstreams are the same type, with octets that are not printable made `?`.

use std::fmt;

use super::text::ascii;

/// A reply (RFC 5321 §4.2), ours or an upstream's. Text lines are parted by `\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// RFC 3463.
    pub enhanced: Option<(u8, u16, u16)>,
    /// Without code and enhanced code.
    pub text: String,
}

impl Reply {
    /// A reply with an enhanced status code.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: clean(text.into()),
        }
    }

    /// One without: greeting, HELO and EHLO (RFC 2034 §4), 3xx.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            text: clean(text.into()),
        }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4xx.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// Appends the wire form; a line is at most 512 octets (RFC 5321 §4.5.3.1.5), longer text is cut.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let start = out.len();
            append_number(out, self.code, 3);
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some((a, b, c)) = self.enhanced {
                for (number, mark) in [(u16::from(a), b'.'), (b, b'.'), (c, b' ')] {
                    append_number(out, number, 1);
                    out.push(mark);
                }
            }
            out.extend_from_slice(line.as_bytes());
            out.truncate(start + 510);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The enhanced code, or the nearest one the code implies.
    pub fn status(&self) -> (u8, u16, u16) {
        self.enhanced.unwrap_or(((self.code / 100) as u8, 0, 0))
    }
}

/// One line, for logs and people: `550 5.7.1 text`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((a, b, c)) = self.enhanced {
            write!(f, " {a}.{b}.{c}")?;
        }
        let mut mark = " ";
        for line in self.text.split('\n') {
            f.write_str(mark)?;
            f.write_str(line)?;
            mark = " / ";
        }
        Ok(())
    }
}

/// A number with at least so many digits.
fn append_number(out: &mut Vec<u8>, number: u16, digits: u32) {
    let mut unit = 10_u16.pow(digits - 1);
    while number / 10 >= unit {
        unit *= 10;
    }
    while unit > 0 {
        out.push(b'0' + (number / unit % 10) as u8);
        unit /= 10;
    }
}

/// Only printable ASCII and `\n` may stand in a reply; whatever else a client got into it becomes `?`.
fn clean(text: String) -> String {
    if text.bytes().all(|b| matches!(b, b'\n' | b' '..=b'~')) {
        return text;
    }
    text.chars()
        .map(|c| if c == '\n' { c } else { ascii(c) })
        .collect()
}

/// The session's own words.
impl Reply {
    /// After the message is on disk, and only then.
    pub fn queued(id: impl fmt::Display) -> Self {
        Self::new(250, (2, 0, 0), format!("queued as {id}"))
    }
    /// The store has no room.
    pub fn storage_full() -> Self {
        Self::new(452, (4, 3, 1), "not enough disk space; try again later")
    }
    /// The store does not work.
    pub fn storage_failing() -> Self {
        Self::new(
            451,
            (4, 3, 0),
            "the queue is not available; try again later",
        )
    }
    /// We are going down.
    pub fn shutting_down() -> Self {
        Self::new(421, (4, 3, 2), "shutting down; try again later")
    }
    /// Nothing came for too long.
    pub fn timed_out() -> Self {
        Self::new(421, (4, 4, 2), "timed out waiting for you; closing")
    }
    /// Too many connections in all.
    pub fn too_many_connections() -> Self {
        Self::new(
            421,
            (4, 7, 0),
            "limits.connections is reached; try again later",
        )
    }
    /// Too many connections from peers in no `[[client]]`.
    pub fn too_many_unlisted() -> Self {
        Self::new(421, (4, 7, 0), "limits.unlisted_connections is reached")
    }
    /// Too many connections from this address.
    pub fn too_many_from_address() -> Self {
        Self::new(
            421,
            (4, 7, 0),
            "connections_per_client is reached for your address; try again later",
        )
    }
    /// The greeting.
    pub fn greeting(hostname: &str) -> Self {
        Self::plain(220, format!("{hostname} ESMTP Postern"))
    }
    /// EHLO or HELO: the name, and a line for each extension.
    pub fn hello(lines: &str) -> Self {
        Self::plain(250, lines)
    }
    /// RSET, NOOP.
    pub fn okay() -> Self {
        Self::new(250, (2, 0, 0), "ok")
    }
    /// MAIL.
    pub fn sender_ok() -> Self {
        Self::new(250, (2, 1, 0), "sender ok")
    }
    /// RCPT.
    pub fn recipient_ok() -> Self {
        Self::new(250, (2, 1, 5), "recipient ok")
    }
    /// DATA.
    pub fn go_ahead() -> Self {
        Self::plain(354, "end with <CRLF>.<CRLF>")
    }
    /// QUIT.
    pub fn bye() -> Self {
        Self::new(221, (2, 0, 0), "bye")
    }
    /// VRFY, always.
    pub fn cannot_verify() -> Self {
        Self::new(252, (2, 0, 0), "not verified here; send, and see")
    }
    /// HELP.
    pub fn help() -> Self {
        Self::new(
            214,
            (2, 0, 0),
            "HELO EHLO MAIL RCPT DATA RSET NOOP VRFY QUIT STARTTLS AUTH",
        )
    }
    /// STARTTLS.
    pub fn start_tls() -> Self {
        Self::new(220, (2, 0, 0), "ready for TLS")
    }
    /// A challenge of AUTH, already in base64.
    pub fn challenge(base64: &str) -> Self {
        Self::plain(334, base64)
    }
    /// AUTH done.
    pub fn logged_in() -> Self {
        Self::new(235, (2, 7, 0), "logged in")
    }
    /// No such command.
    pub fn unknown_command() -> Self {
        Self::new(500, (5, 5, 1), "command not recognised")
    }
    /// A line beyond the limit.
    pub fn line_too_long() -> Self {
        Self::new(500, (5, 5, 2), "line too long")
    }
    /// A line of AUTH beyond its limit (RFC 4954 section 6).
    pub fn auth_line_too_long() -> Self {
        Self::new(500, (5, 5, 6), "authentication line too long")
    }
    /// A CR, NUL or the like inside a command.
    pub fn control_character() -> Self {
        Self::new(500, (5, 5, 2), "control character in a command")
    }
    /// A command that ends in LF alone, where nothing is forgiven.
    pub fn bare_line_feed() -> Self {
        Self::new(500, (5, 5, 2), "commands end with CRLF")
    }
    /// An empty line, where nothing is forgiven.
    pub fn empty_line() -> Self {
        Self::new(500, (5, 5, 2), "empty line")
    }
    /// An argument where none may be, or none where one must be.
    pub fn bad_argument(why: &str) -> Self {
        Self::new(501, (5, 5, 4), why)
    }
    /// A parameter of MAIL or RCPT that is not well-formed.
    pub fn bad_parameter(why: &str) -> Self {
        Self::new(501, (5, 5, 4), why)
    }
    /// A parameter of MAIL or RCPT that was not offered.
    pub fn unknown_parameter(key: &str) -> Self {
        let key: String = key.chars().take(40).collect();
        Self::new(555, (5, 5, 4), format!("parameter {key} is not offered"))
    }
    /// An octet above 127 in a command of a transaction without SMTPUTF8.
    pub fn not_ascii() -> Self {
        Self::new(553, (5, 6, 7), "only ASCII addresses are accepted")
    }
    /// An address that is not ASCII, and not in the one form of such an address.
    pub fn not_one_form(why: &str) -> Self {
        Self::new(553, (5, 6, 7), why)
    }
    /// The same in a field of the header, or an address there that may not be other than ASCII.
    pub fn not_ascii_in(field: &str, why: &str) -> Self {
        Self::new(550, (5, 6, 7), format!("{field}: {why}"))
    }
    /// A path behind MAIL FROM that is not well-formed.
    pub fn bad_sender(why: &str) -> Self {
        Self::new(501, (5, 1, 7), why)
    }
    /// A path behind RCPT TO that is not well-formed.
    pub fn bad_recipient(why: &str) -> Self {
        Self::new(501, (5, 1, 3), why)
    }
    /// A bare local part, and nothing to complete it with.
    pub fn bare_local_part() -> Self {
        Self::new(
            553,
            (5, 1, 3),
            "the address has no @domain and no default_domain is configured",
        )
    }
    /// Known, not done here.
    pub fn not_implemented() -> Self {
        Self::new(502, (5, 5, 1), "command not implemented")
    }
    /// Out of sequence.
    pub fn bad_sequence(why: &str) -> Self {
        Self::new(503, (5, 5, 1), why)
    }
    /// DATA, and nobody to send it to.
    pub fn no_recipients() -> Self {
        Self::new(554, (5, 5, 1), "no valid recipients")
    }
    /// A chunk that is not the last is there (RFC 3030 §2).
    pub fn chunk_taken(size: u64) -> Self {
        Self::new(250, (2, 0, 0), format!("{size} octets"))
    }
    /// A message was sent although DATA was refused, or a command before the greeting.
    pub fn out_of_step(why: &str) -> Self {
        Self::new(554, (5, 5, 0), why)
    }
    /// Octets behind STARTTLS in the same packet.
    pub fn behind_starttls() -> Self {
        Self::new(501, (5, 5, 2), "nothing may follow STARTTLS; closing")
    }
    /// STARTTLS first.
    pub fn tls_needed() -> Self {
        Self::new(530, (5, 7, 0), "STARTTLS is required first")
    }
    /// The login of this session does not count any more.
    pub fn login_again() -> Self {
        Self::new(530, (5, 7, 0), "log in again: the user was changed")
    }
    /// The client section is gone.
    pub fn not_listed_any_more() -> Self {
        Self::new(
            421,
            (4, 7, 0),
            "your address is no longer in any [[client]]",
        )
    }
    /// AUTH without TLS where it must be encrypted (RFC 4954 section 6).
    pub fn auth_needs_tls() -> Self {
        Self::new(538, (5, 7, 11), "AUTH needs TLS here; use STARTTLS first")
    }
    /// AUTH with something else than PLAIN or LOGIN.
    pub fn unknown_mechanism() -> Self {
        Self::new(504, (5, 5, 4), "AUTH mechanisms are PLAIN and LOGIN")
    }
    /// An AUTH response that cannot be read.
    pub fn malformed_auth() -> Self {
        Self::new(501, (5, 5, 2), "not a valid AUTH response")
    }
    /// `*` during AUTH.
    pub fn auth_cancelled() -> Self {
        Self::new(501, (5, 7, 0), "AUTH cancelled")
    }
    /// Wrong name or password; never says which.
    pub fn auth_failed() -> Self {
        Self::new(535, (5, 7, 8), "user name or password is wrong")
    }
    /// EXTERNAL of who has shown no certificate that is his.
    pub fn no_such_certificate() -> Self {
        Self::new(
            535,
            (5, 7, 8),
            "no certificate was shown that is this user's alone",
        )
    }
    /// Too many failed AUTH from this address.
    pub fn auth_throttled() -> Self {
        Self::new(454, (4, 7, 0), "too many failed logins; try again later")
    }
    /// Too many failed AUTH in this session.
    pub fn too_many_failures() -> Self {
        Self::new(421, (4, 7, 0), "too many failed logins; closing")
    }
    /// Too many errors in this session.
    pub fn too_many_errors(limit: u32) -> Self {
        Self::new(
            421,
            (4, 7, 0),
            format!("too many errors, session_errors is {limit}; closing"),
        )
    }
    /// Too many commands that send no mail.
    pub fn too_many_commands() -> Self {
        Self::new(421, (4, 7, 0), "too many commands without mail; closing")
    }
    /// HTTP.
    pub fn not_http() -> Self {
        Self::new(421, (4, 7, 0), "this is SMTP, not HTTP; closing")
    }
    /// More messages in a minute than `limits.messages_per_minute`.
    pub fn too_many_messages() -> Self {
        Self::new(
            450,
            (4, 7, 1),
            "more than messages_per_minute from your address; try again later",
        )
    }
    /// Beyond `limits.message_size`.
    pub fn message_too_big(limit: u64) -> Self {
        Self::new(
            552,
            (5, 3, 4),
            format!("the message is larger than message_size, {limit} octets"),
        )
    }
    /// Beyond what every connector of the recipient's route takes.
    pub fn too_big_for(connectors: &str, limit: u64) -> Self {
        Self::new(
            552,
            (5, 3, 4),
            format!("the message is larger than {connectors} takes, {limit} octets"),
        )
    }
    /// A header of more than 256 KiB.
    pub fn header_too_big() -> Self {
        Self::new(552, (5, 3, 4), "the header is larger than 256 KiB")
    }
    /// Beyond `limits.recipients`.
    pub fn too_many_recipients(limit: usize) -> Self {
        Self::new(
            452,
            (4, 5, 3),
            format!("more than {limit} recipients; send the rest in another message"),
        )
    }
    /// A `[[quota]]` has no room; `most`: `200 recipients an hour`.
    pub fn quota_used_up(quota: &str, most: &str) -> Self {
        Self::new(450, (4, 7, 1), format!("quota {quota}: {most} are used up"))
    }
    /// Held by a `[[quota]]` for as long as it holds anything, and not released.
    pub fn not_released(holder: &str, held_for: &str) -> Self {
        Self::new(
            550,
            (5, 7, 1),
            format!("held by {holder} and not released within {held_for}"),
        )
    }
    /// No `[[route]]` matches.
    pub fn no_route(recipient: &str) -> Self {
        let recipient: String = recipient.chars().take(200).collect();
        Self::new(550, (5, 7, 1), format!("no [[route]] takes {recipient}"))
    }
    /// A bare CR, a NUL, or a dot line that is not framed by CRLF.
    pub fn bad_line_endings(what: &str) -> Self {
        Self::new(550, (5, 5, 2), format!("message refused: {what}; closing"))
    }
    /// A TLS ClientHello on a plain port; only the log sees it.
    pub fn tls_on_plain_port() -> Self {
        Self::new(
            554,
            (5, 5, 0),
            "TLS handshake on a port that begins in clear text",
        )
    }
}

/// Policy's words.
impl Reply {
    /// The greeting to an address from which nobody could ever send.
    pub fn no_client(ip: std::net::IpAddr) -> Self {
        Self::new(554, (5, 7, 1), format!("{ip} is in no [[client]]"))
    }
    /// AUTH first, and who asks for it (RFC 4954 §6).
    pub fn login_needed(reason: impl fmt::Display) -> Self {
        Self::new(530, (5, 7, 0), format!("log in first: {reason}"))
    }
    /// A sender, a recipient or an address of a header field that a list does not admit.
    pub fn not_admitted(what: &str, refusal: impl fmt::Display) -> Self {
        Self::new(550, (5, 7, 1), format!("{what} {refusal}"))
    }
    /// A sender that is not one of the user who logged in (RFC 6409 §6.1).
    pub fn sender_of_another(refusal: impl fmt::Display) -> Self {
        Self::new(553, (5, 7, 1), format!("sender {refusal}"))
    }
    /// A header that the next reader may read otherwise than the allowlist did.
    pub fn two_readings(reason: &str) -> Self {
        Self::new(
            550,
            (5, 6, 0),
            format!("the header can be read in two ways: {reason}"),
        )
    }
    /// A field whose addresses cannot be read.
    pub fn not_understood(field: &str, reason: &str) -> Self {
        Self::new(
            550,
            (5, 6, 0),
            format!("{field} cannot be understood: {reason}"),
        )
    }
    /// Too many Received fields (RFC 5321 §6.3).
    pub fn mail_loop(limit: usize, of_what: &str) -> Self {
        Self::new(
            554,
            (5, 4, 6),
            format!("mail loop: more than {limit} Received fields{of_what}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form() {
        let mut out = Vec::new();
        Reply::new(550, (5, 7, 1), "no\nway \u{1b}[31m").write_to(&mut out);
        Reply::plain(250, "a".repeat(600)).write_to(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("550-5.7.1 no\r\n550 5.7.1 way ?[31m\r\n250 aaa"),
            "{text}"
        );
        assert!(text.lines().all(|l| l.len() <= 510));
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 99, 100, 250, 999, 1000, 9999, 10_000, u16::MAX] {
            let (mut free, mut three) = (Vec::new(), Vec::new());
            append_number(&mut free, number, 1);
            append_number(&mut three, number, 3);
            assert_eq!(free, format!("{number}").into_bytes());
            assert_eq!(three, format!("{number:03}").into_bytes());
        }
    }
}
