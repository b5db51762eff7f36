//! Changes of the configuration as the window asks for them: looked at, kept, written; and connectors that are tried before they are
//! saved.
//!
//! The file of now is read each time. Whoever writes it reloads behind it, and brings it back where that is refused.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;
use tracing::{info, warn};

use crate::{
    admin::host::{ChangeRefused, PlannedChange},
    config::{
        self, Config, Diagnostics, Environment, Secrets,
        edit::{self, EditRefusal, Edited, Ground, Plan, Proposal, Unwritten, Written},
    },
    connector,
    view::{Changes, CheckedChange},
    window::{
        WindowDb,
        proposals::{self, CutOff},
    },
};

impl From<EditRefusal> for ChangeRefused {
    fn from(refusal: EditRefusal) -> Self {
        Self {
            status: refusal.why.status(),
            code: refusal.why.as_str(),
            detail: refusal.detail,
            problems: refusal.problems,
        }
    }
}

/// It should have worked.
pub(super) fn failed(why: &dyn std::fmt::Display) -> ChangeRefused {
    ChangeRefused {
        status: 500,
        code: "internal_server_error",
        detail: why.to_string(),
        problems: Vec::new(),
    }
}

/// The reload behind a write was refused.
pub(super) fn not_reloaded(why: &str, undone: Result<(), Unwritten>) -> ChangeRefused {
    let file = match undone {
        Ok(()) => "the file is as it was".to_owned(),
        Err(why) => format!("the file could not be brought back: {why}"),
    };
    ChangeRefused {
        status: 422,
        code: "not_reloaded",
        detail: format!("the gateway does not take it, and {file}: {why}"),
        problems: Vec::new(),
    }
}

/// Does what waits for the disk where nothing else waits for it.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChangeRefused> + Send + 'static,
) -> Result<T, ChangeRefused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(failed(&"a fault of this program; the log has it")))
}

