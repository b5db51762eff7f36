//! Nothing secret is ever shown: every grant, in success and in failure, with a log at `trace`, and upstreams and endpoints that quote
//! what they were told. Then all that was logged, printed and written is searched, for base64 and form encoding too.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::harness::{
    cloud_token::{Asked, Endpoint, Said, granted},
    gateway::{Gateway, basic, send, wait},
    proxy::{Authority, Begin, Front, Kind, Proxy, Rules},
    upstream::{Act, At, Script, Upstream},
};

const CLIENT_SECRET: &str = "hush~client+secret/value=8Q";
const REFRESH: &str = "1//hush-refresh-token-configured-0001";
const PROXY_PASSWORD: &str = "hush-proxy:password@3128";
const FEDERATED: &str = "eyJhbGciOiJodXNoIn0.eyJzdWIiOiJodXNoLXdvcmtsb2FkIn0.aHVzaC1odXNoLWh1c2g";
const APPLICATION: &str =
    "tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\"";

/// How the world behaves.
const FINE: usize = 0;
/// The upstream takes no token.
const UPSTREAM_REFUSES: usize = 1;
/// Nor does the endpoint give any.
const ALL_REFUSE: usize = 2;

/// Tokens given out, and assertions presented.
type Seen = Arc<Mutex<Vec<String>>>;

fn note(seen: &Seen, secret: impl Into<String>) {
    seen.lock().unwrap().push(secret.into());
}

/// Token endpoint and Graph in one; it quotes what it hears.
fn microsoft(mode: Arc<AtomicUsize>, seen: Seen) -> Endpoint {
    let count = AtomicUsize::new(0);
    Endpoint::start(move |asked| {
        let mode = mode.load(Ordering::SeqCst);
        if asked.target.contains("/sendMail") {
            let bearer = asked.header("authorization").unwrap();
            return if mode == FINE {
                (202, String::new(), String::new())
            } else {
                let quoted = serde_json::json!({"error": {"code": "InvalidAuthenticationToken",
                    "message": format!("no: {bearer}"), "innererror": {"code": "x", "message": bearer}}});
                (
                    401,
                    format!("WWW-Authenticate: {bearer}\r\n"),
                    quoted.to_string(),
                )
            };
        }
        tokens(asked, mode, &seen, &count)
    })
}

fn tokens(asked: &Asked, mode: usize, seen: &Seen, count: &AtomicUsize) -> Said {
    let presented: Vec<String> = [
        "client_assertion",
        "assertion",
        "refresh_token",
        "client_secret",
    ]
    .into_iter()
    .filter_map(|field| asked.field(field))
    .collect();
    for secret in &presented {
        note(seen, secret);
    }
    if mode == ALL_REFUSE {
        let said = serde_json::json!({
            "error": "invalid_client", "error_codes": [7_000_215],
            "error_description": format!("AADSTS7000215: no: {}", presented.join(" ")),
            "trace_id": presented.first(), "correlation_id": "hush-correlation",
        });
        return (401, String::new(), said.to_string());
    }
    let n = count.fetch_add(1, Ordering::SeqCst);
    let claims = serde_json::json!({"n": n, "roles": ["Mail.Send"], "hush": "hush-claim"});
    let token = format!(
        "eyJhbGciOiJIUzI1NiJ9.{}.{}",
        URL_SAFE_NO_PAD.encode(claims.to_string()),
        URL_SAFE_NO_PAD.encode(format!("hush-signature-of-token-{n:05}"))
    );
    note(seen, &token);
    if asked.field("grant_type").as_deref() == Some("refresh_token") {
        let next = format!("1//hush-refresh-token-rotated-{n:05}");
        note(seen, &next);
        let body =
            serde_json::json!({"access_token": token, "expires_in": 3599, "refresh_token": next});
        return (200, String::new(), body.to_string());
    }
    granted(&token, 3599)
}

