//! The SMTP client of the tests: it says exactly what it is told, and has no part of Postern's own code.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A client that says exactly what it is told.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; the greeting is not read.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// The same, where nobody may listen.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Octets as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// One reply, its lines joined by `\n`; empty when the connection is closed.
    pub fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return text;
            }
            text.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                return text;
            }
            text.push('\n');
        }
    }

    /// Says it, unless it is empty, and whether the reply has this code: the other side may be gone at any moment.
    pub fn tries(&mut self, octets: &[u8], code: &str) -> bool {
        self.stream.get_mut().write_all(octets).is_ok() && self.reply().starts_with(code)
    }

    /// A command and its reply.
    pub fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// Says it and expects a code.
    pub fn expect(&mut self, command: &str, code: &str) -> String {
        let reply = self.say(command);
        assert!(reply.starts_with(code), "{command} -> {reply}");
        reply
    }

    /// One whole message; the reply to the dot. `content` is lines ending in CRLF, dots stuffed.
    pub fn mail(&mut self, from: &str, to: &[&str], content: &str) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        for address in to {
            self.expect(&format!("RCPT TO:<{address}>"), "250");
        }
        self.expect("DATA", "354");
        self.send(content.as_bytes());
        self.say(".")
    }
}

/// The id in `250 2.0.0 queued as ID`.
pub fn queued_id(reply: &str) -> String {
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    reply.rsplit(' ').next().unwrap().to_owned()
}
