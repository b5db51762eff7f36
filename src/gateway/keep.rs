//! Rotated refresh tokens, kept as notes beside the queue.
//!
//! Apart because commands that log in (`test`, `check --connect`) keep them in the same place as the gateway.

use std::sync::Arc;

use crate::{connector::oauth::TokenStore, queue::store::Store};

/// Rotated refresh tokens, as notes beside the queue.
pub struct StoreKeep(pub Arc<dyn Store>);

#[async_trait::async_trait]
impl TokenStore for StoreKeep {
    async fn load(&self, key: &str) -> Result<Option<String>, String> {
        self.0.note(key).await.map_err(|e| e.to_string())
    }

    async fn save(&self, key: &str, value: String) -> Result<(), String> {
        self.0.set_note(key, value).await.map_err(|e| e.to_string())
    }
}
