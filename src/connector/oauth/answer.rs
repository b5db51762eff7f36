//! What a token endpoint answered: a token, a fault that passes, or one that an administrator must repair.
//!
//! Apart because it is pure: a table from status, `error` and AADSTS code to a report with the remedy in words. `error` and the code
//! decide, never the description (which Microsoft may change), and of what the endpoint says nothing is repeated but that word, the
//! number and the two identifiers that its support asks for.

use std::{fmt::Write as _, time::Duration};

use serde_json::Value;

use crate::{
    connector::http::Answer,
    mail::{outcome::Report, reply::Reply},
    secret::Secret,
};

/// A token as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) token: Secret,
    /// From the request on.
    pub(super) lifetime: Duration,
    /// A new refresh token.
    pub(super) rotated: Option<Secret>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) report: Report,
    /// What was presented is no longer valid; another refresh token may be.
    pub(super) is_grant: bool,
}

/// Codes that pass by themselves (Entra, error codes reference).
const TRANSIENT: &[u64] = &[
    50_033, 50_196, 70_012, 90_006, 90_012, 90_024, 90_033, 90_055, 90_090, 90_091,
];
/// A token without a time is used for so long (RFC 6749 §5.1 allows it; Entra and Google always say).
const UNSAID: u64 = 300;

/// Reads an answer; `is_metadata`: of the metadata service.
pub(super) fn read(
    answer: &Answer,
    is_metadata: bool,
    retry_after: Option<Duration>,
) -> Result<Granted, Refused> {
    if !answer.whole && answer.status.is_success() {
        return Err(down(
            "the token endpoint's answer broke off, or is longer than 1 MiB".into(),
            retry_after,
        ));
    }
    let status = answer.status.as_u16();
    parse(status, &answer.body, is_metadata, retry_after)
}

fn down(text: String, retry_after: Option<Duration>) -> Refused {
    Refused {
        report: Report::Down {
            reply: Reply::new(451, (4, 4, 1), text),
            retry_after,
        },
        is_grant: false,
    }
}

fn ours(text: String) -> Refused {
    Refused {
        report: Report::Misconfigured(Reply::new(451, (4, 3, 5), text)),
        is_grant: false,
    }
}

fn parse(
    status: u16,
    body: &[u8],
    is_metadata: bool,
    retry_after: Option<Duration>,
) -> Result<Granted, Refused> {
    let down = |text: String| Err(down(text, retry_after));
    // It is being updated (404, 410), or is asked too often.
    if is_metadata && matches!(status, 404 | 410) {
        return down(format!(
            "the metadata service answered {status}; it may be being updated, or this is no machine of Azure"
        ));
    }
    if is_metadata && status == 400 {
        return Err(ours(
            "no token: this machine has no such managed identity; assign one to it, or correct managed_identity"
                .into(),
        ));
    }
    if (300..400).contains(&status) {
        return down(format!(
            "the token endpoint answered {status}, a redirect, which is not followed; correct login_url or token_url"
        ));
    }
    let Some(content) = serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object)
    else {
        return down(format!(
            "the token endpoint answered {status} with something that is not JSON; is the URL right, and nothing in between?"
        ));
    };
    if (200..300).contains(&status) {
        return granted(&content).map_err(|why| self::down(why.to_owned(), retry_after));
    }
    let error = word(content.get("error"));
    let codes = codes(&content);
    let code = codes
        .iter()
        .copied()
        .find(|code| of_code(*code).is_some())
        .or(codes.first().copied());
    let mut shown = error.clone();
    if let Some(code) = code {
        if !shown.is_empty() {
            shown.push_str(", ");
        }
        let _ = write!(shown, "AADSTS{code}");
    }
    let passes = matches!(status, 408 | 429 | 500..)
        || codes.iter().any(|code| TRANSIENT.contains(code))
        || matches!(
            error.as_str(),
            "temporarily_unavailable" | "server_error" | "slow_down" | "rate_limit_exceeded" | ""
        );
    if passes {
        return down(format!("the token endpoint answered {status} ({shown})"));
    }
    let remedy = code
        .and_then(of_code)
        .unwrap_or_else(|| of_error(&error, &content));
    let mut text = format!("no token ({shown}): {remedy}");
    for key in ["trace_id", "correlation_id"] {
        // A GUID and nothing else: whatever else may stand there is not repeated.
        let id = content
            .get(key)
            .and_then(Value::as_str)
            .filter(|id| id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
        if let Some(id) = id {
            let _ = write!(text, "; {key} {id}");
        }
    }
    Err(Refused {
        is_grant: error == "invalid_grant",
        ..ours(text)
    })
}

