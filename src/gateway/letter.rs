//! What somebody has written on the page becomes a letter, as `postern send` composes it.

use lettre::message::Mailbox;

use super::{handover, report::composed::Letter};
use crate::{admin::host::NewMail, mail::text::shown_to};

/// Composed of what somebody wrote.
pub(super) fn composed(mail: &NewMail) -> Result<Letter, String> {
    let read = |text: &String| {
        let mailbox = text.parse::<Mailbox>();
        mailbox.map_err(|error| format!("{:?} is no address: {error}", shown_to(text, 100)))
    };
    let all = |list: &[String]| list.iter().map(read).collect::<Result<Vec<_>, _>>();
    if mail.to.is_empty() && mail.cc.is_empty() && mail.bcc.is_empty() {
        return Err("it has no recipient".to_owned());
    }
    if mail.subject.contains(['\r', '\n']) {
        return Err("a subject is one line".to_owned());
    }
    let markdown = handover::plain(mail.markdown.as_bytes());
    Ok(Letter {
        from: read(&mail.from)?,
        to: all(&mail.to)?,
        cc: all(&mail.cc)?,
        bcc: all(&mail.bcc)?,
        subject: mail.subject.clone(),
        markdown: String::from_utf8_lossy(&markdown).into_owned(),
        enclosures: Vec::new(),
    })
}
