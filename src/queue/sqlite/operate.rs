//! What an operator sees and wishes: lists and verbs.
//!
//! A verb first picks jobs into a temporary table and then
//! acts on all of them with a few statements, so a hundred thousand cost about as many steps as rows.

use std::{fmt::Write as _, time::SystemTime};

use rusqlite::{Connection, params, types::Value};

use super::{
    op::Change,
    retention::close,
    rows::{self, micros, state_number},
};
use crate::{
    mail::{address::Address, message::MessageId},
    queue::store::{Entry, EntryRecipient, EventKind, Filter, JobState, Verb},
    route::{ConnectorName, LaneId, RouteName},
};

/// Picks the further jobs of the entries that are picked. (The plus keeps SQLite from making an index of all routes first.)
const FURTHER: &str = "INSERT OR IGNORE INTO temp.picked SELECT j.id, j.message, j.route, j.state
     FROM (SELECT DISTINCT message, route FROM temp.picked) p
     CROSS JOIN job j ON j.id BETWEEN p.message << 20 AND (p.message << 20) + 1048575 AND +j.route = p.route";

/// A message and a route.
pub(super) type EntryKey = (i64, String);

/// The part of a filter that SQL can judge.
struct Condition {
    /// Over `job j`; the entry's state is the least of its jobs'.
    jobs: String,
    /// Over `recipient r`: entries without a job are done. `None`: not asked for.
    done: Option<String>,
    values: Vec<Value>,
}

impl Condition {
    fn new(filter: &Filter) -> Self {
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
            // The plus: in the order of the ids, not of an index, so that a list may end at its limit.
            let _ = write!(jobs, " AND +j.state IN ({})", list.join(", "));
        }
        if let Some(id) = filter.id {
            values.push(Value::Blob(id.to_bytes().to_vec()));
            let key = rows::key_of(values.len());
            let _ = write!(
                jobs,
                " AND j.id BETWEEN {key} << 20 AND ({key} << 20) + 1048575"
            );
            let _ = write!(done, " AND r.message = {key}");
        }
        if let Some(route) = &filter.route {
            values.push(Value::Text(route.as_str().to_owned()));
            let _ = write!(jobs, " AND j.route = ?{}", values.len());
            let _ = write!(done, " AND r.route = ?{}", values.len());
        }
        if let Some(older) = filter.older {
            values.push(Value::Integer(micros(older)));
            let accepted = "(SELECT accepted FROM message WHERE key =";
            let _ = write!(jobs, " AND {accepted} j.message) <= ?{}", values.len());
            let _ = write!(done, " AND {accepted} r.message) <= ?{}", values.len());
        }
        let is_asked = filter.states.is_empty() || filter.states.contains(&JobState::Done);
        Self {
            jobs,
            done: is_asked.then_some(done),
            values,
        }
    }
}

/// Whether SQL alone can judge the filter.
pub(super) fn is_plain(filter: &Filter) -> bool {
    filter.sender.is_none() && filter.recipient.is_none() && filter.limit.is_none()
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
    let Condition { jobs, done, values } = Condition::new(filter);
    let mut statement = conn.prepare_cached(&question(&jobs, done.as_deref()))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if filter.limit.is_some_and(|limit| found.len() >= limit) {
            break;
        }
        let key: EntryKey = (row.get(0)?, row.get(1)?);
        if patterns_match(conn, filter, &key)? {
            found.push(key);
        }
    }
    Ok(found)
}

fn patterns_match(conn: &Connection, filter: &Filter, key: &EntryKey) -> rusqlite::Result<bool> {
    if let Some(pattern) = &filter.sender {
        let sender: Option<String> = conn
            .prepare_cached("SELECT sender FROM message WHERE key = ?1")?
            .query_row([key.0], |row| row.get(0))?;
        let sender = match sender.as_deref().map(Address::parse) {
            Some(Err(_)) => return Ok(false),
            Some(Ok(address)) => Some(address),
            None => None,
        };
        if !pattern.matches(sender.as_ref()) {
            return Ok(false);
        }
    }
    if let Some(pattern) = &filter.recipient {
        return Ok(recipients(conn, key)?.iter().any(|recipient| {
            Address::parse(&recipient.address).is_ok_and(|a| pattern.matches(Some(&a)))
        }));
    }
    Ok(true)
}

