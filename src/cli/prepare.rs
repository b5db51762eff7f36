//! What a command needs before it begins: the settings, a runtime, a place for refresh tokens.

use std::{path::PathBuf, sync::Arc};

use super::{
    exit::{CommandError, Exit},
    place,
};
use crate::{
    config::{self, Config, Secrets},
    connector::{Kind, oauth::TokenStore},
    gateway::tokens::StoredTokens,
};

/// The settings, for a command that only looks; warnings are `check`'s to print.
pub(super) fn settings(path: Option<PathBuf>, secrets: Secrets) -> Result<Config, CommandError> {
    let path = config::find(path);
    config::load(&path, secrets)
        .map(|(config, _)| config)
        .map_err(|diagnostics| CommandError::new(Exit::Config, diagnostics))
}

/// Runs what is asynchronous below; a command needs one thread and the blocking pool.
pub(super) fn block_on<T>(
    future: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(Exit::System, error))?
        .block_on(future)
}

/// Where a command finds and keeps rotated refresh tokens, if a connector has one: in the queue, if there is one.
pub(super) fn token_store(config: &Config) -> Result<Option<Arc<dyn TokenStore>>, CommandError> {
    let mut kinds = config.connectors.iter().map(|connector| &connector.kind);
    if !kinds.any(Kind::needs_token_store) {
        return Ok(None);
    }
    // A queue that is there and cannot be opened is a failure: what the endpoint gives for next time would be lost.
    Ok(place::store_of(config)?.map(|store| StoredTokens::of(&store, config)))
}
