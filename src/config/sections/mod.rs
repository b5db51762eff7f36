//! Each section to its module's settings, in the order of the file's own logic: what is named before what names it.
//!
//! `table` knows TOML and no meaning, the modules know their settings and no TOML.

use std::{cell::RefCell, path::Path};

use toml::{Spanned, de::DeTable};

use super::{
    settings::{Config, Environment, Secrets},
    source::Source,
    table::Table,
};

mod admin;
mod allowlist;
mod azure;
mod bounce;
mod capture;
mod client;
mod cloud;
mod connector;
mod context;
mod files;
mod google;
mod graph;
mod limits;
mod listener;
mod microsoft;
mod notify;
mod oauth;
mod outbound;
mod queue;
mod relay;
mod rewrite;
mod route;
mod secret;
mod smtp;
mod token;
mod top;
mod user;

use context::Context;

/// Everything. `None` only when there is an error.
pub(super) fn read<'a>(
    source: &'a Source<'a>,
    root: &'a Spanned<DeTable<'a>>,
    base: &'a Path,
    secrets: Secrets,
    env: &'a Environment,
) -> Option<Config> {
    let files = RefCell::new(Vec::new());
    let context = Context {
        files: &files,
        source,
        base,
        secrets,
        env,
    };
    let root = Table::root(source, root);
    let top = top::read(context, &root);
    let log = top::log(&root);
    let limits = limits::read(&root);
    let queue = queue::read(context, &root, &top.data_dir);
    let bounce = bounce::read(&root, &top.hostname);
    let outbound = outbound::read(context, &root);

    let listeners = listener::read(context, &root);
    let clients = client::read(context, &root);
    let users = user::read(context, &root);
    let allowlist = allowlist::read(context, &root);
    let rewrites = rewrite::read(context, &root);
    let own_addresses = listeners.addresses();
    let connectors = connector::read(context, &root, &outbound, &top.hostname, &own_addresses);
    let router = route::read(
        context,
        &root,
        &route::RouteContext {
            listeners: &listeners.names,
            clients: &clients.names,
            users: &users.names,
            connectors: &connectors,
            patience: &queue.patience,
        },
    );
    if let Some(bounce) = &bounce {
        let table = root.table("bounce");
        connectors.note_bounces(context, &router, bounce, table.place("from").as_ref());
        if bounce.to_sender
            && let Some(allowlist) = &allowlist
        {
            let place = root.table("allowlist").place("senders");
            allowlist::note_strangers(context, allowlist, place.as_ref());
        }
    }
    let incidents = notify::read(context, &root, &outbound, &connectors, clients.expected());
    let window = admin::read(context, &root, &top.hostname);
    relay::check(context, &listeners, &clients, &users, allowlist.as_ref());

    root.finish();

    let policy = crate::policy::Policy {
        clients: clients.list(),
        users: users.list(),
        allowlist: allowlist?,
        rewrites,
        received_headers: limits.received_headers,
        default_domain: top.default_domain.clone(),
    };
    let bounce = bounce?;
    let bounce_from = bounce.from.clone();
    Some(Config {
        path: source.path().to_owned(),
        hostname: top.hostname,
        data_dir: top.data_dir,
        default_domain: top.default_domain,
        log,
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
        window,
        incidents,
        files: files.into_inner(),
        text: crate::secret::Secret::new(source.text()),
    })
}
