//! Microsoft Graph `sendMail` for Exchange Online.
//!
//! Apart from `smtp` because Graph has no envelope: To, Cc and Bcc are made equal to the job's recipients. It does not fetch
//! tokens (`oauth`) and does not pace itself (`delivery::gate`).

use std::{
    sync::Arc,
    time::{Instant as StdInstant, SystemTime},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Url, header};
use tokio::time::Instant;

use super::{
    Connector, Kind, Lane, Settings as AllSettings, Surroundings, Upload,
    http::{Answer, Fault, Http, allowed},
    oauth::{self, Token, TokenSource, retry_after},
};
use crate::{
    mail::{
        address::Address,
        message::{Body, Message},
        outcome::{Outcome, Report},
        reply::Reply,
    },
    route::ConnectorName,
};

mod answer;
pub mod recipients;

use answer::Meaning;

/// The keys of `type = "graph"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where tokens come from.
    pub oauth: oauth::Settings,
    /// Without `/v1.0`.
    pub graph_url: String,
    /// The sending mailbox; `None`: the header From of each message.
    pub mailbox: Option<String>,
    /// Content above this many octets is not sent as MIME.
    pub mime_limit: u64,
    /// What then happens.
    pub large_messages: Large,
    /// Octets that each mailbox takes.
    pub upload_rate: Option<Upload>,
    /// Requests at once, of all mailboxes together.
    pub max_connections: usize,
}

/// What happens to a message above `mime_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Large {
    /// Draft, attachments by upload session, send (needs Mail.ReadWrite).
    #[default]
    Upload,
    /// 5.3.4, at SMTP `SIZE=` already where every connector of the route says so.
    Refuse,
}

/// A connector to Exchange Online.
pub struct Graph {
    name: ConnectorName,
    settings: Settings,
    base: Url,
    http: Http,
    tokens: Arc<TokenSource>,
    recorder: Option<super::Recorder>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// Reads keys and certificates; asks nobody yet.
    ///
    /// # Errors
    /// A file or URL that cannot be used, or settings of another kind.
    pub fn new(settings: &AllSettings, around: Surroundings) -> Result<Self, String> {
        let Kind::Graph(graph) = &settings.kind else {
            return Err("not a graph connector".into());
        };
        let base = Url::parse(&graph.graph_url).map_err(|e| format!("graph_url: {e}"))?;
        allowed(&graph.oauth.http, &base)?;
        Ok(Self {
            name: settings.name.clone(),
            base,
            http: Http::new(&graph.oauth.http)?,
            tokens: TokenSource::new(&graph.oauth, around.keep)?,
            recorder: around.recorder,
            settings: (**graph).clone(),
        })
    }

    fn mailbox(&self, message: &Message) -> Option<String> {
        match &self.settings.mailbox {
            Some(mailbox) => Some(mailbox.clone()),
            None => recipients::mailbox_of(&message.header).map(|a| a.to_string()),
        }
    }

    fn record(&self, line: &str) {
        if let Some(recorder) = &self.recorder {
            recorder(line);
        }
    }

