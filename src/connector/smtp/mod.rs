//! An SMTP smarthost: sockets, TLS, reuse and limits of time around `smtp::client`.
//!
//! Apart from the dialogue, which has no clock and no socket. It makes one attempt; only on a connection used before,
//! that died before it said a word about the message, does it try once more on a new one.

mod dial;
mod link;
mod pool;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Instant as StdInstant};

use async_trait::async_trait;
use tokio::{
    io::AsyncReadExt as _,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls};

use self::{
    dial::Target,
    link::{Fault, Link, Stream, Wrote},
    pool::Pool,
};
use crate::{
    connector::{Auth, Connector, Kind, Lane, Proxy, Recorder, Settings, SmtpSettings, Tls},
    mail::{
        address::Address,
        message::{Body, Message},
        outcome::{Outcome, Report},
        reply::Reply,
    },
    route::ConnectorName,
    smtp::{
        client::{
            Stage,
            class::Stop,
            dialogue::{self, After, Delivery, Mail},
            opening::{self, Mechanism, Opening, Upgrade, Wishes},
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
    settings: SmtpSettings,
    proxy: Proxy,
    max_recipients: usize,
    timeouts: Timeouts,
    tls: Option<Arc<rustls::ClientConfig>>,
    pool: Pool,
    permits: Semaphore,
    recorder: Option<Recorder>,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What an opened connection is, for `probe`.
struct Found {
    link: Link,
    tls: Option<tls::Facts>,
    mechanism: Option<Mechanism>,
}

impl Smtp {
    /// Reads certificates and keys; connects to nothing.
    ///
    /// # Errors
    /// A sentence: which file or key cannot be used, or that the settings are of another kind.
    pub fn new(
        settings: &Settings,
        timeouts: Timeouts,
        recorder: Option<Recorder>,
    ) -> Result<Self, String> {
        let Kind::Smtp(smtp) = &settings.kind else {
            return Err("not an smtp connector".into());
        };
        let tls = match smtp.tls {
            Tls::Off => None,
            Tls::Implicit | Tls::StartTls | Tls::Opportunistic => Some(tls::client_config(smtp)?),
        };
        Ok(Self {
            name: settings.name.clone(),
            proxy: settings.proxy.clone(),
            max_recipients: settings.max_recipients,
            timeouts,
            tls,
            pool: Pool::new(smtp.idle_timeout),
            permits: Semaphore::new(smtp.max_connections.clamp(1, Semaphore::MAX_PERMITS)),
            recorder,
            settings: (**smtp).clone(),
        })
    }

    /// A connection that is logged in. Where a name has several addresses, one that does not answer or does not greet
    /// gives way to the next.
    async fn open(&self, deadline: Instant) -> Result<Found, Stop> {
        let SmtpSettings { host, port, .. } = &self.settings;
        let until = dial::slice(deadline, self.timeouts.connect);
        let targets = dial::targets(host, *port, &self.proxy, until).await?;
        let mut last = None;
        for target in &targets {
            let each = match target {
                Target::Direct(_) => dial::slice(until, self.timeouts.connect_each),
                Target::Proxied => until,
            };
            match self.open_one(target, each, deadline).await {
                Ok(found) => return Ok(found),
                Err((stop, true)) => last = Some(stop),
                Err((stop, false)) => return Err(stop),
            }
        }
        Err(last.unwrap_or_else(|| Stop::down(format!("{host} has no address"))))
    }

    /// One address; the bool of an error: another address may do better.
    async fn open_one(
        &self,
        target: &Target,
        until: Instant,
        deadline: Instant,
    ) -> Result<Found, (Stop, bool)> {
        let SmtpSettings {
            host,
            port,
            own_addresses,
            ..
        } = &self.settings;
        let tcp = dial::connect(target, host, *port, &self.proxy, own_addresses, until)
            .await
            .map_err(|stop| {
                let other = matches!(stop, Stop::Down(_));
                (stop, other)
            })?;
        let peer = match target {
            Target::Direct(address) => Some(*address),
            Target::Proxied => None,
        };
        let via = match peer {
            Some(address) => format!("{host}[{}]:{port}", address.ip()),
            None => format!("{host}:{port} (proxy)"),
        };
        let mut link = Link::new(tcp, self.timeouts, self.recorder.clone());
        link.record(|| format!("* connected to {via}"));
        link.via.clone_from(&via);
        let mut facts = None;
        if self.settings.tls == Tls::Implicit {
            facts = Some(
                self.handshake(&mut link, deadline)
                    .await
                    .map_err(|s| (s, true))?,
            );
        }
        self.converse_opening(link, facts, peer, deadline).await
    }

    async fn converse_opening(
        &self,
        mut link: Link,
        mut facts: Option<tls::Facts>,
        peer: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<Found, (Stop, bool)> {
        let loopback = peer.is_some_and(|p| p.ip().to_canonical().is_loopback());
        let login = match self.settings.auth {
            Auth::None => None,
            Auth::Auto | Auth::Plain | Auth::Login => self.settings.login.as_ref(),
        };
        let mut opening = Opening::new(Wishes {
            helo: &self.settings.helo,
            upgrade: match self.settings.tls {
                Tls::StartTls => Upgrade::Required,
                Tls::Opportunistic => Upgrade::Offered,
                Tls::Implicit | Tls::Off => Upgrade::Never,
            },
            encrypted: facts.is_some(),
            login,
            mechanism: match self.settings.auth {
                Auth::Plain => Some(Mechanism::Plain),
                Auth::Login => Some(Mechanism::Login),
                Auth::Auto | Auth::None => None,
            },
            plaintext_credentials: self.settings.plaintext_credentials || loopback,
            overrides: &self.settings.overrides,
        });
        let mut ask = opening::Ask::Read(Stage::Greeting);
        let mut greeted = false;
        loop {
            match ask {
                opening::Ask::Read(stage) => {
                    let sent = link.send(stage, opening.shown(), deadline).await;
                    let heard = match sent {
                        Ok(()) => link.read(stage, deadline).await,
                        Err(fault) => Err(fault),
                    };
                    let reply = heard.map_err(|fault| {
                        let other = !greeted && !matches!(fault, Fault::Silent(_));
                        (Stop::down(self.name_fault(&fault)), other)
                    })?;
                    let mut out = std::mem::take(&mut link.out);
                    let next = opening.reply(&reply, &mut out);
                    link.out = out;
                    ask = next.map_err(|stop| {
                        let other = !greeted && matches!(stop, Stop::Down(_));
                        (stop, other)
                    })?;
                    greeted = true;
                    self.check_loop(&opening, peer).map_err(|s| (s, false))?;
                }
                opening::Ask::Handshake => {
                    if !link.is_drained() {
                        return Err((
                            Stop::down(
                                "STARTTLS: something was said between the 220 and the handshake; somebody on the way injects replies",
                            ),
                            false,
                        ));
                    }
                    facts = Some(
                        self.handshake(&mut link, deadline)
                            .await
                            .map_err(|s| (s, false))?,
                    );
                    let mut out = std::mem::take(&mut link.out);
                    ask = opening.secured(&mut out);
                    link.out = out;
                }
                opening::Ask::Ready => break,
            }
        }
        link.offered = opening.offered().clone();
        Ok(Found {
            mechanism: opening.mechanism(),
            link,
            tls: facts,
        })
    }

    /// An upstream that has our name and the port of one of our listeners is ourselves, by whatever address.
    fn check_loop(&self, opening: &Opening<'_>, peer: Option<SocketAddr>) -> Result<(), Stop> {
        let SmtpSettings {
            helo,
            port,
            own_addresses,
            ..
        } = &self.settings;
        let same_name = opening.offered().name.eq_ignore_ascii_case(helo);
        if same_name && peer.is_some() && own_addresses.iter().any(|o| o.port() == *port) {
            return Err(Stop::misconfigured(format!(
                "EHLO: the upstream calls itself {helo}, as this gateway does: mail would go round in circles; correct host and port"
            )));
        }
        Ok(())
    }

    async fn handshake(&self, link: &mut Link, deadline: Instant) -> Result<tls::Facts, Stop> {
        let host = self.settings.host.trim_matches(['[', ']']);
        let (Some(config), Ok(name)) = (
            &self.tls,
            rustls::pki_types::ServerName::try_from(host.to_owned()),
        ) else {
            return Err(Stop::misconfigured(format!(
                "TLS: {host} is no name that a certificate could have"
            )));
        };
        let Stream::Plain(tcp) = std::mem::replace(&mut link.stream, Stream::Gone) else {
            return Err(Stop::down("TLS: begun twice"));
        };
        let until = dial::slice(deadline, self.timeouts.tls);
        let connector = TlsConnector::from(config.clone());
        let implicit = self.settings.tls == Tls::Implicit;
        let stream = match timeout_at(until, connector.connect(name, tcp)).await {
            Err(_) => return Err(Stop::down("TLS: no answer to the handshake in time")),
            Ok(Err(e)) => return Err(Stop::down(tls::explain(&e, host, implicit))),
            Ok(Ok(stream)) => stream,
        };
        let facts = tls::facts(stream.get_ref().1);
        link.record(|| format!("* {}", facts.line));
        link.via = format!("{} {}", link.via, facts.version);
        link.stream = Stream::Tls(Box::new(stream));
        Ok(facts)
    }

    fn name_fault(&self, fault: &Fault) -> String {
        let hint = match fault {
            Fault::Silent(Stage::Greeting) | Fault::Lost(Stage::Greeting, _)
                if self.settings.tls != Tls::Implicit =>
            {
                " (does this port speak TLS from the first octet? then set tls = \"implicit\")"
            }
            _ => "",
        };
        format!("{fault}{hint}")
    }

    /// One delivery over one connection.
    async fn converse(
        &self,
        link: &mut Link,
        work: &mut Delivery<'_>,
        message: &Message,
        deadline: Instant,
    ) {
        let mut out = std::mem::take(&mut link.out);
        let mut ask = work.begin(&mut out);
        link.out = out;
        loop {
            match ask {
                dialogue::Ask::Read(stage) => {
                    let heard = match link.send(stage, None, deadline).await {
                        Ok(()) => link.read(stage, deadline).await,
                        Err(fault) => Err(fault),
                    };
                    match heard {
                        Ok(reply) => {
                            let mut out = std::mem::take(&mut link.out);
                            ask = work.reply(&reply, &mut out);
                            link.out = out;
                        }
                        Err(fault) => {
                            work.lost(&fault.to_string(), false);
                            return;
                        }
                    }
                }
                dialogue::Ask::Content => match self.content(link, message, deadline).await {
                    Ok(Wrote::All) => {
                        work.content_sent();
                        // From here on silence means doubt.
                        let heard = match link.flush(deadline).await {
                            Ok(()) => link.read(Stage::Dot, deadline).await,
                            Err(fault) => Err(fault),
                        };
                        match heard {
                            Ok(reply) => {
                                let mut out = std::mem::take(&mut link.out);
                                ask = work.reply(&reply, &mut out);
                                link.out = out;
                            }
                            Err(fault) => {
                                work.lost(&fault.to_string(), true);
                                return;
                            }
                        }
                    }
                    Ok(Wrote::Reply(reply)) => ask = work.early_reply(&reply),
                    Err(cause) => {
                        // An upstream that refuses and closes at once: its reply is there to be read.
                        match link.last_word(deadline).await {
                            Some(reply) => ask = work.early_reply(&reply),
                            None => {
                                work.lost(&cause, false);
                                return;
                            }
                        }
                    }
                },
                dialogue::Ask::Done => return,
            }
        }
    }

    /// Header, empty line, body, dots stuffed, and the final dot. A small message is one write.
    async fn content(
        &self,
        link: &mut Link,
        message: &Message,
        deadline: Instant,
    ) -> Result<Wrote, String> {
        link.record(|| format!("> <message, {} octets>", message.size()));
        let mut stuffer = DotStuffer::default();
        stuffer.encode(&message.header, &mut link.out);
        stuffer.encode(b"\r\n", &mut link.out);
        match &message.body {
            Body::Memory(bytes) => stuffer.encode(bytes, &mut link.out),
            Body::File(file) => {
                let unreadable = |e: &dyn std::fmt::Display| format!("the stored body: {e}");
                let mut source = tokio::fs::File::open(file.path())
                    .await
                    .map_err(|e| unreadable(&e))?;
                let mut block = vec![0; BLOCK];
                let mut left = file.len();
                while left > 0 {
                    let read = source.read(&mut block).await.map_err(|e| unreadable(&e))? as u64;
                    if read == 0 || read > left {
                        // No dot: the upstream must not take half a message.
                        return Err(unreadable(&"it has not the length it was stored with"));
                    }
                    left -= read;
                    stuffer.encode(
                        block.get(..read as usize).unwrap_or_default(),
                        &mut link.out,
                    );
                    if left > 0
                        && let Wrote::Reply(reply) =
                            link.send_block(deadline).await.map_err(|e| e.to_string())?
                    {
                        return Ok(Wrote::Reply(reply));
                    }
                }
            }
        }
        stuffer.finish(&mut link.out);
        link.send_block(deadline).await.map_err(|e| e.to_string())
    }

    /// What becomes of a connection after a message.
    fn done_with(&self, mut link: Link, after: After) {
        // A large message must not keep its buffer for as long as the connection lives.
        link.out.clear();
        link.out.shrink_to(2 * BLOCK);
        if after == After::Useless || !link.is_drained() {
            return;
        }
        link.used += 1;
        link.reset = after == After::NeedsReset;
        if link.used >= self.settings.messages_per_connection {
            self.pool.leave(link);
        } else {
            self.pool.put(link);
        }
    }
}

#[async_trait]
impl Connector for Smtp {
    fn lane(&self, _message: &Message) -> Lane {
        Lane {
            connector: self.name.clone(),
            mailbox: None,
        }
    }

    async fn deliver(
        &self,
        message: &Message,
        recipients: &[Address],
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
            let outcome = Outcome::Deferred {
                reply,
                retry_after: None,
            };
            return Report::Tried {
                outcomes: recipients
                    .iter()
                    .map(|r| (r.clone(), outcome.clone()))
                    .collect(),
                via: self.settings.host.clone(),
            };
        };
        let mut idle = self.pool.take().await;
        loop {
            let used = idle.is_some();
            let mut link = match idle.take() {
                Some(link) => link,
                None => match Box::pin(self.open(deadline)).await {
                    Ok(found) => found.link,
                    Err(stop) => return stop.into(),
                },
            };
            let offered = std::mem::take(&mut link.offered);
            let mail = Mail {
                envelope: &message.envelope,
                recipients,
                size: message.size(),
            };
            let mut work = Delivery::new(
                mail,
                &offered,
                &self.settings.overrides,
                self.max_recipients,
                link.reset,
            );
            Box::pin(self.converse(&mut link, &mut work, message, deadline)).await;
            let after = work.after();
            if used && after == After::Useless && work.untouched() && Instant::now() < deadline {
                continue;
            }
            let report = work.report(link.via.clone());
            link.offered = offered;
            self.done_with(link, after);
            return report;
        }
    }

    async fn probe(&self, deadline: StdInstant) -> Result<String, Report> {
        let deadline = Instant::from_std(deadline);
        let Found {
            link,
            tls,
            mechanism,
        } = Box::pin(self.open(deadline)).await?;
        let mut text = link.via.clone();
        if let Some(day) = tls.and_then(|t| t.expires) {
            text.push_str(&format!(", certificate valid until {day}"));
        }
        match mechanism {
            Some(Mechanism::Plain) => text.push_str(", logged in with PLAIN"),
            Some(Mechanism::Login) => text.push_str(", logged in with LOGIN"),
            None => text.push_str(", no login"),
        }
        match link.offered.size {
            Some(size) => text.push_str(&format!(", takes {size} octets a message")),
            None => text.push_str(", names no limit of size"),
        }
        link.quit().await;
        Ok(text)
    }
}
