//! Hands a message to the listener as any local program would: SMTP over a plain TCP connection.
//!
//! `send`, `sendmail`, `demo` and the gateway itself share it. Blocking sockets with time-outs: one message, one connection, no
//! retries. It chooses no TLS and no login, so it looks for a listener that asks for neither. Replies are read as an upstream's are;
//! the rest of that dialogue is not for here, since a bare name such as `root` is the gateway's to complete, and every reply is the
//! caller's to hear.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use crate::{
    config::Config,
    listener::{Bind, TlsMode},
    mail::{reply::Reply, text::shown},
    policy::Who,
    smtp::{
        client::{capabilities::Capabilities, reply::Replies},
        data::DotStuffer,
    },
};

/// So long may nothing come; after the final dot the gateway syncs to disk.
const PATIENCE: Duration = Duration::from_mins(1);

/// The first listener that admits 127.0.0.1 without TLS and AUTH.
pub fn local_listener(config: &Config) -> Option<SocketAddr> {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let client = config.policy.client(here);
    let who = Who { client, user: None };
    config.listeners.iter().find_map(|listener| {
        let Bind::Address(address) = listener.bind else {
            return None;
        };
        let reachable = address.ip().is_unspecified() || address.ip() == here;
        let plain = listener.tls != TlsMode::Implicit && !listener.require_tls;
        let expects_proxy = listener
            .proxy_protocol
            .iter()
            .any(|net| net.contains(&here));
        let admits = client.is_some() && config.policy.login(who, listener.auth, false).is_ok();
        (reachable && plain && !expects_proxy && admits && address.port() != 0)
            .then(|| SocketAddr::new(here, address.port()))
    })
}

/// Why a message was not handed over.
#[derive(Debug)]
pub enum Unsent {
    /// No connection, or it broke.
    Broken(String),
    /// A reply that ends it, and the step that it answers.
    Said(&'static str, Reply),
    /// Every recipient was refused.
    NoRecipient(Vec<(String, Reply)>),
}

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// `250 2.0.0 queued as ID`.
    pub reply: Reply,
    /// Recipients that were not.
    pub refused: Vec<(String, Reply)>,
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsent::Broken(why) => f.write_str(why),
            Unsent::Said(step, reply) => write!(f, "{step}: {reply}"),
            Unsent::NoRecipient(refused) => {
                for (place, (address, reply)) in refused.iter().enumerate() {
                    if place > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{}: {reply}", shown(address))?;
                }
                Ok(())
            }
        }
    }
}

/// A connection that has been greeted.
#[derive(Debug)]
pub struct GreetedConnection {
    stream: TcpStream,
    replies: Replies,
    address: String,
    /// SMTPUTF8 is offered.
    utf8: bool,
}

/// Connects to `host:port`.
pub fn dial(address: &str) -> Result<TcpStream, Unsent> {
    let broken = |error: &dyn fmt::Display| {
        Unsent::Broken(format!(
            "cannot reach the gateway at {}: {error}",
            shown(address)
        ))
    };
    let mut last = None;
    for target in address.to_socket_addrs().map_err(|e| broken(&e))? {
        match TcpStream::connect_timeout(&target, Duration::from_secs(10)) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
                    .and_then(|()| stream.set_nodelay(true))
                    .map_err(|e| broken(&e))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| broken(&"the name has no address"), |e| broken(&e)))
}

