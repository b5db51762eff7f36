//! What is counted, and the text of `/metrics`.
//!
//! A label is a name of the configuration or a word of ours, never an address, a mailbox or an id: the file bounds the number of
//! series. `counted` brings what happens on the way of a message; whoever serves people calls the methods here. What is a state and
//! no count comes with the question, in [`Gauges`].

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use tracing::Event;

use super::{
    copies::CopyCounts,
    day::Day,
    gauges::{Gauges, unix},
    labels::{alone, pairs},
    noticed::{self, Noticed},
    series::{DeliveryTimes, Family, Histogram, Number, counter, head},
};

pub use super::labels::LabelNames;

/// From the end of DATA to the disk.
const ACCEPT: &[u64] = &[
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    240_000_000,
];
/// From acceptance to delivery: at once, or after an outage of days.
const QUEUE: &[u64] = &[
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    86_400_000_000,
    432_000_000_000,
];
/// One transaction of the store, with its sync.
const COMMIT: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// What a client without a `[[client]]` is called, as in the log.
pub(super) const NO_CLIENT: &str = "-";
/// What a connection spoke at its end; `failed`: a handshake.
pub(super) const TLS: [&str; 6] = ["none", "1.0", "1.1", "1.2", "1.3", "failed"];
/// What became of a name and password that were checked.
pub(super) const LOGINS: [&str; 3] = ["accepted", "refused", "throttled"];
/// What a call of a connector can come to. In the order of the bits of `counted::Results`.
pub(super) const RESULTS: [&str; 9] = [
    "delivered",
    "deferred",
    "failed",
    "in_doubt",
    "unsuited",
    "down",
    "misconfigured",
    "mailbox_refused",
    "throttled",
];
/// The bit of what is to be tried again.
const DEFERRED: u64 = 1 << 1;
const BOUNCES: [&str; 2] = ["queued", "withheld"];
const REPORTS: [&str; 3] = ["relayed", "delivered", "delayed"];
pub(super) const TOKENS: [&str; 3] = ["granted", "refused", "unavailable"];
/// Whether a key of `[[dkim]]` signed.
pub(super) const SIGNING: [&str; 2] = ["signed", "no_key"];
const ADMIN_LOGINS: [&str; 3] = ["accepted", "refused", "throttled"];
const NOTIFICATIONS: [&str; 2] = ["taken", "failed"];
/// Refusals that are usual, so that the first of them is seen as one more than none.
const REFUSALS: &[(&str, &str)] = &[
    ("connect", "421"),
    ("connect", "554"),
    ("auth", "454"),
    ("auth", "535"),
    ("mail", "452"),
    ("mail", "550"),
    ("rcpt", "550"),
    ("data", "451"),
    ("data", "452"),
    ("data", "550"),
    ("data", "552"),
];

/// All that is counted. One for each gateway; [`super::init`] has what happens counted in it.
#[derive(Debug)]
pub struct Metrics {
    connections: Family<Number, 1>,
    sessions: Family<Number, 3>,
    auth: Family<Number, 2>,
    accepted: Family<Number, 2>,
    rejections: Family<Number, 3>,
    accept_time: Histogram,
    queue_time: Histogram,
    attempts: Family<Number, 2>,
    delivery_time: Family<DeliveryTimes, 1>,
    last_success: Family<Number, 1>,
    failovers: Family<Number, 1>,
    bounces: Family<Number, 1>,
    reports: Family<Number, 1>,
    tokens: Family<Number, 2>,
    signing: Family<Number, 2>,
    copies: CopyCounts,
    commit_time: Histogram,
    notifications: Family<Number, 2>,
    admin_requests: Family<Number, 1>,
    admin_logins: Family<Number, 1>,
    noticed: Noticed,
    day: Day,
}

