//! Mail above `mime_limit` through Graph: as a draft with attachments, whole, once, and with nothing left behind, whatever fails.

use crate::harness::time::{at_any_moment, stays};
use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::harness::{
    cloud::Tenant,
    cloud_drafts::{Act, Attached, Sent, Step},
    gateway::{Gateway, basic, queued_id, stdout, wait},
    upstream::Upstream,
};

fn config(tenant: &Tenant, more: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    format!(
        "{front}{}{more}\n[queue]\nin_doubt_wait = \"1s\"\n",
        tenant.connector()
    )
}

fn mail(gateway: &Gateway, to: &[&str], content: &str) -> String {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    queued_id(&client.mail("scan@corp.example", to, content))
}

fn octets(seed: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut octets = vec![0; count];
    random.fill(&mut octets);
    octets
}

fn encoded(octets: &[u8]) -> String {
    let text = STANDARD.encode(octets);
    let mut out = String::with_capacity(text.len() + text.len() / 38);
    for line in text.as_bytes().chunks(76) {
        out.push_str(std::str::from_utf8(line).unwrap());
        out.push_str("\r\n");
    }
    out
}

/// A part in base64 with these further fields.
fn part(fields: &str, octets: &[u8]) -> String {
    format!(
        "--mixed\r\n{fields}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        encoded(octets)
    )
}

const HEADER: &str = "From: \"scan@corp.example\" <scan@corp.example>\r\nTo: =?utf-8?Q?J=C3=BCrgen?= <x@corp.example>, v@victim.tld\r\nReply-To: Desk <desk@corp.example>\r\nSubject: =?utf-8?B?8J+YgCBSZWNobnVuZ2Vu?=\r\nMessage-ID: <kept@corp.example>\r\nMIME-Version: 1.0\r\n";

/// Text and two pieces of an attachment.
fn simple(file: &[u8]) -> String {
    format!(
        "{HEADER}Content-Type: multipart/mixed; boundary=mixed\r\n\r\n--mixed\r\n\r\nhello\r\n{}--mixed--\r\n",
        part(
            "Content-Type: application/pdf; name=scan.pdf\r\nContent-Disposition: attachment",
            file
        )
    )
}

fn file(name: &str, kind: &str, octets: &[u8], uploaded: bool) -> Attached {
    Attached {
        name: name.into(),
        kind: kind.into(),
        content_id: None,
        inline: false,
        octets: octets.to_vec(),
        uploaded,
    }
}

/// Compared without printing megabytes.
fn check_files(sent: &Sent, expected: &[Attached]) {
    let outline = |files: &[Attached]| -> Vec<String> {
        files
            .iter()
            .map(|f| {
                format!(
                    "{} {} {:?} {} {} {}",
                    f.name,
                    f.kind,
                    f.content_id,
                    f.inline,
                    f.octets.len(),
                    f.uploaded
                )
            })
            .collect()
    };
    assert_eq!(outline(&sent.files), outline(expected));
    assert!(sent.files == expected, "the octets differ");
}

fn state(gateway: &Gateway, id: &str) -> String {
    let list: serde_json::Value =
        serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--all", "--json"]))).unwrap();
    let entry = list
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["id"] == id)
        .unwrap();
    entry["state"].as_str().unwrap().to_owned()
}

fn wait_until(gateway: &Gateway, id: &str, wanted: &str, what: &str) {
    wait(&format!("{wanted} after {what}"), || {
        (state(gateway, id) == wanted).then_some(())
    });
}

