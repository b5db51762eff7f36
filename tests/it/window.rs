//! Who may come in at the window, and what he may do there: raw requests to the real gateway, a line of the rules each.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::harness::{
    browser::{Answer, Ask, At, unix},
    clock::Clock,
    gateway::{Gateway, basic, send, stdout, wait},
    time::stays,
    upstream::Upstream,
};

/// Of "correct horse", and of "battery staple".
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$H7GeO6ZnMR+MIVOdNr4ZOQ$m+UGitB9sFzWaccaPJzbKXtFz/vAepqdd7sBB1WkCa0";
const OTHER_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$f+m/kBmvMagMurlIyCP2aA$UluEyfK8qapced3cO6CBshCEIwu145ZLgVvWQQUAj6I";

/// A token of each role; the hashes are SHA-256 over `secret-of-ROLE`.
pub const TOKENS: &str = r#"
[[admin_token]]
name = "prometheus"
hash = "sha256:b562dee7bb826cb3afe24d22b09ee8b292da033095e1263601fd6d390c8d8319"
role = "metrics"
[[admin_token]]
name = "looks"
hash = "sha256:c377a49a8eaa6d1da753b1ff59b8833a7ea990c5c552481196851d7b30741db4"
role = "viewer"
[[admin_token]]
name = "acts"
hash = "sha256:d6c1e59081a6e80addb9db30ee276167846ebd3fa1b2a270fdb4ce7da5f2dde1"
role = "operator"
[[admin_token]]
name = "rules"
hash = "sha256:35120835eaf6440be125fc613d4347ff221f746fdc756d6355f63a5bc4cbb95a"
role = "admin"
"#;

/// `basic` with a window, tokens, and three people.
pub fn windowed(sink: &Upstream, admin: &str) -> String {
    let people: String = [("kim", "operator"), ("lee", "viewer"), ("ann", "admin")]
        .iter()
        .map(|(name, role)| {
            format!("[[admin_user]]\nname = \"{name}\"\npassword = '{HASH}'\nrole = \"{role}\"\n")
        })
        .collect();
    let address = if admin.contains("address =") {
        ""
    } else {
        "address = \"127.0.0.1:0\"\n"
    };
    basic(sink.address) + "[admin]\n" + address + admin + "\n" + &people + TOKENS
}

pub fn start(admin: &str) -> (Gateway, At, Upstream) {
    let sink = Upstream::start();
    let gateway = Gateway::start(&windowed(&sink, admin));
    let window = gateway.window();
    (gateway, window, sink)
}

pub fn log_in(window: &At, name: &str, password: &str) -> Answer {
    let password = password.replace(' ', "+");
    window
        .form("/login", &format!("name={name}&password={password}"))
        .send()
}

/// Logs in; what is sent back as `Cookie`.
fn cookie(window: &At, name: &str) -> String {
    let answer = log_in(window, name, "correct horse");
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.cookie()
}

fn status(window: &At) -> Ask {
    window.get("/api/v1/status")
}

/// The rows of the audit, newest first.
pub fn audit(window: &At) -> Vec<Value> {
    let answer = window
        .get("/api/v1/audit?limit=500")
        .token("secret-of-admin")
        .send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].as_array().unwrap().clone()
}

/// Rows of one action, as `who: result`.
fn rows(window: &At, action: &str) -> Vec<String> {
    let all = audit(window);
    let of = all.iter().filter(|row| row["action"] == action);
    of.map(|row| {
        format!(
            "{}: {}",
            row["who"].as_str().unwrap(),
            row["result"].as_str().unwrap()
        )
    })
    .collect()
}

/// What a link says behind `?code=`.
fn link(gateway: &Gateway, role: &str) -> String {
    let said = stdout(&gateway.cli(&["admin", "login", "--role", role]));
    let code = said.trim().split("?code=").nth(1).unwrap().to_owned();
    assert!(code.len() >= 43, "{said}");
    code
}

#[test]
fn each_role_has_all_of_the_one_before() {
    let (gateway, window, _sink) = start("content = \"all\"");
    let id = send(&gateway);
    for (least, method, target) in [
        (1, "GET", "/metrics".to_owned()),
        (2, "GET", "/api/v1/status".to_owned()),
        (2, "GET", "/api/v1/messages".to_owned()),
        (2, "GET", format!("/api/v1/messages/{id}")),
        (2, "GET", "/api/v1/config".to_owned()),
        (2, "GET", "/openapi.json".to_owned()),
        (2, "GET", "/healthz".to_owned()),
        (3, "POST", "/api/v1/messages/retry".to_owned()),
        (3, "POST", "/api/v1/messages".to_owned()),
        (3, "POST", "/api/v1/reload".to_owned()),
        (4, "GET", "/api/v1/audit".to_owned()),
        (4, "GET", format!("/api/v1/messages/{id}/content")),
    ] {
        assert_eq!(window.ask(method, &target).status(), 401, "{target}");
        for (rank, role) in ["metrics", "viewer", "operator", "admin"]
            .iter()
            .enumerate()
        {
            let token = format!("secret-of-{role}");
            let answer = window.ask(method, &target).token(&token).send();
            let is_forbidden = answer.status == 403;
            assert_eq!(
                is_forbidden,
                rank + 1 < least,
                "{role} {target}: {answer:?}"
            );
            assert_ne!(answer.status, 401, "{role} {target}");
            if is_forbidden {
                assert_eq!(answer.code(), "forbidden");
            }
        }
    }
    // What was refused for want of a role is a row each.
    assert!(rows(&window, "role").len() > 10);
}

