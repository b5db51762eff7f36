//! The listener on real sockets, over the real session and a real store.

use crate::harness::time::{stays_so, until};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use super::{fixture, harness::peers::free_port};
use argon2::PasswordHasher;
use postern::{
    listener::{
        Bind, Limits, ListenerError, Listeners, Settings, Shared, TlsMode, auth::Authenticator,
    },
    policy::{AuthMode, client::User},
    queue::{self, Queue, sqlite::SqliteStore},
    secret::Secret,
    smtp::server::session::Rules,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub(super) fn rules() -> Rules {
    let cheap = argon2::Argon2::from(argon2::Params::new(64, 1, 1, None).unwrap());
    let mut rules = fixture::rules("relay.test", fixture::policy("*", "*"));
    (rules.message_size, rules.recipients) = (10 << 20, 100);
    rules.policy.users = vec![User {
        name: "erp".to_owned(),
        password: Secret::new(cheap.hash_password(b"right").unwrap().to_string()),
        certificates: Vec::new(),
        senders: None,
        recipients: None,
    }];
    rules
}

pub(super) fn limits() -> Limits {
    Limits {
        connections: 2_000,
        connections_per_client: 2_000,
        unlisted_connections: 100,
        messages_per_minute: 0,
        command_timeout: Duration::from_secs(20),
        data_timeout: Duration::from_secs(20),
        free_disk: 0,
    }
}

pub(super) fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        bind: Bind::Address("127.0.0.1:0".parse().unwrap()),
        tls: TlsMode::Off,
        require_tls: false,
        certificate: None,
        old_certificate: None,
        clients: None,
        auth: AuthMode::Off,
        plaintext_auth: false,
        chunking: false,
        smtputf8: false,
        proxy_protocol: Vec::new(),
    }
}

