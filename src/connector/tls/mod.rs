//! TLS towards an upstream: how it is set up (`client`), whose certificate is trusted (`trust`), and in which words a failure is
//! reported (`words`).
//!
//! HTTP and SMTP make their connections in different ways, and must report the same fault alike.

pub(super) mod client;
pub(super) mod trust;
pub(super) mod words;
