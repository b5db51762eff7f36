//! `postern test CONNECTOR`: one message now, past queue, rate and pause but not past the allowlists, with the
//! conversation printed as it happens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;

use super::{
    check::{SHOWN, said},
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{Config, Secrets},
    connector,
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{ObstacleKind, Outcome, Report},
        text::{shown, shown_to},
    },
    policy::{Who, judge::Findings},
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

/// Lines of a conversation that are kept.
const LINES: usize = 10_000;

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
    let from = match &arguments.from {
        Some(text) => address("--from", text)?,
        None => sender(&config, settings).ok_or_else(|| {
            CommandError::new(
                Exit::Usage,
                "say who sends with --from: the configuration names no sender that the allowlist admits",
            )
        })?,
    };
    let (nobody, findings) = (Who::default(), &mut Findings::default());
    config
        .policy
        .sender(nobody, Some(&from), findings)
        .and_then(|()| config.policy.rcpt(nobody, &to, findings))
        .map_err(|reply| CommandError::new(Exit::Refused, format_args!("refused: {reply}")))?;
    let message = compose(&config, &from, &to)?;
    let timeout = settings.timeout;
    let conversation: Arc<Mutex<Vec<String>>> = Arc::default();
    let recorder: connector::Recorder = if arguments.json {
        let conversation = conversation.clone();
        Arc::new(move |line: &str| {
            let mut lines = conversation.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < LINES {
                lines.push(shown_to(line.trim_end(), 1000));
            }
        })
    } else {
        Arc::new(|line: &str| {
            // If the reader has gone, the delivery still goes on.
            let _ = output::line(shown_to(line.trim_end(), 1000));
        })
    };
    let services = connector::Services {
        recorder: Some(recorder),
        token_store: prepare::token_store(&config)?,
    };
    let connector = settings
        .build(services)
        .map_err(|text| CommandError::new(Exit::Unavailable, text))?;
    let report = prepare::block_on(async {
        let deadline = Instant::now() + timeout;
        let recipients = [to.clone().into()];
        let delivery = connector.deliver(&message, &recipients, deadline);
        // The connector keeps the deadline; this is for one that does not.
        tokio::time::timeout(timeout + Duration::from_secs(30), delivery)
            .await
            .map_err(|_| CommandError::new(Exit::Later, "no answer in time; it may have arrived"))
    })?;
    if arguments.json {
        let lines = conversation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        return explain_json(settings, (&from, &to), &report, &lines);
    }
    output::line("")?;
    explain(&report)
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
    let mut exit = Exit::Ok;
    for (address, outcome) in outcomes {
        let reply = shown_to(&outcome.reply().to_string(), SHOWN);
        let (_, text, ends) = meaning(outcome);
        output::line(format_args!("{address}: {text}: {reply}"))?;
        if ends != Exit::Ok {
            exit = ends;
        }
    }
    output::line(format_args!("via {}", shown(via)))?;
    Ok(exit)
}

fn explain_json(
    settings: &connector::Settings,
    (from, to): (&Address, &Address),
    report: &Report,
    conversation: &[String],
) -> Ended {
    // One recipient, so one outcome.
    let (outcome, text, via, exit) = match report {
        Report::Tried { outcomes, via, .. } => match outcomes.first() {
            Some((_, outcome)) => {
                let (word, _, exit) = meaning(outcome);
                (word, outcome.reply().to_string(), via.as_str(), exit)
            }
            None => ("failed", String::new(), via.as_str(), Exit::Software),
        },
        Report::NotTried(obstacle) => match obstacle.kind {
            ObstacleKind::Throttled => ("deferred", said(obstacle), "", Exit::Later),
            kind => (kind.as_str(), said(obstacle), "", Exit::Unavailable),
        },
    };
    output::json(&json!({
        "ok": exit == Exit::Ok,
        "connector": settings.name.as_str(),
        "from": from.to_string(),
        "to": to.to_string(),
        "outcome": outcome,
        "text": text,
        "via": via,
        "conversation": conversation,
    }))?;
    Ok(exit)
}

/// An outcome in a word for programs, in words for people, and how the command ends.
fn meaning(outcome: &Outcome) -> (&'static str, &'static str, Exit) {
    match outcome {
        Outcome::Delivered(_) => ("delivered", "delivered", Exit::Ok),
        Outcome::Deferred { .. } => (
            "deferred",
            "not now; the queue would try again",
            Exit::Later,
        ),
        Outcome::InDoubt(_) => (
            "in doubt",
            "it may have arrived: no answer after the last octet",
            Exit::Later,
        ),
        Outcome::Failed(_) => ("failed", "refused for good", Exit::Unavailable),
        Outcome::Apart(_) => (
            "apart",
            "one of the recipients is refused; the queue would try them in smaller sets",
            Exit::Unavailable,
        ),
        Outcome::Unsuited(_) => ("unsuited", "not through this connector", Exit::Unavailable),
    }
}

fn address(option: &str, text: &str) -> Result<Address, CommandError> {
    Address::parse(text).map_err(|error| {
        CommandError::new(
            Exit::Usage,
            format_args!("{option} {}: {error}", shown(text)),
        )
    })
}

/// The likeliest sender: the one that the connector logs in as, the sender of bounces, the first that the allowlist names.
fn sender(config: &Config, settings: &connector::Settings) -> Option<Address> {
    let named = config
        .policy
        .allowlist
        .senders
        .iter()
        .map(ToString::to_string)
        .flat_map(|pattern| {
            let postmaster = format!("postmaster@{pattern}");
            [pattern, postmaster]
        });
    let login = settings.kind.login().map(str::to_owned);
    login
        .into_iter()
        .chain([config.bounce_from.to_string()])
        .chain(named)
        .filter_map(|text| Address::parse(&text).ok())
        .find(|address| {
            let findings = &mut Findings::default();
            let judged = config
                .policy
                .sender(Who::default(), Some(address), findings);
            judged.is_ok()
        })
}

fn compose(config: &Config, from: &Address, to: &Address) -> Result<Message, CommandError> {
    let at = output::now();
    let id = MessageId::new(at, fastrand::u128(..));
    let fault = |error: &dyn std::fmt::Display| CommandError::new(Exit::Software, error);
    let mail = lettre::Message::builder()
        .from(
            from.to_string()
                .parse()
                .map_err(|e: lettre::address::AddressError| fault(&e))?,
        )
        .to(to
            .to_string()
            .parse()
            .map_err(|e: lettre::address::AddressError| fault(&e))?)
        .subject("Postern test")
        .message_id(Some(format!("<{id}@{}>", config.hostname)))
        .date(at)
        .body(format!(
            "This is a test message, sent by `postern test` on {}.\r\n\
             If you can read it, this connector works.\r\n",
            config.hostname
        ))
        .map_err(|e| fault(&e))?
        .formatted();
    let mail = Bytes::from(mail);
    let end = memchr::memmem::find(&mail, b"\r\n\r\n")
        .ok_or_else(|| fault(&"the composed message has no body"))?;
    Ok(Message {
        id,
        envelope: Envelope {
            sender: Some(from.clone()),
            recipients: vec![to.clone().into()],
            eight_bit: false,
        },
        origin: Origin {
            listener: "test".to_owned(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            client: None,
            helo: config.hostname.clone(),
            tls: false,
            esmtp: true,
            user: None,
            at,
        },
        header: mail.slice(..end + 2),
        body: Body::Memory(mail.slice(end + 4..)),
    })
}
