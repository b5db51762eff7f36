//! The usual mistakes, all of them in one configuration: `postern doctor` names each, and the gateway that runs into them all bounces nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{
    cloud::error,
    cloud_token::{Asked, Endpoint, Said, granted, refused},
    gateway::{Gateway, basic},
    proxy::{Authority, Begin, Front, Kind, Proxy, Rules},
    upstream::{Act, Script, Upstream},
};

/// A connector with a mistake: the word of its cause, the check that finds it, its keys.
struct Mistake {
    cause: &'static str,
    check: &'static str,
    keys: String,
    /// A gateway says it within a minute, too. One that greets nobody is waited for five; and a page in answer to a mail leaves that mail in
    /// doubt, not its lane shut.
    is_soon: bool,
}

/// What the connectors of the mistakes lead to, for as long as it lives.
struct World {
    mistakes: Vec<Mistake>,
    _ends: (Vec<Upstream>, Vec<Proxy>, Vec<Front>, Endpoint, TempDir),
}

const ENTRA: &[(u64, &str)] = &[
    (7_000_215, "secret-wrong"),
    (7_000_222, "secret-expired"),
    (7_000_216, "credential-unseen"),
    (900_144, "credential-unseen"),
    (90_014, "credential-unseen"),
    (90_002, "tenant-unknown"),
    (900_023, "tenant-unknown"),
    (50_059, "tenant-unknown"),
    (700_016, "app-unknown"),
    (700_011, "app-unknown"),
    (7_000_229, "app-no-principal"),
    (7_000_112, "app-disabled"),
    (7_000_114, "app-disabled"),
    (700_025, "app-public"),
    (9_001_023, "tenant-common"),
    (50_194, "tenant-common"),
    (900_382, "cloud-wrong"),
    (900_432, "cloud-wrong"),
    (65_001, "consent-missing"),
    (90_094, "consent-missing"),
    (500_011, "resource-unknown"),
    (650_057, "resource-unknown"),
    (500_014, "resource-off"),
    (650_052, "resource-off"),
    (70_011, "scope-wrong"),
    (1_002_012, "scope-wrong"),
    (700_027, "certificate-unregistered"),
    (700_030, "certificate-unregistered"),
    (1_000_502, "certificate-expired"),
    (700_213, "federated-mismatch"),
    (7_002_138, "federated-mismatch"),
    (53_000, "access-policy-entra"),
    (53_003, "access-policy-entra"),
    (530_034, "access-policy-entra"),
    (50_105, "not-assigned"),
    (501_051, "not-assigned"),
    (700_082, "refresh-ended"),
    (50_173, "refresh-ended"),
    (50_053, "user-locked"),
    (50_126, "user-locked"),
    (50_076, "second-factor"),
    (50_079, "second-factor"),
    (500_021, "tenant-restricted"),
    (500_022, "tenant-restricted"),
    (700_024, "clock"),
    (500_133, "clock"),
];

/// Status, code, the words with it, its cause.
const GRAPH: &[(u16, &str, &str, &str)] = &[
    (
        403,
        "ErrorAccessDenied",
        "Access is denied. Check credentials and try again.",
        "mailbox-denied",
    ),
    (
        403,
        "ErrorAccessDenied",
        "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
        "policy-denied",
    ),
    (
        401,
        "NoPermissionsInAccessToken",
        "The token contains no permissions",
        "permission-none",
    ),
    (
        404,
        "ErrorInvalidUser",
        "The requested user is invalid.",
        "mailbox-unknown",
    ),
    (
        404,
        "ResourceNotFound",
        "Resource could not be discovered.",
        "mailbox-unknown",
    ),
    (
        404,
        "MailboxNotEnabledForRESTAPI",
        "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
        "mailbox-elsewhere",
    ),
    (
        401,
        "OrganizationFromTenantGuidNotFound",
        "The tenant for tenant guid does not exist.",
        "tenant-no-exchange",
    ),
    (
        403,
        "ErrorSendAsDenied",
        "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account.",
        "send-as-denied",
    ),
    (
        507,
        "ErrorQuotaExceeded",
        "The message was not sent, since the mailbox is full.",
        "mailbox-full",
    ),
    (
        403,
        "ErrorMessageSubmissionBlocked",
        "The message can't be submitted because the sender has exceeded its submission quota.",
        "mailbox-blocked",
    ),
    (
        403,
        "ErrorAccountSuspend",
        "Account suspended.",
        "mailbox-blocked",
    ),
    (
        429,
        "ErrorExceededMessageLimit",
        "Cannot send mail. Follow the instructions in your Inbox to verify your account.",
        "quota-day",
    ),
];

