//! Exchange Online when it misbehaves: connections that break in the middle, and what `check --connect` and `test` make of everything
//! that can be wrong.

use crate::harness::time::Latch;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tempfile::TempDir;

use super::harness::{
    cloud::error,
    cloud_token::{Endpoint, Said, granted, refused},
    gateway::{Gateway, basic, queued_id, stdout, wait},
    http::{Wire, serve},
    upstream::Upstream,
};

/// What happens to a request for sendMail when so many octets of its body were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The connection is closed.
    Close,
    /// Nothing, for fifteen seconds.
    Silence,
    /// A refusal, and then it is closed.
    Refuse,
}

/// A Graph that breaks the first request, and takes the second; it counts those that it had whole.
fn breaking(most: usize, then: Then) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // So that what is not read does not all fit between here and there.
    listener.set_recv_buffer_size(65_536).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(16).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let (whole, requests): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let counter = whole.clone();
    serve(listener, move |wire| {
        break_first(wire, most, then, &counter, &requests)
    });
    (address, whole)
}

fn break_first(
    mut wire: Wire,
    most: usize,
    then: Then,
    whole: &AtomicUsize,
    requests: &AtomicUsize,
) -> Option<()> {
    loop {
        let head = wire.head()?;
        let length = head.length();
        let is_token = head.target().contains("/oauth2/v2.0/token");
        let is_first = !is_token && requests.fetch_add(1, Ordering::SeqCst) == 0;
        let wanted = if is_first { length.min(most) } else { length };
        wire.body(wanted)?;
        if !is_token && wanted == length {
            whole.fetch_add(1, Ordering::SeqCst);
        }
        if is_token {
            let (status, more, body) = granted("t", 3599);
            wire.answer(status, &more, body.as_bytes())?;
        } else if is_first {
            match then {
                Then::Close => {}
                Then::Silence => Latch::default().wait(),
                Then::Refuse => wire.answer(503, "Retry-After: 1\r\nConnection: close\r\n", b"")?,
            }
        } else {
            wire.answer(202, "", b"")?;
        }
        if is_first {
            return None;
        }
    }
}

fn config(connector: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!("{front}[[connector]]\nname = \"up\"\n{connector}\n[queue]\nin_doubt_wait = \"1s\"\n")
}

fn graph(at: &str) -> String {
    format!(
        "type = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_secret = \"hush-hush-value\"\nlogin_url = \"{at}\"\ngraph_url = \"{at}\"\nrate = \"1000/min\"\n"
    )
}

#[test]
fn a_request_that_broke_before_its_last_octet_was_not_sent_and_one_that_broke_after_it_is_in_doubt()
{
    // More than the kernel takes in on the way: 10 MB in base64, its largest buffer for sending has 4.
    let body = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let large = format!(
        "Subject: s\r\nFrom: a@corp.example\r\n\r\n{}",
        body.repeat(100_000)
    );
    for (most, then, event, copies) in [
        (100_000, Then::Close, "deferred", 1),
        (0, Then::Close, "deferred", 1),
        (100_000, Then::Refuse, "deferred", 1),
        (100_000, Then::Silence, "deferred", 1),
        (usize::MAX, Then::Close, "in doubt", 2),
        (usize::MAX, Then::Silence, "in doubt", 2),
        (usize::MAX, Then::Refuse, "deferred", 2),
    ] {
        let (address, whole) = breaking(most, then);
        let connector =
            graph(&format!("http://{address}")) + "timeout = \"7s\"\nmime_limit = \"35MiB\"\n";
        let gateway = Gateway::start(&config(&connector));
        let mut client = gateway.connect("local");
        client.expect("EHLO app", "250");
        let id = queued_id(&client.mail("a@corp.example", &["x@corp.example"], &large));
        let trace = wait(&format!("the end after {most} {then:?}"), || {
            let trace = stdout(&gateway.cli(&["trace", &id]));
            trace.contains("delivered").then_some(trace)
        });
        for other in ["deferred", "in doubt"] {
            assert_eq!(
                trace.contains(other),
                other == event,
                "{most} {then:?}: {trace}"
            );
        }
        assert_eq!(
            whole.load(Ordering::SeqCst),
            copies,
            "{most} {then:?}: {trace}"
        );
    }
}

