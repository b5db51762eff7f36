//! What an operator's verb does to jobs: some at a time, all within one transaction of the caller's.
//!
//! Messages are locked before their jobs, both in the order of ids, as a settlement does it: so nobody waits in a circle, and of two
//! who end the last jobs of a message one sees what the other did.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::{
    event::LifeLines,
    fault::DbFault,
    link::{DbLink, Spoken},
    values::{get, id, octets},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::{FAILED, HELD, SENDING, WAITING},
        event::EventKind,
        operator::Verb,
    },
};

/// Locks messages.
pub(super) const LOCK: &str =
    "SELECT id FROM message WHERE id = ANY($1::bytea[]) ORDER BY id FOR NO KEY UPDATE";
/// Picks jobs by their numbers.
const PICK: &str = "SELECT j.message, j.nr, j.route, j.state, j.wishes,
           EXISTS (SELECT 1 FROM content c WHERE c.message = j.message), j.lane LIKE 'quota %'
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) JOIN job j ON j.message = a.message AND j.nr = a.nr
    ORDER BY j.message, j.nr FOR UPDATE OF j";
/// Picks the jobs of entries.
pub(super) const PICK_ENTRIES: &str = "SELECT j.message, j.nr, j.route, j.state, j.wishes,
           EXISTS (SELECT 1 FROM content c WHERE c.message = j.message), j.lane LIKE 'quota %'
    FROM unnest($1::bytea[], $2::text[]) AS a (message, route) JOIN job j ON j.message = a.message AND j.route = a.route
    ORDER BY j.message, j.nr FOR UPDATE OF j";
/// In flight: the wish waits for the settlement. Said twice it is kept once.
const WISH: &str = "UPDATE job j SET wishes = CASE
        WHEN j.wishes IS NULL OR length(j.wishes) > 4000 THEN $3::text
        WHEN j.wishes = $3 OR right(j.wishes, length($3) + 1) = chr(10) || $3 THEN j.wishes
        ELSE j.wishes || chr(10) || $3 END
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
const JOBS: &str = "UPDATE job j SET state = $3::smallint, due = coalesce($4::bigint, j.due)
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
/// The same; a quota does not hold them any more.
const LET_GO: &str = "UPDATE job j SET state = $3::smallint,
        lane = CASE WHEN j.lane LIKE 'quota %' THEN '' ELSE j.lane END
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
const RECIPIENTS: &str = "UPDATE recipient r SET state = $3::smallint
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr)
    WHERE r.message = a.message AND r.job = a.nr AND r.state BETWEEN $4::smallint AND $5::smallint";
/// What a list says of a job that is gone stays with its recipients.
const LEAVE: &str = "UPDATE recipient r SET route = j.route, attempts = j.attempts, claim = j.claim
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) JOIN job j ON j.message = a.message AND j.nr = a.nr
    WHERE r.message = a.message AND r.job = a.nr";
const DELETE: &str = "DELETE FROM job j USING unnest($1::bytea[], $2::int[]) AS a (message, nr)
    WHERE j.message = a.message AND j.nr = a.nr";
const BEGIN_AGAIN: &str =
    "UPDATE message SET ended = NULL WHERE id = ANY($1::bytea[]) AND ended IS NOT NULL";
/// A pin names a connector that the old route had; the operator has taken that decision.
const REROUTE: &str = "UPDATE job j SET route = $3::text, pinned = '',
        lane = CASE WHEN j.lane LIKE 'quota %' THEN j.lane ELSE '' END
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
/// Messages whose jobs have all ended;
const END: &str =
    "UPDATE message m SET ended = $2::bigint WHERE m.id = ANY($1::bytea[]) AND m.ended IS NULL
    AND NOT EXISTS (SELECT 1 FROM job j WHERE j.message = m.id AND j.state < 3)";
/// without a failed recipient their content goes at once.
const DISCARD: &str = "WITH gone AS (
        DELETE FROM content c WHERE c.message = ANY($1::bytea[])
        AND NOT EXISTS (SELECT 1 FROM job j WHERE j.message = c.message) RETURNING c.message, c.kept)
    DELETE FROM chunk k USING gone g WHERE k.message = g.message AND g.kept = 2";

