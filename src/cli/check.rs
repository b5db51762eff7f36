//! `postern check`: the configuration, and with `--connect` every connector.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{
        self, Config, Secrets,
        diagnostic::{Diagnostic, Severity},
    },
    connector::{self, Services, oauth::TokenStore},
    mail::{
        outcome::{Obstacle, ObstacleKind},
        text::{shown, shown_to},
    },
    route::ConnectorName,
    view::Problem,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also log in at every connector, without sending anything
    #[arg(long)]
    connect: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// One login, all in all.
const PATIENCE: Duration = Duration::from_mins(1);
/// Why a connector does not work, with the remedy, in so many octets.
pub(super) const SHOWN: usize = 900;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let secrets = if arguments.connect {
        Secrets::Resolve
    } else {
        Secrets::CheckOnly
    };
    let (config, notes) = match config::load(&path, secrets) {
        Ok(loaded) => loaded,
        Err(diagnostics) if arguments.json => {
            let problems: Vec<Problem> = diagnostics.iter().map(problem).collect();
            output::json(&json!({
                "ok": false, "file": path.display().to_string(),
                "problems": problems, "connect": null,
            }))?;
            return Ok(Exit::Config);
        }
        Err(diagnostics) => return Err(CommandError::new(Exit::Config, diagnostics)),
    };
    if !arguments.json {
        for note in &notes {
            output::complain(note.to_string().trim_end());
        }
    }
    if let Err(failure) = buildable(&path, &config) {
        if !arguments.json {
            return Err(failure);
        }
        output::json(&json!({
            "ok": false, "file": path.display().to_string(),
            "problems": [{ "severity": "error", "message": failure.text }], "connect": null,
        }))?;
        return Ok(Exit::Config);
    }
    let (listeners, routes, connectors) = (
        config.listeners.len(),
        config.router.routes.len(),
        config.connectors.len(),
    );
    if !arguments.json {
        output::line(format_args!(
            "{}: ok ({}, {}, {})",
            path.display(),
            output::count(listeners as u64, "listener"),
            output::count(routes as u64, "route"),
            output::count(connectors as u64, "connector"),
        ))?;
    }
    let logins = if arguments.connect {
        let token_store = prepare::token_store(&config)?;
        Some(prepare::block_on(connect(config.connectors, token_store))?)
    } else {
        None
    };
    let ok = logins.iter().flatten().all(|login| login.1.is_ok());
    if arguments.json {
        let problems: Vec<Problem> = notes.iter().map(problem).collect();
        output::json(&json!({
            "ok": ok, "file": path.display().to_string(), "problems": problems,
            "listeners": listeners, "routes": routes, "connectors": connectors,
            "connect": logins.map(|logins| logins.iter().map(login_json).collect::<Vec<_>>()),
        }))?;
    } else {
        for (name, result) in logins.into_iter().flatten() {
            match result {
                Ok(found) => {
                    output::line(format_args!("ok      {name}: {}", shown(&found)))?;
                }
                Err((_, why)) => {
                    output::line(format_args!("failed  {name}: {}", shown_to(&why, SHOWN)))?;
                }
            }
        }
    }
    Ok(if ok { Exit::Ok } else { Exit::Unavailable })
}

pub(super) fn problem(diagnostic: &Diagnostic) -> Problem {
    let is_at_a_place = diagnostic.line > 0;
    Problem {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        line: is_at_a_place.then_some(diagnostic.line),
        column: is_at_a_place.then_some(diagnostic.column),
        message: diagnostic.message.clone(),
        hint: diagnostic.hint.clone(),
    }
}

/// A connector, and how its login went: what was found, or the state that the connector would be in, and why.
type Login = (ConnectorName, Result<String, (&'static str, String)>);

fn login_json((name, result): &Login) -> Value {
    let (state, text) = match result {
        Ok(found) => ("open", found),
        Err((state, why)) => (*state, why),
    };
    json!({ "connector": name.as_str(), "ok": result.is_ok(), "state": state, "text": text })
}

/// What shows only when a connector is built from its files: a key that does not belong to the certificate, say. Nothing is connected to, and
/// no directory is made.
fn buildable(path: &Path, config: &Config) -> Result<(), CommandError> {
    for settings in &config.connectors {
        if settings.kind.leaves_no_trace()
            && let Err(why) = settings.build(Services::default())
        {
            return Err(CommandError::new(
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
    token_store: Option<Arc<dyn TokenStore>>,
) -> Result<Vec<Login>, CommandError> {
    let mut logins = JoinSet::new();
    for (place, settings) in connectors.into_iter().enumerate() {
        let services = Services {
            recorder: None,
            token_store: token_store.clone(),
        };
        logins.spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            let result = match settings.build(services) {
                Ok(connector) => {
                    // The connector keeps the deadline; the second clock is for one that does not.
                    match tokio::time::timeout(PATIENCE * 2, connector.probe(deadline)).await {
                        Ok(Ok(found)) => Ok(found),
                        Ok(Err(obstacle)) => Err((obstacle.kind.as_str(), said(&obstacle))),
                        Err(_) => Err(("down", "no answer in time".to_owned())),
                    }
                }
                Err(text) => Err(("misconfigured", text)),
            };
            (place, (settings.name, result))
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = logins.join_next().await {
        results.push(joined.map_err(|error| CommandError::new(Exit::Software, error))?);
    }
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, login)| login).collect())
}

/// An obstacle, in plain words.
pub(super) fn said(Obstacle { kind, reply, .. }: &Obstacle) -> String {
    match kind {
        ObstacleKind::Down => format!("the upstream is not taking mail: {reply}"),
        ObstacleKind::Misconfigured => {
            format!("our configuration or credentials are not accepted: {reply}")
        }
        ObstacleKind::MailboxRefused => format!("the sending mailbox is not accepted: {reply}"),
        ObstacleKind::FromRefused => {
            format!("this From is not accepted in the sending mailbox: {reply}")
        }
        ObstacleKind::Intercepted => format!("the upstream was not reached: {reply}"),
        ObstacleKind::Throttled => format!("the upstream asks us to slow down: {reply}"),
    }
}
