//! Rows beside the mail: the states of the lanes and who holds them, and notes by name.

use tokio_postgres::Row;

use super::{
    fault::DbFault,
    insert::of,
    link::{DbLink, Spoken},
    values::{clean, get},
};
use crate::{
    mail::{outcome::LaneState, time::from_micros},
    queue::store::{LaneRow, NodeId, Used},
    route::LaneId,
};

const LANES: &str = "SELECT lane, state, since, why, probe, version, node FROM lane
    WHERE state IS NOT NULL ORDER BY lane, node";
/// Written only over what was seen.
const SET: &str = "INSERT INTO lane (lane, node, state, since, why, probe, version, used)
    SELECT $1::text, $7::bigint, $2::text, $3::bigint, $4::text, $5::bigint, 1, '{}' WHERE $6::bigint = 0
        OR EXISTS (SELECT 1 FROM lane WHERE lane = $1 AND node = $7)
    ON CONFLICT (lane, node) DO UPDATE SET state = excluded.state, since = excluded.since, why = excluded.why,
        probe = excluded.probe, version = lane.version + 1
    WHERE lane.version = $6 RETURNING version";
/// Of connectors there are few, of mailboxes as many as senders: one that is open again is like one never seen.
const FORGET: &str =
    "UPDATE lane SET state = NULL, since = NULL, why = NULL, probe = NULL, version = 0
    WHERE lane = $1::text AND node = $3::bigint AND version = $2::bigint RETURNING version";
/// It is as if it were never seen: nothing was used. (Where nobody can say what was, that must not be forgotten.)
const SWEEP: &str = "DELETE FROM lane WHERE lane = $1::text AND state IS NULL AND holder IS NULL AND used = '{}'::jsonb";
const THERE_IS_NONE: &str =
    "SELECT 1 FROM lane WHERE lane = $1::text AND node = $2::bigint AND version <> 0";
const RAISE: &str = "UPDATE change SET counter = counter + 1";
const NOTE: &str = "SELECT value FROM note WHERE key = $1::text";
const NOTES: &str =
    "SELECT key, value FROM note WHERE starts_with(key, $1::text) ORDER BY key LIMIT 1000";
const SET_NOTE: &str = "INSERT INTO note (key, value, node) VALUES ($1::text, $2::text, $3::bigint)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, node = excluded.node";
/// Nothing is inserted for one that was seen and is gone.
const REPLACE_NOTE: &str = "INSERT INTO note (key, value, node)
    SELECT $1::text, $2::text, $3::bigint
    WHERE $4::text IS NULL OR EXISTS (SELECT 1 FROM note WHERE key = $1::text)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, node = excluded.node
    WHERE note.value = $4::text OR note.value = excluded.value RETURNING 1";
/// The value is until when.
const TAKE_NOTE: &str = "INSERT INTO note (key, value, node) VALUES ($1::text, $2::bigint::text, $3::bigint)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, node = excluded.node
    WHERE note.value::bigint < $4::bigint OR (note.node = excluded.node AND excluded.node <> 0) RETURNING 1";
const GIVE_NOTE_BACK: &str = "DELETE FROM note WHERE key = $1::text AND node = $2::bigint";
/// Whoever dies takes what he knew of it with him.
const HOLD: &str =
    "INSERT INTO lane (lane, node, holder, used) VALUES ($1::text, 0, $2::bigint, '{}')
    ON CONFLICT (lane, node) DO UPDATE SET holder = excluded.holder
    WHERE lane.holder IS NULL OR lane.holder = excluded.holder
    RETURNING used::text";
const LET_GO: &str = "UPDATE lane SET holder = NULL, used = $3::text::jsonb,
        since = CASE WHEN state IS NULL THEN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint ELSE since END
    WHERE lane = $1::text AND node = 0 AND holder = $2::bigint";

/// Every lane that was ever not open, but for mailboxes that are open again.
pub(super) async fn lanes(link: &mut DbLink) -> Result<Vec<LaneRow>, DbFault> {
    let found = link.whole(&[(LANES, vec![])]).await?;
    found.iter().flatten().map(lane).collect()
}

fn lane(row: &Row) -> Result<LaneRow, DbFault> {
    Ok(LaneRow {
        lane: LaneId::parse(get(row, 0)?),
        state: LaneState::parse(get(row, 1)?),
        since: from_micros(get::<Option<i64>>(row, 2)?.unwrap_or_default()),
        why: get::<Option<String>>(row, 3)?.unwrap_or_default(),
        probe: get::<Option<i64>>(row, 4)?.map(from_micros),
        version: get::<i64>(row, 5)?.unsigned_abs(),
        node: NodeId(get::<i64>(row, 6)?.unsigned_abs()),
    })
}

/// A row as it is to be written, by the database's clock.
pub(super) struct LaneToSet {
    pub(super) row: LaneRow,
    pub(super) since: i64,
    pub(super) probe: Option<i64>,
}

