//! Real peers: clients run as programs, Postfix as an instance of its own on loopback.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use base64::Engine as _;
use tempfile::TempDir;

/// What `tests/run` put aside for the tests.
pub fn peers() -> PathBuf {
    std::env::var_os("POSTERN_PEERS")
        .map(PathBuf::from)
        .expect("`tests/run` sets POSTERN_PEERS")
}

/// A test with a peer is `#[ignore]`, so that nobody takes it for passed where it was left out; `tests/run` installs the peers and
/// runs it.
pub fn need(program: &str) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    assert!(
        path.split(':')
            .any(|dir| Path::new(dir).join(program).is_file()),
        "{program} is missing; `tests/run` installs it"
    );
}

/// Takes the small disk away again, whatever happens.
pub struct Unmount(PathBuf);
impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A disk of so many MiB at this folder. Only root can; `tests/run` leaves such tests out for others, and says so.
pub fn small_disk(at: &Path, size: u32) -> Unmount {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("size={size}m,mode=700"))
        .arg("tmpfs")
        .arg(at)
        .status();
    assert!(
        mounted.is_ok_and(|s| s.success()),
        "a small tmpfs is mounted by root only"
    );
    Unmount(at.to_owned())
}

/// Lets this process have as many files as it may: the usual limit is 1,024, and tests run beside each other.
pub fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

/// A port that nobody has and that no other test gets, for as long as this process runs.
///
/// It lies below the ports that the kernel gives to connections and to listeners on port 0, so nothing can take it while it is
/// free: a test may leave it closed, or open it again after a restart. A socket of its number in the abstract namespace says
/// that it is given out; it ends with the process.
pub fn free_port() -> u16 {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    };
    static GIVEN_OUT: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    for _ in 0..1_000 {
        let port = fastrand::u16(20_000..32_000);
        let name = SocketAddr::from_abstract_name(format!("postern-test-port-{port}")).unwrap();
        let Ok(given_out) = UnixListener::bind_addr(&name) else {
            continue;
        };
        // Not bound to find out: a process that another test starts at this moment would hold it for a while.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            GIVEN_OUT.lock().unwrap().push(given_out);
            return port;
        }
    }
    panic!("no port of 20000 to 31999 is free");
}

/// A private CA and a certificate for `localhost` and 127.0.0.1, as PEM files in `dir`: `ca.pem`, `cert.pem`, `key.pem`.
pub fn certificates(dir: &Path) {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
        KeyUsagePurpose,
    };
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, "Test CA");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate().unwrap();
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let mut leaf =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let cert = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.pem"), ca_cert.pem()).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem() + &ca_cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

/// What signs the tokens that Dovecot takes.
pub const TOKEN_KEY: &[u8] = b"a key of thirty-two octets, or so";

/// A Postfix of its own: submission with STARTTLS and with implicit TLS, SASL by a Dovecot of its own (user `relay`, password `secret`), everything
/// delivered to one maildir. Dropping it stops it.
pub struct Postfix {
    pub dir: TempDir,
    pub starttls: u16,
    pub implicit: u16,
    dovecot: Child,
}

impl Postfix {
    /// Starts it.
    pub fn start() -> Self {
        Self::start_with(
            "plain login",
            "passdb {\n  driver = passwd-file\n  args = BASE/users\n}\n",
        )
    }

    /// As [`Self::start`], with XOAUTH2 and OAUTHBEARER: Dovecot checks the tokens itself, JWTs signed with [`TOKEN_KEY`] (HS256).
    pub fn start_with_tokens() -> Self {
        Self::start_with(
            "xoauth2 oauthbearer",
            "passdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = BASE/oauth2.conf\n}\n",
        )
    }

