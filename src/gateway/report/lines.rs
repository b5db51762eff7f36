//! What `explain` says of a listener and of whoever signs, a line each.

use std::time::SystemTime;

use crate::{
    connector::dkim::{self, DkimKey},
    listener::{self, Bind, TlsMode},
    policy::{AuthMode, certificate::ClientCertificates},
    route::ConnectorName,
};

/// Which keys of a connector sign mail with this header today.
pub(super) fn signed_by(connector: &ConnectorName, keys: &[DkimKey], header: &[u8]) -> String {
    let Some(from) = dkim::domain_of_from(header) else {
        return format!("{connector} does not sign: there is no domain in From");
    };
    let signing = dkim::signing(keys, &from, SystemTime::now());
    let selectors: Vec<&str> = signing.iter().map(|key| key.selector.as_str()).collect();
    match signing.first() {
        Some(key) => format!(
            "{connector} signs as {} with {}",
            key.domain,
            selectors.join(" and ")
        ),
        None => format!("{connector} does not sign: no [[dkim]] is for {from} today"),
    }
}

/// What a listener is, and where.
pub(super) fn describe(listener: &listener::Settings) -> String {
    let at = match &listener.bind {
        Bind::Address(address) => address.to_string(),
        Bind::Inherited(name) => format!("socket:{name}"),
    };
    let tls = match (listener.tls, listener.require_tls) {
        (TlsMode::Off, _) => "no TLS",
        (TlsMode::StartTls, false) => "STARTTLS offered",
        (TlsMode::StartTls, true) => "STARTTLS required",
        (TlsMode::Implicit, _) => "implicit TLS",
    };
    let auth = match listener.auth {
        AuthMode::Off => "no AUTH",
        AuthMode::Optional => "AUTH offered",
        AuthMode::Required => "AUTH required",
    };
    let certificates = match listener.client_certificates() {
        ClientCertificates::Off => "",
        ClientCertificates::Optional => ", client certificates optional",
        ClientCertificates::Required => ", client certificates required",
    };
    format!("{} at {at} ({tls}, {auth}{certificates})", listener.name)
}
