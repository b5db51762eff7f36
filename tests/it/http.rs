//! What a request over HTTPS may have done, by where its connection breaks: the difference between sending again at once and being in doubt.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use postern::connector::{
    Proxy,
    http::{Http, HttpSettings, NoAnswer},
};
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use super::harness::proxy::Authority;

const BODY: usize = 100_000;

/// A TLS server for one request. It reads `most` octets of it, says `last` outside TLS, and closes.
fn server(authority: &Authority, most: usize, last: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(authority.server(&["localhost", "127.0.0.1"]));
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(config).unwrap();
        let mut tls = StreamOwned::new(connection, stream);
        let mut octets = vec![0; 65_536];
        let mut read = 0;
        while read < most {
            match tls.read(&mut octets) {
                Ok(n) if n > 0 => read += n,
                _ => return,
            }
        }
        let _ = tls.sock.write_all(last);
        // Until the client has read it and goes.
        while matches!(tls.read(&mut octets), Ok(n) if n > 0) {}
    });
    address
}

async fn send(address: SocketAddr, ca_file: &Path) -> NoAnswer {
    let settings = HttpSettings {
        proxy: Proxy::default(),
        ca_file: Some(ca_file.to_owned()),
        allowed_hosts: vec!["*".to_owned()],
    };
    let http = Http::new(&settings).unwrap();
    let url = format!("https://localhost:{}/", address.port());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    http.send(&url.parse().unwrap(), deadline, |client, url| {
        client.post(url).body(vec![b'x'; BODY])
    })
    .await
    .unwrap_err()
}

#[tokio::test]
async fn garbage_in_place_of_the_answer_leaves_a_sent_request_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &ours.pem).unwrap();
    // A fatal alert "internal error" in the clear, octets that are no TLS, nothing at all: all of the request was there before.
    for last in [
        &[21, 3, 3, 0, 2, 2, 80][..],
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"",
    ] {
        let fault = send(server(&ours, BODY, last), &ca).await;
        assert!(
            matches!(fault, NoAnswer::Unanswered(_)),
            "{last:?}: {fault:?}"
        );
    }
    // A certificate that nobody knows: nothing left.
    let fault = send(server(&other, BODY, b""), &ca).await;
    assert!(matches!(fault, NoAnswer::Unreached(_)), "{fault:?}");
}
