//! What an upstream offers: its reply to EHLO (RFC 5321 §4.1.1.1).
//!
//! All of it is forgotten when TLS begins. It keeps what the dialogue uses and ignores the rest.

use crate::mail::text;

/// What was offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The name the upstream gave itself.
    pub name: String,
    /// RFC 1870: octets of a message it takes; `None` when it does not say or has no limit.
    pub size: Option<u64>,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6531.
    pub utf8: bool,
    /// RFC 2034.
    pub enhanced: bool,
    /// A word that was blotted out on the way, as it came: `XXXXXXXA`, as Cisco's PIX and ASA do it to STARTTLS. At most 16 octets.
    pub blotted: Option<String>,
    /// RFC 4954: mechanisms in upper case, each once, at most 32.
    pub auth: Vec<String>,
}

impl Capabilities {
    /// The commands of a message are the same octets for both.
    pub fn is_written_like(&self, other: &Self) -> bool {
        let asked = |c: &Self| (c.size, c.pipelining, c.eight_bit, c.dsn, c.utf8);
        asked(self) == asked(other)
    }

    /// Reads the text of a 250 to EHLO: lines parted by `\n`, the first one the name. Never fails: a line that cannot
    /// be understood, an empty one too (RUSTSEC-2026-0562), offers nothing.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.split('\n');
        let first = lines.next().unwrap_or_default();
        let mut found = Self {
            name: first
                .split_ascii_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            ..Self::default()
        };
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                // 0 = no fixed limit (RFC 1870 §4).
                "SIZE" => {
                    found.size = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                }
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit = true,
                "DSN" => found.dsn = true,
                "SMTPUTF8" => found.utf8 = true,
                "STARTTLS" => found.starttls = true,
                "ENHANCEDSTATUSCODES" => found.enhanced = true,
                "AUTH" => found.mechanisms(words),
                word if is_blotted(word) => {
                    found.blotted = Some(text::cut(word, 16).to_owned());
                }
                // "AUTH=LOGIN PLAIN", from before RFC 2554.
                _ => {
                    if let Some(first) = keyword.strip_prefix("AUTH=") {
                        found.mechanisms(std::iter::once(first).chain(words));
                    }
                }
            }
        }
        found
    }

    /// Whether a mechanism (upper case) is offered.
    pub fn offers(&self, mechanism: &str) -> bool {
        self.auth.iter().any(|m| m == mechanism)
    }

    fn mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words.filter(|w| !w.is_empty()) {
            let word = word.to_ascii_uppercase();
            if self.auth.len() < 32 && !self.auth.contains(&word) {
                self.auth.push(word);
            }
        }
    }
}

/// At least five X where a word was, and at most one other letter behind them.
fn is_blotted(word: &str) -> bool {
    let rest = word.trim_start_matches('X');
    word.len() - rest.len() >= 5 && rest.len() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Capabilities) {
        assert_eq!(&Capabilities::parse(text), expected, "{text}");
    }

    #[test]
    fn keywords() {
        let auth = |list: &[&str]| Capabilities {
            name: "h".into(),
            auth: list.iter().map(ToString::to_string).collect(),
            ..Capabilities::default()
        };
        check("", &Capabilities::default());
        check("   \n\n \n", &Capabilities::default());
        check(
            "h\nauth plain login\nAUTH=LOGIN",
            &auth(&["PLAIN", "LOGIN"]),
        );
        check("h\nAUTH=LOGIN", &auth(&["LOGIN"]));
        check("h\nAUTH", &auth(&[]));
        check("h\nSIZE", &auth(&[]));
        for (word, blotted) in [
            ("XXXXXXXA", true),
            ("xxxxxxxx", true),
            ("XEXCH50", false),
            ("XXXX", false),
            ("X", false),
        ] {
            let found = Capabilities::parse(&format!("h\n{word}"));
            let expected = blotted.then(|| word.to_ascii_uppercase());
            assert_eq!(found.blotted, expected, "{word}");
        }
        check("h\nSIZE 0", &auth(&[]));
        check("h\nSIZE 99999999999999999999999", &auth(&[]));
        check(
            "mx.corp.example at your service\nSize 35882577\n8bitMIME\nStartTLS\nEnhancedStatusCodes\nPipelining\nSMTPUTF8\nCHUNKING\ndsn",
            &Capabilities {
                name: "mx.corp.example".into(),
                size: Some(35_882_577),
                pipelining: true,
                eight_bit: true,
                dsn: true,
                utf8: true,
                starttls: true,
                enhanced: true,
                blotted: None,
                auth: Vec::new(),
            },
        );
    }
}
