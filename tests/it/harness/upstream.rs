//! An SMTP server that does as it is told, written apart from Postern's own code: it takes mail and keeps it, or at any place answers
//! otherwise, waits, says too much or hangs up; in the clear, with STARTTLS or with implicit TLS.

use std::{
    borrow::Cow,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf, Result,
    },
    net::{TcpListener, TcpStream},
    runtime::{Handle, RuntimeFlavor},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{HandshakeKind, ServerConfig},
    server::TlsStream,
};

use super::time::{until, wait};

/// Where a connection stands when the upstream is to answer.
#[derive(Debug)]
pub struct At<'a> {
    /// `banner EHLO STARTTLS AUTH MAIL RCPT1 RCPT2 RCPT DATA BODY EOD RSET QUIT`; BODY is behind the first line of the content, which
    /// has no answer, EOD at its end. Empty where the command is unknown or not in its place.
    pub stage: &'static str,
    /// The command without its end, `.` at EOD; empty at the banner and in the content.
    pub line: &'a str,
    /// Its number, from one.
    pub connection: usize,
    /// So many were open when this one began, itself among them.
    pub open: usize,
    /// So many messages have ended on this connection before.
    pub messages: usize,
    /// The number of this EOD, from one, among those of all connections.
    pub dot: usize,
}

/// What the upstream does in place of the usual answer.
#[derive(Debug, Clone)]
pub enum Act {
    /// A reply without its last CRLF; 421 hangs up behind it.
    Says(Cow<'static, str>),
    /// These octets, which may be no reply.
    Octets(Vec<u8>),
    /// The usual answer, and one more.
    More(&'static str, Form),
    /// The usual answer after this time.
    After(Duration),
    /// The usual answer as soon as this is so.
    Once(fn(&Seen) -> bool),
    /// A reply, and then it hangs up.
    Closes(&'static str),
    /// The usual answer, behind it this, and then it hangs up.
    Leaves(&'static str),
    /// The usual answer, and nothing ever again.
    Sleeps,
    /// The usual answer, and what has been read besides is thrown away.
    Flushes,
    /// The usual answer; when it is told to, it says this, tells that it has, and takes whatever comes.
    Later(Arc<Notify>, &'static str),
    /// It hangs up.
    Fin,
    /// It resets the connection.
    Rst,
    /// It says nothing ever again.
    Hang,
}

impl Act {
    /// What says so; no text at all hangs up.
    pub fn says(text: impl Into<Cow<'static, str>>) -> Self {
        match text.into() {
            text if text.is_empty() => Self::Fin,
            text => Self::Says(text),
        }
    }
}

/// How one reply too many comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Together with the answer.
    Together,
    /// Its beginning together with the answer.
    Begun,
    /// Behind the answer, by itself.
    Apart,
}

/// When an octet too few or too many comes, counted over all connections.
#[derive(Debug, Clone, Copy, Default)]
pub enum Spoils {
    #[default]
    Nothing,
    /// So many octets of all replies are written, and then the connection is closed.
    CutAfter(usize),
    /// Before that octet of all replies this is written.
    InsertAt(usize, &'static str),
}

type Rule = Arc<dyn Fn(&At) -> Option<Act> + Send + Sync>;

/// What the upstream does; everything else goes well.
#[derive(Clone, Default)]
pub struct Script {
    rules: Vec<Rule>,
    offers: &'static str,
    tls: Option<Arc<ServerConfig>>,
    is_implicit: bool,
    hates_tickets: bool,
    spoils: Spoils,
}

impl Script {
    /// The first rule that has an answer decides. One may block, where the upstream has a runtime of its own.
    pub fn when(mut self, rule: impl Fn(&At) -> Option<Act> + Send + Sync + 'static) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }

    /// At this stage of every message.
    pub fn at(self, stage: &'static str, act: Act) -> Self {
        self.when(move |at| (at.stage == stage).then(|| act.clone()))
    }

    /// Further EHLO lines, parted by spaces; `_` is a space in one.
    pub fn offers(self, offers: &'static str) -> Self {
        Self { offers, ..self }
    }

    /// With STARTTLS.
    pub fn starttls(self, config: Arc<ServerConfig>) -> Self {
        let tls = Some(config);
        Self { tls, ..self }
    }

    /// TLS from the first octet.
    pub fn implicit(self, config: Arc<ServerConfig>) -> Self {
        let is_implicit = true;
        Self {
            is_implicit,
            ..self
        }
        .starttls(config)
    }

    /// It hangs up on whoever wants to go on with a TLS session.
    pub fn hates_tickets(self, hates_tickets: bool) -> Self {
        Self {
            hates_tickets,
            ..self
        }
    }

    pub fn spoils(self, spoils: Spoils) -> Self {
        Self { spoils, ..self }
    }

    /// On the runtime of the test. Where that has one thread, what is written in two goes is there before the other side looks.
    pub fn start_here(self) -> Upstream {
        let (listener, address) = listen();
        let shared = Shared::new(self);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, shared.clone()));
        Upstream {
            address,
            shared,
            home: Home::Here(task),
        }
    }

    /// On a runtime of its own, so that a test and a rule may block.
    pub fn start(self) -> Upstream {
        let (listener, address) = listen();
        let shared = Shared::new(self);
        let end = Arc::new(Notify::new());
        let thread = std::thread::spawn({
            let (shared, end) = (shared.clone(), end.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, shared) => {}
                        () = end.notified() => {}
                    }
                });
                runtime.shutdown_background();
            }
        });
        Upstream {
            address,
            shared,
            home: Home::Own(end, Some(thread)),
        }
    }
}

