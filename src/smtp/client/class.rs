//! What an upstream's refusal means: the message, the moment, or ourselves.
//!
//! Apart because it is the one place where a code becomes a consequence (the outcome table), with the corrections of
//! the configuration before it. It never reads free text, but for one word that Exchange Online writes nowhere else.

use crate::mail::{
    outcome::{Outcome, Report},
    reply::Reply,
};

/// A correction of what an upstream's reply means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The reply code.
    pub code: u16,
    /// The enhanced code; `None` = any.
    pub enhanced: Option<(u8, u16, u16)>,
    /// What it means.
    pub class: Class,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// As a 4xx.
    Deferred,
    /// As a 5xx.
    Failed,
    /// The upstream is not taking mail: the lane closes.
    Down,
    /// Our credentials or configuration: the lane pauses.
    Misconfigured,
    /// The sending mailbox alone.
    MailboxRefused,
}

/// The class of a reply that is a refusal, at any stage.
pub fn classify(reply: &Reply, overrides: &[Override]) -> Class {
    let corrected = overrides
        .iter()
        .find(|o| o.code == reply.code && (o.enhanced.is_none() || o.enhanced == reply.enhanced));
    if let Some(found) = corrected {
        return found.class;
    }
    match (reply.code, reply.enhanced) {
        // 5.7.62: the From is not the account of High Volume Email.
        (500..=599, Some((5, 7, 60 | 62) | (5, 2, 252))) => Class::MailboxRefused,
        // 554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException…
        (500..=599, _) if reply.text.contains("SendAsDenied") => Class::MailboxRefused,
        (500..=599, Some((5, 7, 30 | 57 | 139 | 240))) | (530 | 534 | 535 | 538, _) => {
            Class::Misconfigured
        }
        (500..=599, _) => Class::Failed,
        _ => Class::Deferred,
    }
}

/// Why a connector stops before anything was attempted for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The upstream is not taking mail.
    Down(Reply),
    /// Our configuration or credentials.
    Misconfigured(Reply),
    /// The sending mailbox.
    MailboxRefused(Reply),
}

impl From<Stop> for Report {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Down(reply) => Report::Down {
                reply,
                retry_after: None,
            },
            Stop::Misconfigured(reply) => Report::Misconfigured(reply),
            Stop::MailboxRefused(reply) => Report::MailboxRefused(reply),
        }
    }
}

impl Stop {
    /// Stops for a cause of our own finding: the upstream is down.
    pub fn down(text: impl Into<String>) -> Self {
        Stop::Down(Reply::new(451, (4, 4, 1), text))
    }

    /// Stops for a cause of our own finding: the configuration.
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Stop::Misconfigured(Reply::new(451, (4, 3, 5), text))
    }

    /// The reply, whatever the reason.
    pub fn reply(&self) -> &Reply {
        match self {
            Stop::Down(reply) | Stop::Misconfigured(reply) | Stop::MailboxRefused(reply) => reply,
        }
    }
}

/// The reply with the stage before its text and the remedy, if one is known, behind it.
pub fn explained(reply: &Reply, stage: &str) -> Reply {
    let text = match remedy(reply, stage) {
        // Short, so that the remedy is still read where a text is cut.
        Some(remedy) => format!("{stage}: {} -- {remedy}", cut(&reply.text, 300)),
        None => format!("{stage}: {}", bounded(&reply.text)),
    };
    Reply {
        code: reply.code,
        enhanced: reply.enhanced,
        text,
    }
}

/// A bad sequence of commands (RFC 5321 §4.2.4): the upstream lost the thread, unless an override says what it means by that.
pub fn lost_thread(reply: &Reply, overrides: &[Override]) -> bool {
    reply.code == 503
        && !overrides.iter().any(|o| o.code == 503)
        && classify(reply, overrides) == Class::Failed
}

/// Not now, without a wish as to when.
pub(super) fn deferred(reply: Reply) -> Outcome {
    Outcome::Deferred {
        reply,
        retry_after: None,
    }
}

