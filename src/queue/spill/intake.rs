//! What is written: into the database, and here when that does not take it. Of what may be in the database nothing is sent from here.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    core::{FULL, SpillCore},
    outcome,
};
use crate::{
    mail::message::{Body, Message},
    queue::{
        postgres::{Withdrawn, WriteFault, WriteTicket},
        store::{Inserted, Kept, NodeId, Settlement, Start, Store as _, StoreError},
    },
    route::Routed,
};

/// So long a client waits where nobody knows whether its message was written.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Between two looks at what does not come.
const LOOK: Duration = Duration::from_millis(200);
/// Whose jobs of the local store are.
pub(super) const HERE: NodeId = NodeId(0);

impl SpillCore {
    pub(super) async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        let unwritten = match self.here() {
            Ok(remote) => {
                let ticket = Arc::new(WriteTicket::default());
                let work = remote.insert_by(mail, starts, now, Arc::clone(&ticket));
                match self.written(Box::pin(work), &ticket, UNKNOWN).await {
                    Ok(inserted) => return Ok(inserted),
                    Err(unwritten) => unwritten,
                }
            }
            Err(away) => away.into(),
        };
        match unwritten {
            // It says something about this message: to keep it here changes nothing.
            WriteFault {
                error: error @ StoreError::Unavailable(_),
                is_unsure: false,
            } => Err(error),
            WriteFault { error, .. } if !self.spill.spills => {
                Err(StoreError::Unavailable(error.to_string()))
            }
            unwritten => self.spill(mail, starts, now, unwritten.is_unsure).await,
        }
    }

    /// Into the local store; to be sent from there, but for what may be in the other one.
    async fn spill(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
        is_unsure: bool,
    ) -> Result<Inserted, StoreError> {
        let sizes: Vec<u64> = mail.messages().map(|message| message.size()).collect();
        let size = sizes.iter().sum();
        if self.count().octets.saturating_add(size) > self.spill.size {
            return Err(StoreError::Full);
        }
        let mail = self.brought_here(mail).await?;
        self.puts();
        let inserted = if is_unsure {
            self.local.insert_on_its_way(&mail, now).await?;
            Inserted {
                jobs: Vec::new(),
                leases: Vec::new(),
            }
        } else {
            let starts: Vec<Start> = starts.iter().cloned().map(start_here).collect();
            self.local.insert(&mail, &starts, now).await?
        };
        for size in sizes {
            self.was_put(Some(size), now);
        }
        Ok(inserted)
    }

    /// With large bodies among those of the local store.
    async fn brought_here(&self, mail: &Routed) -> Result<Routed, StoreError> {
        let mut here = Routed {
            message: self.message_here(&mail.message).await?,
            ..mail.clone()
        };
        for copy in &mut here.copies {
            copy.message = self.message_here(&copy.message).await?;
        }
        Ok(here)
    }

    async fn message_here(&self, message: &Arc<Message>) -> Result<Arc<Message>, StoreError> {
        let Body::Stored(body) = &message.body else {
            return Ok(Arc::clone(message));
        };
        let (here, from) = (self.local.bodies().clone(), self.incoming.clone());
        let (id, len) = (message.id, body.len());
        let taken = tokio::task::spawn_blocking(move || here.take_in(id, &from, len)).await;
        let taken = taken.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let body = taken.map_err(|e| StoreError::Unavailable(format!("the body of {id}: {e}")))?;
        Ok(Arc::new(Message {
            id,
            envelope: message.envelope.clone(),
            origin: message.origin.clone(),
            header: message.header.clone(),
            body,
        }))
    }

    pub(super) async fn settle(
        &self,
        settlement: Settlement,
        now: SystemTime,
    ) -> Result<Kept, StoreError> {
        if settlement.lease.node == HERE {
            let kept = self.local.settle(settlement, now).await?;
            self.is_to_move
                .store(true, std::sync::atomic::Ordering::Release);
            self.has_changed();
            return Ok(kept);
        }
        let mut is_unsure = false;
        if let Ok(remote) = self.here() {
            let ticket = Arc::new(WriteTicket::default());
            let work = remote.settle_by(settlement.clone(), now, Arc::clone(&ticket));
            match self.written(Box::pin(work), &ticket, Duration::ZERO).await {
                Ok(kept) => return Ok(kept),
                Err(WriteFault {
                    error: error @ StoreError::Unavailable(_),
                    is_unsure: false,
                }) => return Err(error),
                Err(unwritten) => is_unsure = unwritten.is_unsure,
            }
        }
        self.keep(settlement, now, is_unsure).await
    }

    /// Until the database is back. Reports that it may have already are sent by nobody before that is known.
    async fn keep(
        &self,
        mut settlement: Settlement,
        now: SystemTime,
        is_unsure: bool,
    ) -> Result<Kept, StoreError> {
        let mut bounces = Vec::new();
        let mut reports = std::mem::take(&mut settlement.bounces);
        reports.append(&mut settlement.receipts);
        for bounce in reports {
            bounces.push(self.brought_here(&bounce).await?);
        }
        let sizes: Vec<u64> = bounces.iter().map(|mail| mail.message.size()).collect();
        let kept = outcome::written(&settlement, now);
        let sends = self.spill.spills && !is_unsure;
        self.puts();
        if !self.local.keep_outcome(kept, bounces, sends, now).await? {
            return Ok(Kept::Written);
        }
        self.was_put(None, now);
        for size in sizes {
            self.was_put(Some(size), now);
        }
        Ok(Kept::Written)
    }

    /// Waits for what is being written, as long as it comes. What nobody knows of is given up when it has been so for a time.
    async fn written<T>(
        &self,
        work: impl Future<Output = Result<T, WriteFault>>,
        ticket: &WriteTicket,
        unknown: Duration,
    ) -> Result<T, WriteFault> {
        let begun = Instant::now();
        let mut work = pin!(work);
        let mut goes = pin!(self.goes());
        let (mut wait, mut is_told) = (self.settings.patience, false);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done.map_err(|unwritten| self.unwritten(unwritten)),
                () = &mut goes, if !is_told => is_told = true,
                () = tokio::time::sleep(wait) => {}
            }
            wait = LOOK;
            if let Some(withdrawn) = ticket.withdraw(begun.elapsed() < unknown) {
                let seconds = begun.elapsed().as_secs();
                let error = StoreError::Away(format!("no answer within {seconds} s"));
                return Err(self.unwritten(WriteFault {
                    error: self.here().err().unwrap_or(error),
                    is_unsure: withdrawn == Withdrawn::Unsure,
                }));
            }
        }
    }

    /// Others need not find out.
    fn unwritten(&self, unwritten: WriteFault) -> WriteFault {
        match &unwritten.error {
            StoreError::Away(why) => self.went(why),
            StoreError::Full => self.went(FULL),
            StoreError::Unavailable(why) if unwritten.is_unsure => self.went(why),
            StoreError::Unavailable(_) | StoreError::Newer(_) | StoreError::Crowded => {}
        }
        unwritten
    }
}

/// As the local store is to have it.
fn start_here(start: Start) -> Start {
    match start {
        Start::Now(_, connector) => Start::Now(HERE, connector),
        other => other,
    }
}
