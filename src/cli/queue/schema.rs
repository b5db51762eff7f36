//! `postern queue schema`: what the owner of the database runs where the gateway's role may not make its tables. The database is not asked.

use std::path::PathBuf;

use crate::{
    cli::{
        exit::{CommandError, Ended, Exit},
        output, prepare,
    },
    config::{Secrets, cluster::StoreSettings},
    queue::postgres::script,
};

pub(super) fn run(path: Option<PathBuf>) -> Ended {
    let config = prepare::settings(path, Secrets::Ignore)?;
    let script = script_of(&config.store)?;
    output::lines(script.as_bytes())?;
    Ok(Exit::Ok)
}

/// The schema and its role are those of `[postgres]`.
fn script_of(store: &StoreSettings) -> Result<String, CommandError> {
    match store {
        StoreSettings::Postgres(postgres, _) => Ok(script(&postgres.schema, &postgres.username)),
        StoreSettings::Sqlite => Err(CommandError::new(
            Exit::Config,
            "the queue is in data_dir, which needs no schema: write store = \"postgres\" in [queue], and [postgres], first",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::cluster::{
        ClusterSettings, DatabaseDurability, DatabaseHost, OnOutage, PostgresSettings,
    };

    #[test]
    fn it_is_that_of_the_file() {
        let none = script_of(&StoreSettings::Sqlite).unwrap_err();
        assert_eq!(none.code, 78);
        let postgres = PostgresSettings {
            hosts: vec![DatabaseHost::Socket("/run/postgresql".into())],
            database: "mail".to_owned(),
            username: "relay".to_owned(),
            password: None,
            tls: None,
            schema: "queue".to_owned(),
            connections: 8,
            durability: DatabaseDurability::Primary,
            on_outage: OnOutage::Spill,
        };
        let cluster = ClusterSettings {
            name: "relay-a".to_owned(),
            keys: Vec::new(),
            dead_after: Duration::from_mins(1),
            share_for: Duration::from_hours(1),
            spill_size: 1 << 30,
        };
        let printed = script_of(&StoreSettings::Postgres(Box::new(postgres), cluster)).unwrap();
        assert!(printed.starts_with("BEGIN;\nCREATE SCHEMA IF NOT EXISTS \"queue\";"));
        assert!(printed.contains("GRANT USAGE ON SCHEMA \"queue\" TO \"relay\";"));
    }
}
