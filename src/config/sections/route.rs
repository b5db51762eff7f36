//! `[[route]]`: names that exist, and routes that can be reached.

use super::{
    connector::Connectors,
    context::{Context, SectionNames},
    queue::{self, Patience},
};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table, bare},
        values::fault,
    },
    mail::{pattern::Pattern, unicode},
    route::{ConnectorName, Route, RouteName, Router},
};

/// What routes may name, and what they inherit.
pub(super) struct RouteContext<'a> {
    pub(super) listeners: &'a SectionNames,
    pub(super) clients: &'a SectionNames,
    pub(super) users: &'a SectionNames,
    pub(super) connectors: &'a Connectors,
    pub(super) patience: &'a Patience,
}

/// `others`: the connectors that are named elsewhere.
pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    known: &RouteContext<'_>,
    others: &[Route],
) -> Router {
    if !root.has("route") {
        context.whole(
            fault!("there is no [[route]], so every recipient would be refused";
                "add\n[[route]]\nname = \"default\"\nconnectors = [\"smarthost\"]"),
        );
    }
    let mut names = SectionNames::new("route");
    let mut routes: Vec<(Route, Span)> = Vec::new();
    let others = others.iter().flat_map(|route| &route.connectors);
    let mut used: Vec<String> = others.map(ToString::to_string).collect();
    for table in root.tables("route") {
        let route = one(context, &mut names, &table, known, &mut used);
        if let Some((first, span)) = routes.iter().find(|(first, _)| covers(first, &route)) {
            context.error(&table.span, fault!(
                "this route is never reached: \"{}\" in line {} takes {}", first.name, context.source.line(span), if is_catch_all(first) { "everything" } else { "all that it would take" };
                "the first route that matches wins: put the narrower one first"));
        }
        routes.push((route, table.span.clone()));
        table.finish();
    }
    // A misspelt name is one mistake, not two.
    let dangling = routes.iter().any(|(route, _)| route.connectors.is_empty());
    for (name, span) in &known.connectors.names.known {
        if !routes.is_empty() && !dangling && !used.contains(name) {
            context.warning(span, fault!("no route leads to the connector \"{name}\""));
        }
    }
    Router {
        routes: routes.into_iter().map(|(route, _)| route).collect(),
        archives: Vec::new(),
    }
}

fn one(
    context: Context<'_>,
    names: &mut SectionNames,
    table: &Table<'_>,
    known: &RouteContext<'_>,
    used: &mut Vec<String>,
) -> Route {
    let name = names.read(context, table);
    let patterns = |key: &'static str| {
        // A list that could not be read is no absent key.
        let list = table
            .patterns(key)
            .or_else(|| table.has(key).then(Vec::new))?;
        if table.is_empty_list(key) {
            table.error(
                key,
                fault!("a route with no {key} takes nothing";
                    "leave `{key}` out: an absent key matches anything"),
            );
        }
        Some(list)
    };
    let named = |key: &'static str, names: &SectionNames| {
        let list = bare(table.list(key, |text| names.lookup(text))?.value);
        (!list.is_empty()).then_some(list)
    };
    let (senders, recipients) = (patterns("senders"), patterns("recipients"));
    let way = way(
        context,
        table,
        known,
        RouteName::from(name.as_str()),
        "a route",
    );
    used.extend(way.connectors.iter().map(ToString::to_string));
    let Patience { retry, give_up } = queue::patience(context, table, Some(known.patience));
    Route {
        senders,
        recipients,
        clients: named("clients", known.clients),
        users: named("users", known.users),
        listeners: named("listeners", known.listeners),
        retry,
        give_up,
        ..way
    }
}

/// The connectors of a route, or of another section of that `kind`, with what they take; for anybody's mail, as patient as `[queue]`.
pub(super) fn way(
    context: Context<'_>,
    table: &Table<'_>,
    known: &RouteContext<'_>,
    name: RouteName,
    kind: &str,
) -> Route {
    table.requires("connectors", "connectors = [\"smarthost\"]");
    let mut connectors: Vec<String> = Vec::new();
    if let Some(At { value, span }) =
        table.list("connectors", |text| known.connectors.names.lookup(text))
    {
        if table.is_empty_list("connectors") {
            context.error(&span, fault!("{kind} without connectors leads nowhere"));
        }
        for At { value, span } in value {
            if connectors.contains(&value) {
                context.error(&span, fault!("the connector \"{value}\" is named twice"));
                continue;
            }
            connectors.push(value);
        }
    }
    Route {
        // Any connector that takes it, takes it.
        max_size: connectors
            .iter()
            .map(|name| known.connectors.max_size(name))
            .collect::<Option<Vec<_>>>()
            .and_then(|sizes| sizes.into_iter().max()),
        max_recipients: connectors
            .iter()
            .filter_map(|name| known.connectors.max_recipients(name))
            .min()
            .unwrap_or(100),
        connectors: connectors
            .iter()
            .map(|name| ConnectorName::from(name.as_str()))
            .collect(),
        retry: known.patience.retry.clone(),
        give_up: known.patience.give_up,
        ..Route::nowhere(name)
    }
}

fn is_catch_all(route: &Route) -> bool {
    route.senders.is_none()
        && takes_any_recipient(route)
        && route.clients.is_none()
        && route.users.is_none()
        && route.listeners.is_none()
}

/// A recipient is never `<>`, so that `*` is everybody.
fn takes_any_recipient(route: &Route) -> bool {
    route
        .recipients
        .as_ref()
        .is_none_or(|list| list.iter().any(Pattern::is_anything))
}

/// Whether the first takes everything the second would, as far as that is easily seen.
pub(super) fn covers(first: &Route, second: &Route) -> bool {
    fn patterns(first: Option<&Vec<Pattern>>, second: Option<&Vec<Pattern>>) -> bool {
        let Some(first) = first else { return true };
        let anybody =
            || first.iter().any(Pattern::is_anything) && first.iter().any(Pattern::is_null);
        second.map_or_else(anybody, |second| {
            !second.is_empty()
                && second
                    .iter()
                    .all(|narrow| first.iter().any(|wide| includes(wide, narrow)))
        })
    }
    fn names(first: Option<&Vec<String>>, second: Option<&Vec<String>>) -> bool {
        first.is_none_or(|first| {
            second.is_some_and(|second| second.iter().all(|name| first.contains(name)))
        })
    }
    patterns(first.senders.as_ref(), second.senders.as_ref())
        && (takes_any_recipient(first)
            || patterns(first.recipients.as_ref(), second.recipients.as_ref()))
        && names(first.clients.as_ref(), second.clients.as_ref())
        && names(first.users.as_ref(), second.users.as_ref())
        && names(first.listeners.as_ref(), second.listeners.as_ref())
}

/// Whether one pattern matches all that another does; false when in doubt.
fn includes(wide: &Pattern, narrow: &Pattern) -> bool {
    if wide.is_anything() {
        return !narrow.is_null();
    }
    let (wide, narrow) = (wide.to_string(), narrow.to_string());
    let (wide, narrow) = (&*unicode::lower(&wide), &*unicode::lower(&narrow));
    let domain = wide.strip_prefix("*@").unwrap_or(wide);
    wide == narrow
        || (!domain.contains('@') && narrow.rsplit('@').next() == Some(domain) && domain != "<>")
}
