//! What the files of the queue need of the disk: directories and files that only their owner may read, names that survive a power
//! loss, and how much is free.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Makes a directory (0700) that is not there yet.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Whoever may write to the directory shall not have a file of ours written elsewhere, by a link under its name: commands run as root.
pub(super) const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// A file that only its owner may read, whatever the umask.
pub(super) fn create(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(0o600)
        .custom_flags(NO_LINK)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Octets that are free for this user on the disk of a directory.
pub(super) fn free_space(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// File systems whose other side is another machine, by the number of `statfs(2)`: their locks and syncs are not ours to rely on.
const NETWORKED: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "CIFS"),
    (0x517B, "CIFS"),
];

/// What the file system of this number is called, if its other side is another machine.
fn networked(magic: u64) -> Option<&'static str> {
    // The number is 32 bits wide, and negative ones come with their sign.
    let magic = magic & 0xFFFF_FFFF;
    NETWORKED
        .iter()
        .find_map(|&(number, name)| (number == magic).then_some(name))
}

/// Whether a directory is, or will be, on a disk of another machine, and by what: `NFS`, `CIFS`.
pub fn network_disk(dir: &Path) -> Option<&'static str> {
    let found = dir.ancestors().find_map(|place| {
        let place = if place.as_os_str().is_empty() {
            Path::new(".")
        } else {
            place
        };
        rustix::fs::statfs(place).ok()
    })?;
    networked(found.f_type as u64)
}

/// Whether the disk is what stands in the way.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_other_machines_are_known_by_their_numbers() {
        let of = |magic: i64| networked(magic as u64);
        assert_eq!(of(0x6969), Some("NFS"));
        assert_eq!(of(0xFF53_4D42), Some("CIFS"));
        // Where the number is a signed one of 32 bits.
        assert_eq!(of(i64::from(0xFF53_4D42_u32.cast_signed())), Some("CIFS"));
        assert_eq!(of(0xFE53_4D42), Some("CIFS"));
        assert_eq!(of(0x517B), Some("CIFS"));
        // ext4, tmpfs, overlayfs, XFS, Btrfs, ZFS.
        for own in [
            0xEF53,
            0x0102_1994,
            0x794C_7630,
            0x5846_5342,
            0x9123_683E,
            0x2FC1_2FC1,
        ] {
            assert_eq!(of(own), None, "{own:x}");
        }
        assert_eq!(network_disk(Path::new("/proc/nobody/has/this")), None);
        assert_eq!(network_disk(Path::new("not-there/at-all")), None);
    }
}
