//! What Graph's error codes mean, as data: whom a code is about, what is to be done, and where that is known from.
//!
//! The status is added by `answer`: the same code comes under 400, 403, 404, 413, 429, 500 and 507, so the code decides
//! and the status only where no code is known. It is pure, and reads no message, which may change and is translated.

use serde_json::Value;

use crate::mail::cause;

/// Whom a code is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// One recipient or more of the message.
    Recipients,
    /// What the message says: it is never taken.
    Content,
    /// Its size.
    Size,
    /// What the application may do with the mailbox.
    Permission,
    /// The mailbox.
    Mailbox,
    /// This From in this mailbox.
    From,
    /// The quota of a day.
    Quota,
    /// The pace.
    Pace,
    /// The service, which has too much to do.
    Busy,
    /// A moment that passes.
    Moment,
    /// The token.
    Token,
    /// The draft, which is not there.
    Draft,
}

/// A code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// As Graph writes it; compared without case.
    pub(super) code: &'static str,
    pub(super) about: Topic,
    /// What is wrong and what to do, for people.
    pub(super) why: &'static str,
    /// Where it is known from.
    pub(super) source: &'static str,
}

/// "learn.microsoft.com/graph/errors", and the response codes that Graph hands on from Exchange.
const GRAPH: &str = "learn.microsoft.com/graph/errors";
const EXCHANGE: &str =
    "learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode";
const AUTH: &str = "learn.microsoft.com/graph/resolve-auth-errors";
const THROTTLING: &str = "learn.microsoft.com/graph/throttling";
const LIMITS: &str = "learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits";

const ADDRESS: &str = "a recipient's address is not accepted";
const CONTENT: &str = "the message is not accepted";
const SIZE: &str = "the message is larger than Graph accepts";
const PERMISSION: &str = cause::MAILBOX_DENIED.text;
const MISSING: &str = cause::MAILBOX_UNKNOWN.text;
const ELSEWHERE: &str = cause::MAILBOX_ELSEWHERE.text;
const FULL: &str = cause::MAILBOX_FULL.text;
const BLOCKED: &str = cause::MAILBOX_BLOCKED.text;
const FROM: &str = cause::SEND_AS_DENIED.text;
const QUOTA: &str = cause::QUOTA_DAY.text;
const PACE: &str = "too much at once";
const BUSY: &str = "Exchange Online is too busy";
const MOMENT: &str = "it passes";
/// Of a token whose code says nothing more.
pub(super) const TOKEN: &str = "the token is not accepted";
pub(super) const NO_PERMISSION: &str = cause::PERMISSION_NONE.text;
const SERVICE_PRINCIPAL: &str = cause::APP_NO_PRINCIPAL.text;
pub(super) const TENANT: &str = cause::TENANT_NO_EXCHANGE.text;
pub(super) const CLOCK: &str = cause::CLOCK.text;
pub(super) const AUDIENCE: &str = cause::AUDIENCE_WRONG.text;
const CLOUD: &str = cause::CLOUD_WRONG.text;
const DRAFT: &str = "the draft is gone";

const fn row(code: &'static str, about: Topic, why: &'static str, source: &'static str) -> Row {
    Row {
        code,
        about,
        why,
        source,
    }
}

