//! Commands that make things: a certificate that devices trust, the demo and what is left of it, the systemd units.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use super::harness::{
    gateway::{Gateway, basic, stdout},
    peers::{free_port, need, run},
    upstream::Upstream,
};

#[test]
#[ignore = "needs curl, which tests/run installs"]
fn a_certificate_from_cert_is_trusted_by_a_client_that_knows_its_ca() {
    need("curl");
    let sink = Upstream::start();
    let dir = tempfile::TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let made = Command::new(Gateway::binary())
        .args([
            "cert",
            "--dir",
            &at("certs"),
            "--name",
            "localhost",
            "--ip",
            "127.0.0.1",
        ])
        .output()
        .unwrap();
    let text = stdout(&made);
    assert!(
        text.contains("[[listener]]") && text.contains("ca.pem"),
        "{text}"
    );
    for (file, mode) in [
        ("ca.key", 0o600),
        ("relay.key", 0o600),
        ("relay.pem", 0o644),
    ] {
        let found = fs::metadata(at(&format!("certs/{file}")))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    let again = Command::new(Gateway::binary())
        .args(["cert", "--dir", &at("certs"), "--name", "localhost"])
        .output()
        .unwrap();
    assert!(!again.status.success(), "nothing is overwritten unasked");

    let config = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntls = \"starttls\"\nrequire_tls = true\ncertificate = \"certs/relay.pem\"\nkey = \"certs/relay.key\"",
    );
    fs::write(dir.path().join("config.toml"), config).unwrap();
    fs::write(
        dir.path().join("m.eml"),
        "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    )
    .unwrap();
    let (ca, mail) = (at("certs/ca.pem"), at("m.eml"));
    let gateway = Gateway::start_in(dir);
    let port = gateway.address("local").port();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("smtp://{host}:{port}");
        run(
            "curl",
            &[
                "-sS",
                "--max-time",
                "30",
                "--ssl-reqd",
                "--cacert",
                &ca,
                "--mail-from",
                "a@corp.example",
                "--mail-rcpt",
                "x@corp.example",
                "-T",
                &mail,
                &url,
            ],
        );
    }
    sink.wait(2);
    // A certificate that is replaced on disk is taken without a restart; one that is broken is not.
    let before = fs::read(gateway.path("certs/relay.pem")).unwrap();
    fs::write(gateway.path("certs/relay.pem"), "not a certificate").unwrap();
    assert_eq!(gateway.cli(&["reload"]).status.code(), Some(78));
    fs::write(gateway.path("certs/relay.pem"), before).unwrap();
    stdout(&gateway.cli(&["reload"]));
    let status: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["status", "--json"]))).unwrap();
    assert!(status.to_string().contains("not_after"), "{status}");
}

#[test]
fn the_demo_shows_four_fates_and_leaves_nothing_behind() {
    let place = tempfile::TempDir::new().unwrap();
    let output = Command::new(Gateway::binary())
        .arg("demo")
        .env("TMPDIR", place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = stdout(&output);
    for words in [
        "delivered",
        "550 5.7.1",
        "deferred",
        "fallback",
        "All as it should be",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "something is left behind"
    );
}

#[test]
fn the_demo_that_stays_takes_mail_and_goes_with_ctrl_c() {
    let place = tempfile::TempDir::new().unwrap();
    let mut demo = Command::new(Gateway::binary())
        .args(["demo", "--stay"])
        .env("TMPDIR", place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = None;
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(rest) = line.trim().strip_prefix("swaks --server ") {
            address = rest.split(' ').next().map(str::to_owned);
        }
        if line.starts_with("the log:") {
            break;
        }
    }
    let mut client = super::harness::gateway::Client::connect(address.unwrap().parse().unwrap());
    assert!(client.reply().starts_with("220 "));
    client.expect("EHLO x", "250");
    let reply = client.mail(
        "erp@corp.example",
        &["you@corp.example"],
        "Subject: s\r\n\r\nb\r\n",
    );
    assert!(reply.starts_with("250 2.0.0 queued"), "{reply}");
    run("kill", &["-INT", &demo.id().to_string()]);
    let status = demo.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "something is left behind"
    );
}

