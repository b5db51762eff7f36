//! How the gateways are that share the queue, for people: kept in a file beside the queue, which `status` and the incidents read though the
//! database is away.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::{
    delivery::{member::Member, members::word::MemberState},
    mail::time::{rfc3339, since},
    queue::store::{RemoteState, Store},
    view::{CLUSTER_FILE, ClusterView, MemberStateView, MemberView, StoreView},
};

/// How often it is said.
const EVERY: Duration = Duration::from_secs(2);
/// What was said longer ago is of a gateway that does not work.
const STALE: u64 = 30;
/// The file is no longer than this; a longer one is none of ours.
const MOST: u64 = 64 * 1024;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(CLUSTER_FILE)
}

/// What the gateway of this directory said a moment ago. `None`: it is alone, or does not run.
pub fn read(data_dir: &Path, now: SystemTime) -> Option<ClusterView> {
    let path = path(data_dir);
    if fs::metadata(&path).ok()?.len() > MOST {
        return None;
    }
    let said: ClusterView = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (seconds(now).abs_diff(said.at) <= STALE).then_some(said)
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Nobody keeps it any more, or did so before.
pub(super) fn remove(data_dir: &Path) {
    let _ = fs::remove_file(path(data_dir));
}

/// In one piece: a reader finds the old text or the new one. It need not outlive a power failure.
fn write(data_dir: &Path, said: &ClusterView) -> io::Result<()> {
    let new = data_dir.join(format!("{CLUSTER_FILE}.new"));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(said)?)?;
    fs::rename(new, path(data_dir))
}

/// Keeps the file until it is dropped.
pub(super) async fn keep(member: Arc<Member>, store: Arc<dyn Store>, data_dir: PathBuf) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut differ = BTreeMap::new();
    let mut is_troubled = false;
    loop {
        every.tick().await;
        let now = SystemTime::now();
        let said = ClusterView {
            at: seconds(now),
            members: members(&member, &mut differ, now),
            store: store
                .remote()
                .map_or_else(StoreView::alone, |remote| shown(remote, now)),
        };
        let data_dir = data_dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&data_dir, &said)).await;
        match written {
            Ok(Err(error)) if !is_troubled => {
                is_troubled = true;
                warn!(event = "cluster not written", error = %error, "how the other gateways are cannot be written down");
            }
            Ok(Ok(())) => is_troubled = false,
            _ => {}
        }
    }
}

/// Of each member the start that is at work, or was last. `differ`: since when the configuration of which is another one.
fn members(
    member: &Member,
    differ: &mut BTreeMap<String, SystemTime>,
    now: SystemTime,
) -> Vec<MemberView> {
    let own = member.node();
    let config = member.config_hash();
    let mut shown: BTreeMap<String, MemberView> = BTreeMap::new();
    // The newest start of a name comes last, and stays.
    let mut states = member.states();
    states.sort_by_key(|(row, ..)| row.id);
    for (row, state, silence) in states {
        let is_this = Some(row.id) == own;
        let same_config = is_this || row.config_hash == config;
        if same_config {
            differ.remove(&row.name);
        } else {
            differ.entry(row.name.clone()).or_insert(now);
        }
        let left = match state {
            MemberState::Silent(left) => Some(left.as_secs()),
            _ => None,
        };
        let view = MemberView {
            name: row.name.clone(),
            version: row.version.clone(),
            state: state_of(state),
            seen_seconds: silence.as_secs(),
            lanes: row.lanes,
            same_config,
            differs_since: differ.get(&row.name).map(|since| rfc3339(*since)),
            differs_seconds: differ.get(&row.name).map(|at| since(*at, now).as_secs()),
            taken_over_in: left,
            this: is_this,
        };
        shown.insert(row.name, view);
    }
    differ.retain(|name, _| shown.contains_key(name));
    shown.into_values().collect()
}

fn state_of(state: MemberState) -> MemberStateView {
    match state {
        MemberState::Alive => MemberStateView::Alive,
        MemberState::Silent(_) => MemberStateView::Silent,
        MemberState::Draining => MemberStateView::Draining,
        MemberState::Apart => MemberStateView::Apart,
        MemberState::Gone => MemberStateView::Gone,
    }
}

fn shown(remote: RemoteState, now: SystemTime) -> StoreView {
    let RemoteState {
        host,
        away,
        durability,
        spilled,
        oldest,
        unwritten,
    } = remote;
    let (since_when, why) = away.unzip();
    StoreView {
        kind: "postgres".to_owned(),
        host: Some(host),
        state: if since_when.is_some() { "away" } else { "ok" }.to_owned(),
        since: since_when.map(rfc3339),
        why,
        durability: Some(durability).filter(|said| !said.is_empty()),
        spilled,
        spilled_oldest_seconds: oldest.map(|oldest| since(oldest, now).as_secs()),
        unwritten,
    }
}
