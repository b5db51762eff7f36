//! A smarthost of an old system as a connector, with the one rule about passwords: none goes over a connection that may be in the clear.
//!
//! Which host it is, and who logs in, is the business of whoever imports.

use toml::Value;

use super::{
    draft::{ImportDraft, ImportedConnector},
    note::SourcePlace,
    words,
};

/// What the programs that are imported know of one.
#[derive(Debug, Clone, Default)]
pub(super) struct OldSmarthost {
    pub(super) host: String,
    pub(super) port: u16,
    /// off, opportunistic, starttls or implicit.
    pub(super) tls: &'static str,
    pub(super) has_login: bool,
    /// Another value than `full`.
    pub(super) verify: Option<&'static str>,
    /// Another value than `auto`.
    pub(super) auth: Option<&'static str>,
    pub(super) ca_file: Option<String>,
    pub(super) client: Option<(String, String)>,
    pub(super) helo: Option<String>,
    pub(super) proxy: Option<String>,
}

/// A login over `off` or `opportunistic` becomes `starttls`; to loopback it stays as it was.
pub(super) fn secure(
    smarthost: &mut OldSmarthost,
    what: &str,
    place: Option<&SourcePlace>,
    draft: &mut ImportDraft,
) {
    let is_clear = matches!(smarthost.tls, "off" | "opportunistic");
    if smarthost.has_login && is_clear && !words::is_loopback(&smarthost.host) {
        draft.changes(
            format!("{what}: {}", smarthost.host),
            place.cloned(),
            format!("the password went over tls = \"{}\"; it is \"starttls\" now, and there is no login without TLS", smarthost.tls),
        );
        smarthost.tls = "starttls";
    }
}

impl OldSmarthost {
    pub(super) fn draft(&self, name: &str) -> ImportedConnector {
        let mut draft = ImportedConnector {
            name: name.to_owned(),
            ..ImportedConnector::default()
        }
        .with("type", "smtp")
        .with("host", self.host.as_str())
        .with("port", Value::Integer(self.port.into()))
        .with("tls", self.tls);
        let texts = [
            ("verify", self.verify.map(str::to_owned)),
            ("auth", self.auth.map(str::to_owned)),
            ("ca_file", self.ca_file.clone()),
            (
                "client_certificate",
                self.client.as_ref().map(|pair| pair.0.clone()),
            ),
            (
                "client_key",
                self.client.as_ref().map(|pair| pair.1.clone()),
            ),
            ("helo", self.helo.clone()),
            ("proxy", self.proxy.clone()),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                draft.set(key, value);
            }
        }
        draft
    }
}
