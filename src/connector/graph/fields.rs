//! A header as the properties of a Graph `message`.
//!
//! It is pure. Here, too, an allowlist could be walked around: the three lists of recipients are what
//! `recipients` makes of the header, and nothing else. The body and the attachments are `parts`'.

use serde_json::{Map, Value, json};

use super::{people, recipients, words};
use crate::mail::{headers, recipient::Recipient};

/// The property that carries the key of a job, in a namespace of our own: a draft is found again by it, sent or not.
pub(super) const KEY: &str = "String {c000beaf-6612-41dd-b386-f03c9a56eaa9} Name PosternJob";

/// Graph takes five header fields of its user's choice, and only `X-` ones.
const FIELDS: usize = 5;
/// So many are looked at.
const LOOKED_AT: usize = 200;
/// A longer one is not taken over.
const FIELD: usize = 900;

/// Fields that Graph has no name for, as the MAPI properties that Exchange writes them from ([MS-OXPROPS]).
const PROPERTIES: &[(&str, &str)] = &[
    ("In-Reply-To", "String 0x1042"),
    ("References", "String 0x1039"),
    ("List-Unsubscribe", "String 0x1045"),
];

/// Fields that Exchange writes as they stand from named properties of this namespace (PS_INTERNET_HEADERS, [MS-OXCMAIL] 2.1.3.2.21).
const INTERNET_HEADERS: &str = "String {00020386-0000-0000-C000-000000000046} Name ";
const NAMED: &[&str] = &[
    "Auto-Submitted",
    "Precedence",
    "List-Id",
    "List-Unsubscribe-Post",
    "Organization",
];

/// Sensitivity (RFC 4021 §2.1.55) as PidTagSensitivity.
const SENSITIVITY: &[(&str, &str)] = &[
    ("personal", "1"),
    ("private", "2"),
    ("company-confidential", "3"),
];

/// `X-` fields that others act on; they go before the rest.
const FIRST: &[&str] = &[
    "x-auto-response-suppress",
    "x-loop",
    "x-auto-reply",
    "x-no-archive",
];
/// What only says who made the message goes last.
const LAST: &[&str] = &[
    "x-mailer",
    "x-mimeole",
    "x-spam",
    "x-virus",
    "x-scanned",
    "x-php",
];

/// Categories of a message, and characters of each.
const CATEGORIES: (usize, usize) = (25, 255);

/// What `X-` fields are not taken over: those with a property of their own, and those that Exchange keeps for itself.
const RESERVED: &[&str] = &[
    "x-priority",
    "x-msmail-priority",
    "x-ms-",
    "x-microsoft-",
    "x-forefront-",
    "x-originating-",
    "x-eop",
];

/// Everything but the body. `key` is the job's.
pub(super) fn properties(header: &[u8], to: &[Recipient], key: &str) -> Map<String, Value> {
    let mut message = Map::new();
    let charset = words::declared(header);
    let subject = headers::value_of(header, "Subject").unwrap_or_default();
    let subject = words::name(subject, charset.as_deref());
    message.insert("subject".into(), subject.into());
    let senders = [("from", "From"), ("sender", "Sender")];
    for (property, name) in senders {
        if let Some(first) = people(header, name).into_iter().next() {
            message.insert(property.into(), first);
        }
    }
    let rewritten = recipients::rewritten(header, to);
    for (property, name, from) in [
        ("toRecipients", "To", &rewritten[..]),
        ("ccRecipients", "Cc", &rewritten),
        ("bccRecipients", "Bcc", &rewritten),
        ("replyTo", "Reply-To", header),
    ] {
        let people = people(from, name);
        if !people.is_empty() {
            message.insert(property.into(), people.into());
        }
    }
    if let Some(id) = line(header, "Message-ID") {
        message.insert("internetMessageId".into(), id.into());
    }
    if let Some(importance) = importance(header) {
        message.insert("importance".into(), importance.into());
    }
    for (name, property) in [
        ("Disposition-Notification-To", "isReadReceiptRequested"),
        ("Return-Receipt-To", "isDeliveryReceiptRequested"),
    ] {
        if headers::value_of(header, name).is_some_and(|value| value.contains(&b'@')) {
            message.insert(property.into(), true.into());
        }
    }
    let categories = categories(header);
    if !categories.is_empty() {
        message.insert("categories".into(), categories.into());
    }
    let fields = fields(header);
    // An empty list is an error.
    if !fields.is_empty() {
        message.insert("internetMessageHeaders".into(), fields.into());
    }
    let mut properties = vec![json!({"id": KEY, "value": key})];
    for (name, id) in PROPERTIES {
        if let Some(value) = line(header, name) {
            properties.push(json!({"id": id, "value": value}));
        }
    }
    for name in NAMED {
        if let Some(value) = line(header, name).filter(|value| value.len() <= FIELD) {
            properties.push(json!({"id": format!("{INTERNET_HEADERS}{name}"), "value": value}));
        }
    }
    let sensitivity = line(header, "Sensitivity").map(|value| value.to_ascii_lowercase());
    if let Some((_, value)) = SENSITIVITY
        .iter()
        .find(|(word, _)| sensitivity.as_deref() == Some(word))
    {
        properties.push(json!({"id": "Integer 0x36", "value": value}));
    }
    message.insert("singleValueExtendedProperties".into(), properties.into());
    message
}

