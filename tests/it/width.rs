//! An upstream that takes few connections at once: the connector finds out how many, keeps to it, and tells nobody that it is down.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::harness::gateway::{Gateway, basic, stdout, wait};

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

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicUsize,
    taken: Mutex<Vec<String>>,
}

/// Takes so many connections at once.
fn upstream(most: usize, refuses: Refuses) -> (SocketAddr, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counts = Arc::clone(&shared);
            thread::spawn(move || {
                let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
                let is_refused = open > most;
                if is_refused {
                    counts.refused.fetch_add(1, Ordering::SeqCst);
                } else {
                    counts.most.fetch_max(open, Ordering::SeqCst);
                }
                let _ = serve(stream, is_refused.then_some(refuses), &counts);
                counts.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, counts)
}

fn serve(mut stream: TcpStream, refuses: Option<Refuses>, counts: &Counts) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match refuses {
        Some(Refuses::Greeting(text)) => return writeln!(stream, "{text}\r"),
        Some(Refuses::Silently) => return Ok(()),
        Some(Refuses::Mail(_)) | None => {}
    }
    writeln!(stream, "220 up ESMTP\r")?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match line.get(..4).unwrap_or_default() {
            "EHLO" => "250-up\r\n250 PIPELINING",
            "MAIL" if matches!(refuses, Some(Refuses::Mail(_))) => {
                let Some(Refuses::Mail(text)) = refuses else {
                    continue;
                };
                return writeln!(stream, "{text}\r");
            }
            "DATA" => {
                writeln!(stream, "354 go on\r")?;
                let mut subject = String::new();
                loop {
                    line.clear();
                    reader.read_line(&mut line)?;
                    if line == ".\r\n" {
                        break;
                    }
                    if let Some(text) = line.strip_prefix("Subject: ") {
                        text.trim().clone_into(&mut subject);
                    }
                }
                // So that others wait meanwhile.
                thread::sleep(Duration::from_millis(10));
                counts.taken.lock().unwrap().push(subject);
                "250 taken"
            }
            "QUIT" => {
                writeln!(stream, "221 bye\r")?;
                return Ok(());
            }
            _ => "250 ok",
        };
        writeln!(stream, "{answer}\r")?;
    }
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
        let (address, counts) = upstream(2, refuses);
        let config = basic(address);
        let mut gateway = Gateway::start(&config);
        send(&gateway, 0, 60);
        wait(&format!("{refuses:?}: sixty arrive"), || {
            (counts.taken.lock().unwrap().len() == 60).then_some(())
        });
        let mut taken = counts.taken.lock().unwrap().clone();
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
            (counts.taken.lock().unwrap().len() == 100).then_some(())
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
    let (address, counts) = upstream(0, Refuses::Greeting("421 4.3.2 Service not available"));
    let gateway = Gateway::start(&basic(address));
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
    let (address, counts) = upstream(
        2,
        Refuses::Greeting("421 4.7.0 Connection rate limit exceeded, try again in a minute"),
    );
    let gateway = Gateway::start(&basic(address));
    send(&gateway, 0, 20);
    wait("twenty arrive", || {
        (counts.taken.lock().unwrap().len() == 20).then_some(())
    });
    assert!(!gateway.log().contains("connector learned"));
}
