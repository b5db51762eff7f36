//! From nothing to a connection that is logged in: addresses in turn, TLS, greeting to AUTH.
//!
//! Apart from deliveries: nothing in here has attempted a message, so every failure is a [`Stop`].

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls};

use super::{
    Smtp,
    dial::{self, Target},
    link::Link,
    stream::{Fault, Stream},
    tls,
};
use crate::{
    connector::{
        Auth, SmtpSettings, Tls,
        oauth::{Claims, EXCHANGE, Token},
        services::{is_exchange, is_high_volume},
    },
    mail::outcome::Report,
    secret::Secret,
    smtp::{
        client::{
            Stage,
            class::Stop,
            opening::{self, Mechanism, Opening, Upgrade, Wishes},
        },
        sasl,
    },
};

/// What an opened connection is, for `probe`.
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) tls: Option<tls::Facts>,
    pub(super) mechanism: Option<Mechanism>,
}

fn good_until(ends: Instant, is_hve: bool, now: Instant) -> Instant {
    let end = ends.checked_sub(LEAVE).unwrap_or(ends);
    if is_hve { end.min(now + HVE.1) } else { end }
}

/// Why there is no connection.
struct Failed {
    stop: Stop,
    /// Another address may do better.
    other: bool,
    /// Another token may do.
    is_token_refused: bool,
}

impl Failed {
    fn new(stop: Stop, other: bool) -> Self {
        Self {
            stop,
            other,
            is_token_refused: false,
        }
    }
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Self {
        Self::new(stop, false)
    }
}

/// High Volume Email wants a token that lasts for twenty minutes, and forgets a login after them.
const HVE: (Duration, Duration) = (Duration::from_mins(25), Duration::from_mins(20));
/// Elsewhere a token is good to its end.
const LEAST: Duration = Duration::from_mins(5);
/// A connection is left so long before its token ends.
const LEAVE: Duration = Duration::from_mins(1);

impl Smtp {
    /// A connection that is logged in. Where a name has several addresses, one that does not answer or does not greet
    /// gives way to the next. A token that is refused is renewed once, where another one may help.
    pub(super) async fn open(&self, deadline: Instant) -> Result<Found, Report> {
        let Some((tokens, user)) = &self.tokens else {
            let found = self.open_as(self.settings.login.as_ref(), deadline).await;
            return found.map_err(|failed| failed.stop.into());
        };
        let least = if self.is_hve() { HVE.0 } else { LEAST };
        // Before the connection: an upstream that waits for a slow token endpoint would hang up.
        let mut token = tokens.token_lasting(least, deadline).await?;
        let mut is_renewed = false;
        loop {
            let login = (user.clone(), Secret::new(token.reveal()));
            let failed = match self.open_as(Some(&login), deadline).await {
                Ok(mut found) => {
                    found.link.good_until = Some(self.good_until(&token));
                    return Ok(found);
                }
                Err(failed) => failed,
            };
            if !failed.is_token_refused {
                return Err(failed.stop.into());
            }
            // Refused twice it is forgotten all the same: the next probe asks for another.
            tokens.reject(&token);
            if is_renewed {
                return Err(self.wanting(failed.stop, &token).into());
            }
            is_renewed = true;
            let fresh = tokens.token_lasting(least, deadline).await?;
            if fresh == token {
                // The endpoint has a cache of its own; the same login again would be refused again.
                return Err(self.wanting(failed.stop, &token).into());
            }
            token = fresh;
        }
    }

    fn is_hve(&self) -> bool {
        is_high_volume(&self.settings.host)
    }

    /// Until when a connection that logged in with this token serves.
    fn good_until(&self, token: &Token) -> Instant {
        good_until(token.ends(), self.is_hve(), Instant::now())
    }

    /// A refusal with what the token itself says is missing.
    fn wanting(&self, stop: Stop, token: &Token) -> Stop {
        let needed: &[&str] = if self.is_hve() {
            &["Mail.Send"]
        } else {
            &["SMTP.SendAsApp", "SMTP.Send"]
        };
        let claims = token.claims();
        // Exchange Online says of a token for another service only that it is not accepted.
        let service = claims.as_ref().and_then(Claims::service);
        let foreign =
            service.filter(|service| is_exchange(&self.settings.host) && *service != EXCHANGE);
        let missing = match foreign {
            Some(service) => Some(format!(
                "the token is for {service}, not for {EXCHANGE}: remove `scope`"
            )),
            None => claims.and_then(|c| c.missing(needed)),
        };
        match (stop, missing) {
            (Stop::Misconfigured(mut reply), Some(missing)) => {
                reply.text = format!("{}; {missing}", reply.text);
                Stop::Misconfigured(reply)
            }
            (stop, _) => stop,
        }
    }

