//! What one member concludes, by itself; and many members over one store, of which anything may be cut off at any time: what all of
//! them send together is within the limits at every moment.

use std::ops::Range;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// The simulated clock goes on by so much.
const TICK: Duration = Duration::from_millis(500);

fn settings() -> RollSettings {
    RollSettings {
        dead_after: SECOND * 60,
        share_for: SECOND * 3_600,
        window: SECOND * 60,
    }
}

fn word(node: u64, name: &str, seen: i64, knew: u32) -> NodeRow {
    NodeRow {
        id: NodeId(node),
        name: name.to_owned(),
        token: name.to_owned(),
        seen,
        dead_after: SECOND * 60,
        knew,
        ..NodeRow::default()
    }
}

/// Beats at that second, and hears these.
fn beat(roll: &mut Roll, second: u32, words: &[NodeRow]) -> SelfSaid {
    let now = SECOND * second;
    let said = roll.says(now, |_| true);
    assert!(roll.hears((now, now), NodeId(1), said, words));
    said
}

#[test]
fn one_alone_has_everything() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    assert_eq!(roll.own_part(20), 0, "nobody has heard of it");
    assert_eq!(roll.life(Duration::ZERO), OwnLife::Over);
    assert_eq!(beat(&mut roll, 0, &[word(1, "a", 1, 0)]).knew, 0);
    assert_eq!(beat(&mut roll, 1, &[word(1, "a", 2, 1)]).knew, 1);
    assert_eq!((roll.own_part(20), roll.count()), (20, 1));
    assert_eq!(roll.holder_part(30, SECOND), 30);
}

#[test]
fn one_that_is_cut_off_stops_and_goes_on_by_itself_and_stops_again() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    for second in 0..30 {
        let seen = i64::from(second) + 1;
        let words = [word(1, "a", seen, 2), word(2, "b", seen, 2)];
        let said = beat(&mut roll, second, &words);
        assert_eq!(said.is_apart, second <= 60);
    }
    let minute = SECOND * 60;
    for (after, life, alone) in [
        (0, OwnLife::Whole, 0),
        (19, OwnLife::Whole, 0),
        (20, OwnLife::Ending, 0),
        (39, OwnLife::Ending, 0),
        (40, OwnLife::Over, 0),
        (119, OwnLife::Over, 0),
        (120, OwnLife::Over, 15),
        (3_599, OwnLife::Over, 15),
        (3_600, OwnLife::Over, 0),
    ] {
        let now = SECOND * (29 + after);
        assert_eq!(roll.life(now), life, "{after}");
        assert_eq!(roll.part_alone(30, minute, now), alone, "{after}");
        assert_eq!(roll.own_part(20), 10, "elsewhere it goes on");
    }
    assert!(roll.says(SECOND * 60, |_| true).is_apart);
}

#[test]
fn room_is_left_for_who_is_silent_and_he_is_taken_over_and_forgotten() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    let at = |second: u32, other: i64, is_gone: bool| {
        let other = NodeRow {
            is_gone,
            ..word(2, "b", other, 2)
        };
        [word(1, "a", i64::from(second), 2), other]
    };
    beat(&mut roll, 0, &at(0, 1, false));
    assert_eq!(roll.holder_part(30, SECOND), 15, "not heard anew yet");
    for second in 1..100 {
        beat(
            &mut roll,
            second,
            &at(second, i64::from(second.min(9)) + 1, false),
        );
        let now = SECOND * second;
        // What was heard at 9 was said after 8.
        let part = if second < 8 + 20 { 30 } else { 15 };
        assert_eq!(roll.holder_part(30, now), part, "{second}");
        let most = if second < 8 + 40 { 30 } else { 15 };
        assert_eq!(roll.holder_most(30, now), most, "{second}");
        assert_eq!(roll.dead().len(), usize::from(second >= 69), "{second}");
    }
    for second in 100..4_000 {
        beat(&mut roll, second, &at(second, 10, true));
        let is_missed = second < 9 + 3_600 + 120;
        let part = if is_missed { 15 } else { 30 };
        assert_eq!(roll.holder_part(30, SECOND * second), part, "{second}");
        assert_eq!(roll.count(), if is_missed { 2 } else { 1 });
    }
}

