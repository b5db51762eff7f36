//! The side that sends: reply parsing and the dialogue.

pub mod dialogue;
pub mod reply;
