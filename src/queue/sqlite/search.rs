//! A search: newest first, until there is enough or the time is over, and without an index, so that what is accepted pays nothing
//! for it.
//!
//! The keys of messages grow with time: it goes down by them, some at a time. A sieve, of what is cheap to ask, leaves the messages
//! that may have an entry; the filter judges those.

use std::{
    fmt::Write as _,
    time::{Instant, SystemTime},
};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, types::Value};

use super::{
    operate,
    rows::{self, JOB_BITS, micros, state_number, time},
};
use crate::{
    mail::message::MessageId,
    queue::{
        filter::is_of,
        store::{Filter, FoundEntries, JobState, ListMark, Search},
    },
};

/// So many keys are looked at together, at first and at most: behind each look it is seen whether there is time.
const FEW: i64 = 256;
const MANY: i64 = 8192;
/// Behind every key whose jobs have ids.
const END: i64 = i64::MAX >> JOB_BITS;

/// See the module. All of one moment.
pub(super) fn search(conn: &Connection, search: &Search) -> rusqlite::Result<FoundEntries> {
    let _snapshot = conn.unchecked_transaction()?;
    let mut look = Searcher {
        conn,
        search,
        found: FoundEntries::default(),
    };
    if search.limit > 0 {
        look.go()?;
    }
    Ok(look.found)
}

struct Searcher<'a> {
    conn: &'a Connection,
    search: &'a Search,
    found: FoundEntries,
}

impl Searcher<'_> {
    fn go(&mut self) -> rusqlite::Result<()> {
        let below = match &self.search.from {
            None => END,
            Some(ListMark {
                message,
                behind: None,
            }) => *message,
            Some(ListMark { message, .. }) => message.saturating_add(1),
        };
        let mut below = below.clamp(0, END);
        let filter = &self.search.filter;
        if !filter.ids.is_empty() {
            for key in operate::keys(self.conn, &filter.ids)?.into_iter().rev() {
                if key < below && self.is_enough(key)? {
                    break;
                }
            }
            return Ok(());
        }
        let sieve = Sieve::new(self.conn, filter);
        let mut highest = self.conn.prepare(sieve.highest())?;
        let mut question = self.conn.prepare(&sieve.question)?;
        let mut some = FEW;
        while let Some(top) = highest.query_row([below], |row| row.get::<_, Option<i64>>(0))? {
            let low = top.saturating_sub(some - 1).max(0);
            for key in sieve.keys(&mut question, low, top)? {
                if self.is_enough(key)? {
                    return Ok(());
                }
            }
            if self.is_over() {
                self.ends_at(low, accepted_from(self.conn, low)?);
                return Ok(());
            }
            (below, some) = (low, (some * 2).min(MANY));
        }
        Ok(())
    }

    /// Takes the entries of a message; whether it ends here.
    fn is_enough(&mut self, key: i64) -> rusqlite::Result<bool> {
        let Search { filter, from, .. } = self.search;
        let given = from.as_ref().filter(|mark| mark.message == key);
        let given = given.and_then(|mark| mark.behind.as_ref());
        let mut accepted = None;
        for route in routes(self.conn, key)? {
            let entry = operate::entry(self.conn, &(key, route), filter.subjects)?;
            accepted = Some(entry.accepted);
            if given.is_some_and(|given| entry.route <= *given) || !filter.takes(&entry) {
                continue;
            }
            let behind = Some(entry.route.clone());
            self.found.entries.push(entry);
            if self.found.entries.len() >= self.search.limit {
                self.found.next = Some(ListMark {
                    message: key,
                    behind,
                });
                return Ok(true);
            }
        }
        let is_over = self.is_over();
        if is_over {
            self.ends_at(key, accepted);
        }
        Ok(is_over)
    }

    fn is_over(&self) -> bool {
        let deadline = self.search.deadline;
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn ends_at(&mut self, key: i64, accepted: Option<SystemTime>) {
        self.found.next = Some(ListMark {
            message: key,
            behind: None,
        });
        self.found.searched_to = accepted;
    }
}

/// When the first message from this key on was accepted.
fn accepted_from(conn: &Connection, key: i64) -> rusqlite::Result<Option<SystemTime>> {
    conn.prepare_cached("SELECT accepted FROM message WHERE key >= ?1 ORDER BY key LIMIT 1")?
        .query_row([key], |row| row.get(0).map(time))
        .optional()
}