/// One message as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// Unstuffed, with CRLF.
    pub data: Vec<u8>,
    /// As it came, to the dot.
    pub content: Vec<u8>,
}

impl Received {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    /// Of a field that the test gave it.
    pub fn subject(&self) -> String {
        let text = self.text();
        let rest = text.split("Subject: ").nth(1).unwrap();
        rest.split("\r\n").next().unwrap().to_owned()
    }
}

/// What the upstream has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub connections: usize,
    /// Now.
    pub open: usize,
    /// Every command with its end.
    pub lines: Vec<String>,
    /// What was taken, or safe in its hands when the connection was lost.
    pub messages: Vec<Received>,
    pub refused: Vec<Received>,
    /// Contents that ended.
    pub dots: usize,
    /// Groups that lay there when a dot was read.
    pub early: usize,
    /// Of each TLS handshake: it went on with a session.
    pub resumed: Vec<bool>,
}

/// The server. Dropping it ends it and its connections.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    home: Home,
}

enum Home {
    Here(JoinSet<()>),
    Own(Arc<Notify>, Option<std::thread::JoinHandle<()>>),
}

impl Upstream {
    /// Takes everything.
    pub fn start() -> Self {
        Self::scripted(|_| None)
    }

    /// Answers as this says to a command or to `.`, where it is not `None`; an empty text hangs up.
    pub fn scripted(says: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Script::default()
            .offers("PIPELINING 8BITMIME SIZE_52428800")
            .when(move |at| {
                let is_asked = !matches!(at.stage, "banner" | "BODY");
                is_asked.then(|| says(at.line).map(Act::says)).flatten()
            })
            .start()
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap()
    }

    /// What has arrived.
    pub fn mails(&self) -> Vec<Received> {
        self.seen().messages.clone()
    }

    /// How many have arrived.
    pub fn count(&self) -> usize {
        self.seen().messages.len()
    }

    /// Waits for at least so many.
    pub fn wait(&self, count: usize) -> Vec<Received> {
        wait(&format!("{count} mails at the upstream"), || {
            (self.count() >= count).then(|| self.mails())
        })
    }

    /// A command with this in it has come.
    pub fn was_told(&self, word: &str) -> bool {
        self.seen().lines.iter().any(|line| line.contains(word))
    }

    /// All that one client with one message said to it, when it is gone.
    pub fn all(&self) -> String {
        wait("the connection is over", || {
            let seen = self.seen();
            (seen.connections > 0 && seen.open == 0).then_some(())
        });
        let seen = self.seen();
        let content: Vec<u8> = seen
            .messages
            .iter()
            .chain(&seen.refused)
            .flat_map(|mail| mail.content.clone())
            .collect();
        let with_content = format!("DATA\r\n{}", String::from_utf8_lossy(&content));
        seen.lines.concat().replacen("DATA\r\n", &with_content, 1)
    }

