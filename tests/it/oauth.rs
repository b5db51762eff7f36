//! Tokens: every grant against a strict endpoint of our own, and XOAUTH2 through the real gateway.

use crate::harness::time::{Latch, stays, until};
use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::Engine as _;
use postern::{
    connector::{
        Proxy, ProxyServer,
        http::HttpSettings,
        oauth::{Azure, Grant, Settings, TokenSource, TokenStore},
    },
    mail::outcome::{Obstacle, ObstacleKind},
    secret::Secret,
};

use super::harness::{
    cloud_token::{Asked, Endpoint, check_assertion, check_google, granted, refused},
    gateway::{Gateway, basic, send, stdout, wait},
    peers::{need, run},
    upstream::Upstream,
};

fn http() -> HttpSettings {
    HttpSettings {
        allowed_hosts: vec!["*".into()],
        ..HttpSettings::default()
    }
}

fn settings(url: String, grant: Grant) -> Settings {
    Settings {
        token_url: url,
        scope: "https://graph.example/.default".into(),
        secret_ends: None,
        rotation: None,
        grant,
        http: http(),
    }
}

fn by_secret(url: String) -> Settings {
    settings(
        url,
        Grant::ClientSecret {
            client_id: "app".into(),
            client_secret: Secret::new("s~e c+r/e=t&"),
            basic: false,
        },
    )
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::from_std(Instant::now() + Duration::from_secs(20))
}

fn text(obstacle: &Obstacle) -> String {
    format!("{} {}", obstacle.kind.as_str(), obstacle.reply.text)
}

#[tokio::test]
async fn a_secret_is_urlencoded_in_the_body_or_in_basic() {
    let endpoint = Endpoint::start(|_| granted("t1", 3599));
    let source =
        TokenSource::new("up", &by_secret(endpoint.url("/t/oauth2/v2.0/token")), None).unwrap();
    let token = source.token(soon()).await.unwrap();
    assert_eq!(token.reveal(), "t1");
    assert!(!format!("{token:?} {source:?}").contains("t1"));
    let asked = endpoint.asked().remove(0);
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    for (field, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", "app"),
        ("client_secret", "s~e c+r/e=t&"),
        ("scope", "https://graph.example/.default"),
    ] {
        assert_eq!(asked.field(field).as_deref(), Some(value), "{}", asked.body);
    }
    let mut basic = by_secret(endpoint.url("/x"));
    if let Grant::ClientSecret { basic, .. } = &mut basic.grant {
        *basic = true;
    }
    TokenSource::new("up", &basic, None)
        .unwrap()
        .token(soon())
        .await
        .unwrap();
    let asked = endpoint.asked().remove(1);
    let pair = base64::engine::general_purpose::STANDARD
        .decode(
            asked
                .header("authorization")
                .unwrap()
                .trim_start_matches("Basic "),
        )
        .unwrap();
    assert_eq!(
        String::from_utf8(pair).unwrap(),
        "app:s%7Ee+c%2Br%2Fe%3Dt%26"
    );
    assert_eq!(asked.field("client_secret"), None);
}

