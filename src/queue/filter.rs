//! Which entries an operator means, and how a list of them is asked for. What a filter means to an entry is said here once, for every
//! store.

use std::{
    fmt,
    str::FromStr,
    time::{Instant, SystemTime},
};

use super::{
    operator::{Entry, JobState},
    turns::RouteLane,
};
use crate::{
    mail::{address::Address, message::MessageId, pattern::Pattern, unicode},
    route::{ConnectorName, LaneId, RouteName, Router},
};

/// Which entries; all that is said must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// These messages; empty = any.
    pub ids: Vec<MessageId>,
    /// States; empty = any.
    pub states: Vec<JobState>,
    /// A pattern as in the config, over the envelope sender.
    pub sender: Option<Pattern>,
    /// A pattern over any recipient.
    pub recipient: Option<Pattern>,
    /// By name.
    pub route: Option<RouteName>,
    /// Those of a connector.
    pub connector: Option<OfConnector>,
    /// The `[[client]]` that sent it, by name.
    pub client: Option<String>,
    /// Those that are held by this: `quota NAME`.
    pub held_by: Option<String>,
    /// In the id, the sender, a recipient or what was last said of one; in the subject where `subjects` says so.
    pub text: Option<Needle>,
    /// Accepted at that time or later.
    pub since: Option<SystemTime>,
    /// Accepted at that time or earlier.
    pub older: Option<SystemTime>,
    /// Whoever asks may see subjects: they are looked at, and told.
    pub subjects: bool,
    /// But for reports (from `<>`) that failed: what they tell is old news.
    pub but_failed_reports: bool,
    /// At most so many entries, oldest first.
    pub limit: Option<usize>,
}

/// A connector. An entry is of the one that it is pinned to; else of the one in whose lane it waits, or in that of a mailbox; else
/// of each that its route names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfConnector {
    /// Which.
    pub name: ConnectorName,
    /// The routes that name it: a store does not know them.
    pub routes: Vec<RouteName>,
}

impl OfConnector {
    /// The one of this name, with the routes that are configured now.
    pub fn new(name: &str, router: &Router) -> Self {
        let name = ConnectorName::from(name);
        let routes = router.all();
        let routes = routes.filter(|route| route.connectors.contains(&name));
        let routes = routes.map(|route| route.name.clone()).collect();
        Self { name, routes }
    }

    fn has(&self, entry: &Entry) -> bool {
        self.takes(&entry.route, entry.pinned.as_ref(), entry.lane.as_ref())
    }

    /// Whether what waits there is of it.
    pub fn has_place(&self, (route, pinned, lane): &RouteLane) -> bool {
        self.takes(route, pinned.as_ref(), lane.as_ref())
    }

    fn takes(
        &self,
        route: &RouteName,
        pinned: Option<&ConnectorName>,
        lane: Option<&LaneId>,
    ) -> bool {
        match (pinned, lane) {
            (Some(pinned), _) => *pinned == self.name,
            (None, Some(lane)) => lane.connector == self.name,
            (None, None) => self.routes.contains(route),
        }
    }
}

/// A text that is looked for within others, without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle(String);

impl Needle {
    /// To look for this; an empty one is everywhere.
    pub fn new(text: &str) -> Self {
        // A form may have it decomposed, which no address is.
        Self(unicode::lower(&unicode::composed(text)).into_owned())
    }

    /// Whether it is in there.
    pub fn is_in(&self, text: &str) -> bool {
        if !text.is_ascii() {
            return unicode::lower(text).contains(&self.0);
        }
        let Some((first, rest)) = self.0.as_bytes().split_first() else {
            return true;
        };
        let text = text.as_bytes();
        memchr::memchr2_iter(*first, first.to_ascii_uppercase(), text).any(|at| {
            let there = text.get(at + 1..at + 1 + rest.len());
            there.is_some_and(|there| there.eq_ignore_ascii_case(rest))
        })
    }
}

impl Filter {
    /// One message.
    pub fn of(id: MessageId) -> Self {
        Self {
            ids: vec![id],
            ..Self::default()
        }
    }

    /// Whether it can be judged only of the entry as it is shown.
    pub fn needs_entry(&self) -> bool {
        self.connector.is_some()
            || self.client.is_some()
            || self.held_by.is_some()
            || self.text.is_some()
    }

    /// Whether the rows of jobs alone can judge it.
    pub fn is_plain(&self) -> bool {
        self.sender.is_none()
            && self.recipient.is_none()
            && self.limit.is_none()
            && !self.needs_entry()
    }

