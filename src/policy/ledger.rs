//! What the quotas have counted: the windows of all of them under one lock, which every session asks. What is to be noted for the next start
//! is made and read here, and written elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    quota::{Quota, QuotaTally},
    windows::{KEYS, NotedPart, QuotaWindows, SlidingWindow, coarse, millis},
};

/// Keys of a quota that are noted for the next start, those with the most.
const NOTED_KEYS: usize = 1_000;
/// Keys without room that are named.
const NAMED: usize = 5;

/// The windows of all quotas.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Arc<str>, QuotaWindows>>);

/// The windows, and what the time is on the clock that nobody sets: what a session asks.
#[derive(Debug, Clone)]
pub struct QuotaView {
    /// The windows.
    pub ledger: Arc<Ledger>,
    /// The time.
    pub now: Duration,
}

/// How a quota stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaStanding {
    /// Its name.
    pub name: Arc<str>,
    /// Keys that are counted.
    pub keys: u64,
    /// Keys that were asked for more than they have, and have no room.
    pub full: u64,
    /// Some of these, with what they have used.
    pub named: Vec<(String, u32)>,
    /// Recipients that were counted, since the start.
    pub counted: u64,
    /// Recipients that found no room, since the start.
    pub beyond: u64,
    /// Keys that were forgotten since there were too many, since the start.
    pub forgotten: u64,
}

/// What is noted of the windows of a quota for the next start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NotedQuota {
    /// Its name.
    name: String,
    /// What is counted together: of other keys the next start knows nothing.
    per: String,
    /// The parts of each key.
    keys: Vec<(String, Vec<NotedPart>)>,
}

impl Ledger {
    fn windows(&self) -> MutexGuard<'_, HashMap<Arc<str>, QuotaWindows>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These quotas hold from now on. The windows of those that were there stay, unless something else is counted together.
    pub fn adopt(&self, quotas: &[Quota]) {
        let mut windows = self.windows();
        windows.retain(|name, _| quotas.iter().any(|quota| quota.name == *name));
        for quota in quotas {
            match windows.get_mut(&quota.name) {
                Some(known) if known.per == quota.per => {
                    known.most = quota.most;
                    known.length = millis(quota.window);
                }
                _ => drop(windows.insert(Arc::clone(&quota.name), QuotaWindows::new(quota))),
            }
        }
    }

    /// Whether there is room for one more recipient of this key, where a transaction holds so many already. `now`: of the clock that
    /// nobody sets.
    pub fn has_room(&self, quota: &Quota, key: &str, held: u32, now: Duration) -> bool {
        let now = millis(now);
        let mut windows = self.windows();
        // One that is gone since a reload counts nobody.
        let Some(windows) = windows.get_mut(&quota.name) else {
            return true;
        };
        let used = windows.used(key, now);
        let has_room = used.saturating_add(held) < quota.most;
        if !has_room {
            windows.beyond += 1;
            if windows.overrun.len() < KEYS {
                windows.overrun.insert(key.to_owned());
            }
        }
        has_room
    }

    /// What a key has used.
    pub fn used(&self, quota: &Quota, key: &str, now: Duration) -> u32 {
        let mut windows = self.windows();
        let windows = windows.get_mut(&quota.name);
        windows.map_or(0, |windows| windows.used(key, millis(now)))
    }

    /// A message was accepted.
    pub fn count(&self, tally: &QuotaTally, now: Duration) {
        let now = millis(now);
        let mut all = self.windows();
        for one in &tally.0 {
            if let Some(windows) = all.get_mut(&one.quota) {
                windows.counted += u64::from(one.recipients);
                windows.count(&one.key, one.recipients, now);
            }
        }
    }

