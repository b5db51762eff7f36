//! The refresh token: the configured one, or the one that it was rotated to.
//!
//! A rotated token is worth more than a request: it is on disk before anything uses what came with it,
//! and what could not be written down is not forgotten.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{sync::Mutex, time::Instant};

use super::{
    grant::{Grant, Settings},
    keys::sha256,
};
use crate::{
    mail::time::{at, micros},
    secret::Secret,
};

/// How often it is asked whether another gateway still renews it.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Where a rotated refresh token is kept, beside a hash of the configured one. The gateway keeps it in the store.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// What was saved last.
    async fn load(&self, key: &str) -> Result<Option<String>, String>;
    /// Returns when it is on disk.
    async fn save(&self, key: &str, value: String) -> Result<(), String>;
    /// Saves it over what was `seen` of it, or where nothing was. False: somebody else has written it since, and that stays.
    async fn replace(&self, key: &str, seen: Option<String>, value: String)
    -> Result<bool, String>;
    /// Whether this process may renew it now: where others share it, one at a time does, for a while.
    async fn take(&self, _key: &str) -> Result<bool, String> {
        Ok(true)
    }
    /// It is renewed, or cannot be.
    async fn give_back(&self, _key: &str) {}
}

/// When the refresh token of these settings was last used. `None`: it has none, or nobody knows.
///
/// # Errors
/// The store cannot be read.
pub async fn last_use(
    settings: &Settings,
    store: &Arc<dyn TokenStore>,
) -> Result<Option<SystemTime>, String> {
    let Some(refresh) = Refresh::of(settings, None) else {
        return Ok(None);
    };
    let kept = store.load(&of_use(&refresh.key)).await?;
    Ok(kept.and_then(|kept| kept.parse().ok()).map(at))
}

/// Where it is kept when a token was last used.
fn of_use(key: &str) -> String {
    format!("{key}, its use")
}

/// A refresh token and where it is kept.
pub(super) struct Refresh {
    configured: Secret,
    /// Of the configured token: another one that is configured wins over what was kept for this.
    fingerprint: String,
    key: String,
    store: Option<Arc<dyn TokenStore>>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    rotated: Option<Secret>,
    /// It is not on disk yet.
    is_unsaved: bool,
}

impl Refresh {
    /// Of a grant that has one. Looks nothing up yet.
    pub(super) fn of(settings: &Settings, store: Option<Arc<dyn TokenStore>>) -> Option<Self> {
        let Grant::RefreshToken {
            client_id,
            refresh_token: configured,
            ..
        } = &settings.grant
        else {
            return None;
        };
        let fingerprint = sha256(configured.reveal().as_bytes());
        let url = &settings.token_url;
        Some(Self {
            configured: configured.clone(),
            // With the fingerprint, since one client may have several mailboxes, each with a token of its own.
            key: format!("refresh token of {client_id} at {url} from {fingerprint}"),
            fingerprint,
            store,
            now: Mutex::default(),
        })
    }

    /// Waits until no other gateway renews it. Where they cannot be asked it is renewed all the same: the endpoint may never rotate it, and what
    /// it gives is not forgotten.
    ///
    /// # Errors
    /// Another one still does at that time.
    pub(super) async fn take(&self, until: Instant) -> Result<(), String> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        while let Ok(false) = store.take(&self.key).await {
            if Instant::now() + ASK_AGAIN >= until {
                return Err("another gateway is renewing the token".to_owned());
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// It is renewed, or cannot be.
    pub(super) async fn give_back(&self) {
        if let Some(store) = &self.store {
            store.give_back(&self.key).await;
        }
    }

    /// The token to present.
    ///
    /// # Errors
    /// The newest one is still not on disk, or what is there cannot be read: an old one in its place might not be taken, and
    /// an endpoint that sees one twice may withdraw them all.
    pub(super) async fn current(&self) -> Result<Secret, String> {
        let mut now = self.now.lock().await;
        if now.is_unsaved
            && let Some(rotated) = &now.rotated
        {
            self.save(rotated).await?;
            now.is_unsaved = false;
        } else if let Some(kept) = self.load().await? {
            // Looked up each time: a command may have rotated it meanwhile.
            now.rotated = Some(kept);
        }
        Ok(now
            .rotated
            .clone()
            .unwrap_or_else(|| self.configured.clone()))
    }

    /// The configured one, where another was tried in vain.
    pub(super) fn configured_instead_of(&self, tried: &Secret) -> Option<&Secret> {
        (self.configured != *tried).then_some(&self.configured)
    }

    /// It was used: the endpoint takes it for a while from now on. It matters to nobody's mail whether that is remembered.
    pub(super) async fn used(&self) {
        let Some(store) = &self.store else { return };
        let now = micros(SystemTime::now()) / 1_000_000;
        let _ = store.save(&of_use(&self.key), now.to_string()).await;
    }

    /// The endpoint gave this one for next time. Returns when it is on disk.
    ///
    /// # Errors
    /// Why it is not; it is kept in memory, and written before the next request.
    pub(super) async fn rotated(&self, token: &Secret) -> Result<(), String> {
        let mut now = self.now.lock().await;
        if now.rotated.as_ref().unwrap_or(&self.configured) == token {
            return Ok(());
        }
        now.rotated = Some(token.clone());
        now.is_unsaved = true;
        self.save(token).await?;
        now.is_unsaved = false;
        Ok(())
    }

    async fn load(&self) -> Result<Option<Secret>, String> {
        let Some(store) = &self.store else {
            return Ok(None);
        };
        let saved = store
            .load(&self.key)
            .await
            .map_err(|why| format!("the kept refresh token cannot be read: {why}"))?;
        let kept = saved.as_deref().and_then(|saved| saved.split_once(' '));
        Ok(kept
            .filter(|(fingerprint, _)| *fingerprint == self.fingerprint)
            .map(|(_, token)| Secret::new(token)))
    }

    async fn save(&self, token: &Secret) -> Result<(), String> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let value = format!("{} {}", self.fingerprint, token.reveal());
        store
            .save(&self.key, value)
            .await
            .map_err(|why| format!("the new refresh token cannot be kept: {why}"))
    }
}