#[test]
fn silence_is_not_death_while_one_hears_nothing_oneself() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    let words = [word(1, "a", 1, 2), word(2, "b", 1, 2)];
    for second in (0..30).chain(300..360) {
        beat(&mut roll, second, &words);
        assert!(roll.dead().is_empty(), "{second}");
    }
    beat(&mut roll, 360, &words);
    assert_eq!(roll.dead(), [words[1].clone()]);
}

#[test]
fn nobody_falls_silent_while_one_hears_nothing_oneself() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    let words = |second: u32, other: i64| {
        [
            word(1, "a", i64::from(second), 2),
            word(2, "b", other, 2),
            word(3, "c", i64::from(second), 2),
        ]
    };
    for second in 0..30 {
        beat(&mut roll, second, &words(second, i64::from(second.min(4))));
    }
    let states = |roll: &Roll, second: u32| {
        let states = roll.states(SECOND * second).into_iter();
        let found = states.map(|(_, state, silence)| (state, silence.as_secs()));
        found.collect::<Vec<_>>()
    };
    let silent = MemberState::Silent(SECOND * 35);
    let [alive, dead] = [MemberState::Alive, silent];
    assert_eq!(states(&roll, 29), [(alive, 0), (dead, 25), (alive, 0)]);
    assert_eq!(
        states(&roll, 629),
        [(alive, 600), (dead, 625), (alive, 600)],
        "what was so when the store was read the last time"
    );
    // Two of them come back later than this one.
    beat(
        &mut roll,
        630,
        &[
            word(1, "a", 630, 2),
            word(2, "b", 4, 2),
            word(3, "c", 29, 2),
        ],
    );
    let states: Vec<_> = states(&roll, 630)
        .into_iter()
        .map(|(state, _)| state)
        .collect();
    assert_eq!(states, [alive; 3]);
}

#[test]
fn a_count_is_raised_when_ones_own_fits_and_a_newcomer_waits_for_that() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    for second in 0..30 {
        beat(&mut roll, second, &[word(1, "a", i64::from(second), 1)]);
    }
    let both = [word(1, "a", 31, 1), word(2, "b", 1, 0)];
    beat(&mut roll, 31, &both);
    assert_eq!(roll.own_part(20), 10, "as many as fit for two start");
    let said = roll.says(SECOND * 32, |_| false);
    assert_eq!(said.knew, 1, "more than that are still open");
    assert_eq!(roll.says(SECOND * 33, |_| true).knew, 2);

    let mut newcomer = Roll::new(settings(), Duration::ZERO);
    let words = |second: u32, knew: u32| {
        let seen = i64::from(second);
        [word(1, "c", seen, 2), word(2, "b", seen, knew)]
    };
    for second in 0..20 {
        assert_eq!(beat(&mut newcomer, second, &words(second, 1)).knew, 0);
        assert_eq!(newcomer.own_part(20), 0);
    }
    assert_eq!(beat(&mut newcomer, 20, &words(20, 1)).knew, 2);
    assert_eq!(newcomer.own_part(20), 0, "the other has all of it");
    beat(&mut newcomer, 21, &words(21, 2));
    assert_eq!(newcomer.own_part(20), 10);
}

/// A message on its way to an upstream.
#[derive(Debug, Clone)]
struct Sent {
    ends: Duration,
    /// By the world's clock.
    ended: Option<Duration>,
    is_alone: bool,
    /// Of a lane that is shared.
    is_shared: bool,
}

