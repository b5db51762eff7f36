//! Files that the configuration names: whether one has changed, and for whom that matters.
//!
//! Apart from the reload, which asks. It reads no setting.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::SystemTime,
};

/// More of a file is not looked at: certificates, keys and secrets are small.
const MOST: u64 = 1 << 20;

/// When files were written, how large they are and which they are, to see that they have changed. A link that is turned (certbot,
/// Kubernetes) changes them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files(Vec<Option<(SystemTime, u64, u64)>>);

impl Files {
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        Self(paths.iter().map(look).collect())
    }
}

/// What stands in files, in a number: equal for equal contents.
pub(super) fn content(paths: &[PathBuf]) -> u64 {
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