fn recipients(conn: &Connection, key: &EntryKey) -> rusqlite::Result<Vec<EntryRecipient>> {
    conn.prepare_cached(
        "SELECT r.address, r.state, r.reply FROM recipient r LEFT JOIN job j ON j.id = r.job
         WHERE r.message = ?1 AND coalesce(r.route, j.route) = ?2 ORDER BY r.position",
    )?
    .query_map(params![key.0, key.1], |row| {
        Ok(EntryRecipient {
            address: row.get(0)?,
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
        .map(|key| entry(conn, &key))
        .collect()
}

fn entry(conn: &Connection, key: &EntryKey) -> rusqlite::Result<Entry> {
    let recipients = recipients(conn, key)?;
    conn.prepare_cached(
        "SELECT m.id, m.sender, m.size, m.accepted, coalesce(min(j.state), 4),
                max(coalesce(max(j.attempts), 0),
                    (SELECT coalesce(max(attempts), 0) FROM recipient WHERE message = ?1 AND route = ?2)),
                min(CASE WHEN j.state = 2 THEN j.due END), max(CASE WHEN j.state < 3 THEN j.pinned END),
                max(CASE WHEN j.state = 2 THEN j.lane END)
         FROM message m LEFT JOIN job j ON j.id BETWEEN m.key << 20 AND (m.key << 20) + 1048575 AND j.route = ?2
         WHERE m.key = ?1 GROUP BY m.key",
    )?
    .query_row(params![key.0, key.1], |row| {
        Ok(Entry {
            id: MessageId::from_bytes(row.get(0)?),
            route: RouteName::from(key.1.as_str()),
            state: rows::state(row.get(4)?),
            sender: row.get(1)?,
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
            size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            accepted: rows::time(row.get(3)?),
        })
    })
}

/// Carries out a verb on what the filter takes, or on the entries found before; the number of entries it took.
pub(super) fn command(
    change: &mut Change<'_>,
    filter: &Filter,
    found: Option<&[EntryKey]>,
    verb: &Verb,
    now: SystemTime,
) -> rusqlite::Result<u64> {
    let conn = change.conn;
    conn.execute_batch("DELETE FROM temp.picked")?;
    if let Some(found) = found {
        let mut pick = conn.prepare_cached(
            "INSERT OR IGNORE INTO temp.picked SELECT id, message, route, state FROM job
             WHERE id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575 AND route = ?2",
        )?;
        for (message, route) in found {
            pick.execute(params![message, route])?;
        }
    } else {
        // What is done takes no verb.
        let Condition { jobs, values, .. } = Condition::new(filter);
        conn.prepare_cached(&format!(
            "INSERT INTO temp.picked SELECT j.id, j.message, j.route, j.state FROM job j WHERE {jobs}"
        ))?
        .execute(rusqlite::params_from_iter(values))?;
        // With them the further jobs of the same entries.
        conn.execute_batch(FURTHER)?;
    }
    apply(change, verb, now)
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
        apply(change, &verb, now)?;
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
            &[jobs!("state = 2")],
        ),
        Verb::Fail => (
            "state IN (0, 1, 2)",
            EventKind::Failed,
            "given up by the operator, route ",
            &[
                recipients!("state = 2 WHERE state < 2 AND"),
                jobs!("state = 3"),
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
            &[jobs!("route = :route, pinned = '', lane = ''")],
        ),
    };
    Rule {
        takes,
        event: (kind, text),
        steps,
        ends: matches!(verb, Verb::Fail | Verb::Drop),
    }
}

/// Acts on `picked`.
fn apply(change: &mut Change<'_>, verb: &Verb, now: SystemTime) -> rusqlite::Result<u64> {
    let conn = change.conn;
    let rule = rule(verb);
    // What the verb means nothing to, it does not take: `picked` keeps the rest.
    let takes = rule.takes;
    conn.execute_batch(&format!("DELETE FROM temp.picked WHERE NOT ({takes})"))?;
    let taken: i64 = conn.query_row(
        "SELECT count(*) FROM (SELECT DISTINCT message, route FROM temp.picked)",
        [],
        |row| row.get(0),
    )?;
    if taken == 0 {
        return Ok(0);
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
    Ok(taken as u64)
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
            id: Some(MessageId::new(SystemTime::UNIX_EPOCH, 1)),
            states: vec![crate::queue::store::JobState::Waiting],
            ..Filter::default()
        };
        let Condition { jobs, values, .. } = Condition::new(&of);
        let one = format!("SELECT j.id FROM job j WHERE {jobs}");
        let list = question(&jobs, None);
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
        let Condition { jobs, .. } = Condition::new(&waiting);
        let statement = conn.prepare_cached(&question(&jobs, None)).unwrap();
        let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
        assert!((1..2000).contains(&steps), "{steps} steps");
    }
}
