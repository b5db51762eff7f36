//! Addresses in their one canonical form: what policy judges is what the queue holds and what the wire carries.
//!
//! Every other module relies on that form. The canonical form: the domain in lower case without a
//! trailing dot and in A-labels, the local part without needless quotes and with its case kept. A local part that is not ASCII has one
//! form (`unicode`); whether a client may use it at all is asked where it is read. Finding an address inside a command or a header is done elsewhere (`smtp::server::command`, `mailboxes`).

use std::{fmt, net::IpAddr};

use super::unicode;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not ASCII, and not in the one form of such an address, with the reason (553 5.6.7).
    #[error("{0}")]
    Unicode(&'static str),
    /// Not `local@domain` by RFC 5321 §4.1.2, with the reason.
    #[error("{0}")]
    Syntax(&'static str),
}

/// A domain name or an address literal, canonical.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Reads a domain (RFC 5321 §4.1.2; underscores allowed, since they occur) or an address literal. U-labels become A-labels
    /// (RFC 6531 §3.2); A-labels stay as they are.
    ///
    /// # Errors
    /// [`AddressError`] with the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_ascii() {
            return Self::parse_ascii(text);
        }
        let ascii = unicode::to_ascii(text).map_err(AddressError::Unicode)?;
        Self::parse_ascii(&ascii).map_err(|error| match error {
            AddressError::Syntax(why) | AddressError::Unicode(why) => AddressError::Unicode(why),
        })
    }

    fn parse_ascii(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner
                .strip_suffix(']')
                .ok_or(AddressError::Syntax("an address literal ends with ]"))?;
            let ip: IpAddr = match inner.get(..5) {
                Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => {
                    inner[5..].parse::<std::net::Ipv6Addr>().map(IpAddr::V6)
                }
                _ => inner.parse::<std::net::Ipv4Addr>().map(IpAddr::V4),
            }
            .map_err(|_| AddressError::Syntax("not an address literal"))?;
            return Ok(Self(match ip {
                IpAddr::V4(ip) => format!("[{ip}]").into(),
                IpAddr::V6(ip) => format!("[IPv6:{ip}]").into(),
            }));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(AddressError::Syntax("the domain is empty"));
        }
        if name.len() > 253 {
            return Err(AddressError::Syntax("the domain is longer than 253 octets"));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err(AddressError::Syntax("the domain has an empty label"));
            }
            if label.len() > 63 {
                return Err(AddressError::Syntax(
                    "a label of the domain is longer than 63 octets",
                ));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(AddressError::Syntax(
                    "a label of the domain begins or ends with -",
                ));
            }
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return Err(AddressError::Syntax(
                    "the domain has a character that domains do not have",
                ));
            }
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An address literal such as `[192.0.2.1]`.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox, `local@domain`, canonical. Displays in wire form (quoted where it must be).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    domain: Domain,
}

impl Address {
    /// Reads `local@domain`; the local part is a dot-string or a quoted string (RFC 5321 §4.1.2). Dots may stand at the end
    /// of a dot-string (some devices do) and in a row (old mailboxes of phone companies have such names), not at its start.
    ///
    /// # Errors
    /// [`AddressError`] with the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if !text.is_ascii() && text.len() > unicode::LONGEST {
            return Err(TOO_LONG);
        }
        let (local, rest) = split_local(text)?;
        let domain = rest
            .strip_prefix('@')
            .ok_or(AddressError::Syntax("the address has no @domain"))?;
        Self::joined(local, Domain::parse(domain)?)
    }

    /// The domain of a local part that is not ASCII is in A-labels that decode: whoever gets the one decodes the other, too.
    fn joined(local: String, domain: Domain) -> Result<Self, AddressError> {
        let address = Self {
            local: local.into(),
            domain,
        };
        if address.needs_utf8() {
            if address.local.len() + 1 + address.domain.as_str().len() > unicode::LONGEST {
                return Err(TOO_LONG);
            }
            if address.domain.as_str().contains("xn--") {
                unicode::to_ascii(address.domain.as_str()).map_err(AddressError::Unicode)?;
            }
        }
        Ok(address)
    }

    /// A bare local part such as `root`, completed.
    ///
    /// # Errors
    /// [`AddressError`] when it is not a local part alone.
    pub fn complete(local: &str, domain: &Domain) -> Result<Self, AddressError> {
        let (local, rest) = split_local(local)?;
        if !rest.is_empty() {
            return Err(AddressError::Syntax("not a local part"));
        }
        Self::joined(local, domain.clone())
    }

    /// An address from its parts; `local` is the unquoted content.
    ///
    /// # Errors
    /// [`AddressError`] when the content cannot be a local part, quoted or not.
    pub fn from_parts(local: &str, domain: Domain) -> Result<Self, AddressError> {
        check_local(local)?;
        Self::joined(local.to_owned(), domain)
    }

    /// Its local part is not ASCII: only a server with SMTPUTF8 takes it (RFC 6531 §3.2).
    pub fn needs_utf8(&self) -> bool {
        !self.local.is_ascii()
    }

    /// The local part without quotes, case kept.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The next hop may read another route out of such a local part: `@ % ! < >` inside, or `.`, `/`, `|` first, or
    /// `/../` inside, or `=?`, which some decode as an encoded word; `-` first is an option to programs that deliver by a
    /// command line, and Exchange decodes what begins with `IMCEA` into an address of any kind (its encapsulated addresses).
    /// Only a pattern that names it literally admits it. The same as a hop sees it that normalises by NFKC.
    pub fn is_risky(&self) -> bool {
        let local = unicode::folded(&self.local);
        local.contains(['@', '%', '!', '<', '>'])
            || local.contains("=?")
            || local.starts_with(['.', '/', '|', '-'])
            || local
                .get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case("IMCEA"))
            || local.contains("/../")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
            f.write_str("@")?;
            return f.write_str(self.domain.as_str());
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

