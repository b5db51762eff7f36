//! `[[archive]]`: whose mail is copied, for whom the allowlist must admit, and by which connectors.

use std::sync::Arc;

use super::{
    context::{Context, SectionNames},
    redirect::must_be_admitted,
    route::{self, RouteContext},
    scope::{self, ScopeNames},
};
use crate::{
    config::{
        table::{At, Table},
        values::{self, fault},
    },
    delivery::BounceSettings,
    mail::{
        address::Address,
        pattern::{Pattern, find},
    },
    policy::{
        Allowlist,
        archive::{Archive, ArchiveForm},
        redirect::Redirect,
        scope::Scope,
    },
    route::{Route, RouteName},
};

/// What an archive must agree with.
pub(super) struct ArchiveContext<'a> {
    pub(super) allowlist: Option<&'a Allowlist>,
    pub(super) redirects: &'a [Redirect],
    pub(super) bounce: Option<&'a BounceSettings>,
}

/// All archives, and the ways of their copies.
#[derive(Default)]
pub(super) struct Archives {
    pub(super) list: Vec<Arc<Archive>>,
    pub(super) ways: Vec<Route>,
}

pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    known: ScopeNames<'_>,
    routes: &RouteContext<'_>,
    rest: &ArchiveContext<'_>,
) -> Archives {
    let mut names = SectionNames::new("archive");
    let mut archives = Archives::default();
    for table in root.tables("archive") {
        let name = names.read(context, &table);
        let scope = scope::read(context, &table, known, "an archive");
        table.requires("to", "to = \"archive@corp.example\"");
        let to = table.parsed("to", values::address);
        let form = table.choice("form", [ArchiveForm::Copy, ArchiveForm::Attached]);
        let way = RouteName::of_archive(&name);
        let way = route::way(context, &table, routes, way, "an archive");
        let from = look_at_graph(context, &table, routes, rest, &way, form);
        table.finish();
        if let Some(At { value: to, span }) = to {
            must_be_admitted(context, rest.allowlist, &to, &span);
            // The first that matches decides.
            let first = rest.redirects.iter().find(|one| is_for(one, &scope, &to));
            if let Some(redirect) = first.filter(|one| takes(one, &to)) {
                context.error(&span, fault!(
                    "the redirect \"{}\" would take <{to}>, and all mail that this archive copies", redirect.name;
                    "add \"{to}\" to the `except` of that redirect"));
            }
            let hostname = rest.bounce.map(|bounce| bounce.hostname.clone());
            archives.list.push(Arc::new(Archive {
                name: name.as_str().into(),
                scope,
                form,
                // Without it there is an error already.
                by: (
                    from.unwrap_or_else(|| to.clone()),
                    hostname.unwrap_or_default(),
                ),
                to,
            }));
        }
        archives.ways.push(way);
    }
    archives
}

/// What Microsoft Graph asks of the copies; the From of a message that one is attached to.
fn look_at_graph(
    context: Context<'_>,
    table: &Table<'_>,
    routes: &RouteContext<'_>,
    rest: &ArchiveContext<'_>,
    way: &Route,
    form: ArchiveForm,
) -> Option<Address> {
    let connectors = routes.connectors;
    let mut graph = way
        .connectors
        .iter()
        .filter(|name| connectors.is_graph(name));
    if form == ArchiveForm::Copy
        && let Some(name) = graph.next()
    {
        table.error("connectors", fault!(
            "the connector \"{name}\" is one of Microsoft Graph, by which a copy would lose To and Cc";
            "write form = \"attached\": the whole message is then attached, with its envelope"));
    }
    let bounce = rest.bounce?;
    let mailbox = way
        .connectors
        .iter()
        .find_map(|name| connectors.mailbox(name));
    if let (false, Some(mailbox)) = (bounce.is_from_given, &mailbox) {
        return Some(mailbox.clone());
    }
    let mut ways = way.connectors.iter();
    if !bounce.is_from_given && ways.any(|name| connectors.sends_as_from(name)) {
        context.note(&table.place_or_header("connectors"), fault!(
            "without `mailbox` at the connector and without `from` in [bounce], the copies are sent from the mailbox {}", bounce.from;
            "write [bounce] from = \"…\", a mailbox that exists in the tenant"));
    }
    Some(bounce.from.clone())
}

/// Whether a redirect would take mail for whoever gets the copies, to somebody else.
fn takes(redirect: &Redirect, to: &Address) -> bool {
    find(&redirect.except, Some(to)).is_none() && redirect.to.iter().any(|other| other != to)
}

/// Whether a redirect is for all mail that an archive copies, and for whoever gets the copies.
fn is_for(redirect: &Redirect, archive: &Scope, to: &Address) -> bool {
    let whose = |scope: &Scope| Route {
        senders: scope
            .senders
            .clone()
            .filter(|list| !list.iter().any(Pattern::is_anything)),
        clients: scope.clients.clone(),
        users: scope.users.clone(),
        listeners: scope.listeners.clone(),
        ..Route::nowhere(RouteName::from(""))
    };
    route::covers(&whose(&redirect.scope), &whose(archive)) && redirect.scope.takes_recipient(to)
}
