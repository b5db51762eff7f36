//! The file on disk, replaced in one step: whoever reads it finds the old text or the new one, whenever the power goes.
//!
//! What cannot be replaced so (a file of somebody else, a directory that may not be written, a file that is mounted by itself) is left
//! alone.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, FlockOperation, access, flock};

use super::refusal::{EditRefusal, Why};

/// A file that was written.
#[derive(Debug)]
#[must_use = "a refused reload brings the old octets back"]
pub struct Written {
    path: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Written {
    /// Brings the old octets back, unless somebody has written others since.
    ///
    /// # Errors
    /// As [`write`].
    pub fn undo(self) -> Result<(), Unwritten> {
        write(&self.path, &self.after, &self.before).map(drop)
    }
}

/// Why a file was not written; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// Another text stands in it than the one that was to be replaced, or somebody else is writing it.
    #[error("the file was changed meanwhile")]
    Changed,
    /// It cannot be replaced from here.
    #[error("{0}")]
    ReadOnly(String),
    /// It should have been possible.
    #[error("the file cannot be written: {0}")]
    Failed(#[from] io::Error),
}

impl From<Unwritten> for EditRefusal {
    fn from(why: Unwritten) -> Self {
        let kind = match &why {
            Unwritten::Changed => Why::Changed,
            Unwritten::ReadOnly(_) => Why::ReadOnly,
            Unwritten::Failed(_) => Why::Failed,
        };
        Self::new(kind, why.to_string())
    }
}

/// A step that is done, for a test that ends the process behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteStage {
    Begun,
    Opened,
    Half,
    Filled,
    Owned,
    Synced,
    Renamed,
    Done,
}

/// Puts `after` in the place of `before`. A link is followed; owner and mode stay.
///
/// # Errors
/// The file holds something else than `before`, or it cannot be replaced.
pub fn write(path: &Path, before: &[u8], after: &[u8]) -> Result<Written, Unwritten> {
    in_steps(path, before, after, &mut |_| {})
}

fn in_steps(
    path: &Path,
    before: &[u8],
    after: &[u8],
    reached: &mut dyn FnMut(WriteStage),
) -> Result<Written, Unwritten> {
    let path = fs::canonicalize(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    reached(WriteStage::Begun);
    let new = beside(&path);
    let mut file = open_alone(&new).map_err(|why| refused(&path, why))?;
    reached(WriteStage::Opened);
    let written = fill(&mut file, &path, before, after, reached)
        .and_then(|()| fs::rename(&new, &path).map_err(|why| refused(&path, why)));
    if let Err(why) = written {
        let _ = fs::remove_file(&new);
        return Err(why);
    }
    reached(WriteStage::Renamed);
    File::open(directory)?.sync_all()?;
    reached(WriteStage::Done);
    Ok(Written {
        path,
        before: before.to_vec(),
        after: after.to_vec(),
    })
}

fn fill(
    file: &mut File,
    path: &Path,
    before: &[u8],
    after: &[u8],
    reached: &mut dyn FnMut(WriteStage),
) -> Result<(), Unwritten> {
    let (half, rest) = after.split_at(after.len() / 2);
    file.write_all(half)?;
    reached(WriteStage::Half);
    file.write_all(rest)?;
    reached(WriteStage::Filled);
    let old = fs::metadata(path)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(&*file, Some(old.uid()), Some(old.gid())).map_err(|why| refused(path, why))?;
    }
    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    reached(WriteStage::Owned);
    file.sync_all()?;
    reached(WriteStage::Synced);
    // Right before it goes: an editor may have saved another.
    if fs::read(path)? != before {
        return Err(Unwritten::Changed);
    }
    Ok(())
}

/// The file that becomes the new one. One name for all, so that what a crash left behind is taken over.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Opens it for one writer at a time.
fn open_alone(path: &Path) -> io::Result<File> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    let busy = || io::Error::from(ErrorKind::WouldBlock);
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| busy())?;
    // The one who had it may have put it in the place of the file just now.
    let (own, named) = (file.metadata()?, fs::symlink_metadata(path));
    if !named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
        return Err(busy());
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

/// What an error means to whoever wanted to write.
fn refused(path: &Path, why: io::Error) -> Unwritten {
    match why.kind() {
        // The new file is held by another writer.
        ErrorKind::WouldBlock => Unwritten::Changed,
        // Busy is a file that is mounted by itself: nothing can be renamed over it.
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::CrossesDevices
        | ErrorKind::ResourceBusy => {
            Unwritten::ReadOnly(format!("{} cannot be replaced: {why}", path.display()))
        }
        _ => Unwritten::Failed(why),
    }
}

/// Whether this process could replace the file, as far as can be told without doing it.
///
/// # Errors
/// Why not, in a sentence.
pub fn writable(path: &Path) -> Result<(), String> {
    let said = |why: io::Error| format!("{} cannot be replaced: {why}", path.display());
    let path = fs::canonicalize(path).map_err(said)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|why| said(why.into()))?;
    let (file, around) = (
        fs::metadata(&path).map_err(said)?,
        fs::metadata(directory).map_err(said)?,
    );
    let own = rustix::process::geteuid();
    if !own.is_root() && file.uid() != own.as_raw() {
        return Err(format!(
            "{} belongs to another user, and would not any more",
            path.display()
        ));
    }
    if file.dev() != around.dev() {
        return Err(format!("{} is mounted by itself", path.display()));
    }
    Ok(())
}

