//! The smtp connector against upstreams that fail at every place and in every way, over real sockets and real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use super::{
    fixture,
    harness::{
        peers::free_port,
        time::until,
        upstream::{Act, Form, Script},
    },
};
use postern::{
    connector::{
        Connector, Deadline, Kind, Proxy, ProxyServer, Settings, SmtpSettings, Tls, Verify,
        capture::Capture,
        smtp::{Smtp, Timeouts},
    },
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{ObstacleKind, Outcome, Report},
        recipient::Recipient,
    },
    queue::body::BodyStore,
    secret::Secret,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

fn quick() -> Timeouts {
    let short = Duration::from_millis(1_500);
    Timeouts {
        connect: short,
        connect_each: short,
        tls: Duration::from_secs(3),
        greeting: short,
        command: short,
        data: short,
        block: short,
        dot: short,
        quit: Duration::from_millis(200),
    }
}

fn settings(address: SocketAddr) -> SmtpSettings {
    fixture::smtp(&address.ip().to_string(), address.port())
}

fn connector(smtp: SmtpSettings) -> Smtp {
    through(smtp, Proxy::default(), quick())
}

fn through(smtp: SmtpSettings, proxy: Proxy, timeouts: Timeouts) -> Smtp {
    let settings = SmtpSettings { proxy, ..smtp };
    Smtp::new(
        "up".into(),
        100,
        &settings,
        timeouts,
        postern::connector::Services::default(),
    )
    .unwrap()
}

fn message(body: Body) -> Message {
    Message {
        id: MessageId::new(SystemTime::now(), 7),
        envelope: Envelope {
            sender: Some(Address::parse("s@corp.example").unwrap()),
            recipients: recipients(),
            eight_bit: false,
            dsn: None,
        },
        origin: Origin {
            esmtp: false,
            utf8: false,
            ..fixture::origin(SystemTime::now())
        },
        header: "Subject: x\r\n".into(),
        body,
    }
}

fn id(n: u128) -> MessageId {
    MessageId::new(SystemTime::UNIX_EPOCH, n)
}

/// A large body, as the queue keeps it in a directory.
async fn stored(directory: &Path, n: u128, content: &[u8]) -> Body {
    let mut writer = BodyStore::new(directory).writer(id(n));
    writer.append(content).await.unwrap();
    writer.finish().await.unwrap()
}

fn small() -> Message {
    message(Body::Memory("hello\r\n.dot\r\n".into()))
}

fn recipients() -> Vec<Recipient> {
    ["a@x.example", "b@x.example"]
        .map(|a| Address::parse(a).unwrap().into())
        .to_vec()
}

fn soon() -> Deadline {
    (Instant::now() + Duration::from_secs(20)).into()
}

fn short(report: &Report) -> String {
    match report {
        Report::NotTried(obstacle) => match obstacle.kind {
            ObstacleKind::MailboxRefused => "mailbox".into(),
            kind => kind.as_str().into(),
        },
        Report::Tried { outcomes, .. } => outcomes
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::Delivered(_) => "ok",
                Outcome::Deferred { .. } => "deferred",
                Outcome::InDoubt(_) => "doubt",
                Outcome::Failed(_) => "failed",
                Outcome::Apart(_) => "apart",
                Outcome::Unsuited(_) => "unsuited",
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn text(report: Report) -> String {
    match report {
        Report::NotTried(obstacle) => obstacle.reply.text,
        Report::Tried { outcomes, .. } => outcomes[0].1.reply().text.clone(),
    }
}

async fn deliver(connector: &Smtp, message: &Message) -> Report {
    connector.deliver(message, &recipients(), &soon()).await
}

struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Every authority has a name of its own.
        let directory = tempfile::tempdir().unwrap();
        params.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("authority of {}", directory.path().display()),
        );
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A server of these names, valid in these years.
    fn server(&self, names: &[&str], years: (i32, i32)) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, years).signed_by(&key, &self.issuer).unwrap();
        server(certificate.der().clone(), &key)
    }
}

