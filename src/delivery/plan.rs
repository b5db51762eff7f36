//! What follows from what happened: retry when, fail over, give up, bounce, close or pause the lane.
//!
//! Where this is wrong mail is lost or sent twice, so it is pure: no clock, no dice, no store.
//! A job goes from connector to connector within one [`Attempt`]; [`Attempt::take`] hears each report,
//! [`Attempt::finish`] draws the sum. It does not carry anything out.

use std::time::{Duration, SystemTime};

use super::{
    clock,
    lanes::gate::PAUSE_PROBE,
    verdict::{Held, NextTurn, Time, Verdict, answered, unanswered},
};
use crate::{
    mail::{
        address::Address,
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    queue::store::{Job, Settled},
    route::{ConnectorName, LaneId, Route},
};

pub use super::verdict::Block;

/// What an answer that was not the upstream's makes a message wait, at most.
const INTERCEPTED: Duration = Duration::from_mins(1);

/// A recipient that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who.
    pub recipient: Recipient,
    /// What the upstream said last.
    pub reply: Reply,
    /// It was tried until `give_up`; otherwise it was refused.
    pub gave_up: bool,
    /// It may have arrived.
    pub in_doubt: bool,
    /// Whether anyone is told.
    pub bounce: bool,
}

/// A recipient that was taken, of whom the sender wants to hear and nobody else tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who.
    pub recipient: Recipient,
    /// What the upstream said.
    pub reply: Reply,
    /// It goes no further.
    pub is_final: bool,
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
    /// The lane whose turn it waits for.
    pub lane: Option<LaneId>,
    /// Those of the waiting recipients that are to be tried apart from the others.
    pub apart: Vec<Address>,
    /// What is in doubt waits with this connector until then.
    pub in_doubt: Option<(ConnectorName, SystemTime)>,
    /// Who was given up, for log and bounce.
    pub failures: Vec<Failure>,
    /// Who was taken, for a report.
    pub receipts: Vec<Receipt>,
}

