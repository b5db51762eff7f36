//! Who connects: the devices, learning them, and what they say.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use postern::{
    admin::adoption::adopted,
    config::{
        Environment, Secrets,
        edit::{Ground, Plan, digest},
    },
    window::{WindowDb, devices},
};

use super::{
    harness::{
        client::Client,
        gateway::{Gateway, basic, stdout},
        peers::free_port,
        time::wait,
        upstream::Upstream,
    },
    stopped::{ask, token},
};

struct World {
    gateway: Gateway,
    at: SocketAddr,
    admin: String,
    operator: String,
    viewer: String,
    up: Upstream,
}

/// A gateway that knows no client on this machine.
fn world() -> World {
    let up = Upstream::start();
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (admin, one) = token("admin");
    let (operator, two) = token("operator");
    let (viewer, three) = token("viewer");
    let config = basic(up.address);
    let gateway = Gateway::start(&format!(
        "{config}\n[[client]]\nname = \"other\"\nnetworks = [\"10.9.0.0/16\"]\n\n[admin]\naddress = \"{at}\"\n{one}\n{two}\n{three}"
    ));
    World {
        gateway,
        at,
        admin,
        operator,
        viewer,
        up,
    }
}

/// What a stranger is greeted with.
fn greeting(gateway: &Gateway) -> String {
    Client::connect(gateway.address("local")).reply()
}

/// A sensor that knows neither HELO nor brackets.
fn measure(gateway: &Gateway, to: &str) -> String {
    let mut device = gateway.connect("local");
    device.send(b"MAIL FROM:sensor@corp.example\r\n");
    let said = device.reply();
    if !said.starts_with("250") {
        return said;
    }
    device.send(format!("RCPT TO:<{to}>\r\n").as_bytes());
    let said = device.reply();
    if !said.starts_with("250") {
        return said;
    }
    device.expect("DATA", "354");
    device.send(b"Subject: 21 degrees\r\n\r\nwarm\r\n.\r\n");
    let said = device.reply();
    device.say("QUIT");
    said
}

#[test]
fn who_connects_is_kept_and_shown() {
    let mut world = world();
    let World {
        at, viewer, admin, ..
    } = &world;
    let (at, viewer, admin) = (*at, viewer.clone(), admin.clone());
    let said = greeting(&world.gateway);
    assert!(said.starts_with("554"), "{said}");
    let device = wait("the device", || {
        let (code, found) = ask(at, &viewer, "GET /api/v1/devices/127.0.0.1", "");
        (code == 200).then_some(found)
    });
    assert_eq!(device["client"], serde_json::Value::Null);
    assert_eq!(
        (&device["accepted"], &device["refused"]),
        (&0.into(), &1.into())
    );
    assert_eq!(device["refusals"][0]["stage"], "connect");
    let keys: Vec<&String> = device.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "accepted",
            "address",
            "client",
            "first_seen",
            "last_seen",
            "last_session",
            "refusals",
            "refused",
            "senders"
        ]
    );
    let (_, refused) = ask(at, &viewer, "GET /api/v1/refused?address=127.0.0.1", "");
    assert_eq!(refused["items"][0]["stage"], "connect", "{refused}");
    assert_eq!(refused["items"][0]["listener"], "local");
    assert_eq!(refused["items"][0]["client"], serde_json::Value::Null);
    let of = |network: &str| {
        let path = format!("GET /api/v1/refused?address={network}");
        let (_, found) = ask(at, &viewer, &path, "");
        found["items"].as_array().unwrap().len()
    };
    assert_eq!([of("127.0.0.0/24"), of("127.0.1.0/24"), of("x")], [1, 0, 0]);
    let (_, none) = ask(at, &viewer, "GET /api/v1/devices?refused=false", "");
    assert_eq!(none["items"].as_array().unwrap().len(), 0, "{none}");
    let (code, said) = ask(at, &viewer, "GET /api/v1/devices?colour=red", "");
    assert_eq!((code, &said["code"]), (400, &"unknown_key".into()));
    assert_eq!(ask(at, &viewer, "GET /api/v1/devices/10.1.1.1", "").0, 404);
    assert_eq!(ask(at, &viewer, "GET /api/v1/devices/%1b%5b31m", "").0, 404);
    assert_eq!(ask(at, &admin, "GET /api/v1/devices?cursor=x", "").0, 400);
    // It is written at the end, and known again.
    world.gateway.terminate();
    let listed = world.gateway.cli(&["devices", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&stdout(&listed)).unwrap();
    assert_eq!(listed[0]["address"], "127.0.0.1");
    assert_eq!(listed[0]["refused"], 1);
    world.gateway.restart();
    greeting(&world.gateway);
    wait("the count goes on", || {
        let (_, found) = ask(at, &viewer, "GET /api/v1/devices/127.0.0.1", "");
        (found["refused"] == 2).then_some(())
    });
    let table = stdout(&world.gateway.cli(&["devices"]));
    assert!(table.contains("127.0.0.1"), "{table}");
    // Whoever has a client since is not offered to be adopted for what was refused before.
    let file = world.gateway.config_path();
    let text = fs::read_to_string(&file).unwrap();
    let client = "\n[[client]]\nname = \"late\"\nnetworks = [\"127.0.0.1/32\"]\n";
    fs::write(&file, text + client).unwrap();
    stdout(&world.gateway.cli(&["reload"]));
    let (_, refused) = ask(at, &viewer, "GET /api/v1/refused", "");
    assert_eq!(refused["items"][0]["client"], "late", "{refused}");
}

