//! Which rule accepts or refuses, and which way the mail would take.
//!
//! It plays a session in memory, as a client that knows what the listener offers, and shows what the session found and said;
//! it has no judgement of its own.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use bytes::BytesMut;

use super::lines::{describe, signed_by};
use crate::{
    config::Config,
    connector,
    gateway::rules::rules,
    listener::{self, TlsMode},
    mail::{headers, health::Health, message::MessageId, reply::Reply, text::shown, tls::TlsFloor},
    policy::{
        AuthMode,
        certificate::{CertificatePattern, ClientCertificates},
    },
    route::Route,
    secret::Secret,
    smtp::{
        sasl,
        server::session::{Accepted, Authentication, Conditions, Session, Step},
    },
    view::{Explained, ExplainedStep},
};

/// What a message would be.
#[derive(Debug, Clone)]
pub struct Question {
    /// The envelope sender; `<>` for none.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The From field of the header, as written.
    pub header_from: Option<String>,
    /// Where the connection comes from.
    pub client: IpAddr,
    /// Logged in as this user.
    pub user: Option<String>,
    /// Through this listener. `None`: the first one.
    pub listener: Option<String>,
    /// Octets that the client says it has.
    pub size: Option<u64>,
    /// As a client that does not speak TLS.
    pub no_tls: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Such a listener is not there.
    #[error("no listener named {asked:?}; there is {names}")]
    NoListener {
        /// Which.
        asked: String,
        /// Those that are.
        names: String,
    },
    /// Without TLS a client cannot say anything there.
    #[error("listener {0:?} begins with TLS: without it a client cannot say anything there")]
    NeedsTls(String),
}

/// Plays it.
///
/// # Errors
/// [`QuestionError`].
pub fn explain(config: &Config, question: &Question) -> Result<Explained, QuestionError> {
    let listener = match &question.listener {
        None => config.listeners.first(),
        Some(name) => config.listeners.iter().find(|l| l.name == *name),
    }
    .ok_or_else(|| QuestionError::NoListener {
        asked: question.listener.clone().unwrap_or_default(),
        names: names(config.listeners.iter().map(|l| l.name.as_str())),
    })?;
    if question.no_tls && listener.tls == TlsMode::Implicit {
        return Err(QuestionError::NeedsTls(listener.name.clone()));
    }
    let mut play = Play::new(config, listener, question);
    play.path.refused = play.whole().err();
    Ok(play.path.view())
}

/// The steps so far, and the refusal that ended them.
#[derive(Debug, Default)]
struct Walk {
    steps: Vec<(&'static str, String)>,
    refused: Option<Reply>,
    route: Option<Route>,
}

/// A session, played from the greeting to the final dot.
struct Play<'a> {
    config: &'a Config,
    listener: &'a listener::Settings,
    question: &'a Question,
    session: Session,
    path: Walk,
    accepted: Option<Box<Accepted>>,
}

impl<'a> Play<'a> {
    fn new(config: &'a Config, listener: &'a listener::Settings, question: &'a Question) -> Self {
        let conditions = Conditions {
            learned: None,
            quotas: None,
            rules: Arc::new(rules(config)),
            store: Health::Fine,
            throttled: false,
        };
        let peer = (question.client, 0).into();
        let tls = listener.tls == TlsMode::Implicit;
        let mut session = Session::new(Arc::new(listener.rules()), peer, tls, conditions);
        session.keep_findings();
        Self {
            config,
            listener,
            question,
            session,
            path: Walk::default(),
            accepted: None,
        }
    }

    /// The first reply that refuses ends it.
    fn whole(&mut self) -> Result<(), Reply> {
        self.path.say("listener", describe(self.listener));
        if self.config.policy.client(self.question.client).is_none() {
            let text = "from no [[client]]: it counts against limits.unlisted_connections until it logs in";
            self.path.say("connection", text.to_owned());
        }
        self.tls_floor();
        let mut greeting = Reply::unknown_command();
        if self.listener.tls == TlsMode::Implicit {
            self.handshake()?;
            self.show_certificate();
        }
        let step = self.session.greet();
        self.carry_out(step, &mut greeting);
        self.heard(greeting)?;
        let mut offered = self.say("EHLO explain")?;
        if self.listener.tls == TlsMode::StartTls {
            let use_it = !self.question.no_tls && offers(&offered, "STARTTLS");
            let text = match (use_it, offers(&offered, "STARTTLS")) {
                (true, _) => "by STARTTLS",
                (false, true) => "none",
                (false, false) => "none: STARTTLS is hidden from this client",
            };
            self.path.say("tls", text.to_owned());
            if use_it {
                self.handshake()?;
                self.say("STARTTLS")?;
                offered = self.say("EHLO explain")?;
            }
        }
        self.log_in(&offered)?;
        let size = self
            .question
            .size
            .map_or_else(String::new, |size| format!(" SIZE={size}"));
        let utf8 = self.asks_for_utf8(&offered);
        self.say(&format!(
            "MAIL FROM:{}{size}{utf8}",
            bracketed(&self.question.from)
        ))?;
        self.say(&format!("RCPT TO:{}", bracketed(&self.question.to)))?;
        self.say("DATA")?;
        self.content()
    }

