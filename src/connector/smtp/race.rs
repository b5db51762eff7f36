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
#[derive(Default)]
pub(super) struct Race {
    waiting: VecDeque<Hop>,
    /// Those that connect at the moment, the first to begin first.
    running: Vec<Hop>,
    runs: JoinSet<(Hop, Result<TcpStream, Failed>)>,
    /// They had a start, and another connected before them.
    pub(super) overtaken: Vec<Hop>,
    /// For connecting, all together.
    pub(super) left: Duration,
}

impl Race {
    pub(super) fn new(targets: Vec<Hop>, left: Duration) -> Self {
        Self {
            waiting: targets.into(),
            left,
            ..Self::default()
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

    /// The first that connects, or one that cannot be connected to: then the others go on, and so does the next. `None`: there is no
    /// other.
    pub(super) async fn first(
        &mut self,
        settings: &SmtpSettings,
        timeouts: Timeouts,
        deadline: Instant,
    ) -> Option<Result<(Hop, TcpStream), (Hop, Failed)>> {
        let begun = Instant::now();
        let until = dial::slice(deadline, self.left);
        let mut beside = None;
        let found = loop {
            if beside.is_none_or(|at| at <= Instant::now())
                && let Some(hop) = self.waiting.pop_front()
            {
                self.running.push(hop.clone());
                let settings = settings.clone();
                self.runs.spawn(async move {
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
                ended = self.runs.join_next() => match ended {
                    None => break None,
                    Some(Ok((hop, Ok(tcp)))) => break Some(Ok((hop, tcp))),
                    Some(Ok((hop, Err(failed)))) => break Some(Err((hop, failed))),
                    Some(Err(_)) if self.runs.is_empty() => {
                        let hop = self.running.pop()?;
                        let failed = Obstacle::down("connecting broke off").into();
                        break Some(Err((hop, failed)));
                    }
                    Some(Err(_)) => {}
                },
                () = next => {}
            }
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        match &found {
            Some(Ok((winner, _))) => {
                self.runs = JoinSet::new();
                let running = std::mem::take(&mut self.running);
                let before = running.iter().take_while(|hop| *hop != winner);
                self.overtaken = before.cloned().collect();
                // Those that were under way go on being the next.
                for hop in running.into_iter().rev().filter(|hop| hop != winner) {
                    self.waiting.push_front(hop);
                }
            }
            Some(Err((failed, _))) => self.running.retain(|hop| hop != failed),
            None => {}
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

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::fixture;

    fn at(ip: &str, port: u16) -> Hop {
        Hop::Direct(SocketAddr::new(ip.parse().unwrap(), port))
    }

    /// A listener whose queue is full, so that nothing answers there.
    fn deaf(ip: &str) -> (Socket, Vec<Socket>, u16) {
        let open = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = open();
        let any = SocketAddr::new(ip.parse().unwrap(), 0);
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = (0..4).map(|_| {
            let socket = open();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        });
        let waiting = waiting.collect();
        let port = address.as_socket().unwrap().port();
        (listener, waiting, port)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_none_and_comes_last_the_next_time() {
        let (_listener, _waiting, port) = deaf("127.0.0.2");
        let good = tokio::net::TcpListener::bind(("127.0.0.3", port))
            .await
            .unwrap();
        let (deaf, good_hop) = (at("127.0.0.2", port), at("127.0.0.3", port));
        let closed = at("127.0.0.4", port);
        let settings = fixture::smtp("up.example", port);
        let timeouts = Timeouts {
            connect: Duration::from_mins(1),
            connect_each: Duration::from_mins(1),
            ..Timeouts::default()
        };
        let deadline = Instant::now() + Duration::from_mins(2);
        let targets = vec![deaf.clone(), closed.clone(), good_hop.clone()];
        let mut race = Race::new(targets, Duration::from_mins(1));
        // The closed one fails at once, beside the deaf one; then the good one is tried beside it.
        let first = race.first(&settings, timeouts, deadline).await.unwrap();
        let (hop, _) = first.err().unwrap();
        assert_eq!(hop, closed);
        let begun = Instant::now();
        let second = race.first(&settings, timeouts, deadline).await.unwrap();
        let (hop, _) = second.ok().unwrap();
        assert_eq!(hop, good_hop);
        assert!(begun.elapsed() < BESIDE, "at once");
        assert_eq!(race.overtaken, std::slice::from_ref(&deaf));
        assert_eq!(
            race.waiting,
            std::slice::from_ref(&deaf),
            "it may still be tried"
        );
        drop(good);
        let failed = FailedAddresses::default();
        failed.note(&deaf);
        let mut targets = [deaf.clone(), good_hop.clone()];
        failed.last(&mut targets);
        assert_eq!(targets, [good_hop, deaf]);
    }
}
