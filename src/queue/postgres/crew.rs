//! The connections at work: each is carried by a task of its own, which takes what waits, and opens a new one when it is lost.
//!
//! What has certainly not been done is done again on the new one. What may have been done is done again only where twice is as
//! good as once.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::SharedClock,
    durable::DurabilityFacts,
    fault::DbFault,
    link::{DbLink, Later},
    reach::Unreached,
    settings::{Server, Settings},
};
use crate::{mail::health::Health, queue::store::StoreError};

/// WriteWork that may wait for a connection; more waits in its callers.
pub(super) const WAITING: usize = 1024;
/// The servers are tried at most this often.
const TRIAL: Duration = Duration::from_millis(900);
/// Conflicts with other transactions until somebody is told.
pub(super) const CONFLICTS: u32 = 5;
/// Connections that turn out to be lost until somebody is told: all of them are after a restart of the server, each is found once.
pub(super) const LOSSES: u32 = 2;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) settings: Settings,
    pub(super) clock: SharedClock,
    /// Since when the database is away, and why.
    away: Mutex<Option<(Instant, String)>>,
    is_full: AtomicBool,
    /// What was written last got no answer in time.
    is_silent: AtomicBool,
    /// The server that was good last.
    place: AtomicUsize,
    /// How it keeps what it commits.
    facts: Mutex<Option<DurabilityFacts>>,
    /// Connections of an earlier one are not used any more.
    epoch: AtomicU64,
}

impl Access {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            clock: SharedClock::new(settings.callers_clock),
            settings,
            away: Mutex::new(None),
            is_full: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            place: AtomicUsize::new(0),
            facts: Mutex::new(None),
            epoch: AtomicU64::new(0),
        }
    }

    /// A connection, whether or not it was tried just before.
    pub(super) async fn open(&self) -> Result<DbLink, Unreached> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let first = self.place.load(Ordering::Relaxed);
        let opened = DbLink::open(&self.settings, &self.clock, first).await;
        let mut link = opened.inspect_err(|unreached| {
            if unreached.is_unfit {
                self.epoch.fetch_add(1, Ordering::AcqRel);
            }
        })?;
        link.epoch = epoch;
        self.place.store(link.place, Ordering::Relaxed);
        self.know(link.facts.clone());
        Ok(link)
    }

    /// How the database keeps what it commits, as it said last. `None`: it was not asked yet.
    pub(super) fn facts(&self) -> Option<DurabilityFacts> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.clone()
    }

    fn know(&self, facts: DurabilityFacts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// The server that was good last.
    pub(super) fn server(&self) -> Option<&Server> {
        self.settings.hosts.get(self.place.load(Ordering::Relaxed))
    }

    /// Somebody has changed how it keeps what it commits. Where that is not enough any more it counts as away, for all connections.
    pub(super) fn keeps(&self, facts: DurabilityFacts) -> Result<(), StoreError> {
        let Some(why) = facts.refusal(self.settings.durability) else {
            self.know(facts);
            return Ok(());
        };
        let server = self.server().map(ToString::to_string).unwrap_or_default();
        let why = format!("{server}: {why}");
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.went_away(&why);
        Err(DbFault::Away(why).into_store_error())
    }

    fn went_away(&self, why: &str) {
        let was = self.away().replace((Instant::now(), why.to_owned()));
        if was.is_none() {
            // What was connected before may be of no more use, and each of it would find out by itself.
            self.epoch.fetch_add(1, Ordering::AcqRel);
            tracing::debug!(error = why, "the database is away");
        }
    }

    pub(super) fn health(&self) -> Health {
        if self.away().is_some() || self.is_silent.load(Ordering::Acquire) {
            Health::Failing
        } else if self.is_full.load(Ordering::Acquire) {
            Health::Full
        } else {
            Health::Fine
        }
    }

    fn away(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, opened if there is none; the servers are asked for it once a second at most.
    pub(super) async fn linked<'a>(
        &self,
        link: &'a mut Option<DbLink>,
    ) -> Result<&'a mut DbLink, DbFault> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if link.as_ref().is_none_or(|link| link.epoch != epoch) {
            *link = None;
            if let Some((at, why)) = &mut *self.away() {
                if at.elapsed() < TRIAL {
                    return Err(DbFault::Away(why.clone()));
                }
                // One of the connections tries it for all.
                *at = Instant::now();
            }
            match self.open().await {
                Ok(opened) => {
                    if self.away().take().is_some() {
                        tracing::debug!("the database is back");
                    }
                    *link = Some(opened);
                }
                Err(unreached) => {
                    self.went_away(&unreached.why);
                    return Err(DbFault::Away(unreached.why));
                }
            }
        }
        link.as_mut()
            .ok_or_else(|| DbFault::Away("there is no connection".to_owned()))
    }

    /// What a fault leaves of the connection, and says of the database.
    pub(super) async fn after(&self, link: &mut Option<DbLink>, fault: &DbFault) {
        if fault.is_full() {
            self.is_full.store(true, Ordering::Release);
        }
        let is_sound = match (fault, &*link) {
            (DbFault::Refused(_) | DbFault::Store(_), Some(link)) => link.roll_back().await.is_ok(),
            _ => false,
        };
        if !is_sound {
            *link = None;
        }
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        self.is_full.store(false, Ordering::Release);
        self.is_silent.store(false, Ordering::Release);
    }

    /// It was not, on this connection: where that got no answer in time, neither will others.
    pub(super) fn wrote_not(&self, link: Option<&DbLink>) {
        if link.is_some_and(DbLink::is_silent) {
            self.is_silent.store(true, Ordering::Release);
        }
    }
}

