//! An SMTP smarthost: sockets, TLS, reuse and limits of time around `smtp::client`.
//!
//! The dialogue itself has no clock and no socket. One attempt is made; only on a connection used before,
//! that died before it said a word about the message, is there one more on a new connection.

mod conversation;
mod dial;
mod dkim;
mod encrypted;
mod failed;
mod handshake;
mod knock;
mod link;
#[cfg(feature = "old-tls")]
mod old;
mod open;
mod part;
mod pool;
mod race;
mod resumption;
mod seat;
mod silence;
mod standing;
mod state;
mod stream;
mod tls;
mod width;

use std::{
    sync::Arc,
    time::{Duration, Instant as StdInstant, SystemTime},
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use self::{
    conversation::{Leaving, converse},
    open::{Opened, Opener},
    pool::Pool,
    seat::{Group, Lent, Seat},
    standing::Reputation,
};
use crate::{
    connector::{
        deadline::Deadline,
        interface::{Connections, Connector, ExpectedMail, Knock, Memory, Services},
        settings::{Pipelining, SmtpSettings},
    },
    mail::{
        message::Message,
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
        text::bounded,
        utf8_header,
    },
    route::{ConnectorName, LaneId},
    smtp::client::{
        class::Narrow,
        dialogue::{Dialogue, DialogueStep, Mail, Reuse},
    },
    telemetry::counted,
};

pub use self::{
    dkim::{Signatures, Signer},
    link::Timeouts,
};

/// How what was found at an upstream ends where it offers that.
pub const OFFERS_UTF8: &str = ", offers SMTPUTF8";
/// A message whose turn was lost so often is deferred the next time.
const LOST_TURNS: usize = 3;
/// A message that so many connections were refused for is deferred by the next.
const CROWDED: usize = 5;
/// An upstream that was sent a group behind a dot, and answered the dot, is not waited for any longer than this.
const HURRY: Duration = Duration::from_secs(30);
/// A message that was answered waits so long for the replies to the group behind its dot, which come in the same breath, before what was
/// answered is believed: what is not written down yet is sent again after a crash.
const BREATH: Duration = Duration::from_secs(1);

/// `type = "smtp"`.
pub struct Smtp {
    name: ConnectorName,
    max_recipients: usize,
    pool: Pool,
    standing: Reputation,
    /// `dkim = true`.
    signer: Option<Signer>,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp")
            .field("name", &self.name)
            .field("settings", &self.pool.opener().settings)
            .finish_non_exhaustive()
    }
}

impl Smtp {
    /// Reads certificates and keys; connects to nothing.
    ///
    /// # Errors
    /// A sentence: which file or key cannot be used.
    pub fn new(
        name: ConnectorName,
        max_recipients: usize,
        settings: &SmtpSettings,
        timeouts: Timeouts,
        services: Services,
    ) -> Result<Self, String> {
        let opener = Opener::new(name.clone(), settings, timeouts, services)?;
        let signer = settings.dkim.as_deref().map(Signer::new).transpose()?;
        Ok(Self {
            name,
            max_recipients,
            pool: Pool::new(opener),
            standing: Reputation::default(),
            signer,
        })
    }

    /// The commands of a message that has to wait for a connection.
    fn group(&self, mail: Mail<'_>) -> Option<Group> {
        let settings = &self.pool.opener().settings;
        if settings.pipelining != Pipelining::Full {
            return None;
        }
        let offered = self
            .pool
            .state()
            .offered
            .clone()
            .filter(|offered| offered.pipelining)?;
        let mut octets = Vec::new();
        let overrides = &settings.overrides;
        let mut dialogue = Dialogue::new(mail, &offered, overrides, self.max_recipients, false);
        let DialogueStep::Read(_) = dialogue.begin(&mut octets) else {
            return None;
        };
        Some(Group {
            questions: memchr::memchr_iter(b'\n', &octets).count(),
            octets,
            offered,
        })
    }