/// RFC 5322 §3.2.3 atext.
pub(crate) fn is_atext(b: u8) -> bool {
    matches!(b,
        b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'~' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'/' | b'=' | b'?')
}

fn is_dot_string(local: &str) -> bool {
    // Dots at the end or in a row go unquoted, as those who have such a name write it themselves.
    // RFC 6531 §3.3: what is not ASCII is atext.
    !local.is_empty()
        && !local.starts_with('.')
        && local.bytes().all(|b| b == b'.' || b >= 128 || is_atext(b))
}

const TOO_LONG: AddressError = AddressError::Unicode("the address is longer than 254 octets");

fn check_local(local: &str) -> Result<(), AddressError> {
    if local.is_empty() {
        return Err(AddressError::Syntax("the local part is empty"));
    }
    if local.len() > 64 {
        let why = "the local part is longer than 64 octets";
        return Err(if local.is_ascii() {
            AddressError::Syntax(why)
        } else {
            AddressError::Unicode(why)
        });
    }
    if !local.is_ascii() {
        unicode::check_local(local).map_err(AddressError::Unicode)?;
    }
    if local.bytes().any(|b| b < 32 || b == 127) {
        return Err(AddressError::Syntax(
            "the local part has a control character",
        ));
    }
    Ok(())
}

