//! What changed of late, for whoever listens: bounded, coalesced, and never waited for.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use serde_json::Value;
use tokio::sync::Notify;

/// So much is remembered for whoever comes back.
const REMEMBERED: usize = 1_000;
/// The most events of one piece.
const TOGETHER: usize = 100;

#[derive(Debug, Clone)]
struct Told {
    number: u64,
    kind: &'static str,
    /// What it is about: of two about one thing the later is enough.
    object: String,
    data: Value,
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    told: Mutex<(u64, VecDeque<Told>)>,
    news: Notify,
    listeners: AtomicUsize,
}

impl Default for Feed {
    fn default() -> Self {
        // A gateway that was started again begins elsewhere, so that nobody takes its numbers for those of the one before.
        // The number of the process would not do: in a container it is always 1.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = since.unwrap_or_default().as_secs() << 32;
        Self {
            told: Mutex::new((first, VecDeque::new())),
            news: Notify::new(),
            listeners: AtomicUsize::new(0),
        }
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub(super) struct Listening {
    heard: u64,
    must_reset: bool,
    of: std::sync::Arc<Feed>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.of.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed {
    fn told(&self) -> MutexGuard<'_, (u64, VecDeque<Told>)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listens. Where nobody does, nothing need be told.
    pub fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Something is so now.
    pub fn tell(&self, kind: &'static str, object: &str, data: Value) {
        let mut told = self.told();
        told.0 += 1;
        let number = told.0;
        told.1
            .retain(|one| one.kind != kind || one.object != object);
        told.1.push_back(Told {
            number,
            kind,
            object: object.to_owned(),
            data,
        });
        if told.1.len() > REMEMBERED {
            told.1.pop_front();
        }
        drop(told);
        self.news.notify_waiters();
    }

    /// From now on, or from what was heard last.
    pub(super) fn listen(self: &std::sync::Arc<Self>, last: Option<u64>) -> Listening {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let told = self.told();
        let oldest = told.1.front().map_or(told.0, |one| one.number - 1);
        let is_known = last.is_none_or(|last| last >= oldest && last <= told.0);
        Listening {
            heard: last.filter(|_| is_known).unwrap_or(told.0),
            must_reset: !is_known,
            of: std::sync::Arc::clone(self),
        }
    }
}

impl Listening {
    /// What is new, as server-sent events; waits until something is.
    pub(super) async fn next(&mut self, feed: &Feed) -> String {
        if std::mem::take(&mut self.must_reset) {
            return format!("id: {}\nevent: reset\ndata: {{}}\n\n", self.heard);
        }
        loop {
            let news = feed.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(piece) = self.piece(feed) {
                return piece;
            }
            news.await;
        }
    }

    fn piece(&mut self, feed: &Feed) -> Option<String> {
        let told = feed.told();
        if let Some(first) = told.1.front()
            && told.1.len() >= REMEMBERED
            && first.number > self.heard + 1
        {
            self.heard = told.0;
            return Some(format!("id: {}\nevent: reset\ndata: {{}}\n\n", self.heard));
        }
        let new = told
            .1
            .iter()
            .filter(|one| one.number > self.heard)
            .take(TOGETHER);
        let mut piece = String::new();
        let mut last = self.heard;
        for one in new {
            last = one.number;
            let _ = write!(
                piece,
                "id: {}\nevent: {}\ndata: {}\n\n",
                one.number, one.kind, one.data
            );
        }
        drop(told);
        self.heard = last;
        (!piece.is_empty()).then_some(piece)
    }
}
