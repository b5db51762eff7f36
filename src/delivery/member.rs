//! One gateway among those that share a queue: it beats, hears of the others, takes over who is dead, takes the lanes that are shared and
//! gives them back, and says what may be sent of a limit now.
//!
//! What follows from what is decided in `members`; this is the part that speaks to the store. A queue of one gateway has no use for it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use super::{
    clock::Clock,
    members::{
        parts::{self, LaneFacts},
        roll::{Roll, RollSettings},
        word::{MemberState, OwnLife},
    },
    timekeeper::MachineClock,
};
use crate::{
    connector::LaneLimits,
    queue::store::{NodeId, NodeRow, Retention, Standing, Store, StoreError, Used},
    route::LaneId,
};

/// From one beat to the next.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A beat without an answer for so long has not come through, as far as anybody here knows.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSettings {
    /// `cluster.name`.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Two that have the same are configured alike.
    pub config_hash: String,
    /// When who is dead, and for how long a part is kept.
    pub roll: RollSettings,
    /// Before what a dead member was sending is tried again.
    pub in_doubt_wait: Duration,
}

/// What a beat brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeatNews {
    /// It is at work as this node.
    Heard {
        /// Which.
        node: NodeId,
        /// An operator's verb or the state of a lane was written since the beat before.
        has_changed: bool,
        /// Members that were dead: what they had is taken over.
        taken_over: Vec<NodeRow>,
    },
    /// It was taken over itself: whatever it had from the store is somebody else's, and with the next beat it starts anew.
    TakenOver,
    /// The same, by a gateway that runs on a copy of its directory.
    Replaced,
}

/// What changes while it is at work.
#[derive(Debug)]
pub(super) struct MemberBooks {
    pub(super) roll: Roll,
    /// The shared lanes that it holds, and from when on it may send from each.
    held: BTreeMap<LaneId, Duration>,
    changes: Option<u64>,
    /// What is kept here of how many members it counts.
    pub(super) noted: Option<u32>,
    /// It is kept here that something may be sent without the store: before that nothing is.
    pub(super) may_be_alone: bool,
}

/// A gateway at work on a queue that others share.
pub struct Member {
    pub(super) store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: RwLock<MemberSettings>,
    /// One lane after the other is taken and given back.
    holding: tokio::sync::Mutex<()>,
    books: Mutex<MemberBooks>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("settings", &*self.settings())
            .finish_non_exhaustive()
    }
}

impl Member {
    /// By the clocks of this machine; see [`Member::new`].
    pub fn of_machine(store: Arc<dyn Store>, settings: MemberSettings) -> Self {
        Self::new(store, Arc::new(MachineClock), settings)
    }

