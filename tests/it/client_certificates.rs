//! Clients that show certificates, made by OpenSSL and shown by Python's ssl: who is logged in, who is not, and who does not get in at all.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::harness::{
    gateway::{Gateway, basic, stdout},
    peers::{need, run},
    time::wait,
    upstream::Upstream,
};

/// Takes a line for each connection: mode, port, version, certificate and key (or `-`), sender, and an identity for AUTH EXTERNAL (`-`: not
/// said, `=`: empty). Prints the mechanisms of EHLO, the answers to AUTH and MAIL, and to the message.
const DRIVER: &str = r#"
import base64, socket, ssl, sys, warnings
warnings.simplefilter("ignore")
VERSIONS = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
def lines(f):
    text = f.readline().decode()
    if not text: raise OSError("end")
    found = [text.strip()]
    while text[3:4] == "-":
        text = f.readline().decode(); found.append(text.strip())
    return found
def say(f, text):
    f.write(text.encode() + b"\r\n"); f.flush()
    return lines(f)
def one(mode, port, version, cert, sender, identity):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    if cert != "-": context.load_cert_chain(cert + ".crt", cert + ".key")
    sock = socket.create_connection(("127.0.0.1", int(port)), 30)
    if mode == "starttls":
        f = sock.makefile("rwb")
        lines(f); say(f, "EHLO device"); say(f, "STARTTLS")
    tls = context.wrap_socket(sock, server_hostname="relay.corp.example")
    f = tls.makefile("rwb")
    if mode != "starttls": lines(f)
    offered = [line[9:] for line in say(f, "EHLO device") if line[4:8] == "AUTH"]
    auth = "-"
    if identity != "-":
        text = identity if identity == "=" else base64.b64encode(identity.encode()).decode()
        auth = say(f, "AUTH EXTERNAL " + text)[-1][:9]
    mail = say(f, "MAIL FROM:<%s>" % sender)[-1][:9]
    data = "-"
    if mail[0] == "2":
        say(f, "RCPT TO:<b@corp.example>"); say(f, "DATA")
        data = say(f, "Subject: s\r\n\r\nx\r\n.")[-1][:9]
    say(f, "QUIT")
    return "%s|%s|%s|%s" % (",".join(offered), auth, mail.strip(), data.strip())
for text in sys.stdin:
    try: print(one(*text.split()), flush=True)
    except (OSError, ValueError): print("refused", flush=True)
"#;

struct Driver {
    child: Child,
    say: ChildStdin,
    heard: BufReader<ChildStdout>,
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            say: child.stdin.take().unwrap(),
            heard: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.say, "{words}").unwrap();
        let mut line = String::new();
        self.heard.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that asks for certificates, and the authority that issues them.
struct World {
    gateway: Gateway,
    up: Upstream,
    driver: Driver,
}

const CLIENT: &str = "extendedKeyUsage=clientAuth";

/// An authority in a directory of OpenSSL's own making.
fn authority(dir: &std::path::Path, name: &str) {
    let at = |file: &str| dir.join(file).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &at(&format!("{name}.key")),
            "-out",
            &at(&format!("{name}.crt")),
            "-subj",
            &format!("/CN={name}"),
            "-days",
            "30",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ],
    );
    fs::write(dir.join(format!("{name}.index")), "").unwrap();
    fs::write(
        dir.join(format!("{name}.index.attr")),
        "unique_subject = no\n",
    )
    .unwrap();
    fs::write(dir.join(format!("{name}.serial")), "1000\n").unwrap();
    fs::write(dir.join(format!("{name}.number")), "01\n").unwrap();
    fs::write(
        dir.join(format!("{name}.cnf")),
        format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={}\nserial={}\nnew_certs_dir={}\ndefault_md=sha256\npolicy=any\ncrlnumber={}\ncrl_extensions=list\ndefault_crl_days=30\n[list]\nauthorityKeyIdentifier=keyid\n[any]\ncommonName=optional\n",
            at(&format!("{name}.index")),
            at(&format!("{name}.serial")),
            dir.display(),
            at(&format!("{name}.number"))
        ),
    )
    .unwrap();
}

