//! What proves who asks: the form of each grant, with assertions signed here.
//!
//! Apart from `source`, which decides when to ask. Keys are read at load, so that one that cannot be used is a problem of the
//! configuration, and again for every request, since certificates are renewed and federated tokens rotate.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::{Azure, Grant, Settings, answer::word, claims};
use crate::{connector::keypair, mail::outcome::Report, secret::Secret, smtp::client::mask::Mask};

/// An assertion is good for so long (Entra wants 5 to 10 minutes, Google at most an hour).
const ASSERTION: Duration = Duration::from_mins(8);
/// No token of a platform is larger.
const FEDERATED: u64 = 1 << 20;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Ready to prove who asks.
pub(super) enum Proof {
    Secret {
        client_id: String,
        client_secret: Secret,
        basic: bool,
    },
    Certificate {
        client_id: String,
        thumbprint: String,
        key: EncodingKey,
    },
    ManagedIdentity {
        client_id: Option<String>,
        host: Azure,
    },
    Federated {
        client_id: String,
        file: std::path::PathBuf,
    },
    ServiceAccount {
        email: String,
        key_id: Option<String>,
        subject: String,
        key: EncodingKey,
    },
    Refresh {
        client_id: String,
        client_secret: Option<Secret>,
        refresh_token: Secret,
    },
}

/// One request to the token endpoint.
pub(super) struct Request {
    /// `application/x-www-form-urlencoded`; empty for the metadata service, which is asked by GET.
    pub(super) form: Vec<(&'static str, String)>,
    /// `Authorization: Basic …`.
    pub(super) basic: Option<String>,
    /// `X-IDENTITY-HEADER` of Azure's hosting.
    pub(super) header: Option<Secret>,
    /// The metadata service: GET with these in the query and `Metadata: true`.
    pub(super) metadata: bool,
}

impl Request {
    /// What proves who asks, should the endpoint repeat it: also in part, in other case, in base64, or as an error's code, of which
    /// letters and digits alone are left. `key`: of Azure Arc's agent.
    pub(super) fn mask(&self, key: Option<&Secret>, report: &mut Report) {
        let (Report::Down { reply, .. } | Report::Misconfigured(reply)) = report else {
            return;
        };
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

impl Proof {
    /// Reads keys and checks them.
    pub(super) fn read(settings: &Settings) -> Result<Self, String> {
        Ok(match &settings.grant {
            Grant::ClientSecret {
                client_id,
                client_secret,
                basic,
            } => Proof::Secret {
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                basic: *basic,
            },
            Grant::Certificate {
                client_id,
                certificate,
                key,
            } => {
                let rsa = rsa_key(&text(key)?, &key.display().to_string())?;
                keypair::belongs(certificate, key).map_err(|unfit| unfit.to_string())?;
                Proof::Certificate {
                    client_id: client_id.clone(),
                    thumbprint: thumbprint(certificate)?,
                    key: rsa,
                }
            }
            Grant::ManagedIdentity { client_id, host } => Proof::ManagedIdentity {
                client_id: client_id.clone(),
                host: host.clone(),
            },
            Grant::Federated { client_id, file } => Proof::Federated {
                client_id: client_id.clone(),
                file: file.clone(),
            },
            Grant::GoogleServiceAccount { file, subject } => service_account(file, subject)?,
            Grant::RefreshToken {
                client_id,
                client_secret,
                refresh_token,
            } => Proof::Refresh {
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                refresh_token: refresh_token.clone(),
            },
        })
    }

    /// The request. `refresh_token` is the newest one, where the grant has one.
    pub(super) fn request(
        &self,
        settings: &Settings,
        refresh_token: Option<&Secret>,
        now: SystemTime,
        random: u128,
    ) -> Result<Request, String> {
        let mut request = Request {
            form: Vec::new(),
            basic: None,
            header: None,
            metadata: false,
        };
        let form = &mut request.form;
        match self {
            Proof::Secret {
                client_id,
                client_secret,
                basic,
            } => {
                form.push(("grant_type", "client_credentials".into()));
                form.push(("scope", settings.scope.clone()));
                if *basic {
                    // RFC 6749 §2.3.1: both halves are form-urlencoded before they are joined.
                    let pair =
                        format!("{}:{}", encoded(client_id), encoded(client_secret.reveal()));
                    request.basic = Some(STANDARD.encode(pair));
                } else {
                    form.push(("client_id", client_id.clone()));
                    form.push(("client_secret", client_secret.reveal().to_owned()));
                }
            }
            Proof::Certificate {
                client_id,
                thumbprint,
                key,
            } => {
                let header = Header {
                    typ: Some("JWT".into()),
                    x5t_s256: Some(thumbprint.clone()),
                    ..Header::new(Algorithm::PS256)
                };
                let (begin, end) = window(now);
                let claims = json!({
                    "aud": settings.token_url, "iss": client_id, "sub": client_id,
                    "jti": format!("{random:032x}"), "nbf": begin, "iat": begin, "exp": end,
                });
                form.push(("grant_type", "client_credentials".into()));
                form.push(("client_id", client_id.clone()));
                form.push(("scope", settings.scope.clone()));
                form.push(("client_assertion_type", ASSERTION_TYPE.into()));
                form.push(("client_assertion", sign(&header, &claims, key)?));
            }
            Proof::ManagedIdentity { client_id, host } => {
                request.metadata = true;
                let version = match host {
                    Azure::Machine => "2018-02-01",
                    Azure::Hosting(_) => "2019-08-01",
                    Azure::Arc(_) => "2019-11-01",
                };
                if let Azure::Hosting(header) = host {
                    request.header = Some(header.clone());
                }
                form.push(("api-version", version.into()));
                form.push(("resource", settings.scope.clone()));
                if let Some(client_id) = client_id {
                    form.push(("client_id", client_id.clone()));
                }
            }
            Proof::Federated { client_id, file } => {
                form.push(("grant_type", "client_credentials".into()));
                form.push(("client_id", client_id.clone()));
                form.push(("scope", settings.scope.clone()));
                form.push(("client_assertion_type", ASSERTION_TYPE.into()));
                form.push(("client_assertion", federated(file, now)?));
            }
            Proof::ServiceAccount {
                email,
                key_id,
                subject,
                key,
            } => {
                let header = Header {
                    typ: Some("JWT".into()),
                    kid: key_id.clone(),
                    ..Header::new(Algorithm::RS256)
                };
                let (begin, end) = window(now);
                let claims = json!({
                    "iss": email, "sub": subject, "scope": settings.scope, "aud": settings.token_url, "iat": begin, "exp": end,
                });
                form.push(("grant_type", JWT_BEARER.into()));
                form.push(("assertion", sign(&header, &claims, key)?));
            }
            Proof::Refresh {
                client_id,
                client_secret,
                refresh_token: configured,
            } => {
                form.push(("grant_type", "refresh_token".into()));
                form.push(("client_id", client_id.clone()));
                if let Some(secret) = client_secret {
                    form.push(("client_secret", secret.reveal().to_owned()));
                }
                if !settings.scope.is_empty() {
                    form.push(("scope", settings.scope.clone()));
                }
                form.push((
                    "refresh_token",
                    refresh_token.unwrap_or(configured).reveal().to_owned(),
                ));
            }
        }
        Ok(request)
    }
}

/// SHA-256 in base64url: of a certificate its `x5t#S256`, of a configured token what tells another one apart.
pub(super) fn sha256(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        octets,
    ))
}

fn thumbprint(path: &Path) -> Result<String, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_slice(text(path)?.as_bytes())
        .map_err(|_| format!("{} holds no certificate in PEM form", path.display()))?;
    Ok(sha256(&certificate))
}

