//! Jobs and their recipients as the rows have them when a settlement comes, locked; and what has become of its claim.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::{
    clock::Moments,
    fault::DbFault,
    insert::of,
    link::DbLink,
    values::{get, id, int, octets},
    verbs::{LOCK, Numbers},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::{self, SENDING, some},
        settling::Before,
        store::{JobId, Kept, Settlement},
    },
    route::ConnectorName,
};

const JOBS: &str = "SELECT j.message, j.nr, j.state, j.node, j.claim, j.route, j.pinned, j.attempts, j.client, j.sender, j.wishes
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr) JOIN job j ON j.message = a.message AND j.nr = a.nr
    ORDER BY j.message, j.nr FOR UPDATE OF j";
const RECIPIENTS: &str = "SELECT r.message, r.job, r.position, r.address, r.state, r.claim
    FROM unnest($1::bytea[], $2::int[]) AS a (message, nr)
    JOIN recipient r ON r.message = a.message AND r.job = a.nr ORDER BY r.message, r.position";
/// The rows of recipients know the numbers of jobs that are gone, too.
const LAST: &str =
    "SELECT a.message, greatest((SELECT max(job) FROM recipient WHERE message = a.message),
                                (SELECT max(nr) FROM job WHERE message = a.message))
    FROM unnest($1::bytea[]) AS a (message)";
/// A job, by its message and its number.
pub(super) type JobKey = (MessageId, i32);

/// A settlement to be written, and what became of it.
pub(super) struct ToSettle {
    pub(super) settlement: Settlement,
    pub(super) moments: Moments,
    pub(super) kept: Kept,
}

impl ToSettle {
    pub(super) fn key(&self) -> JobKey {
        let JobId(nr) = self.settlement.job;
        (self.settlement.message, int(nr))
    }
}

/// A job as its rows have it.
pub(super) struct StoredJob {
    pub(super) state: i64,
    pub(super) node: Option<i64>,
    pub(super) claim: i32,
    pub(super) route: String,
    pub(super) client: i16,
    pub(super) sender: i16,
    pub(super) wishes: Option<String>,
    pub(super) before: Before,
    pub(super) positions: Vec<i32>,
}

impl StoredJob {
    fn read(row: &Row) -> Result<Self, DbFault> {
        let pinned: &str = get(row, 6)?;
        Ok(Self {
            state: get::<i16>(row, 2)?.into(),
            node: get(row, 3)?,
            claim: get(row, 4)?,
            route: get(row, 5)?,
            client: get(row, 8)?,
            sender: get(row, 9)?,
            wishes: get(row, 10)?,
            before: Before {
                pinned: some(pinned).map(ConnectorName::from),
                attempts: u32::try_from(get::<i32>(row, 7)?).unwrap_or_default(),
                recipients: Vec::new(),
            },
            positions: Vec::new(),
        })
    }

    /// What its claim has come to.
    pub(super) fn kept(&self, settlement: &Settlement) -> Kept {
        let claim = int(settlement.lease.claim);
        let is_own = self.node == Some(of(settlement.lease.node));
        if self.claim != claim {
            Kept::Lost
        } else if is_own && self.state == SENDING {
            Kept::Written
        } else if is_own {
            Kept::Late
        } else if self.node.is_none() {
            // Whoever wrote it took the node away.
            Kept::Written
        } else {
            Kept::Lost
        }
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.state == SENDING
    }
}

/// What the rows say.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) jobs: HashMap<JobKey, StoredJob>,
    /// The claims that ended jobs which are gone.
    pub(super) ended: HashMap<JobKey, i32>,
    /// The last number of a job of each message, where it is needed.
    pub(super) last: HashMap<MessageId, i32>,
}

impl Stored {
    pub(super) async fn read(link: &mut DbLink, all: &[&mut ToSettle]) -> Result<Self, DbFault> {
        let numbers = Numbers::of(all.iter().map(|one| one.key()));
        let found = link
            .begin(&[
                (LOCK, vec![&numbers.messages]),
                (JOBS, vec![&numbers.messages, &numbers.nrs]),
                (RECIPIENTS, vec![&numbers.messages, &numbers.nrs]),
            ])
            .await?;
        let mut stored = Self::default();
        let [_, jobs, recipients] = found.as_slice() else {
            return Ok(stored);
        };
        for row in jobs {
            let key = (id(row, 0)?, get(row, 1)?);
            stored.jobs.insert(key, StoredJob::read(row)?);
        }
        for row in recipients {
            let key = (id(row, 0)?, get(row, 1)?);
            match (stored.jobs.get_mut(&key), get::<Option<i32>>(row, 5)?) {
                (Some(job), _) => {
                    let state = coded::recipient_state(get::<i16>(row, 4)?.into());
                    job.before.recipients.push((get(row, 3)?, state));
                    job.positions.push(get(row, 2)?);
                }
                (None, Some(claim)) => {
                    stored.ended.insert(key, claim);
                }
                (None, None) => {}
            }
        }
        let may_split = |one: &&&mut ToSettle| {
            let settlement = &one.settlement;
            settlement.in_doubt.is_some() || !settlement.apart.is_empty()
        };
        let splits: BTreeSet<MessageId> = all
            .iter()
            .filter(may_split)
            .map(|one| one.settlement.message)
            .collect();
        if !splits.is_empty() {
            let splits = octets(&splits);
            for row in &link.one(LAST, vec![&splits]).await? {
                stored
                    .last
                    .insert(id(row, 0)?, get::<Option<i32>>(row, 1)?.unwrap_or_default());
            }
        }
        Ok(stored)
    }
}
