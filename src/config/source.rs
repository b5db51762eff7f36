//! The text of the file, all that was found wrong with it, and what an unknown key was probably meant to be.
//!
//! Apart from `table`, which walks the values: this one only remembers and, at the end, suggests.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use super::{
    diagnostic::{Diagnostic, Severity, Span},
    values::{Fault, plain},
    words::foreign,
};

/// How a key is written, for hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Key,
    Table,
    Tables,
}

/// A key some section asked for: its section (`""` is the top level), its name, how it is written.
pub(super) type Asked = BTreeSet<(&'static str, &'static str, Form)>;

/// A key nobody asked for; looked at when all sections have been read.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) section: &'static str,
    pub(super) label: String,
    pub(super) key: String,
    pub(super) span: Span,
    pub(super) is_section: bool,
}

/// The text, and all that was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
    asked: RefCell<Asked>,
    unknown: RefCell<Vec<Unknown>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            found: RefCell::default(),
            asked: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn error(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Error, span, fault.into());
    }

    pub(super) fn warning(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Warning, span, fault.into());
    }

    pub(super) fn note(&self, span: &Span, fault: impl Into<Fault>) {
        self.report(Severity::Note, span, fault.into());
    }

    /// About the file as a whole.
    pub(super) fn whole(&self, severity: Severity, fault: impl Into<Fault>) {
        let fault = fault.into();
        self.found
            .borrow_mut()
            .push(Diagnostic::whole(severity, self.path, fault.message).hint(fault.hint));
    }

    /// Remembers that a section asked for a key.
    pub(super) fn ask(&self, section: &'static str, key: &'static str, form: Form) {
        self.asked.borrow_mut().insert((section, key, form));
    }

    /// Remembers a key that no section asked for.
    pub(super) fn unknown(&self, unknown: Unknown) {
        self.unknown.borrow_mut().push(unknown);
    }

    /// Whether the section is written `[[section]]`.
    pub(super) fn is_repeated(&self, section: &str) -> bool {
        is_repeated(&self.asked.borrow(), section)
    }

    fn report(&self, severity: Severity, span: &Span, fault: Fault) {
        self.found.borrow_mut().push(
            Diagnostic::at(severity, self.path, self.text, span, fault.message).hint(fault.hint),
        );
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The text of a place, as it is written.
    pub(super) fn raw(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line of a place, for sentences that name two.
    pub(super) fn line(&self, span: &Span) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    /// All that was found, and all keys that were asked for.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, Asked) {
        let asked = self.asked.borrow().clone();
        for unknown in self.unknown.take() {
            let fault = Fault {
                message: if unknown.is_section {
                    format!("there is no section [{}]", plain(&unknown.key))
                } else {
                    format!("{}has no key `{}`", unknown.label, plain(&unknown.key))
                },
                hint: suggestion(&asked, unknown.section, &unknown.key),
            };
            self.error(&unknown.span, fault);
        }
        (self.found.take(), asked)
    }
}

/// The nearest key of the section, or the section that has this key.
fn suggestion(asked: &Asked, section: &str, key: &str) -> Option<String> {
    let known = || asked.iter().filter(|(of, _, _)| *of == section);
    if let Some(best) = nearest(key, known().map(|(_, name, _)| *name)) {
        let form = known()
            .find(|(_, name, _)| *name == best)
            .map_or(Form::Key, |(_, _, form)| *form);
        return Some(format!("did you mean `{}`?", written(best, form)));
    }
    if let Some(hint) = foreign(section, key) {
        return Some(hint.to_owned());
    }
    if let Some((of, name, form)) = asked.iter().find(|(_, name, _)| *name == key) {
        return Some(if of.is_empty() {
            format!(
                "did you mean `{}` at the top of the file, before the first section?",
                written(name, *form)
            )
        } else if is_repeated(asked, of) {
            format!("did you mean [[{of}]] `{name}`?")
        } else {
            format!("did you mean [{of}] `{name}`?")
        });
    }
    let keys: Vec<_> = known()
        .map(|(_, name, form)| written(name, *form))
        .collect();
    (!section.is_empty() && !keys.is_empty()).then(|| format!("its keys are {}", keys.join(", ")))
}

fn is_repeated(asked: &Asked, section: &str) -> bool {
    asked
        .iter()
        .any(|(of, name, form)| of.is_empty() && *name == section && *form == Form::Tables)
}

fn written(name: &str, form: Form) -> String {
    match form {
        Form::Key => name.to_owned(),
        Form::Table => format!("[{name}]"),
        Form::Tables => format!("[[{name}]]"),
    }
}

/// The most similar word, when it is similar enough to be a slip of the pen.
pub(super) fn nearest<'n>(word: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // A megabyte of a key is no slip of the pen, and comparing takes time by its length.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|name| {
            let other = name.to_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&word, &other), name)
        })
        .filter(|(distance, name)| *distance <= (name.len().min(word.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
