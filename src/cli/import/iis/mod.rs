//! The SMTP service of IIS: `MetaBase.xml`, each virtual server over what it inherits from the service.
//!
//! Passwords in it are encrypted for the machine that it is from, and certificates lie in that machine's store: neither can be had.

use std::time::Duration;

use roxmltree::{Document, Node, ParsingOptions};

use super::{
    draft::{ImportDraft, ListenerDraft, RouteDraft},
    files::SourceFile,
    note::{NotUnderstood, SourcePlace},
    words,
};
use server::VirtualServer;

mod clients;
mod server;
mod ways;

/// A metabase has some thousands.
const NODES: u32 = 500_000;
/// No more virtual servers, and no more domains of one, are read.
const MOST: usize = 100;

/// Properties that are not carried over, and whether they decide who may send or where mail goes.
const LEFT_OUT: &[(&str, bool, &str)] = &[
    (
        "PickupDirectory",
        true,
        "no directory is looked into for mail; `postern sendmail` and SMTP take it",
    ),
    (
        "BadMailDirectory",
        false,
        "what failed stays in the queue: `postern queue list`",
    ),
    (
        "DropDirectory",
        true,
        "nothing is delivered on the machine itself",
    ),
    ("RoutingSources", true, "LDAP routing is not carried over"),
    ("RoutingDll", true, "LDAP routing is not carried over"),
    (
        "RelayForAuth",
        true,
        "users are made anew: a [[user]] each with the hash of `postern hash-password`, and auth for the listener",
    ),
    (
        "NTAuthenticationProviders",
        true,
        "NTLM is not spoken; users are made anew",
    ),
    (
        "IPSecurity",
        true,
        "which addresses may connect at all is said by [[client]]",
    ),
    (
        "SecureBindings",
        true,
        "the certificate is in the store of the old machine: `postern cert` makes one, and a listener with tls = \"implicit\" uses it",
    ),
    (
        "MasqueradeDomain",
        false,
        "a rewrite gives one address to many senders, and keeps no local parts: write a [[rewrite]] for those that need it",
    ),
    (
        "AlwaysUseSmartHost",
        false,
        "all mail goes to the smarthost",
    ),
    (
        "EnableReverseDnsLookup",
        false,
        "nobody is looked up in DNS",
    ),
    (
        "SendBadTo",
        false,
        "what failed stays in the queue: `postern queue list`",
    ),
];

/// All of it.
pub(super) fn import(source: &SourceFile) -> Result<ImportDraft, NotUnderstood> {
    let options = ParsingOptions {
        nodes_limit: NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(&source.text, options).map_err(|fault| {
        let line = fault.pos().row as usize;
        let place = SourcePlace { file: None, line };
        NotUnderstood::new(
            Some(place),
            format!("not XML that is read here: {}", fault_words(&fault)),
        )
    })?;
    let nodes = || document.descendants().filter(Node::is_element);
    let is = |node: &Node<'_, '_>, name: &str| node.tag_name().name().eq_ignore_ascii_case(name);
    let service = nodes().find(|node| is(node, "IIsSmtpService"));
    let found: Vec<Node<'_, '_>> = nodes()
        .filter(|node| is(node, "IIsSmtpServer"))
        .take(MOST)
        .collect();
    if found.is_empty() {
        return Err(NotUnderstood::new(
            None,
            "there is no IIsSmtpServer in it; the MetaBase.xml of IIS is expected",
        ));
    }
    let mut draft = ImportDraft::new("IIS");
    let several = found.len() > 1;
    let mut servers: Vec<VirtualServer<'_, '_>> = Vec::new();
    for node in found {
        let number = node
            .attribute("Location")
            .and_then(|at| at.rsplit('/').next())
            .unwrap_or("1");
        let name = words::section_name(&format!("smtp-{number}"), "smtp");
        let name = words::unique(&name, |name| {
            servers.iter().any(|server| server.name == name)
        });
        servers.push(VirtualServer {
            name,
            node,
            service,
        });
    }
    for server in &servers {
        let listeners = listeners(server, &mut draft);
        let clients = clients::read(server, &mut draft);
        general(server, &mut draft);
        let of_it = |names: Vec<String>| if several { names } else { Vec::new() };
        let start = RouteDraft {
            listeners: of_it(listeners),
            clients: of_it(clients.clone()),
            ..RouteDraft::default()
        };
        if several && (start.listeners.is_empty() || clients.is_empty()) {
            // Nobody sends by it; its ways out are still worth a look.
            ways::read(server, &document, &start, false, &mut draft);
        } else {
            ways::read(server, &document, &start, true, &mut draft);
        }
        left_out(server, &mut draft);
    }
    Ok(draft)
}

/// The parser's own words may repeat what stands in the file, which may be a secret.
fn fault_words(fault: &roxmltree::Error) -> &'static str {
    match fault {
        roxmltree::Error::DtdDetected => "it has a DTD",
        roxmltree::Error::NodesLimitReached => "it is too large",
        _ => "it is not well-formed",
    }
}

