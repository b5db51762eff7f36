//! Jobs are leased, as they were seen a moment ago; and leases are given back that nobody holds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_postgres::Row;

use super::{
    body::RemoteBodies,
    clock::Moments,
    event::LifeLines,
    fault::DbFault,
    insert::of,
    link::{DbLink, Spoken},
    look::{FoundJob, Snapshot, accepted_by, of_pair},
    message::{MessagePart, RecipientLine, read_message},
    unheard::{ClaimedJob, Handover, Unheard},
    values::{get, id},
    verbs::{LOCK, Numbers, PickedJob, close_all, obey},
};
use crate::{
    mail::message::{Message, MessageId},
    queue::{
        coded::some,
        event::EventKind,
        store::{Ask, Job, JobId, Lease, NodeId, Whose},
        turns::Cursors,
        wishes::KeptWishes,
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// Looks for one ask: where others took what was found, it is looked again.
const LOOKS: usize = 3;

/// What is still as it was seen, and nobody else is about to take.
const CLAIM: &str = "WITH found AS (
    SELECT j.message, j.nr, a.connector
    FROM unnest($1::bytea[], $2::int[], $3::int[], $4::text[]) AS a (message, nr, claim, connector)
    JOIN job j ON j.message = a.message AND j.nr = a.nr
    WHERE j.state = 2 AND j.claim = a.claim
    ORDER BY j.message, j.nr FOR UPDATE OF j SKIP LOCKED),
  leased AS (
    UPDATE job j SET state = 0, node = $5::bigint, claim = j.claim + 1, connector = found.connector FROM found
    WHERE j.message = found.message AND j.nr = found.nr
    RETURNING j.message, j.nr, j.claim, j.route, j.pinned, j.lane, j.attempts)
  SELECT m.id, m.sender, m.eight_bit, m.origin::text, m.size, c.header, c.body, c.kept, m.dsn,
         m.accepted, l.nr, l.claim, l.route, l.pinned, l.lane, l.attempts
  FROM leased l JOIN message m ON m.id = l.message LEFT JOIN content c ON c.message = l.message";

const RECIPIENTS: &str =
    "SELECT message, job, address, state FROM recipient WHERE message = ANY($1::bytea[])
    ORDER BY message, position";

/// Those of them that are still claimed so.
const STILL: &str = "SELECT j.message, j.nr, j.route, j.state, j.wishes, true, false
    FROM unnest($1::bytea[], $2::int[], $3::int[]) AS a (message, nr, claim)
    JOIN job j ON j.message = a.message AND j.nr = a.nr
    WHERE j.state = 0 AND j.node = $4::bigint AND j.claim = a.claim
    ORDER BY j.message, j.nr FOR UPDATE OF j";

const GOES_BY: &str = "UPDATE job SET connector = $5::text
    WHERE message = $1::bytea AND nr = $2::int AND state = 0 AND node = $3::bigint AND claim = $4::int";
const CLAIMED: &str = "SELECT message, nr FROM job WHERE state = 0 AND node = $1::bigint ORDER BY message, nr LIMIT 1000";
const OF_NODE: &str = "SELECT j.message, j.nr, j.route, j.state, j.wishes, true, false
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) JOIN job j ON j.message = a.message AND j.nr = a.nr
    WHERE j.state = 0 AND j.node = $3::bigint
    ORDER BY j.message, j.nr FOR UPDATE OF j";

/// Put aside it is an operator's, whoever held it.
const ASIDE: &str = "UPDATE job j SET state = $3::smallint, node = NULL, connector = NULL, wishes = NULL, lane = ''
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";
const FREE: &str = "UPDATE job j SET state = $3::smallint, node = NULL, connector = NULL, wishes = NULL
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) WHERE j.message = a.message AND j.nr = a.nr";

/// Where the turns of the lanes are, kept in memory: a start begins anew.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedCursors(Arc<Mutex<Cursors>>);

