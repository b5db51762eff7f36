//! DSN (RFC 3461) from the client to the upstream, and back as reports: by the real gateway, with Postfix and Exim on both sides, and
//! with reports that Python's email package reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    harness::{
        client::{Client, queued_id},
        cloud::Tenant,
        gateway::{Gateway, basic, stdout, wait},
        peers::{need, run},
        time::stays,
        upstream::{Act, Received, Script, Upstream},
    },
    relays::Relay,
};

const TEXT: &str = "From: app@corp.example\r\nSubject: hello\r\n\r\nthe body\r\n";

/// A message with parameters, and its number.
fn ask(client: &mut Client, mail: &str, to: &[(&str, &str)], text: &str) -> String {
    client.expect(&format!("MAIL FROM:<app@corp.example> {mail}"), "250");
    for (to, parameters) in to {
        client.expect(&format!("RCPT TO:<{to}> {parameters}"), "250");
    }
    client.expect("DATA", "354");
    client.send(text.as_bytes());
    client.say(".")
}

fn asked(gateway: &Gateway, mail: &str, to: &[(&str, &str)]) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&ask(&mut client, mail, to, TEXT))
}

fn taker(offers: &'static str) -> Upstream {
    Script::default().offers(offers).start()
}

const WITH: &str = "PIPELINING 8BITMIME SIZE_52428800 DSN";
const WITHOUT: &str = "PIPELINING 8BITMIME SIZE_52428800";

/// Only what is a report, and says this.
fn reports(sink: &Upstream, word: &str) -> Vec<Received> {
    let mails = sink.mails();
    let is = |mail: &Received| mail.from.is_empty() && mail.text().contains(word);
    mails.into_iter().filter(is).collect()
}

fn traced(gateway: &Gateway, id: &str, word: &str) -> String {
    wait(word, || {
        let trace = stdout(&gateway.cli(&["trace", id]));
        trace.contains(word).then_some(trace)
    })
}

#[test]
fn what_was_asked_is_passed_on_as_it_was_given() {
    let sink = taker(WITH);
    let gateway = Gateway::start(&basic(sink.address));
    let id = asked(
        &gateway,
        "ret=hdrs ENVID=QQ+2B<1>",
        &[
            ("x+y@partner.example", "NOTIFY=delay,SUCCESS"),
            ("y@partner.example", "ORCPT=rfc822;z+2Bz@corp.example"),
            ("z@partner.example", "NOTIFY=NEVER ORCPT=x400;q"),
            ("n@partner.example", ""),
        ],
    );
    let trace = traced(&gateway, &id, "delivered");
    assert!(!trace.contains("reported"), "theirs now: {trace}");
    let lines = sink.seen().lines.clone();
    let mail = lines.iter().find(|line| line.starts_with("MAIL")).unwrap();
    assert!(mail.ends_with(" RET=HDRS ENVID=QQ+2B<1>\r\n"), "{mail}");
    let rcpt: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(
        rcpt,
        [
            "RCPT TO:<x+y@partner.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@partner.example\r\n",
            "RCPT TO:<y@partner.example> ORCPT=rfc822;z+2Bz@corp.example\r\n",
            "RCPT TO:<z@partner.example> NOTIFY=NEVER ORCPT=x400;q\r\n",
            "RCPT TO:<n@partner.example>\r\n",
        ]
    );
    let shown: Value =
        serde_json::from_slice(&gateway.cli(&["queue", "show", &id, "--json"]).stdout).unwrap();
    let entry = &shown["entries"][0];
    assert_eq!(entry["envid"], "QQ+2B<1>", "{shown}");
    let notify: Vec<_> = (0..4)
        .map(|n| entry["recipients"][n]["notify"].clone())
        .collect();
    let expected = serde_json::json!([["success", "delay"], null, ["never"], null]);
    assert_eq!(Value::from(notify), expected, "{shown}");
    let shown = stdout(&gateway.cli(&["queue", "show", &id]));
    assert!(shown.contains("done, notify success delay"), "{shown}");
    assert_eq!(sink.count(), 1);
}

