//! The key of `type = "capture"`; `type = "discard"` has none of its own.

use std::path::PathBuf;

use super::{context::Context, files};
use crate::config::table::Table;

/// `directory`.
pub(super) fn read(context: Context<'_>, table: &Table<'_>) -> Option<PathBuf> {
    table.requires("directory", "directory = \"captured\"");
    let directory = table.parsed("directory", files::path)?;
    Some(context.path(&directory.value))
}
