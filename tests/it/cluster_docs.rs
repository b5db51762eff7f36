//! What `docs/cluster.md` says to write can be written, and does what it says there: HAProxy before two gateways, the sections of the
//! file, and what the administrator of the database asks.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use postern::{
    config::{self, Secrets},
    queue::postgres::PostgresStore,
};

use crate::harness::{
    client::{Client, queued_id},
    gateway::{Gateway, basic, wait},
    peers::{command, free_port, need},
    postgres::Postgres,
    upstream::Upstream,
};

/// The blocks of that language in the page.
fn documented(language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md");
    let page = fs::read_to_string(page).unwrap();
    let begin = format!("```{language}\n");
    let blocks = page.split(&begin).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its own check finds both, mail comes by it from who sent it, and goes to the other when one has gone.
#[test]
#[ignore = "needs HAProxy, which tests/run installs"]
fn haproxy_as_the_page_has_it() {
    need("haproxy");
    let sink = Upstream::start();
    let proxied = documented("toml")
        .iter()
        .find_map(|block| {
            let line = block
                .lines()
                .find(|line| line.starts_with("proxy_protocol"))?;
            Some(line.replace("10.20.0.10", "127.0.0.1"))
        })
        .unwrap();
    let file = basic(sink.address).replace(
        "address = \"127.0.0.1:0\"",
        &format!("address = \"127.0.0.1:0\"\n{proxied}"),
    ) + "[[client]]\nname = \"own\"\nnetworks = [\"127.0.0.0/8\"]\n[log]\nlevel = \"debug\"\n";
    let mut gateways = [Gateway::start(&file), Gateway::start(&file)];
    let port = free_port();
    let mut text = documented("haproxy").concat();
    for (gateway, address) in gateways.iter().zip(["10.20.0.11:25", "10.20.0.12:25"]) {
        assert!(text.contains(address));
        text = text.replace(address, &gateway.address("local").to_string());
    }
    text = text.replace("bind :25", &format!("bind 127.0.0.1:{port}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haproxy.cfg");
    fs::write(&path, format!("global\n{text}")).unwrap();
    let checked = command("haproxy")
        .args(["-c", "-f"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let _haproxy = Haproxy(
        command("haproxy")
            .args(["-db", "-f"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait("HAProxy", || TcpStream::connect(("127.0.0.1", port)).ok());
    let send = || {
        let mut client = Client::try_connect(([127, 0, 0, 1], port).into()).ok()?;
        let greeting = client.tries(b"", "220");
        if !greeting {
            return None;
        }
        client.expect("EHLO printer", "250");
        let mail = "From: erp@corp.example\r\nSubject: s\r\n\r\nb\r\n";
        Some(queued_id(&client.mail(
            "erp@corp.example",
            &["x@corp.example"],
            mail,
        )))
    };
    let id = wait("mail by the proxy", send);
    // Whoever comes without the header is not served there at all.
    wait("it in a log", || {
        let mut logs = gateways.iter().map(Gateway::log);
        logs.any(|log| log.contains(&id)).then_some(())
    });
    // Its checks are no faults of a client; the file that everybody can read is one of this test.
    for gateway in &gateways {
        let log = gateway.log();
        let warned = log.lines().filter(|line| line.contains("WARN"));
        assert_eq!(warned.count(), 1, "{log}");
    }
    gateways[0].terminate();
    for _ in 0..4 {
        wait("mail by the other", send);
    }
    sink.wait(5);
}

/// What the file says, it may say.
#[test]
fn the_sections_of_the_page_load() {
    let around = "[allowlist]\nsenders = []\nrecipients = []\n[[route]]\nname = \"r\"\nconnectors = [\"c\"]\n\
                  [[connector]]\nname = \"c\"\ntype = \"discard\"\n";
    let listener = "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:25\"\n";
    let blocks = documented("toml");
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let before = if block.contains("[[listener]]") {
            ""
        } else {
            listener
        };
        // Each block shows a part of what the file needs.
        let mut rest = String::new();
        for (section, text) in [
            ("[queue]", "[queue]\nstore = \"postgres\"\n"),
            ("[postgres]", "[postgres]\nhosts = [\"db1.corp.example\"]\n"),
            ("[cluster]", "[cluster]\nname = \"relay-a\"\n"),
        ] {
            if !block.contains(section) {
                rest += text;
            }
        }
        let text = format!("{block}{rest}{before}{around}");
        let read = config::parse(
            &text,
            Path::new("c.toml"),
            Secrets::Ignore,
            &config::Environment::default(),
        );
        let (_, notes) = read.unwrap_or_else(|why| panic!("{block}\n{why}"));
        for note in notes {
            let note = note.to_string();
            assert!(note.contains("hostname"), "{note}");
        }
    }
}

/// What the administrator asks is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_questions_of_the_page_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Postgres::shared().settings(dir.path());
    PostgresStore::open(settings.clone()).await.unwrap();
    let schema = settings.schema.replace('"', "\"\"");
    let blocks = documented("sql");
    let questions = blocks
        .iter()
        .find(|block| block.contains("postern.job"))
        .unwrap();
    let questions = questions.replace("postern.", &format!("\"{schema}\"."));
    let questions = questions.replace(
        "= 'postern' ORDER",
        &format!("= '{}' ORDER", settings.schema),
    );
    let found = Postgres::shared().sql("postern", &questions);
    assert!(
        found.lines().any(|line| line.starts_with("job|")),
        "{found}"
    );
}
