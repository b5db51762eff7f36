//! A scrape of a gateway at work, what is in it and what may not be; and the rules and the dashboard that live by it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
};

use super::*;
use crate::{
    config::{self, Secrets},
    delivery::Delivery,
    gateway::{connectors, rules, setup},
    listener::{CertificateEnd, Listeners, auth::Authenticator},
    queue, telemetry,
};

const CONFIG: &str = r#"
hostname = "relay.test"
data_dir = "DIR"
listener = [{ name = "lan", address = "127.0.0.1:0" }]
client = [{ name = "devices", networks = ["127.0.0.0/8"] }, { name = "others", networks = ["10.0.0.0/8"] }]
route = [{ name = "all", connectors = ["gone", "drop"] }]

[allowlist]
senders = ["corp.example"]
recipients = ["corp.example"]

[[connector]]
name = "gone"
type = "smtp"
host = "127.0.0.1"
port = 1
tls = "off"

[[connector]]
name = "drop"
type = "discard"
"#;

/// Every metric that watch dogs, rules and people rely on.
const KNOWN: &[&str] = &[
    "postern_build_info{version=",
    "postern_config_reload_successful 1",
    "postern_config_reload_success_timestamp_seconds 1",
    "postern_smtp_connections{listener=\"lan\"} 0",
    "postern_smtp_sessions_total{listener=\"lan\",client=\"devices\",tls=\"1.3\"} 0",
    "postern_smtp_sessions_total{listener=\"lan\",client=\"devices\",tls=\"none\"} 1",
    "postern_auth_attempts_total{listener=\"lan\",result=\"refused\"} 0",
    "postern_messages_accepted_total{listener=\"lan\",client=\"-\"} 0",
    "postern_messages_accepted_total{listener=\"lan\",client=\"devices\"} 1",
    "postern_messages_accepted_total{listener=\"lan\",client=\"others\"} 0",
    "postern_rejections_total{listener=\"lan\",stage=\"rcpt\",code=\"550\"} 1",
    "postern_rejections_total{listener=\"lan\",stage=\"auth\",code=\"535\"} 0",
    "postern_accept_duration_seconds_count 1",
    "postern_queue_messages{state=\"waiting\"} 0",
    "postern_queue_messages{state=\"sending\"} 0",
    "postern_queue_messages{state=\"held\"} 0",
    "postern_queue_messages{state=\"failed\"} 0",
    "postern_queue_messages{state=\"in_doubt\"} 0",
    "postern_queue_oldest_timestamp_seconds 0",
    "postern_queue_time_seconds_count 1",
    "postern_delivery_attempts_total{connector=\"drop\",result=\"delivered\"} 1",
    "postern_delivery_attempts_total{connector=\"gone\",result=\"down\"} 1",
    "postern_delivery_attempts_total{connector=\"gone\",result=\"delivered\"} 0",
    "postern_delivery_duration_seconds_count{connector=\"drop\"} 1",
    "postern_delivery_in_flight{connector=\"drop\"} 0",
    "postern_connector_state{connector=\"drop\",state=\"open\"} 1",
    "postern_connector_state{connector=\"gone\",state=\"open\"} 0",
    "postern_connector_state{connector=\"gone\",state=\"closed\"} 1",
    "postern_connector_state{connector=\"gone\",state=\"paused\"} 0",
    "postern_connector_last_success_timestamp_seconds{connector=\"drop\"} 1",
    "postern_connector_last_success_timestamp_seconds{connector=\"gone\"} 0",
    "postern_failovers_total{route=\"all\"} 1",
    "postern_bounces_total{result=\"queued\"} 0",
    "# TYPE postern_token_requests_total counter",
    "# TYPE postern_dkim_messages_total counter",
    "# TYPE postern_credential_expiry_timestamp_seconds gauge",
    "postern_certificate_expiry_timestamp_seconds{listener=\"lan\"} 4102444800",
    "postern_store_healthy 1",
    "postern_store_free_bytes ",
    "# TYPE postern_store_commit_duration_seconds histogram",
    "postern_incidents_open{severity=\"critical\"} 2",
    "# TYPE postern_notifications_total counter",
    "postern_admin_requests_total{code=\"404\"} 1",
    "postern_admin_logins_total{result=\"refused\"} 1",
];

