//! Whether a refusal means that there are too many connections, so that the next message waits for one of the others.
//!
//! Pure. Whether it counts depends on what other connections there are, which the connector knows.

use super::{
    diagnosis::Override,
    meaning::{Class, Place},
};
use crate::mail::reply::Reply;

/// How plainly an upstream says that it has too many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crowding {
    /// It refuses, which can mean that.
    Hinted,
    /// It says so.
    Said,
}

/// What a limit of connections is called, in lower case, with whose words they are.
const SAYINGS: &[&str] = &[
    // Postfix: "421 4.7.0 host Error: too many connections from 192.0.2.1"; Sendmail: "Too many open connections"; Exim, SES: "Too many
    // concurrent SMTP connections"; others have sessions.
    "connections",
    "sessions",
    // Mailbox providers that count logins of a user.
    "simultaneous logins",
    "concurrent logins",
];
/// Said of the number itself.
const LIMITS: &[&str] = &[
    // Exchange: "432 4.3.2 Concurrent connections limit exceeded", and of a mailbox "sender thread limit exceeded".
    "concurrent connection",
    "concurrent smtp connection",
    "simultaneous connection",
    "sender thread limit",
    // Courier, MailEnable, appliances.
    "connection limit",
    "connections limit",
    // Dovecot: "Maximum number of connections from user+IP exceeded"; Exchange: "maximum number of concurrent connections".
    "maximum number of connections",
    "maximum number of concurrent",
    "maximum number of simultaneous",
    "max connections",
    "session limit",
];
/// What is allowed in a time is no number of connections: with these words a reply says nothing of it.
const RATES: &[&str] = &[
    "rate",
    "per minute",
    "per hour",
    "per second",
    "per day",
    "a minute",
    "an hour",
    "short time",
    "short period",
    "too fast",
    "too quickly",
    "frequen",
    "attempts",
    "time period",
    "time unit",
    "in the last",
    "today",
    "messages",
];

/// A reply that refuses, at a place up to DATA. An override decides before the words do.
pub fn crowding(reply: &Reply, place: Place, overrides: &[Override]) -> Option<Crowding> {
    if matches!(place, Place::Content) {
        return None;
    }
    if let Some(corrected) = overrides.iter().find(|o| o.fits(reply)) {
        return (corrected.class == Class::Crowded).then_some(Crowding::Said);
    }
    let is_code = reply.is_transient() || reply.code == 554;
    if is_code && (reply.code == 432 || says_so(&reply.text.to_ascii_lowercase())) {
        return Some(Crowding::Said);
    }
    let hints = match place {
        Place::Greeting => is_code,
        Place::Hello => reply.is_transient(),
        Place::Auth | Place::Token => matches!(reply.code, 421 | 454),
        _ => false,
    };
    (hints && !is_rate(&reply.text.to_ascii_lowercase())).then_some(Crowding::Hinted)
}

fn is_rate(words: &str) -> bool {
    RATES.iter().any(|rate| words.contains(rate))
}

fn says_so(words: &str) -> bool {
    let too_many = words
        .find("too many")
        .and_then(|at| words.get(at..))
        .is_some_and(|rest| {
            // Few words between them: what follows later is of something else.
            let near: Vec<&str> = rest.split_whitespace().take(6).collect();
            let near = near.join(" ");
            SAYINGS.iter().any(|saying| near.contains(saying))
        });
    (too_many || LIMITS.iter().any(|limit| words.contains(limit))) && !is_rate(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstreams_say_of_too_many_connections() {
        use Crowding::{Hinted, Said};
        for (code, text, place, found) in [
            (
                421,
                "4.7.0 mx.example Error: too many connections from 192.0.2.1",
                Place::Greeting,
                Some(Said),
            ),
            (
                421,
                "Too many concurrent SMTP connections; please try again later.",
                Place::Greeting,
                Some(Said),
            ),
            (
                421,
                "4.3.2 Too many open connections.",
                Place::Greeting,
                Some(Said),
            ),
            (
                432,
                "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
                Place::Data,
                Some(Said),
            ),
            (
                432,
                "4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending",
                Place::Mail,
                Some(Said),
            ),
            (
                421,
                "4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel",
                Place::Hello,
                Some(Said),
            ),
            (
                454,
                "4.7.0 Maximum number of connections from user+IP exceeded",
                Place::Auth,
                Some(Said),
            ),
            (554, "too many sessions", Place::Greeting, Some(Said)),
            (452, "Too many sessions opened", Place::Rcpt, Some(Said)),
            // It refuses and does not say why.
            (
                421,
                "4.3.2 Service not available, closing channel",
                Place::Greeting,
                Some(Hinted),
            ),
            (554, "No SMTP service here", Place::Greeting, Some(Hinted)),
            (421, "4.3.2 closing", Place::Hello, Some(Hinted)),
            (550, "go away", Place::Hello, None),
            (
                454,
                "4.7.0 Temporary authentication failure",
                Place::Auth,
                Some(Hinted),
            ),
            (535, "5.7.8 wrong password", Place::Auth, None),
            (451, "4.3.0 later", Place::Mail, None),
            (421, "4.3.2 closing", Place::Data, None),
            // A rate is no number.
            (
                421,
                "4.7.0 Connection rate limit exceeded",
                Place::Greeting,
                None,
            ),
            (
                421,
                "4.7.0 Too many connections per minute",
                Place::Greeting,
                None,
            ),
            (
                454,
                "4.7.0 Too many login attempts, please try again later.",
                Place::Auth,
                None,
            ),
            (452, "4.5.3 Too many recipients", Place::Rcpt, None),
            (
                421,
                "4.7.0 Too many messages on this connection",
                Place::Mail,
                None,
            ),
            (550, "5.7.1 too many connections", Place::Mail, None),
            // Behind the content it may be quoted.
            (451, "too many connections", Place::Content, None),
        ] {
            let reply = Reply {
                code,
                enhanced: None,
                text: text.to_owned(),
            };
            assert_eq!(
                crowding(&reply, place, &[]),
                found,
                "{code} {text} at {place}"
            );
        }
    }
}
