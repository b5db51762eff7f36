//! The integration tests, one binary.

mod delivery;
mod harness;