#[test]
fn a_message_of_30_mib_arrives_whole() {
    let tenant = Tenant::with_drafts();
    let gateway = Gateway::start(&config(&tenant, ""));
    let (before, _) = gateway.memory_kib();
    let (small, first, second, image) = (
        octets(1, 1_200_000),
        octets(2, 8_000_001),
        octets(3, 13_700_000),
        octets(4, 150_000),
    );
    let content = [
        HEADER,
        "X-Printer: 7\r\nX-Priority: 1\r\nContent-Type: multipart/mixed; boundary=mixed\r\n\r\npreamble\r\n--mixed\r\nContent-Type: multipart/related; boundary=rel\r\n\r\n--rel\r\nContent-Type: multipart/alternative; boundary=alt\r\n\r\n--alt\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain \u{e4}\r\n--alt\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=E4 <img src=3D\"cid:logo@x\"></p>\r\n--alt--\r\n--rel\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\nContent-Disposition: inline; filename=logo.png\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        &encoded(&image),
        "--rel--\r\n",
        &part(
            "Content-Type: application/pdf; name=\"=?utf-8?Q?Gr=C3=B6=C3=9Fe_1=2Epdf?=\"\r\nContent-Disposition: attachment",
            &small,
        ),
        &part(
            "Content-Type: image/tiff\r\nContent-Disposition: attachment;\r\n filename*0*=utf-8''%E8%AB%8B%E6%B1%82;\r\n filename*1*=%E6%9B%B8.tif",
            &first,
        ),
        &part(
            "Content-Type: application/zip\r\nContent-Disposition: attachment; filename=\"\u{1f600} a.zip\"",
            &second,
        ),
        "--mixed--\r\n",
    ]
    .concat();
    assert!(content.len() > 30 << 20, "{}", content.len());
    let id = mail(&gateway, &["x@corp.example", "y@partner.example"], &content);
    let sent = tenant.drafts.wait(1).remove(0);
    let (_, peak) = gateway.memory_kib();
    assert_eq!(tenant.drafts.complaints(), Vec::<String>::new());
    assert_eq!(sent.mailbox, "scan@corp.example");
    let expected: HashSet<String> = ["x@corp.example", "y@partner.example"]
        .map(str::to_owned)
        .into();
    assert_eq!(sent.recipients(), expected);
    let message = &sent.message;
    assert_eq!(message["subject"], "\u{1f600} Rechnungen");
    assert_eq!(message["body"]["contentType"], "html");
    let html = message["body"]["content"].as_str().unwrap();
    assert_eq!(html, "<p>\u{e4} <img src=\"cid:logo@x\"></p>");
    assert_eq!(
        message["toRecipients"][0]["emailAddress"]["name"],
        "J\u{fc}rgen"
    );
    assert_eq!(
        message["from"]["emailAddress"]["address"],
        "scan@corp.example"
    );
    assert_eq!(
        message["replyTo"][0]["emailAddress"]["address"],
        "desk@corp.example"
    );
    assert_eq!(message["internetMessageId"], "<kept@corp.example>");
    assert_eq!(message["importance"], "high");
    assert_eq!(
        message["internetMessageHeaders"],
        serde_json::json!([{"name": "X-Printer", "value": "7"}])
    );
    let logo = Attached {
        content_id: Some("logo@x".into()),
        inline: true,
        ..file("logo.png", "image/png", &image, false)
    };
    check_files(
        &sent,
        &[
            logo,
            file("Gr\u{f6}\u{df}e 1.pdf", "application/pdf", &small, false),
            file("\u{8acb}\u{6c42}\u{66f8}.tif", "image/tiff", &first, true),
            file("\u{1f600} a.zip", "application/zip", &second, true),
        ],
    );
    wait_until(&gateway, &id, "done", "202");
    let trace = stdout(&gateway.cli(&["trace", &id]));
    assert!(
        trace.contains("as scan@corp.example") && trace.contains("r-9"),
        "{trace}"
    );
    assert_eq!(tenant.drafts.left(), 0);
    let log = gateway.log();
    for secret in ["upload-secret", "authtoken", "eyJ", "hush"] {
        assert!(!log.contains(secret) && !trace.contains(secret), "{secret}");
    }
    // The message once, a piece of it, and the program's pages that only a delivery touches. What
    // the program takes before it is no matter of the message: an unoptimized build has far more.
    let more = peak - before;
    assert!(more < 50 * 1024, "{more} KiB over the {before} KiB before");
}

