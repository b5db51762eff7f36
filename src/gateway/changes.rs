//! Changes of the configuration as the window asks for them: looked at, kept, written; and connectors that are tried before they are
//! saved.
//!
//! The file of now is read each time. Whoever writes it reloads behind it, and brings it back where that is refused.

use std::{collections::BTreeSet, fs, io, path::Path, time::SystemTime};

use serde_json::Value;
use tracing::{info, warn};

use crate::{
    admin::host::{ChangeRefused, PlannedChange},
    config::{
        self, Config, Environment, Secrets,
        edit::{self, EditRefusal, Edited, Ground, Plan, Proposal, Unwritten, Written},
    },
    connector,
    view::{Changes, CheckedChange},
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

/// Does it anew on the file of now, and writes that.
pub(super) fn write(
    config: &Config,
    body: &str,
) -> Result<(Written, CheckedChange), ChangeRefused> {
    let proposal = Proposal::read(body)?;
    on_file(config, Secrets::CheckOnly, |ground| {
        let edited = proposal.apply(ground)?;
        let written =
            edit::write(ground.path, ground.octets, &edited.octets).map_err(EditRefusal::from)?;
        Ok((written, checked(edited)))
    })
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
