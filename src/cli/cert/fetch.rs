//! `postern cert fetch`: the certificate that a server shows, to be pinned.
//!
//! Nobody vouches for it: that it is the right one, a person says who has compared its fingerprint. It is asked for as a modern client
//! would, then as an old one, so that a server is reached which only `min_tls` and `old_ciphers` can speak to.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{IpAddr, TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{digest, rand};
use rustls::{ClientConnection, pki_types::ServerName};

use super::offer::{self, OldHello, ServerShown};
use crate::{
    cli::{
        exit::{CommandError, Ended, Exit},
        output,
    },
    connector::{Verify, tls_config, tls_trouble},
    mail::{
        text::{pem, shown},
        time::{at, day},
        tls::TlsVersion,
    },
};

/// Connecting, and each wait for octets.
const PATIENCE: Duration = Duration::from_secs(10);
/// All of one conversation.
const WHOLE: Duration = Duration::from_secs(30);
/// Octets of a handshake that are looked at: a chain of many certificates has less.
const MOST: usize = 128 * 1024;
/// Lines of a reply, and octets of all of them.
const REPLY: u64 = 16 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct FetchArguments {
    /// The server, e.g. mail.corp.example:587
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// It begins in the clear, and TLS follows STARTTLS (as on ports 25 and 587)
    #[arg(long)]
    starttls: bool,
}

/// Where, and how.
struct FetchTarget {
    host: String,
    port: u16,
    starttls: bool,
}

/// A connection that waits for so long and no longer, however the other side spreads its octets.
struct Patient {
    tcp: TcpStream,
    until: Instant,
}

impl Patient {
    fn new(tcp: TcpStream) -> Self {
        let until = Instant::now() + WHOLE;
        Self { tcp, until }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(late(io::ErrorKind::TimedOut.into())),
            left => Ok(Some(left.min(PATIENCE))),
        }
    }
}

impl Read for Patient {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(octets).map_err(late)
    }
}

impl Write for Patient {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(octets).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "there was no answer in time")
        }
        _ => error,
    }
}

/// The words for a connection that broke off in a handshake.
fn broken(error: &io::Error, server: &FetchTarget) -> String {
    let hint = if server.starttls {
        "without a word"
    } else {
        "without a word: if it begins in the clear, as on ports 25 and 587, ask with --starttls"
    };
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("the server closed the connection {hint}")
        }
        _ => error.to_string(),
    }
}

/// Why there is no certificate.
enum FetchFault {
    /// There is no way to the handshake: no other hello would do better.
    Before(String),
    /// Another hello may.
    Tls(String),
}

pub(super) fn run(arguments: &FetchArguments) -> Ended {
    let server = server(arguments).ok_or_else(|| {
        CommandError::new(
            Exit::Usage,
            format_args!(
                "{}: write HOST:PORT, as in mail.corp.example:587",
                shown(&arguments.server)
            ),
        )
    })?;
    let mut said = Vec::new();
    for hello in [None, Some(OldHello::Tls12), Some(OldHello::Tls10)] {
        match fetch(&server, hello) {
            Ok(der) => return tell(&server, &der),
            Err(FetchFault::Before(why)) => return Err(CommandError::new(Exit::Unavailable, why)),
            Err(FetchFault::Tls(why)) => said.push(why),
        }
    }
    said.dedup();
    let hint = if server.starttls {
        ""
    } else {
        "\nDoes it begin in the clear? Then add --starttls."
    };
    Err(CommandError::new(
        Exit::Unavailable,
        format_args!("no certificate came: {}{hint}", said.join("; then ")),
    ))
}

fn server(arguments: &FetchArguments) -> Option<FetchTarget> {
    let (host, port) = arguments.server.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // What no certificate can be for is no host either.
    let is_one = !host.is_empty() && ServerName::try_from(host).is_ok();
    Some(FetchTarget {
        host: is_one.then(|| host.to_owned())?,
        port: port.parse().ok().filter(|port| *port != 0)?,
        starttls: arguments.starttls,
    })
}

/// PEM on standard output, what it is on standard error.
fn tell(server: &FetchTarget, der: &[u8]) -> Ended {
    let text = pem("CERTIFICATE", der);
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, parsed)) => {
            let validity = parsed.validity();
            let date = |seconds: i64| day(at(seconds));
            output::complain(format_args!(
                "certificate of {}, issued by {}, valid from {} to {}",
                shown(&parsed.subject().to_string()),
                shown(&parsed.issuer().to_string()),
                date(validity.not_before.timestamp()),
                date(validity.not_after.timestamp()),
            ));
        }
        Err(_) => output::complain("a certificate that cannot be read here"),
    }
    let digest = digest::digest(&digest::SHA256, der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    output::complain(format_args!("SHA-256 {}", pairs.join(":")));
    output::complain(format_args!(
        "This is what {}:{} shows from here. Compare the SHA-256 with what the server itself says before ca_file names it.",
        server.host, server.port
    ));
    output::lines(text.as_bytes())?;
    Ok(Exit::Ok)
}

