//! The gates by lane, what is to be said of them, and how many mailboxes are remembered.
//!
//! The lock around it is held by whoever calls. It waits for nothing and writes nothing.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use super::{
    alarms::{Alarms, News},
    entry::LaneEntry,
    gate::{GateState, LONGEST_WAIT, PAUSE_PROBE},
    others::others,
    probes::ProbeTimes,
    strangers::{ROWS, Strangers},
};
use crate::{
    connector::LaneLimits,
    delivery::plan::Block,
    mail::{outcome::LaneState, reply::Reply},
    queue::store::NodeId,
    route::{ConnectorName, LaneId},
};

/// Mailboxes that are remembered, at most: their number is up to the senders.
const MOST_MAILBOXES: usize = 10_000;
/// Between two looks for mailboxes that are idle, at least: when there are few, and when there are too many.
const TIDY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// What a mailbox waits for a place among those that are remembered.
const CROWDED: Duration = Duration::from_secs(5);
/// Waits after a 429 that names none: at first, at most; each is twice the one before.
const THROTTLED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(15));
/// A mailbox of a connector that gives it no limits of its own.
const UNLIMITED: LaneLimits = LaneLimits {
    concurrent: usize::MAX,
    rate: None,
    upload: None,
};

/// A moment: for waits, and for what people are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// All lanes that are configured or remembered.
#[derive(Debug, Default)]
pub(super) struct LaneTable {
    pub(super) lanes: HashMap<LaneId, LaneEntry>,
    /// How many of them are mailboxes.
    mailboxes: usize,
    /// When those of them that are idle were last dropped.
    tidied: Option<Instant>,
    /// Lanes whose row in the store is behind.
    pub(super) dirty: HashSet<LaneId>,
    /// Which write of each row was seen last, of all gateways and of this one, and the state that it says.
    pub(super) known: HashMap<(LaneId, NodeId), (u64, LaneState)>,
    /// This gateway among others that share the queue; 0: it is alone.
    pub(super) node: NodeId,
    /// Who may ask for mailboxes that nobody knows.
    pub(super) strangers: Strangers,
    /// How much is said of the lanes.
    pub(super) alarms: Alarms,
    /// Connectors whose row for the mailboxes without one was written.
    summed: HashMap<ConnectorName, usize>,
    /// Not yet logged.
    pub(super) news: Vec<(LaneId, News)>,
    /// Mail is due and waits for a permit: whoever gives one back wakes the loop.
    pub(super) wants_work: bool,
}

impl LaneTable {
    /// Of a connector.
    pub(super) fn limit(
        &mut self,
        lane: LaneId,
        per_connector: LaneLimits,
        per_mailbox: Option<LaneLimits>,
        probe_times: ProbeTimes,
        now: Instant,
    ) {
        let entry = self
            .lanes
            .entry(lane)
            .or_insert_with(|| LaneEntry::new(per_connector));
        entry.set_limits(per_connector);
        entry.per_mailbox = per_mailbox;
        // A wait under way is no longer than one that would begin now, unless it was asked for.
        let by = now + probe_times.wait(entry.gate.closings().saturating_sub(1), 1.0);
        entry.gate.probe_by(entry.asked.unwrap_or(by).max(by));
        entry.probe_times = probe_times;
    }

    /// Once every connector has its limits: those of their mailboxes, and what is no longer named is forgotten.
    pub(super) fn limited(&mut self, named: &HashSet<ConnectorName>, now: Instant) {
        self.strangers.forgive();
        let per_mailbox: HashMap<ConnectorName, LaneLimits> = self
            .lanes
            .iter()
            .filter_map(|(lane, entry)| Some((lane.connector.clone(), entry.per_mailbox?)))
            .collect();
        for (lane, entry) in &mut self.lanes {
            if !named.contains(&lane.connector) && (entry.gate.open() || entry.is_held) {
                // Its row must not say `paused` for ever.
                entry.is_held = false;
                self.dirty.insert(lane.clone());
            }
            if lane.mailbox.is_some() {
                let limits = per_mailbox.get(&lane.connector).copied();
                let limits = limits.filter(|_| lane.from.is_none());
                entry.set_limits(limits.unwrap_or(UNLIMITED));
                entry.facts.is_mailbox = limits.is_some();
            }
            if lane.mailbox.is_some() || matches!(entry.gate.state(), GateState::Paused { .. }) {
                entry.gate.probe_now(now);
            }
        }
        // One that was stopped is so, too, when it is named again.
        self.lanes.retain(|lane, entry| {
            named.contains(&lane.connector)
                || entry.gate.taken() > 0
                || entry.gate.state() == GateState::Stopped
        });
        self.mailboxes = self.lanes.keys().filter(|l| l.mailbox.is_some()).count();
    }

