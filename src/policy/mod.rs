//! MAY IT? Who may send as whom, to whom; pure functions over settings that were checked at load.
//!
//! Apart so that the session and `postern explain` ask the same judge. It opens nothing, waits for nothing and knows
//! neither TOML nor sockets. The order of the rules is the order of the methods: connect, mail, rcpt, content.

pub mod content;
pub mod grants;
pub mod network;
pub mod rewrite;

use std::net::IpAddr;

use crate::mail::{
    address::{Address, Domain},
    message::{MessageId, Origin},
    pattern::Pattern,
    reply::Reply,
};
use grants::{Party, User};
use network::Client;
use rewrite::Rewrite;

/// The answer of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Accept,
    /// It may not; the reply names the rule.
    Reject(Reply),
}

/// Whether a listener asks for SMTP AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Not offered.
    #[default]
    Off,
    /// Offered.
    Optional,
    /// Nothing but greeting commands before it.
    Required,
}

/// Both lists of `[allowlist]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    /// Who may send.
    pub senders: Vec<Pattern>,
    /// To whom.
    pub recipients: Vec<Pattern>,
    /// The recipients in the header (To, Cc, Bcc, their Resent forms, Apparently-To) are held to the recipient list too.
    pub header_recipients: bool,
}

/// All rules of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `[[client]]`; when none is configured, config puts one for loopback here, named `loopback`.
    pub clients: Vec<Client>,
    /// `[[user]]`.
    pub users: Vec<User>,
    /// `[allowlist]`.
    pub allowlist: Allowlist,
    /// `[[rewrite]]`, first match wins.
    pub rewrites: Vec<Rewrite>,
    /// `limits.received_headers`.
    pub received_headers: usize,
    /// `default_domain`.
    pub default_domain: Option<Domain>,
}

/// Whose transaction it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// The `[[client]]` of the connection.
    pub client: Option<&'a Client>,
    /// The `[[user]]` that logged in.
    pub user: Option<&'a User>,
}

/// What the judgement of a header needs to know of its message.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Whose transaction it is.
    pub who: Who<'a>,
    /// For Received and a missing Message-ID.
    pub id: MessageId,
    /// For Received and a missing Date.
    pub origin: &'a Origin,
    /// The envelope sender as the client gave it; `None` is `<>`.
    pub sender_given: Option<&'a Address>,
    /// The envelope sender after rewriting.
    pub sender: Option<&'a Address>,
    /// The index of the rewrite that applied.
    pub rewrite: Option<usize>,
    /// The envelope recipients (Received names it when there is one).
    pub recipients: &'a [Address],
    /// For Received and a missing Message-ID.
    pub hostname: &'a str,
    /// The From that is added to a message from `<>` without one.
    pub bounce_from: &'a Address,
    /// A name whose quotes were left out gets them (`From: Doe, Jane <a@b>`).
    pub unquoted_names: bool,
}

impl Policy {
    /// The `[[client]]` with the longest prefix over the address (`::ffff:a.b.c.d` equals `a.b.c.d`).
    pub fn client(&self, ip: IpAddr) -> Option<&Client> {
        network::longest(&self.clients, ip)
    }

    /// The `[[user]]` of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// At the greeting: whether a connection from there could ever send (554 5.7.1 ADDRESS is in no [[client]]).
    pub fn connect(&self, ip: IpAddr, auth: AuthMode) -> Verdict {
        if auth == AuthMode::Off && self.client(ip).is_none() {
            return Verdict::Reject(Reply::no_client(ip.to_canonical()));
        }
        Verdict::Accept
    }

    /// At MAIL, first: whether a login is still missing (530 5.7.0). `logged_in` is true after any accepted AUTH,
    /// `who.user` is set only when it was a `[[user]]`.
    pub fn login(&self, who: Who<'_>, auth: AuthMode, logged_in: bool) -> Verdict {
        // Any login will do for a client with `any_credentials`, and for nobody else.
        let known = who.user.is_some()
            || logged_in && who.client.is_some_and(|client| client.any_credentials);
        if known {
            return Verdict::Accept;
        }
        match who.client {
            None => Verdict::Reject(Reply::login_needed("your address is in no [[client]]")),
            Some(_) if auth == AuthMode::Required => {
                Verdict::Reject(Reply::login_needed("this listener asks for it"))
            }
            Some(client) if client.require_auth => Verdict::Reject(Reply::login_needed(format!(
                "client {} asks for it",
                client.name
            ))),
            Some(_) => Verdict::Accept,
        }
    }

    /// The rewrite that applies to this envelope sender, never for `<>`.
    pub fn rewrite(&self, sender: Option<&Address>) -> Option<(usize, &Rewrite)> {
        rewrite::first(&self.rewrites, sender?)
    }

