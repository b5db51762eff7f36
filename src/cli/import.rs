//! `postern import`: the configuration of Postfix, of the SMTP service of IIS, of smtp2graph or of msmtp as one of ours.
//!
//! Files are read here, within bounds; what becomes of them is decided below `import/`, which opens nothing. The new configuration goes to
//! standard output, what was left out and why to standard error as well. No secret is printed, and no file is overwritten.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use argon2::{Argon2, PasswordHasher as _};

use super::{
    exit::{CommandError, Ended, Exit},
    output,
};
use crate::{
    config::{self, Environment, Secrets, Severity},
    mail::text::shown,
    secret::Secret,
};
use draft::ImportDraft;
use files::{NamedFiles, SourceFile};
use note::{NotUnderstood, NoteKind};
use render::RenderAround;

mod draft;
mod files;
mod finish;
mod iis;
mod msmtp;
mod note;
mod postfix;
mod render;
mod smarthost;
mod smtp2graph;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

/// A larger file is no configuration.
const LARGEST: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose configuration it is
    #[arg(value_enum)]
    program: ImportedProgram,
    /// Its files: main.cf and master.cf, MetaBase.xml, config.yml, msmtprc
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where the files that it names lie, as if that were `/`
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Write passwords into files of this directory [default: say which are needed]
    #[arg(long, value_name = "DIRECTORY")]
    secrets: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ImportedProgram {
    /// main.cf, and master.cf beside it
    Postfix,
    /// MetaBase.xml, where the SMTP service of IIS keeps its settings
    Iis,
    /// config.yml
    Smtp2graph,
    /// msmtprc, the one of the system before that of a user
    Msmtp,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    let disk = Disk::new(arguments)?;
    let mut draft = drafted(arguments, &disk)?;
    let around = RenderAround {
        secrets: match &arguments.secrets {
            Some(directory) => Some(text_of(&absolute(directory)?, "--secrets")?),
            None => None,
        },
        hashes: hashes(&draft)?,
    };
    finish::finish(&mut draft, &around);
    if let Some(directory) = &arguments.secrets {
        write_secrets(directory, &draft)?;
    }
    let text = checked(&mut draft, &around);
    for line in draft.notes.lines() {
        output::complain(line);
    }
    output::lines(text.as_bytes())?;
    Ok(if draft.notes.any_decides() {
        Exit::No
    } else {
        Exit::Ok
    })
}

fn drafted(arguments: &Arguments, disk: &Disk) -> Result<ImportDraft, CommandError> {
    let sources = arguments
        .files
        .iter()
        .map(|path| source(path))
        .collect::<Result<Vec<SourceFile>, CommandError>>()?;
    let only = || match sources.as_slice() {
        [one] => Ok(one),
        _ => Err(CommandError::new(
            Exit::Usage,
            "it has one file: name that one alone",
        )),
    };
    let made = match arguments.program {
        ImportedProgram::Postfix => {
            let (main, master) = postfix_files(arguments, sources)?;
            let directory = disk.directory.clone();
            postfix::import(&main, master.as_ref(), &directory, disk)
        }
        ImportedProgram::Iis => iis::import(only()?),
        ImportedProgram::Smtp2graph => smtp2graph::import(only()?, disk),
        ImportedProgram::Msmtp => msmtp::import(&sources, disk),
    };
    made.map_err(|fault| not_understood(arguments, &fault))
}

fn not_understood(arguments: &Arguments, fault: &NotUnderstood) -> CommandError {
    let first = arguments
        .files
        .first()
        .map_or_else(String::new, |path| shown(&path.to_string_lossy()));
    let at = match &fault.place {
        Some(place) if place.file.is_some() => shown(&place.to_string()),
        Some(place) => format!("{first}: {place}"),
        None => first,
    };
    CommandError::new(Exit::Data, format_args!("{at}: {}", shown(&fault.why)))
}

