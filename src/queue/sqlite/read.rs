//! Reads for delivery and for whoever asks after one message: due times, jobs with their messages, events, counts; and what is
//! to be swept up. It changes no row. The operator's filters are read in `operate`.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::SystemTime,
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    claim::{Leased, next_pair},
    rows::{self, Unread, micros, some, time},
};
use crate::{
    mail::message::MessageId,
    queue::{
        body::BodyStore,
        coded::accepted_words,
        store::{Due, Event, EventKind, Job, Stats, Whose},
        turns::{LOOKED_AT, Pair, RouteLane},
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// A waiting job of the next lane of a route and pin, of the next pin, and of the next route. Three questions, since one
/// over the columns together would step through every job of those that it starts from.
const NEXT_LANE: &str = "SELECT route, pinned, lane FROM job INDEXED BY job_due
     WHERE state = 2 AND route = ?1 AND pinned = ?2 AND lane > ?3 ORDER BY lane LIMIT 1";
const NEXT_PIN: &str = "SELECT route, pinned, lane FROM job INDEXED BY job_due
     WHERE state = 2 AND route = ?1 AND pinned > ?2 ORDER BY pinned, lane LIMIT 1";
const NEXT_ROUTE: &str = "SELECT route, pinned, lane FROM job INDEXED BY job_due
     WHERE state = 2 AND route > ?1 ORDER BY route, pinned, lane LIMIT 1";

/// Each route, pin and lane that has waiting jobs, and when the first of them is due.
pub(super) fn due(conn: &Connection, now: SystemTime) -> rusqlite::Result<Vec<Due>> {
    let mut next_lane = conn.prepare_cached(NEXT_LANE)?;
    let mut next_pin = conn.prepare_cached(NEXT_PIN)?;
    let mut next_route = conn.prepare_cached(NEXT_ROUTE)?;
    let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, String)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    };
    let mut found = Vec::new();
    // From one to the next by the index: as many steps as there are of them, not of jobs.
    let (mut route, mut pinned, mut lane) = (String::new(), String::new(), String::new());
    loop {
        let mut next = next_lane
            .query_row([&route, &pinned, &lane], row)
            .optional()?;
        if next.is_none() {
            next = next_pin.query_row([&route, &pinned], row).optional()?;
        }
        if next.is_none() {
            next = next_route.query_row([&route], row).optional()?;
        }
        let Some(place) = next else {
            break;
        };
        (route, pinned, lane) = place;
        // Without one, somebody has claimed it meanwhile.
        let Some((at, whose)) = first_due(conn, (&route, &pinned, &lane), micros(now))? else {
            continue;
        };
        found.push(Due {
            route: RouteName::from(route.as_str()),
            pinned: some(&pinned).map(ConnectorName::from),
            lane: some(&lane).map(LaneId::parse),
            at: time(at),
            whose,
        });
    }
    Ok(found)
}

/// When the first job of a lane is due, as far as it is looked at; and whose they are.
fn first_due(
    conn: &Connection,
    place: (&str, &str, &str),
    now: i64,
) -> rusqlite::Result<Option<(i64, Whose)>> {
    let Some((first, mut at)) = next_pair(conn, place, Pair::default())? else {
        return Ok(None);
    };
    let (mut looked, mut last) = (1, first);
    while let Some(from) = last.next()
        && let Some((pair, due)) = next_pair(conn, place, from)?
    {
        if looked == LOOKED_AT {
            at = at.min(now);
            break;
        }
        (looked, last, at) = (looked + 1, pair, at.min(due));
        if at <= now {
            // Some are due, and they are not one's alone: more need not be known.
            break;
        }
    }
    Ok(Some((at, Whose::met(first, looked))))
}

/// How many jobs wait where: the index of what waits is read, and nothing else.
pub(super) fn waiting(conn: &Connection) -> rusqlite::Result<Vec<(RouteLane, u64)>> {
    conn.prepare_cached(
        "SELECT route, pinned, lane, count(*) FROM job INDEXED BY job_due WHERE state = 2 GROUP BY route, pinned, lane",
    )?
    .query_map([], |row| {
        let (route, pinned, lane): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let place = (
            RouteName::from(route.as_str()),
            some(&pinned).map(ConnectorName::from),
            some(&lane).map(LaneId::parse),
        );
        Ok((place, row.get::<_, i64>(3)?.unsigned_abs()))
    })?
    .collect()
}

