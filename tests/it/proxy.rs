//! The way out through a proxy: HTTP CONNECT and SOCKS5 for graph, for token endpoints and for smtp; what passes it by; and what a
//! proxy that refuses us, or looks into TLS, is called. No token, secret or password leaves then.

use crate::harness::time::stays;
use std::{fs, net::SocketAddr, process::Command};

use tempfile::TempDir;

use super::harness::{
    cloud::Tenant,
    gateway::{Gateway, basic, send, stdout, wait},
    proxy::{Asked, Authority, Begin, Front, Kind, Proxy, Rules},
    upstream::Upstream,
};

const LOGIN: (&str, &str) = ("me", "p:@%41/#\u{e4}");
/// As it stands in a URL.
const LOGIN_IN_URL: &str = "me:p%3A%40%2541%2F%23%C3%A4@";
const NAMES: [&str; 3] = ["login.example", "graph.example", "smtp.corp.example"];
const APPLICATION: &str = "tenant_id = \"corp.example\", client_id = \"11111111-2222-3333-4444-555555555555\", client_secret = \"hush-hush-value\", login_url = \"https://login.example\", ca_file = \"ca.pem\"";

/// Microsoft as far as it is needed: a tenant and an SMTP server that takes its tokens, behind TLS.
struct Cloud {
    tenant: Tenant,
    sink: Upstream,
    authority: Authority,
    web: Front,
    implicit: Front,
    starttls: Front,
}

impl Cloud {
    fn start() -> Self {
        let authority = Authority::new("Roots");
        let tenant = Tenant::start(|_, _| None);
        let sink = Upstream::scripted(|line| match line.split(' ').next() {
            Some("EHLO") => Some("250-sink\r\n250 AUTH XOAUTH2 PLAIN".to_owned()),
            Some("AUTH") => Some("235 2.7.0 ok".to_owned()),
            _ => None,
        });
        let web = Front::start(&authority, &NAMES, Begin::AtOnce, tenant.endpoint.address);
        let implicit = Front::start(&authority, &NAMES, Begin::AtOnce, sink.address);
        let starttls = Front::start(&authority, &NAMES, Begin::StartTls, sink.address);
        Self {
            tenant,
            sink,
            authority,
            web,
            implicit,
            starttls,
        }
    }

    fn hosts(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("login.example:443", self.web.address),
            ("graph.example:443", self.web.address),
            ("smtp.corp.example:465", self.implicit.address),
            ("smtp.corp.example:587", self.starttls.address),
        ]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Graph,
    Implicit,
    StartTls,
    Password,
}

/// The keys of a connector `up`.
fn connector(way: Way) -> String {
    let smtp = |port: u16, tls: &str, login: String| {
        format!(
            "type = \"smtp\"\nhost = \"smtp.corp.example\"\nport = {port}\ntls = \"{tls}\"\nca_file = \"ca.pem\"\n{login}\n"
        )
    };
    let oauth = || {
        format!(
            "auth = \"xoauth2\"\noauth = {{ provider = \"microsoft\", mailbox = \"erp@corp.example\", {APPLICATION} }}"
        )
    };
    match way {
        Way::Graph => format!(
            "type = \"graph\"\ngraph_url = \"https://graph.example\"\nrate = \"1000/min\"\n{}\n",
            APPLICATION.replace(", ", "\n")
        ),
        Way::Implicit => smtp(465, "implicit", oauth()),
        Way::StartTls => smtp(587, "starttls", oauth()),
        Way::Password => smtp(
            587,
            "starttls",
            "username = \"erp\"\npassword = \"hush-hush-value\"".into(),
        ),
    }
}

fn gateway(authority: &Authority, connector: &str, outbound: &str) -> Gateway {
    let base = basic(([127, 0, 0, 1], 1).into());
    let (front, _) = base.split_once("[[connector]]").unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    fs::write(
        dir.path().join("config.toml"),
        format!(
            "{front}[[connector]]\nname = \"up\"\n{connector}\n[outbound]\n{outbound}\n[queue]\ngive_up = \"5s\"\n"
        ),
    )
    .unwrap();
    Gateway::start_in(dir)
}

