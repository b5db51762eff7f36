//! One gateway for one `data_dir`: the lock that says so, and who holds it.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::FlockOperation;

use super::RunError;

/// Makes the directory and takes its lock; the file keeps it as long as it is open.
pub(super) fn lock(data_dir: &Path) -> Result<File, RunError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|e| RunError::new(74, format!("{} cannot be made: {e}", data_dir.display())))?;
    let path = data_dir.join("lock");
    let io = |e: std::io::Error| RunError::new(74, format!("{}: {e}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(32).read_to_string(&mut pid);
            return Err(RunError::new(
                75,
                format!(
                    "a gateway already runs on {} (pid {})",
                    data_dir.display(),
                    pid.trim()
                ),
            ));
        }
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    // Of this one the kernel tells whose it is, to each in the numbers of its own PID namespace; where the two are one and the same
    // (NFS) the first is enough.
    let _ = rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_for_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let first = lock(&data).unwrap();
        let error = lock(&data).unwrap_err();
        assert_eq!(error.code, 75);
        assert!(
            error
                .text
                .contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
        drop(first);
        // A process that another test starts at this moment holds it for the time between fork and exec.
        let again = (0..50).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            lock(&data).ok()
        });
        assert!(again.is_some());
    }
}
