//! What the gateway writes down of itself beside the queue, for `status`, `queue`, `trace` and `reload`.
//!
//! Apart because the commands rely on these words.

use serde_json::{Value, json};

use super::{Gateway, certificates};
use crate::{
    listener::{Standing, TlsMode},
    mail::time,
    route::ConnectorName,
};

/// The note as it is now, with these listeners.
pub(super) fn of(gateway: &Gateway, standing: &[Standing]) -> Value {
    let listeners: Vec<Value> = standing
        .iter()
        .flat_map(|l| {
            let tls = match l.tls {
                TlsMode::Off => "off",
                TlsMode::StartTls => "starttls",
                TlsMode::Implicit => "implicit",
            };
            l.addresses
                .iter()
                .map(move |a| json!({ "name": l.name, "address": a.to_string(), "tls": tls }))
        })
        .collect();
    let mut certificates: Vec<Value> = standing
        .iter()
        .filter_map(|l| {
            let (file, end) = l.certificate.as_ref()?;
            Some(json!({
                "listener": l.name,
                "file": file.display().to_string(),
                "not_after": time::logged(*end),
            }))
        })
        .collect();
    certificates.extend(certificates::entries(&gateway.config.connectors));
    let connectors: Vec<&str> = gateway
        .config
        .connectors
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    let routes: serde_json::Map<String, Value> = gateway
        .config
        .router
        .routes
        .iter()
        .map(|route| {
            let names: Vec<&str> = route.connectors.iter().map(ConnectorName::as_str).collect();
            (route.name.to_string(), json!(names))
        })
        .collect();
    json!({
        "pid": std::process::id(),
        "started": time::logged(gateway.started),
        "config": gateway.config.path.display().to_string(),
        "listeners": listeners,
        "certificates": certificates,
        "connectors": connectors,
        "routes": routes,
        "reload": gateway.reload,
    })
}
