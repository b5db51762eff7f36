//! What is concluded about a gateway of the queue, and what one says of itself.

use std::time::Duration;

/// How a member is, for whoever looks at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It is heard.
    Alive,
    /// It was not heard for a third of the time after which it is dead; it is that in so long, unless it is heard before.
    Silent(Duration),
    /// It ends soon.
    Draining,
    /// It is back, and what it sent by itself is not over.
    Apart,
    /// It has left, or was taken over.
    Gone,
}

impl MemberState {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent(_) => "silent",
            Self::Draining => "draining",
            Self::Apart => "apart",
            Self::Gone => "gone",
        }
    }
}

/// What a gateway may still do with what it has from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnLife {
    /// Everything.
    Whole,
    /// It finishes what it began. Nothing starts.
    Ending,
    /// What is under way is cut: soon others take it over.
    Over,
}

/// What goes into the next beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelfSaid {
    /// See [`crate::queue::store::NodeRow::knew`]: a part is a limit divided by it, and 0 is no part yet.
    pub knew: u32,
    /// What it sent by itself may still count at the upstreams.
    pub is_apart: bool,
}
