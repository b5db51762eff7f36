//! What needs somebody, and what ends when: as the overview shows it.

use std::time::SystemTime;

use serde::Serialize;

use super::filters::{connector_path, spanned};
use crate::{
    admin::{
        api::incidents::{looked_after, open},
        app::App,
        problem::ApiError,
    },
    mail::time,
    view,
};

/// Incidents that are looked at, of either state.
const INCIDENTS: usize = 100;

/// Something that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(in crate::admin) struct OpenNeed {
    /// `critical`, `warning`.
    pub(super) severity: &'static str,
    /// What it is about: a connector, a file, …
    pub(super) object: String,
    /// What is so.
    pub(super) what: String,
    /// Why, or what to do.
    pub(super) why: String,
    /// Since when.
    pub(super) since: Option<String>,
    /// Where it is mended.
    pub(super) href: String,
    /// The kind and the object of the incident that says the same; without an object any of that kind.
    #[serde(skip)]
    same_as: Option<(&'static str, Option<String>)>,
}

/// All that the overview is made of.
#[derive(Debug)]
pub(in crate::admin) struct SeenNow {
    pub(super) status: view::Status,
    pub(super) ready: view::Readiness,
    pub(super) connectors: Vec<view::ConnectorView>,
    /// Those that nobody looks after.
    open: Vec<view::IncidentView>,
    /// Those that somebody does.
    looked_after: Vec<view::IncidentView>,
    day: view::DayView,
    disk: view::DiskView,
    now: SystemTime,
}

impl SeenNow {
    /// As it is.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub(in crate::admin) async fn of(app: &App) -> Result<Self, ApiError> {
        Ok(Self {
            status: app.host.status().await?,
            ready: app.host.ready(),
            connectors: app.host.connectors().await?,
            // Where they cannot be read the rest says what is so.
            open: open(app, INCIDENTS).await.unwrap_or_default(),
            looked_after: looked_after(app, INCIDENTS).await.unwrap_or_default(),
            day: app.host.day(),
            disk: app.host.disk(),
            now: SystemTime::now(),
        })
    }

    /// Certificates and credentials, the first to end first.
    pub(super) fn endings(&self) -> Vec<EndsOn> {
        endings(&self.status, self.now)
    }

    /// The database that the queue is in. `None`: it is this gateway's own.
    pub(super) fn shared(&self) -> Option<view::StoreView> {
        let store = self.status.store.as_ref()?;
        store.is_shared().then(|| store.clone())
    }

    fn says(&self, (kind, object): &(&'static str, Option<String>)) -> bool {
        let mut all = self.open.iter().chain(&self.looked_after);
        all.any(|incident| {
            incident.kind == *kind
                && object
                    .as_ref()
                    .is_none_or(|object| incident.object == *object)
        })
    }
}

/// Something that ends on a day.
#[derive(Debug, Clone)]
pub(super) struct EndsOn {
    /// What it is.
    pub(super) what: String,
    /// The kind of the incident about it.
    kind: &'static str,
    /// A list of what is revoked, which counts on when it is overdue.
    is_list: bool,
    /// The listener or the connector.
    name: String,
    /// The day.
    pub(super) at: String,
    /// Until then; `None`: it lies behind.
    pub(super) days: Option<u64>,
}

impl EndsOn {
    /// Where it is mended.
    fn href(&self) -> String {
        match self.kind {
            "credential_expires" => connector_path(&self.name),
            _ => "/config".to_owned(),
        }
    }

    /// `expired`, `warning` or `ok`.
    pub(super) fn state(&self) -> &'static str {
        match self.days {
            None => "expired",
            Some(0..=30) => "warning",
            Some(_) => "ok",
        }
    }
}

/// The overview in one sentence, and what it is made of.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::admin) struct Needs {
    /// `Mail flows`, or how many things need somebody.
    verdict: String,
    /// `ok`, `info`, `warning`, `critical`: of the worst.
    mood: &'static str,
    /// The worst first.
    pub(super) items: Vec<OpenNeed>,
    /// Incidents that somebody looks after.
    pub(super) looked_after: usize,
    /// How much mail there was of late.
    pub(super) day: view::DayView,
    /// The room that is left.
    pub(super) disk: view::DiskView,
}

