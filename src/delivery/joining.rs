//! How a gateway begins among those that share its queue, and what it keeps here for the next start: how many it counts, and whether it may
//! have sent without the store.
//!
//! What follows from that is decided in `members`.

use super::{
    member::{EVERY, Member, PATIENCE, answered},
    members::word::OwnLife,
};
use crate::queue::store::{NodeId, NodeRow, StoreError};

/// The note of how many members a gateway counts: it is its own.
const KNEW: &str = "knew";
/// The note that this gateway may have sent from shared lanes without the store: its own, and empty where that is long ago.
const ALONE: &str = "alone";
/// How a gateway begins among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It is a node.
    AtWork,
    /// The store is away: it becomes one as soon as that is back.
    Away,
    /// Another gateway that lives has its name.
    NameTaken,
}

impl Member {
    /// Begins: its first word. Another gateway of its name is watched until it is known whether that lives; a start of its own before this
    /// one has certainly ended, and is none.
    ///
    /// # Errors
    /// There are as many gateways as there may be.
    pub async fn join(&self) -> Result<Joined, StoreError> {
        // Where that cannot be read, it may have been.
        if let Ok(said) = answered(self.store.note(ALONE)).await
            && said.is_none_or(|said| said.is_empty())
        {
            self.books().roll.begins_clean();
        }
        match self.beat(|_| true).await {
            Ok(_) => {}
            Err(StoreError::Crowded) => return Err(StoreError::Crowded),
            Err(_) => {
                self.recall().await;
                return Ok(Joined::Away);
            }
        }
        let Some(namesake) = self.namesake(None) else {
            return Ok(Joined::AtWork);
        };
        tracing::info!(
            name = %namesake.name,
            "a gateway of this name was at work on another directory; waiting to see whether it still is"
        );
        let until = self.now() + namesake.dead_after + PATIENCE;
        while self.now() < until {
            tokio::time::sleep(EVERY).await;
            // One that does not come through is no news.
            let _ = self.beat(|_| true).await;
            match self.namesake(Some(namesake.id)) {
                None => return Ok(Joined::AtWork),
                Some(now) if now.seen != namesake.seen => {
                    let _ = self.leave().await;
                    return Ok(Joined::NameTaken);
                }
                Some(_) => {}
            }
        }
        Ok(Joined::AtWork)
    }

    /// For a start while the store is away: what it counts as the members is kept here.
    pub(super) async fn keep(&self, knew: u32) {
        if knew == 0 || self.books().noted == Some(knew) {
            return;
        }
        // Again with the next beat, if not now.
        if answered(self.store.set_note(KNEW, knew.to_string()))
            .await
            .is_ok()
        {
            self.books().noted = Some(knew);
        }
    }

    /// What the last run counted; nobody knows better while the store is away.
    async fn recall(&self) {
        if let Ok(Some(knew)) = answered(self.store.note(KNEW)).await {
            self.books().roll.recall(knew.parse().unwrap_or(0));
        }
    }

    /// Another start of its name, on another directory, that is not over; `which`: that one.
    fn namesake(&self, which: Option<NodeId>) -> Option<NodeRow> {
        let own = self.node();
        let name = self.settings().name.clone();
        let states = self.states();
        let token = states
            .iter()
            .find(|(row, ..)| Some(row.id) == own)?
            .0
            .token
            .clone();
        let rows = states.into_iter().map(|(row, ..)| row);
        let mut others = rows.filter(|row| {
            row.name == name && row.token != token && !row.is_gone && Some(row.id) != own
        });
        others.find(|row| which.is_none_or(|which| which == row.id))
    }

    /// Before anything is sent from a shared lane without the store, that is kept here, so that the next start knows of it; and forgotten when it
    /// does not count any more.
    pub async fn keeps_whether_alone(&self) {
        let now = self.now();
        let (is_over, is_noted, is_apart) = {
            let books = self.books();
            let is_over = books.roll.life(now) == OwnLife::Over;
            (is_over, books.may_be_alone, books.roll.is_apart(now))
        };
        let note = match (is_over, is_noted) {
            (true, false) => "1",
            (false, true) if !is_apart => "",
            _ => return,
        };
        if note.is_empty() {
            self.books().may_be_alone = false;
        }
        // Again in a moment, if not now.
        if answered(self.store.set_note(ALONE, note.to_owned()))
            .await
            .is_ok()
        {
            self.books().may_be_alone = !note.is_empty();
        } else {
            self.books().may_be_alone = is_noted;
        }
    }
}
