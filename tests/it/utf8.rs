//! Addresses in UTF-8 (RFC 6531 to 6533) through the real gateway: clients of Python and Postfix, upstreams that offer SMTPUTF8 and
//! such that do not, Postfix among them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    harness::{
        client::{Client, queued_id},
        cloud::Tenant,
        gateway::{Gateway, basic, stdout, wait},
        peers::{need, run},
        upstream::{Act, Script, Upstream},
    },
    relays::Relay,
};

const OFFICE: &str = "b\u{fc}ro@corp.example";
const POST: &str = "\u{43f}\u{43e}\u{447}\u{442}\u{430}@partner.example";
const WITH: &str = "PIPELINING 8BITMIME SIZE_52428800 SMTPUTF8";
const WITHOUT: &str = "PIPELINING 8BITMIME SIZE_52428800";

fn offering(config: &str) -> String {
    let plain = "address = \"127.0.0.1:0\"";
    config.replacen(plain, &format!("{plain}\nsmtputf8 = true"), 1)
}

/// A message by SMTPUTF8, and its number.
fn ask(client: &mut Client, from: &str, to: &[&str], header: &str) -> String {
    client.expect(&format!("MAIL FROM:<{from}> SMTPUTF8"), "250");
    for to in to {
        client.expect(&format!("RCPT TO:<{to}>"), "250");
    }
    client.expect("DATA", "354");
    client.send(format!("{header}\r\nthe body\r\n").as_bytes());
    queued_id(&client.say("."))
}

fn asked(gateway: &Gateway, from: &str, to: &[&str], header: &str) -> String {
    let mut client = gateway.connect("local");
    assert!(client.expect("EHLO app", "250").contains("SMTPUTF8"));
    ask(&mut client, from, to, header)
}

fn traced(gateway: &Gateway, id: &str, word: &str) -> String {
    wait(word, || {
        let trace = stdout(&gateway.cli(&["trace", id]));
        trace.contains(word).then_some(trace)
    })
}

fn said(sink: &Upstream, word: &str) -> Vec<String> {
    let lines = sink.seen().lines.clone();
    let lines = lines.into_iter().filter(|line| line.starts_with(word));
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn it_is_asked_for_where_an_address_needs_it_and_what_came_is_what_leaves() {
    let sink = Script::default().offers(WITH).start();
    let mut gateway = Gateway::start(&offering(&basic(sink.address)));
    let header = format!("From: B\u{fc}ro <{OFFICE}>\r\nTo: <{POST}>\r\nSubject: f\u{fc}r Sie\r\n");
    let id = asked(&gateway, OFFICE, &[POST, "a@partner.example"], &header);
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (
            OFFICE,
            &[POST.to_owned(), "a@partner.example".to_owned()][..]
        )
    );
    assert!(mail.text().contains(&header), "{}", mail.text());
    assert!(mail.text().contains("with UTF8SMTP id "), "{}", mail.text());
    let trace = traced(&gateway, &id, "delivered");
    assert!(trace.contains(POST) && trace.contains(OFFICE), "{trace}");

    // Whom nobody has to know for it, it is not told of.
    let plain = "From: B\u{fc}ro <app@corp.example>\r\nSubject: \u{fc}\r\n";
    asked(&gateway, "app@corp.example", &["a@partner.example"], plain);
    asked(
        &gateway,
        "app@corp.example",
        &["a@b\u{fc}cher.partner.example", "a@partner.example"][1..],
        "From: app@corp.example\r\nTo: a@b\u{fc}cher.example\r\n",
    );
    let to = format!("From: app@corp.example\r\nTo: {POST}\r\n");
    asked(&gateway, "app@corp.example", &["a@partner.example"], &to);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    // As it always was: who does not ask may have anything in To.
    client.mail(
        "app@corp.example",
        &["a@partner.example"],
        &format!("{to}\r\nx\r\n"),
    );
    sink.wait(5);
    let mails = said(&sink, "MAIL");
    let asks: Vec<bool> = mails
        .iter()
        .map(|line| line.ends_with(" SMTPUTF8"))
        .collect();
    assert_eq!(asks.iter().filter(|asks| **asks).count(), 2, "{mails:?}");
    let text: Vec<String> = sink
        .mails()
        .iter()
        .map(super::harness::upstream::Received::text)
        .collect();
    assert!(
        text.iter()
            .any(|text| text.contains("\r\nTo: a@xn--bcher-kva.example\r\n")),
        "{text:?}"
    );

    // It is found, whatever its case, and shown as it is; the log has it, too.
    for (option, text) in [
        (
            "--recipient",
            "\u{41f}\u{41e}\u{427}\u{422}\u{410}@partner.example",
        ),
        ("--sender", "B\u{dc}RO@corp.example"),
    ] {
        let listed = stdout(&gateway.cli(&["queue", "list", "--state", "done", option, text]));
        assert!(listed.contains(&id), "{option}: {listed}");
    }
    let shown: Value =
        serde_json::from_slice(&gateway.cli(&["queue", "show", &id, "--json"]).stdout).unwrap();
    assert_eq!(shown["entries"][0]["sender"], OFFICE, "{shown}");
    assert_eq!(
        shown["entries"][0]["recipients"][0]["address"], POST,
        "{shown}"
    );
    let log = gateway.log();
    assert!(log.contains(POST) && log.contains(OFFICE), "{log}");
    gateway.terminate();
}

