//! What an operator sees and wishes: lists and verbs.
//!
//! A verb first picks jobs into a temporary table and then
//! acts on all of them with a few statements, so a hundred thousand cost about as many steps as rows.

use std::{fmt::Write as _, time::SystemTime};

use rusqlite::{Connection, OptionalExtension as _, params, types::Value};

use super::{
    op::Change,
    retention::close,
    rows::{self, micros, state_number},
};
use crate::{
    mail::{headers, message::MessageId},
    queue::{
        filter::is_of,
        store::{Commanded, Entry, EntryRecipient, EventKind, Filter, JobState, Verb},
        wishes::KeptWishes,
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// Picks the further jobs of the entries that are picked. (The plus keeps SQLite from making an index of all routes first.)
const FURTHER: &str = "INSERT OR IGNORE INTO temp.picked SELECT j.id, j.message, j.route, j.state
     FROM (SELECT DISTINCT message, route FROM temp.picked) p
     CROSS JOIN job j ON j.id BETWEEN p.message << 20 AND (p.message << 20) + 1048575 AND +j.route = p.route";

/// A message and a route.
pub(super) type EntryKey = (i64, String);

/// The part of a filter that SQL can judge; `ids` are for the caller to ask for, one by one.
struct Condition {
    /// Over `job j`; the entry's state is the least of its jobs'.
    jobs: String,
    /// Over `recipient r`: entries without a job are done. `None`: not asked for.
    done: Option<String>,
    values: Vec<Value>,
}

impl Condition {
    /// `is_narrow`: of the message whose key is the first value and, unless that is NULL, the route which is the second.
    fn new(filter: &Filter, is_narrow: bool) -> Self {
        let mut jobs = String::from(
            "NOT EXISTS (SELECT 1 FROM job o WHERE o.id BETWEEN j.message << 20 AND (j.message << 20) + 1048575
               AND o.route = j.route AND o.state < j.state)",
        );
        let mut done = String::from(
            "r.route IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job o
               WHERE o.id BETWEEN r.message << 20 AND (r.message << 20) + 1048575 AND o.route = r.route)",
        );
        let mut values = Vec::new();
        if !filter.states.is_empty() {
            let list: Vec<String> = filter
                .states
                .iter()
                .map(|state| state_number(*state).to_string())
                .collect();
            // The plus: in the order of the ids, not of an index, so that a list may end at its limit. What is on its way is what it was.
            let _ = write!(jobs, " AND +j.state % 8 IN ({})", list.join(", "));
        }
        if is_narrow {
            values.extend([Value::Null, Value::Null]);
            jobs.push_str(
                " AND j.id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575 AND (?2 IS NULL OR +j.route = ?2)",
            );
            done.push_str(" AND r.message = ?1 AND (?2 IS NULL OR r.route = ?2)");
        }
        if filter.but_failed_reports {
            jobs.push_str(
                " AND NOT (j.state = 3 AND (SELECT coalesce(sender, origin ->> 'copy_of') FROM message WHERE key = j.message) IS NULL)",
            );
        }
        if let Some(route) = &filter.route {
            values.push(Value::Text(route.as_str().to_owned()));
            let _ = write!(jobs, " AND j.route = ?{}", values.len());
            let _ = write!(done, " AND r.route = ?{}", values.len());
        }
        for (is, at) in [(">=", filter.since), ("<=", filter.older)] {
            if let Some(at) = at {
                values.push(Value::Integer(micros(at)));
                let accepted = "(SELECT accepted FROM message WHERE key =";
                let _ = write!(jobs, " AND {accepted} j.message) {is} ?{}", values.len());
                let _ = write!(done, " AND {accepted} r.message) {is} ?{}", values.len());
            }
        }
        let is_asked = filter.states.is_empty() || filter.states.contains(&JobState::Done);
        Self {
            jobs,
            done: is_asked.then_some(done),
            values,
        }
    }

    /// The values for one message, and one route of it.
    fn of(&self, key: i64, route: Option<&str>) -> Vec<Value> {
        let route = route.map_or(Value::Null, |route| Value::Text(route.to_owned()));
        let others = self.values.iter().skip(2).cloned();
        [Value::Integer(key), route]
            .into_iter()
            .chain(others)
            .collect()
    }
}

