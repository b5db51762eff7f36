//! Who asks for a token, and what proves it: the form of each grant, with assertions signed here.
//!
//! When to ask is decided in `source`. Keys are read at load, so that one that cannot be used is a problem of the
//! configuration, and again for every request, since certificates are renewed and federated tokens rotate.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::{
    claims,
    codes::word,
    keys::{ApplicationPair, rsa_key, sha256, sign, text},
};
use crate::{
    connector::http::HttpSettings,
    mail::{cause, reply::Reply, time},
    secret::Secret,
    smtp::client::mask::Mask,
};

/// An assertion is good for so long (Entra wants 5 to 10 minutes, Google at most an hour).
const ASSERTION: Duration = Duration::from_mins(8);
/// No token of a platform is larger.
const FEDERATED: u64 = 1 << 20;
const CLIENT_CREDENTIALS: &str = "client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How tokens are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The token endpoint (of the metadata service for a managed identity).
    pub token_url: String,
    /// What the token is for; the resource for a managed identity.
    pub scope: String,
    /// Who asks.
    pub grant: Grant,
    /// When the client secret ends, as the file says it: the endpoint tells nobody.
    pub secret_ends: Option<SystemTime>,
    /// The gateway replaces the application's certificate by itself.
    pub rotation: Option<RotationSettings>,
    /// How to get there.
    pub http: HttpSettings,
}

/// `rotate`, and what it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationSettings {
    /// `rotate_retire`.
    pub retire: Duration,
    /// Graph, without its version.
    pub graph_url: String,
    /// What a token for it is asked for with.
    pub graph_scope: String,
}

/// Where a managed identity lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Azure {
    /// On a virtual machine of Azure: its metadata service (IMDS).
    Machine,
    /// In Azure's hosting (App Service, Container Apps, Functions): the value of `IDENTITY_HEADER`.
    Hosting(Secret),
    /// On a machine elsewhere, by the agent of Azure Arc: the directory of its keys.
    Arc(PathBuf),
}

/// Who asks for a token, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Microsoft client credentials with a client secret.
    ClientSecret {
        /// Application (client) id.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// `client_auth = "basic"`: in the Authorization header, both halves form-urlencoded.
        basic: bool,
    },
    /// Microsoft client credentials with a certificate (PS256 assertion, `x5t#S256`).
    Certificate {
        /// Application (client) id.
        client_id: String,
        /// PEM certificate.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
    },
    /// A managed identity.
    ManagedIdentity {
        /// Of a user-assigned identity.
        client_id: Option<String>,
        /// Who gives its tokens.
        host: Azure,
    },
    /// A federated token file (workload identity); re-read at every request.
    Federated {
        /// Application (client) id.
        client_id: String,
        /// The token file.
        file: PathBuf,
    },
    /// Google service account with domain-wide delegation (RS256 JWT with `sub`).
    GoogleServiceAccount {
        /// The JSON key file.
        file: PathBuf,
        /// Whose mailbox.
        subject: String,
    },
    /// A refresh token; a rotated one is kept before it is used.
    RefreshToken {
        /// Client id.
        client_id: String,
        /// Client secret, if the client has one.
        client_secret: Option<Secret>,
        /// The configured token.
        refresh_token: Secret,
    },
}

/// One request to the token endpoint.
#[derive(Default)]
pub(super) struct TokenRequest {
    /// `application/x-www-form-urlencoded`; empty for the metadata service, which is asked by GET.
    pub(super) form: Vec<(&'static str, String)>,
    /// `Authorization: Basic …`.
    pub(super) basic: Option<String>,
    /// `X-IDENTITY-HEADER` of Azure's hosting.
    pub(super) header: Option<Secret>,
    /// The metadata service: GET with these in the query and `Metadata: true`.
    pub(super) metadata: bool,
}

impl TokenRequest {
    /// What proves who asks, should the endpoint repeat it: also in part, in other case, in base64, or as an error's code, of which
    /// letters and digits alone are left. `key`: of Azure Arc's agent.
    pub(super) fn mask(&self, key: Option<&Secret>, reply: &mut Reply) {
        let secret = |key: &str| {
            matches!(
                key,
                "client_secret" | "client_assertion" | "assertion" | "refresh_token"
            )
        };
        let given = self.form.iter().filter(|(key, _)| secret(key));
        let mut secrets: Vec<String> = given
            .map(|(_, value)| value.clone())
            .chain(self.basic.clone())
            .chain(
                [self.header.as_ref(), key]
                    .into_iter()
                    .flatten()
                    .map(|secret| secret.reveal().to_owned()),
            )
            // A shorter one would take words of ours with it.
            .filter(|secret| secret.len() > 3)
            .collect();
        let bare = secrets.iter().map(|secret| word(secret));
        let bare: Vec<String> = bare.filter(|secret| secret.len() >= 8).collect();
        secrets.extend(bare);
        for secret in secrets {
            let mask = Mask::new(Some(&(String::new(), Secret::new(secret))));
            reply.text = mask.text(&reply.text);
        }
    }
}

impl Grant {
    /// The endpoint may give another refresh token, or the gateway put another certificate in its place: what is kept of that is needed.
    pub(in crate::connector) fn rotates(&self) -> bool {
        matches!(self, Grant::RefreshToken { .. } | Grant::Certificate { .. })
    }

