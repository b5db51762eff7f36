//! An upstream that takes few connections at once: the connector finds out how many, keeps to it, and tells nobody that it is down.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::harness::{
    gateway::{Gateway, basic, stdout, wait},
    upstream::{Act, Received, Script, Upstream},
};

/// How an upstream shows that a connection is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    /// By its greeting.
    Greeting(&'static str),
    /// By closing before it.
    Silently,
    /// By its answer to MAIL, as Exchange does.
    Mail(&'static str),
}

/// Takes so many connections at once; says how many it has refused, and how many there were at once.
fn upstream(most: usize, refuses: Refuses) -> (Upstream, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    let upstream = Script::default()
        .offers("PIPELINING")
        .when(move |at| {
            let is_refused = at.open > most;
            match (at.stage, refuses) {
                ("banner", _) if !is_refused => {
                    shared.most.fetch_max(at.open, Ordering::SeqCst);
                    None
                }
                ("banner", _) => {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    match refuses {
                        Refuses::Greeting(text) => Some(Act::Closes(text)),
                        Refuses::Silently => Some(Act::Fin),
                        Refuses::Mail(_) => None,
                    }
                }
                ("MAIL", Refuses::Mail(text)) if is_refused => Some(Act::Closes(text)),
                // So that others wait meanwhile.
                ("EOD", _) => Some(Act::After(Duration::from_millis(10))),
                _ => None,
            }
        })
        .start();
    (upstream, counts)
}

#[derive(Debug, Default)]
struct Counts {
    most: AtomicUsize,
    refused: AtomicUsize,
}

fn send(gateway: &Gateway, from: usize, to: usize) {
    let senders: Vec<_> = (0..4)
        .map(|part| {
            let mut client = gateway.connect("local");
            thread::spawn(move || {
                client.expect("EHLO app", "250");
                for number in (from..to).filter(|n| n % 4 == part) {
                    let text = format!("From: app@corp.example\r\nSubject: {number}\r\n\r\nx\r\n");
                    client.mail("app@corp.example", &["x@corp.example"], &text);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn an_upstream_that_takes_two_is_given_two_and_never_closed() {
    for refuses in [
        Refuses::Greeting("421 4.7.0 up Error: too many connections from 192.0.2.1"),
        Refuses::Greeting("421 4.3.2 Service not available"),
        Refuses::Silently,
        Refuses::Mail("432 4.3.2 Concurrent connections limit exceeded"),
    ] {
        let (upstream, counts) = upstream(2, refuses);
        let config = basic(upstream.address);
        let mut gateway = Gateway::start(&config);
        send(&gateway, 0, 60);
        wait(&format!("{refuses:?}: sixty arrive"), || {
            (upstream.count() == 60).then_some(())
        });
        let mut taken: Vec<_> = upstream.mails().iter().map(Received::subject).collect();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 60, "{refuses:?}: each of them once");
        let refused = counts.refused.load(Ordering::SeqCst);
        assert!((1..=8).contains(&refused), "{refuses:?}: {refused} refused");
        assert_eq!(counts.most.load(Ordering::SeqCst), 2, "{refuses:?}");
        let log = gateway.log();
        assert!(!log.contains("connector paused"), "{refuses:?}: {log}");
        assert!(!log.contains("event=deferred"), "{refuses:?}: {log}");
        let says = "(the upstream takes 2 at once)";
        wait("status says it", || {
            let said = stdout(&gateway.cli(&["status"]));
            said.contains(says).then_some(())
        });
        let log = gateway.wait_for_log(&["connector learned", "connections=2"]);
        assert_eq!(
            log.matches("event=\"connector learned\"").count(),
            1,
            "{log}"
        );
        // A restart asks for nothing in vain.
        gateway.terminate();
        gateway.restart();
        send(&gateway, 60, 100);
        wait(&format!("{refuses:?}: a hundred arrive"), || {
            (upstream.count() == 100).then_some(())
        });
        assert_eq!(
            counts.refused.load(Ordering::SeqCst),
            refused,
            "{refuses:?}"
        );
    }
}

#[test]
fn an_upstream_that_refuses_all_at_once_is_down_and_nothing_is_learned() {
    let (upstream, counts) = upstream(0, Refuses::Greeting("421 4.3.2 Service not available"));
    let gateway = Gateway::start(&basic(upstream.address));
    send(&gateway, 0, 8);
    gateway.wait_for_log(&["connector paused", "state=closed"]);
    assert!(counts.refused.load(Ordering::SeqCst) >= 1);
    wait("status says that it is closed", || {
        let said = stdout(&gateway.cli(&["status"]));
        said.contains("is closed").then_some(())
    });
    assert!(!stdout(&gateway.cli(&["status"])).contains("takes"));
}

#[test]
fn a_limit_of_the_rate_teaches_no_number() {
    let (upstream, _) = upstream(
        2,
        Refuses::Greeting("421 4.7.0 Connection rate limit exceeded, try again in a minute"),
    );
    let gateway = Gateway::start(&basic(upstream.address));
    send(&gateway, 0, 20);
    wait("twenty arrive", || (upstream.count() == 20).then_some(()));
    assert!(!gateway.log().contains("connector learned"));
}
