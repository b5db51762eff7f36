//! TLS towards an upstream: whose certificate is trusted (`trust`), and in which words a failure is reported (`words`).
//!
//! HTTP and SMTP make their connections in different ways, and must report the same fault alike.

pub(super) mod trust;
pub(super) mod words;