/// The table. What is not in it is tried again.
pub(super) const CODES: &[Row] = &[
    row(
        "ErrorInvalidRecipients",
        Topic::Recipients,
        ADDRESS,
        EXCHANGE,
    ),
    row(
        "ErrorInvalidSmtpAddress",
        Topic::Recipients,
        ADDRESS,
        EXCHANGE,
    ),
    row(
        "ErrorMissingRecipients",
        Topic::Recipients,
        ADDRESS,
        EXCHANGE,
    ),
    row("ErrorMimeContentInvalid", Topic::Content, CONTENT, EXCHANGE),
    row(
        "ErrorMimeContentInvalidBase64String",
        Topic::Content,
        CONTENT,
        EXCHANGE,
    ),
    row(
        "ErrorContentConversionFailed",
        Topic::Content,
        CONTENT,
        EXCHANGE,
    ),
    row(
        "InvalidInternetMessageHeader",
        Topic::Content,
        CONTENT,
        "github.com/microsoftgraph/msgraph-sdk-dotnet/issues/2208",
    ),
    row("ErrorMessageSizeExceeded", Topic::Size, SIZE, EXCHANGE),
    row(
        "ErrorAttachmentSizeLimitExceeded",
        Topic::Size,
        SIZE,
        EXCHANGE,
    ),
    row("RequestEntityTooLarge", Topic::Size, SIZE, GRAPH),
    row("ErrorAccessDenied", Topic::Permission, PERMISSION, EXCHANGE),
    row("AccessDenied", Topic::Permission, PERMISSION, GRAPH),
    row(
        "Authorization_RequestDenied",
        Topic::Permission,
        PERMISSION,
        AUTH,
    ),
    row("ErrorSendAsDenied", Topic::From, FROM, EXCHANGE),
    row("ErrorQuotaExceeded", Topic::Mailbox, FULL, EXCHANGE),
    row(
        "ErrorAccountSuspend",
        Topic::Mailbox,
        BLOCKED,
        "learn.microsoft.com/answers, \"ErrorAccountSuspend\" to sendMail",
    ),
    row("ErrorAccountDisabled", Topic::Mailbox, BLOCKED, EXCHANGE),
    row(
        "ErrorMessageSubmissionBlocked",
        Topic::Mailbox,
        BLOCKED,
        "learn.microsoft.com/answers, \"ErrorMessageSubmissionBlocked\" to sendMail",
    ),
    row("ErrorInvalidUser", Topic::Mailbox, MISSING, EXCHANGE),
    row("ErrorNonExistentMailbox", Topic::Mailbox, MISSING, EXCHANGE),
    row(
        "ErrorMissingEmailAddress",
        Topic::Mailbox,
        MISSING,
        EXCHANGE,
    ),
    row("Request_ResourceNotFound", Topic::Mailbox, MISSING, GRAPH),
    row("ResourceNotFound", Topic::Mailbox, MISSING, GRAPH),
    row(
        "MailboxNotEnabledForRESTAPI",
        Topic::Mailbox,
        ELSEWHERE,
        "github.com/OfficeDev/outlook-dev-docs/issues/1031",
    ),
    row(
        "MailboxNotSupportedForRESTAPI",
        Topic::Mailbox,
        ELSEWHERE,
        "learn.microsoft.com/graph/resources/mail-api-overview",
    ),
    row("ErrorExceededMessageLimit", Topic::Quota, QUOTA, LIMITS),
    row("ErrorSubmissionQuotaExceeded", Topic::Quota, QUOTA, LIMITS),
    row("ApplicationThrottled", Topic::Pace, PACE, THROTTLING),
    row("TooManyRequests", Topic::Pace, PACE, THROTTLING),
    row("ErrorTooManyRequests", Topic::Pace, PACE, THROTTLING),
    row("ActivityLimitReached", Topic::Pace, PACE, GRAPH),
    row("ThrottledRequest", Topic::Pace, PACE, GRAPH),
    row("ErrorExceededConnectionCount", Topic::Pace, PACE, EXCHANGE),
    row("ErrorServerBusy", Topic::Busy, BUSY, EXCHANGE),
    row("ServiceNotAvailable", Topic::Busy, BUSY, GRAPH),
    row(
        "ErrorIrresolvableConflict",
        Topic::Moment,
        MOMENT,
        "github.com/mguessan/davmail/issues/491",
    ),
    row("ErrorInternalServerError", Topic::Moment, MOMENT, EXCHANGE),
    row(
        "ErrorInternalServerTransientError",
        Topic::Moment,
        MOMENT,
        EXCHANGE,
    ),
    row(
        "ErrorMailboxMoveInProgress",
        Topic::Moment,
        MOMENT,
        EXCHANGE,
    ),
    row(
        "ErrorMailboxStoreUnavailable",
        Topic::Moment,
        MOMENT,
        EXCHANGE,
    ),
    row("ErrorTimeoutExpired", Topic::Moment, MOMENT, EXCHANGE),
    row(
        "UnknownError",
        Topic::Moment,
        MOMENT,
        "github.com/microsoftgraph/microsoft-graph-docs/issues/10696",
    ),
    row("InvalidAuthenticationToken", Topic::Token, TOKEN, GRAPH),
    row("ErrorInvalidToken", Topic::Token, TOKEN, EXCHANGE),
    row(
        "NoPermissionsInAccessToken",
        Topic::Token,
        NO_PERMISSION,
        AUTH,
    ),
    row(
        "Authorization_IdentityNotFound",
        Topic::Token,
        SERVICE_PRINCIPAL,
        AUTH,
    ),
    row(
        "OrganizationFromTenantGuidNotFound",
        Topic::Token,
        TENANT,
        "github.com/microsoftgraph/microsoft-graph-docs/issues/5673",
    ),
    row("TenantNotFound", Topic::Token, TENANT, AUTH),
    row("Directory_ObjectNotFound", Topic::Token, TENANT, AUTH),
    row("TokenExpired", Topic::Token, CLOCK, GRAPH),
    row("TokenNotYetValid", Topic::Token, CLOCK, GRAPH),
    row("InvalidAudience", Topic::Token, AUDIENCE, GRAPH),
    row(
        "InvalidAuthenticationTokenTenant",
        Topic::Token,
        CLOUD,
        GRAPH,
    ),
    row("ErrorItemNotFound", Topic::Draft, DRAFT, EXCHANGE),
];

