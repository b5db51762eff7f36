//! Several gateways over one store: who holds a lane that is shared, who takes over the dead, and that all together keep its limits,
//! whoever is cut off, stands still or ends. The clock is tokio's, paused, so an hour takes moments.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use postern::{
    connector::{LaneLimits, Rate},
    delivery::{
        clock::{Clock, Moment},
        lanes::gate::{Gate, Ready},
        member::{BeatNews, Member, MemberSettings},
        members::{
            parts::LaneFacts,
            roll::RollSettings,
            word::{MemberState, OwnLife},
        },
    },
    queue::store::Store,
    route::LaneId,
};
use tokio::time::Instant;

use crate::harness::{flaky::Flaky, memory::Memory};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const LIMITS: LaneLimits = LaneLimits {
    concurrent: 6,
    rate: Some(Rate {
        count: 12,
        per: MINUTE,
    }),
    upload: None,
};
const SHARED: LaneFacts = LaneFacts {
    is_mailbox: true,
    is_limited: false,
    connections: None,
    learned: None,
};

/// Ahead of tokio's by so much.
#[derive(Debug)]
struct Ahead(Instant, Duration);

impl Clock for Ahead {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.1 + self.0.elapsed()
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.wall(),
            boot: self.1 + self.0.elapsed(),
        }
    }
}

/// A gateway that sends from one lane whenever it may.
struct Relay {
    member: Member,
    line: Arc<Flaky>,
    gate: Gate,
    /// When each delivery ends, and whether it began without the store.
    under_way: Vec<(Instant, bool)>,
    is_paused: bool,
    taken_over: Vec<String>,
}

fn lane() -> LaneId {
    LaneId::of(&"smarthost".into())
}

fn relay(store: &Arc<Memory>, name: &str, ahead: Duration) -> Relay {
    let line = Flaky::new(Arc::clone(store) as Arc<dyn Store>, 0);
    let settings = MemberSettings {
        name: name.to_owned(),
        version: "1".to_owned(),
        config_hash: "2".to_owned(),
        roll: RollSettings {
            dead_after: MINUTE,
            share_for: MINUTE * 30,
            window: MINUTE,
        },
        in_doubt_wait: MINUTE * 5,
    };
    let clock = Arc::new(Ahead(Instant::now(), ahead));
    Relay {
        member: Member::new(Arc::clone(&line) as Arc<dyn Store>, clock, settings),
        line,
        gate: Gate::new(LIMITS),
        under_way: Vec::new(),
        is_paused: false,
        taken_over: Vec::new(),
    }
}

impl Relay {
    fn now() -> std::time::Instant {
        Instant::now().into_std()
    }

    /// What a second of its life is; the ends of what it sent go to `ended`.
    async fn lives(&mut self, random: &mut fastrand::Rng, ended: &mut Vec<Instant>) {
        let now = Instant::now();
        let (is_over, is_paused) = (self.member.life() == OwnLife::Over, self.is_paused);
        if !is_paused && self.under_way.iter().any(|(_, is_alone)| *is_alone) {
            self.member.is_sending_alone();
        }
        let gate = &mut self.gate;
        self.under_way.retain(|(ends, is_alone)| {
            // What stands still ends where it would be cut first of all when it goes on.
            let has_ended = *ends <= now && !is_paused || is_over && !is_alone;
            if has_ended {
                gate.give(Some(0), false, Self::now());
                ended.push(now);
            }
            !has_ended
        });
        if is_paused {
            return;
        }
        self.member.keeps_whether_alone().await;
        match self.member.beat(|_| true).await {
            Ok(BeatNews::Heard { taken_over, .. }) => {
                self.taken_over
                    .extend(taken_over.into_iter().map(|row| row.name));
            }
            Ok(BeatNews::TakenOver | BeatNews::Replaced) | Err(_) => {}
        }
        if !self.member.holds(&lane()) {
            if let Ok(Some(used)) = self.member.hold(&lane(), MINUTE).await
                && let Some(windows) = used.windows
            {
                let used = serde_json::from_str(&windows).unwrap();
                self.gate.inherit(&used, Self::now());
            }
        } else if random.u32(0..40) == 0
            && self.member.limits(&lane(), &SHARED, &LIMITS).is_some()
            && let Some(used) = self.gate.used(Self::now())
        {
            let windows = serde_json::to_string(&used).unwrap();
            let _ = self.member.let_go(&lane(), windows).await;
        }
        let is_alone = !self.member.holds(&lane()) || self.member.life() != OwnLife::Whole;
        let Some(limits) = self.member.limits(&lane(), &SHARED, &LIMITS) else {
            return;
        };
        self.gate.set_limits(limits);
        while let Ready::Now(_) = self.gate.ready(Self::now()) {
            assert_eq!(self.gate.take(Self::now()), Some(false));
            assert!(self.gate.start(Self::now(), 0));
            let ends = now + SECOND * random.u32(1..20);
            self.under_way.push((ends, is_alone));
        }
    }

    /// Its power fails.
    fn ends(&mut self, ended: &mut Vec<Instant>) {
        ended.extend(self.under_way.drain(..).map(|_| Instant::now()));
    }
}

/// What the upstream has of all together.
fn judge(relays: &[Relay], ended: &mut Vec<Instant>) {
    ended.retain(|end| end.elapsed() < MINUTE);
    let under_way: usize = relays.iter().map(|relay| relay.under_way.len()).sum();
    assert!(under_way <= 6, "{under_way} at once");
    assert!(
        under_way + ended.len() <= 12,
        "{} in a minute",
        under_way + ended.len()
    );
}

