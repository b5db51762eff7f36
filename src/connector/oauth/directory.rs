//! What is asked of Entra's directory about an application's certificates, in Graph's words: that one is added or removed, and what it calls one.
//!
//! An application needs no permission to change its own certificates, but a proof: that it holds the key of one that is registered
//! (learn.microsoft.com/graph/application-rollkey-prooftoken). It decides nothing, keeps nothing and tries nothing twice.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, Header};
use reqwest::{Url, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    answer,
    grant::{Grant, RotationSettings, Settings, TokenRequest, encoded},
    keys::{ApplicationPair, sign},
    rotation::DirectoryVerdict,
};
use crate::{
    connector::http::{Answer, Http, NoAnswer},
    mail::{outcome::Obstacle, text::shown_to},
    secret::Secret,
};

/// Who takes a proof: the directory itself (Azure AD Graph, as which it is still known here).
const DIRECTORY: &str = "00000002-0000-0000-c000-000000000000";
/// A proof is good for so long.
const PROOF: u64 = 600;
/// One request.
const REQUEST: Duration = Duration::from_secs(30);
/// Octets that are repeated of what the directory says.
const SAID: usize = 200;

/// The entry of one application, and how it is reached.
pub struct KeyDirectory {
    settings: Settings,
    client_id: String,
    http: Http,
    login: Url,
    graph: Url,
}

/// Whose key signs a proof of possession, and who it is from.
pub type Prover<'a> = (&'a ApplicationPair, &'a str);

/// What was found of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Every key has its thumbprint: one that is not among them is not registered.
    pub is_whole: bool,
    /// Its object ID.
    pub object_id: String,
    /// The key IDs and thumbprints of its certificates.
    keys: Vec<(String, String)>,
}

impl DirectoryEntry {
    /// What the certificate is called.
    pub fn key_id(&self, pair: &ApplicationPair) -> Option<&str> {
        let sha1 = sha1(&pair.der);
        let mut hex = String::with_capacity(40);
        for octet in &sha1 {
            let _ = write!(hex, "{octet:02X}");
        }
        let base64 = STANDARD.encode(&sha1);
        let is_it = |thumbprint: &str| {
            // As the portal, the command line and Graph itself write it.
            thumbprint.eq_ignore_ascii_case(&hex)
                || thumbprint.trim_end_matches('=') == base64.trim_end_matches('=')
                || thumbprint == STANDARD.encode(&hex)
        };
        let found = self.keys.iter().find(|(_, thumbprint)| is_it(thumbprint));
        found.map(|(key_id, _)| key_id.as_str())
    }
}

impl KeyDirectory {
    /// Of an application whose certificate is to be replaced.
    ///
    /// # Errors
    /// It has none, or a URL or CA file cannot be used.
    pub fn new(settings: &Settings, rotation: &RotationSettings) -> Result<Self, String> {
        let Grant::Certificate { client_id, .. } = &settings.grant else {
            return Err("it has no certificate".to_owned());
        };
        let url = |text: &str| Url::parse(text).map_err(|why| format!("{text}: {why}"));
        // The identifier was read as one: nothing of it has a meaning in a URL.
        let graph = format!(
            "{}/v1.0/applications(appId='{client_id}')",
            rotation.graph_url
        );
        Ok(Self {
            client_id: client_id.clone(),
            http: Http::new(&settings.http)?,
            login: url(&settings.token_url)?,
            graph: url(&graph)?,
            settings: Settings {
                scope: rotation.graph_scope.clone(),
                ..settings.clone()
            },
        })
    }

    /// Who a proof is from.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// A token for Graph, by this pair.
    ///
    /// # Errors
    /// As of any token.
    pub async fn token(&self, pair: &ApplicationPair) -> Result<Secret, Obstacle> {
        let now = SystemTime::now();
        let request = self
            .settings
            .request(None, Some(pair), now, fastrand::u128(..))
            .map_err(Obstacle::misconfigured)?;
        let answer = self.ask_for_token(&request).await;
        let answer = answer.map_err(|fault| fault.obstacle("token"))?;
        let read = answer::read(&answer, &self.settings.grant, answer.retry_after());
        read.map(|granted| granted.token).map_err(|refused| {
            let mut obstacle = refused.obstacle;
            request.mask(None, &mut obstacle.reply);
            obstacle
        })
    }

