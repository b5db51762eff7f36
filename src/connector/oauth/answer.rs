//! What a token endpoint answered: a token, a fault that passes, or one that an administrator must repair.
//!
//! It is pure: from status, `error`, the code and who asked to an obstacle with the remedy in words. The codes are the table
//! in `codes`. `error` and the code decide, never the description (which the provider may change); it only says which of the causes of
//! one and the same error stands first. Of what the endpoint says nothing is repeated but that word, the number and the two identifiers
//! that its support asks for, and, where nobody knows the code, the first line of the description.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{
    codes::{self, KnownCode, word},
    grant::Grant,
};
use crate::{
    connector::http::Answer,
    mail::{
        cause,
        outcome::{Obstacle, ObstacleKind},
    },
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
    pub(super) obstacle: Obstacle,
    /// What was presented is no longer valid; another refresh token may be.
    pub(super) is_grant: bool,
}

/// A token without a time is used for so long (RFC 6749 §5.1 allows it; Entra and Google always say).
const UNSAID: u64 = 300;

/// What is not too often for an endpoint that wants less, where it names no time.
const LESS: Duration = Duration::from_mins(1);
/// Octets of a description that are shown.
const SAID: usize = 200;

/// Reads an answer.
pub(super) fn read(
    answer: &Answer,
    grant: &Grant,
    retry_after: Option<Duration>,
) -> Result<Granted, Refused> {
    if !answer.whole && answer.status.is_success() {
        return Err(down(
            "the token endpoint's answer broke off, or is longer than 1 MiB".into(),
            retry_after,
        ));
    }
    let status = answer.status.as_u16();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    parse(status, &answer.body, grant, retry_after, now)
}

fn down(text: String, retry_after: Option<Duration>) -> Refused {
    Refused {
        obstacle: Obstacle::down(text).after(retry_after),
        is_grant: false,
    }
}

fn ours(text: String) -> Refused {
    Refused {
        obstacle: Obstacle::misconfigured(text),
        is_grant: false,
    }
}

fn parse(
    status: u16,
    body: &[u8],
    grant: &Grant,
    retry_after: Option<Duration>,
    now: u64,
) -> Result<Granted, Refused> {
    let down = |text: String| Err(down(text, retry_after));
    // It is being updated (404, 410), or is asked too often.
    if matches!(grant, Grant::ManagedIdentity { .. }) && matches!(status, 404 | 410) {
        return down(format!(
            "the metadata service answered {status}; it may be being updated, or: {}",
            cause::IDENTITY_MISSING.text
        ));
    }
    if (300..400).contains(&status) {
        return down(format!(
            "the token endpoint answered {status}, a redirect, which is not followed; correct login_url or token_url"
        ));
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let content = serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object);
    let Some(content) = content else {
        if matches!(grant, Grant::ManagedIdentity { .. }) && matches!(status, 400 | 401 | 403) {
            return Err(ours(of_identity(status, "", &Value::Null)));
        }
        return down(format!(
            "the token endpoint answered {status} with something that is not JSON; if the URL is right, {}",
            cause::PROXY_PAGE.text
        ));
    };
    if (200..300).contains(&status) {
        return granted(&content, now).map_err(|why| self::down(why.to_owned(), retry_after));
    }
    let error = content.get("error").and_then(Value::as_str);
    let error = word(error.unwrap_or_default());
    let codes = codes(&content);
    let known = codes
        .iter()
        .find_map(|code| Some((*code, codes::known(*code)?)));
    let code = known.map(|(code, _)| code).or(codes.first().copied());
    let mut shown = error.clone();
    if let Some(code) = code {
        if !shown.is_empty() {
            shown.push_str(", ");
        }
        let _ = write!(shown, "AADSTS{code}");
    }
    let passing = codes
        .iter()
        .filter_map(|code| codes::known(*code))
        .find(|known| known.kind != ObstacleKind::Misconfigured);
    if let Some(known) = passing {
        let wait = (known.kind == ObstacleKind::Throttled).then_some(LESS);
        let text = format!(
            "the token endpoint answered {status} ({shown}): {}",
            known.remedy
        );
        return Err(self::down(text, retry_after.or(wait)));
    }
    let passes = matches!(status, 408 | 425 | 429 | 500..)
        || matches!(
            error.as_str(),
            "temporarily_unavailable" | "server_error" | "slow_down" | "rate_limit_exceeded"
        );
    if passes {
        return down(format!("the token endpoint answered {status} ({shown})"));
    }
    if matches!(grant, Grant::ManagedIdentity { .. }) && known.is_none() {
        return Err(ours(of_identity(status, &shown, &content)));
    }
    if error.is_empty() && codes.is_empty() {
        return down(format!(
            "the token endpoint answered {status} with JSON that is not a token endpoint's; if the URL is right, {}",
            cause::PROXY_PAGE.text
        ));
    }
    let mut text = format!(
        "no token ({shown}): {}",
        remedy(known.map(|(_, known)| known), code, &error, &content, grant)
    );
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

fn granted(content: &Value, now: u64) -> Result<Granted, &'static str> {
    let usable = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let text = |key: &str| content.get(key).and_then(Value::as_str).filter(usable);
    let token =
        text("access_token").ok_or("the token endpoint answered without a usable access_token")?;
    if let Some(kind) = content.get("token_type")
        && !kind
            .as_str()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))
    {
        return Err("the token endpoint gave a token that is not a bearer token");
    }
    // Azure's hosting says when it ends, in seconds since 1970, and not how long it lasts.
    let ends = content.get("expires_on").and_then(number);
    let left = ends
        .map(|ends| ends.saturating_sub(now))
        .filter(|left| *left > 0);
    let seconds = content.get("expires_in").and_then(number).or(left);
    let seconds = seconds.unwrap_or(UNSAID);
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

