//! A PostgreSQL of its own, one for all tests of a process, on loopback with SCRAM and TLS; each test has a schema to itself. It ends
//! when the process does, however that ends.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use postern::{
    mail::message::{Message, MessageId},
    queue::{
        body::BodyStore,
        postgres::{Durability, PostgresStore, Server, Settings},
        store::{
            Ask, Beat, Commanded, Due, Entry, Event, Filter, FoundEntries, Health, Inserted, Job,
            Kept, LaneRow, LateNotice, Lease, Maintained, NodeId, Retention, Search, Settlement,
            Shift, Standing, Start, Stats, Store, StoreError, Verb,
        },
        turns::RouteLane,
    },
    route::Routed,
    secret::Secret,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;

use super::peers::{certificates, free_port};

mod backup;
mod pooler;
mod standby;

pub use pooler::Pooler;

/// Of the superuser and of the role that owns the database.
const PASSWORD: &str = "a password";

/// An instance. To drop it ends it.
pub struct Postgres {
    dir: PathBuf,
    pub port: u16,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    /// Ends the server and removes its files when it is told to, or when this process has gone.
    keeper: Mutex<Child>,
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Where Debian has the programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL is missing; `tests/run` installs it")
}

/// A server does not run as root: then it is the package's own user.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let number = |flag| {
        let id = Command::new("id")
            .args([flag, "postgres"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&id.stdout).trim().parse().ok()
    };
    Some((number("-u").unwrap_or(65534), number("-g").unwrap_or(65534)))
}

impl Postgres {
    /// The one that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// One for a test that stops it, or that wants other settings.
    pub fn start(settings: &str) -> Self {
        let mut this = Self::prepare(certificates);
        let made = this
            .program("initdb")
            .args(["--auth=scram-sha-256", "--username=postgres", "--no-sync"])
            .args(["--locale=C", "--encoding=UTF8", "--pwfile"])
            .arg(this.dir.join("password"))
            .arg("-D")
            .arg(this.dir.join("data"))
            .output()
            .unwrap();
        succeeded(&made);
        this.configure(&format!(
            "max_connections = 400\nlog_min_messages = warning\n{settings}"
        ));
        this.launch();
        this.sql(
            "postgres",
            "CREATE ROLE postern LOGIN PASSWORD 'a password'; CREATE ROLE guest LOGIN PASSWORD 'a password';",
        );
        this.sql("postgres", "CREATE DATABASE postern OWNER postern");
        this
    }

    /// A place for one, with certificates and the password in it.
    fn prepare(certificates: impl FnOnce(&Path)) -> Self {
        let user = unprivileged();
        let dir = tempfile::Builder::new()
            .prefix("postern-postgres")
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        certificates(&dir);
        fs::write(dir.join("password"), PASSWORD).unwrap();
        fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = user {
            for path in [dir.clone(), dir.join("key.pem")] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        Self {
            keeper: Mutex::new(Command::new("true").spawn().unwrap()),
            dir,
            port: free_port(),
            bin: programs(),
            user,
        }
    }

    /// What is its own, behind what its files say already.
    fn configure(&self, settings: &str) {
        let (directory, port) = (self.dir.display(), self.port);
        let own = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{directory}'\n\
             ssl = on\nssl_cert_file = '{directory}/cert.pem'\nssl_key_file = '{directory}/key.pem'\n\
             fsync = on\n{settings}\n"
        );
        let file = self.dir.join("data/postgresql.conf");
        fs::write(&file, fs::read_to_string(&file).unwrap() + &own).unwrap();
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn launch(&mut self) {
        // It reads what nobody writes: the end of that is the end of this process.
        let script = "\"$1/postgres\" -D \"$2/data\" >\"$2/log\" 2>&1 3<&- & pid=$!; read line; \
                      kill -INT $pid; wait $pid; [ \"$line\" = stop ] || rm -rf \"$2\"";
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", script, "sh"])
            .args([&self.bin, &self.dir])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some((uid, gid)) = self.user {
            keeper.uid(uid).gid(gid);
        }
        *self.keeper.lock().unwrap() = keeper.spawn().unwrap();
        super::gateway::wait("PostgreSQL", || {
            let ready = self
                .program("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p"])
                .arg(self.port.to_string())
                .status();
            ready.unwrap().success().then_some(())
        });
    }

