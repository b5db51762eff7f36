//! What a transaction holds of the quotas: asked at RCPT, counted by the driver once the message is accepted.
//!
//! The windows are the driver's, since all sessions share them; without any (`explain`) it is only said which quotas would count.

use std::net::IpAddr;

use crate::{
    mail::{address::Address, recipient::Recipient, reply::Reply},
    policy::{
        quota::{Addressed, Beyond, Quota, holder},
        scope::Posted,
    },
    route::Route,
};

use super::{Rules, Session};

impl Session {
    /// More recipients, with their routes: all of them, or none.
    ///
    /// # Errors
    /// 450 4.7.1: a quota that refuses has no room for one of them.
    pub(super) fn count_recipients(
        &mut self,
        rules: &Rules,
        routed: &[(Recipient, &Route)],
    ) -> Result<(), Reply> {
        let before = match &self.transaction {
            Some(transaction) if routed.len() > 1 && !rules.policy.quotas.is_empty() => {
                Some((transaction.tally.clone(), transaction.held.clone()))
            }
            _ => None,
        };
        for (recipient, route) in routed {
            if let Err(reply) = self.count_recipient(rules, &recipient.address, route) {
                if let (Some(transaction), Some((tally, held))) = (&mut self.transaction, before) {
                    (transaction.tally, transaction.held) = (tally, held);
                }
                return Err(reply);
            }
        }
        Ok(())
    }

    /// One more recipient, whose route this is.
    ///
    /// # Errors
    /// 450 4.7.1: a quota that refuses has no room for it.
    fn count_recipient(
        &mut self,
        rules: &Rules,
        recipient: &Address,
        route: &Route,
    ) -> Result<(), Reply> {
        if rules.policy.quotas.is_empty() {
            return Ok(());
        }
        let Some(transaction) = &self.transaction else {
            return Ok(());
        };
        let client = self.client().map(str::to_owned);
        let user = self.user.as_ref().map(|user| user.name.clone());
        let mail = Posted {
            sender: transaction.sender.as_ref(),
            client: client.as_deref(),
            user: user.as_deref(),
            listener: &self.listener.name,
        };
        let peer: IpAddr = self.peer.ip();
        let of = Addressed {
            sender: mail.sender,
            user: mail.user,
            peer,
            route: route.name.as_str(),
        };
        let meant: Vec<(&Quota, String)> = (rules.policy.quotas.iter())
            .filter(|quota| quota.scope.takes(mail) && quota.scope.takes_recipient(recipient))
            .filter_map(|quota| Some((quota, quota.key(of)?)))
            .collect();
        let mut holds: Option<&Quota> = None;
        let mut refusal: Option<Reply> = None;
        for (quota, key) in &meant {
            let held = transaction.tally.of(&quota.name, key);
            let has_room = match &self.conditions.quotas {
                Some(view) => view.ledger.has_room(quota, key, held, view.now),
                None => true,
            };
            self.findings.add("quota", || told(quota, key));
            match quota.over {
                _ if has_room => {}
                // It is told by whoever looks at the windows.
                Beyond::Alert => {}
                // Of several the strictest.
                Beyond::Hold => {
                    if holds.is_none_or(|other| quota.hold_for < other.hold_for) {
                        holds = Some(quota);
                    }
                }
                Beyond::Refuse => {
                    refusal
                        .get_or_insert_with(|| Reply::quota_used_up(&quota.name, &quota.words()));
                }
            }
        }
        if let Some(reply) = refusal {
            return Err(reply);
        }
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
        };
        for (quota, key) in meant {
            transaction.tally.add(&quota.name, key);
        }
        if let Some(quota) = holds
            && !transaction.held.iter().any(|(held, _)| *held == route.name)
        {
            transaction
                .held
                .push((route.name.clone(), holder(&quota.name)));
        }
        Ok(())
    }
}

/// For `explain`.
fn told(quota: &Quota, key: &str) -> String {
    let then = match quota.over {
        Beyond::Alert => "an incident",
        Beyond::Hold => "held",
        Beyond::Refuse => "refused",
    };
    format!(
        "[[quota]] {} counts it for {} {key}: {}, then {then}",
        quota.name,
        quota.per.as_str(),
        quota.words()
    )
}