impl SharedCursors {
    fn lock(&self) -> MutexGuard<'_, Cursors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a claim needs to know.
#[derive(Debug, Clone)]
pub(super) struct Claimer {
    pub(super) cursors: SharedCursors,
    pub(super) unheard: Unheard,
    pub(super) node: NodeId,
    pub(super) moments: Moments,
    pub(super) bodies: RemoteBodies,
}

/// What was claimed, with its messages; and those that cannot be read.
pub(super) struct Claimed {
    pub(super) jobs: Vec<Job>,
    pub(super) broken: Vec<(ClaimedJob, String)>,
    pub(super) handover: Handover,
}

impl Claimer {
    /// Claims what is asked for.
    pub(super) async fn claim(&self, link: &mut DbLink, asks: &[Ask]) -> Result<Claimed, DbFault> {
        let mut all = Claimed {
            jobs: Vec::new(),
            broken: Vec::new(),
            handover: self.unheard.unless_heard(Vec::new()),
        };
        // One without a number could not be taken over.
        let asks = Some(asks).filter(|_| self.node != NodeId::NOBODY);
        for ask in asks.unwrap_or_default() {
            let mut left = ask.clone();
            for _ in 0..LOOKS {
                if left.limit == 0 {
                    break;
                }
                let (found, is_all) = self.look(link, &left).await?;
                let count = self.lease(link, &left, &found, &mut all).await?;
                left.limit -= count.min(left.limit);
                // Where others took what was found there may be more behind it.
                if found.is_empty() || (count == found.len() && is_all) {
                    break;
                }
            }
        }
        Ok(all)
    }

    /// What may be claimed; and whether more would be in vain.
    async fn look(&self, link: &mut DbLink, ask: &Ask) -> Result<(Vec<FoundJob>, bool), DbFault> {
        let now = self.moments.now();
        let is_all = |found: &Vec<FoundJob>| found.len() < ask.limit;
        match ask.whose {
            Whose::Of(pair) => {
                let found = of_pair(link, ask, pair, now).await?;
                let is_all = is_all(&found);
                Ok((found, is_all))
            }
            Whose::AcceptedBy(by) => {
                let from = self.cursors.lock().of(ask.place()).swept;
                let by = (self.moments.theirs(by), from);
                let (found, next) = accepted_by(link, ask, by, now).await?;
                self.cursors.lock().of(ask.place()).swept = next;
                let is_all = is_all(&found);
                Ok((found, is_all))
            }
            Whose::InTurns => {
                let last = {
                    let mut cursors = self.cursors.lock();
                    let (client, senders) = cursors.of(ask.place()).last();
                    (
                        client,
                        senders.iter().map(|sender| i16::from(*sender)).collect(),
                    )
                };
                let mut snapshot = Snapshot::look(link, ask, last, now).await?;
                let mut cursors = self.cursors.lock();
                let Ok(()) = cursors.of(ask.place()).claim(&mut snapshot, ask.limit);
                Ok((snapshot.taken, snapshot.is_all))
            }
        }
    }

    /// Leases what was found, as far as it is still there; how many it were.
    async fn lease(
        &self,
        link: &mut DbLink,
        ask: &Ask,
        found: &[FoundJob],
        all: &mut Claimed,
    ) -> Result<usize, DbFault> {
        if found.is_empty() {
            return Ok(0);
        }
        let numbers = Numbers::of(found.iter().map(|job| (job.message, job.nr)));
        let claims: Vec<i32> = found.iter().map(|job| job.claim).collect();
        let connector = ask.connector.as_ref().or(ask.pinned.as_ref());
        let connector = connector.or(ask.lane.as_ref().map(|lane| &lane.connector));
        let connectors = vec![connector.map(ToString::to_string); found.len()];
        let node = of(self.node);
        let spoken: [Spoken<'_>; 2] = [
            (
                CLAIM,
                vec![&numbers.messages, &numbers.nrs, &claims, &connectors, &node],
            ),
            (RECIPIENTS, vec![&numbers.messages]),
        ];
        // Until it is known what became of them they may be claimed, and nobody's.
        let claimed = found.iter().map(|job| ClaimedJob {
            message: job.message,
            nr: job.nr,
            claim: job.claim.saturating_add(1),
        });
        let mut may_be = self.unheard.unless_heard(claimed.collect());
        let answered = match link.whole(&spoken).await {
            Ok(answered) => answered,
            Err(fault) => {
                if !matches!(fault, DbFault::Unknown(_)) {
                    may_be.heard();
                }
                return Err(fault);
            }
        };
        let [rows, recipients] = answered.as_slice() else {
            return Ok(0);
        };
        may_be.keep(|job| rows.iter().any(|row| is_of(row, job)));
        all.handover.take_in(may_be);
        let order: HashMap<(MessageId, i32), usize> = found
            .iter()
            .map(|job| (job.message, job.nr))
            .zip(0..)
            .collect();
        let mut parts: Vec<LeasedPart> = rows
            .iter()
            .map(LeasedPart::read)
            .collect::<Result<_, _>>()?;
        parts.sort_by_key(|part| order.get(&(part.claimed.message, part.claimed.nr)).copied());
        self.add(&parts, recipients, all)?;
        Ok(parts.len())
    }

