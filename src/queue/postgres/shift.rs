//! The clock by which the queue's times are was set: every time that still matters moves with it.
//!
//! It is done some messages at a time, and how far it came stands beside them, so that a crash moves nothing twice. Of several nodes
//! one does it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    beside::{note, spoken_note},
    crew::Crew,
    fault::DbFault,
    link::{DbLink, Spoken},
    values::{get, id, octets},
};
use crate::{
    mail::{
        message::MessageId,
        time::{from_micros, micros},
    },
    queue::store::{Shift, StoreError},
};

/// Messages that are moved in one transaction.
const MOVED: i64 = 1_000;
/// What was written while the clock was being looked at.
const MEANWHILE: i64 = 10_000_000;
/// The note of the last step of the database's clock: by how much, and when by the new one.
const DATABASE_CLOCK: &str = "database clock";
/// Nodes that see the same step see it so close to each other.
const SAME_STEP: (i64, i64) = (5_000_000, 60_000_000);
/// Between two beats, in microseconds: so long ago the new time may have begun.
const BEATS: i64 = 2_000_000;
/// Nothing waits for longer than that.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// How far it came, as long as it is not done.
const PROGRESS: &str = "shift";

/// What the queue holds moves with its clock. Every node sees the step, and the first of them does it.
pub(super) async fn database_clock_set(
    crew: &Crew,
    node: i64,
    (by, now): (i64, i64),
) -> Result<(), StoreError> {
    let begins = crew.on(false, move |link| {
        let shift = of_database(by, now);
        Box::pin(async move { begin(link, &shift, node, DATABASE_CLOCK).await })
    });
    begins.await?;
    loop {
        let goes_on = crew.on(true, move |link| Box::pin(go_on(link, node)));
        if !goes_on.await? {
            return Ok(());
        }
    }
}

const LOCK: &str =
    "SELECT pg_try_advisory_xact_lock(hashtext('postern shift'), hashtext(current_schema()::text))";
/// Jobs that wait for too long, or came in the future: `$1` and `$2` are the latest times that can be right.
const AHEAD: &str = "SELECT j.message FROM job j JOIN message m ON m.id = j.message
    WHERE j.due > $1::bigint OR m.accepted > $2::bigint LIMIT 1";
const LAST: &str = "SELECT coalesce(max(place), 0) FROM message";
/// A time after the step: `$1` by how much, `$2` to `$3` (and `$4` later) is the new clock's own.
const LANES: &str = "UPDATE lane SET
        since = least(CASE WHEN since BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN since ELSE since + $1::bigint END, $3::bigint),
        probe = least(CASE WHEN probe BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN probe ELSE probe + $1::bigint END, $5::bigint)";
/// Only what is not over has jobs. Where nothing moves, only what lies in the future is looked for.
const NEXT: &str = "SELECT DISTINCT m.place, m.id FROM job j JOIN message m ON m.id = j.message
    WHERE m.place > $1::bigint AND m.place <= $2::bigint
      AND ($3::boolean OR j.due > $4::bigint OR m.accepted > $5::bigint)
    ORDER BY m.place LIMIT $6::bigint";
/// What waits for its turn is due since it was accepted, and stays in its place in the line. After a step forward what is due after the
/// last look at the old clock may have been written by the new one: at worst it is tried a little early.
const JOBS: &str = "UPDATE job j SET due = CASE
        WHEN j.due = m.accepted THEN
            least(CASE WHEN m.accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN m.accepted ELSE m.accepted + $1::bigint END, $3::bigint)
        WHEN $1::bigint > 0 THEN least(CASE WHEN j.due >= $2::bigint THEN j.due ELSE j.due + $1::bigint END, $5::bigint)
        ELSE least(CASE WHEN j.due BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN j.due ELSE j.due + $1::bigint END, $5::bigint) END
    FROM message m WHERE m.id = j.message AND m.id = ANY($6::bytea[])
      AND NOT ($1::bigint < 0 AND m.accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint)";
