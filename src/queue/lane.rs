//! What a store remembers of a lane, for whoever sends by it next and for everybody who looks.
//!
//! Whether a lane takes mail is decided in delivery; here is the row.

use std::time::SystemTime;

use super::node::NodeId;
use crate::{mail::outcome::LaneState, route::LaneId};

/// A lane's state (a connector, for graph with its mailbox), as a row every command sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRow {
    /// Which.
    pub lane: LaneId,
    /// Whether it takes mail.
    pub state: LaneState,
    /// Since when.
    pub since: SystemTime,
    /// The report that did it, with the remedy.
    pub why: String,
    /// When one job (or a login) tries again, or the upstream wants mail again.
    pub probe: Option<SystemTime>,
    /// Which write of the row this is; 0: there was none yet. The store counts.
    pub version: u64,
    /// Of which gateway's way there it speaks; 0: of all.
    pub node: NodeId,
}

/// The rows as one gateway has them: one for each lane, the one that has something to say before one that has not. What others say of their
/// own way there is not among them.
pub fn seen_by(rows: Vec<LaneRow>, node: NodeId) -> Vec<LaneRow> {
    let mut seen: Vec<LaneRow> = Vec::new();
    for row in rows {
        if ![NodeId::default(), node].contains(&row.node) {
            continue;
        }
        match seen.iter_mut().find(|other| other.lane == row.lane) {
            Some(other) if other.state == LaneState::Open => *other = row,
            Some(_) => {}
            None => seen.push(row),
        }
    }
    seen
}
