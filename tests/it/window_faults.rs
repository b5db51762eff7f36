//! Faults in the window itself: a gateway behind it whose every answer is a panic, files that break, disks that are full. Only the
//! window notices.

use std::{
    fs,
    io::{BufRead as _, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use postern::{
    admin::{
        self, App, Feed,
        host::{ChangeRefused, ExplainQuery, Host, NewMail, NotSent, NotTried, PlannedChange},
    },
    config::{self, Secrets},
    listener::Shared,
    mail::message::MessageId,
    queue::store::{Commanded, Filter, OfConnector, Search, Store, StoreError, Verb},
    view,
    window::WindowDb,
};
use serde_json::Value;

use super::{
    harness::{
        browser::At,
        gateway::{Gateway, basic, send, stdout, wait},
        peers::{free_port, small_disk},
        upstream::Upstream,
    },
    window::{audit, log_in, start, windowed},
};

/// A gateway that has a fault wherever it is asked.
#[derive(Debug, Default)]
struct Faulty {
    /// The look for changes finds nothing, and no fault.
    is_calm: AtomicBool,
}

#[async_trait]
impl Host for Faulty {
    fn store(&self) -> Arc<dyn Store> {
        panic!("a fault")
    }
    fn listeners(&self) -> Arc<Shared> {
        panic!("a fault")
    }
    async fn status(&self) -> Result<view::Status, StoreError> {
        panic!("a fault")
    }
    async fn search(&self, _: &Search) -> Result<view::FoundMessages, StoreError> {
        if self.is_calm.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("calm".into()));
        }
        panic!("a fault")
    }
    fn of_connector(&self, _: &str) -> OfConnector {
        panic!("a fault")
    }
    fn names(&self) -> (Vec<String>, Vec<String>) {
        panic!("a fault")
    }
    async fn command(&self, _: &Filter, _: &Verb, _: Option<u64>) -> Result<Commanded, StoreError> {
        panic!("a fault")
    }
    async fn life(&self, _: MessageId) -> Result<Option<view::Life>, StoreError> {
        panic!("a fault")
    }
    async fn message(&self, _: MessageId) -> Result<Option<view::ShownMessage>, StoreError> {
        panic!("a fault")
    }
    async fn connectors(&self) -> Result<Vec<view::ConnectorView>, StoreError> {
        panic!("a fault")
    }
    async fn set_stopped(&self, _: &str, _: &str, _: Option<&str>) -> Result<bool, StoreError> {
        panic!("a fault")
    }
    fn explain(&self, _: &ExplainQuery) -> Result<view::Explained, String> {
        panic!("a fault")
    }
    async fn test(&self, _: &str, _: &str, _: Option<&str>) -> Result<view::Tried, NotTried> {
        panic!("a fault")
    }
    async fn send(&self, _: NewMail) -> Result<String, NotSent> {
        panic!("a fault")
    }
    async fn test_channel(&self, _: &str) -> Option<view::ChannelTest> {
        panic!("a fault")
    }
    async fn reload(&self) -> Result<(), String> {
        panic!("a fault")
    }
    fn services(&self) -> Value {
        panic!("a fault")
    }
    async fn config(&self) -> view::ConfigView {
        panic!("a fault")
    }
    async fn check_change(&self, _: view::Changes) -> Result<view::CheckedChange, ChangeRefused> {
        panic!("a fault")
    }
    async fn plan_change(&self, _: view::Changes) -> Result<PlannedChange, ChangeRefused> {
        panic!("a fault")
    }
    async fn apply_change(&self, _: i64, _: String) -> Result<view::CheckedChange, ChangeRefused> {
        panic!("a fault")
    }
    async fn try_draft(&self, _: Value, _: Option<&str>) -> Result<view::Tried, ChangeRefused> {
        panic!("a fault")
    }
    fn connector_forms(&self) -> Vec<view::ConnectorForm> {
        panic!("a fault")
    }
    fn saved_connectors(&self) -> Option<view::SavedConnectors> {
        panic!("a fault")
    }
    fn channels(&self) -> Vec<view::ChannelView> {
        panic!("a fault")
    }
    fn day(&self) -> view::DayView {
        panic!("a fault")
    }
    fn disk(&self) -> view::DiskView {
        panic!("a fault")
    }
    fn counted_login(&self, _: bool) {}
    fn counted_request(&self, _: u16) {}
    fn is_alive(&self) -> bool {
        true
    }
    fn ready(&self) -> view::Readiness {
        view::Readiness::default()
    }
    async fn metrics(&self) -> Result<String, StoreError> {
        panic!("a fault")
    }
}