#[tokio::test]
async fn one_renewal_in_flight_for_any_number_of_jobs() {
    for (said, expected) in [
        (granted("t", 3599), "t"),
        (
            (503, String::new(), String::new()),
            "down the token endpoint answered 503",
        ),
        (
            refused("invalid_client", 7_000_222),
            "misconfigured no token (invalid_client, AADSTS7000222)",
        ),
    ] {
        let answer = said.clone();
        let go = Arc::new(Latch::default());
        let may = go.clone();
        let endpoint = Endpoint::start(move |_| {
            may.wait();
            answer.clone()
        });
        let source = TokenSource::new("up", &by_secret(endpoint.url("/")), None).unwrap();
        let ask = |jobs: &mut tokio::task::JoinSet<String>| {
            for _ in 0..50 {
                let source = source.clone();
                jobs.spawn(async move {
                    match source.token(soon()).await {
                        Ok(token) => token.reveal().to_owned(),
                        Err(report) => text(&report),
                    }
                });
            }
        };
        let mut jobs = tokio::task::JoinSet::new();
        ask(&mut jobs);
        // Those that give up do not take the renewal with them.
        until("the question", async || endpoint.asked().len() == 1).await;
        jobs.abort_all();
        while jobs.join_next().await.is_some() {}
        ask(&mut jobs);
        tokio::task::yield_now().await;
        go.open();
        while let Some(found) = jobs.join_next().await {
            let found = found.unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
        assert_eq!(endpoint.asked().len(), 1, "{expected}");
        if said.0 == 200 {
            // A refused token is forgotten once, whoever else still holds it.
            let token = source.token(soon()).await.unwrap();
            source.reject(&token);
            source.token(soon()).await.unwrap();
            source.token(soon()).await.unwrap();
            assert_eq!(endpoint.asked().len(), 2);
        }
    }
}

#[test]
fn fifty_messages_wait_for_one_token() {
    let sink = Upstream::scripted(|line| match line.split(' ').next() {
        Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
        Some("AUTH") => Some("235 2.7.0 ok".to_owned()),
        _ => None,
    });
    let all_wait = Arc::new(Latch::default());
    let endpoint = Endpoint::start({
        let all_wait = all_wait.clone();
        move |_| {
            all_wait.wait();
            granted("t", 3599)
        }
    });
    let gateway = Gateway::start(&xoauth2(
        &sink,
        "max_connections = 50\nmax_concurrent = 50",
        &format!("{MICROSOFT}, token_url = \"{}\"", endpoint.url("/t")),
    ));
    for _ in 0..50 {
        send(&gateway);
    }
    all_wait.open();
    sink.wait(50);
    assert_eq!(endpoint.asked().len(), 1);
}

#[test]
fn a_connection_is_left_before_its_token_ends() {
    let logins = Arc::new(AtomicUsize::new(0));
    let counter = logins.clone();
    let sink = Upstream::scripted(move |line| match line.split(' ').next() {
        Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
        Some("AUTH") => {
            counter.fetch_add(1, Ordering::SeqCst);
            Some("235 2.7.0 ok".to_owned())
        }
        _ => None,
    });
    // It is left a minute before: after ten seconds.
    let endpoint = Endpoint::start(|_| granted("t", 70));
    let gateway = Gateway::start(&xoauth2(
        &sink,
        "max_connections = 1",
        &format!("{MICROSOFT}, token_url = \"{}\"", endpoint.url("/t")),
    ));
    for (sent, expected, pause) in [(1, 1, 0), (2, 1, 11), (3, 2, 0)] {
        send(&gateway);
        sink.wait(sent);
        assert_eq!(logins.load(Ordering::SeqCst), expected);
        // The life of a token: the gateway has no other clock.
        std::thread::sleep(Duration::from_secs(pause));
    }
}

const MICROSOFT: &str = "provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\"";

/// A gateway that logs in at the sink with a token.
fn xoauth2(sink: &Upstream, more: &str, oauth: &str) -> String {
    let oauth = oauth.replace("tenant_id = \"corp.example\", ", "");
    basic(sink.address).replace(
        "tls = \"off\"",
        &format!("tls = \"off\"\nauth = \"xoauth2\"\n{more}\noauth = {{ {oauth} }}"),
    )
}

#[tokio::test]
async fn a_token_is_renewed_early_and_the_old_one_serves_while_the_endpoint_is_away() {
    let count = AtomicUsize::new(0);
    let endpoint = Endpoint::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        // Half of 8 s is the time of its renewal.
        0 => granted("old", 8),
        1 => (503, "Retry-After: 7\r\n".into(), String::new()),
        _ => granted("new", 3599),
    });
    let source = TokenSource::new("up", &by_secret(endpoint.url("/")), None).unwrap();
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "old");
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "old");
    assert_eq!(endpoint.asked().len(), 1);
    let mut at = source.token(soon()).await;
    until("the renewal", async || {
        at = source.token(soon()).await;
        endpoint.asked().len() == 2
    })
    .await;
    // The renewal failed; what is left of the old one is under its limit, or it serves on.
    assert!(
        at.is_err() || at.as_ref().is_ok_and(|t| t.reveal() == "old"),
        "{at:?}"
    );
    if let Err(obstacle) = &at
        && obstacle.kind == ObstacleKind::Down
    {
        assert_eq!(obstacle.retry_after, Some(Duration::from_secs(7)));
    }
    until("the next one", async || {
        let token = source.token(soon()).await;
        token.is_ok_and(|token| token.reveal() == "new")
    })
    .await;
}