/// A certificate by that authority; `days` is when it ends.
fn issue(dir: &std::path::Path, by: &str, name: &str, subject: &str, extensions: &str, days: &str) {
    let at = |file: String| dir.join(file).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &at(format!("{name}.key")),
            "-out",
            &at(format!("{name}.csr")),
            "-subj",
            subject,
        ],
    );
    fs::write(
        dir.join(format!("{name}.ext")),
        format!("basicConstraints=CA:FALSE\n{extensions}\n"),
    )
    .unwrap();
    let mut args = vec!["ca".to_owned(), "-batch".to_owned(), "-notext".to_owned()];
    for (flag, file) in [
        ("-config", format!("{by}.cnf")),
        ("-cert", format!("{by}.crt")),
        ("-keyfile", format!("{by}.key")),
        ("-in", format!("{name}.csr")),
        ("-out", format!("{name}.crt")),
        ("-extfile", format!("{name}.ext")),
    ] {
        args.extend([flag.to_owned(), at(file)]);
    }
    args.extend([
        "-startdate".to_owned(),
        "20240101000000Z".to_owned(),
        "-enddate".to_owned(),
        days.to_owned(),
    ]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run("openssl", &args);
}

fn revoke(dir: &std::path::Path, by: &str, name: Option<&str>, list: &str) {
    let at = |file: String| dir.join(file).display().to_string();
    let (cnf, crt, key) = (
        at(format!("{by}.cnf")),
        at(format!("{by}.crt")),
        at(format!("{by}.key")),
    );
    let base = ["ca", "-config", &cnf, "-cert", &crt, "-keyfile", &key];
    if let Some(name) = name {
        run(
            "openssl",
            &[&base[..], &["-revoke", &at(format!("{name}.crt"))]].concat(),
        );
    }
    run(
        "openssl",
        &[&base[..], &["-gencrl", "-out", &at(list.to_owned())]].concat(),
    );
}

const LATER: &str = "20491231235959Z";

