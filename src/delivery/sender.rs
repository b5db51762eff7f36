//! Whose lane a message takes: the mailbox that sends it, and its From.
//!
//! Jobs and the fast path ask alike. It knows no state of a lane.

use crate::{
    connector::Connector,
    mail::{headers, mailboxes, message::Message},
    route::LaneId,
};

/// Addresses of a From that are told apart; an odd one more changes nothing.
const ADDRESSES: usize = 4;

/// The lane of a message: the mailbox is the connector's own word, or the envelope sender; the From stands beside it where it is
/// another.
pub(super) fn lane_of(connector: &dyn Connector, message: &Message) -> LaneId {
    let mut lane = connector.lane(message);
    let mailbox = lane.mailbox.get_or_insert_with(|| {
        let sender = message.envelope.sender.as_ref();
        sender.map_or_else(|| "<>".into(), |sender| sender.to_string().into())
    });
    lane.from = headers::value_of(&message.header, "From")
        .filter(|value| !is_plainly(value, mailbox))
        .and_then(from)
        .filter(|from| !from.eq_ignore_ascii_case(mailbox))
        .map(Into::into);
    lane
}

/// The value is this address, behind words at most: most are, and it takes no reader to see it.
fn is_plainly(value: &[u8], address: &str) -> bool {
    let value = value.trim_ascii();
    let inner = value.strip_suffix(b">").unwrap_or(value);
    let Some(before) = inner.strip_suffix(address.as_bytes()) else {
        return false;
    };
    let name = match before.split_last() {
        Some((b'<', name)) if inner.len() < value.len() => name,
        None if inner.len() == value.len() => before,
        _ => return false,
    };
    name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b' ')
}

fn from(value: &[u8]) -> Option<String> {
    let found = mailboxes::parse(value).ok()?;
    let addresses: Vec<String> = found
        .into_iter()
        .filter(|mailbox| !mailbox.in_name)
        .take(ADDRESSES)
        .map(|mailbox| mailbox.address.to_string().to_ascii_lowercase())
        .collect();
    (!addresses.is_empty()).then(|| addresses.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_from() {
        for (value, expected, plainly) in [
            ("a@B.c", Some("a@b.c"), false),
            ("a@b.c", Some("a@b.c"), true),
            (" The 2nd <a@b.c>", Some("a@b.c"), true),
            ("\"x@y.z\" <a@b.c>", Some("a@b.c"), false),
            ("x@y.z <a@b.c>", Some("a@b.c"), false),
            ("a@b.c, D <e@f.g>", Some("a@b.c,e@f.g"), false),
            ("D <e@f.g>, a@b.c", Some("e@f.g,a@b.c"), false),
            ("D <e@f.g>, <a@b.c>", Some("e@f.g,a@b.c"), false),
            ("a@b.c>", None, false),
            ("<a@b.c", None, false),
            ("xa@b.c", Some("xa@b.c"), false),
            ("", None, false),
        ] {
            assert_eq!(from(value.as_bytes()).as_deref(), expected, "{value}");
            let found = is_plainly(value.as_bytes(), "a@b.c");
            assert_eq!(found, plainly, "{value}");
        }
    }
}