/// What is kept of an upstream's text in an outcome: 1,000 octets.
pub fn bounded(text: &str) -> &str {
    cut(text, 1000)
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The stage of a login with a token, whose refusals have remedies of their own.
pub(super) const TOKEN_STAGE: &str = "AUTH with a token";

/// Whether another token may be taken where this one was refused. Of mailbox, tenant, permission and form no token says anything.
pub(super) fn heals_by_renewal(reply: &Reply) -> bool {
    match (reply.code, reply.enhanced) {
        // 5.7.9 and 5.7.14 are Gmail's "an app password" and "by a browser".
        (_, Some((5, 7, 9 | 14 | 30 | 57 | 60 | 139 | 144 | 240) | (5, 5, _))) => false,
        (535, _) | (_, Some((5, 7, 3 | 8 | 142 | 143))) => reply.is_permanent(),
        _ => false,
    }
}

/// What to do about a token that was refused at login.
fn token_remedy(reply: &Reply) -> Option<&'static str> {
    Some(match (reply.code, reply.enhanced) {
        (_, Some((5, 7, 3))) => {
            "the token is not accepted for this mailbox: the application needs SMTP.SendAsApp of Office 365 Exchange Online with admin consent, New-ServicePrincipal with the object ID of its Enterprise application, and Add-MailboxPermission (or the role \"Application SMTP.SendAsApp\"); a change takes up to 2 hours"
        }
        (_, Some((5, 7, 139))) => {
            "SMTP AUTH is switched off for this mailbox or tenant, or a policy blocks it: Set-CASMailbox MAILBOX -SmtpClientAuthenticationDisabled $false, look at security defaults and Conditional Access, or use a connector of type \"graph\""
        }
        (_, Some((5, 7, 30))) => {
            "the upstream takes no password, and has not seen a token: see that auth is \"xoauth2\" and that host is the one of Exchange Online"
        }
        (_, Some((5, 7, 57))) => {
            "the upstream wants a login that it has not seen; check host, port and auth"
        }
        (_, Some((5, 7, 60))) => {
            "the application may not send as this mailbox: correct mailbox, or grant it the mailbox (Add-MailboxPermission, Send As)"
        }
        (_, Some((5, 7, 142))) => {
            "the token ends too soon: this upstream wants it to last for 20 minutes yet; see that the token lifetime policy of the tenant gives more, and that this machine's clock is right"
        }
        (_, Some((5, 7, 143))) => "the token has expired: set this machine's clock right",
        (_, Some((5, 7, 144))) => {
            "the application may not send: it needs the application permission Mail.Send of Office 365 Exchange Online, with admin consent"
        }
        (_, Some((5, 7, 240))) => {
            "the application may not use this account: Add-HVEAppAccess for the application"
        }
        (_, Some((5, 7, 9))) => {
            "the account wants an app password or OAuth: see that auth is \"xoauth2\""
        }
        (_, Some((5, 7, 14))) => {
            "Google wants this account to sign in by a browser first, or has blocked it: sign in there as the mailbox, and see its security page"
        }
        (_, Some((5, 5, 121..=126))) => {
            "the upstream does not understand the login; check mailbox and auth"
        }
        (530 | 538, _) => {
            "the upstream wants TLS before a login: set tls = \"starttls\" or \"implicit\""
        }
        (502..=504, _) => {
            "the upstream does not know this way to log in; check host, port and auth"
        }
        (500..=599, _) => {
            "the token is not accepted for this mailbox: check mailbox (Google: subject, or whose refresh token it is), scope (Gmail: https://mail.google.com/), and that the application may send for it"
        }
        _ => return None,
    })
}