#[test]
fn what_waits_is_sent_after_a_crash_as_it_came() {
    let sink = Script::default()
        .offers(WITH)
        .when(|at| (at.stage == "MAIL" && at.connection == 1).then(|| Act::says("451 4.3.0 later")))
        .start();
    let mut gateway = Gateway::start(&offering(&basic(sink.address)));
    let to = format!("From: app@corp.example\r\nTo: {POST}\r\n");
    let id = asked(&gateway, "app@corp.example", &["a@partner.example"], &to);
    traced(&gateway, &id, "deferred");
    gateway.kill();
    gateway.restart();
    sink.wait(1);
    let mails = said(&sink, "MAIL");
    assert!(
        mails.iter().all(|line| line.ends_with(" SMTPUTF8")),
        "{mails:?}"
    );
}

/// The next connector takes whom the first cannot; without one that recipient alone has failed, and its report says so in UTF-8.
#[test]
fn where_it_is_not_offered_that_recipient_alone_goes_on_or_fails() {
    let (old, new) = (
        Script::default().offers(WITHOUT).start(),
        Script::default().offers(WITH).start(),
    );
    let two = basic(old.address).replace("connectors = [\"up\"]", "connectors = [\"up\", \"new\"]")
        + &format!(
            "[[connector]]\nname = \"new\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
            new.address.port()
        );
    let gateway = Gateway::start(&offering(&two));
    let plain = "From: app@corp.example\r\nSubject: s\r\n";
    asked(
        &gateway,
        "app@corp.example",
        &["a@partner.example", POST],
        plain,
    );
    assert_eq!(old.wait(1)[0].to, ["a@partner.example"]);
    assert_eq!(new.wait(1)[0].to, [POST]);
    assert_eq!(said(&old, "RCPT").len(), 1);
    // A sender takes all with it.
    asked(&gateway, OFFICE, &["a@partner.example", POST], plain);
    let both = new.wait(2);
    assert_eq!(both[1].to, ["a@partner.example", POST]);
    assert_eq!(old.count(), 1);
    let status = stdout(&gateway.cli(&["status"]));
    assert!(
        !status.contains("paused") && !status.contains("closed"),
        "{status}"
    );
    drop(gateway);

    let gateway = Gateway::start(&offering(&basic(old.address)));
    let id = asked(
        &gateway,
        "app@corp.example",
        &["b@partner.example", POST],
        "From: app@corp.example\r\nSubject: gr\u{fc}n\r\n",
    );
    let report = wait("the report", || {
        old.mails().into_iter().find(|mail| mail.from.is_empty())
    });
    assert_eq!(report.to, ["app@corp.example"]);
    let text = report.text();
    for words in [
        "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n",
        &format!("Final-Recipient: utf-8; {POST}\r\nAction: failed\r\nStatus: 5.6.7\r\n"),
        "Content-Type: message/global-headers\r\n",
        "Subject: gr\u{fc}n\r\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let header = text.split("\r\n\r\n").next().unwrap();
    assert!(header.is_ascii() && !text.contains("b@partner"), "{text}");
    let trace = traced(&gateway, &id, "bounced");
    assert!(
        trace.contains("5.6.7") && trace.contains("delivered"),
        "{trace}"
    );
    // The sender's: all fail, and the report that no server here takes is kept.
    let id = asked(&gateway, OFFICE, &["b@partner.example"], plain);
    let trace = traced(&gateway, &id, "5.6.7");
    assert!(!trace.contains("delivered"), "{trace}");
    let failed = wait("the report is kept", || {
        let list = stdout(&gateway.cli(&["queue", "list", "--state", "failed"]));
        list.contains(OFFICE).then_some(list)
    });
    assert!(failed.contains("<>"), "{failed}");
}

#[test]
fn an_original_recipient_as_postfix_writes_it_leaves_as_utf_8() {
    const DSN: &str = "PIPELINING 8BITMIME SIZE_52428800 DSN";
    const DSN_UTF8: &str = "PIPELINING 8BITMIME SIZE_52428800 DSN SMTPUTF8";
    for (offered, header, expected) in [
        (
            DSN,
            "From: app@corp.example\r\n",
            "utf-8;b\\x{FC}ro@corp.example",
        ),
        (
            DSN_UTF8,
            "From: app@corp.example\r\n",
            "utf-8;b\\x{FC}ro@corp.example",
        ),
        (
            DSN_UTF8,
            "From: app@corp.example\r\nTo: b\u{fc}ro@corp.example\r\n",
            "utf-8;b\u{fc}ro@corp.example",
        ),
    ] {
        let sink = Script::default().offers(offered).start();
        let gateway = Gateway::start(&offering(&basic(sink.address)));
        let mut client = gateway.connect("local");
        client.expect("EHLO app", "250");
        client.expect("MAIL FROM:<app@corp.example> SMTPUTF8", "250");
        client.expect(
            "RCPT TO:<b@partner.example> ORCPT=rfc822;b+C3+BCro@corp.example",
            "250",
        );
        client.expect("DATA", "354");
        client.send(format!("{header}\r\nthe body\r\n").as_bytes());
        let id = queued_id(&client.say("."));
        traced(&gateway, &id, "delivered");
        let rcpt = said(&sink, "RCPT");
        assert_eq!(
            rcpt,
            [format!("RCPT TO:<b@partner.example> ORCPT={expected}")]
        );
    }
}

#[test]
fn the_check_names_an_upstream_without_it() {
    for (offered, is_noted) in [(WITH, false), (WITHOUT, true)] {
        let sink = Script::default().offers(offered).start();
        let gateway = Gateway::start(&offering(&basic(sink.address)));
        let said = stdout(&gateway.cli(&["check", "--connect"]));
        let note = "note    up: a listener has smtputf8 = true, but this upstream does not offer";
        assert_eq!(said.contains(note), is_noted, "{said}");
    }
}

#[test]
fn without_the_key_everything_is_as_before() {
    let sink = Script::default().offers(WITH).start();
    let gateway = Gateway::start(&basic(sink.address));
    let mut client = gateway.connect("local");
    assert!(!client.expect("EHLO app", "250").contains("SMTPUTF8"));
    client.expect("MAIL FROM:<app@corp.example> SMTPUTF8", "555 5.5.4");
    client.expect(&format!("MAIL FROM:<{OFFICE}>"), "553 5.6.7");
    client.expect("MAIL FROM:<app@corp.example>", "250");
    client.expect(&format!("RCPT TO:<{POST}>"), "553 5.6.7");
    let explained = explained(&gateway, &["--from", OFFICE, "--to", POST]);
    assert!(
        explained.contains("smtputf8 = false on this listener") && explained.contains("5.6.7"),
        "{explained}"
    );
    gateway.wait_for_log(&["553 5.6.7"]);
}

/// What it says, whether the mail would be taken or not.
fn explained(gateway: &Gateway, more: &[&str]) -> String {
    let output = gateway.cli(&[&["explain"], more].concat());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn explain_asks_with_it_and_the_commands_use_it() {
    let sink = Script::default().offers(WITH).start();
    let config = offering(&basic(sink.address)).replace(
        "senders = [\"corp.example\"]",
        &format!("senders = [\"{OFFICE}\"]"),
    );
    let gateway = Gateway::start(&config);
    let taken = explained(
        &gateway,
        &[
            "--from",
            "B\u{dc}RO@corp.example",
            "--to",
            POST,
            "--header-from",
            OFFICE,
        ],
    );
    assert!(
        taken.contains("asked for")
            && taken.contains(&format!("passes allowlist.senders by \"{OFFICE}\"")),
        "{taken}"
    );
    let refused = explained(&gateway, &["--from", "buro@corp.example", "--to", POST]);
    assert!(refused.contains("550 5.7.1"), "{refused}");
    let sent = gateway.cli(&["test", "up", "--from", OFFICE, "--to", POST]);
    assert!(sent.status.success(), "{sent:?}");
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (OFFICE, &[POST.to_owned()][..])
    );
    assert!(
        mail.text().contains(OFFICE) && mail.text().contains(POST),
        "{}",
        mail.text()
    );
}

/// The drop-in for local programs, and `send`.
#[test]
fn local_programs_send_by_it() {
    let sink = Script::default().offers(WITH).start();
    let gateway = Gateway::start(&offering(&basic(sink.address)));
    let at = gateway.address("local").to_string();
    let send = |args: &[&str], text: &str| {
        let mut child = Command::new(Gateway::binary())
            .args(args)
            .env("POSTERN_SMTP", &at)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
    };
    let text = format!("From: {OFFICE}\nTo: {POST}\nSubject: s\n\nx\n");
    send(&["sendmail", "-t", "-f", OFFICE], &text);
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (OFFICE, &[POST.to_owned()][..])
    );
    // An address of the header alone is enough.
    let text = format!("From: {OFFICE}\nSubject: s\n\nx\n");
    send(
        &["sendmail", "-f", "app@corp.example", "a@partner.example"],
        &text,
    );
    assert_eq!(sink.wait(2)[1].from, "app@corp.example");
    let mails = said(&sink, "MAIL");
    assert!(
        mails.iter().all(|line| line.ends_with(" SMTPUTF8")),
        "{mails:?}"
    );
}