    /// The parameter of MAIL where an address of the question is not ASCII, and it is offered.
    fn asks_for_utf8(&mut self, offered: &Reply) -> &'static str {
        let Question {
            from,
            to,
            header_from,
            ..
        } = &self.question;
        let mut said = [from, to].into_iter().chain(header_from);
        if said.all(|text| text.is_ascii()) {
            return "";
        }
        let is_offered = offers(offered, "SMTPUTF8");
        let text = if is_offered {
            "asked for: something in the question is not ASCII"
        } else {
            "not offered: smtputf8 = false on this listener"
        };
        self.path.say("smtputf8", text.to_owned());
        if is_offered { " SMTPUTF8" } else { "" }
    }

    /// What of TLS is spoken with the client, where that is another than with everybody.
    fn tls_floor(&mut self) {
        let client = self.config.policy.client(self.question.client);
        let Some(client) = client.filter(|client| client.tls != TlsFloor::default()) else {
            return;
        };
        if self.listener.certificate.is_some() {
            let text = format!("{} with client {}", client.tls, client.name);
            self.path.say("tls", text);
        }
    }

    /// Whether the user that is asked about logs in by a certificate: where the listener asks for one, or there is no password.
    fn shows_certificate(&self) -> bool {
        self.certificate().is_some()
    }

    fn certificate(&self) -> Option<&'a CertificatePattern> {
        let name = self.question.user.as_deref()?;
        let user = self.config.policy.user(name)?;
        let first = user.certificates.first();
        first.filter(|_| self.listener.clients.is_some())
    }

    /// Who must show a certificate and has none does not get through it.
    fn handshake(&self) -> Result<(), Reply> {
        let is_required = self.listener.client_certificates() == ClientCertificates::Required;
        if !is_required || self.shows_certificate() {
            return Ok(());
        }
        let why = "there is no answer: the handshake ends, since client_certificates = \"required\" and nobody's certificate is shown (--user NAME shows that of a [[user]])";
        Err(Reply::new(554, (5, 7, 0), why))
    }

    /// One that has what the configuration names of the user that is asked about, and nothing else.
    fn show_certificate(&mut self) {
        if let Some(one) = self.certificate() {
            self.session.shown(one.example());
        }
    }

    fn log_in(&mut self, offered: &Reply) -> Result<(), Reply> {
        let client = self.config.policy.client(self.question.client);
        let any = client.filter(|client| client.any_credentials);
        let Some(name) = &self.question.user else {
            // A client of which any login will do is one that logs in.
            if any.is_some() && offers(offered, "AUTH") {
                self.say(&auth("any"))?;
            }
            return Ok(());
        };
        if self.shows_certificate() && self.session.user() == Some(name) {
            let text = format!("logged in as [[user]] {name} by a certificate");
            self.path.say("user", text);
            return Ok(());
        }
        let result = self.say(&auth(name));
        let text = match (&result, any) {
            (Ok(_), Some(client)) => format!(
                "any name and password will do for client {}, and they grant nothing",
                client.name
            ),
            (Ok(_), None) => format!("logged in as [[user]] {name}"),
            (Err(_), _) if self.config.policy.user(name).is_none() => {
                format!("there is no [[user]] named {:?}", shown(name))
            }
            (Err(_), _) if self.listener.auth == AuthMode::Off => {
                format!("{name:?} cannot log in: auth = \"off\" on this listener")
            }
            (Err(_), _) => format!("{name:?} cannot log in here without TLS"),
        };
        self.path.say("user", text);
        result.map(|_| ())
    }

    /// A message of the one field that was given, or of none.
    fn content(&mut self) -> Result<(), Reply> {
        let field = self.question.header_from.as_ref().map(|value| {
            // A field has no line ends that are no folding, and an argument has no folding.
            let value: String = value.chars().filter(|c| !"\r\n".contains(*c)).collect();
            format!("From: {value}\r\n")
        });
        self.say(&format!("{}\r\n.", field.as_deref().unwrap_or_default()))?;
        let Some(accepted) = self.accepted.take() else {
            return Ok(());
        };
        if field.is_some() {
            for name in ["From", "Reply-To"] {
                let Some(leaves) = headers::value_of(&accepted.header, name) else {
                    continue;
                };
                let leaves = headers::unfold(leaves);
                let leaves = String::from_utf8_lossy(leaves.trim_ascii());
                let text = format!("{name}: {} leaves", shown(&leaves));
                self.path.say("header", text);
            }
        }
        let told = self.told(&accepted);
        self.path.say("reports", told);
        let route = accepted.jobs.first();
        self.path.route = route.and_then(|(name, _)| self.config.router.named(name).cloned());
        self.signatures(&accepted.header);
        self.old_ways();
        Ok(())
    }

    /// The connectors of its route that are allowed another TLS than everybody.
    fn old_ways(&mut self) {
        let lines: Vec<String> = self
            .ways()
            .filter_map(|one| {
                let floor = one.kind.tls_floor().filter(|f| *f != TlsFloor::default())?;
                Some(format!("{floor} to {}", one.name))
            })
            .collect();
        for line in lines {
            self.path.say("tls", line);
        }
    }

    /// The connectors of its route.
    fn ways(&self) -> impl Iterator<Item = &connector::Settings> {
        let connectors = self.path.route.iter().flat_map(|route| &route.connectors);
        connectors.filter_map(|name| {
            let mut all = self.config.connectors.iter();
            all.find(|one| one.name == *name)
        })
    }

    /// Whether the sender would get reports of what becomes of it.
    fn told(&self, accepted: &Accepted) -> String {
        let bounce = &self.config.delivery.bounce;
        let Some(sender) = &accepted.envelope.sender else {
            return "none: there is no sender to tell".to_owned();
        };
        let origin = &accepted.origin;
        let policy = &self.config.policy;
        let who = policy.named(origin.client.as_deref(), origin.user.as_deref());
        let after = match bounce.delay_notice {
            Some(after) if bounce.to_sender => format!(
                ", of delays after {} seconds where it asks for that",
                after.as_secs()
            ),
            _ => String::new(),
        };
        match (bounce.to_sender, policy.report(who, sender)) {
            (false, _) => "none to the sender: to_sender = false in [bounce]".to_owned(),
            (true, false) => "none to the sender: nothing narrower than \"anybody\" admits it, and the recipient lists do not".to_owned(),
            (true, true) => format!("to {sender}: of failures, or as it asks (DSN){after}"),
        }
    }

    /// Which keys sign it today, at each connector of its route that signs.
    fn signatures(&mut self, header: &[u8]) {
        let keys = self
            .ways()
            .filter_map(|one| Some((&one.name, one.kind.dkim()?)));
        let lines: Vec<String> = keys
            .map(|(name, keys)| signed_by(name, keys, header))
            .collect();
        for line in lines {
            self.path.say("dkim", line);
        }
    }

    /// Says a line to the session and hears the answer; one that refuses is the error.
    fn say(&mut self, line: &str) -> Result<Reply, Reply> {
        let mut input = BytesMut::from(line.as_bytes());
        input.extend_from_slice(b"\r\n");
        let mut answer = Reply::unknown_command();
        while let Some(step) = self.session.feed(&mut input) {
            self.carry_out(step, &mut answer);
        }
        self.heard(answer)
    }

    fn heard(&mut self, answer: Reply) -> Result<Reply, Reply> {
        self.path.steps.extend(self.session.take_findings());
        if answer.is_transient() || answer.is_permanent() {
            return Err(answer);
        }
        Ok(answer)
    }

    /// What the driver of a session does, without a socket, a password check and a queue.
    fn carry_out(&mut self, step: Step, answer: &mut Reply) {
        let next = match step {
            Step::Reply(reply) | Step::Close(Some(reply)) => {
                *answer = reply;
                None
            }
            Step::StartTls(reply) => {
                *answer = reply;
                self.show_certificate();
                self.session.tls_started()
            }
            Step::Verify(credentials) => {
                let known = self.config.policy.user(&credentials.user).is_some();
                Some(self.session.verified(if known {
                    Authentication::Accepted
                } else {
                    Authentication::Refused
                }))
            }
            Step::Data => {
                let id = MessageId::from_bytes([0; 16]);
                self.session.data(id, SystemTime::UNIX_EPOCH)
            }
            Step::Enqueue(accepted) => {
                self.accepted = Some(accepted);
                Some(self.session.enqueued(Ok(())))
            }
            _ => None,
        };
        if let Some(next) = next {
            self.carry_out(next, answer);
        }
    }
}

