//! Invariant 10: text from outside reaches a log, a terminal or a reply only through `mail::text`.
//!
//! At every place where somebody else may speak, all is said that a terminal obeys, that hides or turns text, or that begins a line
//! of its own. Then nothing that the gateway and its commands say may hold any of it; and each place has a word of its own, by which
//! the test sees that what was said there is told at all.

use std::{
    fs,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::harness::{
    cloud_token::{Endpoint, Said, granted},
    gateway::{Client, Gateway, basic, queued_id, send, wait},
    upstream::{Act, Script, Upstream},
};

/// What is obeyed or not seen, written apart from `mail::text`: escape sequences, C0, DEL and C1, line and paragraph separators, marks
/// that turn or hide text, and tags that are no characters.
const TRICKS: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{8}\u{7f}\u{9b}31m\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{fff9}\u{e0041}";
/// What would be a line of its own.
const FORGED: &str = "FORGED";

/// A word of this place, and all of the tricks behind it.
fn hostile(place: &str) -> String {
    format!("{place}{TRICKS}")
}

/// The same with a forged line, where a line end does not end what is said.
fn with_lines(place: &str) -> String {
    format!("{place}{TRICKS}\r\n{FORGED}\n{FORGED}\r{FORGED}\0")
}

/// Nothing of it is there as it was said.
fn is_tame(what: &str, said: &str) {
    let obeyed = |c: &char| (c.is_control() && *c != '\n') || TRICKS.contains(*c) && !c.is_ascii();
    let found: Vec<char> = said.chars().filter(obeyed).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {said:?}");
    assert!(
        !said.lines().any(|line| line.starts_with(FORGED)),
        "{what}: {said}"
    );
}

/// It is tame, and each of the places is told of.
fn tells(what: &str, said: &str, places: &[&str]) {
    is_tame(what, said);
    for place in places {
        assert!(
            said.contains(place),
            "{what} does not tell of {place}: {said}"
        );
    }
}

/// All that a command says; to a terminal as far as the program can tell.
fn said(gateway: &Gateway, args: &[&str]) -> String {
    let output = gateway.cli(args);
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// What every command says of the queue and of this message.
fn told_of(gateway: &Gateway, id: &str) -> String {
    let commands: [&[&str]; 9] = [
        &["status"],
        &["status", "--json"],
        &["queue", "list", "--all"],
        &["queue", "list", "--all", "--json"],
        &["queue", "show", id],
        &["queue", "show", id, "--json"],
        &["trace", id],
        &["trace", id, "--json"],
        &["check"],
    ];
    let each = commands.map(|args| {
        let text = said(gateway, args);
        is_tame(&args.join(" "), &text);
        text
    });
    each.concat()
}

/// The log in its two formats for files and terminals, with all that it can say.
fn in_both_formats(config: &str) -> [String; 2] {
    ["text", "json"]
        .map(|format| format!("{config}\n[log]\nlevel = \"trace\"\nformat = \"{format}\"\n"))
}

/// One reply, of which each octet is printable ASCII.
fn reply(client: &mut Client, said: &[u8]) -> String {
    client.send(said);
    let reply = client.reply();
    assert!(
        reply.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')) && !reply.contains("\n\n"),
        "{reply:?}"
    );
    reply
}

fn line(client: &mut Client, command: &str) -> String {
    reply(client, format!("{command}\r\n").as_bytes())
}

#[test]
fn what_clients_say_is_told_only_in_printable_characters() {
    // The message stays, so that commands show it.
    let sink = Upstream::scripted(|line| line.starts_with("MAIL").then(|| "451 later".to_owned()));
    let config = basic(sink.address)
        + "[[listener]]\nname = \"login\"\naddress = \"127.0.0.1:0\"\nauth = \"optional\"\nplaintext_auth = true\n\
           [[listener]]\nname = \"proxied\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.1\"]\n\
           [[client]]\nname = \"device\"\nnetworks = [\"127.0.0.0/8\"]\ntolerance = \"device\"\ntranscript = true\n\
           [[user]]\nname = \"erp\"\npassword = '$argon2id$v=19$m=19456,t=2,p=1$Y2hhbmdlIG1lIHBsZWFzZQ$VO/tSrzTE4Jqh2Cw8FWmWqF2VjR5vAxRVjBqmpPzQ6E'\n";
    for config in in_both_formats(&config) {
        let gateway = Gateway::start(&config);
        let mut client = gateway.connect("local");
        for command in [
            hostile("zverb"),
            format!("EHLO {}", hostile("zhelo")),
            format!("VRFY {}", hostile("zvrfy")),
            format!("HELP {}", hostile("zhelp")),
            format!("NOOP {}", hostile("znoop")),
            format!("MAIL FROM:<{}@corp.example>", hostile("zmail")),
            format!("MAIL FROM:<{}>", "long".repeat(100)),
            format!("MAIL FROM:<a@corp.example> {}", hostile("zparameter")),
            format!("MAIL FROM:<a@corp.example> SIZE={}", hostile("zsize")),
            "EHLO app".to_owned(),
            "MAIL FROM:<a@corp.example>".to_owned(),
            format!("RCPT TO:<{}@corp.example>", hostile("zrcpt")),
            format!("RCPT TO:<\"{}\"@corp.example>", hostile("zquoted")),
            format!("RCPT TO:<x@{}>", hostile("zdomain")),
        ] {
            line(&mut client, &command);
        }
        let encoded = STANDARD.encode(with_lines("zencoded"));
        // Fields that are quoted in a refusal, and such as pass.
        for (field, told_by) in [
            (format!("From: {} <a@evil.tld>", hostile("zname")), ""),
            (format!("From: <{}@corp.example>", hostile("zfrom")), ""),
            (format!("From: \"{}@evil.tld\"", hostile("zstring")), ""),
            (format!("Sender: {} <a@evil.tld>", hostile("zsender")), ""),
            (format!("Subject: {}\r{FORGED}", hostile("zcr")), "zcr"),
            (
                format!("Subject: {} =?utf-8?B?{encoded}?=", hostile("zsubject")),
                "zsubject",
            ),
        ] {
            let mut client = gateway.connect("local");
            client.expect("EHLO app", "250");
            client.expect("MAIL FROM:<a@corp.example>", "250");
            client.expect("RCPT TO:<x@corp.example>", "250");
            client.expect("DATA", "354");
            let content = format!(
                "{field}\r\nMessage-ID: <{}>\r\n\r\n{TRICKS}\r\n.\r\n",
                hostile("zmessage-id")
            );
            let answer = reply(&mut client, content.as_bytes());
            assert_eq!(
                answer.starts_with("250"),
                !told_by.is_empty(),
                "{field:?}: {answer}"
            );
            if !told_by.is_empty() {
                let told = told_of(&gateway, &queued_id(&answer));
                tells("the commands", &told, &[told_by]);
            }
        }
        let mut login = gateway.connect("login");
        line(&mut login, "EHLO x");
        line(&mut login, &format!("AUTH {}", hostile("zmechanism")));
        let plain = STANDARD.encode(format!("\0{}\0password", with_lines("zuser")));
        line(&mut login, &format!("AUTH PLAIN {plain}"));
        line(&mut login, "AUTH LOGIN");
        line(&mut login, &STANDARD.encode(hostile("zsomebody")));
        line(&mut login, &STANDARD.encode(hostile("zpassword")));
        line(&mut login, &format!("AUTH PLAIN {}", hostile("zbase64")));
        for header in [
            format!("PROXY TCP4 {} 127.0.0.1 1 25\r\n", hostile("zproxied")),
            format!("PROXY {}\r\n", hostile("zprotocol")),
        ] {
            let mut client = Client::connect(gateway.address("proxied"));
            assert_eq!(reply(&mut client, header.as_bytes()), "");
        }
        let words = "zverb zhelo zvrfy zhelp znoop zmail zparameter zsize zrcpt zquoted zdomain";
        let words: Vec<&str> = words.split(' ').collect();
        tells("the log", &gateway.log(), &words);
    }
}

#[test]
fn what_upstreams_say_is_told_only_in_printable_characters() {
    for (at, code) in [
        ("EHLO", "421"),
        ("MAIL", "451"),
        ("MAIL", "550"),
        ("RCPT", "450"),
        ("RCPT", "550"),
        ("DATA", "554"),
        (".", "250"),
        (".", "451"),
        (".", "554"),
        (".", "not a reply"),
    ] {
        let sink = Upstream::scripted(move |line| {
            let told = hostile("upstream");
            // Only the message's own recipient, so that a report about it arrives.
            let is_refused = line.starts_with(at) && !line.contains("TO:<a@");
            is_refused.then(|| format!("{code}-{told}\r\n{code} \r{told}\0"))
        });
        let configs = in_both_formats(&basic(sink.address));
        for (count, config) in configs.iter().enumerate() {
            let gateway = Gateway::start(config);
            let mut client = gateway.connect("local");
            client.expect("EHLO x", "250");
            let id = queued_id(&client.mail(
                "a@corp.example",
                &["x@corp.example"],
                "From: a@corp.example\r\nSubject: s\r\n\r\nb\r\n",
            ));
            let place = if code.starts_with("not") {
                "not a reply"
            } else {
                "upstream"
            };
            let what = format!("{at} {code}");
            wait(&what, || {
                told_of(&gateway, &id).contains(place).then_some(())
            });
            tells(&what, &gateway.log(), &[place]);
            let test = said(&gateway, &["test", "up", "--to", "x@corp.example"]);
            tells(&what, &test, &[place]);
            // A report quotes what was said.
            if (at, code) == ("RCPT", "550") {
                let report = sink.wait(count + 1).remove(count);
                assert_eq!(report.from, "");
                // Its Received is folded with tabs.
                let text = report.text().replace("\r\n", "\n").replace("\n\t", "\n");
                tells(&what, &text, &[place]);
            }
        }
    }
}

/// Before anything was asked, longer than any reply, and in octets that are no text.
#[test]
fn greetings_and_long_answers_are_told_only_in_printable_characters() {
    let said = hostile("upstream").into_bytes();
    let no_text = [&said, &b"\xff\xfe\xc0\x80\0"[..]].concat();
    let long = [said.clone(), b"y".repeat(100_000)].concat();
    let line = |code: &str, said: &[u8]| [code.as_bytes(), said, b"\r\n"].concat();
    let lines = |code: &str| {
        let more = line(&format!("{code}-"), &no_text).repeat(3);
        [more, line(&format!("{code} "), &no_text)].concat()
    };
    let is_endless = "without an end";
    for (stage, octets, place) in [
        ("banner", lines("421"), "upstream"),
        ("banner", line("554 ", &no_text), "upstream"),
        ("banner", line("", &no_text), "no SMTP reply"),
        ("banner", line("220 ", &long), is_endless),
        ("banner", line("220-", &no_text).repeat(5_000), is_endless),
        ("EHLO", line("250-", &no_text).repeat(5_000), is_endless),
        ("MAIL", lines("451"), "upstream"),
        ("MAIL", line("451 ", &long), is_endless),
        ("RCPT1", line("550-", &long), is_endless),
        ("EOD", lines("554"), "upstream"),
        ("EOD", lines("250"), "upstream"),
        ("EOD", line("250 ", &long), is_endless),
    ] {
        let what = format!("{stage} {}", String::from_utf8_lossy(&octets[..20]));
        let upstream = Script::default()
            .when(move |at| {
                // A report about it arrives.
                let is_now = at.stage == stage && !at.line.contains("TO:<a@");
                is_now.then(|| Act::Octets(octets.clone()))
            })
            .start();
        for config in in_both_formats(&basic(upstream.address)) {
            let gateway = Gateway::start(&config);
            let id = send(&gateway);
            wait(&what, || {
                told_of(&gateway, &id).contains(place).then_some(())
            });
            tells(&what, &gateway.log(), &[place]);
            let test = self::said(&gateway, &["test", "up", "--to", "x@corp.example"]);
            tells(&what, &test, &[place]);
        }
    }
}

/// What Entra and Graph say: in JSON, in headers, and where JSON was to be.
#[test]
fn what_clouds_say_is_told_only_in_printable_characters() {
    let quoted = |place: &str| serde_json::to_string(&with_lines(place)).unwrap();
    let error = |place: &str| {
        let (code, message) = (quoted(place), quoted("message"));
        format!("{{\"error\":{{\"code\":{code},\"message\":{message}}}}}")
    };
    let page = || format!("<html>{}</html>", with_lines("page"));
    let token = format!(
        "{{\"error\":{},\"error_codes\":[7000222],\"error_description\":{}}}",
        quoted("invalid"),
        quoted("description")
    );
    let [of_graph, of_tokens] = [false, true];
    for (whose, status, body, place) in [
        (of_graph, 400, error("zcode"), "zcode"),
        (of_graph, 403, error("zcode"), "zcode"),
        (of_graph, 429, error("zcode"), "zcode"),
        (of_graph, 503, error("zcode"), "zcode"),
        (of_graph, 400, page(), "400"),
        (of_graph, 403, page(), "403"),
        (of_graph, 302, page(), "302"),
        (of_graph, 202, page(), "202"),
        (of_tokens, 400, token.clone(), "invalid"),
        (of_tokens, 401, token, "invalid"),
        (of_tokens, 400, page(), "400"),
        (of_tokens, 200, page(), "200"),
        (
            of_tokens,
            200,
            format!(
                "{{\"access_token\":{0},\"token_type\":{0},\"expires_in\":{0}}}",
                quoted("token")
            ),
            "usable",
        ),
    ] {
        let answer: Said = (
            status,
            "Retry-After: \u{202e}\u{9b}2J\r\nLocation: /\u{202e}\u{9b}2J\r\nrequest-id: \u{202e}\u{9b}2J\r\n".into(),
            body,
        );
        let what = format!("{status} {}", answer.2);
        let cloud = Endpoint::start(move |asked| {
            if asked.target.ends_with("/token") == whose {
                answer.clone()
            } else {
                granted("t", 3599)
            }
        });
        let url = cloud.url("");
        let config = basic(([127, 0, 0, 1], 1).into());
        let (front, _) = config.split_once("[[connector]]").unwrap();
        let config = format!(
            "{front}[[connector]]\nname = \"up\"\ntype = \"graph\"\ntenant_id = \"corp.example\"\n\
             client_id = \"11111111-2222-3333-4444-555555555555\"\nclient_secret = \"hush-hush-value\"\n\
             login_url = \"{url}\"\ngraph_url = \"{url}\"\n"
        );
        for config in in_both_formats(&config) {
            let gateway = Gateway::start(&config);
            let id = send(&gateway);
            wait(&what, || {
                told_of(&gateway, &id).contains(place).then_some(())
            });
            is_tame(&what, &gateway.log());
            let args = [
                "test",
                "up",
                "--from",
                "erp@corp.example",
                "--to",
                "x@corp.example",
            ];
            tells(&what, &said(&gateway, &args), &[place]);
            is_tame(&what, &said(&gateway, &["check", "--connect"]));
        }
    }
}

#[test]
fn what_files_and_arguments_say_is_told_only_in_printable_characters() {
    let name = hostile("place");
    let sink = Upstream::start();
    let mut gateway = Gateway::start(&basic(sink.address));
    let id = send(&gateway);
    let file = format!("{name}.toml");
    let from = format!("{name}@corp.example");
    let mut told = 0;
    for args in [
        &[name.as_str()][..],
        &["check", &name],
        &[&format!("--{name}")],
        &["status", "--data-dir", &name],
        &["queue", "list", "--data-dir", &name],
        &["queue", "list", "--sender", &name],
        &["queue", "list", "--state", &name],
        &["queue", "hold", "--recipient", &name],
        &["queue", "show", &name],
        &["queue", "export", &id, "--output", &format!("{name}/x")],
        &["queue", &name],
        &["trace", &name],
        &["explain", "--from", &from, "--to", "x@corp.example"],
        &["explain", "--from", "a@corp.example", "--to", &from],
        &[
            "explain",
            "--from",
            "a@corp.example",
            "--to",
            "x@corp.example",
            "--user",
            &name,
        ],
        &[
            "explain",
            "--from",
            "a@corp.example",
            "--to",
            "x@corp.example",
            "--client",
            &name,
        ],
        &["test", &name, "--to", "x@corp.example"],
        &["test", "up", "--to", &from],
        &[
            "send",
            "--from",
            &from,
            "--to",
            "x@corp.example",
            "--subject",
            "s",
        ],
        &[
            "send",
            "--from",
            "a@corp.example",
            "--to",
            "x@corp.example",
            "--subject",
            "s",
            "--attach",
            &name,
        ],
        &["services", &name],
        &["cert", "--name", &name, "--dir", "certs"],
        &[
            "cert",
            "--name",
            "relay",
            "--dir",
            &format!("nowhere/{name}"),
        ],
        &["man", "--dir", &format!("nowhere/{name}")],
        &["completions", &name],
    ] {
        let text = said(&gateway, args);
        is_tame(&args.join(" "), &text);
        told += usize::from(text.contains("place"));
    }
    assert!(told >= 18, "{told} commands tell what they were given");
    let elsewhere = |args: &[&str], env: &[(&str, &str)]| {
        let output = Command::new(Gateway::binary())
            .args(args)
            .current_dir(gateway.dir.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    // To a terminal errors have colours of our own.
    for args in [&[name.as_str()][..], &["queue", "show", &name]] {
        let text = elsewhere(args, &[("CLICOLOR_FORCE", "1")]);
        assert!(text.contains("place"), "{text}");
        assert!(!text.contains("\u{1b}[2J"), "{text:?}");
    }
    // A file that is not there, one that is broken, and one that is right, each under such a name.
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    for content in [
        None,
        Some(text.replace("\"up\"", "\"down\"") + "x = 1"),
        Some(text.clone()),
    ] {
        if let Some(content) = content {
            fs::write(gateway.path(&file), content).unwrap();
        }
        for args in [
            &["check"][..],
            &["check", "--json"],
            &["status"],
            &["run"],
            &["reload"],
            &["queue", "list"],
        ] {
            let args = [args, &["-c", &file]].concat();
            is_tame(&args.join(" "), &elsewhere(&args, &[]));
        }
    }
    tells(
        "check",
        &elsewhere(&["check", "-c", &file], &[]),
        &["place"],
    );
    for (variable, args) in [
        ("POSTERN_CONFIG", &["check"][..]),
        ("POSTERN_SMTP", &["sendmail", "x@corp.example"]),
    ] {
        tells(
            variable,
            &elsewhere(args, &[(variable, &format!("{name}.toml"))]),
            &["place"],
        );
    }
    // Keys and values of a file: at its check, and in the log and the status when it is read again.
    let good = fs::read_to_string(gateway.config_path()).unwrap();
    let escaped = serde_json::to_string(&name)
        .unwrap()
        .replace("\\u001b", "\\u001B");
    for (was, is) in [
        ("name = \"local\"", format!("name = {escaped}")),
        ("name = \"up\"", format!("name = {escaped}")),
        ("host = \"127.0.0.1\"", format!("host = {escaped}")),
        ("hostname = ", format!("{escaped} = 1\nhostname = ")),
        (
            "hostname = \"relay.corp.example\"",
            format!("hostname = {escaped}"),
        ),
        ("[allowlist]", format!("[{escaped}]\n[allowlist]")),
        ("\"partner.example\"", escaped.clone()),
        ("data_dir = \"data\"", format!("data_dir = {escaped}")),
        ("tls = \"off\"", format!("tls = {escaped}")),
        (
            "tls = \"off\"",
            format!("tls = \"starttls\"\nca_file = {escaped}"),
        ),
        (
            "tls = \"off\"",
            format!("tls = \"starttls\"\nusername = \"u\"\npassword = {{ file = {escaped} }}"),
        ),
        (
            "tls = \"off\"",
            format!("tls = \"starttls\"\nusername = \"u\"\npassword = {{ env = {escaped} }}"),
        ),
        (
            "tls = \"off\"",
            format!("tls = \"starttls\"\nusername = {escaped}\npassword = {{ env = \"NOTHING\" }}"),
        ),
        ("hostname = ", format!("# {name}\nhostname = ")),
    ] {
        let bad = good.replacen(was, &is, 1);
        assert_ne!(bad, good, "{was}");
        fs::write(gateway.config_path(), bad).unwrap();
        tells(&is, &said(&gateway, &["check"]), &["place"]);
        is_tame(&is, &said(&gateway, &["check", "--json"]));
        gateway.hang_up();
        wait(&is, || {
            said(&gateway, &["status"]).contains("place").then_some(())
        });
        is_tame(&is, &told_of(&gateway, &id));
        fs::write(gateway.config_path(), &good).unwrap();
        gateway.hang_up();
        wait("the good one again", || {
            (!said(&gateway, &["status"]).contains("place")).then_some(())
        });
    }
    tells("the log", &gateway.log(), &["place"]);
    gateway.terminate();
}
