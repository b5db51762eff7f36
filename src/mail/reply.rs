//! SMTP replies; every reply Postern itself ever sends is named here.
//!
//! Apart so that codes and wording stand on one screen. It holds no rule: `policy` and `smtp` choose which to send.
//! Replies of upstreams are the same type, with octets that are not printable made `?`.

use std::fmt;

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
            text: clean(&text.into()),
        }
    }

    /// One without: greeting, HELO and EHLO (RFC 2034 §4), 3xx.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            text: clean(&text.into()),
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
        use std::io::Write as _;
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let start = out.len();
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{:03}{mark}", self.code);
            if let Some((a, b, c)) = self.enhanced {
                let _ = write!(out, "{a}.{b}.{c} ");
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
        write!(f, " {}", self.text.replace('\n', " / "))
    }
}

/// Only printable ASCII and `\n` may stand in a reply; whatever else a client got into it becomes `?`.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' || (' '..='~').contains(&c) {
                c
            } else {
                '?'
            }
        })
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
    /// Too many connections, in all or from this address.
    pub fn too_many_connections() -> Self {
        Self::new(421, (4, 7, 0), "too many connections; try again later")
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
    /// A header that the next reader may read otherwise than the allowlist did.
    pub fn two_readings(reason: &str) -> Self {
        Self::new(
            550,
            (5, 6, 0),
            format!("the header can be read in two ways: {reason}"),
        )
    }
    /// A field whose addresses cannot be told.
    pub fn not_understood(field: &str, reason: &str) -> Self {
        Self::new(
            550,
            (5, 6, 0),
            format!("{field} cannot be understood: {reason}"),
        )
    }
    /// Too many Received fields (RFC 5321 §6.3).
    pub fn mail_loop(limit: usize) -> Self {
        Self::new(
            554,
            (5, 4, 6),
            format!("mail loop: more than {limit} Received fields"),
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
}
