//! Starts of gateways that share a queue: what one says of itself, and what it hears of the others.
//!
//! Who lives, and what follows, is decided in delivery.

use std::time::Duration;

/// A start of a gateway: what it has leased is its own until it ends. A store of one gateway knows only 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Nobody: of a store of one gateway alone; in a shared one a gateway that has no number yet.
    pub const NOBODY: Self = Self(0);
}

/// What a gateway says of itself. A store of one gateway heeds nothing but `node`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// `None`: it has just started, and becomes a node.
    pub node: Option<NodeId>,
    /// The member that it is a start of.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Two that have the same are configured alike.
    pub config_hash: String,
    /// After such a silence the others take over what it held.
    pub dead_after: Duration,
    /// Before what a silent one was sending is tried again.
    pub in_doubt_wait: Duration,
    /// How many members it counts, and keeps its own connections to.
    pub knew: u32,
    /// It ends soon, and takes no mail.
    pub is_draining: bool,
    /// It was away, and what it sent meanwhile is not over yet.
    pub is_apart: bool,
    /// It ends now: this is its last word, and nobody need take over anything.
    pub is_leaving: bool,
}

impl Standing {
    /// Of a node that has nothing new to say.
    pub fn of(node: NodeId) -> Self {
        Self {
            node: Some(node),
            ..Self::default()
        }
    }
}

/// What it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The node that it is.
    pub node: NodeId,
    /// All that are at work, those that went without a word of late, and itself.
    pub nodes: Vec<NodeRow>,
    /// Raised whenever an operator's verb or the state of a lane was written. A store of one gateway does not count.
    pub changes: u64,
}

/// A start of a gateway, as the others see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRow {
    /// Which.
    pub id: NodeId,
    /// See [`Standing`].
    pub name: String,
    /// Of the directory that it works on: another start with the same is its successor.
    pub token: String,
    /// See [`Standing`].
    pub version: String,
    /// See [`Standing`].
    pub config_hash: String,
    /// Moves with each of its beats. It is no time: whoever looks measures by his own clock how long it stays.
    pub seen: i64,
    /// See [`Standing`].
    pub dead_after: Duration,
    /// See [`Standing`].
    pub knew: u32,
    /// See [`Standing`].
    pub is_draining: bool,
    /// See [`Standing`].
    pub is_apart: bool,
    /// It has left, or was taken over.
    pub is_gone: bool,
    /// Shared lanes that it has.
    pub lanes: u64,
}

/// How much of the limits of a lane was used of late, in the words of whoever held it; handed on with the lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// JSON. `None`: nobody can say, so the next holder waits until whatever it was is over.
    pub windows: Option<String>,
}
