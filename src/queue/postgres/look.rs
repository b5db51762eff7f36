//! What may be claimed: a look at the index of what waits, from pair to pair, before anything is locked.
//!
//! Whose turn it is is decided in memory (`turns`), over what the look found. Somebody else may take it first: a claim takes what is
//! still there as it was seen.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

use tokio_postgres::Row;

use super::{
    clock::Moments,
    fault::DbFault,
    link::{DbLink, Spoken},
    values::{get, id, int},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded,
        store::{Ask, Due, Whose},
        turns::{LOOKED_AT, Mark, Pair, Pairs},
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// The pairs of a lane that have something waiting; of those of which something is due, as many as may have a turn, in the order of
/// their turns behind client `$5` and the last senders `$6`; and some jobs of each. A row of numbers comes first.
const PAIRS_IN_TURN: &str = "WITH RECURSIVE pair AS (
    (SELECT client, sender, due FROM job WHERE state = 2 AND route = $1 AND pinned = $2 AND lane = $3
     ORDER BY client, sender, due LIMIT 1)
    UNION ALL
    SELECT x.client, x.sender, x.due FROM pair CROSS JOIN LATERAL
      (SELECT client, sender, due FROM job
       WHERE state = 2 AND route = $1 AND pinned = $2 AND lane = $3 AND (client, sender) > (pair.client, pair.sender)
       ORDER BY client, sender, due LIMIT 1) x),
  turn AS (SELECT client, sender, row_number() OVER
             (PARTITION BY client ORDER BY sender <= ($6::smallint[])[client + 1], sender) AS k
           FROM pair WHERE due <= $4::bigint),
  first AS (SELECT client, sender FROM turn
            ORDER BY client = $5::smallint AND sender = ($6::smallint[])[client + 1] DESC, k, client <= $5, client
            LIMIT $7::bigint + 1),
  counted AS (SELECT count(*) AS n FROM first)
  SELECT NULL::bytea AS message, counted.n::int AS nr, 0 AS claim, 0::smallint AS client, 0::smallint AS sender, 0::bigint AS due
  FROM counted
  UNION ALL
  SELECT j.message, j.nr, j.claim, j.client, j.sender, j.due FROM first CROSS JOIN counted CROSS JOIN LATERAL
    (SELECT message, nr, claim, client, sender, due FROM job
     WHERE state = 2 AND route = $1 AND pinned = $2 AND lane = $3 AND client = first.client AND sender = first.sender
       AND due <= $4
     ORDER BY due LIMIT CASE WHEN counted.n <= 4 THEN $7 ELSE least($7, 8 * ($7 / counted.n / 8 + 2)) END) j
  ORDER BY message NULLS FIRST";

const OF_PAIR: &str = "SELECT message, nr, claim, client, sender, due FROM job
    WHERE state = 2 AND route = $1 AND pinned = $2 AND lane = $3 AND client = $4::smallint AND sender = $5::smallint
      AND due <= $6::bigint
    ORDER BY due LIMIT $7::bigint";

const ACCEPTED_BY: &str = "SELECT j.message, j.nr, j.claim, j.client, j.sender, j.due
    FROM job j JOIN message m ON m.id = j.message
    WHERE j.state = 2 AND j.route = $1 AND j.pinned = $2 AND j.lane = $3
      AND (j.client, j.sender, j.due) >= ($4::smallint, $5::smallint, $6::bigint)
      AND j.due <= $7::bigint AND m.accepted <= $8::bigint
    ORDER BY j.client, j.sender, j.due LIMIT $9::bigint";

