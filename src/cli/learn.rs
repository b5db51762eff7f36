//! `postern learn`: the unknown devices of a private network are served for a time, to see who there is.

use std::{path::PathBuf, time::Duration};

use super::{
    asking::Asking,
    audited,
    exit::{CommandError, Ended, Exit},
    output,
    place::Where,
};
use crate::{
    config::values,
    listener::learning::{LONGEST, bounded},
    mail::text::shown,
    window::asked::OperatorWish,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Private networks, such as 10.20.0.0/16
    #[arg(
        value_name = "NETWORK",
        required_unless_present = "stop",
        conflicts_with = "stop"
    )]
    networks: Vec<String>,
    /// How long, at most 8h
    #[arg(long = "for", value_name = "DURATION", default_value = "2h", value_parser = length)]
    length: Duration,
    /// To every recipient that the lists admit, and not to the domains of allowlist.senders alone
    #[arg(long)]
    external: bool,
    /// End it now
    #[arg(long)]
    stop: bool,
}

/// As the durations of the configuration.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    values::duration(text)
        .map_err(|fault| format!("{}; {}", fault.message, fault.hint.unwrap_or_default()))
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    if arguments.stop {
        let asking = Asking::of(&place)?;
        asking.ask(OperatorWish::Unlearn)?;
        audited::write(
            &place.data_dir,
            audited::row("learn", "off", "learn --stop"),
        );
        output::line("nothing is learned any more")?;
        return Ok(Exit::Ok);
    }
    let networks = bounded(&arguments.networks, arguments.length)
        .map_err(|why| CommandError::new(Exit::Usage, why))?;
    let asking = Asking::of(&place)?;
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    let named = networks.join(", ");
    let (_, until) = asking.ask(OperatorWish::Learn {
        networks,
        seconds: arguments.length.min(LONGEST).as_secs().max(1),
        external: arguments.external,
    })?;
    let mut row = audited::row("learn", &named, &format!("learn {named}"));
    let external = if arguments.external { ", external" } else { "" };
    row.after = Some(format!("until {until}{external}"));
    audited::write(&place.data_dir, row);
    output::line(format_args!(
        "until {} whoever connects from {} is served; postern devices shows who came, postern learn --stop ends it",
        shown(&until),
        shown(&named)
    ))?;
    Ok(Exit::Ok)
}
