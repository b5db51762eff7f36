//! TLS below what the modern library speaks, for devices that know nothing better.
//!
//! Both sides of a connection can be built on it: `policy.rs` has the versions and suites there are, `stream.rs` the octets and the
//! server's side, `client.rs` the client's, over a library that comes with the feature `old-tls`. Whether somebody may be spoken to
//! like this is decided elsewhere, and nothing of that library is reached before that.

#[cfg(feature = "old-tls")]
mod client;
mod policy;
#[cfg(feature = "old-tls")]
mod stream;

#[cfg(feature = "old-tls")]
pub use client::{FirstOctet, OldClient, OldFault};
pub use policy::{OldKey, OldPolicy};
#[cfg(feature = "old-tls")]
pub use stream::{OldServer, OldStream, reason};

/// Whether this program can speak it.
pub const IS_BUILT: bool = cfg!(feature = "old-tls");