/// An SMTP server that takes tokens; when it does not, it quotes the line.
fn exchange(mode: Arc<AtomicUsize>) -> Upstream {
    // What this connection said: a server quotes its own client, not another's.
    let last: Mutex<HashMap<usize, String>> = Mutex::default();
    let says = move |at: &At| {
        let line = at.line;
        let is_refusing = mode.load(Ordering::SeqCst) != FINE;
        let word = line.split(' ').next().unwrap_or_default();
        if word == "EHLO" {
            return Some("250-sink\r\n250 AUTH XOAUTH2 OAUTHBEARER".to_owned());
        }
        let response = match (word, line.split(' ').nth(2)) {
            ("AUTH", None) => return Some("334 ".to_owned()),
            ("AUTH", Some(response)) => response,
            ("", _) => {
                let quoted: String = last
                    .lock()
                    .unwrap()
                    .get(&at.connection)
                    .cloned()
                    .unwrap_or_default();
                return Some(format!(
                    "535-5.7.3 Unrecognized command '{quoted}'\r\n535 5.7.3 no"
                ));
            }
            _ if line.len() > 100 => line,
            _ => return None,
        };
        if !is_refusing {
            return Some("235 2.7.0 ok".to_owned());
        }
        let decoded = STANDARD.decode(response).unwrap_or_default();
        let token = String::from_utf8_lossy(&decoded).replace(['\u{1}', '\r', '\n'], " ");
        last.lock()
            .unwrap()
            .insert(at.connection, format!("{response} {token}"));
        Some(format!("334 {}", STANDARD.encode(r#"{"status":"401"}"#)))
    };
    Script::default()
        .when(move |at| {
            let is_asked = !matches!(at.stage, "banner" | "BODY");
            is_asked.then(|| says(at).map(Act::says)).flatten()
        })
        .start()
}

fn gateway(dir: TempDir, connector: &str, more: &str) -> Gateway {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let text = format!(
        "{front}[[connector]]\nname = \"up\"\n{connector}\n{more}\n[log]\nlevel = \"trace\"\n"
    );
    fs::write(dir.path().join("config.toml"), text).unwrap();
    Gateway::start_in(dir)
}

/// All that commands print, of this gateway, now.
fn printed(gateway: &Gateway, ids: &[String]) -> String {
    let mut all = String::new();
    let mut say = |args: &[&str]| {
        let output = gateway.cli(args);
        all.push_str(&String::from_utf8_lossy(&output.stdout));
        all.push_str(&String::from_utf8_lossy(&output.stderr));
    };
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["check", "--json"],
        &["check", "--connect"],
        &["check", "--connect", "--json"],
        &[
            "test",
            "up",
            "--from",
            "erp@corp.example",
            "--to",
            "x@corp.example",
        ],
        &[
            "test",
            "up",
            "--from",
            "erp@corp.example",
            "--to",
            "x@corp.example",
            "--json",
        ],
        &["queue", "list", "--all"],
        &["queue", "list", "--all", "--json"],
        &["trace", "erp@corp.example"],
        &[
            "explain",
            "--from",
            "erp@corp.example",
            "--to",
            "x@corp.example",
        ],
    ] {
        say(args);
    }
    for id in ids {
        say(&["queue", "show", id]);
        say(&["queue", "show", id, "--json"]);
        say(&["trace", id]);
        say(&["trace", id, "--json"]);
    }
    all
}

/// What of a secret must not be found: as it is, in base64 wherever it stands in it, form-encoded, and its parts.
fn needles(secret: &str) -> Vec<String> {
    let mut needles = vec![secret.to_owned()];
    for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let text = engine.encode("x".repeat(before) + secret);
            let whole = text.trim_end_matches('=');
            needles.push(whole[if before == 0 { 0 } else { 4 }..whole.len() - 4].to_owned());
        }
    }
    let form = reqwest::Url::parse_with_params("x:", [("", secret)]).unwrap();
    needles.push(form.query().unwrap().trim_start_matches('=').to_owned());
    // A piece from the middle of a long one, of a token its signature.
    if secret.len() > 60 {
        needles.push(secret[secret.len() - 30..].to_owned());
        needles.push(secret[secret.len() / 2 - 15..secret.len() / 2 + 15].to_owned());
    }
    needles.retain(|needle| needle.len() > 8);
    needles
}

fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Runs a gateway through success and both failures, and searches all it leaves. `fixed` are the secrets it was given; `in_store` says
/// which of those seen the store may hold.
fn sweep(
    what: &str,
    gateway: &Gateway,
    mode: &AtomicUsize,
    seen: &Seen,
    fixed: &[String],
    in_store: fn(&str) -> bool,
) {
    let mut ids = vec![send(gateway)];
    let mut said = String::new();
    wait(&format!("{what}: delivered"), || {
        let trace = gateway.cli(&["trace", &ids[0]]);
        String::from_utf8_lossy(&trace.stdout)
            .contains("delivered")
            .then_some(())
    });
    said.push_str(&printed(gateway, &ids));
    for failure in [UPSTREAM_REFUSES, ALL_REFUSE] {
        mode.store(failure, Ordering::SeqCst);
        ids.push(send(gateway));
        gateway.cli(&["queue", "retry", "--all"]);
        if failure == UPSTREAM_REFUSES {
            // The connections that are logged in must go first.
            gateway.hang_up();
            wait(&format!("{what}: stopped"), || {
                gateway.cli(&["queue", "retry", "--all"]);
                let status = gateway.cli(&["status"]);
                String::from_utf8_lossy(&status.stdout)
                    .contains("paused")
                    .then_some(())
            });
        }
        said.push_str(&printed(gateway, &ids));
    }
    assert!(
        said.contains("AADSTS7000215") || what.contains("identity"),
        "{said}"
    );
    let log = gateway.log();
    // At trace it holds lines of Postern alone, which has none of that level.
    assert!(log.contains("event=accepted"), "there is a log: {log}");
    let mut places = vec![
        ("the log".to_owned(), log.into_bytes()),
        ("what was printed".to_owned(), said.into_bytes()),
    ];
    files(&gateway.path("data"), &mut places);
    assert!(places.len() > 3, "the store");
    let mut secrets: Vec<String> = seen.lock().unwrap().clone();
    assert!(secrets.len() > 1, "{what}: tokens were given");
    secrets.extend(fixed.iter().cloned());
    secrets.extend(["hush-claim".into(), "hush-correlation".into()]);
    secrets.sort();
    secrets.dedup();
    for secret in &secrets {
        for needle in needles(secret) {
            for (place, octets) in &places {
                if place.contains("queue.db") && in_store(secret) {
                    continue;
                }
                let at = memchr::memmem::find(octets, needle.as_bytes());
                assert!(
                    at.is_none(),
                    "{what}: {needle} of {secret} is in {place}: {}",
                    String::from_utf8_lossy(
                        &octets[at.unwrap().saturating_sub(300)
                            ..(at.unwrap() + 100).min(octets.len())]
                    )
                );
            }
        }
    }
}

/// An RSA key and its certificate, PEM.
fn rsa() -> (String, String) {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(Vec::<String>::new())
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (key.serialize_pem(), certificate.pem())
}

