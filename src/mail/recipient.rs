//! Whom a message is for: an address, and what its sender wants to be told of its delivery.

use std::fmt;

use super::address::Address;

/// One recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Where to.
    pub address: Address,
    /// What the client asked for by DSN (RFC 3461 §4), where it did.
    pub dsn: Option<DsnWish>,
}

/// The parameters of RCPT by which a client asks for reports (RFC 3461 §4.1, §4.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DsnWish {
    /// NOTIFY; `None`: it said nothing, so it is told of failures.
    pub notify: Option<Notify>,
    /// ORCPT, as it was given.
    pub original: Option<String>,
}

/// The parameters of MAIL by which a client asks for reports (RFC 3461 §4.3, §4.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportWish {
    /// RET; `None`: it said nothing.
    pub content: Option<ReturnedContent>,
    /// ENVID, as it was given.
    pub id: Option<String>,
}

/// RET: what of the message a report of a failure brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnedContent {
    /// All of it.
    Full,
    /// The header.
    Header,
}

impl ReturnedContent {
    /// The word in the command.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Header => "HDRS",
        }
    }

    /// From the word, without case.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Full, Self::Header]
            .into_iter()
            .find(|content| content.as_str().eq_ignore_ascii_case(word))
    }
}

/// What a sender wants to hear of; nothing at all is NEVER.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// It was delivered.
    pub success: bool,
    /// It was given up.
    pub failure: bool,
    /// It takes long.
    pub delay: bool,
}

impl Notify {
    /// Of nothing.
    pub const NEVER: Self = Self {
        success: false,
        failure: false,
        delay: false,
    };

    /// From the value of NOTIFY, without case: `NEVER`, or a list of the others (RFC 3461 §4.1).
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in value.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }

    /// The words in lists and JSON; of NEVER that one.
    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (self.success, "success"),
            (self.failure, "failure"),
            (self.delay, "delay"),
        ];
        let mut words: Vec<_> = all.iter().filter(|(is, _)| *is).map(|(_, w)| *w).collect();
        if words.is_empty() {
            words.push("never");
        }
        words
    }
}

/// As NOTIFY has it.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(",").to_ascii_uppercase())
    }
}

impl Recipient {
    /// NOTIFY, where it was given.
    pub fn notify(&self) -> Option<Notify> {
        self.dsn.as_ref()?.notify
    }

    /// Whether the sender wants to hear that it was delivered.
    pub fn tells_success(&self) -> bool {
        self.notify().is_some_and(|notify| notify.success)
    }

    /// Whether the sender wants to hear that it was given up, as it does where it said nothing (RFC 3461 §4.1).
    pub fn tells_failure(&self) -> bool {
        self.notify().is_none_or(|notify| notify.failure)
    }

    /// Whether the sender wants to hear that it takes long.
    pub fn tells_delay(&self) -> bool {
        self.notify().is_some_and(|notify| notify.delay)
    }
}

impl From<Address> for Recipient {
    fn from(address: Address) -> Self {
        Self { address, dsn: None }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A recipient is whoever has the address, whatever is wanted of its delivery.
impl PartialEq<Address> for Recipient {
    fn eq(&self, address: &Address) -> bool {
        self.address == *address
    }
}
