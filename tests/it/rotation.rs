//! An application's certificate that the gateway replaces by itself, against a directory that lags, loses answers and refuses; the gateway is killed
//! before and after each call. Mail flows all the while.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    credentials::with_connector,
    harness::{
        cloud::error,
        directory::{Call, Directory, Mishap, pair},
        gateway::{Client, Gateway, signal, stdout, wait},
        postgres::Postgres,
        time::stays,
        upstream::{Act, Script},
    },
};

/// The certificates of others, which nobody may touch.
const OTHERS: [&str; 2] = ["somebody's", "postern 0badcafe (2026-01-01)"];

/// A gateway, its directory, and somebody who sends mail all the time.
struct Scene {
    gateway: Gateway,
    directory: Arc<Directory>,
    configured: Vec<u8>,
    address: Arc<Mutex<SocketAddr>>,
    pid: Arc<AtomicU32>,
    /// Whether a call has killed it.
    is_killed: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Scene {
    /// With an application's certificate that began so long ago, and ends then.
    fn start(days: (i64, i64), more: &str, lags: &[Duration], before: impl Fn(&Directory)) -> Self {
        let dir = TempDir::new().unwrap();
        let (files, configured) = pair(dir.path(), "app", days);
        let others = [
            pair(dir.path(), "one", (-10, 300)).1,
            pair(dir.path(), "other", (-10, 300)).1,
        ];
        let directory = Arc::new(Directory::start(
            &[
                (&others[0], OTHERS[0]),
                (&configured, "postern relay"),
                (&others[1], OTHERS[1]),
            ],
            lags,
        ));
        before(&directory);
        let connector = directory.connector("up", &files, more);
        fs::write(dir.path().join("config.toml"), with_connector(&connector)).unwrap();
        let gateway = Gateway::start_in(dir);
        let mut scene = Self {
            address: Arc::new(Mutex::new(gateway.address("local"))),
            pid: Arc::new(AtomicU32::new(gateway.pid())),
            gateway,
            directory,
            configured,
            is_killed: Arc::default(),
            taken: Arc::default(),
            is_over: Arc::default(),
            sender: None,
        };
        let (address, taken) = (scene.address.clone(), scene.taken.clone());
        let is_over = scene.is_over.clone();
        scene.sender = Some(std::thread::spawn(move || {
            let mut n = 0;
            while !is_over.load(Ordering::SeqCst) {
                n += 1;
                let subject = format!("n{n}");
                let to = *address.lock().unwrap();
                if transaction(to, &subject).is_some() {
                    taken.lock().unwrap().push(subject);
                }
                // So that two connections and a token every second are enough.
                std::thread::sleep(Duration::from_millis(60));
            }
        }));
        scene
    }

    /// `kill -9` in the middle of a call.
    fn killer(&self) -> Box<dyn FnOnce() + Send> {
        let (pid, is_killed) = (self.pid.clone(), self.is_killed.clone());
        Box::new(move || {
            signal(pid.load(Ordering::SeqCst), "KILL");
            is_killed.store(true, Ordering::SeqCst);
        })
    }

    /// Once it is killed it is started again.
    fn revive(&mut self) {
        wait("the call that kills it", || {
            self.is_killed.swap(false, Ordering::SeqCst).then_some(())
        });
        self.gateway.kill();
        self.gateway.restart();
        *self.address.lock().unwrap() = self.gateway.address("local");
        self.pid.store(self.gateway.pid(), Ordering::SeqCst);
    }

    fn credential(&self) -> Value {
        let out = self.gateway.cli(&["status", "--json"]).stdout;
        let status: Value = serde_json::from_slice(&out).unwrap_or_default();
        status["credentials"][0].clone()
    }

    fn is(&self, word: &str) -> Value {
        wait(&format!("the rotation is {word}"), || {
            Some(self.credential()).filter(|one| one["rotation"] == word)
        })
    }

    /// The keys that were added by this gateway.
    fn own(&self) -> Vec<Vec<u8>> {
        let keys = self.directory.keys();
        let own = keys.iter().filter(|key| {
            key.name != OTHERS[0] && key.name != OTHERS[1] && key.der != self.configured
        });
        own.map(|key| key.der.clone()).collect()
    }

    fn has_configured(&self) -> bool {
        let keys = self.directory.keys();
        keys.iter().any(|key| key.der == self.configured)
    }

    /// One valid key of ours is registered and in use, the one before is gone, and so is nobody else's.
    fn ends_with_one_key(&self) {
        wait("one key of ours, and the old one gone", || {
            let is_so = !self.has_configured() && self.own().len() == 1;
            is_so.then_some(())
        });
        let credential = self.is("waiting");
        assert!(credential["days"].as_i64().unwrap() > 80, "{credential}");
        assert_eq!(credential["why"], Value::Null, "{credential}");
        let names: Vec<_> = self
            .directory
            .keys()
            .into_iter()
            .map(|key| key.name)
            .collect();
        assert_eq!(
            (names.len(), &*names[0], &*names[1]),
            (3, OTHERS[0], OTHERS[1])
        );
        let stamp = names[2].strip_prefix("postern ").unwrap();
        let (instance, day) = stamp.split_once(" (20").unwrap();
        assert!(instance.len() == 8 && day.ends_with(')'), "{stamp}");
        // What is in use is what is registered.
        let to = TempDir::new().unwrap();
        let to = to.path().join("out");
        stdout(
            &self
                .gateway
                .cli(&["credentials", "export", "up", "--to", to.to_str().unwrap()]),
        );
        let pem = fs::read(to.join("up.pem")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        assert_eq!(vec![pem.contents], self.own());
    }

    /// All that was taken has arrived, and nothing had to wait for a certificate.
    fn no_mail_was_delayed(mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.sender.take().unwrap().join().unwrap();
        let taken = self.taken.lock().unwrap().clone();
        assert!(taken.len() > 20, "there was mail: {}", taken.len());
        wait("all mail", || {
            let mails = self.directory.mails();
            let arrived = |one: &String| mails.iter().any(|(subject, _)| subject == one);
            taken.iter().all(arrived).then_some(())
        });
        let mut seen = 0;
        for entry in fs::read_dir(self.gateway.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.starts_with("log.") {
                continue;
            }
            let log = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for word in [
                "deferred",
                "is paused",
                "paused",
                "closed",
                "misconfigured",
                "BEGIN",
                "PRIVATE",
            ] {
                let line = log.lines().find(|line| line.contains(word));
                assert_eq!(line, None, "{name}: {word}");
            }
            seen += 1;
        }
        assert!(seen > 0);
        let violations = self.directory.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

fn transaction(address: SocketAddr, subject: &str) -> Option<()> {
    let mut client = Client::try_connect(address).ok()?;
    let content = format!("From: p@corp.example\r\nSubject: {subject}\r\n\r\nb\r\n.\r\n");
    [
        ("", "220"),
        ("HELO x\r\n", "250"),
        ("MAIL FROM:<p@corp.example>\r\n", "250"),
        ("RCPT TO:<x@corp.example>\r\n", "250"),
        ("DATA\r\n", "354"),
        (&content, "250"),
    ]
    .into_iter()
    .all(|(said, code)| client.tries(said.as_bytes(), code))
    .then_some(())
}

/// Retired for a second more than the slowest node lags: before that, a gateway that needs a token would meet one that knows neither.
const ROTATE: &str = "rotate = true\nrotate_retire = \"4s\"";
const LAGS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(1_500),
    Duration::from_secs(3),
];

/// The certificate is replaced from half of its life on, and not before.
#[test]
fn a_certificate_is_replaced_from_half_of_its_life_on() {
    let young = std::thread::spawn(|| {
        let scene = Scene::start((-100, 120), ROTATE, &LAGS, |_| {});
        let credential = scene.is("waiting");
        let half = time::OffsetDateTime::now_utc() + time::Duration::days(10);
        let rotates = credential["rotates_at"].as_str().unwrap();
        assert!(
            rotates.starts_with(&half.date().to_string()),
            "{credential}"
        );
        let text = String::from_utf8(scene.gateway.cli(&["status"]).stdout).unwrap();
        let line = format!("credential  up certificate ends {}", day(119));
        let line = format!("{line} (in 119 days), rotates from {}", half.date());
        assert!(
            text.contains(&line) || text.contains("(in 119 days), rotates from"),
            "{text}"
        );
        // It is looked at five seconds after the start.
        stays("nobody was asked", Duration::from_secs(8), || {
            scene.directory.count(Call::Add) == 0 && scene.own().is_empty()
        });
        scene.no_mail_was_delayed();
    });
    let scene = Scene::start((-200, 150), ROTATE, &LAGS, |_| {});
    scene.ends_with_one_key();
    let calls = scene.directory.calls();
    let count = |call| calls.iter().filter(|(one, _)| *one == call).count();
    assert_eq!((count(Call::Add), count(Call::Remove)), (1, 1), "{calls:?}");
    // As long-lived as the one before.
    assert_eq!(scene.credential()["days"], 349);
    scene.no_mail_was_delayed();
    young.join().unwrap();
}

fn day(from_now: i64) -> String {
    (time::OffsetDateTime::now_utc() + time::Duration::days(from_now))
        .date()
        .to_string()
}

/// Killed before and after each call, and with each answer lost: in the end one valid key is in use, and nobody waited for it.
#[test]
fn a_rotation_that_is_killed_at_any_call_ends_with_one_key() {
    let scenes: Vec<_> = [Call::Add, Call::NewToken, Call::Read, Call::Remove]
        .into_iter()
        .flat_map(|call| [(call, "before"), (call, "after"), (call, "cut")])
        .map(|(call, when)| {
            std::thread::Builder::new()
                .name(format!("{when} {call:?}"))
                .spawn(move || {
                    let mut scene = Scene::start((-400, 200), ROTATE, &LAGS, |_| {});
                    let mishap = match when {
                        "before" => Mishap::Before(scene.killer()),
                        "after" => Mishap::After(scene.killer()),
                        _ => Mishap::Cut,
                    };
                    // Where the token was asked for mail it was the old one.
                    scene.directory.mishap(call, mishap);
                    if when != "cut" {
                        scene.revive();
                    }
                    scene.ends_with_one_key();
                    scene.no_mail_was_delayed();
                })
                .unwrap()
        })
        .collect();
    let failed: Vec<String> = scenes
        .into_iter()
        .filter_map(|scene| {
            let name = scene.thread().name().unwrap_or_default().to_owned();
            scene.join().is_err().then_some(name)
        })
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// What refuses: the old one goes on, somebody is told, and it is tried again when somebody asks for it.
#[test]
fn a_directory_that_refuses_changes_nothing_and_is_asked_again() {
    let page = || {
        (
            200,
            "X-Page: 1\r\n".to_owned(),
            "<html>Log in</html>".to_owned(),
        )
    };
    let blocked = || (403, String::new(), "<html>Blocked</html>".to_owned());
    // By the client ID, and by the object ID.
    let denied = || error(403, "Authorization_RequestDenied", "");
    let all = [
        (
            vec![error(429, "TooManyRequests", "Retry-After: 30\r\n")],
            "429",
        ),
        (vec![error(503, "ServiceUnavailable", "")], "503"),
        (vec![denied(), denied()], "Authorization_RequestDenied"),
    ];
    let mut scenes = Vec::new();
    for (said, words) in all {
        scenes.push(std::thread::spawn(move || {
            let scene = Scene::start((-400, 20), ROTATE, &LAGS, |directory| {
                for said in said.clone() {
                    directory.mishap(Call::Add, Mishap::Said(said));
                }
            });
            let credential = scene.is("failed");
            assert!(
                credential["why"].as_str().unwrap().contains(words),
                "{credential}"
            );
            assert!(scene.has_configured() && scene.own().is_empty());
            // It ends soon: somebody is needed at once.
            let incident = wait("the incident", || {
                let all = scene.gateway.cli(&["incident", "list", "--json"]).stdout;
                let all: Value = serde_json::from_slice(&all).ok()?;
                let all = all.as_array().or(all["items"].as_array())?.clone();
                all.into_iter().find(|one| one["kind"] == "rotation_failed")
            });
            assert_eq!(incident["severity"], "critical", "{incident}");
            assert!(
                incident["evidence"][0].as_str().unwrap().contains(words),
                "{incident}"
            );
            let adds = scene.directory.count(Call::Add);
            stays(
                "it is left alone for an hour",
                Duration::from_secs(3),
                || scene.directory.count(Call::Add) == adds,
            );
            let said = stdout(&scene.gateway.cli(&["credentials", "rotate", "up"]));
            assert!(
                said.contains("up has a new certificate, which ends"),
                "{said}"
            );
            scene.ends_with_one_key();
            scene.no_mail_was_delayed();
        }));
    }
    // What a proxy answers in its place is no verdict: what was asked may have been done, or not.
    for said in [page(), blocked()] {
        scenes.push(std::thread::spawn(move || {
            let is_page = said.0 == 200;
            let scene = Scene::start((-400, 20), ROTATE, &LAGS, |directory| {
                directory.mishap(Call::Add, Mishap::Said(said.clone()));
            });
            if !is_page {
                scene.is("failed");
                stdout(&scene.gateway.cli(&["credentials", "rotate", "up"]));
            }
            scene.ends_with_one_key();
            scene.no_mail_was_delayed();
        }));
    }
    for scene in scenes {
        scene.join().unwrap();
    }
}

/// A tenant that wants the object ID in a proof; and one that lets nobody read the entry, so that the configured certificate stays.
#[test]
fn proofs_are_from_whom_the_directory_wants_and_what_may_not_be_read_is_left() {
    let object = std::thread::spawn(|| {
        let scene = Scene::start((-400, 20), ROTATE, &LAGS, Directory::wants_object_id);
        wait("one key", || {
            (!scene.has_configured() && scene.own().len() == 1).then_some(())
        });
        scene.is("waiting");
        // The first try of each is by the client ID.
        let violations = scene.directory.violations();
        assert!(
            violations.iter().all(|one| one.contains("InvalidIssuer")),
            "{violations:?}"
        );
    });
    let nameless = std::thread::spawn(|| {
        let scene = Scene::start((-400, 20), ROTATE, &LAGS, Directory::forget_thumbprints);
        wait("it says that the old one stays", || {
            let credential = scene.credential();
            let why = credential["why"].as_str()?;
            (credential["rotation"] == "waiting" && why.contains("stays registered")).then_some(())
        });
        assert!(scene.has_configured() && scene.own().len() == 1);
        scene.no_mail_was_delayed();
    });
    let scene = Scene::start((-400, 20), ROTATE, &LAGS, Directory::hide);
    wait("a new key", || (scene.own().len() == 1).then_some(()));
    let credential = wait("it waits again", || {
        Some(scene.credential())
            .filter(|one| one["rotation"] == "waiting" && one["why"] != Value::Null)
    });
    let why = credential["why"].as_str().unwrap();
    assert!(
        why.contains(&format!("stays registered until {}", day(20))),
        "{why}"
    );
    assert!(scene.has_configured(), "it may not be told from others");
    // The directory said what ours is called, so that the next one takes its place.
    let first = scene.own();
    stdout(&scene.gateway.cli(&["credentials", "rotate", "up"]));
    wait("ours is replaced", || {
        let own = scene.own();
        (own.len() == 1 && own != first).then_some(())
    });
    scene.is("waiting");
    assert!(scene.has_configured());
    // Twice is once: what is replaced now is replaced already while the one before retires.
    scene.no_mail_was_delayed();
    nameless.join().unwrap();
    object.join().unwrap();
}

/// Another certificate in the file wins over what was kept for the one before; without `rotate` the one in use stays in use.
#[test]
fn another_configured_certificate_wins_and_two_connectors_are_one_credential() {
    let dir = TempDir::new().unwrap();
    let (first, first_der) = pair(dir.path(), "first", (-400, 20));
    let (second, second_der) = pair(dir.path(), "second", (-5, 400));
    let directory = Directory::start(
        &[(&first_der, "postern relay"), (&second_der, "by hand")],
        &LAGS,
    );
    let text = |pair: &(String, String), more: &str| {
        // One tenant has its ID and many names; the directory checks assertions against the address that they came to.
        let other = directory.connector("more", pair, more);
        let other = other.replace("\"corp.example\"", "\"corp.onmicrosoft.com\"");
        let both = directory.connector("up", pair, more) + &other;
        with_connector(&both)
    };
    fs::write(dir.path().join("config.toml"), text(&first, ROTATE)).unwrap();
    let gateway = Gateway::start_in(dir);
    let listed = || -> Vec<Value> {
        let out = stdout(&gateway.cli(&["credentials", "--json"]));
        let all: Value = serde_json::from_str(&out).unwrap();
        all["credentials"].as_array().unwrap().clone()
    };
    wait("both connectors have the new one", || {
        let all = listed();
        let is_new = |one: &Value| one["rotation"] == "waiting" && one["days"].as_i64() > Some(80);
        (all.len() == 2 && all.iter().all(is_new)).then_some(())
    });
    assert_eq!(directory.count(Call::Add), 1);
    assert!(!directory.keys().iter().any(|key| key.der == first_der));
    let sends = |what: &str| {
        let before = directory.mails().len();
        wait(what, || transaction(gateway.address("local"), what));
        wait(what, || (directory.mails().len() > before).then_some(()));
    };
    // Off again: the configured one is registered no more.
    fs::write(gateway.config_path(), text(&first, "")).unwrap();
    stdout(&gateway.cli(&["reload"]));
    sends("off");
    assert!(
        listed()
            .iter()
            .all(|one| one["rotation"] == "off" && one["days"].as_i64() > Some(80))
    );
    let output = gateway.cli(&["credentials", "rotate", "up"]);
    assert_eq!(output.status.code(), Some(78));
    // Export does not overwrite.
    let to = gateway.path("out");
    let export = || gateway.cli(&["credentials", "export", "up", "--to", to.to_str().unwrap()]);
    let paths = stdout(&export());
    assert!(
        paths.contains("up.key") && paths.contains("up.pem"),
        "{paths}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(to.join("up.key")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(export().status.code(), Some(73));
    // The other certificate: nothing is known of it, and it is young.
    fs::write(gateway.config_path(), text(&second, ROTATE)).unwrap();
    stdout(&gateway.cli(&["reload"]));
    sends("another");
    wait("the other one is in use", || {
        let all = listed();
        let is_other = |one: &Value| one["rotation"] == "waiting" && one["days"] == 399;
        all.iter().all(is_other).then_some(())
    });
    let tokens = directory.keys();
    assert!(tokens.iter().any(|key| key.der == second_der));
    for (args, code, words) in [
        (
            vec!["credentials", "rotate", "nobody"],
            64,
            "there is no connector named",
        ),
        (vec!["credentials", "export", "up"], 64, "--to"),
    ] {
        let output = gateway.cli(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let violations = directory.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

const OLD: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
const NEW: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n";

/// Gateways on one queue, which log in at an SMTP server with the same certificate.
struct Company {
    _dir: TempDir,
    directory: Directory,
    cluster: Cluster,
}

impl Company {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (files, configured) = pair(dir.path(), "app", (-400, 20));
        let directory = Directory::start(&[(&configured, "postern relay")], &LAGS);
        let url = directory.endpoint.url("");
        let connector = format!(
            "auth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", mailbox = \"p@corp.example\", tenant_id = \"corp.example\", \
             client_id = \"{}\", certificate = \"{}\", key = \"{}\", rotate = true, rotate_retire = \"1s\", login_url = \"{url}\", graph_url = \"{url}\" }}\n",
            super::harness::directory::CLIENT,
            files.0,
            files.1
        );
        let sink = Script::default()
            .offers("AUTH_XOAUTH2")
            .at("AUTH", Act::says("235 2.7.0 ok"))
            .at("EOD", Act::Leaves("421 4.3.2 one message each"))
            .start();
        let cluster = Cluster {
            sink,
            ..Cluster::new(Postgres::shared(), Box::leak(connector.into_boxed_str()))
        };
        Self {
            _dir: dir,
            directory,
            cluster,
        }
    }

    fn member(&self, name: &str) -> Gateway {
        let dir = TempDir::new().unwrap();
        let config = self.cluster.config(name) + "key = { file = \"cluster-key\" }\n";
        fs::write(dir.path().join("config.toml"), config).unwrap();
        fs::write(dir.path().join("cluster-key"), OLD).unwrap();
        Gateway::start_in(dir)
    }

    /// What lies in the database of the certificate.
    fn kept(&self) -> String {
        let schema = &self.cluster.schema;
        let row = format!("SELECT value FROM {schema}.note WHERE starts_with(key, 'rotation of')");
        Postgres::shared().sql("postern", &row)
    }
}

fn in_use(gateway: &Gateway) -> bool {
    let out = stdout(&gateway.cli(&["credentials", "--json"]));
    let all: Value = serde_json::from_str(&out).unwrap();
    let one = &all["credentials"][0];
    one["rotation"] == "waiting" && one["days"].as_i64() > Some(80)
}

/// One of two gateways is stopped in the middle of a replacement, for longer than it has the row to itself; the other goes on and ends it. Once the
/// first one runs again it must not write what it last knew over that.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_gateway_that_slept_does_not_write_over_what_another_has_replaced() {
    let company = Company::new();
    let (directory, pid) = (&company.directory, Arc::new(AtomicU32::new(0)));
    let is_asleep = Arc::new(AtomicBool::new(false));
    let (sleeper, told) = (pid.clone(), is_asleep.clone());
    directory.mishap(
        Call::Add,
        Mishap::Before(Box::new(move || {
            signal(sleeper.load(Ordering::SeqCst), "STOP");
            told.store(true, Ordering::SeqCst);
        })),
    );
    let first = company.member("relay-a");
    pid.store(first.pid(), Ordering::SeqCst);
    wait("it is asleep", || {
        is_asleep.load(Ordering::SeqCst).then_some(())
    });
    let schema = &company.cluster.schema;
    let over = format!(
        "DELETE FROM {schema}.note WHERE starts_with(key, 'lease of rotation of') RETURNING 1"
    );
    assert_eq!(Postgres::shared().sql("postern", &over), "1");
    let second = company.member("relay-b");
    wait("the other one has replaced it", || {
        in_use(&second).then_some(())
    });
    let (ended, keys) = (company.kept(), directory.keys());
    assert_eq!(keys.len(), 1);
    signal(first.pid(), "CONT");
    // Either it sees what the other one has written, or its question has run out while it slept.
    wait("it knows that what it asked is of no use any more", || {
        first.log().contains("rotation not looked at").then_some(())
    });
    assert_eq!(company.kept(), ended);
    assert!(in_use(&first) && in_use(&second));
    assert_eq!(directory.count(Call::Remove), 1);
    for gateway in [&first, &second] {
        stdout(&gateway.cli(&["check", "--connect"]));
    }
}

/// Two gateways on one queue, which log in at an SMTP server with the same certificate: it is replaced once, lies sealed in the database, and stays
/// readable when the key that seals it is changed.
#[test]
#[ignore = "needs PostgreSQL"]
fn two_gateways_replace_one_certificate_once_and_keep_it_sealed() {
    let company = Company::new();
    let (directory, cluster) = (&company.directory, &company.cluster);
    let members = [company.member("relay-a"), company.member("relay-b")];
    for gateway in &members {
        wait("the new one", || in_use(gateway).then_some(()));
    }
    assert_eq!(
        (directory.count(Call::Add), directory.count(Call::Remove)),
        (1, 1)
    );
    assert_eq!(directory.keys().len(), 1);
    let kept = || company.kept();
    let sealed = kept();
    assert!(
        sealed.starts_with("sealed ") && !sealed.contains("PRIVATE"),
        "{sealed}"
    );
    // All can open what the new key seals before anybody seals with it; then it is sealed anew by itself.
    let changes = |keys: &str| {
        for gateway in &members {
            fs::write(gateway.path("cluster-key"), keys).unwrap();
            stdout(&gateway.cli(&["reload"]));
        }
    };
    changes(&(OLD.to_owned() + NEW));
    changes(&(NEW.to_owned() + OLD));
    wait("it is sealed by the new key", || {
        (kept() != sealed).then_some(())
    });
    changes(NEW);
    let sent = cluster.sink.count();
    for (at, gateway) in members.iter().enumerate() {
        stdout(&gateway.cli(&["check", "--connect"]));
        assert!(in_use(gateway));
        assert!(super::cluster::send(gateway, "m"), "{}", gateway.log());
        wait("the mail", || {
            (cluster.sink.count() > sent + at).then_some(())
        });
        assert!(!gateway.log().contains("PRIVATE"), "{}", gateway.log());
    }
    let violations = directory.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

/// What a gateway replaced while it was alone is in use as well where it shares a queue, and when it is alone again.
#[test]
#[ignore = "needs PostgreSQL"]
fn what_was_replaced_goes_along_to_a_shared_queue_and_back() {
    let dir = TempDir::new().unwrap();
    let (files, configured) = pair(dir.path(), "app", (-400, 20));
    let directory = Directory::start(&[(&configured, "postern relay")], &LAGS);
    let connector = directory.connector("up", &files, ROTATE);
    let cluster = Cluster::new(
        Postgres::shared(),
        Box::leak(connector.clone().into_boxed_str()),
    );
    let shared = cluster.config("relay-a");
    let (_, sections) = shared.split_once("[queue]").unwrap();
    let shared = with_connector(&format!(
        "{connector}[queue]{sections}key = {{ file = \"cluster-key\" }}\n"
    ));
    let back = shared.replace("store = \"postgres\"", "store = \"sqlite\"");
    let write = |gateway: &Gateway, text: &str| fs::write(gateway.config_path(), text).unwrap();
    fs::write(dir.path().join("config.toml"), with_connector(&connector)).unwrap();
    fs::write(dir.path().join("cluster-key"), OLD).unwrap();
    let mut gateway = Gateway::start_in(dir);
    wait("the new one", || {
        let keys = directory.keys();
        (keys.len() == 1 && keys[0].der != configured).then_some(())
    });
    let sends = |gateway: &Gateway, what: &str| {
        wait(what, || transaction(gateway.address("local"), what));
        wait(what, || {
            let mails = directory.mails();
            mails
                .iter()
                .any(|(subject, _)| subject == what)
                .then_some(())
        });
        assert!(!gateway.log().contains("paused"), "{}", gateway.log());
    };
    assert_eq!(gateway.terminate(), 0);
    write(&gateway, &shared);
    gateway.restart();
    sends(&gateway, "shared");
    let schema = &cluster.schema;
    let row = format!("SELECT value FROM {schema}.note WHERE starts_with(key, 'rotation of')");
    wait("it is sealed in the database", || {
        Postgres::shared()
            .sql("postern", &row)
            .starts_with("sealed ")
            .then_some(())
    });
    assert_eq!(gateway.terminate(), 0);
    write(&gateway, &back);
    stdout(&gateway.cli(&["queue", "move", "--from-postgres"]));
    assert_eq!(Postgres::shared().sql("postern", &row), "");
    gateway.restart();
    sends(&gateway, "alone");
    assert_eq!((directory.count(Call::Add), directory.keys().len()), (1, 1));
}

/// The refresh token of a mailbox ends ninety days after its last use, which the store remembers.
#[tokio::test]
async fn the_last_use_of_a_refresh_token_is_remembered() {
    use super::harness::cloud_token::{Endpoint, granted};
    use postern::connector::{http::HttpSettings, oauth};
    #[derive(Default)]
    struct Kept(Mutex<std::collections::HashMap<String, String>>);
    #[async_trait::async_trait]
    impl oauth::TokenStore for Kept {
        async fn load(&self, key: &str) -> Result<Option<String>, String> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }
        async fn save(&self, key: &str, value: String) -> Result<(), String> {
            self.0.lock().unwrap().insert(key.to_owned(), value);
            Ok(())
        }
        async fn replace(&self, _: &str, _: Option<String>, _: String) -> Result<bool, String> {
            Err("nothing is replaced here".to_owned())
        }
    }
    let endpoint = Endpoint::start(|_| granted("access", 3_599));
    let settings = oauth::Settings {
        token_url: endpoint.url("/t"),
        scope: "s".to_owned(),
        grant: oauth::Grant::RefreshToken {
            client_id: "app".to_owned(),
            client_secret: None,
            refresh_token: postern::secret::Secret::new("configured"),
        },
        secret_ends: None,
        rotation: None,
        http: HttpSettings {
            allowed_hosts: vec!["*".to_owned()],
            ..HttpSettings::default()
        },
    };
    let store: Arc<dyn oauth::TokenStore> = Arc::new(Kept::default());
    assert_eq!(oauth::last_use(&settings, &store).await, Ok(None));
    let source = oauth::TokenSource::new("up", &settings, Some(store.clone())).unwrap();
    let soon = tokio::time::Instant::now() + Duration::from_secs(20);
    let before = std::time::SystemTime::now() - Duration::from_secs(2);
    source.token(soon).await.unwrap();
    let used = oauth::last_use(&settings, &store).await.unwrap().unwrap();
    assert!((before..=std::time::SystemTime::now()).contains(&used));
}
