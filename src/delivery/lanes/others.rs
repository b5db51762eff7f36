//! The mailboxes of a connector that have no row of their own, and what is said of them.

use crate::{
    mail::outcome::LaneState,
    queue::store::LaneRow,
    route::{ConnectorName, LaneId},
};

/// Stands for all refused mailboxes of a connector that have no row: no mailbox is called that.
pub(super) fn others(connector: &ConnectorName) -> LaneId {
    LaneId {
        mailbox: Some("*".into()),
        ..LaneId::of(connector)
    }
}

/// How many lanes a row stands for that have none of their own; `None`: it is that of one lane.
pub fn others_in(row: &LaneRow) -> Option<usize> {
    let is_others = row.lane.mailbox == others(&row.lane.connector).mailbox;
    let count = row.why.split(' ').next().and_then(|word| word.parse().ok());
    is_others.then_some(count.unwrap_or_default())
}

/// Why the others of a connector take no mail: so many of them.
pub fn why_others(state: LaneState, count: usize) -> String {
    match state {
        LaneState::Throttled => format!(
            "{count} more mailboxes are throttled: the upstream wants nothing of them for a while"
        ),
        _ => format!(
            "{count} more mailboxes, or Froms in one, are refused; most often their senders do not exist: narrow allowlist.senders, or write a [[rewrite]]"
        ),
    }
}
