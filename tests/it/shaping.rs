//! What each mailbox is sent: never more than Exchange Online takes, as fast as that allows, and no mailbox waits for another.

use crate::harness::time::{growth, stays};
use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::harness::{
    cloud::{Tenant, error},
    cloud_limits::Limits,
    cloud_token::Said,
    gateway::{Gateway, basic, queued_id, stdout, wait},
    http::{Wire, serve},
    upstream::Upstream,
};

fn config(tenant: &Tenant, rate: &str, more: &str) -> String {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let connector = tenant
        .connector()
        .replace("rate = \"1000/min\"", &format!("rate = \"{rate}\""));
    format!("{front}{connector}{more}")
}

/// Hands over so many mails of a mailbox on one connection; their subjects are `PREFIX-0.` and so on.
fn mails(gateway: &Gateway, from: &str, prefix: &str, count: usize, body: &str) -> Vec<String> {
    let mut client = gateway.connect("local");
    client.expect("EHLO app", "250");
    (0..count)
        .map(|n| {
            let content = format!("From: {from}\r\nSubject: {prefix}-{n}.\r\n\r\n{body}b\r\n");
            queued_id(&client.mail(from, &["x@corp.example"], &content))
        })
        .collect()
}

fn subject(content: &str) -> &str {
    let rest = content.split("Subject: ").nth(1).unwrap();
    rest.split("\r\n").next().unwrap()
}

/// What Graph may need for a request: without it no two are under way at once.
fn takes_a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}

/// So many mails, each once, within two minutes.
fn each_once(tenant: &Tenant, count: usize) {
    wait("all of them", || {
        (tenant.mails().len() >= count).then_some(())
    });
    let while_another_would_come = Duration::from_millis(1500);
    stays("no second copy", while_another_would_come, || {
        tenant.mails().len() == count
    });
    let mails = tenant.mails();
    let subjects: HashSet<&str> = mails.iter().map(|m| subject(&m.content)).collect();
    assert_eq!(subjects.len(), count, "each once");
}

fn lanes(gateway: &Gateway) -> HashMap<String, serde_json::Value> {
    let status = gateway.cli(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let lanes = status["connectors"].as_array().unwrap().clone();
    lanes
        .into_iter()
        .map(|lane| (lane["name"].as_str().unwrap().to_owned(), lane))
        .collect()
}

fn queue(gateway: &Gateway) -> Vec<serde_json::Value> {
    serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap()
}

fn lines(gateway: &Gateway, words: &[&str]) -> usize {
    let log = gateway.log();
    log.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

/// In front of the tenant: every eighth request breaks in the middle of its body, and the tenant never has all of it.
fn cutting(tenant: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, cut): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let counted = cut.clone();
    serve(listener, move |wire| pass(wire, tenant, &requests, &cut));
    (address, counted)
}

fn pass(
    mut client: Wire,
    tenant: SocketAddr,
    requests: &AtomicUsize,
    cut: &AtomicUsize,
) -> Option<()> {
    let mut tenant = Wire::new(TcpStream::connect(tenant).ok()?);
    loop {
        let head = client.head()?;
        let body = client.body(head.length())?;
        tenant.say(head.0.as_bytes())?;
        if requests.fetch_add(1, Ordering::SeqCst) % 8 == 5 {
            cut.fetch_add(1, Ordering::SeqCst);
            return tenant.say(&body[..body.len() / 2]);
        }
        tenant.say(&body)?;
        let head = tenant.head()?;
        let body = tenant.body(head.length())?;
        client.say(head.0.as_bytes())?;
        client.say(&body)?;
    }
}

#[test]
fn a_hundred_messages_on_parallel_connections_while_a_third_of_the_requests_fail() {
    let failures: Arc<Mutex<HashMap<u16, usize>>> = Arc::default();
    let counted = failures.clone();
    let limits = Limits {
        messages: (30, Duration::from_secs(3)),
        ..Limits::default()
    };
    let tenant = Tenant::limited(limits, move |n, _| {
        takes_a_moment();
        // A fixed pseudo-random fifth; an eighth is cut on the way.
        let said = ((n * 7919 + 13) % 10 < 2).then(|| match n % 4 {
            0 => error(500, "ErrorInternalServerError", ""),
            1 => error(503, "ErrorServerBusy", ""),
            2 => error(429, "ApplicationThrottled", "Retry-After: 1\r\n"),
            _ => error(504, "UnknownError", ""),
        });
        if let Some((status, ..)) = &said {
            *counted.lock().unwrap().entry(*status).or_default() += 1;
        }
        said
    });
    let (front, cut) = cutting(tenant.endpoint.address);
    let graph = tenant.endpoint.url("");
    let config = config(&tenant, "30/3s", "\n[queue]\nin_doubt_wait = \"1s\"\n").replace(
        &format!("graph_url = \"{graph}\""),
        &format!("graph_url = \"http://{front}\""),
    );
    let gateway = Gateway::start(&config);
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let gateway = &gateway;
            scope.spawn(move || {
                mails(gateway, "a@corp.example", &format!("{thread}"), 10, "");
            });
        }
    });
    each_once(&tenant, 100);
    assert_eq!(tenant.violations(), Vec::<String>::new());
    assert!(
        (2..=4).contains(&tenant.most_at_once()),
        "{} at once",
        tenant.most_at_once()
    );
    let failures = failures.lock().unwrap().clone();
    assert!(
        failures.len() == 4 && cut.load(Ordering::SeqCst) > 10,
        "{failures:?}"
    );
    assert!(queue(&gateway).is_empty());
}

