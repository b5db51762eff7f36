//! A connector as the window shows it, and what else it shows of the gateway.

use serde::Serialize;
use serde_json::Value;

use super::{Lane, Problem};

/// A connector: its lane, its settings, and how it does.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ConnectorView {
    /// As `status` shows it.
    #[serde(flatten)]
    pub lane: Lane,
    /// `smtp`, `graph`, `capture`, `discard`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its section of the configuration, secrets as `***`.
    #[schema(value_type = Object)]
    pub settings: Value,
    /// Jobs that wait and may go by it: those of the routes that name it.
    pub waiting: u64,
    /// Deliveries under way.
    pub in_flight: u64,
    /// When it last took a message, since the gateway started.
    pub last_success: Option<String>,
    /// When the earliest of its credentials ends, if that is known.
    pub credential_expires: Option<String>,
    /// Its mailboxes that are not open.
    pub lanes: Vec<Lane>,
}

/// The configuration.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ConfigView {
    /// The file.
    pub path: String,
    /// SHA-256 of its octets now, in hex. `None`: it cannot be read, or whoever asks may not have it.
    pub sha256: Option<String>,
    /// Its text, secrets as `***`. `None`: it is no TOML.
    pub text: Option<String>,
    /// What the page can do about it: `off`, `propose`, `write`.
    pub write: String,
    /// Why it is not `write`, though the file says so.
    pub read_only: Option<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}
