//! The loop of delivery, over a store in memory and connectors that follow a script.

use crate::harness::time::{stays_so, until};
use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use postern::{
    connector::{self, Connector, Kind, Rate},
    delivery::{
        BounceSettings, Delivery, Settings, Setup,
        clock::{Clock, Moment},
    },
    gateway::report::verbs,
    mail::{
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{LaneState, Obstacle, ObstacleKind, Onward, Outcome},
        pattern::Pattern,
        recipient::{DsnWish, Notify, Recipient, ReportWish},
        reply::Reply,
    },
    policy::{
        quota::{Beyond, CountedBy, Quota},
        scope::Scope,
    },
    queue::{
        Queue,
        store::{Filter, JobState, RecipientState, Store, Verb},
    },
    route::{Route, RouteName, Routed, Router},
};

use tokio::time::Instant;

use crate::{
    fixture::{address, policy, route},
    harness::memory::{Act, Memory, Row, Scripted},
};

const STEP: Duration = Duration::from_millis(40);

/// The clocks of a machine on which no time passes but that of tokio, which is paused: it goes on when all wait for it. So nothing in
/// a test hangs on how busy this machine is.
#[derive(Debug)]
struct PausedClock {
    started: (Instant, SystemTime),
    /// By how much it is set, and after how many questions.
    step: Mutex<Option<(usize, Duration)>>,
}

impl PausedClock {
    fn new() -> Arc<Self> {
        let started = (Instant::now(), SystemTime::now());
        Arc::new(Self {
            started,
            step: Mutex::default(),
        })
    }

    /// It is set on by that much before it answers the question after so many others.
    fn set_after(&self, questions: usize, by: Duration) {
        *self.step.lock().unwrap() = Some((questions, by));
    }

    /// Whether it was set.
    fn is_set(&self) -> bool {
        self.step.lock().unwrap().is_some_and(|(left, _)| left == 0)
    }
}

impl Clock for PausedClock {
    fn wall(&self) -> SystemTime {
        self.moment().wall
    }

    fn moment(&self) -> Moment {
        let boot = self.started.0.elapsed();
        let mut wall = self.started.1 + boot;
        if let Some((left, by)) = &mut *self.step.lock().unwrap() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                wall += *by;
            }
        }
        Moment { wall, boot }
    }
}

struct World {
    clock: Arc<PausedClock>,
    store: Arc<Memory>,
    queue: Arc<Queue>,
    delivery: Delivery,
}

/// Settings of a test.
#[derive(Clone)]
struct Plan {
    retry: Duration,
    probe: Duration,
    give_up: Duration,
    concurrent: usize,
    rate: Option<Rate>,
    route: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            retry: STEP,
            probe: Duration::from_mins(1),
            give_up: Duration::from_mins(10),
            concurrent: 4,
            rate: None,
            route: "all",
        }
    }
}

fn setup(connectors: &[(&str, &Arc<Scripted>)], plan: &Plan) -> Setup {
    let names: Vec<&str> = connectors.iter().map(|(name, _)| *name).collect();
    Setup {
        router: Router {
            routes: vec![Route {
                retry: vec![plan.retry],
                give_up: plan.give_up,
                ..route(plan.route, &names)
            }],
            archives: Vec::new(),
        },
        connectors: connectors
            .iter()
            .map(|(name, scripted)| {
                let settings = connector::Settings {
                    name: (*name).into(),
                    max_concurrent: plan.concurrent,
                    is_concurrency_given: true,
                    probe: plan.probe,
                    rate: plan.rate,
                    timeout: Duration::from_secs(5),
                    max_recipients: 100,
                    kind: Kind::Discard,
                };
                (settings, Arc::clone(scripted) as Arc<dyn Connector>)
            })
            .collect(),
        policy: policy("corp.example", "partner.example"),
        settings: Settings {
            in_doubt_wait: STEP * 3,
            bounce: BounceSettings {
                to_sender: true,
                from: address("postmaster@relay.example"),
                is_from_given: false,
                copy_to: Vec::new(),
                delay_notice: None,
                full_limit: 1024 * 1024,
                hostname: "relay.example".into(),
            },
        },
        keep_failed: Duration::from_hours(1),
        keep_history: Duration::from_hours(1),
    }
}

fn world(connectors: &[(&str, &Arc<Scripted>)], plan: &Plan) -> World {
    world_over(Memory::strict(), connectors, plan)
}

fn world_over(store: Arc<Memory>, connectors: &[(&str, &Arc<Scripted>)], plan: &Plan) -> World {
    let queue = Arc::new(Queue::new(
        Arc::clone(&store) as Arc<dyn postern::queue::store::Store>
    ));
    let clock = PausedClock::new();
    let by = Arc::clone(&clock) as Arc<dyn Clock>;
    let delivery = Delivery::start_by(by, Arc::clone(&queue), setup(connectors, plan));
    World {
        clock,
        store,
        queue,
        delivery,
    }
}

