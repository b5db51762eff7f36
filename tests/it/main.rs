//! One integration binary; each module plays one part of the outside world.

mod cli;