#[test]
fn attack_a_viewer_tries_every_unsafe_call_of_the_description() {
    let (gateway, window, sink) = start("content = \"all\"");
    let id = send(&gateway);
    sink.wait(1);
    let described = window
        .get("/openapi.json")
        .token("secret-of-viewer")
        .send()
        .json();
    let before = fs::read(gateway.config_path()).unwrap();
    let mut tried = 0;
    for (path, calls) in described["paths"].as_object().unwrap() {
        let target = path.replace("{id}", &id).replace("{name}", "up");
        for method in calls.as_object().unwrap().keys() {
            if ["get", "head"].contains(&method.as_str()) {
                continue;
            }
            tried += 1;
            for body in [
                "{}",
                "{\"to\":\"x@corp.example\"}",
                &format!("{{\"ids\":[\"{id}\"]}}"),
            ] {
                let ask = || {
                    let ask = window.ask(&method.to_uppercase(), &target).body(body);
                    ask.with("Content-Type", "application/json")
                };
                for token in ["secret-of-viewer", "secret-of-metrics"] {
                    let answer = ask().token(token).send();
                    assert_eq!(
                        (answer.status, answer.code().as_str()),
                        (403, "forbidden"),
                        "{target}"
                    );
                }
                assert_eq!(ask().status(), 401, "{target}");
                assert_eq!(ask().token("secret-of-nobody").status(), 401, "{target}");
            }
        }
    }
    assert!(tried >= 7, "{tried}");
    assert_eq!(fs::read(gateway.config_path()).unwrap(), before);
    assert_eq!(sink.count(), 1);
}

/// Pages do by forms what the interface does by JSON.
#[test]
fn attack_a_viewer_posts_to_every_page() {
    let (gateway, window, sink) = start("content = \"all\"");
    let id = send(&gateway);
    sink.wait(1);
    let lee = cookie(&window, "lee");
    for target in [
        "/",
        "/messages",
        &format!("/messages/{id}"),
        "/connectors/up",
        "/config",
    ] {
        for form in [
            "",
            "do=retry",
            "verb=drop&id=x",
            "do=content",
            "do=reload",
            "to=x%40corp.example",
        ] {
            let ask = || window.form(target, form);
            assert_eq!(ask().with("Cookie", &lee).status(), 403, "{target} {form}");
            assert_eq!(ask().status(), 303, "{target}: to the login");
            let strange = ask().with("Cookie", &lee).without("Sec-Fetch-Site");
            assert_eq!(strange.status(), 403, "{target}");
        }
        let ann = cookie(&window, "ann");
        let strange = window.form(target, "do=retry").with("Cookie", &ann);
        let strange = strange.only("Sec-Fetch-Site", "cross-site").send();
        assert_eq!(strange.status, 403, "{target}");
        assert!(
            strange.body.contains("did not come from a page"),
            "{strange:?}"
        );
    }
    assert_eq!(window.get("/audit").with("Cookie", &lee).status(), 403);
    // What a form asks for that needs more than its page does.
    let kim = cookie(&window, "kim");
    let content = window.form(&format!("/messages/{id}"), "do=content");
    assert_eq!(content.with("Cookie", &kim).status(), 403);
    assert!(rows(&window, "role")[0].starts_with("kim: "));
    assert_eq!(sink.count(), 1);
    assert!(!gateway.log().contains("reloaded"));
}

/// A path that has no line in the list of rights is reached by nobody, and one that has is reached with its methods alone.
#[test]
fn what_is_not_there_is_404_and_another_method_405() {
    let (_gateway, window, _sink) = start("");
    for (method, target, status, allow) in [
        ("GET", "/api/v1/nothing", 404, None),
        ("POST", "/api/v1/nothing", 404, None),
        ("GET", "/api/v1/messages/%ff", 404, None),
        ("GET", "/api/v1/messages/%00/events", 404, None),
        ("GET", "/messages/%ff", 404, None),
        ("GET", "/api/v1/status/", 404, None),
        ("GET", "//api/v1/status", 404, None),
        ("GET", "/api/v1/../v1/status", 404, None),
        ("DELETE", "/api/v1/messages", 405, Some("GET, HEAD, POST")),
        ("PUT", "/livez", 405, Some("GET, HEAD")),
        ("TRACE", "/api/v1/status", 405, Some("GET, HEAD")),
        ("OPTIONS", "/api/v1/status", 405, Some("GET, HEAD")),
        ("POST", "/api/v1/status", 405, Some("GET, HEAD")),
        ("GET", "/api/v1/messages/retry/", 404, None),
    ] {
        let answer = window.ask(method, target).token("secret-of-admin").send();
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(
            answer.header("allow").as_deref(),
            allow,
            "{method} {target}"
        );
        let kind = answer.header("content-type").unwrap();
        let is_page = target.starts_with("//") || target == "/messages/%ff";
        let expected = if is_page {
            "text/html"
        } else {
            "application/problem+json"
        };
        assert!(kind.starts_with(expected), "{method} {target}: {kind}");
    }
    for target in [
        "/api/v1/messages?nothing=1",
        "/api/v1/status?x",
        "/api/v1/explain?to=a@b&form=c",
    ] {
        let answer = window.get(target).token("secret-of-viewer").send();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "unknown_key"),
            "{target}"
        );
    }
    let body = window.post("/api/v1/messages/hold", "{\"ids\":[],\"x\":1}");
    assert_eq!(
        body.token("secret-of-operator").send().code(),
        "unknown_key"
    );
}

