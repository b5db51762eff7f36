//! Who gets one of the listener's connections, on real sockets: in all, from one network, from peers in no client, behind a proxy.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use postern::{
    listener::{Limits, Settings, TlsMode},
    policy::AuthMode,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};

use super::{
    fixture,
    harness::{
        peers::{many_files, need},
        time::until,
    },
    listener::{Gate, certified, limits, rules, say, settings, some},
};

const UNLISTED_FULL: &str = "421 4.7.0 limits.unlisted_connections is reached\r\n";
const FULL: &str = "421 4.7.0 limits.connections is reached; try again later\r\n";

/// A connection from another address of this machine.
async fn from(source: &str, gate: &Gate) -> TcpStream {
    let source: SocketAddr = source.parse().unwrap();
    let socket = match source {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.unwrap();
    socket.bind(source).unwrap();
    socket.connect(gate.address()).await.unwrap()
}

/// What a connection from there is told first, and the connection.
async fn told(source: &str, gate: &Gate) -> (String, TcpStream) {
    let mut stream = from(source, gate).await;
    (some(&mut stream).await, stream)
}

/// A gate with one client, of these networks.
fn gate(limits: Limits, networks: &str, settings: Settings) -> Gate {
    let mut rules = rules();
    rules.policy.clients = vec![fixture::client("client", networks)];
    Gate::open_with(limits, rules, |_| settings)
}

/// Users may log in.
fn with_logins() -> Settings {
    Settings {
        auth: AuthMode::Optional,
        plaintext_auth: true,
        chunking: false,
        ..settings("one")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_of_one_client_and_hundreds_of_idle_ones() {
    let few = Limits {
        connections_per_client: 2,
        ..limits()
    };
    let gate = Gate::open(few, |_| settings("one"));
    let _held = (gate.connect().await, gate.connect().await);
    let mut third = TcpStream::connect(gate.address()).await.unwrap();
    assert!(some(&mut third).await.starts_with("421 4.7.0"));

    // What they cost is measured in a process of its own: `big::a_thousand_idle_connections_are_cheap`.
    let gate = Gate::open(limits(), |_| settings("one"));
    let mut idle = Vec::new();
    many_files();
    for _ in 0..400 {
        idle.push(gate.connect().await);
    }
    assert_eq!(gate.shared.open_connections(), 400);
}

/// The defaults of `[limits]`, against what a port scanner or a worm in the network does.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_its_place_at_once_beside_1100_silent_sockets_of_20_unlisted_addresses() {
    many_files();
    let stock = Limits {
        connections: 1_000,
        connections_per_client: 100,
        ..limits()
    };
    let gate = gate(stock, "127.0.0.1/32", with_logins());
    let mut silent = Vec::new();
    for n in 0..1_100 {
        silent.push(from(&format!("127.0.0.{}:0", 2 + n % 20), &gate).await);
        if n % 100 == 99 {
            let began = Instant::now();
            say(&mut gate.connect().await, "EHLO x\r\n").await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?} after {n}");
        }
    }
    let mut answers = Vec::new();
    for stream in &mut silent {
        answers.push(some(stream).await);
    }
    let welcomed = answers.iter().filter(|a| a.starts_with("220 "));
    assert_eq!(welcomed.count(), 100);
    let turned_away = answers.iter().filter(|a| *a == UNLISTED_FULL);
    assert_eq!(turned_away.count(), 1_000);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(gate.connect().await);
    }
    let (answer, _) = told("127.0.0.1:0", &gate).await;
    assert!(
        answer.starts_with("421 4.7.0 connections_per_client"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_strangers_do_not_take_the_place_of_a_client() {
    let few = Limits {
        connections: 80,
        connections_per_client: 20,
        unlisted_connections: 8,
        ..limits()
    };
    let gate = gate(few, "127.0.0.1/32", settings("one"));
    // Ten addresses that are in no `[[client]]`, and silent.
    let mut silent = Vec::new();
    for n in 0..200 {
        silent.push(from(&format!("127.0.1.{}:0", 1 + n % 10), &gate).await);
    }
    let mut answers = Vec::new();
    for stream in &mut silent {
        answers.push(some(stream).await);
    }
    let welcomed = answers
        .iter()
        .filter(|a| a.starts_with("554 5.7.1 "))
        .count();
    let turned_away = answers.iter().filter(|a| *a == UNLISTED_FULL).count();
    assert_eq!((welcomed, turned_away), (8, 192), "{answers:?}");
    // The rest is the client's own, up to its limit.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gate.connect().await);
    }
    let mut more = TcpStream::connect(gate.address()).await.unwrap();
    assert!(some(&mut more).await.starts_with("421 4.7.0"));
    // Places come back.
    drop((silent, clients, more));
    until("places", async || gate.shared.open_connections() == 0).await;
    let (answer, _) = told("127.0.1.1:0", &gate).await;
    assert!(answer.starts_with("554 5.7.1 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_does_not_take_the_place_of_another_and_a_login_makes_a_friend() {
    let gate = gate(limits(), "127.0.0.1/32", with_logins());
    let mut kept = Vec::new();
    for _ in 0..10 {
        let (answer, stream) = told("127.0.1.1:0", &gate).await;
        assert!(answer.starts_with("220 "), "{answer}");
        kept.push(stream);
    }
    assert_eq!(told("127.0.1.1:0", &gate).await.0, UNLISTED_FULL);
    let (answer, _other) = told("127.0.1.2:0", &gate).await;
    assert!(answer.starts_with("220 "), "{answer}");
    // A wrong password moves nobody; who has logged in takes none of their places any more.
    let first = &mut kept[0];
    say(first, "EHLO x\r\n").await;
    let answer = say(first, "AUTH PLAIN AGVycAB3cm9uZw==\r\n").await;
    assert!(answer.starts_with("535"), "{answer}");
    assert_eq!(told("127.0.1.1:0", &gate).await.0, UNLISTED_FULL);
    let answer = say(&mut kept[0], "AUTH PLAIN AGVycAByaWdodA==\r\n").await;
    assert!(answer.starts_with("235"), "{answer}");
    let (answer, _third) = told("127.0.1.1:0", &gate).await;
    assert!(answer.starts_with("220 "), "{answer}");
    assert_eq!(told("127.0.1.1:0", &gate).await.0, UNLISTED_FULL);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_tenth_is_for_addresses_that_hold_few() {
    let few = Limits {
        connections: 40,
        ..limits()
    };
    let gate = gate(few, "127.0.0.0/24", with_logins());
    let mut kept = Vec::new();
    for _ in 0..36 {
        kept.push(gate.connect().await);
    }
    assert_eq!(told("127.0.0.1:0", &gate).await.0, FULL);
    assert_eq!(told("127.0.1.1:0", &gate).await.0, FULL);
    for source in ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.2:0", "127.0.0.3:0"] {
        let (answer, stream) = told(source, &gate).await;
        assert!(answer.starts_with("220 "), "{answer}");
        kept.push(stream);
    }
    assert_eq!(told("127.0.0.4:0", &gate).await.0, FULL);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_tls_port_there_is_just_the_end() {
    let few = Limits {
        unlisted_connections: 1,
        ..limits()
    };
    let mut rules = rules();
    rules.policy.clients = vec![fixture::client("client", "127.0.0.1/32")];
    let gate = Gate::open_with(few, rules, |dir| {
        let (settings, _) = certified("one", dir, TlsMode::Implicit);
        Settings {
            auth: AuthMode::Optional,
            ..settings
        }
    });
    let _kept = from("127.0.1.1:0", &gate).await;
    until("a place is taken", async || {
        gate.shared.open_connections() == 1
    })
    .await;
    assert_eq!(told("127.0.1.2:0", &gate).await.0, "");
    assert_eq!(gate.shared.open_connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_its_client_is_counted_and_a_header_has_five_seconds() {
    let few = Limits {
        connections_per_client: 2,
        unlisted_connections: 1,
        ..limits()
    };
    let proxied = Settings {
        proxy_protocol: vec!["127.0.0.1/32".parse().unwrap()],
        ..with_logins()
    };
    let gate = gate(few, "127.0.0.0/24", proxied);
    // The proxy itself is neither held to a client's limit nor counted for it, whether it is silent or speaks for itself.
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(gate.address()).await.unwrap());
    }
    let mut kept = Vec::new();
    for (client, expected) in [
        ("UNKNOWN", "220 "),
        ("UNKNOWN", "220 "),
        ("UNKNOWN", "220 "),
        ("TCP4 127.0.0.1 127.0.0.1 1 25", "220 "),
        ("TCP4 127.0.0.9 127.0.0.1 1 25", "220 "),
        ("TCP4 127.0.0.9 127.0.0.1 1 25", "220 "),
        (
            "TCP4 127.0.0.9 127.0.0.1 1 25",
            "421 4.7.0 connections_per_client",
        ),
        ("TCP6 2001:db8::1 2001:db8::2 1 25", "220 "),
        ("TCP6 2001:db8::7 2001:db8::2 1 25", UNLISTED_FULL),
        ("TCP4 192.0.2.1 127.0.0.1 1 25", UNLISTED_FULL),
    ] {
        let mut stream = TcpStream::connect(gate.address()).await.unwrap();
        stream
            .write_all(format!("PROXY {client}\r\n").as_bytes())
            .await
            .unwrap();
        let answer = some(&mut stream).await;
        assert!(answer.starts_with(expected), "{client} {answer}");
        kept.push(stream);
    }
    // Real time: it is what is tested.
    for stream in &mut silent {
        assert_eq!(some(stream).await, "");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5), "{took:?}");
    until("the silent are gone", async || {
        gate.shared.open_connections() == 7
    })
    .await;
}

/// What the test below runs again inside a network namespace of its own.
const INSIDE: &str = "POSTERN_TEST_INSIDE_A_NAMESPACE";

#[test]
#[ignore = "needs unshare and ip, which tests/run installs"]
fn a_machine_with_a_whole_64_of_ipv6_is_one_address() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(a_64_inside());
    }
    need("unshare");
    need("ip");
    let script = "ip link set lo up && for net in 1 2 3; do for host in $(seq 1 12); do \
        ip -6 address add 2001:db8:0:$net::$host/64 dev lo nodad; done; done && exec \"$@\"";
    let inside = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-ec", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact"])
        .arg("places::a_machine_with_a_whole_64_of_ipv6_is_one_address")
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    let errors = String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}{errors}");
}

