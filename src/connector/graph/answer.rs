//! What Graph answered, as an outcome: a table over status and `error.code`, never over the message.
//!
//! Apart because it is pure (`design.md` §5; Graph's error reference). It sends nothing and waits for nothing.

use std::time::Duration;

use serde_json::Value;

use crate::mail::reply::Reply;

/// The daily quotas are counted over a day; asking more often helps nobody.
const QUOTA: Duration = Duration::from_hours(1);
/// The tenant's bandwidth (509) is not counted by the second either.
const BANDWIDTH: Duration = Duration::from_mins(10);

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// 202; with a wait it is taken all the same, and the mailbox pauses.
    Taken(Reply, Option<Duration>),
    /// Later.
    Later(Reply, Option<Duration>),
    /// It was not looked at: the mailbox sends too much, or Graph has too much to do.
    Throttled(Reply, Option<Duration>),
    /// It may have been sent.
    InDoubt(Reply),
    /// Never.
    Never(Reply),
    /// Not through this connector.
    Unsuited(Reply),
    /// This mailbox alone, until an administrator has repaired it.
    Mailbox(Reply),
    /// 401: another token, once.
    Token(Reply),
    /// Graph does not work as it should: a redirect, say.
    Down(Reply),
}

/// Reads an answer to sendMail. `mailbox` and `request` (the request-id) are for the text.
pub(super) fn read(
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
    mailbox: &str,
    request: &str,
) -> Meaning {
    let code = code(body);
    let said = said(status, body, request);
    let reply =
        |smtp: u16, enhanced: (u8, u16, u16), text: String| Reply::new(smtp, enhanced, text);
    let busy = || reply(451, (4, 3, 2), format!("Graph: {said}"));
    let never =
        |enhanced, why: &str| Meaning::Never(reply(554, enhanced, format!("Graph: {said}: {why}")));
    let quota = || {
        let text =
            format!("Graph: {said}: the mailbox {mailbox} has sent as much as it may for now");
        Meaning::Throttled(
            reply(452, (4, 2, 2), text),
            Some(retry_after.unwrap_or_default().max(QUOTA)),
        )
    };
    match (status, code.as_str()) {
        (202, _) => Meaning::Taken(
            reply(250, (2, 0, 0), format!("Graph: accepted, {said}")),
            retry_after,
        ),
        // A 200 has been seen with no mail sent; whoever tries again at once may send two.
        (200..=299, _) => Meaning::InDoubt(reply(
            451,
            (4, 4, 2),
            format!("Graph: {said} in place of 202; it may have been sent"),
        )),
        (300..=399, _) => Meaning::Down(reply(
            451,
            (4, 4, 1),
            format!("Graph: {said}: a redirect, which is not followed; correct graph_url"),
        )),
        (400 | 403 | 429, "ErrorExceededMessageLimit") => quota(),
        (401, _) => Meaning::Token(reply(
            451,
            (4, 7, 0),
            format!("Graph: {said}: the token is not accepted"),
        )),
        (413, _) | (400, "ErrorMessageSizeExceeded") => Meaning::Unsuited(reply(
            552,
            (5, 3, 4),
            format!("Graph: {said}: the message is larger than Graph takes"),
        )),
        (403, "ErrorSendAsDenied") => mailbox_refused(
            &said,
            mailbox,
            "the From of the message is not a mailbox or alias that it may send as; check From, or grant Send As",
        ),
        (403, "ErrorQuotaExceeded") => mailbox_refused(&said, mailbox, "it is full; make room"),
        (403, "ErrorAccountSuspend" | "ErrorMessageSubmissionBlocked") => mailbox_refused(
            &said,
            mailbox,
            "it is blocked from sending; see the restricted entities of the tenant",
        ),
        (403, _) => mailbox_refused(
            &said,
            mailbox,
            "the application may not send as it: grant the application permission Mail.Send with admin consent, or the role \"Application Mail.Send\" (RBAC for Applications) over it; a change takes up to 2 hours",
        ),
        (404, _) => mailbox_refused(
            &said,
            mailbox,
            "there is no such mailbox in Exchange Online; correct `mailbox` or the From, or give it a licence",
        ),
        (504, _) => Meaning::InDoubt(reply(
            451,
            (4, 4, 7),
            format!("Graph: {said}: no answer to the complete message, it may have been sent"),
        )),
        (429, _) => Meaning::Throttled(
            reply(451, (4, 3, 2), format!("Graph: {said}: too much at once")),
            retry_after,
        ),
        (509, _) => {
            Meaning::Throttled(busy(), Some(retry_after.unwrap_or_default().max(BANDWIDTH)))
        }
        // Without a wish it may be the message that Graph cannot cope with, and that must end some day.
        (503, _) if retry_after.is_some() => Meaning::Throttled(busy(), retry_after),
        (408 | 409 | 500..=599, _) => Meaning::Later(busy(), retry_after),
        (400, "ErrorInvalidRecipients") => {
            never((5, 1, 3), "a recipient's address is not accepted")
        }
        (400, _) => never((5, 6, 0), "the message is not accepted"),
        _ => never((5, 0, 0), "not accepted"),
    }
}