const SENDER: &str = r#"
import smtplib, sys
from email.message import EmailMessage
from email.policy import SMTPUTF8
port, sender, to = int(sys.argv[1]), sys.argv[2], sys.argv[3]
message = EmailMessage(policy=SMTPUTF8)
message["From"], message["To"], message["Subject"] = f"Büro <{sender}>", to, "für Sie"
message.set_content("Grüße\n")
with smtplib.SMTP("127.0.0.1", port) as server:
    try:
        server.send_message(message)
        print("sent")
    except smtplib.SMTPNotSupportedError as error:
        print("unsupported:", error)
"#;

#[test]
#[ignore = "needs python3 and swaks, which tests/run installs"]
fn python_sends_by_it_and_swaks_without_it_is_told() {
    need("python3");
    need("swaks");
    let sink = Script::default().offers(WITH).start();
    let gateway = Gateway::start(&offering(&basic(sink.address)));
    let port = gateway.address("local").port().to_string();
    assert_eq!(
        run("python3", &["-c", SENDER, &port, OFFICE, POST]).trim(),
        "sent"
    );
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (OFFICE, &[POST.to_owned()][..])
    );
    let text = mail.text();
    assert!(
        text.contains(&format!("From: B\u{fc}ro <{OFFICE}>\r\n")) && text.contains("UTF8SMTP"),
        "{text}"
    );
    let swaks = Command::new("swaks")
        .args([
            "--server",
            "127.0.0.1",
            "--port",
            &port,
            "--from",
            OFFICE,
            "--to",
            POST,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&swaks.stdout).into_owned();
    assert!(
        !swaks.status.success() && said.contains("553 5.6.7"),
        "{said}"
    );
    let gateway = Gateway::start(&basic(sink.address));
    let port = gateway.address("local").port().to_string();
    let told = run("python3", &["-c", SENDER, &port, OFFICE, POST]);
    assert!(told.starts_with("unsupported:"), "{told}");
}

