//! A plain SMTP server in a thread, written apart from Postern's own code: keeps what it is given, or answers as told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// One transaction as the sink saw it.
#[derive(Debug, Clone)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// Unstuffed, with CRLF.
    pub data: Vec<u8>,
    /// The MAIL and RCPT lines as they came.
    pub raw_commands: Vec<String>,
}

impl Received {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// Gives the reply to a line (`MAIL …`, `RCPT …`, `DATA`, `.`); `None` = the usual one. An empty reply drops the connection.
pub type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The server. Dropping it stops it.
pub struct Sink {
    pub address: SocketAddr,
    mails: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Sink {
    /// Takes everything.
    pub fn start() -> Self {
        Self::scripted(|_| None)
    }

    /// Answers as the script says.
    pub fn scripted(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let acceptor = std::thread::spawn({
            let (mails, stop) = (mails.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (mails, script) = (mails.clone(), script.clone());
                    if let Ok(stream) = stream {
                        std::thread::spawn(move || {
                            let _ = session(stream, &mails, &*script);
                        });
                    }
                }
            }
        });
        Self {
            address,
            mails,
            stop,
            acceptor: Some(acceptor),
        }
    }

    /// What has arrived.
    pub fn mails(&self) -> Vec<Received> {
        self.mails.lock().unwrap().clone()
    }

    /// How many have arrived.
    pub fn count(&self) -> usize {
        self.mails.lock().unwrap().len()
    }

    /// Waits for at least so many.
    pub fn wait(&self, count: usize) -> Vec<Received> {
        super::gateway::wait(&format!("{count} mails at the sink"), || {
            (self.count() >= count).then(|| self.mails())
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn session(
    stream: TcpStream,
    mails: &Mutex<Vec<Received>>,
    script: &Script,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    out.write_all(b"220 sink ESMTP\r\n")?;
    let mut mail: Option<Received> = None;
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let word = text
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        let special = script(&text);
        if let Some(reply) = &special
            && reply.is_empty()
        {
            return Ok(());
        }
        let refused = special
            .as_ref()
            .is_some_and(|r| !r.starts_with('2') && !r.starts_with('3'));
        let usual = match word.as_str() {
            "EHLO" => "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 52428800",
            "HELO" => "250 sink",
            "MAIL" if !refused => {
                mail = Some(Received {
                    from: path(&text),
                    to: Vec::new(),
                    data: Vec::new(),
                    raw_commands: vec![text.clone()],
                });
                "250 2.1.0 ok"
            }
            "RCPT" if mail.is_some() => {
                if let (Some(mail), false) = (&mut mail, refused) {
                    mail.to.push(path(&text));
                    mail.raw_commands.push(text.clone());
                }
                "250 2.1.5 ok"
            }
            "DATA" if mail.as_ref().is_some_and(|m| !m.to.is_empty()) => "354 go on",
            "DATA" => "554 5.5.1 no valid recipients",
            "RSET" => {
                mail = None;
                "250 2.0.0 ok"
            }
            "NOOP" => "250 2.0.0 ok",
            "QUIT" => {
                out.write_all(b"221 2.0.0 bye\r\n")?;
                return Ok(());
            }
            _ => "500 5.5.1 what",
        };
        let reply = special.unwrap_or_else(|| usual.to_owned());
        out.write_all(format!("{reply}\r\n").as_bytes())?;
        if word == "DATA" && reply.starts_with("354") {
            let mut data = Vec::new();
            loop {
                let mut line = Vec::new();
                if input.read_until(b'\n', &mut line)? == 0 {
                    return Ok(());
                }
                if line == b".\r\n" {
                    break;
                }
                data.extend_from_slice(if line.starts_with(b".") {
                    &line[1..]
                } else {
                    &line
                });
            }
            let reply = script(".").unwrap_or_else(|| "250 2.0.0 taken".to_owned());
            if let Some(mut mail) = mail.take() {
                mail.data = data;
                // An empty reply: stored, and then the connection is lost.
                if reply.is_empty() || reply.starts_with('2') {
                    mails.lock().unwrap().push(mail);
                }
            }
            if reply.is_empty() {
                return Ok(());
            }
            out.write_all(format!("{reply}\r\n").as_bytes())?;
        }
    }
}

fn path(line: &str) -> String {
    let inner = line.split_once(':').map_or("", |(_, rest)| rest.trim());
    inner
        .trim_start_matches('<')
        .split('>')
        .next()
        .unwrap_or_default()
        .to_owned()
}
