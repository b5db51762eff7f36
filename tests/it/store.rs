//! What every store must do, and what only the SQLite store can be asked.

use crate::harness::time::until;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use postern::{
    mail::{
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{LaneState, Outcome},
        pattern::Pattern,
        recipient::{DsnWish, Notify, Recipient, ReportWish, ReturnedContent},
        reply::Reply,
    },
    queue::{
        Queue, Settings,
        sqlite::SqliteStore,
        store::{
            Ask, CLOCK, Due, Event, Filter, GiveBack, Health, Job, JobState, KeepTimes, Kept,
            LaneRow, LateNotice, NodeId, Retention, Search, Settled, Settlement, Shift, Standing,
            Start, Store, StoreError, Verb, Whose,
        },
        turns::Pair,
    },
    route::{ConnectorName, LaneId, RouteName, Routed},
};

use crate::{
    fixture::address,
    harness::{flaky::Flaky, memory::Memory},
};
use postern::queue::store::EventKind;

const DAY: Duration = Duration::from_hours(24);

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn route() -> RouteName {
    RouteName::from("main")
}

pub(crate) fn mail_with(n: u128, recipients: &[&str], body: Body) -> Routed {
    let mut recipients: Vec<Recipient> = recipients.iter().map(|r| address(r).into()).collect();
    // What was asked of reports has to be kept wherever a message goes.
    if let Some(first) = recipients.first_mut() {
        first.dsn = Some(DsnWish {
            notify: Notify::parse("DELAY"),
            original: Some("rfc822;\"first+2B\"@x.example".into()),
        });
    }
    Routed {
        message: Arc::new(Message {
            id: MessageId::new(at(0), n),
            envelope: Envelope {
                sender: Some(address("app@corp.example")),
                recipients: recipients.clone(),
                eight_bit: true,
                dsn: Some(ReportWish {
                    content: Some(ReturnedContent::Full),
                    id: Some("QQ+3D1".into()),
                }),
            },
            origin: Origin {
                listener: "local".into(),
                peer: "127.0.0.1:1025".parse().unwrap(),
                client: Some("printers".into()),
                helo: "printer".into(),
                tls: false,
                esmtp: true,
                utf8: false,
                user: None,
                at: at(0),
                rules: Vec::new(),
                copy_of: None,
            },
            header: "Subject: x\r\n".into(),
            body,
        }),
        jobs: vec![(route(), recipients)],
        copies: Vec::new(),
    }
}

pub(crate) fn mail(n: u128, recipients: &[&str]) -> Routed {
    mail_with(n, recipients, Body::Memory("text\r\n".into()))
}

pub(crate) fn ask(limit: usize) -> Vec<Ask> {
    vec![Ask {
        route: route(),
        pinned: None,
        lane: None,
        whose: Whose::InTurns,
        connector: None,
        limit,
    }]
}

fn due(pinned: Option<&str>, lane: Option<&str>, at: SystemTime) -> Due {
    Due {
        route: route(),
        pinned: pinned.map(ConnectorName::from),
        lane: lane.map(LaneId::parse),
        at,
        whose: Whose::Of(Pair::of_message(&mail(1, &[]).message)),
    }
}

pub(crate) fn settlement(job: &Job, recipients: Vec<(&str, Settled)>) -> Settlement {
    Settlement {
        job: job.id,
        lease: job.lease,
        message: job.message.id,
        recipients: recipients
            .into_iter()
            .map(|(a, s)| (address(a), s))
            .collect(),
        attempted: true,
        next: at(60),
        lane: None,
        in_doubt: None,
        apart: Vec::new(),
        bounces: Vec::new(),
        receipts: Vec::new(),
        events: vec![Event {
            at: at(1),
            kind: EventKind::Deferred,
            recipients: vec!["a@x.example".into(), "b@x.example".into()],
            text: "via smarthost".into(),
        }],
    }
}

pub(crate) fn done() -> Settled {
    Settled::Done(Outcome::Delivered(Reply::new(250, (2, 0, 0), "ok")))
}
pub(crate) fn failed() -> Settled {
    Settled::Failed(Outcome::Failed(Reply::new(550, (5, 1, 1), "unknown")))
}
pub(crate) fn deferred() -> Settled {
    Settled::Waiting(Outcome::Deferred {
        reply: Reply::new(451, (4, 3, 0), "later"),
        retry_after: None,
    })
}
pub(crate) fn in_doubt() -> Settled {
    Settled::InDoubt(Outcome::InDoubt(Reply::new(451, (4, 4, 2), "silence")))
}

pub(crate) const NODE: NodeId = NodeId(0);

/// Leased for the fast path.
fn at_once() -> Start {
    Start::Now(NODE, ConnectorName::from("up"))
}

/// A beat of the node at work; whether it found that another process has written.
async fn beat(store: &dyn Store) -> bool {
    store.beat(&Standing::of(NODE)).await.unwrap();
    let changed = tokio::time::timeout(Duration::ZERO, store.changed());
    changed.await.is_ok()
}

/// What was deleted of what is kept for so long: when it failed, and of any mail.
async fn prune(
    store: &dyn Store,
    failed: Duration,
    history: Duration,
    now: SystemTime,
) -> Vec<String> {
    let retention = Retention {
        keep: Some(KeepTimes { failed, history }),
        give_back: None,
    };
    let done = store.maintain(&retention, now).await.unwrap();
    assert!(!done.is_more, "no space was asked for");
    done.deleted
}

/// A part of the unused space is given back; whether there is more.
async fn shrink(store: &dyn Store, how_much: GiveBack) -> bool {
    let retention = Retention {
        keep: None,
        give_back: Some(how_much),
    };
    let done = store.maintain(&retention, at(0)).await.unwrap();
    assert!(done.deleted.is_empty());
    done.is_more
}

pub(crate) fn only(id: MessageId) -> Filter {
    Filter::of(id)
}

/// JobState of the entry, and address and state of each recipient.
pub(crate) async fn looks(store: &dyn Store, id: MessageId) -> (JobState, Vec<String>) {
    let entries = store.list(&only(id), at(0)).await.unwrap();
    assert_eq!(entries.len(), 1);
    (
        entries[0].state,
        entries[0]
            .recipients
            .iter()
            .map(|r| format!("{} {}", r.address, r.state))
            .collect(),
    )
}

pub(crate) async fn claim_one(store: &dyn Store, now: SystemTime) -> Job {
    let mut jobs = store.claim(&ask(10), NODE, now).await.unwrap();
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.join("data"),
        keep_failed: 14 * DAY,
        keep_history: 30 * DAY,
    }
}

pub(crate) fn open(dir: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&settings(dir)).unwrap()
}

/// Runs a case on every store there is: the double in memory, on which the tests of delivery stand, the real one, and one seen through
/// another.
pub(crate) async fn on_each<F: AsyncFn(Arc<dyn Store>)>(case: F) {
    case(Arc::new(Memory::default())).await;
    let dir = tempfile::tempdir().unwrap();
    case(open(dir.path())).await;
    let dir = tempfile::tempdir().unwrap();
    case(Flaky::new(open(dir.path()), 0)).await;
}

/// Makes tests of cases: on each store of this machine, and on PostgreSQL.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        mod on_each_store {
            $(#[tokio::test]
            async fn $case() {
                crate::store::on_each(super::$case).await;
            })*
        }
        mod in_postgres {
            $(#[tokio::test]
            #[ignore = "needs PostgreSQL"]
            async fn $case() {
                super::$case(crate::harness::postgres::NodeNought::open().await).await;
            })*
        }
        mod in_spill {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs PostgreSQL"]
            async fn $case() {
                super::$case(crate::harness::spill::SpillNought::open().await).await;
            })*
        }
        mod in_spill_without_the_database {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs PostgreSQL"]
            async fn $case() {
                super::$case(crate::harness::spill::SpillNought::away().await).await;
            })*
        }
        mod in_spill_that_comes_and_goes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs PostgreSQL"]
            async fn $case() {
                super::$case(crate::harness::spill::SpillNought::restless(stringify!($case)).await).await;
            })*
        }
    };
}
pub(crate) use on_every_store;

on_every_store!(
    some_recipients_get_a_job_apart,
    what_goes_in_comes_out,
    the_course_of_mail,
    jobs_begin_as_they_are_told,
    what_waits_moves_back_with_the_clock,
    what_waits_moves_on_with_the_clock,
    nothing_waits_for_a_time_that_nobody_can_have_set,
    one_of_each_outcome,
    a_settlement_may_be_written_twice,
    a_wish_waits_for_the_settlement,
    verbs_take_what_the_filter_says,
    what_a_quota_holds,
    retention,
    history_goes_whatever_the_clock_did_and_numbers_are_given_again,
    a_job_split_off_never_has_the_number_of_one_that_is_done,
    lanes_and_notes,
    what_waits_for_its_turn_in_a_lane_is_claimed_for_that_lane_alone,
    deliveries_are_remembered_with_their_recipients,
    who_waits_for_word_is_told_once,
    copies_go_in_with_their_message,
);

/// A set that was refused becomes two jobs, both due; written twice it is still two.
async fn some_recipients_get_a_job_apart(store: Arc<dyn Store>) {
    let sent = mail(1, &["a@x.example", "b@x.example", "c@x.example"]);
    store.insert(&sent, &[], at(0)).await.unwrap();
    let job = claim_one(&*store, at(0)).await;
    let apart = |job: &Job| {
        let all = ["a@x.example", "b@x.example", "c@x.example"];
        let mut settled = settlement(job, all.map(|r| (r, deferred())).into());
        settled.attempted = false;
        settled.apart = vec![address("b@x.example"), address("c@x.example")];
        settled
    };
    store.settle(apart(&job), at(1)).await.unwrap();
    assert!(store.claim(&ask(9), NODE, at(59)).await.unwrap().is_empty());
    let jobs = store.claim(&ask(9), NODE, at(60)).await.unwrap();
    let mut sets: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| job.recipients.iter().map(ToString::to_string).collect())
        .collect();
    sets.sort();
    assert_eq!(
        sets,
        [vec!["a@x.example"], vec!["b@x.example", "c@x.example"]]
    );
    assert!(jobs.iter().all(|job| job.attempts == 0));
    let entries = store.list(&only(sent.message.id), at(60)).await.unwrap();
    assert_eq!(entries[0].recipients.len(), 3);
}

