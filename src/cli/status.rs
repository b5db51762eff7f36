//! `postern status`: whether the gateway runs, and what needs attention.

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rustix::process::Pid;

use super::{
    check::{SHOWN, problem},
    elsewhere,
    exit::{Ended, Exit},
    output,
    place::{QueuePlace, Where},
    prepare,
};
use crate::{
    delivery::upstreams::{self, UPSTREAMS_ROW, UpstreamRow, UpstreamsRow},
    listener::acceptor::EXPIRES_SOON,
    mail::{
        outcome::LaneState,
        text::{shown, shown_to},
        time::human,
    },
    queue::{
        lock::Holder,
        store::{LaneRow, Stats},
    },
    route::LaneId,
    view::{Certificate, CheckedCertificate, Lane, Messages, Owner, Status, StatusRow, listed},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Mail that waits longer needs somebody.
const OLD: Duration = Duration::from_hours(1);
/// Lines of one text about the configuration that are shown.
const LINES: usize = 40;

/// All that is known of a gateway.
struct StatusReport {
    place: QueuePlace,
    running: Option<Holder>,
    /// Empty unless the gateway runs.
    row: StatusRow,
    /// `None`: there is no queue yet.
    stats: Option<Stats>,
    lanes: Vec<LaneRow>,
    upstreams: UpstreamsRow,
    certificates: Vec<CheckedCertificate>,
    now: SystemTime,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let running = super::place::running(&place.data_dir)?;
    let (row, stats, lanes, upstreams) = match place.store()? {
        None => (StatusRow::default(), None, Vec::new(), UpstreamsRow::new()),
        Some(store) => prepare::block_on(async {
            Ok((
                super::place::status_row_of(store.as_ref(), running.as_ref()).await?,
                Some(store.stats().await?),
                store.lanes().await?,
                upstreams::read(store.note(UPSTREAMS_ROW).await?.as_deref()),
            ))
        })?,
    };
    let now = output::now();
    let report = StatusReport {
        lanes: all_lanes(&place, &row, lanes),
        upstreams,
        certificates: row.certificates.iter().map(|c| held(c, now)).collect(),
        place,
        running,
        row,
        stats,
        now,
    };
    if arguments.json {
        output::json(&report.view())?;
    } else {
        let mut out = Vec::new();
        report.print(&mut out)?;
        output::lines(&out)?;
    }
    Ok(report.exit())
}

/// How many connections there are of how many, and what the upstream was found to take.
fn connections(upstream: &UpstreamRow) -> String {
    let UpstreamRow { open, most, .. } = upstream;
    match upstream.learned {
        Some(learned) => {
            format!("{open} of {most} connections (the upstream takes {learned} at once)")
        }
        None => format!("{open} of {most} connections"),
    }
}

impl StatusReport {
    /// How long the oldest message waits.
    fn waits(&self) -> Option<Duration> {
        let oldest = self.stats.as_ref()?.oldest?;
        Some(output::since(oldest, self.now))
    }

    fn exit(&self) -> Exit {
        let is_needed = self
            .lanes
            .iter()
            .any(|lane| lane.state == LaneState::Paused)
            || self
                .certificates
                .iter()
                .any(|c| c.expired || c.certificate.is_early(self.now))
            || self.waits().is_some_and(|waits| waits > OLD);
        if self.running.is_none() {
            Exit::Unavailable
        } else if is_needed {
            Exit::No
        } else {
            Exit::Ok
        }
    }

    fn view(&self) -> Status {
        let is_running = self.running.is_some();
        let row = self.row.clone();
        Status {
            running: is_running,
            pid: self
                .running
                .and_then(|r| r.pid)
                .map(Pid::as_raw_nonzero)
                .map(Into::into),
            data_dir: self.place.data_dir.display().to_string(),
            store: self.stats.is_some(),
            ok: self.exit() == Exit::Ok,
            started: row.started,
            config: row.config,
            problems: self.place.problems().map(problem).collect(),
            listeners: row.listeners,
            connectors: listed(&self.lanes)
                .iter()
                .map(|lane| Lane::new(lane, is_running, &self.upstreams))
                .collect(),
            messages: self.stats.as_ref().map(Messages::from),
            oldest_seconds: self.waits().map(|w| w.as_secs()),
            certificates: self.certificates.clone(),
            reload: row.reload,
        }
    }

    fn print(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let dir = self.place.data_dir.display();
        match &self.running {
            None => {
                writeln!(out, "gateway     not running")?;
                // The file may name another directory than it did when the gateway started.
                if let Some(found) = elsewhere::find(&self.place.path) {
                    writeln!(out, "            {}", shown(&found.sentence()))?;
                }
            }
            Some(Holder { pid: Some(pid), .. }) => {
                writeln!(out, "gateway     running (pid {})", pid.as_raw_nonzero())?;
            }
            Some(Holder { pid: None, own }) => writeln!(
                out,
                "gateway     running (in another PID namespace, a container perhaps, as pid {own} there)"
            )?,
        }
        if self.stats.is_none() {
            writeln!(
                out,
                "queue       there is none in {dir} yet: no gateway has ever run there"
            )?;
        } else if self.place.config.is_none() {
            writeln!(out, "queue       {dir}")?;
        }
        if let Some(started) = &self.row.started {
            writeln!(out, "started     {}", shown(started))?;
        }
        for listener in &self.row.listeners {
            writeln!(
                out,
                "listener    {} at {} (tls {})",
                shown(&listener.name),
                shown(&listener.address),
                shown(&listener.tls)
            )?;
        }
        for lane in &listed(&self.lanes) {
            self.print_lane(out, lane)?;
        }
        if let Some(stats) = &self.stats {
            writeln!(
                out,
                "messages    {} waiting, {} being sent, {} held, {} failed",
                stats.waiting, stats.sending, stats.held, stats.failed
            )?;
        }
        if let Some(waits) = self.waits() {
            writeln!(out, "oldest      waits for {}", output::span(waits))?;
        }
        for certificate in &self.certificates {
            writeln!(out, "{}", sentence(certificate, self.now))?;
        }
        self.print_reload(out)
    }

    fn print_lane(&self, out: &mut Vec<u8>, lane: &LaneRow) -> std::io::Result<()> {
        let (name, state) = (shown(&lane.lane.to_string()), lane.state);
        if self.running.is_none() {
            // The gateway that kept this state is gone.
            write!(out, "connector   {name} was last seen {state}")?;
        } else {
            write!(out, "connector   {name} is {state}")?;
        }
        let upstream = self.upstreams.get(lane.lane.connector.as_str());
        let upstream = upstream.filter(|_| self.running.is_some() && lane.lane.mailbox.is_none());
        if lane.state == LaneState::Open {
            return match upstream {
                Some(upstream) => writeln!(out, ", {}", connections(upstream)),
                None => writeln!(out),
            };
        }
        let comma = if self.running.is_some() { "" } else { "," };
        write!(out, "{comma} since {}", human(lane.since))?;
        if let (Some(probe), true) = (lane.probe, self.running.is_some()) {
            let what = match lane.state {
                LaneState::Throttled => "goes on",
                _ => "tried again",
            };
            write!(out, ", {what} {}", output::ahead(probe, self.now))?;
        }
        writeln!(out, "\n            {}", shown_to(&lane.why, SHOWN))
    }

    /// What became of the last reload, and what is wrong with the file as it is now.
    fn print_reload(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let problems = self.place.problems.as_ref().map(ToString::to_string);
        let mut told = None;
        if let Some(reload) = &self.row.reload {
            let at = shown(&reload.at);
            match &reload.error {
                Some(error) => {
                    writeln!(out, "reload      failed at {at}, the old settings stay:")?;
                    indented(out, error)?;
                    told = Some(error);
                }
                None => writeln!(out, "reload      done at {at}")?,
            }
        }
        let Some(problems) = problems.filter(|problems| told != Some(problems)) else {
            return Ok(());
        };
        let file = shown(&self.place.path.display().to_string());
        if self.running.is_some() {
            writeln!(
                out,
                "config      {file} has errors; the gateway keeps running with the settings it has:"
            )?;
        } else {
            writeln!(
                out,
                "config      {file} has errors; a gateway will not start with it:"
            )?;
        }
        indented(out, &problems)
    }
}

fn indented(out: &mut Vec<u8>, text: &str) -> std::io::Result<()> {
    for line in text.lines().take(LINES) {
        writeln!(out, "            {}", shown(line))?;
    }
    Ok(())
}

fn held(certificate: &Certificate, now: SystemTime) -> CheckedCertificate {
    CheckedCertificate {
        certificate: certificate.clone(),
        expired: certificate.ends().is_some_and(|end| end <= now),
    }
}

/// What there is to say of a certificate.
fn sentence(held: &CheckedCertificate, now: SystemTime) -> String {
    let certificate = &held.certificate;
    let (kind, name) = match &certificate.owner {
        Owner::Listener(name) => ("listener", name),
        Owner::Connector(name) => ("connector", name),
    };
    let whose = format!("certificate of {kind} {}", shown(name));
    let (end, file) = (shown(&certificate.not_after), shown(&certificate.file));
    let left = certificate
        .ends()
        .map(|end| end.duration_since(now).unwrap_or_default());
    match left {
        _ if held.expired => {
            format!(
                "{whose} expired on {end}: put a new one into {file}; it is loaded automatically"
            )
        }
        _ if certificate.is_early(now) => {
            let begin = shown(certificate.not_before.as_deref().unwrap_or_default());
            format!(
                "{whose} is not valid before {begin}: check that this machine's clock is right, or put another one into {file}"
            )
        }
        Some(left) if left < EXPIRES_SOON => {
            format!("{whose} ends in {}, at {end} ({file})", output::span(left))
        }
        _ => format!("{whose} is valid until {end}"),
    }
}

/// A row for every connector there is, and for each mailbox that is not open.
fn all_lanes(place: &QueuePlace, row: &StatusRow, mut rows: Vec<LaneRow>) -> Vec<LaneRow> {
    let mut connectors = row.connectors.clone();
    if let (true, Some(config)) = (connectors.is_empty(), &place.config) {
        connectors = config
            .connectors
            .iter()
            .map(|c| c.name.to_string())
            .collect();
    }
    for name in &connectors {
        let lane = LaneId::of(&name.as_str().into());
        if !rows.iter().any(|row| row.lane == lane) {
            rows.push(LaneRow {
                lane,
                state: LaneState::Open,
                since: SystemTime::UNIX_EPOCH,
                why: String::new(),
                probe: None,
                version: 0,
            });
        }
    }
    // A connector that is no longer configured holds nothing up.
    rows.retain(|row| {
        let name = row.lane.connector.as_str();
        connectors.is_empty() || connectors.iter().any(|connector| connector == name)
    });
    rows.sort_by_cached_key(|row| row.lane.to_string());
    rows
}