fn mail(recipients: &[&str], now: SystemTime) -> Routed {
    let recipients: Vec<Recipient> = recipients
        .iter()
        .map(|local| address(&format!("{local}@partner.example")).into())
        .collect();
    Routed {
        message: Arc::new(Message {
            id: MessageId::new(now, fastrand::u128(..)),
            envelope: Envelope {
                sender: Some(address("app@corp.example")),
                recipients: recipients.clone(),
                eight_bit: false,
                dsn: None,
            },
            origin: Origin {
                listener: "local".into(),
                peer: "127.0.0.1:5".parse().unwrap(),
                client: None,
                helo: "app".into(),
                tls: false,
                esmtp: true,
                utf8: false,
                user: None,
                at: now,
                rules: Vec::new(),
                copy_of: None,
            },
            header: Bytes::from_static(
                b"From: app@corp.example\r\nMessage-ID: <1@corp.example>\r\n",
            ),
            body: Body::Memory(Bytes::from_static(b"hello\r\n")),
        }),
        jobs: vec![(RouteName::from("all"), recipients)],
        copies: Vec::new(),
    }
}

impl World {
    async fn accept(&self, recipients: &[&str]) {
        let now = self.clock.wall();
        let mail = mail(recipients, now);
        self.queue.accept(mail, &[], now).await.unwrap();
    }

    /// Of some of whom the sender wants to hear; each a job of its own.
    async fn accept_asking(&self, recipients: &[(&str, &str)], is_apart: bool) {
        let now = self.clock.wall();
        let locals: Vec<&str> = recipients.iter().map(|(local, _)| *local).collect();
        let mut mail = mail(&locals, now);
        let message = Arc::make_mut(&mut mail.message);
        message.envelope.dsn = Some(ReportWish {
            content: None,
            id: Some("QQ1".into()),
        });
        for (recipient, (_, notify)) in message.envelope.recipients.iter_mut().zip(recipients) {
            recipient.dsn = Some(DsnWish {
                notify: Notify::parse(notify),
                original: None,
            });
        }
        let all = message.envelope.recipients.clone();
        let route = RouteName::from("all");
        mail.jobs = if is_apart {
            all.into_iter()
                .map(|one| (route.clone(), vec![one]))
                .collect()
        } else {
            vec![(route, all)]
        };
        self.queue.accept(mail, &[], now).await.unwrap();
    }

    /// What each report says: whom it is to, its subject, and what it says of whom.
    fn reports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in self.store.rows() {
            let message = &row.job.message;
            if message.envelope.sender.is_some() {
                continue;
            }
            let Body::Memory(body) = &message.body else {
                panic!("in memory")
            };
            let body = String::from_utf8(body.to_vec()).unwrap();
            let mut of: Vec<String> = Vec::new();
            for line in body.split("\r\n") {
                if let Some(to) = line.strip_prefix("Final-Recipient: rfc822; ") {
                    of.push(to.split('@').next().unwrap().to_owned());
                }
                if let Some(action) = line.strip_prefix("Action: ") {
                    let last = of.last_mut().unwrap();
                    *last = format!("{last} {action}");
                }
            }
            assert!(body.contains("Original-Envelope-Id: QQ1\r\n"), "{body}");
            let to = &message.envelope.recipients[0];
            assert_eq!(to.notify(), Some(Notify::NEVER), "a report asks for none");
            found.push(format!("{}: {}", to.address.local(), of.join(", ")));
        }
        found.sort();
        found
    }
}

fn down() -> Act {
    Act::Obstacle(Obstacle::new(
        ObstacleKind::Down,
        Reply::new(451, (4, 4, 1), "connection refused"),
    ))
}

fn wrong_password() -> Obstacle {
    let reply = Reply::new(535, (5, 7, 8), "wrong password");
    Obstacle::new(ObstacleKind::Misconfigured, reply)
}

fn deferred() -> Outcome {
    Outcome::Deferred {
        reply: Reply::new(450, (4, 2, 1), "later"),
        retry_after: None,
    }
}

fn refused() -> Outcome {
    Outcome::Failed(Reply::new(550, (5, 1, 1), "no such user"))
}