/// `IP:PORT:HOST`, one or several.
fn listeners(server: &VirtualServer<'_, '_>, draft: &mut ImportDraft) -> Vec<String> {
    let mut names = Vec::new();
    let place = server.place("ServerBindings");
    let text = server.text("ServerBindings").unwrap_or(":25:");
    let asleep = ["AccessSSL", "AccessSSLFlags"].into_iter().find(|name| {
        server.text(name).is_some_and(|text| {
            text.contains("AccessSSL") && !text.contains("AccessNoSSL")
                || text == "TRUE"
                || text == "true"
        })
    });
    if let Some(name) = asleep {
        draft.lacks(
            name,
            server.place(name),
            "TLS is required there, and its certificate is in the store of the old machine",
        );
    }
    let needs_login = server
        .text("AuthFlags")
        .is_some_and(|flags| !flags.trim().is_empty() && !is_anonymous(flags));
    if needs_login {
        draft.lacks(
            "AuthFlags",
            server.place("AuthFlags"),
            "everybody had to log in there, as users of Windows: users are made anew, a [[user]] each, and then auth = \"required\"",
        );
    }
    for binding in text.split_whitespace().take(MOST) {
        let parts = match binding
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]:"))
        {
            Some((ip, rest)) => Some((ip, rest)),
            None => binding.split_once(':'),
        };
        let address = parts.and_then(|(ip, rest)| {
            let port: u16 = rest
                .split(':')
                .next()?
                .parse()
                .ok()
                .filter(|port| *port > 0)?;
            let ip = if ip.is_empty() || ip == "*" {
                "0.0.0.0"
            } else {
                ip
            };
            let ip: std::net::IpAddr = ip.parse().ok()?;
            Some(std::net::SocketAddr::new(ip, port).to_string())
        });
        let Some(address) = address else {
            draft.lacks(
                format!("ServerBindings: {binding}"),
                place.clone(),
                "this is no address with a port",
            );
            continue;
        };
        if draft
            .listeners
            .iter()
            .any(|listener| listener.address == address)
        {
            draft.lacks(
                format!("ServerBindings: {binding}"),
                place.clone(),
                "another virtual server listens there",
            );
            continue;
        }
        let name = words::unique(&server.name, |name| {
            draft.listeners.iter().any(|l| l.name == name)
        });
        draft.listeners.push(ListenerDraft {
            name: name.clone(),
            address,
            tls: "starttls",
            require_tls: asleep.is_some(),
            certificate: asleep
                .map(|_| ("certs/relay.pem".to_owned(), "certs/relay.key".to_owned())),
            asleep: match (asleep, needs_login) {
                (Some(_), _) => Some(
                    "TLS is required there: name a certificate (`postern cert` makes one)."
                        .to_owned(),
                ),
                (None, true) => Some(
                    "Everybody had to log in there: make the users, and set auth = \"required\"."
                        .to_owned(),
                ),
                (None, false) => None,
            },
            ..ListenerDraft::default()
        });
        if asleep.is_none() && !needs_login {
            names.push(name);
        }
    }
    names
}

