//! `postern completions SHELL`: the completion script of a shell, made from the same definition as `--help`. Needs no config.

use super::exit::{Ended, Exit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments, mut command: clap::Command) -> Ended {
    // Collected first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "postern", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Exit::Ok)
}