impl World {
    fn start() -> Self {
        need("python3");
        need("openssl");
        let up = Upstream::start();
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path();
        let made = Command::new(Gateway::binary())
            .args([
                "cert",
                "--name",
                "relay.corp.example",
                "--dir",
                "certs",
                "--rsa",
            ])
            .current_dir(path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        authority(path, "devices");
        authority(path, "others");
        for (name, subject, extensions, end) in [
            (
                "erp",
                "/CN=anything",
                "subjectAltName=DNS:ERP.corp.example",
                LATER,
            ),
            (
                "two",
                "/CN=two",
                "subjectAltName=DNS:x.example,DNS:erp.corp.example,email:x@corp.example",
                LATER,
            ),
            (
                "mail",
                "/CN=mail",
                "subjectAltName=email:Scan@corp.example",
                LATER,
            ),
            ("hall", "/CN=Hall 3", "", LATER),
            (
                "both",
                "/CN=Hall 3",
                "subjectAltName=DNS:erp.corp.example",
                LATER,
            ),
            (
                "nobody",
                "/CN=nobody",
                "subjectAltName=DNS:nobody.example",
                LATER,
            ),
            (
                "expired",
                "/CN=x",
                "subjectAltName=DNS:erp.corp.example",
                "20250101000000Z",
            ),
            (
                "revoked",
                "/CN=x",
                "subjectAltName=DNS:erp.corp.example",
                LATER,
            ),
        ] {
            let all = format!("{CLIENT}\n{extensions}");
            issue(path, "devices", name, subject, &all, end);
        }
        issue(
            path,
            "devices",
            "server",
            "/CN=x",
            "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:erp.corp.example",
            LATER,
        );
        issue(
            path,
            "devices",
            "plain",
            "/CN=x",
            "subjectAltName=DNS:erp.corp.example",
            LATER,
        );
        issue(
            path,
            "others",
            "foreign",
            "/CN=x",
            &format!("{CLIENT}\nsubjectAltName=DNS:erp.corp.example"),
            LATER,
        );
        issue(path, "devices", "printed", "/CN=x", CLIENT, LATER);
        revoke(path, "devices", Some("revoked"), "devices.crl");
        let print = run(
            "openssl",
            &[
                "x509",
                "-in",
                &path.join("printed.crt").display().to_string(),
                "-noout",
                "-fingerprint",
                "-sha256",
            ],
        );
        let (_, print) = print.trim().split_once('=').unwrap();
        let pair = "certificate = \"certs/rsa.pem\"\nkey = \"certs/rsa.key\"\nclient_ca = \"devices.crt\"\nclient_crl = \"devices.crl\"\n";
        let listener = |name: &str, tls: &str, word: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ntls = \"{tls}\"\n{pair}client_certificates = \"{word}\"\n"
            )
        };
        let more = [
            listener("optional", "starttls", "optional"),
            listener("optional-implicit", "implicit", "optional"),
            listener("required", "starttls", "required"),
            listener("required-implicit", "implicit", "required"),
        ]
        .concat();
        let config = format!(
            "{}{more}\n[[client]]\nname = \"elsewhere\"\nnetworks = [\"127.0.0.77\"]\nmin_tls = \"1.0\"\n\n\
             [[client]]\nname = \"here\"\nnetworks = [\"127.0.0.1\"]\nrequire_auth = true\nmin_tls = \"1.1\"\n\n\
             [[user]]\nname = \"erp\"\ncertificate = [\"dns:erp.corp.example\"]\nsenders = [\"erp@corp.example\"]\n\n\
             [[user]]\nname = \"scan\"\ncertificate = [\"email:scan@corp.example\", \"cn:hall 3\", \"sha256:{print}\"]\nsenders = [\"scan@corp.example\"]\n\n\
             [log]\nlevel = \"debug\"\n",
            basic(up.address)
        );
        fs::write(path.join("config.toml"), config).unwrap();
        Self {
            gateway: Gateway::start_in(dir),
            up,
            driver: Driver::start(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.gateway.dir.path().join(name)
    }

    /// By that listener, in that version.
    fn ask(
        &mut self,
        listener: &str,
        version: &str,
        certificate: &str,
        sender: &str,
        identity: &str,
    ) -> String {
        let mode = if listener.ends_with("implicit") {
            "implicit"
        } else {
            "starttls"
        };
        let port = self.gateway.address(listener).port();
        let certificate = match certificate {
            "-" => "-".to_owned(),
            name => self.file(name).display().to_string(),
        };
        self.driver.ask(&format!(
            "{mode} {port} {version} {certificate} {sender} {identity}"
        ))
    }
}

const LISTENERS: [&str; 4] = [
    "optional",
    "optional-implicit",
    "required",
    "required-implicit",
];

/// Every certificate, at each listener, in both versions.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn a_certificate_that_is_one_users_logs_in() {
    let mut world = World::start();
    let (erp, scan) = ("erp@corp.example", "scan@corp.example");
    for listener in LISTENERS {
        for version in ["1.2", "1.3"] {
            for (certificate, sender, identity, expected) in [
                ("erp", erp, "-", "EXTERNAL|-|250 2.1.0|250 2.0.0"),
                ("erp", erp, "=", "EXTERNAL|235 2.7.0|250 2.1.0|250 2.0.0"),
                ("erp", erp, "erp", "EXTERNAL|235 2.7.0|250 2.1.0|250 2.0.0"),
                ("erp", erp, "scan", "EXTERNAL|535 5.7.8|250 2.1.0|250 2.0.0"),
                // The user's lists hold.
                ("erp", scan, "-", "EXTERNAL|-|553 5.7.1|-"),
                ("two", erp, "-", "EXTERNAL|-|250 2.1.0|250 2.0.0"),
                ("plain", erp, "-", "EXTERNAL|-|250 2.1.0|250 2.0.0"),
                ("mail", scan, "-", "EXTERNAL|-|250 2.1.0|250 2.0.0"),
                ("hall", scan, "-", "EXTERNAL|-|250 2.1.0|250 2.0.0"),
                (
                    "printed",
                    scan,
                    "=",
                    "EXTERNAL|235 2.7.0|250 2.1.0|250 2.0.0",
                ),
                // It verifies, and is no login.
                ("both", erp, "=", "|535 5.7.8|530 5.7.0|-"),
                ("nobody", erp, "-", "|-|530 5.7.0|-"),
            ] {
                let found = world.ask(listener, version, certificate, sender, identity);
                assert_eq!(
                    found,
                    expected,
                    "{listener} {version} {certificate} {sender} {identity}\n{}",
                    world.gateway.log()
                );
            }
        }
    }
    world
        .gateway
        .wait_for_log(&["client certificate", "it fits the users erp and scan"]);
    let sent = world.up.wait(1);
    assert!(
        sent[0].text().contains("with ESMTPSA id"),
        "{}",
        sent[0].text()
    );
    let _ = (&world.up, stdout);
}

