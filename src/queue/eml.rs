//! A message as .eml, octet by octet as it will leave, a piece at a time: it may be large.

use std::io;

use bytes::Bytes;

use crate::mail::message::{BodyReader, Message};

/// What is read of a message, piece by piece.
pub struct Eml {
    header: Option<Bytes>,
    body: Box<dyn BodyReader>,
}

impl Eml {
    /// From its beginning.
    ///
    /// # Errors
    /// The body cannot be read.
    pub async fn of(message: &Message) -> io::Result<Self> {
        let mut header = message.header.to_vec();
        header.extend_from_slice(b"\r\n");
        Ok(Self {
            header: Some(header.into()),
            body: message.body.open().await?,
        })
    }

    /// The next piece: the header with the empty line behind it, then the body. `None` at the end.
    ///
    /// # Errors
    /// The body cannot be read, or is not as long as it should be.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.header.take() {
            Some(header) => Ok(Some(header)),
            None => self.body.next().await,
        }
    }
}
