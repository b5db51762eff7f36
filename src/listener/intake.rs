//! A message on its way to the queue: a large body to the disk while it arrives, then all of it to the store.
//!
//! The promise of the `250` is kept here: it is said only after the store has said yes.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::copies;
use crate::{
    mail::{
        health::Health,
        message::{Body, Message, MessageId},
        reply::Reply,
    },
    policy::archive::Archive,
    queue::{Queue, body::BodyWriter, store::StoreError},
    route::{RouteName, Routed},
    smtp::server::session::Accepted,
    telemetry::{counted, maillog},
};

/// When the store has not answered by then, the client is told to come back: clients wait five minutes at least (RFC 5321
/// §4.5.3.2.6 says ten).
const STORE: Duration = Duration::from_mins(4);

/// The message that a connection takes in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    id: Option<MessageId>,
    /// What of the body went to the disk; dropped, it is removed.
    body: Option<Box<BodyWriter>>,
}

impl Intake {
    /// Another message begins.
    pub(super) fn begin(&mut self, queue: &Queue, now: SystemTime) -> MessageId {
        let id = queue.next_id(now);
        self.id = Some(id);
        id
    }

    /// The message is given up.
    pub(super) fn discard(&mut self) {
        self.body = None;
    }

    /// Takes a piece of the body to the disk.
    ///
    /// # Errors
    /// What that makes of the store.
    pub(super) async fn spool(&mut self, queue: &Queue, piece: &[u8]) -> Result<(), Health> {
        let Some(id) = self.id else { return Ok(()) };
        let body = self
            .body
            .get_or_insert_with(|| Box::new(queue.body_writer(id)));
        if let Err(error) = Box::pin(body.append(piece)).await {
            self.body = None;
            return Err(failed(queue, id, &error));
        }
        Ok(())
    }

    /// On disk, or the reply that says why not.
    ///
    /// # Errors
    /// The reply to the final dot.
    pub(super) async fn enqueue(
        &mut self,
        queue: &Queue,
        accepted: Accepted,
    ) -> Result<Unlogged, Reply> {
        let began = Instant::now();
        let id = accepted.id;
        let body = match (accepted.body, self.body.take()) {
            (Some(body), _) => Body::Memory(body),
            (None, None) => Body::Memory(Bytes::new()),
            (None, Some(body)) => match body.finish().await {
                Ok(body) => body,
                Err(error) => return Err(not_spooled(queue, id, &error)),
            },
        };
        let mut message = Message {
            id,
            envelope: accepted.envelope,
            origin: accepted.origin,
            header: accepted.header,
            body,
        };
        let copies = copies::made(queue, &mut message, &accepted.archives).await;
        let copies = copies.map_err(|error| not_spooled(queue, id, &error))?;
        let message = Arc::new(message);
        let copied: Vec<Arc<Message>> = copies.iter().map(|c| Arc::clone(&c.message)).collect();
        let mail = Routed {
            message: Arc::clone(&message),
            jobs: accepted.jobs,
            copies,
        };
        let mut routes: Vec<_> = mail.jobs.iter().map(|(route, _)| route.clone()).collect();
        routes.dedup();
        let stored = queue.accept(mail, &accepted.held, SystemTime::now());
        let stored = timeout(STORE, stored).await;
        match stored {
            Ok(Ok(())) => {
                for (redirect, recipients) in &accepted.redirected {
                    counted::redirected(redirect, *recipients);
                }
                Ok(Unlogged {
                    message,
                    copies: accepted.archives.into_iter().zip(copied).collect(),
                    routes,
                    took: began.elapsed(),
                })
            }
            Ok(Err(error)) => {
                error!(event = "not stored", id = %id, error = %error, "not stored");
                Err(match error {
                    StoreError::Full => Reply::storage_full(),
                    StoreError::Unavailable(_)
                    | StoreError::Newer(_)
                    | StoreError::Away(_)
                    | StoreError::Crowded => Reply::storage_failing(),
                })
            }
            Err(_) => {
                error!(event = "not stored", id = %id, error = "the store took over four minutes", "not stored");
                Err(Reply::storage_failing())
            }
        }
    }
}

/// The reply where the disk has failed.
fn not_spooled(queue: &Queue, id: MessageId, error: &io::Error) -> Reply {
    match failed(queue, id, error) {
        Health::Full => Reply::storage_full(),
        _ => Reply::storage_failing(),
    }
}

/// Logs that the disk failed, and says what that makes of the store.
fn failed(queue: &Queue, id: MessageId, error: &io::Error) -> Health {
    warn!(event = "spool failed", id = %id, error = %error, "spool failed");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            queue.ask_for_space();
            Health::Full
        }
        _ => Health::Failing,
    }
}

/// A message that is on disk; when dropped it writes its line to the log.
pub(super) struct Unlogged {
    message: Arc<Message>,
    copies: Vec<(Arc<Archive>, Arc<Message>)>,
    routes: Vec<RouteName>,
    took: Duration,
}

impl Drop for Unlogged {
    fn drop(&mut self) {
        let names: Vec<_> = self.routes.iter().map(RouteName::as_str).collect();
        maillog::accepted(
            self.message.id,
            &self.message.origin,
            &self.message.envelope,
            self.message.size(),
            &names,
            self.took,
        );
        for (archive, copy) in &self.copies {
            maillog::archived(
                copy.id,
                self.message.id,
                &archive.name,
                &archive.to,
                copy.size(),
            );
        }
    }
}
