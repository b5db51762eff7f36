//! Connections to the window: how many, how long, by what; each is hyper's own HTTP/1.1.
//!
//! It has a thread of its own that yields to the mail: one that dies is started again, and mail does not notice.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, TcpListener as StdListener},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener as StdUnixListener,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::{error, info};

use super::{
    api,
    app::App,
    caller::Peer,
    dressed::{AnswerTurn, Dressed},
    gate,
    settings::WindowPlace,
};
use crate::listener::bind::bind as bind_address;

/// Each for TLS and the header.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest header.
const HEADER: usize = 16 << 10;
/// Connections at once, in all and of one address.
const CONNECTIONS: usize = 200;
const OF_ADDRESS: usize = 100;
/// Mail goes first.
const NICE: i32 = 10;
/// Between a death and the next start.
const AGAIN: Duration = Duration::from_secs(1);

/// Sockets that listen.
#[derive(Debug)]
pub struct Bound(Vec<Socket>);

#[derive(Debug)]
enum Socket {
    Tcp(StdListener),
    Unix(StdUnixListener),
}

/// Binds where the window is to be. `inherited`: what systemd handed over by the name in the settings.
///
/// # Errors
/// A sentence that says why not.
pub fn bind(place: &WindowPlace, inherited: Vec<StdListener>) -> Result<Bound, String> {
    match place {
        WindowPlace::Tcp(address) => {
            let socket = bind_address(*address)?
                .into_std()
                .map_err(|e| e.to_string())?;
            Ok(Bound(vec![Socket::Tcp(socket)]))
        }
        WindowPlace::Unix(path) => bind_unix(path).map(|socket| Bound(vec![Socket::Unix(socket)])),
        WindowPlace::Inherited(name) if inherited.is_empty() => Err(format!(
            "systemd handed over no socket named \"{name}\" (FileDescriptorName= in the socket unit)"
        )),
        WindowPlace::Inherited(_) => Ok(Bound(inherited.into_iter().map(Socket::Tcp).collect())),
    }
}

fn bind_unix(path: &Path) -> Result<StdUnixListener, String> {
    let shown = path.display();
    let fault = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{shown} cannot be made: its directory is not there (RuntimeDirectory=postern in the unit makes it)"
        ),
        _ => format!("{shown} cannot be made: {error}"),
    };
    // One that is no socket refuses connections, too, and is not ours to take away.
    let is_other = |at: fs::Metadata| !at.file_type().is_socket();
    if fs::symlink_metadata(path).is_ok_and(is_other) {
        return Err(format!("{shown} is there already, and no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(format!("{shown} is taken by another process")),
        // Nobody is behind it: a gateway that was killed has left it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fault)?;
        }
        Err(_) => {}
    }
    let socket = StdUnixListener::bind(path).map_err(fault)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    Ok(socket)
}

/// Serves on a thread of its own, for as long as the process lives.
///
/// # Errors
/// There is no thread.
pub fn serve(app: Arc<App>, bound: Bound) -> io::Result<()> {
    thread::Builder::new().name("window".to_owned()).spawn(move || {
        // Of this thread alone, on Linux.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        loop {
            let run = catch_unwind(AssertUnwindSafe(|| run(&app, &bound)));
            let why = match run {
                Ok(Err(error)) => error.to_string(),
                _ => "a fault in it".to_owned(),
            };
            error!(event = "window failed", error = %why, "the window has failed; it is started again");
            app.has_failed();
            thread::sleep(AGAIN);
        }
    })?;
    Ok(())
}

fn run(app: &Arc<App>, bound: &Bound) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let router = api::router(app);
        let open = Arc::new(OpenPlaces::default());
        let mut accepting = tokio::task::JoinSet::new();
        for socket in &bound.0 {
            let (app, router, open) = (Arc::clone(app), router.clone(), Arc::clone(&open));
            match socket {
                Socket::Tcp(socket) => {
                    let socket = TcpListener::from_std(socket.try_clone()?)?;
                    if let Ok(address) = socket.local_addr() {
                        info!(event = "window", address = %address, "the window listens");
                    }
                    accepting.spawn(accept_tcp(socket, app, router, open));
                }
                Socket::Unix(socket) => {
                    let socket = UnixListener::from_std(socket.try_clone()?)?;
                    info!(event = "window", "the window listens at its Unix socket");
                    accepting.spawn(accept_unix(socket, router, open));
                }
            }
        }
        tokio::select! {
            () = Arc::clone(app).look() => {}
            _ = accepting.join_next() => {}
        }
        Ok(())
    })
}

/// How many there are, by address.
#[derive(Debug, Default)]
struct OpenPlaces(Mutex<HashMap<Option<IpAddr>, usize>>);

/// One of them; dropped, it is over.
struct OpenPlace {
    of: Arc<OpenPlaces>,
    from: Option<IpAddr>,
}

impl OpenPlaces {
    fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<OpenPlace> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        let own = open.entry(from).or_default();
        if *own >= OF_ADDRESS {
            return None;
        }
        *own += 1;
        Some(OpenPlace {
            of: Arc::clone(self),
            from,
        })
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        let mut open = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.from);
            }
        }
    }
}

async fn accept_tcp(socket: TcpListener, app: Arc<App>, router: Router, open: Arc<OpenPlaces>) {
    let port = socket.local_addr().map_or(0, |address| address.port());
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let Ok((tcp, from)) = socket.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let ip = from.ip().to_canonical();
        let Some(place) = open.take(Some(ip)) else {
            continue;
        };
        let _ = tcp.set_nodelay(true);
        let (router, tls) = (router.clone(), app.tls());
        let peer = Peer {
            ip: Some(ip),
            uid: None,
            port,
            is_encrypted: tls.is_some(),
        };
        conversations.spawn(async move {
            let _place = place;
            match tls {
                None => converse(tcp, peer, router).await,
                Some(config) => {
                    let handshake = TlsAcceptor::from(config).accept(tcp);
                    if let Ok(Ok(tls)) = timeout(PATIENCE, handshake).await {
                        converse(tls, peer, router).await;
                    }
                }
            }
        });
    }
}

async fn accept_unix(socket: UnixListener, router: Router, open: Arc<OpenPlaces>) {
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let Ok((unix, _)) = socket.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = open.take(None) else {
            continue;
        };
        let router = router.clone();
        let peer = Peer {
            ip: None,
            uid: unix.peer_cred().ok().map(|cred| cred.uid()),
            port: 0,
            is_encrypted: false,
        };
        conversations.spawn(async move {
            let _place = place;
            converse(unix, peer, router).await;
        });
    }
}

async fn converse<S>(stream: S, peer: Peer, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(Extension(peer));
    let turn = AnswerTurn::default();
    let stream = Dressed::new(stream, turn.clone(), gate::lines());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        turn.begin();
        let (answer, turn) = (
            router.clone().oneshot(request.map(axum::body::Body::new)),
            turn.clone(),
        );
        async move { answer.await.map(|response| turn.watch(response)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEADER)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends it, there is nobody left to tell.
    let _ = connection.await;
}
