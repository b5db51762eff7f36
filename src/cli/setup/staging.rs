//! New files, whole or not at all: made in a directory of their own beside their place, and put there by a link, which never
//! replaces anything. It decides nothing about what is in them.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::super::exit::{CommandError, Exit};
use crate::secret::Secret;

/// The group that the gateway runs as, by the package and the unit.
const GROUP: &str = "postern";
/// No table of groups is longer.
const GROUPS: u64 = 8 << 20;

/// Who may see a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The gateway alone: a key, a password.
    Gateway,
    /// The gateway and its group: the configuration.
    Group,
    /// Everybody: a certificate, a script without a secret.
    Everybody,
}

/// A file that is to be made.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) name: String,
    pub(super) content: Secret,
    pub(super) audience: Audience,
}

/// Files that are made, and not yet in their place.
#[derive(Debug)]
pub(super) struct Staging {
    to: PathBuf,
    at: PathBuf,
    names: Vec<String>,
    group: Option<u32>,
    /// The directory was not there before.
    is_new: bool,
}

impl Staging {
    /// For this directory, which is made where it is not there and its parent is.
    pub(super) fn begin(to: &Path) -> Result<Self, CommandError> {
        let to = if to.as_os_str().is_empty() {
            Path::new(".")
        } else {
            to
        };
        let group = gid(Path::new("/etc/group"), GROUP);
        let is_new = !is_there(to);
        if is_new {
            make_directory(to, group).map_err(|why| cannot(to, &why))?;
        }
        // Diagnostics and the check name files by it.
        let to = fs::canonicalize(to).map_err(|why| cannot(to, &why))?;
        let at = to.join(format!(".postern-setup-{}", ulid::Ulid::generate()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&at)
            .map_err(|why| cannot(&at, &why))?;
        Ok(Self {
            to,
            at,
            names: Vec::new(),
            group,
            is_new,
        })
    }

    /// Where a file of that name is for now.
    pub(super) fn find(&self, name: &str) -> String {
        let is_ours = self.names.iter().any(|one| one == name);
        let dir = if is_ours { &self.at } else { &self.to };
        dir.join(name).to_string_lossy().into_owned()
    }

    /// A text about them, with the places where they will be.
    pub(super) fn plain(&self, text: &str) -> String {
        text.replace(&*self.at.to_string_lossy(), &self.to.to_string_lossy())
    }

    /// Makes one.
    pub(super) fn add(&mut self, file: &NewFile) -> Result<(), CommandError> {
        let path = self.at.join(&file.name);
        self.make(&path, file)
            .map_err(|why| cannot(&self.to.join(&file.name), &why))?;
        self.names.push(file.name.clone());
        Ok(())
    }

    fn make(&self, path: &Path, file: &NewFile) -> io::Result<()> {
        let mut made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        made.write_all(file.content.reveal().as_bytes())?;
        // Who is not root, nor of that group, cannot give it to the group.
        let is_theirs = self
            .group
            .is_some_and(|gid| std::os::unix::fs::fchown(&made, None, Some(gid)).is_ok());
        let mode = match file.audience {
            Audience::Gateway if !is_theirs => 0o600,
            Audience::Gateway | Audience::Group => 0o640,
            Audience::Everybody => 0o644,
        };
        made.set_permissions(fs::Permissions::from_mode(mode))?;
        made.sync_all()
    }

    /// Puts all of them in their place, in the order in which they were made; where one cannot be, none is.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, CommandError> {
        let mut placed = Vec::new();
        for name in &self.names {
            let to = self.to.join(name);
            // Unlike a renaming it fails where anything has that name, a link that leads nowhere included.
            if let Err(why) = fs::hard_link(self.at.join(name), &to) {
                for ours in placed {
                    let _ = fs::remove_file(ours);
                }
                return Err(cannot(&to, &why));
            }
            placed.push(to);
        }
        if let Ok(dir) = fs::File::open(&self.to) {
            let _ = dir.sync_all();
        }
        Ok(placed)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.at);
        if self.is_new {
            // It stays where anything is in it.
            let _ = fs::remove_dir(&self.to);
        }
    }
}

