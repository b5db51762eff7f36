//! Whose turn it is to speak: how many questions are out, and what has come.
//!
//! It is one rule that no write may go round, whatever part of the conversation it belongs to: nothing is
//! written while something is there that nobody asked for. A reply that comes before its question answers nothing; who
//! takes it for the answer gives every later reply to the wrong question (RFC 5321 §4.1.1, RFC 2920 §3.1). It decides
//! nothing about what follows from a breach.

use std::collections::VecDeque;

use super::reply::{BadReply, Replies};
use crate::mail::reply::Reply;

/// What came although nobody had asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// The reply, where it is one and has its end.
    pub reply: Option<Reply>,
    /// What came, for people: printable, cut, nothing masked.
    pub said: String,
}

impl Unasked {
    /// 421 may be said at any time (RFC 5321 §3.8): the upstream takes its leave, and answers nothing by it.
    pub fn is_farewell(&self) -> bool {
        self.reply.as_ref().is_some_and(|r| r.code == 421)
    }
}

/// Why there is no reply to hand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnError {
    /// What came is no reply; the second is what it is, for people.
    Broken(BadReply, String),
    /// There is more behind the last reply that was asked for, so nobody can say which of them is the answer.
    Unasked(Unasked),
}

/// Questions and answers of one connection.
#[derive(Debug, Default)]
pub struct Turns {
    replies: Replies,
    /// Whole replies that have not been handed out.
    ready: VecDeque<Reply>,
    /// Questions without an answer.
    asked: usize,
}

impl Turns {
    /// At the beginning the upstream owes its greeting.
    pub fn new() -> Self {
        Self {
            asked: 1,
            ..Self::default()
        }
    }

    /// An answer is due.
    pub fn is_asked(&self) -> bool {
        self.asked > 0
    }

    /// So many questions are about to be written.
    pub fn ask(&mut self, questions: usize) {
        self.asked += questions;
    }

    /// Takes in what was read. Only after [`Turns::next_reply`] or [`Turns::unasked`] said that there is nothing.
    pub fn feed(&mut self, octets: &[u8]) {
        self.replies.feed(octets);
    }

    /// The answer to the oldest question, or `None` when more octets are needed.
    ///
    /// # Errors
    /// [`TurnError`]: the connection is useless from here on.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, TurnError> {
        let found = match self.ready.pop_front() {
            Some(reply) => Some(reply),
            None => self.replies.next_reply().map_err(|why| self.broken(why))?,
        };
        if found.is_some() {
            self.asked = self.asked.saturating_sub(1);
            if self.asked == 0
                && let Some(more) = self.unasked()
                && !more.is_farewell()
            {
                return Err(TurnError::Unasked(more));
            }
        }
        Ok(found)
    }

    /// The rule: what is here beyond the answers to the questions that are out, a part of a line too. Asked before
    /// every write.
    pub fn unasked(&mut self) -> Option<Unasked> {
        while self.ready.len() <= self.asked {
            match self.replies.next_reply() {
                Ok(Some(reply)) => self.ready.push_back(reply),
                // Where answers are due, the broken one may be the next of them; who reads it will see.
                Err(_) if self.ready.len() < self.asked => return None,
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(reply) = self.ready.get(self.asked) {
            return Some(Unasked {
                said: reply.to_string(),
                reply: Some(reply.clone()),
            });
        }
        let is_begun = self.ready.len() == self.asked && !self.replies.is_drained();
        is_begun.then(|| Unasked {
            reply: None,
            said: self.replies.rest(),
        })
    }

    /// A reply that nobody asked for, as a last word of somebody who hangs up.
    pub fn last_word(&mut self) -> Option<Reply> {
        self.ready
            .pop_front()
            .or_else(|| self.replies.next_reply().ok().flatten())
    }

    /// Nothing is buffered: no octet came that was not part of a reply already handed out.
    pub fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.replies.is_drained()
    }

    fn broken(&self, why: BadReply) -> TurnError {
        TurnError::Broken(why, self.replies.rest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(asked: usize, octets: &str) -> Turns {
        let mut turns = Turns::new();
        turns.ask(asked);
        // The greeting.
        turns.feed(b"220 up\r\n");
        assert!(matches!(turns.next_reply(), Ok(Some(r)) if r.code == 220));
        turns.feed(octets.replace('|', "\r\n").as_bytes());
        turns
    }

    #[test]
    fn what_nobody_asked_for() {
        for (asked, octets, said) in [
            (0, "", None),
            (0, "250 2.0.0 early|", Some("250 2.0.0 early")),
            (0, "250-a|250 b|", Some("250 a / b")),
            (0, "2", Some("2")),
            (0, "250-a|25", Some("25")),
            (0, "250-a|", Some("250-")),
            (0, "hello|", Some("hello")),
            (0, "\u{1}\u{2}|", Some("")),
            (1, "250 a|", None),
            (1, "250 a", None),
            (1, "hello|", None),
            (1, "250 a|250 b|", Some("250 b")),
            (1, "250 a|2", Some("2")),
            (2, "250 a|250 b|", None),
            (2, "250 a|250 b|550 c|", Some("550 c")),
            (3, "250 a|hello|", None),
        ] {
            let mut turns = turns(asked, octets);
            let found = turns.unasked();
            let found = found.as_ref().map(|u| u.said.as_str());
            assert_eq!(found, said, "{asked} {octets}");
        }
    }

    /// The last answer is handed out only where nothing stands behind it; leave may be taken.
    #[test]
    fn no_answer_out_of_two() {
        for (asked, octets, codes, unasked) in [
            (1, "250 a|", vec![250], false),
            (1, "250 a|421 b|", vec![250], false),
            (1, "250 a|550 b|", vec![], true),
            (1, "250 a|2", vec![], true),
            (2, "250 a|550 b|", vec![250, 550], false),
            (2, "250 a|550 b|250 c|", vec![250], true),
        ] {
            let mut turns = turns(asked, octets);
            let mut found = Vec::new();
            let end = loop {
                match turns.next_reply() {
                    Ok(Some(reply)) if found.len() < asked => found.push(reply.code),
                    Ok(_) => break false,
                    Err(wrong) => break matches!(wrong, TurnError::Unasked(_)),
                }
            };
            assert_eq!((found, end), (codes, unasked), "{octets}");
        }
        let mut turns = turns(1, "hello there|");
        assert_eq!(
            turns.next_reply(),
            Err(TurnError::Broken(BadReply::NoCode, "hello there".into()))
        );
    }
}