/// Something to be done on a connection; it answers by itself.
type ErrandWork = Box<dyn for<'a> FnMut(&'a mut DbLink) -> Later<'a, Result<(), DbFault>> + Send>;

/// See [`Crew::on`].
pub(super) struct Errand {
    deed: ErrandWork,
    fail: Box<dyn FnOnce(StoreError) + Send>,
    /// Twice is as good as once.
    repeats: bool,
}

/// What is done one at a time, each in its own transaction.
#[derive(Debug, Clone)]
pub(super) struct Crew {
    errands: mpsc::Sender<Errand>,
}

impl Crew {
    /// With the inbox for those who carry it out.
    pub(super) fn new() -> (Self, Inbox) {
        let (errands, inbox) = mpsc::channel(WAITING);
        (Self { errands }, Arc::new(tokio::sync::Mutex::new(inbox)))
    }

    /// Has it done, and waits for its value. When nobody waits any more it is done all the same.
    pub(super) async fn on<T, F>(&self, repeats: bool, mut deed: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnMut(&'a mut DbLink) -> Later<'a, Result<T, DbFault>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Mutex::new(Some(reply)));
        let told = Arc::clone(&reply);
        let fail = Box::new(move |error| tell(&told, Err(error)));
        let deed: ErrandWork = Box::new(move |link| {
            let (work, reply) = (deed(link), Arc::clone(&reply));
            Box::pin(async move {
                let value = work.await?;
                tell(&reply, Ok(value));
                Ok(())
            })
        });
        let errand = Errand {
            deed,
            fail,
            repeats,
        };
        self.errands.send(errand).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// What waits for a connection.
pub(super) type Inbox = Arc<tokio::sync::Mutex<mpsc::Receiver<Errand>>>;

type ErrandReply<T> = Mutex<Option<oneshot::Sender<Result<T, StoreError>>>>;

fn tell<T>(reply: &ErrandReply<T>, value: Result<T, StoreError>) {
    let reply = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
    // What nobody waits for gives back what it holds when it is dropped.
    let _ = reply.map(|reply| reply.send(value));
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

/// Carries errands on one connection until there are no more.
pub(super) async fn carry(access: Arc<Access>, inbox: Inbox) {
    let mut link = None;
    loop {
        let next = inbox.lock().await.recv().await;
        let Some(errand) = next else { return };
        carry_out(&access, &mut link, errand).await;
    }
}

async fn carry_out(access: &Access, link: &mut Option<DbLink>, mut errand: Errand) {
    let (mut losses, mut conflicts) = (0, 0);
    loop {
        let done = match access.linked(link).await {
            Ok(link) => (errand.deed)(link).await,
            Err(fault) => return (errand.fail)(fault.into_store_error()),
        };
        let Err(fault) = done else {
            return;
        };
        access.after(link, &fault).await;
        let is_again = match &fault {
            DbFault::Away(_) => true,
            DbFault::Unknown(_) => errand.repeats,
            _ => false,
        };
        if is_again && losses < LOSSES {
            losses += 1;
        } else if fault.is_conflict() && conflicts < CONFLICTS {
            conflicts += 1;
        } else {
            return (errand.fail)(fault.into_store_error());
        }
    }
}

/// Has something done on a connection, with values of its own for each try.
macro_rules! errand {
    ($store:expr, $repeats:expr, [$($own:ident),*], $link:ident => $work:expr) => {
        {
            $(let $own = $own.clone();)*
            let work = $store.crew.on($repeats, move |$link| {
                $(let $own = $own.clone();)*
                Box::pin(async move { $work.await })
            });
            work.await
        }
    };
}
pub(super) use errand;
