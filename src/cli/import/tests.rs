//! What each import makes of each word that it knows: carried over, or left out and named; and that no text of anybody's makes it panic,
//! write what is no TOML, or print a secret.

use std::collections::BTreeMap;

use super::{
    draft::ImportDraft,
    files::{SourceFile, tests::Shelf},
    finish, iis, msmtp,
    note::NotUnderstood,
    postfix,
    render::{RenderAround, render},
    smtp2graph,
};

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$Y2hhbmdlIG1lIHBsZWFzZQ$VO/tSrzTE4Jqh2Cw8FWmWqF2VjR5vAxRVjBqmpPzQ6E";
const PEM: &str = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";

/// What came out of it.
struct Made {
    text: String,
    notes: Vec<String>,
    decides: bool,
}

impl Made {
    fn has(&self, what: &str) -> bool {
        self.text.contains(what) || self.notes.iter().any(|note| note.contains(what))
    }

    fn must_have(&self, what: &[&str]) {
        for one in what {
            assert!(self.has(one), "{one:?} is not in\n{}", self.text);
        }
    }

    fn must_lack(&self, what: &[&str]) {
        for one in what {
            assert!(!self.has(one), "{one:?} is in\n{}", self.text);
        }
    }
}

fn source(text: &str) -> SourceFile {
    SourceFile {
        label: "FILE".to_owned(),
        text: text.to_owned(),
    }
}

/// Finished, and as `check` takes it.
fn made(mut draft: ImportDraft) -> Made {
    let around = RenderAround {
        secrets: Some("/secrets".to_owned()),
        hashes: draft.users.iter().map(|_| HASH.to_owned()).collect(),
    };
    finish::finish(&mut draft, &around);
    let text = render(&draft, &around);
    let refused = finish::refusals(&text);
    assert!(refused.is_empty(), "{refused:?}\n{text}");
    Made {
        text,
        notes: draft.notes.lines(),
        decides: draft.notes.any_decides(),
    }
}

fn shelf() -> Shelf {
    Shelf::of(&[
        ("/etc/mailname", "mail.corp.example\n"),
        (
            "/etc/postfix/sasl",
            "[smtp.corp.example]:587 relay:s3cret:Pass\nsmtp.other.example other:s3cret:Other\nerp@corp.example erp:s3cret:Erp\n",
        ),
        (
            "/etc/postfix/transport",
            "partner.example smtp:[mx.partner.example]:2525\n.sub.example relay:[mx.sub.example]\nboss@corp.example :[mx.boss.example]\n",
        ),
        (
            "/etc/postfix/senders",
            "news@corp.example [news.example]:587\n@shop.example [shop.example]\n",
        ),
        (
            "/etc/postfix/ok",
            "corp.example OK\nboss@corp.example REJECT\nshop.example 1\nold.example 550 gone\n",
        ),
        (
            "/etc/postfix/exact",
            "erp@corp.example OK\npartner.example permit\n",
        ),
        (
            "/etc/postfix/canonical",
            "root@corp.example noreply@corp.example\n@host.corp.example noreply@corp.example\njoe joe@corp.example\n@a.example @b.example\n",
        ),
        (
            "/etc/postfix/generic",
            "noreply@corp.example relay@corp.example\n",
        ),
        ("/c.pem", PEM),
        ("/k.pem", PEM),
    ])
}

fn postfix_of(main: &str, master: Option<&str>) -> Result<ImportDraft, NotUnderstood> {
    let master = master.map(|text| SourceFile {
        label: "master.cf".to_owned(),
        text: text.to_owned(),
    });
    postfix::import(&source(main), master.as_ref(), "/etc/postfix", &shelf())
}

/// A smarthost and a network, and what is added to them.
fn with(more: &str) -> Made {
    let main = format!(
        "mynetworks = 127.0.0.0/8 10.0.0.0/8\nmydestination =\nrelayhost = [smtp.corp.example]:587\n{more}\n"
    );
    made(postfix_of(&main, None).unwrap())
}

