//! What a gateway of the queue says of itself, and what is concluded about it.

use std::time::Duration;

use crate::queue::store::NodeId;

/// A start of a gateway, as it was read from the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberWord {
    /// Later starts have higher numbers.
    pub node: NodeId,
    /// The member that it is a start of.
    pub name: String,
    /// Of the directory that it works on: a start with the same name and directory is its successor, and it has ended.
    pub token: String,
    /// Moves with each beat of it; it is no time.
    pub seen: i64,
    /// After such a silence it is dead.
    pub dead_after: Duration,
    /// How many members it counts: each of its parts is a limit divided by this. 0: it has no part yet.
    pub knew: u32,
    /// It ends soon. Only its last word says so: of who has said so before and falls silent nobody could tell later whether it left.
    pub is_draining: bool,
    /// What it sent by itself may still count at the upstreams.
    pub is_apart: bool,
    /// It has left, or was taken over.
    pub is_gone: bool,
}

impl MemberWord {
    /// It said goodbye: nothing of it is under way, and it needs no part.
    pub fn has_left(&self) -> bool {
        self.is_gone && self.is_draining && !self.is_apart
    }
}

/// How a member is, for whoever looks at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It is heard.
    Alive,
    /// It was not heard for a third of the time after which it is dead.
    Silent,
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
            Self::Silent => "silent",
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
    /// See [`MemberWord::knew`].
    pub knew: u32,
    /// See [`MemberWord::is_apart`].
    pub is_apart: bool,
}
