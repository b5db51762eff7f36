//! `postern queue`: look at what waits and act on it, whether or not the gateway runs.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use mail_parser::MessageParser;
use serde_json::json;

use super::{
    exit::{CommandError, Ended, Exit},
    output,
    place::{self, QueuePlace, Where},
    prepare, trace,
};
use crate::{
    config::values,
    gateway::report::{
        life::History,
        situation::Situation,
        verbs::{carry_out, failed_reports, of_retry},
    },
    mail::{
        message::{Message, MessageId},
        pattern::Pattern,
        text::{shown, shown_to},
        time::human,
    },
    policy::quota::holder,
    queue::store::{Entry, Filter, JobState, Verb},
    route::RouteName,
};

mod back;
mod export;
mod forget;
mod schema;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List messages, oldest first: all but those that are done
    List {
        #[command(flatten)]
        which: Which,
        /// At most this many
        #[arg(long)]
        limit: Option<usize>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show one message: envelope, header summary, recipients, events
    Show {
        /// Its id
        id: MessageId,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Try again now; also brings back failed recipients and tries closed and paused connectors again
    Retry {
        #[command(flatten)]
        which: Which,
        /// Also failed bounces, which otherwise only an id or `--sender '<>'` selects: what they report is old news
        #[arg(long)]
        reports: bool,
    },
    /// Do not try until released
    Hold(Which),
    /// Undo hold
    Release(Which),
    /// Give up now: the message becomes `failed`, without a bounce
    Fail(Which),
    /// Delete, body included; the history keeps a line
    Drop(Which),
    /// Write a message as .eml
    Export {
        /// Its id
        id: MessageId,
        /// To this file [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the SQL for the owner of the database, where the role of [postgres] may not make its tables
    Schema,
    /// Give a gateway's part of the limits to the others that share the queue: for one that is switched off for good
    Forget {
        /// Its `cluster.name`
        name: String,
    },
    /// Bring the queue back from the database of [postgres] into data_dir, with store = "sqlite" and every gateway stopped
    Move {
        /// From there; copied, compared, and only then deleted
        #[arg(long, required = true)]
        from_postgres: bool,
    },
}

/// Which messages; everything given must hold.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Messages by id
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    /// Only those in this state
    #[arg(long, value_parser = state)]
    state: Vec<JobState>,
    /// Only those from this address or pattern
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    sender: Option<Pattern>,
    /// Only those to this address or pattern
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    recipient: Option<Pattern>,
    /// Only those on this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only those that this [[quota]] holds
    #[arg(long, value_name = "NAME")]
    quota: Option<String>,
    /// Only those accepted longer ago than this, e.g. 1h
    #[arg(long, value_name = "DURATION", value_parser = age)]
    older: Option<Duration>,
    /// Every message
    #[arg(long)]
    all: bool,
}

/// Written as the durations of the configuration are.
fn age(text: &str) -> Result<Duration, String> {
    values::duration(text)
        .map_err(|fault| format!("{}; {}", fault.message, fault.hint.unwrap_or_default()))
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.ids.clone(),
            states: self.state.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            route: self.route.as_deref().map(RouteName::from),
            held_by: self.quota.as_deref().map(holder),
            older: self
                .older
                .and_then(|older| output::now().checked_sub(older)),
            ..Filter::default()
        }
    }

    fn says_something(&self) -> bool {
        self.all
            || !self.ids.is_empty()
            || !self.state.is_empty()
            || self.sender.is_some()
            || self.recipient.is_some()
            || self.route.is_some()
            || self.quota.is_some()
            || self.older.is_some()
    }
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    let Arguments { place, command } = arguments;
    let find = || place.find(path.clone());
    let mut leaves_reports = false;
    let (verb, done, which) = match command {
        QueueCommand::List { which, limit, json } => return list(&find()?, &which, limit, json),
        QueueCommand::Show { id, json } => return prepare::block_on(show(&find()?, id, json)),
        QueueCommand::Export { id, output } => {
            let store = find()?.existing_store()?;
            return prepare::block_on(export::run(store, id, output));
        }
        QueueCommand::Schema => return schema::run(path),
        QueueCommand::Move { .. } => return back::run(&find()?),
        QueueCommand::Forget { name } => return forget::run(&find()?, &name),
        QueueCommand::Retry {
            which,
            reports: too,
        } => {
            leaves_reports = !too;
            (Verb::Retry, "to be tried again now", which)
        }
        QueueCommand::Hold(which) => (Verb::Hold, "held", which),
        QueueCommand::Release(which) => (Verb::Release, "released", which),
        QueueCommand::Fail(which) => (Verb::Fail, "given up", which),
        QueueCommand::Drop(which) => (Verb::Drop, "dropped", which),
    };
    if !which.says_something() {
        return Err(CommandError::new(
            Exit::Usage,
            "say which messages: an id, a filter (--state, --sender, --recipient, --route, --quota, --older), or --all",
        ));
    }
    let store = find()?.existing_store()?;
    prepare::block_on(async {
        let (store, now) = (store.as_ref(), output::now());
        let mut filter = which.filter();
        if leaves_reports {
            filter = of_retry(filter);
        }
        let left = failed_reports(store, &filter, now).await?;
        let taken = carry_out(store, &filter, &verb, None, now).await?.count();
        output::line(format_args!("{} {done}", output::count(taken, "message")))?;
        if left > 0 {
            output::complain(format_args!(
                "{} that failed stay as they are; an id, --sender '<>' or --reports takes them too",
                output::count(left, "failure report")
            ));
        }
        Ok(if taken == 0 { Exit::No } else { Exit::Ok })
    })
}

