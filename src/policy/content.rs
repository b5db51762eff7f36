//! The header of a message: what is refused in it, who is named in it, what is taken out and what is put in.
//!
//! It answers at the end of DATA. What can be read in two ways is refused first, then comes repair, then rewriting, then
//! judgement. The body is not looked at, and every field that no rule names keeps its bytes and its place. Of several
//! Date, Subject, To or Message-ID fields all stay: they give no right.

use std::borrow::Cow;

use memchr::memchr2;

use super::{
    alter,
    grants::{self, Party},
    received, redirect,
    rewrite::{self, rewrite_value},
    rules::{About, Policy},
};
use crate::mail::{
    address::Address,
    headers::{self, Field, fields, lines},
    mailboxes::{self, FieldRules, Mailbox, MailboxError, Words},
    names, repair,
    reply::Reply,
    time,
};

/// See [`Policy::header`].
pub(super) fn header(policy: &Policy, raw: &[u8], about: &About<'_>) -> Result<Vec<u8>, Reply> {
    let raw = &*repair::tidied(raw);
    one_reading(raw)?;
    let altered = alter::altered(&policy.header_rules, raw, about.posted(), about.recipients);
    let raw = &*altered;
    let mut out = Vec::with_capacity(raw.len() + 512);
    received::compose(&mut out, about);
    about.redirected.compose(&mut out);
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
        let mut value = None;
        for name in RECIPIENTS {
            if field.is(name) {
                value = recipients(policy, about, field, name)?;
            }
        }
        if field.is("Reply-To") {
            self.reply_to = true;
            value = completed(policy, about, field.value);
        }
        if field.is("Received") {
            self.received += 1;
            if self.received > policy.received_headers {
                return Err(Reply::mail_loop(policy.received_headers, ""));
            }
        }
        for (name, present) in [
            ("Date", &mut self.date),
            ("Message-ID", &mut self.message_id),
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
        written(field, value, out);
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
        let kind = FieldRules {
            default_domain: policy.default_domain.as_ref(),
            words: if name == "From" {
                Words::Beside
            } else {
                Words::Alone
            },
            groups: false,
            utf8: about.origin.utf8,
        };
        let (given, found) = read(field.value, kind, about.unquoted_names);
        let mut found = match found {
            Ok(found) if !found.is_empty() => found,
            other => {
                let completed = own
                    .then(|| repair::complete_mailbox(field.value, own_address(about)))
                    .flatten();
                let Some(value) = completed else {
                    return Err(other.map_or_else(
                        |error| not_understood(name, error),
                        |_| Reply::not_understood(name, "it has no address"),
                    ));
                };
                if name == "From" {
                    self.replace_given(policy, about);
                }
                headers::append(out, name, &value);
                return Ok(());
            }
        };
        let rewrites = if own { &policy.rewrites[..] } else { &[] };
        if name == "From" {
            self.replaced = found
                .iter()
                .map(|m| &m.address)
                .find(|a| rewrite::first(rewrites, a).is_some_and(|(_, r)| r.keeps_for_reply(a)))
                .cloned();
        }
        let value = changed(given, &mut found, rewrites);
        admitted(policy, about, Party::Sender, &found, name)?;
        written(field, value, out);
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
            headers::append(out, "Date", time::rfc5322(about.origin.at).as_bytes());
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

/// The fields that name recipients. Apparently-To is what old servers wrote where there was no To.
const RECIPIENTS: [&str; 7] = [
    "To",
    "Cc",
    "Bcc",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Apparently-To",
];

/// A field that names recipients: bare local parts completed and, where the header is held to the lists, all of it judged.
fn recipients(
    policy: &Policy,
    about: &About<'_>,
    field: Field<'_>,
    name: &str,
) -> Result<Option<Vec<u8>>, Reply> {
    if !policy.allowlist.header_recipients {
        return Ok(completed(policy, about, field.value));
    }
    let (given, found) = read(field.value, anybody(policy, about), false);
    let mut found = match found {
        Ok(found) => found,
        // `undisclosed-recipients` and the like name nobody.
        Err(_) if !field.value.iter().any(|b| matches!(b, b'@' | b'<')) => return Ok(None),
        Err(error) => return Err(not_understood(name, error)),
    };
    let value = changed(given, &mut found, &[]);
    // Nobody gets anything there.
    found.retain(|mailbox| !is_redirected(policy, about, &mailbox.address));
    admitted(policy, about, Party::Recipient, &found, name)?;
    Ok(value)
}

/// Whether mail to that recipient would go to somebody else.
fn is_redirected(policy: &Policy, about: &About<'_>, recipient: &Address) -> bool {
    let found = redirect::first(&policy.redirects, about.posted(), recipient);
    matches!(found, Some((_, None))) && grants::is_any_mailbox(policy, about.who, recipient)
}

/// A field whose addresses cannot be read.
fn not_understood(name: &str, error: MailboxError) -> Reply {
    match error {
        MailboxError::Syntax(why) => Reply::not_understood(name, why),
        MailboxError::Unicode(why) => Reply::not_ascii_in(name, why),
    }
}

/// A field that gives no right, with its bare local parts completed and its domains in A-labels. What is not understood stays as
/// it is.
fn completed(policy: &Policy, about: &About<'_>, value: &[u8]) -> Option<Vec<u8>> {
    let is_utf8 = about.origin.utf8 && !value.is_ascii();
    if policy.default_domain.is_none() && !is_utf8 {
        return None;
    }
    let (value, found) = read(value, anybody(policy, about), false);
    let found = found.ok()?;
    // Whoever knows no U-labels can send it then, where the local part is ASCII.
    let is_mapped = |mailbox: &Mailbox| {
        let given = value.get(mailbox.span.clone()).unwrap_or_default();
        is_utf8
            && !given.is_ascii()
            && !given.eq_ignore_ascii_case(mailbox.address.to_string().as_bytes())
    };
    let changes: Vec<_> = found
        .into_iter()
        .filter(|mailbox| mailbox.bare || is_mapped(mailbox))
        .map(|mailbox| (mailbox.span, mailbox.address.to_string()))
        .collect();
    mailboxes::substitute(&value, &changes)
}

/// The mailboxes of a field, and the value they stand in: without the folds that could be read in two ways, and with
/// quotes around a name that lacks them where that is forgiven.
fn read<'a>(
    value: &'a [u8],
    kind: FieldRules<'_>,
    unquoted_names: bool,
) -> (Cow<'a, [u8]>, Result<Vec<Mailbox>, MailboxError>) {
    /// RFC 5322 §2.1.1, with room for the name of the field.
    const LINE: usize = 970;
    let mut value = Cow::Borrowed(value);
    let mut found = mailboxes::judged(&value, kind);
    if found == Err(mailboxes::FOLDED)
        && let Some(unfolded) = mailboxes::unfolded_inside(&value)
        && lines(&unfolded).all(|line| line.len() <= LINE)
    {
        found = mailboxes::judged(&unfolded, kind);
        value = Cow::Owned(unfolded);
    }
    if found.is_err()
        && unquoted_names
        && let Some(mut quoted) = names::in_quotes(&value)
    {
        quoted.insert(0, b' ');
        found = mailboxes::judged(&quoted, kind);
        value = Cow::Owned(quoted);
    }
    (value, found)
}

/// The value that leaves, where it is another than what came.
fn changed(
    given: Cow<'_, [u8]>,
    found: &mut [Mailbox],
    rewrites: &[rewrite::Rewrite],
) -> Option<Vec<u8>> {
    rewrite_value(&given, found, rewrites).or(match given {
        Cow::Owned(value) => Some(value),
        Cow::Borrowed(_) => None,
    })
}

/// What may stand in a field that names no sender.
fn anybody<'a>(policy: &'a Policy, about: &About<'_>) -> FieldRules<'a> {
    FieldRules {
        default_domain: policy.default_domain.as_ref(),
        words: Words::All,
        groups: true,
        utf8: about.origin.utf8,
    }
}

/// Every address of a field against the lists.
fn admitted(
    policy: &Policy,
    about: &About<'_>,
    party: Party,
    found: &[Mailbox],
    name: &str,
) -> Result<(), Reply> {
    found
        .iter()
        .find_map(|m| grants::refusal(policy, about.who, party, Some(&m.address)))
        .map_or(Ok(()), |refusal| Err(refusal.in_field(name)))
}

/// A field with this value, or as it stands.
fn written(field: Field<'_>, value: Option<Vec<u8>>, out: &mut Vec<u8>) {
    let Some(value) = value else {
        return copy(field, out);
    };
    out.extend_from_slice(field.name);
    out.push(b':');
    out.extend_from_slice(&value);
    out.extend_from_slice(b"\r\n");
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        fixture::{self, address, patterns},
        mail::{
            address::Domain,
            message::{MessageId, Origin},
            recipient::Recipient,
        },
        policy::{
            Who,
            client::{Client, User},
            redirect::Redirected,
            rewrite::{ReplyTo, Rewrite},
        },
        secret::Secret,
    };

    fn policy() -> Policy {
        Policy {
            rewrites: vec![Rewrite {
                senders: patterns("*@localhost root@*"),
                to: address("noreply@corp.com"),
                reply_to: ReplyTo::Original,
            }],
            ..fixture::policy("corp.com", "corp.com")
        }
    }

    /// The transaction around a header.
    struct Setting {
        policy: Policy,
        origin: Origin,
        client: Option<Client>,
        user: Option<User>,
        sender_given: Option<Address>,
        recipients: Vec<Recipient>,
        unquoted_names: bool,
    }

    impl Setting {
        fn new(sender: &str) -> Self {
            Self {
                policy: policy(),
                origin: Origin {
                    listener: "local".into(),
                    peer: "10.0.0.9:4711".parse().unwrap(),
                    client: None,
                    helo: "device".into(),
                    tls: false,
                    esmtp: true,
                    utf8: false,
                    user: None,
                    at: SystemTime::UNIX_EPOCH + Duration::from_hours(498_732),
                    rules: Vec::new(),
                    copy_of: None,
                },
                client: None,
                user: None,
                sender_given: (sender != "<>").then(|| address(sender)),
                recipients: vec![address("to@corp.com").into()],
                unquoted_names: false,
            }
        }

        fn header(&self, raw: &[u8]) -> Result<Vec<u8>, Reply> {
            let rule = self.policy.rewrite(self.sender_given.as_ref());
            let bounce_from = address("postmaster@relay.corp.com");
            self.policy.header(
                raw,
                &About {
                    who: Who {
                        client: self.client.as_ref(),
                        user: self.user.as_ref(),
                    },
                    id: MessageId::from_bytes([1; 16]),
                    origin: &self.origin,
                    sender_given: self.sender_given.as_ref(),
                    sender: rule.map_or(self.sender_given.as_ref(), |(_, r)| Some(&r.to)),
                    rewrite: rule.map(|(index, _)| index),
                    recipients: &self.recipients,
                    redirected: &Redirected::default(),
                    hostname: "relay.corp.com",
                    bounce_from: &bounce_from,
                    unquoted_names: self.unquoted_names,
                },
            )
        }

        /// What leaves, without Received, Date and Message-ID; or the refusal.
        fn rest(&self, raw: &[u8]) -> String {
            match self.header(raw) {
                Ok(out) => {
                    String::from_utf8(headers::remove(&out, &["Received", "Date", "Message-ID"]))
                        .unwrap()
                }
                Err(reply) => reply.to_string(),
            }
        }
    }

    fn check(sender: &str, raw: &str, expected: &str) {
        assert_eq!(
            Setting::new(sender).rest(raw.as_bytes()),
            expected,
            "{sender} {raw:?}"
        );
    }

    #[test]
    fn kept_and_repaired() {
        for (raw, expected) in [
            (
                "From: a@corp.com\r\nSubject: x\r\n y\r\n",
                "From: a@corp.com\r\nSubject: x\r\n y\r\n",
            ),
            ("fROM:A <a@corp.com>\r\n", "fROM:A <a@corp.com>\r\n"),
            ("Subject:x\r\n", "Subject:x\r\nFrom: me@corp.com\r\n"),
            ("", "From: me@corp.com\r\n"),
            ("From:\r\n", "From: me@corp.com\r\n"),
            (
                "From: Scanner 2nd floor\r\n",
                "From: Scanner 2nd floor <me@corp.com>\r\n",
            ),
            (
                "From: root (Cron)\r\n",
                "From: \"root (Cron)\" <me@corp.com>\r\n",
            ),
            ("From: <>\r\n", "From: me@corp.com\r\n"),
            (
                "From: a@corp.com\r\nBcc: secret@corp.com\r\nResent-bcc: x@y\r\nX: 1\r\nReturn-Path: <x@y>\r\n",
                "From: a@corp.com\r\nX: 1\r\n",
            ),
            (
                "From: a@corp.com\r\nDate:\r\nMessage-ID: \r\n",
                "From: a@corp.com\r\n",
            ),
            ("From: <@evil.tld:a@corp.com>\r\n", "From: <a@corp.com>\r\n"),
            (
                "From: a@corp.com <a@corp.com>\r\n",
                "From: a@corp.com <a@corp.com>\r\n",
            ),
            ("From: a@corp.com\r\n \r\n\t\r\n", "From: a@corp.com\r\n"),
            (" \r\n", "From: me@corp.com\r\n"),
            (
                "From: a@corp.com\r\nSubject : x\r\nBcc : secret@corp.com\r\nresent-bcc\t: y@corp.com\r\nReturn-Path : <x@y>\r\n",
                "From: a@corp.com\r\nSubject: x\r\n",
            ),
            (
                "From: a@corp.com\r\nSubject: x\r\n \r\nTo: b@corp.com\r\n",
                "From: a@corp.com\r\nSubject: x\r\nTo: b@corp.com\r\n",
            ),
            (
                "From: a@corp.com\r\nSubject: \u{fc}",
                "From: a@corp.com\r\nSubject: \u{fc}\r\n",
            ),
            (
                "From: a@corp.com\r\nSubject: 1\r\nSubject: 2\r\nTo: a, ;\r\n",
                "From: a@corp.com\r\nSubject: 1\r\nSubject: 2\r\nTo: a, ;\r\n",
            ),
            (
                "From: a@corp.com\r\nReply-To: ceo@evil.tld\r\n",
                "From: a@corp.com\r\nReply-To: ceo@evil.tld\r\n",
            ),
        ] {
            check("me@corp.com", raw, expected);
        }
        check(
            "<>",
            "Subject: x\r\n",
            "Subject: x\r\nFrom: postmaster@relay.corp.com\r\n",
        );
        check(
            "<>",
            "From: Mailer <>\r\n",
            "From: Mailer <postmaster@relay.corp.com>\r\n",
        );
        check(
            "<>",
            "From: a@evil.tld\r\n",
            "550 5.7.1 From <a@evil.tld> is not in the allowlist",
        );
    }

    #[test]
    fn refused() {
        let ways = "550 5.6.0 the header can be read in two ways: ";
        for (raw, expected) in [
            (
                "From: ceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "fRoM:ceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From:\r\n\tceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com, ceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: x: a@corp.com, ceo@evil.tld;\r\n",
                "550 5.6.0 From cannot be understood: a group where none may be",
            ),
            (
                "From: ceo@evil.tld <a@corp.com>\r\n",
                "550 5.6.0 From cannot be understood: another address in the name of an address",
            ),
            (
                "From: x <ceo@evil.tld> <a@corp.com>\r\n",
                "550 5.6.0 From cannot be understood: something follows an address or a group",
            ),
            (
                "From: undisclosed:;@\r\n",
                "550 5.6.0 From cannot be understood: a group where none may be",
            ),
            (
                "From: a@corp.com\r\nSender: ceo@evil.tld\r\n",
                "550 5.7.1 Sender <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nResent-From: a@corp.com\r\nResent-From: ceo@evil.tld\r\n",
                "550 5.7.1 Resent-From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nResent-Sender: ceo@evil.tld\r\n",
                "550 5.7.1 Resent-Sender <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nResent-From: x\r\n",
                "550 5.6.0 Resent-From cannot be understood: an address has no @domain and no default_domain is configured",
            ),
            (
                "From: a@corp.com\r\nResent-From:\r\n",
                "550 5.6.0 Resent-From cannot be understood: it has no address",
            ),
            (
                "From: \"x@evil.tld\"@corp.com\r\n",
                "550 5.7.1 From <\"x@evil.tld\"@corp.com> is not in the allowlist: such a local part must be listed literally",
            ),
            (
                "From: a@corp.com\r\nfrom: a@corp.com\r\n",
                &format!("{ways}two From fields"),
            ),
            (
                "Sender: a@corp.com\r\nSender: b@corp.com\r\n",
                &format!("{ways}two Sender fields"),
            ),
            (
                "From: a@corp.com\r\nFrom : ceo@evil.tld\r\n",
                &format!("{ways}a field name with white space before the colon"),
            ),
            (
                "Sender\t: a@corp.com\r\n",
                &format!("{ways}a field name with white space before the colon"),
            ),
            (
                "Resent-From : a@corp.com\r\n",
                &format!("{ways}a field name with white space before the colon"),
            ),
            (
                " From: a@corp.com\r\n",
                &format!("{ways}its first line is no field"),
            ),
            (
                "Subject: x\r\n \u{c}\r\nFrom: a@corp.com\r\n",
                &format!("{ways}a line of white space inside it"),
            ),
            (
                "From: a@corp.com\r\n \r\n , ceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nSubject: x\r\n \r\nSender : ceo@evil.tld\r\n",
                &format!("{ways}a field name with white space before the colon"),
            ),
            ("Subject: x\0\r\n", &format!("{ways}a NUL or a bare CR")),
            (
                "Subject: x\rFrom: ceo@evil.tld\r\n",
                &format!("{ways}a NUL or a bare CR"),
            ),
            (
                "Subject: x\u{b}From: ceo@evil.tld\r\n",
                &format!("{ways}a control character that may end a line"),
            ),
        ] {
            check("me@corp.com", raw, expected);
        }
    }

    #[test]
    fn narrowed_by_client_and_user() {
        let mut setting = Setting::new("me@corp.com");
        setting.client = Some(Client {
            name: "printers".into(),
            senders: Some(patterns("me@corp.com both@corp.com")),
            ..Client::default()
        });
        setting.user = Some(User {
            name: "erp".into(),
            password: Secret::default(),
            certificates: Vec::new(),
            senders: Some(patterns("both@corp.com")),
            recipients: None,
        });
        for (raw, expected) in [
            ("From: both@corp.com\r\n", "From: both@corp.com\r\n"),
            (
                "From: a@corp.com\r\n",
                "550 5.7.1 From <a@corp.com> is not allowed for client printers",
            ),
            (
                "From: me@corp.com\r\n",
                "550 5.7.1 From <me@corp.com> is not allowed for user erp",
            ),
        ] {
            assert_eq!(setting.rest(raw.as_bytes()), expected);
        }
    }

    #[test]
    fn header_recipients() {
        let mut setting = Setting::new("me@corp.com");
        setting.policy.allowlist.header_recipients = true;
        for (raw, expected) in [
            (
                "From: a@corp.com\r\nTo: b@corp.com, x: c@corp.com;\r\n",
                "From: a@corp.com\r\nTo: b@corp.com, x: c@corp.com;\r\n",
            ),
            (
                "From: a@corp.com\r\nTo: undisclosed-recipients:;\r\n",
                "From: a@corp.com\r\nTo: undisclosed-recipients:;\r\n",
            ),
            (
                "From: a@corp.com\r\nCc: b@evil.tld\r\n",
                "550 5.7.1 Cc <b@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nBcc: b@evil.tld\r\n",
                "550 5.7.1 Bcc <b@evil.tld> is not in the allowlist",
            ),
            (
                "From: a@corp.com\r\nTo: x <a@corp.com> <b@evil.tld>\r\n",
                "550 5.6.0 To cannot be understood: something follows an address or a group",
            ),
        ] {
            assert_eq!(setting.rest(raw.as_bytes()), expected, "{raw:?}");
        }
    }

    #[test]
    fn header_recipients_of_every_kind() {
        let mut setting = Setting::new("me@corp.com");
        setting.policy.allowlist.header_recipients = true;
        for name in RECIPIENTS {
            for (value, expected) in [
                (
                    "b@evil.tld",
                    "550 5.7.1 {} <b@evil.tld> is not in the allowlist",
                ),
                (
                    "b@corp.com .evil.tld <b@corp.com>",
                    "550 5.6.0 {} cannot be understood: a name with an @ outside quotes that is not the address behind it",
                ),
                (
                    "\"x\\\"\" \"<b@evil.tld>\" <b@corp.com>",
                    "550 5.6.0 {} cannot be understood: an address in a quoted string that is not the whole name",
                ),
                (
                    "<root>",
                    "550 5.6.0 {} cannot be understood: an address has no @domain and no default_domain is configured",
                ),
            ] {
                assert_eq!(
                    setting.rest(format!("From: a@corp.com\r\n{name}: {value}\r\n").as_bytes()),
                    expected.replace("{}", name)
                );
            }
        }
        // What leaves is what was judged.
        assert_eq!(
            setting.rest(b"From: a@corp.com\r\nCc: <@evil.tld:b@corp.com>, c@corp.com.\r\n"),
            "From: a@corp.com\r\nCc: <b@corp.com>, c@corp.com\r\n"
        );
        setting.policy.default_domain = Some(Domain::parse("evil.tld").unwrap());
        assert_eq!(
            setting.rest(b"From: a@corp.com\r\nTo: root\r\n"),
            "550 5.7.1 To <root@evil.tld> is not in the allowlist"
        );
    }

    #[test]
    fn bare_names_are_completed_and_judged() {
        let mut setting = Setting::new("me@corp.com");
        setting.policy.default_domain = Some(Domain::parse("corp.com").unwrap());
        let kept = "From: a@corp.com\r\n";
        for (raw, expected) in [
            (
                "From: Fail2Ban <fail2ban>\r\n",
                "From: Fail2Ban <fail2ban@corp.com>\r\n",
            ),
            (
                "From: a@corp.com, cron,\r\n <b>\r\n",
                "From: a@corp.com, cron@corp.com,\r\n <b@corp.com>\r\n",
            ),
            ("From: root\r\n", "From: root <me@corp.com>\r\n"),
            // Completed, then rewritten.
            (
                "From: mdadm <root>\r\nSender: root\r\n",
                "From: mdadm <noreply@corp.com>\r\nSender: noreply@corp.com\r\nReply-To: root@corp.com\r\n",
            ),
            (
                "From: a@corp.com\r\nSender: Jane Doe\r\n",
                "From: a@corp.com\r\nSender: Jane Doe <me@corp.com>\r\n",
            ),
            (
                "From: a@corp.com\r\nResent-From: <x>\r\nResent-Sender: x\r\n",
                "From: a@corp.com\r\nResent-From: <x@corp.com>\r\nResent-Sender: x@corp.com\r\n",
            ),
            (
                "From: a@corp.com\r\nTo: root, A <b>,\r\n x@ext.org\r\nCc: admin\r\nResent-To: c\r\nReply-To: <d>\r\n",
                "From: a@corp.com\r\nTo: root@corp.com, A <b@corp.com>,\r\n x@ext.org\r\nCc: admin@corp.com\r\nResent-To: c@corp.com\r\nReply-To: <d@corp.com>\r\n",
            ),
            (
                "From: a@corp.com\r\nTo: Jane Doe\r\nCc: a; b\r\n",
                "From: a@corp.com\r\nTo: Jane Doe\r\nCc: a; b\r\n",
            ),
            (
                "From: Doe, Jane <a@corp.com>\r\n",
                "550 5.6.0 From cannot be understood: words that are no address",
            ),
            (
                "From: <a%b>\r\n",
                "550 5.7.1 From <a%b@corp.com> is not in the allowlist: such a local part must be listed literally",
            ),
        ] {
            assert_eq!(setting.rest(raw.as_bytes()), expected, "{raw:?}");
        }
        setting.policy.default_domain = Some(Domain::parse("other.tld").unwrap());
        for (name, value) in [
            ("Sender", "x"),
            ("Resent-From", "<x>"),
            ("Resent-Sender", "x"),
        ] {
            assert_eq!(
                setting.rest(format!("{kept}{name}: {value}\r\n").as_bytes()),
                format!("550 5.7.1 {name} <x@other.tld> is not in the allowlist")
            );
        }
        setting.policy.default_domain = None;
        let words = "an address has no @domain and no default_domain is configured";
        assert_eq!(
            setting.rest(b"From: Fail2Ban <fail2ban>\r\n"),
            format!("550 5.6.0 From cannot be understood: {words}")
        );
        assert_eq!(
            setting.rest(b"From: a@corp.com\r\nTo: root\r\n"),
            format!("{kept}To: root\r\n")
        );
    }

    #[test]
    fn what_leaves_has_one_reading() {
        for (raw, expected) in [
            // The parts of an address come together, nothing stands beside it in its brackets.
            ("From: a (x) @ (y) corp.com\r\n", "From: a@corp.com\r\n"),
            (
                "From: X <a@corp.com(.evil.tld)>\r\n",
                "From: X <a@corp.com>\r\n",
            ),
            (
                "From: 'a@corp.com' <a@corp.com>\r\n",
                "From: a@corp.com <a@corp.com>\r\n",
            ),
            ("From: A@Corp.COM\r\n", "From: A@Corp.COM\r\n"),
            // Some readers end a string or a comment with the line.
            (
                "From: \"x\r\n ceo@evil.tld\" <a@corp.com>\r\n",
                "From: \"x ceo@evil.tld\" <a@corp.com>\r\n",
            ),
            (
                "From: a@corp.com (x\r\n .evil.tld),\r\n b@corp.com\r\n",
                "From: a@corp.com (x .evil.tld),\r\n b@corp.com\r\n",
            ),
            (
                "From: \"x\"\r\n <a@corp.com>\r\n",
                "From: \"x\"\r\n <a@corp.com>\r\n",
            ),
            (
                "From: a@corp.com (x (y) .evil.tld)\r\n",
                "550 5.6.0 From cannot be understood: a comment with a comment, a quote or a backslash in it, which others end elsewhere",
            ),
            (
                "From: <\"q<> r\"@corp.com>\r\n",
                "550 5.7.1 From <\"q<> r\"@corp.com> is not in the allowlist: such a local part must be listed literally",
            ),
        ] {
            check("me@corp.com", raw, expected);
        }
        // However many stand in the list; a name that is longer than a line is none.
        let many = "a@corp.com,\r\n ".repeat(80);
        check(
            "me@corp.com",
            &format!("From: {many}\"x\r\n y\" <a@corp.com>\r\n"),
            &format!("From: {many}\"x y\" <a@corp.com>\r\n"),
        );
        check(
            "me@corp.com",
            &format!("From: \"{}\" <a@corp.com>\r\n", "x\r\n ".repeat(500)),
            "550 5.6.0 From cannot be understood: a line ends inside a quoted string or a comment",
        );
        let mut setting = Setting::new("me@corp.com");
        setting.policy.allowlist.header_recipients = true;
        let list = "\"Doe, Jane\" <jane@corp.com>,\r\n ".repeat(60);
        assert_eq!(
            setting.rest(
                format!("From: a@corp.com\r\nTo: {list}\"Doe,\r\n Joe\" <joe@corp.com>\r\n")
                    .as_bytes()
            ),
            format!("From: a@corp.com\r\nTo: {list}\"Doe, Joe\" <joe@corp.com>\r\n")
        );
    }

    #[test]
    fn a_name_without_its_quotes() {
        let mut setting = Setting::new("me@corp.com");
        setting.policy.default_domain = Some(Domain::parse("corp.com").unwrap());
        for (raw, device) in [
            (
                "From: Doe, Jane <a@corp.com>\r\n",
                "From: \"Doe, Jane\" <a@corp.com>\r\n",
            ),
            (
                "From: a@corp.com\r\nSender: root, x <root@h>\r\n",
                "From: a@corp.com\r\nSender: \"root, x\" <noreply@corp.com>\r\n",
            ),
            (
                "From: =?utf-8?q?D=C3=B6?=, Jane <scan>\r\n",
                "From: =?utf-8?q?D=C3=B6?= =?utf-8?q?=2C?= Jane <scan@corp.com>\r\n",
            ),
            (
                "From: Doe, Jane <ceo@evil.tld>\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
        ] {
            setting.unquoted_names = true;
            assert_eq!(setting.rest(raw.as_bytes()), device, "{raw:?}");
            setting.unquoted_names = false;
            let refusal = setting.rest(raw.as_bytes());
            assert!(refusal.starts_with("550 5.6.0 "), "{raw:?} {refusal}");
        }
        setting.unquoted_names = true;
        assert_eq!(
            setting.rest(b"From: staff: x <a@corp.com>;\r\n"),
            "550 5.6.0 From cannot be understood: a group where none may be"
        );
    }

    #[test]
    fn rewritten() {
        for (sender, raw, expected) in [
            (
                "root@host.local",
                "From: Cron <root@host.local>\r\n",
                "From: Cron <noreply@corp.com>\r\nReply-To: root@host.local\r\n",
            ),
            (
                "root@host.local",
                "From: root@host.local (Cron)\r\nReply-To: a@b\r\n",
                "From: noreply@corp.com (Cron)\r\nReply-To: a@b\r\n",
            ),
            (
                "x@localhost",
                "From: x@localhost\r\n",
                "From: noreply@corp.com\r\n",
            ),
            (
                "x@localhost",
                "From: root@h <root@h>\r\nSender: x@localhost\r\n",
                "From: noreply@corp.com <noreply@corp.com>\r\nSender: noreply@corp.com\r\nReply-To: root@h\r\n",
            ),
            (
                "root@h",
                "From: a@corp.com,\r\n \"R\" <root@h>\r\n",
                "From: a@corp.com,\r\n \"R\" <noreply@corp.com>\r\nReply-To: root@h\r\n",
            ),
            (
                "root@h",
                "From: root\r\n",
                "From: root <noreply@corp.com>\r\nReply-To: root@h\r\n",
            ),
            (
                "root@h",
                "",
                "From: noreply@corp.com\r\nReply-To: root@h\r\n",
            ),
            (
                "root@h",
                "From: ceo@evil.tld\r\n",
                "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
            ),
            (
                "root@h",
                "From: a@corp.com\r\nResent-From: root@h\r\n",
                "550 5.7.1 Resent-From <root@h> is not in the allowlist",
            ),
            (
                "me@corp.com",
                "From: root@h\r\nSender: \"S\" <x@localhost>\r\n",
                "From: noreply@corp.com\r\nSender: \"S\" <noreply@corp.com>\r\nReply-To: root@h\r\n",
            ),
            (
                "me@corp.com",
                "From: me@corp.com\r\nResent-Sender: root@h\r\n",
                "550 5.7.1 Resent-Sender <root@h> is not in the allowlist",
            ),
            (
                "<>",
                "From: root@h\r\n",
                "From: noreply@corp.com\r\nReply-To: root@h\r\n",
            ),
        ] {
            check(sender, raw, expected);
        }
        let mut setting = Setting::new("root@h");
        setting.policy.rewrites[0].reply_to = ReplyTo::Keep;
        assert_eq!(
            setting.rest(b"From: root@h\r\n"),
            "From: noreply@corp.com\r\n"
        );
    }

    #[test]
    fn received_field() {
        let mut setting = Setting::new("me@corp.com");
        let top = |setting: &Setting| {
            let out = setting.header(b"From: a@corp.com\r\n").unwrap();
            let field = fields(&out).next().unwrap();
            assert!(field.is("Received"));
            for line in lines(field.raw) {
                // One word may be longer than a line.
                let longest = line.split(|b| *b == b' ').map(<[u8]>::len).max();
                assert!(line.len() <= 78 || longest > Some(60), "{line:?}");
            }
            String::from_utf8(field.raw.to_vec()).unwrap()
        };
        assert_eq!(
            top(&setting),
            "Received: from device ([10.0.0.9]) by relay.corp.com\r\n\
             \twith ESMTP id 01040G2081040G2081040G2081 for <to@corp.com>;\r\n\
             \tMon, 23 Nov 2026 12:00:00 +0000\r\n"
        );
        for (esmtp, tls, user, keyword) in [
            (false, false, false, "SMTP"),
            (true, false, false, "ESMTP"),
            (true, true, false, "ESMTPS"),
            (true, false, true, "ESMTPA"),
            (true, true, true, "ESMTPSA"),
        ] {
            setting.origin.esmtp = esmtp;
            setting.origin.tls = tls;
            setting.origin.user = user.then(|| "erp".into());
            assert!(
                top(&setting).contains(&format!("with {keyword} id ")),
                "{keyword}"
            );
        }
        setting.recipients.push(address("hidden@corp.com").into());
        assert!(!top(&setting).contains("hidden") && !top(&setting).contains("for <"));
        setting.origin.peer = "[::ffff:10.0.0.9]:1".parse().unwrap();
        assert!(top(&setting).contains("([10.0.0.9])"));
        setting.origin.peer = "[fe80::1]:1".parse().unwrap();
        assert!(top(&setting).contains("([IPv6:fe80::1])"));
        for helo in [
            "x (by evil)\t;\r\nFrom: ceo@evil.tld",
            "\u{202e}\u{1b}",
            "",
            &"h".repeat(4096),
        ] {
            setting.origin.helo = helo.to_owned();
            let text = top(&setting);
            assert_eq!(text.matches(['(', ')', ';']).count(), 3, "{text}");
            assert!(text.is_ascii() && text.len() < 600, "{text}");
        }
    }

    #[test]
    fn a_field_far_down_is_judged() {
        let many = "X-Filler: 0123456789\r\n".repeat(10_000);
        check(
            "me@corp.com",
            &format!("{many}From: ceo@evil.tld\r\n"),
            "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
        );
        check(
            "me@corp.com",
            &format!(
                "From: {}ceo@evil.tld\r\n",
                "a@corp.com,\r\n ".repeat(10_000)
            ),
            "550 5.7.1 From <ceo@evil.tld> is not in the allowlist",
        );
    }

    #[test]
    fn domains_become_a_labels_where_a_name_is_folded_too() {
        let mut setting = Setting::new("me@corp.com");
        setting.origin.utf8 = true;
        for (given, expected) in [
            (
                "To: \"a\r\n b\" <x@b\u{fc}cher.example>\r\n",
                "To: \"a b\" <x@xn--bcher-kva.example>\r\n",
            ),
            (
                "Cc: (a\r\n b) x@b\u{fc}cher.example\r\n",
                "Cc: (a b) x@xn--bcher-kva.example\r\n",
            ),
            // Nothing is to be changed in it, and so not its folds either.
            (
                "To: \"a\r\n b\" <b\u{fc}ro@x.example>\r\n",
                "To: \"a\r\n b\" <b\u{fc}ro@x.example>\r\n",
            ),
            (
                "To: b\u{fc}ro@x.example (k <x>)\r\n",
                "To: b\u{fc}ro@x.example (k <x>)\r\n",
            ),
        ] {
            let raw = format!("From: me@corp.com\r\n{given}");
            let expected = format!("From: me@corp.com\r\n{expected}");
            assert_eq!(setting.rest(raw.as_bytes()), expected);
        }
    }

    #[test]
    fn a_reply_to_of_ours_needs_no_smtputf8() {
        let raw = "From: b\u{fc}ro@h\r\n";
        for (to, sender, expected) in [
            (
                "noreply@corp.com",
                "me@corp.com",
                "From: noreply@corp.com\r\n",
            ),
            (
                "n\u{f6}@corp.com",
                "me@corp.com",
                "From: n\u{f6}@corp.com\r\nReply-To: b\u{fc}ro@h\r\n",
            ),
        ] {
            let mut setting = Setting::new(sender);
            setting.origin.utf8 = true;
            setting.policy.rewrites[0].senders = patterns("*@h");
            setting.policy.rewrites[0].to = address(to);
            assert_eq!(setting.rest(raw.as_bytes()), expected);
        }
        // As little where we fill in From.
        let mut setting = Setting::new("b\u{fc}ro@h");
        setting.origin.utf8 = true;
        setting.policy.rewrites[0].senders = patterns("*@h");
        assert_eq!(setting.rest(b""), "From: noreply@corp.com\r\n");
    }

    #[test]
    fn mail_loop() {
        let setting = Setting::new("me@corp.com");
        let raw = |count| format!("From: a@corp.com\r\n{}", "Received: x\r\n".repeat(count));
        assert!(setting.header(raw(50).as_bytes()).is_ok());
        let reply = setting.header(raw(51).as_bytes()).unwrap_err();
        assert_eq!(
            reply.to_string(),
            "554 5.4.6 mail loop: more than 50 Received fields"
        );
    }

    #[test]
    fn added_once() {
        let setting = Setting::new("me@corp.com");
        let out = setting.header(b"Subject: x\r\n").unwrap();
        let added = String::from_utf8(out).unwrap();
        assert!(
            added.ends_with(
                "Subject: x\r\nFrom: me@corp.com\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\
                 Message-ID: <01040G2081040G2081040G2081@relay.corp.com>\r\n"
            ),
            "{added}"
        );
        let again = setting.header(added.as_bytes()).unwrap();
        assert!(
            again.ends_with(added.as_bytes()),
            "nothing but Received is new"
        );
    }

    /// Header soup: whatever is accepted has one From, and everyone named in it may send.
    #[test]
    fn accepted_means_admitted() {
        const PIECES: &[&str] = &[
            "From",
            "from",
            "Sender",
            "Resent-From",
            "Subject",
            "To",
            "Bcc",
            ":",
            ": ",
            " :",
            "\r\n",
            "\r\n",
            "\r\n ",
            "\r\n\t",
            "a@corp.com",
            "b@corp.com",
            "ceo@evil.tld",
            "root@h",
            "x@localhost",
            "<",
            ">",
            "<a@corp.com>",
            "<ceo@evil.tld>",
            "<root@h>",
            "\"",
            "\\",
            "(",
            ")",
            ",",
            ";",
            ".",
            "@",
            " ",
            "x",
            "[",
            "]",
            "\u{fc}",
            "=?utf-8?q?x?=",
            "'",
            "\0",
            "\u{b}",
            "From: ",
            "From: A ",
            "\r\nFrom: ",
            "-",
        ];
        let mut accepted = 0;
        for seed in 0..fixture::times(20_000) as u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut soup = String::from(if random.bool() { "From: " } else { "" });
            for _ in 0..random.usize(1..14) {
                soup.push_str(PIECES[random.usize(..PIECES.len())]);
            }
            soup.push_str("\r\n");
            let sender = ["me@corp.com", "root@h", "<>"][random.usize(..3)];
            let setting = Setting::new(sender);
            let mut from = 0;
            let end = repair::header_end(soup.as_bytes(), &mut from, true).unwrap();
            let Ok(out) = setting.header(&soup.as_bytes()[end.start..end.end]) else {
                continue;
            };
            accepted += 1;
            let mut from = 0;
            let whole = repair::header_end(&out, &mut from, true).unwrap();
            assert_eq!((whole.start, whole.end), (0, out.len()), "{soup:?}");
            let froms: Vec<_> = fields(&out).filter(|f| f.is("From")).collect();
            assert_eq!(froms.len(), 1, "{soup:?}");
            assert!(headers::value_of(&out, "Bcc").is_none());
            for field in
                fields(&out).filter(|f| f.is("From") || f.is("Sender") || f.is("Resent-From"))
            {
                let mut found = mailboxes::parse(field.value).unwrap();
                assert!(!found.is_empty(), "{soup:?}");
                for mailbox in &found {
                    let domain = mailbox.address.domain().as_str();
                    assert!(
                        domain == "corp.com" || (sender == "<>" && domain == "relay.corp.com"),
                        "{soup:?} {out:?}"
                    );
                    let text = mailbox.address.to_string();
                    assert_eq!(Address::parse(&text).as_ref(), Ok(&mailbox.address));
                }
                assert_eq!(
                    rewrite_value(field.value, &mut found, &setting.policy.rewrites),
                    None,
                    "twice is once"
                );
            }
            // The next reader may repair what it reads; whom it finds there may send, too.
            let message = [&out[..], b"\r\n"].concat();
            if let Some(read) = mail_parser::MessageParser::default().parse(&message)
                && let Some(list) = read.from()
            {
                for found in list.iter().filter_map(|a| a.address.as_deref()) {
                    let allowed =
                        found.ends_with("@corp.com") || found.ends_with("@relay.corp.com");
                    assert!(allowed, "{found:?} in {:?}", String::from_utf8_lossy(&out));
                }
            }
            if sender != "<>" {
                let again = setting.header(&out).unwrap();
                assert!(again.ends_with(&out), "{soup:?}");
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }
}