#[derive(Debug)]
struct SentBeat {
    said: SelfSaid,
    sent: Duration,
    comes: Duration,
    answers: Duration,
    heard: Option<(NodeId, Vec<NodeRow>)>,
}

#[derive(Debug)]
struct Process {
    roll: Roll,
    holds: bool,
    /// A lane without books is empty for a window.
    waits: Duration,
    /// Ends of what others sent before.
    inherited: Vec<Duration>,
    beats_at: Duration,
    beat: Option<SentBeat>,
    drains: Option<Duration>,
}

#[derive(Debug)]
struct Gateway {
    name: String,
    token: u32,
    /// Its clock is ahead of the world's by so much.
    ahead: Duration,
    process: Option<Process>,
    sent: Vec<Sent>,
    is_paused: bool,
    is_cut: bool,
}

#[derive(Debug)]
struct World {
    random: fastrand::Rng,
    now: Duration,
    settings: RollSettings,
    without: Option<RollRule>,
    /// Messages in a window, messages at once, and connections elsewhere.
    limits: (u64, u64, u64),
    is_away: bool,
    rows: BTreeMap<NodeId, NodeRow>,
    next: u64,
    holder: Option<NodeId>,
    /// How long ago what was sent in the lane ended, when it was let go.
    used: Option<Vec<Duration>>,
    gateways: Vec<Gateway>,
    /// What may happen, as [`World::fate`] counts it.
    fates: Range<u32>,
    /// A delivery takes a number below the one times a number below the other, in seconds.
    longest: (u32, u32),
    /// So much was cut off since more was under way than might be.
    cut: usize,
}

impl World {
    fn new(seed: u64, without: Option<RollRule>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let dead_after = SECOND * random.u32(10..=30);
        let gateways = (0..random.u32(2..=4)).map(|at| Gateway {
            name: format!("relay-{at}"),
            token: 0,
            ahead: SECOND * random.u32(0..1_000_000),
            process: None,
            sent: Vec::new(),
            is_paused: false,
            is_cut: false,
        });
        Self {
            gateways: gateways.collect(),
            now: Duration::ZERO,
            settings: RollSettings {
                dead_after,
                share_for: dead_after * 4 + SECOND * random.u32(0..=60),
                window: SECOND * random.u32(2..=20),
            },
            limits: (random.u64(2..=24), random.u64(2..=12), random.u64(2..=20)),
            without,
            is_away: false,
            fates: 0..100,
            longest: (8, 8),
            cut: 0,
            rows: BTreeMap::new(),
            next: 1,
            holder: None,
            used: None,
            random,
        }
    }

    fn starts(&mut self, at: usize) {
        let here = self.now + self.gateways[at].ahead;
        let mut roll = Roll::new(self.settings, here);
        roll.without = self.without;
        self.gateways[at].process = Some(Process {
            roll,
            holds: false,
            waits: Duration::ZERO,
            inherited: Vec::new(),
            beats_at: here,
            beat: None,
            drains: None,
        });
    }

    /// Power, or `kill -9`: what was under way is cut.
    fn ends(&mut self, at: usize) {
        let now = self.now;
        let gateway = &mut self.gateways[at];
        gateway.process = None;
        gateway.is_paused = false;
        for sent in &mut gateway.sent {
            sent.ended.get_or_insert(now);
        }
    }

    /// Something happens to somebody.
    fn fate(&mut self) {
        let at = self.random.usize(0..self.gateways.len());
        let is_up = self.gateways[at].process.is_some();
        match self.random.u32(self.fates.clone()) {
            0..20 => self.is_away = !self.is_away,
            20..45 => self.gateways[at].is_cut = !self.gateways[at].is_cut,
            45..60 if is_up => self.gateways[at].is_paused = !self.gateways[at].is_paused,
            60..75 if is_up => self.ends(at),
            75..82 if is_up && !self.gateways[at].is_paused => {
                if let Some(process) = &mut self.gateways[at].process {
                    process.drains.get_or_insert(self.now);
                }
            }
            82..85 if !is_up => {
                self.gateways[at].token += 1;
                self.starts(at);
            }
            // Now and then all is well for a while.
            85..88 => {
                self.is_away = false;
                for gateway in &mut self.gateways {
                    (gateway.is_cut, gateway.is_paused) = (false, false);
                }
            }
            _ if !is_up => self.starts(at),
            _ => {}
        }
    }

