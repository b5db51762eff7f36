//! Postfix: `main.cf`, `master.cf` and the tables that they name, as a draft of a new configuration.
//!
//! This file goes through the parameters in order; who may send, where it listens and where mail goes each have a file of their own.

use std::time::Duration;

use ipnet::IpNet;

use super::{
    draft::{ClientDraft, ImportDraft, RewriteDraft},
    files::{NamedFiles, SourceFile},
    note::NotUnderstood,
    words,
};
use left_out::Handling;
use main_cf::MainCf;

mod hops;
mod left_out;
mod listeners;
mod main_cf;
mod maps;
mod master_cf;
mod restrictions;
mod ways;

/// All of it.
pub(super) fn import(
    main: &SourceFile,
    master: Option<&SourceFile>,
    directory: &str,
    files: &dyn NamedFiles,
) -> Result<ImportDraft, NotUnderstood> {
    let parameters = MainCf::parse(&main.text, None, directory)?;
    let services = match master {
        Some(master) => Some(master_cf::parse(&master.text, &master.label)?),
        None => None,
    };
    let mut draft = ImportDraft::new("Postfix");
    names(&parameters, files, &mut draft)?;
    limits(&parameters, &mut draft)?;
    networks(&parameters, &mut draft)?;
    let permitted = restrictions::permitted(&parameters, files, &mut draft)?;
    refuse(&permitted.refused, &mut draft);
    draft.allowed_senders.clone_from(&permitted.senders);
    draft.allowed_recipients.clone_from(&permitted.recipients);
    listeners::read(
        &parameters,
        services.as_deref(),
        &permitted,
        files,
        &mut draft,
    )?;
    rewrites(&parameters, files, &mut draft)?;
    ways::read(&parameters, files, &mut draft)?;
    left_out(&parameters, &mut draft)?;
    Ok(draft)
}