fn granted(content: &Value) -> Result<Granted, &'static str> {
    let usable = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let text = |key: &str| content.get(key).and_then(Value::as_str).filter(usable);
    let token =
        text("access_token").ok_or("the token endpoint answered without a usable access_token")?;
    if let Some(kind) = content.get("token_type")
        && !kind
            .as_str()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))
    {
        return Err("the token endpoint gave a token that is no bearer token");
    }
    let seconds = content.get("expires_in").and_then(number).unwrap_or(UNSAID);
    Ok(Granted {
        token: Secret::new(token),
        lifetime: Duration::from_secs(seconds.min(86_400)),
        rotated: text("refresh_token").map(Secret::new),
    })
}

/// `error_codes`; where they are missing, the number of the description.
fn codes(content: &Value) -> Vec<u64> {
    let listed = content.get("error_codes").and_then(Value::as_array);
    let listed: Vec<u64> = listed
        .into_iter()
        .flatten()
        .take(10)
        .filter_map(number)
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    let said = content.get("error_description").and_then(Value::as_str);
    let digits = said
        .and_then(|said| said.split_once("AADSTS"))
        .map(|(_, rest)| -> String { rest.chars().take_while(char::is_ascii_digit).collect() });
    digits
        .and_then(|digits| digits.parse().ok())
        .into_iter()
        .collect()
}

/// What to do about a code of Entra (error codes reference; what is broken stands first in each).
fn of_code(code: u64) -> Option<&'static str> {
    Some(match code {
        // The credential.
        7_000_215 | 70_002 => {
            "the client secret is wrong (often its ID was copied in place of its value); create a new one under Certificates & secrets and set client_secret to its Value"
        }
        7_000_222 => {
            "the client secret expired; create a new one under Certificates & secrets and set client_secret to its Value"
        }
        7_000_216 | 7_000_218 | 900_144 | 90_014 => {
            "the endpoint saw no credential; set client_secret, or certificate and key"
        }
        700_025 => {
            "the application is registered as a public client, which has no credential; remove client_secret, or register it as a confidential one (Authentication, Allow public client flows: No)"
        }
        700_027 | 700_030 | 50_006 | 50_017 | 50_048 => {
            "the certificate is not the one that is registered, or its key is another; upload the certificate under Certificates & secrets"
        }
        50_012 => {
            "the certificate is not accepted, or the signature is not by its key; upload the certificate under Certificates & secrets, check that certificate and key belong together, and this machine's clock"
        }
        700_024 | 500_133 => {
            "the assertion is not within its time; set this machine's clock right (and see that the token of federated_token_file is being renewed)"
        }
        50_013 | 50_027 => {
            "the assertion is not accepted; check this machine's clock, and that certificate and key belong together"
        }
        700_211..=700_213 | 700_229 => {
            "no federated credential of the application fits the token of federated_token_file; compare issuer, subject and audience under Certificates & secrets, Federated credentials"
        }
        // The application.
        700_016 | 700_011 | 70_001 => {
            "there is no such application in this tenant; correct client_id and tenant_id, and see that an administrator has consented"
        }
        7_000_229 => {
            "the application has no service principal in this tenant; give admin consent, which makes one"
        }
        7_000_112 | 7_000_114 | 1_000_031 => {
            "the application is switched off; enable it under Enterprise applications, Properties"
        }
        // The tenant.
        90_002 | 50_059 | 50_128 | 90_019 => {
            "there is no such tenant; correct tenant_id, and cloud if it is a national one"
        }
        9_001_023 | 50_194 | 90_124 | 90_130 => {
            "this needs the tenant itself, not common; set tenant_id"
        }
        900_382 | 900_432 | 90_038 | 90_051 => "the tenant belongs to another cloud; set cloud",
        500_021 | 500_022 | 50_002 => {
            "a proxy of this network restricts which tenants may be used; have this tenant allowed there"
        }
        // Consent and roles.
        65_001 | 90_094 | 90_095 | 90_008 | 65_004 => {
            "nobody has consented; grant admin consent under API permissions"
        }
        500_011 | 650_052 | 650_054 | 650_056 | 650_057 | 65_005 | 50_001 | 500_014 => {
            "the application has no permission for this resource; add the application permission and give admin consent, and check scope and cloud"
        }
        50_105 | 501_051 => {
            "the application (or its user) is not assigned to the resource; assign it under Enterprise applications, Users and groups"
        }
        70_011 | 1_002_012 | 28_002 | 28_003 | 700_022 | 700_023 => {
            "the scope is wrong; remove `scope`, or end it with /.default"
        }
        53_000..=53_004 | 50_005 | 50_131 | 50_097 | 53_011 | 530_032 | 530_034 | 530_035 => {
            "a Conditional Access policy (or security defaults) blocks it; exempt this application or this machine's address, see Sign-in logs in Entra"
        }
        // The user of a refresh token.
        50_034 | 50_020 | 50_014 | 51_004 | 16_000 | 90_072 => {
            "the user is not in this tenant; correct tenant_id (\"consumers\" for Outlook.com), and mailbox"
        }
        50_053 | 50_055 | 50_056 | 50_057 | 50_064 | 50_126 | 50_144 => {
            "the user's account is locked, disabled or has another password; repair it, sign in again and set the new refresh_token"
        }
        50_072 | 50_074 | 50_076 | 50_078 | 50_079 | 50_158 => {
            "the user must sign in with a second factor; sign in again and set the new refresh_token"
        }
        50_173 | 50_089 | 50_132 | 50_133 | 50_085 | 70_000 | 70_008 | 70_043 | 700_005
        | 700_020 | 700_081 | 700_082 | 700_084 => {
            "the refresh token is no longer valid; sign in again and set the new refresh_token"
        }
        _ => return None,
    })
}

