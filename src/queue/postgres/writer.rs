//! Mail and outcomes are written by connections of their own: what waits goes into one transaction, and alone when that fails.
//!
//! A commit of which nobody knows whether it happened is sent again on a new connection: the id of a message decides, and a settlement
//! sees that it was written. Nobody is told anything before that is known; after ten seconds he is told that it is not.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Moments,
    crew::{Access, CONFLICTS, LOSSES, WAITING, closed},
    fault::DbFault,
    insert::{MailRows, copy, new_ids},
    link::DbLink,
    settle,
    stored::ToSettle,
    ticket::WriteTicket,
    tray::WriteTray,
    unheard::{ClaimedJob, Handover, Unheard},
    values::int,
    writing::Writing,
};
use crate::{
    mail::message::{Body, Message},
    queue::store::{JobId, Kept, NodeId, Settlement, Start, StoreError},
    route::Routed,
    telemetry::counted,
};

/// So long it may stay unknown whether something was written.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Between two looks whether the database is back, where somebody has to know.
const PAUSE: Duration = Duration::from_millis(300);

type Answering<T> = oneshot::Sender<Result<T, WriteFault>>;

/// Why something was not written, or is not known to be.
#[derive(Debug)]
pub struct WriteFault {
    /// As every caller is told.
    pub error: StoreError,
    /// It may be written all the same.
    pub is_unsure: bool,
}

impl From<StoreError> for WriteFault {
    fn from(error: StoreError) -> Self {
        let is_unsure = false;
        Self { error, is_unsure }
    }
}

impl From<WriteFault> for StoreError {
    fn from(unwritten: WriteFault) -> Self {
        unwritten.error
    }
}

/// A message to be inserted.
struct ToInsert {
    mail: Routed,
    starts: Vec<Start>,
    node: NodeId,
    moments: Moments,
    /// It was there already.
    was_there: bool,
    answer: Answering<Handover>,
}

impl ToInsert {
    /// Its body goes into rows of its own.
    fn is_large(&self) -> bool {
        let is_stored = |message: &Arc<Message>| matches!(message.body, Body::Stored(_));
        self.mail.messages().any(is_stored)
    }

    /// What it is leased by.
    fn claims(&self) -> Vec<ClaimedJob> {
        let message = self.mail.message.id;
        let starts = self.starts.iter().take(self.mail.jobs.len()).enumerate();
        let leased = starts.filter(|(_, start)| matches!(start, Start::Now(..)));
        let claims = leased.map(|(at, _)| ClaimedJob {
            message,
            nr: int(at),
            claim: 0,
        });
        claims.collect()
    }
}

enum WriteWork {
    Insert(ToInsert),
    Settle(Box<ToSettle>, Answering<Kept>),
}

impl WriteWork {
    fn answer(self, unheard: &Unheard, is_unsure: bool) {
        match self {
            // It was there, and not from us.
            Self::Insert(insert) if insert.was_there && !is_unsure => {
                let there = "a message with this id is already there".to_owned();
                let _ = insert
                    .answer
                    .send(Err(StoreError::Unavailable(there).into()));
            }
            Self::Insert(insert) => {
                let handover = unheard.unless_heard(insert.claims());
                let _ = insert.answer.send(Ok(handover));
            }
            Self::Settle(one, answer) => {
                let _ = answer.send(Ok(one.kept));
            }
        }
    }

    /// It is not written, or nobody knows.
    fn fail(self, unheard: &Unheard, error: StoreError, is_unsure: bool) {
        let unwritten = WriteFault { error, is_unsure };
        match self {
            Self::Insert(insert) => {
                if is_unsure {
                    // If it is there after all, it is leased to nobody.
                    drop(unheard.unless_heard(insert.claims()));
                }
                let _ = insert.answer.send(Err(unwritten));
            }
            Self::Settle(_, answer) => {
                let _ = answer.send(Err(unwritten));
            }
        }
    }
}

/// Where work is handed in.
#[derive(Debug, Clone)]
pub(super) struct WriteDesk {
    inbox: mpsc::Sender<Waiting>,
}