/// Where it is not offered, and where it is not to be used.
#[test]
fn without_dsn_upstream_the_sender_is_told_from_here() {
    for (offers, more) in [(WITHOUT, ""), (WITH, "dsn = false\n")] {
        let sink = taker(offers);
        let gateway = Gateway::start(&(basic(sink.address) + more));
        let to = [
            (
                "x@partner.example",
                "NOTIFY=SUCCESS ORCPT=rfc822;y+2B@corp.example",
            ),
            ("z@partner.example", "NOTIFY=FAILURE"),
        ];
        let id = asked(&gateway, "RET=FULL ENVID=QQ+2B1", &to);
        let mails = sink.wait(2);
        assert_eq!(
            (mails[1].from.as_str(), &mails[1].to[..]),
            ("", &["app@corp.example".to_owned()][..])
        );
        let text = mails[1].text();
        for words in [
            "Original-Envelope-Id: QQ+1\r\nReporting-MTA: dns; relay.corp.example\r\n",
            "Original-Recipient: rfc822;y+@corp.example\r\nFinal-Recipient: rfc822; x@partner.example\r\nAction: relayed\r\n",
            "Content-Type: text/rfc822-headers\r\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(
            !text.contains("z@partner") && !text.contains("the body"),
            "{text}"
        );
        traced(&gateway, &id, "reported");
        let log = gateway.log();
        assert!(
            log.contains("event=reported") && log.contains("kind=relayed"),
            "{log}"
        );
        for word in ["NOTIFY", "ORCPT", "ENVID", "RET="] {
            assert!(!sink.was_told(word), "{word}");
        }
    }
}

/// One that offers it and refuses what is said by it: nobody loses mail by that, and the reports are ours.
#[test]
fn an_upstream_that_refuses_what_it_offers_gets_the_mail_without() {
    for refused in [" ENVID=", " NOTIFY=", " ORCPT="] {
        let sink = Script::default()
            .offers(WITH)
            .when(move |at| {
                let is_so = at.line.contains(refused);
                is_so.then(|| Act::says("501 5.5.4 what is that"))
            })
            .start();
        let gateway = Gateway::start(&basic(sink.address));
        let to = [
            (
                "x@partner.example",
                "NOTIFY=SUCCESS ORCPT=rfc822;y@corp.example",
            ),
            ("z@partner.example", ""),
        ];
        let id = asked(&gateway, "ENVID=QQ1", &to);
        traced(&gateway, &id, "reported");
        let mut got: Vec<_> = sink.wait(2).iter().map(|mail| mail.to.join(" ")).collect();
        got.retain(|to| to.contains("partner"));
        let got = got.join(" ");
        assert!(got.contains("x@") && got.contains("z@"), "{refused}: {got}");
        // The report is asked for with NOTIFY=NEVER, and is no less welcome without.
        let report = wait("the report", || reports(&sink, "Action: relayed").pop());
        assert_eq!(report.to, ["app@corp.example"]);
        assert!(
            report
                .text()
                .contains("Final-Recipient: rfc822; x@partner.example")
        );
        let failed = stdout(&gateway.cli(&["queue", "list", "--state", "failed"]));
        assert!(!failed.contains('@'), "{failed}");
    }
}

/// What is too large for its way out is not sent back whole by the same way.
#[test]
fn the_report_of_what_was_too_large_brings_back_the_header_alone() {
    let sink = taker("SIZE_20000 DSN");
    let gateway = Gateway::start(&basic(sink.address));
    let text = TEXT.to_owned() + &"twenty octets of it.\r\n".repeat(1_500);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    ask(
        &mut client,
        "RET=FULL",
        &[("x@partner.example", "NOTIFY=FAILURE")],
        &text,
    );
    let report = wait("the report", || reports(&sink, "Action: failed").pop());
    let report = report.text();
    assert!(report.contains("Status: 5.3.4") && report.contains("text/rfc822-headers"));
    assert!(!report.contains("twenty octets"), "{report}");
}

