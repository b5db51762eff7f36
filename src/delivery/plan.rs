//! What follows from what happened: retry when, fail over, give up, bounce, close or pause the lane.
//!
//! Apart because this is where mail is lost or doubled if it is wrong: `docs` row by row, no clock, no dice, no store.
//! A job goes from connector to connector within one [`Attempt`]; [`Attempt::take`] hears each report,
//! [`Attempt::finish`] draws the sum. It does not carry anything out.

use std::time::{Duration, SystemTime};

use super::gate::{LONGEST_WAIT, PAUSE_PROBE};
use crate::{
    mail::{
        address::Address,
        outcome::{Outcome, Report},
        reply::Reply,
    },
    queue::store::{Job, Settled},
    route::{ConnectorName, Route},
};

/// What a report means for the lane it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The upstream answers: open, and start nothing before the wait is over, if one was asked for.
    Open(Option<Duration>),
    /// Close it for the lane's retry step, or this if it is longer.
    Close(Reply, Option<Duration>),
    /// Pause it.
    Pause(Reply),
    /// Pause the mailbox alone.
    PauseMailbox(Reply),
}

/// Why a connector took nothing of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Down, just now or before.
    Down(Option<Reply>),
    /// Misconfigured, just now or before.
    Paused(Option<Reply>),
    /// The mailbox is refused, just now or before.
    Mailbox(Option<Reply>),
}

/// A recipient that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who.
    pub recipient: Address,
    /// What the upstream said last.
    pub reply: Reply,
    /// It was tried until `give_up`; otherwise it was refused.
    pub gave_up: bool,
    /// It may have arrived.
    pub in_doubt: bool,
    /// Whether anyone is told.
    pub bounce: bool,
}

/// The sum of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// For the settlement: every recipient about which there is something to say.
    pub recipients: Vec<(Address, Settled)>,
    /// Something was attempted, so that it counts.
    pub attempted: bool,
    /// When what waits is due again.
    pub next: SystemTime,
    /// What is in doubt waits with this connector until then.
    pub in_doubt: Option<(ConnectorName, SystemTime)>,
    /// Who was given up, for log and bounce.
    pub failures: Vec<Failure>,
}

/// One attempt for a job, over as many connectors as it takes.
#[derive(Debug)]
pub struct Attempt {
    accepted: SystemTime,
    attempts: u32,
    pinned: Option<ConnectorName>,
    /// Nobody has answered for these yet; with what the last connector said that they were not suited to.
    open: Vec<(Address, Option<Reply>)>,
    /// Answered, in the order of the answers, by which connector.
    answered: Vec<(Address, Outcome, ConnectorName)>,
    blocks: Vec<Block>,
    attempted: bool,
    doubtful: Option<ConnectorName>,
}

impl Attempt {
    /// For a claimed job.
    pub fn new(job: &Job) -> Self {
        Self {
            accepted: job.accepted,
            attempts: job.attempts,
            pinned: job.pinned.clone(),
            open: job.recipients.iter().map(|r| (r.clone(), None)).collect(),
            answered: Vec::new(),
            blocks: Vec::new(),
            attempted: false,
            doubtful: None,
        }
    }

    /// Who is for the next connector. Empty: no connector is called any more.
    pub fn open(&self) -> Vec<Address> {
        // A job is pinned to one connector at most, so what another could also leave in doubt waits.
        if self.doubtful.is_some() {
            return Vec::new();
        }
        self.open.iter().map(|(r, _)| r.clone()).collect()
    }

    /// By which connector and how each recipient was answered so far.
    pub fn answered(&self) -> &[(Address, Outcome, ConnectorName)] {
        &self.answered
    }

