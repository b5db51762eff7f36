//! Which certificates of applications a configuration has, and which of its connectors share one. What is done about them is in `rotation`.

use std::path::Path;

use crate::{
    config::Config,
    connector::{
        Settings,
        oauth::{self, RotationSettings},
    },
};

/// A certificate of an application, and all connectors that have it.
#[derive(Debug, Clone)]
pub struct RotatedCredential {
    /// Where its row is.
    pub(super) key: String,
    /// The connectors.
    pub connectors: Vec<String>,
    /// How its connectors log in.
    pub(super) settings: oauth::Settings,
    /// `None`: `rotate = false`.
    pub(super) rotation: Option<RotationSettings>,
}

/// The certificates of a configuration.
pub fn credentials(config: &Config) -> Vec<RotatedCredential> {
    let mut all: Vec<RotatedCredential> = Vec::new();
    for settings in &config.connectors {
        let Some((key, oauth)) = of(settings) else {
            continue;
        };
        let name = settings.name.to_string();
        match all.iter_mut().find(|known| known.key == key) {
            Some(known) => {
                known.connectors.push(name);
                if known.rotation.is_none() && oauth.rotation.is_some() {
                    (known.settings, known.rotation) = (oauth.clone(), oauth.rotation.clone());
                }
            }
            None => all.push(RotatedCredential {
                key,
                connectors: vec![name],
                settings: oauth.clone(),
                rotation: oauth.rotation.clone(),
            }),
        }
    }
    all
}

fn of(settings: &Settings) -> Option<(String, &oauth::Settings)> {
    let oauth = settings.kind.oauth()?;
    Some((oauth::rotation_key(oauth)?, oauth))
}

impl RotatedCredential {
    /// Whether the gateway is to replace it.
    pub fn is_rotated(&self) -> bool {
        self.rotation.is_some()
    }

    /// The configured certificate and key.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.settings.grant.certificate()
    }
}