/// Graph takes mail and no wishes: whoever asked hears from here that it was handed on, and nobody else hears anything.
#[test]
fn where_graph_takes_the_mail_the_sender_is_told_from_here() {
    let tenant = Tenant::start(|_, _| None);
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let gateway = Gateway::start(&format!("{front}{}", tenant.connector()));
    let to = [
        (
            "x@partner.example",
            "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;victim@elsewhere.example",
        ),
        ("z@partner.example", "NOTIFY=FAILURE"),
    ];
    let id = asked(&gateway, "RET=FULL ENVID=QQ1", &to);
    let taken = tenant.wait(2);
    let of =
        |n: usize| -> BTreeSet<&str> { taken[n].recipients.iter().map(String::as_str).collect() };
    assert_eq!(of(0), ["x@partner.example", "z@partner.example"].into());
    assert_eq!(of(1), ["app@corp.example"].into());
    let text = &taken[1].content;
    for words in [
        "Original-Envelope-Id: QQ1\r\n",
        "Original-Recipient: rfc822;victim@elsewhere.example\r\nFinal-Recipient: rfc822; x@partner.example\r\nAction: relayed\r\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        !text.contains("z@partner") && !text.contains("the body"),
        "{text}"
    );
    traced(&gateway, &id, "reported");
    stays("no more than these", Duration::from_secs(1), || {
        tenant.mails().len() == 2
    });
}

#[test]
fn a_report_asks_for_none_and_what_nobody_may_be_told_is_told_nobody() {
    let sink = Script::default()
        .offers(WITH)
        .when(|at| {
            at.line
                .contains("no@partner")
                .then(|| Act::says("550 5.1.1 no"))
        })
        .start();
    let gateway = Gateway::start(&basic(sink.address));
    let to = [
        ("no@partner.example", "NOTIFY=FAILURE"),
        ("never@partner.example", "NOTIFY=NEVER"),
    ];
    asked(&gateway, "ENVID=1", &to);
    sink.wait(2);
    assert!(
        sink.was_told("RCPT TO:<app@corp.example> NOTIFY=NEVER ORCPT=rfc822;app@corp.example\r\n")
    );
    drop(gateway);

    let sink = Script::default()
        .offers(WITHOUT)
        .when(|at| {
            at.line
                .contains("no@partner")
                .then(|| Act::says("550 5.1.1 no"))
        })
        .start();
    let anybody = basic(sink.address)
        .replace("senders = [\"corp.example\"]", "senders = [\"*\", \"<>\"]")
        .replace("recipients = [\"corp.example\", ", "recipients = [");
    let gateway = Gateway::start(&(anybody + "[bounce]\ndelay_notice = \"1s\"\n"));
    let to = [
        ("yes@partner.example", "NOTIFY=SUCCESS,DELAY"),
        ("no@partner.example", "NOTIFY=SUCCESS,FAILURE,DELAY"),
    ];
    let id = asked(&gateway, "ENVID=1", &to);
    let trace = traced(&gateway, &id, "not told");
    assert!(
        !trace.contains("reported") && !trace.contains("bounced"),
        "{trace}"
    );
    let explained = stdout(&gateway.cli(&[
        "explain",
        "--from",
        "app@corp.example",
        "--to",
        "x@partner.example",
    ]));
    assert!(
        explained.contains("reports    none to the sender"),
        "{explained}"
    );
    // Those of a machine's answer, and of nobody's message.
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    let text = format!("Auto-Submitted: auto-replied\r\n{TEXT}");
    ask(&mut client, "ENVID=2", &to, &text);
    client.expect("MAIL FROM:<> ENVID=3", "250");
    client.expect(
        "RCPT TO:<yes@partner.example> NOTIFY=SUCCESS,FAILURE,DELAY",
        "250",
    );
    client.expect("DATA", "354");
    client.send(TEXT.as_bytes());
    let id = queued_id(&client.say("."));
    traced(&gateway, &id, "delivered");
    sink.wait(3);
    assert!(reports(&sink, "Reporting-MTA").is_empty());
}

