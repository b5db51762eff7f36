//! The lanes where several gateways send: what this one may use of their limits now, which of them it has, and what it has to cut off.
//!
//! A [`Member`] knows the others and holds the lanes; here is what follows for the gates. A gateway alone has no use for it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    LanePermits, Lanes, entry::LaneEntry, gate::GateState, now, table::LaneTable,
    window::UsedWindows,
};
use crate::{
    delivery::{
        member::Member,
        members::parts::{self, LaneFacts},
    },
    queue::store::Used,
    route::{ConnectorName, LaneId},
};

/// A lane without mail is given back after this.
const IDLE: Duration = Duration::from_mins(1);

/// A lane that this gateway gives back.
pub(in crate::delivery) struct LeavingLane {
    pub(in crate::delivery) lane: LaneId,
    /// What was used of it of late, for the next one.
    pub(in crate::delivery) windows: String,
}

impl LaneEntry {
    /// Whether there is anything that the members share.
    fn is_divided(&self, lane: &LaneId) -> bool {
        lane.mailbox.is_none() || self.facts.is_mailbox
    }

    /// As much of the limits as is this gateway's now; whether that has changed.
    pub(super) fn share(&mut self, lane: &LaneId, member: &Member) -> bool {
        if !self.is_divided(lane) {
            return false;
        }
        let part = member.limits(lane, &self.facts, &self.limits);
        self.gate.share(part.filter(|_| !self.is_leaving))
    }

    /// Something begins that may be cut off.
    pub(super) fn runs(&mut self, cut: &Arc<Notify>) {
        self.running.retain(|other| other.strong_count() > 0);
        self.running.push(Arc::downgrade(cut));
    }

    /// More is under way than may be: the newest are cut off.
    fn cut_to(&mut self, most: usize) {
        let over = self.gate.under_way().saturating_sub(most);
        for cut in self
            .running
            .iter()
            .rev()
            .filter_map(Weak::upgrade)
            .take(over)
        {
            cut.notify_one();
        }
    }
}

impl Lanes {
    /// The gateway among those that share the queue.
    pub(in crate::delivery) fn member(&self) -> Option<&Arc<Member>> {
        self.member.as_ref()
    }

    /// What each connector's upstream was found to take, here or by another gateway; then what is this gateway's of every lane.
    pub(in crate::delivery) fn divide(&self, learned: &HashMap<ConnectorName, usize>) {
        let Some(member) = &self.member else {
            return;
        };
        let mut is_other = false;
        {
            let mut table = self.table();
            for (lane, entry) in &mut table.lanes {
                if lane.mailbox.is_none() {
                    entry.facts.learned = learned.get(&lane.connector).copied();
                }
                is_other |= entry.share(lane, member);
            }
        }
        self.wake_jobs.notify_waiters();
        // A look at the queue costs the others something: where all is as it was, nobody needs one.
        if is_other {
            self.wake.notify_one();
        }
    }

    /// How the lane of a connector is shared, as it is now.
    pub(in crate::delivery) fn facts_of(&self, connector: &ConnectorName) -> LaneFacts {
        let table = self.table();
        let entry = table.lanes.get(&LaneId::of(connector));
        entry.map(|entry| entry.facts).unwrap_or_default()
    }

    /// The lane among those of a connector and a mailbox of it that one gateway at a time has, and not this one.
    pub(in crate::delivery) fn unheld(
        &self,
        connector: &ConnectorName,
        mailbox: Option<&LaneId>,
    ) -> Option<LaneId> {
        let member = self.member.as_ref()?;
        let mut table = self.table();
        let mailbox = mailbox.map(LaneId::of_mailbox);
        let lanes = [Some(LaneId::of(connector)), mailbox];
        lanes.into_iter().flatten().find(|lane| {
            // A mailbox that was not seen yet becomes known.
            let entry = table.mailbox(lane, now()).ok().flatten();
            let is_shared = entry.is_some_and(|entry| {
                entry.share(lane, member);
                let may_ask = match entry.gate.state() {
                    GateState::Open => true,
                    GateState::Closed { until, probing } => until <= now() && !probing,
                    GateState::Paused { .. } | GateState::Stopped => false,
                };
                // One that has a part of its own while the database is away needs no holder.
                entry.is_divided(lane)
                    && entry.facts.is_shared()
                    && may_ask
                    && entry.gate.is_barred()
            });
            is_shared && !member.holds(lane)
        })
    }