impl Walk {
    fn view(self) -> Explained {
        let connectors = self.route.iter().flat_map(|route| &route.connectors);
        Explained {
            accepted: self.refused.is_none(),
            reply: self.refused.as_ref().map(ToString::to_string),
            route: self.route.as_ref().map(|route| route.name.to_string()),
            connectors: connectors.map(ToString::to_string).collect(),
            steps: self
                .steps
                .into_iter()
                .map(|(step, text)| ExplainedStep {
                    step: step.to_owned(),
                    text,
                })
                .collect(),
        }
    }

    fn say(&mut self, what: &'static str, text: String) {
        self.steps.push((what, text));
    }
}

/// Whether an answer to EHLO offers this extension.
fn offers(answer: &Reply, extension: &str) -> bool {
    let mut lines = answer.text.split('\n').skip(1);
    lines.any(|line| line.split(' ').next() == Some(extension))
}

/// An AUTH command whose password is taken for the right one.
fn auth(name: &str) -> String {
    format!(
        "AUTH PLAIN {}",
        sasl::plain_response(name, &Secret::new("any"))
    )
}

/// The address as a client writes it behind MAIL or RCPT.
fn bracketed(text: &str) -> String {
    if text.starts_with('<') {
        text.to_owned()
    } else {
        format!("<{text}>")
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
