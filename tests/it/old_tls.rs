//! Upstreams with old, odd or demanding TLS, by OpenSSL through Python: what is delivered, and in which words the rest is reported.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::harness::peers::{need, run};

/// An SMTP server of one message a connection: certificate, key, port by itself, and a line of Python that changes its context.
const SERVER: &str = r#"
import socket, ssl, sys, threading
cert, key, root, implicit, change = sys.argv[1:6]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.set_ciphers("ALL:@SECLEVEL=0")
context.load_cert_chain(cert, key)
exec(change)
def lines(f, conn, secure):
    def say(text): f.write(text.encode() + b"\r\n"); f.flush()
    if implicit == "yes" or not secure: say("220 old ESMTP")
    while True:
        line = f.readline().decode("latin-1").strip().upper()
        if not line: return
        if line.startswith("EHLO"): say("250-old\r\n250 STARTTLS" if not secure else "250 old")
        elif line.startswith("STARTTLS"): say("220 go"); return True
        elif line == "DATA":
            say("354 go")
            while f.readline().strip() != b".": pass
            say("250 taken over " + conn.version())
        elif line == "QUIT": say("221 bye"); return
        else: say("250 ok")
def serve(conn):
    try:
        if implicit != "yes" and not lines(conn.makefile("rwb"), conn, False): return
        conn = context.wrap_socket(conn, server_side=True)
        lines(conn.makefile("rwb"), conn, True)
    except (OSError, ValueError): pass
    finally: conn.close()
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(16)
print(listener.getsockname()[1], flush=True)
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
"#;

pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(dir: &Path, name: &str, implicit: bool, change: &str) -> Self {
        let file = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        let root = dir.join("root.crt").display().to_string();
        let mut child = Command::new("python3")
            .args([
                "-W",
                "ignore",
                "-c",
                SERVER,
                &file("crt"),
                &file("key"),
                &root,
            ])
            .args([if implicit { "yes" } else { "no" }, change])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            child,
            port: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `postern test` says of it: does it leave, and in which words.
fn try_it(dir: &Path, server: &Server, implicit: bool, keys: &str) -> (bool, String) {
    try_at(dir, "127.0.0.1", server.port, implicit, keys)
}

/// The same, of a server by its name.
pub(super) fn try_at(
    dir: &Path,
    host: &str,
    port: u16,
    implicit: bool,
    keys: &str,
) -> (bool, String) {
    let tls = if implicit { "implicit" } else { "starttls" };
    let config = dir.join("config.toml");
    let text = format!(
        "hostname = \"relay.corp.example\"\ndata_dir = \"data\"\n\n[[listener]]\nname = \"local\"\naddress = \"127.0.0.1:0\"\n\n\
         [allowlist]\nsenders = [\"corp.example\"]\nrecipients = [\"corp.example\"]\n\n[[route]]\nname = \"all\"\nconnectors = [\"up\"]\n\n\
         [[connector]]\nname = \"up\"\ntype = \"smtp\"\nhost = \"{host}\"\nport = {port}\ntls = \"{tls}\"\n{keys}"
    );
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let said = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args([
            "-c",
            &config,
            "test",
            "up",
            "--to",
            "x@corp.example",
            "--from",
            "a@corp.example",
        ])
        .output()
        .unwrap();
    let words = [said.stdout, said.stderr].concat();
    (
        said.status.success(),
        String::from_utf8_lossy(&words).into_owned(),
    )
}

/// A certificate authority, and certificates: `name`, `openssl x509` extensions, key, days from and to.
pub(super) struct Pki {
    pub(super) dir: tempfile::TempDir,
}

impl Pki {
    pub(super) fn new() -> Self {
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        pki.make("root", None, "rsa:2048", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n", 30);
        pki
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Signed by `signer`, or by itself. No extensions at all: version 1.
    pub(super) fn make(
        &self,
        name: &str,
        signer: Option<&str>,
        key: &str,
        extensions: &str,
        days: i32,
    ) {
        let at = |end: &str| self.path(&format!("{name}.{end}"));
        fs::write(at("cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
        run(
            "openssl",
            &[
                "req",
                "-new",
                "-config",
                &at("cnf"),
                "-newkey",
                key,
                "-nodes",
                "-keyout",
                &at("key"),
                "-out",
                &at("csr"),
                "-subj",
                &format!("/CN={name}"),
            ],
        );
        // Without extensions it is of version 1; which words say so, depends on the version of OpenSSL.
        let ways: &[&str] = match extensions {
            "" => &[
                "[none]\n",
                "subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n",
            ],
            _ => &[extensions],
        };
        let is_made = ways.iter().any(|way| {
            fs::write(at("ext"), way).unwrap();
            let (csr, crt, ext, own, days) =
                (at("csr"), at("crt"), at("ext"), at("key"), days.to_string());
            let by = signer.unwrap_or(name);
            let (ca, ca_key) = (
                self.path(&format!("{by}.crt")),
                self.path(&format!("{by}.key")),
            );
            let mut args = vec!["x509", "-req", "-in", &csr, "-out", &crt, "-days", &days];
            args.extend(["-sha256", "-extfile", &ext]);
            match signer {
                None => args.extend(["-signkey", &own]),
                Some(_) => args.extend(["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"]),
            }
            run("openssl", &args);
            let text = run("openssl", &["x509", "-in", &crt, "-noout", "-text"]);
            !extensions.is_empty() || text.contains("Version: 1 ")
        });
        assert!(is_made, "this OpenSSL makes no certificate of version 1");
    }
}

pub(super) const SAN: &str = "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n";

/// Names of the library's variants that people must not read.
pub(super) fn is_plain(text: &str) -> bool {
    ![
        "DnsName(",
        "BadSignature",
        "Context {",
        "AlertReceived",
        "OtherError",
        "HandshakeFailure",
        "ProtocolVersion",
        "CertificateRequired",
        "PeerIncompatible",
    ]
    .iter()
    .any(|word| text.contains(word))
}

/// `verify = "none"` takes every certificate; one that is pinned is taken as it is, with its name and dates; from an authority the
/// sentence says what is wrong with it.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn certificates_that_the_library_does_not_read() {
    need("python3");
    need("openssl");
    let pki = Pki::new();
    let odd = format!("{SAN}1.2.3.4.5.6.7.8=critical,DER:05:00\n");
    for (name, key, extensions) in [
        ("127.0.0.1", "rsa:2048", ""),
        ("short", "rsa:1024", SAN),
        ("odd", "rsa:2048", odd.as_str()),
    ] {
        pki.make(name, Some("root"), key, extensions, 30);
    }
    let ca = format!("ca_file = \"{}\"\n", pki.path("root.crt"));
    for (name, wrong) in [
        ("127.0.0.1", "version 1"),
        ("short", "1024 bits"),
        ("odd", "critical extension"),
    ] {
        let pinned = format!("ca_file = \"{}\"\n", pki.path(&format!("{name}.crt")));
        for implicit in [false, true] {
            let server = Server::start(pki.dir.path(), name, implicit, "");
            let (left, said) = try_it(pki.dir.path(), &server, implicit, "verify = \"none\"\n");
            assert!(left, "{name}: {said}");
            let (left, said) = try_it(pki.dir.path(), &server, implicit, &pinned);
            assert!(left, "{name}: {said}");
            let (left, said) = try_it(pki.dir.path(), &server, implicit, &ca);
            assert!(
                !left && said.contains(wrong) && said.contains("ca_file") && is_plain(&said),
                "{name}: {said}"
            );
        }
    }
    // Pinned, for another name; and the file pins another certificate with the same name.
    pki.make("other.example", Some("root"), "rsa:2048", "", 30);
    let server = Server::start(pki.dir.path(), "other.example", true, "");
    let pinned = format!("ca_file = \"{}\"\n", pki.path("other.example.crt"));
    let (left, said) = try_it(pki.dir.path(), &server, true, &pinned);
    assert!(
        !left && said.contains("is not for 127.0.0.1 but for other.example"),
        "{said}"
    );
    let (left, said) = try_it(
        pki.dir.path(),
        &server,
        true,
        &format!("verify = \"certificate\"\n{pinned}"),
    );
    assert!(left, "{said}");
}

/// A pinned certificate proves nothing where the server does not hold its key.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn attack_a_pinned_certificate_without_its_key() {
    need("python3");
    need("openssl");
    let pki = Pki::new();
    for (name, key) in [("v1", "rsa:2048"), ("v1short", "rsa:1024")] {
        pki.make(name, None, key, "", 30);
        // OpenSSL refuses a key that does not fit its certificate, so the server shows one of the same name and another key.
        fs::copy(pki.path(&format!("{name}.crt")), pki.path("pinned.crt")).unwrap();
        pki.make(name, None, key, "", 30);
        let server = Server::start(pki.dir.path(), name, true, "");
        let pinned = format!(
            "verify = \"certificate\"\nca_file = \"{}\"\n",
            pki.path("pinned.crt")
        );
        let (left, said) = try_it(pki.dir.path(), &server, true, &pinned);
        assert!(!left && is_plain(&said), "{said}");
    }
}

/// An old server is called old, a missing cipher a missing cipher, and only who wants our certificate is said to want it.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn what_the_upstream_lacks_or_wants_is_named() {
    need("python3");
    need("openssl");
    let pki = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", SAN, 30);
    let ca = format!("ca_file = \"{}\"\n", pki.path("root.crt"));
    pki.make(
        "client",
        Some("root"),
        "rsa:2048",
        "basicConstraints=CA:FALSE\n",
        30,
    );
    let own = format!(
        "{ca}client_certificate = \"{}\"\nclient_key = \"{}\"\n",
        pki.path("client.crt"),
        pki.path("client.key")
    );
    let wants = "context.verify_mode = ssl.CERT_REQUIRED; context.load_verify_locations(root)";
    let wants_12 = &format!("{wants}; context.maximum_version = ssl.TLSVersion.TLSv1_2");
    for (change, keys, words, without) in [
        (
            "context.minimum_version = ssl.TLSVersion.TLSv1; context.maximum_version = ssl.TLSVersion.TLSv1_1",
            &ca,
            "speaks no TLS 1.2: it is an old server, to be updated or put behind a newer one; min_tls = \"1.0\" if you must",
            "client certificate",
        ),
        (
            "context.maximum_version = ssl.TLSVersion.TLSv1_2; context.set_ciphers('AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0')",
            &ca,
            "shares no cipher with us; old_ciphers = true if you must",
            "client certificate",
        ),
        (
            "context.maximum_version = ssl.TLSVersion.TLSv1_2; context.set_ciphers('DHE:@SECLEVEL=0')",
            &ca,
            "cipher",
            "client certificate",
        ),
        (wants, &ca, "set client_certificate", "cipher"),
        (wants_12, &ca, "set client_certificate", "cipher"),
        ("pass", &ca, "", "alert"),
        (wants, &own, "", "alert"),
    ] {
        for implicit in [false, true] {
            let server = Server::start(pki.dir.path(), "good", implicit, change);
            let (left, said) = try_it(pki.dir.path(), &server, implicit, keys);
            assert_eq!(left, words.is_empty(), "{change}: {said}");
            assert!(
                said.contains(words) && !said.contains(without) && is_plain(&said),
                "{change}: {said}"
            );
        }
    }
}

/// The chain's dates: whose certificate has expired.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn an_expired_intermediate_is_called_one() {
    need("python3");
    need("openssl");
    let pki = Pki::new();
    pki.make(
        "middle",
        Some("root"),
        "rsa:2048",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
        -1,
    );
    pki.make("leaf", Some("middle"), "rsa:2048", SAN, 30);
    let chain = [
        fs::read(pki.path("leaf.crt")).unwrap(),
        fs::read(pki.path("middle.crt")).unwrap(),
    ]
    .concat();
    fs::write(pki.path("leaf.crt"), chain).unwrap();
    let server = Server::start(pki.dir.path(), "leaf", true, "");
    let ca = format!("ca_file = \"{}\"\n", pki.path("root.crt"));
    let (left, said) = try_it(pki.dir.path(), &server, true, &ca);
    assert!(
        !left && said.contains("intermediate certificate of CN=middle") && is_plain(&said),
        "{said}"
    );
}