#[tokio::test]
async fn errors_are_classed_and_name_the_remedy() {
    for (said, expected) in [
        (
            refused("invalid_client", 7_000_222),
            "misconfigured no token (invalid_client, AADSTS7000222): the client secret expired",
        ),
        (
            refused("unauthorized_client", 700_016),
            "misconfigured no token (unauthorized_client, AADSTS700016): there is no such application",
        ),
        (
            (429, "Retry-After: 99999\r\n".into(), "{}".into()),
            "down the token endpoint answered 429",
        ),
        (
            (200, String::new(), "<html>sign in</html>".into()),
            "down the token endpoint answered 200 with something that is not JSON",
        ),
        (
            (302, "Location: http://127.0.0.1:1/\r\n".into(), "{}".into()),
            "down the token endpoint answered 302",
        ),
    ] {
        let endpoint = Endpoint::start(move |_| said.clone());
        let source = TokenSource::new("up", &by_secret(endpoint.url("/")), None).unwrap();
        let report = source.token(soon()).await.unwrap_err();
        let found = text(&report);
        assert!(found.starts_with(expected), "{found}");
        assert!(!found.contains("s~e c+r"), "{found}");
        assert_eq!(endpoint.asked().len(), 1, "no redirect is followed");
        if let Some(wait) = report.retry_after {
            assert_eq!(wait, Duration::from_hours(1), "clamped");
        }
    }
    let huge = Endpoint::start(|_| (200, String::new(), "x".repeat(3 << 20)));
    let report = TokenSource::new("up", &by_secret(huge.url("/")), None)
        .unwrap()
        .token(soon())
        .await
        .unwrap_err();
    assert!(
        text(&report).contains("longer than 1 MiB"),
        "{}",
        text(&report)
    );
    let gone = by_secret("http://127.0.0.1:1/".into());
    let report = TokenSource::new("up", &gone, None)
        .unwrap()
        .token(soon())
        .await
        .unwrap_err();
    assert!(
        text(&report).starts_with("down token: 127.0.0.1 cannot be reached"),
        "{}",
        text(&report)
    );
    let mut forbidden = by_secret("https://login.evil.tld/".into());
    forbidden.http.allowed_hosts = vec!["login.example".into()];
    let report = TokenSource::new("up", &forbidden, None)
        .unwrap()
        .token(soon())
        .await
        .unwrap_err();
    assert!(
        text(&report).contains("not in outbound.allowed_hosts"),
        "{}",
        text(&report)
    );
}

/// A self-signed RSA certificate as openssl makes it: key.pem, cert.pem, public.pem, cert.der.
fn certificate(dir: &Path) {
    let at = |name: &str| dir.join(name).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=app",
            "-days",
            "2",
            "-keyout",
            &at("key.pem"),
            "-out",
            &at("cert.pem"),
        ],
    );
    run(
        "openssl",
        &[
            "x509",
            "-in",
            &at("cert.pem"),
            "-pubkey",
            "-noout",
            "-out",
            &at("public.pem"),
        ],
    );
    run(
        "openssl",
        &[
            "x509",
            "-in",
            &at("cert.pem"),
            "-outform",
            "DER",
            "-out",
            &at("cert.der"),
        ],
    );
}

