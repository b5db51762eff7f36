//! Mail: which connector it is not to take, and what it says.

use super::{
    message::{AlarmLetter, AlarmMessage},
    words,
};
use crate::{incident::catalogue::IncidentKind, mail::address::Address, route::ConnectorName};

/// The connector that an incident is about.
fn about(message: &AlarmMessage) -> Option<ConnectorName> {
    let incident = &message.incident;
    match IncidentKind::parse(&incident.kind)? {
        IncidentKind::ConnectorPaused
        | IncidentKind::ConnectorClosed
        | IncidentKind::ConnectorStopped
        | IncidentKind::MailboxRefused
        | IncidentKind::CredentialExpires
        | IncidentKind::RotationFailed
        | IncidentKind::TokenFailing => {
            // Of a mailbox it is what stands before the slash.
            let name = incident.object.split('/').next().unwrap_or_default();
            Some(ConnectorName::from(name))
        }
        _ => None,
    }
}

/// The letter for these.
pub(super) fn compose(
    message: &AlarmMessage,
    hostname: &str,
    to: Vec<Address>,
    connector: Option<ConnectorName>,
) -> AlarmLetter {
    AlarmLetter {
        to,
        connector,
        about: about(message),
        id: message.key.replace('/', "."),
        subject: words::headline(message, hostname),
        text: words::text(message),
    }
}