const EVENTS: &str = "UPDATE event e SET
        at = least(CASE WHEN e.at BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN e.at ELSE e.at + $1::bigint END, $3::bigint)
    FROM message m WHERE m.id = e.message AND m.id = ANY($5::bytea[])
      AND NOT ($1::bigint < 0 AND m.accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint)";
const RECIPIENTS: &str = "UPDATE recipient e SET
        at = least(CASE WHEN e.at BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN e.at ELSE e.at + $1::bigint END, $3::bigint)
    FROM message m WHERE m.id = e.message AND m.id = ANY($5::bytea[]) AND e.at IS NOT NULL
      AND NOT ($1::bigint < 0 AND m.accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint)";
const MESSAGES: &str = "UPDATE message SET
        accepted = least(CASE WHEN accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN accepted ELSE accepted + $1::bigint END, $3::bigint),
        ended = CASE WHEN ended IS NULL THEN NULL
            ELSE least(CASE WHEN ended BETWEEN $2::bigint AND $3::bigint + $4::bigint THEN ended ELSE ended + $1::bigint END, $3::bigint) END
    WHERE id = ANY($5::bytea[]) AND NOT ($1::bigint < 0 AND accepted BETWEEN $2::bigint AND $3::bigint + $4::bigint)";
const NOTED: &str = "SELECT value FROM note WHERE key = $1::text";
const DONE: &str = "DELETE FROM note WHERE key = 'shift'";

#[derive(Debug, Serialize, Deserialize)]
struct ShiftProgress {
    by: i64,
    since: i64,
    now: i64,
    latest: i64,
    /// The place that was moved last, and the last one.
    at: i64,
    last: i64,
}

/// The database's clock was set by so much; this is what it says now.
fn of_database(by: i64, now: i64) -> Shift {
    Shift {
        by,
        since: from_micros(now.saturating_sub(BEATS)),
        now: from_micros(now),
        longest: LONGEST,
        note: format!("{by} {now}"),
    }
}

/// Whether there is anything to do: something to go on with, a step, or something that lies in the future.
pub(super) async fn is_needed(link: &mut DbLink, shift: Option<&Shift>) -> Result<bool, DbFault> {
    let Some(shift) = shift else {
        return Ok(note(link, PROGRESS).await?.is_some());
    };
    if shift.by != 0 {
        return Ok(true);
    }
    let (latest, ahead) = (latest(shift), micros(shift.now).saturating_add(MEANWHILE));
    let found = link.whole(&[(AHEAD, vec![&latest, &ahead])]).await?;
    Ok(found.iter().any(|rows| !rows.is_empty()))
}

fn latest(shift: &Shift) -> i64 {
    let longest = i64::try_from(shift.longest.as_micros()).unwrap_or(i64::MAX);
    micros(shift.now).saturating_add(longest)
}

/// Notes what is to be done, and moves the lanes. Where another node does it already, or has done it, it is that one's.
pub(super) async fn begin(
    link: &mut DbLink,
    shift: &Shift,
    node: i64,
    key: &'static str,
) -> Result<(), DbFault> {
    if !locked(link).await? {
        return Ok(());
    }
    if key == DATABASE_CLOCK {
        let noted = link.one(NOTED, vec![&key]).await?;
        let noted: Option<&str> = noted.first().map(|row| get(row, 0)).transpose()?;
        if noted.is_some_and(|noted| is_same_step(noted, &shift.note)) {
            return link.roll_back().await;
        }
    }
    let last = link.one(LAST, vec![]).await?;
    let progress = ShiftProgress {
        by: shift.by,
        since: micros(shift.since),
        now: micros(shift.now),
        latest: latest(shift),
        at: 0,
        last: last
            .first()
            .map(|row| get(row, 0))
            .transpose()?
            .unwrap_or(0),
    };
    let text = serde_json::to_string(&progress).unwrap_or_default();
    let ShiftProgress {
        by,
        since,
        now,
        latest,
        ..
    } = progress;
    let (clock, own): (&str, &str) = (key, PROGRESS);
    link.commit(&[
        (LANES, vec![&by, &since, &now, &MEANWHILE, &latest]),
        spoken_note(&clock, &shift.note, &node),
        spoken_note(&own, &text, &node),
    ])
    .await
    .map(|_| ())
}