    async fn open_as(
        &self,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Found, Failed> {
        let SmtpSettings { host, port, .. } = &self.settings;
        let until = dial::slice(deadline, self.timeouts.connect);
        let targets = dial::targets(host, *port, &self.proxy, until).await?;
        let mut last = None;
        for target in &targets {
            let each = match target {
                Target::Direct(_) => dial::slice(until, self.timeouts.connect_each),
                Target::Proxied(_) => until,
            };
            match self.open_one(target, login, each, deadline).await {
                Err(failed) if failed.other => last = Some(failed),
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| Stop::down(format!("{host} has no address")).into()))
    }

    /// One address.
    async fn open_one(
        &self,
        target: &Target,
        login: Option<&(String, Secret)>,
        until: Instant,
        deadline: Instant,
    ) -> Result<Found, Failed> {
        let SmtpSettings {
            host,
            port,
            own_addresses,
            ..
        } = &self.settings;
        let tcp = dial::connect(target, host, *port, own_addresses, until)
            .await
            .map_err(|stop| {
                let other = matches!(stop, Stop::Down(_));
                Failed::new(stop, other)
            })?;
        let peer = match target {
            Target::Direct(address) => Some(*address),
            Target::Proxied(_) => None,
        };
        let via = match peer {
            Some(address) => format!("{host}[{}]:{port}", address.ip()),
            None => format!("{host}:{port} (proxy)"),
        };
        let helo = self.name_of(&tcp);
        let mut link = Link::new(tcp, self.timeouts, self.recorder.clone());
        link.record(|| format!("* connected to {via}"));
        link.via.clone_from(&via);
        let mut facts = None;
        if self.settings.tls == Tls::Implicit {
            facts = Some(
                self.handshake(&mut link, peer, deadline)
                    .await
                    .map_err(|stop| Failed::new(stop, true))?,
            );
        }
        self.converse_opening(link, facts, peer, &helo, login, deadline)
            .await
    }

    async fn converse_opening(
        &self,
        mut link: Link,
        mut facts: Option<tls::Facts>,
        peer: Option<SocketAddr>,
        helo: &str,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Found, Failed> {
        let loopback = peer.is_some_and(|p| p.ip().to_canonical().is_loopback());
        let login = login.filter(|_| self.settings.auth != Auth::None);
        let mut opening = Opening::new(Wishes {
            helo,
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
        if let Some((user, secret)) = login {
            link.hide(sasl::forms(user, secret));
        }
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
                        Failed::new(Stop::down(self.name_fault(&fault, facts.is_some())), other)
                    })?;
                    let mut out = std::mem::take(&mut link.out);
                    let next = opening.reply(&reply, &mut out);
                    link.out = out;
                    ask = next.map_err(|stop| {
                        let other = !greeted && matches!(stop, Stop::Down(_));
                        Failed {
                            is_token_refused: opening.is_token_refused(),
                            ..Failed::new(stop, other)
                        }
                    })?;
                    greeted = true;
                    self.check_loop(&opening, peer)?;
                }
                opening::Ask::Handshake => {
                    let turn = link.our_turn(Stage::StartTls).await;
                    turn.map_err(|fault| Stop::down(self.name_fault(&fault, facts.is_some())))?;
                    facts = Some(self.handshake(&mut link, peer, deadline).await?);
                    let mut out = std::mem::take(&mut link.out);
                    ask = opening.secured(&mut out);
                    link.out = out;
                }
                opening::Ask::Ready => {
                    let turn = link.our_turn(Stage::Envelope).await;
                    turn.map_err(|fault| Stop::down(self.name_fault(&fault, facts.is_some())))?;
                    break;
                }
            }
        }
        link.hide(Vec::new());
        link.offered = opening.offered().clone();
        Ok(Found {
            mechanism: opening.mechanism(),
            link,
            tls: facts,
        })
    }

    /// What this gateway calls itself on a connection: its name, or where that is no full one the address that the connection
    /// comes from (RFC 5321 §4.1.4, §4.1.3).
    fn name_of(&self, tcp: &TcpStream) -> String {
        match tcp.local_addr() {
            Ok(local) if self.settings.says_address => literal(local.ip()),
            _ => self.settings.helo.clone(),
        }
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

    async fn handshake(
        &self,
        link: &mut Link,
        peer: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<tls::Facts, Stop> {
        let host = self.settings.host.trim_matches(['[', ']']);
        let (Some(tls), Ok(name)) = (
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
        let connector = TlsConnector::from(tls.config.clone());
        tls.begins();
        let implicit = self.settings.tls == Tls::Implicit;
        let stream = match timeout_at(until, connector.connect(name, tcp)).await {
            Err(_) => return Err(Stop::down("TLS: no answer to the handshake in time")),
            Ok(Err(e)) => {
                return Err(Stop::down(tls.explain(&e, host, implicit, peer.is_none())));
            }
            Ok(Ok(stream)) => stream,
        };
        let facts = tls::facts(stream.get_ref().1);
        link.record(|| format!("* {}", facts.line));
        link.via = format!("{} {}", link.via, facts.version);
        link.stream = Stream::Tls(Box::new(stream));
        Ok(facts)
    }

    fn name_fault(&self, fault: &Fault, is_encrypted: bool) -> String {
        if let (Fault::Lost(_, error), Some(tls), true) = (fault, &self.tls, is_encrypted)
            && let Some(said) = tls.explain_loss(error.as_ref(), &self.settings.host)
        {
            return said;
        }
        let hint = match fault {
            Fault::Silent(Stage::Greeting) | Fault::Lost(Stage::Greeting, _)
                if self.settings.tls != Tls::Implicit =>
            {
                " (does this port speak TLS from the first octet? then set tls = \"implicit\")"
            }
            Fault::Unasked(Stage::StartTls, _) => "; somebody on the way injects replies",
            _ => "",
        };
        format!("{fault}{hint}")
    }
}

/// An address literal (RFC 5321 §4.1.3).
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        for (address, said) in [
            ("10.0.0.5", "[10.0.0.5]"),
            ("::ffff:10.0.0.5", "[10.0.0.5]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(literal(address.parse().unwrap()), said);
        }
    }

    #[test]
    fn connections_end_with_their_tokens() {
        let (now, minutes) = (Instant::now(), Duration::from_mins);
        for (left, is_hve, good) in [
            (60, false, 59),
            (60, true, 20),
            (25, true, 20),
            (15, true, 14),
            (5, false, 4),
        ] {
            let until = good_until(now + minutes(left), is_hve, now);
            assert_eq!(until, now + minutes(good), "{left} {is_hve}");
        }
        // What it wants of a token is more than it wants of a connection.
        assert!(HVE.0 > HVE.1);
    }
}