/// Where a smarthost says what (of what it offers), by which login, its cause and check.
type Refused = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);
const PLAIN: &str = "AUTH_PLAIN";
const LOGIN: &str = "tls = \"off\"\nusername = \"app\"\npassword = \"hush-hush-value\"\nplaintext_credentials = true\n";
const NO_LOGIN: &str = "tls = \"off\"\n";
const SMTP: &[Refused] = &[
    (
        PLAIN,
        "AUTH",
        "535 5.7.8 authentication failed",
        LOGIN,
        "login-refused",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
        LOGIN,
        "smtp-auth-off",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
        LOGIN,
        "basic-ended",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        LOGIN,
        "basic-ended",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.",
        LOGIN,
        "access-policy-entra",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
        LOGIN,
        "access-policy-entra",
        "login",
    ),
    (
        PLAIN,
        "AUTH",
        "534-5.7.9 Application-specific password required. Learn more at\r\n534 5.7.9  https://support.google.com/mail/?p=InvalidSecondFactor",
        LOGIN,
        "google-password",
        "login",
    ),
    ("SIZE_100000000", "", "", LOGIN, "auth-missing", "login"),
    ("AUTH_GSSAPI", "", "", LOGIN, "auth-missing", "login"),
    (
        "SIZE_100000000",
        "",
        "",
        "tls = \"starttls\"\n",
        "starttls-missing",
        "tls",
    ),
    (
        "XXXXXXXA",
        "",
        "",
        "tls = \"starttls\"\n",
        "starttls-missing",
        "tls",
    ),
    (
        "SIZE_100000000",
        "",
        "",
        "tls = \"implicit\"\n",
        "tls-mode",
        "tls",
    ),
    (
        "",
        "EHLO",
        "504 5.5.2 <relay>: Helo command rejected: need fully-qualified hostname",
        NO_LOGIN,
        "helo-refused",
        "greeting",
    ),
    (
        "",
        "MAIL",
        "530 5.7.57 Client not authenticated to send mail.",
        NO_LOGIN,
        "not-logged-in",
        "sender",
    ),
    (
        "",
        "MAIL",
        "503 5.5.1 authenticate first",
        NO_LOGIN,
        "not-logged-in",
        "sender",
    ),
    (
        "",
        "MAIL",
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        NO_LOGIN,
        "send-as-denied",
        "sender",
    ),
    (
        "",
        "MAIL",
        "550 5.1.8 Access denied, bad outbound sender",
        NO_LOGIN,
        "mailbox-blocked",
        "sender",
    ),
    (
        "",
        "MAIL",
        "550 5.2.2 Submission quota exceeded",
        NO_LOGIN,
        "quota-day",
        "sender",
    ),
    (
        "",
        "RCPT",
        "550 5.7.64 TenantAttribution; Relay Access Denied",
        NO_LOGIN,
        "relay-denied",
        "sender",
    ),
    (
        "",
        "RCPT",
        "554 5.7.1 <x@corp.example>: Relay access denied",
        NO_LOGIN,
        "relay-denied",
        "sender",
    ),
    (
        "",
        "RCPT",
        "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
        NO_LOGIN,
        "relay-denied",
        "sender",
    ),
    (
        "",
        "MAIL",
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        NO_LOGIN,
        "tenant-blocked",
        "sender",
    ),
    (
        "",
        "MAIL",
        "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
        NO_LOGIN,
        "tenant-blocked",
        "sender",
    ),
];

/// How a proxy answers CONNECT.
const PROXIES: &[(&str, &str)] = &[
    (
        "407 Login\r\nProxy-Authenticate: Basic realm=\"p\"",
        "proxy-login",
    ),
    (
        "407 Login\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM",
        "proxy-ntlm",
    ),
    ("403 Forbidden", "proxy-refuses"),
    ("502 Bad Gateway", "proxy-refuses"),
    ("503 Service Unavailable", "proxy-refuses"),
];

fn jwt(claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        part(r#"{"alg":"RS256"}"#),
        part(&claims.to_string())
    )
}

