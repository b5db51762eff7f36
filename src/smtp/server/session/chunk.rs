//! BDAT (RFC 3030): content in chunks whose octets are counted instead of searched for their end.
//!
//! What was announced is read before anything is said, whatever is said then: nothing of a refused chunk is ever looked at as a command.
//! Where that cannot be done the session ends.

use bytes::{Buf as _, BytesMut};

use crate::{
    mail::reply::Reply,
    smtp::{data::End, server::command},
};

use super::{
    Session, Step,
    receive::{PIECE, spoolable},
    state::{Chunk, ChunkGoal, ChunkHead, Phase},
};

/// Chunks below this, but for the last, count as commands that send no mail.
const TINY: u64 = 512;

impl Session {
    /// Whether a message has begun to come in chunks.
    pub fn has_chunks(&self) -> bool {
        let transaction = self.transaction.as_ref();
        transaction.is_some_and(|transaction| transaction.chunks.is_some())
    }

    /// The transaction is over without a message; what was kept of one goes.
    pub(super) fn abandon(&mut self) {
        let transaction = self.transaction.take();
        let chunks = transaction.and_then(|transaction| transaction.chunks);
        if chunks.is_some_and(|chunks| chunks.spooled) {
            self.push(Step::Unspool);
        }
    }

    /// The BDAT command; its octets follow at once.
    pub(super) fn chunk(&mut self, argument: &[u8]) {
        if !self.listener.chunking || !self.esmtp {
            return self.close(Some(Reply::bad_sequence("CHUNKING is not offered")));
        }
        let head = match command::chunk(argument) {
            Ok((size, is_last)) => ChunkHead { size, is_last },
            Err(reply) => {
                self.rejected("data", None, &reply);
                return self.close(Some(reply));
            }
        };
        let limit = self.rules.message_size;
        let before = self.transaction.as_ref().and_then(|t| t.chunks.as_ref());
        let before = before.map_or(0, |incoming| incoming.size());
        if before.saturating_add(head.size) > limit.saturating_add(limit / 2) {
            // So much is read from nobody.
            let reply = Reply::message_too_big(limit);
            self.rejected("data", None, &reply);
            return self.close(Some(reply));
        }
        let is_junk = head.size < TINY && !head.is_last || self.chunks_refused;
        if is_junk && !self.count_command() {
            return;
        }
        let goal = match &mut self.transaction {
            None => ChunkGoal::Nothing(Reply::bad_sequence("say MAIL and RCPT first")),
            Some(transaction) if transaction.recipients.is_empty() => {
                ChunkGoal::Nothing(Reply::no_recipients())
            }
            Some(transaction) => {
                let Some(incoming) = transaction.chunks.take() else {
                    self.phase = Phase::Opening(Some(head));
                    return self.push(Step::Data);
                };
                ChunkGoal::Message(incoming)
            }
        };
        self.open_chunk(head, goal);
        self.push(Step::Chunk);
    }

    pub(super) fn open_chunk(&mut self, head: ChunkHead, goal: ChunkGoal) {
        self.phase = Phase::Chunk(Box::new(Chunk {
            head,
            left: head.size,
            goal,
        }));
    }

    /// Takes a piece of a chunk.
    pub(super) fn receive_chunk(&mut self, input: &mut BytesMut) {
        let Phase::Chunk(mut chunk) = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        let left = usize::try_from(chunk.left).unwrap_or(usize::MAX);
        let octets = left.min(input.len()).min(PIECE);
        chunk.left -= octets as u64;
        let is_over = chunk.left == 0;
        if let ChunkGoal::Message(incoming) = &mut chunk.goal {
            let piece = input.get(..octets).unwrap_or_default();
            let is_last = chunk.head.is_last && is_over;
            self.take_in(incoming, piece, is_last);
            if !is_last && let Some(piece) = spoolable(incoming) {
                self.push(Step::Spool(piece));
            }
        }
        input.advance(octets);
        if is_over {
            self.chunk_taken(*chunk);
        } else {
            self.phase = Phase::Chunk(chunk);
        }
    }

    /// All of it was read: now it is answered.
    fn chunk_taken(&mut self, chunk: Chunk) {
        let incoming = match chunk.goal {
            ChunkGoal::Message(incoming) => incoming,
            ChunkGoal::Nothing(reply) => return self.refuse_chunk(reply),
        };
        if chunk.head.is_last {
            return self.ended(*incoming, End::Strict);
        }
        // What could be smuggled is heard to the end, as in DATA; all else need not be sent any further.
        let has_fault = incoming.decoder.fault().is_some();
        match incoming.refused.clone() {
            Some(reply) if !has_fault => self.refuse_chunk(reply),
            _ => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunks = Some(incoming);
                }
                self.phase = Phase::Command;
                self.say(Reply::chunk_taken(chunk.head.size));
            }
        }
    }

    /// Ends the transaction. A client that did not wait for the answer has more chunks on their way.
    fn refuse_chunk(&mut self, reply: Reply) {
        self.rejected("data", None, &reply);
        self.abandon();
        self.phase = Phase::Command;
        if std::mem::replace(&mut self.chunks_refused, true) {
            self.say(reply);
        } else {
            self.error(reply);
        }
    }
}
