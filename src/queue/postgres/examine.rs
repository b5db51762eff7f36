//! What there is to say of a database before anything is trusted to it: where it is, how it keeps what it commits, whether the tables are
//! there and may be used, and who works on them. It changes nothing.

use std::time::{Duration, Instant};

use super::{
    crew::Access,
    durable::DurabilityFacts,
    fault::{DbFault, POOLER},
    link::{DbLink, quoted},
    schema::{OpenError, SCHEMA, found, may_work, missing},
    settings::Settings,
    values::get,
};

/// So long it is watched who beats: each does once a second.
const WATCHED: Duration = Duration::from_millis(2_500);
const PAUSE: Duration = Duration::from_millis(200);

/// Whether the schema could be made.
const MAY_CREATE: &str = "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1::text)
    THEN has_schema_privilege($1, 'CREATE') ELSE has_database_privilege(current_database(), 'CREATE') END";
/// Whether older tables could be brought up to date: by their owner.
const MAY_CHANGE: &str = "SELECT coalesce(bool_and(pg_has_role(current_user, c.relowner, 'USAGE')), false)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname IN ('message', 'schema')";
/// Tables that some right is missing on.
const CLOSED: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT')
      AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
    ORDER BY 1";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The server that takes writes.
    pub server: String,
    /// How it keeps what it commits.
    pub facts: DurabilityFacts,
    /// The version of the schema. `None`: the first gateway makes it.
    pub schema: Option<i32>,
    /// Gateways that beat.
    pub at_work: usize,
}

/// Looks at it; `settings.migrates` means nothing here.
///
/// # Errors
/// As a gateway would be refused.
pub async fn examine(settings: Settings) -> Result<Examined, OpenError> {
    let access = Access::new(settings);
    let mut link = access.open().await?;
    let other = access.open().await?;
    if !link.keeps_statements(&other).await? {
        return Err(OpenError::Refused(POOLER.to_owned()));
    }
    drop(other);
    let schema = &access.settings.schema;
    let version = found(&mut link, schema).await?;
    let mut at_work = 0;
    if let Some(version) = version {
        // The next start makes of older tables those of today.
        if version.0 >= SCHEMA || !may(&link, MAY_CHANGE, schema).await? {
            may_work(&link, schema, version).await?;
        }
        let closed = names(&link, CLOSED, schema).await?;
        if !closed.is_empty() {
            return Err(OpenError::Refused(format!(
                "the role \"{}\" may not use all of {}: have the owner of the database run the last lines of what \"postern queue schema\" \
                 prints, those with GRANT",
                access.settings.username,
                closed.join(", ")
            )));
        }
        at_work = who_beats(&link, schema).await?;
    } else if !may(&link, MAY_CREATE, schema).await? {
        return Err(missing());
    }
    Ok(Examined {
        server: access.server().map(ToString::to_string).unwrap_or_default(),
        facts: access.facts().unwrap_or_default(),
        schema: version.map(|(version, _)| version),
        at_work,
    })
}

async fn may(link: &DbLink, question: &str, schema: &str) -> Result<bool, DbFault> {
    let rows = link.apart(question, &[&schema]).await?;
    let may = rows.first().map(|row| get::<bool>(row, 0)).transpose()?;
    Ok(may.unwrap_or_default())
}

async fn names(link: &DbLink, question: &str, schema: &str) -> Result<Vec<String>, DbFault> {
    let rows = link.apart(question, &[&schema]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Those whose beats are seen to move: a row alone says nothing of its gateway, which may have been switched off.
async fn who_beats(link: &DbLink, schema: &str) -> Result<usize, DbFault> {
    let begun = Instant::now();
    let before = beats(link, schema).await?;
    loop {
        let now = beats(link, schema).await?;
        let moved = now
            .iter()
            .filter(|(id, seen)| before.iter().any(|(was, at)| was == id && at != seen));
        let moved = moved.count();
        if moved >= before.len() || begun.elapsed() > WATCHED {
            return Ok(moved);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn beats(link: &DbLink, schema: &str) -> Result<Vec<(i64, i64)>, DbFault> {
    let question = format!(
        "SELECT id, seen FROM {}.node WHERE gone IS NULL",
        quoted(schema)
    );
    let rows = link.apart(&question, &[]).await?;
    rows.iter()
        .map(|row| Ok((get(row, 0)?, get(row, 1)?)))
        .collect()
}
