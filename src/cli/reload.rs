//! `postern reload`: checks first, then has the running gateway read its configuration again.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    exit::{Ended, Exit, Failure},
    output,
};
use crate::{config::Secrets, queue::store::Store};

/// A reload waits for nothing but files.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(path: Option<PathBuf>) -> Ended {
    let config = super::settings(path, Secrets::CheckOnly)?;
    let pid = super::running(&config)?
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| {
            Failure::new(
                Exit::Unavailable,
                format_args!(
                    "the configuration is right, but no gateway runs on {}",
                    config.data_dir.display()
                ),
            )
        })?;
    let store = super::existing_store(&config)?;
    super::block_on(async {
        let before = last(store.as_ref()).await?;
        kill_process(pid, Signal::HUP).map_err(|error| {
            Failure::new(
                Exit::Refused,
                format_args!(
                    "cannot signal the gateway (pid {}): {error}",
                    pid.as_raw_nonzero()
                ),
            )
        })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let after = last(store.as_ref()).await?;
            if after != before {
                return match after.get("error").and_then(Value::as_str) {
                    None => {
                        output::line("reloaded")?;
                        Ok(Exit::Ok)
                    }
                    Some(error) => Err(Failure::new(
                        Exit::Config,
                        format_args!("not reloaded, the old settings stay:\n{error}"),
                    )),
                };
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Exit::Later,
                    "the gateway was told, but has not said yet what became of it; see postern status",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// What the gateway last said of a reload.
async fn last(store: &dyn Store) -> Result<Value, Failure> {
    let note = store.note("gateway").await.map_err(super::store_failure)?;
    Ok(note
        .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        .and_then(|note| note.get("reload").cloned())
        .unwrap_or(Value::Null))
}
