//! The end of the way: an SMTP server that takes everything, keeps nothing but a count for each number, and judges each body.
//!
//! Runs on a thread and a runtime of its own. It does no more than the peers need: PIPELINING, SIZE, 8BITMIME, STARTTLS.

use crate::message::Messages;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What arrived, shared with the one who waits for it.
#[derive(Default)]
pub struct Count {
    /// How often each number arrived.
    pub times: Mutex<Vec<u8>>,
    /// Messages that arrived, all in all.
    pub arrived: AtomicUsize,
    /// Messages whose body is not the one sent, or that bear no mark.
    pub damaged: AtomicUsize,
    /// Connections taken.
    pub connections: AtomicUsize,
    /// Nanoseconds after `start` of the first arrival.
    pub first: AtomicU64,
    /// Nanoseconds after `start` of the newest arrival.
    pub last: AtomicU64,
    /// While set, every MAIL is answered with 451: the relay has to keep its mail.
    pub refusing: AtomicBool,
}

/// A sink that runs.
pub struct Sink {
    /// Where it listens.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "known to whoever opened it, but for tests")
    )]
    pub address: SocketAddr,
    /// What arrived.
    pub count: Arc<Count>,
    /// The zero of `Count::last`.
    pub start: Instant,
}

impl Sink {
    /// Listens at `address` (port 0: any) on a thread of its own, until the process ends.
    pub fn open(address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener =
            std::net::TcpListener::bind(address).with_context(|| format!("sink at {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (count, start) = (Arc::new(Count::default()), Instant::now());
        let shared = count.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = TcpListener::from_std(listener).expect("listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    let (count, tls) = (shared.clone(), tls.clone());
                    count.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::task::spawn_local(async move {
                        serve(stream, tls, &count, start).await;
                    });
                }
            });
        });
        Ok(Self {
            address,
            count,
            start,
        })
    }

    /// Forgets what arrived and makes room for `messages` numbers.
    pub fn expect(&self, messages: usize) {
        *self.count.times.lock().expect("lock") = vec![0; messages];
        self.count.arrived.store(0, Ordering::SeqCst);
        self.count.damaged.store(0, Ordering::SeqCst);
        self.count.connections.store(0, Ordering::SeqCst);
    }

    /// Waits until all of these numbers have arrived, or nothing has for `quiet`. (What arrives besides was not answered 250.)
    pub async fn wait_for(&self, numbers: &[usize], quiet: Duration) {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let arrived = self.count.arrived.load(Ordering::SeqCst);
            if since.elapsed() > quiet || arrived >= numbers.len() && self.has_all(numbers) {
                return;
            }
            if arrived != seen {
                (seen, since) = (arrived, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn has_all(&self, numbers: &[usize]) -> bool {
        let times = self.count.times.lock().expect("lock");
        numbers
            .iter()
            .all(|&n| times.get(n).is_some_and(|&times| times > 0))
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    tls: Option<TlsAcceptor>,
    count: &Count,
    start: Instant,
) {
    if stream.write_all(b"220 sink ESMTP\r\n").await.is_err() {
        return;
    }
    let Ok(true) = converse(&mut stream, tls.is_some(), count, start).await else {
        return;
    };
    let Some(tls) = tls else { return };
    let Ok(mut stream) = tls.accept(stream).await else {
        return;
    };
    let _ = converse(&mut stream, false, count, start).await;
}

/// One conversation; `true` when the client asked for STARTTLS.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    offer: bool,
    count: &Count,
    start: Instant,
) -> std::io::Result<bool> {
    let mut input: Vec<u8> = Vec::with_capacity(64 * 1024);
    let mut at = 0;
    let mut output: Vec<u8> = Vec::new();
    loop {
        // Commands that are whole are answered together: a peer that pipelines gets one write.
        while let Some(end) = memchr::memchr(b'\n', &input[at..]) {
            let line = &input[at..at + end];
            let verb = line
                .iter()
                .take(4)
                .map(u8::to_ascii_uppercase)
                .collect::<Vec<_>>();
            at += end + 1;
            match verb.as_slice() {
                b"EHLO" => {
                    output.extend_from_slice(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n");
                    if offer {
                        output.extend_from_slice(b"250-STARTTLS\r\n");
                    }
                    output.extend_from_slice(b"250 SIZE 104857600\r\n");
                }
                b"DATA" => {
                    output.extend_from_slice(b"354 go\r\n");
                    stream.write_all(&output).await?;
                    output.clear();
                    let from = at;
                    // A body is searched once: from a little before what is new.
                    let mut searched = from;
                    let end = loop {
                        if input.get(from..from + 3) == Some(b".\r\n") {
                            break from;
                        }
                        if let Some(found) = memchr::memmem::find(&input[searched..], b"\r\n.\r\n")
                        {
                            break searched + found + 2;
                        }
                        searched = input.len().saturating_sub(4).max(from);
                        input.reserve(64 * 1024);
                        if stream.read_buf(&mut input).await? == 0 {
                            return Ok(false);
                        }
                    };
                    record(&input[from..end], count, start);
                    at = end + 3;
                    output.extend_from_slice(b"250 taken\r\n");
                }
                b"MAIL" if count.refusing.load(Ordering::Relaxed) => {
                    output.extend_from_slice(b"451 4.3.0 later\r\n")
                }
                b"STAR" if offer => {
                    stream.write_all(b"220 go\r\n").await?;
                    return Ok(true);
                }
                b"QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(false);
                }
                _ => output.extend_from_slice(b"250 ok\r\n"),
            }
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        input.drain(..at);
        at = 0;
        input.reserve(16 * 1024);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(false);
        }
    }
}

fn record(wire: &[u8], count: &Count, start: Instant) {
    match Messages::judge(wire) {
        Some(arrived) if arrived.whole => {
            let mut times = count.times.lock().expect("lock");
            match times.get_mut(arrived.number) {
                Some(times) => *times = times.saturating_add(1),
                None => _ = count.damaged.fetch_add(1, Ordering::SeqCst),
            }
        }
        _ => _ = count.damaged.fetch_add(1, Ordering::SeqCst),
    }
    let now = start.elapsed().as_nanos() as u64;
    count.last.store(now, Ordering::SeqCst);
    if count.arrived.fetch_add(1, Ordering::SeqCst) == 0 {
        count.first.store(now, Ordering::SeqCst);
    }
}
