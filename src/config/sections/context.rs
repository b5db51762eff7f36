//! What the sections share: where they are read, and the names that others refer to.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use crate::config::{
    diagnostic::{Severity, Span},
    settings::{Environment, Secrets},
    source::Source,
    table::{At, Table},
    values::{Fault, fault, is_plain, plain},
    words::nearest,
};

/// What every section needs beside its table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) source: &'a Source<'a>,
    /// Relative paths are relative to this.
    pub(super) base: &'a Path,
    pub(super) secrets: Secrets,
    pub(super) env: &'a Environment,
    /// Files that were named: what is in them belongs to the configuration.
    pub(super) files: &'a RefCell<Vec<PathBuf>>,
}

impl Context<'_> {
    pub(super) fn path(self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    pub(super) fn error(self, span: &Span, fault: impl Into<Fault>) {
        self.source.error(span, fault);
    }

    pub(super) fn warning(self, span: &Span, fault: impl Into<Fault>) {
        self.source.warning(span, fault);
    }

    pub(super) fn note(self, span: &Span, fault: impl Into<Fault>) {
        self.source.note(span, fault);
    }

    /// Says what is wrong with the file as a whole.
    pub(super) fn whole(self, fault: Fault) {
        self.source.whole(Severity::Error, fault);
    }
}

/// The names of one kind of section, each once.
#[derive(Debug)]
pub(super) struct SectionNames {
    kind: &'static str,
    pub(super) known: Vec<(String, Span)>,
}

impl SectionNames {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            known: Vec::new(),
        }
    }

    /// Reads `name` of a section; a section without a usable one gets a placeholder, so that the rest is still read.
    pub(super) fn read(&mut self, context: Context<'_>, table: &Table<'_>) -> String {
        let check = if self.kind == "user" {
            login_name
        } else {
            section_name
        };
        table.requires("name", "name = \"…\"");
        let Some(At { value, span }) = table.parsed("name", check) else {
            return String::new();
        };
        if let Some((_, first)) = self
            .known
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&value))
        {
            context.error(
                &span,
                fault!(
                    "the {} \"{}\" is already defined in line {}",
                    self.kind,
                    plain(&value),
                    context.source.line(first)
                ),
            );
        }
        self.known.push((value.clone(), span));
        value
    }

    /// Whether there is a section of this name; the sentence for the administrator when there is not.
    pub(super) fn lookup(&self, name: &str) -> Result<String, Fault> {
        // Without any section of the kind that is the mistake to mend, and it is said already.
        let said = self.kind == "connector" && self.known.is_empty();
        if said || self.known.iter().any(|(known, _)| known == name) {
            return Ok(name.to_owned());
        }
        let names: Vec<_> = self
            .known
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        Err(Fault {
            message: format!("there is no [[{}]] named \"{}\"", self.kind, plain(name)),
            hint: nearest(name, names.iter().copied())
                .map(|name| format!("did you mean \"{name}\"?"))
                .or_else(|| {
                    (!names.is_empty() && names.len() <= 10)
                        .then(|| format!("there are \"{}\"", names.join("\", \"")))
                }),
        })
    }
}

/// What may be the name of a section, and of a gateway.
pub(super) fn section_name(text: &str) -> Result<String, Fault> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fine) {
        return Ok(text.to_owned());
    }
    Err(
        fault!("\"{}\" cannot be a name", plain(text); "a name is 1 to 64 of the characters a-z A-Z 0-9 . _ -"),
    )
}

/// What a client may give in AUTH.
fn login_name(text: &str) -> Result<String, Fault> {
    if !text.is_empty() && text.len() <= 255 && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(fault!("this cannot be a user name"; "it is 1 to 255 octets without control characters"))
}
