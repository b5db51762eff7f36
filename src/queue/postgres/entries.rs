//! Entries as an operator sees them, some messages at a time; and which messages may have one that a filter takes.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Row;

use super::{
    fault::DbFault,
    link::DbLink,
    values::{get, id, octets},
};
use crate::{
    mail::{
        headers,
        message::MessageId,
        time::{from_micros, micros},
    },
    queue::{
        coded::{self, HELD, WAITING},
        filter::Filter,
        operator::{Entry, EntryRecipient, JobState},
        wishes::KeptWishes,
    },
    route::{ConnectorName, HOLDER, LaneId, RouteName},
};

/// Messages whose entries are read at once.
pub(super) const SOME: usize = 500;

const MESSAGES: &str = "SELECT m.id, m.place, m.sender, m.size, m.accepted, m.origin ->> 'client',
           CASE WHEN $2::boolean THEN c.header END, n.name, m.dsn, m.origin ->> 'copy_of'
    FROM message m LEFT JOIN content c ON $2 AND c.message = m.id LEFT JOIN node n ON n.id = m.node
    WHERE m.id = ANY($1::bytea[])";
const JOBS: &str = "SELECT j.message, j.route, j.state, j.attempts, j.due, j.pinned, j.lane, j.nr, n.name FROM job j
    LEFT JOIN node n ON n.id = j.node AND j.state = 0 WHERE j.message = ANY($1::bytea[])";
const RECIPIENTS: &str =
    "SELECT r.message, r.job, r.address, r.state, r.reply, r.route, r.attempts, n.name FROM recipient r
    LEFT JOIN node n ON n.id = r.node WHERE r.message = ANY($1::bytea[]) ORDER BY r.message, r.position";

/// By message: places between two, and what SQL can judge of their entries. What is left the filter judges.
const BY_MESSAGE: &str = "SELECT m.place, m.id FROM message m
    WHERE m.place BETWEEN $1::bigint AND $2::bigint
      AND m.accepted BETWEEN $3::bigint AND $4::bigint
      AND ($5::text IS NULL OR m.origin ->> 'client' = $5)
      AND $6::bytea[] IS NULL
      AND (EXISTS (SELECT 1 FROM job j WHERE j.message = m.id AND ($7::smallint[] IS NULL OR j.state = ANY($7))
                     AND ($8::text IS NULL OR j.route = $8))
        OR $9::boolean AND EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.route IS NOT NULL
                     AND ($8 IS NULL OR r.route = $8)))
    ORDER BY m.place";
/// The same, of some messages that are named. (The sums: places are no way to them.)
const BY_ID: &str = "SELECT m.place, m.id FROM message m
    WHERE m.id = ANY($6::bytea[]) AND m.place + 0 BETWEEN $1::bigint AND $2::bigint
      AND m.accepted BETWEEN $3::bigint AND $4::bigint
      AND ($5::text IS NULL OR m.origin ->> 'client' = $5)
      AND (EXISTS (SELECT 1 FROM job j WHERE j.message = m.id AND ($7::smallint[] IS NULL OR j.state = ANY($7))
                     AND ($8::text IS NULL OR j.route = $8))
        OR $9::boolean AND EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.route IS NOT NULL
                     AND ($8 IS NULL OR r.route = $8)))
    ORDER BY m.place";
/// By job, where what is done is not asked for: there are fewer of them.
const BY_JOB: &str = "WITH open AS MATERIALIZED (
      SELECT DISTINCT j.message FROM job j
      WHERE ($7::smallint[] IS NULL OR j.state = ANY($7)) AND ($8::text IS NULL OR j.route = $8))
    SELECT m.place, m.id FROM open JOIN message m ON m.id = open.message
    WHERE m.place + 0 BETWEEN $1::bigint AND $2::bigint
      AND m.accepted BETWEEN $3::bigint AND $4::bigint
      AND ($5::text IS NULL OR m.origin ->> 'client' = $5)
      AND $6::bytea[] IS NULL
    ORDER BY m.place";
