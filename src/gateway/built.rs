//! The connectors of a configuration, made: one whose settings and files are what they were stays as it is. It decides nothing else.

use std::sync::Arc;

use super::{RunError, tokens::StoredTokens};
use crate::{
    config::{Config, cluster::SealingKey},
    connector::{self, Connector, Services},
    delivery,
    queue::store::Store,
    watch::content,
};

/// A connector, and what it was made of.
#[derive(Clone)]
pub(super) struct BuiltConnector {
    settings: connector::Settings,
    /// Of the files that its settings name.
    content: u64,
    /// What its tokens are sealed with.
    keys: Vec<SealingKey>,
    pub(super) connector: Arc<dyn Connector>,
}

/// One that is in `kept`, of equal settings and files, stays as it is, with its open connections and tokens.
pub(super) fn connectors(
    config: &Config,
    kept: &[BuiltConnector],
    store: &Arc<dyn Store>,
) -> Result<Vec<BuiltConnector>, RunError> {
    config
        .connectors
        .iter()
        .map(|settings| {
            // Looked at before they are read: what changes in between is seen at the next look.
            let files = config.connector_files.get(&settings.name);
            let content = content(files.map_or(&[], Vec::as_slice));
            let keys = config.store.keys();
            let is_same = |made: &&BuiltConnector| {
                made.settings == *settings && made.content == content && made.keys == keys
            };
            if let Some(same) = kept.iter().find(is_same) {
                return Ok(same.clone());
            }
            let services = Services {
                recorder: None,
                token_store: Some(StoredTokens::of(store, config)),
            };
            settings
                .build(services)
                .map(|connector| BuiltConnector {
                    settings: settings.clone(),
                    content,
                    keys: keys.to_vec(),
                    connector,
                })
                .map_err(|e| RunError::new(78, format!("connector \"{}\": {e}", settings.name)))
        })
        .collect()
}

pub(super) fn setup(config: &Config, connectors: &[BuiltConnector]) -> delivery::Setup {
    delivery::Setup {
        router: config.router.clone(),
        policy: config.policy.clone(),
        connectors: connectors
            .iter()
            .map(|made| (made.settings.clone(), Arc::clone(&made.connector)))
            .collect(),
        settings: config.delivery.clone(),
        keep_failed: config.queue.keep_failed,
        keep_history: config.queue.keep_history,
    }
}
