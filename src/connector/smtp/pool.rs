//! The connections of one connector, the messages that wait for one, and who gets which.
//!
//! It lends and takes back, opens as many as [`Width`] allows, and holds no conversation. What it holds never outlives it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    open::{Opened, Opener},
    seat::{Berth, Follower, Group, Lent, Seat},
    state::{NOT_EARLY, PoolState},
    width::May,
};
use crate::{
    connector::settings::Pipelining,
    mail::{
        outcome::{Obstacle, ObstacleKind},
        reply::Reply,
    },
    smtp::client::{class::Crowding, dialogue::Reuse},
    telemetry::maillog,
};

/// A number that was learned is logged once it has stood for the first, and not more often than the second.
const LOGGED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// See the module.
pub(super) struct Pool {
    pub(super) shared: Arc<PoolContext>,
}

pub(super) struct PoolContext {
    opener: Arc<Opener>,
    state: Mutex<PoolState>,
    /// Openings, leave-taking, clocks; they end with the pool.
    tasks: Mutex<JoinSet<()>>,
}

impl Pool {
    pub(super) fn new(opener: Opener) -> Self {
        Self {
            shared: Arc::new(PoolContext {
                state: Mutex::new(PoolState::new(opener.settings.max_connections)),
                opener: Arc::new(opener),
                tasks: Mutex::default(),
            }),
        }
    }

    pub(super) fn opener(&self) -> &Opener {
        &self.shared.opener
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        self.shared.state()
    }

    /// A connection for a message, in the order of those who ask; `group` is made if it has to wait. `again`: it had its turn and
    /// lost it.
    pub(super) async fn turn(
        &self,
        group: impl Fn() -> Option<Group>,
        again: bool,
        deadline: Instant,
    ) -> Lent {
        let idle_timeout = self.shared.opener.settings.idle_timeout;
        let mut number = again.then_some(0);
        loop {
            let hear = loop {
                // The youngest: it is the likeliest to be alive. (If it is not, its first write finds out.)
                let seat = self.shared.state().idle.pop();
                match seat {
                    Some(seat) if seat.link.is_too_old() => self.shared.leave(seat),
                    Some(seat) if seat.link.idle_since.elapsed() < idle_timeout => {
                        return Lent::Seat(Box::new(seat));
                    }
                    Some(_) => {}
                    None => {
                        let group = group();
                        let mut state = self.shared.state();
                        if state.is_stopping {
                            return Lent::Late;
                        }
                        // Another one may have come meanwhile.
                        if state.idle.is_empty() {
                            let number = *number.get_or_insert_with(|| state.number());
                            break state.enqueue(number, group);
                        }
                    }
                }
            };
            self.shared.open_more();
            match timeout_at(deadline, hear).await {
                Ok(Ok(Lent::Renew)) => {}
                Ok(lent) => return lent.unwrap_or(Lent::Untouched),
                // Nobody else has a connection either.
                Err(_) if self.shared.state().open == 0 => {
                    return Lent::Obstacle(Obstacle::down("there was no connection in time"));
                }
                Err(_) => return Lent::Late,
            }
        }
    }

    /// The message whose group may stand behind the dot that is about to be written. Its octets are appended to those of the link;
    /// so many questions are in them.
    pub(super) fn next_behind(&self, seat: &mut Seat) -> Option<usize> {
        let settings = &self.shared.opener.settings;
        let link = &mut seat.link;
        let is_fit = link.is_proven
            && link.used + 1 < settings.messages_per_connection
            && !link.is_too_old();
        if !is_fit {
            return None;
        }
        let mut state = self.shared.state();
        if state.not_early.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let fits = |group: &Group| {
            Arc::ptr_eq(&group.offered, &link.offered)
                || group.offered.is_written_like(&link.offered)
        };
        let next = state.first_that(fits)?;
        drop(state);
        let group = next.group?;
        link.out.extend_from_slice(&group.octets);
        seat.follower = Some(Follower { tell: next.tell });
        Some(group.questions)
    }

    /// What becomes of a connection after a message. `delivered`: its dot was answered with 2xx. Where a group stands behind that dot,
    /// it is heard whether the replies fitted.
    pub(super) fn done_with(
        &self,
        mut seat: Seat,
        reuse: Reuse,
        delivered: bool,
    ) -> Option<oneshot::Receiver<bool>> {
        let follower = seat.follower.take();
        if reuse != Reuse::Never {
            self.shared.state().answered = Some(Instant::now());
        }
        if delivered {
            seat.link.is_proven = true;
            let mut state = self.shared.state();
            let waits = follower.is_some() || !state.waiting.is_empty();
            let busy = state.idle.is_empty() && waits;
            let trial = std::mem::take(&mut seat.berth.is_trial);
            state.width.delivered(busy, trial);
            drop(state);
            if busy {
                self.shared.open_more();
            }
        }
        if reuse == Reuse::Never || seat.link.is_spoilt {
            return None;
        }
        seat.link.used += 1;
        seat.link.reset = reuse == Reuse::AfterReset;
        if let Some(follower) = follower {
            // A group is on its way: the connection is good for that message alone.
            if reuse != Reuse::AsItIs {
                return None;
            }
            let (tell, hear) = oneshot::channel();
            seat.before = Some(tell);
            let _ = follower.tell.send(Lent::Early(Box::new(seat)));
            return Some(hear);
        }
        let settings = &self.shared.opener.settings;
        if !seat.link.is_drained() {
            return None;
        }
        let is_over = self.is_over_its_part();
        if seat.link.used >= settings.messages_per_connection || seat.link.is_too_old() || is_over {
            self.shared.leave(seat);
        } else {
            self.shared.give(seat);
        }
        None
    }