/// What is one thing for the whole gateway.
fn general(server: &VirtualServer<'_, '_>, draft: &mut ImportDraft) {
    let mut one = |name: &str, slot: fn(&mut ImportDraft) -> &mut Option<String>| {
        let Some(text) = server.text(name) else {
            return;
        };
        let place = server.place(name);
        match (words::domain(text), slot(draft).clone()) {
            (None, _) => draft.leaves(name, place, "it is no name of a host"),
            (Some(domain), None) => *slot(draft) = Some(domain),
            (Some(domain), Some(other)) if domain != other => {
                draft.leaves(
                    format!("{name} of {}: {domain}", server.name),
                    place,
                    format!("the gateway has one, {other}"),
                );
            }
            _ => {}
        }
    };
    one("FullyQualifiedDomainName", |draft| &mut draft.hostname);
    one("DefaultDomain", |draft| &mut draft.default_domain);
    // Of several, the largest: nobody is refused who was not.
    if let Some(octets) = server.number("MaxMessageSize") {
        let octets = if octets == 0 { u64::MAX } else { octets };
        draft.message_size = Some(draft.message_size.map_or(octets, |other| other.max(octets)));
    }
    if let Some(most) = server.number("MaxRecipients") {
        let most = if most == 0 { 100_000 } else { most };
        draft.recipients = Some(draft.recipients.map_or(most, |other| other.max(most)));
    }
    if let Some(text) = server.text("SmtpRemoteProgressiveRetry") {
        let steps: Option<Vec<String>> = text
            .split(',')
            .take(MOST)
            .map(|step| {
                step.trim()
                    .parse::<u64>()
                    .ok()
                    .filter(|minutes| (1..=43_200).contains(minutes))
            })
            .map(|minutes| {
                minutes.map(|minutes| words::duration(Duration::from_secs(minutes * 60)))
            })
            .collect();
        match steps {
            Some(steps) => draft.retry = steps,
            None => draft.leaves(
                "SmtpRemoteProgressiveRetry",
                server.place("SmtpRemoteProgressiveRetry"),
                "it is no list of minutes",
            ),
        }
    }
    for name in ["SmtpRemoteNDRExpireMinutes", "SmtpRemoteNdrExpireMinutes"] {
        if let Some(minutes) = server.number(name).filter(|minutes| *minutes > 0) {
            let time = Duration::from_secs(minutes.saturating_mul(60));
            draft.give_up = Some(draft.give_up.map_or(time, |other| other.max(time)));
            break;
        }
    }
    if let Some(text) = server.text("SendNdrTo") {
        match words::address(text) {
            Some(address) if draft.copy_to.contains(&address) => {}
            Some(address) => draft.copy_to.push(address),
            None => draft.leaves(
                "SendNdrTo",
                server.place("SendNdrTo"),
                "it is no full address",
            ),
        }
    }
}

fn left_out(server: &VirtualServer<'_, '_>, draft: &mut ImportDraft) {
    for (name, decides, why) in LEFT_OUT {
        let Some(text) = server.text(name) else {
            continue;
        };
        if matches!(text.to_ascii_lowercase().as_str(), "false" | "0") {
            continue;
        }
        let place = server.place(name);
        if *decides {
            draft.lacks(*name, place, *why);
        } else {
            draft.leaves(*name, place, *why);
        }
    }
    if let Some(flags) = server
        .text("AuthFlags")
        .filter(|flags| is_anonymous(flags) && !is_only_anonymous(flags))
    {
        draft.lacks(
            format!("AuthFlags: {flags}"),
            server.place("AuthFlags"),
            "NTLM is not spoken, and Windows' users are not asked: users are made anew, a [[user]] each",
        );
    }
}

/// Whether clients may do without a login. It is a word each, or a sum of bits (MD_AUTH_ANONYMOUS is 1).
fn is_anonymous(flags: &str) -> bool {
    let is_so =
        |word: &str| word == "AuthAnonymous" || word.parse().is_ok_and(|bits: u32| bits & 1 == 1);
    flags.split('|').any(|word| is_so(word.trim()))
}

/// Whether they cannot log in at all.
fn is_only_anonymous(flags: &str) -> bool {
    flags
        .split('|')
        .all(|word| matches!(word.trim(), "" | "AuthAnonymous" | "0" | "1"))
}
