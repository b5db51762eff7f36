//! The token source: cached, renewed early, one renewal in flight for any number of jobs.
//!
//! Apart from `proof`, which says who asks, and from `answer`, which says what came back.

use std::{
    fmt,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Url, header};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{
    Settings,
    answer::{self, Granted},
    proof::{Proof, sha256},
};
use crate::{
    connector::http::{Answer, Http},
    mail::{outcome::Report, reply::Reply},
    secret::Secret,
};

/// A token is renewed so long before it ends.
const EARLY: Duration = Duration::from_mins(5);
/// After a renewal that failed while the old token is good: not again before this.
const AGAIN: Duration = Duration::from_secs(30);
/// One request.
const REQUEST: Duration = Duration::from_mins(1);
/// Retry-After is taken between these.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// Where a rotated refresh token is kept, beside a hash of the configured one. The gateway keeps it in the store.
#[async_trait]
pub trait Keep: Send + Sync {
    /// What was saved last.
    async fn load(&self, key: &str) -> Option<String>;
    /// Returns when it is on disk.
    async fn save(&self, key: &str, value: String) -> Result<(), String>;
}

/// An access token. Prints as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// For the one place that puts it on the wire.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// What it says of itself, not verified: for telling an administrator what is missing. `None`: it is opaque.
    pub fn claims(&self) -> Option<serde_json::Value> {
        let body = self.reveal().split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?).ok()
    }
}

#[derive(Debug, Clone)]
struct Cached {
    token: Token,
    renew: Instant,
    ends: Instant,
}

/// Gives out access tokens.
pub struct TokenSource {
    settings: Settings,
    url: Url,
    http: Http,
    proof: Proof,
    keep: Option<Arc<dyn Keep>>,
    cached: StdMutex<Option<Cached>>,
    /// Held by the one renewal in flight: the newest refresh token.
    renewal: Mutex<Option<Secret>>,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("token_url", &self.settings.token_url)
            .finish_non_exhaustive()
    }
}

impl TokenSource {
    /// Reads keys; asks nobody yet.
    ///
    /// # Errors
    /// A file or URL that cannot be used.
    pub fn new(settings: &Settings, keep: Option<Arc<dyn Keep>>) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            url: Url::parse(&settings.token_url).map_err(|e| format!("token_url: {e}"))?,
            http: Http::new(&settings.http)?,
            proof: Proof::read(settings)?,
            settings: settings.clone(),
            keep,
            cached: StdMutex::new(None),
            renewal: Mutex::new(None),
        }))
    }

    /// A token that is good now.
    ///
    /// # Errors
    /// [`Report::Down`] when the endpoint cannot be had, [`Report::Misconfigured`] with the remedy when it refuses.
    pub async fn token(&self, deadline: Instant) -> Result<Token, Report> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let late = || Report::Down {
            reply: Reply::new(451, (4, 4, 1), "no token in time"),
            retry_after: None,
        };
        let mut newest = timeout_at(deadline, self.renewal.lock())
            .await
            .map_err(|_| late())?;
        // Somebody else may have renewed it meanwhile.
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let until = deadline.min(Instant::now() + REQUEST);
        match self.renew(&mut newest, until).await {
            Ok(token) => Ok(token),
            Err(report @ Report::Down { .. }) => self.still_good().ok_or(report),
            Err(report) => Err(report),
        }
    }

    /// The upstream refused it (401): forgotten, unless another one is there already.
    pub fn reject(&self, token: &Token) {
        let mut cached = self.cached();
        if cached.as_ref().is_some_and(|c| c.token == *token) {
            *cached = None;
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Option<Cached>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Token> {
        let now = Instant::now();
        self.cached()
            .as_ref()
            .filter(|c| now < c.renew && now < c.ends)
            .map(|c| c.token.clone())
    }

    /// The old one serves while the endpoint is away.
    fn still_good(&self) -> Option<Token> {
        let now = Instant::now();
        let mut cached = self.cached();
        let old = cached
            .as_mut()
            .filter(|c| now + Duration::from_secs(5) < c.ends)?;
        old.renew = now + AGAIN;
        Some(old.token.clone())
    }

    async fn renew(&self, newest: &mut Option<Secret>, until: Instant) -> Result<Token, Report> {
        let configured = match &self.proof {
            Proof::Refresh { refresh_token, .. } => Some(refresh_token),
            _ => None,
        };
        if let Some(configured) = configured
            && let Some(kept) = self.kept(configured).await
        {
            // Looked up each time: a command may have renewed it meanwhile.
            *newest = Some(kept);
        }
        let request = self
            .proof
            .request(
                &self.settings,
                newest.as_ref(),
                SystemTime::now(),
                fastrand::u128(..),
            )
            .map_err(|text| Report::Misconfigured(Reply::new(451, (4, 3, 5), text)))?;
        let asked = Instant::now();
        let answer = self
            .http
            .send(&self.url, until, |client, mut url| {
                if request.metadata {
                    url.query_pairs_mut().extend_pairs(&request.form);
                    return client.get(url).header("Metadata", "true");
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
            .map_err(|fault| fault.report("token"))?;
        let (status, wait) = (answer.status.as_u16(), retry_after(&answer));
        let granted = if request.metadata {
            answer::read_metadata(status, &answer.body, wait)
        } else {
            answer::read(status, &answer.body, wait)
        }?;
        let Granted {
            token,
            lifetime,
            rotated,
        } = granted;
        if let (Some(configured), Some(rotated)) = (configured, rotated) {
            // On disk before anything uses what came with it: the endpoint may not take the old one again.
            self.save(configured, &rotated).await?;
            *newest = Some(rotated);
        }
        let token = Token(token);
        *self.cached() = Some(Cached {
            token: token.clone(),
            // A short-lived one is used for half of its time.
            renew: asked + lifetime.saturating_sub(EARLY).max(lifetime / 2),
            ends: asked + lifetime,
        });
        Ok(token)
    }

    fn key(&self) -> String {
        let who = match &self.proof {
            Proof::Refresh { client_id, .. } => client_id.as_str(),
            _ => "",
        };
        format!("refresh token of {} at {}", who, self.settings.token_url)
    }

    /// The rotated token, if it descends from the one that is configured now: another configured token wins.
    async fn kept(&self, configured: &Secret) -> Option<Secret> {
        let saved = self.keep.as_ref()?.load(&self.key()).await?;
        let (hash, token) = saved.split_once(' ')?;
        (hash == sha256(configured.reveal().as_bytes())).then(|| Secret::new(token))
    }

    async fn save(&self, configured: &Secret, rotated: &Secret) -> Result<(), Report> {
        let Some(keep) = &self.keep else {
            return Ok(());
        };
        let value = format!(
            "{} {}",
            sha256(configured.reveal().as_bytes()),
            rotated.reveal()
        );
        keep.save(&self.key(), value)
            .await
            .map_err(|why| Report::Down {
                reply: Reply::new(
                    451,
                    (4, 3, 0),
                    format!("the new refresh token cannot be kept: {why}"),
                ),
                retry_after: None,
            })
    }
}

fn form(fields: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", super::proof::encoded(value)))
        .collect();
    pairs.join("&")
}

/// Retry-After in seconds or as a date (RFC 9110 §10.2.3), clamped.
pub(crate) fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer
        .headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        let at = time::PrimitiveDateTime::parse(text, format)
            .ok()?
            .assume_utc();
        SystemTime::from(at)
            .duration_since(SystemTime::now())
            .unwrap_or_default()
    };
    Some(wait.clamp(WAIT.0, WAIT.1))
}
