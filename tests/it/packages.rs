//! The packages: made from the built program, installed in a fresh Debian of its own, upgraded with a full queue, taken back, removed and
//! purged; the rpm in a root of its own; the image unpacked and run; the README's installation from source. Nothing on this machine is
//! changed: everything happens in namespaces, which end with the test.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::harness::{
    gateway::{Client, Gateway, queued_id, stdout, wait},
    peers::{free_port, need, peers},
    proxy::Authority,
    upstream::{Received, Script, Upstream},
};

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Wraps the built program; the names of what came out.
fn build(checkout: &Path, out: &Path, more: &[&str]) -> Output {
    Command::new("timeout")
        .args(["300", "packaging/build", "--quick", "--no-sbom", "--binary"])
        .arg(Gateway::binary())
        .arg("--out")
        .arg(out)
        .args(more)
        .current_dir(checkout)
        .output()
        .unwrap()
}

/// Both revisions, made once for all tests.
fn packages() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        for revision in ["1", "2"] {
            let out = dir.path().join(revision);
            stdout(&build(Path::new(CHECKOUT), &out, &["--revision", revision]));
        }
        dir
    })
    .path()
}

fn with_end(dir: &Path, end: &str) -> PathBuf {
    let mut found = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let is_it = |path: &PathBuf| path.to_str().unwrap().ends_with(end);
    found
        .find(is_it)
        .unwrap_or_else(|| panic!("no *{end} in {}", dir.display()))
}

/// A root directory of its own, over one that is only read; processes in it end with it. The network is this machine's.
struct Root {
    keeper: Child,
    place: PathBuf,
    _dir: TempDir,
}

