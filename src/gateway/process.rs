//! What the process takes of the machine: threads, and as many sockets as it may have.

use std::num::NonZero;

use rustix::process::{Resource, Rlimit};
use tokio::runtime::{Builder, Runtime};

/// Threads that talk: some for the clients, some for delivery, so that a client does not wait behind what is being delivered, and
/// where each has what it needs nobody wakes a neighbour for nothing. Half as many as there are processors, since there are two
/// such sets of them; the store and the log have threads of their own.
pub(super) fn threads(name: &str) -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(processors.div_ceil(2))
        .thread_name(name)
        .enable_all()
        .build()
}

/// There may be as many sockets as the administrator allows.
pub(super) fn raise_files() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    // Best effort: systemd's unit says the same.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    );
}