    /// The upstream took the group behind a dot for something else, or not at all.
    pub(super) fn no_more_early(&self) {
        let until = Instant::now() + NOT_EARLY;
        let before = self.shared.state().not_early.replace(until);
        if before.is_none_or(|until| until <= Instant::now()) {
            maillog::connector_not_pipelined(self.shared.opener.name.as_str());
        }
    }

    /// A reply on an open connection said that there are too many: whether it means that here, and the connection is to be closed.
    pub(super) fn crowded(&self, seat: &mut Seat, reply: &Reply) -> bool {
        let learned = {
            let mut state = self.shared.state();
            let mut others = state.others();
            others.open = others.open.saturating_sub(1);
            let trial = seat.berth.is_trial;
            state.width.crowded(others, true, trial, Instant::now())
        };
        if learned.is_some() {
            seat.berth.is_refused = true;
            self.shared.log_later(reply.clone());
        }
        learned.is_some()
    }

    /// An open connection was lost before a message had begun: the upstream is down, for those who wait as well.
    pub(super) fn is_down(&self, obstacle: &Obstacle) {
        self.shared.shut(obstacle);
    }

    /// No message that waits begins any more.
    pub(super) fn stop(&self) {
        for waiter in self.shared.state().stop() {
            let _ = waiter.tell.send(Lent::Late);
        }
    }

    /// A place for a connection that carries no mail.
    pub(super) fn place_for_probe(&self) -> Option<Berth> {
        // An idle connection gives way.
        let idle = {
            let mut state = self.shared.state();
            let is_full = state.open + state.opening >= state.width.now();
            if is_full { state.idle.pop() } else { None }
        };
        drop(idle);
        let mut state = self.shared.state();
        if state.open + state.opening >= state.width.now() {
            return None;
        }
        state.open += 1;
        Some(self.shared.berth(false))
    }
}

