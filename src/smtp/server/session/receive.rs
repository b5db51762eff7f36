//! The content of a message as it arrives: header judged once, body kept or handed on in pieces, refusals held back to
//! the end (RFC 5321 §4.1.1.4).
//!
//! It is the only part that sees many octets, so they are bounded here. Nothing is stored here.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    mail::{
        message::{BODY_IN_MEMORY, Envelope},
        repair,
        reply::Reply,
    },
    policy::{About, archive::Archive},
    route::{Route, RouteName},
    smtp::{
        data::{ContentFault, End, Leniency},
        server::tolerance::Quirk,
    },
};

use super::{
    Accepted, Session, Step,
    commands::connectors,
    state::{ChunkGoal, Incoming, Phase},
};

/// A header beyond this is refused.
const HEADER_LIMIT: usize = 256 * 1024;
/// Octets looked at in one turn, and the size of the pieces that go to the spool.
pub(super) const PIECE: usize = 64 * 1024;

impl Session {
    pub(super) fn leniency(&self) -> Leniency {
        Leniency {
            lf_only: self.client.as_ref().is_some_and(|c| c.lf_only),
            bare_cr: self.tolerance.bare_cr,
        }
    }

    /// Takes a piece of content.
    pub(super) fn receive(&mut self, input: &mut BytesMut) {
        let Phase::Data(mut incoming) = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        let piece = input.get(..PIECE).unwrap_or(input);
        let (taken, end) = self.take_in(&mut incoming, piece, false);
        input.advance(taken);
        let limit = self.rules.message_size;
        match end {
            Some(end) => self.ended(*incoming, end),
            None if incoming.size() > limit.saturating_add(limit / 2) => {
                // A client that does not stop is not read any further.
                let reply = incoming
                    .refused
                    .unwrap_or_else(|| Reply::message_too_big(limit));
                self.wants_lf_only |= incoming.decoder.had_loose_dot();
                self.rejected("data", None, &reply);
                self.close(Some(reply));
            }
            None => {
                if let Some(piece) = spoolable(&mut incoming) {
                    self.push(Step::Spool(piece));
                }
                self.phase = Phase::Data(incoming);
            }
        }
    }

    /// Decodes a piece and looks at what it makes of the message; `is_last`: it is the end of the last chunk. Says how much of the piece
    /// was taken, and whether the message is complete.
    pub(super) fn take_in(
        &mut self,
        incoming: &mut Incoming,
        piece: &[u8],
        is_last: bool,
    ) -> (usize, Option<End>) {
        if incoming.kept.is_empty() && incoming.refused.is_none() {
            // Room for all of it at once, where all of it is there.
            incoming.kept.reserve(piece.len());
        }
        let (taken, mut end) = incoming.decoder.decode(piece, &mut incoming.kept);
        if is_last {
            incoming.decoder.finish(&mut incoming.kept);
            end = Some(End::Strict);
        }
        let limit = self.rules.message_size;
        let mut unspool = false;
        let was_judged = incoming.header.is_some();
        if let Some(reply) = incoming.decoder.fault().map(fault_reply) {
            // It ends the session, whatever else is wrong.
            unspool |= incoming.refuse(reply.clone());
            incoming.refused = Some(reply);
        } else if incoming.decoder.content_size() > limit {
            unspool |= incoming.refuse(Reply::message_too_big(limit));
        } else if let Some(transaction) = &self.transaction
            && incoming.decoder.content_size() > transaction.route_size_limit
        {
            // Better said now than in a bounce.
            let limit = transaction.route_size_limit;
            unspool |= incoming.refuse(Reply::too_big_for("any connector of its route", limit));
        }
        if incoming.refused.is_some() {
            incoming.kept.clear();
        } else if incoming.header.is_none()
            && let Err(reply) = self.judge(incoming, end.is_some())
        {
            unspool |= incoming.refuse(reply);
        }
        if !was_judged && incoming.header.is_some() {
            for rule in &incoming.origin.rules {
                self.findings.add("header", || rule.clone());
            }
            for archive in &incoming.archives {
                let way = self
                    .rules
                    .router
                    .named(&RouteName::of_archive(&archive.name));
                self.findings.add("archive", || told(archive, way));
            }
        }
        if unspool {
            self.push(Step::Unspool);
        }
        (taken, end)
    }

    fn note_content(&mut self, incoming: &Incoming, end: End) {
        let (header, begin) = incoming.header_octets;
        let size = incoming.decoder.content_size();
        self.content = Some((header, size.saturating_sub(begin)));
        self.wants_lf_only |= incoming.decoder.had_loose_dot();
        if end == End::Loose {
            self.forgiven.add(Quirk::LfOnly);
        }
        if incoming.decoder.took_bare_cr() {
            self.forgiven.add(Quirk::BareCr);
        }
        if incoming.has_unquoted_name {
            self.forgiven.add(Quirk::UnquotedNames);
        }
    }

