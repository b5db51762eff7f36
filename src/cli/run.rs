//! `postern run`: the gateway in the foreground. It prints nothing but its log.

use std::path::PathBuf;

use super::exit::{CommandError, Ended, Exit};
use crate::{config, gateway};

pub(super) fn run(config: Option<PathBuf>) -> Ended {
    match gateway::run(config::find(config)) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(CommandError {
            code: error.code,
            text: error.text,
        }),
    }
}
