//! The members of the queue as one of them knows them, and what it may send.
//!
//! Three distances carry everything. Who has spoken to the store less than a third of `dead_after` ago may start what it has from the
//! store; after two thirds it has cut what it began; after all of it the others take that over. Whoever looks from outside counts
//! the same way: after a third a member may soon send its part by itself, so room is left for it, and after two thirds
//! nothing is above that any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    known::{self, HeardMember, KnownMember, part_of, smaller_part},
    word::{MemberState, OwnLife, SelfSaid},
};
use crate::queue::store::{NodeId, NodeRow};

/// What a member goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollSettings {
    /// Silence after which it is dead, for the others.
    pub dead_after: Duration,
    /// For so long a member that is missing has its part.
    pub share_for: Duration,
    /// The longest window of a lane that is shared.
    pub window: Duration,
}

/// What keeps the sum of what all send within the limits. A test leaves out one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RollRule {
    /// A holder leaves room for who was not heard for a third.
    Silent,
    /// And for who was taken over.
    Dead,
    /// And for who is back and not done.
    Apart,
    /// A part is by what that member itself counts.
    ByItsOwn,
    /// What was not heard anew is silent: after a start, and after a gap of one's own.
    HeardAnew,
    /// By oneself only after `dead_after` and one window.
    Alone,
    /// *Apart* lasts until one window after the end.
    ApartForAWindow,
    /// Nothing by oneself once the others have forgotten.
    ShareFor,
    /// Nobody has a part of what others may still send.
    Newcomer,
    /// Nothing starts after a third.
    Third,
    /// What is under way is cut after two thirds, and so is what is above a limit that has shrunk.
    TwoThirds,
}

/// All that is known of the members.
#[derive(Debug)]
pub struct Roll {
    settings: RollSettings,
    started: Duration,
    node: Option<NodeId>,
    /// When the last beat that came through was sent, of this start.
    beaten: Option<Duration>,
    /// Of any.
    spoken: Option<Duration>,
    /// What the store may hold of our own count: as heard last, and the smallest part of what was sent since.
    knew: (u32, u32),
    rows: BTreeMap<NodeId, HeardMember>,
    /// What the rows come to, as of the last beat that came through.
    members: Vec<KnownMember>,
    /// Members that the last run counted: its part may be used until the store has said who there is.
    recalled: u32,
    /// Whoever was here before sent nothing by itself that still counts.
    is_clean: bool,
    /// When something was under way that was sent by oneself, last.
    alone: Option<Duration>,
    /// Only a test leaves one out.
    without: Option<RollRule>,
}

impl Roll {
    /// Of a gateway that starts, at this time of the clock all times here are of: what the machine has been running.
    pub fn new(settings: RollSettings, now: Duration) -> Self {
        Self {
            settings,
            started: now,
            node: None,
            beaten: None,
            spoken: None,
            knew: (0, 0),
            rows: BTreeMap::new(),
            members: Vec::new(),
            recalled: 0,
            is_clean: false,
            alone: None,
            without: None,
        }
    }

    fn keeps(&self, rule: RollRule) -> bool {
        self.without != Some(rule)
    }

    /// Other settings: from now on.
    pub fn set(&mut self, settings: RollSettings) {
        self.settings = settings;
    }

    /// It was taken over while it was away: it starts anew, and all it knew of the others is old. What is still under way is within
    /// the part that it had, so it goes on counting as it did.
    pub fn start_anew(&mut self, now: Duration) {
        self.started = now;
        self.node = None;
        self.beaten = None;
        self.rows.clear();
        self.members.clear();
        self.recalled = 0;
        self.is_clean = false;
    }

    /// So many members the last run counted, of which nothing is under way any more.
    pub fn recall(&mut self, members: u32) {
        self.recalled = members;
    }

    /// Whoever was here before certainly sent nothing by itself of late.
    pub fn begins_clean(&mut self) {
        self.is_clean = true;
    }

    /// Who it is, once the store has said.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Something that was sent by oneself is under way now.
    pub fn is_sending_alone(&mut self, now: Duration) {
        self.alone = Some(now);
    }