async fn what_goes_in_comes_out(store: Arc<dyn Store>) {
    let sent = mail(1, &["a@x.example", "\"b c\"@x.example"]);
    store.insert(&sent, &[], at(0)).await.unwrap();
    let again = store.insert(&sent, &[], at(0)).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))));
    assert!(store.claim(&ask(0), NODE, at(0)).await.unwrap().is_empty());
    let job = claim_one(&*store, at(0)).await;
    assert_eq!(job.message.envelope, sent.message.envelope);
    assert_eq!(job.message.origin, sent.message.origin);
    assert_eq!(job.message.header, sent.message.header);
    assert!(matches!(&job.message.body, Body::Memory(b) if &b[..] == b"text\r\n"));
    assert_eq!(job.recipients, sent.message.envelope.recipients);
    assert_eq!((job.attempts, job.accepted), (0, at(0)));
    // Leased: nobody else sees it.
    assert!(store.claim(&ask(9), NODE, at(99)).await.unwrap().is_empty());
    assert!(store.due(at(0)).await.unwrap().is_empty());
    let whole = store.content(sent.message.id).await.unwrap().unwrap();
    assert_eq!(whole.size(), sent.message.size());
    let settled = settlement(
        &job,
        vec![("a@x.example", done()), ("\"b c\"@x.example", done())],
    );
    store.settle(settled, at(2)).await.unwrap();
    assert_eq!(looks(&*store, sent.message.id).await.0, JobState::Done);
    assert!(store.content(sent.message.id).await.unwrap().is_none());
    let events = store.events(sent.message.id).await.unwrap();
    assert_eq!(events[0].kind, EventKind::Accepted);
    assert_eq!(events[1].recipients, ["a@x.example", "b@x.example"]);
}

/// A copy of a message for an archive, with a body in a file where that is large.
async fn copy_for(store: &dyn Store, sent: &Routed, n: u128, octets: usize) -> Routed {
    let mut copy = mail(n, &["archive@x.example"]);
    copy.jobs[0].0 = RouteName::of_archive("journal");
    let message = Arc::make_mut(&mut copy.message);
    message.envelope.sender = None;
    message.origin.copy_of = Some(sent.message.id);
    message.origin.rules = vec![format!("a copy of {}", sent.message.id)];
    if octets > 0 {
        let body = vec![b'x'; octets];
        let mut writer = store.bodies().writer(message.id);
        writer.append(&body).await.unwrap();
        // The double in memory has no directory.
        let written = writer.finish().await;
        message.body = written.unwrap_or_else(|_| Body::Memory(body.into()));
    }
    copy
}

/// All of them or none, and what becomes of one is nothing to the others.
async fn copies_go_in_with_their_message(store: Arc<dyn Store>) {
    let store = &*store;
    let to_archive = || {
        let [ask] = <[Ask; 1]>::try_from(ask(9)).unwrap();
        let route = RouteName::of_archive("journal");
        [Ask { route, ..ask }]
    };
    let mut sent = mail(1, &["a@x.example"]);
    let small = copy_for(store, &sent, 2, 0).await;
    let large = copy_for(store, &sent, 3, 100_000).await;
    sent.copies = vec![small, large];
    let inserted = store.insert(&sent, &[at_once()], at(0)).await.unwrap();
    assert_eq!(inserted.jobs.len(), 1, "jobs of the message itself");
    // The id of the message decides of all.
    let mut again = mail(1, &["a@x.example"]);
    again.copies = vec![copy_for(store, &sent, 4, 0).await];
    assert!(store.insert(&again, &[], at(0)).await.is_err());
    let ids = |n| MessageId::new(at(0), n);
    assert!(store.list(&only(ids(4)), at(0)).await.unwrap().is_empty());
    let jobs = store.claim(&to_archive(), NODE, at(1)).await.unwrap();
    let mut found: Vec<_> = jobs.iter().map(|job| job.message.id).collect();
    found.sort();
    assert_eq!(
        found,
        [ids(2), ids(3)],
        "the message itself is sent already"
    );
    for (job, copy) in [(0, 0), (1, 1)] {
        let job = jobs.iter().find(|j| j.message.id == found[job]).unwrap();
        let copy = &sent.copies[copy].message;
        assert_eq!(job.message.envelope, copy.envelope);
        assert_eq!(job.message.origin, copy.origin);
        assert_eq!(job.message.size(), copy.size());
        let entry = store.list(&only(copy.id), at(1)).await.unwrap().remove(0);
        assert_eq!(entry.copy_of, Some(ids(1)));
        let events = store.events(copy.id).await.unwrap();
        assert!(events[0].text.contains("a copy of "), "{}", events[0].text);
    }
    let of_large = jobs.iter().find(|job| job.message.id == ids(3)).unwrap();
    let mut body = of_large.message.body.open().await.unwrap();
    let mut octets = 0;
    while let Some(piece) = body.next().await.unwrap() {
        octets += piece.len();
    }
    assert_eq!(octets, 100_000);
    let entry = store.list(&only(ids(1)), at(1)).await.unwrap().remove(0);
    assert_eq!((entry.copy_of, entry.state), (None, JobState::Sending));
    let settled = settlement(of_large, vec![("archive@x.example", failed())]);
    store.settle(settled, at(2)).await.unwrap();
    let state = async |n| looks(store, ids(n)).await.0;
    assert_eq!(state(3).await, JobState::Failed);
    assert_eq!(state(2).await, JobState::Sending);
    assert_eq!(state(1).await, JobState::Sending);
}

async fn the_course_of_mail(store: Arc<dyn Store>) {
    for n in [2, 1] {
        let sent = mail(n, &["a@x.example", "b@x.example", "c@x.example"]);
        let inserted = store.insert(&sent, &[], at(n as u64)).await.unwrap();
        assert_eq!(inserted.jobs.len(), 1);
    }
    assert_eq!(store.due(at(0)).await.unwrap(), [due(None, None, at(1))]);
    assert!(
        store.claim(&ask(9), NODE, at(0)).await.unwrap().is_empty(),
        "not due"
    );
    // The oldest due first, each once.
    let first = store.claim(&ask(1), NODE, at(5)).await.unwrap().remove(0);
    assert_eq!(
        (first.message.id, first.accepted),
        (MessageId::new(at(0), 1), at(1))
    );
    let second = claim_one(&*store, at(5)).await;
    assert_eq!(second.message.id, MessageId::new(at(0), 2));
    assert!(
        store.due(at(0)).await.unwrap().is_empty(),
        "both are leased"
    );
    // Put back as it was: no attempt, and it waits for its turn in a lane.
    let mut back = settlement(&second, vec![]);
    (back.attempted, back.next, back.lane) = (false, at(2), Some(LaneId::parse("up/a")));
    store.settle(back, at(6)).await.unwrap();
    assert_eq!(
        store.due(at(0)).await.unwrap(),
        [due(None, Some("up/a"), at(2))]
    );
    assert!(
        store.claim(&ask(9), NODE, at(9)).await.unwrap().is_empty(),
        "another lane"
    );
    // Done, deferred and in doubt: the last has a job of its own, for one connector.
    let mut parted = settlement(
        &first,
        vec![
            ("a@x.example", done()),
            ("b@x.example", deferred()),
            ("c@x.example", in_doubt()),
        ],
    );
    parted.in_doubt = Some((ConnectorName::from("up"), at(300)));
    parted.bounces = vec![mail(3, &["app@corp.example"])];
    store.settle(parted, at(7)).await.unwrap();
    let bounce = claim_one(&*store, at(7)).await;
    assert_eq!(bounce.message.id, MessageId::new(at(0), 3));
    let deferred = claim_one(&*store, at(60)).await;
    assert_eq!(
        (deferred.attempts, &deferred.recipients[..]),
        (1, &[address("b@x.example").into()][..])
    );
    let pinned = vec![Ask {
        pinned: Some(ConnectorName::from("up")),
        ..ask(9).remove(0)
    }];
    assert!(
        store
            .claim(&pinned, NODE, at(299))
            .await
            .unwrap()
            .is_empty()
    );
    let doubtful = store.claim(&pinned, NODE, at(300)).await.unwrap().remove(0);
    assert_eq!(doubtful.recipients, [address("c@x.example")]);
    assert_eq!(doubtful.pinned, Some(ConnectorName::from("up")));
}

