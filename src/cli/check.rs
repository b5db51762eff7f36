//! `postern check`: the configuration, and with `--connect` every connector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    exit::{Ended, Exit, Failure},
    output,
};
use crate::{
    config::{self, Config, Secrets},
    connector::{self, Kind, Surroundings},
    mail::outcome::Report,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also log in at every connector, without sending anything
    #[arg(long)]
    connect: bool,
}

/// One login, all in all.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let secrets = if arguments.connect {
        Secrets::Resolve
    } else {
        Secrets::CheckOnly
    };
    let (config, notes) = config::load(&path, secrets)
        .map_err(|diagnostics| Failure::new(Exit::Config, diagnostics))?;
    for note in &notes {
        output::complain(note.to_string().trim_end());
    }
    buildable(&path, &config)?;
    output::line(format_args!(
        "{}: ok ({}, {}, {})",
        path.display(),
        output::count(config.listeners.len() as u64, "listener"),
        output::count(config.router.routes.len() as u64, "route"),
        output::count(config.connectors.len() as u64, "connector"),
    ))?;
    if arguments.connect {
        let keep = super::keep(&config)?;
        super::block_on(connect(config.connectors, keep))
    } else {
        Ok(Exit::Ok)
    }
}

/// What only shows when a connector is made of its files: a key that is not the certificate's, say. Nothing is connected to, and
/// no directory is made.
fn buildable(path: &Path, config: &Config) -> Result<(), Failure> {
    for settings in &config.connectors {
        if matches!(settings.kind, Kind::Smtp(_) | Kind::Graph(_))
            && let Err(why) = connector::build(settings, Surroundings::default())
        {
            return Err(Failure::new(
                Exit::Config,
                format_args!(
                    "error: {}: connector \"{}\": {why}",
                    path.display(),
                    settings.name
                ),
            ));
        }
    }
    Ok(())
}

/// All at once; each has its own deadline.
async fn connect(
    connectors: Vec<connector::Settings>,
    keep: Option<Arc<dyn connector::oauth::Keep>>,
) -> Ended {
    let mut logins = JoinSet::new();
    for (place, settings) in connectors.into_iter().enumerate() {
        let around = connector::Surroundings {
            recorder: None,
            keep: keep.clone(),
        };
        logins.spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            let result = match connector::build(&settings, around) {
                Ok(connector) => {
                    // The connector keeps the deadline; the second clock is for one that does not.
                    match tokio::time::timeout(PATIENCE * 2, connector.probe(deadline)).await {
                        Ok(Ok(found)) => Ok(found),
                        Ok(Err(report)) => Err(said(&report)),
                        Err(_) => Err("no answer in time".to_owned()),
                    }
                }
                Err(text) => Err(text),
            };
            (place, settings.name, result)
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = logins.join_next().await {
        results.push(joined.map_err(|error| Failure::new(Exit::Software, error))?);
    }
    results.sort_by_key(|(place, ..)| *place);
    let mut exit = Exit::Ok;
    for (_, name, result) in results {
        match result {
            Ok(found) => output::line(format_args!("ok      {name}: {}", output::safe(&found)))?,
            Err(why) => {
                exit = Exit::Unavailable;
                output::line(format_args!("failed  {name}: {}", output::cut(&why, 600)))?;
            }
        }
    }
    Ok(exit)
}

/// A report that is not a delivery, in plain words.
pub(super) fn said(report: &Report) -> String {
    match report {
        Report::Down { reply, .. } => format!("the upstream is not taking mail: {reply}"),
        Report::Misconfigured(reply) => {
            format!("our configuration or credentials are not accepted: {reply}")
        }
        Report::MailboxRefused(reply) => format!("the sending mailbox is not accepted: {reply}"),
        Report::Tried { via, .. } => format!("reached {via}"),
    }
}
