//! What a transcript shows of the lines of a client (`transcript = true`): everything but names and passwords.
//!
//! It can be tested as a table: what is shown here by mistake stands in a log for years.

use crate::{
    mail::text::logged,
    policy::client::ToleranceLevel,
    smtp::server::{
        command::{self, Command},
        tolerance::Tolerance,
    },
};

const HIDDEN: &str = "***";

/// What is known of the lines so far.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Our last word was a challenge.
    challenged: bool,
    /// AUTH came, and no other command since: a refused AUTH is often followed by the name and the password all the same.
    after_auth: bool,
    /// The last octets were not the end of their line.
    cut: bool,
}

impl Transcript {
    /// We answered with this code.
    pub(super) fn answered(&mut self, code: u16) {
        self.challenged = code == 334;
    }

    /// The next octets that the session took, as they may be shown in a log.
    pub(super) fn shown(&mut self, octets: &[u8]) -> String {
        self.shown_by(octets, |octets| logged(&String::from_utf8_lossy(octets)))
    }

    /// The same, with what may be shown written by `write`.
    pub(super) fn shown_by(&mut self, octets: &[u8], write: impl Fn(&[u8]) -> String) -> String {
        let rest_of_a_line = std::mem::replace(&mut self.cut, !octets.ends_with(b"\n"));
        if self.challenged || rest_of_a_line {
            return HIDDEN.to_owned();
        }
        let line = octets.trim_ascii();
        match command::parse(line, &Tolerance::of(ToleranceLevel::Standard)) {
            Ok(Command::Auth(argument)) => {
                self.after_auth = true;
                let mut words = argument
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty());
                let mechanism = write(words.next().unwrap_or_default());
                let blob = words.next().map_or("", |_| " ***");
                format!("AUTH {mechanism}{blob}")
            }
            Ok(Command::Blank) => String::new(),
            Ok(Command::Unknown) | Err(_) if self.after_auth || names_auth(line) => {
                HIDDEN.to_owned()
            }
            Ok(Command::Unknown) | Err(_) => write(line),
            Ok(_) => {
                self.after_auth = false;
                write(line)
            }
        }
    }
}

/// An AUTH that is no command, because something stands before it.
fn names_auth(line: &[u8]) -> bool {
    line.windows(4)
        .any(|word| word.eq_ignore_ascii_case(b"AUTH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the session took, one by one, and what is shown of it; a number is our answer.
    fn check(lines: &[(&[u8], &str)]) {
        let mut transcript = Transcript::default();
        for (octets, expected) in lines {
            if *octets == b"<" {
                transcript.answered(expected.parse().unwrap());
            } else {
                assert_eq!(
                    transcript.shown(octets),
                    *expected,
                    "{}",
                    octets.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn no_password_is_shown() {
        check(&[
            (b"EHLO x\r\n", "EHLO x"),
            (b"auth plain AGVycAByaWdodA==\r\n", "AUTH plain ***"),
            (b"<", "235"),
            (b"MAIL FROM:<a@b>\r\n", "MAIL FROM:<a@b>"),
            (b"XFOO bar\r\n", "XFOO bar"),
        ]);
        check(&[
            (b"AUTH LOGIN\r\n", "AUTH LOGIN"),
            (b"<", "334"),
            (b"QUIT\r\n", "***"),
            (b"<", "334"),
            (b"c2VjcmV0\r\n", "***"),
        ]);
        // AUTH was refused, and the client goes on.
        check(&[
            (b"AUTH LOGIN\r\n", "AUTH LOGIN"),
            (b"<", "538"),
            (b"bmFtZQ==\r\n", "***"),
            (b"<", "500"),
            (b"c2VjcmV0\r\n", "***"),
            (b"<", "500"),
            (b"QUIT\r\n", "QUIT"),
            (b"bmFtZQ==\r\n", "bmFtZQ=="),
        ]);
        // A line beyond the limit comes in pieces.
        check(&[
            (b"AUTH PLAIN c2Vjcm", "AUTH PLAIN ***"),
            (b"V0c2Vjcm", "***"),
            (b"V0\r\n", "***"),
            (b"NOOP\r\n", "NOOP"),
        ]);
        check(&[
            (b"\r\n \r\nAUTH PLAIN c2VjcmV0\r\n", "AUTH PLAIN ***"),
            (b"\0AUTH PLAIN c2VjcmV0\r\n", "***"),
            (b"\r\n", ""),
        ]);
    }
}
