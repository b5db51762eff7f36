//! `postern trace`: the life of a message, a line an event.

use std::{io::Write, path::PathBuf};

use super::{
    exit::{CommandError, Ended, Exit},
    output,
    place::{self, Where},
    prepare,
};
use crate::{
    gateway::report::{
        life::{History, messages_of},
        situation::Situation,
    },
    mail::{
        message::MessageId,
        pattern::Pattern,
        text::{shown, shown_to},
        time::human,
    },
    queue::store::Store,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// The id of a message, or an address (or pattern) of its sender or a recipient
    #[arg(value_name = "ID or ADDRESS")]
    subject: String,
    /// At most this many messages, the newest ones
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let store = place.existing_store()?;
    prepare::block_on(async {
        let standing = Situation::read(&place.site()?, store.as_ref()).await?;
        let ids = ids(store.as_ref(), &arguments.subject).await?;
        let skipped = ids.len().saturating_sub(arguments.limit);
        let mut lives = Vec::new();
        for id in ids.into_iter().skip(skipped) {
            lives.push(History::read(store.as_ref(), id, output::now()).await?);
        }
        lives.retain(|life| !life.is_empty());
        if lives.is_empty() {
            return Err(CommandError::new(
                Exit::No,
                format_args!("no message is known for {}", shown(&arguments.subject)),
            ));
        }
        if arguments.json {
            let lives: Vec<_> = lives.iter().map(|life| life.life(&standing)).collect();
            output::json(&lives)?;
            return Ok(place::ended(store.as_ref()));
        }
        let mut out = Vec::new();
        for (place, life) in lives.iter().enumerate() {
            if place > 0 {
                writeln!(out)?;
            }
            print(life, &mut out, Some(&standing))?;
        }
        if skipped > 0 {
            writeln!(out, "\n({skipped} older not shown; --limit shows more)")?;
        }
        output::lines(&out)?;
        Ok(place::ended(store.as_ref()))
    })
}

/// For people; `standing` also tells what it waits for.
pub(super) fn print(
    history: &History,
    out: &mut dyn Write,
    standing: Option<&Situation>,
) -> std::io::Result<()> {
    writeln!(out, "{}  from {}", history.id, shown(&history.sender()))?;
    for event in &history.events {
        write!(out, "  {}  {:<11}  ", human(event.at), event.kind)?;
        let shown: Vec<String> = event
            .recipients
            .iter()
            .take(3)
            .map(|r| shown_to(r, 80))
            .collect();
        if !shown.is_empty() {
            write!(out, "{}", shown.join(", "))?;
            if event.recipients.len() > shown.len() {
                write!(out, " and {} more", event.recipients.len() - shown.len())?;
            }
            write!(out, ": ")?;
        }
        writeln!(out, "{}", shown_to(&event.text, 400))?;
    }
    for entry in &history.entries {
        for recipient in &entry.recipients {
            writeln!(
                out,
                "  now: {} is {}, by route {}",
                shown_to(&recipient.address, 80),
                recipient.state,
                shown(entry.route.as_str())
            )?;
        }
        if let Some(why) = standing.and_then(|standing| standing.waits(entry)) {
            writeln!(out, "  waits for: {why}")?;
        }
    }
    Ok(())
}

/// By id, else every message from or to the address, oldest first.
async fn ids(store: &dyn Store, subject: &str) -> Result<Vec<MessageId>, CommandError> {
    if let Ok(id) = subject.parse() {
        return Ok(vec![id]);
    }
    let pattern = Pattern::parse(subject).map_err(|why| {
        CommandError::new(
            Exit::Usage,
            format_args!("{}: neither an id nor an address: {why}", shown(subject)),
        )
    })?;
    Ok(messages_of(store, &pattern, output::now()).await?)
}