#[test]
fn one_login_counts_and_no_other_makes_up_for_it() {
    let (_gateway, window, _sink) = start(
        "trusted_proxies = [\"127.0.0.9\"]\nuser_header = \"Remote-User\"\ngroups = { \"*\" = \"viewer\" }",
    );
    let ann = cookie(&window, "ann");
    assert_eq!(status(&window).with("Cookie", &ann).status(), 200);
    // A token that is wrong, given twice, or of too little a role: no cookie helps.
    for token in ["secret-of-nobody", "", "x"] {
        let ask = status(&window).with("Cookie", &ann);
        let answer = ask.with("Authorization", &format!("Bearer {token}")).send();
        assert_eq!(answer.status, 401, "{token}");
        assert!(answer.header("www-authenticate").is_some());
    }
    let twice = status(&window)
        .token("secret-of-admin")
        .token("secret-of-admin");
    assert_eq!(twice.status(), 401);
    assert_eq!(
        status(&window)
            .with("Cookie", &ann)
            .token("secret-of-metrics")
            .status(),
        403
    );
    // Who another peer claims to be is not looked at; of a proxy it goes before the cookie.
    let audit = |ask: Ask| ask.with("Cookie", &ann).status();
    let list = || window.get("/api/v1/audit");
    assert_eq!(audit(list().with("Remote-User", "eve")), 200);
    assert_eq!(
        audit(list().from("127.0.0.9").with("Remote-User", "eve")),
        403
    );
    let proxied = || list().from("127.0.0.9").with("Cookie", &ann);
    assert_eq!(
        proxied()
            .with("Remote-User", "eve")
            .with("Remote-User", "ann")
            .status(),
        401
    );
    assert_eq!(
        proxied()
            .with("remote-user", "eve")
            .with("REMOTE-USER", "eve")
            .status(),
        401
    );
    assert_eq!(proxied().with("Remote-User", "\u{ff}").status(), 401);
    assert_eq!(
        proxied().with("Remote-User", "").status(),
        200,
        "nobody is logged in there"
    );
    // A token goes before the proxy.
    let both = list().from("127.0.0.9").with("Remote-User", "eve");
    assert_eq!(both.token("secret-of-admin").status(), 200);
    // Two cookies of one name: somebody else has put one there.
    assert_eq!(
        status(&window)
            .with("Cookie", &format!("{ann}; {ann}"))
            .status(),
        401
    );
    assert_eq!(
        status(&window)
            .with("Cookie", &ann)
            .with("Cookie", &ann)
            .status(),
        401
    );
}

#[test]
fn the_highest_of_the_groups_wins_and_without_one_it_is_403() {
    let (_gateway, window, _sink) = start(
        "trusted_proxies = [\"127.0.0.9\"]\nuser_header = \"Remote-User\"\ngroups_header = \"Remote-Groups\"\n\
         groups = { \"mail-admins\" = \"admin\", \"desk\" = \"operator\", \"all\" = \"viewer\" }",
    );
    for (groups, role) in [
        ("all", 1),
        ("all, desk", 2),
        ("desk,mail-admins ,all", 3),
        ("Mail-Admins", 0),
        ("mail-admins2", 0),
        ("*", 0),
        ("", 0),
    ] {
        let ask = |ask: Ask| {
            ask.from("127.0.0.9")
                .with("Remote-User", "eve")
                .with("Remote-Groups", groups)
                .status()
        };
        assert_eq!(ask(status(&window)) == 200, role >= 1, "{groups}");
        let reload = window
            .post("/api/v1/reload", "")
            .with("Sec-Fetch-Site", "same-origin");
        assert_eq!(ask(reload) == 200, role >= 2, "{groups}");
        assert_eq!(
            ask(window.get("/api/v1/audit")) == 200,
            role >= 3,
            "{groups}"
        );
        if role == 0 {
            assert_eq!(ask(status(&window)), 403, "{groups}");
        }
    }
    let twice = status(&window).from("127.0.0.9").with("Remote-User", "eve");
    let twice = twice
        .with("Remote-Groups", "all")
        .with("Remote-Groups", "mail-admins");
    assert_eq!(twice.status(), 401);
    assert!(
        rows(&window, "login")
            .iter()
            .any(|row| row.contains("no group"))
    );
}

#[test]
fn a_link_is_good_once_and_by_its_button_alone() {
    let (gateway, window, _sink) = start("");
    let code = link(&gateway, "operator");
    // Programs that look at links before people do (mail scanners, previews) use none up.
    for _ in 0..3 {
        assert_eq!(window.get(&format!("/login?code={code}")).status(), 200);
        assert_eq!(
            window.ask("HEAD", &format!("/login?code={code}")).status(),
            200
        );
    }
    let strange = window.ask("POST", "/login").body(&format!("code={code}"));
    assert_eq!(strange.status(), 403, "from no page of ours");
    let entered = window
        .form("/login", &format!("code={code}&next=%2Fmessages"))
        .send();
    assert_eq!(entered.status, 303);
    assert_eq!(entered.header("location").as_deref(), Some("/messages"));
    let set = entered.header("set-cookie").unwrap();
    let At::Tcp(address) = &window else { panic!() };
    assert!(
        set.starts_with(&format!("postern-{}=", address.port())),
        "{set}"
    );
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    let again = window.form("/login", &format!("code={code}")).send();
    assert_eq!((again.status, again.header("set-cookie")), (401, None));
    let cookie = entered.cookie();
    assert_eq!(status(&window).with("Cookie", &cookie).status(), 200);
    let reload = || window.post("/api/v1/reload", "").with("Cookie", &cookie);
    assert_eq!(reload().with("Sec-Fetch-Site", "same-origin").status(), 200);
    assert_eq!(
        window.get("/api/v1/audit").with("Cookie", &cookie).status(),
        403
    );
    // Nothing of it stands in the file or the log but hashes.
    let value = cookie.split_once('=').unwrap().1.to_owned();
    for file in fs::read_dir(gateway.path("data")).unwrap().flatten() {
        let octets = fs::read(file.path()).unwrap_or_default();
        for secret in [&code, &value] {
            let is_there = octets
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!is_there, "{:?}", file.path());
        }
    }
    assert!(!gateway.log().contains(&code) && !gateway.log().contains(&value));
    // One that was made, and every session, ends by the command.
    let unused = link(&gateway, "admin");
    stdout(&gateway.cli(&["admin", "logout"]));
    wait("the end of the session", || {
        (status(&window).with("Cookie", &cookie).status() == 401).then_some(())
    });
    assert_eq!(
        window.form("/login", &format!("code={unused}")).status(),
        401
    );
    assert!(
        rows(&window, "logout")
            .iter()
            .any(|row| row.ends_with(": ok"))
    );
}

