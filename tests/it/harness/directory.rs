//! A directory that lags: an application's certificates by addKey and removeKey, the entry itself, the token service and sendMail, written from the
//! public documentation of Entra and Graph. It is strict about proofs and the shape of a body. Its token service has several nodes that learn of
//! a key at different times, and what is asked of it can go wrong before and after it is done.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::{
    cloud::error,
    cloud_token::{Asked, Endpoint, Said, granted, refused},
};

pub const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub const OBJECT: &str = "99999999-8888-7777-6666-555555555555";
/// Of a token; short, so that they are renewed all the time.
const LASTS: u64 = 2;

/// A certificate of the application.
#[derive(Debug, Clone)]
pub struct RegisteredKey {
    pub key_id: String,
    pub der: Vec<u8>,
    pub name: String,
    since: Instant,
}

/// What becomes of a call.
pub enum Mishap {
    /// This answer; nothing is done.
    Said(Said),
    /// It is done, and the connection is cut.
    Cut,
    /// This is called before anything is done, and then nothing is said.
    Before(Box<dyn FnOnce() + Send>),
    /// It is done, this is called, and nothing is said.
    After(Box<dyn FnOnce() + Send>),
}

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A token by a certificate that was there from the start.
    OldToken,
    /// A token by one that was added.
    NewToken,
    Add,
    Remove,
    Read,
}

#[derive(Default)]
struct State {
    keys: Vec<RegisteredKey>,
    /// After how long each node of the token service knows a key that was added.
    lags: Vec<Duration>,
    node: usize,
    next_key: usize,
    /// When each was given, and whether it is for Graph.
    tokens: BTreeMap<String, (Instant, bool)>,
    mishaps: BTreeMap<Call, VecDeque<Mishap>>,
    calls: Vec<(Call, u16)>,
    may_read: bool,
    /// It says the thumbprints of its keys.
    names: bool,
    /// Whom a proof must be from.
    issuer: &'static str,
    added: Vec<String>,
    mails: Vec<(String, Instant)>,
    violations: Vec<String>,
}

/// It lives as long as the process.
pub struct Directory {
    pub endpoint: Endpoint,
    state: Arc<Mutex<State>>,
}

impl Directory {
    /// With these certificates (DER and name); each node of the token service learns of another one so much later.
    pub fn start(keys: &[(&[u8], &str)], lags: &[Duration]) -> Self {
        let mut state = State {
            lags: lags.to_vec(),
            may_read: true,
            names: true,
            issuer: CLIENT,
            ..State::default()
        };
        let long_ago = Instant::now().checked_sub(Duration::from_hours(1));
        for (der, name) in keys {
            state.register(der.to_vec(), (*name).to_owned());
            if let (Some(key), Some(since)) = (state.keys.last_mut(), long_ago) {
                key.since = since;
            }
        }
        state.added.clear();
        let state = Arc::new(Mutex::new(state));
        let own = Arc::clone(&state);
        let endpoint = Endpoint::start(move |asked| answer(&own, asked));
        Self { endpoint, state }
    }

    /// The next call of this kind goes wrong.
    pub fn mishap(&self, call: Call, mishap: Mishap) {
        let mut state = self.state.lock().unwrap();
        state.mishaps.entry(call).or_default().push_back(mishap);
    }

    /// No key has its thumbprint in an answer.
    pub fn forget_thumbprints(&self) {
        self.state.lock().unwrap().names = false;
    }

    /// Nobody may read the entry.
    pub fn hide(&self) {
        self.state.lock().unwrap().may_read = false;
    }

    /// Proofs are from the object ID.
    pub fn wants_object_id(&self) {
        self.state.lock().unwrap().issuer = OBJECT;
    }

    pub fn keys(&self) -> Vec<RegisteredKey> {
        self.state.lock().unwrap().keys.clone()
    }

    /// Each call with its status; 0: it was cut.
    pub fn calls(&self) -> Vec<(Call, u16)> {
        self.state.lock().unwrap().calls.clone()
    }

    /// How often.
    pub fn count(&self, call: Call) -> usize {
        let calls = self.calls();
        calls.iter().filter(|(one, _)| *one == call).count()
    }

