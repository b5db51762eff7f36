//! The token source: one token, kept until shortly before it ends, and one renewal under way for all who wait.
//!
//! Who asks is in `grant`, what came back in `answer`. A renewal is a task of its own: a job that
//! gives up waiting, or a reload, does not end it half-way, with a rotated refresh token on the line.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{Url, header};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    answer::{self, Granted},
    arc,
    claims::Claims,
    grant::{Azure, Grant, Settings, TokenRequest, encoded},
    keys::ApplicationPair,
    pairs::KnownPairs,
    refresh::{Refresh, TokenStore},
};
use crate::{
    connector::{
        http::{Answer, Http},
        keypair::{self, ValidityNow},
    },
    mail::{
        cause,
        outcome::{Obstacle, ObstacleKind},
        reply::Reply,
    },
    secret::Secret,
    telemetry::{counted, noticed},
};

/// A token is renewed so long before it ends.
const EARLY: Duration = Duration::from_mins(5);
/// After a renewal that failed while the old token is good: not again before this.
const AGAIN: Duration = Duration::from_secs(30);
/// One renewal, all in all.
const RENEWAL: Duration = Duration::from_mins(1);

/// An access token. Prints as `***`.
#[derive(Debug, Clone)]
pub struct Token {
    secret: Secret,
    ends: Instant,
}

/// The same token is the same, whenever it came.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for Token {}

impl Token {
    /// For the one place that puts it on the wire.
    pub fn reveal(&self) -> &str {
        self.secret.reveal()
    }

    /// When it ends, by what the endpoint said.
    pub fn ends(&self) -> Instant {
        self.ends
    }

    /// What it says of itself. `None`: it is opaque.
    pub fn claims(&self) -> Option<Claims> {
        Claims::read(self.reveal())
    }
}

/// Gives out access tokens.
pub struct TokenSource {
    inner: Arc<Renewer>,
    /// Renewals under way.
    renewals: Mutex<JoinSet<()>>,
}

struct Renewer {
    /// The connector whose tokens they are, for what is counted.
    connector: String,
    settings: Settings,
    url: Url,
    http: Http,
    refresh: Option<Refresh>,
    /// Of an application with a certificate.
    pairs: Option<KnownPairs>,
    state: Mutex<TokenState>,
}

/// What a renewal came to; `None`: it is under way.
type Renewed = Option<Result<Token, Obstacle>>;

#[derive(Default)]
struct TokenState {
    cached: Option<Cached>,
    renewal: Option<watch::Receiver<Renewed>>,
    /// Not before this, while the old token is good.
    again: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Cached {
    token: Token,
    lifetime: Duration,
}

impl Cached {
    /// Good for so long, or for half of its life where that is less.
    fn lasts(&self, least: Duration, now: Instant) -> bool {
        now + least.min(self.lifetime / 2) < self.token.ends
    }
}

impl Drop for TokenSource {
    fn drop(&mut self) {
        // Each ends by itself, with its rotated token written down.
        let renewals = self.renewals.get_mut();
        renewals
            .unwrap_or_else(PoisonError::into_inner)
            .detach_all();
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("token_url", &self.inner.settings.token_url)
            .finish_non_exhaustive()
    }
}

impl TokenSource {
    /// Reads keys; asks nobody yet.
    ///
    /// # Errors
    /// A file or URL that cannot be used.
    pub fn new(
        connector: &str,
        settings: &Settings,
        store: Option<Arc<dyn TokenStore>>,
    ) -> Result<Arc<Self>, String> {
        settings.grant.check()?;
        let http = Http::new(&settings.http)?;
        let http = if matches!(settings.grant, Grant::ManagedIdentity { .. }) {
            http.for_metadata()
        } else {
            http
        };
        let inner = Renewer {
            connector: connector.to_owned(),
            url: Url::parse(&settings.token_url).map_err(|e| format!("token_url: {e}"))?,
            http,
            pairs: KnownPairs::of(settings, store.clone()),
            refresh: Refresh::of(settings, store),
            settings: settings.clone(),
            state: Mutex::default(),
        };
        Ok(Arc::new(Self {
            inner: Arc::new(inner),
            renewals: Mutex::default(),
        }))
    }

    /// A token that is good for five minutes yet.
    ///
    /// # Errors
    /// [`ObstacleKind::Down`] when the endpoint cannot be had, [`ObstacleKind::Misconfigured`] with the remedy when it refuses.
    pub async fn token(&self, deadline: Instant) -> Result<Token, Obstacle> {
        self.token_lasting(EARLY, deadline).await
    }

