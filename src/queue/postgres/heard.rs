//! A first word; and what a beat is told of besides the nodes: jobs that were leased for somebody who had gone, whether others have changed
//! anything, and whether the database still is what it was made.
//!
//! The beat itself, and who the nodes are, is `node`'s.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use super::{PostgresStore, Settings, claim, insert::of, node};
use crate::queue::store::{NodeId, NodeRow, Standing, StoreError};

impl PostgresStore {
    pub(super) fn own_node(&self) -> NodeId {
        NodeId(self.own().unsigned_abs())
    }

    /// A first word: it becomes a node.
    pub(super) async fn begin(&self, standing: &Standing) -> Result<NodeId, StoreError> {
        let (standing, token) = (standing.clone(), self.token.clone());
        let now = self.at(SystemTime::now()).now();
        // Where it was written before, the second is its successor.
        let begun = self.crew.on(true, move |link| {
            let (standing, token) = (standing.clone(), token.clone());
            Box::pin(async move { node::begin(link, &standing, &token, now).await })
        });
        let node = begun.await?;
        self.node.store(of(node), Ordering::Release);
        self.beaten.store(0, Ordering::Release);
        self.sweep_bodies().await?;
        Ok(node)
    }

    /// Takes the own row away where the database is not what this node has made of it: it lacks a beat that was committed, or the node. What
    /// it has of this node was perhaps settled since, so it is none any more and begins anew.
    pub(super) fn knows_itself(&self, node: NodeId, nodes: &mut Vec<NodeRow>) {
        let own = nodes.iter().find(|row| row.id == node);
        let (beaten, is_gone) = own.map_or((0, false), |row| (row.seen, row.is_gone));
        if beaten > self.beaten.swap(beaten, Ordering::AcqRel) || is_gone {
            return;
        }
        nodes.retain(|row| row.id != node);
        tracing::warn!(
            event = "database went back",
            "the database lacks what this gateway has written (a backup was restored, or a failover has forgotten it): what was sent since may be \
             sent again"
        );
    }

    /// Gives back what nobody heard of.
    pub(super) async fn give_back(&self, now: i64) -> Result<(), StoreError> {
        let leases = self.unheard.take();
        let jobs = leases.jobs().to_vec();
        if !jobs.is_empty() {
            let node = self.own();
            let given = self.crew.on(true, move |link| {
                let jobs = jobs.clone();
                Box::pin(async move { claim::give_back(link, &jobs, (now, node)).await })
            });
            given.await?;
        }
        leases.heard();
        Ok(())
    }

    /// The node that this store is; for a command the one that is at work on its directory.
    pub(super) fn seen_as(&self) -> NodeId {
        match self.own_node() {
            NodeId(0) => self.seen_here,
            own => own,
        }
    }

    /// What is in doubt is tried again after so long; where somebody has said.
    pub(super) fn waits_in_doubt(&self, wait: Duration) {
        if !wait.is_zero() {
            let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
            self.doubt.store(micros, Ordering::Release);
        }
    }

    /// Has anybody but this store raised the counter since?
    pub(super) fn heard_of(&self, changes: u64) {
        let own = self.raised.swap(0, Ordering::AcqRel);
        let seen = self.changes.swap(changes, Ordering::AcqRel);
        if seen != Settings::NOT_LOOKED && seen.saturating_add(own) != changes {
            self.changed.notify_one();
        }
    }
}
