//! Messages that leave for the queue of one gateway alone: read with all that has become of them, a page at a time, and deleted when they
//! are there. Nobody may be at work meanwhile, and that is looked at with each step.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use tokio_postgres::Row;

use super::{
    PostgresStore,
    body::RemoteBodies,
    clock::Moments,
    fault::DbFault,
    link::{DbLink, Spoken},
    message::{MessagePart, RecipientLine, read_bare, read_message},
    values::{get, id, octets},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::{self, SENDING, WAITING, some},
        event::{Event, EventKind},
        moving::{LeavingPage, MovingJob, MovingMessage, MovingRecipient},
        store::{RecipientState, StoreError},
        turns::Pair,
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// The same lock as a start takes: none begins before this is committed.
const LOCK: &str =
    "SELECT pg_advisory_xact_lock(hashtext('postern node'), hashtext(current_schema()::text))";
const AT_WORK: &str = "SELECT 1 FROM node WHERE gone IS NULL LIMIT 1";
const MESSAGES: &str = "SELECT m.id, m.sender, m.eight_bit, m.origin::text, m.size, c.header, c.body, c.kept, m.dsn, m.place, m.accepted, m.ended,
        m.tell_late
    FROM message m LEFT JOIN content c ON c.message = m.id WHERE m.place > $1::bigint ORDER BY m.place LIMIT $2::bigint";
const RECIPIENTS: &str =
    "SELECT message, job, address, state, position, reply, at, said, route, attempts
    FROM recipient WHERE message = ANY($1::bytea[]) ORDER BY message, position";
const JOBS: &str =
    "SELECT message, nr, route, pinned, lane, client, sender, state, due, attempts, connector
    FROM job WHERE message = ANY($1::bytea[]) ORDER BY message, nr";
const EVENTS: &str = "SELECT message, at, kind, recipients, text
    FROM event WHERE message = ANY($1::bytea[]) ORDER BY id";
const IDS: &str = "SELECT id, place FROM message WHERE place > $1::bigint AND place <= $2::bigint ORDER BY place LIMIT $3::bigint";
const DELETE: [&str; 6] = [
    "DELETE FROM event WHERE message = ANY($1::bytea[])",
    "DELETE FROM recipient WHERE message = ANY($1::bytea[])",
    "DELETE FROM chunk WHERE message = ANY($1::bytea[])",
    "DELETE FROM content WHERE message = ANY($1::bytea[])",
    "DELETE FROM job WHERE message = ANY($1::bytea[])",
    "DELETE FROM message WHERE id = ANY($1::bytea[])",
];
const NOTES: &str = "SELECT key, value FROM note WHERE starts_with(key, $1::text) ORDER BY key";
const FORGET_NOTE: &str = "DELETE FROM note WHERE key = $1::text";
const FORGET_LANES: &str = "DELETE FROM lane";

/// The largest number of a job within its message that the other store has room for.
const LAST_JOB: i32 = (1 << 20) - 1;

impl PostgresStore {
    /// Messages behind this place, in the order in which they came, at most so many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn leaving(
        &self,
        after: i64,
        limit: usize,
        now: SystemTime,
    ) -> Result<LeavingPage, StoreError> {
        let (moments, bodies) = (self.at(now), self.bodies.clone());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.crew.on(true, move |link| {
            let bodies = bodies.clone();
            Box::pin(async move { page(link, (after, limit), moments, &bodies).await })
        });
        read.await
    }

    /// The ids behind this place and up to that one, at most so many; and where the next ones begin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn places(
        &self,
        (after, last): (i64, i64),
        limit: usize,
    ) -> Result<Vec<(MessageId, i64)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.crew.on(true, move |link| {
            Box::pin(async move {
                let found = link.whole(&[(IDS, vec![&after, &last, &limit])]).await?;
                let rows = found.iter().flatten();
                rows.map(|row| Ok((id(row, 0)?, get(row, 1)?))).collect()
            })
        });
        read.await
    }

    /// Deletes messages that are elsewhere now. False: a gateway is at work, and nothing was done.
    ///
    /// # Errors
    /// [`StoreError`]. To delete them again changes nothing.
    pub async fn left(&self, ids: Vec<MessageId>) -> Result<bool, StoreError> {
        let keys = Arc::new(octets(&ids));
        let deleted = self.crew.on(true, move |link| {
            let keys = Arc::clone(&keys);
            Box::pin(async move {
                let keys = &*keys;
                delete(
                    link,
                    &DELETE.map(|said| -> Spoken<'_> { (said, vec![keys]) }),
                )
                .await
            })
        });
        deleted.await
    }

    /// Forgets all that is said of lanes. False: a gateway is at work, and nothing was done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_lanes(&self) -> Result<bool, StoreError> {
        let deleted = self.crew.on(true, |link| {
            Box::pin(async move { delete(link, &[(FORGET_LANES, vec![])]).await })
        });
        deleted.await
    }

    /// The notes whose keys begin so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn notes(&self, beginning: &str) -> Result<Vec<(String, String)>, StoreError> {
        let beginning = beginning.to_owned();
        let read = self.crew.on(true, move |link| {
            let beginning = beginning.clone();
            Box::pin(async move {
                let found = link.whole(&[(NOTES, vec![&beginning])]).await?;
                let rows = found.iter().flatten();
                rows.map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
            })
        });
        read.await
    }

    /// Forgets a note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_note(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        let deleted = self.crew.on(true, move |link| {
            let key = key.clone();
            Box::pin(async move { link.whole(&[(FORGET_NOTE, vec![&key])]).await.map(|_| ()) })
        });
        deleted.await
    }
}

