//! Secrets: a string, or a table that says where the value is.
//!
//! This is the one place that reads them. It never puts a value into a message.

use super::{
    context::Context,
    files::{path, warn_readable},
};
use crate::{
    config::{
        diagnostic::Span,
        file::read_bounded,
        settings::Secrets,
        table::{At, Table},
        values::{BACKSLASH, Fault, control_character, fault, plain},
    },
    secret::Secret,
};

/// A secret and where it stands. One that cannot be read is reported and is `None`; one that is not to be read
/// ([`Secrets::Ignore`]) is a placeholder, which `known` says.
pub(super) struct Given {
    pub(super) secret: Secret,
    pub(super) span: Span,
    /// The value is the real one.
    pub(super) known: bool,
}

pub(super) fn read(context: Context<'_>, table: &Table<'_>, key: &'static str) -> Option<Given> {
    read_as(context, table, key, SecretLines::One)
}

/// One that may have several lines.
pub(super) fn read_lines(
    context: Context<'_>,
    table: &Table<'_>,
    key: &'static str,
) -> Option<Given> {
    read_as(context, table, key, SecretLines::Several)
}

/// How many lines a secret is meant to have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecretLines {
    One,
    Several,
}

fn read_as(
    context: Context<'_>,
    table: &Table<'_>,
    key: &'static str,
    lines: SecretLines,
) -> Option<Given> {
    match table.string_or_table(key)? {
        Ok(At { value: "", span }) => {
            context.error(&span, fault!("`{key}` is empty"));
            None
        }
        Ok(At { value, span }) => {
            doubt_literal(context, key, (value, lines), &span);
            Some(Given {
                secret: Secret::new(value),
                span,
                known: true,
            })
        }
        Err(table) => {
            let given = elsewhere(context, &table, key, lines);
            table.finish();
            given
        }
    }
}

fn elsewhere(
    context: Context<'_>,
    table: &Table<'_>,
    key: &str,
    lines: SecretLines,
) -> Option<Given> {
    let span = table.span.clone();
    let fault = |fault: Fault| {
        context.error(&span, fault);
        None
    };
    let env = table.text("env");
    let file = table.parsed("file", path);
    let credential = table.parsed("credential", |text| {
        if text.is_empty() || text.contains(['/', '\0']) || text.starts_with('.') {
            return Err(fault!("this is not the name of a credential"));
        }
        Ok(text.to_owned())
    });
    let keys = ["env", "file", "credential"];
    match keys.iter().filter(|key| table.has(key)).count() {
        1 => {}
        _ => {
            return fault(
                fault!("`{key}` is a string, or a table with exactly one of `env`, `file` and `credential`";
                    "write {key} = {{ env = \"NAME\" }}, {{ file = \"path\" }} or {{ credential = \"name\" }}"),
            );
        }
    }
    let placeholder = Given {
        secret: Secret::default(),
        span: span.clone(),
        known: false,
    };
    if context.secrets == Secrets::Ignore {
        return Some(placeholder);
    }
    let value = if let Some(At { value: name, .. }) = env {
        match context.env.vars.get(name) {
            // As of a file: `echo` into a secret of a container's manager ends it with a line break.
            Some(value) => value.trim_end_matches(['\n', '\r']).to_owned(),
            None => {
                return fault(fault!(
                    "the environment variable {} is not set",
                    plain(name)
                ));
            }
        }
    } else if let Some(At { value: file, span }) = file {
        let path = watched(context, context.path(&file));
        warn_readable(context, &path, &span);
        match from_file(&path) {
            Ok(value) => value,
            Err(why) => return fault(Fault::from(why)),
        }
    } else {
        let name = credential?.value;
        match (&context.env.credentials_directory, context.secrets) {
            (Some(directory), _) => match from_file(&watched(context, directory.join(&name))) {
                Ok(value) => value,
                Err(why) => {
                    return fault(Fault::new(
                        why,
                        format!("the unit needs LoadCredential={name}:/path"),
                    ));
                }
            },
            (None, Secrets::Resolve) => {
                return fault(fault!(
                        "the credential {} is not there: this process was not started by systemd with LoadCredential=", plain(&name);
                        "start it through the unit, or use {{ file = \"path\" }}"));
            }
            (None, _) => {
                context.note(
                    &span,
                    fault!(
                        "the credential {} is known to the unit only and was not checked",
                        plain(&name)
                    ),
                );
                return Some(placeholder);
            }
        }
    };
    if value.is_empty() {
        return fault(fault!("the value of `{key}` is empty"));
    }
    let hint = "check what was put there";
    doubt(context, key, (&value, lines), &span, hint);
    Some(Given {
        secret: Secret::new(value),
        span: span.clone(),
        known: true,
    })
}

/// What is hardly meant in any secret; none of it is shown.
fn doubt(
    context: Context<'_>,
    key: &str,
    (value, lines): (&str, SecretLines),
    span: &Span,
    hint: &str,
) -> bool {
    let found = match lines {
        SecretLines::One => control_character(value),
        SecretLines::Several => value.lines().find_map(control_character),
    };
    let message = if let Some(found) = found {
        format!("the value of `{key}` holds a control character ({found})")
    } else if lines == SecretLines::One && value.trim() != value {
        format!("the value of `{key}` begins or ends with a blank")
    } else {
        return false;
    };
    context.warning(span, Fault::new(message, hint));
    true
}

/// And what is hardly meant where a secret stands in the file itself.
fn doubt_literal(
    context: Context<'_>,
    key: &str,
    (value, lines): (&str, SecretLines),
    span: &Span,
) {
    let raw = context.source.raw(span);
    let is_basic = raw.starts_with('"');
    let hint = if is_basic && raw.contains('\\') {
        BACKSLASH
    } else {
        "leave it out if it is not part of the value"
    };
    if doubt(context, key, (value, lines), span, hint) {
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
    } else if let Some(name) = variable(context, value) {
        fault!("the value of `{key}` is written like a variable, but nothing is put in its place";
            "write {key} = {{ env = \"{name}\" }}")
    } else if value.starts_with("file:") || value.starts_with("/run/secrets/") {
        fault!("the value of `{key}` is written like a path, but no file is read"; "write {key} = {{ file = \"path\" }}")
    } else {
        return;
    };
    context.warning(span, fault);
}

/// The variable that a shell, a container's manager or a template would put in the place of this text. A word behind a lone `$` may be
/// a password all the same: it is named only where it is a variable, or called like one.
fn variable(context: Context<'_>, text: &str) -> Option<String> {
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
    let known = is_called_so || context.env.vars.contains_key(name);
    Some(if known { name } else { "NAME" }.to_owned())
}

fn watched(context: Context<'_>, path: std::path::PathBuf) -> std::path::PathBuf {
    context.files.borrow_mut().push(path.clone());
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
