//! Exchange Online through the real gateway: a tenant of our own stands in for Microsoft's.

use crate::harness::time::stays;
use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::harness::{
    cloud::{Tenant, error},
    gateway::{Gateway, basic, queued_id, stdout, wait},
    http::{Wire, serve},
};

fn config(tenant: &Tenant, more: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!("{front}{}{more}", tenant.connector())
}

fn mail(gateway: &Gateway, from: &str, to: &[&str], content: &str) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&client.mail(from, to, content))
}

fn set(addresses: &[&str]) -> HashSet<String> {
    addresses.iter().map(|a| (*a).to_owned()).collect()
}

#[test]
fn a_message_leaves_for_the_envelope_and_nobody_else() {
    let tenant = Tenant::start(|_, _| None);
    let gateway = Gateway::start(&config(&tenant, ""));
    let content = "From: scan@corp.example <scan@corp.example>\r\nTo: X <x@corp.example>, v@victim.tld\r\nCc: undisclosed-recipients:;\r\nBcc: w@victim.tld\r\nResent-To: q@victim.tld\r\nReply-To: r@corp.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <kept@corp.example>\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\u{e4} body\r\n..\r\n";
    let id = mail(
        &gateway,
        "scan@corp.example",
        &["x@corp.example", "y@partner.example"],
        content,
    );
    let taken = tenant.wait(1).remove(0);
    assert_eq!(taken.mailbox, "scan@corp.example");
    assert_eq!(
        taken.recipients,
        set(&["x@corp.example", "y@partner.example"])
    );
    assert!(!taken.content.contains("victim"), "{}", taken.content);
    for kept in [
        "Message-ID: <kept@corp.example>",
        "Date: Mon, 23 Nov 2026 10:00:00 +0000",
        "Reply-To: r@corp.example",
        "From: \"scan@corp.example\" <scan@corp.example>",
    ] {
        assert!(taken.content.contains(kept), "{kept}: {}", taken.content);
    }
    assert!(
        taken.content.ends_with("\r\n\r\n\u{e4} body\r\n.\r\n"),
        "{}",
        taken.content
    );
    let trace = wait("the trace", || {
        let trace = stdout(&gateway.cli(&["trace", &id]));
        trace.contains("delivered").then_some(trace)
    });
    assert!(
        trace.contains("as scan@corp.example") && trace.contains("r-1"),
        "{trace}"
    );
    let log = gateway.log();
    assert!(
        !log.contains("hush") && !log.contains("eyJ"),
        "a secret is in the log"
    );
    let check = stdout(&gateway.cli(&["check", "--connect"]));
    assert!(
        check.contains("Mail.Send") && !check.contains("eyJ"),
        "{check}"
    );
    let test = stdout(&gateway.cli(&[
        "test",
        "up",
        "--from",
        "scan@corp.example",
        "--to",
        "x@corp.example",
    ]));
    assert!(
        test.contains("202") && !test.contains("eyJ") && !test.contains("hush"),
        "{test}"
    );
}

#[test]
fn every_outcome_ends_as_it_should() {
    for (said, state, copies) in [
        // An address that was refused once is tried once more.
        (Some(error(400, "ErrorInvalidRecipients", "")), "done", 1),
        // 202 with Retry-After is delivered, and not sent again.
        (
            Some((202, "Retry-After: 5\r\n".to_owned(), String::new())),
            "done",
            0,
        ),
        (Some(error(400, "ErrorMimeContentInvalid", "")), "failed", 0),
        (Some(error(413, "x", "")), "failed", 0),
        (
            Some(error(503, "ErrorServerBusy", "Retry-After: 1\r\n")),
            "done",
            1,
        ),
        (
            Some(error(429, "ApplicationThrottled", "Retry-After: 1\r\n")),
            "done",
            1,
        ),
        (
            Some(error(401, "InvalidAuthenticationToken", "")),
            "done",
            1,
        ),
    ] {
        let what = format!("{said:?}");
        let tenant = Tenant::start(move |n, _| if n == 0 { said.clone() } else { None });
        let gateway = Gateway::start(&config(&tenant, ""));
        let id = mail(
            &gateway,
            "a@corp.example",
            &["x@corp.example"],
            "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
        );
        wait(&format!("{state} after {what}"), || {
            let list: serde_json::Value =
                serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--all", "--json"])))
                    .unwrap();
            list.as_array()
                .unwrap()
                .iter()
                .any(|e| e["id"] == id.as_str() && e["state"] == state)
                .then_some(())
        });
        let originals = || {
            let sent = tenant.mails();
            let is_it = |content: &str| {
                content.contains("Subject: s\r\n") && !content.contains("multipart/report")
            };
            sent.iter().filter(|m| is_it(&m.content)).count()
        };
        let trace = stdout(&gateway.cli(&["trace", &id]));
        let what = format!(
            "{copies} copies after {what}\n{trace}\n{:#?}",
            tenant.mails()
        );
        stays(&what, Duration::from_millis(300), || originals() == copies);
    }
}