    /// How many mailboxes, and Froms in them, are remembered.
    pub(super) fn mailboxes(&self) -> usize {
        self.mailboxes
    }

    /// The limits of each mailbox of a connector, where it has several.
    pub(super) fn per_mailbox(&self, connector: &ConnectorName) -> Option<LaneLimits> {
        self.lanes.get(&LaneId::of(connector))?.per_mailbox
    }

    /// The lane of a mailbox, if anything is to be counted or remembered for it.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn mailbox(
        &mut self,
        lane: &LaneId,
        now: Instant,
    ) -> Result<Option<&mut LaneEntry>, Block> {
        if !self.lanes.contains_key(lane) {
            if lane.mailbox.is_none() || lane.from.is_some() {
                return Ok(None);
            }
            let Some(limits) = self.per_mailbox(&lane.connector) else {
                return Ok(None);
            };
            if !self.add(lane, limits, now) {
                return Err(Block::Crowded(CROWDED));
            }
        }
        Ok(self.lanes.get_mut(lane))
    }

    /// Makes a mailbox known that is to be remembered in any case; says whether there was space for it.
    pub(super) fn add_mailbox(&mut self, lane: &LaneId, now: Instant) -> bool {
        let limits = self.per_mailbox(&lane.connector);
        let limits = limits.filter(|_| lane.from.is_none());
        let limits = limits.unwrap_or(UNLIMITED);
        self.lanes.contains_key(lane) || self.add(lane, limits, now)
    }

    fn add(&mut self, lane: &LaneId, limits: LaneLimits, now: Instant) -> bool {
        if self.mailboxes >= MOST_MAILBOXES {
            self.tidy(now, TIDY.1);
        }
        if self.mailboxes >= MOST_MAILBOXES {
            // What is remembered of one that was refused longest ago, its next message finds out again.
            let oldest = self
                .lanes
                .iter()
                .filter(|(lane, entry)| lane.mailbox.is_some() && entry.is_refused())
                .min_by_key(|(_, entry)| entry.since)
                .map(|(lane, _)| lane.clone());
            let Some(oldest) = oldest else {
                return false;
            };
            self.forget(&oldest);
            self.dirty.insert(oldest);
        }
        self.mailboxes += 1;
        let mut entry = LaneEntry::new(limits);
        entry.facts.is_mailbox = lane.from.is_none() && self.per_mailbox(&lane.connector).is_some();
        self.lanes.insert(lane.clone(), entry);
        true
    }

    fn forget(&mut self, lane: &LaneId) {
        if self.lanes.remove(lane).is_some() {
            self.mailboxes = self.mailboxes.saturating_sub(1);
        }
    }

    /// Drops the mailboxes of which a new entry would say the same, unless that was done a moment ago.
    fn tidy(&mut self, now: Instant, every: Duration) {
        if self.tidied.is_some_and(|at| now < at + every) {
            return;
        }
        self.tidied = Some(now);
        let Self {
            lanes,
            mailboxes,
            dirty,
            news,
            ..
        } = self;
        lanes.retain(|lane, entry| {
            if lane.mailbox.is_none() || !entry.gate.is_idle(now) {
                return true;
            }
            if entry.is_held {
                dirty.insert(lane.clone());
            }
            if entry.is_wait_logged {
                news.push((lane.clone(), News::Resumed));
            }
            *mailboxes = mailboxes.saturating_sub(1);
            false
        });
    }

    /// What time alone changes.
    pub(super) fn pass_time(&mut self, now: Instant) {
        for (lane, entry) in &mut self.lanes {
            if entry.is_held && entry.gate.held(now).is_none() {
                entry.is_held = false;
                self.dirty.insert(lane.clone());
            }
        }
        self.tidy(now, TIDY.0);
        for (connector, alarm, count) in self.alarms.left_out(now) {
            let news = News::More(alarm, count);
            self.news.push((LaneId::of(&connector), news));
        }
        self.sum();
    }

    /// The row of a connector for those of its refused mailboxes that have none is written anew when their number changed.
    fn sum(&mut self) {
        if self.mailboxes <= ROWS && self.summed.is_empty() {
            return;
        }
        let mut counts: HashMap<ConnectorName, usize> = HashMap::new();
        for (lane, _) in self.lanes.iter().filter(|(_, entry)| entry.unlisted) {
            *counts.entry(lane.connector.clone()).or_default() += 1;
        }
        let changed = |name: &&ConnectorName| counts.get(*name) != self.summed.get(*name);
        let names: Vec<&ConnectorName> = counts.keys().chain(self.summed.keys()).collect();
        let rows = names.into_iter().filter(changed).map(others);
        self.dirty.extend(rows.collect::<Vec<_>>());
        self.summed = counts;
    }

    /// How many mailboxes that lane, the one of [`others`], stands for.
    pub(super) fn summed(&self, lane: &LaneId) -> Option<usize> {
        let count = self.summed.get(&lane.connector).copied();
        count.filter(|_| *lane == others(&lane.connector))
    }

    /// The upstream is down, and wants nothing for `asked` at least. `jitter` is in 0..1.
    pub(super) fn close(
        &mut self,
        lane: &LaneId,
        reply: &Reply,
        asked: Duration,
        probe: bool,
        jitter: f64,
        now: Stamp,
    ) {
        let Some(entry) = self.lanes.get_mut(lane) else {
            return;
        };
        let wait = entry.probe_times.wait(entry.gate.closings(), jitter);
        if entry.gate.close(now.instant, wait.max(asked), probe) {
            entry.is_vain |= probe;
            entry.asked = Some(now.instant + asked.min(LONGEST_WAIT));
            let news = entry.shut(LaneState::Closed, reply, now.wall);
            self.changed(lane, news);
        }
    }

    /// Our fault.
    pub(super) fn pause(&mut self, lane: &LaneId, reply: &Reply, now: Stamp) {
        if let Some(entry) = self.lanes.get_mut(lane)
            && entry.gate.pause(now.instant + PAUSE_PROBE)
        {
            let news = entry.shut(LaneState::Paused, reply, now.wall);
            self.changed(lane, news);
        }
    }

    /// Somebody has stopped a connector, whether it is named or not.
    pub(super) fn stop(&mut self, lane: &LaneId, reply: &Reply, since: SystemTime) {
        let entry = self
            .lanes
            .entry(lane.clone())
            .or_insert_with(|| LaneEntry::new(UNLIMITED));
        if entry.gate.stop() {
            (entry.is_held, entry.is_wait_logged) = (false, false);
            let news = entry.shut(LaneState::Stopped, reply, since);
            self.news.push((lane.clone(), news));
        }
    }

    /// Somebody has started it again.
    pub(super) fn start_again(&mut self, lane: &LaneId) {
        let is_news = |entry: &mut LaneEntry| entry.gate.start_again();
        if self.lanes.get_mut(lane).is_some_and(is_news) {
            self.news.push((lane.clone(), News::Resumed));
        }
    }

    /// The upstream refuses this mailbox.
    pub(super) fn refuse(&mut self, lane: &LaneId, reply: &Reply, now: Stamp) {
        self.strangers.refused(lane, now.instant);
        self.shut_sender(lane, reply, now);
    }

    fn shut_sender(&mut self, lane: &LaneId, reply: &Reply, now: Stamp) {
        if !self.add_mailbox(lane, now.instant) {
            return;
        }
        if let Some(entry) = self.lanes.get_mut(lane) {
            let is_news = !entry.gate.open();
            entry.gate.close(now.instant, PAUSE_PROBE, true);
            let news = is_news.then(|| entry.shut(LaneState::Paused, reply, now.wall));
            match news {
                Some(news) => {
                    let is_one_of = |(other, _): &(&LaneId, &LaneEntry)| {
                        other.connector == lane.connector && other.mailbox.is_some()
                    };
                    let others = self.lanes.iter().filter(is_one_of);
                    let shut = others.filter(|(_, entry)| entry.is_refused_or_asked());
                    // It is among them.
                    let is_many = shut.count() > ROWS;
                    if let Some(entry) = self.lanes.get_mut(lane) {
                        entry.unlisted = is_many;
                    }
                    self.changed(lane, news);
                }
                None => {
                    self.dirty.insert(lane.clone());
                }
            }
        }
    }

    /// The upstream refuses this mailbox to a message with the From of the lane. It may be for the From (Exchange has more than one
    /// code for that), so both are shut; where other mail has opened the mailbox since this From was refused, it is the From.
    pub(super) fn refuse_mailbox(&mut self, lane: &LaneId, reply: &Reply, now: Stamp) {
        // One try, though it may shut two lanes.
        self.strangers.refused(lane, now.instant);
        let mailbox = lane.of_mailbox();
        if lane.from.is_some() {
            let is_old = self.is_shut(lane) && !self.is_shut(&mailbox);
            self.shut_sender(lane, reply, now);
            if is_old {
                return;
            }
        }
        self.shut_sender(&mailbox, reply, now);
    }

    /// Whether mail of that lane may ask at all.
    ///
    /// # Errors
    /// Too many were refused that nobody knows. One that is refused itself waits as such, any other as if there were no place for it.
    pub(super) fn stranger(&mut self, lane: &LaneId, now: Instant) -> Result<(), Block> {
        let Err(wait) = self.strangers.may_ask(lane, now) else {
            return Ok(());
        };
        let mailbox = lane.of_mailbox();
        let refused = self.refused(lane, &mailbox).cloned();
        let block = refused.and_then(|lane| Some(self.lanes.get_mut(&lane)?.block(&lane, now)));
        Err(block.unwrap_or(Block::Crowded(wait)))
    }

    /// Refused, and not opened since.
    pub(super) fn is_shut(&self, lane: &LaneId) -> bool {
        let gate = self.lanes.get(lane).map(|entry| entry.gate.state());
        matches!(gate, Some(GateState::Closed { .. }))
    }

    /// The lane among those of a message that is refused, the narrowest first.
    pub(super) fn refused<'a>(&self, lane: &'a LaneId, mailbox: &'a LaneId) -> Option<&'a LaneId> {
        let shut = |lane: &&LaneId| lane.mailbox.is_some() && self.is_shut(lane);
        [lane, mailbox].into_iter().find(shut)
    }

    /// The upstream answers there.
    pub(super) fn open(&mut self, lane: &LaneId, now: Instant) {
        let Some(entry) = self.lanes.get_mut(lane) else {
            return;
        };
        entry.gate.took_mail();
        entry.unlisted = false;
        // A pause ends with a login of its own, not because an old connection still works.
        let resumed = matches!(entry.gate.state(), GateState::Closed { .. }) && entry.gate.open();
        let over = entry.is_wait_logged && entry.gate.held(now).is_none();
        entry.is_wait_logged &= !over;
        if resumed || over {
            self.changed(lane, News::Resumed);
        }
        let is_counted = lane.from.is_none() && self.per_mailbox(&lane.connector).is_some();
        if resumed && lane.mailbox.is_some() && !is_counted {
            self.forget(lane);
        }
    }

    /// The upstream wants nothing before the wait is over; `None`: it did not say how long. `refused`: it took nothing either.
    pub(super) fn hold(
        &mut self,
        lane: &LaneId,
        reply: &Reply,
        wait: Option<Duration>,
        refused: bool,
        Stamp { instant: now, wall }: Stamp,
    ) {
        let Some(entry) = self.lanes.get_mut(lane) else {
            return;
        };
        if entry.gate.state() == GateState::Stopped {
            return;
        }
        let number = u32::try_from(entry.gate.throttlings()).unwrap_or(u32::MAX);
        let growing = THROTTLED.0 * 2_u32.saturating_pow(number.min(16));
        let wait = wait.unwrap_or(growing.min(THROTTLED.1));
        let before = entry.gate.held(now);
        if refused {
            entry.gate.throttle(now, wait);
        } else {
            entry.gate.hold(now, wait);
        }
        let until = entry.gate.held(now);
        if until == before {
            return;
        }
        if !entry.is_held {
            entry.since = Some(wall);
        }
        entry.is_held = true;
        entry.why = Some(reply.clone());
        if entry.is_wait_logged {
            self.dirty.insert(lane.clone());
        } else {
            entry.is_wait_logged = true;
            self.changed(lane, News::Throttled(wait, reply.clone()));
        }
    }

    fn changed(&mut self, lane: &LaneId, news: News) {
        self.dirty.insert(lane.clone());
        self.news.push((lane.clone(), news));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(instant: Instant) -> Stamp {
        let wall = SystemTime::UNIX_EPOCH;
        Stamp { instant, wall }
    }

    fn lane(mailbox: &str) -> LaneId {
        LaneId {
            connector: "up".into(),
            mailbox: Some(mailbox.into()),
            from: None,
        }
    }

    fn table() -> LaneTable {
        let mut table = LaneTable::default();
        let each = LaneLimits {
            concurrent: 4,
            rate: Some(crate::connector::Rate {
                count: 30,
                per: SECOND * 60,
            }),
            upload: None,
        };
        table.limit(
            LaneId::of(&"up".into()),
            UNLIMITED,
            Some(each),
            ProbeTimes::default(),
            Instant::now(),
        );
        table
    }

    #[test]
    fn idle_mailboxes_are_forgotten() {
        let (mut table, now) = (table(), Instant::now());
        for n in 0..100 {
            let entry = table.mailbox(&lane(&n.to_string()), now).unwrap().unwrap();
            assert_eq!(entry.gate.take(now), Some(false));
            assert!(entry.gate.start(now, 1));
        }
        table.pass_time(now + SECOND * 100);
        assert_eq!(table.mailboxes, 100, "under way");
        for n in 0..100 {
            let entry = table.lanes.get_mut(&lane(&n.to_string())).unwrap();
            entry.gate.give(Some(1), false, now + SECOND * 100);
        }
        table.pass_time(now + SECOND * 120);
        assert_eq!(table.mailboxes, 100, "counted for a minute");
        table.pass_time(now + SECOND * 161);
        assert_eq!((table.mailboxes, table.lanes.len()), (0, 1));
        assert!(table.dirty.is_empty() && table.news.is_empty());
    }

    #[test]
    fn there_are_never_too_many() {
        let (mut table, now) = (table(), Instant::now());
        let reply = Reply::new(550, (5, 7, 60), "no");
        for n in 0..MOST_MAILBOXES {
            if n % 20 == 0 {
                let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(n as u64);
                let now = Stamp { instant: now, wall };
                table.refuse(&lane(&n.to_string()), &reply, now);
            } else {
                let entry = table.mailbox(&lane(&n.to_string()), now).unwrap().unwrap();
                assert!(entry.gate.take(now).is_some());
            }
        }
        table.dirty.clear();
        // Those that were refused make room for others, the oldest first; those with work under way do not.
        for n in 0..MOST_MAILBOXES / 20 {
            let entry = table.mailbox(&lane(&format!("new{n}")), now);
            assert!(entry.unwrap().unwrap().gate.take(now).is_some());
            assert_eq!(table.mailboxes, MOST_MAILBOXES);
            if n == 0 {
                assert!(table.dirty.contains(&lane("0")), "its row goes too");
            }
        }
        let one_more = table.mailbox(&lane("more"), now).map(|_| ());
        assert_eq!(one_more, Err(Block::Crowded(CROWDED)));
        assert_eq!(table.lanes.len(), MOST_MAILBOXES + 1);
        assert!(table.mailbox(&lane("1"), now).unwrap().is_some());
    }

    /// A refusal of the mailbox to a foreign From shuts both; where other mail has opened the mailbox since, the From alone.
    #[test]
    fn a_foreign_from_does_not_shut_the_mailbox_twice() {
        let (mut table, now) = (LaneTable::default(), Instant::now());
        table.limit(
            LaneId::of(&"up".into()),
            UNLIMITED,
            None,
            ProbeTimes::default(),
            Instant::now(),
        );
        let reply = Reply::new(550, (5, 7, 60), "no");
        let mailbox = lane("m");
        let foreign = LaneId {
            from: Some("f".into()),
            ..mailbox.clone()
        };
        table.refuse_mailbox(&foreign, &reply, at(now));
        assert!(table.is_shut(&foreign) && table.is_shut(&mailbox));
        assert_eq!(table.refused(&foreign, &mailbox), Some(&foreign));
        table.open(&mailbox, now);
        assert!(table.is_shut(&foreign) && !table.is_shut(&mailbox));
        table.refuse_mailbox(&foreign, &reply, at(now));
        assert!(table.is_shut(&foreign) && !table.is_shut(&mailbox));
        table.open(&foreign, now);
        assert_eq!(table.lanes.len(), 1, "forgotten once they are open");
    }

    #[test]
    fn a_row_of_refusals_is_one_piece_of_news() {
        let (mut table, now) = (table(), Instant::now());
        let (lane, reply) = (lane("m"), Reply::new(451, (4, 3, 2), "too much"));
        table.mailbox(&lane, now).unwrap();
        let waits: Vec<u64> = (0..14)
            .map(|_| {
                let now = Instant::now();
                table.hold(&lane, &reply, None, true, at(now));
                let entry = table.lanes.get_mut(&lane).unwrap();
                let at = entry.gate.held(now).unwrap();
                // As if the time had passed.
                let wait = at.duration_since(now).as_secs_f64().round() as u64;
                entry.gate.release();
                wait
            })
            .collect();
        assert_eq!(
            waits,
            [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900, 900]
        );
        assert_eq!(table.news.len(), 1, "{:?}", table.news);
        table.open(&lane, now);
        assert!(matches!(table.news[1].1, News::Resumed));
        table.open(&lane, now);
        assert_eq!(table.news.len(), 2);
        table.hold(&lane, &reply, None, true, at(now));
        let until = table.lanes[&lane].gate.held(now).unwrap();
        assert!(until < now + SECOND * 3, "from the beginning");
        table.hold(&lane, &reply, Some(SECOND * 9), false, at(now));
        table.open(&lane, now);
        assert_eq!(table.news.len(), 3, "still waiting");
    }
}
