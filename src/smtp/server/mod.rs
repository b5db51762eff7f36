//! The side that listens: command grammar, session, PROXY header, tolerance.

pub mod command;
mod path;
pub mod proxy;
pub mod session;
pub mod tolerance;
