//! From nothing to a connection that is logged in: addresses in turn, TLS, greeting to AUTH.
//!
//! Apart from deliveries: nothing in here has attempted a message, so every failure is a [`Stop`].

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, rustls};

use super::{
    Smtp,
    dial::{self, Target},
    link::{Fault, Link, Stream},
    tls,
};
use crate::{
    connector::{Auth, SmtpSettings, Tls},
    mail::outcome::Report,
    secret::Secret,
    smtp::client::{
        Stage,
        class::Stop,
        opening::{self, Mechanism, Opening, Upgrade, Wishes},
    },
};

/// What an opened connection is, for `probe`.
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) tls: Option<tls::Facts>,
    pub(super) mechanism: Option<Mechanism>,
}

impl Smtp {
    /// A connection that is logged in. Where a name has several addresses, one that does not answer or does not greet
    /// gives way to the next.
    pub(super) async fn open(&self, deadline: Instant) -> Result<Found, Stop> {
        let Some((tokens, user)) = &self.tokens else {
            return self.open_as(self.settings.login.as_ref(), deadline).await;
        };
        // Before the connection: an upstream that waits for a slow token endpoint would hang up.
        let token = tokens.token(deadline).await.map_err(no_token)?;
        let login = (user.clone(), Secret::new(token.reveal()));
        match self.open_as(Some(&login), deadline).await {
            // Refused: it may have been revoked. Another one, once.
            Err(Stop::Misconfigured(reply)) if reply.code == 535 => {
                tokens.reject(&token);
                let token = tokens.token(deadline).await.map_err(no_token)?;
                let login = (user.clone(), Secret::new(token.reveal()));
                self.open_as(Some(&login), deadline).await
            }
            found => found,
        }
    }

    async fn open_as(
        &self,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Found, Stop> {
        let SmtpSettings { host, port, .. } = &self.settings;
        let until = dial::slice(deadline, self.timeouts.connect);
        let targets = dial::targets(host, *port, &self.proxy, until).await?;
        let mut last = None;
        for target in &targets {
            let each = match target {
                Target::Direct(_) => dial::slice(until, self.timeouts.connect_each),
                Target::Proxied => until,
            };
            match self.open_one(target, login, each, deadline).await {
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
        login: Option<&(String, Secret)>,
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
        self.converse_opening(link, facts, peer, login, deadline)
            .await
    }

    async fn converse_opening(
        &self,
        mut link: Link,
        mut facts: Option<tls::Facts>,
        peer: Option<SocketAddr>,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Found, (Stop, bool)> {
        let loopback = peer.is_some_and(|p| p.ip().to_canonical().is_loopback());
        let login = login.filter(|_| self.settings.auth != Auth::None);
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
                Auth::Xoauth2 => Some(Mechanism::Xoauth2),
                Auth::OauthBearer => Some(Mechanism::OauthBearer),
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
}

/// What a token that cannot be had means here: nothing was attempted.
fn no_token(report: Report) -> Stop {
    match report {
        Report::Misconfigured(reply) | Report::MailboxRefused(reply) => Stop::Misconfigured(reply),
        Report::Down { reply, .. } => Stop::Down(reply),
        Report::Tried { .. } => Stop::down("no token"),
    }
}