    /// A connector was passed over because its lane is shut.
    pub fn skip(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// A connector reported.
    pub fn take(&mut self, connector: &ConnectorName, report: Report) -> Change {
        match report {
            Report::Down { reply, retry_after } => {
                self.blocks.push(Block::Down(Some(reply.clone())));
                Change::Close(reply, retry_after)
            }
            Report::Misconfigured(reply) => {
                self.blocks.push(Block::Paused(Some(reply.clone())));
                Change::Pause(reply)
            }
            Report::MailboxRefused(reply) => {
                self.blocks.push(Block::Mailbox(Some(reply.clone())));
                Change::PauseMailbox(reply)
            }
            Report::Tried { mut outcomes, .. } => {
                self.attempted = true;
                let mut wait = None;
                for (recipient, unsuited) in std::mem::take(&mut self.open) {
                    let outcome = match outcomes.iter().position(|(r, _)| *r == recipient) {
                        Some(at) => outcomes.swap_remove(at).1,
                        // A connector that says nothing of a recipient may have sent it.
                        None => Outcome::InDoubt(Reply::new(
                            451,
                            (4, 3, 0),
                            "the connector did not say what became of this recipient",
                        )),
                    };
                    match &outcome {
                        Outcome::Unsuited(reply) => {
                            self.open.push((recipient, Some(reply.clone())));
                            continue;
                        }
                        Outcome::Deferred {
                            retry_after: Some(asked),
                            ..
                        } => wait = wait.max(Some(*asked)),
                        Outcome::InDoubt(_) => self.doubtful = Some(connector.clone()),
                        Outcome::Delivered(_) | Outcome::Deferred { .. } | Outcome::Failed(_) => {}
                    }
                    let _ = unsuited;
                    self.answered.push((recipient, outcome, connector.clone()));
                }
                Change::Open(wait)
            }
        }
    }

    /// No connector is left, or nobody is open any more. `jitter` is in 0..1, `in_doubt_wait` as configured.
    pub fn finish(
        self,
        route: &Route,
        in_doubt_wait: Duration,
        now: SystemTime,
        jitter: f64,
    ) -> Decision {
        let end = self.accepted + route.give_up;
        let over = now >= end;
        let step = step(&route.retry, self.attempts as usize, jitter);
        let mut wait = step;
        let mut recipients = Vec::new();
        let mut failures = Vec::new();
        let mut in_doubt = None;
        let mut answered_waits = false;

        for (recipient, outcome, connector) in self.answered {
            let settled = match outcome {
                Outcome::Delivered(_) => Settled::Done(outcome),
                Outcome::Failed(ref reply) | Outcome::Unsuited(ref reply) => {
                    failures.push(Failure {
                        recipient: recipient.clone(),
                        reply: reply.clone(),
                        gave_up: false,
                        in_doubt: self.pinned.is_some(),
                        bounce: true,
                    });
                    Settled::Failed(outcome)
                }
                Outcome::Deferred { ref reply, .. } | Outcome::InDoubt(ref reply) if over => {
                    failures.push(Failure {
                        recipient: recipient.clone(),
                        reply: reply.clone(),
                        gave_up: true,
                        in_doubt: self.pinned.is_some() || matches!(outcome, Outcome::InDoubt(_)),
                        bounce: true,
                    });
                    Settled::Failed(outcome)
                }
                Outcome::Deferred { retry_after, .. } => {
                    answered_waits = true;
                    wait = wait.max(retry_after.unwrap_or_default().min(LONGEST_WAIT));
                    Settled::Waiting(outcome)
                }
                Outcome::InDoubt(_) => {
                    in_doubt = Some((connector, earlier(now + step.max(in_doubt_wait), end)));
                    Settled::InDoubt(outcome)
                }
            };
            recipients.push((recipient, settled));
        }

        // What the connectors that could still take them keep the rest waiting for.
        let paused = self.blocks.iter().any(|b| matches!(b, Block::Paused(_)));
        let mailbox = self.blocks.iter().any(|b| matches!(b, Block::Mailbox(_)));
        let blocked = !self.blocks.is_empty();
        let last = self.blocks.iter().rev().find_map(|block| match block {
            Block::Down(reply) | Block::Paused(reply) | Block::Mailbox(reply) => reply.clone(),
        });
        let mut untouched = !self.open.is_empty();
        for (recipient, unsuited) in self.open {
            // Unsuited to every connector there is, and none was kept out.
            if let Some(reply) = unsuited.clone()
                && !blocked
                && self.doubtful.is_none()
            {
                failures.push(Failure {
                    recipient: recipient.clone(),
                    reply: reply.clone(),
                    gave_up: false,
                    in_doubt: false,
                    bounce: true,
                });
                recipients.push((recipient, Settled::Failed(Outcome::Failed(reply))));
                continue;
            }
            untouched &= unsuited.is_none();
            let said = last.clone().or(unsuited);
            // Never because of our own configuration or credentials.
            if over && blocked && !paused {
                let reply = said.unwrap_or_else(|| {
                    Reply::new(
                        451,
                        (4, 4, 1),
                        "the connector is closed; nobody answers there",
                    )
                });
                failures.push(Failure {
                    recipient: recipient.clone(),
                    reply: reply.clone(),
                    gave_up: true,
                    in_doubt: self.pinned.is_some(),
                    bounce: !mailbox,
                });
                recipients.push((recipient, Settled::Failed(Outcome::Failed(reply))));
            } else if let Some(reply) = said {
                recipients.push((
                    recipient,
                    Settled::Waiting(Outcome::Deferred {
                        reply,
                        retry_after: None,
                    }),
                ));
            }
        }

        let next = if answered_waits || !untouched {
            earlier(now + wait, end.max(now))
        } else if mailbox {
            earlier(now + PAUSE_PROBE, end.max(now))
        } else {
            // The lane holds it, not the time: when it opens, the oldest is first.
            self.accepted
        };
        // Kept by a pause beyond its end: not in a circle.
        let next = if over && next != self.accepted {
            now + wait.max(step)
        } else {
            next
        };
        Decision {
            recipients,
            attempted: self.attempted,
            next,
            in_doubt,
            failures,
        }
    }
}

/// The retry step of that number (the last one repeats), up to a fifth shorter or longer. `jitter` is in 0..1.
pub fn step(retry: &[Duration], number: usize, jitter: f64) -> Duration {
    let step = retry
        .get(number)
        .or(retry.last())
        .copied()
        .unwrap_or(Duration::from_secs(60));
    step.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

fn earlier(a: SystemTime, b: SystemTime) -> SystemTime {
    a.min(b)
}