fn url(proxy: &Proxy, kind: Kind, login: &str) -> String {
    let scheme = match kind {
        Kind::Connect => "http",
        Kind::Socks5 => "socks5",
    };
    format!("proxy = \"{scheme}://{login}{}\"", proxy.address)
}

fn check(gateway: &Gateway) -> String {
    let output = gateway.cli(&["check", "--connect"]);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Paused or closed, with these words; the mail waits.
fn stopped(gateway: &Gateway, id: &str, state: &str, words: &[&str]) {
    let status = wait(&format!("{state}: {words:?}"), || {
        let text = String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).into_owned();
        text.contains(&format!("is {state}")).then_some(text)
    });
    let status: String = status.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(status.contains(word), "{word}: {status}");
    }
    if state == "paused" {
        // Longer than `give_up`: a pause does not count.
        stays(
            "it is paused",
            std::time::Duration::from_millis(5500),
            || String::from_utf8_lossy(&gateway.cli(&["status"]).stdout).contains("is paused"),
        );
    }
    // A probe of a closed one has it under way for a moment.
    wait("the mail waits", || {
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&gateway.cli(&["queue", "list", "--json"]))).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 1, "no bounce: {list}");
        assert_eq!(list[0]["id"].as_str(), Some(id), "{list}");
        (list[0]["state"] == "waiting").then_some(())
    });
    for text in [gateway.log(), status, check(gateway)] {
        assert!(!text.contains("hush"), "{text}");
        assert!(!text.contains(LOGIN.1) && !text.contains("%2541"), "{text}");
    }
}

