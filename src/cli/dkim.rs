//! `postern dkim`: makes a key that signs mail, and prints the records that publish those of the configuration.
//!
//! It changes neither the configuration nor the DNS: what is to stand there it prints.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::json;

use super::{
    cert,
    exit::{CommandError, Ended, Exit},
    output, place, prepare,
};
use crate::{
    config::{Config, Secrets, values},
    connector::dkim::{self, DkimKey, DkimPair, record_name, zone_line},
    mail::{
        address::{Address, Domain},
        text::shown,
        time,
    },
    queue::store::{Event, Filter},
    route::RouteName,
};

/// Messages of the last day that are looked at.
const LOOKED_AT: usize = 10_000;
/// Of those whose envelope sender has no key, so many are asked for their From, or whether they were signed.
const LOOKED_INTO: usize = 1_000;
const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: DkimCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DkimCommand {
    /// Make a key: writes SELECTOR.key, and prints what to put into the configuration and into the DNS
    New {
        /// The domain of From whose mail it is to sign, or one above it
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// The name that it is published under; a new key has a new one
        #[arg(long, value_name = "NAME")]
        selector: String,
        /// Ed25519, beside an RSA key: not every receiver knows it
        #[arg(long)]
        ed25519: bool,
        /// Where the file goes
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        dir: PathBuf,
    },
    /// Print the record of every configured key
    Show {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(path: Option<PathBuf>, arguments: Arguments) -> Ended {
    match arguments.command {
        DkimCommand::New {
            domain,
            selector,
            ed25519,
            dir,
        } => new(&domain, &selector, ed25519, &dir),
        DkimCommand::Show { json } => show(path, json),
    }
}

fn new(domain: &str, selector: &str, is_ed25519: bool, dir: &Path) -> Ended {
    let usage = |text: String| CommandError::new(Exit::Usage, text);
    let domain = values::domain(domain)
        .ok()
        .filter(|domain| !domain.is_literal())
        .ok_or_else(|| usage(format!("{}: not a domain", shown(domain))))?;
    let selector = values::selector(selector).map_err(|fault| {
        let hint = fault.hint.unwrap_or_default();
        usage(format!("--selector: {}; {hint}", fault.message))
    })?;
    let name = record_name(&domain, &selector);
    if name.len() > values::LONGEST_NAME {
        return Err(usage(format!(
            "{name} cannot be published: a name has at most {} octets",
            values::LONGEST_NAME
        )));
    }
    let file = dir.join(format!("{selector}.key"));
    if file.symlink_metadata().is_ok() {
        return Err(CommandError::new(
            Exit::CannotCreate,
            format_args!(
                "{} exists, and a key is never overwritten: a new key has a new selector",
                file.display()
            ),
        ));
    }
    let made = DkimPair::generate(is_ed25519).and_then(|(pair, text)| Some((pair.record()?, text)));
    let (record, text) =
        made.ok_or_else(|| CommandError::new(Exit::Software, "no key could be made"))?;
    std::fs::create_dir_all(dir).map_err(|error| cert::cannot(dir, &error))?;
    cert::write(&file, text.reveal(), 0o600, false)?;
    let file = std::path::absolute(&file).unwrap_or(file);
    output::line(format_args!(
        "made  {}  the private key: readable by you alone. Where the gateway runs as a user of its own, let it read the\n\
         \x20     file: chgrp postern FILE && chmod 640 FILE\n\n\
         In the DNS, before anything is signed with it:\n\n{}\n\n\
         In the configuration, with dkim = true in the [[connector]]:\n\n\
         [[dkim]]\n\
         domain = \"{domain}\"\n\
         selector = \"{selector}\"\n\
         key = {{ file = {} }}\n",
        file.display(),
        zone_line(&name, &record),
        toml::Value::from(file.display().to_string()),
    ))?;
    Ok(Exit::Ok)
}

/// The record, where the key is known here: one that systemd hands over to the unit is not.
fn record(key: &DkimKey) -> Option<(&'static str, String)> {
    let pair = DkimPair::read(key.key.as_ref()?).ok()?;
    Some((pair.algorithm(), pair.record()?))
}

fn show(path: Option<PathBuf>, json: bool) -> Ended {
    let config = prepare::settings(path, Secrets::CheckOnly)?;
    let now = output::now();
    if json {
        let keys: Vec<_> = config.dkim.iter().map(|key| view(key, now)).collect();
        output::json(&json!({ "keys": keys }))?;
        return Ok(Exit::Ok);
    }
    if config.dkim.is_empty() {
        output::line(
            "there is no [[dkim]]; `postern dkim new DOMAIN --selector NAME` makes a key",
        )?;
    }
    for key in &config.dkim {
        let name = key.record_name();
        let record = record(key);
        let kind = record.as_ref().map_or("unknown", |(kind, _)| *kind);
        output::line(format_args!(
            "; {} {kind}, {}",
            key.domain,
            standing(key, now)
        ))?;
        match record {
            Some((_, record)) => output::line(zone_line(&name, &record))?,
            None => output::line(format_args!(
                "; {name}: the key is a credential of the unit and cannot be read here"
            ))?,
        }
    }
    Ok(Exit::Ok)
}

fn view(key: &DkimKey, now: SystemTime) -> serde_json::Value {
    let record = record(key);
    json!({
        "domain": key.domain.as_str(),
        "selector": key.selector,
        "algorithm": record.as_ref().map(|(kind, _)| kind),
        "name": key.record_name(),
        "record": record.as_ref().map(|(_, record)| record),
        "active_from": key.from.map(time::day),
        "active_until": key.until.and_then(last_day),
        "signs": key.signs_at(now),
    })
}

/// The day before, which the file names.
fn last_day(until: SystemTime) -> Option<String> {
    until.checked_sub(DAY).map(time::day)
}

fn standing(key: &DkimKey, now: SystemTime) -> String {
    let until = key.until.and_then(last_day);
    match (key.from.filter(|from| *from > now), until) {
        (Some(from), _) => format!("signs from {} on", time::day(from)),
        (None, Some(day)) if !key.signs_at(now) => format!("signed until {day}"),
        (None, Some(day)) => format!("signs until {day}"),
        (None, None) => "signs".to_owned(),
    }
}

/// The domains of senders whose mail of the last day left by a connector that signs, and that no key signs today, with how many messages there were.
/// From decides, but it is gone with what was delivered: there the envelope sender stands for it, unless the message was signed.
pub(super) fn unsigned(config: &Config) -> Result<BTreeMap<Domain, u64>, CommandError> {
    let mut found: BTreeMap<Domain, u64> = BTreeMap::new();
    let that_sign: Vec<_> = config
        .connectors
        .iter()
        .filter(|one| one.kind.dkim().is_some())
        .collect();
    if that_sign.is_empty() {
        return Ok(found);
    }
    let signs = |route: &RouteName| {
        let mut names = config
            .router
            .named(route)
            .into_iter()
            .flat_map(|route| &route.connectors);
        names.any(|name| that_sign.iter().any(|one| one.name == *name))
    };
    let Some(store) = place::store_of(config)? else {
        return Ok(found);
    };
    let now = output::now();
    let filter = Filter {
        since: now.checked_sub(DAY),
        limit: Some(LOOKED_AT),
        ..Filter::default()
    };
    let has_key = |domain: &Domain| !dkim::signing(&config.dkim, domain, now).is_empty();
    prepare::block_on(async {
        let mut looked_into = 0;
        for entry in store.list(&filter, now).await? {
            let Some(Ok(sender)) = entry.sender.as_deref().map(Address::parse) else {
                continue;
            };
            let mut domain = sender.domain().clone();
            if !signs(&entry.route) || has_key(&domain) {
                continue;
            }
            if looked_into < LOOKED_INTO {
                looked_into += 1;
                match store.content(entry.id).await? {
                    Some(message) => {
                        domain = dkim::domain_of_from(&message.header).unwrap_or(domain);
                    }
                    None if was_signed(&store.events(entry.id).await?) => continue,
                    None => {}
                }
                if has_key(&domain) {
                    continue;
                }
            }
            *found.entry(domain).or_default() += 1;
        }
        Ok(found)
    })
}

/// Whether an upstream got it with a signature of ours.
fn was_signed(life: &[Event]) -> bool {
    life.iter().any(|event| event.text.contains(" (DKIM "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_does_today() {
        let at = |day: u64| SystemTime::UNIX_EPOCH + DAY * u32::try_from(day).unwrap();
        let key = |from: Option<u64>, until: Option<u64>| DkimKey {
            domain: Domain::parse("corp.example").unwrap(),
            selector: "p".to_owned(),
            key: None,
            from: from.map(at),
            until: until.map(at),
        };
        for (key, expected) in [
            (key(None, None), "signs"),
            (key(Some(10), None), "signs"),
            (key(Some(11), None), "signs from 1970-01-12 on"),
            // The last day is a whole one.
            (key(None, Some(11)), "signs until 1970-01-11"),
            (key(None, Some(10)), "signed until 1970-01-10"),
        ] {
            assert_eq!(standing(&key, at(10)), expected);
        }
    }
}
