//! Reads of one message, its content and its life; and counts. They change no row.

use super::{
    body::RemoteBodies,
    fault::DbFault,
    link::{DbLink, Spoken},
    message::{MessagePart, RecipientLine, read_message},
    values::{broken, get},
};
use crate::{
    mail::{
        message::{Message, MessageId},
        time::from_micros,
    },
    queue::{
        coded::{accepted_words, origin_from_json, some},
        event::{Event, EventKind},
        operator::Stats,
        turns::RouteLane,
    },
    route::{ConnectorName, LaneId, RouteName},
};

const MESSAGE: &str =
    "SELECT m.id, m.sender, m.eight_bit, m.origin::text, m.size, c.header, c.body, c.kept, m.dsn
    FROM message m LEFT JOIN content c ON c.message = m.id WHERE m.id = $1::bytea";
const RECIPIENTS: &str = "SELECT message, job, address, state FROM recipient WHERE message = $1::bytea ORDER BY position";
const ACCEPTED: &str = "SELECT m.accepted, m.origin::text, n.name FROM message m
    LEFT JOIN node n ON n.id = m.node WHERE m.id = $1::bytea";
const EVENTS: &str =
    "SELECT e.at, e.kind, e.recipients, e.text, n.name FROM event e LEFT JOIN node n ON n.id = e.node
    WHERE e.message = $1::bytea ORDER BY e.id";
const DELIVERIES: &str =
    "SELECT r.at, r.said, r.address, n.name FROM recipient r LEFT JOIN node n ON n.id = r.node
    WHERE r.message = $1::bytea AND r.said IS NOT NULL ORDER BY r.at, r.position";
const STATS: &str = "SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1),
        count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3),
        count(*) FILTER (WHERE state = 2 AND pinned <> '') FROM job";
/// The ids of messages sort by time.
const OLDEST: &str = "SELECT m.accepted FROM message m WHERE m.id =
    (SELECT message FROM job WHERE state = 2 ORDER BY message LIMIT 1)";
const WAITING: &str =
    "SELECT route, pinned, lane, count(*) FROM job WHERE state = 2 GROUP BY route, pinned, lane";

/// The message, as long as its content is kept.
pub(super) async fn content(
    link: &mut DbLink,
    message: MessageId,
    bodies: &RemoteBodies,
) -> Result<Option<Message>, DbFault> {
    let key = message.to_bytes().to_vec();
    let found = link
        .whole(&[(MESSAGE, vec![&key]), (RECIPIENTS, vec![&key])])
        .await?;
    let [messages, recipients] = found.as_slice() else {
        return Ok(None);
    };
    let Some(part) = messages.first().map(MessagePart::read).transpose()? else {
        return Ok(None);
    };
    if !part.has_content() {
        return Ok(None);
    }
    let wishes = part.wishes();
    let lines: Vec<RecipientLine> = recipients
        .iter()
        .map(|row| RecipientLine::read(row, &wishes))
        .collect::<Result<_, _>>()?;
    let read = read_message(&part, &lines, bodies);
    read.map(Some)
        .map_err(|why| broken(&format!("{message}: {why}")))
}

/// A line of a life, with the gateway whose doing it was, where that is known by its name.
fn by(text: String, row: &tokio_postgres::Row, at: usize) -> String {
    match get::<Option<&str>>(row, at) {
        Ok(Some(name)) if !name.is_empty() => format!("{text} [{name}]"),
        _ => text,
    }
}

/// The life of a message.
pub(super) async fn events(link: &mut DbLink, message: MessageId) -> Result<Vec<Event>, DbFault> {
    let key = message.to_bytes().to_vec();
    let of = |question| -> Spoken<'_> { (question, vec![&key]) };
    let found = link
        .whole(&[of(ACCEPTED), of(EVENTS), of(DELIVERIES)])
        .await?;
    let [accepted, told, delivered] = found.as_slice() else {
        return Ok(Vec::new());
    };
    let Some(accepted) = accepted.first() else {
        return Ok(Vec::new());
    };
    // Every message was accepted: that line is made of its row and costs no row of its own.
    let mut events = vec![Event {
        at: from_micros(get(accepted, 0)?),
        kind: EventKind::Accepted,
        recipients: Vec::new(),
        text: origin_from_json(get(accepted, 1)?).map_or_else(String::new, |origin| {
            by(accepted_words(&origin), accepted, 2)
        }),
    }];
    for row in told {
        let recipients: &str = get(row, 2)?;
        events.push(Event {
            at: from_micros(get(row, 0)?),
            kind: EventKind::parse(get(row, 1)?),
            recipients: recipients.lines().map(str::to_owned).collect(),
            text: by(get(row, 3)?, row, 4),
        });
    }
    // One line for all who were served together.
    let mut deliveries: Vec<Event> = Vec::new();
    for row in delivered {
        let (at, text, address) = (
            from_micros(get(row, 0)?),
            by(get(row, 1)?, row, 3),
            get(row, 2)?,
        );
        match deliveries.iter_mut().find(|e| e.at == at && e.text == text) {
            Some(event) => event.recipients.push(address),
            None => deliveries.push(Event {
                at,
                kind: EventKind::Delivered,
                recipients: vec![address],
                text,
            }),
        }
    }
    for delivery in deliveries {
        // Behind what happened until then, and never before it was accepted.
        let earlier = events.iter().rposition(|event| event.at <= delivery.at);
        events.insert(earlier.map_or(1, |at| at + 1), delivery);
    }
    Ok(events)
}

/// Counts, of what is not yet history.
pub(super) async fn stats(link: &mut DbLink) -> Result<Stats, DbFault> {
    let found = link.whole(&[(STATS, vec![]), (OLDEST, vec![])]).await?;
    let [counts, oldest] = found.as_slice() else {
        return Ok(Stats::default());
    };
    let mut stats = Stats::default();
    if let Some(row) = counts.first() {
        let count = |at| get::<i64>(row, at).map(i64::unsigned_abs);
        stats.sending = count(0)?;
        stats.held = count(1)?;
        stats.waiting = count(2)?;
        stats.failed = count(3)?;
        stats.in_doubt = count(4)?;
    }
    let oldest = oldest.first().map(|row| get::<i64>(row, 0)).transpose()?;
    stats.oldest = oldest.map(from_micros);
    Ok(stats)
}

/// How many jobs wait where.
pub(super) async fn waiting(link: &mut DbLink) -> Result<Vec<(RouteLane, u64)>, DbFault> {
    let found = link.whole(&[(WAITING, vec![])]).await?;
    let mut places = Vec::new();
    for row in found.iter().flatten() {
        let (pinned, lane): (&str, &str) = (get(row, 1)?, get(row, 2)?);
        let place = (
            RouteName::from(get::<&str>(row, 0)?),
            some(pinned).map(ConnectorName::from),
            some(lane).map(LaneId::parse),
        );
        places.push((place, get::<i64>(row, 3)?.unsigned_abs()));
    }
    Ok(places)
}
