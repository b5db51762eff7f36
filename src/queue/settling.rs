//! What a settlement makes of a job: pure, and the same for every store, which only reads what stands before and writes what
//! stands after.

use std::{collections::HashMap, time::SystemTime};

use super::store::{Event, EventKind, RecipientState, Settled, Settlement};
use crate::{
    mail::{address::Address, text::bounded},
    route::{ConnectorName, LaneId},
};

/// A job as the store has it when its settlement comes.
#[derive(Debug)]
pub struct Before {
    /// In doubt: only this connector may try again.
    pub pinned: Option<ConnectorName>,
    /// Attempts until then.
    pub attempts: u32,
    /// Its recipients in wire form, in any order that the store can find them by.
    pub recipients: Vec<(String, RecipientState)>,
}

/// What is to be written.
#[derive(Debug)]
pub struct After<'a> {
    /// The recipients of which something new is known.
    pub changes: Vec<RecipientChange<'a>>,
    /// Attempts from now on.
    pub attempts: u32,
    /// What the job is now; `None`: it is done.
    pub job: Option<OpenJob>,
    /// Jobs of their own for some of its recipients, all of them waiting.
    pub splits: Vec<Split>,
    /// Recipients that were settled and are not the job's: somebody's mistake.
    pub strangers: Vec<&'a Address>,
}

/// What is new of one recipient.
#[derive(Debug)]
pub struct RecipientChange<'a> {
    /// Its place in [`Before::recipients`].
    pub at: usize,
    /// What became of it.
    pub state: RecipientState,
    /// What the upstream said, as one line, as much of it as anyone will read.
    pub reply: String,
    /// The line that says how it was served, when it was.
    pub delivery: Option<&'a Event>,
}

/// A job that is not done.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenJob {
    /// Nobody waits any more, and somebody was given up.
    pub is_failed: bool,
    /// As in [`Before`].
    pub pinned: Option<ConnectorName>,
    /// The lane in which it waits for its turn.
    pub lane: Option<LaneId>,
    /// When it is due.
    pub due: SystemTime,
}

/// Recipients that leave the job for one of their own.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    /// Their places in [`Before::recipients`].
    pub recipients: Vec<usize>,
    /// As in [`Before`].
    pub pinned: Option<ConnectorName>,
    /// When it is due.
    pub due: SystemTime,
}

/// Draws the sum. Written twice (a commit may fail and be on disk all the same) it changes nothing the second time: what was
/// delivered, given up or dropped stays so.
pub fn apply<'a>(before: &Before, settlement: &'a Settlement) -> After<'a> {
    let places: HashMap<&str, usize> = before
        .recipients
        .iter()
        .enumerate()
        .map(|(at, (address, _))| (address.as_str(), at))
        .collect();
    let mut states: Vec<RecipientState> = before.recipients.iter().map(|r| r.1).collect();
    let deliveries = Deliveries::of_settlement(settlement);
    let (mut changes, mut strangers, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
    for (address, settled) in &settlement.recipients {
        let found = places.get(address.to_string().as_str()).copied();
        let Some((at, state)) = found.and_then(|at| Some((at, states.get_mut(at)?))) else {
            strangers.push(address);
            continue;
        };
        if !state.is_open() {
            continue;
        }
        let (new, outcome) = match settled {
            Settled::Done(outcome) => (RecipientState::Done, outcome),
            Settled::Failed(outcome) => (RecipientState::Failed, outcome),
            // A pinned job stays pinned: what was in doubt may still have arrived.
            Settled::Waiting(outcome) if before.pinned.is_some() => (*state, outcome),
            Settled::Waiting(outcome) => (RecipientState::Waiting, outcome),
            Settled::InDoubt(outcome) => {
                doubtful.push(at);
                (RecipientState::InDoubt, outcome)
            }
        };
        *state = new;
        changes.push(RecipientChange {
            at,
            state: new,
            reply: bounded(&outcome.reply().to_string()).to_owned(),
            delivery: (new == RecipientState::Done)
                .then(|| deliveries.of(address))
                .flatten(),
        });
    }
    let (job, splits) = courses(before, settlement, (&places, &states), doubtful);
    After {
        changes,
        attempts: before
            .attempts
            .saturating_add(u32::from(settlement.attempted)),
        job,
        splits,
        strangers,
    }
}

/// Leaves of a settlement what holds though somebody else has taken over the job meanwhile: what was delivered stays delivered. What was
/// to follow is the others' to decide.
pub fn leave_deliveries(settlement: &mut Settlement) {
    let is_done = |settled: &Settled| matches!(settled, Settled::Done(_));
    settlement
        .recipients
        .retain(|(_, settled)| is_done(settled));
    settlement
        .events
        .retain(|event| event.kind == EventKind::Delivered);
    settlement.attempted = false;
    settlement.in_doubt = None;
    settlement.apart.clear();
    settlement.bounces.clear();
}

