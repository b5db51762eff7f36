//! Servers with old TLS, by OpenSSL, through Python and by itself: connectors that may speak to them do, hold their certificates to the
//! roots, and say in which words they do not.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    harness::{
        client::queued_id,
        gateway::{Gateway, basic, stdout},
        peers::{free_port, need, run},
        proxy::{Kind, Proxy, Rules},
        time::wait,
    },
    old_tls::{Pki, SAN, Server, is_plain, try_at},
};

const LOCALHOST: &str = "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n";
const TEN: &str = "context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1";
const ELEVEN: &str = "context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1";
const CBC: &str = "context.maximum_version = ssl.TLSVersion.TLSv1_2; context.set_ciphers('ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0')";
const RSA: &str = "context.maximum_version = ssl.TLSVersion.TLSv1_2; context.set_ciphers('AES128-SHA:@SECLEVEL=0')";

fn needed() {
    need("python3");
    need("openssl");
}

/// Each version and each old way of TLS 1.2, in the clear first or not, with an RSA and an ECDSA key: spoken where the connector allows it,
/// and else the key of the configuration is named that would.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn a_connector_speaks_what_it_is_allowed() {
    needed();
    let pki = Pki::new();
    pki.make("rsa", Some("root"), "rsa:2048", LOCALHOST, 30);
    let curve = pki.path("curve.pem");
    run(
        "openssl",
        &["ecparam", "-name", "prime256v1", "-out", &curve],
    );
    pki.make("ec", Some("root"), &format!("ec:{curve}"), LOCALHOST, 30);
    let ca = format!("ca_file = \"{}\"\n", pki.path("root.crt"));
    let (ten, eleven, ciphers) = (
        "min_tls = \"1.0\"\n",
        "min_tls = \"1.1\"\n",
        "old_ciphers = true\n",
    );
    for (cert, change, keys, taken, words) in [
        ("rsa", TEN, ten, true, "taken over TLSv1"),
        ("ec", TEN, ten, true, "taken over TLSv1"),
        ("rsa", ELEVEN, ten, true, "taken over TLSv1.1"),
        ("rsa", ELEVEN, eleven, true, "taken over TLSv1.1"),
        ("rsa", CBC, ten, true, "taken over TLSv1.2"),
        ("rsa", CBC, ciphers, true, "taken over TLSv1.2"),
        ("ec", CBC, ciphers, true, "taken over TLSv1.2"),
        ("rsa", RSA, ciphers, true, "taken over TLSv1.2"),
        // A server that knows better is spoken to in TLS 1.2.
        ("rsa", "pass", ten, true, "taken over TLSv1.2"),
        ("rsa", "pass", ciphers, true, "taken over TLSv1.2"),
        // Less than the server wants.
        ("rsa", TEN, "", false, "min_tls = \"1.0\" if you must"),
        ("rsa", ELEVEN, "", false, "min_tls = \"1.0\" if you must"),
        ("rsa", CBC, "", false, "old_ciphers = true if you must"),
        ("rsa", RSA, "", false, "old_ciphers = true if you must"),
        ("rsa", TEN, eleven, false, "min_tls = \"1.0\""),
        ("rsa", TEN, ciphers, false, "min_tls = \"1.0\""),
        // More.
        (
            "rsa",
            "context.maximum_version = ssl.TLSVersion.TLSv1_2",
            "min_tls = \"1.3\"\n",
            false,
            "min_tls = \"1.2\" takes less",
        ),
        (
            "rsa",
            "pass",
            "min_tls = \"1.3\"\n",
            true,
            "taken over TLSv1.3",
        ),
        (
            "rsa",
            "context.minimum_version = ssl.TLSVersion.TLSv1_3",
            ten,
            false,
            "no version from TLS 1.0 to TLS 1.2",
        ),
        (
            "rsa",
            "context.maximum_version = ssl.TLSVersion.TLSv1_2; context.set_ciphers('DHE:@SECLEVEL=0')",
            ten,
            false,
            "none of our ciphers",
        ),
    ] {
        for implicit in [false, true] {
            let server = Server::start(pki.dir.path(), cert, implicit, change);
            let keys = format!("{ca}{keys}");
            let (left, said) = try_at(pki.dir.path(), "localhost", server.port, implicit, &keys);
            assert_eq!(left, taken, "{cert} {change} {keys}: {said}");
            assert!(
                said.contains(words) && is_plain(&said) && !said.contains("S2N"),
                "{cert} {change} {keys}: {said}"
            );
        }
    }
}

