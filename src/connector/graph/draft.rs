//! A large message as a draft: what an earlier attempt left is found, then the draft is made, filled and sent.
//!
//! Unlike `sendMail` it is many requests, of which one sends. Never a second mail: every draft carries the key of its
//! job, and before one is made the mailbox is searched for that key. What was sent is not a draft any more, and is reported as
//! delivered; a draft is deleted, which fails if it is being sent at that moment (a message gets another id when it is moved to
//! Sent Items). Nothing is left behind: what fails before the end is deleted, at once or by the next attempt. What a message
//! becomes is decided in `parts` and `fields`.

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{self, Meaning},
    ask::{self, Silence},
    client::{Graph, body_of},
    fields,
    parts::{self, Attachment, Parts},
    recipients,
    steps::{Deleted, Draft, Left, Stop, TIDYING, TRIES},
};
use crate::{
    connector::{deadline::Deadline, http::NoAnswer},
    mail::{
        message::Message,
        outcome::{Obstacle, ObstacleKind, Outcome},
        recipient::Recipient,
        reply::Reply,
    },
};

/// Octets of a request: 4 MB in the documentation, 4 MiB where it was measured.
const REQUEST: usize = 4_000_000;
/// The one that sends. It may have sent even when nothing is heard of it, so more patience helps nobody.
const SENDING: Duration = Duration::from_mins(5);

impl Graph {
    /// A message above `mime_limit`.
    pub(super) async fn send_large(
        &self,
        message: &Message,
        to: &[Recipient],
        mailbox: &str,
        deadline: &Deadline,
    ) -> Meaning {
        let until = deadline.at().checked_sub(TIDYING).unwrap_or(deadline.at());
        let Ok(Ok(_turn)) = timeout_at(until, self.large.acquire()).await else {
            let text = "Graph: other large messages are under way";
            return Meaning::later(Reply::new(451, (4, 3, 2), text), None);
        };
        let draft = Draft {
            graph: self,
            mailbox,
            is_foreign: recipients::is_foreign(&message.header, mailbox),
            id: ask::request_id(message),
            key: key(message, to),
            deadline,
            until,
        };
        let (first, attachments, body) = match draft.read(message, to).await {
            Ok(read) => read,
            Err(meaning) => return meaning,
        };
        match draft.run(first, attachments, body).await {
            Ok(meaning) | Err(Stop::Meaning(meaning)) => meaning,
            Err(stop @ Stop::Small) => stop.under_way(),
        }
    }
}

/// The key of a job: the message and whom it is for. A message may be several jobs for one mailbox.
fn key(message: &Message, to: &[Recipient]) -> String {
    let mut addresses: Vec<String> = to
        .iter()
        .map(|address| address.to_string().to_ascii_lowercase())
        .collect();
    addresses.sort_unstable();
    let hash = digest::digest(&digest::SHA256, addresses.join("\n").as_bytes());
    let short = hash.as_ref().iter().take(8);
    let short = short.fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
    format!("{}-{short}", message.id)
}