    /// Ends the connections there are.
    pub async fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
        until("no connection is open", async || self.seen().open == 0).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        match &mut self.home {
            Home::Here(task) => task.abort_all(),
            Home::Own(end, thread) => {
                end.notify_one();
                let _ = thread.take().map(std::thread::JoinHandle::join);
            }
        }
    }
}

struct Shared {
    script: Script,
    seen: Mutex<Seen>,
    spoils: Mutex<Spoils>,
    hang_up: Notify,
    /// A connection or a dot more has been seen.
    changed: Notify,
}

impl Shared {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self {
            spoils: Mutex::new(script.spoils),
            script,
            seen: Mutex::default(),
            hang_up: Notify::new(),
            changed: Notify::new(),
        })
    }

    fn rule(&self, at: &At) -> Option<Act> {
        let ask = || self.script.rules.iter().find_map(|rule| rule(at));
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => ask(),
            _ => tokio::task::block_in_place(ask),
        }
    }
}

fn listen() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Two writes are two segments, and none of them waits.
        stream.set_nodelay(true).unwrap();
        let (connection, open) = {
            let mut seen = shared.seen.lock().unwrap();
            seen.connections += 1;
            seen.open += 1;
            (seen.connections, seen.open)
        };
        shared.changed.notify_waiters();
        let shared = shared.clone();
        sessions.spawn(async move {
            let raw = socket2::SockRef::from(&stream).try_clone().unwrap();
            let ended = tokio::select! {
                ended = serve(stream, connection, open, &shared) => ended,
                () = shared.hang_up.notified() => Ok(()),
            };
            if ended == Err(End::Rst) {
                raw.set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(raw);
            shared.seen.lock().unwrap().open -= 1;
        });
    }
}

/// Why a session ends before its QUIT.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Fin,
    Rst,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Fin
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, to),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, to),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    open: usize,
    shared: &Shared,
) -> std::result::Result<(), End> {
    let script = &shared.script;
    if script.hates_tickets && offers_ticket(&stream).await {
        return Err(End::Rst);
    }
    let wire = if script.is_implicit {
        secure(stream, shared).await?
    } else {
        Wire::Plain(stream)
    };
    let mut session = Session {
        wire: BufReader::new(wire),
        shared,
        connection,
        open,
        messages: 0,
        dot: 0,
        mail: None,
        asked: 0,
    };
    session.answer("banner", "", "220 up.example ready").await?;
    loop {
        match session.command().await? {
            Next::Command => {}
            Next::Tls => {
                let Wire::Plain(stream) = session.wire.into_inner() else {
                    return Err(End::Fin);
                };
                session.wire = BufReader::new(secure(stream, shared).await?);
            }
            Next::Over => return Ok(()),
        }
    }
}

async fn secure(stream: TcpStream, shared: &Shared) -> Result<Wire> {
    let acceptor = TlsAcceptor::from(shared.script.tls.clone().unwrap());
    let stream = acceptor.accept(stream).await?;
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    shared.seen.lock().unwrap().resumed.push(is_resumed);
    Ok(Wire::Tls(Box::new(stream)))
}

/// A ClientHello lies there with a pre-shared key, its last extension (RFC 8446 §4.2.11).
async fn offers_ticket(stream: &TcpStream) -> bool {
    let mut hello = vec![0; 4096];
    let octets = stream.peek(&mut hello).await.unwrap();
    // Its type, its length, then that of the identities: a ticket is longer than a hundred octets, and shorter than a page.
    let is_psk = |w: &[u8]| w[..2] == [0, 41] && w[2] < 16 && w[4] < 16 && w[3] > w[5];
    hello[..octets].windows(6).any(is_psk)
}

enum Next {
    Command,
    Tls,
    Over,
}

struct Session<'a> {
    wire: BufReader<Wire>,
    shared: &'a Shared,
    connection: usize,
    open: usize,
    messages: usize,
    dot: usize,
    mail: Option<Received>,
    /// RCPT commands of this mail.
    asked: usize,
}

