//! Microsoft Graph for Exchange Online: `sendMail`, and for large messages a draft that is sent.
//!
//! Unlike SMTP, Graph has no envelope: To, Cc and Bcc are made equal to the job's recipients. It does not fetch
//! tokens (`oauth`) and does not pace itself (`delivery::lanes`).
//!
//! `client` is what a connector holds; `recipients` decides who gets it; `ask` is one request, `answer` what an answer means and
//! `codes` the table behind it. Of a large message `mime` finds the parts, `parts` and `fields` say what they become (with `words` and `coding` to decode them), `draft` (with `steps` and
//! `upload`) carries it out.

use std::time::{Duration, Instant as StdInstant};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use tokio::time::Instant;

use crate::{
    connector::{
        deadline::Deadline,
        http::NoAnswer,
        interface::{Connector, ExpectedMail, Knock},
    },
    mail::{
        cause::{self, Cause},
        message::Message,
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    route::LaneId,
};

mod answer;
mod ask;
mod client;
mod codes;
mod coding;
mod draft;
mod fields;
mod mime;
mod page;
mod parts;
mod people;
pub mod recipients;
mod steps;
mod token;
mod upload;
mod words;

use answer::Meaning;
use ask::{GraphRequest, Silence};
use client::body_of;

pub use client::{Graph, Large, Settings};

/// To nobody.
const KNOCK: &str = r#"{"message":{"subject":"postern doctor","body":{"contentType":"Text","content":""},"toRecipients":[]},"saveToSentItems":false}"#;
/// Before the one recipient of a message that was refused is asked for once more.
const AGAIN: Duration = Duration::from_secs(1);

impl Graph {
    fn mailbox(&self, message: &Message) -> Option<String> {
        match &self.settings.mailbox {
            Some(mailbox) => Some(mailbox.clone()),
            None => recipients::mailbox_of(&message.header).map(|a| a.to_string()),
        }
    }

    async fn send_any(
        &self,
        message: &Message,
        to: &[Recipient],
        mailbox: &str,
        deadline: &Deadline,
    ) -> Meaning {
        if message.size() > self.settings.mime_limit {
            self.send_large(message, to, mailbox, deadline).await
        } else {
            self.send(message, to, mailbox, deadline).await
        }
    }

    async fn send(
        &self,
        message: &Message,
        to: &[Recipient],
        mailbox: &str,
        deadline: &Deadline,
    ) -> Meaning {
        let url = match self.url(mailbox, &["sendMail"]) {
            Ok(url) => url,
            Err(text) => return Obstacle::misconfigured(text).into(),
        };
        let body = match body_of(message).await {
            Ok(body) => body,
            Err(meaning) => return meaning,
        };
        let mut content = recipients::rewritten(&message.header, to);
        content.reserve(body.len() + 2);
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(&body);
        let mime = STANDARD.encode(&content);
        drop(content);
        let request = GraphRequest {
            method: Method::POST,
            url: &url,
            kind: "text/plain",
            body: mime.into(),
            id: &ask::request_id(message),
        };
        if !deadline.may_begin() {
            return Deadline::not_now().into();
        }
        deadline.gives_the_last_octet();
        let answer = match self.ask(&request, deadline.at()).await {
            Ok(answer) => answer,
            Err(Silence::Token(obstacle)) => return obstacle.into(),
            Err(Silence::Graph(NoAnswer::Unanswered(text))) => {
                let text = format!("{text}; it may have been sent");
                return Outcome::InDoubt(Reply::new(451, (4, 4, 2), text)).into();
            }
            Err(Silence::Graph(NoAnswer::Broken(text))) => {
                // Graph has not had all of it, so it cannot have sent it.
                return Meaning::later(Reply::new(451, (4, 4, 2), text), None);
            }
            Err(Silence::Graph(fault)) => return fault.obstacle("Graph").into(),
        };
        let mut heard = ask::heard(&answer);
        heard.is_foreign = recipients::is_foreign(&message.header, mailbox);
        let meaning = answer::read(&heard, mailbox);
        // A code that says something else counts first, under this status too.
        let too_large = matches!(
            meaning,
            Meaning::Tried(Outcome::Unsuited(_) | Outcome::Deferred { .. }, _)
        );
        if too_large
            && answer.status.as_u16() == 413
            && self.settings.large_messages == Large::Upload
        {
            // The limit of this request is lower than mime_limit.
            drop(request);
            return self.send_large(message, to, mailbox, deadline).await;
        }
        meaning
    }

    /// A refusal of the mailbox with what the token itself says is missing. Roles of Exchange's own stand in no token, so one without any
    /// says nothing.
    async fn lacking(&self, mut obstacle: Obstacle, deadline: Instant) -> Obstacle {
        if Cause::of(&obstacle.reply.text) != Some(&cause::MAILBOX_DENIED) {
            return obstacle;
        }
        let claims = self.tokens.token(deadline).await.ok();
        let claims = claims.and_then(|token| token.claims());
        let missing = claims
            .filter(|claims| !claims.may.is_empty())
            .and_then(|claims| claims.missing(&["Mail.Send"]));
        if let Some(missing) = missing {
            let said = &obstacle.reply.text;
            obstacle.reply.text = cause::ROLE_MISSING.at(format_args!("{said}; {missing}"));
        }
        obstacle
    }

    async fn knock_at(&self, mailbox: &str, deadline: Instant) -> Result<Knock, Obstacle> {
        let url = self.url(mailbox, &["sendMail"]);
        let request = GraphRequest {
            method: Method::POST,
            url: &url.map_err(Obstacle::misconfigured)?,
            kind: "application/json",
            body: KNOCK.into(),
            id: &ask::guid(fastrand::u128(..)),
        };
        let answer = match self.ask(&request, deadline).await {
            Ok(answer) => answer,
            Err(Silence::Token(obstacle)) => return Err(obstacle),
            Err(Silence::Graph(fault)) => return Err(fault.obstacle("Graph")),
        };
        let heard = ask::heard(&answer);
        let said = heard.said();
        match answer::read(&heard, mailbox) {
            Meaning::NotTried(obstacle) => Err(self.lacking(obstacle, deadline).await),
            Meaning::Tried(Outcome::Apart(_), _) => Ok(Knock::Open(format!(
                "Graph takes mail of {mailbox} ({said})"
            ))),
            Meaning::Tried(_, _) if answer.status.as_u16() == 400 => Ok(Knock::Open(format!(
                "Graph does not refuse {mailbox} ({said}); not certain: --send makes it so"
            ))),
            Meaning::Tried(outcome, _) => {
                let reply = outcome.reply().clone();
                Err(Obstacle::new(ObstacleKind::Down, reply))
            }
        }
    }

    fn via(&self, mailbox: &str) -> String {
        format!("{} as {mailbox}", self.base.host_str().unwrap_or_default())
    }
}

#[async_trait]
impl Connector for Graph {
    fn lane(&self, message: &Message) -> LaneId {
        LaneId {
            connector: self.name.clone(),
            mailbox: self.mailbox(message).map(|m| m.to_ascii_lowercase().into()),
            from: None,
        }
    }

    fn upload(&self, message: &Message, to: &[Recipient]) -> u64 {
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

    async fn deliver(&self, message: &Message, to: &[Recipient], deadline: &Deadline) -> Report {
        let Some(mailbox) = self.mailbox(message) else {
            let reply = Reply::new(
                550,
                (5, 6, 0),
                "Graph: the message does not come from one mailbox (several addresses in From, no Sender)",
            );
            return Report::all(to, &Outcome::Failed(reply), "");
        };
        let via = self.via(&mailbox);
        if recipients::has_utf8_sender(&message.header) {
            let text = "Graph: no mailbox of Exchange Online has an address like that of From or Sender, which is not ASCII";
            let outcome = Outcome::Unsuited(Reply::new(550, (5, 6, 7), text));
            return Report::all(to, &outcome, via);
        }
        let large = message.size() > self.settings.mime_limit;
        if large && self.settings.large_messages == Large::Refuse {
            let text =
                "Graph: the message is larger than mime_limit, and large_messages = \"refuse\"";
            let outcome = Outcome::Unsuited(Reply::new(552, (5, 3, 4), text));
            return Report::all(to, &outcome, via);
        }
        let mut sent = self.send_any(message, to, &mailbox, deadline).await;
        // One refusal of an address may be a passing whim of Exchange's; two are its word.
        if matches!(sent, Meaning::Tried(Outcome::Apart(_), _))
            && to.len() == 1
            && Instant::now() + AGAIN < deadline.at()
        {
            tokio::time::sleep(AGAIN).await;
            sent = self.send_any(message, to, &mailbox, deadline).await;
        }
        let (outcome, pause) = match sent {
            Meaning::NotTried(obstacle) => {
                return self.lacking(obstacle, deadline.at()).await.into();
            }
            // With one recipient it is that one; among several nobody knows which.
            Meaning::Tried(Outcome::Apart(reply), pause) if to.len() == 1 => {
                (Outcome::Failed(reply), pause)
            }
            Meaning::Tried(Outcome::Apart(reply), pause) => {
                let text = format!("{}; the recipients are tried in smaller sets", reply.text);
                (Outcome::Apart(Reply::new(451, (4, 1, 3), text)), pause)
            }
            Meaning::Tried(outcome, pause) => (outcome, pause),
        };
        let mut report = Report::all(to, &outcome, via);
        if let Report::Tried { pause: asked, .. } = &mut report {
            *asked = pause;
        }
        report
    }

    /// A token, and what it says it may do. Nothing more is asked: an application with Mail.Send alone may ask nothing else.
    async fn probe(&self, deadline: StdInstant) -> Result<String, Obstacle> {
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
        if let Some(foreign) = self.foreign(&claims) {
            return Err(Obstacle::misconfigured(foreign));
        }
        if claims.may.is_empty() {
            return Ok(format!(
                "a token was given; it names no roles, which is right under RBAC for Applications (see Test-ServicePrincipalAuthorization); mailbox: {mailbox}"
            ));
        }
        if let Some(missing) = claims.missing(&["Mail.Send"]) {
            let text = cause::ROLE_MISSING.at(missing);
            let reply = Reply::new(550, (5, 7, 0), text);
            return Err(Obstacle::new(ObstacleKind::Misconfigured, reply));
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

    /// A message without a recipient, which nobody can get: that Graph complains of the recipients shows that mailbox and permission are
    /// there. (Whether it always looks at the permission first is not documented.)
    async fn knock(&self, mail: ExpectedMail<'_>, deadline: StdInstant) -> Vec<Knock> {
        let mailboxes: Vec<String> = match &self.settings.mailbox {
            Some(mailbox) => vec![mailbox.clone()],
            None => mail.senders.iter().map(ToString::to_string).collect(),
        };
        let mut found = Vec::new();
        for mailbox in mailboxes {
            let knock = self.knock_at(&mailbox, Instant::from_std(deadline)).await;
            found.push(knock.unwrap_or_else(|shut| Knock::Shut(shut.reply.to_string())));
        }
        found
    }
}
