//! What the window bears: slow clients, large requests, many at once, guesses; and whom it believes that says where he comes from.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{
    harness::{
        browser::{Ask, At, connect},
        gateway::{Gateway, send, stdout, wait},
        proxy::Authority,
        upstream::Upstream,
    },
    window::{audit, log_in, start, windowed},
};

fn address(window: &At) -> SocketAddr {
    let At::Tcp(address) = window else { panic!() };
    *address
}

/// How long it takes to be closed, and what was said before.
fn closed(mut stream: TcpStream) -> (Duration, String) {
    let begin = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    (begin.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn attack_large_requests_are_refused() {
    let (_gateway, window, _sink) = start("");
    let pad = |octets: usize| format!("{{{}}}", " ".repeat(octets - 2));
    let reload = |body: &str| window.post("/api/v1/reload", body).token("secret-of-admin");
    assert_eq!(reload(&pad(64 << 10)).status(), 200);
    let answer = reload(&pad((64 << 10) + 1)).send();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "payload_too_large")
    );
    let form = format!("name={}", "x".repeat(70_000));
    assert_eq!(window.form("/login", &form).status(), 413);
    // In pieces, so that nothing is said of its length.
    let ask = reload("")
        .without("Content-Length")
        .with("Transfer-Encoding", "chunked");
    let mut octets = ask.octets();
    for _ in 0..9 {
        octets.extend(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).bytes());
    }
    octets.extend(b"0\r\n\r\n");
    let mut stream = TcpStream::connect(address(&window)).unwrap();
    let _ = stream.write_all(&octets);
    let mut said = [0; 12];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 413");
    // A piece that is none.
    let ask = reload("")
        .without("Content-Length")
        .with("Transfer-Encoding", "chunked");
    let mut octets = ask.with("Connection", "close").octets();
    octets.extend(b"nonsense\r\n\r\n");
    let mut stream = TcpStream::connect(address(&window)).unwrap();
    stream.write_all(&octets).unwrap();
    let (_, said) = closed(stream);
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    // The header.
    let ask = |octets: usize| window.get("/livez").with("X-Pad", &"x".repeat(octets));
    assert_eq!(ask(15 << 10).status(), 200);
    assert_eq!(ask(40 << 10).status(), 431);
    let long = window
        .get(&format!("/login?next={}", "x".repeat(40 << 10)))
        .status();
    assert!([414, 431].contains(&long), "{long}");
    let mut many = window.get("/livez");
    for n in 0..200 {
        many = many.with(&format!("X-{n}"), "y");
    }
    assert_eq!(many.status(), 431);
}

/// Ten seconds each for the header, the body and TLS, all side by side.
#[test]
fn attack_slow_clients_are_hung_up_on() {
    let (_gateway, window, _sink) = start("");
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("Ours");
    let (chain, key) = authority.pair(&["localhost", "127.0.0.1"]);
    fs::write(dir.path().join("chain.pem"), chain).unwrap();
    fs::write(dir.path().join("key.pem"), key).unwrap();
    let at = dir.path().display();
    let (_tls_gateway, tls, _tls_sink) = start(&format!(
        "certificate = \"{at}/chain.pem\"\nkey = \"{at}/key.pem\""
    ));
    let head = window
        .post("/api/v1/reload", "{}")
        .token("secret-of-admin")
        .only("Content-Length", "100");
    let octets = head.octets();
    let cases: Vec<(&str, SocketAddr, Vec<u8>)> = vec![
        ("nothing", address(&window), Vec::new()),
        (
            "half a header",
            address(&window),
            b"GET /livez HTTP/1.1\r\nHost: localh".to_vec(),
        ),
        ("half a body", address(&window), octets),
        ("no TLS", address(&tls), Vec::new()),
        ("half of TLS", address(&tls), vec![22, 3, 1]),
        (
            "after an answer",
            address(&window),
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
    ];
    let threads: Vec<_> = cases
        .into_iter()
        .map(|(what, to, octets)| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.write_all(&octets).unwrap();
                (what, closed(stream))
            })
        })
        .collect();
    // Octet by octet is no faster.
    let to = address(&window);
    let dripping = thread::spawn(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        let begin = Instant::now();
        for octet in b"GET /livez HTTP/1.1\r\nX-Slow: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" {
            if stream.write_all(&[*octet]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(300));
        }
        ("octet by octet", (begin.elapsed(), String::new()))
    });
    for thread in threads.into_iter().chain([dripping]) {
        let (what, (time, said)) = thread.join().unwrap();
        assert!(
            time > Duration::from_secs(8) && time < Duration::from_secs(25),
            "{what}: {time:?}"
        );
        if what == "half a body" {
            assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        }
    }
    assert_eq!(window.get("/livez").status(), 200);
}

