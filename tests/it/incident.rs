//! Incidents, from what is wrong to who is told: by receivers that fail in every way, over kills at any moment, and of the real gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use postern::{
    config::{self, Secrets},
    connector::http::HttpSettings,
    delivery::clock::Moment,
    gateway::watcher::post::AlarmPost,
    incident::{
        book::{Book, IncidentCondition},
        catalogue::{IncidentKind, IncidentSeverity},
        channels::{AlarmLetter, AlarmMessage, Postman, Teller},
        outbox,
        settings::{Channel, ChannelUrl, ChannelWay, IncidentSettings},
    },
    secret::Secret,
    window::{
        WindowDb,
        incidents::{self, OutboxState},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    gateway::{Gateway, basic, stdout},
    http::{Wire, serve},
    peers::free_port,
    time::{stays, wait},
    upstream::Upstream,
};

#[derive(Debug)]
struct NoPost;

#[async_trait]
impl Postman for NoPost {
    async fn post(&self, _: AlarmLetter) -> Result<String, String> {
        Err("nobody".to_owned())
    }

    fn tried(&self, _: &str, _: bool) {}
}

fn teller() -> Teller {
    Teller {
        hostname: "gw.corp.example".to_owned(),
        postman: Arc::new(NoPost),
    }
}

fn webhook(url: &str) -> Channel {
    Channel {
        name: "oncall".to_owned(),
        min_severity: IncidentSeverity::Info,
        kinds: None,
        way: ChannelWay::Webhook {
            to: ChannelUrl {
                url: Secret::new(url),
                http: HttpSettings {
                    allowed_hosts: vec!["127.0.0.1".to_owned()],
                    ..HttpSettings::default()
                },
            },
            secret: Some(Secret::new("key")),
        },
    }
}

/// What a receiver was sent: key, signature, body.
pub type Posts = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A receiver; `answers` gets the key and how often it has come, and has the wire.
pub fn receiver(
    answers: impl Fn(&str, usize, &mut Wire) -> Option<()> + Clone + Send + 'static,
) -> (String, Posts) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
    let posts = Posts::default();
    let kept = Arc::clone(&posts);
    let counts = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    serve(listener, move |mut wire| {
        loop {
            let head = wire.head()?;
            let body = wire.body(head.length())?;
            let header = |name: &str| head.header(name).unwrap_or_default().to_owned();
            let key = header("idempotency-key");
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let post = (key.clone(), header("postern-signature"), body);
            kept.lock().unwrap().push(post);
            let times = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(key.clone()).or_default();
                *count += 1;
                *count
            };
            answers(&key, times, &mut wire)?;
        }
    });
    (url, posts)
}

#[tokio::test]
async fn whatever_a_receiver_does_is_taken_or_a_fault_that_shows_nothing() {
    let (elsewhere, seen_elsewhere) = receiver(|_, _, wire| wire.answer(200, "", b""));
    let location = format!("Location: {elsewhere}\r\n");
    let secret = b"the body of the answer";
    let closed = format!("http://127.0.0.1:{}/", free_port());
    let said = |url: String| async move {
        let message = AlarmMessage::test("oncall", SystemTime::now(), 7);
        let began = Instant::now();
        let result = teller().tell(&webhook(&url), &message).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{result:?}");
        for text in [
            &result.clone().unwrap_or_default(),
            &result.clone().err().unwrap_or_default(),
        ] {
            assert!(
                !text.contains("the body") && !text.contains("hunter2"),
                "{text}"
            );
        }
        result
    };
    for status in [200, 202, 204] {
        let (url, _) = receiver(move |_, _, wire| {
            wire.answer(status, "", if status == 204 { b"" } else { secret })
        });
        assert_eq!(said(url).await, Ok(status.to_string()));
    }
    for status in [400, 404, 429, 500, 503] {
        let (url, _) = receiver(move |_, _, wire| wire.answer(status, "", secret));
        assert_eq!(said(url).await, Err(status.to_string()));
    }
    for status in [301, 302, 307, 308] {
        let location = location.clone();
        let (url, _) = receiver(move |_, _, wire| wire.answer(status, &location, secret));
        let fault = said(url).await.unwrap_err();
        assert!(fault.starts_with(&status.to_string()), "{fault}");
    }
    assert!(
        seen_elsewhere.lock().unwrap().is_empty(),
        "a redirect was followed"
    );
    // Cut before the answer, in the middle of its header, or no HTTP at all.
    for octets in [&b""[..], b"HTTP/1.1 200 O", b"HELLO\r\n\r\n"] {
        let (url, _) = receiver(move |_, _, wire| {
            wire.say(octets)?;
            None
        });
        said(url).await.unwrap_err();
    }
    // Cut in the body: the status has come, and with it the answer.
    let (url, _) = receiver(|_, _, wire| {
        wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")?;
        None
    });
    assert_eq!(said(url).await, Ok("200".to_owned()));
    said(closed).await.unwrap_err();
    // Not a host that may be asked.
    let elsewhere = said("https://hooks.elsewhere.example/hunter2".to_owned())
        .await
        .unwrap_err();
    assert!(elsewhere.contains("outbound.allowed_hosts"), "{elsewhere}");
    // It hangs.
    let (url, _) = receiver(|_, _, _| {
        std::thread::sleep(Duration::from_mins(1));
        None
    });
    let fault = said(url).await.unwrap_err();
    assert!(fault.contains("no answer"), "{fault}");
}