/// Status, code and request-id, as texts begin.
pub(super) fn said(status: u16, body: &[u8], request: &str) -> String {
    let code = code(body);
    match (code.is_empty(), request.is_empty()) {
        (true, true) => status.to_string(),
        (false, true) => format!("{status} {code}"),
        (true, false) => format!("{status} (request-id {request})"),
        (false, false) => format!("{status} {code} (request-id {request})"),
    }
}

/// What is done before a draft is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// For what an earlier attempt left.
    Search,
    /// The draft.
    Create,
    /// A small attachment.
    Attach,
    /// An upload session.
    Session,
}

/// Reads an answer to a step that did not do what it should: nothing was sent, so nothing is in doubt, and what is missing is a
/// permission that smaller messages do without.
pub(super) fn prepare(
    step: Step,
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
    mailbox: &str,
    request: &str,
) -> Meaning {
    let code = code(body);
    let said = said(status, body, request);
    let unsuited = |why: &str| {
        let text = format!("Graph: {said}: {why}");
        Meaning::Unsuited(Reply::new(552, (5, 3, 4), text))
    };
    let later = |why: &str| {
        let text = format!("Graph: {said}: {why}");
        Meaning::Later(Reply::new(451, (4, 3, 2), text), retry_after)
    };
    match (status, code.as_str(), step) {
        // About the mailbox, whatever is asked of it.
        (_, "ErrorExceededMessageLimit", _)
        | (
            403,
            "ErrorSendAsDenied"
            | "ErrorQuotaExceeded"
            | "ErrorAccountSuspend"
            | "ErrorMessageSubmissionBlocked",
            _,
        ) => read(status, body, retry_after, mailbox, request),
        (403, _, _) => unsuited(
            "a message above mime_limit needs the permission Mail.ReadWrite (RBAC for Applications: \"Application Mail.ReadWrite\") over the mailbox; grant it, or write large_messages = \"refuse\"",
        ),
        (404, "ErrorItemNotFound", _) => later("the draft is gone"),
        (404 | 405, _, Step::Session) => unsuited(
            "there are no upload sessions here (US Government clouds have none); write large_messages = \"refuse\"",
        ),
        (400, _, Step::Search | Step::Session) => unsuited("what drafts need is not accepted"),
        (200..=299 | 504, _, _) => later("a part of a draft"),
        _ => read(status, body, retry_after, mailbox, request),
    }
}

/// The attachment is to be sent in one request instead.
pub(super) fn is_too_small(body: &[u8]) -> bool {
    code(body) == "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"
}

fn mailbox_refused(said: &str, mailbox: &str, remedy: &str) -> Meaning {
    Meaning::Mailbox(Reply::new(
        550,
        (5, 7, 60),
        format!("Graph: {said}: mailbox {mailbox}: {remedy}"),
    ))
}