    /// Makes jobs of rows.
    fn add(
        &self,
        parts: &[LeasedPart],
        recipients: &[Row],
        all: &mut Claimed,
    ) -> Result<(), DbFault> {
        let mut wishes = HashMap::new();
        for part in parts {
            wishes.insert(part.claimed.message, part.of.wishes());
        }
        let none = KeptWishes::default();
        let mut lines: HashMap<MessageId, Vec<RecipientLine>> = HashMap::new();
        for row in recipients {
            let line = RecipientLine::read(row, wishes.get(&id(row, 0)?).unwrap_or(&none))?;
            lines.entry(line.message).or_default().push(line);
        }
        let mut messages: HashMap<MessageId, Result<Arc<Message>, String>> = HashMap::new();
        for part in parts {
            let of_it = lines
                .get(&part.claimed.message)
                .map_or(&[][..], Vec::as_slice);
            let message = messages
                .entry(part.claimed.message)
                .or_insert_with(|| read_message(&part.of, of_it, &self.bodies).map(Arc::new));
            match message {
                Ok(message) => all.jobs.push(part.job(self, message, of_it)),
                Err(why) => {
                    tracing::error!(id = %part.claimed.message, why, "a queued message cannot be read and is held");
                    all.broken.push((part.claimed, why.clone()));
                }
            }
        }
        Ok(())
    }
}

fn is_of(row: &Row, job: &ClaimedJob) -> bool {
    id(row, 0).is_ok_and(|id| id == job.message) && get::<i32>(row, 10).is_ok_and(|nr| nr == job.nr)
}

/// A job that was leased, and the row of its message.
struct LeasedPart {
    of: MessagePart,
    claimed: ClaimedJob,
    route: String,
    pinned: String,
    lane: String,
    attempts: i32,
    accepted: i64,
}

impl LeasedPart {
    fn read(row: &Row) -> Result<Self, DbFault> {
        Ok(Self {
            of: MessagePart::read(row)?,
            claimed: ClaimedJob {
                message: id(row, 0)?,
                nr: get(row, 10)?,
                claim: get(row, 11)?,
            },
            accepted: get(row, 9)?,
            route: get(row, 12)?,
            pinned: get(row, 13)?,
            lane: get(row, 14)?,
            attempts: get(row, 15)?,
        })
    }

