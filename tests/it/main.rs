//! The integration tests, in one binary.

mod dialogues;
mod listener;
