//! What a report says of a recipient, and which of the four kinds of report says it (RFC 3464 §2.3.3).
//!
//! `plan` and the store tell what became of somebody; here it is put into words of a report. Who is told is `reports`' to decide.

use std::{fmt::Write as _, time::SystemTime};

use crate::{
    delivery::plan::{Failure, Receipt},
    mail::{recipient::Recipient, reply::Reply, text::ascii},
};

/// So much of an upstream's reply is repeated.
const MOST_REPLY: usize = 400;

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// It was given up.
    Failed,
    /// It was passed on to where no reports are made.
    Relayed,
    /// It was delivered.
    Delivered,
    /// It takes long.
    Delayed,
}

impl ReportKind {
    /// Of one that was taken.
    pub fn of(receipt: &Receipt) -> Self {
        if receipt.is_final {
            Self::Delivered
        } else {
            Self::Relayed
        }
    }

    /// The word in the report, the log and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
            Self::Delayed => "delayed",
        }
    }
}

/// A recipient in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedRecipient {
    /// Who, and who it was at first.
    pub recipient: Recipient,
    /// In words, before what was said.
    pub why: &'static str,
    /// RFC 3463.
    pub status: String,
    /// The last answer, bounded, a line each, printable ASCII; `None`: there was none yet.
    pub said: Option<String>,
    /// It may have arrived.
    pub in_doubt: bool,
    /// Until when it is tried; `None` where that is over, not known, or where it is held.
    pub until: Option<SystemTime>,
}

impl ReportedRecipient {
    /// One that was given up.
    pub fn failed(failure: &Failure) -> Self {
        // RFC 3463: a code that says «not now» would contradict the action (RFC 3464 §2.3.4); after giving up it is
        // 5.4.7, delivery time expired.
        let status = match failure.reply.status() {
            (5, b, c) => format!("5.{b}.{c}"),
            _ if failure.gave_up => "5.4.7".to_owned(),
            _ => "5.0.0".to_owned(),
        };
        Self {
            recipient: failure.recipient.clone(),
            why: match (failure.gave_up, failure.in_doubt) {
                (false, false) => "It was refused:",
                (false, true) => {
                    "An earlier attempt got no answer and may have arrived. A later one was refused:"
                }
                (true, false) => "It was tried until the time for it was over. The last answer:",
                (true, true) => {
                    "It may have arrived: the connection was lost after it was sent. The last answer:"
                }
            },
            status,
            said: Some(said(&failure.reply)),
            in_doubt: failure.in_doubt,
            until: None,
        }
    }

    /// One that was taken.
    pub fn taken(receipt: &Receipt) -> Self {
        Self {
            recipient: receipt.recipient.clone(),
            why: "The answer:",
            status: match receipt.reply.status() {
                (2, b, c) => format!("2.{b}.{c}"),
                _ => "2.0.0".to_owned(),
            },
            said: Some(said(&receipt.reply)),
            in_doubt: false,
            until: None,
        }
    }

    /// One that still waits; `said`: the last answer, as lists show it. `is_held`: nobody tries it.
    pub fn delayed(recipient: Recipient, said: Option<&str>, is_held: bool) -> Self {
        let said = said
            .map(|said| lines(&printed(said)))
            .filter(|said| !said.is_empty());
        Self {
            recipient,
            why: match (&said, is_held) {
                (Some(_), false) => "The last answer:",
                (None, false) => "It was not tried yet.",
                (Some(_), true) => {
                    "It is held here, and not tried until it is let go. The last answer:"
                }
                (None, true) => "It is held here, and not tried until it is let go.",
            },
            status: said
                .as_deref()
                .and_then(transient)
                .unwrap_or("4.0.0".to_owned()),
            said,
            in_doubt: false,
            until: None,
        }
    }
}

/// The enhanced code of an answer that says «not now».
fn transient(said: &str) -> Option<String> {
    let word = said.split_ascii_whitespace().nth(1)?;
    let mut parts = word.split('.').map(str::parse::<u16>);
    let code = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    match (code, parts.next()) {
        ((4, b, c), None) if b < 1000 && c < 1000 => Some(format!("4.{b}.{c}")),
        _ => None,
    }
}

/// The reply as the upstream said it.
fn said(reply: &Reply) -> String {
    let mut out = reply.code.to_string();
    if let Some((a, b, c)) = reply.enhanced {
        // Writing to a String cannot fail.
        let _ = write!(out, " {a}.{b}.{c}");
    }
    out.push(' ');
    out.push_str(&printed(
        &reply.text.chars().take(MOST_REPLY).collect::<String>(),
    ));
    lines(&out)
}

/// Printable ASCII, bounded, a line each.
fn printed(text: &str) -> String {
    let shown = |c| if c == '\n' { c } else { ascii(c) };
    text.chars().take(MOST_REPLY).map(shown).collect()
}

/// An empty line would end the group of fields (RFC 3464 §2.1).
fn lines(text: &str) -> String {
    text.split('\n')
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::address;

    #[test]
    fn what_waits_says_not_now_whatever_was_said() {
        for (said, status, shown) in [
            (None, "4.0.0", None),
            (Some(""), "4.0.0", None),
            (Some("450 4.2.1 later"), "4.2.1", Some("450 4.2.1 later")),
            (Some("550 5.1.1 no"), "4.0.0", Some("550 5.1.1 no")),
            (Some("451 4.4.1.2 x"), "4.0.0", Some("451 4.4.1.2 x")),
            (Some("451 x\r\n\ny\u{202e}"), "4.0.0", Some("451 x?\ny?")),
        ] {
            let one = ReportedRecipient::delayed(address("x@y.example").into(), said, false);
            assert!(!one.why.contains("held"));
            assert_eq!(one.status, status, "{said:?}");
            assert_eq!(one.said.as_deref(), shown, "{said:?}");
            let held = ReportedRecipient::delayed(address("x@y.example").into(), said, true);
            assert!(held.why.starts_with("It is held here"));
        }
    }
}
