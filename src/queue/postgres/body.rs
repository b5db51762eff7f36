//! Large bodies that are in the database: each is fetched into a file of its own before anybody reads it, so that a database that
//! goes away meanwhile cuts no delivery.

use std::sync::Arc;

use super::{
    crew::Crew,
    values::{broken, get},
};
use crate::{
    mail::message::{Body, BodyHandle, BodyReader, MessageId, Reading},
    queue::body::BodyStore,
};

const CHUNK: &str = "SELECT octets FROM chunk WHERE message = $1::bytea AND seq = $2::int";

/// Where they come from, and where they are put.
#[derive(Debug, Clone)]
pub(super) struct RemoteBodies {
    pub(super) crew: Crew,
    pub(super) local: BodyStore,
}

impl RemoteBodies {
    /// The body of a message, which has so many octets.
    pub(super) fn of(&self, message: MessageId, len: u64) -> Body {
        Body::Stored(Arc::new(RemoteBody {
            message,
            len,
            bodies: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct RemoteBody {
    message: MessageId,
    len: u64,
    bodies: RemoteBodies,
}

impl RemoteBody {
    async fn chunk(&self, seq: i32) -> std::io::Result<Vec<u8>> {
        let key = self.message.to_bytes().to_vec();
        let fetched = self.bodies.crew.on(true, move |link| {
            let key = key.clone();
            Box::pin(async move {
                let found = link.whole(&[(CHUNK, vec![&key, &seq])]).await?;
                let row = found.iter().flatten().next();
                let row = row.ok_or_else(|| broken("a part of the body is missing"))?;
                get::<Vec<u8>>(row, 0)
            })
        });
        fetched.await.map_err(std::io::Error::other)
    }
}

impl BodyHandle for RemoteBody {
    fn len(&self) -> u64 {
        self.len
    }

    fn keep(&self) {}

    fn open(&self) -> Reading<'_, Box<dyn BodyReader>> {
        Box::pin(async {
            let mut copy = self.bodies.local.copy().await?;
            let mut seq = 0;
            while copy.len() < self.len {
                copy.append(self.chunk(seq).await?).await?;
                seq += 1;
            }
            copy.reader(self.len).await
        })
    }
}