fn list(place: &QueuePlace, which: &Which, limit: Option<usize>, json: bool) -> Ended {
    let Some(store) = place.store()? else {
        if json {
            output::json(&json!([]))?;
        } else {
            output::complain("the queue is empty: no gateway has ever run there");
        }
        return Ok(Exit::Ok);
    };
    prepare::block_on(async {
        let now = output::now();
        let standing = Situation::read(&place.site()?, store.as_ref()).await?;
        let mut filter = which.filter();
        // Done ones are history: shown when asked for by name.
        if filter.states.is_empty() && filter.ids.is_empty() && !which.all {
            filter.states = JobState::NOT_DONE.to_vec();
        }
        filter.limit = limit;
        let entries = store.list(&filter, now).await?;
        if json {
            let entries: Vec<_> = entries.iter().map(|entry| standing.view(entry)).collect();
            output::json(&entries)?;
            return Ok(place::ended(store.as_ref()));
        }
        if entries.is_empty() {
            output::complain("nothing in the queue matches");
            return Ok(place::ended(store.as_ref()));
        }
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                let next = match (entry.state, standing.blocked(entry)) {
                    (JobState::Waiting, Some(lane)) => format!("blocked by {lane}"),
                    (JobState::Waiting, None) => match (&entry.lane, entry.next_attempt) {
                        (Some(lane), _) => {
                            format!("queued for {}", shown_to(&lane.to_string(), 60))
                        }
                        (None, Some(at)) => output::ahead(at, now),
                        (None, None) => String::new(),
                    },
                    (JobState::Held, _) => {
                        let holder = entry.held_by.as_deref();
                        holder.map_or_else(String::new, |holder| format!("held by {holder}"))
                    }
                    _ => String::new(),
                };
                vec![
                    entry.id.to_string(),
                    entry.state.to_string(),
                    output::span(output::since(entry.accepted, now)),
                    output::size(entry.size),
                    entry.attempts.to_string(),
                    entry
                        .sender
                        .as_deref()
                        .map_or_else(|| "<>".to_owned(), |s| shown_to(s, 40)),
                    recipients(entry),
                    next,
                ]
            })
            .collect();
        let mut out = Vec::new();
        output::table(
            &mut out,
            &["ID", "STATE", "AGE", "SIZE", "TRIES", "FROM", "TO", "NEXT"],
            &rows,
        )?;
        output::lines(&out)?;
        Ok(place::ended(store.as_ref()))
    })
}

fn recipients(entry: &Entry) -> String {
    let first = entry
        .recipients
        .first()
        .map_or_else(String::new, |r| shown_to(&r.address, 40));
    match entry.recipients.len() {
        0 | 1 => first,
        n => format!("{first} +{}", n - 1),
    }
}

