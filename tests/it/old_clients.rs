//! Clients with old TLS, by OpenSSL, through Python and by itself, and by hellos written by hand: who is spoken to how, and in which
//! words the others are refused.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::harness::{
    gateway::{Gateway, basic, stdout},
    peers::need,
    time::wait,
    upstream::Upstream,
};

/// Sends a message in each way that it is given, a line each, and prints what was spoken, or why nothing was.
const DRIVER: &str = r#"
import socket, ssl, sys, warnings
warnings.simplefilter("ignore")
VERSIONS = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
def line(f):
    text = f.readline().decode()
    while text[3:4] == "-": text = f.readline().decode()
    return text
def say(f, text):
    f.write(text.encode() + b"\r\n"); f.flush()
    return line(f)
def one(source, mode, port, version, ciphers, proxy):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version != "any":
        context.minimum_version = context.maximum_version = VERSIONS[version]
        context.set_ciphers(ciphers + ":@SECLEVEL=0")
    sock = socket.create_connection(("127.0.0.1", int(port)), 40, (source, 0))
    if proxy != "-": sock.sendall(b"PROXY TCP4 %s 127.0.0.1 1 25\r\n" % proxy.encode())
    if mode == "starttls":
        f = sock.makefile("rwb")
        line(f); say(f, "EHLO old"); say(f, "STARTTLS")
    tls = context.wrap_socket(sock, server_hostname="relay.corp.example")
    f = tls.makefile("rwb")
    greeting = line(f) if mode != "starttls" else say(f, "EHLO old")
    if mode != "starttls": say(f, "EHLO old")
    say(f, "MAIL FROM:<a@corp.example>"); say(f, "RCPT TO:<b@corp.example>"); say(f, "DATA")
    body = "Subject: " + tls.version() + "\r\n\r\n" + "x" * 70 + ("\r\n" + "y" * 70) * 2000 + "\r\n."
    taken = say(f, body); say(f, "QUIT")
    return "%s %s %s %s" % (tls.version(), tls.cipher()[0], greeting[:3], taken[:3])
for text in sys.stdin:
    words = text.split()
    try: print(one(*words), flush=True)
    except (OSError, ValueError) as e: print("refused", type(e).__name__, flush=True)
"#;

struct World {
    gateway: Gateway,
    up: Upstream,
}

/// A gateway whose clients are addresses of this machine. `certs`: whether there are two certificates, or one with an ECDSA key.
fn world(has_rsa: bool, more: &str) -> World {
    let up = Upstream::start();
    let dir = tempfile::TempDir::new().unwrap();
    for kind in [
        &["--name", "relay.corp.example"][..],
        &["--name", "relay.corp.example", "--rsa"],
    ] {
        let made = Command::new(Gateway::binary())
            .args(["cert", "--ip", "127.0.0.1", "--dir", "certs"])
            .args(kind)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let old = if has_rsa {
        "old_certificate = \"certs/rsa.pem\"\nold_key = \"certs/rsa.key\"\n"
    } else {
        ""
    };
    let pair = format!("certificate = \"certs/relay.pem\"\nkey = \"certs/relay.key\"\n{old}");
    let client = |name: &str, at: u8, keys: &str| {
        format!(
            "[[client]]\nname = \"{name}\"\nnetworks = [\"127.0.0.{at}\"]\ntolerance = \"device\"\n{keys}\n"
        )
    };
    let clients = [
        client("modern", 1, ""),
        client("ten", 2, "min_tls = \"1.0\""),
        client("eleven", 3, "min_tls = \"1.1\""),
        client("twelve", 4, "old_ciphers = true"),
        client("thirteen", 5, "min_tls = \"1.3\""),
    ]
    .concat();
    let config = basic(up.address).replace(
        "address = \"127.0.0.1:0\"\n",
        &format!(
            "address = \"127.0.0.1:0\"\ntls = \"starttls\"\n{pair}\n[[listener]]\nname = \"implicit\"\naddress = \"127.0.0.1:0\"\n\
             tls = \"implicit\"\n{pair}proxy_protocol = [\"127.0.0.9\"]\n"
        ),
    );
    fs::write(
        dir.path().join("config.toml"),
        format!("{config}\n{clients}\n[log]\nlevel = \"debug\"\n{more}"),
    )
    .unwrap();
    World {
        gateway: Gateway::start_in(dir),
        up,
    }
}

impl World {
    fn port(&self, mode: &str) -> u16 {
        let listener = if mode == "implicit" { mode } else { "local" };
        self.gateway.address(listener).port()
    }

    /// What came of each of these: source, mode, version, ciphers, and whom a proxy names.
    fn drive(&self, all: &[(u8, &str, &str, &str, &str)]) -> Vec<String> {
        let lines: String = all
            .iter()
            .map(|(source, mode, version, ciphers, proxy)| {
                format!(
                    "127.0.0.{source} {mode} {} {version} {ciphers} {proxy}\n",
                    self.port(mode)
                )
            })
            .collect();
        let mut child = Command::new("python3")
            .args(["-c", DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Vec<String> = said.lines().map(str::to_owned).collect();
        assert_eq!(said.len(), all.len(), "{said:?}\n{}", self.gateway.log());
        said
    }

    /// How often the old library was given a connection.
    fn old(&self) -> usize {
        self.gateway.log().matches("event=\"old tls\"").count()
    }

    /// The log comes a moment after the answer.
    fn wait_for_old(&self, count: usize) {
        wait("the old library", || (self.old() == count).then_some(()));
    }

    fn connect(&self, source: u8, mode: &str) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from(([127, 0, 0, source], 0));
        socket.bind(&from.into()).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], self.port(mode)));
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(45)))
            .unwrap();
        stream
    }

    fn refusal(&self, words: &[&str]) -> String {
        let mut all = vec!["tls refused"];
        all.extend(words);
        self.gateway.wait_for_log(&all)
    }
}

