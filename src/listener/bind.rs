//! One address to a socket that listens, or a sentence that says why not.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::owner;

pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let open = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]` takes IPv4 as well, whatever the machine's default; a single address takes itself.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => {
            let owner = owner::of_port(address).map_or_else(
                || "another process".to_owned(),
                |owner| {
                    if owner.starts_with(&format!("pid {} (", std::process::id())) {
                        format!("this gateway itself, {owner}: a change between overlapping addresses needs a restart")
                    } else {
                        owner
                    }
                },
            );
            format!("{address} is taken by {owner}")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{address} may not be bound: ports below 1024 need CAP_NET_BIND_SERVICE or a socket from systemd"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is not an address of this machine")
        }
        _ => format!("{address} cannot be bound: {e}"),
    })
}