    /// What to say in a beat that is sent now. `fits`: whether what is open here is within the parts of so many members.
    pub fn says(&mut self, now: Duration, fits: impl Fn(u32) -> bool) -> SelfSaid {
        let count = self.count();
        let old = self.knew.0;
        // What was sent by oneself was within the larger part.
        let has_too_much = old != 0 && count > old && (self.counts_alone(now) || !fits(count));
        // And as long as that counts the others keep the part that it was within.
        let has_smaller = count < old && self.is_apart(now);
        let knew = if has_too_much || has_smaller || !self.is_settled(now) {
            old
        } else {
            count
        };
        self.knew.1 = smaller_part(self.knew.1, knew);
        SelfSaid {
            knew,
            is_apart: self.is_apart(now),
        }
    }

    /// A beat has come through: `sent` is taken before it was, `answered` after. Says whether it is still a node; if not, it was taken
    /// over.
    pub fn hears(
        &mut self,
        (sent, answered): (Duration, Duration),
        node: NodeId,
        said: SelfSaid,
        words: &[NodeRow],
    ) -> bool {
        let own = words.iter().find(|word| word.id == node);
        if own.is_none_or(|word| word.is_gone) {
            return false;
        }
        let before = self.beaten;
        let cut_off: BTreeMap<(String, String), bool> = self
            .members
            .iter()
            .filter_map(|member| {
                let word = &member.rows.first()?.word;
                let key = (word.name.clone(), word.token.clone());
                Some((key, self.is_cut_off(member, answered)))
            })
            .collect();
        let listed: BTreeSet<NodeId> = words.iter().map(|word| word.id).collect();
        self.rows.retain(|node, _| listed.contains(node));
        for word in words {
            let fresh = || HeardMember {
                word: word.clone(),
                // It was not there when the store was read the last time.
                heard: before,
                since: answered,
                watched: answered,
                is_over: false,
            };
            let known = self.rows.entry(word.id);
            let is_known = matches!(known, std::collections::btree_map::Entry::Occupied(_));
            let entry = known.or_insert_with(fresh);
            if !is_known {
                continue;
            }
            if entry.word.seen != word.seen {
                // It spoke after what was read the last time, which may be long ago.
                entry.heard = before;
                (entry.since, entry.watched) = (answered, answered);
            } else if before.is_none_or(|before| sent.saturating_sub(before) >= word.dead_after / 3)
            {
                entry.watched = answered;
            }
            entry.word = word.clone();
        }
        if !self.keeps(RollRule::HeardAnew) {
            for entry in self.rows.values_mut() {
                entry.heard = Some(entry.since);
            }
        }
        self.node = Some(node);
        (self.beaten, self.spoken) = (Some(sent), Some(sent));
        self.knew = (said.knew, said.knew);
        known::supersede(&mut self.rows);
        self.members = known::grouped(&self.rows, self.node, |entry| self.is_forgotten(entry));
        for member in &mut self.members {
            let Some(word) = member.rows.first().map(|entry| &entry.word) else {
                continue;
            };
            let key = (word.name.clone(), word.token.clone());
            // One that was not there before has spoken since.
            let may_be = || {
                before
                    .is_none_or(|before| answered.saturating_sub(before) >= word.dead_after * 2 / 3)
            };
            member.was_cut_off = cut_off.get(&key).copied().unwrap_or_else(may_be);
        }
        true
    }

    /// What may be done with what is leased from the store.
    pub fn life(&self, now: Duration) -> OwnLife {
        let age = self.age(now);
        let third = self.settings.dead_after / 3;
        match age {
            Some(age) if age < third || !self.keeps(RollRule::Third) => OwnLife::Whole,
            Some(age) if age < third * 2 || !self.keeps(RollRule::TwoThirds) => OwnLife::Ending,
            _ => OwnLife::Over,
        }
    }

