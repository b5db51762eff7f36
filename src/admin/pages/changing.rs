//! What the pages that change the configuration are filled with, and the words in which they say what was done.

use askama::Template;

use super::{filters, templates::Frame};
use crate::view;

/// A line of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiffLine {
    /// `added`, `removed`, `place`, `same`.
    pub(super) kind: &'static str,
    /// With its sign.
    pub(super) text: String,
}

/// The lines of a unified diff. The two that name the file are left out: the page has its name.
pub(super) fn diff_lines(diff: &str) -> Vec<DiffLine> {
    let line = |text: &str| DiffLine {
        kind: match text.chars().next() {
            Some('+') => "added",
            Some('-') => "removed",
            Some('@') => "place",
            _ => "same",
        },
        text: text.to_owned(),
    };
    diff.lines().skip(2).map(line).collect()
}

#[derive(Debug, Template)]
#[template(path = "proposal.html")]
pub(super) struct ProposalPage {
    pub(super) frame: Frame,
    pub(super) proposal: view::ProposalView,
    pub(super) lines: Vec<DiffLine>,
    pub(super) problems: Vec<view::Problem>,
    /// The file.
    pub(super) path: String,
    /// What the page may do to it: `off`, `propose`, `write`.
    pub(super) write: String,
    /// Why it is not `write`, though the file says so.
    pub(super) read_only: Option<String>,
}

impl ProposalPage {
    fn is_open(&self) -> bool {
        self.proposal.state == crate::window::proposals::ProposalState::Open
    }
}

/// What was done to the configuration, or to a connector, as `shell::done` writes it: only what is known is said.
pub(super) fn noticed(what: &str, number: u64) -> Option<String> {
    Some(match what {
        "proposed" => {
            "The change is kept as a proposal. The configuration is as it was.".to_owned()
        }
        "applied" => "The change was written to the file and is in force.".to_owned(),
        "dropped" => "The proposal was dropped. The configuration is as it was.".to_owned(),
        "written" => {
            format!("The change was written to the file and is in force (proposal p{number}).")
        }
        "stopped" if number == 0 => "It was stopped already.".to_owned(),
        "stopped" => "It is stopped. Nothing is sent by it until somebody starts it.".to_owned(),
        "started" if number == 0 => "It was not stopped.".to_owned(),
        "started" => "It is started.".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_shown_by_its_lines() {
        let diff = "--- a\n+++ a\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n";
        let lines = diff_lines(diff);
        let kinds: Vec<_> = lines.iter().map(|line| line.kind).collect();
        assert_eq!(kinds, ["place", "same", "removed", "added"]);
        assert_eq!(lines[3].text, "+new");
        assert!(diff_lines("").is_empty());
    }
}
