//! What may need somebody, and no state tells: mail that was given up, logins that failed, tokens that were not given. Events like those
//! that are counted, kept until whoever looks for incidents takes them.
//!
//! None is on the way of a message that arrives, and what is kept is bounded.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::{
    Event, Metadata,
    field::{Field, Visit},
    info,
};

/// The target of these events. It is not ours, so that the log leaves them out.
const NOTICED: &str = "noticed";
/// Routes, addresses and connectors that are kept at once.
const KEPT: usize = 10_000;

/// A recipient was given up.
pub(super) fn mail_failed(route: &str, reply: &str) {
    info!(name: "mail failed", target: NOTICED, of = route, said = reply);
}

/// Whether this is such an event.
pub(super) fn is_failed_mail(metadata: &Metadata<'_>) -> bool {
    metadata.name() == "mail failed"
}

/// Somebody gave a wrong password, or was not let try any more.
pub fn login_failed(from: IpAddr) {
    info!(name: "login failed", target: NOTICED, of = %from.to_canonical(), said = "");
}

/// A name and password were checked; what is right is nothing to notice.
pub fn logged_in(is_right: bool, from: IpAddr) {
    if !is_right {
        login_failed(from);
    }
}

/// A connector has asked for an access token. `fault`: it has none.
pub fn asked_for_token(connector: &str, fault: Option<&str>) {
    match fault {
        None => info!(name: "token granted", target: NOTICED, of = connector, said = ""),
        Some(fault) => info!(name: "token failed", target: NOTICED, of = connector, said = fault),
    }
}

/// Two gateways have sent the same message.
pub fn sent_twice() {
    info!(name: "sent twice", target: NOTICED, of = "", said = "");
}

/// Whether events of this kind are kept here.
pub(super) fn is_noticed(metadata: &Metadata<'_>) -> bool {
    metadata.target() == NOTICED
}

/// What was noticed since it was taken last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoticedSince {
    /// Recipients that were given up, by route, and what was said last.
    pub failed_mail: BTreeMap<String, (u64, String)>,
    /// Logins that failed, by address.
    pub failed_logins: BTreeMap<String, u64>,
    /// What connectors last heard when they asked for a token; `None`: they have one.
    pub tokens: BTreeMap<String, Option<String>>,
    /// Messages that two gateways have sent.
    pub twice: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Noticed(Mutex<NoticedSince>);

/// Takes the entry of that name while there is room.
fn entry<'a, T: Default>(of: &'a mut BTreeMap<String, T>, name: &str) -> Option<&'a mut T> {
    if of.len() >= KEPT && !of.contains_key(name) {
        return None;
    }
    Some(of.entry(name.to_owned()).or_default())
}

impl Noticed {
    fn since(&self) -> MutexGuard<'_, NoticedSince> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of it.
    pub fn take(&self) -> NoticedSince {
        std::mem::take(&mut *self.since())
    }

    /// Keeps one of the events above.
    pub(super) fn note(&self, event: &Event<'_>) {
        let mut fields = NoticedFields::default();
        event.record(&mut fields);
        let NoticedFields { of, said } = fields;
        let mut since = self.since();
        match event.metadata().name() {
            "mail failed" => {
                if let Some((count, last)) = entry(&mut since.failed_mail, &of) {
                    *count += 1;
                    *last = said;
                }
            }
            "login failed" => {
                if let Some(count) = entry(&mut since.failed_logins, &of) {
                    *count += 1;
                }
            }
            "token granted" => {
                if let Some(fault) = entry(&mut since.tokens, &of) {
                    *fault = None;
                }
            }
            "token failed" => {
                if let Some(fault) = entry(&mut since.tokens, &of) {
                    *fault = Some(said);
                }
            }
            "sent twice" => since.twice += 1,
            _ => {}
        }
    }
}

#[derive(Default)]
struct NoticedFields {
    of: String,
    said: String,
}

impl Visit for NoticedFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "of" => value.clone_into(&mut self.of),
            "said" => value.clone_into(&mut self.said),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Instant, SystemTime},
    };

    use super::*;
    use crate::telemetry::{counting, metrics::Metrics};

    #[test]
    fn what_was_noticed_is_taken_once() {
        let metrics = Arc::new(Metrics::default());
        let noticed = metrics.noticed();
        tracing::subscriber::with_default(counting(&metrics), || {
            mail_failed("all", "550 first");
            mail_failed("all", "550 5.1.1 <kim@corp.example> \"no\"");
            for _ in 0..3 {
                login_failed("::ffff:192.0.2.7".parse().unwrap());
            }
            asked_for_token("up", Some("down"));
            asked_for_token("up", None);
            asked_for_token("other", Some("refused"));
            tracing::info!(name: "mail failed", of = "forged", said = "");
        });
        let taken = noticed.take();
        let failed = (2, "550 5.1.1 <kim@corp.example> \"no\"".to_owned());
        assert_eq!(taken.failed_mail, [("all".to_owned(), failed)].into());
        assert_eq!(taken.failed_logins, [("192.0.2.7".to_owned(), 3)].into());
        let (_, counted) = metrics.day().numbers(Instant::now(), SystemTime::now());
        assert_eq!(counted.failed, 2);
        let tokens = [
            ("up".to_owned(), None),
            ("other".to_owned(), Some("refused".to_owned())),
        ];
        assert_eq!(taken.tokens, tokens.into());
        assert_eq!(noticed.take(), NoticedSince::default());
    }

    #[test]
    fn attack_with_many_addresses_fills_no_memory() {
        let metrics = Arc::new(Metrics::default());
        let noticed = metrics.noticed();
        tracing::subscriber::with_default(counting(&metrics), || {
            for number in 0..20_000_u32 {
                login_failed(std::net::Ipv4Addr::from(number).into());
            }
        });
        assert_eq!(noticed.take().failed_logins.len(), KEPT);
    }
}
