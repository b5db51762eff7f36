//! What an upstream's sockets and addresses can do to each message: small replies that wait for each other, and addresses that are dead.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use postern::{
    connector::{
        Connector, Pipelining, Services, SmtpSettings,
        smtp::{Smtp, Timeouts},
    },
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId},
        outcome::{Outcome, Report},
        recipient::Recipient,
    },
};

use super::{fixture, harness::peers::need};

/// A server as a beginner writes it: each reply in three small writes, under Nagle's algorithm, so that the second waits until the
/// first is acknowledged. It names its port first.
const SINK: &str = r#"
import socket, sys, threading

def serve(peer):
    lines = peer.makefile("rb")
    def say(*pieces):
        for piece in pieces:
            peer.send(piece)
    say(b"220", b" sink", b" ESMTP\r\n")
    for line in lines:
        word = line[:4].upper()
        if word == b"EHLO":
            say(b"250-", b"sink\r\n", b"250 8BITMIME\r\n")
        elif word == b"DATA":
            say(b"354", b" go", b" on\r\n")
            while next(lines) != b".\r\n":
                pass
            say(b"250", b" taken", b"\r\n")
        elif word == b"QUIT":
            say(b"221", b" bye", b"\r\n")
            break
        else:
            say(b"250", b" ok", b"\r\n")
    peer.close()

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    threading.Thread(target=serve, args=(peer,), daemon=True).start()
"#;

/// Ended when it is dropped.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python_sink() -> (Python, u16) {
    need("python3");
    let mut child = Command::new("python3")
        .args(["-c", SINK])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut port).unwrap();
    (Python(child), port.trim().parse().unwrap())
}

fn connector(settings: &SmtpSettings) -> Smtp {
    let (timeouts, services) = (Timeouts::default(), Services::default());
    Smtp::new("up".into(), 100, settings, timeouts, services).unwrap()
}

async fn deliver(connector: &Smtp, number: usize) {
    let to: Vec<Recipient> = vec![Address::parse("a@x.example").unwrap().into()];
    let message = Message {
        id: MessageId::new(SystemTime::now(), number as u128),
        envelope: Envelope {
            sender: Some(Address::parse("s@corp.example").unwrap()),
            recipients: to.clone(),
            eight_bit: false,
            dsn: None,
        },
        origin: fixture::origin(SystemTime::now()),
        header: format!("Subject: {number}\r\n").into(),
        body: Body::Memory("text\r\n".into()),
    };
    let deadline = Instant::now() + Duration::from_mins(2);
    let report = connector.deliver(&message, &to, &deadline.into()).await;
    let Report::Tried { outcomes, .. } = &report else {
        panic!("{number}: {report:?}");
    };
    let is_taken = |(_, outcome): &(Address, Outcome)| matches!(outcome, Outcome::Delivered(_));
    assert!(outcomes.iter().all(is_taken), "{number}: {report:?}");
}

