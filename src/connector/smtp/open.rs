//! From nothing to a connection that is logged in: addresses in turn, TLS, greeting to AUTH.
//!
//! Nothing in here has attempted a message, so every failure is an [`Obstacle`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    dial::{self, Hop},
    encrypted::Facts,
    failed::{Failed, together},
    handshake::handshake,
    link::{Link, Timeouts},
    race::{FailedAddresses, Race},
    stream::{LinkFault, Stream},
    tls,
};
use crate::{
    connector::{
        interface::{Recorder, Services},
        oauth::{Claims, EXCHANGE, Token, TokenSource},
        services::{is_exchange, is_high_volume},
        settings::{Auth, Pipelining, SmtpSettings, Tls},
    },
    mail::outcome::{Obstacle, ObstacleKind},
    route::ConnectorName,
    secret::Secret,
    smtp::client::{
        Stage,
        capabilities::Capabilities,
        class::{Place, crowding},
        opening::{Opening, OpeningOptions, OpeningStep, Upgrade},
    },
    smtp::sasl::Mechanism,
};

/// What an opened connection is, for `probe`.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) tls: Option<Facts>,
    pub(super) mechanism: Option<Mechanism>,
}

fn good_until(ends: Instant, is_hve: bool, now: Instant) -> Instant {
    let end = ends.checked_sub(LEAVE).unwrap_or(ends);
    if is_hve { end.min(now + HVE.1) } else { end }
}

/// High Volume Email wants a token that lasts for twenty minutes, and forgets a login after them.
const HVE: (Duration, Duration) = (Duration::from_mins(25), Duration::from_mins(20));
/// Elsewhere a token is good to its end.
const LEAST: Duration = Duration::from_mins(5);
/// A connection is given up this long before its token ends.
const LEAVE: Duration = Duration::from_mins(1);

/// Makes connections.
pub(super) struct Opener {
    pub(super) name: ConnectorName,
    pub(super) settings: SmtpSettings,
    timeouts: Timeouts,
    tls: Option<tls::TlsClient>,
    recorder: Option<Recorder>,
    failed: FailedAddresses,
    /// For XOAUTH2 and OAUTHBEARER, with the mailbox that logs in.
    tokens: Option<(Arc<TokenSource>, String)>,
}

impl Opener {
    /// Reads certificates and keys; connects to nothing.
    pub(super) fn new(
        name: ConnectorName,
        settings: &SmtpSettings,
        timeouts: Timeouts,
        services: Services,
    ) -> Result<Self, String> {
        let tls = match settings.tls {
            Tls::Off => None,
            Tls::Implicit | Tls::StartTls | Tls::Opportunistic => Some(tls::client(settings)?),
        };
        let tokens = match &settings.oauth {
            None => None,
            Some((oauth, user)) => {
                let source = TokenSource::new(name.as_str(), oauth, services.token_store)?;
                Some((source, user.clone()))
            }
        };
        Ok(Self {
            name,
            settings: settings.clone(),
            timeouts,
            tls,
            recorder: services.recorder,
            failed: FailedAddresses::default(),
            tokens,
        })
    }

    /// What an opening may take: it is for whoever waits when it is done, not for one message.
    pub(super) fn deadline(&self) -> Instant {
        let Timeouts {
            connect,
            tls,
            greeting,
            command,
            ..
        } = self.timeouts;
        Instant::now() + connect + tls + greeting + command
    }

