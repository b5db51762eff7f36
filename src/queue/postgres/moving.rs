//! Messages that come from another store, with all that has become of them. What is here already stays as it is: the id decides.

use std::{sync::Arc, time::SystemTime};

use super::{
    PostgresStore,
    clock::Moments,
    event::LifeLines,
    fault::DbFault,
    insert::{IN_CHUNKS, IN_ROW, Octets, copy, new_ids, origin},
    link::{DbLink, Spoken},
    values::{clean, int, small},
};
use crate::{
    mail::message::Body,
    queue::{
        coded,
        moving::{MovingJob, MovingMessage, MovingRecipient},
        store::StoreError,
        wishes,
    },
};

impl PostgresStore {
    /// Takes messages from another store, all of them in one transaction; what is here already stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]. Whether they are here then, their ids say: to take them again changes nothing.
    pub async fn arrive(
        &self,
        messages: Vec<MovingMessage>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let messages: Arc<[MovingMessage]> = messages.into();
        let at = (self.own(), self.at(now));
        let arrived = self.crew.on(true, move |link| {
            let messages = Arc::clone(&messages);
            Box::pin(async move { arrive(link, &messages, at).await })
        });
        arrived.await
    }
}

/// In the order of their ids, as an insert.
const ARRIVE: &str = "WITH new AS (
    INSERT INTO message (id, accepted, node, sender, eight_bit, origin, size, ended, dsn, tell_late)
    SELECT id, accepted, node, sender, eight_bit, origin::jsonb, size, ended, dsn, tell_late
    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::boolean[], $6::text[], $7::bigint[], $8::bigint[],
                $33::text[], $34::boolean[])
         AS m (id, accepted, node, sender, eight_bit, origin, size, ended, dsn, tell_late) ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id),
  contents AS (
    INSERT INTO content (message, header, body, kept)
    SELECT new.id, c.header, c.body, c.kept
    FROM unnest($1::bytea[], $9::bytea[], $10::bytea[], $11::smallint[]) AS c (message, header, body, kept)
    JOIN new ON new.id = c.message),
  jobs AS (
    INSERT INTO job (message, nr, route, pinned, lane, client, sender, state, due, attempts, claim)
    SELECT new.id, j.nr, j.route, j.pinned, j.lane, j.client, j.sender, j.state, j.due, j.attempts, 0
    FROM unnest($12::bytea[], $13::int[], $14::text[], $15::text[], $16::text[], $17::smallint[], $18::smallint[],
                $19::smallint[], $20::bigint[], $21::int[])
         AS j (message, nr, route, pinned, lane, client, sender, state, due, attempts)
    JOIN new ON new.id = j.message),
  recipients AS (
    INSERT INTO recipient (message, position, job, address, state, reply, at, said, node, route, attempts)
    SELECT new.id, r.position, r.job, r.address, r.state, r.reply, r.at, r.said, r.node, r.route, r.attempts
    FROM unnest($22::bytea[], $23::int[], $24::int[], $25::text[], $26::smallint[], $27::text[], $28::bigint[], $29::text[],
                $30::bigint[], $31::text[], $32::int[])
         AS r (message, position, job, address, state, reply, at, said, node, route, attempts)
    JOIN new ON new.id = r.message)
SELECT id FROM new";

#[derive(Default)]
struct Arriving {
    ids: Vec<Vec<u8>>,
    accepted: Vec<i64>,
    nodes: Vec<i64>,
    senders: Vec<Option<String>>,
    eight_bit: Vec<bool>,
    origins: Vec<String>,
    sizes: Vec<i64>,
    ended: Vec<Option<i64>>,
    headers: Vec<Octets>,
    bodies: Vec<Option<Octets>>,
    kept: Vec<i16>,
    jobs: ArrivingJobs,
    recipients: ArrivingRecipients,
    dsn: Vec<Option<String>>,
    tell_late: Vec<bool>,
}

#[derive(Default)]
struct ArrivingJobs {
    messages: Vec<Vec<u8>>,
    nrs: Vec<i32>,
    routes: Vec<String>,
    pinned: Vec<String>,
    lanes: Vec<String>,
    clients: Vec<i16>,
    senders: Vec<i16>,
    states: Vec<i16>,
    due: Vec<i64>,
    attempts: Vec<i32>,
}

#[derive(Default)]
struct ArrivingRecipients {
    messages: Vec<Vec<u8>>,
    positions: Vec<i32>,
    jobs: Vec<i32>,
    addresses: Vec<String>,
    states: Vec<i16>,
    replies: Vec<Option<String>>,
    at: Vec<Option<i64>>,
    said: Vec<Option<String>>,
    nodes: Vec<Option<i64>>,
    routes: Vec<Option<String>>,
    attempts: Vec<Option<i32>>,
}

impl Arriving {
    fn of(all: &[MovingMessage], (node, moments): (i64, Moments)) -> Self {
        let mut rows = Self::default();
        for one in all {
            rows.add(one, (node, moments));
        }
        rows
    }