    /// What was not in order.
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// The messages that came, by the word behind `Subject: `.
    pub fn mails(&self) -> Vec<(String, Instant)> {
        self.state.lock().unwrap().mails.clone()
    }

    /// A connector for it; `pair` are the files.
    pub fn connector(&self, name: &str, pair: &(String, String), more: &str) -> String {
        let url = self.endpoint.url("");
        format!(
            "[[connector]]\nname = \"{name}\"\ntype = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"{CLIENT}\"\n\
             certificate = \"{}\"\nkey = \"{}\"\nlogin_url = \"{url}\"\ngraph_url = \"{url}\"\nmailbox = \"p@corp.example\"\n\
             rate = \"100000/min\"\n{more}\n",
            pair.0, pair.1
        )
    }
}

impl State {
    fn register(&mut self, der: Vec<u8>, name: String) -> String {
        self.next_key += 1;
        let key_id = format!("00000000-0000-0000-0000-{:012}", self.next_key);
        self.keys.push(RegisteredKey {
            key_id: key_id.clone(),
            der,
            name,
            since: Instant::now(),
        });
        self.added.push(key_id.clone());
        key_id
    }

    fn mishap(&mut self, call: Call) -> Option<Mishap> {
        self.mishaps.get_mut(&call)?.pop_front()
    }
}

fn answer(state: &Mutex<State>, asked: &Asked) -> Said {
    let entry = format!("/v1.0/applications(appId='{CLIENT}')");
    let target = asked.target.as_str();
    let call = if target.ends_with("/oauth2/v2.0/token") {
        return token(state, asked);
    } else if target.ends_with("/sendMail") {
        return send_mail(state, asked);
    } else if target == format!("{entry}/addKey") && asked.method == "POST" {
        Call::Add
    } else if target == format!("{entry}/removeKey") && asked.method == "POST" {
        Call::Remove
    } else if target == entry && asked.method == "GET" {
        Call::Read
    } else {
        let mut state = state.lock().unwrap();
        state.violations.push(format!("{} {target}", asked.method));
        return error(404, "Request_ResourceNotFound", "");
    };
    carried_out(state, call, |state| {
        if !is_authorized(state, asked) {
            return error(401, "InvalidAuthenticationToken", "");
        }
        match call {
            Call::Add => add(state, asked),
            Call::Remove => remove(state, asked),
            _ => read(state),
        }
    })
}

/// Done, unless something goes wrong with it.
fn carried_out(state: &Mutex<State>, call: Call, act: impl FnOnce(&mut State) -> Said) -> Said {
    let mishap = state.lock().unwrap().mishap(call);
    let nothing = (0, String::new(), String::new());
    let said = match mishap {
        Some(Mishap::Said(said)) => said,
        Some(Mishap::Before(hook)) => {
            hook();
            nothing
        }
        Some(Mishap::Cut) => {
            act(&mut state.lock().unwrap());
            nothing
        }
        Some(Mishap::After(hook)) => {
            act(&mut state.lock().unwrap());
            hook();
            nothing
        }
        None => act(&mut state.lock().unwrap()),
    };
    state.lock().unwrap().calls.push((call, said.0));
    said
}

fn is_authorized(state: &State, asked: &Asked) -> bool {
    let bearer = asked.header("authorization");
    let token = bearer.and_then(|value| value.strip_prefix("Bearer "));
    token.is_some_and(|token| {
        let given = state.tokens.get(token);
        // A little longer than it says, as everywhere.
        given.is_some_and(|(at, is_for_graph)| {
            *is_for_graph && at.elapsed() < Duration::from_secs(LASTS + 300)
        })
    })
}

fn public(der: &[u8]) -> DecodingKey {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
    DecodingKey::from_rsa_der(&parsed.public_key().subject_public_key.data)
}

