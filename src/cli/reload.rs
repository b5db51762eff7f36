//! `postern reload`: checks first, then has the running gateway read its configuration again.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    elsewhere,
    exit::{CommandError, Ended, Exit},
    output, place, prepare,
};
use crate::{
    config::{Config, Secrets},
    gateway::report::site::status_row,
    mail::text::shown,
    queue::store::Store,
    view::Reload,
};

/// A reload waits for nothing but files.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(path: Option<PathBuf>) -> Ended {
    let config = prepare::settings(path, Secrets::CheckOnly)?;
    let Some(running) = place::running(&config.data_dir)? else {
        return Err(no_gateway(&config));
    };
    let Some(pid) = running.pid else {
        return Err(CommandError::new(
            Exit::Unavailable,
            format_args!(
                "the configuration is valid; the gateway on {} runs in another PID namespace (a container?), as pid {} there, and \
                 a number from there may be anybody here: run `postern reload` inside it, or have its manager send SIGHUP",
                config.data_dir.display(),
                running.own
            ),
        ));
    };
    let store = place::existing_store(&config.data_dir)?;
    prepare::block_on(ask(store.as_ref(), pid))?;
    output::line("reloaded")?;
    Ok(Exit::Ok)
}

/// Has the gateway read its file again, and waits until it has said what became of that.
///
/// # Errors
/// It keeps the old settings (78), or does not say (75).
pub(super) async fn ask(store: &dyn Store, pid: Pid) -> Result<(), CommandError> {
    let before = last(store).await?;
    kill_process(pid, Signal::HUP).map_err(|error| {
        CommandError::new(
            Exit::Refused,
            format_args!(
                "cannot signal the gateway (pid {}): {error}",
                pid.as_raw_nonzero()
            ),
        )
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let after = last(store).await?;
        if after != before {
            return match after.and_then(|reload| reload.error) {
                None => Ok(()),
                Some(error) => Err(CommandError::new(
                    Exit::Config,
                    format_args!("not reloaded, the old settings stay:\n{error}"),
                )),
            };
        }
        if Instant::now() >= deadline {
            return Err(CommandError::new(
                Exit::Later,
                "the gateway was told to reload, but has not yet said whether it did; see `postern status`",
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the gateway last said of a reload.
async fn last(store: &dyn Store) -> Result<Option<Reload>, CommandError> {
    Ok(status_row(store).await?.reload)
}

/// Nobody holds the directory that the file names; a gateway may run that was started with another one.
fn no_gateway(config: &Config) -> CommandError {
    let dir = config.data_dir.display();
    let text = match elsewhere::find(&config.path) {
        None => format!("the configuration is valid, but no gateway runs on {dir}"),
        Some(found) => format!(
            "the configuration is valid, but no gateway runs on {dir}. One that was started with this file runs as pid {}{}: \
             a new `data_dir` needs a restart, and what waits in the old directory stays there until it is moved",
            found.pid,
            found.data_dir.map_or_else(String::new, |dir| format!(
                " on {}",
                shown(&dir.display().to_string())
            )),
        ),
    };
    CommandError::new(Exit::Unavailable, text)
}