#[test]
fn a_mailbox_that_has_to_wait_holds_up_no_other() {
    let (slow, limits) = (Arc::new(AtomicUsize::new(0)), Limits::default());
    let asked = slow.clone();
    let tenant = Tenant::limited(limits, move |_, mailbox| {
        (mailbox == "slow@corp.example").then(|| {
            asked.fetch_add(1, Ordering::SeqCst);
            error(429, "ApplicationThrottled", "Retry-After: 600\r\n")
        })
    });
    let sink = Upstream::start();
    let second = format!(
        "[[connector]]\nname = \"second\"\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        sink.address.port()
    );
    let config = config(&tenant, "1000/min", &second)
        .replace("connectors = [\"up\"]", "connectors = [\"up\", \"second\"]");
    let mut gateway = Gateway::start(&config);
    let held = mails(&gateway, "slow@corp.example", "slow", 300, "");
    // Long before the other may go on.
    mails(&gateway, "good@corp.example", "good", 50, "");
    each_once(&tenant, 50);
    let waiting = wait("all but the first wait for their turn", || {
        let queue = queue(&gateway);
        let waits = |e: &serde_json::Value| e["waits_for"] == "up/slow@corp.example";
        (queue.len() == 300 && queue.iter().all(waits)).then_some(queue)
    });
    for entry in &waiting {
        assert_eq!(
            (&entry["attempts"], &entry["state"], &entry["blocked_by"]),
            (&0.into(), &"waiting".into(), &serde_json::Value::Null),
            "{entry}"
        );
    }
    let asked = slow.load(Ordering::SeqCst);
    assert!((1..=4).contains(&asked), "asked {asked} times");
    assert!(sink.mails().is_empty(), "no reason to go elsewhere");
    assert_eq!(
        lines(
            &gateway,
            &[
                "connector paused",
                "up/slow@corp.example",
                "throttled",
                "until="
            ]
        ),
        1,
        "{}",
        gateway.log()
    );
    let lane = lanes(&gateway).remove("up/slow@corp.example").unwrap();
    assert_eq!(lane["state"], "throttled", "{lane}");
    assert!(lane["why"].as_str().unwrap().contains("429"), "{lane}");
    let text = gateway.cli(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("up/slow@corp.example is throttled since") && text.contains("goes on in"),
        "{text}"
    );
    let shown = stdout(&gateway.cli(&["queue", "show", &held[200]]));
    assert!(
        shown.contains("its turn in up/slow@corp.example"),
        "{shown}"
    );
    // Nothing of it is work while it waits; the bound is far below what looking at it all the time would take.
    let used = growth(Duration::from_secs(2), || processor_time(&gateway));
    assert!(used < 80, "{used} ticks of 10 ms");
    // What a start finds is what the last one left.
    gateway.kill();
    gateway.restart();
    mails(&gateway, "good@corp.example", "again", 5, "");
    each_once(&tenant, 55);
    assert_eq!(slow.load(Ordering::SeqCst), asked, "nobody asked again");
    assert_eq!(queue(&gateway).len(), 300);
}

