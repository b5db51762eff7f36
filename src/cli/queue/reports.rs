//! Failure reports that failed themselves: a retry leaves them alone, since what they tell is old news.
//!
//! `queue` says which messages; this narrows them down and changes nothing.

use std::sync::Arc;

use crate::{
    cli::{exit::CommandError, output},
    mail::pattern::Pattern,
    queue::store::{Filter, JobState, Store},
};

/// How many failed reports the filters would take.
pub(super) async fn failed(
    store: &Arc<dyn Store>,
    filters: &[Filter],
) -> Result<u64, CommandError> {
    let mut found = 0;
    for filter in filters {
        if !filter.states.is_empty() && !filter.states.contains(&JobState::Failed) {
            continue;
        }
        let failed = Filter {
            states: vec![JobState::Failed],
            sender: Pattern::parse("<>").ok(),
            ..filter.clone()
        };
        let entries = store.list(&failed, output::now()).await;
        found += entries?.len() as u64;
    }
    Ok(found)
}

/// What a filter takes but reports that failed: all from senders, and from `<>` what has not failed. (`*` is any sender, and
/// `<>` is none.)
pub(super) fn without_failed(filter: Filter) -> Vec<Filter> {
    let mut states = filter.states.clone();
    if states.is_empty() {
        states = vec![JobState::Waiting, JobState::Sending, JobState::Held];
    }
    states.retain(|state| *state != JobState::Failed);
    let reports = (!states.is_empty()).then(|| Filter {
        states,
        sender: Pattern::parse("<>").ok(),
        ..filter.clone()
    });
    let mail = Filter {
        sender: Pattern::parse("*").ok(),
        ..filter
    };
    std::iter::once(mail).chain(reports).collect()
}
