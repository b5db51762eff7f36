//! What the store over two asks of this one: writing that may be withdrawn, and whether the database answers at all.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use super::{PostgresStore, ticket::WriteTicket, writer::WriteFault};
use crate::{
    queue::store::{Inserted, Kept, Lease, NodeId, Settlement, Start, StoreError},
    route::Routed,
};

impl PostgresStore {
    /// An insert that whoever has the ticket may withdraw.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub async fn insert_by(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
        ticket: Arc<WriteTicket>,
    ) -> Result<Inserted, WriteFault> {
        let at = (self.own_node(), self.at(now));
        let starts: Vec<Start> = starts.iter().map(leased_to_somebody).collect();
        let inserted = self.desk.insert(mail.clone(), starts.clone(), at, ticket);
        let (jobs, leases) = inserted.await?;
        leases.heard();
        let leased = starts.iter().take(jobs.len()).filter_map(|start| {
            let Start::Now(node, _) = start else {
                return None;
            };
            let (node, claim) = (*node, 0);
            Some(Lease { node, claim })
        });
        let leases = leased.collect();
        Ok(Inserted { jobs, leases })
    }

    /// A settlement that whoever has the ticket may withdraw.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub async fn settle_by(
        &self,
        settlement: Settlement,
        now: SystemTime,
        ticket: Arc<WriteTicket>,
    ) -> Result<Kept, WriteFault> {
        self.desk.settle(settlement, self.at(now), ticket).await
    }

    /// Whether it answers, and takes writes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        let probed = self.crew.on(true, |link| {
            Box::pin(async move {
                // One that writes nothing waits for no standby, and would say nothing about those that do.
                link.vouch();
                link.whole(&[]).await.map(|_| ())
            })
        });
        probed.await
    }

    /// What is in the directory of bodies that arrive is this start's own.
    pub fn bodies_are_swept(&self) {
        self.is_swept.store(true, Ordering::Release);
    }

    /// What is there is of a start that ended; later it may be of mail that comes in.
    pub(super) async fn sweep_bodies(&self) -> Result<(), StoreError> {
        if self.is_swept.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let local = self.bodies.local.clone();
        let swept = tokio::task::spawn_blocking(move || local.remove_orphans(|_| false));
        swept
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))
    }
}

/// A gateway has no number before its first beat, nor after it was taken over until the next one. What was leased to nobody would be taken over
/// from nobody: so whoever has a permit may send it.
fn leased_to_somebody(start: &Start) -> Start {
    match start {
        Start::Now(NodeId::NOBODY, _) => Start::Any,
        other => other.clone(),
    }
}
