//! The well-known services as programs are shown them: what `service = "NAME"` of a connector stands for.

use serde_json::{Value, json};

use crate::connector::services;

/// `postern services --json`.
pub fn services() -> Value {
    let all = services::all().iter().map(|service| {
        json!({
            "name": service.name,
            "host": service.host,
            "port": service.port,
            "tls": service.tls.as_str(),
            "connections": service.connections(),
        })
    });
    all.collect()
}