/// What waits is told of once, across a crash; and the administrators hear of failures alone.
#[test]
fn a_delay_is_told_once_across_a_crash() {
    let sink = Script::default()
        .offers(WITHOUT)
        .when(|at| {
            at.line
                .contains("wait@partner")
                .then(|| Act::says("450 4.2.1 busy"))
        })
        .start();
    let config =
        basic(sink.address) + "[bounce]\ndelay_notice = \"1s\"\ncopy_to = [\"ops@corp.example\"]\n";
    let mut gateway = Gateway::start(&config);
    let to = [
        ("wait@partner.example", "NOTIFY=DELAY"),
        ("quick@partner.example", "NOTIFY=DELAY"),
    ];
    let id = asked(&gateway, "ENVID=1", &to);
    let told = wait("the report", || reports(&sink, "Action: delayed").pop());
    let text = told.text();
    for words in ["Status: 4.2.1\r\n", "Will-Retry-Until: ", "450 4.2.1 busy"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        !text.contains("quick@") && told.to == ["app@corp.example"],
        "{text}"
    );
    gateway.kill();
    gateway.restart();
    // It is tried again, and looked at again.
    let before = sink
        .seen()
        .lines
        .iter()
        .filter(|line| line.contains("wait@"))
        .count();
    wait("three more tries", || {
        let lines = &sink.seen().lines;
        (lines.iter().filter(|line| line.contains("wait@")).count() >= before + 3).then_some(())
    });
    // One that was being sent at the crash may have come twice, and is the same one.
    let told = reports(&sink, "Action: delayed");
    let ids: BTreeSet<String> = (told.iter())
        .filter_map(|mail| {
            let text = mail.text();
            let id = text.lines().find(|line| line.starts_with("Message-ID: "))?;
            Some(id.to_owned())
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert_eq!(trace.matches("delayed, report").count(), 1, "{trace}");
}

/// Whatever a crash cuts off: what was delivered and its report are there together, or neither.
#[test]
fn no_crash_loses_a_report_or_makes_one_twice() {
    let config = basic(([127, 0, 0, 1], 9).into());
    let from = config.find("[[connector]]").unwrap();
    let config = format!(
        "{}[[connector]]\nname = \"up\"\ntype = \"capture\"\ndirectory = \"kept\"\n",
        &config[..from]
    );
    let mut gateway = Gateway::start(&config);
    let mut asked = BTreeSet::new();
    for round in 0..5 {
        let mut client = gateway.connect("local");
        client.expect("EHLO app", "250");
        for n in 0..12 {
            let token = format!("t{round}x{n}");
            let to = [("x@partner.example", "NOTIFY=SUCCESS")];
            let reply = ask(&mut client, &format!("ENVID={token}"), &to, TEXT);
            assert!(reply.starts_with("250"), "{reply}");
            asked.insert(token);
        }
        gateway.kill();
        gateway.restart();
    }
    let kept = gateway.path("kept");
    // Of each token the reports, by the ids that they have.
    let found = || {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in fs::read_dir(&kept).unwrap().flatten() {
            let path = file.path();
            if path.extension().is_none_or(|ext| ext != "eml") {
                continue;
            }
            let text = fs::read_to_string(path).unwrap_or_default();
            let Some((_, rest)) = text.split_once("Original-Envelope-Id: ") else {
                continue;
            };
            let token = rest.lines().next().unwrap().to_owned();
            let id = text
                .lines()
                .find(|line| line.starts_with("Message-ID:"))
                .unwrap();
            assert!(text.contains("Action: delivered\r\n"), "{text}");
            found.entry(token).or_default().insert(id.to_owned());
        }
        found
    };
    let all = wait("a report of each", || {
        let found = found();
        asked
            .iter()
            .all(|token| found.contains_key(token))
            .then_some(found)
    });
    wait("nothing waits", || {
        let stats: Value =
            serde_json::from_slice(&gateway.cli(&["queue", "list", "--json"]).stdout).ok()?;
        stats.as_array()?.is_empty().then_some(())
    });
    assert_eq!(all.len(), asked.len());
    let twice: Vec<_> = found()
        .into_iter()
        .filter(|(_, ids)| ids.len() != 1)
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}

const READER: &str = r#"
import email, email.policy, json, sys
message = email.message_from_binary_file(open(sys.argv[1], "rb"), policy=email.policy.default)
def defects(part):
    found = [str(d) for d in part.defects]
    for value in part.values():
        found += [str(d) for d in getattr(value, "defects", [])]
    return found
parts = message.get_payload()
print(json.dumps({
    "type": message.get_content_type(),
    "report": message["content-type"].params.get("report-type"),
    "auto": message["auto-submitted"],
    "defects": sum([defects(p) for p in message.walk()], []),
    "types": [p.get_content_type() for p in parts],
    "people": parts[0].get_content(),
    "groups": [{k: str(v) for k, v in g.items()} for g in parts[1].get_payload()],
    "body": parts[2].get_payload()[0].get_content() if parts[2].get_content_type() == "message/rfc822" else None,
}))
"#;

fn read(dir: &Path, octets: &[u8]) -> Value {
    let file = dir.join("report.eml");
    fs::write(&file, octets).unwrap();
    let said = run("python3", &["-c", READER, file.to_str().unwrap()]);
    serde_json::from_str(&said).unwrap()
}

#[test]
#[ignore = "needs python3, which tests/run installs"]
fn reports_are_read_by_another_program() {
    need("python3");
    let sink = Script::default()
        .offers(WITHOUT)
        .when(|at| {
            at.line
                .contains("no@partner")
                .then(|| Act::says("550-5.1.1 no\r\n550 5.1.1 such user"))
        })
        .when(|at| {
            at.line
                .contains("wait@partner")
                .then(|| Act::says("450 4.2.1 busy"))
        })
        .start();
    let config = basic(sink.address).replace(
        "[[route]]\nname = \"all\"",
        "[[route]]\nname = \"kept\"\nrecipients = [\"kept@partner.example\"]\nconnectors = [\"files\"]\n[[route]]\nname = \"all\"",
    ) + "[[connector]]\nname = \"files\"\ntype = \"capture\"\ndirectory = \"kept\"\n\
         [bounce]\ndelay_notice = \"1s\"\n";
    let gateway = Gateway::start(&config);
    let to = [
        (
            "no@partner.example",
            "NOTIFY=FAILURE ORCPT=rfc822;old+2Bno@corp.example",
        ),
        (
            "wait@partner.example",
            "NOTIFY=DELAY ORCPT=utf-8;w\\x{E4}it@corp.example",
        ),
        ("yes@partner.example", "NOTIFY=SUCCESS,FAILURE,DELAY"),
    ];
    asked(&gateway, "RET=FULL ENVID=a+20b+3D+2B;<c>", &to);
    let both = [("kept@partner.example", "NOTIFY=SUCCESS")];
    asked(&gateway, "RET=FULL ENVID=kept", &both);
    let dir = tempfile::tempdir().unwrap();
    for (action, recipient, status, original) in [
        (
            "failed",
            "no@partner.example",
            "5.1.1",
            Some("rfc822;old+no@corp.example"),
        ),
        ("relayed", "yes@partner.example", "2.0.0", None),
        (
            "delayed",
            "wait@partner.example",
            "4.2.1",
            Some("utf-8;w\\x{E4}it@corp.example"),
        ),
    ] {
        let mail = wait(action, || {
            reports(&sink, &format!("Action: {action}")).pop()
        });
        let read = read(dir.path(), &mail.data);
        assert_eq!(read["defects"], serde_json::json!([]), "{read}");
        assert_eq!(
            (&read["type"], &read["report"], &read["auto"]),
            (
                &"multipart/report".into(),
                &"delivery-status".into(),
                &"auto-replied".into()
            )
        );
        let third = if action == "failed" {
            "message/rfc822"
        } else {
            "text/rfc822-headers"
        };
        assert_eq!(
            read["types"],
            serde_json::json!(["text/plain", "message/delivery-status", third])
        );
        let groups = read["groups"].as_array().unwrap();
        assert_eq!(groups.len(), 2, "{read}");
        assert_eq!(groups[0]["Original-Envelope-Id"], "a b=+;<c>");
        assert_eq!(groups[0]["Reporting-MTA"], "dns; relay.corp.example");
        assert_eq!(groups[1]["Final-Recipient"], format!("rfc822; {recipient}"));
        assert_eq!(
            (&groups[1]["Action"], &groups[1]["Status"]),
            (&action.into(), &status.into())
        );
        assert_eq!(
            groups[1].get("Original-Recipient").and_then(Value::as_str),
            original,
            "{read}"
        );
        assert!(
            read["people"].as_str().unwrap().contains(recipient),
            "{read}"
        );
        if action == "failed" {
            assert!(
                read["body"].as_str().unwrap().contains("the body"),
                "{read}"
            );
        }
    }
    // By the way of the message that it is about.
    let kept = wait("delivered", || {
        let files = fs::read_dir(gateway.path("kept")).ok()?.flatten();
        let mut all = files.filter_map(|file| fs::read(file.path()).ok());
        all.find(|octets| String::from_utf8_lossy(octets).contains("Action: delivered"))
    });
    let read = read(dir.path(), &kept);
    assert_eq!(
        read["groups"][1]["Final-Recipient"],
        "rfc822; kept@partner.example"
    );
}

fn without_dsn(relay: &Relay) {
    let etc = relay.path().join("etc");
    let run = |command: &mut Command| {
        assert!(command.stderr(Stdio::null()).status().unwrap().success());
    };
    run(Command::new("postconf")
        .arg("-c")
        .arg(&etc)
        .args(["-e", "smtpd_discard_ehlo_keywords=dsn"]));
    run(Command::new("postfix").arg("-c").arg(&etc).arg("reload"));
    wait("no DSN", || {
        let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
        client.reply();
        (!client.say("EHLO x").contains("DSN")).then_some(())
    });
}

const SUCCESS: &[(&str, &str)] = &[("x@partner.example", "NOTIFY=SUCCESS")];

/// Behind us: one that offers it makes the report, with what it was given; for one that does not we make it.
#[test]
#[ignore = "needs Postfix and Exim, which tests/run gets"]
fn real_relays_behind_us() {
    for (name, offers) in [
        ("postfix", true),
        ("postfix", false),
        ("exim", true),
        ("exim", false),
    ] {
        let more: &[(&str, &str)] = if offers { &[("DSN", "yes")] } else { &[] };
        let relay = Relay::start_to(name, None, more);
        if name == "postfix" && !offers {
            without_dsn(&relay);
        }
        let gateway = Gateway::start(&basic(([127, 0, 0, 1], relay.port()).into()));
        let id = asked(&gateway, "RET=HDRS ENVID=QQ+2B1", SUCCESS);
        let report = wait(&format!("{name} {offers}"), || {
            reports(relay.sink(), "QQ").pop()
        });
        assert_eq!(report.to, ["app@corp.example"]);
        let text = report.text().to_ascii_lowercase();
        let by = if offers {
            "relay.bench.example"
        } else {
            "relay.corp.example"
        };
        for words in [
            "original-envelope-id: qq".to_owned(),
            format!("reporting-mta: dns; {by}"),
            "action: relayed".to_owned(),
        ] {
            let found = text.contains(&words)
                || name == "exim" && words.starts_with("action") && text.contains("action: ");
            assert!(found, "{name} {offers} {words}: {text}");
        }
        if offers {
            assert!(
                text.contains("original-recipient: rfc822;x@partner.example"),
                "{text}"
            );
        }
        let trace = traced(&gateway, &id, "delivered");
        assert_eq!(trace.contains("reported"), !offers, "{name}: {trace}");
        assert_eq!(reports(relay.sink(), "QQ").len(), 1);
    }
}

/// Before us: what their clients asked for comes through them, and our report names what they named.
#[test]
#[ignore = "needs Postfix and Exim, which tests/run gets"]
fn real_relays_before_us() {
    for name in ["postfix", "exim"] {
        let sink = taker(WITHOUT);
        let gateway = Gateway::start(&basic(sink.address));
        let relay = Relay::start_to(
            name,
            Some(gateway.address("local").port()),
            &[("DSN", "yes")],
        );
        let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
        client.reply();
        client.expect("EHLO app.corp.example", "250");
        let to = [
            (
                "x@partner.example",
                "NOTIFY=SUCCESS ORCPT=rfc822;old+2Bx@corp.example",
            ),
            ("n@partner.example", "NOTIFY=NEVER"),
        ];
        let reply = ask(&mut client, "RET=HDRS ENVID=QQ1", &to, TEXT);
        assert!(reply.starts_with("250"), "{reply}");
        let report = wait(name, || reports(&sink, "Original-Envelope-Id: QQ1").pop());
        let text = report.text();
        for words in [
            "Reporting-MTA: dns; relay.corp.example\r\n",
            "Original-Recipient: rfc822;old+x@corp.example\r\n",
            "Action: relayed\r\n",
        ] {
            assert!(text.contains(words), "{name} {words}: {text}");
        }
        assert!(!text.contains("n@partner.example"), "{text}");
    }
}
