//! The header of a message: what is refused in it, who is named in it, what is taken out and what is put in.
//!
//! Apart from the envelope's rules because it answers at the end of DATA. Order (`design.md` §3): what can be read in two
//! ways is refused, then repair, rewrite, judgement. The body is not looked at, and every field that no rule names keeps
//! its bytes and its place. Of several Date, Subject, To or Message-ID fields all stay: they give no right.

use memchr::memchr2;

use super::{About, Policy, grants, grants::Party, rewrite::rewrite_value};
use crate::mail::{
    address::Address,
    headers::{self, Field, fields, lines},
    mailboxes, repair,
    reply::Reply,
};

/// A HELO name in Received is cut here; longer ones are no names (RFC 5321 §4.5.3.1.2).
const HELO_LENGTH: usize = 255;

/// See [`Policy::header`].
pub(super) fn header(policy: &Policy, raw: &[u8], about: &About<'_>) -> Result<Vec<u8>, Reply> {
    let raw = without_blank_tail(raw);
    one_reading(raw)?;
    let mut out = Vec::with_capacity(raw.len() + 512);
    received(&mut out, about);
    let mut seen = Seen::default();
    for field in fields(raw) {
        seen.field(policy, about, field, &mut out)?;
    }
    seen.complete(policy, about, &mut out);
    Ok(out)
}

/// What the fields so far held.
#[derive(Default)]
struct Seen {
    from: bool,
    sender: bool,
    date: bool,
    message_id: bool,
    reply_to: bool,
    received: usize,
    /// The first From that a rewrite replaced.
    replaced: Option<Address>,
}

