//! What changed since a second ago, for whoever has a page open: asked only while somebody listens.
//!
//! Of the messages it sees the newest, and the newest of those that are not done.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{feed::Feed, host::Host};
use crate::{
    queue::store::{Filter, JobState, Search, StoreError},
    view,
};

/// Messages that are looked at, of either kind.
const LOOKED_AT: usize = 200;
/// Devices that are told of at once; whoever hears of one looks at all.
const DEVICES: usize = 50;

/// What was seen last. `None`: nothing yet, or nobody listened.
#[derive(Debug, Default)]
pub(super) struct Watching {
    messages: Option<HashMap<String, String>>,
    connectors: HashMap<String, Value>,
    counts: Value,
    /// How often devices had been seen.
    seen: Option<u64>,
}

impl Watching {
    /// Looks, and tells what is another than it was.
    pub(super) async fn look(&mut self, host: &dyn Host, feed: &Feed) {
        if !feed.is_heard() {
            *self = Self::default();
            return;
        }
        self.look_at_devices(host, feed);
        // What cannot be read now is read in a second.
        let _ = self.see(host, feed).await;
    }

    fn look_at_devices(&mut self, host: &dyn Host, feed: &Feed) {
        let listeners = host.listeners();
        let known = self.seen.unwrap_or(u64::MAX);
        let (seen, new) = listeners.devices.news(known, DEVICES);
        self.seen = Some(seen);
        for device in new.into_iter().rev() {
            let data = json!({
                "address": device.address,
                "client": device.client,
                "accepted": device.accepted,
                "refused": device.refused,
            });
            feed.tell("device", &device.address, data);
        }
    }

    async fn see(&mut self, host: &dyn Host, feed: &Feed) -> Result<(), StoreError> {
        // What happened before this look and behind what a listener has read nobody tells: he is to read again.
        let begins = self.counts.is_null();
        let mut messages = HashMap::new();
        for states in [Vec::new(), JobState::NOT_DONE.to_vec()] {
            let filter = Filter {
                states,
                ..Filter::default()
            };
            let search = Search {
                filter,
                limit: LOOKED_AT,
                ..Search::default()
            };
            for found in host.search(&search).await?.items {
                messages.insert(found.entry.id, found.entry.state.to_owned());
            }
        }
        if let Some(known) = &self.messages {
            for (id, state) in &messages {
                if known.get(id) != Some(state) {
                    feed.tell("message", id, json!({ "id": id, "state": state }));
                }
            }
        }
        self.messages = Some(messages);
        let status = host.status().await?;
        let counts = json!({
            "messages": status.messages,
            "ok": status.ok,
            "learning": status.learning,
            "gateways": gateways(&status),
        });
        if self.counts != counts {
            if !self.counts.is_null() {
                feed.tell("status", "", counts.clone());
            }
            self.counts = counts;
        }
        for lane in status.connectors {
            let now = json!({ "name": lane.name, "state": lane.state });
            let before = self.connectors.insert(lane.name.clone(), now.clone());
            if before.is_some_and(|before| before != now) {
                feed.tell("connector", &lane.name, now);
            }
        }
        if begins {
            feed.tell("reset", "", json!({}));
        }
        Ok(())
    }
}

/// Of the gateways and their database what is news: not how long ago one was heard of.
fn gateways(status: &view::Status) -> Value {
    let Some(store) = status.store.as_ref().filter(|store| store.is_shared()) else {
        return Value::Null;
    };
    let member = |member: &view::MemberView| {
        json!({
            "name": member.name,
            "state": member.state,
            "lanes": member.lanes,
            "same_config": member.same_config,
            "taken_over_in": member.taken_over_in,
        })
    };
    json!({
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "store": store.state,
        "host": store.host,
        "spilled": store.spilled,
        "unwritten": store.unwritten,
    })
}
