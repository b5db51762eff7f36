//! `postern incident`: what needs somebody, who was told, and whether a channel reaches anybody; whether or not a gateway runs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    audited::{self, unwritten, window},
    exit::{CommandError, Ended, Exit},
    output,
    place::{QueuePlace, Where},
    prepare,
};
use crate::{
    config::{self, Secrets},
    gateway::watcher::post::{AlarmPost, test_channel},
    incident::{
        book::{ACKNOWLEDGED, OPEN, RECOVERED},
        shown,
    },
    mail::text::{shown as printable, shown_to},
    view::IncidentView,
    window::{WindowDb, audit, incidents},
};

/// What the channel could not tell before is no fault any more; without a gateway nobody knows of one.
fn has_told(data_dir: &Path, channel: &str) {
    let channel = channel.to_owned();
    let written = match WindowDb::existing(data_dir) {
        Ok(Some(window)) => window.wait(move |tx| incidents::has_told(tx, &channel)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        output::complain(format_args!(
            "that it was told could not be written down: {error}"
        ));
    }
}

/// The list shows so many.
const LISTED: usize = 500;
/// Octets of one line.
const LINE: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: IncidentCommand,
}

#[derive(Debug, clap::Subcommand)]
enum IncidentCommand {
    /// List incidents, newest first
    List {
        /// open, acknowledged or recovered [default: what is not over]
        #[arg(long, value_name = "STATE", value_parser = [OPEN, ACKNOWLEDGED, RECOVERED])]
        state: Option<String>,
        /// Also what is over
        #[arg(long, conflicts_with = "state")]
        all: bool,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show one: evidence, causes, what to do, who was told
    Show {
        /// Such as i42
        #[arg(value_name = "ID")]
        id: String,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Say that somebody looks after it: nobody is reminded any more
    Ack {
        /// Such as i42
        #[arg(value_name = "ID")]
        id: String,
        /// Who looks after it, and how
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Tell a channel something that means nothing, now
    Test {
        /// The name of a [[notify]]
        #[arg(value_name = "CHANNEL")]
        channel: String,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    match arguments.command {
        IncidentCommand::List { state, all, json } => list(&place, state, all, json),
        IncidentCommand::Show { id, json } => {
            let incident = one(&window(&place.data_dir)?, number(&id)?)?;
            print(&incident, json)
        }
        IncidentCommand::Ack { id, note, json } => acknowledge(&place, &id, note, json),
        IncidentCommand::Test { channel, json } => test(&place, &channel, json),
    }
}

fn number(id: &str) -> Result<i64, CommandError> {
    shown::number(id).ok_or_else(|| {
        let said = format!(
            "\"{}\" is no incident: one is called as in i42",
            printable(id)
        );
        CommandError::new(Exit::Usage, said)
    })
}

fn list(place: &QueuePlace, state: Option<String>, all: bool, json: bool) -> Ended {
    let window = WindowDb::existing(&place.data_dir).map_err(unwritten)?;
    let incidents = match window {
        // Nobody has looked yet.
        None => Vec::new(),
        Some(window) => window
            .wait(move |tx| {
                let rows = match (state, all) {
                    (None, false) => incidents::live(tx, SystemTime::now())?,
                    (state, _) => incidents::list(tx, state.as_deref(), None, LISTED)?,
                };
                let mut views = Vec::new();
                for row in rows {
                    views.push(shown::view(&row, &incidents::told(tx, row.id)?));
                }
                Ok(views)
            })
            .map_err(unwritten)?,
    };
    let mut incidents: Vec<IncidentView> = incidents;
    incidents.sort_by_key(|one| std::cmp::Reverse(shown::number(&one.id)));
    if json {
        output::json(&incidents)?;
    } else if incidents.is_empty() {
        output::line("nothing needs anybody")?;
    } else {
        let rows: Vec<Vec<String>> = incidents.iter().map(cells).collect();
        let mut out = Vec::new();
        let heads = ["ID", "SEVERITY", "STATE", "SINCE", "TITLE"];
        output::table(&mut out, &heads, &rows)?;
        output::lines(&out)?;
    }
    Ok(Exit::Ok)
}

fn cells(incident: &IncidentView) -> Vec<String> {
    let all = [
        &incident.id,
        &incident.severity,
        &incident.state,
        &incident.opened_at,
        &incident.title,
    ];
    all.into_iter().map(|cell| printable(cell)).collect()
}

fn one(window: &WindowDb, number: i64) -> Result<IncidentView, CommandError> {
    let found = window.read_now(move |tx| {
        let Some(row) = incidents::one(tx, number)? else {
            return Ok(None);
        };
        Ok(Some(shown::view(&row, &incidents::told(tx, number)?)))
    });
    found.map_err(unwritten)?.ok_or_else(|| none(number))
}

fn none(number: i64) -> CommandError {
    CommandError::new(
        Exit::No,
        format_args!("there is no incident {}", shown::id(number)),
    )
}

fn print(incident: &IncidentView, json: bool) -> Ended {
    if json {
        output::json(incident)?;
        return Ok(Exit::Ok);
    }
    let mut out = Vec::new();
    let line = |text: &str| shown_to(text, LINE);
    writeln!(out, "{}", line(&incident.title))?;
    writeln!(
        out,
        "{} {} ({}), {}",
        incident.id, incident.kind, incident.severity, incident.state
    )?;
    writeln!(
        out,
        "opened      {}, {}",
        incident.opened_at,
        output::count(u64::from(incident.count), "time")
    )?;
    writeln!(out, "last seen   {}", incident.last_seen_at)?;
    if let Some(at) = &incident.recovered_at {
        writeln!(out, "recovered   {at}")?;
    }
    if let Some(note) = &incident.note {
        writeln!(out, "note        {}", line(note))?;
    }
    for (heading, lines) in [
        ("evidence", incident.evidence.as_slice()),
        ("it may be", incident.causes.as_slice()),
        ("what to do", std::slice::from_ref(&incident.remedy)),
    ] {
        if !lines.is_empty() {
            writeln!(out, "{heading}")?;
        }
        for text in lines {
            writeln!(out, "            {}", shown_to(text, 2 * LINE))?;
        }
    }
    for told in &incident.told {
        let result = told.result.as_deref().unwrap_or("not tried yet");
        let at = told.at.as_deref().unwrap_or("-");
        writeln!(
            out,
            "told        {} {} at {at}: {}",
            line(&told.channel),
            told.transition,
            line(result)
        )?;
    }
    output::lines(&out)?;
    Ok(Exit::Ok)
}

fn acknowledge(place: &QueuePlace, id: &str, note: Option<String>, json: bool) -> Ended {
    let window = window(&place.data_dir)?;
    let number = number(id)?;
    let object = format!("incident {}", shown::id(number));
    let row = audited::row("acknowledge", &object, "incident ack");
    let done = window.wait(move |tx| {
        let done = incidents::acknowledge(tx, number, note.as_deref())?;
        if done == Some(true) {
            audit::add(tx, &row, SystemTime::now())?;
        }
        Ok(done)
    });
    match done.map_err(unwritten)? {
        None => Err(none(number)),
        Some(false) => Err(CommandError::new(
            Exit::No,
            format_args!(
                "{} is over: there is nothing to look after",
                shown::id(number)
            ),
        )),
        Some(true) => {
            let incident = one(&window, number)?;
            if json {
                output::json(&incident)?;
            } else {
                output::line(format_args!(
                    "{} is acknowledged: {}",
                    incident.id, incident.title
                ))?;
            }
            Ok(Exit::Ok)
        }
    }
}

fn test(place: &QueuePlace, channel: &str, json: bool) -> Ended {
    let (config, _) = config::load(&place.path, Secrets::Resolve)
        .map_err(|error| CommandError::new(Exit::Config, error))?;
    let post = AlarmPost {
        config: Arc::new(config),
        store: place.store()?,
        metrics: None,
    };
    let tried = prepare::block_on(async { Ok(test_channel(post, channel).await) })?;
    let Some(tried) = tried else {
        return Err(CommandError::new(
            Exit::Usage,
            format_args!("there is no [[notify]] named \"{}\"", printable(channel)),
        ));
    };
    let mut row = audited::row("test", &format!("notify {channel}"), "incident test");
    row.result.clone_from(&tried.result);
    audited::write(&place.data_dir, row);
    if tried.ok {
        has_told(&place.data_dir, channel);
    }
    if json {
        output::json(&tried)?;
    } else {
        let what = if tried.ok { "was told" } else { "was not told" };
        output::line(format_args!(
            "{} {what}: {}",
            tried.channel,
            printable(&tried.result)
        ))?;
    }
    Ok(if tried.ok {
        Exit::Ok
    } else {
        Exit::Unavailable
    })
}
