//! Secrets in files that somebody names: a password, a token, the key of a Google service account. None of them is ever printed.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use super::super::exit::{CommandError, Exit};
use crate::secret::Secret;

/// A longer one is the wrong file.
const LONGEST: u64 = 64 << 10;

/// A service account, as the Google console hands it out.
#[derive(Debug)]
pub(super) struct AccountFile {
    /// The file.
    pub(super) text: Secret,
    /// What the delegation names.
    pub(super) client_id: String,
}

/// The one line of a file.
pub(super) fn line_of(flag: &str, path: &Path) -> Result<Secret, CommandError> {
    let text = text_of(flag, path)?;
    let line = text.trim_end_matches(['\n', '\r']);
    let why = if line.is_empty() {
        "it is empty"
    } else if line.chars().any(char::is_control) {
        "it has more than one line, or a control character"
    } else {
        return Ok(Secret::new(line));
    };
    Err(unfit(flag, path, why))
}

/// A secret as a file of one line holds it.
pub(super) fn as_file(secret: &Secret) -> Secret {
    Secret::new(format!("{}\n", secret.reveal()))
}

/// The file of a service account.
pub(super) fn service_account(flag: &str, path: &Path) -> Result<AccountFile, CommandError> {
    let text = text_of(flag, path)?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let unfit = |why: &str| Err(unfit(flag, path, why));
    if field("type") != Some("service_account") || field("client_email").is_none() {
        return unfit(
            "it is not the key of a service account: that is the JSON file that the Google console hands out under Keys, with \"type\": \"service_account\"",
        );
    }
    let key = field("private_key").unwrap_or_default();
    if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
        return unfit("its private_key is no key in PEM form");
    }
    let client_id = field("client_id").unwrap_or_default();
    if client_id.is_empty() || !client_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return unfit("its client_id, which the delegation names, is missing");
    }
    let client_id = client_id.to_owned();
    Ok(AccountFile {
        text: Secret::new(text),
        client_id,
    })
}

fn text_of(flag: &str, path: &Path) -> Result<String, CommandError> {
    let unread = |why: &io::Error| {
        CommandError::new(
            Exit::NoInput,
            format_args!(
                "{flag} {} cannot be read: {why}; nothing was written",
                path.display()
            ),
        )
    };
    let mut octets = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut octets))
        .map_err(|why| unread(&why))?;
    if octets.len() as u64 > LONGEST {
        return Err(unfit(flag, path, "it is too long"));
    }
    String::from_utf8(octets).map_err(|_| unfit(flag, path, "it is not UTF-8"))
}

fn unfit(flag: &str, path: &Path, why: &str) -> CommandError {
    CommandError::new(
        Exit::Data,
        format_args!("{flag} {}: {why}; nothing was written", path.display()),
    )
}