impl GreetedConnection {
    /// Greeting and EHLO.
    pub fn open(address: &str, name: &str) -> Result<Self, Unsent> {
        let mut line = Self {
            stream: dial(address)?,
            replies: Replies::default(),
            address: address.to_owned(),
            utf8: false,
        };
        line.expect("greeting", 220)?;
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c))
            .collect();
        let name = if name.is_empty() { "localhost" } else { &name };
        let offered = line.command("EHLO", &format!("EHLO {name}"), 250)?;
        line.utf8 = Capabilities::parse(&offered.text).utf8;
        Ok(line)
    }

    /// One message. `content` has CRLF line ends.
    pub fn send(
        &mut self,
        sender: &str,
        recipients: &[String],
        content: &[u8],
    ) -> Result<Taken, Unsent> {
        let mut addresses = recipients.iter().map(String::as_str).chain([sender]);
        let header = memchr::memmem::find(content, b"\r\n\r\n").unwrap_or(content.len());
        let header = content.get(..header).unwrap_or_default();
        let is_ascii = addresses.all(str::is_ascii) && header.is_ascii();
        // Where it is not offered the gateway says what is wrong.
        let utf8 = if self.utf8 && !is_ascii {
            " SMTPUTF8"
        } else {
            ""
        };
        self.command("MAIL", &format!("MAIL FROM:<{sender}>{utf8}"), 250)?;
        let mut refused = Vec::new();
        let mut accepted = 0_usize;
        for recipient in recipients {
            self.say(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
            let reply = self.reply()?;
            if reply.is_positive() {
                accepted += 1;
            } else if reply.code == 421 {
                return Err(Unsent::Said("RCPT", reply));
            } else {
                refused.push((recipient.clone(), reply));
            }
        }
        if accepted == 0 {
            self.quit();
            return Err(Unsent::NoRecipient(refused));
        }
        self.command("DATA", "DATA", 354)?;
        self.say(&stuffed(content))?;
        let reply = self.reply()?;
        if !reply.is_positive() {
            return Err(Unsent::Said("DATA", reply));
        }
        Ok(Taken { reply, refused })
    }

    /// Politeness; what it answers does not matter any more.
    pub fn quit(&mut self) {
        let _ = self.say(b"QUIT\r\n");
        let _ = self.reply();
    }

    fn command(&mut self, step: &'static str, text: &str, code: u16) -> Result<Reply, Unsent> {
        self.say(text.as_bytes())?;
        self.say(b"\r\n")?;
        self.expect(step, code)
    }

    fn expect(&mut self, step: &'static str, code: u16) -> Result<Reply, Unsent> {
        let reply = self.reply()?;
        if reply.code == code {
            Ok(reply)
        } else {
            Err(Unsent::Said(step, reply))
        }
    }

    fn say(&mut self, octets: &[u8]) -> Result<(), Unsent> {
        let result = self.stream.write_all(octets);
        result.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &dyn fmt::Display) -> Unsent {
        Unsent::Broken(format!(
            "the connection to the gateway at {} broke: {error}",
            self.address
        ))
    }

    fn reply(&mut self) -> Result<Reply, Unsent> {
        let mut piece = [0; 4096];
        loop {
            match self.replies.next_reply() {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(what) => return Err(self.broken(&format_args!("it sent {what}"))),
            }
            let read = match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.broken(&"it was closed")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(self.broken(&"no answer in time"));
                }
                Err(error) => return Err(self.broken(&error)),
            };
            self.replies.feed(piece.get(..read).unwrap_or_default());
        }
    }
}

/// As it goes over the wire, with the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 64 + 5);
    let mut stuffer = DotStuffer::default();
    stuffer.encode(content, &mut out);
    stuffer.finish(&mut out);
    out
}

/// Text of a local program as it may leave: every line ends CRLF, whatever run of CRs stood before its LF. A CR that stands
/// alone (progress output in a cron job) and a NUL, which the gateway refuses, become blanks, as Postfix' sendmail does it for
/// the CR: neither begins a new line.
pub fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|b| *b == b'\n') {
        let (line, end) = match line.strip_suffix(b"\n") {
            Some(line) => (line, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let crs = line.iter().rev().take_while(|b| **b == b'\r').count();
        let line = line.get(..line.len() - crs).unwrap_or_default();
        out.extend(line.iter().map(|b| match b {
            b'\r' | 0 => b' ',
            b => *b,
        }));
        out.extend_from_slice(end);
    }
    out
}

/// All of it: connect, send, quit.
pub fn hand_over(
    address: &str,
    sender: &str,
    recipients: &[String],
    content: &[u8],
) -> Result<Taken, Unsent> {
    let name = gethostname::gethostname();
    let mut line = GreetedConnection::open(address, &name.to_string_lossy())?;
    let taken = line.send(sender, recipients, content)?;
    line.quit();
    Ok(taken)
}

/// Whether an address can stand between angle brackets in a command: nothing in it ends the line or the path.
pub fn is_speakable(address: &str) -> bool {
    let is_wrong = |b: u8| b < 32 || b == 127 || b == b'<' || b == b'>';
    !address.is_empty() && address.len() <= 1000 && !address.bytes().any(is_wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots() {
        for (input, expected) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".a\r\n..\r\n.", "..a\r\n...\r\n..\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(input.as_bytes()), expected.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn line_ends() {
        for (input, expected) in [
            ("a\nb\r\nc", "a\r\nb\r\nc"),
            ("a\rb\n", "a b\r\n"),
            ("\n\n", "\r\n\r\n"),
            ("a\r\r\n\r\r\r\n", "a\r\n\r\n"),
            ("a\0b\r\rc\r", "a b  c"),
        ] {
            assert_eq!(plain(input.as_bytes()), expected.as_bytes(), "{input:?}");
        }
    }
}
