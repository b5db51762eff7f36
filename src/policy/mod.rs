//! MAY IT? Who may send as whom, to whom; pure functions over settings that were checked at load.
//!
//! The session asks in the order of `judge`, and `postern explain` plays a session. Nothing in here opens anything, waits for
//! anything or knows of TOML and sockets.

pub mod alter;
pub mod archive;
pub mod certificate;
pub mod client;
mod content;
mod grants;
pub mod judge;
pub mod ledger;
pub mod owner;
pub mod quota;
mod received;
pub mod redirect;
pub mod rewrite;
mod rules;
pub mod scope;
mod windows;

pub use rules::{About, Allowlist, AuthMode, Policy, Who};