    /// The application's certificate and its key.
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        match self {
            Grant::Certificate {
                certificate, key, ..
            } => Some((certificate, key)),
            _ => None,
        }
    }

    /// Reads the keys, so that one that cannot be used is found at load.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Grant::Certificate {
                certificate, key, ..
            } => ApplicationPair::of_files(certificate, key).map(drop),
            Grant::GoogleServiceAccount { file, .. } => ServiceAccount::read(file).map(drop),
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// One request. Keys are read anew: a certificate that was renewed on disk is used from then on. `refresh_token` is the newest
    /// one, where the grant has one; `pair` is in the place of the configured certificate and key.
    pub(super) fn request(
        &self,
        refresh_token: Option<&Secret>,
        pair: Option<&ApplicationPair>,
        now: SystemTime,
        random: u128,
    ) -> Result<TokenRequest, String> {
        let mut request = TokenRequest::default();
        let mut put = |key, value: &str| request.form.push((key, value.to_owned()));
        match &self.grant {
            Grant::ClientSecret {
                client_id,
                client_secret,
                basic,
            } => {
                put("grant_type", CLIENT_CREDENTIALS);
                put("scope", &self.scope);
                if *basic {
                    // RFC 6749 §2.3.1: both halves are form-urlencoded before they are joined.
                    let pair =
                        format!("{}:{}", encoded(client_id), encoded(client_secret.reveal()));
                    request.basic = Some(STANDARD.encode(pair));
                } else {
                    put("client_id", client_id);
                    put("client_secret", client_secret.reveal());
                }
            }
            Grant::Certificate {
                client_id,
                certificate,
                key,
            } => {
                let configured;
                let pair = if let Some(pair) = pair {
                    pair
                } else {
                    configured = ApplicationPair::of_files(certificate, key)?;
                    &configured
                };
                put("grant_type", CLIENT_CREDENTIALS);
                put("client_id", client_id);
                put("scope", &self.scope);
                put("client_assertion_type", ASSERTION_TYPE);
                let assertion = self.assertion(client_id, pair, now, random)?;
                put("client_assertion", &assertion);
            }
            Grant::Federated { client_id, file } => {
                put("grant_type", CLIENT_CREDENTIALS);
                put("client_id", client_id);
                put("scope", &self.scope);
                put("client_assertion_type", ASSERTION_TYPE);
                put("client_assertion", &federated(file, now)?);
            }
            Grant::ManagedIdentity { client_id, host } => {
                request.metadata = true;
                let version = match host {
                    Azure::Machine => "2018-02-01",
                    Azure::Hosting(_) => "2019-08-01",
                    Azure::Arc(_) => "2019-11-01",
                };
                if let Azure::Hosting(header) = host {
                    request.header = Some(header.clone());
                }
                put("api-version", version);
                put("resource", &self.scope);
                if let Some(client_id) = client_id {
                    put("client_id", client_id);
                }
            }
            Grant::GoogleServiceAccount { file, subject } => {
                let account = ServiceAccount::read(file)?;
                let header = Header {
                    kid: account.key_id,
                    ..Header::new(Algorithm::RS256)
                };
                let (begin, end) = window(now);
                let claims = json!({
                    "iss": account.email, "sub": subject, "scope": self.scope, "aud": self.token_url, "iat": begin, "exp": end,
                });
                put("grant_type", JWT_BEARER);
                put("assertion", &sign(&header, &claims, &account.key)?);
            }
            Grant::RefreshToken {
                client_id,
                client_secret,
                refresh_token: configured,
            } => {
                put("grant_type", "refresh_token");
                put("client_id", client_id);
                if let Some(secret) = client_secret {
                    put("client_secret", secret.reveal());
                }
                if !self.scope.is_empty() {
                    put("scope", &self.scope);
                }
                put(
                    "refresh_token",
                    refresh_token.unwrap_or(configured).reveal(),
                );
            }
        }
        Ok(request)
    }

    /// What proves that an application with this certificate asks.
    fn assertion(
        &self,
        client_id: &str,
        pair: &ApplicationPair,
        now: SystemTime,
        random: u128,
    ) -> Result<String, String> {
        let header = Header {
            x5t_s256: Some(sha256(&pair.der)),
            ..Header::new(Algorithm::PS256)
        };
        let (begin, end) = window(now);
        let claims = json!({
            "aud": self.token_url, "iss": client_id, "sub": client_id,
            "jti": format!("{random:032x}"), "nbf": begin, "iat": begin, "exp": end,
        });
        sign(&header, &claims, &pair.key)
    }
}

