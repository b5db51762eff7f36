//! What makes a draft one that `check` takes: somebody who may connect, a way out, and no open relay.
//!
//! Where a part is missing, what stands in its place lets nobody send; nothing is guessed that would.

use std::path::Path;

use super::{
    draft::{ClientDraft, ImportDraft, ListenerDraft},
    note::NoteKind,
    render::{RenderAround, render},
    words,
};
use crate::config::{self, Environment, Secrets, Severity};

/// Rounds of asking `check` for open relays; then all that is left is taken away at once.
const ROUNDS: usize = 30;

/// Fills the gaps, and takes away what `check` would call an open relay.
pub(super) fn finish(draft: &mut ImportDraft, around: &RenderAround) {
    listeners(draft);
    clients(draft);
    circles(draft);
    limits(draft);
    open_relays(draft, around);
    routes(draft);
    needs(draft, around);
}

fn listeners(draft: &mut ImportDraft) {
    if draft
        .listeners
        .iter()
        .any(|listener| listener.asleep.is_none())
    {
        return;
    }
    // It asks for less than those did that are not there: neither for TLS nor for a login.
    draft.has_no_door = true;
    let name = words::unique("this-machine", |name| {
        draft.listeners.iter().any(|l| l.name == name)
    });
    draft.listeners.push(ListenerDraft {
        name,
        address: "127.0.0.1:25".to_owned(),
        ..ListenerDraft::default()
    });
}

fn clients(draft: &mut ImportDraft) {
    if draft.clients.is_empty() {
        // Without any, this machine might send.
        draft.clients.push(ClientDraft {
            name: "this-machine".to_owned(),
            comment: Some("Nobody might send without a login, not from here either."),
            networks: vec!["127.0.0.0/8".to_owned(), "::1".to_owned()],
            is_barred: true,
            ..ClientDraft::default()
        });
    }
}

/// A connector that leads back to a listener of ours.
fn circles(draft: &mut ImportDraft) {
    let ports: Vec<String> = draft
        .listeners
        .iter()
        .filter(|listener| listener.asleep.is_none())
        .filter_map(|listener| listener.address.rsplit(':').next())
        .map(str::to_owned)
        .collect();
    let mut found = Vec::new();
    for connector in &mut draft.connectors {
        let (Some(host), None) = (connector.text("host"), &connector.asleep) else {
            continue;
        };
        let port = connector.pairs.iter().find(|(key, _)| *key == "port");
        let port = port.map_or_else(|| "25".to_owned(), |(_, value)| value.to_string());
        if words::is_loopback(host) && ports.contains(&port) {
            let at = format!("{host}:{port}");
            connector.asleep = Some("This is a listener of the new gateway itself.".to_owned());
            found.push(at);
        }
    }
    for at in found {
        draft.lacks(
            at,
            None,
            "that is where the new gateway listens; mail would go round in circles",
        );
    }
}

/// Routes name what is there; where none leads anywhere, nothing is taken.
fn routes(draft: &mut ImportDraft) {
    let clients: Vec<&ClientDraft> = draft.clients.iter().collect();
    let is_there = |name: &String| {
        clients
            .iter()
            .any(|client| client.name == *name && !client.networks.is_empty())
    };
    let mut is_led = false;
    for route in &mut draft.routes {
        if !route.clients.is_empty() {
            route.is_closed = !route.clients.iter().any(&is_there);
            if !route.is_closed {
                route.clients.retain(&is_there);
            }
        }
        let leads = route.connectors.iter().any(|name| {
            let mut all = draft.connectors.iter();
            all.any(|connector| connector.asleep.is_none() && connector.name == *name)
        });
        is_led |= leads && !route.is_closed;
    }
    draft.stands_still = !is_led;
}

/// Networks that would make an open relay stand as comments.
fn open_relays(draft: &mut ImportDraft, around: &RenderAround) {
    for round in 0..=ROUNDS {
        let found = refused_networks(draft, around);
        if found.is_empty() {
            return;
        }
        for client in &mut draft.clients {
            let (gone, kept): (Vec<String>, Vec<String>) = std::mem::take(&mut client.networks)
                .into_iter()
                .partition(|network| {
                    found.contains(network) || (round == ROUNDS && !client.is_barred)
                });
            client.networks = kept;
            for network in &gone {
                draft.notes.add(
                    NoteKind::Decides,
                    network.clone(),
                    None,
                    "everybody there could send to anybody without a login: `check` calls that an open relay",
                );
            }
            client.asleep.extend(gone);
        }
        // Of nobody left nothing is written, and then this machine might send.
        draft
            .clients
            .retain(|client| !client.networks.is_empty() || !client.asleep.is_empty());
        if draft
            .clients
            .iter()
            .all(|client| client.networks.is_empty())
        {
            draft.clients.push(ClientDraft {
                name: words::unique("this-machine", |name| {
                    draft.clients.iter().any(|c| c.name == name)
                }),
                networks: vec!["127.0.0.0/8".to_owned(), "::1".to_owned()],
                is_barred: true,
                ..ClientDraft::default()
            });
        }
    }
}

/// The networks that `check` calls an open relay.
fn refused_networks(draft: &ImportDraft, around: &RenderAround) -> Vec<String> {
    let text = render(draft, around);
    let lines: Vec<&str> = text.lines().collect();
    refusals(&text)
        .into_iter()
        .filter(|refusal| refusal.message.starts_with("open relay"))
        .filter_map(|refusal| {
            let line = lines.get(refusal.line.checked_sub(1)?)?;
            let rest: String = line.chars().skip(refusal.column.checked_sub(1)?).collect();
            let network = rest.strip_prefix('"')?.split('"').next()?;
            Some(network.to_owned())
        })
        .collect()
}

/// An error of `check`.
#[derive(Debug)]
pub(super) struct CheckRefusal {
    line: usize,
    column: usize,
    message: String,
}

/// The errors of `check` in a text, without a look at any file.
pub(super) fn refusals(text: &str) -> Vec<CheckRefusal> {
    let around = Environment {
        hostname: "relay.corp.example".to_owned(),
        ..Environment::default()
    };
    match config::parse(text, Path::new("config.toml"), Secrets::Ignore, &around) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .filter(|one| one.severity == Severity::Error)
            .map(|one| {
                let problem = one.problem();
                CheckRefusal {
                    line: problem.line.unwrap_or_default(),
                    column: problem.column.unwrap_or_default(),
                    message: problem.message,
                }
            })
            .collect(),
    }
}

/// What the configuration has room for.
fn limits(draft: &mut ImportDraft) {
    const LARGEST: u64 = 2 << 30;
    if let Some(octets) = draft.message_size.filter(|octets| *octets > LARGEST) {
        draft.message_size = Some(LARGEST);
        draft.changes(
            format!("a message of {octets} octets"),
            None,
            "2 GiB is the most that Postern takes",
        );
    }
    if let Some(time) = draft.give_up {
        let within = time.clamp(
            std::time::Duration::from_mins(1),
            std::time::Duration::from_hours(24 * 365),
        );
        draft.give_up = Some(within);
    }
}

/// Which secrets somebody has to put where.
fn needs(draft: &mut ImportDraft, around: &RenderAround) {
    if around.secrets.is_some() {
        return;
    }
    let needed: Vec<_> = draft
        .secrets()
        .into_iter()
        .map(|(file, _, whose, place)| (file, whose, place))
        .collect();
    for (file, whose, place) in needed {
        draft.notes.add(
            NoteKind::Needed,
            file,
            place,
            format!("{whose}, in a file beside the configuration; --secrets DIR writes it"),
        );
    }
}
