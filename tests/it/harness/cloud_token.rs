//! A token endpoint of our own, written from the public documentation of Entra, the metadata service and Google, and as strict: it
//! checks signatures, thumbprints, audiences and times, and remembers what it was asked.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::http::{Wire, serve};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A field of the form, or of the query.
    pub fn field(&self, name: &str) -> Option<String> {
        let text = if self.method == "GET" {
            self.target.split_once('?')?.1.to_owned()
        } else {
            self.body.clone()
        };
        let url = reqwest::Url::parse(&format!("http://x/?{text}")).unwrap();
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// Status (0: none, the connection is closed), further header lines, body.
pub type Said = (u16, String, String);
type Script = dyn Fn(&Asked) -> Said + Send + Sync;

/// The endpoint; it lives as long as the process.
pub struct Endpoint {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// Answers as the script says.
    pub fn start(script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), asked.clone());
        serve(listener, move |wire| converse(wire, &*script, &seen));
        Self { address, asked }
    }

    /// Its URL below a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// The usual answer.
pub fn granted(token: &str, seconds: u64) -> Said {
    (
        200,
        String::new(),
        json!({"token_type": "Bearer", "access_token": token, "expires_in": seconds}).to_string(),
    )
}

/// An error as Entra words it.
pub fn refused(error: &str, code: u64) -> Said {
    let body = json!({"error": error, "error_description": format!("AADSTS{code}: words that may change"), "error_codes": [code], "trace_id": "t", "correlation_id": "c"});
    (
        if error == "invalid_client" { 401 } else { 400 },
        String::new(),
        body.to_string(),
    )
}

/// Checks an assertion as Entra does: PS256 over the registered certificate, `x5t#S256`, audience, issuer, times, `jti`.
pub fn check_assertion(
    asked: &Asked,
    certificate_der: &[u8],
    public_key: &[u8],
    client_id: &str,
    audience: &str,
) -> Result<(), String> {
    let assertion = asked.field("client_assertion").ok_or("no assertion")?;
    if asked.field("client_assertion_type").as_deref()
        != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    {
        return Err("client_assertion_type".into());
    }
    let header = jsonwebtoken::decode_header(&assertion).map_err(|e| e.to_string())?;
    let thumbprint = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate_der),
    );
    if header.x5t_s256.as_deref() != Some(&thumbprint) || header.typ.as_deref() != Some("JWT") {
        return Err("x5t#S256 or typ".into());
    }
    let mut rules = Validation::new(Algorithm::PS256);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[client_id]);
    rules.validate_nbf = true;
    rules.leeway = 5;
    let key = DecodingKey::from_rsa_pem(public_key).map_err(|e| e.to_string())?;
    let claims = jsonwebtoken::decode::<Value>(&assertion, &key, &rules)
        .map_err(|e| e.to_string())?
        .claims;
    let number = |name: &str| claims[name].as_u64().unwrap_or_default();
    if claims["sub"] != client_id || claims["jti"].as_str().is_none_or(|j| j.len() < 16) {
        return Err("sub or jti".into());
    }
    if number("exp") - number("nbf") > 600 {
        return Err("longer than ten minutes".into());
    }
    Ok(())
}

/// Checks an assertion as Google does: RS256 over the account's key, `kid`, audience, issuer, `sub`, at most an hour, begun by now.
pub fn check_google(
    asked: &Asked,
    public_key: &[u8],
    issuer: &str,
    audience: &str,
) -> Result<Value, String> {
    if asked.method != "POST"
        || asked.header("content-type") != Some("application/x-www-form-urlencoded")
        || asked.field("grant_type").as_deref()
            != Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
    {
        return Err("the form".into());
    }
    let assertion = asked.field("assertion").ok_or("no assertion")?;
    let header = jsonwebtoken::decode_header(&assertion).map_err(|e| e.to_string())?;
    if header.typ.as_deref() != Some("JWT") || header.kid.is_none() {
        return Err("typ or kid".into());
    }
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[issuer]);
    rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    rules.leeway = 5;
    let key = DecodingKey::from_rsa_pem(public_key).map_err(|e| e.to_string())?;
    let claims = jsonwebtoken::decode::<Value>(&assertion, &key, &rules)
        .map_err(|e| e.to_string())?
        .claims;
    let number = |name: &str| claims[name].as_u64().unwrap_or_default();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    if number("iat") == 0 || number("iat") > now + 5 || number("exp") - number("iat") > 3600 {
        return Err("token must be short-lived and in a reasonable timeframe".into());
    }
    Ok(claims)
}

fn converse(mut wire: Wire, script: &Script, seen: &Mutex<Vec<Asked>>) -> Option<()> {
    loop {
        let head = wire.head()?;
        let body = wire.body(head.length())?;
        let asked = Asked {
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            headers: head
                .headers()
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        seen.lock().unwrap().push(asked.clone());
        let (status, more, body) = script(&asked);
        // The connection ends without an answer.
        if status == 0 {
            return None;
        }
        let more = format!("Content-Type: application/json\r\n{more}");
        wire.answer(status, &more, body.as_bytes())?;
    }
}
