//! What two stores say together: pure. The one that is asked first is the one whose word holds where both know a message.

use std::collections::{HashMap, HashSet};

use crate::{
    mail::message::MessageId,
    queue::{
        filter::ListMark,
        operator::{Entry, Stats},
        store::{Ask, Due, Job, Whose},
        turns::RouteLane,
    },
};

/// Where mail waits in either.
pub(super) fn due(remote: Vec<Due>, local: Vec<Due>) -> Vec<Due> {
    let mut all = remote;
    for due in local {
        let same = |other: &&mut Due| {
            (&other.route, &other.pinned, &other.lane) == (&due.route, &due.pinned, &due.lane)
        };
        match all.iter_mut().find(same) {
            Some(other) => {
                other.at = other.at.min(due.at);
                if other.whose != due.whose {
                    other.whose = Whose::InTurns;
                }
            }
            None => all.push(due),
        }
    }
    all
}

/// What is left of asks when some of it was claimed.
pub(super) fn left_of(asks: &[Ask], claimed: &[Job]) -> Vec<Ask> {
    let mut counts: HashMap<RouteLane, usize> = HashMap::new();
    for job in claimed {
        let place = (job.route.clone(), job.pinned.clone(), job.lane.clone());
        *counts.entry(place).or_default() += 1;
    }
    let left = asks.iter().filter_map(|ask| {
        let mut ask = ask.clone();
        if let Some(count) = counts.get_mut(&ask.place()) {
            let taken = ask.limit.min(*count);
            *count -= taken;
            ask.limit -= taken;
        }
        (ask.limit > 0).then_some(ask)
    });
    left.collect()
}

/// Oldest first, at most so many.
pub(super) fn list(remote: Vec<Entry>, local: Vec<Entry>, limit: Option<usize>) -> Vec<Entry> {
    let there: HashSet<MessageId> = remote.iter().map(|entry| entry.id).collect();
    let mut all = remote;
    all.extend(local.into_iter().filter(|entry| !there.contains(&entry.id)));
    all.sort_by_key(|entry| entry.accepted);
    all.truncate(limit.unwrap_or(usize::MAX));
    all
}

/// Counts of both.
pub(super) fn stats(remote: &Stats, local: &Stats) -> Stats {
    Stats {
        waiting: remote.waiting + local.waiting,
        sending: remote.sending + local.sending,
        held: remote.held + local.held,
        failed: remote.failed + local.failed,
        in_doubt: remote.in_doubt + local.in_doubt,
        oldest: [remote.oldest, local.oldest].into_iter().flatten().min(),
    }
}

/// Jobs that wait in either.
pub(super) fn waiting(
    remote: Vec<(RouteLane, u64)>,
    local: Vec<(RouteLane, u64)>,
) -> Vec<(RouteLane, u64)> {
    let mut all = remote;
    for (place, count) in local {
        match all.iter_mut().find(|(other, _)| *other == place) {
            Some((_, sum)) => *sum += count,
            None => all.push((place, count)),
        }
    }
    all
}

/// A place in the list of the local store: numbers of the other one are never so large.
const LOCAL: i64 = 1 << 62;

/// As a caller has it.
pub(super) fn mark_of_local(mark: ListMark) -> ListMark {
    ListMark {
        message: mark.message | LOCAL,
        behind: mark.behind,
    }
}

/// Of a caller's place: that in the local store, or (`Err`) that in the other one.
pub(super) fn local_mark(mark: &ListMark) -> Result<ListMark, ListMark> {
    if mark.message & LOCAL == 0 {
        return Err(mark.clone());
    }
    Ok(ListMark {
        message: mark.message & !LOCAL,
        behind: mark.behind.clone(),
    })
}