fn holder(relays: &[Relay]) -> Vec<usize> {
    let held = relays.iter().enumerate();
    let held = held
        .filter(|(_, relay)| relay.member.holds(&lane()) && relay.member.life() == OwnLife::Whole);
    held.map(|(at, _)| at).collect()
}

async fn seconds(
    relays: &mut [Relay],
    random: &mut fastrand::Rng,
    ended: &mut Vec<Instant>,
    count: u32,
) {
    for _ in 0..count {
        tokio::time::advance(SECOND).await;
        for relay in relays.iter_mut() {
            relay.lives(random, ended).await;
        }
        judge(relays, ended);
        assert!(holder(relays).len() <= 1, "one holds a lane");
    }
}

#[tokio::test(start_paused = true)]
async fn who_dies_is_taken_over_and_another_holds_what_it_held() {
    let (mut random, mut ended) = (fastrand::Rng::with_seed(1), Vec::new());
    let store = Arc::new(Memory::default());
    let mut relays: Vec<Relay> = (0..3_u32)
        .map(|at| relay(&store, &format!("relay-{at}"), MINUTE * 1_000 * at))
        .collect();
    seconds(&mut relays, &mut random, &mut ended, 120).await;
    let names = |relay: &Relay, state| {
        let states = relay.member.states().into_iter();
        states.filter(|(_, is, _)| *is == state).count()
    };
    assert_eq!(names(&relays[0], MemberState::Alive), 3);
    let first = holder(&relays);
    let mut dead = relays.remove(first.first().copied().unwrap_or(0));
    dead.ends(&mut ended);
    let name = dead.member.states();
    assert_eq!(name.len(), 3);
    drop(dead);
    seconds(&mut relays, &mut random, &mut ended, 65).await;
    let taken: usize = relays.iter().map(|relay| relay.taken_over.len()).sum();
    assert_eq!(taken, 1, "in `dead_after` and five seconds, by one of them");
    seconds(&mut relays, &mut random, &mut ended, 70).await;
    let sent: usize = relays.iter().map(|relay| relay.under_way.len()).sum();
    assert!(sent > 0 || !ended.is_empty(), "another sends");
    assert!(names(&relays[0], MemberState::Gone) == 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_goes_on_alone_and_comes_back() {
    let (mut random, mut ended) = (fastrand::Rng::with_seed(2), Vec::new());
    let store = Arc::new(Memory::default());
    let mut relays: Vec<Relay> = (0..2_u32)
        .map(|at| relay(&store, &format!("relay-{at}"), MINUTE * at))
        .collect();
    seconds(&mut relays, &mut random, &mut ended, 120).await;
    relays[0].line.set(1);
    seconds(&mut relays, &mut random, &mut ended, 119).await;
    assert!(
        relays[0].under_way.is_empty(),
        "it waits until room is left for it"
    );
    seconds(&mut relays, &mut random, &mut ended, 10).await;
    assert!(relays[0].under_way.iter().any(|(_, is_alone)| *is_alone));
    assert_eq!(relays[1].taken_over, ["relay-0"]);
    relays[0].line.set(0);
    seconds(&mut relays, &mut random, &mut ended, 3).await;
    let states = relays[1].member.states();
    assert!(
        states.iter().any(|(_, is, _)| *is == MemberState::Apart),
        "{states:?}"
    );
    seconds(&mut relays, &mut random, &mut ended, 120).await;
    let states = relays[1].member.states();
    assert!(
        states.iter().all(|(_, is, _)| *is == MemberState::Alive),
        "{states:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cut_off_or_stands_still_all_keep_the_limits_together() {
    for seed in 0..20 {
        let (mut random, mut ended) = (fastrand::Rng::with_seed(seed), Vec::new());
        let store = Arc::new(Memory::default());
        let mut relays: Vec<Relay> = (0..3_u32)
            .map(|at| relay(&store, &format!("relay-{at}"), MINUTE * 7 * at))
            .collect();
        seconds(&mut relays, &mut random, &mut ended, 100).await;
        for _ in 0..30 {
            let at = random.usize(0..3);
            match random.u32(0..3) {
                0 => relays[at].line.set(u64::from(random.bool())),
                1 => relays[at].is_paused = random.bool(),
                _ => {
                    relays[at].ends(&mut ended);
                    let name = format!("relay-{at}");
                    relays[at] = relay(&store, &name, MINUTE * random.u32(0..1_000));
                }
            }
            let count = random.u32(1..120);
            seconds(&mut relays, &mut random, &mut ended, count).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_says_so_and_nobody_waits_for_it() {
    let (mut random, mut ended) = (fastrand::Rng::with_seed(3), Vec::new());
    let store = Arc::new(Memory::default());
    let mut relays: Vec<Relay> = (0..2_u32)
        .map(|at| relay(&store, &format!("relay-{at}"), Duration::ZERO))
        .collect();
    seconds(&mut relays, &mut random, &mut ended, 120).await;
    let leaver = &mut relays[0];
    leaver.ends(&mut ended);
    let windows = serde_json::to_string(&leaver.gate.used(Relay::now())).unwrap_or_default();
    let _ = leaver.member.let_go(&lane(), windows).await;
    assert!(leaver.member.leave().await.unwrap());
    relays.remove(0);
    seconds(&mut relays, &mut random, &mut ended, 3).await;
    assert_eq!(relays[0].member.states().len(), 1);
    assert!(relays[0].taken_over.is_empty());
    let limits = relays[0].member.limits(&lane(), &SHARED, &LIMITS);
    assert!(
        limits.is_none_or(|limits| limits.concurrent == 6),
        "{limits:?}"
    );
}