/// The keys of messages, oldest first; of those that are there.
pub(super) fn keys(conn: &Connection, ids: &[MessageId]) -> rusqlite::Result<Vec<i64>> {
    let mut keys = Vec::with_capacity(ids.len());
    for id in ids {
        keys.extend(rows::key(conn, *id)?);
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Asks for the entries, oldest first.
fn question(jobs: &str, done: Option<&str>) -> String {
    match done {
        None => format!("SELECT DISTINCT j.message, j.route FROM job j WHERE {jobs} ORDER BY j.id"),
        Some(done) => format!(
            "SELECT j.message, j.route FROM job j WHERE {jobs}
             UNION SELECT r.message, r.route FROM recipient r WHERE {done} ORDER BY 1, 2"
        ),
    }
}

/// The entries a filter takes, oldest first.
pub(super) fn matching(conn: &Connection, filter: &Filter) -> rusqlite::Result<Vec<EntryKey>> {
    let is_narrow = !filter.ids.is_empty();
    let condition = Condition::new(filter, is_narrow);
    let mut statement =
        conn.prepare_cached(&question(&condition.jobs, condition.done.as_deref()))?;
    let asked = if is_narrow {
        let keys = keys(conn, &filter.ids)?.into_iter();
        keys.map(|key| condition.of(key, None)).collect()
    } else {
        vec![condition.values]
    };
    let mut found = Vec::new();
    for values in asked {
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if filter.limit.is_some_and(|limit| found.len() >= limit) {
                return Ok(found);
            }
            let key: EntryKey = (row.get(0)?, row.get(1)?);
            if patterns_match(conn, filter, &key)? {
                found.push(key);
            }
        }
    }
    Ok(found)
}

fn patterns_match(conn: &Connection, filter: &Filter, key: &EntryKey) -> rusqlite::Result<bool> {
    if filter.sender.is_some() {
        let sender: Option<String> = conn
            .prepare_cached("SELECT sender FROM message WHERE key = ?1")?
            .query_row([key.0], |row| row.get(0))?;
        if !filter.takes_sender(sender.as_deref()) {
            return Ok(false);
        }
    }
    if let Some(pattern) = &filter.recipient {
        let recipients = recipients(conn, key, &KeptWishes::default())?;
        let is_meant = |r: &EntryRecipient| is_of(pattern, Some(&r.address));
        if !recipients.iter().any(is_meant) {
            return Ok(false);
        }
    }
    Ok(!filter.needs_entry() || filter.takes(&entry(conn, key, filter.subjects)?))
}

fn recipients(
    conn: &Connection,
    key: &EntryKey,
    wishes: &KeptWishes<'_>,
) -> rusqlite::Result<Vec<EntryRecipient>> {
    conn.prepare_cached(
        "SELECT r.address, r.state, r.reply FROM recipient r LEFT JOIN job j ON j.id = r.job
         WHERE r.message = ?1 AND coalesce(r.route, j.route) = ?2 ORDER BY r.position",
    )?
    .query_map(params![key.0, key.1], |row| {
        let address: String = row.get(0)?;
        Ok(EntryRecipient {
            notify: wishes.notify(&address),
            address,
            state: rows::recipient_state(row.get(1)?),
            last_reply: row.get(2)?,
        })
    })?
    .collect()
}

/// Entries for a list.
pub(super) fn list(conn: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Entry>> {
    // All of one moment: an entry may become another one meanwhile.
    let _snapshot = conn.unchecked_transaction()?;
    matching(conn, filter)?
        .into_iter()
        .map(|key| entry(conn, &key, filter.subjects))
        .collect()
}

/// An entry as it is shown; with its subject only where that is wanted.
pub(super) fn entry(
    conn: &Connection,
    key: &EntryKey,
    with_subject: bool,
) -> rusqlite::Result<Entry> {
    let dsn: Option<String> = conn
        .prepare_cached("SELECT dsn FROM message WHERE key = ?1")?
        .query_row([key.0], |row| row.get(0))
        .optional()?
        .flatten();
    let wishes = KeptWishes::read(dsn.as_deref());
    let recipients = recipients(conn, key, &wishes)?;
    let subject = if with_subject {
        subject(conn, key.0)?
    } else {
        None
    };
    conn.prepare_cached(
        "SELECT m.id, m.sender, m.size, m.accepted, coalesce(min(j.state), 4),
                max(coalesce(max(j.attempts), 0),
                    (SELECT coalesce(max(attempts), 0) FROM recipient WHERE message = ?1 AND route = ?2)),
                min(CASE WHEN j.state = 2 THEN j.due END), max(CASE WHEN j.state < 3 THEN j.pinned END),
                max(CASE WHEN j.state = 2 THEN j.lane END), m.origin,
                CASE WHEN min(j.state) % 8 = 1 THEN max(CASE WHEN j.state % 8 = 1 AND j.lane LIKE 'quota %' THEN j.lane END) END
         FROM message m LEFT JOIN job j ON j.id BETWEEN m.key << 20 AND (m.key << 20) + 1048575 AND j.route = ?2
         WHERE m.key = ?1 GROUP BY m.key",
    )?
    .query_row(params![key.0, key.1], |row| {
        Ok(Entry {
            id: MessageId::from_bytes(row.get(0)?),
            route: RouteName::from(key.1.as_str()),
            state: rows::state(row.get(4)?),
            sender: row.get(1)?,
            envid: wishes.id(),
            recipients,
            attempts: row.get(5)?,
            next_attempt: row.get::<_, Option<i64>>(6)?.map(rows::time),
            pinned: row
                .get::<_, Option<String>>(7)?
                .filter(|name| !name.is_empty())
                .map(|name| ConnectorName::from(name.as_str())),
            lane: row
                .get::<_, Option<String>>(8)?
                .filter(|lane| !lane.is_empty())
                .map(|lane| LaneId::parse(&lane)),
            held_by: row.get(10)?,
            size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            accepted: rows::time(row.get(3)?),
            client: rows::client_of(row.get_ref(9)?.as_str()?),
            copy_of: rows::copy_of(row.get_ref(9)?.as_str()?),
            subject,
            accepted_by: None,
            sent_by: None,
        })
    })
}

/// The subject of a message that is still kept.
pub(super) fn subject(conn: &Connection, key: i64) -> rusqlite::Result<Option<String>> {
    let header: Option<Vec<u8>> = conn
        .prepare_cached("SELECT header FROM content WHERE message = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(header.and_then(|header| headers::subject(&header)))
}

/// Carries out a verb on what the filter takes, of the entries that were found before it where SQL alone could not tell.
pub(super) fn command(
    change: &mut Change<'_>,
    filter: &Filter,
    found: Option<&[EntryKey]>,
    verb: &Verb,
    expect: Option<u64>,
    now: SystemTime,
) -> rusqlite::Result<Commanded> {
    let conn = change.conn;
    conn.execute_batch("DELETE FROM temp.picked")?;
    // What is done takes no verb.
    let condition = Condition::new(filter, found.is_some() || !filter.ids.is_empty());
    let mut pick = conn.prepare_cached(&format!(
        "INSERT OR IGNORE INTO temp.picked SELECT j.id, j.message, j.route, j.state FROM job j WHERE {}",
        condition.jobs
    ))?;
    if let Some(found) = found {
        for (key, route) in found {
            let values = condition.of(*key, Some(route));
            pick.execute(rusqlite::params_from_iter(values))?;
        }
    } else if filter.ids.is_empty() {
        pick.execute(rusqlite::params_from_iter(&condition.values))?;
    } else {
        for key in keys(conn, &filter.ids)? {
            pick.execute(rusqlite::params_from_iter(condition.of(key, None)))?;
        }
    }
    // With them the further jobs of the same entries.
    conn.execute_batch(FURTHER)?;
    apply(change, verb, expect, now)
}

/// The wishes of a job that is now settled, in their order.
pub(super) fn obey(
    change: &mut Change<'_>,
    jobs: &[i64],
    wishes: Option<&str>,
    now: SystemTime,
) -> rusqlite::Result<()> {
    for verb in wishes
        .unwrap_or_default()
        .lines()
        .filter_map(|wish| wish.parse::<Verb>().ok())
    {
        change.conn.execute_batch("DELETE FROM temp.picked")?;
        for job in jobs {
            change
                .conn
                .prepare_cached(
                    "INSERT INTO temp.picked SELECT id, message, route, state FROM job WHERE id = ?1",
                )?
                .execute([job])?;
        }
        apply(change, &verb, None, now)?;
    }
    Ok(())
}

/// What a verb means to jobs, and to their recipients.
struct Rule {
    /// The picked jobs that it means something to. A failed recipient beside waiting ones is in a waiting job.
    takes: &'static str,
    /// The kind and the beginning of its line in the life of a message.
    event: (EventKind, &'static str),
    /// What is done to those that are not in flight.
    steps: &'static [&'static str],
    /// A message may be over by it.
    ends: bool,
}

macro_rules! jobs {
    ($($set:literal),*) => {
        concat!("UPDATE job SET ", $($set,)* " WHERE id IN (SELECT job FROM temp.picked)")
    };
}

macro_rules! recipients {
    ($($set:literal),*) => {
        concat!("UPDATE recipient SET ", $($set,)* " recipient.message IN (SELECT message FROM temp.picked)
                 AND recipient.job IN (SELECT job FROM temp.picked)")
    };
}

fn rule(verb: &Verb) -> Rule {
    let (takes, kind, text, steps): (_, _, _, &[&str]) = match verb {
        Verb::Retry => (
            "state IN (0, 2) OR (state = 3 AND (SELECT kept FROM message WHERE key = picked.message) > 0)",
            EventKind::Retried,
            "by the operator, route ",
            &[
                recipients!("state = 0 WHERE state = 2 AND"),
                jobs!("state = 2, due = :now"),
                "UPDATE message SET ended = NULL WHERE ended IS NOT NULL AND key IN (SELECT message FROM temp.picked)",
            ],
        ),
        Verb::Hold => (
            "state IN (0, 2)",
            EventKind::Held,
            "by the operator, route ",
            &[jobs!("state = 1")],
        ),
        Verb::Release => (
            // In flight there is something to release only after a wish to hold.
            "state = 1 OR (state = 0 AND (SELECT wishes FROM job WHERE id = picked.job) IS NOT NULL)",
            EventKind::Released,
            "by the operator, route ",
            &[jobs!(
                "state = 2, lane = CASE WHEN lane LIKE 'quota %' THEN '' ELSE lane END"
            )],
        ),
        Verb::Expire => (
            "state = 1 AND (SELECT lane FROM job WHERE id = picked.job) LIKE 'quota %'",
            EventKind::Held,
            "for too long, route ",
            &[jobs!("state = 2, due = :now")],
        ),
        Verb::Fail => (
            "state IN (0, 1, 2)",
            EventKind::Failed,
            "given up by the operator, route ",
            &[
                recipients!("state = 2 WHERE state < 2 AND"),
                jobs!("state = 3, lane = CASE WHEN lane LIKE 'quota %' THEN '' ELSE lane END"),
            ],
        ),
        Verb::Drop => (
            "state IN (0, 1, 2, 3)",
            EventKind::Dropped,
            "by the operator, route ",
            &[
                recipients!("state = 4 WHERE state < 3 AND"),
                // As `done` does it.
                recipients!(
                    "route = j.route, attempts = j.attempts FROM job j WHERE j.id = recipient.job AND"
                ),
                "DELETE FROM job WHERE id IN (SELECT job FROM temp.picked)",
            ],
        ),
        Verb::Reroute(_) => (
            "state IN (0, 1, 2, 3)",
            EventKind::Rerouted,
            "by the operator, from route ",
            // A pin names a connector that the old route had; the operator has taken that decision.
            &[jobs!(
                "route = :route, pinned = '', lane = CASE WHEN lane LIKE 'quota %' THEN lane ELSE '' END"
            )],
        ),
    };
    Rule {
        takes,
        event: (kind, text),
        steps,
        ends: matches!(verb, Verb::Fail | Verb::Drop),
    }
}

/// Acts on `picked`, unless another number of entries was expected.
fn apply(
    change: &mut Change<'_>,
    verb: &Verb,
    expect: Option<u64>,
    now: SystemTime,
) -> rusqlite::Result<Commanded> {
    let conn = change.conn;
    let rule = rule(verb);
    // What the verb means nothing to, it does not take: `picked` keeps the rest.
    let takes = rule.takes;
    conn.execute_batch(&format!("DELETE FROM temp.picked WHERE NOT ({takes})"))?;
    let taken = conn.query_row(
        "SELECT count(*) FROM (SELECT DISTINCT message, route FROM temp.picked)",
        [],
        |row| row.get::<_, i64>(0),
    )? as u64;
    if expect.is_some_and(|expected| expected != taken) {
        return Ok(Commanded::Unexpected(taken));
    }
    let done = Ok(Commanded::Taken(taken));
    if taken == 0 {
        return done;
    }
    let to = match verb {
        Verb::Reroute(route) => format!(" to {route}"),
        _ => String::new(),
    };
    let (kind, text) = rule.event;
    conn.prepare_cached(
        "INSERT INTO event (message, at, kind, recipients, text)
         SELECT message, ?1, ?2, '', ?3 || route || ?4 || CASE WHEN min(state) = 0 THEN ', when it settles' ELSE '' END
         FROM temp.picked GROUP BY message, route",
    )?
    .execute(params![micros(now), kind.as_str(), text, to])?;
    // In flight: the wish waits for the settlement. Said twice it is kept once.
    conn.prepare_cached(
        "UPDATE job SET wishes = CASE
             WHEN wishes IS NULL THEN ?1
             WHEN wishes = ?1 OR wishes LIKE '%' || char(10) || ?1 THEN wishes
             WHEN length(wishes) > 4000 THEN ?1
             ELSE wishes || char(10) || ?1 END
         WHERE id IN (SELECT job FROM temp.picked WHERE state = 0)",
    )?
    .execute([verb.to_string()])?;
    let mut messages: Vec<i64> = Vec::new();
    if rule.ends {
        messages = conn
            .prepare_cached("SELECT DISTINCT message FROM temp.picked WHERE state > 0")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
    }
    conn.execute_batch("DELETE FROM temp.picked WHERE state = 0")?;
    for step in rule.steps {
        let mut step = conn.prepare(step)?;
        if let Some(at) = step.parameter_index(":now")? {
            step.raw_bind_parameter(at, micros(now))?;
        }
        if let (Some(at), Verb::Reroute(route)) = (step.parameter_index(":route")?, verb) {
            step.raw_bind_parameter(at, route.as_str())?;
        }
        step.raw_execute()?;
    }
    for message in messages {
        close(change, message, None, now)?;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_searches_the_jobs_of_a_message_and_no_others() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../sqlite.sql")).unwrap();
        conn.execute_batch(
            "CREATE TEMP TABLE picked (job INTEGER PRIMARY KEY, message INTEGER, route TEXT, state INTEGER)",
        )
        .unwrap();
        let of = Filter {
            states: vec![crate::queue::store::JobState::Waiting],
            ..Filter::default()
        };
        let condition = Condition::new(&of, true);
        let (jobs, values) = (&condition.jobs, condition.of(1, None));
        let one = format!("SELECT j.id FROM job j WHERE {jobs}");
        let list = question(jobs, None);
        for (sql, values) in [
            (FURTHER, Vec::new()),
            (one.as_str(), values.clone()),
            (list.as_str(), values),
        ] {
            let plan: Vec<String> = conn
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap()
                .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let plan = plan.join("\n");
            assert!(
                plan.contains("SEARCH j USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)")
                    && !plan.contains("AUTOMATIC")
                    && !plan.contains("FOR ORDER BY")
                    && !plan.contains("SCAN j"),
                "{plan}"
            );
        }
    }

    #[test]
    fn a_list_of_what_waits_ends_at_its_limit() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../sqlite.sql")).unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO job (id, message, route, pinned, state, due, attempts)
                 SELECT i << 20, i, 'r', '', 2, 0, 0 FROM n",
        )
        .unwrap();
        let waiting = Filter {
            states: vec![JobState::Waiting],
            limit: Some(10),
            ..Filter::default()
        };
        let found = matching(&conn, &waiting).unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, (1..=10).collect::<Vec<_>>());
        let Condition { jobs, .. } = Condition::new(&waiting, false);
        let statement = conn.prepare_cached(&question(&jobs, None)).unwrap();
        let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
        assert!((1..2000).contains(&steps), "{steps} steps");
    }
}