#[test]
fn a_login_ends_by_itself_by_its_stream_too() {
    let (gateway, window, _sink) = start("");
    let stream = |cookie: &str| {
        let mut stream = window.get("/api/v1/events").with("Cookie", cookie).begin();
        let head = stream.head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream") && head.contains("x-accel-buffering: no"));
        stream
    };
    // By logging out.
    let kim = cookie(&window, "kim");
    let mut open = stream(&kim);
    let out = window.form("/logout", "").with("Cookie", &kim).send();
    assert_eq!(
        (out.status, out.header("location").as_deref()),
        (303, Some("/login"))
    );
    assert!(out.header("set-cookie").unwrap().contains("=; "), "{out:?}");
    assert_eq!(status(&window).with("Cookie", &kim).status(), 401);
    open.rest();
    // By another password, at a reload; the others stay.
    let (kim, lee) = (cookie(&window, "kim"), cookie(&window, "lee"));
    let mut open = stream(&kim);
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    fs::write(gateway.config_path(), text.replacen(HASH, OTHER_HASH, 1)).unwrap();
    stdout(&gateway.cli(&["reload"]));
    assert_eq!(status(&window).with("Cookie", &kim).status(), 401);
    assert_eq!(status(&window).with("Cookie", &lee).status(), 200);
    open.rest();
    assert_eq!(log_in(&window, "kim", "correct horse").status, 401);
    assert_eq!(log_in(&window, "kim", "battery staple").status, 303);
    // By a user who is no more, and by a role that is another now.
    let text = text.replace("name = \"lee\"", "name = \"leo\"");
    fs::write(
        gateway.config_path(),
        text.replace("\"operator\"", "\"viewer\""),
    )
    .unwrap();
    let kim = cookie(&window, "ann");
    stdout(&gateway.cli(&["reload"]));
    assert_eq!(status(&window).with("Cookie", &lee).status(), 401);
    assert_eq!(status(&window).with("Cookie", &kim).status(), 200);
    // By the command.
    let mut open = stream(&kim);
    stdout(&gateway.cli(&["admin", "logout"]));
    open.rest();
    // A token that is taken out of the file.
    let mut open = window
        .get("/api/v1/events")
        .token("secret-of-viewer")
        .begin();
    open.head();
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    fs::write(gateway.config_path(), text.replace("c377a49a", "00000000")).unwrap();
    stdout(&gateway.cli(&["reload"]));
    open.rest();
}

/// What changed between what a page has read and the first look for changes would be told by nobody: it is told to read again.
#[test]
fn whoever_listens_first_is_told_to_read_again() {
    let (_gateway, window, _sink) = start("");
    for _ in 0..2 {
        let mut stream = window
            .get("/api/v1/events")
            .token("secret-of-viewer")
            .begin();
        stream.head();
        let said: Vec<String> = (0..8).map(|_| stream.line()).collect();
        assert!(
            said.iter().any(|line| line.contains("event: reset")),
            "{said:?}"
        );
        drop(stream);
        // Until nobody listens any more, and that was seen.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
    }
}

#[test]
fn attack_a_clock_set_back_makes_no_session_and_no_link_last_longer() {
    let sink = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(dir.path());
    fs::write(
        dir.path().join("config.toml"),
        windowed(&sink, "session = \"1h\""),
    )
    .unwrap();
    let mut gateway = Gateway::start_with(dir, clock.env());
    let window = gateway.window();
    let (kim, ann) = (cookie(&window, "kim"), cookie(&window, "ann"));
    let old = link(&gateway, "admin");
    // Made in what is the future now.
    clock.set(-4 * 60);
    assert_eq!(window.form("/login", &format!("code={old}")).status(), 401);
    // Too old.
    let old = link(&gateway, "admin");
    clock.set(60);
    assert_eq!(window.form("/login", &format!("code={old}")).status(), 401);
    // A gateway that begins anew knows by the clock alone: from the future is over, and so is who was idle or in for too long.
    let alive = |window: &At, cookie: &str| status(window).with("Cookie", cookie).status() == 200;
    let again = |gateway: &mut Gateway, at: i64| {
        clock.set(at);
        gateway.kill();
        gateway.restart();
        let At::Tcp(now) = gateway.window() else {
            panic!()
        };
        wait("the first look", || {
            gateway.log().contains("ready").then_some(())
        });
        now
    };
    assert!(alive(&window, &kim) && alive(&window, &ann));
    let renamed =
        |cookie: &str, port: u16| format!("postern-{port}={}", cookie.split_once('=').unwrap().1);
    let now = again(&mut gateway, 31 * 60);
    let window = At::Tcp(now);
    wait("the sessions of before", || {
        alive(&window, &renamed(&kim, now.port())).then_some(())
    });
    assert!(
        !alive(&window, &renamed(&ann, now.port())),
        "an admin who did nothing for 30 minutes"
    );
    let now = again(&mut gateway, 61 * 60);
    let window = At::Tcp(now);
    stays(
        "kept for longer than `session`",
        std::time::Duration::from_secs(2),
        || !alive(&window, &renamed(&kim, now.port())),
    );
}