/// What to do, with the cause first that the description names, and the endpoint's own words where nobody knows the code.
fn remedy(
    known: Option<&KnownCode>,
    code: Option<u64>,
    error: &str,
    content: &Value,
    grant: &Grant,
) -> String {
    let said = said(content);
    let lower = said.to_ascii_lowercase();
    match (known, code) {
        // The reason in brackets; the code is the same for all three.
        (_, Some(700_027)) if lower.contains("expired") => cause::CERTIFICATE_EXPIRED.text.into(),
        (_, Some(700_027))
            if lower.contains("not yet valid") || lower.contains("not valid yet") =>
        {
            cause::CERTIFICATE_EARLY.text.into()
        }
        (Some(known), _) => known.remedy.into(),
        // A challenge of Conditional Access (learn.microsoft.com/entra/identity-platform/v2-conditional-access-dev-guide).
        (None, _) if content.get("claims").is_some() => cause::ACCESS_POLICY_ENTRA.text.into(),
        (None, code) => {
            let words = of_error(error, &lower, content, grant);
            let is_known = code.is_none() && words.is_some();
            let words = words.unwrap_or("correct the credentials of this connector");
            match first_line(said) {
                line if is_known || line.is_empty() => words.to_owned(),
                line => format!("{words}; the endpoint says: {line}"),
            }
        }
    }
}

fn said(content: &Value) -> &str {
    ["error_description", "message"]
        .into_iter()
        .find_map(|key| content.get(key)?.as_str())
        .unwrap_or_default()
}