/// What a sender asked for; those of failures are `bounces`.
fn reports() -> Family<Number, 1> {
    counter(
        "postern_reports_total",
        "Reports that senders asked for (DSN), but for those of failures.",
        ["kind"],
        0,
    )
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            connections: Family::new(
                "postern_smtp_connections",
                "gauge",
                "SMTP connections that are open.",
                ["listener"],
                1,
            ),
            sessions: counter(
                "postern_smtp_sessions_total",
                "SMTP connections that have ended, by the TLS version that they spoke at last.",
                ["listener", "client", "tls"],
                2,
            ),
            auth: counter(
                "postern_auth_attempts_total",
                "SMTP logins whose name and password were checked.",
                ["listener", "result"],
                1,
            ),
            accepted: counter(
                "postern_messages_accepted_total",
                "Messages that were taken in and are on disk.",
                ["listener", "client"],
                2,
            ),
            rejections: counter(
                "postern_rejections_total",
                "Refusals, by the stage of the session and the code of the reply.",
                ["listener", "stage", "code"],
                1,
            ),
            accept_time: Histogram::new(ACCEPT),
            queue_time: Histogram::new(QUEUE),
            attempts: counter(
                "postern_delivery_attempts_total",
                "Calls of a connector, one for each result that the recipients of the call had.",
                ["connector", "result"],
                1,
            ),
            delivery_time: Family::new(
                "postern_delivery_duration_seconds",
                "histogram",
                "What a call of a connector took.",
                ["connector"],
                1,
            ),
            last_success: Family::new(
                "postern_connector_last_success_timestamp_seconds",
                "gauge",
                "When the upstream last took a message since the start; 0: not yet.",
                ["connector"],
                1,
            ),
            failovers: counter(
                "postern_failovers_total",
                "Calls of a connector behind one of its route that took nothing.",
                ["route"],
                1,
            ),
            bounces: counter(
                "postern_bounces_total",
                "Reports about mail that was given up; withheld: no list admits the sender.",
                ["result"],
                0,
            ),
            reports: reports(),
            tokens: counter(
                "postern_token_requests_total",
                "Access tokens that were asked for.",
                ["connector", "result"],
                1,
            ),
            signing: signing(),
            copies: CopyCounts::default(),
            commit_time: Histogram::new(COMMIT),
            notifications: counter(
                "postern_notifications_total",
                "Tries to tell somebody of an incident.",
                ["channel", "result"],
                1,
            ),
            admin_requests: counter(
                "postern_admin_requests_total",
                "Requests to the operator's window, by the status of the answer.",
                ["code"],
                0,
            ),
            admin_logins: counter(
                "postern_admin_logins_total",
                "Logins to the operator's window.",
                ["result"],
                0,
            ),
            noticed: Noticed::default(),
            day: Day::default(),
        };
        metrics.know(&LabelNames::default());
        metrics
    }
}

fn signing() -> Family<Number, 2> {
    counter(
        "postern_dkim_messages_total",
        "Messages that an upstream took of a connector that signs; no_key: no [[dkim]] is for its From.",
        ["connector", "result"],
        1,
    )
}

