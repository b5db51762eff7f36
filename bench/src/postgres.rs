//! What a PostgreSQL can do for a queue: the statements by which Postern writes a message and what became of it, in batches over some
//! connections, and nothing else. No gateway on this database is faster; one is measured against it in the same minute.
//!
//! The statements are read out of Postern's own source, so this cannot fall behind it.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

const SCHEMA: &str = include_str!("../../src/queue/postgres/schema.sql");
const INSERT: &str = include_str!("../../src/queue/postgres/insert.rs");
const STORED: &str = include_str!("../../src/queue/postgres/stored.rs");
const VERBS: &str = include_str!("../../src/queue/postgres/verbs.rs");
const WRITING: &str = include_str!("../../src/queue/postgres/writing.rs");

/// Where it is, and what is written.
#[derive(Args)]
pub struct Options {
    /// "host=127.0.0.1 port=5432 user=postern dbname=postern password=…"
    #[arg(long)]
    pub server: String,
    /// Connections
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Messages of one transaction
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Messages in all
    #[arg(long, default_value_t = 20_000)]
    pub messages: usize,
    /// Octets of each message
    #[arg(long, default_value_t = 10_240)]
    pub size: usize,
    /// The schema, which is made anew and stays
    #[arg(long, default_value = "bench_raw")]
    pub schema: String,
}

/// The text of a statement of that name in a file of Postern's.
fn statement(file: &'static str, name: &str) -> Result<&'static str> {
    let begin = file
        .find(&format!("const {name}: &str ="))
        .with_context(|| format!("{name} is not there any more"))?;
    let mut parts = file[begin..].splitn(3, '"').skip(1);
    let text = parts.next().context("no text")?;
    if text.contains('\\') {
        bail!("{name} is written in another way than it was");
    }
    Ok(text)
}

/// Writes them, and says how many a second were accepted and settled.
pub fn run(options: &Options) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(measure(options)))
}

async fn connect(options: &Options) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&options.server, NoTls).await?;
    tokio::task::spawn_local(connection);
    Ok(client)
}

