//! Addresses side by side (RFC 8305): one that does not answer at once does not hold up the next.
//!
//! It connects and says nothing; who speaks with whom is the opener's.

use std::{
    collections::VecDeque,
    future::pending,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    dial::{self, Hop},
    failed::Failed,
    link::Timeouts,
};
use crate::{connector::settings::SmtpSettings, mail::outcome::Obstacle};

/// A connect that has not succeeded after this lets the next address start beside it (RFC 8305 §5).
const BESIDE: Duration = Duration::from_millis(250);
/// An address that failed comes last for so long.
const LAST: Duration = Duration::from_mins(5);
/// Addresses that are remembered as failed.
const REMEMBERED: usize = 16;

/// The addresses of one opening that are left to try.
pub(super) struct Race {
    waiting: VecDeque<Hop>,
    /// For connecting, all together.
    pub(super) left: Duration,
}

impl Race {
    pub(super) fn new(targets: Vec<Hop>, left: Duration) -> Self {
        Self {
            waiting: targets.into(),
            left,
        }
    }

    /// Nobody else is left.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// It is tried again when all others have failed.
    pub(super) fn put_last(&mut self, hop: Hop) {
        self.waiting.push_back(hop);
    }

    /// The first that connects, or one that cannot be connected to. `None`: there is no other.
    pub(super) async fn first(
        &mut self,
        settings: &SmtpSettings,
        timeouts: Timeouts,
        deadline: Instant,
    ) -> Option<Result<(Hop, TcpStream), (Hop, Failed)>> {
        let begun = Instant::now();
        let until = dial::slice(deadline, self.left);
        let mut runs: JoinSet<(Hop, Result<TcpStream, Failed>)> = JoinSet::new();
        let mut running = Vec::new();
        let mut beside = None;
        let found = loop {
            if beside.is_none_or(|at| at <= Instant::now())
                && let Some(hop) = self.waiting.pop_front()
            {
                running.push(hop.clone());
                let settings = settings.clone();
                runs.spawn(async move {
                    let connected = dial::connect(&hop, &settings, timeouts, until).await;
                    (hop, connected)
                });
                beside = Some(Instant::now() + BESIDE);
            }
            let next = async {
                match beside.filter(|_| !self.waiting.is_empty()) {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ended = runs.join_next() => match ended {
                    None => break None,
                    Some(Ok((hop, Ok(tcp)))) => break Some(Ok((hop, tcp))),
                    Some(Ok((hop, Err(failed)))) => break Some(Err((hop, failed))),
                    Some(Err(_)) if runs.is_empty() => {
                        let hop = running.pop()?;
                        let failed = Obstacle::down("connecting broke off").into();
                        break Some(Err((hop, failed)));
                    }
                    Some(Err(_)) => {}
                },
                () = next => {}
            }
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        // Those that were under way go on being the next.
        let over = found.as_ref().map(|found| match found {
            Ok((hop, _)) | Err((hop, _)) => hop.clone(),
        });
        for hop in running.into_iter().rev() {
            if Some(&hop) != over.as_ref() {
                self.waiting.push_front(hop);
            }
        }
        found
    }
}

/// Addresses that failed a short time ago.
#[derive(Debug, Default)]
pub(super) struct FailedAddresses {
    kept: Mutex<VecDeque<(SocketAddr, Instant)>>,
}

impl FailedAddresses {
    pub(super) fn note(&self, hop: &Hop) {
        let Hop::Direct(address) = hop else {
            return;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, at)| other != address && at.elapsed() < LAST);
        kept.truncate(REMEMBERED - 1);
        kept.push_front((*address, Instant::now()));
    }

    /// Puts those that failed behind the others.
    pub(super) fn last(&self, targets: &mut [Hop]) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        targets.sort_by_key(|hop| match hop {
            Hop::Direct(address) => kept
                .iter()
                .any(|(other, at)| other == address && at.elapsed() < LAST),
            Hop::Proxied(_) => false,
        });
    }
}
