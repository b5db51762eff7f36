//! The Received field that every accepted message gets on top.
//!
//! Nothing that a client sent can end a comment, a field or a line of it.

use super::rules::About;
use crate::mail::{text::word, time};

/// A HELO name in Received is cut here; longer ones are no names (RFC 5321 §4.5.3.1.2).
const HELO_LENGTH: usize = 255;

/// Appends the field (RFC 5321 §4.4); the keyword is RFC 3848's, or that of RFC 6531 §4.3. `for` stands only where there is one recipient, so that nobody learns of
/// a blind copy.
pub(super) fn compose(out: &mut Vec<u8>, about: &About<'_>) {
    let origin = about.origin;
    let ip = origin.peer.ip().to_canonical();
    let tag = if ip.is_ipv6() { "IPv6:" } else { "" };
    let client = about.who.client.map_or_else(String::new, |client| {
        format!("{} ", word(client.name.chars(), HELO_LENGTH))
    });
    let with = match (origin.utf8, origin.esmtp) {
        (true, _) => "UTF8SMTP",
        (false, false) if !origin.tls && origin.user.is_none() => "SMTP",
        (false, _) => "ESMTP",
    };
    let encrypted = if origin.tls { "S" } else { "" };
    let logged_in = if origin.user.is_some() { "A" } else { "" };
    let mut parts = vec![
        format!("from {}", word(origin.helo.chars(), HELO_LENGTH)),
        format!("({client}[{tag}{ip}])"),
        format!("by {}", about.hostname),
        format!("with {with}{encrypted}{logged_in} id {}", about.id),
    ];
    // An address that is not ASCII would keep out the servers without SMTPUTF8, whoever the message is for in the end.
    if let [recipient] = about.recipients
        && !recipient.address.needs_utf8()
    {
        parts.push(format!("for <{recipient}>"));
    }
    if let Some(last) = parts.last_mut() {
        last.push(';');
    }
    parts.push(time::rfc5322(origin.at));
    out.extend_from_slice(b"Received:");
    let mut column = 9;
    for part in parts {
        if column + 1 + part.len() > 78 && column > 9 {
            out.extend_from_slice(b"\r\n\t");
            column = 8;
        } else {
            out.push(b' ');
            column += 1;
        }
        out.extend_from_slice(part.as_bytes());
        column += part.len();
    }
    out.extend_from_slice(b"\r\n");
}
