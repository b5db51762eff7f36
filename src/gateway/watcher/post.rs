//! Mail about incidents: handed to a connector now, past queue, lists and rate, and never to the connector that it is about.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use lettre::message::header::{HeaderName, HeaderValue};

use crate::{
    config::Config,
    connector::{self, Deadline, Services},
    gateway::tokens::StoredTokens,
    incident::channels::{AlarmLetter, AlarmMessage, Postman, Teller},
    mail::{
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{LaneState, Outcome, Report},
    },
    queue::store::{LaneRow, Store},
    route::{ConnectorName, LaneId},
    telemetry::metrics::Metrics,
    view::ChannelTest,
};

/// A letter takes no longer, whatever `timeout` the connector has.
const PATIENCE: Duration = Duration::from_mins(2);

/// By the connectors of a configuration.
pub struct AlarmPost {
    /// Which.
    pub config: Arc<Config>,
    /// Where the states of the connectors are. `None`: all are as good as open.
    pub store: Option<Arc<dyn Store>>,
    /// Where tries are counted.
    pub metrics: Option<Arc<Metrics>>,
}

impl AlarmPost {
    /// Of a gateway.
    pub fn of(config: &Arc<Config>, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> Self {
        Self {
            config: Arc::clone(config),
            store: Some(Arc::clone(store)),
            metrics: Some(Arc::clone(metrics)),
        }
    }
}

impl fmt::Debug for AlarmPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlarmPost").finish_non_exhaustive()
    }
}

#[async_trait]
impl Postman for AlarmPost {
    async fn post(&self, letter: AlarmLetter) -> Result<String, String> {
        let lanes = match &self.store {
            None => Vec::new(),
            // What cannot be read does not keep an alarm back.
            Some(store) => store.lanes_here().await.unwrap_or_default(),
        };
        let settings = choose(&self.config.connectors, &lanes, &letter)?;
        let message = compose(&self.config, settings, &letter)?;
        let services = Services {
            recorder: None,
            token_store: self
                .store
                .as_ref()
                .map(|store| StoredTokens::of(store, &self.config)),
        };
        let connector = settings.build(services)?;
        let patience = settings.timeout.min(PATIENCE);
        let recipients = message.envelope.recipients.clone();
        let deadline = Deadline::from(Instant::now() + patience);
        let delivery = connector.deliver(&message, &recipients, &deadline);
        // The connector keeps the deadline; this is for one that does not.
        let report = tokio::time::timeout(patience + Duration::from_secs(5), delivery).await;
        let via = &settings.name;
        let report = report.map_err(|_| format!("{via}: no answer in time"))?;
        verdict(&report)
            .map(|code| format!("{code} by {via}"))
            .map_err(|fault| format!("{via}: {fault}"))
    }

    fn tried(&self, channel: &str, is_taken: bool) {
        if let Some(metrics) = &self.metrics {
            metrics.notification(channel, if is_taken { "taken" } else { "failed" });
        }
    }
}

/// A teller for these settings.
pub fn teller(post: AlarmPost) -> Teller {
    Teller {
        hostname: post.config.hostname.clone(),
        postman: Arc::new(post),
    }
}

/// Tells a channel something that means nothing; whether it arrives. `None`: there is no such channel.
pub async fn test_channel(post: AlarmPost, name: &str) -> Option<ChannelTest> {
    let channel = post.config.incidents.channel(name)?.clone();
    let message = AlarmMessage::test(name, SystemTime::now(), fastrand::u64(..));
    let result = teller(post).tell(&channel, &message).await;
    Some(ChannelTest {
        channel: name.to_owned(),
        ok: result.is_ok(),
        result: result.unwrap_or_else(|fault| fault),
    })
}

/// The connector that is named, or the first that leads to people and is open; in no case the one that the letter is about.
fn choose<'a>(
    connectors: &'a [connector::Settings],
    lanes: &[LaneRow],
    letter: &AlarmLetter,
) -> Result<&'a connector::Settings, String> {
    let is_about = |name: &ConnectorName| letter.about.as_ref() == Some(name);
    let is_open = |name: &ConnectorName| {
        let of = |row: &&LaneRow| row.lane == LaneId::of(name);
        lanes
            .iter()
            .find(of)
            .is_none_or(|row| row.state == LaneState::Open)
    };
    let others = || connectors.iter().filter(|one| !is_about(&one.name));
    let named = letter
        .connector
        .as_ref()
        .and_then(|name| others().find(|one| one.name == *name));
    let fit = |one: &&connector::Settings| one.kind.leads_to_people() && is_open(&one.name);
    named
        .or_else(|| others().find(fit))
        .ok_or_else(|| "no other connector is open to send it by".to_owned())
}

/// The code of the first reply that took it; of none, why.
fn verdict(report: &Report) -> Result<u16, String> {
    let Report::Tried { outcomes, .. } = report else {
        let Report::NotTried(obstacle) = report else {
            return Err("nothing was tried".to_owned());
        };
        return Err(obstacle.kind.as_str().to_owned());
    };
    let taken = outcomes.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Delivered(reply) => Some(reply.code),
        _ => None,
    });
    let last = outcomes.first().map(|(_, outcome)| outcome.reply().code);
    taken.ok_or_else(|| last.map_or_else(|| "nobody was tried".to_owned(), |code| code.to_string()))
}

fn compose(
    config: &Config,
    settings: &connector::Settings,
    letter: &AlarmLetter,
) -> Result<Message, String> {
    let at = SystemTime::now();
    let own = settings
        .kind
        .mailbox()
        .filter(|_| !config.delivery.bounce.is_from_given);
    let from = own.unwrap_or_else(|| config.bounce_from.clone());
    let fault = |error: &dyn fmt::Display| format!("it cannot be composed: {error}");
    let mut mail = lettre::Message::builder()
        .from(
            from.to_string()
                .parse()
                .map_err(|e: lettre::address::AddressError| fault(&e))?,
        )
        .subject(letter.subject.clone())
        .message_id(Some(format!("<{}@{}>", letter.id, config.hostname)))
        .date(at)
        // RFC 3834 §5: nobody answers it by a machine.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    for to in &letter.to {
        mail = mail.to(to
            .to_string()
            .parse()
            .map_err(|e: lettre::address::AddressError| fault(&e))?);
    }
    let text = letter.text.replace('\n', "\r\n");
    let mail = Bytes::from(mail.body(text).map_err(|e| fault(&e))?.formatted());
    let end = memchr::memmem::find(&mail, b"\r\n\r\n").ok_or_else(|| fault(&"it has no body"))?;
    Ok(Message {
        id: MessageId::new(at, fastrand::u128(..)),
        envelope: Envelope {
            sender: Some(from),
            recipients: letter.to.iter().cloned().map(Into::into).collect(),
            eight_bit: false,
            dsn: None,
        },
        origin: Origin {
            listener: "incident".to_owned(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            client: None,
            helo: config.hostname.clone(),
            tls: false,
            esmtp: true,
            utf8: false,
            user: None,
            at,
            rules: Vec::new(),
            copy_of: None,
        },
        header: mail.slice(..end + 2),
        body: Body::Memory(mail.slice(end + 4..)),
    })
}
