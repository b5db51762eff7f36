//! What the rows of every store mean: states as numbers, names of which there may be none, where a message came from.

use std::{
    borrow::Cow,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::store::{JobState, RecipientState};
use crate::{
    mail::{
        message::{MessageId, Origin},
        time::{from_micros as time, micros},
    },
    route::LaneId,
};

/// `job.state`: smaller is less finished, so the state of an entry is the least of its jobs'.
pub(super) const SENDING: i64 = 0;
pub(super) const HELD: i64 = 1;
pub(super) const WAITING: i64 = 2;
pub(super) const FAILED: i64 = 3;
/// Of an entry without a job: there is no row with it.
const DONE: i64 = 4;

pub(super) fn state_number(state: JobState) -> i64 {
    match state {
        JobState::Sending => SENDING,
        JobState::Held => HELD,
        JobState::Waiting => WAITING,
        JobState::Failed => FAILED,
        JobState::Done => DONE,
    }
}

/// Added to the state of a job whose message is on its way into another store: no index of what waits has it.
pub(super) const ON_ITS_WAY: i64 = 8;

pub(super) fn state(number: i64) -> JobState {
    match number % ON_ITS_WAY {
        SENDING => JobState::Sending,
        HELD => JobState::Held,
        WAITING => JobState::Waiting,
        FAILED => JobState::Failed,
        _ => JobState::Done,
    }
}

/// `recipient.state`; the first two are open.
const RECIPIENT_STATES: [RecipientState; 5] = [
    RecipientState::Waiting,
    RecipientState::InDoubt,
    RecipientState::Failed,
    RecipientState::Done,
    RecipientState::Dropped,
];

pub(super) fn recipient_state(number: i64) -> RecipientState {
    usize::try_from(number)
        .ok()
        .and_then(|at| RECIPIENT_STATES.get(at).copied())
        .unwrap_or(RecipientState::Done)
}

pub(super) fn recipient_state_number(state: RecipientState) -> i64 {
    match state {
        RecipientState::Waiting => 0,
        RecipientState::InDoubt => 1,
        RecipientState::Failed => 2,
        RecipientState::Done => 3,
        RecipientState::Dropped => 4,
    }
}

/// A column in which nothing is an empty text.
pub(super) fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// `job.lane`; empty: it waits for none.
pub(super) fn lane(lane: Option<&LaneId>) -> String {
    lane.map_or_else(String::new, ToString::to_string)
}

/// `now - back`, in microseconds.
pub(super) fn before(now: SystemTime, back: Duration) -> i64 {
    micros(now).saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX))
}

/// [`Origin`] as its column has it.
#[derive(Serialize, Deserialize)]
struct OriginRow<'a> {
    listener: Cow<'a, str>,
    peer: SocketAddr,
    client: Option<Cow<'a, str>>,
    helo: Cow<'a, str>,
    tls: bool,
    esmtp: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    utf8: bool,
    user: Option<Cow<'a, str>>,
    at: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Cow<'a, str>>,
    /// An older program does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copy_of: Option<Cow<'a, str>>,
}

pub(super) fn origin_to_json(origin: &Origin) -> String {
    let row = OriginRow {
        listener: Cow::Borrowed(&origin.listener),
        peer: origin.peer,
        client: origin.client.as_deref().map(Cow::Borrowed),
        helo: Cow::Borrowed(&origin.helo),
        tls: origin.tls,
        esmtp: origin.esmtp,
        utf8: origin.utf8,
        user: origin.user.as_deref().map(Cow::Borrowed),
        at: micros(origin.at),
        rules: origin.rules.iter().map(Cow::from).collect(),
        copy_of: origin.copy_of.map(|id| id.to_string().into()),
    };
    // It has no part that cannot be written as JSON.
    serde_json::to_string(&row).unwrap_or_default()
}

pub(super) fn origin_from_json(text: &str) -> Option<Origin> {
    let row: OriginRow<'_> = serde_json::from_str(text).ok()?;
    Some(Origin {
        listener: row.listener.into_owned(),
        peer: row.peer,
        client: row.client.map(Cow::into_owned),
        helo: row.helo.into_owned(),
        tls: row.tls,
        esmtp: row.esmtp,
        utf8: row.utf8,
        user: row.user.map(Cow::into_owned),
        at: time(row.at),
        rules: row.rules.into_iter().map(Cow::into_owned).collect(),
        copy_of: row.copy_of.and_then(|id| id.parse().ok()),
    })
}

/// That a message was accepted, in the line of its life: from where, and what rules made of it.
pub(super) fn accepted_words(origin: &Origin) -> String {
    let mut words = format!("from {} by listener {}", origin.peer, origin.listener);
    for rule in &origin.rules {
        words.push_str("; ");
        words.push_str(rule);
    }
    words
}

/// The client's name in a column of origins; nothing else of it is read.
pub(super) fn client_of(origin: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct ClientRow<'a> {
        #[serde(borrow)]
        client: Option<Cow<'a, str>>,
    }
    let row: ClientRow<'_> = serde_json::from_str(origin).ok()?;
    row.client.map(Cow::into_owned)
}

/// The same of the message that it is a copy of.
pub(super) fn copy_of(origin: &str) -> Option<MessageId> {
    #[derive(Deserialize)]
    struct CopyRow<'a> {
        #[serde(borrow, default)]
        copy_of: Option<Cow<'a, str>>,
    }
    let row: CopyRow<'_> = serde_json::from_str(origin).ok()?;
    row.copy_of?.parse().ok()
}