/// Whether it is written: nobody has written it since the version that it names.
pub(super) async fn set_lane(link: &mut DbLink, lane: &LaneToSet) -> Result<bool, DbFault> {
    let row = &lane.row;
    let (name, why) = (
        clean(&row.lane.to_string()).into_owned(),
        clean(&row.why).into_owned(),
    );
    let seen = i64::try_from(row.version).unwrap_or(i64::MAX);
    let (state, node) = (row.state.as_str(), of(row.node));
    let is_forgotten_when_open = row.lane.mailbox.is_some() || row.node != NodeId::default();
    link.begin(&[]).await?;
    let is_set = if row.state == LaneState::Open && is_forgotten_when_open {
        let found = link
            .go_on(&[
                (THERE_IS_NONE, vec![&name, &node]),
                (FORGET, vec![&name, &seen, &node]),
                (SWEEP, vec![&name]),
            ])
            .await?;
        // One that was never seen is open already.
        let is_there = found.first().is_some_and(|rows| !rows.is_empty());
        let is_forgotten = found.get(1).is_some_and(|rows| !rows.is_empty());
        is_forgotten || (seen == 0 && !is_there)
    } else {
        let values: Spoken<'_> = (
            SET,
            vec![&name, &state, &lane.since, &why, &lane.probe, &seen, &node],
        );
        let found = link.go_on(&[values]).await?;
        found.iter().any(|rows| !rows.is_empty())
    };
    let raise: Spoken<'_> = (RAISE, vec![]);
    let last = if is_set { vec![raise] } else { Vec::new() };
    link.commit(&last).await?;
    Ok(is_set)
}

pub(super) async fn note(link: &mut DbLink, key: &str) -> Result<Option<String>, DbFault> {
    let found = link.whole(&[(NOTE, vec![&key])]).await?;
    let row = found.iter().flatten().next();
    row.map(|row| get(row, 0)).transpose()
}

/// What is said to write one.
pub(super) fn spoken_note<'a>(key: &'a &'a str, value: &'a String, node: &'a i64) -> Spoken<'a> {
    (SET_NOTE, vec![key, value, node])
}

pub(super) async fn set_note(
    link: &mut DbLink,
    (key, value): (&str, &str),
    node: i64,
) -> Result<(), DbFault> {
    let value = clean(value).into_owned();
    link.whole(&[spoken_note(&key, &value, &node)])
        .await
        .map(|_| ())
}

/// Whether it is written: what was seen of it is still there.
pub(super) async fn replace_note(
    link: &mut DbLink,
    key: &str,
    (seen, value): (Option<&str>, &str),
    node: i64,
) -> Result<bool, DbFault> {
    let (seen, value) = (seen.map(clean), clean(value).into_owned());
    let found = link
        .whole(&[(REPLACE_NOTE, vec![&key, &value, &node, &seen])])
        .await?;
    Ok(found.iter().any(|rows| !rows.is_empty()))
}

/// Those whose keys begin so.
pub(super) async fn notes(
    link: &mut DbLink,
    beginning: &str,
) -> Result<Vec<(String, String)>, DbFault> {
    let found = link.whole(&[(NOTES, vec![&beginning])]).await?;
    let rows = found.iter().flatten();
    rows.map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

/// Whether a note is this node's for a while. A command is nobody, and has it from nobody.
pub(super) async fn take_note(
    link: &mut DbLink,
    key: &str,
    (now, until): (i64, i64),
    node: i64,
) -> Result<bool, DbFault> {
    let key = lease(key);
    let found = link
        .whole(&[(TAKE_NOTE, vec![&key, &until, &node, &now])])
        .await?;
    Ok(found.iter().any(|rows| !rows.is_empty()))
}

pub(super) async fn give_note_back(link: &mut DbLink, key: &str, node: i64) -> Result<(), DbFault> {
    let key = lease(key);
    link.whole(&[(GIVE_NOTE_BACK, vec![&key, &node])])
        .await
        .map(|_| ())
}

fn lease(key: &str) -> String {
    format!("lease of {}", clean(key))
}

/// What was used of a lane of late, if it is this node's now.
pub(super) async fn hold(
    link: &mut DbLink,
    lane: &str,
    node: i64,
) -> Result<Option<Used>, DbFault> {
    let found = link.whole(&[(HOLD, vec![&lane, &node])]).await?;
    let row = found.iter().flatten().next();
    row.map(|row| {
        Ok(Used {
            windows: get(row, 0)?,
        })
    })
    .transpose()
}

pub(super) async fn let_go(
    link: &mut DbLink,
    lane: &str,
    node: i64,
    used: &Used,
) -> Result<(), DbFault> {
    let windows = &used.windows;
    let spoken: [Spoken<'_>; 2] = [(LET_GO, vec![&lane, &node, windows]), (SWEEP, vec![&lane])];
    link.whole(&spoken).await.map(|_| ())
}
