//! Whose lane a message takes: the mailbox that sends it, and its From.
//!
//! Apart because the loop, the jobs and the fast path ask alike. It knows no state of a lane.

use crate::{
    connector::{Connector, Lane},
    mail::{address::Address, headers, mailboxes, message::Message},
};

/// Addresses of a From that are told apart; an odd one more changes nothing.
const ADDRESSES: usize = 4;

/// The lane of a message: the mailbox is the connector's own word, or the envelope sender; the From stands beside it where it is
/// another.
pub(super) fn lane_of(connector: &dyn Connector, message: &Message) -> Lane {
    let mut lane = connector.lane(message);
    let mailbox = lane.mailbox.get_or_insert_with(|| {
        let sender = message.envelope.sender.as_ref();
        sender.map_or_else(|| "<>".to_owned(), Address::to_string)
    });
    lane.from = from(&message.header).filter(|from| !from.eq_ignore_ascii_case(mailbox));
    lane
}

fn from(header: &[u8]) -> Option<String> {
    let found = mailboxes::parse(headers::value_of(header, "From")?).ok()?;
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
        for (header, expected) in [
            ("From: a@B.c\r\n", Some("a@b.c")),
            ("From: \"x@y.z\" <a@b.c>\r\n", Some("a@b.c")),
            ("From: a@b.c, D <e@f.g>\r\n", Some("a@b.c,e@f.g")),
            ("From: \r\n", None),
            ("To: a@b.c\r\n", None),
        ] {
            assert_eq!(from(header.as_bytes()).as_deref(), expected, "{header}");
        }
    }
}
