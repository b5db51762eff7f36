//! The window behind a proxy that people have already: nginx, set up as `docs/operating.md` says it, word for word.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
};

use super::{
    harness::{
        browser::At,
        gateway::wait,
        peers::{command, free_port, need},
    },
    window::start,
};

/// The block of that language in the docs.
fn documented(language: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, rest) = docs.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the foreground and without children, so that its end is the end of it.
fn nginx(dir: &Path, port: u16, location: &str) -> Nginx {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{ access_log off;\n{temporary}\
         server {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n",
        dir = dir.display()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let child = command("nginx")
        .arg("-c")
        .arg(dir.join("nginx.conf"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Nginx(child)
}

#[test]
#[ignore = "needs nginx, which tests/run installs"]
fn nginx_as_the_docs_have_it() {
    need("nginx");
    let (gateway, window, _sink) = start(
        "hosts = [\"mail-gateway.corp.example\"]\ntrusted_proxies = [\"127.0.0.1/32\"]\nuser_header = \"Remote-User\"\n\
         groups_header = \"Remote-Groups\"\ngroups = { \"mail-admins\" = \"admin\", \"*\" = \"viewer\" }\n",
    );
    let At::Tcp(address) = &window else {
        panic!("it listens on TCP");
    };
    // The proxy logs in whoever comes: it says so itself, whatever he says.
    let location = documented("nginx")
        .replace("http://127.0.0.1:8025", &format!("http://{address}"))
        .replace(
            "proxy_buffering",
            "proxy_set_header Remote-User robin;\nproxy_set_header Remote-Groups mail-admins;\nproxy_buffering",
        );
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let _nginx = nginx(dir.path(), port, &location);
    let proxy = At::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    wait("nginx", || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .is_ok()
            .then_some(())
    });
    let host = format!("mail-gateway.corp.example:{port}");

    let page = proxy
        .get("/")
        .only("Host", &host)
        .with("Remote-User", "mallory")
        .send();
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("robin") && !page.body.contains("mallory"));
    // As a browser sends a form where the page came without TLS: with Origin alone.
    let form = || {
        let form = proxy.form("/", "do=reload").only("Host", &host);
        form.without("Sec-Fetch-Site").from("127.0.0.2")
    };
    let origin = format!("http://{host}");
    let answer = form().with("Origin", &origin).send();
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(form().with("Origin", "http://evil.example").status(), 403);
    let rows = proxy
        .get("/api/v1/audit?action=reload")
        .only("Host", &host)
        .send()
        .json();
    let row = &rows["items"][0];
    assert_eq!(
        (row["who"].as_str(), row["from"].as_str()),
        (Some("robin"), Some("127.0.0.2")),
        "{rows}"
    );
    // What happens comes through at once, not when a buffer is full.
    let mut stream = proxy.get("/api/v1/events").only("Host", &host).begin();
    assert!(stream.head().contains(" 200 "));
    let before = stream.line();
    assert!(!before.is_empty());
    drop(gateway);
}