/// Leased, in a lane, or for whoever comes; and a start of the gateway frees what its predecessor held.
async fn jobs_begin_as_they_are_told(store: Arc<dyn Store>) {
    let first = Standing::default();
    assert_eq!(store.beat(&first).await.unwrap().node, NODE);
    for (n, start) in [
        (1, at_once()),
        (2, Start::In(LaneId::parse("up/a"))),
        (3, Start::Any),
    ] {
        let inserted = store
            .insert(&mail(n, &["a@x.example"]), &[start], at(0))
            .await
            .unwrap();
        assert_eq!(inserted.jobs.len(), 1);
    }
    let number = |job: &Job| (1..4).find(|n| job.message.id == MessageId::new(at(0), *n));
    assert_eq!(number(&claim_one(&*store, at(0)).await), Some(3));
    let in_lane = vec![Ask {
        lane: Some(LaneId::parse("up/a")),
        ..ask(9).remove(0)
    }];
    let waited = store.claim(&in_lane, NODE, at(0)).await.unwrap();
    assert_eq!(waited.iter().map(number).collect::<Vec<_>>(), [Some(2)]);
    assert!(store.due(at(0)).await.unwrap().is_empty());
    assert!(waited.iter().all(|job| job.lease.node == NODE));
    let settled = settlement(&waited[0], vec![("a@x.example", done())]);
    assert_eq!(store.settle(settled, at(1)).await.unwrap(), Kept::Written);
    // The same gateway goes on: nothing is freed. Another start of it: all that is still leased.
    beat(&*store).await;
    assert!(store.due(at(0)).await.unwrap().is_empty());
    store.beat(&first).await.unwrap();
    assert_eq!(store.claim(&ask(9), NODE, at(9)).await.unwrap().len(), 2);
}

fn shift(by: i64, since: SystemTime, now: SystemTime) -> Shift {
    Shift {
        by: by * 1_000_000,
        since,
        now,
        longest: DAY,
        note: format!("set by {by}"),
    }
}

async fn what_waits_moves_with_the_clock(store: Arc<dyn Store>, by: i64) {
    let moved = |seconds: i64| at((seconds + by) as u64);
    // By the old clock: one that is due, and one that was deferred.
    for n in [1, 2] {
        let sent = mail(n, &["a@x.example"]);
        store.insert(&sent, &[], at(100_000)).await.unwrap();
    }
    let job = store
        .claim(&ask(1), NODE, at(100_000))
        .await
        .unwrap()
        .remove(0);
    let later = job.message.id;
    let mut settled = settlement(&job, vec![("a@x.example", deferred())]);
    settled.next = at(100_060);
    store.settle(settled, at(100_001)).await.unwrap();
    let row = LaneRow {
        lane: LaneId::parse("up"),
        state: LaneState::Closed,
        since: at(100_000),
        why: "it was".into(),
        probe: Some(at(100_300)),
        version: 0,
        node: NodeId::default(),
    };
    assert!(store.set_lane(row).await.unwrap());
    // By the new one.
    let new = mail(3, &["a@x.example"]);
    store.insert(&new, &[], moved(100_009)).await.unwrap();
    let set = shift(by, moved(100_008), moved(100_010));
    store.shift(Some(&set)).await.unwrap();
    store.shift(None).await.unwrap();
    assert_eq!(store.note(CLOCK).await.unwrap(), Some(set.note));
    let lanes = store.lanes().await.unwrap();
    assert_eq!(
        (lanes[0].since, lanes[0].probe),
        (moved(100_000), Some(moved(100_300)))
    );
    let now = store.claim(&ask(9), NODE, moved(100_010)).await.unwrap();
    let accepted: Vec<SystemTime> = now.iter().map(|job| job.accepted).collect();
    assert_eq!(accepted, [moved(100_000), moved(100_009)], "{by}");
    let none = store.claim(&ask(9), NODE, moved(100_059)).await.unwrap();
    assert!(none.is_empty(), "{by}");
    let job = claim_one(&*store, moved(100_060)).await;
    assert_eq!((job.message.id, job.accepted), (later, moved(100_000)));
}

async fn what_waits_moves_back_with_the_clock(store: Arc<dyn Store>) {
    what_waits_moves_with_the_clock(store, -86_400).await;
}

async fn what_waits_moves_on_with_the_clock(store: Arc<dyn Store>) {
    what_waits_moves_with_the_clock(store, 400_000_000).await;
}

async fn nothing_waits_for_a_time_that_nobody_can_have_set(store: Arc<dyn Store>) {
    // Both came by a clock that was ten days ahead, and nobody saw it go back.
    for n in [1, 2] {
        let sent = mail(n, &["a@x.example"]);
        store.insert(&sent, &[], at(864_000)).await.unwrap();
    }
    let job = store
        .claim(&ask(1), NODE, at(864_000))
        .await
        .unwrap()
        .remove(0);
    let mut settled = settlement(&job, vec![("a@x.example", deferred())]);
    settled.next = at(864_060);
    store.settle(settled, at(864_001)).await.unwrap();
    store.shift(Some(&shift(0, at(10), at(10)))).await.unwrap();
    let job = claim_one(&*store, at(10)).await;
    assert_eq!(job.accepted, at(10));
    let job = claim_one(&*store, at(10) + DAY).await;
    assert_eq!(job.accepted, at(10));
}

#[tokio::test]
async fn a_move_that_a_crash_cuts_off_goes_on_and_moves_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..2_500 {
        let sent = mail(n, &["a@x.example"]);
        store.insert(&sent, &[], at(200_000)).await.unwrap();
    }
    let set = shift(-86_400, at(113_610), at(113_610));
    {
        let moving = store.shift(Some(&set));
        tokio::pin!(moving);
        let begun = async {
            while store.note("shift").await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = begun => {}
            moved = &mut moving => moved.unwrap(),
        }
    }
    drop(store);
    let store = open(dir.path());
    store.shift(None).await.unwrap();
    assert_eq!(store.note("shift").await.unwrap(), None);
    let jobs = store.claim(&ask(5_000), NODE, at(113_610)).await.unwrap();
    assert_eq!(jobs.len(), 2_500);
    assert!(jobs.iter().all(|job| job.accepted == at(113_600)));
}

async fn one_of_each_outcome(store: Arc<dyn Store>) {
    let sent = mail(
        1,
        &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
    );
    store.insert(&sent, &[at_once()], at(0)).await.unwrap();
    assert!(store.claim(&ask(9), NODE, at(9)).await.unwrap().is_empty());
    store.beat(&Standing::default()).await.unwrap();
    let job = claim_one(&*store, at(9)).await;
    let mut settled = settlement(
        &job,
        vec![
            ("a@x.example", done()),
            ("b@x.example", deferred()),
            ("c@x.example", failed()),
            ("d@x.example", in_doubt()),
        ],
    );
    settled.in_doubt = Some((ConnectorName::from("exchange"), at(300)));
    settled.bounces = vec![mail(2, &["app@corp.example"])];
    store.settle(settled, at(10)).await.unwrap();
    assert_eq!(
        looks(&*store, sent.message.id).await,
        (
            JobState::Waiting,
            [
                "a@x.example done",
                "b@x.example waiting",
                "c@x.example failed",
                "d@x.example in doubt"
            ]
            .map(String::from)
            .to_vec()
        )
    );
    assert_eq!(
        store.due(at(0)).await.unwrap(),
        vec![
            due(None, None, at(10)),
            due(Some("exchange"), None, at(300))
        ]
    );
    // The bounce first, then the deferred one alone.
    assert_eq!(
        claim_one(&*store, at(11)).await.message.id,
        MessageId::new(at(0), 2)
    );
    let job = claim_one(&*store, at(60)).await;
    assert_eq!(
        (job.recipients.clone(), job.attempts),
        (vec![address("b@x.example").into()], 1)
    );
    store
        .settle(settlement(&job, vec![("b@x.example", done())]), at(61))
        .await
        .unwrap();
    let pinned = vec![Ask {
        route: route(),
        pinned: Some(ConnectorName::from("exchange")),
        lane: None,
        whose: Whose::InTurns,
        connector: None,
        limit: 5,
    }];
    assert!(
        store
            .claim(&pinned, NODE, at(299))
            .await
            .unwrap()
            .is_empty()
    );
    let job = store.claim(&pinned, NODE, at(300)).await.unwrap().remove(0);
    assert_eq!(job.recipients, [address("d@x.example")]);
    // Nothing attempted: pinned still, no attempt counted, in doubt still.
    let mut nothing = settlement(&job, vec![]);
    nothing.attempted = false;
    nothing.next = at(400);
    store.settle(nothing, at(301)).await.unwrap();
    let job = store.claim(&pinned, NODE, at(400)).await.unwrap().remove(0);
    assert_eq!(job.attempts, 1);
    store
        .settle(settlement(&job, vec![("d@x.example", done())]), at(401))
        .await
        .unwrap();
    // One failed: kept with its body.
    assert_eq!(looks(&*store, sent.message.id).await.0, JobState::Failed);
    assert!(store.content(sent.message.id).await.unwrap().is_some());
    // Brought back, only the failed one.
    let n = store
        .command(&only(sent.message.id), &Verb::Retry, at(500))
        .await;
    assert_eq!(n.unwrap(), 1);
    let job = claim_one(&*store, at(500)).await;
    assert_eq!(job.recipients, [address("c@x.example")]);
}

async fn a_settlement_may_be_written_twice(store: Arc<dyn Store>) {
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    let job = claim_one(&*store, at(0)).await;
    for _ in 0..2 {
        let mut settled = settlement(&job, vec![("a@x.example", failed())]);
        settled.bounces = vec![mail(2, &["app@corp.example"])];
        store.settle(settled, at(1)).await.unwrap();
    }
    assert_eq!(store.stats().await.unwrap().failed, 1);
    assert_eq!(store.stats().await.unwrap().waiting, 1);
}