#[test]
fn a_panic_is_the_answer_to_one_request_and_a_thread_that_dies_is_started_again() {
    let sink = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let port = free_port();
    fs::write(
        &file,
        windowed(&sink, &format!("address = \"127.0.0.1:{port}\"")),
    )
    .unwrap();
    let (config, _) = config::load(&file, Secrets::Ignore).unwrap();
    let settings = config.window.unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bound = {
        let _within = runtime.enter();
        admin::bind(&settings.place, Vec::new()).unwrap()
    };
    let host = Arc::new(Faulty::default());
    host.is_calm.store(true, Ordering::Relaxed);
    let window = Arc::new(WindowDb::make(dir.path()).unwrap());
    let told: Arc<dyn Host> = host.clone();
    let app = App::new(settings, None, told, window, Arc::new(Feed::default()));
    admin::serve(Arc::clone(&app), bound).unwrap();
    let at = At::Tcp(([127, 0, 0, 1], port).into());
    // On one connection: each fault is the answer to its own request, and the next one is answered.
    let mut one = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut lines = std::io::BufReader::new(one.try_clone().unwrap());
    for (target, status) in [
        ("/api/v1/status", 500),
        ("/livez", 200),
        ("/api/v1/connectors", 500),
        ("/", 500),
        ("/metrics", 500),
        ("/livez", 200),
    ] {
        let ask = at.get(target).token("secret-of-admin");
        one.write_all(&ask.octets()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{target}: closed");
        }
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target}: {head}"
        );
        assert!(
            head.contains("content-security-policy: "),
            "{target}: {head}"
        );
        assert!(!head.contains("a fault"));
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        lines.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert_eq!(
            status == 500,
            body.contains("a fault of this program"),
            "{body}"
        );
    }
    assert_eq!(app.failures(), 0);
    // The look for changes has a fault: it takes the thread with it, and the streams.
    let mut stream = at.get("/api/v1/events").token("secret-of-viewer").begin();
    assert!(stream.head().starts_with("HTTP/1.1 200"));
    host.is_calm.store(false, Ordering::Relaxed);
    wait("the thread dies", || (app.failures() > 0).then_some(()));
    stream.rest();
    host.is_calm.store(true, Ordering::Relaxed);
    // It comes back by itself, at the same address; who was in is in.
    for _ in 0..3 {
        wait("the window is back", || {
            let TcpAnswer(said) = plain(port)?;
            said.starts_with("HTTP/1.1 200").then_some(())
        });
    }
    let failures = app.failures();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(app.failures(), failures, "it dies no more");
}

struct TcpAnswer(String);

/// What `/livez` says, where anybody is there.
fn plain(port: u16) -> Option<TcpAnswer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(TcpAnswer(said))
}

/// What is asked of the file has a fault: whoever asked hears so, nothing of it stays, and the next one is served.
#[test]
fn a_panic_in_a_transaction_ends_nothing_but_that() {
    let dir = tempfile::tempdir().unwrap();
    let window = WindowDb::make(dir.path()).unwrap();
    let failed: Result<(), _> = window.wait(|tx| {
        tx.execute_batch("CREATE TABLE half (a)")?;
        panic!("a fault")
    });
    failed.unwrap_err();
    let tables = window.wait(|tx| {
        tx.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'half'",
            [],
            |row| row.get::<_, i64>(0),
        )
    });
    assert_eq!(tables, Ok(0));
}

fn window_db(gateway: &Gateway) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(gateway.path("data/window.db")).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    db
}

fn count(gateway: &Gateway, table: &str) -> i64 {
    let question = format!("SELECT count(*) FROM {table}");
    window_db(gateway)
        .query_row(&question, [], |row| row.get(0))
        .unwrap()
}