async fn a_64_inside() {
    let few = Limits {
        connections: 100,
        connections_per_client: 11,
        ..limits()
    };
    let at_any = Settings {
        bind: postern::listener::Bind::Address("[::]:0".parse().unwrap()),
        ..with_logins()
    };
    let gate = gate(few, "2001:db8:0:3::/64", at_any);
    let port = gate.address().port();
    let connect = async |source: String, to: String| {
        let source: SocketAddr = source.parse().unwrap();
        let socket = match source {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.unwrap();
        socket.bind(source).unwrap();
        let to = format!("{to}:{port}").parse().unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        (some(&mut stream).await, stream)
    };
    let to = "[2001:db8:0:1::1]";
    let mut kept = Vec::new();
    for (net, most, full) in [
        (1, 10, UNLISTED_FULL),
        (2, 10, UNLISTED_FULL),
        (3, 11, "421 4.7.0 connections_per_client is reached"),
    ] {
        for host in 1..=12 {
            let source = format!("[2001:db8:0:{net}::{host}]:0");
            let (answer, stream) = connect(source, to.to_owned()).await;
            let expected = if host <= most { "220 " } else { full };
            assert!(answer.starts_with(expected), "{net} {host}: {answer}");
            kept.push(stream);
        }
    }
    // An IPv4 address is one by itself, though the socket calls it `::ffff:127.0.0.1`.
    for host in 1..=12 {
        let source = format!("127.0.0.{host}:0");
        let (answer, stream) = connect(source, "127.0.0.1".to_owned()).await;
        assert!(answer.starts_with("220 "), "{answer}");
        kept.push(stream);
    }
}