#[test]
fn attack_many_connections_leave_room_for_others() {
    let (_gateway, window, _sink) = start("");
    let to = address(&window);
    let answers = |stream: &mut TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut said = [0; 12];
        stream.read_exact(&mut said).is_ok() && said.ends_with(b"200")
    };
    let begin = Instant::now();
    // They stay open, but only as long as they say something: so they are counted at once.
    let mut open: Vec<TcpStream> = (0..100).map(|_| connect(None, to)).collect();
    assert!(answers(open.last_mut().unwrap()));
    assert!(!answers(&mut connect(None, to)), "the 101st of an address");
    let mut other: Vec<TcpStream> = (0..100)
        .map(|_| connect("127.0.0.2".parse().ok(), to))
        .collect();
    assert!(answers(other.last_mut().unwrap()));
    let mut third = connect("127.0.0.3".parse().ok(), to);
    let is_answered = answers(&mut third);
    assert!(
        begin.elapsed() < Duration::from_secs(9),
        "too slow to say anything"
    );
    assert!(!is_answered, "the 201st");
    drop(open);
    wait("room", || {
        answers(&mut connect("127.0.0.3".parse().ok(), to)).then_some(())
    });
}

#[test]
fn attack_streams_are_bounded() {
    let (_gateway, window, _sink) = start("");
    let stream = || {
        window
            .get("/api/v1/events")
            .token("secret-of-viewer")
            .begin()
    };
    let mut open: Vec<_> = (0..50).map(|_| stream()).collect();
    for one in &mut open {
        assert!(one.head().starts_with("HTTP/1.1 200"));
    }
    assert!(stream().head().starts_with("HTTP/1.1 503"));
    // HEAD takes none.
    assert_eq!(window.get("/livez").status(), 200);
    drop(open);
    wait("room", || {
        stream().head().starts_with("HTTP/1.1 200").then_some(())
    });
    // Those that were dropped may hold their places for a moment.
    let resumed = |last: &str| {
        wait("room", || {
            let ask = window.get("/api/v1/events").token("secret-of-viewer");
            let mut stream = ask.with("Last-Event-ID", last).begin();
            let head = stream.head();
            let is_full = head.starts_with("HTTP/1.1 503");
            assert!(
                is_full || head.starts_with("HTTP/1.1 200"),
                "{last}: {head}"
            );
            (!is_full).then_some(stream)
        })
    };
    let mut again = resumed("17");
    let said: String = (0..4).map(|_| again.line()).collect();
    assert!(
        said.contains("event: reset") || said.contains(":\n"),
        "{said}"
    );
    for last in ["x", "99999999999999999999999", "-1", ""] {
        resumed(last);
    }
}