    /// The store has a beat: what it says to it.
    fn takes(&mut self, at: usize) {
        let gateway = &self.gateways[at];
        let Some(process) = &gateway.process else {
            return;
        };
        let Some(beat) = &process.beat else { return };
        let (name, token) = (gateway.name.clone(), gateway.token.to_string());
        let node = process.roll.node().unwrap_or_else(|| {
            for row in self.rows.values_mut() {
                if row.name == name && row.token == token {
                    row.is_gone = true;
                    if self.holder == Some(row.id) {
                        (self.holder, self.used) = (None, None);
                    }
                }
            }
            self.next += 1;
            NodeId(self.next)
        });
        let fresh = NodeRow {
            id: node,
            name,
            token,
            dead_after: self.settings.dead_after,
            seen: i64::try_from(self.now.as_micros()).unwrap(),
            ..NodeRow::default()
        };
        let row = self.rows.entry(node).or_insert(fresh);
        if !row.is_gone {
            // As the store counts it: a beat may have lain on the way for long.
            let at = i64::try_from(self.now.as_micros()).unwrap();
            let third = i64::try_from(row.dead_after.as_micros() / 3).unwrap();
            row.is_apart = beat.said.is_apart || at - row.seen >= third;
            row.seen = at.max(row.seen + 1);
            row.knew = beat.said.knew;
        }
        let words: Vec<NodeRow> = self.rows.values().cloned().collect();
        let process = self.gateways[at].process.as_mut();
        if let Some(beat) = process.and_then(|process| process.beat.as_mut()) {
            beat.heard = Some((node, words));
        }
    }

    /// The time of a gateway goes on by a tick.
    fn lives(&mut self, at: usize) {
        let is_cut = self.is_away || self.gateways[at].is_cut;
        let here = self.now + self.gateways[at].ahead;
        let process = self.gateways[at].process.as_ref();
        let comes = process
            .and_then(|process| process.beat.as_ref())
            .is_some_and(|beat| beat.heard.is_none() && beat.comes <= here);
        if comes && !is_cut {
            self.takes(at);
        }
        self.carries_on(at, here);
        if self.gateways[at].is_paused || self.gateways[at].process.is_none() {
            return;
        }
        self.hears(at, here, is_cut);
        if !is_cut {
            self.takes_over(at);
            self.holds(at, here);
        }
        self.sends(at, here);
        self.leaves(at, here, is_cut);
    }

    /// What is under way ends, or is cut.
    fn carries_on(&mut self, at: usize, here: Duration) {
        let now = self.now;
        let (per_window, at_once, elsewhere) = self.limits;
        let gateway = &mut self.gateways[at];
        let Some(process) = &mut gateway.process else {
            return;
        };
        // What ends now was under way until now; who stood still finds it so when he goes on.
        let is_alone = |sent: &Sent| sent.ended.is_none() && sent.is_shared && sent.is_alone;
        if gateway.sent.iter().any(is_alone) {
            process.roll.is_sending_alone(here);
        }
        let is_over = process.roll.life(here) == OwnLife::Over;
        let is_alone_over = process.roll.is_alone_over(here);
        for sent in gateway.sent.iter_mut().filter(|sent| sent.ended.is_none()) {
            let is_cut = if sent.is_alone || !sent.is_shared {
                is_alone_over
            } else {
                is_over
            };
            // What stands still has not ended; when it goes on, it is cut before anything else.
            if is_cut || sent.ends <= now && !gateway.is_paused {
                sent.ended = Some(now);
            }
        }
        if gateway.is_paused {
            return;
        }
        if process.holds {
            let most = process.roll.holder_most(at_once, here);
            let most = most.min(process.roll.holder_most(per_window, here));
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let under_way = |sent: &&mut Sent| sent.ended.is_none() && sent.is_shared;
            for sent in gateway.sent.iter_mut().filter(under_way).skip(most) {
                sent.ended = Some(now);
                self.cut += 1;
            }
        }
        if here >= process.beats_at && process.beat.is_none() {
            let open = gateway.sent.iter();
            let open = open.filter(|sent| sent.ended.is_none() && !sent.is_shared);
            let open = open.count() as u64;
            let fits = |count: u32| open <= elsewhere / u64::from(count);
            let comes = here + TICK * self.random.u32(0..=2);
            process.beat = Some(SentBeat {
                said: process.roll.says(here, fits),
                sent: here,
                comes,
                answers: comes + TICK * self.random.u32(0..=2),
                heard: None,
            });
        }
    }

