//! `postern status`: whether the gateway runs, and what needs attention.

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    check::SHOWN,
    elsewhere,
    exit::{Ended, Exit},
    output,
    place::{QueuePlace, Where},
    prepare,
};
use crate::{
    delivery::upstreams::UpstreamRow,
    gateway::report::status::{StatusReport, open_incidents, with_old_tls},
    mail::{
        outcome::LaneState,
        text::{shown, shown_to},
        time::{day, human, parsed},
    },
    queue::{lock::Holder, store::LaneRow},
    view::{Credential, MemberStateView, MemberView, OpenIncidents, StoreView, listed},
    window::WindowDb,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Lines of one text about the configuration that are shown.
const LINES: usize = 40;

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let place = arguments.place.find(path)?;
    let site = place.site()?;
    let store = place.store()?;
    let report = prepare::block_on(async {
        let mut report = StatusReport::read(site, store.as_deref()).await?;
        // What cannot be looked into says nothing.
        if let Some(window) = WindowDb::existing(&place.data_dir).ok().flatten() {
            report.incidents = open_incidents(&window).await;
            report.old_tls = with_old_tls(&window, report.site.now).await;
        }
        Ok(report)
    })?;
    if arguments.json {
        output::json(&report.view())?;
    } else {
        let mut out = Vec::new();
        let printed = PrintedStatus {
            report: &report,
            place: &place,
        };
        printed.print(&mut out)?;
        output::lines(&out)?;
    }
    Ok(if report.site.running.is_none() {
        Exit::Unavailable
    } else if report.needs_somebody() {
        Exit::No
    } else {
        Exit::Ok
    })
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

/// `relay-b  0.4.0  heard of 1 s ago  holds 9 lanes`.
fn member_line(member: &MemberView) -> String {
    let ago = output::span(Duration::from_secs(member.seen_seconds));
    let state = match member.state {
        MemberStateView::Silent => {
            let left = Duration::from_secs(member.taken_over_in.unwrap_or(0));
            format!("silent for {ago}, taken over in {}", output::span(left))
        }
        MemberStateView::Gone => format!("silent for {ago}, taken over"),
        MemberStateView::Draining => "is ending".to_owned(),
        MemberStateView::Apart => format!("heard of {ago} ago, was away"),
        MemberStateView::Alive => format!("heard of {ago} ago"),
    };
    let mut words = vec![member.name.clone(), member.version.clone(), state];
    if member.lanes > 0 {
        words.push(format!("holds {}", output::count(member.lanes, "lane")));
    }
    let line = words.join("  ");
    match &member.differs_since {
        Some(since) => format!("{line}; another configuration since {}", moment(since)),
        None => line,
    }
}

/// A time that programs are told, for people.
fn moment(at: &str) -> String {
    parsed(at).map_or_else(|| at.to_owned(), human)
}

/// `postgres at db1.corp.example:5432; spilled here: 0 messages`.
fn store_line(store: &StoreView) -> String {
    let place = match &store.host {
        Some(host) => format!("{} at {host}", store.kind),
        None => store.kind.clone(),
    };
    let place = match (&store.since, &store.why) {
        (Some(since), Some(why)) => format!("{place}, away since {}: {why}", moment(since)),
        _ => place,
    };
    let spilled = format!("spilled here: {}", output::count(store.spilled, "message"));
    let spilled = match store.spilled_oldest_seconds {
        Some(age) => {
            let age = output::span(Duration::from_secs(age));
            format!("{spilled}, the oldest for {age}")
        }
        None => spilled,
    };
    let mut parts = vec![place, spilled];
    if store.unwritten > 0 {
        let outcomes = output::count(store.unwritten, "outcome");
        parts.push(format!("{outcomes} to be written there"));
    }
    parts.join("; ")
}

/// A report, and the place that it is of, for people.
struct PrintedStatus<'a> {
    report: &'a StatusReport<'a>,
    place: &'a QueuePlace,
}