/// Each version with each suite, in each way that TLS begins; a client that may not is refused and told of with the remedy.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn every_version_and_suite_in_its_network() {
    need("python3");
    let world = world(true, "");
    let of_10 = [
        "AES128-SHA",
        "AES256-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA",
    ];
    let of_12 = [
        "AES128-SHA256",
        "AES256-SHA256",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        // The key for everybody is another: only the old certificate fits them.
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ];
    let mut asked = Vec::new();
    for suite in of_10 {
        for mode in ["starttls", "implicit", "plain"] {
            for (source, versions) in [
                (2, &["1.0", "1.1", "1.2"][..]),
                (3, &["1.1", "1.2"]),
                (4, &["1.2"]),
            ] {
                asked.extend(versions.iter().map(|v| (source, mode, *v, suite, "-")));
            }
        }
    }
    for suite in of_12 {
        for source in [2, 3, 4] {
            asked.push((source, "starttls", "1.2", suite, "-"));
        }
    }
    let said = world.drive(&asked);
    for ((source, mode, version, suite, _), said) in asked.iter().zip(&said) {
        let shown = match *version {
            "1.0" => "TLSv1",
            "1.1" => "TLSv1.1",
            _ => "TLSv1.2",
        };
        let code = if *mode == "starttls" { "250" } else { "220" };
        assert_eq!(
            *said,
            format!("{shown} {suite} {code} 250"),
            "{source} {mode} {version} {suite}\n{}",
            world.gateway.log()
        );
    }
    world.wait_for_old(asked.len());
    assert_eq!(world.up.wait(asked.len()).len(), asked.len());
    // Beneath what each may.
    let before = world.old();
    let refused = [
        (1, "starttls", "1.0", "AES128-SHA", "-"),
        (1, "implicit", "1.1", "AES128-SHA", "-"),
        (1, "plain", "1.2", "AES128-GCM-SHA256", "-"),
        (3, "starttls", "1.0", "AES128-SHA", "-"),
        (4, "starttls", "1.1", "AES128-SHA", "-"),
        (5, "starttls", "1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "-"),
        (2, "starttls", "1.0", "DHE-RSA-AES128-SHA", "-"),
        (6, "implicit", "1.0", "AES128-SHA", "-"),
    ];
    for said in world.drive(&refused) {
        assert!(said.starts_with("refused"), "{said}");
    }
    for words in [
        [
            "client=modern ",
            "offers=\"TLS 1.0: AES128-SHA\" hint=\"min_tls = \\\"1.0\\\" for this client\"",
        ],
        [
            "client=modern ",
            "offers=\"TLS 1.1: AES128-SHA\" hint=\"min_tls = \\\"1.1\\\" for this client\"",
        ],
        [
            "client=modern ",
            "hint=\"old_ciphers = true for this client\"",
        ],
        [
            "client=eleven ",
            "hint=\"min_tls = \\\"1.0\\\" for this client\"",
        ],
        [
            "client=twelve ",
            "hint=\"min_tls = \\\"1.1\\\" for this client\"",
        ],
        [
            "client=thirteen ",
            "hint=\"min_tls = \\\"1.2\\\" for this client\"",
        ],
        [
            "client=ten ",
            "offers=\"TLS 1.0: DHE-RSA-AES128-SHA\" hint=\"nothing of it is spoken here",
        ],
        [
            "client=- ",
            "hint=\"min_tls = \\\"1.0\\\" in a [[client]] for its address\"",
        ],
    ] {
        world.refusal(&words);
    }
    assert_eq!(world.old(), before, "nobody else meets the old library");
}

