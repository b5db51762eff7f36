//! Looks at all that may need somebody: rows of the store, which everybody reads, and what was noticed meanwhile. It changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::conditions::{OLD, Sight};
use crate::{
    config::Config,
    delivery::clock::Moment,
    gateway::{company, report::site::status_row},
    listener::{devices::Devices, quotas::QuotaDesk},
    mail::time::since,
    queue::store::{EventKind, Filter, JobState, OfConnector, RecipientState, Store, StoreError},
    route::{ConnectorName, RouteName},
    telemetry::noticed::NoticedSince,
    view::StatusRow,
};

/// Failed logins are counted over this.
const LOGINS: Duration = Duration::from_mins(5);
/// A clock that differs by more than this from the one that nobody sets was set.
const STEP: i64 = 300;
/// An outcome that is unknown for longer is one.
const DOUBT: Duration = Duration::from_mins(30);
/// What costs more is looked at so seldom.
const SELDOM: Duration = Duration::from_secs(30);
/// After a start a client is given this long, since it could not send before.
const GRACE: Duration = Duration::from_mins(2);
/// Messages in doubt of one connector that are looked at.
const DOUBTFUL: usize = 100;

/// What is known from the looks before.
#[derive(Debug)]
pub(super) struct Eyes {
    /// Both clocks, when they were last the same.
    clocks: Moment,
    started: Moment,
    /// Failed logins: when, of which address, how many.
    logins: VecDeque<(Duration, String, u64)>,
    tokens: BTreeMap<String, String>,
    /// When those that are waited for last sent something.
    clients: BTreeMap<String, SystemTime>,
    seldom: Option<Duration>,
    /// What was found at the last of those looks.
    oldest: BTreeMap<String, SystemTime>,
    in_doubt: BTreeMap<String, (usize, String)>,
    /// What happened and has opened nothing yet: it is forgotten when that is written.
    failed_mail: BTreeMap<String, (u64, String)>,
    step: Option<i64>,
    window: Vec<String>,
    twice: u64,
}

impl Eyes {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            clocks: now,
            started: now,
            logins: VecDeque::new(),
            tokens: BTreeMap::new(),
            clients: BTreeMap::new(),
            seldom: None,
            oldest: BTreeMap::new(),
            in_doubt: BTreeMap::new(),
            failed_mail: BTreeMap::new(),
            step: None,
            window: Vec::new(),
            twice: 0,
        }
    }

    /// Something became of the window.
    pub(super) fn window_failed(&mut self, what: &str) {
        if !self.window.iter().any(|known| known == what) {
            self.window.push(what.to_owned());
        }
    }

    /// What happened is written down.
    pub(super) fn written(&mut self) {
        self.failed_mail.clear();
        self.step = None;
        self.window.clear();
        self.twice = 0;
    }

    /// All of it as it is now. What cannot be read is as it was.
    pub(super) async fn look(
        &mut self,
        config: &Config,
        store: &Arc<dyn Store>,
        (devices, quotas): (&Devices, &QuotaDesk),
        noticed: NoticedSince,
        now: Moment,
    ) -> Sight {
        self.notice(noticed, now);
        self.compare(now);
        let is_time = self
            .seldom
            .is_none_or(|at| now.boot.saturating_sub(at) >= SELDOM);
        if is_time {
            self.seldom = Some(now.boot);
            // At the next look, if the store does not answer now: its own incident says so.
            let _ = self.look_at_mail(store.as_ref(), now.wall).await;
            self.look_at_clients(config, devices, now.wall);
        }
        let lanes = store.lanes_here().await.unwrap_or_default();
        let row = status_row(store.as_ref()).await.unwrap_or_default();
        // Of another process it is history.
        let row = if row.pid == std::process::id() {
            row
        } else {
            StatusRow::default()
        };
        Sight {
            now: now.wall,
            connectors: config
                .connectors
                .iter()
                .map(|one| one.name.to_string())
                .collect(),
            lanes,
            row,
            oldest: self.oldest.clone(),
            in_doubt: self.in_doubt.clone(),
            health: store.health(),
            free: free(config),
            least: config.limits.free_disk,
            silent: self.silent(config, now),
            failed_mail: self.failed_mail.clone(),
            failed_logins: self.failed_logins(),
            tokens: self.tokens.clone(),
            failing: Vec::new(),
            step: self.step,
            window: self.window.clone(),
            cluster: company::read(&config.data_dir, now.wall),
            twice: self.twice,
            quotas: quotas.standing(),
        }
    }

    fn notice(&mut self, noticed: NoticedSince, now: Moment) {
        self.twice += noticed.twice;
        for (route, (count, said)) in noticed.failed_mail {
            let known = self.failed_mail.entry(route).or_default();
            *known = (known.0 + count, said);
        }
        let failed = noticed.failed_logins.into_iter();
        self.logins
            .extend(failed.map(|(address, count)| (now.boot, address, count)));
        self.logins
            .retain(|(at, _, _)| now.boot.saturating_sub(*at) < LOGINS);
        for (connector, fault) in noticed.tokens {
            match fault {
                Some(fault) => drop(self.tokens.insert(connector, fault)),
                None => drop(self.tokens.remove(&connector)),
            }
        }
    }

    fn failed_logins(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (_, address, count) in &self.logins {
            *counts.entry(address.clone()).or_default() += count;
        }
        counts
    }

    /// Whether the clock was set since they were last the same.
    fn compare(&mut self, now: Moment) {
        let seconds = |from: SystemTime, to: SystemTime| match to.duration_since(from) {
            Ok(ahead) => ahead.as_secs() as i64,
            Err(error) => -(error.duration().as_secs() as i64),
        };
        let passed = now.boot.saturating_sub(self.clocks.boot).as_secs() as i64;
        let off = seconds(self.clocks.wall, now.wall) - passed;
        if off.abs() > STEP {
            self.step = Some(self.step.unwrap_or(0) + off);
            self.clocks = now;
        }
    }

    /// Old mail, and mail that is in doubt.
    async fn look_at_mail(&mut self, store: &dyn Store, now: SystemTime) -> Result<(), StoreError> {
        let stats = store.stats().await?;
        let is_old = stats.oldest.is_some_and(|at| since(at, now) > OLD);
        let due = if is_old || stats.in_doubt > 0 {
            store.due(now).await?
        } else {
            Vec::new()
        };
        let mut old = BTreeMap::new();
        if is_old {
            let routes: BTreeSet<&RouteName> = due.iter().map(|due| &due.route).collect();
            for route in routes {
                let filter = Filter {
                    states: vec![JobState::Waiting],
                    route: Some(route.clone()),
                    older: now.checked_sub(OLD),
                    limit: Some(1),
                    ..Filter::default()
                };
                let found = store.list(&filter, now).await?;
                old.extend(
                    found
                        .first()
                        .map(|entry| (route.to_string(), entry.accepted)),
                );
            }
        }
        let pinned = due
            .iter()
            .filter_map(|due| Some((&due.route, due.pinned.as_ref()?)));
        let pinned: BTreeSet<(&RouteName, &ConnectorName)> = pinned.collect();
        let mut in_doubt = BTreeMap::new();
        for (route, connector) in pinned {
            let found = doubtful(store, route, connector, now).await?;
            if let Some(found) = found {
                in_doubt.insert(route.to_string(), found);
            }
        }
        (self.oldest, self.in_doubt) = (old, in_doubt);
        Ok(())
    }

    /// When the clients that are waited for last sent something.
    fn look_at_clients(&mut self, config: &Config, devices: &Devices, now: SystemTime) {
        let expected = &config.incidents.expected;
        self.clients
            .retain(|name, _| expected.iter().any(|(known, _)| known == name));
        for (client, _) in expected {
            // By the networks of now: a client may have another name, or other devices, than when they sent.
            let is_of = |ip| {
                let of = config.policy.client(ip);
                of.is_some_and(|of| of.name == *client)
            };
            let last = devices.last_mail(is_of);
            // One that never sent anything is waited for from now on.
            let known = self.clients.entry(client.clone()).or_insert(now);
            *known = last.unwrap_or(*known);
        }
    }

    fn silent(&self, config: &Config, now: Moment) -> BTreeMap<String, (SystemTime, Duration)> {
        let runs = now.boot.saturating_sub(self.started.boot);
        let expected = config.incidents.expected.iter();
        let silent = expected.filter_map(|(client, every)| {
            let last = *self.clients.get(client)?;
            let is_silent = since(last, now.wall) >= *every && runs >= GRACE.min(*every);
            is_silent.then(|| (client.clone(), (last, *every)))
        });
        silent.collect()
    }
}

