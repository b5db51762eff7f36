//! One connection: statements are prepared once and sent one behind the other without waiting; and a connection that does not
//! answer in time is lost.
//!
//! Every transaction begins with the same words, which hold for it alone, so a pooler in between may hand connections around.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_postgres::{Client, Error, Row, Statement, types::ToSql};

use super::{
    clock::SharedClock,
    durable::DurabilityFacts,
    fault::{DbFault, is_of_pooler},
    reach::{Unreached, reach},
    settings::Settings,
};

/// A statement and its values.
pub(super) type Spoken<'a> = (&'static str, Vec<&'a (dyn ToSql + Sync)>);

/// What comes when it has been done.
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// See the module. To drop it closes it, whatever is under way.
pub(super) struct DbLink {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    /// The server has warned since this was looked at.
    is_warned: Arc<AtomicBool>,
    begin: Arc<str>,
    patience: Duration,
    pub(super) facts: DurabilityFacts,
    /// Which of the servers it goes to.
    pub(super) place: usize,
    /// Which of those that may be used together it is one of.
    pub(super) epoch: u64,
    is_vouched: bool,
    is_silent: AtomicBool,
    _driver: JoinSet<()>,
}

/// Writes nothing that anybody sees, but into the log.
const VOUCHED_COMMIT: &str =
    "SELECT pg_catalog.pg_logical_emit_message(true, 'postern', ''); COMMIT";

impl DbLink {
    /// To the one of the servers that takes writes; `first` is tried first.
    pub(super) async fn open(
        settings: &Settings,
        clock: &SharedClock,
        first: usize,
    ) -> Result<Self, Unreached> {
        let reached = reach(settings, clock, first).await?;
        Ok(Self {
            client: reached.client,
            statements: HashMap::new(),
            is_warned: reached.is_warned,
            begin: begin(&settings.schema).into(),
            patience: settings.patience,
            facts: reached.facts,
            place: reached.place,
            epoch: 0,
            is_vouched: false,
            is_silent: AtomicBool::new(false),
            _driver: reached.driver,
        })
    }

    /// What is committed next may be there already, by a commit that did not wait for its standbys: the next one writes something in
    /// any case, and so waits for all that was written before it.
    pub(super) fn vouch(&mut self) {
        self.is_vouched = true;
    }