/// A gateway on this thread, which counts what happens.
struct AtWork {
    instruments: Instruments,
    listeners: Listeners,
    _delivery: Delivery,
    _dir: TempDir,
    _counting: tracing::subscriber::DefaultGuard,
}

impl AtWork {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let data = dir.path().join("data").display().to_string();
        fs::write(&file, CONFIG.replace("DIR", &data)).unwrap();
        let (config, _) = config::load(&file, Secrets::Resolve).unwrap();
        let metrics = Arc::new(Metrics::default());
        let counting = tracing::subscriber::set_default(telemetry::counting(&metrics));
        let store = queue::open_local(&config.queue).unwrap();
        let queue = Arc::new(Queue::start(Arc::clone(&store)).await.unwrap());
        let shared = Shared::new(
            Arc::clone(&queue),
            rules(&config),
            config.limits,
            Authenticator::default(),
        );
        let connectors = connectors(&config, &[], &store).unwrap();
        let delivery = Delivery::start(Arc::clone(&queue), setup(&config, &connectors));
        let pulse = Pulse::of(&[Handle::current()]);
        let instruments = Instruments::new(
            metrics,
            queue,
            Arc::clone(&shared),
            delivery.observer(),
            pulse,
        );
        assert!(!instruments.readiness().ready, "it does not listen yet");
        let mut listeners = Listeners::new(shared).unwrap();
        let prepared = listeners.prepare(&config.listeners).unwrap();
        listeners.commit(prepared);
        let mut standing = listeners.standing();
        let end = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 47_482);
        standing[0].certificates = vec![CertificateEnd {
            kind: "listener",
            file: PathBuf::from("a.pem"),
            begins: SystemTime::UNIX_EPOCH,
            ends: end,
        }];
        instruments.took(&config, &standing);
        Self {
            instruments,
            listeners,
            _delivery: delivery,
            _dir: dir,
            _counting: counting,
        }
    }

    /// Says these lines, each when the one before was answered, until the last is.
    async fn say(&self, lines: &[&str]) {
        let address = self.listeners.address("lan").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        answer(&mut stream).await;
        for line in lines {
            stream.write_all(line.as_bytes()).await.unwrap();
            answer(&mut stream).await;
        }
    }

    async fn scrape(&self) -> String {
        let mut gauges = self.instruments.gauges().await.unwrap();
        gauges.incidents = [0, 1, 2];
        self.instruments.metrics().text(&gauges)
    }

    /// The scrape in which these lines begin; what is counted comes a moment after the answer to the client.
    async fn scrape_with(&self, wanted: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..1_000 {
            text = self.scrape().await;
            if wanted.iter().all(|line| has(&text, line)) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let missing: Vec<_> = wanted.iter().filter(|line| !has(&text, line)).collect();
        panic!("{missing:#?} is missing in\n{text}");
    }
}

fn has(text: &str, beginning: &str) -> bool {
    text.lines().any(|line| line.starts_with(beginning))
}

/// A reply to its last line.
async fn answer(stream: &mut TcpStream) {
    let mut text = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "it hung up");
        let last = text.strip_suffix(b"\r\n").map(|text| {
            let begin = text
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            text[begin..].get(3).copied()
        });
        if last == Some(Some(b' ')) {
            return;
        }
    }
}

/// A session with one message taken and one recipient refused.
const SESSION: &[&str] = &[
    "EHLO helo-of-a-client\r\n",
    "MAIL FROM:<sender@corp.example>\r\n",
    "RCPT TO:<stranger@elsewhere.example>\r\n",
    "RCPT TO:<reader@corp.example>\r\n",
    "DATA\r\n",
    "From: sender@corp.example\r\nSubject: s\r\n\r\nb\r\n.\r\n",
    "QUIT\r\n",
];