/// Whoever stands in a field.
fn people(header: &[u8], name: &str) -> Vec<Value> {
    let Some(value) = headers::value_of(header, name) else {
        return Vec::new();
    };
    let charset = words::declared(header);
    people::listed(value)
        .iter()
        .map(|person| {
            let name = words::name(&recipients::unquoted(&person.name), charset.as_deref());
            let address = person.address.to_string();
            if name.is_empty() {
                json!({"emailAddress": {"address": address}})
            } else {
                json!({"emailAddress": {"name": name, "address": address}})
            }
        })
        .collect()
}

/// A value of one line of ASCII.
fn line(header: &[u8], name: &str) -> Option<String> {
    let value = headers::unfold(headers::value_of(header, name)?);
    let value = std::str::from_utf8(value.trim_ascii()).ok()?;
    let fine = !value.is_empty()
        && value
            .bytes()
            .all(|b| (b' '..127).contains(&b) || b == b'\t');
    fine.then(|| value.to_owned())
}

fn importance(header: &[u8]) -> Option<&'static str> {
    let first = |name| line(header, name).map(|value| value.to_ascii_lowercase());
    if let Some(importance) = first("Importance") {
        return ["high", "low"]
            .into_iter()
            .find(|known| *known == importance);
    }
    let urgent = match first("X-Priority").and_then(|value| value.bytes().next()) {
        Some(b'1' | b'2') => return Some("high"),
        Some(b'4' | b'5') => return Some("low"),
        Some(_) => return None,
        None => first("X-MSMail-Priority").or_else(|| first("Priority"))?,
    };
    match urgent.as_str() {
        "urgent" | "high" => Some("high"),
        "non-urgent" | "low" => Some("low"),
        _ => None,
    }
}

/// Keywords (RFC 5322 §3.6.5).
fn categories(header: &[u8]) -> Vec<Value> {
    let text = headers::value_of(header, "Keywords").map(words::text);
    let text = text.unwrap_or_default();
    let each = text
        .split([',', ';'])
        .map(|word| word.trim().trim_matches('"'));
    let kept = each.filter(|word| !word.is_empty());
    kept.take(CATEGORIES.0)
        .map(|word| word.chars().take(CATEGORIES.1).collect::<String>().into())
        .collect()
}

