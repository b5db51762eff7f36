//! `[[connector]]`: the keys of every type, and which type it is.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use super::{
    capture,
    context::{Context, SectionNames},
    dkim::DkimKeys,
    graph,
    outbound::Outbound,
    smtp,
    token::Reach,
};
use crate::{
    config::{
        diagnostic::Span,
        table::Table,
        values::{self, Fault, fault, plain},
    },
    connector::{Kind, Settings, oauth::Grant},
    delivery::BounceSettings,
    mail::address::Address,
    route::{ConnectorName, Route, Router},
};

/// All connectors, with what routes ask of them.
#[derive(Debug)]
pub(super) struct Connectors {
    pub(super) names: SectionNames,
    /// Settings only where the section is right.
    all: Vec<(Span, Option<Settings>)>,
    /// The files that each names.
    files: BTreeMap<ConnectorName, Vec<PathBuf>>,
}

impl Connectors {
    pub(super) fn files(&self) -> BTreeMap<ConnectorName, Vec<PathBuf>> {
        self.files.clone()
    }

    pub(super) fn list(self) -> Vec<Settings> {
        self.all
            .into_iter()
            .filter_map(|(_, settings)| settings)
            .collect()
    }

    /// Whether one of them signs mail.
    pub(super) fn sign(&self) -> bool {
        let mut all = self.all.iter().filter_map(|(_, one)| one.as_ref());
        all.any(|settings| settings.kind.dkim().is_some())
    }

    /// The sections of those whose refresh token or certificate is renewed from time to time.
    pub(super) fn renewing(&self) -> impl Iterator<Item = &Span> {
        let renews = |settings: &Settings| {
            let oauth = settings.kind.oauth();
            oauth.is_some_and(|oauth| {
                matches!(oauth.grant, Grant::RefreshToken { .. }) || oauth.rotation.is_some()
            })
        };
        let all = self.all.iter();
        all.filter(move |(_, settings)| settings.as_ref().is_some_and(renews))
            .map(|(span, _)| span)
    }

    /// `max_recipients` of the connector.
    pub(super) fn max_recipients(&self, name: &str) -> Option<usize> {
        self.all
            .iter()
            .filter_map(|(_, settings)| settings.as_ref())
            .find(|settings| settings.name.as_str() == name)
            .map(|settings| settings.max_recipients)
    }

    fn named(&self, name: &ConnectorName) -> Option<&Settings> {
        let mut all = self.all.iter().filter_map(|(_, one)| one.as_ref());
        all.find(|settings| settings.name == *name)
    }

    /// Whether it is one of Microsoft Graph, which has no envelope.
    pub(super) fn is_graph(&self, name: &ConnectorName) -> bool {
        self.named(name)
            .is_some_and(|settings| matches!(settings.kind, Kind::Graph(_)))
    }

    /// Whether all that leaves by it is sent from its From.
    pub(super) fn sends_as_from(&self, name: &ConnectorName) -> bool {
        self.named(name)
            .is_some_and(|settings| settings.kind.sends_as_from())
    }

    /// The mailbox that all mail leaves from, where it has one.
    pub(super) fn mailbox(&self, name: &ConnectorName) -> Option<Address> {
        self.named(name)?.kind.mailbox()
    }

    /// Above this many octets the connector refuses a message, whatever happens.
    pub(super) fn max_size(&self, name: &str) -> Option<u64> {
        let settings = self
            .all
            .iter()
            .filter_map(|(_, settings)| settings.as_ref())
            .find(|settings| settings.name.as_str() == name)?;
        settings.kind.max_size()
    }

    /// Whom reports are from, where that may surprise: `from` is the place of `bounce.from`, if it is written down.
    pub(super) fn note_bounces(
        &self,
        context: Context<'_>,
        router: &Router,
        bounce: &BounceSettings,
        from: Option<&Span>,
    ) {
        if !bounce.to_sender && bounce.copy_to.is_empty() {
            return;
        }
        for (span, settings) in &self.all {
            let Some(settings) = settings else { continue };
            let mut routes = router
                .routes
                .iter()
                .filter(|route| route.connectors.contains(&settings.name));
            if let Some(from) = from {
                let other = settings.kind.mailbox().filter(|own| *own != bounce.from);
                if let Some(own) = other
                    && routes.next().is_some()
                {
                    context.note(from, needs_send_as(settings, &own, bounce));
                }
                continue;
            }
            if settings.kind.sends_as_from() && routes.any(|route| !self.have_a_mailbox(route)) {
                context.note(span, fault!(
                    "without `mailbox` here and without `from` in [bounce], bounces are sent from the mailbox {}", bounce.from;
                    "write [bounce] from = \"…\", a mailbox that exists in the tenant"));
            }
        }
    }

