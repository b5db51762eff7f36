//! What happens and is counted: an event for each, which has no line in the log and which no `log.level` silences.
//!
//! An event is sent and read on this page: names of the configuration and words first, in the order of the labels, then numbers. It
//! costs a message no allocation and no system call.

use std::time::Duration;

use tracing::{
    Event, Metadata,
    field::{Field, Visit},
    info,
};

use super::metrics::{LOGINS, Metrics, NO_CLIENT, SIGNING, TLS, TOKENS};
use crate::mail::outcome::{ObstacleKind, Outcome, Report};

/// The target of these events. It is not ours, so that the log leaves them out.
const COUNTED: &str = "counted";

/// For the texts of one event: two names of at most 64 octets and a word, or one and words.
const ROOM: usize = 144;

/// Whether events of this kind are counted here.
pub(super) fn is_counted(metadata: &Metadata<'_>) -> bool {
    metadata.target() == COUNTED
}

/// An SMTP connection, counted from here until it is dropped, by the TLS that it spoke at last.
#[derive(Debug)]
pub struct CountedConnection {
    listener: String,
    client: Option<String>,
    tls: &'static str,
}

impl CountedConnection {
    /// One begins, in the clear.
    pub fn begin(listener: &str) -> Self {
        info!(name: "session began", target: COUNTED, listener);
        let [none, ..] = TLS;
        Self {
            listener: listener.to_owned(),
            client: None,
            tls: none,
        }
    }

    /// It is of this `[[client]]`.
    pub fn of(&mut self, client: Option<String>) {
        self.client = client;
    }

    /// A handshake ended with this version; `None`: it failed.
    pub fn encrypted(&mut self, version: Option<&'static str>) {
        let [.., failed] = TLS;
        self.tls = version.unwrap_or(failed);
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let (listener, tls) = (self.listener.as_str(), self.tls);
        let client = self.client.as_deref().unwrap_or(NO_CLIENT);
        info!(name: "session ended", target: COUNTED, listener, client, tls);
    }
}

/// What became of a name and password that were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedLogin {
    /// Right.
    Accepted,
    /// Wrong.
    Refused,
    /// Not looked at: too many failures.
    Throttled,
}

/// A client has logged in, or has not.
pub fn login(listener: &str, result: CheckedLogin) {
    let [accepted, refused, throttled] = LOGINS;
    let result = match result {
        CheckedLogin::Accepted => accepted,
        CheckedLogin::Refused => refused,
        CheckedLogin::Throttled => throttled,
    };
    info!(name: "login", target: COUNTED, listener, result);
}

/// A message is on disk, so long after the end of DATA.
pub(super) fn accepted(listener: &str, client: &str, took: Duration) {
    info!(name: "accepted", target: COUNTED, listener, client, took = micros(took));
}

/// Something was refused, whether or not there is a line about it. `stage` and `code`: as in `maillog::rejected`.
pub fn refused(listener: &str, stage: &'static str, code: u16) {
    info!(name: "refused", target: COUNTED, listener, stage, code);
}

/// A connector was called and said this. `waited`: since acceptance.
pub fn attempted(connector: &str, report: &Report, took: Duration, waited: Duration) {
    let (results, took, waited) = (results(report), micros(took), micros(waited));
    info!(name: "attempted", target: COUNTED, connector, results, took, waited);
}

/// A `[[redirect]]` has replaced so many recipients of a message that is on disk.
pub fn redirected(redirect: &str, recipients: u64) {
    info!(name: "redirected", target: COUNTED, redirect, recipients);
}

/// A copy of a message for this `[[archive]]` is on disk.
pub(super) fn archived(archive: &str) {
    info!(name: "archived", target: COUNTED, archive);
}

/// A connector of this route is called since those before it took nothing.
pub fn failed_over(route: &str) {
    info!(name: "failed over", target: COUNTED, route);
}

/// A report about mail that was given up: `queued`, or `withheld`.
pub fn bounced(result: &'static str) {
    info!(name: "bounced", target: COUNTED, result);
}

/// A report that its sender asked for: `relayed`, `delivered` or `delayed`.
pub fn reported(kind: &'static str) {
    info!(name: "reported", target: COUNTED, kind);
}

/// A connector has asked for an access token; the obstacle, if there was one.
pub fn asked_for_token(connector: &str, obstacle: Option<ObstacleKind>) {
    let [granted, refused, unavailable] = TOKENS;
    let result = match obstacle {
        None => granted,
        Some(ObstacleKind::Misconfigured) => refused,
        Some(_) => unavailable,
    };
    info!(name: "asked for token", target: COUNTED, connector, result);
}

/// An upstream took a message of a connector that signs.
pub fn signed(connector: &str, is_signed: bool) {
    let [signed, no_key] = SIGNING;
    let result = if is_signed { signed } else { no_key };
    info!(name: "signed", target: COUNTED, connector, result);
}

