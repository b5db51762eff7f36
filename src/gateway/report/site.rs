//! What a report looks at: a gateway that runs or not, beside its queue.

use std::{path::Path, time::SystemTime};

use crate::{
    config::{Config, Diagnostics},
    queue::{
        lock::Holder,
        store::{Store, StoreError},
    },
    view::{STATUS_ROW, StatusRow},
};

/// A gateway, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Where its queue is.
    pub data_dir: &'a Path,
    /// The settings, as it has them or as its file says them. `None`: they cannot be had.
    pub config: Option<&'a Config>,
    /// What is wrong with the file as it is now.
    pub problems: Option<&'a Diagnostics>,
    /// The process, if there is one.
    pub running: Option<Holder>,
    /// When it is looked at.
    pub now: SystemTime,
}

/// What a gateway last wrote down of itself; of one that is gone it is history.
///
/// # Errors
/// Those of the store.
pub async fn status_row(store: &dyn Store) -> Result<StatusRow, StoreError> {
    let text = store.note(STATUS_ROW).await?;
    Ok(StatusRow::read(text.as_deref()))
}

/// The same, and nothing unless the gateway that runs wrote it.
///
/// # Errors
/// Those of the store.
pub async fn status_row_of(
    store: &dyn Store,
    running: Option<&Holder>,
) -> Result<StatusRow, StoreError> {
    let row = status_row(store).await?;
    let is_own = running.is_some_and(|running| running.own == row.pid);
    Ok(if is_own { row } else { StatusRow::default() })
}