    /// Whether a connector of the route has a mailbox, which its reports are from.
    fn have_a_mailbox(&self, route: &Route) -> bool {
        self.all
            .iter()
            .filter_map(|(_, settings)| settings.as_ref())
            .any(|settings| {
                route.connectors.contains(&settings.name) && settings.kind.mailbox().is_some()
            })
    }
}

fn needs_send_as(settings: &Settings, own: &Address, bounce: &BounceSettings) -> Fault {
    let (name, from) = (&settings.name, &bounce.from);
    fault!("connector \"{name}\" sends bounces from {from} through the mailbox {own}, which needs the Send As permission for it";
        "leave `from` out, so that bounces come from the mailbox, or grant Send As")
}

/// What the rest of the file says that connectors need.
pub(super) struct Surroundings<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) hostname: &'a str,
    pub(super) own_addresses: &'a [SocketAddr],
    pub(super) dkim: &'a DkimKeys,
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>, rest: &Surroundings<'_>) -> Connectors {
    let mut connectors = Connectors {
        names: SectionNames::new("connector"),
        all: Vec::new(),
        files: BTreeMap::new(),
    };
    if !root.has("connector") {
        context.whole(fault!("there is no [[connector]], so no mail could leave";
            "add\n[[connector]]\nname = \"smarthost\"\ntype = \"smtp\"\nhost = \"smtp.corp.example\""));
    }
    for table in root.tables("connector") {
        let name = connectors.names.read(context, &table);
        let before = context.files.borrow().len();
        let settings = one(context, &table, rest, &name);
        let files = context.files.borrow().get(before..).map(<[_]>::to_vec);
        connectors.files.insert(
            ConnectorName::from(name.as_str()),
            files.unwrap_or_default(),
        );
        connectors.all.push((table.span.clone(), settings));
        table.finish();
    }
    connectors
}

fn one(
    context: Context<'_>,
    table: &Table<'_>,
    rest: &Surroundings<'_>,
    name: &str,
) -> Option<Settings> {
    table.requires("type", "type = \"smtp\"");
    let word = table.parsed("type", kind_of)?.value;
    table.set_kind(word);
    let proxy = rest.outbound.proxy_for(context, table);
    let reach = Reach {
        outbound: rest.outbound,
        proxy: &proxy,
    };
    let rest = smtp::SmtpContext {
        reach,
        hostname: rest.hostname,
        own_addresses: rest.own_addresses,
        dkim: rest.dkim,
    };
    let kind = match word {
        "smtp" => smtp::read(context, table, &rest).map(|smtp| Kind::Smtp(Box::new(smtp))),
        "graph" => graph::read(context, table, reach).map(|graph| Kind::Graph(Box::new(graph))),
        "capture" => capture::read(context, table).map(|directory| Kind::Capture { directory }),
        _ => Some(Kind::Discard),
    };
    // The only default that follows another key.
    let concurrent = match &kind {
        Some(Kind::Smtp(smtp)) => {
            let given = table.number_if("max_concurrent");
            // One under way on each connection, one whose commands are written behind it, and one for when that one's turn has come.
            given.map_or(smtp.max_connections * 3, |given| given as usize)
        }
        None if word == "smtp" => table.number_if("max_concurrent").unwrap_or(1) as usize,
        _ => table.number("max_concurrent") as usize,
    };
    let settings = Settings {
        name: ConnectorName::from(name),
        max_concurrent: concurrent,
        is_concurrency_given: table.has("max_concurrent"),
        rate: table.parsed_or_default("rate", values::rate),
        timeout: table.duration("timeout"),
        probe: table.duration("probe"),
        max_recipients: table.number("max_recipients") as usize,
        kind: kind?,
    };
    if let Some(quota) = settings.kind.mailbox_quota() {
        graph::doubt(table, &settings, quota);
    }
    Some(settings)
}

/// The one place where a type becomes known.
fn kind_of(text: &str) -> Result<&'static str, Fault> {
    let kinds = ["smtp", "graph", "capture", "discard"];
    kinds.into_iter().find(|kind| *kind == text).ok_or_else(|| {
        fault!("there is no connector type \"{}\"", plain(text);
            "the types are \"smtp\", \"graph\", \"capture\" and \"discard\"")
    })
}
