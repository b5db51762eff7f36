//! Where the bodies of large messages are: a file each, named by the message's id, written as it arrives.
//!
//! Until the store has its row the file goes away with its owner, whatever ends first: the message, the connection or the task.
//! Nobody else knows of files: a body is written through a [`BodyWriter`] and read through [`Body::open`].

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::disk;
use crate::mail::message::{Body, BodyHandle, BodyReader, MessageId, Reading};

/// Pieces are gathered up to this many octets before they are written.
const GATHERED: usize = 256 * 1024;
/// Octets that are read at once.
const PIECE: usize = 64 * 1024;

/// The directory of the bodies.
#[derive(Debug, Clone)]
pub struct BodyStore {
    directory: Arc<Path>,
}

impl BodyStore {
    /// Bodies in this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// For the body of a message that arrives; the file is made with the first octets.
    pub fn writer(&self, id: MessageId) -> BodyWriter {
        BodyWriter {
            open: Some(Open {
                path: self.path(id),
                file: None,
                len: 0,
                keep: false,
            }),
            waiting: Vec::new(),
        }
    }

    /// A body that a committed row names.
    ///
    /// # Errors
    /// The file is not there, or has not so many octets.
    pub(super) fn stored(&self, id: MessageId, len: u64) -> Result<Body, String> {
        let path = self.path(id);
        match std::fs::metadata(&path) {
            Ok(found) if found.len() == len => Ok(Body::Stored(Arc::new(BodyFile {
                path,
                len,
                kept: AtomicBool::new(true),
            }))),
            Ok(found) => Err(format!(
                "its body file has {} octets, not {len}",
                found.len()
            )),
            Err(error) => Err(format!("its body file: {error}")),
        }
    }

    /// The body of a message, which stands in this directory from now on as well. Who has the first keeps it as long as he likes.
    pub(super) fn take_in(&self, id: MessageId, from: &BodyStore, len: u64) -> io::Result<Body> {
        self.take_as(id, &from.path(id), len)
    }

    /// The body of a message as that of another one, which has it for itself.
    pub(super) fn second(&self, of: MessageId, id: MessageId, len: u64) -> io::Result<Body> {
        self.take_as(id, &self.path(of), len)
    }

    fn take_as(&self, id: MessageId, there: &Path, len: u64) -> io::Result<Body> {
        let here = self.path(id);
        // Not every file system gives a file a second name.
        if std::fs::hard_link(there, &here).is_err() {
            std::fs::copy(there, &here)?;
            File::open(&here)?.sync_data()?;
        }
        let body = Body::Stored(Arc::new(BodyFile {
            len,
            kept: AtomicBool::new(false),
            path: here.clone(),
        }));
        if here.metadata()?.len() != len {
            return Err(io::Error::other(
                "it has not the length it was written with",
            ));
        }
        Ok(body)
    }

    /// For a body that comes from elsewhere and is read here alone: its file has no name, and is gone with whoever reads it.
    pub(super) async fn copy(&self) -> io::Result<BodyCopy> {
        let directory = Arc::clone(&self.directory);
        let made = tokio::task::spawn_blocking(move || {
            let path = directory.join(format!("copy-{:032x}", fastrand::u128(..)));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            // Here only a crash leaves it, and the next start deletes it.
            std::fs::remove_file(&path)?;
            Ok(file)
        });
        let file = made.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        Ok(BodyCopy { file, len: 0 })
    }

    /// Deletes the body of a message that no row names any more.
    pub(super) fn remove(&self, id: MessageId) {
        let file = self.path(id);
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The next start deletes it: no row names it.
            tracing::warn!(file = %file.display(), %error, "a body could not be deleted");
        }
    }

    /// Deletes what `is_named` says no row names: files whose message was never committed, or whose deletion a crash prevented.
    pub(super) fn remove_orphans(&self, is_named: impl Fn(MessageId) -> bool) {
        let Ok(files) = std::fs::read_dir(&self.directory) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.parse::<MessageId>().ok());
            if !id.is_some_and(&is_named)
                && let Err(error) = std::fs::remove_file(file.path())
            {
                tracing::warn!(file = %file.path().display(), %error, "a file without a message could not be deleted");
            }
        }
    }

    /// Makes the names of the files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        disk::sync_dir(&self.directory)
    }

    /// Octets that are free where the bodies are.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        disk::free_space(&self.directory)
    }

    /// Where they are, for people.
    pub(super) fn display(&self) -> std::path::Display<'_> {
        self.directory.display()
    }

    fn path(&self, id: MessageId) -> PathBuf {
        self.directory.join(id.to_string())
    }
}

/// A body on disk. Until it is kept the file belongs to whoever holds this value and is removed with it; after that it belongs to
/// the store's row.
#[derive(Debug)]
struct BodyFile {
    path: PathBuf,
    len: u64,
    kept: AtomicBool,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            // Best effort: a file without a row is also deleted at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl BodyHandle for BodyFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    fn open(&self) -> Reading<'_, Box<dyn BodyReader>> {
        Box::pin(async {
            let reader: Box<dyn BodyReader> = Box::new(FileReader {
                file: tokio::fs::File::open(&self.path).await?,
                block: BytesMut::new(),
                left: self.len,
            });
            Ok(reader)
        })
    }
}

