//! `postern admin`: the first way in to the page, the way out for all, and tokens for programs.

use std::{path::PathBuf, time::SystemTime};

use super::{
    audited::{self, unwritten, window},
    exit::{CommandError, Ended, Exit},
    output,
    place::Where,
};
use crate::{
    admin::{
        secret_of_a_token,
        settings::{Role, WindowPlace, WindowSettings},
        token_hash,
    },
    window::{
        WindowDb,
        audit::{self, AuditRow},
        sessions::{self, CodeRow},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AdminCommand {
    /// Print a link that logs in at the page: good once, for five minutes
    Login {
        /// viewer looks, operator acts on mail and connectors, admin changes the configuration
        #[arg(long, value_name = "ROLE", default_value = "admin", value_parser = person)]
        role: Role,
    },
    /// End every login at the page
    Logout,
    /// Make a token for a program, and print the section for the configuration
    Token {
        /// Its name
        name: String,
        /// metrics, viewer, operator or admin
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Role,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "metrics, viewer, operator or admin".to_owned())
}

fn person(text: &str) -> Result<Role, String> {
    role(text)
        .ok()
        .filter(|role| *role > Role::Metrics)
        .ok_or_else(|| "viewer, operator or admin".to_owned())
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    let Arguments { place, command } = arguments;
    match command {
        AdminCommand::Token { name, role } => token(&name, role),
        AdminCommand::Login { role } => {
            let place = place.find(path)?;
            let window = window(&place.data_dir)?;
            let settings = place
                .config
                .as_ref()
                .and_then(|config| config.window.as_ref());
            login(&window, settings, role)
        }
        AdminCommand::Logout => {
            let window = window(&place.find(path)?.data_dir)?;
            let row = row("logout", "every session", None);
            let ended = window
                .wait(move |tx| {
                    audit::add(tx, &row, SystemTime::now())?;
                    sessions::end_all(tx)
                })
                .map_err(unwritten)?;
            output::line(format_args!("{ended} logged out"))?;
            Ok(Exit::Ok)
        }
    }
}

fn row(action: &str, object: &str, role: Option<Role>) -> AuditRow {
    AuditRow {
        role: role.map_or("", Role::as_str).to_owned(),
        ..audited::row(action, object, &format!("admin {action}"))
    }
}

fn login(window: &WindowDb, settings: Option<&WindowSettings>, role: Role) -> Ended {
    let (code, hash) = secret_of_a_token()
        .ok_or_else(|| CommandError::new(Exit::Io, "this machine gives no random numbers"))?;
    let made = CodeRow {
        hash,
        name: audited::user(),
        role: role.as_str().to_owned(),
        made: SystemTime::now(),
    };
    let row = row("login", "link", Some(role));
    window
        .wait(move |tx| {
            audit::add(tx, &row, SystemTime::now())?;
            sessions::add_code(tx, &made)
        })
        .map_err(unwritten)?;
    output::line(format_args!("{}/login?code={code}", origin(settings)))?;
    output::complain(format_args!(
        "good once, for five minutes, as {}",
        role.as_str()
    ));
    if settings.is_none() {
        output::complain(format_args!(
            "the configuration has no [admin]: without it the page is not there"
        ));
    }
    Ok(Exit::Ok)
}

/// Where the page is; of a Unix socket the path alone is known.
fn origin(settings: Option<&WindowSettings>) -> String {
    let Some(settings) = settings else {
        return String::new();
    };
    let scheme = if settings.certificate.is_some() {
        "https"
    } else {
        "http"
    };
    match &settings.place {
        WindowPlace::Tcp(address) if address.ip().to_canonical().is_loopback() => {
            format!("{scheme}://{address}")
        }
        WindowPlace::Tcp(address) => format!("{scheme}://{}:{}", settings.hostname, address.port()),
        WindowPlace::Unix(_) | WindowPlace::Inherited(_) => String::new(),
    }
}

fn token(name: &str, role: Role) -> Ended {
    let (token, hash) = secret_of_a_token()
        .ok_or_else(|| CommandError::new(Exit::Io, "this machine gives no random numbers"))?;
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !is_name {
        return Err(CommandError::new(
            Exit::Usage,
            "a name has letters, digits, `.`, `_` and `-`, at most 64",
        ));
    }
    output::line(format_args!(
        "# The token, which is shown this once: {token}"
    ))?;
    output::line("[[admin_token]]")?;
    output::line(format_args!("name = \"{name}\""))?;
    output::line(format_args!("hash = \"{}\"", token_hash(&hash)))?;
    output::line(format_args!("role = \"{}\"", role.as_str()))?;
    Ok(Exit::Ok)
}