/// Nobody has a page: what is old goes all the same.
#[test]
fn without_a_page_old_rows_go_too() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&basic(sink.address));
    stdout(&gateway.cli(&["incident", "list"]));
    let micros = |days: u64| {
        let at = SystemTime::now() - Duration::from_hours(24 * days);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_micros()).unwrap()
    };
    let db = window_db(&gateway);
    for days in [1, 20, 100, 400] {
        db.execute(
            "INSERT INTO audit (at, who, role, origin, action, object, result, request) VALUES (?1, 'kim', '', '', 'hold', '', 'ok', '')",
            [micros(days)],
        )
        .unwrap();
        for state in ["open", "applied"] {
            db.execute(
                "INSERT INTO proposal (state, who, at, title, diff, problems, base, body) VALUES (?2, 'kim', ?1, '', '', '[]', '', '{}')",
                rusqlite::params![micros(days), state],
            )
            .unwrap();
        }
        db.execute(
            "INSERT INTO incident (kind, object, severity, stage, state, opened, seen, recovered, count, number, told, evidence, members)
             VALUES ('mail_failed', ?1, 'warning', 0, 'recovered', ?1, ?1, ?1, 1, 1, ?1, '', '')",
            [micros(days)],
        )
        .unwrap();
        db.execute(
            "INSERT INTO code (hash, name, role, made) VALUES (?2, 'kim', 'admin', ?1)",
            rusqlite::params![micros(days), vec![u8::try_from(days % 256).unwrap(); 32]],
        )
        .unwrap();
    }
    drop(db);
    gateway.kill();
    gateway.restart();
    wait("what is old is gone", || {
        let dropped = count(&gateway, "proposal WHERE state = 'dropped'");
        let all = [
            count(&gateway, "audit"),
            count(&gateway, "proposal"),
            count(&gateway, "incident"),
            count(&gateway, "code"),
            dropped,
        ];
        (all == [3, 6, 2, 0, 1]).then_some(())
    });
}

/// More rows than anybody would hold in memory.
#[test]
fn an_export_of_the_audit_is_whole_and_takes_no_memory() {
    const ROWS: i64 = 120_000;
    let (gateway, window, _sink) = start("");
    audit(&window);
    // Of these days: what is old is tidied away while it is told.
    window_db(&gateway)
        .execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO audit (at, who, role, origin, action, object, before, after, result, request)
             SELECT (unixepoch() - ?1 + n) * 1000000, 'kim', 'admin', '127.0.0.1', 'apply', 'number ' || n, printf('%.400c', 'x'), NULL, 'ok', '' FROM n",
            [ROWS],
        )
        .unwrap();
    let (_, before) = gateway.memory_kib();
    let mut export = window
        .get("/api/v1/audit")
        .token("secret-of-admin")
        .with("Accept", "application/x-ndjson")
        .with("Connection", "close")
        .begin();
    assert!(export.head().starts_with("HTTP/1.1 200"));
    let (mut rows, mut octets, mut last) = (0, 0, String::new());
    loop {
        let line = export.line();
        if line.is_empty() {
            break;
        }
        octets += line.len();
        if line.contains("\"number ") {
            rows += 1;
            last = line;
        }
    }
    // A line that two pieces share has the length of the second between them.
    assert_eq!(rows, ROWS);
    assert!(
        last.contains("\"number 1\""),
        "the oldest comes last: {last}"
    );
    let (_, after) = gateway.memory_kib();
    assert!(octets > 50_000_000, "{octets}");
    assert!(
        after - before < 20_000,
        "{before} to {after} KiB for {octets} octets"
    );
    // Whoever takes the first part and goes leaves nothing behind.
    for _ in 0..60 {
        let mut export = window
            .get("/api/v1/audit")
            .token("secret-of-admin")
            .with("Accept", "application/x-ndjson")
            .begin();
        assert!(export.head().starts_with("HTTP/1.1 200"));
        drop(export);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(window.get("/livez").status(), 200);
}

