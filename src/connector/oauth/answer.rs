//! What a token endpoint answered: a token, a fault that passes, or one that an administrator must repair.
//!
//! Apart because it is pure: a table from status, `error` and AADSTS code to a report with the remedy in words. It acts on `error`
//! and on the code, never on the description (which Microsoft may change).

use std::time::Duration;

use serde_json::Value;

use crate::{
    mail::{outcome::Report, reply::Reply},
    secret::Secret,
};

/// A token as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) token: Secret,
    /// From now on.
    pub(super) lifetime: Duration,
    /// A new refresh token.
    pub(super) rotated: Option<Secret>,
}

/// Codes that pass by themselves (Entra, error codes reference).
const TRANSIENT: &[u64] = &[90006, 90012, 90024, 90033, 90055, 90090];

/// Reads an answer.
pub(super) fn read(
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
) -> Result<Granted, Report> {
    let down = |text: String| Report::Down {
        reply: Reply::new(451, (4, 4, 1), text),
        retry_after,
    };
    let Ok(content) = serde_json::from_slice::<Value>(body) else {
        return Err(down(format!(
            "the token endpoint answered {status} with something that is not JSON"
        )));
    };
    if (200..300).contains(&status) {
        let token = content
            .get("access_token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if token.is_empty() || token.bytes().any(|b| !(b'!'..=b'~').contains(&b)) {
            return Err(down(
                "the token endpoint answered without a usable access_token".into(),
            ));
        }
        return Ok(Granted {
            token: Secret::new(token),
            lifetime: Duration::from_secs(
                content
                    .get("expires_in")
                    .and_then(number)
                    .unwrap_or(300)
                    .min(86_400),
            ),
            rotated: content
                .get("refresh_token")
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
                .map(Secret::new),
        });
    }
    let error = word(content.get("error"));
    let code = content
        .get("error_codes")
        .and_then(Value::as_array)
        .and_then(|codes| codes.first())
        .and_then(number);
    let shown = match code {
        Some(code) => format!("{error}, AADSTS{code}"),
        None => error.clone(),
    };
    let passes = status == 429
        || status >= 500
        || code.is_some_and(|code| TRANSIENT.contains(&code))
        || matches!(
            error.as_str(),
            "temporarily_unavailable" | "server_error" | "slow_down" | ""
        );
    if passes {
        return Err(down(format!(
            "the token endpoint answered {status} ({shown})"
        )));
    }
    Err(Report::Misconfigured(Reply::new(
        451,
        (4, 3, 5),
        format!("no token ({shown}): {}", remedy(&error, code)),
    )))
}

/// The metadata service: 404, 410, 429 and 5xx pass (it is being updated); 400 says that there is no such identity.
pub(super) fn read_metadata(
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
) -> Result<Granted, Report> {
    if matches!(status, 404 | 410) {
        return Err(Report::Down {
            reply: Reply::new(
                451,
                (4, 4, 1),
                format!("the metadata service answered {status}; it may be being updated"),
            ),
            retry_after,
        });
    }
    if status == 400 {
        return Err(Report::Misconfigured(Reply::new(
            451,
            (4, 3, 5),
            "no token: this machine has no such managed identity; assign one to it, or correct managed_identity",
        )));
    }
    read(status, body, retry_after)
}

