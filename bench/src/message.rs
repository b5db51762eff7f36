//! The messages of a run: each has a number and a checksum in its header, so that the sink can say which arrived, how often,
//! and whether one octet of the body changed on the way.
//!
//! Apart because the client builds them and the sink judges them: one place says what a message looks like.

use std::fmt::Write as _;

/// Builds the messages of one run in wire form (CRLF, dot-stuffed, without the final dot).
pub struct Messages {
    body: Vec<u8>,
    plain_crc: u32,
    plain_len: u64,
}

/// What the sink reads from one message that arrived.
pub struct Arrived {
    /// The number that the client gave it.
    pub number: usize,
    /// Whether the body is the one that was sent.
    pub whole: bool,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Messages {
    /// Messages of about `size` octets each: lines of 76 random letters, every twentieth beginning with a dot.
    pub fn new(size: usize) -> Self {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let (mut plain, mut body) = (
            Vec::with_capacity(size),
            Vec::with_capacity(size + size / 20),
        );
        let mut line = 0;
        while plain.len() + 78 <= size.saturating_sub(300).max(78) {
            let mut text = Vec::with_capacity(78);
            if line % 20 == 7 {
                text.push(b'.');
            }
            while text.len() < 76 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push(ALPHABET[(seed >> 33) as usize % 64]);
            }
            text.extend_from_slice(b"\r\n");
            if text[0] == b'.' {
                body.push(b'.');
            }
            body.extend_from_slice(&text);
            plain.extend_from_slice(&text);
            line += 1;
        }
        Self {
            plain_crc: crc32fast::hash(&plain),
            plain_len: plain.len() as u64,
            body,
        }
    }

    /// Message `number`, ready to follow a 354, with the final dot.
    pub fn wire(&self, number: usize, out: &mut Vec<u8>) {
        out.clear();
        // A line of its own makes every body different; the checksum of the rest is known already.
        let own = format!("message {number}\r\n");
        let mut crc = crc32fast::Hasher::new();
        crc.update(own.as_bytes());
        crc.combine(&crc32fast::Hasher::new_with_initial_len(
            self.plain_crc,
            self.plain_len,
        ));
        let mut header = String::with_capacity(400);
        let _ = write!(
            header,
            "From: Bench <sender@bench.example>\r\nTo: <rcpt@sink.example>\r\nSubject: message {number}\r\n\
             Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{number}@bench.example>\r\n\
             X-Bench: {number} {:08x}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n",
            crc.finalize()
        );
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(own.as_bytes());
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b".\r\n");
    }

    /// Reads a message as the sink took it from the wire: dot-stuffed, without the final dot. `None` when it has no mark of ours.
    pub fn judge(wire: &[u8]) -> Option<Arrived> {
        let end = memchr::memmem::find(wire, b"\r\n\r\n")? + 4;
        let (header, body) = wire.split_at(end);
        let at = memchr::memmem::find(header, b"X-Bench: ")? + 9;
        let mark = std::str::from_utf8(header.get(at..)?)
            .ok()?
            .lines()
            .next()?;
        let (number, crc) = mark.split_once(' ')?;
        let expected = u32::from_str_radix(crc.trim(), 16).ok()?;
        let mut hasher = crc32fast::Hasher::new();
        let mut rest = body;
        if rest.first() == Some(&b'.') {
            rest = &rest[1..];
        }
        while let Some(at) = memchr::memmem::find(rest, b"\r\n.") {
            hasher.update(&rest[..at + 2]);
            rest = &rest[at + 3..];
        }
        hasher.update(rest);
        Some(Arrived {
            number: number.parse().ok()?,
            whole: hasher.finalize() == expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_again_and_a_changed_octet_is_seen() {
        let messages = Messages::new(10_240);
        let mut wire = Vec::new();
        messages.wire(42, &mut wire);
        assert!((9_500..11_000).contains(&wire.len()), "{}", wire.len());
        let wire = &wire[..wire.len() - 3];
        let arrived = Messages::judge(wire).unwrap();
        assert!(arrived.whole && arrived.number == 42);
        let mut changed = wire.to_vec();
        let last = changed.len() - 3;
        changed[last] ^= 1;
        assert!(!Messages::judge(&changed).unwrap().whole);
        assert!(!Messages::judge(&wire[..wire.len() - 78]).unwrap().whole);
    }
}