/// By a certificate that the node of the token service knows.
fn token(state: &Mutex<State>, asked: &Asked) -> Said {
    let assertion = asked.field("client_assertion").unwrap_or_default();
    let header = jsonwebtoken::decode_header(&assertion);
    let thumbprint = header.ok().and_then(|header| header.x5t_s256);
    let call = {
        let state = state.lock().unwrap();
        let is_it = |der: &[u8]| Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, der))) == thumbprint;
        let old = state.keys.iter().find(|key| is_it(&key.der));
        let is_old = old.is_some_and(|key| !state.added.contains(&key.key_id));
        if is_old {
            Call::OldToken
        } else {
            Call::NewToken
        }
    };
    let audience = format!(
        "http://{}{}",
        asked.header("host").unwrap_or_default(),
        asked.target
    );
    carried_out(state, call, |state| {
        state.node += 1;
        let node = state.node % state.lags.len().max(1);
        let lag = state.lags.get(node).copied().unwrap_or_default();
        let known = state.keys.iter().find(|key| {
            Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, &key.der))) == thumbprint
                && key.since.elapsed() >= lag
        });
        let Some(known) = known else {
            return refused("invalid_client", 700_027);
        };
        let mut rules = Validation::new(Algorithm::PS256);
        rules.set_audience(&[&audience]);
        rules.set_issuer(&[CLIENT]);
        rules.validate_nbf = true;
        rules.leeway = 5;
        if let Err(why) = jsonwebtoken::decode::<Value>(&assertion, &public(&known.der), &rules) {
            state.violations.push(format!("assertion: {why}"));
            return refused("invalid_client", 700_027);
        }
        let ends = x509_parser::parse_x509_certificate(&known.der).unwrap().1;
        if !ends.validity().is_valid() {
            return refused("invalid_client", 700_027);
        }
        let token = format!("token-{}-{}", state.tokens.len(), known.key_id);
        let scope = asked.field("scope").unwrap_or_default();
        let is_for_graph = scope == "https://graph.microsoft.com/.default";
        let given = (Instant::now(), is_for_graph);
        state.tokens.insert(token.clone(), given);
        granted(&token, LASTS)
    })
}

/// What is wrong with a proof.
fn unproved(state: &State, proof: &Value) -> Option<String> {
    let proof = proof.as_str()?;
    let header = match jsonwebtoken::decode_header(proof) {
        Ok(header) => header,
        Err(why) => return Some(why.to_string()),
    };
    if header.alg != Algorithm::RS256 || header.typ.as_deref() != Some("JWT") {
        return Some("alg or typ".to_owned());
    }
    let by = state.keys.iter().find(|key| {
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, &key.der);
        header.x5t == Some(URL_SAFE_NO_PAD.encode(sha1))
    });
    let Some(by) = by else {
        return Some("x5t is of no registered certificate".to_owned());
    };
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&["00000002-0000-0000-c000-000000000000"]);
    rules.set_issuer(&[state.issuer]);
    rules.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
    rules.validate_nbf = true;
    rules.leeway = 5;
    match jsonwebtoken::decode::<Value>(proof, &public(&by.der), &rules) {
        Err(why) => Some(why.to_string()),
        Ok(decoded) => {
            let number = |name: &str| decoded.claims[name].as_u64().unwrap_or_default();
            let is_exact = number("exp") == number("nbf") + 600;
            (!is_exact).then(|| "exp is not nbf + 600".to_owned())
        }
    }
}

/// The body, if it has just these keys.
fn body(asked: &Asked, keys: &[&str]) -> Option<Value> {
    let value: Value = serde_json::from_str(&asked.body).ok()?;
    let mut there: Vec<&str> = value.as_object()?.keys().map(String::as_str).collect();
    there.sort_unstable();
    (there == keys && asked.header("content-type") == Some("application/json")).then_some(value)
}

fn refuse(state: &mut State, status: u16, why: String) -> Said {
    let code = if status == 400 {
        "Request_BadRequest"
    } else {
        "Authentication_MissingOrMalformed"
    };
    let body = json!({ "error": { "code": code, "message": why.clone() } });
    state.violations.push(why);
    (status, String::new(), body.to_string())
}

