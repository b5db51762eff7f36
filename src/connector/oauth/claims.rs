//! What a token says of itself, for telling an administrator what is missing.
//!
//! Nothing is decided by it: a token is for its resource alone to judge, it is not verified here, and one that says
//! nothing may be good.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Claims that are shown, at most.
const SHOWN: usize = 10;

/// Services of Microsoft, by the audience of their tokens: the host of their URL or their application ID.
const SERVICES: &[(&str, &[&str])] = &[
    (
        GRAPH,
        &[
            "graph.microsoft.com",
            "graph.microsoft.us",
            "dod-graph.microsoft.us",
            "microsoftgraph.chinacloudapi.cn",
            "00000003-0000-0000-c000-000000000000",
        ],
    ),
    (
        EXCHANGE,
        &[
            "outlook.office365.com",
            "outlook.office.com",
            "outlook.office365.us",
            "outlook.office.us",
            "partner.outlook.cn",
            "00000002-0000-0ff1-ce00-000000000000",
        ],
    ),
    (
        "Azure AD Graph",
        &[
            "graph.windows.net",
            "graph.chinacloudapi.cn",
            "00000002-0000-0000-c000-000000000000",
        ],
    ),
    (
        "the management of Azure",
        &[
            "management.azure.com",
            "management.core.windows.net",
            "management.usgovcloudapi.net",
            "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        ],
    ),
    ("Azure Key Vault", &["vault.azure.net"]),
    ("Azure Storage", &["storage.azure.com"]),
    ("Azure Communication Services", &["communication.azure.com"]),
    ("a federated credential", &["azureadtokenexchange"]),
];
/// The name of Graph in the table.
const GRAPH: &str = "Microsoft Graph";
/// The name of Exchange Online in the table.
pub(crate) const EXCHANGE: &str = "Exchange Online";

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
        let claims = content(token)?;
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

    /// Which of Microsoft's services it is for, where that is known.
    pub fn service(&self) -> Option<&'static str> {
        service(&self.audience)
    }

    /// It is for the service that `scope` names, or that is asked at `host`. What says nothing may be.
    pub fn is_for(&self, scope: &str, host: &str) -> bool {
        let (audience, wanted) = (resource(&self.audience), resource(scope));
        let asked = service(host).or_else(|| service(&wanted));
        if audience.is_empty() || audience.eq_ignore_ascii_case(host) {
            return true;
        }
        let is_id = audience.split('-').count() == 5 && !audience.contains('.');
        match (self.service(), asked) {
            // The application's ID of a service stands for any of its hosts; hosts are of one cloud.
            (Some(is), Some(asked)) => {
                is == asked && (is_id || service(host).is_none() && audience == wanted)
            }
            // A service of somebody's own may be named by its ID.
            (None, None) => is_id || audience == wanted,
            (Some(_), None) | (None, Some(_)) => false,
        }
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

/// The end of a JWT (RFC 7519 §4.1.4), in seconds since 1970.
pub(super) fn ends(token: &str) -> Option<u64> {
    content(token)?.get("exp")?.as_u64()
}

/// The middle part of a JWT.
fn content(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(body), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let octets = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&octets).ok()
}

fn service(audience: &str) -> Option<&'static str> {
    let audience = resource(audience);
    SERVICES
        .iter()
        .find(|(_, audiences)| audiences.contains(&audience.as_str()))
        .map(|(name, _)| *name)
}

/// `https://HOST/.default` and what else stands for HOST.
fn resource(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let text = text.split(' ').next().unwrap_or_default();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.strip_suffix(".default").unwrap_or(text);
    text.split('/').next().unwrap_or_default().to_owned()
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
    fn whom_a_token_is_for() {
        const GLOBAL: &str = "https://graph.microsoft.com/.default";
        for (audience, scope, host, expected) in [
            ("", GLOBAL, "graph.microsoft.com", true),
            (
                "https://graph.microsoft.com",
                GLOBAL,
                "graph.microsoft.com",
                true,
            ),
            ("https://graph.microsoft.com/", GLOBAL, "127.0.0.1", true),
            (
                "00000003-0000-0000-c000-000000000000",
                GLOBAL,
                "graph.microsoft.com",
                true,
            ),
            // The resource of a managed identity.
            (
                "https://graph.microsoft.com",
                "https://graph.microsoft.com/",
                "127.0.0.1",
                true,
            ),
            (
                "https://outlook.office365.com",
                GLOBAL,
                "graph.microsoft.com",
                false,
            ),
            ("https://outlook.office365.com", GLOBAL, "127.0.0.1", false),
            (
                "https://outlook.office365.com",
                "https://outlook.office365.com/.default",
                "127.0.0.1",
                true,
            ),
            (
                "https://outlook.office365.com",
                "https://outlook.office365.com/.default",
                "graph.microsoft.com",
                false,
            ),
            (
                "00000002-0000-0ff1-ce00-000000000000",
                GLOBAL,
                "graph.microsoft.com",
                false,
            ),
            ("https://management.azure.com/", GLOBAL, "127.0.0.1", false),
            (
                "https://graph.microsoft.us",
                GLOBAL,
                "graph.microsoft.com",
                false,
            ),
            (
                "https://graph.microsoft.com",
                "https://graph.microsoft.us/.default",
                "graph.microsoft.us",
                false,
            ),
            (
                "https://other.example",
                GLOBAL,
                "graph.microsoft.com",
                false,
            ),
            (
                "api://own",
                "api://own/.default",
                "graph.corp.example",
                true,
            ),
            (
                "11111111-2222-3333-4444-555555555555",
                "api://own/.default",
                "graph.corp.example",
                true,
            ),
            (
                "https://other.example",
                "api://own/.default",
                "graph.corp.example",
                false,
            ),
        ] {
            let claims = Claims {
                audience: audience.into(),
                may: Vec::new(),
            };
            assert_eq!(
                claims.is_for(scope, host),
                expected,
                "{audience} {scope} {host}"
            );
        }
    }

    #[test]
    fn opaque_tokens() {
        for token in ["", "ya29.a0", "a.b.c", "a.e30.c.d", "..", "e30.e30"] {
            assert_eq!(Claims::read(token), None, "{token}");
        }
    }
}