/// Sets something of a Postfix that runs.
fn set(relay: &Relay, value: &str) {
    let etc = relay.path().join("etc");
    let set = Command::new("postconf")
        .arg("-c")
        .arg(&etc)
        .args(["-e", value])
        .status();
    assert!(set.unwrap().success());
    let reload = Command::new("postfix")
        .arg("-c")
        .arg(&etc)
        .arg("reload")
        .output();
    assert!(reload.unwrap().status.success());
}

#[test]
#[ignore = "needs Postfix, which tests/run installs"]
fn postfix_takes_it_where_it_offers_it() {
    need("postfix");
    let sink = Script::default().offers(WITH).start();
    let relay = Relay::start_to("postfix", Some(sink.address.port()), &[]);
    set(&relay, "smtputf8_enable=yes");
    let at = ([127, 0, 0, 1], relay.port()).into();
    let gateway = Gateway::start(&offering(&basic(at)));
    let header = format!("From: <{OFFICE}>\r\nTo: <{POST}>\r\nSubject: f\u{fc}r Sie\r\n");
    asked(&gateway, OFFICE, &[POST], &header);
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (OFFICE, &[POST.to_owned()][..])
    );
    assert!(mail.text().contains(&header), "{}", mail.text());
    assert!(said(&sink, "MAIL")[0].contains("SMTPUTF8"));
    drop(gateway);

    set(&relay, "smtputf8_enable=no");
    wait("Postfix does not offer it any more", || {
        let mut client = Client::connect(at);
        client.reply();
        (!client.say("EHLO app").contains("SMTPUTF8")).then_some(())
    });
    let gateway = Gateway::start(&offering(&basic(at)));
    let plain = "From: app@corp.example\r\nSubject: second\r\n";
    let id = asked(
        &gateway,
        "app@corp.example",
        &["a@partner.example", POST],
        plain,
    );
    let trace = traced(&gateway, &id, "bounced");
    assert!(trace.contains("553 5.6.7"), "{trace}");
    // The other one, and the report through it.
    let mails = sink.wait(3);
    let other = mails.iter().find(|mail| mail.to == ["a@partner.example"]);
    assert!(other.unwrap().text().contains("Subject: second"));
    let report = mails.iter().find(|mail| mail.from.is_empty()).unwrap();
    assert!(
        report
            .text()
            .contains(&format!("Final-Recipient: utf-8; {POST}")),
        "{}",
        report.text()
    );
}

