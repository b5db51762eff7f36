//! The files of a configuration on disk: how much of them is read, and who else may.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

/// A file that is larger is not a configuration.
pub(super) const LARGEST: u64 = 8 << 20;

/// The `chmod` that helps, when others (mode 007) may do anything with the file.
pub(super) fn readable_by_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| format!("chmod o-rwx {}", path.display()))
}

/// At most `limit` octets; a directory, a device without end or a larger file is an error.
pub(super) fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    fs::File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        return Err(std::io::Error::other("the file is too large"));
    }
    Ok(octets)
}
