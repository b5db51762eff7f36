//! TEXT TO SETTINGS: one file, read once, into each module's own checked settings.
//!
//! Apart, and above everything it builds, so that nobody below has heard of TOML, environment variables or files. It
//! reports every problem in one run and starts nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use crate::{
    connector, delivery, listener,
    mail::address::{Address, Domain},
    policy::Policy,
    queue,
    route::{ConnectorName, Router},
    secret::Secret,
    telemetry,
};

pub mod diagnostic;
mod glance;
mod sections;
mod source;
mod table;
pub mod values;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use glance::{Glance, glance};
use source::Source;
use values::Fault;

/// A file that is larger is not a configuration.
const LARGEST: u64 = 8 << 20;

/// Each module's own settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Banner, EHLO, Received.
    pub hostname: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Completes bare names.
    pub default_domain: Option<Domain>,
    /// `[log]`.
    pub log: telemetry::Settings,
    /// `[limits]`, connections.
    pub limits: listener::Limits,
    /// `limits.message_size`.
    pub message_size: u64,
    /// `limits.recipients`.
    pub recipients: usize,
    /// `limits.session_errors`.
    pub session_errors: u32,
    /// `[[listener]]`.
    pub listeners: Vec<listener::Settings>,
    /// `[[client]] [[user]] [allowlist] [[rewrite]]`.
    pub policy: Policy,
    /// `[[route]]`.
    pub router: Router,
    /// `[[connector]]`.
    pub connectors: Vec<connector::Settings>,
    /// `[queue]`.
    pub queue: queue::Settings,
    /// `[bounce]`, in-doubt wait.
    pub delivery: delivery::Settings,
    /// `bounce.from`.
    pub bounce_from: Address,
    /// Secrets, certificates and keys that were read from files: when one changes, the configuration has.
    pub files: Vec<PathBuf>,
    /// Those of them that a connector was given.
    pub connector_files: BTreeMap<ConnectorName, Vec<PathBuf>>,
    /// The file as it was read, which may hold secrets.
    pub text: Secret,
}

/// What is done about secrets and other files the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// They are needed: `run`, `test`, `check --connect`.
    Resolve,
    /// Something missing is said: `check`.
    CheckOnly,
    /// Not looked at; a secret that is not in the file itself is empty.
    Ignore,
}

/// What the process knows besides the file; a value, so that tests need no process of their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables (those that are UTF-8).
    pub vars: BTreeMap<String, String>,
    /// `$CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials_directory: Option<PathBuf>,
    /// The machine's name.
    pub hostname: String,
}

/// What the machine is called, in full where its own table of names knows that. Nobody on the network is asked.
fn own_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if values::is_full_name(&name) {
        return name;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    values::full_name(&name, &hosts).unwrap_or(name)
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        Self {
            vars: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            hostname: own_name(),
        }
    }
}

/// The file to read: the one given (`-c FILE`), else `$POSTERN_CONFIG`, else `/etc/postern/config.toml`.
pub fn find(explicit: Option<PathBuf>) -> PathBuf {
    explicit
        .or_else(|| {
            std::env::var_os("POSTERN_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        })
        .unwrap_or_else(|| PathBuf::from("/etc/postern/config.toml"))
}

/// Reads and checks a file. Beside the settings: warnings and notes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, secrets: Secrets) -> Result<(Config, Vec<Diagnostic>), Diagnostics> {
    let refuse = |fault: Fault| {
        let source = Source::new(path, "");
        source.whole(Severity::Error, fault);
        Diagnostics::new(source.finish().0)
    };
    let octets = read_bounded(path, LARGEST).map_err(|why| {
        refuse(Fault::new(
            format!("cannot be read: {why}"),
            "name another file with -c FILE or $POSTERN_CONFIG; `postern demo` needs none",
        ))
    })?;
    let text = String::from_utf8(octets).map_err(|why| {
        let octets = why.as_bytes();
        let line = memchr::memchr_iter(
            b'\n',
            octets
                .get(..why.utf8_error().valid_up_to())
                .unwrap_or_default(),
        )
        .count()
            + 1;
        refuse(Fault::new(
            format!("line {line} is not UTF-8"),
            "save the file as UTF-8",
        ))
    })?;
    let (config, mut notes) = parse(&text, path, secrets, &Environment::of_process())?;
    if let Some(hint) = readable_by_others(path) {
        let source = Source::new(path, &text);
        source.whole(
            Severity::Warning,
            Fault::new("every user of this machine can read this file", hint),
        );
        notes.extend(source.finish().0);
    }
    if secrets != Secrets::Ignore
        && let Some(hint) = readable_by_others(&config.data_dir)
    {
        let source = Source::new(path, &text);
        let shown = values::plain(&config.data_dir.to_string_lossy());
        source.whole(
            Severity::Warning,
            Fault::new(
                format!("every user of this machine can look into {shown}, where the mail is kept"),
                hint,
            ),
        );
        notes.extend(source.finish().0);
    }
    Ok((config, notes))
}

/// The same settings again, with what their files hold now; the file they stand in is not read.
///
/// # Errors
/// Everything that is wrong with them now.
pub fn again(config: &Config) -> Result<(Config, Vec<Diagnostic>), Diagnostics> {
    parse(
        config.text.reveal(),
        &config.path,
        Secrets::Resolve,
        &Environment::of_process(),
    )
}

/// Checks a text as if it stood in the file `path`, which need not exist.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    path: &Path,
    secrets: Secrets,
    env: &Environment,
) -> Result<(Config, Vec<Diagnostic>), Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (config, found, _) = read(text, path, secrets, env);
    match config {
        Some(config) if found.iter().all(|d| d.severity != Severity::Error) => {
            let mut found = found;
            diagnostic::sort(&mut found);
            Ok((config, found))
        }
        _ => Err(Diagnostics::new(found)),
    }
}

/// Every key that the sections ask for when they read this text, as `section.key`; the example file is held to it.
pub fn keys(text: &str, env: &Environment) -> Vec<String> {
    let (_, _, asked) = read(text, Path::new("config.toml"), Secrets::Ignore, env);
    asked
        .into_iter()
        .map(|(section, key, _)| format!("{section}.{key}"))
        .collect()
}

fn read(
    text: &str,
    path: &Path,
    secrets: Secrets,
    env: &Environment,
) -> (Option<Config>, Vec<Diagnostic>, source::Asked) {
    let (root, faults) = DeTable::parse_recoverable(text);
    let source = Source::new(path, text);
    // One slip makes many errors behind it; the first is the one to mend.
    let config = if let Some(fault) = faults.first() {
        let said = fault.message();
        source.error(
            &fault.span().unwrap_or(0..0),
            Fault {
                message: format!("{}{}", diagnostic::NOT_TOML, values::plain(said)),
                hint: values::toml_hint(said, text, &fault.span().unwrap_or(0..0)),
            },
        );
        None
    } else {
        let base = path.parent().unwrap_or(Path::new(""));
        Some(sections::read(&source, &root, base, secrets, env))
    };
    let (found, asked) = source.finish();
    (config.flatten(), found, asked)
}

/// The `chmod` that helps, when others (mode 007) may do anything with the file.
fn readable_by_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| format!("chmod o-rwx {}", path.display()))
}

/// At most `limit` octets; a directory, a device without end or a larger file is an error.
fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut octets = Vec::new();
    fs::File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        return Err(std::io::Error::other("the file is too large"));
    }
    Ok(octets)
}
