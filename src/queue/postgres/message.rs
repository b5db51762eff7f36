//! A message as its rows say it. Of a large body there is a handle: it is fetched when somebody begins to read it.

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    body::RemoteBodies,
    fault::DbFault,
    values::{get, id},
};
use crate::{
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId},
        recipient::Recipient,
    },
    queue::{
        coded::{origin_from_json, recipient_state},
        postgres::insert::{IN_CHUNKS, IN_ROW},
        wishes::KeptWishes,
    },
};

/// The rows of a message and of its content: `id, sender, eight_bit, origin, size, header, body, kept, dsn`.
pub(super) struct MessagePart {
    id: MessageId,
    sender: Option<String>,
    eight_bit: bool,
    origin: String,
    size: i64,
    header: Option<Vec<u8>>,
    body: Option<Vec<u8>>,
    kept: Option<i16>,
    dsn: Option<String>,
}

impl MessagePart {
    pub(super) fn read(row: &Row) -> Result<Self, DbFault> {
        Ok(Self {
            id: id(row, 0)?,
            sender: get(row, 1)?,
            eight_bit: get(row, 2)?,
            origin: get(row, 3)?,
            size: get(row, 4)?,
            header: get(row, 5)?,
            body: get(row, 6)?,
            kept: get(row, 7)?,
            dsn: get(row, 8)?,
        })
    }

    pub(super) fn id(&self) -> MessageId {
        self.id
    }

    /// Octets, also of one whose content is no longer kept.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default()
    }

    /// What was asked of reports.
    pub(super) fn wishes(&self) -> KeptWishes<'_> {
        KeptWishes::read(self.dsn.as_deref())
    }

    pub(super) fn has_content(&self) -> bool {
        self.header.is_some()
    }
}

/// The row of a recipient: `message, job, address, state`.
pub(super) struct RecipientLine {
    pub(super) message: MessageId,
    pub(super) job: i32,
    /// As it can be sent to, or why it cannot.
    pub(super) recipient: Result<Recipient, String>,
    pub(super) is_open: bool,
}

impl RecipientLine {
    pub(super) fn read(row: &Row, wishes: &KeptWishes<'_>) -> Result<Self, DbFault> {
        let text: &str = get(row, 2)?;
        let recipient = Address::parse(text).map(|address| Recipient {
            address,
            dsn: wishes.of(text),
        });
        Ok(Self {
            message: id(row, 0)?,
            job: get(row, 1)?,
            recipient: recipient.map_err(|error| error.to_string()),
            is_open: recipient_state(get::<i16>(row, 3)?.into()).is_open(),
        })
    }
}

/// The message, with all of its recipients in the order of the envelope; or why it is none.
pub(super) fn read_message(
    part: &MessagePart,
    recipients: &[RecipientLine],
    bodies: &RemoteBodies,
) -> Result<Message, String> {
    let gone = || "its content is gone".to_owned();
    let header = part.header.as_ref().ok_or_else(gone)?;
    let len = part.size().checked_sub(2 + header.len() as u64);
    let len = len.ok_or("its header is longer than its row says")?;
    let body = match (part.kept, &part.body) {
        (Some(IN_ROW), Some(body)) if body.len() as u64 == len => {
            Body::Memory(Bytes::copy_from_slice(body))
        }
        (Some(IN_ROW), Some(_)) => {
            return Err("its body has another length than its row says".to_owned());
        }
        (Some(IN_CHUNKS), _) => bodies.of(part.id, len),
        _ => return Err("its body is missing".to_owned()),
    };
    read_with(part, recipients, (Bytes::copy_from_slice(header), body))
}

/// One whose content is no longer kept.
pub(super) fn read_bare(
    part: &MessagePart,
    recipients: &[RecipientLine],
) -> Result<Message, String> {
    let none = (Bytes::new(), Body::Memory(Bytes::new()));
    read_with(part, recipients, none)
}

fn read_with(
    part: &MessagePart,
    recipients: &[RecipientLine],
    (header, body): (Bytes, Body),
) -> Result<Message, String> {
    let recipients = recipients.iter().map(|line| line.recipient.clone());
    let sender = part.sender.as_deref().map(Address::parse).transpose();
    Ok(Message {
        id: part.id,
        envelope: Envelope {
            sender: sender.map_err(|error| error.to_string())?,
            recipients: recipients.collect::<Result<_, _>>()?,
            eight_bit: part.eight_bit,
            dsn: part.wishes().of_message(),
        },
        origin: origin_from_json(&part.origin).ok_or("its origin cannot be read")?,
        header,
        body,
    })
}
