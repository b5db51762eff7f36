//! What delivery is given by the configuration, and the same by name.
//!
//! A reload replaces it as a whole; a job under way keeps what it began with.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::lanes::{gate, probes::ProbeTimes};
use crate::{
    connector::{self, Connector},
    mail::address::Address,
    policy::Policy,
    route::{ConnectorName, Route, RouteName, Router},
};

/// What delivery needs of the configuration besides router and connectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Before a message whose outcome is unknown is sent again.
    pub in_doubt_wait: Duration,
    /// `[bounce]`.
    pub bounce: BounceSettings,
}

/// `[bounce]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BounceSettings {
    /// Whether the sender gets one.
    pub to_sender: bool,
    /// The visible From, and the sender where the connector asks for one.
    pub from: Address,
    /// It was written down; otherwise a report is from the mailbox of its route's first connector that has one.
    pub is_from_given: bool,
    /// The administrators.
    pub copy_to: Vec<Address>,
    /// After this time whoever asked is told that a message waits; `None`: nobody is.
    pub delay_notice: Option<Duration>,
    /// The largest message that comes back whole, in octets.
    pub full_limit: u64,
    /// Reporting-MTA.
    pub hostname: String,
}

/// All that delivery works with; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Setup {
    /// The routes, resolved by name at each attempt.
    pub router: Router,
    /// The lists that say whether a report may leave to a sender.
    pub policy: Policy,
    /// The connectors they name.
    pub connectors: Vec<(connector::Settings, Arc<dyn Connector>)>,
    /// In-doubt wait and bounces.
    pub settings: Settings,
    /// How long a message with a failed recipient is kept.
    pub keep_failed: Duration,
    /// How long it is remembered who, when, what became of it.
    pub keep_history: Duration,
}

/// A setup, by name.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) router: Router,
    pub(super) policy: Policy,
    pub(super) routes: HashMap<RouteName, Arc<Route>>,
    pub(super) connectors: HashMap<ConnectorName, (connector::Settings, Arc<dyn Connector>)>,
    /// Of the connectors that have one.
    pub(super) mailboxes: HashMap<ConnectorName, Address>,
    pub(super) settings: Settings,
    pub(super) keep_failed: Duration,
    pub(super) keep_history: Duration,
}

impl Built {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            mailboxes: setup
                .connectors
                .iter()
                .filter_map(|(settings, _)| Some((settings.name.clone(), settings.kind.mailbox()?)))
                .collect(),
            routes: setup
                .router
                .all()
                .map(|route| (route.name.clone(), Arc::new(route.clone())))
                .collect(),
            router: setup.router,
            policy: setup.policy,
            connectors: setup
                .connectors
                .into_iter()
                .map(|(settings, connector)| (settings.name.clone(), (settings, connector)))
                .collect(),
            settings: setup.settings,
            keep_failed: setup.keep_failed,
            keep_history: setup.keep_history,
        }
    }

    /// Nothing waits longer than this before it is looked at again.
    pub(super) fn longest_wait(&self) -> Duration {
        let steps = self.router.all().flat_map(|route| &route.retry);
        // Drawn at its longest.
        let longest = steps.map(|step| step.saturating_add(*step / 5)).max();
        longest
            .unwrap_or_default()
            .max(self.settings.in_doubt_wait)
            .max(gate::LONGEST_WAIT)
    }

    /// When a connector that is closed is probed.
    pub(super) fn probe_times(&self, connector: &connector::Settings) -> ProbeTimes {
        let retry = (self.router.all())
            .filter(|route| route.connectors.contains(&connector.name))
            .map(|route| route.retry.as_slice());
        ProbeTimes::new(retry, connector.probe)
    }

    /// The connectors of a job in their order: of a pinned one that alone, if there still is such a connector.
    pub(super) fn candidates(
        &self,
        route: &Route,
        pinned: Option<&ConnectorName>,
    ) -> Vec<ConnectorName> {
        match pinned {
            Some(pin) if self.connectors.contains_key(pin) => vec![pin.clone()],
            _ => route.connectors.clone(),
        }
    }
}
