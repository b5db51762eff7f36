//! The mail log: one function and one line for each event, with field names that do not change.
//!
//! Whoever searches, graphs or alarms on the log finds every name in this file. Whatever came from the network is escaped and
//! cut here, so that no caller can forget it.

use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::{counted, metrics::NO_CLIENT, noticed};
use crate::mail::outcome::LaneState;
use crate::mail::{
    address::Address,
    message::{Envelope, MessageId, Origin},
    reply::Reply,
    text::{logged, logged_to},
    time,
};

/// Why a connector stops, with the remedy, in so many octets.
const REMEDY: usize = 1_000;

/// Recipients that are named in one line; the count says how many there are.
const NAMED: usize = 10;

fn sender(sender: Option<&Address>) -> String {
    sender.map_or_else(|| "<>".to_owned(), |a| logged(&a.to_string()))
}

/// A message is on disk and the client was told so. `routes` in their order; `took`: from the end of DATA to the disk.
pub fn accepted(
    id: MessageId,
    origin: &Origin,
    envelope: &Envelope,
    size: u64,
    routes: &[&str],
    took: Duration,
) {
    let client = origin.client.as_deref().unwrap_or(NO_CLIENT);
    counted::accepted(&origin.listener, client, took);
    let mut recipients = String::new();
    for (i, recipient) in envelope.recipients.iter().take(NAMED).enumerate() {
        if i > 0 {
            recipients.push(',');
        }
        recipients.push_str(&logged(&recipient.to_string()));
    }
    if envelope.recipients.len() > NAMED {
        recipients.push_str(",…");
    }
    let rules = (!origin.rules.is_empty()).then(|| logged(&origin.rules.join("; ")));
    info!(
        event = "accepted",
        id = %id,
        listener = %origin.listener,
        peer = %origin.peer,
        client,
        user = %logged(origin.user.as_deref().unwrap_or("-")),
        helo = %logged(&origin.helo),
        tls = origin.tls,
        sender = %sender(envelope.sender.as_ref()),
        recipients = %recipients,
        count = envelope.recipients.len(),
        size,
        routes = %routes.join(","),
        rules = rules.as_deref(),
        ms = took.as_millis() as u64,
        "accepted"
    );
}

/// A copy of a message for an archive is on disk with it.
pub fn archived(id: MessageId, of: MessageId, archive: &str, to: &Address, size: u64) {
    counted::archived(archive);
    info!(
        event = "archived",
        id = %id,
        of = %of,
        archive,
        recipient = %logged(&to.to_string()),
        size,
        "archived"
    );
}

/// What was refused, to whom.
#[derive(Debug, Clone, Copy)]
pub struct Rejected<'a> {
    /// The client's address.
    pub peer: std::net::SocketAddr,
    /// Its `[[client]]`.
    pub client: Option<&'a str>,
    /// The listener.
    pub listener: &'a str,
    /// `connect`, `auth`, `mail`, `rcpt`, `data`.
    pub stage: &'a str,
    /// As given.
    pub sender: Option<&'a str>,
    /// As given.
    pub recipient: Option<&'a str>,
    /// The reply that the client had.
    pub reply: &'a Reply,
    /// Lines about this address that were left out since the last one.
    pub suppressed: u64,
}

/// Something was refused.
pub fn rejected(what: &Rejected<'_>) {
    info!(
        event = "rejected",
        listener = %what.listener,
        peer = %what.peer,
        client = what.client.unwrap_or("-"),
        stage = what.stage,
        sender = %logged(what.sender.unwrap_or("-")),
        recipient = %logged(what.recipient.unwrap_or("-")),
        code = what.reply.code,
        reply = %logged(&what.reply.to_string()),
        suppressed = what.suppressed,
        "rejected"
    );
}

/// An upstream took responsibility for one recipient. `delay` counts from acceptance.
#[allow(clippy::too_many_arguments)] // one event, its fields
pub fn delivered(
    id: MessageId,
    recipient: &Address,
    route: &str,
    connector: &str,
    via: &str,
    reply: &Reply,
    attempt: u32,
    delay: Duration,
) {
    info!(
        event = "delivered",
        id = %id,
        recipient = %logged(&recipient.to_string()),
        route,
        connector,
        via = %logged(via),
        reply = %logged(&reply.to_string()),
        attempt,
        delay_ms = delay.as_millis() as u64,
        "delivered"
    );
}

