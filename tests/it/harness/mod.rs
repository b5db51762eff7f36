//! What the tests stand on: the real binary from a TOML text, a counting sink, real peers, doubles in memory.

pub mod gateway;
pub(crate) mod memory;
pub mod peers;
pub mod sink;