const PLACES: &str = "SELECT coalesce(max(place), -1) FROM message WHERE place < $1::bigint";

/// A message and its place in lists.
pub(super) type Placed = (i64, MessageId);

/// What SQL can judge of a filter.
pub(super) struct Sifter {
    since: i64,
    older: i64,
    client: Option<String>,
    ids: Option<Vec<Vec<u8>>>,
    states: Option<Vec<i16>>,
    route: Option<String>,
    with_done: bool,
}

impl Sifter {
    pub(super) fn of(filter: &Filter) -> Self {
        let states = filter
            .states
            .iter()
            .map(|state| coded::state_number(*state));
        let states: Vec<i16> = states.filter_map(|state| state.try_into().ok()).collect();
        Self {
            since: filter.since.map_or(i64::MIN, micros),
            older: filter.older.map_or(i64::MAX, micros),
            client: filter.client.clone(),
            ids: (!filter.ids.is_empty()).then(|| octets(&filter.ids)),
            with_done: filter.states.is_empty() || filter.states.contains(&JobState::Done),
            states: (!states.is_empty()).then_some(states),
            route: filter.route.as_ref().map(ToString::to_string),
        }
    }

    pub(super) fn is_by_job(&self) -> bool {
        !self.with_done
    }

    pub(super) fn has_ids(&self) -> bool {
        self.ids.is_some()
    }

    /// Those that may have an entry, by place, of two places and between them. Within a transaction.
    pub(super) async fn between(
        &self,
        link: &mut DbLink,
        low: i64,
        top: i64,
    ) -> Result<Vec<Placed>, DbFault> {
        let question = match (&self.ids, self.with_done) {
            (Some(_), _) => BY_ID,
            (None, true) => BY_MESSAGE,
            (None, false) => BY_JOB,
        };
        let mut values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![
            &low,
            &top,
            &self.since,
            &self.older,
            &self.client,
            &self.ids,
            &self.states,
            &self.route,
        ];
        if question != BY_JOB {
            values.push(&self.with_done);
        }
        let rows = link.one(question, values).await?;
        rows.iter()
            .map(|row| Ok((get(row, 0)?, id(row, 1)?)))
            .collect()
    }
}

/// The highest place below this one, if there is a message. Within a transaction.
pub(super) async fn highest(link: &mut DbLink, below: i64) -> Result<Option<i64>, DbFault> {
    let rows = link.one(PLACES, vec![&below]).await?;
    let highest = rows.first().map(|row| get::<i64>(row, 0)).transpose()?;
    Ok(highest.filter(|place| *place >= 0))
}

/// What the jobs of an entry come to.
struct Sum {
    state: i64,
    attempts: i32,
    next: Option<i64>,
    pinned: Option<String>,
    lane: Option<String>,
    held_by: Option<String>,
    sent_by: Option<String>,
    recipients: Vec<EntryRecipient>,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            // Of an entry without a job.
            state: i64::MAX,
            attempts: 0,
            next: None,
            pinned: None,
            lane: None,
            held_by: None,
            sent_by: None,
            recipients: Vec::new(),
        }
    }
}

impl Sum {
    fn add_job(&mut self, row: &Row) -> Result<(), DbFault> {
        let state = i64::from(get::<i16>(row, 2)?);
        self.state = self.state.min(state);
        self.attempts = self.attempts.max(get(row, 3)?);
        self.sends(row, 8)?;
        let (pinned, lane): (&str, &str) = (get(row, 5)?, get(row, 6)?);
        if state <= WAITING && !pinned.is_empty() {
            self.pinned = Some(pinned.to_owned());
        }
        if state == HELD && lane.starts_with(HOLDER) {
            self.held_by = Some(lane.to_owned());
        }
        if state == WAITING {
            let due: i64 = get(row, 4)?;
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
            if !lane.is_empty() {
                self.lane = Some(lane.to_owned());
            }
        }
        Ok(())
    }

