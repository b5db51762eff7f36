//! Microsoft Graph `sendMail` for Exchange Online.
//!
//! Apart from `smtp` because Graph has no envelope: To, Cc and Bcc are made equal to the job's recipients. It does not fetch
//! tokens (`oauth`) and does not pace itself (`delivery::gate`).

use super::oauth;

pub mod recipients;

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
