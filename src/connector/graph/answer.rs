//! What Graph answered, as an outcome: the code of its error first, the status second, never the message.
//!
//! It is pure: it sends nothing and waits for nothing. Only an error of Graph's own, with a code that is known to be
//! about the message, fails a message; what nobody knows is tried again, and what something in between answered in Graph's place is
//! no answer of Graph's.

use std::time::Duration;

use reqwest::header::{self, HeaderMap};

use super::codes::{GraphError, Row, Topic, error_in};
use crate::mail::{
    cause,
    outcome::{Obstacle, ObstacleKind, Outcome},
    reply::Reply,
};

/// The daily quotas are counted over a day; asking more often helps nobody.
const QUOTA: Duration = Duration::from_hours(1);
/// The tenant's bandwidth (509) is not counted by the second either.
const BANDWIDTH: Duration = Duration::from_mins(10);

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The same for every recipient ([`Outcome::Apart`]: one of them or more cannot); and nothing else is wanted before the wait.
    Tried(Outcome, Option<Duration>),
    /// Nothing was taken.
    NotTried(Obstacle),
}

impl Meaning {
    /// To be tried again.
    pub(super) fn later(reply: Reply, retry_after: Option<Duration>) -> Self {
        Outcome::Deferred { reply, retry_after }.into()
    }

    /// When something was attempted already: nothing is said about the whole connector any more.
    pub(super) fn under_way(self) -> Self {
        match self {
            Meaning::NotTried(Obstacle {
                kind: ObstacleKind::Down | ObstacleKind::Intercepted | ObstacleKind::Misconfigured,
                reply,
                retry_after,
            }) => Self::later(reply, retry_after),
            meaning => meaning,
        }
    }
}

impl From<Outcome> for Meaning {
    fn from(outcome: Outcome) -> Self {
        Meaning::Tried(outcome, None)
    }
}

impl From<Obstacle> for Meaning {
    fn from(obstacle: Obstacle) -> Self {
        Meaning::NotTried(obstacle)
    }
}

/// An answer as it was heard.
#[derive(Debug, Clone)]
pub(super) struct Heard<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    pub(super) wait: Option<Duration>,
    /// What Graph calls the request.
    pub(super) request: String,
    /// The message has a From that is not the mailbox.
    pub(super) is_foreign: bool,
}

impl Heard<'_> {
    fn error(&self) -> Option<GraphError> {
        error_in(self.body)
    }

    /// Status, code and request-id, as texts begin.
    pub(super) fn said(&self) -> String {
        let code = self.error().map(|error| error.code).unwrap_or_default();
        let status = self.status;
        match (code.is_empty(), self.request.is_empty()) {
            (true, true) => status.to_string(),
            (false, true) => format!("{status} {code}"),
            (true, false) => format!("{status} (request-id {})", self.request),
            (false, false) => format!("{status} {code} (request-id {})", self.request),
        }
    }

    /// Exchange marks a refusal by an application access policy so, in whatever language the rest is.
    fn is_by_policy(&self) -> bool {
        memchr::memmem::find(self.body, b"[RAOP]").is_some()
    }

    /// A page for people, which Graph has none of.
    fn is_page(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_html = kind
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("text/html");
        is_html || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Something in between answered, and not Graph, which speaks JSON and numbers its answers: what it was, and what to do.
    /// `None`: nothing shows that (RFC 9110 §7.6.3 Via, §11.7 Proxy-Authenticate; RFC 9209 Proxy-Status).
    pub(super) fn between(&self) -> Option<&'static str> {
        if self.error().is_some() || !self.request.is_empty() {
            return None;
        }
        let has = |name: &str| self.headers.contains_key(name);
        if self.status == 407 || has("proxy-authenticate") {
            return Some(
                "a proxy answered in Graph's place and asks for a login; write it into `proxy`, or let the proxy pass Graph's hosts through [proxy-login]",
            );
        }
        let is_proxy = ["via", "proxy-status", "proxy-connection", "x-squid-error"];
        (self.is_page() || is_proxy.into_iter().any(has)).then_some(
            "a proxy answered in Graph's place; make it pass Graph's hosts through [proxy-page]",
        )
    }
}

