//! What needs somebody, and what ends when: as the overview shows it.

use std::time::SystemTime;

use serde::Serialize;

use super::filters::spanned;
use crate::{mail::time, view};

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
}

/// Something that ends on a day.
#[derive(Debug, Clone)]
pub(super) struct EndsOn {
    /// What it is.
    pub(super) what: String,
    /// The day.
    pub(super) at: String,
    /// Until then; `None`: it lies behind.
    pub(super) days: Option<u64>,
}

impl EndsOn {
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
    /// `ok`, `warning`, `critical`: of the worst.
    mood: &'static str,
    /// The worst first.
    pub(super) items: Vec<OpenNeed>,
}

impl Needs {
    /// Of what is so now.
    pub(in crate::admin) fn of(
        status: &view::Status,
        ready: view::Readiness,
        connectors: &[view::ConnectorView],
        now: SystemTime,
    ) -> Self {
        let mut items = Vec::new();
        if !ready.ready {
            items.push(need(
                "critical",
                "gateway",
                "No mail is taken",
                ready.reason(),
                "/",
            ));
        }
        for connector in connectors {
            let lanes = std::iter::once(&connector.lane).chain(&connector.lanes);
            items.extend(lanes.filter_map(|lane| of_lane(lane, connector)));
        }
        items.extend(of_queue(status));
        items.extend(of_file(status));
        items.extend(
            endings(status, connectors, now)
                .iter()
                .filter_map(of_ending),
        );
        // Among equals as they were found.
        items.sort_by_key(|need| need.severity != "critical");
        let verdict = match items.len() {
            0 => "Mail flows".to_owned(),
            1 => "1 thing needs you".to_owned(),
            more => format!("{more} things need you"),
        };
        let mood = items.first().map_or("ok", |need| need.severity);
        Self {
            verdict,
            mood,
            items,
        }
    }

    pub(super) fn verdict(&self) -> &str {
        &self.verdict
    }

    pub(super) fn mood(&self) -> &str {
        self.mood
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
    let encoded: String = form_urlencoded::byte_serialize(connector.lane.name.as_bytes()).collect();
    let found = need(
        severity,
        &lane.name,
        format!("{kind} {} is {}", lane.name, lane.state),
        lane.why.clone().unwrap_or_default(),
        format!("/connectors/{}", encoded.replace('+', "%20")),
    );
    Some(OpenNeed {
        since: lane.since.clone(),
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
        found.push(need(
            "warning",
            "failed",
            what,
            why,
            "/messages?state=failed",
        ));
    }
    if let Some(seconds) = status.oldest_seconds.filter(|seconds| *seconds > 3_600) {
        let severity = if seconds > 6 * 3_600 {
            "critical"
        } else {
            "warning"
        };
        let what = format!("The oldest message has waited for {}", spanned(seconds));
        let why = "Each message says what it waits for.";
        found.push(need(
            severity,
            "waiting",
            what,
            why,
            "/messages?state=waiting",
        ));
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
        None => ("critical", format!("{} has expired", ending.what)),
        Some(0) => ("critical", format!("{} ends today", ending.what)),
        Some(1) => ("warning", format!("{} ends in 1 day", ending.what)),
        Some(days @ ..=30) => ("warning", format!("{} ends in {days} days", ending.what)),
        Some(_) => return None,
    };
    let why = "Put the new one in its place; it is taken as soon as it is there.";
    Some(need(severity, &ending.what, what, why, "/"))
}

/// Certificates and credentials, the first to end first.
pub(super) fn endings(
    status: &view::Status,
    connectors: &[view::ConnectorView],
    now: SystemTime,
) -> Vec<EndsOn> {
    let certificates = status.certificates.iter().map(|checked| {
        let owner = match &checked.certificate.owner {
            view::Owner::Listener(name) => format!("listener {name}"),
            view::Owner::Connector(name) => format!("connector {name}"),
        };
        let end = checked.certificate.not_after.clone();
        (format!("Certificate of {owner}"), end)
    });
    let credentials = connectors.iter().filter_map(|connector| {
        let end = connector.credential_expires.clone()?;
        Some((
            format!("Credential of connector {}", connector.lane.name),
            end,
        ))
    });
    let mut all: Vec<EndsOn> = certificates
        .chain(credentials)
        .map(|(what, at)| {
            let left = time::parsed(&at).and_then(|end| end.duration_since(now).ok());
            let days = left.map(|left| left.as_secs() / 86_400);
            EndsOn { what, at, days }
        })
        .collect();
    all.sort_by(|one, other| one.at.cmp(&other.at));
    all
}
