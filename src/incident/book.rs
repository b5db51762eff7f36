//! What is so at a moment, and what follows: what opens, what is reminded of, what is over. No clock, no file: both are arguments.
//!
//! A condition opens an incident when it has held for `open_after`, and ends it when it was gone for `recover_after`, so that what
//! flaps is one incident. One that comes again within an hour is the same one. Many at once become one, a storm.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use super::{
    catalogue::{IncidentKind, IncidentSeverity},
    settings::IncidentSettings,
};
use crate::{
    delivery::clock::Moment,
    mail::{cause::Cause, time::since},
    window::incidents::IncidentRow,
};

/// Opened again within this, it is the same.
pub const SAME: Duration = Duration::from_hours(1);
/// More openings than this within [`STORM_TIME`] become one.
const STORM: usize = 10;
const STORM_TIME: Duration = Duration::from_mins(1);
/// So many members of a storm are listed.
const LISTED: usize = 50;
/// That an incident was seen is written so often.
const SEEN: Duration = Duration::from_mins(1);

/// The states of an incident.
pub const OPEN: &str = "open";
/// See [`OPEN`].
pub const ACKNOWLEDGED: &str = "acknowledged";
/// See [`OPEN`].
pub const RECOVERED: &str = "recovered";

/// Something that is so now and needs somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentCondition {
    /// What.
    pub kind: IncidentKind,
    /// Of which connector, route, …; empty: of the gateway.
    pub object: String,
    /// How bad it is by now.
    pub severity: IncidentSeverity,
    /// How far it has come, of what gets worse by steps: each is told.
    pub stage: u32,
    /// A word for the cause.
    pub cause: Option<String>,
    /// What was said, as it may be shown; one line each.
    pub evidence: Vec<String>,
}

impl IncidentCondition {
    /// As bad as the catalogue says.
    pub fn new(kind: IncidentKind, object: impl Into<String>, evidence: Vec<String>) -> Self {
        // Elsewhere strangers' words may stand in the evidence.
        let of_an_upstream = matches!(
            kind,
            IncidentKind::ConnectorPaused
                | IncidentKind::MailboxRefused
                | IncidentKind::ConnectorClosed
                | IncidentKind::TokenFailing
        );
        let cause = evidence.iter().find_map(|line| Cause::of(line));
        let cause = cause.filter(|_| of_an_upstream);
        Self {
            kind,
            object: object.into(),
            severity: kind.text().severity,
            stage: 0,
            cause: cause.map(|cause| cause.word.to_owned()),
            evidence,
        }
    }
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It began, or began again.
    Opened,
    /// It is still so.
    Reminded,
    /// It has become worse: a reminder, and to those an opening who were not told of less.
    Worse,
    /// It is over.
    Recovered,
}

/// An incident that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentChange {
    /// As it is now; the id is 0 of a new one.
    pub row: IncidentRow,
    /// What is to be told of it.
    pub transition: Option<Transition>,
}

type Name = (IncidentKind, String);

/// What is remembered between two looks.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Since when a condition holds that is no incident yet.
    held: BTreeMap<Name, Duration>,
    /// Since when the condition of an incident is gone.
    gone: BTreeMap<i64, Duration>,
    /// What opened of late.
    openings: VecDeque<(Duration, Name)>,
    /// How old the last word about an incident was at a moment.
    told: BTreeMap<i64, (Duration, Duration)>,
    /// When it was last written that it was seen.
    written: BTreeMap<i64, Duration>,
}

fn is_live(row: &IncidentRow) -> bool {
    row.state != RECOVERED
}

fn is_of(row: &IncidentRow, name: &Name) -> bool {
    row.kind == name.0.as_str() && row.object == name.1
}

fn member((kind, object): &Name) -> String {
    format!("{kind} {object}")
}

