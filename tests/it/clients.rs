//! The clients that people really use, against the gateway.

use std::{fs, io::Write as _, process::Stdio};

use super::harness::{
    gateway::{Gateway, basic, stdout},
    peers::{certificates, command, has, peers_expected, run},
    sink::Sink,
};

struct Site {
    sink: Sink,
    gateway: Gateway,
}

/// A plain listener, one with STARTTLS and a login, one with implicit TLS and a login.
fn site() -> Site {
    let sink = Sink::start();
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
fn swaks() {
    if !has("swaks") {
        return;
    }
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
fn msmtp() {
    if !has("msmtp") {
        return;
    }
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
fn curl() {
    if !has("curl") {
        return;
    }
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
fn python_smtplib() {
    if !has("python3") {
        return;
    }
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
fn nodemailer() {
    let Some(peers) = peers_expected() else {
        eprintln!("LEFT OUT: nodemailer; `tests/run` installs it");
        return;
    };
    assert!(has("node"));
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