#[test]
fn attack_what_came_from_another_site_is_refused() {
    let (_gateway, window, _sink) = start("");
    let ann = cookie(&window, "ann");
    let At::Tcp(address) = &window else { panic!() };
    let host = address.to_string();
    let own = format!("http://{host}");
    let kinds: &[(&[(&str, &str)], bool)] = &[
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (
            &[("Sec-Fetch-Site", "same-origin"), ("Origin", "null")],
            true,
        ),
        (&[("Sec-Fetch-Site", "same-site"), ("Origin", &own)], false),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)], false),
        (&[("Sec-Fetch-Site", "none")], false),
        (&[("Sec-Fetch-Site", "Same-Origin")], false),
        (
            &[
                ("Sec-Fetch-Site", "same-origin"),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            false,
        ),
        (&[("Origin", &own)], true),
        (&[("Origin", "http://evil.example")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "http://127.0.0.1:1")], false),
        (&[("Origin", "http://127.0.0.1")], false),
        (&[("Origin", "")], false),
        (&[("Origin", &own), ("Origin", &own)], false),
        (&[("Referer", &own)], false),
        (&[], false),
    ];
    let dressed = |mut ask: Ask, headers: &[(&str, &str)]| {
        for (name, value) in headers {
            ask = ask.with(name, value);
        }
        ask.send()
    };
    for (headers, is_ours) in kinds {
        let reload = window.post("/api/v1/reload", "{}").with("Cookie", &ann);
        let answer = dressed(reload, headers);
        assert_eq!(
            answer.status,
            if *is_ours { 200 } else { 403 },
            "{headers:?}"
        );
        if !is_ours {
            assert_eq!(answer.code(), "cross_site");
        }
        // The login itself, which has no cookie yet, and the way out.
        let login = window
            .ask("POST", "/login")
            .body("name=ann&password=correct+horse");
        let answer = dressed(login, headers);
        assert_eq!(
            answer.status,
            if *is_ours { 303 } else { 403 },
            "{headers:?}"
        );
        if !is_ours {
            let out = window.ask("POST", "/logout").with("Cookie", &ann);
            assert_eq!(dressed(out, headers).status, 403);
        }
        // A program with a token is no browser.
        let token = window.post("/api/v1/reload", "{}").token("secret-of-admin");
        assert_eq!(dressed(token, headers).status, 200, "{headers:?}");
    }
    // Without any login it is 401 first; what reads is not asked.
    assert_eq!(window.post("/api/v1/reload", "{}").status(), 401);
    let read = status(&window)
        .with("Cookie", &ann)
        .with("Sec-Fetch-Site", "cross-site");
    assert_eq!(read.status(), 200);
    assert_eq!(
        status(&window).with("Cookie", &ann).status(),
        200,
        "nobody was logged out"
    );
    // What a form can send without asking first.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
    ] {
        let ask = window
            .post("/api/v1/reload", "{}")
            .only("Content-Type", kind);
        let answer = ask.token("secret-of-admin").send();
        assert_eq!(answer.status, 415, "{kind}");
    }
    let json = window
        .post("/api/v1/reload", "{}")
        .only("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(json.token("secret-of-admin").status(), 200);
    let none = window
        .ask("POST", "/api/v1/reload")
        .token("secret-of-admin");
    assert_eq!(none.status(), 200, "no body is {{}}");
    // No other site is ever told anything.
    for method in ["OPTIONS", "GET", "POST"] {
        let ask = window
            .ask(method, "/api/v1/status")
            .token("secret-of-admin");
        let ask = ask.with("Origin", "http://evil.example");
        let answer = ask.with("Access-Control-Request-Method", "POST").send();
        assert!(
            !answer.head.to_lowercase().contains("access-control"),
            "{answer:?}"
        );
        assert_eq!(answer.status == 405, method != "GET");
    }
    assert_eq!(window.ask("OPTIONS", "/login").status(), 405);
    assert_eq!(window.ask("OPTIONS", "*").status(), 405);
}

