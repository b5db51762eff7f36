//! A wall clock for the gateway alone, which a test can set.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The file that holds how far it is set.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that is right, kept in a directory.
    pub fn new(dir: &Path) -> Self {
        let library = dir.join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/clock.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, which the build needs, too");
        assert!(made.success());
        let clock = Self {
            library,
            file: dir.join("clock"),
        };
        clock.set(0);
        clock
    }

    /// So many seconds from the right time, from now on.
    pub fn set(&self, seconds: i64) {
        // In place: processes have it mapped.
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file)
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0).unwrap();
    }

    /// For a process that is to have it.
    pub fn env(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("SET_CLOCK", self.file.clone()),
        ]
    }
}