/// The line in the life of a message whose gateway ended, by its own word at its next start.
pub fn interrupted(at: SystemTime) -> Event {
    Event {
        at,
        kind: EventKind::Interrupted,
        recipients: Vec::new(),
        text: "the gateway ended while it was being sent: it may arrive twice".to_owned(),
    }
}

/// The same, of one that fell silent; or of one that nobody knows any more.
pub fn taken_over(name: Option<&str>, at: SystemTime) -> Event {
    let text = match name {
        Some(name) => format!("{name} went silent while it sent this; it may arrive twice"),
        None => "a gateway that is not known any more was sending this; it may arrive twice".into(),
    };
    Event {
        at,
        kind: EventKind::InDoubt,
        recipients: Vec::new(),
        text,
    }
}

/// The same, where that gateway had delivered it when another had begun to.
pub fn sent_twice(at: SystemTime, recipients: Vec<String>) -> Event {
    Event {
        at,
        kind: EventKind::InDoubt,
        recipients,
        text: "delivered by a gateway that had been taken over: it may have been sent twice"
            .to_owned(),
    }
}

/// What becomes of the job, and of those of its recipients who go another way.
fn courses(
    before: &Before,
    settlement: &Settlement,
    (places, states): (&HashMap<&str, usize>, &[RecipientState]),
    doubtful: Vec<usize>,
) -> (Option<OpenJob>, Vec<Split>) {
    let mut open = states.iter().filter(|state| state.is_open()).count();
    let mut job = OpenJob {
        is_failed: open == 0,
        pinned: before.pinned.clone(),
        lane: settlement.lane.clone(),
        due: settlement.next,
    };
    let mut apart: Vec<usize> = settlement
        .apart
        .iter()
        .filter_map(|address| places.get(address.to_string().as_str()).copied())
        .filter(|at| states.get(*at).is_some_and(|state| state.is_open()) && !doubtful.contains(at))
        .collect();
    apart.sort_unstable();
    let mut splits = Vec::new();
    if let Some((connector, at)) = &settlement.in_doubt
        && !doubtful.is_empty()
    {
        if doubtful.len() == open {
            (job.pinned, job.lane, job.due) = (Some(connector.clone()), None, *at);
        } else if job.pinned.as_ref() == Some(connector) {
            job.due = job.due.max(*at);
        } else {
            open -= doubtful.len();
            splits.push(Split {
                recipients: doubtful,
                pinned: Some(connector.clone()),
                due: *at,
            });
        }
    }
    if !apart.is_empty() && apart.len() < open {
        splits.push(Split {
            recipients: apart,
            pinned: job.pinned.clone(),
            due: job.due,
        });
    }
    let is_done = open == 0 && !states.contains(&RecipientState::Failed);
    ((!is_done).then_some(job), splits)
}

/// The lines that say how the recipients were served.
enum Deliveries<'a> {
    /// All by one.
    One(&'a Event),
    /// By their addresses.
    Each(HashMap<&'a str, &'a Event>),
}

impl<'a> Deliveries<'a> {
    fn of_settlement(settlement: &'a Settlement) -> Self {
        let mut lines = settlement
            .events
            .iter()
            .filter(|e| e.kind == EventKind::Delivered);
        match (lines.next(), lines.next()) {
            (Some(one), None) if one.recipients.len() == settlement.recipients.len() => {
                Self::One(one)
            }
            _ => Self::Each(
                settlement
                    .events
                    .iter()
                    .filter(|e| e.kind == EventKind::Delivered)
                    .flat_map(|e| e.recipients.iter().map(move |r| (r.as_str(), e)))
                    .collect(),
            ),
        }
    }

