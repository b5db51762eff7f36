//! Where rotated refresh tokens are kept: beside the queue, which commands find as well. Among other gateways they are sealed there, and
//! one gateway at a time renews one.

use std::{sync::Arc, time::Duration};

use super::sealing::{open, seal};
use crate::{
    config::{Config, cluster::SealingKey},
    connector::oauth::TokenStore,
    queue::store::Store,
};

/// What is kept of certificates that are replaced: read by many, and written by whoever replaces one.
const ROTATION: &str = "rotation of ";
/// Whoever renews a token has this long before another may.
const RENEWS: Duration = Duration::from_secs(30);

/// Rotated refresh tokens, as notes beside the queue: those of the gateway, and of the commands that log in.
#[derive(Clone)]
pub struct StoredTokens {
    store: Arc<dyn Store>,
    keys: Vec<SealingKey>,
}

impl StoredTokens {
    /// In this store, sealed as the settings say.
    pub fn of(store: &Arc<dyn Store>, config: &Config) -> Arc<dyn TokenStore> {
        let (store, keys) = (Arc::clone(store), config.store.keys().to_vec());
        Arc::new(Self { store, keys })
    }
}

impl StoredTokens {
    /// Seals what is kept of a certificate anew, where that was by another key, or before there was one. Whoever only reads it must not do so: he
    /// might write over what another has just written.
    pub(super) async fn seal_anew(
        store: &Arc<dyn Store>,
        config: &Config,
        key: &str,
    ) -> Result<(), String> {
        let (store, keys) = (Arc::clone(store), config.store.keys().to_vec());
        let own = Self { store, keys };
        if own.is_by_first(key).await? || !own.take(key).await? {
            return Ok(());
        }
        // Whoever had it until now may have written it; and where this gateway is stopped here for longer than it has it, somebody
        // else may: both is seen, and theirs stays.
        let sealed = match own.load(key).await {
            Ok(Some(value)) => own.replace(key, Some(value.clone()), value).await,
            other => other.map(|_| true),
        };
        own.give_back(key).await;
        sealed.map(drop)
    }

    async fn is_by_first(&self, key: &str) -> Result<bool, String> {
        let kept = self.store.note(key).await.map_err(|e| e.to_string())?;
        match kept {
            None => Ok(true),
            Some(kept) => open(&self.keys, key, &kept).map(|opened| opened.is_by_first),
        }
    }
}

/// A token as a gateway alone keeps it, of one that lay among others.
///
/// # Errors
/// None of the keys opens it: a sentence.
pub fn opened(keys: &[SealingKey], key: &str, kept: &str) -> Result<String, String> {
    open(keys, key, kept).map(|opened| opened.value)
}

#[async_trait::async_trait]
impl TokenStore for StoredTokens {
    async fn load(&self, key: &str) -> Result<Option<String>, String> {
        let kept = self.store.note(key).await.map_err(|e| e.to_string())?;
        let Some(kept) = kept else {
            return Ok(None);
        };
        let opened = open(&self.keys, key, &kept)?;
        // Else a token that is never rotated again would need the old key for ever. Whoever loads one has just taken it, so nobody else
        // renews it meanwhile; what fails is done the next time.
        if !opened.is_by_first && !key.starts_with(ROTATION) {
            let _ = self.save(key, opened.value.clone()).await;
        }
        Ok(Some(opened.value))
    }

    async fn save(&self, key: &str, value: String) -> Result<(), String> {
        let sealed = seal(&self.keys, key, &value)?;
        let saved = self.store.set_note(key, sealed).await;
        saved.map_err(|e| e.to_string())
    }

    async fn replace(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, String> {
        let kept = self.store.note(key).await.map_err(|e| e.to_string())?;
        let known = match &kept {
            Some(kept) => Some(open(&self.keys, key, kept)?.value),
            None => None,
        };
        if known != seen {
            return Ok(false);
        }
        // No two sealings of one value are the same: between the look and this nobody else has written it.
        let sealed = seal(&self.keys, key, &value)?;
        let replaced = self.store.replace_note(key, kept, sealed).await;
        replaced.map_err(|e| e.to_string())
    }

    async fn take(&self, key: &str) -> Result<bool, String> {
        let taken = self.store.take_note(key, RENEWS).await;
        taken.map_err(|e| e.to_string())
    }

    async fn give_back(&self, key: &str) {
        // It is free by itself after a while.
        let _ = self.store.give_note_back(key).await;
    }
}