/// Codes that decide something in the table.
const KNOWN: &[&str] = &[
    "ErrorExceededMessageLimit",
    "ErrorMessageSizeExceeded",
    "ErrorSendAsDenied",
    "ErrorQuotaExceeded",
    "ErrorAccountSuspend",
    "ErrorMessageSubmissionBlocked",
    "ErrorInvalidRecipients",
];
/// Errors inside errors are followed so far.
const DEPTH: usize = 8;

/// The most specific `code` that we know: Graph puts errors inside errors (`innererror`, in more than one spelling), each more exact
/// than the one around it. None known: the outermost.
fn code(body: &[u8]) -> String {
    let content: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut codes = Vec::new();
    let mut error = content.get("error");
    while let (Some(inner), true) = (error, codes.len() < DEPTH) {
        codes.push(
            inner
                .get("code")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        error = ["innererror", "innerError"]
            .into_iter()
            .find_map(|key| inner.get(key));
    }
    let known = codes.iter().rev().find(|code| KNOWN.contains(*code));
    let outermost = codes.iter().find(|code| !code.is_empty());
    word(known.or(outermost).copied().unwrap_or_default())
}

/// Nothing longer or stranger than a word.
fn word(code: &str) -> String {
    code.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(meaning: Meaning) -> String {
        let seconds = |wait: Option<Duration>| {
            wait.map_or_else(|| "-".to_owned(), |wait| wait.as_secs().to_string())
        };
        match meaning {
            Meaning::Taken(_, wait) => format!("taken {}", seconds(wait)),
            Meaning::Later(_, wait) => format!("later {}", seconds(wait)),
            Meaning::Throttled(_, wait) => format!("throttled {}", seconds(wait)),
            Meaning::InDoubt(_) => "in doubt".into(),
            Meaning::Never(reply) => {
                let (class, subject, detail) = reply.status();
                format!("never {class}.{subject}.{detail}")
            }
            Meaning::Unsuited(_) => "unsuited".into(),
            Meaning::Mailbox(_) => "mailbox".into(),
            Meaning::Token(_) => "token".into(),
            Meaning::Down(_) => "down".into(),
        }
    }

    fn answer(code: &str) -> Vec<u8> {
        format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"m\"}}}}").into_bytes()
    }

    fn check(status: u16, code: &str, retry_after: Option<u64>, expected: &str) {
        let wait = retry_after.map(Duration::from_secs);
        let meaning = read(status, &answer(code), wait, "m@corp.example", "r-1");
        assert_eq!(kind_of(meaning), expected, "{status} {code}");
    }

    #[test]
    fn before_a_draft_is_sent() {
        use Step::{Attach, Create, Search, Session};
        for (step, status, code, expected) in [
            (Search, 403, "ErrorAccessDenied", "unsuited"),
            (Create, 403, "ErrorAccessDenied", "unsuited"),
            (Attach, 403, "", "unsuited"),
            (Create, 403, "ErrorQuotaExceeded", "mailbox"),
            (Create, 403, "ErrorSendAsDenied", "mailbox"),
            (Session, 400, "ErrorExceededMessageLimit", "throttled 3600"),
            (Create, 404, "ErrorInvalidUser", "mailbox"),
            (Create, 400, "ErrorInvalidRecipients", "never 5.1.3"),
            (Create, 400, "InvalidInternetMessageHeader", "never 5.6.0"),
            (Create, 504, "UnknownError", "later 9"),
            (Create, 200, "", "later 9"),
            (Create, 401, "InvalidAuthenticationToken", "token"),
            (Attach, 404, "ErrorItemNotFound", "later 9"),
            (Attach, 413, "", "unsuited"),
            (Attach, 400, "ErrorMessageSizeExceeded", "unsuited"),
            (Attach, 503, "ErrorServerBusy", "throttled 9"),
            (Session, 404, "UnknownResource", "unsuited"),
            (Session, 400, "BadRequest", "unsuited"),
            (Search, 400, "BadRequest", "unsuited"),
            (Search, 429, "ApplicationThrottled", "throttled 9"),
        ] {
            let wait = Some(Duration::from_secs(9));
            let meaning = prepare(step, status, &answer(code), wait, "m@corp.example", "r-1");
            assert_eq!(kind_of(meaning), expected, "{step:?} {status} {code}");
        }
    }

    #[test]
    fn the_most_specific_code_that_is_known_decides() {
        for (body, expected) in [
            (
                r#"{"error":{"code":"BadRequest","innererror":{"code":"ErrorMessageSizeExceeded"}}}"#,
                "ErrorMessageSizeExceeded",
            ),
            (
                r#"{"error":{"code":"BadRequest","innerError":{"code":"x","innererror":{"code":"ErrorInvalidRecipients"}}}}"#,
                "ErrorInvalidRecipients",
            ),
            (
                r#"{"error":{"code":"ErrorSendAsDenied","innererror":{"code":"Unheard"}}}"#,
                "ErrorSendAsDenied",
            ),
            (
                r#"{"error":{"code":"ErrorSendAsDenied","innererror":{"code":"ErrorQuotaExceeded"}}}"#,
                "ErrorQuotaExceeded",
            ),
            (
                r#"{"error":{"code":"Outer","innererror":{"code":"Inner"}}}"#,
                "Outer",
            ),
            (r#"{"error":{"innererror":{"code":"Inner"}}}"#, "Inner"),
            (
                r#"{"error":{"code":"a","innererror":{"request-id":"r"}}}"#,
                "a",
            ),
            (r#"{"error":{"code":7,"innererror":[]}}"#, ""),
            (r#"{"error":"text"}"#, ""),
            (r#"{"code":"outside"}"#, ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(code(body.as_bytes()), expected, "{body}");
        }
        let mut deep = r#"{"code":"ErrorInvalidRecipients"}"#.to_owned();
        for _ in 0..50 {
            deep = format!(r#"{{"code":"c","innererror":{deep}}}"#);
        }
        assert_eq!(code(format!(r#"{{"error":{deep}}}"#).as_bytes()), "c");
    }

    #[test]
    fn the_table() {
        for (status, code, expected) in [
            (202, "", "taken 9"),
            (200, "", "in doubt"),
            (302, "", "down"),
            (400, "ErrorInvalidRecipients", "never 5.1.3"),
            (400, "ErrorMimeContentInvalidBase64String", "never 5.6.0"),
            (400, "ErrorMessageSizeExceeded", "unsuited"),
            (400, "ErrorExceededMessageLimit", "throttled 3600"),
            (403, "ErrorExceededMessageLimit", "throttled 3600"),
            (429, "ErrorExceededMessageLimit", "throttled 3600"),
            (401, "InvalidAuthenticationToken", "token"),
            (403, "ErrorAccessDenied", "mailbox"),
            (403, "ErrorSendAsDenied", "mailbox"),
            (404, "ErrorInvalidUser", "mailbox"),
            (404, "MailboxNotEnabledForRESTAPI", "mailbox"),
            (413, "", "unsuited"),
            (408, "", "later 9"),
            (409, "", "later 9"),
            (429, "ApplicationThrottled", "throttled 9"),
            (500, "ErrorInternalServerError", "later 9"),
            (502, "", "later 9"),
            (503, "ErrorServerBusy", "throttled 9"),
            (504, "UnknownError", "in doubt"),
            (509, "", "throttled 600"),
            (422, "", "never 5.0.0"),
        ] {
            check(status, code, Some(9), expected);
        }
        for (status, code, retry_after, expected) in [
            (202, "", None, "taken -"),
            (429, "TooManyRequests", None, "throttled -"),
            (
                429,
                "ErrorExceededMessageLimit",
                Some(7200),
                "throttled 7200",
            ),
            (503, "ErrorServerBusy", None, "later -"),
            (500, "", None, "later -"),
            (509, "", None, "throttled 600"),
            (509, "", Some(3600), "throttled 3600"),
        ] {
            check(status, code, retry_after, expected);
        }
        let strange = read(
            400,
            b"{\"error\":{\"code\":\"\x1b[31mx y\"}}",
            None,
            "m@c.d",
            "",
        );
        assert!(
            matches!(&strange, Meaning::Never(r) if r.text.starts_with("Graph: 400: ")),
            "{strange:?}"
        );
    }
}
