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
    /// The listeners' and the connectors' own.
    pub certificates: Vec<Certificate>,
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

/// A certificate in use.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Certificate {
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// Where it is kept.
    pub file: String,
    /// When it begins, while that lies ahead, as the log writes times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// When it ends, as the log writes times.
    pub not_after: String,
}

impl Certificate {
    /// Nobody who checks it takes it yet.
    pub fn is_early(&self, now: SystemTime) -> bool {
        let begins = self.not_before.as_deref().and_then(time::parsed);
        begins.is_some_and(|begins| begins > now)
    }

    /// When it ends. `None`: that cannot be read.
    pub fn ends(&self) -> Option<SystemTime> {
        time::parsed(&self.not_after)
    }
}

/// The section that a certificate belongs to, by its name.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// It is shown to clients.
    Listener(String),
    /// It is shown to a token endpoint or an upstream.
    Connector(String),
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