impl Book {
    /// What follows. `known`: what is not over, or has been for less than [`SAME`]. `seen`: all that is so now.
    pub fn look(
        &mut self,
        known: &[IncidentRow],
        seen: &[IncidentCondition],
        now: Moment,
        settings: &IncidentSettings,
    ) -> Vec<IncidentChange> {
        let seen: BTreeMap<Name, &IncidentCondition> = seen
            .iter()
            .map(|one| ((one.kind, one.object.clone()), one))
            .collect();
        let storm_name = (IncidentKind::Storm, String::new());
        let storm = known
            .iter()
            .find(|row| is_live(row) && is_of(row, &storm_name));
        let members: BTreeSet<&str> = storm
            .iter()
            .flat_map(|row| row.members.iter().map(String::as_str))
            .collect();
        let mut changes = Vec::new();
        let (mut to_open, mut in_storm) = (Vec::new(), Vec::new());
        let live: BTreeMap<(&str, &str), &IncidentRow> = known
            .iter()
            .filter(|row| is_live(row))
            .map(|row| ((row.kind.as_str(), row.object.as_str()), row))
            .collect();
        for (name, condition) in &seen {
            if let Some(row) = live.get(&(name.0.as_str(), name.1.as_str())) {
                self.gone.remove(&row.id);
                changes.extend(self.goes_on(row, condition, now, settings));
            } else if members.contains(member(name).as_str()) {
                in_storm.push(*condition);
            } else {
                let since = *self.held.entry(name.clone()).or_insert(now.boot);
                let held = now.boot.saturating_sub(since);
                if name.0.text().at_once || held >= settings.open_after {
                    to_open.push(*condition);
                }
            }
        }
        self.held.retain(|name, _| seen.contains_key(name));
        self.openings
            .retain(|(at, _)| now.boot.saturating_sub(*at) < STORM_TIME);
        if !to_open.is_empty() && self.openings.len() + to_open.len() > STORM {
            for one in &to_open {
                self.opens(one, now);
            }
            in_storm.append(&mut to_open);
            changes.push(self.storm(storm, known, &in_storm, now));
        } else if let Some(row) = storm {
            changes.extend(self.storm_goes_on(row, &in_storm, now, settings));
        }
        for one in to_open {
            self.opens(one, now);
            changes.push(opened(known, one, now));
        }
        for row in known.iter().filter(|row| is_live(row)) {
            // One of a kind that this version does not know is never seen.
            let name = IncidentKind::parse(&row.kind).map(|kind| (kind, row.object.clone()));
            let is_seen = name.is_some_and(|name| seen.contains_key(&name));
            if !is_seen && row.kind != IncidentKind::Storm.as_str() {
                changes.extend(self.is_gone(row, now, settings));
            }
        }
        self.forget(known);
        changes
    }

    fn opens(&mut self, condition: &IncidentCondition, now: Moment) {
        let name = (condition.kind, condition.object.clone());
        self.held.remove(&name);
        self.openings.push_back((now.boot, name));
    }

    fn forget(&mut self, known: &[IncidentRow]) {
        let is_known = |id: &i64| known.iter().any(|row| row.id == *id && is_live(row));
        self.gone.retain(|id, _| is_known(id));
        self.told.retain(|id, _| is_known(id));
        self.written.retain(|id, _| is_known(id));
    }

    /// How long ago somebody was last told of it, by the clock that nobody sets.
    fn untold(&mut self, row: &IncidentRow, now: Moment) -> Duration {
        let first = (now.boot, since(row.told, now.wall));
        let (at, age) = *self.told.entry(row.id).or_insert(first);
        age + now.boot.saturating_sub(at)
    }

    /// It is still so.
    fn goes_on(
        &mut self,
        row: &IncidentRow,
        condition: &IncidentCondition,
        now: Moment,
        settings: &IncidentSettings,
    ) -> Option<IncidentChange> {
        let before = IncidentSeverity::parse(&row.severity).unwrap_or(IncidentSeverity::Info);
        let is_worse = condition.severity > before || condition.stage > row.stage;
        let is_due = row.state == OPEN && self.untold(row, now) >= settings.remind;
        let transition = match (is_worse, is_due) {
            (true, _) => Some(Transition::Worse),
            (false, true) => Some(Transition::Reminded),
            (false, false) => None,
        };
        let mut new = IncidentRow {
            severity: condition.severity.as_str().to_owned(),
            stage: condition.stage,
            cause: condition.cause.clone(),
            ..row.clone()
        };
        if !condition.evidence.is_empty() {
            new.evidence.clone_from(&condition.evidence);
        }
        self.go_on(row, new, transition, now)
    }

    /// Written, where it says anything new or was not for a while.
    fn go_on(
        &mut self,
        old: &IncidentRow,
        mut new: IncidentRow,
        transition: Option<Transition>,
        now: Moment,
    ) -> Option<IncidentChange> {
        let written = self.written.get(&old.id);
        let is_fresh = written.is_some_and(|at| now.boot.saturating_sub(*at) < SEEN);
        if new == *old && transition.is_none() && is_fresh {
            return None;
        }
        self.written.insert(old.id, now.boot);
        new.seen = now.wall;
        if transition.is_some() {
            new.number += 1;
            new.told = now.wall;
            self.told.remove(&old.id);
        }
        Some(IncidentChange {
            row: new,
            transition,
        })
    }

