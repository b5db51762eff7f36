//! A proxy of our own: HTTP CONNECT and SOCKS5, with and without a login, to nowhere but where it is told; and a machine that opens
//! TLS, as a server with a certificate does, and as a proxy does that looks into it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, pki_types::pem::PemObject as _},
};

/// What the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Socks5,
}

/// One request as it came, let through or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `host:port`; empty where the login failed before it was said.
    pub target: String,
    /// `user:password`.
    pub login: Option<String>,
}

/// What the proxy does.
#[derive(Debug, Clone)]
pub struct Rules {
    pub kind: Kind,
    /// It wants this login.
    pub login: Option<(&'static str, &'static str)>,
    /// Where hosts are; a host that is not here is not reached.
    pub hosts: Vec<(&'static str, SocketAddr)>,
    /// The status line that CONNECT is answered with, whatever else holds; empty: nothing is ever answered.
    pub answer: Option<&'static str>,
}

impl Rules {
    pub fn new(kind: Kind, hosts: &[(&'static str, SocketAddr)]) -> Self {
        Self {
            kind,
            login: None,
            hosts: hosts.to_vec(),
            answer: None,
        }
    }
}

/// The proxy. Dropping it ends it.
pub struct Proxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    runtime: Option<Runtime>,
}

impl Proxy {
    pub fn start(rules: Rules) -> Self {
        let (runtime, listener) = listen();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (rules, seen) = (Arc::new(rules), asked.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (rules, seen) = (rules.clone(), seen.clone());
                tokio::spawn(async move {
                    match rules.kind {
                        Kind::Connect => connect(stream, &rules, &seen).await,
                        Kind::Socks5 => socks(stream, &rules, &seen).await,
                    }
                });
            }
        });
        Self {
            address,
            asked,
            runtime: Some(runtime),
        }
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The hosts it was asked for.
    pub fn targets(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.target).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen() -> (Runtime, TcpListener) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    (runtime, listener)
}

fn note(seen: &Mutex<Vec<Asked>>, target: &str, login: Option<&str>) {
    seen.lock().unwrap().push(Asked {
        target: target.to_owned(),
        login: login.map(str::to_owned),
    });
}

async fn pass(mut stream: TcpStream, there: SocketAddr) {
    if let Ok(mut onward) = TcpStream::connect(there).await {
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
    }
}

fn place(rules: &Rules, target: &str) -> Option<SocketAddr> {
    let hosts = rules.hosts.iter();
    hosts
        .into_iter()
        .find(|(host, _)| *host == target)
        .map(|h| h.1)
}

async fn connect(mut stream: TcpStream, rules: &Rules, seen: &Mutex<Vec<Asked>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(octet) = stream.read_u8().await else {
            return;
        };
        head.push(octet);
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let login = head.lines().find_map(|line| {
        let pair = line.split_once(": Basic ")?.1;
        String::from_utf8(STANDARD.decode(pair).ok()?).ok()
    });
    note(seen, target, login.as_deref());
    let wanted = rules
        .login
        .map(|(user, password)| format!("{user}:{password}"));
    let answer = match (method, place(rules, target)) {
        _ if rules.answer == Some("") => {
            // Silence, until the other side gives up.
            let _ = stream.read_u8().await;
            return;
        }
        _ if rules.answer.is_some() => rules.answer.unwrap(),
        _ if wanted.is_some() && wanted != login => "407 Proxy Authentication Required",
        ("CONNECT", Some(there)) => {
            let _ = stream.write_all(b"HTTP/1.1 200 go\r\n\r\n").await;
            return pass(stream, there).await;
        }
        ("CONNECT", None) => "502 Bad Gateway",
        _ => "405 Method Not Allowed",
    };
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
    // So that it is read before the reset.
    let _ = stream.shutdown().await;
    let _ = stream.read_u8().await;
}

/// RFC 1928, and RFC 1929 for the login.
async fn socks(mut stream: TcpStream, rules: &Rules, seen: &Mutex<Vec<Asked>>) {
    if let Ok(Some(there)) = negotiate(&mut stream, rules, seen).await {
        pass(stream, there).await;
    }
}

async fn negotiate(
    stream: &mut TcpStream,
    rules: &Rules,
    seen: &Mutex<Vec<Asked>>,
) -> std::io::Result<Option<SocketAddr>> {
    let _version = stream.read_u8().await?;
    let methods = text(stream).await?;
    let method = if rules.login.is_some() { 2 } else { 0 };
    if !methods.as_bytes().contains(&method) {
        note(seen, "", None);
        stream.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    stream.write_all(&[5, method]).await?;
    let mut login = None;
    if let Some((user, password)) = rules.login {
        let _version = stream.read_u8().await?;
        let said = format!("{}:{}", text(stream).await?, text(stream).await?);
        let is_right = said == format!("{user}:{password}");
        stream.write_all(&[1, u8::from(!is_right)]).await?;
        if !is_right {
            note(seen, "", Some(&said));
            return Ok(None);
        }
        login = Some(said);
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).await?;
            std::net::Ipv4Addr::from(ip).to_string()
        }
        3 => text(stream).await?,
        _ => {
            let mut ip = [0; 16];
            stream.read_exact(&mut ip).await?;
            std::net::Ipv6Addr::from(ip).to_string()
        }
    };
    let target = format!("{host}:{}", stream.read_u16().await?);
    note(seen, &target, login.as_deref());
    let there = place(rules, &target);
    // 4: host unreachable.
    let verdict = if there.is_some() { 0 } else { 4 };
    stream
        .write_all(&[5, verdict, 0, 1, 0, 0, 0, 0, 0, 0])
        .await?;
    Ok(there)
}

