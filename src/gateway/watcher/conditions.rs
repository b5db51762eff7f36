//! What was seen becomes conditions: which of it needs somebody, and how badly. It asks nobody, and reads no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use crate::{
    incident::{
        book::IncidentCondition,
        catalogue::{IncidentKind as Kind, IncidentSeverity as Severity},
        shown::evidence,
    },
    mail::{
        health::Health,
        outcome::LaneState,
        time::{human, since, span},
    },
    policy::ledger::QuotaStanding,
    queue::store::LaneRow,
    route::RouteName,
    view::{ClusterView, Credential, MemberStateView, StatusRow},
};

/// Mail that waits longer needs somebody, and at last at once.
pub(super) const OLD: Duration = Duration::from_hours(1);
const VERY_OLD: Duration = Duration::from_hours(6);
/// Days before the end of what ends; at each it is said again.
const ENDS: [u64; 4] = [30, 14, 7, 1];
const DAY: u64 = 86_400;
/// Seconds after which another configuration is no change under way any more.
const DIFFERS: u64 = 600;
/// More failed logins than this of one address are an attack.
pub(super) const ATTACK: u64 = 20;

/// All that was seen at a moment.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) now: SystemTime,
    /// The connectors and listeners that are configured.
    pub(super) connectors: BTreeSet<String>,
    pub(super) lanes: Vec<LaneRow>,
    pub(super) row: StatusRow,
    /// When the oldest waiting mail of a route was accepted, where that is long ago.
    pub(super) oldest: BTreeMap<String, SystemTime>,
    /// Messages of a route that are in doubt for long, and what was said of one.
    pub(super) in_doubt: BTreeMap<String, (usize, String)>,
    pub(super) health: Health,
    /// Octets. `None`: nobody knows.
    pub(super) free: Option<u64>,
    /// `limits.free_disk`.
    pub(super) least: u64,
    /// Clients that are silent: since when, and how often they should send.
    pub(super) silent: BTreeMap<String, (SystemTime, Duration)>,
    /// Recipients that were given up, by route, and what was said last.
    pub(super) failed_mail: BTreeMap<String, (u64, String)>,
    /// Logins that failed of late, by address.
    pub(super) failed_logins: BTreeMap<String, u64>,
    /// What connectors hear in place of a token.
    pub(super) tokens: BTreeMap<String, String>,
    /// Channels whose last word was given up, with the fault.
    pub(super) failing: Vec<(String, String)>,
    /// The clock was set by so many seconds.
    pub(super) step: Option<i64>,
    /// What became of the window.
    pub(super) window: Vec<String>,
    /// The gateways that share the queue, and its database.
    pub(super) cluster: Option<ClusterView>,
    /// Messages that two gateways have sent.
    pub(super) twice: u64,
    /// How the quotas stand.
    pub(super) quotas: Vec<QuotaStanding>,
}