#[test]
fn attack_another_name_for_this_address_reaches_nothing() {
    let (_gateway, window, _sink) = start("hosts = [\"mail.corp.example\"]");
    for (host, is_ours) in [
        ("127.0.0.1", true),
        ("127.0.0.1:8025", true),
        ("[::1]:8025", true),
        ("10.1.2.3", true),
        ("localhost", true),
        ("LOCALHOST:1", true),
        ("relay.corp.example", true),
        ("Mail.Corp.Example:443", true),
        ("evil.example", false),
        ("evil.example:8025", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("mail.corp.example.", false),
        ("localhost:80@evil.example", false),
        ("ann@localhost", false),
        ("[::1].evil.example", false),
        ("[evil.example]", false),
        ("0x7f000001", false),
        ("", false),
        (" ", false),
        ("localhost, evil.example", false),
    ] {
        for ask in [
            status(&window).token("secret-of-viewer"),
            window.get("/login"),
        ] {
            let answer = ask.only("Host", host).send();
            // Some of them are no HTTP at all.
            let is_refused = [421, 400].contains(&answer.status);
            assert_eq!(is_refused, !is_ours, "{host}: {answer:?}");
        }
        // Whoever watches whether it lives knows none of its names.
        if !host.contains([' ', '@', '[']) {
            for probe in ["/livez", "/readyz"] {
                let status = window.get(probe).only("Host", host).status();
                assert!([200, 503].contains(&status), "{host}: {status}");
            }
        }
    }
    let none = status(&window).token("secret-of-viewer").without("Host");
    assert_eq!(none.status(), 421);
    let twice = status(&window)
        .token("secret-of-viewer")
        .with("Host", "evil.example");
    assert_eq!(twice.status(), 421);
    let before_login = status(&window).only("Host", "evil.example");
    assert_eq!(before_login.status(), 421, "asked before the login");
    // The target's own name counts before Host (RFC 9112 §3.2.2).
    for (target, status) in [
        ("http://evil.example/api/v1/status", 421),
        ("http://localhost:1@evil.example/api/v1/status", 421),
        ("http://localhost/api/v1/status", 200),
    ] {
        assert_eq!(
            window.get(target).token("secret-of-viewer").status(),
            status,
            "{target}"
        );
    }
    let scrape = window.get("/metrics").token("secret-of-metrics");
    assert_eq!(scrape.only("Host", "evil.example").status(), 421);
}

#[test]
fn the_headers_are_on_every_answer() {
    let (_gateway, window, _sink) = start("");
    let large = "x".repeat(70_000);
    for (status, ask) in [
        (200, status(&window).token("secret-of-viewer")),
        (200, window.get("/livez")),
        (200, window.get("/login")),
        (303, window.get("/messages")),
        (
            303,
            window.form("/login", "name=ann&password=correct+horse"),
        ),
        (401, status(&window)),
        (401, window.form("/login", "name=ann&password=x")),
        (403, window.get("/api/v1/audit").token("secret-of-viewer")),
        (404, window.get("/nothing").token("secret-of-viewer")),
        (405, window.ask("OPTIONS", "/")),
        (
            413,
            window
                .post("/api/v1/reload", &large)
                .token("secret-of-admin"),
        ),
        (
            415,
            window
                .ask("POST", "/api/v1/reload")
                .body("x")
                .token("secret-of-admin"),
        ),
        (421, window.get("/").only("Host", "evil.example")),
    ] {
        let answer = ask.send();
        assert_eq!(answer.status, status, "{answer:?}");
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                 form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name).as_deref(), Some(value), "{status}");
        }
        assert!(
            answer.header("server").is_none()
                && answer.header("access-control-allow-origin").is_none()
        );
    }
    // Pages lead to the login and back; nothing else is led to.
    let page = window.get("/messages?state=failed").send();
    assert_eq!(
        page.header("location").as_deref(),
        Some("/login?next=%2Fmessages%3Fstate%3Dfailed")
    );
    for next in [
        "//evil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
        "%2F%09%2Fevil.example",
    ] {
        let login = window.form(
            "/login",
            &format!("name=kim&password=correct+horse&next={next}"),
        );
        assert_eq!(
            login.send().header("location").as_deref(),
            Some("/"),
            "{next}"
        );
    }
}

#[test]
fn reading_changes_nothing() {
    let (gateway, window, sink) = start("content = \"all\"");
    let id = send(&gateway);
    sink.wait(1);
    let ann = cookie(&window, "ann");
    let before = audit(&window).len();
    for target in [
        "/api/v1/reload",
        "/api/v1/messages/retry",
        "/api/v1/messages/drop",
        "/api/v1/connectors/up/test",
        "/logout",
    ] {
        for method in ["GET", "HEAD"] {
            let answer = window.ask(method, target).with("Cookie", &ann).send();
            assert!([404, 405].contains(&answer.status), "{target}: {answer:?}");
        }
    }
    let changed = window.ask("GET", "/api/v1/messages").with("Cookie", &ann);
    let answer = changed
        .with("X-HTTP-Method-Override", "POST")
        .body("{\"from\":\"a@corp.example\"}")
        .send();
    assert_eq!(answer.status, 200);
    assert_eq!(status(&window).with("Cookie", &ann).status(), 200);
    assert_eq!(audit(&window).len(), before);
    assert_eq!(
        (sink.count(), gateway.log().matches("reloaded").count()),
        (1, 0)
    );
    // HEAD has no body, and is what GET says.
    for target in [
        format!("/api/v1/messages/{id}"),
        "/api/v1/status".to_owned(),
        "/openapi.json".to_owned(),
    ] {
        let answer = window.ask("HEAD", &target).token("secret-of-viewer").send();
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .header("content-length")
                .is_some_and(|length| length != "0"),
            "{answer:?}"
        );
    }
}

#[test]
fn content_is_shown_to_admins_where_it_may_be_and_each_look_is_written_down() {
    let (gateway, window, _sink) = start("");
    let id = send(&gateway);
    let target = format!("/api/v1/messages/{id}/content");
    let off = window.get(&target).token("secret-of-admin").send();
    assert_eq!((off.status, off.code().as_str()), (403, "content_off"));
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    let set = |content: &str| {
        let text = text.replace("[admin]\n", &format!("[admin]\ncontent = \"{content}\"\n"));
        fs::write(gateway.config_path(), text).unwrap();
        stdout(&gateway.cli(&["reload"]));
    };
    let subject = |token: &str| {
        let list = window
            .get("/api/v1/messages?all=true")
            .token(token)
            .send()
            .json();
        list["items"][0]["subject"].as_str().map(str::to_owned)
    };
    assert_eq!(subject("secret-of-admin"), None);
    set("subject");
    assert_eq!(
        window.get(&target).token("secret-of-admin").send().code(),
        "content_off"
    );
    assert_eq!(subject("secret-of-viewer"), None, "to operators");
    set("all");
    let shown = window.get(&target).token("secret-of-admin").send();
    if shown.status == 200 {
        assert!(shown.body.contains("Subject: s"), "{shown:?}");
        assert_eq!(
            shown.header("content-type").as_deref(),
            Some("text/plain; charset=utf-8")
        );
        let all = audit(&window);
        let row = all.iter().find(|row| row["action"] == "content").unwrap();
        assert_eq!(
            (row["who"].as_str(), row["object"].as_str()),
            (Some("rules"), Some(&*format!("message {id}")))
        );
    } else {
        assert_eq!(shown.status, 404, "it has been delivered: {shown:?}");
    }
    assert_eq!(
        window.get(&target).token("secret-of-operator").status(),
        403
    );
}

