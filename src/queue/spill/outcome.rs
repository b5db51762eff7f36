//! What became of a job of the database, as it is kept here until that is back. Reports are not in it: they are messages of their own.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    mail::{
        address::Address,
        outcome::Outcome,
        reply::Reply,
        time::{from_micros, micros},
    },
    queue::{
        event::{Event, EventKind},
        moving::KeptOutcome,
        store::{JobId, Lease, NodeId, Settled, Settlement},
    },
    route::{ConnectorName, LaneId},
};

/// All of a settlement but what [`KeptOutcome`] has in columns.
#[derive(Serialize, Deserialize)]
struct SettlementRow {
    recipients: Vec<(String, SettledRow)>,
    attempted: bool,
    next: i64,
    lane: Option<String>,
    apart: Vec<String>,
    in_doubt: Option<(String, i64)>,
    events: Vec<EventRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SettledRow {
    Done(OutcomeRow),
    Failed(OutcomeRow),
    Waiting(OutcomeRow),
    InDoubt(OutcomeRow),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeRow {
    Delivered(ReplyRow),
    /// With what the upstream wished, in microseconds.
    Deferred(ReplyRow, Option<u64>),
    InDoubt(ReplyRow),
    Failed(ReplyRow),
    Apart(ReplyRow),
    Unsuited(ReplyRow),
}

#[derive(Serialize, Deserialize)]
struct ReplyRow {
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct EventRow {
    at: i64,
    kind: String,
    recipients: Vec<String>,
    text: String,
}

/// To be kept: settled at that time.
pub(super) fn written(settlement: &Settlement, at: SystemTime) -> KeptOutcome {
    let text = |address: &Address| address.to_string();
    let recipients = settlement.recipients.iter();
    let row = SettlementRow {
        recipients: recipients
            .map(|(address, settled)| (text(address), SettledRow::of(settled)))
            .collect(),
        attempted: settlement.attempted,
        next: micros(settlement.next),
        lane: settlement.lane.as_ref().map(ToString::to_string),
        apart: settlement.apart.iter().map(text).collect(),
        in_doubt: settlement
            .in_doubt
            .as_ref()
            .map(|(name, due)| (name.to_string(), micros(*due))),
        events: settlement.events.iter().map(EventRow::of).collect(),
    };
    let JobId(job) = settlement.job;
    KeptOutcome {
        message: settlement.message,
        job,
        node: settlement.lease.node.0,
        claim: settlement.lease.claim,
        at,
        // It has no part that cannot be written as JSON.
        settlement: serde_json::to_string(&row).unwrap_or_default(),
    }
}

/// To be written `now`: nothing is due later than it was to be when it was settled, whatever became of the clock. `None`: it is damaged.
pub(super) fn read(kept: &KeptOutcome, now: SystemTime) -> Option<Settlement> {
    let row: SettlementRow = serde_json::from_str(&kept.settlement).ok()?;
    let due = |at: i64| {
        let after = at.saturating_sub(micros(kept.at)).max(0);
        from_micros(at.min(micros(now).saturating_add(after)))
    };
    let parsed = |text: &String| Address::parse(text).ok();
    let recipients = row.recipients.into_iter();
    Some(Settlement {
        job: JobId(kept.job),
        lease: Lease {
            node: NodeId(kept.node),
            claim: kept.claim,
        },
        message: kept.message,
        recipients: recipients
            .map(|(address, settled)| Some((parsed(&address)?, settled.settled())))
            .collect::<Option<_>>()?,
        attempted: row.attempted,
        next: due(row.next),
        lane: row.lane.as_deref().map(LaneId::parse),
        apart: row.apart.iter().map(parsed).collect::<Option<_>>()?,
        in_doubt: row
            .in_doubt
            .map(|(name, at)| (ConnectorName::from(name.as_str()), due(at))),
        bounces: Vec::new(),
        receipts: Vec::new(),
        events: row.events.into_iter().map(EventRow::event).collect(),
    })
}

impl SettledRow {
    fn of(settled: &Settled) -> Self {
        match settled {
            Settled::Done(outcome) => Self::Done(OutcomeRow::of(outcome)),
            Settled::Failed(outcome) => Self::Failed(OutcomeRow::of(outcome)),
            Settled::Waiting(outcome) => Self::Waiting(OutcomeRow::of(outcome)),
            Settled::InDoubt(outcome) => Self::InDoubt(OutcomeRow::of(outcome)),
        }
    }

    fn settled(self) -> Settled {
        match self {
            Self::Done(row) => Settled::Done(row.outcome()),
            Self::Failed(row) => Settled::Failed(row.outcome()),
            Self::Waiting(row) => Settled::Waiting(row.outcome()),
            Self::InDoubt(row) => Settled::InDoubt(row.outcome()),
        }
    }
}

impl OutcomeRow {
    fn of(outcome: &Outcome) -> Self {
        let micros = |wait: std::time::Duration| u64::try_from(wait.as_micros()).ok();
        match outcome {
            Outcome::Delivered(reply) => Self::Delivered(ReplyRow::of(reply)),
            Outcome::Deferred { reply, retry_after } => {
                Self::Deferred(ReplyRow::of(reply), retry_after.and_then(micros))
            }
            Outcome::InDoubt(reply) => Self::InDoubt(ReplyRow::of(reply)),
            Outcome::Failed(reply) => Self::Failed(ReplyRow::of(reply)),
            Outcome::Apart(reply) => Self::Apart(ReplyRow::of(reply)),
            Outcome::Unsuited(reply) => Self::Unsuited(ReplyRow::of(reply)),
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Delivered(row) => Outcome::Delivered(row.reply()),
            Self::Deferred(row, wait) => Outcome::Deferred {
                reply: row.reply(),
                retry_after: wait.map(std::time::Duration::from_micros),
            },
            Self::InDoubt(row) => Outcome::InDoubt(row.reply()),
            Self::Failed(row) => Outcome::Failed(row.reply()),
            Self::Apart(row) => Outcome::Apart(row.reply()),
            Self::Unsuited(row) => Outcome::Unsuited(row.reply()),
        }
    }
}

impl ReplyRow {
    fn of(reply: &Reply) -> Self {
        Self {
            code: reply.code,
            enhanced: reply.enhanced,
            text: reply.text.clone(),
        }
    }

    fn reply(self) -> Reply {
        Reply {
            code: self.code,
            enhanced: self.enhanced,
            text: self.text,
        }
    }
}

impl EventRow {
    fn of(event: &Event) -> Self {
        Self {
            at: micros(event.at),
            kind: event.kind.as_str().to_owned(),
            recipients: event.recipients.clone(),
            text: event.text.clone(),
        }
    }

    fn event(self) -> Event {
        Event {
            at: from_micros(self.at),
            kind: EventKind::parse(&self.kind),
            recipients: self.recipients,
            text: self.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{fixture::address, mail::message::MessageId};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn every() -> Settlement {
        let reply = |text: &str| Reply::new(451, (4, 3, 0), text);
        let wish = Some(Duration::from_millis(1_500));
        let outcomes = [
            Outcome::Delivered(Reply::plain(250, "ok \u{1f4e8}\nsecond")),
            Outcome::Deferred {
                reply: reply("later"),
                retry_after: wish,
            },
            Outcome::Deferred {
                reply: reply("\"quoted\" \\ \u{7f}"),
                retry_after: None,
            },
            Outcome::InDoubt(reply("silence")),
            Outcome::Failed(Reply::new(550, (5, 1, 1), "")),
            Outcome::Apart(reply("one of them")),
            Outcome::Unsuited(reply("too large")),
        ];
        let kinds = [
            Settled::Done,
            Settled::Failed,
            Settled::Waiting,
            Settled::InDoubt,
        ];
        let mut recipients = Vec::new();
        for outcome in outcomes {
            for kind in kinds {
                let to = format!("\"r {}\\\"\"@x.example", recipients.len());
                recipients.push((address(&to), kind(outcome.clone())));
            }
        }
        Settlement {
            job: JobId(7),
            lease: Lease {
                node: NodeId(3),
                claim: 9,
            },
            message: MessageId::new(at(0), 1),
            apart: vec![recipients[0].0.clone(), address("b@x.example")],
            recipients,
            attempted: true,
            next: at(60),
            lane: Some(LaneId::parse("up/m@x.example")),
            in_doubt: Some((ConnectorName::from("up"), at(300))),
            bounces: Vec::new(),
            receipts: Vec::new(),
            events: vec![Event {
                at: at(1),
                kind: EventKind::PassedOver,
                recipients: vec!["a@x.example".to_owned(), String::new()],
                text: "via \u{e9}".to_owned(),
            }],
        }
    }

    #[test]
    fn what_is_kept_reads_back() {
        let settlement = every();
        let kept = written(&settlement, at(2));
        let back = read(&kept, at(5)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{settlement:?}"));
        let mut bare = every();
        (bare.lane, bare.in_doubt, bare.attempted) = (None, None, false);
        (bare.recipients, bare.apart, bare.events) = (Vec::new(), Vec::new(), Vec::new());
        let back = read(&written(&bare, at(2)), at(5)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{bare:?}"));
        let damaged = KeptOutcome {
            settlement: "{}".to_owned(),
            ..kept
        };
        assert!(read(&damaged, at(5)).is_none());
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_waiting() {
        let kept = written(&every(), at(2));
        let day = Duration::from_hours(24);
        let back = read(&kept, at(2) - 9 * day).unwrap();
        assert_eq!(back.next, at(60) - 9 * day);
        assert_eq!(back.in_doubt.unwrap().1, at(300) - 9 * day);
        assert_eq!(read(&kept, at(2) + day).unwrap().next, at(60));
    }
}