#[test]
fn postfix_every_parameter_that_is_carried_over() {
    for (more, expected) in [
        (
            "myhostname = relay.corp.example",
            &[
                "hostname = \"relay.corp.example\"",
                "default_domain = \"relay.corp.example\"",
            ][..],
        ),
        (
            "mydomain = corp.example",
            &["default_domain = \"corp.example\""],
        ),
        (
            "myhostname = a.corp.example\nmyorigin = $mydomain",
            &["default_domain = \"corp.example\""],
        ),
        (
            "myorigin = /etc/mailname",
            &["default_domain = \"mail.corp.example\""],
        ),
        ("inet_interfaces = all", &["address = \"[::]:25\""]),
        (
            "inet_interfaces = all\ninet_protocols = ipv4",
            &["address = \"0.0.0.0:25\""],
        ),
        (
            "inet_interfaces = loopback-only\ninet_protocols = ipv4",
            &["address = \"127.0.0.1:25\""],
        ),
        (
            "inet_interfaces = localhost, 10.0.0.5",
            &["\"127.0.0.1:25\"", "\"[::1]:25\"", "\"10.0.0.5:25\""],
        ),
        (
            "",
            &[
                "networks = [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
                "senders = [\"*\"]",
                "recipients = [\"*\"]",
                "Narrow it here",
            ],
        ),
        (
            "mynetworks = [::ffff:127.0.0.0]/104 127.0.0.0/8 [::1]/128",
            &["networks = [\"127.0.0.0/8\", \"::1/128\"]"],
        ),
        (
            "message_size_limit = 26214400",
            &["message_size = \"25MiB\""],
        ),
        (
            "message_size_limit = 0",
            &["message_size = \"2048MiB\"", "different now"],
        ),
        ("maximal_queue_lifetime = 3d", &["give_up = \"3d\""]),
        ("maximal_queue_lifetime = 36h", &["give_up = \"36h\""]),
        ("maximal_queue_lifetime = 2", &["give_up = \"2d\""]),
        (
            "",
            &["host = \"smtp.corp.example\"\nport = 587\ntls = \"off\""],
        ),
        (
            "relayhost = relay.corp.example",
            &[
                "host = \"relay.corp.example\"\nport = 25",
                "different now: relayhost: relay.corp.example (line 4): without brackets Postfix asks DNS",
            ],
        ),
        (
            "relayhost = [a.example], [b.example]:submission",
            &["connectors = [\"smarthost\", \"b.example\"]", "port = 587"],
        ),
        (
            "smtp_fallback_relay = [b.example]",
            &["connectors = [\"smarthost\", \"b.example\"]"],
        ),
        (
            "relayhost =\ndefault_transport = smtp:[d.example]",
            &["host = \"d.example\""],
        ),
        (
            "transport_maps = hash:/etc/postfix/transport",
            &[
                "recipients = [\"partner.example\"]",
                "recipients = [\"*.sub.example\"]",
                "recipients = [\"boss@corp.example\"]",
                "host = \"mx.partner.example\"\nport = 2525",
                "host = \"mx.boss.example\"\nport = 25",
            ],
        ),
        (
            "transport_maps = inline:{ { * = relay:[all.example] } }",
            &["recipients = [\"*\"]", "host = \"all.example\""],
        ),
        (
            "sender_dependent_relayhost_maps = hash:/etc/postfix/senders",
            &[
                "senders = [\"news@corp.example\"]",
                "senders = [\"shop.example\"]",
                "host = \"news.example\"\nport = 587",
            ],
        ),
        (
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/postfix/sasl",
            &[
                "username = \"relay\"\npassword = { file = \"/secrets/smarthost-password\" }",
                "tls = \"starttls\"",
                "the password went over tls = \"off\"",
            ],
        ),
        (
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:relay:s3cret:Pass\nsmtp_tls_security_level = encrypt",
            &["username = \"relay\"", "tls = \"starttls\""],
        ),
        (
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = inline:{ [smtp.corp.example]:587=relay:s3cret:Pass }\nsmtp_tls_security_level = may",
            &["tls = \"starttls\"", "tls = \"opportunistic\"; it is"],
        ),
        (
            "smtp_sender_dependent_authentication = yes\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/postfix/sasl",
            &[
                "senders = [\"erp@corp.example\"]",
                "username = \"erp\"",
                "username = \"relay\"",
            ],
        ),
        (
            "relayhost = [127.0.0.1]:2525\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:a:b",
            &["tls = \"off\""],
        ),
        ("smtp_tls_security_level = none", &["tls = \"off\""]),
        (
            "smtp_tls_security_level = may",
            &[
                "tls = \"opportunistic\"",
                "smtp_tls_security_level = may (line 4): Postfix checks no certificate",
            ],
        ),
        ("smtp_use_tls = yes", &["tls = \"opportunistic\""]),
        (
            "smtp_tls_security_level = encrypt",
            &["tls = \"starttls\"", "checks no certificate"],
        ),
        ("smtp_tls_security_level = verify", &["tls = \"starttls\""]),
        ("smtp_tls_security_level = secure", &["tls = \"starttls\""]),
        (
            "smtp_tls_security_level = encrypt\nsmtp_tls_wrappermode = yes\nrelayhost = [s.example]:465",
            &["tls = \"implicit\"", "port = 465"],
        ),
        ("smtp_tls_CAfile = /c.pem", &["ca_file = \"/c.pem\""]),
        (
            "smtp_tls_cert_file = /c.pem\nsmtp_tls_key_file = /k.pem",
            &["client_certificate = \"/c.pem\"", "client_key = \"/k.pem\""],
        ),
        (
            "smtp_helo_name = out.corp.example",
            &["helo = \"out.corp.example\""],
        ),
        (
            "smtpd_tls_cert_file = /c.pem\nsmtpd_tls_key_file = /k.pem\nsmtpd_tls_security_level = may",
            &["tls = \"starttls\"\ncertificate = \"/c.pem\"\nkey = \"/k.pem\""],
        ),
        (
            "smtpd_tls_cert_file = /c.pem\nsmtpd_tls_security_level = encrypt",
            &["require_tls = true\ncertificate = \"/c.pem\"\nkey = \"/c.pem\""],
        ),
        (
            "smtpd_tls_chain_files = /c.pem\nsmtpd_use_tls = yes",
            &["certificate = \"/c.pem\"\nkey = \"/c.pem\""],
        ),
        (
            "mydomain = corp.example\nsender_canonical_maps = hash:/etc/postfix/canonical",
            &[
                "senders = [\"root@corp.example\"]\nto = \"noreply@corp.example\"\nreply_to = \"keep\"",
                "senders = [\"host.corp.example\"]\nto = \"noreply@corp.example\"",
                "senders = [\"joe@corp.example\"]",
                "sender_canonical_maps: @a.example @b.example",
            ],
        ),
        (
            "smtp_generic_maps = hash:/etc/postfix/generic",
            &["senders = [\"noreply@corp.example\"]\nto = \"relay@corp.example\""],
        ),
        (
            "sender_canonical_maps = hash:/etc/postfix/canonical\nsmtp_generic_maps = hash:/etc/postfix/generic",
            &[
                "senders = [\"root@corp.example\", \"noreply@corp.example\"]\nto = \"relay@corp.example\"",
            ],
        ),
        (
            "bounce_notice_recipient = ops@corp.example",
            &["copy_to = [\"ops@corp.example\"]"],
        ),
        (
            "mydomain = corp.example\nbounce_notice_recipient = postmaster",
            &["copy_to = [\"postmaster@corp.example\"]"],
        ),
        (
            "smtpd_sender_restrictions = check_sender_access hash:/etc/postfix/exact, reject",
            &["senders = [\"erp@corp.example\", \"partner.example\", \"*.partner.example\"]"],
        ),
        (
            "smtpd_recipient_restrictions = check_recipient_access hash:/etc/postfix/exact, reject",
            &["recipients = [\"erp@corp.example\", \"partner.example\", \"*.partner.example\"]"],
        ),
        (
            "smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
            &["senders = [\"*\"]", "recipients = [\"*\"]"],
        ),
    ] {
        let found = with(more);
        found.must_have(expected);
        assert!(!found.decides, "{more}\n{}", found.text);
        found.must_lack(&["s3cret"]);
    }
}

#[test]
fn postfix_every_word_that_is_left_out() {
    for (more, expected) in [
        (
            "header_checks = regexp:/etc/postfix/h",
            "not carried over: header_checks (line 4): ",
        ),
        ("body_checks = pcre:/etc/postfix/b", "body_checks (line 4)"),
        (
            "smtpd_milters = inet:127.0.0.1:8891",
            "smtpd_milters (line 4)",
        ),
        (
            "non_smtpd_milters = inet:127.0.0.1:8891",
            "non_smtpd_milters",
        ),
        (
            "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10023, permit_mynetworks",
            "check_policy_service inet:127.0.0.1:10023 (line 4)",
        ),
        (
            "smtpd_client_restrictions = check_client_access hash:/x, permit_mynetworks, reject",
            "check_client_access hash:/x (line 4)",
        ),
        (
            "smtpd_sender_restrictions = reject_unknown_sender_domain, permit_mynetworks",
            "reject_unknown_sender_domain (line 4)",
        ),
        (
            "virtual_alias_maps = hash:/x",
            "virtual_alias_maps (line 4)",
        ),
        (
            "virtual_mailbox_domains = corp.example",
            "virtual_mailbox_domains (line 4)",
        ),
        (
            "mydestination = corp.example",
            "mydestination (line 4): local delivery",
        ),
        ("relay_domains = corp.example", "relay_domains (line 4)"),
        ("alias_maps = hash:/etc/aliases", "alias_maps (line 4)"),
        ("mailbox_command = procmail", "mailbox_command (line 4)"),
        (
            "transport_maps = regexp:/etc/postfix/t",
            "tables of the kind regexp are not read",
        ),
        (
            "transport_maps = pcre:/etc/postfix/t",
            "tables of the kind pcre are not read",
        ),
        (
            "transport_maps = mysql:/etc/postfix/t",
            "tables of the kind mysql are not read",
        ),
        (
            "transport_maps = proxy:pgsql:/etc/postfix/t",
            "tables of the kind pgsql are not read",
        ),
        (
            "transport_maps = ldap:/etc/postfix/t",
            "tables of the kind ldap are not read",
        ),
        (
            "transport_maps = hash:/gone",
            "transport_maps: hash:/gone (line 4): not there",
        ),
        (
            "transport_maps = inline:{ a.example=local: }",
            "only the transports smtp and relay",
        ),
        (
            "transport_maps = inline:{ a.example=smtp: }",
            "it asks DNS where to (MX)",
        ),
        (
            "sender_dependent_relayhost_maps = hash:/gone",
            "sender_dependent_relayhost_maps: hash:/gone",
        ),
        ("always_bcc = all@corp.example", "always_bcc (line 4)"),
        (
            "recipient_bcc_maps = hash:/x",
            "recipient_bcc_maps (line 4)",
        ),
        ("defer_transports = smtp", "defer_transports (line 4)"),
        (
            "content_filter = smtp-amavis:[127.0.0.1]:10024",
            "content_filter (line 4)",
        ),
        (
            "default_transport = error:no",
            "default_transport = error:no (line 4)",
        ),
        (
            "mynetworks = 10.0.0.0/8 !10.1.0.0/16",
            "mynetworks: !10.1.0.0/16 (line 4)",
        ),
        (
            "mynetworks = 10.0.0.0/8 /etc/postfix/nets",
            "mynetworks: /etc/postfix/nets (line 4)",
        ),
        (
            "mynetworks = 10.0.0.0/8 cidr:/etc/postfix/nets",
            "mynetworks: cidr:/etc/postfix/nets (line 4)",
        ),
        (
            "mynetworks = 0.0.0.0/0",
            "not carried over: 0.0.0.0/0: everybody there could send to anybody",
        ),
        (
            "inet_interfaces = $myhostname\nmyhostname = relay.corp.example",
            "inet_interfaces: relay.corp.example (line 4)",
        ),
        (
            "smtpd_sasl_auth_enable = yes",
            "smtpd_sasl_auth_enable (line 4): users are made anew",
        ),
        (
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = /gone",
            "smtpd_tls_cert_file (line 5): TLS is required there",
        ),
        (
            "smtpd_sender_restrictions = check_sender_access hash:/etc/postfix/ok, permit_mynetworks",
            "all senders but boss@corp.example",
        ),
        (
            "smtpd_something_restrictions = x",
            "smtpd_something_restrictions (line 4)",
        ),
        ("relayhost =", "not carried over: delivery by MX (line 4)"),
    ] {
        let found = with(more);
        assert!(found.decides, "{more}\n{}", found.text);
        found.must_have(&[expected]);
    }
    // Neither who may send nor where mail goes.
    for (more, expected) in [
        (
            "smtp_tls_policy_maps = hash:/x",
            "smtp_tls_policy_maps (line 4)",
        ),
        (
            "smtp_tls_CAfile = /gone",
            "smtp_tls_CAfile (line 4): the system's roots are used: not there",
        ),
        (
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = mysql:/x",
            "smtp_sasl_password_maps: mysql:/x (line 5)",
        ),
        (
            "default_process_limit = 50",
            "default_process_limit (line 4): it has no counterpart here",
        ),
        (
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /gone",
            "the listener offers no TLS",
        ),
    ] {
        let found = with(more);
        found.must_have(&[expected]);
        assert!(!found.decides, "{more}\n{}", found.text);
    }
    with("biff = no\nreadme_directory = no\nsmtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)").must_lack(&["biff", "readme", "banner"]);
}