/// Errors inside errors are followed so far.
const DEPTH: usize = 8;

/// An error of Graph's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GraphError {
    /// The code that decides, for the text; it may be empty.
    pub(super) code: String,
    /// What it means, if that is known.
    pub(super) row: Option<&'static Row>,
}

/// The error in a body; `None`: the body is not one of Graph's (a page of a proxy, one that was cut). Of the codes in it the most
/// specific known one counts: Graph puts errors inside errors (`innererror`, in more than one spelling), each more exact than the one
/// around it. None known: the outermost.
pub(super) fn error_in(body: &[u8]) -> Option<GraphError> {
    // A mark of the byte order is no part of JSON (RFC 8259 §8.1), and is written all the same.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let content: Value = serde_json::from_slice(body).ok()?;
    let mut error = content.get("error").filter(|error| error.is_object());
    error?;
    let mut codes = Vec::new();
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
    let known = codes.iter().rev().find_map(|code| row_of(code));
    let outermost = codes.iter().find(|code| !code.is_empty());
    Some(GraphError {
        code: match known {
            Some(row) => row.code.to_owned(),
            None => word(outermost.copied().unwrap_or_default()),
        },
        row: known,
    })
}

/// The row of a code.
pub(super) fn row_of(code: &str) -> Option<&'static Row> {
    CODES.iter().find(|row| row.code.eq_ignore_ascii_case(code))
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

    #[test]
    fn the_most_specific_code_that_is_known_decides() {
        for (body, expected) in [
            (
                r#"{"error":{"code":"BadRequest","innererror":{"code":"ErrorMessageSizeExceeded"}}}"#,
                Some("ErrorMessageSizeExceeded"),
            ),
            (
                r#"{"error":{"code":"BadRequest","innerError":{"code":"x","innererror":{"code":"ErrorInvalidRecipients"}}}}"#,
                Some("ErrorInvalidRecipients"),
            ),
            (
                r#"{"error":{"code":"ErrorSendAsDenied","innererror":{"code":"Unheard"}}}"#,
                Some("ErrorSendAsDenied"),
            ),
            (
                r#"{"error":{"code":"ErrorSendAsDenied","innererror":{"code":"ErrorQuotaExceeded"}}}"#,
                Some("ErrorQuotaExceeded"),
            ),
            (
                r#"{"error":{"code":"Outer","innererror":{"code":"Inner"}}}"#,
                Some("Outer"),
            ),
            (
                r#"{"error":{"innererror":{"code":"Inner"}}}"#,
                Some("Inner"),
            ),
            (
                r#"{"error":{"code":"a","innererror":{"request-id":"r"}}}"#,
                Some("a"),
            ),
            (
                "\u{feff}{\"error\":{\"code\":\"tooManyRequests\"}}",
                Some("TooManyRequests"),
            ),
            (r#"{"error":{"code":7,"innererror":[]}}"#, Some("")),
            (r#"{"error":{}}"#, Some("")),
            (r#"{"error":"text"}"#, None),
            (r#"{"error":{"code":"ErrorInvalidRecipients","mess"#, None),
            (r#"{"code":"outside"}"#, None),
            ("<html>", None),
            ("", None),
        ] {
            let found = error_in(body.as_bytes()).map(|error| error.code);
            assert_eq!(found.as_deref(), expected, "{body}");
        }
        let mut deep = r#"{"code":"ErrorInvalidRecipients"}"#.to_owned();
        for _ in 0..50 {
            deep = format!(r#"{{"code":"c","innererror":{deep}}}"#);
        }
        let found = error_in(format!(r#"{{"error":{deep}}}"#).as_bytes()).unwrap();
        assert_eq!((found.code.as_str(), found.row), ("c", None));
    }

    /// The page for administrators and the table say the same: a code that is not a passing moment stands there.
    #[test]
    fn the_page_names_every_code_that_needs_somebody() {
        let page = include_str!("../../../docs/exchange-online.md");
        for (at, row) in CODES.iter().enumerate() {
            assert!(!row.source.is_empty(), "{}", row.code);
            assert!(
                !CODES[..at]
                    .iter()
                    .any(|r| r.code.eq_ignore_ascii_case(row.code)),
                "{} twice",
                row.code
            );
            let by_itself = matches!(row.about, Topic::Moment | Topic::Draft);
            assert!(
                by_itself || page.contains(&format!("`{}`", row.code)),
                "{} is not on the page",
                row.code
            );
        }
    }
}
