//! A search, and the verbs that take the same filters, on every store there is.

use std::{sync::Arc, time::Instant};

use postern::{
    mail::{message::MessageId, pattern::Pattern},
    queue::store::{
        Commanded, Filter, FoundEntries, JobState, ListMark, Needle, OfConnector, Search, Settled,
        Start, Store, Verb,
    },
    route::{LaneId, RouteName, Routed},
};

use super::store::{
    NODE, ask, at, claim_one, deferred, done, failed, in_doubt, looks, mail, on_every_store, open,
    settlement,
};
use crate::fixture::address;

on_every_store!(
    pages_follow_each_other_whatever_comes_in,
    each_key_of_a_filter,
    addresses_that_are_not_ascii_are_kept_and_found_whatever_their_case,
    a_verb_takes_what_is_expected_or_nothing,
    five_hundred_ids_are_one_command,
);

/// One message of a table: who sent it, through what client, with which header.
fn letter(n: u128, from: &str, client: Option<&str>, subject: &str, to: &[&str]) -> Routed {
    let mut mail = mail(n, to);
    let message = Arc::make_mut(&mut mail.message);
    message.envelope.sender = (!from.is_empty()).then(|| address(from));
    message.origin.client = client.map(str::to_owned);
    message.header = format!("From: x\r\nSubject: {subject}\r\n").into();
    mail
}

