//! Each section to its module's settings, in the order of the file's own logic: what is named before what names it.
//!
//! `table` knows TOML and no meaning, the modules know their settings and no TOML.

use std::{cell::RefCell, path::Path, sync::Arc};

use toml::{Spanned, de::DeTable};

use super::{
    cluster::{FormerStore, StoreSettings},
    diagnostic::Span,
    settings::{Config, Environment, Secrets},
    source::Source,
    table::Table,
    values::fault,
};

mod admin;
mod allowlist;
mod archive;
mod azure;
mod bounce;
mod capture;
mod client;
mod client_ca;
mod client_owner;
mod cloud;
mod cluster;
mod connector;
mod context;
mod dkim;
mod files;
mod google;
mod graph;
mod header;
mod limits;
mod listener;
mod microsoft;
mod notify;
mod oauth;
mod old_tls;
mod outbound;
mod postgres;
mod queue;
mod quota;
mod redirect;
mod relay;
mod rewrite;
mod route;
mod scope;
mod secret;
mod smtp;
mod smtp_tls;
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
    let names = scope::ScopeNames {
        listeners: &listeners.names,
        clients: &clients.names,
        users: &users.names,
    };
    let rules = rules(context, &root, names, allowlist.as_ref());
    let dkim = dkim::read(context, &root);
    let surroundings = connector::Surroundings {
        outbound: &outbound,
        hostname: &top.hostname,
        own_addresses: &listeners.addresses(),
        dkim: &dkim,
    };
    let connectors = connector::read(context, &root, &surroundings);
    dkim.check_use(context, connectors.sign());
    let store = store(context, &root, queue.is_shared.as_ref(), &connectors);
    let (router, archives) = ways(
        context,
        &root,
        names,
        (&connectors, &queue.patience),
        (&rules.redirects, allowlist.as_ref(), bounce.as_ref()),
    );
    look_at_bounces(
        context,
        &root,
        bounce.as_ref(),
        &connectors,
        &router,
        allowlist.as_ref(),
    );
    let incidents = notify::read(context, &root, &outbound, &connectors, clients.expected());
    let window = admin::read(context, &root, &top.hostname);
    relay::check(context, &listeners, &clients, &users, allowlist.as_ref());
    old_tls::check(context, &listeners, &clients, &users);

    root.finish();

    let policy = crate::policy::Policy {
        clients: clients.list(),
        users: users.list(),
        allowlist: allowlist?,
        archives,
        received_headers: limits.received_headers,
        default_domain: top.default_domain.clone(),
        ..rules
    };
    let (store, former) = store?;
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
        store,
        former,
        delivery: crate::delivery::Settings {
            in_doubt_wait: queue.in_doubt_wait,
            bounce,
        },
        bounce_from,
        dkim: dkim.list(),
        window,
        incidents,
        files: files.into_inner(),
        text: crate::secret::Secret::new(source.text()),
    })
}

/// What changes mail, or counts it: without who may send, and to whom.
fn rules(
    context: Context<'_>,
    root: &Table<'_>,
    names: scope::ScopeNames<'_>,
    allowlist: Option<&crate::policy::Allowlist>,
) -> crate::policy::Policy {
    crate::policy::Policy {
        rewrites: rewrite::read(context, root),
        redirects: redirect::read(context, root, names, allowlist),
        header_rules: header::read(context, root, names),
        quotas: quota::read(context, root, names),
        ..crate::policy::Policy::default()
    }
}

/// The routes with the ways of copies, and the archives that these are for.
fn ways(
    context: Context<'_>,
    root: &Table<'_>,
    names: scope::ScopeNames<'_>,
    (connectors, patience): (&connector::Connectors, &queue::Patience),
    (redirects, allowlist, bounce): (
        &[crate::policy::redirect::Redirect],
        Option<&crate::policy::Allowlist>,
        Option<&crate::delivery::BounceSettings>,
    ),
) -> (
    crate::route::Router,
    Vec<Arc<crate::policy::archive::Archive>>,
) {
    let known = route::RouteContext {
        listeners: names.listeners,
        clients: names.clients,
        users: names.users,
        connectors,
        patience,
    };
    let rest = archive::ArchiveContext {
        allowlist,
        redirects,
        bounce,
    };
    let archives = archive::read(context, root, names, &known, &rest);
    let mut router = route::read(context, root, &known, &archives.ways);
    router.archives = archives.ways;
    (router, archives.list)
}

/// Whether reports can leave, and whom they would reach.
fn look_at_bounces(
    context: Context<'_>,
    root: &Table<'_>,
    bounce: Option<&crate::delivery::BounceSettings>,
    connectors: &connector::Connectors,
    router: &crate::route::Router,
    allowlist: Option<&crate::policy::Allowlist>,
) {
    let Some(bounce) = bounce else {
        return;
    };
    let table = root.table("bounce");
    connectors.note_bounces(context, router, bounce, table.place("from").as_ref());
    if bounce.to_sender
        && let Some(allowlist) = allowlist
    {
        let place = root.table("allowlist").place("senders");
        allowlist::note_strangers(context, allowlist, place.as_ref());
    }
}

/// Where mail is kept. Both sections are read in any case, so that what is wrong in them is said before they are needed.
fn store(
    context: Context<'_>,
    root: &Table<'_>,
    is_shared: Option<&Span>,
    connectors: &connector::Connectors,
) -> Option<(StoreSettings, Option<FormerStore>)> {
    let postgres = postgres::read(context, root);
    let cluster = cluster::read(context, root);
    let Some(span) = is_shared else {
        for section in ["postgres", "cluster"] {
            if let Some(place) = root.place(section) {
                context.warning(
                    &place,
                    fault!("[{section}] has no effect with store = \"sqlite\"";
                        "remove the section when nothing is left in that database (`postern queue move --from-postgres` brings it), or write store = \"postgres\" in [queue]"),
                );
            }
        }
        let former = root.has("postgres").then_some(postgres.zip(cluster));
        let former = former.flatten().map(|(postgres, cluster)| FormerStore {
            postgres: Box::new(postgres),
            cluster,
        });
        return Some((StoreSettings::Sqlite, former));
    };
    if !root.has("postgres") {
        context.error(
            span,
            fault!("[postgres] is missing, which says where the database is";
                "add\n[postgres]\nhosts = [\"db1.corp.example:5432\"]"),
        );
    }
    cluster::check(context, root, connectors);
    let store = StoreSettings::Postgres(Box::new(postgres?), cluster?);
    Some((store, None))
}