/// WriteWork that waits.
pub(super) struct Waiting {
    work: WriteWork,
    ticket: Arc<WriteTicket>,
    /// An earlier commit of it may have happened.
    is_unsure: bool,
}

/// What waits for a connection that writes.
pub(super) type Tray = Arc<WriteTray<Waiting>>;

impl WriteDesk {
    pub(super) fn new() -> (Self, Tray) {
        let (inbox, tray) = mpsc::channel(WAITING);
        (Self { inbox }, Arc::new(WriteTray::new(tray)))
    }

    async fn hand_in(&self, work: WriteWork, ticket: Arc<WriteTicket>) -> Result<(), StoreError> {
        let waiting = Waiting {
            work,
            ticket,
            is_unsure: false,
        };
        self.inbox.send(waiting).await.map_err(|_| closed())
    }

    /// The jobs of the message, and the leases among them.
    pub(super) async fn insert(
        &self,
        mail: Routed,
        starts: Vec<Start>,
        (node, moments): (NodeId, Moments),
        ticket: Arc<WriteTicket>,
    ) -> Result<(Vec<JobId>, Handover), WriteFault> {
        let jobs = (0..mail.jobs.len())
            .map(|nr| JobId(int(nr).into()))
            .collect();
        let (answer, answered) = oneshot::channel();
        let insert = ToInsert {
            mail,
            starts,
            node,
            moments,
            was_there: false,
            answer,
        };
        self.hand_in(WriteWork::Insert(insert), ticket).await?;
        Ok((jobs, answered.await.map_err(|_| closed())??))
    }

    pub(super) async fn settle(
        &self,
        settlement: Settlement,
        moments: Moments,
        ticket: Arc<WriteTicket>,
    ) -> Result<Kept, WriteFault> {
        let (answer, answered) = oneshot::channel();
        let one = ToSettle {
            settlement,
            moments,
            kept: Kept::Written,
        };
        self.hand_in(WriteWork::Settle(Box::new(one), answer), ticket)
            .await?;
        answered.await.map_err(|_| closed())?
    }
}

/// One of the connections that write.
pub(super) struct Scribe {
    pub(super) access: Arc<Access>,
    pub(super) unheard: Unheard,
    pub(super) tray: Tray,
}

impl Scribe {
    /// Writes until there is no more.
    pub(super) async fn work(self) {
        let mut link = None;
        // What could not go with the others.
        let mut left: Vec<Waiting> = Vec::new();
        loop {
            if let Some(alone) = left.pop() {
                self.write(&mut link, vec![alone]).await;
                continue;
            }
            let Some((batch, _under_way)) = self.tray.take().await else {
                return;
            };
            let mut seen = HashSet::new();
            let (together, apart) = batch
                .into_iter()
                .partition(|waiting: &Waiting| match &waiting.work {
                    WriteWork::Settle(one, _) => seen.insert(one.key()),
                    WriteWork::Insert(insert) => !insert.is_large(),
                });
            left = apart;
            self.write(&mut link, together).await;
        }
    }

    /// All of it in one transaction, or, when that fails, each in its own.
    async fn write(&self, link: &mut Option<DbLink>, batch: Vec<Waiting>) {
        let mut again = vec![batch];
        while let Some(batch) = again.pop() {
            if batch.is_empty() {
                continue;
            }
            again.extend(self.attempt(link, batch).await);
        }
    }

