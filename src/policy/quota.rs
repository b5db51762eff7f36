//! `[[quota]]`: how many recipients a sender, a user, a client or a route may have in a sliding window, and what becomes of more.
//!
//! What is counted is in `ledger`, and how a window slides in `windows`; here is whose recipients are counted together, and what a
//! transaction holds of it.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use super::scope::Scope;
use crate::mail::{address::Address, time::span, unicode};

/// Whose recipients are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// Those of an envelope sender, after rewriting.
    Sender,
    /// Those of whoever has logged in; others are not counted.
    User,
    /// Those of a client's address; of IPv6 those of a /64.
    Client,
    /// Those of a route.
    Route,
}

/// What becomes of mail beyond a quota, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beyond {
    /// It is told.
    Alert,
    /// It is accepted and waits until it is released.
    Hold,
    /// 450 at RCPT.
    Refuse,
}

/// One `[[quota]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: Arc<str>,
    /// Whom it is for.
    pub scope: Scope,
    /// Whose recipients are counted together.
    pub per: CountedBy,
    /// Recipients in any window of that length.
    pub most: u32,
    /// The length of a window.
    pub window: Duration,
    /// What becomes of more.
    pub over: Beyond,
    /// What is held fails then, from its acceptance on.
    pub hold_for: Duration,
}

/// Whose recipient is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Addressed<'a> {
    /// The envelope sender after rewriting; `None` is `<>`.
    pub sender: Option<&'a Address>,
    /// Who has logged in.
    pub user: Option<&'a str>,
    /// Where the connection comes from.
    pub peer: IpAddr,
    /// The name of the route.
    pub route: &'a str,
}

impl CountedBy {
    /// In the order of the words of the configuration.
    pub const ALL: [Self; 4] = [Self::Sender, Self::User, Self::Client, Self::Route];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::User => "user",
            Self::Client => "client",
            Self::Route => "route",
        }
    }
}

impl Beyond {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Hold => "hold",
            Self::Refuse => "refuse",
        }
    }
}

impl Quota {
    /// Under which key a recipient is counted; `None`: it is not.
    pub fn key(&self, of: Addressed<'_>) -> Option<String> {
        match self.per {
            CountedBy::Sender => Some(of.sender.map_or_else(
                || "<>".to_owned(),
                |sender| unicode::lower(&sender.to_string()).into_owned(),
            )),
            CountedBy::User => of.user.map(str::to_owned),
            CountedBy::Client => Some(match of.peer.to_canonical() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            }),
            CountedBy::Route => Some(of.route.to_owned()),
        }
    }

    /// `200 recipients an hour`.
    pub fn words(&self) -> String {
        let noun = if self.most == 1 {
            "recipient"
        } else {
            "recipients"
        };
        let each = match self.window.as_secs() {
            1 => "a second".to_owned(),
            60 => "a minute".to_owned(),
            3600 => "an hour".to_owned(),
            86_400 => "a day".to_owned(),
            _ => format!("in {}", span(self.window)),
        };
        format!("{} {noun} {each}", self.most)
    }
}

/// Who holds mail, as it is kept and shown: `quota erp`.
pub fn holder(quota: &str) -> String {
    format!("quota {quota}")
}

/// What a transaction holds of the quotas that count it.
#[derive(Debug, Clone, Default)]
pub struct QuotaTally(pub(super) Vec<Tallied>);

#[derive(Debug, Clone)]
pub(super) struct Tallied {
    pub(super) quota: Arc<str>,
    pub(super) key: String,
    pub(super) recipients: u32,
}

impl QuotaTally {
    /// Recipients that it holds of this quota and key.
    pub fn of(&self, quota: &str, key: &str) -> u32 {
        let mut all = self.0.iter();
        let found = all.find(|one| *one.quota == *quota && one.key == key);
        found.map_or(0, |one| one.recipients)
    }

    /// One more recipient.
    pub fn add(&mut self, quota: &Arc<str>, key: String) {
        let mut all = self.0.iter_mut();
        match all.find(|one| one.quota == *quota && one.key == key) {
            Some(one) => one.recipients = one.recipients.saturating_add(1),
            None => self.0.push(Tallied {
                quota: Arc::clone(quota),
                key,
                recipients: 1,
            }),
        }
    }

    /// No quota counts it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
