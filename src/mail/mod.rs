//! The words every module shares: addresses, messages, headers, replies, outcomes, and how text and times are written.
//!
//! With them decisions and edges speak of the same things without knowing each other. Nothing in here decides, waits or opens a
//! socket.

pub mod address;
pub mod cause;
pub mod check;
pub mod headers;
pub mod health;
mod lexer;
pub mod mailboxes;
pub mod message;
pub mod names;
pub mod outcome;
#[cfg(test)]
pub mod page;
pub mod pattern;
pub mod recipient;
pub mod repair;
pub mod reply;
pub mod text;
pub mod time;
pub mod tls;
pub mod unicode;
pub mod utf8_header;
pub mod xtext;
