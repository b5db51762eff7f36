//! The program: argv in, exit status out. Everything else is `postern::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern::cli::main(std::env::args_os().collect())
}
