//! `postern capture`: the conversations with one client, printed as they come.

use std::{path::PathBuf, time::Duration};

use super::{
    asking::Asking,
    audited,
    exit::{CommandError, Ended, Exit},
    learn::length,
    output,
    place::Where,
    prepare,
};
use crate::{
    listener::captures::bounded,
    mail::text::shown,
    window::{
        WindowError,
        asked::{self, OperatorWish},
    },
};

/// How often it is looked what was said.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Of the client
    address: String,
    /// How long, at most 1h; Ctrl-C ends it
    #[arg(long = "for", value_name = "DURATION", default_value = "15m", value_parser = length)]
    length: Duration,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let (address, length) = bounded(&arguments.address, arguments.length)
        .map_err(|why| CommandError::new(Exit::Usage, why))?;
    let place = arguments.place.find(path)?;
    let asking = Asking::of(&place)?;
    let (id, _) = asking.ask(OperatorWish::Capture {
        address: address.to_string(),
        seconds: length.as_secs().max(1),
    })?;
    let object = address.to_string();
    let mut row = audited::row("capture", &object, &format!("capture {object}"));
    row.after = Some(format!("for {}", output::span(length)));
    audited::write(&place.data_dir, row);
    output::complain(format_args!(
        "conversations with {} for {}; Ctrl-C ends it",
        shown(&object),
        output::span(length)
    ));
    let result = prepare::block_on(print(&asking, id));
    let ended = asking.window.wait(move |tx| {
        asked::ask(tx, &OperatorWish::Release { capture: id })?;
        asked::forget(tx, id)
    });
    ended.map_err(|error| CommandError::new(Exit::Io, error))?;
    result
}

async fn print(asking: &Asking, id: i64) -> Ended {
    let failed = |error: WindowError| CommandError::new(Exit::Io, error);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            () = tokio::time::sleep(LOOK) => {}
        }
        let (lines, state) = asking
            .window
            .run(move |tx| Ok((asked::take_told(tx, id)?, asked::answered(tx, id)?)))
            .await
            .map_err(failed)?;
        for line in lines {
            output::line(line)?;
        }
        if state.is_none_or(|(_, is_over)| is_over) {
            return Ok(Exit::Ok);
        }
    }
}
