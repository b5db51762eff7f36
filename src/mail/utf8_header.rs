//! Whether a header can only leave by SMTPUTF8 (RFC 6531 §3.2): an address in it is not ASCII.
//!
//! Names and subjects that are not ASCII have always been sent without it, and are; so is what stands in no field that names senders or
//! recipients.

use super::{headers, mailboxes};

/// Judged when the message came: an address there is not ASCII only where the client might, or a rewrite made it so.
const SENDERS: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Perhaps not judged. Bcc does not leave.
const RECIPIENTS: [&str; 5] = ["To", "Cc", "Resent-To", "Resent-Cc", "Apparently-To"];

/// `utf8`: the message came with SMTPUTF8. One that came without leaves as it always did, whatever stands in its To.
pub fn needs_utf8(header: &[u8], utf8: bool) -> bool {
    if header.is_ascii() {
        return false;
    }
    headers::fields(header).any(|field| {
        let is = |name: &&str| field.is(name);
        !field.value.is_ascii()
            && (SENDERS.iter().any(is) || utf8 && RECIPIENTS.iter().any(is))
            && names_utf8(field.value, utf8)
    })
}

/// Whether an address there is not ASCII as it stands: a local part, or a domain that nobody has made A-labels of. What cannot be read may hold
/// one where the message came with SMTPUTF8, and is sent as it is; what has no `@` names nobody.
fn names_utf8(value: &[u8], utf8: bool) -> bool {
    match mailboxes::parse(value) {
        Ok(found) => found.into_iter().any(|mailbox| {
            let given = value.get(mailbox.span).unwrap_or_default();
            mailbox.address.needs_utf8() || !given.is_ascii()
        }),
        Err(_) => utf8 && value.contains(&b'@'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_need_it() {
        for (header, with, without) in [
            ("From: a@b.example\r\nTo: c@d.example\r\n", false, false),
            (
                "From: B\u{fc}ro <a@b.example>\r\nSubject: \u{fc}\r\n",
                false,
                false,
            ),
            ("From: <b\u{fc}ro@b.example>\r\n", true, true),
            ("Sender: b\u{fc}ro@b.example\r\n", true, true),
            ("To: x@y.example, B <b\u{fc}ro@b.example>\r\n", true, false),
            ("Resent-Cc:\r\n b\u{fc}ro@b.example\r\n", true, false),
            ("To: a@b\u{fc}cher.example\r\n", true, false),
            ("To: \"a\r\n b\" <x@b\u{fc}cher.example>\r\n", true, false),
            ("To: b\u{fc}ro@x.example (k <x>)\r\n", true, false),
            ("To: B\u{fc}ro (k\r\n", false, false),
            ("Reply-To: b\u{fc}ro@b.example\r\n", false, false),
            ("To: b\u{fc}ro\r\n", false, false),
            (
                "To: \"b\u{fc}ro@b.example\" <a@b.example>\r\n",
                false,
                false,
            ),
        ] {
            assert_eq!(needs_utf8(header.as_bytes(), true), with, "{header}");
            assert_eq!(needs_utf8(header.as_bytes(), false), without, "{header}");
        }
    }
}