    /// Before what was used of a lane counts no more.
    pub(in crate::delivery) fn window_of(&self, lane: &LaneId) -> Duration {
        let table = self.table();
        let limits = table.lanes.get(lane).map(|entry| entry.limits);
        limits.map_or(Duration::ZERO, |limits| parts::window(&limits))
    }

    /// A lane is this gateway's now.
    pub(in crate::delivery) fn inherit(&self, lane: &LaneId, used: &Used) {
        let windows = used.windows.as_deref();
        let windows = windows.and_then(|text| serde_json::from_str::<UsedWindows>(text).ok());
        {
            let mut table = self.table();
            if let (Some(entry), Some(member)) = (table.lanes.get_mut(lane), &self.member) {
                entry.is_vain = false;
                entry.ended = Some(now());
                if let Some(windows) = windows {
                    entry.gate.inherit(&windows, now());
                }
                entry.share(lane, member);
            }
        }
        self.wake_all();
    }

    /// Lanes of this gateway that nothing is under way in, and that had no mail for a while or whose probe was in vain: nothing starts in them
    /// until [`Lanes::left`]. `all`: the others, too.
    pub(in crate::delivery) fn leaving(&self, all: bool) -> Vec<LeavingLane> {
        let Some(member) = &self.member else {
            return Vec::new();
        };
        let now = now();
        let mut table = self.table();
        let mut leaving = Vec::new();
        for lane in member.held() {
            let Some(entry) = table.lanes.get_mut(&lane) else {
                // It is configured no more.
                let windows = "{}".to_owned();
                leaving.push(LeavingLane { lane, windows });
                continue;
            };
            let is_idle = entry.ended.is_none_or(|at| now >= at + IDLE);
            let Some(used) = entry
                .gate
                .used(now)
                .filter(|_| is_idle || entry.is_vain || all)
            else {
                continue;
            };
            entry.is_leaving = true;
            entry.share(&lane, member);
            let windows = used.written();
            leaving.push(LeavingLane { lane, windows });
        }
        leaving
    }

    /// One was given back.
    pub(in crate::delivery) fn left(&self, lane: &LaneId) {
        let mut table = self.table();
        if let (Some(entry), Some(member)) = (table.lanes.get_mut(lane), &self.member) {
            (entry.is_leaving, entry.is_vain) = (false, false);
            entry.gate.forget_used();
            entry.share(lane, member);
        }
    }

    /// What is more than there may be now is cut off, and the member hears of what goes on without the queue's database.
    pub(in crate::delivery) fn cut_down(&self) {
        let Some(member) = &self.member else {
            return;
        };
        let mut table = self.table();
        let LaneTable { lanes, .. } = &mut *table;
        for (lane, entry) in lanes
            .iter_mut()
            .filter(|(_, entry)| entry.gate.under_way() > 0)
        {
            if entry.alone > 0 {
                member.is_sending_alone();
            }
            if entry.is_divided(lane) && entry.facts.is_shared() {
                entry.cut_to(member.most(lane, entry.limits.concurrent));
            }
        }
    }

    /// Whether so many gateways would leave this one what is under way in lanes that are not shared.
    pub(in crate::delivery) fn fits(&self, members: u32) -> bool {
        let members = u64::from(members.max(1));
        let table = self.table();
        table.lanes.iter().all(|(lane, entry)| {
            let most = u64::try_from(entry.limits.concurrent).unwrap_or(u64::MAX) / members;
            let under_way = u64::try_from(entry.gate.under_way()).unwrap_or(u64::MAX);
            !entry.is_divided(lane) || entry.facts.is_shared() || under_way <= most
        })
    }

    /// Whatever begins here from now on may be cut off, and counts as sent alone where it is.
    pub(super) fn begins(&self, table: &mut LaneTable, permits: &mut LanePermits) {
        let Some(member) = &self.member else {
            return;
        };
        let cut = Arc::new(Notify::new());
        for permit in permits.each() {
            let Some(entry) = table.lanes.get_mut(&permit.lane) else {
                continue;
            };
            entry.runs(&cut);
            if entry.is_divided(&permit.lane)
                && entry.facts.is_shared()
                && !member.sends_as_holder(&permit.lane)
            {
                permit.is_alone = true;
                entry.alone += 1;
                member.is_sending_alone();
            }
        }
        permits.cut = Some(cut);
    }

    /// A delivery of this lane is over.
    pub(super) fn ends(&self, entry: &mut LaneEntry, is_alone: bool, at: Instant) {
        entry.ended = Some(at);
        if is_alone {
            entry.alone = entry.alone.saturating_sub(1);
            if let Some(member) = &self.member {
                member.is_sending_alone();
            }
        }
    }
}