    /// Ends it as an administrator does who has no time; what it has stays.
    pub fn stop(&self) {
        use std::io::Write as _;
        let mut keeper = self.keeper.lock().unwrap();
        if let Some(mut told) = keeper.stdin.take() {
            let _ = told.write_all(b"stop\n");
        }
        let _ = keeper.wait();
    }

    /// Kills every process of it, as a power loss would.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let _ = Command::new("kill").args(["-9", &pid]).status();
        self.stop();
    }

    /// Again, on the same port with the same files.
    pub fn start_again(&mut self) {
        self.launch();
    }

    /// As the superuser; what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = self
            .program("psql")
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", "127.0.0.1", "-U", "postgres", "-d", database, "-p"])
            .arg(self.port.to_string())
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whom a client is to trust.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = fs::read(self.dir.join("ca.pem")).unwrap();
        roots
            .add(CertificateDer::from_pem_slice(&ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.dir
    }

    /// For a store with a schema of its own.
    pub fn settings(&self, data_dir: &Path) -> Settings {
        Settings {
            hosts: vec![Server::Host("127.0.0.1".to_owned(), self.port)],
            database: "postern".to_owned(),
            username: "postern".to_owned(),
            password: Some(Secret::new(PASSWORD)),
            tls: Some(self.tls()),
            tls_words: |error, host| format!("for {host}: {error}"),
            schema: format!("Test \"{:016x}\"", fastrand::u64(..)),
            connections: 8,
            durability: Durability::Primary,
            data_dir: data_dir.join("data"),
            migrates: true,
            patience: Settings::PATIENCE,
            callers_clock: true,
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut keeper = self.keeper.lock().unwrap();
        keeper.stdin = None;
        let _ = keeper.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A store as the suite knows it: its node is 0, whatever number the database gave it.
#[derive(Debug)]
pub struct NodeNought {
    inside: Arc<PostgresStore>,
    node: AtomicU64,
    _dir: TempDir,
}

impl NodeNought {
    pub async fn open() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let inside = PostgresStore::open(Postgres::shared().settings(dir.path()))
            .await
            .unwrap();
        let this = Self {
            inside,
            node: AtomicU64::new(0),
            _dir: dir,
        };
        this.beat(&Standing::default()).await.unwrap();
        Arc::new(this)
    }

    fn node(&self, node: NodeId) -> NodeId {
        assert_eq!(node, NodeId(0));
        NodeId(self.node.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Store for NodeNought {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        let starts = starts.iter().cloned().map(|start| match start {
            Start::Now(node, connector) => Start::Now(self.node(node), connector),
            other => other,
        });
        self.inside
            .insert(mail, &starts.collect::<Vec<_>>(), now)
            .await
    }
    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        let mut jobs = self.inside.claim(asks, self.node(node), now).await?;
        for job in &mut jobs {
            job.lease.node = NodeId(0);
        }
        Ok(jobs)
    }
    async fn settle(
        &self,
        mut settlement: Settlement,
        now: SystemTime,
    ) -> Result<Kept, StoreError> {
        settlement.lease = Lease {
            node: self.node(settlement.lease.node),
            ..settlement.lease
        };
        self.inside.settle(settlement, now).await
    }
    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        self.inside.late(by, limit).await
    }
    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        self.inside.tell_late(notice, now).await
    }
    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        self.inside.due(now).await
    }
    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError> {
        self.inside.list(filter, now).await
    }
    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        self.inside.content(id).await
    }
    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        self.inside.events(id).await
    }
    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        self.inside.command_if(filter, verb, expect, now).await
    }
    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        self.inside.search(search).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inside.stats().await
    }
    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        self.inside.waiting().await
    }
    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        self.inside.lanes().await
    }
    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        self.inside.set_lane(lane).await
    }
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inside.note(key).await
    }
    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        self.inside.replace_note(key, seen, value).await
    }
    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.inside.set_note(key, value).await
    }
    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        self.inside.shift(shift).await
    }
    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        self.inside.maintain(retention, now).await
    }
    async fn changed(&self) {
        self.inside.changed().await;
    }
    fn health(&self) -> Health {
        self.inside.health()
    }
    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        let standing = Standing {
            node: standing.node.map(|node| self.node(node)),
            ..standing.clone()
        };
        let heard = self.inside.beat(&standing).await?;
        self.node.store(heard.node.0, Ordering::SeqCst);
        Ok(Beat {
            node: NodeId(0),
            ..heard
        })
    }
    fn bodies(&self) -> &BodyStore {
        self.inside.bodies()
    }
}