/// Counts, of what is not yet history.
pub(super) fn stats(conn: &Connection) -> rusqlite::Result<Stats> {
    let mut stats = Stats::default();
    // Without GROUP BY, which would sort them all.
    conn.prepare_cached(
        "SELECT count(*) FILTER (WHERE state % 8 = 0), count(*) FILTER (WHERE state % 8 = 1),
                count(*) FILTER (WHERE state % 8 = 2), count(*) FILTER (WHERE state % 8 = 3) FROM job",
    )?
    .query_row([], |row| {
        let count = |at| row.get::<_, i64>(at).map(|n| n as u64);
        (stats.sending, stats.held) = (count(0)?, count(1)?);
        (stats.waiting, stats.failed) = (count(2)?, count(3)?);
        Ok(())
    })?;
    stats.in_doubt = conn
        .prepare_cached("SELECT count(*) FROM job WHERE state % 8 = 2 AND pinned != ''")?
        .query_row([], |row| row.get::<_, i64>(0).map(|n| n as u64))?;
    // Keys grow with time, so the least one is the oldest. (The plus: in the order of the ids, not of the index, to stop at the
    // first.)
    let oldest: Option<i64> = conn
        .prepare_cached(
            "SELECT accepted FROM message WHERE key =
                     (SELECT message FROM job WHERE +state % 8 = 2 ORDER BY id LIMIT 1)",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    stats.oldest = oldest.map(time);
    Ok(stats)
}

/// A job, its message, and why that cannot be read.
pub(super) type Broken = (i64, i64, String);

pub(super) fn jobs(
    conn: &Connection,
    leased: Vec<Leased>,
    bodies: &BodyStore,
) -> rusqlite::Result<(Vec<Job>, Vec<Broken>)> {
    let mut messages = HashMap::new();
    let mut jobs = Vec::with_capacity(leased.len());
    let mut broken = Vec::new();
    for job in leased {
        let key = job.message;
        let read = match messages.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(match rows::load(conn, key, bodies) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => Err("its content is gone".to_owned()),
                Err(Unread::Broken(why)) => Err(why),
                Err(Unread::Store(error)) => return Err(error),
            }),
        };
        match read {
            Ok((message, recipients)) => {
                let open = recipients
                    .iter()
                    .filter(|r| r.job == job.id && r.state.is_open())
                    .map(|r| r.recipient.clone())
                    .collect();
                jobs.push(job.with(message.clone(), open));
            }
            Err(why) => {
                tracing::error!(
                    message = key,
                    why,
                    "a queued message cannot be read and is held"
                );
                broken.push((job.id, key, why.clone()));
            }
        }
    }
    Ok((jobs, broken))
}

pub(super) fn events(conn: &Connection, id: MessageId) -> rusqlite::Result<Vec<Event>> {
    let Some(key) = rows::key(conn, id)? else {
        return Ok(Vec::new());
    };
    let found: Option<(i64, String)> = conn
        .prepare_cached("SELECT accepted, origin FROM message WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((accepted, origin)) = found else {
        return Ok(Vec::new());
    };
    // Every message was accepted: that line is made of its row and costs no row of its own.
    let mut events = vec![Event {
        at: time(accepted),
        kind: EventKind::Accepted,
        recipients: Vec::new(),
        text: rows::origin_from_json(&origin)
            .as_ref()
            .map_or_else(String::new, accepted_words),
    }];
    let mut statement = conn.prepare_cached(
        "SELECT at, kind, recipients, text FROM event WHERE message = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([key])?;
    while let Some(row) = rows.next()? {
        events.push(Event {
            at: time(row.get(0)?),
            kind: EventKind::parse(&row.get::<_, String>(1)?),
            recipients: row
                .get::<_, String>(2)?
                .lines()
                .map(str::to_owned)
                .collect(),
            text: row.get(3)?,
        });
    }
    for delivery in deliveries(conn, key)? {
        // Behind what happened until then, and never before it was accepted, whatever the clock did.
        let earlier = events.iter().rposition(|event| event.at <= delivery.at);
        events.insert(earlier.map_or(1, |at| at + 1), delivery);
    }
    Ok(events)
}

/// The lines that the rows of the recipients tell: one for all who were served together.
fn deliveries(conn: &Connection, key: i64) -> rusqlite::Result<Vec<Event>> {
    let mut statement = conn.prepare_cached(
        "SELECT at, said, address FROM recipient WHERE message = ?1 AND said IS NOT NULL ORDER BY at, position",
    )?;
    let mut rows = statement.query([key])?;
    let mut found: Vec<Event> = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, text, address) = (time(row.get(0)?), row.get::<_, String>(1)?, row.get(2)?);
        match found.iter_mut().find(|e| e.at == at && e.text == text) {
            Some(event) => event.recipients.push(address),
            None => found.push(Event {
                at,
                kind: EventKind::Delivered,
                recipients: vec![address],
                text,
            }),
        }
    }
    Ok(found)
}