#[test]
fn postfix_without_a_way_out_takes_nothing() {
    let found = made(postfix_of("mydestination =\nmynetworks = 10.0.0.0/8\n", None).unwrap());
    assert!(
        found.decides && found.notes[0].starts_with("not carried over: delivery by MX"),
        "{:?}",
        found.notes
    );
    found.must_have(&[
        "# [[connector]]\n# name = \"smarthost\"\n# type = \"smtp\"",
        "# recipients = [\"*\"]\nrecipients = []",
        "smarthost.invalid",
    ]);
}

#[test]
fn postfix_who_could_not_send_still_cannot() {
    // An exception is a client that may send to nobody, and nothing within it is let in.
    let found = with("mynetworks = !10.1.0.0/16 10.0.0.0/8 10.1.2.3");
    found.must_have(&[
        "networks = [\"10.0.0.0/8\"]",
        "networks = [\"10.1.0.0/16\"]\nrecipients = []",
        "within an exception before it",
    ]);
    found.must_lack(&["networks = [\"10.1.2.3"]);
    // Nobody at all.
    let found = with("mynetworks = !hash:/nets 10.0.0.0/8");
    found.must_have(&["recipients = []"]);
    found.must_lack(&["10.0.0.0/8\"]"]);
    let found = with("mynetworks =");
    found.must_have(&[
        "name = \"this-machine\"\nnetworks = [\"127.0.0.0/8\", \"::1\"]\nrecipients = []",
    ]);
    // Patterns have no exceptions.
    let found =
        with("smtpd_sender_restrictions = check_sender_access hash:/etc/postfix/ok, reject");
    found.must_have(&[
        "senders = [\"*.corp.example\", \"shop.example\", \"*.shop.example\"]",
        "a part of it is rejected",
    ]);
    // The networks are refused before they are permitted.
    let found = with("smtpd_relay_restrictions = reject_unauth_destination, permit_mynetworks");
    found.must_have(&["\nrecipients = []"]);
    assert!(found.decides);
    let found = with("smtpd_client_restrictions = permit_sasl_authenticated, reject");
    found.must_have(&["\nrecipients = []"]);
}

#[test]
fn only_the_networks_that_make_an_open_relay_stand_as_comments() {
    let found = with("mynetworks = 127.0.0.0/8 10.0.0.0/8 203.0.0.0/8 198.51.100.0/24");
    assert!(found.decides);
    found.must_have(&[
        "    \"127.0.0.0/8\",\n    \"10.0.0.0/8\",\n    \"198.51.100.0/24\",\n    # \"203.0.0.0/8\",\n]",
        "not carried over: 203.0.0.0/8",
    ]);
    found.must_lack(&[
        "not carried over: 10.0.0.0/8",
        "not carried over: 127.0.0.0/8",
    ]);
    // Many that are wide only together.
    let many: Vec<String> = (0..40).map(|n| format!("{}.0.0.0/16", 20 + n)).collect();
    let found = with(&format!("mynetworks = 10.0.0.0/8 {}", many.join(" ")));
    assert!(
        found.decides && found.text.contains("    \"10.0.0.0/8\",\n"),
        "{}",
        found.text
    );
}

#[test]
fn what_stands_in_for_a_listener_takes_nothing() {
    // Each asked for TLS, or for a login, and none of them can be there.
    for found in [
        with("smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = /gone"),
        with("inet_interfaces = relay.corp.example"),
        graph("  ipWhitelist: [127.0.0.1]\n  secure: true\n"),
        graph(
            "  ipWhitelist: [127.0.0.1]\n  requireAuth: true\n  users: [{username: a, password: b}]\n  listenAddress: nonsense\n",
        ),
        graph(
            "  ipWhitelist: [127.0.0.1]\n  requireAuth: true\n  users: [{username: a, password: b}]\n  port: 0\n",
        ),
        iis_of(
            &format!(
                "{HOST} RelayIpList=\"{}\" AccessSSLFlags=\"AccessSSL\"",
                relay_list(&[[127, 0, 0, 1]])
            ),
            "",
        ),
    ] {
        assert!(found.decides, "{}", found.text);
        found.must_have(&[
            "address = \"127.0.0.1:25\"",
            "# Nobody, until a listener of the old system is there again; it was:\n# recipients = [\"*\"]\nrecipients = []",
        ]);
    }
}

#[test]
fn postfix_clients_that_are_refused_before_they_are_permitted() {
    let found = with(
        "mynetworks = 10.0.0.0/8 10.1.2.3\nsmtpd_client_restrictions = check_client_access inline:{ {10.1 = REJECT}, 10.9.9.9=REJECT, 10.0.0.1=OK }, permit_mynetworks, reject",
    );
    assert!(!found.decides, "{}", found.text);
    found.must_have(&[
        "name = \"mynetworks\"\nnetworks = [\"10.0.0.0/8\"]",
        "name = \"refused\"\nnetworks = [\"10.1.0.0/16\", \"10.9.9.9/32\"]\nrecipients = []",
    ]);
    for (more, expected) in [
        (
            "check_client_access inline:{evil.example=REJECT}, permit_mynetworks",
            "check_client_access: evil.example (line 4)",
        ),
        (
            "check_client_access cidr:/gone, permit_mynetworks",
            "check_client_access cidr:/gone (line 4): not there",
        ),
        (
            "permit_mynetworks, check_client_access hash:/x",
            "check_client_access hash:/x (line 4)",
        ),
    ] {
        let found = with(&format!("smtpd_client_restrictions = {more}"));
        assert!(found.decides, "{}", found.text);
        found.must_have(&[expected]);
    }
    // All of it.
    let found = with(
        "smtpd_client_restrictions = check_client_access inline:{127.0.0.0/8=REJECT, 10=REJECT}, permit_mynetworks",
    );
    found.must_lack(&["name = \"mynetworks\""]);
}

#[test]
fn a_login_that_cannot_be_read_stands_as_a_comment() {
    let found = with("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/gone");
    found.must_have(&[
        "# username = \"USER\"\n# password = { file = \"/secrets/smarthost-password\" }",
        "tls = \"starttls\"",
        "the login at the smarthost is not known: not there",
    ]);
}

