//! `postern doctor`: everything between this machine and a mail that leaves, step by step, each fault with what helps.
//!
//! Needs no running gateway, and sends nothing without `--send`. Connectors are looked at beside each other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    database,
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{self, Config, Diagnostic, Secrets, Severity, cluster::StoreSettings},
    connector::{self, Recorder, Services},
    gateway::report::{
        examined::examined,
        trial::{Trial, TrialEnd},
    },
    mail::{
        address::Address,
        check::{Check, CheckState},
        text::{shown, shown_to},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only these connectors [default: all]
    #[arg(value_name = "CONNECTOR")]
    connectors: Vec<String>,
    /// Also send one message through each, to this address
    #[arg(long, value_name = "ADDRESS")]
    send: Option<String>,
    /// The sender of that message [default: the connector's user name, or an address that the allowlist admits]
    #[arg(long, value_name = "ADDRESS", requires = "send")]
    from: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// A line of a check, in so many octets.
const SHOWN: usize = 900;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let (config, notes) = match config::load(&path, Secrets::Resolve) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            let checks: Vec<Check> = diagnostics
                .iter()
                .map(|one| of_diagnostic(&path, one))
                .collect();
            if arguments.json {
                print_json(&checks)?;
            } else {
                print(&checks)?;
            }
            return Ok(Exit::Config);
        }
    };
    let mut checks = vec![Check::ok(
        "config",
        format!(
            "{}: {}, {}, {}",
            path.display(),
            output::count(config.listeners.len() as u64, "listener"),
            output::count(config.router.routes.len() as u64, "route"),
            output::count(config.connectors.len() as u64, "connector"),
        ),
    )];
    checks.extend(notes.iter().map(|one| of_diagnostic(&path, one)));
    let chosen = chosen(&config, &arguments.connectors)?;
    checks.push(prepare::block_on(store(&config))?);
    let token_store = prepare::token_store(&config)?;
    let services = Services {
        recorder: None,
        token_store: token_store.clone(),
    };
    checks.extend(prepare::block_on(all(&config, &chosen, &services))?);
    if !arguments.json {
        print(&checks)?;
    }
    if let Some(to) = &arguments.send {
        let to = address("--send", to)?;
        let from = arguments.from.as_deref();
        let from = from.map(|text| address("--from", text)).transpose()?;
        for settings in &chosen {
            let name = settings.name.to_string();
            let of_it = |check: &Check| check.connector.as_deref() == Some(&name);
            let broken = checks
                .iter()
                .find(|check| of_it(check) && check.state == CheckState::Failed);
            let mut sent = if let Some(check) = broken {
                Check::skipped("send", check.check)
            } else {
                let trial = Trial {
                    config: &config,
                    settings,
                    token_store: token_store.clone(),
                    recorder: (!arguments.json).then(|| Arc::new(conversation) as Recorder),
                };
                let sending = async { Ok(send(&trial, from.clone(), &to).await) };
                prepare::block_on(sending)?
            };
            sent.connector = Some(name);
            if !arguments.json {
                print(std::slice::from_ref(&sent))?;
            }
            checks.push(sent);
        }
    }
    if arguments.json {
        print_json(&checks)?;
    }
    let failed = checks.iter().any(|check| check.state == CheckState::Failed);
    Ok(if failed { Exit::Unavailable } else { Exit::Ok })
}

fn chosen(config: &Config, names: &[String]) -> Result<Vec<connector::Settings>, CommandError> {
    let known = |name: &String| config.connectors.iter().any(|c| c.name.as_str() == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = config.connectors.iter().map(|c| c.name.as_str()).collect();
        return Err(CommandError::new(
            Exit::Usage,
            format_args!(
                "there is no connector named {unknown:?}; the configuration has {}",
                all.join(", ")
            ),
        ));
    }
    let is_chosen = |settings: &&connector::Settings| {
        names.is_empty() || names.iter().any(|name| settings.name.as_str() == name)
    };
    Ok(config
        .connectors
        .iter()
        .filter(is_chosen)
        .cloned()
        .collect())
}

