//! A connection and its place among those that may be open; what a message that waits for one hands in, and what it gets.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::link::Link;
use crate::{mail::outcome::Obstacle, smtp::client::capabilities::Capabilities};

/// MAIL, RCPT and DATA of a message that waits, as they are written where just this is offered.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) octets: Vec<u8>,
    pub(super) questions: usize,
    pub(super) offered: Arc<Capabilities>,
}

/// What a message gets that asked for a connection.
#[derive(Debug)]
pub(super) enum Lent {
    /// A connection.
    Seat(Box<Seat>),
    /// One on which its group is written already, behind the dot of another message, which was answered.
    Early(Box<Seat>),
    /// Its group was written or about to be, and then the connection was lost: not begun.
    Untouched,
    /// There is no connection.
    Obstacle(Obstacle),
    /// What is offered is known now: it comes back with its group, to the place that it had.
    Renew,
    /// It waited until its deadline.
    Late,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Its place: less comes first.
    pub(super) number: u64,
    pub(super) group: Option<Group>,
    pub(super) tell: oneshot::Sender<Lent>,
}

/// The message whose group stands behind the dot of the one under way. Dropped, it is untouched.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) tell: oneshot::Sender<Lent>,
}

/// A connection that is lent.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) link: Link,
    pub(super) follower: Option<Follower>,
    /// Behind whose dot the group was written: it wants to know whether the replies fitted.
    pub(super) before: Option<oneshot::Sender<bool>>,
    pub(super) berth: Berth,
}

impl Seat {
    /// Takes leave; the answer is of no interest. The place is free when that is done.
    pub(super) async fn quit(self) {
        self.link.quit().await;
        drop(self.berth);
    }
}

/// The place of a connection among those that may be open; given back when it is dropped.
pub(super) struct Berth {
    /// It is one more than was learned.
    pub(super) is_trial: bool,
    /// It was one too many.
    pub(super) is_refused: bool,
    give_back: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

impl Berth {
    /// `give_back` is told whether it was one too many.
    pub(super) fn new(
        is_trial: bool,
        give_back: impl FnOnce(bool) + Send + Sync + 'static,
    ) -> Self {
        Self {
            is_trial,
            is_refused: false,
            give_back: Some(Box::new(give_back)),
        }
    }
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Berth")
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back(self.is_refused);
        }
    }
}