/// Lines of a PEM key.
fn lines(pem: &str) -> Vec<String> {
    pem.lines()
        .filter(|l| l.len() > 40 && !l.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

fn nothing(_: &str) -> bool {
    false
}

#[test]
fn graph_by_every_grant() {
    let (key, certificate) = rsa();
    for (what, credential, fixed) in [
        (
            "secret",
            format!("{APPLICATION}, client_secret = \"{CLIENT_SECRET}\""),
            vec![CLIENT_SECRET.to_owned()],
        ),
        (
            "secret in basic",
            format!("{APPLICATION}, client_auth = \"basic\", client_secret = \"{CLIENT_SECRET}\""),
            vec![CLIENT_SECRET.to_owned()],
        ),
        (
            "certificate",
            format!("{APPLICATION}, certificate = \"cert.pem\", key = \"key.pem\""),
            lines(&key),
        ),
        (
            "federated",
            format!("{APPLICATION}, federated_token_file = \"federated\""),
            vec![FEDERATED.to_owned()],
        ),
        ("identity", "managed_identity = true".to_owned(), Vec::new()),
    ] {
        let (mode, seen): (Arc<AtomicUsize>, Seen) = Default::default();
        let endpoint = microsoft(mode.clone(), seen.clone());
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("key.pem"), &key).unwrap();
        fs::write(dir.path().join("cert.pem"), &certificate).unwrap();
        fs::write(dir.path().join("federated"), FEDERATED).unwrap();
        let connector = format!(
            "type = \"graph\"\nrate = \"1000/min\"\nlogin_url = \"{0}\"\ngraph_url = \"{0}\"\n{1}\n",
            endpoint.url(""),
            credential.replace(", ", "\n")
        );
        let gateway = gateway(dir, &connector, "");
        sweep(what, &gateway, &mode, &seen, &fixed, nothing);
    }
}

#[test]
fn smtp_by_every_grant() {
    let (key, _) = rsa();
    for (what, credential, fixed, in_store) in [
        (
            "secret",
            format!("provider = \"microsoft\", mailbox = \"erp@corp.example\", {APPLICATION}, client_secret = \"{CLIENT_SECRET}\""),
            vec![CLIENT_SECRET.to_owned()],
            nothing as fn(&str) -> bool,
        ),
        (
            "google service account",
            "provider = \"google\", service_account_file = \"account.json\", subject = \"erp@corp.example\"".to_owned(),
            lines(&key),
            nothing,
        ),
        (
            "refresh token",
            format!("provider = \"google\", mailbox = \"erp@corp.example\", client_id = \"app\", client_secret = \"{CLIENT_SECRET}\", refresh_token = \"{REFRESH}\""),
            vec![CLIENT_SECRET.to_owned(), REFRESH.to_owned()],
            // The rotated one is kept there, and no other.
            |secret| secret.contains("refresh-token-rotated"),
        ),
    ] {
        for auth in ["xoauth2", "oauthbearer"] {
            let (mode, seen): (Arc<AtomicUsize>, Seen) = Default::default();
            let (endpoint, sink) = (microsoft(mode.clone(), seen.clone()), exchange(mode.clone()));
            let dir = TempDir::new().unwrap();
            let account = serde_json::json!({"type": "service_account", "client_email": "sa@project.example",
                "private_key_id": "k", "private_key": key});
            fs::write(dir.path().join("account.json"), account.to_string()).unwrap();
            let connector = format!(
                "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\nauth = \"{auth}\"\nmessages_per_connection = 1\noauth = {{ {credential}, token_url = \"{}\" }}\n",
                sink.address.port(),
                endpoint.url("/token"),
            ).replace("tenant_id = \"corp.example\", ", "");
            let gateway = gateway(dir, &connector, "");
            sweep(&format!("{what} {auth}"), &gateway, &mode, &seen, &fixed, in_store);
        }
    }
}

const SMTP_PASSWORD: &str = "Hush4ry+/&=pass~word";

/// An upstream that repeats the login at one stage, in every form it can think of, in a refusal, in an answer or in what is no
/// reply at all. Bounces it takes.
fn parrot(stage: &'static str, says: &'static str) -> Upstream {
    let blob = STANDARD.encode(format!("\0relay\0{SMTP_PASSWORD}"));
    let (begun, rest) = blob.split_at(17);
    let alone = STANDARD.encode(SMTP_PASSWORD);
    let quoted = format!(
        "AUTH PLAIN {blob} ({SMTP_PASSWORD}) {} {alone} {} {begun} {rest}",
        blob.to_uppercase(),
        &SMTP_PASSWORD[..14]
    );
    let code = says.get(..3).unwrap_or_default();
    let answer =
        format!("{says} {quoted}\r\n{code} {begun}").replacen(' ', "-", usize::from(code != "no"));
    let is_report = AtomicUsize::new(0);
    let logins = AtomicUsize::new(0);
    Upstream::scripted(move |line| {
        let word = line.split([' ', ':']).next().unwrap_or_default();
        if word == "EHLO" {
            let more = if stage == "EHLO" && logins.load(Ordering::SeqCst) > 0 {
                return Some(answer.clone());
            } else if stage == "offers" && logins.load(Ordering::SeqCst) > 0 {
                format!("250-AUTH={}\r\n", quoted.replace(' ', "_"))
            } else {
                "250-AUTH PLAIN\r\n".to_owned()
            };
            return Some(format!("250-sink\r\n{more}250 PIPELINING"));
        }
        if word == "AUTH" {
            let before = logins.fetch_add(1, Ordering::SeqCst);
            if stage == "AUTH" && before > 0 {
                return Some(answer.clone());
            }
            return Some("235 2.7.0 ok".to_owned());
        }
        if word == "MAIL" {
            is_report.store(usize::from(line.contains("<>")), Ordering::SeqCst);
        }
        let here = word == stage && is_report.load(Ordering::SeqCst) == 0;
        here.then(|| answer.clone())
    })
}

/// After the login, too: at every stage, in refusals, in answers and in what is no reply.
#[test]
fn a_password_repeated_by_the_upstream_at_every_stage() {
    let mut runs = Vec::new();
    for stage in ["EHLO", "offers", "AUTH", "MAIL", "RCPT", "DATA", "."] {
        for says in ["550", "451", "250", "no"] {
            if stage == "offers" && says != "250" {
                continue;
            }
            runs.push((stage, says));
        }
    }
    for pair in runs.chunks(4) {
        std::thread::scope(|scope| {
            for (stage, says) in pair {
                scope.spawn(|| repeated(stage, says));
            }
        });
    }
}

fn repeated(stage: &'static str, says: &'static str) {
    let sink = parrot(stage, says);
    let config = basic(sink.address).replace("retry = [\"1s\"]", "retry = [\"1h\"]")
        + &format!(
            "username = \"relay\"\npassword = \"{SMTP_PASSWORD}\"\nmessages_per_connection = 2\n\n[log]\nlevel = \"trace\"\n\n[bounce]\nfrom = \"postmaster@corp.example\"\n"
        );
    let gateway = Gateway::start(&config);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = send(&gateway);
        wait(&format!("{stage} {says}: it was tried"), || {
            let trace = gateway.cli(&["trace", &id]);
            let trace = String::from_utf8_lossy(&trace.stdout).into_owned();
            let words = [
                "delivered",
                "deferred",
                "failed",
                "in doubt",
                "passed over",
                "waits for up",
                "closed",
                "paused",
            ];
            let status = || String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
            (words.iter().any(|w| trace.contains(w))
                || status().contains("closed")
                || status().contains("paused"))
            .then_some(())
        });
        ids.push(id);
    }
    let said = printed(&gateway, &ids);
    let mut places = vec![
        ("the log".to_owned(), gateway.log().into_bytes()),
        ("what was printed".to_owned(), said.clone().into_bytes()),
    ];
    places.extend(
        sink.mails()
            .into_iter()
            .map(|m| ("a mail".to_owned(), m.data)),
    );
    files(&gateway.path("data"), &mut places);
    let blob = STANDARD.encode(format!("\0relay\0{SMTP_PASSWORD}"));
    let mut secrets = needles(SMTP_PASSWORD);
    secrets.extend([
        SMTP_PASSWORD[..14].to_owned(),
        blob.clone(),
        blob.to_uppercase(),
    ]);
    secrets.extend([blob[..17].to_owned(), blob[17..].to_owned()]);
    for (place, octets) in &places {
        for secret in &secrets {
            let at = memchr::memmem::find(octets, secret.as_bytes());
            assert!(
                at.is_none(),
                "{stage} {says}: {secret} is in {place}: {}",
                String::from_utf8_lossy(
                    &octets[at.unwrap().saturating_sub(300)..(at.unwrap() + 100).min(octets.len())]
                )
            );
        }
    }
    // It was repeated, and the rest of it was kept.
    if stage != "offers" && (says, stage) != ("250", "DATA") {
        assert!(said.contains("***"), "{stage} {says}: {said}");
    }
}