pub(super) fn certified(name: &str, dir: &Path, tls: TlsMode) -> (Settings, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (dir.join("a.pem"), dir.join("a.key"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings = Settings {
        tls,
        certificate: Some((chain, key)),
        ..settings(name)
    };
    (settings, client)
}

pub(super) struct Gate {
    dir: tempfile::TempDir,
    listeners: Listeners,
    queue: Arc<Queue>,
    pub(super) shared: Arc<Shared>,
}

impl Gate {
    pub(super) fn open(limits: Limits, listener: impl FnOnce(&Path) -> Settings) -> Self {
        Self::open_with(limits, rules(), listener)
    }

    pub(super) fn open_with(
        limits: Limits,
        rules: Rules,
        listener: impl FnOnce(&Path) -> Settings,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&queue::Settings {
            data_dir: dir.path().to_owned(),
            keep_failed: Duration::from_mins(1),
            keep_history: Duration::from_mins(1),
        })
        .unwrap();
        let queue = Arc::new(Queue::new(store));
        let shared = Shared::new(
            Arc::clone(&queue),
            rules,
            limits,
            Authenticator::new(Duration::ZERO),
        );
        let listener = listener(dir.path());
        let mut listeners = Listeners::new(Arc::clone(&shared)).unwrap();
        reload(&mut listeners, &[listener]).unwrap();
        Self {
            dir,
            listeners,
            queue,
            shared,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listeners.address("one").unwrap()
    }

    pub(super) async fn connect(&self) -> TcpStream {
        let mut tcp = TcpStream::connect(self.address()).await.unwrap();
        assert!(some(&mut tcp).await.starts_with("220 "));
        tcp
    }

    async fn waiting(&self) -> u64 {
        self.queue.store().stats().await.unwrap().waiting
    }
}

/// As the gateway does it.
fn reload(listeners: &mut Listeners, settings: &[Settings]) -> Result<(), ListenerError> {
    let prepared = listeners.prepare(settings)?;
    listeners.commit(prepared);
    Ok(())
}

/// One read: what the other side wrote in one go.
pub(super) async fn some(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut buffer = vec![0; 65_536];
    let read = timeout(Duration::from_secs(10), stream.read(&mut buffer))
        .await
        .expect("a reply within ten seconds")
        .unwrap_or(0);
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

pub(super) async fn say(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    line: &str,
) -> String {
    stream.write_all(line.as_bytes()).await.unwrap();
    some(stream).await
}

const BATCH: &str = "MAIL FROM:<a@corp.test>\r\nRCPT TO:<b@corp.test>\r\nDATA\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_on_disk_before_250_and_a_batch_is_answered_in_one_write() {
    let gate = Gate::open(limits(), |_| settings("one"));
    let mut tcp = gate.connect().await;
    assert!(say(&mut tcp, "EHLO x\r\n").await.contains("250-PIPELINING"));
    let replies = say(&mut tcp, BATCH).await;
    assert_eq!(replies.lines().count(), 3, "{replies}");
    let body = "x".repeat(70) + "\r\n";
    let mail = format!(
        "From: a@corp.test\r\nSubject: s\r\n\r\n{}.\r\n",
        body.repeat(5_000)
    );
    let reply = say(&mut tcp, &mail).await;
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    assert_eq!(gate.waiting().await, 1);
    let spooled: Vec<_> = std::fs::read_dir(gate.dir.path().join("spool"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(spooled.len(), 1, "a large body is a file");
    assert_eq!(spooled[0].metadata().unwrap().len(), 72 * 5_000);

    // The second is cut off in the middle: nothing of it stays.
    assert!(say(&mut tcp, BATCH).await.contains("354"));
    tcp.write_all(format!("From: a@corp.test\r\n\r\n{}", body.repeat(20_000)).as_bytes())
        .await
        .unwrap();
    drop(tcp);
    until("the end", async || gate.shared.open_connections() == 0).await;
    assert_eq!(gate.waiting().await, 1);
    assert_eq!(
        std::fs::read_dir(gate.dir.path().join("spool"))
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_after_the_dot_still_gets_the_reply() {
    let gate = Gate::open(limits(), |_| settings("one"));
    let mut tcp = gate.connect().await;
    say(&mut tcp, "EHLO x\r\n").await;
    assert!(say(&mut tcp, BATCH).await.contains("354"));
    tcp.write_all(b"From: a@corp.test\r\n\r\nhi\r\n.\r\n")
        .await
        .unwrap();
    tcp.shutdown().await.unwrap();
    assert!(some(&mut tcp).await.starts_with("250 2.0.0 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_and_implicit_tls() {
    for mode in [TlsMode::StartTls, TlsMode::Implicit] {
        let mut client = None;
        let gate = Gate::open(limits(), |dir| {
            let (settings, config) = certified("one", dir, mode);
            client = Some(config);
            Settings {
                auth: AuthMode::Optional,
                ..settings
            }
        });
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client.unwrap()));
        let mut tcp = TcpStream::connect(gate.address()).await.unwrap();
        if mode == TlsMode::StartTls {
            assert!(some(&mut tcp).await.starts_with("220 "));
            assert!(say(&mut tcp, "EHLO x\r\n").await.contains("STARTTLS"));
            assert!(say(&mut tcp, "STARTTLS\r\n").await.starts_with("220 "));
        }
        let name = "localhost".try_into().unwrap();
        let mut tls = connector.connect(name, tcp).await.unwrap();
        if mode == TlsMode::Implicit {
            assert!(some(&mut tls).await.starts_with("220 "));
        }
        let ehlo = say(&mut tls, "EHLO x\r\n").await;
        assert!(
            ehlo.contains("AUTH") && !ehlo.contains("STARTTLS"),
            "{ehlo}"
        );
        // \0erp\0right, then a whole message.
        let reply = say(&mut tls, "AUTH PLAIN AGVycAByaWdodA==\r\n").await;
        assert!(reply.starts_with("235 "), "{reply}");
        assert!(say(&mut tls, BATCH).await.contains("354"));
        let reply = say(&mut tls, "From: a@corp.test\r\n\r\nhi\r\n.\r\n").await;
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_throttled_by_address() {
    let gate = Gate::open(limits(), |_| Settings {
        auth: AuthMode::Optional,
        plaintext_auth: true,
        chunking: false,
        smtputf8: false,
        ..settings("one")
    });
    let mut refused = 0;
    for _ in 0..6 {
        let mut tcp = gate.connect().await;
        say(&mut tcp, "EHLO x\r\n").await;
        for _ in 0..2 {
            let reply = say(&mut tcp, "AUTH PLAIN AGVycAB3cm9uZw==\r\n").await;
            if reply.starts_with("535") {
                refused += 1;
            } else {
                assert!(reply.starts_with("454 4.7.0"), "{reply}");
            }
        }
    }
    assert_eq!(refused, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_trickle_end_a_session() {
    let short = Limits {
        command_timeout: Duration::from_millis(400),
        ..limits()
    };
    let gate = Gate::open(short, |_| settings("one"));
    let mut tcp = gate.connect().await;
    assert!(some(&mut tcp).await.starts_with("421 4.4.2"));

    let short = Limits {
        data_timeout: Duration::from_millis(600),
        ..limits()
    };
    let gate = Gate::open(short, |_| settings("one"));
    let mut tcp = gate.connect().await;
    say(&mut tcp, "EHLO x\r\n").await;
    assert!(say(&mut tcp, BATCH).await.contains("354"));
    let mut told = String::new();
    for _ in 0..40 {
        if tcp.write_all(b"x").await.is_err() {
            break;
        }
        let mut buffer = [0; 512];
        if let Ok(Ok(read)) = timeout(Duration::from_millis(100), tcp.read(&mut buffer)).await {
            told = String::from_utf8_lossy(&buffer[..read]).into_owned();
            break;
        }
    }
    assert!(told.starts_with("421 4.4.2"), "{told}");
}

/// A message in small chunks is no slower a way to keep a connection than one by DATA.
#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_of_chunks_ends_a_session() {
    let short = Limits {
        data_timeout: Duration::from_millis(600),
        ..limits()
    };
    let chunking = |name| Settings {
        chunking: true,
        ..settings(name)
    };
    let gate = Gate::open(short, move |_| chunking("one"));
    let mut tcp = gate.connect().await;
    say(&mut tcp, "EHLO x\r\n").await;
    let envelope = BATCH.replace("DATA\r\n", "");
    assert!(say(&mut tcp, &envelope).await.contains("250"));
    let mut told = String::new();
    for _ in 0..60 {
        if tcp.write_all(b"BDAT 1\r\nx").await.is_err() {
            break;
        }
        let mut buffer = [0; 512];
        let read = timeout(Duration::from_millis(100), tcp.read(&mut buffer)).await;
        told = String::from_utf8_lossy(&buffer[..read.unwrap().unwrap()]).into_owned();
        if !told.starts_with("250") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.starts_with("421 4.4.2"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_crumbs_ends_a_session() {
    let short = Limits {
        command_timeout: Duration::from_millis(800),
        ..limits()
    };
    let gate = Gate::open(short, |_| settings("one"));
    // Never silent for long: an unfinished line, and one that is too long.
    for begun in [String::new(), "x".repeat(5_000)] {
        let mut tcp = gate.connect().await;
        tcp.write_all(begun.as_bytes()).await.unwrap();
        let mut told = String::new();
        for _ in 0..100 {
            if tcp.write_all(b"x").await.is_err() {
                break;
            }
            let mut buffer = [0; 512];
            if let Ok(Ok(read)) = timeout(Duration::from_millis(100), tcp.read(&mut buffer)).await {
                told = String::from_utf8_lossy(&buffer[..read]).into_owned();
                break;
            }
        }
        assert!(told.starts_with("421 4.4.2"), "{told}");
    }
    // Whole commands, cut so that a piece of the next one is always there, go on.
    let longer = Limits {
        command_timeout: Duration::from_secs(3),
        ..limits()
    };
    let gate = Gate::open(longer, |_| settings("one"));
    let mut tcp = gate.connect().await;
    tcp.write_all(b"NO").await.unwrap();
    for _ in 0..40 {
        let reply = say(&mut tcp, "OP\r\nNO").await;
        assert!(reply.starts_with("250 "), "{reply}");
        stays_so("open", Duration::from_millis(100), || {
            gate.shared.open_connections() == 1
        })
        .await;
    }
}

// One thread: the listener cannot accept before the client has connected and talked. Nobody waits for a listed client's first words,
// so that they are there in time is chance, and they may not be answered by it.
#[tokio::test]
async fn a_listed_client_that_talks_before_the_greeting_is_greeted_and_answered() {
    let gate = Gate::open(limits(), |_| settings("one"));
    let mut tcp = std::net::TcpStream::connect(gate.address()).unwrap();
    std::io::Write::write_all(&mut tcp, b"EHLO x\r\n").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let mut tcp = TcpStream::from_std(tcp).unwrap();
    let mut told = some(&mut tcp).await;
    while told.starts_with("220 ") && !told.contains("\r\n250 ") {
        told.push_str(&some(&mut tcp).await);
    }
    assert!(told.starts_with("220 "), "{told}");
    assert!(told.contains("\r\n250-relay.test\r\n"), "{told}");
    gate.connect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_tells_idle_sessions_and_lets_others_finish() {
    let mut gate = Gate::open(limits(), |_| settings("one"));
    let mut idle = gate.connect().await;
    let mut busy = gate.connect().await;
    say(&mut busy, "EHLO x\r\n").await;
    assert!(say(&mut busy, BATCH).await.contains("354"));
    let address = gate.address();
    let finish = async {
        assert!(some(&mut idle).await.starts_with("421 4.3.2"));
        // As in `reload_is_all_or_nothing_and_says_who_has_the_port`.
        until("no more connections", async || {
            TcpStream::connect(address).await.is_err()
        })
        .await;
        let reply = say(&mut busy, "From: a@corp.test\r\n\r\nhi\r\n.\r\n").await;
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    };
    let (cut, ()) = tokio::join!(gate.listeners.drain(Duration::from_secs(10)), finish);
    assert_eq!(cut, 0);
    assert_eq!(gate.waiting().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_is_all_or_nothing_and_says_who_has_the_port() {
    let mut gate = Gate::open(limits(), |_| settings("one"));
    let address = gate.address();
    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let other = Settings {
        bind: Bind::Address(taken.local_addr().unwrap()),
        ..settings("two")
    };
    let error = reload(&mut gate.listeners, &[other.clone()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is taken by") && error.contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
    gate.connect().await;
    drop(taken);
    // Another test that starts a process at this moment holds the port for the time between fork and exec.
    until("the port", async || {
        let both = [settings("one"), other.clone()];
        reload(&mut gate.listeners, &both).is_ok()
    })
    .await;
    assert_eq!(gate.address(), address);
    assert_eq!(gate.listeners.standing().len(), 2);
    reload(&mut gate.listeners, &[settings("one")]).unwrap();
    assert_eq!(gate.listeners.standing().len(), 1);
    gate.connect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_the_header_says_who_the_client_is() {
    let gate = Gate::open(limits(), |_| Settings {
        proxy_protocol: vec!["127.0.0.0/8".parse().unwrap()],
        ..settings("one")
    });
    for (header, expected) in [
        ("PROXY TCP4 127.0.0.9 127.0.0.1 1 25\r\n", "220 "),
        ("PROXY TCP4 192.0.2.1 127.0.0.1 1 25\r\n", "554 5.7.1 "),
        ("EHLO x\r\n", ""),
    ] {
        let mut tcp = TcpStream::connect(gate.address()).await.unwrap();
        let reply = say(&mut tcp, header).await;
        assert!(reply.starts_with(expected), "{header} {reply}");
        assert_eq!(reply.is_empty(), expected.is_empty());
    }
}