#[tokio::test]
#[ignore = "needs openssl, which tests/run installs"]
async fn a_certificate_signs_what_entra_checks() {
    need("openssl");
    let dir = tempfile::TempDir::new().unwrap();
    certificate(dir.path());
    let (der, public) = (
        fs::read(dir.path().join("cert.der")).unwrap(),
        fs::read(dir.path().join("public.pem")).unwrap(),
    );
    let own: Arc<Mutex<String>> = Arc::default();
    let audience = own.clone();
    let endpoint = Endpoint::start(move |asked: &Asked| {
        match check_assertion(asked, &der, &public, "app", &audience.lock().unwrap()) {
            Ok(()) => granted("by-certificate", 3599),
            Err(why) => (
                401,
                String::new(),
                format!(
                    "{{\"error\":\"invalid_client\",\"error_codes\":[700027],\"why\":\"{why}\"}}"
                ),
            ),
        }
    });
    let url = endpoint.url("/tenant/oauth2/v2.0/token");
    own.lock().unwrap().clone_from(&url);
    let grant = Grant::Certificate {
        client_id: "app".into(),
        certificate: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let source = TokenSource::new("up", &settings(url.clone(), grant), None).unwrap();
    assert_eq!(
        source
            .token(soon())
            .await
            .map_err(|r| text(&r))
            .unwrap()
            .reveal(),
        "by-certificate"
    );
    // A new one on disk is used for the next token, without a reload: here the endpoint does not know it yet.
    let old = ["key.pem", "cert.pem"].map(|name| fs::read(dir.path().join(name)).unwrap());
    certificate(dir.path());
    source.reject(&source.token(soon()).await.unwrap());
    let found = text(&source.token(soon()).await.unwrap_err());
    assert!(found.contains("AADSTS700027"), "{found}");
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    let found = text(&source.token(soon()).await.unwrap_err());
    assert!(found.contains("key.pem cannot be read"), "{found}");
    for (name, octets) in ["key.pem", "cert.pem"].into_iter().zip(&old) {
        fs::write(dir.path().join(name), octets).unwrap();
    }
    assert!(source.token(soon()).await.is_ok());
    // Another key than the certificate's is refused before anybody is asked.
    let other = tempfile::TempDir::new().unwrap();
    certificate(other.path());
    let grant = Grant::Certificate {
        client_id: "app".into(),
        certificate: dir.path().join("cert.pem"),
        key: other.path().join("key.pem"),
    };
    let found = TokenSource::new("up", &settings(url, grant), None).unwrap_err();
    assert!(found.contains("key.pem does not belong to"), "{found}");
}

#[tokio::test]
#[ignore = "needs openssl, which tests/run installs"]
async fn a_google_service_account_signs_for_the_mailbox() {
    need("openssl");
    let dir = tempfile::TempDir::new().unwrap();
    certificate(dir.path());
    let public = fs::read(dir.path().join("public.pem")).unwrap();
    let own: Arc<Mutex<String>> = Arc::default();
    let audience = own.clone();
    let endpoint = Endpoint::start(move |asked: &Asked| {
        match check_google(asked, &public, "sa@project.example", &audience.lock().unwrap()) {
            Ok(claims)
                if claims["sub"] == "erp@corp.example"
                    && claims["scope"] == "https://graph.example/.default" =>
            {
                granted("by-google", 3599)
            }
            // The delegation is for one scope, and for mailboxes of the domain.
            Ok(_) => (401, String::new(), r#"{"error":"unauthorized_client"}"#.into()),
            Err(why) => (
                400,
                String::new(),
                serde_json::json!({"error": "invalid_grant", "error_description": format!("Invalid JWT: {why}")}).to_string(),
            ),
        }
    });
    let url = endpoint.url("/token");
    own.lock().unwrap().clone_from(&url);
    let key = fs::read_to_string(dir.path().join("key.pem")).unwrap();
    let file = dir.path().join("account.json");
    fs::write(&file, serde_json::json!({"type": "service_account", "client_email": "sa@project.example", "private_key_id": "k", "private_key": key}).to_string()).unwrap();
    for (subject, aud, expected) in [
        ("erp@corp.example", url.as_str(), "by-google"),
        (
            "boss@corp.example",
            url.as_str(),
            "misconfigured no token (unauthorized_client): the service account may not do that: give its client ID the scope https://mail.google.com/ under Domain-wide",
        ),
        (
            "erp@corp.example",
            "https://elsewhere.example/token",
            "misconfigured no token (invalid_grant): the assertion is for another endpoint; remove `token_url`",
        ),
    ] {
        own.lock().unwrap().clone_from(&aud.to_owned());
        let grant = Grant::GoogleServiceAccount {
            file: file.clone(),
            subject: subject.into(),
        };
        let source = TokenSource::new("up", &settings(url.clone(), grant), None).unwrap();
        let found = match source.token(soon()).await {
            Ok(token) => token.reveal().to_owned(),
            Err(report) => text(&report),
        };
        assert!(found.starts_with(expected), "{found}");
    }
    // Nothing but the grant and the assertion is sent.
    assert_eq!(endpoint.asked()[0].body.split('&').count(), 2);
}

#[tokio::test]
async fn a_federated_token_is_read_anew_and_a_managed_identity_is_asked_with_its_header() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let endpoint = Endpoint::start(|asked| granted(&asked.field("client_assertion").unwrap(), 0));
    let grant = Grant::Federated {
        client_id: "app".into(),
        file: file.clone(),
    };
    let source = TokenSource::new("up", &settings(endpoint.url("/"), grant), None).unwrap();
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "first");
    fs::write(&file, "second").unwrap();
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "second");
    for (content, expected) in [
        (Some("two words"), "holds no token"),
        (Some(" \n"), "holds no token"),
        // {"exp":1}: the platform has long ceased to renew it.
        (
            Some("e30.eyJleHAiOjF9.c2ln"),
            "ended at 1970-01-01T00:00:01Z",
        ),
        (None, "cannot be read"),
    ] {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let found = text(&source.token(soon()).await.unwrap_err());
        assert!(
            found.starts_with("misconfigured federated_token_file ") && found.contains(expected),
            "{found}"
        );
    }

    let metadata = Endpoint::start(|asked| {
        if asked.method != "GET"
            || asked.header("metadata") != Some("true")
            || asked.header("x-forwarded-for").is_some()
        {
            return (400, String::new(), "{}".into());
        }
        (
            200,
            String::new(),
            r#"{"access_token":"by-identity","expires_in":"3599","token_type":"Bearer"}"#.into(),
        )
    });
    let mut identity = settings(
        metadata.url("/metadata/identity/oauth2/token"),
        Grant::ManagedIdentity {
            client_id: Some("own".into()),
            host: Azure::Machine,
        },
    );
    // A proxy that does not exist: the metadata service is never asked through one.
    identity.http.proxy = Proxy {
        via: Some(ProxyServer {
            socks: false,
            host: "127.0.0.1".into(),
            port: 1,
            login: None,
        }),
        ..Proxy::default()
    };
    let source = TokenSource::new("up", &identity, None).unwrap();
    assert_eq!(
        source
            .token(soon())
            .await
            .map_err(|r| text(&r))
            .unwrap()
            .reveal(),
        "by-identity"
    );
    let asked = metadata.asked().remove(0);
    for (field, value) in [
        ("api-version", "2018-02-01"),
        ("resource", "https://graph.example/.default"),
        ("client_id", "own"),
    ] {
        assert_eq!(asked.field(field).as_deref(), Some(value));
    }
}

