//! How many connections upstreams were found to take: gateways that share a queue tell each other, since a number that one has learned holds for
//! all of them together.
//!
//! What is learned, and when it is forgotten, is the connector's; how it is shared then, the lanes'.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    member::Member,
    setup::Built,
    shared::{DeliveryContext, LearnedLimits},
};
use crate::{
    connector::Connector,
    queue::store::{LEARNED, StoreError},
    route::ConnectorName,
};

/// How often they are told and asked.
const EVERY: Duration = Duration::from_secs(5);

/// What the connectors of this gateway have learned.
pub(super) fn own(built: &Built) -> LearnedLimits {
    let learned = |(name, (_, connector)): (&ConnectorName, &(_, Arc<dyn Connector>))| {
        let number = connector.connections()?.learned?;
        Some((name.clone(), number))
    };
    built.connectors.iter().filter_map(learned).collect()
}

/// The connectors whose connections are counted at all.
fn counting(built: &Built) -> LearnedLimits {
    let counted = |(name, (_, connector)): (&ConnectorName, &(_, Arc<dyn Connector>))| {
        connector.connections().map(|now| (name.clone(), now.most))
    };
    built.connectors.iter().filter_map(counted).collect()
}

/// Tells and asks, until it is dropped.
pub(super) async fn run(shared: &DeliveryContext, member: &Member) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        every.tick().await;
        let own = own(&shared.built());
        // What the database cannot say now, it says in a moment.
        // After a start nobody knows what was said before.
        let before = told.clone().unwrap_or_else(|| counting(&shared.built()));
        if told.as_ref() != Some(&own) && tell(shared, member, &own, &before).await.is_ok() {
            told = Some(own);
        }
        if let Ok(others) = of_others(shared, member).await {
            *shared.learned() = others;
        }
    }
}

fn key(member: &str, connector: &ConnectorName) -> String {
    format!("{LEARNED}{member} of {connector}")
}

/// 0: nothing any more.
async fn tell(
    shared: &DeliveryContext,
    member: &Member,
    own: &LearnedLimits,
    before: &LearnedLimits,
) -> Result<(), StoreError> {
    let name = member.name();
    let all: HashSet<&ConnectorName> = before.keys().chain(own.keys()).collect();
    for connector in all {
        let number = own.get(connector).copied().unwrap_or(0);
        let key = key(&name, connector);
        shared
            .queue
            .store()
            .set_note(&key, number.to_string())
            .await?;
    }
    Ok(())
}

/// The least of what those have learned that still count.
async fn of_others(shared: &DeliveryContext, member: &Member) -> Result<LearnedLimits, StoreError> {
    let notes = shared.queue.store().shared_notes(LEARNED).await?;
    let own = member.name();
    let states = member.states();
    let names: HashSet<&str> = states.iter().map(|(row, ..)| row.name.as_str()).collect();
    let mut learned = LearnedLimits::new();
    for (key, value) in notes {
        let said = key
            .strip_prefix(LEARNED)
            .and_then(|key| key.split_once(" of "));
        let (Some((name, connector)), Ok(number @ 1..)) = (said, value.parse::<usize>()) else {
            continue;
        };
        if name != own && names.contains(name) {
            let known = learned.entry(connector.into()).or_insert(number);
            *known = number.min(*known);
        }
    }
    Ok(learned)
}
