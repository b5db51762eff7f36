//! A file that is in the way on purpose: freed when the disk is full, it makes room to record what was sent.
//!
//! `writer` decides when. While it is gone no mail is taken in; it comes back as soon as the disk has
//! room for it several times over.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::queue::disk::{create, free_space};

/// Octets of the ballast.
const SIZE: usize = 4 * 1024 * 1024;
/// It is put back only when so many octets are free, so that it is not the last straw itself.
const ROOM: u64 = 4 * SIZE as u64;
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The file and whether it is there.
pub(super) struct Ballast {
    file: PathBuf,
    there: bool,
    looked: Option<Instant>,
}

impl Ballast {
    /// The ballast in this directory; made when there is room.
    pub(super) fn new(dir: &Path) -> Self {
        let file = dir.join("ballast");
        let there = std::fs::metadata(&file).is_ok_and(|found| found.len() == SIZE as u64);
        let mut ballast = Self {
            file,
            there,
            looked: None,
        };
        ballast.is_there();
        ballast
    }

    /// Whether it is there, putting it back when it can be.
    pub(super) fn is_there(&mut self) -> bool {
        if !self.there && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let dir = self.file.parent().unwrap_or(&self.file);
            if free_space(dir).is_ok_and(|free| free >= ROOM) {
                match self.put_back() {
                    Ok(()) => self.there = true,
                    Err(error) => {
                        let _ = std::fs::remove_file(&self.file);
                        tracing::warn!(%error, "no room for the ballast file yet");
                    }
                }
            }
        }
        self.there
    }

    /// Frees it; false when it was already gone.
    pub(super) fn free(&mut self) -> bool {
        if !self.there {
            return false;
        }
        self.there = false;
        self.looked = Some(Instant::now());
        tracing::error!("the disk is full: no mail is taken in until there is room again");
        std::fs::remove_file(&self.file).is_ok()
    }

    fn put_back(&self) -> io::Result<()> {
        let mut file = create(&self.file, true)?;
        write(&mut file)?;
        file.sync_all()
    }
}

/// Written, not stretched: a sparse file would free nothing.
fn write(file: &mut File) -> io::Result<()> {
    let block = vec![0x55_u8; 64 * 1024];
    for _ in 0..SIZE / block.len() {
        file.write_all(&block)?;
    }
    Ok(())
}