/// Each beside the others, in their order.
async fn all(
    config: &Config,
    connectors: &[connector::Settings],
    services: &Services,
) -> Result<Vec<Check>, CommandError> {
    let mut looking = JoinSet::new();
    for (place, settings) in connectors.iter().enumerate() {
        let looked = examined(config, settings, services.clone());
        looking.spawn(async move { (place, looked.await) });
    }
    let mut found = Vec::new();
    while let Some(joined) = looking.join_next().await {
        found.push(joined.map_err(|error| CommandError::new(Exit::Software, error))?);
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().flat_map(|(_, checks)| checks).collect())
}

/// Where mail is kept: what it would mean to open it is for the gateway, which may be running.
async fn store(config: &Config) -> Result<Check, CommandError> {
    Ok(match &config.store {
        StoreSettings::Postgres(postgres, cluster) => {
            match database::look(postgres, cluster, &config.data_dir).await {
                Ok(found) => Check::ok(
                    "store",
                    format!(
                        "postgres {} at {}: {}",
                        found.facts.version,
                        found.server,
                        found.facts.promise()
                    ),
                ),
                Err(why) => Check::found("store", CheckState::Failed, &why.to_string(), "-"),
            }
        }
        StoreSettings::Sqlite => {
            let dir = config.data_dir.display();
            match std::fs::metadata(&config.data_dir) {
                Ok(found) if found.is_dir() => Check::ok("store", format!("{dir}")),
                Ok(_) => Check::found(
                    "store",
                    CheckState::Failed,
                    &format!("{dir} is not a directory"),
                    "-",
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::ok(
                    "store",
                    format!("{dir}: not there yet, the gateway makes it"),
                ),
                Err(error) => {
                    Check::found("store", CheckState::Failed, &format!("{dir}: {error}"), "-")
                }
            }
        }
    })
}

async fn send(trial: &Trial<'_>, from: Option<Address>, to: &Address) -> Check {
    let name = trial.settings.name.to_string();
    match trial.send(from, to, output::now()).await {
        Ok(tried) if tried.end == TrialEnd::Works => {
            Check::ok("send", format!("{} by {}", tried.view.text, tried.view.via))
        }
        Ok(tried) => Check::found("send", CheckState::Failed, &tried.view.text, &name),
        Err(error) => Check::found("send", CheckState::Failed, &error.to_string(), &name),
    }
}

fn of_diagnostic(path: &Path, diagnostic: &Diagnostic) -> Check {
    let state = match diagnostic.severity {
        Severity::Error => CheckState::Failed,
        Severity::Warning | Severity::Note => CheckState::Warning,
    };
    let problem = diagnostic.problem();
    let place = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", path.display()),
        _ => path.display().to_string(),
    };
    let text = format!("{place}: {}", problem.message);
    let found = Check::found("config", state, &text, "-");
    // What stands there is about this very line.
    Check {
        fix: problem.hint.or(found.fix),
        ..found
    }
}

/// A line of what is said while a message is sent.
fn conversation(line: &str) {
    // If the reader has gone, the delivery still goes on.
    let _ = output::line(format_args!("         {line}"));
}

fn print_json(checks: &[Check]) -> Result<(), CommandError> {
    let failed = |check: &Check| check.state == CheckState::Failed;
    output::json(&json!({ "ok": !checks.iter().any(failed), "checks": checks }))
}

fn print(checks: &[Check]) -> Result<(), CommandError> {
    let name = |check: &Check| check.connector.as_deref().map_or(1, str::len);
    let width = checks.iter().map(name).max().unwrap_or(1).min(40);
    for check in checks {
        let cause = check
            .cause
            .map_or_else(String::new, |cause| format!(" [{cause}]"));
        let text = shown_to(&check.text, SHOWN);
        output::line(format_args!(
            "{:<8} {:<width$} {:<9} {text}{cause}",
            check.state.as_str(),
            shown(check.connector.as_deref().unwrap_or("-")),
            check.check,
        ))?;
        if let Some(fix) = &check.fix {
            // A hint may repeat what stands in the file.
            output::line(format_args!("         do: {}", shown_to(fix, SHOWN)))?;
        }
    }
    Ok(())
}

fn address(option: &str, text: &str) -> Result<Address, CommandError> {
    Address::parse(text).map_err(|error| {
        CommandError::new(
            Exit::Usage,
            format_args!("{option} {}: {error}", shown(text)),
        )
    })
}
