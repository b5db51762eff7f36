//! Secrets: a string, or a table that says where the value is.
//!
//! Apart so that there is one place that reads them. It never puts a value into a message.

use super::{
    Ground,
    files::{path, warn_readable},
};
use crate::{
    config::{
        Secrets,
        diagnostic::Span,
        read_bounded,
        table::{At, Table},
        values::{Fault, plain},
    },
    secret::Secret,
};

/// A secret and where it stands. What cannot be told is reported, and `None`; what is not looked at
/// ([`Secrets::Ignore`]) is `Some` of a secret that `known` says is a placeholder.
pub(super) struct Given {
    pub(super) secret: Secret,
    pub(super) span: Span,
    /// The value is the real one.
    pub(super) known: bool,
}

pub(super) fn read(ground: Ground<'_>, table: &Table<'_>, key: &'static str) -> Option<Given> {
    match table.string_or_table(key, "secret")? {
        Ok(At { value: "", span }) => {
            ground
                .source
                .error(&span, Fault::from(format!("`{key}` is empty")));
            None
        }
        Ok(At { value, span }) => Some(Given {
            secret: Secret::new(value),
            span,
            known: true,
        }),
        Err(table) => {
            let given = elsewhere(ground, &table, key);
            table.finish();
            given
        }
    }
}

fn elsewhere(ground: Ground<'_>, table: &Table<'_>, key: &str) -> Option<Given> {
    let span = table.span.clone();
    let fault = |fault: Fault| {
        ground.source.error(&span, fault);
        None
    };
    let env = table.text("env", "the name of an environment variable");
    let file = table.parsed("file", "a path", path);
    let credential = table.parsed("credential", "the name of a systemd credential", |text| {
        if text.is_empty() || text.contains(['/', '\0']) || text.starts_with('.') {
            return Err(Fault::from(
                "this is not the name of a credential".to_owned(),
            ));
        }
        Ok(text.to_owned())
    });
    let keys = ["env", "file", "credential"];
    match keys.iter().filter(|key| table.has(key)).count() {
        1 => {}
        _ => {
            return fault(Fault::new(
                format!(
                    "`{key}` is a string, or a table with exactly one of `env`, `file` and `credential`"
                ),
                format!(
                    "write {key} = {{ env = \"NAME\" }}, {{ file = \"path\" }} or {{ credential = \"name\" }}"
                ),
            ));
        }
    }
    let placeholder = Given {
        secret: Secret::default(),
        span: span.clone(),
        known: false,
    };
    if ground.secrets == Secrets::Ignore {
        return Some(placeholder);
    }
    let value = if let Some(At { value: name, .. }) = env {
        match ground.env.vars.get(name) {
            Some(value) => value.clone(),
            None => {
                return fault(Fault::from(format!(
                    "the environment variable {} is not set",
                    plain(name)
                )));
            }
        }
    } else if let Some(At { value: file, span }) = file {
        let path = watched(ground, ground.path(&file));
        warn_readable(ground, &path, &span);
        match from_file(&path) {
            Ok(value) => value,
            Err(why) => return fault(Fault::from(why)),
        }
    } else {
        let name = credential?.value;
        match (&ground.env.credentials_directory, ground.secrets) {
            (Some(directory), _) => match from_file(&watched(ground, directory.join(&name))) {
                Ok(value) => value,
                Err(why) => {
                    return fault(Fault::new(
                        why,
                        format!("the unit needs LoadCredential={name}:/path"),
                    ));
                }
            },
            (None, Secrets::Resolve) => {
                return fault(Fault::new(
                    format!(
                        "the credential {} is not there: this process was not started by systemd with LoadCredential=",
                        plain(&name)
                    ),
                    "start it through the unit, or use { file = \"path\" }",
                ));
            }
            (None, _) => {
                ground.source.note(
                    &span,
                    Fault::from(format!(
                        "the credential {} is known to the unit only and was not checked",
                        plain(&name)
                    )),
                );
                return Some(placeholder);
            }
        }
    };
    if value.is_empty() {
        return fault(Fault::from(format!("the value of `{key}` is empty")));
    }
    Some(Given {
        secret: Secret::new(value),
        span: span.clone(),
        known: true,
    })
}

fn watched(ground: Ground<'_>, path: std::path::PathBuf) -> std::path::PathBuf {
    ground.files.borrow_mut().push(path.clone());
    path
}

fn from_file(path: &std::path::Path) -> Result<String, String> {
    let shown = plain(&path.to_string_lossy());
    let octets =
        read_bounded(path, 64 << 10).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    let text = String::from_utf8(octets).map_err(|_| format!("{shown} is not UTF-8"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