/// A body that is being copied here.
pub(super) struct BodyCopy {
    file: File,
    len: u64,
}

impl BodyCopy {
    /// Octets until now.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next piece.
    pub(super) async fn append(&mut self, piece: Vec<u8>) -> io::Result<()> {
        if piece.is_empty() {
            return Err(io::Error::other("a part of the body is empty"));
        }
        let (mut file, len) = (self.file.try_clone()?, piece.len() as u64);
        let written = tokio::task::spawn_blocking(move || file.write_all(&piece));
        written.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        self.len += len;
        Ok(())
    }

    /// Reads it from its beginning.
    pub(super) async fn reader(self, len: u64) -> io::Result<Box<dyn BodyReader>> {
        let mut file = tokio::fs::File::from_std(self.file);
        file.rewind().await?;
        if self.len != len {
            return Err(io::Error::other("it has not the length it was stored with"));
        }
        Ok(Box::new(FileReader {
            file,
            block: BytesMut::new(),
            left: len,
        }))
    }
}

/// A body that is being read.
struct FileReader {
    file: tokio::fs::File,
    block: BytesMut,
    left: u64,
}

impl BodyReader for FileReader {
    fn next(&mut self) -> Reading<'_, Option<Bytes>> {
        Box::pin(async {
            if self.left == 0 {
                return Ok(None);
            }
            self.block.reserve(PIECE);
            let read = self.file.read_buf(&mut self.block).await? as u64;
            if read == 0 || read > self.left {
                // Nobody must take half a message for a whole one.
                return Err(io::Error::other("it has not the length it was stored with"));
            }
            self.left -= read;
            Ok(Some(self.block.split().freeze()))
        })
    }
}

/// A body on its way to the disk.
#[derive(Debug)]
pub struct BodyWriter {
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

impl BodyWriter {
    /// Takes a piece; writes when enough has come together.
    ///
    /// # Errors
    /// As any write; after one that failed nothing more is taken.
    pub async fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        // Copied, so that a tiny piece does not keep the large buffer alive that it came in.
        self.waiting.extend_from_slice(piece);
        if self.waiting.len() < GATHERED {
            return Ok(());
        }
        self.on_disk(false).await
    }

    /// Writes the rest and syncs: after this the octets survive a power loss. (Their file's name does once the store has its row.)
    ///
    /// # Errors
    /// As any write.
    pub async fn finish(mut self) -> io::Result<Body> {
        self.on_disk(true).await?;
        let Some(mut open) = self.open.take() else {
            return Err(gone());
        };
        open.keep = true;
        Ok(Body::Stored(Arc::new(BodyFile {
            path: std::mem::take(&mut open.path),
            len: open.len,
            kept: AtomicBool::new(false),
        })))
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
    use std::time::SystemTime;

    use super::*;

    async fn read(body: &Body) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut body = body.open().await?;
        while let Some(piece) = body.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn kept_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = BodyStore::new(dir.path());
        let id = MessageId::new(SystemTime::UNIX_EPOCH, 1);
        let path = dir.path().join(id.to_string());
        let mut writer = bodies.writer(id);
        for _ in 0..5 {
            writer.append(&vec![b'x'; 100_000]).await.unwrap();
        }
        assert!(path.exists());
        let body = writer.finish().await.unwrap();
        assert_eq!(
            (body.len(), path.metadata().unwrap().len()),
            (500_000, 500_000)
        );
        assert!(read(&body).await.unwrap() == vec![b'x'; 500_000]);
        drop(body);
        assert!(!path.exists());

        let mut writer = bodies.writer(id);
        writer.append(&vec![0; GATHERED]).await.unwrap();
        assert!(path.exists());
        drop(writer);
        assert!(!path.exists());

        // A file that is there already is not ours to write or to remove.
        std::fs::write(&path, "other").unwrap();
        let mut writer = bodies.writer(id);
        assert!(writer.append(&vec![0; GATHERED]).await.is_err());
        assert!(writer.append(&vec![0; GATHERED]).await.is_err());
        drop(writer);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = BodyStore::new(dir.path());
        let id = MessageId::new(SystemTime::UNIX_EPOCH, 1);
        let path = dir.path().join(id.to_string());
        assert!(bodies.stored(id, 3).unwrap_err().contains("body file:"));
        std::fs::write(&path, "four").unwrap();
        let said = bodies.stored(id, 3).unwrap_err();
        assert_eq!(said, "its body file has 4 octets, not 3");
        let body = bodies.stored(id, 4).unwrap();
        assert_eq!(read(&body).await.unwrap(), b"four");
        for other in ["fou", "fours"] {
            std::fs::write(&path, other).unwrap();
            let error = read(&body).await.unwrap_err();
            assert!(error.to_string().contains("length"), "{error}");
        }
        drop(body);
        assert!(path.exists());
    }
}
