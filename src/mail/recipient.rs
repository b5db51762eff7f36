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
