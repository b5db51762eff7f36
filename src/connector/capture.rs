//! Keeps messages as `.eml` files in a directory: staging systems, tests, `demo`.
//!
//! Unlike the queue's spool it is for people. The bytes stay as they are; the envelope stands beside them in
//! a `.json`. A file is written under another name and renamed, so a reader never meets half a message.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;

use super::{deadline::Deadline, interface::Connector};
use crate::{
    mail::{
        message::Message,
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    route::{ConnectorName, LaneId},
};

/// `type = "capture"`.
#[derive(Debug)]
pub struct Capture {
    name: ConnectorName,
    directory: PathBuf,
}

impl Capture {
    /// One that writes into `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(name: ConnectorName, directory: &Path) -> Result<Self, String> {
        fs::create_dir_all(directory)
            .map_err(|e| format!("directory {}: {e}", directory.display()))?;
        Ok(Self {
            name,
            directory: directory.to_owned(),
        })
    }

    fn unusable(&self, error: &io::Error) -> Obstacle {
        let text = format!("directory {}: {error}", self.directory.display());
        Obstacle::new(ObstacleKind::Down, Reply::new(451, (4, 3, 0), text))
    }
}

#[async_trait]
impl Connector for Capture {
    fn lane(&self, _message: &Message) -> LaneId {
        LaneId::of(&self.name)
    }

    async fn deliver(
        &self,
        message: &Message,
        recipients: &[Recipient],
        _deadline: &Deadline,
    ) -> Report {
        let names: Vec<String> = recipients.iter().map(ToString::to_string).collect();
        let outcome = match write(&self.directory, message, &names).await {
            Ok(file) => Outcome::Delivered(Reply::new(250, (2, 0, 0), format!("kept as {file}"))),
            Err(e) => return self.unusable(&e).into(),
        };
        let via = format!("capture {}", self.directory.display());
        Report::all(recipients, &outcome, via).at_its_end()
    }

    async fn probe(&self, _deadline: Instant) -> Result<String, Obstacle> {
        match try_out(&self.directory) {
            Ok(()) => Ok(format!("writes to {}", self.directory.display())),
            Err(e) => Err(self.unusable(&e)),
        }
    }
}

/// Makes a file that was not there, and takes it away again. Nobody can have put a link under its name: the name is random, and
/// `create_new` follows none.
fn try_out(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".{:032x}.probe", fastrand::u128(..)));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(path)
}

/// Writes both files, the message last, and says the message's name.
async fn write(directory: &Path, message: &Message, recipients: &[String]) -> io::Result<String> {
    let content = tempfile(directory, message)?;
    let mut file = tokio::fs::File::from_std(content.1);
    file.write_all(&message.header).await?;
    file.write_all(b"\r\n").await?;
    let mut body = message.body.open().await?;
    while let Some(piece) = body.next().await? {
        file.write_all(&piece).await?;
    }
    file.sync_all().await?;
    let envelope = serde_json::json!({
        "id": message.id.to_string(),
        "sender": message.envelope.sender.as_ref().map(ToString::to_string),
        "recipients": recipients,
    });
    let (directory, id) = (directory.to_owned(), message.id.to_string());
    tokio::task::spawn_blocking(move || publish(&directory, &id, &content.0, &envelope.to_string()))
        .await?
}

/// Gives the content its name, with the envelope beside it.
fn publish(directory: &Path, id: &str, content: &Path, envelope: &str) -> io::Result<String> {
    for n in 0_u32.. {
        let stem = match n {
            0 => id.to_owned(),
            n => format!("{id}-{n}"),
        };
        // The envelope's file is the claim on the name: another job of the same message takes the next one.
        let name = format!("{stem}.eml");
        let json = directory.join(format!("{stem}.json"));
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&json);
        let mut json = match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        json.write_all(format!("{envelope}\n").as_bytes())?;
        fs::rename(content, directory.join(&name))?;
        return Ok(name);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn tempfile(directory: &Path, message: &Message) -> io::Result<(PathBuf, fs::File)> {
    let path = directory.join(format!(".{}-{:016x}.tmp", message.id, fastrand::u64(..)));
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_in_the_directory_is_not_followed_by_a_probe() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, victim) = (dir.path().join("kept"), dir.path().join("victim"));
        let capture = Capture::new("files".into(), &kept).unwrap();
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, kept.join(".probe")).unwrap();
        assert!(capture.probe(Instant::now()).await.is_ok());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let left: Vec<_> = fs::read_dir(&kept)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [".probe"]);
        fs::remove_dir_all(&kept).unwrap();
        assert!(capture.probe(Instant::now()).await.is_err());
    }
}