    /// The conversation is over: what becomes of the connection, and the report.
    async fn conclude(
        &self,
        mut seat: Seat,
        mut dialogue: Dialogue<'_>,
        (mail, signed_by): (Mail<'_>, &str),
        deadline: Instant,
    ) -> Report {
        let mut via = seat.link.via.clone();
        if !signed_by.is_empty() {
            via.push_str(" (DKIM ");
            via.push_str(signed_by);
            via.push(')');
        }
        if mail.envelope.eight_bit && !seat.link.offered.eight_bit {
            // Sent as it is all the same; whoever looks into garbled characters finds this.
            via.push_str(" (8-bit content, no 8BITMIME)");
        }
        let narrow = dialogue.narrow();
        if dialogue.is_welcome() && narrow != Some(Narrow::Sender) {
            self.standing.is_good();
        }
        conversation::shrink(&mut seat);
        let (reuse, is_taken) = (dialogue.reuse(), dialogue.is_taken());
        if is_taken && self.signer.is_some() {
            counted::signed(self.name.as_str(), !signed_by.is_empty());
        }
        // What follows is answered in the same breath.
        if let Some(fits) = self.pool.done_with(seat, reuse, is_taken)
            && let Ok(Ok(false)) = timeout_at(deadline.min(Instant::now() + BREATH), fits).await
        {
            dialogue.doubt();
        }
        let report = dialogue.report(via.clone());
        let report = self
            .standing
            .narrowed(report, narrow, mail.recipients, &via);
        if let Report::NotTried(obstacle) = &report
            && obstacle.kind == ObstacleKind::Down
        {
            self.pool.is_down(obstacle);
        }
        report
    }

    /// Waits for a connection, and delivers by it.
    async fn carry(
        &self,
        leaving: Leaving<'_>,
        signed_by: &str,
        recipients: &[Recipient],
        deadline: &Deadline,
    ) -> Report {
        let settings = &self.pool.opener().settings;
        let mail = Mail {
            envelope: &leaving.message.envelope,
            recipients,
            size: leaving.size(),
            utf8_header: utf8_header::needs_utf8(
                &leaving.message.header,
                leaving.message.origin.utf8,
            ),
        };
        let (mut lost_turns, mut crowded) = (0, 0);
        for round in 0_u32.. {
            // The other half of the time is the conversation's.
            let now = Instant::now();
            let until = now + deadline.at().saturating_duration_since(now) / 2;
            let turn = self.pool.turn(|| self.group(mail), round > 0, until);
            let (mut seat, early) = match turn.await {
                Lent::Seat(seat) => (*seat, false),
                Lent::Early(seat) => (*seat, true),
                Lent::Untouched if lost_turns < LOST_TURNS => {
                    lost_turns += 1;
                    continue;
                }
                Lent::Untouched => {
                    let text = "the connection was lost before its turn, again and again";
                    let outcome = Outcome::deferred(Reply::new(451, (4, 4, 2), text));
                    return Report::all(recipients, &outcome, &settings.host);
                }
                Lent::Obstacle(obstacle) => return obstacle.into(),
                Lent::Renew | Lent::Late => {
                    return Self::not_yet("all connections were busy until the deadline");
                }
            };
            if !deadline.may_begin() {
                // A group behind another message's dot is written already: that connection is closed.
                if !early {
                    self.pool.give_back(seat);
                }
                return Deadline::not_now().into();
            }
            let link = &mut seat.link;
            let used = link.used > 0 || link.was_idle;
            let offered = Arc::clone(&link.offered);
            let overrides = &settings.overrides;
            let mut dialogue =
                Dialogue::new(mail, &offered, overrides, self.max_recipients, link.reset)
                    .masked(link.mask.clone())
                    .early(early);
            link.hurry = early.then_some(HURRY);
            let done = converse(
                &self.pool,
                &mut seat,
                &mut dialogue,
                leaving,
                early,
                deadline,
            );
            Box::pin(done).await;
            seat.link.hurry = None;
            if let Some(before) = seat.before.take()
                && dialogue.is_out_of_turn()
            {
                let _ = before.send(false);
            }
            let reuse = dialogue.reuse();
            let is_untouched = reuse == Reuse::Never && dialogue.untouched();
            let is_turn_lost = early && (dialogue.is_cut() || is_untouched);
            if Instant::now() >= deadline.at() && (is_turn_lost || used && is_untouched) {
                return Self::not_yet("its time was over before its turn");
            }
            if is_turn_lost {
                if dialogue.is_cut() || dialogue.is_thread_lost() {
                    self.pool.no_more_early();
                }
                lost_turns += 1;
                if lost_turns <= LOST_TURNS {
                    continue;
                }
            } else if let Some(reply) = dialogue.crowded()
                && crowded < CROWDED
                && self.pool.crowded(&mut seat, reply)
            {
                crowded += 1;
                continue;
            } else if used && is_untouched {
                // The others have been idle for longer.
                let idle = std::mem::take(&mut self.pool.state().idle);
                drop(idle);
                continue;
            }
            let mail = (mail, signed_by);
            return self.conclude(seat, dialogue, mail, deadline.at()).await;
        }
        Self::not_yet("there is no end of turns")
    }

    /// The body is not there to be signed, and would not be to be sent.
    fn unreadable(&self, recipients: &[Recipient], error: &std::io::Error) -> Report {
        let text = format!("the stored body: {error}");
        let outcome = Outcome::deferred(Reply::new(451, (4, 3, 0), bounded(&text)));
        Report::all(recipients, &outcome, &self.pool.opener().settings.host)
    }

    /// It waited, or its turn was lost: nothing was tried, and nobody else need wait.
    fn not_yet(why: &str) -> Report {
        let reply = Reply::new(451, (4, 3, 2), why);
        let obstacle = Obstacle::new(ObstacleKind::Throttled, reply);
        obstacle.after(Some(Duration::ZERO)).into()
    }
}

#[async_trait]
impl Connector for Smtp {
    fn lane(&self, _message: &Message) -> LaneId {
        LaneId::of(&self.name)
    }