/// What a quota holds is never sent by itself: released it goes out, and what nobody releases in time has failed, and its sender is told.
#[tokio::test(start_paused = true)]
async fn what_a_quota_holds_is_released_or_bounced_in_the_end() {
    let out = Scripted::new("out", []);
    let plan = Plan::default();
    let mut setup = setup(&[("out", &out)], &plan);
    setup.policy.quotas = vec![Quota {
        name: "erp".into(),
        scope: Scope::default(),
        per: CountedBy::Sender,
        most: 1,
        window: Duration::from_hours(1),
        over: Beyond::Hold,
        hold_for: Duration::from_mins(3),
    }];
    let store = Memory::strict();
    let queue = Arc::new(Queue::new(Arc::clone(&store) as Arc<dyn Store>));
    let clock = PausedClock::new();
    let by = Arc::clone(&clock) as Arc<dyn Clock>;
    let delivery = Delivery::start_by(by, Arc::clone(&queue), setup);
    let hold = async |local: &str, quota: &str| {
        let now = clock.wall();
        let held = [(RouteName::from("all"), format!("quota {quota}"))];
        let mail = mail(&[local], now);
        queue.accept(mail, &held, now).await.unwrap();
    };
    hold("released", "erp").await;
    hold("kept", "erp").await;
    // Of one that is no longer configured nobody knows for how long.
    hold("gone", "gone").await;
    stays_so("nothing is sent", Duration::from_mins(2), || {
        out.count() == 0
    })
    .await;
    let filter = Filter {
        recipient: Some(Pattern::parse("released@*").unwrap()),
        held_by: Some("quota erp".into()),
        ..Filter::default()
    };
    let released = store.command(&filter, &Verb::Release, clock.wall()).await;
    assert_eq!(released.unwrap(), 1);
    queue.was_operated();
    until("released", async || {
        store.state("released@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!(out.count(), 1);
    until("a bounce", async || out.count() == 2).await;
    assert_eq!(store.state("kept@partner.example").unwrap(), "failed");
    let calls = out.calls.lock().unwrap().clone();
    let bounce = &calls[1].message;
    assert_eq!(calls[1].recipients, ["app@corp.example"]);
    assert_eq!(bounce.envelope.sender, None);
    let Body::Memory(body) = &bounce.body else {
        panic!()
    };
    let body = String::from_utf8_lossy(body);
    for words in [
        "Status: 5.7.1",
        "held by quota erp and not released within 3m",
        "kept@partner.example",
    ] {
        assert!(body.contains(words), "{words}: {body}");
    }
    stays_so("and no more", Duration::from_mins(10), || out.count() == 2).await;
    assert_eq!(store.state("gone@partner.example").unwrap(), "waiting");
    delivery.drain(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn each_recipient_by_itself() {
    let out = Scripted::new(
        "out",
        [Act::Mixed(vec![("no", refused()), ("later", deferred())])],
    );
    let world = world(&[("out", &out)], &Plan::default());
    world.accept(&["yes", "no", "later"]).await;
    until("a retry and a bounce", async || out.count() == 3).await;
    until("all settled", async || {
        world.store.rows().iter().all(|row| !row.is_leased())
    })
    .await;
    let mut seen = out.seen();
    seen.sort();
    assert_eq!(
        seen,
        [
            vec!["app@corp.example".to_owned()],
            vec!["later@partner.example".to_owned()],
            vec![
                "yes@partner.example".to_owned(),
                "no@partner.example".to_owned(),
                "later@partner.example".to_owned()
            ],
        ]
    );
    assert_eq!(world.store.state("no@partner.example").unwrap(), "failed");
    assert_eq!(world.store.state("yes@partner.example").unwrap(), "done");
    assert_eq!(world.store.state("later@partner.example").unwrap(), "done");
    let calls = out.calls.lock().unwrap().clone();
    let bounce = calls
        .iter()
        .find(|call| call.recipients == ["app@corp.example"])
        .unwrap();
    assert_eq!(bounce.message.envelope.sender, None);
    stays_so("nothing twice", STEP * 3, || out.count() == 3).await;
    world.delivery.drain(Duration::from_secs(5)).await;
}

/// What became of them, and what was asked: one report of each kind, whoever else waits.
#[tokio::test(start_paused = true)]
async fn the_sender_hears_what_it_asked_for() {
    let mixed = || {
        vec![
            ("no", refused()),
            ("never", refused()),
            ("later", deferred()),
        ]
    };
    let asked = [
        ("yes", "SUCCESS"),
        ("also", "SUCCESS,FAILURE"),
        ("quiet", "FAILURE"),
        ("no", "FAILURE"),
        ("never", "NEVER"),
        ("later", "SUCCESS"),
    ];
    for (onward, expected) in [
        (Onward::Upstream(Vec::new()), &["app: no failed"][..]),
        (
            Onward::Relayed,
            &[
                "app: later relayed",
                "app: no failed",
                "app: yes relayed, also relayed",
            ],
        ),
        (
            Onward::Final,
            &[
                "app: later delivered",
                "app: no failed",
                "app: yes delivered, also delivered",
            ],
        ),
    ] {
        let out = Scripted::new("out", [Act::Mixed(mixed())]);
        *out.onward.lock().unwrap() = onward.clone();
        let world = world(&[("out", &out)], &Plan::default());
        world.accept_asking(&asked, false).await;
        until("all settled", async || {
            let rows = world.store.rows();
            out.count() == 2 + expected.len() && rows.iter().all(|row| !row.is_leased())
        })
        .await;
        assert_eq!(world.reports(), expected, "{onward:?}");
        stays_so("nothing more", STEP * 5, || {
            world.store.rows().len() == 1 + expected.len()
        })
        .await;
    }
}

/// It depends on who took it, not on who was asked; each job has a report of its own.
#[tokio::test(start_paused = true)]
async fn a_connector_that_takes_the_wishes_and_one_that_does_not() {
    for (takes_first, expected) in [
        (true, &[][..]),
        (false, &["app: a relayed", "app: b relayed"]),
    ] {
        let (first, second) = (Scripted::new("first", []), Scripted::new("second", []));
        *first.onward.lock().unwrap() = Onward::Upstream(Vec::new());
        if !takes_first {
            *first.otherwise.lock().unwrap() = down();
        }
        let world = world(&[("first", &first), ("second", &second)], &Plan::default());
        let asked = [("a", "SUCCESS"), ("b", "SUCCESS,DELAY"), ("c", "DELAY")];
        world.accept_asking(&asked, true).await;
        until("all done", async || {
            let rows = world.store.rows();
            rows.len() == 3 + expected.len() && rows.iter().all(|row| row.state == JobState::Done)
        })
        .await;
        assert_eq!(world.reports(), expected);
    }
}

/// In doubt is neither a success nor a failure, until the same connector says which.
#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_no_news() {
    let silent = Outcome::InDoubt(Reply::new(451, (4, 4, 2), "no answer"));
    let out = Scripted::new("out", [Act::Mixed(vec![("a", silent)])]);
    let world = world(&[("out", &out)], &Plan::default());
    world
        .accept_asking(&[("a", "SUCCESS,FAILURE")], false)
        .await;
    until("in doubt", async || {
        world.store.state("a@partner.example").as_deref() == Some("in doubt")
    })
    .await;
    assert!(world.reports().is_empty());
    until("told", async || !world.reports().is_empty()).await;
    assert_eq!(world.reports(), ["app: a relayed"]);
}

/// Whatever keeps it waiting, once a message, of all who wait and were asked for.
#[tokio::test(start_paused = true)]
async fn who_asked_hears_once_that_it_takes_long() {
    for is_down in [false, true] {
        let out = Scripted::new("out", []);
        *out.otherwise.lock().unwrap() = if is_down {
            down()
        } else {
            Act::Mixed(vec![
                ("a", deferred()),
                ("b", deferred()),
                ("c", deferred()),
            ])
        };
        let plan = Plan {
            retry: Duration::from_secs(20),
            ..Plan::default()
        };
        let world = world(&[("out", &out)], &plan);
        let mut setup = setup(&[("out", &out)], &plan);
        setup.settings.bounce.delay_notice = Some(Duration::from_mins(2));
        world.delivery.reload(setup);
        let asked = [
            ("a", "DELAY"),
            ("b", "SUCCESS,DELAY"),
            ("c", "FAILURE"),
            ("d", "DELAY"),
        ];
        world.accept_asking(&asked, true).await;
        stays_so("not yet", Duration::from_secs(115), || {
            world.reports().is_empty()
        })
        .await;
        until("told", async || !world.reports().is_empty()).await;
        let all = if is_down {
            "app: a delayed, b delayed, d delayed"
        } else {
            "app: a delayed, b delayed"
        };
        assert_eq!(world.reports(), [all], "{is_down}");
        stays_so("once", Duration::from_mins(5), || {
            world.reports().len() == 1
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_connector_now() {
    let first = Scripted::new("first", []);
    *first.otherwise.lock().unwrap() = down();
    let second = Scripted::new("second", []);
    let world = world(&[("first", &first), ("second", &second)], &Plan::default());
    world.accept(&["a"]).await;
    until("delivered by the second", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!((first.count(), second.count()), (1, 1));
    until("the row of the lane", async || {
        world
            .store
            .lane("first")
            .is_some_and(|l| l.state == LaneState::Closed)
    })
    .await;
    assert_eq!(world.store.rows()[0].job.attempts, 1);
    // Nothing waits, so nothing is probed: the next message is the probe.
    stays_so("no probe", STEP * 5, || first.count() == 1).await;
    *first.otherwise.lock().unwrap() = Act::Take;
    world.accept(&["b"]).await;
    until("delivered by the first", async || {
        world.store.state("b@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!((first.count(), second.count()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_closed_lane_probes_and_lets_all_go_oldest_first() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = down();
    let plan = Plan {
        concurrent: 1,
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["m0"]).await;
    until("closed", async || {
        world
            .store
            .lane("out")
            .is_some_and(|l| l.state == LaneState::Closed)
    })
    .await;
    for name in ["m1", "m2", "m3", "m4", "m5"] {
        world.accept(&[name]).await;
    }
    let before = out.count();
    let begun = Instant::now();
    stays_so("closed", STEP * 4, || true).await;
    let probes = out.count() - before;
    // A step is shortened by a fifth at most.
    let steps = begun.elapsed().div_duration_f64(STEP * 4 / 5) as usize;
    assert!((1..=steps + 1).contains(&probes), "one a step: {probes}");
    assert!(world.store.rows().iter().all(|row| row.job.attempts == 0));
    *out.otherwise.lock().unwrap() = Act::Take;
    let start = out.count();
    until("all delivered", async || {
        (0..6).all(|i| {
            world
                .store
                .state(&format!("m{i}@partner.example"))
                .as_deref()
                == Some("done")
        })
    })
    .await;
    let order: Vec<String> = out
        .seen()
        .into_iter()
        .skip(start)
        .map(|r| r[0][..2].to_owned())
        .collect();
    assert!(
        order.ends_with(&["m1", "m2", "m3", "m4", "m5"].map(String::from)),
        "{order:?}"
    );
    until("open", async || {
        world
            .store
            .lane("out")
            .is_some_and(|l| l.state == LaneState::Open)
    })
    .await;
}

/// However long the upstream was away, and whatever its messages' own steps are: all of it leaves about a minute after it is back.
#[tokio::test(start_paused = true)]
async fn mail_leaves_a_minute_after_the_upstream_is_back() {
    for away in [3, 40, 25 * 60, 4 * 3600] {
        let out = Scripted::new("out", []);
        *out.otherwise.lock().unwrap() = down();
        let plan = Plan {
            retry: Duration::from_hours(1),
            give_up: Duration::from_hours(24 * 7),
            ..Plan::default()
        };
        let world = world(&[("out", &out)], &plan);
        for n in 0..20 {
            world.accept(&[&format!("m{n}")]).await;
        }
        tokio::time::sleep(Duration::from_secs(away)).await;
        let vain = out.count() as u64;
        assert!(vain <= 4 + 7 + away / 54, "{away}: {vain} probes");
        *out.otherwise.lock().unwrap() = Act::Take;
        let back = Instant::now();
        until("all are out", async || {
            let rows = world.store.rows();
            let is_done = |row: &Row| row.recipients[0].state == RecipientState::Done;
            rows.iter().all(is_done)
        })
        .await;
        let after = back.elapsed();
        assert!(after <= Duration::from_secs(67), "{away}: {after:?}");
        for row in world.store.rows() {
            assert_eq!(row.job.attempts, 1, "a probe in vain is no attempt");
        }
    }
}

/// Whoever makes `probe` shorter does so because they are waiting.
#[tokio::test(start_paused = true)]
async fn a_reload_with_a_shorter_probe_shortens_the_wait_under_way() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = down();
    let hour = Duration::from_hours(1);
    let plan = Plan {
        retry: hour,
        probe: hour,
        give_up: hour * 24,
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    tokio::time::sleep(hour * 3).await;
    // The same once more changes nothing.
    let before = out.count();
    world.delivery.reload(setup(&[("out", &out)], &plan));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(out.count() <= before + 1);
    *out.otherwise.lock().unwrap() = Act::Take;
    let plan = Plan {
        probe: Duration::from_secs(10),
        ..plan
    };
    let reloaded = Instant::now();
    world.delivery.reload(setup(&[("out", &out)], &plan));
    until("it is out", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    let took = reloaded.elapsed();
    assert!(took <= Duration::from_secs(12), "{took:?}");
}

/// The clock is set by ten years while a deferred message becomes due: at each place where anybody asks what the time is.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_between_a_look_and_a_claim_gives_nothing_up() {
    let mut places = 0;
    loop {
        let out = Scripted::new(
            "out",
            // The second, too: whether it is given up is asked after one that was deferred.
            [deferred(), deferred()].map(|reply| Act::Mixed(vec![("a", reply)])),
        );
        let plan = Plan {
            retry: Duration::from_secs(3),
            give_up: Duration::from_hours(1),
            ..Plan::default()
        };
        let world = world(&[("out", &out)], &plan);
        world.accept(&["a"]).await;
        until("deferred", async || out.count() == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        world
            .clock
            .set_after(places + 1, Duration::from_hours(24 * 3650));
        until("over", async || {
            world.store.state("a@partner.example").as_deref() == Some("done")
        })
        .await;
        assert_eq!(out.count(), 3, "delivered: set before question {places}");
        let rows = world.store.rows();
        assert_eq!(rows.len(), 1, "no bounce: set before question {places}");
        if !world.clock.is_set() {
            break;
        }
        places += 1;
    }
    assert!(places >= 5, "{places}");
}

#[tokio::test(start_paused = true)]
async fn paused_is_never_given_up_and_probes_on_demand() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Obstacle(wrong_password());
    *out.login.lock().unwrap() = Err(wrong_password());
    let plan = Plan {
        give_up: Duration::from_millis(50),
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    until("paused", async || {
        world
            .store
            .lane("out")
            .is_some_and(|l| l.state == LaneState::Paused)
    })
    .await;
    stays_so("no try while it is paused", STEP * 5, || out.count() == 1).await;
    assert_eq!(world.store.rows().len(), 1, "no bounce");
    assert_eq!(world.store.state("a@partner.example").unwrap(), "waiting");

    world.delivery.reload(setup(&[("out", &out)], &plan));
    until("a login after the reload", async || {
        out.logins.load(Ordering::SeqCst) == 1
    })
    .await;
    *out.otherwise.lock().unwrap() = Act::Take;
    *out.login.lock().unwrap() = Ok(());
    // Rows are written by the loop; the wish must not be overwritten by the row of the first login.
    let is_waiting = || world.store.state("a@partner.example").as_deref() == Some("waiting");
    stays_so("no success yet", STEP, is_waiting).await;
    world.store.wish_probe("out", world.clock.wall());
    until("delivered", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!(out.logins.load(Ordering::SeqCst), 2);
}

/// What somebody has stopped is stopped: no time, reload, retry or start of the gateway sends by it, and nothing is given up.
#[tokio::test(start_paused = true)]
async fn stopped_is_never_given_up_and_only_a_start_ends_it() {
    let out = Scripted::new("out", []);
    let plan = Plan {
        give_up: Duration::from_millis(50),
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    let store = Arc::clone(&world.store) as Arc<dyn postern::queue::store::Store>;
    let up = "out".into();
    assert!(
        verbs::stop(store.as_ref(), &up, "stopped by kim", world.clock.wall())
            .await
            .unwrap()
    );
    assert!(
        !verbs::stop(store.as_ref(), &up, "again", world.clock.wall())
            .await
            .unwrap()
    );
    world.queue.was_operated();
    tokio::time::sleep(STEP).await;
    world.accept(&["a"]).await;
    let nothing = || out.count() == 0 && out.logins.load(Ordering::SeqCst) == 0;
    stays_so("nothing is tried", Duration::from_hours(2), nothing).await;
    assert_eq!(world.store.state("a@partner.example").unwrap(), "waiting");
    assert_eq!(world.store.rows().len(), 1, "no bounce");
    world.delivery.reload(setup(&[("out", &out)], &plan));
    verbs::carry_out(
        store.as_ref(),
        &Filter::default(),
        &Verb::Retry,
        None,
        world.clock.wall(),
    )
    .await
    .unwrap();
    world.queue.was_operated();
    stays_so("not by a reload or a retry", STEP * 20, nothing).await;
    let lane = world.store.lane("out").unwrap();
    assert_eq!(lane.state, LaneState::Stopped);
    assert_eq!((lane.why.as_str(), lane.probe), ("stopped by kim", None));

    world.delivery.drain(STEP).await;
    let queue = Arc::new(Queue::new(Arc::clone(&store)));
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let _delivery = Delivery::start_by(clock, Arc::clone(&queue), setup(&[("out", &out)], &plan));
    stays_so("not by a restart", Duration::from_hours(2), nothing).await;
    assert!(
        verbs::start(store.as_ref(), &up, world.clock.wall())
            .await
            .unwrap()
    );
    assert!(
        !verbs::start(store.as_ref(), &up, world.clock.wall())
            .await
            .unwrap()
    );
    queue.was_operated();
    until("sent", async || out.count() == 1).await;
    until("done", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
}

/// What is under way is finished, and says nothing of the lane; the next mail takes the next connector.
#[tokio::test(start_paused = true)]
async fn mail_passes_by_what_is_stopped() {
    let first = Scripted::new("first", []);
    let second = Scripted::new("second", []);
    let world = world(&[("first", &first), ("second", &second)], &Plan::default());
    let store = Arc::clone(&world.store) as Arc<dyn postern::queue::store::Store>;
    verbs::stop(store.as_ref(), &"first".into(), "moved", world.clock.wall())
        .await
        .unwrap();
    world.queue.was_operated();
    tokio::time::sleep(STEP).await;
    world.accept(&["a"]).await;
    until("the second takes it", async || second.count() == 1).await;
    assert_eq!(first.count(), 0);
}

/// A refusal of our standing that is said to one message alone: the login opens the connector again, and that message must not be
/// the first once more, or nobody else ever had a turn.
#[tokio::test(start_paused = true)]
async fn one_message_does_not_keep_a_connector_paused_for_all_others() {
    let refusal = || {
        Obstacle::new(
            ObstacleKind::Misconfigured,
            Reply::new(554, (5, 7, 1), "not from you"),
        )
    };
    let out = Scripted::new("out", [Act::Obstacle(refusal())]);
    let plan = Plan {
        concurrent: 1,
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["bad"]).await;
    let is_paused = || {
        world
            .store
            .lane("out")
            .is_some_and(|l| l.state == LaneState::Paused)
    };
    until("paused", async || is_paused()).await;
    let others = ["m1", "m2", "m3"];
    for local in others {
        world.accept(&[local]).await;
    }
    world.delivery.reload(setup(&[("out", &out)], &plan));
    until("all are out", async || {
        let is_done = |local: &&str| {
            let state = world.store.state(&format!("{local}@partner.example"));
            state.as_deref() == Some("done")
        };
        others.iter().chain(&["bad"]).all(is_done)
    })
    .await;
    let seen: Vec<String> = out.seen().into_iter().map(|r| r[0].clone()).collect();
    let names: Vec<&str> = seen.iter().filter_map(|r| r.split('@').next()).collect();
    assert_eq!(names, ["bad", "m1", "m2", "m3", "bad"]);
    world.delivery.drain(Duration::from_secs(5)).await;
}

/// The mailbox is refused to one message; what asks again, here after a reload, is another one.
#[tokio::test(start_paused = true)]
async fn a_refused_message_is_not_its_own_probe() {
    let refusal = Reply::new(550, (5, 7, 60), "not as this sender");
    let out = Scripted::new(
        "out",
        [Act::Obstacle(Obstacle::new(
            ObstacleKind::MailboxRefused,
            refusal,
        ))],
    );
    let plan = Plan::default();
    let world = world(&[("out", &out)], &plan);
    world.accept(&["bad"]).await;
    until("the mailbox is paused", async || {
        let lane = world.store.lane("out/app@corp.example");
        lane.is_some_and(|lane| lane.state == LaneState::Paused)
    })
    .await;
    for local in ["m1", "m2"] {
        world.accept(&[local]).await;
    }
    until("they wait in its lane", async || {
        let rows = world.store.rows();
        let waits = |lane: Option<&str>| lane == Some("out/app@corp.example");
        rows.len() == 3
            && rows.iter().all(|r| {
                !r.is_leased() && waits(r.job.lane.as_ref().map(ToString::to_string).as_deref())
            })
    })
    .await;
    assert_eq!(out.count(), 1);
    world.delivery.reload(setup(&[("out", &out)], &plan));
    until("the others are out", async || {
        let done = |r: &str| world.store.state(r).as_deref() == Some("done");
        done("m1@partner.example") && done("m2@partner.example")
    })
    .await;
    let seen: Vec<String> = out.seen().into_iter().map(|r| r[0].clone()).collect();
    assert_eq!(seen[1], "m1@partner.example", "{seen:?}");
    world.delivery.drain(Duration::from_secs(5)).await;
}

/// A single refused message is asked again at once after a reload, though it is not due.
#[tokio::test(start_paused = true)]
async fn a_refused_message_alone_is_tried_after_a_reload() {
    let refusal = Reply::new(550, (5, 7, 60), "not as this sender");
    let out = Scripted::new(
        "out",
        [Act::Obstacle(Obstacle::new(
            ObstacleKind::FromRefused,
            refusal,
        ))],
    );
    let plan = Plan::default();
    let world = world(&[("out", &out)], &plan);
    world.accept(&["bad"]).await;
    until("it waits in its lane", async || {
        let rows = world.store.rows();
        rows.len() == 1 && !rows[0].is_leased() && rows[0].job.lane.is_some()
    })
    .await;
    world.delivery.reload(setup(&[("out", &out)], &plan));
    until("it is out", async || {
        world.store.state("bad@partner.example").as_deref() == Some("done")
    })
    .await;
    world.delivery.drain(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_in_doubt_and_stays_with_its_connector() {
    let first = Scripted::new("first", [Act::Panic]);
    let second = Scripted::new("second", []);
    let world = world(&[("first", &first), ("second", &second)], &Plan::default());
    world.accept(&["a"]).await;
    until("pinned", async || {
        world
            .store
            .rows()
            .iter()
            .any(|row| row.job.pinned == Some("first".into()))
    })
    .await;
    until("sent again", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!((first.count(), second.count()), (2, 0));
    let calls = first.calls.lock().unwrap();
    assert!(calls[1].at - calls[0].at >= STEP * 3, "after in_doubt_wait");
}

#[tokio::test(start_paused = true)]
async fn given_up_with_one_bounce() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Mixed(vec![("a", deferred())]);
    let plan = Plan {
        give_up: STEP * 4,
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    until("the bounce", async || {
        world.store.state("app@corp.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!(world.store.state("a@partner.example").unwrap(), "failed");
    assert_eq!(world.store.rows().len(), 2, "exactly one");
}

/// A victim's address as the sender, a recipient that the upstream refuses, the attacker's words in the Subject.
#[tokio::test(start_paused = true)]
async fn a_report_to_a_sender_that_only_anybody_let_in() {
    for (senders, recipients, sender_is_told) in [
        ("*", "partner.example", false),
        ("app@*", "partner.example", false),
        ("*", "*", true),
        ("*.example", "partner.example", true),
    ] {
        let out = Scripted::new("out", []);
        *out.otherwise.lock().unwrap() = Act::Mixed(vec![("a", refused())]);
        let plan = Plan::default();
        let world = world(&[("out", &out)], &plan);
        let mut setup = setup(&[("out", &out)], &plan);
        setup.policy = policy(senders, recipients);
        setup.settings.bounce.copy_to = vec![address("admin@nowhere.example")];
        world.delivery.reload(setup);
        world.accept(&["a"]).await;
        until("the administrators' copy", async || {
            world.store.state("admin@nowhere.example").as_deref() == Some("done")
        })
        .await;
        let told = world.store.state("app@corp.example").is_some();
        assert_eq!(told, sender_is_told, "{senders} {recipients}");
        // Nor by any other kind of report.
        let before = world.store.rows().len();
        world.accept_asking(&[("b", "SUCCESS")], false).await;
        until("done", async || {
            world.store.state("b@partner.example").as_deref() == Some("done")
        })
        .await;
        let more = world.store.rows().len() - before - 1;
        assert_eq!(more == 1, sender_is_told, "{senders} {recipients}");
        assert_eq!(before, if told { 3 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn down_for_too_long_is_given_up_also_behind_the_probe() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = down();
    let plan = Plan {
        give_up: Duration::from_millis(300),
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    for name in ["a", "b", "c"] {
        world.accept(&[name]).await;
    }
    until("all given up", async || {
        ["a", "b", "c"].iter().all(|name| {
            world
                .store
                .state(&format!("{name}@partner.example"))
                .as_deref()
                == Some("failed")
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bounce_that_fails_stays() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Mixed(vec![("a", refused()), ("app", refused())]);
    let world = world(&[("out", &out)], &Plan::default());
    world.accept(&["a"]).await;
    until("the bounce failed", async || {
        world.store.state("app@corp.example").as_deref() == Some("failed")
    })
    .await;
    assert_eq!(world.store.rows().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_stops_delivery_and_loses_no_outcome() {
    let out = Scripted::new("out", [Act::Slow(Duration::from_millis(100))]);
    let world = world(&[("out", &out)], &Plan::default());
    world.accept(&["a"]).await;
    until("under way", async || out.count() == 1).await;
    world.store.broken.store(true, Ordering::SeqCst);
    let is_taken = || world.store.state("a@partner.example").as_deref() == Some("done");
    stays_so("no outcome is written", STEP * 8, || !is_taken()).await;
    assert!(
        world
            .queue
            .accept(mail(&["b"], world.clock.wall()), &[], world.clock.wall())
            .await
            .is_err()
    );
    assert_eq!(world.store.state("a@partner.example").unwrap(), "waiting");
    world.store.broken.store(false, Ordering::SeqCst);
    until("settled", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!(out.count(), 1, "not sent again");
    world.accept(&["b"]).await;
    until("the next", async || {
        world.store.state("b@partner.example").as_deref() == Some("done")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn drain_finishes_what_is_under_way() {
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Slow(Duration::from_millis(150));
    let plan = Plan {
        concurrent: 1,
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    world.accept(&["b"]).await;
    until("under way", async || out.count() == 1).await;
    world.delivery.drain(Duration::from_secs(30)).await;
    assert_eq!(out.count(), 1, "nothing new is claimed");
    assert_eq!(world.store.state("a@partner.example").unwrap(), "done");
    assert_eq!(world.store.state("b@partner.example").unwrap(), "waiting");
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_and_is_no_reason_to_go_elsewhere() {
    let first = Scripted::new("first", []);
    let second = Scripted::new("second", []);
    let per = Duration::from_millis(200);
    let plan = Plan {
        rate: Some(Rate { count: 3, per }),
        ..Plan::default()
    };
    let world = world(&[("first", &first), ("second", &second)], &plan);
    for i in 0..8 {
        world.accept(&[&format!("m{i}")]).await;
    }
    until("all", async || first.count() == 8).await;
    assert_eq!(second.count(), 0);
    let calls = first.calls.lock().unwrap();
    for window in calls.windows(4) {
        let apart = window[3].at - window[0].at;
        assert!(apart >= per, "{apart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_wants_less_is_waited_for() {
    let throttled = |seconds| {
        Act::Obstacle(
            Obstacle::new(
                ObstacleKind::Throttled,
                Reply::new(451, (4, 3, 2), "too much"),
            )
            .after(Some(Duration::from_secs(seconds))),
        )
    };
    let first = Scripted::new("first", [throttled(1)]);
    let second = Scripted::new("second", []);
    let world = world(&[("first", &first), ("second", &second)], &Plan::default());
    let begin = Instant::now();
    world.accept(&["a"]).await;
    until("asked", async || first.count() == 1).await;
    until("the lane says so", async || {
        let row = world.store.lane("first");
        row.is_some_and(|row| row.state == LaneState::Throttled && row.probe.is_some())
    })
    .await;
    for i in 0..5 {
        world.accept(&[&format!("m{i}")]).await;
    }
    until("all", async || first.count() == 7).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(second.count(), 0, "no reason to go elsewhere");
    until("settled", async || {
        world
            .store
            .rows()
            .iter()
            .all(|r| r.recipients[0].state == RecipientState::Done)
    })
    .await;
    for row in world.store.rows() {
        assert_eq!(row.job.attempts, 1, "the refusal was no attempt");
    }
    until("open", async || {
        world.store.lane("first").unwrap().state == LaneState::Open
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_give_up_ends_there() {
    let reply = Reply::new(451, (4, 3, 2), "too much");
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Obstacle(
        Obstacle::new(ObstacleKind::Throttled, reply).after(Some(Duration::from_hours(1))),
    );
    let plan = Plan {
        give_up: Duration::from_secs(2),
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    world.accept(&["b"]).await;
    for recipient in ["a@partner.example", "b@partner.example"] {
        until("given up", async || {
            world.store.state(recipient).as_deref() == Some("failed")
        })
        .await;
    }
    let calls = out.count();
    assert!(calls <= 2, "{calls} calls");
    let bounces = world.store.rows().len() - 2;
    assert_eq!(bounces, 2, "the sender is told of both");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_goes_out_with_all_permits() {
    let store = Memory::strict();
    let out = Scripted::new("out", []);
    *out.otherwise.lock().unwrap() = Act::Slow(Duration::from_millis(5));
    for i in 0..200 {
        let now = SystemTime::now();
        let mail = mail(&[&format!("m{i}")], now);
        postern::queue::store::Store::insert(store.as_ref(), &mail, &[], now)
            .await
            .unwrap();
    }
    let world = world_over(store, &[("out", &out)], &Plan::default());
    until("all", async || {
        world
            .store
            .rows()
            .iter()
            .all(|r| r.recipients[0].state == RecipientState::Done)
    })
    .await;
    assert_eq!(out.count(), 200);
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_route_that_is_gone_takes_another() {
    let out = Scripted::new("out", []);
    let plan = Plan {
        route: "new",
        ..Plan::default()
    };
    let world = world(&[("out", &out)], &plan);
    world.accept(&["a"]).await;
    until("delivered", async || {
        world.store.state("a@partner.example").as_deref() == Some("done")
    })
    .await;
    assert_eq!(world.store.rows()[0].job.route, "new".into());
}

/// The same over the store that is used in earnest.
#[tokio::test]
async fn over_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let store = postern::queue::sqlite::SqliteStore::open(&postern::queue::Settings {
        data_dir: dir.path().to_owned(),
        keep_failed: Duration::from_hours(1),
        keep_history: Duration::from_hours(1),
    })
    .unwrap();
    let queue = Arc::new(Queue::new(store));
    let out = Scripted::new(
        "out",
        [
            Act::Panic,
            Act::Mixed(vec![("no", refused()), ("later", deferred())]),
        ],
    );
    *out.otherwise.lock().unwrap() = Act::Take;
    // Long enough for the second message to be the second call.
    let mut patient = setup(&[("out", &out)], &Plan::default());
    patient.settings.in_doubt_wait = Duration::from_secs(2);
    let delivery = Delivery::start(Arc::clone(&queue), patient);
    let now = SystemTime::now();
    queue.accept(mail(&["doubt"], now), &[], now).await.unwrap();
    until("the first", async || out.count() == 1).await;
    queue
        .accept(mail(&["yes", "no", "later"], now), &[], now)
        .await
        .unwrap();
    until("a retry, a bounce, and what was in doubt", async || {
        out.count() == 5
    })
    .await;
    delivery.drain(Duration::from_secs(5)).await;
    let stats = queue.store().stats().await.unwrap();
    assert_eq!((stats.waiting, stats.sending, stats.failed), (0, 0, 1));
}