/// What needs somebody.
pub(super) fn conditions(sight: &Sight) -> Vec<IncidentCondition> {
    let mut all = Vec::new();
    all.extend(sight.lanes.iter().filter_map(|row| lane(sight, row)));
    all.extend(
        sight
            .oldest
            .iter()
            .filter_map(|(route, at)| old(route, *at, sight.now)),
    );
    all.extend(sight.in_doubt.iter().map(|(route, (count, said))| {
        let lines = vec![counted(*count as u64, "message"), evidence(said)];
        IncidentCondition::new(Kind::MailInDoubt, route, lines)
    }));
    all.extend(sight.failed_mail.iter().map(|(route, (count, said))| {
        let lines = vec![counted(*count, "recipient"), evidence(said)];
        match RouteName::from(route.as_str()).archive() {
            Some(archive) => IncidentCondition::new(Kind::Archive, archive, lines),
            None => IncidentCondition::new(Kind::MailFailed, route, lines),
        }
    }));
    all.extend(disk(sight));
    all.extend(ending(sight));
    all.extend(
        sight
            .row
            .credentials
            .iter()
            .filter_map(|one| unrotated(one, sight.now)),
    );
    all.extend(
        sight
            .tokens
            .iter()
            .filter(|(name, _)| sight.connectors.contains(*name))
            .map(|(connector, said)| {
                IncidentCondition::new(Kind::TokenFailing, connector, vec![evidence(said)])
            }),
    );
    if let Some(error) = sight
        .row
        .reload
        .as_ref()
        .and_then(|reload| reload.error.as_ref())
    {
        let lines = error.lines().filter(|line| !line.trim().is_empty());
        let lines = lines.take(10).map(evidence).collect();
        all.push(IncidentCondition::new(Kind::ReloadRefused, "", lines));
    }
    let attacks = sight
        .failed_logins
        .iter()
        .filter(|(_, count)| **count > ATTACK);
    all.extend(attacks.map(|(address, count)| {
        let line = format!("{count} failed logins within 5 minutes");
        IncidentCondition::new(Kind::LoginAttack, address, vec![line])
    }));
    all.extend(sight.silent.iter().map(|(client, (last, every))| {
        let line = format!(
            "no mail since {}; expect_every is {}",
            human(*last),
            span(*every)
        );
        IncidentCondition::new(Kind::ClientSilent, client, vec![line])
    }));
    if let Some(step) = sight.step {
        let way = if step < 0 { "back" } else { "forward" };
        let by = span(Duration::from_secs(step.unsigned_abs()));
        all.push(IncidentCondition::new(
            Kind::ClockJumped,
            "",
            vec![format!("it was set {way} by {by}")],
        ));
    }
    all.extend(sight.failing.iter().map(|(channel, fault)| {
        IncidentCondition::new(Kind::NotifyFailing, channel, vec![evidence(fault)])
    }));
    if let Some(cluster) = &sight.cluster {
        all.extend(shared(cluster));
    }
    if sight.twice > 0 {
        let lines = vec![counted(sight.twice, "message")];
        all.push(IncidentCondition::new(Kind::SentTwice, "", lines));
    }
    all.extend(
        sight
            .quotas
            .iter()
            .filter(|quota| quota.full > 0)
            .map(used_up),
    );
    if !sight.window.is_empty() {
        all.push(IncidentCondition::new(
            Kind::WindowFailing,
            "",
            sight.window.clone(),
        ));
    }
    all
}

/// Who has no room, as far as they are named. What is said of it does not change with every look.
fn used_up(quota: &QuotaStanding) -> IncidentCondition {
    let mut lines: Vec<String> = quota.named.iter().map(|(key, _)| evidence(key)).collect();
    let more = quota.full.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    IncidentCondition::new(Kind::QuotaUsedUp, quota.name.as_ref(), lines)
}