    async fn deliver(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: &Deadline,
    ) -> Report {
        // Before there is a connection: what MAIL says of the size holds, and no upstream waits while a body is read.
        let signatures = match &self.signer {
            None => Signatures::default(),
            Some(signer) => match signer.sign(message, SystemTime::now()).await {
                Ok(signatures) => signatures,
                Err(error) => return self.unreadable(recipients, &error),
            },
        };
        let leaving = Leaving {
            above: &signatures.fields,
            message,
        };
        let by = &signatures.by;
        self.carry(leaving, by, recipients, deadline).await
    }

    async fn probe(&self, deadline: StdInstant) -> Result<String, Obstacle> {
        let deadline = Instant::from_std(deadline);
        let Some(berth) = self.pool.place_for_probe() else {
            let reply = Reply::new(451, (4, 3, 2), "all connections are busy");
            return Err(Obstacle::new(ObstacleKind::Throttled, reply));
        };
        let opened = Box::pin(self.pool.opener().open(deadline)).await;
        let Opened {
            link,
            tls,
            mechanism,
        } = opened.map_err(|failed| failed.obstacle)?;
        let certificate = tls.and_then(|t| t.expires).map_or_else(String::new, |day| {
            format!(", certificate valid until {day}")
        });
        let login = mechanism.map_or_else(
            || "no login".to_owned(),
            |mechanism| format!("logged in with {}", mechanism.name()),
        );
        let size = link.offered.size.map_or_else(
            || "states no size limit".into(),
            |size| format!("takes up to {size} octets per message"),
        );
        let utf8 = if link.offered.utf8 { OFFERS_UTF8 } else { "" };
        let text = format!("{}{certificate}, {login}, {size}{utf8}", link.via);
        let seat = Seat {
            link,
            follower: None,
            before: None,
            berth,
        };
        seat.quit().await;
        Ok(text)
    }

    async fn knock(&self, mail: ExpectedMail<'_>, deadline: StdInstant) -> Vec<Knock> {
        let deadline = Instant::from_std(deadline);
        let Some(berth) = self.pool.place_for_probe() else {
            return Vec::new();
        };
        let opener = self.pool.opener();
        let mut link = match Box::pin(opener.open(deadline)).await {
            Ok(opened) => opened.link,
            Err(failed) => return vec![Knock::Shut(failed.obstacle.reply.to_string())],
        };
        let overrides = &opener.settings.overrides;
        let found = knock::knock(&mut link, mail, overrides, deadline).await;
        let seat = Seat {
            link,
            follower: None,
            before: None,
            berth,
        };
        seat.quit().await;
        found
    }

    fn stop(&self) {
        self.pool.stop();
    }

    fn set_part(&self, connections: usize) {
        self.pool.set_part(connections);
    }

    fn connections(&self) -> Option<Connections> {
        Some(self.pool.state().connections())
    }

    fn memory(&self, now: SystemTime) -> Memory {
        self.pool.state().memory(now)
    }

    fn recall(&self, memory: &Memory, now: SystemTime) {
        self.pool.state().recall(memory, now);
    }
}
