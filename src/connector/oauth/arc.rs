//! The proof that Azure Arc wants: what stands in a file that only this machine's own can read.
//!
//! An answer from the network names a file here, and that must not become a way to read any other. Sources:
//! learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication.

use std::{
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use reqwest::header::{self, HeaderMap};

use crate::secret::Secret;

/// Where the agent puts its keys.
pub const TOKENS: &str = "/var/opt/azcmagent/tokens";
/// A key is not larger.
const KEY: u64 = 4096;

/// The file that a challenge names; nothing: it is no challenge of the agent's.
pub(super) fn challenge(headers: &HeaderMap) -> Option<PathBuf> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|value| {
            let (scheme, rest) = value.trim().split_once(' ')?;
            let (name, path) = rest.trim().split_once('=')?;
            let is_basic = scheme.eq_ignore_ascii_case("basic");
            (is_basic && name.trim().eq_ignore_ascii_case("realm"))
                .then(|| PathBuf::from(path.trim().trim_matches('"')))
        })
}

/// The key in that file, which must be one of the agent's own, in `tokens`.
///
/// # Errors
/// Why it is not read, with what to do.
pub(super) fn key(file: &Path, tokens: &Path) -> Result<Secret, String> {
    let is_key = file.extension().is_some_and(|ending| ending == "key");
    if file.parent() != Some(tokens) || !is_key {
        return Err(format!(
            "what answers as Azure Arc's agent names a file that is no key of it, and it is not read: they are in {}",
            tokens.display()
        ));
    }
    let shown = file.display();
    let mut text = String::new();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        // Neither a link to another file nor a pipe without an end.
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32)
        .open(file)
        .and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("it is no file"));
            }
            file.take(KEY + 1).read_to_string(&mut text)
        });
    if let Err(why) = opened {
        return Err(format!(
            "the key of Azure Arc's agent, {shown}, cannot be read: {why}; add the user that runs Postern to the group himds"
        ));
    }
    let key = text.trim();
    if key.is_empty() || text.len() as u64 > KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{shown} holds no key of Azure Arc's agent"));
    }
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_no_file_but_a_key_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::create_dir_all(tokens.join("sub.key")).unwrap();
        let write = |name: &str, text: &str| {
            let path = tokens.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = write("a.key", "secret\n");
        let passwd = dir.path().join("passwd.key");
        std::fs::write(&passwd, "root").unwrap();
        let link = tokens.join("link.key");
        std::os::unix::fs::symlink(&passwd, &link).unwrap();
        assert_eq!(key(&good, &tokens).unwrap().reveal(), "secret");
        assert_eq!(
            key(&write("most.key", &"x".repeat(4096)), &tokens)
                .unwrap()
                .reveal()
                .len(),
            4096
        );
        for (file, words) in [
            (passwd, "no key of it"),
            (write("a.txt", "secret"), "no key of it"),
            (tokens.join("../passwd.key"), "no key of it"),
            (tokens.join("sub.key/../../passwd.key"), "no key of it"),
            (PathBuf::from("a.key"), "no key of it"),
            (PathBuf::new(), "no key of it"),
            (link, "himds"),
            (tokens.join("sub.key"), "himds"),
            (tokens.join("none.key"), "himds"),
            (write("large.key", &"x".repeat(4097)), "holds no key"),
            (write("empty.key", " \n"), "holds no key"),
            (write("lines.key", "a\r\nX-Evil: 1"), "holds no key"),
        ] {
            let why = key(&file, &tokens).unwrap_err();
            assert!(why.contains(words), "{}: {why}", file.display());
            assert!(!why.contains("secret") && !why.contains("root"), "{why}");
        }
    }

    #[test]
    fn challenges() {
        for (value, expected) in [
            (
                "Basic realm=/var/opt/azcmagent/tokens/a.key",
                Some("/var/opt/azcmagent/tokens/a.key"),
            ),
            ("basic Realm=\"/x y.key\"", Some("/x y.key")),
            ("Bearer realm=/x.key", None),
            ("Basic", None),
            ("Basic charset=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, value.parse().unwrap());
            assert_eq!(
                challenge(&headers).as_deref(),
                expected.map(Path::new),
                "{value}"
            );
        }
    }
}
