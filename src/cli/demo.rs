//! `postern demo`: everything at work in a temporary directory, without an account or a network.
//!
//! It runs this very program as the gateway, hands it mail as an application would, and tells what became of each message in
//! the words of `postern trace`. What it claims it also checks: it exits with 1 when something was not as it should be.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    cert,
    exit::{CommandError, Ended, Exit},
    handover::{self, Unsent},
    output, prepare, trace,
};
use crate::{
    config::Secrets,
    gateway::report::life::History,
    mail::{
        message::MessageId,
        outcome::LaneState,
        text::{shown, shown_to},
    },
    queue::store::{EventKind, JobState, Store},
    route::LaneId,
    secret::Secret,
};

mod smarthost;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Keep it running for your own clients; Ctrl-C ends it
    #[arg(long)]
    stay: bool,
}

/// What the gateway is run with; the README explains the same text.
const CONFIG: &str = include_str!("demo.toml");

/// For each step; on an idle machine all of them take about three seconds together.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(arguments: &Arguments) -> Ended {
    prepare::block_on(async {
        let mut interrupted = signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminated = signal(tokio::signal::unix::SignalKind::terminate())?;
        let stopped = async {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
        };
        // When the future is dropped, however it ends, what was started is stopped and what was written is removed.
        tokio::select! {
            ended = demonstrate(arguments.stay) => ended,
            () = stopped => Ok(if arguments.stay { Exit::Ok } else { Exit::No }),
        }
    })
}

fn signal(
    kind: tokio::signal::unix::SignalKind,
) -> Result<tokio::signal::unix::Signal, CommandError> {
    tokio::signal::unix::signal(kind).map_err(|error| CommandError::new(Exit::System, error))
}

