//! The clients that people really use, against the gateway.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Stdio,
};

use super::harness::{
    gateway::{Gateway, basic, stdout},
    peers::{certificates, command, free_port, need, peers, run},
    upstream::Upstream,
};

struct Site {
    sink: Upstream,
    gateway: Gateway,
}

/// A plain listener, one with STARTTLS and a login, one with implicit TLS and a login.
fn site() -> Site {
    let sink = Upstream::start();
    let dir = tempfile::TempDir::new().unwrap();
    certificates(dir.path());
    let mut hash = command(Gateway::binary())
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hash.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = hash.wait_with_output().unwrap();
    let hash = stdout(&output).lines().last().unwrap().to_owned();
    let config = format!(
        "{}\n[[listener]]\nname = \"submission\"\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\nrequire_tls = true\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nauth = \"required\"\n\
         [[listener]]\nname = \"smtps\"\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nauth = \"required\"\n\
         [[user]]\nname = \"erp\"\npassword = '{hash}'\nsenders = [\"erp@corp.example\"]\n",
        basic(sink.address)
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    Site {
        sink,
        gateway: Gateway::start_in(dir),
    }
}

impl Site {
    fn port(&self, listener: &str) -> String {
        self.gateway.address(listener).port().to_string()
    }

    fn ca(&self) -> String {
        self.gateway.path("ca.pem").display().to_string()
    }

    /// Exactly this many have arrived, the last of them with the word.
    fn arrived(&self, count: usize, word: &str) {
        let mails = self.sink.wait(count);
        assert_eq!(mails.len(), count);
        assert!(
            mails.iter().any(|m| m.text().contains(word)),
            "{word}: {mails:?}"
        );
    }
}

#[test]
#[ignore = "needs swaks, which tests/run installs"]
fn swaks() {
    need("swaks");
    let site = site();
    let plain = [
        "--server",
        "127.0.0.1",
        "--from",
        "erp@corp.example",
        "--to",
        "x@corp.example",
    ];
    run(
        "swaks",
        &[
            &plain[..],
            &[
                "--port",
                &site.port("local"),
                "--header",
                "Subject: swaks-plain",
            ],
        ]
        .concat(),
    );
    site.arrived(1, "swaks-plain");
    let login = ["--auth-user", "erp", "--auth-password", "secret"];
    run(
        "swaks",
        &[
            &plain[..],
            &login[..],
            &[
                "--port",
                &site.port("submission"),
                "--tls",
                "--auth",
                "PLAIN",
                "--header",
                "Subject: swaks-tls",
            ],
        ]
        .concat(),
    );
    site.arrived(2, "swaks-tls");
    run(
        "swaks",
        &[
            &plain[..],
            &login[..],
            &[
                "--port",
                &site.port("smtps"),
                "--tls-on-connect",
                "--auth",
                "LOGIN",
                "--header",
                "Subject: swaks-tlsc",
            ],
        ]
        .concat(),
    );
    site.arrived(3, "swaks-tlsc");
    run(
        "swaks",
        &[
            &plain[..],
            &[
                "--port",
                &site.port("local"),
                "--pipeline",
                "--header",
                "Subject: swaks-pipeline",
            ],
        ]
        .concat(),
    );
    site.arrived(4, "swaks-pipeline");
    // A wrong password is refused, and so is another's sender.
    let wrong = command("swaks")
        .args(plain)
        .args([
            "--auth-user",
            "erp",
            "--auth-password",
            "wrong",
            "--port",
            &site.port("submission"),
            "--tls",
            "--auth",
            "PLAIN",
        ])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    assert!(
        String::from_utf8_lossy(&wrong.stdout).contains("535 5.7.8"),
        "{}",
        String::from_utf8_lossy(&wrong.stdout)
    );
    let other = command("swaks")
        .args([
            "--server",
            "127.0.0.1",
            "--from",
            "ceo@corp.example",
            "--to",
            "x@corp.example",
        ])
        .args(login)
        .args([
            "--port",
            &site.port("submission"),
            "--tls",
            "--auth",
            "PLAIN",
        ])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&other.stdout).contains("5.7.1"),
        "{}",
        String::from_utf8_lossy(&other.stdout)
    );
    assert_eq!(site.sink.count(), 4);
    assert!(
        !site.gateway.log().contains("secret"),
        "the password is not in the log"
    );
}