    fn is_gone(
        &mut self,
        row: &IncidentRow,
        now: Moment,
        settings: &IncidentSettings,
    ) -> Option<IncidentChange> {
        let since = *self.gone.entry(row.id).or_insert(now.boot);
        if now.boot.saturating_sub(since) < settings.recover_after {
            return None;
        }
        Some(IncidentChange {
            row: IncidentRow {
                state: RECOVERED.to_owned(),
                recovered: Some(now.wall),
                number: row.number + 1,
                told: now.wall,
                ..row.clone()
            },
            transition: Some(Transition::Recovered),
        })
    }

    /// One incident for all that opened within a minute: a new one, or more of the one there is.
    fn storm(
        &mut self,
        storm: Option<&IncidentRow>,
        known: &[IncidentRow],
        all: &[&IncidentCondition],
        now: Moment,
    ) -> IncidentChange {
        let condition = as_one(all);
        let mut members: Vec<String> = storm.map(|row| row.members.clone()).unwrap_or_default();
        // Those that were the first to open have an incident of their own, and are listed here as well.
        let openings = self.openings.iter().map(|(_, name)| member(name));
        for name in openings {
            if !members.contains(&name) {
                members.push(name);
            }
        }
        let Some(row) = storm else {
            let mut change = opened(known, &condition, now);
            change.row.evidence = listed(&members, all);
            change.row.members = members;
            return change;
        };
        self.gone.remove(&row.id);
        let before = IncidentSeverity::parse(&row.severity).unwrap_or(IncidentSeverity::Info);
        let is_worse = condition.severity > before;
        let new = IncidentRow {
            severity: before.max(condition.severity).as_str().to_owned(),
            evidence: listed(&members, all),
            members,
            ..row.clone()
        };
        let transition = is_worse.then_some(Transition::Worse);
        let unchanged = IncidentChange {
            row: new.clone(),
            transition: None,
        };
        self.go_on(row, new, transition, now).unwrap_or(unchanged)
    }

    fn storm_goes_on(
        &mut self,
        row: &IncidentRow,
        all: &[&IncidentCondition],
        now: Moment,
        settings: &IncidentSettings,
    ) -> Option<IncidentChange> {
        if all.is_empty() {
            return self.is_gone(row, now, settings);
        }
        self.gone.remove(&row.id);
        let condition = IncidentCondition {
            // What is over does not make it less bad than it was.
            severity: as_one(all)
                .severity
                .max(IncidentSeverity::parse(&row.severity).unwrap_or(IncidentSeverity::Info)),
            evidence: Vec::new(),
            ..as_one(all)
        };
        self.goes_on(row, &condition, now, settings)
    }
}

/// As bad as the worst of them.
fn as_one(all: &[&IncidentCondition]) -> IncidentCondition {
    let worst = all.iter().map(|one| one.severity).max();
    IncidentCondition {
        severity: worst.unwrap_or(IncidentSeverity::Warning),
        ..IncidentCondition::new(IncidentKind::Storm, "", Vec::new())
    }
}

/// The members of a storm, with what is known of them.
fn listed(members: &[String], all: &[&IncidentCondition]) -> Vec<String> {
    let mut lines: Vec<String> = members
        .iter()
        .take(LISTED)
        .map(|name| {
            let of = |one: &&&IncidentCondition| member(&(one.kind, one.object.clone())) == *name;
            let said = all.iter().find(of).and_then(|one| one.evidence.first());
            said.map_or_else(|| name.clone(), |said| format!("{name}: {said}"))
        })
        .collect();
    if let Some(more) = members.len().checked_sub(LISTED).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// A new incident, or one that was over and is so again.
fn opened(known: &[IncidentRow], condition: &IncidentCondition, now: Moment) -> IncidentChange {
    let name = (condition.kind, condition.object.clone());
    let before = known.iter().rev().find(|row| is_of(row, &name));
    let (id, opened, count, number, note) = match before {
        Some(row) => (row.id, row.opened, row.count, row.number, row.note.clone()),
        None => (0, now.wall, 0, 0, None),
    };
    IncidentChange {
        row: IncidentRow {
            id,
            kind: condition.kind.as_str().to_owned(),
            object: condition.object.clone(),
            severity: condition.severity.as_str().to_owned(),
            stage: condition.stage,
            state: OPEN.to_owned(),
            opened,
            seen: now.wall,
            recovered: None,
            count: count + 1,
            number: number + 1,
            told: now.wall,
            cause: condition.cause.clone(),
            evidence: condition.evidence.clone(),
            members: Vec::new(),
            note,
        },
        transition: Some(Transition::Opened),
    }
}

/// From when on what is over is still of interest.
pub fn remembered(now: SystemTime) -> SystemTime {
    now.checked_sub(SAME).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
