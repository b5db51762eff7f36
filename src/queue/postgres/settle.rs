//! What became of jobs is written down, many at a time: read (`stored`), decide (`settling`), write (`writing`).
//!
//! Whoever settles must still have the claim. A settlement that was written before changes nothing; of one whose job was taken over
//! what was delivered counts; and where somebody has claimed the job since, nothing.

use super::{
    fault::DbFault,
    link::DbLink,
    stored::{Stored, ToSettle},
    values::int,
    writing::Writing,
};
use crate::queue::{
    settling,
    store::{Kept, Settlement},
};

/// Reads and decides. The transaction is open from here on.
pub(super) async fn read(
    link: &mut DbLink,
    all: &mut [&mut ToSettle],
    writing: &mut Writing,
) -> Result<(), DbFault> {
    let stored = Stored::read(link, all).await?;
    let mut last = stored.last;
    for one in all.iter_mut() {
        let key = one.key();
        writing.now = writing.now.max(one.moments.now());
        let Some(job) = stored.jobs.get(&key) else {
            one.kept = gone(&one.settlement, stored.ended.get(&key).copied());
            writing.twice(one);
            continue;
        };
        one.kept = job.kept(&one.settlement);
        match one.kept {
            Kept::Lost => writing.twice(one),
            // Written before.
            Kept::Written if !job.is_claimed() => {}
            Kept::Written => writing.add(one, job, &mut last),
            Kept::Late => {
                settling::leave_deliveries(&mut one.settlement);
                writing.add(one, job, &mut last);
            }
        }
    }
    Ok(())
}

/// Of a job that is not there.
fn gone(settlement: &Settlement, ended: Option<i32>) -> Kept {
    match ended {
        Some(claim) if claim != int(settlement.lease.claim) => Kept::Lost,
        // Written before (a commit may fail and be on disk all the same), or forgotten long ago: nothing a retry could mend.
        _ => Kept::Written,
    }
}