    /// `/v1.0/users/MAILBOX/sendMail`, the mailbox percent-encoded as one segment.
    fn url(&self, mailbox: &str) -> Result<Url, Fault> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Fault::Unreached("graph_url is no URL with a path".into()))?
            .pop_if_empty()
            .extend(["v1.0", "users", mailbox, "sendMail"]);
        Ok(url)
    }

    async fn post(
        &self,
        url: &Url,
        token: &Token,
        id: &str,
        mime: &str,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        self.record(&format!(
            "> POST {url} <message, {} octets in base64>",
            mime.len()
        ));
        let answer = self
            .http
            .send(url, deadline, |client, url| {
                client
                    .post(url)
                    .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
                    .header(header::CONTENT_TYPE, "text/plain")
                    // For whoever asks Microsoft what became of it.
                    .header("client-request-id", id)
                    .body(mime.to_owned())
            })
            .await;
        match &answer {
            Ok(answer) => self.record(&format!("< {}", answer.status)),
            Err(fault) => self.record(&format!("* {}", fault.text())),
        }
        answer
    }

    async fn send(
        &self,
        message: &Message,
        to: &[Address],
        mailbox: &str,
        deadline: Instant,
    ) -> Result<Meaning, Report> {
        let unusable = |text: String| Report::Misconfigured(Reply::new(451, (4, 3, 5), text));
        let url = self
            .url(mailbox)
            .map_err(|fault| unusable(fault.text().to_owned()))?;
        let body = match &message.body {
            Body::Memory(body) => body.clone(),
            Body::File(file) => match tokio::fs::read(file.path()).await {
                Ok(body) => body.into(),
                Err(error) => {
                    let reply =
                        Reply::new(451, (4, 3, 0), format!("the body cannot be read: {error}"));
                    return Ok(Meaning::Later(reply, None));
                }
            },
        };
        let mut content = recipients::rewritten(&message.header, to);
        content.reserve(body.len() + 2);
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(&body);
        let mime = STANDARD.encode(&content);
        drop(content);
        let id = request_id(message);
        let mut token = self.tokens.token(deadline).await?;
        for last in [false, true] {
            let answer = match self.post(&url, &token, &id, &mime, deadline).await {
                Ok(answer) => answer,
                Err(Fault::Unanswered(text)) => {
                    let text = format!("{text}; it may have been sent");
                    return Ok(Meaning::InDoubt(Reply::new(451, (4, 4, 2), text)));
                }
                Err(Fault::Broken(text)) => {
                    // Graph has not had all of it, so it cannot have sent it.
                    return Ok(Meaning::Later(Reply::new(451, (4, 4, 2), text), None));
                }
                Err(fault) => return Err(fault.report("Graph")),
            };
            let request = answer
                .headers
                .get("request-id")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            let request: String = request
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
                .take(64)
                .collect();
            let meaning = answer::read(
                answer.status.as_u16(),
                &answer.body,
                retry_after(&answer),
                mailbox,
                &request,
            );
            match meaning {
                Meaning::Token(reply) => {
                    self.tokens.reject(&token);
                    if !last {
                        let fresh = self.tokens.token(deadline).await?;
                        // An endpoint with a cache of its own may give the same one, which would be refused again.
                        if fresh != token {
                            token = fresh;
                            continue;
                        }
                        self.tokens.reject(&fresh);
                    }
                    return Err(unusable(refused_twice(&reply, &token, &answer)));
                }
                meaning => return Ok(meaning),
            }
        }
        Err(unusable("no token was accepted".into()))
    }

    fn via(&self, mailbox: &str) -> String {
        format!("{} as {mailbox}", self.base.host_str().unwrap_or_default())
    }
}

#[async_trait]
impl Connector for Graph {
    fn lane(&self, message: &Message) -> Lane {
        Lane {
            connector: self.name.clone(),
            mailbox: self.mailbox(message).map(|m| m.to_ascii_lowercase()),
        }
    }

    fn upload(&self, message: &Message, to: &[Address]) -> u64 {
        let size = message.size();
        if size <= self.settings.mime_limit {
            // To the octet: the header as it will be, an empty line and the body, 4 for every 3.
            let header = recipients::rewritten(&message.header, to).len() as u64;
            (header + 2 + message.body.len()).div_ceil(3) * 4
        } else if self.settings.large_messages == Large::Upload {
            // Attachments leave decoded, so this is rather more than what is sent.
            size
        } else {
            0
        }
    }

