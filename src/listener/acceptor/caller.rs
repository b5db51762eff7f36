//! Whose handshake it is, and how long it may take, for every library that does one.

use std::{net::SocketAddr, time::Duration};

use crate::mail::tls::TlsFloor;

/// A handshake must be finished within this, from the end of the hello.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(30);

/// The peer of a handshake.
#[derive(Debug, Clone)]
pub(in crate::listener) struct TlsCaller {
    pub(in crate::listener) peer: SocketAddr,
    /// The `[[client]]` that it is in.
    pub(in crate::listener) client: Option<String>,
    /// What is spoken with it.
    pub(in crate::listener) floor: TlsFloor,
}