/// A token of Entra that says this of itself.
fn token(claims: &str) -> Said {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    granted(
        &format!("{}.{}.c2ln", part("{\"alg\":\"RS256\"}"), part(claims)),
        3599,
    )
}

/// A command over a configuration, no gateway running: exit status, and all it printed.
fn command(config: &str, args: &[&str]) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, config).unwrap();
    let output = std::process::Command::new(Gateway::binary())
        .args(args)
        .arg("-c")
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("hush") && !text.contains("c2ln"), "{text}");
    (output.status.code().unwrap(), text)
}

/// The Date of a machine whose clock is so many seconds ahead of ours.
fn date(ahead: i64) -> String {
    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(ahead);
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    format!("Date: {}\r\n", at.format(&format).unwrap())
}

#[test]
fn check_names_what_is_broken_and_what_to_do() {
    let clock = {
        let (status, _, body) = refused("invalid_client", 700_024);
        (status, date(1800), body)
    };
    for (said, exit, state, words) in [
        (
            refused("invalid_client", 7_000_215),
            69,
            "misconfigured",
            &["client secret is wrong", "its Value"][..],
        ),
        (
            refused("invalid_client", 7_000_222),
            69,
            "misconfigured",
            &["client secret expired; create a new one under Certificates & secrets"],
        ),
        (
            refused("invalid_client", 700_027),
            69,
            "misconfigured",
            &["certificate", "upload"],
        ),
        (
            refused("unauthorized_client", 700_016),
            69,
            "misconfigured",
            &[
                "no such application",
                "client_id",
                "tenant_id",
                "[app-unknown]",
            ],
        ),
        (
            refused("invalid_request", 90_002),
            69,
            "misconfigured",
            &["no such tenant", "tenant_id"],
        ),
        (
            refused("invalid_grant", 53_003),
            69,
            "misconfigured",
            &["Conditional Access"],
        ),
        (
            refused("invalid_grant", 65_001),
            69,
            "misconfigured",
            &["consent"],
        ),
        (
            clock,
            69,
            "misconfigured",
            &["this machine's clock is 29 minutes behind the endpoint's; set it right"],
        ),
        (
            (503, String::new(), String::new()),
            69,
            "down",
            &["answered 503"],
        ),
        (
            (
                302,
                "Location: https://portal.hotel.example/\r\n".into(),
                String::new(),
            ),
            69,
            "down",
            &["a redirect"],
        ),
        (
            (
                200,
                String::new(),
                "<html>Welcome to the guest network</html>".into(),
            ),
            69,
            "down",
            &["not JSON", "something in between answered"],
        ),
        (
            token(r#"{"roles":["User.Read.All","Mail.Read"]}"#),
            69,
            "misconfigured",
            &[
                "the token may User.Read.All, Mail.Read, but not Mail.Send",
                "admin consent",
            ],
        ),
        (
            token(r#"{"roles":["Mail.Send"]}"#),
            0,
            "open",
            &[
                "Mail.Send was given",
                "without Mail.ReadWrite nothing above mime_limit",
            ],
        ),
        (
            token(r#"{"roles":["Mail.Send","Mail.ReadWrite"]}"#),
            0,
            "open",
            &["Mail.Send was given; mailbox: the From of each message"],
        ),
        (
            token(r#"{"scp":"Mail.Send offline_access"}"#),
            0,
            "open",
            &["Mail.Send was given"],
        ),
        (
            token("{}"),
            0,
            "open",
            &[
                "names no roles, which is right under RBAC",
                "Test-ServicePrincipalAuthorization",
            ],
        ),
        (granted("opaque", 3599), 0, "open", &["a token was given"]),
    ] {
        let what = format!("{said:?}");
        let endpoint = Endpoint::start(move |_| said.clone());
        let config = config(&graph(&endpoint.url("")));
        let (code, text) = command(&config, &["check", "--connect"]);
        assert_eq!(code, exit, "{what}: {text}");
        let (code, json) = command(&config, &["check", "--connect", "--json"]);
        assert_eq!(code, exit, "{json}");
        let json = &json[json.find('{').unwrap()..];
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["ok"], exit == 0, "{json}");
        let login = &json["connect"][0];
        assert_eq!(
            (&login["connector"], &login["state"]),
            (&"up".into(), &state.into())
        );
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
            assert!(login["text"].as_str().unwrap().contains(word), "{login}");
        }
        assert!(
            endpoint.asked().iter().all(|a| a.target.contains("/token")),
            "nothing is asked of Graph"
        );
    }
    // The network.
    for (at, words) in [
        ("http://127.0.0.1:1", "127.0.0.1 cannot be reached"),
        ("https://no-such-host.invalid", "DNS"),
    ] {
        let (code, text) = command(&config(&graph(at)), &["check", "--connect"]);
        assert_eq!(code, 69);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn test_names_what_is_broken_and_what_to_do() {
    for (said, exit, outcome, words) in [
        (
            (202, "request-id: r-7\r\n".to_owned(), String::new()),
            0,
            "delivered",
            &["accepted", "r-7"][..],
        ),
        (
            error(404, "ErrorInvalidUser", ""),
            69,
            "mailbox refused",
            &["no such mailbox", "correct `mailbox`", "p@corp.example"],
        ),
        (
            error(404, "MailboxNotEnabledForRESTAPI", ""),
            69,
            "mailbox refused",
            &["licence"],
        ),
        (
            error(403, "ErrorAccessDenied", ""),
            69,
            "mailbox refused",
            &["Mail.Send with admin consent", "\"Application Mail.Send\"", "2 hours"],
        ),
        (
            error(403, "ErrorSendAsDenied", ""),
            69,
            "From refused",
            &["grant Send As"],
        ),
        (
            error(401, "InvalidAuthenticationToken", ""),
            69,
            "misconfigured",
            &[
                "the token is for https://outlook.example, not for the Graph at 127.0.0.1",
                "remove `scope`",
            ],
        ),
        (
            (401, date(-7200), "{}".into()),
            69,
            "misconfigured",
            &["clock is 120 minutes ahead of the endpoint's; set it right"],
        ),
        (
            error(429, "ApplicationThrottled", "Retry-After: 7\r\n"),
            75,
            "deferred",
            &["429 ApplicationThrottled"],
        ),
        (error(504, "UnknownError", ""), 75, "in doubt", &["may have been sent"]),
        (
            error(400, "ErrorInvalidRecipients", ""),
            69,
            "failed",
            &["recipient"],
        ),
        (
            (
                400,
                String::new(),
                r#"{"error":{"code":"BadRequest","innererror":{"code":"ErrorMessageSizeExceeded"}}}"#.into(),
            ),
            69,
            "unsuited",
            &["larger than Graph accepts"],
        ),
    ] {
        let what = format!("{said:?}");
        let endpoint = Endpoint::start(move |asked| {
            if asked.target.contains("/token") {
                return token(r#"{"aud":"https://outlook.example","roles":["Mail.Send"]}"#);
            }
            said.clone()
        });
        let config = config(&(graph(&endpoint.url("")) + "mailbox = \"p@corp.example\"\n"));
        let args = ["test", "up", "--to", "x@corp.example"];
        let (code, text) = command(&config, &args);
        assert_eq!(code, exit, "{what}: {text}");
        let (code, json) = command(&config, &[&args[..], &["--json"]].concat());
        assert_eq!(code, exit, "{json}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["ok"], &json["outcome"]), (&(exit == 0).into(), &outcome.into()), "{json}");
        assert!(json["conversation"].as_array().unwrap().len() > 1, "{json}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
            assert!(json["text"].as_str().unwrap().contains(word), "{word}: {json}");
        }
    }
}

/// 401 is one status for many causes: each names its own remedy, and none the token's where it is not the token.
#[test]
fn each_refused_token_of_graph_names_its_own_remedy() {
    let (token_is_to_blame, none) = (&["tenant_id, cloud and scope"][..], &[][..]);
    for (said, outcome, words, others) in [
        (
            error(401, "NoPermissionsInAccessToken", ""),
            "misconfigured",
            "admin consent",
            token_is_to_blame,
        ),
        (
            error(401, "OrganizationFromTenantGuidNotFound", ""),
            "misconfigured",
            "a licence with Exchange Online",
            token_is_to_blame,
        ),
        (
            error(
                401,
                "InvalidAuthenticationToken",
                "WWW-Authenticate: Bearer realm=\"\", error=\"insufficient_claims\", claims=\"e30=\"\r\n",
            ),
            "misconfigured",
            "Conditional Access",
            token_is_to_blame,
        ),
        (
            error(401, "InvalidAuthenticationToken", ""),
            "misconfigured",
            "tenant_id, cloud and scope",
            none,
        ),
        (
            (
                401,
                "WWW-Authenticate: NTLM\r\n".into(),
                "<html>log in</html>".into(),
            ),
            "intercepted",
            "a proxy answered in Graph's place",
            token_is_to_blame,
        ),
    ] {
        let what = format!("{said:?}");
        let endpoint = Endpoint::start(move |asked| {
            if asked.target.contains("/token") {
                return token(r#"{"aud":"https://graph.microsoft.com","roles":["Mail.Send"]}"#);
            }
            said.clone()
        });
        let config = config(&(graph(&endpoint.url("")) + "mailbox = \"p@corp.example\"\n"));
        let args = ["test", "up", "--to", "x@corp.example", "--json"];
        let (_, json) = command(&config, &args);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let text = json["text"].as_str().unwrap();
        assert_eq!(json["outcome"], outcome, "{what}: {text}");
        assert!(text.contains(words), "{what}: {text}");
        for other in others {
            assert!(!text.contains(other), "{what}: {text}");
        }
    }
}

/// A self-signed RSA certificate that is good between these days from now, and its key.
fn pair(dir: &Path, name: &str, days: (i64, i64)) -> (String, String) {
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(vec!["app".to_owned()]).unwrap();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::days(days.0);
    params.not_after = now + time::Duration::days(days.1);
    let certificate = params.self_signed(&key).unwrap();
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{name}.{ending}"));
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    (
        write("pem", certificate.pem()),
        write("key", key.serialize_pem()),
    )
}

/// What the portal or a Windows machine hands out is not what is needed here, and what to do is said at its line.
#[test]
fn a_key_of_another_kind_or_form_is_said_at_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["app".to_owned()]).unwrap();
    let write = |name: &str, octets: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, octets).unwrap();
        path.display().to_string()
    };
    let pem = write("ec.pem", made.cert.pem().as_bytes());
    let key = write("ec.key", made.signing_key.serialize_pem().as_bytes());
    let der = write("ec.der", made.cert.der());
    for (certificate, key, words) in [
        (&pem, &key, "the key of an application is an RSA key"),
        (&der, &key, "DER or PKCS #12 (PFX)"),
    ] {
        let credential = format!("certificate = \"{certificate}\"\nkey = \"{key}\"");
        let graph =
            graph("http://127.0.0.1:1").replace("client_secret = \"hush-hush-value\"", &credential);
        let (code, text) = command(&config(&graph), &["check"]);
        assert_eq!(code, 78, "{text}");
        assert!(
            text.contains(words) && text.contains("config.toml:"),
            "{text}"
        );
    }
}

/// Of both kinds of certificates `status` tells the end, and one that has ended is a reason to look.
#[test]
fn status_tells_the_end_of_a_connectors_certificate() {
    let dir = tempfile::tempdir().unwrap();
    for (days, exit, words) in [
        ((-1, 400), 0, "credential  up client_certificate ends 20"),
        ((-1, 6), 1, "client.pem"),
        (
            (-400, -3),
            1,
            "credential  up client_certificate expired on",
        ),
    ] {
        let (certificate, key) = pair(dir.path(), "client", days);
        let gateway = Gateway::start(&config(&format!(
            "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\nclient_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n"
        )));
        let output = gateway.cli(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(exit), "{text}");
        assert!(text.contains(words), "{text}");
        let json: serde_json::Value =
            serde_json::from_slice(&gateway.cli(&["status", "--json"]).stdout).unwrap();
        assert_eq!(json["certificates"][0]["connector"], "up", "{json}");
        assert_eq!(json["certificates"][0]["expired"], days.1 < 0, "{json}");
        let listed = &json["credentials"][0];
        assert_eq!(listed["connector"], "up", "{json}");
        assert_eq!(listed["listener"], serde_json::Value::Null, "{json}");
        assert_eq!(listed["kind"], "client_certificate", "{json}");
        // The day has begun.
        assert_eq!(listed["days"], days.1 - 1, "{json}");
    }
}

/// What nobody looks at until mail stops: the dates of the application's certificate, and whether the key is its own.
#[test]
fn the_applications_certificate_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let good = pair(dir.path(), "good", (-1, 400));
    let other = pair(dir.path(), "other", (-1, 400));
    let old = pair(dir.path(), "old", (-400, -3));
    let soon = pair(dir.path(), "soon", (-300, 20));
    let early = pair(dir.path(), "early", (3, 400));
    let endpoint = Endpoint::start(|asked| {
        if asked.target.contains("/token") {
            return refused("invalid_client", 700_027);
        }
        error(404, "", "")
    });
    let url = endpoint.url("");
    for ((certificate, key), exit, words) in [
        ((&good.0, &good.1), 0, ""),
        (
            (&good.0, &other.1),
            78,
            "other.key does not belong to the certificate in",
        ),
        ((&old.0, &old.1), 0, "old.pem expired on"),
        ((&soon.0, &soon.1), 0, "soon.pem ends in"),
        ((&early.0, &early.1), 0, "early.pem is not valid before"),
    ] {
        let credential = format!("certificate = \"{certificate}\"\nkey = \"{key}\"");
        let graph = graph(&url).replace("client_secret = \"hush-hush-value\"", &credential);
        assert!(graph.contains(certificate), "{graph}");
        let graph = config(&(graph + "mailbox = \"p@corp.example\"\n"));
        let smtp = config(&format!(
            "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\nclient_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n"
        ));
        for config in [&graph, &smtp] {
            let (code, text) = command(config, &["check"]);
            assert_eq!(code, exit, "{words}: {text}");
            assert!(text.contains(words), "{words}: {text}");
            assert_eq!(text.contains("certificate in"), !words.is_empty(), "{text}");
        }
        if exit == 0 {
            let (_, text) = command(&graph, &["check", "--connect"]);
            assert!(text.contains("AADSTS700027"), "{text}");
            // In the warning, and behind the refusal.
            assert!(
                words.is_empty() || text.matches(words).count() == 2,
                "{text}"
            );
        }
    }
}

#[test]
fn a_token_for_another_service_is_not_ok() {
    for (audience, exit) in [
        ("https://graph.microsoft.com", 0),
        ("00000003-0000-0000-c000-000000000000", 0),
        ("https://outlook.office365.com", 69),
        ("https://management.azure.com/", 69),
        ("https://graph.microsoft.us", 69),
    ] {
        let endpoint = Endpoint::start(move |_| {
            token(&format!(
                r#"{{"aud":"{audience}","roles":["Mail.Send","Mail.ReadWrite"]}}"#
            ))
        });
        let config = config(&(graph(&endpoint.url("")) + "mailbox = \"p@corp.example\"\n"));
        let (code, text) = command(&config, &["check", "--connect"]);
        assert_eq!(code, exit, "{audience}: {text}");
        assert_eq!(
            text.contains(&format!("the token is for {audience}")),
            exit != 0,
            "{text}"
        );
    }
}

#[test]
fn a_refused_smtp_login_says_what_the_token_lacks() {
    for (claims, reply, requests, words) in [
        (
            r#"{"roles":["Mail.Send"]}"#,
            "535 5.7.3 Authentication unsuccessful",
            2,
            &[
                "New-ServicePrincipal",
                "the token may Mail.Send, but not SMTP.SendAsApp or SMTP.Send",
            ][..],
        ),
        (
            "{}",
            "535 5.7.3 Authentication unsuccessful",
            2,
            &["names no roles", "Test-ServicePrincipalAuthorization"],
        ),
        (
            r#"{"roles":["SMTP.SendAsApp"]}"#,
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled",
            1,
            &["Set-CASMailbox"],
        ),
        (
            r#"{"roles":["SMTP.SendAsApp"]}"#,
            "550 5.7.30 Basic authentication is not supported for Client Submission",
            1,
            &["xoauth2"],
        ),
        (
            r#"{"roles":["SMTP.SendAsApp"]}"#,
            "535 5.7.8 no",
            2,
            &["check mailbox"],
        ),
        (
            r#"{"roles":["SMTP.SendAsApp"]}"#,
            "454 4.7.0 later",
            1,
            &["not taking mail", "later"],
        ),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let logins = count.clone();
        let sink = Upstream::scripted(move |line| match line.split(' ').next() {
            Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
            Some("AUTH") => {
                logins.fetch_add(1, Ordering::SeqCst);
                Some("334 eyJzdGF0dXMiOiI0MDEifQ==".to_owned())
            }
            Some("") => Some(reply.to_owned()),
            _ => None,
        });
        let asked = AtomicUsize::new(0);
        let claims = claims.to_owned();
        let endpoint = Endpoint::start(move |_| {
            // Another one each time.
            let n = asked.fetch_add(1, Ordering::SeqCst);
            token(&format!("{{\"n\":{n},{}", claims.trim_start_matches('{')).replace(",}", "}"))
        });
        let config = config(&format!(
            "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\nauth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", mailbox = \"p@corp.example\", login_url = \"{}\" }}\n",
            sink.address.port(),
            endpoint.url("")
        ));
        let (code, text) = command(&config, &["check", "--connect"]);
        assert_eq!(code, 69, "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(endpoint.asked().len(), requests, "{reply}");
        assert_eq!(count.load(Ordering::SeqCst), requests, "{reply}");
    }
    // The endpoint gives the same one again: no second login with it.
    let count = Arc::new(AtomicUsize::new(0));
    let logins = count.clone();
    let sink = Upstream::scripted(move |line| match line.split(' ').next() {
        Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
        Some("AUTH") => {
            logins.fetch_add(1, Ordering::SeqCst);
            Some("535 5.7.3 no".to_owned())
        }
        _ => None,
    });
    let endpoint = Endpoint::start(|_| granted("same", 3599));
    let config = config(&format!(
        "type = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\noauth = {{ provider = \"microsoft\", managed_identity = true, mailbox = \"p@corp.example\", login_url = \"{}\" }}\n",
        sink.address.port(),
        endpoint.url("")
    ));
    let (code, _) = command(&config, &["check", "--connect"]);
    assert_eq!(
        (code, endpoint.asked().len(), count.load(Ordering::SeqCst)),
        (69, 2, 1)
    );
}
