//! `postern config`: how the file is written, and what the page wants to change in it.

use std::path::PathBuf;

use super::{
    exit::{Ended, Exit},
    output,
    place::Where,
    proposals,
};
use crate::config::schema;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    what: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Print a JSON schema of the file: every key with its form, its default and what it is for
    ///
    /// Put it beside the file, `postern config schema > postern.schema.json`, and write `#:schema ./postern.schema.json` as the first
    /// line of the file: editors with Taplo (VS Code: "Even Better TOML") then complete the keys and mark what is wrong.
    Schema,
    /// List the changes that were proposed at the page, newest first
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show a proposal, and what it makes of the file
    Show {
        /// Its id, as `list` prints it
        id: String,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what a proposal makes of the file as it is now, write that, and have a running gateway read it
    ///
    /// Ends with 1 where something else stands in the file than the proposal saw, with 78 where the result is no configuration or the
    /// gateway does not take it, and with 73 where the file cannot be written; the file then is as it was.
    Apply {
        /// Its id, as `list` prints it
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give a proposal up
    Drop {
        /// Its id, as `list` prints it
        id: String,
    },
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let Arguments { place, what } = arguments;
    match what {
        ConfigCommand::Schema => {
            output::json(&schema())?;
            Ok(Exit::Ok)
        }
        ConfigCommand::List { json } => proposals::list(&place.find(path)?, *json),
        ConfigCommand::Show { id, json } => proposals::show(&place.find(path)?, id, *json),
        ConfigCommand::Apply { id, yes } => proposals::apply(&place.find(path)?, id, *yes),
        ConfigCommand::Drop { id } => proposals::discard(&place.find(path)?, id),
    }
}
