//! One attachment by an upload session: in pieces, in order, resumed where Graph says.
//!
//! It speaks to another host than `draft`, whose URL is the credential: the URL goes into no log, and no token goes there.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Url, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    answer::DraftStep,
    codes::error_in,
    coding::Content,
    parts::Attachment,
    steps::{Draft, Stop},
};
use crate::connector::http::{Answer, NoAnswer, allowed};

/// Ten times 320 KiB: a multiple of what OneDrive's sessions ask for, and less than the 4 MB of a request.
const PIECE: usize = 3_276_800;
/// One piece; a line of 256 kbit/s needs 100 seconds for it.
const PIECE_TIME: Duration = Duration::from_mins(4);
/// Tries of a piece, with growing pauses.
const TRIES: u32 = 4;
/// Sessions for an attachment: one may be lost.
const SESSIONS: u32 = 2;
/// Octets of the URL of a session.
const URL: usize = 16 * 1024;

/// What the next request to a session is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NextRequest {
    /// The next piece.
    Send,
    /// Where the upload stands: nobody knows whether the last piece arrived.
    Ask,
    /// The last piece once more, since it could not be asked; it is refused if it is there.
    SendAgain,
}

/// What came of a session.
enum SessionEnd {
    /// The attachment is there.
    Done,
    /// The session is not: expired, or forgotten.
    Lost,
}

/// What an upload session says of itself.
enum SessionSays {
    /// It goes on there.
    Next(usize),
    /// The attachment is there.
    Done,
    /// Try again, after this.
    Again(Option<Duration>, String),
    /// It is not what we think it is.
    Astray,
    /// There is no such session.
    Lost,
    /// Too large.
    Never,
    /// The piece is refused, by Graph or on the way, and would be again.
    Refused,
}

impl Draft<'_> {
    /// An attachment that is too large for one request.
    pub(super) async fn upload(
        &self,
        id: &str,
        attachment: &Attachment,
        content: &mut Content,
    ) -> Result<(), Stop> {
        for _ in 0..SESSIONS {
            let url = self.session(id, attachment, content.len()).await?;
            match self.pieces(&url, content).await? {
                SessionEnd::Done => return Ok(()),
                SessionEnd::Lost => {}
            }
        }
        Err(Stop::later(
            "upload sessions end before the upload does, or something on the way refuses its pieces",
            None,
        ))
    }

    /// A session's URL.
    async fn session(&self, id: &str, attachment: &Attachment, size: usize) -> Result<Url, Stop> {
        let mut item = json!({
            "attachmentType": "file",
            "name": attachment.name,
            "contentType": attachment.kind,
            "size": size,
            "isInline": attachment.inline,
        });
        if let (Some(item), Some(content_id)) = (item.as_object_mut(), &attachment.content_id) {
            item.insert("contentId".into(), content_id.clone().into());
        }
        let url = self.url(&[id, "attachments", "createUploadSession"])?;
        let body = json!({"AttachmentItem": item}).to_string();
        let request = self.request(Method::POST, &url, body.into());
        let answer = self
            .patiently(DraftStep::Session, &request, self.until)
            .await?;
        let made: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let url = made
            .get("uploadUrl")
            .and_then(Value::as_str)
            .filter(|url| url.len() <= URL)
            .and_then(|url| Url::parse(url).ok());
        let url = url.ok_or_else(|| Stop::later("the upload session has no URL", None))?;
        match allowed(&self.graph.settings.oauth.http, &url) {
            Ok(()) => Ok(url),
            Err(why) => Err(Stop::unsuited(format!(
                "uploads go to a host that is not allowed ({why}); allow it, or write large_messages = \"refuse\""
            ))),
        }
    }

    /// All pieces, one after the other.
    async fn pieces(&self, url: &Url, content: &mut Content) -> Result<SessionEnd, Stop> {
        let total = content.len();
        let unconfirmed = || Stop::later("the end of an upload was not confirmed", None);
        let (mut turn, mut next, mut tries) = (NextRequest::Send, 0, 0);
        loop {
            let piece = content.piece(next, PIECE);
            let end = next + piece.len();
            let said = match turn {
                NextRequest::Send | NextRequest::SendAgain => {
                    said(&self.put(url, next, total, piece).await, end == total)
                }
                NextRequest::Ask => standing(&self.ask_session(url, "GET", "", Client::get).await),
            };
            turn = match (said, turn) {
                (SessionSays::Done, _) => return Ok(SessionEnd::Done),
                // Everything is there, and nothing was confirmed.
                (SessionSays::Next(at), _) if at == total => return Err(unconfirmed()),
                (SessionSays::Next(at), _) if at <= end => {
                    if at > next {
                        tries = 0;
                    } else if turn != NextRequest::Ask {
                        tries += 1;
                    }
                    next = at;
                    NextRequest::Send
                }
                (SessionSays::Again(wait, text), _) => {
                    let text = format!("an upload was interrupted: {text}");
                    if tries >= TRIES {
                        return Err(Stop::later(text, wait));
                    }
                    if let Err(wait) = self.wait(wait, tries).await {
                        return Err(Stop::later(text, Some(wait)));
                    }
                    tries += 1;
                    NextRequest::Ask
                }
                (SessionSays::Astray, NextRequest::Ask) => NextRequest::SendAgain,
                (SessionSays::Astray, NextRequest::Send) => {
                    tries += 1;
                    NextRequest::Ask
                }
                (SessionSays::Never, _) => {
                    return Err(Stop::unsuited(
                        "the attachment is larger than the mailbox accepts",
                    ));
                }
                // Gone, perhaps because it was complete: then the attachment is there, and must not be there twice.
                (_, NextRequest::Ask | NextRequest::SendAgain) if end == total => {
                    return Err(unconfirmed());
                }
                _ => return Ok(SessionEnd::Lost),
            };
            if tries > TRIES {
                return Err(Stop::later("an upload makes no progress", None));
            }
        }
    }

    async fn put(
        &self,
        url: &Url,
        from: usize,
        total: usize,
        piece: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let last = (from + piece.len()).saturating_sub(1);
        let range = format!("bytes {from}-{last}/{total}");
        let put = |client: &Client, url| {
            client
                .put(url)
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &range)
                .body(piece)
        };
        self.ask_session(url, "PUT", &format!(" <{range}>"), put)
            .await
    }

    /// One request to the session. Of its URL only the host is recorded; the rest is a credential.
    async fn ask_session(
        &self,
        url: &Url,
        verb: &str,
        what: &str,
        make: impl FnOnce(&Client, Url) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        let host = url.host_str().unwrap_or_default();
        self.graph.record(&format!("> {verb} {host}{what}"));
        let until = self.until.min(Instant::now() + PIECE_TIME);
        let answer = self.graph.http.send(url, until, make).await;
        self.graph.record_answer(&answer);
        answer
    }
}