/// What to do about it.
fn remedy(error: &str, code: Option<u64>) -> &'static str {
    match (code, error) {
        (Some(7_000_215), _) => {
            "the client secret is wrong (often its ID was copied in place of its value); create a new one under Certificates & secrets and set client_secret"
        }
        (Some(7_000_222), _) => {
            "the client secret expired; create a new one under Certificates & secrets and set client_secret"
        }
        (Some(700_016 | 700_011), _) => {
            "there is no such application in this tenant; correct client_id and tenant_id"
        }
        (Some(90_002), _) => {
            "there is no such tenant; correct tenant_id, and cloud if it is a national one"
        }
        (Some(7_000_218), _) => {
            "the endpoint saw no credential; set client_secret, or certificate and key"
        }
        (Some(700_027), _) => {
            "the certificate is not the one that is registered, or its key is another; upload the certificate under Certificates & secrets"
        }
        (Some(50_012 | 50_013), _) => {
            "the assertion is not accepted; check this machine's clock, and that certificate and key belong together"
        }
        (Some(7_000_112), _) => {
            "the application is switched off; enable it under Enterprise applications"
        }
        (Some(500_011 | 650_056 | 650_057), _) => {
            "the application has no permission for this resource; add the application permission and give admin consent, and check scope"
        }
        (Some(9_001_023), _) => "this needs the tenant itself, not common; set tenant_id",
        (Some(900_382 | 900_432 | 90_038), _) => "the tenant belongs to another cloud; set cloud",
        (Some(70_011), _) | (_, "invalid_scope") => {
            "the scope is wrong; remove `scope`, or end it with /.default"
        }
        (_, "invalid_grant") => {
            "the grant is no longer accepted; sign in again and set the new refresh token, or check subject and delegation"
        }
        (_, "unauthorized_client") => {
            "this client may not do that; Google: allow its client id the scope under domain-wide delegation; Entra: check the application"
        }
        (_, "invalid_client") => "the credentials of the application are wrong; set them anew",
        _ => "correct the credentials of this connector",
    }
}

/// A number, also as a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// An error word (RFC 6749 §5.2), nothing longer or stranger.
fn word(value: Option<&Value>) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &str) {
        let found = match read(status, body.as_bytes(), None) {
            Ok(granted) => format!(
                "token {} {}",
                granted.token.reveal(),
                granted.lifetime.as_secs()
            ),
            Err(Report::Down { reply, .. }) => format!("down {}", reply.text),
            Err(Report::Misconfigured(reply)) => format!("misconfigured {}", reply.text),
            Err(other) => format!("{other:?}"),
        };
        assert!(found.starts_with(expected), "{body}: {found}");
    }

    #[test]
    fn answers() {
        for (status, body, expected) in [
            (
                200,
                r#"{"access_token":"t","expires_in":3599}"#,
                "token t 3599",
            ),
            (
                200,
                r#"{"access_token":"t","expires_in":"3599"}"#,
                "token t 3599",
            ),
            (200, r#"{"access_token":"t","expires_in":0}"#, "token t 0"),
            (
                200,
                r#"{"access_token":"t","expires_in":{}}"#,
                "token t 300",
            ),
            (200, r#"{"access_token":"a\r\nb"}"#, "down"),
            (200, "{}", "down"),
            (200, "<html>", "down"),
            (200, r#"{"access_token":"t"#, "down"),
            (503, "", "down"),
            (429, r#"{"error":"x"}"#, "down"),
            (400, r#"{"error":"temporarily_unavailable"}"#, "down"),
            (
                400,
                r#"{"error":"invalid_request","error_codes":[90033]}"#,
                "down",
            ),
            (
                401,
                r#"{"error":"invalid_client","error_codes":[7000222]}"#,
                "misconfigured no token (invalid_client, AADSTS7000222): the client secret expired",
            ),
            (
                401,
                r#"{"error":"invalid_client","error_codes":[7000215]}"#,
                "misconfigured no token (invalid_client, AADSTS7000215): the client secret is wrong",
            ),
            (
                400,
                r#"{"error":"unauthorized_client","error_codes":[700016]}"#,
                "misconfigured no token (unauthorized_client, AADSTS700016): there is no such application",
            ),
            (
                400,
                r#"{"error":"invalid_grant"}"#,
                "misconfigured no token (invalid_grant): the grant",
            ),
            (
                400,
                r#"{"error":"\u001b[31minvalid"}"#,
                "misconfigured no token (31minvalid)",
            ),
        ] {
            check(status, body, expected);
        }
    }
}
