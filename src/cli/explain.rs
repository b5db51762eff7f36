//! `postern explain`: which rule accepts or refuses, and which way the mail would take.

use std::{net::IpAddr, path::PathBuf};

use super::{
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{Secrets, values},
    gateway::report::explain::{Question, explain},
    mail::text::shown_to,
    view::Explained,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The envelope sender; <> for none
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    from: String,
    /// The recipient
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: String,
    /// The From field of the header, as written: whether it is understood, rewritten, admitted
    #[arg(long, value_name = "FROM", allow_hyphen_values = true)]
    header_from: Option<String>,
    /// Where the connection comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Logged in as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Through this listener [default: the first one]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// With a message as large as this: octets, or 30 MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// As a client that does not speak TLS [default: it uses STARTTLS where that is offered]
    #[arg(long)]
    no_tls: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let config = prepare::settings(path, Secrets::Ignore)?;
    let question = Question {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        header_from: arguments.header_from.clone(),
        client: arguments.client,
        user: arguments.user.clone(),
        listener: arguments.listener.clone(),
        size: arguments.size,
        no_tls: arguments.no_tls,
    };
    let explained =
        explain(&config, &question).map_err(|error| CommandError::new(Exit::Usage, error))?;
    if arguments.json {
        output::json(&explained)?;
    } else {
        show(&explained)?;
    }
    Ok(if explained.accepted {
        Exit::Ok
    } else {
        Exit::Refused
    })
}

fn show(explained: &Explained) -> Result<(), CommandError> {
    for step in &explained.steps {
        output::line(format_args!(
            "{:<10} {}",
            step.step,
            shown_to(&step.text, 400)
        ))?;
    }
    match &explained.reply {
        Some(reply) => output::line(format_args!("{:<10} {reply}", "refused")),
        None => output::line(format_args!(
            "{:<10} the message would be queued",
            "accepted"
        )),
    }
}

/// Octets, or a number with a unit as in the configuration.
fn size(text: &str) -> Result<u64, String> {
    let octets = text.parse().or_else(|_| values::size(text));
    octets.map_err(|fault| {
        let hint = fault.hint.unwrap_or_default();
        format!("{}; {hint}", fault.message)
    })
}