/// What the answer to a piece says; `last`: to the last one.
fn said(answer: &Result<Answer, NoAnswer>, last: bool) -> SessionSays {
    let answer = match answer {
        Ok(answer) => answer,
        Err(fault) => return SessionSays::Again(None, fault.text().to_owned()),
    };
    match answer.status.as_u16() {
        201 => SessionSays::Done,
        200 | 202 => match next_of(&answer.body) {
            Some(next) => SessionSays::Next(next),
            None if last => SessionSays::Done,
            None => SessionSays::Astray,
        },
        401 | 403 | 404 | 410 => SessionSays::Lost,
        413 if error_in(&answer.body).is_some() => SessionSays::Never,
        status @ (408 | 429 | 500..=599) => {
            SessionSays::Again(answer.retry_after(), status.to_string())
        }
        // It stands elsewhere than we think: it can say where.
        409 | 416 => SessionSays::Astray,
        400..=499 => SessionSays::Refused,
        _ => SessionSays::Astray,
    }
}

/// What the answer to the question where it stands says. That question may not be known there.
fn standing(answer: &Result<Answer, NoAnswer>) -> SessionSays {
    match said(answer, false) {
        SessionSays::Done | SessionSays::Never | SessionSays::Refused => SessionSays::Astray,
        said => said,
    }
}

/// The first of `nextExpectedRanges`: `"123"`, `"123-"` and `"123-456"` occur.
fn next_of(body: &[u8]) -> Option<usize> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let ranges = said
        .get("nextExpectedRanges")
        .or_else(|| said.get("NextExpectedRanges"))?;
    let first = ranges.as_array()?.first()?.as_str()?;
    first.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_goes_on() {
        for (body, expected) in [
            (r#"{"nextExpectedRanges":["2097152"]}"#, Some(2_097_152)),
            (r#"{"nextExpectedRanges":["0-"]}"#, Some(0)),
            (r#"{"nextExpectedRanges":["5-9","12-"]}"#, Some(5)),
            (r#"{"NextExpectedRanges":["7"]}"#, Some(7)),
            (r#"{"nextExpectedRanges":[]}"#, None),
            (r#"{"nextExpectedRanges":["x"]}"#, None),
            (r#"{"nextExpectedRanges":["-5"]}"#, None),
            ("", None),
        ] {
            assert_eq!(next_of(body.as_bytes()), expected, "{body}");
        }
    }
}