/// From place to place by the index, and in each from pair to pair: as many steps as there are of them, not of jobs.
const DUE: &str = "WITH RECURSIVE place AS (
    (SELECT route, pinned, lane FROM job WHERE state = 2 ORDER BY route, pinned, lane LIMIT 1)
    UNION ALL
    SELECT x.route, x.pinned, x.lane FROM place CROSS JOIN LATERAL
      (SELECT route, pinned, lane FROM job
       WHERE state = 2 AND (route, pinned, lane) > (place.route, place.pinned, place.lane)
       ORDER BY route, pinned, lane LIMIT 1) x)
  SELECT place.route, place.pinned, place.lane, w.at, w.pairs, w.client, w.sender FROM place CROSS JOIN LATERAL (
    WITH RECURSIVE pair AS (
      (SELECT client, sender, due, 1 AS n FROM job
       WHERE state = 2 AND route = place.route AND pinned = place.pinned AND lane = place.lane
       ORDER BY client, sender, due LIMIT 1)
      UNION ALL
      SELECT x.client, x.sender, x.due, pair.n + 1 FROM pair CROSS JOIN LATERAL
        (SELECT client, sender, due FROM job
         WHERE state = 2 AND route = place.route AND pinned = place.pinned AND lane = place.lane
           AND (client, sender) > (pair.client, pair.sender)
         ORDER BY client, sender, due LIMIT 1) x
      WHERE pair.n <= $1::bigint)
    SELECT min(due) FILTER (WHERE n <= $1) AS at, count(*) AS pairs,
           (array_agg(client ORDER BY n))[1] AS client, (array_agg(sender ORDER BY n))[1] AS sender FROM pair) w
  WHERE w.at IS NOT NULL ORDER BY place.route, place.pinned, place.lane";

/// A job that was found waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundJob {
    pub(super) message: MessageId,
    pub(super) nr: i32,
    /// How often it was claimed until now.
    pub(super) claim: i32,
    pair: Pair,
    due: i64,
}

impl FoundJob {
    fn read(row: &Row) -> Result<Self, DbFault> {
        Ok(Self {
            message: id(row, 0)?,
            nr: get(row, 1)?,
            claim: get(row, 2)?,
            pair: pair(row, 3)?,
            due: get(row, 5)?,
        })
    }
}

fn pair(row: &Row, at: usize) -> Result<Pair, DbFault> {
    let number = |at| Ok::<_, DbFault>(u8::try_from(get::<i16>(row, at)?).unwrap_or_default());
    Ok(Pair {
        client: number(at)?,
        sender: number(at + 1)?,
    })
}

/// The place of an ask, as columns have it.
struct PlaceColumns {
    route: String,
    pinned: String,
    lane: String,
}

impl PlaceColumns {
    fn of(ask: &Ask) -> Self {
        Self {
            route: ask.route.as_str().to_owned(),
            pinned: ask
                .pinned
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            lane: coded::lane(ask.lane.as_ref()),
        }
    }
}

/// What is due of a lane, by its pairs, as far as it may have turns: these are given over it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    due: BTreeMap<Pair, VecDeque<FoundJob>>,
    pub(super) taken: Vec<FoundJob>,
    /// It has all that is due.
    pub(super) is_all: bool,
}

impl Snapshot {
    /// As much as `ask` may take behind the last turn.
    pub(super) async fn look(
        link: &mut DbLink,
        ask: &Ask,
        (client, senders): (u8, Vec<i16>),
        now: i64,
    ) -> Result<Self, DbFault> {
        let place = PlaceColumns::of(ask);
        let limit = i64::try_from(ask.limit).unwrap_or(i64::MAX - 1);
        let client = i16::from(client);
        let (route, pinned, lane) = (&place.route, &place.pinned, &place.lane);
        let values: Spoken<'_> = (
            PAIRS_IN_TURN,
            vec![route, pinned, lane, &now, &client, &senders, &limit],
        );
        let found = link.whole(&[values]).await?;
        let mut snapshot = Self::default();
        let Some((numbers, rows)) = found.first().and_then(|rows| rows.split_first()) else {
            return Ok(snapshot);
        };
        for row in rows {
            let job = FoundJob::read(row)?;
            snapshot.due.entry(job.pair).or_default().push_back(job);
        }
        for jobs in snapshot.due.values_mut() {
            jobs.make_contiguous()
                .sort_by_key(|job| (job.due, job.message));
        }
        let pairs = i64::from(get::<i32>(numbers, 1)?).max(1);
        let most = if pairs <= 4 {
            limit
        } else {
            limit.min(8 * (limit / pairs / 8 + 2))
        };
        let is_cut = |jobs: &VecDeque<_>| jobs.len() as i64 >= most;
        snapshot.is_all = pairs <= limit && !snapshot.due.values().any(is_cut);
        Ok(snapshot)
    }
}