/// Everything of Microsoft's: the path says what is answered.
fn microsoft(asked: &Asked) -> Said {
    let parts: Vec<&str> = asked.target.trim_start_matches('/').split('/').collect();
    let is_token = asked.target.contains("/oauth2/v2.0/token");
    match parts[..] {
        ["entra", code, ..] => refused("invalid_client", code.parse().unwrap()),
        ["page" | "challenge" | "graph", ..] if is_token => granted("opaque", 3599),
        ["page" | "nothing", ..] => (
            200,
            "Content-Type: text/html\r\n".into(),
            "<html><title>Sign in to the network</title></html>".into(),
        ),
        ["identity", ..] => (404, String::new(), String::new()),
        ["google", word, ..] => {
            let (error, said) = match word {
                "key" => ("invalid_grant", "Invalid JWT Signature."),
                "subject" => ("invalid_grant", "Invalid email or User ID"),
                _ => (
                    "unauthorized_client",
                    "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.",
                ),
            };
            (
                400,
                String::new(),
                json!({"error": error, "error_description": said}).to_string(),
            )
        }
        ["roles", ..] if is_token => granted(
            &jwt(&json!({"aud": "https://graph.microsoft.com", "roles": ["User.Read.All"]})),
            3599,
        ),
        ["roles", ..] => error(403, "ErrorAccessDenied", ""),
        ["audience", ..] if !is_token => error(401, "InvalidAuthenticationToken", ""),
        ["audience", ..] => granted(&jwt(&json!({"aud": "https://vault.azure.net"})), 3599),
        ["challenge", ..] => error(
            401,
            "InvalidAuthenticationToken",
            "WWW-Authenticate: Bearer realm=\"\", error=\"insufficient_claims\", claims=\"eyJ9\"\r\n",
        ),
        ["graph", row, ..] => {
            let (status, code, words, _) = GRAPH[row.parse::<usize>().unwrap()];
            let body = json!({"error": {"code": code, "message": words}});
            (status, String::new(), body.to_string())
        }
        _ => panic!("{}", asked.target),
    }
}

fn graph(login: &str, graph: &str, mailbox: &str) -> String {
    format!(
        "type = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\nclient_secret = \"hush-hush-value\"\n\
         mailbox = \"{mailbox}\"\nlogin_url = \"{login}\"\ngraph_url = \"{graph}\"\n"
    )
}

