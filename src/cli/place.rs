//! Where a command finds the queue, and who holds it: `data_dir` and its lock.
//!
//! The operator's commands need `data_dir` alone, so that a mistake in the file does not blind the person who is to mend it;
//! `settings` wants the whole file to be valid. Nothing is started or stopped here.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    exit::{CommandError, Exit},
    output,
};
use crate::{
    config::{self, Config, Diagnostics, Secrets, cluster::StoreSettings},
    gateway::{RunError, cluster, report::site::Site},
    mail::text::shown,
    queue::{
        self,
        lock::{self, Holder},
        store::{Store, StoreError},
    },
};

/// Where the queue is, for a command that needs nothing else of the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Where {
    /// Where the queue is, instead of the configuration's `data_dir` [default: what the file says, even if it has errors]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

/// The queue's directory, and what the file says beside it.
#[derive(Debug)]
pub(super) struct QueuePlace {
    /// The configuration file.
    pub(super) path: PathBuf,
    pub(super) data_dir: PathBuf,
    /// The settings, when the file is right and is about this directory.
    pub(super) config: Option<Config>,
    /// What is wrong with the file.
    pub(super) problems: Option<Diagnostics>,
}

impl Where {
    /// Finds it.
    pub(super) fn find(&self, path: Option<PathBuf>) -> Result<QueuePlace, CommandError> {
        let path = config::find(path);
        let glance = config::glance(&path);
        let (config, problems) = match glance.loaded {
            Ok((config, _)) => (Some(config), None),
            Err(problems) => (None, Some(problems)),
        };
        let Some(data_dir) = self.data_dir.clone() else {
            return match (glance.data_dir, problems) {
                (Some(data_dir), problems) => Ok(QueuePlace {
                    path,
                    data_dir,
                    config,
                    problems,
                }),
                (None, problems) => Err(CommandError::new(
                    Exit::Config,
                    format_args!(
                        "{}this file does not say where the queue is: name its directory with --data-dir DIR",
                        problems.map(|p| p.to_string()).unwrap_or_default()
                    ),
                )),
            };
        };
        // A file about another directory says nothing about this one, and one that is not there nothing at all.
        let is_ours = glance.data_dir.is_some_and(|found| same(&found, &data_dir));
        Ok(QueuePlace {
            path,
            data_dir,
            config: config.filter(|_| is_ours),
            problems: problems.filter(|_| is_ours),
        })
    }
}

/// Whether two paths lead to one directory.
fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

impl QueuePlace {
    /// The store, if there is one yet. That of a gateway among others is in a database, which only the file can name; where that is away, it is
    /// what lies here meanwhile.
    pub(super) fn store(&self) -> Result<Option<Arc<dyn Store>>, CommandError> {
        match (&self.config, &self.problems) {
            (Some(config), _) if matches!(config.store, StoreSettings::Postgres(..)) => {
                let (config, _) = config::load(&self.path, Secrets::Resolve)
                    .map_err(|problems| CommandError::new(Exit::Config, problems))?;
                store_of(&config)
            }
            (None, Some(problems)) if is_shared(&self.data_dir) => Err(CommandError::new(
                Exit::Config,
                format_args!(
                    "{problems}the queue is in a database, and this file says where that is: mend it first"
                ),
            )),
            _ => store(&self.data_dir),
        }
    }

    /// As [`QueuePlace::store`], where a queue is needed.
    pub(super) fn existing_store(&self) -> Result<Arc<dyn Store>, CommandError> {
        self.store()?.ok_or_else(|| no_queue(&self.data_dir))
    }

    /// It, and who runs there.
    pub(super) fn site(&self) -> Result<Site<'_>, CommandError> {
        Ok(Site {
            data_dir: &self.data_dir,
            config: self.config.as_ref(),
            problems: self.problems.as_ref(),
            running: running(&self.data_dir)?,
            now: output::now(),
        })
    }
}

/// Whether the gateway of this directory shared its queue with others, as far as the directory knows.
fn is_shared(data_dir: &Path) -> bool {
    data_dir.join("node").exists()
}

/// The store of these settings, whose secrets are there.
pub(super) fn store_of(config: &Config) -> Result<Option<Arc<dyn Store>>, CommandError> {
    if matches!(config.store, StoreSettings::Sqlite) {
        return store(&config.data_dir);
    }
    let place =
        cluster::place(config, false).map_err(|why| CommandError::new(Exit::Config, why))?;
    // Its connections are tasks, which live as long as the command.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(Exit::System, error))?;
    let opened = runtime.block_on(queue::open(place));
    std::mem::forget(runtime);
    opened.map(Some).map_err(|fault| {
        let RunError { code, text } = fault.into();
        CommandError { code, text }
    })
}

/// What the gateway of this directory says of itself, if there is anything yet: a command that only looks must not create it. Of a gateway alone
/// it is the queue as well.
pub(super) fn store(data_dir: &Path) -> Result<Option<Arc<dyn Store>>, CommandError> {
    if !queue::exists(data_dir).map_err(|error| unreadable(data_dir, &error))? {
        return Ok(None);
    }
    let store = queue::open_local(&queue::Settings {
        data_dir: data_dir.to_owned(),
        // How long things are kept is the gateway's business.
        keep_failed: Duration::MAX,
        keep_history: Duration::MAX,
    })
    .map_err(|error| {
        let exit = if matches!(error, StoreError::Newer(_)) {
            Exit::Config
        } else {
            Exit::Unavailable
        };
        CommandError::new(
            exit,
            format_args!("cannot open the queue in {}: {error}", data_dir.display()),
        )
    })?;
    Ok(Some(store))
}

/// As [`store`], where a queue is needed.
pub(super) fn existing_store(data_dir: &Path) -> Result<Arc<dyn Store>, CommandError> {
    store(data_dir)?.ok_or_else(|| no_queue(data_dir))
}

fn no_queue(data_dir: &Path) -> CommandError {
    CommandError::new(
        Exit::NoInput,
        format_args!(
            "there is no queue in {} yet: no gateway has ever run there",
            data_dir.display()
        ),
    )
}

fn unreadable(directory: &Path, error: &std::io::Error) -> CommandError {
    let exit = if error.kind() == ErrorKind::PermissionDenied {
        Exit::Refused
    } else {
        Exit::Io
    };
    CommandError::new(
        exit,
        format_args!("cannot look into {}: {error}", directory.display()),
    )
}

/// How a command ends that has shown what a store has: where its database is away, it was what lies here, and nobody may take that for all.
pub(super) fn ended(store: &dyn Store) -> Exit {
    let away = store.remote().and_then(|remote| remote.away);
    let Some((_, why)) = away else {
        return Exit::Ok;
    };
    output::complain(format_args!(
        "the database is away ({}); this is what is spilled here",
        shown(&why)
    ));
    Exit::Unavailable
}

/// Who holds `data_dir`, if anybody does.
pub(super) fn running(data_dir: &Path) -> Result<Option<Holder>, CommandError> {
    lock::holder(data_dir).map_err(|error| unreadable(data_dir, &error))
}
