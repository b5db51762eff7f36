//! How a command asks the gateway that runs for something: a row in `window.db`, which the gateway sees within a second.

use std::time::{Duration, Instant};

use super::{
    exit::{CommandError, Exit},
    place::{self, QueuePlace},
};
use crate::window::{
    WindowDb, WindowError,
    asked::{self, OperatorWish, WishAnswer},
};

/// How often it is looked for an answer.
const LOOK: Duration = Duration::from_millis(100);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// The gateway that runs, and its file.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) window: WindowDb,
}

fn unwritten(error: WindowError) -> CommandError {
    CommandError::new(Exit::Io, error)
}

impl Asking {
    /// Of the gateway that runs there.
    pub(super) fn of(place: &QueuePlace) -> Result<Self, CommandError> {
        let is_running = place::running(&place.data_dir)?.is_some();
        let window = WindowDb::existing(&place.data_dir).map_err(unwritten)?;
        match window.filter(|_| is_running) {
            Some(window) => Ok(Self { window }),
            None => Err(CommandError::new(
                Exit::Unavailable,
                "no gateway runs there: start it first",
            )),
        }
    }

    /// Asks, and waits for the answer; the number of the row, and what was said.
    pub(super) fn ask(&self, wish: OperatorWish) -> Result<(i64, String), CommandError> {
        let id = self
            .window
            .wait(move |tx| asked::ask(tx, &wish))
            .map_err(unwritten)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
            let answer = self.window.read_now(move |tx| asked::answered(tx, id));
            match answer.map_err(unwritten)? {
                Some((WishAnswer::Done(said), _)) => return Ok((id, said)),
                Some((WishAnswer::Refused(why), _)) => {
                    return Err(CommandError::new(Exit::Usage, why));
                }
                None => {}
            }
        }
        self.window.later(move |tx| asked::forget(tx, id));
        Err(CommandError::new(
            Exit::Unavailable,
            "the gateway does not answer",
        ))
    }
}
