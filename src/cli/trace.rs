//! `postern trace`: the life of a message, a line an event.

use std::{io::Write, path::PathBuf, sync::Arc};

use super::{
    exit::{CommandError, Ended, Exit},
    output,
    place::Where,
    prepare,
    queue::entry::{self, Situation},
};
use crate::{
    mail::{
        message::MessageId,
        pattern::Pattern,
        text::{shown, shown_to},
        time::human,
    },
    queue::store::{Entry, Event, Filter, Store},
    view,
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
        let standing = Situation::read(&place, store.as_ref()).await?;
        let ids = ids(&store, &arguments.subject).await?;
        let skipped = ids.len().saturating_sub(arguments.limit);
        let mut lives = Vec::new();
        for id in ids.into_iter().skip(skipped) {
            lives.push(life(&store, id).await?);
        }
        lives.retain(|life| !life.entries.is_empty() || !life.events.is_empty());
        if lives.is_empty() {
            return Err(CommandError::new(
                Exit::No,
                format_args!("no message is known for {}", shown(&arguments.subject)),
            ));
        }
        if arguments.json {
            let lives: Vec<_> = lives.iter().map(|life| life.view(&standing)).collect();
            output::json(&lives)?;
            return Ok(Exit::Ok);
        }
        let mut out = Vec::new();
        for (place, life) in lives.iter().enumerate() {
            if place > 0 {
                writeln!(out)?;
            }
            life.print(&mut out, Some(&standing))?;
        }
        if skipped > 0 {
            writeln!(out, "\n({skipped} older not shown; --limit shows more)")?;
        }
        output::lines(&out)?;
        Ok(Exit::Ok)
    })
}

/// One message: what it is now, and what happened to it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) id: MessageId,
    pub(super) entries: Vec<Entry>,
    pub(super) events: Vec<Event>,
}

/// Everything the store knows of one message.
pub(super) async fn life(store: &Arc<dyn Store>, id: MessageId) -> Result<History, CommandError> {
    let filter = Filter {
        id: Some(id),
        ..Filter::default()
    };
    Ok(History {
        id,
        entries: store.list(&filter, output::now()).await?,
        events: store.events(id).await?,
    })
}

impl History {
    /// For people; `standing` also tells what it waits for.
    pub(super) fn print(
        &self,
        out: &mut dyn Write,
        standing: Option<&Situation>,
    ) -> std::io::Result<()> {
        writeln!(out, "{}  from {}", self.id, shown(&self.sender()))?;
        for event in &self.events {
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
        for entry in &self.entries {
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

    fn view(&self, standing: &Situation) -> view::Life {
        let entries = self.entries.iter();
        view::Life {
            id: self.id.to_string(),
            sender: self.sender(),
            events: self.events.iter().map(view::EventView::from).collect(),
            waits_for: entries.clone().find_map(|e| standing.waits(e)),
            entries: entries.map(|e| entry::view(e, standing)).collect(),
        }
    }

    fn sender(&self) -> String {
        self.entries
            .first()
            .map_or_else(|| "<>".to_owned(), view::sender)
    }
}

/// By id, else every message from or to the address, oldest first.
async fn ids(store: &Arc<dyn Store>, subject: &str) -> Result<Vec<MessageId>, CommandError> {
    if let Ok(id) = subject.parse() {
        return Ok(vec![id]);
    }
    let pattern = Pattern::parse(subject).map_err(|why| {
        CommandError::new(
            Exit::Usage,
            format_args!("{}: neither an id nor an address: {why}", shown(subject)),
        )
    })?;
    let mut ids = Vec::new();
    for filter in [
        Filter {
            sender: Some(pattern.clone()),
            ..Filter::default()
        },
        Filter {
            recipient: Some(pattern),
            ..Filter::default()
        },
    ] {
        let entries = store.list(&filter, output::now()).await?;
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    // Ids sort by time.
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
