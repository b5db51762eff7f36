//! A refusal judged: which row of the table it fits, and what follows for the message and for the lane.
//!
//! Behind the content a text is read only at its beginning, since what follows may be quoted from the message.

use std::time::Duration;

use super::{
    meaning::{Blame, Class, Place},
    table::{self, KnownRefusal},
    wording,
};
use crate::mail::{
    outcome::Obstacle,
    reply::Reply,
    text::{bounded, cut},
};

/// A correction of what an upstream's reply means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The reply code.
    pub code: u16,
    /// A part of the text, in lower case; `None` = any.
    pub text: Option<String>,
    /// The enhanced code; `None` = any.
    pub enhanced: Option<(u8, u16, u16)>,
    /// What it means.
    pub class: Class,
}

impl Override {
    /// It is about this reply.
    pub fn fits(&self, reply: &Reply) -> bool {
        let says = |part: &String| reply.text.to_lowercase().contains(part);
        self.code == reply.code
            && (self.enhanced.is_none() || self.enhanced == reply.enhanced)
            && self.text.as_ref().is_none_or(says)
    }
}

/// Whom a refusal of our standing concerns, where the upstream takes other mail of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrow {
    /// It is about these recipients.
    Recipient,
    /// It is about this sender.
    Sender,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis {
    /// What it means.
    pub class: Class,
    /// When it may be over, where it is a matter of time.
    pub wait: Option<Duration>,
    /// Whom alone it concerns, if our standing is good.
    pub narrow: Option<Narrow>,
    remedy: Option<&'static str>,
}

/// Behind the content a phrase counts within so many octets of the beginning; at the very beginning alone where no enhanced code
/// stands beside it and it is more than one sender's matter.
const BEGINNING: usize = 100;

impl KnownRefusal {
    fn fits(&self, reply: &Reply, place: Place, words: Option<&str>) -> bool {
        let KnownRefusal {
            blame,
            codes: (first, last),
            enhanced,
            phrases,
            at,
            ..
        } = self;
        // What only its own sender waits for may stand behind other words: a mail that says it stops nobody else.
        let is_narrow = *blame == Blame::Sender;
        let said = |phrase: &&str| {
            let found = words.and_then(|words| words.find(phrase));
            match (place, found) {
                (_, None) => false,
                (Place::Content, Some(at)) if enhanced.is_empty() && !is_narrow => at == 0,
                (Place::Content, Some(at)) => at <= BEGINNING,
                (_, Some(_)) => true,
            }
        };
        (*first..=*last).contains(&reply.code)
            && (at.is_empty() || at.contains(&place))
            && (enhanced.is_empty()
                || reply.enhanced.is_some_and(|(_, subject, detail)| {
                    enhanced
                        .iter()
                        .any(|(s, first, last)| *s == subject && (*first..=*last).contains(&detail))
                }))
            && (phrases.is_empty() || phrases.iter().any(said))
    }
}

/// The diagnosis of a reply that is a refusal. `quotable`: addresses of this transaction could be read as a sentence, so the text
/// is not looked at.
pub fn diagnose(reply: &Reply, place: Place, overrides: &[Override], quotable: bool) -> Diagnosis {
    let words = (!quotable).then(|| wording::wording(&reply.text));
    let known = table::all().find(|row| row.fits(reply, place, words.as_deref()));
    let class = match overrides.iter().find(|o| o.fits(reply)) {
        Some(corrected) => corrected.class,
        None => known.map_or(
            if reply.is_permanent() {
                Class::Failed
            } else {
                Class::Deferred
            },
            |row| row.blame.class(),
        ),
    };
    // A correction that says something else knows better than the row.
    let known = known.filter(|row| row.blame.class() == class);
    Diagnosis {
        class,
        wait: match known.map(|row| row.blame) {
            Some(Blame::Quota(wait)) => wait,
            _ => None,
        },
        narrow: match known.map(|row| row.blame) {
            Some(Blame::Relay) => Some(Narrow::Recipient),
            Some(Blame::Origin) => Some(Narrow::Sender),
            _ => None,
        },
        remedy: known.map(|row| row.remedy),
    }
}

/// The class of a reply that is a refusal, before there is a transaction.
pub fn classify(reply: &Reply, place: Place, overrides: &[Override]) -> Class {
    diagnose(reply, place, overrides, false).class
}