/// In ticks, of which a second has 100.
fn processor_time(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn http_date(ahead: Duration) -> String {
    httpdate(SystemTime::now() + ahead)
}

/// RFC 9110 §5.6.7, by `date`.
fn httpdate(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let date = std::process::Command::new("date")
        .env("LC_ALL", "C")
        .args([
            "-u",
            "-d",
            &format!("@{seconds}"),
            "+%a, %d %b %Y %H:%M:%S GMT",
        ])
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn every_form_of_a_wish_to_wait_is_obeyed_by_that_mailbox_alone() {
    type Wish = fn() -> Said;
    let wishes: [(&str, Wish, u64, usize); 4] = [
        (
            "seconds",
            || error(429, "ApplicationThrottled", "Retry-After: 5\r\n"),
            5,
            0,
        ),
        (
            "date",
            || {
                let date = http_date(Duration::from_secs(6));
                error(503, "ErrorServerBusy", &format!("Retry-After: {date}\r\n"))
            },
            5,
            0,
        ),
        ("none", || error(429, "TooManyRequests", ""), 2, 0),
        (
            "taken",
            || (202, "Retry-After: 5\r\n".to_owned(), String::new()),
            5,
            1,
        ),
    ];
    for (name, wish, seconds, taken) in wishes {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = times.clone();
        let tenant = Tenant::limited(Limits::default(), move |_, mailbox| {
            if mailbox != "a@corp.example" {
                return None;
            }
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            (seen.len() == 1).then(wish)
        });
        let gateway = Gateway::start(&config(&tenant, "1000/min", ""));
        mails(&gateway, "a@corp.example", "first", 1, "");
        wait("the first is answered", || {
            gateway.log().contains("connector paused").then_some(())
        });
        mails(&gateway, "a@corp.example", "a", 5, "");
        mails(&gateway, "b@corp.example", "b", 5, "");
        wait("the other mailbox", || {
            (tenant.mails().len() >= 5).then_some(())
        });
        // It was not made to wait for the first.
        let so_far = times.lock().unwrap().clone();
        let is_early = so_far[0].elapsed() < Duration::from_millis(seconds * 1000 - 50);
        assert!(so_far.len() == 1 || !is_early, "{name}");
        each_once(&tenant, 11 - taken);
        let times = times.lock().unwrap().clone();
        assert_eq!(times.len(), 7 - taken, "{name}");
        let waited = times[1] - times[0];
        let expected = Duration::from_millis(seconds * 1000 - 50);
        assert!(
            waited >= expected && waited < expected + Duration::from_secs(4),
            "{name}: {waited:?}"
        );
        wait("it is over", || queue(&gateway).is_empty().then_some(()));
        let lane = ["lane=up/a@corp.example"];
        assert_eq!(
            (
                lines(&gateway, &["connector paused", lane[0]]),
                lines(&gateway, &["connector resumed", lane[0]])
            ),
            (1, 1),
            "{name}: {}",
            gateway.log()
        );
        assert!(
            lanes(&gateway).keys().all(|lane| lane == "up"),
            "{name}: a mailbox that is open has no row"
        );
    }
}

#[test]
fn a_mailbox_at_its_daily_limit_waits_an_hour() {
    let (requests, limits) = (Arc::new(AtomicUsize::new(0)), Limits::default());
    let asked = requests.clone();
    let tenant = Tenant::limited(limits, move |_, mailbox| {
        (mailbox == "a@corp.example").then(|| {
            asked.fetch_add(1, Ordering::SeqCst);
            error(429, "ErrorExceededMessageLimit", "Retry-After: 1\r\n")
        })
    });
    let mut gateway = Gateway::start(&config(&tenant, "1000/min", ""));
    let ids = mails(&gateway, "a@corp.example", "a", 1, "");
    for round in 0..2 {
        let lane = wait("the mailbox waits", || {
            lanes(&gateway)
                .remove("up/a@corp.example")
                .filter(|lane| lane["state"] == "throttled")
        });
        let text = lane["next_probe"].as_str().unwrap();
        let next = std::process::Command::new("date")
            .args(["-u", "-d", text, "+%s"])
            .output()
            .unwrap();
        let next: u64 = String::from_utf8(next.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!((3500..=3600).contains(&(next - now)), "{lane}");
        assert_eq!(queue(&gateway)[0]["attempts"], 0);
        mails(&gateway, "b@corp.example", &format!("b{round}"), 3, "");
        tenant.wait(3 * (round + 1));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
        gateway.kill();
        gateway.restart();
    }
    let trace = stdout(&gateway.cli(&["trace", &ids[0]]));
    assert!(trace.contains("the day's limit"), "{trace}");
}

#[test]
fn a_connector_with_a_mailbox_is_that_mailbox() {
    let limits = Limits {
        messages: (10, Duration::from_secs(2)),
        at_once: 2,
        ..Limits::default()
    };
    let tenant = Tenant::limited(limits, |_, _| {
        takes_a_moment();
        None
    });
    for thread in 0..4 {
        tenant.grant_send_as(&format!("{thread}@corp.example"));
    }
    let more = "mailbox = \"p@corp.example\"\nmax_concurrent = 2\n";
    let gateway = Gateway::start(&config(&tenant, "10/2s", more));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gateway = &gateway;
            let from = format!("{thread}@corp.example");
            scope.spawn(move || mails(gateway, &from, &from, 10, ""));
        }
    });
    each_once(&tenant, 40);
    assert!(
        begin.elapsed() >= Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(tenant.violations(), Vec::<String>::new());
}

#[test]
fn octets_are_counted_as_they_leave() {
    let limits = Limits {
        octets: (500_000, Duration::from_secs(2)),
        ..Limits::default()
    };
    let tenant = Tenant::limited(limits, |_, _| None);
    let gateway = Gateway::start(&config(&tenant, "1000/min", "upload_rate = \"500KB/2s\"\n"));
    // 120 kB in base64; the fifth of them is too much.
    let body = "0123456789012345678901234567890123456789\r\n".repeat(2140);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gateway, body) = (&gateway, &body);
            scope.spawn(move || mails(gateway, "a@corp.example", &format!("{thread}"), 5, body));
        }
    });
    mails(&gateway, "b@corp.example", "b", 2, "");
    each_once(&tenant, 22);
    assert_eq!(tenant.violations(), Vec::<String>::new());
}

