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
        values::{BACKSLASH, Fault, control_character, plain},
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
        Ok(At { value, span }) => {
            doubt_literal(ground, key, value, &span);
            Some(Given {
                secret: Secret::new(value),
                span,
                known: true,
            })
        }
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
            // As of a file: `echo` into a secret of a container's manager ends it with a line break.
            Some(value) => value.trim_end_matches(['\n', '\r']).to_owned(),
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
    doubt(ground, key, &value, &span, "look at what was put there");
    Some(Given {
        secret: Secret::new(value),
        span: span.clone(),
        known: true,
    })
}

/// What is hardly meant in any secret; none of it is shown.
fn doubt(ground: Ground<'_>, key: &str, value: &str, span: &Span, hint: &str) -> bool {
    let message = if let Some(found) = control_character(value) {
        format!("the value of `{key}` holds a control character ({found})")
    } else if value.trim() != value {
        format!("the value of `{key}` begins or ends with a blank")
    } else {
        return false;
    };
    ground.source.warning(span, Fault::new(message, hint));
    true
}

/// And what is hardly meant where a secret stands in the file itself.
fn doubt_literal(ground: Ground<'_>, key: &str, value: &str, span: &Span) {
    let raw = ground.source.raw(span);
    let is_basic = raw.starts_with('"');
    let hint = if is_basic && raw.contains('\\') {
        BACKSLASH
    } else {
        "leave it out if it is not part of the value"
    };
    if doubt(ground, key, value, span, hint) {
        return;
    }
    let others = raw.replace("\\\\", "").replace("\\\"", "");
    let fault = if is_basic && others.contains('\\') {
        Fault::new(
            format!(
                "in the value of `{key}` a backslash and what follows it stand for another character"
            ),
            BACKSLASH,
        )
    } else if let Some(name) = variable(ground, value) {
        Fault::new(
            format!(
                "the value of `{key}` is written like a variable, and nothing is put in its place"
            ),
            format!("write {key} = {{ env = \"{name}\" }}"),
        )
    } else if value.starts_with("file:") || value.starts_with("/run/secrets/") {
        Fault::new(
            format!("the value of `{key}` is written like a path, and no file is read"),
            format!("write {key} = {{ file = \"path\" }}"),
        )
    } else {
        return;
    };
    ground.source.warning(span, fault);
}

/// The variable that a shell, a container's manager or a template would put in the place of this text. A word behind a lone `$` may be
/// a password all the same: it is named only where it is a variable, or called like one.
fn variable(ground: Ground<'_>, text: &str) -> Option<String> {
    let between = |start: &str, end: &str| text.strip_prefix(start)?.strip_suffix(end);
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let sure = between("${", "}")
        .or_else(|| between("%", "%"))
        .or_else(|| between("$env:", ""))
        .or_else(|| between("env:", ""))
        .or_else(|| between("${env:", "}"))
        .or_else(|| between("{{", "}}"))
        .map(str::trim);
    if let Some(name) = sure {
        let name = name.split(':').next().unwrap_or_default();
        return Some(if is_name(name) { name } else { "NAME" }.to_owned());
    }
    if text.starts_with("$(") && text.ends_with(')') {
        return Some("NAME".to_owned());
    }
    let name = text.strip_prefix('$').filter(|name| is_name(name))?;
    let is_called_so = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        && ["PW", "PASS", "PWD", "SECRET", "TOKEN", "KEY"]
            .iter()
            .any(|part| name.contains(part));
    let known = is_called_so || ground.env.vars.contains_key(name);
    Some(if known { name } else { "NAME" }.to_owned())
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
    // Notepad's mark of UTF-8 is no part of it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