/// Deletes, unless a gateway is at work or begins to be.
async fn delete(link: &mut DbLink, spoken: &[Spoken<'_>]) -> Result<bool, DbFault> {
    // One behind the other: who had the lock has committed when it is looked.
    link.begin(&[(LOCK, vec![])]).await?;
    if !link.one(AT_WORK, vec![]).await?.is_empty() {
        link.roll_back().await?;
        return Ok(false);
    }
    link.commit(spoken).await?;
    Ok(true)
}

async fn page(
    link: &mut DbLink,
    (after, limit): (i64, i64),
    moments: Moments,
    bodies: &RemoteBodies,
) -> Result<LeavingPage, DbFault> {
    let found = link
        .begin(&[(AT_WORK, vec![]), (MESSAGES, vec![&after, &limit])])
        .await?;
    let mut page = LeavingPage::default();
    let [at_work, messages] = found.as_slice() else {
        return Ok(page);
    };
    page.is_at_work = !at_work.is_empty();
    let ids: Vec<MessageId> = messages
        .iter()
        .map(|row| id(row, 0))
        .collect::<Result<_, _>>()?;
    let keys = octets(&ids);
    let of = |question| -> Spoken<'_> { (question, vec![&keys]) };
    let found = link.commit(&[of(RECIPIENTS), of(JOBS), of(EVENTS)]).await?;
    let [recipients, jobs, events] = found.as_slice() else {
        return Ok(page);
    };
    let (recipients, jobs, events) = (sorted(recipients)?, sorted(jobs)?, sorted(events)?);
    for row in messages {
        let part = MessagePart::read(row)?;
        let of = part.id();
        let none = Vec::new();
        let beside = (
            recipients.get(&of).unwrap_or(&none),
            jobs.get(&of).unwrap_or(&none),
            events.get(&of).unwrap_or(&none),
        );
        match message(row, &part, beside, (moments, bodies))? {
            Ok(message) => page.messages.push(message),
            Err(why) => page.broken.push((of, why)),
        }
        page.last = Some(get(row, 9)?);
    }
    Ok(page)
}

type RowsOf<'a> = &'a Vec<&'a Row>;

/// Rows by the message in their first column.
fn sorted(rows: &[Row]) -> Result<HashMap<MessageId, Vec<&Row>>, DbFault> {
    let mut sorted: HashMap<MessageId, Vec<&Row>> = HashMap::new();
    for row in rows {
        sorted.entry(id(row, 0)?).or_default().push(row);
    }
    Ok(sorted)
}

/// A message with what is beside it; or why it cannot leave.
fn message(
    row: &Row,
    part: &MessagePart,
    (recipients, jobs, events): (RowsOf<'_>, RowsOf<'_>, RowsOf<'_>),
    (moments, bodies): (Moments, &RemoteBodies),
) -> Result<Result<MovingMessage, String>, DbFault> {
    let wishes = part.wishes();
    let lines: Vec<RecipientLine> = recipients
        .iter()
        .map(|row| RecipientLine::read(row, &wishes))
        .collect::<Result<_, _>>()?;
    // Of a node that is gone, and of which a claim came through later: it may have arrived.
    let mut in_doubt = HashSet::new();
    let mut moving = Vec::new();
    for row in jobs {
        let (job, is_leased) = job(row, moments)?;
        if is_leased {
            in_doubt.insert(job.nr);
        }
        moving.push(job);
    }
    let read = if part.has_content() {
        read_message(part, &lines, bodies)
    } else if moving.is_empty() {
        read_bare(part, &lines)
    } else {
        Err("its content is gone".to_owned())
    };
    let read = match read {
        Ok(read) => read,
        Err(why) => return Ok(Err(why)),
    };
    let mut every = recipients
        .iter()
        .map(|row| recipient(row, moments))
        .collect::<Result<Vec<_>, _>>()?;
    for one in &mut every {
        if one.state == RecipientState::Waiting && in_doubt.contains(&one.job) {
            one.state = RecipientState::InDoubt;
        }
    }
    let numbers = moving.iter().map(|job| job.nr);
    let mut numbers = numbers.chain(every.iter().map(|one| one.job));
    if !numbers.all(|nr| (0..=LAST_JOB).contains(&nr)) {
        return Ok(Err("a job of it has a number that is too large".to_owned()));
    }
    Ok(Ok(MovingMessage {
        bare: (!part.has_content()).then(|| part.size()),
        message: Arc::new(read),
        accepted: moments.ours(get(row, 10)?),
        ended: get::<Option<i64>>(row, 11)?.map(|at| moments.ours(at)),
        tells_late: get(row, 12)?,
        jobs: moving,
        recipients: every,
        events: events
            .iter()
            .map(|row| event(row, moments))
            .collect::<Result<_, _>>()?,
    }))
}

/// A job that nobody is sending; and whether somebody was.
fn job(row: &Row, moments: Moments) -> Result<(MovingJob, bool), DbFault> {
    let (pinned, lane): (&str, &str) = (get(row, 3)?, get(row, 4)?);
    let (state, connector): (i16, Option<&str>) = (get(row, 7)?, get(row, 10)?);
    let is_leased = i64::from(state) == SENDING;
    let (state, pinned) = if is_leased {
        (WAITING, some(pinned).or(connector))
    } else {
        (state.into(), some(pinned))
    };
    let small = |at| get::<i16>(row, at).map(|number| u8::try_from(number).unwrap_or_default());
    let job = MovingJob {
        nr: get(row, 1)?,
        route: RouteName::from(get::<&str>(row, 2)?),
        pinned: pinned.map(ConnectorName::from),
        lane: some(lane).filter(|_| !is_leased).map(LaneId::parse),
        pair: Pair {
            client: small(5)?,
            sender: small(6)?,
        },
        state: coded::state(state),
        due: moments.ours(get(row, 8)?),
        attempts: get::<i32>(row, 9)?.unsigned_abs(),
    };
    Ok((job, is_leased))
}

fn recipient(row: &Row, moments: Moments) -> Result<MovingRecipient, DbFault> {
    let (at, said): (Option<i64>, Option<String>) = (get(row, 6)?, get(row, 7)?);
    let (route, attempts): (Option<&str>, Option<i32>) = (get(row, 8)?, get(row, 9)?);
    Ok(MovingRecipient {
        position: get(row, 4)?,
        job: get(row, 1)?,
        address: get(row, 2)?,
        state: coded::recipient_state(get::<i16>(row, 3)?.into()),
        reply: get(row, 5)?,
        delivered: at.map(|at| moments.ours(at)).zip(said),
        over: route
            .map(RouteName::from)
            .zip(attempts.map(i32::unsigned_abs)),
    })
}

fn event(row: &Row, moments: Moments) -> Result<Event, DbFault> {
    Ok(Event {
        at: moments.ours(get(row, 1)?),
        kind: EventKind::parse(get(row, 2)?),
        recipients: get::<&str>(row, 3)?.lines().map(str::to_owned).collect(),
        text: get(row, 4)?,
    })
}
