//! A line over a distance: octets go through it in their order, each half a round trip after it was read.
//!
//! It slows nothing down but by that time: no limit of rate, no loss. The handshake costs its round trip too: the system takes a connection
//! here at once, so everything of it happens one round trip later. What stands behind the pipe sees the connection after one and a half,
//! and its greeting is here after two, as over a real line.

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Octets under way in one direction of one connection; beyond them nothing is read, since the other end does not take them.
const UNDER_WAY: usize = 16 << 20;
/// Octets read at once.
const BLOCK: usize = 64 * 1024;
/// How long one that was refused may leave its end open.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to, and how far it is.
#[derive(Args, Clone)]
pub struct Options {
    /// The upstream
    #[arg(long)]
    pub to: SocketAddr,
    /// One round trip: "50ms", "1.5s"
    #[arg(long, value_parser = rtt)]
    pub rtt: Duration,
    /// The upstream takes so many connections at once, and refuses others
    #[arg(long)]
    pub connections: Option<usize>,
    /// What it refuses them with
    #[arg(long, default_value = "421 4.7.0 Too many concurrent SMTP connections")]
    pub refuse: String,
}

fn rtt(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(0));
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        _ => bail!("a time ends with ms or s"),
    };
    Ok(Duration::try_from_secs_f64(
        number.parse::<f64>()? * seconds,
    )?)
}

/// Prints the address of the pipe, carries until standard input ends, and prints what went through it: one line of JSON.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let pipe = Pipe::open(options).await?;
        println!("{}", pipe.address);
        let (over, end) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = over.send(());
        });
        let _ = end.await;
        println!("{}", pipe.said());
        Ok(())
    }))
}

/// A pipe that takes connections. Belongs to the `LocalSet` it was opened in.
struct Pipe {
    address: SocketAddr,
    upstream: Rc<Upstream>,
}

/// What the far end sees of connections.
struct Upstream {
    options: Options,
    /// Open now, at that end.
    open: Cell<usize>,
    /// The most that were ever open at once.
    most: Cell<usize>,
    taken: Cell<usize>,
    refused: Cell<usize>,
}

impl Pipe {
    async fn open(options: &Options) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let upstream = Rc::new(Upstream {
            options: options.clone(),
            open: Cell::new(0),
            most: Cell::new(0),
            taken: Cell::new(0),
            refused: Cell::new(0),
        });
        let shared = upstream.clone();
        tokio::task::spawn_local(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else {
                    continue;
                };
                let (upstream, accepted) = (shared.clone(), Instant::now());
                tokio::task::spawn_local(async move {
                    if let Err(fault) = upstream.connection(near, accepted).await {
                        eprintln!("{fault:#}");
                    }
                });
            }
        });
        Ok(Self { address, upstream })
    }

    /// Connections taken, refused, and the most at once.
    fn said(&self) -> Value {
        let upstream = &self.upstream;
        json!({
            "connections": upstream.taken.get(),
            "refused": upstream.refused.get(),
            "most": upstream.most.get(),
        })
    }
}

