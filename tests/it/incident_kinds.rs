//! Every kind of incident in the running gateway: what goes wrong opens its own incident, once, and nothing else; mended, it is over, once;
//! and both are told, once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use postern::incident::catalogue::IncidentKind;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    cluster_incidents,
    harness::{
        clock::Clock,
        cloud_token::{Endpoint, granted},
        gateway::{Gateway, basic, send, signal, stdout, wait},
        http::serve,
        peers::need,
        time::stays,
        upstream::{Act, Script, Upstream},
    },
    incident::{Posts, receiver},
    window::{log_in, windowed},
};

/// Each kind, and the test below that seeds it.
const SEEDED: &[(IncidentKind, fn())] = &[
    (IncidentKind::ConnectorPaused, a_paused_connector),
    (IncidentKind::MailboxRefused, a_refused_mailbox),
    (IncidentKind::ConnectorClosed, a_closed_connector),
    (IncidentKind::ConnectorStopped, a_stopped_connector),
    (IncidentKind::QueueOld, old_mail),
    (IncidentKind::MailFailed, mail_that_failed),
    (IncidentKind::MailInDoubt, mail_in_doubt),
    (IncidentKind::StoreFailing, a_store_that_fails),
    (IncidentKind::DiskLow, a_disk_that_is_nearly_full),
    (IncidentKind::CredentialExpires, certificates_that_end),
    (IncidentKind::CertificateExpires, certificates_that_end),
    (IncidentKind::TokenFailing, no_new_token),
    (IncidentKind::ReloadRefused, a_refused_file),
    (IncidentKind::LoginAttack, guesses_at_the_listener),
    (IncidentKind::LoginAttack, guesses_at_the_page),
    (IncidentKind::ClientSilent, a_silent_client),
    (IncidentKind::ClockJumped, a_clock_that_is_set),
    (IncidentKind::NotifyFailing, a_channel_that_tells_nobody),
    (IncidentKind::WindowFailing, a_broken_window),
    (
        IncidentKind::StoreAway,
        cluster_incidents::a_database_that_is_away,
    ),
    (
        IncidentKind::MemberSilent,
        cluster_incidents::a_gateway_that_dies,
    ),
    (
        IncidentKind::MemberTakenOver,
        cluster_incidents::a_gateway_that_dies,
    ),
    (
        IncidentKind::ConfigurationsDiffer,
        cluster_incidents::another_configuration,
    ),
    (
        IncidentKind::SentTwice,
        cluster_incidents::a_message_that_two_send,
    ),
    (IncidentKind::QuotaUsedUp, a_quota_that_is_used_up),
    (IncidentKind::Archive, a_copy_that_failed),
    (IncidentKind::Storm, many_at_once),
];

/// Nothing replaces a credential by itself yet.
const NOBODY_MAKES: &[IncidentKind] = &[IncidentKind::RotationFailed];

#[test]
fn a_quota_that_is_used_up() {
    let sink = Upstream::start();
    let quota =
        "\n[[quota]]\nname = \"app\"\nper = \"sender\"\nmax = \"2/10s\"\nover = \"refuse\"\n";
    let watched = Watched::start(&(basic(sink.address) + quota));
    for _ in 0..2 {
        send(&watched.gateway);
    }
    let mut client = watched.gateway.connect("local");
    client.expect("EHLO app", "250");
    client.expect("MAIL FROM:<erp@corp.example>", "250");
    client.expect("RCPT TO:<x@corp.example>", "450");
    let open = watched.opened("quota_used_up");
    assert_eq!(open["object"], "app");
    assert!(
        open["evidence"].to_string().contains("…@corp.example"),
        "{open}"
    );
    watched.recovered("quota_used_up");
    watched.exactly(&[("quota_used_up", "app")]);
}

#[test]
fn a_copy_that_failed() {
    let upstream = Upstream::scripted(|line| {
        let is_refused = line.starts_with("RCPT") && line.contains("archive@");
        is_refused.then(|| "550 5.2.2 full".to_owned())
    });
    let archive =
        "\n[[archive]]\nname = \"journal\"\nto = \"archive@corp.example\"\nconnectors = [\"up\"]\n";
    let watched = Watched::start(&(basic(upstream.address) + archive));
    send(&watched.gateway);
    let open = watched.is("archive", "open");
    assert_eq!(open["object"], "journal");
    assert!(open["evidence"].to_string().contains("5.2.2"), "{open}");
    watched.recovered("archive");
    watched.exactly(&[("archive", "journal")]);
}

