//! Each section to its module's settings, in the order of the file's own logic: what is named before what names it.
//!
//! Apart from `table`, which knows TOML and no meaning, and from the modules, which know their settings and no TOML.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeTable};

use super::{
    Config, Environment, Secrets,
    diagnostic::{Severity, Span},
    source::{Source, nearest},
    table::{At, Table},
    values::{Fault, plain},
};
use crate::{mail::pattern::Pattern, policy::Allowlist};

mod azure;
mod client;
mod cloud;
mod connector;
mod files;
mod general;
mod google;
mod graph;
mod listener;
mod oauth;
mod outbound;
mod relay;
mod route;
mod secret;
mod smtp;

/// What every section needs beside its table.
#[derive(Debug, Clone, Copy)]
struct Ground<'a> {
    source: &'a Source<'a>,
    /// Relative paths are relative to this.
    base: &'a Path,
    secrets: Secrets,
    env: &'a Environment,
    /// Files that were named: what is in them belongs to the configuration.
    files: &'a RefCell<Vec<PathBuf>>,
}

impl Ground<'_> {
    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }
}

/// The names of one kind of section, each once.
#[derive(Debug)]
struct Names {
    kind: &'static str,
    known: Vec<(String, Span)>,
}

impl Names {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            known: Vec::new(),
        }
    }

    /// Reads `name` of a section; a section without a usable one gets a placeholder, so that the rest is still read.
    fn read(&mut self, ground: Ground<'_>, table: &Table<'_>) -> String {
        let check = if self.kind == "user" {
            login_name
        } else {
            section_name
        };
        table.requires("name", "name = \"…\"");
        let Some(At { value, span }) = table.parsed("name", "a string", check) else {
            return String::new();
        };
        if let Some((_, first)) = self
            .known
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&value))
        {
            ground.source.error(
                &span,
                Fault::from(format!(
                    "the {} \"{}\" is already defined in line {}",
                    self.kind,
                    plain(&value),
                    ground.source.line(first)
                )),
            );
        }
        self.known.push((value.clone(), span));
        value
    }

    /// Whether there is a section of this name; the sentence for the administrator when there is not.
    fn lookup(&self, name: &str) -> Result<String, Fault> {
        // Without any section of the kind that is the mistake to mend, and it is said already.
        let said = self.kind == "connector" && self.known.is_empty();
        if said || self.known.iter().any(|(known, _)| known == name) {
            return Ok(name.to_owned());
        }
        let names: Vec<_> = self
            .known
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        Err(Fault {
            message: format!("there is no [[{}]] named \"{}\"", self.kind, plain(name)),
            hint: nearest(name, names.iter().copied())
                .map(|name| format!("did you mean \"{name}\"?"))
                .or_else(|| {
                    (!names.is_empty() && names.len() <= 10)
                        .then(|| format!("there are \"{}\"", names.join("\", \"")))
                }),
        })
    }
}

fn section_name(text: &str) -> Result<String, Fault> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fine) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("\"{}\" cannot be a name", plain(text)),
        "a name is 1 to 64 of the characters a-z A-Z 0-9 . _ -",
    ))
}

/// What a client may give in AUTH.
fn login_name(text: &str) -> Result<String, Fault> {
    if !text.is_empty() && text.len() <= 255 && text.chars().all(super::values::is_plain) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        "this cannot be a user name",
        "it is 1 to 255 octets without control characters",
    ))
}

/// Everything. `None` only when there is an error.
pub(super) fn read<'a>(
    source: &'a Source<'a>,
    root: &'a Spanned<DeTable<'a>>,
    base: &'a Path,
    secrets: Secrets,
    env: &'a Environment,
) -> Option<Config> {
    let files = RefCell::new(Vec::new());
    let ground = Ground {
        files: &files,
        source,
        base,
        secrets,
        env,
    };
    let root = Table::root(source, root);
    let general = general::read(ground, &root);
    let limits = general::limits(&root);
    let queue = general::queue(ground, &root, &general.data_dir);
    let bounce = general::bounce(&root, &general.hostname);
    let outbound = outbound::read(ground, &root);

    let listeners = listener::read(ground, &root);
    let clients = client::clients(ground, &root);
    let users = client::users(ground, &root);
    let allowlist = client::allowlist(ground, &root);
    let rewrites = client::rewrites(ground, &root);
    let own_addresses = listeners.addresses();
    let connectors = connector::read(ground, &root, &outbound, &general.hostname, &own_addresses);
    let router = route::read(
        ground,
        &root,
        &route::Known {
            listeners: &listeners.names,
            clients: &clients.names,
            users: &users.names,
            connectors: &connectors,
            queue: &queue,
        },
    );
    if let Some(bounce) = &bounce {
        let table = root.table("bounce", "bounce");
        connectors.note_bounces(ground, &router, bounce, table.place("from").as_ref());
        if bounce.to_sender
            && let Some(allowlist) = &allowlist
        {
            let place = root.table("allowlist", "allowlist").place("senders");
            note_strangers(ground, allowlist, place.as_ref());
        }
    }
    relay::check(ground, &listeners, &clients, &users, allowlist.as_ref());

    for later in ["admin", "alert"] {
        refuse_later(ground, &root, later);
    }
    root.finish();

    let policy = crate::policy::Policy {
        clients: clients.list(),
        users: users.list(),
        allowlist: allowlist?,
        rewrites,
        received_headers: limits.received_headers,
        default_domain: general.default_domain.clone(),
    };
    let bounce = bounce?;
    let bounce_from = bounce.from.clone();
    Some(Config {
        path: source.path().to_owned(),
        hostname: general.hostname,
        data_dir: general.data_dir,
        default_domain: general.default_domain,
        log: general.log,
        limits: limits.listener,
        message_size: limits.message_size,
        recipients: limits.recipients,
        session_errors: limits.session_errors,
        listeners: listeners.list(),
        policy,
        router,
        connector_files: connectors.files(),
        connectors: connectors.list(),
        queue: queue.settings,
        delivery: crate::delivery::Settings {
            in_doubt_wait: queue.in_doubt_wait,
            bounce,
        },
        bounce_from,
        files: files.into_inner(),
        text: crate::secret::Secret::new(source.text()),
    })
}

/// Where anybody may send, but not to anybody: not every sender gets its bounces.
fn note_strangers(ground: Ground<'_>, allowlist: &Allowlist, place: Option<&Span>) {
    let is_open = |list: &[Pattern]| list.iter().any(Pattern::is_of_any_domain);
    if let Some(place) = place
        && is_open(&allowlist.senders)
        && !allowlist.recipients.iter().any(Pattern::is_anything)
    {
        ground.source.note(
            place,
            Fault::new(
                "with `*` as the domain anybody may be the sender: a bounce goes to a sender only where `recipients` admits it, to the others of `copy_to` always",
                "name the domains of your senders, or write [bounce] copy_to = [\"…\"]",
            ),
        );
    }
}

/// A section that has a place in the design but not in this version.
fn refuse_later(ground: Ground<'_>, root: &Table<'_>, section: &'static str) {
    if let Some(span) = root.place(section) {
        root.skip(section);
        ground.source.error(
            &span,
            Fault::new(
                format!("[{section}] comes with a later version"),
                "remove the section for now",
            ),
        );
    }
}

const YEAR: &str = "365d";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A file-wide error.
fn whole(ground: Ground<'_>, fault: Fault) {
    ground.source.whole(Severity::Error, fault);
}
