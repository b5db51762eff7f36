//! What is tidied up, in steps: what is no longer kept goes, and space that nothing uses is given back.

use std::time::SystemTime;

use super::{
    SqliteStore,
    op::{Change, Purpose},
    retention::{self, Over},
    rows::micros,
    shift, space,
};
use crate::queue::store::StoreError;

impl SqliteStore {
    /// In small steps, so that mail waits for none of them long.
    pub(super) async fn prune_in_steps(
        &self,
        failed: i64,
        history: i64,
        now: SystemTime,
    ) -> Result<Vec<String>, StoreError> {
        let mut lines = Vec::new();
        loop {
            let (mut some, more) = self
                .write(move |change| retention::prune_failed(change, failed, now))
                .await?;
            lines.append(&mut some);
            if !more {
                break;
            }
        }
        let mut from = Some(0);
        while let Some(key) = from {
            let Over { keys, ahead, next } = self
                .readers
                .query(move |conn| retention::over(conn, key, history, micros(now)))
                .await?;
            for some in ahead.chunks(retention::STEP) {
                let some = some.to_vec();
                self.write(move |change| shift::ended_now(change, &some, micros(now)))
                    .await?;
            }
            for some in keys.chunks(retention::STEP) {
                let some = some.to_vec();
                self.write(move |change| retention::forget(change, &some, history))
                    .await?;
            }
            from = next;
        }
        Ok(lines)
    }

    /// Whether there is more.
    pub(super) async fn shrink_in_steps(&self, all: bool) -> Result<bool, StoreError> {
        // Every page that is moved takes room in the journal: not while that cannot be written from its beginning.
        if !self.readers.query(space::backfill).await? {
            return Ok(true);
        }
        let mut steps = 0;
        while steps < space::STEPS {
            let step = move |change: &mut Change<'_>| {
                Ok(!change.damaged && space::vacuum(change.conn, all)?)
            };
            if !self.submit(Purpose::TidiesUp, step, |more| more).await? {
                break;
            }
            steps += 1;
        }
        self.readers.query(space::backfill).await?;
        Ok(steps == space::STEPS)
    }
}