/// A connection that counts at the far end, until it is closed there.
struct Place(Rc<Upstream>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Upstream {
    fn place(self: &Rc<Self>) -> Option<Place> {
        let open = self.open.get();
        if self.options.connections.is_some_and(|most| open >= most) {
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        self.open.set(open + 1);
        self.most.set(self.most.get().max(open + 1));
        self.taken.set(self.taken.get() + 1);
        Some(Place(self.clone()))
    }

    async fn connection(self: &Rc<Self>, near: TcpStream, accepted: Instant) -> Result<()> {
        near.set_nodelay(true)?;
        let half = self.options.rtt / 2;
        // The client is there from here on, had the handshake taken its time.
        let begun = accepted + self.options.rtt;
        let (near_reads, near_writes) = near.into_split();
        let (sends, arrives) = direction(half, begun)?;
        let far_end = async {
            Clock::new()?.until(begun + half).await?;
            let Some(place) = self.place() else {
                return self.refuse(near_writes, arrives, half).await;
            };
            let far = TcpStream::connect(self.options.to)
                .await
                .with_context(|| format!("connect to {}", self.options.to))?;
            far.set_nodelay(true)?;
            let (far_reads, far_writes) = far.into_split();
            let (answers, returns) = direction(half, begun)?;
            let ((), there, back) = tokio::join!(
                answers.read(far_reads, place),
                arrives.write(far_writes),
                returns.write(near_writes)
            );
            there.and(back)
        };
        let ((), done) = tokio::join!(sends.read(near_reads, ()), far_end);
        done
    }

    async fn refuse(
        &self,
        mut near: impl AsyncWrite + Unpin,
        mut arrives: Arrives,
        half: Duration,
    ) -> Result<()> {
        arrives.clock.until(Instant::now() + half).await?;
        near.write_all(format!("{}\r\n", self.options.refuse).as_bytes())
            .await?;
        near.shutdown().await?;
        // To close while something is unread would be a reset, and take the words with it.
        let end = async { while arrives.blocks.recv().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, end).await;
        Ok(())
    }
}

/// Octets and when they arrive at the other end; none: the end of the stream.
struct Block {
    due: Instant,
    octets: Vec<u8>,
    /// Its part of [`UNDER_WAY`].
    _room: OwnedSemaphorePermit,
}

/// The near end of one direction.
struct Sends {
    half: Duration,
    /// What was read before counts as read then.
    begun: Instant,
    room: Arc<Semaphore>,
    blocks: mpsc::UnboundedSender<Block>,
}

/// The far end of it.
struct Arrives {
    clock: Clock,
    blocks: mpsc::UnboundedReceiver<Block>,
}

fn direction(half: Duration, begun: Instant) -> Result<(Sends, Arrives)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sends = Sends {
        half,
        begun,
        room: Arc::new(Semaphore::new(UNDER_WAY)),
        blocks: sender,
    };
    let arrives = Arrives {
        clock: Clock::new()?,
        blocks: receiver,
    };
    Ok((sends, arrives))
}

impl Sends {
    /// Until the stream ends, or nobody takes any more; then `place` is free.
    async fn read<T>(self, mut from: impl AsyncRead + Unpin, place: T) {
        let mut buffer = vec![0; BLOCK];
        loop {
            let read = tokio::select! {
                // A connection that breaks off ends like any other.
                read = from.read(&mut buffer) => read.unwrap_or(0),
                () = self.blocks.closed() => break,
            };
            let due = Instant::now().max(self.begun) + self.half;
            let room = self.room.clone().acquire_many_owned(read as u32).await;
            let block = Block {
                due,
                octets: buffer[..read].to_vec(),
                _room: room.expect("never closed"),
            };
            if self.blocks.send(block).is_err() || read == 0 {
                break;
            }
        }
        drop(place);
    }
}

impl Arrives {
    /// Until the end of the stream has arrived, or the other end takes no more.
    async fn write(mut self, mut to: impl AsyncWrite + Unpin) -> Result<()> {
        while let Some(block) = self.blocks.recv().await {
            self.clock.until(block.due).await?;
            if block.octets.is_empty() {
                let _ = to.shutdown().await;
                break;
            }
            if to.write_all(&block.octets).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// A timer of the system's, since the runtime's own goes by whole milliseconds, always later.
struct Clock(AsyncFd<OwnedFd>);

impl Clock {
    fn new() -> Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // SAFETY: an `OwnedFd` owns its descriptor, and it is never replaced nor closed while this has it.
        let timer = unsafe { AsyncFd::register(timer) }.map_err(std::io::Error::from)?;
        Ok(Self(timer))
    }

    async fn until(&self, due: Instant) -> Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        // A timer of zero is one that is off.
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: left.try_into()?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            if let Ok(read) = read {
                read?;
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Sink;

    const RTT: Duration = Duration::from_millis(100);

    /// Runs `test` with a pipe to `to`.
    fn with_pipe<T>(
        to: SocketAddr,
        connections: Option<usize>,
        test: impl AsyncFnOnce(&Pipe) -> T,
    ) -> T {
        let options = Options {
            to,
            rtt: RTT,
            connections,
            refuse: "421 4.7.0 too many".into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(
            tokio::task::LocalSet::new()
                .run_until(async { test(&Pipe::open(&options).await.unwrap()).await }),
        )
    }

    fn sink() -> Sink {
        Sink::open("127.0.0.1:0".parse().unwrap(), None).unwrap()
    }

    async fn line(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\n") {
            if stream.read_buf(&mut read).await.unwrap() == 0 {
                break;
            }
        }
        String::from_utf8(read).unwrap()
    }

    /// Never early; late by no more than a busy machine makes it.
    fn assert_took(since: Instant, expected: Duration) {
        let took = since.elapsed();
        assert!(
            took >= expected && took < expected + RTT / 2,
            "{took:?} and not {expected:?}"
        );
    }

    #[test]
    fn a_greeting_takes_two_round_trips_and_a_reply_one() {
        let sink = sink();
        with_pipe(sink.address, None, async |pipe| {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(pipe.address).await.unwrap();
            assert!(line(&mut stream).await.starts_with("220 "));
            assert_took(begun, RTT * 2);
            let asked = Instant::now();
            stream.write_all(b"NOOP\r\n").await.unwrap();
            assert!(line(&mut stream).await.starts_with("250 "));
            assert_took(asked, RTT);
        });
    }

    #[test]
    fn what_is_written_before_the_handshake_is_over_waits_for_it() {
        let sink = sink();
        with_pipe(sink.address, None, async |pipe| {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(pipe.address).await.unwrap();
            stream.write_all(b"QUIT\r\n").await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            assert_took(begun, RTT * 2);
            assert!(said.ends_with("221 bye\r\n"), "{said}");
        });
    }

    #[test]
    fn many_octets_keep_their_order_and_none_is_missing() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .into_std()
            .unwrap();
        let address = listener.local_addr().unwrap();
        drop(runtime);
        let octets: Vec<u8> = (0..UNDER_WAY as u32 + 1_000_000)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        with_pipe(address, None, async |pipe| {
            let listener = TcpListener::from_std(listener).unwrap();
            let client = TcpStream::connect(pipe.address).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let (mut reads, mut writes) = client.into_split();
            let (mut echo_reads, mut echo_writes) = server.into_split();
            let mut back = Vec::new();
            let (sent, echoed, received) = tokio::join!(
                async {
                    writes.write_all(&octets).await.unwrap();
                    writes.shutdown().await
                },
                async {
                    let echoed = tokio::io::copy(&mut echo_reads, &mut echo_writes).await;
                    echo_writes.shutdown().await.unwrap();
                    echoed
                },
                reads.read_to_end(&mut back)
            );
            sent.unwrap();
            assert_eq!(echoed.unwrap(), octets.len() as u64);
            assert_eq!(received.unwrap(), octets.len());
            assert!(back == octets, "other octets came back");
        });
    }

    #[test]
    fn one_more_than_it_takes_is_refused_until_a_place_is_free() {
        let sink = sink();
        with_pipe(sink.address, Some(2), async |pipe| {
            let mut open = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(pipe.address).await.unwrap();
                assert!(line(&mut stream).await.starts_with("220 "));
                open.push(stream);
            }
            let begun = Instant::now();
            let mut third = TcpStream::connect(pipe.address).await.unwrap();
            third.write_all(b"EHLO early.example\r\n").await.unwrap();
            let mut said = String::new();
            third.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "421 4.7.0 too many\r\n");
            assert_took(begun, RTT * 2);
            // One whose QUIT was answered is closed at the upstream already.
            let mut first = open.remove(0);
            first.write_all(b"QUIT\r\n").await.unwrap();
            assert!(line(&mut first).await.starts_with("221 "));
            let mut fourth = TcpStream::connect(pipe.address).await.unwrap();
            assert!(line(&mut fourth).await.starts_with("220 "));
            let said = pipe.said();
            assert_eq!(
                said,
                json!({"connections": 3, "refused": 1, "most": 2}),
                "{said}"
            );
        });
    }

    #[test]
    fn a_clock_is_right_to_a_millisecond() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let late = runtime.block_on(async {
            let clock = Clock::new().unwrap();
            let mut late = Vec::new();
            for turn in 0..21 {
                let due = Instant::now() + Duration::from_micros(2_000 + turn * 137);
                clock.until(due).await.unwrap();
                late.push(Instant::now().checked_duration_since(due).expect("early"));
            }
            late.sort_unstable();
            late
        });
        // A quarter of them: other processes may have had the processor at the others.
        assert!(late[5] < Duration::from_millis(1), "{late:?}");
    }

    #[test]
    fn times() {
        assert_eq!(rtt("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(rtt("1.5s").unwrap(), Duration::from_millis(1500));
        for wrong in ["50", "ms", "-1s", "1m", ""] {
            assert!(rtt(wrong).is_err(), "{wrong}");
        }
    }
}