#[test]
fn every_kind_is_seeded() {
    for kind in IncidentKind::all() {
        let is_seeded = SEEDED.iter().any(|(seeded, _)| *seeded == kind);
        assert_ne!(is_seeded, NOBODY_MAKES.contains(&kind), "{kind}");
    }
}

/// A gateway that opens at once and recovers soon, and who is told.
struct Watched {
    gateway: Gateway,
    posts: Posts,
}

const SOON: &str = "\n[incidents]\nopen_after = \"0s\"\nrecover_after = \"1s\"\n";

fn told(url: &str) -> String {
    format!(
        "{SOON}[[notify]]\nname = \"oncall\"\ntype = \"webhook\"\nurl = \"{url}\"\nmin_severity = \"info\"\n"
    )
}

impl Watched {
    fn start(config: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), config, Vec::new())
    }

    fn start_in(dir: TempDir, config: &str, env: Vec<(&'static str, std::path::PathBuf)>) -> Self {
        let (url, posts) = receiver(|_, _, wire| wire.answer(202, "", b""));
        fs::write(
            dir.path().join("config.toml"),
            config.to_owned() + &told(&url),
        )
        .unwrap();
        Self {
            gateway: Gateway::start_with(dir, env),
            posts,
        }
    }

    fn all(&self) -> Vec<Value> {
        let said = stdout(&self.gateway.cli(&["incident", "list", "--all", "--json"]));
        let all: Value = serde_json::from_str(&said).unwrap();
        all.as_array().unwrap().clone()
    }

    /// Waits until one is in this state; it.
    fn is(&self, kind: &str, state: &str) -> Value {
        wait(&format!("{kind} is {state}"), || {
            let of = |one: &Value| one["kind"] == kind && one["state"] == state;
            self.all().into_iter().find(of)
        })
    }

    fn opened(&self, kind: &str) -> Value {
        self.is(kind, "open")
    }

    fn recovered(&self, kind: &str) {
        self.is(kind, "recovered");
    }

    /// How often each transition was told: `KIND OBJECT TRANSITION`.
    fn said(&self) -> BTreeMap<String, usize> {
        let mut said = BTreeMap::new();
        for (_, _, body) in self.posts.lock().unwrap().iter() {
            let (incident, transition) = (&body["incident"], &body["transition"]);
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let line = format!(
                "{} {} {}",
                word(&incident["kind"]),
                word(&incident["object"]),
                word(transition)
            );
            *said.entry(line).or_default() += 1;
        }
        said
    }

    /// These opened and were over, once, and were told so; nothing else was.
    fn exactly(&self, expected: &[(&str, &str)]) {
        let mut lines = BTreeMap::new();
        for (kind, object) in expected {
            for transition in ["opened", "recovered"] {
                lines.insert(format!("{kind} {object} {transition}"), 1);
            }
        }
        wait("all is told", || {
            (self.said().len() >= lines.len()).then_some(())
        });
        // Some looks more: nothing comes again.
        stays("once", Duration::from_secs(5), || self.said() == lines);
        let mut all: Vec<(String, String)> = Vec::new();
        for one in self.all() {
            assert_eq!(
                (&one["state"], &one["count"]),
                (&"recovered".into(), &1.into()),
                "{one}"
            );
            let word = |key: &str| one[key].as_str().unwrap().to_owned();
            all.push((word("kind"), word("object")));
        }
        all.sort();
        let mut names: Vec<(String, String)> = expected
            .iter()
            .map(|(kind, object)| ((*kind).to_owned(), (*object).to_owned()))
            .collect();
        names.sort();
        assert_eq!(all, names);
    }

    /// What waits is tried now; a probe may have found before us that it goes, and then nothing waits.
    fn retry(&self) {
        let done = self.gateway.cli(&["queue", "retry", "--all"]);
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(said.contains("to be tried again now"), "{said}");
    }

    fn queue_db(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.gateway.path("data/queue.db")).unwrap();
        db.busy_timeout(Duration::from_secs(30)).unwrap();
        db
    }

    /// All there is in the queue is so much older, behind the gateway's back.
    fn grow_old(&mut self, by: Duration) {
        self.gateway.kill();
        let micros = i64::try_from(by.as_micros()).unwrap();
        let db = self.queue_db();
        db.execute("UPDATE message SET accepted = accepted - ?1", [micros])
            .unwrap();
        db.execute("UPDATE event SET at = at - ?1", [micros])
            .unwrap();
        drop(db);
        self.gateway.restart();
    }
}

