//! Requests to the window, head by head: each says exactly what it is told, over a connection of its own.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::http::Head;

/// Where the window is.
#[derive(Debug, Clone)]
pub enum At {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What a connection is for whoever talks over it.
pub trait Talk: Read + Write {}
impl<T: Read + Write> Talk for T {}

/// A request that is being written.
pub struct Ask {
    pub at: At,
    from: Option<IpAddr>,
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl At {
    /// A request without anything but its line and a Host that is right.
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        let host = match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        };
        Ask {
            at: self.clone(),
            from: None,
            line: format!("{method} {target} HTTP/1.1"),
            headers: vec![("Host".to_owned(), host)],
            body: Vec::new(),
        }
    }

    pub fn get(&self, target: &str) -> Ask {
        self.ask("GET", target)
    }

    /// With a body of JSON.
    pub fn post(&self, target: &str, body: &str) -> Ask {
        let ask = self.ask("POST", target);
        ask.with("Content-Type", "application/json").body(body)
    }

    /// As a page of ours sends a form.
    pub fn form(&self, target: &str, body: &str) -> Ask {
        self.ask("POST", target)
            .with("Sec-Fetch-Site", "same-origin")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
    }

    fn open_from(&self, from: Option<IpAddr>) -> Box<dyn Talk> {
        let patience = Some(Duration::from_mins(1));
        match self {
            Self::Tcp(address) => {
                let stream = connect(from, *address);
                stream.set_read_timeout(patience).unwrap();
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(patience).unwrap();
                Box::new(stream)
            }
        }
    }
}

/// A connection from one of our own addresses.
pub fn connect(from: Option<IpAddr>, to: SocketAddr) -> TcpStream {
    let Some(from) = from else {
        return TcpStream::connect(to).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

impl Ask {
    /// One more header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// That header with this value alone.
    pub fn only(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.with(name, value)
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// From another address of this machine.
    pub fn from(mut self, ip: &str) -> Self {
        self.from = Some(ip.parse().unwrap());
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self.only("Content-Length", &body.len().to_string())
    }

    /// As it goes over the wire, header octets as they are.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            octets.extend(format!("{name}: ").bytes());
            // One octet a character, so that a test can write what is no text.
            octets.extend(value.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
            octets.extend(b"\r\n");
        }
        octets.extend(b"\r\n");
        octets.extend(&self.body);
        octets
    }

    /// Sends it, and opens what comes back as far as its head.
    pub fn begin(self) -> Stream {
        let mut stream = self.at.open_from(self.from);
        // A refusal may come before the end of the body.
        let _ = stream.write_all(&self.octets());
        Stream(BufReader::new(stream))
    }

    /// Sends it, and reads the whole answer.
    pub fn send(self) -> Answer {
        let is_head = self.line.starts_with("HEAD ");
        self.with("Connection", "close").begin().answer(is_head)
    }

    /// The status alone.
    pub fn status(self) -> u16 {
        self.send().status
    }
}

/// A connection on which an answer comes.
pub struct Stream(pub BufReader<Box<dyn Talk>>);

impl Stream {
    /// Until its empty line.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap_or(0) == 0 {
                break;
            }
        }
        head
    }

    /// The next line; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line
    }

    /// What is left until it is closed.
    pub fn rest(&mut self) -> String {
        let mut octets = Vec::new();
        let _ = self.0.read_to_end(&mut octets);
        String::from_utf8_lossy(&octets).into_owned()
    }

    fn answer(mut self, is_head: bool) -> Answer {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let chunked = Head(head.clone()).header("transfer-encoding") == Some("chunked");
        let body = match (is_head, chunked) {
            (true, _) => String::new(),
            (false, false) => self.rest(),
            (false, true) => unchunked(&self.rest()),
        };
        Answer {
            status: status.unwrap_or(0),
            head,
            body,
        }
    }
}

fn unchunked(text: &str) -> String {
    let (mut rest, mut body) = (text.as_bytes(), Vec::new());
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    String::from_utf8_lossy(&body).into_owned()
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        Head(self.head.clone()).header(name).map(str::to_owned)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The word of a refusal; empty where it is none.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The cookie that it sets, as it is sent back.
    pub fn cookie(&self) -> String {
        let set = self.header("set-cookie").unwrap_or_default();
        set.split(';').next().unwrap().to_owned()
    }
}

/// The file of a Unix socket.
pub fn unix(path: &Path) -> At {
    At::Unix(path.to_owned())
}
