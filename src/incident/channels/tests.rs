use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::*;

fn message(evidence: &str, transition: &str, severity: &str) -> AlarmMessage {
    let mut message = AlarmMessage::test(
        "x",
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        7,
    );
    message.key = "i42/3/opened".to_owned();
    message.transition = transition.to_owned();
    message.incident.id = "i42".to_owned();
    message.incident.kind = "mailbox_refused".to_owned();
    message.incident.object = "up/a@corp.example".to_owned();
    message.incident.severity = severity.to_owned();
    message.incident.title = "The mailbox is refused".to_owned();
    message.incident.evidence = vec![evidence.to_owned()];
    message
}

const HOSTILE: &str =
    "550 <!channel> & **bold** [x](http://evil.example) `a`\r\nTags: skull\u{202e}\u{1b}[2J";

#[test]
fn slack_reads_text_as_text() {
    let body: Value = serde_json::from_str(&chat::slack(
        &message(HOSTILE, "opened", "critical"),
        "gw.example",
    ))
    .unwrap();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["text"]);
    let text = body["text"].as_str().unwrap();
    assert!(
        text.starts_with("[critical] gw.example: The mailbox is refused\n"),
        "{text}"
    );
    assert!(
        text.contains("550 &lt;!channel&gt; &amp; **bold**"),
        "{text}"
    );
    assert!(
        !text.contains('<')
            && !text.contains('>')
            && !text.contains('\u{202e}')
            && !text.contains('\r')
    );
    assert!(text.contains("What to do:"));
}

#[test]
fn a_card_of_teams_has_no_markdown() {
    let body: Value = serde_json::from_str(&chat::teams(
        &message(HOSTILE, "opened", "warning"),
        "gw.example",
    ))
    .unwrap();
    assert_eq!(body["type"], "message");
    let attachment = &body["attachments"][0];
    assert_eq!(
        attachment["contentType"],
        "application/vnd.microsoft.card.adaptive"
    );
    let card = &attachment["content"];
    assert_eq!(
        (&card["type"], &card["version"]),
        (&Value::from("AdaptiveCard"), &Value::from("1.4"))
    );
    let blocks = card["body"].as_array().unwrap();
    assert!(
        blocks
            .iter()
            .all(|block| block["type"] == "RichTextBlock"
                && block["inlines"][0]["type"] == "TextRun")
    );
    let said = blocks
        .iter()
        .filter_map(|block| block["inlines"][0]["text"].as_str());
    assert!(said.clone().any(|text| text.contains("**bold**")));
    assert!(
        said.clone()
            .all(|text| !text.contains(['\r', '\n', '\u{1b}', '\u{202e}']))
    );
    let long = chat::teams(
        &message(&"y".repeat(100_000), "opened", "warning"),
        "gw.example",
    );
    assert!(long.len() < 10_000);
}

#[test]
fn a_header_of_ntfy_is_one_line() {
    for (transition, severity, priority) in [
        ("opened", "info", "3"),
        ("opened", "warning", "4"),
        ("reminded", "critical", "5"),
        ("recovered", "critical", "3"),
    ] {
        let mut one = message(HOSTILE, transition, severity);
        one.incident.title = format!("Ä {HOSTILE}");
        let note = chat::ntfy(&one, "gw.example");
        assert_eq!(note.priority, priority);
        assert!(
            note.title.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{}",
            note.title
        );
        assert!(reqwest::header::HeaderValue::from_str(&note.title).is_ok());
        assert!(note.body.len() < 4_096);
    }
}

#[test]
fn a_webhook_says_what_it_is_about() {
    let body: Value = serde_json::from_str(&webhook::body(
        &message(HOSTILE, "opened", "warning"),
        "gw.example",
    ))
    .unwrap();
    assert_eq!(body["schema"], 1);
    assert_eq!(body["transition"], "opened");
    assert_eq!(body["incident"]["id"], "i42");
    assert_eq!(body["gateway"]["hostname"], "gw.example");
    assert_eq!(body["sent_at"], "2023-11-14T22:13:20Z");
}

#[test]
fn a_letter_does_not_take_the_connector_that_it_is_about() {
    let letter = |kind: &str, object: &str| {
        let mut one = message("x", "opened", "warning");
        one.incident.kind = kind.to_owned();
        one.incident.object = object.to_owned();
        letter::compose(&one, "gw.example", Vec::new(), None)
    };
    let about = |kind: &str, object: &str| letter(kind, object).about.map(|name| name.to_string());
    assert_eq!(
        about("mailbox_refused", "up/a@corp.example").as_deref(),
        Some("up")
    );
    assert_eq!(about("connector_paused", "up").as_deref(), Some("up"));
    assert_eq!(about("token_failing", "up").as_deref(), Some("up"));
    assert_eq!(about("queue_old", "up"), None);
    let letter = letter("connector_paused", "up");
    assert_eq!(letter.id, "i42.3.opened");
    assert!(letter.subject.starts_with("[warning] gw.example: ") && !letter.subject.contains('\n'));
    assert!(letter.text.contains("What to do:\n"));
}