async fn demonstrate(stay: bool) -> Ended {
    let mut world = World::build()?;
    world.ready().await?;
    output::line(format_args!(
        "A gateway listens on {}; behind it stand two smarthosts that want STARTTLS and a password.",
        world.listener
    ))?;
    let store = super::place::existing_store(
        &prepare::settings(Some(world.config.clone()), Secrets::Ignore)?.data_dir,
    )?;
    let mut wrong = Vec::new();
    for sample in SAMPLES {
        output::line(format_args!("\n{}", sample.title))?;
        if let Err(why) = play(&world, &store, sample).await? {
            output::line(format_args!("   NOT AS EXPECTED: {why}"))?;
            wrong.push(why);
        }
    }
    if !wrong.is_empty() {
        return Err(CommandError {
            code: Exit::No.code(),
            text: format!(
                "\nthe demo did not work as it should:\n- {}\n\nthe log of the gateway:\n{}",
                wrong.join("\n- "),
                world.log()
            ),
        });
    }
    output::line("\nAll as it should be: delivered, refused, retried, failed over.")?;
    if !stay {
        output::line("`postern demo --stay` keeps it running for your own client.")?;
        return Ok(Exit::Ok);
    }
    let config = world.config.display();
    output::line(format_args!(
        "\nIt stays up until Ctrl-C. Send to it:\n\n\
         \x20 swaks --server {listener} --from erp@corp.example --to you@corp.example\n\
         \x20 echo '# Hello' | postern -c {config} send --from erp@corp.example --to you@corp.example --subject Hi\n\n\
         and look:\n\n\
         \x20 postern -c {config} status\n\
         \x20 postern -c {config} queue list --all\n\
         \x20 postern -c {config} trace you@corp.example\n\n\
         the mail that arrived:  {mails}\n\
         the queue:              {data}\n\
         the log:                {log}",
        listener = world.listener,
        mails = world.directory.0.join("mails").display(),
        data = world.directory.0.join("data").display(),
        log = world.directory.0.join("log").display(),
    ))?;
    loop {
        if let Some(status) = world.gateway.ended() {
            return Err(CommandError::new(
                Exit::Software,
                format_args!("the gateway ended ({status}):\n{}", world.log()),
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A mail, and what must become of it.
#[derive(Debug)]
struct Sample {
    title: &'static str,
    from: &'static str,
    to: &'static str,
    subject: &'static str,
    becomes: Becomes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// In this directory of `mails`.
    Delivered(&'static str),
    Refused,
    /// Put off once, then as `Delivered`.
    Retried(&'static str),
    /// The first connector is closed, then as `Delivered`.
    FailedOver(&'static str),
}

const SAMPLES: &[Sample] = &[
    Sample {
        title: "1. An application sends mail that the rules allow.",
        from: "erp@corp.example",
        to: "anna@corp.example",
        subject: "Demo: order 4711",
        becomes: Becomes::Delivered("smarthost"),
    },
    Sample {
        title: "2. A script writes to a domain that is not on the allowlist.",
        from: "erp@corp.example",
        to: "someone@elsewhere.example",
        subject: "Demo: not for you",
        becomes: Becomes::Refused,
    },
    Sample {
        title: "3. The smarthost says 451: the mail waits and is tried again.",
        from: "monitor@corp.example",
        to: "later@corp.example",
        subject: "Demo: disk is full",
        becomes: Becomes::Retried("smarthost"),
    },
    Sample {
        title: "4. The first connector of the route is down: the next one takes the mail.",
        from: "billing@corp.example",
        to: "invoices@mail.partner.example",
        subject: "Demo: invoice 42",
        becomes: Becomes::FailedOver("fallback"),
    },
];

/// Sends one and tells its life; the inner error says what was not as expected.
async fn play(
    world: &World,
    store: &Arc<dyn Store>,
    sample: &'static Sample,
) -> Result<Result<(), String>, CommandError> {
    output::line(format_args!("   from {} to {}", sample.from, sample.to))?;
    let address = world.listener.to_string();
    let sent = tokio::task::spawn_blocking(move || {
        let text = format!(
            "From: {}\r\nTo: {}\r\nSubject: {}\r\n\r\nA sample of `postern demo`.\r\n",
            sample.from, sample.to, sample.subject
        );
        handover::hand_over(
            &address,
            sample.from,
            &[sample.to.to_owned()],
            text.as_bytes(),
        )
    })
    .await
    .map_err(|error| CommandError::new(Exit::Software, error))?;
    let taken = match (sent, sample.becomes) {
        (Ok(taken), Becomes::Refused) => {
            return Ok(Err(format!(
                "the mail was to be refused, but: {}",
                taken.reply
            )));
        }
        (Ok(taken), _) => taken,
        (Err(Unsent::NoRecipient(refused)), Becomes::Refused)
            if refused.iter().all(|(_, reply)| reply.code == 550) =>
        {
            for (_, reply) in refused {
                output::line(format_args!("   the gateway said at once: {reply}"))?;
            }
            return Ok(Ok(()));
        }
        (Err(unsent), _) => return Ok(Err(format!("the gateway did not take the mail: {unsent}"))),
    };
    output::line(format_args!("   the gateway said: {}", taken.reply))?;
    let Some(id) = taken
        .reply
        .text
        .split_whitespace()
        .next_back()
        .and_then(|id| id.parse::<MessageId>().ok())
    else {
        return Ok(Err("the reply names no id".to_owned()));
    };
    let deadline = Instant::now() + PATIENCE;
    let life = loop {
        let life = History::read(store.as_ref(), id, output::now()).await?;
        let over = |state| matches!(state, JobState::Done | JobState::Failed);
        let done = !life.entries.is_empty() && life.entries.iter().all(|e| over(e.state));
        if done || Instant::now() >= deadline {
            break life;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut told = Vec::new();
    trace::print(&life, &mut told, None)?;
    for line in String::from_utf8_lossy(&told).lines() {
        output::line(format_args!("   {line}"))?;
    }
    if life.entries.is_empty() || life.entries.iter().any(|e| e.state != JobState::Done) {
        return Ok(Err(format!("{id} was not delivered")));
    }
    let mailbox = match sample.becomes {
        Becomes::Delivered(mailbox) | Becomes::FailedOver(mailbox) | Becomes::Retried(mailbox) => {
            mailbox
        }
        Becomes::Refused => return Ok(Err("a refused mail was taken".to_owned())),
    };
    let arrived = world.arrived(mailbox, sample.subject);
    if arrived != 1 {
        return Ok(Err(format!("{mailbox} has it {arrived} times, not once")));
    }
    if matches!(sample.becomes, Becomes::Retried(_))
        && !life
            .events
            .iter()
            .any(|event| event.kind == EventKind::Deferred)
    {
        return Ok(Err("it was not put off first".to_owned()));
    }
    if matches!(sample.becomes, Becomes::FailedOver(_)) {
        let lanes = store.lanes_here().await?;
        let Some(closed) = lanes
            .iter()
            .find(|l| l.lane == LaneId::parse("primary") && l.state == LaneState::Closed)
        else {
            return Ok(Err("the connector that is down was not closed".to_owned()));
        };
        output::line(format_args!(
            "   connector primary is closed: {}",
            shown(&closed.why)
        ))?;
    }
    Ok(Ok(()))
}

/// All that was started and written; dropped in this order.
#[derive(Debug)]
struct World {
    gateway: DemoGateway,
    directory: Directory,
    config: PathBuf,
    listener: SocketAddr,
    /// Bound and not listening: a port where nobody answers, and nobody else can take.
    _closed: socket2::Socket,
}

impl World {
    fn build() -> Result<Self, CommandError> {
        let fault = |error: &dyn std::fmt::Display| {
            CommandError::new(
                Exit::CannotCreate,
                format_args!("cannot set the demo up: {error}"),
            )
        };
        let directory = Directory::new().map_err(|e| fault(&e))?;
        let at = &directory.0;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certs = cert::make(&at.join("certs"), "smarthost", &names, 30, false)?;
        let password: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(24)
            .collect();
        let password = Secret::new(password);
        private(&at.join("password"), password.reveal()).map_err(|e| fault(&e))?;
        let start = |name: &str| {
            smarthost::start(
                &at.join("mails").join(name),
                &certs.certificate,
                &certs.key,
                &password,
            )
        };
        let smarthost = start("smarthost")?;
        let fallback = start("fallback")?;
        let closed = free_port().map_err(|e| fault(&e))?;
        // Given back just before the gateway takes it.
        let listener = free_port().map_err(|e| fault(&e))?;
        let text = CONFIG
            .replace("{listener}", &listener.1.port().to_string())
            .replace("{smarthost}", &smarthost.port().to_string())
            .replace("{fallback}", &fallback.port().to_string())
            .replace("{closed}", &closed.1.port().to_string());
        let config = at.join("config.toml");
        private(&config, &text).map_err(|e| fault(&e))?;
        drop(listener.0);
        let gateway = DemoGateway::start(at, &config).map_err(|e| fault(&e))?;
        Ok(Self {
            gateway,
            config,
            listener: listener.1,
            _closed: closed.0,
            directory,
        })
    }

    /// Until the listener answers.
    async fn ready(&mut self) -> Result<(), CommandError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.gateway.ended() {
                return Err(CommandError::new(
                    Exit::Software,
                    format_args!("the gateway did not start ({status}):\n{}", self.log()),
                ));
            }
            if TcpStream::connect_timeout(&self.listener, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CommandError::new(
                    Exit::Software,
                    format_args!("the gateway does not listen:\n{}", self.log()),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many mails with this subject a smarthost has.
    fn arrived(&self, mailbox: &str, subject: &str) -> usize {
        let line = format!("Subject: {subject}");
        fs::read_dir(self.directory.0.join("mails").join(mailbox))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter(|mail| memchr::memmem::find(mail, line.as_bytes()).is_some())
            .count()
    }

    /// What the gateway logged last.
    fn log(&self) -> String {
        let text = fs::read(self.directory.0.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(40);
        lines
            .iter()
            .skip(last)
            .map(|line| shown_to(line, 400))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// A socket that holds a free port of loopback without listening.
fn free_port() -> std::io::Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket
        .local_addr()?
        .as_socket()
        .ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

/// A file for our eyes only.
fn private(path: &Path, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The directory of the demo, removed with this value.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "postern-demo-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Best effort: it is in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The running gateway; it ends with this value.
#[derive(Debug)]
struct DemoGateway(Child);

impl DemoGateway {
    fn start(directory: &Path, config: &Path) -> std::io::Result<Self> {
        let log = fs::File::create(directory.join("log"))?;
        Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("-c")
            .arg(config)
            .env_remove("POSTERN_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map(Self)
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

impl Drop for DemoGateway {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