/// What it is called, and what completes a bare name.
fn names(
    main: &MainCf,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<(), NotUnderstood> {
    if let Some(name) = main.set("myhostname")? {
        draft.hostname = words::domain(&name);
        if draft.hostname.is_none() {
            draft.leaves(
                "myhostname",
                main.place("myhostname"),
                "it is no name of a host",
            );
        }
    }
    let known = ["myorigin", "myhostname", "mydomain"];
    let Some(from) = known.into_iter().find(|name| main.is_set(name)) else {
        return Ok(());
    };
    let mut origin = main.value(from)?;
    if origin.starts_with('/') {
        match files.text(&origin) {
            Ok(text) => text
                .lines()
                .next()
                .unwrap_or_default()
                .trim()
                .clone_into(&mut origin),
            Err(why) => {
                draft.leaves(format!("{from}: {origin}"), main.place(from), why);
                return Ok(());
            }
        }
    }
    draft.default_domain = words::domain(&origin);
    if draft.default_domain.is_none() {
        draft.leaves(from, main.place(from), "it is no domain");
    }
    Ok(())
}

fn limits(main: &MainCf, draft: &mut ImportDraft) -> Result<(), NotUnderstood> {
    if let Some(text) = main.set("message_size_limit")? {
        match text.parse::<u64>() {
            // No limit.
            Ok(0) => draft.message_size = Some(u64::MAX),
            Ok(octets) => draft.message_size = Some(octets),
            Err(_) => draft.leaves(
                "message_size_limit",
                main.place("message_size_limit"),
                "it is no number",
            ),
        }
    }
    if let Some(text) = main.set("maximal_queue_lifetime")? {
        match lifetime(&text) {
            Some(time) => draft.give_up = Some(time),
            None => draft.leaves(
                "maximal_queue_lifetime",
                main.place("maximal_queue_lifetime"),
                "it is no length of time",
            ),
        }
    }
    if let Some(text) = main.set("bounce_notice_recipient")? {
        let full = match (&draft.default_domain, text.contains('@')) {
            (Some(domain), false) => format!("{text}@{domain}"),
            _ => text,
        };
        match words::address(&full) {
            Some(address) => draft.copy_to.push(address),
            None => draft.leaves(
                "bounce_notice_recipient",
                main.place("bounce_notice_recipient"),
                "it is no full address",
            ),
        }
    }
    Ok(())
}

/// `5d`, `12h`; days, where there is no unit.
fn lifetime(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let seconds = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" | "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// `mynetworks`: one client, and another one for what is excepted.
fn networks(main: &MainCf, draft: &mut ImportDraft) -> Result<(), NotUnderstood> {
    let place = main.place("mynetworks");
    if place.is_none() {
        let style = main.value("mynetworks_style")?;
        if matches!(style.as_str(), "subnet" | "class") {
            draft.lacks(
                format!("mynetworks_style = {style}"),
                main.place("mynetworks_style"),
                "only this machine may send now: name the networks in [[client]]",
            );
        } else if style.is_empty()
            && main
                .value("compatibility_level")?
                .parse::<f64>()
                .is_ok_and(|level| level < 2.0)
        {
            draft.changes(
                "mynetworks",
                None,
                "with this compatibility_level Postfix trusts the subnets of the machine; only this machine may send now",
            );
        }
        draft.clients.push(ClientDraft {
            name: "this-machine".to_owned(),
            networks: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            ..ClientDraft::default()
        });
        return Ok(());
    }
    let (mut taken, mut barred): (Vec<IpNet>, Vec<IpNet>) = (Vec::new(), Vec::new());
    for word in main.list("mynetworks")? {
        let (is_barred, text) = match word.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, word.as_str()),
        };
        match words::network(text) {
            // The first that matches decides, in Postfix; here it is the narrowest.
            Some(network) if is_barred => {
                barred.push(network);
                draft.lacks(
                    format!("mynetworks: {word}"),
                    place.clone(),
                    "an exception: whoever connects from there may send to nobody now (`excepted`)",
                );
            }
            Some(network) if barred.iter().any(|wide| wide.contains(&network)) => {
                draft.lacks(
                    format!("mynetworks: {word}"),
                    place.clone(),
                    "it is within an exception before it",
                );
            }
            Some(network) if taken.contains(&network) => {}
            Some(network) => taken.push(network),
            None => {
                let why = if text.contains('/') && text.contains(':') || text.starts_with('/') {
                    "networks in files and tables are not read: name them in [[client]]"
                } else {
                    "this is no network"
                };
                draft.lacks(format!("mynetworks: {word}"), place.clone(), why);
                if is_barred {
                    // Who is excepted is not known, and so nobody is let in.
                    draft.lacks(
                        "mynetworks",
                        place.clone(),
                        "an exception in it is not understood: nobody may send now",
                    );
                    draft.clients.clear();
                    return Ok(());
                }
            }
        }
    }
    barred.dedup();
    taken.retain(|network| !barred.contains(network));
    let texts = |list: &[IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    if !taken.is_empty() {
        draft.clients.push(ClientDraft {
            name: "mynetworks".to_owned(),
            networks: texts(&taken),
            ..ClientDraft::default()
        });
    }
    if !barred.is_empty() {
        let mut seen = Vec::new();
        barred.retain(|network| {
            let is_new = !seen.contains(network);
            seen.push(*network);
            is_new
        });
        draft.clients.push(ClientDraft {
            name: "excepted".to_owned(),
            networks: texts(&barred),
            is_barred: true,
            ..ClientDraft::default()
        });
    }
    Ok(())
}

/// Networks that are refused whatever `mynetworks` says: a client that may send to nobody, and nothing within it is let in.
fn refuse(refused: &[IpNet], draft: &mut ImportDraft) {
    let is_refused = |network: &String| {
        let network: Option<IpNet> = network.parse().ok();
        network.is_some_and(|network| refused.iter().any(|wide| wide.contains(&network)))
    };
    for client in &mut draft.clients {
        client.networks.retain(|network| !is_refused(network));
    }
    draft.clients.retain(|client| !client.networks.is_empty());
    let mut networks: Vec<String> = refused.iter().map(ToString::to_string).collect();
    networks.sort();
    networks.dedup();
    if !networks.is_empty() {
        draft.clients.push(ClientDraft {
            name: "refused".to_owned(),
            networks,
            is_barred: true,
            ..ClientDraft::default()
        });
    }
}

/// The allowlist is asked about what the sender was made: whoever could not send must not be made somebody who may.
fn keep_those_who_may(draft: &mut ImportDraft) {
    let Some(allowed) = draft.allowed_senders.clone() else {
        return;
    };
    let mut lost = Vec::new();
    for rewrite in &mut draft.rewrites {
        rewrite.senders.retain(|sender| {
            let common = restrictions::both(Some(vec![sender.clone()]), Some(allowed.clone()));
            let is_admitted = common.is_some_and(|common| common.contains(sender));
            if !is_admitted {
                lost.push(sender.clone());
            }
            is_admitted
        });
    }
    draft.rewrites.retain(|rewrite| !rewrite.senders.is_empty());
    for sender in lost {
        draft.lacks(
            format!("the rewrite of {sender}"),
            None,
            "it might not send under its own name, and would now under the other",
        );
    }
}

/// `sender_canonical_maps`, and behind them `smtp_generic_maps`: addresses before domains, as Postfix looks them up.
fn rewrites(
    main: &MainCf,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<(), NotUnderstood> {
    let fallback = main.value("default_database_type")?;
    for parameter in ["sender_canonical_maps", "smtp_generic_maps"] {
        let place = main.place(parameter);
        let (mut entries, unread) =
            maps::read(&main.list(parameter)?, &fallback, files, place.as_ref());
        for one in unread {
            draft.leaves(format!("{parameter}: {}", one.map), place.clone(), one.why);
        }
        entries.sort_by_key(|entry| entry.key.starts_with('@'));
        for entry in entries {
            let domain = draft.default_domain.clone();
            let sender = match entry.key.strip_prefix('@') {
                Some(domain) => words::pattern(domain),
                None if entry.key.contains('@') => words::pattern(&entry.key),
                None => domain
                    .as_ref()
                    .and_then(|domain| words::pattern(&format!("{}@{domain}", entry.key))),
            };
            let full = match (&domain, entry.value.contains('@')) {
                (Some(domain), false) if !entry.value.is_empty() => {
                    format!("{}@{domain}", entry.value)
                }
                _ => entry.value.clone(),
            };
            let (Some(sender), Some(to)) = (sender, words::address(&full)) else {
                // What is no address may be anything.
                let is_shown = entry.value.starts_with('@') || words::address(&full).is_some();
                let shown = if is_shown { &entry.value } else { "…" };
                draft.leaves(
                    format!("{parameter}: {} {shown}", entry.key),
                    Some(entry.place),
                    "a rewrite makes one address of an address or of a whole domain",
                );
                continue;
            };
            // What the first table makes, the second may make something else of.
            let earlier = draft
                .rewrites
                .iter_mut()
                .filter(|earlier| earlier.to.eq_ignore_ascii_case(&sender));
            for earlier in earlier {
                earlier.to.clone_from(&to);
            }
            if draft
                .rewrites
                .iter()
                .any(|earlier| earlier.senders.contains(&sender))
            {
                continue;
            }
            match draft
                .rewrites
                .iter_mut()
                .find(|same| same.to == to && sender.contains('@') == same.senders[0].contains('@'))
            {
                Some(same) => same.senders.push(sender),
                None => draft.rewrites.push(RewriteDraft {
                    senders: vec![sender],
                    to,
                }),
            }
        }
    }
    // Two of one table that lie behind one another: addresses stay before domains.
    draft
        .rewrites
        .sort_by_key(|rewrite| rewrite.senders.iter().all(|sender| !sender.contains('@')));
    keep_those_who_may(draft);
    let not_admitted: Vec<String> = draft
        .rewrites
        .iter()
        .map(|rewrite| rewrite.to.clone())
        .filter(|to| {
            draft.allowed_senders.is_some()
                && restrictions::both(draft.allowed_senders.clone(), Some(vec![to.clone()]))
                    .is_none_or(|common| common.is_empty())
        })
        .collect();
    for to in not_admitted {
        draft.lacks(
            to,
            None,
            "the allowlist judges a sender as it is after rewriting, and does not hold this one: add it, and whoever says it may send",
        );
    }
    Ok(())
}

/// Whatever is set and has no counterpart.
fn left_out(main: &MainCf, draft: &mut ImportDraft) -> Result<(), NotUnderstood> {
    let names: Vec<String> = main.names().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let handling = left_out::handling(&name);
        if matches!(handling, Handling::Known | Handling::Silent) {
            continue;
        }
        let place = main.place(&name);
        // What is set to nothing leaves nothing out.
        let value = main.value(&name)?;
        if value.is_empty() || value.eq_ignore_ascii_case("no") {
            continue;
        }
        match handling {
            Handling::Known | Handling::Silent => {}
            Handling::LeftOut(why) => draft.leaves(name, place, why),
            Handling::Decides(why) => draft.lacks(name, place, why),
        }
    }
    Ok(())
}
