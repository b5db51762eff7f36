//! Slack and Mattermost, Microsoft Teams, ntfy: what people read on a screen, escaped as each of them reads it.

use serde_json::{Value, json};

use super::{message::AlarmMessage, words};
use crate::{incident::catalogue::IncidentSeverity, mail::text};

/// The longest text of a message, in octets: less than any of them takes.
const LONGEST: usize = 3_500;

/// An incoming webhook (docs.slack.dev/messaging/formatting-message-text: `&`, `<` and `>` are escaped, nothing else).
pub(super) fn slack(message: &AlarmMessage, hostname: &str) -> String {
    let text = format!(
        "{}\n{}",
        words::headline(message, hostname),
        words::text(message)
    );
    let escaped = text::cut(&text, LONGEST)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    json!({ "text": escaped.trim_end() }).to_string()
}

/// A workflow of Teams takes an adaptive card. What is in a text run is no Markdown (adaptivecards.io, TextRun).
pub(super) fn teams(message: &AlarmMessage, hostname: &str) -> String {
    let run = |text: &str, is_bold: bool| {
        let mut run = json!({ "type": "TextRun", "text": text });
        if is_bold {
            run["weight"] = json!("bolder");
        }
        run
    };
    let block = |run: Value| json!({ "type": "RichTextBlock", "inlines": [run] });
    let mut headline = run(&words::headline(message, hostname), true);
    headline["color"] = json!(match (message.transition.as_str(), message.severity()) {
        ("recovered", _) => "good",
        (_, IncidentSeverity::Critical) => "attention",
        (_, IncidentSeverity::Warning) => "warning",
        (_, IncidentSeverity::Info) => "default",
    });
    let mut body = vec![block(headline)];
    let mut left = LONGEST;
    for (heading, lines) in words::parts(message) {
        if !heading.is_empty() {
            body.push(block(run(heading, true)));
        }
        for line in lines {
            let line = text::cut(&line, left);
            left -= line.len();
            if !line.is_empty() {
                body.push(block(run(line, false)));
            }
        }
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
            },
        }],
    })
    .to_string()
}

/// What goes to ntfy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// A value of a header field: printable ASCII.
    pub(super) title: String,
    pub(super) priority: &'static str,
    pub(super) tags: &'static str,
    pub(super) body: String,
}

/// docs.ntfy.sh/publish: 3 is usual, 5 rings.
pub(super) fn ntfy(message: &AlarmMessage, hostname: &str) -> Note {
    let title = words::headline(message, hostname);
    let (priority, tags) = match (message.transition.as_str(), message.severity()) {
        ("recovered", _) => ("3", "white_check_mark"),
        (_, IncidentSeverity::Critical) => ("5", "rotating_light"),
        (_, IncidentSeverity::Warning) => ("4", "warning"),
        (_, IncidentSeverity::Info) => ("3", "information_source"),
    };
    let title: String = title.chars().take(250).map(text::ascii).collect();
    Note {
        title: title.trim().to_owned(),
        priority,
        tags,
        body: text::cut(&words::text(message), LONGEST)
            .trim_end()
            .to_owned(),
    }
}
