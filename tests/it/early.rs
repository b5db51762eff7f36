//! Early groups: MAIL, RCPT and DATA of a message behind the final dot of the one before. Whatever an upstream does at a dot or behind
//! it, no outcome is another message's, and at most one message is in doubt for a connection that is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use postern::{
    connector::{
        Connector, Services, SmtpSettings,
        smtp::{Smtp, Timeouts},
    },
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId},
        outcome::{ObstacleKind, Outcome, Report},
        recipient::Recipient,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{fixture, harness::time::until};

/// What the upstream does when it has read a certain dot, the message safe in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtDot {
    /// Closes.
    Drop,
    /// Resets.
    Reset,
    /// Says nothing ever again.
    Hang,
    /// Refuses, and with 421 closes.
    Says(&'static str),
    /// Says 250, and one line more in the same segment.
    More(&'static str),
    /// The same in a segment of its own.
    MoreApart(&'static str),
    /// Says 250 and throws away what it has read besides.
    Flushes,
    /// Says 250 and closes.
    Leaves,
    /// Says 250 and nothing ever again.
    Sleeps,
    /// Refuses every recipient of the next message and says 354 all the same.
    Confused,
}

/// Of each message, by its number: how often it arrived.
type Arrived = BTreeMap<usize, usize>;

#[derive(Debug, Default)]
struct Seen {
    arrived: Arrived,
    dots: usize,
    connections: usize,
    /// Groups that lay there when a dot was read.
    early: usize,
}

struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

/// When an octet too few or too many comes.
#[derive(Debug, Clone, Copy)]
enum Spoils {
    Nothing,
    /// So many octets of all replies are written, and then the connection is closed.
    CutAfter(usize),
    /// Before that octet of all replies this is written.
    InsertAt(usize, &'static str),
}

#[derive(Debug)]
struct Tricks {
    at: Option<(usize, AtDot)>,
    spoils: Mutex<Spoils>,
}

impl Upstream {
    async fn start(at: Option<(usize, AtDot)>, spoils: Spoils) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tricks = Arc::new(Tricks {
            at,
            spoils: Mutex::new(spoils),
        });
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                shared.lock().unwrap().connections += 1;
                let (seen, tricks) = (Arc::clone(&shared), Arc::clone(&tricks));
                sessions.spawn(async move {
                    let mut session = Session {
                        stream,
                        input: Vec::new(),
                        seen,
                        tricks,
                    };
                    let _ = session.run().await;
                });
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }
}

struct Session {
    stream: TcpStream,
    input: Vec<u8>,
    seen: Arc<Mutex<Seen>>,
    tricks: Arc<Tricks>,
}

impl Session {
    /// A line without its end; an error when the client is gone.
    async fn line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return Ok(line);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn say(&mut self, text: &str) -> std::io::Result<()> {
        let mut out = format!("{text}\r\n").into_bytes();
        let mut cut = false;
        {
            let mut spoils = self.tricks.spoils.lock().unwrap();
            *spoils = match *spoils {
                Spoils::CutAfter(left) if left < out.len() => {
                    out.truncate(left);
                    cut = true;
                    Spoils::Nothing
                }
                Spoils::CutAfter(left) => Spoils::CutAfter(left - out.len()),
                Spoils::InsertAt(left, what) if left < out.len() => {
                    out.splice(left..left, what.bytes());
                    Spoils::Nothing
                }
                Spoils::InsertAt(left, what) => Spoils::InsertAt(left - out.len(), what),
                Spoils::Nothing => Spoils::Nothing,
            };
        }
        self.stream.write_all(&out).await?;
        if cut {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    async fn run(&mut self) -> std::io::Result<()> {
        self.say("220 up ESMTP").await?;
        let mut refuses = false;
        let mut recipients = 0;
        loop {
            let line = self.line().await?;
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" => self.say("250-up\r\n250 PIPELINING").await?,
                "MAIL" | "RSET" => {
                    recipients = 0;
                    self.say("250 ok").await?;
                }
                "RCPT" if refuses => self.say("550 5.1.1 nobody").await?,
                "RCPT" => {
                    recipients += 1;
                    self.say("250 ok").await?;
                }
                "DATA" if recipients > 0 || refuses => {
                    self.say("354 go on").await?;
                    let number = self.content().await?;
                    if refuses {
                        refuses = false;
                        self.say("554 5.5.1 nobody to send to").await?;
                    } else {
                        self.dot(number, &mut refuses).await?;
                    }
                    recipients = 0;
                }
                "DATA" => self.say("554 5.5.1 nobody").await?,
                "QUIT" => return self.say("221 bye").await,
                _ => self.say("500 5.5.2 what?").await?,
            }
        }
    }

    /// Reads to the dot; the number in the subject. `None`: a dot alone.
    async fn content(&mut self) -> std::io::Result<Option<usize>> {
        let mut number = None;
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(number);
            }
            if let Some(text) = line.strip_prefix("Subject: ") {
                number = text.parse().ok();
            }
        }
    }

    async fn dot(&mut self, number: Option<usize>, refuses: &mut bool) -> std::io::Result<()> {
        let gone = || Err(std::io::ErrorKind::BrokenPipe.into());
        let trick = {
            let mut seen = self.seen.lock().unwrap();
            seen.dots += 1;
            seen.early += usize::from(self.input.starts_with(b"MAIL"));
            let dots = seen.dots;
            let trick = self.tricks.at.filter(|(at, _)| *at == dots).map(|(_, t)| t);
            if !matches!(trick, Some(AtDot::Says(_))) {
                *seen.arrived.entry(number.unwrap()).or_default() += 1;
            }
            trick
        };
        match trick {
            None => self.say("250 taken").await,
            Some(AtDot::Drop) => gone(),
            Some(AtDot::Reset) => {
                self.stream.set_zero_linger()?;
                gone()
            }
            Some(AtDot::Hang) => std::future::pending().await,
            Some(AtDot::Says(text)) => {
                self.say(text).await?;
                if text.starts_with("421") {
                    gone()
                } else {
                    Ok(())
                }
            }
            Some(AtDot::More(more)) => self.say(&format!("250 taken\r\n{more}")).await,
            Some(AtDot::MoreApart(more)) => {
                self.say("250 taken").await?;
                self.say(more).await
            }
            Some(AtDot::Flushes) => {
                self.input.clear();
                self.say("250 taken").await
            }
            Some(AtDot::Leaves) => {
                self.say("250 taken").await?;
                gone()
            }
            Some(AtDot::Sleeps) => {
                self.say("250 taken").await?;
                std::future::pending().await
            }
            Some(AtDot::Confused) => {
                *refuses = true;
                self.say("250 taken").await
            }
        }
    }
}

fn connector(address: SocketAddr, connections: usize) -> Arc<Smtp> {
    patient(address, connections, Duration::from_millis(400))
}

fn patient(address: SocketAddr, connections: usize, short: Duration) -> Arc<Smtp> {
    let timeouts = Timeouts {
        connect: short,
        connect_each: short,
        tls: short,
        greeting: short,
        command: short,
        data: short,
        block: short,
        dot: short,
        quit: short,
    };
    let settings = SmtpSettings {
        max_connections: connections,
        ..fixture::smtp("127.0.0.1", address.port())
    };
    let services = Services::default();
    Arc::new(Smtp::new("up".into(), 100, &settings, timeouts, services).unwrap())
}

fn to() -> Vec<Recipient> {
    vec![Address::parse("a@x.example").unwrap().into()]
}

fn message(number: usize) -> Message {
    Message {
        id: MessageId::new(SystemTime::now(), number as u128),
        envelope: Envelope {
            sender: Some(Address::parse("s@corp.example").unwrap()),
            recipients: to(),
            eight_bit: false,
        },
        origin: fixture::origin(SystemTime::now()),
        header: format!("Subject: {number}\r\n").into(),
        body: Body::Memory(format!("text of {number}\r\n.\r\n").into()),
    }
}

/// What became of a message at last, and whether it ever was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    is_failed: bool,
    doubts: usize,
    /// Attempts that were reported as such.
    attempts: usize,
}