/// Something in between answered, or Graph as it should not.
fn between(text: String) -> Meaning {
    Obstacle::new(ObstacleKind::Intercepted, Reply::new(451, (4, 4, 1), text)).into()
}

fn throttled(reply: Reply, wait: Option<Duration>) -> Meaning {
    Obstacle::new(ObstacleKind::Throttled, reply)
        .after(wait)
        .into()
}

/// The token is not accepted; it was renewed before.
fn unaccepted(text: String) -> Meaning {
    Obstacle::new(
        ObstacleKind::Misconfigured,
        Reply::new(451, (4, 7, 0), text),
    )
    .into()
}

const POLICY: &str = cause::POLICY_DENIED.text;

/// Reads an answer to sendMail, or to the sending of a draft. `mailbox` is for the text.
pub(super) fn read(heard: &Heard<'_>, mailbox: &str) -> Meaning {
    let said = heard.said();
    let page = heard.between();
    match heard.status {
        // An empty one may have come through a proxy that names itself; a page has not come from Graph.
        202 if !heard.is_page() => {
            let taken = Reply::new(250, (2, 0, 0), format!("Graph: accepted, {said}"));
            return Meaning::Tried(Outcome::Delivered(taken), heard.wait);
        }
        // A 200 has been seen with no mail sent; whoever tries again at once may send two.
        200..=299 => {
            let why = page.unwrap_or("it is not 202");
            let text = format!("Graph: {said}: {why}; it may have been sent");
            return Outcome::InDoubt(Reply::new(451, (4, 4, 2), text)).into();
        }
        300..=399 => {
            let text =
                format!("Graph: {said}: a redirect, which is not followed; correct graph_url");
            return between(text);
        }
        _ => {}
    }
    match heard.error() {
        Some(GraphError { row: Some(row), .. }) => by_code(heard, row, &said, mailbox),
        _ => by_status(heard, page, &said, mailbox),
    }
}

/// What a known code means, whatever the status.
fn by_code(heard: &Heard<'_>, row: &Row, said: &str, mailbox: &str) -> Meaning {
    let text = || format!("Graph: {said}: {}", row.why);
    let refused = |kind| {
        let why = if heard.is_by_policy() {
            POLICY
        } else {
            row.why
        };
        let text = format!("Graph: {said}: mailbox {mailbox}: {why}");
        Obstacle::new(kind, Reply::new(550, (5, 7, 60), text)).into()
    };
    // Exchange says so too where Send As is missing; whether it is the mailbox, its own mail shows.
    let is_of_from = heard.is_foreign && !heard.is_by_policy();
    match row.about {
        Topic::Recipients => Outcome::Apart(Reply::new(554, (5, 1, 3), text())).into(),
        Topic::Content => Outcome::Failed(Reply::new(554, (5, 6, 0), text())).into(),
        Topic::Size => Outcome::Unsuited(Reply::new(552, (5, 3, 4), text())).into(),
        Topic::Permission if is_of_from => refused(ObstacleKind::FromRefused),
        Topic::Permission | Topic::Mailbox => refused(ObstacleKind::MailboxRefused),
        Topic::From => refused(ObstacleKind::FromRefused),
        Topic::Quota => {
            let text = format!("Graph: {said}: mailbox {mailbox}: {}", row.why);
            let wait = heard.wait.unwrap_or_default().max(QUOTA);
            throttled(Reply::new(452, (4, 2, 2), text), Some(wait))
        }
        Topic::Pace => throttled(Reply::new(451, (4, 3, 2), text()), heard.wait),
        Topic::Token => unaccepted(text()),
        Topic::Draft => Meaning::later(Reply::new(451, (4, 4, 2), text()), heard.wait),
        // What they say of the service, the status says better.
        Topic::Busy | Topic::Moment => by_status(heard, None, said, mailbox),
    }
}

