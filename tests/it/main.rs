//! The integration tests, one binary; each module plays one part of the outside world.

mod cli;
mod delivery;
mod harness;
