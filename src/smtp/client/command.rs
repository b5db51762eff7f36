//! The commands of a delivery and their wire form (RFC 5321 §4.1.1).
//!
//! The order they are said in is `dialogue`'s. A command holds nothing but which one it is; its words come from the message.

use super::{capabilities::Capabilities, class::Place};
use crate::mail::{
    address::Address,
    message::Envelope,
    recipient::{DsnWish, Recipient},
    xtext,
};

/// The message as the dialogue sees it.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// Sender, and whether the content is 8-bit.
    pub envelope: &'a Envelope,
    /// The recipients of this job.
    pub recipients: &'a [Recipient],
    /// Octets of the content, for SIZE.
    pub size: u64,
    /// A field of the header names an address that is not ASCII ([`crate::mail::utf8_header`]).
    pub utf8_header: bool,
}

impl Mail<'_> {
    /// Nobody without SMTPUTF8 can take it, whoever it is for (RFC 6531 §3.2).
    pub(super) fn needs_utf8(&self) -> bool {
        let sender = self.envelope.sender.as_ref();
        self.utf8_header || sender.is_some_and(Address::needs_utf8)
    }

    /// MAIL is said with SMTPUTF8.
    fn asks_for_utf8(&self, offered: &Capabilities) -> bool {
        let mut recipients = self.recipients.iter();
        offered.utf8
            && (self.needs_utf8() || recipients.any(|recipient| recipient.address.needs_utf8()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCommand {
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// The final dot; or the lone one after a 354 that nobody wanted.
    Dot,
    LoneDot,
    /// RSET behind a refused DATA: a 2xx says that no reply has gone astray.
    Verify,
}

impl ClientCommand {
    /// Where its reply came.
    pub(super) fn place(self) -> Place {
        match self {
            ClientCommand::Reset | ClientCommand::Verify => Place::Reset,
            ClientCommand::Mail => Place::Mail,
            ClientCommand::Recipient(_) => Place::Rcpt,
            ClientCommand::Data => Place::Data,
            ClientCommand::Dot | ClientCommand::LoneDot => Place::Content,
        }
    }

    /// Whether the sender wishes anything that goes with it (RFC 3461).
    pub(super) fn has_wishes(self, mail: Mail<'_>) -> bool {
        match self {
            ClientCommand::Mail => mail.envelope.dsn.is_some(),
            ClientCommand::Recipient(index) => {
                let recipient = mail.recipients.get(index);
                recipient.is_some_and(|recipient| recipient.dsn.is_some())
            }
            _ => false,
        }
    }

    /// Appends its line; `with_wishes`: and what the sender wishes to hear (RFC 3461).
    pub(super) fn write(
        self,
        mail: Mail<'_>,
        offered: &Capabilities,
        with_wishes: bool,
        out: &mut Vec<u8>,
    ) {
        use std::io::Write as _;
        // Writing to a Vec cannot fail. `Address` prints itself quoted where it must be, and holds no control
        // character, so it cannot leave its brackets.
        let _ = match self {
            ClientCommand::Reset | ClientCommand::Verify => out.write_all(b"RSET\r\n"),
            ClientCommand::Data => out.write_all(b"DATA\r\n"),
            ClientCommand::Dot | ClientCommand::LoneDot => out.write_all(b".\r\n"),
            ClientCommand::Recipient(index) => match mail.recipients.get(index) {
                Some(recipient) => {
                    let _ = write!(out, "RCPT TO:<{recipient}>");
                    if with_wishes && let Some(wish) = &recipient.dsn {
                        let utf8 = mail.asks_for_utf8(offered);
                        write_wish(wish, recipient, utf8, out);
                    }
                    out.write_all(b"\r\n")
                }
                None => Ok(()),
            },
            ClientCommand::Mail => {
                let _ = match &mail.envelope.sender {
                    Some(sender) => write!(out, "MAIL FROM:<{sender}>"),
                    None => out.write_all(b"MAIL FROM:<>"),
                };
                if offered.size.is_some() {
                    let _ = write!(out, " SIZE={}", mail.size);
                }
                if offered.eight_bit && mail.envelope.eight_bit {
                    out.extend_from_slice(b" BODY=8BITMIME");
                }
                if mail.asks_for_utf8(offered) {
                    out.extend_from_slice(b" SMTPUTF8");
                }
                if with_wishes && let Some(wish) = &mail.envelope.dsn {
                    if let Some(content) = wish.content {
                        let _ = write!(out, " RET={}", content.as_str());
                    }
                    if let Some(id) = &wish.id {
                        let _ = write!(out, " ENVID={id}");
                    }
                }
                out.write_all(b"\r\n")
            }
        };
    }
}

/// What is wanted of a recipient (RFC 3461 §5.2.1), as it was given. ORCPT goes with NOTIFY where it was not given: whoever reports later
/// should name the address that the sender knows.
fn write_wish(wish: &DsnWish, recipient: &Recipient, utf8: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let given = wish.original.as_deref();
    let mut original = given.and_then(|given| xtext::sent_original(given, utf8));
    if let Some(notify) = wish.notify {
        let _ = write!(out, " NOTIFY={notify}");
        if given.is_none() {
            original = xtext::original_of(&recipient.address).map(Into::into);
        }
    }
    if let Some(original) = original {
        let _ = write!(out, " ORCPT={original}");
    }
}