async fn show(place: &QueuePlace, id: MessageId, json: bool) -> Ended {
    let store = place.existing_store()?;
    let life = History::read(store.as_ref(), id, output::now()).await?;
    if life.entries.is_empty() {
        return Err(CommandError::new(Exit::No, format_args!("no message {id}")));
    }
    let message = store.content(id).await?;
    let standing = Situation::read(&place.site()?, store.as_ref()).await?;
    if json {
        let header = message.as_ref().map(|m| m.header.as_ref());
        output::json(&life.shown(&standing, header))?;
        return Ok(Exit::Ok);
    }
    let mut out = Vec::new();
    if let Some(entry) = life.entries.first() {
        writeln!(out, "message     {id}")?;
        writeln!(out, "accepted    {}", human(entry.accepted))?;
        writeln!(out, "size        {}", output::size(entry.size))?;
        writeln!(
            out,
            "sender      {}",
            entry
                .sender
                .as_deref()
                .map_or_else(|| "<>".to_owned(), shown)
        )?;
        if let Some(original) = entry.copy_of {
            writeln!(out, "copy of     {original}, for {}", entry.route)?;
        }
    }
    match &message {
        Some(message) => summary(&mut out, message)?,
        None => writeln!(out, "content     no longer kept")?,
    }
    for entry in &life.entries {
        writeln!(
            out,
            "\nroute {}: {}, {}",
            entry.route,
            entry.state,
            output::count(u64::from(entry.attempts), "attempt")
        )?;
        if let Some(lane) = standing.blocked(entry) {
            writeln!(
                out,
                "  blocked by connector {lane} (postern status says why)"
            )?;
        } else if let Some(lane) = &entry.lane {
            writeln!(out, "  waits for its turn in {}", shown(&lane.to_string()))?;
        } else if let Some(next) = entry.next_attempt {
            writeln!(out, "  next attempt {}", human(next))?;
        }
        for recipient in &entry.recipients {
            writeln!(
                out,
                "  {}  {}{}{}",
                shown(&recipient.address),
                recipient.state,
                recipient.notify.map_or_else(String::new, |notify| format!(
                    ", notify {}",
                    notify.words().join(" ")
                )),
                recipient
                    .last_reply
                    .as_deref()
                    .map_or_else(String::new, |reply| format!(": {}", shown(reply)))
            )?;
        }
    }
    writeln!(out)?;
    trace::print(&life, &mut out, Some(&standing))?;
    output::lines(&out)?;
    Ok(Exit::Ok)
}

/// Client, ENVID as it was written; From, To, Subject and Message-ID, decoded to be read. Nothing is decided by them.
fn summary(out: &mut Vec<u8>, message: &Message) -> io::Result<()> {
    let origin = &message.origin;
    writeln!(
        out,
        "client      {} ({}) by listener {}{}",
        origin.peer.ip(),
        shown(&origin.helo),
        shown(&origin.listener),
        origin
            .user
            .as_deref()
            .map_or_else(String::new, |user| format!(", user {}", shown(user)))
    )?;
    let wish = message.envelope.dsn.as_ref();
    if let Some(id) = wish.and_then(|wish| wish.id.as_deref()) {
        writeln!(out, "{:<11} {}", "ENVID", shown(id))?;
    }
    let mut raw = message.header.to_vec();
    raw.extend_from_slice(b"\r\n");
    let Some(parsed) = MessageParser::new().parse_headers(&raw) else {
        return Ok(());
    };
    let raw_fields: HashMap<String, &str> = parsed
        .headers_raw()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    for name in ["From", "To"] {
        if let Some(value) = raw_fields.get(&name.to_ascii_lowercase()) {
            writeln!(out, "{name:<11} {}", shown(value))?;
        }
    }
    if let Some(subject) = parsed.subject() {
        writeln!(out, "{:<11} {}", "Subject", shown(subject))?;
    }
    if let Some(id) = parsed.message_id() {
        writeln!(out, "{:<11} <{}>", "Message-ID", shown(id))?;
    }
    Ok(())
}

fn state(text: &str) -> Result<JobState, String> {
    [
        JobState::Waiting,
        JobState::Sending,
        JobState::Held,
        JobState::Failed,
        JobState::Done,
    ]
    .into_iter()
    .find(|state| state.as_str() == text)
    .ok_or_else(|| "waiting, sending, held, failed or done".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("1h", Some(3600)),
            ("7d", Some(604_800)),
            ("", None),
            ("h", None),
            ("5", None),
            ("-1h", None),
            ("5ä", None),
            ("99999999999999999999d", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(age(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
    }
}