impl PrintedStatus<'_> {
    /// What it is called among others, and how many there are.
    fn company(&self) -> Option<(String, u64)> {
        let members = &self.report.cluster.as_ref()?.members;
        let this = members.iter().find(|member| member.this)?;
        Some((this.name.clone(), members.len() as u64))
    }

    /// The other gateways, and the database.
    fn print_cluster(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Some(cluster) = &self.report.cluster else {
            return Ok(());
        };
        for member in &cluster.members {
            if !member.this {
                writeln!(out, "member      {}", shown(&member_line(member)))?;
            }
        }
        writeln!(out, "store       {}", shown(&store_line(&cluster.store)))
    }

    fn print(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let dir = self.place.data_dir.display();
        match &self.report.site.running {
            None => {
                writeln!(out, "gateway     not running")?;
                // The file may name another directory than it did when the gateway started.
                if let Some(found) = elsewhere::find(&self.place.path) {
                    writeln!(out, "            {}", shown(&found.sentence()))?;
                }
            }
            Some(Holder { pid: Some(pid), .. }) => {
                let pid = pid.as_raw_nonzero();
                match self.company() {
                    Some((name, members)) => writeln!(
                        out,
                        "gateway     {} is running (pid {pid}); {}",
                        shown(&name),
                        output::count(members, "member")
                    )?,
                    None => writeln!(out, "gateway     running (pid {pid})")?,
                }
            }
            Some(Holder { pid: None, own }) => writeln!(
                out,
                "gateway     running (in another PID namespace, a container perhaps, as pid {own} there)"
            )?,
        }
        if self.report.stats.is_none() {
            writeln!(
                out,
                "queue       there is none in {dir} yet: no gateway has ever run there"
            )?;
        } else if self.place.config.is_none() {
            writeln!(out, "queue       {dir}")?;
        }
        self.print_cluster(out)?;
        if let Some(started) = &self.report.row.started {
            writeln!(out, "started     {}", shown(started))?;
        }
        for listener in &self.report.row.listeners {
            writeln!(
                out,
                "listener    {} at {} (tls {})",
                shown(&listener.name),
                shown(&listener.address),
                shown(&listener.tls)
            )?;
        }
        for lane in &listed(&self.report.lanes) {
            self.print_lane(out, lane)?;
        }
        if let Some(learning) = &self.report.row.learning {
            writeln!(
                out,
                "learning    {} until {}: any device in there is served{}",
                shown(&learning.networks.join(", ")),
                shown(&learning.until),
                if learning.external {
                    ", to anybody that the lists admit"
                } else {
                    ""
                }
            )?;
        }
        for full in &self.report.quotas {
            let (count, quota) = (full.full, shown(&full.quota));
            let some = shown(&full.named.join(", "));
            writeln!(out, "quota       {quota} is used up for {count}: {some}")?;
        }
        if let Some(stats) = &self.report.stats {
            writeln!(
                out,
                "messages    {} waiting, {} being sent, {} held, {} failed",
                stats.waiting, stats.sending, stats.held, stats.failed
            )?;
        }
        if let Some(waits) = self.report.waits() {
            writeln!(out, "oldest      waits for {}", output::span(waits))?;
        }
        for credential in &self.report.row.credentials {
            writeln!(out, "{}", sentence(credential, self.report.site.now))?;
        }
        for old in &self.report.old_tls {
            let client = old.client.as_deref().unwrap_or("-");
            writeln!(
                out,
                "old tls     {} (client {}) spoke TLS {} at {}",
                shown(&old.address),
                shown(client),
                shown(&old.tls),
                moment(&old.at)
            )?;
        }
        if let Some(open) = self.report.incidents {
            writeln!(out, "incidents   {}", open_ones(open))?;
        }
        self.print_reload(out)
    }

    fn print_lane(&self, out: &mut Vec<u8>, lane: &LaneRow) -> std::io::Result<()> {
        let (name, state) = (shown(&lane.lane.to_string()), lane.state);
        if self.report.site.running.is_none() {
            // The gateway that kept this state is gone.
            write!(out, "connector   {name} was last seen {state}")?;
        } else {
            write!(out, "connector   {name} is {state}")?;
        }
        let upstream = self.report.upstreams.get(lane.lane.connector.as_str());
        let upstream =
            upstream.filter(|_| self.report.site.running.is_some() && lane.lane.mailbox.is_none());
        if lane.state == LaneState::Open {
            return match upstream {
                Some(upstream) => writeln!(out, ", {}", connections(upstream)),
                None => writeln!(out),
            };
        }
        let comma = if self.report.site.running.is_some() {
            ""
        } else {
            ","
        };
        write!(out, "{comma} since {}", human(lane.since))?;
        if let (Some(probe), true) = (lane.probe, self.report.site.running.is_some()) {
            let what = match lane.state {
                LaneState::Throttled => "goes on",
                _ => "tried again",
            };
            write!(
                out,
                ", {what} {}",
                output::ahead(probe, self.report.site.now)
            )?;
        }
        writeln!(out, "\n            {}", shown_to(&lane.why, SHOWN))
    }

    /// What became of the last reload, and what is wrong with the file as it is now.
    fn print_reload(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let problems = self.place.problems.as_ref().map(ToString::to_string);
        let mut told = None;
        if let Some(reload) = &self.report.row.reload {
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
        if self.report.site.running.is_some() {
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

/// `3 open: 1 critical, 2 warnings; postern incident list`.
fn open_ones(open: OpenIncidents) -> String {
    if open.all() == 0 {
        return "none open".to_owned();
    }
    let mut kinds = Vec::new();
    for (count, noun) in [(open.critical, "critical"), (open.info, "info")] {
        if count > 0 {
            kinds.push(format!("{count} {noun}"));
        }
    }
    if open.warning > 0 {
        kinds.insert(
            usize::from(open.critical > 0),
            output::count(open.warning, "warning"),
        );
    }
    format!(
        "{} open: {}; see `postern incident list`",
        open.all(),
        kinds.join(", ")
    )
}

fn indented(out: &mut Vec<u8>, text: &str) -> std::io::Result<()> {
    for line in text.lines().take(LINES) {
        writeln!(out, "            {}", shown(line))?;
    }
    Ok(())
}

/// What there is to say of something that ends.
pub(super) fn sentence(held: &Credential, now: SystemTime) -> String {
    let (name, kind) = match (&held.listener, &held.connector) {
        (Some(listener), _) => {
            let kind = match held.kind.as_str() {
                "listener" => "certificate",
                kind => kind,
            };
            (format!("listener {}", shown(listener)), kind)
        }
        (None, connector) => (
            shown(connector.as_deref().unwrap_or_default()),
            held.kind.as_str(),
        ),
    };
    let whose = format!("credential  {name} {}", shown(kind));
    let (end, left) = (on(&held.not_after), held.days(now).unwrap_or_default());
    let instead = match &held.file {
        Some(file) => format!(
            "put a new one into {}; it is loaded automatically",
            shown(file)
        ),
        None => "put a new one in its place".to_owned(),
    };
    if held.is_list() {
        return match left {
            ..0 => format!("{whose} should have been followed by another on {end}: {instead}"),
            _ => format!("{whose} is followed by another by {end}"),
        };
    }
    if held.is_early(now) {
        let begin = on(held.not_before.as_deref().unwrap_or_default());
        return format!(
            "{whose} is not valid before {begin}: check that this machine's clock is right, or {instead}"
        );
    }
    let mut said = match left {
        ..0 => format!("{whose} expired on {end}: {instead}"),
        0 => format!("{whose} ends {end} (within a day)"),
        1 => format!("{whose} ends {end} (in 1 day)"),
        left => format!("{whose} ends {end} (in {left} days)"),
    };
    if let (Some(file), 0..30) = (&held.file, left) {
        said = format!("{said}, in {}", shown(file));
    }
    said + &rotation(held)
}

/// How far it is with one that is replaced.
fn rotation(held: &Credential) -> String {
    let mut said = match (held.rotation.as_deref(), &held.rotates_at) {
        (Some("waiting"), Some(at)) => format!(", rotates from {}", on(at)),
        (None | Some("off" | "waiting"), _) => String::new(),
        (Some("failed"), _) => ", rotation failed".to_owned(),
        (Some(word), _) => format!(", rotation: {}", shown(word)),
    };
    if let Some(why) = &held.why {
        said = format!("{said}\n            {}", shown_to(why, SHOWN));
    }
    said
}

fn on(time: &str) -> String {
    parsed(time).map_or_else(|| shown(time), day)
}