/// The fields that there is room for, those first that others act on.
fn fields(header: &[u8]) -> Vec<Value> {
    let mut taken: Vec<String> = Vec::new();
    let mut fields = Vec::new();
    for field in headers::fields(header) {
        let Ok(name) = std::str::from_utf8(field.name) else {
            continue;
        };
        let lower = name.to_ascii_lowercase();
        if !lower.starts_with("x-")
            || RESERVED.iter().any(|reserved| lower.starts_with(reserved))
            || taken.contains(&lower)
        {
            continue;
        }
        let Some(value) = line(field.raw, name).filter(|value| value.len() <= FIELD) else {
            continue;
        };
        let rank = match () {
            () if FIRST.contains(&lower.as_str()) => 0,
            () if LAST.iter().any(|last| lower.starts_with(last)) => 2,
            () => 1,
        };
        fields.push((rank, json!({"name": name, "value": value})));
        taken.push(lower);
        if fields.len() == LOOKED_AT {
            break;
        }
    }
    fields.sort_by_key(|(rank, _)| *rank);
    let first = fields.into_iter().take(FIELDS);
    first.map(|(_, field)| field).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{fixture, mail::address::Address};

    fn of(header: &str, to: &[&str]) -> Map<String, Value> {
        let to: Vec<Recipient> = to
            .iter()
            .map(|a| Address::parse(a).unwrap().into())
            .collect();
        properties(header.replace('\n', "\r\n").as_bytes(), &to, "K")
    }

    fn check(header: &str, property: &str, expected: impl Into<Value>) {
        let found = of(header, &["x@a.b", "y@a.b"]);
        let found = found.get(property).cloned().unwrap_or(Value::Null);
        assert_eq!(found, expected.into(), "{header}");
    }

    fn person(name: &str, address: &str) -> Value {
        match name {
            "" => json!({"emailAddress": {"address": address}}),
            name => json!({"emailAddress": {"name": name, "address": address}}),
        }
    }

    #[test]
    fn one_by_one() {
        check("Subject: =?utf-8?Q?=C3=A4?=\n b\n", "subject", "\u{e4} b");
        check("To: q@a.b\n", "subject", "");
        let japanese = b"Content-Type: text/plain; charset=shift_jis\r\nSubject: \x93\xfa\x96{\r\nFrom: \x93\xfa <a@a.b>\r\n";
        let found = properties(japanese, &[], "K");
        assert_eq!(found["subject"], "\u{65e5}\u{672c}");
        assert_eq!(found["from"], person("\u{65e5}", "a@a.b"));
        check(
            "From: scan@a.b <scan@a.b>\n",
            "from",
            person("scan@a.b", "scan@a.b"),
        );
        check(
            "From: \"Doe, \\\"J\\\"\" <d@a.b>, e@a.b\nSender: E <e@a.b>\n",
            "from",
            person("Doe, \"J\"", "d@a.b"),
        );
        check(
            "From: a@a.b\nSender: E <e@a.b>\n",
            "sender",
            person("E", "e@a.b"),
        );
        check("From: a@a.b\n", "sender", Value::Null);
        check(
            "To: =?utf-8?B?w6Q=?= <X@a.b>, v@victim.tld\nCc: w@victim.tld\n",
            "toRecipients",
            json!([person("\u{e4}", "X@a.b")]),
        );
        check(
            "To: X <x@a.b>\n",
            "bccRecipients",
            json!([person("", "y@a.b")]),
        );
        check(
            "To: X <x@a.b>\nCc: w@victim.tld\n",
            "ccRecipients",
            Value::Null,
        );
        check(
            "Reply-To: J\u{fc}rgen <r@a.b>,\n s@a.b\n",
            "replyTo",
            json!([person("J\u{fc}rgen", "r@a.b"), person("", "s@a.b")]),
        );
        check("Message-ID:\n <m@a.b>\n", "internetMessageId", "<m@a.b>");
        check("Message-ID: \n", "internetMessageId", Value::Null);
        for (field, expected) in [
            ("Importance: HIGH", json!("high")),
            ("Importance: normal\nX-Priority: 1", Value::Null),
            ("X-Priority: 1 (Highest)", json!("high")),
            ("X-Priority: 5", json!("low")),
            ("X-Priority: 3", Value::Null),
            ("X-MSMail-Priority: High", json!("high")),
            ("Priority: urgent", json!("high")),
            ("Priority: normal", Value::Null),
        ] {
            check(&format!("{field}\n"), "importance", expected);
        }
        check(
            "X-Empty: \nX-MS-Exchange-Organization-SCL: -1\nX-Priority: 1\nY: 1\n",
            "internetMessageHeaders",
            Value::Null,
        );
        check(
            "X-A: 1\nx-a: 2\nX-B: b\n c\nX-\u{e4}: 1\nX-C: \u{e4}\nX-D: d\nX-E: e\nX-F: f\nX-G: g\n",
            "internetMessageHeaders",
            json!([
                {"name": "X-A", "value": "1"}, {"name": "X-B", "value": "b c"}, {"name": "X-D", "value": "d"},
                {"name": "X-E", "value": "e"}, {"name": "X-F", "value": "f"},
            ]),
        );
        check(
            "In-Reply-To: <a@b>\nReferences: <c@d>\n <a@b>\n",
            "singleValueExtendedProperties",
            json!([
                {"id": KEY, "value": "K"}, {"id": "String 0x1042", "value": "<a@b>"}, {"id": "String 0x1039", "value": "<c@d> <a@b>"},
            ]),
        );
    }

    /// For 10,000 headers: the addresses that Graph is given are the envelope, each once.
    #[test]
    fn what_others_act_on_is_kept() {
        check(
            "Disposition-Notification-To: <a@a.b>\n",
            "isReadReceiptRequested",
            true,
        );
        check(
            "Return-Receipt-To: a@a.b\n",
            "isDeliveryReceiptRequested",
            true,
        );
        check(
            "Return-Receipt-To: \n",
            "isDeliveryReceiptRequested",
            Value::Null,
        );
        check(
            "Keywords: Urgent, =?utf-8?Q?=C3=A4?=,\n",
            "categories",
            json!(["Urgent", "\u{e4}"]),
        );
        for (field, id, value) in [
            ("Sensitivity: Company-Confidential", "Integer 0x36", "3"),
            ("Sensitivity: private", "Integer 0x36", "2"),
            (
                "Auto-Submitted: auto-generated",
                "String {00020386-0000-0000-C000-000000000046} Name Auto-Submitted",
                "auto-generated",
            ),
        ] {
            let found = of(&format!("{field}\n"), &["x@a.b"]);
            let properties = found["singleValueExtendedProperties"].as_array().unwrap();
            let wanted = json!({"id": id, "value": value});
            assert!(properties.contains(&wanted), "{field}: {properties:?}");
        }
        let header =
            "X-Mailer: m\nX-A: 1\nX-B: 2\nX-C: 3\nX-D: 4\nX-E: 5\nX-Auto-Response-Suppress: All\n";
        let found = of(header, &["x@a.b"]);
        let kept = found["internetMessageHeaders"].as_array().unwrap();
        let names: Vec<_> = kept
            .iter()
            .map(|field| field["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["X-Auto-Response-Suppress", "X-A", "X-B", "X-C", "X-D"]
        );
    }

    #[test]
    fn the_recipients_are_the_envelope() {
        let mut random = fastrand::Rng::with_seed(23);
        let pool = [
            "a@corp.example",
            "\"odd one\"@corp.example",
            "c+tag@sub.corp.example",
            "D@corp.example",
            "v@victim.tld",
            "w@victim.tld",
        ];
        for _ in 0..fixture::times(10_000) {
            let mut header = String::from("From: a@corp.example\n");
            for _ in 0..random.usize(0..6) {
                let name = [
                    "To",
                    "Cc",
                    "Bcc",
                    "tO",
                    "Resent-To",
                    "Resent-Bcc",
                    "Reply-To",
                ][random.usize(0..7)];
                let members: Vec<String> = (0..random.usize(0..4))
                    .map(|_| {
                        let address = pool[random.usize(0..pool.len())];
                        match random.u8(0..7) {
                            0 => format!("\"Last, First\" <{address}>"),
                            1 => format!("=?utf-8?Q?x=40victim.tld?= <{address}>"),
                            2 => format!("team: {address};"),
                            3 => format!("other@victim.tld <{address}>"),
                            4 => "broken <<".to_owned(),
                            _ => address.to_owned(),
                        }
                    })
                    .collect();
                header += &[name, ": ", &members.join(",\n "), "\n"].concat();
            }
            let to: Vec<&str> = (0..random.usize(1..5))
                .map(|_| pool[random.usize(0..pool.len())])
                .collect();
            let wanted: HashSet<String> = to.iter().map(|a| a.to_ascii_lowercase()).collect();
            let message = of(&header, &to);
            let mut found = HashSet::new();
            for list in ["toRecipients", "ccRecipients", "bccRecipients"] {
                for one in message
                    .get(list)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    let address = one["emailAddress"]["address"].as_str().unwrap();
                    assert!(
                        found.insert(address.to_ascii_lowercase()),
                        "twice: {header}"
                    );
                }
            }
            assert_eq!(found, wanted, "{header}");
        }
    }
}