#[test]
fn attack_guesses_one_after_another_are_slowed_down() {
    let (_gateway, window, _sink) = start("");
    for n in 0..8 {
        assert_eq!(log_in(&window, "kim", &format!("guess {n}")).status, 401);
    }
    let refused = log_in(&window, "kim", "correct horse");
    assert_eq!(refused.status, 429, "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(window.form("/login", "code=x").status(), 429);
    // Tokens and other addresses go on.
    assert_eq!(
        window
            .get("/api/v1/status")
            .token("secret-of-viewer")
            .status(),
        200
    );
    let other = window
        .form("/login", "name=kim&password=correct+horse")
        .from("127.0.0.2");
    assert_eq!(other.status(), 303);
}

/// All at once they are no more than one after the other.
#[test]
fn attack_guesses_at_once_are_no_more() {
    let (_gateway, window, _sink) = start("");
    let threads: Vec<_> = (0..40)
        .map(|n| {
            let window = window.clone();
            thread::spawn(move || log_in(&window, "kim", &format!("guess {n}")).status)
        })
        .collect();
    let statuses: Vec<u16> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!(tried, 8, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [401, 429].contains(status)),
        "{statuses:?}"
    );
}

#[test]
fn attack_a_name_is_guessed_at_from_everywhere() {
    let (gateway, window, _sink) = start("");
    let guess = |ip: u32, name: &str| {
        let ask = window.form("/login", &format!("name={name}&password=wrong"));
        ask.from(&format!("127.0.1.{ip}")).status()
    };
    let threads: Vec<_> = (1..=9)
        .map(|ip| (0..7).map(|_| guess(ip, "kim")).collect::<Vec<u16>>())
        .collect();
    let tried = threads
        .iter()
        .flatten()
        .filter(|status| **status == 401)
        .count();
    assert_eq!(tried, 60, "{threads:?}");
    assert_eq!(guess(99, "kim"), 429);
    assert_eq!(guess(99, "nobody"), 401);
    // Links have no name that could be used up: whoever is locked out comes in so.
    for ip in 100..110 {
        for _ in 0..7 {
            window
                .form("/login", "code=wrong")
                .from(&format!("127.0.1.{ip}"))
                .send();
        }
    }
    let said = stdout(&gateway.cli(&["admin", "login"]));
    let code = said.trim().split("?code=").nth(1).unwrap();
    assert_eq!(window.form("/login", &format!("code={code}")).status(), 303);
}

#[test]
fn attack_tests_are_ten_a_minute() {
    let (_gateway, window, _sink) = start("");
    let test = || {
        let ask = window.post("/api/v1/connectors/up/test", "{\"to\":\"no address\"}");
        ask.token("secret-of-operator").send()
    };
    for _ in 0..10 {
        assert_eq!(test().status, 422);
    }
    let refused = test();
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
}

/// An address of this machine that is not loopback.
fn outer() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: it is asked which way it would go.
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[test]
fn attack_beyond_this_machine_nobody_is_served_in_the_clear() {
    let ip = outer();
    assert!(!ip.is_loopback());
    let (_gateway, window, _sink) =
        start("address = \"0.0.0.0:0\"\ntrusted_proxies = [\"127.0.0.9\"]");
    let port = address(&window).port();
    let near = At::Tcp(SocketAddr::new("127.0.0.1".parse().unwrap(), port));
    let far = At::Tcp(SocketAddr::new(ip, port));
    for ask in [
        far.get("/api/v1/status").token("secret-of-admin"),
        far.get("/metrics").token("secret-of-metrics"),
        far.get("/login"),
        far.form("/login", "name=kim&password=correct+horse"),
        far.ask("OPTIONS", "/"),
        far.get("/api/v1/status")
            .token("secret-of-admin")
            .with("X-Forwarded-Proto", "https"),
        far.get("/api/v1/status")
            .token("secret-of-admin")
            .with("X-Forwarded-For", "127.0.0.1"),
    ] {
        let answer = ask.send();
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("without TLS only"), "{answer:?}");
    }
    for probe in ["/livez", "/readyz"] {
        assert!([200, 503].contains(&far.get(probe).status()));
    }
    assert_eq!(
        near.get("/api/v1/status").token("secret-of-admin").status(),
        200
    );
    // Networks of `metrics` are answered there, and nowhere else.
    let (_gateway, window, _sink) = start(&format!(
        "address = \"0.0.0.0:0\"\ntrusted_proxies = [\"127.0.0.9\"]\nmetrics = [\"{ip}\"]"
    ));
    let far = At::Tcp(SocketAddr::new(ip, address(&window).port()));
    assert_eq!(far.get("/metrics").status(), 200);
    assert_eq!(far.ask("HEAD", "/metrics").status(), 200);
    assert_ne!(far.ask("POST", "/metrics").status(), 200);
    assert_eq!(far.get("/metrics/").status(), 403);
    assert_eq!(
        far.get("/api/v1/status")
            .token("secret-of-admin")
            .send()
            .code(),
        "tls_needed"
    );
    let near = At::Tcp(SocketAddr::new(
        "127.0.0.1".parse().unwrap(),
        address(&window).port(),
    ));
    assert_eq!(near.get("/metrics").status(), 401);
}

