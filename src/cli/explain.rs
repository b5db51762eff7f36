//! `postern explain`: which rule accepts or refuses, and which way the mail would take.
//!
//! It plays a session in memory, as a client that knows what the listener offers, and shows what the session found and said;
//! it has no judgement of its own.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::SystemTime};

use bytes::BytesMut;

use serde_json::json;

use super::{
    exit::{CommandError, Ended, Exit},
    output, prepare,
};
use crate::{
    config::{Config, Secrets, values},
    gateway,
    listener::{self, Bind, TlsMode},
    mail::{
        headers,
        health::Health,
        message::MessageId,
        reply::Reply,
        text::{shown, shown_to},
    },
    policy::AuthMode,
    route::Route,
    secret::Secret,
    smtp::{
        sasl,
        server::session::{Accepted, Authentication, Conditions, Session, Step},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The envelope sender; <> for none
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    from: String,
    /// The recipient
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: String,
    /// The From field of the header, as written: whether it is understood, rewritten, admitted
    #[arg(long, value_name = "FROM", allow_hyphen_values = true)]
    header_from: Option<String>,
    /// Where the connection comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Logged in as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Through this listener [default: the first one]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// With a message as large as this: octets, or 30 MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// As a client that does not speak TLS [default: it uses STARTTLS where that is offered]
    #[arg(long)]
    no_tls: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// The steps so far, and the refusal that ended them.
#[derive(Debug, Default)]
struct Walk {
    steps: Vec<(&'static str, String)>,
    refused: Option<Reply>,
    route: Option<Route>,
}

pub(super) fn run(path: Option<PathBuf>, arguments: &Arguments) -> Ended {
    let config = prepare::settings(path, Secrets::Ignore)?;
    let listener = match &arguments.listener {
        None => config.listeners.first(),
        Some(name) => config.listeners.iter().find(|l| l.name == *name),
    }
    .ok_or_else(|| {
        CommandError::new(
            Exit::Usage,
            format_args!(
                "no listener named {:?}; there is {}",
                arguments.listener.as_deref().unwrap_or_default(),
                names(config.listeners.iter().map(|l| l.name.as_str()))
            ),
        )
    })?;
    if arguments.no_tls && listener.tls == TlsMode::Implicit {
        return Err(CommandError::new(
            Exit::Usage,
            format_args!(
                "listener {:?} begins with TLS: without it a client cannot say anything there",
                listener.name
            ),
        ));
    }
    let mut play = Play::new(&config, listener, arguments);
    play.path.refused = play.whole().err();
    show(&play.path, arguments.json)?;
    Ok(if play.path.refused.is_some() {
        Exit::Refused
    } else {
        Exit::Ok
    })
}

fn show(path: &Walk, as_json: bool) -> Result<(), CommandError> {
    if as_json {
        return output::json(&json!({
            "accepted": path.refused.is_none(),
            "reply": path.refused.as_ref().map(ToString::to_string),
            "route": path.route.as_ref().map(|r| r.name.as_str()),
            "connectors": path.route.as_ref().map_or_else(Vec::new, |r| {
                r.connectors.iter().map(|c| c.as_str().to_owned()).collect()
            }),
            "steps": path.steps.iter().map(|(what, text)| json!({"step": what, "text": text})).collect::<Vec<_>>(),
        }));
    }
    for (what, text) in &path.steps {
        output::line(format_args!("{what:<10} {}", shown_to(text, 400)))?;
    }
    match &path.refused {
        Some(reply) => output::line(format_args!("{:<10} {reply}", "refused")),
        None => output::line(format_args!(
            "{:<10} the message would be queued",
            "accepted"
        )),
    }
}

/// A session, played from the greeting to the final dot.
struct Play<'a> {
    config: &'a Config,
    listener: &'a listener::Settings,
    arguments: &'a Arguments,
    session: Session,
    path: Walk,
    accepted: Option<Box<Accepted>>,
}

impl<'a> Play<'a> {
    fn new(config: &'a Config, listener: &'a listener::Settings, arguments: &'a Arguments) -> Self {
        let conditions = Conditions {
            rules: Arc::new(gateway::rules(config)),
            store: Health::Fine,
            throttled: false,
        };
        let peer = (arguments.client, 0).into();
        let tls = listener.tls == TlsMode::Implicit;
        let mut session = Session::new(Arc::new(listener.rules()), peer, tls, conditions);
        session.keep_findings();
        Self {
            config,
            listener,
            arguments,
            session,
            path: Walk::default(),
            accepted: None,
        }
    }

    /// The first reply that refuses ends it.
    fn whole(&mut self) -> Result<(), Reply> {
        self.path.say("listener", describe(self.listener));
        if self.config.policy.client(self.arguments.client).is_none() {
            let text = "until it has logged in it is one of limits.unlisted_connections";
            self.path.say("connection", text.to_owned());
        }
        let mut greeting = Reply::unknown_command();
        let step = self.session.greet();
        self.carry_out(step, &mut greeting);
        self.heard(greeting)?;
        let mut offered = self.say("EHLO explain")?;
        if self.listener.tls == TlsMode::StartTls {
            let use_it = !self.arguments.no_tls && offers(&offered, "STARTTLS");
            let text = match (use_it, offers(&offered, "STARTTLS")) {
                (true, _) => "by STARTTLS",
                (false, true) => "none",
                (false, false) => "none: STARTTLS is hidden from this client",
            };
            self.path.say("tls", text.to_owned());
            if use_it {
                self.say("STARTTLS")?;
                offered = self.say("EHLO explain")?;
            }
        }
        self.log_in(&offered)?;
        let size = self
            .arguments
            .size
            .map_or_else(String::new, |size| format!(" SIZE={size}"));
        self.say(&format!(
            "MAIL FROM:{}{size}",
            bracketed(&self.arguments.from)
        ))?;
        self.say(&format!("RCPT TO:{}", bracketed(&self.arguments.to)))?;
        self.say("DATA")?;
        self.content()
    }

    fn log_in(&mut self, offered: &Reply) -> Result<(), Reply> {
        let client = self.config.policy.client(self.arguments.client);
        let any = client.filter(|client| client.any_credentials);
        let Some(name) = &self.arguments.user else {
            // A client of which any login will do is one that logs in.
            if any.is_some() && offers(offered, "AUTH") {
                self.say(&auth("any"))?;
            }
            return Ok(());
        };
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
        let field = self.arguments.header_from.as_ref().map(|value| {
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
        let route = accepted.jobs.first();
        self.path.route = route.and_then(|(name, _)| self.config.router.named(name).cloned());
        Ok(())
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
                Some(self.session.data(id, SystemTime::UNIX_EPOCH))
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
    fn say(&mut self, what: &'static str, text: String) {
        self.steps.push((what, text));
    }
}

/// Octets, or a number with a unit as in the configuration.
fn size(text: &str) -> Result<u64, String> {
    let octets = text.parse().or_else(|_| values::size(text));
    octets.map_err(|fault| {
        let hint = fault.hint.unwrap_or_default();
        format!("{}; {hint}", fault.message)
    })
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

fn describe(listener: &listener::Settings) -> String {
    let at = match &listener.bind {
        Bind::Address(address) => address.to_string(),
        Bind::Inherited(name) => format!("socket:{name}"),
    };
    let tls = match (listener.tls, listener.require_tls) {
        (TlsMode::Off, _) => "no TLS",
        (TlsMode::StartTls, false) => "STARTTLS offered",
        (TlsMode::StartTls, true) => "STARTTLS required",
        (TlsMode::Implicit, _) => "implicit TLS",
    };
    let auth = match listener.auth {
        AuthMode::Off => "no AUTH",
        AuthMode::Optional => "AUTH offered",
        AuthMode::Required => "AUTH required",
    };
    format!("{} at {at} ({tls}, {auth})", listener.name)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
