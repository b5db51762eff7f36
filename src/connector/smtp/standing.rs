//! Whether the upstream takes mail of ours at all, as far as this connector has seen.
//!
//! One message cannot tell: "relay access denied" is our standing where nothing is taken, and one recipient's
//! matter where everything else is. It decides nothing else, and it forgets with the process.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{
    mail::{
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
    },
    smtp::client::class::Narrow,
};

/// Up to so many refusals in a row still concern only those who were refused.
const TOLERATED: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Reputation {
    /// Refusals since a recipient was accepted; as long as none ever was, as many as are tolerated.
    refused: AtomicU32,
}

impl Default for Reputation {
    fn default() -> Self {
        Self {
            refused: AtomicU32::new(TOLERATED),
        }
    }
}

impl Reputation {
    /// A recipient was accepted.
    pub(super) fn is_good(&self) {
        self.refused.store(0, Ordering::Relaxed);
    }

    /// A refusal of our standing that may concern these recipients, or this sender, alone: where other mail was taken just before
    /// it does.
    pub(super) fn narrowed(
        &self,
        report: Report,
        narrow: Option<Narrow>,
        recipients: &[Recipient],
        via: &str,
    ) -> Report {
        let (Report::NotTried(obstacle), Some(narrow)) = (&report, narrow) else {
            return report;
        };
        if obstacle.kind != ObstacleKind::Misconfigured {
            return report;
        }
        let before = self
            .refused
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_add(1))
            })
            .unwrap_or(TOLERATED);
        if before >= TOLERATED {
            return report;
        }
        match narrow {
            Narrow::Sender => {
                Obstacle::new(ObstacleKind::MailboxRefused, obstacle.reply.clone()).into()
            }
            Narrow::Recipient => {
                Report::all(recipients, &Outcome::deferred(obstacle.reply.clone()), via)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{address::Address, reply::Reply};

    #[test]
    fn one_refusal_among_good_mail_stops_nobody_else() {
        let standing = Reputation::default();
        let to = [Address::parse("b@foreign.example").unwrap().into()];
        let said = |narrow| {
            let reply = Reply::new(554, (5, 7, 1), "Relay access denied");
            let report = Obstacle::new(ObstacleKind::Misconfigured, reply).into();
            match standing.narrowed(report, narrow, &to, "up") {
                Report::NotTried(obstacle) if obstacle.kind == ObstacleKind::Misconfigured => "us",
                Report::NotTried(obstacle) if obstacle.kind == ObstacleKind::MailboxRefused => {
                    "sender"
                }
                Report::Tried { outcomes, .. } if outcomes.len() == 1 => "recipient",
                other => panic!("{other:?}"),
            }
        };
        // Nothing was ever taken: it is about us.
        assert_eq!(said(Some(Narrow::Recipient)), "us");
        standing.is_good();
        assert_eq!(said(Some(Narrow::Recipient)), "recipient");
        assert_eq!(said(Some(Narrow::Sender)), "sender");
        // Good mail in between: still about those alone.
        standing.is_good();
        assert_eq!(said(Some(Narrow::Recipient)), "recipient");
        assert_eq!(said(Some(Narrow::Recipient)), "recipient");
        // Nothing but refusals: our standing is lost after all.
        assert_eq!(said(Some(Narrow::Recipient)), "us");
        assert_eq!(said(Some(Narrow::Sender)), "us");
        // What is ours in any case is never narrowed.
        standing.is_good();
        assert_eq!(said(None), "us");
    }
}
