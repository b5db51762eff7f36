//! The gateways that share a queue, and where that is, as they are shown; and the file in which a running gateway says so.

use serde::{Deserialize, Serialize};

/// The file beside the queue in which a gateway among others says every two seconds how they are.
pub const CLUSTER_FILE: &str = "cluster";

/// How a gateway is, as another one knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberStateView {
    /// At work.
    Alive,
    /// Not heard of for a third of `dead_after`.
    Silent,
    /// It ends soon.
    Draining,
    /// It was away, and what it sent meanwhile still counts.
    Apart,
    /// It was taken over.
    Gone,
}

/// A gateway that shares the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberView {
    /// `cluster.name`.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// How it is.
    pub state: MemberStateView,
    /// Seconds since it was heard of.
    pub seen_seconds: u64,
    /// Shared lanes that it sends from.
    pub lanes: u64,
    /// Whether its configuration does the same with the same mail as this one's.
    pub same_config: bool,
    /// Since when it does not, as the log writes times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_since: Option<String>,
    /// For how many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_seconds: Option<u64>,
    /// Seconds until it is taken over, of one that is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over_in: Option<u64>,
    /// This gateway.
    pub this: bool,
}

/// Where the queue is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoreView {
    /// `sqlite` or `postgres`.
    pub kind: String,
    /// The server that is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `ok` or `away`.
    pub state: String,
    /// Since when it is away, as the log writes times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What a 250 means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// Messages that wait here for the database.
    pub spilled: u64,
    /// How long the oldest of them has been here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spilled_oldest_seconds: Option<u64>,
    /// Outcomes that wait here for the database.
    pub unwritten: u64,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// When it was written, in seconds since 1970.
    pub at: u64,
    /// This one among them.
    pub members: Vec<MemberView>,
    /// Where the queue is.
    pub store: StoreView,
}

impl StoreView {
    /// Of a gateway alone.
    pub fn alone() -> Self {
        Self {
            kind: "sqlite".to_owned(),
            host: None,
            state: "ok".to_owned(),
            since: None,
            why: None,
            durability: None,
            spilled: 0,
            spilled_oldest_seconds: None,
            unwritten: 0,
        }
    }

    /// Whether other gateways may have the same.
    pub fn is_shared(&self) -> bool {
        self.kind != "sqlite"
    }

    /// Whether somebody should look: it is away, or mail has waited here for long.
    pub fn needs_somebody(&self) -> bool {
        const LONG: u64 = 600;
        self.state == "away" || self.spilled_oldest_seconds.is_some_and(|age| age > LONG)
    }
}

impl ClusterView {
    /// Whether somebody should look.
    pub fn needs_somebody(&self) -> bool {
        let is_silent = |member: &MemberView| member.state == MemberStateView::Silent;
        self.store.needs_somebody() || self.members.iter().any(is_silent)
    }
}