/// The agent of Azure Arc: it names a file, and gives a token to whoever says what stands in it.
#[tokio::test]
async fn the_agent_of_azure_arc_is_shown_the_key_it_names() {
    let tokens = tempfile::TempDir::new().unwrap();
    let key = tokens.path().join("a.key");
    fs::write(&key, "key-of-the-agent").unwrap();
    let named = Arc::new(Mutex::new(key.display().to_string()));
    let file = named.clone();
    let agent = Endpoint::start(move |asked: &Asked| {
        assert_eq!(asked.header("metadata"), Some("true"));
        if asked.header("authorization") == Some("Basic key-of-the-agent") {
            return granted("by-arc", 3599);
        }
        let realm = format!("WWW-Authenticate: Basic realm={}\r\n", file.lock().unwrap());
        (401, realm, r#"{"error":"unauthorized_client"}"#.into())
    });
    let grant = Grant::ManagedIdentity {
        client_id: None,
        host: Azure::Arc(tokens.path().to_owned()),
    };
    let settings = settings(agent.url("/metadata/identity/oauth2/token"), grant);
    let source = TokenSource::new("up", &settings, None).unwrap();
    let token = source.token(soon()).await.map_err(|r| text(&r)).unwrap();
    assert_eq!(token.reveal(), "by-arc");
    assert_eq!(
        agent.asked()[0].field("api-version").as_deref(),
        Some("2019-11-01")
    );
    // Whoever listens there instead of the agent reads no file of ours by it.
    *named.lock().unwrap() = "/etc/passwd".into();
    source.reject(&token);
    let before = agent.asked().len();
    let found = text(&source.token(soon()).await.unwrap_err());
    assert!(
        found.starts_with("misconfigured what answers as Azure Arc's agent"),
        "{found}"
    );
    assert_eq!(agent.asked().len(), before + 1);
}

#[tokio::test]
async fn azures_hosting_is_asked_with_its_header() {
    let hosting = Endpoint::start(|asked: &Asked| {
        if asked.header("x-identity-header") != Some("header-of-the-host") {
            return (400, String::new(), "{}".into());
        }
        let ends = std::time::SystemTime::now() + Duration::from_hours(1);
        let ends = ends
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let said = format!(
            r#"{{"access_token":"by-hosting","expires_on":"{}","token_type":"Bearer"}}"#,
            ends.as_secs()
        );
        (200, String::new(), said)
    });
    let grant = Grant::ManagedIdentity {
        client_id: None,
        host: Azure::Hosting(Secret::new("header-of-the-host")),
    };
    let settings = settings(hosting.url("/msi/token"), grant);
    let source = TokenSource::new("up", &settings, None).unwrap();
    let token = source.token(soon()).await.map_err(|r| text(&r)).unwrap();
    assert_eq!(token.reveal(), "by-hosting");
    assert_eq!(
        hosting.asked()[0].field("api-version").as_deref(),
        Some("2019-08-01")
    );
}

/// A keep in memory that can refuse.
#[derive(Default)]
struct Notes {
    saved: Mutex<HashMap<String, String>>,
    /// Found where nothing was saved under the key.
    put: Mutex<Option<String>>,
    full: AtomicBool,
    unreadable: AtomicBool,
}

impl Notes {
    fn put(&self, print: &str, token: &str) {
        *self.put.lock().unwrap() = Some(format!("{print} {token}"));
    }

    fn all(&self) -> Vec<String> {
        self.saved.lock().unwrap().values().cloned().collect()
    }
}

#[async_trait::async_trait]
impl TokenStore for Notes {
    async fn load(&self, key: &str) -> Result<Option<String>, String> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err("the disk is gone".into());
        }
        let saved = self.saved.lock().unwrap().get(key).cloned();
        Ok(saved.or_else(|| self.put.lock().unwrap().clone()))
    }
    async fn save(&self, key: &str, value: String) -> Result<(), String> {
        if self.full.load(Ordering::SeqCst) {
            return Err("full".into());
        }
        self.saved.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }
    async fn replace(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, String> {
        let is_ours = self.load(key).await? == seen;
        if is_ours {
            self.save(key, value).await?;
        }
        Ok(is_ours)
    }
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_before_it_is_used() {
    let count = AtomicUsize::new(0);
    let endpoint = Endpoint::start(move |asked| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let body = serde_json::json!({"access_token": format!("after {}", asked.field("refresh_token").unwrap()).replace(' ', "-"), "expires_in": 0, "refresh_token": format!("r{}", n + 1)});
        (200, String::new(), body.to_string())
    });
    let grant = |token: &str| Grant::RefreshToken {
        client_id: "app".into(),
        client_secret: None,
        refresh_token: Secret::new(token),
    };
    let notes = Arc::new(Notes::default());
    let source = TokenSource::new(
        "up",
        &settings(endpoint.url("/"), grant("r0")),
        Some(notes.clone()),
    )
    .unwrap();
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "after-r0");
    assert!(notes.all().iter().any(|saved| saved.ends_with(" r1")));
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "after-r1");
    // After a restart the kept one goes on; another configured one wins.
    let again = TokenSource::new(
        "up",
        &settings(endpoint.url("/"), grant("r0")),
        Some(notes.clone()),
    )
    .unwrap();
    assert_eq!(again.token(soon()).await.unwrap().reveal(), "after-r2");
    let other = TokenSource::new(
        "up",
        &settings(endpoint.url("/"), grant("new")),
        Some(notes),
    )
    .unwrap();
    assert_eq!(other.token(soon()).await.unwrap().reveal(), "after-new");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_used_and_not_forgotten() {
    let count = AtomicUsize::new(0);
    let endpoint = Endpoint::start(move |asked| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let body = serde_json::json!({"access_token": format!("after-{}", asked.field("refresh_token").unwrap()), "expires_in": 3599, "refresh_token": format!("r{}", n + 1)});
        (200, String::new(), body.to_string())
    });
    let grant = Grant::RefreshToken {
        client_id: "app".into(),
        client_secret: None,
        refresh_token: Secret::new("r0"),
    };
    let notes = Arc::new(Notes::default());
    let source = TokenSource::new(
        "up",
        &settings(endpoint.url("/"), grant),
        Some(notes.clone()),
    )
    .unwrap();
    notes.full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let found = text(&source.token(soon()).await.unwrap_err());
        assert!(
            found.starts_with("down the new refresh token cannot be kept: full"),
            "{found}"
        );
        assert_eq!(
            endpoint.asked().len(),
            1,
            "nothing is asked before it is kept"
        );
    }
    notes.full.store(false, Ordering::SeqCst);
    // Neither the old one, which the endpoint may take for stolen, nor nothing.
    assert_eq!(source.token(soon()).await.unwrap().reveal(), "after-r1");
    // A store that cannot be read is no reason to take an old one either.
    notes.unreadable.store(true, Ordering::SeqCst);
    let token = source.token(soon()).await.unwrap();
    source.reject(&token);
    let found = text(&source.token(soon()).await.unwrap_err());
    assert!(
        found.starts_with("down the kept refresh token cannot be read"),
        "{found}"
    );
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn a_kept_token_that_is_dead_gives_way_to_the_configured_one() {
    let endpoint = Endpoint::start(|asked| match asked.field("refresh_token").as_deref() {
        Some("kept") => (400, String::new(), r#"{"error":"invalid_grant"}"#.into()),
        other => granted(&format!("after-{}", other.unwrap()), 3599),
    });
    let grant = |token: &str| Grant::RefreshToken {
        client_id: "app".into(),
        client_secret: None,
        refresh_token: Secret::new(token),
    };
    let notes = Arc::new(Notes::default());
    let new = |token: &str| {
        TokenSource::new(
            "up",
            &settings(endpoint.url("/"), grant(token)),
            Some(notes.clone()),
        )
        .unwrap()
    };
    // As it would have been written for r0.
    let print = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"r0"));
    notes.put(&print, "kept");
    assert_eq!(new("r0").token(soon()).await.unwrap().reveal(), "after-r0");
    let used: Vec<_> = endpoint
        .asked()
        .iter()
        .filter_map(|a| a.field("refresh_token"))
        .collect();
    assert_eq!(used, ["kept", "r0"]);
}

