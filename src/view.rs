//! What is shown: of the gateway, of its lanes, of a message and its life. The same words for `--json`, for the status row that a
//! gateway keeps beside the queue, and for whatever asks over a network.
//!
//! The types say which fields there are; how they are printed for people is a command's own affair.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    delivery::{
        lanes::others::{others_in, why_others},
        upstreams::{UpstreamRow, UpstreamsRow},
    },
    mail::outcome::LaneState,
    mail::time::{self, rfc3339},
    queue::store,
    route::LaneId,
};

/// Mailboxes, or Froms in one, of a connector and a kind that are listed.
const LISTED: usize = 10;

/// The key of the status row.
pub const STATUS_ROW: &str = "gateway";

/// What a gateway writes down of itself; of one that is gone it is history. It is empty when nothing was written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusRow {
    /// Of the gateway that wrote it.
    pub pid: u32,
    /// When it started, as the log writes times.
    pub started: Option<String>,
    /// Its configuration file.
    pub config: Option<String>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The listeners' and the connectors' own.
    pub certificates: Vec<Certificate>,
    /// By name, as the configuration has them.
    pub connectors: Vec<String>,
    /// The connectors of each route, in order.
    pub routes: Option<BTreeMap<String, Vec<String>>>,
    /// What became of the last reload, if there was one.
    pub reload: Option<Reload>,
}

impl StatusRow {
    /// From the store; what cannot be read says nothing.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// For the store.
    pub fn written(&self) -> String {
        serde_json::to_value(self).unwrap_or_default().to_string()
    }
}

/// A listener at one of its addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listener {
    /// Of its section.
    pub name: String,
    /// With the port that it has.
    pub address: String,
    /// `off`, `starttls`, `implicit`.
    pub tls: String,
}

/// A certificate in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// Where it is kept.
    pub file: String,
    /// When it begins, while that lies ahead, as the log writes times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// When it ends, as the log writes times.
    pub not_after: String,
}

impl Certificate {
    /// Nobody who checks it takes it yet.
    pub fn is_early(&self, now: SystemTime) -> bool {
        let begins = self.not_before.as_deref().and_then(time::parsed);
        begins.is_some_and(|begins| begins > now)
    }

    /// When it ends. `None`: that cannot be read.
    pub fn ends(&self) -> Option<SystemTime> {
        time::parsed(&self.not_after)
    }
}

/// The section that a certificate belongs to, by its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// It is shown to clients.
    Listener(String),
    /// It is shown to a token endpoint or an upstream.
    Connector(String),
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When it was begun, as the log writes times.
    pub at: String,
    /// Why.
    pub cause: Cause,
    /// Why the old settings stay. `None`: the new ones are in force.
    pub error: Option<String>,
}

/// Why the settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Somebody wants the file to be taken as it is now.
    Asked,
    /// A file that the settings in force name is another one. The configuration stays as it was taken: it may be half edited.
    Files,
}

/// `postern status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whether a gateway holds the data directory.
    pub running: bool,
    /// `None`: it is in another PID namespace, or does not run.
    pub pid: Option<i32>,
    /// Where the queue is.
    pub data_dir: String,
    /// Whether there is a queue.
    pub store: bool,
    /// Whether nothing needs anybody.
    pub ok: bool,
    /// When the gateway started.
    pub started: Option<String>,
    /// The configuration that it runs with.
    pub config: Option<String>,
    /// What is wrong with the file as it is now.
    pub problems: Vec<Problem>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The lanes: every connector, and each mailbox that is not open.
    pub connectors: Vec<Lane>,
    /// By state. `None`: there is no queue.
    pub messages: Option<Messages>,
    /// How long the oldest message waits.
    pub oldest_seconds: Option<u64>,
    /// Those in use.
    pub certificates: Vec<CheckedCertificate>,
    /// What became of the last reload.
    pub reload: Option<Reload>,
}

/// A problem of the configuration.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// `error`, `warning`, `note`.
    pub severity: &'static str,
    /// From 1. `None`: it concerns the file as a whole.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: Option<String>,
}

/// Jobs by state.
#[derive(Debug, Serialize)]
pub struct Messages {
    /// For their time or their turn.
    pub waiting: u64,
    /// At this moment.
    pub sending: u64,
    /// By an operator.
    pub held: u64,
    /// For good.
    pub failed: u64,
}

impl From<&store::Stats> for Messages {
    fn from(stats: &store::Stats) -> Self {
        Self {
            waiting: stats.waiting,
            sending: stats.sending,
            held: stats.held,
            failed: stats.failed,
        }
    }
}