/// What stands in the key file of a Google service account.
struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: EncodingKey,
}

impl ServiceAccount {
    fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display().to_string();
        let content: serde_json::Value = serde_json::from_str(&text(file)?)
            .map_err(|_| format!("{shown} is not the JSON key file of a service account"))?;
        let field = |name: &str| content.get(name).and_then(|v| v.as_str());
        let needed = |name: &str| {
            field(name).ok_or_else(|| {
                format!(
                    "{shown} has no \"{name}\"; download the JSON key of the service account again"
                )
            })
        };
        Ok(Self {
            email: needed("client_email")?.to_owned(),
            key_id: field("private_key_id").map(str::to_owned),
            key: rsa_key(needed("private_key")?, &shown)?,
        })
    }
}

/// From when to when an assertion is good.
fn window(now: SystemTime) -> (u64, u64) {
    let now = seconds(now);
    (now, now + ASSERTION.as_secs())
}

/// Since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The token of a workload identity, as it stands in the file now.
fn federated(path: &Path, now: SystemTime) -> Result<String, String> {
    let shown = path.display();
    let mut token = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FEDERATED).read_to_string(&mut token))
        .map_err(|e| {
            cause::FEDERATED_FILE.at(format_args!(
                "federated_token_file {shown} cannot be read: {e}"
            ))
        })?;
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            cause::FEDERATED_FILE.at(format_args!("federated_token_file {shown} holds no token"))
        );
    }
    if let Some(ended) = claims::ends(token).filter(|end| *end < seconds(now)) {
        return Err(format!(
            "federated_token_file {shown} holds a token that ended at {}; check that the platform renews it, and that this machine's clock is right [federated-file]",
            time::rfc3339(time::at(ended as i64))
        ));
    }
    Ok(token.to_owned())
}

/// application/x-www-form-urlencoded (WHATWG URL §5.2).
pub(super) fn encoded(text: &str) -> String {
    reqwest::Url::parse_with_params("x:", [("", text)])
        .ok()
        .and_then(|url| url.query().map(|q| q.trim_start_matches('=').to_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::mail::reply::Reply;

    #[test]
    fn an_endpoint_that_repeats_a_secret_in_part_or_changed_is_not_heard() {
        let secret = "hush~client+secret/value=8Q";
        let request = TokenRequest {
            form: vec![
                ("client_id", "app".into()),
                ("client_secret", secret.into()),
            ],
            basic: Some(STANDARD.encode(format!("app:{secret}"))),
            header: None,
            metadata: false,
        };
        let key = Secret::new("agent-key-0123456789");
        let basic = STANDARD.encode(format!("app:{secret}"));
        for said in [
            secret.to_owned(),
            secret.to_uppercase(),
            secret[..14].to_owned(),
            secret[9..].to_owned(),
            encoded(secret),
            encoded(secret).to_lowercase(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(format!("x{secret}"))[4..].to_owned(),
            word(secret),
            basic[..basic.len() - 6].to_owned(),
            key.reveal().to_owned(),
        ] {
            let mut reply =
                Reply::new(451, (4, 3, 5), format!("no token (a, {said}): it is wrong"));
            request.mask(Some(&key), &mut reply);
            let (_, rest) = reply.text.split_once("(a, ").unwrap();
            let (shown, rest) = rest.rsplit_once("): ").unwrap();
            assert_eq!(rest, "it is wrong");
            let left = shown.replace("***", "");
            assert!(shown.contains("***") && left.len() < 8, "{said}: {shown}");
        }
    }

    #[test]
    fn form_urlencoding() {
        for (text, expected) in [
            ("a b", "a+b"),
            ("~x+y/=&", "%7Ex%2By%2F%3D%26"),
            ("", ""),
            ("==", "%3D%3D"),
            ("\u{e4}", "%C3%A4"),
        ] {
            assert_eq!(encoded(text), expected, "{text}");
        }
    }
}
