//! The text of the file, and all that was found wrong with it.
//!
//! `table` walks the values; this one only remembers.

use std::{cell::RefCell, path::Path};

use super::{
    diagnostic::{Diagnostic, Severity, Span},
    values::Fault,
};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> At<T> {
    pub(super) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// Without places.
pub(super) fn bare<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

/// The text, and all that was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            found: RefCell::default(),
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

    /// All that was found.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        self.found.take()
    }
}
