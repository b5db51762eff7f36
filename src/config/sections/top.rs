//! What stands before the first section, and `[log]`: the name, the place and the voice of a gateway.

use std::path::PathBuf;

use super::{context::Context, files};
use crate::{
    config::{table::Table, values},
    mail::address::Domain,
    telemetry::{self, Format},
};

pub(super) struct Top {
    pub(super) hostname: String,
    pub(super) data_dir: PathBuf,
    pub(super) default_domain: Option<Domain>,
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Top {
    // A machine may be named anything; what is said in EHLO may not.
    let own_name = || values::domain(&context.env.hostname);
    let hostname = root.parsed("hostname", values::domain).map(|at| at.value);
    let data_dir = root.parsed_or_default("data_dir", files::path);
    Top {
        hostname: hostname
            .or_else(|| own_name().ok())
            .map_or_else(|| "localhost".to_owned(), |name| name.to_string()),
        data_dir: context.path(&data_dir.unwrap_or_default()),
        default_domain: root
            .parsed("default_domain", values::domain)
            .map(|at| at.value),
    }
}

pub(super) fn log(root: &Table<'_>) -> telemetry::Settings {
    let table = root.table("log");
    let settings = telemetry::Settings {
        level: table
            .choice("level", ["error", "warn", "info", "debug", "trace"])
            .to_owned(),
        format: table.choice("format", [Format::Text, Format::Json, Format::Journald]),
    };
    table.finish();
    settings
}