/// Over TLS a cookie is bound to the host, and goes nowhere else.
#[test]
fn a_proxy_that_is_trusted_says_where_a_request_comes_from_and_how() {
    let (gateway, window, _sink) = start(
        "trusted_proxies = [\"127.0.0.8/31\", \"10.0.0.0/8\"]\nmetrics = [\"127.0.0.0/8\", \"10.0.0.0/8\", \"192.0.2.7\"]",
    );
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    let narrow = text.replace(
        "role = \"viewer\"\n[[admin_token]]",
        "role = \"viewer\"\nnetworks = [\"192.0.2.7\"]\n[[admin_token]]",
    );
    assert_ne!(text, narrow);
    fs::write(gateway.config_path(), narrow).unwrap();
    stdout(&gateway.cli(&["reload"]));
    // Who is no proxy says nothing: the metrics are read from here, and the token is not good here.
    let plain = |ask: Ask| ask.with("X-Forwarded-For", "192.0.2.7").status();
    assert_eq!(
        plain(window.get("/api/v1/status").token("secret-of-viewer")),
        401
    );
    assert_eq!(
        plain(
            window
                .get("/metrics")
                .with("X-Forwarded-For", "203.0.113.1")
        ),
        200
    );
    for (said, from) in [
        (&["192.0.2.7"][..], "192.0.2.7"),
        // What was there before the proxy wrote is whatever a stranger likes.
        (&["192.0.2.7, 203.0.113.1"], "203.0.113.1"),
        (&["192.0.2.7", "203.0.113.1"], "203.0.113.1"),
        (&["203.0.113.1, 192.0.2.7"], "192.0.2.7"),
        (
            &["203.0.113.1", "192.0.2.7, 10.1.2.3,127.0.0.9"],
            "192.0.2.7",
        ),
        (&["\u{ff}, 192.0.2.7"], "192.0.2.7"),
        (&["\u{ff}, 203.0.113.1"], "203.0.113.1"),
        (&["\u{ff}", "203.0.113.1"], "203.0.113.1"),
        (&["evil, 203.0.113.1:4711"], "203.0.113.1"),
        (&["[::ffff:192.0.2.7]:1"], "192.0.2.7"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&[",, 192.0.2.7 ,"], "192.0.2.7"),
    ] {
        let dressed = |mut ask: Ask| {
            for value in said {
                ask = ask.with("X-Forwarded-For", value);
            }
            ask.from("127.0.0.9").status()
        };
        let is_seven = from == "192.0.2.7";
        assert_eq!(
            dressed(window.get("/api/v1/status").token("secret-of-viewer")) == 200,
            is_seven,
            "{said:?}"
        );
        assert_eq!(dressed(window.get("/metrics")) == 200, is_seven, "{said:?}");
        assert_eq!(
            dressed(window.form("/login", "name=kim&password=wrong")),
            401,
            "{said:?}"
        );
        let row = audit(&window).remove(0);
        assert_eq!(
            (row["from"].as_str(), row["action"].as_str()),
            (Some(from), Some("login")),
            "{said:?}"
        );
    }
    let enter = |proto: &str| {
        let ask = window
            .form("/login", "name=ann&password=correct+horse")
            .from("127.0.0.9");
        let ask = ask.with("X-Forwarded-For", "198.51.100.1");
        let answer = ask.with("X-Forwarded-Proto", proto).send();
        assert_eq!(answer.status, 303);
        answer.header("set-cookie").unwrap()
    };
    let set = enter("https");
    assert!(set.starts_with("__Host-postern="), "{set}");
    assert!(
        set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{set}"
    );
    assert!(enter("http").starts_with(&format!("postern-{}=", address(&window).port())));
    let spoofed = window
        .form("/login", "name=ann&password=correct+horse")
        .with("X-Forwarded-Proto", "https");
    assert!(
        !spoofed
            .send()
            .header("set-cookie")
            .unwrap()
            .contains("Secure")
    );
}

