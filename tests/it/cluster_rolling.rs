//! Three gateways on one PostgreSQL that are started anew one after the other while mail comes in everywhere: nobody who sends sees more of
//! it than 421 between two messages or a port where nobody listens, and all that was acknowledged arrives once.

use std::{
    collections::{HashMap, HashSet},
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::cluster::{Cluster, send};
use crate::harness::{
    gateway::{Client, Gateway},
    postgres::Postgres,
    time::wait,
};

/// What the senders have seen.
#[derive(Default)]
struct Seen {
    acknowledged: Mutex<HashSet<String>>,
    /// What a sender should not see.
    odd: Mutex<Vec<String>>,
    /// 421, and ports where nobody listened.
    turned_away: Mutex<usize>,
}

/// Messages over one connection, until it is turned away.
fn converse(seen: &Seen, client: &mut Client, stop: &AtomicBool, name: &str, n: &mut usize) {
    let mut said = |command: &str, code: &str, is_between: bool| -> bool {
        let is_told = command.is_empty()
            || client
                .stream
                .get_mut()
                .write_all(command.as_bytes())
                .is_ok();
        let reply = if is_told {
            client.reply()
        } else {
            String::new()
        };
        if reply.starts_with(code) {
            return true;
        }
        if is_between && (reply.starts_with("421") || !is_told || reply.is_empty()) {
            *seen.turned_away.lock().unwrap() += 1;
        } else {
            let odd = format!("{command:?} -> {reply:?}");
            seen.odd.lock().unwrap().push(odd);
        }
        false
    };
    if !said("", "220", true) || !said("HELO x\r\n", "250", true) {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        let subject = format!("{name}n{n}");
        *n += 1;
        let content = format!("Subject: {subject}\r\n\r\ntext\r\n.\r\n");
        let is_taken = said("MAIL FROM:<app@corp.example>\r\n", "250", true)
            && said("RCPT TO:<x@corp.example>\r\n", "250", false)
            && said("DATA\r\n", "354", false)
            && said(&content, "250", false);
        if !is_taken {
            return;
        }
        seen.acknowledged.lock().unwrap().insert(subject);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_rolling_restart_is_seen_between_messages_only() {
    let cluster = Cluster::new(Postgres::shared(), "");
    let mut members: Vec<Gateway> = ["relay-a", "relay-b", "relay-c"]
        .map(|name| cluster.member(name))
        .into();
    let addresses: Vec<SocketAddr> = members.iter().map(|one| one.address("local")).collect();
    let (addresses, stop) = (
        Arc::new(Mutex::new(addresses)),
        Arc::new(AtomicBool::new(false)),
    );
    let seen: Arc<Seen> = Arc::default();
    let senders: Vec<_> = (0..6_usize)
        .map(|sender| {
            let (addresses, stop, seen) = (addresses.clone(), stop.clone(), seen.clone());
            std::thread::spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let address = addresses.lock().unwrap()[sender % 3];
                    match Client::try_connect(address) {
                        Ok(mut client) => {
                            converse(&seen, &mut client, &stop, &format!("s{sender}"), &mut n);
                        }
                        Err(_) => *seen.turned_away.lock().unwrap() += 1,
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        })
        .collect();
    for (at, member) in members.iter_mut().enumerate() {
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(member.terminate(), 0, "{}", member.log());
        member.restart();
        addresses.lock().unwrap()[at] = member.address("local");
    }
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    assert_eq!(*seen.odd.lock().unwrap(), Vec::<String>::new());
    assert!(*seen.turned_away.lock().unwrap() >= 3);
    let acknowledged = seen.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    wait("all of it", || {
        (cluster.sink.count() >= acknowledged.len()).then_some(())
    });
    assert!(send(&members[0], "the last") && cluster.sink.wait(acknowledged.len() + 1).len() > 1);
    std::thread::sleep(Duration::from_secs(2));
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for mail in cluster.sink.mails() {
        *arrived.entry(mail.subject()).or_default() += 1;
    }
    arrived.remove("the last");
    assert!(arrived.values().all(|n| *n == 1), "doubled");
    let arrived: HashSet<String> = arrived.into_keys().collect();
    assert_eq!(arrived, acknowledged, "what was acknowledged, and no more");
}
