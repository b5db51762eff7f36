//! What the tests stand on: the real binary from a TOML text, an upstream that does as it is told, real peers, doubles that fail.

pub mod browser;
pub mod client;
pub mod clock;
pub mod cloud;
pub mod cloud_drafts;
pub mod cloud_limits;
pub mod cloud_token;
pub mod delay;
pub mod directory;
pub mod flaky;
pub mod gateway;
pub mod hole;
pub mod http;
pub mod memory;
pub mod peers;
pub mod postgres;
pub mod proxy;
pub mod spill;
pub mod time;
pub mod upstream;
pub mod window;
