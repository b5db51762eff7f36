//! HTTP/1.1 as stand-ins for clouds speak it, head by head and body by body: each can stop in the middle of one, say nothing, or answer
//! what no library would write.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

/// Each connection in a thread of its own, for as long as the process lives. `None` where one breaks off.
pub fn serve(
    listener: TcpListener,
    converse: impl Fn(Wire) -> Option<()> + Clone + Send + 'static,
) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let converse = converse.clone();
            std::thread::spawn(move || converse(Wire::new(stream)));
        }
    });
}

/// One end of a connection. Whatever fails, it is over.
pub struct Wire {
    input: BufReader<TcpStream>,
    out: TcpStream,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_mins(2)))
            .unwrap();
        let out = stream.try_clone().unwrap();
        let input = BufReader::new(stream);
        Self { input, out }
    }

    /// Of the next request or answer.
    pub fn head(&mut self) -> Option<Head> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            if self.input.read_line(&mut text).ok()? == 0 {
                return None;
            }
        }
        Some(Head(text))
    }

    /// So many octets of a body.
    pub fn body(&mut self, octets: usize) -> Option<Vec<u8>> {
        let mut body = vec![0; octets];
        self.input.read_exact(&mut body).ok()?;
        Some(body)
    }

    pub fn say(&mut self, octets: &[u8]) -> Option<()> {
        self.out.write_all(octets).ok()
    }

    /// An answer with its length; `more` are further header lines, each with its end.
    pub fn answer(&mut self, status: u16, more: &str, body: &[u8]) -> Option<()> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\n{more}Content-Length: {length}\r\n\r\n");
        self.say(&[head.as_bytes(), body].concat())
    }
}

/// Of a request or an answer, as it came.
pub struct Head(pub String);

impl Head {
    /// Of a request: `POST` and the like.
    pub fn method(&self) -> &str {
        self.0.split(' ').next().unwrap()
    }

    /// Of a request.
    pub fn target(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }

    /// Names in lower case, and values.
    pub fn headers(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim()))
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Octets of the body, none where nothing is said of them.
    pub fn length(&self) -> usize {
        self.header("content-length")
            .map_or(0, |length| length.parse().unwrap())
    }
}
