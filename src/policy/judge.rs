//! The questions of a session in the order they are asked: connect, login, mail, rcpt, header.
//!
//! What was found on the way to each answer is kept where somebody wants to know, for `postern explain`.

use std::{net::IpAddr, sync::Arc};

use super::{
    alter,
    archive::{self, Archive, LOOP},
    content,
    grants::{self, Party},
    redirect::{self, Redirect},
    rewrite::{self, Rewrite},
    rules::{About, AuthMode, Policy, Who},
    scope::Posted,
};
use crate::mail::{
    address::Address,
    pattern::{admitting, find},
    reply::Reply,
};

/// What was found, in words: what about, and what. Kept only where it was asked for.
#[derive(Debug, Default)]
pub struct Findings(Option<Vec<(&'static str, String)>>);

impl Findings {
    /// Keeps what is found from now on.
    pub fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    /// One more; the text is only made where it is kept.
    pub fn add(&mut self, about: &'static str, text: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.0 {
            kept.push((about, text()));
        }
    }

    /// What was found since this was last called.
    pub fn take(&mut self) -> Vec<(&'static str, String)> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Policy {
    /// At the greeting: whether a connection from there could ever send.
    ///
    /// # Errors
    /// 554 5.7.1: the address is in no `[[client]]`, and nobody can log in.
    pub fn connect(
        &self,
        ip: IpAddr,
        auth: AuthMode,
        findings: &mut Findings,
    ) -> Result<(), Reply> {
        let client = self.client(ip);
        findings.add("client", || match client {
            Some(client) if client.require_auth => {
                format!("{ip} is in [[client]] {}, which must log in", client.name)
            }
            Some(client) => format!("{ip} is in [[client]] {}", client.name),
            None => format!("{ip} is in no [[client]]"),
        });
        if auth == AuthMode::Off && client.is_none() {
            return Err(Reply::no_client(ip.to_canonical()));
        }
        Ok(())
    }

    /// At MAIL, first: whether a login is still missing. `logged_in` is true after any accepted AUTH, `who.user` is set only when
    /// it was a `[[user]]`.
    ///
    /// # Errors
    /// 530 5.7.0, and who asks for the login.
    pub fn login(&self, who: Who<'_>, auth: AuthMode, logged_in: bool) -> Result<(), Reply> {
        // Any login will do for a client with `any_credentials`, and for nobody else.
        let known = who.user.is_some()
            || logged_in && who.client.is_some_and(|client| client.any_credentials);
        if known {
            return Ok(());
        }
        match who.client {
            None => Err(Reply::login_needed("your address is in no [[client]]")),
            Some(_) if auth == AuthMode::Required => {
                Err(Reply::login_needed("this listener asks for it"))
            }
            Some(client) if client.require_auth => Err(Reply::login_needed(format!(
                "client {} asks for it",
                client.name
            ))),
            Some(_) => Ok(()),
        }
    }

    /// At MAIL: what becomes of the sender, and whether that may send. The rewrite that applied comes with its place.
    ///
    /// # Errors
    /// 550 or 553 5.7.1: the list that does not admit the sender.
    pub fn mail(
        &self,
        who: Who<'_>,
        given: Option<&Address>,
        findings: &mut Findings,
    ) -> Result<Option<(usize, &Rewrite)>, Reply> {
        let rewrite = self.rewrite(given);
        if let Some((place, rewrite)) = rewrite {
            findings.add("rewrite", || {
                format!("[[rewrite]] {} makes the sender {}", place + 1, rewrite.to)
            });
        }
        let sender = rewrite.map(|(_, rewrite)| &rewrite.to).or(given);
        self.sender(who, sender, findings)?;
        Ok(rewrite)
    }

    /// The rewrite that applies to this envelope sender, with its place; never one for `<>`.
    pub fn rewrite(&self, sender: Option<&Address>) -> Option<(usize, &Rewrite)> {
        rewrite::first(&self.rewrites, sender?)
    }

    /// A sender, as it leaves, against allowlist, client and user.
    ///
    /// # Errors
    /// 550 or 553 5.7.1: the list that does not admit it.
    pub fn sender(
        &self,
        who: Who<'_>,
        sender: Option<&Address>,
        findings: &mut Findings,
    ) -> Result<(), Reply> {
        self.lists(who, Party::Sender, sender, findings);
        grants::refusal(self, who, Party::Sender, sender)
            .map_or(Ok(()), |refusal| Err(refusal.at_mail()))
    }

    /// At RCPT, first: the redirect that takes this recipient, whatever the recipient lists say of it. One whose local part may be read as a
    /// route is taken only where they let it pass.
    pub fn redirect(
        &self,
        who: Who<'_>,
        mail: Posted<'_>,
        recipient: &Address,
        findings: &mut Findings,
    ) -> Option<&Redirect> {
        let (redirect, exception) = redirect::first(&self.redirects, mail, recipient)?;
        let name = &redirect.name;
        if let Some(pattern) = exception {
            findings.add("redirect", || {
                format!("[[redirect]] {name} leaves {recipient} as addressed by \"{pattern}\"")
            });
            return None;
        }
        if !grants::is_any_mailbox(self, who, recipient) {
            findings.add("redirect", || {
                format!("[[redirect]] {name} does not take such a local part")
            });
            return None;
        }
        findings.add("redirect", || {
            format!(
                "[[redirect]] {name}: mail for {recipient} goes to {}",
                redirect.shown()
            )
        });
        Some(redirect)
    }

    /// At RCPT: a recipient against allowlist, client and user.
    ///
    /// # Errors
    /// 550 5.7.1: the list that does not admit it.
    pub fn rcpt(
        &self,
        who: Who<'_>,
        recipient: &Address,
        findings: &mut Findings,
    ) -> Result<(), Reply> {
        self.lists(who, Party::Recipient, Some(recipient), findings);
        grants::refusal(self, who, Party::Recipient, Some(recipient))
            .map_or(Ok(()), |refusal| Err(refusal.at_rcpt()))
    }

    /// At the end of the header: repaired, rewritten, judged, with Received on top and Bcc and Return-Path out. `raw` is
    /// complete lines ending in CRLF, without the empty line.
    ///
    /// # Errors
    /// The reply that names the rule.
    pub fn header(&self, raw: &[u8], about: &About<'_>) -> Result<Vec<u8>, Reply> {
        content::header(self, raw, about)
    }

    /// Then the archives that take a copy of it; `raw` as it came. A copy that has come back, which is from `<>`, is not copied again.
    ///
    /// # Errors
    /// 554 5.4.6: it is to be copied, and has been here too often.
    pub fn archives(&self, raw: &[u8], about: &About<'_>) -> Result<Vec<Arc<Archive>>, Reply> {
        let taking = archive::taking(&self.archives, about.posted(), about.recipients);
        let taking: Vec<_> = taking.cloned().collect();
        if taking.is_empty() {
            return Ok(taking);
        }
        match archive::passes(raw, about.hostname) {
            LOOP.. => Err(Reply::mail_loop(
                LOOP - 1,
                " of ours, and it is to be copied",
            )),
            1.. if about.sender.is_none() => Ok(Vec::new()),
            _ => Ok(taking),
        }
    }

    /// The `[[header]]` rules that change the header of this message, each as it is told: its place, and what it does.
    pub fn header_rules(&self, about: &About<'_>) -> Vec<String> {
        alter::meant(&self.header_rules, about.posted(), about.recipients)
            .map(|(place, rule)| format!("[[header]] {}: {}", place + 1, rule.words()))
            .collect()
    }

    /// Whether a report about a message of this sender (after rewriting) may go to it: a pattern of the allowlist, the client or
    /// the user that is narrower than "anybody" admits it, or it is a rewrite's, or the recipient lists admit it.
    pub fn report(&self, who: Who<'_>, sender: &Address) -> bool {
        grants::may_be_told(self, who, sender)
    }

    /// Which pattern of each list admits, or that none does.
    fn lists(
        &self,
        who: Who<'_>,
        party: Party,
        address: Option<&Address>,
        findings: &mut Findings,
    ) {
        if findings.0.is_none() {
            return;
        }
        let shown = address.map_or_else(|| "<>".to_owned(), ToString::to_string);
        for (list, patterns) in grants::lists(self, who, party) {
            findings.add(party.as_str(), || {
                let list = list.named(party);
                match admitting(patterns, address) {
                    Some(pattern) => format!("{shown} passes {list} by \"{pattern}\""),
                    None if find(patterns, address).is_some() => format!(
                        "{shown} does not pass {list}: such a local part must be named literally"
                    ),
                    None => format!("{shown} matches nothing in {list}"),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::client::{Client, User},
        *,
    };
    use crate::{
        fixture::{self, address, client, patterns},
        secret::Secret,
    };

    fn policy() -> Policy {
        Policy {
            clients: vec![
                client("lan", "10.0.0.0/8"),
                Client {
                    senders: Some(patterns("printer@corp.com")),
                    recipients: Some(patterns("corp.com")),
                    ..client("printers", "10.20.0.0/16")
                },
                Client {
                    require_auth: true,
                    ..client("strict", "10.30.0.0/16")
                },
                Client {
                    any_credentials: true,
                    ..client("insisting", "10.40.0.0/16")
                },
            ],
            users: vec![User {
                name: "erp".into(),
                password: Secret::new("x"),
                certificates: Vec::new(),
                senders: Some(patterns("erp@corp.com")),
                recipients: Some(patterns("*.partner.com")),
            }],
            rewrites: vec![
                Rewrite {
                    senders: patterns("root@*"),
                    to: address("first@corp.com"),
                    reply_to: rewrite::ReplyTo::Original,
                },
                Rewrite {
                    senders: patterns("*"),
                    to: address("second@corp.com"),
                    reply_to: rewrite::ReplyTo::Keep,
                },
            ],
            ..fixture::policy("corp.com", "corp.com *.partner.com")
        }
    }

    fn check(verdict: Result<(), Reply>, expected: &str) {
        let said = verdict.map_or_else(|reply| reply.to_string(), |()| String::new());
        assert_eq!(said, expected);
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
            check(
                policy.connect(ip.parse().unwrap(), auth, &mut Findings::default()),
                expected,
            );
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
            policy.allowlist.senders = patterns(allowed);
            policy.allowlist.recipients = patterns(recipients);
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
                policy.sender(
                    who(&policy, ip, user),
                    address.as_ref(),
                    &mut Findings::default(),
                ),
                expected,
            );
        }
        let null = fixture::policy("* <>", "");
        check(
            null.sender(Who::default(), None, &mut Findings::default()),
            "",
        );
        let empty = Policy::default();
        let sender = Address::parse("a@b").unwrap();
        let judged = empty.sender(Who::default(), Some(&sender), &mut Findings::default());
        assert!(judged.is_err());
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
            check(
                policy.rcpt(who(&policy, ip, user), &address, &mut Findings::default()),
                expected,
            );
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
            let judged = policy.rcpt(
                who(&policy, "10.0.0.1", ""),
                &address,
                &mut Findings::default(),
            );
            assert_eq!(judged.unwrap_err().code, 550, "{recipient}");
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
