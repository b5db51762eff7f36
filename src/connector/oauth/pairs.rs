//! The certificates and keys that an application may log in with: the configured one, and those that the gateway put in its place.
//!
//! The row of a rotation is kept beside the hash of the configured certificate: another one that is configured wins. It is looked up each time a
//! token is renewed, so that whoever has replaced a pair need tell nobody.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    grant::{Grant, Settings},
    keys::{ApplicationPair, sha256},
    refresh::TokenStore,
    rotation::{RotatedPair, RotationRow},
};
use crate::connector::keypair;

/// Where the row of an application's certificate is kept. `None`: it has none, or it cannot be read.
pub fn rotation_key(settings: &Settings) -> Option<String> {
    let Grant::Certificate {
        client_id,
        certificate,
        ..
    } = &settings.grant
    else {
        return None;
    };
    let fingerprint = sha256(&keypair::first(certificate).ok()?);
    // However the tenant is written (its ID, or one of its domains), and the ID itself: it is one application.
    let client_id = client_id.to_ascii_lowercase();
    Some(format!("rotation of {client_id} from {fingerprint}"))
}

/// The row of an application's certificate. `None`: there is none.
///
/// # Errors
/// The store cannot be read, or holds what this program does not know.
pub async fn rotation_row(
    store: &dyn TokenStore,
    key: &str,
) -> Result<Option<RotationRow>, String> {
    let kept = store.load(key).await.map_err(|why| unread(&why))?;
    rotation_row_in(kept.as_deref())
}

/// The row of what is kept.
///
/// # Errors
/// It is not for this program.
pub fn rotation_row_in(kept: Option<&str>) -> Result<Option<RotationRow>, String> {
    let Some(kept) = kept else {
        return Ok(None);
    };
    RotationRow::read(kept)
        .map(Some)
        .ok_or_else(|| unread("a newer program has written it"))
}

fn unread(why: &str) -> String {
    format!("what is kept of the certificate cannot be read: {why}")
}

/// The pairs of a token source.
pub(super) struct KnownPairs {
    settings: Settings,
    store: Arc<dyn TokenStore>,
    /// As they were when they were last looked up.
    seen: Mutex<Option<Vec<Option<ApplicationPair>>>>,
}

impl KnownPairs {
    /// Of a grant that has a certificate. Looks nothing up yet.
    pub(super) fn of(settings: &Settings, store: Option<Arc<dyn TokenStore>>) -> Option<Self> {
        settings.grant.certificate()?;
        Some(Self {
            settings: settings.clone(),
            store: store?,
            seen: Mutex::default(),
        })
    }

    /// Those to ask with, the likeliest first; `None` is the configured one.
    ///
    /// # Errors
    /// They cannot be looked up, and the configured one may have been replaced.
    pub(super) async fn now(&self) -> Result<Vec<Option<ApplicationPair>>, String> {
        let found = match rotation_key(&self.settings) {
            Some(key) => rotation_row(self.store.as_ref(), &key).await,
            None => Ok(None),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(row) => {
                let pairs = row.as_ref().map_or_else(|| vec![None], RotationRow::pairs);
                let read = |pair: &RotatedPair| ApplicationPair::of(pair);
                let pairs: Result<Vec<_>, String> = pairs
                    .into_iter()
                    .map(|pair| pair.map(read).transpose())
                    .collect();
                let pairs = pairs?;
                *seen = Some(pairs.clone());
                Ok(pairs)
            }
            // What was so an hour ago is so yet, or the one before is registered yet.
            Err(why) => match &*seen {
                Some(pairs) => Ok(pairs.clone()),
                None if self.settings.rotation.is_some() => Err(why),
                None => Ok(vec![None]),
            },
        }
    }
}