/// Whatever fails, there is one mail in the end, whole, and no draft.
#[test]
fn whatever_fails_one_mail_and_no_draft() {
    use Act::{Cut, Does, Expire, Lose, Say};
    let busy = Say(503, "ErrorServerBusy", "Retry-After: 1\r\n");
    let throttled = Say(429, "ApplicationThrottled", "Retry-After: 1\r\n");
    let broken = Say(500, "ErrorInternalServerError", "");
    let cases: &[&[(Step, usize, Act)]] = &[
        &[(Step::Search, 0, busy)],
        &[(Step::Search, 0, broken)],
        &[(Step::Search, 0, Cut)],
        &[(Step::Create, 0, throttled)],
        &[(Step::Create, 0, broken)],
        &[(Step::Create, 0, Lose)],
        &[(Step::Create, 0, Does(504))],
        &[(Step::Create, 0, Say(401, "InvalidAuthenticationToken", ""))],
        &[(Step::Attach, 0, throttled)],
        &[(Step::Attach, 0, broken)],
        &[(Step::Attach, 0, Lose)],
        &[(Step::Attach, 0, Say(401, "InvalidAuthenticationToken", ""))],
        &[(Step::Session, 0, busy)],
        &[(Step::Session, 0, Cut)],
        &[(Step::Piece, 0, broken)],
        &[(Step::Piece, 1, busy), (Step::Piece, 2, throttled)],
        &[(Step::Piece, 0, Cut)],
        &[(Step::Piece, 1, Cut)],
        // The piece is there, only its answer is not.
        &[(Step::Piece, 0, Lose)],
        &[(Step::Piece, 1, Lose)],
        &[(Step::Piece, 0, Lose), (Step::Standing, 0, broken)],
        // Where it stands cannot be asked.
        &[
            (Step::Piece, 0, Cut),
            (Step::Standing, 0, Say(405, "MethodNotAllowed", "")),
        ],
        &[
            (Step::Piece, 1, Lose),
            (Step::Standing, 0, Say(405, "MethodNotAllowed", "")),
        ],
        &[(Step::Piece, 0, Expire)],
        &[(Step::Piece, 1, Expire)],
        &[(Step::Piece, 1, Say(410, "Gone", ""))],
        &[(Step::Piece, 1, Expire), (Step::Piece, 3, Expire)],
        &[(Step::Send, 0, throttled)],
        &[(Step::Send, 0, busy)],
        &[(Step::Send, 0, Say(401, "InvalidAuthenticationToken", ""))],
        &[(Step::Send, 0, broken)],
        &[(Step::Send, 0, broken), (Step::Delete, 0, broken)],
        &[(Step::Send, 0, Say(504, "UnknownError", ""))],
        &[(Step::Send, 0, Cut)],
        // Sent, and not confirmed.
        &[(Step::Send, 0, Lose)],
        &[(Step::Send, 0, Does(504))],
        &[(Step::Send, 0, Does(500))],
        &[(Step::Send, 0, Does(503))],
    ];
    let (large, small) = (octets(5, 5_000_000), octets(6, 1000));
    let content = simple(&large).replace(
        "--mixed--\r\n",
        &format!(
            "{}--mixed--\r\n",
            part("Content-Type: image/png; name=b.png", &small)
        ),
    );
    std::thread::scope(|scope| {
        // Four at a time: each waits more than it works.
        for quarter in 0..4 {
            let (content, large, small) = (&content, &large, &small);
            scope.spawn(move || {
                for case in cases.iter().skip(quarter).step_by(4) {
                    let tenant = Tenant::with_drafts();
                    for (step, nth, act) in *case {
                        tenant.drafts.fail(*step, *nth, *act);
                    }
                    let gateway = Gateway::start(&config(&tenant, ""));
                    let id = mail(&gateway, &["x@corp.example"], content);
                    let what = format!("{case:?}");
                    wait_until(&gateway, &id, "done", &what);
                    let sent = tenant.drafts.sent();
                    let trace = stdout(&gateway.cli(&["trace", &id]));
                    assert_eq!(sent.len(), 1, "{what}\n{trace}");
                    assert_eq!(tenant.drafts.left(), 0, "{what}\n{trace}");
                    let complaints = tenant.drafts.complaints();
                    assert!(complaints.is_empty(), "{what}: {complaints:?}");
                    check_files(
                        &sent[0],
                        &[
                            file("scan.pdf", "application/pdf", large, true),
                            file("b.png", "image/png", small, false),
                        ],
                    );
                }
            });
        }
    });
}

/// A piece that is refused for good is not asked for again, nor is anything waited for: there is another session, or the queue.
#[test]
fn a_piece_that_is_refused_costs_its_session_and_no_time() {
    let (file, refused) = (octets(5, 5_000_000), Act::Say(400, "invalidRequest", ""));
    let tenant = Tenant::with_drafts();
    tenant.drafts.fail(Step::Piece, 0, refused);
    let gateway = Gateway::start(&config(&tenant, ""));
    let id = mail(&gateway, &["x@corp.example"], &simple(&file));
    wait_until(&gateway, &id, "done", "another session");
    let count = |step| tenant.drafts.count(step);
    assert_eq!((count(Step::Session), count(Step::Standing)), (2, 0));
    // The one that was refused, and both of the file.
    assert_eq!(count(Step::Piece), 3);
    assert_eq!(tenant.drafts.sent().len(), 1);
    assert_eq!(tenant.drafts.left(), 0);

    // What takes no piece of this size on the way takes none in a second either.
    let tenant = Tenant::with_drafts();
    for nth in 0..100 {
        tenant.drafts.fail(Step::Piece, nth, Act::Page(413));
    }
    let gateway = Gateway::start(&config(&tenant, ""));
    let id = mail(&gateway, &["x@corp.example"], &simple(&file));
    wait("deferred", || {
        let trace = stdout(&gateway.cli(&["trace", &id]));
        trace.contains("refuses its pieces").then_some(())
    });
    // The queue may have tried again since.
    let (pieces, sessions) = (
        tenant.drafts.count(Step::Piece),
        tenant.drafts.count(Step::Session),
    );
    assert!(pieces <= sessions, "{pieces} in {sessions}");
    assert_eq!(tenant.drafts.count(Step::Standing), 0);
}