/// One attempt for a job, over as many connectors as it takes.
#[derive(Debug)]
pub struct Attempt {
    accepted: SystemTime,
    attempts: u32,
    pinned: Option<ConnectorName>,
    /// Nobody has answered for these yet; with what the last connector said that they were not suited to.
    open: Vec<(Recipient, Option<Reply>)>,
    /// Answered, in the order of the answers, by which connector.
    answered: Vec<(Recipient, Outcome, ConnectorName)>,
    receipts: Vec<Receipt>,
    blocks: Vec<Block>,
    attempted: bool,
    doubtful: Option<ConnectorName>,
    lane: Option<LaneId>,
    /// The mailbox was refused to this very message, or something in between answered for it: others are asked first.
    refused: bool,
    intercepted: bool,
    /// The connector that paused over this message, perhaps over it alone: others are tried there first.
    stopped: Option<ConnectorName>,
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
            receipts: Vec::new(),
            blocks: Vec::new(),
            attempted: false,
            doubtful: None,
            lane: job.lane.clone(),
            refused: false,
            intercepted: false,
            stopped: None,
        }
    }

    /// The clock was set by so many microseconds since it was claimed; and nothing was accepted later than now.
    pub fn accepted_otherwise(&mut self, by: i64, now: SystemTime) {
        self.accepted = clock::moved(self.accepted, by).min(now);
    }

    /// Who is for the next connector. Empty: no connector is called any more.
    pub fn open(&self) -> Vec<Recipient> {
        // A job is pinned to one connector at most, so what another could also leave in doubt waits.
        if self.doubtful.is_some() {
            return Vec::new();
        }
        self.open.iter().map(|(r, _)| r.clone()).collect()
    }

    /// No connector is called any more.
    pub fn is_over(&self) -> bool {
        self.doubtful.is_some() || self.open.is_empty()
    }

    /// By which connector and how each recipient was answered so far.
    pub fn answered(&self) -> &[(Recipient, Outcome, ConnectorName)] {
        &self.answered
    }

    /// A connector was passed over because its lane is shut.
    pub fn skip(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// It has to wait for its turn in that lane.
    pub fn queue_up(&mut self, lane: Option<LaneId>) {
        self.lane = lane;
    }

    /// As [`Attempt::queue_up`], unless it waits for its turn already: the lane that refuses it, where there is one it can wait in.
    pub fn queue_up_in_refused(&mut self, lane: Option<LaneId>) {
        if !self.blocks.iter().any(Block::is_wait) {
            self.lane = lane;
        }
    }

    /// A connector reported: how long it wants nothing else, or what is in the way.
    ///
    /// # Errors
    /// It took nothing.
    pub fn take(
        &mut self,
        connector: &ConnectorName,
        report: Report,
    ) -> Result<Option<Duration>, Obstacle> {
        match report {
            Report::NotTried(obstacle) => {
                match obstacle.kind {
                    ObstacleKind::Misconfigured => {
                        self.stopped.get_or_insert_with(|| connector.clone());
                    }
                    ObstacleKind::Intercepted => self.intercepted = true,
                    ObstacleKind::MailboxRefused | ObstacleKind::FromRefused => self.refused = true,
                    ObstacleKind::Down | ObstacleKind::Throttled | ObstacleKind::Stopped => {}
                }
                self.blocks.push(Block::Obstacle(obstacle.clone()));
                Err(obstacle)
            }
            Report::Tried {
                mut outcomes,
                pause,
                onward,
                ..
            } => {
                // A set that is only made smaller has had no try.
                self.attempted |= !outcomes.iter().all(|(_, o)| matches!(o, Outcome::Apart(_)));
                let mut wait = pause;
                for (recipient, _) in std::mem::take(&mut self.open) {
                    let outcome = match outcomes.iter().position(|(r, _)| recipient == *r) {
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
                        Outcome::Delivered(reply) => {
                            let told = onward.is_final_for(&recipient.address);
                            if let Some(is_final) = told.filter(|_| recipient.tells_success()) {
                                self.receipts.push(Receipt {
                                    recipient: recipient.clone(),
                                    reply: reply.clone(),
                                    is_final,
                                });
                            }
                        }
                        Outcome::Deferred { .. } | Outcome::Failed(_) | Outcome::Apart(_) => {}
                    }
                    self.answered.push((recipient, outcome, connector.clone()));
                }
                Ok(wait)
            }
        }
    }

    /// It is not sent at all: whoever is open has failed, by this word.
    pub fn fail(&mut self, by: &ConnectorName, reply: &Reply) {
        for (recipient, _) in self.open.drain(..) {
            let outcome = Outcome::Failed(reply.clone());
            self.answered.push((recipient, outcome, by.clone()));
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
        let time = Time::of((self.accepted, self.attempts), route, now, jitter);
        let held = Held::by(&self.blocks);
        let is_pinned = self.pinned.is_some();
        let is_for_nobody = held.is_nothing() && self.doubtful.is_none();
        let mut turn = NextTurn {
            wait: time.step.max(held.wait),
            is_answered: false,
            is_untouched: !self.open.is_empty()
                && (is_for_nobody || self.open.iter().all(|(_, unsuited)| unsuited.is_none())),
            is_smaller: false,
        };
        let mut decision = Decision {
            recipients: Vec::with_capacity(self.answered.len() + self.open.len()),
            attempted: self.attempted,
            next: now,
            lane: None,
            apart: Vec::new(),
            in_doubt: None,
            failures: Vec::new(),
            receipts: Vec::new(),
        };
        // Halves of halves: what is refused as a set is alone after a few calls, and the others have got it once.
        let is_apart = |(_, outcome, _): &&(_, Outcome, _)| matches!(outcome, Outcome::Apart(_));
        let is_set = self.answered.iter().filter(is_apart).count() > 1;
        for (recipient, outcome, connector) in &self.answered {
            let verdict = answered(outcome, is_set, is_pinned, &time);
            match verdict {
                Verdict::Later(asked) => {
                    turn.is_answered = true;
                    turn.wait = turn.wait.max(asked);
                }
                Verdict::Doubt => {
                    let at = earlier(now + time.step.max(in_doubt_wait), time.end);
                    decision.in_doubt = Some((connector.clone(), at));
                }
                Verdict::Done | Verdict::Smaller | Verdict::Failed { .. } => {}
            }
            decision.add(recipient, outcome.clone(), verdict);
        }
        for (recipient, unsuited) in &self.open {
            let unsuited = unsuited.as_ref();
            if let Some((outcome, verdict)) =
                unanswered(unsuited, is_for_nobody, &held, is_pinned, &time)
            {
                decision.add(recipient, outcome, verdict);
            }
        }
        let half = decision.apart.len() / 2;
        decision.apart = decision.apart.split_off(half);
        turn.is_smaller = !decision.apart.is_empty();
        (decision.next, decision.lane) = self.turn(&turn, &held, &time);
        decision.receipts = self.receipts;
        decision
    }

    /// When what waits is due again, and the lane whose turn it waits for.
    fn turn(&self, turn: &NextTurn, held: &Held<'_>, time: &Time) -> (SystemTime, Option<LaneId>) {
        let Time { now, end, .. } = *time;
        let by_end = |wait| earlier(now + wait, end.max(now));
        let next = if turn.is_smaller && !turn.is_answered {
            now
        } else if turn.is_answered || !turn.is_untouched {
            by_end(turn.wait)
        } else if held.by_sender && (self.refused || self.lane.is_none() || held.is_by_time) {
            by_end(PAUSE_PROBE)
        } else if self.intercepted {
            // Behind the others, and soon: nobody has deferred it.
            by_end(time.step.min(INTERCEPTED))
        } else if let Some(wait) = held.crowded {
            now + wait
        } else {
            // The lane holds it, not the time: when it opens, the oldest is first.
            self.accepted
        };
        // A login opens a paused connector, and does not show whether it was this message alone that was refused. Were it the oldest
        // again, it would keep the connector shut to all others: it goes behind them.
        if let Some(connector) = &self.stopped
            && next == self.accepted
            && !held.is_by_time
        {
            return (now + PAUSE_PROBE, Some(LaneId::of(connector)));
        }
        // Who was refused waits longer than the others, so that the next probe is another message.
        let is_last_in_lane =
            !held.is_by_time && self.refused && turn.is_untouched && now + PAUSE_PROBE < end;
        let lane = self.lane.clone();
        let lane = lane.filter(|_| next == self.accepted || is_last_in_lane);
        // Kept by a pause beyond its end: not in a circle.
        let is_in_circle = time.is_over && next != self.accepted && !turn.is_smaller;
        let next = if is_in_circle { now + turn.wait } else { next };
        (next, lane)
    }
}

impl Decision {
    fn add(&mut self, recipient: &Recipient, outcome: Outcome, verdict: Verdict) {
        let settled = match verdict {
            Verdict::Done => Settled::Done(outcome),
            Verdict::Later(_) => Settled::Waiting(outcome),
            Verdict::Smaller => {
                self.apart.push(recipient.address.clone());
                Settled::Waiting(outcome)
            }
            Verdict::Doubt => Settled::InDoubt(outcome),
            Verdict::Failed {
                gave_up,
                in_doubt,
                bounce,
            } => {
                self.failures.push(Failure {
                    recipient: recipient.clone(),
                    reply: outcome.reply().clone(),
                    gave_up,
                    in_doubt,
                    bounce,
                });
                Settled::Failed(outcome)
            }
        };
        self.recipients.push((recipient.address.clone(), settled));
    }
}

fn earlier(a: SystemTime, b: SystemTime) -> SystemTime {
    a.min(b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        delivery::verdict::step,
        fixture,
        mail::{
            message::{Body, Envelope, Message, MessageId},
            outcome::Onward,
        },
        queue::store::{JobId, Lease},
        route::RouteName,
    };

    const MINUTE: Duration = Duration::from_mins(1);
    const GIVE_UP: Duration = Duration::from_hours(1);
    const IN_DOUBT_WAIT: Duration = Duration::from_mins(5);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn address(local: &str) -> Address {
        Address::parse(&format!("{local}@x.example")).unwrap()
    }

    fn job(recipients: &[&str], pinned: Option<&str>, attempts: u32) -> Job {
        let recipients: Vec<Recipient> = recipients.iter().map(|r| address(r).into()).collect();
        Job {
            id: JobId(1),
            lease: Lease::default(),
            message: Arc::new(Message {
                id: MessageId::new(start(), 1),
                envelope: Envelope {
                    sender: Some(address("sender")),
                    recipients: recipients.clone(),
                    eight_bit: false,
                    dsn: None,
                },
                origin: fixture::origin(start()),
                header: Bytes::new(),
                body: Body::Memory(Bytes::new()),
            }),
            route: RouteName::from("r"),
            recipients,
            pinned: pinned.map(ConnectorName::from),
            lane: None,
            attempts,
            accepted: start(),
        }
    }

    fn route() -> Route {
        Route {
            retry: vec![MINUTE, MINUTE * 5],
            give_up: GIVE_UP,
            ..fixture::route("r", &["a", "b"])
        }
    }

    fn reply(code: u16) -> Reply {
        Reply::plain(code, "said")
    }

    fn deferred() -> Outcome {
        Outcome::Deferred {
            reply: reply(450),
            retry_after: None,
        }
    }

    fn tried(outcomes: &[(&str, Outcome)]) -> Report {
        Report::Tried {
            outcomes: outcomes
                .iter()
                .map(|(r, o)| (address(r), o.clone()))
                .collect(),
            via: String::new(),
            pause: None,
            onward: Onward::Relayed,
        }
    }

    fn down() -> Report {
        Report::NotTried(Obstacle::new(ObstacleKind::Down, reply(421)))
    }

    /// What became of the recipients, whether it counts, seconds until the next try (`None`: when the lane opens),
    /// pin and seconds, and who is told.
    #[derive(Debug, PartialEq)]
    struct Sum {
        states: Vec<(String, char)>,
        attempted: bool,
        next: Option<u64>,
        pin: Option<(String, u64)>,
        told: Vec<(String, bool)>,
    }

    fn sum(decision: &Decision, now: SystemTime) -> Sum {
        Sum {
            states: decision
                .recipients
                .iter()
                .map(|(r, settled)| {
                    let state = match settled {
                        Settled::Done(_) => 'd',
                        Settled::Failed(_) => 'f',
                        Settled::Waiting(_) => 'w',
                        Settled::InDoubt(_) => '?',
                    };
                    (r.local().to_owned(), state)
                })
                .collect(),
            attempted: decision.attempted,
            next: decision.next.duration_since(now).ok().map(|d| d.as_secs()),
            pin: decision
                .in_doubt
                .as_ref()
                .map(|(c, at)| (c.to_string(), at.duration_since(now).unwrap().as_secs())),
            told: decision
                .failures
                .iter()
                .filter(|f| f.bounce)
                .map(|f| (f.recipient.address.local().to_owned(), f.in_doubt))
                .collect(),
        }
    }

    /// The job (recipients, pin, attempts) meets these reports by connectors a, b, … so long after acceptance.
    fn check(
        what: &str,
        (recipients, pin, attempts): (&[&str], Option<&str>, u32),
        reports: &[Report],
        after: Duration,
        expected: &Sum,
    ) {
        let now = start() + after;
        let mut attempt = Attempt::new(&job(recipients, pin, attempts));
        for (name, report) in ["a", "b", "c"].iter().zip(reports) {
            assert!(!attempt.open().is_empty(), "{what}: {name} is called");
            let _ = attempt.take(&ConnectorName::from(*name), report.clone());
        }
        let decision = attempt.finish(&route(), IN_DOUBT_WAIT, now, 0.5);
        assert_eq!(&sum(&decision, now), expected, "{what}");
    }

    fn expect(
        states: &[(&str, char)],
        attempted: bool,
        next: Option<u64>,
        pin: Option<(&str, u64)>,
        told: &[(&str, bool)],
    ) -> Sum {
        Sum {
            states: states.iter().map(|(r, s)| ((*r).to_owned(), *s)).collect(),
            attempted,
            next,
            pin: pin.map(|(c, s)| (c.to_owned(), s)),
            told: told.iter().map(|(r, d)| ((*r).to_owned(), *d)).collect(),
        }
    }

    /// Who was refused waits longer than the others of its lane, which are held by it and by no time.
    #[test]
    fn a_probe_is_another_message_than_the_refused_one() {
        let lane = Some(LaneId::parse("a/m@x"));
        let now = start() + Duration::from_secs(1);
        let finish = |report: Option<Report>| {
            let mut attempt = Attempt::new(&job(&["x"], None, 0));
            match report {
                Some(report) => {
                    let _ = attempt.take(&"a".into(), report);
                }
                None => attempt.skip(Block::Obstacle(Obstacle::new(
                    ObstacleKind::MailboxRefused,
                    reply(550),
                ))),
            }
            attempt.queue_up_in_refused(lane.clone());
            let route = Route {
                retry: vec![MINUTE * 60],
                give_up: GIVE_UP * 9,
                ..route()
            };
            attempt.finish(&route, IN_DOUBT_WAIT, now, 0.5)
        };
        for report in [
            Report::NotTried(Obstacle::new(ObstacleKind::MailboxRefused, reply(550))),
            Report::NotTried(Obstacle::new(ObstacleKind::FromRefused, reply(550))),
        ] {
            let refused = finish(Some(report));
            assert_eq!((refused.next, &refused.lane), (now + PAUSE_PROBE, &lane));
            assert!(!refused.attempted && refused.failures.is_empty());
        }
        let held = finish(None);
        assert_eq!((held.next, &held.lane), (start(), &lane));
        let other = finish(Some(Report::NotTried(Obstacle::new(
            ObstacleKind::Intercepted,
            reply(451),
        ))));
        assert_eq!(other.next, now + MINUTE, "later than what is held");
    }

    /// Whatever paused a connector goes behind what waits there: a login that works says nothing of the message, and were it the
    /// oldest again, it would pause the connector again before anybody else had a turn.
    #[test]
    fn who_paused_a_connector_is_not_the_first_when_it_opens() {
        for after in [Duration::from_secs(1), GIVE_UP * 2] {
            let now = start() + after;
            let finish = |reports: &[Report]| {
                let mut attempt = Attempt::new(&job(&["x"], None, 0));
                for (name, report) in ["a", "b"].iter().zip(reports) {
                    let _ = attempt.take(&ConnectorName::from(*name), report.clone());
                }
                if reports.is_empty() {
                    attempt.skip(Block::Stopping);
                }
                attempt.finish(&route(), IN_DOUBT_WAIT, now, 0.5)
            };
            let paused =
                || Report::NotTried(Obstacle::new(ObstacleKind::Misconfigured, reply(554)));
            for reports in [&[paused()][..], &[down(), paused()], &[paused(), down()]] {
                let stopped = finish(reports);
                assert_eq!(
                    (stopped.next, stopped.attempted),
                    (now + PAUSE_PROBE, false)
                );
                assert!(stopped.lane.is_some(), "it waits for that connector");
                assert!(stopped.failures.is_empty());
            }
            assert_eq!(finish(&[]).next, start(), "what only waits is before it");
            let busy = Report::NotTried(
                Obstacle::new(ObstacleKind::Throttled, reply(451)).after(Some(MINUTE)),
            );
            let other = finish(&[paused(), busy]);
            assert_eq!(other.lane, None, "it is the turn of the other connector");
        }
    }

    /// One impossible recipient among many: halves of halves, few calls, every other recipient once.
    #[test]
    fn a_refused_set_becomes_smaller_until_the_bad_one_is_alone() {
        for (count, bad) in [(2, 0), (5, 2), (100, 0), (100, 99), (500, 250)] {
            let names: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
            let mut sets: Vec<Vec<&str>> = vec![names.iter().map(String::as_str).collect()];
            let (mut calls, mut reached, mut failed) = (0, Vec::new(), Vec::new());
            while let Some(set) = sets.pop() {
                calls += 1;
                let outcome = match (set.contains(&names[bad].as_str()), set.len()) {
                    (false, _) => Outcome::Delivered(reply(250)),
                    (true, 1) => Outcome::Failed(reply(554)),
                    (true, _) => Outcome::Apart(reply(451)),
                };
                let outcomes: Vec<(&str, Outcome)> =
                    set.iter().map(|r| (*r, outcome.clone())).collect();
                let mut attempt = Attempt::new(&job(&set, None, 0));
                let _ = attempt.take(&"a".into(), tried(&outcomes));
                // Also past its end: the good ones are not given up for the bad one.
                let now = start() + GIVE_UP * 2;
                let decision = attempt.finish(&route(), IN_DOUBT_WAIT, now, 0.5);
                let mut apart = Vec::new();
                let mut rest = Vec::new();
                for (recipient, settled) in &decision.recipients {
                    let name = *set.iter().find(|r| **r == recipient.local()).unwrap();
                    match settled {
                        Settled::Done(_) => reached.push(name),
                        Settled::Failed(_) => failed.push(name),
                        _ if decision.apart.contains(recipient) => apart.push(name),
                        _ => rest.push(name),
                    }
                }
                if !apart.is_empty() {
                    assert_eq!((decision.next, decision.attempted), (now, false));
                }
                sets.extend([rest, apart].into_iter().filter(|set| !set.is_empty()));
            }
            assert_eq!(failed, [names[bad].as_str()]);
            reached.sort_unstable();
            reached.dedup();
            assert_eq!(reached.len(), count - 1, "each of the others");
            let most = 1 + 2 * (usize::BITS - (count - 1).leading_zeros());
            assert!(calls <= most, "{calls} calls for {count}");
        }
    }

    #[test]
    fn every_row_of_the_table() {
        use Outcome::{Delivered, Failed, InDoubt, Unsuited};
        let second = Duration::from_secs(1);
        let one: &[&str] = &["x"];
        let fresh = (one, None, 0);
        check(
            "delivered",
            fresh,
            &[tried(&[("x", Delivered(reply(250)))])],
            second,
            &expect(&[("x", 'd')], true, Some(60), None, &[]),
        );
        check(
            "deferred, first step",
            fresh,
            &[tried(&[("x", deferred())])],
            second,
            &expect(&[("x", 'w')], true, Some(60), None, &[]),
        );
        check(
            "deferred, the last step repeats",
            (one, None, 9),
            &[tried(&[("x", deferred())])],
            second,
            &expect(&[("x", 'w')], true, Some(300), None, &[]),
        );
        let asked = Outcome::Deferred {
            reply: reply(429),
            retry_after: Some(MINUTE * 2),
        };
        check(
            "Retry-After is later",
            fresh,
            &[tried(&[("x", asked)])],
            second,
            &expect(&[("x", 'w')], true, Some(120), None, &[]),
        );
        check(
            "deferred, one last time at the end",
            (one, None, 9),
            &[tried(&[("x", deferred())])],
            MINUTE * 59,
            &expect(&[("x", 'w')], true, Some(60), None, &[]),
        );
        check(
            "deferred, given up",
            (one, None, 9),
            &[tried(&[("x", deferred())])],
            GIVE_UP,
            &expect(&[("x", 'f')], true, Some(300), None, &[("x", false)]),
        );
        check(
            "deferred, after a pause that ate the time: not before its first steps",
            (one, None, 1),
            &[tried(&[("x", deferred())])],
            GIVE_UP * 50,
            &expect(&[("x", 'w')], true, Some(300), None, &[]),
        );
        check(
            "and then given up",
            (one, None, 2),
            &[tried(&[("x", deferred())])],
            GIVE_UP * 50,
            &expect(&[("x", 'f')], true, Some(300), None, &[("x", false)]),
        );
        check(
            "failed",
            fresh,
            &[tried(&[("x", Failed(reply(550)))])],
            second,
            &expect(&[("x", 'f')], true, Some(60), None, &[("x", false)]),
        );
        check(
            "in doubt: the later of step and wait",
            fresh,
            &[tried(&[("x", InDoubt(reply(451)))])],
            second,
            &expect(&[("x", '?')], true, Some(60), Some(("a", 300)), &[]),
        );
        check(
            "in doubt, given up",
            (one, Some("a"), 3),
            &[tried(&[("x", InDoubt(reply(451)))])],
            GIVE_UP,
            &expect(&[("x", 'f')], true, Some(300), None, &[("x", true)]),
        );
        check(
            "pinned, then refused: it may still have arrived",
            (one, Some("a"), 3),
            &[tried(&[("x", Failed(reply(550)))])],
            second,
            &expect(&[("x", 'f')], true, Some(300), None, &[("x", true)]),
        );
        check(
            "down twice: waits for the lane",
            fresh,
            &[down(), down()],
            second,
            &expect(&[("x", 'w')], false, None, None, &[]),
        );
        check(
            "down, given up",
            fresh,
            &[down(), down()],
            GIVE_UP,
            &expect(&[("x", 'f')], false, None, None, &[("x", false)]),
        );
        check(
            "down, then the next takes it",
            fresh,
            &[down(), tried(&[("x", Delivered(reply(250)))])],
            second,
            &expect(&[("x", 'd')], true, Some(60), None, &[]),
        );
        check(
            "down, then deferred by the next",
            fresh,
            &[down(), tried(&[("x", deferred())])],
            second,
            &expect(&[("x", 'w')], true, Some(60), None, &[]),
        );
        check(
            "misconfigured: never given up",
            fresh,
            &[
                down(),
                Report::NotTried(Obstacle::new(ObstacleKind::Misconfigured, reply(535))),
            ],
            GIVE_UP * 100,
            &expect(&[("x", 'w')], false, Some(300), None, &[]),
        );
        let throttled = Report::NotTried(
            Obstacle::new(ObstacleKind::Throttled, reply(451)).after(Some(MINUTE * 7)),
        );
        check(
            "throttled: waits for the lane, and it counts for nothing",
            fresh,
            std::slice::from_ref(&throttled),
            second,
            &expect(&[("x", 'w')], false, None, None, &[]),
        );
        check(
            "unsuited to one, throttled by the next: at the wish",
            fresh,
            &[tried(&[("x", Unsuited(reply(552)))]), throttled.clone()],
            second,
            &expect(&[("x", 'w')], true, Some(420), None, &[]),
        );
        check(
            "throttled until the end",
            fresh,
            &[throttled],
            GIVE_UP,
            &expect(&[("x", 'f')], false, None, None, &[("x", false)]),
        );
        check(
            "mailbox refused: later",
            fresh,
            &[Report::NotTried(Obstacle::new(
                ObstacleKind::MailboxRefused,
                reply(554),
            ))],
            second,
            &expect(&[("x", 'w')], false, Some(300), None, &[]),
        );
        check(
            "mailbox refused, given up: nobody is told",
            fresh,
            &[Report::NotTried(Obstacle::new(
                ObstacleKind::MailboxRefused,
                reply(554),
            ))],
            GIVE_UP,
            &expect(&[("x", 'f')], false, Some(60), None, &[]),
        );
        check(
            "unsuited to all",
            fresh,
            &[
                tried(&[("x", Unsuited(reply(552)))]),
                tried(&[("x", Unsuited(reply(552)))]),
            ],
            second,
            &expect(&[("x", 'f')], true, None, None, &[("x", false)]),
        );
        check(
            "unsuited to one, the other is down: a step",
            fresh,
            &[tried(&[("x", Unsuited(reply(552)))]), down()],
            second,
            &expect(&[("x", 'w')], true, Some(60), None, &[]),
        );
    }

    #[test]
    fn recipients_go_their_own_ways() {
        use Outcome::{Delivered, Failed, InDoubt, Unsuited};
        check(
            "one of each",
            (&["a", "b", "c", "d"], None, 0),
            &[tried(&[
                ("a", Delivered(reply(250))),
                ("b", deferred()),
                ("c", Failed(reply(550))),
                ("d", InDoubt(reply(451))),
            ])],
            MINUTE,
            &expect(
                &[("a", 'd'), ("b", 'w'), ("c", 'f'), ("d", '?')],
                true,
                Some(60),
                Some(("a", 300)),
                &[("c", false)],
            ),
        );
        check(
            "what is unsuited goes on alone",
            (&["a", "b"], None, 0),
            &[
                tried(&[("a", Delivered(reply(250))), ("b", Unsuited(reply(552)))]),
                tried(&[("b", Delivered(reply(250)))]),
            ],
            MINUTE,
            &expect(&[("a", 'd'), ("b", 'd')], true, Some(60), None, &[]),
        );
        check(
            "no second connector while one is in doubt",
            (&["a", "b"], None, 0),
            &[tried(&[
                ("a", InDoubt(reply(451))),
                ("b", Unsuited(reply(552))),
            ])],
            MINUTE,
            &expect(
                &[("a", '?'), ("b", 'w')],
                true,
                Some(60),
                Some(("a", 300)),
                &[],
            ),
        );
        check(
            "a recipient that the connector forgot is in doubt",
            (&["a", "b"], None, 0),
            &[tried(&[("a", Delivered(reply(250)))])],
            MINUTE,
            &expect(
                &[("a", 'd'), ("b", '?')],
                true,
                Some(60),
                Some(("a", 300)),
                &[],
            ),
        );
    }

    #[test]
    fn what_waits_for_its_turn_keeps_its_place_and_is_not_given_up() {
        // After so long, with these blocks and this lane: the seconds until it is tried again (`None`: when the lane has
        // room), and the lane that it queues up in.
        fn check(
            after: Duration,
            blocks: &[Block],
            lane: Option<&str>,
            expected: (Option<u64>, Option<&str>),
        ) {
            let now = start() + after;
            let mut attempt = Attempt::new(&job(&["x"], None, 0));
            for block in blocks {
                attempt.skip(block.clone());
            }
            attempt.queue_up(lane.map(LaneId::parse));
            let decision = attempt.finish(&route(), IN_DOUBT_WAIT, now, 0.5);
            let next = decision.next.duration_since(now).ok();
            assert_eq!(
                (
                    next.map(|d| d.as_secs()),
                    decision.lane.as_ref().map(ToString::to_string).as_deref()
                ),
                expected,
                "{blocks:?}"
            );
            assert!(!decision.attempted && decision.failures.is_empty());
            assert_eq!(decision.in_doubt, None);
        }
        let (second, lane) = (Duration::from_secs(1), Some("a/m@x.example"));
        let turn = |seconds| Block::Turn(Duration::from_secs(seconds));
        check(second, &[turn(9)], lane, (None, lane));
        check(GIVE_UP * 9, &[turn(9)], lane, (None, lane));
        check(second, &[Block::Shut, turn(9)], lane, (None, lane));
        // The lane of the second connector would not keep it from the first, which refuses it now.
        check(
            second,
            &[
                Block::Obstacle(Obstacle::new(ObstacleKind::MailboxRefused, reply(550))),
                turn(9),
            ],
            lane,
            (Some(300), None),
        );
        check(second, &[turn(9)], None, (None, None));
        let crowded = Block::Crowded(Duration::from_secs(5));
        check(
            second,
            std::slice::from_ref(&crowded),
            None,
            (Some(5), None),
        );
        check(second, &[crowded], lane, (Some(5), None));
        check(second, &[Block::Shut], lane, (None, lane));
    }

    #[test]
    fn never_past_give_up_and_every_recipient_once() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..fixture::times(20_000) {
            let names = ["a", "b", "c", "d"];
            let names = &names[..random.usize(1..=4)];
            let mut attempt = Attempt::new(&job(names, None, random.u32(0..10)));
            let mut done = Vec::new();
            for connector in ["a", "b", "c"] {
                let open = attempt.open();
                if open.is_empty() || random.u8(0..4) == 0 {
                    break;
                }
                assert!(
                    open.iter().all(|r| !done.contains(&r.address)),
                    "sent again in one attempt"
                );
                let report = match random.u8(0..9) {
                    0 => down(),
                    8 => Report::NotTried(Obstacle::new(ObstacleKind::Throttled, reply(451))),
                    1 => Report::NotTried(Obstacle::new(ObstacleKind::MailboxRefused, reply(554))),
                    _ => Report::Tried {
                        outcomes: open
                            .iter()
                            .map(|r| {
                                let outcome = match random.u8(0..5) {
                                    0 => Outcome::Delivered(reply(250)),
                                    1 => Outcome::Failed(reply(550)),
                                    2 => Outcome::InDoubt(reply(451)),
                                    3 => Outcome::Unsuited(reply(552)),
                                    _ => deferred(),
                                };
                                if matches!(outcome, Outcome::Delivered(_) | Outcome::InDoubt(_)) {
                                    done.push(r.address.clone());
                                }
                                (r.address.clone(), outcome)
                            })
                            .collect(),
                        via: String::new(),
                        onward: Onward::Relayed,
                        pause: None,
                    },
                };
                let _ = attempt.take(&connector.into(), report);
            }
            let end = start() + GIVE_UP;
            let now = start() + GIVE_UP.mul_f64(random.f64() * 1.2);
            let decision = attempt.finish(&route(), IN_DOUBT_WAIT, now, random.f64());
            let waits = decision
                .recipients
                .iter()
                .any(|(_, s)| matches!(s, Settled::Waiting(_)));
            let doubts = decision
                .recipients
                .iter()
                .any(|(_, s)| matches!(s, Settled::InDoubt(_)));
            assert_eq!(doubts, decision.in_doubt.is_some());
            if now < end {
                assert!(decision.next <= end);
                assert!(decision.in_doubt.as_ref().is_none_or(|(_, at)| *at <= end));
            } else {
                assert!(!doubts);
                assert!(!waits || decision.failures.is_empty() || decision.next > now);
            }
            let mut seen = std::collections::HashSet::new();
            assert!(
                decision
                    .recipients
                    .iter()
                    .all(|(r, _)| seen.insert(r.clone()))
            );
            for failure in &decision.failures {
                assert!(
                    decision
                        .recipients
                        .iter()
                        .any(|(r, s)| failure.recipient == *r && matches!(s, Settled::Failed(_)))
                );
            }
        }
    }

    #[test]
    fn steps() {
        let retry = [MINUTE, MINUTE * 5];
        for (number, jitter, seconds) in [
            (0, 0.0, 48),
            (0, 1.0, 72),
            (0, 0.5, 60),
            (1, 0.5, 300),
            (7, 0.0, 240),
        ] {
            assert_eq!(
                step(&retry, number, jitter).as_secs_f64().round() as u64,
                seconds
            );
        }
        assert_eq!(step(&[], 0, 0.5), MINUTE);
    }
}
