//! WHERE TO? The first route that matches decides which connectors take a recipient.
//!
//! Apart from `policy`, which says whether it may leave at all. It knows connectors by name only and opens nothing.

use std::{fmt, sync::Arc, time::Duration};

use crate::mail::{address::Address, message::Message, pattern::Pattern};

/// The name of a `[[route]]`; queued mail keeps it and is resolved anew at each attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

/// The name of a `[[connector]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectorName(Arc<str>);

macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// The name as configured.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name!(RouteName);
name!(ConnectorName);

/// One `[[route]]`. `None` (an absent or empty list) matches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Envelope senders after rewriting.
    pub senders: Option<Vec<Pattern>>,
    /// Recipients.
    pub recipients: Option<Vec<Pattern>>,
    /// Names of `[[client]]`.
    pub clients: Option<Vec<String>>,
    /// Names of `[[user]]`.
    pub users: Option<Vec<String>>,
    /// Names of `[[listener]]`.
    pub listeners: Option<Vec<String>>,
    /// In the order they are tried.
    pub connectors: Vec<ConnectorName>,
    /// Waits between attempts, the last one repeats; config fills in `[queue] retry`.
    pub retry: Vec<Duration>,
    /// From acceptance; config fills in `[queue] give_up`.
    pub give_up: Duration,
    /// Recipients of one job at most: the least of its connectors' `max_recipients`.
    pub max_recipients: usize,
}

/// What a route looks at.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// After rewriting; `None` is `<>`.
    pub sender: Option<&'a Address>,
    /// One recipient.
    pub recipient: &'a Address,
    /// Name of the `[[client]]`.
    pub client: Option<&'a str>,
    /// Name of the `[[user]]`.
    pub user: Option<&'a str>,
    /// Name of the `[[listener]]`.
    pub listener: &'a str,
}

/// The routes in their order.
#[derive(Debug, Clone, Default)]
pub struct Router {
    /// First match wins.
    pub routes: Vec<Route>,
}

impl Router {
    /// The route for one recipient.
    pub fn route(&self, asked: Asked<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.matches(asked))
    }

    /// By name.
    pub fn named(&self, name: &RouteName) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == *name)
    }

    /// Recipients with their routes, made into jobs: one for each route, split at `max_recipients`.
    pub fn jobs(&self, routed: &[(Address, RouteName)]) -> Vec<(RouteName, Vec<Address>)> {
        let mut jobs: Vec<(RouteName, Vec<Address>)> = Vec::new();
        for (address, name) in routed {
            let most = self
                .named(name)
                .map_or(usize::MAX, |route| route.max_recipients.max(1));
            match jobs.iter_mut().rev().find(|(route, _)| route == name) {
                Some((_, addresses)) if addresses.len() < most => addresses.push(address.clone()),
                _ => jobs.push((name.clone(), vec![address.clone()])),
            }
        }
        jobs
    }
}

impl Route {
    fn matches(&self, asked: Asked<'_>) -> bool {
        fn named(names: Option<&Vec<String>>, name: Option<&str>) -> bool {
            names.is_none_or(|names| name.is_some_and(|name| names.iter().any(|n| n == name)))
        }
        fn listed(patterns: Option<&Vec<Pattern>>, address: Option<&Address>) -> bool {
            patterns.is_none_or(|patterns| patterns.iter().any(|p| p.matches(address)))
        }
        listed(self.senders.as_ref(), asked.sender)
            && listed(self.recipients.as_ref(), Some(asked.recipient))
            && named(self.clients.as_ref(), asked.client)
            && named(self.users.as_ref(), asked.user)
            && named(self.listeners.as_ref(), Some(asked.listener))
    }
}

/// A message with every recipient routed: what the queue accepts. The jobs cover the envelope's recipients exactly.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The message.
    pub message: Arc<Message>,
    /// One row of the queue each.
    pub jobs: Vec<(RouteName, Vec<Address>)>,
}