/// What is wrong with the file as it is now.
pub(super) async fn problems(path: PathBuf) -> Option<Diagnostics> {
    let read = move || config::load(&path, Secrets::Ignore).err();
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// The file of now, for whoever looks at it.
fn on_file<T>(
    config: &Config,
    secrets: Secrets,
    look: impl FnOnce(Ground<'_>) -> Result<T, ChangeRefused>,
) -> Result<T, ChangeRefused> {
    let octets = fs::read(&config.path)
        .map_err(|why| failed(&format_args!("the configuration cannot be read: {why}")))?;
    let env = Environment::of_process();
    look(Ground {
        path: &config.path,
        octets: &octets,
        env: &env,
        secrets,
    })
}

fn planned(config: &Config, changes: &Changes) -> Result<Plan, ChangeRefused> {
    on_file(config, Secrets::Ignore, |ground| {
        Ok(Plan::new(changes, ground, &config.data_dir)?)
    })
}

fn checked(edited: Edited) -> CheckedChange {
    CheckedChange {
        diff: edited.diff,
        problems: edited.problems,
    }
}

/// What it would make of the file.
pub(super) fn check(config: &Config, changes: &Changes) -> Result<CheckedChange, ChangeRefused> {
    planned(config, changes).map(|plan| checked(plan.edited))
}

/// The same, its secrets in their files.
pub(super) fn plan(config: &Config, changes: &Changes) -> Result<PlannedChange, ChangeRefused> {
    let plan = planned(config, changes)?;
    if plan.edited.diff.is_empty() {
        return Err(ChangeRefused {
            status: 400,
            code: "bad_request",
            detail: "this changes nothing".to_owned(),
            problems: Vec::new(),
        });
    }
    let kept = plan.keep(&config.data_dir);
    let (proposal, edited) =
        kept.map_err(|why| failed(&format_args!("its secrets cannot be written: {why}")))?;
    Ok(PlannedChange {
        body: proposal.written(),
        base: proposal.base,
        checked: checked(edited),
    })
}

/// A change that was done anew, on the file of now; nothing is written.
#[derive(Debug)]
pub(super) struct Anew {
    before: Vec<u8>,
    edited: Edited,
}

impl Anew {
    /// Of what a proposal does.
    pub(super) fn new(config: &Config, body: &str) -> Result<Self, ChangeRefused> {
        let proposal = Proposal::read(body)?;
        on_file(config, Secrets::CheckOnly, |ground| {
            Ok(Self {
                before: ground.octets.to_vec(),
                edited: proposal.apply(ground)?,
            })
        })
    }

    /// The hash of the file as it is to be.
    pub(super) fn digest(&self) -> String {
        edit::digest(&self.edited.octets)
    }

    /// Writes it.
    pub(super) fn write(self, config: &Config) -> Result<(Written, CheckedChange), ChangeRefused> {
        let Self { before, edited } = self;
        let written =
            edit::write(&config.path, &before, &edited.octets).map_err(EditRefusal::from)?;
        Ok((written, checked(edited)))
    }
}

/// Writes down that this proposal is being written.
pub(super) async fn begin(
    window: &WindowDb,
    number: i64,
    anew: &Anew,
) -> Result<(), ChangeRefused> {
    let (after, now) = (anew.digest(), SystemTime::now());
    let begun = window
        .run(move |tx| proposals::begin(tx, number, &after, now))
        .await;
    match begun {
        Ok(true) => Ok(()),
        Ok(false) => Err(ChangeRefused {
            status: 409,
            code: "conflict",
            detail: format!("proposal p{number} is not open any more, or somebody else writes it"),
            problems: Vec::new(),
        }),
        Err(error) => Err(ChangeRefused {
            status: 503,
            code: "service_unavailable",
            detail: format!("nothing was written, since it cannot be written down: {error}"),
            problems: Vec::new(),
        }),
    }
}

/// Writes down what became of it.
pub(super) async fn finish(window: &WindowDb, number: i64, is_written: bool) {
    let finished = window
        .run(move |tx| proposals::finish(tx, number, is_written))
        .await;
    if let Err(error) = finished {
        // The file says it, and whoever settles reads that.
        warn!(event = "proposal not finished", error = %error, "what became of a proposal cannot be written down yet");
    }
}

/// Says of proposals whose writing was cut off what became of them, by the file of now.
pub(super) async fn settle(window: &WindowDb, path: &Path, which: CutOff) {
    // What cannot be read or written now is settled later.
    let Ok(octets) = fs::read(path) else { return };
    let (file, now) = (edit::digest(&octets), SystemTime::now());
    let settled = window
        .run(move |tx| proposals::settle(tx, &file, which, now))
        .await;
    if let Err(error) = settled {
        warn!(event = "proposals not settled", error = %error, "what became of proposals that were being written is not known yet");
    }
}

/// Deletes the files of secrets that neither the configuration, that in force and that of the file, nor one of these changes names.
pub(super) fn forget(config: &Config, open: &[String]) {
    // What cannot be read may name any of them.
    let Ok((saved, _)) = config::load(&config.path, Secrets::CheckOnly) else {
        return;
    };
    let Ok(proposals) = open
        .iter()
        .map(|body| Proposal::read(body))
        .collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let waiting = proposals.iter().flat_map(|one| one.secrets.iter());
    let named = config.files.iter().chain(&saved.files).map(|path| &**path);
    match forget_all_but(config, named.chain(waiting.map(Path::new))) {
        Ok(gone) if gone > 0 => {
            info!(
                event = "secrets deleted",
                count = gone,
                "files of secrets that nobody has named for 30 days were deleted"
            );
        }
        Ok(_) => {}
        Err(error) => {
            warn!(event = "secrets not deleted", error = %error, "files of secrets that nobody names cannot be deleted");
        }
    }
}

fn forget_all_but<'a>(config: &Config, named: impl Iterator<Item = &'a Path>) -> io::Result<usize> {
    // By the name alone, which no two have: the directory may be written in another way.
    let directory = std::path::absolute(edit::secrets_directory(&config.data_dir))?;
    let named: BTreeSet<_> = named
        .filter_map(|path| Some(directory.join(path.file_name()?)))
        .collect();
    let gone = edit::forget(&config.data_dir, &named, SystemTime::now())?;
    Ok(gone.len())
}

/// The settings of a draft, by the rules of a saved one.
pub(super) fn draft(config: &Config, draft: &Value) -> Result<connector::Settings, ChangeRefused> {
    on_file(config, Secrets::Resolve, |ground| {
        let (settings, _) = edit::draft(draft, ground)?;
        Ok(settings)
    })
}