#[test]
fn postfix_services_of_master_cf() {
    let master = "smtp inet n - y - - smtpd\n\
        submission inet n - y - - smtpd\n  -o smtpd_tls_security_level=encrypt\n  -o smtpd_sasl_auth_enable=yes\n\
        \x20 -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n\
        smtps inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n\
        127.0.0.1:10025 inet n - y - - smtpd\n  -o content_filter=\n\
        pickup unix n - y 60 1 pickup\nmaildrop unix - n n - - pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop\n";
    let main = "mynetworks = 10.0.0.0/8\nmydestination =\nrelayhost = [s.example]\ninet_protocols = ipv4\nsmtpd_tls_cert_file = /c.pem\nsmtpd_tls_key_file = /k.pem\nsmtpd_tls_security_level = may\n";
    let found = made(postfix_of(main, Some(master)).unwrap());
    found.must_have(&[
        "[[listener]]\nname = \"smtp\"\naddress = \"0.0.0.0:25\"\ntls = \"starttls\"",
        "# [[listener]]\n# name = \"submission\"\n# address = \"0.0.0.0:587\"",
        "[[listener]]\nname = \"smtps\"\naddress = \"0.0.0.0:465\"\ntls = \"implicit\"",
        "address = \"127.0.0.1:10025\"",
        "the service submission (master.cf line 2)",
        "the service maildrop (pipe) (master.cf line 11)",
        "users are made anew",
    ]);
    found.must_lack(&["pickup"]);
    let none = made(postfix_of(main, Some("pickup unix n - y 60 1 pickup\n")).unwrap());
    none.must_have(&[
        "address = \"127.0.0.1:25\"",
        "no service of it takes mail by SMTP",
    ]);
}

#[test]
fn debians_own_main_cf() {
    // As the package ships it.
    let text = "smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)\nbiff = no\nappend_dot_mydomain = no\nreadme_directory = no\ncompatibility_level = 3.6\n\n\
        smtpd_tls_cert_file=/c.pem\nsmtpd_tls_key_file=/k.pem\nsmtpd_tls_security_level=may\nsmtp_tls_CApath=/etc/ssl/certs\nsmtp_tls_security_level=may\n\
        smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache\n\n\nsmtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination\n\
        myhostname = vm.corp.example\nalias_maps = hash:/etc/aliases\nalias_database = hash:/etc/aliases\nmydestination = $myhostname, vm, localhost.localdomain, , localhost\n\
        relayhost = [smtp.corp.example]:587\nmynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\nmailbox_size_limit = 0\nrecipient_delimiter = +\ninet_interfaces = all\ninet_protocols = all\n";
    let found = made(postfix_of(text, None).unwrap());
    found.must_have(&[
        "networks = [\"127.0.0.0/8\", \"::1/128\"]",
        "hostname = \"vm.corp.example\"",
        "alias_maps (line 17)",
    ]);
}

fn iis_of(attributes: &str, more: &str) -> Made {
    let text = format!(
        "<?xml version=\"1.0\"?>\n<configuration xmlns=\"urn:microsoft-catalog:XML_Metabase_V64_0\">\n<MBProperty>\n\
        <IIsSmtpService Location=\"/LM/SmtpSvc\"\n DefaultDomain=\"server01.corp.example\"\n FullyQualifiedDomainName=\"server01.corp.example\"\n\
        \x20SmtpRemoteProgressiveRetry=\"15,30,60,240\"\n>\n<Custom\n Name=\"AuthFlags\"\n ID=\"6000\"\n Value=\"AuthAnonymous\"\n Type=\"DWORD\"\n/>\n</IIsSmtpService>\n\
        <IIsSmtpServer Location=\"/LM/SmtpSvc/1\"\n {attributes}\n>\n</IIsSmtpServer>\n{more}\n</MBProperty>\n</configuration>\n"
    );
    made(iis::import(&source(&text)).unwrap())
}

