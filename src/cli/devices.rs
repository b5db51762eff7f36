//! `postern devices`: who has connected, as the gateway last wrote it down.

use std::path::PathBuf;

use serde_json::json;

use super::{
    exit::{CommandError, Ended, Exit},
    output,
    place::Where,
};
use crate::{
    mail::text::{shown, shown_to},
    window::{
        WindowDb,
        devices::{self, DeviceRow},
    },
};

/// More are never kept.
const ALL: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let failed = |error| CommandError::new(Exit::Io, error);
    let rows = match WindowDb::existing(&place.data_dir).map_err(failed)? {
        Some(window) => window
            .read_now(|tx| devices::latest(tx, ALL))
            .map_err(failed)?,
        None => Vec::new(),
    };
    if arguments.json {
        output::json(&json!(rows))?;
        return Ok(Exit::Ok);
    }
    if rows.is_empty() {
        output::complain("nobody has connected yet, or less than half a minute ago");
        return Ok(Exit::Ok);
    }
    let now = output::now();
    let cells = |row: &DeviceRow| {
        let last = row.refusals.last();
        vec![
            row.address.clone(),
            row.client.as_deref().map_or_else(|| "-".to_owned(), shown),
            output::span(output::since(row.last_seen, now)),
            row.accepted.to_string(),
            row.refused.to_string(),
            row.senders
                .first()
                .map_or_else(String::new, |sender| shown_to(sender, 40)),
            last.map_or_else(String::new, |refusal| shown_to(&refusal.reply, 80)),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let mut out = Vec::new();
    output::table(
        &mut out,
        &[
            "ADDRESS",
            "CLIENT",
            "SEEN",
            "TAKEN",
            "REFUSED",
            "FROM",
            "LAST REFUSAL",
        ],
        &rows,
    )?;
    output::lines(&out)?;
    Ok(Exit::Ok)
}
