//! The status row: what a gateway writes down of itself, beside the queue.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{listener::learning::LearningView, mail::time};

/// The key of the status row.
pub const STATUS_ROW: &str = "gateway";

/// What a gateway writes down of itself; of one that is gone it is history. It is empty when nothing was written.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct StatusRow {
    /// Of the gateway that wrote it.
    pub pid: u32,
    /// When it started, as the log writes times.
    pub started: Option<String>,
    /// Its configuration file.
    pub config: Option<String>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// What ends: of the listeners and of the connectors.
    pub credentials: Vec<Credential>,
    /// By name, as the configuration has them.
    pub connectors: Vec<String>,
    /// The connectors of each route, in order.
    pub routes: Option<BTreeMap<String, Vec<String>>>,
    /// What became of the last reload, if there was one.
    pub reload: Option<Reload>,
    /// That it is learned who there is.
    pub learning: Option<LearningView>,
}

impl StatusRow {
    /// From the store; what cannot be read says nothing.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// For the store.
    pub fn written(&self) -> String {
        serde_json::to_value(self).unwrap_or_default().to_string()
    }
}

/// A listener at one of its addresses.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Listener {
    /// Of its section.
    pub name: String,
    /// With the port that it has.
    pub address: String,
    /// `off`, `starttls`, `implicit`.
    pub tls: String,
}

/// Something that ends: a certificate, a secret, a token. It belongs to a connector or to a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Credential {
    /// Whose it is.
    pub connector: Option<String>,
    /// Whose it is.
    pub listener: Option<String>,
    /// The key of the file that says it, or `listener`.
    pub kind: String,
    /// Where it is kept, if it is in a file.
    pub file: Option<String>,
    /// When it begins, while that lies ahead.
    pub not_before: Option<String>,
    /// When it ends.
    pub not_after: String,
    /// From when on the gateway replaces it.
    pub rotates_at: Option<String>,
    /// How far that is. `None`: it is nothing that is replaced.
    pub rotation: Option<String>,
    /// What hinders it, or is left to be done.
    pub why: Option<String>,
}

impl Credential {
    /// When it begins, while that lies ahead.
    pub fn begins(&self) -> Option<SystemTime> {
        self.not_before.as_deref().and_then(time::parsed)
    }

    /// Nobody who checks it takes it yet.
    pub fn is_early(&self, now: SystemTime) -> bool {
        self.begins().is_some_and(|begins| begins > now)
    }

    /// When it ends. `None`: that cannot be read.
    pub fn ends(&self) -> Option<SystemTime> {
        time::parsed(&self.not_after)
    }

    /// A list of what is revoked, which is followed by another every few days: its end is news only when it has passed.
    pub fn is_list(&self) -> bool {
        self.kind == "client_crl"
    }

    /// Whole days until it ends; below 0: it has ended.
    pub fn days(&self, now: SystemTime) -> Option<i64> {
        const DAY: i64 = 86_400_000_000;
        let left = time::micros(self.ends()?).saturating_sub(time::micros(now));
        Some(left.div_euclid(DAY))
    }
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Reload {
    /// When it was begun, as the log writes times.
    pub at: String,
    /// Why.
    pub cause: ReloadCause,
    /// Why the old settings stay. `None`: the new ones are in force.
    pub error: Option<String>,
}

/// Why the settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReloadCause {
    /// Somebody wants the file to be taken as it is now.
    Asked,
    /// A file that the settings in force name is another one. The configuration stays as it was taken: it may be half edited.
    Files,
}
