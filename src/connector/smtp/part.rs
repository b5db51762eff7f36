//! The part of an upstream's connections that is this gateway's, where others send to the same upstream: what is above it is closed.
//!
//! Whoever knows the others says how many they are; this counts nothing.

use super::{pool::Pool, seat::Seat};

impl Pool {
    /// A connection that was lent and not used.
    pub(super) fn give_back(&self, seat: Seat) {
        self.shared.give(seat);
    }

    /// So many connections are this gateway's part from now on. Idle ones above it are closed, others after their message.
    pub(super) fn set_part(&self, connections: usize) {
        let leaving = {
            let mut state = self.shared.state();
            if state.width.part() == connections {
                return;
            }
            state.width.set_part(connections);
            let over = state.open.saturating_sub(state.width.now());
            let at = state.idle.len().saturating_sub(over);
            state.idle.split_off(at)
        };
        for seat in leaving {
            self.shared.leave(seat);
        }
        self.shared.open_more();
    }

    /// Whether a connection that is done with is one more than may be open.
    pub(super) fn is_over_its_part(&self) -> bool {
        let state = self.shared.state();
        state.width.has_shrunk() && state.open > state.width.now()
    }
}