#[test]
#[ignore = "needs systemd-analyze, which tests/run installs"]
fn the_units_are_hardened_and_without_unknown_keys() {
    need("systemd-analyze");
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/postern.service");
    run(
        "systemd-analyze",
        &[
            "security",
            "--offline=yes",
            "--threshold=20",
            "--no-pager",
            unit,
        ],
    );
    let dir = tempfile::TempDir::new().unwrap();
    for name in ["postern.service", "postern.socket"] {
        let text =
            fs::read_to_string(format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        // What it starts is not installed here.
        let text: String = text
            .lines()
            .map(|l| {
                if l.starts_with("ExecStart=") {
                    "ExecStart=/bin/true\n".to_owned()
                } else {
                    format!("{l}\n")
                }
            })
            .collect();
        fs::write(dir.path().join(name), text).unwrap();
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .arg(dir.path().join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("Unknown"), "{said}");
    }
}

/// Whoever does what the page says has a service that starts.
#[test]
fn the_pages_put_the_program_where_the_unit_starts_it() {
    let read =
        |name: &str| fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let unit = read("systemd/postern.service");
    let starts = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .and_then(|line| line.split(' ').next())
        .unwrap();
    for page in ["README.md", "systemd/README.md"] {
        let text = read(page);
        let line = text
            .lines()
            .find(|line| line.contains("install -m") && line.contains("release/postern "))
            .unwrap_or_else(|| panic!("{page} does not install the program"));
        let (_, to) = line.split_once("release/postern ").unwrap();
        let to = to.split_whitespace().next().unwrap();
        let to = if to.ends_with('/') {
            format!("{to}postern")
        } else {
            to.to_owned()
        };
        // The unit is a package's; the page changes its path.
        assert_eq!(to.replace("/usr/local/bin/", "/usr/bin/"), starts, "{page}");
        assert!(
            to.starts_with("/usr/local/bin/")
                && text.contains("sed 's|/usr/bin/|/usr/local/bin/|' ")
                && text.contains("postern.service > /etc/systemd/system/postern.service"),
            "{page}"
        );
        // Everything that the page installs is there, and everything that is there is installed.
        for file in fs::read_dir(format!("{}/systemd", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name.starts_with("postern.") {
                assert!(text.contains(&name), "{page}: {name}");
            }
        }
    }
    // Who it runs as, and where it keeps its queue, are made by the files beside it.
    let user = unit.lines().find_map(|l| l.strip_prefix("User=")).unwrap();
    assert!(read("systemd/postern.sysusers").contains(&format!("u {user} ")));
    assert!(unit.contains("StateDirectory=postern\n"));
    assert!(read("config.example.toml").contains("data_dir = \"/var/lib/postern\""));
}

#[test]
fn test_says_what_is_wrong_with_a_connector() {
    let sink = Upstream::scripted(|line| {
        line.starts_with("RCPT")
            .then(|| "550 5.1.1 no such user".to_owned())
    });
    let gateway = Gateway::start(&basic(sink.address));
    let refused = gateway.cli(&[
        "test",
        "up",
        "--from",
        "a@corp.example",
        "--to",
        "x@corp.example",
    ]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned()
        + &String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && text.contains("550 5.1.1 no such user"),
        "{text}"
    );
    let unlisted = gateway.cli(&[
        "test",
        "up",
        "--from",
        "a@corp.example",
        "--to",
        "v@victim.tld",
    ]);
    assert_eq!(unlisted.status.code(), Some(77));
    let unknown = gateway.cli(&["test", "pu", "--to", "x@corp.example"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && text.contains("up"), "{text}");
    assert_eq!(sink.count(), 0);
    drop(sink);
    // A port that nobody else gets meanwhile.
    let nobody = ([127, 0, 0, 1], free_port()).into();
    fs::write(gateway.config_path(), basic(nobody)).unwrap();
    let away = gateway.cli(&["check", "--connect"]);
    assert_eq!(away.status.code(), Some(69));
}

#[test]
fn explain_knows_tls_and_sizes() {
    let dir = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("l.pem"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("l.key"), made.signing_key.serialize_pem()).unwrap();
    let listener = "[[listener]]\nname = \"strict\"\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n\
                    require_tls = true\ncertificate = \"l.pem\"\nkey = \"l.key\"\n";
    let client = "[[client]]\nname = \"old\"\nnetworks = [\"10.0.0.0/8\"]\nhide_starttls = true\n";
    let config = basic(([127, 0, 0, 1], 25).into());
    let clients = "[[client]]\nname = \"here\"\nnetworks = [\"127.0.0.1\"]\n";
    fs::write(
        dir.path().join("config.toml"),
        format!("{config}\n{listener}\n{client}\n{clients}"),
    )
    .unwrap();
    let refused = "530 5.7.0 STARTTLS is required first";
    for (more, code, said) in [
        ("--listener strict", 0, "by STARTTLS"),
        ("--listener strict --no-tls", 77, refused),
        ("--listener strict --client 10.0.0.1", 77, refused),
        ("--no-tls", 0, "octets, limits.message_size"),
        ("--size 1MB", 0, "would be queued"),
        ("--size 1000000000", 77, "552 5.3.4 the message is larger"),
        ("--size much", 64, ""),
    ] {
        let explained = Command::new(Gateway::binary())
            .args([
                "explain",
                "--from",
                "a@corp.example",
                "--to",
                "x@corp.example",
            ])
            .args(more.split(' '))
            .current_dir(dir.path())
            .args(["-c", "config.toml"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert_eq!(explained.status.code(), Some(code), "{more}: {text}");
        assert!(text.contains(said), "{more}: {text}");
    }
}

#[test]
fn explain_says_what_the_session_says() {
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "name = \"all\"\n",
        "name = \"all\"\nrecipients = [\"corp.example\"]\n",
    ) + "\n[[rewrite]]\nsenders = [\"root@*\"]\nto = \"noreply@corp.example\"\n";
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    for (from, to) in [
        ("a@corp.example", "x@corp.example"),
        ("root@host.local", "x@corp.example"),
        ("a@evil.tld", "x@corp.example"),
        ("", "x@corp.example"),
        ("a@corp.example", "x@evil.tld"),
        ("a@corp.example", "x@partner.example"),
        ("a@corp.example", "v%w@corp.example"),
        ("a@corp.example", "x"),
        ("a@corp.example", ".x@corp.example"),
        ("a@corp.example", "\u{e4}@corp.example"),
    ] {
        client.expect("RSET", "250");
        let mut said = client.say(&format!("MAIL FROM:<{from}>"));
        if said.starts_with("250") {
            said = client.say(&format!("RCPT TO:<{to}>"));
        }
        let explained = gateway.cli(&["explain", "--from", from, "--to", to]);
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        if said.starts_with("250") {
            assert!(
                explained.status.success() && text.contains("up"),
                "{from} {to}: {text}"
            );
        } else {
            assert_eq!(explained.status.code(), Some(77), "{from} {to}: {text}");
            assert!(text.contains(&said), "{from} {to}: {said} -- {text}");
        }
    }
    for (field, leaves) in [
        ("A <a@corp.example>", "From: A <a@corp.example> leaves"),
        ("Cron <root@vm>", "From: Cron <noreply@corp.example> leaves"),
        ("Scanner", "From: Scanner <a@corp.example> leaves"),
        ("ceo@evil.tld", "550 5.7.1 From <ceo@evil.tld>"),
        ("ceo@evil.tld <a@corp.example>", "550 5.6.0 From"),
        ("Doe, Jane <a@corp.example>", "550 5.6.0 From"),
        ("<root>", "550 5.6.0 From"),
    ] {
        client.expect("RSET", "250");
        client.expect("MAIL FROM:<a@corp.example>", "250");
        client.expect("RCPT TO:<x@corp.example>", "250");
        client.expect("DATA", "354");
        let said = client.say(&format!("From: {field}\r\n\r\n."));
        let explained = gateway.cli(&[
            "explain",
            "--from",
            "a@corp.example",
            "--to",
            "x@corp.example",
            "--header-from",
            field,
        ]);
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert_eq!(
            explained.status.code(),
            Some(if said.starts_with("250") { 0 } else { 77 }),
            "{field}: {said} -- {text}"
        );
        assert!(text.contains(leaves), "{field}: {text}");
        assert!(
            said.starts_with("250") || text.contains(&said),
            "{field}: {said} -- {text}"
        );
    }
}
