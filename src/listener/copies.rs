//! The copies of a message for its archives: each is a message of its own, with a body of its own, before the store has any of them.

use std::{io, sync::Arc, time::SystemTime};

use crate::{
    mail::{
        message::{BODY_IN_MEMORY, Body, Message, MessageId, Origin},
        recipient::Recipient,
    },
    policy::archive::{Archive, ArchiveForm},
    queue::Queue,
    route::{RouteName, Routed},
};

/// Makes them, and notes in the life of the message which they are.
///
/// # Errors
/// As any write of a body.
pub(super) async fn made(
    queue: &Queue,
    message: &mut Message,
    archives: &[Arc<Archive>],
) -> io::Result<Vec<Routed>> {
    let mut copies = Vec::with_capacity(archives.len());
    for archive in archives {
        copies.push(copy(queue, message, archive).await?);
    }
    for (archive, copy) in archives.iter().zip(&copies) {
        let words = format!("copied for archive {} as {}", archive.name, copy.message.id);
        message.origin.rules.push(words);
    }
    Ok(copies)
}

async fn copy(queue: &Queue, message: &Message, archive: &Archive) -> io::Result<Routed> {
    let id = queue.next_id(SystemTime::now());
    let recipient: Recipient = archive.recipient();
    let (header, body, eight_bit) = match archive.form {
        ArchiveForm::Copy => {
            let body = queue.second_body(message.id, &message.body, id).await?;
            (message.header.clone(), body, message.envelope.eight_bit)
        }
        ArchiveForm::Attached => {
            let wrapping = archive.wrapping(message, id);
            let parts = [wrapping.before, wrapping.after];
            let body = around(queue, &message.body, &parts, id).await?;
            (wrapping.header, body, wrapping.eight_bit)
        }
    };
    let copy = Message {
        id,
        envelope: archive.envelope(eight_bit),
        origin: Origin {
            rules: vec![format!(
                "a copy of {} for archive {}",
                message.id, archive.name
            )],
            copy_of: Some(message.id),
            ..message.origin.clone()
        },
        header,
        body,
    };
    Ok(Routed {
        message: Arc::new(copy),
        jobs: vec![(RouteName::of_archive(&archive.name), vec![recipient])],
        copies: Vec::new(),
    })
}

/// A body with something before and behind it, as the body of `id`.
async fn around(
    queue: &Queue,
    body: &Body,
    [before, after]: &[Vec<u8>; 2],
    id: MessageId,
) -> io::Result<Body> {
    let len = body.len() + (before.len() + after.len()) as u64;
    if let Body::Memory(octets) = body
        && len <= BODY_IN_MEMORY as u64
    {
        return Ok(Body::Memory([before, &octets[..], after].concat().into()));
    }
    let mut writer = queue.body_writer(id);
    writer.append(before).await?;
    let mut reader = body.open().await?;
    while let Some(piece) = reader.next().await? {
        writer.append(&piece).await?;
    }
    writer.append(after).await?;
    writer.finish().await
}