async fn a_wish_waits_for_the_settlement(store: Arc<dyn Store>) {
    let cases: [(Verb, JobState, &str); 5] = [
        (Verb::Hold, JobState::Held, "waiting"),
        (Verb::Drop, JobState::Done, "dropped"),
        (Verb::Fail, JobState::Failed, "failed"),
        (Verb::Retry, JobState::Waiting, "waiting"),
        (
            Verb::Reroute(RouteName::from("other")),
            JobState::Waiting,
            "waiting",
        ),
    ];
    for (n, (verb, state, recipient)) in (1..).zip(cases) {
        let sent = mail(n, &["a@x.example", "b@x.example"]);
        store.insert(&sent, &[], at(0)).await.unwrap();
        let job = claim_one(&*store, at(0)).await;
        let filter = only(sent.message.id);
        assert_eq!(store.command(&filter, &verb, at(1)).await.unwrap(), 1);
        assert_eq!(looks(&*store, sent.message.id).await.0, JobState::Sending);
        let settled = settlement(
            &job,
            vec![("a@x.example", done()), ("b@x.example", deferred())],
        );
        store.settle(settled, at(2)).await.unwrap();
        let (found, recipients) = looks(&*store, sent.message.id).await;
        assert_eq!(found, state, "{verb:?}");
        assert_eq!(
            recipients,
            [
                "a@x.example done".to_owned(),
                format!("b@x.example {recipient}")
            ]
        );
        if verb == Verb::Retry {
            assert_eq!(
                store.list(&filter, at(2)).await.unwrap()[0].next_attempt,
                Some(at(2))
            );
        }
        assert_eq!(
            store.content(sent.message.id).await.unwrap().is_none(),
            verb == Verb::Drop
        );
        store.command(&filter, &Verb::Drop, at(3)).await.unwrap();
    }
}

/// It is claimed by nobody, is found by who holds it, and is released, or goes where alone it is given up; whatever a verb or a crash makes of
/// it, nobody else ever finds it there.
async fn what_a_quota_holds(store: Arc<dyn Store>) {
    let lane = LaneId::held_by("quota erp");
    for n in 1..=7 {
        let sent = mail(n, &["a@x.example", "b@x.example"]);
        let start = match n {
            6 => Start::Held(LaneId::held_by("quota other")),
            7 => Start::Any,
            _ => Start::Held(lane.clone()),
        };
        let now = at(n as u64);
        store.insert(&sent, &[start], now).await.unwrap();
    }
    let id = |n| mail(n, &[]).message.id;
    let of = |quota: &str| Filter {
        held_by: Some(format!("quota {quota}")),
        ..Filter::default()
    };
    let held = async |quota: &str| -> Vec<MessageId> {
        let entries = store.list(&of(quota), at(9)).await.unwrap();
        assert!(entries.iter().all(|entry| entry.state == JobState::Held));
        entries.iter().map(|entry| entry.id).collect()
    };
    assert_eq!(held("erp").await, [1, 2, 3, 4, 5].map(id));
    assert_eq!(held("other").await, [6].map(id));
    assert!(held("er").await.is_empty());
    let search = Search {
        filter: of("erp"),
        limit: 10,
        ..Search::default()
    };
    assert_eq!(store.search(&search).await.unwrap().entries.len(), 5);
    assert_eq!(store.stats().await.unwrap().held, 6);
    // Nothing of it is due, and a retry does not release it.
    let sent = store.claim(&ask(10), NODE, at(9)).await.unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].message.id, id(7));
    let retried = store.command(&of("erp"), &Verb::Retry, at(9)).await;
    assert_eq!(retried.unwrap(), 0);
    // Released, it is like any other.
    assert_eq!(
        store
            .command(&only(id(1)), &Verb::Release, at(9))
            .await
            .unwrap(),
        1
    );
    let job = claim_one(&*store, at(9)).await;
    assert_eq!((job.message.id, job.lane.clone()), (id(1), None));
    let done = vec![("a@x.example", done()), ("b@x.example", done())];
    store.settle(settlement(&job, done), at(9)).await.unwrap();
    // Given up by an operator and brought back, too.
    assert_eq!(
        store
            .command(&only(id(2)), &Verb::Fail, at(9))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .command(&only(id(2)), &Verb::Retry, at(9))
            .await
            .unwrap(),
        1
    );
    let job = claim_one(&*store, at(9)).await;
    assert_eq!((job.message.id, job.lane.clone()), (id(2), None));
    let done = vec![("a@x.example", self::done()), ("b@x.example", self::done())];
    store.settle(settlement(&job, done), at(9)).await.unwrap();
    // To another route it is still held.
    let to = Verb::Reroute(route());
    assert_eq!(store.command(&only(id(3)), &to, at(9)).await.unwrap(), 1);
    assert_eq!(held("erp").await, [3, 4, 5].map(id));
    // What was held for too long.
    let old = Filter {
        states: vec![JobState::Held],
        older: Some(at(4)),
        ..of("erp")
    };
    assert_eq!(store.command(&old, &Verb::Expire, at(10)).await.unwrap(), 2);
    assert_eq!(store.command(&old, &Verb::Expire, at(10)).await.unwrap(), 0);
    assert_eq!(held("erp").await, [5].map(id));
    assert!(
        store
            .claim(&ask(10), NODE, at(11))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        store
            .due(at(11))
            .await
            .unwrap()
            .iter()
            .any(|due| due.lane == Some(lane.clone()))
    );
    let ask = Ask {
        lane: Some(lane.clone()),
        whose: Whose::InTurns,
        ..ask(10).remove(0)
    };
    let jobs = store
        .claim(std::slice::from_ref(&ask), NODE, at(11))
        .await
        .unwrap();
    assert_eq!(jobs.len(), 2);
    // A crash before it is settled: it is there again, and nowhere else.
    store.beat(&Standing::default()).await.unwrap();
    assert!(
        store
            .claim(&self::ask(10), NODE, at(12))
            .await
            .unwrap()
            .iter()
            .all(|job| job.message.id == id(7))
    );
    let jobs = store.claim(&[ask], NODE, at(12)).await.unwrap();
    assert_eq!(jobs.len(), 2);
    for job in &jobs {
        let failed = vec![("a@x.example", failed()), ("b@x.example", self::failed())];
        let mut settled = settlement(job, failed);
        settled.bounces = vec![mail(
            100 + u128::from(job.message.id == id(4)),
            &["app@corp.example"],
        )];
        store.settle(settled, at(12)).await.unwrap();
    }
    assert_eq!(looks(&*store, id(4)).await.0, JobState::Failed);
    // Brought back by the operator it is sent, and held by nobody.
    assert_eq!(
        store
            .command(&only(id(4)), &Verb::Retry, at(13))
            .await
            .unwrap(),
        1
    );
    let entry = store.list(&only(id(4)), at(13)).await.unwrap().remove(0);
    assert_eq!(
        (entry.state, entry.lane, entry.held_by),
        (JobState::Waiting, None, None)
    );
    assert_eq!(
        store
            .command(&of("erp"), &Verb::Drop, at(13))
            .await
            .unwrap(),
        1
    );
    assert!(held("erp").await.is_empty());
}

async fn verbs_take_what_the_filter_says(store: Arc<dyn Store>) {
    for n in 1..=5 {
        let to = format!("r{n}@x.example");
        store
            .insert(&mail(n, &[&to]), &[], at(n as u64))
            .await
            .unwrap();
    }
    let filter = |states: Vec<JobState>| Filter {
        states,
        ..Filter::default()
    };
    let all = Filter::default();
    let of = Filter {
        recipient: Some(Pattern::parse("r2@x.example").unwrap()),
        sender: Some(Pattern::parse("*@corp.example").unwrap()),
        ..Filter::default()
    };
    assert_eq!(store.command(&of, &Verb::Hold, at(9)).await.unwrap(), 1);
    assert_eq!(store.command(&of, &Verb::Hold, at(9)).await.unwrap(), 0);
    // Retry does not release.
    assert_eq!(store.command(&of, &Verb::Retry, at(9)).await.unwrap(), 0);
    assert_eq!(store.claim(&ask(9), NODE, at(9)).await.unwrap().len(), 4);
    store.beat(&Standing::default()).await.unwrap();
    assert_eq!(store.command(&of, &Verb::Release, at(9)).await.unwrap(), 1);
    let older = Filter {
        older: Some(at(2)),
        ..Filter::default()
    };
    assert_eq!(store.command(&older, &Verb::Fail, at(9)).await.unwrap(), 2);
    assert_eq!(
        store
            .list(&filter(vec![JobState::Failed]), at(9))
            .await
            .unwrap()
            .len(),
        2
    );
    let stats = store.stats().await.unwrap();
    assert_eq!(
        (stats.waiting, stats.failed, stats.oldest),
        (3, 2, Some(at(3)))
    );
    let two = Filter {
        limit: Some(2),
        states: vec![JobState::Waiting],
        ..Filter::default()
    };
    let listed = store.list(&two, at(9)).await.unwrap();
    assert_eq!(
        listed.iter().map(|e| e.accepted).collect::<Vec<_>>(),
        [at(3), at(4)]
    );
    let to = Verb::Reroute(RouteName::from("new"));
    assert_eq!(store.command(&two, &to, at(9)).await.unwrap(), 2);
    let moved = Filter {
        route: Some(RouteName::from("new")),
        ..Filter::default()
    };
    assert_eq!(store.list(&moved, at(9)).await.unwrap().len(), 2);
    assert_eq!(store.command(&all, &Verb::Drop, at(9)).await.unwrap(), 5);
    assert_eq!(store.command(&all, &Verb::Retry, at(9)).await.unwrap(), 0);
    assert_eq!(
        store
            .list(&filter(vec![JobState::Done]), at(9))
            .await
            .unwrap()
            .len(),
        5
    );
}

