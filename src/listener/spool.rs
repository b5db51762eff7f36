//! The file a large body is written to while it arrives.
//!
//! Apart from the connection so that writing, syncing and removal stand together. Until the store has its row the file goes
//! away with its owner, whatever ends first: the message, the connection or the task. Names in the directory are synced by the store.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use crate::mail::message::SpoolFile;

/// Pieces are gathered up to this many octets before they are written.
const GATHERED: usize = 256 * 1024;

/// A body on its way to the disk.
#[derive(Debug)]
pub(crate) struct Spool {
    /// `None` only while a write is under way, and after a failed one.
    open: Option<Open>,
    waiting: Vec<u8>,
}

/// Goes to the blocking thread and comes back; when nobody waits for it any more the file is removed there.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    keep: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.keep && self.file.is_some() {
            // Best effort: a file without a row is also deleted at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Open {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&self.path)?;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(octets)?;
            self.len += octets.len() as u64;
        }
        Ok(())
    }
}

impl Spool {
    /// For a file at `path`, which is created with the first octets.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            open: Some(Open {
                path,
                file: None,
                len: 0,
                keep: false,
            }),
            waiting: Vec::new(),
        }
    }

    /// Takes a piece; writes when enough has come together.
    pub(crate) async fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        // Copied, so that a tiny piece does not keep the large buffer alive that it came in.
        self.waiting.extend_from_slice(piece);
        if self.waiting.len() < GATHERED {
            return Ok(());
        }
        self.on_disk(false).await
    }

    /// Writes the rest and syncs: after this the octets survive a power loss.
    pub(crate) async fn finish(mut self) -> io::Result<SpoolFile> {
        self.on_disk(true).await?;
        let Some(mut open) = self.open.take() else {
            return Err(gone());
        };
        open.keep = true;
        Ok(SpoolFile::new(std::mem::take(&mut open.path), open.len))
    }

    async fn on_disk(&mut self, sync: bool) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Err(gone());
        };
        let mut octets = std::mem::take(&mut self.waiting);
        let written = tokio::task::spawn_blocking(move || {
            open.write(&octets)?;
            if let (true, Some(file)) = (sync, &open.file) {
                file.sync_data()?;
            }
            octets.clear();
            Ok((open, octets))
        })
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)));
        let (open, octets) = written?;
        self.open = Some(open);
        self.waiting = octets;
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("an earlier write to the spool file failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kept_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        let mut spool = Spool::new(path.clone());
        for _ in 0..5 {
            spool.append(&vec![b'x'; 100_000]).await.unwrap();
        }
        assert!(path.exists());
        let file = spool.finish().await.unwrap();
        assert_eq!(
            (file.len(), path.metadata().unwrap().len()),
            (500_000, 500_000)
        );
        drop(file);
        assert!(!path.exists());

        let mut spool = Spool::new(path.clone());
        spool.append(&vec![0; GATHERED]).await.unwrap();
        assert!(path.exists());
        drop(spool);
        assert!(!path.exists());

        // A file that is there already is not ours to write or to remove.
        std::fs::write(&path, "other").unwrap();
        let mut spool = Spool::new(path.clone());
        assert!(spool.append(&vec![0; GATHERED]).await.is_err());
        assert!(spool.append(&vec![0; GATHERED]).await.is_err());
        drop(spool);
        assert!(path.exists());
    }
}
