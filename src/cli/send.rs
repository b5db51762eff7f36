//! `postern send`: Markdown from standard input, sent as text and HTML through the listener.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use lettre::message::Mailbox;

use super::{
    exit::{CommandError, Ended, Exit},
    handover, output,
};
use crate::{
    config::{self, Config, Secrets},
    gateway::report::composed::{Enclosure, Letter},
    mail::text::shown,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The sender, with or without a name: "ERP <erp@corp.example>"
    #[arg(long, value_name = "ADDRESS")]
    from: Mailbox,
    /// A recipient; may be given several times
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["cc", "bcc"])]
    to: Vec<Mailbox>,
    /// A recipient of a copy
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<Mailbox>,
    /// A recipient that the others do not see
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<Mailbox>,
    /// The subject
    #[arg(long, default_value = "")]
    subject: String,
    /// A file to attach; may be given several times
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
}

/// Where no configuration says how large a message may be.
const MOST: u64 = 100 * 1024 * 1024;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let path = config::find(path);
    let address = if let Some(address) = handover::from_environment() {
        address
    } else {
        let (config, _) = config::load(&path, Secrets::Ignore)
            .map_err(|diagnostics| CommandError::new(Exit::Config, diagnostics))?;
        listener(&config)?
    };
    let mut markdown = Vec::new();
    io::stdin()
        .lock()
        .take(MOST + 1)
        .read_to_end(&mut markdown)?;
    if markdown.len() as u64 > MOST {
        return Err(CommandError::new(Exit::Data, "the text is too long"));
    }
    let markdown = String::from_utf8(handover::plain(&markdown))
        .map_err(|_| CommandError::new(Exit::Data, "the text on standard input is not UTF-8"))?;
    let enclosures = arguments.attach.iter().map(|path| enclosure(path));
    let letter = Letter {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        cc: arguments.cc.clone(),
        bcc: arguments.bcc.clone(),
        subject: arguments.subject.clone(),
        markdown,
        enclosures: enclosures.collect::<Result<_, _>>()?,
    };
    let content = letter
        .compose(output::now())
        .map_err(|error| CommandError::new(Exit::Data, error))?;
    let (sender, recipients) = (letter.sender(), letter.recipients());
    for address in recipients.iter().chain([&sender]) {
        handover::speakable(address)?;
    }
    let taken =
        handover::hand_over(&address, &sender, &recipients, &content).map_err(|unsent| {
            CommandError::new(handover::exit(&unsent), format_args!("not sent: {unsent}"))
        })?;
    output::line(shown(&taken.reply.text))?;
    let mut exit = Exit::Ok;
    for (address, reply) in &taken.refused {
        output::complain(format_args!("not sent to {}: {reply}", shown(address)));
        exit = handover::verdict("RCPT", reply);
    }
    Ok(exit)
}

/// The listener that takes local mail without a login.
pub(super) fn listener(config: &Config) -> Result<String, CommandError> {
    handover::local_listener(config)
        .map(|address| address.to_string())
        .ok_or_else(|| {
            CommandError::new(
                Exit::Config,
                format_args!(
                    "{}: no listener admits 127.0.0.1 without TLS and AUTH; {} names another way in",
                    config.path.display(),
                    handover::OVERRIDE
                ),
            )
        })
}

fn enclosure(path: &Path) -> Result<Enclosure, CommandError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CommandError::new(
            Exit::NoInput,
            format_args!("cannot read {}: {error}", path.display()),
        )
    };
    let file = fs::File::open(path).map_err(|e| unreadable(&e))?;
    let mut content = Vec::new();
    file.take(MOST + 1)
        .read_to_end(&mut content)
        .map_err(|e| unreadable(&e))?;
    if content.len() as u64 > MOST {
        return Err(unreadable(&"it is too large for mail"));
    }
    let name = path.file_name().map_or_else(
        || "attachment".to_owned(),
        |n| n.to_string_lossy().into_owned(),
    );
    Ok(Enclosure { name, content })
}