    /// How long ago the store was spoken to.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.beaten.map(|beaten| now.saturating_sub(beaten))
    }

    /// Others that have been silent for so long, as far as we know, that they are dead: to be taken over.
    pub fn dead(&self) -> Vec<NodeRow> {
        let Some(beaten) = self.beaten else {
            return Vec::new();
        };
        let is_dead = |entry: &&HeardMember| {
            !entry.word.is_gone
                && Some(entry.word.id) != self.node
                && beaten.saturating_sub(entry.watched) >= entry.word.dead_after
        };
        let dead = self.rows.values().filter(is_dead);
        dead.map(|entry| entry.word.clone()).collect()
    }

    /// How each start of a gateway is, and for how long it was not heard. Those that have left or are forgotten are not among them.
    pub fn states(&self, now: Duration) -> Vec<(NodeRow, MemberState, Duration)> {
        let state = |entry: &HeardMember| {
            let silence = now.saturating_sub(entry.since);
            // As it is judged: while one hears nothing oneself nobody falls silent.
            let watched = self.beaten.unwrap_or_default();
            let watched = watched.saturating_sub(entry.watched);
            let word = &entry.word;
            let state = if word.is_gone {
                MemberState::Gone
            } else if watched >= word.dead_after / 3 && Some(word.id) != self.node {
                MemberState::Silent(word.dead_after.saturating_sub(watched))
            } else if word.is_draining {
                MemberState::Draining
            } else if word.is_apart {
                MemberState::Apart
            } else {
                MemberState::Alive
            };
            (word.clone(), state, silence)
        };
        let rows = self.members.iter().flat_map(|member| &member.rows);
        rows.map(state).collect()
    }

    /// Members, this one among them: all that were heard of within `share_for`, but for those that left.
    pub fn count(&self) -> u32 {
        let others = self.others().count();
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The part of a limit that is one's own: elsewhere than in a shared lane it is what may be used at any time.
    pub fn own_part(&self, limit: u64) -> u64 {
        if self.beaten.is_none() {
            // As the others keep it for what was here before.
            return part_of(limit, self.recalled);
        }
        let knew = smaller_part(self.knew.0, self.knew.1);
        if knew == 0 {
            return 0;
        }
        let part = part_of(limit, knew.max(self.count()));
        if !self.keeps(RollRule::Newcomer) {
            return part;
        }
        let parts = self.others().map(|member| self.part(limit, &member.rows));
        part.min(limit.saturating_sub(parts.sum()))
    }

    /// What the holder of a shared lane may use of its limit.
    pub fn holder_part(&self, limit: u64, now: Duration) -> u64 {
        let is_absent =
            |member: &KnownMember| member.rows.iter().any(|entry| self.is_absent(entry, now));
        self.left_by(limit, is_absent)
    }

    /// What may be under way in a shared lane, however it began: what is more is to be cut. Less than that begins, so only who may really be
    /// sending by itself is left room here.
    pub fn holder_most(&self, limit: u64, now: Duration) -> u64 {
        if !self.keeps(RollRule::TwoThirds) {
            return limit;
        }
        self.left_by(limit, |member| self.is_cut_off(member, now))
    }

    /// What may be used of the limit of a shared lane by oneself, while the store is away: nothing before its holder certainly leaves room, and
    /// nothing when that has forgotten us.
    pub fn part_alone(&self, limit: u64, window: Duration, now: Duration) -> u64 {
        let wait = if self.keeps(RollRule::Alone) {
            self.settings.dead_after + window
        } else {
            self.settings.dead_after / 3
        };
        match self.age(now) {
            Some(age) if age >= wait && self.may_still_send_alone(age) => self.own_part(limit),
            _ => 0,
        }
    }

    /// Whether what was sent by oneself has to be cut: the others will soon forget.
    pub fn is_alone_over(&self, now: Duration) -> bool {
        let most = self.settings.share_for + self.settings.dead_after * 2 / 3;
        let is_long = |spoken| now.saturating_sub(spoken) >= most;
        self.spoken.is_some_and(is_long) && self.keeps(RollRule::ShareFor)
    }

    fn may_still_send_alone(&self, age: Duration) -> bool {
        age < self.settings.share_for || !self.keeps(RollRule::ShareFor)
    }

    /// A newcomer beside others waits until they have had time to speak.
    fn is_settled(&self, now: Duration) -> bool {
        self.beaten.is_some()
            && (self.others().next().is_none()
                || now >= self.started + self.settings.dead_after / 3)
    }

    /// Whether what was sent by ourselves, or by whoever was here before, may still count at the upstreams.
    pub fn is_apart(&self, now: Duration) -> bool {
        let has_started = !self.is_clean && now <= self.started + self.apart_for();
        // A beat may come through late, when we have begun to send by ourselves; so it says so before.
        let is_late = self
            .age(now)
            .is_none_or(|age| age >= self.settings.dead_after / 3);
        has_started || is_late || self.counts_alone(now)
    }

    fn counts_alone(&self, now: Duration) -> bool {
        self.alone
            .is_some_and(|alone| now <= alone + self.apart_for())
    }

    fn apart_for(&self) -> Duration {
        if self.keeps(RollRule::ApartForAWindow) {
            self.settings.window
        } else {
            Duration::ZERO
        }
    }

    fn others(&self) -> impl Iterator<Item = &KnownMember> {
        self.members.iter().filter(|member| !member.is_own)
    }

    /// Judged by when the store was read: what has become of it since, nobody here knows. What it began at its end is given the
    /// time to be over.
    fn is_forgotten(&self, entry: &HeardMember) -> bool {
        let grace = entry.word.dead_after + self.settings.window;
        let most = self.settings.share_for + grace;
        self.beaten
            .is_some_and(|beaten| beaten.saturating_sub(entry.since) >= most)
    }

    /// The part of one member, by what it counts itself.
    fn part<'a>(&self, limit: u64, rows: impl IntoIterator<Item = &'a HeardMember>) -> u64 {
        let by_its_own = self.keeps(RollRule::ByItsOwn);
        let of = |entry: &HeardMember| {
            let knew = if by_its_own {
                entry.word.knew
            } else {
                self.count()
            };
            part_of(limit, knew)
        };
        rows.into_iter().map(of).max().unwrap_or(0)
    }

    /// A limit less the parts of the others that are so.
    fn left_by(&self, limit: u64, is_absent: impl Fn(&KnownMember) -> bool) -> u64 {
        let parts = self.members.iter().map(|member| {
            let rows = &member.rows;
            if member.is_own {
                // What was here before this start may have sent by itself; later it is in our own books.
                let before = rows
                    .iter()
                    .skip_while(|entry| Some(entry.word.id) == self.node);
                let before = before.filter(|_| self.keeps(RollRule::Apart));
                self.part(limit, before)
            } else if is_absent(member) {
                self.part(limit, rows)
            } else {
                0
            }
        });
        limit.saturating_sub(parts.sum())
    }

    /// Whether it may be sending its part by itself, or soon.
    fn is_absent(&self, entry: &HeardMember, now: Duration) -> bool {
        if entry.word.is_gone {
            return self.keeps(RollRule::Dead);
        }
        self.is_silent(entry, now, 1) || entry.word.is_apart && self.keeps(RollRule::Apart)
    }

    /// Whether it may be sending its part by itself now. Nobody begins to before it was silent for long, so one that says that it does, or
    /// may, and was heard all the time, means what was before its start: of that nothing is under way.
    fn is_cut_off(&self, member: &KnownMember, now: Duration) -> bool {
        let Some(newest) = member.rows.first() else {
            return false;
        };
        if newest.word.is_gone {
            return self.keeps(RollRule::Dead);
        }
        let is_apart = newest.word.is_apart && member.was_cut_off;
        self.is_silent(newest, now, 2) || is_apart && self.keeps(RollRule::Apart)
    }

    /// Not heard for so many thirds of the time after which it is dead.
    fn is_silent(&self, entry: &HeardMember, now: Duration, thirds: u32) -> bool {
        let heard = entry.heard.map(|heard| now.saturating_sub(heard));
        let is_silent = heard.is_none_or(|silence| silence >= entry.word.dead_after * thirds / 3);
        is_silent && self.keeps(RollRule::Silent)
    }
}

#[cfg(test)]
mod tests;
