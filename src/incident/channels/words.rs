//! A message in plain words, a line each: what every channel for people says.

use super::message::{AlarmMessage, TEST};
use crate::incident::catalogue::IncidentSeverity;

/// One line.
pub(super) fn headline(message: &AlarmMessage, hostname: &str) -> String {
    let incident = &message.incident;
    let what = match message.transition.as_str() {
        "recovered" => "recovered",
        "reminded" => "still open",
        TEST => TEST,
        _ => match message.severity() {
            IncidentSeverity::Critical => "critical",
            IncidentSeverity::Warning => "warning",
            IncidentSeverity::Info => "info",
        },
    };
    format!(
        "[{what}] {}: {}",
        one_line(hostname),
        one_line(&incident.title)
    )
}

/// What is known and what to do, in parts: a heading, which may be empty, and its lines.
pub(super) fn parts(message: &AlarmMessage) -> Vec<(&'static str, Vec<String>)> {
    let incident = &message.incident;
    let mut facts = vec![format!("Since {}", incident.opened_at)];
    if let Some(at) = &incident.recovered_at {
        facts = vec![format!("From {} to {at}", incident.opened_at)];
    }
    if incident.count > 1 {
        facts.push(format!("It has opened {} times", incident.count));
    }
    if message.transition != TEST {
        facts.push(format!("{} ({})", incident.id, incident.kind));
    }
    let mut parts = vec![("", facts)];
    if !incident.evidence.is_empty() {
        parts.push(("Evidence", incident.evidence.clone()));
    }
    if message.transition != "recovered" {
        parts.push(("It may be", incident.causes.clone()));
        parts.push(("What to do", vec![incident.remedy.clone()]));
    }
    for (_, lines) in &mut parts {
        for line in lines {
            *line = one_line(line);
        }
    }
    parts
}

/// All of it below the headline.
pub(super) fn text(message: &AlarmMessage) -> String {
    let mut text = String::new();
    for (heading, lines) in parts(message) {
        if !heading.is_empty() {
            text.push('\n');
            text.push_str(heading);
            text.push_str(":\n");
        }
        for line in lines {
            if heading == "Evidence" || heading == "It may be" {
                text.push_str("- ");
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Whatever it held.
pub(super) fn one_line(text: &str) -> String {
    crate::mail::text::shown_to(text, 2_000)
}