    async fn deliver(&self, message: &Message, to: &[Address], deadline: StdInstant) -> Report {
        let Some(mailbox) = self.mailbox(message) else {
            let reply = Reply::new(
                550,
                (5, 6, 0),
                "Graph: the message is from no one mailbox (several addresses in From, no Sender)",
            );
            return tried(to, &Outcome::Failed(reply), String::new());
        };
        let via = self.via(&mailbox);
        if message.size() > self.settings.mime_limit {
            let text = match self.settings.large_messages {
                Large::Refuse => {
                    "Graph: the message is larger than mime_limit, and large_messages = \"refuse\""
                }
                Large::Upload => {
                    "Graph: the message is larger than mime_limit, and upload sessions are not in this version yet"
                }
            };
            return tried(
                to,
                &Outcome::Unsuited(Reply::new(552, (5, 3, 4), text)),
                via,
            );
        }
        let mut pause = None;
        let outcome = match self
            .send(message, to, &mailbox, Instant::from_std(deadline))
            .await
        {
            Err(report) => return report,
            Ok(Meaning::Taken(reply, wish)) => {
                pause = wish;
                Outcome::Delivered(reply)
            }
            Ok(Meaning::Throttled(reply, retry_after)) => {
                return Report::Throttled { reply, retry_after };
            }
            Ok(Meaning::Later(reply, retry_after)) => Outcome::Deferred { reply, retry_after },
            Ok(Meaning::InDoubt(reply)) => Outcome::InDoubt(reply),
            Ok(Meaning::Never(reply)) => Outcome::Failed(reply),
            Ok(Meaning::Unsuited(reply)) => Outcome::Unsuited(reply),
            Ok(Meaning::Mailbox(reply)) => return Report::MailboxRefused(reply),
            Ok(Meaning::Token(reply)) => return Report::Misconfigured(reply),
            Ok(Meaning::Down(reply)) => {
                return Report::Down {
                    reply,
                    retry_after: None,
                };
            }
        };
        let mut report = tried(to, &outcome, via);
        if let Report::Tried { pause: asked, .. } = &mut report {
            *asked = pause;
        }
        report
    }

    /// A token, and what it says it may do. Nothing more is asked: an application with Mail.Send alone may ask nothing else.
    async fn probe(&self, deadline: StdInstant) -> Result<String, Report> {
        let token = self.tokens.token(Instant::from_std(deadline)).await?;
        let mailbox = self
            .settings
            .mailbox
            .as_deref()
            .unwrap_or("the From of each message");
        let Some(claims) = token.claims() else {
            return Ok(format!(
                "a token was given (it does not say what it may do); mailbox: {mailbox}"
            ));
        };
        if claims.may.is_empty() {
            return Ok(format!(
                "a token was given; it names no roles, which is right under RBAC for Applications (see Test-ServicePrincipalAuthorization); mailbox: {mailbox}"
            ));
        }
        if let Some(missing) = claims.missing(&["Mail.Send"]) {
            return Err(Report::Misconfigured(Reply::new(
                550,
                (5, 7, 0),
                format!(
                    "{missing}: add the application permission Mail.Send and give admin consent"
                ),
            )));
        }
        let large = match self.settings.large_messages {
            Large::Upload if !claims.names("Mail.ReadWrite") => {
                "; without Mail.ReadWrite nothing above mime_limit can be sent"
            }
            _ => "",
        };
        Ok(format!(
            "a token with Mail.Send was given{large}; mailbox: {mailbox}"
        ))
    }
}

/// A token that is fresh and still not accepted.
fn refused_twice(reply: &Reply, token: &Token, answer: &Answer) -> String {
    let meant = match token.claims() {
        Some(claims) if !claims.audience.is_empty() => format!(" (it is for {})", claims.audience),
        _ => String::new(),
    };
    let clock = answer
        .clock(SystemTime::now())
        .unwrap_or_else(|| "and this machine's clock".to_owned());
    format!(
        "{} although it is fresh{meant}; check tenant_id, cloud and scope, {clock}",
        reply.text
    )
}

fn tried(to: &[Address], outcome: &Outcome, via: String) -> Report {
    Report::Tried {
        outcomes: to
            .iter()
            .map(|address| (address.clone(), outcome.clone()))
            .collect(),
        via,
        pause: None,
    }
}

/// The message's id in the form of a GUID.
fn request_id(message: &Message) -> String {
    let number = u128::from_be_bytes(message.id.to_bytes());
    let part = |shift: u32, digits: u32| (number >> shift) & ((1 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}