fn is_same_step(one: &str, other: &str) -> bool {
    let numbers = |note: &str| {
        let (by, at) = note.split_once(' ')?;
        Some((by.parse::<i64>().ok()?, at.parse::<i64>().ok()?))
    };
    let (Some((by, at)), Some((other_by, other_at))) = (numbers(one), numbers(other)) else {
        return false;
    };
    let near = |a: i64, b: i64, most: i64| a.saturating_sub(b).saturating_abs() < most;
    near(by, other_by, SAME_STEP.0) && near(at, other_at, SAME_STEP.1)
}

/// Begins a transaction, unless another node is at it.
async fn locked(link: &mut DbLink) -> Result<bool, DbFault> {
    let found = link.begin(&[(LOCK, vec![])]).await?;
    let row = found.iter().flatten().next();
    let is_ours = row.map(|row| get(row, 0)).transpose()?.unwrap_or(false);
    if !is_ours {
        link.roll_back().await?;
    }
    Ok(is_ours)
}

/// Some more of it; whether there may still be more.
pub(super) async fn go_on(link: &mut DbLink, node: i64) -> Result<bool, DbFault> {
    const NOTE: &str = "SELECT value FROM note WHERE key = 'shift' FOR UPDATE";
    if !locked(link).await? {
        return Ok(false);
    }
    let found = link.one(NOTE, vec![]).await?;
    let text: Option<&str> = found.first().map(|row| get(row, 0)).transpose()?;
    let Some(mut progress) = text.and_then(|text| serde_json::from_str::<ShiftProgress>(text).ok())
    else {
        link.roll_back().await?;
        return Ok(false);
    };
    let ShiftProgress {
        by,
        since,
        now,
        latest,
        at,
        last,
    } = progress;
    let (is_all, ahead) = (by != 0, now.saturating_add(MEANWHILE));
    let rows = link
        .one(NEXT, vec![&at, &last, &is_all, &latest, &ahead, &MOVED])
        .await?;
    let ids: Vec<MessageId> = rows
        .iter()
        .map(|row| id(row, 1))
        .collect::<Result<_, _>>()?;
    let keys = octets(&ids);
    let of = |question| -> Spoken<'_> { (question, vec![&by, &since, &now, &MEANWHILE, &keys]) };
    let jobs: Spoken<'_> = (JOBS, vec![&by, &since, &now, &MEANWHILE, &latest, &keys]);
    let last_place = rows.last().map(|row| get(row, 0)).transpose()?;
    let is_more = ids.len() as i64 == MOVED;
    progress.at = last_place.unwrap_or(at);
    let text = serde_json::to_string(&progress).unwrap_or_default();
    let own: &str = PROGRESS;
    let end: Spoken<'_> = if is_more {
        spoken_note(&own, &text, &node)
    } else {
        (DONE, vec![])
    };
    // The message last: the others ask when it was accepted.
    link.commit(&[jobs, of(EVENTS), of(RECIPIENTS), of(MESSAGES), end])
        .await?;
    Ok(is_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_the_step_that_another_has_seen() {
        for (noted, is_same) in [
            ("3600000000 1000000000", true),
            ("3600900000 1002000000", true),
            ("-3600000000 1000000000", false),
            ("3600000000 9000000000", false),
            ("", false),
        ] {
            assert_eq!(
                is_same_step(noted, "3600000000 1000000000"),
                is_same,
                "{noted}"
            );
        }
    }
}