/// A client that knows better gets better, whatever its network may; and a network that may nothing old is never spoken to by the
/// old library, by whatever it offers.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn attack_the_old_library_from_elsewhere() {
    need("python3");
    let world = world(true, "");
    let modern = "ECDHE-ECDSA-AES256-GCM-SHA384";
    let all: Vec<(u8, &str, &str, &str, &str)> = (1..=5)
        .flat_map(|source| {
            ["starttls", "implicit", "plain"].map(|mode| (source, mode, "any", "-", "-"))
        })
        .chain((1..=4).map(|source| (source, "implicit", "1.2", modern, "-")))
        // Whom the proxy names is the client: an old one, and one that is not.
        .chain([(9, "implicit", "any", "-", "127.0.0.2")])
        .collect();
    for (said, (source, _, version, _, _)) in world.drive(&all).iter().zip(&all) {
        let shown = if *version == "any" {
            "TLSv1.3"
        } else {
            "TLSv1.2"
        };
        assert!(said.starts_with(shown), "{source}: {said}");
    }
    assert_eq!(world.old(), 0);
    let behind = [
        (9, "implicit", "1.0", "AES128-SHA", "127.0.0.2"),
        (9, "implicit", "1.0", "AES128-SHA", "127.0.0.1"),
        (9, "implicit", "1.0", "AES128-SHA", "192.0.2.7"),
    ];
    let said = world.drive(&behind);
    assert!(said[0].starts_with("TLSv1 AES128-SHA"), "{said:?}");
    assert!(
        said[1].starts_with("refused") && said[2].starts_with("refused"),
        "{said:?}"
    );
    world.refusal(&["peer=192.0.2.7:1 "]);
    // A header of one who is no proxy is no hello, and a proxy without one has no client.
    let said = world.drive(&[
        (2, "implicit", "1.0", "AES128-SHA", "127.0.0.2"),
        (9, "implicit", "1.0", "AES128-SHA", "-"),
    ]);
    assert!(
        said.iter().all(|said| said.starts_with("refused")),
        "{said:?}"
    );
    world.wait_for_old(1);
}

/// What is counted, and who `status` and the devices say still needs it.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn who_needs_it_is_shown() {
    need("python3");
    let mut world = world(true, "");
    world.drive(&[
        (2, "starttls", "1.0", "AES128-SHA", "-"),
        (3, "implicit", "1.1", "AES128-SHA", "-"),
        (2, "starttls", "any", "-", "-"),
        (4, "starttls", "1.2", "AES128-SHA", "-"),
    ]);
    // What is known of them is written now and then, and at the end.
    world.gateway.terminate();
    let status = wait("the devices are written", || {
        let said = world.gateway.cli(&["status", "--json"]);
        let said: serde_json::Value = serde_json::from_str(&stdout_of(&said)).unwrap();
        let is_all = said["old_tls"].as_array().is_some_and(|old| old.len() == 2);
        is_all.then_some(said)
    });
    let old = status["old_tls"].as_array().unwrap();
    let of = |address: &str| {
        let found = old.iter().find(|one| one["address"] == address).unwrap();
        (found["tls"].clone(), found["client"].clone())
    };
    assert_eq!(of("127.0.0.2"), ("1.0".into(), "ten".into()));
    assert_eq!(of("127.0.0.3"), ("1.1".into(), "eleven".into()));
    let text = stdout_of(&world.gateway.cli(&["status"]));
    assert!(
        text.contains("old tls     127.0.0.2 (client ten) spoke TLS 1.0 at "),
        "{text}"
    );
    let explained = world.gateway.cli(&[
        "explain",
        "--from",
        "a@corp.example",
        "--to",
        "b@corp.example",
        "--client",
        "127.0.0.2",
    ]);
    let explained = stdout(&explained);
    assert!(
        explained.contains("TLS 1.0 and newer with client ten"),
        "{explained}"
    );
}