fn add(state: &mut State, asked: &Asked) -> Said {
    let Some(body) = body(asked, &["keyCredential", "passwordCredential", "proof"]) else {
        return refuse(state, 400, "the shape of addKey".to_owned());
    };
    let key = &body["keyCredential"];
    let name = key["displayName"].as_str().unwrap_or_default().to_owned();
    let der = STANDARD
        .decode(key["key"].as_str().unwrap_or_default())
        .unwrap_or_default();
    let is_right = key["type"] == "AsymmetricX509Cert"
        && key["usage"] == "Verify"
        && key.as_object().is_some_and(|key| key.len() == 4)
        && body["passwordCredential"].is_null()
        && x509_parser::parse_x509_certificate(&der).is_ok()
        && !name.is_empty();
    if !is_right {
        return refuse(state, 400, format!("the shape of a keyCredential: {key}"));
    }
    if let Some(why) = unproved(state, &body["proof"]) {
        return refuse(state, 401, format!("the proof of addKey: {why}"));
    }
    if state.keys.iter().any(|key| key.der == der) {
        // This is no violation: it is what comes of a lost answer.
        return error(400, "Request_BadRequest", "");
    }
    let key_id = state.register(der, name);
    let said = json!({ "keyId": key_id, "type": "AsymmetricX509Cert", "usage": "Verify" });
    (200, String::new(), said.to_string())
}

fn remove(state: &mut State, asked: &Asked) -> Said {
    let Some(body) = body(asked, &["keyId", "proof"]) else {
        return refuse(state, 400, "the shape of removeKey".to_owned());
    };
    if let Some(why) = unproved(state, &body["proof"]) {
        return refuse(state, 401, format!("the proof of removeKey: {why}"));
    }
    let before = state.keys.len();
    state
        .keys
        .retain(|key| body["keyId"] != key.key_id.as_str());
    if state.keys.len() == before {
        let said = json!({ "error": {
            "code": "Request_BadRequest",
            "message": "No credentials found to be removed with the keyId",
        } });
        return (400, String::new(), said.to_string());
    }
    (204, String::new(), String::new())
}

fn read(state: &mut State) -> Said {
    if !state.may_read {
        return error(403, "Authorization_RequestDenied", "");
    }
    let names = state.names;
    let thumbprint = |at: usize, der: &[u8]| {
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, der);
        // Both forms are seen.
        if at.is_multiple_of(2) {
            sha1.as_ref()
                .iter()
                .map(|octet| format!("{octet:02X}"))
                .collect::<String>()
        } else {
            STANDARD.encode(sha1)
        }
    };
    let keys: Vec<Value> = state
        .keys
        .iter()
        .enumerate()
        .map(|(at, key)| {
            json!({ "keyId": key.key_id, "displayName": key.name, "customKeyIdentifier": names.then(|| thumbprint(at, &key.der)), "key": null })
        })
        .collect();
    let said = json!({ "id": OBJECT, "appId": CLIENT, "keyCredentials": keys });
    (200, String::new(), said.to_string())
}

fn send_mail(state: &Mutex<State>, asked: &Asked) -> Said {
    let mut state = state.lock().unwrap();
    if !is_authorized(&state, asked) {
        state
            .violations
            .push("a mail without a good token".to_owned());
        return error(401, "InvalidAuthenticationToken", "");
    }
    let content = STANDARD.decode(&asked.body).unwrap_or_default();
    let content = String::from_utf8_lossy(&content).into_owned();
    let subject = content
        .lines()
        .find_map(|line| line.strip_prefix("Subject: "));
    let subject = subject.unwrap_or_default().to_owned();
    state.mails.push((subject, Instant::now()));
    (202, String::new(), String::new())
}

/// A self-signed RSA certificate that is good between these days from now, and its key: the files and the DER.
pub fn pair(dir: &std::path::Path, name: &str, days: (i64, i64)) -> ((String, String), Vec<u8>) {
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(vec!["app".to_owned()]).unwrap();
    let now = time::OffsetDateTime::from(SystemTime::now());
    params.not_before = now + time::Duration::days(days.0);
    params.not_after = now + time::Duration::days(days.1);
    let certificate = params.self_signed(&key).unwrap();
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = (
        write("pem", certificate.pem()),
        write("key", key.serialize_pem()),
    );
    (files, certificate.der().to_vec())
}