/// How many messages of a route are in doubt by a connector for long, and what was said of the oldest.
async fn doubtful(
    store: &dyn Store,
    route: &RouteName,
    connector: &ConnectorName,
    now: SystemTime,
) -> Result<Option<(usize, String)>, StoreError> {
    let filter = Filter {
        states: vec![JobState::Waiting],
        route: Some(route.clone()),
        connector: Some(OfConnector {
            name: connector.clone(),
            routes: Vec::new(),
        }),
        older: now.checked_sub(DOUBT),
        limit: Some(DOUBTFUL),
        ..Filter::default()
    };
    let mut found: Option<(usize, String)> = None;
    for entry in store.list(&filter, now).await? {
        let in_doubt = entry
            .recipients
            .iter()
            .find(|one| one.state == RecipientState::InDoubt);
        let Some(recipient) = in_doubt else { continue };
        let events = store.events(entry.id).await?;
        let first = events.iter().find(|event| event.kind == EventKind::InDoubt);
        if first.is_some_and(|event| since(event.at, now) < DOUBT) {
            continue;
        }
        let said = recipient.last_reply.clone().unwrap_or_default();
        let known = found.get_or_insert((0, said));
        known.0 += 1;
    }
    Ok(found)
}

/// Octets that are free where the queue is.
fn free(config: &Config) -> Option<u64> {
    let disk = rustix::fs::statvfs(&config.data_dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_logins_count_for_five_minutes() {
        let at = |seconds: u64| Moment {
            wall: SystemTime::UNIX_EPOCH,
            boot: Duration::from_secs(1_000 + seconds),
        };
        let mut eyes = Eyes::new(at(0));
        let mut seen = |seconds: u64, count: u64| {
            let failed = [("10.0.0.1".to_owned(), count)];
            let noticed = NoticedSince {
                failed_logins: failed.into_iter().filter(|(_, count)| *count > 0).collect(),
                ..NoticedSince::default()
            };
            eyes.notice(noticed, at(seconds));
            eyes.failed_logins().get("10.0.0.1").copied()
        };
        assert_eq!(seen(0, 15), Some(15));
        assert_eq!(seen(200, 10), Some(25));
        assert_eq!(seen(299, 0), Some(25));
        // The first of them are too long ago.
        assert_eq!(seen(300, 0), Some(10));
        assert_eq!(seen(499, 1), Some(11));
        assert_eq!(seen(500, 0), Some(1));
        assert_eq!(seen(799, 0), None);
    }
}