    /// A connection that is logged in. Where a name has several addresses, one that does not answer or does not greet
    /// gives way to the next. A token that is refused is renewed once, where another one may help.
    pub(super) async fn open(&self, deadline: Instant) -> Result<Opened, Failed> {
        let Some((tokens, user)) = &self.tokens else {
            return self.open_as(self.settings.login.as_ref(), deadline).await;
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
                return Err(failed);
            }
            // Refused twice it is forgotten all the same: the next probe asks for another.
            tokens.reject(&token);
            if is_renewed {
                return Err(self.wanting(failed.obstacle, &token).into());
            }
            is_renewed = true;
            let fresh = tokens.token_lasting(least, deadline).await?;
            if fresh == token {
                // The endpoint has a cache of its own; the same login again would be refused again.
                return Err(self.wanting(failed.obstacle, &token).into());
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
    fn wanting(&self, mut obstacle: Obstacle, token: &Token) -> Obstacle {
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
                "the token is for {service}, not for {EXCHANGE}: remove `scope` [audience-wrong]"
            )),
            None => claims.and_then(|c| c.missing(needed)),
        };
        if let (ObstacleKind::Misconfigured, Some(missing)) = (obstacle.kind, missing) {
            obstacle.reply.text = format!("{}; {missing}", obstacle.reply.text);
        }
        obstacle
    }

    async fn open_as(
        &self,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Opened, Failed> {
        let SmtpSettings { host, port, .. } = &self.settings;
        let until = dial::slice(deadline, self.timeouts.connect);
        let mut targets = dial::targets(host, *port, &self.settings.proxy, until).await?;
        self.failed.last(&mut targets);
        self.open_any(targets, login, deadline).await
    }

    async fn open_any(
        &self,
        targets: Vec<Hop>,
        login: Option<&(String, Secret)>,
        deadline: Instant,
    ) -> Result<Opened, Failed> {
        let mut race = Race::new(targets, self.timeouts.connect);
        let mut tried: Vec<(Hop, Failed)> = Vec::new();
        // RFC 5321 §5.1: each in order, until one takes us.
        loop {
            let (hop, connected) = match race.first(&self.settings, self.timeouts, deadline).await {
                Some(Ok((hop, tcp))) => (hop, tcp),
                Some(Err((hop, failed))) => {
                    self.failed.note(&hop);
                    tried.push((hop, failed));
                    continue;
                }
                None => break,
            };
            race.overtaken
                .iter()
                .for_each(|slow| self.failed.note(slow));
            let is_last = race.is_over();
            let timeouts = if is_last {
                self.timeouts
            } else {
                self.timeouts.hurried()
            };
            let link = self.link(connected, &hop, timeouts);
            match self
                .open_one(link, &hop, login, &mut race.left, deadline)
                .await
            {
                Ok(mut found) => {
                    found.link.timeouts = self.timeouts;
                    return Ok(found);
                }
                Err(failed) => {
                    if failed.crowding.is_none() && failed.other {
                        self.failed.note(&hop);
                    }
                    let is_new = !tried.iter().any(|(other, _)| *other == hop);
                    if failed.is_silent && !is_last && is_new {
                        // When all others have failed it gets the time that it may want.
                        race.put_last(hop.clone());
                    }
                    let is_final = !failed.other;
                    tried.retain(|(other, _)| *other != hop);
                    tried.push((hop, failed));
                    if is_final || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        let nothing = || Obstacle::down("the name has no address").into();
        Err(together(tried).unwrap_or_else(nothing))
    }

    /// One address; where TLS is taken as it comes and fails, once more without it.
    async fn open_one(
        &self,
        link: Link,
        target: &Hop,
        login: Option<&(String, Secret)>,
        left: &mut Duration,
        deadline: Instant,
    ) -> Result<Opened, Failed> {
        let timeouts = link.timeouts;
        let upgrade = match self.settings.tls {
            Tls::StartTls => Upgrade::Required,
            Tls::Opportunistic => Upgrade::Offered,
            Tls::Implicit | Tls::Off => Upgrade::Never,
        };
        let offered = self
            .tls
            .as_ref()
            .map_or(0, tls::TlsClient::sessions_offered);
        let begun = self.converse_opening(link, target, login, upgrade, deadline);
        let mut done = begun.await;
        let may_do_afresh = |failed: &Failed| {
            let tls = self.tls.as_ref().filter(|_| failed.is_tls);
            tls.is_some_and(|tls| tls.may_do_afresh(offered))
        };
        if let Err(failed) = &done
            && may_do_afresh(failed)
        {
            let link = self.connect(target, timeouts, left, deadline).await?;
            link.record(|| "* once more with a new TLS session".to_owned());
            let begun = self.converse_opening(link, target, login, upgrade, deadline);
            done = begun.await;
        }
        let failed = match done {
            Err(failed) if failed.is_tls && upgrade == Upgrade::Offered => failed,
            done => return done,
        };
        // Whoever could break the handshake could have taken STARTTLS out of the reply as well (RFC 3207 §6).
        let mut link = self.connect(target, timeouts, left, deadline).await?;
        link.record(|| format!("* {}; once more without TLS", failed.obstacle.reply.text));
        link.via.push_str(" without TLS");
        self.converse_opening(link, target, login, Upgrade::Never, deadline)
            .await
    }

    /// The same address once more.
    async fn connect(
        &self,
        target: &Hop,
        timeouts: Timeouts,
        left: &mut Duration,
        deadline: Instant,
    ) -> Result<Link, Failed> {
        let begun = Instant::now();
        let until = dial::slice(deadline, *left);
        let connected = dial::connect(target, &self.settings, timeouts, until).await;
        *left = left.saturating_sub(begun.elapsed());
        Ok(self.link(connected?, target, timeouts))
    }

    fn link(&self, tcp: TcpStream, target: &Hop, timeouts: Timeouts) -> Link {
        let SmtpSettings { host, port, .. } = &self.settings;
        let mut link = Link::new(tcp, timeouts, self.recorder.clone());
        link.via = match target {
            Hop::Direct(address) => format!("{host}[{}]:{port}", address.ip()),
            Hop::Proxied(_) => format!("{host}:{port} (proxy)"),
        };
        link.record(|| format!("* connected to {}", link.via));
        link
    }

    /// What is used of what was offered.
    fn used(&self, offered: &Capabilities) -> Capabilities {
        let mut used = offered.clone();
        used.pipelining &= self.settings.pipelining != Pipelining::Off;
        used.dsn &= self.settings.dsn;
        used
    }

    async fn converse_opening(
        &self,
        mut link: Link,
        target: &Hop,
        login: Option<&(String, Secret)>,
        upgrade: Upgrade,
        deadline: Instant,
    ) -> Result<Opened, Failed> {
        let peer = match target {
            Hop::Direct(address) => Some(*address),
            Hop::Proxied(_) => None,
        };
        let helo = match &link.stream {
            Stream::Plain(tcp) => self.name_of(tcp),
            _ => self.settings.helo.clone(),
        };
        let mut facts = None;
        if self.settings.tls == Tls::Implicit {
            facts = Some(
                handshake(self.tls.as_ref(), &self.settings, &mut link, peer, deadline).await?,
            );
        }
        let loopback = peer.is_some_and(|p| p.ip().to_canonical().is_loopback());
        let login = login.filter(|_| self.settings.auth != Auth::None);
        let mut opening = Opening::new(OpeningOptions {
            helo: &helo,
            upgrade,
            encrypted: facts.is_some(),
            login,
            mechanism: match self.settings.auth {
                Auth::With(mechanism) => Some(mechanism),
                Auth::Auto | Auth::None => None,
            },
            plaintext_credentials: self.settings.plaintext_credentials || loopback,
            overrides: &self.settings.overrides,
        });
        link.mask = opening.mask();
        let mut step = OpeningStep::Read(Stage::Greeting);
        loop {
            match step {
                OpeningStep::Read(stage) => {
                    let sent = link.send(stage, opening.shown(), deadline).await;
                    let heard = match sent {
                        Ok(()) => {
                            let by = self.hears_until(stage, deadline);
                            link.read(stage, by).await
                        }
                        Err(fault) => Err(fault),
                    };
                    let reply = match heard {
                        Ok(reply) => reply,
                        Err(fault) => return Err(self.unheard(&mut link, &fault).await),
                    };
                    let mut out = std::mem::take(&mut link.out);
                    let next = opening.reply(&reply, &mut out);
                    link.out = out;
                    step = next.map_err(|obstacle| {
                        // A login that one address refuses is refused by all, and is not tried at the others.
                        let is_refused = matches!(
                            obstacle.kind,
                            ObstacleKind::Misconfigured | ObstacleKind::MailboxRefused
                        );
                        let other = !is_refused || opening.mechanism().is_none();
                        let place = match stage {
                            Stage::Greeting => Place::Greeting,
                            Stage::Hello => Place::Hello,
                            Stage::StartTls => Place::StartTls,
                            _ => Place::Auth,
                        };
                        Failed {
                            crowding: crowding(&reply, place, &self.settings.overrides),
                            is_token_refused: opening.is_token_refused(),
                            ..Failed::new(obstacle, other)
                        }
                    })?;
                    self.check_loop(&opening, peer)?;
                }
                OpeningStep::Handshake => {
                    let turn = link.our_turn(Stage::StartTls).await;
                    turn.map_err(|fault| {
                        Failed::new(Obstacle::down(self.name_fault(&link, &fault)), true)
                    })?;
                    facts = Some(
                        handshake(self.tls.as_ref(), &self.settings, &mut link, peer, deadline)
                            .await?,
                    );
                    let mut out = std::mem::take(&mut link.out);
                    step = opening.secured(&mut out);
                    link.out = out;
                }
                OpeningStep::Ready => {
                    let turn = link.our_turn(Stage::Envelope).await;
                    turn.map_err(|fault| {
                        Failed::new(Obstacle::down(self.name_fault(&link, &fault)), true)
                    })?;
                    break;
                }
            }
        }
        link.offered = Arc::new(self.used(opening.offered()));
        Ok(Opened {
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
    fn check_loop(&self, opening: &Opening<'_>, peer: Option<SocketAddr>) -> Result<(), Obstacle> {
        let SmtpSettings {
            helo,
            port,
            own_addresses,
            ..
        } = &self.settings;
        let same_name = opening.offered().name.eq_ignore_ascii_case(helo);
        if same_name && peer.is_some() && own_addresses.iter().any(|o| o.port() == *port) {
            return Err(Obstacle::misconfigured(format!(
                "EHLO: the upstream calls itself {helo}, as this gateway does: mail would go round in circles; correct host and port"
            )));
        }
        Ok(())
    }

    pub(super) fn name_fault(&self, link: &Link, fault: &LinkFault) -> String {
        if let (LinkFault::Lost(_, error), Some(tls), Stream::Tls(_)) =
            (fault, &self.tls, &link.stream)
            && let Some(said) = tls.explain_loss(error.as_ref(), &self.settings.host)
        {
            return said;
        }
        let hint = match fault {
            LinkFault::Lost(Stage::Greeting, _) if self.settings.tls != Tls::Implicit => {
                " (does this port speak TLS from the first octet? then set tls = \"implicit\")"
            }
            LinkFault::Unasked(Stage::StartTls, _) => "; somebody on the way injects replies",
            _ => "",
        };
        format!("{}{hint}", link.mask.text(&fault.to_string()))
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
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;
    use crate::{connector::Services, fixture};

    /// Says its lines, the first one as greeting and one to every line it hears; an empty one closes. Says who was asked.
    async fn upstream(ip: &str, port: u16, script: &'static str) -> (u16, JoinSet<()>) {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                for says in script.split('|') {
                    if says == "silence" {
                        std::future::pending::<()>().await;
                    }
                    if says.is_empty() {
                        break;
                    }
                    let says = says.replace(" / ", "\r\n") + "\r\n";
                    let _ = stream.get_mut().write_all(says.as_bytes()).await;
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            }
        });
        (port, tasks)
    }

    fn connector(port: u16, tls: Tls) -> Opener {
        let settings = SmtpSettings {
            tls,
            ..fixture::smtp("two.test", port)
        };
        let timeouts = Timeouts {
            connect_each: Duration::from_millis(200),
            ..Timeouts::default()
        };
        Opener::new("up".into(), &settings, timeouts, Services::default()).unwrap()
    }

    async fn try_two(
        first: &'static str,
        second: &'static str,
        tls: Tls,
    ) -> Result<String, (Obstacle, String)> {
        let (port, _first) = upstream("127.0.0.2", 0, first).await;
        let (_, _second) = upstream("127.0.0.3", port, second).await;
        let targets = ["127.0.0.2", "127.0.0.3"]
            .map(|ip| Hop::Direct(SocketAddr::new(ip.parse().unwrap(), port)));
        let login = ("u".to_owned(), Secret::new("password"));
        let login = first.contains("AUTH").then_some(&login);
        let connector = connector(port, tls);
        let deadline = Instant::now() + Duration::from_secs(20);
        match connector.open_any(targets.to_vec(), login, deadline).await {
            Ok(found) => Ok(found.link.via.clone()),
            Err(failed) => {
                let text = failed.obstacle.reply.text.clone();
                Err((failed.obstacle, text))
            }
        }
    }

    /// RFC 5321 §5.1: each address in order, until one takes us.
    #[tokio::test]
    async fn every_failure_before_mail_gives_way_to_the_next_address() {
        const GOOD: &str = "220 hi|250-up / 250 AUTH PLAIN|235 ok|250 ok";
        for first in [
            "",
            "silence",
            "421 4.3.2 busy",
            "554 no",
            "hello",
            "220 hi|",
            "220 hi|silence",
            "220 hi|421 4.3.2 busy",
            "220 hi|554 no",
            "220 hi|hello",
            "220 hi / 250 early|250 up",
            "220 hi|250 AUTH",
            "220 hi|250-up / 250 AUTH NTLM",
            "220 hi|250-up / 250 AUTH PLAIN|454 4.7.0 later",
            "220 hi|250-up / 250 AUTH PLAIN|",
            "220 hi|250-up / 250 AUTH PLAIN|silence",
        ] {
            let found = try_two(first, GOOD, Tls::Off).await;
            assert!(
                found.is_ok_and(|via| via.contains("[127.0.0.3]")),
                "{first}"
            );
        }
        // With TLS: none of them has it; both were asked, and the report names both.
        for (first, word) in [
            ("220 hi|250 up", "does not offer it"),
            ("220 hi|250-up / 250 XXXXXXXA", "(XXXXXXXA)"),
            ("220 hi|250-up / 250 xxxxxxxx", "(XXXXXXXX)"),
            (
                "220 hi|250-up / 250 STARTTLS|454 4.7.0 later",
                "454 STARTTLS: later",
            ),
            ("220 hi|250-up / 250 STARTTLS|220 go|", "TLS: "),
            ("220 hi|250-up / 250 STARTTLS|220 go / 250 up", "injects"),
        ] {
            let (stop, text) = try_two(first, "421 4.3.2 busy", Tls::StartTls)
                .await
                .unwrap_err();
            assert!(stop.kind == ObstacleKind::Down, "{text}");
            let both =
                text.contains("127.0.0.2: ") && text.contains("127.0.0.3: 421 greeting: busy");
            assert!(both && text.contains(word), "{text}");
        }
        // A login that is refused is not carried on.
        let refused = "220 hi|250-up / 250 AUTH PLAIN|535 5.7.8 wrong";
        let (stop, text) = try_two(refused, GOOD, Tls::Off).await.unwrap_err();
        assert!(
            stop.kind == ObstacleKind::Misconfigured && !text.contains("127.0.0.3"),
            "{text}"
        );
        // Who was given little time for the other's sake gets its own when that one fails.
        let (_, text) = try_two("421 busy", "hello", Tls::Off).await.unwrap_err();
        assert!(
            text.contains("127.0.0.3: ") && text.contains(": hello"),
            "{text}"
        );
    }

    /// Taken as it comes: where the handshake fails, the same address without it, but never for a certificate.
    #[tokio::test]
    async fn opportunistic_goes_on_without_tls_when_the_handshake_fails() {
        let (port, _tasks) = upstream(
            "127.0.0.1",
            0,
            "220 hi|250-up / 250 STARTTLS|220 go|no handshake",
        )
        .await;
        let targets = [Hop::Direct(SocketAddr::new(
            "127.0.0.1".parse().unwrap(),
            port,
        ))];
        let deadline = Instant::now() + Duration::from_secs(20);
        let found = connector(port, Tls::Opportunistic)
            .open_any(targets.to_vec(), None, deadline)
            .await;
        let via = found
            .map_err(|failed| failed.obstacle)
            .unwrap()
            .link
            .via
            .clone();
        assert!(via.ends_with("without TLS"), "{via}");
        let found = connector(port, Tls::StartTls)
            .open_any(targets.to_vec(), None, deadline)
            .await;
        assert!(found.is_err_and(|failed| failed.obstacle.kind == ObstacleKind::Down));
    }

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
