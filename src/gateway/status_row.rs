//! The status row: what the gateway writes down of itself beside the queue, for `status`, `queue`, `trace` and `reload`.

use std::time::SystemTime;

use super::ends::{self, KnownEnds};
use crate::{
    config::Config,
    listener::{ListenerStatus, TlsMode, learning::LearningView},
    mail::time,
    view::{Listener, Reload, StatusRow},
};

/// The row of this process, with these listeners.
pub(super) fn of(
    config: &Config,
    started: SystemTime,
    standing: &[ListenerStatus],
    known: &KnownEnds,
    reload: Option<Reload>,
    learning: Option<LearningView>,
) -> StatusRow {
    let listeners = standing.iter().flat_map(|l| {
        let tls = match l.tls {
            TlsMode::Off => "off",
            TlsMode::StartTls => "starttls",
            TlsMode::Implicit => "implicit",
        };
        l.addresses.iter().map(move |address| Listener {
            name: l.name.clone(),
            address: address.to_string(),
            tls: tls.to_owned(),
        })
    });
    let routes = config.router.all().map(|route| {
        let connectors = route.connectors.iter().map(ToString::to_string);
        (route.name.to_string(), connectors.collect())
    });
    StatusRow {
        pid: std::process::id(),
        started: Some(time::logged(started)),
        config: Some(config.path.display().to_string()),
        listeners: listeners.collect(),
        credentials: ends::of_listeners(standing)
            .chain(known.of(&config.connectors))
            .collect(),
        connectors: config
            .connectors
            .iter()
            .map(|c| c.name.to_string())
            .collect(),
        routes: Some(routes.collect()),
        reload,
        learning,
    }
}