    fn add_recipient(&mut self, row: &Row) -> Result<(), DbFault> {
        self.recipients.push(EntryRecipient {
            address: get(row, 2)?,
            state: coded::recipient_state(get::<i16>(row, 3)?.into()),
            last_reply: get(row, 4)?,
            notify: None,
        });
        self.attempts = self.attempts.max(get::<Option<i32>>(row, 6)?.unwrap_or(0));
        self.sends(row, 7)
    }

    /// The gateway that sends it, or sent some of it last.
    fn sends(&mut self, row: &Row, at: usize) -> Result<(), DbFault> {
        let name: Option<String> = get(row, at)?;
        self.sent_by = name.filter(|name| !name.is_empty()).or(self.sent_by.take());
        Ok(())
    }
}

/// The entries of messages by the names of their routes, each with the place of its message; in the order of the places given. Within a
/// transaction.
pub(super) async fn entries(
    link: &mut DbLink,
    places: &[Placed],
    with_subject: bool,
) -> Result<Vec<(i64, Entry)>, DbFault> {
    let ids = octets(places.iter().map(|(_, id)| id));
    let found = link
        .go_on(&[
            (MESSAGES, vec![&ids, &with_subject]),
            (JOBS, vec![&ids]),
            (RECIPIENTS, vec![&ids]),
        ])
        .await?;
    let [messages, jobs, recipients] = found.as_slice() else {
        return Ok(Vec::new());
    };
    let mut sums: HashMap<MessageId, BTreeMap<String, Sum>> = HashMap::new();
    let mut routes: HashMap<(MessageId, i32), String> = HashMap::new();
    for row in jobs {
        let (message, route): (_, String) = (id(row, 0)?, get(row, 1)?);
        let sum = sums.entry(message).or_default().entry(route.clone());
        sum.or_default().add_job(row)?;
        routes.insert((message, get(row, 7)?), route);
    }
    for row in recipients {
        let message = id(row, 0)?;
        let own: Option<String> = get(row, 5)?;
        let route = own.or_else(|| {
            let job = get(row, 1).ok()?;
            routes.get(&(message, job)).cloned()
        });
        if let Some(route) = route {
            let sum = sums.entry(message).or_default().entry(route);
            sum.or_default().add_recipient(row)?;
        }
    }
    let rows: HashMap<MessageId, &Row> = messages
        .iter()
        .map(|row| Ok((id(row, 0)?, row)))
        .collect::<Result<_, DbFault>>()?;
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for (place, message) in places {
        let Some(row) = rows.get(message).filter(|_| seen.insert(*message)) else {
            continue;
        };
        for (route, sum) in sums.remove(message).unwrap_or_default() {
            all.push((*place, entry(row, &route, sum)?));
        }
    }
    Ok(all)
}

fn entry(row: &Row, route: &str, mut sum: Sum) -> Result<Entry, DbFault> {
    let header: Option<&[u8]> = get(row, 6)?;
    let wishes = KeptWishes::read(get(row, 8)?);
    for recipient in &mut sum.recipients {
        recipient.notify = wishes.notify(&recipient.address);
    }
    Ok(Entry {
        id: id(row, 0)?,
        route: RouteName::from(route),
        state: coded::state(sum.state),
        sender: get(row, 2)?,
        envid: wishes.id(),
        recipients: sum.recipients,
        attempts: u32::try_from(sum.attempts).unwrap_or_default(),
        next_attempt: sum.next.map(from_micros),
        pinned: sum.pinned.as_deref().map(ConnectorName::from),
        lane: sum.lane.as_deref().map(LaneId::parse),
        held_by: sum.held_by.filter(|_| sum.state == HELD),
        size: u64::try_from(get::<i64>(row, 3)?).unwrap_or_default(),
        accepted: from_micros(get(row, 4)?),
        client: get(row, 5)?,
        copy_of: get::<Option<&str>>(row, 9)?.and_then(|id| id.parse().ok()),
        subject: header.and_then(headers::subject),
        accepted_by: get::<Option<String>>(row, 7)?.filter(|name| !name.is_empty()),
        sent_by: sum.sent_by,
    })
}
