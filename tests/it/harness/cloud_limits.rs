//! The limits of a tenant, for each mailbox: requests at once, messages and octets in a window. Whoever goes past one is told 429,
//! and it is written down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    cloud::error,
    cloud_token::{Asked, Said},
};

/// What a mailbox takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests at once.
    pub at_once: usize,
    /// Messages in a window.
    pub messages: (usize, Duration),
    /// Octets in a window.
    pub octets: (usize, Duration),
}

impl Default for Limits {
    /// As Exchange Online has them, but for the messages a minute, which most tests are too many for.
    fn default() -> Self {
        Self {
            at_once: 4,
            messages: (usize::MAX, Duration::from_mins(1)),
            octets: (150_000_000, Duration::from_mins(5)),
        }
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    under_way: usize,
    most_at_once: usize,
    sends: Vec<Instant>,
    octets: Vec<(Instant, usize)>,
}

#[derive(Debug, Default)]
struct State {
    mailboxes: HashMap<String, Mailbox>,
    violations: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Counter {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

/// A request under way.
pub struct Entered {
    counter: Counter,
    mailbox: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut state = self.counter.state.lock().unwrap();
        state
            .mailboxes
            .entry(self.mailbox.clone())
            .or_default()
            .under_way -= 1;
    }
}

impl Counter {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Arc::default(),
        }
    }

    /// A request comes: the right to go on, or what it is told.
    pub fn enter(&self, asked: &Asked) -> Result<Entered, Said> {
        let rest = asked
            .target
            .strip_prefix("/v1.0/users/")
            .unwrap_or_default();
        let mailbox = rest.split('/').next().unwrap_or_default().to_lowercase();
        let is_send = asked.target.ends_with("/sendMail") || asked.target.ends_with("/send");
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let one = state.mailboxes.entry(mailbox.clone()).or_default();
        one.under_way += 1;
        one.most_at_once = one.most_at_once.max(one.under_way);
        let (count, per) = self.limits.messages;
        one.sends.retain(|at| now.duration_since(*at) < per);
        one.sends.extend(is_send.then_some(now));
        let (octets, window) = self.limits.octets;
        one.octets
            .retain(|(at, _)| now.duration_since(*at) < window);
        if asked.method != "GET" {
            one.octets.push((now, asked.body.len()));
        }
        let sum: usize = one.octets.iter().map(|(_, octets)| octets).sum();
        let fault = if one.under_way > self.limits.at_once {
            format!("{} at once", one.under_way)
        } else if one.sends.len() > count {
            let ages = one
                .sends
                .iter()
                .map(|at| now.duration_since(*at).as_millis());
            let ages: Vec<_> = ages.collect();
            format!("{} in {per:?}, so many ms ago: {ages:?}", ages.len())
        } else if sum > octets {
            format!("{sum} octets in {window:?}")
        } else {
            String::new()
        };
        if !fault.is_empty() {
            state.violations.push(format!("{mailbox}: {fault}"));
        }
        drop(state);
        let entered = Entered {
            counter: self.clone(),
            mailbox,
        };
        if fault.is_empty() {
            Ok(entered)
        } else {
            Err(error(429, "ApplicationThrottled", "Retry-After: 1\r\n"))
        }
    }

    /// What went past a limit.
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// The most requests of one mailbox that were ever under way.
    pub fn most_at_once(&self) -> usize {
        let state = self.state.lock().unwrap();
        let most = state.mailboxes.values().map(|one| one.most_at_once);
        most.max().unwrap_or(0)
    }
}
