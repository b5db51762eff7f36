//! The files of secrets that came with a request: `data_dir/secrets/NAME.KEY.ID`, for nobody else's eyes.
//!
//! The configuration names them; one that nobody has named for thirty days goes.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    refusal::{EditRefusal, Why},
    render::inside,
};
use crate::{config::secrecy, secret::Secret, view::Operation};

/// How long a file stays that nobody names.
const UNNAMED: Duration = Duration::from_hours(30 * 24);
/// The mark beside such a file: since when.
const MARK: &str = "unnamed";

/// A secret that came with a request.
#[derive(Debug)]
pub(super) struct Fresh {
    /// The file that it goes to.
    pub(super) path: String,
    pub(super) secret: Secret,
}

/// Where they are.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("secrets")
}

/// Takes the secrets out of operations: in their place stands the file that they are to have. What is not written as a secret stays, for
/// the rules to refuse.
pub(super) fn take(
    operations: &[Operation],
    data_dir: &Path,
) -> Result<(Vec<Operation>, Vec<Fresh>), EditRefusal> {
    let directory = std::path::absolute(directory(data_dir))
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned))
        .ok_or_else(|| EditRefusal::new(Why::ReadOnly, "the path of data_dir is not UTF-8"))?;
    let mut operations = operations.to_vec();
    let mut fresh = Vec::new();
    for operation in &mut operations {
        let name = operation.place().1.unwrap_or_default().to_owned();
        let mut put = |section: &str, key: &str, value: &mut Value| {
            in_keys(section, key, value, &mut |key, secret| {
                let name: String = format!("{name}.{key}")
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c))
                    .take(100)
                    .collect();
                let name = name.trim_start_matches('.');
                let path = format!("{directory}/{name}.{}", ulid::Ulid::generate());
                fresh.push(Fresh {
                    path: path.clone(),
                    secret,
                });
                path
            })
        };
        match operation {
            Operation::Set {
                section,
                key,
                value,
                ..
            } => put(section, key, value)?,
            Operation::Add {
                section, values, ..
            } => {
                for (key, value) in values.iter_mut() {
                    put(section, key, value)?;
                }
            }
            _ => {}
        }
    }
    Ok((operations, fresh))
}

/// Puts the path that `file` gives in the place of each secret in a value.
pub(super) fn in_keys(
    section: &str,
    key: &str,
    value: &mut Value,
    file: &mut dyn FnMut(&str, Secret) -> String,
) -> Result<(), EditRefusal> {
    let (above, last) = key.rsplit_once('.').unwrap_or(("", key));
    let section = if above.is_empty() {
        section.to_owned()
    } else {
        inside(section, above)
    };
    if secrecy::is_secret(&section, last) {
        let given = value
            .as_object()
            .filter(|map| map.len() == 1)
            .and_then(|map| map.get("secret")?.as_str());
        match given {
            Some("") => {
                let detail = format!("the secret `{last}` is empty");
                return Err(EditRefusal::new(Why::BadRequest, detail));
            }
            Some(secret) => *value = json!({ "file": file(last, Secret::new(secret)) }),
            None => {}
        }
        return Ok(());
    }
    let below = inside(&section, last);
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                in_keys(&below, key, value, file)?;
            }
        }
        Value::Array(list) => {
            for map in list.iter_mut().filter_map(Value::as_object_mut) {
                for (key, value) in map.iter_mut() {
                    in_keys(&below, key, value, file)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Writes them, each to its own new file. Their owner is that of `data_dir`: a command may run as root where the gateway does not.
pub(super) fn store(fresh: &[Fresh], data_dir: &Path) -> io::Result<()> {
    if fresh.is_empty() {
        return Ok(());
    }
    let owner = fs::metadata(data_dir)?;
    let directory = directory(data_dir);
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    let folder = fs::File::open(&directory)?;
    give(&folder, &owner)?;
    for Fresh { path, secret } in fresh {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        give(&file, &owner)?;
        file.write_all(secret.reveal().as_bytes())?;
        file.sync_all()?;
    }
    folder.sync_all()?;
    fs::File::open(data_dir)?.sync_all()
}

fn give(file: &fs::File, owner: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Deletes the files that have been in nobody's `named` for thirty days; those that went. Only files that are called as ours are.
///
/// # Errors
/// The directory cannot be read; one that is not there is empty.
pub fn forget(
    data_dir: &Path,
    named: &BTreeSet<PathBuf>,
    now: SystemTime,
) -> io::Result<Vec<PathBuf>> {
    let directory = std::path::absolute(directory(data_dir))?;
    let entries = match fs::read_dir(&directory) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut gone = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.extension().and_then(|id| id.to_str());
        if id.is_none_or(|id| ulid::Ulid::from_string(id).is_err()) {
            continue;
        }
        let mark = PathBuf::from(format!("{}.{MARK}", path.display()));
        if named.contains(&path) {
            let _ = fs::remove_file(&mark);
            continue;
        }
        match fs::metadata(&mark).and_then(|mark| mark.modified()) {
            Ok(since) if now.duration_since(since).is_ok_and(|age| age >= UNNAMED) => {
                fs::remove_file(&path)?;
                let _ = fs::remove_file(&mark);
                gone.push(path);
            }
            Ok(_) => {}
            Err(_) => fs::write(&mark, "")?,
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_nobody_names_goes_after_thirty_days() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let id = ulid::Ulid::generate();
            directory(home.path()).join(format!("{name}.password.{id}"))
        };
        let (kept, lost) = (path("kept"), path("lost"));
        let fresh: Vec<_> = [&kept, &lost]
            .map(|path| Fresh {
                path: path.to_str().unwrap().to_owned(),
                secret: Secret::new("hunter2"),
            })
            .into();
        store(&fresh, home.path()).unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "hunter2");
        assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o600);
        let foreign = directory(home.path()).join("mine.txt");
        fs::write(&foreign, "x").unwrap();
        let named = BTreeSet::from([kept.clone()]);
        let now = SystemTime::now();
        let later = now + UNNAMED + Duration::from_mins(1);
        let nothing: [PathBuf; 0] = [];
        assert_eq!(forget(home.path(), &named, now).unwrap(), nothing);
        // It is named once more, and the days begin anew.
        let both = BTreeSet::from([kept.clone(), lost.clone()]);
        assert_eq!(forget(home.path(), &both, later).unwrap(), nothing);
        assert_eq!(forget(home.path(), &named, later).unwrap(), nothing);
        assert_eq!(
            forget(home.path(), &named, later + UNNAMED).unwrap(),
            std::slice::from_ref(&lost)
        );
        assert!(kept.exists() && foreign.exists() && !lost.exists());
    }
}