    /// At MAIL: the sender after rewriting against allowlist, client and user.
    pub fn mail(&self, who: Who<'_>, sender: Option<&Address>) -> Verdict {
        grants::refusal(self, who, Party::Sender, sender).map_or(Verdict::Accept, |refusal| {
            Verdict::Reject(refusal.at_mail())
        })
    }

    /// At RCPT: the recipient against allowlist, client and user.
    pub fn rcpt(&self, who: Who<'_>, recipient: &Address) -> Verdict {
        grants::refusal(self, who, Party::Recipient, Some(recipient))
            .map_or(Verdict::Accept, |refusal| {
                Verdict::Reject(refusal.at_rcpt())
            })
    }

    /// Whether a report about a message of this sender (after rewriting) may go to it: a pattern of the allowlist, the client or
    /// the user that is narrower than "anybody" admits it, or it is a rewrite's, or the recipient lists admit it.
    pub fn report(&self, who: Who<'_>, sender: &Address) -> bool {
        grants::may_be_told(self, who, sender)
    }

    /// The client and the user of these names, as far as they are still configured.
    pub fn named(&self, client: Option<&str>, user: Option<&str>) -> Who<'_> {
        Who {
            client: client.and_then(|name| self.clients.iter().find(|known| known.name == name)),
            user: user.and_then(|name| self.user(name)),
        }
    }

    /// At the end of the header: repaired, rewritten, judged, with Received on top and Bcc and Return-Path out. `raw` is
    /// complete lines ending in CRLF, without the empty line.
    ///
    /// # Errors
    /// The reply that names the rule.
    pub fn header(&self, raw: &[u8], about: &About<'_>) -> Result<Vec<u8>, Reply> {
        content::header(self, raw, about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn patterns(list: &[&str]) -> Vec<Pattern> {
        list.iter().map(|p| Pattern::parse(p).unwrap()).collect()
    }

    fn policy() -> Policy {
        Policy {
            clients: vec![
                Client {
                    name: "lan".into(),
                    networks: vec!["10.0.0.0/8".parse().unwrap()],
                    ..Client::default()
                },
                Client {
                    name: "printers".into(),
                    networks: vec!["10.20.0.0/16".parse().unwrap()],
                    senders: Some(patterns(&["printer@corp.com"])),
                    recipients: Some(patterns(&["corp.com"])),
                    ..Client::default()
                },
                Client {
                    name: "strict".into(),
                    networks: vec!["10.30.0.0/16".parse().unwrap()],
                    require_auth: true,
                    ..Client::default()
                },
                Client {
                    name: "insisting".into(),
                    networks: vec!["10.40.0.0/16".parse().unwrap()],
                    any_credentials: true,
                    ..Client::default()
                },
            ],
            users: vec![User {
                name: "erp".into(),
                password: Secret::new("x"),
                senders: Some(patterns(&["erp@corp.com"])),
                recipients: Some(patterns(&["*.partner.com"])),
            }],
            allowlist: Allowlist {
                senders: patterns(&["corp.com"]),
                recipients: patterns(&["corp.com", "*.partner.com"]),
                header_recipients: false,
            },
            rewrites: vec![
                Rewrite {
                    senders: patterns(&["root@*"]),
                    to: Address::parse("first@corp.com").unwrap(),
                    reply_to: rewrite::ReplyTo::Original,
                },
                Rewrite {
                    senders: patterns(&["*"]),
                    to: Address::parse("second@corp.com").unwrap(),
                    reply_to: rewrite::ReplyTo::Keep,
                },
            ],
            received_headers: 50,
            default_domain: None,
        }
    }

    fn check(verdict: Verdict, expected: &str) {
        match verdict {
            Verdict::Accept => assert_eq!("", expected),
            Verdict::Reject(reply) => assert_eq!(reply.to_string(), expected),
        }
    }

    fn who<'a>(policy: &'a Policy, ip: &str, user: &str) -> Who<'a> {
        Who {
            client: policy.client(ip.parse().unwrap()),
            user: policy.user(user),
        }
    }

    #[test]
    fn connecting() {
        let policy = policy();
        for (ip, auth, expected) in [
            ("10.0.0.1", AuthMode::Off, ""),
            ("::ffff:10.0.0.1", AuthMode::Off, ""),
            (
                "192.0.2.1",
                AuthMode::Off,
                "554 5.7.1 192.0.2.1 is in no [[client]]",
            ),
            (
                "::ffff:192.0.2.1",
                AuthMode::Off,
                "554 5.7.1 192.0.2.1 is in no [[client]]",
            ),
            ("::1", AuthMode::Off, "554 5.7.1 ::1 is in no [[client]]"),
            ("192.0.2.1", AuthMode::Optional, ""),
            ("192.0.2.1", AuthMode::Required, ""),
        ] {
            check(policy.connect(ip.parse().unwrap(), auth), expected);
        }
    }

    #[test]
    fn logging_in() {
        use AuthMode::{Off, Optional, Required};
        let policy = policy();
        let nobody = "530 5.7.0 log in first: your address is in no [[client]]";
        let listener = "530 5.7.0 log in first: this listener asks for it";
        let client = "530 5.7.0 log in first: client strict asks for it";
        for (ip, user, auth, logged_in, expected) in [
            ("10.0.0.1", "", Off, false, ""),
            ("10.0.0.1", "", Optional, false, ""),
            ("10.0.0.1", "", Required, false, listener),
            // The user is gone since the login.
            ("10.0.0.1", "", Required, true, listener),
            ("10.0.0.1", "erp", Required, true, ""),
            ("10.30.0.1", "", Optional, false, client),
            ("10.30.0.1", "erp", Optional, true, ""),
            ("192.0.2.1", "", Optional, false, nobody),
            ("192.0.2.1", "", Required, true, nobody),
            ("192.0.2.1", "erp", Optional, true, ""),
            ("10.40.0.1", "", Off, false, ""),
            ("10.40.0.1", "", Required, false, listener),
            ("10.40.0.1", "", Required, true, ""),
        ] {
            check(
                policy.login(who(&policy, ip, user), auth, logged_in),
                expected,
            );
        }
    }

    #[test]
    fn reports() {
        for (allowed, recipients, client, user, sender, expected) in [
            // Somebody wrote the sender down, or its domain.
            ("corp.com", "*", "", "", "a@corp.com", true),
            ("corp.com", "partner.com", "", "", "a@corp.com", true),
            ("*.corp.com", "partner.com", "", "", "a@b.corp.com", true),
            // Anybody may send: to whom other mail may leave.
            ("*", "corp.com", "", "", "a@corp.com", true),
            ("*", "*", "", "", "a@victim.com", true),
            ("*", "corp.com", "", "", "a@victim.com", false),
            ("*@*", "corp.com", "", "", "a@victim.com", false),
            ("**@*", "corp.com", "", "", "a@victim.com", false),
            ("root@*", "corp.com", "", "", "root@victim.com", false),
            ("*", "corp.com", "lan", "", "a@victim.com", false),
            // A client or a user that may say only this.
            ("*", "corp.com", "printers", "", "printer@corp.com", true),
            ("*", "x.com", "printers", "", "printer@corp.com", true),
            ("*", "x.com", "printers", "", "a@victim.com", false),
            ("*", "x.com", "gone", "", "printer@corp.com", false),
            ("*", "x.com", "lan", "erp", "erp@corp.com", true),
            ("*", "x.com", "lan", "gone", "erp@corp.com", false),
            // The recipients of the client and of the user count, too.
            ("*", "*", "printers", "", "a@victim.com", false),
            ("*", "*", "lan", "erp", "a@victim.com", false),
            ("*", "*", "lan", "erp", "a@b.partner.com", true),
            // What a rewrite made of it was never a stranger's word.
            ("*", "x.com", "lan", "", "first@corp.com", true),
            // A local part that a next hop may read a route out of is not admitted by a pattern.
            ("corp.com", "x.com", "", "", "a%victim.com@corp.com", false),
        ] {
            let mut policy = policy();
            policy.allowlist.senders = patterns(&[allowed]);
            policy.allowlist.recipients = patterns(&[recipients]);
            let name = |text| Some(text).filter(|text: &&str| !text.is_empty());
            let who = policy.named(name(client), name(user));
            let sender = Address::parse(sender).unwrap();
            assert_eq!(
                policy.report(who, &sender),
                expected,
                "{allowed} {recipients} {client} {user} {sender}"
            );
        }
    }

    #[test]
    fn senders() {
        let policy = policy();
        for (ip, user, sender, expected) in [
            ("10.0.0.1", "", "a@corp.com", ""),
            ("10.0.0.1", "", "A@CORP.COM.", ""),
            (
                "10.0.0.1",
                "",
                "<>",
                "550 5.7.1 sender <> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "x@evilcorp.com",
                "550 5.7.1 sender <x@evilcorp.com> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "x@corp.com.evil.tld",
                "550 5.7.1 sender <x@corp.com.evil.tld> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "x@sub.corp.com",
                "550 5.7.1 sender <x@sub.corp.com> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "x@xn--crp-sed.com",
                "550 5.7.1 sender <x@xn--crp-sed.com> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "x@[10.0.0.5]",
                "550 5.7.1 sender <x@[10.0.0.5]> is not in the allowlist",
            ),
            (
                "10.0.0.1",
                "",
                "\"x@evil.tld\"@corp.com",
                "550 5.7.1 sender <\"x@evil.tld\"@corp.com> is not in the allowlist: such a local part must be listed literally",
            ),
            ("10.20.0.1", "", "printer@corp.com", ""),
            (
                "10.20.0.1",
                "",
                "a@corp.com",
                "550 5.7.1 sender <a@corp.com> is not allowed for client printers",
            ),
            (
                "10.20.0.1",
                "",
                "printer+x@corp.com",
                "550 5.7.1 sender <printer+x@corp.com> is not allowed for client printers",
            ),
            ("10.0.0.1", "erp", "erp@corp.com", ""),
            (
                "10.0.0.1",
                "erp",
                "a@corp.com",
                "553 5.7.1 sender <a@corp.com> is not allowed for user erp",
            ),
            ("192.0.2.1", "erp", "erp@corp.com", ""),
        ] {
            let address = (sender != "<>").then(|| Address::parse(sender).unwrap());
            check(
                policy.mail(who(&policy, ip, user), address.as_ref()),
                expected,
            );
        }
        let null = Policy {
            allowlist: Allowlist {
                senders: patterns(&["*", "<>"]),
                ..Allowlist::default()
            },
            ..Policy::default()
        };
        check(null.mail(Who::default(), None), "");
        let empty = Policy::default();
        assert!(matches!(
            empty.mail(Who::default(), Some(&Address::parse("a@b").unwrap())),
            Verdict::Reject(_)
        ));
    }

    #[test]
    fn recipients() {
        let policy = policy();
        for (ip, user, recipient, expected) in [
            ("10.0.0.1", "", "x@corp.com", ""),
            ("10.0.0.1", "", "x@a.partner.com", ""),
            (
                "10.0.0.1",
                "",
                "x@partner.com",
                "550 5.7.1 recipient <x@partner.com> is not in the allowlist",
            ),
            (
                "10.20.0.1",
                "",
                "x@a.partner.com",
                "550 5.7.1 recipient <x@a.partner.com> is not allowed for client printers",
            ),
            (
                "10.0.0.1",
                "erp",
                "x@corp.com",
                "550 5.7.1 recipient <x@corp.com> is not allowed for user erp",
            ),
        ] {
            let address = Address::parse(recipient).unwrap();
            check(policy.rcpt(who(&policy, ip, user), &address), expected);
        }
        // What a next hop might route on: R71 to R78.
        for recipient in [
            "v@victim.tld",
            "v%victim.tld@gw.corp.com",
            "v%victim.tld@[127.0.0.1]",
            "v%victim.tld@corp.com",
            "\"v@victim.tld\"@gw.corp.com",
            "\"v@victim.tld\"@corp.com",
            "\"v%victim.tld\"@corp.com",
            "\"foo@evil.tld> ORCPT=a@b\"@corp.com",
            "victim.tld!v@corp.com",
            "victim.tld!v@gw.corp.com",
            "|x@corp.com",
            "/etc/x@corp.com",
            "\".x\"@corp.com",
            "=?q?v=40victim.tld=3e?=@corp.com",
            "IMCEASMTP-v+40victim+2Etld@corp.com",
            "imceasmtp-v+40victim+2Etld@corp.com",
            "-v@corp.com",
        ] {
            let address = Address::parse(recipient).unwrap();
            let verdict = policy.rcpt(who(&policy, "10.0.0.1", ""), &address);
            assert!(
                matches!(&verdict, Verdict::Reject(r) if r.code == 550),
                "{recipient}"
            );
        }
        for malformed in [
            "v@victim.tld@corp.com",
            "v@victim.tld@",
            "@gw.corp.com:v@victim.tld",
            "x@corp.com>,<v@victim.tld",
            "\"v@victim.tld\"",
            "\"x\r\nRCPT TO:<v@victim.tld>\"@corp.com",
        ] {
            assert!(Address::parse(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn rewriting() {
        let policy = policy();
        for (sender, expected) in [
            ("root@host.local", Some(0)),
            ("ROOT@x", Some(0)),
            ("a@b", Some(1)),
            ("<>", None),
        ] {
            let address = (sender != "<>").then(|| Address::parse(sender).unwrap());
            assert_eq!(
                policy.rewrite(address.as_ref()).map(|(i, _)| i),
                expected,
                "{sender}"
            );
        }
    }
}