/// A list of single addresses, as the console writes it.
fn relay_list(addresses: &[[u8; 4]]) -> String {
    let count = addresses.len() as u8;
    let mut octets = vec![
        24, 0, 0, 128, 32, 0, 0, 128, 60, 0, 0, 128, 68, 0, 0, 128, 1, 0, 0, 0, 76, 0, 0, 0,
    ];
    octets.extend([
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        count,
        0,
        0,
        0,
        2,
        0,
        0,
        0,
        count + 1,
        0,
        0,
        0,
        4,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    octets.extend([76, 0, 0, 128]);
    octets.extend([0; 16]);
    octets.extend([255; 4]);
    octets.extend(addresses.iter().flatten());
    crate::mail::text::hex(&octets)
}

const HOST: &str = "SmartHost=\"[192.0.2.1]\" SmartHostType=\"2\"";

#[test]
fn iis_every_property_that_is_carried_over() {
    let list = format!(
        "RelayIpList=\"{}\"",
        relay_list(&[[10, 0, 0, 5], [10, 0, 0, 6]])
    );
    for (attributes, expected) in [
        (
            "",
            &[
                "hostname = \"server01.corp.example\"",
                "default_domain = \"server01.corp.example\"",
                "retry = [\"15m\", \"30m\", \"1h\", \"4h\"]",
                "address = \"0.0.0.0:25\"",
            ][..],
        ),
        (
            "ServerBindings=\":25:\n\t\t10.0.0.1:587:\"",
            &["\"0.0.0.0:25\"", "\"10.0.0.1:587\""],
        ),
        (
            "FullyQualifiedDomainName=\"mail.corp.example\"",
            &[
                "hostname = \"mail.corp.example\"",
                "default_domain = \"server01.corp.example\"",
            ],
        ),
        (
            "DefaultDomain=\"corp.example\"",
            &["default_domain = \"corp.example\""],
        ),
        (
            "",
            &[
                "host = \"192.0.2.1\"\nport = 25\ntls = \"off\"",
                "networks = [\"10.0.0.5/32\", \"10.0.0.6/32\"]",
            ],
        ),
        ("RemoteSmtpPort=\"587\"", &["port = 587"]),
        (
            "RemoteSmtpPort=\"587\" AlwaysUseSsl=\"TRUE\"",
            &["tls = \"starttls\""],
        ),
        ("MaxMessageSize=\"2097152\"", &["message_size = \"2MiB\""]),
        ("MaxRecipients=\"100\"", &["recipients = 100"]),
        ("SmtpRemoteNDRExpireMinutes=\"2880\"", &["give_up = \"2d\""]),
        (
            "SendNdrTo=\"ops@corp.example\"",
            &["copy_to = [\"ops@corp.example\"]"],
        ),
        (
            "RouteUserName=\"CORP\\relay\" RoutePassword=\"49634462e0000000\"",
            &[
                "# username = 'CORP\\relay'",
                "# password = { file",
                "tls = \"starttls\"",
                "not carried over: RoutePassword",
            ],
        ),
    ] {
        let found = iis_of(&format!("{HOST} {list} {attributes}"), "");
        found.must_have(expected);
        assert!(!found.decides, "{attributes}\n{}", found.text);
        found.must_lack(&["49634462e0000000"]);
    }
    let found = iis_of(
        &format!("SmartHost=\"[192.0.2.1];relay.corp.example\" {list}"),
        "",
    );
    found.must_have(&["connectors = [\"smarthost\", \"relay.corp.example\"]"]);
}

#[test]
fn iis_every_word_that_is_left_out() {
    let list = format!("RelayIpList=\"{}\"", relay_list(&[[10, 0, 0, 5]]));
    for (attributes, more, expected) in [
        (
            "PickupDirectory=\"C:\\inetpub\\mailroot\\Pickup\"",
            "",
            "PickupDirectory (line 17)",
        ),
        (
            "BadMailDirectory=\"C:\\inetpub\"",
            "",
            "BadMailDirectory (line 17)",
        ),
        (
            "RoutingSources=\"szDataDirectory=C:\"",
            "",
            "RoutingSources (line 17): LDAP routing",
        ),
        (
            "AuthFlags=\"AuthBasic | AuthNTLM\"",
            "",
            "AuthFlags (line 17): everybody had to log in there",
        ),
        ("RelayForAuth=\"-1\"", "", "RelayForAuth (line 17)"),
        (
            "SmartHostType=\"1\"",
            "",
            "SmartHostType 1 (line 17): direct delivery was tried first",
        ),
        (
            "MasqueradeDomain=\"corp.example\"",
            "",
            "MasqueradeDomain (line 17): a rewrite gives one address",
        ),
        (
            "",
            "<IIsSmtpDomain Location=\"/LM/SmtpSvc/1/Domain/alias.example\" RouteAction=\"16\"/>",
            "IIsSmtpDomain alias.example (line 20)",
        ),
        (
            "AccessSSLFlags=\"AccessSSL\"",
            "",
            "AccessSSLFlags (line 17): TLS is required",
        ),
        (
            "ServerBindings=\"nonsense\"",
            "",
            "ServerBindings: nonsense",
        ),
    ] {
        let host = if attributes.contains("SmartHostType") {
            "SmartHost=\"[192.0.2.1]\""
        } else {
            HOST
        };
        let found = iis_of(&format!("{host} {list} {attributes}"), more);
        found.must_have(&[expected]);
        assert_eq!(
            found.decides,
            !attributes.contains("BadMail") && !attributes.contains("Masquerade"),
            "{attributes}\n{}",
            found.text
        );
    }
    // Without a way out.
    for attributes in ["", "SmartHost=\"[192.0.2.1]\" SmartHostType=\"0\""] {
        let found = iis_of(&format!("{list} {attributes}"), "");
        assert!(
            found.decides && found.notes[0].contains("which you have to name"),
            "{:?}",
            found.notes
        );
        found.must_have(&["smarthost.invalid"]);
    }
    // A list of a form that nobody knows lets nobody send, and is shown.
    for odd in [
        "1800008020000080",
        "zz",
        "18",
        &relay_list(&[[10, 0, 0, 5]]).replace("01000000", "00000000"),
        "",
    ] {
        let found = iis_of(&format!("{HOST} RelayIpList=\"{odd}\""), "");
        assert!(
            found.decides
                && found
                    .text
                    .contains("networks = [\"127.0.0.0/8\", \"::1\"]\nrecipients = []"),
            "{}",
            found.text
        );
        found.must_have(&["Access, Relay"]);
    }
}

#[test]
fn iis_domains_and_several_servers() {
    let list = format!("RelayIpList=\"{}\"", relay_list(&[[10, 0, 0, 5]]));
    let other = format!("RelayIpList=\"{}\"", relay_list(&[[10, 0, 0, 9]]));
    let found = iis_of(
        &format!("{HOST} {list}"),
        &format!(
            "<IIsSmtpDomain Location=\"/LM/SmtpSvc/1/Domain/*.partner.example\" RouteActionString=\"[192.0.2.7]\"/>\n\
            <IIsSmtpServer Location=\"/LM/SmtpSvc/2\" ServerBindings=\":2525:\" SmartHost=\"other.example\" {other}/>"
        ),
    );
    found.must_have(&[
        "recipients = [\"*.partner.example\"]\nclients = [\"relay-smtp-1\"]\nlisteners = [\"smtp-1\"]",
        "clients = [\"relay-smtp-2\"]\nlisteners = [\"smtp-2\"]\nconnectors = [\"other.example\"]",
    ]);
    // The second lets nobody in: nobody sends by it.
    let found = iis_of(
        &format!("{HOST} {list}"),
        "<IIsSmtpServer Location=\"/LM/SmtpSvc/2\" ServerBindings=\":2525:\" SmartHost=\"other.example\"/>",
    );
    found.must_lack(&["listeners = [\"smtp-2\"]"]);
}

const SAMPLE: &str = include_str!("samples/config.example.yml");

fn graph_of(text: &str) -> Made {
    let files = Shelf::of(&[
        ("server.crt", PEM),
        ("private.key", PEM),
        ("client.key", PEM),
    ]);
    made(smtp2graph::import(&source(text), &files).unwrap())
}

fn graph(receive: &str) -> Made {
    graph_of(&format!(
        "mode: full\nsend:\n  appReg:\n    tenant: contoso\n    id: 01234567-89ab-cdef-0123-456789abcdef\n    secret: s3cret~Value\nreceive:\n{receive}\n"
    ))
}

#[test]
fn smtp2graph_every_key_that_is_carried_over() {
    let quiet = "  ipWhitelist: [10.0.0.0/8]\n";
    for (more, expected) in [
        (
            "",
            &[
                "tenant_id = \"contoso.onmicrosoft.com\"",
                "client_id = \"01234567-89ab-cdef-0123-456789abcdef\"",
                "client_secret = { file = \"/secrets/exchange-secret\" }",
                "address = \"[::]:25\"",
                "message_size = \"100MiB\"",
                "senders = [\"*\"]",
                "networks = [\"10.0.0.0/8\"]",
            ][..],
        ),
        (
            "  listenAddress: 127.0.0.1\n  port: 2525\n",
            &["address = \"127.0.0.1:2525\""],
        ),
        ("  maxSize: 25m\n", &["message_size = \"25MiB\""]),
        ("  maxSize: 512K\n", &["message_size = \"512KiB\""]),
        (
            "  tlsKeyPath: private.key\n  tlsCertPath: server.crt\n",
            &["tls = \"starttls\"\ncertificate = \"server.crt\"\nkey = \"private.key\""],
        ),
        (
            "  secure: true\n  tlsKeyPath: private.key\n  tlsCertPath: server.crt\n",
            &["tls = \"implicit\""],
        ),
        (
            "  allowedFrom: [a@corp.example]\n  allowedRcpt: [b@corp.example]\n",
            &[
                "senders = [\"a@corp.example\"]",
                "recipients = [\"b@corp.example\"]",
            ],
        ),
        (
            "  requireAuth: true\n  users:\n    - username: app\n      password: s3cret!\n",
            &[
                "auth = \"required\"\nplaintext_auth = true",
                "name = \"app\"\npassword = \"$argon2id$",
                "recipients = []",
            ],
        ),
        (
            "  users:\n    - {username: app, password: s3cret!, allowedFrom: [a@corp.example]}\n",
            &["auth = \"optional\"", "senders = [\"a@corp.example\"]"],
        ),
        (
            "  allowInsecureAuth: true\n  tlsKeyPath: private.key\n  tlsCertPath: server.crt\n  users: [{username: app, password: s3cret!}]\n",
            &[
                "plaintext_auth = true",
                "different now: receive.allowInsecureAuth",
            ],
        ),
    ] {
        let found = graph(&format!("{quiet}{more}"));
        found.must_have(expected);
        assert!(!found.decides, "{more}\n{}", found.text);
        found.must_lack(&["s3cret"]);
    }
    for (more, expected) in [
        (
            "  forceMailbox: relay@corp.example\n",
            "mailbox = \"relay@corp.example\"",
        ),
        (
            "  retryLimit: 1000\n  retryInterval: 10\n",
            "give_up = \"10010m\"",
        ),
    ] {
        let text = format!(
            "send:\n{more}  appReg: {{tenant: corp.example, id: 01234567-89ab-cdef-0123-456789abcdef, secret: s3cret}}\nreceive: {{ipWhitelist: [::1]}}\nhttpProxy: {{host: proxy.corp.example, port: 3128}}\n"
        );
        let found = graph_of(&text);
        found.must_have(&[
            expected,
            "tenant_id = \"corp.example\"",
            "proxy = \"http://proxy.corp.example:3128\"",
            "networks = [\"::1/128\"]",
        ]);
        assert!(!found.decides, "{}", found.text);
    }
    graph("  ipWhitelist: [10.0.0.0/8]\n").must_lack(&["give_up"]);
}

#[test]
fn smtp2graph_every_word_that_is_left_out() {
    let quiet = "  ipWhitelist: [10.0.0.0/8]\n";
    for (more, expected, decides) in [
        ("  banner: My server\n", "receive.banner (line 9)", false),
        (
            "  rateLimit: {duration: 60, limit: 10}\n",
            "receive.rateLimit (line 9)",
            false,
        ),
        (
            "  authLimit: {duration: 60, limit: 10}\n",
            "receive.authLimit (line 9)",
            false,
        ),
        (
            "  colour: red\n",
            "receive.colour (line 9): this key is not known here",
            false,
        ),
        (
            "  secure: true\n",
            "receive.secure (line 9): TLS is required",
            true,
        ),
        (
            "  listenAddress: nonsense\n",
            "receive.listenAddress: nonsense (line 9)",
            true,
        ),
        (
            "  requireAuth: true\n",
            "receive.requireAuth (line 9): there is no user",
            true,
        ),
        (
            "  allowedFrom: [nonsense]\n",
            "receive.allowedFrom: nonsense (line 9)",
            true,
        ),
        (
            "  allowedFrom: [a@b.example]\n  users: [{username: u, password: p, allowedFrom: [c@b.example]}]\n",
            "receive.users: u: allowedFrom",
            true,
        ),
    ] {
        let found = graph(&format!("{quiet}{more}"));
        found.must_have(&[expected]);
        assert_eq!(found.decides, decides, "{more}\n{}", found.text);
    }
    for mode in ["send", "receive"] {
        let found = graph_of(&format!(
            "mode: {mode}\nsend:\n  appReg: {{tenant: a, id: 01234567-89ab-cdef-0123-456789abcdef, secret: x}}\n"
        ));
        assert!(found.decides);
        found.must_have(&[&format!("mode: {mode} (line 1)")]);
    }
    // Anybody could send: the networks that are nobody else's go on, the rest stands as a comment.
    let found = graph("  port: 25\n");
    assert!(found.decides);
    found.must_have(&[
        "\"192.168.0.0/16\"",
        "# \"0.0.0.0/0\",",
        "not carried over: 0.0.0.0/0",
    ]);
    // Only a key: the certificate has to be had.
    let found = graph_of(
        "send:\n  appReg:\n    tenant: contoso\n    id: 01234567-89ab-cdef-0123-456789abcdef\n    certificate:\n      thumbprint: 0123\n      privateKeyPath: client.key\nreceive: {ipWhitelist: [10.0.0.1]}\n",
    );
    assert!(found.decides);
    found.must_have(&[
        "# type = \"graph\"",
        "# key = \"client.key\"",
        "certificate.thumbprint (line 6)",
        "--renew",
        "smarthost.invalid",
    ]);
}

#[test]
fn smtp2graphs_own_sample() {
    let found = graph_of(SAMPLE);
    found.must_have(&[
        "# tenant_id = \"contoso.onmicrosoft.com\"",
        "address = \"127.0.0.1:587\"\ntls = \"implicit\"",
        "auth = \"required\"",
        "plaintext_auth = true",
        "name = \"users\"",
        "message_size = \"25MiB\"",
        "\"fe80::/10\"",
        "senders = [\"noreply@example.com\", \"something@example.com\"]",
        "recipients = [\"recipient1@example.com\", \"recipient2@example.com\"]",
    ]);
    found.must_lack(&["P@ssword!"]);
}

#[test]
fn smtp2graph_lists_of_users() {
    // A user's own list took the place of the list of all; others are held to that by lists of their own.
    let found = graph(
        "  ipWhitelist: [10.0.0.0/8]\n  requireAuth: true\n  allowedFrom: [a@b.example]\n  users:\n    - {username: one, password: p, allowedFrom: [c@b.example]}\n    - {username: two, password: p}\n",
    );
    found.must_have(&[
        "[allowlist]",
        "senders = [\"a@b.example\", \"c@b.example\"]",
    ]);
    let users: Vec<&str> = found.text.split("[[user]]").skip(1).collect();
    assert!(
        users[0].contains("senders = [\"c@b.example\"]")
            && users[1].contains("senders = [\"a@b.example\"]"),
        "{}",
        found.text
    );
    assert!(!found.decides);
}

fn msmtp_of(text: &str) -> Made {
    let files = Shelf::of(&[("/ca.pem", PEM), ("/c.pem", PEM), ("/k.pem", PEM)]);
    made(msmtp::import(&[source(text)], &files).unwrap())
}

#[test]
fn msmtp_every_command_that_is_carried_over() {
    let base = "account default\nhost smtp.corp.example\n";
    for (more, expected) in [
        (
            "",
            &[
                "name = \"default\"\ntype = \"smtp\"\nhost = \"smtp.corp.example\"\nport = 25\ntls = \"off\"",
                "connectors = [\"default\"]",
                "address = \"127.0.0.1:25\"",
            ][..],
        ),
        ("port 587\ntls on\n", &["port = 587\ntls = \"starttls\""]),
        (
            "tls\ntls_starttls off\n",
            &["port = 465\ntls = \"implicit\""],
        ),
        (
            "tls on\ntls_trust_file /ca.pem\n",
            &["ca_file = \"/ca.pem\""],
        ),
        (
            "tls on\ntls_cert_file /c.pem\ntls_key_file /k.pem\n",
            &["client_certificate = \"/c.pem\"\nclient_key = \"/k.pem\""],
        ),
        ("tls on\ntls_certcheck off\n", &["verify = \"none\""]),
        (
            "tls on\nauth on\nuser relay\npassword \"s3cret pass\"\n",
            &["username = \"relay\"\npassword = { file = \"/secrets/default-password\" }"],
        ),
        (
            "tls on\nauth plain\nuser relay\npassword s3cret\n",
            &["auth = \"plain\""],
        ),
        (
            "tls on\nauth login\nuser relay\npassword s3cret\n",
            &["auth = \"login\""],
        ),
        (
            "auth on\nuser relay\npassword s3cret\n",
            &["tls = \"starttls\"", "different now: account default"],
        ),
        (
            "domain out.corp.example\n",
            &["helo = \"out.corp.example\""],
        ),
        (
            "proxy_host 127.0.0.1\nproxy_port 9050\n",
            &["proxy = \"socks5://127.0.0.1:9050\""],
        ),
        (
            "proxy_host proxy.corp.example\n",
            &["proxy = \"socks5://proxy.corp.example:1080\""],
        ),
        (
            "from app@corp.example\n",
            &["senders = [\"app@corp.example\"]\nconnectors = [\"default\"]"],
        ),
        ("from *@corp.example\n", &["senders = [\"*@corp.example\"]"]),
    ] {
        let found = msmtp_of(&format!("{base}{more}"));
        found.must_have(expected);
        assert!(!found.decides, "{more}\n{}", found.text);
        found.must_lack(&["s3cret"]);
    }
}

#[test]
fn msmtp_every_word_that_is_left_out() {
    let base = "account default\nhost smtp.corp.example\ntls on\n";
    for (more, expected, decides) in [
        (
            "auth on\nuser relay\npasswordeval gpg -d x\n",
            "# username = \"relay\"",
            false,
        ),
        (
            "auth on\nuser relay\npasswordeval gpg -d x\n",
            "the login of relay (line 6): passwordeval",
            false,
        ),
        ("auth on\nuser relay\n", "keyring", false),
        (
            "auth xoauth2\nuser relay\npassword s3cret\n",
            "auth xoauth2 is not spoken with a password",
            false,
        ),
        ("logfile ~/.msmtp.log\n", "logfile (line 4)", false),
        ("syslog LOG_MAIL\n", "syslog (line 4)", false),
        ("tls_fingerprint 01:23\n", "tls_fingerprint (line 4)", false),
        ("dsn_notify failure\n", "dsn_notify (line 4)", false),
        ("dsn_return full\n", "dsn_return (line 4)", false),
        ("aliases /etc/aliases\n", "aliases (line 4)", true),
        ("eval echo host x\n", "eval (line 4)", true),
        ("protocol lmtp\n", "only SMTP is spoken", true),
        (
            "colour red\n",
            "a command (line 4): it is not known here",
            false,
        ),
        (
            "from %U@corp.example\n",
            "from %U@corp.example (line 4)",
            false,
        ),
        (
            "tls_trust_file /gone\n",
            "tls_trust_file (line 4): the system's roots are used: not there",
            false,
        ),
    ] {
        let found = msmtp_of(&format!("{base}{more}"));
        found.must_have(&[expected]);
        assert_eq!(found.decides, decides, "{more}\n{}", found.text);
        found.must_lack(&["s3cret", "gpg"]);
    }
}

#[test]
fn msmtps_own_example() {
    let text = "defaults\nport 587\ntls on\ntls_starttls on\naccount freemail\nhost smtp.freemail.example\nfrom joe_smith@freemail.example\nauth on\nuser joe.smith\n\
        passwordeval gpg2 --no-tty -q -d ~/.msmtp-password.gpg\naccount freemail2 : freemail\nfrom joey@freemail.example\naccount company\nhost mail.company.example\n\
        from smithjoe@company.example\nauth on\nuser company12345\naccount default : freemail\n";
    let found = msmtp_of(text);
    found.must_have(&[
        "senders = [\"joe_smith@freemail.example\"]\nconnectors = [\"freemail\"]",
        "senders = [\"joey@freemail.example\"]\nconnectors = [\"freemail2\"]",
        "senders = [\"smithjoe@company.example\"]\nconnectors = [\"company\"]",
        "# username = \"company12345\"",
    ]);
    let last = found.text.rfind("[[route]]").unwrap();
    assert!(
        found.text[last..].contains("connectors = [\"default\"]"),
        "{}",
        found.text
    );
    let none = msmtp_of("account a\nhost a.example\nfrom a@a.example\n");
    none.must_have(&["account default: there is none"]);
}

#[test]
fn what_is_something_else_is_refused() {
    let refused = |fault: Result<ImportDraft, NotUnderstood>| fault.unwrap_err().why;
    let files = Shelf::default();
    for text in ["", "<a/>", "{\"a\": 1}", "nonsense", "\u{0}\u{1}"] {
        let one = source(text);
        refused(postfix::import(&one, None, "/", &files));
        refused(iis::import(&one));
        refused(smtp2graph::import(&one, &files));
        refused(msmtp::import(&[one], &files));
    }
    let bomb = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY d \"&b;&b;\">]><a>&d;</a>";
    assert!(refused(iis::import(&source(bomb))).contains("DTD"));
    refused(iis::import(&source(&"<a>".repeat(100_000))));
    assert!(
        refused(smtp2graph::import(&source("a: &x [1]\nsend: *x\n"), &files)).contains("aliases")
    );
    assert!(
        refused(postfix::import(
            &source("mynetworks = $mynetworks\n"),
            None,
            "/",
            &files
        ))
        .contains("refers to itself")
    );
}

/// Changes that a careless hand, or a bad one, might make.
fn mutated(text: &str, rng: &mut fastrand::Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(0..chars.len().max(1));
        match rng.u8(0..7) {
            0 if at < chars.len() => {
                chars.remove(at);
            }
            1 => chars.insert(
                at.min(chars.len()),
                *rng.choice(&[
                    '"', '\'', '\n', '\0', '\u{1b}', '$', '{', '}', '*', '&', '<', ':', '\u{202e}',
                    '\\', ' ',
                ])
                .unwrap(),
            ),
            // Fewer than would join a password to the name before it, which nobody could tell apart.
            2 => {
                let end = (at + rng.usize(0..6)).min(chars.len());
                chars.drain(at.min(end)..end);
            }
            3 => {
                let end = (at + rng.usize(0..40)).min(chars.len());
                let part: Vec<char> = chars[at.min(end)..end].to_vec();
                chars.splice(end..end, part);
            }
            4 => chars.insert(at.min(chars.len()), rng.char(..)),
            5 if at < chars.len() => {
                chars[at] = *rng
                    .choice(&['9', '/', '.', '@', '=', '\t', '\r', '-'])
                    .unwrap();
            }
            _ => chars.truncate(at.max(chars.len() / 2)),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn no_text_makes_it_panic_or_write_nonsense_or_a_secret() {
    const SECRETS: [&str; 5] = [
        "s3cretPass1",
        "s3cretPass2",
        "s3cretPass3",
        "s3cretPass4",
        "496344",
    ];
    let main = "myhostname = relay.corp.example\nmynetworks = 127.0.0.0/8, !10.1.0.0/16,\n  10.0.0.0/8 [::1]/128\nrelayhost = [smtp.corp.example]:587\nsmtp_sasl_auth_enable = yes\n\
        smtp_sasl_password_maps = hash:/sasl\nsmtp_tls_security_level = ${x?{may}:{encrypt}}\ntransport_maps = inline:{ a.example=smtp:[b.example], {c.example = local:} }\n\
        smtpd_recipient_restrictions = check_sender_access hash:/ok, permit_mynetworks, reject\nsender_canonical_maps = hash:/can\n";
    let sasl = "[smtp.corp.example]:587 relay:s3cretPass1\n[other.example] you:s3cretPass1\n";
    let metabase = format!(
        "<configuration><IIsSmtpService Location=\"/LM/SmtpSvc\" DefaultDomain=\"corp.example\"/><IIsSmtpServer Location=\"/LM/SmtpSvc/1\" ServerBindings=\":25:\" SmartHost=\"[192.0.2.1];b.example\" \
        RouteUserName=\"relay\" RoutePassword=\"49634462e0\" RelayIpList=\"{}\" MaxMessageSize=\"2097152\"/></configuration>",
        relay_list(&[[10, 0, 0, 5]])
    );
    let yaml = "mode: full\nsend:\n  appReg:\n    tenant: contoso\n    id: 01234567-89ab-cdef-0123-456789abcdef\n    secret: s3cretPass2\n  forceMailbox: a@corp.example\nreceive:\n  port: 25\n  ipWhitelist:\n    - 10.0.0.0/8\n  users:\n    - username: app\n      password: s3cretPass3\n      allowedFrom:\n        - a@corp.example\n";
    let msmtprc = "defaults\ntls on\naccount a\nhost smtp.corp.example\nauth on\nuser relay\npassword s3cretPass4\nfrom a@corp.example\naccount default : a\n";
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..500 {
        let mut change = |text: &str| {
            if round == 0 {
                text.to_owned()
            } else {
                mutated(text, &mut rng)
            }
        };
        let mut files = Shelf(BTreeMap::new());
        files.0.insert("/sasl".to_owned(), change(sasl));
        files.0.insert(
            "/ok".to_owned(),
            change("corp.example OK\nboss@corp.example REJECT\n"),
        );
        files.0.insert(
            "/can".to_owned(),
            change("root noreply@corp.example\n@a.example b@c.example\n"),
        );
        let drafts = [
            postfix::import(&source(&change(main)), None, "/etc/postfix", &files),
            iis::import(&source(&change(&metabase))),
            smtp2graph::import(&source(&change(yaml)), &files),
            msmtp::import(&[source(&change(msmtprc))], &files),
        ];
        for draft in drafts {
            let mut draft = match draft {
                Ok(draft) => draft,
                Err(fault) => {
                    assert!(
                        !SECRETS.iter().any(|secret| fault.why.contains(secret)),
                        "{}",
                        fault.why
                    );
                    continue;
                }
            };
            let around = RenderAround {
                secrets: None,
                hashes: draft.users.iter().map(|_| HASH.to_owned()).collect(),
            };
            finish::finish(&mut draft, &around);
            let text = render(&draft, &around);
            let said = draft.notes.lines().join("\n");
            assert!(
                toml::from_str::<toml::Table>(&text).is_ok(),
                "round {round}\n{text}"
            );
            let refused = finish::refusals(&text);
            assert!(refused.is_empty(), "round {round}: {refused:?}\n{text}");
            for secret in SECRETS {
                assert!(
                    !text.contains(secret) && !said.contains(secret),
                    "round {round}: {secret}\n{text}"
                );
            }
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "round {round}\n{text:?}"
            );
        }
    }
}

#[test]
fn large_files_take_no_large_time() {
    // Millions of octets on one line, or of lines, each way. What took the square of it would take days.
    let long = "x".repeat(1 << 20);
    let files = Shelf::of(&[(
        "/t",
        &format!(
            "a {long}\n{}",
            "b.example smtp:[c.example]\n".repeat(50_000)
        ),
    )]);
    for text in [
        format!("mynetworks = {long}\n"),
        format!("relayhost = [{long}]\n"),
        format!("{long} = y\n"),
        format!("x = {}\n", "$b".repeat(1 << 20)),
        format!("x = {}\n", "${".repeat(1 << 20)),
        format!("mynetworks = {}\n", "10.0.0.1 ".repeat(100_000)),
        "transport_maps = hash:/t\nrelayhost = [x.example]\n".to_owned(),
    ] {
        let _ = postfix::import(&source(&text), None, "/", &files).map(made);
    }
    for text in [
        format!("a: {long}"),
        format!("send: {{a: {long}}}"),
        format!("receive: [{}]", "a, ".repeat(1 << 20)),
        long.clone(),
    ] {
        let _ = smtp2graph::import(&source(&text), &files).map(made);
    }
    for text in [
        format!("<IIsSmtpServer SmartHost=\"{long}\"/>"),
        format!("<IIsSmtpServer RelayIpList=\"{}\"/>", "18".repeat(1 << 20)),
        format!("<a>{}</a>", "<b/>".repeat(600_000)),
        long.clone(),
    ] {
        let _ = iis::import(&source(&text)).map(made);
    }
    for text in [
        format!("account default\nhost {long}\n"),
        format!("account {long}\nhost a.example\n"),
        long.clone(),
    ] {
        let _ = msmtp::import(&[source(&text)], &files).map(made);
    }
}

/// What stands where a table, a next hop or a method belongs may be a password.
#[test]
fn a_password_that_stands_in_a_name_is_shown_nowhere() {
    const PASSWORD: &str = "hunter2secret";
    for maps in [
        "unionmap:{static:u:PW}",
        "randmap:{u:PW}",
        "pcre:{{/^/ u:PW}}",
        "proxy:unionmap:{inline:{a=u:PW}}",
        "u:PW",
        "PW",
        "hash:PW",
        "static:u:PW",
        "inline:{a=u:PW}",
    ] {
        let maps = maps.replace("PW", PASSWORD);
        for parameter in [
            "smtp_sasl_password_maps",
            "sender_dependent_relayhost_maps",
            "transport_maps",
            "smtp_generic_maps",
        ] {
            let made = with(&format!("{parameter} = {maps}"));
            made.must_lack(&[PASSWORD]);
        }
    }
    let relayhost = format!(
        "mynetworks = 10.0.0.0/8\nmydestination =\nrelayhost = u:{PASSWORD}@smtp.corp.example\n"
    );
    made(postfix_of(&relayhost, None).unwrap()).must_lack(&[PASSWORD]);
    let account = format!(
        "account a\nhost smtp.corp.example\nfrom a@corp.example\nuser u\nauth {PASSWORD}\n"
    );
    msmtp_of(&account).must_lack(&[PASSWORD]);
}

/// Senders, recipients and tables of one list, in the order in which Postfix asks.
#[test]
fn nobody_is_admitted_whom_another_table_refused() {
    // Each with who must not be among those who may send, or be sent to.
    for (more, nobody) in [
        (
            "smtpd_recipient_restrictions = check_sender_access inline:{bad@corp.example=REJECT}, check_recipient_access inline:{partner.example=OK}, reject",
            "senders = []",
        ),
        (
            "smtpd_recipient_restrictions = check_recipient_access inline:{bad@corp.example=REJECT}, check_sender_access inline:{boss@corp.example=OK}, reject",
            "recipients = []",
        ),
        (
            "smtpd_recipient_restrictions = check_sender_access inline:{corp.example=REJECT}, check_sender_access inline:{boss@corp.example=OK}, reject",
            "senders = []",
        ),
        (
            "smtpd_sender_restrictions = check_sender_access inline:{.corp.example=OK}, reject",
            "recipients = []",
        ),
    ] {
        let made = with(more);
        made.must_have(&[nobody]);
        made.must_lack(&["\"*.corp.example\""]);
    }
    // One table: the narrower key is looked up first.
    with("smtpd_sender_restrictions = check_sender_access inline:{corp.example=REJECT, boss@corp.example=OK}, reject")
        .must_have(&["senders = [\"boss@corp.example\"]"]);
    let made = with(
        "smtpd_sender_restrictions = check_sender_access inline:{boss@corp.example=OK}, reject\nsender_canonical_maps = inline:{@y.example=boss@corp.example}",
    );
    made.must_have(&[
        "the rewrite of y.example",
        "might not send under its own name",
    ]);
    made.must_lack(&["[[rewrite]]"]);
    assert!(made.decides);
}

/// What a service asks beyond the rest keeps its listener a comment.
#[test]
fn a_service_that_asks_more_is_not_opened() {
    let main = "mynetworks = 127.0.0.0/8 10.0.0.0/8\nmydestination =\nrelayhost = [smtp.corp.example]:587\n";
    for (master, what) in [
        (
            "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n",
            "the service smtp",
        ),
        (
            "smtp inet n - y - - smtpd\n  -o smtpd_sender_restrictions=check_policy_service,unix:private/p,permit\n",
            "check_policy_service unix:private/p of the service smtp",
        ),
        (
            "smtp inet n - y - - smtpd\n  -o smtpd_sender_restrictions=check_sender_access,regexp:/x,permit\n",
            "check_sender_access regexp:/x of the service smtp",
        ),
        (
            "smtp inet n - y - - smtpd\n  -o smtpd_tls_req_ccert=yes\n",
            "smtpd_tls_req_ccert of the service smtp",
        ),
        (
            "smtp inet n - y - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n",
            "smtpd_upstream_proxy_protocol of the service smtp",
        ),
    ] {
        let made = made(postfix_of(main, Some(master)).unwrap());
        made.must_have(&[what]);
        assert!(made.decides, "{master}");
        let open = made
            .text
            .lines()
            .filter(|line| line.starts_with("address = "));
        assert!(
            open.clone().all(|line| line.contains("127.0.0.1:25")),
            "{}",
            made.text
        );
    }
}

/// Its YAML and its JavaScript: a text is true, and a text that is no list lets nobody in.
#[test]
fn smtp2graph_takes_as_true_what_is_true_there() {
    for word in ["yes", "on", "1", "\"yes\"", "true", "'false'"] {
        let made = graph(&format!(
            "  requireAuth: {word}\n  users:\n    - username: u\n      password: p-of-u\n"
        ));
        made.must_have(&["auth = \"required\""]);
    }
    for word in ["false", "0", "null", "''"] {
        let made = graph(&format!(
            "  requireAuth: {word}\n  users:\n    - username: u\n      password: p-of-u\n"
        ));
        made.must_have(&["auth = \"optional\""]);
    }
    let made = graph("  ipWhitelist: 10.0.0.5\n");
    made.must_have(&["receive.ipWhitelist", "let nobody in"]);
    made.must_lack(&["10.0.0.0/8"]);
    assert!(made.decides);
}

/// Without "anonymous" everybody had to log in: the networks of the relay list did not send without.
#[test]
fn iis_that_wants_a_login_is_not_opened() {
    let flags = |value: &str| {
        let list = relay_list(&[[10, 0, 0, 5]]);
        iis_of(&format!("AuthFlags=\"{value}\" RelayIpList=\"{list}\""), "")
    };
    for (value, is_asleep) in [
        ("AuthNTLM", true),
        ("AuthBasic | AuthNTLM", true),
        ("AuthMD5", true),
        ("2", true),
        ("AuthAnonymous", false),
        ("AuthAnonymous | AuthBasic", false),
        ("3", false),
        ("1", false),
    ] {
        let made = flags(value);
        assert_eq!(
            made.has("Everybody had to log in there"),
            is_asleep,
            "{value}\n{}",
            made.text
        );
        if value != "AuthAnonymous" && value != "1" {
            assert!(made.decides, "{value}");
        }
    }
}

#[test]
fn a_login_of_one_user_that_serves_all_is_said() {
    let account = "account a\nhost smtp.corp.example\nfrom a@corp.example\ntls on\nauth on\nuser u\npassword p-of-u\n";
    let made = msmtp_of(account);
    made.must_have(&["different now: ", "sends with this login now"]);
    assert!(!made.decides);
}
