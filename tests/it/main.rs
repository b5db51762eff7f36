//! One integration binary; a module for each subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on panics; the binary exports nothing"
)]

mod harness;
mod store;
