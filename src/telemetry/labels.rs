//! The values that labels of metrics may have: names of the configuration, and words of ours.

use crate::mail::tls::TlsVersion;

/// The names that labels may have: those of the configuration.
#[derive(Debug, Clone, Default)]
pub struct LabelNames {
    /// `[[listener]]`.
    pub listeners: Vec<String>,
    /// `[[client]]`.
    pub clients: Vec<String>,
    /// Those of them that old TLS may be spoken with.
    pub old_clients: Vec<String>,
    /// `[[route]]`.
    pub routes: Vec<String>,
    /// `[[connector]]`.
    pub connectors: Vec<String>,
    /// Those of them that ask for tokens.
    pub token_connectors: Vec<String>,
    /// Those of them that sign mail.
    pub signing_connectors: Vec<String>,
    /// `[[redirect]]`.
    pub redirects: Vec<String>,
    /// `[[archive]]`.
    pub archives: Vec<String>,
    /// `[[notify]]`.
    pub channels: Vec<String>,
}

impl LabelNames {
    /// Whether a session of this client can have spoken that.
    pub(super) fn speaks(&self, client: &str, tls: &str) -> bool {
        !TlsVersion::is_obsolete(tls) || self.old_clients.iter().any(|old| old == client)
    }
}

/// Each name with each word.
pub(super) fn pairs<'a>(names: &'a [String], words: &[&'a str]) -> Vec<[&'a str; 2]> {
    let each = |name: &'a String| words.iter().map(move |word| [name.as_str(), *word]);
    names.iter().flat_map(each).collect()
}

/// Each by itself.
pub(super) fn alone<'a>(
    names: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
) -> Vec<[&'a str; 1]> {
    names.into_iter().map(|name| [name.as_ref()]).collect()
}