    fn start_with(mechanisms: &str, passdb: &str) -> Self {
        need("postfix");
        need("dovecot");
        // Postfix wants directories that its own users can reach.
        let dir = tempfile::Builder::new()
            .prefix("postern-postfix")
            .tempdir_in("/tmp")
            .unwrap();
        let base = dir.path().to_str().unwrap().to_owned();
        run("chmod", &["755", &base]);
        for part in ["etc", "queue", "data", "sasl", "mail"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        run("chown", &["postfix", &format!("{base}/data")]);
        run("chown", &["65534:65534", &format!("{base}/mail")]);
        certificates(dir.path());
        let (starttls, implicit) = (free_port(), free_port());
        fs::write(
            dir.path().join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\n\
                 queue_directory = {base}/queue\ndata_directory = {base}/data\n\
                 command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmeta_directory = /etc/postfix\n\
                 mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = smarthost.test\nmydestination =\n\
                 inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks =\nalias_maps =\nlocal_recipient_maps =\n\
                 maillog_file = {base}/mail.log\nmaillog_file_prefixes = /tmp\n\
                 default_transport = virtual\nvirtual_transport = virtual\n\
                 virtual_mailbox_domains =\nvirtual_mailbox_base = {base}/mail\nvirtual_mailbox_maps = static:inbox/\n\
                 virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\nvirtual_minimum_uid = 1\n\
                 virtual_mailbox_limit = 0\nmessage_size_limit = 52428800\nmailbox_size_limit = 0\n\
                 smtpd_tls_cert_file = {base}/cert.pem\nsmtpd_tls_key_file = {base}/key.pem\nsmtpd_tls_security_level = may\n\
                 smtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {base}/sasl/auth\n\
                 smtpd_relay_restrictions = permit_sasl_authenticated,reject\nsmtpd_peername_lookup = no\n"
            ),
        )
        .unwrap();
        fs::write(
            dir.path().join("etc/master.cf"),
            format!(
                "127.0.0.1:{starttls} inet n - n - - smtpd\n\
                 127.0.0.1:{implicit} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
                 pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
                 defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
                 flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nshowq unix n - n - - showq\n\
                 error unix - - n - - error\nretry unix - - n - - error\ndiscard unix - - n - - discard\n\
                 virtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\n\
                 postlog unix-dgram n - n - 1 postlogd\n"
            ),
        )
        .unwrap();
        fs::write(
            dir.path().join("dovecot.conf"),
            format!(
                "base_dir = {base}/run\nstate_dir = {base}/run\nlog_path = {base}/dovecot.log\nprotocols =\nssl = no\n\
                 default_internal_user = postfix\ndefault_login_user = postfix\ndefault_internal_group = postfix\n\
                 auth_mechanisms = {mechanisms}\n{}\
                 service auth {{\n  unix_listener {base}/sasl/auth {{\n    mode = 0666\n  }}\n}}\n\
                 service anvil {{\n  chroot =\n}}\n",
                passdb.replace("BASE", &base),
            ),
        )
        .unwrap();
        fs::create_dir_all(dir.path().join("keys/default/HS256")).unwrap();
        fs::write(
            dir.path().join("keys/default/HS256/default"),
            base64::engine::general_purpose::STANDARD.encode(TOKEN_KEY),
        )
        .unwrap();
        fs::write(
            dir.path().join("oauth2.conf"),
            format!(
                "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={base}/keys/\nusername_attribute = sub\n"
            ),
        )
        .unwrap();
        fs::write(dir.path().join("users"), "relay:{PLAIN}secret\n").unwrap();
        let dovecot = command("dovecot")
            .args(["-F", "-c", &format!("{base}/dovecot.conf")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = dir.path().join("sasl/auth");
        super::gateway::wait("Dovecot's SASL", || socket.exists().then_some(()));
        run("postfix", &["-c", &format!("{base}/etc"), "start"]);
        let this = Self {
            dir,
            starttls,
            implicit,
            dovecot,
        };
        super::gateway::wait("Postfix", || {
            std::net::TcpStream::connect(("127.0.0.1", starttls)).ok()
        });
        this
    }

    /// The messages it has delivered.
    pub fn inbox(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("mail/inbox/new")) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        files.sort();
        files.iter().map(|f| fs::read(f).unwrap()).collect()
    }

    /// Waits for so many.
    pub fn wait(&self, count: usize) -> Vec<Vec<u8>> {
        super::gateway::wait(&format!("{count} mails in Postfix's maildir"), || {
            let inbox = self.inbox();
            (inbox.len() >= count).then_some(inbox)
        })
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("mail.log")).unwrap_or_default();
            eprintln!("--- log of Postfix\n{log}");
        }
        let _ = Command::new("/usr/sbin/postfix")
            .args(["-c", &format!("{}/etc", self.dir.path().display()), "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // Its children end with it on SIGTERM.
        let _ = Command::new("kill")
            .arg(self.dovecot.id().to_string())
            .status();
        let _ = self.dovecot.wait();
    }
}

/// Runs a program that must succeed; its standard output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = command(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A command with the system directories on its PATH.
pub fn command(program: &str) -> Command {
    static PATH: OnceLock<String> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    let mut command = Command::new(program);
    command.env("PATH", path);
    command
}