async fn retention(store: Arc<dyn Store>) {
    for n in 1..=2 {
        store
            .insert(&mail(n, &["a@x.example"]), &[], at(0))
            .await
            .unwrap();
        let job = claim_one(&*store, at(0)).await;
        let what = if n == 1 { done() } else { failed() };
        store
            .settle(settlement(&job, vec![("a@x.example", what)]), at(0))
            .await
            .unwrap();
    }
    store
        .insert(&mail(3, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    let prune_after =
        async |days: u32| prune(&*store, 14 * DAY, 30 * DAY, at(0) + days * DAY).await;
    assert!(prune_after(13).await.is_empty());
    let lines = prune_after(14).await;
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("a@x.example"));
    assert!(
        store
            .content(MessageId::new(at(0), 2))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        store.list(&Filter::default(), at(0)).await.unwrap().len(),
        3
    );
    assert!(prune_after(31).await.is_empty());
    assert_eq!(
        store.list(&Filter::default(), at(0)).await.unwrap().len(),
        1
    );
    assert!(
        store
            .events(MessageId::new(at(0), 1))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn history_goes_whatever_the_clock_did_and_numbers_are_given_again(store: Arc<dyn Store>) {
    let count = async || store.list(&Filter::default(), at(0)).await.unwrap().len();
    // The first came while the clock was years ahead; one is held for ever; the others end.
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0) + 999 * DAY)
        .await
        .unwrap();
    for n in 2..=500 {
        store
            .insert(&mail(n, &["a@x.example"]), &[], at(0))
            .await
            .unwrap();
    }
    let held = MessageId::new(at(0), 300);
    store
        .command(&only(held), &Verb::Hold, at(0))
        .await
        .unwrap();
    let waiting = Filter {
        states: vec![JobState::Waiting],
        ..Filter::default()
    };
    assert_eq!(
        store.command(&waiting, &Verb::Drop, at(1)).await.unwrap(),
        499
    );
    store
        .insert(&mail(501, &["a@x.example"]), &[], at(0) + 20 * DAY)
        .await
        .unwrap();
    prune(&*store, DAY, 30 * DAY, at(0) + 30 * DAY).await;
    assert_eq!(count().await, 501);
    prune(&*store, DAY, 30 * DAY, at(2) + 30 * DAY).await;
    // The held one, and the last.
    assert_eq!(count().await, 2);
    assert!(
        store
            .events(MessageId::new(at(0), 2))
            .await
            .unwrap()
            .is_empty()
    );
    store
        .command(&Filter::default(), &Verb::Drop, at(1))
        .await
        .unwrap();
    prune(&*store, DAY, DAY, at(0) + 2000 * DAY).await;
    assert_eq!(count().await, 0);

    for n in 1..=40 {
        let mail = mail(n, &["a@x.example"]);
        store.insert(&mail, &[], at(0)).await.unwrap();
        let again = store.insert(&mail, &[], at(0)).await;
        assert!(matches!(again, Err(StoreError::Unavailable(_))), "{n}");
    }
    for n in 1..=40 {
        let id = MessageId::new(at(0), n);
        assert_eq!(store.events(id).await.unwrap().len(), 1, "{n}");
        assert_eq!(store.list(&only(id), at(0)).await.unwrap().len(), 1, "{n}");
        assert_eq!(store.content(id).await.unwrap().unwrap().id, id);
    }
    let gone = MessageId::new(at(0), 41);
    assert!(store.list(&only(gone), at(0)).await.unwrap().is_empty());
    assert!(store.content(gone).await.unwrap().is_none());
}

async fn a_job_split_off_never_has_the_number_of_one_that_is_done(store: Arc<dyn Store>) {
    let sent = mail(1, &["a@x.example", "b@x.example", "c@x.example"]);
    store.insert(&sent, &[], at(0)).await.unwrap();
    let pinned = vec![Ask {
        pinned: Some(ConnectorName::from("up")),
        ..ask(10).remove(0)
    }];
    let mut seen = Vec::new();
    for (doubtful, others) in [
        ("a@x.example", vec!["b@x.example", "c@x.example"]),
        ("b@x.example", vec!["c@x.example"]),
    ] {
        let job = claim_one(&*store, at(100)).await;
        let mut outcome: Vec<_> = others.into_iter().map(|a| (a, deferred())).collect();
        outcome.push((doubtful, in_doubt()));
        let mut first = settlement(&job, outcome);
        first.in_doubt = Some((ConnectorName::from("up"), at(50)));
        store.settle(first, at(1)).await.unwrap();
        let mut split = store.claim(&pinned, NODE, at(100)).await.unwrap();
        assert_eq!(split.len(), 1);
        let split = split.remove(0);
        assert_eq!(split.recipients, [address(doubtful)]);
        assert!(!seen.contains(&split.id), "{seen:?}");
        seen.push(split.id);
        store
            .settle(settlement(&split, vec![(doubtful, done())]), at(2))
            .await
            .unwrap();
        assert_eq!(looks(&*store, sent.message.id).await.0, JobState::Waiting);
    }
    let job = claim_one(&*store, at(100)).await;
    assert_eq!(job.recipients, [address("c@x.example")]);
    store
        .settle(settlement(&job, vec![("c@x.example", done())]), at(3))
        .await
        .unwrap();
    let entries = store.list(&only(sent.message.id), at(3)).await.unwrap();
    assert_eq!((entries.len(), entries[0].state), (1, JobState::Done));
    assert_eq!((entries[0].recipients.len(), entries[0].attempts), (3, 3));
    assert!(store.content(sent.message.id).await.unwrap().is_none());
}

async fn lanes_and_notes(store: Arc<dyn Store>) {
    let row = |lane: &str, version| LaneRow {
        lane: LaneId::parse(lane),
        state: LaneState::Paused,
        since: at(1),
        why: "consent is missing".into(),
        probe: Some(at(2)),
        version,
        node: NodeId::default(),
    };
    let open = |lane: &str, version| LaneRow {
        state: LaneState::Open,
        probe: None,
        ..row(lane, version)
    };
    let (mailbox, whole) = ("exchange/a@x.example", "exchange");
    let set = async |row: LaneRow| store.set_lane(row).await.unwrap();
    assert!(set(row(mailbox, 0)).await && set(row(whole, 0)).await);
    let rows = [row(whole, 1), row(mailbox, 1)];
    assert_eq!(store.lanes().await.unwrap(), rows);
    // Whoever has not seen what another wrote since writes nothing over it.
    for version in [0, 2] {
        assert!(!set(open(whole, version)).await && !set(open(mailbox, version)).await);
    }
    assert_eq!(store.lanes().await.unwrap(), rows);
    assert!(set(row(whole, 1)).await && !set(row(whole, 1)).await);
    // Of mailboxes there are as many as senders: one that is open is forgotten.
    assert!(set(open(mailbox, 1)).await && set(open(whole, 2)).await);
    assert_eq!(store.lanes().await.unwrap(), [open(whole, 3)]);
    assert!(!set(row(mailbox, 1)).await && set(row(mailbox, 0)).await);
    assert!(set(open(mailbox, 1)).await);
    assert_eq!(store.note("k").await.unwrap(), None);
    store.set_note("k", "1".into()).await.unwrap();
    store.set_note("k", "2".into()).await.unwrap();
    assert_eq!(store.note("k").await.unwrap().as_deref(), Some("2"));
    // Over what was seen, and over nothing else; what stands there already was written by whoever asks again.
    let replace = async |key: &str, seen: Option<&str>, value: &str| {
        let seen = seen.map(str::to_owned);
        store.replace_note(key, seen, value.into()).await.unwrap()
    };
    assert!(!replace("k", None, "3").await && !replace("k", Some("1"), "3").await);
    assert_eq!(store.note("k").await.unwrap().as_deref(), Some("2"));
    assert!(replace("k", Some("2"), "3").await && replace("k", Some("2"), "3").await);
    assert_eq!(store.note("k").await.unwrap().as_deref(), Some("3"));
    assert!(!replace("gone", Some("1"), "2").await);
    assert_eq!(store.note("gone").await.unwrap(), None);
    assert!(replace("new", None, "1").await && !replace("new", None, "2").await);
    assert_eq!(store.note("new").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn large_bodies_are_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = async |n: u128| {
        let id = MessageId::new(at(0), n);
        let mut writer = store.bodies().writer(id);
        writer.append(&vec![b'x'; 100_000]).await.unwrap();
        let body = writer.finish().await.unwrap();
        (dir.path().join(format!("data/spool/{id}")), body)
    };
    let (path, body) = file(1).await;
    store
        .insert(&mail_with(1, &["a@x.example"], body), &[], at(0))
        .await
        .unwrap();
    assert!(path.exists(), "kept when the row is committed");
    let (orphan, body) = file(2).await;
    std::mem::forget(body);
    store.beat(&Standing::default()).await.unwrap();
    assert!(path.exists() && !orphan.exists());
    let job = claim_one(&*store, at(0)).await;
    assert_eq!(job.message.body.len(), 100_000);
    store
        .settle(settlement(&job, vec![("a@x.example", done())]), at(1))
        .await
        .unwrap();
    beat(&*store).await;
    assert!(!path.exists(), "deleted with the message");

    // A damaged message is put aside, the others go on.
    let (path, body) = file(3).await;
    store
        .insert(&mail_with(3, &["a@x.example"], body), &[], at(0))
        .await
        .unwrap();
    store
        .insert(&mail(4, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    std::fs::write(&path, "short").unwrap();
    assert_eq!(
        claim_one(&*store, at(0)).await.message.id,
        MessageId::new(at(0), 4)
    );
    assert_eq!(
        looks(&*store, MessageId::new(at(0), 3)).await.0,
        JobState::Held
    );
}

#[tokio::test]
async fn reopened_it_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    let job = claim_one(&*store, at(0)).await;
    store
        .command(&only(job.message.id), &Verb::Hold, at(1))
        .await
        .unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(looks(&*store, job.message.id).await.0, JobState::Sending);
    store.beat(&Standing::default()).await.unwrap();
    assert_eq!(looks(&*store, job.message.id).await.0, JobState::Held);
    let kinds: Vec<_> = store
        .events(job.message.id)
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(kinds, ["accepted", "held", "interrupted", "held"]);
    drop(store);

    let data = dir.path().join("data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("spool"))), (0o700, 0o700));
    assert_eq!(
        (mode(&data.join("queue.db")), mode(&data.join("ballast"))),
        (0o600, 0o600)
    );

    let raw = rusqlite::Connection::open(data.join("queue.db")).unwrap();
    let vacuum: i64 = raw
        .pragma_query_value(None, "auto_vacuum", |r| r.get(0))
        .unwrap();
    assert_eq!(vacuum, 2, "incremental");
    let plan = |sql: &str| -> String {
        raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([], |r| r.get::<_, String>(3))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let claim = plan(
        "SELECT id FROM job INDEXED BY job_due WHERE state = 2 AND route = 'a' AND pinned = '' AND lane = '' AND client = 1 AND sender = 2 AND due <= 5 ORDER BY due LIMIT 3",
    );
    assert!(
        claim.contains("route=? AND pinned=? AND lane=? AND client=? AND sender=? AND due<?")
            && !claim.contains("TEMP"),
        "{claim}"
    );
    let due = plan(
        "SELECT route, pinned, lane FROM job INDEXED BY job_due WHERE state = 2 AND route = 'a' AND pinned = '' AND lane > '' ORDER BY lane LIMIT 1",
    );
    assert!(due.contains("SEARCH") && !due.contains("TEMP"), "{due}");
    let pair = plan(
        "SELECT client, sender, due FROM job INDEXED BY job_due WHERE state = 2 AND route = 'a' AND pinned = '' AND lane = ''
           AND (client, sender) >= (1, 2) ORDER BY client, sender, due LIMIT 1",
    );
    assert!(
        pair.contains("lane=? AND (client,sender)>(?,?)") && !pair.contains("TEMP"),
        "{pair}"
    );
    raw.execute_batch(
        "PRAGMA user_version = 99; UPDATE note SET value = '99' WHERE key = 'readable by schema'",
    )
    .unwrap();
    let newer = SqliteStore::open(&Settings {
        data_dir: data,
        keep_failed: DAY,
        keep_history: DAY,
    });
    assert!(
        newer
            .unwrap_err()
            .to_string()
            .contains("a newer postern (schema 99")
    );
}

#[tokio::test]
async fn many_share_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = store.commits();
    // Nothing can be written until they all wait.
    let other = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        all.spawn(async move { store.insert(&mail(n, &["a@x.example"]), &[], at(0)).await });
    }
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    // One of them fails and takes nobody along.
    let twice = store.insert(&mail(1, &["a@x.example"]), &[], at(0)).await;
    let results = all.join_all().await;
    assert_eq!(
        results.iter().filter(|r| r.is_ok()).count() + usize::from(twice.is_ok()),
        200
    );
    let commits = store.commits() - before;
    assert!(commits < 100, "{commits} commits");
    assert_eq!(store.stats().await.unwrap().waiting, 200);
}

#[tokio::test]
async fn two_processes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    assert!(!beat(&*one).await);
    one.insert(&mail(1000, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    assert!(!beat(&*one).await, "its own writes do not count");
    let mut all = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = if n % 2 == 0 { one.clone() } else { two.clone() };
        all.spawn(async move { store.insert(&mail(n, &["a@x.example"]), &[], at(0)).await });
    }
    assert!(all.join_all().await.iter().all(Result::is_ok));
    assert!(beat(&*one).await);
    assert!(!beat(&*one).await, "once");
    let claimed = tokio::join!(
        async { one.claim(&ask(80), NODE, at(0)).await.unwrap().len() },
        async { two.claim(&ask(80), NODE, at(0)).await.unwrap().len() }
    );
    assert_eq!(claimed.0 + claimed.1, 101, "none twice");
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    let job = claim_one(&*store, at(0)).await;
    store.limit_pages(1).await.unwrap();
    let mut n = 2;
    loop {
        let body = Body::Memory(vec![b'x'; 60_000].into());
        match store
            .insert(&mail_with(n, &["a@x.example"], body), &[], at(0))
            .await
        {
            Ok(_) => n += 1,
            Err(StoreError::Full) => break,
            Err(other) => unreachable!("{other}"),
        }
        assert!(n < 10);
    }
    assert_ne!(store.health(), Health::Failing);
    let mut settled = settlement(&job, vec![("a@x.example", failed())]);
    settled.bounces = vec![mail_with(
        99,
        &["app@corp.example"],
        Body::Memory(vec![b'x'; 60_000].into()),
    )];
    let freed = Instant::now();
    assert!(matches!(
        store.settle(settled, at(1)).await,
        Err(StoreError::Full)
    ));
    assert_eq!(looks(&*store, job.message.id).await.0, JobState::Sending);
    store.limit_pages(0).await.unwrap();
    // The ballast was freed: no mail until it is back, which is looked at every second.
    assert_eq!(store.health(), Health::Full);
    let now = store.insert(&mail(50, &["a@x.example"]), &[], at(0)).await;
    assert!(matches!(now, Err(StoreError::Full)) || freed.elapsed() > Duration::from_millis(900));
    store
        .settle(settlement(&job, vec![("a@x.example", done())]), at(1))
        .await
        .unwrap();
    assert_eq!(looks(&*store, job.message.id).await.0, JobState::Done);
    until("room", async || {
        let again = mail(50, &["a@x.example"]);
        store.insert(&again, &[], at(0)).await.is_ok()
    })
    .await;
    assert!(dir.path().join("data/ballast").exists());
}

#[tokio::test]
#[ignore = "mounts a small disk as root; tests/run runs it"]
async fn on_a_disk_without_an_octet_left_all_that_was_sent_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = crate::harness::peers::small_disk(dir.path(), 64);
    let store = open(dir.path());
    for n in 1..=300 {
        let body = Body::Memory(vec![b'x'; 60_000].into());
        store
            .insert(&mail_with(n, &["a@x.example"], body), &[], at(0))
            .await
            .unwrap();
    }
    let jobs = store.claim(&ask(300), NODE, at(0)).await.unwrap();
    assert_eq!(jobs.len(), 300);
    // Its journal is as short as it can be: there is no room in it either.
    let raw = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(raw);
    let mut filler = std::fs::File::create(dir.path().join("filler")).unwrap();
    let block = vec![1; 4096];
    while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    for job in jobs {
        store
            .settle(settlement(&job, vec![("a@x.example", done())]), at(1))
            .await
            .unwrap();
    }
    assert_eq!(store.health(), Health::Full);
    assert_eq!(store.stats().await.unwrap().sending, 0);
    // Somebody makes room: it takes mail again, and needs no more for that than to be asked for it.
    drop(filler);
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    until("room", async || {
        shrink(&*store, GiveBack::All).await;
        store.health() == Health::Fine
    })
    .await;
    store
        .insert(&mail(999, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_longer_used_is_given_back_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let body = |n: u128| Body::Memory(vec![b'a' + (n % 26) as u8; 60_000].into());
    for n in 1..=400 {
        store
            .insert(&mail_with(n, &["a@x.example"], body(n)), &[], at(0))
            .await
            .unwrap();
    }
    let size = |name: &str| {
        std::fs::metadata(dir.path().join("data").join(name))
            .unwrap()
            .len()
    };
    // Every tenth stays.
    let mut sent = 0;
    for job in store.claim(&ask(400), NODE, at(0)).await.unwrap() {
        if sent % 10 != 0 {
            store
                .settle(settlement(&job, vec![("a@x.example", done())]), at(1))
                .await
                .unwrap();
        }
        sent += 1;
    }
    assert_eq!(sent, 400);
    let shrink_to = async |how_much| while shrink(&*store, how_much).await {};
    shrink_to(GiveBack::Spare).await;
    let raw = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    let free = || {
        raw.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(free(), 1_000, "some are left for the mail to come");
    // While somebody reads what was, nothing is moved: the journal would only grow.
    store.set_note("some", "change".to_owned()).await.unwrap();
    raw.execute_batch("BEGIN; SELECT count(*) FROM message")
        .unwrap();
    store.set_note("some", "other".to_owned()).await.unwrap();
    let before = (free(), size("queue.db-wal"));
    assert!(shrink(&*store, GiveBack::All).await);
    assert_eq!((free(), size("queue.db-wal")), before);
    raw.execute_batch("COMMIT").unwrap();
    shrink_to(GiveBack::All).await;
    assert_eq!(free(), 0);
    assert!(
        size("queue.db") < 40 * 66_000 + 600_000,
        "{}",
        size("queue.db")
    );
    drop(raw);
    assert_eq!(store.health(), Health::Fine);
    // What is kept is whole.
    let kept = store.list(&Filter::default(), at(1)).await.unwrap();
    let kept: Vec<MessageId> = kept
        .iter()
        .filter(|entry| entry.state != JobState::Done)
        .map(|entry| entry.id)
        .collect();
    assert_eq!(kept.len(), 40);
    for id in kept {
        let message = store.content(id).await.unwrap().unwrap();
        let Body::Memory(found) = &message.body else {
            unreachable!("{id}");
        };
        assert!(
            found.len() == 60_000 && found.iter().all(|b| *b == found[0]),
            "{id}"
        );
    }
}

/// A backup that locks the database, say: nothing can be taken in, and whoever asks hears it. Those who wait do so beside each
/// other, not one after the other.
#[tokio::test]
async fn a_database_that_somebody_keeps_locked_fails_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let insert = |n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.insert(&mail(n, &["a@x.example"]), &[], at(0)).await })
    };
    let waiting: Vec<_> = (1..=20).map(insert).collect();
    for one in waiting {
        let refused = one.await.unwrap();
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
    }
    // A write waits five seconds; one or two more may have begun before the others came.
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(store.health(), Health::Failing);
    other.execute_batch("COMMIT").unwrap();
    until("the store works again", async || {
        store.health() == Health::Fine
    })
    .await;
    assert!(
        store
            .insert(&mail(30, &["a@x.example"]), &[], at(0))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_lease_nobody_heard_of_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .insert(&mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    let asks = ask(1);
    // Polled once: the writer has it and cannot write yet, the caller is gone.
    let other = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut claim = store.claim(&asks, NODE, at(0));
    let mut context = Context::from_waker(Waker::noop());
    assert!(claim.as_mut().poll(&mut context).is_pending());
    drop(claim);
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    beat(&*store).await;
    beat(&*store).await;
    assert_eq!(
        claim_one(&*store, at(0)).await.message.id,
        MessageId::new(at(0), 1)
    );
}

#[tokio::test]
async fn accept_hands_over_or_rings() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::new(open(dir.path()));
    queue
        .accept(mail(1, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    queue.changed().await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let into = got.clone();
    queue.set_reserve(Some(Arc::new(move |_: &Routed| {
        let into = into.clone();
        postern::queue::Placement::Now(postern::queue::Reservation {
            connector: ConnectorName::from("up"),
            hand_over: Box::new(move |job: Job| into.lock().unwrap().push(job)),
        })
    })));
    queue
        .accept(mail(2, &["b@x.example"]), &[], at(0))
        .await
        .unwrap();
    let job = got.lock().unwrap().remove(0);
    assert_eq!(job.recipients, [address("b@x.example")]);
    assert_eq!(
        looks(&**queue.store(), job.message.id).await.0,
        JobState::Sending
    );
    // An insert that fails keeps the reservation from being used.
    assert!(
        queue
            .accept(mail(2, &["b@x.example"]), &[], at(0))
            .await
            .is_err()
    );
    assert!(got.lock().unwrap().is_empty());
    queue.set_reserve(None);
    queue
        .accept(mail(3, &["b@x.example"]), &[], at(0))
        .await
        .unwrap();
    queue.changed().await;
    let mut writer = queue.body_writer(job.message.id);
    writer.append(&vec![b'x'; 300_000]).await.unwrap();
    let file = format!("data/spool/{}", job.message.id);
    assert!(dir.path().join(file).exists());
}

#[tokio::test]
async fn every_third_call_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = Flaky::new(open(dir.path()), 3);
    let mut good = 0;
    for n in 0..9 {
        good += u32::from(
            store
                .insert(&mail(n, &["a@x.example"]), &[], at(0))
                .await
                .is_ok(),
        );
    }
    assert_eq!(good, 6);
}

async fn what_waits_for_its_turn_in_a_lane_is_claimed_for_that_lane_alone(store: Arc<dyn Store>) {
    let in_lane = |lane: &str| {
        vec![Ask {
            lane: Some(LaneId::parse(lane)),
            ..ask(10).remove(0)
        }]
    };
    for n in 1..=4 {
        store
            .insert(&mail(n, &["a@x.example", "b@x.example"]), &[], at(0))
            .await
            .unwrap();
    }
    for (job, lane) in store
        .claim(&ask(3), NODE, at(0))
        .await
        .unwrap()
        .iter()
        .zip(["up/a", "up/a", "up/b"])
    {
        let mut settlement = settlement(job, Vec::new());
        (settlement.attempted, settlement.next) = (false, at(0));
        settlement.lane = Some(LaneId::parse(lane));
        store.settle(settlement, at(1)).await.unwrap();
    }
    assert_eq!(
        store.due(at(0)).await.unwrap(),
        vec![
            due(None, None, at(0)),
            due(None, Some("up/a"), at(0)),
            due(None, Some("up/b"), at(0)),
        ]
    );
    let entries = store.list(&Filter::default(), at(1)).await.unwrap();
    let lanes: Vec<_> = entries.iter().map(|e| e.lane.clone()).collect();
    assert_eq!(
        lanes,
        [Some("up/a"), Some("up/a"), Some("up/b"), None].map(|lane| lane.map(LaneId::parse)),
        "as an operator sees it"
    );
    // Behind three that wait for their lanes, nothing waits.
    let free = store.claim(&ask(10), NODE, at(1)).await.unwrap();
    assert_eq!((free.len(), &free[0].lane), (1, &None));
    let of_a = store.claim(&in_lane("up/a"), NODE, at(1)).await.unwrap();
    assert_eq!((of_a.len(), of_a[0].attempts), (2, 0));
    assert_eq!(of_a[0].lane, Some(LaneId::parse("up/a")));
    // What was tried waits for its time; what is in doubt for its time, too, whatever is said of a lane.
    store
        .settle(
            settlement(&of_a[0], vec![("a@x.example", deferred())]),
            at(2),
        )
        .await
        .unwrap();
    let mut doubt = settlement(
        &of_a[1],
        vec![("a@x.example", in_doubt()), ("b@x.example", deferred())],
    );
    doubt.in_doubt = Some((ConnectorName::from("exchange"), at(70)));
    doubt.lane = Some(LaneId::parse("up/a"));
    store.settle(doubt, at(2)).await.unwrap();
    // Another route has other lanes.
    let moved = store
        .command(
            &only(MessageId::new(at(0), 3)),
            &Verb::Reroute(RouteName::from("other")),
            at(3),
        )
        .await;
    assert_eq!(moved.unwrap(), 1);
    let mut other = due(None, None, at(0));
    other.route = RouteName::from("other");
    let mut expected = vec![
        other,
        due(None, None, at(60)),
        due(None, Some("up/a"), at(60)),
        due(Some("exchange"), None, at(70)),
    ];
    expected.sort_by(|a, b| a.route.as_str().cmp(b.route.as_str()));
    assert_eq!(store.due(at(0)).await.unwrap(), expected);
}

async fn deliveries_are_remembered_with_their_recipients(store: Arc<dyn Store>) {
    let all = ["a@x.example", "b@x.example", "c@x.example"];
    store.insert(&mail(1, &all), &[], at(0)).await.unwrap();
    let event = |seconds, kind: &str, recipients: &[&str], text: &str| Event {
        at: at(seconds),
        kind: EventKind::parse(kind),
        recipients: recipients.iter().map(|&r| r.to_owned()).collect(),
        text: text.into(),
    };
    let job = claim_one(&*store, at(0)).await;
    let over = event(1, "passed over", &[], "first is closed");
    let both = event(
        1,
        "delivered",
        &["a@x.example", "c@x.example"],
        "up: 250 ok",
    );
    let later = event(1, "deferred", &["b@x.example"], "up: 451 later");
    let mut first = settlement(
        &job,
        vec![
            ("a@x.example", done()),
            ("b@x.example", deferred()),
            ("c@x.example", done()),
        ],
    );
    first.events = vec![over.clone(), both.clone(), later.clone()];
    store.settle(first, at(1)).await.unwrap();
    let job = claim_one(&*store, at(60)).await;
    let alone = event(61, "delivered", &["b@x.example"], "up: 250 ok");
    let mut second = settlement(&job, vec![("b@x.example", done())]);
    second.events = vec![alone.clone()];
    store.settle(second, at(61)).await.unwrap();
    let events = store.events(job.message.id).await.unwrap();
    assert_eq!(events[1..], [over, later, both, alone]);
}

/// Nothing is asked of these.
fn unasked(n: u128) -> Routed {
    let mut mail = mail(n, &["app@corp.example"]);
    let message = Arc::make_mut(&mut mail.message);
    message.envelope.recipients[0].dsn = None;
    message.envelope.dsn = None;
    mail.jobs[0].1[0].dsn = None;
    mail
}

async fn who_waits_for_word_is_told_once(store: Arc<dyn Store>) {
    let ids = |ns: &[u128]| -> Vec<_> { ns.iter().map(|n| MessageId::new(at(0), *n)).collect() };
    store
        .insert(&mail(1, &["a@x.example", "b@x.example"]), &[], at(0))
        .await
        .unwrap();
    store.insert(&unasked(2), &[], at(0)).await.unwrap();
    store
        .insert(&mail(3, &["c@x.example"]), &[], at(50))
        .await
        .unwrap();
    let mut nobodys = mail(4, &["d@x.example"]);
    Arc::make_mut(&mut nobodys.message).envelope.sender = None;
    store.insert(&nobodys, &[], at(0)).await.unwrap();
    let late = async |by: u64, limit| store.late(at(by), limit).await.unwrap();
    assert_eq!(late(49, 9).await, ids(&[1]));
    assert_eq!(late(50, 9).await, ids(&[1, 3]));
    assert_eq!(late(50, 1).await, ids(&[1]));
    let entries = store
        .list(&Filter::of(MessageId::new(at(0), 1)), at(0))
        .await
        .unwrap();
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry.envid.as_deref(), Some("QQ+3D1"));
    let notify: Vec<_> = entry.recipients.iter().map(|one| one.notify).collect();
    assert_eq!(notify, [Notify::parse("DELAY"), None]);
    let notice = LateNotice {
        message: MessageId::new(at(0), 1),
        reports: vec![unasked(5)],
        event: Some(Event {
            at: at(60),
            kind: EventKind::Reported,
            recipients: vec!["app@corp.example".into()],
            text: "delayed".into(),
        }),
    };
    assert!(store.tell_late(notice.clone(), at(60)).await.unwrap());
    assert!(!store.tell_late(notice.clone(), at(61)).await.unwrap());
    assert_eq!(
        looks(&*store, MessageId::new(at(0), 5)).await.0,
        JobState::Waiting
    );
    let told = store.events(MessageId::new(at(0), 1)).await.unwrap();
    let told: Vec<_> = told
        .iter()
        .filter(|event| event.kind == EventKind::Reported)
        .collect();
    assert_eq!((told.len(), told[0].text.as_str()), (1, "delayed"));
    assert_eq!(late(50, 9).await, ids(&[3]));
    // Over, it is not late, and nobody is told.
    let jobs = store.claim(&ask(9), NODE, at(70)).await.unwrap();
    let job = jobs
        .iter()
        .find(|job| job.message.id == MessageId::new(at(0), 3))
        .unwrap();
    let mut settled = settlement(job, vec![("c@x.example", done())]);
    settled.receipts = vec![unasked(6)];
    store.settle(settled, at(71)).await.unwrap();
    assert_eq!(
        looks(&*store, MessageId::new(at(0), 6)).await.0,
        JobState::Waiting
    );
    assert_eq!(late(50, 9).await, ids(&[]));
    let notice = LateNotice {
        message: MessageId::new(at(0), 3),
        reports: vec![unasked(7)],
        event: None,
    };
    assert!(!store.tell_late(notice, at(72)).await.unwrap());
    assert!(
        store
            .list(&Filter::of(MessageId::new(at(0), 7)), at(0))
            .await
            .unwrap()
            .is_empty()
    );
}

/// As the version before DSN left it, mail and all.
#[tokio::test]
async fn a_queue_of_the_schema_before_dsn_is_migrated_with_its_mail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.insert(&unasked(1), &[], at(0)).await.unwrap();
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    raw.execute_batch(WITHOUT_DSN).unwrap();
    raw.pragma_update(None, "user_version", 6).unwrap();
    drop(raw);
    let store = open(dir.path());
    assert!(store.late(at(9), 9).await.unwrap().is_empty());
    let job = claim_one(&*store, at(9)).await;
    assert_eq!(job.message.envelope, unasked(1).message.envelope);
    store
        .insert(&mail(2, &["a@x.example"]), &[], at(0))
        .await
        .unwrap();
    assert_eq!(
        store.late(at(9), 9).await.unwrap(),
        [MessageId::new(at(0), 2)]
    );
    let job = claim_one(&*store, at(9)).await;
    assert_eq!(
        job.message.envelope,
        mail(2, &["a@x.example"]).message.envelope
    );
    // The version before may work on it: it names the columns that it knows.
    let raw = rusqlite::Connection::open(dir.path().join("data/queue.db")).unwrap();
    let readable: String = raw
        .query_row(
            "SELECT value FROM note WHERE key = 'readable by schema'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(readable, "6");
}

/// Makes of the tables those of schema 6.
pub(crate) const WITHOUT_DSN: &str = "DROP INDEX message_late;
    ALTER TABLE message DROP COLUMN dsn;
    ALTER TABLE message DROP COLUMN tell_late;";

#[tokio::test]
async fn a_queue_of_another_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join("data/queue.db");
    let here = env!("CARGO_PKG_VERSION");
    for (schema, notes, said) in [
        (
            2,
            "",
            "the store does not work: it was written by an older version of Postern (schema 2; this one knows 7)".to_owned(),
        ),
        (
            9,
            "UPDATE note SET value = '9' WHERE key = 'readable by schema'; UPDATE note SET value = '0.4.0' WHERE key = 'written by'",
            format!("the queue was written by postern 0.4.0; this is {here}: nothing was touched"),
        ),
        (
            9,
            "DELETE FROM note",
            format!(
                "the queue was written by a newer postern (schema 9, where this one knows 7); this is {here}: nothing was touched"
            ),
        ),
    ] {
        let raw = rusqlite::Connection::open(&file).unwrap();
        raw.pragma_update(None, "user_version", schema).unwrap();
        raw.execute_batch(notes).unwrap();
        // As `kill -9` leaves it: what was written last is in the journal alone.
        raw.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        drop(raw);
        let files = || {
            ["data/queue.db", "data/queue.db-wal"].map(|name| std::fs::read(dir.path().join(name)).unwrap())
        };
        let before = files();
        let error = SqliteStore::open(&settings(dir.path())).unwrap_err();
        assert_eq!(error.to_string(), said);
        let asked = postern::queue::written_by_newer(&dir.path().join("data"));
        assert_eq!(asked.map(|error| error.to_string()), (schema > 7).then_some(said));
        assert!(files() == before);
    }
}

/// A newer one that says so is worked on by this one, and what it wrote of itself stays.
#[tokio::test]
async fn a_newer_queue_that_this_program_can_read_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join("data/queue.db");
    let raw = rusqlite::Connection::open(&file).unwrap();
    raw.execute_batch(
        "PRAGMA user_version = 8; UPDATE note SET value = '0.4.0' WHERE key = 'written by'",
    )
    .unwrap();
    drop(raw);
    assert!(postern::queue::written_by_newer(&dir.path().join("data")).is_none());
    drop(open(dir.path()));
    let raw = rusqlite::Connection::open(&file).unwrap();
    let found = |sql: &str| {
        raw.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    assert_eq!(
        found("SELECT CAST(user_version AS TEXT) FROM pragma_user_version"),
        "8"
    );
    assert_eq!(
        found("SELECT value FROM note WHERE key = 'written by'"),
        "0.4.0"
    );
}

#[tokio::test]
async fn twenty_thousand() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut all = tokio::task::JoinSet::new();
    for n in 0..20_000 {
        let store = store.clone();
        all.spawn(async move { store.insert(&mail(n, &["a@x.example"]), &[], at(0)).await });
    }
    assert!(all.join_all().await.iter().all(Result::is_ok));
    assert_eq!(
        store.claim(&ask(100), NODE, at(0)).await.unwrap().len(),
        100
    );
    assert_eq!(store.due(at(0)).await.unwrap().len(), 1);
    for verb in [
        Verb::Hold,
        Verb::Release,
        Verb::Retry,
        Verb::Fail,
        Verb::Retry,
        Verb::Drop,
    ] {
        let taken = store.command(&Filter::default(), &verb, at(9)).await;
        assert_eq!(taken.unwrap(), 20_000, "{verb:?}");
    }
    prune(&*store, DAY, DAY, at(0) + 9 * DAY).await;
    assert_eq!(
        store.list(&Filter::default(), at(9)).await.unwrap().len(),
        100
    );
}

