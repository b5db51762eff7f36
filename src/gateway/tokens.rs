//! Where rotated refresh tokens are kept: beside the queue, which commands find as well.

use std::sync::Arc;

use crate::{connector::oauth::TokenStore, queue::store::Store};

/// Rotated refresh tokens, as notes beside the queue: those of the gateway, and of the commands that log in.
pub struct StoredTokens(pub Arc<dyn Store>);

#[async_trait::async_trait]
impl TokenStore for StoredTokens {
    async fn load(&self, key: &str) -> Result<Option<String>, String> {
        self.0.note(key).await.map_err(|e| e.to_string())
    }

    async fn save(&self, key: &str, value: String) -> Result<(), String> {
        self.0.set_note(key, value).await.map_err(|e| e.to_string())
    }
}