#[tokio::test]
async fn two_mailboxes_of_one_client_keep_their_own_tokens() {
    let endpoint = Endpoint::start(|asked| {
        let used = asked.field("refresh_token").unwrap();
        let body = serde_json::json!({"access_token": format!("after-{used}"), "expires_in": 3599, "refresh_token": format!("{used}+")});
        (200, String::new(), body.to_string())
    });
    let notes = Arc::new(Notes::default());
    for round in 0..3 {
        // Each time as after a restart.
        for token in ["a", "b"] {
            let grant = Grant::RefreshToken {
                client_id: "app".into(),
                client_secret: None,
                refresh_token: Secret::new(token),
            };
            let source = TokenSource::new(
                "up",
                &settings(endpoint.url("/"), grant),
                Some(notes.clone()),
            )
            .unwrap();
            assert_eq!(
                source.token(soon()).await.unwrap().reveal(),
                format!("after-{token}{}", "+".repeat(round))
            );
        }
    }
}

/// A strict rotation: each refresh token is good once, and whoever shows an old one loses them all.
fn rotating(first: &'static str) -> Endpoint {
    let newest = Mutex::new(first.to_owned());
    let count = AtomicUsize::new(0);
    Endpoint::start(move |asked| {
        let mut newest = newest.lock().unwrap();
        if asked.field("refresh_token").as_deref() != Some(&newest) {
            *newest = "revoked".into();
            return (400, String::new(), r#"{"error":"invalid_grant"}"#.into());
        }
        let n = count.fetch_add(1, Ordering::SeqCst);
        *newest = format!("rotated-{n}");
        let body = serde_json::json!({"access_token": format!("access-{n}"), "expires_in": 3599, "refresh_token": *newest});
        (200, String::new(), body.to_string())
    })
}

#[test]
fn a_rotated_token_survives_kill_9_at_the_moment_of_its_first_use() {
    let endpoint = rotating("configured");
    // The upstream tells when a token is used for the first time, and waits then.
    let used = Arc::new(AtomicUsize::new(0));
    let counter = used.clone();
    let sink = Upstream::scripted(move |line| match line.split(' ').next() {
        Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
        Some("AUTH") => {
            if counter.fetch_add(1, Ordering::SeqCst) < 5 {
                Latch::default().wait();
            }
            Some("235 2.7.0 ok".to_owned())
        }
        _ => None,
    });
    let mut gateway = Gateway::start(&xoauth2(
        &sink,
        "",
        &format!(
            "provider = \"google\", mailbox = \"erp@corp.example\", client_id = \"app\", client_secret = \"hush-hush-value\", refresh_token = \"configured\", token_url = \"{}\"",
            endpoint.url("/t")
        ),
    ));
    send(&gateway);
    for round in 1..=5 {
        wait("the token is used", || {
            (used.load(Ordering::SeqCst) >= round).then_some(())
        });
        gateway.kill();
        gateway.restart();
    }
    let mails = sink.wait(1);
    assert_eq!(mails.len(), 1);
    let asked: Vec<_> = endpoint
        .asked()
        .iter()
        .filter_map(|a| a.field("refresh_token"))
        .collect();
    assert_eq!(
        asked,
        [
            "configured",
            "rotated-0",
            "rotated-1",
            "rotated-2",
            "rotated-3",
            "rotated-4"
        ],
        "each was on disk before what came with it was used"
    );
    // Commands find it too, and leave the newest one behind.
    let check = stdout(&gateway.cli(&["check", "--connect"]));
    assert!(check.contains("logged in with XOAUTH2"), "{check}");
    gateway.kill();
    gateway.restart();
    send(&gateway);
    sink.wait(2);
    assert!(!gateway.log().contains("rotated-"));
}

/// An upstream that wants XOAUTH2 with this token, and a gateway that has it from the endpoint.
fn mail_by_token(
    good: &'static str,
    first: &'static str,
    auth: &str,
) -> (Upstream, Endpoint, Gateway) {
    let sink = Upstream::scripted(move |line| {
        if line.starts_with("EHLO") {
            return Some("250-sink\r\n250 AUTH XOAUTH2 OAUTHBEARER".to_owned());
        }
        if line.starts_with("AUTH") && line.split(' ').count() == 2 {
            return Some("334 ".to_owned());
        }
        let response = line
            .strip_prefix("AUTH XOAUTH2 ")
            .or(line.strip_prefix("AUTH OAUTHBEARER "))
            .unwrap_or(line);
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(response)
            .ok()
            .and_then(|d| String::from_utf8(d).ok());
        match decoded {
            Some(text)
                if text.contains(&format!("auth=Bearer {good}\u{1}\u{1}"))
                    && text.contains("erp@corp.example") =>
            {
                Some("235 2.7.0 ok".to_owned())
            }
            Some(text) if text.contains("auth=Bearer") => {
                Some("334 eyJzdGF0dXMiOiI0MDEifQ==".to_owned())
            }
            // The empty line (or ^A) after the 334 with the reason.
            _ if line.is_empty() || line == "AQ==" => {
                Some("535 5.7.3 Authentication unsuccessful".to_owned())
            }
            _ => None,
        }
    });
    let count = AtomicUsize::new(0);
    let endpoint = Endpoint::start(move |_| {
        granted(
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                first
            } else {
                good
            },
            3599,
        )
    });
    let oauth = format!(
        "tls = \"off\"\nauth = \"{auth}\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\", token_url = \"{}\" }}",
        endpoint.url("/t")
    );
    let gateway = Gateway::start(&basic(sink.address).replace("tls = \"off\"", &oauth));
    (sink, endpoint, gateway)
}

