//! What the connectors are doing at a moment, for whoever shows it. It changes nothing, and keeps nothing alive.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::shared::DeliveryContext;
use crate::{mail::outcome::LaneState, route::ConnectorName};

/// A connector at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorNow {
    /// Its name.
    pub name: ConnectorName,
    /// Of its lane.
    pub state: LaneState,
    /// Jobs that have a permit of it.
    pub in_flight: usize,
}

/// Looks at delivery, until that has ended.
#[derive(Clone)]
pub struct Observer(Weak<DeliveryContext>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Observer {
    pub(super) fn of(shared: &Arc<DeliveryContext>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Every connector that is configured, by name; none once delivery has ended.
    pub fn connectors(&self) -> Vec<ConnectorNow> {
        let Some(shared) = self.0.upgrade() else {
            return Vec::new();
        };
        let built = shared.built();
        let mut found: Vec<ConnectorNow> = built
            .connectors
            .keys()
            .map(|name| {
                let (state, in_flight) = shared.lanes.now_at(name);
                ConnectorNow {
                    name: name.clone(),
                    state,
                    in_flight,
                }
            })
            .collect();
        found.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        found
    }
}