#[test]
fn a_device_is_learned_within_bounds() {
    let world = world();
    let (gateway, at) = (&world.gateway, world.at);
    let learn = "POST /api/v1/learning";
    assert!(greeting(gateway).starts_with("554"));
    assert_eq!(ask(at, &world.operator, learn, "{}").0, 403);
    for body in [
        r#"{"networks":["127.0.0.0/15"],"for":"1h"}"#,
        r#"{"networks":["8.8.8.0/24"],"for":"1h"}"#,
        r#"{"networks":["127.0.0.0/16"],"for":"9h"}"#,
        r#"{"networks":[],"for":"1h"}"#,
        r#"{"networks":["::/0"],"for":"1h"}"#,
    ] {
        let (code, said) = ask(at, &world.admin, learn, body);
        assert_eq!(
            (code, &said["code"]),
            (422, &"bounds".into()),
            "{body} {said}"
        );
    }
    for args in [
        &["learn", "10.0.0.0/8"][..],
        &["learn", "10.0.0.0/16", "--for", "9h"],
        &["capture", "10.0.0.1", "--for", "61m"],
        &["capture", "printer"],
        &["learn"],
        &["learn", "--stop"],
    ] {
        assert_eq!(gateway.cli(args).status.code(), Some(64), "{args:?}");
    }
    let (code, on) = ask(
        at,
        &world.admin,
        learn,
        r#"{"networks":["127.0.0.0/16"],"for":"10m"}"#,
    );
    assert_eq!(code, 200, "{on}");
    assert_eq!(on["learning"]["networks"][0], "127.0.0.0/16");
    let said = measure(gateway, "a@partner.example");
    assert!(said.starts_with("550"), "not to others: {said}");
    let said = measure(gateway, "a@corp.example");
    assert!(said.starts_with("250"), "{said}");
    let mail = world.up.wait(1).remove(0);
    assert_eq!(mail.to, ["a@corp.example"]);
    let (_, state) = wait("the candidate", || {
        let state = ask(at, &world.viewer, "GET /api/v1/learning", "");
        (state.1["candidates"][0] == "127.0.0.1").then_some(state)
    });
    assert_eq!(state["learning"]["external"], false);
    let (_, device) = ask(at, &world.viewer, "GET /api/v1/devices/127.0.0.1", "");
    assert_eq!(device["client"], serde_json::Value::Null);
    assert_eq!(device["senders"][0], "sensor@corp.example");
    let tolerances = &device["last_session"]["tolerances"];
    assert_eq!(tolerances, &serde_json::json!(["no_brackets", "no_helo"]));
    wait("status says it", || {
        let status = stdout(&gateway.cli(&["status"]));
        status.contains("learning    127.0.0.0/16").then_some(())
    });
    let (_, status) = ask(at, &world.viewer, "GET /api/v1/status", "");
    assert_eq!(status["learning"]["networks"][0], "127.0.0.0/16");
    let (code, off) = ask(at, &world.admin, "DELETE /api/v1/learning", "");
    assert_eq!((code, &off["learning"]), (200, &serde_json::Value::Null));
    assert!(greeting(gateway).starts_with("554"), "it is over");
    // By the command, to anybody, for a time.
    let said = gateway.cli(&["learn", "127.0.0.0/16", "--for", "15s", "--external"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let said = measure(gateway, "a@partner.example");
    assert!(said.starts_with("250"), "{said}");
    let said = measure(gateway, "a@evil.tld");
    assert!(said.starts_with("550"), "the lists hold: {said}");
    wait("its time is over", || {
        greeting(gateway).starts_with("554").then_some(())
    });
    gateway.cli(&["learn", "127.0.0.0/16"]);
    assert!(greeting(gateway).starts_with("220"));
    assert_eq!(gateway.cli(&["learn", "--stop"]).status.code(), Some(0));
    assert!(greeting(gateway).starts_with("554"));
}

#[test]
fn a_conversation_is_captured_as_it_comes() {
    let world = world();
    let (gateway, at) = (&world.gateway, world.at);
    gateway.cli(&["learn", "127.0.0.0/16"]);
    let captures = "POST /api/v1/captures";
    assert_eq!(ask(at, &world.viewer, captures, "{}").0, 403);
    let (code, said) = ask(
        at,
        &world.operator,
        captures,
        r#"{"address":"127.0.0.1","for":"2h"}"#,
    );
    assert_eq!((code, &said["code"]), (422, &"bounds".into()));
    let (code, begun) = ask(at, &world.operator, captures, r#"{"address":"127.0.0.1"}"#);
    assert_eq!(code, 201, "{begun}");
    let id = begun["id"].as_str().unwrap();
    measure(gateway, "a@corp.example");
    let mut device = gateway.connect("local");
    device.say("EHLO x\x00\x1b[31m");
    device.say("AUTH PLAIN AGEAc2VjcmV0");
    device.say("MAIL FROM:<a@evil.tld>");
    device.say("QUIT");
    let path = format!("GET /api/v1/captures/{id}");
    let seen = wait("both sessions", || {
        let (code, seen) = ask(at, &world.operator, &path, "");
        assert_eq!(code, 200);
        let last = seen["sessions"][1]["lines"].as_array()?.last()?.clone();
        last["text"].as_str()?.starts_with("221").then_some(seen)
    });
    let lines = |n: usize| -> Vec<String> {
        let lines = seen["sessions"][n]["lines"].as_array().unwrap();
        lines
            .iter()
            .map(|line| {
                let (from, text) = (&line["from"], &line["text"]);
                format!("{} {}", from.as_str().unwrap(), text.as_str().unwrap())
            })
            .collect()
    };
    let (first, second) = (lines(0).join("\n"), lines(1).join("\n"));
    for expected in [
        "note connected to listener local, in no [[client]], learned",
        "client MAIL FROM:sensor@corp.example",
        "note tolerated: no_brackets",
        "note tolerated: no_helo",
        "postern 250",
        "client [21 octets of header, 6 of body]",
    ] {
        assert!(first.contains(expected), "{expected}: {first}");
    }
    assert!(!first.contains("warm"), "{first}");
    for expected in [
        "client EHLO x\\x00\\x1b[31m",
        "client AUTH PLAIN ***",
        "note refused at mail, 550",
        "matches nothing in allowlist.senders",
    ] {
        assert!(second.contains(expected), "{expected}: {second}");
    }
    assert!(!seen.to_string().contains("c2VjcmV0"));
    let (_, list) = ask(at, &world.operator, "GET /api/v1/captures", "");
    assert_eq!(list["items"][0]["sessions"], 2, "{list}");
    assert_eq!(
        ask(at, &world.operator, "GET /api/v1/captures/c999", "").0,
        404
    );

    // The command prints them as they come, and ends with its time.
    let mut command = Command::new(Gateway::binary())
        .args(["capture", "127.0.0.1", "--for", "8s"])
        .current_dir(gateway.dir.path())
        .env("POSTERN_CONFIG", "config.toml")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut notice = BufReader::new(command.stderr.take().unwrap());
    notice.read_line(&mut told).unwrap();
    assert!(told.contains("conversations with 127.0.0.1"), "{told}");
    measure(gateway, "a@corp.example");
    let mut printed = BufReader::new(command.stdout.take().unwrap()).lines();
    let line = printed.by_ref().map(Result::unwrap);
    let first: Vec<String> = line.take(2).collect();
    assert!(
        first[0].contains("# connected to listener local"),
        "{first:?}"
    );
    assert!(first[1].contains("S: 220 "), "{first:?}");
    let rest: Vec<String> = printed.map(Result::unwrap).collect();
    assert!(
        rest.iter()
            .any(|line| line.contains("C: MAIL FROM:sensor@corp.example"))
    );
    assert_eq!(command.wait().unwrap().code(), Some(0));
    let none = wait("the rows are gone", || {
        let db = rusqlite::Connection::open(gateway.path("data").join("window.db")).ok()?;
        let count = "SELECT (SELECT count(*) FROM asked WHERE answer IS NULL) + (SELECT count(*) FROM captured)";
        let rows: i64 = db.query_row(count, [], |row| row.get(0)).ok()?;
        (rows == 0).then_some(rows)
    });
    assert_eq!(none, 0);
}

/// It waits for an answer that never comes, and goes; when it comes again it is understood.
#[test]
fn a_device_that_ends_with_lf_alone_is_understood_at_its_second_try() {
    let world = world();
    let gateway = &world.gateway;
    gateway.cli(&["learn", "127.0.0.0/16"]);
    let begin = || {
        let mut device = gateway.connect("local");
        device.expect("EHLO old", "250");
        device.expect("MAIL FROM:<old@corp.example>", "250");
        device.expect("RCPT TO:<a@corp.example>", "250");
        device.expect("DATA", "354");
        device.send(b"Subject: old\n\nold\n.\n");
        device
    };
    drop(begin());
    wait("that is seen", || {
        let (code, _) = ask(world.at, &world.viewer, "GET /api/v1/devices/127.0.0.1", "");
        (code == 200).then_some(())
    });
    let said = begin().reply();
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(world.up.wait(1)[0].to, ["a@corp.example"]);
    wait("what it needs is known", || {
        let (_, seen) = ask(world.at, &world.viewer, "GET /api/v1/devices/127.0.0.1", "");
        (seen["last_session"]["tolerances"] == serde_json::json!(["lf_only"])).then_some(())
    });
}

#[test]
fn a_learned_device_is_adopted_and_served() {
    let mut world = world();
    world.gateway.cli(&["learn", "127.0.0.0/16"]);
    let said = measure(&world.gateway, "a@corp.example");
    assert!(said.starts_with("250"), "{said}");
    let adopt = "POST /api/v1/devices/adopt";
    let body = r#"{"addresses":["127.0.0.1"],"name":"sensors"}"#;
    assert_eq!(ask(world.at, &world.operator, adopt, body).0, 403);
    let proposed = wait("it is a candidate", || {
        let (code, proposed) = ask(world.at, &world.admin, adopt, body);
        (code == 201).then_some(proposed)
    });
    assert_eq!(proposed["state"], "open", "{proposed}");
    let diff = proposed["diff"].as_str().unwrap();
    assert!(diff.contains("+networks = [\"127.0.0.1\"]"), "{diff}");
    let gone = r#"{"addresses":["10.1.2.3"],"name":"sensors"}"#;
    assert_eq!(ask(world.at, &world.admin, adopt, gone).0, 404);
    let none = r#"{"addresses":[],"name":"sensors"}"#;
    assert_eq!(ask(world.at, &world.admin, adopt, none).0, 400);
    let odd = "{\"addresses\":[\"127.0.0.1\"],\"name\":\"a\\u001b b\\n[x]\"}";
    let (code, said) = ask(world.at, &world.admin, adopt, odd);
    assert!((400..500).contains(&code), "{code} {said}");
    world.gateway.terminate();
    let path = world.gateway.config_path();
    let data_dir = world.gateway.path("data");
    let window = WindowDb::existing(&data_dir).unwrap().unwrap();
    let seen = window.wait(|tx| devices::latest(tx, 10)).unwrap();
    drop(window);
    assert_eq!(seen.len(), 1);
    let octets = fs::read(&path).unwrap();
    let changes = adopted(&digest(&octets), &seen, "sensors");
    let changes = serde_json::from_value(changes).unwrap();
    let ground = Ground {
        path: &path,
        octets: &octets,
        env: &Environment::of_process(),
        secrets: Secrets::Ignore,
    };
    let edited = Plan::new(&changes, ground, &data_dir).unwrap().edited;
    let text = String::from_utf8(edited.octets).unwrap();
    for line in [
        "name = \"sensors\"",
        "networks = [\"127.0.0.1\"]",
        "senders = [\"sensor@corp.example\"]",
        "tolerance = \"device\"",
    ] {
        assert!(edited.diff.contains(&format!("+{line}")), "{}", edited.diff);
    }
    fs::write(&path, text).unwrap();
    world.gateway.restart();
    let said = measure(&world.gateway, "b@partner.example");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(world.up.wait(2)[1].to, ["b@partner.example"]);
    wait("it is known by its name", || {
        let (_, seen) = ask(world.at, &world.viewer, "GET /api/v1/devices/127.0.0.1", "");
        (seen["client"] == "sensors").then_some(())
    });
    // One that says it is somebody else is none of them.
    let mut device = world.gateway.connect("local");
    let said = device.say("MAIL FROM:<boss@corp.example>");
    assert!(said.starts_with("550"), "{said}");
}