#[test]
fn mail_leaves_by_xoauth2_and_oauthbearer() {
    let long: &'static str = Box::leak("T".repeat(3000).into_boxed_str());
    for auth in ["xoauth2", "oauthbearer"] {
        for token in ["short", long] {
            let (sink, endpoint, gateway) = mail_by_token(token, token, auth);
            send(&gateway);
            sink.wait(1);
            assert_eq!(endpoint.asked().len(), 1);
            let test = stdout(&gateway.cli(&[
                "test",
                "up",
                "--from",
                "erp@corp.example",
                "--to",
                "y@corp.example",
            ]));
            assert!(
                test.contains("***") && !test.contains("hush") && !test.contains(&"T".repeat(20)),
                "{test}"
            );
            let log = gateway.log();
            assert!(
                !log.contains("hush-hush") && !log.contains("Bearer"),
                "{log}"
            );
        }
    }
}

#[test]
fn a_token_that_is_refused_is_renewed_once_and_then_the_connector_pauses() {
    let (sink, endpoint, gateway) = mail_by_token("good", "stale", "xoauth2");
    send(&gateway);
    sink.wait(1);
    assert_eq!(endpoint.asked().len(), 2, "one renewal");
    let sink = Upstream::scripted(|line| {
        if line.starts_with("EHLO") {
            return Some("250-sink\r\n250 AUTH XOAUTH2".to_owned());
        }
        line.starts_with("AUTH").then(|| "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox".to_owned())
    });
    let endpoint = Endpoint::start(|_| granted("t", 3599));
    let oauth = format!(
        "tls = \"off\"\nauth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\", token_url = \"{}\" }}",
        endpoint.url("/t")
    );
    let gateway = Gateway::start(&basic(sink.address).replace("tls = \"off\"", &oauth));
    let id = send(&gateway);
    let status = wait("paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains("paused").then_some(text)
    });
    assert!(
        status.contains("5.7.139") && status.contains("Set-CASMailbox"),
        "{status}"
    );
    assert_eq!(endpoint.asked().len(), 1, "no token heals this");
    assert!(stdout(&gateway.cli(&["trace", &id])).contains("is waiting"));
    assert_eq!(sink.count(), 0);
}

