//! Who is at work: a start of a gateway is a node, and beats; what one held that ended is due again, what one held that fell silent
//! may have arrived.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::{
    claim::{free, obey_all, of_node},
    clock::since_boot,
    durable::DurabilityFacts,
    event::LifeLines,
    fault::DbFault,
    insert::of,
    link::{DbLink, Spoken},
    values::{broken, clean, get, int},
    verbs::{Numbers, PickedJob},
};
use crate::queue::{
    event::Event,
    settling,
    store::{NodeId, NodeRow, Standing, StoreError},
};

/// Members, with the one that starts.
const MOST: usize = 8;
const DAY: i64 = 86_400_000_000;
/// For so long others hear of one that went without a word.
const REMEMBERED: i64 = 7 * 86_400_000_000;

const LOCK: &str =
    "SELECT pg_advisory_xact_lock(hashtext('postern node'), hashtext(current_schema()::text))";
const NODES: &str = "SELECT id, name, token, version, config_hash, seen, dead_after, knew, draining, apart, gone IS NOT NULL,
        (SELECT count(*) FROM lane WHERE holder = node.id)
    FROM node WHERE gone IS NULL OR id = $1::bigint OR (NOT draining AND gone > $2::bigint) ORDER BY id";
const BEGIN: &str = "INSERT INTO node (name, token, version, config_hash, started, seen, dead_after, knew, draining, apart)
    VALUES ($1::text, $2::text, $3::text, $4::text, $5::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $6::bigint, $7::int, $8::boolean, $9::boolean)
    RETURNING id";
/// All in one, once a second: its beat, the others as they were before it, what was changed, the time, and how commits are kept. A beat that
/// comes long after the one before may have lain on the way, and its gateway may be sending by itself since: it is apart, whatever it says. A
/// number may be somebody else's, where the database has gone back; and where there is no node at all the rest is said all the same.
const BEAT: &str = "WITH now AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now), beat AS (
      UPDATE node SET seen = greatest(seen + 1, now.now), knew = $2::int, draining = $3::boolean OR $5::boolean,
        apart = $4::boolean OR (NOT $5 AND now.now - seen >= dead_after / 3),
        config_hash = CASE WHEN $6::text = '' THEN config_hash ELSE $6 END,
        dead_after = CASE WHEN $7::bigint = 0 THEN dead_after ELSE $7 END,
        gone = CASE WHEN $5 THEN $8::bigint END
      FROM now WHERE id = $1::bigint AND token = $10::text AND gone IS NULL)
    SELECT node.id, name, token, version, config_hash, seen, dead_after, knew, draining, apart, gone IS NOT NULL,
           (SELECT count(*) FROM lane WHERE holder = node.id), counter, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
           current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
           current_setting('server_version'), current_setting('server_encoding')
    FROM change LEFT JOIN node ON gone IS NULL OR node.id = $1 OR (NOT draining AND gone > $9::bigint) ORDER BY node.id";
const GONE: &str = "UPDATE node SET gone = $2::bigint WHERE id = $1::bigint AND gone IS NULL";
/// It has not been heard of since.
const SILENT: &str = "SELECT id FROM node WHERE id = $1::bigint AND (seen = $2::bigint OR gone IS NOT NULL) FOR UPDATE";
/// What it used of their limits nobody can say.
const LANES: &str = "UPDATE lane SET holder = NULL, used = NULL WHERE holder = $1::bigint";
/// What it said of its own way to an upstream.
const WAYS: &str = "DELETE FROM lane WHERE node = $1::bigint";
/// Nodes that are gone, and of which a late insert or claim came through; and numbers that are no node's, since somebody has deleted it.
const LATE: &str =
    "SELECT j.node, n.name FROM (SELECT DISTINCT node FROM job WHERE state = 0 AND node IS NOT NULL) j
    LEFT JOIN node n ON n.id = j.node WHERE n.id IS NULL OR n.gone IS NOT NULL ORDER BY j.node LIMIT 8";
const DOUBT: &str =
    "UPDATE recipient r SET state = 1 FROM unnest($1::bytea[], $2::int[]) AS a (message, nr)
    WHERE r.message = a.message AND r.job = a.nr AND r.state = 0";
/// The node stays: so a late settlement finds what became of its claim.
const PIN: &str = "UPDATE job j SET state = 2, pinned = coalesce(nullif(j.pinned, ''), j.connector, ''),
        lane = CASE WHEN j.lane LIKE 'quota %' THEN j.lane ELSE '' END,
        due = $3::bigint, wishes = NULL
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
/// Of lanes given back so long ago that no window reaches there.
const UNUSED: &str = "DELETE FROM lane WHERE node = 0 AND state IS NULL AND holder IS NULL AND used IS NOT NULL AND since < $1::bigint";
const OF_DIRECTORY: &str = "SELECT max(id) FROM node WHERE token = $1::text AND gone IS NULL";
const LEFT: &str = "UPDATE node SET gone = coalesce(gone, $2::bigint), draining = true, apart = false WHERE id = $1::bigint";
const FORGET: &str = "DELETE FROM node n WHERE n.gone < $1::bigint
    AND NOT EXISTS (SELECT 1 FROM job j WHERE j.state = 0 AND j.node = n.id)";