async fn measure(options: &Options) -> Result<Value> {
    let schema = &options.schema;
    let maker = connect(options).await?;
    maker
        .batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; SET search_path = {schema}"
        ))
        .await?;
    maker.batch_execute(SCHEMA).await?;
    let mut writers = Vec::new();
    for number in 0..options.connections {
        writers.push(Writer::new(connect(options).await?, options, number).await?);
    }
    let start = Instant::now();
    let mut tasks = Vec::new();
    let each = options
        .messages
        .div_ceil(options.connections.max(1))
        .div_ceil(options.batch.max(1));
    for mut writer in writers {
        tasks.push(tokio::task::spawn_local(async move {
            for turn in 0..each {
                writer.cycle(turn).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let took = start.elapsed().as_secs_f64();
    let written = each * options.batch * options.connections;
    let left =
        "SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM message WHERE ended IS NULL),
                       (SELECT count(*) FROM content), (SELECT count(*) FROM message)";
    let left = maker.query_one(left, &[]).await?;
    let [jobs, open, contents, all]: [i64; 4] =
        [left.get(0), left.get(1), left.get(2), left.get(3)];
    if (jobs, open, contents, all) != (0, 0, 0, i64::try_from(written)?) {
        bail!("{jobs} jobs, {open} open messages, {contents} contents of {all} messages are left");
    }
    Ok(json!({ "messages": written, "cycles_per_second": written as f64 / took }))
}

/// One connection.
struct Writer {
    client: Client,
    begin: String,
    number: usize,
    batch: usize,
    header: Vec<u8>,
    body: Vec<u8>,
    insert: Statement,
    lock: Statement,
    jobs: Statement,
    recipients: Statement,
    deliver: Statement,
    delete: Statement,
    end: Statement,
    discard: Statement,
}

impl Writer {
    async fn new(client: Client, options: &Options, number: usize) -> Result<Self> {
        let schema = &options.schema;
        let begin = format!(
            "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL search_path = {schema}, pg_catalog"
        );
        client.batch_execute(&begin).await?;
        let mut header = String::new();
        for line in 0..8 {
            write!(
                header,
                "X-Header-{line}: something of the length of a field\r\n"
            )?;
        }
        let body = vec![b'x'; options.size.saturating_sub(header.len())];
        let this = Self {
            insert: client.prepare(statement(INSERT, "INSERT")?).await?,
            lock: client.prepare(statement(VERBS, "LOCK")?).await?,
            jobs: client.prepare(statement(STORED, "JOBS")?).await?,
            recipients: client.prepare(statement(STORED, "RECIPIENTS")?).await?,
            deliver: client
                .prepare(statement(WRITING, "WRITE_RECIPIENTS")?)
                .await?,
            delete: client.prepare(statement(WRITING, "DELETE")?).await?,
            end: client.prepare(statement(VERBS, "END")?).await?,
            discard: client.prepare(statement(VERBS, "DISCARD")?).await?,
            begin,
            number,
            batch: options.batch,
            header: header.into_bytes(),
            body,
            client,
        };
        this.client.batch_execute("ROLLBACK").await?;
        Ok(this)
    }

    /// A batch is accepted, and then it is settled.
    async fn cycle(&mut self, turn: usize) -> Result<()> {
        let count = self.batch;
        let ids: Vec<Vec<u8>> = (0..count)
            .map(|n| {
                // In the order of time, as real ones are.
                let id = (turn as u128) << 64 | (self.number as u128) << 32 | n as u128;
                id.to_be_bytes().to_vec()
            })
            .collect();
        self.accept(&ids, count).await?;
        self.settle(&ids, count).await
    }

    async fn accept(&self, ids: &Vec<Vec<u8>>, count: usize) -> Result<()> {
        let origin =
            r#"{"listener":"lan","peer":"10.20.3.4:50123","helo":"printer","client":"devices"}"#;
        let (now, node) = (vec![1_800_000_000_000_000_i64; count], vec![1_i64; count]);
        let (sender, origins) = (vec![Some("erp@corp.example"); count], vec![origin; count]);
        let (eight_bit, sizes) = (vec![false; count], vec![10_240_i64; count]);
        let headers = vec![self.header.as_slice(); count];
        let (bodies, kept) = (vec![Some(self.body.as_slice()); count], vec![1_i16; count]);
        let (nrs, routes, lanes) = (vec![0_i32; count], vec!["all"; count], vec![""; count]);
        let (clients, senders, states) =
            (vec![7_i16; count], vec![9_i16; count], vec![0_i16; count]);
        let (nodes, connectors) = (vec![Some(1_i64); count], vec![Some("sink"); count]);
        let addresses = vec!["somebody@sink.example"; count];
        let values: [&(dyn ToSql + Sync); 24] = [
            ids,
            &now,
            &node,
            &sender,
            &eight_bit,
            &origins,
            &sizes,
            &headers,
            &bodies,
            &kept,
            ids,
            &nrs,
            &routes,
            &lanes,
            &clients,
            &senders,
            &states,
            &now,
            &nodes,
            &connectors,
            ids,
            &nrs,
            &nrs,
            &addresses,
        ];
        let (begun, inserted, committed) = tokio::join!(
            self.client.batch_execute(&self.begin),
            self.client.query(&self.insert, &values),
            self.client.batch_execute("COMMIT")
        );
        begun?;
        committed?;
        if inserted?.len() != count {
            bail!("not all of a batch are new");
        }
        Ok(())
    }

    async fn settle(&self, ids: &Vec<Vec<u8>>, count: usize) -> Result<()> {
        let nrs = vec![0_i32; count];
        let (lock_values, both): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 2]) =
            ([ids], [ids, &nrs]);
        let (begun, locked, jobs, recipients) = tokio::join!(
            self.client.batch_execute(&self.begin),
            self.client.query(&self.lock, &lock_values),
            self.client.query(&self.jobs, &both),
            self.client.query(&self.recipients, &both)
        );
        begun?;
        if [locked?.len(), jobs?.len(), recipients?.len()] != [count; 3] {
            bail!("not all of a batch are there");
        }
        let (states, replies) = (
            vec![3_i16; count],
            vec![Some("250 2.0.0 Ok: queued as 4XyZ1234567890"); count],
        );
        let at = vec![Some(1_800_000_000_500_000_i64); count];
        let (said, nodes) = (
            vec![Some("delivered by sink, 127.0.0.1:2525"); count],
            vec![Some(1_i64); count],
        );
        let (routes, attempts, claims) = (
            vec![Some("all"); count],
            vec![Some(1_i32); count],
            vec![Some(0_i32); count],
        );
        let delivered: [&(dyn ToSql + Sync); 11] = [
            ids, &nrs, &states, &replies, &at, &said, &nodes, &nrs, &routes, &attempts, &claims,
        ];
        let now = 1_800_000_000_500_000_i64;
        let ended: [&(dyn ToSql + Sync); 2] = [ids, &now];
        let (a, b, c, d, committed) = tokio::join!(
            self.client.query(&self.deliver, &delivered),
            self.client.query(&self.delete, &both),
            self.client.query(&self.end, &ended),
            self.client.query(&self.discard, &lock_values),
            self.client.batch_execute("COMMIT")
        );
        for done in [a, b, c, d] {
            done?;
        }
        committed?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_are_found() {
        for (file, name, begin) in [
            (INSERT, "INSERT", "WITH new AS ("),
            (STORED, "JOBS", "SELECT j.message"),
            (STORED, "RECIPIENTS", "SELECT r.message"),
            (VERBS, "LOCK", "SELECT id FROM message"),
            (VERBS, "END", "UPDATE message"),
            (VERBS, "DISCARD", "WITH gone AS ("),
            (WRITING, "WRITE_RECIPIENTS", "UPDATE recipient"),
            (WRITING, "DELETE", "DELETE FROM job"),
        ] {
            assert!(statement(file, name).unwrap().starts_with(begin), "{name}");
        }
        assert!(statement(VERBS, "NONE").is_err());
    }
}