/// An upstream that answers so as long as it is told to.
fn until_mended(stage: &'static str, act: Act) -> (Upstream, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let script = Script::default().when(move |at| {
        let is_now = at.stage == stage && !mended.load(Ordering::Relaxed);
        is_now.then(|| act.clone())
    });
    (script.start(), is_mended)
}

fn at_an_upstream(stage: &'static str, act: Act, kind: &str) {
    let (upstream, is_mended) = until_mended(stage, act);
    let watched = Watched::start(&basic(upstream.address));
    send(&watched.gateway);
    let open = watched.opened(kind);
    let object = open["object"].as_str().unwrap();
    assert!(object.starts_with("up"), "{open}");
    is_mended.store(true, Ordering::Relaxed);
    watched.retry();
    upstream.wait(1);
    watched.recovered(kind);
    watched.exactly(&[(kind, object)]);
}

#[test]
fn a_paused_connector() {
    at_an_upstream(
        "MAIL",
        Act::says("530 5.7.1 log in first"),
        "connector_paused",
    );
}

#[test]
fn a_refused_mailbox() {
    let said = "550 5.7.60 SMTP; Client does not have permissions to send as this sender";
    at_an_upstream("MAIL", Act::says(said), "mailbox_refused");
}

#[test]
fn a_closed_connector() {
    at_an_upstream(
        "banner",
        Act::Closes("421 4.3.2 not now"),
        "connector_closed",
    );
}

#[test]
fn a_stopped_connector() {
    let upstream = Upstream::start();
    let watched = Watched::start(&basic(upstream.address));
    stdout(&watched.gateway.cli(&["connector", "stop", "up"]));
    watched.opened("connector_stopped");
    stdout(&watched.gateway.cli(&["connector", "start", "up"]));
    watched.recovered("connector_stopped");
    watched.exactly(&[("connector_stopped", "up")]);
}

#[test]
fn old_mail() {
    let (upstream, is_mended) = until_mended("MAIL", Act::says("451 4.3.0 later"));
    let mut watched = Watched::start(&basic(upstream.address));
    send(&watched.gateway);
    wait("a try", || (upstream.seen().connections > 0).then_some(()));
    watched.grow_old(Duration::from_secs(3_700));
    let open = watched.opened("queue_old");
    assert_eq!(open["severity"], "warning");
    is_mended.store(true, Ordering::Relaxed);
    watched.retry();
    upstream.wait(1);
    watched.recovered("queue_old");
    watched.exactly(&[("queue_old", "all")]);
}

#[test]
fn mail_that_failed() {
    let upstream = Upstream::scripted(|line| {
        let is_refused = line.starts_with("RCPT") && line.contains("x@corp.example");
        is_refused.then(|| "550 5.1.1 nobody here".to_owned())
    });
    let watched = Watched::start(&basic(upstream.address));
    send(&watched.gateway);
    let open = watched.is("mail_failed", "open");
    assert!(!open.to_string().contains("x@corp"), "{open}");
    // What happened is over by itself.
    watched.recovered("mail_failed");
    watched.exactly(&[("mail_failed", "all")]);
}

#[test]
fn mail_in_doubt() {
    let (upstream, is_mended) = until_mended("EOD", Act::Fin);
    let mut watched = Watched::start(&basic(upstream.address));
    let id = send(&watched.gateway);
    wait("it is in doubt", || {
        let life = stdout(&watched.gateway.cli(&["trace", &id]));
        life.contains("doubt").then_some(())
    });
    // For half an hour it is nothing to tell.
    stays("too early", Duration::from_secs(3), || {
        watched.all().is_empty()
    });
    watched.grow_old(Duration::from_mins(31));
    watched.opened("mail_in_doubt");
    is_mended.store(true, Ordering::Relaxed);
    watched.retry();
    upstream.wait(1);
    watched.recovered("mail_in_doubt");
    watched.exactly(&[("mail_in_doubt", "all")]);
}

