//! What an entry of the queue is waiting for, and which connectors hold it up.

use std::{collections::BTreeMap, time::SystemTime};

use super::site::{Site, status_row_of};
use crate::{
    mail::{
        outcome::LaneState,
        text::{shown, shown_to},
        time::{ahead, human, rfc3339},
    },
    queue::store::{Entry, FoundEntries, JobState, LaneRow, Store, StoreError},
    route::LaneId,
    view::{EntryView, FoundMessages, ListedMessage, StatusRow},
};

/// Octets of the reason that are shown beside an entry.
const WHY: usize = 300;

/// What decides whether an entry can go out: the routes, the lanes, and whether anybody delivers.
#[derive(Debug)]
pub struct Situation {
    routes: Routes,
    lanes: Vec<LaneRow>,
    is_running: bool,
    now: SystemTime,
}

impl Situation {
    /// As it is now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(site: &Site<'_>, store: &dyn Store) -> Result<Self, StoreError> {
        let row = status_row_of(store, site.running.as_ref()).await?;
        Ok(Self {
            routes: Routes::new(site, row),
            lanes: store.lanes_here().await?,
            is_running: site.running.is_some(),
            now: site.now,
        })
    }

    /// The first connector of the route, when all of them are closed or paused; an in-doubt message has only one.
    pub fn blocked(&self, entry: &Entry) -> Option<String> {
        if !matches!(entry.state, JobState::Waiting) {
            return None;
        }
        if let Some(pinned) = &entry.pinned {
            return self
                .is_shut(pinned.as_str(), entry)
                .then(|| pinned.to_string());
        }
        let connectors = self.routes.named(entry.route.as_str())?;
        let all = connectors.iter().all(|name| self.is_shut(name, entry));
        connectors.first().filter(|_| all).cloned()
    }

    fn is_shut(&self, name: &str, entry: &Entry) -> bool {
        self.lanes.iter().any(|lane| {
            // A mailbox that has to wait holds up its own mail alone, and so does one that is refused.
            let is_mailbox = lane.lane.mailbox.is_some();
            let waits = lane.state == LaneState::Throttled && is_mailbox;
            let others = is_mailbox && entry.lane.as_ref().is_some_and(|own| *own != lane.lane);
            lane.state != LaneState::Open
                && !waits
                && !others
                && lane.lane.connector.as_str() == name
        })
    }

    /// What an entry that is not finished waits for, in a sentence.
    pub fn waits(&self, entry: &Entry) -> Option<String> {
        let mut said = match entry.state {
            JobState::Held => "held by an operator until `postern queue release`".to_owned(),
            JobState::Sending => "being sent now".to_owned(),
            JobState::Failed | JobState::Done => return None,
            JobState::Waiting => self.reason(entry),
        };
        if !self.is_running {
            said.push_str("; no gateway runs, so nothing is sent");
        }
        Some(said)
    }

    fn reason(&self, entry: &Entry) -> String {
        // Of that lane, or of any where it is a whole connector.
        let of = |lane: &LaneId| {
            let row = self.lanes.iter().find(|row| {
                let is_within = lane.mailbox.is_none() && row.lane.connector == lane.connector;
                row.state != LaneState::Open && (row.lane == *lane || is_within)
            });
            row.map_or_else(String::new, |row| {
                format!(
                    ", {} since {}: {}",
                    row.state,
                    human(row.since),
                    shown_to(&row.why, WHY)
                )
            })
        };
        if self.routes.lacks(entry.route.as_str()) {
            return format!(
                "its route {} is no longer in the configuration",
                shown(entry.route.as_str())
            );
        }
        if let Some(connector) = self.blocked(entry) {
            return format!(
                "blocked by connector {}{}",
                shown(&connector),
                of(&LaneId::of(&connector.as_str().into()))
            );
        }
        if let Some(lane) = &entry.lane {
            return format!("its turn in {}{}", shown(&lane.to_string()), of(lane));
        }
        match entry.next_attempt {
            Some(at) if at > self.now => {
                format!("the next attempt, {} ({})", ahead(at, self.now), human(at))
            }
            _ => "its turn: it is due now".to_owned(),
        }
    }

    /// As it is shown.
    pub fn view(&self, entry: &Entry) -> EntryView {
        EntryView::new(entry, self.blocked(entry))
    }

    /// What a search found, as it is shown.
    pub fn found(&self, found: &FoundEntries) -> FoundMessages {
        let listed = |entry: &Entry| ListedMessage {
            entry: self.view(entry),
            client: entry.client.clone(),
            subject: entry.subject.clone(),
        };
        FoundMessages {
            items: found.entries.iter().map(listed).collect(),
            next: found.next.as_ref().map(ToString::to_string),
            searched_to: found.searched_to.map(rfc3339),
        }
    }
}

/// Which routes there are and where they lead: as the running gateway has it, else as the file has it. `None`: nobody knows.
#[derive(Debug, Default)]
struct Routes(Option<BTreeMap<String, Vec<String>>>);

impl Routes {
    /// `row` is that of the gateway that runs.
    fn new(site: &Site<'_>, row: StatusRow) -> Self {
        if row.routes.is_some() {
            return Self(row.routes);
        }
        Self(site.config.map(|config| {
            let routes = config.router.all().map(|route| {
                let connectors = route.connectors.iter().map(ToString::to_string);
                (route.name.to_string(), connectors.collect())
            });
            routes.collect()
        }))
    }

    /// The connectors of a route, in order.
    fn named(&self, route: &str) -> Option<&[String]> {
        self.0.as_ref()?.get(route).map(Vec::as_slice)
    }

    /// Whether it is certain that there is no such route.
    fn lacks(&self, route: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|routes| !routes.contains_key(route))
    }
}
