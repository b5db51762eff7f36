//! `postern explain`: which rule accepts or refuses, and which way the mail would take.
//!
//! It asks the functions that the session asks, in the same order; it has no judgement of its own.

use std::{net::IpAddr, path::PathBuf, time::SystemTime};

use serde_json::json;

use super::{
    exit::{Ended, Exit, Failure},
    output, prepare,
};
use crate::{
    config::{Config, Secrets},
    listener::{self, Bind, TlsMode},
    mail::{
        address::Address,
        headers,
        message::{MessageId, Origin},
        pattern::{self, Pattern},
        reply::Reply,
        text::{shown, shown_to},
    },
    policy::{
        About, AuthMode, Verdict, Who,
        network::{Client, ToleranceLevel},
    },
    route::{Asked, Route},
    smtp::server::{command, tolerance::Tolerance},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The envelope sender; <> for none
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    from: String,
    /// The recipient
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: String,
    /// The From of the header, as it stands there: whether it is understood, rewritten, admitted
    #[arg(long, value_name = "FROM", allow_hyphen_values = true)]
    header_from: Option<String>,
    /// Where the connection comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Logged in as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// By this listener [default: the first one]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The steps so far, and the refusal that ended them.
#[derive(Debug, Default)]
struct Path {
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
        Failure::new(
            Exit::Usage,
            format_args!(
                "no listener named {:?}; there is {}",
                arguments.listener.as_deref().unwrap_or_default(),
                names(config.listeners.iter().map(|l| l.name.as_str()))
            ),
        )
    })?;
    let mut walked = Path::default();
    if let Err(reply) = walk(&config, listener, arguments, &mut walked) {
        walked.refused = Some(reply);
    }
    if arguments.json {
        output::json(&json!({
            "accepted": walked.refused.is_none(),
            "reply": walked.refused.as_ref().map(ToString::to_string),
            "route": walked.route.as_ref().map(|r| r.name.as_str()),
            "connectors": walked.route.as_ref().map_or_else(Vec::new, |r| {
                r.connectors.iter().map(|c| c.as_str().to_owned()).collect()
            }),
            "steps": walked.steps.iter().map(|(what, text)| json!({"step": what, "text": text})).collect::<Vec<_>>(),
        }))?;
    } else {
        for (what, text) in &walked.steps {
            output::line(format_args!("{what:<10} {}", shown_to(text, 400)))?;
        }
        match &walked.refused {
            Some(reply) => output::line(format_args!("{:<10} {reply}", "refused"))?,
            None => output::line(format_args!(
                "{:<10} the message would be queued",
                "accepted"
            ))?,
        }
    }
    Ok(if walked.refused.is_some() {
        Exit::Refused
    } else {
        Exit::Ok
    })
}

#[expect(
    clippy::too_many_lines,
    reason = "the questions of a session, in its order"
)]
fn walk(
    config: &Config,
    listener: &listener::Settings,
    arguments: &Arguments,
    path: &mut Path,
) -> Result<(), Reply> {
    let policy = &config.policy;
    path.say("listener", describe(listener));

    let client = policy.client(arguments.client);
    path.say(
        "client",
        match client {
            Some(client) => format!("{} is in [[client]] {}", arguments.client, about(client)),
            None => format!("{} is in no [[client]]", arguments.client),
        },
    );
    judge(policy.connect(arguments.client, listener.auth))?;

    let user = match &arguments.user {
        None => None,
        Some(name) => {
            let Some(user) = policy.user(name) else {
                path.say(
                    "user",
                    format!("there is no [[user]] named {:?}", shown(name)),
                );
                return Err(Reply::auth_failed());
            };
            if listener.auth == AuthMode::Off {
                path.say(
                    "user",
                    format!("{name:?} cannot log in: auth = \"off\" on this listener"),
                );
                return Err(Reply::not_implemented());
            }
            path.say("user", format!("logged in as [[user]] {}", user.name));
            Some(user)
        }
    };
    let who = Who { client, user };
    let lenient = client.is_some_and(|c| c.any_credentials);
    judge(policy.login(who, listener.auth, user.is_some() || lenient))?;

    // As the session reads MAIL and RCPT: what this client is forgiven, bare names completed.
    let tolerance = Tolerance::of(client.map_or_else(ToleranceLevel::default, |c| c.tolerance));
    let bare = policy.default_domain.as_ref();
    let given = command::mail(&argument("FROM", &arguments.from), &tolerance, bare)?.sender;
    let rewritten = policy.rewrite(given.as_ref());
    let sender = match rewritten {
        Some((place, rewrite)) => {
            path.say(
                "rewrite",
                format!("[[rewrite]] {} makes the sender {}", place + 1, rewrite.to),
            );
            Some(&rewrite.to)
        }
        None => given.as_ref(),
    };
    let shown = sender.map_or_else(|| "<>".to_owned(), ToString::to_string);
    let lists = [
        (
            "allowlist.senders".to_owned(),
            Some(&policy.allowlist.senders),
        ),
        (
            client.map_or_else(String::new, |c| format!("client {}", c.name)),
            client.and_then(|c| c.senders.as_ref()),
        ),
        (
            user.map_or_else(String::new, |u| format!("user {}", u.name)),
            user.and_then(|u| u.senders.as_ref()),
        ),
    ];
    path.lists("sender", &shown, sender, &lists);
    judge(policy.mail(who, sender))?;

    let recipient = command::rcpt(&argument("TO", &arguments.to), &tolerance, bare)?;
    let lists = [
        (
            "allowlist.recipients".to_owned(),
            Some(&policy.allowlist.recipients),
        ),
        (
            client.map_or_else(String::new, |c| format!("client {}", c.name)),
            client.and_then(|c| c.recipients.as_ref()),
        ),
        (
            user.map_or_else(String::new, |u| format!("user {}", u.name)),
            user.and_then(|u| u.recipients.as_ref()),
        ),
    ];
    path.lists(
        "recipient",
        &recipient.to_string(),
        Some(&recipient),
        &lists,
    );
    judge(policy.rcpt(who, &recipient))?;

    let asked = Asked {
        sender,
        recipient: &recipient,
        client: client.map(|c| c.name.as_str()),
        user: user.map(|u| u.name.as_str()),
        listener: &listener.name,
    };
    let Some(route) = config.router.route(asked) else {
        path.say(
            "route",
            "no [[route]] takes this sender and recipient".to_owned(),
        );
        return Err(Reply::no_route(&recipient.to_string()));
    };
    path.say(
        "route",
        format!(
            "{}: {}, in this order",
            route.name,
            names(
                route
                    .connectors
                    .iter()
                    .map(crate::route::ConnectorName::as_str)
            )
        ),
    );
    if let Some(value) = &arguments.header_from {
        let told = Told {
            who,
            given: given.as_ref(),
            sender,
            rewrite: rewritten.map(|(place, _)| place),
            recipient: &recipient,
            tolerance,
        };
        header(config, listener, (arguments.client, value), &told, path)?;
    }
    path.route = Some(route.clone());
    Ok(())
}