impl Draft<'_> {
    /// The request that makes the draft, the attachments, and the body that they are ranges of.
    async fn read(
        &self,
        message: &Message,
        to: &[Recipient],
    ) -> Result<(Bytes, Vec<Attachment>, Bytes), Meaning> {
        let body = body_of(message).await?;
        let (header, to, key) = (message.header.clone(), to.to_vec(), self.key.clone());
        // Work for the processor, not for the loop that serves the sockets.
        let taken = tokio::task::spawn_blocking(move || {
            let mut draft = fields::properties(&header, &to, &key);
            let used = serde_json::to_string(&draft).map_or(REQUEST, |json| json.len() + 64);
            let parts = parts::take(&header, &body, REQUEST.saturating_sub(used))?;
            let Parts {
                html,
                text,
                attachments,
            } = parts;
            let kind = if html { "html" } else { "text" };
            draft.insert("body".into(), json!({"contentType": kind, "content": text}));
            Ok::<_, parts::Sealed>((Value::Object(draft).to_string(), attachments, body))
        });
        match taken.await {
            Ok(Ok((draft, attachments, body))) => Ok((draft.into(), attachments, body)),
            Ok(Err(sealed)) => {
                let text = format!(
                    "Graph: a message above mime_limit is rebuilt, and this one cannot be: {sealed}"
                );
                Err(Outcome::Unsuited(Reply::new(552, (5, 3, 4), text)).into())
            }
            Err(_) => Err(Meaning::later(
                Reply::new(451, (4, 3, 0), "Graph: the message could not be read"),
                None,
            )),
        }
    }

    async fn run(
        &self,
        first: Bytes,
        attachments: Vec<Attachment>,
        body: Bytes,
    ) -> Result<Meaning, Stop> {
        match self.search(self.until).await? {
            Left::Sent => {
                let text = "Graph: it is among the sent messages: an earlier attempt has sent it";
                return Ok(Outcome::Delivered(Reply::new(250, (2, 0, 0), text)).into());
            }
            Left::Drafts(drafts) => {
                for draft in drafts {
                    match self.delete(&draft, self.until).await {
                        Deleted::Yes => {}
                        Deleted::Missing => {
                            let text =
                                "Graph: a draft of an earlier attempt is gone: it may be under way";
                            return Ok(Outcome::InDoubt(Reply::new(451, (4, 4, 2), text)).into());
                        }
                        Deleted::Unknown => {
                            return Err(Stop::later("an earlier draft cannot be deleted", None));
                        }
                    }
                }
            }
        }
        let id = match self.create(first).await {
            Ok(id) => id,
            Err(stop) => {
                // It may have been made although no id came back.
                self.sweep().await;
                return Ok(stop.under_way());
            }
        };
        for attachment in attachments {
            if let Err(stop) = self.attach(&id, attachment, &body).await {
                self.delete(&id, Instant::now() + TIDYING).await;
                return Ok(stop.under_way());
            }
        }
        // Nothing of it is needed any more, and the answer may take minutes.
        drop(body);
        Ok(self.send(&id).await)
    }

    /// The one request that sends.
    async fn send(&self, id: &str) -> Meaning {
        let url = match self.url(&[id, "send"]) {
            Ok(url) => url,
            Err(stop) => return stop.under_way(),
        };
        let request = self.request(Method::POST, &url, Bytes::new());
        let mut tries = 0;
        let meaning = loop {
            if Instant::now() >= self.until {
                break Stop::later("there was no time left to send the draft", None).under_way();
            }
            if !self.deadline.may_begin() {
                break Meaning::from(Deadline::not_now()).under_way();
            }
            self.deadline.gives_the_last_octet();
            let until = Instant::now() + SENDING;
            let answer = match self.graph.ask(&request, until.min(self.until)).await {
                Ok(answer) => answer,
                Err(Silence::Token(obstacle)) => break Meaning::from(obstacle).under_way(),
                Err(Silence::Graph(NoAnswer::Unanswered(text))) => {
                    let text = format!("{text}; it may have been sent");
                    return Outcome::InDoubt(Reply::new(451, (4, 4, 2), text)).into();
                }
                Err(Silence::Graph(fault)) => {
                    break Meaning::from(fault.obstacle("Graph")).under_way();
                }
            };
            let status = answer.status.as_u16();
            if matches!(status, 409 | 412 | 429 | 503) && tries < TRIES {
                // The same draft: it cannot be sent twice.
                if self.wait(answer.retry_after(), tries).await.is_ok() {
                    tries += 1;
                    continue;
                }
            }
            let mut heard = ask::heard(&answer);
            heard.is_foreign = self.is_foreign;
            let meaning = answer::read(&heard, self.mailbox);
            match (status, meaning) {
                (_, meaning @ Meaning::Tried(Outcome::Delivered(_) | Outcome::InDoubt(_), _)) => {
                    return meaning;
                }
                (404, _) if tries > 0 => {
                    let text = "Graph: the draft was to be sent and is gone: it may have been sent";
                    return Outcome::InDoubt(Reply::new(451, (4, 4, 2), text)).into();
                }
                (404, _) => break Stop::later("404: the draft is gone", None).under_way(),
                (429, meaning) => break meaning,
                (500.., meaning) | (_, meaning @ Meaning::Tried(Outcome::Deferred { .. }, _)) => {
                    // Only what is still a draft has not been sent.
                    return match (self.delete(id, Instant::now() + TIDYING).await, meaning) {
                        (Deleted::Yes, meaning) => meaning,
                        (
                            _,
                            Meaning::Tried(Outcome::Deferred { reply, .. }, _)
                            | Meaning::NotTried(Obstacle {
                                kind: ObstacleKind::Throttled,
                                reply,
                                ..
                            }),
                        ) => Outcome::InDoubt(reply).into(),
                        (_, meaning) => meaning,
                    };
                }
                (_, meaning) => break meaning,
            }
        };
        self.delete(id, Instant::now() + TIDYING).await;
        meaning
    }
}