#[test]
fn through_a_proxy_with_a_password() {
    let (mode, seen): (Arc<AtomicUsize>, Seen) = Default::default();
    let endpoint = microsoft(mode.clone(), seen.clone());
    let authority = Authority::new("Roots");
    let front = Front::start(
        &authority,
        &["login.example", "graph.example"],
        Begin::AtOnce,
        endpoint.address,
    );
    for kind in [Kind::Connect, Kind::Socks5] {
        mode.store(FINE, Ordering::SeqCst);
        let proxy = Proxy::start(Rules {
            login: Some(("erp", PROXY_PASSWORD)),
            ..Rules::new(
                kind,
                &[
                    ("login.example:443", front.address),
                    ("graph.example:443", front.address),
                ],
            )
        });
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        let scheme = if kind == Kind::Connect {
            "http"
        } else {
            "socks5"
        };
        let connector = format!(
            "type = \"graph\"\nrate = \"1000/min\"\nlogin_url = \"https://login.example\"\ngraph_url = \"https://graph.example\"\nca_file = \"ca.pem\"\n{}\nclient_secret = \"{CLIENT_SECRET}\"\nproxy = \"{scheme}://erp:hush-proxy%3Apassword%403128@{}\"\n",
            APPLICATION.replace(", ", "\n"),
            proxy.address
        );
        let gateway = gateway(dir, &connector, "");
        sweep(
            &format!("{kind:?}"),
            &gateway,
            &mode,
            &seen,
            &[
                CLIENT_SECRET.to_owned(),
                PROXY_PASSWORD.to_owned(),
                "hush-proxy%3Apassword%403128".to_owned(),
                format!("erp:{PROXY_PASSWORD}"),
            ],
            nothing,
        );
        // And when the proxy does not take it.
        let text = fs::read_to_string(gateway.config_path()).unwrap();
        fs::write(
            gateway.config_path(),
            text.replace("erp:hush-proxy", "erq:hush-proxy"),
        )
        .unwrap();
        let said = printed(&gateway, &[]);
        assert!(said.contains("refuses the login"), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}
