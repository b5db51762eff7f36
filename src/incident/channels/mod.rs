//! How each channel says it: what goes over the wire, with text from outside escaped as the receiver reads it.
//!
//! One try, ten seconds. 2xx is taken, and anything else is a fault; a redirect too, since it would carry a secret elsewhere.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, Url, header};
use tokio::time::Instant;

use super::settings::{Channel, ChannelUrl, ChannelWay};
use crate::connector::http::Http;

mod chat;
mod letter;
mod message;
mod webhook;
mod words;

pub use message::{AlarmLetter, AlarmMessage, Postman, TEST};

/// For one try, all in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tells by any channel.
#[derive(Debug, Clone)]
pub struct Teller {
    /// Of this gateway.
    pub hostname: String,
    /// For mail.
    pub postman: Arc<dyn Postman>,
}

impl Teller {
    /// One try; the status of the answer.
    ///
    /// # Errors
    /// The status of another answer, or why there was none; never what the answer said.
    pub async fn tell(&self, channel: &Channel, message: &AlarmMessage) -> Result<String, String> {
        let try_it = self.try_it(channel, message);
        let late = || format!("no answer within {} s", PATIENCE.as_secs());
        let result = match &channel.way {
            // A connector has more to do than ask: it keeps the time itself.
            ChannelWay::Mail { .. } => try_it.await,
            _ => tokio::time::timeout(PATIENCE, try_it)
                .await
                .unwrap_or_else(|_| Err(late())),
        };
        self.postman.tried(&channel.name, result.is_ok());
        result
    }

    async fn try_it(&self, channel: &Channel, message: &AlarmMessage) -> Result<String, String> {
        match &channel.way {
            ChannelWay::Webhook { to, secret } => {
                let body = webhook::body(message, &self.hostname);
                let signature = secret
                    .as_ref()
                    .map(|secret| webhook::signature(secret, &body, message.at));
                ask(to, None, |client, url| {
                    let request = post_json(client, url, body, &message.key);
                    match signature {
                        Some(signature) => request.header("Postern-Signature", signature),
                        None => request,
                    }
                })
                .await
            }
            ChannelWay::Slack(to) => {
                let body = chat::slack(message, &self.hostname);
                ask(to, None, |client, url| {
                    post_json(client, url, body, &message.key)
                })
                .await
            }
            ChannelWay::Teams(to) => {
                let body = chat::teams(message, &self.hostname);
                ask(to, None, |client, url| {
                    post_json(client, url, body, &message.key)
                })
                .await
            }
            ChannelWay::Ntfy { to, topic, token } => {
                let note = chat::ntfy(message, &self.hostname);
                ask(to, Some(topic), |client, url| {
                    let mut request = client
                        .post(url)
                        .header("Idempotency-Key", &message.key)
                        .header("Title", note.title)
                        .header("Priority", note.priority)
                        .header("Tags", note.tags)
                        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
                        .body(note.body);
                    if let Some(token) = token {
                        request = request.bearer_auth(token.reveal());
                    }
                    request
                })
                .await
            }
            ChannelWay::Mail { to, connector } => {
                let letter =
                    letter::compose(message, &self.hostname, to.clone(), connector.clone());
                self.postman.post(letter).await
            }
            ChannelWay::Heartbeat { to, .. } => ask(to, None, Client::get).await,
        }
    }
}

fn post_json(client: &Client, url: Url, body: String, key: &str) -> RequestBuilder {
    client
        .post(url)
        .header("Idempotency-Key", key)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
}

/// Asks, by the rules that connectors obey. `below`: one more part of the path.
async fn ask(
    to: &ChannelUrl,
    below: Option<&str>,
    make: impl FnOnce(&Client, Url) -> RequestBuilder,
) -> Result<String, String> {
    // The URL may hold a secret: no fault shows it.
    let mut url = Url::parse(to.url.reveal()).map_err(|_| "its URL cannot be used".to_owned())?;
    if let Some(below) = below {
        url.path_segments_mut()
            .map_err(|()| "its URL cannot be used".to_owned())?
            .pop_if_empty()
            .push(below);
    }
    let http = Http::new(&to.http)?;
    let answer = http.send(&url, Instant::now() + PATIENCE, make).await;
    let answer = answer.map_err(|fault| fault.text().to_owned())?;
    let status = answer.status.as_u16().to_string();
    if answer.status.is_success() {
        Ok(status)
    } else if answer.status.is_redirection() {
        Err(format!("{status}: it redirects, which is not followed"))
    } else {
        Err(status)
    }
}

#[cfg(test)]
mod tests;