fn settings(channels: Vec<Channel>) -> IncidentSettings {
    IncidentSettings {
        open_after: Duration::ZERO,
        recover_after: Duration::ZERO,
        remind: Duration::from_hours(24 * 365),
        channels,
        expected: Vec::new(),
    }
}

/// The wall clock of a round of kills: ten minutes lie between two, and an hour before each twentieth, by which everything that
/// could not be told is due again. Nothing waits for a day, after which it would be given up.
fn later_clock(since: SystemTime, round: usize) -> SystemTime {
    let (rounds, hours) = (round as u64, (round as u64 + 1) / 20);
    since
        + Duration::from_mins(10 * rounds)
        + Duration::from_hours(hours)
        + since.elapsed().unwrap_or_default()
}

/// What the killed process does: things go wrong and right again, and are told. It is this test in a process of its own.
#[test]
#[ignore = "it is started, and killed, by the next one"]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var("POSTERN_KILLED_DIR") else {
        return;
    };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let url = std::env::var("POSTERN_KILLED_URL").unwrap();
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(number("POSTERN_KILLED_SINCE"));
    let last_look = number("POSTERN_KILLED_LOOK");
    let round = number("POSTERN_KILLED_ROUND") as usize;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let window = WindowDb::make(Path::new(&dir)).unwrap();
        let channel = webhook(&url);
        let (mut book, began) = (Book::default(), Instant::now());
        let mut random = fastrand::Rng::new();
        for looks in 1.. {
            let objects = ["a", "b", "c"].into_iter().filter(|_| random.bool());
            let seen: Vec<IncidentCondition> = objects
                .map(|object| {
                    IncidentCondition::new(IncidentKind::ConnectorPaused, object, Vec::new())
                })
                .collect();
            let now = Moment {
                wall: later_clock(since, round),
                boot: Duration::from_secs(1_000_000) + began.elapsed(),
            };
            let (settings, before) = (settings(vec![channel.clone()]), book.clone());
            let looked = window
                .run(move |tx| outbox::look(tx, before, &seen, now, &settings, 0))
                .await
                .unwrap();
            book = looked.book;
            if looks == last_look {
                end(std::process::id());
            }
            outbox::tell(&window, &channel, &teller(), || later_clock(since, round))
                .await
                .unwrap();
        }
    });
}