    /// A token that is good for `least` yet, or for half of its life where that is less. An old one serves to its end while it
    /// cannot be renewed.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub async fn token_lasting(
        &self,
        least: Duration,
        deadline: Instant,
    ) -> Result<Token, Obstacle> {
        let mut renewal = {
            let mut state = self.inner.state();
            let now = Instant::now();
            if let Some(cached) = &state.cached {
                let is_early = state.again.is_some_and(|again| now < again);
                if cached.lasts(least, now) || is_early && now < cached.token.ends {
                    return Ok(cached.token.clone());
                }
            }
            match &state.renewal {
                Some(renewal) => renewal.clone(),
                None => self.begin(&mut state),
            }
        };
        let came = timeout_at(deadline, renewal.wait_for(Option::is_some)).await;
        let obstacle = match came {
            Ok(Ok(renewed)) => match &*renewed {
                Some(Ok(token)) => return Ok(token.clone()),
                Some(Err(obstacle)) => obstacle.clone(),
                None => Obstacle::down("no token"),
            },
            Ok(Err(_)) => Obstacle::down("renewing the token broke off"),
            Err(_) => Obstacle::down("no token in time"),
        };
        self.inner.still_good().ok_or(obstacle)
    }

    /// The upstream refused it (401): forgotten, unless another one is there already.
    pub fn reject(&self, token: &Token) {
        let mut state = self.inner.state();
        if state.cached.as_ref().is_some_and(|c| c.token == *token) {
            state.cached = None;
        }
    }

    fn begin(&self, state: &mut TokenState) -> watch::Receiver<Renewed> {
        let (sender, receiver) = watch::channel(None);
        state.renewal = Some(receiver.clone());
        let inner = self.inner.clone();
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        while renewals.try_join_next().is_some() {}
        renewals.spawn(async move {
            // Also when the renewal panics: the next one to ask begins another.
            let over = RenewalEnds(&inner);
            let renewed = inner.renew().await;
            drop(over);
            sender.send_replace(Some(renewed));
        });
        receiver
    }
}

/// The end of a renewal, however it came.
struct RenewalEnds<'a>(&'a Renewer);

impl Drop for RenewalEnds<'_> {
    fn drop(&mut self) {
        self.0.state().renewal = None;
    }
}

impl Renewer {
    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn still_good(&self) -> Option<Token> {
        let state = self.state();
        let cached = state.cached.as_ref()?;
        (Instant::now() < cached.token.ends).then(|| cached.token.clone())
    }

    /// Asks, and keeps what came.
    async fn renew(&self) -> Result<Token, Obstacle> {
        let asked = Instant::now();
        let granted = self.granted(asked + RENEWAL).await;
        let obstacle = granted.as_ref().err().map(|obstacle| obstacle.kind);
        counted::asked_for_token(&self.connector, obstacle);
        let fault = granted.as_ref().err().map(|o| o.reply.text.as_str());
        noticed::asked_for_token(&self.connector, fault);
        let mut state = self.state();
        match granted {
            Ok(Granted {
                token, lifetime, ..
            }) => {
                let token = Token {
                    secret: token,
                    ends: asked + lifetime,
                };
                state.again = None;
                state.cached = Some(Cached {
                    token: token.clone(),
                    lifetime,
                });
                Ok(token)
            }
            Err(obstacle) => {
                let now = Instant::now();
                let wish = obstacle.retry_after.unwrap_or_default();
                state.again = Some(now + wish.max(AGAIN));
                let left = state
                    .cached
                    .as_ref()
                    .map(|c| c.token.ends.saturating_duration_since(now));
                if let Some(left) = left.filter(|left| !left.is_zero()) {
                    tracing::warn!(seconds_left = left.as_secs(), error = %obstacle.reply.text, "the token cannot be renewed; the old one is used until it ends");
                }
                Err(obstacle)
            }
        }
    }

    /// A token, its rotated refresh token on disk.
    async fn granted(&self, until: Instant) -> Result<Granted, Obstacle> {
        if let Some(pairs) = &self.pairs {
            return self.granted_to(pairs, until).await;
        }
        let Some(refresh) = &self.refresh else {
            return self
                .ask(None, None, until)
                .await
                .map_err(|(obstacle, _)| obstacle);
        };
        refresh.take(until).await.map_err(unkept)?;
        let granted = self.granted_by(refresh, until).await;
        refresh.give_back().await;
        granted
    }