/// Who is trusted: the roots, the dates and the name count as they do in modern TLS, and a server's own certificate is trusted as it is.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn the_certificate_is_looked_at() {
    needed();
    let pki = Pki::new();
    let other = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", LOCALHOST, 30);
    pki.make("other.example", Some("root"), "rsa:2048", "", 30);
    pki.make("past", Some("root"), "rsa:2048", LOCALHOST, -1);
    pki.make(
        "client",
        Some("root"),
        "rsa:2048",
        "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth\n",
        30,
    );
    // Version 1, of 1024 bits: with a name, and with an address in its place.
    pki.make("localhost", None, "rsa:1024", "", 30);
    pki.make("127.0.0.1", None, "rsa:1024", "", 30);
    pki.make("address", Some("root"), "rsa:1024", SAN, 30);
    let pin = |name: &str| format!("ca_file = \"{}\"\n", pki.path(&format!("{name}.crt")));
    let (root, loose) = (pin("root"), "verify = \"certificate\"\n");
    let loose_root = format!("{root}{loose}");
    let loose_other = format!("{}{loose}", pin("other.example"));
    let foreign = format!("ca_file = \"{}\"\n", other.path("root.crt"));
    for (cert, host, keys, taken, words) in [
        ("good", "localhost", root.as_str(), true, "TLSv1"),
        (
            "good",
            "127.0.0.1",
            &root,
            false,
            "is not for 127.0.0.1 but for localhost",
        ),
        ("good", "127.0.0.1", &loose_root, true, "TLSv1"),
        ("address", "127.0.0.1", &root, true, "TLSv1"),
        (
            "address",
            "localhost",
            &root,
            false,
            "is not for localhost but for 127.0.0.1",
        ),
        // No alternative name: the common one counts.
        (
            "other.example",
            "localhost",
            &root,
            false,
            "is not for localhost but for other.example",
        ),
        ("other.example", "localhost", &loose_other, true, "TLSv1"),
        ("good", "localhost", &foreign, false, "unknown issuer"),
        ("past", "localhost", &root, false, "has expired"),
        ("past", "localhost", &pin("past"), false, "has expired"),
        ("client", "localhost", &root, false, "not made for servers"),
        // Pinned: weak in every way, and the very one.
        ("localhost", "localhost", &pin("localhost"), true, "TLSv1"),
        (
            "localhost",
            "127.0.0.1",
            &pin("localhost"),
            false,
            "is not for 127.0.0.1 but for localhost",
        ),
        ("localhost", "localhost", &root, false, "unknown issuer"),
        (
            "127.0.0.1",
            "127.0.0.1",
            &pin("127.0.0.1"),
            false,
            "an address for its common name",
        ),
    ] {
        for (implicit, change) in [(false, TEN), (true, TEN), (true, RSA)] {
            let server = Server::start(pki.dir.path(), cert, implicit, change);
            let keys = format!("min_tls = \"1.0\"\n{keys}");
            let (left, said) = try_at(pki.dir.path(), host, server.port, implicit, &keys);
            assert_eq!(left, taken, "{cert} {host} {keys}: {said}");
            assert!(
                said.contains(words) && is_plain(&said) && !said.contains("S2N"),
                "{cert} {host} {keys}: {said}"
            );
        }
    }
    // The system's roots do not know this one.
    let server = Server::start(pki.dir.path(), "good", true, TEN);
    let keys = "min_tls = \"1.0\"\n";
    let (left, said) = try_at(pki.dir.path(), "localhost", server.port, true, keys);
    assert!(!left && said.contains("unknown issuer"), "{said}");
}

/// A pinned certificate proves nothing where the server does not hold its key, however the secret is agreed on.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn attack_an_old_server_without_the_key_of_what_is_pinned() {
    needed();
    let pki = Pki::new();
    for change in [TEN, CBC, RSA] {
        pki.make("v1", None, "rsa:1024", "", 30);
        fs::copy(pki.path("v1.crt"), pki.path("pinned.crt")).unwrap();
        // The same name, another key.
        pki.make("v1", None, "rsa:1024", "", 30);
        let server = Server::start(pki.dir.path(), "v1", true, change);
        let keys = format!(
            "min_tls = \"1.0\"\nverify = \"certificate\"\nca_file = \"{}\"\n",
            pki.path("pinned.crt")
        );
        let (left, said) = try_at(pki.dir.path(), "localhost", server.port, true, &keys);
        assert!(!left && !said.contains("taken over"), "{change}: {said}");
    }
}