    /// Whether it takes this entry; of `limit` it knows nothing.
    pub fn takes(&self, entry: &Entry) -> bool {
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && (self.states.is_empty() || self.states.contains(&entry.state))
            && self.route.as_ref().is_none_or(|r| *r == entry.route)
            && self.since.is_none_or(|since| entry.accepted >= since)
            && self.older.is_none_or(|older| entry.accepted <= older)
            && self.connector.as_ref().is_none_or(|c| c.has(entry))
            && self
                .client
                .as_ref()
                .is_none_or(|client| entry.client.as_ref() == Some(client))
            && self
                .held_by
                .as_ref()
                .is_none_or(|holder| entry.held_by.as_ref() == Some(holder))
            && !(self.but_failed_reports
                && entry.state == JobState::Failed
                && entry.sender.is_none()
                && entry.copy_of.is_none())
            && self.takes_sender(entry.sender.as_deref())
            && self.recipient.as_ref().is_none_or(|pattern| {
                let mut recipients = entry.recipients.iter();
                recipients.any(|recipient| is_of(pattern, Some(&recipient.address)))
            })
            && self.text.as_ref().is_none_or(|text| self.says(text, entry))
    }

    /// Whether it takes mail from there; `None` is `<>`.
    pub fn takes_sender(&self, sender: Option<&str>) -> bool {
        self.sender.as_ref().is_none_or(|p| is_of(p, sender))
    }

    fn says(&self, text: &Needle, entry: &Entry) -> bool {
        let subject = entry.subject.as_deref().filter(|_| self.subjects);
        text.is_in(&entry.id.to_string())
            || text.is_in(entry.sender.as_deref().unwrap_or("<>"))
            || subject.is_some_and(|subject| text.is_in(subject))
            || entry.recipients.iter().any(|recipient| {
                text.is_in(&recipient.address)
                    || recipient.last_reply.as_ref().is_some_and(|r| text.is_in(r))
            })
    }
}

/// Whether a pattern matches an address as a store has it; `None` is `<>`.
pub fn is_of(pattern: &Pattern, address: Option<&str>) -> bool {
    match address.map(Address::parse) {
        None => pattern.matches(None),
        Some(Ok(address)) => pattern.matches(Some(&address)),
        Some(Err(_)) => false,
    }
}

/// A part of the list of what a filter takes, newest first.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Which entries. Its `limit` is not heeded.
    pub filter: Filter,
    /// Where an earlier search ended. `None`: from the newest on.
    pub from: Option<ListMark>,
    /// At most so many entries.
    pub limit: usize,
    /// It ends then with what it has found; it always gets a little further. `None`: it ends when all is found.
    pub deadline: Option<Instant>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct FoundEntries {
    /// Newest first; those of one message by the names of their routes.
    pub entries: Vec<Entry>,
    /// Where it goes on. `None`: there is no more.
    pub next: Option<ListMark>,
    /// The time was over: what was accepted before that was not looked at yet.
    pub searched_to: Option<SystemTime>,
}

/// A place in a list. It stays where it is whatever comes in or goes meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMark {
    /// What is older than this message is behind it; by the number that the store has for it.
    pub message: i64,
    /// Also its own entries with routes behind this one.
    pub behind: Option<RouteName>,
}

/// For a URL; it reads back.
impl fmt::Display for ListMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.behind {
            None => write!(f, "{}", self.message),
            Some(route) => write!(f, "{}.{route}", self.message),
        }
    }
}

impl FromStr for ListMark {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (message, route) = match text.split_once('.') {
            None => (text, None),
            Some((message, route)) => (message, Some(RouteName::from(route))),
        };
        let message = message.parse::<u64>().ok();
        let message = message.and_then(|message| i64::try_from(message).ok());
        Ok(Self {
            message: message.ok_or("not a place in a list")?,
            behind: route,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_without_case() {
        for (needle, text, expected) in [
            ("", "", true),
            ("", "x", true),
            ("x", "", false),
            ("ABC", "xabcx", true),
            ("abc", "ABABC", true),
            ("abc", "ab", false),
            ("aab", "aaab", true),
            ("ü", "ascii", false),
            ("ÜBER", "xüberx", true),
            // A sigma at the end of a word has another small letter, as a part of a word has not.
            ("ΟΔΟΣ", "οδοσ@gr.example", true),
            ("οδοσ", "ΟΔΟΣ@gr.example", true),
            ("ΟΔΟΣ", "ΟΔΟΣΑ", true),
            ("k", "\u{212a}", true),
            ("b", "äB", true),
            ("4.7.1", "550 4.7.1 no", true),
        ] {
            assert_eq!(Needle::new(needle).is_in(text), expected, "{needle} {text}");
        }
    }

    #[test]
    fn a_mark_reads_back() {
        for (message, route) in [(0, None), (7, Some("a.b")), (i64::MAX, Some(""))] {
            let mark = ListMark {
                message,
                behind: route.map(RouteName::from),
            };
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for text in ["", "x", "-1", ".a", "1 ", "9223372036854775808"] {
            assert!(text.parse::<ListMark>().is_err(), "{text}");
        }
    }
}