/// What a beat brings.
pub(super) struct BeatHeard {
    pub(super) node: NodeId,
    pub(super) nodes: Vec<NodeRow>,
    pub(super) changes: u64,
    /// The database's time, and when it was asked and answered.
    pub(super) clock: (i64, (i64, i64)),
    pub(super) facts: DurabilityFacts,
}

fn row(row: &Row) -> Result<NodeRow, DbFault> {
    Ok(NodeRow {
        id: NodeId(get::<i64>(row, 0)?.unsigned_abs()),
        name: get(row, 1)?,
        token: get(row, 2)?,
        version: get(row, 3)?,
        config_hash: get(row, 4)?,
        seen: get(row, 5)?,
        dead_after: Duration::from_micros(get::<i64>(row, 6)?.unsigned_abs()),
        knew: get::<i32>(row, 7)?.unsigned_abs(),
        is_draining: get(row, 8)?,
        is_apart: get(row, 9)?,
        is_gone: get(row, 10)?,
        lanes: get::<i64>(row, 11)?.unsigned_abs(),
    })
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// The starts that count, or did so of late.
pub(super) async fn nodes(link: &mut DbLink, now: i64) -> Result<Vec<NodeRow>, DbFault> {
    let (none, since) = (0_i64, now.saturating_sub(REMEMBERED));
    let found = link.whole(&[(NODES, vec![&none, &since])]).await?;
    found.iter().flatten().map(row).collect()
}

/// The last start on this directory that is not over; 0: there is none.
pub(super) async fn of_directory(link: &mut DbLink, token: &str) -> Result<NodeId, DbFault> {
    let found = link.whole(&[(OF_DIRECTORY, vec![&token])]).await?;
    let row = found.iter().flatten().next();
    let id = row.map(|row| get::<Option<i64>>(row, 0)).transpose()?;
    Ok(NodeId(id.flatten().unwrap_or(0).unsigned_abs()))
}

/// One that is over counts as one that has left.
pub(super) async fn forget(link: &mut DbLink, node: i64, now: i64) -> Result<(), DbFault> {
    link.whole(&[(LEFT, vec![&node, &now])]).await.map(|_| ())
}

/// A start becomes a node. One with its name and directory is its predecessor, which has certainly ended: what that held is due again.
pub(super) async fn begin(
    link: &mut DbLink,
    standing: &Standing,
    token: &str,
    now: i64,
) -> Result<NodeId, DbFault> {
    let (none, since) = (0_i64, i64::MAX);
    let found = link
        .begin(&[(LOCK, vec![]), (NODES, vec![&none, &since])])
        .await?;
    let nodes: Vec<NodeRow> = found
        .iter()
        .skip(1)
        .flatten()
        .map(row)
        .collect::<Result<_, _>>()?;
    let (own, others): (Vec<_>, Vec<_>) = nodes
        .iter()
        .partition(|node| node.name == standing.name && node.token == token);
    let mut names: Vec<&str> = others.iter().map(|node| node.name.as_str()).collect();
    names.dedup();
    if names.len() >= MOST {
        return Err(DbFault::Store(StoreError::Crowded));
    }
    for before in own {
        let id = of(before.id);
        loop {
            let jobs = of_node(link, id).await?;
            if jobs.is_empty() {
                break;
            }
            let event = settling::interrupted(SystemTime::UNIX_EPOCH);
            tell(link, &jobs, &event, (now, id)).await?;
            free(link, &jobs, (now, id)).await?;
        }
        link.go_on(&[
            (LANES, vec![&id]),
            (WAYS, vec![&id]),
            (GONE, vec![&id, &now]),
        ])
        .await?;
    }
    let (knew, dead_after) = (int(standing.knew), micros(standing.dead_after));
    let (name, version) = (clean(&standing.name), clean(&standing.version));
    let config_hash = clean(&standing.config_hash);
    let spoken: Spoken<'_> = (
        BEGIN,
        vec![
            &name,
            &token,
            &version,
            &config_hash,
            &now,
            &dead_after,
            &knew,
            &standing.is_draining,
            &standing.is_apart,
        ],
    );
    let found = link.go_on(&[spoken]).await?;
    let id = found
        .iter()
        .flatten()
        .next()
        .map(|row| get::<i64>(row, 0))
        .transpose()?;
    link.commit(&[]).await?;
    let id = id.ok_or_else(|| broken("the node was not written"))?;
    Ok(NodeId(id.unsigned_abs()))
}

