//! Connections kept open between messages.
//!
//! It only lends and takes back. What it holds never outlives it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::link::Link;

/// The idle connections of one connector.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<IdleLinks>,
}

#[derive(Debug)]
struct IdleLinks {
    idle: Mutex<Vec<Link>>,
    /// The tasks that say QUIT and that close idle connections; they end with the pool.
    tasks: Mutex<JoinSet<()>>,
    idle_timeout: Duration,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(IdleLinks {
                idle: Mutex::default(),
                tasks: Mutex::default(),
                idle_timeout,
            }),
        }
    }

    /// A connection that is still good, as far as the clock says. (What was said or closed since it was put back, its first write
    /// finds: another one is taken then.)
    pub(super) fn take(&self) -> Option<Link> {
        loop {
            // The youngest: it is the likeliest to be alive.
            let link = lock(&self.shared.idle).pop()?;
            if link.is_too_old() {
                self.leave(link);
                continue;
            }
            if link.idle_since.elapsed() < self.shared.idle_timeout {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next message.
    pub(super) fn put(&self, mut link: Link) {
        if self.shared.idle_timeout.is_zero() {
            self.leave(link);
            return;
        }
        link.idle_since = Instant::now();
        let first = {
            let mut idle = lock(&self.shared.idle);
            idle.push(link);
            idle.len() == 1
        };
        if first {
            let shared = Arc::downgrade(&self.shared);
            let mut tasks = lock(&self.shared.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(expire(shared, self.shared.idle_timeout));
        }
    }

    /// Says QUIT in the background.
    pub(super) fn leave(&self, link: Link) {
        let mut tasks = lock(&self.shared.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(link.quit());
    }
}

/// Closes connections that nobody used for the idle time, until none is left.
async fn expire(shared: Weak<IdleLinks>, after: Duration) {
    loop {
        let (next, old) = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut idle = lock(&shared.idle);
            let old: Vec<Link> = idle
                .extract_if(.., |link| link.idle_since.elapsed() >= after)
                .collect();
            (idle.iter().map(|link| link.idle_since).min(), old)
        };
        for link in old {
            link.quit().await;
        }
        match next {
            Some(since) => tokio::time::sleep_until(since + after).await,
            None => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic leaves what is inside whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