#[test]
fn invented_mailboxes_are_tried_thirty_times_a_minute_and_the_log_and_status_can_be_read() {
    let invented: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = invented.clone();
    let tenant = Tenant::limited(Limits::default(), move |_, mailbox| {
        takes_a_moment();
        mailbox.starts_with("invented").then(|| {
            seen.lock().unwrap().push(Instant::now());
            error(404, "ErrorInvalidUser", "")
        })
    });
    let gateway = Gateway::start(&config(&tenant, "1000/min", ""));
    mails(&gateway, "real@corp.example", "before", 1, "");
    each_once(&tenant, 1);
    for n in 0..60 {
        let from = format!("invented{n:02}@corp.example");
        mails(&gateway, &from, "invented", 1, "");
    }
    wait("thirty are refused", || {
        (invented.lock().unwrap().len() >= 30).then_some(())
    });
    let began = invented.lock().unwrap()[0];
    // Known mailboxes are not held up by them.
    mails(&gateway, "real@corp.example", "beside", 20, "");
    each_once(&tenant, 21);
    assert!(began.elapsed() < Duration::from_secs(50), "they waited");
    assert_eq!(invented.lock().unwrap().len(), 30);
    let all = wait("a row for each", || {
        let status = gateway.cli(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let all = status["connectors"].as_array().unwrap().clone();
        (all.last().unwrap()["more"] == 20).then_some(all)
    });
    assert_eq!(all.len(), 12, "{all:?}");
    assert_eq!(all[11]["name"], "up/*");
    let text = gateway.cli(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert_eq!(text.matches("is paused since").count(), 11, "{text}");
    assert!(text.contains("20 more mailboxes"), "{text}");
    let paused = ["connector paused", "lane=up/invented"];
    assert_eq!(lines(&gateway, &paused), 10, "{}", gateway.log());
    // None of them was tried, or has had an answer to its mail: that is no line of the mail log.
    assert_eq!(lines(&gateway, &["deferred"]), 0, "{}", gateway.log());
    // Real time: a minute is what is tested.
    // The next ones are tried when the minute is over, and so is this; on a busy machine some of them are counted already.
    wait("the count of the others", || {
        let log = gateway.log();
        let line = log.lines().find(|line| {
            line.contains("more of these in the last minute") && line.contains("lane=up")
        })?;
        let count = line.rsplit_once("count=")?.1.trim().parse::<usize>().ok()?;
        assert!((20..=30).contains(&count), "{line}");
        Some(())
    });
    let times = invented.lock().unwrap().clone();
    for (n, at) in times.iter().enumerate().skip(30) {
        let before = times[n - 30];
        assert!(*at - before >= Duration::from_secs(59), "{n}");
    }
}
