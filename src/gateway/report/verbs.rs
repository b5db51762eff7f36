//! An operator's verbs, with what belongs to them: lanes that are tried again, reports that a retry leaves alone.

use std::time::SystemTime;

use crate::{
    mail::{outcome::LaneState, pattern::Pattern},
    queue::store::{Commanded, Filter, JobState, LaneRow, Store, StoreError, Verb},
};

/// How often the rows of lanes are read again that the gateway has written meanwhile.
const TRIES: usize = 10;

/// Has the store do it; a retry also tries closed and paused lanes at once: with it the operator says that the cause is mended.
///
/// # Errors
/// Those of the store.
pub async fn carry_out(
    store: &dyn Store,
    filter: &Filter,
    verb: &Verb,
    expect: Option<u64>,
    now: SystemTime,
) -> Result<Commanded, StoreError> {
    let done = store.command_if(filter, verb, expect, now).await?;
    if *verb == Verb::Retry && matches!(done, Commanded::Taken(_)) {
        reopen(store, now).await?;
    }
    Ok(done)
}

async fn reopen(store: &dyn Store, now: SystemTime) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let mut is_overtaken = false;
        for lane in store.lanes().await? {
            if lane.state != LaneState::Open && lane.probe != Some(now) {
                let probe = Some(now);
                is_overtaken |= !store.set_lane(LaneRow { probe, ..lane }).await?;
            }
        }
        if !is_overtaken {
            break;
        }
    }
    Ok(())
}

/// The filter of a retry: failed reports only where their ids or their sender are named, since what they tell is old news.
pub fn of_retry(filter: Filter) -> Filter {
    Filter {
        but_failed_reports: filter.ids.is_empty() && filter.sender.is_none(),
        ..filter
    }
}

/// How many failed reports such a filter leaves alone.
///
/// # Errors
/// Those of the store.
pub async fn failed_reports(
    store: &dyn Store,
    filter: &Filter,
    now: SystemTime,
) -> Result<u64, StoreError> {
    if !filter.but_failed_reports
        || !(filter.states.is_empty() || filter.states.contains(&JobState::Failed))
    {
        return Ok(0);
    }
    let failed = Filter {
        states: vec![JobState::Failed],
        sender: Pattern::parse("<>").ok(),
        but_failed_reports: false,
        ..filter.clone()
    };
    Ok(store.list(&failed, now).await?.len() as u64)
}
