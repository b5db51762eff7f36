//! An incident, as it is shown and as a channel tells it; who was told, and how many are open.

use serde::{Deserialize, Serialize};

/// Something that needs somebody, or needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IncidentView {
    /// `i42`.
    pub id: String,
    /// The word of its kind.
    pub kind: String,
    /// The connector, route, client, address or channel that it is about; empty: the gateway.
    pub object: String,
    /// `info`, `warning`, `critical`.
    pub severity: String,
    /// `open`, `acknowledged`, `recovered`.
    pub state: String,
    /// When it opened first.
    pub opened_at: String,
    /// When it was last so.
    pub last_seen_at: String,
    /// When it was over.
    pub recovered_at: Option<String>,
    /// How often it has opened.
    pub count: u32,
    /// A word for what caused it, where that is known.
    pub cause: Option<String>,
    /// One line.
    pub title: String,
    /// The last replies or errors; addresses are `…@domain`.
    pub evidence: Vec<String>,
    /// What may have caused it.
    pub causes: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// What was said when it was acknowledged.
    pub note: Option<String>,
    /// Who was told, or is to be.
    pub told: Vec<ToldView>,
}

/// Who was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToldView {
    /// The `[[notify]]`, by name.
    pub channel: String,
    /// `opened`, `reminded`, `recovered`.
    pub transition: String,
    /// When it was last tried. `None`: it was not yet.
    pub at: Option<String>,
    /// The status of the answer, or the fault. `None`: it was not tried yet.
    pub result: Option<String>,
}

/// A `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// `webhook`, `mail`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// It is told of nothing less.
    pub min_severity: String,
    /// The kinds that it is told of. `None`: all.
    pub kinds: Option<Vec<String>>,
}

/// What came of a try to tell somebody something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ChannelTest {
    /// The `[[notify]]`, by name.
    pub channel: String,
    /// Whether it was taken.
    pub ok: bool,
    /// The status of the answer, or the fault.
    pub result: String,
}

/// How many incidents are open, and not acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OpenIncidents {
    /// To be looked at now.
    pub critical: u64,
    /// To be looked at today.
    pub warning: u64,
    /// To be known.
    pub info: u64,
}

impl OpenIncidents {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.critical + self.warning + self.info
    }
}