#[test]
fn killed_half_way_there_is_one_mail_and_no_draft() {
    let large = octets(7, 5_000_000);
    for (step, nth, act) in [
        (Step::Create, 0, Act::DoesAndHold),
        (Step::Attach, 0, Act::Hold),
        (Step::Piece, 1, Act::Hold),
        (Step::Send, 0, Act::Hold),
        // It had been sent when the gateway died.
        (Step::Send, 0, Act::DoesAndHold),
    ] {
        let what = format!("{step:?} {act:?}");
        let tenant = Tenant::with_drafts();
        tenant.drafts.fail(step, nth, act);
        let mut gateway = Gateway::start(&config(&tenant, ""));
        let content = simple(&large).replace(
            "--mixed--\r\n",
            &format!(
                "{}--mixed--\r\n",
                part("Content-Type: image/png; name=b.png", b"png")
            ),
        );
        // The small one first: then there is an attachment before the pieces.
        let id = mail(&gateway, &["x@corp.example"], &content);
        wait(&what, || (tenant.drafts.count(step) > nth).then_some(()));
        at_any_moment(std::time::Duration::from_millis(100));
        gateway.kill();
        if act == Act::Hold && step == Step::Send {
            // What was asked before the end may still be done, or not; here it is not.
            assert_eq!(tenant.drafts.left(), 1, "{what}");
        }
        gateway.restart();
        wait_until(&gateway, &id, "done", &what);
        tenant.drafts.release();
        let while_another_would_come = std::time::Duration::from_millis(200);
        stays(&what, while_another_would_come, || {
            tenant.drafts.sent().len() == 1
        });
        let sent = tenant.drafts.sent();
        let trace = stdout(&gateway.cli(&["trace", &id]));
        assert_eq!(sent.len(), 1, "{what}\n{trace}");
        assert_eq!(tenant.drafts.left(), 0, "{what}\n{trace}");
        assert_eq!(sent[0].files[0].octets, large, "{what}");
    }
}

#[test]
fn without_the_permission_it_goes_to_the_next_connector_or_fails_with_5_3_4() {
    let tenant = Tenant::start(|_, _| None);
    let content = simple(&octets(8, 3_000_000));
    let alone = Gateway::start(&config(&tenant, ""));
    let id = mail(&alone, &["x@corp.example"], &content);
    wait("the remedy", || {
        let shown = stdout(&alone.cli(&["queue", "show", &id]));
        (shown.contains("5.3.4") && shown.contains("Mail.ReadWrite")).then_some(())
    });
    assert_eq!(state(&alone, &id), "failed");
    // Smaller mail of the same mailbox goes on.
    mail(
        &alone,
        &["x@corp.example"],
        "From: scan@corp.example\r\nSubject: small\r\n\r\nb\r\n",
    );
    wait("the small one", || {
        let mails = tenant.mails();
        mails
            .iter()
            .any(|m| m.content.contains("Subject: small\r\n"))
            .then_some(())
    });
    let sink = Upstream::start();
    let second = format!(
        "[[connector]]\nname = \"second\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        sink.address.port()
    );
    let both = config(&tenant, &second)
        .replace("connectors = [\"up\"]", "connectors = [\"up\", \"second\"]");
    let gateway = Gateway::start(&both);
    mail(&gateway, &["x@corp.example"], &content);
    assert!(sink.wait(1)[0].text().contains("Message-ID: <kept@"));
}

#[test]
fn what_is_signed_is_not_taken_apart() {
    let tenant = Tenant::with_drafts();
    let gateway = Gateway::start(&config(&tenant, ""));
    let content = format!(
        "{HEADER}Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=s\r\n\r\n--s\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{}--s\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--s--\r\n",
        encoded(&octets(9, 3_000_000))
    );
    let id = mail(&gateway, &["x@corp.example"], &content);
    wait("5.3.4", || {
        let shown = stdout(&gateway.cli(&["queue", "show", &id]));
        (shown.contains("failed") && shown.contains("5.3.4") && shown.contains("signed"))
            .then_some(())
    });
    assert_eq!(tenant.drafts.count(Step::Search), 0, "nobody was asked");
}