impl PoolContext {
    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        // What is inside stays whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        // At the end of the process a connection may be dropped by nobody.
        if let Ok(runtime) = Handle::try_current() {
            tasks.spawn_on(task, &runtime);
        }
    }

    fn berth(self: &Arc<Self>, is_trial: bool) -> Berth {
        let shared = Arc::downgrade(self);
        Berth::new(is_trial, move |is_refused| {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut state = shared.state();
            state.open = state.open.saturating_sub(1);
            if !is_refused {
                state.closed = Some(Instant::now());
            }
            drop(state);
            shared.open_more();
        })
    }

    /// Opens as many connections as messages wait for, and as there may be.
    pub(super) fn open_more(self: &Arc<Self>) {
        let mut openings = Vec::new();
        let mut timed = None;
        {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.tell.is_closed());
            let now = Instant::now();
            while state.waiting.len() > state.opening {
                match state.width.may_open(state.opening + state.open, now) {
                    May::Open { trial } => {
                        state.opening += 1;
                        openings.push(trial);
                    }
                    May::Wait(at) => {
                        timed = (!state.is_timed).then_some(at);
                        state.is_timed = true;
                        break;
                    }
                    May::Full => break,
                }
            }
        }
        for trial in openings {
            let opening = NewConnection {
                shared: Arc::downgrade(self),
                trial,
                is_over: false,
            };
            self.spawn(open(Arc::clone(&self.opener), opening));
        }
        if let Some(at) = timed {
            let shared = Arc::downgrade(self);
            self.spawn(async move {
                sleep_until(at).await;
                if let Some(shared) = shared.upgrade() {
                    shared.state().is_timed = false;
                    shared.open_more();
                }
            });
        }
    }

    /// To the first message that waits, or kept for the next.
    pub(super) fn give(self: &Arc<Self>, mut seat: Seat) {
        let idle_timeout = self.opener.settings.idle_timeout;
        seat.link.idle_since = Instant::now();
        loop {
            let waiter = {
                let mut state = self.state();
                match state.first() {
                    Some(waiter) => waiter,
                    None if idle_timeout.is_zero() => break,
                    None => {
                        seat.link.was_idle = true;
                        state.idle.push(seat);
                        // One for all: a lone connection is idle and busy again a thousand times a second.
                        let is_tended = std::mem::replace(&mut state.is_tended, true);
                        drop(state);
                        if !is_tended {
                            self.spawn(expire(Arc::downgrade(self), idle_timeout));
                        }
                        return;
                    }
                }
            };
            match waiter.tell.send(Lent::Seat(Box::new(seat))) {
                // Nobody is there any more.
                Err(Lent::Seat(back)) => seat = *back,
                _ => return,
            }
        }
        self.leave(seat);
    }

    /// Says QUIT behind the caller's back.
    pub(super) fn leave(&self, seat: Seat) {
        self.spawn(seat.quit());
    }

    fn opened(self: &Arc<Self>, found: Opened, trial: bool) {
        let mut link = found.link;
        let is_full = self.opener.settings.pipelining == Pipelining::Full;
        let may_be_early = is_full && link.offered.pipelining;
        {
            let mut state = self.state();
            state.opening = state.opening.saturating_sub(1);
            state.open += 1;
            state.answered = Some(Instant::now());
            match &state.offered {
                // One and the same for all, so that they are compared at a glance.
                Some(known) if *known == link.offered => link.offered = Arc::clone(known),
                _ => state.offered = Some(Arc::clone(&link.offered)),
            }
        }
        self.give(Seat {
            link,
            follower: None,
            before: None,
            berth: self.berth(trial),
        });
        if may_be_early {
            for waiter in self.state().without_group() {
                let _ = waiter.tell.send(Lent::Renew);
            }
        }
    }

    /// No connection: either there are too many, and the messages wait for the others, or all that wait hear of it.
    fn not_opened(self: &Arc<Self>, obstacle: &Obstacle, crowding: Option<Crowding>, trial: bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.opening = state.opening.saturating_sub(1);
        let others = state.others();
        let learned = crowding.and_then(|crowding| {
            let said = crowding == Crowding::Said;
            state.width.crowded(others, said, trial, now)
        });
        drop(state);
        if learned.is_some() {
            self.log_later(obstacle.reply.clone());
        } else {
            self.shut(obstacle);
        }
        self.open_more();
    }

    /// The lane stops: those who wait are told at once. What is down begins anew with few connections.
    fn shut(&self, obstacle: &Obstacle) {
        let waiting = {
            let mut state = self.state();
            if obstacle.kind == ObstacleKind::Down {
                state.width.down(Instant::now());
            }
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting {
            let _ = waiter.tell.send(Lent::Obstacle(obstacle.clone()));
        }
    }

    /// Once the number that was learned has stood for a moment, it is logged.
    fn log_later(self: &Arc<Self>, reply: Reply) {
        let shared = Arc::downgrade(self);
        let since = self.state().width.learned().map(|learned| learned.since);
        self.spawn(async move {
            tokio::time::sleep(LOGGED.0).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let now = Instant::now();
            let mut state = shared.state();
            let learned = state.width.learned().filter(|l| Some(l.since) == since);
            let is_due = state.logged.is_none_or(|at| now >= at + LOGGED.1);
            if let Some(learned) = learned.filter(|_| is_due) {
                state.logged = Some(now);
                drop(state);
                maillog::connector_learned(
                    shared.opener.name.as_str(),
                    learned.connections,
                    &reply,
                );
            }
        });
    }
}

/// A connection that is being opened; dropped before it was, also by a panic, it gives its place back.
struct NewConnection {
    shared: Weak<PoolContext>,
    trial: bool,
    is_over: bool,
}

impl Drop for NewConnection {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(shared) = self.shared.upgrade()
        {
            let obstacle = Obstacle::down("the opening of a connection broke off");
            shared.not_opened(&obstacle, None, self.trial);
        }
    }
}

async fn open(opener: Arc<Opener>, mut opening: NewConnection) {
    let result = opener.open(opener.deadline()).await;
    let Some(shared) = opening.shared.upgrade() else {
        return;
    };
    opening.is_over = true;
    match result {
        Ok(found) => shared.opened(found, opening.trial),
        Err(failed) => shared.not_opened(&failed.obstacle, failed.crowding, opening.trial),
    }
}

/// Closes connections that nobody used for the idle time, until none is left.
async fn expire(shared: Weak<PoolContext>, after: Duration) {
    loop {
        let (next, old) = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut state = shared.state();
            let is_old = |seat: &mut Seat| seat.link.idle_since.elapsed() >= after;
            let old: Vec<Seat> = state.idle.extract_if(.., is_old).collect();
            let since = state.idle.iter().map(|seat| seat.link.idle_since).min();
            state.is_tended = since.is_some();
            (since, old)
        };
        if let Some(shared) = shared.upgrade() {
            for seat in old {
                shared.leave(seat);
            }
        }
        match next {
            Some(since) => sleep_until(since + after).await,
            None => return,
        }
    }
}
