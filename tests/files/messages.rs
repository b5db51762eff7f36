//! Golden messages: `NAME.eml` in, `NAME.out` out.
//!
//! The first line, `sender ADDRESS`, says who sends. The `.out` is the message without Received, or the reply. Line ends are LF in
//! the files.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use postern::{
    mail::{
        headers,
        message::{MessageId, Origin},
        repair,
    },
    policy::{
        About, Policy, Who,
        alter::{HeaderRule, SubjectPrefix},
        redirect::Redirected,
        rewrite::{ReplyTo, Rewrite},
    },
};

use crate::fixture::{self, address, patterns, policy};

pub fn leaves_as_written(file: &Path) {
    let input = fs::read_to_string(file).unwrap();
    let expected = fs::read_to_string(file.with_extension("out")).unwrap();
    let (sender, message) = input
        .strip_prefix("sender ")
        .and_then(|rest| rest.split_once('\n'))
        .unwrap();
    let message = message.replace('\n', "\r\n").into_bytes();
    let (written, _) = passed(sender, &message, Vec::new());
    assert_eq!(written, expected);
    is_marked(sender, &message, &expected);
}

/// Whatever the text, a prefix of the subject changes nothing but the subject, and twice is once.
fn is_marked(sender: &str, message: &[u8], expected: &str) {
    let rule = HeaderRule {
        subject_prefix: Some(SubjectPrefix::parse("[TEST] ").unwrap()),
        ..HeaderRule::default()
    };
    let (marked, Some(header)) = passed(sender, message, vec![rule.clone()]) else {
        return assert_eq!(passed(sender, message, vec![rule]).0, expected);
    };
    assert!(headers::subject(&header).unwrap().starts_with("[TEST]"));
    let without = |text: &str| {
        let (header, body) = text.split_once("\n\n").unwrap();
        let header = format!("{header}\n").replace('\n', "\r\n");
        (
            headers::remove(header.as_bytes(), &["Subject"]),
            body.to_owned(),
        )
    };
    assert_eq!(without(&marked), without(expected));
    let (twice, _) = passed(sender, message, vec![rule.clone(), rule]);
    assert_eq!(twice, marked);
}

/// What leaves, and the header of that unless it was refused.
fn passed(
    sender: &str,
    message: &[u8],
    header_rules: Vec<HeaderRule>,
) -> (String, Option<Vec<u8>>) {
    let policy = Policy {
        header_rules,
        rewrites: vec![Rewrite {
            senders: patterns("*@localhost root@*"),
            to: address("noreply@corp.com"),
            reply_to: ReplyTo::Original,
        }],
        ..policy("corp.com", "corp.com")
    };
    let origin = Origin {
        peer: "10.0.0.9:4711".parse().unwrap(),
        helo: "device".into(),
        ..fixture::origin(SystemTime::UNIX_EPOCH + Duration::from_hours(498_732))
    };
    let sender = (sender != "<>").then(|| address(sender));
    let rewrite = policy.rewrite(sender.as_ref());
    let mut from = 0;
    let end = repair::header_end(message, &mut from, true).unwrap();
    let header = policy.header(
        &message[end.start..end.end],
        &About {
            who: Who {
                client: None,
                user: None,
            },
            id: MessageId::from_bytes([1; 16]),
            origin: &origin,
            sender_given: sender.as_ref(),
            sender: rewrite.map_or(sender.as_ref(), |(_, rewrite)| Some(&rewrite.to)),
            rewrite: rewrite.map(|(index, _)| index),
            recipients: &[address("to@corp.com").into()],
            redirected: &Redirected::default(),
            hostname: "relay.corp.com",
            bounce_from: &address("postmaster@relay.corp.com"),
            unquoted_names: false,
        },
    );
    match header {
        Ok(header) => {
            let mut out = headers::remove(&header, &["Received"]);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&message[end.body..]);
            (
                String::from_utf8(out).unwrap().replace("\r\n", "\n"),
                Some(header),
            )
        }
        Err(reply) => (format!("{reply}\n"), None),
    }
}
