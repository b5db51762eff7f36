//! `postern queue export`: a message as .eml, byte for byte as it will leave.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    cli::exit::{Ended, Exit, Failure},
    mail::message::{Body, Message, MessageId},
    queue::store::Store,
};

pub(super) async fn run(store: Arc<dyn Store>, id: MessageId, path: Option<PathBuf>) -> Ended {
    let message = store.content(id).await?.ok_or_else(|| {
        Failure::new(
            Exit::No,
            format_args!("the content of {id} is not kept: unknown, or delivered already"),
        )
    })?;
    match path {
        None => {
            let mut out = io::stdout().lock();
            write_eml(&message, &mut out)?;
        }
        Some(path) => {
            let cannot = |error: &io::Error| {
                Failure::new(
                    Exit::CannotCreate,
                    format_args!("cannot write {}: {error}", path.display()),
                )
            };
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| cannot(&error))?;
            write_eml(&message, &mut file)?;
            file.sync_all().map_err(|error| cannot(&error))?;
        }
    }
    Ok(Exit::Ok)
}

fn write_eml(message: &Message, out: &mut dyn Write) -> Result<(), Failure> {
    out.write_all(&message.header)?;
    out.write_all(b"\r\n")?;
    match &message.body {
        Body::Memory(body) => out.write_all(body)?,
        Body::File(spooled) => {
            let mut file = fs::File::open(spooled.path()).map_err(|error| {
                Failure::new(
                    Exit::Io,
                    format_args!("cannot read {}: {error}", spooled.path().display()),
                )
            })?;
            io::copy(&mut file, out)?;
        }
    }
    out.flush()?;
    Ok(())
}