    /// What is to be tried alone.
    async fn attempt(
        &self,
        link: &mut Option<DbLink>,
        mut batch: Vec<Waiting>,
    ) -> Vec<Vec<Waiting>> {
        let begun = Instant::now();
        let (mut losses, mut conflicts) = (0, 0);
        loop {
            batch = self.wanted(batch);
            if batch.is_empty() {
                return Vec::new();
            }
            let done = match self.access.linked(link).await {
                Ok(link) => {
                    if batch.iter().any(|waiting| waiting.is_unsure) {
                        link.vouch();
                    }
                    transaction(link, &mut batch).await
                }
                Err(fault) => Err(fault),
            };
            let Err(fault) = done else {
                counted::committed(begun.elapsed());
                self.access.wrote();
                for waiting in batch {
                    waiting.work.answer(&self.unheard, waiting.is_unsure);
                }
                return Vec::new();
            };
            let had_link = link.is_some();
            self.access.wrote_not(link.as_ref());
            self.access.after(link, &fault).await;
            if matches!(fault, DbFault::Unknown(_)) {
                for waiting in &mut batch {
                    waiting.is_unsure = true;
                }
            }
            for waiting in &batch {
                waiting.ticket.came_back(waiting.is_unsure);
            }
            let is_unsure = batch.iter().any(|waiting| waiting.is_unsure);
            let is_again = match &fault {
                DbFault::Away(_) | DbFault::Unknown(_) if is_unsure => begun.elapsed() < UNKNOWN,
                DbFault::Away(_) => {
                    losses += 1;
                    had_link && losses <= LOSSES
                }
                _ if fault.is_conflict() => {
                    conflicts += 1;
                    conflicts <= CONFLICTS
                }
                _ => false,
            };
            if is_again {
                if is_unsure {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
            if batch.len() > 1 && !matches!(fault, DbFault::Away(_) | DbFault::Unknown(_)) {
                return batch.into_iter().map(|waiting| vec![waiting]).collect();
            }
            let why = fault.into_store_error();
            for waiting in batch {
                let is_unsure = waiting.is_unsure;
                waiting.work.fail(&self.unheard, again_as(&why), is_unsure);
            }
            return Vec::new();
        }
    }

    /// But for what was withdrawn. What that is leased by if it was written after all, nobody has.
    fn wanted(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let (wanted, others) = batch
            .into_iter()
            .partition(|waiting: &Waiting| waiting.ticket.sends());
        for Waiting {
            work, is_unsure, ..
        } in others
        {
            let withdrawn = StoreError::Away("it was withdrawn".to_owned());
            work.fail(&self.unheard, withdrawn, is_unsure);
        }
        wanted
    }
}

fn again_as(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Crowded => StoreError::Crowded,
        StoreError::Newer(why) => StoreError::Newer(why.clone()),
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        StoreError::Away(why) => StoreError::Away(why.clone()),
    }
}

/// One transaction of all of it.
async fn transaction(link: &mut DbLink, batch: &mut [Waiting]) -> Result<(), DbFault> {
    if let [waiting] = batch
        && let WriteWork::Insert(insert) = &mut waiting.work
        && insert.is_large()
    {
        return large(link, insert).await;
    }
    let mut writing = Writing::default();
    let (mut settles, mut inserts) = (Vec::new(), Vec::new());
    for waiting in batch {
        match &mut waiting.work {
            WriteWork::Settle(one, _) => settles.push(&mut **one),
            WriteWork::Insert(insert) => {
                let (node, now) = (insert.node, insert.moments.now());
                writing.mail.add(&insert.mail, &insert.starts, node, now);
                inserts.push(insert);
            }
        }
    }
    let rows = if settles.is_empty() {
        let spoken = writing.mail.spoken();
        link.whole(&[spoken]).await?.into_iter().flatten().collect()
    } else {
        settle::read(link, &mut settles, &mut writing).await?;
        writing.write(link).await?
    };
    let new = new_ids(&rows)?;
    for insert in inserts {
        insert.was_there = !new.contains(&insert.mail.message.id);
    }
    Ok(())
}

/// A message whose body is copied row by row.
async fn large(link: &mut DbLink, insert: &mut ToInsert) -> Result<(), DbFault> {
    let mut mail = MailRows::default();
    let (node, now) = (insert.node, insert.moments.now());
    mail.add(&insert.mail, &insert.starts, node, now);
    let rows: Vec<_> = link
        .begin(&[mail.spoken()])
        .await?
        .into_iter()
        .flatten()
        .collect();
    insert.was_there = !new_ids(&rows)?.contains(&insert.mail.message.id);
    if !insert.was_there {
        for message in insert.mail.messages() {
            if matches!(message.body, Body::Stored(_)) {
                copy(link, message).await?;
            }
        }
    }
    link.commit(&[]).await.map(|_| ())
}