impl Needs {
    /// Of what is so now.
    pub(in crate::admin) fn of(seen: &SeenNow) -> Self {
        let SeenNow {
            status,
            ready,
            connectors,
            ..
        } = seen;
        let mut items: Vec<OpenNeed> = seen.open.iter().map(of_incident).collect();
        let mut states = Vec::new();
        if !ready.ready {
            states.push(OpenNeed {
                same_as: (!ready.checks.store).then_some(("store_failing", None)),
                ..need(
                    "critical",
                    "gateway",
                    "No mail is taken",
                    ready.reason(),
                    "/",
                )
            });
        }
        for connector in connectors {
            let lanes = std::iter::once(&connector.lane).chain(&connector.lanes);
            states.extend(lanes.filter_map(|lane| of_lane(lane, connector)));
        }
        states.extend(of_queue(status));
        states.extend(of_file(status));
        states.extend(seen.endings().iter().filter_map(of_ending));
        // What an incident says is said once; one that somebody looks after needs nobody else.
        let is_said = |need: &OpenNeed| need.same_as.as_ref().is_some_and(|same| seen.says(same));
        items.extend(states.into_iter().filter(|need| !is_said(need)));
        // Among equals as they were found.
        let rank = |severity: &str| SEVERITIES.iter().position(|one| *one == severity);
        items.sort_by_key(|need| rank(need.severity));
        let looked_after = seen.looked_after.len();
        let verdict = match (items.len(), looked_after) {
            (0, 0) => "Mail flows".to_owned(),
            (0, 1) => "1 thing is looked after".to_owned(),
            (0, more) => format!("{more} things are looked after"),
            (1, _) => "1 thing needs you".to_owned(),
            (more, _) => format!("{more} things need you"),
        };
        let mood = match items.first() {
            Some(need) => need.severity,
            None if looked_after > 0 => "warning",
            None => "ok",
        };
        Self {
            verdict,
            mood,
            items,
            looked_after,
            day: seen.day.clone(),
            disk: seen.disk,
        }
    }

    pub(super) fn verdict(&self) -> &str {
        &self.verdict
    }

    pub(super) fn mood(&self) -> &str {
        self.mood
    }
}

/// The worst first.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

fn of_incident(incident: &view::IncidentView) -> OpenNeed {
    let severity = SEVERITIES
        .into_iter()
        .find(|one| *one == incident.severity)
        .unwrap_or("warning");
    let why = incident.evidence.first().unwrap_or(&incident.remedy);
    let found = need(
        severity,
        &incident.id,
        &incident.title,
        why,
        format!("/incidents/{}", incident.id),
    );
    OpenNeed {
        since: Some(incident.opened_at.clone()),
        ..found
    }
}

fn need(
    severity: &'static str,
    object: impl Into<String>,
    what: impl Into<String>,
    why: impl Into<String>,
    href: impl Into<String>,
) -> OpenNeed {
    OpenNeed {
        severity,
        object: object.into(),
        what: what.into(),
        why: why.into(),
        since: None,
        href: href.into(),
        same_as: None,
    }
}

fn of_lane(lane: &view::Lane, connector: &view::ConnectorView) -> Option<OpenNeed> {
    let is_whole = lane.name == connector.lane.name;
    let severity = match (lane.state.as_str(), is_whole) {
        ("paused", true) => "critical",
        ("paused", false) | ("closed", _) => "warning",
        _ => return None,
    };
    let kind = if is_whole { "Connector" } else { "Mailbox" };
    let same_as = match (lane.state.as_str(), is_whole) {
        ("closed", _) => "connector_closed",
        (_, true) => "connector_paused",
        (_, false) => "mailbox_refused",
    };
    let found = need(
        severity,
        &lane.name,
        format!("{kind} {} is {}", lane.name, lane.state),
        lane.why.clone().unwrap_or_default(),
        connector_path(&connector.lane.name),
    );
    Some(OpenNeed {
        since: lane.since.clone(),
        same_as: Some((same_as, Some(lane.name.clone()))),
        ..found
    })
}

