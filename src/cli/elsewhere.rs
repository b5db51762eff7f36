//! A gateway that runs with this file, but on another directory than the file names now.
//!
//! It reads `/proc`, on a best effort, for a sentence that helps; nobody is signalled by what it finds.

use std::{
    fs,
    io::ErrorKind,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::{config, queue::lock};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pid: u32,
    /// Where its queue is. `None`: we may not look.
    pub(super) data_dir: Option<PathBuf>,
}

impl Found {
    /// For whoever looks for it.
    pub(super) fn sentence(&self) -> String {
        let place = self.data_dir.as_ref().map_or_else(String::new, |dir| {
            format!(" on {0} (--data-dir {0})", dir.display())
        });
        format!(
            "one that was started with this file runs as pid {}{place}",
            self.pid
        )
    }
}

/// The first process that is `postern run` with this file.
pub(super) fn find(config: &Path) -> Option<Found> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let line = fs::read(process.join("cmdline")).ok()?;
        let named = file_of(&line)?;
        let is_it = match fs::canonicalize(process.join("cwd")) {
            Ok(cwd) => same(&cwd.join(&named), config),
            // Only the process itself and root may know its directory.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                named.file_name() == config.file_name()
            }
            // It has just ended, or its directory is deleted: it is not where this file is.
            Err(_) => false,
        };
        is_it.then(|| Found {
            pid,
            data_dir: data_dir(&process),
        })
    })
}

/// The file of a `postern run`, by its command line; nothing when it is another program, or another command.
fn file_of(line: &[u8]) -> Option<PathBuf> {
    let mut words = line.split(|b| *b == 0);
    let program = Path::new(std::ffi::OsStr::from_bytes(words.next()?));
    let own = std::env::current_exe().ok();
    let names = [
        Some("postern".as_ref()),
        own.as_deref().and_then(Path::file_name),
    ];
    if !names.contains(&Some(program.file_name()?)) {
        return None;
    }
    let (mut runs, mut file) = (false, None);
    while let Some(word) = words.next() {
        match word {
            b"run" => runs = true,
            b"-c" | b"--config" => file = words.next(),
            _ => {
                file = word
                    .strip_prefix(b"--config=")
                    .or_else(|| word.strip_prefix(b"-c"))
                    .or(file);
            }
        }
    }
    runs.then(|| config::find(file.map(|file| std::ffi::OsStr::from_bytes(file).into())))
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The directory of the lock that it keeps open.
fn data_dir(process: &Path) -> Option<PathBuf> {
    let open = fs::read_dir(process.join("fd")).ok()?;
    open.flatten().find_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        Some(lock::directory_of(&target)?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_command_line() {
        for (line, expected) in [
            ("/usr/bin/postern\0run\0-c\0x.toml\0", Some("x.toml".into())),
            ("postern\0--config=/x\0run\0", Some("/x".into())),
            ("postern\0-c/x\0run\0", Some("/x".into())),
            ("postern\0run\0", Some(config::find(None))),
            ("postern\0reload\0-c\0x.toml\0", None),
            ("/bin/vi\0run\0", None),
            ("", None),
        ] {
            assert_eq!(file_of(line.as_bytes()), expected, "{line}");
        }
    }
}