/// What hyper answers by itself, before anybody of ours sees that somebody is there.
#[test]
fn attack_what_is_no_request_is_told_the_headers_of_every_answer() {
    let (_gateway, window, _sink) = start("");
    let At::Tcp(address) = &window else { panic!() };
    let long = "x".repeat(70_000);
    let pad = "x".repeat(40_000);
    let good = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (status, octets) in [
        (400, "GET / HTTP/1.1\r\nHost localhost\r\n\r\n".to_owned()),
        (400, "HELO x\r\nMAIL FROM:<a@b>\r\n\r\n".to_owned()),
        (400, "\0\0\0\0\0\0\r\n\r\n".to_owned()),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {pad}\r\n\r\n"),
        ),
        (
            431,
            format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ),
        (
            400,
            format!("{good}GET / HTTP/1.1\r\nHost localhost\r\n\r\n"),
        ),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(octets.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let shown: String = octets.chars().take(60).collect();
        if said.is_empty() {
            // The rest of a long one was on its way when it was hung up on.
            assert!(status == 431, "{shown}");
            continue;
        }
        let answers = said.matches("HTTP/1.1 ").count();
        assert!(
            said.contains(&format!("HTTP/1.1 {status} ")),
            "{shown}: {said}"
        );
        for line in [
            "content-security-policy: default-src 'none'; ",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: same-origin\r\n",
            "cross-origin-opener-policy: same-origin\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert_eq!(
                said.matches(line).count(),
                answers,
                "{shown}, {line}: {said}"
            );
        }
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }
}

/// Mail that is shown may look like an answer: nothing is put into it.
#[test]
fn attack_mail_that_looks_like_an_answer_stays_as_it_is() {
    let sink = Upstream::scripted(|line| {
        line.starts_with("MAIL")
            .then(|| "450 4.2.0 later".to_owned())
    });
    let gateway = Gateway::start(&windowed(&sink, "content = \"all\""));
    let window = gateway.window();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let body = head.repeat(40_000);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    let reply = client.mail(
        "erp@corp.example",
        &["x@corp.example"],
        &format!("From: erp@corp.example\r\nSubject: s\r\n\r\n{body}"),
    );
    let id = super::harness::gateway::queued_id(&reply);
    let shown = window
        .get(&format!("/api/v1/messages/{id}/content"))
        .token("secret-of-admin")
        .send();
    assert_eq!(shown.status, 200);
    assert!(shown.body.ends_with(&body), "{}", shown.body.len());
    assert!(!shown.body.contains("content-security-policy"));
}

/// The window's file is gone, or its place is taken by something else, while it runs.
#[test]
fn attack_the_file_of_the_window_is_taken_away_and_mail_goes_on() {
    let (gateway, window, sink) = start("");
    log_in(&window, "ann", "correct horse");
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(gateway.path(&format!("data/window.db{end}"))).unwrap();
    }
    send(&gateway);
    sink.wait(1);
    assert_eq!(
        window
            .get("/api/v1/status")
            .token("secret-of-viewer")
            .status(),
        200
    );
    // Commands and the gateway speak by one file again.
    wait("a file that both see", || {
        let said = gateway.cli(&["admin", "login"]);
        let said = String::from_utf8(said.stdout).unwrap();
        let code = said.trim().split("?code=").nth(1)?;
        let status = window.form("/login", &format!("code={code}")).status();
        (status == 303).then_some(())
    });
    gateway.wait_for_log(&["window.db", "gone"]);
}

/// The disk has no room for the window; the queue has one of its own.
#[test]
fn on_a_disk_without_an_octet_left_for_the_window_mail_goes_on() {
    let sink = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data")).unwrap();
    let _disk = small_disk(&dir.path().join("data"), 24);
    let config =
        windowed(&sink, "").replace("[allowlist]", "[limits]\nfree_disk = \"0B\"\n\n[allowlist]");
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let gateway = Gateway::start_in(dir);
    let window = gateway.window();
    send(&gateway);
    sink.wait(1);
    // Room for the queue's own pages, and none for more.
    let filler = gateway.path("data/filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    assert_eq!(log_in(&window, "ann", "correct horse").status, 503);
    let reload = window.post("/api/v1/reload", "{}").token("secret-of-admin");
    assert_eq!(reload.status(), 503);
    assert_eq!(
        window
            .get("/api/v1/status")
            .token("secret-of-viewer")
            .status(),
        200
    );
    assert_eq!(window.get("/livez").status(), 200);
    fs::remove_file(&filler).unwrap();
    wait("room", || {
        (log_in(&window, "ann", "correct horse").status == 303).then_some(())
    });
    send(&gateway);
    sink.wait(2);
}
