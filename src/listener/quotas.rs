//! The windows of the quotas, which all connections share, and the note of them for the next start.
//!
//! What they mean is in `policy::quota`. Here are the clocks: the windows go by the one that nobody sets, and the note by both, so that
//! a wall clock that was set while the gateway was stopped forgives nothing that it need not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::policy::{
    ledger::{Ledger, NotedQuota, QuotaStanding, QuotaView},
    quota::{Quota, QuotaTally},
};

/// Added to the time since the machine began, so that what was counted before that has a time.
const BEFORE: Duration = Duration::from_hours(24 * 30);

/// The windows, as long as there is a quota.
#[derive(Debug, Default)]
pub struct QuotaDesk {
    ledger: Arc<Ledger>,
    /// What was noted last: the same is not written again.
    noted: Mutex<Vec<NotedQuota>>,
}

/// What a start leaves for the next one.
#[derive(Debug, Serialize, Deserialize)]
struct QuotaNote {
    /// When it was written, in milliseconds since 1970.
    wall: u64,
    /// For how long the machine had been running, and which of its starts that was.
    boot: u64,
    machine: String,
    quotas: Vec<NotedQuota>,
}

impl QuotaDesk {
    /// These quotas hold from now on.
    pub(super) fn adopt(&self, quotas: &[Quota]) {
        self.ledger.adopt(quotas);
    }

    /// For a session.
    pub(super) fn view(&self) -> QuotaView {
        QuotaView {
            ledger: Arc::clone(&self.ledger),
            now: now(),
        }
    }

    /// A message is on disk.
    pub(super) fn count(&self, tally: &QuotaTally) {
        if !tally.is_empty() {
            self.ledger.count(tally, now());
        }
    }

    /// How each quota stands.
    pub fn standing(&self) -> Vec<QuotaStanding> {
        self.ledger.standing(now())
    }

    /// What to write down for the next start; `None`: nothing has been counted since.
    pub fn note(&self) -> Option<String> {
        let quotas = self.ledger.noted(now());
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted == quotas || (quotas.is_empty() && noted.is_empty()) {
            return None;
        }
        noted.clone_from(&quotas);
        let note = QuotaNote {
            wall: wall(),
            boot: millis(boot()),
            machine: machine(),
            quotas,
        };
        serde_json::to_string(&note).ok()
    }

    /// What the start before has left; what cannot be read is as if there were nothing.
    pub fn recall(&self, note: &str) {
        let Ok(note) = serde_json::from_str::<QuotaNote>(note) else {
            return;
        };
        let since_boot = millis(boot()).checked_sub(note.boot);
        let ago = match since_boot {
            // The machine has run all the while: its own clock says how long.
            Some(ago) if note.machine == machine() && !note.machine.is_empty() => ago,
            // A wall clock that was set back says nothing: as if no time had passed.
            _ => wall().saturating_sub(note.wall),
        };
        let ago = Duration::from_millis(ago);
        self.ledger.recall(&note.quotas, ago, now());
    }
}

/// The clock that nobody sets.
fn now() -> Duration {
    BEFORE + boot()
}

fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// What tells this start of the machine from the next one.
fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        quota::{Beyond, CountedBy},
        scope::Scope,
    };

    fn desk(quota: &Quota) -> QuotaDesk {
        let desk = QuotaDesk::default();
        desk.adopt(std::slice::from_ref(quota));
        desk
    }

    #[test]
    fn the_next_start_believes_the_clock_that_nobody_sets() {
        const HOUR: i64 = 3_600_000;
        let quota = Quota {
            name: "erp".into(),
            scope: Scope::default(),
            per: CountedBy::Sender,
            most: 10,
            window: Duration::from_hours(1),
            over: Beyond::Refuse,
            hold_for: Duration::from_hours(1),
        };
        let before = desk(&quota);
        assert_eq!(before.note(), None, "there is nothing to note");
        let mut tally = QuotaTally::default();
        for _ in 0..3 {
            tally.add(&quota.name, "a".to_owned());
        }
        before.count(&tally);
        let note = before.note().unwrap();
        let after = |text: &str| {
            let desk = desk(&quota);
            desk.recall(text);
            desk.ledger.used(&quota, "a", now())
        };
        assert_eq!(after(&note), 3);
        let changed = |wall: i64, boot: i64, machine: Option<&str>| {
            let mut note: QuotaNote = serde_json::from_str(&note).unwrap();
            note.wall = note.wall.saturating_add_signed(wall);
            note.boot = note.boot.saturating_add_signed(boot);
            if let Some(machine) = machine {
                note.machine = machine.to_owned();
            }
            after(&serde_json::to_string(&note).unwrap())
        };
        // The machine has run all the while: however the wall clock was set since.
        for wall in [-48 * HOUR, -HOUR, HOUR, 48 * HOUR] {
            assert_eq!(changed(wall, 0, None), 3, "{wall}");
        }
        // Another start of the machine: the wall clock is all there is, and set back it says that no time has passed.
        let other = Some("another");
        for (wall, boot, machine, expected) in [
            (-HOUR / 2, 0, other, 3),
            (-2 * HOUR, 0, other, 0),
            (48 * HOUR, 0, other, 3),
            // What a clock says that ran before this one does not count.
            (0, 48 * HOUR, None, 3),
            (-2 * HOUR, 48 * HOUR, None, 0),
        ] {
            assert_eq!(changed(wall, boot, machine), expected, "{wall} {boot}");
        }
        for text in ["", "{}", "null", "[]", "{\"wall\":-1}"] {
            assert_eq!(after(text), 0, "{text}");
        }
    }
}