/// main.cf, and the master.cf that was named, or that lies beside it.
fn postfix_files(
    arguments: &Arguments,
    sources: Vec<SourceFile>,
) -> Result<(SourceFile, Option<SourceFile>), CommandError> {
    let (mut masters, mut mains): (Vec<SourceFile>, Vec<SourceFile>) =
        sources.into_iter().partition(|source| {
            source
                .label
                .rsplit('/')
                .next()
                .is_some_and(|name| name.contains("master"))
        });
    let (Some(main), true, true) = (mains.pop(), mains.is_empty(), masters.len() < 2) else {
        return Err(CommandError::new(
            Exit::Usage,
            "Postfix has one main.cf and one master.cf: name the first, or both",
        ));
    };
    if masters.is_empty()
        && let [path] = arguments.files.as_slice()
        && path.file_name().is_some_and(|name| name == "main.cf")
    {
        let beside = path.with_file_name("master.cf");
        if beside.is_file() {
            let mut master = source(&beside)?;
            "master.cf".clone_into(&mut master.label);
            masters.push(master);
        }
    }
    Ok((main, masters.pop()))
}

fn source(path: &Path) -> Result<SourceFile, CommandError> {
    let label = path.to_string_lossy().into_owned();
    let octets = read(path).map_err(|why| match why {
        Unreadable::TooLarge => {
            CommandError::new(Exit::Data, format_args!("{}: {why}", shown(&label)))
        }
        _ => CommandError::new(
            Exit::NoInput,
            format_args!("cannot read {}: {why}", shown(&label)),
        ),
    })?;
    Ok(SourceFile {
        label,
        text: decoded(&octets),
    })
}

