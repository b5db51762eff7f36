//! What a configuration comes to: each module's own settings, and what was known when they were read.
//!
//! `load` reads them, and a section can name them. It reads nothing but the process it runs in.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    cluster::{FormerStore, StoreSettings},
    values,
};
use crate::{
    admin::settings::WindowSettings,
    connector, delivery,
    incident::settings::IncidentSettings,
    listener,
    mail::address::{Address, Domain},
    policy::Policy,
    queue,
    route::{ConnectorName, Router},
    secret::Secret,
    telemetry,
};

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
    /// `queue.store`, `[postgres]`, `[cluster]`.
    pub store: StoreSettings,
    /// What `[postgres]` and `[cluster]` say beside `store = "sqlite"`: where the queue was before.
    pub former: Option<FormerStore>,
    /// `[bounce]`, in-doubt wait.
    pub delivery: delivery::Settings,
    /// `bounce.from`.
    pub bounce_from: Address,
    /// `[[dkim]]`.
    pub dkim: Vec<connector::dkim::DkimKey>,
    /// `[admin] [[admin_user]] [[admin_token]]`.
    pub window: Option<WindowSettings>,
    /// `[incidents] [[notify]]`, `expect_every`.
    pub incidents: IncidentSettings,
    /// Secrets, certificates and keys that were read from files: when one changes, the configuration has.
    pub files: Vec<PathBuf>,
    /// Those of them that a connector was given.
    pub connector_files: BTreeMap<ConnectorName, Vec<PathBuf>>,
    /// The file as it was read, which may hold secrets.
    pub text: Secret,
}

/// What is done about secrets and other files the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// They are needed: `run`, `test`, `check --connect`.
    Resolve,
    /// Something missing is said: `check`.
    CheckOnly,
    /// Not looked at; a secret that is not in the file itself is empty.
    Ignore,
}

/// What the process knows besides the file; a value, so that tests need no process of their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables (those that are UTF-8).
    pub vars: BTreeMap<String, String>,
    /// `$CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials_directory: Option<PathBuf>,
    /// The machine's name.
    pub hostname: String,
}

/// What the machine is called, in full where its own table of names knows that. Nobody on the network is asked.
fn own_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if values::is_full_name(&name) {
        return name;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    values::full_name(&name, &hosts).unwrap_or(name)
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        Self {
            vars: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            hostname: own_name(),
        }
    }
}