/// What does not verify counts for nothing where it is optional, and ends the handshake where it is required; so does having none.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn attack_a_certificate_that_does_not_verify() {
    let mut world = World::start();
    for (certificate, words) in [
        ("expired", "expired on 2025-01-01"),
        ("revoked", "has been revoked"),
        ("foreign", "from no authority in client_ca"),
        ("server", "not made for clients"),
        ("-", "showed no certificate"),
    ] {
        for version in ["1.2", "1.3"] {
            for listener in LISTENERS {
                let found = world.ask(listener, version, certificate, "erp@corp.example", "=");
                let expected = if listener.starts_with("required") {
                    "refused"
                } else {
                    "|535 5.7.8|530 5.7.0|-"
                };
                assert_eq!(
                    found,
                    expected,
                    "{listener} {version} {certificate}\n{}",
                    world.gateway.log()
                );
            }
        }
        let _ = words;
    }
}

/// The reason stands in the log. (A gateway each: one address is told of once in a while.)
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn why_a_certificate_is_no_login_is_said() {
    let mut world = World::start();
    for (certificate, words) in [
        ("expired", "expired on 2025-01-01"),
        ("revoked", "has been revoked"),
        ("foreign", "from no authority in client_ca"),
        ("server", "not made for clients"),
        ("nobody", "dns:nobody.example"),
        ("-", "showed no certificate"),
    ] {
        let _ = world.gateway.terminate();
        world.gateway.restart();
        let found = world.ask(
            "required-implicit",
            "1.3",
            certificate,
            "erp@corp.example",
            "-",
        );
        assert!(found == "refused" || certificate == "nobody", "{found}");
        world.gateway.wait_for_log(&[words]);
        if certificate == "-" {
            continue;
        }
        let _ = world.gateway.terminate();
        world.gateway.restart();
        let found = world.ask("optional", "1.2", certificate, "erp@corp.example", "-");
        assert_eq!(found, "|-|530 5.7.0|-");
        world.gateway.wait_for_log(&["client certificate", words]);
    }
}

/// Old TLS shows none: it is not asked where it may do without, and refused where it may not.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn old_tls_shows_no_certificate() {
    let mut world = World::start();
    for listener in LISTENERS {
        let found = world.ask(listener, "1.1", "erp", "erp@corp.example", "-");
        if listener.starts_with("required") {
            assert_eq!(found, "refused");
        } else {
            assert_eq!(found, "|-|530 5.7.0|-", "{}", world.gateway.log());
        }
    }
    world
        .gateway
        .wait_for_log(&["tls refused", "clients of old TLS show none"]);
}

