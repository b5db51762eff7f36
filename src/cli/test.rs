//! `postern test CONNECTOR`: one message now, with the conversation printed as it happens.

use std::{path::PathBuf, sync::Arc};

use super::{
    check::SHOWN,
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::Secrets,
    connector::Recorder,
    gateway::report::{
        login::said,
        trial::{Trial, TrialEnd, TrialError, meaning},
    },
    mail::{
        address::Address,
        outcome::{ObstacleKind, Report},
        text::{shown, shown_to},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name of a [[connector]]
    connector: String,
    /// The recipient
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// The sender [default: the connector's user name, or an address that the allowlist admits]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let config = prepare::settings(path, Secrets::Resolve)?;
    let settings = config
        .connectors
        .iter()
        .find(|c| c.name.as_str() == arguments.connector)
        .ok_or_else(|| {
            let names: Vec<&str> = config.connectors.iter().map(|c| c.name.as_str()).collect();
            CommandError::new(
                Exit::Usage,
                format_args!(
                    "there is no connector named {:?}; the configuration has {}",
                    arguments.connector,
                    names.join(", ")
                ),
            )
        })?;
    let to = address("--to", &arguments.to)?;
    let from = arguments.from.as_deref();
    let from = from.map(|text| address("--from", text)).transpose()?;
    let print: Recorder = Arc::new(|line: &str| {
        // If the reader has gone, the delivery still goes on.
        let _ = output::line(line);
    });
    let trial = Trial {
        config: &config,
        settings,
        token_store: prepare::token_store(&config)?,
        recorder: (!arguments.json).then_some(print),
    };
    let tried = prepare::block_on(async {
        trial
            .send(from, &to, output::now())
            .await
            .map_err(|error| failed(&error))
    })?;
    if arguments.json {
        output::json(&tried.view)?;
        return Ok(exit(tried.end));
    }
    output::line("")?;
    explain(&tried.report)
}

fn failed(error: &TrialError) -> CommandError {
    let exit = match error {
        TrialError::NoSender => {
            return CommandError::new(
                Exit::Usage,
                format_args!("say who sends with --from: {error}"),
            );
        }
        TrialError::Refused(_) => Exit::Refused,
        TrialError::NoMessage(_) => Exit::Software,
        TrialError::NotBuilt(_) => Exit::Unavailable,
        TrialError::Silent => Exit::Later,
    };
    CommandError::new(exit, error)
}

fn exit(end: TrialEnd) -> Exit {
    match end {
        TrialEnd::Works => Exit::Ok,
        TrialEnd::Later => Exit::Later,
        TrialEnd::Fails => Exit::Unavailable,
    }
}

fn explain(report: &Report) -> Ended {
    let (outcomes, via) = match report {
        Report::Tried { outcomes, via, .. } => (outcomes, via),
        Report::NotTried(obstacle) => {
            let (word, exit) = match obstacle.kind {
                ObstacleKind::Throttled => ("deferred", Exit::Later),
                _ => ("failed", Exit::Unavailable),
            };
            let said = shown_to(&said(obstacle), SHOWN);
            output::line(format_args!("{word}: {said}"))?;
            return Ok(exit);
        }
    };
    let mut ends = Exit::Ok;
    for (address, outcome) in outcomes {
        let reply = shown_to(&outcome.reply().to_string(), SHOWN);
        let (end, _, text) = meaning(outcome);
        output::line(format_args!("{address}: {text}: {reply}"))?;
        if end != TrialEnd::Works {
            ends = exit(end);
        }
    }
    output::line(format_args!("via {}", shown(via)))?;
    Ok(ends)
}

fn address(option: &str, text: &str) -> Result<Address, CommandError> {
    Address::parse(text).map_err(|error| {
        CommandError::new(
            Exit::Usage,
            format_args!("{option} {}: {error}", shown(text)),
        )
    })
}