    /// Looks for the end of the header and has it judged, once.
    fn judge(&self, incoming: &mut Incoming, complete: bool) -> Result<(), Reply> {
        let Some(found) = repair::header_end(&incoming.kept, &mut incoming.looked, complete) else {
            if incoming.kept.len() > HEADER_LIMIT {
                return Err(Reply::header_too_big());
            }
            return Ok(());
        };
        let raw = incoming
            .kept
            .get(found.start..found.end)
            .unwrap_or_default();
        if raw.len() > HEADER_LIMIT {
            return Err(Reply::header_too_big());
        }
        let Some(transaction) = &self.transaction else {
            return Err(Reply::bad_sequence("no transaction"));
        };
        let about = About {
            who: self.who(),
            id: incoming.id,
            origin: &incoming.origin,
            sender_given: transaction.given.as_ref(),
            sender: transaction.sender.as_ref(),
            rewrite: transaction.rewrite,
            recipients: &transaction.recipients,
            redirected: &transaction.redirected,
            hostname: &self.rules.hostname,
            bounce_from: &self.rules.bounce_from,
            unquoted_names: self.tolerance.unquoted_names,
        };
        let policy = &self.rules.policy;
        incoming.header_octets = (raw.len() as u64, found.body as u64);
        let header = policy.header(raw, &about)?;
        incoming.archives = policy.archives(raw, &about)?;
        if about.unquoted_names {
            let strict = About {
                unquoted_names: false,
                ..about
            };
            incoming.has_unquoted_name = policy.header(raw, &strict).is_err();
        }
        if !policy.header_rules.is_empty() {
            let rules = policy.header_rules(&about);
            incoming.origin.rules.extend(rules);
        }
        incoming.header = Some(header);
        let body = found.body.min(incoming.kept.len());
        incoming.kept.advance(body);
        Ok(())
    }

    /// The final dot, or the end of the last chunk.
    pub(super) fn ended(&mut self, mut incoming: Incoming, end: End) {
        // What stands behind a loose end could be smuggled: it is not read.
        let close = incoming.decoder.fault().is_some() || end == End::Loose;
        self.note_content(&incoming, end);
        if let Some(reply) = incoming.refused {
            self.rejected("data", None, &reply);
            if close {
                return self.close(Some(reply));
            }
            self.phase = Phase::Command;
            self.transaction = None;
            return self.error(reply);
        }
        let (Some(transaction), Some(header)) = (self.transaction.take(), incoming.header) else {
            // Cannot be: without a transaction there is no DATA, and without a header there is a refusal.
            return self.close(None);
        };
        let body = if incoming.spooled || incoming.kept.len() > BODY_IN_MEMORY {
            if !incoming.kept.is_empty() {
                self.push(Step::Spool(incoming.kept.split().freeze()));
            }
            None
        } else {
            // A copy, so that a small body does not keep a large buffer alive.
            Some(Bytes::copy_from_slice(&incoming.kept))
        };
        self.phase = Phase::Storing {
            id: incoming.id,
            close,
        };
        let jobs = self.rules.router.jobs(&transaction.routed);
        let mut origin = incoming.origin;
        origin.rules.extend(transaction.redirected.words());
        for (route, holder) in &transaction.held {
            origin
                .rules
                .push(format!("held by {holder} on route {route}"));
        }
        self.push(Step::Enqueue(Box::new(Accepted {
            id: incoming.id,
            envelope: Envelope {
                sender: transaction.sender,
                recipients: transaction.recipients,
                eight_bit: transaction.eight_bit,
                dsn: transaction.dsn,
            },
            origin,
            header: header.into(),
            body,
            jobs,
            tally: transaction.tally,
            redirected: transaction.redirected.counts().to_vec(),
            archives: incoming.archives,
            held: transaction.held,
        })));
    }

    /// The spool file failed, maybe after the final dot was read.
    pub(super) fn cannot_spool(&mut self, reply: Reply) {
        self.pending
            .retain(|step| !matches!(step, Step::Spool(_) | Step::Enqueue(_)));
        let chunks = self.transaction.as_mut().and_then(|t| t.chunks.as_mut());
        match (&mut self.phase, chunks) {
            (Phase::Data(incoming), _) | (Phase::Command, Some(incoming)) => {
                // The driver may have made the file before it failed.
                incoming.refuse(reply);
                self.push(Step::Unspool);
            }
            (Phase::Chunk(chunk), _) => {
                if let ChunkGoal::Message(incoming) = &mut chunk.goal {
                    incoming.refuse(reply);
                }
                self.push(Step::Unspool);
            }
            (Phase::Storing { close, .. }, _) => {
                let close = *close;
                self.push(Step::Unspool);
                self.rejected("data", None, &reply);
                self.finish(reply, close);
            }
            _ => {}
        }
    }

    /// The reply to the final dot.
    pub(super) fn finish(&mut self, reply: Reply, close: bool) {
        self.transaction = None;
        if close {
            self.close(Some(reply));
        } else {
            self.phase = Phase::Command;
            self.say(reply);
        }
    }
}

/// What of the body goes to the spool now: nothing up to the threshold, then pieces of a fair size.
pub(super) fn spoolable(incoming: &mut Incoming) -> Option<Bytes> {
    incoming.header.as_ref()?;
    let enough = if incoming.spooled {
        incoming.kept.len() >= PIECE
    } else {
        incoming.kept.len() > BODY_IN_MEMORY
    };
    if !enough {
        return None;
    }
    incoming.spooled = true;
    Some(incoming.kept.split().freeze())
}

/// For `explain`.
fn told(archive: &Archive, way: Option<&Route>) -> String {
    format!(
        "[[archive]] {}: a copy goes to {} by {}, in this order, as form = \"{}\"",
        archive.name,
        archive.to,
        way.map(connectors).unwrap_or_default(),
        archive.form.as_str()
    )
}

fn fault_reply(fault: ContentFault) -> Reply {
    Reply::bad_line_endings(match fault {
        ContentFault::BareCr => "a bare CR in it",
        ContentFault::Nul => "a NUL in it",
        ContentFault::FramedDot => "a dot line that is not framed by CRLF",
    })
}
