//! The single steps of a draft: find what carries a key, make one, attach, delete; and how long a step is waited for.
//!
//! In which order, and what follows, `draft` says. No step here sends anything.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::{Method, Url};
use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    answer::{self, DraftStep, Meaning},
    ask::{self, GraphRequest, Silence},
    client::Graph,
    coding::{Content, Encoding},
    fields,
    parts::{Attachment, PartSource},
};
use crate::{
    connector::{
        deadline::Deadline,
        http::{Answer, NoAnswer},
    },
    mail::{
        outcome::{Obstacle, Outcome},
        reply::Reply,
    },
};

/// Octets of an attachment that goes by upload session; below it a session is refused, above it one request is.
const UPLOAD: usize = 3_000_000;
/// One request that is not the last.
const ANSWER: Duration = Duration::from_mins(4);
/// An answer "later" is waited for here so many times, and so long; otherwise the message waits in the queue.
pub(super) const TRIES: u32 = 3;
const SHORT: Duration = Duration::from_mins(1);
/// Kept of the deadline, for tidying up.
pub(super) const TIDYING: Duration = Duration::from_secs(10);
/// Octets of an id that Graph gives.
const ID: usize = 1000;

/// Why a draft came to nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// As an answer means.
    Meaning(Meaning),
    /// The attachment is too small for an upload session.
    Small,
}

impl Stop {
    /// To be tried again.
    pub(super) fn later(text: impl Into<String>, wait: Option<Duration>) -> Self {
        let text = format!("Graph: {}", text.into());
        Self::Meaning(Meaning::later(Reply::new(451, (4, 4, 2), text), wait))
    }

    /// Not through this connector.
    pub(super) fn unsuited(text: impl Into<String>) -> Self {
        let text = format!("Graph: {}", text.into());
        Outcome::Unsuited(Reply::new(552, (5, 3, 4), text)).into()
    }

    /// What follows when something was attempted already.
    pub(super) fn under_way(self) -> Meaning {
        match self {
            Self::Meaning(meaning) => meaning.under_way(),
            // No step ends with it.
            Self::Small => Meaning::later(Reply::new(451, (4, 3, 0), "Graph: interrupted"), None),
        }
    }
}

impl<T: Into<Meaning>> From<T> for Stop {
    fn from(meaning: T) -> Self {
        Self::Meaning(meaning.into())
    }
}

/// What a search found.
pub(super) enum Left {
    /// Drafts, perhaps none.
    Drafts(Vec<String>),
    /// It was sent.
    Sent,
}

/// What became of a draft that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deleted {
    Yes,
    /// It was not there (any more).
    Missing,
    /// Nobody knows.
    Unknown,
}

/// A large message on its way.
pub(super) struct Draft<'a> {
    pub(super) graph: &'a Graph,
    pub(super) mailbox: &'a str,
    pub(super) is_foreign: bool,
    /// For `client-request-id`.
    pub(super) id: String,
    /// What its drafts are found by.
    pub(super) key: String,
    pub(super) deadline: &'a Deadline,
    /// No step begins or lasts longer.
    pub(super) until: Instant,
}