/// A node is at work, and hears of the others. It is not among them where its number is that of another directory.
pub(super) async fn beat(
    link: &mut DbLink,
    (node, token): (NodeId, &str),
    standing: &Standing,
    now: i64,
) -> Result<BeatHeard, DbFault> {
    let (id, knew, dead_after) = (of(node), int(standing.knew), micros(standing.dead_after));
    let since = now.saturating_sub(REMEMBERED);
    let hash = clean(&standing.config_hash);
    let spoken: Spoken<'_> = (
        BEAT,
        vec![
            &id,
            &knew,
            &standing.is_draining,
            &standing.is_apart,
            &standing.is_leaving,
            &hash,
            &dead_after,
            &now,
            &since,
            &token,
        ],
    );
    let asked = since_boot();
    let found = link.whole(&[spoken]).await?;
    let answered = since_boot();
    let first = found.iter().flatten().next();
    let first = first.ok_or_else(|| broken("it lacks the row of its changes"))?;
    let mut nodes = Vec::new();
    for found in found.iter().flatten() {
        if get::<Option<i64>>(found, 0)?.is_some() {
            nodes.push(row(found)?);
        }
    }
    nodes.retain(|one| one.id != node || one.token == token);
    Ok(BeatHeard {
        node,
        changes: get::<i64>(first, 12)?.unsigned_abs(),
        clock: (get(first, 13)?, (asked, answered)),
        facts: DurabilityFacts::of([
            get(first, 14)?,
            get(first, 15)?,
            get(first, 16)?,
            get(first, 17)?,
            get(first, 18)?,
        ]),
        nodes,
    })
}

/// Frees what a node held that has fallen silent; whether it was so.
pub(super) async fn take_over(
    link: &mut DbLink,
    silent: &NodeRow,
    due: i64,
    (now, by): (i64, i64),
) -> Result<bool, DbFault> {
    let id = of(silent.id);
    let found = link.begin(&[(SILENT, vec![&id, &silent.seen])]).await?;
    if found.iter().all(Vec::is_empty) {
        link.roll_back().await?;
        return Ok(false);
    }
    in_doubt(link, (id, Some(&silent.name)), due, (now, by)).await?;
    link.commit(&[
        (LANES, vec![&id]),
        (WAYS, vec![&id]),
        (GONE, vec![&id, &now]),
    ])
    .await?;
    Ok(true)
}

/// What nodes that are gone have leased since they were taken over, by an insert or a claim that came late; and nodes that nobody need
/// remember.
pub(super) async fn take_over_late(
    link: &mut DbLink,
    due: i64,
    (now, by): (i64, i64),
) -> Result<(), DbFault> {
    let found = link.begin(&[(LATE, vec![])]).await?;
    for row in found.iter().flatten() {
        let (id, name): (i64, Option<&str>) = (get(row, 0)?, get(row, 1)?);
        in_doubt(link, (id, name), due, (now, by)).await?;
    }
    let before = now.saturating_sub(REMEMBERED);
    let unused = before.saturating_sub(DAY);
    link.commit(&[(FORGET, vec![&before]), (UNUSED, vec![&unused])])
        .await
        .map(|_| ())
}

/// All that a node has leased: it may have arrived, so only the same connector may try again. KeptWishes are obeyed.
async fn in_doubt(
    link: &mut DbLink,
    (node, name): (i64, Option<&str>),
    due: i64,
    (now, by): (i64, i64),
) -> Result<(), DbFault> {
    loop {
        let jobs = of_node(link, node).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        let numbers = Numbers::of(jobs.iter().map(|job| (job.message, job.nr)));
        let (messages, nrs) = (&numbers.messages, &numbers.nrs);
        let event = settling::taken_over(name, SystemTime::UNIX_EPOCH);
        tell(link, &jobs, &event, (now, by)).await?;
        link.go_on(&[
            (DOUBT, vec![messages, nrs]),
            (PIN, vec![messages, nrs, &due]),
        ])
        .await?;
        obey_all(link, &jobs, (now, by)).await?;
    }
}

/// One line in the life of each message.
async fn tell(
    link: &mut DbLink,
    jobs: &[PickedJob],
    event: &Event,
    (now, node): (i64, i64),
) -> Result<(), DbFault> {
    let mut lines = LifeLines::of(node);
    for job in jobs {
        lines.add(job.message, now, event.kind, &[], &event.text);
    }
    link.go_on(&[lines.spoken()]).await.map(|_| ())
}