    fn hears(&mut self, at: usize, here: Duration, is_cut: bool) {
        let Some(process) = &mut self.gateways[at].process else {
            return;
        };
        let Some(beat) = process.beat.take_if(|beat| {
            let is_lost = here >= beat.sent + SECOND * 5;
            is_lost || !is_cut && beat.heard.is_some() && beat.answers <= here
        }) else {
            return;
        };
        process.beats_at = here.max(beat.sent + SECOND);
        let Some((node, words)) = beat.heard.filter(|_| !is_cut) else {
            return;
        };
        if !process
            .roll
            .hears((beat.sent, here), node, beat.said, &words)
        {
            process.roll.start_anew(here);
            process.holds = false;
        }
    }

    fn takes_over(&mut self, at: usize) {
        let Some(process) = &self.gateways[at].process else {
            return;
        };
        for dead in process.roll.dead() {
            let Some(row) = self.rows.get_mut(&dead.id) else {
                continue;
            };
            if row.seen == dead.seen {
                row.is_gone = true;
                if self.holder == Some(dead.id) {
                    (self.holder, self.used) = (None, None);
                }
            }
        }
    }

    fn holds(&mut self, at: usize, here: Duration) {
        let (now, window) = (self.now, self.settings.window);
        let gateway = &mut self.gateways[at];
        let Some(process) = &mut gateway.process else {
            return;
        };
        let is_whole = process.roll.life(here) == OwnLife::Whole;
        let shared = gateway.sent.iter().filter(|sent| sent.is_shared);
        let is_idle = shared.clone().all(|sent| sent.ended.is_some());
        let wants = process.drains.is_none();
        if process.holds && is_idle && is_whole && (!wants || self.random.u32(0..60) == 0) {
            let ends = shared
                .filter_map(|sent| sent.ended)
                .chain(process.inherited.drain(..));
            let ago = ends.map(|end| now.saturating_sub(end));
            if self.holder == process.roll.node() {
                // Who has not waited to the end cannot say what was before.
                let is_known = here >= process.waits;
                (self.holder, self.used) = (None, is_known.then(|| ago.collect()));
            }
            process.holds = false;
        } else if wants && is_whole && self.holder.is_none() && self.random.bool() {
            self.holder = process.roll.node();
            process.holds = true;
            let used = self.used.take();
            process.waits = if used.is_some() { here } else { here + window };
            let ends = used
                .into_iter()
                .flatten()
                .map(|ago| now.saturating_sub(ago));
            process.inherited = ends.collect();
        }
    }