impl Diagnosis {
    /// The reply with the place before its text and the remedy, if one is known, behind it.
    pub fn explain(&self, reply: &Reply, place: Place) -> Reply {
        annotated(reply, &place.to_string(), self.remedy)
    }

    /// Why the lane stops, with the reply so explained; `None` where it goes on.
    pub fn obstacle(&self, said: Reply) -> Option<Obstacle> {
        match self.class {
            Class::Deferred | Class::Failed | Class::Crowded => None,
            Class::Obstacle(kind) => Some(Obstacle::new(kind, said).after(self.wait)),
        }
    }
}

/// A reply with words before its text, and a remedy behind it.
pub fn annotated(reply: &Reply, before: &str, remedy: Option<&str>) -> Reply {
    let text = match remedy {
        // Short, so that the remedy is still read where a text is cut.
        Some(remedy) => format!("{before}: {} -- {remedy}", cut(&reply.text, 300)),
        None => format!("{before}: {}", bounded(&reply.text)),
    };
    Reply {
        code: reply.code,
        enhanced: reply.enhanced,
        text,
    }
}

/// A bad sequence of commands (RFC 5321 §4.2.4): the upstream lost the thread, unless an override says what it means by that.
pub fn is_out_of_step(reply: &Reply, overrides: &[Override]) -> bool {
    reply.code == 503 && !overrides.iter().any(|o| o.code == 503)
}