    fn add(&mut self, moving: &MovingMessage, (node, moments): (i64, Moments)) {
        let message = &moving.message;
        let key = message.id.to_bytes().to_vec();
        let (kept, body) = match &message.body {
            Body::Memory(octets) => (IN_ROW, Some(Octets(octets.clone()))),
            Body::Stored(_) => (IN_CHUNKS, None),
        };
        let sender = message.envelope.sender.as_ref();
        self.accepted.push(moments.theirs(moving.accepted));
        self.nodes.push(node);
        self.senders
            .push(sender.map(|sender| clean(&sender.to_string()).into_owned()));
        self.eight_bit.push(message.envelope.eight_bit);
        self.origins.push(origin(message));
        self.dsn.push(wishes::to_json(&message.envelope));
        self.tell_late.push(moving.tells_late);
        self.sizes
            .push(i64::try_from(message.size()).unwrap_or(i64::MAX));
        self.ended.push(moving.ended.map(|at| moments.theirs(at)));
        self.headers.push(Octets(message.header.clone()));
        self.bodies.push(body);
        self.kept.push(kept);
        for job in &moving.jobs {
            self.jobs.add(&key, job, moments);
        }
        for recipient in &moving.recipients {
            self.recipients.add(&key, recipient, (node, moments));
        }
        self.ids.push(key);
    }

    fn spoken(&self) -> Spoken<'_> {
        let (jobs, recipients) = (&self.jobs, &self.recipients);
        (
            ARRIVE,
            vec![
                &self.ids,
                &self.accepted,
                &self.nodes,
                &self.senders,
                &self.eight_bit,
                &self.origins,
                &self.sizes,
                &self.ended,
                &self.headers,
                &self.bodies,
                &self.kept,
                &jobs.messages,
                &jobs.nrs,
                &jobs.routes,
                &jobs.pinned,
                &jobs.lanes,
                &jobs.clients,
                &jobs.senders,
                &jobs.states,
                &jobs.due,
                &jobs.attempts,
                &recipients.messages,
                &recipients.positions,
                &recipients.jobs,
                &recipients.addresses,
                &recipients.states,
                &recipients.replies,
                &recipients.at,
                &recipients.said,
                &recipients.nodes,
                &recipients.routes,
                &recipients.attempts,
                &self.dsn,
                &self.tell_late,
            ],
        )
    }
}

impl ArrivingJobs {
    fn add(&mut self, message: &[u8], job: &MovingJob, moments: Moments) {
        let pinned = job.pinned.as_ref();
        self.messages.push(message.to_vec());
        self.nrs.push(job.nr);
        self.routes.push(clean(job.route.as_str()).into_owned());
        self.pinned
            .push(pinned.map_or_else(String::new, |name| clean(name.as_str()).into_owned()));
        self.lanes
            .push(clean(&coded::lane(job.lane.as_ref())).into_owned());
        self.clients.push(job.pair.client.into());
        self.senders.push(job.pair.sender.into());
        self.states.push(small(coded::state_number(job.state)));
        self.due.push(moments.theirs(job.due));
        self.attempts.push(int(job.attempts));
    }
}

impl ArrivingRecipients {
    fn add(
        &mut self,
        message: &[u8],
        recipient: &MovingRecipient,
        (node, moments): (i64, Moments),
    ) {
        let text = |text: &String| clean(text).into_owned();
        let (delivered, over) = (&recipient.delivered, &recipient.over);
        self.messages.push(message.to_vec());
        self.positions.push(recipient.position);
        self.jobs.push(recipient.job);
        self.addresses.push(text(&recipient.address));
        self.states
            .push(small(coded::recipient_state_number(recipient.state)));
        self.replies.push(recipient.reply.as_ref().map(text));
        self.at
            .push(delivered.as_ref().map(|(at, _)| moments.theirs(*at)));
        self.said
            .push(delivered.as_ref().map(|(_, said)| text(said)));
        self.nodes.push(delivered.as_ref().map(|_| node));
        self.routes.push(
            over.as_ref()
                .map(|(route, _)| clean(route.as_str()).into_owned()),
        );
        self.attempts
            .push(over.as_ref().map(|(_, attempts)| int(*attempts)));
    }
}

/// All of them in one transaction. Written twice, it changes nothing the second time.
pub(super) async fn arrive(
    link: &mut DbLink,
    all: &Arc<[MovingMessage]>,
    (node, moments): (i64, Moments),
) -> Result<(), DbFault> {
    let rows = Arriving::of(all, (node, moments));
    let found = link.begin(&[rows.spoken()]).await?;
    let new = new_ids(found.first().map_or(&[], Vec::as_slice))?;
    let mut lines = LifeLines::of(node);
    for moving in all.iter().filter(|one| new.contains(&one.message.id)) {
        if matches!(moving.message.body, Body::Stored(_)) {
            copy(link, &moving.message).await?;
        }
        for event in &moving.events {
            let at = moments.theirs(event.at);
            lines.add(
                moving.message.id,
                at,
                event.kind,
                &event.recipients,
                &event.text,
            );
        }
    }
    let last: &[Spoken<'_>] = if lines.is_empty() {
        &[]
    } else {
        &[lines.spoken()]
    };
    link.commit(last).await.map(|_| ())
}