/// Deletes the bodies that no row names. Where the database cannot say, they stay.
pub(super) fn delete_orphans(conn: &Connection, bodies: &BodyStore) {
    let is_named = |id| {
        let Some(key) = rows::key(conn, id)? else {
            return Ok(false);
        };
        conn.prepare_cached("SELECT 1 FROM message WHERE key = ?1 AND kept = 2")?
            .exists([key])
    };
    bodies.remove_orphans(|id| !matches!(is_named(id), rusqlite::Result::Ok(false)));
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, params};

    use super::{super::claim::NEXT_PAIR, *};

    #[test]
    fn due_costs_the_same_whatever_waits() {
        let conn = Connection::open_in_memory().unwrap();
        // As `open` has it.
        conn.set_db_config(
            rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG,
            true,
        )
        .unwrap();
        conn.execute_batch(include_str!("../sqlite.sql")).unwrap();
        let mut id = 1 << rows::JOB_BITS;
        for (route, pinned, lane, jobs) in [
            ("a", "", "", 5000),
            ("a", "", "up/m", 5000),
            ("a", "one", "", 3),
            ("a", "one", "one/m", 5000),
            ("b", "", "", 5000),
        ] {
            for due in 0..jobs {
                conn.execute(
                    "INSERT INTO job (id, message, route, pinned, lane, state, due, attempts) VALUES (?5, 1, ?1, ?2, ?3, 2, ?4, 0)",
                    params![route, pinned, lane, due, id],
                )
                .unwrap();
                id += 1;
            }
        }
        for (client, sender) in [(0, 3), (7, 0)] {
            for due in 0..5000 {
                conn.execute(
                    "INSERT INTO job (id, message, route, pinned, lane, state, due, attempts, client, sender)
                     VALUES (?4, 1, 'b', '', '', 2, ?3, 0, ?1, ?2)",
                    params![client, sender, due, id],
                )
                .unwrap();
                id += 1;
            }
        }
        let found = due(&conn, SystemTime::UNIX_EPOCH).unwrap();
        let one = Whose::Of(Pair::default());
        let whose: Vec<_> = found.iter().map(|due| due.whose).collect();
        assert_eq!(whose, [one, one, one, one, Whose::InTurns]);
        let names: Vec<_> = found
            .iter()
            .map(|due| {
                let pin = due.pinned.as_ref().map_or("", ConnectorName::as_str);
                (
                    due.route.to_string(),
                    pin.to_owned(),
                    rows::lane(due.lane.as_ref()),
                )
            })
            .collect();
        let names: Vec<_> = names
            .iter()
            .map(|(route, pin, lane)| (route.as_str(), pin.as_str(), lane.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("a", "", ""),
                ("a", "", "up/m"),
                ("a", "one", ""),
                ("a", "one", "one/m"),
                ("b", "", "")
            ]
        );
        let mut steps = 0;
        for question in [NEXT_LANE, NEXT_PIN, NEXT_ROUTE, NEXT_PAIR] {
            let statement = conn.prepare_cached(question).unwrap();
            steps += statement.get_status(StatementStatus::VmStep);
        }
        assert!((1..1000).contains(&steps), "{steps} steps");
    }
}