/// A queue as the version before this one left it, and the one before that, whose lanes had no version: everything is kept, and jobs
/// get their turns.
#[tokio::test]
async fn a_queue_of_the_schemas_before_is_migrated_in_place() {
    let before = include_str!("../fixture/queue-schema-4.sql");
    for schema in [3, 4] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let file = dir.path().join("data/queue.db");
        std::fs::remove_file(&file).unwrap();
        let raw = rusqlite::Connection::open(&file).unwrap();
        raw.execute_batch(before).unwrap();
        raw.execute_batch(
            "INSERT INTO lane (lane, state, since, why) VALUES ('up', 'closed', 1, 'it was')",
        )
        .unwrap();
        if schema == 3 {
            raw.execute_batch("ALTER TABLE lane DROP COLUMN version")
                .unwrap();
        }
        raw.pragma_update(None, "user_version", schema).unwrap();
        // As an insert wrote them then; the last has an origin that nobody can read.
        let origin = |peer: &str, user: &str| {
            format!(
                r#"{{"listener":"local","peer":"{peer}","client":null,"helo":"x","tls":false,"esmtp":true,"user":{user},"at":1}}"#
            )
        };
        let rows = [
            (origin("192.0.2.1:25", "null"), Some("a@corp.example"), 2),
            (origin("192.0.2.1:25", "\"app\""), Some("b@corp.example"), 2),
            (origin("[2001:db8::1]:25", "null"), None, 3),
            ("{}".to_owned(), None, 2),
        ];
        for (key, (origin, sender, state)) in (1_i64..).zip(&rows) {
            raw.execute(
                "INSERT INTO message (key, id, accepted, sender, eight_bit, origin, size, body_len, kept) VALUES (?1, ?2, 1, ?3, 1, ?4, 9, 4, 1)",
                rusqlite::params![key, MessageId::new(at(0), key as u128).to_bytes(), sender, origin],
            )
            .unwrap();
            raw.execute("INSERT INTO content VALUES (?1, x'', x'61620d0a')", [key])
                .unwrap();
            raw.execute(
                "INSERT INTO job (id, message, route, pinned, state, due, attempts) VALUES (?1 << 20, ?1, 'main', '', ?2, 1, 0)",
                [key, *state],
            )
            .unwrap();
            raw.execute(
                "INSERT INTO recipient (message, position, job, address, state) VALUES (?1, 0, ?1 << 20, 'x@y.example', 0)",
                [key],
            )
            .unwrap();
        }
        drop(raw);
        for _ in 0..2 {
            let store = open(dir.path());
            let lanes = store.lanes().await.unwrap();
            assert_eq!((lanes.len(), lanes[0].version), (1, 1));
            assert_eq!(
                store.list(&Filter::default(), at(0)).await.unwrap().len(),
                4
            );
        }
        let raw = rusqlite::Connection::open(&file).unwrap();
        let mut kept = raw
            .prepare("SELECT client, sender FROM job ORDER BY id")
            .unwrap();
        let kept: Vec<Pair> = kept
            .query_map([], |row| {
                Ok(Pair {
                    client: row.get(0)?,
                    sender: row.get(1)?,
                })
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let pair = |peer: &str, user: Option<&str>, sender: &str| {
            let origin = Origin {
                peer: peer.parse().unwrap(),
                user: user.map(str::to_owned),
                ..mail(1, &[]).message.origin.clone()
            };
            Pair::of(&origin, sender)
        };
        assert_eq!(
            kept,
            [
                pair("192.0.2.1:1", None, "a@corp.example"),
                pair("192.0.2.9:1", Some("app"), "b@corp.example"),
                pair("[2001:db8::2]:1", None, ""),
                Pair::default()
            ]
        );
        let store = open(dir.path());
        // What cannot be read is put aside, the rest goes.
        assert_eq!(store.claim(&ask(9), NODE, at(0)).await.unwrap().len(), 2);
    }
}
