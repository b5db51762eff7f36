//! The quotas that have no room left for somebody, as a gateway notes them for whoever asks how it is.

use serde::{Deserialize, Serialize};

/// The key of the note, a list of [`FullQuota`].
pub const QUOTAS_ROW: &str = "quotas used up";

/// A quota that somebody has overrun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FullQuota {
    /// Its name.
    pub quota: String,
    /// How many have no room.
    pub full: u64,
    /// Some of them: senders, users, addresses or routes.
    pub named: Vec<String>,
}
