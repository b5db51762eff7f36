//! How far a piece of writing has come, for whoever waits for it: as long as it was certainly not done he may have it back, and where
//! nobody knows, nobody goes on with it.

use std::sync::atomic::{AtomicU8, Ordering};

/// It waits for a connection.
const WAITS: u8 = 0;
/// It was sent, and its answer is about to come.
const SENT: u8 = 1;
/// It may have been done.
const UNSURE: u8 = 2;
const WITHDRAWN: u8 = 3;

/// See the module.
#[derive(Debug, Default)]
pub struct WriteTicket(AtomicU8);

/// What was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// It was not done, and will not be.
    Undone,
    /// Nobody knows whether it was done; it is not tried again.
    Unsure,
}

impl WriteTicket {
    /// Has it back. `None`: its answer comes in a moment; or nobody knows whether it was done, and he would rather wait (`is_certain`).
    pub fn withdraw(&self, is_certain: bool) -> Option<Withdrawn> {
        let all = [(WAITS, Withdrawn::Undone), (UNSURE, Withdrawn::Unsure)];
        let some = if is_certain { 1 } else { 2 };
        for (state, withdrawn) in all.into_iter().take(some) {
            let taken =
                self.0
                    .compare_exchange(state, WITHDRAWN, Ordering::SeqCst, Ordering::SeqCst);
            if taken.is_ok() {
                return Some(withdrawn);
            }
        }
        None
    }

    /// Whether it may be sent: nobody wants it back.
    pub(super) fn sends(&self) -> bool {
        let _ = (self.0).compare_exchange(WAITS, SENT, Ordering::SeqCst, Ordering::SeqCst);
        self.0.load(Ordering::SeqCst) != WITHDRAWN
    }

    /// It came to nothing, as far as is known.
    pub(super) fn came_back(&self, is_unsure: bool) {
        let now = if is_unsure { UNSURE } else { WAITS };
        let _ = (self.0).compare_exchange(SENT, now, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_back() {
        let ticket = WriteTicket::default();
        assert!(ticket.sends());
        assert_eq!(ticket.withdraw(false), None);
        ticket.came_back(false);
        assert_eq!(ticket.withdraw(true), Some(Withdrawn::Undone));
        assert!(!ticket.sends());
        let ticket = WriteTicket::default();
        assert!(ticket.sends());
        ticket.came_back(true);
        // Sent again it is no surer.
        assert!(ticket.sends());
        ticket.came_back(false);
        assert_eq!(ticket.withdraw(true), None);
        assert_eq!(ticket.withdraw(false), Some(Withdrawn::Unsure));
        assert!(!ticket.sends() && ticket.withdraw(false).is_none());
    }
}