    async fn ask_for_token(&self, request: &TokenRequest) -> Result<Answer, NoAnswer> {
        let form: Vec<String> = request
            .form
            .iter()
            .map(|(key, value)| format!("{key}={}", encoded(value)))
            .collect();
        self.http
            .send(&self.login, Instant::now() + REQUEST, |client, url| {
                client
                    .post(url)
                    .header(header::ACCEPT, "application/json")
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.join("&"))
            })
            .await
    }

    /// Registers a certificate. The proof is by one that is registered.
    pub async fn add(
        &self,
        token: &Secret,
        new: &ApplicationPair,
        name: &str,
        (by, issuer): Prover<'_>,
    ) -> DirectoryVerdict {
        let proof = match proof(by, issuer, SystemTime::now()) {
            Ok(proof) => proof,
            Err(why) => return DirectoryVerdict::Unasked(why),
        };
        let body = json!({
            "keyCredential": {
                "type": "AsymmetricX509Cert",
                "usage": "Verify",
                "key": STANDARD.encode(&new.der),
                "displayName": name,
            },
            "passwordCredential": null,
            "proof": proof,
        });
        verdict("addKey", self.change("addKey", token, &body).await)
    }

    /// Removes one.
    pub async fn remove(
        &self,
        token: &Secret,
        key_id: &str,
        (by, issuer): Prover<'_>,
    ) -> DirectoryVerdict {
        let proof = match proof(by, issuer, SystemTime::now()) {
            Ok(proof) => proof,
            Err(why) => return DirectoryVerdict::Unasked(why),
        };
        let body = json!({ "keyId": key_id, "proof": proof });
        verdict("removeKey", self.change("removeKey", token, &body).await)
    }

    async fn change(&self, what: &str, token: &Secret, body: &Value) -> Result<Answer, NoAnswer> {
        let mut url = self.graph.clone();
        url.set_path(&format!("{}/{what}", self.graph.path()));
        self.http
            .send(&url, Instant::now() + REQUEST, |client, url| {
                client
                    .post(url)
                    .bearer_auth(token.reveal())
                    .header(header::ACCEPT, "application/json")
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body.to_string())
            })
            .await
    }

    /// What is registered.
    ///
    /// # Errors
    /// It may not be read, or cannot be now.
    pub async fn entry(&self, token: &Secret) -> Result<DirectoryEntry, DirectoryVerdict> {
        let answer = self
            .http
            .send(&self.graph, Instant::now() + REQUEST, |client, url| {
                client
                    .get(url)
                    .bearer_auth(token.reveal())
                    .header(header::ACCEPT, "application/json")
            })
            .await;
        let answer = answer.map_err(|fault| DirectoryVerdict::Unasked(fault.text().to_owned()))?;
        let status = answer.status.as_u16();
        // A token or an entry that is not known everywhere yet is refused by other words, for a while.
        if status == 403 {
            let why = format!("the application may not read its own entry ({status})");
            return Err(DirectoryVerdict::Unreadable(why));
        }
        let unclear = || {
            let said = said(&answer);
            DirectoryVerdict::Later(format!(
                "the directory answered {status} to a question: {said}"
            ))
        };
        if status != 200 || !answer.whole {
            return Err(unclear());
        }
        let content: Value = serde_json::from_slice(&answer.body).map_err(|_| unclear())?;
        let word = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
        let keys = content.get("keyCredentials").and_then(Value::as_array);
        let keys = keys.ok_or_else(unclear)?;
        let named = keys
            .iter()
            .filter_map(|key| Some((word(key, "keyId")?, word(key, "customKeyIdentifier")?)));
        let named: Vec<_> = named.collect();
        Ok(DirectoryEntry {
            object_id: word(&content, "id").ok_or_else(unclear)?,
            is_whole: named.len() == keys.len(),
            keys: named,
        })
    }
}

/// What an answer to a change means.
fn verdict(what: &str, answer: Result<Answer, NoAnswer>) -> DirectoryVerdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::Unanswered(why)) => {
            return DirectoryVerdict::Lost(format!("the answer to {what} was lost: {why}"));
        }
        Err(fault) => return DirectoryVerdict::Unasked(fault.text().to_owned()),
    };
    let status = answer.status.as_u16();
    let content = serde_json::from_slice::<Value>(&answer.body);
    let content = content.ok().filter(Value::is_object);
    if answer.status.is_success() {
        let is_removed = what == "removeKey" && status == 204;
        let key_id = content
            .as_ref()
            .and_then(|content| content.get("keyId")?.as_str());
        return match (key_id, is_removed) {
            (_, true) => DirectoryVerdict::Done(None),
            (Some(key_id), _) if what == "addKey" => {
                DirectoryVerdict::Done(Some(key_id.to_owned()))
            }
            // A page of something in between, perhaps, or an answer that broke off.
            _ => DirectoryVerdict::Lost(format!(
                "the directory answered {status} to {what}, and not in its own words"
            )),
        };
    }
    let said = said(&answer);
    let why = format!("the directory refused {what} ({status}): {said}");
    let is_its_own = content
        .as_ref()
        .is_some_and(|content| content.get("error").is_some());
    match status {
        400 if is_its_own && said.contains("No credentials found") => DirectoryVerdict::Gone,
        400..500 if is_its_own && !matches!(status, 408 | 429) => {
            DirectoryVerdict::Refused(status, why)
        }
        408 | 429 | 500.. => {
            DirectoryVerdict::Later(format!("the directory answered {status} to {what}: {said}"))
        }
        _ => DirectoryVerdict::Later(format!(
            "something in between answered {status} to {what}: {said}"
        )),
    }
}

/// What it said of an error, for people.
fn said(answer: &Answer) -> String {
    let content = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let error = &content["error"];
    let words = [error["code"].as_str(), error["message"].as_str()];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    if words.is_empty() {
        return "without a reason".to_owned();
    }
    let line = words.join(": ");
    // Should it repeat the proof or the token, that is nothing to show.
    let words = line.split_whitespace().map(|word| match word.find("eyJ") {
        Some(_) => "***",
        None => word,
    });
    shown_to(&words.collect::<Vec<_>>().join(" "), SAID)
}

/// That we hold the key of a registered certificate.
fn proof(pair: &ApplicationPair, issuer: &str, now: SystemTime) -> Result<String, String> {
    let header = Header {
        x5t: Some(URL_SAFE_NO_PAD.encode(sha1(&pair.der))),
        ..Header::new(Algorithm::RS256)
    };
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let begin = since.map_or(0, |since| since.as_secs());
    let claims = json!({ "aud": DIRECTORY, "iss": issuer, "nbf": begin, "exp": begin + PROOF });
    sign(&header, &claims, &pair.key)
}

fn sha1(octets: &[u8]) -> Vec<u8> {
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    aws_lc_rs::digest::digest(algorithm, octets)
        .as_ref()
        .to_vec()
}