/// A transaction of the store is on disk.
pub fn committed(took: Duration) {
    info!(name: "committed", target: COUNTED, took = micros(took));
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A bit for each result that recipients had, in the order of `metrics::RESULTS`.
fn results(report: &Report) -> u64 {
    let outcomes = match report {
        Report::NotTried(obstacle) => {
            return 1
                << match obstacle.kind {
                    ObstacleKind::Down | ObstacleKind::Intercepted => 5,
                    // No call says that it is stopped.
                    ObstacleKind::Misconfigured | ObstacleKind::Stopped => 6,
                    ObstacleKind::MailboxRefused | ObstacleKind::FromRefused => 7,
                    ObstacleKind::Throttled => 8,
                };
        }
        Report::Tried { outcomes, .. } => outcomes,
    };
    outcomes.iter().fold(0, |results, (_, outcome)| {
        results
            | 1 << match outcome {
                Outcome::Delivered(_) => DELIVERED,
                // Nobody got it, and smaller sets are tried.
                Outcome::Deferred { .. } | Outcome::Apart(_) => 1,
                Outcome::Failed(_) => 2,
                Outcome::InDoubt(_) => 3,
                Outcome::Unsuited(_) => 4,
            }
    })
}

const DELIVERED: u32 = 0;

/// The fields of one event, in their order.
struct CountedFields {
    text: [u8; ROOM],
    /// Where each text ends.
    ends: [usize; 3],
    texts: usize,
    numbers: [u64; 3],
    counts: usize,
}

impl CountedFields {
    fn text(&self, at: usize) -> &str {
        let begin = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let begin = begin.copied().unwrap_or(0);
        let octets = self.ends.get(at).and_then(|end| self.text.get(begin..*end));
        octets
            .and_then(|o| std::str::from_utf8(o).ok())
            .unwrap_or_default()
    }
}

impl Visit for CountedFields {
    fn record_u64(&mut self, _: &Field, value: u64) {
        if let Some(number) = self.numbers.get_mut(self.counts) {
            *number = value;
            self.counts += 1;
        }
    }

    fn record_str(&mut self, _: &Field, value: &str) {
        let begin = self
            .texts
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        let begin = begin.copied().unwrap_or(0);
        let end = begin + value.len();
        let (Some(room), Some(ends)) =
            (self.text.get_mut(begin..end), self.ends.get_mut(self.texts))
        else {
            return;
        };
        room.copy_from_slice(value.as_bytes());
        *ends = end;
        self.texts += 1;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Counts one of the events above.
pub(super) fn count(event: &Event<'_>, metrics: &Metrics) {
    let mut fields = CountedFields {
        text: [0; ROOM],
        ends: [0; 3],
        texts: 0,
        numbers: [0; 3],
        counts: 0,
    };
    event.record(&mut fields);
    let (first, second) = (|| fields.text(0), || fields.text(1));
    let [number, took, waited] = fields.numbers;
    match event.metadata().name() {
        "accepted" => metrics.accepted(first(), second(), number),
        "attempted" => {
            let is_delivered = number >> DELIVERED & 1 == 1;
            metrics.attempted(first(), number, took, is_delivered.then_some(waited));
        }
        "committed" => metrics.committed(number),
        "session began" => metrics.session_began(first()),
        "session ended" => metrics.session_ended(first(), second(), fields.text(2)),
        "refused" => metrics.refused(first(), second(), number),
        "login" => metrics.login(first(), second()),
        "redirected" => metrics.redirected(first(), number),
        "archived" => metrics.archived(first()),
        "failed over" => metrics.failed_over(first()),
        "bounced" => metrics.bounced(first()),
        "reported" => metrics.reported(first()),
        "signed" => metrics.signed(first(), second()),
        "asked for token" => metrics.asked_for_token(first(), second()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        mail::{outcome::Obstacle, reply::Reply},
        telemetry::{
            counting,
            gauges::Gauges,
            metrics::{LabelNames, RESULTS},
        },
    };

    /// The lines that say more than 0, when these names are known.
    fn counted(happens: impl FnOnce()) -> Vec<String> {
        let metrics = Arc::new(Metrics::default());
        metrics.know(&LabelNames {
            listeners: vec!["lan".to_owned()],
            clients: vec!["devices".to_owned()],
            old_clients: vec!["devices".to_owned()],
            routes: vec!["all".to_owned()],
            connectors: vec!["up".to_owned()],
            token_connectors: vec!["up".to_owned()],
            signing_connectors: vec!["up".to_owned()],
            redirects: vec!["staging".to_owned()],
            archives: vec!["journal".to_owned()],
            channels: Vec::new(),
        });
        tracing::subscriber::with_default(counting(&metrics), happens);
        let text = metrics.text(&Gauges::default());
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.ends_with(" 0"))
            .filter(|line| !line.contains("build_info") && !line.contains("_bucket"))
            .filter_map(|line| line.strip_prefix("postern_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_happens_is_counted_where_it_belongs() {
        let lines = counted(|| {
            let open = CountedConnection::begin("lan");
            CountedConnection::begin("lan").encrypted(None);
            CountedConnection::begin("lan").encrypted(Some("1.3"));
            let mut old = CountedConnection::begin("lan");
            old.of(Some("devices".to_owned()));
            old.encrypted(Some("1.0"));
            drop(old);
            login("lan", CheckedLogin::Throttled);
            accepted("lan", "devices", Duration::from_millis(2));
            failed_over("all");
            redirected("staging", 3);
            redirected("another", 2);
            archived("journal");
            bounced("withheld");
            reported("delayed");
            asked_for_token("up", None);
            asked_for_token("up", Some(ObstacleKind::Misconfigured));
            asked_for_token("up", Some(ObstacleKind::Down));
            signed("up", true);
            signed("up", false);
            committed(Duration::from_millis(3));
            std::mem::forget(open);
        });
        let expected = [
            "smtp_connections{listener=\"lan\"} 1",
            "smtp_sessions_total{listener=\"lan\",client=\"-\",tls=\"1.3\"} 1",
            "smtp_sessions_total{listener=\"lan\",client=\"-\",tls=\"failed\"} 1",
            "smtp_sessions_total{listener=\"lan\",client=\"devices\",tls=\"1.0\"} 1",
            "auth_attempts_total{listener=\"lan\",result=\"throttled\"} 1",
            "messages_accepted_total{listener=\"lan\",client=\"devices\"} 1",
            "failovers_total{route=\"all\"} 1",
            "bounces_total{result=\"withheld\"} 1",
            "reports_total{kind=\"delayed\"} 1",
            "token_requests_total{connector=\"up\",result=\"granted\"} 1",
            "token_requests_total{connector=\"up\",result=\"refused\"} 1",
            "token_requests_total{connector=\"up\",result=\"unavailable\"} 1",
            "dkim_messages_total{connector=\"up\",result=\"no_key\"} 1",
            "dkim_messages_total{connector=\"up\",result=\"signed\"} 1",
            "redirected_recipients_total{redirect=\"staging\"} 3",
            "archive_copies_total{archive=\"journal\"} 1",
            "accept_duration_seconds_sum 0.002",
            "accept_duration_seconds_count 1",
            "store_commit_duration_seconds_sum 0.003",
            "store_commit_duration_seconds_count 1",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_call_counts_once_for_each_result() {
        let reply = || Reply::new(250, (2, 0, 0), "ok");
        let to = |outcome| {
            let address = crate::fixture::address("a@corp.example");
            (address, outcome)
        };
        let tried = |outcomes: Vec<Outcome>| Report::Tried {
            outcomes: outcomes.into_iter().map(to).collect(),
            via: String::new(),
            onward: crate::mail::outcome::Onward::default(),
            pause: None,
        };
        let not_tried = |kind| Report::NotTried(Obstacle::new(kind, reply()));
        for (report, expected) in [
            (tried(vec![Outcome::Delivered(reply())]), &["delivered"][..]),
            (tried(vec![Outcome::deferred(reply())]), &["deferred"]),
            (tried(vec![Outcome::Apart(reply())]), &["deferred"]),
            (tried(vec![Outcome::InDoubt(reply())]), &["in_doubt"]),
            (tried(vec![Outcome::Unsuited(reply())]), &["unsuited"]),
            (
                tried(vec![
                    Outcome::Failed(reply()),
                    Outcome::Delivered(reply()),
                    Outcome::Failed(reply()),
                ]),
                &["delivered", "failed"],
            ),
            (not_tried(ObstacleKind::Down), &["down"]),
            (not_tried(ObstacleKind::Intercepted), &["down"]),
            (not_tried(ObstacleKind::Misconfigured), &["misconfigured"]),
            (not_tried(ObstacleKind::FromRefused), &["mailbox_refused"]),
            (
                not_tried(ObstacleKind::MailboxRefused),
                &["mailbox_refused"],
            ),
            (not_tried(ObstacleKind::Throttled), &["throttled"]),
        ] {
            let took = Duration::from_millis(5);
            let lines = counted(|| attempted("up", &report, took, took));
            let found = RESULTS.iter().copied().filter(|result| {
                let series =
                    format!("delivery_attempts_total{{connector=\"up\",result=\"{result}\"}} 1");
                lines.contains(&series)
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "{report:?}");
            let is_delivered = expected.contains(&"delivered");
            let has = |begin| lines.iter().any(|line| line.starts_with(begin));
            assert_eq!(has("queue_time_seconds_count 1"), is_delivered);
            assert_eq!(has("connector_last_success_timestamp"), is_delivered);
            assert!(has("delivery_duration_seconds_count{connector=\"up\"} 1"));
        }
    }
}