/// Of the database, and of the other gateways.
fn shared(cluster: &ClusterView) -> Vec<IncidentCondition> {
    let mut all = Vec::new();
    if cluster.store.state == "away" {
        let said = cluster.store.why.as_deref().map(evidence);
        all.push(IncidentCondition::new(
            Kind::StoreAway,
            "",
            said.into_iter().collect(),
        ));
    }
    for member in cluster.members.iter().filter(|member| !member.this) {
        let kind = match member.state {
            MemberStateView::Silent => Some(Kind::MemberSilent),
            MemberStateView::Gone => Some(Kind::MemberTakenOver),
            _ if member.differs_seconds >= Some(DIFFERS) => Some(Kind::ConfigurationsDiffer),
            _ => None,
        };
        all.extend(kind.map(|kind| IncidentCondition::new(kind, &member.name, Vec::new())));
    }
    all
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn lane(sight: &Sight, row: &LaneRow) -> Option<IncidentCondition> {
    // A connector that is no longer configured holds nothing up.
    if !sight.connectors.contains(row.lane.connector.as_str()) {
        return None;
    }
    let kind = match (row.state, row.lane.mailbox.is_some()) {
        (LaneState::Stopped, _) => Kind::ConnectorStopped,
        (LaneState::Paused, true) => Kind::MailboxRefused,
        (LaneState::Paused, false) => Kind::ConnectorPaused,
        (LaneState::Closed, false) => Kind::ConnectorClosed,
        _ => return None,
    };
    let said = evidence(&row.why);
    let lines = if said.is_empty() {
        Vec::new()
    } else {
        vec![said]
    };
    Some(IncidentCondition::new(kind, row.lane.to_string(), lines))
}

fn old(route: &str, accepted: SystemTime, now: SystemTime) -> Option<IncidentCondition> {
    let waits = since(accepted, now);
    let is_very_old = waits > VERY_OLD;
    (waits > OLD).then(|| IncidentCondition {
        severity: if is_very_old {
            Severity::Critical
        } else {
            Severity::Warning
        },
        // What is said of it does not change with every look.
        ..IncidentCondition::new(
            Kind::QueueOld,
            route,
            vec![format!("the oldest waits since {}", human(accepted))],
        )
    })
}

fn disk(sight: &Sight) -> Option<IncidentCondition> {
    if sight.health == Health::Failing {
        return Some(IncidentCondition::new(
            Kind::StoreFailing,
            "",
            vec!["the last write failed".to_owned()],
        ));
    }
    let is_low = sight.least > 0
        && sight
            .free
            .is_some_and(|free| free < sight.least.saturating_mul(2));
    if sight.health != Health::Full && !is_low {
        return None;
    }
    // In steps, so that not every octet is news.
    let free = sight.free.unwrap_or(0) >> 20;
    let steps = [1, 16, 64, 256, 1_024, 4_096, 16_384, 65_536];
    let below = steps.into_iter().find(|step| free < *step);
    let line = below.map_or_else(
        || "no room is left for the queue".to_owned(),
        |step| {
            format!(
                "less than {step} MiB are free; below {} MiB no mail is taken",
                sight.least >> 20
            )
        },
    );
    Some(IncidentCondition::new(Kind::DiskLow, "", vec![line]))
}

/// What ends soon or has ended: of each owner the first.
fn ending(sight: &Sight) -> impl Iterator<Item = IncidentCondition> {
    let mut first: BTreeMap<(Kind, &str), (bool, SystemTime, &str)> = BTreeMap::new();
    for credential in &sight.row.credentials {
        let Some(ends) = credential.ends() else {
            continue;
        };
        if credential.is_list() && ends > sight.now {
            continue;
        }
        let name = match (&credential.listener, &credential.connector) {
            (Some(name), _) => (Kind::CertificateExpires, name.as_str()),
            (None, Some(name)) => (Kind::CredentialExpires, name.as_str()),
            (None, None) => continue,
        };
        let what = credential.file.as_deref().unwrap_or(&credential.kind);
        // What stops mail first; a list that is overdue is still in force.
        let found = (credential.is_list(), ends, what);
        let known = first.entry(name).or_insert(found);
        *known = (*known).min(found);
    }
    let now = sight.now;
    first
        .into_iter()
        .filter_map(move |((kind, name), (is_list, ends, what))| {
            let (severity, stage) = match stage(ends, now)? {
                (_, stage) if is_list => (Severity::Warning, stage),
                found => found,
            };
            let past = if stage > ENDS.len() as u32 {
                "ended"
            } else {
                "ends"
            };
            let line = format!("{what} {past} at {}", human(ends));
            Some(IncidentCondition {
                severity,
                stage,
                ..IncidentCondition::new(kind, name, vec![line])
            })
        })
}

/// A certificate that could not be replaced: there is time for a while.
fn unrotated(credential: &Credential, now: SystemTime) -> Option<IncidentCondition> {
    let connector = credential.connector.as_deref()?;
    if credential.rotation.as_deref() != Some("failed") {
        return None;
    }
    let is_near = credential.days(now).is_some_and(|days| days < 30);
    let why = credential.why.as_deref().map(evidence);
    Some(IncidentCondition {
        severity: if is_near {
            Severity::Critical
        } else {
            Severity::Warning
        },
        ..IncidentCondition::new(Kind::RotationFailed, connector, why.into_iter().collect())
    })
}

/// How near the end is: how many of the days before it are gone. `None`: far away.
fn stage(ends: SystemTime, now: SystemTime) -> Option<(Severity, u32)> {
    let Ok(left) = ends.duration_since(now) else {
        return Some((Severity::Critical, ENDS.len() as u32 + 1));
    };
    let passed = ENDS
        .iter()
        .filter(|days| left.as_secs() < **days * DAY)
        .count();
    (passed > 0).then_some((Severity::Warning, passed as u32))
}

#[cfg(test)]
mod tests;
