//! The threads that talk: some for the clients, some for delivery.
//!
//! Apart so that the two do not stand in each other's way: a client does not wait behind what is being delivered, and where
//! each has what it needs nobody wakes a neighbour for nothing. The store and the log have threads of their own elsewhere.

use std::{io, num::NonZero};

use tokio::runtime::{Builder, Runtime};

/// Half as many as there are processors, since there are two such sets of them.
pub(super) fn of(name: &str) -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(processors.div_ceil(2))
        .thread_name(name)
        .enable_all()
        .build()
}
