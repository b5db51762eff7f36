//! `postern config schema`: how the configuration file is written, for editors. Needs no config.

use super::{
    exit::{Ended, Exit},
    output,
};
use crate::config::schema;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print a JSON schema of the file: every key with its form, its default and what it is for
    ///
    /// Put it beside the file, `postern config schema > postern.schema.json`, and write `#:schema ./postern.schema.json` as the first
    /// line of the file: editors with Taplo (VS Code: "Even Better TOML") then complete the keys and mark what is wrong.
    Schema,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    match arguments.what {
        What::Schema => output::json(&schema())?,
    }
    Ok(Exit::Ok)
}
