//! Mail that goes to somebody else, or to an archive as well, through the real gateway.

use std::collections::HashSet;

use super::harness::{
    cloud::Tenant,
    gateway::{Gateway, basic, queued_id, stdout},
    upstream::Upstream,
};

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
