//! A POST of JSON for programs, signed so that the receiver knows whom it is from.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use serde_json::json;

use super::message::AlarmMessage;
use crate::{
    mail::{text::hex, time::rfc3339},
    secret::Secret,
};

/// What is sent.
pub(super) fn body(message: &AlarmMessage, hostname: &str) -> String {
    json!({
        "schema": 1,
        "transition": message.transition,
        "incident": message.incident,
        "gateway": { "hostname": hostname, "version": env!("CARGO_PKG_VERSION") },
        "sent_at": rfc3339(message.at),
    })
    .to_string()
}

/// `t=UNIX,v1=HEX`: HMAC-SHA256 over `UNIX.BODY` (RFC 2104).
pub(super) fn signature(secret: &Secret, body: &str, at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let unix = since.as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let tag = hmac::sign(&key, format!("{unix}.{body}").as_bytes());
    format!("t={unix},v1={}", hex(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The value is of `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn a_signature_is_what_others_compute() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(
            signature(&Secret::new("key"), "{}", at),
            "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
    }
}
