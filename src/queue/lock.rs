//! One gateway for one `data_dir`: the lock that says so, and who holds it.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, Pid, fcntl_getlk},
};

/// The file inside `data_dir`.
const NAME: &str = "lock";

/// Held as long as the gateway runs.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another gateway has it; the text names it.
    #[error("{0}")]
    Held(String),
    /// The directory or the file cannot be made or written.
    #[error("{0}")]
    Io(String),
}

/// The gateway that holds a `data_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process here. `None`: it lives in another PID namespace (a container), or does not say.
    pub pid: Option<Pid>,
    /// What it calls itself, which elsewhere may be anybody.
    pub own: u32,
}

impl Holder {
    /// This process, which has taken it.
    pub fn this() -> Self {
        Self {
            pid: Some(rustix::process::getpid()),
            own: std::process::id(),
        }
    }
}

/// Makes the directory and takes its lock.
///
/// # Errors
/// [`LockError`].
pub fn take(data_dir: &Path) -> Result<Lock, LockError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|e| LockError::Io(format!("{} cannot be made: {e}", data_dir.display())))?;
    let path = data_dir.join(NAME);
    let io = |e: io::Error| LockError::Io(format!("{}: {e}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(super::disk::NO_LINK)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LockError::Held(format!(
                "a gateway already runs on {} (pid {})",
                data_dir.display(),
                said(&file).unwrap_or_default()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    // Of this one the kernel tells whose it is, to each in the numbers of its own PID namespace; where the two are one and the same
    // (NFS) the first is enough.
    let _ = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(Lock { _file: file })
}

/// Who holds the lock of a directory, if anybody does.
///
/// The pid inside is that of the gateway's own PID namespace. Whose it is here the kernel says: it names the holder of a record
/// lock, which the gateway takes beside its own, in the numbers of whoever asks.
///
/// # Errors
/// The file cannot be looked at.
pub fn holder(data_dir: &Path) -> io::Result<Option<Holder>> {
    let file = match File::open(data_dir.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        // Nobody holds it; closing the file gives it back.
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let holder = fcntl_getlk(&file, &Flock::from(FlockType::ReadLock));
            Ok(Some(Holder {
                pid: holder.ok().flatten().and_then(|lock| lock.pid),
                own: said(&file)?.parse().unwrap_or(0),
            }))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The directory of which a file that somebody has open is the lock.
pub fn directory_of(open: &Path) -> Option<&Path> {
    let directory = open.parent()?;
    (open.file_name()? == NAME && super::exists(directory).is_ok_and(|is| is)).then_some(directory)
}

/// The pid in the file.
fn said(file: &File) -> io::Result<String> {
    let mut pid = String::new();
    file.take(32).read_to_string(&mut pid)?;
    Ok(pid.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_for_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        assert_eq!(holder(&data).unwrap(), None);
        let first = take(&data).unwrap();
        let error = take(&data).unwrap_err();
        assert!(matches!(error, LockError::Held(_)));
        assert!(
            error
                .to_string()
                .contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
        assert_eq!(holder(&data).unwrap().unwrap().own, std::process::id());
        drop(first);
        // A process that another test starts at this moment holds it for the time between fork and exec.
        let again = (0..50).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            take(&data).ok()
        });
        assert!(again.is_some());
    }
}
