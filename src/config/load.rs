//! From a file to checked settings, or to everything that is wrong with it.
//!
//! What the file says is read by `sections`; this is the file itself, its text and who may see it.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::{
    diagnostic::{self, Diagnostic, Diagnostics, Severity},
    edit,
    file::{LARGEST, read_bounded, readable_by_others},
    sections,
    settings::{Config, Environment, Secrets},
    source::Source,
    values::{self, Fault, fault},
};
use crate::{admin::settings::WriteConfig, queue};

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
        Diagnostics::new(source.finish())
    };
    let octets = read_bounded(path, LARGEST).map_err(|why| {
        refuse(fault!("cannot be read: {why}"; "name another file with -c FILE or $POSTERN_CONFIG; `postern demo` needs none"))
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
        refuse(fault!("line {line} is not UTF-8"; "save the file as UTF-8"))
    })?;
    let (config, mut notes) = parse(&text, path, secrets, &Environment::of_process())?;
    if let Some(hint) = readable_by_others(path) {
        let source = Source::new(path, &text);
        source.whole(
            Severity::Warning,
            Fault::new("every user of this machine can read this file", hint),
        );
        notes.extend(source.finish());
    }
    if secrets != Secrets::Ignore
        && let Some(kind) = queue::network_disk(&config.data_dir)
    {
        let source = Source::new(path, &text);
        source.whole(
            Severity::Warning,
            Fault::new(
                format!("data_dir {} is on {kind}", config.data_dir.display()),
                "a queue needs a disk of this machine: what another one says is written or locked need not be",
            ),
        );
        notes.extend(source.finish());
    }
    if secrets != Secrets::Ignore
        && let Some(window) = &config.window
        && window.write_config == WriteConfig::Write
        && let Err(why) = edit::writable_for(path, &config.data_dir)
    {
        let source = Source::new(path, &text);
        source.whole(
            Severity::Note,
            Fault::new(
                format!(
                    "the page cannot change this file, though `write_config` is \"write\": {why}"
                ),
                "its changes stay proposals, which `postern config apply ID` writes",
            ),
        );
        notes.extend(source.finish());
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
        notes.extend(source.finish());
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
    let (config, found) = read(text, path, secrets, env);
    match config {
        Some(config) if found.iter().all(|d| d.severity != Severity::Error) => {
            let mut found = found;
            diagnostic::sort(&mut found);
            Ok((config, found))
        }
        _ => Err(Diagnostics::new(found)),
    }
}

fn read(
    text: &str,
    path: &Path,
    secrets: Secrets,
    env: &Environment,
) -> (Option<Config>, Vec<Diagnostic>) {
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
    (config.flatten(), source.finish())
}