/// The files are read again at a reload; a list that cannot be read leaves the one before in force, and says so.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn files_are_read_again() {
    let mut world = World::start();
    let erp = "erp@corp.example";
    let good = "EXTERNAL|-|250 2.1.0|250 2.0.0";
    assert_eq!(world.ask("required", "1.3", "erp", erp, "-"), good);
    // Rubbish: nothing changes, and who was revoked still is.
    let list = fs::read(world.file("devices.crl")).unwrap();
    fs::write(world.file("devices.crl"), "rubbish").unwrap();
    world.gateway.hang_up();
    world.gateway.wait_for_log(&["devices.crl"]);
    assert_eq!(world.ask("required", "1.3", "erp", erp, "-"), good);
    assert_eq!(world.ask("required", "1.3", "revoked", erp, "-"), "refused");
    fs::write(world.file("devices.crl"), &list).unwrap();
    // Another list, with one more on it.
    revoke(
        world.gateway.dir.path(),
        "devices",
        Some("erp"),
        "devices.crl",
    );
    world.gateway.hang_up();
    wait("the new list", || {
        (world.ask("required", "1.3", "erp", erp, "-") == "refused").then_some(())
    });
    assert_eq!(world.ask("required", "1.2", "two", erp, "-"), good);
    // Another authority beside the first.
    let both = [
        fs::read(world.file("devices.crt")).unwrap(),
        fs::read(world.file("others.crt")).unwrap(),
    ]
    .concat();
    assert_eq!(world.ask("required", "1.3", "foreign", erp, "-"), "refused");
    fs::write(world.file("devices.crt.new"), both).unwrap();
    fs::rename(world.file("devices.crt.new"), world.file("devices.crt")).unwrap();
    world.gateway.hang_up();
    // Of the other one there is no list: it has revoked nothing.
    wait("the new authority", || {
        (world.ask("required", "1.3", "foreign", erp, "-") == good).then_some(())
    });
    // A reload that removes the user.
    let text = fs::read_to_string(world.gateway.config_path()).unwrap();
    let changed = text.replace("dns:erp.corp.example", "dns:new.corp.example");
    fs::write(world.gateway.config_path(), changed).unwrap();
    world.gateway.hang_up();
    wait("the new user", || {
        (world.ask("required", "1.3", "two", erp, "-") == "|-|530 5.7.0|-").then_some(())
    });
}

/// What the commands say of it.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn commands_know_of_client_certificates() {
    let world = World::start();
    let said = stdout(&world.gateway.cli(&[
        "explain",
        "--from",
        "erp@corp.example",
        "--to",
        "b@corp.example",
        "--user",
        "erp",
        "--client",
        "127.0.0.1",
        "--listener",
        "optional",
    ]));
    assert!(
        said.contains("logged in as [[user]] erp by a certificate")
            && said.contains("client certificates optional"),
        "{said}"
    );
    // Who has none does not get through the handshake, nor past it in the clear.
    for (listener, more, words) in [
        ("required-implicit", &[][..], "the handshake ends"),
        ("required", &[], "the handshake ends"),
        ("required", &["--no-tls"], "530 5.7.0"),
    ] {
        let asked = [
            "explain",
            "--from",
            "app@corp.example",
            "--to",
            "b@corp.example",
            "--client",
            "127.0.0.1",
            "--listener",
            listener,
        ];
        let said = world.gateway.cli(&[&asked[..], more].concat());
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            said.contains("refused") && said.contains(words),
            "{listener}: {said}"
        );
    }
    for command in ["status", "credentials"] {
        let said = stdout(&world.gateway.cli(&[command, "--json"]));
        assert!(
            said.contains("\"client_ca\"") && said.contains("\"client_crl\""),
            "{command}: {said}"
        );
    }
    let said = world.gateway.cli(&["check"]);
    assert!(said.status.success(), "{said:?}");
    // A list whose time is over is still used, and told.
    let dir = world.gateway.dir.path();
    let at = |file: &str| dir.join(file).display().to_string();
    run(
        "openssl",
        &[
            "ca",
            "-config",
            &at("devices.cnf"),
            "-cert",
            &at("devices.crt"),
            "-keyfile",
            &at("devices.key"),
            "-gencrl",
            "-crl_lastupdate",
            "20250101000000Z",
            "-crl_nextupdate",
            "20250201000000Z",
            "-out",
            &at("devices.crl"),
        ],
    );
    let said = world.gateway.cli(&["check"]);
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.status.success() && told.contains("followed by another on 2025-02-01"),
        "{told}"
    );
}