#[test]
#[ignore = "needs Postfix, which tests/run installs"]
fn postfix_sends_by_it() {
    need("postfix");
    let sink = Script::default().offers(WITH).start();
    let gateway = Gateway::start(&offering(&basic(sink.address)));
    let relay = Relay::start_to("postfix", Some(gateway.address("local").port()), &[]);
    set(&relay, "smtputf8_enable=yes");
    let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
    assert!(client.reply().starts_with("220"));
    client.expect("EHLO app", "250");
    client.expect(&format!("MAIL FROM:<{OFFICE}> SMTPUTF8"), "250");
    client.expect(&format!("RCPT TO:<{POST}>"), "250");
    client.expect("DATA", "354");
    client.send(format!("From: {OFFICE}\r\nSubject: s\r\n\r\nx\r\n").as_bytes());
    client.expect(".", "250");
    let mail = sink.wait(1).remove(0);
    assert_eq!(
        (mail.from.as_str(), &mail.to[..]),
        (OFFICE, &[POST.to_owned()][..])
    );
    assert!(mail.text().contains("with UTF8SMTP id "), "{}", mail.text());
}

#[test]
fn graph_gets_recipients_as_they_are_and_no_sender() {
    let tenant = Tenant::start(|_, _| None);
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let gateway = Gateway::start(&offering(&format!("{front}{}", tenant.connector())));
    let header = format!("From: app@corp.example\r\nTo: <{POST}>\r\nSubject: s\r\n");
    asked(
        &gateway,
        "app@corp.example",
        &[POST, "a@partner.example"],
        &header,
    );
    let taken = tenant.wait(1).remove(0);
    assert!(taken.recipients.contains(POST), "{:?}", taken.recipients);
    let id = asked(
        &gateway,
        OFFICE,
        &["a@partner.example"],
        &format!("From: {OFFICE}\r\nSubject: s\r\n"),
    );
    let trace = traced(&gateway, &id, "5.6.7");
    assert!(trace.contains("not ASCII"), "{trace}");
    // The report to that sender is another's mail.
    let mails = tenant.mails();
    assert!(
        mails.iter().all(|mail| mail.mailbox.is_ascii()),
        "{mails:?}"
    );
}