    fn of(&self, recipient: &Address) -> Option<&'a Event> {
        match self {
            Self::One(event) => Some(event),
            Self::Each(events) => events.get(recipient.to_string().as_str()).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use RecipientState::{Done, Dropped, Failed, InDoubt, Waiting};

    use super::*;
    use crate::{
        mail::{message::MessageId, outcome::Outcome, reply::Reply},
        queue::store::{JobId, Lease},
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn settled(word: &str) -> Settled {
        let reply = Reply::new(250, (2, 0, 0), "said");
        match word {
            "done" => Settled::Done(Outcome::Delivered(reply)),
            "failed" => Settled::Failed(Outcome::Failed(reply)),
            "doubt" => Settled::InDoubt(Outcome::InDoubt(reply)),
            _ => Settled::Waiting(Outcome::Deferred {
                reply,
                retry_after: None,
            }),
        }
    }

    fn settlement(recipients: &[(&str, &str)]) -> Settlement {
        let address = |name: &str| Address::parse(&format!("{name}@x.example")).unwrap();
        Settlement {
            job: JobId(1),
            lease: Lease::default(),
            message: MessageId::new(at(0), 1),
            recipients: recipients
                .iter()
                .map(|(name, word)| (address(name), settled(word)))
                .collect(),
            attempted: true,
            next: at(60),
            lane: Some(LaneId::parse("up/m")),
            apart: Vec::new(),
            in_doubt: recipients
                .iter()
                .any(|(_, word)| *word == "doubt")
                .then(|| ("up".into(), at(300))),
            bounces: Vec::new(),
            receipts: Vec::new(),
            events: Vec::new(),
        }
    }

    fn before(pinned: Option<&str>, recipients: &[(&str, RecipientState)]) -> Before {
        Before {
            pinned: pinned.map(ConnectorName::from),
            attempts: 3,
            recipients: recipients
                .iter()
                .map(|(name, state)| (format!("{name}@x.example"), *state))
                .collect(),
        }
    }

    /// What the job is, and what left it: pin, lane, due.
    fn words(after: &After<'_>) -> String {
        let due = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let pin =
            |pin: &Option<ConnectorName>| pin.as_ref().map_or("-".into(), ToString::to_string);
        let mut all = vec![match &after.job {
            None => "done".to_owned(),
            Some(job) if job.is_failed => "failed".to_owned(),
            Some(job) => {
                let lane = job
                    .lane
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string);
                format!("{} {lane} {}", pin(&job.pinned), due(job.due))
            }
        }];
        all.extend(after.splits.iter().map(|split| {
            format!(
                "{:?} {} {}",
                split.recipients,
                pin(&split.pinned),
                due(split.due)
            )
        }));
        all.join(" | ")
    }

    #[test]
    fn what_becomes_of_a_job() {
        type Row<'a> = (
            Option<&'a str>,
            &'a [(&'a str, RecipientState)],
            &'a [(&'a str, &'a str)],
            &'a str,
        );
        let two = &[("a", Waiting), ("b", Waiting)][..];
        let rows: &[Row<'_>] = &[
            (None, two, &[("a", "done"), ("b", "done")], "done"),
            (None, two, &[("a", "done"), ("b", "failed")], "failed"),
            (None, two, &[("a", "done"), ("b", "later")], "- up/m 60"),
            (None, two, &[], "- up/m 60"),
            (None, two, &[("a", "failed"), ("b", "later")], "- up/m 60"),
            (None, two, &[("a", "done"), ("b", "doubt")], "up - 300"),
            (
                None,
                two,
                &[("a", "later"), ("b", "doubt")],
                "- up/m 60 | [1] up 300",
            ),
            (
                Some("up"),
                two,
                &[("a", "later"), ("b", "doubt")],
                "up up/m 300",
            ),
            (
                Some("other"),
                two,
                &[("a", "later"), ("b", "doubt")],
                "other up/m 60 | [1] up 300",
            ),
            // Written before.
            (
                None,
                &[("a", Done), ("b", Done)],
                &[("a", "later"), ("b", "failed")],
                "done",
            ),
            (
                None,
                &[("a", Failed), ("b", Dropped)],
                &[("a", "done")],
                "failed",
            ),
            (None, &[("a", InDoubt)], &[("a", "done")], "done"),
            (None, two, &[("z", "done")], "- up/m 60"),
        ];
        for (pinned, recipients, settled, expected) in rows {
            let settlement = settlement(settled);
            let after = apply(&before(*pinned, recipients), &settlement);
            assert_eq!(
                words(&after),
                *expected,
                "{pinned:?} {recipients:?} {settled:?}"
            );
            assert_eq!(after.attempts, 4);
            assert_eq!(
                after.strangers.len(),
                usize::from(settled.iter().any(|s| s.0 == "z"))
            );
        }
    }

    #[test]
    fn late_only_what_was_delivered_counts() {
        let mut late = settlement(&[("a", "done"), ("b", "failed"), ("c", "doubt")]);
        leave_deliveries(&mut late);
        let three = [("a", InDoubt), ("b", InDoubt), ("c", InDoubt)];
        let after = apply(&before(Some("up"), &three), &late);
        let changes: Vec<_> = after.changes.iter().map(|c| (c.at, c.state)).collect();
        assert_eq!((changes, after.attempts), (vec![(0, Done)], 3));
        assert!(after.splits.is_empty() && after.job.is_some());
        let mut all = settlement(&[("a", "done")]);
        leave_deliveries(&mut all);
        assert_eq!(
            words(&apply(&before(Some("up"), &[("a", InDoubt)]), &all)),
            "done"
        );
    }

    #[test]
    fn what_waits_pinned_stays_in_doubt_and_some_go_apart() {
        let settlement = settlement(&[("a", "later")]);
        let after = apply(&before(Some("up"), &[("a", InDoubt)]), &settlement);
        assert_eq!(after.changes[0].state, InDoubt);
        for (names, expected) in [("bc", "- up/m 60 | [1, 2] - 60"), ("abc", "- up/m 60")] {
            let three = [("a", Waiting), ("b", Waiting), ("c", Waiting)];
            let mut settlement = self::settlement(&[]);
            settlement.apart = names
                .chars()
                .map(|name| Address::parse(&format!("{name}@x.example")).unwrap())
                .collect();
            assert_eq!(words(&apply(&before(None, &three), &settlement)), expected);
        }
    }
}
