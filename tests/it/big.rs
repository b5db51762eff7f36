//! Size and number: 35 MiB in and out, a thousand idle connections, a queue of many.

use std::time::Instant;

use super::harness::{
    gateway::{Client, Gateway, basic, queued_id},
    upstream::Upstream,
};

#[test]
fn mail_of_35_mib_goes_through_whole_in_little_memory() {
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "[allowlist]",
        "[limits]\nmessage_size = \"36MiB\"\n\n[allowlist]",
    );
    let gateway = Gateway::start(&config);
    let senders: Vec<_> = (0..3)
        .map(|n: usize| {
            let address = gateway.address("local");
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.reply();
                client.expect("EHLO x", "250");
                client.expect("MAIL FROM:<app@corp.example> BODY=8BITMIME", "250");
                client.expect("RCPT TO:<x@corp.example>", "250");
                client.expect("DATA", "354");
                client.send(format!("From: app@corp.example\r\nSubject: {n}\r\n\r\n").as_bytes());
                let line = format!("{n}{}\r\n", "\u{e4}".repeat(37)).into_bytes();
                for _ in 0..(35 * 1024 * 1024 / line.len() / 1000) {
                    client.send(&line.repeat(1000));
                }
                queued_id(&client.say("."));
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    let mails = sink.wait(3);
    let (_, peak) = gateway.memory_kib();
    for mail in &mails {
        let text = mail.text();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        let n = header
            .split("Subject: ")
            .nth(1)
            .unwrap()
            .chars()
            .next()
            .unwrap();
        let line = format!("{n}{}\r\n", "\u{e4}".repeat(37));
        let lines = 35 * 1024 * 1024 / line.len() / 1000 * 1000;
        assert_eq!(body.len(), lines * line.len());
        assert!(body == line.repeat(lines), "the body differs");
    }
    assert!(peak < 200 * 1024, "peak memory {peak} KiB");
    super::harness::gateway::wait("no file is left behind", || {
        let files = std::fs::read_dir(gateway.path("data/spool")).unwrap();
        (files.count() == 0).then_some(())
    });
}

#[test]
fn mail_above_the_limit_is_refused_at_mail_and_at_the_end() {
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "[allowlist]",
        "[limits]\nmessage_size = \"100KiB\"\n\n[allowlist]",
    );
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    client.expect("MAIL FROM:<app@corp.example> SIZE=102401", "552 5.3.4");
    let line = "0123456789012345678901234567890123456789\r\n";
    let reply = client.mail(
        "app@corp.example",
        &["x@corp.example"],
        &format!("Subject: s\r\n\r\n{}", line.repeat(2600)),
    );
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    queued_id(&client.mail(
        "app@corp.example",
        &["x@corp.example"],
        "Subject: small\r\n\r\nb\r\n",
    ));
    assert!(sink.wait(1)[0].text().contains("Subject: small"));
    super::harness::gateway::wait("no file is left behind", || {
        let files = std::fs::read_dir(gateway.path("data/spool")).unwrap();
        (files.count() == 0).then_some(())
    });
}

#[test]
fn a_thousand_idle_connections_are_cheap() {
    super::harness::peers::many_files();
    let sink = Upstream::start();
    let config = basic(sink.address).replace(
        "[allowlist]",
        "[limits]\nconnections = 1200\nconnections_per_client = 1200\n\n[allowlist]",
    );
    let gateway = Gateway::start(&config);
    let (before, _) = gateway.memory_kib();
    let mut clients: Vec<Client> = (0..1000)
        .map(|_| Client::connect(gateway.address("local")))
        .collect();
    for client in &mut clients {
        assert!(client.reply().starts_with("220 "));
        client.expect("EHLO x", "250");
    }
    let (with, _) = gateway.memory_kib();
    assert!(
        with < before + 20 * 1024,
        "{before} KiB before, {with} KiB with 1,000 idle connections"
    );
    // And mail passes beside them.
    queued_id(&clients[500].mail(
        "app@corp.example",
        &["x@corp.example"],
        "Subject: s\r\n\r\nb\r\n",
    ));
    sink.wait(1);
}

#[test]
fn an_empty_queue_is_ready_at_once() {
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&basic(sink.address));
    gateway.kill();
    let start = Instant::now();
    gateway.restart();
    // A bound for a loaded test machine; the figure of a release build is in the release notes.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
