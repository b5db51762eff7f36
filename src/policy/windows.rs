//! How the window of a quota slides: arithmetic over times that are said by whoever asks, on a clock that nobody sets.
//!
//! A window is kept in parts, and of a quota so many keys, so that no number of senders takes much memory. Who asks, and under which lock,
//! is `ledger`'s affair.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::quota::{CountedBy, Quota};

/// Keys that are counted of a quota.
pub(super) const KEYS: usize = 10_000;
/// Parts of a window: what is counted within one of them is forgotten together, never too early.
pub(super) const PARTS: u64 = 60;
/// Parts that are noted of a window.
const NOTED_PARTS: usize = 12;

/// What is noted of a part: how many milliseconds ago the first and the last of it were, and how much it was.
pub(super) type NotedPart = (u64, u64, u32);

/// Some that were counted within a part of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowPart {
    /// When the first of them was, in milliseconds of the clock that nobody sets; and how much later the last.
    first: u64,
    lasts: u32,
    count: u32,
}

impl WindowPart {
    pub(super) fn last(self) -> u64 {
        self.first.saturating_add(self.lasts.into())
    }
}

/// What was counted of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct SlidingWindow {
    pub(super) parts: VecDeque<WindowPart>,
    /// When something was last counted.
    touched: u64,
}

impl SlidingWindow {
    /// What counts still.
    pub(super) fn used(&mut self, now: u64, length: u64) -> u32 {
        while let Some(part) = self.parts.front()
            && now.saturating_sub(part.last()) >= length
        {
            self.parts.pop_front();
        }
        let sum: u64 = self.parts.iter().map(|part| u64::from(part.count)).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    pub(super) fn count(&mut self, count: u32, now: u64, length: u64) {
        self.used(now, length);
        self.touched = self.touched.max(now);
        let width = (length / PARTS).max(1);
        if let Some(part) = self.parts.back_mut() {
            // Somebody else may have asked for the time a moment later.
            let now = now.max(part.last());
            let lasts = now.saturating_sub(part.first);
            if lasts < width {
                part.lasts = u32::try_from(lasts).unwrap_or(u32::MAX);
                part.count = part.count.saturating_add(count);
                return;
            }
        }
        self.parts.push_back(WindowPart {
            first: now,
            lasts: 0,
            count,
        });
    }
}

/// The windows of one quota.
#[derive(Debug)]
pub(super) struct QuotaWindows {
    pub(super) per: CountedBy,
    pub(super) most: u32,
    /// Milliseconds.
    pub(super) length: u64,
    pub(super) keys: HashMap<String, SlidingWindow>,
    /// Keys that were asked for more than they have, and may have no room yet.
    pub(super) overrun: BTreeSet<String>,
    pub(super) counted: u64,
    pub(super) beyond: u64,
    pub(super) forgotten: u64,
}

impl QuotaWindows {
    pub(super) fn new(quota: &Quota) -> Self {
        Self {
            per: quota.per,
            most: quota.most,
            length: millis(quota.window),
            keys: HashMap::new(),
            overrun: BTreeSet::new(),
            counted: 0,
            beyond: 0,
            forgotten: 0,
        }
    }

    /// Room for one more key: what counts no more goes, else a tenth of all, those that were not counted for the longest time.
    pub(super) fn make_room(&mut self, now: u64) {
        if self.keys.len() < KEYS {
            return;
        }
        let length = self.length;
        self.keys.retain(|_, window| window.used(now, length) > 0);
        if self.keys.len() >= KEYS {
            let before = self.keys.len();
            let mut touched: Vec<u64> = self.keys.values().map(|window| window.touched).collect();
            let at = touched.len() / 10;
            let (_, limit, _) = touched.select_nth_unstable(at);
            let (limit, mut left) = (*limit, at + 1);
            // Of those that were counted at the same time only so many.
            self.keys.retain(|_, window| {
                let goes = left > 0 && window.touched <= limit;
                left -= usize::from(goes);
                !goes
            });
            self.forgotten += (before - self.keys.len()) as u64;
        }
        let keys = &self.keys;
        self.overrun.retain(|key| keys.contains_key(key));
    }

    pub(super) fn used(&mut self, key: &str, now: u64) -> u32 {
        let length = self.length;
        let window = self.keys.get_mut(key);
        window.map_or(0, |window| window.used(now, length))
    }

    pub(super) fn count(&mut self, key: &str, count: u32, now: u64) {
        if !self.keys.contains_key(key) {
            self.make_room(now);
            self.keys.insert(key.to_owned(), SlidingWindow::default());
        }
        if let Some(window) = self.keys.get_mut(key) {
            window.count(count, now, self.length);
        }
    }

    /// Keys that have no room, with what they have used.
    pub(super) fn full(&mut self, now: u64) -> Vec<(String, u32)> {
        let overrun = std::mem::take(&mut self.overrun);
        let mut full = Vec::new();
        for key in overrun {
            let used = self.used(&key, now);
            if used >= self.most {
                full.push((key.clone(), used));
                self.overrun.insert(key);
            }
        }
        full
    }
}

impl QuotaWindows {
    pub(super) fn recall(&mut self, key: &str, parts: &[NotedPart], ago: u64, now: u64) {
        let since = |past: u64| past.saturating_add(ago);
        let mut found: Vec<WindowPart> = parts
            .iter()
            .take(PARTS as usize + 2)
            .filter(|(_, last, _)| since(*last) < self.length)
            .map(|(first, last, count)| {
                // A clock that begins with the machine has no time before that: then it is the beginning, and counts a little longer.
                let last = now.saturating_sub(since(*last));
                let first = now.saturating_sub(since(*first)).min(last);
                WindowPart {
                    first,
                    lasts: u32::try_from(last - first).unwrap_or(u32::MAX),
                    count: *count,
                }
            })
            .collect();
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|part| part.last());
        self.make_room(now);
        let window = self.keys.entry(key.to_owned()).or_default();
        window.touched = window
            .touched
            .max(found.last().map_or(0, |part| part.last()));
        found.extend(window.parts.drain(..));
        window.parts = found.into();
    }
}

/// The parts of a window, of which neighbours become one until there are few. Oldest first.
pub(super) fn coarse(window: &SlidingWindow, now: u64) -> Vec<NotedPart> {
    let each = window.parts.len().div_ceil(NOTED_PARTS).max(1);
    let parts: Vec<WindowPart> = window.parts.iter().copied().collect();
    let of = |some: &[WindowPart]| {
        let first = some.first().map_or(now, |part| part.first);
        let last = some.last().map_or(now, |part| part.last());
        let sum: u64 = some.iter().map(|part| u64::from(part.count)).sum();
        let count = u32::try_from(sum).unwrap_or(u32::MAX);
        (now.saturating_sub(first), now.saturating_sub(last), count)
    };
    parts.chunks(each).map(of).collect()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