#[test]
fn a_token_failure_pauses_and_never_bounces() {
    let sink = Upstream::start();
    let endpoint = Endpoint::start(|_| refused("invalid_client", 7_000_222));
    let oauth = format!(
        "tls = \"off\"\nauth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\", token_url = \"{}\" }}",
        endpoint.url("/t")
    );
    let config = basic(sink.address)
        .replace("tls = \"off\"", &oauth)
        .replace("retry = [\"1s\"]", "retry = [\"1s\"]\ngive_up = \"2s\"");
    let gateway = Gateway::start(&config);
    let id = send(&gateway);
    let status = wait("paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains("paused").then_some(text)
    });
    assert!(
        status.contains("the client secret expired; create a new one"),
        "{status}"
    );
    // In the log too, whole.
    gateway.wait_for_log(&["connector paused", "AADSTS7000222", "set client_secret"]);
    // Longer than `give_up`: a pause does not count.
    stays("it waits, alone", Duration::from_secs(3), || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        list.as_array().unwrap().len() == 1
            && (list[0]["id"].as_str(), list[0]["state"].as_str())
                == (Some(id.as_str()), Some("waiting"))
    });
    let check = gateway.cli(&["check", "--connect"]);
    assert_eq!(check.status.code(), Some(69));
    let text = String::from_utf8_lossy(&check.stdout).into_owned()
        + &String::from_utf8_lossy(&check.stderr);
    assert!(
        text.contains("AADSTS7000222") && !text.contains("hush"),
        "{text}"
    );
}
