//! Whether mail is taken in, as probes and balancers ask it: never the state of an upstream.

use serde::{Deserialize, Serialize};

/// Whether mail is taken in. The state of an upstream is no part of it: what cannot leave waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// It is.
    pub ready: bool,
    /// Why it is not, if it is not.
    pub checks: ReadyChecks,
}

/// What [`Readiness`] depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadyChecks {
    /// Every listener listens.
    pub listeners: bool,
    /// What comes and what is sent can be written down.
    pub store: bool,
    /// The disk has the room that `limits.free_disk` asks for.
    pub space: bool,
    /// The gateway ends: the one that must be false.
    pub draining: bool,
}

impl Readiness {
    /// By these checks.
    pub fn of(checks: ReadyChecks) -> Self {
        Self {
            ready: checks.listeners && checks.store && checks.space && !checks.draining,
            checks,
        }
    }

    /// Why not, for people.
    pub fn reason(&self) -> &'static str {
        let checks = &self.checks;
        if checks.draining {
            "it ends"
        } else if !checks.listeners {
            "it does not listen yet"
        } else if !checks.store {
            "the store does not work"
        } else if !checks.space {
            "the disk has less room than limits.free_disk asks for"
        } else {
            "it is ready"
        }
    }
}