fn fetch(server: &FetchTarget, hello: Option<OldHello>) -> Result<Vec<u8>, FetchFault> {
    let mut link = connect(server).map_err(FetchFault::Before)?;
    if server.starttls {
        starttls(&mut link).map_err(FetchFault::Before)?;
    }
    match hello {
        None => modern(server, &mut link),
        Some(hello) => old(server, hello, &mut link),
    }
}

fn connect(server: &FetchTarget) -> Result<Patient, String> {
    let FetchTarget { host, port, .. } = server;
    let found = (host.as_str(), *port).to_socket_addrs();
    let found = found.map_err(|e| format!("{host} is not found: {e}"))?;
    let mut why = format!("{host} has no address");
    for address in found {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(tcp) => return Ok(Patient::new(tcp)),
            Err(e) => why = format!("connect to {address}: {e}"),
        }
    }
    Err(why)
}

/// Greeting, EHLO, STARTTLS. What came behind the reply to STARTTLS is dropped with the reader: it is nothing that would be believed.
fn starttls(link: &mut Patient) -> Result<(), String> {
    let lost = |e: io::Error| format!("the connection was lost before TLS: {e}");
    let name = match link.tcp.local_addr().map(|a| a.ip().to_canonical()) {
        Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
        Err(e) => return Err(lost(e)),
    };
    let mut heard = BufReader::new(Patient {
        tcp: link.tcp.try_clone().map_err(lost)?,
        until: link.until,
    });
    for (says, wants, at) in [
        (String::new(), "220", "the greeting"),
        (format!("EHLO {name}\r\n"), "250", "EHLO"),
        ("STARTTLS\r\n".to_owned(), "220", "STARTTLS"),
    ] {
        link.write_all(says.as_bytes()).map_err(lost)?;
        let last = reply(&mut heard).map_err(lost)?;
        if !last.starts_with(wants) {
            return Err(format!("{at} was answered: {}", shown(&last)));
        }
    }
    Ok(())
}

/// The last line of a reply.
fn reply(heard: &mut BufReader<Patient>) -> io::Result<String> {
    let mut heard = heard.take(REPLY);
    loop {
        let mut line = Vec::new();
        if heard.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.get(3) != Some(&b'-') {
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
}

/// As everybody is spoken to, but that every certificate would do.
fn modern(server: &FetchTarget, link: &mut Patient) -> Result<Vec<u8>, FetchFault> {
    let config = tls_config(Verify::None, None, None, TlsVersion::V1_2);
    let config = config.map_err(FetchFault::Before)?;
    let name = ServerName::try_from(server.host.clone());
    let name = name.map_err(|e| FetchFault::Before(e.to_string()))?;
    let mut connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|e| FetchFault::Tls(tls_trouble(&e, &server.host)))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(link) {
            let inner = error.get_ref().and_then(|e| e.downcast_ref());
            // A certificate may have come all the same.
            if connection.peer_certificates().is_none() {
                return Err(FetchFault::Tls(inner.map_or_else(
                    || broken(&error, server),
                    |e| tls_trouble(e, &server.host),
                )));
            }
            break;
        }
    }
    let own = connection.peer_certificates().and_then(<[_]>::first);
    own.map(|own| own.to_vec())
        .ok_or_else(|| FetchFault::Tls("the upstream shows no certificate".to_owned()))
}

/// As an old client would ask; the handshake is not gone on with.
fn old(server: &FetchTarget, which: OldHello, link: &mut Patient) -> Result<Vec<u8>, FetchFault> {
    let lost = |e: io::Error| {
        FetchFault::Tls(format!(
            "an older hello was not answered: {}",
            broken(&e, server)
        ))
    };
    let mut random = [0; 32];
    rand::fill(&mut random)
        .map_err(|_| FetchFault::Before("there are no random numbers".into()))?;
    let is_name = server.host.parse::<IpAddr>().is_err();
    let name = is_name.then_some(server.host.as_str());
    link.write_all(&offer::hello(which, random, name))
        .map_err(lost)?;
    let mut octets = Vec::new();
    let mut piece = [0; 4096];
    while octets.len() < MOST {
        let n = link.read(&mut piece).map_err(lost)?;
        if n == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        octets.extend_from_slice(piece.get(..n).unwrap_or_default());
        match offer::look(&octets) {
            ServerShown::Partial => {}
            ServerShown::Certificate(der) => return Ok(der),
            ServerShown::Alert(number) => {
                let text = format!("an older hello was refused (alert {number})");
                return Err(FetchFault::Tls(text));
            }
            ServerShown::Other => break,
        }
    }
    Err(FetchFault::Tls(
        "what came back is not TLS, or has no certificate".to_owned(),
    ))
}
