//! A connector to Exchange Online: its settings, and what it holds.
//!
//! `mod.rs`, which delivers, works with it, and so do `ask` and `draft`.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;
use tokio::sync::Semaphore;

use super::answer::Meaning;
use crate::{
    connector::{
        http::{Http, allowed},
        interface::{Recorder, Services},
        oauth::{self, TokenSource},
        settings::{LaneLimits, Upload},
    },
    mail::{
        message::{Body, Message},
        reply::Reply,
    },
    route::ConnectorName,
};

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

impl Settings {
    /// What all jobs are held to together, and those of each mailbox; `own` is what the configuration says of any connector.
    /// One with a `mailbox` is that mailbox.
    pub(in crate::connector) fn limits(&self, own: LaneLimits) -> (LaneLimits, Option<LaneLimits>) {
        let mut mailbox = LaneLimits {
            upload: self.upload_rate,
            ..own
        };
        if self.mailbox.is_some() {
            mailbox.concurrent = mailbox.concurrent.min(self.max_connections);
            return (mailbox, None);
        }
        let connector = LaneLimits {
            concurrent: self.max_connections,
            rate: None,
            upload: None,
        };
        (connector, Some(mailbox))
    }

    /// What is larger is refused.
    pub(in crate::connector) fn max_size(&self) -> Option<u64> {
        (self.large_messages == Large::Refuse).then_some(self.mime_limit)
    }
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
    pub(super) name: ConnectorName,
    pub(super) settings: Settings,
    pub(super) base: Url,
    pub(super) http: Http,
    /// One large message at a time: each is in memory.
    pub(super) large: Semaphore,
    pub(super) tokens: Arc<TokenSource>,
    pub(super) recorder: Option<Recorder>,
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
    /// A file or URL that cannot be used.
    pub fn new(
        name: ConnectorName,
        settings: &Settings,
        services: Services,
    ) -> Result<Self, String> {
        let base = Url::parse(&settings.graph_url).map_err(|e| format!("graph_url: {e}"))?;
        allowed(&settings.oauth.http, &base)?;
        Ok(Self {
            base,
            http: Http::new(&settings.oauth.http)?,
            large: Semaphore::new(1),
            tokens: TokenSource::new(name.as_str(), &settings.oauth, services.token_store)?,
            name,
            recorder: services.recorder,
            settings: settings.clone(),
        })
    }
}

/// The body, from wherever it is.
pub(super) async fn body_of(message: &Message) -> Result<Bytes, Meaning> {
    if let Body::Memory(body) = &message.body {
        return Ok(body.clone());
    }
    let read = async {
        let mut all = Vec::with_capacity(usize::try_from(message.body.len()).unwrap_or(0));
        let mut body = message.body.open().await?;
        while let Some(piece) = body.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    };
    read.await.map_err(|error: std::io::Error| {
        let text = format!("the body cannot be read: {error}");
        Meaning::later(Reply::new(451, (4, 3, 0), text), None)
    })
}
