//! What the flags leave open: asked on a terminal, with the default in brackets; without one a missing flag is an error that names it.
//!
//! It reads answers and judges none of them: whoever asks says what an answer must be.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::super::{
    exit::{CommandError, Exit},
    output,
};
use crate::{mail::text::shown, secret::Secret};

/// A longer line is no answer.
const LONGEST: u64 = 8 << 10;

/// Whoever sits there, if anybody does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialog {
    asks: bool,
}

/// One thing to be known.
#[derive(Debug, Clone)]
pub(super) struct FlagQuestion<'a> {
    /// The flag that answers it, with the form of its value.
    pub(super) flag: &'a str,
    /// In words.
    pub(super) words: &'a str,
    /// What no answer means. `None`: there must be one.
    pub(super) default: Option<String>,
}

impl Dialog {
    /// Of this process.
    pub(super) fn of_process() -> Self {
        Self {
            asks: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Whether there is somebody to ask.
    pub(super) fn asks(self) -> bool {
        self.asks
    }

    /// The value of a flag, else the answer, else the default.
    pub(super) fn value<T>(
        self,
        question: &FlagQuestion<'_>,
        given: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, CommandError> {
        if let Some(given) = given {
            return read(given).map_err(|why| refused(question.flag, given, &why));
        }
        if !self.asks {
            let default = question
                .default
                .as_deref()
                .ok_or_else(|| missing(question.flag))?;
            return read(default).map_err(|why| refused(question.flag, default, &why));
        }
        loop {
            let answer = asked(question)?;
            let answer = match (answer.trim(), &question.default) {
                ("", Some(default)) => default,
                ("", None) => continue,
                (answer, _) => answer,
            };
            match read(answer) {
                Ok(value) => return Ok(value),
                Err(why) => output::complain(format_args!("{}: {}", shown(answer), shown(&why))),
            }
        }
    }

    /// As [`Dialog::value`], where nothing is an answer too.
    pub(super) fn optional<T>(
        self,
        flag: &str,
        words: &str,
        given: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, CommandError> {
        if given.is_none() && !self.asks {
            return Ok(None);
        }
        let question = FlagQuestion {
            flag,
            words,
            default: Some(String::new()),
        };
        self.value(&question, given, |text| {
            if text.is_empty() && given.is_none() {
                return Ok(None);
            }
            read(text).map(Some)
        })
    }

    /// Whether a flag is meant that has no value.
    pub(super) fn yes(self, given: bool, words: &str) -> Result<bool, CommandError> {
        if given || !self.asks {
            return Ok(given);
        }
        let question = FlagQuestion {
            flag: "",
            words,
            default: Some("n".to_owned()),
        };
        self.value(&question, None, |text| {
            match text.to_ascii_lowercase().as_str() {
                "y" | "yes" => Ok(true),
                "n" | "no" => Ok(false),
                _ => Err("y or n?".to_owned()),
            }
        })
    }

    /// Something secret, which is not shown while it is typed.
    pub(super) fn secret(self, flag: &str, words: &str) -> Result<Secret, CommandError> {
        if !self.asks {
            return Err(missing(flag));
        }
        loop {
            let typed = Secret::new(rpassword::prompt_password(format!("{words}: "))?);
            match typed.reveal() {
                "" => {}
                text if text.len() as u64 > LONGEST || text.chars().any(char::is_control) => {
                    output::complain(
                        "this cannot be it: it is too long, or holds a control character",
                    );
                }
                _ => return Ok(typed),
            }
        }
    }
}

/// A line of standard input without its end; nothing where it has ended.
pub(super) fn next_line() -> Result<Option<String>, CommandError> {
    let mut octets = Vec::new();
    io::stdin()
        .lock()
        .take(LONGEST)
        .read_until(b'\n', &mut octets)?;
    if octets.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&octets);
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn asked(question: &FlagQuestion<'_>) -> Result<String, CommandError> {
    let default = match question.default.as_deref() {
        None => String::new(),
        Some("") => " []".to_owned(),
        Some(default) => format!(" [{}]", shown(default)),
    };
    let mut err = io::stderr().lock();
    write!(err, "{}{default}: ", question.words)?;
    err.flush()?;
    drop(err);
    next_line()?.ok_or_else(|| {
        output::complain("");
        CommandError::new(
            Exit::Usage,
            "nothing more was said, and nothing was written",
        )
    })
}

fn missing(flag: &str) -> CommandError {
    CommandError::new(
        Exit::Usage,
        format_args!("{flag} is missing, and nobody can be asked here; nothing was written"),
    )
}

/// The flag of a value that cannot be meant. `why` may not hold the value; it is shown here.
fn refused(flag: &str, given: &str, why: &str) -> CommandError {
    let flag = flag.split(' ').next().unwrap_or_default();
    CommandError::new(
        Exit::Usage,
        format_args!("{flag} {}: {}", shown(given), shown(why)),
    )
}