/// What to do about an `error` (RFC 6749 §5.2) without a code that we know.
fn of_error(error: &str, content: &Value) -> &'static str {
    let said = content
        .get("error_description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match error {
        // Google has one word for all of it; which remedy stands first is all that hangs on the description.
        "invalid_grant" if said.contains("Invalid JWT") => {
            "the assertion is not accepted; set this machine's clock right, and check service_account_file"
        }
        "invalid_grant" => {
            "the grant is no longer accepted; sign in again and set the new refresh_token, or check subject and delegation"
        }
        "unauthorized_client" => {
            "this client may not do that; Google: allow its client ID the scope https://mail.google.com/ under Domain-wide delegation; Entra: check client_id, tenant_id and consent"
        }
        "invalid_client" | "deleted_client" | "disabled_client" => {
            "the credentials of the application are wrong; set client_id and client_secret (or certificate, or service_account_file) anew"
        }
        "invalid_scope" => "the scope is wrong; remove `scope`, or end it with /.default",
        "invalid_resource" | "invalid_target" => {
            "the resource is not known to the tenant; check scope and cloud"
        }
        "unsupported_grant_type" | "invalid_request" => {
            "the endpoint does not understand the request; check token_url or login_url, tenant_id and client_id"
        }
        "interaction_required" | "consent_required" | "login_required" => {
            "somebody must sign in or consent; grant admin consent, or sign in again and set the new refresh_token"
        }
        "access_denied" | "admin_policy_enforced" | "org_internal" => {
            "an administrator's policy forbids it; allow the application for this mailbox"
        }
        _ => "correct the credentials of this connector",
    }
}