/// A lookalike of an allowed address, and one that a reader could take for another, never leave.
#[test]
fn attack_lookalikes_never_leave() {
    let sink = Script::default().offers(WITH).start();
    let config = offering(&basic(sink.address)).replace(
        "recipients = [\"corp.example\", \"partner.example\"]",
        "recipients = [\"partner.example\"]",
    );
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    client.expect("MAIL FROM:<app@corp.example> SMTPUTF8", "250");
    for (to, code) in [
        ("x@p\u{430}rtner.example", "550 5.7.1"),
        ("x@partner.ex\u{430}mple", "550 5.7.1"),
        ("x\u{ff20}evil.tld@partner.example", "553 5.6.7"),
        ("x@evil.tld\u{ff20}partner.example", "553 5.6.7"),
        ("x\u{ff05}evil.tld@partner.example", "553 5.6.7"),
        ("\u{fc}%evil.tld@partner.example", "550 5.7.1"),
        ("x\u{202e}dlt.live@partner.example", "553 5.6.7"),
        ("x\u{2028}RCPT TO:<v@evil.tld>@partner.example", "5"),
        ("x@partner\u{3002}example", "553 5.6.7"),
        ("\u{fc}@xn--partner-.example", "501 5.1.3"),
        ("\u{fc}@xn--a.example", "553 5.6.7"),
    ] {
        client.expect(&format!("RCPT TO:<{to}>"), code);
    }
    client.expect("RCPT TO:<\u{fc}@partner.example>", "250");
    client.expect("DATA", "354");
    client.send("From: app@corp.example, x\u{ff20}evil.tld@corp.example\r\n\r\nx\r\n".as_bytes());
    client.expect(".", "550 5.6.7");
    assert_eq!(sink.count(), 0);
    let log = gateway.log();
    for hidden in ['\u{202e}', '\u{2028}'] {
        assert!(!log.contains(hidden), "{log}");
    }
}