/// As [`writable`], also where root asks for a gateway that is the owner of `data_dir`.
///
/// # Errors
/// Why not, in a sentence.
pub fn writable_for(path: &Path, data_dir: &Path) -> Result<(), String> {
    match fs::metadata(data_dir) {
        Ok(gateway) if rustix::process::geteuid().is_root() && gateway.uid() != 0 => {
            let said = |why: io::Error| format!("{} cannot be replaced: {why}", path.display());
            let path = fs::canonicalize(path).map_err(said)?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            let file = fs::metadata(&path).map_err(said)?;
            let around = fs::metadata(directory).map_err(said)?;
            let own = (gateway.uid(), gateway.gid());
            may(&file, &around, own)
                .then_some(())
                .ok_or_else(|| format!("{} is not the gateway's to replace", path.display()))
        }
        _ => writable(path),
    }
}

/// Whether this user may put another file in the place of his own in this directory.
fn may(file: &fs::Metadata, around: &fs::Metadata, (user, group): (u32, u32)) -> bool {
    let bits = if around.uid() == user {
        around.mode() >> 6
    } else if around.gid() == group {
        around.mode() >> 3
    } else {
        around.mode()
    };
    file.uid() == user && bits & 0o3 == 0o3
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    const STAGES: [WriteStage; 8] = [
        WriteStage::Begun,
        WriteStage::Opened,
        WriteStage::Half,
        WriteStage::Filled,
        WriteStage::Owned,
        WriteStage::Synced,
        WriteStage::Renamed,
        WriteStage::Done,
    ];

    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        fs::write(&path, "old").unwrap();
        (home, path)
    }

    /// Runs as a process of its own, which the test below ends.
    #[test]
    fn ends_at_a_stage() {
        let (Some(path), Some(stage)) = (
            std::env::var_os("WRITE_PATH"),
            std::env::var_os("WRITE_STAGE"),
        ) else {
            return;
        };
        let mut end = |reached: WriteStage| {
            if stage == *format!("{reached:?}") {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            }
        };
        let _ = in_steps(Path::new(&path), b"old", b"the new text", &mut end);
    }

    #[test]
    fn an_end_at_any_step_leaves_the_old_file_or_the_new() {
        for stage in STAGES {
            let (_home, path) = home();
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "config::edit::write::tests::ends_at_a_stage"])
                .env("WRITE_PATH", &path)
                .env("WRITE_STAGE", format!("{stage:?}"))
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(9), "{stage:?}");
            let is_new = [WriteStage::Renamed, WriteStage::Done].contains(&stage);
            let expected = if is_new { "the new text" } else { "old" };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{stage:?}");
            // What was left behind is in nobody's way.
            let written = write(&path, expected.as_bytes(), b"newer").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "newer");
            assert!(!beside(&path).exists());
            written.undo().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn a_link_is_followed_and_owner_and_mode_stay() {
        let (home, path) = home();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = home.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let before = fs::metadata(&path).unwrap();
        let _ = write(&link, b"old", b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let after = fs::metadata(&path).unwrap();
        let facts = |file: &fs::Metadata| (file.mode(), file.uid(), file.gid());
        assert_eq!(facts(&before), facts(&after));
        assert!(writable(&link).is_ok());
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let (_home, path) = home();
        let why = write(&path, b"older", b"new").unwrap_err();
        assert!(matches!(why, Unwritten::Changed), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let written = write(&path, b"old", b"new").unwrap();
        fs::write(&path, "by hand").unwrap();
        assert!(matches!(written.undo(), Err(Unwritten::Changed)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "by hand");
        // Another writer holds the new file.
        let other = open_alone(&beside(&path)).unwrap();
        let why = write(&path, b"by hand", b"new").unwrap_err();
        assert!(matches!(why, Unwritten::Changed), "{why}");
        drop(other);
        let _ = write(&path, b"by hand", b"new").unwrap();
    }

    #[test]
    fn what_another_user_may_is_told_by_owner_and_mode() {
        let (home, path) = home();
        let file = fs::metadata(&path).unwrap();
        let own = (file.uid(), file.gid());
        let may = |mode, who| {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
            super::may(&file, &fs::metadata(home.path()).unwrap(), who)
        };
        let other = (own.0 + 1, own.1 + 1);
        let asked = [
            (may(0o700, own), true),
            (may(0o500, own), false),
            (may(0o077, own), false),
            // It would not be his any more.
            (may(0o777, other), false),
        ];
        assert!(asked.iter().all(|(is, should)| is == should), "{asked:?}");
        may(0o700, own);
    }

    #[test]
    fn a_directory_without_leave_is_read_only() {
        let (home, path) = home();
        if rustix::process::geteuid().is_root() {
            // Root may write everywhere but where nobody may.
            assert!(matches!(
                refused(&path, io::Error::from(ErrorKind::ReadOnlyFilesystem)),
                Unwritten::ReadOnly(_)
            ));
            return;
        }
        let mode = |mode| fs::set_permissions(home.path(), fs::Permissions::from_mode(mode));
        mode(0o500).unwrap();
        let why = write(&path, b"old", b"new").unwrap_err();
        assert!(matches!(why, Unwritten::ReadOnly(_)), "{why}");
        assert!(writable(&path).is_err());
        mode(0o700).unwrap();
    }
}