/// What an upstream wants that old TLS has not, and what is no TLS at all.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn what_an_old_server_wants_or_is() {
    needed();
    let pki = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", LOCALHOST, 30);
    let keys = format!(
        "min_tls = \"1.0\"\nca_file = \"{}\"\n",
        pki.path("root.crt")
    );
    let wants = format!(
        "{TEN}; context.verify_mode = ssl.CERT_REQUIRED; context.load_verify_locations(root)"
    );
    let server = Server::start(pki.dir.path(), "good", true, &wants);
    let (left, said) = try_at(pki.dir.path(), "localhost", server.port, true, &keys);
    assert!(
        !left && said.contains("wants a client certificate"),
        "{said}"
    );
    // It begins in the clear, and waits for a word: so says the other side's own limit.
    let server = Server::start(pki.dir.path(), "good", false, TEN);
    let (left, said) = try_at(pki.dir.path(), "localhost", server.port, true, &keys);
    assert!(!left && said.contains("plain text"), "{said}");
}

/// Through a proxy of either kind.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn old_tls_through_a_proxy() {
    needed();
    let pki = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", LOCALHOST, 30);
    for (kind, scheme) in [(Kind::Connect, "http"), (Kind::Socks5, "socks5")] {
        for implicit in [false, true] {
            let server = Server::start(pki.dir.path(), "good", implicit, TEN);
            let there = ([127, 0, 0, 1], server.port).into();
            let target: &'static str = format!("old.corp.example:{}", server.port).leak();
            let proxy = Proxy::start(Rules::new(kind, &[(target, there)]));
            let keys = format!(
                "min_tls = \"1.0\"\nverify = \"certificate\"\nca_file = \"{}\"\nproxy = \"{scheme}://{}\"\n",
                pki.path("root.crt"),
                proxy.address
            );
            let host = "old.corp.example";
            let (left, said) = try_at(pki.dir.path(), host, server.port, implicit, &keys);
            assert!(left && said.contains("taken over TLSv1"), "{said}");
            assert_eq!(proxy.targets(), [target]);
        }
    }
}

/// A running gateway: connections are used again, large messages pass whole, and `explain` says what is spoken.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn mail_flows_over_old_tls() {
    needed();
    let pki = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", LOCALHOST, 30);
    let server = Server::start(pki.dir.path(), "good", false, TEN);
    let config = basic(([127, 0, 0, 1], server.port).into())
        .replace("host = \"127.0.0.1\"", "host = \"localhost\"")
        .replace(
            "tls = \"off\"",
            &format!(
                "tls = \"starttls\"\nmin_tls = \"1.0\"\nmax_connections = 2\nca_file = \"{}\"",
                pki.path("root.crt")
            ),
        );
    let gateway = Gateway::start(&config);
    let large = format!(
        "Subject: large\r\n\r\n{}",
        format!("{}\r\n", "y".repeat(74)).repeat(40_000)
    );
    let mut client = gateway.connect("local");
    client.expect("EHLO me", "250");
    let mut ids = Vec::new();
    for content in [
        "Subject: one\r\n\r\none\r\n",
        large.as_str(),
        "Subject: two\r\n\r\ntwo\r\n",
    ] {
        let reply = client.mail("a@corp.example", &["b@corp.example"], content);
        ids.push(queued_id(&reply));
    }
    for id in &ids {
        let life = wait("the delivery", || {
            let life = stdout(&gateway.cli(&["trace", id]));
            life.contains("taken over TLSv1").then_some(life)
        });
        assert!(life.contains("TLSv1"), "{life}");
    }
    let said = stdout(&gateway.cli(&[
        "explain",
        "--from",
        "a@corp.example",
        "--to",
        "b@corp.example",
    ]));
    assert!(said.contains("TLS 1.0 and newer to up"), "{said}");
    let said = stdout(&gateway.cli(&["check", "--connect"]));
    assert!(said.contains("TLSv1"), "{said}");
}

/// `openssl s_server` as a server of mail: what comes is answered line by line.
struct Plain {
    child: Child,
    port: u16,
}

impl Plain {
    fn start(dir: &Path, name: &str, more: &[&str]) -> Self {
        let port = free_port();
        let file = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .args(["-cert", &file("crt"), "-key", &file("key")])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut say, heard) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // It is said to whoever comes first.
            let _ = say.write_all(b"220 old ESMTP\n");
            let mut is_content = false;
            for line in BufReader::new(heard).lines() {
                let Ok(line) = line else { return };
                let line = line.trim_end();
                let answer: &[u8] = match line.split(' ').next().unwrap_or_default() {
                    "." => {
                        is_content = false;
                        b"250 taken\n"
                    }
                    _ if is_content => continue,
                    "DATA" => {
                        is_content = true;
                        b"354 go\n"
                    }
                    "QUIT" => b"221 bye\n",
                    _ => b"250 ok\n",
                };
                if say.write_all(answer).is_err() {
                    return;
                }
            }
        });
        // A connection would be the one that it serves.
        let listens = format!("0100007F:{port:04X} 00000000:0000 0A");
        wait("the server", || {
            let all = fs::read_to_string("/proc/net/tcp").unwrap();
            all.contains(&listens).then_some(())
        });
        Self { child, port }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The way an administrator goes: the certificate is fetched, compared and pinned; then mail leaves. `s_server` as it is started by hand.
