//! `postern status`: whether the gateway runs, and what needs attention.

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    check::SHOWN,
    exit::{Ended, Exit},
    output,
};
use crate::{
    config::{Config, Secrets},
    queue::store::{LaneRow, Stats},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Mail that waits longer needs somebody.
const OLD: Duration = Duration::from_hours(1);

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let config = super::settings(path, Secrets::Ignore)?;
    let pid = super::running(&config)?;
    let Some(store) = super::store(&config)? else {
        if arguments.json {
            output::json(&json!({
                "running": pid.is_some(), "pid": pid, "store": false, "ok": true,
                "listeners": [], "connectors": [], "messages": null, "oldest_seconds": null,
                "certificates": [], "reload": null,
            }))?;
        } else {
            output::line(format_args!(
                "{}, and it never ran with this configuration: there is no queue in {} yet",
                running(pid),
                config.data_dir.display()
            ))?;
        }
        return Ok(Exit::Ok);
    };
    let (note, stats, lanes) = super::block_on(async {
        Ok((
            store.note("gateway").await.map_err(super::store_failure)?,
            store.stats().await.map_err(super::store_failure)?,
            store.lanes().await.map_err(super::store_failure)?,
        ))
    })?;
    // What the gateway said of itself; a note that cannot be read is no note.
    let note: Value = note
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null);
    let now = output::now();
    let waits = stats.oldest.map(|oldest| output::since(oldest, now));
    let lanes = all_lanes(&config, lanes);
    let attention =
        lanes.iter().any(|lane| lane.state == "paused") || waits.is_some_and(|waits| waits > OLD);
    if arguments.json {
        output::json(&json!({
            "running": pid.is_some(),
            "pid": pid,
            "store": true,
            "ok": !attention,
            "started": note.get("started"),
            "config": note.get("config"),
            "listeners": note.get("listeners").cloned().unwrap_or_else(|| json!([])),
            "connectors": lanes.iter().map(lane_json).collect::<Vec<_>>(),
            "messages": {
                "waiting": stats.waiting, "sending": stats.sending,
                "held": stats.held, "failed": stats.failed,
            },
            "oldest_seconds": waits.map(|w| w.as_secs()),
            "certificates": note.get("certificates").cloned().unwrap_or_else(|| json!([])),
            "reload": note.get("reload"),
        }))?;
    } else {
        let mut out = Vec::new();
        print(&mut out, pid, &note, &stats, &lanes, now)?;
        std::io::stdout().lock().write_all(&out)?;
    }
    Ok(if attention { Exit::No } else { Exit::Ok })
}

fn running(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("the gateway is running (pid {pid})"),
        None => "the gateway is not running".to_owned(),
    }
}

/// A row for every configured connector, and for each mailbox that is not open.
fn all_lanes(config: &Config, mut rows: Vec<LaneRow>) -> Vec<LaneRow> {
    for connector in &config.connectors {
        if !rows.iter().any(|row| row.lane == connector.name.as_str()) {
            rows.push(LaneRow {
                lane: connector.name.to_string(),
                state: "open".to_owned(),
                since: SystemTime::UNIX_EPOCH,
                why: String::new(),
                probe: None,
            });
        }
    }
    // What is no longer configured holds nothing up.
    rows.retain(|row| {
        let name = row.lane.split('/').next().unwrap_or_default();
        config.connectors.iter().any(|c| c.name.as_str() == name)
    });
    rows.sort_by(|a, b| a.lane.cmp(&b.lane));
    rows
}

fn lane_json(lane: &LaneRow) -> Value {
    let open = lane.state == "open";
    json!({
        "name": lane.lane,
        "state": lane.state,
        "since": (!open).then(|| output::rfc3339(lane.since)),
        "why": (!open).then_some(lane.why.as_str()),
        "next_probe": lane.probe.filter(|_| !open).map(output::rfc3339),
    })
}

fn print(
    out: &mut Vec<u8>,
    pid: Option<u32>,
    note: &Value,
    stats: &Stats,
    lanes: &[LaneRow],
    now: SystemTime,
) -> std::io::Result<()> {
    let text =
        |value: Option<&Value>| output::safe(value.and_then(Value::as_str).unwrap_or_default());
    writeln!(
        out,
        "gateway     {}",
        running(pid).trim_start_matches("the gateway is ")
    )?;
    if pid.is_some() {
        if note.get("started").is_some() {
            writeln!(out, "started     {}", text(note.get("started")))?;
        }
        for listener in note
            .get("listeners")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            writeln!(
                out,
                "listener    {} at {} (tls {})",
                text(listener.get("name")),
                text(listener.get("address")),
                text(listener.get("tls"))
            )?;
        }
    }
    for lane in lanes {
        write!(
            out,
            "connector   {} is {}",
            output::safe(&lane.lane),
            output::safe(&lane.state)
        )?;
        if lane.state == "open" {
            writeln!(out)?;
            continue;
        }
        write!(out, " since {}", output::human(lane.since))?;
        if let Some(probe) = lane.probe {
            let what = match lane.state.as_str() {
                "throttled" => "goes on",
                _ => "asked again",
            };
            write!(out, ", {what} {}", output::ahead(probe, now))?;
        }
        writeln!(out, "\n            {}", output::cut(&lane.why, SHOWN))?;
    }
    writeln!(
        out,
        "messages    {} waiting, {} being sent, {} held, {} failed",
        stats.waiting, stats.sending, stats.held, stats.failed
    )?;
    if let Some(oldest) = stats.oldest {
        writeln!(
            out,
            "oldest      waits for {}",
            output::span(output::since(oldest, now))
        )?;
    }
    for certificate in note
        .get("certificates")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        writeln!(
            out,
            "certificate of listener {} is valid until {}",
            text(certificate.get("listener")),
            text(certificate.get("not_after"))
        )?;
    }
    if let Some(reload) = note.get("reload").filter(|reload| !reload.is_null()) {
        match reload.get("error").and_then(Value::as_str) {
            Some(error) => {
                writeln!(out, "reload      failed at {}:", text(reload.get("at")))?;
                for line in error.lines().take(40) {
                    writeln!(out, "            {}", output::safe(line))?;
                }
            }
            None => writeln!(out, "reload      done at {}", text(reload.get("at")))?,
        }
    }
    Ok(())
}
