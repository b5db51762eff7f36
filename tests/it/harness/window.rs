//! The window over plain HTTP as programs use it: a token for each role, JSON in and out.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
};

use postern::config::edit::digest;
use serde_json::{Value, json};

use super::{
    gateway::{Gateway, wait},
    http::Wire,
    peers::free_port,
};

/// Roles that have a token, which is called as they are.
pub const ROLES: [&str; 4] = ["metrics", "viewer", "operator", "admin"];

/// Where a window is.
#[derive(Clone, Copy)]
pub struct Window {
    port: u16,
}

/// What came back: the status and the body, null where it is no JSON.
pub type Answer = (u16, Value);

impl Window {
    /// One that is to be; `keys` go into `[admin]`.
    pub fn planned(keys: &str) -> (Self, String) {
        let window = Self { port: free_port() };
        let mut section = format!("[admin]\naddress = \"127.0.0.1:{}\"\n{keys}\n", window.port);
        for role in ROLES {
            let hash = digest(Self::token(role).as_bytes());
            let _ = write!(
                section,
                "[[admin_token]]\nname = \"{role}\"\nhash = \"sha256:{hash}\"\nrole = \"{role}\"\n"
            );
        }
        (window, section)
    }

    /// Of a gateway with this file and an `[admin]` with these keys.
    pub fn start(config: &str, keys: &str) -> (Gateway, Self) {
        let (window, section) = Self::planned(keys);
        let gateway = Gateway::start(&format!("{config}\n{section}"));
        window.is_there();
        (gateway, window)
    }

    /// Waits until it answers.
    pub fn is_there(self) {
        wait("the window", || {
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).ok()
        });
    }

    fn token(role: &str) -> String {
        format!("the token of {role}")
    }

    /// Asks; `None`: the connection broke off.
    pub fn try_ask(
        self,
        role: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).ok()?;
        let mut wire = Wire::new(stream);
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.port,
            body.len()
        );
        if !role.is_empty() {
            let _ = write!(head, "Authorization: Bearer {}\r\n", Self::token(role));
        }
        if !body.is_empty() {
            head += "Content-Type: application/json\r\n";
        }
        wire.say(format!("{head}\r\n{body}").as_bytes())?;
        let head = wire.head()?;
        let status = head.0.split(' ').nth(1)?.parse().ok()?;
        let body = wire.body(head.length())?;
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// What Prometheus reads.
    pub fn metrics(self) -> String {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        let mut wire = Wire::new(stream);
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            self.port,
            Self::token("metrics")
        );
        wire.say(head.as_bytes()).unwrap();
        let head = wire.head().unwrap();
        String::from_utf8(wire.body(head.length()).unwrap()).unwrap()
    }

    /// As an admin.
    pub fn get(self, path: &str) -> Value {
        let (status, body) = self.try_ask("admin", "GET", path, None).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// As an admin.
    pub fn post(self, path: &str, body: &Value) -> Answer {
        self.try_ask("admin", "POST", path, Some(body)).unwrap()
    }

    /// The status and the code of what is refused.
    pub fn refused(self, path: &str, body: &Value) -> (u16, String) {
        let (status, body) = self.post(path, body);
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Operations on the file of now.
    pub fn change(self, operations: &Value) -> Value {
        let base = self.get("/config")["sha256"].clone();
        json!({ "base": base, "title": "a change", "changes": operations })
    }

    /// The id of a new proposal.
    pub fn propose(self, operations: &Value) -> String {
        let (status, body) = self.post("/proposals", &self.change(operations));
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }
}