/// The unquoted local part at the start of `text`, and what follows it.
fn split_local(text: &str) -> Result<(String, &str), AddressError> {
    let (local, rest) = if let Some(quoted) = text.strip_prefix('"') {
        let mut local = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next() {
                None => return Err(AddressError::Syntax("the quoted local part has no end")),
                Some((i, '"')) => break i,
                Some((_, '\\')) => match chars.next() {
                    Some((_, c)) => local.push(c),
                    None => return Err(AddressError::Syntax("the quoted local part has no end")),
                },
                Some((_, c)) => local.push(c),
            }
        };
        (local, &quoted[end + 1..])
    } else {
        let end = text.find('@').unwrap_or(text.len());
        let local = &text[..end];
        if !is_dot_string(local) {
            return Err(AddressError::Syntax(if local.is_empty() {
                "the local part is empty"
            } else {
                "the local part has a character or a dot where none may be"
            }));
        }
        (local.to_owned(), &text[end..])
    };
    check_local(&local)?;
    Ok((local, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&str, AddressError>) {
        assert_eq!(
            Address::parse(input).map(|a| a.to_string()),
            expected.map(str::to_owned),
            "{input}"
        );
    }

    #[test]
    fn addresses() {
        for (input, output) in [
            ("a@corp.com", "a@corp.com"),
            ("X@CORP.Com.", "X@corp.com"),
            ("\"abc\"@corp.com", "abc@corp.com"),
            ("\"a b\"@corp.com", "\"a b\"@corp.com"),
            ("\"a\\\"b\\\\c\"@corp.com", "\"a\\\"b\\\\c\"@corp.com"),
            ("\"x@evil.tld\"@corp.com", "\"x@evil.tld\"@corp.com"),
            ("ilo.@corp.com", "ilo.@corp.com"),
            ("try..this@corp.com", "try..this@corp.com"),
            ("a...b..@corp.com", "a...b..@corp.com"),
            ("\"try..this.\"@corp.com", "try..this.@corp.com"),
            ("a@[10.0.0.5]", "a@[10.0.0.5]"),
            ("a@[ipv6:0:0::1]", "a@[IPv6:::1]"),
            ("a@my_host", "a@my_host"),
            ("victim!v@corp.com", "victim!v@corp.com"),
        ] {
            check(input, Ok(output));
            assert_eq!(
                Address::parse(output).map(|a| a.to_string()).as_deref(),
                Ok(output),
                "prints back"
            );
        }
        for input in [
            "",
            "a",
            "@corp.com",
            "a@",
            "a@.",
            "a@b..c",
            "a@-b.c",
            ".x@corp.com",
            "..x@corp.com",
            ".@corp.com",
            "a b@corp.com",
            "a@b@c",
            "\"a@corp.com",
            "\"a\"b@corp.com",
            "a@[corp.com]",
            "a@[1.2.3.4",
            "a@b c",
            "<a@b>",
            "a@b>",
            "\"\"@corp.com",
            "\"a\r\n\"@corp.com",
            "x@[fe80::1]",
        ] {
            assert!(
                matches!(Address::parse(input), Err(AddressError::Syntax(_))),
                "{input}"
            );
        }
        assert!(Address::parse(&format!("{}@corp.com", "l".repeat(64))).is_ok());
        assert!(Address::parse(&format!("{}@corp.com", "l".repeat(65))).is_err());
        assert!(Address::parse(&format!("a@{}.com", "l".repeat(63))).is_ok());
        assert!(Address::parse(&format!("a@{}.com", "l".repeat(64))).is_err());
        assert!(Address::parse(&format!("a@{}", vec!["abcdefg"; 32].join("."))).is_err());
    }

    #[test]
    fn addresses_that_are_not_ascii() {
        let unit = "\u{fc}";
        for (input, output) in [
            ("b\u{fc}ro@corp.com", "b\u{fc}ro@corp.com"),
            ("B\u{dc}RO@CORP.com.", "B\u{dc}RO@corp.com"),
            ("a@b\u{fc}cher.example", "a@xn--bcher-kva.example"),
            ("\u{fc}@B\u{dc}cher.example", "\u{fc}@xn--bcher-kva.example"),
            (
                "\u{fc}@XN--bcher-kva.example",
                "\u{fc}@xn--bcher-kva.example",
            ),
            ("\"b\u{fc} x\"@corp.com", "\"b\u{fc} x\"@corp.com"),
            ("\"b\u{fc}\"@corp.com", "b\u{fc}@corp.com"),
            ("\u{fc}@[10.0.0.5]", "\u{fc}@[10.0.0.5]"),
        ] {
            check(input, Ok(output));
            check(output, Ok(output));
            let address = Address::parse(input).unwrap();
            assert_eq!(address.needs_utf8(), !output.is_ascii(), "{input}");
            assert!(!address.is_risky(), "{input}");
        }
        let long = format!("{}@corp.com", unit.repeat(32));
        check(&long, Ok(&long));
        let domain = |octets: usize| {
            let labels = "abcdefg.".repeat(40);
            format!(
                "\u{fc}@x{}",
                &labels[labels.len() + 3 - octets..labels.len() - 1]
            )
        };
        assert_eq!(domain(254).len(), 254);
        assert!(Address::parse(&domain(254)).is_ok());
        for bad in [
            format!("a{}@corp.com", unit.repeat(32)),
            domain(255),
            "a\u{ff20}evil.tld@corp.com".into(),
            "b\u{fc}@corp\u{ff20}evil.tld".into(),
            "bu\u{308}ro@corp.com".into(),
            "a@c\u{ff0e}b\u{fc}rp.com".into(),
            "\u{fc}@xn--a.com".into(),
            "a@\u{fc}..com".into(),
            "a@-\u{fc}.com".into(),
            "\"\u{338}\"@corp.com".into(),
        ] {
            let read = Address::parse(&bad);
            assert!(
                matches!(read, Err(AddressError::Unicode(_))),
                "{bad}: {read:?}"
            );
        }
        for bad in [
            "b\u{fc}ro",
            "\u{fc} x@corp.com",
            "\u{fc}@",
            "\"\u{fc}\n\"@corp.com",
        ] {
            let read = Address::parse(bad);
            assert!(
                matches!(read, Err(AddressError::Syntax(_))),
                "{bad}: {read:?}"
            );
        }
        // Full-width letters are letters, and still no way around what Exchange decodes.
        let address = Address::parse("\u{ff29}\u{ff2d}\u{ff23}\u{ff25}\u{ff21}x@corp.com");
        assert!(address.unwrap().is_risky());
    }

    #[test]
    fn risky_local_parts() {
        for risky in [
            "a%b@c.d",
            "a!b@c.d",
            "\"a@b\"@c.d",
            "\".x\"@c.d",
            "/x@c.d",
            "|x@c.d",
            "\"a/../b\"@c.d",
            "a/../b@c.d",
            "=?q?v=40victim.tld=3e?=@c.d",
            "-oQ/tmp@c.d",
            "\"q<> r\"@c.d",
            "IMCEASMTP-v+40victim+2Etld@c.d",
            "imceaex-_O=X_OU=Y_cn=z@c.d",
        ] {
            if let Ok(address) = Address::parse(risky) {
                assert!(address.is_risky(), "{risky}");
            }
        }
        for fine in ["a+b/c@c.d", "a-b@c.d", "imc@c.d", "x-imceasmtp@c.d"] {
            assert!(!Address::parse(fine).unwrap().is_risky(), "{fine}");
        }
    }
}