fn expired(authority: &str) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(authority, certificate.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let cloud = Endpoint::start(microsoft);
        let (mut mistakes, mut upstreams) = (Vec::new(), Vec::new());
        let mut add = |cause, check, keys: String| {
            let is_soon = !keys.contains("/page") && !keys.contains("timeout");
            mistakes.push(Mistake {
                cause,
                check,
                keys,
                is_soon,
            });
        };
        for (code, cause) in ENTRA {
            let login = cloud.url(&format!("/entra/{code}"));
            add(*cause, "token", graph(&login, &login, "relay@corp.example"));
        }
        for (row, (.., cause)) in GRAPH.iter().enumerate() {
            let at = cloud.url(&format!("/graph/{row}"));
            add(*cause, "mailbox", graph(&at, &at, "relay@corp.example"));
        }
        for (path, cause, check) in [
            ("/roles", "role-missing", "mailbox"),
            ("/audience", "audience-wrong", "claims"),
            ("/challenge", "claims-challenge", "mailbox"),
            ("/page", "proxy-page", "mailbox"),
            ("/nothing", "proxy-page", "token"),
        ] {
            add(
                cause,
                check,
                graph(&cloud.url(path), &cloud.url(path), "relay@corp.example"),
            );
        }
        let mut smtp = |script: Script, more: &str| {
            let upstream = script.start();
            let keys = format!(
                "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n{more}",
                upstream.address.port()
            );
            upstreams.push(upstream);
            keys
        };
        for (offers, stage, said, more, cause, check) in SMTP.iter().copied() {
            let script = Script::default().offers(offers).when(move |at| {
                let is_there = !stage.is_empty() && at.stage.starts_with(stage);
                is_there.then(|| Act::says(said))
            });
            add(cause, check, smtp(script, more));
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let account = dir.path().join("account.json");
        let content = json!({"type": "service_account", "client_email": "sa@project.example", "private_key_id": "k", "private_key": key.serialize_pem()});
        std::fs::write(&account, content.to_string()).unwrap();
        for (word, cause) in [
            ("key", "google-key"),
            ("subject", "google-subject"),
            ("delegation", "google-delegation"),
        ] {
            let oauth = format!(
                "tls = \"off\"\noauth = {{ provider = \"google\", service_account_file = \"{}\", subject = \"erp@corp.example\", token_url = \"{}\" }}\n",
                account.display(),
                cloud.url(&format!("/google/{word}"))
            );
            let script = Script::default().offers("AUTH_XOAUTH2");
            add(cause, "token", smtp(script, &oauth));
        }
        let by_token = Script::default()
            .offers("AUTH_XOAUTH2")
            .at("AUTH", Act::says("535 5.7.3 Authentication unsuccessful"));
        add(
            "smtp-sendas",
            "login",
            smtp(
                by_token,
                &format!(
                    "tls = \"off\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"erp@corp.example\", login_url = \"{}\" }}\n",
                    cloud.url("/graph/0")
                ),
            ),
        );
        for (at, check) in [
            (cloud.url("/identity"), "token"),
            ("http://127.0.0.1:1".to_owned(), "tcp"),
        ] {
            let keys = graph(&at, &cloud.url("/graph/0"), "relay@corp.example");
            let keys = keys.replace("tenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\nclient_secret = \"hush-hush-value\"\n", "managed_identity = true\n");
            add("identity-missing", check, keys);
        }
        let (trusted, nosy) = (Authority::new("ours"), Authority::new("another"));
        let ca = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(ca("ca.pem"), &trusted.pem).unwrap();
        let trust = |name: &str| format!("tls = \"implicit\"\nca_file = \"{}\"\n", ca(name));
        for (server, more, cause) in [
            (nosy.server(&["127.0.0.1"]), trust("ca.pem"), "tls-issuer"),
            (
                trusted.server(&["mail.other.example"]),
                trust("ca.pem"),
                "tls-name",
            ),
            (expired(&ca("old.pem")), trust("old.pem"), "tls-expired"),
        ] {
            add(
                cause,
                "tls",
                smtp(Script::default().implicit(Arc::new(server)), &more),
            );
        }
        add("tls-mode", "tls", {
            let server = trusted.server(&["127.0.0.1"]);
            let more = format!(
                "tls = \"starttls\"\ntimeout = \"10s\"\nca_file = \"{}\"\n",
                ca("ca.pem")
            );
            smtp(Script::default().implicit(Arc::new(server)), &more)
        });
        add(
            "dns-failed",
            "dns",
            "type = \"smtp\"\nhost = \"no-such-host.invalid\"\ntls = \"off\"\n".into(),
        );
        add(
            "host-unreachable",
            "tcp",
            "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"off\"\n".into(),
        );
        let through = |proxy: &str| {
            format!(
                "{}proxy = \"{proxy}\"\n",
                graph(
                    "https://login.corp.example",
                    "https://graph.corp.example",
                    "relay@corp.example"
                )
            )
        };
        add("proxy-unreachable", "proxy", through("http://127.0.0.1:1"));
        let mut proxies = Vec::new();
        for (answer, cause) in PROXIES {
            let proxy = Proxy::start(Rules {
                answer: Some(answer),
                ..Rules::new(Kind::Connect, &[])
            });
            add(
                *cause,
                "proxy",
                through(&format!("http://{}", proxy.address)),
            );
            proxies.push(proxy);
        }
        let hosts = ["login.microsoftonline.com", "graph.microsoft.com"];
        let front = Front::start(&nosy, &hosts, Begin::AtOnce, cloud.address);
        let known = [
            ("login.microsoftonline.com:443", front.address),
            ("graph.microsoft.com:443", front.address),
        ];
        let proxy = Proxy::start(Rules::new(Kind::Connect, &known));
        let keys = graph("x", "x", "relay@corp.example")
            .replace("login_url = \"x\"\ngraph_url = \"x\"\n", "");
        add(
            "tls-inspected",
            "tls",
            format!("{keys}proxy = \"http://{}\"\n", proxy.address),
        );
        proxies.push(proxy);
        Self {
            mistakes,
            _ends: (upstreams, proxies, vec![front], cloud, dir),
        }
    }

    /// All of them, each with a route of its own.
    fn config(&self) -> String {
        let base = basic(([127, 0, 0, 1], 1).into());
        let (front, _) = base.split_once("[[connector]]").unwrap();
        let (front, _) = front.split_once("[[route]]").unwrap_or((front, ""));
        let numbered = || self.mistakes.iter().enumerate();
        let connectors = numbered()
            .map(|(n, mistake)| format!("[[connector]]\nname = \"c{n}\"\n{}\n", mistake.keys));
        let routes = numbered().map(|(n, _)| {
            format!(
                "[[route]]\nname = \"r{n}\"\nsenders = [\"app@corp.example\"]\nrecipients = [\"x{n}@corp.example\"]\nconnectors = [\"c{n}\"]\n"
            )
        });
        let parts: Vec<String> = connectors.chain(routes).collect();
        format!("{front}{}", parts.concat())
    }
}

