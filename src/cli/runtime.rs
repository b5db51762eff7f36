//! Where what is asynchronous below a command runs: one thread and the blocking pool, for as long as the command does.
//!
//! A store in a database has tasks of its own, which live as long as this does.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use super::exit::{CommandError, Exit};

/// Runs it to its end.
pub(super) fn block_on<T>(
    future: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = match RUNTIME.get() {
        Some(runtime) => runtime,
        None => {
            let made = Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| CommandError::new(Exit::System, error))?;
            RUNTIME.get_or_init(|| made)
        }
    };
    runtime.block_on(future)
}
