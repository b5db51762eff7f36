//! `[incidents]`, `[[notify]]` and `expect_every` as they were checked.

use std::time::Duration;

use super::catalogue::{IncidentKind, IncidentSeverity};
use crate::{
    connector::http::HttpSettings, mail::address::Address, route::ConnectorName, secret::Secret,
    view::ChannelView,
};

/// When incidents open and end, and who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentSettings {
    /// How long a condition holds before it is one.
    pub open_after: Duration,
    /// How long it is gone before it is over.
    pub recover_after: Duration,
    /// How long until who was told is told again.
    pub remind: Duration,
    /// `[[notify]]`.
    pub channels: Vec<Channel>,
    /// The clients that send at least so often, by name.
    pub expected: Vec<(String, Duration)>,
}

impl IncidentSettings {
    /// The channel of this name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }
}

/// One `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// It is told of nothing less.
    pub min_severity: IncidentSeverity,
    /// The kinds that it is told of. `None`: all.
    pub kinds: Option<Vec<IncidentKind>>,
    /// How.
    pub way: ChannelWay,
}

impl Channel {
    /// Whether it is told of such an incident. What a channel has failed to say it is not told either.
    pub fn wants(&self, kind: IncidentKind, object: &str, severity: IncidentSeverity) -> bool {
        let is_about_itself = kind == IncidentKind::NotifyFailing && object == self.name;
        let is_heartbeat = matches!(self.way, ChannelWay::Heartbeat { .. });
        severity >= self.min_severity
            && !is_heartbeat
            && !is_about_itself
            && self
                .kinds
                .as_ref()
                .is_none_or(|kinds| kinds.contains(&kind))
    }
}

impl ChannelWay {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack(_) => "slack",
            Self::Teams(_) => "teams",
            Self::Ntfy { .. } => "ntfy",
            Self::Mail { .. } => "mail",
            Self::Heartbeat { .. } => "heartbeat",
        }
    }
}

impl Channel {
    /// As it is shown: nothing of where it leads.
    pub fn view(&self) -> ChannelView {
        let kinds = self.kinds.as_ref();
        ChannelView {
            name: self.name.clone(),
            kind: self.way.as_str().to_owned(),
            min_severity: self.min_severity.as_str().to_owned(),
            kinds: kinds.map(|kinds| kinds.iter().map(ToString::to_string).collect()),
        }
    }
}

/// An address of the web, and how it is reached. The URL may hold what nobody is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelUrl {
    /// https, or http to loopback.
    pub url: Secret,
    /// Proxy, roots, and the hosts that may be asked.
    pub http: HttpSettings,
}

/// How a channel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelWay {
    /// A POST of JSON.
    Webhook {
        /// Where.
        to: ChannelUrl,
        /// Signs.
        secret: Option<Secret>,
    },
    /// Slack and Mattermost.
    Slack(ChannelUrl),
    /// Microsoft Teams by a workflow.
    Teams(ChannelUrl),
    /// ntfy.
    Ntfy {
        /// The server.
        to: ChannelUrl,
        /// The topic.
        topic: String,
        /// An access token.
        token: Option<Secret>,
    },
    /// Mail past the queue.
    Mail {
        /// To whom.
        to: Vec<Address>,
        /// By which connector. `None`: the first that is open.
        connector: Option<ConnectorName>,
    },
    /// A GET while all is well: the one alarm that works when the machine is dead.
    Heartbeat {
        /// Where.
        to: ChannelUrl,
        /// How often.
        every: Duration,
    },
}