/// The routes of a message, by name.
fn routes(conn: &Connection, key: i64) -> rusqlite::Result<Vec<String>> {
    conn.prepare_cached(
        "SELECT route FROM job WHERE id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575
         UNION SELECT route FROM recipient WHERE message = ?1 AND route IS NOT NULL ORDER BY 1",
    )?
    .query_map([key], |row| row.get(0))?
    .collect()
}

/// What leaves the messages that may have an entry: SQL in part, and what is seen of its rows.
struct Sieve<'a> {
    conn: &'a Connection,
    filter: &'a Filter,
    /// Only of what is not done, so over the jobs.
    over_jobs: bool,
    /// Asks for key, sender, origin, id, address, reply: what is needed of them. By `?1` and `?2`, the lowest key and the highest.
    question: String,
    values: Vec<Value>,
}

impl<'a> Sieve<'a> {
    fn new(conn: &'a Connection, filter: &'a Filter) -> Self {
        let over_jobs = !filter.states.is_empty() && !filter.states.contains(&JobState::Done);
        let mut sieve = Self {
            conn,
            filter,
            over_jobs,
            question: String::new(),
            values: vec![Value::Null, Value::Null],
        };
        let (jobs, done) = sieve.conditions();
        let of = |is_needed: bool, column| if is_needed { column } else { "NULL" };
        let has_text = filter.text.is_some();
        let columns = [
            of(filter.sender.is_some() || has_text, "m.sender"),
            of(filter.client.is_some(), "m.origin"),
            of(has_text, "m.id"),
            of(sieve.looks_at_recipients(), "r.address"),
            of(has_text, "r.reply"),
        ]
        .join(", ");
        let mut from = if over_jobs {
            format!("SELECT m.key, {columns} FROM job j CROSS JOIN message m ON m.key = j.message")
        } else {
            format!("SELECT m.key, {columns} FROM message m")
        };
        if sieve.looks_at_recipients() {
            from.push_str(" CROSS JOIN recipient r ON r.message = m.key");
        }
        if over_jobs {
            let _ = write!(
                from,
                " WHERE j.id BETWEEN ?1 << 20 AND (?2 << 20) + 1048575{jobs}"
            );
        } else {
            let _ = write!(from, " WHERE m.key BETWEEN ?1 AND ?2");
            if !jobs.is_empty() || !done.is_empty() {
                let _ = write!(
                    from,
                    " AND (EXISTS (SELECT 1 FROM recipient x WHERE x.message = m.key AND x.route IS NOT NULL{done})
                        OR EXISTS (SELECT 1 FROM job j
                                   WHERE j.id BETWEEN m.key << 20 AND (m.key << 20) + 1048575{jobs}))"
                );
            }
        }
        for (is, at) in [(">=", filter.since), ("<=", filter.older)] {
            if let Some(at) = at {
                let at = sieve.value(Value::Integer(micros(at)));
                let _ = write!(from, " AND m.accepted {is} {at}");
            }
        }
        from.push_str(if over_jobs {
            " ORDER BY j.id DESC"
        } else {
            " ORDER BY m.key DESC"
        });
        sieve.question = from;
        sieve
    }

    /// What a job must be, and what a recipient whose job is gone.
    fn conditions(&mut self) -> (String, String) {
        let filter = self.filter;
        let (mut jobs, mut done) = (String::new(), String::new());
        if !filter.states.is_empty() {
            let states = filter.states.iter().map(|s| state_number(*s).to_string());
            let states: Vec<String> = states.collect();
            // The plus: in the order of the ids, not of an index.
            let _ = write!(jobs, " AND +j.state % 8 IN ({})", states.join(", "));
            if !filter.states.contains(&JobState::Done) {
                done.push_str(" AND 0");
            }
        }
        if let Some(route) = &filter.route {
            let route = self.value(Value::Text(route.to_string()));
            let _ = write!(jobs, " AND +j.route = {route}");
            let _ = write!(done, " AND x.route = {route}");
        }
        if let Some(of) = &filter.connector {
            let name = self.value(Value::Text(of.name.to_string()));
            let routes = of.routes.iter();
            let routes: Vec<String> = routes
                .map(|route| self.value(Value::Text(route.to_string())))
                .collect();
            let routes = routes.join(", ");
            let _ = write!(
                jobs,
                " AND (j.pinned = {name} OR substr(j.lane, 1, length({name}) + 1) IN ({name}, {name} || '/')
                    OR +j.route IN ({routes}))"
            );
            let _ = write!(done, " AND x.route IN ({routes})");
        }
        (jobs, done)
    }

    /// Its parameter.
    fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    fn looks_at_recipients(&self) -> bool {
        self.filter.recipient.is_some() || self.filter.text.is_some()
    }

    /// Asks for the highest key below one that may be left.
    fn highest(&self) -> &'static str {
        if self.over_jobs {
            "SELECT max(id) >> 20 FROM job WHERE id < ?1 << 20"
        } else {
            "SELECT max(key) FROM message WHERE key < ?1"
        }
    }

    /// What is left between two keys, newest first.
    fn keys(&self, question: &mut Statement<'_>, low: i64, top: i64) -> rusqlite::Result<Vec<i64>> {
        let range = [Value::Integer(low), Value::Integer(top)];
        let values = range.iter().chain(self.values.iter().skip(2));
        let mut rows = question.query(rusqlite::params_from_iter(values))?;
        let (mut keys, mut seen) = (Vec::new(), SeenMessage::default());
        while let Some(row) = rows.next()? {
            let key = row.get(0)?;
            if seen.key != Some(key) {
                keys.extend(self.left(&seen)?);
                seen = self.begin(key, row)?;
            }
            if seen.may_be {
                self.look_at_recipient(&mut seen, row)?;
            }
        }
        keys.extend(self.left(&seen)?);
        Ok(keys)
    }

    /// What the row of a message says.
    fn begin(&self, key: i64, row: &Row<'_>) -> rusqlite::Result<SeenMessage> {
        let filter = self.filter;
        let sender = row.get_ref(1)?.as_str_or_null()?;
        let mut seen = SeenMessage {
            key: Some(key),
            may_be: filter.takes_sender(sender),
            ..SeenMessage::default()
        };
        if let (true, Some(client)) = (seen.may_be, &filter.client) {
            let origin = row.get_ref(2)?.as_str()?;
            seen.may_be = rows::client_of(origin).as_deref() == Some(client);
        }
        if let (true, Some(text)) = (seen.may_be, &filter.text) {
            let id = MessageId::from_bytes(row.get(3)?);
            seen.has_text = text.is_in(sender.unwrap_or("<>")) || text.is_in(&id.to_string());
        }
        Ok(seen)
    }

    fn look_at_recipient(&self, seen: &mut SeenMessage, row: &Row<'_>) -> rusqlite::Result<()> {
        if let (true, Some(pattern)) = (!seen.has_recipient, &self.filter.recipient) {
            seen.has_recipient = is_of(pattern, row.get_ref(4)?.as_str_or_null()?);
        }
        if let (true, Some(text)) = (!seen.has_text, &self.filter.text) {
            let said = |at| -> rusqlite::Result<bool> {
                let said = row.get_ref(at)?.as_str_or_null()?;
                Ok(said.is_some_and(|said| text.is_in(said)))
            };
            seen.has_text = said(4)? || said(5)?;
        }
        Ok(())
    }

    /// The message, if it may have an entry.
    fn left(&self, seen: &SeenMessage) -> rusqlite::Result<Option<i64>> {
        let Some(key) = seen.key.filter(|_| seen.may_be) else {
            return Ok(None);
        };
        let filter = self.filter;
        if filter.recipient.is_some() && !seen.has_recipient {
            return Ok(None);
        }
        let is_left = match &filter.text {
            Some(text) if !seen.has_text => {
                let subject = if filter.subjects {
                    operate::subject(self.conn, key)?
                } else {
                    None
                };
                subject.is_some_and(|subject| text.is_in(&subject))
            }
            _ => true,
        };
        Ok(is_left.then_some(key))
    }
}

/// What is known of a message whose rows are read.
#[derive(Default)]
struct SeenMessage {
    key: Option<i64>,
    may_be: bool,
    has_recipient: bool,
    has_text: bool,
}