#[test]
fn a_text_without_room_becomes_a_file() {
    let tenant = Tenant::with_drafts();
    let gateway = Gateway::start(&config(&tenant, ""));
    let line =
        "0123456789 \u{e4}\u{f6}\u{fc} \"quoted\" 0123456789012345678901234567890123456789\r\n";
    let text = line.repeat(5_000_000 / line.len());
    let content = format!("{HEADER}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}");
    mail(&gateway, &["x@corp.example"], &content);
    let sent = tenant.drafts.wait(1).remove(0);
    assert!(
        sent.message["body"]["content"]
            .as_str()
            .unwrap()
            .contains("message.txt")
    );
    let expected = format!("\u{feff}{text}").into_bytes();
    check_files(&sent, &[file("message.txt", "text/plain", &expected, true)]);
    // Just below: it is the body.
    let text = line.repeat(3_500_000 / line.len());
    let content = format!("{HEADER}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}");
    mail(&gateway, &["x@corp.example"], &content);
    let sent = tenant.drafts.wait(2).remove(1);
    assert!(sent.message["body"]["content"] == text.as_str());
    assert!(sent.files.is_empty());
    assert_eq!(tenant.drafts.complaints(), Vec::<String>::new());
}

/// On both sides of what one request takes.
#[test]
fn attachments_of_every_size() {
    let tenant = Tenant::with_drafts();
    let gateway = Gateway::start(&config(&tenant, "mime_limit = \"1KB\"\n"));
    for (n, size) in [0, 1, 2_999_999, 3_000_000, 3_276_800, 3_276_801, 6_553_600]
        .into_iter()
        .enumerate()
    {
        let octets = octets(n as u64, size);
        let content = simple(&octets).replace("hello", &"hello ".repeat(200));
        mail(&gateway, &["x@corp.example"], &content);
        let sent = tenant.drafts.wait(n + 1).remove(n);
        check_files(
            &sent,
            &[file(
                "scan.pdf",
                "application/pdf",
                &octets,
                size >= 3_000_000,
            )],
        );
    }
    assert_eq!(tenant.drafts.complaints(), Vec::<String>::new());
    assert_eq!(tenant.drafts.left(), 0);
}

#[test]
fn an_upload_host_that_is_not_allowed_is_not_asked() {
    let tenant = Tenant::with_drafts();
    tenant.drafts.upload_host("localhost");
    let narrow = config(&tenant, "\n[outbound]\nallowed_hosts = [\"127.0.0.1\"]\n");
    let gateway = Gateway::start(&narrow);
    let id = mail(
        &gateway,
        &["x@corp.example"],
        &simple(&octets(10, 3_100_000)),
    );
    wait("5.3.4", || {
        let shown = stdout(&gateway.cli(&["queue", "show", &id]));
        (shown.contains("5.3.4") && shown.contains("localhost")).then_some(())
    });
    assert_eq!(tenant.drafts.count(Step::Piece), 0);
    assert_eq!(tenant.drafts.left(), 0);
}

/// Two jobs of one message for the same mailbox are two mails, however alike.
#[test]
fn jobs_of_one_message_do_not_take_each_other_for_sent() {
    let tenant = Tenant::with_drafts();
    let gateway = Gateway::start(&config(&tenant, "max_recipients = 1\n"));
    let content = simple(&octets(11, 3_100_000));
    mail(
        &gateway,
        &["x@corp.example", "y@corp.example", "z@corp.example"],
        &content,
    );
    let sent = tenant.drafts.wait(3);
    let each: HashSet<String> = sent.iter().flat_map(Sent::recipients).collect();
    assert_eq!((sent.len(), each.len()), (3, 3));
    assert!(sent.iter().all(|s| s.recipients().len() == 1));
    assert_eq!(tenant.most_at_once(), 1, "one large message at a time");
    assert_eq!(tenant.drafts.left(), 0);
}

#[test]
fn refusing_is_said_at_the_door() {
    let tenant = Tenant::start(|_, _| None);
    let gateway = Gateway::start(&config(&tenant, "large_messages = \"refuse\"\n"));
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    client.expect("MAIL FROM:<scan@corp.example> SIZE=3000001", "250");
    let reply = client.say("RCPT TO:<x@corp.example>");
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    client.expect("RSET", "250");
    client.expect("MAIL FROM:<scan@corp.example> SIZE=2900000", "250");
    client.expect("RCPT TO:<x@corp.example>", "250");
}
