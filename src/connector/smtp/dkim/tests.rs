//! Both forms against the examples of the standards and against a plain model; what is covered; whose key signs.
//!
//! Whether others verify what comes of it is tried with their own programs, in `tests/it`.

use std::time::Duration;

use super::*;
use crate::{
    fixture,
    mail::{
        address::Domain,
        headers,
        message::{Envelope, MessageId},
    },
    secret::Secret,
};

fn relaxed(value: &str) -> String {
    let mut out = Vec::new();
    relaxed_value(&mut out, b"a", value.as_bytes());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_field_is_relaxed_as_the_standard_shows() {
    // RFC 6376 §3.4.5.
    for (value, expected) in [
        (" X", "a:X"),
        ("Y\t\r\n\tZ  ", "a:Y Z"),
        ("", "a:"),
        (" \t ", "a:"),
        ("\r\n  x\r\n y\t\tz", "a:x y z"),
        ("x\r\n \r\n y", "a:x y"),
        (" \u{e9}  ", "a:\u{e9}"),
    ] {
        assert_eq!(relaxed(value), expected, "{value:?}");
    }
}

fn body_hash(pieces: &[&[u8]]) -> Vec<u8> {
    let mut hash = RelaxedBody::new();
    for piece in pieces {
        hash.feed(piece);
    }
    hash.finish().as_ref().to_vec()
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, octets).as_ref().to_vec()
}

