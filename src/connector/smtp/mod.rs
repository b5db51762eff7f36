//! An SMTP smarthost: sockets, TLS, reuse and limits of time around `smtp::client`.
//!
//! The dialogue itself has no clock and no socket. One attempt is made; only on a connection used before,
//! that died before it said a word about the message, is there one more on a new connection.

mod dial;
mod failed;
mod link;
mod open;
mod pool;
mod standing;
mod stream;
mod tls;

use std::time::Instant as StdInstant;

use async_trait::async_trait;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use self::{
    link::Link,
    open::{Opened, Opener},
    pool::Pool,
    standing::Reputation,
    stream::LinkFault,
};
use crate::{
    connector::{
        interface::{Connector, Services},
        settings::SmtpSettings,
    },
    mail::{
        message::Message,
        outcome::{Obstacle, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    route::{ConnectorName, LaneId},
    smtp::{
        client::{
            Stage,
            class::Narrow,
            dialogue::{Dialogue, DialogueStep, Mail, Reuse, Sent},
        },
        data::DotStuffer,
    },
};

pub use self::link::Timeouts;

/// A body is read and written in pieces of so many octets.
const BLOCK: usize = 64 * 1024;

/// `type = "smtp"`.
pub struct Smtp {
    name: ConnectorName,
    max_recipients: usize,
    opener: Opener,
    pool: Pool,
    standing: Reputation,
    permits: Semaphore,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp")
            .field("name", &self.name)
            .field("settings", &self.opener.settings)
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
        Ok(Self {
            name,
            max_recipients,
            opener: Opener::new(settings, timeouts, services)?,
            pool: Pool::new(settings.idle_timeout),
            standing: Reputation::default(),
            permits: Semaphore::new(settings.max_connections.clamp(1, Semaphore::MAX_PERMITS)),
        })
    }

    /// One delivery over one connection.
    async fn converse(
        &self,
        link: &mut Link,
        dialogue: &mut Dialogue<'_>,
        message: &Message,
        deadline: Instant,
    ) {
        let mut out = std::mem::take(&mut link.out);
        let mut step = dialogue.begin(&mut out);
        link.out = out;
        loop {
            let (heard, sent) = match step {
                DialogueStep::Read(stage) => match link.send(stage, None, deadline).await {
                    Ok(()) => (link.read(stage, deadline).await, Sent::Commands),
                    Err(fault @ LinkFault::Silent(_)) => (Err(fault), Sent::Commands),
                    Err(fault) => (Err(fault), Sent::Nothing),
                },
                DialogueStep::Content => {
                    let mut begun = false;
                    if let Err(cause) = self.content(link, message, &mut begun, deadline).await {
                        // An upstream that has had enough, and closes as a rule: its reply is there to be read.
                        let word = if begun {
                            link.last_word(deadline).await
                        } else {
                            None
                        };
                        match word {
                            Some(reply) => dialogue.early_reply(&reply),
                            None => dialogue.lost(&cause, Sent::Commands),
                        }
                        return;
                    }
                    dialogue.content_sent();
                    // From here on silence means doubt.
                    let heard = match link.flush(deadline).await {
                        Ok(()) => link.read(Stage::Dot, deadline).await,
                        Err(fault) => Err(fault),
                    };
                    (heard, Sent::Dot)
                }
                DialogueStep::Done => return,
            };
            match heard {
                Ok(reply) => {
                    let mut out = std::mem::take(&mut link.out);
                    step = dialogue.reply(&reply, &mut out);
                    link.out = out;
                }
                Err(fault) => {
                    match &fault {
                        LinkFault::Unasked(_, what) if !what.is_farewell() => {
                            dialogue.out_of_turn(&fault.to_string(), sent);
                        }
                        _ => dialogue.lost(&fault.to_string(), sent),
                    }
                    return;
                }
            }
        }
    }

    /// Header, empty line, body, dots stuffed, and the final dot. A small message is one write.
    async fn content(
        &self,
        link: &mut Link,
        message: &Message,
        begun: &mut bool,
        deadline: Instant,
    ) -> Result<(), String> {
        link.record(|| format!("> <message, {} octets>", message.size()));
        let mut stuffer = DotStuffer::default();
        stuffer.encode(&message.header, &mut link.out);
        stuffer.encode(b"\r\n", &mut link.out);
        let unreadable = |e: std::io::Error| format!("the stored body: {e}");
        let mut body = message.body.open().await.map_err(unreadable)?;
        let mut is_first = true;
        // Where it cannot be read to its end there is no dot: the upstream must not take half a message.
        while let Some(piece) = body.next().await.map_err(unreadable)? {
            // The header goes with the first piece, the dot with the last.
            if !std::mem::take(&mut is_first) {
                let sent = link.send_block(begun, deadline).await;
                sent.map_err(|e| e.to_string())?;
            }
            stuffer.encode(&piece, &mut link.out);
        }
        stuffer.finish(&mut link.out);
        let sent = link.send_block(begun, deadline).await;
        sent.map_err(|e| e.to_string())
    }

    /// What becomes of a connection after a message.
    fn done_with(&self, mut link: Link, reuse: Reuse) {
        // A large message must not keep its buffer for as long as the connection lives.
        link.out.clear();
        link.out.shrink_to(2 * BLOCK);
        if reuse == Reuse::Never || !link.is_drained() {
            return;
        }
        link.used += 1;
        link.reset = reuse == Reuse::AfterReset;
        if link.used >= self.opener.settings.messages_per_connection || link.is_too_old() {
            self.pool.leave(link);
        } else {
            self.pool.put(link);
        }
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
        deadline: StdInstant,
    ) -> Report {
        let deadline = Instant::from_std(deadline);
        let Ok(Ok(_permit)) = timeout_at(deadline, self.permits.acquire()).await else {
            // Waiting is not "down": the upstream works, all connections are busy.
            let reply = Reply::new(
                451,
                (4, 3, 2),
                "all connections were busy until the deadline",
            );
            let host = self.opener.settings.host.as_str();
            return Report::all(recipients, &Outcome::deferred(reply), host);
        };
        let mut idle = self.pool.take();
        loop {
            let used = idle.is_some();
            let mut link = match idle.take() {
                Some(link) => link,
                None => match Box::pin(self.opener.open(deadline)).await {
                    Ok(found) => found.link,
                    Err(obstacle) => return obstacle.into(),
                },
            };
            let offered = std::mem::take(&mut link.offered);
            let mail = Mail {
                envelope: &message.envelope,
                recipients,
                size: message.size(),
            };
            let mut dialogue = Dialogue::new(
                mail,
                &offered,
                &self.opener.settings.overrides,
                self.max_recipients,
                link.reset,
            )
            .masked(link.mask.clone());
            Box::pin(self.converse(&mut link, &mut dialogue, message, deadline)).await;
            let reuse = dialogue.reuse();
            if used && reuse == Reuse::Never && dialogue.untouched() && Instant::now() < deadline {
                continue;
            }
            let mut via = link.via.clone();
            if message.envelope.eight_bit && !offered.eight_bit {
                // Sent as it is all the same; whoever looks into garbled characters finds this.
                via.push_str(" (8-bit content, no 8BITMIME)");
            }
            let narrow = dialogue.narrow();
            if dialogue.is_welcome() && narrow != Some(Narrow::Sender) {
                self.standing.is_good();
            }
            let report = dialogue.report(via.clone());
            let report = self.standing.narrowed(report, narrow, recipients, &via);
            link.offered = offered;
            self.done_with(link, reuse);
            return report;
        }
    }

    async fn probe(&self, deadline: StdInstant) -> Result<String, Obstacle> {
        let deadline = Instant::from_std(deadline);
        let Opened {
            link,
            tls,
            mechanism,
        } = Box::pin(self.opener.open(deadline)).await?;
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
        let text = format!("{}{certificate}, {login}, {size}", link.via);
        link.quit().await;
        Ok(text)
    }
}
