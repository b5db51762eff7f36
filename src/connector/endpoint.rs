//! A host that a connector speaks to, for whoever looks at the way there; which hosts there are, the kind says.

use reqwest::Url;

/// A host that a connector speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where it is spoken to by HTTP.
    pub url: Option<Url>,
    /// It gives the tokens of managed identities: where nobody answers there, this machine has none.
    pub is_metadata: bool,
}

impl Endpoint {
    /// Of a URL that has a host.
    pub(super) fn of_url(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        Some(Self {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
            url: Some(url),
            is_metadata: false,
        })
    }
}