/// Delivers so many messages at once; what is not over after a report is delivered again, as delivery would.
async fn deliver(connector: &Arc<Smtp>, count: usize) -> BTreeMap<usize, Fate> {
    let mut tasks = JoinSet::new();
    for number in 1..=count {
        let connector = Arc::clone(connector);
        tasks.spawn(async move {
            let (message, to) = (message(number), to());
            let mut fate = Fate {
                is_failed: false,
                doubts: 0,
                attempts: 0,
            };
            for _ in 0..30 {
                let deadline = Instant::now() + Duration::from_secs(20);
                match connector.deliver(&message, &to, deadline).await {
                    Report::Tried { outcomes, .. } => {
                        fate.attempts += 1;
                        match &outcomes[0].1 {
                            Outcome::Delivered(_) => return (number, fate),
                            Outcome::Failed(_) => {
                                fate.is_failed = true;
                                return (number, fate);
                            }
                            Outcome::InDoubt(_) => fate.doubts += 1,
                            _ => {}
                        }
                    }
                    Report::NotTried(obstacle) => {
                        let passes = [ObstacleKind::Down, ObstacleKind::Throttled];
                        assert!(passes.contains(&obstacle.kind), "{number}: {obstacle:?}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{number} never ended: {fate:?}");
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// What must hold whatever the upstream did.
fn check(fates: &BTreeMap<usize, Fate>, arrived: &Arrived, what: &str) {
    for (number, fate) in fates {
        let times = arrived.get(number).copied().unwrap_or(0);
        if fate.is_failed {
            assert_eq!(times, fate.doubts, "{what}: {number} failed, {fate:?}");
        } else {
            assert!(times >= 1, "{what}: {number} never arrived, {fate:?}");
            assert!(
                times <= 1 + fate.doubts,
                "{what}: {number} arrived {times} times, {fate:?}"
            );
        }
    }
    let doubts: usize = fates.values().map(|fate| fate.doubts).sum();
    assert!(doubts <= 1, "{what}: {doubts} in doubt for one connection");
}

const COUNT: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_connection_takes_a_message_in_each_round_trip() {
    let upstream = Upstream::start(None, Spoils::Nothing).await;
    let fates = deliver(&connector(upstream.address, 1), COUNT).await;
    let seen = upstream.seen.lock().unwrap();
    check(&fates, &seen.arrived, "nothing wrong");
    assert_eq!(seen.connections, 1);
    // Not behind the first dot, which has to be answered first; nor behind the last.
    assert!(seen.early >= COUNT - 3, "{} early groups", seen.early);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_a_dot_happens_to_one_message() {
    use AtDot::{Confused, Drop, Flushes, Hang, Leaves, More, MoreApart, Reset, Says, Sleeps};
    for at in 1..=COUNT {
        for trick in [
            Drop,
            Reset,
            Hang,
            Says("421 4.3.2 closing"),
            Says("451 4.3.0 later"),
            Says("554 5.6.0 not this"),
            More("250 2.0.0 and this"),
            More("451 4.3.0 and this"),
            More("554 5.0.0 and this"),
            MoreApart("250 2.0.0 and this"),
            MoreApart("550 5.0.0 and this"),
            Flushes,
            Leaves,
            Sleeps,
            Confused,
        ] {
            let what = format!("{trick:?} at dot {at}");
            let upstream = Upstream::start(Some((at, trick)), Spoils::Nothing).await;
            let fates = deliver(&connector(upstream.address, 1), COUNT).await;
            let seen = upstream.seen.lock().unwrap();
            check(&fates, &seen.arrived, &what);
            let failed = fates.values().filter(|fate| fate.is_failed).count();
            let doubts = fates.values().filter(|fate| fate.doubts > 0).count();
            let retried = fates.values().filter(|fate| fate.attempts > 1).count();
            let expected = match trick {
                Drop | Reset | Hang => (0, 1, 1),
                Says(text) if text.starts_with('5') => (1, 0, 0),
                Says(_) => (0, 0, 1),
                // The one whose recipients were refused; none where the dot was the last.
                Confused => (usize::from(at < COUNT), 0, 0),
                More(_) | MoreApart(_) | Flushes | Leaves | Sleeps => (0, doubts, retried),
            };
            assert_eq!((failed, doubts, retried), expected, "{what}: {fates:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_and_extra_replies_at_any_octet_confuse_no_outcome() {
    let mut random = fastrand::Rng::with_seed(29);
    // All replies of ten messages are some 600 octets.
    for round in 0..160 {
        let at = random.usize(0..650);
        let spoils = if round % 2 == 0 {
            Spoils::CutAfter(at)
        } else {
            let more = [
                "250 ok\r\n",
                "354 go on\r\n",
                "451 later\r\n",
                "550 no\r\n",
                "x",
            ];
            Spoils::InsertAt(at, more[random.usize(0..more.len())])
        };
        let connections = random.usize(1..4);
        let what = format!("{spoils:?} with {connections} connections");
        let upstream = Upstream::start(None, spoils).await;
        let fates = deliver(&connector(upstream.address, connections), COUNT).await;
        let seen = upstream.seen.lock().unwrap();
        check(&fates, &seen.arrived, &what);
    }
}

/// The second connection greets late, when the first one has taken both messages; so it was never used when it dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_opened_in_vain_and_died_closes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, tricks) = (
        Arc::new(Mutex::new(Seen::default())),
        Arc::new(Tricks {
            at: None,
            spoils: Mutex::new(Spoils::Nothing),
        }),
    );
    let shared = Arc::clone(&seen);
    let sessions = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
    let all = Arc::clone(&sessions);
    let mut server = JoinSet::new();
    server.spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            shared.lock().unwrap().connections = number;
            let (seen, tricks) = (Arc::clone(&shared), Arc::clone(&tricks));
            all.lock().await.spawn(async move {
                // Both are being opened before one is, and the second is when there is nothing left for it.
                loop {
                    let is_time = {
                        let seen = seen.lock().unwrap();
                        match number {
                            1 => seen.connections == 2,
                            2 => seen.dots == 2,
                            _ => true,
                        }
                    };
                    if is_time {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let mut session = Session {
                    stream,
                    input: Vec::new(),
                    seen,
                    tricks,
                };
                let _ = session.run().await;
            });
        }
    });
    let connector = patient(address, 2, Duration::from_mins(1));
    deliver(&connector, 2).await;
    until("the second connection is idle", async || {
        connector.connections().unwrap().open == 2
    })
    .await;
    assert_eq!(seen.lock().unwrap().connections, 2);
    sessions.lock().await.shutdown().await;
    // Both are dead, and neither is said to be an upstream that is down.
    let (message, to) = (message(3), to());
    let deadline = Instant::now() + Duration::from_secs(20);
    let report = connector.deliver(&message, &to, deadline).await;
    let Report::Tried { outcomes, .. } = report else {
        panic!("{report:?}");
    };
    assert!(
        matches!(outcomes[0].1, Outcome::Delivered(_)),
        "{outcomes:?}"
    );
}