/// The first line of a description, printable. Long words, which may be anything, are left out.
fn first_line(said: &str) -> String {
    let line = said.trim_start().lines().next().unwrap_or_default();
    let words = line.split_whitespace().map(|word| {
        let fine = word.len() <= 64 && word.chars().all(|c| c.is_ascii_graphic());
        if fine { word } else { "***" }
    });
    let mut out = String::new();
    for word in words {
        if out.len() + word.len() > SAID {
            out.push_str(" ...");
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The metadata service of Azure's machines, of its hosting and of Arc: its refusals have no codes.
fn of_identity(status: u16, shown: &str, content: &Value) -> String {
    let said = said(content);
    let lower = said.to_ascii_lowercase();
    let why = match status {
        _ if lower.contains("multiple user assigned") => {
            "this machine has several identities; write managed_identity = \"CLIENT ID\""
        }
        _ if shown.contains("invalid_resource") || shown.contains("invalid_scope") => {
            "the metadata service does not know what the token is for; remove `scope`, and check cloud"
        }
        401 | 403 => {
            "the metadata service does not let this process ask; on an Azure Arc machine its user must be in the group himds, and there must be no proxy in between"
        }
        _ if lower.contains("header") => {
            "a header of the request did not reach the metadata service; check that there is no proxy in between"
        }
        _ if lower.is_empty()
            || lower.contains("not found")
            || lower.contains("no user assigned")
            || lower.contains("no managed") =>
        {
            cause::IDENTITY_MISSING.text
        }
        _ => {
            let line = first_line(said);
            let met = format!("no token: the metadata service refuses: {line}");
            return cause::IDENTITY_MISSING.at(met);
        }
    };
    format!("no token: {why}")
}

/// What to do about an `error` (RFC 6749 §5.2) without a code that we know.
fn of_error(error: &str, said: &str, content: &Value, grant: &Grant) -> Option<&'static str> {
    let subtype = content.get("error_subtype").and_then(Value::as_str);
    Some(match (error, grant) {
        // Google has one word for all of it; which remedy stands first is all that hangs on the description
        // (developers.google.com/identity/protocols/oauth2/service-account, "JWT error codes").
        ("invalid_grant", Grant::GoogleServiceAccount { .. }) => of_service_account(said),
        ("invalid_grant", Grant::RefreshToken { .. }) if subtype == Some("invalid_rapt") => {
            "Google's session control has ended the sign-in of this user; sign in again and set the new refresh_token, and have this application exempted (Admin console, Google Cloud session control) [refresh-ended]"
        }
        ("invalid_grant", Grant::RefreshToken { .. }) => {
            "the refresh token is no longer accepted; sign in again and set the new refresh_token (Google ends those of an application in state \"Testing\" after 7 days) [refresh-ended]"
        }
        ("invalid_grant", Grant::Federated { .. }) => {
            "the token of federated_token_file is not accepted; check that it is being renewed, and compare issuer, subject and audience with the federated credential (case counts) [federated-mismatch]"
        }
        ("invalid_grant", _) => {
            "the credential is not accepted; see Sign-in logs (Service principal sign-ins) in Entra for the reason"
        }
        ("unauthorized_client" | "access_denied", Grant::GoogleServiceAccount { .. }) => {
            "the service account may not do that: give its client ID the scope https://mail.google.com/ under Domain-wide delegation in the Admin console; a change takes up to 24 hours [google-delegation]"
        }
        ("unauthorized_client", Grant::RefreshToken { .. }) => {
            "the refresh token was issued to another client; set client_id and client_secret to the ones it was made with, or sign in again and set the new refresh_token"
        }
        ("unauthorized_client", _) => {
            "this client may not do that; check client_id, tenant_id and consent"
        }
        ("deleted_client" | "disabled_client", _) => {
            "the client was deleted or switched off; make a new one and set client_id and its credential"
        }
        ("invalid_client", Grant::GoogleServiceAccount { .. }) => cause::GOOGLE_KEY.text,
        ("invalid_client", Grant::Certificate { .. }) => cause::CERTIFICATE_UNREGISTERED.text,
        ("invalid_client", Grant::Federated { .. }) => cause::FEDERATED_MISMATCH.text,
        ("invalid_client", _) => {
            "the credentials of the application are wrong; set client_id and client_secret anew"
        }
        ("invalid_scope", Grant::GoogleServiceAccount { .. } | Grant::RefreshToken { .. }) => {
            cause::SCOPE_WRONG.text
        }
        ("invalid_scope", _) => cause::SCOPE_WRONG.text,
        ("invalid_resource" | "invalid_target", _) => cause::RESOURCE_UNKNOWN.text,
        ("unsupported_grant_type" | "invalid_request", _) => {
            "the endpoint does not understand the request; check token_url or login_url, tenant_id and client_id"
        }
        (
            "interaction_required" | "consent_required" | "login_required",
            Grant::RefreshToken { .. },
        ) => {
            "somebody must sign in or consent; sign in again and set the new refresh_token, or grant admin consent"
        }
        ("interaction_required" | "consent_required" | "login_required", _) => {
            "the application has no consent, or a Conditional Access policy blocks it; grant admin consent, and see Sign-in logs in Entra"
        }
        ("access_denied" | "admin_policy_enforced" | "org_internal", _) => {
            "an administrator's policy forbids it; allow the application for this mailbox"
        }
        _ => return None,
    })
}

/// Google's reasons for refusing what a service account signed.
fn of_service_account(said: &str) -> &'static str {
    let names = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if names(&["signature"]) {
        "the signature is not by a key of this service account: the key was deleted, or is another account's; create a new JSON key for it and set service_account_file [google-key]"
    } else if names(&["short-lived", "timeframe", "iat and exp", "expired"]) {
        cause::CLOCK.text
    } else if names(&["audience"]) {
        "the assertion is for another endpoint; remove `token_url`"
    } else if names(&["email", "user id"]) {
        "there is no such mailbox in this Workspace; correct subject, which is a user of it and not an alias or a group [google-subject]"
    } else if names(&[
        "account not found",
        "not a service account",
        "issuer",
        "deleted",
        "disabled",
    ]) {
        "the service account was deleted or switched off; make a new one, or enable it, and set service_account_file [google-key]"
    } else {
        "the assertion of the service account is not accepted; check that subject is a mailbox of the Workspace, that the key of service_account_file was not deleted, its Domain-wide delegation, and this machine's clock"
    }
}

/// A number, also as a string.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::grant::Azure, *};

    fn client_secret() -> Grant {
        Grant::ClientSecret {
            client_id: String::new(),
            client_secret: Secret::default(),
            basic: false,
        }
    }

    fn certificate() -> Grant {
        Grant::Certificate {
            client_id: String::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
        }
    }

    fn managed_identity() -> Grant {
        Grant::ManagedIdentity {
            client_id: None,
            host: Azure::Machine,
        }
    }

    fn federated() -> Grant {
        Grant::Federated {
            client_id: String::new(),
            file: PathBuf::new(),
        }
    }

    fn service_account() -> Grant {
        Grant::GoogleServiceAccount {
            file: PathBuf::new(),
            subject: String::new(),
        }
    }

    fn refresh_token() -> Grant {
        Grant::RefreshToken {
            client_id: String::new(),
            client_secret: None,
            refresh_token: Secret::default(),
        }
    }

    fn found(status: u16, body: &str, grant: &Grant) -> String {
        match parse(status, body.as_bytes(), grant, None, 1000) {
            Ok(granted) => format!(
                "token {} {} {}",
                granted.token.reveal(),
                granted.lifetime.as_secs(),
                granted.rotated.as_ref().map_or("-", Secret::reveal)
            ),
            Err(Refused { obstacle, .. }) => {
                format!("{} {}", obstacle.kind.as_str(), obstacle.reply.text)
            }
        }
    }

    fn check(status: u16, body: &str, expected: &str) {
        let found = found(status, body, &client_secret());
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
            (700_027, "not registered"),
            (1_000_502, "expired"),
            (7_000_214, "revoked"),
            (70_021, "federated credential"),
            (700_211, "issuer, subject and audience"),
            (700_212, "federated credential"),
            (7_002_138, "case counts"),
            (700_223, "federated credential"),
            (70_025, "no federated credential"),
            (501_661, "federated credential's issuer"),
            (500_014, "disabled or not subscribed"),
            (650_052, "disabled or not subscribed"),
            (5_000_225, "blocked"),
            (7_000_232, "managed_identity"),
            (700_024, "clock"),
            (50_012, "not registered"),
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
                &certificate(),
            );
            let start = format!("misconfigured no token (invalid_client, AADSTS{code}): ");
            assert!(text.starts_with(&start) && text.contains(words), "{text}");
        }
    }

    /// The table of the usual mistakes.
    #[test]
    fn every_code_of_a_usual_mistake_names_it() {
        for (cause, codes) in [
            ("clock", &[700_024, 500_133][..]),
            ("tenant-restricted", &[500_021, 500_022]),
            ("secret-wrong", &[7_000_215]),
            ("secret-expired", &[7_000_222]),
            (
                "credential-unseen",
                &[7_000_216, 7_000_218, 900_144, 90_014],
            ),
            ("tenant-unknown", &[90_002, 900_023, 50_059]),
            ("app-unknown", &[700_016, 700_011]),
            ("app-no-principal", &[7_000_229]),
            ("app-disabled", &[7_000_112, 7_000_114]),
            ("app-public", &[700_025]),
            ("tenant-common", &[9_001_023, 50_194]),
            ("cloud-wrong", &[900_382, 900_432, 90_038]),
            ("consent-missing", &[65_001, 90_094]),
            ("resource-unknown", &[500_011, 650_056, 650_057]),
            ("resource-off", &[500_014, 650_052]),
            ("scope-wrong", &[70_011, 1_002_012]),
            ("certificate-unregistered", &[700_027, 700_030, 50_012]),
            ("certificate-expired", &[1_000_502]),
            (
                "federated-mismatch",
                &[70_021, 700_211, 700_212, 700_213, 7_002_138, 700_223],
            ),
            (
                "access-policy-entra",
                &[
                    53_000, 53_001, 53_002, 53_003, 53_004, 530_032, 530_033, 530_034, 530_035,
                ],
            ),
            ("not-assigned", &[50_105, 501_051]),
            ("refresh-ended", &[700_082, 50_173, 70_008]),
            ("user-locked", &[50_053, 50_055, 50_057, 50_126]),
            ("second-factor", &[50_076, 50_079]),
        ] {
            for code in codes {
                let body = format!(
                    r#"{{"error":"invalid_client","error_codes":[{code}],"trace_id":"11111111-2222-3333-4444-555555555555"}}"#
                );
                let text = found(401, &body, &client_secret());
                let found = cause::Cause::of(&text).map(|cause| cause.word);
                assert_eq!(found, Some(cause), "{code}: {text}");
            }
        }
        for (grant, error, said, cause) in [
            (client_secret(), "invalid_scope", "", "scope-wrong"),
            (refresh_token(), "invalid_grant", "", "refresh-ended"),
            (
                service_account(),
                "unauthorized_client",
                "",
                "google-delegation",
            ),
            (
                service_account(),
                "invalid_grant",
                "Invalid email or User ID",
                "google-subject",
            ),
            (
                service_account(),
                "invalid_grant",
                "Invalid JWT Signature.",
                "google-key",
            ),
            (service_account(), "invalid_client", "", "google-key"),
            (
                certificate(),
                "invalid_client",
                "AADSTS700027: ... [Reason - The key used is expired.]",
                "certificate-expired",
            ),
        ] {
            let body = format!(r#"{{"error":"{error}","error_description":"{said}"}}"#);
            let text = found(400, &body, &grant);
            let found = cause::Cause::of(&text).map(|cause| cause.word);
            assert_eq!(found, Some(cause), "{text}");
        }
    }

    #[test]
    fn every_error_has_its_remedy() {
        for (grant, error, said, words) in [
            (client_secret(), "invalid_client", "", "client_secret"),
            (certificate(), "invalid_client", "", "certificate and key"),
            (federated(), "invalid_client", "", "federated credential"),
            (refresh_token(), "invalid_grant", "", "sign in again"),
            (client_secret(), "invalid_grant", "", "Sign-in logs"),
            (
                refresh_token(),
                "unauthorized_client",
                "Unauthorized",
                "another client",
            ),
            (
                service_account(),
                "unauthorized_client",
                "",
                "Domain-wide delegation",
            ),
            (
                service_account(),
                "access_denied",
                "Requested client not authorized.",
                "Domain-wide delegation",
            ),
            (client_secret(), "invalid_scope", "", "/.default"),
            (client_secret(), "invalid_request", "", "token_url"),
            (client_secret(), "unsupported_grant_type", "", "token_url"),
            (
                client_secret(),
                "invalid_resource",
                "",
                "`scope` out, check cloud",
            ),
            (client_secret(), "interaction_required", "", "consent"),
            (refresh_token(), "access_denied", "", "policy"),
            (
                client_secret(),
                "never_heard_of",
                "",
                "credentials of this connector",
            ),
        ] {
            let body = format!(r#"{{"error":"{error}","error_description":"{said}"}}"#);
            let text = found(400, &body, &grant);
            let start = format!("misconfigured no token ({error}): ");
            assert!(text.starts_with(&start) && text.contains(words), "{text}");
        }
        check(
            400,
            r#"{"error":"invalid_grant","claims":"{}"}"#,
            "misconfigured no token (invalid_grant): Conditional Access",
        );
        // A code that nobody knows, and one that is known behind it.
        check(
            400,
            r#"{"error":"invalid_grant","error_codes":[1]}"#,
            "misconfigured no token (invalid_grant, AADSTS1): the credential",
        );
        check(
            400,
            r#"{"error":"invalid_grant","error_codes":[1,53003]}"#,
            "misconfigured no token (invalid_grant, AADSTS53003): Conditional Access",
        );
    }

    /// None of what Google says of a service account is healed by another refresh token, and the clock is to blame for one alone.
    #[test]
    fn a_service_account_is_told_what_is_wrong_with_it() {
        for (said, words, is_clock) in [
            ("Invalid JWT Signature.", "key was deleted", false),
            (
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.",
                "clock",
                true,
            ),
            ("Invalid JWT: Failed audience check.", "token_url", false),
            ("Invalid email or User ID", "correct subject", false),
            ("Not a valid email or user ID.", "correct subject", false),
            ("Invalid grant: account not found", "deleted", false),
            (
                "Invalid issuer: Not a service account.",
                "service account",
                false,
            ),
            ("something new", "Domain-wide delegation", true),
        ] {
            let body = format!(r#"{{"error":"invalid_grant","error_description":"{said}"}}"#);
            let text = found(400, &body, &service_account());
            assert!(text.contains(words), "{text}");
            assert!(!text.contains("refresh_token"), "{text}");
            assert_eq!(text.contains("clock"), is_clock, "{text}");
        }
    }

    #[test]
    fn the_reason_of_700027_stands_first() {
        for (said, words) in [
            (
                "[Reason - The key used is expired., Thumbprint …]",
                "the certificate has expired",
            ),
            (
                "[Reason - The key used is not yet valid.]",
                "the certificate is not valid yet",
            ),
            (
                "[Reason - The key was not found.]",
                "the certificate is not registered",
            ),
        ] {
            let body = format!(
                r#"{{"error":"invalid_client","error_description":"AADSTS700027: Client assertion contains an invalid signature. {said}","error_codes":[700027]}}"#
            );
            let text = found(401, &body, &certificate());
            let start = format!("misconfigured no token (invalid_client, AADSTS700027): {words}");
            assert!(text.starts_with(&start), "{text}");
        }
    }

    #[test]
    fn an_unknown_code_is_shown_with_its_first_line() {
        let long = "x".repeat(100);
        let body = format!(
            r#"{{"error":"invalid_request","error_description":"AADSTS123456789: The \u001b[31mflux\u001b[0m is low {long} today.\r\nTrace ID: secret\r\n","error_codes":[123456789]}}"#
        );
        assert_eq!(
            found(400, &body, &client_secret()),
            "misconfigured no token (invalid_request, AADSTS123456789): the endpoint does not understand the request; check token_url or login_url, tenant_id and client_id; the endpoint says: AADSTS123456789: The *** is low *** today."
        );
    }

    /// What stands between us and the endpoint is not the administrator's credential.
    #[test]
    fn a_page_in_the_endpoints_place_is_not_the_credential() {
        for status in [200, 400, 401, 403, 404, 407, 502, 511] {
            for body in [
                "<html>blocked</html>",
                "",
                "\u{feff}<!doctype html>",
                "blocked",
            ] {
                check(status, body, "down the token endpoint answered ");
            }
        }
        check(
            403,
            "<html>",
            "down the token endpoint answered 403 with something that is not JSON; if the URL is right, something in between answered",
        );
        check(
            403,
            r#"{"blocked":true}"#,
            "down the token endpoint answered 403 with JSON",
        );
    }

    #[test]
    fn nothing_else_is_repeated() {
        let text = found(
            401,
            r#"{"error":"\u001b[31minvalid","error_description":"AADSTS7000222: hunter2","error_uri":"hunter2","trace_id":"0f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0","correlation_id":"hunter2"}"#,
            &client_secret(),
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
                r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}"#,
                "misconfigured no token: this machine has several identities",
            ),
            (
                400,
                r#"{"error":"invalid_resource","error_description":"AADSTS500011: words"}"#,
                "misconfigured no token (invalid_resource, AADSTS500011): the tenant does not know the resource",
            ),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Required metadata header not specified"}"#,
                "misconfigured no token: a header",
            ),
            (
                400,
                r#"{"statusCode":400,"message":"No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."}"#,
                "misconfigured no token: there is no such managed identity",
            ),
            (
                403,
                "",
                "misconfigured no token: the metadata service does not let",
            ),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                "misconfigured no token: there is no such managed identity",
            ),
            (
                200,
                r#"{"access_token":"t","expires_on":"1600"}"#,
                "token t 600 -",
            ),
            (
                200,
                r#"{"access_token":"t","expires_in":"86399","expires_on":"1"}"#,
                "token t 86399 -",
            ),
        ] {
            let found = found(status, body, &managed_identity());
            assert!(found.starts_with(expected), "{status} {found}");
        }
    }
}
