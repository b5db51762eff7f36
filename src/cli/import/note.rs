//! What an import says beside what it writes: what was left out and why, what is different now, which secrets are needed.
//!
//! The words stand in the first comments of the new file and on standard error, with the place that they are about. It reads nothing.

use std::fmt;

use crate::mail::text::shown_to;

/// A line says no more than so many octets of somebody else's text.
const LINE: usize = 400;
/// More lines help nobody; the weighty ones come first.
const MOST: usize = 300;

/// Where something stands in what was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SourcePlace {
    /// Absent for the file that was named first.
    pub(super) file: Option<String>,
    pub(super) line: usize,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file} line {}", self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}

/// Why a file cannot be taken at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotUnderstood {
    pub(super) place: Option<SourcePlace>,
    pub(super) why: String,
}

impl NotUnderstood {
    pub(super) fn new(place: Option<SourcePlace>, why: impl Into<String>) -> Self {
        Self {
            place,
            why: why.into(),
        }
    }
}

/// What a note is about, in the order in which notes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NoteKind {
    /// There is no way out: said before anything else.
    NoWayOut,
    /// Left out, and it decides who may send or where mail goes.
    Decides,
    /// Left out.
    LeftOut,
    /// Carried over, and not quite the same.
    Changed,
    /// A secret that has to be put somewhere.
    Needed,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportNote {
    pub(super) kind: NoteKind,
    pub(super) what: String,
    pub(super) place: Option<SourcePlace>,
    pub(super) why: String,
}

impl ImportNote {
    /// Whether somebody has to look before the new gateway can do what the old one did.
    pub(super) fn decides(&self) -> bool {
        matches!(self.kind, NoteKind::NoWayOut | NoteKind::Decides)
    }
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            NoteKind::NoWayOut | NoteKind::Decides | NoteKind::LeftOut => "not carried over",
            NoteKind::Changed => "different now",
            NoteKind::Needed => "needed",
        };
        write!(f, "{word}: {}", shown_to(&self.what, LINE))?;
        if let Some(place) = &self.place {
            write!(f, " ({})", shown_to(&place.to_string(), LINE))?;
        }
        write!(f, ": {}", shown_to(&self.why, LINE))
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct ImportNotes {
    all: Vec<ImportNote>,
}

impl ImportNotes {
    pub(super) fn add(
        &mut self,
        kind: NoteKind,
        what: impl Into<String>,
        place: Option<SourcePlace>,
        why: impl Into<String>,
    ) {
        let note = ImportNote {
            kind,
            what: what.into(),
            place,
            why: why.into(),
        };
        // The same thing once; and a file of a million odd lines makes no million notes.
        let has_room = self.all.len() < MOST * 4 && !self.all.contains(&note);
        if has_room || (note.decides() && !self.any_decides()) {
            self.all.push(note);
        }
    }

    /// Those that somebody has to look at.
    pub(super) fn weighty(&self) -> impl Iterator<Item = &ImportNote> {
        self.all.iter().filter(|note| note.decides())
    }

    /// Whether it is said of whichever place.
    pub(super) fn has(&self, note: &ImportNote) -> bool {
        let mut all = self.all.iter();
        all.any(|one| one.kind == note.kind && one.what == note.what && one.why == note.why)
    }

    pub(super) fn any_decides(&self) -> bool {
        self.all.iter().any(ImportNote::decides)
    }

    /// A line each, those first that somebody has to look at.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut sorted: Vec<&ImportNote> = self.all.iter().collect();
        sorted.sort_by_key(|note| note.kind);
        let mut lines: Vec<String> = sorted.iter().take(MOST).map(ToString::to_string).collect();
        if sorted.len() > MOST {
            lines.push(format!(
                "and more, which are not listed ({} notes in all)",
                sorted.len()
            ));
        }
        lines
    }
}
