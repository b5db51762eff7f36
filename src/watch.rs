//! Files that the configuration names: whether one has changed, and whether there is anything new in it.
//!
//! It reads no setting and waits for nothing: the gateway looks every few seconds, at all of them at once, and a reload asks for
//! whom a change matters.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// More of a file is not looked at: certificates, keys and secrets are small.
const MOST: u64 = 1 << 20;

/// When files were written, how large they are and which they are, to see that they have changed. A link that is turned (certbot,
/// Kubernetes) changes them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(Vec<Option<(SystemTime, u64, u64)>>);

impl Files {
    /// As they are now. Blocks on the disk.
    pub fn of(paths: &[impl AsRef<Path>]) -> Self {
        let look = |path: &_| {
            let found = std::fs::metadata(AsRef::<Path>::as_ref(path)).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        Self(paths.iter().map(look).collect())
    }
}

/// What stands in files, in a number: equal for equal contents. Blocks on the disk.
pub fn content(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        let mut octets = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MOST).read_to_end(&mut octets))
            .is_ok();
        (path, read, octets).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_put_in_the_place_of_another_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, "one").unwrap();
        std::fs::write(&new, "two").unwrap();
        let paths = [file.clone()];
        let (before, content_before) = (Files::of(&paths), content(&paths));
        assert_eq!(before, Files::of(&paths));
        std::fs::rename(&new, &file).unwrap();
        assert_ne!(before, Files::of(&paths));
        assert_ne!(content_before, content(&paths));
        // Written again with the same content it is another file with nothing new in it.
        std::fs::write(&new, "one").unwrap();
        std::fs::rename(&new, &file).unwrap();
        assert_eq!(content_before, content(&paths));
        std::fs::remove_file(&file).unwrap();
        assert_ne!(content_before, content(&paths));
    }
}