#[test]
fn doctor_names_each_of_them_at_once() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), world.config()).unwrap();
    let output = std::process::Command::new(Gateway::binary())
        .args(["doctor", "-c", "config.toml", "--json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(69),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!text.contains("hush"), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (n, mistake) in world.mistakes.iter().enumerate() {
        let of_it = |check: &&Value| check["connector"] == format!("c{n}");
        let checks: Vec<&Value> = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_it)
            .collect();
        let found = checks.iter().find(|check| check["state"] == "failed");
        let found = found.map(|one| {
            (
                one["check"].as_str().unwrap(),
                one["cause"].as_str().unwrap_or("-"),
            )
        });
        let is_fixable = checks
            .iter()
            .any(|check| check["cause"] == mistake.cause && check["fix"].is_string());
        if found != Some((mistake.check, mistake.cause)) || !is_fixable {
            wrong.push(format!(
                "{} at {}: {found:?} {checks:?}",
                mistake.cause, mistake.check
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_gateway_that_meets_them_all_bounces_nothing_and_says_each() {
    let world = World::new();
    let gateway = Gateway::start(&world.config());
    let count = world.mistakes.len();
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    for n in 0..count {
        let to = format!("x{n}@corp.example");
        let content = format!("From: app@corp.example\r\nSubject: m{n}\r\n\r\ntext\r\n");
        client.mail("app@corp.example", &[&to], &content);
    }
    let status = || -> Value {
        let output = gateway.cli(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let missing = || {
        let status = status();
        let lanes = status["connectors"].as_array().unwrap().clone();
        let is_said = |n: &usize| {
            lanes.iter().any(|lane| {
                let name = lane["name"].as_str().unwrap_or_default();
                let is_its = name == format!("c{n}") || name.starts_with(&format!("c{n}/"));
                is_its && lane["cause"] == world.mistakes[*n].cause
            })
        };
        let left = (0..count).filter(|n| world.mistakes[*n].is_soon && !is_said(n));
        let left: Vec<String> = left
            .map(|n| {
                let its: Vec<&Value> = lanes
                    .iter()
                    .filter(|lane| lane["name"] == format!("c{n}"))
                    .collect();
                format!("c{n} {}: {its:?}", world.mistakes[n].cause)
            })
            .collect();
        left
    };
    let begun = Instant::now();
    while !missing().is_empty() && begun.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(500));
    }
    let left = missing();
    assert!(left.is_empty(), "{}\n{}", left.len(), left.join("\n"));
    let listed = gateway.cli(&["queue", "list", "--all"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let is_kept = |line: &&str| line.contains(" waiting ") || line.contains(" sending ");
    let kept = listed.lines().filter(is_kept);
    assert_eq!(kept.count(), count, "{listed}");
    assert_eq!(listed.lines().count(), count + 1, "no bounce: {listed}");
}

/// The table for administrators says what the program says.
#[test]
fn the_page_of_mistakes_is_the_table() {
    let mut page = String::from(
        "# The usual mistakes\n\n\
         One word each. It ends a line of `postern doctor`, of the log and of the state of a connector in brackets; `postern status --json`,\n\
         `postern doctor --json` and incidents have it as `cause`. Mail waits until it is mended; only `readwrite-missing` is about one message, which\n\
         comes back to its sender where no other connector takes it. Search this page for the word.\n",
    );
    for cause in postern::mail::cause::ALL {
        let section = match cause.word {
            "clock" => "This machine and the way out",
            "secret-id" => "The token",
            "role-missing" => "Exchange Online by Microsoft Graph",
            "login-refused" => "SMTP",
            _ => "",
        };
        if !section.is_empty() {
            page += &[
                "\n## ",
                section,
                "\n\n| word | what is wrong | what helps |\n|---|---|---|\n",
            ]
            .concat();
        }
        let cell = |text: &str| text.replace('|', "\\|");
        page += &[
            "| `",
            cause.word,
            "` | ",
            &cell(cause.says),
            " | ",
            &cell(cause.fix),
            " |\n",
        ]
        .concat();
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mistakes.md");
    if std::env::var_os("POSTERN_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run this test with POSTERN_BLESS=1");
}