fn one(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// To be called at the start and at each reload: what is configured stands at 0 until something is counted, and what no longer
    /// is ends.
    pub fn know(&self, names: &LabelNames) {
        let clients = names.clients.iter().map(String::as_str);
        let clients: Vec<&str> = clients.chain([NO_CLIENT]).collect();
        let refusals: Vec<[&str; 3]> = names
            .listeners
            .iter()
            .flat_map(|listener| {
                REFUSALS
                    .iter()
                    .map(move |(at, code)| [listener.as_str(), at, code])
            })
            .collect();
        let sessions: Vec<[&str; 3]> = pairs(&names.listeners, &clients)
            .into_iter()
            .flat_map(|[listener, client]| TLS.map(|tls| [listener, client, tls]))
            .filter(|[_, client, tls]| names.speaks(client, tls))
            .collect();
        self.connections.know(&alone(&names.listeners));
        self.sessions.know(&sessions);
        self.auth.know(&pairs(&names.listeners, &LOGINS));
        self.accepted.know(&pairs(&names.listeners, &clients));
        self.rejections.know(&refusals);
        self.attempts.know(&pairs(&names.connectors, &RESULTS));
        self.delivery_time.know(&alone(&names.connectors));
        self.last_success.know(&alone(&names.connectors));
        self.failovers.know(&alone(&names.routes));
        self.bounces.know(&BOUNCES.map(|word| [word]));
        self.reports.know(&REPORTS.map(|word| [word]));
        self.tokens.know(&pairs(&names.token_connectors, &TOKENS));
        self.signing
            .know(&pairs(&names.signing_connectors, &SIGNING));
        self.copies.know(names);
        self.notifications
            .know(&pairs(&names.channels, &NOTIFICATIONS));
        self.admin_requests.know(&[["200"]]);
        self.admin_logins.know(&ADMIN_LOGINS.map(|word| [word]));
    }

    pub(super) fn session_began(&self, listener: &str) {
        self.connections.at([listener], one);
    }

    pub(super) fn session_ended(&self, listener: &str, client: &str, tls: &str) {
        self.connections.at([listener], |open| {
            // One whose listener has come and gone meanwhile began elsewhere.
            let less = |open: u64| open.checked_sub(1);
            let _ = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        });
        self.sessions.at([listener, client, tls], one);
    }

    pub(super) fn login(&self, listener: &str, result: &str) {
        self.auth.at([listener, result], one);
    }

    pub(super) fn accepted(&self, listener: &str, client: &str, micros: u64) {
        self.accepted.at([listener, client], one);
        one(&self.day.totals.accepted);
        self.accept_time.observe(micros);
    }

    pub(super) fn refused(&self, listener: &str, stage: &str, code: u64) {
        let code = u16::try_from(code).unwrap_or_default();
        self.rejections
            .at([listener, stage, &code.to_string()], one);
        one(&self.day.totals.refused);
    }

    /// `results`: bits, in the order of [`RESULTS`]. `waited`: microseconds since acceptance, where something was delivered.
    pub(super) fn attempted(&self, connector: &str, results: u64, took: u64, waited: Option<u64>) {
        let mut left = results;
        while let Some(result) = RESULTS.get(left.trailing_zeros() as usize) {
            self.attempts.at([connector, result], one);
            left &= left - 1;
        }
        self.delivery_time
            .at([connector], |times| times.0.observe(took));
        if results & DEFERRED > 0 {
            one(&self.day.totals.deferred);
        }
        if let Some(waited) = waited {
            one(&self.day.totals.delivered);
            self.queue_time.observe(waited);
            let now = unix(Some(SystemTime::now()));
            self.last_success
                .at([connector], |last| last.store(now, Ordering::Relaxed));
        }
    }

    /// When this connector last took a message, since the start.
    pub fn last_success(&self, connector: &str) -> Option<SystemTime> {
        let last = Cell::new(0);
        self.last_success
            .at([connector], |known| last.set(known.load(Ordering::Relaxed)));
        let since = Duration::from_secs(last.get());
        (last.get() > 0).then(|| SystemTime::UNIX_EPOCH + since)
    }

    pub(super) fn failed_over(&self, route: &str) {
        self.failovers.at([route], one);
    }

    pub(super) fn reported(&self, kind: &str) {
        self.reports.at([kind], one);
    }

    pub(super) fn bounced(&self, result: &str) {
        self.bounces.at([result], one);
    }

    pub(super) fn signed(&self, connector: &str, result: &str) {
        self.signing.at([connector, result], one);
    }

    pub(super) fn redirected(&self, redirect: &str, recipients: u64) {
        self.copies.redirected(redirect, recipients);
    }

    pub(super) fn archived(&self, archive: &str) {
        self.copies.archived.at([archive], one);
    }

    pub(super) fn asked_for_token(&self, connector: &str, result: &str) {
        self.tokens.at([connector, result], one);
    }

    pub(super) fn committed(&self, micros: u64) {
        self.commit_time.observe(micros);
    }

    /// The operator's window has answered a request with this status.
    pub fn admin_request(&self, code: u16) {
        self.admin_requests.at([&code.to_string()], one);
    }

    /// Somebody tried to log in there: `accepted`, `refused`, `throttled`.
    pub fn admin_login(&self, result: &'static str) {
        self.admin_logins.at([result], one);
    }

    /// A channel was told of an incident: `taken`, `failed`.
    pub fn notification(&self, channel: &str, result: &'static str) {
        self.notifications.at([channel, result], one);
    }

    /// Keeps what was noticed.
    pub(super) fn note(&self, event: &Event<'_>) {
        if noticed::is_failed_mail(event.metadata()) {
            one(&self.day.totals.failed);
        }
        self.noticed.note(event);
    }

    /// What was counted of late.
    pub fn day(&self) -> &Day {
        &self.day
    }

    /// What may need somebody, and is no number.
    pub fn noticed(&self) -> &Noticed {
        &self.noticed
    }

    /// The answer to `GET /metrics`: Prometheus text 0.0.4.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(16 * 1024);
        gauges.write(&mut out);
        self.connections.write(&mut out);
        self.sessions.write(&mut out);
        self.auth.write(&mut out);
        self.accepted.write(&mut out);
        self.rejections.write(&mut out);
        self.attempts.write(&mut out);
        self.delivery_time.write(&mut out);
        self.last_success.write(&mut out);
        self.failovers.write(&mut out);
        self.bounces.write(&mut out);
        self.reports.write(&mut out);
        self.tokens.write(&mut out);
        self.signing.write(&mut out);
        self.copies.write(&mut out);
        self.notifications.write(&mut out);
        self.admin_requests.write(&mut out);
        self.admin_logins.write(&mut out);
        for (name, help, times) in [
            (
                "postern_accept_duration_seconds",
                "From the end of DATA to the disk.",
                &self.accept_time,
            ),
            (
                "postern_queue_time_seconds",
                "From acceptance to a delivery, one for each call of a connector that delivered.",
                &self.queue_time,
            ),
            (
                "postern_store_commit_duration_seconds",
                "What a transaction of the store took, with its sync.",
                &self.commit_time,
            ),
        ] {
            head(name, "histogram", help, &mut out);
            times.write(name, "", &mut out);
        }
        out
    }
}