fn id(n: u128) -> MessageId {
    mail(n, &[]).message.id
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn connector(name: &str, routes: &[&str]) -> OfConnector {
    OfConnector {
        name: name.into(),
        routes: routes.iter().map(|route| RouteName::from(*route)).collect(),
    }
}

/// All pages, and how many there were.
async fn pages(
    store: &dyn Store,
    mut search: Search,
) -> (Vec<FoundEntries>, Vec<(MessageId, String)>) {
    let (mut pages, mut all) = (Vec::new(), Vec::new());
    loop {
        let found = store.search(&search).await.unwrap();
        assert!(found.entries.len() <= search.limit);
        let entries = found.entries.iter();
        all.extend(entries.map(|entry| (entry.id, entry.route.to_string())));
        // As it goes through a URL.
        search.from = found
            .next
            .as_ref()
            .map(|mark| mark.to_string().parse::<ListMark>().unwrap());
        let is_last = found.next.is_none();
        pages.push(found);
        if is_last {
            return (pages, all);
        }
        assert!(pages.len() < 1000, "it gets no further");
    }
}

fn of(filter: Filter, limit: usize) -> Search {
    Search {
        filter,
        limit,
        ..Search::default()
    }
}

/// The numbers of the messages that a filter takes, newest first.
async fn numbers(store: &dyn Store, filter: &Filter) -> Vec<u128> {
    let (_, found) = pages(store, of(filter.clone(), 100)).await;
    let number = |found: &MessageId| (1..100).find(|n| id(*n) == *found).unwrap();
    let mut numbers: Vec<u128> = found.iter().map(|(id, _)| number(id)).collect();
    numbers.dedup();
    // A list takes the same, oldest first.
    let listed = store.list(filter, at(0)).await.unwrap();
    let mut oldest_first: Vec<u128> = listed.iter().map(|entry| number(&entry.id)).collect();
    oldest_first.dedup();
    oldest_first.reverse();
    assert_eq!(numbers, oldest_first, "{filter:?}");
    numbers
}

async fn pages_follow_each_other_whatever_comes_in(store: Arc<dyn Store>) {
    for n in 1..=9 {
        let mut mail = mail(n, &["a@x.example", "b@x.example"]);
        if n % 3 == 0 {
            let recipients = mail.jobs.remove(0).1;
            for (route, to) in ["b", "a.b", "c"].iter().zip(&recipients) {
                mail.jobs.push((RouteName::from(*route), vec![to.clone()]));
            }
        }
        store.insert(&mail, &[], at(n as u64)).await.unwrap();
    }
    let mut expected = Vec::new();
    for n in (1..=9).rev() {
        let routes: &[&str] = if n % 3 == 0 { &["a.b", "b"] } else { &["main"] };
        expected.extend(routes.iter().map(|route| (id(n), (*route).to_owned())));
    }
    for limit in 1..15 {
        let (_, all) = pages(&*store, of(Filter::default(), limit)).await;
        assert_eq!(all, expected, "{limit}");
    }
    let first = store.search(&of(Filter::default(), 4)).await.unwrap();
    store
        .insert(&mail(20, &["a@x.example"]), &[], at(30))
        .await
        .unwrap();
    let next = Search {
        from: first.next,
        ..of(Filter::default(), 100)
    };
    let (_, all) = pages(&*store, next).await;
    assert_eq!(all, expected[4..]);
    let none = store.search(&of(Filter::default(), 0)).await.unwrap();
    assert!(none.entries.is_empty());
}

type SetFilter = fn(&mut Filter);

/// As they came, through every way that a store has: SQL of none may know another lower case than ours.
async fn addresses_that_are_not_ascii_are_kept_and_found_whatever_their_case(
    store: Arc<dyn Store>,
) {
    let to = [
        "\u{41f}\u{43e}\u{447}\u{442}\u{430}@x.example",
        "\"\u{fc} \u{1f4ee}\"@xn--bcher-kva.example",
    ];
    let mut first = letter(1, "B\u{dc}RO@corp.example", None, "one", &to);
    Arc::make_mut(&mut first.message).origin.utf8 = true;
    store.insert(&first, &[], at(1)).await.unwrap();
    let second = letter(2, "buro@corp.example", None, "two", &["a@x.example"]);
    store.insert(&second, &[], at(2)).await.unwrap();
    let cases: [(SetFilter, &[u128]); 6] = [
        (|f| f.sender = Some(pattern("b\u{fc}ro@corp.example")), &[1]),
        (
            |f| f.recipient = Some(pattern("\u{43f}\u{43e}\u{447}*@x.example")),
            &[1],
        ),
        (|f| f.recipient = Some(pattern("b\u{fc}cher.example")), &[1]),
        (
            |f| f.text = Some(Needle::new("\u{41f}\u{41e}\u{427}\u{422}\u{410}")),
            &[1],
        ),
        (|f| f.text = Some(Needle::new("bu\u{308}ro@")), &[1]),
        (|f| f.text = Some(Needle::new("buro")), &[2]),
    ];
    for (n, (set, expected)) in cases.into_iter().enumerate() {
        let mut filter = Filter::default();
        set(&mut filter);
        assert_eq!(numbers(&*store, &filter).await, expected, "case {n}");
    }
    let other = Filter::of(id(2));
    store.command(&other, &Verb::Hold, at(3)).await.unwrap();
    let job = claim_one(&*store, at(3)).await;
    assert_eq!(job.message.id, id(1));
    assert!(job.message.origin.utf8);
    assert_eq!(job.message.envelope, first.message.envelope);
    let outcomes = to.iter().map(|to| (*to, done())).collect();
    store
        .settle(settlement(&job, outcomes), at(4))
        .await
        .unwrap();
    let entry = store
        .list(&Filter::of(id(1)), at(5))
        .await
        .unwrap()
        .remove(0);
    assert_eq!(entry.sender.as_deref(), Some("B\u{dc}RO@corp.example"));
    let addresses: Vec<_> = entry
        .recipients
        .iter()
        .map(|r| r.address.as_str())
        .collect();
    assert_eq!(addresses, to);
    assert_eq!(entry.state, JobState::Done);
}

/// Six messages, each in another state.
async fn six(store: &dyn Store) {
    let table = [
        letter(
            1,
            "app@corp.example",
            Some("printers"),
            "one",
            &["a@x.example"],
        ),
        letter(
            2,
            "erp@corp.example",
            Some("erp"),
            "=?utf-8?q?B=C3=BCro?=",
            &["b@x.example"],
        ),
        letter(3, "", None, "report", &["app@corp.example"]),
        letter(
            4,
            "app@corp.example",
            Some("erp"),
            "four",
            &["d@x.example", "e@y.example"],
        ),
        letter(
            5,
            "app@corp.example",
            Some("printers"),
            "five",
            &["f@x.example"],
        ),
        letter(6, "app@other.example", None, "six", &["g@x.example"]),
    ];
    let settled = |to: &'static str, what: Settled| vec![(to, what)];
    for (n, mail) in (1..).zip(table) {
        store.insert(&mail, &[], at(n)).await.unwrap();
        let to = match n {
            1 => settled("a@x.example", done()),
            3 => settled("app@corp.example", failed()),
            5 => settled("f@x.example", deferred()),
            6 => settled("g@x.example", in_doubt()),
            _ => {
                // Not in the way of those behind it.
                let one = Filter::of(mail.message.id);
                store.command(&one, &Verb::Hold, at(n)).await.unwrap();
                continue;
            }
        };
        let job = claim_one(store, at(n)).await;
        let mut settlement = settlement(&job, to);
        match n {
            5 => settlement.lane = Some(LaneId::parse("graph/shop@corp.example")),
            6 => settlement.in_doubt = Some(("backup".into(), at(90))),
            _ => {}
        }
        store.settle(settlement, at(n)).await.unwrap();
    }
    store
        .command(&Filter::of(id(4)), &Verb::Release, at(7))
        .await
        .unwrap();
}

/// What is asked for, what that sets, and the messages that are found.
type Case = (&'static str, fn(&mut Filter), &'static [u128]);

const CASES: &[Case] = &[
    ("all", |_| {}, &[6, 5, 4, 3, 2, 1]),
    (
        "not done",
        |f| f.states = JobState::NOT_DONE.into(),
        &[6, 5, 4, 3, 2],
    ),
    ("done", |f| f.states = vec![JobState::Done], &[1]),
    ("failed", |f| f.states = vec![JobState::Failed], &[3]),
    ("held", |f| f.states = vec![JobState::Held], &[2]),
    (
        "two",
        |f| f.states = vec![JobState::Done, JobState::Held],
        &[2, 1],
    ),
    (
        "sender",
        |f| f.sender = Some(pattern("*@corp.example")),
        &[5, 4, 2, 1],
    ),
    ("nobody", |f| f.sender = Some(pattern("<>")), &[3]),
    (
        "recipient",
        |f| f.recipient = Some(pattern("y.example")),
        &[4],
    ),
    ("client", |f| f.client = Some("erp".into()), &[4, 2]),
    ("no client", |f| f.client = Some("er".into()), &[]),
    (
        "route",
        |f| f.route = Some("main".into()),
        &[6, 5, 4, 3, 2, 1],
    ),
    ("no route", |f| f.route = Some("mai".into()), &[]),
    ("since", |f| f.since = Some(at(4)), &[6, 5, 4]),
    ("until", |f| f.older = Some(at(4)), &[4, 3, 2, 1]),
    (
        "at",
        |f| (f.since, f.older) = (Some(at(4)), Some(at(4))),
        &[4],
    ),
    (
        "ids",
        |f| f.ids = vec![id(2), id(5), id(50), id(2)],
        &[5, 2],
    ),
    (
        "id and state",
        |f| (f.ids, f.states) = (vec![id(5)], vec![JobState::Held]),
        &[],
    ),
    // Its lane, its pin, and for the others the route.
    (
        "lane",
        |f| f.connector = Some(connector("graph", &[])),
        &[5],
    ),
    (
        "pin",
        |f| f.connector = Some(connector("backup", &[])),
        &[6],
    ),
    (
        "way",
        |f| f.connector = Some(connector("up", &["main", "x"])),
        &[4, 3, 2, 1],
    ),
    (
        "part of a name",
        |f| f.connector = Some(connector("grap", &["x"])),
        &[],
    ),
    ("text: sender", |f| f.text = Some(Needle::new("ERP@")), &[2]),
    ("text: nobody", |f| f.text = Some(Needle::new("<>")), &[3]),
    (
        "text: recipient",
        |f| f.text = Some(Needle::new("E@Y.ex")),
        &[4],
    ),
    (
        "text: reply",
        |f| f.text = Some(Needle::new("Unknown")),
        &[3],
    ),
    (
        "text: id",
        |f| f.text = Some(Needle::new(&id(4).to_string().to_lowercase())),
        &[4],
    ),
    (
        "text: subject",
        |f| (f.text, f.subjects) = (Some(Needle::new("büro")), true),
        &[2],
    ),
    (
        "text: not the subject",
        |f| f.text = Some(Needle::new("büro")),
        &[],
    ),
    // Its content is gone.
    (
        "text: done",
        |f| (f.text, f.subjects) = (Some(Needle::new("one")), true),
        &[],
    ),
    (
        "text and recipient",
        |f| (f.text, f.recipient) = (Some(Needle::new("d@x")), Some(pattern("y.example"))),
        &[4],
    ),
    (
        "text and no recipient",
        |f| (f.text, f.recipient) = (Some(Needle::new("d@x")), Some(pattern("z.example"))),
        &[],
    ),
    (
        "without failed reports",
        |f| f.but_failed_reports = true,
        &[6, 5, 4, 2, 1],
    ),
    (
        "client of what waits",
        |f| (f.client, f.states) = (Some("erp".into()), vec![JobState::Waiting]),
        &[4],
    ),
    (
        "text of what waits",
        |f| (f.text, f.states) = (Some(Needle::new("corp")), vec![JobState::Waiting]),
        &[5, 4],
    ),
    (
        "lane of what waits",
        |f| {
            f.connector = Some(connector("graph", &["x"]));
            f.states = vec![JobState::Waiting];
        },
        &[5],
    ),
    (
        "route of what is done",
        |f| (f.route, f.states) = (Some("main".into()), vec![JobState::Done]),
        &[1],
    ),
];

async fn each_key_of_a_filter(store: Arc<dyn Store>) {
    six(&*store).await;
    for (what, set, expected) in CASES {
        let mut filter = Filter::default();
        set(&mut filter);
        assert_eq!(numbers(&*store, &filter).await, *expected, "{what}");
    }
    for (subjects, expected) in [(true, Some("Büro")), (false, None)] {
        let filter = Filter {
            subjects,
            ..Filter::of(id(2))
        };
        let found = store.search(&of(filter, 9)).await.unwrap();
        let entry = &found.entries[0];
        assert_eq!(entry.client.as_deref(), Some("erp"));
        assert_eq!(entry.subject.as_deref(), expected);
    }
}

async fn a_verb_takes_what_is_expected_or_nothing(store: Arc<dyn Store>) {
    six(&*store).await;
    let erp = Filter {
        client: Some("erp".into()),
        ..Filter::default()
    };
    let two = Filter {
        ids: vec![id(4), id(5), id(50)],
        ..Filter::default()
    };
    let reports = Filter {
        but_failed_reports: true,
        states: vec![JobState::Failed, JobState::Waiting],
        ..Filter::default()
    };
    let done = |filter: &Filter, verb, expect| {
        let (store, filter) = (Arc::clone(&store), filter.clone());
        async move {
            store
                .command_if(&filter, &verb, expect, at(8))
                .await
                .unwrap()
        }
    };
    let events = store.events(id(4)).await.unwrap();
    // Of the two one is held already.
    assert_eq!(
        done(&erp, Verb::Hold, Some(2)).await,
        Commanded::Unexpected(1)
    );
    assert_eq!(
        done(&two, Verb::Hold, Some(1)).await,
        Commanded::Unexpected(2)
    );
    assert_eq!(
        done(&two, Verb::Hold, Some(0)).await,
        Commanded::Unexpected(2)
    );
    assert_eq!(store.events(id(4)).await.unwrap(), events);
    assert_eq!(looks(&*store, id(4)).await.0, JobState::Waiting);
    assert_eq!(done(&erp, Verb::Hold, Some(1)).await, Commanded::Taken(1));
    assert_eq!(looks(&*store, id(4)).await.0, JobState::Held);
    assert_eq!(looks(&*store, id(5)).await.0, JobState::Waiting);
    assert_eq!(done(&two, Verb::Hold, None).await, Commanded::Taken(1));
    assert_eq!(
        done(&erp, Verb::Release, Some(2)).await,
        Commanded::Taken(2)
    );
    assert_eq!(
        done(&two, Verb::Release, Some(1)).await,
        Commanded::Taken(1)
    );
    assert_eq!(
        done(&reports, Verb::Fail, Some(4)).await,
        Commanded::Taken(4)
    );
    assert_eq!(looks(&*store, id(2)).await.0, JobState::Failed);
    // The report stays as it is.
    let failed = Filter {
        states: vec![JobState::Failed],
        ..reports
    };
    assert_eq!(
        done(&failed, Verb::Retry, Some(4)).await,
        Commanded::Taken(4)
    );
    assert_eq!(looks(&*store, id(3)).await.0, JobState::Failed);
    assert_eq!(
        done(&failed, Verb::Retry, Some(0)).await,
        Commanded::Taken(0)
    );
}

async fn five_hundred_ids_are_one_command(store: Arc<dyn Store>) {
    for n in 1..=600 {
        let start = [Start::Any];
        store
            .insert(&mail(n, &["a@x.example"]), &start, at(1))
            .await
            .unwrap();
    }
    let filter = Filter {
        ids: (51..=550).map(id).collect(),
        ..Filter::default()
    };
    let done = store
        .command_if(&filter, &Verb::Hold, Some(500), at(2))
        .await;
    assert_eq!(done.unwrap(), Commanded::Taken(500));
    assert_eq!(store.stats().await.unwrap().held, 500);
    assert_eq!(
        store.claim(&ask(600), NODE, at(2)).await.unwrap().len(),
        100
    );
}

#[tokio::test]
async fn a_search_whose_time_is_over_says_how_far_it_came_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..=2000 {
        let mail = mail(n, &["a@x.example"]);
        store.insert(&mail, &[], at(n as u64)).await.unwrap();
    }
    let rare = Filter {
        text: Some(Needle::new(&id(3).to_string())),
        ..Filter::default()
    };
    let common = Filter {
        states: vec![JobState::Waiting],
        since: Some(at(1900)),
        ..Filter::default()
    };
    for (filter, expected) in [(rare, 1), (common, 101)] {
        let search = Search {
            // It is over when it begins.
            deadline: Some(Instant::now()),
            ..of(filter, 500)
        };
        let (pages, all) = pages(&*store, search).await;
        assert_eq!(all.len(), expected);
        assert!(pages.len() > 5, "{}", pages.len());
        let (last, others) = pages.split_last().unwrap();
        assert!(last.searched_to.is_none());
        let times: Vec<_> = others
            .iter()
            .map(|page| page.searched_to.unwrap())
            .collect();
        assert!(times.is_sorted_by(|a, b| a > b), "{times:?}");
        assert_eq!(times.last(), Some(&at(1)));
    }
}