/// Standard output, whatever the exit status says of the rest.
fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// With an ECDSA key alone, old devices get what there is for it, and the others learn what is missing.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn one_certificate_with_an_ecdsa_key() {
    need("python3");
    let world = world(false, "");
    let said = world.drive(&[
        (2, "starttls", "1.0", "ECDHE-ECDSA-AES128-SHA", "-"),
        (4, "starttls", "1.2", "ECDHE-ECDSA-AES256-SHA384", "-"),
        (2, "starttls", "1.0", "AES128-SHA", "-"),
        (1, "starttls", "1.0", "AES128-SHA", "-"),
    ]);
    assert_eq!(said[0], "TLSv1 ECDHE-ECDSA-AES128-SHA 250 250");
    assert_eq!(said[1], "TLSv1.2 ECDHE-ECDSA-AES256-SHA384 250 250");
    world.refusal(&["client=ten ", "(postern cert --rsa)\""]);
    world.refusal(&[
        "client=modern ",
        "(postern cert --rsa), and min_tls = \\\"1.0\\\" for this client\"",
    ]);
    let check = stdout_of(&world.gateway.cli(&["check"]));
    assert!(
        check.contains("needs an RSA key") || {
            let check = world.gateway.cli(&["check"]);
            String::from_utf8_lossy(&check.stderr).contains("needs an RSA key")
        },
        "{check}"
    );
}

/// OpenSSL's own client, with a certificate that is checked against the CA of `postern cert --rsa`.
#[test]
#[ignore = "needs Python and OpenSSL, which tests/run installs"]
fn openssl_by_itself() {
    need("openssl");
    let world = world(true, "");
    for (version, source, shown) in [
        ("-tls1", 2, "TLSv1"),
        ("-tls1_1", 3, "TLSv1.1"),
        ("-tls1_2", 4, "TLSv1.2"),
    ] {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-starttls",
                "smtp",
                "-quiet",
                "-verify_return_error",
            ])
            .args(["-connect", &format!("127.0.0.1:{}", world.port("starttls"))])
            .args(["-bind", &format!("127.0.0.{source}:0"), version])
            .args([
                "-cipher",
                "AES128-SHA:@SECLEVEL=0",
                "-verify_ip",
                "127.0.0.1",
            ])
            .args([
                "-CAfile",
                &world.gateway.path("certs/ca-rsa.pem").display().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command with an R or a Q at its head is one of s_client's own without -quiet.
        input.write_all(b"NOOP\r\nQUIT\r\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = stdout_of(&output);
        assert!(
            said.contains("250 2.0.0") && said.contains("221 "),
            "{shown}: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    world.wait_for_old(3);
}

/// A hello of this version with these suites, and no extensions: as a printer of 2008 says it.
fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend((suites.len() as u16 * 2).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    message
}

fn record(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0x16, 3, 1];
    out.extend((message.len() as u16).to_be_bytes());
    out.extend(message);
    out
}

/// The same in the dress of SSL 2.0.
fn ancient(version: u16, suites: &[u16]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(version.to_be_bytes());
    out.extend((suites.len() as u16 * 3).to_be_bytes());
    out.extend([0, 0, 0, 16]);
    for suite in suites {
        out.push(0);
        out.extend(suite.to_be_bytes());
    }
    out.extend([9; 16]);
    let mut head = vec![0x80, out.len() as u8];
    head.extend(out);
    head
}

/// What the first record of the answer says: version and suite, or the number of an alert. `None`: the end.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Hello(u16, u16),
    Alert(u8),
    End,
}

fn answer(stream: &mut TcpStream) -> Answer {
    let mut header = [0; 5];
    if stream.read_exact(&mut header).is_err() {
        return Answer::End;
    }
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut body).unwrap();
    match header[0] {
        0x15 => Answer::Alert(body[1]),
        0x16 => {
            let version = u16::from_be_bytes([body[4], body[5]]);
            let at = 39 + usize::from(body[38]);
            Answer::Hello(version, u16::from_be_bytes([body[at], body[at + 1]]))
        }
        other => panic!("a record of type {other}"),
    }
}

