//! This gateway among those that share the queue, while it delivers: it beats, has its part of the limits, takes lanes and gives them back, and
//! cuts off what it may not go on with.
//!
//! `members` decides and `member` speaks to the store; this is what delivery does by it. The loop and the jobs ask here.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    learned,
    member::{BeatNews, Member},
    members::word::OwnLife,
    shared::DeliveryContext,
};
use crate::{
    queue::store::{Lease, NodeId},
    route::LaneId,
};

/// How often it is looked what has to be cut off: the beats may hang.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is seen to what came late.
const LATE: Duration = Duration::from_mins(1);
/// Before its last word it waits so long for the store, at most.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Beats, and does what follows, until it is dropped.
pub(super) async fn run(shared: Arc<DeliveryContext>, member: Arc<Member>) {
    let beating = async {
        let fits = |members| fits(&shared, members);
        member.run(fits, |news| hear(&shared, news)).await;
    };
    let looking = async {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            // Nothing in here waits for a store: what has to be cut off is cut off in time.
            divide(&shared, &member);
            shared.lanes.cut_down();
            shared.is_over.send_replace(member.life() == OwnLife::Over);
        }
    };
    let keeping = async {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            member.keeps_whether_alone().await;
            give_back(&shared, &member, false).await;
        }
    };
    let late = async {
        let mut every = tokio::time::interval(LATE);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            member.see_to_the_late().await;
        }
    };
    tokio::join!(
        beating,
        looking,
        keeping,
        late,
        learned::run(&shared, &member)
    );
}

/// What a beat brought.
fn hear(shared: &DeliveryContext, news: Result<BeatNews, crate::queue::store::StoreError>) {
    match news {
        Ok(BeatNews::Heard {
            node, taken_over, ..
        }) => {
            let is_new = shared.queue.becomes(node);
            shared.lanes.becomes(node);
            if is_new || !taken_over.is_empty() {
                shared.queue.wake();
            }
        }
        Ok(BeatNews::TakenOver) => {
            shared.queue.becomes(NodeId::default());
            tracing::error!(
                event = "taken over",
                "what this gateway had is not its own any more, since it was not heard of for too long or the database has gone back: it begins anew"
            );
        }
        Ok(BeatNews::Replaced) => {
            shared.queue.becomes(NodeId::default());
            shared.is_replaced.send_replace(true);
        }
        // The store says itself that it is away.
        Err(error) => tracing::debug!(%error, "a beat did not come through"),
    }
}

/// What of every lane, and of the connections of every connector, is this gateway's now.
fn divide(shared: &DeliveryContext, member: &Member) {
    let built = shared.built();
    let mut known = shared.learned().clone();
    for (name, number) in learned::own(&built) {
        let known = known.entry(name).or_insert(number);
        *known = number.min(*known);
    }
    shared.lanes.divide(&known);
    for (name, (_, connector)) in &built.connectors {
        if let Some(connections) = connector.connections() {
            let facts = shared.lanes.facts_of(name);
            let lane = LaneId::of(name);
            connector.set_part(member.connections(&lane, &facts, connections.most));
        }
    }
}

/// Whether what is open and under way here is within the parts of so many gateways.
fn fits(shared: &DeliveryContext, members: u32) -> bool {
    let part = usize::try_from(members.max(1)).unwrap_or(usize::MAX);
    let built = shared.built();
    let fit = built.connectors.iter().all(|(name, (_, connector))| {
        let is_shared = || shared.lanes.facts_of(name).is_shared();
        let open = connector.connections();
        open.is_none_or(|now| now.open <= now.most / part || is_shared())
    });
    fit && shared.lanes.fits(members)
}

/// Takes a lane that one gateway at a time sends from; whether it is this one's now.
pub(super) async fn hold(shared: &DeliveryContext, lane: &LaneId) -> bool {
    let Some(member) = shared.lanes.member() else {
        return true;
    };
    match member.hold(lane, shared.lanes.window_of(lane)).await {
        Ok(Some(used)) => {
            shared.lanes.inherit(lane, &used);
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(%lane, %error, "a lane cannot be taken");
            false
        }
    }
}

/// Gives back the lanes that are not needed; `all`: every one that nothing is under way in.
async fn give_back(shared: &DeliveryContext, member: &Member, all: bool) {
    for leaving in shared.lanes.leaving(all) {
        let given = member.let_go(&leaving.lane, leaving.windows).await;
        if let Err(error) = given {
            tracing::debug!(lane = %leaving.lane, %error, "a lane cannot be given back");
        }
        shared.lanes.left(&leaving.lane);
    }
}

/// The end: nothing is under way any more.
pub(super) async fn leave(shared: &DeliveryContext) {
    let Some(member) = shared.lanes.member() else {
        return;
    };
    let last = async {
        give_back(shared, member, true).await;
        member.leave().await
    };
    match tokio::time::timeout(LAST_WORD, last).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => tracing::info!(
            "what this gateway sent without the queue's database still counts: the others keep its part for a while"
        ),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the others could not be told that this gateway ends");
        }
        Err(_) => tracing::warn!("the others could not be told that this gateway ends"),
    }
}

impl DeliveryContext {
    /// Whether a job that is leased so may begin now: what others may have taken over meanwhile may not.
    pub(super) fn may_begin(&self, lease: Lease) -> bool {
        let Some(member) = self.lanes.member() else {
            return true;
        };
        // What is kept here is nobody else's.
        lease.node == NodeId::default()
            || (member.life() == OwnLife::Whole && member.node() == Some(lease.node))
    }

    /// Returns when what is leased so has to be cut off, if ever.
    pub(super) async fn over(&self, lease: Lease) {
        let Some(member) = self.lanes.member() else {
            return std::future::pending().await;
        };
        if lease.node == NodeId::default() {
            return std::future::pending().await;
        }
        let is_so = || member.life() == OwnLife::Over || member.node() != Some(lease.node);
        said_and_so(self.is_over.subscribe(), is_so).await;
    }
}

/// Returns when it is said that something is over, and is so. What was said last may be from before this began: after the database was away
/// it is said for a moment longer.
async fn said_and_so(mut said: watch::Receiver<bool>, is_so: impl Fn() -> bool) {
    while said.wait_for(|is_over| *is_over).await.is_ok() {
        if is_so() {
            return;
        }
        if said.changed().await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn what_begins_when_the_database_is_back_is_not_cut_off_for_what_was_before() {
        let (said, is_so) = (watch::Sender::new(true), std::cell::Cell::new(false));
        let mut over = pin!(said_and_so(said.subscribe(), || is_so.get()));
        let mut poll = || over.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending, "said, but not so any more");
        said.send_replace(true);
        assert_eq!(poll(), Poll::Pending);
        said.send_replace(false);
        assert_eq!(poll(), Poll::Pending);
        is_so.set(true);
        assert_eq!(poll(), Poll::Pending, "not said yet");
        said.send_replace(true);
        assert_eq!(poll(), Poll::Ready(()));
    }
}