#[test]
fn a_token_is_good_from_its_networks_and_until_its_last_day() {
    let sink = Upstream::start();
    let config = windowed(&sink, "");
    let of = |key: &str| {
        config.replace(
            "role = \"viewer\"\n[[admin_token]]",
            &format!("role = \"viewer\"\n{key}\n[[admin_token]]"),
        )
    };
    for (key, is_good) in [
        ("networks = [\"127.0.0.1\"]", true),
        ("networks = [\"127.0.0.2\", \"10.0.0.0/8\"]", false),
        ("expires = \"2020-12-31\"", false),
        ("expires = \"2099-12-31\"", true),
    ] {
        let gateway = Gateway::start(&of(key));
        let window = gateway.window();
        let answer = window
            .get("/api/v1/status")
            .token("secret-of-viewer")
            .send();
        assert_eq!(answer.status == 200, is_good, "{key}: {answer:?}");
        if !is_good {
            assert_eq!(answer.status, 401);
            assert!(!answer.body.contains("2020"), "{answer:?}");
        }
        assert_eq!(
            window
                .get("/api/v1/status")
                .token("secret-of-operator")
                .status(),
            200
        );
    }
}

/// Whatever the window is asked, mail goes its way.
#[test]
fn attack_noise_is_answered_and_mail_goes_on() {
    let (gateway, window, sink) = start("content = \"all\"");
    let noise: &[&[u8]] = &[
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:25 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: \xff=\xff\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"HELO x\r\nMAIL FROM:<a@b>\r\n",
        b"GET /login HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"\0\0\0\0",
    ];
    for octets in noise {
        let mut stream = TcpStream::connect(address(&window)).unwrap();
        stream.write_all(octets).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (_, said) = closed(stream);
        assert!(
            !said.contains(" 500 ") && !said.starts_with("HTTP/1.1 2")
                || said.contains("/login")
                || octets.starts_with(b"GET /login"),
            "{said}"
        );
    }
    for body in [
        "[",
        "[]",
        "null",
        "\"x\"",
        "{\"ids\":3}",
        "{\"ids\":[null]}",
        "{\"ids\":[\"../../x\"]}",
        "{\"filter\":{\"since\":\"x\"},\"expect\":1}",
        "{\"filter\":{\"sender\":\"\u{e9}\"},\"expect\":-1}",
        "\u{e9}",
    ] {
        let latin: String = body.bytes().map(char::from).collect();
        let status = window
            .post("/api/v1/messages/drop", &latin)
            .token("secret-of-operator")
            .status();
        assert!([400, 404].contains(&status), "{body}: {status}");
    }
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=x",
        "cursor=x",
        "since=x",
        "state=x",
        "all=perhaps",
        "sender=%ff",
        "text=%00",
        "connector=%f0%9f%92%a9",
    ] {
        let status = window
            .get(&format!("/api/v1/messages?{query}"))
            .token("secret-of-viewer")
            .status();
        assert!([200, 400].contains(&status), "{query}: {status}");
    }
    send(&gateway);
    sink.wait(1);
    assert!(!gateway.log().contains("panicked") && !gateway.log().contains("window failed"));
}
