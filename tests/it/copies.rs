//! Mail that goes to somebody else, or to an archive as well, through the real gateway.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::harness::{
    cloud::Tenant,
    gateway::{Gateway, basic, queued_id, stdout, wait},
    time::stays,
    upstream::Upstream,
};
use super::window::{log_in, windowed};

const CONTENT: &str = "From: app@corp.example\r\nTo: Real <real@out.tld>\r\nCc: x@corp.example\r\nSubject: report\r\n\r\nbody\r\n";

/// What all of a system goes to, but for one recipient.
const REDIRECT: &str = "\n[[redirect]]\nname = \"staging\"\nsenders = [\"app@corp.example\"]\nto = [\"qa@corp.example\"]\nexcept = [\"x@corp.example\"]\n";

fn mail(gateway: &Gateway, to: &[&str]) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&client.mail("app@corp.example", to, CONTENT))
}

fn explained(gateway: &Gateway, from: &str, to: &str) -> String {
    let output = gateway.cli(&["explain", "--from", from, "--to", to]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn redirected_mail_says_whom_it_was_for_and_reaches_nobody_else() {
    let sink = Upstream::start();
    let gateway = Gateway::start(&(basic(sink.address) + REDIRECT));
    let id = mail(
        &gateway,
        &["real@out.tld", "x@corp.example", "boss@corp.example"],
    );
    let got = sink.wait(1).remove(0);
    let to: HashSet<_> = got.to.iter().map(String::as_str).collect();
    assert_eq!(to, ["qa@corp.example", "x@corp.example"].into());
    let text = got.text();
    for kept in [
        "X-Original-To: real@out.tld\r\nX-Original-To: boss@corp.example\r\n",
        "To: Real <real@out.tld>\r\nCc: x@corp.example\r\n",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    assert!(!text.contains("X-Original-To: x@corp.example"), "{text}");
    let words = "redirected real@out.tld to qa@corp.example by staging; redirected boss@corp.example to qa@corp.example by staging";
    gateway.wait_for_log(&["event=accepted", &id, words]);
    let life = stdout(&gateway.cli(&["trace", &id]));
    assert!(life.contains(words), "{life}");
    let said = explained(&gateway, "app@corp.example", "real@out.tld");
    for words in [
        "[[redirect]] staging: mail for real@out.tld goes to qa@corp.example",
        "all: up, in this order",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = explained(&gateway, "app@corp.example", "x@corp.example");
    let words = "[[redirect]] staging leaves x@corp.example as addressed by \"x@corp.example\"";
    assert!(said.contains(words), "{said}");
    let said = explained(&gateway, "app@corp.example", "a%b@corp.example");
    assert!(
        said.contains("[[redirect]] staging does not take such a local part"),
        "{said}"
    );
    let said = explained(&gateway, "other@corp.example", "real@out.tld");
    assert!(said.contains("refused    550 5.7.1"), "{said}");
}

#[test]
fn attack_redirected_mail_mails_nobody_through_graph() {
    let tenant = Tenant::start(|_, _| None);
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let gateway = Gateway::start(&format!("{front}{}{REDIRECT}", tenant.connector()));
    mail(&gateway, &["real@out.tld", "x@corp.example"]);
    let taken = tenant.wait(1).remove(0);
    let to = ["qa@corp.example", "x@corp.example"].map(str::to_owned);
    assert_eq!(taken.recipients, to.into());
    assert!(
        taken.content.contains("X-Original-To: real@out.tld\r\n"),
        "{}",
        taken.content
    );
    assert!(!taken.content.contains("Real <"), "{}", taken.content);
}

/// An archive of what `app` sends, by a connector of its own.
fn journal(vault: std::net::SocketAddr, more: &str) -> String {
    format!(
        "\n[[archive]]\nname = \"journal\"\nsenders = [\"app@corp.example\"]\nto = \"archive@corp.example\"\nconnectors = [\"vault\"]\n{more}\n\
         [[connector]]\nname = \"vault\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        vault.port()
    )
}

/// The id of the copy, as the life of the message names it.
fn copy_of(gateway: &Gateway, id: &str) -> String {
    let life = stdout(&gateway.cli(&["trace", id]));
    let words = "copied for archive journal as ";
    let (_, rest) = life.split_once(words).unwrap_or_else(|| panic!("{life}"));
    rest.get(..26).unwrap().to_owned()
}

#[test]
fn an_archive_gets_a_copy_that_is_a_message_of_its_own() {
    let (sink, vault) = (Upstream::start(), Upstream::start());
    let config = basic(sink.address) + &journal(vault.address, "");
    let gateway = Gateway::start(&config);
    // A body in memory, and one in a file.
    for (n, lines) in [(1, 1), (2, 5_000)] {
        let content = format!("{CONTENT}{}", "twenty octets of it.\r\n".repeat(lines));
        let mut client = gateway.connect("local");
        client.expect("EHLO app", "250");
        let id = queued_id(&client.mail(
            "app@corp.example",
            &["x@corp.example", "y@partner.example"],
            &content,
        ));
        let (sent, copy) = (sink.wait(n).remove(n - 1), vault.wait(n).remove(n - 1));
        assert_eq!((sent.from.as_str(), sent.to.len()), ("app@corp.example", 2));
        assert_eq!(
            (copy.from.as_str(), copy.to.as_slice()),
            ("", &["archive@corp.example".to_owned()][..])
        );
        assert!(
            sent.data == copy.data && !sent.text().contains("archive@"),
            "{}",
            copy.text()
        );
        let copied = copy_of(&gateway, &id);
        assert_ne!(copied, id);
        let words = format!("a copy of {id} for archive journal");
        let life = wait("its delivery", || {
            let life = stdout(&gateway.cli(&["trace", &copied]));
            life.contains("delivered").then_some(life)
        });
        assert!(life.contains(&words), "{life}");
        let shown = stdout(&gateway.cli(&["queue", "show", &copied]));
        let words = format!("copy of     {id}, for archive journal");
        assert!(shown.contains(&words), "{shown}");
        let json = stdout(&gateway.cli(&[
            "queue",
            "list",
            "--all",
            "--json",
            "--route",
            "archive journal",
        ]));
        assert!(json.contains(&format!("\"copy_of\": \"{id}\"")), "{json}");
        gateway.wait_for_log(&["event=archived", &copied, &id, "archive=journal"]);
    }
    let said = explained(&gateway, "app@corp.example", "x@corp.example");
    let words = "[[archive]] journal: a copy goes to archive@corp.example by vault, in this order, as form = \"copy\"";
    assert!(said.contains(words), "{said}");
    // Of nobody else's mail, and of what is refused, there is none.
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&client.mail(
        "erp@corp.example",
        &["x@corp.example"],
        "From: erp@corp.example\r\n\r\nbody\r\n",
    ));
    client.expect("MAIL FROM:<app@corp.example>", "250");
    client.expect("RCPT TO:<x@out.tld>", "550");
    client.expect("RCPT TO:<x@corp.example>", "250");
    client.expect("DATA", "354");
    client.expect("From: other@out.tld\r\n\r\nbody\r\n.", "550");
    sink.wait(3);
    stays("the copies of two", Duration::from_secs(1), || {
        vault.count() == 2
    });
}

#[test]
fn both_are_on_disk_after_the_250_and_one_does_not_wait_for_the_other() {
    let (sink, vault) = (Upstream::start(), Upstream::start());
    // The archive is down, and so is the way of the mail.
    let nowhere = ([127, 0, 0, 1], 1).into();
    let mut gateway = Gateway::start(&(basic(nowhere) + &journal(nowhere, "")));
    let large = CONTENT.to_owned() + &"twenty octets of it.\r\n".repeat(5_000);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    for content in [CONTENT, &large] {
        queued_id(&client.mail("app@corp.example", &["x@corp.example"], content));
    }
    gateway.kill();
    let config = basic(sink.address) + &journal(nowhere, "");
    fs::write(gateway.config_path(), &config).unwrap();
    gateway.restart();
    sink.wait(2);
    // An archive that is gone from the configuration: its copies wait for it, and go no other way.
    fs::write(gateway.config_path(), basic(sink.address)).unwrap();
    gateway.hang_up();
    gateway.wait_for_log(&[
        "archive=journal",
        "copies wait for an archive that is no longer configured",
    ]);
    fs::write(
        gateway.config_path(),
        basic(sink.address) + &journal(vault.address, ""),
    )
    .unwrap();
    gateway.hang_up();
    let copies = vault.wait(2);
    assert!(copies.iter().any(|copy| copy.data.len() > 100_000));
    assert!(
        copies
            .iter()
            .all(|copy| copy.text().contains("Subject: report"))
    );
    assert_eq!(sink.count(), 2, "the mail alone");
}

#[test]
fn a_copy_that_fails_is_kept_and_nobody_gets_a_bounce() {
    let sink = Upstream::start();
    let is_full = Arc::new(AtomicBool::new(true));
    let full = Arc::clone(&is_full);
    let vault = Upstream::scripted(move |line| {
        (line.starts_with("RCPT") && full.load(Ordering::Relaxed))
            .then(|| "550 5.2.2 full".to_owned())
    });
    let told = "\n[bounce]\ncopy_to = [\"admin@corp.example\"]\n";
    let gateway = Gateway::start(&(basic(sink.address) + &journal(vault.address, "") + told));
    let id = mail(&gateway, &["x@corp.example"]);
    let copy = copy_of(&gateway, &id);
    gateway.wait_for_log(&["event=failed", &copy, "5.2.2"]);
    stays("no bounce", Duration::from_secs(1), || sink.count() == 1);
    let shown = stdout(&gateway.cli(&["queue", "list", "--state", "failed", "--json"]));
    assert!(
        shown.contains(&copy) && !shown.contains(&format!("\"id\": \"{id}\"")),
        "{shown}"
    );
    // A copy is no report: whoever means all copies of the archive, means those.
    is_full.store(false, Ordering::Relaxed);
    let said = stdout(&gateway.cli(&["queue", "retry", "--route", "archive journal"]));
    assert!(!said.contains("report"), "{said}");
    assert_eq!(vault.wait(1)[0].to, ["archive@corp.example"]);
}

#[test]
fn attack_an_archive_that_sends_each_attached_copy_back() {
    let sink = Upstream::start();
    let vault = Upstream::start();
    let archive = journal(vault.address, "form = \"attached\"").replacen(
        "senders = [\"app@corp.example\"]\n",
        "",
        1,
    );
    let gateway = Gateway::start(
        &(basic(sink.address) + &archive + "\n[bounce]\nfrom = \"p@corp.example\"\n"),
    );
    mail(&gateway, &["x@corp.example"]);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    // Its mailbox forwards what it gets, from an address of its own.
    for round in 1..=4 {
        let copy = vault.wait(round).remove(round - 1).text();
        let back = format!(
            "Received: from vault by mx.corp.example; today\r\n{}\r\n",
            copy.trim_end()
        );
        queued_id(&client.mail("fwd@corp.example", &["x@corp.example"], &back));
    }
    let copy = vault.wait(5).remove(4).text();
    client.expect("MAIL FROM:<fwd@corp.example>", "250");
    client.expect("RCPT TO:<x@corp.example>", "250");
    client.expect("DATA", "354");
    client.expect(&format!("{}\r\n.", copy.trim_end()), "554 5.4.6");
    assert_eq!((vault.count(), sink.count()), (5, 5));
}

#[test]
fn by_graph_a_copy_is_attached_and_says_what_the_envelope_was() {
    let sink = Upstream::start();
    let tenant = Tenant::with_drafts();
    let archive = "\n[[archive]]\nname = \"journal\"\nto = \"archive@corp.example\"\nconnectors = [\"exchange\"]\nform = \"attached\"\n\
                   [bounce]\nfrom = \"postmaster@corp.example\"\n";
    let connector = tenant.connector();
    let connector = connector.replacen("\"up\"", "\"exchange\"", 1);
    let gateway = Gateway::start(&(basic(sink.address) + archive + &connector + REDIRECT));
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    client.expect("MAIL FROM:<app@corp.example>", "250");
    client.expect("RCPT TO:<real@out.tld> NOTIFY=NEVER", "250");
    client.expect("RCPT TO:<x@corp.example>", "250");
    client.expect("DATA", "354");
    let id = queued_id(&client.expect("From: app@corp.example\r\nTo: real@out.tld\r\nBcc: x@corp.example\r\nSubject: s\r\n\r\n\u{e4} body\r\n.", "250"));
    let taken = tenant.wait(1).remove(0);
    assert_eq!(taken.mailbox, "postmaster@corp.example");
    assert_eq!(taken.recipients, ["archive@corp.example".to_owned()].into());
    let sent = sink.wait(1).remove(0).text();
    for part in [
        "Subject: Copy of mail from app@corp.example\r\n",
        "\r\nSender: app@corp.example\r\nRecipient: qa@corp.example ORCPT=rfc822;real@out.tld\r\nRecipient: x@corp.example\r\nClient: loopback\r\nAddress: 127.0.0.1\r\nTime: ",
        &format!("\r\nID: {id}\r\n"),
        "Content-Type: message/rfc822\r\n",
        &sent,
    ] {
        assert!(taken.content.contains(part), "{part}: {}", taken.content);
    }
    // A large one, whose body is in a file.
    let large = CONTENT.to_owned() + &"twenty octets of it.\r\n".repeat(5_000);
    queued_id(&client.mail("app@corp.example", &["x@corp.example"], &large));
    let taken = tenant.wait(2).remove(1);
    assert!(taken.content.contains(&sink.wait(2).remove(1).text()));
}

#[test]
fn attack_an_archive_whose_copies_come_back() {
    let sink = Upstream::start();
    let nowhere = ([127, 0, 0, 1], 1).into();
    let of_all = |vault| {
        let config = basic(sink.address) + &journal(vault, "");
        let config = config.replacen("senders = [\"app@corp.example\"]\n", "", 1);
        config.replacen(
            "senders = [\"corp.example\"]",
            "senders = [\"corp.example\", \"<>\"]",
            1,
        )
    };
    let gateway = Gateway::start(&of_all(nowhere));
    // Another relay, which sends all that it gets back.
    let far = basic(gateway.address("local")).replace("relay.corp", "far.corp");
    let far = Gateway::start(&far.replacen("[\"corp.example\"]", "[\"corp.example\", \"<>\"]", 1));
    fs::write(gateway.config_path(), of_all(far.address("local"))).unwrap();
    gateway.hang_up();
    gateway.wait_for_log(&["event=reloaded"]);
    mail(&gateway, &["x@corp.example"]);
    let mut got: Vec<_> = sink.wait(2).iter().map(|mail| mail.to.concat()).collect();
    got.sort();
    assert_eq!(got, ["archive@corp.example", "x@corp.example"]);
    stays("one copy", Duration::from_secs(2), || sink.count() == 2);
}

#[test]
fn the_page_of_a_copy_and_the_metrics_name_it() {
    let (sink, vault) = (Upstream::start(), Upstream::start());
    // All mail that is copied is redirected: but for the archive's.
    let redirect = REDIRECT.replace("[\"x@corp.example\"]", "[\"archive@corp.example\"]");
    let config = windowed(&sink, "") + &journal(vault.address, "") + &redirect;
    let gateway = Gateway::start(&config);
    let id = mail(&gateway, &["real@out.tld", "boss@corp.example"]);
    let copy = copy_of(&gateway, &id);
    let window = gateway.window();
    let cookie = log_in(&window, "lee", "correct horse").cookie();
    let page = |id: &str| {
        let ask = window
            .get(&format!("/messages/{id}"))
            .with("Cookie", &cookie);
        ask.send().body
    };
    let words = format!("<dt>Copy of</dt><dd><a href=\"/messages/{id}\">");
    assert!(page(&copy).contains(&words), "{}", page(&copy));
    assert!(page(&copy).contains("archive journal"), "{}", page(&copy));
    assert!(!page(&id).contains("Copy of"), "{}", page(&id));
    let listed = window.get("/api/v1/messages?all=true&route=archive%20journal");
    let listed = listed.token("secret-of-viewer").send();
    assert!(
        listed.body.contains(&format!("\"copy_of\":\"{id}\"")),
        "{listed:?}"
    );
    let metrics = window
        .get("/metrics")
        .token("secret-of-metrics")
        .send()
        .body;
    for line in [
        "\npostern_archive_copies_total{archive=\"journal\"} 1\n",
        "\npostern_redirected_recipients_total{redirect=\"staging\"} 2\n",
        "\npostern_messages_accepted_total{listener=\"local\",client=\"loopback\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
