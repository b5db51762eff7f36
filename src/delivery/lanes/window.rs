//! What was used of a limit of late: a window that moves with the time, and how it is told to somebody else.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Entries of a window from which on neighbours become one, so that no rate takes much memory.
const FINE: usize = 256;

impl UsedWindows {
    /// In which one holder tells the next; where nothing was used, in as few words as can be.
    pub fn written(&self) -> String {
        if self.messages.is_empty() && self.octets.is_empty() {
            return "{}".to_owned();
        }
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How many milliseconds ago the first and the last of some ended, and how much they were.
pub(super) type UsedEntry = (u64, u64, u64);

/// The windows of a lane, as of a moment: the words in which one holder tells the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsedWindows {
    /// Messages.
    pub messages: Vec<(u64, u64, u64)>,
    /// Octets.
    pub octets: Vec<(u64, u64, u64)>,
}

/// How much of something there was: what is under way, and what ended less than a window ago.
#[derive(Debug, Default)]
pub(super) struct Window {
    under_way: u64,
    /// First and last end, and how much; oldest first.
    ended: VecDeque<(Instant, Instant, u64)>,
    sum: u64,
}

impl Window {
    /// How long ago each end was.
    pub(super) fn used(&self, now: Instant) -> Vec<UsedEntry> {
        let ago = |at: Instant| {
            let ago = now.saturating_duration_since(at).as_millis();
            u64::try_from(ago).unwrap_or(u64::MAX)
        };
        let entries = self.ended.iter();
        let used = entries.map(|(first, last, amount)| (ago(*first), ago(*last), *amount));
        used.collect()
    }

    /// What ended so long ago goes before what ended here. A time before all that this clock knows is taken for now.
    pub(super) fn inherit(&mut self, used: &[UsedEntry], now: Instant) {
        let at = |ago: u64| {
            let at = now.checked_sub(Duration::from_millis(ago));
            at.unwrap_or(now)
        };
        for (first, last, amount) in used {
            self.sum = self.sum.saturating_add(*amount);
            self.ended.push_back((at(*first), at(*last), *amount));
        }
        self.ended
            .make_contiguous()
            .sort_by_key(|(_, last, _)| *last);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way == 0 && self.ended.is_empty()
    }

    /// Whether it takes no more memory than it may.
    #[cfg(test)]
    pub(super) fn is_short(&self) -> bool {
        self.ended.len() <= 2 * FINE + 1
    }

    pub(super) fn begin(&mut self, amount: u64) {
        self.under_way = self.under_way.saturating_add(amount);
    }

    pub(super) fn end(&mut self, amount: u64, per: Option<Duration>, now: Instant) {
        self.under_way = self.under_way.saturating_sub(amount);
        let (Some(per), 1..) = (per, amount) else {
            return;
        };
        self.sum = self.sum.saturating_add(amount);
        let many = self.ended.len() >= FINE;
        match self.ended.back_mut() {
            // Together they count until the last of them is over.
            Some((first, last, sum))
                if many && now.saturating_duration_since(*first) < per / FINE as u32 =>
            {
                *last = now;
                *sum = sum.saturating_add(amount);
            }
            _ => self.ended.push_back((now, now, amount)),
        }
    }

    pub(super) fn expire(&mut self, per: Option<Duration>, now: Instant) {
        while let Some((_, last, amount)) = self.ended.front()
            && per.is_none_or(|per| now.saturating_duration_since(*last) >= per)
        {
            self.sum = self.sum.saturating_sub(*amount);
            self.ended.pop_front();
        }
    }

    /// What may begin now.
    pub(super) fn space(&self, most: u64) -> u64 {
        most.saturating_sub(self.under_way.saturating_add(self.sum))
    }

    /// When there will be space for `needed`, if nothing that is under way stands against it.
    pub(super) fn frees(&self, needed: u64, most: u64, per: Duration) -> Option<Instant> {
        let mut used = self.under_way.saturating_add(self.sum);
        let allowed = most.saturating_sub(needed);
        self.ended
            .iter()
            .find(|(_, _, amount)| {
                used = used.saturating_sub(*amount);
                used <= allowed
            })
            .map(|(_, last, _)| *last + per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{LaneLimits, Rate},
        delivery::lanes::gate::{Gate, Ready},
    };

    #[test]
    fn the_next_holder_of_a_lane_knows_what_was_used_of_it() {
        let minute = Duration::from_mins(1);
        let limits = LaneLimits {
            concurrent: 2,
            rate: Some(Rate {
                count: 2,
                per: minute,
            }),
            upload: None,
        };
        let start = Instant::now();
        let mut gate = Gate::new(limits);
        for after in [0, 20] {
            let now = start + Duration::from_secs(after);
            assert_eq!(gate.take(now), Some(false));
            assert!(gate.start(now, 7));
            assert_eq!(gate.used(now), None, "it is under way");
            gate.give(Some(7), false, now);
        }
        let now = start + Duration::from_secs(30);
        let used = gate.used(now).unwrap();
        assert_eq!(used.messages, [(30_000, 30_000, 1), (10_000, 10_000, 1)]);
        let text = serde_json::to_string(&used).unwrap();
        // Where another clock runs, it is as long ago.
        let here = now + minute * 60;
        let mut next = Gate::new(limits);
        next.inherit(&serde_json::from_str(&text).unwrap(), here);
        let free = here + Duration::from_secs(30);
        assert_eq!(next.ready(here), Ready::At(free));
        assert_eq!(next.ready(free), Ready::Now(1));
    }
}