/// What the status means where no code decides.
fn by_status(heard: &Heard<'_>, page: Option<&str>, said: &str, mailbox: &str) -> Meaning {
    let wait = heard.wait;
    let text = |why: &str| format!("Graph: {said}: {why}");
    let busy = || {
        let text = page.map_or_else(|| format!("Graph: {said}"), text);
        Reply::new(451, (4, 3, 2), text)
    };
    match heard.status {
        407 => Obstacle::misconfigured(text(page.unwrap_or_default())).into(),
        401 if page.is_none() => unaccepted(text("the token is not accepted")),
        413 if heard.error().is_some() => {
            let text = text("the message is larger than Graph accepts");
            Outcome::Unsuited(Reply::new(552, (5, 3, 4), text)).into()
        }
        // Of this message alone, whoever says it; and a smaller one may pass.
        413 => {
            let text = text(
                "something on the way to Graph takes no request of this size; make it pass Graph's hosts through",
            );
            Meaning::later(Reply::new(451, (4, 3, 4), text), wait)
        }
        504 => {
            let text = text("no answer to the complete message, it may have been sent");
            Outcome::InDoubt(Reply::new(451, (4, 4, 7), text)).into()
        }
        429 => throttled(Reply::new(451, (4, 3, 2), text("too much at once")), wait),
        509 => throttled(busy(), Some(wait.unwrap_or_default().max(BANDWIDTH))),
        // Without a wish it may be the message that Graph cannot cope with, and that must end some day.
        503 if wait.is_some() => throttled(busy(), wait),
        408 | 409 | 500..=599 => Meaning::later(busy(), wait),
        _ => {
            if let Some(page) = page {
                return between(text(page));
            }
            let why =
                format!("nothing known to be about the message of {mailbox}; it is tried again");
            Meaning::later(Reply::new(451, (4, 3, 0), text(&why)), wait)
        }
    }
}

/// What is done before a draft is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DraftStep {
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
pub(super) fn prepare(step: DraftStep, heard: &Heard<'_>, mailbox: &str) -> Meaning {
    let said = heard.said();
    let unsuited = |why: &str| {
        let text = format!("Graph: {said}: {why}");
        Outcome::Unsuited(Reply::new(552, (5, 3, 4), text)).into()
    };
    let later = |why: &str| {
        let text = format!("Graph: {said}: {why}");
        Meaning::later(Reply::new(451, (4, 3, 2), text), heard.wait)
    };
    let error = heard.error();
    let about = error
        .as_ref()
        .and_then(|error| error.row)
        .map(|row| row.about);
    match (heard.status, about, step) {
        (_, Some(Topic::Permission), _) => unsuited(cause::READWRITE_MISSING.text),
        // The search asks about our own drafts, so that nothing it says is about the message.
        (_, Some(Topic::Recipients | Topic::Content | Topic::Size), DraftStep::Search) => {
            later("the search for drafts is refused")
        }
        // OData's answer to a segment that it does not know.
        (404 | 405, None, DraftStep::Session) if error.is_some() => unsuited(
            "there are no upload sessions here (US Government clouds have none); write large_messages = \"refuse\"",
        ),
        (404 | 405, Some(Topic::Mailbox), DraftStep::Session) => unsuited(
            "there are no upload sessions here (US Government clouds have none); write large_messages = \"refuse\"",
        ),
        (400, None, DraftStep::Session) if error.is_some() => later(
            "an upload session is refused; where there are none, write large_messages = \"refuse\"",
        ),
        (200..=299 | 504, None | Some(Topic::Busy | Topic::Moment), _) => {
            later("a part of a draft")
        }
        _ => read(heard, mailbox),
    }
}