#[test]
fn mail_goes_through_every_kind_of_proxy() {
    let cloud = Cloud::start();
    for kind in [Kind::Connect, Kind::Socks5] {
        for login in [None, Some(LOGIN)] {
            let proxy = Proxy::start(Rules {
                login,
                ..Rules::new(kind, &cloud.hosts())
            });
            let in_url = login.map_or("", |_| LOGIN_IN_URL);
            let outbound = url(&proxy, kind, in_url);
            let (mut mails, mut received) = (cloud.tenant.mails().len(), cloud.sink.count());
            for way in [Way::Graph, Way::Implicit, Way::StartTls] {
                let before = proxy.asked().len();
                let gateway = gateway(&cloud.authority, &connector(way), &outbound);
                send(&gateway);
                let expected = if way == Way::Graph {
                    mails += 1;
                    cloud.tenant.wait(mails);
                    ["login.example:443", "graph.example:443"]
                } else {
                    received += 1;
                    cloud.sink.wait(received);
                    let port = if way == Way::Implicit { 465 } else { 587 };
                    [
                        "login.example:443",
                        if port == 465 {
                            "smtp.corp.example:465"
                        } else {
                            "smtp.corp.example:587"
                        },
                    ]
                };
                let asked = proxy.asked();
                let said = login.map(|(user, password)| format!("{user}:{password}"));
                for host in expected {
                    assert!(
                        asked[before..].contains(&Asked {
                            target: host.into(),
                            login: said.clone(),
                        }),
                        "{kind:?} {way:?} {host}: {asked:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn none_and_the_bypass_lists_hold_for_all_of_them() {
    let cloud = Cloud::start();
    let proxy = Proxy::start(Rules::new(Kind::Connect, &cloud.hosts()));
    let outbound = url(&proxy, Kind::Connect, "");
    for (way, more, bypass, expected) in [
        (Way::Graph, "proxy = \"none\"\n", "[]", &[][..]),
        (Way::Implicit, "proxy = \"none\"\n", "[]", &[]),
        (Way::Graph, "", "[\"login.example\"]", &[]),
        (
            Way::Graph,
            "",
            "[\"GRAPH.example\"]",
            &["login.example:443"],
        ),
        (Way::StartTls, "", "[\"*.example\"]", &[]),
        (
            Way::Implicit,
            "",
            "[\"*.corp.example\"]",
            &["login.example:443"],
        ),
        (
            Way::Implicit,
            "",
            "[\"corp.example\", \"10.0.0.0/8\"]",
            &["login.example:443", "smtp.corp.example:465"],
        ),
    ] {
        let before = proxy.asked().len();
        let gateway = gateway(
            &cloud.authority,
            &format!("{}{more}", connector(way)),
            &format!("{outbound}\nproxy_bypass = {bypass}"),
        );
        let said = check(&gateway);
        assert_eq!(
            proxy.targets()[before..],
            *expected,
            "{way:?} {more} {bypass}: {said}"
        );
        if expected.len() < 2 {
            // These names exist nowhere but behind the proxy.
            assert!(
                said.contains("DNS") || said.contains("ok      up"),
                "{said}"
            );
        }
    }
    // Loopback, and with it every test without TLS, never.
    let before = proxy.asked().len();
    let near = gateway(
        &cloud.authority,
        &cloud
            .tenant
            .connector()
            .replace("[[connector]]\nname = \"up\"\n", ""),
        &outbound,
    );
    send(&near);
    cloud.tenant.wait(1);
    assert_eq!(proxy.asked().len(), before);
    // Nor does the environment say where to go.
    let output = Command::new(Gateway::binary())
        .args(["check", "--connect", "-c"])
        .arg(gateway(&cloud.authority, &connector(Way::Graph), "").config_path())
        .env("HTTPS_PROXY", format!("http://{}", proxy.address))
        .env("ALL_PROXY", format!("http://{}", proxy.address))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(proxy.asked().len(), before);
}

#[test]
fn a_proxy_that_wants_another_login_pauses_and_is_named() {
    let cloud = Cloud::start();
    for (kind, in_url, words) in [
        (Kind::Connect, "", &["asks for a login (407)"][..]),
        (
            Kind::Connect,
            "me:wrong@",
            &["refuses the login (407)", "user and password in `proxy`"],
        ),
        (Kind::Socks5, "", &["asks for a login"]),
        (
            Kind::Socks5,
            "me:wrong@",
            &["refuses the login", "user and password in `proxy`"],
        ),
    ] {
        let proxy = Proxy::start(Rules {
            login: Some(LOGIN),
            ..Rules::new(kind, &cloud.hosts())
        });
        let outbound = url(&proxy, kind, in_url);
        let at = proxy.address.to_string();
        for way in [Way::Graph, Way::Password] {
            let gateway = gateway(&cloud.authority, &connector(way), &outbound);
            let id = send(&gateway);
            let words: Vec<&str> = words.iter().copied().chain([at.as_str()]).collect();
            stopped(&gateway, &id, "paused", &words);
            assert!(!gateway.log().contains("wrong"));
        }
    }
    assert_eq!(cloud.web.heard(), "");
    assert_eq!(cloud.starttls.heard(), "");
    assert_eq!(cloud.tenant.endpoint.asked().len(), 0);
}

#[test]
fn a_proxy_that_does_not_work_is_down_and_named() {
    let cloud = Cloud::start();
    for (answer, words) in [
        (
            "403 Forbidden",
            &[
                "proxy 127.0.0.1",
                "opens no connection to",
                "403 Forbidden",
                "(CONNECT)",
            ][..],
        ),
        ("502 Bad Gateway", &["proxy 127.0.0.1", "502 Bad Gateway"]),
        ("hello", &["proxy 127.0.0.1"]),
    ] {
        let proxy = Proxy::start(Rules {
            answer: Some(answer),
            ..Rules::new(Kind::Connect, &cloud.hosts())
        });
        for way in [Way::Graph, Way::Password] {
            let gateway = gateway(
                &cloud.authority,
                &connector(way),
                &url(&proxy, Kind::Connect, ""),
            );
            let said = check(&gateway);
            assert!(said.contains("failed  up: the upstream"), "{said}");
            for word in words {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }
    // A login that we do not have in us is not one to write into `proxy`.
    let proxy = Proxy::start(Rules {
        answer: Some("407 Login\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM"),
        ..Rules::new(Kind::Connect, &cloud.hosts())
    });
    for way in [Way::Graph, Way::Password] {
        let url = url(&proxy, Kind::Connect, "");
        let said = check(&gateway(&cloud.authority, &connector(way), &url));
        assert!(
            said.contains("takes Negotiate and NTLM only (407)"),
            "{said}"
        );
        assert!(!said.contains("write it into `proxy`"), "{said}");
    }
    // Nobody is there at all.
    let gateway = gateway(
        &cloud.authority,
        &connector(Way::Graph),
        "proxy = \"http://127.0.0.1:1\"",
    );
    let id = send(&gateway);
    stopped(&gateway, &id, "closed", &["proxy 127.0.0.1:1"]);
    assert_eq!(cloud.tenant.endpoint.asked().len(), 0);
}

#[test]
fn a_proxy_that_looks_into_tls_hears_nothing_until_its_ca_is_trusted() {
    let cloud = Cloud::start();
    let nosy = Authority::new("Nosy Proxy CA");
    let web = Front::start(&nosy, &NAMES, Begin::AtOnce, cloud.tenant.endpoint.address);
    let implicit = Front::start(&nosy, &NAMES, Begin::AtOnce, cloud.sink.address);
    let starttls = Front::start(&nosy, &NAMES, Begin::StartTls, cloud.sink.address);
    let hosts = [
        ("login.example:443", web.address),
        ("graph.example:443", web.address),
        ("smtp.corp.example:465", implicit.address),
        ("smtp.corp.example:587", starttls.address),
    ];
    let proxy = Proxy::start(Rules::new(Kind::Connect, &hosts));
    let outbound = url(&proxy, Kind::Connect, "");
    for (way, host) in [
        (Way::Graph, "login.example"),
        (Way::Password, "smtp.corp.example"),
    ] {
        let gateway = gateway(&cloud.authority, &connector(way), &outbound);
        let id = send(&gateway);
        stopped(
            &gateway,
            &id,
            "closed",
            &[
                &format!("the certificate that came for {host} is from an unknown issuer"),
                "the proxy seems to open TLS",
                "set ca_file",
            ],
        );
    }
    // The token endpoint is honest, Graph and smtp are not: the token stays here.
    let mixed = Proxy::start(Rules::new(
        Kind::Connect,
        &[("login.example:443", cloud.web.address), hosts[1], hosts[2]],
    ));
    for (way, host) in [
        (Way::Graph, "graph.example"),
        (Way::Implicit, "smtp.corp.example"),
    ] {
        let gateway = gateway(
            &cloud.authority,
            &connector(way),
            &url(&mixed, Kind::Connect, ""),
        );
        let id = send(&gateway);
        stopped(
            &gateway,
            &id,
            "closed",
            &[
                &format!("the certificate that came for {host}"),
                "set ca_file",
            ],
        );
    }
    for front in [&web, &implicit, &starttls] {
        assert_eq!(front.heard(), "", "it hears nothing of ours");
    }
    // With its CA in ca_file it is trusted, beside or in place of the system's roots.
    let (mails, received) = (cloud.tenant.mails().len(), cloud.sink.count());
    let trusting = gateway(&nosy, &connector(Way::Graph), &outbound);
    send(&trusting);
    cloud.tenant.wait(mails + 1);
    assert!(web.heard().contains("sendMail"));
    let trusting = gateway(&nosy, &connector(Way::Implicit), &outbound);
    send(&trusting);
    cloud.sink.wait(received + 1);
}
