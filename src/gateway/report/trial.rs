//! One message through a connector now, past queue, rate and pause but not past the allowlists.
//!
//! The connector is made anew of settings: those of the configuration, or such as are not saved.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{examined::examined, login::said};
use crate::{
    config::Config,
    connector::{self, Deadline, Recorder, Services, oauth::TokenStore},
    mail::{
        address::Address,
        check::{Check, CheckState},
        message::{Body, Envelope, Message, MessageId, Origin},
        outcome::{ObstacleKind, Outcome, Report},
        reply::Reply,
        text::shown_to,
    },
    policy::{Who, judge::Findings},
    view::{CheckView, Tried},
};

/// Lines of a conversation that are kept, and octets of each.
const LINES: usize = 10_000;
const LINE: usize = 1000;

/// What is tried.
#[derive(Clone)]
pub struct Trial<'a> {
    /// The rules, and who sends bounces.
    pub config: &'a Config,
    /// The connector, whether or not the configuration has it.
    pub settings: &'a connector::Settings,
    /// Where rotated refresh tokens are kept.
    pub token_store: Option<Arc<dyn TokenStore>>,
    /// Hears the conversation as it happens, beside the one that is kept: lines as they may be shown.
    pub recorder: Option<Recorder>,
}

/// Why nothing was tried, or nothing is known of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// Nobody was named who sends, and nobody is known.
    #[error("the configuration names no sender that the allowlist admits")]
    NoSender,
    /// By the allowlists.
    #[error("refused: {0}")]
    Refused(Reply),
    /// The message cannot be made.
    #[error("{0}")]
    NoMessage(String),
    /// The connector cannot be built.
    #[error("{0}")]
    NotBuilt(String),
    /// It kept no deadline.
    #[error("no answer in time; it may have arrived")]
    Silent,
}

/// What came of it.
#[derive(Debug)]
pub struct TrialReport {
    /// As the connector tells it.
    pub report: Report,
    /// What that means.
    pub end: TrialEnd,
    /// As it is shown.
    pub view: Tried,
}

/// What an end of a test means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialEnd {
    /// It works.
    Works,
    /// Perhaps at another time.
    Later,
    /// It does not work.
    Fails,
}

impl Trial<'_> {
    /// Sends a message; from whom is the caller's to say, or the likeliest. Takes as long as the connector's time-out, and half a minute
    /// at most beyond it.
    ///
    /// # Errors
    /// [`TrialError`].
    pub async fn send(
        &self,
        from: Option<Address>,
        to: &Address,
        now: SystemTime,
    ) -> Result<TrialReport, TrialError> {
        let from = from
            .or_else(|| sender(self.config, self.settings))
            .ok_or(TrialError::NoSender)?;
        let (nobody, findings) = (Who::default(), &mut Findings::default());
        let policy = &self.config.policy;
        policy
            .sender(nobody, Some(&from), findings)
            .and_then(|()| policy.rcpt(nobody, to, findings))
            .map_err(TrialError::Refused)?;
        let message = compose(self.config, &from, to, now)?;
        let timeout = self.settings.timeout;
        let conversation = Conversation::default();
        let connector = self
            .settings
            .build(self.services(&conversation))
            .map_err(TrialError::NotBuilt)?;
        let deadline = Deadline::from(Instant::now() + timeout);
        let recipients = [to.clone().into()];
        let delivery = connector.deliver(&message, &recipients, &deadline);
        // The connector keeps the deadline; this is for one that does not.
        let report = tokio::time::timeout(timeout + Duration::from_secs(30), delivery)
            .await
            .map_err(|_| TrialError::Silent)?;
        let (end, outcome, text, via) = verdict(&report);
        let view = Tried {
            ok: end == TrialEnd::Works,
            outcome: outcome.to_owned(),
            text,
            via: via.to_owned(),
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            ..self.tried(&conversation)
        };
        Ok(TrialReport { report, end, view })
    }

    /// Looks at everything on the way, logs in and sends nothing.
    pub async fn examine(&self) -> Tried {
        let conversation = Conversation::default();
        let services = self.services(&conversation);
        let checks = examined(self.config, self.settings, services).await;
        let (outcome, text) = found(&checks);
        Tried {
            ok: outcome == "open",
            outcome: outcome.to_owned(),
            text,
            checks: checks.into_iter().map(shown_check).collect(),
            ..self.tried(&conversation)
        }
    }

    fn services(&self, conversation: &Conversation) -> Services {
        Services {
            recorder: Some(conversation.recorder(self.recorder.clone())),
            token_store: self.token_store.clone(),
        }
    }

    /// What can be said of any end.
    fn tried(&self, conversation: &Conversation) -> Tried {
        Tried {
            ok: false,
            connector: self.settings.name.to_string(),
            from: None,
            to: None,
            outcome: String::new(),
            text: String::new(),
            via: String::new(),
            checks: Vec::new(),
            conversation: conversation.lines(),
        }
    }
}

/// The state that a connector with these checks would be in, and what says so.
fn found(checks: &[Check]) -> (&'static str, String) {
    let failed = checks
        .iter()
        .find(|check| check.state == CheckState::Failed);
    let Some(failed) = failed else {
        let last = ["login", "token", "files"];
        let last = last.iter().find_map(|name| {
            checks
                .iter()
                .find(|check| check.check == *name && check.state == CheckState::Ok)
        });
        return ("open", last.map_or_else(String::new, |c| c.text.clone()));
    };
    let state = match failed.check {
        "proxy" | "dns" | "tcp" | "tls" | "clock" | "greeting" => "down",
        _ => "misconfigured",
    };
    (state, format!("{}: {}", failed.check, failed.text))
}

