//! Micro-benchmarks of what a message passes through: `cargo bench`.
//!
//! Apart from `bench/`, which measures the whole gateway beside other relays. Each benchmark asserts once, outside of what is
//! measured, that the measured call does what it should.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark may end at once"
)]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, SystemTime},
};

use divan::{Bencher, counter::BytesCount};
use postern::{
    connector::{
        dkim::{DkimKey, DkimPair},
        smtp::Signer,
    },
    mail::{
        address::{Address, Domain},
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::Outcome,
        pattern::Pattern,
        recipient::Recipient,
        reply::Reply,
    },
    policy::{About, Policy, Who, client::ToleranceLevel, judge::Findings, redirect::Redirected},
    queue::{
        Settings,
        sqlite::SqliteStore,
        store::{
            Ask, Event, Filter, JobId, JobState, Lease, Needle, NodeId, Search, Settled,
            Settlement, Start, Store as _, Whose,
        },
    },
    route::{RouteName, Routed},
    smtp::{
        data::{Decoder, DotStuffer, End, Leniency},
        server::{command, tolerance::Tolerance},
    },
};

use fixture::address;

fn main() {
    divan::main();
}

/// Lines of 76 octets, each or none beginning with a stuffed dot, and the end.
fn wire(octets: usize, dots: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    while wire.len() < octets {
        if dots {
            wire.extend_from_slice(b".");
        }
        wire.extend_from_slice(&[b'.'; 1][..usize::from(dots)]);
        wire.extend_from_slice(&[b'x'; 76]);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

fn decode(bencher: Bencher<'_, '_>, octets: usize, dots: bool) {
    let wire = wire(octets, dots);
    let mut out = Vec::with_capacity(wire.len());
    let decode = |out: &mut Vec<u8>| {
        out.clear();
        let mut decoder = Decoder::new(Leniency::default());
        decoder.decode(black_box(&wire), out)
    };
    assert_eq!(decode(&mut out), (wire.len(), Some(End::Strict)));
    let lines = wire.split(|c| *c == b'\n').count() - 2;
    assert_eq!(out.len(), wire.len() - 3 - if dots { lines } else { 0 });
    bencher
        .counter(BytesCount::new(wire.len()))
        .bench_local(|| decode(&mut out));
}

#[divan::bench(args = [10_240, 1 << 20])]
fn data_decoder(bencher: Bencher<'_, '_>, octets: usize) {
    decode(bencher, octets, false);
}

#[divan::bench(args = [10_240, 1 << 20])]
fn data_decoder_every_line_stuffed(bencher: Bencher<'_, '_>, octets: usize) {
    decode(bencher, octets, true);
}

#[divan::bench(args = [10_240, 1 << 20])]
fn dot_stuffer(bencher: Bencher<'_, '_>, octets: usize) {
    let content = vec![b'x'; octets];
    let mut out = Vec::with_capacity(octets + 5);
    let stuff = |out: &mut Vec<u8>| {
        out.clear();
        let mut stuffer = DotStuffer::new();
        stuffer.encode(black_box(&content), out);
        stuffer.finish(out);
    };
    stuff(&mut out);
    assert!(out.ends_with(b"\r\n.\r\n") && out.len() == octets + 5);
    bencher
        .counter(BytesCount::new(octets))
        .bench_local(|| stuff(&mut out));
}

/// One signature by RSA 2048, and the hash of the body: what `dkim = true` costs a message.
#[divan::bench(args = [1_024, 10_240, 64 * 1024])]
fn dkim_rsa_2048(bencher: Bencher<'_, '_>, octets: usize) {
    let (_, key) = DkimPair::generate(false).unwrap();
    let key = DkimKey {
        domain: Domain::parse("corp.example").unwrap(),
        selector: "p2026".to_owned(),
        key: Some(key),
        from: None,
        until: None,
    };
    let signer = Signer::new(&[key]).unwrap();
    let header = "From: App <app@corp.example>\r\nTo: b@corp.example\r\nSubject: a usual one\r\n\
                  Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@corp.example>\r\n";
    let line = "seventy octets of text, with blanks between the words, as people write\r\n";
    let body = line.repeat(octets / line.len() + 1);
    let message = Message {
        id: MessageId::new(SystemTime::UNIX_EPOCH, 1),
        envelope: Envelope {
            sender: None,
            recipients: Vec::new(),
            eight_bit: false,
            dsn: None,
        },
        origin: origin(),
        header: header.into(),
        body: Body::Memory(body.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let sign = || {
        let signed = signer.sign(black_box(&message), SystemTime::now());
        runtime.block_on(signed).unwrap().by
    };
    assert_eq!(sign(), "corp.example p2026");
    bencher.counter(BytesCount::new(octets)).bench_local(sign);
}

#[divan::bench(args = ["EHLO printer.corp.example", "MAIL FROM:<app@corp.example> SIZE=10240 BODY=8BITMIME", "XYZZY"])]
fn command_line(bencher: Bencher<'_, '_>, line: &str) {
    let tolerance = Tolerance::of(ToleranceLevel::Standard);
    let read = command::parse(line.as_bytes(), &tolerance);
    let unknown = matches!(read, Ok(command::Command::Unknown));
    assert_eq!(unknown, line == "XYZZY");
    bencher.bench_local(|| command::parse(black_box(line.as_bytes()), &tolerance).is_ok());
}

#[divan::bench]
fn rcpt_argument(bencher: Bencher<'_, '_>) {
    let tolerance = Tolerance::of(ToleranceLevel::Standard);
    let rest = b"TO:<someone@corp.example>";
    let extensions = command::Extensions {
        esmtp: true,
        utf8: false,
    };
    let found = command::rcpt(rest, &tolerance, None, extensions);
    let found = found.ok().map(|recipient| recipient.address);
    assert_eq!(found, Some(address("someone@corp.example")));
    bencher.bench_local(|| command::rcpt(black_box(rest), &tolerance, None, extensions).is_ok());
}

fn policy(entries: usize) -> Policy {
    let mut list: Vec<String> = (1..entries)
        .map(|n| format!("app{n}@host{n}.corp.example"))
        .collect();
    list.push("corp.example".into());
    let list = list.join(" ");
    Policy {
        clients: vec![fixture::client("lan", "10.0.0.0/8")],
        ..fixture::policy(&list, &list)
    }
}

/// MAIL and RCPT of one message; the pattern that admits stands last.
#[divan::bench(args = [10, 1000])]
fn policy_decision(bencher: Bencher<'_, '_>, entries: usize) {
    let policy = policy(entries);
    let (sender, recipient) = (address("app@corp.example"), address("ops@corp.example"));
    let decide = |sender: &Address| {
        let who = Who {
            client: policy.client("10.1.2.3".parse().unwrap()),
            user: None,
        };
        let findings = &mut Findings::default();
        policy.mail(who, Some(sender), findings).is_ok()
            && policy.rcpt(who, black_box(&recipient), findings).is_ok()
    };
    assert!(decide(&sender));
    assert!(!decide(&address("app@evil.example")));
    bencher.bench_local(|| decide(black_box(&sender)));
}

fn origin() -> Origin {
    Origin {
        peer: "10.1.2.3:1025".parse().unwrap(),
        client: Some("lan".into()),
        ..fixture::origin(SystemTime::UNIX_EPOCH)
    }
}

/// Judged and edited: Received on top, Date and Message-ID where they are missing, Bcc out.
#[divan::bench]
fn header_edits(bencher: Bencher<'_, '_>) {
    let policy = policy(10);
    let raw =
        b"From: App <app@corp.example>\r\nTo: Ops <ops@corp.example>\r\nBcc: boss@corp.example\r\n\
        Subject: The backup of last night\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n";
    let (origin, sender) = (origin(), address("app@corp.example"));
    let recipients = [address("ops@corp.example").into()];
    let who = Who {
        client: policy.client("10.1.2.3".parse().unwrap()),
        user: None,
    };
    let about = About {
        who,
        id: MessageId::new(SystemTime::UNIX_EPOCH, 1),
        origin: &origin,
        sender_given: Some(&sender),
        sender: Some(&sender),
        rewrite: None,
        recipients: &recipients,
        redirected: &Redirected::default(),
        hostname: "relay.corp.example",
        bounce_from: &sender,
        unquoted_names: false,
    };
    let header = String::from_utf8(policy.header(raw, &about).unwrap()).unwrap();
    assert!(header.starts_with("Received: ") && !header.contains("Bcc:"));
    bencher.bench_local(|| policy.header(black_box(raw), &about).is_ok());
}

/// A store in a folder of its own, and the runtime that asks it.
struct Bench {
    runtime: tokio::runtime::Runtime,
    store: Arc<SqliteStore>,
    number: u128,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            data_dir: dir.path().into(),
            keep_failed: Duration::from_hours(24),
            keep_history: Duration::from_hours(24),
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            store: SqliteStore::open(&settings).unwrap(),
            number: 0,
            _dir: dir,
        }
    }

    fn mails(&mut self, count: usize) -> Vec<Routed> {
        self.mails_of(count, 1, 10_240)
    }

    /// Of so many senders in turn.
    fn mails_of(&mut self, count: usize, senders: u128, octets: usize) -> Vec<Routed> {
        let recipients = vec![Recipient::from(address("ops@corp.example"))];
        (0..count)
            .map(|_| {
                self.number += 1;
                let envelope = Envelope {
                    sender: Some(match self.number % senders {
                        0 => address("app@corp.example"),
                        n => address(&format!("app{n}@corp.example")),
                    }),
                    recipients: recipients.clone(),
                    eight_bit: true,
                    dsn: None,
                };
                let message = Message {
                    id: MessageId::new(SystemTime::UNIX_EPOCH, self.number),
                    envelope,
                    origin: origin(),
                    header: "Subject: x\r\n".into(),
                    body: Body::Memory(vec![b'x'; octets].into()),
                };
                Routed {
                    message: Arc::new(message),
                    jobs: vec![(RouteName::from("main"), recipients.clone())],
                    copies: Vec::new(),
                }
            })
            .collect()
    }

    /// Inserts them side by side, each accepted a microsecond behind the one before it; the jobs.
    fn insert(&self, mails: &[Routed], leased: bool) -> Vec<JobId> {
        let last = u64::try_from(self.number).unwrap();
        let first = last.saturating_sub(mails.len() as u64);
        let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_micros(n);
        let start = if leased {
            Start::Now(NodeId::default(), "main".into())
        } else {
            Start::Any
        };
        let starts = [start];
        self.together(
            mails
                .iter()
                .zip(first..)
                .map(|(mail, n)| self.store.insert(mail, &starts, at(n))),
        )
        .into_iter()
        .flat_map(|inserted| inserted.unwrap().jobs)
        .collect()
    }

    fn settle(&self, mails: &[Routed], jobs: &[JobId]) {
        let now = SystemTime::UNIX_EPOCH;
        let settlements = mails.iter().zip(jobs).map(|(mail, job)| Settlement {
            job: *job,
            lease: Lease::default(),
            message: mail.message.id,
            recipients: vec![(
                mail.message.envelope.recipients[0].address.clone(),
                Settled::Done(Outcome::Delivered(Reply::new(250, (2, 0, 0), "ok"))),
            )],
            attempted: true,
            next: now,
            lane: None,
            in_doubt: None,
            apart: Vec::new(),
            bounces: Vec::new(),
            receipts: Vec::new(),
            events: vec![Event {
                at: now,
                kind: postern::queue::store::EventKind::Delivered,
                recipients: vec!["ops@corp.example".to_owned()],
                text: "sink: 250 2.0.0 ok".to_owned(),
            }],
        });
        for result in self.together(settlements.map(|s| self.store.settle(s, now))) {
            result.unwrap();
        }
    }

    fn together<F: Future>(&self, all: impl Iterator<Item = F>) -> Vec<F::Output> {
        self.runtime.block_on(async {
            let mut waiting: Vec<_> = all.map(Box::pin).collect();
            let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
            std::future::poll_fn(|context| {
                for (future, done) in waiting.iter_mut().zip(&mut done) {
                    if done.is_none()
                        && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
                    {
                        *done = Some(output);
                    }
                }
                if done.iter().all(Option::is_some) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
            done.into_iter().flatten().collect()
        })
    }

    fn waiting(&self) -> u64 {
        self.runtime.block_on(self.store.stats()).unwrap().waiting
    }
}

/// So many messages of 10 KB at the same time, on disk.
#[divan::bench(args = [1, 50], sample_count = 50, sample_size = 1)]
fn store_insert(bencher: Bencher<'_, '_>, count: usize) {
    let mut bench = Bench::new();
    let mails = bench.mails(count);
    bench.insert(&mails, false);
    assert_eq!(bench.waiting(), count as u64);
    let bench = std::cell::RefCell::new(bench);
    bencher
        .counter(count)
        .with_inputs(|| bench.borrow_mut().mails(count))
        .bench_local_refs(|mails| bench.borrow().insert(mails, false));
}

/// The outcome of so many messages at the same time, on disk.
#[divan::bench(args = [1, 50], sample_count = 50, sample_size = 1)]
fn store_settle(bencher: Bencher<'_, '_>, count: usize) {
    let bench = std::cell::RefCell::new(Bench::new());
    let leased = || {
        let mails = bench.borrow_mut().mails(count);
        let jobs = bench.borrow().insert(&mails, true);
        (mails, jobs)
    };
    let (mails, jobs) = leased();
    bench.borrow().settle(&mails, &jobs);
    let sending = |bench: &Bench| {
        let stats = bench.runtime.block_on(bench.store.stats());
        stats.unwrap().sending
    };
    assert_eq!(sending(&bench.borrow()), 0);
    bencher
        .counter(count)
        .with_inputs(leased)
        .bench_local_refs(|(mails, jobs)| bench.borrow().settle(mails, jobs));
}

/// Claims that many of 200 that wait, with their content.
#[divan::bench(args = [1, 50], sample_count = 20, sample_size = 1)]
fn store_claim(bencher: Bencher<'_, '_>, count: usize) {
    let filled = || {
        let mut bench = Bench::new();
        let mails = bench.mails(200);
        bench.insert(&mails, false);
        bench
    };
    let claim = |bench: &Bench| {
        let ask = Ask {
            route: RouteName::from("main"),
            pinned: None,
            lane: None,
            whose: Whose::InTurns,
            connector: None,
            limit: count,
        };
        let asks = [ask];
        let claimed = bench.store.claim(
            &asks,
            NodeId::default(),
            SystemTime::UNIX_EPOCH + Duration::from_hours(1),
        );
        bench.runtime.block_on(claimed).unwrap().len()
    };
    assert_eq!(claim(&filled()), count);
    bencher
        .counter(count)
        .with_inputs(filled)
        .bench_local_refs(|bench| claim(bench));
}

/// Messages that are searched: one in ten waits, the others are done.
const SEARCHED: usize = 20_000;

/// What is looked for and is nowhere, so that every message is looked at; `first`: a page of what there is.
const KEYS: [&str; 7] = [
    "first",
    "text",
    "subject",
    "recipient",
    "client",
    "waiting",
    "since",
];

/// All pages of a search, newest first.
#[divan::bench(args = KEYS, sample_count = 5, sample_size = 1)]
fn store_search(bencher: Bencher<'_, '_>, key: &str) {
    thread_local! {
        static FILLED: Bench = {
            let mut bench = Bench::new();
            for _ in 0..SEARCHED / 500 {
                let mails = bench.mails_of(500, 60, 1);
                let (waiting, done) = mails.split_at(50);
                bench.insert(waiting, false);
                bench.settle(done, &bench.insert(done, true));
            }
            bench
        };
    }
    let nowhere = "nowhere.example";
    let mut filter = Filter::default();
    match key {
        "text" => filter.text = Some(Needle::new(nowhere)),
        "subject" => {
            filter.text = Some(Needle::new(nowhere));
            filter.subjects = true;
        }
        "recipient" => filter.recipient = Some(Pattern::parse(nowhere).unwrap()),
        "client" => filter.client = Some(nowhere.to_owned()),
        "waiting" => {
            filter.states = JobState::NOT_DONE.to_vec();
            filter.sender = Some(Pattern::parse(nowhere).unwrap());
        }
        "since" => filter.since = Some(SystemTime::UNIX_EPOCH + Duration::from_hours(1)),
        _ => {}
    }
    let search = Search {
        filter,
        limit: 50,
        ..Search::default()
    };
    let search = || {
        FILLED.with(|bench| {
            let found = bench.store.search(&search);
            bench.runtime.block_on(found).unwrap().entries.len()
        })
    };
    assert_eq!(search(), if key == "first" { 50 } else { 0 });
    bencher.counter(SEARCHED).bench_local(search);
}

/// 10,000 messages of 1 KB of so many senders, mixed, leave: looked for, claimed and settled fifty at a time. What many senders cost.
#[divan::bench(args = [1, 60, 1_000, 10_000], sample_count = 5, sample_size = 1)]
fn store_drain(bencher: Bencher<'_, '_>, senders: u128) {
    const COUNT: usize = 10_000;
    let filled = || {
        let mut bench = Bench::new();
        for _ in 0..COUNT / 500 {
            let mails = bench.mails_of(500, senders, 1024);
            bench.insert(&mails, false);
        }
        bench
    };
    let drain = |bench: &Bench| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
        let mut left = 0;
        loop {
            let due = bench.runtime.block_on(bench.store.due(now)).unwrap();
            let Some(due) = due.first() else { break left };
            let ask = Ask {
                route: due.route.clone(),
                pinned: None,
                lane: None,
                whose: due.whose,
                connector: None,
                limit: 50,
            };
            let asks = [ask];
            let claimed = bench.store.claim(&asks, NodeId::default(), now);
            let jobs = bench.runtime.block_on(claimed).unwrap();
            left += jobs.len();
            let (mails, ids): (Vec<_>, Vec<_>) = jobs
                .into_iter()
                .map(|job| {
                    let mail = Routed {
                        message: job.message,
                        jobs: Vec::new(),
                        copies: Vec::new(),
                    };
                    (mail, job.id)
                })
                .unzip();
            bench.settle(&mails, &ids);
        }
    };
    let bench = filled();
    assert_eq!(
        (bench.waiting(), drain(&bench), bench.waiting()),
        (COUNT as u64, COUNT, 0)
    );
    bencher
        .counter(COUNT)
        .with_inputs(filled)
        .bench_local_refs(|bench| drain(bench));
}
