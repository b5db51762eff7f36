//! What is no longer kept is deleted, in batches of a transaction each: the content first, the history long after it. One node does it
//! at a time.

use super::{
    event::LifeLines,
    fault::DbFault,
    link::{DbLink, Spoken},
    values::{get, id, octets},
};
use crate::{mail::message::MessageId, queue::event::EventKind};

/// Messages of one transaction.
const STEP: i64 = 500;

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtext('postern retention'), hashtext(current_schema()::text))";
/// By a clock that was ahead: its time begins now.
const AHEAD: &str = "UPDATE message SET ended = $1::bigint WHERE ended IS NOT NULL AND ended > $1";
const FAILED: &str = "SELECT m.id, m.sender,
        (SELECT coalesce(string_agg(x.address, ', '), '') FROM
            (SELECT address FROM recipient r WHERE r.message = m.id AND r.state = 2 ORDER BY position LIMIT 5) x)
    FROM message m WHERE m.ended IS NOT NULL AND m.ended <= $1::bigint
      AND EXISTS (SELECT 1 FROM content c WHERE c.message = m.id)
    ORDER BY m.id LIMIT $2::bigint FOR NO KEY UPDATE OF m";
const LEAVE: &str =
    "UPDATE recipient r SET route = j.route, attempts = j.attempts, claim = j.claim FROM job j
    WHERE j.message = ANY($1::bytea[]) AND r.message = j.message AND r.job = j.nr";
const JOBS: &str = "DELETE FROM job WHERE message = ANY($1::bytea[])";
const CONTENT: &str = "DELETE FROM content WHERE message = ANY($1::bytea[])";
const CHUNKS: &str = "DELETE FROM chunk WHERE message = ANY($1::bytea[])";
const OVER: &str = "SELECT m.id FROM message m WHERE m.ended IS NOT NULL AND m.ended <= $1::bigint
      AND NOT EXISTS (SELECT 1 FROM content c WHERE c.message = m.id)
    ORDER BY m.ended LIMIT $2::bigint FOR UPDATE OF m SKIP LOCKED";
const EVENTS: &str = "DELETE FROM event WHERE message = ANY($1::bytea[])";
const RECIPIENTS: &str = "DELETE FROM recipient WHERE message = ANY($1::bytea[])";
const MESSAGES: &str = "DELETE FROM message WHERE id = ANY($1::bytea[])";

/// Begins a batch, unless another node is at it.
async fn begin(link: &mut DbLink) -> Result<bool, DbFault> {
    let found = link.begin(&[(LOCK, vec![])]).await?;
    let row = found.iter().flatten().next();
    let is_ours = row.map(|row| get(row, 0)).transpose()?.unwrap_or(false);
    if !is_ours {
        link.roll_back().await?;
    }
    Ok(is_ours)
}

/// Deletes what failed and was kept long enough, some of it: a line for each message, and whether there may be more.
pub(super) async fn prune_failed(
    link: &mut DbLink,
    before: i64,
    (now, node): (i64, i64),
) -> Result<(Vec<String>, bool), DbFault> {
    if !begin(link).await? {
        return Ok((Vec::new(), false));
    }
    let found = link
        .go_on(&[(AHEAD, vec![&now]), (FAILED, vec![&before, &STEP])])
        .await?;
    let (mut lines, mut ids, mut events) = (Vec::new(), Vec::new(), LifeLines::of(node));
    for row in found.iter().skip(1).flatten() {
        let (message, sender): (_, Option<String>) = (id(row, 0)?, get(row, 1)?);
        let to: &str = get(row, 2)?;
        let sender = sender.unwrap_or_default();
        lines.push(format!(
            "{message} from <{sender}> to {to}: failed, kept long enough, deleted"
        ));
        events.add(
            message,
            now,
            EventKind::Deleted,
            &[],
            "kept long enough in failed",
        );
        ids.push(message);
    }
    let keys = octets(&ids);
    let spoken: [Spoken<'_>; 5] = [
        (LEAVE, vec![&keys]),
        (JOBS, vec![&keys]),
        (CONTENT, vec![&keys]),
        (CHUNKS, vec![&keys]),
        events.spoken(),
    ];
    link.commit(if ids.is_empty() { &[] } else { &spoken })
        .await?;
    Ok((lines, ids.len() as i64 == STEP))
}

/// Forgets messages that ended long enough ago and whose content is gone, some of them; whether there may be more.
pub(super) async fn forget(link: &mut DbLink, before: i64) -> Result<bool, DbFault> {
    if !begin(link).await? {
        return Ok(false);
    }
    let rows = link.one(OVER, vec![&before, &STEP]).await?;
    let ids: Vec<MessageId> = rows
        .iter()
        .map(|row| id(row, 0))
        .collect::<Result<_, _>>()?;
    let keys = octets(&ids);
    let of = |question| -> Spoken<'_> { (question, vec![&keys]) };
    link.commit(&[of(EVENTS), of(RECIPIENTS), of(MESSAGES)])
        .await?;
    Ok(ids.len() as i64 == STEP)
}
