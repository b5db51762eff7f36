//! Where a command hands a message over, and what a refusal means to the program that called: a status by sysexits.

pub(super) use crate::gateway::handover::{Taken, Unsent, dial, hand_over, local_listener, plain};

use super::exit::{CommandError, Exit};
use crate::{
    gateway::handover::is_speakable,
    mail::{reply::Reply, text::shown},
};

/// Where to, when there is no configuration to ask.
pub(super) const FALLBACK: &str = "127.0.0.1:25";

/// Overrides everything.
pub(super) const OVERRIDE: &str = "POSTERN_SMTP";

/// `$POSTERN_SMTP`.
#[expect(
    clippy::disallowed_methods,
    reason = "documented variable of the commands"
)]
pub(super) fn from_environment() -> Option<String> {
    std::env::var(OVERRIDE).ok().filter(|text| !text.is_empty())
}

/// By sysexits: later, a rule, a recipient, the data, or else not available.
pub(super) fn exit(unsent: &Unsent) -> Exit {
    match unsent {
        Unsent::Broken(_) => Exit::Later,
        Unsent::Said(step, reply) => verdict(step, reply),
        Unsent::NoRecipient(refused) => {
            if refused.iter().any(|(_, reply)| reply.is_transient()) {
                Exit::Later
            } else {
                refused
                    .first()
                    .map_or(Exit::NoUser, |(_, reply)| verdict("RCPT", reply))
            }
        }
    }
}

/// What a refusal means to the program that called.
pub(super) fn verdict(step: &str, reply: &Reply) -> Exit {
    match (reply.is_transient(), reply.enhanced, step) {
        (true, ..) => Exit::Later,
        (_, Some((5, 7, _)), _) => Exit::Refused,
        (_, _, "RCPT") => Exit::NoUser,
        (_, Some((5, 6 | 1, _) | (5, 5, 2) | (5, 3, 4)), _) => Exit::Data,
        _ => Exit::Unavailable,
    }
}

/// An address that can stand in a command, or the end of it.
pub(super) fn speakable(address: &str) -> Result<(), CommandError> {
    if is_speakable(address) {
        return Ok(());
    }
    Err(CommandError::new(
        Exit::Usage,
        format_args!("not an address: \"{}\"", shown(address)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means() {
        for (step, code, enhanced, expected) in [
            ("MAIL", 452, (4, 3, 1), Exit::Later),
            ("MAIL", 550, (5, 7, 1), Exit::Refused),
            ("RCPT", 550, (5, 7, 1), Exit::Refused),
            ("RCPT", 550, (5, 1, 1), Exit::NoUser),
            ("DATA", 550, (5, 6, 0), Exit::Data),
            ("DATA", 552, (5, 3, 4), Exit::Data),
            ("DATA", 554, (5, 0, 0), Exit::Unavailable),
        ] {
            assert_eq!(verdict(step, &Reply::new(code, enhanced, "x")), expected);
        }
    }
}
