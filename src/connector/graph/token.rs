//! Why Graph does not accept a token, and what to do about it.
//!
//! It is pure. 401 is one status for many causes, of which few are the token's: the tenant, the permission,
//! a policy, or something in between that wants a login of its own. `error.code` and the challenge (RFC 9110 §11.6.1) decide; the
//! message only says which cause of `InvalidAuthenticationToken` stands first.

use serde_json::Value;

use super::codes::{AUDIENCE, CLOCK, NO_PERMISSION, TOKEN, Topic, row_of};
use crate::mail::cause;

/// What a 401 comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// Ours: the remedy.
    Known(&'static str),
    /// The token, without a reason.
    Token,
    /// It is not Graph that answered.
    Between,
}

/// Codes that are about the token under 401 alone, and about the mailbox elsewhere; all others stand in `codes`.
const UNDER_401: [&str; 2] = ["ErrorAccessDenied", "Authorization_RequestDenied"];

const POLICY: &str = cause::CLAIMS_CHALLENGE.text;
const UNKNOWN: &str = "Graph does not say why; most often the tenant has no Exchange Online (give it a subscription), or the mailbox is not in it; also check tenant_id";

/// Words of the message of `InvalidAuthenticationToken` that tell its causes apart.
const REASONS: &[(&str, &str)] = &[
    ("continuous access evaluation", POLICY),
    ("audience", AUDIENCE),
    ("expired", CLOCK),
    ("lifetime validation", CLOCK),
    ("not yet valid", CLOCK),
];

/// Reads a 401. `challenge` is its WWW-Authenticate.
pub(super) fn denial(body: &[u8], challenge: Option<&str>) -> Denial {
    let challenge = challenge.unwrap_or_default().to_ascii_lowercase();
    let bears = challenge.split([' ', ',']).any(|word| word == "bearer");
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let content: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
    if challenge.contains("insufficient_claims") {
        return Denial::Known(POLICY);
    }
    let Some(content) = content else {
        let is_page = !body.trim_ascii().is_empty();
        let is_other = !bears && (is_page || !challenge.is_empty());
        return if is_other {
            Denial::Between
        } else {
            Denial::Token
        };
    };
    let mut codes = Vec::new();
    let mut error = content.get("error");
    let message = error
        .and_then(|error| error.get("message")?.as_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    while let (Some(inner), true) = (error, codes.len() < 8) {
        codes.push(
            inner
                .get("code")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        error = ["innererror", "innerError"]
            .into_iter()
            .find_map(|key| inner.get(key));
    }
    let known = |code: &&str| {
        if UNDER_401.iter().any(|name| name.eq_ignore_ascii_case(code)) {
            return Some(NO_PERMISSION);
        }
        let row = row_of(code).filter(|row| row.about == Topic::Token && row.why != TOKEN)?;
        Some(row.why)
    };
    if let Some(remedy) = codes.iter().rev().find_map(known) {
        return Denial::Known(remedy);
    }
    if codes.first().is_some_and(|code| *code == "UnknownError") {
        return Denial::Known(UNKNOWN);
    }
    let reason = REASONS.iter().find(|(words, _)| message.contains(words));
    reason.map_or(Denial::Token, |(_, remedy)| Denial::Known(remedy))
}

#[cfg(test)]
mod tests {
    use super::{super::codes::TENANT, *};

    fn check(body: &str, challenge: Option<&str>, expected: Denial) {
        assert_eq!(
            denial(body.as_bytes(), challenge),
            expected,
            "{body} {challenge:?}"
        );
    }

    fn error(code: &str, message: &str) -> String {
        format!(
            r#"{{"error":{{"code":"{code}","message":"{message}","innerError":{{"request-id":"r"}}}}}}"#
        )
    }

    #[test]
    fn each_401_has_its_cause() {
        let bearer = Some("Bearer realm=\"\", authorization_uri=\"https://login.example/\"");
        for (code, message, expected) in [
            (
                "NoPermissionsInAccessToken",
                "m",
                Denial::Known(NO_PERMISSION),
            ),
            (
                "OrganizationFromTenantGuidNotFound",
                "m",
                Denial::Known(TENANT),
            ),
            ("UnknownError", "", Denial::Known(UNKNOWN)),
            (
                "InvalidAuthenticationToken",
                "Access token validation failure. Invalid audience.",
                Denial::Known(AUDIENCE),
            ),
            (
                "InvalidAuthenticationToken",
                "Lifetime validation failed, the token is expired.",
                Denial::Known(CLOCK),
            ),
            (
                "InvalidAuthenticationToken",
                "Continuous access evaluation resulted in challenge",
                Denial::Known(POLICY),
            ),
            (
                "InvalidAuthenticationToken",
                "CompactToken parsing failed",
                Denial::Token,
            ),
            ("NeverHeardOf", "m", Denial::Token),
        ] {
            check(&error(code, message), None, expected);
            check(&error(code, message), bearer, expected);
        }
        check(
            r#"{"error":{"code":"Unauthorized","innererror":{"code":"NoPermissionsInAccessToken"}}}"#,
            None,
            Denial::Known(NO_PERMISSION),
        );
        // The challenge of continuous access evaluation.
        check(
            &error("InvalidAuthenticationToken", "m"),
            Some(
                "Bearer realm=\"\", error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnt9fQ==\"",
            ),
            Denial::Known(POLICY),
        );
    }

    #[test]
    fn a_login_that_is_not_graphs() {
        check("<html>sign in</html>", None, Denial::Between);
        check(
            "<html>sign in</html>",
            Some("Basic realm=\"proxy\""),
            Denial::Between,
        );
        check("", Some("Negotiate"), Denial::Between);
        check("", Some("NTLM"), Denial::Between);
        check("", None, Denial::Token);
        check("", Some("Bearer"), Denial::Token);
        check("{}", None, Denial::Token);
    }
}