    /// It did not answer in time.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Acquire)
    }

    /// Whether what is prepared here is still there when `other` has been served meanwhile: a pooler that hands each transaction to
    /// another connection loses it.
    pub(super) async fn keeps_statements(&self, other: &Self) -> Result<bool, DbFault> {
        let prepared = self.client.prepare("SELECT 1");
        let statement = match tokio::time::timeout(self.patience, prepared).await {
            Ok(Err(error)) if is_of_pooler(&error) => return Ok(false),
            Ok(prepared) => prepared.map_err(|error| DbFault::of(error, false))?,
            Err(_) => return Err(self.silence(false)),
        };
        other.script("BEGIN").await?;
        let found = tokio::time::timeout(self.patience, self.client.query(&statement, &[])).await;
        other.roll_back().await?;
        match found {
            Ok(Err(error)) if is_of_pooler(&error) => Ok(false),
            Ok(found) => found
                .map(|_| true)
                .map_err(|error| DbFault::of(error, false)),
            Err(_) => Err(self.silence(false)),
        }
    }

    /// A statement alone, outside of a transaction and of the schema.
    pub(super) async fn apart(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DbFault> {
        self.in_time(false, self.client.query(sql, values)).await
    }

    /// Statements without values, one behind the other.
    pub(super) async fn script(&self, sql: &str) -> Result<(), DbFault> {
        self.in_time(false, self.client.batch_execute(sql)).await
    }

    /// Begins a transaction with these statements.
    pub(super) async fn begin(&mut self, spoken: &[Spoken<'_>]) -> Result<Vec<Vec<Row>>, DbFault> {
        self.say((true, false), spoken).await
    }

    /// Goes on with it.
    pub(super) async fn go_on(&mut self, spoken: &[Spoken<'_>]) -> Result<Vec<Vec<Row>>, DbFault> {
        self.say((false, false), spoken).await
    }

    /// Goes on with one statement.
    pub(super) async fn one(
        &mut self,
        sql: &'static str,
        values: Vec<&(dyn ToSql + Sync)>,
    ) -> Result<Vec<Row>, DbFault> {
        let mut found = self.go_on(&[(sql, values)]).await?;
        Ok(found.pop().unwrap_or_default())
    }

    /// Ends it with these.
    pub(super) async fn commit(&mut self, spoken: &[Spoken<'_>]) -> Result<Vec<Vec<Row>>, DbFault> {
        self.say((false, true), spoken).await
    }

    /// A transaction of these alone.
    pub(super) async fn whole(&mut self, spoken: &[Spoken<'_>]) -> Result<Vec<Vec<Row>>, DbFault> {
        self.say((true, true), spoken).await
    }

    /// Gives up what was begun. Where there was nothing, the server only warns.
    pub(super) async fn roll_back(&self) -> Result<(), DbFault> {
        self.script("ROLLBACK").await
    }

    /// All at once: one way to the server and one back.
    async fn say(
        &mut self,
        (begins, commits): (bool, bool),
        spoken: &[Spoken<'_>],
    ) -> Result<Vec<Vec<Row>>, DbFault> {
        let statements = self.prepared(begins, spoken).await?;
        self.is_warned.store(false, Ordering::Release);
        let (client, begin) = (&self.client, &self.begin);
        let mut all: Vec<Later<'_, Result<Vec<Row>, Error>>> = Vec::new();
        if begins {
            all.push(Box::pin(async move {
                client.batch_execute(begin).await.map(|()| Vec::new())
            }));
        }
        for (statement, (_, values)) in statements.iter().zip(spoken) {
            all.push(Box::pin(client.query(statement, values)));
        }
        if commits {
            let end = if self.is_vouched {
                VOUCHED_COMMIT
            } else {
                "COMMIT"
            };
            all.push(Box::pin(async move {
                client.batch_execute(end).await.map(|()| Vec::new())
            }));
        }
        let count = all.len();
        let answered = tokio::time::timeout(self.patience, in_order(all)).await;
        let Ok(answered) = answered else {
            return Err(self.silence(commits));
        };
        let mut found = Vec::with_capacity(count);
        for (at, answer) in answered.into_iter().enumerate() {
            match answer {
                Ok(rows) => found.push(rows),
                // After an error the COMMIT that was sent behind it only ends what was begun.
                Err(error) if at + 1 == count => return Err(DbFault::of(error, commits)),
                Err(error) => {
                    let is_lost = error.code().is_none();
                    return Err(DbFault::of(error, commits && is_lost));
                }
            }
        }
        if commits {
            // A wait for a standby that was cut off shows so, and in nothing else.
            if self.is_warned.load(Ordering::Acquire) {
                return Err(DbFault::Unknown(
                    "the server warned of its commit".to_owned(),
                ));
            }
            found.pop();
            self.is_vouched = false;
        }
        if begins {
            found.remove(0);
        }
        Ok(found)
    }

    /// Statements are prepared in the schema, so within a transaction.
    async fn prepared(
        &mut self,
        begins: bool,
        spoken: &[Spoken<'_>],
    ) -> Result<Vec<Statement>, DbFault> {
        let is_missing = |sql: &&str| !self.statements.contains_key(*sql);
        let missing: Vec<&'static str> = spoken
            .iter()
            .map(|(sql, _)| *sql)
            .filter(is_missing)
            .collect();
        if !missing.is_empty() {
            if begins {
                self.script(&self.begin).await?;
            }
            for sql in missing {
                let statement = self.in_time(false, self.client.prepare(sql)).await?;
                self.statements.insert(sql, statement);
            }
            if begins {
                self.roll_back().await?;
            }
        }
        let found = spoken
            .iter()
            .filter_map(|(sql, _)| self.statements.get(sql).cloned());
        Ok(found.collect())
    }

    async fn in_time<T>(
        &self,
        is_commit: bool,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, DbFault> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(done) => done.map_err(|error| DbFault::of(error, is_commit)),
            Err(_) => Err(self.silence(is_commit)),
        }
    }

    fn silence(&self, is_commit: bool) -> DbFault {
        self.is_silent.store(true, Ordering::Release);
        let why = format!("no answer within {} s", self.patience.as_secs());
        if is_commit {
            DbFault::Unknown(why)
        } else {
            DbFault::Away(why)
        }
    }
}

/// What a transaction begins with, whatever the role or the database has set. No plan may be made for tables that were empty when it was
/// made; and what nobody waits for any more ends some time. A table that can only be read as a whole costs 1e10 then, for which the server
/// would compile the plan (`jit_above_cost`): half a second of its processor, each time.
fn begin(schema: &str) -> String {
    let schema = quoted(schema);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
         SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = 0; \
         SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL search_path = {schema}, pg_catalog"
    )
}

/// A name as SQL takes it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// Polls each in turn, so that they are sent in their order.
async fn in_order<T>(mut all: Vec<Later<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut is_waiting = false;
        for (work, done) in all.iter_mut().zip(&mut done) {
            if done.is_none() {
                match work.as_mut().poll(context) {
                    Poll::Ready(value) => *done = Some(value),
                    Poll::Pending => is_waiting = true,
                }
            }
        }
        if is_waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_a_name() {
        for (name, expected) in [
            ("postern", "\"postern\""),
            ("a\"; DROP TABLE job; --", "\"a\"\"; DROP TABLE job; --\""),
            ("a\0b", "\"ab\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
        assert!(begin("x y").ends_with("search_path = \"x y\", pg_catalog"));
    }
}