#[test]
fn what_is_done_and_refused_is_written_down_and_no_secret_with_it() {
    let (gateway, window, _sink) = start("");
    cookie(&window, "kim");
    log_in(&window, "kim", "a wrong secret");
    log_in(&window, "%3Cb%3E%0d%0a", "a wrong secret");
    status(&window).token("a-wrong-secret").send();
    status(&window).send();
    let hold = window.post("/api/v1/messages/hold", "{\"filter\":{},\"expect\":0}");
    assert_eq!(hold.token("secret-of-operator").status(), 200);
    window
        .post("/api/v1/connectors/up/test", "{\"to\":\"x@corp.example\"}")
        .token("secret-of-operator")
        .send();
    stdout(&gateway.cli(&["admin", "login"]));
    let all = audit(&window);
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("secret"), "{text}");
    for (who, action, result) in [
        ("kim", "login", "ok"),
        ("kim", "login", "refused"),
        ("", "login", "refused: this token is not known"),
        ("acts", "hold", "0 taken"),
    ] {
        let is_there = all
            .iter()
            .any(|row| row["who"] == who && row["action"] == action && row["result"] == result);
        assert!(is_there, "{who} {action}: {text}");
    }
    assert!(
        all.iter()
            .any(|row| row["action"] == "test" && row["object"] == "connector up")
    );
    assert!(all.iter().any(|row| row["from"] == "command"), "{text}");
    for row in &all {
        for key in [
            "at", "who", "role", "from", "action", "object", "before", "after", "result", "request",
        ] {
            assert!(row.get(key).is_some(), "{key}: {row}");
        }
    }
    gateway.wait_for_log(&["audit", "kim", "login"]);
    assert!(!gateway.log().contains("a wrong secret") && !gateway.log().contains("a-wrong-secret"));
    // The export is a row of its own, and has them all.
    let export = || {
        let ask = window.get("/api/v1/audit").token("secret-of-admin");
        ask.with("Accept", "application/x-ndjson").send()
    };
    let lines = export();
    assert_eq!(
        lines.header("content-type").as_deref(),
        Some("application/x-ndjson")
    );
    assert_eq!(lines.body.lines().count(), all.len());
    assert!(
        export()
            .body
            .lines()
            .next()
            .unwrap()
            .contains("\"action\":\"audit\"")
    );
}

#[test]
fn attack_refusals_by_the_hundred_are_counted() {
    let (_gateway, window, _sink) = start("");
    for n in 0..150 {
        let answer = status(&window).token(&format!("wrong-{n}")).send();
        assert_eq!(answer.status, 401);
    }
    let refused = || rows(&window, "login").len();
    assert_eq!(refused(), 60);
    wait("the row that counts the others", || {
        (refused() > 60).then_some(())
    });
    let rows = rows(&window, "login");
    assert_eq!(rows.len(), 61, "{rows:?}");
    assert_eq!(rows[0], ": 90 more within a minute");
}

