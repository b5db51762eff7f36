//! What ends of what the gateway shows to others or trusts: for `postern status`, its row, the metrics, and once a day for the log (at the
//! start and at a reload the configuration's own warnings say it).
//!
//! It refuses nothing: a certificate that has expired is the upstream's to refuse. The listeners log their own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;
use tracing::{error, warn};

use super::{
    rotated::{RotatedCredential, credentials},
    rotation::{RotationStanding, Rotator},
    tokens::StoredTokens,
};
use crate::{
    config::Config,
    connector::{
        Settings, expiry,
        keypair::{self, Validity, ValidityNow},
        oauth,
    },
    listener::{CertificateEnd, ListenerStatus, look_at_client_trust},
    mail::time,
    queue::store::Store,
    view::Credential,
};

/// What the store remembers of credentials, as it was last looked up: no file says it.
#[derive(Debug, Default)]
pub(super) struct KnownEnds {
    stored: Mutex<BTreeMap<String, StoredEnd>>,
    /// Something of it is another than it was.
    pub(super) changed: Notify,
    /// A command has replaced something.
    pub(super) asked: Notify,
}

/// Of one connector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredEnd {
    /// When its refresh token ends, unless it is used before that.
    pub(super) refresh_token: Option<SystemTime>,
    /// Of its application's certificate, and of which configured one.
    pub(super) rotation: Option<(String, RotationStanding)>,
}

impl KnownEnds {
    fn stored(&self) -> MutexGuard<'_, BTreeMap<String, StoredEnd>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was looked up: all of it.
    pub(super) fn found(&self, found: BTreeMap<String, StoredEnd>) {
        let mut stored = self.stored();
        if *stored != found {
            *stored = found;
            self.changed.notify_one();
        }
    }

    /// Of the connectors.
    pub(super) fn of(&self, connectors: &[Settings]) -> Vec<Credential> {
        let stored = self.stored().clone();
        let all = connectors.iter().flat_map(|settings| {
            let name = settings.name.to_string();
            let known = stored.get(&name).cloned().unwrap_or_default();
            of_connector(settings, name, &known)
        });
        all.collect()
    }
}

fn of_connector(settings: &Settings, name: String, known: &StoredEnd) -> Vec<Credential> {
    let mut all: Vec<Credential> = expiry::ends(settings)
        .into_iter()
        .map(|one| Credential {
            connector: Some(name.clone()),
            kind: one.kind.into_owned(),
            file: one.file.map(|file| file.display().to_string()),
            not_before: one
                .begins
                .filter(|begins| *begins > SystemTime::now())
                .map(time::rfc3339),
            not_after: time::rfc3339(one.ends),
            ..Credential::default()
        })
        .collect();
    if let Some(oauth) = settings.kind.oauth() {
        let certificate = all.iter_mut().find(|one| one.kind == "certificate");
        if let Some(certificate) = certificate {
            rotated(certificate, oauth, known);
        }
    }
    all.extend(known.refresh_token.map(|ends| Credential {
        connector: Some(name),
        kind: "refresh_token".to_owned(),
        not_after: time::rfc3339(ends),
        ..Credential::default()
    }));
    all
}

/// What the gateway makes of an application's certificate, and the one that took its place.
fn rotated(certificate: &mut Credential, settings: &oauth::Settings, known: &StoredEnd) {
    let of_it = known.rotation.as_ref().filter(|(key, _)| {
        // Of another certificate that was configured before, nothing is said any more.
        oauth::rotation_key(settings).as_ref() == Some(key)
    });
    let Some((_, standing)) = of_it else {
        let word = if settings.rotation.is_some() {
            "waiting"
        } else {
            "off"
        };
        certificate.rotation = Some(word.to_owned());
        return;
    };
    certificate.rotation = Some(standing.word.to_owned());
    certificate.why.clone_from(&standing.why);
    let Some(life) = standing.life else { return };
    if standing.word != "off" {
        certificate.rotates_at = Some(time::rfc3339(time::at(life.half())));
    }
    if standing.current.is_some() {
        certificate.file = None;
        certificate.not_after = time::rfc3339(life.ends());
        let begins = Some(life.begins()).filter(|begins| *begins > SystemTime::now());
        certificate.not_before = begins.map(time::rfc3339);
    }
}

/// Of the listeners.
pub(super) fn of_listeners(standing: &[ListenerStatus]) -> impl Iterator<Item = Credential> {
    let now = SystemTime::now();
    standing.iter().flat_map(move |listener| {
        let certificates = listener.certificates.iter();
        certificates.map(move |end| of_listener(&listener.name, end, now))
    })
}

