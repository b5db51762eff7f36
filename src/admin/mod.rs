//! THE OPERATOR'S WINDOW: an HTTP interface and a page over it.
//!
//! `server.rs` takes connections, `gate.rs` asks who it is and whether he may (as `rights.rs` says), `api/` answers programs and
//! `pages/` people, with the same `view` types. What the gateway knows and does is asked of a [`host::Host`]; the mail path waits
//! for nothing in here.

use crate::mail::text::hex;

pub mod adoption;
pub mod host;
pub mod settings;

mod api;
mod app;
mod audit;
mod caller;
mod dressed;
mod entry;
mod feed;
mod gate;
mod login;
mod pages;
mod params;
mod problem;
mod rights;
mod server;
mod sessions;
mod typed;
mod watching;

pub use app::App;
pub use feed::Feed;
pub use server::{Bound, bind, serve};

/// What nobody can guess, and its hash. `None`: the machine has no randomness.
pub fn secret_of_a_token() -> Option<(String, [u8; 32])> {
    let secret = caller::secret()?;
    let hash = caller::hash(&secret);
    Some((secret, hash))
}

/// A hash as `[[admin_token]]` has it.
pub fn token_hash(hash: &[u8; 32]) -> String {
    format!("sha256:{}", hex(hash))
}