/// A job as a verb sees it.
#[derive(Debug, Clone)]
pub(super) struct PickedJob {
    pub(super) message: MessageId,
    pub(super) nr: i32,
    route: String,
    state: i64,
    pub(super) wishes: Option<String>,
    has_content: bool,
    /// It lies where a quota holds it.
    is_of_quota: bool,
}

impl PickedJob {
    pub(super) fn read(row: &Row) -> Result<Self, DbFault> {
        Ok(Self {
            message: id(row, 0)?,
            nr: get(row, 1)?,
            route: get(row, 2)?,
            state: get::<i16>(row, 3)?.into(),
            wishes: get(row, 4)?,
            has_content: get(row, 5)?,
            is_of_quota: get(row, 6)?,
        })
    }

    /// Whether the verb means something to it.
    fn is_taken(&self, verb: &Verb) -> bool {
        match verb {
            Verb::Retry => match self.state {
                SENDING | WAITING => true,
                FAILED => self.has_content,
                _ => false,
            },
            Verb::Hold => [SENDING, WAITING].contains(&self.state),
            // In flight there is something to release only after a wish to hold.
            Verb::Release => self.state == HELD || (self.state == SENDING && self.wishes.is_some()),
            Verb::Expire => self.state == HELD && self.is_of_quota,
            Verb::Fail => self.state != FAILED,
            Verb::Drop | Verb::Reroute(_) => true,
        }
    }
}

/// How many entries a verb takes of these.
pub(super) fn count(jobs: &[PickedJob], verb: &Verb) -> u64 {
    let taken = jobs.iter().filter(|job| job.is_taken(verb));
    let entries: BTreeSet<_> = taken.map(|job| (job.message, &job.route)).collect();
    entries.len() as u64
}

/// Jobs as two arrays.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) nrs: Vec<i32>,
}

impl Numbers {
    pub(super) fn of(jobs: impl IntoIterator<Item = (MessageId, i32)>) -> Self {
        let mut numbers = Self::default();
        for (message, nr) in jobs {
            numbers.messages.push(message.to_bytes().to_vec());
            numbers.nrs.push(nr);
        }
        numbers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nrs.is_empty()
    }
}

/// Locks the messages of jobs, then the jobs themselves, and reads these.
pub(super) async fn pick(
    link: &mut DbLink,
    jobs: &[(MessageId, i32)],
) -> Result<Vec<PickedJob>, DbFault> {
    let numbers = Numbers::of(jobs.iter().copied());
    let spoken: [Spoken<'_>; 2] = [
        (LOCK, vec![&numbers.messages]),
        (PICK, vec![&numbers.messages, &numbers.nrs]),
    ];
    let found = link.go_on(&spoken).await?;
    found
        .iter()
        .skip(1)
        .flatten()
        .map(PickedJob::read)
        .collect()
}

/// Carries out a verb on some jobs. Messages that may be over by it are for the caller to [`close`]: he is told which.
pub(super) async fn apply(
    link: &mut DbLink,
    jobs: &[PickedJob],
    verb: &Verb,
    (now, node): (i64, i64),
) -> Result<BTreeSet<MessageId>, DbFault> {
    let taken: Vec<&PickedJob> = jobs.iter().filter(|job| job.is_taken(verb)).collect();
    if taken.is_empty() {
        return Ok(BTreeSet::new());
    }
    let lines = lines(&taken, verb, (now, node));
    link.go_on(&[lines.spoken()]).await?;
    let in_flight = |is: bool| {
        let those = taken.iter().filter(move |job| (job.state == SENDING) == is);
        Numbers::of(those.map(|job| (job.message, job.nr)))
    };
    let flying = in_flight(true);
    if !flying.is_empty() {
        let wish = verb.to_string();
        link.one(WISH, vec![&flying.messages, &flying.nrs, &wish])
            .await?;
    }
    let resting = in_flight(false);
    if resting.is_empty() {
        return Ok(BTreeSet::new());
    }
    act(link, &resting, verb, now).await?;
    let ends = matches!(verb, Verb::Fail | Verb::Drop);
    let those = taken.iter().filter(|job| ends && job.state != SENDING);
    Ok(those.map(|job| job.message).collect())
}

