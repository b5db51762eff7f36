//! What a client asked for by DSN (RFC 3461), as a column of a message has it: JSON, and nothing where nothing was asked, which is
//! nearly always.
//!
//! It is read leniently: what cannot be understood asks for nothing, and the mail goes on.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::mail::{
    message::Envelope,
    recipient::{DsnWish, Notify, Recipient, ReportWish, ReturnedContent},
};

/// The wishes of a message and of its recipients.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KeptWishes<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    ret: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    envid: Option<Cow<'a, str>>,
    /// By address in wire form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", borrow)]
    to: BTreeMap<Cow<'a, str>, WishRow<'a>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct WishRow<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    notify: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    orcpt: Option<Cow<'a, str>>,
}

/// The column; `None`: nothing was asked.
pub(super) fn to_json(envelope: &Envelope) -> Option<String> {
    let mut wishes = KeptWishes::default();
    if let Some(wish) = &envelope.dsn {
        wishes.ret = wish.content.map(|content| content.as_str().into());
        wishes.envid = wish.id.as_deref().map(Cow::Borrowed);
    }
    for recipient in &envelope.recipients {
        let Some(wish) = &recipient.dsn else { continue };
        let row = WishRow {
            notify: wish.notify.map(|notify| notify.to_string().into()),
            orcpt: wish.original.as_deref().map(Cow::Borrowed),
        };
        wishes.to.insert(recipient.address.to_string().into(), row);
    }
    let is_empty = wishes.ret.is_none() && wishes.envid.is_none() && wishes.to.is_empty();
    // It has no part that cannot be written as JSON.
    (!is_empty).then(|| serde_json::to_string(&wishes).unwrap_or_default())
}

/// Whether the sender wants to hear when it takes long.
pub(super) fn asks_of_delay(envelope: &Envelope) -> bool {
    envelope.sender.is_some() && envelope.recipients.iter().any(Recipient::tells_delay)
}

impl<'a> KeptWishes<'a> {
    /// From the column.
    pub(super) fn read(column: Option<&'a str>) -> Self {
        column
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Of the message.
    pub(super) fn of_message(&self) -> Option<ReportWish> {
        let wish = ReportWish {
            content: self.ret.as_deref().and_then(ReturnedContent::parse),
            id: self.envid.as_deref().map(str::to_owned),
        };
        (wish != ReportWish::default()).then_some(wish)
    }

    /// ENVID, as it was given.
    pub(super) fn id(&self) -> Option<String> {
        self.envid.as_deref().map(str::to_owned)
    }

    /// Of the recipient with this address.
    pub(super) fn of(&self, address: &str) -> Option<DsnWish> {
        let row = self.to.get(address)?;
        Some(DsnWish {
            notify: self.notify(address),
            original: row.orcpt.as_deref().map(str::to_owned),
        })
    }

    /// NOTIFY of the recipient with this address.
    pub(super) fn notify(&self, address: &str) -> Option<Notify> {
        let row = self.to.get(address)?;
        row.notify.as_deref().and_then(Notify::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::address, mail::xtext};

    #[test]
    fn what_was_asked_is_read_back() {
        let wish = |notify: Option<&str>, original: Option<&str>| {
            Some(DsnWish {
                notify: notify.and_then(Notify::parse),
                original: original.map(str::to_owned),
            })
        };
        let to = |text: &str, dsn| Recipient {
            address: address(text),
            dsn,
        };
        let mut envelope = Envelope {
            sender: Some(address("a@x.example")),
            recipients: vec![
                to("b@x.example", None),
                to("\"c d\"@x.example", wish(Some("NEVER"), None)),
                to(
                    "e@x.example",
                    wish(Some("success,delay"), Some("rfc822;\"+22;")),
                ),
                to(
                    "f@x.example",
                    wish(None, xtext::original_of(&address("g@x.example")).as_deref()),
                ),
            ],
            eight_bit: false,
            dsn: Some(ReportWish {
                content: Some(ReturnedContent::Full),
                id: Some("QQ+3D\\\"".to_owned()),
            }),
        };
        let column = to_json(&envelope).unwrap();
        let wishes = KeptWishes::read(Some(&column));
        assert_eq!(wishes.of_message(), envelope.dsn, "{column}");
        for recipient in &envelope.recipients {
            let read = wishes.of(&recipient.address.to_string());
            assert_eq!(read, recipient.dsn, "{column}");
        }
        assert!(asks_of_delay(&envelope));
        envelope.sender = None;
        assert!(
            !asks_of_delay(&envelope),
            "nobody is told of what came from nobody"
        );
        envelope.recipients.truncate(1);
        envelope.dsn = None;
        assert_eq!(to_json(&envelope), None);
    }

    #[test]
    fn what_is_damaged_asks_for_nothing() {
        for column in [None, Some(""), Some("{"), Some("[]"), Some("{\"to\":3}")] {
            let wishes = KeptWishes::read(column);
            assert!(wishes.of_message().is_none() && wishes.of("b@x.example").is_none());
        }
    }
}
