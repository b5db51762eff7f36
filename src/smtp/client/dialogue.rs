//! One delivery over an open conversation: MAIL, RCPT, DATA, content, as often as needed, and an outcome for every
//! recipient.
//!
//! From MAIL on the message is being attempted; what comes before is [`super::opening`]. It decides nothing about retry.

mod outcomes;
mod step;
mod suited;
mod wishes;

use std::{collections::VecDeque, sync::Arc};

use self::{outcomes::Outcomes, wishes::SaidWishes};
use super::{
    Stage,
    capabilities::Capabilities,
    class::{Narrow, Override, Place, is_out_of_step},
    command::ClientCommand,
    mask::Mask,
};
use crate::mail::{
    outcome::{Obstacle, Outcome, Report},
    reply::Reply,
    text::bounded,
};

pub use self::step::{DialogueStep, Reuse, Sent};
pub use super::command::Mail;

/// One delivery.
#[derive(Debug)]
pub struct Dialogue<'a> {
    mail: Mail<'a>,
    offered: &'a Capabilities,
    overrides: &'a [Override],
    chunk: usize,
    outcomes: Outcomes<'a>,
    /// Recipients of transactions to come.
    later: VecDeque<usize>,
    /// Those that the upstream has accepted in the transaction under way.
    accepted: Vec<usize>,
    /// Those of the transaction under way.
    batch: Vec<usize>,
    to_send: VecDeque<ClientCommand>,
    to_answer: VecDeque<ClientCommand>,
    heard: bool,
    /// MAIL was answered.
    begun: bool,
    transactions: usize,
    /// The upstream waits for the content of the transaction under way, or has it.
    in_content: bool,
    is_cut: bool,
    /// Its first group was written behind the dot of another message.
    is_early: bool,
    is_out_of_turn: bool,
    /// MAIL was answered with 503.
    is_thread_lost: bool,
    wishes: SaidWishes,
    /// Those whose outcome is the answer to a final dot.
    by_dot: Vec<usize>,
    reuse: Reuse,
}

impl<'a> Dialogue<'a> {
    /// A delivery in transactions of at most `chunk` recipients; `reset`: the connection needs RSET first.
    pub fn new(
        mail: Mail<'a>,
        offered: &'a Capabilities,
        overrides: &'a [Override],
        chunk: usize,
        reset: bool,
    ) -> Self {
        Self {
            mail,
            offered,
            overrides,
            chunk: chunk.max(1),
            outcomes: Outcomes::new(mail, overrides),
            later: (0..mail.recipients.len()).collect(),
            accepted: Vec::new(),
            batch: Vec::new(),
            to_send: VecDeque::new(),
            to_answer: VecDeque::new(),
            heard: false,
            begun: false,
            transactions: 0,
            in_content: false,
            is_cut: false,
            is_early: false,
            is_out_of_turn: false,
            is_thread_lost: false,
            wishes: SaidWishes::new(offered.dsn),
            by_dot: Vec::new(),
            reuse: if reset {
                Reuse::AfterReset
            } else {
                Reuse::AsItIs
            },
        }
    }

    /// No outcome repeats what the mask hides.
    #[must_use]
    pub fn masked(mut self, mask: Arc<Mask>) -> Self {
        self.outcomes.mask = mask;
        self
    }

    /// Its first group stands behind the dot of another message: a reply too many may be the other's, so the end of the group is
    /// looked at in any case.
    #[must_use]
    pub fn early(mut self, is_early: bool) -> Self {
        self.is_early = is_early;
        self
    }