/// A certificate, and whether it is still any good.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedCertificate {
    /// Whose, where and until when.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// Its end lies behind.
    pub expired: bool,
}

/// A connector, or a mailbox of one, and whether it takes mail.
#[derive(Debug, Serialize)]
pub struct Lane {
    /// `connector`, `connector/mailbox` or `connector/mailbox/from`.
    pub name: String,
    /// `open`, `closed`, `paused`, `throttled`.
    pub state: String,
    /// Whether a gateway keeps this state; of one that is gone this is how it left things, not how they are.
    pub current: bool,
    /// Since when it is not open.
    pub since: Option<String>,
    /// Why it is not open, with the remedy.
    pub why: Option<String>,
    /// When it is tried again.
    pub next_probe: Option<String>,
    /// It stands for so many that are not listed (`connector/*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<usize>,
    /// Of a connector that keeps connections, while a gateway runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionsView>,
}

/// The connections of a connector.
#[derive(Debug, Serialize)]
pub struct ConnectionsView {
    /// Open now.
    pub open: usize,
    /// As many as may be open now.
    pub width: usize,
    /// As many as may ever be: `max_connections`.
    pub most: usize,
    /// What the upstream was found to take. `None`: it has refused none.
    pub learned: Option<usize>,
}

impl From<&UpstreamRow> for ConnectionsView {
    fn from(row: &UpstreamRow) -> Self {
        Self {
            open: row.open,
            width: row.width,
            most: row.most,
            learned: row.learned,
        }
    }
}

impl Lane {
    /// Of a row; `is_running`: a gateway keeps it. `upstreams`: what it knows of theirs.
    pub fn new(row: &store::LaneRow, is_running: bool, upstreams: &UpstreamsRow) -> Self {
        let is_whole = row.lane.mailbox.is_none();
        let upstream = upstreams.get(row.lane.connector.as_str());
        let is_shut = row.state != LaneState::Open;
        let probe = row.probe.filter(|_| is_shut && is_running);
        Self {
            name: row.lane.to_string(),
            state: row.state.to_string(),
            current: is_running,
            since: is_shut.then(|| rfc3339(row.since)),
            why: is_shut.then(|| row.why.clone()),
            next_probe: probe.map(rfc3339),
            more: others_in(row),
            connections: upstream
                .filter(|_| is_whole && is_running)
                .map(ConnectionsView::from),
        }
    }
}

/// The lanes that are listed: every connector, and of each the first ten mailboxes, and Froms in one, of a kind. Behind them one
/// stands for the others of that kind.
pub fn listed(rows: &[store::LaneRow]) -> Vec<store::LaneRow> {
    let mut listed: Vec<store::LaneRow> = Vec::new();
    // How many of a kind there are that are listed and that are not, and one of them.
    let mut kinds: HashMap<_, (usize, usize, &store::LaneRow)> = HashMap::new();
    for row in rows {
        let lane = &row.lane;
        let kind = (&lane.connector, row.state, lane.from.is_some());
        let (few, more, _) = kinds.entry(kind).or_insert((0, 0, row));
        match others_in(row) {
            Some(count) => *more += count,
            None if lane.mailbox.is_none() => listed.push(row.clone()),
            None if *few < LISTED => {
                *few += 1;
                listed.push(row.clone());
            }
            None => *more += 1,
        }
    }
    for ((connector, state, is_from), (_, more, one)) in kinds {
        if more == 0 {
            continue;
        }
        listed.push(store::LaneRow {
            lane: LaneId {
                connector: connector.clone(),
                mailbox: Some("*".into()),
                from: is_from.then(|| "*".into()),
            },
            why: why_others(state, more),
            probe: None,
            ..one.clone()
        });
    }
    listed.sort_by_cached_key(|row| {
        let lane = &row.lane;
        let place = (lane.mailbox.is_some(), others_in(row).is_some());
        (lane.connector.to_string(), place, lane.to_string())
    });
    listed
}

/// A message on one route.
#[derive(Debug, Serialize)]
pub struct EntryView {
    /// Of the message.
    pub id: String,
    /// Its route.
    pub route: String,
    /// `waiting`, `sending`, `held`, `failed`, `done`.
    pub state: &'static str,
    /// `<>` of a bounce.
    pub sender: String,
    /// All of this route.
    pub recipients: Vec<RecipientView>,
    /// The most that any recipient has had.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<String>,
    /// The connector that is shut, when that is what it waits for.
    pub blocked_by: Option<String>,
    /// The lane whose turn it waits for.
    pub waits_for: Option<String>,
    /// Octets.
    pub size: u64,
    /// When it was accepted.
    pub accepted_at: String,
}

