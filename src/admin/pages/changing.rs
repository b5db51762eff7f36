//! What the pages that change the configuration are filled with, and the words in which they say what was done.

use askama::Template;
use serde_json::Value;

use super::{arranged::FieldGroup, filters, templates::Frame};
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

/// A service as the list of them says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceChoice {
    pub(super) name: String,
    /// Host, port, TLS.
    pub(super) place: String,
}

/// Those of `postern services --json`.
pub(super) fn services(all: &Value) -> Vec<ServiceChoice> {
    let text = |one: &Value, key: &str| match &one[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let choice = |one: &Value| ServiceChoice {
        name: text(one, "name"),
        place: format!(
            "{}, port {}, TLS {}",
            text(one, "host"),
            text(one, "port"),
            text(one, "tls")
        ),
    };
    all.as_array().into_iter().flatten().map(choice).collect()
}

/// What a new connector is for.
#[derive(Debug, Template)]
#[template(path = "connector-service.html")]
pub(super) struct ServicePage {
    pub(super) frame: Frame,
    pub(super) services: Vec<ServiceChoice>,
}

#[derive(Debug, Template)]
#[template(path = "connector-form.html")]
pub(super) struct ConnectorFormPage {
    pub(super) frame: Frame,
    /// Where the form goes.
    pub(super) action: String,
    /// Where one goes who does not want to.
    pub(super) up: String,
    pub(super) name: String,
    pub(super) is_saved: bool,
    pub(super) is_removal: bool,
    pub(super) kind: &'static str,
    pub(super) service: Option<ServiceChoice>,
    pub(super) groups: Vec<FieldGroup>,
    /// What the file says and no form changes.
    pub(super) only_in_file: Vec<(String, String)>,
    /// What only the file could say.
    pub(super) never_asked: Vec<String>,
    /// The hash of the file that the fields are about.
    pub(super) base: String,
    /// The name of the secrets that were typed.
    pub(super) typed: Option<String>,
    /// The recipient of a test.
    pub(super) to: String,
    /// Of the proposal; empty: its own.
    pub(super) title: String,
    pub(super) own_title: String,
    /// Of what was looked at.
    pub(super) reviewed: String,
    pub(super) may_write: bool,
    pub(super) can_test: bool,
    /// What would become of the file. `None`: nobody has asked.
    pub(super) lines: Option<Vec<DiffLine>>,
    pub(super) problems: Vec<view::Problem>,
    pub(super) tried: Option<view::Tried>,
}

impl ConnectorFormPage {
    /// With what was refused.
    pub(super) fn alarmed(self, alert: String) -> Self {
        Self {
            frame: Frame {
                alert: Some(alert),
                ..self.frame
            },
            ..self
        }
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
        "stopped" => "It is stopped. Nothing is sent by it until somebody starts it.".to_owned(),
        "started" => "It is started: mail goes by it again.".to_owned(),
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
