//! Access tokens for whoever logs in with one: fetched, cached, renewed early, one renewal in flight.
//!
//! Several kinds of connectors need the same token, and none should know where it comes from. It sends no mail.

mod answer;
pub mod arc;
mod claims;
mod codes;
pub mod directory;
mod grant;
mod keys;
mod pairs;
mod refresh;
pub mod rotation;
mod source;

pub use claims::Claims;
pub(crate) use claims::EXCHANGE;
pub use grant::{Azure, Grant, RotationSettings, Settings};
pub use keys::ApplicationPair;
pub use pairs::{rotation_key, rotation_row, rotation_row_in};
pub use refresh::{TokenStore, last_use};
pub use source::{Token, TokenSource};