#[test]
fn without_a_file_to_write_lists_go_on_and_all_else_does_not() {
    let (gateway, window, _sink) = start("content = \"all\"");
    let id = send(&gateway);
    let ann = cookie(&window, "ann");
    // Taken by another writer for as long as this lives.
    let other = rusqlite::Connection::open(gateway.path("data/window.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for target in [
        "/api/v1/status",
        "/api/v1/messages",
        "/api/v1/connectors",
        "/api/v1/config",
    ] {
        assert_eq!(
            window.get(target).with("Cookie", &ann).status(),
            200,
            "{target}"
        );
    }
    for (target, body) in [
        ("/api/v1/reload", "{}".to_owned()),
        ("/api/v1/messages/drop", format!("{{\"ids\":[\"{id}\"]}}")),
        (
            "/api/v1/messages",
            "{\"from\":\"a@corp.example\",\"to\":[\"b@corp.example\"]}".to_owned(),
        ),
        (
            "/api/v1/connectors/up/test",
            "{\"to\":\"x@corp.example\"}".to_owned(),
        ),
    ] {
        let answer = window.post(target, &body).token("secret-of-admin").send();
        assert_eq!(answer.status, 503, "{target}: {answer:?}");
    }
    let content = window.get(&format!("/api/v1/messages/{id}/content"));
    assert!([503, 404].contains(&content.token("secret-of-admin").status()));
    assert_eq!(log_in(&window, "kim", "correct horse").status, 503);
    send(&gateway);
    assert!(!gateway.log().contains("reloaded"));
    drop(other);
    assert_eq!(
        window
            .post("/api/v1/reload", "{}")
            .token("secret-of-admin")
            .status(),
        200
    );
}

#[test]
fn a_broken_file_is_kept_aside_and_mail_goes_on() {
    let (mut gateway, window, sink) = start("");
    cookie(&window, "ann");
    gateway.kill();
    for end in ["", "-wal"] {
        fs::write(
            gateway.path(&format!("data/window.db{end}")),
            "no database at all, and long enough to be looked at".repeat(200),
        )
        .unwrap();
    }
    gateway.restart();
    let window = gateway.window();
    send(&gateway);
    sink.wait(1);
    let kept = fs::read(gateway.path("data/window.db.bad")).unwrap();
    assert!(kept.starts_with(b"no database"));
    cookie(&window, "ann");
    assert_eq!(audit(&window).len(), 1);
    // Under its feet.
    let path = gateway.path("data/window.db");
    let mut octets = fs::read(&path).unwrap();
    octets[..4096].fill(0x55);
    fs::write(&path, octets).unwrap();
    send(&gateway);
    sink.wait(2);
    wait("another login", || {
        (log_in(&window, "ann", "correct horse").status == 303).then_some(())
    });
}

#[test]
fn where_it_cannot_be_made_there_is_no_window_and_mail_goes_on() {
    let sink = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/window.db")).unwrap();
    fs::write(dir.path().join("config.toml"), windowed(&sink, "")).unwrap();
    let gateway = Gateway::start_in(dir);
    send(&gateway);
    sink.wait(1);
    gateway.wait_for_log(&["window.db"]);
}

#[test]
fn it_is_answered_by_the_socket_of_a_unix_machine() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("admin.sock");
    let sink = Upstream::start();
    let config = |more: &str| {
        windowed(
            &sink,
            &format!("address = \"unix:{}\"\n{more}", path.display()),
        )
    };
    let mut gateway = Gateway::start(&config(""));
    wait("the socket", || path.exists().then_some(()));
    let window = unix(&path);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    // Its own user is an admin, by the kernel's word; no browser sends Origin here, so neither need be there.
    assert_eq!(window.get("/api/v1/audit").status(), 200);
    assert_eq!(window.post("/api/v1/reload", "{}").status(), 200);
    let strange = window
        .post("/api/v1/reload", "{}")
        .with("Origin", "http://evil.example");
    assert_eq!(strange.status(), 403);
    let strange = window
        .post("/api/v1/reload", "{}")
        .with("Sec-Fetch-Site", "cross-site");
    assert_eq!(strange.status(), 403);
    assert_eq!(
        window
            .get("/api/v1/audit")
            .with("Remote-User", "x")
            .token("secret-of-viewer")
            .status(),
        403
    );
    assert_eq!(window.get("/").only("Host", "evil.example").status(), 421);
    let me = fs::metadata(&path).unwrap().uid();
    assert!(rows(&window, "reload").contains(&format!("uid {me}: ok")));
    let said = stdout(&gateway.cli(&["admin", "login"]));
    assert!(said.starts_with("/login?code="), "{said}");
    // One that was left behind is taken away; another process's is not, nor what is no socket.
    gateway.kill();
    assert!(path.exists());
    gateway.restart();
    wait("the socket", || window_is_there(&path).then_some(()));
    let taken = run_once(&config(""));
    assert_eq!(taken.0, 71, "{}", taken.1);
    gateway.kill();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "letters of somebody").unwrap();
    let (code, said) = run_once(&config(""));
    assert_eq!(code, 71, "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "letters of somebody");
    fs::remove_file(&path).unwrap();
    // Where a proxy comes by it, its uid gives nothing.
    fs::write(gateway.config_path(), config("trusted_proxies = [\"unix\"]\nuser_header = \"Remote-User\"\ngroups = { \"*\" = \"operator\" }")).unwrap();
    gateway.restart();
    wait("the socket", || window_is_there(&path).then_some(()));
    assert_eq!(status(&window).status(), 401);
    assert_eq!(status(&window).with("Remote-User", "eve").status(), 200);
    assert_eq!(
        window
            .get("/api/v1/audit")
            .with("Remote-User", "eve")
            .status(),
        403
    );
    assert_eq!(
        window
            .post("/api/v1/reload", "{}")
            .with("Remote-User", "eve")
            .status(),
        403
    );
    let answer = window
        .form("/login", "name=ann&password=correct+horse")
        .with("X-Forwarded-Proto", "https")
        .send();
    assert!(
        answer
            .header("set-cookie")
            .unwrap()
            .starts_with("__Host-postern=")
    );
}

fn window_is_there(path: &std::path::Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

/// A gateway of its own that is to end by itself: its status, and what it said.
fn run_once(config: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let output = std::process::Command::new(Gateway::binary())
        .args(["run", "-c", "config.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn an_address_that_is_taken_ends_it_with_71() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = Upstream::start();
    let config = windowed(
        &sink,
        &format!("address = \"{}\"", taken.local_addr().unwrap()),
    );
    let (code, said) = run_once(&config);
    assert_eq!(code, 71, "{said}");
    assert!(said.contains("[admin]"), "{said}");
}

#[test]
fn what_is_reloaded_and_what_needs_a_restart() {
    let (gateway, window, _sink) = start("");
    let ann = cookie(&window, "ann");
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    let reload = |text: &str| {
        fs::write(gateway.config_path(), text).unwrap();
        stdout(&gateway.cli(&["reload"]));
    };
    reload(&text.replace("[admin]\n", "[admin]\nhosts = [\"new.example\"]\n"));
    assert_eq!(
        status(&window)
            .with("Cookie", &ann)
            .only("Host", "new.example")
            .status(),
        200
    );
    assert!(!gateway.log().contains("restart needed"));
    reload(
        &text
            .replace("127.0.0.1:0\"\n[[admin", "127.0.0.1:1\"\n[[admin")
            .replace(
                "[admin]\naddress = \"127.0.0.1:0\"",
                "[admin]\naddress = \"127.0.0.1:1\"",
            ),
    );
    gateway.wait_for_log(&["restart needed", "admin.address"]);
    assert_eq!(status(&window).with("Cookie", &ann).status(), 200);
    // Without its section nobody is answered, whoever he is.
    let (without, _) = text.split_once("[admin]").unwrap();
    reload(without);
    assert_eq!(status(&window).with("Cookie", &ann).status(), 503);
    assert_eq!(status(&window).token("secret-of-admin").status(), 503);
    reload(&text);
    assert_eq!(status(&window).token("secret-of-admin").status(), 200);
}
