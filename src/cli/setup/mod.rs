//! `postern setup exchange|gmail|smarthost`: a configuration that works, from the few things that only a person knows.
//!
//! It opens no connection and logs in nowhere. What it writes passes `check`, or nothing is written; no file that is there is
//! touched.

use std::path::PathBuf;

use super::exit::Ended;

mod credential;
mod dialog;
mod draft;
mod exchange;
mod flags;
mod gmail;
mod lines;
mod pair;
mod proof;
mod renew;
mod script;
mod smarthost;
mod staging;
mod writing;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: SetupCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SetupCommand {
    /// Exchange Online by Microsoft Graph: a key and certificate, a script for the tenant's administrator, a configuration
    ///
    /// Without the IDs of the application it makes the key, its certificate and the script, which ends with three lines; with them
    /// it writes the configuration. On a terminal it waits for the lines in between.
    Exchange(exchange::Arguments),
    /// Gmail or Google Workspace, with a service account or the refresh token of one mailbox
    Gmail(gmail::Arguments),
    /// An SMTP server that takes mail for anybody, with a password or without
    Smarthost(smarthost::Arguments),
}

pub(super) fn run(config: Option<PathBuf>, arguments: &Arguments) -> Ended {
    match &arguments.what {
        SetupCommand::Exchange(arguments) => match &arguments.renew {
            Some(connector) => renew::run(config, arguments, connector),
            None => exchange::run(config, arguments),
        },
        SetupCommand::Gmail(arguments) => gmail::run(config, arguments),
        SetupCommand::Smarthost(arguments) => smarthost::run(config, arguments),
    }
}
