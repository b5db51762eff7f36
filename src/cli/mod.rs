//! The commands: one file each, argv in, exit status out.
//!
//! Only here is anything printed, and only here may everything below be known. A command holds no rule of its own: it asks the
//! same policy, router, store and connectors that the gateway uses.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, error::ContextValue};

use crate::mail::text::shown;
use exit::{Ended, Exit};

pub mod exit;
pub mod output;

mod admin;
mod asking;
mod audited;
mod capture;
mod cert;
mod check;
mod completions;
mod config;
mod connector;
mod credentials;
mod database;
mod demo;
mod devices;
mod dkim;
mod doctor;
mod elsewhere;
mod explain;
mod handover;
mod harden;
mod health;
mod import;
mod incident;
mod learn;
mod man;
mod password;
mod place;
mod prepare;
mod proposals;
mod queue;
mod reload;
mod run;
mod send;
mod sendmail;
mod services;
mod setup;
mod status;
mod synonyms;
mod test;
mod trace;

/// A local SMTP relay gateway: accepts mail from anything, keeps it safe on disk, and sends it out through a smarthost.
#[derive(Debug, Parser)]
#[command(
    name = "postern",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Arguments {
    /// The configuration file [default: $POSTERN_CONFIG, else /etc/postern/config.toml]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the gateway in the foreground
    Run,
    /// Check the configuration; with --connect also log in at every connector
    Check(check::Arguments),
    /// Look at everything between this machine and a mail that leaves, step by step
    Doctor(doctor::Arguments),
    /// Show which rule accepts or refuses a sender and recipient, and which route the mail would take
    Explain(explain::Arguments),
    /// Send one message through a connector now and print the conversation
    Test(test::Arguments),
    /// Show whether the gateway is running, and what needs attention
    Status(status::Arguments),
    /// Say whether the gateway lives, by its exit status: for a container's probe
    Health(health::Arguments),
    /// Look at the queue and act on it, whether or not the gateway runs
    Queue(queue::Arguments),
    /// Stop a connector, whether or not the gateway runs, and start it again
    Connector(connector::Arguments),
    /// List what ends, and replace the certificate of an application or take it out of the queue
    Credentials(credentials::Arguments),
    /// List who has connected
    Devices(devices::Arguments),
    /// Serve the unknown devices of a private network for a time, to see who there is
    Learn(learn::Arguments),
    /// Print the conversations with a client address as they come
    Capture(capture::Arguments),
    /// Show the life of a message, one line per event
    Trace(trace::Arguments),
    /// Send Markdown from standard input as text and HTML, through the gateway
    Send(send::Arguments),
    /// A drop-in for the sendmail program (also when called by that name)
    #[command(disable_help_flag = true, after_help = sendmail::HELP)]
    Sendmail {
        /// As sendmail takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show what needs somebody and who was told, say that somebody looks after it, test a channel
    Incident(incident::Arguments),
    /// List the well-known services that a connector can name
    Services(services::Arguments),
    /// Hash a password for a [[user]]
    HashPassword,
    /// Make a private CA and a certificate for the listeners
    Cert(cert::Arguments),
    /// Make a key that signs mail (DKIM), and print the records that publish the configured ones
    Dkim(dkim::Arguments),
    /// Write a configuration that works for Exchange Online, Gmail or a smarthost
    Setup(setup::Arguments),
    /// Make a configuration from that of Postfix, IIS, smtp2graph or msmtp
    Import(import::Arguments),
    /// Describe the configuration file for an editor; show and apply what was proposed at the page
    Config(config::Arguments),
    /// Check the configuration, then have the running gateway read it again
    Reload,
    /// Show everything at work in a temporary directory: no account, no network
    Demo(demo::Arguments),
    /// Log in at the page, log everybody out, make a token
    Admin(admin::Arguments),
    /// Print completions for a shell
    Completions(completions::Arguments),
    /// Print the manual page
    Man(man::Arguments),
}

/// The program.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    harden::harden();
    match dispatch(argv) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            if !failure.text.is_empty() {
                output::complain(format_args!("{}", failure.text.trim_end()));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The words of the command line that an error quotes, as a terminal may show them.
fn show(error: &mut clap::Error) {
    let words: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(word) => Some((kind, ContextValue::String(shown(word)))),
            ContextValue::Strings(words) => {
                let words = words.iter().map(|word| shown(word)).collect();
                Some((kind, ContextValue::Strings(words)))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in words {
        error.insert(kind, value);
    }
}

fn dispatch(argv: Vec<OsString>) -> Ended {
    let called = argv.first().map(PathBuf::from);
    if called.as_deref().and_then(Path::file_name) == Some("sendmail".as_ref()) {
        return sendmail::main(None, argv.get(1..).unwrap_or_default());
    }
    // sendmail's options cannot be told to clap (`-oi`, `-fADDRESS`), so its part of the line is cut off first.
    if let Some((config, rest)) = sendmail::cut(&argv) {
        return sendmail::main(config, rest);
    }
    let arguments = match Arguments::try_parse_from(argv) {
        Ok(arguments) => arguments,
        Err(mut error) => {
            synonyms::explain(&mut error);
            show(&mut error);
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            // If the reader has gone, that is no failure of ours.
            let _ = error.print();
            return Ok(exit);
        }
    };
    let config = arguments.config;
    match arguments.command {
        CliCommand::Run => run::run(config),
        CliCommand::Check(arguments) => check::run(config, &arguments),
        CliCommand::Doctor(arguments) => doctor::run(config, &arguments),
        CliCommand::Explain(arguments) => explain::run(config, &arguments),
        CliCommand::Test(arguments) => test::run(config, &arguments),
        CliCommand::Status(arguments) => status::run(config, &arguments),
        CliCommand::Health(arguments) => health::run(config, &arguments),
        CliCommand::Queue(arguments) => queue::run(config, arguments),
        CliCommand::Connector(arguments) => connector::run(config, arguments),
        CliCommand::Credentials(arguments) => credentials::run(config, arguments),
        CliCommand::Devices(arguments) => devices::run(config, &arguments),
        CliCommand::Learn(arguments) => learn::run(config, &arguments),
        CliCommand::Capture(arguments) => capture::run(config, &arguments),
        CliCommand::Trace(arguments) => trace::run(config, &arguments),
        CliCommand::Send(arguments) => send::run(config, &arguments),
        CliCommand::Sendmail { arguments } => sendmail::main(config, &arguments),
        CliCommand::Incident(arguments) => incident::run(config, arguments),
        CliCommand::Services(arguments) => services::run(&arguments),
        CliCommand::HashPassword => password::run(),
        CliCommand::Cert(arguments) => cert::run(&arguments),
        CliCommand::Dkim(arguments) => dkim::run(config, arguments),
        CliCommand::Setup(arguments) => setup::run(config, &arguments),
        CliCommand::Import(arguments) => import::run(&arguments),
        CliCommand::Config(arguments) => config::run(config, &arguments),
        CliCommand::Reload => reload::run(config),
        CliCommand::Demo(arguments) => demo::run(&arguments),
        CliCommand::Admin(arguments) => admin::run(config, arguments),
        CliCommand::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        CliCommand::Man(arguments) => man::run(&arguments, Arguments::command()),
    }
}
