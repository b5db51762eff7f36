//! The schema is made or brought up to date, by one gateway at a time; and whether this program may work on what it finds.

use super::{
    fault::{DbFault, lacks_rights, words},
    link::{DbLink, quoted},
    reach::Unreached,
    values::get,
};
use crate::queue::writer_version::{VERSION, refusal, writer};

/// What this program writes.
pub(super) const SCHEMA: i32 = 2;
/// The tables.
const TABLES: &str = include_str!("schema.sql");
/// What makes of older ones those.
const STEPS: &str = include_str!("steps.sql");

/// Why a queue in a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody has to change something first: a login, a right, the version of a program.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached; later it may.
    #[error("the database is away ({0})")]
    Away(String),
}

impl From<DbFault> for OpenError {
    fn from(fault: DbFault) -> Self {
        match fault {
            DbFault::Refused(error) => Self::Refused(words(&error)),
            other => Self::Away(other.into_store_error().to_string()),
        }
    }
}

impl From<Unreached> for OpenError {
    fn from(unreached: Unreached) -> Self {
        if unreached.is_misconfigured {
            Self::Refused(unreached.why)
        } else {
            Self::Away(unreached.why)
        }
    }
}

/// What the owner of a database runs where the gateway's role may not, for the first time or after an update: the schema and what that
/// role needs of it.
pub fn script(schema: &str, role: &str) -> String {
    let (schema, role) = (quoted(schema), quoted(role));
    format!(
        "BEGIN;\nCREATE SCHEMA IF NOT EXISTS {schema};\nSET LOCAL search_path = {schema};\n\n\
         DO $tables$ BEGIN\nIF to_regclass('schema') IS NULL THEN\n{TABLES}END IF;\nEND $tables$;\n\n{STEPS}\n\
         GRANT USAGE ON SCHEMA {schema} TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};\n\
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};\nCOMMIT;\n"
    )
}

/// Whether the schema is one that this program may work on; made where it is missing and `migrates`.
pub(super) async fn prepare(
    link: &mut DbLink,
    schema: &str,
    migrates: bool,
) -> Result<(), OpenError> {
    match found(link, schema).await? {
        Some(found) if found.0 >= SCHEMA || !migrates => {
            return may_work(link, schema, found).await;
        }
        None if !migrates => return Err(missing()),
        Some(_) | None => {}
    }
    match make(link, schema).await {
        Ok(()) => Ok(()),
        Err(DbFault::Refused(error)) if lacks_rights(&error) => Err(missing()),
        Err(fault) => Err(fault.into()),
    }
}

pub(super) fn missing() -> OpenError {
    OpenError::Refused(format!(
        "the database lacks schema {SCHEMA} of Postern: have its owner run what \"postern queue schema\" prints"
    ))
}

/// A newer one may say that an older program may work on it.
fn is_readable((version, readable_by): (i32, i32)) -> bool {
    version == SCHEMA || version > SCHEMA && readable_by <= SCHEMA
}

/// Whether this program may work on it; if not, which one wrote it: the last that came there with another version.
pub(super) async fn may_work(
    link: &DbLink,
    schema: &str,
    found: (i32, i32),
) -> Result<(), OpenError> {
    if is_readable(found) {
        return Ok(());
    }
    if found.0 < SCHEMA {
        return Err(missing());
    }
    let question = format!(
        "SELECT version FROM {}.node WHERE version <> $1::text ORDER BY id DESC LIMIT 1",
        quoted(schema)
    );
    // Its tables may be other ones: then the number is all there is to say.
    let rows = link.apart(&question, &[&VERSION]).await.unwrap_or_default();
    let version = rows.first().and_then(|row| get::<String>(row, 0).ok());
    let by = writer(version.as_deref(), i64::from(found.0), i64::from(SCHEMA));
    Err(OpenError::Refused(refusal(&by)))
}

/// Whether there is the schema, and whether it has tables of ours. From the catalogue's own rows: what a function says of a name may be
/// what was so before another's transaction, for which this one has waited.
async fn there(link: &DbLink, schema: &str) -> Result<(bool, bool), DbFault> {
    const THERE: &str = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1::text),
        EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1::text AND c.relname = 'schema')";
    let rows = link.apart(THERE, &[&schema]).await?;
    let row = rows.first();
    let found = row.map(|row| Ok::<_, DbFault>((get(row, 0)?, get(row, 1)?)));
    Ok(found.transpose()?.unwrap_or_default())
}

/// The schema's version and the oldest program that may work on it. `None`: there is none.
pub(super) async fn found(
    link: &mut DbLink,
    schema: &str,
) -> Result<Option<(i32, i32)>, OpenError> {
    let table = format!("{}.schema", quoted(schema));
    if !there(link, schema).await?.1 {
        return Ok(None);
    }
    let question = format!("SELECT version, readable_by FROM {table}");
    let rows = match link.apart(&question, &[]).await {
        Err(DbFault::Refused(error)) if lacks_rights(&error) => return Err(missing()),
        rows => rows?,
    };
    let row = rows.first();
    Ok(row
        .map(|row| Ok::<_, DbFault>((get(row, 0)?, get(row, 1)?)))
        .transpose()?)
}

/// Makes it, or brings it up to date. Two who start together: the second finds what the first has made.
async fn make(link: &mut DbLink, schema: &str) -> Result<(), DbFault> {
    let name = quoted(schema);
    link.begin(&[]).await?;
    let made = async {
        let lock = "SELECT pg_advisory_xact_lock(hashtext('postern schema'), hashtext($1))";
        link.apart(lock, &[&schema]).await?;
        let (has_schema, has_tables) = there(link, schema).await?;
        // Who may use a schema that is there need not be allowed to make one.
        if !has_schema {
            link.script(&format!("CREATE SCHEMA {name}")).await?;
        }
        link.script(&format!("SET LOCAL search_path = {name}"))
            .await?;
        link.script(if has_tables { STEPS } else { TABLES }).await
    }
    .await;
    match made {
        Ok(()) => link.commit(&[]).await.map(|_| ()),
        Err(fault) => {
            link.roll_back().await?;
            Err(fault)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_says_who_may_work_on_it() {
        assert!(is_readable((SCHEMA, SCHEMA)) && is_readable((SCHEMA + 1, SCHEMA)));
        assert!(!is_readable((SCHEMA + 2, SCHEMA + 1)) && !is_readable((SCHEMA - 1, 1)));
    }

    #[test]
    fn the_script_names_schema_and_role_safely() {
        let script = script("a\"b", "role; x");
        assert!(script.contains("CREATE SCHEMA IF NOT EXISTS \"a\"\"b\";"));
        assert!(script.contains("ON SCHEMA \"a\"\"b\" TO \"role; x\";"));
    }
}