fn remedy(reply: &Reply, stage: &str) -> Option<&'static str> {
    if stage == TOKEN_STAGE {
        return token_remedy(reply);
    }
    Some(match (reply.code, reply.enhanced) {
        (_, Some((5, 7, 139))) => {
            "basic authentication is switched off for this mailbox or tenant, or a policy blocks it: use a connector of type \"graph\", or enable authenticated SMTP (SMTP AUTH) for the mailbox again"
        }
        (_, Some((5, 7, 30))) => {
            "Exchange Online no longer takes passwords here: use a connector of type \"graph\" or OAuth"
        }
        (_, Some((5, 7, 57))) => {
            "the upstream wants a login: set username and password, or use a connector of type \"graph\""
        }
        (_, Some((5, 7, 60) | (5, 2, 252))) => {
            "the account that logs in may not send as this sender: grant it \"Send As\", or rewrite the sender"
        }
        (500..=599, _) if reply.text.contains("SendAsDenied") => {
            "the account that logs in may not send as this sender: grant it \"Send As\", or rewrite the sender"
        }
        (534, Some((5, 7, 9))) => {
            "the account needs an app password (Gmail: Google account, Security, App passwords)"
        }
        (534, _) => {
            "the upstream wants another or stronger way to log in: check auth, or use an app password"
        }
        (_, Some((5, 7, 62))) => "the From must be the account that logs in: rewrite the sender",
        (535, Some((5, 7, 3))) => {
            "check username and password, and that SMTP AUTH is on for the mailbox; Exchange Online stops taking passwords: use a connector of type \"graph\" or OAuth"
        }
        (535, _) => {
            "check username and password; accounts with two-step verification need an app password"
        }
        (538, _) => "the upstream wants TLS before a login: set tls = \"starttls\" or \"implicit\"",
        (530, Some((5, 7, 0))) => {
            "the upstream wants TLS or a login first: set tls = \"starttls\", username and password"
        }
        (530, _) => "the upstream wants a login: set username and password",
        (500..=599, _) if stage == "AUTH" => "check username, password and auth",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            enhanced: Some((5, 4, 5)),
            class: Class::Deferred,
        }];
        for (code, enhanced, text, class) in [
            (450, None, "", Class::Deferred),
            (421, Some((4, 7, 0)), "", Class::Deferred),
            (550, Some((5, 1, 1)), "", Class::Failed),
            (550, Some((5, 4, 5)), "", Class::Deferred),
            (571, None, "", Class::Failed),
            (530, None, "", Class::Misconfigured),
            (530, Some((5, 7, 57)), "", Class::Misconfigured),
            (534, None, "", Class::Misconfigured),
            (538, None, "", Class::Misconfigured),
            (550, Some((5, 7, 30)), "", Class::Misconfigured),
            (535, Some((5, 7, 139)), "", Class::Misconfigured),
            (550, Some((5, 7, 60)), "", Class::MailboxRefused),
            (550, Some((5, 7, 62)), "", Class::MailboxRefused),
            (550, Some((5, 7, 240)), "", Class::Misconfigured),
            (
                554,
                Some((5, 2, 252)),
                "SendAsDenied",
                Class::MailboxRefused,
            ),
            (
                554,
                Some((5, 2, 0)),
                "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
                Class::MailboxRefused,
            ),
            (450, None, "SendAsDenied", Class::Deferred),
            (250, None, "", Class::Deferred),
        ] {
            let reply = reply(code, enhanced, text);
            assert_eq!(classify(&reply, &gmail), class, "{reply:?}");
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
            (504, Some((5, 5, 4)), false, "way to log in"),
            (534, Some((5, 7, 9)), false, "app password"),
            (534, Some((5, 7, 14)), false, "browser"),
            (538, None, false, "TLS"),
        ] {
            let reply = reply(code, enhanced, "no");
            let said = explained(&reply, TOKEN_STAGE).text;
            assert!(said.contains(words), "{reply:?}: {said}");
            assert_eq!(heals_by_renewal(&reply), is_renewed, "{reply:?}");
        }
        let later = reply(454, Some((4, 7, 0)), "later");
        assert!(!heals_by_renewal(&later));
        assert_eq!(
            explained(&later, TOKEN_STAGE).text,
            "AUTH with a token: later"
        );
    }

    #[test]
    fn remedies() {
        let said = explained(
            &reply(535, Some((5, 7, 139)), "Authentication unsuccessful"),
            "AUTH",
        );
        assert!(
            said.text
                .starts_with("AUTH: Authentication unsuccessful -- basic authentication")
        );
        assert!(said.text.contains("type \"graph\""));
        assert_eq!(
            explained(&reply(450, None, "later"), "MAIL").text,
            "MAIL: later"
        );
        assert_eq!(bounded(&"x".repeat(5000)).len(), 1000);
    }
}
