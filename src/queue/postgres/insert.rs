//! What was accepted is written down: messages with their content, jobs and recipients become rows, all of them by one statement.
//!
//! What the database has already it keeps as it is: the id decides.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    fault::DbFault,
    link::{DbLink, Spoken},
    values::{clean, id, int, small},
};
use crate::{
    mail::{
        message::{Body, Message, MessageId},
        recipient::Recipient,
    },
    queue::{
        coded::{HELD, SENDING, WAITING, lane, origin_to_json},
        store::{NodeId, Start, StoreError},
        turns::Pair,
        wishes,
    },
    route::Routed,
};

/// Octets of a row of a large body.
pub(super) const CHUNK: usize = 512 * 1024;
/// `content.kept`.
pub(super) const IN_ROW: i16 = 1;
pub(super) const IN_CHUNKS: i16 = 2;

/// In the order of their ids, so that two of these never wait for each other. Jobs are made for what is new, and for nothing else: those
/// of a message that is there may be done. Copies come with their message or not at all.
const INSERT: &str = "WITH new AS (
    INSERT INTO message (id, accepted, node, sender, eight_bit, origin, size, dsn, tell_late)
    SELECT id, accepted, node, sender, eight_bit, origin::jsonb, size, dsn, tell_late
    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::boolean[], $6::text[], $7::bigint[], $25::text[],
                $26::boolean[], $27::bytea[])
         AS m (id, accepted, node, sender, eight_bit, origin, size, dsn, tell_late, with_message)
    WHERE with_message IS NULL OR NOT EXISTS (SELECT FROM message there WHERE there.id = with_message) ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id),
  contents AS (
    INSERT INTO content (message, header, body, kept)
    SELECT new.id, c.header, c.body, c.kept
    FROM unnest($1::bytea[], $8::bytea[], $9::bytea[], $10::smallint[]) AS c (message, header, body, kept)
    JOIN new ON new.id = c.message),
  jobs AS (
    INSERT INTO job (message, nr, route, pinned, lane, client, sender, state, due, attempts, node, claim, connector)
    SELECT new.id, j.nr, j.route, '', j.lane, j.client, j.sender, j.state, j.due, 0, j.node, 0, j.connector
    FROM unnest($11::bytea[], $12::int[], $13::text[], $14::text[], $15::smallint[], $16::smallint[], $17::smallint[],
                $18::bigint[], $19::bigint[], $20::text[])
         AS j (message, nr, route, lane, client, sender, state, due, node, connector)
    JOIN new ON new.id = j.message),
  recipients AS (
    INSERT INTO recipient (message, position, job, address, state)
    SELECT new.id, r.position, r.job, r.address, 0
    FROM unnest($21::bytea[], $22::int[], $23::int[], $24::text[]) AS r (message, position, job, address)
    JOIN new ON new.id = r.message)
SELECT id FROM new";

const CHUNKED: &str = "INSERT INTO chunk (message, seq, octets) VALUES ($1, $2, $3)";

/// Messages to be inserted together.
#[derive(Default)]
pub(super) struct MailRows {
    ids: Vec<Vec<u8>>,
    accepted: Vec<i64>,
    nodes: Vec<i64>,
    senders: Vec<Option<String>>,
    eight_bit: Vec<bool>,
    origins: Vec<String>,
    sizes: Vec<i64>,
    headers: Vec<Octets>,
    bodies: Vec<Option<Octets>>,
    kept: Vec<i16>,
    jobs: NewJobs,
    recipients: NewRecipients,
    dsn: Vec<Option<String>>,
    tell_late: Vec<bool>,
    /// Of copies: their message.
    with: Vec<Option<Vec<u8>>>,
}

#[derive(Default)]
struct NewJobs {
    messages: Vec<Vec<u8>>,
    nrs: Vec<i32>,
    routes: Vec<String>,
    lanes: Vec<String>,
    clients: Vec<i16>,
    senders: Vec<i16>,
    states: Vec<i16>,
    due: Vec<i64>,
    nodes: Vec<Option<i64>>,
    connectors: Vec<Option<String>>,
}

#[derive(Default)]
struct NewRecipients {
    messages: Vec<Vec<u8>>,
    positions: Vec<i32>,
    jobs: Vec<i32>,
    addresses: Vec<String>,
}

/// Octets that are shared, as a value.
#[derive(Debug)]
pub(super) struct Octets(pub(super) Bytes);

impl tokio_postgres::types::ToSql for Octets {
    fn to_sql(
        &self,
        kind: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.as_ref().to_sql(kind, out)
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::BYTEA
    }

    tokio_postgres::types::to_sql_checked!();
}

impl MailRows {
    /// One more with its copies, of this node, accepted `now`.
    pub(super) fn add(&mut self, mail: &Routed, starts: &[Start], node: NodeId, now: i64) {
        self.add_alone(mail, starts, node, now);
        self.with.push(None);
        for copy in &mail.copies {
            self.add_alone(copy, &[], node, now);
            self.with.push(Some(mail.message.id.to_bytes().to_vec()));
        }
    }

