//! The directory of a gateway: large bodies as they arrive, and the token that tells one directory from another.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use super::settings::Settings;
use crate::queue::disk;

/// The directories, and the token that says which it is.
pub(super) fn prepare(settings: &Settings, incoming: &Path) -> io::Result<String> {
    // A command is no node, and makes nothing that a gateway may not be able to write.
    let data_dir = &settings.data_dir;
    if !settings.migrates {
        // What cannot be read says nothing of which gateway is here.
        let token = std::fs::read_to_string(data_dir.join("node"));
        return Ok(token.unwrap_or_default().trim().to_owned());
    }
    disk::directory(data_dir)?;
    disk::directory(incoming)?;
    let path = data_dir.join("node");
    match File::open(&path) {
        Ok(file) => {
            let mut token = String::new();
            file.take(64).read_to_string(&mut token)?;
            if !token.trim().is_empty() {
                return Ok(token.trim().to_owned());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = format!("{:032x}", fastrand::u128(..));
    let mut file = disk::create(&path, true)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    disk::sync_dir(data_dir)?;
    Ok(token)
}
