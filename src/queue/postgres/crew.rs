//! The connections at work: each is carried by a task of its own, which takes what waits, and opens a new one when it is lost.
//!
//! What has certainly not been done is done again on the new one. What may have been done is done again only where twice is as
//! good as once.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::SharedClock,
    fault::DbFault,
    link::{DbLink, Later},
    settings::Settings,
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
}

impl Access {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            clock: SharedClock::new(settings.callers_clock),
            settings,
            away: Mutex::new(None),
            is_full: AtomicBool::new(false),
        }
    }

    pub(super) fn health(&self) -> Health {
        if self.away().is_some() {
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
        if link.is_none() {
            if let Some((at, why)) = &mut *self.away() {
                if at.elapsed() < TRIAL {
                    return Err(DbFault::Away(why.clone()));
                }
                // One of the connections tries it for all.
                *at = Instant::now();
            }
            match DbLink::open(&self.settings, &self.clock).await {
                Ok(opened) => {
                    if self.away().take().is_some() {
                        tracing::info!(event = "store back", "the database is back");
                    }
                    *link = Some(opened);
                }
                Err(unreached) => {
                    let was = self.away().replace((Instant::now(), unreached.why.clone()));
                    if was.is_none() {
                        tracing::warn!(
                            event = "store away",
                            error = unreached.why,
                            "the database is away"
                        );
                    }
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