/// `kill -9`.
fn end(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Where a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KillPoint {
    /// Behind its look of this number: a transition is written, and nobody asked to tell it.
    Looked(u64),
    /// The receiver has the post of this number, and has not answered.
    Sent(u8),
    /// The answer is on its way, and not written down.
    Answered(u8),
    /// Wherever it is then.
    After(Duration),
}

impl KillPoint {
    fn any(random: &mut fastrand::Rng) -> Self {
        match random.u8(..10) {
            0..3 => Self::Looked(random.u64(1..4)),
            3..6 => Self::Sent(random.u8(0..8)),
            6..9 => Self::Answered(random.u8(0..8)),
            _ => Self::After(Duration::from_micros(random.u64(5_000..80_000))),
        }
    }
}

/// A receiver that may end whoever it answers.
#[derive(Debug)]
struct KillingReceiver {
    random: fastrand::Rng,
    /// Who is to be killed, and where.
    target: Option<(u32, KillPoint)>,
    /// It takes everything and ends nobody.
    is_kind: bool,
}

impl KillingReceiver {
    /// One more post has come; who is to be killed at it.
    fn one_more(&mut self) -> Option<(u32, KillPoint)> {
        let (pid, point) = self.target?;
        match point {
            KillPoint::Sent(0) | KillPoint::Answered(0) => return self.target,
            KillPoint::Sent(more) => self.target = Some((pid, KillPoint::Sent(more - 1))),
            KillPoint::Answered(more) => self.target = Some((pid, KillPoint::Answered(more - 1))),
            KillPoint::Looked(_) | KillPoint::After(_) => {}
        }
        None
    }
}

/// One directory, killed so often; how many transitions there were, and how many posts.
fn killed(kills: usize, seed: u64) -> (usize, usize) {
    let state = Arc::new(Mutex::new(KillingReceiver {
        random: fastrand::Rng::with_seed(seed),
        target: None,
        is_kind: false,
    }));
    let kept = Arc::clone(&state);
    let (url, posts) = receiver(move |_, times, wire| {
        let (roll, target) = {
            let mut state = kept.lock().unwrap();
            let is_kind = times > 3 || state.is_kind;
            let roll = if is_kind { 255 } else { state.random.u8(..) };
            (roll, state.one_more())
        };
        if let Some((pid, KillPoint::Sent(_))) = target {
            end(pid);
        }
        let answered = match roll {
            0..30 => wire.answer(500, "", b"no"),
            // The answer is lost.
            30..60 => None,
            60..80 => {
                std::thread::sleep(Duration::from_millis(3));
                wire.answer(200, "", b"ok")
            }
            _ => wire.answer(200, "", b"ok"),
        };
        if let Some((pid, KillPoint::Answered(_))) = target {
            end(pid);
        }
        answered
    });
    // What a process that was killed has written is there without a disk.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    };
    let since = SystemTime::now();
    let millis = since
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .to_string();
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(millis.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for round in 0..kills {
        // Now and then all there is gets through: what is killed before it has told everything would have ever more to tell.
        if round % 20 == 19 {
            state.lock().unwrap().is_kind = true;
            let window = WindowDb::make(dir.path()).unwrap();
            let channel = webhook(&url);
            let tell = async || {
                outbox::tell(&window, &channel, &teller(), || later_clock(since, round)).await
            };
            runtime.block_on(tell()).unwrap();
            state.lock().unwrap().is_kind = false;
        }
        let point = KillPoint::any(&mut state.lock().unwrap().random);
        let last_look = match point {
            KillPoint::Looked(look) => look,
            _ => 0,
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "incident::child_that_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .envs([
                ("POSTERN_KILLED_DIR", dir.path().as_os_str()),
                ("POSTERN_KILLED_URL", url.as_ref()),
            ])
            .env("POSTERN_KILLED_SINCE", &millis)
            .env("POSTERN_KILLED_LOOK", last_look.to_string())
            .env("POSTERN_KILLED_ROUND", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        state.lock().unwrap().target = Some((pid, point));
        // Where all that is left waits to be tried again nobody is killed by what is sent.
        let patience = match point {
            KillPoint::After(time) => time,
            _ => Duration::from_millis(500),
        };
        let begin = Instant::now();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            if begin.elapsed() >= patience {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        state.lock().unwrap().target = None;
        assert_eq!(ended.signal(), Some(9), "it ended by itself: {ended:?}");
    }
    // What is left is told when somebody comes back.
    state.lock().unwrap().is_kind = true;
    runtime.block_on(told_all(dir.path(), &url, (since, kills), &posts))
}

/// Tells what is left; all there was is told, in its order, and what came twice had the same key and said the same.
async fn told_all(
    dir: &Path,
    url: &str,
    (since, rounds): (SystemTime, usize),
    posts: &Posts,
) -> (usize, usize) {
    let window = WindowDb::make(dir).unwrap();
    let later = || later_clock(since, rounds) + Duration::from_hours(2);
    outbox::tell(&window, &webhook(url), &teller(), later)
        .await
        .unwrap();
    let all = window.run(|tx| {
        let mut all = Vec::new();
        for row in incidents::list(tx, None, None, 1_000_000)? {
            let told = incidents::told(tx, row.id)?;
            all.push((row, told));
        }
        Ok(all)
    });
    let all = all.await.unwrap();
    let posts = posts.lock().unwrap();
    let mut firsts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut bodies: BTreeMap<&str, &Value> = BTreeMap::new();
    for (key, _, body) in posts.iter() {
        let mut parts = key.split('/');
        let (id, number) = (
            parts.next().unwrap(),
            parts.next().unwrap().parse().unwrap(),
        );
        if seen.insert(key.as_str()) {
            firsts.entry(id.to_owned()).or_default().push(number);
        }
        // The same key says the same.
        let incident = &body["incident"];
        let first = bodies.entry(key).or_insert(incident);
        assert_eq!(*first, incident, "{key}");
    }
    let mut expected = BTreeSet::new();
    for (row, told) in &all {
        let numbers: Vec<u32> = told.iter().map(|told| told.number).collect();
        assert_eq!(numbers, (1..=row.number).collect::<Vec<_>>(), "{row:?}");
        for one in told {
            assert_eq!(one.state, OutboxState::Taken, "{one:?}");
            expected.insert(format!("i{}/{}/{}", row.id, one.number, one.transition));
        }
        assert_eq!(firsts[&format!("i{}", row.id)], numbers, "in order");
    }
    let seen: BTreeSet<String> = seen.into_iter().map(str::to_owned).collect();
    assert_eq!(seen, expected);
    (expected.len(), posts.len())
}

/// Between a transition, its sending and the answer: nothing is lost, what comes twice has the same key, and all comes in order.
/// `POSTERN_KILLS` says how often; `tests/run --long` does it ten thousand times.
#[test]
fn kill_at_any_moment_loses_nothing_and_doubles_nothing() {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills: usize = given("POSTERN_KILLS").unwrap_or(60);
    let seed: usize = given("POSTERN_SEED").unwrap_or(1);
    // Several beside each other: most of a round is the start of a process.
    let lanes = if kills < 1_000 { 2 } else { 4 };
    let threads: Vec<_> = (0..lanes)
        .map(|lane| {
            let seed = (seed * lanes + lane) as u64;
            std::thread::spawn(move || killed(kills / lanes, seed))
        })
        .collect();
    let begin = Instant::now();
    let (mut transitions, mut posts) = (0, 0);
    for thread in threads {
        let (some, more) = thread.join().unwrap();
        assert!(some > kills / lanes / 4, "{some} transitions");
        (transitions, posts) = (transitions + some, posts + more);
    }
    println!(
        "{kills} kills in {:?}, {transitions} transitions, {posts} posts",
        begin.elapsed()
    );
}

#[tokio::test]
async fn mail_goes_by_no_connector_that_it_is_about() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let dir = TempDir::new().unwrap();
    let another = format!(
        "[[connector]]\nname = \"other\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n\
         [[connector]]\nname = \"files\"\ntype = \"capture\"\ndirectory = \"captured\"\n",
        second.address.port()
    );
    let file = dir.path().join("config.toml");
    fs::write(&file, basic(first.address) + &another).unwrap();
    let (config, _) = config::load(&file, Secrets::Resolve).unwrap();
    let post = AlarmPost {
        config: Arc::new(config),
        store: None,
        metrics: None,
    };
    let letter = |about: Option<&str>, connector: Option<&str>| AlarmLetter {
        to: vec![crate::fixture::address("ops@elsewhere.example")],
        connector: connector.map(Into::into),
        about: about.map(Into::into),
        id: "i42.3.opened".to_owned(),
        subject: "[critical] gw: Ä".to_owned(),
        text: "a\n\n.b\n".to_owned(),
    };
    // Nobody is on a list: an alarm is held to none.
    assert_eq!(
        post.post(letter(None, None)).await,
        Ok("250 by up".to_owned())
    );
    assert_eq!(first.count(), 1);
    for named in [None, Some("up"), Some("other")] {
        let before = second.count();
        assert_eq!(
            post.post(letter(Some("up"), named)).await,
            Ok("250 by other".to_owned())
        );
        assert_eq!((first.count(), second.count()), (1, before + 1));
    }
    let mail = String::from_utf8(second.mails()[0].content.clone()).unwrap();
    for line in [
        "Message-ID: <i42.3.opened@relay.corp.example>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "From: postmaster@relay.corp.example\r\n",
        "To: ops@elsewhere.example\r\n",
    ] {
        assert!(mail.contains(line), "{line}: {mail}");
    }
    // Files tell nobody.
    let alone = basic(first.address);
    fs::write(&file, alone).unwrap();
    let (config, _) = config::load(&file, Secrets::Resolve).unwrap();
    let post = AlarmPost {
        config: Arc::new(config),
        store: None,
        metrics: None,
    };
    let fault = post.post(letter(Some("up"), None)).await.unwrap_err();
    assert!(fault.contains("no other connector"), "{fault}");
    assert_eq!(first.count(), 1);
}

/// Asks the interface as an operator.
fn ask(port: u16, request: &str, body: &str) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer token-of-the-test\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn items(gateway: &Gateway, args: &[&str]) -> Vec<Value> {
    let text = stdout(&gateway.cli(args));
    let value: Value = serde_json::from_str(&text).unwrap();
    value.as_array().unwrap().clone()
}

/// The whole way: the gateway looks, opens, tells, is asked by commands, and ends it; also over a restart.
#[test]
fn gateway_tells_of_a_refused_file_and_of_a_paused_connector() {
    let upstream = Upstream::scripted(|line| {
        let is_refused = line.starts_with("MAIL");
        is_refused.then(|| "530 5.7.1 Authentication required for kim@corp.example".to_owned())
    });
    let (url, posts) = receiver(|_, _, wire| wire.answer(202, "", b""));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oncall.url"), format!("{url}\n")).unwrap();
    let port = free_port();
    let admin = format!(
        "[admin]\naddress = \"127.0.0.1:{port}\"\n[[admin_token]]\nname = \"test\"\nrole = \"operator\"\n\
         hash = \"sha256:d0283ed870053d62b0ca8389c79b3771437e2d6d24e15033c671d69ecffff441\"\n"
    );
    let config = basic(upstream.address)
        + &admin
        + "[incidents]\nrecover_after = \"1s\"\n\
           [[notify]]\nname = \"oncall\"\ntype = \"webhook\"\nurl = { file = \"oncall.url\" }\nsecret = \"key\"\n";
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    let mut gateway = Gateway::start_in(dir);
    let keys = || -> Vec<String> {
        posts
            .lock()
            .unwrap()
            .iter()
            .map(|(key, _, _)| key.clone())
            .collect()
    };
    assert!(items(&gateway, &["incident", "list", "--json"]).is_empty());

    fs::write(gateway.config_path(), config.clone() + "nonsense = 1\n").unwrap();
    gateway.hang_up();
    wait("the refused file is told", || {
        keys().contains(&"i1/1/opened".to_owned()).then_some(())
    });
    {
        let posts = posts.lock().unwrap();
        let (_, signature, body) = &posts[0];
        assert!(
            signature.starts_with("t=") && signature.contains(",v1="),
            "{signature}"
        );
        assert_eq!(
            (&body["schema"], &body["transition"]),
            (&json!(1), &json!("opened"))
        );
        let incident = &body["incident"];
        assert_eq!(
            (&incident["kind"], &incident["severity"], &incident["state"]),
            (&json!("reload_refused"), &json!("warning"), &json!("open"))
        );
        assert!(
            incident["evidence"][0]
                .as_str()
                .unwrap()
                .contains("config.toml"),
            "{incident}"
        );
    }
    let status = String::from_utf8(gateway.cli(&["status"]).stdout).unwrap();
    assert!(
        status.contains("incidents   1 open: 1 warning; "),
        "{status}"
    );
    let status: Value = serde_json::from_slice(&gateway.cli(&["status", "--json"]).stdout).unwrap();
    assert_eq!(
        status["incidents"],
        json!({"critical": 0, "warning": 1, "info": 0})
    );
    let shown = wait("who was told is written", || {
        let shown: Value =
            serde_json::from_str(&stdout(&gateway.cli(&["incident", "show", "i1", "--json"])))
                .unwrap();
        (shown["told"][0]["result"] == "202").then_some(shown)
    });
    assert_eq!(shown["told"][0]["channel"], "oncall");
    assert!(!shown.to_string().contains("hunter2"));

    fs::write(gateway.config_path(), &config).unwrap();
    gateway.hang_up();
    wait("it is over", || {
        keys().contains(&"i1/2/recovered".to_owned()).then_some(())
    });
    assert!(items(&gateway, &["incident", "list", "--json"]).is_empty());
    assert_eq!(
        items(&gateway, &["incident", "list", "--all", "--json"]).len(),
        1
    );

    // A connector that pauses: at once, critical, and without the address.
    crate::harness::gateway::send(&gateway);
    wait("the paused connector is told", || {
        keys().contains(&"i2/1/opened".to_owned()).then_some(())
    });
    {
        let posts = posts.lock().unwrap();
        let (_, _, body) = posts
            .iter()
            .find(|(key, _, _)| key == "i2/1/opened")
            .unwrap();
        assert_eq!(body["incident"]["kind"], "connector_paused");
        assert_eq!(body["incident"]["object"], "up");
        let text = body.to_string();
        assert!(
            text.contains("…@corp.example") && !text.contains("kim@"),
            "{text}"
        );
    }
    let (status, listed) = ask(port, "GET /api/v1/incidents?state=open", "");
    assert_eq!(
        (status, &listed["items"][0]["id"], &listed["next"]),
        (200, &json!("i2"), &Value::Null),
        "{listed}"
    );
    assert_eq!(ask(port, "GET /api/v1/incidents?state=shut", "").0, 400);
    let (status, part) = ask(port, "GET /api/v1/incidents?limit=1", "");
    assert_eq!(
        (status, &part["items"][0]["id"], &part["next"]),
        (200, &json!("i2"), &json!("2"))
    );
    let (status, part) = ask(port, "GET /api/v1/incidents?limit=1&cursor=2", "");
    assert_eq!(
        (status, &part["items"][0]["id"], &part["next"]),
        (200, &json!("i1"), &Value::Null)
    );
    assert_eq!(
        ask(port, "GET /api/v1/incidents/i2", "").1["kind"],
        "connector_paused"
    );
    assert_eq!(ask(port, "GET /api/v1/incidents/i99", "").0, 404);
    assert_eq!(ask(port, "POST /api/v1/incidents/i1/ack", "{}").0, 409);
    let (status, one) = ask(port, "POST /api/v1/incidents/i2/ack", "{\"note\":\"seen\"}");
    assert_eq!(
        (status, &one["state"], &one["note"]),
        (200, &json!("acknowledged"), &json!("seen"))
    );
    assert_eq!(ask(port, "POST /api/v1/notify/nobody/test", "{}").0, 404);
    let (status, tried) = ask(port, "POST /api/v1/notify/oncall/test", "{}");
    assert_eq!(
        (status, tried),
        (
            200,
            json!({"channel": "oncall", "ok": true, "result": "202"})
        )
    );
    assert_eq!(
        ask(port, "GET /api/v1/status", "").1["incidents"]["warning"],
        0
    );
    let acknowledged = stdout(&gateway.cli(&["incident", "ack", "i2", "--note", "Kim is at it"]));
    assert!(
        acknowledged.starts_with("i2 is acknowledged"),
        "{acknowledged}"
    );
    let listed = items(&gateway, &["incident", "list", "--json"]);
    assert_eq!(
        (&listed[0]["state"], &listed[0]["note"]),
        (&json!("acknowledged"), &json!("Kim is at it"))
    );
    let before = keys();
    gateway.kill();
    gateway.restart();
    stays("nothing is told twice", Duration::from_secs(5), || {
        keys() == before
    });
    assert_eq!(
        items(&gateway, &["incident", "list", "--json"])[0]["state"],
        "acknowledged"
    );
    for (args, code) in [
        (&["incident", "ack", "i99"][..], 1),
        (&["incident", "ack", "i1"], 1),
        (&["incident", "show", "x"], 64),
        (&["incident", "test", "nobody"], 64),
        (&["incident", "test", "oncall"], 0),
    ] {
        assert_eq!(gateway.cli(args).status.code(), Some(code), "{args:?}");
    }
    assert!(keys().last().unwrap().starts_with("test/"));
}
