//! `postern man`: one page with every command, or a page each into a directory.

use std::{io::Write as _, path::PathBuf};

use clap_mangen::Man;

use super::exit::{CommandError, Ended, Exit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, command: clap::Command) -> Ended {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    if let Some(directory) = &arguments.dir {
        clap_mangen::generate_to(command, directory).map_err(|error| {
            CommandError::new(
                Exit::CannotCreate,
                format_args!("cannot write to {}: {error}", directory.display()),
            )
        })?;
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    let root = Man::new(command.clone());
    root.render_title(&mut page)?;
    root.render_name_section(&mut page)?;
    root.render_synopsis_section(&mut page)?;
    root.render_description_section(&mut page)?;
    root.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    commands(&command, &mut page)?;
    std::io::stdout().lock().write_all(&page)?;
    Ok(Exit::Ok)
}

/// Every command as a section of its own under one head.
fn commands(parent: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for command in parent.get_subcommands() {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        writeln!(page, ".SS \"{name}\"")?;
        let man = Man::new(command.clone());
        let mut part = Vec::new();
        man.render_description_section(&mut part)?;
        man.render_synopsis_section(&mut part)?;
        man.render_options_section(&mut part)?;
        for line in String::from_utf8_lossy(&part).lines() {
            // Its section heads become paragraphs here, and the preamble stands once at the top.
            match line.strip_prefix(".SH ") {
                Some("DESCRIPTION") => writeln!(page, ".PP")?,
                Some(head) => writeln!(page, ".PP\n\\fI{}\\fR\n.br", head.to_lowercase())?,
                None if line.starts_with(".ie") || line.starts_with(".el") => {}
                None => writeln!(page, "{line}")?,
            }
        }
        commands(command, page)?;
    }
    Ok(())
}