fn shown_check(check: Check) -> CheckView {
    CheckView {
        check: check.check.to_owned(),
        state: check.state.as_str().to_owned(),
        cause: check.cause.map(str::to_owned),
        text: check.text,
        fix: check.fix,
    }
}

/// The lines that were said so far.
#[derive(Debug, Clone, Default)]
struct Conversation(Arc<Mutex<Vec<String>>>);

impl Conversation {
    fn recorder(&self, other: Option<Recorder>) -> Recorder {
        let lines = Arc::clone(&self.0);
        Arc::new(move |line: &str| {
            let line = shown_to(line.trim_end(), LINE);
            if let Some(other) = &other {
                other(&line);
            }
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < LINES {
                lines.push(line);
            }
        })
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }
}

/// How it ended, in a word for programs, what was said and by whom.
fn verdict(report: &Report) -> (TrialEnd, &'static str, String, &str) {
    match report {
        // One recipient, so one outcome.
        Report::Tried { outcomes, via, .. } => match outcomes.first() {
            Some((_, outcome)) => {
                let (end, word, _) = meaning(outcome);
                (end, word, outcome.reply().to_string(), via)
            }
            None => (TrialEnd::Fails, "failed", String::new(), via),
        },
        Report::NotTried(obstacle) => match obstacle.kind {
            ObstacleKind::Throttled => (TrialEnd::Later, "deferred", said(obstacle), ""),
            kind => (TrialEnd::Fails, kind.as_str(), said(obstacle), ""),
        },
    }
}

/// What an outcome means, in a word for programs and in words for people.
pub fn meaning(outcome: &Outcome) -> (TrialEnd, &'static str, &'static str) {
    match outcome {
        Outcome::Delivered(_) => (TrialEnd::Works, "delivered", "delivered"),
        Outcome::Deferred { .. } => (
            TrialEnd::Later,
            "deferred",
            "not now; the queue would try again",
        ),
        Outcome::InDoubt(_) => (
            TrialEnd::Later,
            "in doubt",
            "it may have arrived: no answer after the last octet",
        ),
        Outcome::Failed(_) => (TrialEnd::Fails, "failed", "refused for good"),
        Outcome::Apart(_) => (
            TrialEnd::Fails,
            "apart",
            "one of the recipients is refused; the queue would try them in smaller sets",
        ),
        Outcome::Unsuited(_) => (TrialEnd::Fails, "unsuited", "not through this connector"),
    }
}

/// The likeliest sender: the one that the connector logs in as, the sender of bounces, the first that the allowlist names.
fn sender(config: &Config, settings: &connector::Settings) -> Option<Address> {
    let named = config
        .policy
        .allowlist
        .senders
        .iter()
        .map(ToString::to_string)
        .flat_map(|pattern| {
            let postmaster = format!("postmaster@{pattern}");
            [pattern, postmaster]
        });
    let login = settings.kind.login().map(str::to_owned);
    login
        .into_iter()
        .chain([config.bounce_from.to_string()])
        .chain(named)
        .filter_map(|text| Address::parse(&text).ok())
        .find(|address| {
            let findings = &mut Findings::default();
            let judged = config
                .policy
                .sender(Who::default(), Some(address), findings);
            judged.is_ok()
        })
}

fn compose(
    config: &Config,
    from: &Address,
    to: &Address,
    at: SystemTime,
) -> Result<Message, TrialError> {
    let id = MessageId::new(at, fastrand::u128(..));
    let fault = |error: &dyn std::fmt::Display| TrialError::NoMessage(error.to_string());
    let mail = lettre::Message::builder()
        .from(
            from.to_string()
                .parse()
                .map_err(|e: lettre::address::AddressError| fault(&e))?,
        )
        .to(to
            .to_string()
            .parse()
            .map_err(|e: lettre::address::AddressError| fault(&e))?)
        .subject("Postern test")
        .message_id(Some(format!("<{id}@{}>", config.hostname)))
        .date(at)
        .body(format!(
            "This is a test message, sent by `postern test` on {}.\r\n\
             If you can read it, this connector works.\r\n",
            config.hostname
        ))
        .map_err(|e| fault(&e))?
        .formatted();
    let mail = Bytes::from(mail);
    let end = memchr::memmem::find(&mail, b"\r\n\r\n")
        .ok_or_else(|| fault(&"the composed message has no body"))?;
    Ok(Message {
        id,
        envelope: Envelope {
            sender: Some(from.clone()),
            recipients: vec![to.clone().into()],
            eight_bit: false,
            dsn: None,
        },
        origin: Origin {
            listener: "test".to_owned(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            client: None,
            helo: config.hostname.clone(),
            tls: false,
            esmtp: true,
            utf8: from.needs_utf8() || to.needs_utf8(),
            user: None,
            at,
            rules: Vec::new(),
            copy_of: None,
        },
        header: mail.slice(..end + 2),
        body: Body::Memory(mail.slice(end + 4..)),
    })
}