impl Session<'_> {
    async fn command(&mut self) -> std::result::Result<Next, End> {
        let mut line = Vec::new();
        if self.wire.read_until(b'\n', &mut line).await? == 0 {
            return Ok(Next::Over);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        self.shared.seen.lock().unwrap().lines.push(line.clone());
        let line = line.trim_end();
        let word = line.split(' ').next().unwrap_or_default();
        match word.to_ascii_uppercase().as_str() {
            "EHLO" => {
                let script = &self.shared.script;
                let is_clear = matches!(self.wire.get_ref(), Wire::Plain(_));
                let starttls = (script.tls.is_some() && is_clear).then_some("STARTTLS");
                let offers = script.offers.split_ascii_whitespace();
                let text: String = ["up.example"]
                    .into_iter()
                    .chain(starttls)
                    .chain(offers)
                    .map(|word| format!("250-{}\r\n", word.replace('_', " ")))
                    .collect();
                self.answer("EHLO", line, &(text + "250 HELP")).await?;
            }
            "HELO" => {
                self.answer("EHLO", line, "250 up.example").await?;
            }
            "STARTTLS" => {
                if self.answer("STARTTLS", line, "220 go").await? {
                    return Ok(Next::Tls);
                }
            }
            "AUTH" => {
                self.answer("AUTH", line, "235 2.7.0 welcome").await?;
            }
            "MAIL" => {
                let is_taken = self.answer("MAIL", line, "250 2.1.0 ok").await?;
                self.asked = 0;
                self.mail = is_taken.then(|| Received {
                    from: path(line),
                    to: Vec::new(),
                    data: Vec::new(),
                    content: Vec::new(),
                });
            }
            "RCPT" if self.mail.is_some() => {
                self.asked += 1;
                let stage = match self.asked {
                    1 => "RCPT1",
                    2 => "RCPT2",
                    _ => "RCPT",
                };
                let is_taken = self.answer(stage, line, "250 2.1.5 ok").await?;
                if let (Some(mail), true) = (&mut self.mail, is_taken) {
                    mail.to.push(path(line));
                }
            }
            "DATA" if self.mail.as_ref().is_some_and(|mail| !mail.to.is_empty()) => {
                if self.answer("DATA", line, "354 go on").await? {
                    return self.content().await;
                }
            }
            "RSET" => {
                self.mail = None;
                self.answer("RSET", line, "250 2.0.0 ok").await?;
            }
            "NOOP" => {
                self.answer("NOOP", line, "250 2.0.0 ok").await?;
            }
            "QUIT" => {
                self.answer("QUIT", line, "221 2.0.0 bye").await?;
                return Ok(Next::Over);
            }
            // Nothing was agreed upon, and yet a rule may say 354.
            "DATA" => {
                if self.answer("", line, "554 5.5.1 no recipients").await? {
                    return self.content().await;
                }
            }
            _ => {
                self.answer("", line, "503 5.5.1 not now").await?;
            }
        }
        Ok(Next::Command)
    }

    async fn content(&mut self) -> std::result::Result<Next, End> {
        let mut content = Vec::new();
        let mut data = Vec::new();
        loop {
            let begin = content.len();
            if self.wire.read_until(b'\n', &mut content).await? == 0 {
                return Ok(Next::Over);
            }
            if begin == 0 {
                self.answer("BODY", "", "").await?;
            }
            let line = &content[begin..];
            if line == b".\r\n" {
                break;
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        {
            let mut seen = self.shared.seen.lock().unwrap();
            seen.dots += 1;
            seen.early += usize::from(self.wire.buffer().starts_with(b"MAIL"));
            self.dot = seen.dots;
        }
        self.shared.changed.notify_waiters();
        if let Some(mail) = &mut self.mail {
            (mail.data, mail.content) = (data, content);
        }
        self.answer("EOD", ".", "250 2.0.0 taken").await?;
        self.messages += 1;
        Ok(Next::Command)
    }

    /// Says whether the answer was positive.
    async fn answer(
        &mut self,
        stage: &'static str,
        line: &str,
        usual: &str,
    ) -> std::result::Result<bool, End> {
        let act = self.shared.rule(&At {
            stage,
            line,
            connection: self.connection,
            open: self.open,
            messages: self.messages,
            dot: self.dot,
        });
        let is_positive = |text: &[u8]| matches!(text.first(), Some(b'2' | b'3'));
        let is_taken = match &act {
            Some(Act::Says(text)) => is_positive(text.as_bytes()),
            Some(Act::Closes(text)) => is_positive(text.as_bytes()),
            Some(Act::Octets(octets)) => is_positive(octets),
            Some(Act::Fin | Act::Rst | Act::Hang) => true,
            _ => is_positive(usual.as_bytes()),
        };
        if stage == "EOD"
            && let Some(mail) = self.mail.take()
        {
            let mut seen = self.shared.seen.lock().unwrap();
            let kept = if is_taken {
                &mut seen.messages
            } else {
                &mut seen.refused
            };
            kept.push(mail);
        }
        match act {
            None => self.say(usual).await?,
            Some(Act::Says(text)) => {
                self.say(&text).await?;
                if text.starts_with("421") {
                    return Err(End::Fin);
                }
            }
            Some(Act::Closes(text)) => {
                self.say(text).await?;
                return Err(End::Fin);
            }
            Some(Act::Octets(octets)) => self.write(octets).await?,
            Some(Act::More(more, form)) => match form {
                Form::Together => self.say(&format!("{usual}\r\n{more}")).await?,
                Form::Begun => {
                    let (begun, rest) = more.split_at(5);
                    self.write(format!("{usual}\r\n{begun}").into()).await?;
                    self.say(rest).await?;
                }
                Form::Apart => {
                    self.say(usual).await?;
                    self.say(more).await?;
                }
            },
            Some(Act::After(time)) => {
                tokio::time::sleep(time).await;
                self.say(usual).await?;
            }
            Some(Act::Once(is)) => {
                loop {
                    let changed = self.shared.changed.notified();
                    if is(&self.shared.seen.lock().unwrap()) {
                        break;
                    }
                    changed.await;
                }
                self.say(usual).await?;
            }
            Some(Act::Leaves(last)) => {
                self.say(usual).await?;
                self.say(last).await?;
                return Err(End::Fin);
            }
            Some(Act::Sleeps) => {
                self.say(usual).await?;
                std::future::pending::<()>().await;
            }
            Some(Act::Flushes) => {
                let octets = self.wire.buffer().len();
                self.wire.consume(octets);
                self.say(usual).await?;
            }
            Some(Act::Later(when, text)) => {
                self.say(usual).await?;
                when.notified().await;
                let _ = self.say(text).await;
                when.notify_one();
            }
            Some(Act::Fin) => return Err(End::Fin),
            Some(Act::Rst) => return Err(End::Rst),
            Some(Act::Hang) => std::future::pending::<()>().await,
        }
        Ok(is_taken)
    }

    /// With its end; nothing where there is nothing to say.
    async fn say(&mut self, text: &str) -> std::result::Result<(), End> {
        if text.is_empty() {
            return Ok(());
        }
        self.write(format!("{text}\r\n").into()).await
    }

    async fn write(&mut self, mut octets: Vec<u8>) -> std::result::Result<(), End> {
        let mut is_cut = false;
        {
            let mut spoils = self.shared.spoils.lock().unwrap();
            *spoils = match *spoils {
                Spoils::CutAfter(left) if left < octets.len() => {
                    octets.truncate(left);
                    is_cut = true;
                    Spoils::Nothing
                }
                Spoils::CutAfter(left) => Spoils::CutAfter(left - octets.len()),
                Spoils::InsertAt(left, what) if left < octets.len() => {
                    octets.splice(left..left, what.bytes());
                    Spoils::Nothing
                }
                Spoils::InsertAt(left, what) => Spoils::InsertAt(left - octets.len(), what),
                Spoils::Nothing => Spoils::Nothing,
            };
        }
        // Who is gone does not hear it; that it is gone is found where it is to be heard.
        let _ = self.wire.get_mut().write_all(&octets).await;
        let _ = self.wire.get_mut().flush().await;
        if is_cut { Err(End::Fin) } else { Ok(()) }
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