/// Hellos that no library of today sends any more.
#[test]
fn hellos_of_long_ago() {
    let world = world(true, "");
    let ask = |source: u8, octets: &[u8]| {
        let mut stream = world.connect(source, "implicit");
        stream.write_all(octets).unwrap();
        answer(&mut stream)
    };
    // 3DES, which OpenSSL is built without.
    assert_eq!(
        ask(2, &record(&hello(0x0301, &[0x000a]))),
        Answer::Hello(0x0301, 0x000a)
    );
    assert_eq!(
        ask(2, &record(&hello(0x0301, &[0x0005, 0x002f]))),
        Answer::Hello(0x0301, 0x002f)
    );
    assert_eq!(
        ask(3, &record(&hello(0x0302, &[0x002f]))),
        Answer::Hello(0x0302, 0x002f)
    );
    assert_eq!(
        ask(4, &record(&hello(0x0303, &[0x003c]))),
        Answer::Hello(0x0303, 0x003c)
    );
    // In the dress of SSL 2.0; and on a plain port too.
    assert_eq!(
        ask(2, &ancient(0x0301, &[0x002f, 0x000a])),
        Answer::Hello(0x0301, 0x002f)
    );
    let mut plain = world.connect(2, "plain");
    plain.write_all(&ancient(0x0301, &[0x002f])).unwrap();
    assert_eq!(answer(&mut plain), Answer::Hello(0x0301, 0x002f));
    world.wait_for_old(6);
    // SSL 3.0 and 2.0 are spoken with nobody, nor is TLS 1.0 with others.
    for (source, octets, words) in [
        (2, record(&hello(0x0300, &[0x002f])), "SSL 3.0: AES128-SHA"),
        (2, ancient(0x0300, &[0x002f]), "SSL 3.0: AES128-SHA"),
        (2, ancient(0x0002, &[0x002f]), "SSL 2.0: AES128-SHA"),
        (1, ancient(0x0301, &[0x002f]), "TLS 1.0: AES128-SHA"),
        (
            1,
            record(&hello(0x0301, &[0x000a])),
            "TLS 1.0: DES-CBC3-SHA",
        ),
        (
            4,
            record(&hello(0x0303, &[0x000a])),
            "TLS 1.2: DES-CBC3-SHA",
        ),
    ] {
        let answer = ask(source, &octets);
        assert!(!matches!(answer, Answer::Hello(..)), "{words}: {answer:?}");
        world.refusal(&[words]);
    }
    assert_eq!(world.old(), 6);
    // A downgrade by somebody on the way is refused (RFC 7507 §3), if not by the alert that is for it.
    let fallback = ask(2, &record(&hello(0x0301, &[0x002f, 0x5600])));
    assert!(!matches!(fallback, Answer::Hello(..)), "{fallback:?}");
}

/// The hello of Windows 8.1 goes to the modern library with an ECDSA key, and to nobody without the right otherwise.
#[test]
fn windows_8_1_is_modern_where_it_can_be() {
    let suites = [
        0xc028, 0xc027, 0xc014, 0xc013, 0x009f, 0x009e, 0x009d, 0x009c, 0x003d, 0x003c, 0x0035,
        0x002f, 0xc02c, 0xc02b, 0xc024, 0xc023, 0xc00a, 0xc009, 0x006a, 0x0040, 0x0038, 0x0032,
        0x000a, 0x0013,
    ];
    let mut message = hello(0x0303, &suites);
    let extensions: &[u8] = &[
        0, 10, 0, 6, 0, 4, 0, 23, 0, 24, 0, 11, 0, 2, 1, 0, 0, 13, 0, 16, 0, 14, 4, 1, 5, 1, 2, 1,
        4, 3, 5, 3, 2, 3, 2, 2, 0, 23, 0, 0, 0xff, 1, 0, 1, 0,
    ];
    message.extend((extensions.len() as u16).to_be_bytes());
    message.extend(extensions);
    let length = (message.len() - 4) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let octets = record(&message);
    let world = world(true, "");
    for source in [1, 2, 4] {
        let mut stream = world.connect(source, "implicit");
        stream.write_all(&octets).unwrap();
        let Answer::Hello(0x0303, suite) = answer(&mut stream) else {
            panic!("{}", world.gateway.log());
        };
        assert!([0xc02b, 0xc02c].contains(&suite), "{suite:04x}");
    }
    assert_eq!(world.old(), 0);
}