#[test]
fn a_body_is_relaxed_as_the_standard_shows() {
    for (body, expected) in [
        // RFC 6376 §3.4.5.
        (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
        ("", ""),
        ("\r\n", ""),
        ("\r\n\r\n \t\r\n", ""),
        (" ", ""),
        ("\r\n\r\na", "\r\n\r\na\r\n"),
        (" \r\n\ta\r\n", "\r\n a\r\n"),
        ("a", "a\r\n"),
        ("a\r\n", "a\r\n"),
        ("a \t", "a\r\n"),
        ("a\r\n \r\n\t\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"),
        // What goes out of a lone CR or LF is the end of a line.
        ("a\nb\rc\r\r\nd\n\r", "a\r\nb\r\nc\r\n\r\nd\r\n"),
        (".\r\n..\r\n", ".\r\n..\r\n"),
    ] {
        let octets = body.as_bytes();
        assert_eq!(
            body_hash(&[octets]),
            sha256(expected.as_bytes()),
            "{body:?}"
        );
        let each: Vec<&[u8]> = octets.chunks(1).collect();
        assert_eq!(body_hash(&each), sha256(expected.as_bytes()), "{body:?}");
    }
    // RFC 8463 §A.3.
    let body = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
    let hash = STANDARD.encode(body_hash(&[body.as_bytes()]));
    assert_eq!(hash, "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
}

/// The same said plainly: what leaves, line by line.
fn model(body: &[u8]) -> Vec<u8> {
    let text: String = body.iter().map(|b| char::from(*b)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.split('\n').map(|line| {
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let blank = if line.starts_with([' ', '\t']) {
            " "
        } else {
            ""
        };
        match words.next() {
            None => String::new(),
            Some(first) => words.fold(format!("{blank}{first}"), |line, word| line + " " + word),
        }
    });
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.push(String::new());
    let out = if lines.len() > 1 {
        lines.join("\r\n")
    } else {
        String::new()
    };
    out.chars().map(|c| c as u8).collect()
}

#[test]
fn however_a_body_comes_it_is_the_plain_model_that_is_hashed() {
    let mut random = fastrand::Rng::with_seed(6376);
    let alphabet = b"ab. \t\r\n\r\n\r\n  \xe9\x00=";
    for _ in 0..fixture::times(20_000) {
        let body: Vec<u8> = (0..random.usize(..40))
            .map(|_| alphabet[random.usize(..alphabet.len())])
            .collect();
        let mut pieces = Vec::new();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
            pieces.push(piece);
            rest = after;
        }
        let expected = model(&body);
        assert_eq!(
            body_hash(&pieces),
            sha256(&expected),
            "{body:?} {expected:?}"
        );
    }
}

#[test]
fn what_waits_is_counted_and_not_kept() {
    let mut hash = RelaxedBody::new();
    let (lines, blanks) = ("\r\n".repeat(32 * 1024), " \t".repeat(32 * 1024));
    for _ in 0..100 {
        hash.feed(lines.as_bytes());
        hash.feed(blanks.as_bytes());
        assert!(hash.out.capacity() < 4 * RelaxedBody::BLOCK);
    }
    assert_eq!(hash.ends, 100 * 32 * 1024);
    hash.feed(b"x");
    assert!(hash.out.capacity() < 4 * RelaxedBody::BLOCK);
    let expected = "\r\n".repeat(100 * 32 * 1024) + " x\r\n";
    assert_eq!(hash.finish().as_ref(), sha256(expected.as_bytes()));
}

#[test]
fn every_name_is_covered_once_more_than_it_occurs() {
    let header = "Received: x\r\nFrom: a@corp.example\r\nsubject: one\r\nSUBJECT:\r\n two \r\nX-Own: 1\r\nReturn-Path: <>\r\n\
                  LIST-Custom: c\r\nList-x;l=0: y\r\nBcc: b@corp.example\r\n";
    let (names, octets) = covered(header.as_bytes());
    let count = |name: &str| names.iter().filter(|one| *one == name).count();
    for (name, expected) in [
        ("From", 2),
        ("To", 1),
        ("Subject", 3),
        ("Message-ID", 1),
        ("List-Unsubscribe", 1),
        ("List-Owner", 1),
        ("list-custom", 2),
        ("X-Own", 0),
        ("Received", 0),
        ("Return-Path", 0),
        ("Bcc", 0),
    ] {
        assert_eq!(count(name), expected, "{name} {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains(';')));
    // The last of a name goes first.
    assert_eq!(
        String::from_utf8(octets).unwrap(),
        "from:a@corp.example\r\nsubject:two\r\nsubject:one\r\nlist-custom:c\r\n"
    );
}

fn key(domain: &str, selector: &str, is_ed25519: bool) -> DkimKey {
    DkimKey {
        domain: Domain::parse(domain).unwrap(),
        selector: selector.to_owned(),
        key: Some(DkimPair::generate(is_ed25519).unwrap().1),
        from: None,
        until: None,
    }
}

fn message(header: &str, body: &'static str) -> Message {
    Message {
        id: MessageId::from_bytes([0; 16]),
        envelope: Envelope {
            sender: None,
            recipients: Vec::new(),
            eight_bit: false,
            dsn: None,
        },
        origin: fixture::origin(UNIX_EPOCH),
        header: header.to_owned().into(),
        body: Body::Memory(body.into()),
    }
}

#[tokio::test]
async fn the_first_address_of_from_says_who_signs() {
    let keys = [
        key("corp.example", "p", true),
        key("sub.corp.example", "s", true),
        key("xn--bcher-kva.example", "i", true),
    ];
    let signer = Signer::new(&keys).unwrap();
    for (from, expected) in [
        ("From: a@corp.example\r\n", "corp.example p"),
        ("from: A <a@CORP.Example>\r\n", "corp.example p"),
        (
            "From: \"b@other.example\" <a@corp.example>\r\n",
            "corp.example p",
        ),
        (
            "From: a@corp.example <a@corp.example>\r\n",
            "corp.example p",
        ),
        (
            "From:\r\n  \"A\r\n B\" <a@sub.corp.example>\r\n",
            "sub.corp.example s",
        ),
        (
            "From: a@x.sub.corp.example, b@corp.example\r\n",
            "sub.corp.example s",
        ),
        ("From: a@other.example, b@corp.example\r\n", ""),
        (
            "From: staff: a@corp.example, b@other.example;\r\n",
            "corp.example p",
        ),
        (
            "From: a@xn--bcher-kva.example\r\n",
            "xn--bcher-kva.example i",
        ),
        (
            "From: (c) <a@deep.xn--bcher-kva.example>\r\n",
            "xn--bcher-kva.example i",
        ),
        ("From: a@[192.0.2.1]\r\n", ""),
        ("From: a@example\r\n", ""),
        ("From: a@ycorp.example\r\n", ""),
        ("From: \r\n", ""),
        ("From: a@@corp.example\r\n", ""),
        ("Sender: a@corp.example\r\n", ""),
        ("From: a@corp.example\r\nSubject: a\rb\r\n", ""),
        ("", ""),
    ] {
        let signed = signer
            .sign(&message(from, "x\r\n"), UNIX_EPOCH)
            .await
            .unwrap();
        assert_eq!(signed.by, expected, "{from:?}");
        assert_eq!(signed.fields.is_empty(), expected.is_empty(), "{from:?}");
    }
}

#[tokio::test]
async fn both_kinds_sign_side_by_side_within_their_days() {
    let until = UNIX_EPOCH + Duration::from_secs(100);
    let keys = [
        key("corp.example", "rsa", false),
        DkimKey {
            until: Some(until),
            ..key("corp.example", "ed", true)
        },
    ];
    let signer = Signer::new(&keys).unwrap();
    let text = message("From: a@corp.example\r\n", "x\r\n");
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let both = signer.sign(&text, at(99)).await.unwrap();
    assert_eq!(both.by, "corp.example rsa, ed");
    let fields = String::from_utf8(both.fields.clone()).unwrap();
    assert_eq!(fields.matches("DKIM-Signature:").count(), 2, "{fields}");
    let one = signer.sign(&text, at(100)).await.unwrap();
    assert_eq!(one.by, "corp.example rsa");
    for line in fields.split("\r\n") {
        assert!(line.len() <= 78, "{line:?}");
    }
    let tags: Vec<String> = headers::fields(&both.fields)
        .flat_map(|field| {
            let value = headers::unfold(field.value);
            let value = String::from_utf8_lossy(&value).into_owned();
            let tags = value
                .split(';')
                .map(|tag| tag.split('=').next().unwrap().trim().to_owned());
            tags.collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(tags.join(" "), "v a c d s t h bh b v a c d s t h bh b");
    assert!(fields.contains("t=99;") && fields.contains("c=relaxed/relaxed"));
    // Another attempt, another time.
    let again = signer.sign(&text, at(98)).await.unwrap();
    assert_ne!(again.fields, both.fields);
}

#[test]
fn a_key_that_is_none_is_named() {
    let broken = DkimKey {
        key: Some(Secret::new("hunter2")),
        ..key("corp.example", "p", true)
    };
    let why = Signer::new(&[broken]).err().unwrap();
    assert_eq!(
        why,
        "the DKIM key p._domainkey.corp.example is not a private key in PEM form"
    );
}