    /// It has not spoken yet: that is for [`Member::run`] or [`Member::beat`].
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: MemberSettings) -> Self {
        let roll = Roll::new(settings.roll, clock.moment().boot);
        Self {
            store,
            clock,
            settings: RwLock::new(settings),
            holding: tokio::sync::Mutex::default(),
            books: Mutex::new(MemberBooks {
                roll,
                held: BTreeMap::new(),
                changes: None,
                noted: None,
                may_be_alone: false,
            }),
        }
    }

    pub(super) fn settings(&self) -> RwLockReadGuard<'_, MemberSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other settings, from now on: those of a reload.
    pub fn set(&self, settings: MemberSettings) {
        self.books().roll.set(settings.roll);
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.moment().boot
    }

    pub(super) fn books(&self) -> MutexGuard<'_, MemberBooks> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Beats once a second until it is dropped, and tells what each beat brought. `fits`: whether what is open here is within the parts of
    /// so many members.
    pub async fn run(
        &self,
        fits: impl Fn(u32) -> bool,
        mut tell: impl FnMut(Result<BeatNews, StoreError>),
    ) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            tell(self.beat(&fits).await);
        }
    }

    /// Says that it is at work, hears who else is, and takes over who is dead.
    ///
    /// # Errors
    /// The store cannot, or does not answer: nothing is known but that time passes.
    pub async fn beat(&self, fits: impl Fn(u32) -> bool) -> Result<BeatNews, StoreError> {
        // Before it is sent: what the others do counts from when they have it.
        let sent = self.now();
        let (node, said) = {
            let mut books = self.books();
            (books.roll.node(), books.roll.says(sent, fits))
        };
        let standing = Standing {
            node,
            knew: said.knew,
            is_apart: said.is_apart,
            ..self.standing()
        };
        let beat = answered(self.store.beat(&standing)).await?;
        let (dead, has_changed) = {
            let mut books = self.books();
            let times = (sent, self.now());
            if !books.roll.hears(times, beat.node, said, &beat.nodes) {
                books.roll.start_anew(times.1);
                books.held.clear();
                let name = &standing.name;
                let is_newer = |other: &&NodeRow| other.name == *name && other.id > beat.node;
                return Ok(match beat.nodes.iter().find(is_newer) {
                    Some(_) => BeatNews::Replaced,
                    None => BeatNews::TakenOver,
                });
            }
            let before = books.changes.replace(beat.changes);
            (books.roll.dead(), before != Some(beat.changes))
        };
        self.keep(said.knew).await;
        let mut taken_over = Vec::new();
        for silent in dead {
            let wall = self.clock.wall();
            let due = wall + self.settings().in_doubt_wait;
            if answered(self.store.take_over(&silent, due, wall)).await? {
                tracing::warn!(member = %silent.name, "a gateway went silent; what it had is taken over");
                taken_over.push(silent);
            }
        }
        Ok(BeatNews::Heard {
            node: beat.node,
            has_changed,
            taken_over,
        })
    }

    fn standing(&self) -> Standing {
        let settings = self.settings();
        Standing {
            name: settings.name.clone(),
            version: settings.version.clone(),
            config_hash: settings.config_hash.clone(),
            dead_after: settings.roll.dead_after,
            in_doubt_wait: settings.in_doubt_wait,
            ..Standing::default()
        }
    }

    /// Sees to what was leased for gateways that are gone, by an insert or a claim that came late. Once a minute is enough.
    pub async fn see_to_the_late(&self) {
        // Again in a minute, if not now.
        let _ = answered(
            self.store
                .maintain(&Retention::default(), self.clock.wall()),
        )
        .await;
    }

    /// Which node it is, once the store has said.
    pub fn node(&self) -> Option<NodeId> {
        self.books().roll.node()
    }

    /// What may be done now with what it has from the store: asked right before a delivery starts, and while one is under way.
    pub fn life(&self) -> OwnLife {
        self.books().roll.life(self.now())
    }

    /// Itself and the others, and for how long each was not heard.
    pub fn states(&self) -> Vec<(NodeRow, MemberState, Duration)> {
        self.books().roll.states(self.now())
    }

    /// Something that was sent from a shared lane without the store is under way, or has just ended.
    pub fn is_sending_alone(&self) {
        let now = self.now();
        self.books().roll.is_sending_alone(now);
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.settings().name.clone()
    }

    /// Two that have the same are configured alike.
    pub fn config_hash(&self) -> String {
        self.settings().config_hash.clone()
    }

    /// The lanes that it holds.
    pub fn held(&self) -> Vec<LaneId> {
        self.books().held.keys().cloned().collect()
    }

    /// Whether what starts now in a shared lane does so as its holder.
    pub fn sends_as_holder(&self, lane: &LaneId) -> bool {
        let now = self.now();
        let books = self.books();
        let is_whole = books.roll.life(now) == OwnLife::Whole;
        is_whole && books.held.get(lane).is_some_and(|from| now >= *from)
    }

    /// So many deliveries may be under way in a shared lane, however they began: more are to be cut off.
    pub fn most(&self, lane: &LaneId, concurrent: usize) -> usize {
        let now = self.now();
        let books = self.books();
        if books.held.contains_key(lane) {
            let concurrent = u64::try_from(concurrent).unwrap_or(u64::MAX);
            let most = books.roll.holder_most(concurrent, now);
            usize::try_from(most).unwrap_or(usize::MAX)
        } else if books.roll.is_alone_over(now) {
            0
        } else {
            usize::MAX
        }
    }

    /// How many connections of a connector it may have now.
    pub fn connections(&self, lane: &LaneId, facts: &LaneFacts, most: usize) -> usize {
        let limits = LaneLimits {
            concurrent: facts.learned.unwrap_or(most),
            rate: None,
            upload: None,
        };
        let part = self.limits(lane, facts, &limits);
        part.map_or(0, |part| part.concurrent)
    }

    /// Whether it holds a lane.
    pub fn holds(&self, lane: &LaneId) -> bool {
        self.books().held.contains_key(lane)
    }

    /// Takes a shared lane, if nobody has it: what was used of its limits of late. Where nobody can say, nothing is sent from it for
    /// `window`.
    ///
    /// # Errors
    /// The store cannot.
    pub async fn hold(&self, lane: &LaneId, window: Duration) -> Result<Option<Used>, StoreError> {
        let _one = self.holding.lock().await;
        if self.holds(lane) {
            // What was used is known here.
            let windows = Some("{}".to_owned());
            return Ok(Some(Used { windows }));
        }
        let is_whole = self.life() == OwnLife::Whole;
        let Some(node) = self.node().filter(|_| is_whole) else {
            return Ok(None);
        };
        let Some(used) = answered(self.store.hold(lane, node)).await? else {
            return Ok(None);
        };
        let now = self.now();
        let mut books = self.books();
        // It may have been taken over while it asked.
        if books.roll.node() != Some(node) {
            return Ok(None);
        }
        let wait = if used.windows.is_some() {
            Duration::ZERO
        } else {
            window
        };
        books.held.insert(lane.clone(), now + wait);
        Ok(Some(used))
    }

    /// Gives a shared lane back, from which nothing is under way, with what was used of its limits. Who has not waited to the end for what
    /// was before cannot say that.
    ///
    /// # Errors
    /// The store cannot: the lane is not sent from all the same.
    pub async fn let_go(&self, lane: &LaneId, windows: String) -> Result<(), StoreError> {
        let _one = self.holding.lock().await;
        let now = self.now();
        let (node, from) = {
            let mut books = self.books();
            (books.roll.node(), books.held.remove(lane))
        };
        let (Some(node), Some(from)) = (node, from) else {
            return Ok(());
        };
        let used = Used {
            windows: (now >= from).then_some(windows),
        };
        answered(self.store.let_go(lane, node, &used)).await
    }

    /// Its last word, when nothing is under way any more and its lanes are given back: nobody need take over anything. Whether it was said:
    /// one whose own sending still counts at the upstreams goes without, and has its part kept.
    ///
    /// # Errors
    /// The store cannot.
    pub async fn leave(&self) -> Result<bool, StoreError> {
        let now = self.now();
        let (node, said) = {
            let mut books = self.books();
            (books.roll.node(), books.roll.says(now, |_| true))
        };
        if node.is_none() || said.is_apart {
            return Ok(false);
        }
        let standing = Standing {
            node,
            knew: said.knew,
            is_draining: true,
            is_leaving: true,
            ..self.standing()
        };
        answered(self.store.beat(&standing)).await?;
        self.books().roll.start_anew(now);
        Ok(true)
    }

    /// What may be used of the limits of a lane now; `None`: nothing may start.
    pub fn limits(
        &self,
        lane: &LaneId,
        facts: &LaneFacts,
        limits: &LaneLimits,
    ) -> Option<LaneLimits> {
        let now = self.now();
        let books = self.books();
        let roll = &books.roll;
        let is_whole = roll.life(now) == OwnLife::Whole;
        let parts = if !facts.is_shared() {
            parts::divided(limits, |limit| roll.own_part(limit))
        } else if is_whole && books.held.get(lane).is_some_and(|from| now >= *from) {
            parts::divided(limits, |limit| roll.holder_part(limit, now))
        } else if books.may_be_alone {
            let window = parts::window(limits);
            parts::divided(limits, |limit| roll.part_alone(limit, window, now))
        } else {
            return None;
        };
        (!parts::is_nothing(&parts)).then_some(parts)
    }
}

/// What the store answers, in time.
pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in 5 s".to_owned())))
}
