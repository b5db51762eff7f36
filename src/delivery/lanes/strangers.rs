//! How often a connector may be asked for mailboxes that it does not know, and how much is said of those that it refuses.
//!
//! The number of mailboxes is up to the senders: whoever invents ten thousand must not make as many requests, log lines and rows. It is arithmetic over times given as arguments. It does not know which mailbox is refused, only which took mail.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{route::ConnectorName, route::LaneId};

/// Refusals of mailboxes in [`WINDOW`], for each connector; then those that never took mail wait.
const REFUSALS: usize = 30;
const WINDOW: Duration = Duration::from_mins(1);
/// The longest wait of one that was turned away.
const LONGEST: Duration = Duration::from_mins(15);
/// Mailboxes that took mail and are remembered for it, of each connector.
const KNOWN: usize = 10_000;
/// Lines of the log in [`INTERVAL`], for each connector; the others are counted.
const LINES: usize = 20;
const INTERVAL: Duration = Duration::from_mins(10);
/// Rows that say which mailboxes are refused, for each connector; the others are counted.
pub(super) const ROWS: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    of: HashMap<ConnectorName, Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    recent: VecDeque<Instant>,
    known: HashSet<LaneId>,
    /// Turned away since.
    turned: Option<(Instant, usize)>,
    /// Lines since, and what was left out.
    lines: Option<(Instant, usize, usize)>,
}

impl Strangers {
    /// Whether mail of that lane may ask; else how long it had better wait.
    ///
    /// # Errors
    /// Too many were refused, and this one never took mail.
    pub(super) fn may_ask(&mut self, lane: &LaneId, now: Instant) -> Result<(), Duration> {
        let Some(refusals) = self.of.get_mut(&lane.connector) else {
            return Ok(());
        };
        let Some(free) = refusals.full_until(now) else {
            return Ok(());
        };
        if refusals.known.contains(lane) {
            return Ok(());
        }
        let (since, count) = refusals.turned.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        // So many windows are used up by those before it.
        let windows = u32::try_from(*count / REFUSALS).unwrap_or(u32::MAX);
        let wait = free.saturating_duration_since(now) + WINDOW.saturating_mul(windows);
        Err(wait.min(LONGEST))
    }

    /// As [`Strangers::may_ask`], for whoever only looks: from when on.
    pub(super) fn not_before(&mut self, lane: &LaneId, now: Instant) -> Option<Instant> {
        let refusals = self.of.get_mut(&lane.connector)?;
        let free = refusals.full_until(now)?;
        (!refusals.known.contains(lane)).then_some(free)
    }

    /// It took mail.
    pub(super) fn took(&mut self, lane: &LaneId) {
        let refusals = self.of.entry(lane.connector.clone()).or_default();
        if !refusals.known.contains(lane) {
            if refusals.known.len() >= KNOWN {
                refusals.known.clear();
            }
            refusals.known.insert(lane.clone());
        }
    }

    /// It was refused.
    pub(super) fn refused(&mut self, connector: &ConnectorName, now: Instant) {
        let refusals = self.of.entry(connector.clone()).or_default();
        refusals.recent.push_back(now);
        while refusals.recent.len() > REFUSALS {
            refusals.recent.pop_front();
        }
    }

    /// An administrator may have mended it: all may ask.
    pub(super) fn forgive(&mut self) {
        for refusals in self.of.values_mut() {
            refusals.recent.clear();
            refusals.turned = None;
        }
    }

    /// Whether a mailbox of the connector gets a line of its own in the log.
    pub(super) fn has_line(&mut self, connector: &ConnectorName, now: Instant) -> bool {
        let refusals = self.of.entry(connector.clone()).or_default();
        let (_, lines, left_out) = refusals.lines.get_or_insert((now, 0, 0));
        let has = *lines < LINES;
        *lines += usize::from(has);
        *left_out += usize::from(!has);
        has
    }

    /// What was left out, once the interval is over.
    pub(super) fn left_out(&mut self, now: Instant) -> Vec<(ConnectorName, usize)> {
        let mut out = Vec::new();
        for (connector, refusals) in &mut self.of {
            if let Some((since, _, count)) = refusals.lines
                && now.saturating_duration_since(since) >= INTERVAL
            {
                refusals.lines = None;
                if count > 0 {
                    out.push((connector.clone(), count));
                }
            }
        }
        out
    }
}

impl Refusals {
    /// Until when only those that took mail before may ask; `None`: everybody may.
    fn full_until(&mut self, now: Instant) -> Option<Instant> {
        let is_over = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
        while self.recent.front().is_some_and(is_over) {
            self.recent.pop_front();
        }
        let oldest = self
            .recent
            .front()
            .filter(|_| self.recent.len() >= REFUSALS)?;
        Some(*oldest + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(n: usize) -> LaneId {
        LaneId {
            connector: "up".into(),
            mailbox: Some(n.to_string().into()),
            from: None,
        }
    }

    #[test]
    fn ten_thousand_invented_mailboxes_ask_thirty_times_a_minute() {
        let mut strangers = Strangers::default();
        let (start, up) = (Instant::now(), ConnectorName::from("up"));
        strangers.took(&lane(0));
        // Each waits as long as it is told; once asked, it is refused.
        let mut due: Vec<(Duration, usize)> = (1..=10_000).map(|n| (Duration::ZERO, n)).collect();
        let mut asked: Vec<Duration> = Vec::new();
        let mut looks = 0_usize;
        for second in 0..3_600 {
            let at = SECOND * second;
            let now = start + at;
            assert_eq!(strangers.may_ask(&lane(0), now), Ok(()), "a real one");
            let mut later = Vec::new();
            for (when, n) in due {
                if when > at {
                    later.push((when, n));
                    continue;
                }
                looks += 1;
                match strangers.may_ask(&lane(n), now) {
                    Ok(()) => {
                        asked.push(at);
                        strangers.refused(&up, now);
                    }
                    Err(wait) => {
                        assert!(wait > Duration::ZERO && wait <= LONGEST);
                        later.push((at + wait, n));
                    }
                }
            }
            due = later;
        }
        for at in &asked {
            let window = asked.iter().filter(|a| **a >= *at && **a < *at + WINDOW);
            assert!(window.count() <= REFUSALS);
        }
        assert!(asked.len() >= 900, "{} in an hour", asked.len());
        assert!(looks < 100_000, "{looks} looks");
        strangers.forgive();
        assert_eq!(strangers.may_ask(&lane(1), start + SECOND * 3_600), Ok(()));
    }

    #[test]
    fn few_lines_and_a_count_of_the_others() {
        let mut strangers = Strangers::default();
        let (now, up) = (Instant::now(), ConnectorName::from("up"));
        let lines = (0..10_000).filter(|_| strangers.has_line(&up, now)).count();
        assert_eq!(lines, LINES);
        assert!(strangers.left_out(now + INTERVAL / 2).is_empty());
        assert_eq!(strangers.left_out(now + INTERVAL), [(up.clone(), 9_980)]);
        assert!(strangers.has_line(&up, now + INTERVAL));
        assert!(strangers.left_out(now + INTERVAL * 2).is_empty());
    }
}
