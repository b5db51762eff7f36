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

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, NoTls, Row, Statement,
    config::{ChannelBinding, SslMode, TargetSessionAttrs},
    types::ToSql,
};

use super::{
    clock::{SharedClock, since_boot},
    fault::{DbFault, is_misconfigured, words},
    settings::{Server, Settings},
    tls::Rustls,
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
    _driver: JoinSet<()>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unreached {
    /// To try again changes nothing: a login or a right is wrong.
    pub(super) is_misconfigured: bool,
    pub(super) why: String,
}

impl DbLink {
    /// To the one of the servers that takes writes.
    pub(super) async fn open(settings: &Settings, clock: &SharedClock) -> Result<Self, Unreached> {
        let hosts: Vec<String> = settings.hosts.iter().map(ToString::to_string).collect();
        let unreached = |is_misconfigured, why: &str| Unreached {
            is_misconfigured,
            why: format!("{}: {why}", hosts.join(", ")),
        };
        let silence = format!("no answer within {} s", settings.patience.as_secs());
        // All of them are tried, each with a part of its own.
        let all = settings.patience * u32::try_from(hosts.len() + 1).unwrap_or(1);
        let opened = tokio::time::timeout(all, Self::connect(settings)).await;
        let opened = opened.map_err(|_| unreached(false, &silence))?;
        let link = opened.map_err(|e| unreached(is_misconfigured(&e), &words(&e)))?;
        let asked = since_boot();
        let said = link.in_time(false, link.client.query_one(CLOCK, &[])).await;
        let said = said.and_then(|row| row.try_get(0).map_err(|e| DbFault::of(e, false)));
        let now: i64 = said.map_err(|e| unreached(false, &e.into_store_error().to_string()))?;
        clock.is(now, (asked, since_boot()));
        Ok(link)
    }

    async fn connect(settings: &Settings) -> Result<Self, Error> {
        let mut config = Config::new();
        config
            .dbname(&settings.database)
            .user(&settings.username)
            .application_name("postern")
            .connect_timeout(settings.patience)
            .keepalives_idle(Duration::from_secs(30))
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .channel_binding(ChannelBinding::Prefer);
        if let Some(password) = &settings.password {
            config.password(password.reveal());
        }
        for server in &settings.hosts {
            match server {
                Server::Host(host, port) => config.host(host).port(*port),
                Server::Socket(directory, port) => config.host_path(directory).port(*port),
            };
        }
        let mut driver = JoinSet::new();
        let is_warned = Arc::new(AtomicBool::new(false));
        let client = if let Some(tls) = &settings.tls {
            config.ssl_mode(SslMode::Require);
            let (client, connection) = config.connect(Rustls(Arc::clone(tls))).await?;
            driver.spawn(drive(connection, Arc::clone(&is_warned)));
            client
        } else {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            driver.spawn(drive(connection, Arc::clone(&is_warned)));
            client
        };
        Ok(Self {
            client,
            statements: HashMap::new(),
            is_warned,
            begin: begin(&settings.schema).into(),
            patience: settings.patience,
            _driver: driver,
        })
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
            all.push(Box::pin(async move {
                client.batch_execute("COMMIT").await.map(|()| Vec::new())
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
        let why = format!("no answer within {} s", self.patience.as_secs());
        if is_commit {
            DbFault::Unknown(why)
        } else {
            DbFault::Away(why)
        }
    }
}

const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// What a transaction begins with, whatever the role or the database has set. No plan may be made for tables that were empty when it was
/// made; and what nobody waits for any more ends some time.
fn begin(schema: &str) -> String {
    let schema = quoted(schema);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
         SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = 0; \
         SET LOCAL enable_seqscan = off; SET LOCAL search_path = {schema}, pg_catalog"
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

/// Carries what is sent and answered, until the connection ends.
async fn drive<S, T>(mut connection: Connection<S, T>, is_warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Whoever waits for an answer hears of an error there.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.severity() == "WARNING"
        {
            is_warned.store(true, Ordering::Release);
        }
    }
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