    fn job(&self, by: &Claimer, message: &Arc<Message>, recipients: &[RecipientLine]) -> Job {
        let own = recipients
            .iter()
            .filter(|line| line.job == self.claimed.nr && line.is_open);
        let own = own.filter_map(|line| line.recipient.clone().ok());
        Job {
            id: JobId(self.claimed.nr.into()),
            lease: Lease {
                node: by.node,
                claim: u32::try_from(self.claimed.claim).unwrap_or_default(),
            },
            message: Arc::clone(message),
            route: RouteName::from(self.route.as_str()),
            recipients: own.collect(),
            pinned: some(&self.pinned).map(ConnectorName::from),
            lane: some(&self.lane).map(LaneId::parse),
            attempts: u32::try_from(self.attempts).unwrap_or_default(),
            accepted: by.moments.ours(self.accepted),
        }
    }
}

/// Where a job goes that is claimed so.
pub(super) async fn goes_by(
    link: &mut DbLink,
    job: ClaimedJob,
    (node, connector): (i64, &str),
) -> Result<(), DbFault> {
    let (message, nr, claim) = (job.message.to_bytes().to_vec(), job.nr, job.claim);
    let spoken: Spoken<'_> = (GOES_BY, vec![&message, &nr, &node, &claim, &connector]);
    link.whole(&[spoken]).await.map(|_| ())
}

/// Puts jobs aside that cannot be read, so that the others go on.
pub(super) async fn quarantine(
    link: &mut DbLink,
    broken: &[(ClaimedJob, String)],
    (now, node): (i64, i64),
) -> Result<(), DbFault> {
    let numbers = Numbers::of(broken.iter().map(|(job, _)| (job.message, job.nr)));
    let mut lines = LifeLines::of(node);
    for (job, why) in broken {
        let text = format!("put aside because it cannot be read: {why}");
        lines.add(job.message, now, EventKind::Held, &[], &text);
    }
    let held = 1_i16;
    let free: Spoken<'_> = (ASIDE, vec![&numbers.messages, &numbers.nrs, &held]);
    link.whole(&[free, lines.spoken()]).await.map(|_| ())
}

/// Gives back claims of which nobody heard, as if they had not been made; wishes are obeyed. A transaction of its own.
pub(super) async fn give_back(
    link: &mut DbLink,
    jobs: &[ClaimedJob],
    at: (i64, i64),
) -> Result<(), DbFault> {
    if jobs.is_empty() {
        return Ok(());
    }
    let numbers = Numbers::of(jobs.iter().map(|job| (job.message, job.nr)));
    let claims: Vec<i32> = jobs.iter().map(|job| job.claim).collect();
    let node = at.1;
    let found = link
        .begin(&[
            (LOCK, vec![&numbers.messages]),
            (STILL, vec![&numbers.messages, &numbers.nrs, &claims, &node]),
        ])
        .await?;
    let freed: Vec<PickedJob> = found
        .iter()
        .skip(1)
        .flatten()
        .map(PickedJob::read)
        .collect::<Result<_, _>>()?;
    free(link, &freed, at).await?;
    link.commit(&[]).await.map(|_| ())
}

/// Jobs that are locked wait again, due as they were; wishes are obeyed.
pub(super) async fn free(
    link: &mut DbLink,
    jobs: &[PickedJob],
    at: (i64, i64),
) -> Result<(), DbFault> {
    let numbers = Numbers::of(jobs.iter().map(|job| (job.message, job.nr)));
    let waiting = 2_i16;
    link.one(FREE, vec![&numbers.messages, &numbers.nrs, &waiting])
        .await?;
    obey_all(link, jobs, at).await
}

/// The wishes of jobs that are in flight no longer.
pub(super) async fn obey_all(
    link: &mut DbLink,
    jobs: &[PickedJob],
    at: (i64, i64),
) -> Result<(), DbFault> {
    let mut over = BTreeSet::new();
    for job in jobs {
        if let Some(wishes) = &job.wishes {
            over.append(&mut obey(link, &[(job.message, job.nr)], wishes, at).await?);
        }
    }
    close_all(link, &over, at.0).await
}

/// Some of what a node has claimed, locked, with its messages.
pub(super) async fn of_node(link: &mut DbLink, node: i64) -> Result<Vec<PickedJob>, DbFault> {
    let rows = link.one(CLAIMED, vec![&node]).await?;
    let mut jobs = Vec::new();
    for row in &rows {
        jobs.push((id(row, 0)?, get::<i32>(row, 1)?));
    }
    let numbers = Numbers::of(jobs);
    let spoken: [Spoken<'_>; 2] = [
        (LOCK, vec![&numbers.messages]),
        (OF_NODE, vec![&numbers.messages, &numbers.nrs, &node]),
    ];
    let found = link.go_on(&spoken).await?;
    found
        .iter()
        .skip(1)
        .flatten()
        .map(PickedJob::read)
        .collect()
}
