//! Access tokens for whoever logs in with one: fetched, cached, renewed early, one renewal in flight.
//!
//! Several kinds of connectors need the same token, and none should know where it comes from. It sends no mail.

mod answer;
pub mod arc;
mod claims;
mod codes;
mod grant;
mod refresh;
mod source;

pub use claims::Claims;
pub(crate) use claims::EXCHANGE;
pub use grant::{Azure, Grant, Settings};
pub use refresh::TokenStore;
pub use source::{Token, TokenSource};
