//! `postern hash-password`: argon2id, as `[[user]] password` wants it.

use std::io::{self, IsTerminal as _, Read as _};

use argon2::{Argon2, PasswordHasher as _};

use super::{
    exit::{CommandError, Ended, Exit},
    output,
};
use crate::secret::Secret;

/// Longer than any password, so that the wrong file is not hashed by mistake.
const MOST: u64 = 4096;

pub(super) fn run() -> Ended {
    let password = if io::stdin().is_terminal() {
        ask()?
    } else {
        read()?
    };
    if password.reveal().is_empty() {
        return Err(CommandError::new(
            Exit::Data,
            "an empty password is refused",
        ));
    }
    let hash = Argon2::default()
        .hash_password(password.reveal().as_bytes())
        .map_err(|error| CommandError::new(Exit::Software, error))?;
    output::line(hash)?;
    Ok(Exit::Ok)
}

fn ask() -> Result<Secret, CommandError> {
    let once = Secret::new(rpassword::prompt_password("Password: ")?);
    let again = Secret::new(rpassword::prompt_password("Again: ")?);
    if once == again {
        Ok(once)
    } else {
        Err(CommandError::new(Exit::Data, "the two passwords differ"))
    }
}

/// The first line; what a pipe or a here-document adds is its line end.
fn read() -> Result<Secret, CommandError> {
    let mut text = Vec::new();
    io::stdin().lock().take(MOST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(CommandError::new(
            Exit::Data,
            format_args!("a password has at most {MOST} octets"),
        ));
    }
    let text = String::from_utf8(text)
        .map_err(|_| CommandError::new(Exit::Data, "the password is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\n', '\0']) {
        return Err(CommandError::new(
            Exit::Data,
            "the password has more than one line",
        ));
    }
    Ok(Secret::new(line))
}