/// Whether another token may be taken where this one was refused. Another token changes nothing about mailbox, tenant, permission or form.
pub(in crate::smtp::client) fn heals_by_renewal(reply: &Reply) -> bool {
    match (reply.code, reply.enhanced) {
        // 5.7.9 and 5.7.14 are Gmail's "an app password" and "by a browser".
        (_, Some((5, 7, 9 | 14 | 30 | 57 | 60 | 139 | 144 | 240) | (5, 5, _))) => false,
        (535, _) | (_, Some((5, 7, 3 | 8 | 142 | 143))) => reply.is_permanent(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::crowding::crowding, *};
    use crate::{mail::outcome::ObstacleKind, smtp::client::reply::Replies};

    /// A reply with the place before its text and the remedy that is known of that place, if there is one, behind it.
    fn explained(reply: &Reply, place: Place) -> Reply {
        diagnose(reply, place, &[], false).explain(reply, place)
    }

    fn reply(code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Reply {
        Reply {
            code,
            enhanced,
            text: text.into(),
        }
    }

    #[test]
    fn classes() {
        let gmail = [Override {
            code: 550,
            text: None,
            enhanced: Some((5, 4, 5)),
            class: Class::Deferred,
        }];
        for (code, enhanced, text, class) in [
            (450, None, "", Class::Deferred),
            (421, Some((4, 7, 0)), "", Class::Deferred),
            (550, Some((5, 1, 1)), "", Class::Failed),
            (550, Some((5, 4, 5)), "", Class::Deferred),
            (571, None, "", Class::Failed),
            (530, None, "", Class::Obstacle(ObstacleKind::Misconfigured)),
            (
                530,
                Some((5, 7, 57)),
                "",
                Class::Obstacle(ObstacleKind::Misconfigured),
            ),
            (534, None, "", Class::Obstacle(ObstacleKind::Misconfigured)),
            (538, None, "", Class::Obstacle(ObstacleKind::Misconfigured)),
            (
                550,
                Some((5, 7, 30)),
                "",
                Class::Obstacle(ObstacleKind::Misconfigured),
            ),
            (
                535,
                Some((5, 7, 139)),
                "",
                Class::Obstacle(ObstacleKind::Misconfigured),
            ),
            (
                550,
                Some((5, 7, 60)),
                "",
                Class::Obstacle(ObstacleKind::MailboxRefused),
            ),
            (
                550,
                Some((5, 7, 62)),
                "",
                Class::Obstacle(ObstacleKind::MailboxRefused),
            ),
            (
                550,
                Some((5, 7, 240)),
                "",
                Class::Obstacle(ObstacleKind::Misconfigured),
            ),
            (
                554,
                Some((5, 2, 252)),
                "SendAsDenied",
                Class::Obstacle(ObstacleKind::MailboxRefused),
            ),
            (
                554,
                Some((5, 2, 0)),
                "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
                Class::Obstacle(ObstacleKind::MailboxRefused),
            ),
            (450, None, "SendAsDenied", Class::Deferred),
            (250, None, "", Class::Deferred),
        ] {
            let reply = reply(code, enhanced, text);
            assert_eq!(classify(&reply, Place::Rcpt, &gmail), class, "{reply:?}");
        }
    }

    /// The table of 535 and its like: what a login with a token makes of each.
    #[test]
    fn refused_tokens() {
        for (code, enhanced, is_renewed, words) in [
            (535, Some((5, 7, 3)), true, "SMTP.SendAsApp"),
            (535, Some((5, 7, 8)), true, "https://mail.google.com/"),
            (535, None, true, "check mailbox"),
            (535, Some((5, 7, 142)), true, "20 minutes"),
            (535, Some((5, 7, 143)), true, "clock"),
            (535, Some((5, 7, 139)), false, "Set-CASMailbox"),
            (550, Some((5, 7, 30)), false, "xoauth2"),
            (530, Some((5, 7, 57)), false, "auth"),
            (535, Some((5, 7, 57)), false, "auth"),
            (550, Some((5, 7, 60)), false, "Send As"),
            (535, Some((5, 7, 144)), false, "Mail.Send"),
            (550, Some((5, 7, 240)), false, "Add-HVEAppAccess"),
            (501, Some((5, 5, 121)), false, "mailbox and auth"),
            (501, Some((5, 5, 126)), false, "mailbox and auth"),
            (504, Some((5, 5, 4)), false, "AUTH mechanism"),
            (534, Some((5, 7, 9)), false, "app password"),
            (534, Some((5, 7, 14)), false, "browser"),
            (538, None, false, "TLS"),
        ] {
            let reply = reply(code, enhanced, "no");
            let said = explained(&reply, Place::Token).text;
            assert!(said.contains(words), "{reply:?}: {said}");
            assert_eq!(heals_by_renewal(&reply), is_renewed, "{reply:?}");
        }
        let later = reply(454, Some((4, 7, 0)), "later");
        assert!(!heals_by_renewal(&later));
        assert_eq!(
            explained(&later, Place::Token).text,
            "AUTH with a token: later"
        );
    }

    /// Texts as servers and services really say them: place, reply, and what it means.
    #[test]
    fn refusals_of_our_standing_and_of_others() {
        use Class::{Deferred, Failed};
        const MISCONFIGURED: Class = Class::Obstacle(ObstacleKind::Misconfigured);
        const REFUSED: Class = Class::Obstacle(ObstacleKind::MailboxRefused);
        const THROTTLED: Class = Class::Obstacle(ObstacleKind::Throttled);
        use Place::{Auth, Content, Data, Greeting, Hello, Mail, Rcpt};
        for (place, said, class, words) in [
            // Relaying.
            (
                Rcpt,
                "550 5.7.64 TenantAttribution; Relay Access Denied",
                MISCONFIGURED,
                "inbound connector",
            ),
            (
                Content,
                "550 5.7.64 TenantAttribution; Relay Access Denied [x.prod.outlook.com]",
                MISCONFIGURED,
                "inbound connector",
            ),
            (
                Rcpt,
                "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "554 5.7.1 <b@ext.example>: Relay access denied",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "454 4.7.1 <b@ext.example>: Relay access denied",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "550 5.4.1 Recipient address rejected: Access denied",
                Failed,
                "",
            ),
            (Rcpt, "550 relay not permitted", MISCONFIGURED, "username"),
            (
                Rcpt,
                "550 5.7.1 <b@ext.example>... Relaying denied. Proper authentication required.",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "550 5.7.1 Unable to relay for b@ext.example",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "550 Delivery is not allowed to this address.",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "503 This mail server requires authentication when attempting to send to a non-local e-mail address.",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "550 5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you've",
                MISCONFIGURED,
                "SMTP relay service",
            ),
            (
                Mail,
                "550 5.7.0 Mail relay denied [192.0.2.1]. Invalid credentials for relay",
                MISCONFIGURED,
                "SMTP relay service",
            ),
            (
                Mail,
                "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization",
                MISCONFIGURED,
                "inbound connector",
            ),
            // Logins.
            (
                Mail,
                "503 5.5.1 authenticate first",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "502 5.5.1 Please authenticate first",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "503 Error: need EHLO and AUTH first !",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "530 5.7.0 Authentication required",
                MISCONFIGURED,
                "username",
            ),
            (Rcpt, "550 smtp auth required", MISCONFIGURED, "username"),
            (
                Rcpt,
                "550 5.7.1 Client was not authenticated",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "550 5.7.1 Client does not have permission to submit mail to this server",
                MISCONFIGURED,
                "username",
            ),
            (
                Rcpt,
                "553 5.7.1 <a@corp.example>: Sender address rejected: not logged in",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "550 Unauthenticated senders not allowed",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "451 4.7.0 Must issue a STARTTLS command first",
                MISCONFIGURED,
                "starttls",
            ),
            (
                Auth,
                "525 5.7.1 Unauthorized IP address",
                MISCONFIGURED,
                "authorized IPs",
            ),
            // EHLO, and our address.
            (
                Rcpt,
                "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname",
                MISCONFIGURED,
                "hostname",
            ),
            (
                Mail,
                "504 5.5.2 not a valid parameter",
                MISCONFIGURED,
                "hostname",
            ),
            (
                Hello,
                "501 5.5.4 Invalid domain name",
                MISCONFIGURED,
                "hostname",
            ),
            (
                Hello,
                "501 Syntactically invalid HELO argument(s)",
                MISCONFIGURED,
                "hostname",
            ),
            (Hello, "502 command not implemented", Failed, ""),
            (
                Rcpt,
                "550 5.7.1 <vm>: Helo command rejected: Host not found",
                MISCONFIGURED,
                "hostname",
            ),
            (
                Content,
                "550 5.7.506 Access Denied, Bad HELO",
                MISCONFIGURED,
                "hostname",
            ),
            (
                Rcpt,
                "504 5.5.2 <root>: Sender address rejected: need fully-qualified address",
                REFUSED,
                "[[rewrite]]",
            ),
            (
                Rcpt,
                "504 5.5.2 <b>: Recipient address rejected: need fully-qualified address",
                Failed,
                "",
            ),
            (
                Greeting,
                "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
                MISCONFIGURED,
                "block list",
            ),
            (
                Rcpt,
                "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]",
                MISCONFIGURED,
                "name in DNS",
            ),
            // Quotas.
            (
                Content,
                "550 5.7.232 trial tenant external recipient limit",
                THROTTLED,
                "24 hours",
            ),
            (
                Content,
                "550 5.7.233 tenant external recipient rate limit",
                THROTTLED,
                "24 hours",
            ),
            (
                Content,
                "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message",
                THROTTLED,
                "24 hours",
            ),
            (
                Content,
                "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
                THROTTLED,
                "24 hours",
            ),
            (
                Content,
                "550 5.2.2 Submission quota exceeded",
                THROTTLED,
                "24 hours",
            ),
            (Mail, "552 5.2.2 mailbox full", THROTTLED, "make room"),
            (
                Rcpt,
                "552 5.2.2 The email account that you tried to reach is over quota",
                Failed,
                "",
            ),
            (
                Content,
                "550 5.4.5 Daily user sending limit exceeded",
                THROTTLED,
                "mail waits",
            ),
            (
                Rcpt,
                "550 5.7.1 Daily SMTP relay limit exceeded for customer.",
                THROTTLED,
                "mail waits",
            ),
            (
                Rcpt,
                "450 4.2.1 Peak SMTP relay limit exceeded for customer.",
                THROTTLED,
                "mail waits",
            ),
            (
                Content,
                "454 Throttling failure: Maximum sending rate exceeded.",
                THROTTLED,
                "mail waits",
            ),
            (
                Content,
                "454 Throttling failure: Daily message quota exceeded.",
                THROTTLED,
                "mail waits",
            ),
            (
                Auth,
                "451 Authentication failed: Maximum credits exceeded",
                THROTTLED,
                "credits",
            ),
            (
                Rcpt,
                "550 Domain corp.example has exceeded the max emails per hour (100/100 (100%)) allowed.",
                THROTTLED,
                "mail waits",
            ),
            // The tenant, and one sender.
            (
                Content,
                "550 5.7.705 Access denied, tenant has exceeded threshold",
                MISCONFIGURED,
                "support",
            ),
            (
                Content,
                "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
                MISCONFIGURED,
                "support",
            ),
            (
                Content,
                "554 Message rejected: Sending suspended for this account.",
                MISCONFIGURED,
                "Amazon",
            ),
            (
                Content,
                "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains",
                REFUSED,
                "add and verify",
            ),
            (
                Content,
                "550 5.1.8 Access denied, bad outbound sender AS(42004)",
                REFUSED,
                "Restricted entities",
            ),
            (
                Content,
                "550 5.7.501 Access denied, spam abuse detected",
                REFUSED,
                "lift the block",
            ),
            (
                Content,
                "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: a@corp.example",
                REFUSED,
                "verify its domain",
            ),
            (
                Content,
                "550 The from address does not match a verified Sender Identity. Mail cannot be sent",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Mail,
                "550-Requested action not taken: mailbox unavailable|550 Sender address is not allowed.",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Content,
                "553 Relaying disallowed as a@corp.example",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Mail,
                "553 5.7.1 <a@corp.example>: Sender address rejected: not owned by user relay",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Content,
                "554 5.2.252 SendAsDenied; a@corp.example not allowed to send as b@corp.example",
                REFUSED,
                "Send As",
            ),
            (
                Content,
                "550 5.7.30 Gmail requires all senders to authenticate with DKIM",
                REFUSED,
                "DKIM",
            ),
            (
                Mail,
                "550 5.7.30 Basic authentication is not supported for Client Submission.",
                MISCONFIGURED,
                "oauth",
            ),
            // As the upstreams say it behind the content.
            (
                Content,
                "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message",
                REFUSED,
                "Send As",
            ),
            (
                Content,
                "550 5.7.1 Client does not have permissions to send as this sender",
                REFUSED,
                "Send As",
            ),
            (
                Content,
                "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message [BeginDiagnosticData]WASCL UserAction verdict is not None.",
                REFUSED,
                "Restricted entities",
            ),
            (
                Content,
                "550-Requested action not taken: mailbox unavailable|550 Sender address is not allowed.",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Content,
                "554 5.7.1 The 'From' address you supplied (a@corp.example) is not a Sender Signature on your account.",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Content,
                "550 5.7.1 Domain corp.example is not allowed to send: Please activate your account.",
                REFUSED,
                "finish its set-up",
            ),
            (
                Content,
                "550 5.7.1 Unconfigured Sending Domain <corp.example>",
                REFUSED,
                "rewrite the sender",
            ),
            (
                Content,
                "550 5.7.515 Access denied, sending domain corp.example does not meet the required authentication level",
                REFUSED,
                "DNS",
            ),
            (
                Content,
                "550 5.7.236 Your message can't be sent because your tenant exceeded the limit of onmicrosoft.com",
                THROTTLED,
                "24 hours",
            ),
            (
                Mail,
                "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus",
                MISCONFIGURED,
                "block list",
            ),
            (
                Mail,
                "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140).",
                MISCONFIGURED,
                "block list",
            ),
            (
                Mail,
                "550 SC-001 (COL004-MC1F1) Unfortunately, messages from 192.0.2.1 weren't sent.",
                MISCONFIGURED,
                "block list",
            ),
            (
                Rcpt,
                "550 Not authorized to relay",
                MISCONFIGURED,
                "username",
            ),
            (
                Mail,
                "550 5.7.10 Encryption needed",
                MISCONFIGURED,
                "starttls",
            ),
            (
                Content,
                "550 5.4.6 Unusual sending activity detected. Please try after sometime",
                THROTTLED,
                "mail waits",
            ),
            // One recipient, one message, or nobody knows.
            (
                Rcpt,
                "550 5.1.1 <b@ext.example>: Recipient address rejected: User unknown",
                Failed,
                "",
            ),
            (
                Rcpt,
                "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required",
                Failed,
                "",
            ),
            (
                Rcpt,
                "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents",
                Deferred,
                "",
            ),
            (
                Content,
                "550 5.7.703 Your message can't be delivered",
                Failed,
                "",
            ),
            (Content, "554 5.7.1 Spam message rejected", Failed, ""),
            (Data, "503 5.5.1 RCPT first", Failed, ""),
            (Rcpt, "450 4.2.0 Greylisted", Deferred, ""),
        ] {
            let mut replies = Replies::default();
            replies.feed(format!("{}\r\n", said.replace('|', "\r\n")).as_bytes());
            let reply = replies.next_reply().unwrap().unwrap();
            let diagnosis = diagnose(&reply, place, &[], false);
            assert_eq!(diagnosis.class, class, "{place} {said}");
            let explained = diagnosis.explain(&reply, place).text;
            let (_, remedy) = explained.split_once(" -- ").unwrap_or_default();
            assert!(remedy.contains(words), "{place} {said}: {remedy}");
            assert!(
                class == Failed || class == Deferred || !remedy.is_empty(),
                "{said}"
            );
            // A correction of the configuration prevails over every row.
            for other in [Deferred, Failed, MISCONFIGURED, THROTTLED] {
                let corrected = Override {
                    code: reply.code,
                    text: None,
                    enhanced: reply.enhanced,
                    class: other,
                };
                assert_eq!(classify(&reply, place, &[corrected]), other, "{said}");
            }
        }
    }

    /// A sender, a recipient or a subject that reads like a refusal of our standing stops nothing.
    #[test]
    fn attack_words_of_the_mail_in_a_refusal() {
        for (place, text) in [
            (
                Place::Rcpt,
                "<\"relay access denied\"@ext.example>: no such user",
            ),
            (
                Place::Rcpt,
                "<\"x> relay access denied <y\"@ext.example>: no such user",
            ),
            (Place::Rcpt, "TenantAttribution@ext.example: no such user"),
            (Place::Content, "spam: relay access denied"),
            (Place::Content, "subject 'relay access denied' is spam"),
            (Place::Content, "rejected: authentication required"),
            (
                Place::Content,
                "your mail says maximum sending rate exceeded",
            ),
        ] {
            let reply = reply(550, None, text);
            assert_eq!(classify(&reply, place, &[]), Class::Failed, "{text}");
        }
        // Of its own sender a message may say what it likes.
        let sender = reply(550, None, "spam: sendasdenied, it says");
        let diagnosis = diagnose(&sender, Place::Content, &[], false);
        assert_eq!(
            diagnosis.class,
            Class::Obstacle(ObstacleKind::MailboxRefused)
        );
        let far = format!("spam: {} sendasdenied", "word ".repeat(30));
        let far = diagnose(&reply(550, None, &far), Place::Content, &[], false);
        assert_eq!(far.class, Class::Failed);
        // Where an address has a blank in it, no text is a witness; the code still is.
        let bare = reply(550, None, "relay access denied @ext.example: no such user");
        assert_eq!(
            diagnose(&bare, Place::Rcpt, &[], false).class,
            Class::Obstacle(ObstacleKind::Misconfigured)
        );
        assert_eq!(diagnose(&bare, Place::Rcpt, &[], true).class, Class::Failed);
        let coded = reply(550, Some((5, 7, 64)), "no");
        assert_eq!(
            diagnose(&coded, Place::Rcpt, &[], true).class,
            Class::Obstacle(ObstacleKind::Misconfigured)
        );
    }

    /// A recipient's server that wants a login, TLS or another address of whoever hands our mail on is not ours: what a smarthost
    /// repeats of it must not stop everybody's mail.
    #[test]
    fn words_of_a_recipients_server_may_be_about_that_recipient_alone() {
        for text in [
            "550 5.7.1 <b@ext.example>: host mx.ext.example said: 550 authentication required",
            "550 5.7.1 mx.ext.example: 550 Please authenticate first",
            "550-Callout to mx.ext.example\r\n550 said: 554 5.7.1 Client host rejected: Access denied",
            "550 5.7.1 mx.ext.example said: Service unavailable; Client host [192.0.2.1] blocked using bl.example",
            "550 5.7.606 Access denied, banned sending IP",
            "550 5.7.25 The sending IPv6 address must have a PTR record",
            "550 mx.ext.example said: Must issue a STARTTLS command first",
            "550 5.7.1 mx.ext.example said: <relay.x.example>: Helo command rejected: Host not found",
            "504 5.5.2 need a better name",
            "554 5.7.1 mx.ext.example said: Relay access denied",
        ] {
            let mut replies = Replies::default();
            replies.feed(format!("{text}\r\n").as_bytes());
            let reply = replies.next_reply().unwrap().unwrap();
            let diagnosis = diagnose(&reply, Place::Rcpt, &[], false);
            assert_eq!(
                (diagnosis.class, diagnosis.narrow),
                (
                    Class::Obstacle(ObstacleKind::Misconfigured),
                    Some(Narrow::Recipient)
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn every_row_can_be_reached_and_says_why() {
        for row in table::all() {
            assert!(
                row.source.starts_with("https://") || row.source.contains(' '),
                "{row:?}"
            );
            assert!(
                row.remedy.len() > 10 && !row.remedy.contains(" -- "),
                "{row:?}"
            );
            for phrase in row.phrases {
                assert_eq!(wording::wording(phrase), *phrase, "as it is looked for");
            }
            let place = row.at.first().copied().unwrap_or(Place::Mail);
            let (subject, detail, _) = row.enhanced.first().copied().unwrap_or_default();
            let code = row.codes.1.min(550).max(row.codes.0);
            let enhanced =
                (!row.enhanced.is_empty()).then_some(((code / 100) as u8, subject, detail));
            let phrases = if row.phrases.is_empty() {
                &[""]
            } else {
                row.phrases
            };
            for phrase in phrases {
                let reply = reply(code, enhanced, phrase);
                let found = table::all()
                    .find(|row| row.fits(&reply, place, Some(&wording::wording(phrase))))
                    .unwrap();
                assert_eq!(
                    found.remedy, row.remedy,
                    "{reply:?} at {place} never comes to {row:?}"
                );
            }
        }
    }

    /// The page for administrators and the table: the same codes, the same consequences.
    #[test]
    fn the_page_says_the_same() {
        use crate::mail::page::{self, quoted};
        let rows = page::table(
            page::EXCHANGE_ONLINE,
            "### Exchange Online refuses over SMTP",
        );
        let mut listed = Vec::new();
        for row in &rows {
            for code in quoted(&row[0]) {
                let mut replies = Replies::default();
                replies.feed(format!("{code}\r\n").as_bytes());
                let reply = replies.next_reply().unwrap().unwrap();
                let place = if reply.code == 535 {
                    Place::Token
                } else {
                    Place::Content
                };
                let diagnosis = diagnose(&reply, place, &[], false);
                let words = match diagnosis.class {
                    _ if crowding(&reply, Place::Data, &[]).is_some() => {
                        "waits for one of the others"
                    }
                    Class::Obstacle(ObstacleKind::Misconfigured) if diagnosis.narrow.is_some() => {
                        "pauses; where other recipients are taken, that one waits"
                    }
                    Class::Obstacle(ObstacleKind::Misconfigured) => "pauses",
                    Class::Obstacle(ObstacleKind::MailboxRefused) => "this sender waits",
                    Class::Obstacle(ObstacleKind::Throttled)
                        if diagnosis.wait == Some(Duration::from_hours(1)) =>
                    {
                        "waits, with a look each hour"
                    }
                    Class::Obstacle(ObstacleKind::Throttled) => "waits",
                    Class::Deferred => "tries again",
                    Class::Failed => "bounces",
                    Class::Obstacle(_) | Class::Crowded => "no row says that",
                };
                assert_eq!(row[2], words, "{code}");
                listed.extend(reply.enhanced);
            }
        }
        for row in table::exchange() {
            for (subject, first, last) in row.enhanced {
                let is_listed = listed
                    .iter()
                    .any(|(_, s, d)| s == subject && (first..=last).contains(&d));
                assert!(is_listed, "the page lacks 5.{subject}.{first}");
            }
        }
    }

    #[test]
    fn remedies() {
        let said = explained(
            &reply(535, Some((5, 7, 139)), "Authentication unsuccessful"),
            Place::Auth,
        );
        assert!(
            said.text
                .starts_with("AUTH: Authentication unsuccessful -- SMTP AUTH is switched off")
        );
        assert!(said.text.contains("type = \"graph\""));
        assert_eq!(
            explained(&reply(450, None, "later"), Place::Mail).text,
            "MAIL: later"
        );
        assert_eq!(bounded(&"x".repeat(5000)).len(), 1000);
    }
}
