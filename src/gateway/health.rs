//! The file that says to a container whether the gateway lives: `health` in the data directory, written on a change and every five
//! seconds.
//!
//! The file needs no socket and no login to be read. One that grows old says that the gateway does not work, whatever stands in it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::instruments::Instruments;
use crate::view::Readiness;

/// How often it is looked whether anything has changed,
const LOOK: Duration = Duration::from_secs(1);
/// and how often the file is written though nothing has: a look or two before five seconds.
const TOUCH: Duration = Duration::from_millis(4_200);
/// A file that was written longer ago than this is of a gateway that does not work.
pub const STALE: Duration = Duration::from_secs(15);
/// The file is as long as this, whatever it says, so that it can be written on a disk without an octet left.
const LENGTH: usize = 128;

/// The file.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("health")
}

/// Writes it. Blocks on the disk.
///
/// # Errors
/// Those of the disk.
pub(super) fn write(data_dir: &Path, readiness: Readiness) -> io::Result<()> {
    let mut text = serde_json::to_vec(&readiness)?;
    text.resize(LENGTH - 1, b' ');
    text.push(b'\n');
    let path = path(data_dir);
    // A link under its name leads to a file that is not ours to write.
    if path.is_symlink() {
        fs::remove_file(&path)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    // In one piece and in its place: a reader finds the old text or the new one, and no room is asked for.
    file.write_all_at(&text, 0)
}

/// What the file says, and how old it is. One from the future is as old as it is early: the clock was set.
///
/// # Errors
/// There is none, it cannot be read, or it is no such file.
pub fn read(data_dir: &Path) -> io::Result<(Readiness, Duration)> {
    let file = File::open(path(data_dir))?;
    let written = file.metadata()?.modified()?;
    let age = SystemTime::now().duration_since(written);
    let age = age.unwrap_or_else(|error| error.duration());
    Ok((serde_json::from_reader(file)?, age))
}

/// Keeps the file until the process ends. While a runtime is silent it is left to grow old.
pub(super) async fn keep(instruments: Arc<Instruments>, data_dir: PathBuf) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written: Option<(Readiness, Instant)> = None;
    let mut is_troubled = false;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = instruments.changed.notified() => {}
        }
        let readiness = instruments.readiness();
        let is_same = written.is_some_and(|(said, at)| said == readiness && at.elapsed() < TOUCH);
        if is_same || !instruments.is_alive() {
            continue;
        }
        let data_dir = data_dir.clone();
        let result = tokio::task::spawn_blocking(move || write(&data_dir, readiness)).await;
        match result {
            Ok(Ok(())) => {
                written = Some((readiness, Instant::now()));
                is_troubled = false;
            }
            Ok(Err(error)) if !is_troubled => {
                is_troubled = true;
                warn!(event = "health not written", error = %error, "health not written");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::ReadyChecks;

    #[test]
    fn the_file_says_what_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        let ready = Readiness::of(ReadyChecks {
            listeners: true,
            store: true,
            space: true,
            draining: false,
        });
        for readiness in [Readiness::default(), ready, Readiness::default()] {
            write(dir.path(), readiness).unwrap();
            let (read, age) = read(dir.path()).unwrap();
            assert_eq!(read, readiness);
            assert!(age < STALE);
            let length = std::fs::metadata(path(dir.path())).unwrap().len();
            assert_eq!(length, LENGTH as u64, "it takes no more room");
        }
        let text = std::fs::read_to_string(path(dir.path())).unwrap();
        assert!(text.starts_with("{\"ready\":false,\"checks\":{\"listeners\":false,"));
        let file = File::options().write(true).open(path(dir.path())).unwrap();
        let minute = Duration::from_mins(1);
        for at in [SystemTime::now() - minute, SystemTime::now() + minute] {
            file.set_modified(at).unwrap();
            assert!(read(dir.path()).unwrap().1 > STALE);
        }
    }
}