/// A number, also as a string.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// An error word, nothing longer or stranger.
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

    fn found(status: u16, body: &str, is_metadata: bool) -> String {
        match parse(status, body.as_bytes(), is_metadata, None) {
            Ok(granted) => format!(
                "token {} {} {}",
                granted.token.reveal(),
                granted.lifetime.as_secs(),
                granted.rotated.as_ref().map_or("-", Secret::reveal)
            ),
            Err(Refused { report, .. }) => match report {
                Report::Down { reply, .. } => format!("down {}", reply.text),
                Report::Misconfigured(reply) => format!("misconfigured {}", reply.text),
                other => format!("{other:?}"),
            },
        }
    }

    fn check(status: u16, body: &str, expected: &str) {
        let found = found(status, body, false);
        assert!(found.starts_with(expected), "{body}: {found}");
    }

    #[test]
    fn tokens() {
        for (body, expected) in [
            (
                r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#,
                "token t 3599 -",
            ),
            (
                r#"{"access_token":"t","expires_in":"3599"}"#,
                "token t 3599 -",
            ),
            (r#"{"access_token":"t","expires_in":0}"#, "token t 0 -"),
            (r#"{"access_token":"t","expires_in":-1}"#, "token t 300 -"),
            (r#"{"access_token":"t","expires_in":{}}"#, "token t 300 -"),
            (
                r#"{"access_token":"t","expires_in":999999999,"refresh_token":"r"}"#,
                "token t 86400 r",
            ),
            (
                r#"{"access_token":"t","expires_in":1,"refresh_token":"a b"}"#,
                "token t 1 -",
            ),
            (r#"{"access_token":"t","token_type":"mac"}"#, "down"),
            (r#"{"access_token":"a\r\nb"}"#, "down"),
            (r#"{"access_token":""}"#, "down"),
            (r#"{"access_token":7}"#, "down"),
            ("{}", "down"),
            ("[]", "down"),
            ("<html>", "down"),
            (r#"{"access_token":"t"#, "down"),
            ("", "down"),
        ] {
            check(200, body, expected);
        }
    }

    #[test]
    fn what_passes() {
        for (status, body) in [
            (503, ""),
            (503, r#"{"error":"invalid_client"}"#),
            (429, r#"{"error":"x"}"#),
            (408, r#"{"error":"x"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"error":{"code":400}}"#),
            (400, "<html>"),
            (302, "{}"),
            (404, ""),
        ] {
            check(status, body, "down");
        }
        for code in [90_006, 90_012, 90_024, 90_033, 90_055, 90_090] {
            check(
                400,
                &format!(r#"{{"error":"invalid_request","error_codes":[{code}]}}"#),
                "down",
            );
            check(
                400,
                &format!(r#"{{"error":"x","error_description":"AADSTS{code}: words"}}"#),
                "down",
            );
        }
    }

    /// Each code of the facts, with the words that name what is broken.
    #[test]
    fn every_code_has_its_remedy() {
        for (code, words) in [
            (7_000_215, "client secret is wrong"),
            (
                7_000_222,
                "client secret expired; create a new one under Certificates & secrets",
            ),
            (700_016, "no such application in this tenant"),
            (700_011, "no such application in this tenant"),
            (90_002, "no such tenant"),
            (7_000_218, "no credential"),
            (700_027, "certificate is not the one that is registered"),
            (700_024, "clock"),
            (50_012, "clock"),
            (50_013, "clock"),
            (7_000_112, "switched off"),
            (500_011, "admin consent"),
            (650_056, "admin consent"),
            (650_057, "admin consent"),
            (65_001, "admin consent"),
            (70_011, "scope"),
            (9_001_023, "tenant itself"),
            (900_382, "another cloud"),
            (900_432, "another cloud"),
            (90_038, "another cloud"),
            (50_034, "user is not in this tenant"),
            (53_003, "Conditional Access"),
            (50_076, "second factor"),
            (700_082, "refresh token is no longer valid"),
            (700_213, "federated credential"),
            (500_021, "restricts which tenants"),
        ] {
            let text = found(
                401,
                &format!(r#"{{"error":"invalid_client","error_codes":[{code}]}}"#),
                false,
            );
            let start = format!("misconfigured no token (invalid_client, AADSTS{code}): ");
            assert!(text.starts_with(&start) && text.contains(words), "{text}");
        }
    }

    #[test]
    fn every_error_has_its_remedy() {
        for (error, said, words) in [
            ("invalid_client", "", "credentials of the application"),
            ("invalid_grant", "", "sign in again"),
            (
                "invalid_grant",
                "Invalid JWT: token must be short-lived",
                "clock",
            ),
            ("unauthorized_client", "", "Domain-wide delegation"),
            ("invalid_scope", "", "scope"),
            ("invalid_request", "", "token_url"),
            ("unsupported_grant_type", "", "token_url"),
            ("invalid_resource", "", "scope and cloud"),
            ("interaction_required", "", "consent"),
            ("access_denied", "", "policy"),
            ("never_heard_of", "", "credentials of this connector"),
        ] {
            let body = format!(r#"{{"error":"{error}","error_description":"{said}"}}"#);
            let text = found(400, &body, false);
            let start = format!("misconfigured no token ({error}): ");
            assert!(text.starts_with(&start) && text.contains(words), "{text}");
        }
        // A code that nobody knows, and one that is known behind it.
        check(
            400,
            r#"{"error":"invalid_grant","error_codes":[1]}"#,
            "misconfigured no token (invalid_grant, AADSTS1): the grant",
        );
        check(
            400,
            r#"{"error":"invalid_grant","error_codes":[1,53003]}"#,
            "misconfigured no token (invalid_grant, AADSTS53003): a Conditional",
        );
    }

    #[test]
    fn nothing_else_is_repeated() {
        let text = found(
            401,
            r#"{"error":"\u001b[31minvalid","error_description":"AADSTS7000222: hunter2","error_uri":"hunter2","trace_id":"0f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0","correlation_id":"hunter2"}"#,
            false,
        );
        assert!(
            text.starts_with(
                "misconfigured no token (31minvalid, AADSTS7000222): the client secret expired"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("; trace_id 0f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0"),
            "{text}"
        );
    }

    #[test]
    fn the_metadata_service() {
        for (status, body, expected) in [
            (404, "", "down"),
            (410, "", "down"),
            (429, "", "down"),
            (500, "", "down"),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                "misconfigured no token: this machine has no such managed identity",
            ),
            (
                200,
                r#"{"access_token":"t","expires_in":"86399","expires_on":"1"}"#,
                "token t 86399 -",
            ),
        ] {
            let found = found(status, body, true);
            assert!(found.starts_with(expected), "{status} {found}");
        }
    }
}
