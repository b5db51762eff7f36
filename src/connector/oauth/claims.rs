//! What a token says of itself, for telling an administrator what is missing.
//!
//! Apart because nothing is decided by it: a token is for its resource alone to judge, it is not verified here, and one that says
//! nothing may be good.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Claims that are shown, at most.
const SHOWN: usize = 10;

/// The claims of a token of Entra that concern sending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The resource it is for.
    pub audience: String,
    /// Application permissions (`roles`) and delegated ones (`scp`).
    pub may: Vec<String>,
}

impl Claims {
    /// Reads the middle part of a JWT; `None`: the token is opaque, as Google's are.
    pub(super) fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(body), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let octets = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
        let claims: Value = serde_json::from_slice(&octets).ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let roles = claims.get("roles").and_then(Value::as_array);
        let roles = roles.into_iter().flatten().filter_map(Value::as_str);
        let scopes = text("scp").into_iter().flat_map(str::split_whitespace);
        Some(Self {
            audience: word(text("aud").unwrap_or_default()),
            may: roles
                .chain(scopes)
                .map(word)
                .filter(|w| !w.is_empty())
                .collect(),
        })
    }

    /// It names this permission.
    pub fn names(&self, permission: &str) -> bool {
        self.may.iter().any(|m| m.eq_ignore_ascii_case(permission))
    }

    /// What is missing, in words: `needed` are the permissions of which one would do. `None`: nothing is.
    pub fn missing(&self, needed: &[&str]) -> Option<String> {
        if self.may.is_empty() {
            return Some(
                "the token names no roles, which is right under RBAC for Applications: Test-ServicePrincipalAuthorization says what Exchange will decide"
                    .to_owned(),
            );
        }
        if needed.iter().any(|n| self.names(n)) {
            return None;
        }
        let named: Vec<&str> = self.may.iter().take(SHOWN).map(String::as_str).collect();
        Some(format!(
            "the token may {}, but not {}",
            named.join(", "),
            needed.join(" or ")
        ))
    }
}

/// Nothing longer or stranger than the name of a permission or a resource.
fn word(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':'))
        .take(80)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn what_is_missing() {
        fn check(claims: &str, needed: &[&str], expected: Option<&str>) {
            let found = Claims::read(&token(claims)).unwrap().missing(needed);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(expected)) if found.starts_with(expected) => {}
                _ => panic!("{claims}: {found:?}"),
            }
        }
        let send = ["Mail.Send"];
        check(r#"{"roles":["Mail.Send"]}"#, &send, None);
        check(
            r#"{"roles":["User.Read.All","mail.send"],"scp":7}"#,
            &send,
            None,
        );
        check(r#"{"scp":"SMTP.Send openid"}"#, &["SMTP.Send"], None);
        check(
            "{}",
            &send,
            Some("the token names no roles, which is right"),
        );
        check(r#"{"roles":[]}"#, &send, Some("the token names no roles"));
        check(
            r#"{"roles":["Mail.Read","x\u001b[2J y"]}"#,
            &send,
            Some("the token may Mail.Read, x2Jy, but not Mail.Send"),
        );
        check(
            r#"{"roles":["Mail.Send"]}"#,
            &["SMTP.SendAsApp", "SMTP.Send"],
            Some("the token may Mail.Send, but not SMTP.SendAsApp or SMTP.Send"),
        );
        let aud = Claims::read(&token(r#"{"aud":"https://graph.microsoft.com"}"#)).unwrap();
        assert_eq!(aud.audience, "https://graph.microsoft.com");
    }

    #[test]
    fn opaque_tokens() {
        for token in ["", "ya29.a0", "a.b.c", "a.e30.c.d", "..", "e30.e30"] {
            assert_eq!(Claims::read(token), None, "{token}");
        }
    }
}
