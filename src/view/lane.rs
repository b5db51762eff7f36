//! The lanes: which of them are listed, and what is said of each.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    delivery::{
        lanes::others::{others_in, why_others},
        upstreams::{UpstreamRow, UpstreamsRow},
    },
    mail::{cause::Cause, outcome::LaneState, time::rfc3339},
    queue::store,
    route::LaneId,
};

/// Mailboxes, or Froms in one, of a connector and a kind that are listed.
const LISTED: usize = 10;

/// A connector, or a mailbox of one, and whether it takes mail.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Lane {
    /// `connector`, `connector/mailbox` or `connector/mailbox/from`.
    pub name: String,
    /// `open`, `closed`, `paused`, `throttled`, `stopped`.
    pub state: String,
    /// Whether a gateway keeps this state; of one that is gone this is how it left things, not how they are.
    pub current: bool,
    /// Since when it is not open.
    pub since: Option<String>,
    /// Why it is not open, with the remedy.
    pub why: Option<String>,
    /// The word of the usual mistake that it is, if it is one.
    pub cause: Option<&'static str>,
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
#[derive(Debug, Serialize, utoipa::ToSchema)]
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
            cause: Cause::of(&row.why)
                .filter(|_| is_shut)
                .map(|cause| cause.word),
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn row(lane: &str, state: LaneState, why: &str) -> store::LaneRow {
        store::LaneRow {
            lane: LaneId::parse(lane),
            state,
            since: SystemTime::UNIX_EPOCH,
            why: why.to_owned(),
            probe: None,
            version: 0,
            node: store::NodeId::default(),
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
