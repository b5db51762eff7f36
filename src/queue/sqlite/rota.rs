//! Where the turns of the lanes are, kept in memory: a start begins anew.
//!
//! What waits of one client and sender alone is asked for as theirs. That was found some milliseconds ago, and whoever came since
//! must not wait for the next look: then it goes by turns.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::SystemTime,
};

use super::{claim, readers::Readers};
use crate::{
    mail::message::Message,
    queue::{
        store::{Ask, StoreError, Whose},
        turns::{Cursors, Pair},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rota {
    cursors: Mutex<Cursors>,
    /// Whose mail came last, one more than their numbers.
    last: AtomicU32,
    /// Somebody else's has come since it was looked at what is due.
    is_mixed: AtomicBool,
}

impl Rota {
    pub(super) fn cursors(&self) -> MutexGuard<'_, Cursors> {
        let cursors = self.cursors.lock();
        cursors.unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was put where it waits.
    pub(super) fn waits(&self, message: &Message) {
        let Pair { client, sender } = Pair::of_message(message);
        let of = 1 + u32::from(u16::from_be_bytes([client, sender]));
        if self.last.swap(of, Ordering::AcqRel) != of {
            self.is_mixed.store(true, Ordering::Release);
        }
    }

    /// It is looked at what is due, and whoever is there is seen.
    pub(super) fn is_looked_at(&self) {
        self.is_mixed.store(false, Ordering::Release);
    }

    /// What is asked for, as things are now.
    pub(super) fn asks(&self, asks: &[Ask]) -> Vec<Ask> {
        let mut asks = asks.to_vec();
        if self.is_mixed.load(Ordering::Acquire) {
            for ask in &mut asks {
                if matches!(ask.whose, Whose::Of(_)) {
                    ask.whose = Whose::InTurns;
                }
            }
        }
        asks
    }

    /// For each ask the jobs that it takes for when they were accepted. To find them may take long, and nobody's write waits for it.
    pub(super) async fn accepted_by(
        &self,
        readers: &Readers,
        asks: &[Ask],
        now: SystemTime,
    ) -> Result<Vec<Vec<i64>>, StoreError> {
        let mut found = Vec::new();
        for (at, ask) in asks.iter().enumerate() {
            let Whose::AcceptedBy(by) = ask.whose else {
                continue;
            };
            let from = self.cursors().of(ask.place()).swept;
            let asked = ask.clone();
            let look = move |conn: &_| claim::accepted_by(conn, &asked, by, from, now);
            let (jobs, next) = readers.query(look).await?;
            self.cursors().of(ask.place()).swept = next;
            found.resize(at, Vec::new());
            found.push(jobs);
        }
        Ok(found)
    }
}