/// The attachment is to be sent in one request instead.
pub(super) fn is_too_small(body: &[u8]) -> bool {
    error_in(body)
        .is_some_and(|error| error.code == "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(meaning: Meaning) -> String {
        let seconds = |wait: Option<Duration>| {
            wait.map_or_else(|| "-".to_owned(), |wait| wait.as_secs().to_string())
        };
        match meaning {
            Meaning::Tried(outcome, pause) => match outcome {
                Outcome::Delivered(_) => format!("taken {}", seconds(pause)),
                Outcome::Deferred { retry_after, .. } => format!("later {}", seconds(retry_after)),
                Outcome::InDoubt(_) => "in doubt".into(),
                Outcome::Failed(reply) => {
                    let (class, subject, detail) = reply.status();
                    format!("never {class}.{subject}.{detail}")
                }
                Outcome::Apart(_) => "recipients".into(),
                Outcome::Unsuited(_) => "unsuited".into(),
            },
            Meaning::NotTried(obstacle) => match obstacle.kind {
                ObstacleKind::Throttled => format!("throttled {}", seconds(obstacle.retry_after)),
                ObstacleKind::MailboxRefused => "mailbox".into(),
                ObstacleKind::FromRefused => "from".into(),
                ObstacleKind::Misconfigured if obstacle.reply.enhanced == Some((4, 7, 0)) => {
                    "token".into()
                }
                ObstacleKind::Misconfigured => "misconfigured".into(),
                ObstacleKind::Stopped => "stopped".into(),
                ObstacleKind::Intercepted => "down".into(),
                ObstacleKind::Down => "nobody answered".into(),
            },
        }
    }

    fn answer(code: &str) -> Vec<u8> {
        format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"m\"}}}}").into_bytes()
    }

    fn heard<'a>(
        status: u16,
        headers: &'a HeaderMap,
        body: &'a [u8],
        wait: Option<u64>,
    ) -> Heard<'a> {
        Heard {
            status,
            headers,
            body,
            wait: wait.map(Duration::from_secs),
            request: String::new(),
            is_foreign: false,
        }
    }

    fn check(status: u16, code: &str, wait: Option<u64>, expected: &str) {
        let (headers, body) = (HeaderMap::new(), answer(code));
        let meaning = read(&heard(status, &headers, &body, wait), "m@corp.example");
        assert_eq!(kind_of(meaning), expected, "{status} {code}");
    }

    /// They count under 401 in `token`, and everywhere else as well.
    #[test]
    fn codes_of_the_token_count_under_every_status() {
        for (status, code, words) in [
            (403, "NoPermissionsInAccessToken", "admin consent"),
            (404, "OrganizationFromTenantGuidNotFound", "tenant_id"),
            (400, "TokenExpired", "clock"),
            (403, "invalidaudience", "scope"),
        ] {
            let body =
                format!(r#"{{"error":{{"code":"Forbidden","innerError":{{"code":"{code}"}}}}}}"#);
            let heard = Heard {
                status,
                headers: &HeaderMap::new(),
                body: body.as_bytes(),
                wait: None,
                request: String::new(),
                is_foreign: false,
            };
            let Meaning::NotTried(obstacle) = read(&heard, "m@corp.example") else {
                panic!("{status} {code}: {:?}", read(&heard, "m@corp.example"));
            };
            assert_eq!(obstacle.kind, ObstacleKind::Misconfigured);
            assert!(obstacle.reply.text.contains(words), "{obstacle:?}");
        }
    }

    #[test]
    fn an_access_policy_is_named() {
        let headers = HeaderMap::new();
        for (message, words) in [
            (
                "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
                "application access policy",
            ),
            ("Access is denied.", "Mail.Send"),
        ] {
            let body =
                format!(r#"{{"error":{{"code":"ErrorAccessDenied","message":"{message}"}}}}"#);
            match read(
                &heard(403, &headers, body.as_bytes(), None),
                "m@corp.example",
            ) {
                Meaning::NotTried(Obstacle {
                    kind: ObstacleKind::MailboxRefused,
                    reply,
                    ..
                }) => {
                    assert!(reply.text.contains(words), "{}", reply.text);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Exchange says of a From that the mailbox may not send as what it says of the mailbox.
    #[test]
    fn what_is_denied_to_a_foreign_from_is_denied_to_it_alone() {
        let headers = HeaderMap::new();
        for (code, message, is_foreign, expected) in [
            ("ErrorAccessDenied", "m", true, "from"),
            ("ErrorAccessDenied", "[RAOP] : Blocked", true, "mailbox"),
            ("ErrorAccessDenied", "m", false, "mailbox"),
            ("ErrorInvalidUser", "m", true, "mailbox"),
            ("ErrorSendAsDenied", "m", true, "from"),
        ] {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
            let heard = Heard {
                is_foreign,
                ..heard(403, &headers, body.as_bytes(), None)
            };
            assert_eq!(kind_of(read(&heard, "m@c.d")), expected, "{code} {message}");
        }
    }

    #[test]
    fn before_a_draft_is_sent() {
        use DraftStep::{Attach, Create, Search, Session};
        for (step, status, code, expected) in [
            (Search, 403, "ErrorAccessDenied", "unsuited"),
            (Create, 403, "ErrorAccessDenied", "unsuited"),
            (Attach, 403, "", "later 9"),
            (Create, 403, "ErrorQuotaExceeded", "mailbox"),
            (Create, 507, "ErrorQuotaExceeded", "mailbox"),
            (Create, 403, "ErrorSendAsDenied", "from"),
            (Session, 400, "ErrorExceededMessageLimit", "throttled 3600"),
            (Create, 404, "ErrorInvalidUser", "mailbox"),
            (Create, 400, "ErrorInvalidRecipients", "recipients"),
            (Create, 400, "InvalidInternetMessageHeader", "never 5.6.0"),
            (Create, 504, "UnknownError", "later 9"),
            (Create, 200, "", "later 9"),
            (Create, 401, "InvalidAuthenticationToken", "token"),
            (Create, 412, "ErrorIrresolvableConflict", "later 9"),
            (Attach, 412, "ErrorIrresolvableConflict", "later 9"),
            (Session, 412, "ErrorIrresolvableConflict", "later 9"),
            (Attach, 404, "ErrorItemNotFound", "later 9"),
            (Attach, 413, "", "unsuited"),
            (Attach, 400, "ErrorMessageSizeExceeded", "unsuited"),
            (Attach, 503, "ErrorServerBusy", "throttled 9"),
            (Session, 404, "UnknownResource", "unsuited"),
            (Session, 400, "BadRequest", "later 9"),
            (Search, 400, "BadRequest", "later 9"),
            (Search, 400, "ErrorInvalidRecipients", "later 9"),
            (Search, 405, "", "later 9"),
            (Search, 404, "UnknownResource", "later 9"),
            (Search, 429, "ApplicationThrottled", "throttled 9"),
        ] {
            let (headers, body) = (HeaderMap::new(), answer(code));
            let meaning = prepare(
                step,
                &heard(status, &headers, &body, Some(9)),
                "m@corp.example",
            );
            assert_eq!(kind_of(meaning), expected, "{step:?} {status} {code}");
        }
    }

    #[test]
    fn the_table() {
        for (status, code, expected) in [
            (202, "", "taken 9"),
            (200, "", "in doubt"),
            (302, "", "down"),
            (400, "ErrorInvalidRecipients", "recipients"),
            (400, "ErrorMimeContentInvalidBase64String", "never 5.6.0"),
            (400, "ErrorMessageSizeExceeded", "unsuited"),
            (400, "ErrorExceededMessageLimit", "throttled 3600"),
            (403, "ErrorExceededMessageLimit", "throttled 3600"),
            (429, "ErrorExceededMessageLimit", "throttled 3600"),
            (401, "InvalidAuthenticationToken", "token"),
            (403, "ErrorAccessDenied", "mailbox"),
            (403, "ErrorSendAsDenied", "from"),
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
    }

    /// A code means the same whatever the status, but for those of which the status says more.
    #[test]
    fn the_code_decides_and_not_the_status() {
        for status in [
            400, 402, 403, 404, 409, 412, 413, 415, 422, 423, 429, 500, 503, 507,
        ] {
            for (code, expected) in [
                ("ErrorInvalidRecipients", "recipients"),
                ("ErrorMimeContentInvalid", "never 5.6.0"),
                ("ErrorMessageSizeExceeded", "unsuited"),
                ("ErrorAccessDenied", "mailbox"),
                ("ErrorSendAsDenied", "from"),
                ("ErrorQuotaExceeded", "mailbox"),
                ("ErrorAccountSuspend", "mailbox"),
                ("ErrorMessageSubmissionBlocked", "mailbox"),
                ("ErrorInvalidUser", "mailbox"),
                ("MailboxNotEnabledForRESTAPI", "mailbox"),
                ("errorexceededmessagelimit", "throttled 3600"),
                ("ApplicationThrottled", "throttled -"),
                ("InvalidAuthenticationToken", "token"),
                ("ErrorItemNotFound", "later -"),
            ] {
                check(status, code, None, expected);
            }
        }
    }

    /// Whatever is not known to be about the message is tried again.
    #[test]
    fn what_nobody_knows_fails_nothing() {
        for status in 400..=599 {
            for code in [
                "",
                "UnknownError",
                "BadRequest",
                "ErrorIrresolvableConflict",
                "x y\u{1b}",
            ] {
                let (headers, body) =
                    (HeaderMap::new(), answer(&code.replace('\u{1b}', "\\u001b")));
                let meaning = read(&heard(status, &headers, &body, None), "m@c.d");
                let kind = kind_of(meaning);
                let is_size = status == 413 && kind == "unsuited";
                let is_kept = [
                    "later -",
                    "in doubt",
                    "throttled -",
                    "throttled 600",
                    "token",
                    "misconfigured",
                ];
                assert!(
                    is_size || is_kept.contains(&kind.as_str()),
                    "{status} {code} {kind}"
                );
            }
        }
    }

    #[test]
    fn what_something_in_between_answered_is_no_verdict() {
        let cut = &answer("ErrorInvalidRecipients")[..30];
        let page: &[u8] = b"\r\n<html><title>Access denied</title>";
        for status in 400..=599 {
            for (header, body) in [
                (("content-type", "text/html; charset=utf-8"), &b""[..]),
                (("content-type", "application/json"), &b""[..]),
                (("content-type", "application/json"), cut),
                (
                    ("content-type", "application/json"),
                    &b"\x1f\x8b\x08\0\0"[..],
                ),
                (("server", "x"), page),
                (("via", "1.1 proxy"), &b"no"[..]),
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(header.0, header.1.parse().unwrap());
                let heard = heard(status, &headers, body, None);
                let is_between = header.0 != "content-type" || header.1.starts_with("text/html");
                for (meaning, what) in [
                    (read(&heard, "m@c.d"), "send"),
                    (prepare(DraftStep::Create, &heard, "m@c.d"), "create"),
                    (prepare(DraftStep::Search, &heard, "m@c.d"), "search"),
                    (prepare(DraftStep::Session, &heard, "m@c.d"), "session"),
                ] {
                    let kind = kind_of(meaning);
                    let expected = match status {
                        407 => "misconfigured",
                        401 if !is_between => "token",
                        504 if what == "send" => "in doubt",
                        429 => "throttled -",
                        509 => "throttled 600",
                        408 | 409 | 413 | 500.. => "later -",
                        _ if is_between => "down",
                        _ => "later -",
                    };
                    assert_eq!(kind, expected, "{what} {status} {header:?}");
                }
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert("via", "1.1 proxy".parse().unwrap());
        let taken = read(&heard(202, &headers, b"", None), "m@c.d");
        assert_eq!(kind_of(taken), "taken -", "a proxy may name itself");
        let page = read(&heard(202, &headers, b"<html>", None), "m@c.d");
        assert_eq!(kind_of(page), "in doubt");
    }

    #[test]
    fn a_strange_code_is_not_repeated() {
        let headers = HeaderMap::new();
        let body = br#"{"error":{"code":"\u001b[31mx y"}}"#;
        let meaning = read(&heard(400, &headers, body, None), "m@c.d");
        assert!(
            matches!(&meaning, Meaning::Tried(Outcome::Deferred { reply, retry_after: None }, None) if reply.text.starts_with("Graph: 400 31mxy: ")),
            "{meaning:?}"
        );
    }
}