/// Every write to the journal of the queue is an error of the disk, as long as strace looks on.
#[test]
#[ignore = "needs strace, which tests/run installs"]
fn a_store_that_fails() {
    need("strace");
    let upstream = Upstream::start();
    let watched = Watched::start(&basic(upstream.address));
    let gateway = &watched.gateway;
    let mut strace = std::process::Command::new("strace")
        .args(["-f", "-o", "strace.out", "-e", "trace=pwrite64"])
        .args(["-e", "inject=pwrite64:error=EIO"])
        .args(["-P", "data/queue.db-wal", "-P"])
        .arg(gateway.path("data/queue.db-wal"))
        .args(["-p", &gateway.pid().to_string()])
        .current_dir(gateway.dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let content = "From: erp@corp.example\r\nSubject: s\r\n\r\nb\r\n";
    // What is known to fail is refused before there is any content.
    let mut mail = || {
        let reply = client.say("MAIL FROM:<erp@corp.example>");
        if !reply.starts_with("250 ") {
            return reply;
        }
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        client.send(content.as_bytes());
        client.say(".")
    };
    wait("nothing is taken", || {
        let reply = mail();
        assert!(
            reply.starts_with("451 ") || reply.starts_with("250 "),
            "{reply}"
        );
        reply.starts_with("451 ").then_some(())
    });
    let open = watched.opened("store_failing");
    assert_eq!(open["severity"], "critical");
    // The file is written every second.
    wait("it is not ready", || {
        let ready = gateway.cli(&["health", "--ready"]);
        (!ready.status.success()).then_some(())
    });
    signal(strace.id(), "INT");
    strace.wait().unwrap();
    wait("mail is taken", || mail().starts_with("250 ").then_some(()));
    watched.recovered("store_failing");
    watched.exactly(&[("store_failing", "")]);
}

#[test]
fn a_disk_that_is_nearly_full() {
    let upstream = Upstream::start();
    let watched = Watched::start(&basic(upstream.address));
    let disk = rustix::fs::statvfs(watched.gateway.dir.path()).unwrap();
    let free = (disk.f_bavail * disk.f_frsize) >> 20;
    let file = watched.gateway.config_path();
    let text = fs::read_to_string(&file).unwrap();
    // Half of it would be the edge.
    let more = format!("\n[limits]\nfree_disk = \"{}MiB\"\n", free * 7 / 10);
    fs::write(&file, text.clone() + &more).unwrap();
    stdout(&watched.gateway.cli(&["reload"]));
    watched.opened("disk_low");
    // It is told before mail is refused.
    send(&watched.gateway);
    fs::write(&file, text).unwrap();
    stdout(&watched.gateway.cli(&["reload"]));
    watched.recovered("disk_low");
    watched.exactly(&[("disk_low", "")]);
}

/// A certificate and its key that end in so many days.
fn certificate(dir: &Path, name: &str, days: i64) {
    let mut made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let now = time::OffsetDateTime::now_utc();
    made.not_before = now - time::Duration::days(1);
    made.not_after = now + time::Duration::days(days);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = made.self_signed(&key).unwrap().pem();
    fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn certificates_that_end() {
    let upstream = Upstream::start();
    let dir = TempDir::new().unwrap();
    certificate(dir.path(), "lan", 10);
    certificate(dir.path(), "out", 5);
    let config = basic(upstream.address)
        .replace(
            "address = \"127.0.0.1:0\"\n",
            "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"lan.pem\"\nkey = \"lan.key\"\n",
        )
        .replace(
            "tls = \"off\"\n",
            "tls = \"starttls\"\nverify = \"none\"\nclient_certificate = \"out.pem\"\nclient_key = \"out.key\"\n",
        );
    let watched = Watched::start_in(dir, &config, Vec::new());
    let lan = watched.opened("certificate_expires");
    let out = watched.opened("credential_expires");
    assert_eq!(
        (&lan["object"], &out["object"]),
        (&"local".into(), &"up".into())
    );
    assert_eq!(
        (&lan["severity"], &out["severity"]),
        (&"warning".into(), &"warning".into())
    );
    certificate(watched.gateway.dir.path(), "lan", 100);
    certificate(watched.gateway.dir.path(), "out", 100);
    stdout(&watched.gateway.cli(&["reload"]));
    watched.recovered("certificate_expires");
    watched.recovered("credential_expires");
    watched.exactly(&[
        ("certificate_expires", "local"),
        ("credential_expires", "up"),
    ]);
}

#[test]
fn no_new_token() {
    let upstream = Upstream::scripted(|line| match line.split(' ').next() {
        Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2".to_owned()),
        Some("AUTH") => Some("235 2.7.0 ok".to_owned()),
        _ => None,
    });
    // Seconds that a token lasts; 0: there is none.
    let lasts = Arc::new(AtomicU16::new(60));
    let given = Arc::clone(&lasts);
    let endpoint = Endpoint::start(move |_| match given.load(Ordering::Relaxed) {
        0 => (503, "Retry-After: 1\r\n".into(), String::new()),
        seconds => granted("token", u64::from(seconds)),
    });
    let oauth = format!(
        "tls = \"off\"\nauth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush\", mailbox = \"erp@corp.example\", token_url = \"{}\" }}",
        endpoint.url("/t")
    );
    let watched = Watched::start(&basic(upstream.address).replace("tls = \"off\"", &oauth));
    send(&watched.gateway);
    upstream.wait(1);
    // A new one is asked for when half of the old one's time is over, which serves on meanwhile.
    lasts.store(0, Ordering::Relaxed);
    let mut sent = 1;
    let begin = Instant::now();
    let before = endpoint.asked().len();
    while endpoint.asked().len() == before {
        assert!(
            begin.elapsed() < Duration::from_secs(50),
            "nobody asks for a new one"
        );
        send(&watched.gateway);
        sent += 1;
        std::thread::sleep(Duration::from_secs(2));
    }
    watched.opened("token_failing");
    lasts.store(3_600, Ordering::Relaxed);
    wait("a new token", || {
        send(&watched.gateway);
        sent += 1;
        let state = watched.all();
        std::thread::sleep(Duration::from_secs(1));
        (state[0]["state"] == "recovered").then_some(())
    });
    upstream.wait(sent);
    watched.exactly(&[("token_failing", "up")]);
}

#[test]
fn a_refused_file() {
    let upstream = Upstream::start();
    let watched = Watched::start(&basic(upstream.address));
    let file = watched.gateway.config_path();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "nonsense = 1\n").unwrap();
    watched.gateway.hang_up();
    watched.opened("reload_refused");
    fs::write(&file, text).unwrap();
    watched.gateway.hang_up();
    watched.recovered("reload_refused");
    watched.exactly(&[("reload_refused", "")]);
}

/// One incident however long it goes on. That it ends five minutes later is for a test that needs no five minutes.
fn is_one_attack(watched: &Watched, mut guess: impl FnMut()) {
    for _ in 0..12 {
        guess();
    }
    assert!(watched.all().is_empty(), "a dozen is no attack");
    for _ in 0..12 {
        guess();
    }
    let open = watched.opened("login_attack");
    assert_eq!(open["object"], "127.0.0.1");
    for _ in 0..12 {
        guess();
    }
    wait("it is told", || (!watched.said().is_empty()).then_some(()));
    stays("one", Duration::from_secs(5), || {
        watched.all().len() == 1 && watched.said().values().sum::<usize>() == 1
    });
}

#[test]
fn guesses_at_the_listener() {
    let upstream = Upstream::start();
    let config = basic(upstream.address)
        + "\n[[user]]\nname = \"erp\"\npassword = '$argon2id$v=19$m=19456,t=2,p=1$H7GeO6ZnMR+MIVOdNr4ZOQ$m+UGitB9sFzWaccaPJzbKXtFz/vAepqdd7sBB1WkCa0'\n";
    let config = config.replace(
        "address = \"127.0.0.1:0\"\n",
        "address = \"127.0.0.1:0\"\nauth = \"optional\"\nplaintext_auth = true\n",
    );
    let watched = Watched::start(&config);
    is_one_attack(&watched, || {
        let mut client = watched.gateway.connect("local");
        client.expect("EHLO x", "250");
        // `\0erp\0wrong`
        let reply = client.say("AUTH PLAIN AGVycAB3cm9uZw==");
        assert!(
            reply.starts_with("535 ") || reply.starts_with("454 "),
            "{reply}"
        );
    });
}

#[test]
fn guesses_at_the_page() {
    let upstream = Upstream::start();
    let watched = Watched::start(&windowed(&upstream, ""));
    let window = watched.gateway.window();
    is_one_attack(&watched, || {
        let status = log_in(&window, "kim", "a guess").status;
        assert!([401, 429].contains(&status), "{status}");
    });
}

/// A minute is the least that can be configured, and nobody is silent before the gateway has listened for as long.
#[test]
fn a_silent_client() {
    let upstream = Upstream::start();
    let dir = TempDir::new().unwrap();
    let clock = Clock::new(dir.path());
    let config = basic(upstream.address)
        + "\n[[client]]\nname = \"nightly\"\nnetworks = [\"127.0.0.0/8\"]\nexpect_every = \"1m\"\n\
           [[client]]\nname = \"never\"\nnetworks = [\"10.9.8.7\"]\n";
    let watched = Watched::start_in(dir, &config, clock.env());
    let begin = Instant::now();
    send(&watched.gateway);
    upstream.wait(1);
    let open = watched.opened("client_silent");
    assert!(begin.elapsed() >= Duration::from_secs(58), "{open}");
    assert_eq!(open["object"], "nightly");
    // Who is refused has sent nothing.
    let mut client = watched.gateway.connect("local");
    client.expect("EHLO x", "250");
    client.expect("MAIL FROM:<x@evil.example>", "550");
    drop(client);
    send(&watched.gateway);
    watched.recovered("client_silent");
    watched.exactly(&[("client_silent", "nightly")]);
}

#[test]
fn a_clock_that_is_set() {
    let upstream = Upstream::start();
    let dir = TempDir::new().unwrap();
    let clock = Clock::new(dir.path());
    let watched = Watched::start_in(dir, &basic(upstream.address), clock.env());
    send(&watched.gateway);
    upstream.wait(1);
    // Less is the time service at work.
    clock.set(200);
    stays("a small step", Duration::from_secs(5), || {
        watched.all().is_empty()
    });
    clock.set(4_000);
    let open = watched.opened("clock_jumped");
    assert!(
        open["evidence"][0].as_str().unwrap().contains("forward"),
        "{open}"
    );
    watched.recovered("clock_jumped");
    watched.exactly(&[("clock_jumped", "")]);
}

#[test]
fn a_channel_that_tells_nobody() {
    let upstream = Upstream::start();
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let (url, _) = receiver(move |_, _, wire| {
        let status = if mended.load(Ordering::Relaxed) {
            200
        } else {
            500
        };
        wire.answer(status, "", b"")
    });
    let config = basic(upstream.address)
        + &format!(
            "\n[[notify]]\nname = \"broken\"\ntype = \"webhook\"\nurl = \"{url}\"\nmin_severity = \"info\"\n"
        );
    let watched = Watched::start(&config);
    stdout(&watched.gateway.cli(&["connector", "stop", "up"]));
    watched.opened("connector_stopped");
    // It has been tried for a day.
    let db = rusqlite::Connection::open(watched.gateway.path("data/window.db")).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    wait("a first try", || {
        let aged = db.execute(
            "UPDATE outbox SET made = made - 90000000000, next = 0 WHERE channel = 'broken' AND tries > 0 AND over = 0",
            [],
        );
        (aged.unwrap() == 1).then_some(())
    });
    let open = watched.opened("notify_failing");
    assert_eq!(open["object"], "broken");
    is_mended.store(true, Ordering::Relaxed);
    stdout(&watched.gateway.cli(&["connector", "start", "up"]));
    // Of its own fault it is told nothing, and nothing else happens: it is tried by hand.
    let test = ["incident", "test", "broken"];
    stdout(&watched.gateway.cli(&test));
    watched.recovered("notify_failing");
    watched.recovered("connector_stopped");
    watched.exactly(&[("connector_stopped", "up"), ("notify_failing", "broken")]);
}

#[test]
fn a_broken_window() {
    let upstream = Upstream::start();
    let watched = Watched::start(&basic(upstream.address));
    assert!(watched.all().is_empty());
    let path = watched.gateway.path("data/window.db");
    // All of it is in the file, and none in its journal.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let mut octets = fs::read(&path).unwrap();
    octets.fill(0x55);
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(&octets).unwrap();
    drop(file);
    send(&watched.gateway);
    upstream.wait(1);
    let open = wait("the incident", || {
        // Until it is mended commands cannot read it.
        let said = watched.gateway.cli(&["incident", "list", "--json"]);
        let all: Value = serde_json::from_slice(&said.stdout).ok()?;
        all.get(0).cloned()
    });
    assert_eq!(open["kind"], "window_failing");
    // A receiver that knows the numbers of the old file is not confused.
    assert!(open["id"].as_str().unwrap().len() > 6, "{open}");
    assert!(watched.gateway.path("data/window.db.bad").exists());
    watched.recovered("window_failing");
    watched.exactly(&[("window_failing", "")]);
}

#[test]
fn many_at_once() {
    let upstream = Upstream::start();
    let mut config = basic(upstream.address);
    for n in 0..14 {
        let _ = write!(
            config,
            "\n[[connector]]\nname = \"c{n}\"\ntype = \"discard\"\n"
        );
    }
    let watched = Watched::start(&config);
    let each = |verb: &str| {
        for n in 0..14 {
            stdout(&watched.gateway.cli(&["connector", verb, &format!("c{n}")]));
        }
    };
    each("stop");
    let storm = watched.opened("storm");
    let listed = storm["evidence"].as_array().unwrap().len();
    assert!(listed > 10, "{storm}");
    each("start");
    watched.recovered("storm");
    let mut expected: Vec<(String, String)> = Vec::new();
    wait("all are over", || {
        let all = watched.all();
        let is_over = all.iter().all(|one| one["state"] == "recovered");
        let word = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        expected = all
            .iter()
            .map(|one| (word(one, "kind"), word(one, "object")))
            .collect();
        is_over.then_some(())
    });
    // Those before the storm have an incident of their own, the others none.
    assert!((1..=11).contains(&expected.len()), "{expected:?}");
    let expected: Vec<(&str, &str)> = expected
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    watched.exactly(&expected);
}

/// It beats while mail is taken and nothing critical is open that nobody looks after.
#[test]
fn a_heart_beats_while_all_is_well() {
    let (upstream, is_mended) = until_mended("MAIL", Act::says("530 5.7.1 log in first"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ping", listener.local_addr().unwrap());
    let beats = Arc::new(AtomicU16::new(0));
    let counted = Arc::clone(&beats);
    serve(listener, move |mut wire| {
        loop {
            let head = wire.head()?;
            assert_eq!((head.method(), head.target()), ("GET", "/ping"));
            counted.fetch_add(1, Ordering::Relaxed);
            wire.answer(200, "", b"")?;
        }
    });
    let config = basic(upstream.address)
        + &format!(
            "\n[[notify]]\nname = \"dead-man\"\ntype = \"heartbeat\"\nurl = \"{url}\"\nevery = \"10s\"\n"
        );
    let mut watched = Watched::start(&config);
    let count = || beats.load(Ordering::Relaxed);
    wait("two beats", || (count() >= 2).then_some(()));
    send(&watched.gateway);
    let open = watched.opened("connector_paused");
    let before = count();
    // Longer than `every`; one that was on its way may come.
    stays("no beat", Duration::from_secs(13), || count() <= before + 1);
    let before = count();
    watched.gateway.kill();
    watched.gateway.restart();
    watched.opened("connector_paused");
    stays("none after a restart", Duration::from_secs(5), || {
        count() == before
    });
    stdout(
        &watched
            .gateway
            .cli(&["incident", "ack", open["id"].as_str().unwrap()]),
    );
    wait("somebody looks after it", || {
        (count() > before).then_some(())
    });
    is_mended.store(true, Ordering::Relaxed);
    watched.retry();
    upstream.wait(1);
    watched.recovered("connector_paused");
    let before = count();
    wait("it beats on", || (count() > before).then_some(()));
    watched.gateway.terminate();
    let before = count();
    stays("dead", Duration::from_secs(12), || count() == before);
    // A heart is told of nothing.
    assert!(
        watched
            .said()
            .keys()
            .all(|line| line.starts_with("connector_paused "))
    );
}
