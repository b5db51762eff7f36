//! HOW IT IS SAID: bytes in, steps out, on both sides of the conversation; no sockets, no clock.
//!
//! Every dialogue, attack and odd device can be played in memory. `listener` and `connector` drive it.

pub mod client;
pub mod data;
pub mod sasl;
pub mod server;