async fn act(link: &mut DbLink, jobs: &Numbers, verb: &Verb, now: i64) -> Result<(), DbFault> {
    let (messages, nrs) = (&jobs.messages, &jobs.nrs);
    let (is_now, as_it_was) = (Some(now), None::<i64>);
    let [zero, one, two, three, four] = [0_i16, 1, 2, 3, 4];
    let spoken: Vec<Spoken<'_>> = match verb {
        Verb::Retry => vec![
            (RECIPIENTS, vec![messages, nrs, &zero, &two, &two]),
            (JOBS, vec![messages, nrs, &two, &is_now]),
            (BEGIN_AGAIN, vec![messages]),
        ],
        Verb::Hold => vec![(JOBS, vec![messages, nrs, &one, &as_it_was])],
        Verb::Release => vec![(LET_GO, vec![messages, nrs, &two])],
        Verb::Expire => vec![(JOBS, vec![messages, nrs, &two, &is_now])],
        Verb::Fail => vec![
            (RECIPIENTS, vec![messages, nrs, &two, &zero, &one]),
            (LET_GO, vec![messages, nrs, &three]),
        ],
        Verb::Drop => vec![
            (RECIPIENTS, vec![messages, nrs, &four, &zero, &two]),
            (LEAVE, vec![messages, nrs]),
            (DELETE, vec![messages, nrs]),
        ],
        Verb::Reroute(route) => {
            let route = route.as_str();
            link.one(REROUTE, vec![messages, nrs, &route]).await?;
            return Ok(());
        }
    };
    link.go_on(&spoken).await.map(|_| ())
}

/// One line for each entry that it takes.
fn lines(taken: &[&PickedJob], verb: &Verb, (now, node): (i64, i64)) -> LifeLines {
    let (kind, text) = match verb {
        Verb::Retry => (EventKind::Retried, "by the operator, route "),
        Verb::Hold => (EventKind::Held, "by the operator, route "),
        Verb::Release => (EventKind::Released, "by the operator, route "),
        Verb::Expire => (EventKind::Held, "for too long, route "),
        Verb::Fail => (EventKind::Failed, "given up by the operator, route "),
        Verb::Drop => (EventKind::Dropped, "by the operator, route "),
        Verb::Reroute(_) => (EventKind::Rerouted, "by the operator, from route "),
    };
    let to = match verb {
        Verb::Reroute(route) => format!(" to {route}"),
        _ => String::new(),
    };
    let mut entries: BTreeMap<(MessageId, &str), bool> = BTreeMap::new();
    for job in taken {
        let entry = entries.entry((job.message, &job.route));
        *entry.or_default() |= job.state == SENDING;
    }
    let mut lines = LifeLines::of(node);
    for ((message, route), is_later) in entries {
        let later = if is_later { ", when it settles" } else { "" };
        lines.add(
            message,
            now,
            kind,
            &[],
            &format!("{text}{route}{to}{later}"),
        );
    }
    lines
}

/// The wishes of jobs that are in flight no longer, in their order; messages that may be over by them.
pub(super) async fn obey(
    link: &mut DbLink,
    jobs: &[(MessageId, i32)],
    wishes: &str,
    at: (i64, i64),
) -> Result<BTreeSet<MessageId>, DbFault> {
    let mut over = BTreeSet::new();
    for verb in wishes.lines().filter_map(|wish| wish.parse::<Verb>().ok()) {
        let picked = pick(link, jobs).await?;
        over.append(&mut apply(link, &picked, &verb, at).await?);
    }
    Ok(over)
}

/// Ends messages whose jobs have all ended.
pub(super) fn close<'a>(messages: &'a Vec<Vec<u8>>, now: &'a i64) -> [Spoken<'a>; 2] {
    [(END, vec![messages, now]), (DISCARD, vec![messages])]
}

/// The same, at once.
pub(super) async fn close_all(
    link: &mut DbLink,
    messages: &BTreeSet<MessageId>,
    now: i64,
) -> Result<(), DbFault> {
    if messages.is_empty() {
        return Ok(());
    }
    let messages = octets(messages);
    link.go_on(&close(&messages, &now)).await.map(|_| ())
}
