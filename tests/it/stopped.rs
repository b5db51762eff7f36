//! A connector that somebody has stopped, by the command and by the API, over restarts.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::harness::{
    gateway::{Gateway, basic, send, stdout},
    peers::free_port,
    time::{stays, wait},
    upstream::Upstream,
};

/// One request of a program with a token; the status and the body.
pub fn ask(at: SocketAddr, token: &str, line: &str, body: &str) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(at).unwrap();
    let length = body.len();
    write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// A token of a role, and its section.
pub fn token(role: &str) -> (String, String) {
    let made = std::process::Command::new(Gateway::binary())
        .args(["admin", "token", role, "--role", role])
        .output()
        .unwrap();
    let section = stdout(&made);
    let token = section.lines().next().unwrap().rsplit(' ').next().unwrap();
    (token.to_owned(), section)
}

#[test]
fn a_connector_is_stopped_over_a_restart_and_started_again() {
    let up = Upstream::start();
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (operator, section) = token("operator");
    let (viewer, other) = token("viewer");
    let config = basic(up.address);
    let mut gateway = Gateway::start(&format!(
        "{config}\n[admin]\naddress = \"{at}\"\n{section}\n{other}"
    ));
    let status = |gateway: &Gateway| stdout(&gateway.cli(&["status"]));
    let said = gateway.cli(&["connector", "stop", "nobody"]);
    assert_eq!(said.status.code(), Some(64), "{said:?}");
    let said = gateway.cli(&["connector", "stop", "up", "--why", "it is being moved"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let said = gateway.cli(&["connector", "stop", "up"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    gateway.wait_for_log(&["connector paused", "stopped"]);
    send(&gateway);
    stays("nothing is sent", std::time::Duration::from_secs(2), || {
        up.count() == 0
    });
    assert!(
        status(&gateway).contains("up is stopped"),
        "{}",
        status(&gateway)
    );
    assert!(status(&gateway).contains("it is being moved"));
    let list = stdout(&gateway.cli(&["queue", "list"]));
    assert!(list.contains("blocked by up"), "{list}");
    gateway.cli(&["queue", "retry", "--all"]);
    gateway.terminate();
    gateway.restart();
    stays(
        "nor after a restart",
        std::time::Duration::from_secs(2),
        || up.count() == 0,
    );
    let (code, found) = ask(at, &viewer, "GET /api/v1/connectors/up", "");
    assert_eq!((code, found["state"].as_str()), (200, Some("stopped")));
    let (code, _) = ask(at, &viewer, "POST /api/v1/connectors/up/start", "");
    assert_eq!(code, 403);
    let (code, found) = ask(at, &operator, "POST /api/v1/connectors/up/start", "");
    assert_eq!(
        (code, found["state"].as_str()),
        (200, Some("open")),
        "{found}"
    );
    up.wait(1);
    let stop = "POST /api/v1/connectors/up/stop";
    let (code, found) = ask(at, &operator, stop, r#"{"why":"a\u001b[31m test"}"#);
    assert_eq!((code, found["state"].as_str()), (200, Some("stopped")));
    assert!(!status(&gateway).contains('\u{1b}'));
    wait("the gateway sees it", || {
        let log = gateway.log();
        (log.matches("\"stopped\"").count() + log.matches("state=stopped").count() > 0)
            .then_some(())
    });
    send(&gateway);
    stays("nothing is sent", std::time::Duration::from_secs(1), || {
        up.count() == 1
    });
    let (code, said) = ask(at, &operator, stop, r#"{"wy":"?"}"#);
    assert_eq!((code, said["code"].as_str()), (400, Some("unknown_key")));
    let (code, _) = ask(at, &operator, "POST /api/v1/connectors/nobody/stop", "");
    assert_eq!(code, 404);
    let said = gateway.cli(&["connector", "start", "up"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    up.wait(2);
    let db = rusqlite::Connection::open(gateway.path("data").join("window.db")).unwrap();
    let rows: Vec<String> = db
        .prepare("SELECT action || ' ' || object FROM audit WHERE action IN ('stop', 'start') AND result = 'ok' ORDER BY id")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        rows,
        [
            "stop connector up",
            "start connector up",
            "stop connector up",
            "start connector up"
        ]
    );
}
