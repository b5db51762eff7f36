//! What a command does is written into the audit of the window, beside what is done on its page.

use std::{path::Path, time::SystemTime};

use super::{
    exit::{CommandError, Exit},
    output,
};
use crate::{
    config::Environment,
    window::{
        WindowDb, WindowError,
        audit::{self, AuditRow},
    },
};

/// The database that a gateway has made.
pub(super) fn window(data_dir: &Path) -> Result<WindowDb, CommandError> {
    let window = WindowDb::existing(data_dir).map_err(unwritten)?;
    window.ok_or_else(|| {
        CommandError::new(
            Exit::Unavailable,
            format_args!(
                "no gateway has run on {} yet: start it first",
                data_dir.display()
            ),
        )
    })
}

/// It took nothing, or told nothing.
pub(super) fn unwritten(error: WindowError) -> CommandError {
    CommandError::new(Exit::Io, error)
}

/// The user of the operating system.
pub(super) fn user() -> String {
    let mut known = Environment::of_process().vars;
    let named = ["SUDO_USER", "LOGNAME", "USER"]
        .iter()
        .find_map(|name| known.remove(*name));
    let named = named.filter(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// A row about this command.
pub(super) fn row(action: &str, object: &str, request: &str) -> AuditRow {
    AuditRow {
        who: user(),
        from: "command".to_owned(),
        action: action.to_owned(),
        object: object.to_owned(),
        result: "ok".to_owned(),
        request: format!("postern {request}"),
        ..AuditRow::default()
    }
}

/// Writes it. What was done is done, so that it cannot be written is only said.
pub(super) fn write(data_dir: &Path, row: AuditRow) {
    let written = WindowDb::existing(data_dir).and_then(|window| match window {
        Some(window) => window.wait(move |tx| audit::add(tx, &row, SystemTime::now())),
        None => Err(WindowError::from(std::io::Error::from(
            std::io::ErrorKind::NotFound,
        ))),
    });
    if let Err(error) = written {
        output::complain(format_args!(
            "done, but not written into the audit: {error}"
        ));
    }
}