impl Root {
    /// Over this directory; `shared` is at `/packages`.
    fn over(lower: &Path, shared: &Path) -> Self {
        const SCRIPT: &str = "set -e
            mount -t tmpfs tmpfs \"$2\"
            mkdir \"$2/up\" \"$2/work\" \"$2/root\"
            mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2/up,workdir=$2/work\" \"$2/root\"
            mount -t proc proc \"$2/root/proc\"
            mount --rbind /dev \"$2/root/dev\"
            mount -t tmpfs tmpfs \"$2/root/run\"
            mkdir \"$2/root/packages\"
            mount --bind -o ro \"$3\" \"$2/root/packages\"
            echo ready
            exec sleep 900";
        let dir = TempDir::new().unwrap();
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork"])
            .args(["--kill-child=KILL", "sh", "-c", SCRIPT, "sh"])
            .args([lower, dir.path(), shared])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "ready\n",
            "a root of its own needs root and overlayfs"
        );
        Self {
            keeper,
            place: dir.path().join("root"),
            _dir: dir,
        }
    }

    fn fresh(shared: &Path) -> Self {
        let fresh = peers().join("fresh");
        assert!(
            fresh.join("usr/bin/dpkg").exists(),
            "no fresh Debian; `tests/run` as root makes one"
        );
        Self::over(&fresh, shared)
    }

    fn command(&self, script: &str) -> Command {
        let namespaces = format!("/proc/{}/ns", self.keeper.id());
        let mut command = Command::new("timeout");
        command
            .args(["200", "nsenter"])
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args([
                "env",
                "-i",
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ])
            .args(["DEBIAN_FRONTEND=noninteractive", "chroot"])
            .arg(&self.place)
            .args(["sh", "-c", script])
            .stdin(Stdio::null());
        command
    }

    fn try_run(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    /// What it says, on both ways; it must succeed.
    fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        assert!(output.status.success(), "{script}: {}", said(&output));
        said(&output)
    }

    /// Starts the gateway as its user, and waits until it listens.
    fn gateway(&self, port: u16) -> Child {
        let child = self
            .command("exec runuser -u postern -- postern run >>/run/log 2>&1")
            .spawn()
            .unwrap();
        wait("the gateway in its root", || {
            Client::try_connect(([127, 0, 0, 1], port).into()).ok()
        });
        child
    }

    fn stop(&self, mut child: Child) {
        self.run("kill -TERM $(pidof postern)");
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.run("cat /run/log"));
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn config(port: u16, upstream: &Upstream) -> String {
    format!(
        "hostname = \"relay.corp.example\"
listener = [{{ name = \"local\", address = \"127.0.0.1:{port}\" }}]
route = [{{ name = \"all\", connectors = [\"up\"], retry = [\"1s\"] }}]
[allowlist]
senders = [\"corp.example\"]
recipients = [\"corp.example\"]
[[connector]]
name = \"up\"
type = \"smtp\"
host = \"127.0.0.1\"
port = {}
tls = \"off\"
",
        upstream.address.port()
    )
}

fn mails(port: u16, numbers: std::ops::Range<usize>) {
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.reply();
    client.expect("EHLO x", "250");
    for n in numbers {
        queued_id(&client.mail(
            "erp@corp.example",
            &["x@corp.example"],
            &format!("From: erp@corp.example\r\nSubject: number {n}\r\n\r\nb\r\n"),
        ));
    }
}

/// Installed, first mail, upgraded with a full queue, downgraded below a queue that it cannot read, removed, purged, installed again: every
/// mail arrives, once.
#[test]
#[ignore = "needs root and a fresh Debian"]
fn the_deb_from_installation_to_purge() {
    need("unshare");
    let root = Root::fresh(packages());
    let install = |revision: &str| {
        let deb = with_end(&packages().join(revision), ".deb");
        let name = deb.file_name().unwrap().to_str().unwrap();
        format!("/packages/{revision}/{name}")
    };
    let (old, new) = (install("1"), install("2"));
    let is_dark = Arc::new(AtomicBool::new(false));
    let sink = Upstream::scripted({
        let is_dark = Arc::clone(&is_dark);
        move |line| {
            (line.starts_with("MAIL") && is_dark.load(Ordering::Relaxed))
                .then(|| "451 4.3.0 later".to_owned())
        }
    });
    let port = free_port();

    let log = root.run(&format!(
        "apt-get install -y --no-install-recommends {old} 2>&1"
    ));
    assert!(
        !log.contains("rror") && !log.contains("postern: "),
        "it installs without a word of its own: {log}"
    );
    let state = root.run(
        "postern --version; id -nG postern; getent passwd postern
        stat -c '%a %U:%G %n' /etc/postern /var/lib/postern /usr/bin/postern /usr/lib/systemd/system/postern.service
        ls -A /etc/postern | wc -l; readlink /etc/systemd/system/multi-user.target.wants/postern.service
        test -s /usr/share/man/man1/postern-check.1.gz; test -s /usr/share/doc/postern/copyright",
    );
    for expected in [
        &format!("postern {VERSION}"),
        "/var/lib/postern:/usr/sbin/nologin",
        "750 root:postern /etc/postern",
        "700 postern:postern /var/lib/postern",
        "755 root:root /usr/bin/postern",
        "644 root:root /usr/lib/systemd/system/postern.service",
        "\n0\n",
        "/lib/systemd/system/postern.service",
    ] {
        assert!(state.contains(expected), "{expected}: {state}");
    }

    let file = packages().join("config.toml");
    fs::write(&file, config(port, &sink)).unwrap();
    root.run(
        "install -o root -g postern -m 640 /packages/config.toml /etc/postern/config.toml
        runuser -u postern -- postern check",
    );
    let gateway = root.gateway(port);
    mails(port, 0..1);
    assert_eq!(sink.wait(1).len(), 1);

    // The smarthost takes nothing; 200 wait.
    is_dark.store(true, Ordering::Relaxed);
    mails(port, 1..201);
    let before = root.run("pidof postern; md5sum /usr/bin/postern");
    let log = root.run(&format!("dpkg -i {new} 2>&1"));
    assert!(!log.contains("rror"), "{log}");
    assert!(
        root.run("dpkg-query -W postern").contains("0.1.0-2"),
        "{log}"
    );
    // No systemd runs here: what is in memory goes on, and takes mail.
    assert_eq!(
        before.lines().nth(1),
        root.run("pidof postern").lines().nth(1)
    );
    mails(port, 201..211);
    root.stop(gateway);
    let gateway = root.gateway(port);
    let listed = root.run("postern queue list --json --limit 1000");
    assert_eq!(listed.matches("\"id\"").count(), 210, "{listed}");
    root.stop(gateway);

    // A later version has written the queue since.
    let queue = "/var/lib/postern/queue.db";
    let copy = packages().join("queue.db");
    let out = |to: &Path| {
        // The root is visible in the keeper's namespace alone.
        let path = format!(
            "/proc/{}/root{}{queue}",
            pid_inside(&root),
            root.place.display()
        );
        fs::copy(path, to).unwrap();
    };
    out(&copy);
    let raw = Connection::open(&copy).unwrap();
    raw.execute_batch(
        "PRAGMA user_version = 99;
         UPDATE note SET value = '99' WHERE key = 'readable by schema';
         UPDATE note SET value = '0.4.0' WHERE key = 'written by';
         PRAGMA wal_checkpoint(TRUNCATE);",
    )
    .unwrap();
    drop(raw);
    root.run(&format!(
        "cp -a {queue} /root/kept; rm -f {queue}-wal {queue}-shm; cat /packages/queue.db >{queue}"
    ));
    let log = root.run(&format!("dpkg -i {old} 2>&1"));
    assert!(log.contains("downgrading"), "{log}");
    let sentence =
        format!("the queue was written by postern 0.4.0; this is {VERSION}: nothing was touched");
    for command in ["run", "check", "queue list"] {
        let refused = root.try_run(&format!("runuser -u postern -- postern {command}"));
        assert_eq!(refused.status.code(), Some(78), "{}", said(&refused));
        assert!(said(&refused).contains(&sentence), "{}", said(&refused));
    }
    root.run(&format!(
        "cmp /packages/queue.db {queue} && cat /root/kept >{queue} && rm -f {queue}-wal {queue}-shm"
    ));

    let log = root.run("apt-get remove -y postern 2>&1");
    assert!(!log.contains("rror"), "{log}");
    root.run(&format!(
        "test ! -e /usr/bin/postern && test -s /etc/postern/config.toml && test -s {queue} && getent passwd postern"
    ));
    let log = root.run("apt-get purge -y postern 2>&1");
    assert!(
        log.contains(
            "postern: the queue stays in /var/lib/postern; delete it yourself when it is empty"
        ),
        "{log}"
    );
    root.run(&format!(
        "test -s /etc/postern/config.toml && test -s {queue} && getent passwd postern
        test ! -e /etc/systemd/system/multi-user.target.wants/postern.service"
    ));

    root.run(&format!("apt-get install -y {new} 2>&1"));
    is_dark.store(false, Ordering::Relaxed);
    let gateway = root.gateway(port);
    let mut subjects: Vec<String> = sink.wait(211).iter().map(Received::subject).collect();
    root.stop(gateway);
    subjects.sort();
    let mut wanted: Vec<String> = (0..211).map(|n| format!("number {n}")).collect();
    wanted.sort();
    assert_eq!(subjects, wanted);
}

/// A process that sees the root: the keeper's own child.
fn pid_inside(root: &Root) -> u32 {
    let id = root.keeper.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// A stand-in for `systemctl` says what a machine would do on which systemd runs: who refuses the new program keeps the old one.
#[test]
#[ignore = "needs root and a fresh Debian"]
fn an_upgrade_asks_the_new_program_before_it_restarts() {
    need("unshare");
    let root = Root::fresh(packages());
    let deb = |revision: &str| {
        let deb = with_end(&packages().join(revision), ".deb");
        format!(
            "dpkg -i /packages/{revision}/{} 2>&1",
            deb.file_name().unwrap().to_str().unwrap()
        )
    };
    root.run(&deb("1"));
    let sink = Upstream::start();
    let port = free_port();
    let file = packages().join("systemd.toml");
    // The secret is in the environment of the service alone.
    let text = config(port, &sink)
        + "username = \"u\"\npassword = { env = \"SMARTHOST_PASSWORD\" }\ninsecure_auth = true\n";
    fs::write(
        &file,
        text.replace("tls = \"off\"\n", "")
            .replace("insecure_auth = true\n", ""),
    )
    .unwrap();
    root.run(
        "install -o root -g postern -m 640 /packages/systemd.toml /etc/postern/elsewhere.toml
        mkdir -p /run/systemd/system
        cat >/usr/bin/systemctl <<'EOF'
#!/bin/sh
echo \"$*\" >>/run/systemctl
case \"$*\" in
'show -p MainPID --value postern.service') pidof postern ;;
'show -p User --value postern.service') echo postern ;;
esac
EOF
        chmod 755 /usr/bin/systemctl",
    );
    let mut gateway = root
        .command(
            "exec runuser -u postern -- env SMARTHOST_PASSWORD=p postern run -c /etc/postern/elsewhere.toml >>/run/log 2>&1",
        )
        .spawn()
        .unwrap();
    wait("the gateway in its root", || {
        Client::try_connect(([127, 0, 0, 1], port).into()).ok()
    });
    let log = root.run(&deb("2"));
    let asked = root.run("cat /run/systemctl; rm /run/systemctl");
    assert!(
        log.contains("elsewhere.toml: ok") && asked.contains("\nrestart postern.service\n"),
        "{log}\n{asked}"
    );
    assert!(!asked.contains("stop"), "{asked}");

    root.run("echo 'unknown = 1' | cat - /etc/postern/elsewhere.toml >/run/new && cat /run/new >/etc/postern/elsewhere.toml");
    let log = root.run(&deb("2"));
    let asked = root.run("cat /run/systemctl");
    assert!(
        log.contains("unknown") && log.contains("the old one runs on"),
        "{log}"
    );
    assert!(!asked.contains("restart"), "{asked}");
    root.run("kill -TERM $(pidof postern)");
    assert!(gateway.wait().unwrap().success());
}

/// What is tracked, somewhere else.
fn copy_of_the_checkout(to: &Path) {
    let script = "git -c safe.directory='*' ls-files -z | xargs -0 cp --parents -t \"$1\"";
    let copied = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(to)
        .current_dir(CHECKOUT)
        .status();
    assert!(copied.unwrap().success());
}

/// In two directories, with other clocks, languages and masks, the same octets; and what the tools of Debian say of them.
#[test]
#[ignore = "needs lintian, rpm and minisign"]
fn packages_are_the_same_wherever_they_are_made() {
    need("lintian");
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let key = one.path().join("key");
    let made = Command::new("minisign")
        .args(["-G", "-W", "-p"])
        .arg(one.path().join("key.pub"))
        .arg("-s")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let mut sums = Vec::new();
    for (dir, mask, zone) in [(&one, "022", "UTC"), (&two, "077", "Asia/Tokyo")] {
        let checkout = dir.path().join("checkout");
        fs::create_dir(&checkout).unwrap();
        copy_of_the_checkout(&checkout);
        let output = Command::new("sh")
            .args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", mask])
            .args(["timeout", "300", "packaging/build", "--quick", "--no-sbom"])
            .args(["--binary", Gateway::binary(), "--out"])
            .arg(dir.path().join("out"))
            .env("POSTERN_SIGN_KEY", &key)
            .env("SOURCE_DATE_EPOCH", "1750000000")
            .env("TZ", zone)
            .env("LANG", "tr_TR.UTF-8")
            .current_dir(&checkout)
            .output()
            .unwrap();
        let said = stdout(&output);
        assert!(said.lines().all(|line| Path::new(line).is_file()), "{said}");
        sums.push(fs::read_to_string(dir.path().join("out/SHA256SUMS")).unwrap());
    }
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].lines().count(), 3, "{}", sums[0]);
    let out = one.path().join("out");
    let checked = Command::new("sh")
        .args([
            "-c",
            "sha256sum -c SHA256SUMS && minisign -V -p ../key.pub -m SHA256SUMS",
        ])
        .current_dir(&out)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", said(&checked));

    let deb = with_end(&out, ".deb");
    let errors = Command::new("lintian")
        .args([
            "--profile",
            "debian",
            "--fail-on",
            "error",
            "--tag-display-limit",
            "0",
        ])
        .arg(&deb)
        .output()
        .unwrap();
    assert!(errors.status.success(), "{}", said(&errors));
    // The archive, the deb and the rpm are one tree.
    let tree = |script: &str, file: &Path| {
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(file)
            .output();
        let text = stdout(&output.unwrap());
        let lines = text
            .lines()
            .map(|line| line.trim_end_matches('/').to_owned());
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    };
    let archived = tree(
        "tar -tzf \"$1\" | sed -n 's|^[^/]*/||p' | sed '/^$/d'",
        &with_end(&out, ".tar.gz"),
    );
    let debian = tree(
        "dpkg-deb --fsys-tarfile \"$1\" | tar -t | sed -n 's|^\\./||p' | sed '/^$/d'",
        &deb,
    );
    assert_eq!(archived, debian);
    let red_hat = tree("rpm -qpl \"$1\" | sed 's|^/||'", &with_end(&out, ".rpm"));
    assert!(red_hat.iter().all(|name| archived.contains(name)));
    let files = |names: &[String]| {
        let is_own =
            |name: &&String| name.starts_with("usr/share/doc/postern/") || name.contains("/man1/");
        names.iter().filter(is_own).count()
    };
    assert_eq!(files(&red_hat), files(&archived));
}

/// The same program from an rpm, in a root of its own.
#[test]
#[ignore = "needs root, rpm and a fresh Debian"]
fn the_rpm_in_a_root_of_its_own() {
    need("rpm");
    let root = Root::fresh(packages());
    let rpm = with_end(&packages().join("1"), ".rpm");
    let newer = with_end(&packages().join("2"), ".rpm");
    let place = format!("/proc/{}/root{}", pid_inside(&root), root.place.display());
    let run = |verbs: &[&str], what: &str| {
        // rpm enters the root itself; the libraries that it asks for are Debian's.
        let namespaces = format!("/proc/{}/ns", root.keeper.id());
        let output = Command::new("timeout")
            .args(["200", "nsenter"])
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args(["rpm", "--root"])
            .arg(&root.place)
            .args(verbs)
            .arg(what)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    run(&["-i", "--nodeps"], rpm.to_str().unwrap());
    let state = root.run("stat -c '%a %U:%G %n' /etc/postern /var/lib/postern; postern --version");
    assert!(
        state.contains("750 root:postern /etc/postern")
            && state.contains("700 postern:postern /var/lib/postern")
            && state.contains(VERSION),
        "{state}"
    );
    root.run("echo mine >/etc/postern/config.toml; echo mail >/var/lib/postern/queue.db");
    run(&["-U", "--nodeps"], newer.to_str().unwrap());
    let log = run(&["-e", "--nodeps"], "postern");
    assert!(
        log.contains("postern: the queue stays in /var/lib/postern"),
        "{log}"
    );
    assert!(!Path::new(&place).join("usr/bin/postern").exists());
    root.run("test -s /etc/postern/config.toml && test -s /var/lib/postern/queue.db && getent passwd postern");
}

/// The block of commands or settings behind this heading.
fn block<'a>(page: &'a str, heading: &str, language: &str) -> &'a str {
    let (_, behind) = page.split_once(heading).unwrap();
    let (_, begun) = behind.split_once(&format!("```{language}\n")).unwrap();
    begun.split_once("```").unwrap().0
}

fn readme() -> String {
    fs::read_to_string(format!("{CHECKOUT}/README.md")).unwrap()
}

/// Whoever does what the page says with a package has a gateway that takes mail.
#[test]
#[ignore = "needs root and a fresh Debian"]
fn the_readme_from_a_package_to_the_first_mail() {
    need("unshare");
    let root = Root::fresh(packages());
    let authority = Authority::new("Roots");
    let sink = Script::default()
        .starttls(Arc::new(authority.server(&["localhost"])))
        .offers("AUTH_PLAIN")
        .start();
    let port = free_port();
    fs::write(packages().join("roots.pem"), &authority.pem).unwrap();
    // A machine on which systemd runs: what starts the service is a stand-in.
    root.run(
        "mkdir /run/bought && cp /packages/2/*.deb /run/bought && echo hush-hush >/run/bought/password
        echo 127.0.0.1 localhost >>/etc/hosts
        cat /packages/roots.pem >>/etc/ssl/certs/ca-certificates.crt
        printf '#!/bin/sh\\ntest \"$*\" = \"start postern\" || exit 0\\nrunuser -u postern -- postern run >>/run/log 2>&1 &\\n' >/usr/local/bin/systemctl
        chmod 755 /usr/local/bin/systemctl",
    );
    let page = readme();
    let commands = block(&page, "## From a package to the first mail", "sh");
    assert!(commands.lines().count() <= 4, "{commands}");
    let here = commands
        .replace("apt-get install", "apt-get install -y")
        .replace(
            "--host smtp.corp.example",
            &format!(
                "--host localhost --port {} --listen 127.0.0.1:{port} --hostname relay.corp.example",
                sink.address.port()
            ),
        );
    root.run(&format!("cd /run/bought; set -e\n{here}"));
    wait("the gateway in its root", || {
        Client::try_connect(([127, 0, 0, 1], port).into()).ok()
    });
    mails(port, 1..2);
    let mails = sink.wait(2);
    assert!(mails.iter().any(|mail| mail.subject() == "number 1"));
    let state = root.run("stat -c '%a %U:%G %n' /etc/postern/*");
    for name in ["config.toml", "smarthost-password"] {
        let expected = format!("640 root:postern /etc/postern/{name}\n");
        assert!(state.contains(&expected), "{state}");
    }
}

/// The ten lines are right as they stand.
#[test]
fn the_ten_lines_of_the_readme_pass() {
    let dir = TempDir::new().unwrap();
    let page = readme();
    let text = block(&page, "## Ten lines", "toml");
    fs::write(dir.path().join("config.toml"), text).unwrap();
    let secret = dir.path().join("smarthost-password");
    fs::write(&secret, "p\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let checked = Command::new(Gateway::binary())
        .args(["check", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
}

/// Over this machine's own root, which is only read: what the page says, and then systemd is asked.
#[test]
#[ignore = "needs root and systemd"]
fn the_readme_from_source_makes_a_unit_that_systemd_takes() {
    need("systemd-analyze");
    let shared = TempDir::new().unwrap();
    let cargo = shared.path().join("cargo");
    // The program is there already.
    let script = "#!/bin/sh\nmkdir -p target/release && rm -f target/release/postern && cp \"$PROGRAM\" target/release/postern\n";
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    // Links are made by the real one; there is nothing that could start a service.
    let systemctl = shared.path().join("systemctl");
    let script = "#!/bin/sh\ntest \"$*\" = \"enable --now postern\" && exec /usr/bin/systemctl enable postern\n";
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let program = shared.path().join("program");
    fs::copy(Gateway::binary(), &program).unwrap();
    copy_of_the_checkout(shared.path());
    let root = Root::over(Path::new("/"), shared.path());
    let page = readme();
    let commands = block(&page, "## From source, with systemd", "sh");
    root.run(&format!(
        "mkdir /checkout && cp -r /packages/* /checkout && cd /checkout && : >config.toml
        export PATH=/packages:$PATH PROGRAM=/packages/program; set -e
        rm -f /usr/local/bin/sendmail\n{commands}"
    ));
    let state = root.run(
        "stat -c '%a %U:%G %n' /etc/postern /etc/postern/config.toml /var/lib/postern
        grep ^ExecStart= /etc/systemd/system/postern.service
        readlink /etc/systemd/system/multi-user.target.wants/postern.service
        test -s /usr/local/share/man/man1/postern.1",
    );
    for expected in [
        "750 root:postern /etc/postern\n",
        "640 root:postern /etc/postern/config.toml\n",
        "700 postern:postern /var/lib/postern\n",
        "ExecStart=/usr/local/bin/postern run\n",
        "/etc/systemd/system/postern.service\n",
    ] {
        assert!(state.contains(expected), "{expected}: {state}");
    }
    let verified =
        root.try_run("systemd-analyze verify --man=no /etc/systemd/system/postern.service");
    let text = said(&verified);
    assert!(
        verified.status.success() && !text.contains("postern"),
        "{text}"
    );
}

/// A tree with the program and what it is linked to: in the image it is static, here it need not be.
fn tree_with_libraries(to: &Path) {
    let script = "set -e
        dpkg-deb -x \"$1\" \"$2\"
        ldd \"$2/usr/bin/postern\" | grep -o '/[^ ]*' | sort -u | while read -r library; do
            mkdir -p \"$2/$(dirname \"$library\")\"
            cp -L \"$library\" \"$2/$library\"
        done
        rm -r \"$2/usr/share\" \"$2/usr/lib/systemd\"";
    let made = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&with_end(&packages().join("1"), ".deb"), to])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
}

/// Made twice the same, read by tools that are not ours, and run as a cluster runs it: another user, first process, nothing to write to but the
/// volume, whose owner Kubernetes leaves to root.
#[test]
#[ignore = "needs root, skopeo and umoci"]
fn the_image_runs_on_a_root_that_is_only_read() {
    need("skopeo");
    need("umoci");
    let dir = TempDir::new().unwrap();
    let place = |name: &str| dir.path().join(name);
    tree_with_libraries(&place("tree"));
    for name in ["image.tar", "again.tar"] {
        let made = Command::new(format!("{CHECKOUT}/packaging/image"))
            .args(["--whole", "--version", VERSION, "--out"])
            .arg(place(name))
            .arg(format!("amd64={}", place("tree").display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
    }
    assert!(fs::read(place("image.tar")).unwrap() == fs::read(place("again.tar")).unwrap());
    let run = |program: &str, args: &[String]| {
        let output = Command::new("timeout")
            .args(["120", program])
            .args(args)
            .current_dir(dir.path())
            .output();
        stdout(&output.unwrap())
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let image = format!("oci-archive:image.tar:{VERSION}");
    let config: serde_json::Value =
        serde_json::from_str(&run("skopeo", &words(&format!("inspect --config {image}")))).unwrap();
    let wanted = serde_json::json!({
        "User": "65532:65532", "Entrypoint": ["/usr/bin/postern"], "Cmd": ["run"],
        "Volumes": { "/var/lib/postern": {} }, "StopSignal": "SIGTERM",
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&config["config"][key], value, "{key}");
    }
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.version"],
        VERSION
    );
    run(
        "skopeo",
        &words(&format!("copy --quiet {image} oci:layout:{VERSION}")),
    );
    run(
        "umoci",
        &words(&format!("unpack --image layout:{VERSION} bundle")),
    );
    let root = place("bundle/rootfs");
    let volume = fs::metadata(root.join("var/lib/postern")).unwrap();
    assert_eq!((volume.mode() & 0o7777, volume.uid()), (0o700, 65532));
    assert!(
        fs::metadata(root.join("etc/ssl/certs/ca-certificates.crt"))
            .unwrap()
            .len()
            > 100_000
    );

    let sink = Upstream::start();
    let settings_on = |port| self::config(port, &sink);
    for (name, mode, owner) in [("own", 0o700, 65532), ("fsgroup", 0o2770, 0)] {
        let port = free_port();
        let data = place(name);
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(owner), Some(65532)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
        fs::write(place("config.toml"), settings_on(port)).unwrap();
        fs::set_permissions(place("config.toml"), fs::Permissions::from_mode(0o644)).unwrap();
        let script = "set -e
            mount --bind \"$1\" \"$1\"
            : >>\"$1/etc/postern/config.toml\"; mkdir -p \"$1/proc\" \"$1/dev\"
            mount --bind \"$3\" \"$1/etc/postern/config.toml\"
            mount -o remount,bind,ro \"$1\"
            mount --bind \"$2\" \"$1/var/lib/postern\"
            mount -t proc proc \"$1/proc\"
            mount --rbind /dev \"$1/dev\"
            exec chroot --userspec=65532:65532 --groups=65532 \"$1\" /usr/bin/postern run";
        let log = place(&format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork"])
            .args(["--kill-child=KILL", "sh", "-c", script, "sh"])
            .args([&root, &data, &place("config.toml")])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let id = child.id();
        let log = || fs::read_to_string(&log).unwrap();
        wait("the gateway of the image", || {
            assert!(child.try_wait().unwrap().is_none(), "{}", log());
            Client::try_connect(([127, 0, 0, 1], port).into()).ok()
        });
        let before = sink.count();
        mails(port, 0..3);
        // One that goes to a file, and is looked through.
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.reply();
        client.expect("EHLO x", "250");
        let large = "x".repeat(70) + "\r\n";
        queued_id(&client.mail(
            "erp@corp.example",
            &["x@corp.example"],
            &format!(
                "From: erp@corp.example\r\nSubject: large\r\n\r\n{}",
                large.repeat(60_000)
            ),
        ));
        sink.wait(before + 4);
        let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let first: u32 = first.split_whitespace().next().unwrap().parse().unwrap();
        let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        let line = |key: &str| {
            let found = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            found
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(line("NSpid:").last().unwrap(), "1");
        assert_eq!(line("Uid:")[0], "65532");
        crate::harness::gateway::signal(first, "TERM");
        let ended = wait("the end within its grace", || child.try_wait().unwrap());
        assert!(ended.success(), "{ended}: {}", log());
        assert!(!log().contains("ead-only"), "{}", log());
        assert!(data.join("queue.db").is_file());
    }
}

/// What is handed out to be used as it is.
#[test]
#[ignore = "needs check-jsonschema and kubernetes-validate"]
fn compose_and_kubernetes_files_are_what_their_schemas_say() {
    let tools = peers().join("manifests/bin");
    let manifests = [
        format!("{CHECKOUT}/packaging/kubernetes/config.yaml"),
        format!("{CHECKOUT}/packaging/kubernetes/postern.yaml"),
    ];
    let run = |tool: &str, args: &[&str]| {
        let output = Command::new("timeout")
            .arg("60")
            .arg(tools.join(tool))
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let compose = format!("{CHECKOUT}/packaging/compose.yaml");
    run(
        "check-jsonschema",
        &["--builtin-schema", "vendor.compose-spec", &compose],
    );
    for manifest in &manifests {
        run("kubernetes-validate", &["--strict", manifest]);
    }
    let stateful = fs::read_to_string(&manifests[1]).unwrap();
    for expected in [
        &format!("/postern:{VERSION}"),
        "externalTrafficPolicy: Local",
        "readOnlyRootFilesystem: true",
        "fsGroup: 65532",
        "[/usr/bin/postern, health, --ready]",
        "replicas: 1",
    ] {
        assert!(stateful.contains(expected), "{expected}");
    }
    assert!(!stateful.contains("HorizontalPodAutoscaler"));

    // The settings in it are right.
    let dir = TempDir::new().unwrap();
    let text = fs::read_to_string(&manifests[0]).unwrap();
    let (_, settings) = text.split_once("config.toml: |\n").unwrap();
    let (settings, _) = settings.split_once("---\n").unwrap();
    let settings: String = settings
        .lines()
        .map(|line| line.trim_start().to_owned() + "\n")
        .collect();
    let secret = dir.path().join("smarthost-password");
    fs::write(&secret, "p\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = settings.replace("/etc/postern-secrets", dir.path().to_str().unwrap());
    fs::write(dir.path().join("config.toml"), settings).unwrap();
    let checked = Command::new(Gateway::binary())
        .args(["check", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
}
