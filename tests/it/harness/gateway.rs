//! The real binary, started from a configuration text on free ports, and ended by its own pid.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use super::browser::At;

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    pub dir: TempDir,
    child: Option<Child>,
    starts: usize,
    /// What it and its commands find in their environment besides ours.
    env: Vec<(&'static str, PathBuf)>,
    addresses: HashMap<String, SocketAddr>,
}

/// What most tests share: everything below `corp.example` may pass, out through `sink`.
pub fn basic(upstream: SocketAddr) -> String {
    format!(
        r#"
hostname = "relay.corp.example"
data_dir = "data"

[[listener]]
name = "local"
address = "127.0.0.1:0"

[allowlist]
senders = ["corp.example"]
recipients = ["corp.example", "partner.example"]

[[route]]
name = "all"
connectors = ["up"]
retry = ["1s"]

[[connector]]
name = "up"
type = "smtp"
host = "127.0.0.1"
port = {}
tls = "off"
"#,
        upstream.port()
    )
}

impl Gateway {
    /// Starts it and waits until every listener listens.
    pub fn start(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("config.toml"), config).unwrap();
        Self::start_in(dir)
    }

    /// Starts it in a directory that holds a `config.toml` already.
    pub fn start_in(dir: TempDir) -> Self {
        Self::start_with(dir, Vec::new())
    }

    /// As [`Gateway::start_in`], with more in the environment.
    pub fn start_with(dir: TempDir, env: Vec<(&'static str, PathBuf)>) -> Self {
        let mut gateway = Self {
            dir,
            child: None,
            starts: 0,
            env,
            addresses: HashMap::new(),
        };
        gateway.restart();
        gateway
    }

    /// The executable.
    pub fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_postern")
    }

    /// Starts it (again) over the same directory.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let log = File::create(self.log_path()).unwrap();
        let child = Command::new(Self::binary())
            .args(["run", "-c", "config.toml"])
            .current_dir(self.dir.path())
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let wanted = fs::read_to_string(self.config_path())
            .unwrap()
            .matches("[[listener]]")
            .count();
        self.addresses = wait("the listeners", || {
            let addresses = listening(&self.log());
            if addresses.len() >= wanted {
                return Some(addresses);
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!("the gateway ended with {status}:\n{}", self.log());
            }
            None
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; the exit status.
    pub fn terminate(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        signal(child.id(), "TERM");
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        signal(self.pid(), "HUP");
    }

    /// Any other signal.
    pub fn send_signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Resident memory in KiB: now, and the most it ever was.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Where a listener listens.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self
            .addresses
            .get(listener)
            .unwrap_or_else(|| panic!("no listener {listener}: {}", self.log()))
    }

    /// Where its window is, over TCP.
    pub fn window(&self) -> At {
        let line = self.wait_for_log(&["the window listens", "address="]);
        let address = line.split("address=").nth(1).unwrap();
        let address = address.split_whitespace().next().unwrap();
        At::Tcp(address.trim_matches('"').parse().unwrap())
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// A path below its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("log.{}", self.starts))
    }

    /// All it has logged since its last start.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        File::open(self.log_path())
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the log has a line with all of these words.
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        wait(&format!("log line with {words:?}"), || {
            self.log()
                .lines()
                .find(|l| words.iter().all(|w| l.contains(w)))
                .map(str::to_owned)
        })
    }

    /// Runs a command of the same binary with the same configuration.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(Self::binary())
            .args(args)
            .args(["-c", "config.toml"])
            .current_dir(self.dir.path())
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A connection to a listener, greeting read.
    pub fn connect(&self, listener: &str) -> Client {
        let mut client = Client::connect(self.address(listener));
        let greeting = client.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        client
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("--- log of the gateway\n{}", self.log());
        }
        self.kill();
    }
}

/// Standard output of a command that must have succeeded.
pub fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub use super::{
    client::{Client, queued_id},
    time::wait,
};

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// `listening listener=NAME address=IP:PORT` in the log, or the same in JSON.
fn listening(log: &str) -> HashMap<String, SocketAddr> {
    let field = |line: &str, key: &str| {
        let line = line.replace("\":", "=");
        let rest = line.split(&format!("{key}=")).nth(1)?;
        let value = rest.split([' ', ',', '}']).next()?;
        Some(value.trim_matches('"').to_owned())
    };
    // Of a line that is being written the end may be missing.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter(|l| l.contains("listening"))
        .filter_map(|l| Some((field(l, "listener")?, field(l, "address")?.parse().ok()?)))
        .collect()
}

/// Hands one small mail over, where it does not matter which; its id.
pub fn send(gateway: &Gateway) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    queued_id(&client.mail(
        "erp@corp.example",
        &["x@corp.example"],
        "From: erp@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    ))
}

/// A file's octets as text with anything else replaced.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}