#[test]
#[ignore = "needs msmtp, which tests/run installs"]
fn msmtp() {
    need("msmtp");
    let site = site();
    let rc = site.gateway.path("msmtprc");
    fs::write(
        &rc,
        format!(
            "defaults\nhost 127.0.0.1\nfrom erp@corp.example\n\
             account plain\nport {}\n\
             account tls\nport {}\ntls on\ntls_starttls on\ntls_trust_file {ca}\nauth plain\nuser erp\npassword secret\n\
             account tlsc\nport {}\ntls on\ntls_starttls off\ntls_trust_file {ca}\nauth login\nuser erp\npassword secret\n",
            site.port("local"),
            site.port("submission"),
            site.port("smtps"),
            ca = site.ca()
        ),
    )
    .unwrap();
    run("chmod", &["600", rc.to_str().unwrap()]);
    for (n, account) in ["plain", "tls", "tlsc"].iter().enumerate() {
        let mut msmtp = command("msmtp")
            .args(["-C", rc.to_str().unwrap(), "-a", account, "x@corp.example"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        msmtp
            .stdin
            .take()
            .unwrap()
            .write_all(
                format!("Subject: msmtp-{account}\nFrom: erp@corp.example\n\n.hidden dot\n")
                    .as_bytes(),
            )
            .unwrap();
        let output = msmtp.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{account}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        site.arrived(n + 1, &format!("msmtp-{account}"));
    }
    assert!(
        site.sink
            .mails()
            .iter()
            .all(|m| m.text().ends_with("\r\n\r\n.hidden dot\r\n"))
    );
}

#[test]
#[ignore = "needs curl, which tests/run installs"]
fn curl() {
    need("curl");
    let site = site();
    let message = site.gateway.path("message.eml");
    fs::write(
        &message,
        "From: erp@corp.example\r\nSubject: from-curl\r\n\r\nbody\r\n",
    )
    .unwrap();
    let message = message.to_str().unwrap();
    let common = [
        "-sS",
        "--max-time",
        "30",
        "--mail-from",
        "erp@corp.example",
        "--mail-rcpt",
        "x@corp.example",
        "-T",
        message,
    ];
    run(
        "curl",
        &[
            &common[..],
            &[&format!("smtp://127.0.0.1:{}", site.port("local"))],
        ]
        .concat(),
    );
    site.arrived(1, "from-curl");
    let ca = site.ca();
    let login = ["--cacert", &ca, "--user", "erp:secret"];
    run(
        "curl",
        &[
            &common[..],
            &login[..],
            &[
                "--ssl-reqd",
                &format!("smtp://localhost:{}", site.port("submission")),
            ],
        ]
        .concat(),
    );
    run(
        "curl",
        &[
            &common[..],
            &login[..],
            &[&format!("smtps://localhost:{}", site.port("smtps"))],
        ]
        .concat(),
    );
    site.arrived(3, "from-curl");
}

#[test]
#[ignore = "needs python3, which tests/run installs"]
fn python_smtplib() {
    need("python3");
    let site = site();
    let script = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
plain, submission, smtps, ca = sys.argv[1:]
def message(subject):
    m = EmailMessage()
    m["From"] = "Erp <erp@corp.example>"; m["To"] = "x@corp.example"; m["Subject"] = subject
    m.set_content("text with umlauts: \u00e4\u00f6\u00fc\n.\n..\n")
    m.add_attachment(bytes(range(256)) * 400, maintype="application", subtype="octet-stream", filename="b.bin")
    return m
context = ssl.create_default_context(cafile=ca)
with smtplib.SMTP("127.0.0.1", int(plain), timeout=30) as s:
    s.send_message(message("smtplib-1"))
    s.send_message(message("smtplib-2"))
    refused = s.sendmail("erp@corp.example", ["x@corp.example", "v@victim.tld"], message("smtplib-3").as_bytes())
    assert list(refused) == ["v@victim.tld"] and refused["v@victim.tld"][0] == 550, refused
    try:
        s.sendmail("x@evil.tld", ["x@corp.example"], "Subject: no\n\nno")
    except smtplib.SMTPSenderRefused as e:
        assert e.smtp_code == 550, e
    else:
        raise SystemExit("an unlisted sender was accepted")
with smtplib.SMTP("localhost", int(submission), timeout=30) as s:
    try:
        s.login("erp", "secret")
    except smtplib.SMTPException:
        s.rset()
    else:
        raise SystemExit("login without TLS was accepted")
    s.starttls(context=context)
    s.login("erp", "secret")
    s.send_message(message("smtplib-4"))
with smtplib.SMTP_SSL("localhost", int(smtps), timeout=30, context=context) as s:
    s.login("erp", "secret")
    s.send_message(message("smtplib-5"))
"#;
    run(
        "python3",
        &[
            "-c",
            script,
            &site.port("local"),
            &site.port("submission"),
            &site.port("smtps"),
            &site.ca(),
        ],
    );
    let mails = site.sink.wait(5);
    assert_eq!(mails.len(), 5);
    for mail in &mails {
        assert_eq!(mail.to, ["x@corp.example"]);
    }
}

#[test]
#[ignore = "needs nodemailer, which tests/run installs"]
fn nodemailer() {
    let peers = peers();
    need("node");
    let site = site();
    let script = r#"
const nodemailer = require("nodemailer"), fs = require("fs");
const [plain, submission, smtps, ca] = process.argv.slice(1);
const tls = { ca: fs.readFileSync(ca) }, auth = { user: "erp", pass: "secret" };
const mail = (subject) => ({ from: '"Erp, the" <erp@corp.example>', to: "x@corp.example", bcc: "y@partner.example", subject, text: "t\n.\nt", html: "<p>h</p>",
  attachments: [{ filename: "\u00e4.txt", content: Buffer.alloc(300000, "a") }] });
(async () => {
  await nodemailer.createTransport({ host: "127.0.0.1", port: +plain, ignoreTLS: true, pool: true }).sendMail(mail("nodemailer-plain"));
  await nodemailer.createTransport({ host: "localhost", port: +submission, requireTLS: true, tls, auth }).sendMail(mail("nodemailer-tls"));
  await nodemailer.createTransport({ host: "localhost", port: +smtps, secure: true, tls, auth }).sendMail(mail("nodemailer-smtps"));
  process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
"#;
    let output = command("node")
        .env("NODE_PATH", peers.join("node_modules"))
        .args([
            "-e",
            script,
            &site.port("local"),
            &site.port("submission"),
            &site.port("smtps"),
            &site.ca(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mails = site.sink.wait(3);
    assert_eq!(mails.len(), 3);
    for mail in &mails {
        assert_eq!(mail.to, ["x@corp.example", "y@partner.example"]);
        assert!(
            !mail.text().contains("y@partner.example"),
            "a blind copy is seen: {}",
            mail.text()
        );
    }
}

#[test]
fn lettre() {
    use lettre::{
        Message, SmtpTransport, Transport as _, transport::smtp::authentication::Credentials,
    };
    let site = site();
    let mail = || {
        Message::builder()
            .from("Erp <erp@corp.example>".parse().unwrap())
            .to("x@corp.example".parse().unwrap())
            .subject("from-lettre")
            .body("b\r\n.\r\n".to_owned())
            .unwrap()
    };
    SmtpTransport::builder_dangerous("127.0.0.1")
        .port(site.gateway.address("local").port())
        .build()
        .send(&mail())
        .unwrap();
    let tls = lettre::transport::smtp::client::TlsParameters::builder("localhost".into())
        .add_root_certificate(
            lettre::transport::smtp::client::Certificate::from_pem(
                &fs::read(site.gateway.path("ca.pem")).unwrap(),
            )
            .unwrap(),
        )
        .build()
        .unwrap();
    SmtpTransport::builder_dangerous("localhost")
        .port(site.gateway.address("submission").port())
        .tls(lettre::transport::smtp::client::Tls::Required(tls))
        .credentials(Credentials::new("erp".into(), "secret".into()))
        .build()
        .send(&mail())
        .unwrap();
    site.arrived(2, "from-lettre");
}

/// `sendmail` as cron, PHP and their like call it, with the gateway's configuration; its exit status.
fn sendmail(gateway: &Gateway, args: &[&str], input: &[u8]) -> i32 {
    let mut child = command(Gateway::binary())
        .arg("sendmail")
        .args(["-c", "config.toml"])
        .args(args)
        .current_dir(gateway.dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait().unwrap().code().unwrap()
}

/// What a local program hands over, and what arrives of it: each is a message that was lost, cut or sent to somebody else once.
#[test]
fn what_local_programs_hand_to_sendmail() {
    let sink = Upstream::start();
    let port = free_port();
    let config = basic(sink.address).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let gateway = Gateway::start(&format!("default_domain = \"corp.example\"\n{config}"));
    let long = "Отдел технической поддержки";
    let me = ["-f", "a@corp.example"];
    for (n, (args, input, envelope, wanted)) in [
        // Progress output of a download, and a search by `find -print0`, in a cron job.
        (
            &[&me[..], &["b@corp.example"]].concat()[..],
            "Subject: s\n\n10%\r20%\rdone\none\0two\n",
            "a@corp.example b@corp.example",
            "\r\n\r\n10% 20% done\r\none two\r\n",
        ),
        // A CR in a field ends no field.
        (
            &[&me[..], &["-t"]].concat(),
            "To: b@corp.example\nSubject: s\rBcc: c@corp.example\n\nx\n",
            "a@corp.example b@corp.example",
            "\r\nSubject: s Bcc: c@corp.example\r\n",
        ),
        // The line ends of PHP on Windows, and cron of illumos.
        (
            &[&me[..], &["-t"]].concat(),
            ">From root Sat Nov 28 22:00:00 2026\r\r\nTo: b@corp.example\r\r\nSubject: s\r\r\n\r\r\nx\r\r\n.\r\r\nno\r\r\n",
            "a@corp.example b@corp.example",
            "\r\nSubject: s\r\n",
        ),
        (
            &[&me[..], &["-t"]].concat(),
            "Resent-To: b@corp.example\nResent-Bcc: c@corp.example\nFrom: y@corp.example\nTo: z@corp.example\n\nx\n",
            "a@corp.example b@corp.example c@corp.example",
            "\r\nTo: z@corp.example\r\n",
        ),
        (
            &[&me[..], &["-t"]].concat(),
            "To: b@corp.example; c@corp.example\n\nx\n",
            "a@corp.example b@corp.example c@corp.example",
            "",
        ),
        (
            &["-t"],
            "From: \"y@corp.example\" <a@corp.example>\nSubject: s\nTo: 'b@corp.example' <c@corp.example>\n\nx\n",
            "a@corp.example c@corp.example",
            "",
        ),
        (
            &["-f", "Root <root>", "b@corp.example"],
            "Subject: s\n\nx\n",
            "root@corp.example b@corp.example",
            "\r\nFrom: root@corp.example\r\n",
        ),
        (
            &[&me[..], &["-F", long, "b@corp.example"]].concat(),
            "Subject: s\n\nx\n",
            "a@corp.example b@corp.example",
            "\r\nFrom: =?utf-8?B?",
        ),
        (
            &[&me[..], &["b@corp.example"]].concat(),
            "   PID TTY\n     1 ?\n",
            "a@corp.example b@corp.example",
            "\r\n\r\n   PID TTY\r\n     1 ?\r\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(sendmail(&gateway, args, input.as_bytes()), 0, "{input}");
        let mail = sink.wait(n + 1).remove(n);
        let seen = [&[mail.from.clone()][..], &mail.to].concat().join(" ");
        assert_eq!(seen, envelope, "{input}");
        assert!(mail.text().contains(wanted), "{}", mail.text());
        if args.contains(&long) {
            let parsed = mail_parser::MessageParser::default()
                .parse(&mail.data)
                .unwrap();
            let name = parsed.from().and_then(|f| f.first()?.name.clone());
            assert_eq!(name.as_deref(), Some(long));
        }
    }
    // Neither -f nor From: the login name, completed.
    assert_eq!(
        sendmail(&gateway, &["b@corp.example"], b"Subject: s\n\nx\n"),
        0
    );
    assert!(sink.wait(10)[9].from.ends_with("@corp.example"));
    // A user who may not read the configuration says the bare name, and the gateway completes it.
    let mut child = command(Gateway::binary())
        .args(["sendmail", "-F", "Cron", "b@corp.example"])
        .env("POSTERN_CONFIG", "/nonexistent/config.toml")
        .env("POSTERN_SMTP", format!("127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"Subject: s\n\nx\n")
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mail = sink.wait(11).remove(10);
    let from = format!("\r\nFrom: \"Cron\" <{}>\r\n", mail.from);
    assert!(mail.from.ends_with("@corp.example"), "{}", mail.from);
    assert!(mail.text().contains(&from), "{}", mail.text());
    assert_eq!(sendmail(&gateway, &["-q"], b""), 0, "nothing to run");
    assert_eq!(sink.count(), 11);
}

/// Whether the first words of a client are there before our greeting is chance; what it is answered must not be.
#[test]
fn who_talks_before_the_greeting_gets_one_answer() {
    let sink = Upstream::start();
    let config = basic(sink.address);
    let answers = |gateway: &Gateway| -> Vec<String> {
        let mut seen: Vec<String> = (0..10)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(gateway.address("local")).unwrap();
                stream.write_all(b"EHLO x\r\nNOOP\r\nQUIT\r\n").unwrap();
                let mut said = String::new();
                stream.read_to_string(&mut said).unwrap();
                said.lines()
                    .map(|line| &line[..3])
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        seen.dedup();
        seen
    };
    let mut gateway = Gateway::start(&config);
    assert_eq!(answers(&gateway), ["220 250 250 250 250 250 250 250 221"]);
    gateway.kill();
    for (tolerance, expected) in [
        ("device", "220 250 250 250 250 250 250 250 221"),
        ("strict", "554"),
    ] {
        let client = format!(
            "[[client]]\nname = \"all\"\nnetworks = [\"127.0.0.0/8\"]\ntolerance = \"{tolerance}\"\n"
        );
        let gateway = Gateway::start(&format!("{config}{client}"));
        assert_eq!(answers(&gateway), [expected], "{tolerance}");
    }
}

/// Devices name the gateway in TLS (SNI) as they were told: by its address, or by a name that DNS would not have.
#[test]
#[ignore = "needs openssl, which tests/run installs"]
fn odd_server_names_in_tls() {
    need("openssl");
    let site = site();
    let talk = |name: &str| {
        let mut openssl = command("openssl")
            .args(["s_client", "-quiet", "-servername", name, "-connect"])
            .arg(format!("127.0.0.1:{}", site.port("smtps")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = openssl
            .stdin
            .take()
            .unwrap()
            .write_all(b"EHLO x\r\nQUIT\r\n");
        stdout_of_any(&openssl.wait_with_output().unwrap())
    };
    for name in ["10.0.0.1", "_odd_.name", "RELAY", "printer_2", "localhost"] {
        let said = talk(name);
        assert!(
            said.starts_with("220 ") && said.contains("\n221 "),
            "{name}: {said}"
        );
    }
    let before = site.gateway.log();
    assert!(
        !before.contains("SNI") && !before.contains("rustls"),
        "{before}"
    );
    // A name with a blank in it the library refuses: then the log says what to do.
    assert_eq!(talk("my relay"), "");
    let line = site.gateway.wait_for_log(&["tls failed"]);
    assert!(
        line.contains("give it the gateway's host name or address"),
        "{line}"
    );
    let log = site.gateway.log();
    assert!(
        !log.contains("Misbehaved") && !log.contains("/src/"),
        "{log}"
    );
}

fn stdout_of_any(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