    fn sends(&mut self, at: usize, here: Duration) {
        let (now, window) = (self.now, self.settings.window);
        let (per_window, at_once, elsewhere) = self.limits;
        let gateway = &mut self.gateways[at];
        let Some(process) = &mut gateway.process else {
            return;
        };
        if process.drains.is_some() {
            return;
        }
        let roll = &process.roll;
        let is_whole = roll.life(here) == OwnLife::Whole;
        let may_hold = process.holds && is_whole && here >= process.waits;
        let both = |part: &dyn Fn(u64) -> u64| (part(per_window), part(at_once));
        let as_holder = both(&|limit| u64::from(may_hold) * roll.holder_part(limit, here));
        let alone = both(&|limit| roll.part_alone(limit, window, here));
        let age = roll.age(here).filter(|age| *age < self.settings.share_for);
        let own = age.map_or(0, |_| roll.own_part(elsewhere));
        let inherited = process.inherited.iter();
        let inherited = inherited.filter(|end| **end + window > now).count() as u64;
        let (mut counts, mut under_way, mut open) = counted(&gateway.sent, window, now);
        counts += inherited;
        for _ in 0..6 {
            let (long, times) = self.longest;
            let ends = now + SECOND * self.random.u32(0..long) * self.random.u32(1..times);
            let mut start = |is_shared, is_alone| {
                gateway.sent.push(Sent {
                    ends,
                    ended: None,
                    is_alone,
                    is_shared,
                });
            };
            let fits = |part: (u64, u64)| counts < part.0 && under_way < part.1;
            let is_alone = !fits(as_holder);
            if !is_alone || fits(alone) {
                start(true, is_alone);
                (counts, under_way) = (counts + 1, under_way + 1);
            }
            if open < own {
                start(false, false);
                open += 1;
            }
        }
    }

    /// SIGTERM: what is under way ends, and the last word is that nothing is.
    fn leaves(&mut self, at: usize, here: Duration, is_cut: bool) {
        let Some(process) = &self.gateways[at].process else {
            return;
        };
        let Some(since) = process.drains else { return };
        let is_idle = self.gateways[at]
            .sent
            .iter()
            .all(|sent| sent.ended.is_some());
        let is_late = self.now >= since + SECOND * 30;
        if !is_idle && !is_late {
            return;
        }
        // Who is not done says no last word.
        let is_apart = process.roll.is_apart(here);
        if !is_cut && is_idle && !is_apart && !process.holds && process.beat.is_none() {
            let row = process
                .roll
                .node()
                .and_then(|node| self.rows.get_mut(&node));
            if let Some(row) = row.filter(|row| !row.is_gone) {
                (row.is_gone, row.is_draining, row.is_apart) = (true, true, false);
            }
            self.ends(at);
        } else if is_late {
            self.ends(at);
        }
    }

    /// What the upstreams see.
    fn judge(&self) -> Result<(), String> {
        let (mut counts, mut under_way, mut open) = (0, 0, 0);
        for gateway in &self.gateways {
            let here = counted(&gateway.sent, self.settings.window, self.now);
            (counts, under_way, open) = (counts + here.0, under_way + here.1, open + here.2);
        }
        let (per_window, at_once, elsewhere) = self.limits;
        if counts > per_window || under_way > at_once || open > elsewhere {
            return Err(format!(
                "{counts} of {per_window} in a window, {under_way} of {at_once} at once, {open} of {elsewhere} elsewhere, at {:?}",
                self.now
            ));
        }
        Ok(())
    }
}

/// How much of it counts in a window, is under way, and is open elsewhere.
fn counted(sent: &[Sent], window: Duration, now: Duration) -> (u64, u64, u64) {
    let (mut counts, mut under_way, mut open) = (0, 0, 0);
    for sent in sent {
        match (sent.is_shared, sent.ended) {
            (false, None) => open += 1,
            (false, Some(_)) => {}
            (true, None) => (counts, under_way) = (counts + 1, under_way + 1),
            (true, Some(end)) => counts += u64::from(end + window > now),
        }
    }
    (counts, under_way, open)
}

/// One history. How much was sent, and how much of it by somebody alone.
fn history(seed: u64, without: Option<RollRule>) -> Result<(usize, usize), String> {
    lived(&mut World::new(seed, without))
}