fn of_queue(status: &view::Status) -> Vec<OpenNeed> {
    let mut found = Vec::new();
    if let Some(view::Messages { failed, .. }) = status.messages
        && failed > 0
    {
        let what = match failed {
            1 => "1 message has failed".to_owned(),
            _ => format!("{failed} messages have failed"),
        };
        let why = "The last reply of each says why. Retry sends it again, Drop deletes it.";
        found.push(OpenNeed {
            same_as: Some(("mail_failed", None)),
            ..need("warning", "failed", what, why, "/messages?state=failed")
        });
    }
    if let Some(seconds) = status.oldest_seconds.filter(|seconds| *seconds > 3_600) {
        let severity = if seconds > 6 * 3_600 {
            "critical"
        } else {
            "warning"
        };
        let what = format!("The oldest message has waited for {}", spanned(seconds));
        let why = "Each message says what it waits for.";
        found.push(OpenNeed {
            same_as: Some(("queue_old", None)),
            ..need(severity, "waiting", what, why, "/messages?state=waiting")
        });
    }
    found
}

fn of_file(status: &view::Status) -> Option<OpenNeed> {
    if let Some(reload) = &status.reload
        && let Some(error) = &reload.error
    {
        let first = error.lines().next().unwrap_or_default();
        let why = format!("{first}\nThe settings before it are still in force.");
        let found = need(
            "warning",
            "reload",
            "The last reload was refused",
            why,
            "/config",
        );
        return Some(OpenNeed {
            since: Some(reload.at.clone()),
            same_as: Some(("reload_refused", None)),
            ..found
        });
    }
    let errors = status
        .problems
        .iter()
        .filter(|problem| problem.severity == "error");
    let mut errors = errors.peekable();
    let first = errors.peek()?.message.clone();
    let what = match errors.count() {
        1 => "The configuration file has an error".to_owned(),
        more => format!("The configuration file has {more} errors"),
    };
    let why = format!("{first}\nThe settings in force are older; a restart would fail.");
    Some(need("warning", "config", what, why, "/config"))
}

fn of_ending(ending: &EndsOn) -> Option<OpenNeed> {
    let (severity, what) = match ending.days {
        None if ending.is_list => ("warning", format!("{} is overdue", ending.what)),
        Some(_) if ending.is_list => return None,
        None => ("critical", format!("{} has expired", ending.what)),
        Some(0) => ("critical", format!("{} ends today", ending.what)),
        Some(1) => ("warning", format!("{} ends in 1 day", ending.what)),
        Some(days @ ..=30) => ("warning", format!("{} ends in {days} days", ending.what)),
        Some(_) => return None,
    };
    let why = "Put the new one in its place; it is taken as soon as it is there.";
    Some(OpenNeed {
        same_as: Some((ending.kind, Some(ending.name.clone()))),
        ..need(severity, &ending.what, what, why, ending.href())
    })
}

