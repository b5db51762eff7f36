//! Octets to lines: the first octets of a connection, the limits of a line, what a line is for.
//!
//! Everything here happens before a command is understood, and stays bounded whatever comes.

use bytes::BytesMut;

use crate::{
    mail::reply::Reply,
    smtp::server::{
        command::{self, Command},
        tolerance::Quirk,
    },
};

use super::{Session, Step, state::Phase};

/// Commands after a greeting of 554.
const REFUSED_LIMIT: u32 = 10;
/// Octets of one overlong line that are read before the session ends.
const SKIP_LIMIT: usize = 64 * 1024;

impl Session {
    /// What came before the greeting.
    pub(super) fn first_octets(&mut self, input: &mut BytesMut) {
        if self.is_tls_hello(input) {
            if self.tolerance.tls_on_plain_port && self.listener.certificate {
                self.phase = Phase::Handshake { greet: true };
                self.forgiven.add(Quirk::TlsOnPlainPort);
                self.push(Step::ImplicitTls);
            } else {
                self.refuse_tls_hello();
            }
            return;
        }
        let end = memchr::memchr3(b' ', b'\r', b'\n', input).unwrap_or(input.len());
        if let Ok(Command::Http) = command::parse(&input[..end], &self.tolerance) {
            let reply = Reply::not_http();
            self.rejected("connect", None, &reply);
            self.close(Some(reply));
        } else if self.tolerance.early_talk {
            self.forgiven.add(Quirk::EarlyTalk);
            let step = self.greet();
            self.pending.push_front(step);
        } else {
            let reply = Reply::out_of_step("wait for the greeting");
            self.rejected("connect", None, &reply);
            self.close(Some(reply));
        }
    }

    /// 0x16 is the record type of a handshake (RFC 8446 §5.1); no command begins with it, nor with the length of a hello in the
    /// dress of SSL 2.0, which has its first bit set (RFC 5246 §E.2).
    fn is_tls_hello(&self, input: &BytesMut) -> bool {
        let is_hello = match input.get(..4) {
            Some([first, _, 1, 3]) if first & 0x80 != 0 => true,
            _ => input.first() == Some(&0x16),
        };
        !self.tls && is_hello
    }

    fn refuse_tls_hello(&mut self) {
        self.rejected("connect", None, &Reply::tls_on_plain_port());
        self.close(None);
    }

    /// Takes one line; false when there is none yet.
    pub(super) fn line(&mut self, input: &mut BytesMut) -> bool {
        if self.is_tls_hello(input) {
            self.refuse_tls_hello();
            return true;
        }
        let in_auth = matches!(self.phase, Phase::Auth(_));
        let limit = if in_auth || is_auth(input) {
            command::AUTH_LINE_LIMIT
        } else {
            command::LINE_LIMIT
        };
        let end = memchr::memchr(b'\n', input);
        if let Some(skipped) = self.skipped {
            let taken = end.map_or(input.len(), |end| end + 1);
            bytes::Buf::advance(input, taken);
            if skipped + taken > SKIP_LIMIT {
                self.close(Some(Reply::line_too_long()));
            } else if end.is_some() {
                self.skipped = None;
                self.too_long(in_auth);
            } else {
                self.skipped = Some(skipped + taken);
                return false;
            }
            return true;
        }
        match end {
            Some(end) if end < limit => {
                let mut line = input.split_to(end + 1);
                let crlf = line.ends_with(b"\r\n");
                line.truncate(if crlf { end - 1 } else { end });
                while self.tolerance.repeated_cr && crlf && line.ends_with(b"\r") {
                    line.truncate(line.len() - 1);
                    self.forgiven.add(Quirk::RepeatedCr);
                }
                self.take(&line, crlf, input);
                true
            }
            None if input.len() < limit => false,
            _ if !in_auth && announced(input).is_some() => {
                // Content may stand behind it.
                let reply = Reply::line_too_long();
                self.rejected("data", None, &reply);
                self.close(Some(reply));
                true
            }
            _ => {
                // Too long: nothing of it is kept, its end is still to come (or found at the next turn).
                self.skipped = Some(0);
                true
            }
        }
    }

    fn too_long(&mut self, in_auth: bool) {
        if in_auth {
            self.phase = Phase::Command;
            self.error(Reply::auth_line_too_long());
        } else if matches!(self.phase, Phase::Refused(_)) {
            self.take_refused(Command::Unknown);
        } else {
            self.error(Reply::line_too_long());
        }
    }

    fn take(&mut self, line: &[u8], crlf: bool, rest: &BytesMut) {
        if let Phase::Auth(_) = self.phase {
            self.auth_line(line);
            return;
        }
        if !crlf && self.tolerance.bare_lf {
            self.forgiven.add(Quirk::BareLf);
        }
        let parsed = if crlf || self.tolerance.bare_lf {
            command::parse(line, &self.tolerance)
        } else {
            Err(Reply::bare_line_feed())
        };
        if let Phase::Refused(_) = self.phase {
            self.take_refused(parsed.unwrap_or(Command::Unknown));
            return;
        }
        let data_refused = std::mem::take(&mut self.data_refused);
        if data_refused && matches!(parsed, Err(_) | Ok(Command::Unknown | Command::Blank)) {
            // The message comes although there was no 354: none of it may be read as commands.
            self.close(Some(Reply::out_of_step("DATA was refused; closing")));
            return;
        }
        let reply = match parsed {
            Ok(Command::Unknown) => Reply::unknown_command(),
            Ok(command) => return self.command(command, rest),
            Err(reply) => reply,
        };
        match announced(line) {
            Some(Announced::Chunk) => {
                self.rejected("data", None, &reply);
                self.close(Some(reply));
            }
            Some(Announced::Message) => self.refuse_data(reply, rest),
            None => self.error(reply),
        }
    }

    /// After a greeting of 554 (RFC 5321 §3.1).
    fn take_refused(&mut self, command: Command<'_>) {
        let Phase::Refused(count) = &mut self.phase else {
            return;
        };
        *count += 1;
        let last = *count >= REFUSED_LIMIT;
        let reply = match command {
            Command::Quit => return self.close(Some(Reply::bye())),
            Command::Http => return self.close(Some(Reply::not_http())),
            _ => Reply::bad_sequence("nothing but QUIT: see the greeting"),
        };
        if last {
            self.close(Some(reply));
        } else {
            self.say(reply);
        }
    }
}

/// What stands behind a line that could not be read, where the client waits for no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// A client that sends BDAT never waits.
    Chunk,
    /// One that sends DATA should.
    Message,
}

/// What the verb announces that a line begins with, though the line is no command. None of it may be read as commands.
fn announced(line: &[u8]) -> Option<Announced> {
    let (verb, rest) = line.trim_ascii_start().split_at_checked(4)?;
    if rest.first().is_some_and(u8::is_ascii_alphanumeric) {
        None
    } else if verb.eq_ignore_ascii_case(b"BDAT") {
        Some(Announced::Chunk)
    } else {
        verb.eq_ignore_ascii_case(b"DATA")
            .then_some(Announced::Message)
    }
}

/// An AUTH command may be longer than others (RFC 4954 §4).
fn is_auth(input: &[u8]) -> bool {
    input
        .get(..5)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}