impl Seen {
    /// Judges one field and writes what leaves of it.
    fn field(
        &mut self,
        policy: &Policy,
        about: &About<'_>,
        field: Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reply> {
        if field.name.is_empty() {
            return Err(Reply::two_readings("its first line is no field"));
        }
        if field.is_spaced() {
            return Err(Reply::two_readings(
                "a field name with white space before the colon",
            ));
        }
        if field.is("From") {
            if std::mem::replace(&mut self.from, true) {
                return Err(Reply::two_readings("two From fields"));
            }
            return self.originator(policy, about, field, "From", out);
        }
        if field.is("Sender") {
            if std::mem::replace(&mut self.sender, true) {
                return Err(Reply::two_readings("two Sender fields"));
            }
            return self.originator(policy, about, field, "Sender", out);
        }
        // Every block of Resent fields names somebody (RFC 5322 §3.6.6).
        for name in ["Resent-From", "Resent-Sender"] {
            if field.is(name) {
                return self.originator(policy, about, field, name, out);
            }
        }
        if policy.allowlist.header_recipients {
            for name in ["To", "Cc", "Bcc"] {
                if field.is(name) {
                    recipients(policy, about, field, name)?;
                }
            }
        }
        if field.is("Received") {
            self.received += 1;
            if self.received > policy.received_headers {
                return Err(Reply::mail_loop(policy.received_headers));
            }
        }
        for (name, present) in [
            ("Date", &mut self.date),
            ("Message-ID", &mut self.message_id),
            ("Reply-To", &mut self.reply_to),
        ] {
            if field.is(name) {
                if field.is_blank() {
                    return Ok(()); // as if it were missing
                }
                *present = true;
            }
        }
        // Nobody sees who got a blind copy; Return-Path is the last hop's to write (RFC 5321 §4.4).
        if ["Bcc", "Resent-Bcc", "Return-Path"]
            .iter()
            .any(|name| field.is(name))
        {
            return Ok(());
        }
        copy(field, out);
        Ok(())
    }

    /// From, Sender and their Resent forms: rewritten, judged, written.
    fn originator(
        &mut self,
        policy: &Policy,
        about: &About<'_>,
        field: Field<'_>,
        name: &'static str,
        out: &mut Vec<u8>,
    ) -> Result<(), Reply> {
        let own = matches!(name, "From" | "Sender");
        let mut found = match mailboxes::parse(field.value) {
            Ok(found) if !found.is_empty() => found,
            other => {
                let completed = own
                    .then(|| repair::complete_mailbox(field.value, own_address(about)))
                    .flatten();
                let Some(value) = completed else {
                    let reason = other.map_or_else(|e| e.0, |_| "it has no address");
                    return Err(Reply::not_understood(name, reason));
                };
                if name == "From" {
                    self.replace_given(policy, about);
                }
                out.extend_from_slice(field.name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(&value);
                out.extend_from_slice(b"\r\n");
                return Ok(());
            }
        };
        let rewrite = about
            .rewrite
            .filter(|_| own)
            .and_then(|index| policy.rewrites.get(index));
        if name == "From"
            && let Some(rewrite) = rewrite
        {
            self.replaced = found
                .iter()
                .map(|m| &m.address)
                .find(|a| rewrite.applies(a) && rewrite.keeps_for_reply(a))
                .cloned();
        }
        let value = rewrite_value(field.value, &mut found, rewrite);
        for mailbox in &found {
            let refusal = grants::refusal(policy, about.who, Party::Sender, Some(&mailbox.address));
            if let Some(refusal) = refusal {
                return Err(refusal.in_field(name));
            }
        }
        match value {
            None => copy(field, out),
            Some(value) => {
                out.extend_from_slice(field.name);
                out.push(b':');
                out.extend_from_slice(&value);
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// A From that we filled in stands for the envelope sender as it was given.
    fn replace_given(&mut self, policy: &Policy, about: &About<'_>) {
        let rewrite = about.rewrite.and_then(|index| policy.rewrites.get(index));
        self.replaced = about
            .sender_given
            .filter(|given| rewrite.is_some_and(|r| r.keeps_for_reply(given)))
            .cloned();
    }

    /// What is missing.
    fn complete(mut self, policy: &Policy, about: &About<'_>, out: &mut Vec<u8>) {
        if !self.from {
            self.replace_given(policy, about);
            headers::append(out, "From", own_address(about).to_string().as_bytes());
        }
        if let (false, Some(replaced)) = (self.reply_to, &self.replaced) {
            headers::append(out, "Reply-To", replaced.to_string().as_bytes());
        }
        if !self.date {
            headers::append(out, "Date", repair::date(about.origin.at).as_bytes());
        }
        if !self.message_id {
            let id = repair::message_id(about.id, about.hostname);
            headers::append(out, "Message-ID", id.as_bytes());
        }
    }
}

/// The From of a message that has none.
fn own_address<'a>(about: &About<'a>) -> &'a Address {
    about.sender.unwrap_or(about.bounce_from)
}

/// To, Cc and Bcc against the recipient lists. A value without any `@` (`undisclosed-recipients:;`) names nobody.
fn recipients(
    policy: &Policy,
    about: &About<'_>,
    field: Field<'_>,
    name: &str,
) -> Result<(), Reply> {
    if !field.value.contains(&b'@') {
        return Ok(());
    }
    let found =
        mailboxes::parse(field.value).map_err(|error| Reply::not_understood(name, error.0))?;
    for mailbox in &found {
        let refusal = grants::refusal(policy, about.who, Party::Recipient, Some(&mailbox.address));
        if let Some(refusal) = refusal {
            return Err(refusal.in_field(name));
        }
    }
    Ok(())
}

/// Some clients part header and body by a line of white space: at the end of the header it says nothing, and goes.
fn without_blank_tail(mut raw: &[u8]) -> &[u8] {
    while let Some(last) = raw
        .strip_suffix(b"\n")
        .map(|rest| memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1))
        && raw
            .get(last..)
            .is_some_and(|line| line.trim_ascii().is_empty())
    {
        raw = raw.get(..last).unwrap_or_default();
    }
    raw
}

/// Refuses octets and lines at which another reader may see another header than ours.
fn one_reading(raw: &[u8]) -> Result<(), Reply> {
    for line in lines(raw) {
        if line.trim_ascii().is_empty() {
            return Err(Reply::two_readings("a line of white space inside it"));
        }
        if memchr2(0, b'\r', line).is_some() {
            return Err(Reply::two_readings("a NUL or a bare CR"));
        }
        // VT, FF and the separators end a line for readers that split text as Unicode has it.
        if line.iter().any(|b| matches!(b, 0x0b | 0x0c | 0x1c..=0x1e)) {
            return Err(Reply::two_readings(
                "a control character that may end a line",
            ));
        }
    }
    Ok(())
}

/// A field as it stands; the last line of a message may lack its end.
fn copy(field: Field<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(field.raw);
    if !field.raw.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 5321 §4.4; the keyword is RFC 3848's. `for` stands only where there is one recipient, so that nobody learns of
/// a blind copy.
fn received(out: &mut Vec<u8>, about: &About<'_>) {
    let origin = about.origin;
    let ip = origin.peer.ip().to_canonical();
    let tag = if ip.is_ipv6() { "IPv6:" } else { "" };
    let client = about.who.client.map_or_else(String::new, |client| {
        format!("{} ", word(&client.name, HELO_LENGTH))
    });
    let with = match (origin.esmtp, origin.tls, origin.user.is_some()) {
        (false, false, false) => "SMTP",
        (true, false, false) => "ESMTP",
        (_, true, false) => "ESMTPS",
        (_, false, true) => "ESMTPA",
        (_, true, true) => "ESMTPSA",
    };
    let mut parts = vec![
        format!("from {}", word(&origin.helo, HELO_LENGTH)),
        format!("({client}[{tag}{ip}])"),
        format!("by {}", about.hostname),
        format!("with {with} id {}", about.id),
    ];
    if let [recipient] = about.recipients {
        parts.push(format!("for <{recipient}>"));
    }
    if let Some(last) = parts.last_mut() {
        last.push(';');
    }
    parts.push(repair::date(origin.at));
    out.extend_from_slice(b"Received:");
    let mut column = 9;
    for part in parts {
        if column + 1 + part.len() > 78 && column > 9 {
            out.extend_from_slice(b"\r\n\t");
            column = 8;
        } else {
            out.push(b' ');
            column += 1;
        }
        out.extend_from_slice(part.as_bytes());
        column += part.len();
    }
    out.extend_from_slice(b"\r\n");
}

/// A word that cannot end a comment, a field or a line, whatever a client sent.
fn word(text: &str, most: usize) -> String {
    let word: String = text
        .chars()
        .take(most)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-._:[]".contains(c) {
                c
            } else {
                '?'
            }
        })
        .collect();
    if word.is_empty() {
        "unknown".to_owned()
    } else {
        word
    }
}
