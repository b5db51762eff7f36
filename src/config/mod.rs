//! TEXT TO SETTINGS.
use std::path::PathBuf;

use crate::{
    connector, delivery, listener,
    mail::address::{Address, Domain},
    policy::Policy,
    queue,
    route::Router,
    telemetry,
};

pub mod diagnostic;
pub mod sections;
pub mod table;

/// Each module's own settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Banner, EHLO, Received.
    pub hostname: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Completes bare names.
    pub default_domain: Option<Domain>,
    /// `[log]`.
    pub log: telemetry::Settings,
    /// `[limits]`, connections.
    pub limits: listener::Limits,
    /// `limits.message_size`.
    pub message_size: u64,
    /// `limits.recipients`.
    pub recipients: usize,
    /// `limits.session_errors`.
    pub session_errors: u32,
    /// `[[listener]]`.
    pub listeners: Vec<listener::Settings>,
    /// `[[client]] [[user]] [allowlist] [[rewrite]]`.
    pub policy: Policy,
    /// `[[route]]`.
    pub router: Router,
    /// `[[connector]]`.
    pub connectors: Vec<connector::Settings>,
    /// `[queue]`.
    pub queue: queue::Settings,
    /// `[bounce]`, in-doubt wait.
    pub delivery: delivery::Settings,
    /// `bounce.from`.
    pub bounce_from: Address,
}
