//! What `status` shows, and what is wrong with the configuration.

use std::{fmt, time::SystemTime};

use serde::Serialize;

use super::{
    cluster::{MemberView, StoreView},
    incident::OpenIncidents,
    lane::Lane,
    quota::FullQuota,
    row::{Credential, Listener, Reload},
};
use crate::{listener::learning::LearningView, queue::store};

/// `postern status`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// Whether a gateway holds the data directory.
    pub running: bool,
    /// `None`: it is in another PID namespace, or does not run.
    pub pid: Option<i32>,
    /// Where the queue is.
    pub data_dir: String,
    /// Where it is kept. `None`: there is none yet.
    pub store: Option<StoreView>,
    /// The gateways that share it, this one among them; empty: it is alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberView>,
    /// Whether nothing needs anybody.
    pub ok: bool,
    /// When the gateway started.
    pub started: Option<String>,
    /// The configuration that it runs with.
    pub config: Option<String>,
    /// What is wrong with the file as it is now.
    pub problems: Vec<Problem>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The lanes: every connector, and each mailbox that is not open.
    pub connectors: Vec<Lane>,
    /// By state. `None`: there is no queue.
    pub messages: Option<Messages>,
    /// How long the oldest message waits.
    pub oldest_seconds: Option<u64>,
    /// The certificates in files that are in use.
    pub certificates: Vec<CheckedCertificate>,
    /// All that ends on a day that is known.
    pub credentials: Vec<CredentialView>,
    /// What became of the last reload.
    pub reload: Option<Reload>,
    /// That it is learned who there is, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<LearningView>,
    /// Addresses that have spoken TLS below 1.2 in the last 24 hours: ten at most, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub old_tls: Vec<OldTlsView>,
    /// The quotas that somebody has overrun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<FullQuota>,
    /// How many incidents are open, and not acknowledged. `None`: nobody has looked yet.
    pub incidents: Option<OpenIncidents>,
}

/// An address that speaks TLS below 1.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OldTlsView {
    /// `10.0.0.5`, `2001:db8::/64`.
    pub address: String,
    /// The `[[client]]` that it is in.
    pub client: Option<String>,
    /// `1.0`, `1.1`.
    pub tls: String,
    /// When its last session of that kind ended.
    pub at: String,
}

/// A problem of the configuration.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `error`, `warning`, `note`.
    pub severity: &'static str,
    /// From 1. `None`: it concerns the file as a whole.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: Option<String>,
    /// What it is about, for a form. `None`: it concerns the file as a whole, or nobody asked.
    #[serde(skip)]
    pub place: Option<ProblemPlace>,
}

/// A key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemPlace {
    /// At the top of the file: `connector`.
    pub section: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Below it, dotted; empty: the section as a whole.
    pub key: String,
}

impl fmt::Display for ProblemPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        let words = [self.section.as_str(), name, &self.key];
        let said: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        f.write_str(&said.join(" "))
    }
}

/// Jobs by state.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Messages {
    /// For their time or their turn.
    pub waiting: u64,
    /// At this moment.
    pub sending: u64,
    /// By an operator.
    pub held: u64,
    /// For good.
    pub failed: u64,
}

impl From<&store::Stats> for Messages {
    fn from(stats: &store::Stats) -> Self {
        Self {
            waiting: stats.waiting,
            sending: stats.sending,
            held: stats.held,
            failed: stats.failed,
        }
    }
}

/// A certificate, and whether it is still any good.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CheckedCertificate {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// Where it is kept.
    pub file: String,
    /// When it begins, while that lies ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// When it ends.
    pub not_after: String,
    /// Its end lies behind.
    pub expired: bool,
}

impl CheckedCertificate {
    /// `None`: it is none, or it is in no file.
    pub fn of(credential: &Credential, now: SystemTime) -> Option<Self> {
        let owner = match (&credential.listener, &credential.connector) {
            (Some(name), _) => Owner::Listener(name.clone()),
            (None, Some(name)) => Owner::Connector(name.clone()),
            (None, None) => return None,
        };
        let is_one = ["listener", "certificate", "client_certificate"];
        is_one.contains(&credential.kind.as_str()).then_some(())?;
        Some(Self {
            owner,
            file: credential.file.clone()?,
            not_before: credential.not_before.clone(),
            not_after: credential.not_after.clone(),
            expired: credential.ends().is_some_and(|end| end <= now),
        })
    }
}

/// The section that a certificate belongs to, by its name.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// It is shown to clients.
    Listener(String),
    /// It is shown to a token endpoint or an upstream.
    Connector(String),
}

/// Something that ends, and how near that is.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CredentialView {
    /// Whose it is.
    pub connector: Option<String>,
    /// Whose it is.
    pub listener: Option<String>,
    /// The key of the file that says it, or `listener`.
    pub kind: String,
    /// When it ends.
    pub not_after: String,
    /// Whole days until then; below 0: it has ended.
    pub days: i64,
    /// From when on the gateway replaces it.
    pub rotates_at: Option<String>,
    /// How far that is: `off`, `waiting`, `adding`, `proving`, `retiring`, `failed`. `None`: it is nothing that is replaced.
    pub rotation: Option<String>,
    /// What hinders it, or is left to be done.
    pub why: Option<String>,
}

impl CredentialView {
    /// As it is at that time.
    pub fn of(credential: &Credential, now: SystemTime) -> Self {
        Self {
            connector: credential.connector.clone(),
            listener: credential.listener.clone(),
            kind: credential.kind.clone(),
            not_after: credential.not_after.clone(),
            days: credential.days(now).unwrap_or_default(),
            rotates_at: credential.rotates_at.clone(),
            rotation: credential.rotation.clone(),
            why: credential.why.clone(),
        }
    }
}