fn of_listener(name: &str, end: &CertificateEnd, now: SystemTime) -> Credential {
    Credential {
        listener: Some(name.to_owned()),
        kind: end.kind.to_owned(),
        file: Some(end.file.display().to_string()),
        not_before: (end.begins > now).then(|| time::rfc3339(end.begins)),
        not_after: time::rfc3339(end.ends),
        ..Credential::default()
    }
}

/// All of a configuration, whether or not a gateway runs with it; of its listeners what their files say. What the store does not say is left out.
pub async fn all(config: &Config, store: Option<&Arc<dyn Store>>) -> Vec<Credential> {
    let known = KnownEnds::default();
    if let Some(store) = store {
        known.found(stored(config, store).await);
    }
    let files = config.listeners.iter().flat_map(|listener| {
        let pairs = listener.certificate.iter().chain(&listener.old_certificate);
        pairs.map(move |(file, _)| (listener, file))
    });
    let listeners = files.filter_map(|(listener, file)| {
        let life = keypair::validity(file).ok()?;
        let begins = Some(life.begins()).filter(|begins| *begins > SystemTime::now());
        Some(Credential {
            listener: Some(listener.name.clone()),
            kind: "listener".to_owned(),
            file: Some(file.display().to_string()),
            not_before: begins.map(time::rfc3339),
            not_after: time::rfc3339(life.ends()),
            ..Credential::default()
        })
    });
    let now = SystemTime::now();
    let trusts = config.listeners.iter().flat_map(|listener| {
        let ends = listener.clients.as_ref().map(look_at_client_trust);
        let ends = ends.and_then(Result::ok).unwrap_or_default();
        let of = move |end| of_listener(&listener.name, &end, now);
        ends.into_iter().map(of)
    });
    let connectors = known.of(&config.connectors);
    listeners.chain(trusts).chain(connectors).collect()
}

/// What the store remembers of all connectors.
async fn stored(config: &Config, store: &Arc<dyn Store>) -> BTreeMap<String, StoredEnd> {
    let mut found = refresh_tokens(config, store).await;
    let rotator = Rotator::new(config, store);
    for credential in credentials(config) {
        if let Ok(standing) = rotator.standing(&credential).await {
            keep(&mut found, &credential, &standing);
        }
    }
    found
}

/// When refresh tokens end, by their last use. What cannot be read now is read later.
pub(super) async fn refresh_tokens(
    config: &Config,
    store: &Arc<dyn Store>,
) -> BTreeMap<String, StoredEnd> {
    let tokens = StoredTokens::of(store, config);
    let mut found: BTreeMap<String, StoredEnd> = BTreeMap::new();
    for settings in &config.connectors {
        let Some(oauth) = settings.kind.oauth() else {
            continue;
        };
        if expiry::has_ending_refresh_token(settings) {
            let used = oauth::last_use(oauth, &tokens).await.ok().flatten();
            let ends = used.and_then(|used| used.checked_add(expiry::REFRESH_TOKEN));
            let known = found.entry(settings.name.to_string()).or_default();
            known.refresh_token = ends;
        }
    }
    found
}

/// How a certificate is, for each connector that has it.
pub(super) fn keep(
    found: &mut BTreeMap<String, StoredEnd>,
    credential: &RotatedCredential,
    standing: &RotationStanding,
) {
    for connector in &credential.connectors {
        let known = found.entry(connector.clone()).or_default();
        known.rotation = Some((credential.key.clone(), standing.clone()));
    }
}

/// When the first of each connector ends.
pub(super) fn first(all: &[Credential]) -> BTreeMap<String, SystemTime> {
    let mut first: BTreeMap<String, SystemTime> = BTreeMap::new();
    for one in all {
        let (Some(connector), Some(ends)) = (&one.connector, one.ends()) else {
            continue;
        };
        let known = first.entry(connector.clone()).or_insert(ends);
        *known = ends.min(*known);
    }
    first
}

/// A line for each that needs somebody.
pub(super) fn log(all: &[Credential]) {
    let now = SystemTime::now();
    for one in all {
        let (Some(connector), Some(ends)) = (&one.connector, one.ends()) else {
            continue;
        };
        let validity = match one.begins() {
            Some(begins) => Validity::between(begins, ends),
            None => Validity::until(ends),
        };
        let Some(said) = validity.said(now) else {
            continue;
        };
        let file = one.file.as_deref().unwrap_or("-");
        let (kind, at) = (&one.kind, &one.not_after);
        if validity.standing(now) == ValidityNow::EndsSoon {
            warn!(event = "credential ends", connector = %connector, kind = %kind, file = %file, at = %at, "the connector's {kind} {said}");
        } else {
            error!(event = "credential not valid", connector = %connector, kind = %kind, file = %file, at = %at, "the connector's {kind} {said}; put a new one in its place");
        }
    }
}
