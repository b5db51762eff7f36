//! The load client: so many sessions, each sending message after message as fast as it is answered, and noting every wait.
//!
//! It does not pipeline: the devices and scripts that Postern serves do not either. One runtime thread, so that it takes no
//! more of the machine than a client must.

use crate::message::Messages;
use anyhow::{Context, Result, bail};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One scenario.
#[derive(Clone)]
pub struct Plan {
    /// The relay.
    pub target: SocketAddr,
    /// Others beside it: sessions go to each in turn.
    pub others: Vec<SocketAddr>,
    /// Connections at a time.
    pub sessions: usize,
    /// Messages in all.
    pub messages: usize,
    /// Octets of each.
    pub size: usize,
    /// A connection for every message.
    pub one_each: bool,
    /// STARTTLS before the first message, any certificate.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// What the client saw.
#[derive(Default)]
pub struct Seen {
    /// Messages answered 250 after the dot.
    pub accepted: Vec<usize>,
    /// Sessions that broke off, and how.
    pub faults: Vec<String>,
    /// From the dot to its 250, one for each accepted message, in nanoseconds.
    pub waits: Vec<u64>,
    /// From the first connect to the last 250.
    pub took: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Longest wait for any one reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `plan` to its end. To be called inside a `LocalSet`.
pub async fn run(plan: &Plan) -> Result<Seen> {
    let next = Rc::new(Cell::new(0));
    let seen = Rc::new(RefCell::new(Seen::default()));
    let messages = Rc::new(Messages::new(plan.size));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..plan.sessions {
        let mut plan = plan.clone();
        if let Some(other) = (number % (plan.others.len() + 1)).checked_sub(1) {
            plan.target = plan.others[other];
        }
        let (plan, next, seen, messages) = (plan, next.clone(), seen.clone(), messages.clone());
        tasks.push(tokio::task::spawn_local(async move {
            if let Err(fault) = session(&plan, &next, &seen, &messages, start).await {
                seen.borrow_mut().faults.push(format!("{fault:#}"));
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(seen.take())
}

async fn session(
    plan: &Plan,
    next: &Cell<usize>,
    seen: &RefCell<Seen>,
    messages: &Messages,
    start: Instant,
) -> Result<()> {
    let take = || {
        let number = next.get();
        next.set(number + 1);
        (number < plan.messages).then_some(number)
    };
    let mut wire = Vec::new();
    let mut number = take();
    while let Some(first) = number {
        let mut line = Line::open(plan).await?;
        let mut current = Some(first);
        while let Some(number) = current {
            line.ask(b"MAIL FROM:<sender@bench.example>\r\n", b"250")
                .await?;
            line.ask(b"RCPT TO:<rcpt@sink.example>\r\n", b"250").await?;
            line.ask(b"DATA\r\n", b"354").await?;
            messages.wire(number, &mut wire);
            let asked = Instant::now();
            line.ask(&wire, b"250").await?;
            let mut seen = seen.borrow_mut();
            seen.accepted.push(number);
            seen.waits.push(asked.elapsed().as_nanos() as u64);
            seen.took = start.elapsed();
            drop(seen);
            current = if plan.one_each { None } else { take() };
        }
        line.ask(b"QUIT\r\n", b"221").await?;
        number = take();
    }
    Ok(())
}

/// A connection that asks and is answered.
pub struct Line {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
}

impl Line {
    /// Connects, reads the greeting, says EHLO, and takes up TLS where the plan says so.
    pub async fn open(plan: &Plan) -> Result<Self> {
        let stream = TcpStream::connect(plan.target).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut line = Self {
            stream: Box::new(stream),
            input: Vec::with_capacity(4096),
        };
        line.ask(b"", b"220").await?;
        line.ask(b"EHLO bench.example\r\n", b"250").await?;
        if let Some(tls) = &plan.tls {
            line.ask(b"STARTTLS\r\n", b"220").await?;
            let connector = TlsConnector::from(tls.clone());
            let stream = connector
                .connect("localhost".try_into()?, line.stream)
                .await
                .context("TLS")?;
            line = Self {
                stream: Box::new(stream),
                input: line.input,
            };
            line.ask(b"EHLO bench.example\r\n", b"250").await?;
        }
        Ok(line)
    }

    /// Writes `command` at once and reads one whole reply, which must have `code`.
    pub async fn ask(&mut self, command: &[u8], code: &[u8]) -> Result<()> {
        if !command.is_empty() {
            self.stream.write_all(command).await?;
            self.stream.flush().await?;
        }
        self.input.clear();
        let read = async {
            loop {
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    bail!(
                        "closed while {:?} was expected",
                        String::from_utf8_lossy(code)
                    );
                }
                // The last line of a reply has a blank after its code (RFC 5321 §4.2.1).
                if self.input.ends_with(b"\n") {
                    let last = self.input[..self.input.len() - 1]
                        .rsplit(|&c| c == b'\n')
                        .next()
                        .unwrap_or_default();
                    if last.get(3) != Some(&b'-') {
                        return Ok(());
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .context("no reply")??;
        if !self.input.starts_with(code) {
            bail!(
                "{}",
                String::from_utf8_lossy(&self.input)
                    .trim_end()
                    .escape_default()
            );
        }
        Ok(())
    }
}