    /// Begins.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> DialogueStep {
        if let Some(reply) = suited::to_nobody(self.mail, self.offered) {
            self.later.clear();
            self.outcomes.fill(&Outcome::Unsuited(reply));
            return DialogueStep::Done;
        }
        for (index, reply) in suited::not_to(self.mail, self.offered) {
            self.later.retain(|later| *later != index);
            self.outcomes.set(index, Outcome::Unsuited(reply));
        }
        self.next_transaction(out)
    }

    /// A reply came.
    pub fn reply(&mut self, reply: &Reply, out: &mut Vec<u8>) -> DialogueStep {
        let Some(command) = self.to_answer.pop_front() else {
            self.out_of_turn("the upstream spoke out of turn", Sent::Commands);
            return DialogueStep::Done;
        };
        self.begun |= command == ClientCommand::Mail;
        // 503 to MAIL says that the upstream has lost the thread (our login, after a RSET), not that it refuses this message.
        let lost_thread = command == ClientCommand::Mail && is_out_of_step(reply, self.overrides);
        self.is_thread_lost |= lost_thread;
        // 421 to the first command on a connection that had been idle: it was closing before we spoke.
        let closing = command == ClientCommand::Mail && reply.code == 421;
        if command != ClientCommand::Reset && !closing && !lost_thread {
            self.heard = true;
        }
        // RFC 5321 §3.8: the upstream closes. Before the dot nothing can have been taken.
        let closes =
            reply.code == 421 && !matches!(command, ClientCommand::Dot | ClientCommand::LoneDot);
        if closes || lost_thread {
            self.reuse = Reuse::Never;
            if command == ClientCommand::Verify {
                // That the replies were in order was never said.
                self.outcomes.forget(std::mem::take(&mut self.batch));
            }
            self.refuse_rest(reply, command);
            return DialogueStep::Done;
        }
        match command {
            ClientCommand::Reset => {
                if !reply.is_positive() {
                    self.reuse = Reuse::Never;
                    self.refuse_rest(reply, command);
                    return DialogueStep::Done;
                }
                self.reuse = Reuse::AsItIs;
            }
            ClientCommand::Mail => {
                if reply.is_positive() {
                    self.reuse = Reuse::AfterReset;
                } else {
                    self.mail_refused(reply);
                }
            }
            ClientCommand::Recipient(index) => self.recipient(index, reply),
            ClientCommand::Data => return self.data(reply, out),
            ClientCommand::LoneDot => {
                // Whatever it says: no content was sent, so nothing was delivered. An upstream that accepts it is not to be trusted.
                self.reuse = if reply.is_permanent() || reply.is_transient() && reply.code != 421 {
                    Reuse::AfterReset
                } else {
                    Reuse::Never
                };
                return self.transaction_over(out);
            }
            ClientCommand::Dot => {
                self.dot(reply);
                return self.transaction_over(out);
            }
            ClientCommand::Verify => {
                if !reply.is_positive() {
                    let text = format!("the upstream answered RSET with {reply}");
                    self.out_of_turn(&text, Sent::Commands);
                    return DialogueStep::Done;
                }
                self.reuse = Reuse::AsItIs;
                return self.transaction_over(out);
            }
        }
        self.send_next(out)
    }

    /// The last octet of the content, the final dot's line, was written.
    pub fn content_sent(&mut self) -> DialogueStep {
        self.to_answer.push_back(ClientCommand::Dot);
        DialogueStep::Read(Stage::Dot)
    }

    /// A reply came when a part of the content was written, and not its end: the upstream has enough. It answers a
    /// question that was not put yet, so it is neither an acceptance nor a refusal, but for one: that the message is too
    /// big (X.3.4) answers nothing that was asked before.
    pub fn early_reply(&mut self, reply: &Reply) {
        if reply.is_permanent() && matches!(reply.enhanced, Some((_, 3, 4))) {
            self.refuse_accepted(reply, Place::Content);
        }
        let text = format!("the upstream spoke before the message was complete: {reply}");
        self.lost(&text, Sent::Commands);
    }

    /// The connection is lost, a limit of time has passed or a reply was broken. What was answered before stands.
    pub fn lost(&mut self, cause: &str, sent: Sent) {
        self.reuse = Reuse::Never;
        self.is_cut |= !self.in_content && self.transactions <= 1;
        if self.to_answer.front() == Some(&ClientCommand::Verify) {
            // That the replies were in order was never said.
            self.outcomes.forget(std::mem::take(&mut self.batch));
        }
        let text = self.outcomes.mask.text(cause);
        let text = bounded(&text);
        if sent == Sent::Nothing && !self.begun {
            // No MAIL was written on this connection: no attempt for the message.
            self.outcomes.not_tried(Obstacle::down(text));
        }
        if sent == Sent::Dot {
            let reply = Reply::new(
                451,
                (4, 4, 2),
                format!("no answer to the complete message, it may have arrived: {text}"),
            );
            for index in std::mem::take(&mut self.accepted) {
                self.outcomes.set(index, Outcome::InDoubt(reply.clone()));
            }
        }
        self.later.clear();
        let reply = Reply::new(451, (4, 4, 2), text);
        self.outcomes.fill(&Outcome::deferred(reply));
    }

    /// A reply came that nobody had asked for, so that those before it may be answers to other questions than they were
    /// taken for. No recipient of the transaction under way keeps what they said; once 354 was the answer to DATA, they
    /// were in order up to there.
    pub fn out_of_turn(&mut self, cause: &str, sent: Sent) {
        self.is_out_of_turn = true;
        if sent != Sent::Dot {
            self.outcomes.forget(std::mem::take(&mut self.batch));
        }
        self.lost(cause, sent);
    }

    /// No reply to MAIL or anything behind it has come: on a connection used before, another may be tried.
    pub fn untouched(&self) -> bool {
        !self.heard
    }

    /// The conversation broke off before any content was written: the message can take another connection as if nothing had been said.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The upstream says that MAIL is out of step.
    pub fn is_thread_lost(&self) -> bool {
        self.is_thread_lost
    }

    /// A reply came that nobody had asked for: which of them was the first too many, nobody knows.
    pub fn is_out_of_turn(&self) -> bool {
        self.is_out_of_turn
    }

    /// What was written behind the dot was answered with one reply too many: the dot's own may have been another.
    pub fn doubt(&mut self) {
        let reply = Reply::new(
            451,
            (4, 4, 2),
            "the upstream sent one reply too many behind the message, it may have arrived",
        );
        for index in std::mem::take(&mut self.by_dot) {
            self.outcomes
                .replace(index, Outcome::InDoubt(reply.clone()));
        }
    }

    /// What was said of too many connections, where nobody has got the message yet.
    pub fn crowded(&self) -> Option<&Reply> {
        self.outcomes.crowded()
    }

    /// The content that is due is the last of this delivery.
    pub fn is_last(&self) -> bool {
        self.later.is_empty()
    }

    /// Somebody got the message: the dot was answered with 2xx.
    pub fn is_taken(&self) -> bool {
        self.outcomes.is_taken()
    }

    /// The upstream accepted a recipient.
    pub fn is_welcome(&self) -> bool {
        self.outcomes.is_welcome()
    }

    /// Whom alone the reported refusal concerns, if the upstream is known to take other mail of ours.
    pub fn narrow(&self) -> Option<Narrow> {
        self.outcomes.narrow()
    }

    /// What the connection is good for now.
    pub fn reuse(&self) -> Reuse {
        self.reuse
    }

    /// The report; `via` says where it went. A recipient without an outcome is deferred.
    pub fn report(self, via: String) -> Report {
        self.outcomes.report(via, self.wishes.onward(self.mail))
    }

    fn next_transaction(&mut self, out: &mut Vec<u8>) -> DialogueStep {
        self.accepted.clear();
        self.to_send.clear();
        self.to_answer.clear();
        self.transactions += 1;
        self.in_content = false;
        let count = self.later.len().min(self.chunk);
        self.batch = self.later.drain(..count).collect();
        if self.batch.is_empty() {
            return DialogueStep::Done;
        }
        if self.reuse == Reuse::Never {
            let reply = Reply::new(451, (4, 4, 2), "the connection is of no further use");
            self.later.clear();
            self.outcomes.fill(&Outcome::deferred(reply));
            return DialogueStep::Done;
        }
        if self.reuse == Reuse::AfterReset {
            self.to_send.push_back(ClientCommand::Reset);
        }
        self.to_send.push_back(ClientCommand::Mail);
        let recipients = self.batch.iter().map(|i| ClientCommand::Recipient(*i));
        self.to_send.extend(recipients);
        self.to_send.push_back(ClientCommand::Data);
        self.send_next(out)
    }

    /// All that may be sent now: everything with PIPELINING (RFC 2920), else one command after each reply.
    fn send_next(&mut self, out: &mut Vec<u8>) -> DialogueStep {
        if self.to_answer.is_empty() {
            if self.to_send.front() == Some(&ClientCommand::Data) && self.accepted.is_empty() {
                // Nobody to send to.
                self.to_send.clear();
            }
            while let Some(command) = self.to_send.pop_front() {
                let with_wishes = self.wishes.go_with(command);
                command.write(self.mail, self.offered, with_wishes, out);
                self.to_answer.push_back(command);
                if !self.offered.pipelining {
                    break;
                }
            }
        }
        match self.to_answer.front() {
            Some(ClientCommand::Data) => DialogueStep::Read(Stage::Data),
            Some(ClientCommand::Dot | ClientCommand::LoneDot) => DialogueStep::Read(Stage::Dot),
            Some(_) => DialogueStep::Read(Stage::Envelope),
            None => self.transaction_over(out),
        }
    }

    fn mail_refused(&mut self, reply: &Reply) {
        if self
            .wishes
            .are_refused(ClientCommand::Mail, self.mail, reply)
        {
            self.later.extend(&self.batch);
        } else {
            // The sender or the message: it holds for the transactions to come as well.
            self.later.clear();
            let outcome = self.outcomes.judge(reply, Place::Mail);
            self.outcomes.fill(&outcome);
        }
        if !self.offered.pipelining {
            self.to_send.clear();
        }
    }

    fn recipient(&mut self, index: usize, reply: &Reply) {
        if self.outcomes.is_settled(index) || self.later.contains(&index) {
            // MAIL was refused; what is said of its recipients counts for nothing, but for 354 to DATA.
            return;
        }
        if reply.is_positive() {
            self.outcomes.welcome();
            self.accepted.push(index);
            return;
        }
        // RFC 5321 §4.5.3.1.10: too many recipients, or 552 in its old meaning: the rest in another transaction. Each
        // transaction settles the recipient it accepted, so this ends. X.2.X is about that mailbox alone.
        let too_many = matches!(reply.code, 452 | 552)
            && !self.accepted.is_empty()
            && reply.enhanced.is_none_or(|(_, subject, _)| subject != 2);
        let command = ClientCommand::Recipient(index);
        if too_many || self.wishes.are_refused(command, self.mail, reply) {
            self.later.push_back(index);
            return;
        }
        let outcome = self.outcomes.judge(reply, Place::Rcpt);
        self.outcomes.set(index, outcome);
    }

    fn data(&mut self, reply: &Reply, out: &mut Vec<u8>) -> DialogueStep {
        if reply.code == 354 {
            if !self.accepted.is_empty() {
                self.in_content = true;
                return DialogueStep::Content;
            }
            ClientCommand::LoneDot.write(self.mail, self.offered, false, out);
            self.to_answer.push_back(ClientCommand::LoneDot);
            return DialogueStep::Read(Stage::Dot);
        }
        if reply.is_transient() || reply.is_permanent() {
            if !self.accepted.is_empty() {
                self.refuse_accepted(reply, Place::Data);
            }
        } else {
            // 250 in place of 354: who knows what it takes the content for, or which question it answers.
            let text =
                format!("the upstream answered DATA with neither 354 nor a refusal: {reply}");
            self.out_of_turn(&text, Sent::Commands);
            return DialogueStep::Done;
        }
        if self.is_early || self.batch.iter().any(|i| self.outcomes.is_failed(*i)) {
            // Had one reply too many come among those to RCPT, a good recipient would have got a bad one's. Then the true
            // answer to DATA is yet to come, and it is never a 2xx.
            ClientCommand::Verify.write(self.mail, self.offered, false, out);
            self.to_answer.push_back(ClientCommand::Verify);
            return DialogueStep::Read(Stage::Envelope);
        }
        self.transaction_over(out)
    }

    fn dot(&mut self, reply: &Reply) {
        self.by_dot.clone_from(&self.accepted);
        self.reuse = Reuse::AsItIs;
        if reply.is_positive() {
            let outcome = Outcome::Delivered(self.outcomes.kept(reply));
            for index in std::mem::take(&mut self.accepted) {
                self.outcomes.set(index, outcome.clone());
            }
        } else if reply.is_transient() || reply.is_permanent() {
            self.refuse_accepted(reply, Place::Content);
            if reply.code == 421 {
                self.reuse = Reuse::Never;
            }
        } else {
            let text = format!("the upstream answered the final dot with {reply}");
            self.lost(&text, Sent::Dot);
        }
    }

    fn transaction_over(&mut self, out: &mut Vec<u8>) -> DialogueStep {
        match self.outcomes.ends_all() {
            Some(obstacle) => {
                // The lane stops here; what is left waits for it.
                let reply = obstacle.reply.clone();
                self.later.clear();
                self.outcomes.fill(&Outcome::deferred(reply));
                DialogueStep::Done
            }
            None => self.next_transaction(out),
        }
    }

    fn refuse_accepted(&mut self, reply: &Reply, place: Place) {
        let outcome = self.outcomes.judge(reply, place);
        for index in std::mem::take(&mut self.accepted) {
            self.outcomes.set(index, outcome.clone());
        }
    }

    fn refuse_rest(&mut self, reply: &Reply, command: ClientCommand) {
        let outcome = match self.outcomes.judge(reply, command.place()) {
            // A refused RSET says nothing about the message.
            Outcome::Failed(reply) if command == ClientCommand::Reset => Outcome::deferred(reply),
            outcome => outcome,
        };
        self.later.clear();
        self.accepted.clear();
        self.outcomes.fill(&outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mail::{address::Address, message::Envelope, outcome::ObstacleKind},
        smtp::client::{class::Class, reply::Replies},
    };

    /// Plays `script` (octets of the upstream) by pieces of `chunk`; a reply to the dot follows the content. Returns
    /// what was written and the report in short form.
    fn play(
        offered: &str,
        script: &str,
        recipients: usize,
        chunk: usize,
    ) -> (String, String, Reuse) {
        let envelope = Envelope {
            sender: Address::parse("s@corp.example").ok(),
            recipients: Vec::new(),
            eight_bit: true,
            dsn: None,
        };
        let list: Vec<_> = (1..=recipients)
            .map(|n| Address::parse(&format!("r{n}@x.example")).unwrap().into())
            .collect();
        let offered = Capabilities::parse(&format!("up\n{}", offered.replace(' ', "\n")));
        let gmail = [Override {
            code: 550,
            text: None,
            enhanced: Some((5, 4, 5)),
            class: Class::Deferred,
        }];
        let mail = Mail {
            envelope: &envelope,
            recipients: &list,
            size: 100,
            utf8_header: false,
        };
        let mut work = Dialogue::new(mail, &offered, &gmail, 2, false);
        let mut pieces = script.as_bytes().chunks(chunk);
        let mut replies = Replies::default();
        let mut out = Vec::new();
        let mut step = work.begin(&mut out);
        let mut sent = Sent::Commands;
        loop {
            match step {
                DialogueStep::Done => break,
                DialogueStep::Content => {
                    out.extend_from_slice(b"[content]");
                    step = work.content_sent();
                    sent = Sent::Dot;
                }
                DialogueStep::Read(_) => match replies.next_reply() {
                    Ok(Some(reply)) => {
                        sent = Sent::Commands;
                        step = work.reply(&reply, &mut out);
                    }
                    Ok(None) => {
                        let Some(piece) = pieces.next() else {
                            work.lost("closed", sent);
                            break;
                        };
                        replies.feed(piece);
                    }
                    Err(broken) => {
                        work.lost(&broken.to_string(), sent);
                        break;
                    }
                },
            }
        }
        let after = work.reuse();
        let report = match work.report(String::new()) {
            Report::NotTried(obstacle) => match obstacle.kind {
                ObstacleKind::MailboxRefused => "mailbox",
                kind => kind.as_str(),
            }
            .into(),
            Report::Tried { outcomes, .. } => outcomes
                .iter()
                .map(|(_, outcome)| match outcome {
                    Outcome::Delivered(_) => "ok",
                    Outcome::Deferred { .. } => "deferred",
                    Outcome::InDoubt(_) => "doubt",
                    Outcome::Failed(_) => "failed",
                    Outcome::Apart(_) => "apart",
                    Outcome::Unsuited(_) => "unsuited",
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        (
            String::from_utf8(out).unwrap().replace("\r\n", "|"),
            report,
            after,
        )
    }

    /// An upstream that takes or refuses recipients and message by their names, and says one reply too many behind its
    /// so many-th answer. Each of its answers names its question and transaction.
    struct Upstream<'a> {
        /// The last answers to a group are late, as many as there was more.
        is_late: bool,
        late: String,
        more: (usize, &'a str),
        refuses: &'a str,
        count: usize,
        mail: u16,
        accepted: usize,
        is_content: bool,
        taken: Vec<u16>,
    }

    impl Upstream<'_> {
        fn hear(&mut self, octets: &[u8]) -> String {
            let mut said = std::mem::take(&mut self.late);
            let asked = memchr::memchr_iter(b'\n', octets).count();
            let before = said.len();
            for line in std::str::from_utf8(octets).unwrap().split_inclusive("\r\n") {
                if self.is_content && line != ".\r\n" {
                    continue;
                }
                let key = line.trim_end().to_ascii_lowercase();
                let is_refused = self.refuses.split(' ').any(|word| key.contains(word));
                let (code, name) = match &key[..1] {
                    "m" => {
                        (self.mail, self.accepted) = (self.mail + 1, 0);
                        (if is_refused { 550 } else { 250 }, "mail".to_owned())
                    }
                    "r" if key.starts_with("rset") => (250, "rset".to_owned()),
                    "r" => {
                        self.accepted += usize::from(!is_refused);
                        (if is_refused { 550 } else { 250 }, key[9..11].to_owned())
                    }
                    "d" if self.accepted > 0 && !is_refused => {
                        self.is_content = true;
                        (354, "data".to_owned())
                    }
                    "d" => (554, "data".to_owned()),
                    _ => {
                        self.is_content = false;
                        let is_refused = self.refuses.contains("dot");
                        if !is_refused {
                            self.taken.push(self.mail);
                        }
                        (if is_refused { 551 } else { 250 }, "dot".to_owned())
                    }
                };
                said.extend([format!("{code} {name}-{}\r\n", self.mail)]);
                if self.more.0 == self.count {
                    said.extend([self.more.1, "\r\n"]);
                }
                self.count += 1;
            }
            if self.is_late && asked > 2 && !octets.ends_with(b".\r\n") {
                let ends: Vec<usize> =
                    memchr::memchr_iter(b'\n', &said.as_bytes()[before..]).collect();
                if let Some(last) = ends.get(asked - 1) {
                    self.late = said.split_off(before + last + 1);
                }
            }
            said
        }
    }

    /// As the connector does it: what the upstream has said by then is read before every write.
    fn converse(offered: &str, recipients: usize, upstream: &mut Upstream<'_>) -> Report {
        use crate::smtp::client::turns::{TurnError, Turns};
        let envelope = Envelope {
            sender: Address::parse("s@corp.example").ok(),
            recipients: Vec::new(),
            eight_bit: false,
            dsn: None,
        };
        let list: Vec<_> = (1..=recipients)
            .map(|n| Address::parse(&format!("r{n}@x.example")).unwrap().into())
            .collect();
        let offered = Capabilities::parse(&format!("up\n{offered}"));
        let mail = Mail {
            envelope: &envelope,
            recipients: &list,
            size: 100,
            utf8_header: false,
        };
        let mut work = Dialogue::new(mail, &offered, &[], 3, false);
        let mut turns = Turns::new();
        turns.feed(b"220 up\r\n");
        turns.next_reply().unwrap();
        let mut out = Vec::new();
        let mut step = work.begin(&mut out);
        let mut wire = String::new();
        let mut sent = Sent::Commands;
        while step != DialogueStep::Done {
            if step == DialogueStep::Content {
                out.extend_from_slice(b"x\r\n.\r\n");
            }
            if !out.is_empty() {
                turns.feed(std::mem::take(&mut wire).as_bytes());
                if let Some(what) = turns.unasked() {
                    match step {
                        DialogueStep::Content => work.lost(&what.said, Sent::Commands),
                        _ if what.is_farewell() => work.lost(&what.said, Sent::Nothing),
                        _ => work.out_of_turn(&what.said, Sent::Nothing),
                    }
                    break;
                }
                sent = Sent::Commands;
                if step == DialogueStep::Content {
                    work.content_sent();
                    turns.ask(1);
                    sent = Sent::Dot;
                } else {
                    turns.ask(memchr::memchr_iter(b'\n', &out).count());
                }
                wire = upstream.hear(&out);
                out.clear();
            }
            turns.feed(std::mem::take(&mut wire).as_bytes());
            match turns.next_reply() {
                Ok(Some(reply)) => step = work.reply(&reply, &mut out),
                Err(TurnError::Unasked(what)) => {
                    work.out_of_turn(&what.said, sent);
                    break;
                }
                Err(TurnError::Broken(why, _)) => {
                    work.lost(&why.to_string(), sent);
                    break;
                }
                Ok(None) if !upstream.late.is_empty() => wire = std::mem::take(&mut upstream.late),
                Ok(None) => panic!("it waits for what nobody says"),
            }
        }
        work.report(String::new())
    }

    /// Whose answer an outcome is; `more` and broken ones are nobody's.
    fn owner(outcome: &Outcome, index: usize, refuses: &str, taken: &[u16]) -> &'static str {
        let text = outcome.reply().text.as_str();
        let transaction = 1 + index as u16 / 3;
        match outcome {
            Outcome::Delivered(_) => {
                assert_eq!(text, format!("dot-{transaction}"));
                assert!(taken.contains(&transaction), "it was not taken");
                "delivered"
            }
            Outcome::Failed(_) => {
                let own = format!("r{}-{transaction}", index + 1);
                // A refused MAIL holds for the transactions to come.
                let of = if refuses == "mail" { 1 } else { transaction };
                let all = ["dot", "data", "mail"].map(|word| format!("{word}-{of}"));
                let is_all = |said: &String| said == text && said.starts_with(refuses);
                assert!(text == own || all.iter().any(is_all), "another's: {text}");
                "failed"
            }
            Outcome::InDoubt(_) => "doubt",
            _ => "later",
        }
    }

    /// Wherever one reply too many stands and whatever it says: nobody gets an answer that was another's, and what was
    /// not taken is not called delivered.
    #[test]
    fn a_reply_before_its_question_never_becomes_the_answer_to_another() {
        const TEXTS: [&str; 8] = [
            "250 more", "235 more", "354 more", "450 more", "550 more", "421 more", "2", "hello",
        ];
        const REFUSED: [&str; 9] = [
            "-",
            "r1@",
            "r2@",
            "r1@ r2@",
            "r4@",
            "r1@ r2@ r3@",
            "data",
            "dot",
            "mail",
        ];
        let mut seen = std::collections::BTreeMap::new();
        let modes = [("", false), ("PIPELINING", false), ("PIPELINING", true)];
        for ((offered, is_late), refuses) in modes.iter().flat_map(|m| REFUSED.map(|r| (*m, r))) {
            for (text, at) in TEXTS.iter().flat_map(|t| (0..14).map(move |at| (*t, at))) {
                for recipients in [1, 2, 5] {
                    let mut upstream = Upstream {
                        is_late,
                        late: String::new(),
                        more: (at, text),
                        refuses,
                        count: 0,
                        mail: 0,
                        accepted: 0,
                        is_content: false,
                        taken: Vec::new(),
                    };
                    let report = converse(offered, recipients, &mut upstream);
                    println!("{offered} {is_late} {refuses} {recipients} {at} {text}: {report:?}");
                    let Report::Tried { outcomes, .. } = report else {
                        panic!("tried");
                    };
                    for (index, (_, outcome)) in outcomes.iter().enumerate() {
                        let owner = owner(outcome, index, refuses, &upstream.taken);
                        *seen.entry(owner).or_insert(0) += 1;
                    }
                }
            }
        }
        assert!(
            seen.len() == 4 && seen.values().all(|n| *n > 100),
            "{seen:?}"
        );
    }

    /// The replies stand parted by `|`.
    fn check(offered: &str, script: &str, recipients: usize, expected: &str, after: Reuse) {
        let script = script.replace('|', "\r\n");
        let whole = play(offered, &script, recipients, script.len().max(1));
        assert_eq!((whole.1.as_str(), whole.2), (expected, after), "{script}");
        for chunk in 1..script.len() {
            assert_eq!(play(offered, &script, recipients, chunk), whole, "{script}");
        }
    }

    #[test]
    fn outcomes() {
        use Reuse::{AfterReset, AsItIs, Never};
        for offered in ["", "PIPELINING SIZE 8BITMIME"] {
            let piped = !offered.is_empty();
            for (script, recipients, expected, after) in [
                ("250 a|250 b|354 c|250 d|", 1, "ok", AsItIs),
                ("250|250|354|250|", 1, "ok", AsItIs),
                ("250 a|250 b|571 x|354 c|250 d|", 2, "ok failed", AsItIs),
                ("250 a|450 b|251 x|354 c|250 d|", 2, "deferred ok", AsItIs),
                ("250 a|250 b|354 c|450 d|", 1, "deferred", AsItIs),
                ("250 a|250 b|354 c|550 d|", 1, "failed", AsItIs),
                ("250 a|250 b|354 c|550 5.4.5 d|", 1, "deferred", AsItIs),
                ("250 a|250 b|354 c|421 d|", 1, "deferred", Never),
                ("250 a|250 b|354 c|25", 1, "doubt", Never),
                ("250 a|250 b|354 c|", 1, "doubt", Never),
                ("250 a|250 b|354 c|354 d|", 1, "doubt", Never),
                ("250 a|250 b|354 c|hello|", 1, "doubt", Never),
                ("250 a|250 b|550 x|354 c|", 2, "doubt failed", Never),
                ("250 a|250 b|450 x|", 1, "deferred", AfterReset),
                // Behind a refused DATA stands RSET, and what is said to it.
                ("250 a|250 b|550 x|250 R|", 1, "failed", AsItIs),
                ("250 a|250 b|550 x|", 1, "deferred", Never),
                ("250 a|250 b|550 x|421 R|", 1, "deferred", Never),
                ("250 a|250 b|550 x|354 R|", 1, "deferred", Never),
                (
                    "250 a|550 b|250 c|550 x|354 R|",
                    2,
                    "deferred deferred",
                    Never,
                ),
                (
                    "250 a|550 b|250 c|450 x|250 R|",
                    2,
                    "failed deferred",
                    AsItIs,
                ),
                ("250 a|550 b|250 c|250 x|", 2, "deferred deferred", Never),
                ("250 a|250 b|250 x|", 1, "deferred", Never),
                ("250 a|250 b|", 1, "deferred", Never),
                ("250 a|", 1, "deferred", Never),
                ("", 3, "deferred deferred deferred", Never),
                ("421 x|", 1, "deferred", Never),
                ("250 a|421 x|", 2, "deferred deferred", Never),
                ("250 a|250 b|421 x|", 2, "deferred deferred", Never),
                ("250 a|250 b|421 x|", 1, "deferred", Never),
                ("250 a|530 5.7.57 x|554 y|", 1, "misconfigured", AfterReset),
                ("250 a|250 x|250 y|354|554 5.2.252 x|", 2, "mailbox", AsItIs),
                ("250 a|250 x|530 y|354|250 x|", 2, "ok deferred", AsItIs),
            ] {
                // Without PIPELINING nothing is said to DATA when nobody was accepted.
                let script = if piped {
                    script
                } else {
                    script.strip_suffix("554 y|").unwrap_or(script)
                };
                check(offered, script, recipients, expected, after);
            }
        }
    }

    #[test]
    fn mail_refused() {
        use Reuse::AsItIs;
        for (reply, expected) in [
            ("450 x", "deferred"),
            ("550 x", "failed"),
            ("530 x", "misconfigured"),
            ("550 5.7.30 x", "misconfigured"),
            ("550 5.7.60 x", "mailbox"),
        ] {
            check("", &format!("{reply}|"), 1, expected, AsItIs);
            let verified = if expected == "failed" { "250 R|" } else { "" };
            let piped = format!("{reply}|503 x|503 x|{verified}");
            check("PIPELINING", &piped, 1, expected, AsItIs);
        }
        check("", "550 x|", 3, "failed failed failed", AsItIs);
        // Lost thread, not a refusal of the message: later, on another connection.
        check(
            "",
            "503 5.5.1 bad sequence of commands|",
            2,
            "deferred deferred",
            Reuse::Never,
        );
        check(
            "PIPELINING",
            "503 x|503 x|503 x|",
            1,
            "deferred",
            Reuse::Never,
        );
        check("", "250 a|503 x|", 1, "deferred", Reuse::AfterReset);
        // 354 although nobody was accepted: the lone dot is sent, and whatever it says nothing was delivered.
        let script = "550 x|503 x|354 x|250 taken|".replace('|', "\r\n");
        let (out, report, after) = play("PIPELINING", &script, 1, 1000);
        assert!(out.ends_with("DATA|.|"), "{out}");
        assert_eq!((report.as_str(), after), ("failed", Reuse::Never));
        let script = "250 x|550 x|354 x|554 x|".replace('|', "\r\n");
        let (out, report, after) = play("PIPELINING", &script, 1, 1000);
        assert!(out.ends_with("DATA|.|"), "{out}");
        assert_eq!((report.as_str(), after), ("failed", Reuse::AfterReset));
    }

    /// "We do not relay" is about us where nobody is taken, and about one recipient where others are.
    #[test]
    fn who_may_not_relay() {
        use Reuse::{AfterReset, AsItIs, Never};
        for (script, recipients, expected, after) in [
            (
                "250 a|554 5.7.1 Relay access denied|",
                1,
                "misconfigured",
                AfterReset,
            ),
            (
                "250 a|454 4.7.1 Relay access denied|550 relay not permitted|",
                2,
                "misconfigured",
                AfterReset,
            ),
            (
                "250 a|250 b|550 5.7.64 x|354 c|250 d|",
                2,
                "ok deferred",
                AsItIs,
            ),
            (
                "250 a|550 5.7.64 x|250 b|354 c|451 d|",
                2,
                "deferred deferred",
                AsItIs,
            ),
            // Accepted at RCPT, and then refused whole: that was no welcome.
            (
                "250 a|250 b|250 b|354 c|550 5.7.64 x|",
                2,
                "misconfigured",
                AsItIs,
            ),
            // Refused in one transaction, taken in the next (two recipients each).
            (
                "250 a|550 5.7.64 x|550 5.7.64 x|250 R|250 a|250 b|354 c|250 d|",
                3,
                "deferred deferred ok",
                AsItIs,
            ),
            (
                "250 a|550 5.7.64 x|550 5.7.64 x|250 R|250 a|550 5.7.64 x|",
                3,
                "misconfigured",
                AfterReset,
            ),
            // What is ours for whatever mail is so beside what may be one recipient's.
            (
                "250 a|550 5.7.64 x|530 5.7.0 x|",
                2,
                "misconfigured",
                AfterReset,
            ),
            (
                "250 a|250 b|530 5.7.0 x|354 c|451 d|",
                2,
                "misconfigured",
                AsItIs,
            ),
            // A quota stops everything, and is reported as such.
            ("550 5.7.233 x|", 1, "throttled", AsItIs),
            (
                "250 a|250 b|354 c|554 5.2.0 X.SubmissionQuotaExceededException|",
                1,
                "throttled",
                AsItIs,
            ),
            ("503 5.5.1 authenticate first|", 1, "misconfigured", Never),
        ] {
            check("", script, recipients, expected, after);
        }
    }

    #[test]
    fn too_many_recipients() {
        use Reuse::{AfterReset, AsItIs};
        // Two a transaction; the second one is put off and follows in a transaction of its own.
        check(
            "PIPELINING",
            "250 a|250 b|452 4.5.3 x|354 c|250 d|250 a|250 b|354 c|250 d|",
            2,
            "ok ok",
            AsItIs,
        );
        check(
            "",
            "250 a|250 b|552 x|354 c|250 d|250 a|552 b|",
            2,
            "ok failed",
            AfterReset,
        );
        // X.2.X is that mailbox.
        check(
            "",
            "250 a|250 b|552 5.2.2 x|354 c|250 d|",
            2,
            "ok failed",
            AsItIs,
        );
        check("", "250 a|452 x|452 x|", 2, "deferred deferred", AfterReset);
        check(
            "",
            "250 a|250 b|250 b|354 c|250 d|250 a|550 b|250 R|250 a|250 b|354 c|250 d|",
            3,
            "ok ok failed",
            AfterReset,
        );
    }

    #[test]
    fn the_wire() {
        let (out, ..) = play("PIPELINING SIZE 8BITMIME", "", 2, 1);
        // "SIZE" alone announces no limit.
        assert_eq!(
            out,
            "MAIL FROM:<s@corp.example> BODY=8BITMIME|RCPT TO:<r1@x.example>|RCPT TO:<r2@x.example>|DATA|"
        );
        let (out, ..) = play("", "", 2, 1);
        assert_eq!(out, "MAIL FROM:<s@corp.example>|");
    }

    #[test]
    fn too_large_for_the_upstream() {
        let envelope = Envelope {
            sender: None,
            recipients: Vec::new(),
            eight_bit: false,
            dsn: None,
        };
        let list = [Address::parse("\"foo@evil.tld> ORCPT=a@b\"@corp.com")
            .unwrap()
            .into()];
        for (limit, expected) in [
            (99, ""),
            (
                100,
                "MAIL FROM:<> SIZE=100\r\nRCPT TO:<\"foo@evil.tld> ORCPT=a@b\"@corp.com>\r\nDATA\r\n",
            ),
        ] {
            let offered = Capabilities::parse(&format!("up\nPIPELINING\nSIZE {limit}"));
            let mail = Mail {
                envelope: &envelope,
                recipients: &list,
                size: 100,
                utf8_header: false,
            };
            let mut out = Vec::new();
            let mut work = Dialogue::new(mail, &offered, &[], 100, false);
            let step = work.begin(&mut out);
            assert_eq!(out, expected.as_bytes());
            if step == DialogueStep::Done {
                assert_eq!(work.reuse(), Reuse::AsItIs);
                let Report::Tried { outcomes, .. } = work.report(String::new()) else {
                    panic!("tried");
                };
                assert!(matches!(&outcomes[0].1, Outcome::Unsuited(r) if r.code == 552));
            }
        }
    }
}
