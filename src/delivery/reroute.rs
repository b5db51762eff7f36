//! Mail whose route is gone from the configuration finds another.
//!
//! Apart from the loop, which says when; the route is found as for mail that has just come. It delivers nothing.

use std::time::{Duration, Instant, SystemTime};

use super::{Built, round::Round};
use crate::{
    mail::address::Address,
    queue::store::{Filter, State, StoreError, Verb},
    route::{Asked, RouteName},
};

/// Between two tries to find another route for what lost its own.
const REROUTE: Duration = Duration::from_mins(1);
/// Entries that are given another route together.
const REROUTED: usize = 100;

impl Round {
    /// Mail whose route is gone from the configuration finds another, as if it had just come; or it waits.
    pub(super) async fn reroute(
        &mut self,
        built: &Built,
        old: &RouteName,
    ) -> Result<(), StoreError> {
        let key = format!("route {old}");
        if self
            .rerouted
            .get(old)
            .is_some_and(|at| at.elapsed() < REROUTE)
        {
            return Ok(());
        }
        self.rerouted.insert(old.clone(), Instant::now());
        let store = self.shared.queue.store();
        let filter = Filter {
            states: vec![State::Waiting],
            route: Some(old.clone()),
            limit: Some(REROUTED),
            ..Filter::default()
        };
        let now = SystemTime::now();
        let entries = store.list(&filter, now).await?;
        let full = entries.len() == REROUTED;
        let mut moved = false;
        for entry in entries {
            let Some(message) = store.content(entry.id).await? else {
                continue;
            };
            let found = entry
                .recipients
                .iter()
                .filter_map(|r| Address::parse(&r.address).ok())
                .find_map(|recipient| {
                    built.router.route(Asked {
                        sender: message.envelope.sender.as_ref(),
                        recipient: &recipient,
                        client: message.origin.client.as_deref(),
                        user: message.origin.user.as_deref(),
                        listener: &message.origin.listener,
                    })
                });
            let Some(route) = found else {
                if self.complained.insert(key.clone()) {
                    tracing::error!(route = %old, id = %entry.id, "mail waits for a route that is no longer configured, and no other matches it");
                }
                continue;
            };
            let one = Filter {
                id: Some(entry.id),
                route: Some(old.clone()),
                ..Filter::default()
            };
            let verb = Verb::Reroute(route.name.clone());
            store.command(&one, &verb, now).await?;
            tracing::info!(id = %entry.id, from = %old, to = %route.name, "mail takes another route, since its own is no longer configured");
            moved = true;
        }
        if moved {
            if full {
                self.rerouted.remove(old);
            }
            self.shared.queue.wake();
        }
        Ok(())
    }
}
