//! Space given back to the disk: pages of the file that nothing uses any more.
//!
//! `retention` only leaves them free for the mail to come, and `ballast` makes space for what was sent. When it is done is `delivery`'s to say.

use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Free pages that stay in the file, 8 MB: the mail to come need not make it grow again.
const LEFT: i64 = 1_000;
/// Pages of one transaction.
const STEP: i64 = 500;
/// It ends early after this time, so that mail does not wait long: to find a page among millions that are free takes a while.
const MOMENT: Duration = Duration::from_millis(20);
/// Transactions of one call.
pub(super) const STEPS: usize = 5;

/// Moves pages from the end of the file to free ones; true while there are more. With `all` none are left free. The file itself
/// is cut when the journal goes into it.
pub(super) fn vacuum(conn: &Connection, all: bool) -> rusqlite::Result<bool> {
    let free = || conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    let left = if all { 0 } else { LEFT };
    let before = free()?;
    if before <= left {
        return Ok(false);
    }
    let some = STEP.min(before - left);
    let begun = Instant::now();
    // Each step of the statement frees one page.
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({some})"))?;
    let mut steps = statement.query([])?;
    while begun.elapsed() < MOMENT && steps.next()?.is_some() {}
    drop(steps);
    let after = free()?;
    Ok(after > left && after < before)
}

/// Writes what the journal holds into the file, so that the journal is written from its beginning again and needs no more room.
/// Waits for nobody: false when a reader still needs some of it, or somebody else is at it.
pub(super) fn backfill(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, held, written): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && written >= held)
    })
}