    /// How each quota stands, by name.
    pub fn standing(&self, now: Duration) -> Vec<QuotaStanding> {
        let now = millis(now);
        let mut all: Vec<QuotaStanding> = self
            .windows()
            .iter_mut()
            .map(|(name, windows)| {
                let full = windows.full(now);
                QuotaStanding {
                    name: Arc::clone(name),
                    keys: windows.keys.len() as u64,
                    full: full.len() as u64,
                    named: full.into_iter().take(NAMED).collect(),
                    counted: windows.counted,
                    beyond: windows.beyond,
                    forgotten: windows.forgotten,
                }
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// What is to be known at the next start: of keys that used much all but the finest.
    pub fn noted(&self, now: Duration) -> Vec<NotedQuota> {
        let now = millis(now);
        let mut quotas: Vec<_> = self
            .windows()
            .iter_mut()
            .filter_map(|(name, windows)| {
                let length = windows.length;
                // What counts no more goes.
                let is_used = |_: &String, window: &mut SlidingWindow| window.used(now, length) > 0;
                windows.keys.retain(is_used);
                let mut keys: Vec<(u32, &String, &SlidingWindow)> = windows
                    .keys
                    .iter_mut()
                    .map(|(key, window)| (window.used(now, length), key, &*window))
                    .collect();
                keys.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(other.1)));
                let keys: Vec<_> = keys
                    .iter()
                    .take(NOTED_KEYS)
                    .map(|(_, key, window)| ((*key).clone(), coarse(window, now)))
                    .collect();
                let per = windows.per.as_str().to_owned();
                let name = name.to_string();
                (!keys.is_empty()).then_some(NotedQuota { name, per, keys })
            })
            .collect();
        quotas.sort();
        quotas
    }

    /// What was noted so long ago goes before what was counted here.
    pub fn recall(&self, noted: &[NotedQuota], ago: Duration, now: Duration) {
        let (now, ago) = (millis(now), millis(ago));
        let mut all = self.windows();
        for quota in noted {
            let Some(windows) = all.get_mut(quota.name.as_str()) else {
                continue;
            };
            if windows.per.as_str() != quota.per {
                continue;
            }
            for (key, parts) in quota.keys.iter().take(NOTED_KEYS) {
                windows.recall(key, parts, ago, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            quota::{Addressed, Beyond, CountedBy},
            scope::Scope,
            windows::{KEYS, PARTS},
        },
        *,
    };
    use crate::fixture::address;

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);

    fn quota(per: CountedBy, most: u32, window: Duration) -> Quota {
        Quota {
            name: "erp".into(),
            scope: Scope::default(),
            per,
            most,
            window,
            over: Beyond::Refuse,
            hold_for: HOUR,
        }
    }

    fn ledger(quota: &Quota) -> Ledger {
        let ledger = Ledger::default();
        ledger.adopt(std::slice::from_ref(quota));
        ledger
    }

    fn count(ledger: &Ledger, key: &str, recipients: u32, now: Duration) {
        let mut tally = QuotaTally::default();
        for _ in 0..recipients {
            tally.add(&"erp".into(), key.to_owned());
        }
        assert_eq!(tally.of("erp", key), recipients);
        ledger.count(&tally, now);
    }

    #[test]
    fn a_sender_is_one_in_whatever_case_as_for_patterns() {
        for given in [
            "\u{39f}\u{394}\u{39f}\u{3a3}@gr.example",
            "\u{3bf}\u{3b4}\u{3bf}\u{3c3}@gr.example",
        ] {
            let sender = address(given);
            let of = Addressed {
                sender: Some(&sender),
                user: None,
                peer: "10.0.0.1".parse().unwrap(),
                route: "default",
            };
            let key = quota(CountedBy::Sender, 1, HOUR).key(of).unwrap();
            assert_eq!(key, "\u{3bf}\u{3b4}\u{3bf}\u{3c3}@gr.example");
            assert!(crate::fixture::patterns(&key)[0].matches(Some(&sender)));
        }
    }

    #[test]
    fn whose_recipients_are_counted_together() {
        let sender = address("Erp@Corp.com");
        let of = |peer: &str, user| Addressed {
            sender: Some(&sender),
            user,
            peer: peer.parse().unwrap(),
            route: "default",
        };
        let key = |per, of| quota(per, 1, HOUR).key(of);
        for (per, of, expected) in [
            (
                CountedBy::Sender,
                of("10.0.0.1", None),
                Some("erp@corp.com"),
            ),
            (CountedBy::User, of("10.0.0.1", Some("Bob")), Some("Bob")),
            (CountedBy::User, of("10.0.0.1", None), None),
            (CountedBy::Client, of("10.0.0.1", None), Some("10.0.0.1")),
            (
                CountedBy::Client,
                of("::ffff:10.0.0.1", None),
                Some("10.0.0.1"),
            ),
            (
                CountedBy::Client,
                of("2001:db8:1:2:3:4:5:6", None),
                Some("2001:db8:1:2::/64"),
            ),
            (
                CountedBy::Client,
                of("2001:db8:1:2::9", None),
                Some("2001:db8:1:2::/64"),
            ),
            (
                CountedBy::Client,
                of("2001:db8:1:3::9", None),
                Some("2001:db8:1:3::/64"),
            ),
            (CountedBy::Route, of("10.0.0.1", None), Some("default")),
        ] {
            assert_eq!(key(per, of).as_deref(), expected, "{per:?} {of:?}");
        }
        let nobody = Addressed {
            sender: None,
            ..of("10.0.0.1", None)
        };
        assert_eq!(key(CountedBy::Sender, nobody).as_deref(), Some("<>"));
        for (most, window, expected) in [
            (200, HOUR, "200 recipients an hour"),
            (1, MINUTE, "1 recipient a minute"),
            (5, HOUR * 24, "5 recipients a day"),
            (5, MINUTE * 10, "5 recipients in 10m"),
        ] {
            assert_eq!(quota(CountedBy::Sender, most, window).words(), expected);
        }
    }

    /// Beside a model that remembers every recipient: never too much is forgotten, and at most what came within a sixtieth of the window of
    /// something that still counts is remembered too long.
    #[test]
    fn the_window_slides_as_a_naive_one_does() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..200 {
            let window = Duration::from_secs([60, 3600, 86_400, 1][round % 4]);
            let quota = quota(CountedBy::Sender, 100, window);
            let ledger = ledger(&quota);
            let mut model: Vec<(Duration, u32)> = Vec::new();
            let mut now = HOUR * 1000;
            for _ in 0..400 {
                let step = random.u64(0..(window.as_millis() as u64 / 20));
                now += Duration::from_millis(step);
                if random.u8(0..3) > 0 {
                    let recipients = random.u32(1..5);
                    count(&ledger, "a", recipients, now);
                    model.push((now, recipients));
                }
                let since = |reach: Duration| -> u32 {
                    let within = model
                        .iter()
                        .filter(|(at, _)| now.saturating_sub(*at) < reach);
                    within.map(|(_, recipients)| recipients).sum()
                };
                let used = ledger.used(&quota, "a", now);
                assert!(used >= since(window), "too early: {used} {}", since(window));
                let reach = window + window / 60 + Duration::from_millis(1);
                assert!(used <= since(reach), "too late: {used} {}", since(reach));
                let has_room = ledger.has_room(&quota, "a", 0, now);
                assert_eq!(has_room, used < 100);
            }
            // A clock that somebody else read a moment before.
            count(
                &ledger,
                "a",
                1,
                now.saturating_sub(Duration::from_millis(5)),
            );
            assert_eq!(ledger.used(&quota, "a", now + window * 2), 0);
            let windows = ledger.windows();
            assert!(windows["erp"].keys["a"].parts.len() <= PARTS as usize + 2);
        }
    }

    #[test]
    fn a_hundred_thousand_senders_are_bounded_and_counted() {
        let quota = quota(CountedBy::Sender, 3, HOUR);
        let ledger = ledger(&quota);
        let mut now = HOUR * 100;
        for n in 0..100_000_u32 {
            now += Duration::from_millis(1);
            let key = format!("sender-{n}@corp.example");
            assert!(
                ledger.has_room(&quota, &key, 0, now),
                "nobody is refused for the others"
            );
            count(&ledger, &key, 3, now);
            // One who goes on sending is not forgotten.
            if n % 500 == 0 {
                assert_eq!(
                    ledger.has_room(&quota, "busy@corp.example", 0, now),
                    n < 1500
                );
                count(&ledger, "busy@corp.example", 1, now);
            }
        }
        assert!(!ledger.has_room(&quota, "sender-99999@corp.example", 0, now));
        assert!(ledger.has_room(&quota, "sender-0@corp.example", 0, now));
        let standing = ledger.standing(now);
        let [one] = standing.as_slice() else { panic!() };
        assert!(one.keys <= KEYS as u64 && one.keys > KEYS as u64 / 2);
        // The windows of all of them, and of `busy`.
        assert_eq!(one.forgotten, 100_001 - one.keys);
        assert_eq!(one.counted, 300_000 + 200);
        assert!(one.full > 0 && one.named.len() <= NAMED);
        let noted = serde_json::to_string(&ledger.noted(now)).unwrap();
        assert!(noted.len() < 200_000, "{}", noted.len());
        // Made of those that counted no more, nobody is forgotten.
        let later = now + HOUR * 2;
        count(&ledger, "new@corp.example", 1, later);
        assert_eq!(ledger.noted(later).len(), 1);
        let after = ledger.standing(later);
        assert_eq!(
            (after[0].keys, after[0].forgotten, after[0].full),
            (1, one.forgotten, 0)
        );
    }

    #[test]
    fn it_is_overrun_until_there_is_room() {
        let quota = quota(CountedBy::Sender, 2, HOUR);
        let ledger = ledger(&quota);
        let now = HOUR * 100;
        count(&ledger, "a", 2, now);
        let full = |at| ledger.standing(at)[0].full;
        assert_eq!(full(now), 0, "it is used up, and nobody has asked for more");
        assert!(!ledger.has_room(&quota, "a", 0, now));
        assert_eq!((full(now), ledger.standing(now)[0].named[0].1), (1, 2));
        assert_eq!(full(now + MINUTE * 59), 1);
        assert_eq!(full(now + HOUR), 0);
        // What a transaction holds overruns it as well, for as long as it is counted.
        assert!(!ledger.has_room(&quota, "b", 2, now));
        assert_eq!(full(now + HOUR), 0);
    }

    #[test]
    fn a_restart_forgives_little_and_a_reload_nothing() {
        let day = quota(CountedBy::Sender, 1000, HOUR * 24);
        let before = ledger(&day);
        let mut now = HOUR * 2000;
        for n in 0..500_u32 {
            now += MINUTE * 2;
            count(&before, "a", 1 + n % 3, now);
        }
        let noted = serde_json::to_string(&before.noted(now)).unwrap();
        let noted: Vec<NotedQuota> = serde_json::from_str(&noted).unwrap();
        // The next start's clock is another one, and two hours have passed.
        let (after, begun) = (ledger(&day), HOUR * 720);
        count(&after, "a", 5, begun);
        after.recall(&noted, HOUR * 2, begun);
        for hours in [0, 1, 5, 10, 20, 23] {
            let passed = HOUR * hours;
            let was = before.used(&day, "a", now + HOUR * 2 + passed) + 5;
            let is = after.used(&day, "a", begun + passed);
            // Coarser, so that it is forgotten a little later, and never too early.
            assert!(is >= was && is <= was + 200, "{hours} h: {was} {is}");
        }
        assert_eq!(after.used(&day, "a", begun + HOUR * 26), 0);
        // Of a quota that counts something else nothing is known.
        let other = quota(CountedBy::Client, 1000, HOUR * 24);
        let fresh = ledger(&other);
        fresh.recall(&noted, Duration::ZERO, begun);
        assert_eq!(fresh.used(&other, "a", begun), 0);
        // A reload with another number and another window; then with another key.
        let hour = quota(CountedBy::Sender, 5, HOUR);
        let begun = begun + HOUR * 27;
        count(&after, "a", 5, begun);
        after.adopt(std::slice::from_ref(&hour));
        assert_eq!(after.used(&hour, "a", begun), 5);
        assert!(!after.has_room(&hour, "a", 0, begun));
        after.adopt(std::slice::from_ref(&other));
        assert_eq!(after.used(&other, "a", begun), 0);
        after.adopt(&[]);
        assert!(after.has_room(&hour, "a", 1_000_000, begun) && after.standing(begun).is_empty());
    }

    #[test]
    fn what_was_noted_is_only_believed_as_far_as_it_can_be() {
        let quota = quota(CountedBy::Sender, 3, HOUR);
        let of = |text: &str| {
            let ledger = ledger(&quota);
            let noted: Vec<NotedQuota> = serde_json::from_str(text).unwrap();
            // A machine that has only just begun.
            ledger.recall(&noted, Duration::from_millis(u64::MAX), Duration::ZERO);
            ledger.recall(&noted, Duration::ZERO, Duration::ZERO);
            let used = ledger.used(&quota, "a", Duration::ZERO);
            (used, ledger.used(&quota, "a", HOUR))
        };
        for (parts, expected) in [
            ("[]", (0, 0)),
            ("[[0,0,2]]", (2, 0)),
            ("[[3600000,0,2]]", (2, 0)),
            ("[[0,18446744073709551615,2]]", (0, 0)),
            (
                "[[18446744073709551615,5,4294967295],[0,0,9]]",
                (u32::MAX, 0),
            ),
            // First and last the wrong way round.
            ("[[0,5,2]]", (2, 0)),
        ] {
            let text = format!(r#"[{{"name":"erp","per":"sender","keys":[["a",{parts}]]}}]"#);
            assert_eq!(of(&text), expected, "{parts}");
        }
    }

    /// Sessions side by side may go beyond by what each of them holds, and by no more.
    #[test]
    fn sessions_side_by_side_overshoot_by_what_they_hold() {
        let quota = quota(CountedBy::Sender, 100, HOUR);
        let ledger = Arc::new(ledger(&quota));
        let (threads, each) = (8, 7);
        let work = |ledger: Arc<Ledger>| {
            let quota = quota.clone();
            move || {
                for _ in 0..100 {
                    let mut tally = QuotaTally::default();
                    for held in 0..each {
                        if ledger.has_room(&quota, "a", held, HOUR) {
                            tally.add(&quota.name, "a".to_owned());
                        }
                    }
                    std::thread::yield_now();
                    ledger.count(&tally, HOUR);
                }
            }
        };
        let all: Vec<_> = (0..threads)
            .map(|_| std::thread::spawn(work(Arc::clone(&ledger))))
            .collect();
        for one in all {
            one.join().unwrap();
        }
        let used = ledger.used(&quota, "a", HOUR);
        assert!((100..100 + threads * each).contains(&used), "{used}");
    }
}
