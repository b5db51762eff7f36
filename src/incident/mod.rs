//! WHO IS TOLD: what needs somebody, as incidents, and the channels that tell of them.
//!
//! `catalogue.rs` has the words of every kind, `book.rs` decides what opens, is reminded of and recovers, `outbox.rs` writes that down
//! together with what is to be told, and `channels/` says it. What the conditions are is the gateway's to find out.

pub mod book;
pub mod catalogue;
pub mod channels;
pub mod outbox;
pub mod settings;
mod severity;
pub mod shown;