/// Certificates and credentials, the first to end first.
fn endings(status: &view::Status, now: SystemTime) -> Vec<EndsOn> {
    let all = status.credentials.iter().filter_map(|credential| {
        let (owner, kind, name) = match (&credential.listener, &credential.connector) {
            (Some(name), _) => ("listener", "certificate_expires", name),
            (None, Some(name)) => ("connector", "credential_expires", name),
            (None, None) => return None,
        };
        let what = match credential.kind.as_str() {
            "client_secret" => "Client secret",
            "refresh_token" => "Refresh token",
            "ca_file" => "Root certificate",
            "client_ca" => "Authority for clients",
            "client_crl" => "List of revoked certificates",
            "old_certificate" => "Certificate for old TLS",
            _ => "Certificate",
        };
        let at = credential.not_after.clone();
        let left = time::parsed(&at).and_then(|end| end.duration_since(now).ok());
        Some(EndsOn {
            what: format!("{what} of {owner} {name}"),
            kind,
            is_list: credential.kind == "client_crl",
            name: name.clone(),
            at,
            days: left.map(|left| left.as_secs() / 86_400),
        })
    });
    let mut all: Vec<EndsOn> = all.collect();
    all.sort_by(|one, other| one.at.cmp(&other.at));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::day::DayNumbers;

    fn lane(name: &str, state: &str) -> view::Lane {
        view::Lane {
            name: name.to_owned(),
            state: state.to_owned(),
            current: true,
            since: None,
            cause: None,
            why: None,
            next_probe: None,
            more: None,
            connections: None,
        }
    }

    fn incident(id: &str, kind: &str, object: &str, severity: &str) -> view::IncidentView {
        view::IncidentView {
            id: id.to_owned(),
            kind: kind.to_owned(),
            object: object.to_owned(),
            severity: severity.to_owned(),
            state: "open".to_owned(),
            opened_at: "2026-11-23T08:00:00Z".to_owned(),
            last_seen_at: "2026-11-23T08:00:00Z".to_owned(),
            recovered_at: None,
            count: 1,
            cause: None,
            title: format!("{kind} {object}"),
            evidence: vec!["what was said".to_owned()],
            causes: Vec::new(),
            remedy: "what to do".to_owned(),
            note: None,
            told: Vec::new(),
        }
    }

    /// A connector that is closed, and mail that has failed.
    fn seen(open: Vec<view::IncidentView>, looked_after: Vec<view::IncidentView>) -> SeenNow {
        let ready = view::Readiness {
            ready: true,
            ..view::Readiness::default()
        };
        SeenNow {
            status: view::Status {
                quotas: Vec::new(),
                running: true,
                pid: None,
                data_dir: String::new(),
                store: Some(view::StoreView::alone()),
                members: Vec::new(),
                ok: true,
                started: None,
                config: None,
                problems: Vec::new(),
                listeners: Vec::new(),
                connectors: Vec::new(),
                messages: Some(view::Messages {
                    waiting: 0,
                    sending: 0,
                    held: 0,
                    failed: 2,
                }),
                oldest_seconds: None,
                certificates: Vec::new(),
                credentials: Vec::new(),
                reload: None,
                learning: None,
                old_tls: Vec::new(),
                incidents: None,
            },
            ready,
            connectors: vec![view::ConnectorView {
                lane: lane("up", "closed"),
                kind: "smtp".to_owned(),
                settings: serde_json::Value::Null,
                waiting: 0,
                in_flight: 0,
                last_success: None,
                credential_expires: None,
                lanes: vec![lane("up/kim", "paused")],
            }],
            open,
            looked_after,
            day: view::DayView::of(SystemTime::UNIX_EPOCH, &DayNumbers::default()),
            disk: view::DiskView {
                free: None,
                least: 0,
            },
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn said(seen: &SeenNow) -> (String, &'static str, Vec<String>) {
        let needs = Needs::of(seen);
        let items = needs.items.iter().map(|need| need.object.clone());
        (needs.verdict.clone(), needs.mood, items.collect())
    }

    #[test]
    fn what_an_incident_says_is_said_once() {
        let three = ["up", "up/kim", "failed"].map(str::to_owned).to_vec();
        let alone = seen(Vec::new(), Vec::new());
        let expected = "3 things need you".to_owned();
        assert_eq!(said(&alone), (expected.clone(), "warning", three));
        let open = vec![
            incident("i1", "connector_stopped", "other", "info"),
            incident("i2", "connector_closed", "up", "critical"),
            // Of another connector, so that the mailbox is said as well.
            incident("i3", "mailbox_refused", "other/kim", "warning"),
        ];
        let needs = ["i2", "i3", "up/kim", "failed", "i1"].map(str::to_owned);
        let expected = ("5 things need you".to_owned(), "critical", needs.to_vec());
        assert_eq!(said(&seen(open, Vec::new())), expected);
    }

    #[test]
    fn what_somebody_looks_after_needs_nobody_else() {
        let looked_after = vec![
            incident("i1", "connector_closed", "up", "critical"),
            incident("i2", "mailbox_refused", "up/kim", "warning"),
            incident("i3", "mail_failed", "internet", "warning"),
        ];
        let all = seen(Vec::new(), looked_after);
        let expected = (
            "3 things are looked after".to_owned(),
            "warning",
            Vec::new(),
        );
        assert_eq!(said(&all), expected);
        let mut well = seen(Vec::new(), Vec::new());
        well.status.messages = None;
        well.connectors.clear();
        assert_eq!(said(&well), ("Mail flows".to_owned(), "ok", Vec::new()));
    }
}