impl Pairs for Snapshot {
    type Error = Infallible;

    fn from(&mut self, pair: Pair) -> Result<Option<(Pair, bool)>, Infallible> {
        let mut left = self.due.range(pair..).filter(|(_, jobs)| !jobs.is_empty());
        Ok(left.next().map(|(pair, _)| (*pair, true)))
    }

    fn take(&mut self, pair: Pair, limit: usize) -> Result<usize, Infallible> {
        let Some(jobs) = self.due.get_mut(&pair) else {
            return Ok(0);
        };
        let count = limit.min(jobs.len());
        self.taken.extend(jobs.drain(..count));
        Ok(count)
    }
}

/// What is due of one pair, oldest due first.
pub(super) async fn of_pair(
    link: &mut DbLink,
    ask: &Ask,
    pair: Pair,
    now: i64,
) -> Result<Vec<FoundJob>, DbFault> {
    let place = PlaceColumns::of(ask);
    let limit = i64::try_from(ask.limit).unwrap_or(i64::MAX);
    let (client, sender) = (i16::from(pair.client), i16::from(pair.sender));
    let (route, pinned, lane) = (&place.route, &place.pinned, &place.lane);
    let spoken: Spoken<'_> = (
        OF_PAIR,
        vec![route, pinned, lane, &client, &sender, &now, &limit],
    );
    let found = link.whole(&[spoken]).await?;
    found.iter().flatten().map(FoundJob::read).collect()
}

/// What was accepted by then, whosever it is, from a mark on; and where the next look goes on, when there may be more.
pub(super) async fn accepted_by(
    link: &mut DbLink,
    ask: &Ask,
    (by, from): (i64, Option<Mark>),
    now: i64,
) -> Result<(Vec<FoundJob>, Option<Mark>), DbFault> {
    let place = PlaceColumns::of(ask);
    let limit = i64::try_from(ask.limit).unwrap_or(i64::MAX);
    let (pair, due) = from.unwrap_or((Pair::default(), i64::MIN));
    let (client, sender) = (i16::from(pair.client), i16::from(pair.sender));
    let (route, pinned, lane) = (&place.route, &place.pinned, &place.lane);
    let spoken: Spoken<'_> = (
        ACCEPTED_BY,
        vec![
            route, pinned, lane, &client, &sender, &due, &now, &by, &limit,
        ],
    );
    let found = link.whole(&[spoken]).await?;
    let jobs: Vec<FoundJob> = found
        .iter()
        .flatten()
        .map(FoundJob::read)
        .collect::<Result<_, _>>()?;
    let is_more = jobs.len() == ask.limit;
    let last = jobs.last().filter(|_| is_more);
    let last = last.map(|job| (job.pair, job.due));
    Ok((jobs, last))
}

/// Each route, pin and lane that has waiting jobs, and when the first of them is due.
pub(super) async fn due(link: &mut DbLink, moments: Moments) -> Result<Vec<Due>, DbFault> {
    let most = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
    let found = link.whole(&[(DUE, vec![&most])]).await?;
    let mut places = Vec::new();
    for row in found.iter().flatten() {
        let (pinned, lane): (&str, &str) = (get(row, 1)?, get(row, 2)?);
        let pairs: i64 = get(row, 4)?;
        let mut at: i64 = get(row, 3)?;
        if pairs > most {
            at = at.min(moments.now());
        }
        places.push(Due {
            route: RouteName::from(get::<&str>(row, 0)?),
            pinned: coded::some(pinned).map(ConnectorName::from),
            lane: coded::some(lane).map(LaneId::parse),
            at: moments.ours(at),
            whose: Whose::met(pair(row, 5)?, usize::try_from(int(pairs)).unwrap_or(1)),
        });
    }
    Ok(places)
}