fn params(names: &[&str], years: (i32, i32)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    params
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

const NOW: (i32, i32) = (2020, 2090);

#[tokio::test]
async fn every_fault_at_every_stage() {
    let authority = Authority::new();
    let tls = authority.server(&["127.0.0.1"], NOW);
    let faults = [
        Act::says("451 4.3.0 later"),
        Act::says("554 5.3.0 never"),
        Act::says("421 4.3.2 closing"),
        Act::Fin,
        Act::Rst,
        Act::Hang,
    ];
    let expected = |stage: &str, fault: usize| match (stage, fault) {
        ("AUTH", 1) => "misconfigured",
        ("connect" | "banner" | "EHLO" | "STARTTLS" | "AUTH", _) => "down",
        ("MAIL" | "DATA" | "EOD", 1) => "failed failed",
        ("MAIL" | "DATA", _) | ("EOD", 0 | 2) => "deferred deferred",
        ("EOD", _) => "doubt doubt",
        ("RCPT1", 0) => "deferred ok",
        ("RCPT1", 1) => "failed ok",
        ("RCPT2", 0) => "ok deferred",
        ("RCPT2", 1) => "ok failed",
        ("RCPT1" | "RCPT2", _) => "deferred deferred",
        _ => "ok ok",
    };
    for offers in ["AUTH_PLAIN", "AUTH_PLAIN PIPELINING"] {
        let mut runs = JoinSet::new();
        for stage in [
            "connect", "banner", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT1", "RCPT2", "DATA",
            "EOD", "QUIT",
        ] {
            for (index, fault) in faults.iter().cloned().enumerate() {
                let (tls, ca) = (tls.clone(), authority.file());
                let wanted = expected(stage, index);
                runs.spawn(async move {
                    let at = if stage == "connect" { "banner" } else { stage };
                    let upstream = Script::default()
                        .at(at, fault.clone())
                        .offers(offers)
                        .starttls(tls)
                        .start_here();
                    let mut address = upstream.address;
                    if stage == "connect" && index < 3 {
                        // Refused.
                        address.set_port(free_port());
                    }
                    let settings = SmtpSettings {
                        tls: Tls::StartTls,
                        ca_file: Some(ca),
                        login: Some(("u".into(), Secret::new("p"))),
                        messages_per_connection: 1,
                        ..settings(address)
                    };
                    // Only who is to be waited for in vain has short ones.
                    let timeouts = match fault {
                        Act::Hang => quick(),
                        _ => Timeouts::default(),
                    };
                    let connector = through(settings, Proxy::default(), timeouts);
                    let report = deliver(&connector, &small()).await;
                    let place = format!("{offers} {stage} {fault:?}: {report:?}");
                    assert_eq!(short(&report), wanted, "{place}");
                    // What was not taken is not delivered, and what was taken is so or in doubt.
                    let taken = wanted.contains("ok") || wanted.contains("doubt");
                    let copies = upstream.mails();
                    assert_eq!(copies.len(), usize::from(taken), "{place}");
                    for copy in copies {
                        assert_eq!(
                            copy.content, b"Subject: x\r\n\r\nhello\r\n..dot\r\n.\r\n",
                            "{place}"
                        );
                    }
                });
            }
        }
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
    }
}

/// One reply too many: never delivered, never failed, wherever it comes. On a connection used before, what nobody had
/// answered yet goes over a fresh one.
#[tokio::test]
async fn reply_before_its_question_at_every_stage() {
    let authority = Authority::new();
    let tls = authority.server(&["127.0.0.1"], NOW);
    let texts = [
        "250 2.0.0 more",
        "235 more",
        "354 more",
        "451 4.3.0 more",
        "550 5.7.1 more",
    ];
    for offers in ["AUTH_PLAIN", "AUTH_PLAIN PIPELINING"] {
        let mut runs = JoinSet::new();
        for stage in [
            "banner", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT1", "RCPT2", "DATA", "EOD", "QUIT",
        ] {
            let forms = [Form::Together, Form::Begun, Form::Apart];
            for (text, form) in texts.iter().flat_map(|t| forms.map(|f| (*t, f))) {
                for patience in [0, 1] {
                    let wanted = match (stage, patience) {
                        ("banner" | "EHLO" | "STARTTLS" | "AUTH", 0) => "down",
                        ("MAIL", 1) if offers == "AUTH_PLAIN" => "ok ok",
                        ("MAIL" | "RCPT1" | "RCPT2" | "DATA", _) => "deferred deferred",
                        ("EOD", _) => "doubt doubt",
                        _ => "ok ok",
                    };
                    let (tls, ca) = (tls.clone(), authority.file());
                    runs.spawn(async move {
                        let upstream = Script::default()
                            .when(move |at| {
                                let is_now = at.stage == stage && at.messages >= patience;
                                is_now.then_some(Act::More(text, form))
                            })
                            .offers(offers)
                            .starttls(tls)
                            .start_here();
                        let connector = through(
                            SmtpSettings {
                                tls: Tls::StartTls,
                                ca_file: Some(ca),
                                login: Some(("u".into(), Secret::new("p"))),
                                messages_per_connection: 1 + patience as u32,
                                ..settings(upstream.address)
                            },
                            Proxy::default(),
                            Timeouts::default(),
                        );
                        for _ in 0..patience {
                            assert_eq!(short(&deliver(&connector, &small()).await), "ok ok");
                        }
                        let report = deliver(&connector, &small()).await;
                        let place =
                            format!("{offers} {stage} {text} {form:?} {patience}: {report:?}");
                        assert_eq!(short(&report), wanted, "{place}");
                        // What was not taken is not delivered, and what was taken is so or in doubt.
                        let taken = wanted.contains("ok") || wanted.contains("doubt");
                        let copies = upstream.count();
                        assert_eq!(copies, patience + usize::from(taken), "{place}");
                        if !wanted.contains("ok") && stage != "STARTTLS" {
                            assert!(
                                text.starts_with("421")
                                    || self::text(report).contains("nobody had asked"),
                                "{place}"
                            );
                        }
                    });
                }
            }
        }
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
    }
}

/// With the content comes the question; a body in a file gives the reply time to come by itself.
#[tokio::test]
async fn reply_before_its_question_while_the_content_is_fetched() {
    let directory = tempfile::tempdir().unwrap();
    // More than the sockets hold, so that its end is never out when the reply comes.
    let body = stored(directory.path(), 1, &b"line\r\n".repeat(3_000_000)).await;
    for text in [
        "250 2.0.0 more",
        "451 4.3.0 more",
        "550 5.7.1 more",
        "421 4.3.2 more",
    ] {
        for stage in ["DATA", "BODY"] {
            let fault = if stage == "DATA" {
                Act::More(text, Form::Apart)
            } else {
                Act::says(text)
            };
            let upstream = Script::default()
                .at(stage, fault)
                .at("EOD", Act::says("550 5.7.1 no"))
                .start_here();
            let message = message(body.clone());
            let report = deliver(&connector(settings(upstream.address)), &message).await;
            assert_eq!(short(&report), "deferred deferred", "{stage} {text}");
            let said = self::text(report);
            assert!(said.contains("more"), "{said}");
        }
    }
}

/// What a connection says while nobody uses it ends it, and is nobody's outcome.
#[tokio::test]
async fn reply_before_its_question_on_an_idle_connection() {
    for text in [
        "250 2.0.0 more",
        "451 4.3.0 more",
        "550 5.7.1 more",
        "421 4.4.2 bye",
        "2",
    ] {
        let told = Arc::new(Notify::new());
        let upstream = Script::default()
            .when({
                let told = told.clone();
                move |at| {
                    let is_first = at.stage == "EOD" && at.connection == 1;
                    is_first.then(|| Act::Later(told.clone(), text))
                }
            })
            .start_here();
        let connector = connector(settings(upstream.address));
        assert_eq!(short(&deliver(&connector, &small()).await), "ok ok");
        told.notify_one();
        tokio::task::yield_now().await;
        told.notified().await;
        assert_eq!(
            short(&deliver(&connector, &small()).await),
            "ok ok",
            "{text}"
        );
        let seen = upstream.seen();
        assert_eq!((seen.connections, seen.messages.len()), (2, 2), "{text}");
    }
    // The same behind RSET, which comes before the next MAIL on the connection.
    let upstream = Script::default()
        .at("RCPT1", Act::says("550 no"))
        .at("RCPT2", Act::says("450 no"))
        .at("RSET", Act::More("250 2.0.0 more", Form::Together))
        .start_here();
    let connector = connector(settings(upstream.address));
    for connections in [1, 2, 3] {
        let report = deliver(&connector, &small()).await;
        assert_eq!(short(&report), "failed deferred");
        assert_eq!(upstream.seen().connections, connections);
    }
}

/// After so many messages of one connection it says 421 unasked and closes.
fn closes_after(messages: usize) -> Script {
    Script::default().when(move |at| {
        let is_last = at.stage == "EOD" && at.messages + 1 == messages;
        is_last.then_some(Act::Leaves("421 4.4.2 enough"))
    })
}

#[tokio::test]
async fn connections_are_reused_and_renewed() {
    for (script, per_connection, connections) in [
        (Script::default(), 100, 1),
        (Script::default(), 2, 3),
        (closes_after(2), 100, 3),
        (closes_after(1).offers("PIPELINING"), 100, 5),
    ] {
        let upstream = script.start_here();
        let connector = connector(SmtpSettings {
            messages_per_connection: per_connection,
            ..settings(upstream.address)
        });
        for _ in 0..5 {
            assert_eq!(short(&deliver(&connector, &small()).await), "ok ok");
        }
        assert_eq!(upstream.seen().connections, connections);
        assert_eq!(upstream.count(), 5);
    }
    // A refused transaction is taken back before the next one on the same connection.
    let upstream = Script::default()
        .at("RCPT1", Act::says("550 no"))
        .at("RCPT2", Act::says("450 no"))
        .start_here();
    let connector = connector(settings(upstream.address));
    for _ in 0..2 {
        assert_eq!(
            short(&deliver(&connector, &small()).await),
            "failed deferred"
        );
    }
    assert!(upstream.was_told("RSET"));
    assert_eq!(upstream.seen().connections, 1);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let upstream = Script::default().start_here();
    let connector = connector(SmtpSettings {
        idle_timeout: Duration::from_millis(50),
        ..settings(upstream.address)
    });
    assert_eq!(short(&deliver(&connector, &small()).await), "ok ok");
    until("QUIT", async || upstream.was_told("QUIT")).await;
}

#[tokio::test]
async fn large_bodies_and_an_upstream_that_has_enough() {
    let directory = tempfile::tempdir().unwrap();
    let content = b"0123456789abcdef\r\n.\r\n..\r\n".repeat(200_000);
    let body = stored(directory.path(), 1, &content).await;
    let large = || message(body.clone());
    let upstream = Script::default().start_here();
    let ours = connector(settings(upstream.address));
    assert_eq!(short(&deliver(&ours, &large()).await), "ok ok");
    let got = upstream.mails().remove(0).content;
    let wanted = b"0123456789abcdef\r\n..\r\n...\r\n".repeat(200_000);
    assert!(got == [b"Subject: x\r\n\r\n", wanted.as_slice(), b".\r\n"].concat());
    // Shorter than stored: no dot, so nothing arrives.
    let broken = message(stored(directory.path(), 2, &content).await);
    let path = directory.path().join(id(2).to_string());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(content.len() as u64 - 1).unwrap();
    assert_eq!(short(&deliver(&ours, &broken).await), "deferred deferred");
    assert_eq!(upstream.count(), 1);
    for (fault, expected) in [
        (Act::says("552 5.3.4 too much"), "failed failed"),
        (Act::says("452 4.3.1 full"), "deferred deferred"),
        (Act::says("250 fine"), "deferred deferred"),
        (Act::Hang, "deferred deferred"),
        (Act::Fin, "deferred deferred"),
        (Act::Rst, "deferred deferred"),
    ] {
        let upstream = Script::default().at("BODY", fault.clone()).start_here();
        let report = deliver(&connector(settings(upstream.address)), &large()).await;
        assert_eq!(short(&report), expected, "{fault:?} {report:?}");
    }
}

#[tokio::test]
async fn size_is_respected() {
    let upstream = Script::default().offers("SIZE_10").start_here();
    let connector = connector(settings(upstream.address));
    assert_eq!(
        short(&deliver(&connector, &small()).await),
        "unsuited unsuited"
    );
    assert!(!upstream.was_told("MAIL"));
}

#[tokio::test]
async fn odd_greetings_and_endless_replies() {
    for (octets, word) in [
        (b"HELLO\n".to_vec(), "no SMTP reply"),
        (vec![b'2'; 1 << 20], "without an end"),
        (b"220-x\r\n".repeat(100_000), "without an end"),
        (vec![0; 5000], "without an end"),
        (b"\x15\x03\x03\0\x02\x02\x28".to_vec(), "implicit"),
        (Vec::new(), "no reply in time at greeting"),
    ] {
        let upstream = Script::default()
            .at("banner", Act::Octets(octets))
            .start_here();
        let report = deliver(&connector(settings(upstream.address)), &small()).await;
        assert_eq!(short(&report), "down");
        let text = text(report);
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn certificates() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let key = KeyPair::generate().unwrap();
    let own = params(&["127.0.0.1"], NOW).self_signed(&key).unwrap();
    let old = params(&["127.0.0.1"], (2001, 2002))
        .self_signed(&key)
        .unwrap();
    let other = params(&["other.example"], NOW).self_signed(&key).unwrap();
    let write = |name: &str, pem: String| {
        let file = authority.directory.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file
    };
    let (own_file, old_file) = (write("own", own.pem()), write("old", old.pem()));
    let other_file = write("other", other.pem());
    let ca = authority.file();
    let good = authority.server(&["127.0.0.1"], NOW);
    let wrong = authority.server(&["other.example"], NOW);
    let expired = authority.server(&["127.0.0.1"], (2001, 2002));
    let early = authority.server(&["127.0.0.1"], (2080, 2090));
    let unknown = stranger.server(&["127.0.0.1"], NOW);
    let nameless = authority.server(&[], NOW);
    let selfmade = |c: &rcgen::Certificate| server(c.der().clone(), &key);
    let cases: Vec<(Arc<ServerConfig>, &Path, Verify, &str)> = vec![
        (good.clone(), &ca, Verify::Full, ""),
        (wrong.clone(), &ca, Verify::Full, "other.example"),
        (wrong, &ca, Verify::Certificate, ""),
        (nameless, &ca, Verify::Full, "is not for 127.0.0.1"),
        (expired.clone(), &ca, Verify::Full, "expired on 2002-01-01"),
        (expired.clone(), &ca, Verify::Certificate, "expired"),
        (expired, &ca, Verify::None, ""),
        (early, &ca, Verify::Full, "not valid before 2080-01-01"),
        (unknown.clone(), &ca, Verify::Full, "unknown issuer"),
        (unknown, &ca, Verify::None, ""),
        (selfmade(&own), &ca, Verify::Full, "unknown issuer"),
        (selfmade(&own), &own_file, Verify::Full, ""),
        (good, &own_file, Verify::Full, "unknown issuer"),
        (selfmade(&old), &old_file, Verify::Full, "expired"),
        (selfmade(&other), &other_file, Verify::Full, "other.example"),
        (selfmade(&other), &other_file, Verify::Certificate, ""),
    ];
    for (index, (tls, file, verify, problem)) in cases.into_iter().enumerate() {
        for mode in [Tls::StartTls, Tls::Implicit, Tls::Opportunistic] {
            let upstream = match mode {
                Tls::Implicit => Script::default().implicit(tls.clone()),
                _ => Script::default().starttls(tls.clone()),
            }
            .offers("AUTH_PLAIN")
            .start_here();
            let connector = connector(SmtpSettings {
                tls: mode,
                verify,
                ca_file: Some(file.to_owned()),
                login: Some(("u".into(), Secret::new("p"))),
                ..settings(upstream.address)
            });
            let report = deliver(&connector, &small()).await;
            let wanted = if problem.is_empty() { "ok ok" } else { "down" };
            assert_eq!(short(&report), wanted, "{index} {mode:?} {report:?}");
            if !problem.is_empty() {
                assert!(!upstream.was_told("AUTH"));
                let text = text(report);
                assert!(text.contains(problem), "{index}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn tls_sessions_are_gone_on_with_and_done_without() {
    let authority = Authority::new();
    // tls_resumption, the server hangs up on a ticket; of three connections, which went on with a session.
    for (resumption, hates_tickets, expected) in [
        (true, false, vec![false, true, true]),
        (false, false, vec![false, false, false]),
        (true, true, vec![false, false, false]),
    ] {
        let upstream = Script::default()
            .implicit(authority.server(&["127.0.0.1"], NOW))
            .hates_tickets(hates_tickets)
            .start_here();
        let connector = connector(SmtpSettings {
            tls: Tls::Implicit,
            tls_resumption: resumption,
            ca_file: Some(authority.file()),
            messages_per_connection: 1,
            ..settings(upstream.address)
        });
        for _ in 0..3 {
            let report = deliver(&connector, &small()).await;
            assert_eq!(short(&report), "ok ok", "{report:?}");
        }
        let seen = upstream.seen();
        assert_eq!(seen.resumed, expected, "{resumption} {hates_tickets}");
        // One that fails with a ticket is made once more without, and not a third time.
        let connections = if hates_tickets { 5 } else { 3 };
        assert_eq!(seen.connections, connections);
    }
}

#[tokio::test]
async fn tls_where_it_is_not_expected_and_not_where_it_is() {
    let authority = Authority::new();
    let smtp = |address, tls| SmtpSettings {
        tls,
        ca_file: Some(authority.file()),
        login: Some(("u".into(), Secret::new("p"))),
        ..settings(address)
    };
    let plain = Script::default().start_here();
    let report = deliver(&connector(smtp(plain.address, Tls::Implicit)), &small()).await;
    assert_eq!(short(&report), "down");
    assert!(text(report).contains("plain text"));
    let report = deliver(&connector(smtp(plain.address, Tls::StartTls)), &small()).await;
    assert_eq!(short(&report), "down");
    assert!(!plain.was_told("AUTH"));

    // Bytes behind the 220, in the same packet: an injected reply.
    let injecting = Script::default()
        .at(
            "STARTTLS",
            Act::says("220 go\r\n250-evil\r\n250 AUTH PLAIN"),
        )
        .starttls(authority.server(&["127.0.0.1"], NOW))
        .start_here();
    let report = deliver(&connector(smtp(injecting.address, Tls::StartTls)), &small()).await;
    assert_eq!(short(&report), "down");
    assert!(text(report).contains("injects"));
    assert!(!injecting.was_told("AUTH"));
}

#[tokio::test]
async fn probes() {
    let authority = Authority::new();
    let upstream = Script::default()
        .starttls(authority.server(&["127.0.0.1"], NOW))
        .offers("AUTH_PLAIN SIZE_1000")
        .start_here();
    let connector = connector(SmtpSettings {
        tls: Tls::StartTls,
        ca_file: Some(authority.file()),
        login: Some(("u".into(), Secret::new("p"))),
        ..settings(upstream.address)
    });
    let text = connector.probe(soon().at().into_std()).await.unwrap();
    for word in ["127.0.0.1", "TLSv1.3", "2090-01-01", "PLAIN", "1000 octets"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(upstream.was_told("QUIT") && !upstream.was_told("MAIL"));
}

#[tokio::test]
async fn the_record_shows_no_secret() {
    let upstream = Script::default().offers("AUTH_PLAIN").start_here();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = lines.clone();
    let all = Settings {
        name: "up".into(),
        max_concurrent: 1,
        is_concurrency_given: true,
        probe: Duration::from_mins(1),
        rate: None,
        timeout: Duration::from_mins(1),
        max_recipients: 100,
        kind: Kind::Smtp(Box::new(SmtpSettings {
            login: Some(("u".into(), Secret::new("p"))),
            ..settings(upstream.address)
        })),
    };
    let recorder = Arc::new(move |line: &str| shared.lock().unwrap().push(line.to_owned()));
    let connector = all
        .build(postern::connector::Services {
            recorder: Some(recorder),
            token_store: None,
        })
        .unwrap();
    let report = connector.deliver(&small(), &recipients(), &soon()).await;
    assert_eq!(short(&report), "ok ok");
    let record = lines.lock().unwrap().join("\n");
    assert!(!record.contains("AHUAcA"), "{record}");
    for line in [
        "< 220 up.example ready",
        "> AUTH PLAIN ***",
        "< 235 2.7.0 welcome",
        "> RCPT TO:<b@x.example>",
        "> <message, 27 octets>",
        "< 250 2.0.0 taken",
    ] {
        assert!(record.lines().any(|l| l == line), "{line} in {record}");
    }
}

#[tokio::test]
async fn no_loop_to_ourselves() {
    let upstream = Script::default().start_here();
    let port = upstream.address.port();
    for own in [
        upstream.address,
        SocketAddr::new("0.0.0.0".parse().unwrap(), port),
    ] {
        let connector = connector(SmtpSettings {
            own_addresses: vec![own],
            ..settings(upstream.address)
        });
        let report = deliver(&connector, &small()).await;
        assert_eq!(short(&report), "misconfigured");
    }
    assert!(!upstream.was_told("EHLO"));
}

#[tokio::test]
async fn a_dropped_delivery_closes_the_connection() {
    let upstream = Script::default().at("DATA", Act::Hang).start_here();
    let connector = connector(settings(upstream.address));
    let message = small();
    let cut = tokio::time::timeout(Duration::from_millis(200), deliver(&connector, &message)).await;
    assert!(cut.is_err());
    // A deadline of our own: before the dot deferred, at once; its timeouts are minutes.
    let connector = through(
        settings(upstream.address),
        Proxy::default(),
        Timeouts::default(),
    );
    let begun = Instant::now();
    let report = connector
        .deliver(
            &message,
            &recipients(),
            &(begun + Duration::from_secs(2)).into(),
        )
        .await;
    assert_eq!(short(&report), "deferred deferred");
    assert!(begun.elapsed() < Duration::from_mins(1));
}

/// Without a full name EHLO says where the connection comes from (RFC 5321 §4.1.4).
#[tokio::test]
async fn a_gateway_without_a_full_name_says_its_address() {
    let upstream = Script::default().start_here();
    let smtp = SmtpSettings {
        says_address: true,
        helo: "vm".into(),
        ..settings(upstream.address)
    };
    let report = deliver(&connector(smtp), &small()).await;
    assert_eq!(short(&report), "ok ok");
    assert!(upstream.was_told("EHLO [127.0.0.1]") && !upstream.was_told("EHLO vm"));
}

#[tokio::test]
async fn proxies() {
    // 127.0.0.1 is never proxied, so the name is one that only the proxy "knows".
    let upstream = Script::default().start_here();
    for (answer, expected) in [
        ("HTTP/1.1 200 ok\r\n\r\n", "ok ok"),
        ("HTTP/1.1 407 login\r\n\r\n", "misconfigured"),
        ("HTTP/1.1 403 no\r\n\r\n", "down"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = upstream.address;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(near.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            assert!(
                request.starts_with("CONNECT mx.invalid:25 HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(
                request.contains("Proxy-Authorization: Basic dTpw\r\n"),
                "{request}"
            );
            near.write_all(answer.as_bytes()).await.unwrap();
            let mut far = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let proxy = Proxy {
            via: Some(ProxyServer {
                socks: false,
                host: "127.0.0.1".into(),
                port,
                login: Some(("u".into(), Secret::new("p"))),
            }),
            ..Proxy::default()
        };
        let smtp = SmtpSettings {
            host: "mx.invalid".into(),
            port: 25,
            ..settings(target)
        };
        let report = deliver(&through(smtp, proxy, quick()), &small()).await;
        assert_eq!(short(&report), expected, "{report:?}");
    }
}

#[tokio::test]
async fn captures() {
    let directory = tempfile::tempdir().unwrap();
    let capture = Capture::new("kept".into(), directory.path()).unwrap();
    let message = small();
    for name in [message.id.to_string(), format!("{}-1", message.id)] {
        let report = capture.deliver(&message, &recipients(), &soon()).await;
        assert_eq!(short(&report), "ok ok");
        let read =
            |end: &str| std::fs::read(directory.path().join(format!("{name}.{end}"))).unwrap();
        assert_eq!(read("eml"), b"Subject: x\r\n\r\nhello\r\n.dot\r\n");
        let envelope: serde_json::Value = serde_json::from_slice(&read("json")).unwrap();
        assert_eq!(envelope["sender"], "s@corp.example");
        assert_eq!(envelope["recipients"][1], "b@x.example");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4);
}