fn rsa_key(pem: &str, shown: &str) -> Result<EncodingKey, String> {
    EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| {
        format!("{shown} holds no RSA private key in PEM form without a passphrase; the certificate of an application has one")
    })
}

fn service_account(file: &Path, subject: &str) -> Result<Proof, String> {
    let shown = file.display().to_string();
    let content: serde_json::Value = serde_json::from_str(&text(file)?)
        .map_err(|_| format!("{shown} is not the JSON key file of a service account"))?;
    let field = |name: &str| content.get(name).and_then(|v| v.as_str());
    let missing = |name: &str| {
        format!("{shown} has no \"{name}\"; download the JSON key of the service account again")
    };
    Ok(Proof::ServiceAccount {
        email: field("client_email")
            .ok_or_else(|| missing("client_email"))?
            .to_owned(),
        key_id: field("private_key_id").map(str::to_owned),
        subject: subject.to_owned(),
        key: rsa_key(
            field("private_key").ok_or_else(|| missing("private_key"))?,
            &shown,
        )?,
    })
}

fn sign(header: &Header, claims: &serde_json::Value, key: &EncodingKey) -> Result<String, String> {
    jsonwebtoken::encode(header, claims, key)
        .map_err(|e| format!("the assertion cannot be signed: {e}"))
}

fn window(now: SystemTime) -> (u64, u64) {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs(), (now + ASSERTION).as_secs())
}

/// The token of a workload identity, as it stands in the file now.
fn federated(path: &Path, now: SystemTime) -> Result<String, String> {
    let shown = path.display();
    let mut token = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FEDERATED).read_to_string(&mut token))
        .map_err(|e| format!("federated_token_file {shown} cannot be read: {e}"))?;
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("federated_token_file {shown} holds no token"));
    }
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if let Some(ended) = claims::ends(token).filter(|end| *end < now.as_secs()) {
        return Err(format!(
            "federated_token_file {shown} holds a token that ended at {}; see that the platform renews it, and that this machine's clock is right",
            time::OffsetDateTime::from_unix_timestamp(i64::try_from(ended).unwrap_or_default())
                .ok()
                .and_then(|at| at
                    .format(&time::format_description::well_known::Rfc3339)
                    .ok())
                .unwrap_or_else(|| "an unknown time".into())
        ));
    }
    Ok(token.to_owned())
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
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
    use super::*;
    use crate::mail::reply::Reply;

    #[test]
    fn an_endpoint_that_repeats_a_secret_in_part_or_changed_is_not_heard() {
        let secret = "hush~client+secret/value=8Q";
        let request = Request {
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
            let reply = Reply::new(451, (4, 3, 5), format!("no token (a, {said}): it is wrong"));
            let mut report = Report::Misconfigured(reply);
            request.mask(Some(&key), &mut report);
            let Report::Misconfigured(reply) = report else {
                unreachable!();
            };
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
