//! A TCP connection to an upstream: names, addresses, proxies.
//!
//! It knows neither TLS nor SMTP. It tries every address of a name, one family after the other in turn, and refuses to
//! connect to one of our own listeners, which would be a mail loop.

use std::{
    fmt,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{failed::Failed, link::Timeouts};
use crate::{
    connector::{
        http::connect::{self, NoTunnel},
        outbound::{Proxy, ProxyServer},
        settings::SmtpSettings,
    },
    mail::{
        cause,
        outcome::{Obstacle, ObstacleKind},
    },
    smtp::client::class::Crowding,
};

/// A connection that is idle is asked after the first, and again each time the second has passed.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_secs(15));
/// What was written and is not acknowledged for so long is lost (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_mins(3);

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hop {
    /// Straight to this address.
    Direct(SocketAddr),
    /// The proxy finds the host.
    Proxied(ProxyServer),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Direct(address) => write!(f, "{}", address.ip()),
            Hop::Proxied(server) => write!(f, "{server}"),
        }
    }
}

/// The addresses to try, in order; [`Hop::Proxied`] alone where a proxy is on the way.
pub(super) async fn targets(
    host: &str,
    port: u16,
    proxy: &Proxy,
    until: Instant,
) -> Result<Vec<Hop>, Obstacle> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let literal: Option<IpAddr> = bare.parse().ok();
    if let Some(server) = proxy.on_the_way_to(bare) {
        return Ok(vec![Hop::Proxied(server.clone())]);
    }
    if let Some(ip) = literal {
        return Ok(vec![Hop::Direct(SocketAddr::new(ip, port))]);
    }
    let found = match timeout_at(until, tokio::net::lookup_host((bare, port))).await {
        Err(_) => {
            let met = format_args!("DNS: no answer about {bare} in time");
            return Err(Obstacle::down(cause::DNS_FAILED.at(met)));
        }
        Ok(Err(e)) => {
            let met = format_args!("DNS: {bare}: {e}");
            return Err(Obstacle::down(cause::DNS_FAILED.at(met)));
        }
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
    };
    if found.is_empty() {
        let met = format_args!("DNS: {bare} has no address");
        return Err(Obstacle::down(cause::DNS_FAILED.at(met)));
    }
    Ok(in_turn(&found).into_iter().map(Hop::Direct).collect())
}

/// Connects to one target within `until`, to a direct one within `connect_each` besides. A refusal of the upstream itself can mean
/// that it has too many connections.
pub(super) async fn connect(
    target: &Hop,
    settings: &SmtpSettings,
    timeouts: Timeouts,
    until: Instant,
) -> Result<TcpStream, Failed> {
    let SmtpSettings {
        host,
        port,
        own_addresses,
        ..
    } = settings;
    let down = |text: String| Failed::new(Obstacle::down(text), true);
    let stream = match target {
        Hop::Direct(address) => {
            let until = slice(until, timeouts.connect_each);
            let stream = match timeout_at(until, TcpStream::connect(address)).await {
                Err(_) => {
                    let met = format_args!("connect to {address}: no answer");
                    return Err(down(cause::HOST_UNREACHABLE.at(met)));
                }
                Ok(Err(e)) => {
                    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
                    return Err(Failed {
                        crowding: kinds.contains(&e.kind()).then_some(Crowding::Hinted),
                        ..down(
                            cause::HOST_UNREACHABLE.at(format_args!("connect to {address}: {e}")),
                        )
                    });
                }
                Ok(Ok(stream)) => stream,
            };
            if is_ourselves(&stream, own_addresses) {
                return Err(Obstacle::misconfigured(format!(
                    "connect: {address} is a listener of this gateway itself, mail would go round in circles; correct host and port"
                ))
                .into());
            }
            stream
        }
        Hop::Proxied(server) => match timeout_at(until, through(server, host, *port)).await {
            Err(_) => {
                let met = format_args!("{server} gave no answer");
                return Err(down(cause::PROXY_UNREACHABLE.at(met)));
            }
            Ok(result) => result.map_err(|obstacle| {
                let other = obstacle.kind == ObstacleKind::Down;
                Failed::new(obstacle, other)
            })?,
        },
    };
    // Commands are written whole; nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    // A connection that a firewall has forgotten is found dead before a message needs it.
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE.0);
    let _ = sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE.1);
    let _ = sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT.as_millis() as u32);
    Ok(stream)
}

/// One family after the other in turn, the resolver's first one first: a dead family costs one try, not all.
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut a, mut b): (Vec<_>, Vec<_>) = found.iter().partition(|x| x.is_ipv6() == first_is_v6);
    a.reverse();
    b.reverse();
    let mut out: Vec<SocketAddr> = Vec::with_capacity(found.len());
    while let Some(address) = a.pop() {
        out.push(address);
        out.extend(b.pop());
    }
    b.reverse();
    out.extend(b);
    let mut seen = Vec::new();
    out.retain(|x| {
        !seen.contains(x) && {
            seen.push(*x);
            true
        }
    });
    out
}

fn is_ourselves(stream: &TcpStream, own: &[SocketAddr]) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return false;
    };
    let ip = peer.ip().to_canonical();
    own.iter().filter(|o| o.port() == peer.port()).any(|o| {
        let ours = o.ip().to_canonical();
        // A listener on every address answers on loopback and on whatever address we also speak from.
        ours == ip || ours.is_unspecified() && (ip.is_loopback() || ip == local.ip().to_canonical())
    })
}

async fn through(server: &ProxyServer, host: &str, port: u16) -> Result<TcpStream, Obstacle> {
    let down = |e: &dyn std::fmt::Display| Obstacle::down(format!("{server}: {e}"));
    let mut stream = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(|e| Obstacle::down(cause::PROXY_UNREACHABLE.at(format_args!("{server}: {e}"))))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if server.socks {
        use tokio_socks::{Error, tcp::Socks5Stream};
        let result = match &server.login {
            None => Socks5Stream::connect_with_socket(stream, (host, port)).await,
            Some((user, password)) => {
                let password = password.reveal();
                Socks5Stream::connect_with_password_and_socket(stream, (host, port), user, password)
                    .await
            }
        };
        return match result {
            Ok(connected) => Ok(connected.into_inner()),
            Err(
                e @ (Error::PasswordAuthFailure(_)
                | Error::NoAcceptableAuthMethods
                | Error::InvalidAuthValues(_)),
            ) => Err(Obstacle::misconfigured(
                server.refuses_login(&e.to_string()),
            )),
            Err(e) => Err(down(&e)),
        };
    }
    let authority = connect::authority(host, port);
    let answer = connect::ask(&mut stream, server, &authority)
        .await
        .map_err(|e| down(&e))?;
    match connect::refusal(server, &authority, &answer) {
        None => Ok(stream),
        Some(NoTunnel::Login(text)) => Err(Obstacle::misconfigured(text)),
        Some(NoTunnel::Closed(text)) => Err(Obstacle::down(text)),
    }
}

/// What a connection attempt to one address may take.
pub(super) fn slice(until: Instant, each: Duration) -> Instant {
    until.min(Instant::now() + each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list = |text: &[&str]| -> Vec<SocketAddr> {
            text.iter().map(|t| t.parse().unwrap()).collect()
        };
        for (input, output) in [
            (vec!["1.1.1.1:1"], vec!["1.1.1.1:1"]),
            (
                vec!["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"],
                vec!["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "1.1.1.3:1"],
            ),
            (vec!["1.1.1.1:1", "1.1.1.1:1"], vec!["1.1.1.1:1"]),
        ] {
            assert_eq!(in_turn(&list(&input)), list(&output));
        }
    }
}
