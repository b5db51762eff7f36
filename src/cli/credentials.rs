//! `postern credentials`: what ends and when, whether or not the gateway runs; and the certificates that the gateway replaces by itself.
//!
//! It writes no file of the configuration, and overwrites nothing.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{
    asking::Asking,
    audited,
    exit::{CommandError, Ended, Exit},
    output,
    place::{self, Where},
    prepare,
    status::sentence,
};
use crate::{
    config::{Config, Secrets},
    gateway::{
        ends,
        rotated::{RotatedCredential, credentials},
        rotation::{RotationStanding, Rotator},
    },
    mail::{
        text::shown,
        time::{at, day},
    },
    queue::store::Store,
    view::CredentialView,
    window::asked::OperatorWish,
};

/// Between two looks at a certificate that is being replaced.
const LOOK: Duration = Duration::from_millis(500);
/// The directory may need so long to make a new certificate known.
const PATIENCE: Duration = Duration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<CredentialCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum CredentialCommand {
    /// Write the certificate in use and its key into a directory, as NAME.pem and NAME.key
    Export {
        /// The name of a [[connector]]
        connector: String,
        /// Where the files go
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Replace the certificate of an application now, as `rotate = true` does from half of its life on
    Rotate {
        /// The name of a [[connector]]
        connector: String,
    },
}

/// As `--json` prints it.
#[derive(Serialize)]
struct ListedCredentials {
    credentials: Vec<CredentialView>,
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    let config = prepare::settings(path, Secrets::Resolve)?;
    let store = place::store_of(&config)?;
    match arguments.command {
        None => list(&config, store.as_ref(), arguments.json),
        Some(CredentialCommand::Export { connector, to }) => {
            export(&config, store.as_ref(), &connector, &to)
        }
        Some(CredentialCommand::Rotate { connector }) => {
            let place = Where::default().find(Some(config.path.clone()))?;
            let done = rotate(&config, store.as_ref(), &connector);
            // A gateway that runs sees by itself within an hour how far it is.
            if let Ok(asking) = Asking::of(&place) {
                let _ = asking.ask(OperatorWish::Credentials);
            }
            done
        }
    }
}

fn list(config: &Config, store: Option<&Arc<dyn Store>>, json: bool) -> Ended {
    let all = prepare::block_on(async { Ok(ends::all(config, store).await) })?;
    let now = output::now();
    if json {
        let credentials = all.iter().map(|one| CredentialView::of(one, now));
        output::json(&ListedCredentials {
            credentials: credentials.collect(),
        })?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        output::line("nothing that is configured ends on a day that is known")?;
    }
    for one in &all {
        output::line(sentence(one, now))?;
    }
    Ok(Exit::Ok)
}

/// The certificate of a connector.
fn of(config: &Config, connector: &str) -> Result<RotatedCredential, CommandError> {
    let mut all = credentials(config).into_iter();
    let is_it = |one: &RotatedCredential| one.connectors.iter().any(|name| name == connector);
    if let Some(found) = all.find(is_it) {
        return Ok(found);
    }
    let is_there = config
        .connectors
        .iter()
        .any(|settings| settings.name.as_str() == connector);
    let name = shown(connector);
    let why = if is_there {
        format!("connector {name} logs in with no certificate of an application")
    } else {
        format!("there is no connector named {name:?}")
    };
    Err(CommandError::new(Exit::Usage, why))
}

fn export(config: &Config, store: Option<&Arc<dyn Store>>, connector: &str, to: &Path) -> Ended {
    let credential = of(config, connector)?;
    let current = match store {
        None => None,
        Some(store) => {
            let rotator = Rotator::new(config, store);
            prepare::block_on(async {
                let row = rotator.row(&credential).await.map_err(unread)?;
                Ok(row.and_then(|row| row.current))
            })?
        }
    };
    let (certificate, key) = if let Some(pair) = current {
        (pair.certificate, pair.key.reveal().to_owned())
    } else {
        let files = credential.files();
        let (certificate, key) =
            files.ok_or_else(|| CommandError::new(Exit::Usage, "it has no certificate"))?;
        (file(certificate)?, file(key)?)
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(to);
    made.map_err(|error| cannot(to, &error))?;
    let paths = [
        to.join(format!("{connector}.key")),
        to.join(format!("{connector}.pem")),
    ];
    // Both or none.
    for path in &paths {
        if path.symlink_metadata().is_ok() {
            let error = std::io::Error::from(ErrorKind::AlreadyExists);
            return Err(cannot(path, &error));
        }
    }
    for (path, (text, mode)) in paths.iter().zip([(key, 0o600), (certificate, 0o644)]) {
        write(path, &text, mode).map_err(|error| cannot(path, &error))?;
        output::line(shown(&path.display().to_string()))?;
    }
    Ok(Exit::Ok)
}

fn file(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|error| {
        CommandError::new(
            Exit::NoInput,
            format_args!("{} cannot be read: {error}", path.display()),
        )
    })
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn cannot(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(
        Exit::CannotCreate,
        format_args!("{}: {error}", path.display()),
    )
}

fn unread(why: String) -> CommandError {
    CommandError::new(Exit::Unavailable, why)
}

fn rotate(config: &Config, store: Option<&Arc<dyn Store>>, connector: &str) -> Ended {
    let credential = of(config, connector)?;
    if !credential.is_rotated() {
        return Err(CommandError::new(
            Exit::Config,
            format_args!(
                "the certificate of {} is not to be replaced: write rotate = true beside it first, so that the gateway keeps to the new one",
                shown(connector)
            ),
        ));
    }
    let store = store.ok_or_else(|| {
        CommandError::new(
            Exit::NoInput,
            "there is no queue yet, where the new one would be kept: start the gateway first",
        )
    })?;
    let rotator = Rotator::new(config, store);
    let (before, after) = prepare::block_on(async {
        let before = rotator.standing(&credential).await.map_err(unread)?;
        if before.word == "retiring" {
            return Ok((before.clone(), before));
        }
        let after = until_replaced(&rotator, &credential, &before).await?;
        Ok((before, after))
    })?;
    if before.word == "retiring" {
        let next = before.next.map_or_else(String::new, |next| {
            format!("; the one before it is removed on {}", day(at(next)))
        });
        output::complain(format_args!("it was replaced already{next}"));
        return Ok(Exit::No);
    }
    let row = audited::row(
        "rotate",
        &format!("connector {connector}"),
        &format!("credentials rotate {connector}"),
    );
    if after.current == before.current {
        let why = after.why.as_deref().unwrap_or("it is not done yet");
        return Err(CommandError::new(
            Exit::Unavailable,
            format_args!(
                "not replaced, and the one in use stays in use: {}; the gateway goes on with it",
                shown(why)
            ),
        ));
    }
    audited::write(&config.data_dir, row);
    let ends = after.life.map(|life| day(life.ends())).unwrap_or_default();
    output::line(format_args!(
        "{} has a new certificate, which ends {ends}; it is kept in the queue, which belongs into the backup",
        shown(&credential.connectors.join(", "))
    ))?;
    Ok(Exit::Ok)
}

/// Step by step, as long as somebody may wait for it.
async fn until_replaced(
    rotator: &Rotator<'_>,
    credential: &RotatedCredential,
    before: &RotationStanding,
) -> Result<RotationStanding, CommandError> {
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut word = "";
    let mut is_wanted = true;
    loop {
        let standing = rotator
            .advance(credential, is_wanted)
            .await
            .map_err(unread)?;
        if standing.word != word {
            word = standing.word;
            output::line(format_args!("{word}"))?;
        }
        let is_taken = standing.word != before.word || standing.has_failed;
        // Once it is begun it takes its course; before that another process may have been at work.
        is_wanted = is_wanted && !is_taken;
        let is_over = standing.current != before.current || standing.has_failed && !is_wanted;
        if is_over || tokio::time::Instant::now() >= end {
            return Ok(standing);
        }
        tokio::time::sleep(LOOK).await;
    }
}