/// Exchange takes a report only from the mailbox itself.
#[test]
fn a_report_is_from_the_mailbox_of_the_connector() {
    let tenant = Tenant::start(|n, _| (n == 0).then(|| error(400, "ErrorMimeContentInvalid", "")));
    let gateway = Gateway::start(&config(&tenant, "mailbox = \"noreply@corp.example\"\n"));
    mail(
        &gateway,
        "app@corp.example",
        &["x@partner.example"],
        "From: noreply@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    let report = wait("the report", || {
        let is_report = |text: &str| text.contains("multipart/report");
        tenant.mails().into_iter().find(|m| is_report(&m.content))
    });
    assert_eq!(report.mailbox, "noreply@corp.example");
    assert_eq!(report.recipients, set(&["app@corp.example"]));
    assert!(
        report.content.contains("<noreply@corp.example>"),
        "{}",
        report.content
    );
}

#[test]
fn a_504_is_in_doubt_and_sent_again_later_the_same() {
    let tenant = Tenant::start(|n, _| (n == 0).then(|| error(504, "UnknownError", "")));
    let gateway = Gateway::start(&config(&tenant, "\n[queue]\nin_doubt_wait = \"8s\"\n"));
    let id = mail(
        &gateway,
        "a@corp.example",
        &["x@corp.example"],
        "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    wait("in doubt", || {
        stdout(&gateway.cli(&["trace", &id]))
            .contains("in doubt")
            .then_some(())
    });
    assert!(tenant.mails().is_empty());
    tenant.wait(1);
}

#[test]
fn a_mailbox_that_is_refused_holds_its_own_mail_alone() {
    let tenant = Tenant::start(|_, mailbox| {
        (mailbox == "bad@corp.example").then(|| error(403, "ErrorAccessDenied", ""))
    });
    let gateway = Gateway::start(&config(&tenant, ""));
    let held = mail(
        &gateway,
        "bad@corp.example",
        &["x@corp.example"],
        "From: bad@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    wait("the mailbox is paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        (text.contains("up/bad@corp.example") && text.contains("Mail.Send")).then_some(())
    });
    for n in 0..5 {
        mail(
            &gateway,
            "good@corp.example",
            &["x@corp.example"],
            &format!("From: good@corp.example\r\nSubject: {n}\r\n\r\nb\r\n"),
        );
    }
    tenant.wait(5);
    wait("only the refused one is left", || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        let list = list.as_array().unwrap();
        (list.len() == 1 && list[0]["id"] == held.as_str() && list[0]["state"] == "waiting")
            .then_some(())
    });
}

