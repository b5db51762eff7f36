//! TLS towards an upstream: whose certificate is trusted (`trust`), and in which words a failure is told (`words`).
//!
//! Apart because HTTP and SMTP make their connections in different ways and must tell the same fault alike.

pub(super) mod trust;
pub(super) mod words;
