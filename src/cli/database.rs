//! `postern check --connect`, where several gateways share a database: where it is, what a 250 over it means, and what is wrong with it.
//!
//! Needs no running gateway, and changes nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    exit::{CommandError, Exit},
    output,
};
use crate::{
    config::cluster::{ClusterSettings, PostgresSettings},
    gateway::database,
    mail::text::shown_to,
    queue::postgres::{Examined, OpenError, examine},
};

/// Why it cannot be used, in so many octets.
const SHOWN: usize = 900;

/// What came of looking at it.
pub(super) type DatabaseLook = Result<Examined, OpenError>;

/// Looks at the database of `[postgres]`.
pub(super) async fn look(
    postgres: &PostgresSettings,
    cluster: &ClusterSettings,
    data_dir: &Path,
) -> DatabaseLook {
    let settings = database::settings(postgres, cluster, data_dir, false);
    examine(settings.map_err(OpenError::Refused)?).await
}

/// With which status it ends.
pub(super) fn exit(looked: &DatabaseLook) -> Exit {
    match looked {
        Ok(_) => Exit::Ok,
        Err(OpenError::Refused(_)) => Exit::Config,
        Err(OpenError::Away(_)) => Exit::Unavailable,
    }
}

/// Prints it.
pub(super) fn print(looked: &DatabaseLook) -> Result<(), CommandError> {
    output::line(lines(looked))
}

fn lines(looked: &DatabaseLook) -> String {
    let found = match looked {
        Ok(found) => found,
        Err(why) => {
            return format!("failed  store: {}", shown_to(&why.to_string(), SHOWN));
        }
    };
    let schema = found.schema.map_or_else(
        || "no schema yet (the first gateway makes it)".to_owned(),
        |version| format!("schema {version}"),
    );
    let mut text = format!(
        "store       postgres {} at {}, {schema}, {} at work\n            a 250 means: {}",
        found.facts.version,
        found.server,
        output::count(found.at_work as u64, "gateway"),
        found.facts.promise()
    );
    for (warning, remedy) in found.facts.warnings() {
        text = format!("{text}\nwarning     {warning}\n            {remedy}");
    }
    text
}

/// For programs.
pub(super) fn view(looked: &DatabaseLook) -> Value {
    match looked {
        Ok(found) => json!({
            "ok": true, "kind": "postgres", "version": found.facts.version, "host": found.server,
            "schema": found.schema, "gateways": found.at_work, "durability": found.facts.promise(),
            "warnings": found.facts.warnings().iter().map(|(warning, _)| warning).collect::<Vec<_>>(),
        }),
        Err(why) => json!({ "ok": false, "kind": "postgres", "text": why.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::postgres::DurabilityFacts;

    #[test]
    fn what_is_said_of_it() {
        let mut found = Examined {
            server: "db1.corp.example:5432".to_owned(),
            facts: DurabilityFacts {
                fsync: true,
                full_page_writes: true,
                has_standbys: false,
                version: "15.18".to_owned(),
                encoding: "UTF8".to_owned(),
            },
            schema: Some(1),
            at_work: 3,
        };
        let expected = "\
store       postgres 15.18 at db1.corp.example:5432, schema 1, 3 gateways at work
            a 250 means: on the disk of the primary
warning     synchronous_standby_names is empty: a failover may forget mail that was answered with 250 just before it.
            Let the database have synchronous standbys (Patroni: synchronous_mode), then write durability = \"quorum\"";
        assert_eq!(lines(&Ok(found.clone())), expected);
        assert_eq!(exit(&Ok(found.clone())).code(), 0);
        (found.facts.has_standbys, found.schema, found.at_work) = (true, None, 0);
        let expected = "\
store       postgres 15.18 at db1.corp.example:5432, no schema yet (the first gateway makes it), 0 gateways at work
            a 250 means: on the disks of the primary and of its synchronous standbys";
        assert_eq!(lines(&Ok(found)), expected);
        let away = Err(OpenError::Away("db1.corp.example:5432: refused".to_owned()));
        let expected = "failed  store: the database is away (db1.corp.example:5432: refused)";
        assert_eq!(
            (lines(&away), exit(&away).code()),
            (expected.to_owned(), 69)
        );
        assert_eq!(exit(&Err(OpenError::Refused(String::new()))).code(), 78);
    }
}