/// Exchange says `ErrorAccessDenied` too where Send As is missing: that is a matter of the From, and the mailbox's own mail leaves.
#[test]
fn a_from_that_is_refused_holds_no_other_mail_of_the_mailbox() {
    let tenant = Tenant::start(|n, _| (n == 0).then(|| error(403, "ErrorAccessDenied", "")));
    let more = "mailbox = \"p@corp.example\"\n";
    let gateway = Gateway::start(&config(&tenant, more));
    let from = |who: &str| {
        let content = format!("From: {who}@corp.example\r\nSubject: s\r\n\r\nb\r\n");
        let sender = format!("{who}@corp.example");
        mail(&gateway, &sender, &["x@corp.example"], &content)
    };
    let held = from("foreign");
    let status = wait("the From is paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains("grant Send As").then_some(text)
    });
    assert!(status.contains("foreign@corp.example"), "{status}");
    for _ in 0..3 {
        from("p");
    }
    tenant.wait(3);
    wait("only the refused one is left", || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        let list = list.as_array().unwrap();
        (list.len() == 1 && list[0]["id"] == held.as_str()).then_some(())
    });
}

#[test]
fn a_hundred_messages_while_a_third_of_the_requests_fail() {
    let failures = AtomicUsize::new(0);
    let tenant = Tenant::start(move |n, _| {
        // A fixed pseudo-random third.
        let unlucky = (n * 7919 + 13) % 10 < 3;
        unlucky.then(|| {
            failures.fetch_add(1, Ordering::SeqCst);
            match n % 3 {
                0 => error(503, "ErrorServerBusy", ""),
                1 => error(429, "ApplicationThrottled", "Retry-After: 1\r\n"),
                _ => error(500, "ErrorInternalServerError", ""),
            }
        })
    });
    let gateway = Gateway::start(&config(&tenant, ""));
    let mut client = gateway.connect("local");
    client.expect("EHLO x", "250");
    for n in 0..100 {
        queued_id(&client.mail(
            "a@corp.example",
            &["x@corp.example"],
            &format!("From: a@corp.example\r\nSubject: number {n}.\r\n\r\nb\r\n"),
        ));
    }
    let mails = tenant.wait(100);
    let subjects: HashSet<String> = mails
        .iter()
        .map(|m| {
            m.content
                .split("Subject: ")
                .nth(1)
                .unwrap()
                .split("\r\n")
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!((mails.len(), subjects.len()), (100, 100), "each once");
    assert!(
        tenant.most_at_once() <= 4,
        "{} at once",
        tenant.most_at_once()
    );
}

#[test]
fn a_message_too_large_for_this_connector_goes_to_the_next_or_fails_with_5_3_4() {
    let tenant = Tenant::start(|_, _| None);
    let sink = super::harness::upstream::Upstream::start();
    let more = format!(
        "mime_limit = \"100KB\"\n[[connector]]\nname = \"second\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        sink.address.port()
    );
    let with_second = config(&tenant, &more)
        .replace("connectors = [\"up\"]", "connectors = [\"up\", \"second\"]");
    let gateway = Gateway::start(&with_second);
    let large = format!(
        "From: a@corp.example\r\nSubject: s\r\n\r\n{}",
        "0123456789012345678901234567890123456789\r\n".repeat(5000)
    );
    mail(&gateway, "a@corp.example", &["x@corp.example"], &large);
    sink.wait(1);
    assert!(tenant.mails().is_empty());
    let alone = Gateway::start(&config(&tenant, "mime_limit = \"100KB\"\n"));
    let id = mail(&alone, "a@corp.example", &["x@corp.example"], &large);
    wait("failed", || {
        let shown = stdout(&alone.cli(&["queue", "show", &id]));
        (shown.contains("failed") && shown.contains("5.3.4")).then_some(())
    });
}

/// None of these is a verdict on the message, so none of them may fail it: it waits, and leaves once.
#[test]
fn what_is_no_verdict_on_the_message_fails_nothing() {
    let html = "Content-Type: text/html\r\n";
    let json = "Content-Type: application/json\r\n";
    let page = "<html><title>Access denied</title><p>blocked by the web gateway</p></html>";
    let cut = "{\"error\":{\"code\":\"ErrorInvalidRecipients\",\"mess";
    let odd = vec![
        (400, html.to_owned(), page.to_owned()),
        (400, json.to_owned(), String::new()),
        (400, json.to_owned(), cut.to_owned()),
        error(400, "UnknownError", ""),
        error(400, "BadRequest", ""),
        error(403, "NeverHeardOf", ""),
        error(404, "NeverHeardOf", ""),
        error(412, "ErrorIrresolvableConflict", ""),
        (403, html.to_owned(), page.to_owned()),
        (413, html.to_owned(), page.to_owned()),
        (431, "Via: 1.1 gateway\r\n".to_owned(), "no".to_owned()),
        (451, String::new(), String::new()),
    ];
    let count = odd.len();
    let tenant = Tenant::start(move |n, _| odd.get(n).cloned());
    let gateway = Gateway::start(&config(&tenant, "large_messages = \"refuse\"\n"));
    let id = mail(
        &gateway,
        "a@corp.example",
        &["x@corp.example"],
        "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    let mails = tenant.wait(1);
    assert_eq!(mails.len(), 1, "{mails:#?}");
    let trace = wait("delivered", || {
        let trace = stdout(&gateway.cli(&["trace", &id]));
        trace.contains("delivered").then_some(trace)
    });
    assert!(!trace.contains("failed"), "{trace}");
    let asked = tenant.endpoint.asked();
    let sends = asked.iter().filter(|a| a.target.ends_with("/sendMail"));
    assert_eq!(sends.count(), count + 1);
    let log = gateway.log();
    assert!(log.contains("a proxy answered in Graph's place"), "{log}");
    assert!(!log.contains("blocked by the web gateway"), "{log}");
}

/// 413 sends a message by a draft; not where the code says that the mailbox may send nothing at all.
#[test]
fn a_code_under_413_counts_before_the_size() {
    for code in [
        "ErrorAccountSuspend",
        "ErrorSendAsDenied",
        "ErrorQuotaExceeded",
    ] {
        let tenant = Tenant::start(move |_, _| Some(error(413, code, "")));
        let gateway = Gateway::start(&config(&tenant, ""));
        let id = mail(
            &gateway,
            "a@corp.example",
            &["x@corp.example"],
            "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
        );
        wait(code, || {
            let trace = stdout(&gateway.cli(&["trace", &id]));
            trace.contains(code).then_some(())
        });
        let asked = tenant.endpoint.asked();
        let drafts = asked.iter().filter(|a| a.target.contains("/messages"));
        assert_eq!(drafts.count(), 0, "{code}: {asked:#?}");
    }
}

#[test]
fn a_proxy_that_asks_for_a_login_in_graphs_place_pauses_the_connector() {
    let tenant =
        Tenant::start(|_, _| Some((407, "Content-Type: text/html\r\n".into(), String::new())));
    let gateway = Gateway::start(&config(&tenant, ""));
    mail(
        &gateway,
        "a@corp.example",
        &["x@corp.example"],
        "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    wait("the connector is paused", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        (text.contains("up is paused") && text.contains("asks for a login")).then_some(())
    });
}

/// A body in gzip of what is given, stored and not compressed (RFC 1952, RFC 1951 §3.2.4).
fn gzip(body: &[u8]) -> Vec<u8> {
    let mut crc = !0_u32;
    for byte in body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    let length = u16::try_from(body.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(body);
    out.extend((!crc).to_le_bytes());
    out.extend(u32::from(length).to_le_bytes());
    out
}

#[test]
fn an_error_in_gzip_is_read() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serve(listener, answer_in_gzip);
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let gateway = Gateway::start(&format!(
        "{front}[[connector]]\nname = \"up\"\ntype = \"graph\"\ntenant_id = \"corp.example\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\n\
         client_secret = \"hush-hush-value\"\nlogin_url = \"{url}\"\ngraph_url = \"{url}\"\n"
    ));
    let id = mail(
        &gateway,
        "a@corp.example",
        &["x@corp.example"],
        "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
    );
    wait("failed", || {
        let shown = stdout(&gateway.cli(&["queue", "show", &id]));
        (shown.contains("failed") && shown.contains("400 ErrorMimeContentInvalid")).then_some(())
    });
}

/// A token plainly, an error in gzip, on one connection.
fn answer_in_gzip(mut wire: Wire) -> Option<()> {
    loop {
        let head = wire.head()?;
        wire.body(head.length())?;
        let (status, more, body) = if head.target().contains("/token") {
            let token = br#"{"token_type":"Bearer","access_token":"opaque","expires_in":3599}"#;
            (200, "", token.to_vec())
        } else {
            let (_, _, said) = error(400, "ErrorMimeContentInvalid", "");
            (400, "Content-Encoding: gzip\r\n", gzip(said.as_bytes()))
        };
        let more = format!("Content-Type: application/json\r\n{more}");
        wire.answer(status, &more, &body)?;
    }
}

/// The subjects of what the tenant took, sorted.
fn subjects(tenant: &Tenant) -> Vec<String> {
    let subject = |content: &str| {
        let from = content.split("Subject: ").nth(1)?;
        Some(from.split("\r\n").next()?.to_owned())
    };
    let mails = tenant.mails();
    let mut found: Vec<String> = mails.iter().filter_map(|m| subject(&m.content)).collect();
    found.sort();
    found
}

fn as_from(from: &str, subject: &str) -> String {
    format!("From: {from}\r\nSubject: {subject}\r\n\r\nb\r\n")
}

/// Some messages whose From may not be used, among many that may: first, last, in between and the oldest after a restart. Those with
/// that From wait, and nobody else; once Send As is granted, they leave at once.
#[test]
fn a_foreign_from_holds_up_its_own_mail_alone() {
    let tenant = Tenant::start(|_, _| None);
    let settings = config(&tenant, "mailbox = \"box@corp.example\"\n");
    let mut gateway = Gateway::start(&settings);
    let foreign = ["one@corp.example", "two@corp.example", "one@corp.example"];
    let mut expected = Vec::new();
    let mut good = |gateway: &Gateway, count: usize| {
        for _ in 0..count {
            let subject = format!("good {:02}.", expected.len());
            mail(
                gateway,
                "app@corp.example",
                &["x@corp.example"],
                &as_from("box@corp.example", &subject),
            );
            expected.push(subject);
        }
        tenant.wait(expected.len());
        assert_eq!(subjects(&tenant), expected);
    };
    for (at, from) in foreign.iter().enumerate() {
        let content = as_from(from, &format!("bad {at}."));
        mail(&gateway, "app@corp.example", &["x@corp.example"], &content);
        good(&gateway, 5);
    }
    let status = wait("both Froms are paused, and nothing else", || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        let paused = text.matches("is paused").count();
        (paused == 2).then_some(text)
    });
    for from in ["one", "two"] {
        let lane = format!("up/box@corp.example/{from}@corp.example is paused");
        assert!(status.contains(&lane), "{status}");
    }
    assert!(status.contains("grant Send As"), "{status}");
    let left = |gateway: &Gateway| {
        wait("only those with a foreign From are left, waiting", || {
            let list = stdout(&gateway.cli(&["queue", "list", "--json"]));
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            let list = list.as_array().unwrap();
            let all_wait = list.iter().all(|e| e["state"] == "waiting");
            (list.len() == foreign.len() && all_wait).then_some(())
        });
    };
    // What was sent is written down: a kill before that may send it twice.
    left(&gateway);
    gateway.kill();
    gateway.restart();
    good(&gateway, 7);
    left(&gateway);
    let asked = tenant.asked_to_send();
    assert!(
        asked <= expected.len() + foreign.len() + 2,
        "{asked} requests for {} mails",
        expected.len()
    );
    tenant.grant_send_as("one@corp.example");
    tenant.grant_send_as("two@corp.example");
    assert!(gateway.cli(&["reload"]).status.success());
    tenant.wait(expected.len() + foreign.len());
}

/// Of five recipients one cannot be: the others get it once, and the sender hears of that one alone.
#[test]
fn one_impossible_recipient_of_five_fails_alone() {
    let tenant = Tenant::with_drafts();
    let to = ["a", "b", "impossible", "c", "d"].map(|local| format!("{local}@corp.example"));
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for (limit, body) in [
        ("3MB", "b\r\n".to_owned()),
        ("1KB", "0123456\r\n".repeat(500)),
    ] {
        let gateway = Gateway::start(&config(&tenant, &format!("mime_limit = \"{limit}\"\n")));
        let (asked, drafts) = (tenant.asked_to_send(), tenant.drafts.sent().len());
        let content = format!(
            "From: app@corp.example\r\nTo: {}\r\nSubject: s\r\n\r\n{body}",
            to.join(", ")
        );
        let id = mail(&gateway, "app@corp.example", &to, &content);
        let shown = wait("an end for each", || {
            let shown = stdout(&gateway.cli(&["queue", "list", "--all", "--json"]));
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            let entry = shown
                .as_array()?
                .iter()
                .find(|e| e["id"] == id.as_str())?
                .clone();
            let done = |r: &serde_json::Value| r["state"] == "done" || r["state"] == "failed";
            entry["recipients"]
                .as_array()?
                .iter()
                .all(done)
                .then_some(entry)
        });
        for recipient in shown["recipients"].as_array().unwrap() {
            let is_impossible = recipient["address"] == "impossible@corp.example";
            let expected = if is_impossible { "failed" } else { "done" };
            assert_eq!(recipient["state"], expected, "{shown:#}");
        }
        let report = wait("the report", || {
            let mut mails = tenant.mails();
            mails.retain(|m| m.content.contains("multipart/report") && m.content.contains(&id));
            let sent = tenant.drafts.sent();
            let reports = mails.len()
                + sent
                    .iter()
                    .filter(|s| s.recipients().contains("app@corp.example"))
                    .count();
            (reports > 0).then_some(mails)
        });
        for report in report {
            assert_eq!(
                report.content.matches("Final-Recipient").count(),
                1,
                "{}",
                report.content
            );
        }
        // Each of the others once, by whichever way.
        let mut reached: Vec<String> = Vec::new();
        for mail in tenant.mails().iter().filter(|m| {
            m.content.contains("Subject: s\r\n") && !m.content.contains("multipart/report")
        }) {
            reached.extend(mail.recipients.iter().cloned());
        }
        let sent = tenant.drafts.sent();
        for sent in &sent[drafts..] {
            reached.extend(
                sent.recipients()
                    .into_iter()
                    .filter(|r| r != "app@corp.example"),
            );
        }
        if limit == "3MB" {
            let asked = tenant.asked_to_send() - asked;
            assert!(asked <= 9, "{asked} requests");
        } else {
            reached.drain(..4);
        }
        reached.sort();
        assert_eq!(
            reached,
            ["a", "b", "c", "d"].map(|l| format!("{l}@corp.example"))
        );
    }
}

/// Somebody invents senders: few requests, few lines, and the mail of a mailbox that there is goes on.
#[test]
fn invented_senders_are_bounded_and_hold_up_nobody() {
    let tenant = Tenant::start(|_, mailbox| {
        mailbox
            .starts_with("invented")
            .then(|| error(404, "ErrorInvalidUser", ""))
    });
    let gateway = Gateway::start(&config(&tenant, ""));
    let real = |n: usize| {
        let content = as_from("real@corp.example", &format!("real {n}."));
        mail(&gateway, "real@corp.example", &["x@corp.example"], &content);
        tenant.wait(n + 1);
    };
    real(0);
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    for n in 0..300 {
        let from = format!("invented{n}@corp.example");
        let content = as_from(&from, "s");
        queued_id(&client.mail(&from, &["x@corp.example"], &content));
    }
    real(1);
    real(2);
    let asked = tenant.asked_to_send() - 3;
    assert!((30..=60).contains(&asked), "{asked} requests");
    let log = gateway.log();
    let errors = log.lines().filter(|line| line.contains(" ERROR ")).count();
    assert!(errors <= 20, "{errors} errors");
    let list = stdout(&gateway.cli(&["queue", "list", "--all", "--json"]));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let is_kept = |e: &&serde_json::Value| {
        let is_invented = e["sender"].as_str().unwrap().starts_with("invented");
        is_invented && (e["state"] == "waiting" || e["state"] == "sending")
    };
    let kept = list.as_array().unwrap().iter().filter(is_kept).count();
    assert_eq!(kept, 300, "none is lost or bounced");
}
