//! `postern queue forget`: a gateway that is switched off for good has no part of the limits any more.

use std::{collections::HashMap, time::Duration};

use crate::{
    cli::{
        exit::{CommandError, Ended, Exit},
        output,
        place::QueuePlace,
        prepare,
    },
    mail::text::shown,
    queue::store::{NodeRow, Store, StoreError},
};

/// One that is at work is heard of within this: it beats every second.
const LISTENS: Duration = Duration::from_secs(4);
/// Before what it may have been sending is tried again, where the file does not say.
const IN_DOUBT: Duration = Duration::from_mins(5);

pub(super) fn run(place: &QueuePlace, name: &str) -> Ended {
    let wait = place
        .config
        .as_ref()
        .map_or(IN_DOUBT, |config| config.delivery.in_doubt_wait);
    let store = place.existing_store()?;
    prepare::block_on(async {
        let store = store.as_ref();
        let before = starts(store, name).await?;
        if before.is_empty() {
            output::complain(format_args!(
                "no gateway named \"{}\" shares this queue",
                shown(name)
            ));
            return Ok(Exit::No);
        }
        if before.iter().any(|row| !row.is_gone) {
            tokio::time::sleep(LISTENS).await;
        }
        let now = starts(store, name).await?;
        let seen: HashMap<_, _> = before.iter().map(|row| (row.id, row.seen)).collect();
        let lives = |row: &&NodeRow| !row.is_gone && seen.get(&row.id) != Some(&row.seen);
        if now.iter().any(|row| lives(&row)) {
            return Err(CommandError::new(
                Exit::Later,
                format_args!("{} is at work: stop it first", shown(name)),
            ));
        }
        let at = output::now();
        for row in &now {
            if !row.is_gone {
                store.take_over(row, at + wait, at).await?;
            }
            store.forget(row, at).await?;
        }
        output::line(format_args!(
            "{} is forgotten: the others have its part of the limits",
            shown(name)
        ))?;
        Ok(Exit::Ok)
    })
}

/// The starts of that gateway that still count.
async fn starts(store: &dyn Store, name: &str) -> Result<Vec<NodeRow>, StoreError> {
    let mut rows = store.nodes().await?;
    rows.retain(|row| row.name == name);
    Ok(rows)
}
