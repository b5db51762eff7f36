//! What one member remembers of the others' starts, row by row, and which of these say something of each of them.
//!
//! What follows from it is for the roll.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::queue::store::{NodeId, NodeRow};

/// What is remembered of a start of a gateway.
#[derive(Debug, Clone)]
pub(super) struct HeardMember {
    pub(super) word: NodeRow,
    /// It has certainly spoken after this.
    pub(super) heard: Option<Duration>,
    /// It had spoken before this for the last time.
    pub(super) since: Duration,
    /// Watched from here on without a gap, it did not speak.
    pub(super) watched: Duration,
    /// A later start of the same member was not apart any more: nothing of this one counts, whatever becomes of that.
    pub(super) is_over: bool,
}

/// The starts of one member that matter.
#[derive(Debug)]
pub(super) struct KnownMember {
    pub(super) is_own: bool,
    /// The newest first.
    pub(super) rows: Vec<HeardMember>,
    /// It may have been sending by itself until it was heard for the last time.
    pub(super) was_cut_off: bool,
}

/// Of two counts the one with the smaller part; 0 is none.
pub(super) fn smaller_part(one: u32, other: u32) -> u32 {
    if one == 0 || other == 0 {
        0
    } else {
        one.max(other)
    }
}

/// What was before a start counts as long as that is apart.
pub(super) fn supersede(rows: &mut BTreeMap<NodeId, HeardMember>) {
    let mut settled: BTreeSet<(String, String)> = BTreeSet::new();
    for entry in rows.values_mut().rev() {
        let key = (entry.word.name.clone(), entry.word.token.clone());
        entry.is_over |= settled.contains(&key);
        if !entry.word.is_apart {
            settled.insert(key);
        }
    }
}

/// The rows of each member that say something of it, the newest first; `own`: this one's.
pub(super) fn grouped(
    rows: &BTreeMap<NodeId, HeardMember>,
    own: Option<NodeId>,
    is_forgotten: impl Fn(&HeardMember) -> bool,
) -> Vec<KnownMember> {
    let mut members: BTreeMap<(&str, &str), Vec<&HeardMember>> = BTreeMap::new();
    for entry in rows.values().rev().filter(|entry| !entry.is_over) {
        let key = (entry.word.name.as_str(), entry.word.token.as_str());
        members.entry(key).or_default().push(entry);
    }
    let mut known = Vec::new();
    for mut rows in members.into_values() {
        rows.retain(|entry| !has_left(&entry.word) && !is_forgotten(entry));
        let is_own = rows.iter().any(|entry| Some(entry.word.id) == own);
        if !rows.is_empty() {
            let rows = rows.into_iter().cloned().collect();
            known.push(KnownMember {
                is_own,
                rows,
                was_cut_off: false,
            });
        }
    }
    known
}

/// It said goodbye: nothing of it is under way, and it needs no part. Only a last word says that a node ends: of one that had said so
/// before and fell silent nobody could tell whether it left.
fn has_left(word: &NodeRow) -> bool {
    word.is_gone && word.is_draining && !word.is_apart
}

pub(super) fn part_of(limit: u64, knew: u32) -> u64 {
    limit.checked_div(u64::from(knew)).unwrap_or(0)
}