/// The same dialogue by a client that leaves its acknowledgements to the kernel: what it takes.
fn as_it_comes(port: u16, count: usize) -> Duration {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut reply = || loop {
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        if line.as_bytes().get(3) == Some(&b' ') {
            return;
        }
    };
    reply();
    stream.write_all(b"EHLO x\r\n").unwrap();
    reply();
    let begun = Instant::now();
    for _ in 0..count {
        for line in [
            "MAIL FROM:<s@corp.example>",
            "RCPT TO:<a@x.example>",
            "DATA",
            "Subject: s\r\n\r\ntext\r\n.",
        ] {
            stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
            reply();
        }
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3, which tests/run installs"]
async fn small_replies_under_nagle_do_not_wait_for_a_delayed_acknowledgement() {
    const COUNT: usize = 40;
    let (_python, port) = python_sink();
    let slow = tokio::task::spawn_blocking(move || as_it_comes(port, COUNT));
    let slow = slow.await.unwrap();
    // Of four turns most cost 40 ms; else nothing is shown.
    assert!(
        slow > Duration::from_secs(2),
        "{slow:?}: it waits for nothing"
    );
    let connector = connector(&SmtpSettings {
        max_connections: 1,
        pipelining: Pipelining::Off,
        ..fixture::smtp("127.0.0.1", port)
    });
    deliver(&connector, 0).await;
    let begun = Instant::now();
    for number in 1..=COUNT {
        deliver(&connector, number).await;
    }
    let took = begun.elapsed();
    assert!(took < slow / 2, "{took:?}, as it comes {slow:?}");
}

/// What the test below runs again inside namespaces of its own.
const INSIDE: &str = "POSTERN_TEST_INSIDE_A_NAMESPACE";
/// Its directory.
const PLACE: &str = "POSTERN_TEST_PLACE";

/// A name whose first address takes no notice, whose second refuses, and whose third is good.
#[test]
#[ignore = "needs unshare and ip, which tests/run installs"]
fn dead_addresses_of_a_name_cost_the_first_message_a_moment_and_the_next_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(dead_addresses_inside());
    }
    for program in ["unshare", "ip", "mount"] {
        need(program);
    }
    let place = tempfile::TempDir::new().unwrap();
    let (hosts, order) = (place.path().join("hosts"), place.path().join("gai.conf"));
    // The resolver's order is that of this file (RFC 6724 §10.3), not that of the names.
    fs::write(
        &hosts,
        "192.0.2.3 mx.example\n192.0.2.2 mx.example\n192.0.2.1 mx.example\n",
    )
    .unwrap();
    fs::write(
        &order,
        "precedence ::ffff:192.0.2.1/128 90\nprecedence ::ffff:192.0.2.2/128 80\nprecedence ::ffff:192.0.2.3/128 70\n",
    )
    .unwrap();
    // What is sent to an address that nobody has comes back from loopback and is dropped.
    let script = "ip link set lo up && ip address add 192.0.2.2/32 dev lo && \
        ip address add 192.0.2.3/32 dev lo && ip route add 192.0.2.0/24 dev lo && \
        mount --bind \"$POSTERN_TEST_PLACE/hosts\" /etc/hosts && \
        mount --bind \"$POSTERN_TEST_PLACE/gai.conf\" /etc/gai.conf && exec \"$@\"";
    let inside = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--mount",
            "sh",
            "-ec",
            script,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact"])
        .arg("line::dead_addresses_of_a_name_cost_the_first_message_a_moment_and_the_next_nothing")
        .env(INSIDE, "1")
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    let errors = String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}{errors}");
}

/// Connections that were begun in this network, whatever became of them.
fn begun() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "ActiveOpens");
    values.split(' ').nth(at.unwrap()).unwrap().parse().unwrap()
}

/// Takes one message of each connection.
fn good(listener: &TcpListener, taken: &AtomicUsize) {
    for stream in listener.incoming().flatten() {
        let mut out = stream.try_clone().unwrap();
        let mut input = BufReader::new(stream);
        let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).is_ok();
        say("220 good ESMTP");
        let (mut line, mut is_content) = (String::new(), false);
        loop {
            line.clear();
            if input.read_line(&mut line).unwrap_or_default() == 0 {
                break;
            }
            if is_content {
                if line == ".\r\n" {
                    is_content = false;
                    taken.fetch_add(1, Ordering::SeqCst);
                    say("250 taken");
                }
                continue;
            }
            is_content = line == "DATA\r\n";
            if line == "QUIT\r\n" {
                say("221 bye");
                let _ = input.read_to_string(&mut line);
                break;
            }
            say(if is_content { "354 go on" } else { "250 ok" });
        }
    }
}

async fn dead_addresses_inside() {
    let at: SocketAddr = "192.0.2.3:0".parse().unwrap();
    let listener = TcpListener::bind(at).unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    std::thread::spawn(move || good(&listener, &counted));
    let connector = connector(&SmtpSettings {
        max_connections: 1,
        messages_per_connection: 1,
        ..fixture::smtp("mx.example", port)
    });
    let (before, start) = (begun(), Instant::now());
    deliver(&connector, 1).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(begun() - before, 3, "each address once");
    for number in 2..5 {
        let before = begun();
        deliver(&connector, number).await;
        assert_eq!(begun() - before, 1, "{number}: the good one at once");
    }
    assert_eq!(taken.load(Ordering::SeqCst), 4);
}
