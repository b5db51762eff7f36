//! What a [`Step`] asks for beyond talking: the password check, the spool, the queue, the log, the goodbye.
//!
//! Apart from the loop that drives the session, so that each can be read alone. The promise of the `250` is kept here: it is
//! said only after the store has said yes.

use std::time::Duration;

use crate::{mail::text::logged, route::RouteName};

use super::{
    Accepted, Arc, Authentication, Body, Bytes, Connection, Credentials, Instant, LINGER,
    LINGER_OCTETS, Message, Port, Refusal, Reply, Routed, STORE, Shared, SocketAddr, Stage, Step,
    StoreError, StoreState, SystemTime, debug, info, io, maillog, timeout, warn,
};

impl Connection {
    pub(super) async fn verify(&mut self, credentials: &Credentials) -> Step {
        let rules = self.shared.rules();
        let result = self
            .shared
            .auth
            .check(credentials, &rules.policy.users, self.peer.ip())
            .await;
        if result == Authentication::Accepted {
            self.places.0.is_of_a_friend();
            self.places.1.is_of_a_friend();
        }
        self.session.verified(result)
    }

    pub(super) async fn spool(&mut self, piece: &[u8]) {
        let Some(id) = self.id else { return };
        let queue = &self.shared.queue;
        let spool = self
            .spool
            .get_or_insert_with(|| Box::new(queue.body_writer(id)));
        if let Err(error) = Box::pin(spool.append(piece)).await {
            self.spool = None;
            warn!(event = "spool failed", id = %id, error = %error, "spool failed");
            self.session.spool_failed(self.store_state(&error));
        }
    }

    fn store_state(&self, error: &io::Error) -> StoreState {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.shared.queue.ask_for_room();
                StoreState::Full
            }
            _ => StoreState::Failing,
        }
    }

    /// On disk, or the reply that says why not.
    pub(super) async fn enqueue(&mut self, accepted: Accepted) -> Result<(), Reply> {
        let began = Instant::now();
        let id = accepted.id;
        let body = match (accepted.body, self.spool.take()) {
            (Some(body), _) => Body::Memory(body),
            (None, None) => Body::Memory(Bytes::new()),
            (None, Some(spool)) => match spool.finish().await {
                Ok(body) => body,
                Err(error) => {
                    warn!(event = "spool failed", id = %id, error = %error, "spool failed");
                    return Err(match self.store_state(&error) {
                        StoreState::Full => Reply::storage_full(),
                        _ => Reply::storage_failing(),
                    });
                }
            },
        };
        let message = Arc::new(Message {
            id,
            envelope: accepted.envelope,
            origin: accepted.origin,
            header: accepted.header,
            body,
        });
        let mail = Routed {
            message: Arc::clone(&message),
            jobs: accepted.jobs,
        };
        let mut routes: Vec<_> = mail.jobs.iter().map(|(route, _)| route.clone()).collect();
        routes.dedup();
        let stored = timeout(STORE, self.shared.queue.accept(mail, SystemTime::now())).await;
        match stored {
            Ok(Ok(())) => {
                self.shared.count_message(self.peer.ip());
                self.untold = Some(Untold {
                    message,
                    routes,
                    took: began.elapsed(),
                });
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(event = "not stored", id = %id, error = %error, "not stored");
                Err(match error {
                    StoreError::Full => Reply::storage_full(),
                    StoreError::Unavailable(_) => Reply::storage_failing(),
                })
            }
            Err(_) => {
                tracing::error!(event = "not stored", id = %id, error = "the store took over four minutes", "not stored");
                Err(Reply::storage_failing())
            }
        }
    }

    /// An idle session that ends is nothing to tell; one that ends inside a line or a message is.
    pub(super) fn timed_out(&mut self) -> Step {
        let reply = Reply::timed_out();
        let inside = self.session.stage() == Stage::Data;
        if inside || self.line_began.is_some() {
            self.log_refusal(&Refusal {
                stage: if inside { "data" } else { "connect" },
                sender: None,
                recipient: None,
                reply: reply.clone(),
            });
        }
        Step::Close(Some(reply))
    }

    pub(super) fn log_refusal(&self, refusal: &Refusal) {
        let Some(suppressed) = self.shared.may_log_refusal(self.peer.ip()) else {
            return;
        };
        maillog::rejected(&maillog::Rejected {
            peer: self.peer,
            client: self.session.client(),
            listener: &self.port.settings.name,
            stage: refusal.stage,
            sender: refusal.sender.as_deref(),
            recipient: refusal.recipient.as_deref(),
            reply: &refusal.reply,
            suppressed,
        });
    }

    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.spool = None;
        self.flush().await?;
        let _ = timeout(LINGER, async {
            self.wire.shutdown().await?;
            let mut read = 0;
            while read < LINGER_OCTETS {
                self.input.clear();
                match self.wire.read(&mut self.input).await? {
                    0 => break,
                    octets => read += octets,
                }
            }
            io::Result::Ok(())
        })
        .await;
        Ok(())
    }
}

/// A message that is on disk; dropped, it is told in the log.
pub(super) struct Untold {
    message: Arc<Message>,
    routes: Vec<RouteName>,
    took: Duration,
}

impl Drop for Untold {
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
    }
}

/// A client that only looks whether the port is open (health checks) is not worth a line.
pub(super) fn tell_of_failed_tls(
    error: &io::Error,
    peer: SocketAddr,
    port: &Port,
    shared: &Shared,
) {
    if matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ) {
        debug!(peer = %peer, error = %error, "connection ended");
    } else if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
        info!(event = "tls failed", listener = %port.settings.name, peer = %peer,
            error = %logged(&super::super::tls::reason(error)), suppressed, "tls failed");
    }
}