/// UTF-8, with or without its mark, or UTF-16 with one, as Windows' programs write it. What is neither is a replacement character,
/// which no value may hold.
fn decoded(octets: &[u8]) -> String {
    let wide = |order: fn([u8; 2]) -> u16, rest: &[u8]| {
        let units: Vec<u16> = rest.as_chunks().0.iter().map(|pair| order(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match octets {
        [0xff, 0xfe, rest @ ..] => wide(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => wide(u16::from_be_bytes, rest),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than 16 MiB, which no configuration is")]
    TooLarge,
}

/// A regular file, to a bound. It is not waited for: a pipe that nobody writes to is none.
fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Unreadable::NotRegular);
    }
    let mut octets = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LARGEST {
        return Err(Unreadable::TooLarge);
    }
    Ok(octets)
}

/// The files of this machine.
struct Disk {
    /// What `/` is in the files that are read.
    root: Option<PathBuf>,
    /// What relative names are relative to.
    base: PathBuf,
    /// The directory of the first file, as the old system called it.
    directory: String,
}

impl Disk {
    fn new(arguments: &Arguments) -> Result<Self, CommandError> {
        let first = arguments
            .files
            .first()
            .map_or(Path::new("."), PathBuf::as_path);
        let base = absolute(first)?
            .parent()
            .unwrap_or(Path::new("/"))
            .to_owned();
        let root = arguments.root.as_deref().map(absolute).transpose()?;
        let below = root.as_ref().and_then(|root| base.strip_prefix(root).ok());
        let directory = match below {
            Some(below) => Path::new("/").join(below),
            None => base.clone(),
        };
        Ok(Self {
            root,
            directory: directory.to_string_lossy().into_owned(),
            base,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        let name = match (name.strip_prefix("~/"), std::env::var_os("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(name),
        };
        match (&self.root, name.strip_prefix("/")) {
            (Some(root), Ok(below)) => root.join(below),
            _ => self.base.join(name),
        }
    }
}

impl NamedFiles for Disk {
    fn text(&self, name: &str) -> Result<String, String> {
        if name.is_empty() || name.contains('\0') {
            return Err("this is no path".to_owned());
        }
        let path = self.path(name);
        match read(&path) {
            Ok(octets) => Ok(decoded(&octets)),
            Err(why) => Err(format!("{} cannot be read: {why}", path.display())),
        }
    }

    fn pem(&self, name: &str, mark: &str) -> Result<String, String> {
        let text = self.text(name)?;
        let path = self.path(name);
        if !text.contains(mark) {
            return Err(format!("{} holds none in PEM form", path.display()));
        }
        let path = path.to_string_lossy().into_owned();
        if words::is_fine(&path) {
            Ok(path)
        } else {
            Err("its name cannot be written".to_owned())
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| {
        CommandError::new(
            Exit::Usage,
            format_args!("{}: {error}", shown(&path.to_string_lossy())),
        )
    })
}

fn text_of(path: &Path, option: &str) -> Result<String, CommandError> {
    let text = path.to_string_lossy().into_owned();
    if words::is_fine(&text) {
        return Ok(text);
    }
    Err(CommandError::new(
        Exit::Usage,
        format_args!("{option} {}: this name cannot be written", shown(&text)),
    ))
}

fn hashes(draft: &ImportDraft) -> Result<Vec<String>, CommandError> {
    let hash = |secret: &Secret| {
        Argon2::default()
            .hash_password(secret.reveal().as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| CommandError::new(Exit::Software, error))
    };
    draft
        .users
        .iter()
        .map(|user| hash(&user.password))
        .collect()
}

/// The text, and in its notes whatever `check` would refuse of it all the same.
fn checked(draft: &mut ImportDraft, around: &RenderAround) -> String {
    let text = render::render(draft, around);
    let secrets = if around.secrets.is_some() {
        Secrets::CheckOnly
    } else {
        Secrets::Ignore
    };
    let Err(found) = config::parse(
        &text,
        Path::new("config.toml"),
        secrets,
        &Environment::of_process(),
    ) else {
        return text;
    };
    for one in found.iter().filter(|one| one.severity == Severity::Error) {
        let problem = one.problem();
        draft.notes.add(
            NoteKind::Decides,
            "what stands below",
            None,
            format!("`postern check` refuses it: {}", problem.message),
        );
    }
    render::render(draft, around)
}

/// Each secret into a file of its own. One that is there already with the same in it stays; with anything else nothing is written.
fn write_secrets(directory: &Path, draft: &ImportDraft) -> Result<(), CommandError> {
    let cannot = |path: &Path, error: &dyn std::fmt::Display| {
        CommandError::new(
            Exit::CannotCreate,
            format_args!("cannot write {}: {error}", shown(&path.to_string_lossy())),
        )
    };
    let secrets = draft.secrets();
    if secrets.is_empty() {
        return Ok(());
    }
    let mut new = Vec::new();
    for (file, secret, ..) in &secrets {
        let path = directory.join(file);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => new.push((path, *secret)),
            Err(error) => return Err(cannot(&path, &error)),
            Ok(_) => {
                let same = read(&path)
                    .is_ok_and(|octets| octets == format!("{}\n", secret.reveal()).into_bytes());
                if !same {
                    return Err(cannot(&path, &"it exists, and something else is in it"));
                }
            }
        }
    }
    fs::create_dir_all(directory).map_err(|error| cannot(directory, &error))?;
    let mut made: Vec<PathBuf> = Vec::new();
    for (path, secret) in new {
        if let Err(error) = write_secret(directory, &path, secret) {
            // All of them, or none.
            for path in made {
                let _ = fs::remove_file(path);
            }
            return Err(cannot(&path, &error));
        }
        made.push(path);
    }
    Ok(())
}

/// For its owner alone; in a directory of the service's group, as `/etc/postern` is, for that group as well.
fn write_secret(directory: &Path, path: &Path, secret: &Secret) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all(format!("{}\n", secret.reveal()).as_bytes())
        .and_then(|()| {
            let around = fs::metadata(directory)?;
            let is_shared = around.mode() & 0o077 == 0o050;
            if rustix::process::geteuid().is_root() && around.gid() != 0 && is_shared {
                rustix::fs::fchown(&file, None, rustix::fs::Gid::from_raw(around.gid()).into())?;
                file.set_permissions(fs::Permissions::from_mode(0o640))?;
            }
            file.sync_all()
        });
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}
