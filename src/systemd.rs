//! What the service manager is told, and the sockets it hands over. Without systemd every call does nothing.
//!
//! Nothing else knows the protocol (`sd_notify(3)`, `sd_listen_fds(3)`). Errors are dropped on purpose: mail does not stop because
//! the service manager is deaf.

use std::{collections::HashMap, io, net::TcpListener, time::Duration};

use sd_notify::NotifyState;

/// Every socket is bound and the store is open.
pub fn ready(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it, whether it worked or not. systemd needs the monotonic time with it.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
}

/// The drain begins.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// How often [`watchdog`] must be called, half of what systemd allows; `None`: it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|d| (d / 2).max(Duration::from_millis(100)))
}

/// Still alive.
pub fn watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// The listening TCP sockets that were handed over, by `FileDescriptorName=`; several may share a name. Call once.
///
/// # Errors
/// What was handed over is not a listening TCP socket, or the names do not fit.
pub fn inherited_sockets() -> io::Result<HashMap<String, Vec<TcpListener>>> {
    let mut sockets: HashMap<String, Vec<TcpListener>> = HashMap::new();
    // The names first: taking the sockets removes what the names are checked against.
    let names: Vec<String> = sd_notify::listen_fds_with_names()?
        .map(|(_, name)| name)
        .collect();
    let mut handed = listenfd::ListenFd::from_env();
    for (index, name) in names.into_iter().enumerate() {
        if let Some(socket) = handed.take_tcp_listener(index)? {
            sockets.entry(name).or_default().push(socket);
        }
    }
    Ok(sockets)
}