#[tokio::test]
async fn every_metric_is_there_and_none_by_a_word_of_a_client() {
    let gateway = AtWork::start().await;
    assert!(gateway.instruments.readiness().ready);
    assert!(gateway.instruments.is_alive());
    gateway.say(SESSION).await;
    gateway.instruments.metrics().admin_request(404);
    gateway.instruments.metrics().admin_login("refused");
    gateway
        .instruments
        .metrics()
        .notification("nobody", "taken");
    let text = gateway.scrape_with(KNOWN).await;
    for word in [
        "helo-of",
        "corp.example",
        "elsewhere",
        "127.0.0.1",
        "nobody",
    ] {
        assert!(!text.contains(word), "{word} in\n{text}");
    }
    // A series stands once.
    let series: Vec<_> = text
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .collect();
    let names: BTreeSet<_> = series.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), series.len());
    // What ends is seen, whatever becomes of upstreams.
    gateway.instruments.drain();
    let readiness = gateway.instruments.readiness();
    assert!(!readiness.ready && readiness.checks.draining && !readiness.checks.listeners);
    gateway.instruments.kept();
    assert!(has(
        &gateway.scrape().await,
        "postern_config_reload_successful 0"
    ));
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/monitoring")
        .join(file)
}

/// Of a text, what is written like the name of a metric.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("postern_")).collect()
}

#[tokio::test]
async fn rules_and_dashboard_name_what_there_is() {
    let gateway = AtWork::start().await;
    let text = gateway.scrape().await;
    let there = metrics_in(&text);
    for file in ["alerts.yml", "alerts.test.yml", "grafana.json"] {
        let file = fs::read_to_string(monitoring(file)).unwrap();
        let named = metrics_in(&file);
        assert!(named.len() > 10);
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{missing:?} is in no scrape");
    }
    let dashboard = fs::read_to_string(monitoring("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert_eq!(dashboard["uid"], "postern");
    assert_eq!(dashboard["panels"][0]["title"], "Does mail flow");
    // Each rule has a test in which it is raised.
    let rules = fs::read_to_string(monitoring("alerts.yml")).unwrap();
    let tests = fs::read_to_string(monitoring("alerts.test.yml")).unwrap();
    for line in rules.lines() {
        if let Some(rule) = line.trim().strip_prefix("- alert: ") {
            assert!(
                tests.contains(&format!("alertname: {rule}\n        exp_alerts:\n")),
                "{rule}"
            );
        }
    }
}

/// Runs promtool in the folder of the rules.
fn promtool(arguments: &[&str], input: &Path) {
    let peers = std::env::var_os("POSTERN_PEERS").map(PathBuf::from);
    let unpacked = peers.map(|peers| peers.join("prometheus/usr/bin/promtool"));
    let program = unpacked.filter(|path| path.is_file());
    let output = Command::new(program.unwrap_or_else(|| "promtool".into()))
        .args(arguments)
        .current_dir(monitoring(""))
        .stdin(fs::File::open(input).unwrap())
        .output()
        .unwrap_or_else(|e| panic!("promtool, which tests/run installs: {e}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{arguments:?}: {said}");
    assert!(!said.contains("lint"), "{said}");
}

#[tokio::test]
#[ignore = "needs promtool, which tests/run installs"]
async fn promtool_takes_the_scrape_the_rules_and_the_dashboard() {
    let gateway = AtWork::start().await;
    gateway.say(SESSION).await;
    let text = gateway.scrape_with(&KNOWN[..1]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrape");
    fs::write(&file, text).unwrap();
    promtool(&["check", "metrics"], &file);
    promtool(&["check", "rules", "alerts.yml"], &file);
    promtool(&["test", "rules", "alerts.test.yml"], &file);
    // The dashboard's questions, as if they were rules.
    let dashboard = fs::read_to_string(monitoring("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let rules: Vec<Value> = targets
        .enumerate()
        .map(|(at, target)| {
            let expr = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "5m");
            serde_json::json!({ "record": format!("r{at}"), "expr": expr })
        })
        .collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let file = dir.path().join("dashboard.yml");
    fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], &file);
}