    fn add_alone(&mut self, mail: &Routed, starts: &[Start], node: NodeId, now: i64) {
        let message = &mail.message;
        let key = message.id.to_bytes().to_vec();
        let (kept, body) = match &message.body {
            Body::Memory(octets) => (IN_ROW, Some(Octets(octets.clone()))),
            Body::Stored(_) => (IN_CHUNKS, None),
        };
        let sender = message.envelope.sender.as_ref().map(ToString::to_string);
        let pair = Pair::of(&message.origin, sender.as_deref().unwrap_or_default());
        self.ids.push(key.clone());
        self.accepted.push(now);
        self.nodes.push(of(node));
        self.senders
            .push(sender.map(|sender| clean(&sender).into_owned()));
        self.eight_bit.push(message.envelope.eight_bit);
        self.origins.push(origin(message));
        self.dsn.push(wishes::to_json(&message.envelope));
        self.tell_late
            .push(wishes::asks_of_delay(&message.envelope));
        self.sizes
            .push(i64::try_from(message.size()).unwrap_or(i64::MAX));
        self.headers.push(Octets(message.header.clone()));
        self.bodies.push(body);
        self.kept.push(kept);
        let order: HashMap<_, _> = (message.envelope.recipients.iter())
            .map(|recipient| &recipient.address)
            .zip(0_i32..)
            .collect();
        let mut extra = int(order.len());
        for (at, (route, recipients)) in mail.jobs.iter().enumerate() {
            let (state, waits, claimed) = match starts.get(at) {
                Some(Start::Now(node, connector)) => (SENDING, None, Some((node, connector))),
                Some(Start::In(lane)) => (WAITING, Some(lane), None),
                Some(Start::Any) | None => (WAITING, None, None),
                Some(Start::Held(lane)) => (HELD, Some(lane), None),
            };
            let jobs = &mut self.jobs;
            jobs.messages.push(key.clone());
            jobs.nrs.push(int(at));
            jobs.routes.push(clean(route.as_str()).into_owned());
            jobs.lanes.push(clean(&lane(waits)).into_owned());
            jobs.clients.push(pair.client.into());
            jobs.senders.push(pair.sender.into());
            jobs.states.push(small(state));
            jobs.due.push(now);
            jobs.nodes.push(claimed.map(|(node, _)| of(*node)));
            jobs.connectors
                .push(claimed.map(|(_, name)| name.to_string()));
            for Recipient { address, .. } in recipients {
                let position = order.get(address).copied().unwrap_or_else(|| {
                    extra += 1;
                    extra
                });
                self.recipients.messages.push(key.clone());
                self.recipients.positions.push(position);
                self.recipients.jobs.push(int(at));
                self.recipients
                    .addresses
                    .push(clean(&address.to_string()).into_owned());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What is said to insert them; answered with the ids that are new.
    pub(super) fn spoken(&self) -> Spoken<'_> {
        let (jobs, recipients) = (&self.jobs, &self.recipients);
        (
            INSERT,
            vec![
                &self.ids,
                &self.accepted,
                &self.nodes,
                &self.senders,
                &self.eight_bit,
                &self.origins,
                &self.sizes,
                &self.headers,
                &self.bodies,
                &self.kept,
                &jobs.messages,
                &jobs.nrs,
                &jobs.routes,
                &jobs.lanes,
                &jobs.clients,
                &jobs.senders,
                &jobs.states,
                &jobs.due,
                &jobs.nodes,
                &jobs.connectors,
                &recipients.messages,
                &recipients.positions,
                &recipients.jobs,
                &recipients.addresses,
                &self.dsn,
                &self.tell_late,
                &self.with,
            ],
        )
    }
}

/// The ids that an insert was answered with.
pub(super) fn new_ids(rows: &[tokio_postgres::Row]) -> Result<HashSet<MessageId>, DbFault> {
    rows.iter().map(|row| id(row, 0)).collect()
}

/// Copies a large body into the transaction that has made its message.
pub(super) async fn copy(link: &mut DbLink, message: &Message) -> Result<(), DbFault> {
    let unread = |error: std::io::Error| {
        DbFault::Store(StoreError::Unavailable(format!(
            "the body of {}: {error}",
            message.id
        )))
    };
    let key = message.id.to_bytes().to_vec();
    let mut body = message.body.open().await.map_err(unread)?;
    let (mut seq, mut chunk) = (0_i32, Vec::with_capacity(CHUNK));
    loop {
        let piece = body.next().await.map_err(unread)?;
        let is_last = piece.is_none();
        let mut rest = piece.as_deref().unwrap_or_default();
        while !rest.is_empty() || (is_last && !chunk.is_empty()) {
            let (some, others) = rest.split_at(rest.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(some);
            rest = others;
            if chunk.len() < CHUNK && !is_last {
                break;
            }
            link.one(CHUNKED, vec![&key, &seq, &chunk]).await?;
            chunk.clear();
            seq += 1;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// A node as columns have it.
pub(super) fn of(node: NodeId) -> i64 {
    i64::try_from(node.0).unwrap_or(i64::MAX)
}

/// JSON, which here cannot have an octet 0 either.
pub(super) fn origin(message: &Message) -> String {
    let mut origin = message.origin.clone();
    for text in [&mut origin.listener, &mut origin.helo] {
        *text = clean(text).into_owned();
    }
    for text in [&mut origin.client, &mut origin.user].into_iter().flatten() {
        *text = clean(text).into_owned();
    }
    origin_to_json(&origin)
}
