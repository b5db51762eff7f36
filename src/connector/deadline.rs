//! What a delivery keeps to: when it has to be over, whether it may still begin, and what it says of itself while it is under way.
//!
//! Whoever calls a connector makes one for each attempt; the connector asks and tells. It waits for nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::mail::{
    outcome::{Obstacle, ObstacleKind},
    reply::Reply,
};

/// Whether an attempt may begin at this moment.
pub type MayBegin = Arc<dyn Fn() -> bool + Send + Sync>;

/// See the module.
pub struct Deadline {
    at: Instant,
    may_begin: Option<MayBegin>,
    is_last_octet_out: AtomicBool,
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl From<Instant> for Deadline {
    /// It may begin at any time before.
    fn from(at: Instant) -> Self {
        Self {
            at,
            may_begin: None,
            is_last_octet_out: AtomicBool::new(false),
        }
    }
}

impl Deadline {
    /// It has to be over then, and may begin as long as `may_begin` says so.
    pub fn asking(at: Instant, may_begin: MayBegin) -> Self {
        Self {
            may_begin: Some(may_begin),
            ..Self::from(at)
        }
    }

    /// When it has to be over.
    pub fn at(&self) -> tokio::time::Instant {
        self.at.into()
    }

    /// Asked right before anything is said to an upstream that it may act on: what is not begun can still be left to others.
    pub fn may_begin(&self) -> bool {
        self.may_begin.as_ref().is_none_or(|may_begin| may_begin())
    }

    /// What becomes of what may not begin: nothing was tried, and nobody else need wait for that.
    pub fn not_now() -> Obstacle {
        let reply = Reply::new(
            451,
            (4, 3, 2),
            "this gateway may begin nothing at the moment",
        );
        Obstacle::new(ObstacleKind::Throttled, reply).after(Some(Duration::ZERO))
    }

    /// Said right before the octets without which the upstream has no message: from here on it may have arrived.
    pub fn gives_the_last_octet(&self) {
        self.is_last_octet_out.store(true, Ordering::Release);
    }

    /// Whether what is cut off now may have arrived.
    pub fn may_have_arrived(&self) -> bool {
        self.is_last_octet_out.load(Ordering::Acquire)
    }
}