fn lived(world: &mut World) -> Result<(usize, usize), String> {
    for at in 0..world.gateways.len() {
        if at == 0 || world.random.bool() {
            world.starts(at);
        }
    }
    let (mut sent, mut alone) = (0, 0);
    let mut next = SECOND * 30;
    while world.now < SECOND * 300 {
        world.now += TICK;
        if world.now >= next {
            world.fate();
            next = world.now + TICK * world.random.u32(1..=60);
        }
        for at in 0..world.gateways.len() {
            world.lives(at);
        }
        world.judge()?;
        let (now, window) = (world.now, world.settings.window);
        for gateway in &mut world.gateways {
            gateway.sent.retain(|one| {
                let is_old = one.ended.is_some_and(|end| end + window <= now);
                sent += usize::from(is_old);
                alone += usize::from(is_old && one.is_alone);
                !is_old
            });
        }
    }
    Ok((sent, alone))
}

#[test]
fn whatever_happens_no_limit_is_exceeded() {
    let count = if crate::fixture::is_thorough() {
        2_000
    } else {
        100
    };
    let histories = |first: u64| {
        let (mut sent, mut alone) = (0, 0);
        for seed in (first..count as u64).step_by(2) {
            match history(seed, None) {
                Ok(these) => (sent, alone) = (sent + these.0, alone + these.1),
                Err(why) => panic!("history {seed}: {why}"),
            }
        }
        (sent, alone)
    };
    let (even, odd) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| histories(1));
        (histories(0), odd.join().unwrap())
    });
    let (sent, alone) = (even.0 + odd.0, even.1 + odd.1);
    assert!(
        sent > 100 * count && alone > 5 * count,
        "{sent}, {alone} alone"
    );
}

/// What was cut off would be in doubt, and might arrive twice.
#[test]
fn nothing_is_cut_off_where_only_the_store_was_away_or_gateways_were_restarted() {
    for (what, fates) in [("the store away", 0..20), ("restarts", 75..100)] {
        let mut sent = 0;
        for seed in 0..200 {
            let mut world = World::new(seed, None);
            (world.fates, world.longest) = (fates.clone(), (4, 2));
            sent += lived(&mut world).unwrap().0;
            assert_eq!(world.cut, 0, "{what}, history {seed}");
        }
        assert!(sent > 20_000, "{what}: {sent}");
    }
}

#[test]
fn every_rule_is_needed() {
    use RollRule::{
        Alone, Apart, ApartForAWindow, ByItsOwn, Dead, HeardAnew, Newcomer, ShareFor, Silent,
        Third, TwoThirds,
    };
    for rule in [
        Silent,
        Dead,
        Apart,
        ByItsOwn,
        HeardAnew,
        Alone,
        ApartForAWindow,
        ShareFor,
        Newcomer,
        Third,
        TwoThirds,
    ] {
        let fails = (0..2_000).find(|seed| history(*seed, Some(rule)).is_err());
        assert!(fails.is_some(), "without {rule:?} nothing is exceeded");
    }
}

#[test]
fn a_start_while_the_store_is_away_has_the_part_that_the_last_run_counted() {
    let mut roll = Roll::new(settings(), Duration::ZERO);
    assert_eq!(roll.own_part(20), 0, "nobody knows who there is");
    roll.recall(3);
    assert_eq!(roll.own_part(20), 6);
    assert_eq!(
        roll.part_alone(20, SECOND * 60, SECOND * 3_000),
        0,
        "a shared lane waits for the store"
    );
    // Once it is there, it goes by what that says.
    assert_eq!(beat(&mut roll, 0, &[word(1, "a", 1, 0)]).knew, 0);
    assert_eq!(roll.own_part(20), 0);
    beat(&mut roll, 1, &[word(1, "a", 2, 1)]);
    assert_eq!(roll.own_part(20), 20);
}
