//! What a glance at the gateway shows beside its status: how much mail there was of late, and the room that is left.

use std::time::SystemTime;

use serde::Serialize;

use crate::{mail::time::rfc3339, telemetry::day::DayNumbers};

/// What was counted in the last 24 hours, or since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DayView {
    /// From when on: a day ago, or the start.
    pub since: String,
    /// Messages that were taken in.
    pub accepted: u64,
    /// Messages that were delivered, once for each route.
    pub delivered: u64,
    /// Tries after which somebody has to wait for another one.
    pub deferred: u64,
    /// Recipients that were given up.
    pub failed: u64,
    /// Connections, commands and messages that were refused.
    pub refused: u64,
}

impl DayView {
    /// Of what was counted since then.
    pub fn of(since: SystemTime, numbers: &DayNumbers) -> Self {
        Self {
            since: rfc3339(since),
            accepted: numbers.accepted,
            delivered: numbers.delivered,
            deferred: numbers.deferred,
            failed: numbers.failed,
            refused: numbers.refused,
        }
    }
}

/// The disk of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DiskView {
    /// Octets that are free. `None`: it cannot be seen.
    pub free: Option<u64>,
    /// What `limits.free_disk` asks for; below it no mail is taken.
    pub least: u64,
}
