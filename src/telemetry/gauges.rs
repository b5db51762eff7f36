//! The part of `/metrics` that is a state and no count: whoever asks brings it.

use std::{fmt::Display, time::SystemTime};

use super::series::{head, labels, line};
use crate::mail::outcome::LaneState;

const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

/// What is read when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// The last reload took the new settings (a start did).
    pub is_reloaded: bool,
    /// When settings were taken last.
    pub reloaded_at: Option<SystemTime>,
    /// Jobs by state; `waiting` without those in doubt.
    pub queue: QueueGauges,
    /// Every connector.
    pub connectors: Vec<ConnectorGauges>,
    /// Of each listener that has a certificate, when that ends.
    pub certificates: Vec<(String, SystemTime)>,
    /// What is sent can be written down.
    pub is_store_healthy: bool,
    /// Octets that are free on the disk of the queue. `None`: it cannot be seen.
    pub free_octets: Option<u64>,
    /// Every quota.
    pub quotas: Vec<QuotaGauges>,
    /// Incidents that are open: `info`, `warning`, `critical`.
    pub incidents: [u64; 3],
}

/// Jobs by state.
#[derive(Debug, Clone, Default)]
pub struct QueueGauges {
    /// For their time or their turn.
    pub waiting: u64,
    /// At this moment.
    pub sending: u64,
    /// By an operator.
    pub held: u64,
    /// For good.
    pub failed: u64,
    /// They wait, and may have arrived.
    pub in_doubt: u64,
    /// When the oldest that waits was accepted.
    pub oldest: Option<SystemTime>,
}

/// What a quota has counted, since the start.
#[derive(Debug, Clone)]
pub struct QuotaGauges {
    /// Its name.
    pub name: String,
    /// Recipients that were counted.
    pub counted: u64,
    /// Recipients that found no room.
    pub beyond: u64,
    /// Keys that were forgotten since there were too many.
    pub forgotten: u64,
    /// Keys that are counted now.
    pub keys: u64,
    /// Those of them that have no room.
    pub full: u64,
}

/// A connector at this moment.
#[derive(Debug, Clone)]
pub struct ConnectorGauges {
    /// Its name.
    pub name: String,
    /// Of its lane.
    pub state: LaneState,
    /// Jobs that have a permit of it.
    pub in_flight: usize,
    /// When the first of its credentials ends, where that is known.
    pub credential_ends: Option<SystemTime>,
}

pub(super) fn unix(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

impl Gauges {
    /// All of it.
    pub(super) fn write(&self, out: &mut String) {
        write_build(self, out);
        write_queue(&self.queue, out);
        write_connectors(&self.connectors, out);
        write_ends(self, out);
        write_quotas(&self.quotas, out);
        let name = "postern_store_healthy";
        let help = "Whether what is sent can be written down.";
        gauge(name, help, u64::from(self.is_store_healthy), out);
        if let Some(free) = self.free_octets {
            let help = "Octets that are free on the disk of the queue.";
            gauge("postern_store_free_bytes", help, free, out);
        }
        let name = "postern_incidents_open";
        head(name, "gauge", "Incidents that are open.", out);
        for (severity, count) in SEVERITIES.iter().zip(self.incidents) {
            line(name, &labels(&["severity"], &[severity]), count, out);
        }
    }
}

fn gauge(name: &str, help: &str, value: impl Display, out: &mut String) {
    head(name, "gauge", help, out);
    line(name, "", value, out);
}

fn write_build(gauges: &Gauges, out: &mut String) {
    let name = "postern_build_info";
    head(name, "gauge", "The version that runs.", out);
    line(
        name,
        &labels(&["version"], &[env!("CARGO_PKG_VERSION")]),
        1,
        out,
    );
    let name = "postern_config_reload_successful";
    let help = "Whether the last reload took the new settings.";
    gauge(name, help, u64::from(gauges.is_reloaded), out);
    let name = "postern_config_reload_success_timestamp_seconds";
    let help = "When settings were last taken, at the start or a reload.";
    gauge(name, help, unix(gauges.reloaded_at), out);
}

fn write_queue(queue: &QueueGauges, out: &mut String) {
    let name = "postern_queue_messages";
    let help = "Messages in the queue, each once for every route that it takes.";
    head(name, "gauge", help, out);
    for (state, count) in [
        ("waiting", queue.waiting),
        ("sending", queue.sending),
        ("held", queue.held),
        ("failed", queue.failed),
        ("in_doubt", queue.in_doubt),
    ] {
        line(name, &labels(&["state"], &[state]), count, out);
    }
    let name = "postern_queue_oldest_timestamp_seconds";
    let help = "When the oldest message that waits was accepted; 0: none waits.";
    gauge(name, help, unix(queue.oldest), out);
}

fn write_connectors(connectors: &[ConnectorGauges], out: &mut String) {
    let name = "postern_delivery_in_flight";
    head(
        name,
        "gauge",
        "Deliveries that hold a permit of the connector.",
        out,
    );
    for connector in connectors {
        let labels = labels(&["connector"], &[&connector.name]);
        line(name, &labels, connector.in_flight, out);
    }
    let name = "postern_connector_state";
    head(
        name,
        "gauge",
        "1 for the state that the connector is in.",
        out,
    );
    for connector in connectors {
        for state in [
            LaneState::Open,
            LaneState::Closed,
            LaneState::Paused,
            LaneState::Throttled,
            LaneState::Stopped,
        ] {
            let labels = labels(&["connector", "state"], &[&connector.name, state.as_str()]);
            line(name, &labels, u8::from(connector.state == state), out);
        }
    }
}

/// One figure of a quota.
type QuotaFigure = fn(&QuotaGauges) -> u64;

fn write_quotas(quotas: &[QuotaGauges], out: &mut String) {
    let families: [(&str, &str, &str, QuotaFigure); 5] = [
        (
            "postern_quota_recipients_total",
            "counter",
            "Recipients that the quota has counted.",
            |quota| quota.counted,
        ),
        (
            "postern_quota_over_total",
            "counter",
            "Recipients that found no room in the quota.",
            |quota| quota.beyond,
        ),
        (
            "postern_quota_forgotten_total",
            "counter",
            "Senders, users, clients or routes that were forgotten since there were too many.",
            |quota| quota.forgotten,
        ),
        (
            "postern_quota_keys",
            "gauge",
            "Senders, users, clients or routes that the quota counts.",
            |quota| quota.keys,
        ),
        (
            "postern_quota_full",
            "gauge",
            "Those of them that have overrun it and have no room.",
            |quota| quota.full,
        ),
    ];
    for (name, kind, help, part) in families {
        head(name, kind, help, out);
        for quota in quotas {
            line(name, &labels(&["quota"], &[&quota.name]), part(quota), out);
        }
    }
}

fn write_ends(gauges: &Gauges, out: &mut String) {
    let name = "postern_credential_expiry_timestamp_seconds";
    let help = "When the first credential of the connector ends, where that is known.";
    head(name, "gauge", help, out);
    for connector in &gauges.connectors {
        if connector.credential_ends.is_some() {
            let labels = labels(&["connector"], &[&connector.name]);
            line(name, &labels, unix(connector.credential_ends), out);
        }
    }
    let name = "postern_certificate_expiry_timestamp_seconds";
    let help = "When the certificate of the listener ends.";
    head(name, "gauge", help, out);
    for (listener, end) in &gauges.certificates {
        let labels = labels(&["listener"], &[listener]);
        line(name, &labels, unix(Some(*end)), out);
    }
}