/// A recipient of an entry.
#[derive(Debug, Serialize)]
pub struct RecipientView {
    /// As it is sent to.
    pub address: String,
    /// What became of it.
    pub state: &'static str,
    /// What the upstream said last.
    pub last_reply: Option<String>,
}

impl EntryView {
    /// Of the store's; `blocked_by` is the connector that it waits for.
    pub fn new(entry: &store::Entry, blocked_by: Option<String>) -> Self {
        let recipient = |r: &store::EntryRecipient| RecipientView {
            address: r.address.clone(),
            state: r.state.as_str(),
            last_reply: r.last_reply.clone(),
        };
        Self {
            id: entry.id.to_string(),
            route: entry.route.to_string(),
            state: entry.state.as_str(),
            sender: sender(entry),
            recipients: entry.recipients.iter().map(recipient).collect(),
            attempts: entry.attempts,
            next_attempt: entry.next_attempt.map(rfc3339),
            blocked_by,
            waits_for: entry.lane.as_ref().map(ToString::to_string),
            size: entry.size,
            accepted_at: rfc3339(entry.accepted),
        }
    }
}

/// Who sent an entry, `<>` of a bounce.
pub fn sender(entry: &store::Entry) -> String {
    entry.sender.clone().unwrap_or_else(|| "<>".to_owned())
}

/// Something that happened to a message.
#[derive(Debug, Serialize)]
pub struct EventView {
    /// When.
    pub at: String,
    /// `accepted`, `delivered`, `deferred`, …
    pub event: String,
    /// To whom; empty: to all of them.
    pub recipients: Vec<String>,
    /// The words of it.
    pub text: String,
}

impl From<&store::Event> for EventView {
    fn from(event: &store::Event) -> Self {
        Self {
            at: rfc3339(event.at),
            event: event.kind.to_string(),
            recipients: event.recipients.clone(),
            text: event.text.clone(),
        }
    }
}

/// The life of a message.
#[derive(Debug, Serialize)]
pub struct Life {
    /// Of the message.
    pub id: String,
    /// `<>` of a bounce, and of what is known by its events alone.
    pub sender: String,
    /// In their order.
    pub events: Vec<EventView>,
    /// On each route.
    pub entries: Vec<EntryView>,
    /// In a sentence, if it is not finished.
    pub waits_for: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lane: &str, state: LaneState, why: &str) -> store::LaneRow {
        store::LaneRow {
            lane: LaneId::parse(lane),
            state,
            since: SystemTime::UNIX_EPOCH,
            why: why.to_owned(),
            probe: None,
            version: 0,
        }
    }

    #[test]
    fn ten_of_a_kind_are_listed_and_the_others_counted() {
        let mut rows = vec![
            row("up", LaneState::Open, ""),
            row("other", LaneState::Paused, "why"),
            row(
                "up/*",
                LaneState::Paused,
                &why_others(LaneState::Paused, 900),
            ),
        ];
        for n in 0..100 {
            rows.push(row(
                &format!("up/p{n:02}@x.y"),
                LaneState::Paused,
                "no such mailbox",
            ));
        }
        for n in 0..11 {
            rows.push(row(
                &format!("up/t{n:02}@x.y"),
                LaneState::Throttled,
                "too much",
            ));
            rows.push(row(
                &format!("up/m@x.y/f{n:02}@x.y"),
                LaneState::Paused,
                "no",
            ));
        }
        for n in 0..10 {
            rows.push(row(
                &format!("other/t{n}@x.y"),
                LaneState::Throttled,
                "too much",
            ));
        }
        let listed = listed(&rows);
        let lane = |row: &store::LaneRow| Lane::new(row, true, &UpstreamsRow::default());
        let lanes: Vec<Lane> = listed.iter().map(lane).collect();
        let more: Vec<(&str, &str, usize)> = lanes
            .iter()
            .filter_map(|lane| Some((lane.name.as_str(), lane.state.as_str(), lane.more?)))
            .collect();
        let mut expected = [
            ("up/*", "paused", 990),
            ("up/*", "throttled", 1),
            ("up/*/*", "paused", 1),
        ];
        expected.sort_unstable();
        let mut sorted = more.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!(lanes.len(), 2 + 10 + 30 + 3);
        assert_eq!(
            (lanes[0].name.as_str(), lanes[1].name.as_str()),
            ("other", "other/t0@x.y")
        );
        assert_eq!(lanes[11].name, "up");
        let why = lanes.iter().find(|lane| lane.more == Some(990));
        assert!(
            why.unwrap()
                .why
                .as_ref()
                .unwrap()
                .starts_with("990 more mailboxes")
        );
    }
}
