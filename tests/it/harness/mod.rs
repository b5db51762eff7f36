//! What the tests stand on: the real binary from a TOML text, a counting sink, real peers.

pub mod gateway;
pub mod peers;
pub mod sink;