/// For the gateway and its group, whatever the umask.
fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    // Who may not give it away keeps it.
    let _ = std::os::unix::fs::chown(path, None, group);
    fs::set_permissions(path, fs::Permissions::from_mode(0o750))
}

/// An error where nothing can be made in a directory that is there.
pub(super) fn may_write(dir: &Path) -> Result<(), CommandError> {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    match rustix::fs::access(dir, rustix::fs::Access::WRITE_OK) {
        Err(why) if why != rustix::io::Errno::NOENT => Err(cannot(dir, &why.into())),
        _ => Ok(()),
    }
}

/// An error where any of the names is taken already.
pub(super) fn all_free<'a>(
    to: &Path,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), CommandError> {
    for name in names {
        let path = to.join(name);
        if is_there(&path) {
            return Err(cannot(&path, &io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(())
}

/// Whether anything has that name, a link that leads nowhere included.
pub(super) fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        // What may not be looked at is not known to be free.
        Err(why) => why.kind() != io::ErrorKind::NotFound,
    }
}

fn cannot(path: &Path, why: &io::Error) -> CommandError {
    if why.kind() == io::ErrorKind::AlreadyExists {
        return CommandError::new(
            Exit::CannotCreate,
            format_args!(
                "{} exists, and is not touched; nothing was written (--name gives the files other names, --out DIR another place)",
                path.display()
            ),
        );
    }
    CommandError::new(
        Exit::CannotCreate,
        format_args!(
            "cannot write {}: {why}; nothing was written",
            path.display()
        ),
    )
}

/// The number of a group, by this table.
fn gid(table: &Path, name: &str) -> Option<u32> {
    let mut text = Vec::new();
    let file = fs::File::open(table).ok()?;
    file.take(GROUPS).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> NewFile {
        NewFile {
            name: name.to_owned(),
            content: Secret::new(name),
            audience: Audience::Gateway,
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn what_came_in_between_is_left_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        for late in ["b", "dangling"] {
            let mut staging = Staging::begin(dir.path()).unwrap();
            for name in ["a", late, "z"] {
                staging.add(&file(name)).unwrap();
            }
            let path = dir.path().join(late);
            if late == "b" {
                fs::write(&path, "somebody else's").unwrap();
            } else {
                std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
            }
            let refused = staging.finish().unwrap_err();
            assert_eq!(refused.code, 73);
            assert!(refused.text.contains("exists"), "{}", refused.text);
            assert_eq!(names(dir.path()), [late], "theirs, and nothing of ours");
            if late == "b" {
                assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
            }
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn files_have_their_modes_whatever_the_umask_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("new");
        let mut staging = Staging::begin(&to).unwrap();
        staging.group = None;
        for (name, audience) in [
            ("key", Audience::Gateway),
            ("config", Audience::Group),
            ("certificate", Audience::Everybody),
        ] {
            let made = NewFile {
                audience,
                ..file(name)
            };
            staging.add(&made).unwrap();
        }
        let made = staging.finish().unwrap();
        let modes = made.iter().map(|path| {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            mode & 0o7777
        });
        assert_eq!(modes.collect::<Vec<_>>(), [0o600, 0o640, 0o644]);
        assert_eq!(names(&to), ["certificate", "config", "key"]);
    }

    #[test]
    fn a_group_is_found_in_its_table() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("group");
        fs::write(
            &table,
            "root:x:0:\nposternx:x:7:\nbroken\npostern:x:991:a,b\n",
        )
        .unwrap();
        assert_eq!(gid(&table, "postern"), Some(991));
        assert_eq!(gid(&table, "nobody"), None);
        assert_eq!(gid(&dir.path().join("none"), "postern"), None);
    }
}
