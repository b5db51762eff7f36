//! `postern queue export`: a message as .eml, byte for byte as it will leave.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    cli::exit::{CommandError, Ended, Exit},
    mail::message::{Message, MessageId},
    queue::eml::Eml,
    queue::store::Store,
};

pub(super) async fn run(store: Arc<dyn Store>, id: MessageId, path: Option<PathBuf>) -> Ended {
    let message = store.content(id).await?.ok_or_else(|| {
        CommandError::new(
            Exit::No,
            format_args!("the content of {id} is not kept: unknown, or delivered already"),
        )
    })?;
    match path {
        None => {
            write_eml(&message, &mut io::stdout()).await?;
        }
        Some(path) => {
            let cannot = |error: &io::Error| {
                CommandError::new(
                    Exit::CannotCreate,
                    format_args!("cannot write {}: {error}", path.display()),
                )
            };
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| cannot(&error))?;
            write_eml(&message, &mut file).await?;
            file.sync_all().map_err(|error| cannot(&error))?;
        }
    }
    Ok(Exit::Ok)
}

async fn write_eml(message: &Message, out: &mut (dyn Write + Send)) -> Result<(), CommandError> {
    let unreadable = |error: io::Error| {
        CommandError::new(
            Exit::Io,
            format_args!("cannot read the body of {}: {error}", message.id),
        )
    };
    let mut eml = Eml::of(message).await.map_err(unreadable)?;
    while let Some(piece) = eml.next().await.map_err(unreadable)? {
        out.write_all(&piece)?;
    }
    out.flush()?;
    Ok(())
}