/// One recipient waits for another attempt. `in_doubt`: it may have arrived.
#[allow(clippy::too_many_arguments)] // one event, its fields
pub fn deferred(
    id: MessageId,
    recipient: &Address,
    route: &str,
    connector: &str,
    reply: &Reply,
    attempt: u32,
    next: SystemTime,
    in_doubt: bool,
) {
    warn!(
        event = "deferred",
        id = %id,
        recipient = %logged(&recipient.to_string()),
        route,
        connector,
        reply = %logged(&reply.to_string()),
        attempt,
        next = %time::logged(next),
        in_doubt,
        "deferred"
    );
}

/// One recipient was given up; the message is kept in `failed`.
pub fn failed(
    id: MessageId,
    recipient: &Address,
    route: &str,
    connector: &str,
    reply: &Reply,
    attempt: u32,
) {
    noticed::mail_failed(route, &reply.to_string());
    warn!(
        event = "failed",
        id = %id,
        recipient = %logged(&recipient.to_string()),
        route,
        connector,
        reply = %logged(&reply.to_string()),
        attempt,
        "failed"
    );
}

/// A report about `id` was queued as `bounce` for `to`.
pub fn bounced(id: MessageId, bounce: MessageId, to: &str) {
    counted::bounced("queued");
    info!(event = "bounced", id = %id, bounce = %bounce, to = %logged(to), "bounced");
}

/// A report about `id` that is not of a failure was queued as `report` for `to`: `relayed`, `delivered` or `delayed`.
pub fn reported(id: MessageId, report: MessageId, kind: &'static str, to: &str) {
    counted::reported(kind);
    info!(event = "reported", id = %id, kind, report = %report, to = %logged(to), "reported");
}

/// A lane is closed, paused or stopped. A paused one needs a person, so it is an error; a stopped one was stopped by one.
pub fn connector_paused(lane: &str, state: LaneState, why: &Reply) {
    // The remedy is at the end of it.
    let (lane, why) = (logged(lane), logged_to(&why.to_string(), REMEDY));
    let word = state.as_str();
    match state {
        LaneState::Paused => {
            tracing::error!(event = "connector paused", lane = %lane, state = word, why = %why, "connector paused");
        }
        LaneState::Stopped => {
            info!(event = "connector paused", lane = %lane, state = word, why = %why, "connector paused");
        }
        _ => {
            warn!(event = "connector paused", lane = %lane, state = word, why = %why, "connector paused");
        }
    }
}

/// So many alarms of that kind had no line of their own; `event` and `state` are those of the others.
pub fn more_alarms(connector: &str, event: &str, state: &str, count: usize) {
    warn!(event, lane = %logged(connector), state, count, "{count} more of these in the last minute");
}

/// The upstream asked for a pause; afterwards what waits for the lane is sent without anybody's help.
pub fn connector_throttled(lane: &str, until: SystemTime, why: &Reply) {
    let (lane, why) = (logged(lane), logged_to(&why.to_string(), REMEDY));
    warn!(event = "connector paused", lane = %lane, state = LaneState::Throttled.as_str(), until = %time::logged(until), why = %why, "connector paused");
}

/// An upstream was found to take no more connections than this.
pub fn connector_learned(connector: &str, connections: usize, reply: &Reply) {
    let (connector, reply) = (logged(connector), logged_to(&reply.to_string(), REMEDY));
    info!(event = "connector learned", connector = %connector, connections, reply = %reply, "connector learned");
}

/// An upstream lost its way when the commands of one message stood behind the content of another.
pub fn connector_not_pipelined(connector: &str) {
    info!(event = "connector learned", connector = %logged(connector), pipelining = "commands", "the upstream broke off when a message's commands followed the content of another; for a day they do not");
}

/// A lane is open again.
pub fn connector_resumed(lane: &str) {
    info!(event = "connector resumed", lane = %logged(lane), "connector resumed");
}
