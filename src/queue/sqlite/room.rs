//! Room given back to the disk: pages of the file that nothing uses any more.
//!
//! Apart from `ending`, which only leaves them free for the mail to come, and from `ballast`, which makes room for what was
//! sent. When it is done is `delivery`'s to say.

use std::time::Duration;

use rusqlite::Connection;

/// Free pages that stay in the file, 8 MB: the mail to come need not make it grow again.
const LEFT: i64 = 1_000;
/// Pages of one transaction, so that mail does not wait long.
const STEP: i64 = 500;
/// Transactions of one call.
pub(super) const STEPS: usize = 5;
/// How long a reader is waited for whose moment is still in the journal.
const PATIENCE: Duration = Duration::from_millis(100);

/// Moves pages from the end of the file to free ones, and cuts it; true while there are more. With `all` none are left free.
pub(super) fn vacuum(conn: &Connection, all: bool) -> rusqlite::Result<bool> {
    let free = || conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    let left = if all { 0 } else { LEFT };
    let before = free()?;
    if before <= left {
        return Ok(false);
    }
    let some = STEP.min(before - left);
    // Each step of the statement frees one page.
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({some})"))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    drop(steps);
    let after = free()?;
    Ok(after > left && after < before)
}

/// Empties the journal, which otherwise keeps the size that it once had; only then is the file itself cut. A reader that is
/// slower than a moment prevents it: then it is for the next time.
pub(super) fn empty_journal(conn: &Connection, busy: Duration) -> rusqlite::Result<()> {
    conn.busy_timeout(PATIENCE)?;
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    conn.busy_timeout(busy)?;
    emptied
}
