//! An operator's verbs, with what belongs to them: lanes that are tried again, reports that a retry leaves alone.

use std::time::SystemTime;

use crate::{
    mail::{outcome::LaneState, pattern::Pattern},
    queue::store::{Commanded, Filter, JobState, LaneRow, NodeId, Store, StoreError, Verb},
    route::{ConnectorName, LaneId},
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
            let is_shut = !matches!(lane.state, LaneState::Open | LaneState::Stopped);
            if is_shut && lane.probe != Some(now) {
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

/// What is shown beside a connector that somebody has stopped.
pub fn stopped(who: &str, why: &str) -> String {
    match why.trim() {
        "" => format!("stopped by {who}"),
        why => format!("stopped by {who}: {why}"),
    }
}

/// Has nothing sent by a connector any more until it is started again; `why` is shown beside it. Whether it was not stopped already.
///
/// # Errors
/// Those of the store.
pub async fn stop(
    store: &dyn Store,
    connector: &ConnectorName,
    why: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    set_state(store, connector, LaneState::Stopped, why, now).await
}

/// The end of [`stop`]: the next mail shows whether it works. Whether it was stopped.
///
/// # Errors
/// Those of the store.
pub async fn start(
    store: &dyn Store,
    connector: &ConnectorName,
    now: SystemTime,
) -> Result<bool, StoreError> {
    set_state(store, connector, LaneState::Open, "", now).await
}

async fn set_state(
    store: &dyn Store,
    connector: &ConnectorName,
    state: LaneState,
    why: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let lane = LaneId::of(connector);
    loop {
        let rows = store.lanes().await?;
        let is_of_all = |row: &LaneRow| row.lane == lane && row.node == NodeId::default();
        let row = rows.into_iter().find(is_of_all);
        let was_stopped = row
            .as_ref()
            .is_some_and(|row| row.state == LaneState::Stopped);
        if was_stopped == (state == LaneState::Stopped) {
            return Ok(false);
        }
        let row = LaneRow {
            lane: lane.clone(),
            state,
            since: now,
            why: why.to_owned(),
            probe: None,
            version: row.map_or(0, |row| row.version),
            node: NodeId::default(),
        };
        // Not written: the gateway has written it meanwhile.
        if store.set_lane(row).await? {
            return Ok(true);
        }
    }
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
    let failed = store.list(&failed, now).await?;
    let reports = failed.iter().filter(|entry| entry.copy_of.is_none());
    Ok(reports.count() as u64)
}