/// An octet a segment, in records of one octet each, and with GREASE: the same hello.
#[test]
fn a_hello_in_pieces() {
    let world = world(true, "");
    let message = hello(0x0301, &[0x1a1a, 0x002f]);
    let pieces: Vec<u8> = message.iter().flat_map(|octet| record(&[*octet])).collect();
    for octets in [record(&message), pieces] {
        let mut stream = world.connect(2, "implicit");
        stream.set_nodelay(true).unwrap();
        for octet in &octets {
            stream.write_all(&[*octet]).unwrap();
        }
        assert_eq!(answer(&mut stream), Answer::Hello(0x0301, 0x002f));
    }
    world.wait_for_old(2);
}

/// A hello that has no end is given up at 16 KiB, and one that does not come after 10 s; whoever goes in its midst is no news.
#[test]
fn attack_hellos_without_an_end() {
    let world = world(true, "");
    let mut slow = world.connect(2, "implicit");
    slow.write_all(&record(&hello(0x0301, &[0x002f]))[..20])
        .unwrap();
    let mut silent = world.connect(2, "implicit");
    let mut long = world.connect(2, "implicit");
    let message = hello(0x0303, &[0x002f; 8170]);
    for piece in message.chunks(512) {
        if long.write_all(&record(piece)).is_err() {
            break;
        }
    }
    assert_eq!(answer(&mut long), Answer::End);
    world
        .gateway
        .wait_for_log(&["tls failed", "its hello has no end within 16 KiB"]);
    let mut gone = world.connect(2, "implicit");
    gone.write_all(&[0x16, 3, 1]).unwrap();
    gone.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut gone), Answer::End);
    // Well before the 30 s of a handshake.
    let began = std::time::Instant::now();
    assert_eq!(
        (answer(&mut slow), answer(&mut silent)),
        (Answer::End, Answer::End)
    );
    assert!(began.elapsed() < Duration::from_secs(15));
    world.gateway.wait_for_log(&["tls failed", "timed out"]);
    // Rubbish is answered at once, by whoever knows the words.
    let mut rubbish = world.connect(2, "implicit");
    rubbish.write_all(b"EHLO printer\r\n").unwrap();
    assert!(!matches!(answer(&mut rubbish), Answer::Hello(..)));
    assert_eq!(world.old(), 0);
}

/// What is not refused, and probably not meant: no key for it, and passwords over it.
#[test]
fn what_is_warned_of() {
    let dir = tempfile::TempDir::new().unwrap();
    for more in [&[][..], &["--rsa"]] {
        let made = Command::new(Gateway::binary())
            .args(["cert", "--ip", "127.0.0.1", "--dir", "certs"])
            .args(more)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let mut hash = Command::new(Gateway::binary())
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hash.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let hash = hash.wait_with_output().unwrap().stdout;
    let hash = String::from_utf8(hash).unwrap();
    let user = format!(
        "[[user]]\nname = \"erp\"\npassword = \"{}\"\n",
        hash.trim().lines().last().unwrap()
    );
    let rsa = "old_certificate = \"certs/rsa.pem\"\nold_key = \"certs/rsa.key\"\n";
    let no_key = "TLS 1.0 needs an RSA key, for nearly every device, and no listener has one\n";
    let passwords = "passwords travel under TLS 1.0 from 10.20.3.0/24, 10.20.4.0/24\n";
    for (old, auth, expected) in [
        ("", "", vec![no_key]),
        (rsa, "", vec![]),
        ("", "auth = \"optional\"\n", vec![no_key, passwords]),
        (rsa, "auth = \"optional\"\n", vec![passwords]),
    ] {
        let users = if auth.is_empty() { "" } else { &user };
        let config = basic(([127, 0, 0, 1], 25).into()).replace(
            "address = \"127.0.0.1:0\"\n",
            &format!(
                "address = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"certs/relay.pem\"\nkey = \"certs/relay.key\"\n{old}{auth}\n\
                 [[client]]\nname = \"old\"\nnetworks = [\"10.20.3.0/24\", \"10.20.4.0/24\"]\nmin_tls = \"1.0\"\n{users}"
            ),
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let said = Command::new(Gateway::binary())
            .args(["check", "-c", "config.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        let said = String::from_utf8(said.stderr).unwrap();
        for words in [no_key, passwords] {
            assert_eq!(said.contains(words), expected.contains(&words), "{said}");
        }
        if expected.contains(&no_key) {
            assert!(
                said.contains("`postern cert --rsa` makes a certificate with one"),
                "{said}"
            );
        }
        if expected.contains(&passwords) {
            assert!(
                said.contains("give these devices users of their own"),
                "{said}"
            );
        }
    }
}