    /// By the first of these pairs that is taken: while one replaces another, not every part of the endpoint need know both.
    async fn granted_to(&self, pairs: &KnownPairs, until: Instant) -> Result<Granted, Obstacle> {
        let mut first = None;
        for pair in pairs.now().await.map_err(unkept)? {
            match self.ask(None, pair.as_ref(), until).await {
                Ok(granted) => return Ok(granted),
                Err((obstacle, _)) if obstacle.kind == ObstacleKind::Misconfigured => {
                    first.get_or_insert(obstacle);
                }
                Err((obstacle, _)) => return Err(obstacle),
            }
        }
        Err(first.unwrap_or_else(|| Obstacle::misconfigured("there is no certificate")))
    }

    /// The same, where nobody else renews it meanwhile.
    async fn granted_by(&self, refresh: &Refresh, until: Instant) -> Result<Granted, Obstacle> {
        let current = refresh.current().await.map_err(unkept)?;
        let granted = match self.ask(Some(&current), None, until).await {
            // The one that was kept is dead (a store from a backup, say); the configured one may live.
            Err((_, true)) if refresh.configured_instead_of(&current).is_some() => {
                let configured = refresh.configured_instead_of(&current);
                self.ask(configured, None, until).await
            }
            granted => granted,
        };
        let granted = granted.map_err(|(obstacle, _)| obstacle)?;
        if let Some(rotated) = &granted.rotated {
            // Before anything uses what came with it: the endpoint may not take the old one again.
            refresh.rotated(rotated).await.map_err(unkept)?;
        }
        refresh.used().await;
        Ok(granted)
    }

    /// What our own certificate has to say to a refusal.
    fn certificate(&self, now: SystemTime) -> Option<String> {
        let (certificate, _) = self.settings.grant.certificate()?;
        let validity = keypair::validity(certificate).ok()?;
        let said = validity.said(now)?;
        let text = format!("the certificate in {} {said}", certificate.display());
        let cause = match validity.standing(now) {
            ValidityNow::Expired => cause::CERTIFICATE_EXPIRED,
            ValidityNow::NotYet => cause::CERTIFICATE_EARLY,
            ValidityNow::Good | ValidityNow::EndsSoon => return Some(text),
        };
        Some(cause.at(text))
    }

    /// One request; the bool of an error: the refresh token was refused.
    async fn ask(
        &self,
        refresh: Option<&Secret>,
        pair: Option<&ApplicationPair>,
        until: Instant,
    ) -> Result<Granted, (Obstacle, bool)> {
        let request = self
            .settings
            .request(refresh, pair, SystemTime::now(), fastrand::u128(..))
            .map_err(unusable)?;
        let mut answer = self.send(&request, None, until).await?;
        let mut agent = None;
        if let Grant::ManagedIdentity {
            host: Azure::Arc(tokens),
            ..
        } = &self.settings.grant
            && answer.status.as_u16() == 401
            && let Some(file) = arc::challenge(&answer.headers)
        {
            let key = arc::key(&file, tokens).map_err(unusable)?;
            answer = self.send(&request, Some(&key), until).await?;
            agent = Some(key);
        }
        self.read(&request, agent.as_ref(), &answer, pair.is_none())
    }

    /// `key`: of Azure Arc's agent.
    async fn send(
        &self,
        request: &TokenRequest,
        key: Option<&Secret>,
        until: Instant,
    ) -> Result<Answer, (Obstacle, bool)> {
        self.http
            .send(&self.url, until, |client, mut url| {
                if request.metadata {
                    url.query_pairs_mut().extend_pairs(&request.form);
                    let mut get = client.get(url).header("Metadata", "true");
                    if let Some(header) = &request.header {
                        get = get.header("X-IDENTITY-HEADER", header.reveal());
                    }
                    if let Some(key) = key {
                        let value = format!("Basic {}", key.reveal());
                        get = get.header(header::AUTHORIZATION, value);
                    }
                    return get;
                }
                let post = client.post(url).header(header::ACCEPT, "application/json");
                let post = match &request.basic {
                    Some(basic) => post.header(header::AUTHORIZATION, format!("Basic {basic}")),
                    None => post,
                };
                post.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form(&request.form))
            })
            .await
            .map_err(|fault| {
                let mut obstacle = fault.obstacle("token");
                if matches!(self.settings.grant, Grant::ManagedIdentity { .. }) {
                    // No other machine than one of Azure has it.
                    let met = format!("no token from the metadata service ({})", fault.text());
                    obstacle.reply.text = cause::IDENTITY_MISSING.at(met);
                }
                (obstacle, false)
            })
    }

    /// What came back, with what is known here beside a refusal. `is_configured`: by the credential of the file.
    fn read(
        &self,
        request: &TokenRequest,
        key: Option<&Secret>,
        answer: &Answer,
        is_configured: bool,
    ) -> Result<Granted, (Obstacle, bool)> {
        let read = answer::read(answer, &self.settings.grant, answer.retry_after());
        read.map_err(|refused| {
            let mut obstacle = refused.obstacle;
            let reply = &mut obstacle.reply;
            request.mask(key, reply);
            if obstacle.kind == ObstacleKind::Misconfigured {
                let now = SystemTime::now();
                let own = is_configured.then(|| self.certificate(now)).flatten();
                let also = [own, answer.clock(now)];
                for also in also.into_iter().flatten() {
                    reply.text = format!("{}; {also}", reply.text);
                }
            }
            (obstacle, refused.is_grant)
        })
    }
}

