//! What was refused lately, in memory: whoever stands before a device that cannot send looks here first.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde::Serialize;

use crate::{
    mail::{text::shown_to, time::rfc3339},
    smtp::server::session::Rejection,
};

/// Refusals that are remembered.
const REFUSED: usize = 10_000;
/// Octets of a text from outside.
pub(super) const TEXT: usize = 320;

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RefusedRow {
    /// Counted from the start of the gateway.
    pub number: u64,
    /// When.
    pub at: String,
    /// Of whom.
    pub address: String,
    /// The `[[client]]` that it is in.
    pub client: Option<String>,
    /// Where it came in.
    pub listener: String,
    /// `connect`, `auth`, `mail`, `rcpt`, `data`.
    pub stage: String,
    /// The sender as given, if known.
    pub sender: Option<String>,
    /// The recipient as given, if it is about one.
    pub recipient: Option<String>,
    /// What it was told.
    pub reply: String,
}

/// What could not be read as a path stands there with the word before it.
fn without_word(text: &str) -> &str {
    let words = ["FROM:", "TO:"].into_iter();
    let word = words.filter_map(|word| text.split_at_checked(word.len()).zip(Some(word)));
    let mut rests = word.filter(|((begin, _), word)| begin.eq_ignore_ascii_case(word));
    rests.next().map_or(text, |((_, rest), _)| rest.trim())
}

/// The oldest first, with the number of the last.
#[derive(Debug, Default)]
pub struct RefusedRing(Mutex<(u64, VecDeque<RefusedRow>)>);

impl RefusedRing {
    /// One more.
    pub(super) fn add(
        &self,
        (peer, client, listener): (IpAddr, Option<&str>, &str),
        rejection: &Rejection,
        now: SystemTime,
    ) {
        let shown = |text: &String| shown_to(without_word(text), TEXT);
        let row = RefusedRow {
            number: 0,
            at: rfc3339(now),
            address: peer.to_canonical().to_string(),
            client: client.map(str::to_owned),
            listener: listener.to_owned(),
            stage: rejection.stage.to_owned(),
            sender: rejection.sender.as_ref().map(shown),
            recipient: rejection.recipient.as_ref().map(shown),
            reply: shown_to(&rejection.reply.to_string(), TEXT),
        };
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.0 += 1;
        if refused.1.len() >= REFUSED {
            refused.1.pop_front();
        }
        let number = refused.0;
        refused.1.push_back(RefusedRow { number, ..row });
    }

    /// The latest with their numbers, the latest first, older than that of a number.
    pub fn list(
        &self,
        takes: impl Fn(&RefusedRow) -> bool,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<(u64, RefusedRow)> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, rows) = &*refused;
        let numbered = (0..=*last).rev().zip(rows.iter().rev());
        numbered
            .filter(|(number, row)| before.is_none_or(|before| *number < before) && takes(row))
            .take(limit)
            .map(|(number, row)| (number, row.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mail::reply::Reply;

    #[test]
    fn what_is_no_path_stands_without_its_word() {
        for (given, expected) in [
            ("a@corp.example", "a@corp.example"),
            ("from: <<b>", "<<b>"),
            ("TO:ü", "ü"),
            ("TO", "TO"),
            ("to@corp.example", "to@corp.example"),
            ("", ""),
        ] {
            assert_eq!(without_word(given), expected);
        }
    }

    #[test]
    fn the_latest_are_kept_and_told_by_parts() {
        let refused = RefusedRing::default();
        let rejection = |n: u64| Rejection {
            stage: "rcpt",
            sender: Some("x".repeat(1_000)),
            recipient: Some(format!("r{n}@evil.tld")),
            reply: Reply::new(550, (5, 7, 1), "no"),
        };
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        for n in 0..10_050 {
            refused.add(
                (ip, None, "local"),
                &rejection(n),
                SystemTime::UNIX_EPOCH + Duration::from_secs(n),
            );
        }
        let first = refused.list(|_| true, None, 10);
        assert_eq!(first[0].1.recipient.as_deref(), Some("r10049@evil.tld"));
        let all = refused.list(|_| true, None, usize::MAX);
        assert_eq!(all.len(), REFUSED);
        let next = refused.list(|_| true, Some(first[9].0), 1);
        assert_eq!(next[0].1.recipient.as_deref(), Some("r10039@evil.tld"));
        assert!(all[0].1.sender.as_ref().unwrap().len() < 400);
    }
}