/// What the envelope came to.
struct Told<'a> {
    who: Who<'a>,
    given: Option<&'a Address>,
    sender: Option<&'a Address>,
    rewrite: Option<usize>,
    recipient: &'a Address,
    tolerance: Tolerance,
}

/// The From as the end of DATA judges it, in a header of its own.
fn header(
    config: &Config,
    listener: &listener::Settings,
    (client, value): (IpAddr, &str),
    told: &Told<'_>,
    path: &mut Path,
) -> Result<(), Reply> {
    let who = told.who;
    let origin = Origin {
        listener: listener.name.clone(),
        peer: (client, 0).into(),
        client: who.client.map(|c| c.name.clone()),
        helo: String::new(),
        tls: false,
        esmtp: true,
        user: who.user.map(|u| u.name.clone()),
        at: SystemTime::UNIX_EPOCH,
    };
    let about = About {
        who,
        id: MessageId::from_bytes([0; 16]),
        origin: &origin,
        sender_given: told.given,
        sender: told.sender,
        rewrite: told.rewrite,
        recipients: std::slice::from_ref(told.recipient),
        hostname: &config.hostname,
        bounce_from: &config.bounce_from,
        unquoted_names: told.tolerance.unquoted_names,
    };
    // A field has no line ends that are no folding, and an argument has no folding.
    let value: String = value.chars().filter(|c| !"\r\n".contains(*c)).collect();
    let raw = format!("From: {value}\r\n");
    let judged = config.policy.header(raw.as_bytes(), &about)?;
    for name in ["From", "Reply-To"] {
        if let Some(leaves) = headers::value_of(&judged, name) {
            let leaves = headers::unfold(leaves);
            let leaves = String::from_utf8_lossy(leaves.trim_ascii());
            path.say("header", format!("{name}: {} leaves", shown(&leaves)));
        }
    }
    Ok(())
}

impl Path {
    fn say(&mut self, what: &'static str, text: String) {
        self.steps.push((what, text));
    }

    /// Which pattern of each list admits, or that none does.
    fn lists(
        &mut self,
        what: &'static str,
        shown: &str,
        address: Option<&Address>,
        lists: &[(String, Option<&Vec<Pattern>>)],
    ) {
        for (name, patterns) in lists {
            let Some(patterns) = patterns else { continue };
            let text = match pattern::admitting(patterns, address) {
                Some(pattern) => format!("{shown} passes {name} by \"{pattern}\""),
                None if pattern::find(patterns, address).is_some() => format!(
                    "{shown} does not pass {name}: such a local part must be named literally"
                ),
                None => format!("{shown} matches nothing in {name}"),
            };
            self.say(what, text);
        }
    }
}

fn judge(verdict: Verdict) -> Result<(), Reply> {
    match verdict {
        Verdict::Accept => Ok(()),
        Verdict::Reject(reply) => Err(reply),
    }
}

/// The address as a client would write it behind MAIL or RCPT: in brackets.
fn argument(word: &str, text: &str) -> Vec<u8> {
    if text.starts_with('<') {
        format!("{word}:{text}").into_bytes()
    } else {
        format!("{word}:<{text}>").into_bytes()
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

fn about(client: &Client) -> String {
    if client.require_auth {
        format!("{}, which must log in", client.name)
    } else {
        client.name.clone()
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