fn unkept(why: String) -> Obstacle {
    Obstacle::new(ObstacleKind::Down, Reply::new(451, (4, 3, 0), why))
}

fn unusable(text: String) -> (Obstacle, bool) {
    (Obstacle::misconfigured(text), false)
}

fn form(fields: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::{http::HttpSettings, oauth::Grant};

    #[test]
    fn a_short_life_is_used_for_half() {
        let now = Instant::now();
        let minutes = Duration::from_mins;
        for (lifetime, left, wanted, lasts) in [
            (minutes(60), minutes(6), minutes(5), true),
            (minutes(60), minutes(4), minutes(5), false),
            (minutes(60), minutes(24), minutes(25), false),
            (minutes(60), minutes(26), minutes(25), true),
            (minutes(60), minutes(31), minutes(120), true),
            (minutes(4), minutes(3), minutes(5), true),
            (minutes(4), minutes(1), minutes(5), false),
            (minutes(0), minutes(0), minutes(5), false),
        ] {
            let token = Token {
                secret: Secret::new("t"),
                ends: now + left,
            };
            let cached = Cached { token, lifetime };
            assert_eq!(
                cached.lasts(wanted, now),
                lasts,
                "{lifetime:?} {left:?} {wanted:?}"
            );
        }
    }

    /// Nobody listens where it asks.
    fn deaf() -> Arc<TokenSource> {
        let settings = Settings {
            token_url: "http://127.0.0.1:1/token".into(),
            scope: "s".into(),
            secret_ends: None,
            rotation: None,
            grant: Grant::ManagedIdentity {
                client_id: None,
                host: Azure::Machine,
            },
            http: HttpSettings {
                allowed_hosts: vec!["*".into()],
                ..HttpSettings::default()
            },
        };
        TokenSource::new("up", &settings, None).unwrap()
    }

    fn remember(source: &TokenSource, left: Duration) -> Token {
        let token = Token {
            secret: Secret::new("old"),
            ends: Instant::now() + left,
        };
        source.inner.state().cached = Some(Cached {
            token: token.clone(),
            lifetime: Duration::from_hours(1),
        });
        token
    }

    #[tokio::test]
    async fn the_old_token_serves_while_its_renewal_fails() {
        let source = deaf();
        let soon = || Instant::now() + Duration::from_secs(30);
        let old = remember(&source, Duration::from_mins(4));
        assert_eq!(source.token(soon()).await.unwrap(), old);
        assert!(source.inner.state().again.is_some(), "it was tried");
        assert_eq!(source.token(soon()).await.unwrap(), old);
        // It has ended.
        remember(&source, Duration::ZERO);
        let report = source.token(soon()).await.unwrap_err();
        assert_eq!(report.kind, ObstacleKind::Down, "{report:?}");
        // Long enough: nobody is asked.
        source.inner.state().again = None;
        let old = remember(&source, Duration::from_mins(6));
        assert_eq!(source.token(soon()).await.unwrap(), old);
        assert!(source.inner.state().again.is_none());
        // Another one that came meanwhile stays.
        let other = Token {
            secret: Secret::new("other"),
            ends: Instant::now(),
        };
        source.reject(&other);
        assert!(source.inner.state().cached.is_some());
        source.reject(&old);
        assert!(source.inner.state().cached.is_none());
    }
}
