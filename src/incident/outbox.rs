//! What is told: written down in the transaction in which an incident changes, and then said by each channel for itself, until it is
//! taken. A restart loses nothing of it, and what may have been said already is said with the same key.

use std::time::{Duration, SystemTime};

use rusqlite::Transaction;

use super::{
    book::{ACKNOWLEDGED, Book, IncidentCondition, Transition, remembered},
    catalogue::{IncidentKind, IncidentSeverity},
    channels::{AlarmMessage, Teller},
    settings::{Channel, IncidentSettings},
    shown,
};
use crate::{
    delivery::clock::Moment,
    mail::text::shown_to,
    view::IncidentView,
    window::{
        WindowDb, WindowError,
        incidents::{self, IncidentRow, OutboxRow, OutboxState},
    },
};

/// Since the first try; then hourly.
const TRIES: [u64; 5] = [0, 1, 5, 15, 60];
const HOUR: Duration = Duration::from_hours(1);
/// It is tried for so long.
const DAY: Duration = Duration::from_hours(24);
/// Octets that are kept of what came of a try.
const RESULT: usize = 200;

/// What a look has changed.
#[derive(Debug)]
pub struct Looked {
    /// To go on with.
    pub book: Book,
    /// The incidents that have changed, as they are now.
    pub news: Vec<IncidentView>,
}

/// Judges what is so now and writes down what follows, with what is to be told of it. `floor`: a new incident gets a higher number.
///
/// # Errors
/// Nothing of it was written; `book` is to be used again as it was.
pub fn look(
    tx: &Transaction<'_>,
    mut book: Book,
    seen: &[IncidentCondition],
    now: Moment,
    settings: &IncidentSettings,
    floor: i64,
) -> rusqlite::Result<Looked> {
    let known = incidents::live(tx, remembered(now.wall))?;
    let changes = book.look(&known, seen, now, settings);
    let mut news = Vec::new();
    for change in changes {
        let id = incidents::put(tx, &change.row, floor)?;
        let row = IncidentRow { id, ..change.row };
        let Some(transition) = change.transition else {
            continue;
        };
        let before = incidents::told(tx, id)?;
        let content = serde_json::to_string(&shown::view(&row, &[])).unwrap_or_default();
        for channel in &settings.channels {
            let Some(word) = word(channel, &row, transition, &before) else {
                continue;
            };
            incidents::tell(
                tx,
                &OutboxRow {
                    id: 0,
                    incident: id,
                    number: row.number,
                    transition: word.to_owned(),
                    channel: channel.name.clone(),
                    content: content.clone(),
                    made: now.wall,
                    tries: 0,
                    next: now.wall,
                    at: None,
                    result: None,
                    state: OutboxState::Waiting,
                },
            )?;
        }
        news.push(shown::view(&row, &incidents::told(tx, id)?));
    }
    Ok(Looked { book, news })
}

/// What a channel is told of a change, if anything.
fn word(
    channel: &Channel,
    row: &IncidentRow,
    transition: Transition,
    before: &[OutboxRow],
) -> Option<&'static str> {
    let kind = IncidentKind::parse(&row.kind)?;
    let severity = IncidentSeverity::parse(&row.severity)?;
    let wants = channel.wants(kind, &row.object, severity);
    // Since it opened last.
    let own = || before.iter().filter(|told| told.channel == channel.name);
    let over = own()
        .filter(|told| told.transition == "recovered")
        .map(|told| told.number)
        .max();
    let was_told = own().any(|told| {
        told.transition == "opened"
            && over.is_none_or(|over| told.number > over)
            && matches!(told.state, OutboxState::Waiting | OutboxState::Taken)
    });
    match transition {
        Transition::Opened => wants.then_some("opened"),
        Transition::Worse if !was_told => wants.then_some("opened"),
        Transition::Worse if row.state == ACKNOWLEDGED => None,
        Transition::Worse | Transition::Reminded => (was_told && wants).then_some("reminded"),
        Transition::Recovered => was_told.then_some("recovered"),
    }
}

/// When it is tried next. `None`: it was tried for long enough.
fn next_try(made: SystemTime, now: SystemTime) -> Option<SystemTime> {
    let age = now.duration_since(made).unwrap_or_default();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let soon = TRIES.iter().map(|at| minutes(*at)).find(|at| *at > age);
    let next = soon.unwrap_or_else(|| {
        let hours = age.as_secs() / HOUR.as_secs() + 1;
        Duration::from_secs(hours * HOUR.as_secs())
    });
    (next <= DAY).then(|| made + next)
}

/// Says all that is due in a channel, one after the other.
///
/// # Errors
/// What is due cannot be read, or what came of it not be written.
pub async fn tell(
    window: &WindowDb,
    channel: &Channel,
    teller: &Teller,
    clock: impl Fn() -> SystemTime,
) -> Result<(), WindowError> {
    loop {
        let (name, now) = (channel.name.clone(), clock());
        let due = window
            .read(move |tx| incidents::due(tx, &name, now))
            .await?;
        let Some(mut row) = due else {
            return Ok(());
        };
        let result = match message(&row, now) {
            Some(message) => teller.tell(channel, &message).await,
            None => Err("it cannot be read".to_owned()),
        };
        let now = clock();
        row.tries = row.tries.saturating_add(1);
        row.at = Some(now);
        row.state = match (&result, next_try(row.made, now)) {
            (Ok(_), _) => OutboxState::Taken,
            (Err(_), Some(next)) => {
                row.next = next;
                OutboxState::Waiting
            }
            (Err(_), None) => OutboxState::GivenUp,
        };
        let said = result.unwrap_or_else(|fault| fault);
        row.result = Some(shown_to(&said, RESULT));
        window.run(move |tx| incidents::tried(tx, &row)).await?;
    }
}

fn message(row: &OutboxRow, now: SystemTime) -> Option<AlarmMessage> {
    let incident: IncidentView = serde_json::from_str(&row.content).ok()?;
    Some(AlarmMessage {
        key: format!("{}/{}/{}", incident.id, row.number, row.transition),
        transition: row.transition.clone(),
        incident,
        at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_at_first_often_and_end_after_a_day() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut now = made;
        let mut minutes = vec![0];
        while let Some(next) = next_try(made, now) {
            assert!(next > now);
            minutes.push(next.duration_since(made).unwrap().as_secs() / 60);
            // A try takes a while.
            now = next + Duration::from_secs(10);
        }
        let mut expected = vec![0, 1, 5, 15];
        expected.extend((1..=24).map(|hour| hour * 60));
        assert_eq!(minutes, expected);
        // A gateway that was off for long tries once more, and then it is enough.
        assert_eq!(next_try(made, made + DAY), None);
        assert_eq!(next_try(made, made + DAY * 7), None);
        // Off for some hours: not all the tries that were missed.
        let next = next_try(made, made + Duration::from_secs(3 * 3600 + 5)).unwrap();
        assert_eq!(next, made + HOUR * 4);
        // A clock that was set back.
        assert_eq!(
            next_try(made, made - HOUR),
            Some(made + Duration::from_mins(1))
        );
    }
}