/// A length and so many octets.
async fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut octets = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut octets).await?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// An issuer of certificates.
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate of this authority and its key, as PEM.
    pub fn pair(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    /// A server with a certificate of this authority.
    pub fn server(&self, names: &[&str]) -> rustls::ServerConfig {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes());
        rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.unwrap())
        .unwrap()
    }
}

/// How TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the first octet.
    AtOnce,
    /// After STARTTLS.
    StartTls,
}

/// Opens TLS before a plain server, and keeps what it hears inside. Dropping it ends it.
pub struct Front {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    runtime: Option<Runtime>,
}

impl Front {
    pub fn start(authority: &Authority, names: &[&str], begin: Begin, behind: SocketAddr) -> Self {
        let (runtime, listener) = listen();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(names)));
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let ear = heard.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, ear) = (acceptor.clone(), ear.clone());
                tokio::spawn(async move {
                    let _ = open(stream, &acceptor, begin, behind, &ear).await;
                });
            }
        });
        Self {
            address,
            heard,
            runtime: Some(runtime),
        }
    }

    /// What was said inside TLS.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn open(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    begin: Begin,
    behind: SocketAddr,
    ear: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if begin == Begin::StartTls {
        stream.get_mut().write_all(b"220 front\r\n").await?;
        line(&mut stream).await?;
        stream
            .get_mut()
            .write_all(b"250-front\r\n250 STARTTLS\r\n")
            .await?;
        line(&mut stream).await?;
        stream.get_mut().write_all(b"220 go\r\n").await?;
    }
    let (mut hears, mut says) = tokio::io::split(acceptor.accept(stream.into_inner()).await?);
    let mut behind = BufReader::new(TcpStream::connect(behind).await?);
    if begin == Begin::StartTls {
        // Its greeting was said already.
        line(&mut behind).await?;
    }
    let (mut back, mut onward) = behind.into_inner().into_split();
    let hear = async {
        let mut octets = vec![0; 65_536];
        loop {
            let read = hears.read(&mut octets).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            ear.lock().unwrap().extend_from_slice(&octets[..read]);
            if onward.write_all(&octets[..read]).await.is_err() {
                return;
            }
        }
    };
    let say = async {
        let _ = tokio::io::copy(&mut back, &mut says).await;
        let _ = says.shutdown().await;
    };
    tokio::select! { () = hear => {} () = say => {} }
    Ok(())
}

async fn line(stream: &mut BufReader<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line)
}