#[test]
#[ignore = "needs OpenSSL, which tests/run installs"]
fn a_certificate_is_fetched_compared_and_pinned() {
    needed();
    let pki = Pki::new();
    pki.make("localhost", None, "rsa:1024", "", 30);
    let dir = pki.dir.path();
    let print = run(
        "openssl",
        &[
            "x509",
            "-in",
            &pki.path("localhost.crt"),
            "-noout",
            "-fingerprint",
            "-sha256",
        ],
    );
    let (_, print) = print.trim().split_once('=').unwrap();
    for (more, version) in [
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..], "TLSv1"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "TLSv1.1"),
        (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "TLSv1.2"),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384:@SECLEVEL=0"],
            "TLSv1.2",
        ),
    ] {
        let server = Plain::start(dir, "localhost", more);
        let at = format!("localhost:{}", server.port);
        let fetched = Command::new(Gateway::binary())
            .args(["cert", "fetch", &at])
            .output()
            .unwrap();
        let told = String::from_utf8(fetched.stderr).unwrap();
        assert!(fetched.status.success(), "{more:?}: {told}");
        assert!(told.contains(&format!("SHA-256 {print}")), "{told}");
        assert!(told.contains("certificate of CN=localhost"), "{told}");
        // Octet for octet the one that was made.
        let pem = pki.path("server.pem");
        fs::write(&pem, &fetched.stdout).unwrap();
        let der = |file: &str| {
            let out = format!("{file}.der");
            run(
                "openssl",
                &["x509", "-in", file, "-outform", "DER", "-out", &out],
            );
            fs::read(out).unwrap()
        };
        assert_eq!(der(&pem), der(&pki.path("localhost.crt")));
        let server = Plain::start(dir, "localhost", more);
        let keys = format!("min_tls = \"1.0\"\nca_file = \"{pem}\"\n");
        let (left, said) = try_at(dir, "localhost", server.port, true, &keys);
        assert!(
            left && said.contains(&format!("{version} ")),
            "{more:?}: {said}"
        );
    }
}

/// By STARTTLS, of a modern server, of one that shows none, and of nobody.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn a_certificate_is_fetched_from_whoever_has_one() {
    needed();
    let pki = Pki::new();
    pki.make("good", Some("root"), "rsa:2048", LOCALHOST, 30);
    let dir = pki.dir.path();
    let fetch = |args: &[&str]| {
        let done = Command::new(Gateway::binary())
            .args(["cert", "fetch"])
            .args(args)
            .output()
            .unwrap();
        (
            done.status.code().unwrap(),
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        )
    };
    let print = run(
        "openssl",
        &[
            "x509",
            "-in",
            &pki.path("good.crt"),
            "-noout",
            "-fingerprint",
            "-sha256",
        ],
    );
    let (_, print) = print.trim().split_once('=').unwrap();
    for change in [
        TEN,
        CBC,
        "pass",
        "context.minimum_version = ssl.TLSVersion.TLSv1_3",
        // A certificate is shown before ours is asked for.
        "context.verify_mode = ssl.CERT_REQUIRED; context.load_verify_locations(root)",
    ] {
        let server = Server::start(dir, "good", false, change);
        let at = format!("127.0.0.1:{}", server.port);
        let (code, pem, told) = fetch(&[&at, "--starttls"]);
        assert_eq!(code, 0, "{change}: {told}");
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{pem}");
        assert!(told.contains(print), "{told}");
    }
    // Begun in the clear, and nobody says so.
    let server = Server::start(dir, "good", false, TEN);
    let (code, pem, told) = fetch(&[&format!("localhost:{}", server.port)]);
    assert!(
        code == 69 && pem.is_empty() && told.contains("--starttls"),
        "{told}"
    );
    let (code, _, told) = fetch(&[&format!("127.0.0.1:{}", free_port())]);
    assert!(
        code == 69 && told.contains("connect to 127.0.0.1"),
        "{told}"
    );
    for wrong in [
        "localhost",
        "localhost:0",
        "localhost:99999",
        ":25",
        "a b:25",
    ] {
        assert_eq!(fetch(&[wrong]).0, 64, "{wrong}");
    }
}