impl Draft<'_> {
    /// For what carries the key.
    pub(super) async fn search(&self, until: Instant) -> Result<Left, Stop> {
        let mut url = self.url(&[])?;
        // Written out: Graph wants blanks as %20, and a quote stands for itself.
        let id = fields::KEY.replace('{', "%7B").replace('}', "%7D");
        let query = format!(
            "$filter=singleValueExtendedProperties/Any(ep: ep/id eq '{id}' and ep/value eq '{}')&$select=id,isDraft&$top=50",
            self.key
        );
        url.set_query(Some(&query.replace(' ', "%20")));
        let request = self.request(Method::GET, &url, Bytes::new());
        let answer = self.patiently(DraftStep::Search, &request, until).await?;
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(found) = found.get("value").and_then(Value::as_array) else {
            return Err(Stop::later("the search for drafts was not answered", None));
        };
        let mut drafts = Vec::new();
        for item in found {
            match (id_of(item), item.get("isDraft").and_then(Value::as_bool)) {
                (_, Some(false)) => return Ok(Left::Sent),
                (Some(id), Some(true)) => drafts.push(id),
                _ => return Err(Stop::later("the search for drafts was not answered", None)),
            }
        }
        Ok(Left::Drafts(drafts))
    }

    /// The id of the new draft.
    pub(super) async fn create(&self, first: Bytes) -> Result<String, Stop> {
        let url = self.url(&[])?;
        let request = self.request(Method::POST, &url, first);
        let answer = self
            .patiently(DraftStep::Create, &request, self.until)
            .await?;
        id_in(&answer.body).ok_or_else(|| Stop::later("the new draft has no id", None))
    }

    /// In one request where there is room, else by an upload session.
    pub(super) async fn attach(
        &self,
        id: &str,
        attachment: Attachment,
        body: &Bytes,
    ) -> Result<(), Stop> {
        let source = attachment.source.clone();
        let encoded = body.clone();
        let content = tokio::task::spawn_blocking(move || match source {
            PartSource::Text(text) => Content::new(Encoding::Plain, text.into()),
            PartSource::Range(encoding, range) => {
                let end = range.end.min(encoded.len());
                Content::new(encoding, encoded.slice(range.start.min(end)..end))
            }
        });
        let Ok(mut content) = content.await else {
            return Err(Stop::later("an attachment could not be read", None));
        };
        if content.len() >= UPLOAD {
            match self.upload(id, &attachment, &mut content).await {
                // Where a megabyte is 1,048,576 octets.
                Err(Stop::Small) => {}
                done => return done,
            }
        }
        let octets = content.piece(0, content.len());
        let mut file = json!({
            "@odata.type": "#microsoft.graph.fileAttachment",
            "name": attachment.name,
            "contentType": attachment.kind,
            "isInline": attachment.inline,
            "contentBytes": STANDARD.encode(&octets),
        });
        if let (Some(file), Some(content_id)) = (file.as_object_mut(), &attachment.content_id) {
            file.insert("contentId".into(), content_id.clone().into());
        }
        let url = self.url(&[id, "attachments"])?;
        let request = self.request(Method::POST, &url, file.to_string().into());
        drop(file);
        self.patiently(DraftStep::Attach, &request, self.until)
            .await?;
        Ok(())
    }

    /// Whether it is gone.
    pub(super) async fn delete(&self, id: &str, until: Instant) -> Deleted {
        let Ok(url) = self.url(&[id]) else {
            return Deleted::Unknown;
        };
        let request = self.request(Method::DELETE, &url, Bytes::new());
        match self.graph.ask(&request, until).await {
            Ok(answer) if answer.status.is_success() => Deleted::Yes,
            Ok(answer) if answer.status.as_u16() == 404 => Deleted::Missing,
            _ => Deleted::Unknown,
        }
    }

    /// Deletes whatever draft carries the key, as far as it can be done now.
    pub(super) async fn sweep(&self) {
        let until = Instant::now() + TIDYING;
        if let Ok(Left::Drafts(drafts)) = self.search(until).await {
            for draft in drafts {
                self.delete(&draft, until).await;
            }
        }
    }

    /// Asks again while the answer is "later" and the wait is short.
    pub(super) async fn patiently(
        &self,
        step: DraftStep,
        request: &GraphRequest<'_>,
        until: Instant,
    ) -> Result<Answer, Stop> {
        let mut tries = 0;
        loop {
            // What tidies up may do so at any time.
            if step != DraftStep::Search && !self.deadline.may_begin() {
                return Err(Deadline::not_now().into());
            }
            let answer = match self
                .graph
                .ask(request, until.min(Instant::now() + ANSWER))
                .await
            {
                Ok(answer) => answer,
                Err(Silence::Token(obstacle)) => return Err(obstacle.into()),
                // One mailbox may be slow to search; the connector is not down for that.
                Err(Silence::Graph(NoAnswer::Unanswered(text) | NoAnswer::Broken(text))) => {
                    return Err(Stop::later(text, None));
                }
                Err(Silence::Graph(fault)) => return Err(fault.obstacle("Graph").into()),
            };
            let status = answer.status.as_u16();
            if matches!(status, 200 | 201) {
                return Ok(answer);
            }
            let wait = answer.retry_after();
            if matches!(status, 409 | 412 | 429 | 503)
                && tries < TRIES
                && until == self.until
                && self.wait(wait, tries).await.is_ok()
            {
                tries += 1;
                continue;
            }
            if step == DraftStep::Session && answer::is_too_small(&answer.body) {
                return Err(Stop::Small);
            }
            return Err(Stop::Meaning(answer::prepare(
                step,
                &ask::heard(&answer),
                self.mailbox,
            )));
        }
    }

    /// Waits as long as was asked for, else a little longer each time.
    ///
    /// # Errors
    /// It would be too long: how long.
    pub(super) async fn wait(&self, asked: Option<Duration>, tries: u32) -> Result<(), Duration> {
        let wait = asked.unwrap_or_else(|| Duration::from_secs(1 << tries.min(6)));
        if wait > SHORT || Instant::now() + wait >= self.until {
            return Err(wait);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Below the messages of the mailbox.
    pub(super) fn url(&self, rest: &[&str]) -> Result<Url, Stop> {
        let rest: Vec<&str> = ["messages"].iter().chain(rest).copied().collect();
        self.graph
            .url(self.mailbox, &rest)
            .map_err(|text| Obstacle::misconfigured(text).into())
    }

    pub(super) fn request<'r>(
        &'r self,
        method: Method,
        url: &'r Url,
        body: Bytes,
    ) -> GraphRequest<'r> {
        GraphRequest {
            method,
            url,
            kind: if body.is_empty() {
                ""
            } else {
                "application/json"
            },
            body,
            id: &self.id,
        }
    }
}

/// An id that can stand in a URL as one piece.
fn id_of(item: &Value) -> Option<String> {
    usable(item.get("id").and_then(Value::as_str)?)
}

fn usable(id: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_=+/".contains(&b);
    (!id.is_empty() && id.len() <= ID && id.bytes().all(plain)).then(|| id.to_owned())
}

/// The id in an answer of which perhaps only the beginning was kept: it holds the whole text of the message.
fn id_in(answer: &[u8]) -> Option<String> {
    struct Id<'a>(&'a mut Option<String>);
    impl<'de> Visitor<'de> for Id<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a message")
        }
        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == "id" {
                    *self.0 = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(())
        }
    }
    let mut id = None;
    // An error behind the id is that of a text cut off.
    let _ = serde_json::Deserializer::from_slice(answer).deserialize_map(Id(&mut id));
    usable(&id?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (answer, expected) in [
            (
                r#"{"a":{"id":"no"},"id":"AAMk-_=+/","body":{"content":"cut o"#,
                Some("AAMk-_=+/"),
            ),
            (r#"{"id":"x"}"#, Some("x")),
            (r#"{"id":"..","b":1}"#, None),
            (r#"{"id":""}"#, None),
            (r#"{"id":"a?b"}"#, None),
            (r#"{"id":7}"#, None),
            (r#"["id"]"#, None),
            ("", None),
        ] {
            assert_eq!(id_in(answer.as_bytes()).as_deref(), expected, "{answer}");
        }
    }
}