/// What a proxy between a store and the server does to commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Nothing,
    /// The server does not get it.
    Before,
    /// The server has it, and its answer does not come.
    After,
    /// Nothing comes through any more, in either direction, and nothing ends.
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Nobody comes through any more, and those who are there are thrown out.
    Shut,
    /// Nothing comes through any more, and nothing ends.
    Silent,
}

/// A proxy in the clear, which cuts the connection at a COMMIT, or all of them.
pub struct Cutter {
    pub port: u16,
    /// How, how many, and behind how many that are left alone.
    how: Arc<Mutex<(Cut, usize, usize)>>,
    door: tokio::sync::watch::Sender<Door>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Cutter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cutter {
    pub fn start(to: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let how = Arc::new(Mutex::new((Cut::Nothing, 0, 0)));
        let (told, door) = (how.clone(), tokio::sync::watch::Sender::new(Door::Open));
        let seen = door.subscribe();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(behind(seen.clone(), carry(client, to, told.clone())));
            }
        });
        Self {
            port,
            how,
            door,
            runtime: Some(runtime),
        }
    }

    /// The next so many commits.
    pub fn cut(&self, how: Cut, count: usize) {
        *self.how.lock().unwrap() = (how, count, 0);
    }

    /// One, behind so many.
    pub fn cut_behind(&self, how: Cut, behind: usize) {
        *self.how.lock().unwrap() = (how, 1, behind);
    }

    /// Nobody comes through any more, and those who are there are thrown out; or they do again.
    pub fn shut(&self, is_shut: bool) {
        let door = if is_shut { Door::Shut } else { Door::Open };
        self.door.send_replace(door);
    }

    /// Nothing comes through any more, and nothing ends.
    pub fn silence(&self) {
        self.door.send_replace(Door::Silent);
    }

    /// How many are still to be cut.
    pub fn left(&self) -> usize {
        self.how.lock().unwrap().1
    }
}

/// As long as the door allows.
async fn behind(mut door: tokio::sync::watch::Receiver<Door>, work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    loop {
        let now = *door.borrow_and_update();
        let changed = match now {
            Door::Shut => return,
            Door::Silent => door.changed().await,
            Door::Open => tokio::select! {
                () = &mut work => return,
                changed = door.changed() => changed,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn carry(mut client: tokio::net::TcpStream, to: u16, how: Arc<Mutex<(Cut, usize, usize)>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (mut sent, mut said) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(count @ 1..) = read else { return };
                let is_commit = memchr::memmem::find(&sent[..count], b"COMMIT\0").is_some();
                let cut = {
                    let mut how = how.lock().unwrap();
                    if is_commit && how.2 > 0 {
                        how.2 -= 1;
                        Cut::Nothing
                    } else if is_commit && how.1 > 0 {
                        how.1 -= 1;
                        how.0
                    } else {
                        Cut::Nothing
                    }
                };
                match cut {
                    Cut::Nothing => if server.write_all(&sent[..count]).await.is_err() { return },
                    Cut::Before => return,
                    Cut::After => {
                        let _ = server.write_all(&sent[..count]).await;
                        // Until it has nothing more to say.
                        while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(300), server.read(&mut said)).await {}
                        return;
                    }
                    Cut::Silence => {
                        let _ = server.write_all(&sent[..count]).await;
                        tokio::time::sleep(Duration::from_mins(1)).await;
                        return;
                    }
                }
            }
            read = server.read(&mut said) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&said[..count]).await.is_err() { return }
            }
        }
    }
}
