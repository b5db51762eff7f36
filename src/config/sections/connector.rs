//! `[[connector]]`: the keys of every type, and which type it is.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{Ground, Names, files, graph, oauth::Way, outbound::Outbound, seconds, smtp, whole};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{self, Fault, plain},
    },
    connector::{Kind, Rate, Settings},
    delivery::BounceSettings,
    mail::address::Address,
    route::{ConnectorName, Route, Router},
};

/// All connectors, with what routes ask of them.
#[derive(Debug)]
pub(super) struct Connectors {
    pub(super) names: Names,
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

    /// `max_recipients` of the connector.
    pub(super) fn max_recipients(&self, name: &str) -> Option<usize> {
        self.all
            .iter()
            .filter_map(|(_, settings)| settings.as_ref())
            .find(|settings| settings.name.as_str() == name)
            .map(|settings| settings.max_recipients)
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
        ground: Ground<'_>,
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
                    ground
                        .source
                        .note(from, needs_send_as(settings, &own, bounce));
                }
                continue;
            }
            if settings.kind.sends_as_from() && routes.any(|route| !self.have_a_mailbox(route)) {
                ground.source.note(
                    span,
                    Fault::new(
                        format!(
                            "without `mailbox` here and without `from` in [bounce], bounces are sent from the mailbox {}",
                            bounce.from
                        ),
                        "write [bounce] from = \"…\", a mailbox that exists in the tenant",
                    ),
                );
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
    Fault::new(
        format!(
            "connector \"{name}\" sends bounces from {from} through the mailbox {own}, which needs the right Send As for it"
        ),
        "leave `from` out, and bounces are from the mailbox; or grant Send As",
    )
}

/// The type, before its own keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Smtp,
    Graph,
    Capture,
    Discard,
}

/// What the type decides of the keys that all have.
struct Defaults {
    max_concurrent: u64,
    max_recipients: u64,
    rate: Option<Rate>,
}

pub(super) fn read(
    ground: Ground<'_>,
    root: &Table<'_>,
    outbound: &Outbound,
    hostname: &str,
    own_addresses: &[SocketAddr],
) -> Connectors {
    let mut connectors = Connectors {
        names: Names::new("connector"),
        all: Vec::new(),
        files: BTreeMap::new(),
    };
    if !root.has("connector") {
        whole(
            ground,
            Fault::new(
                "there is no [[connector]], so no mail could leave",
                "add\n[[connector]]\nname = \"smarthost\"\ntype = \"smtp\"\nhost = \"smtp.corp.example\"",
            ),
        );
    }
    for table in root.tables("connector") {
        let name = connectors.names.read(ground, &table);
        let before = ground.files.borrow().len();
        let settings = one(ground, &table, outbound, hostname, own_addresses, &name);
        let files = ground.files.borrow().get(before..).map(<[_]>::to_vec);
        connectors.files.insert(
            ConnectorName::from(name.as_str()),
            files.unwrap_or_default(),
        );
        connectors.all.push((table.span.clone(), settings));
        table.finish();
    }
    connectors
}

#[expect(
    clippy::too_many_lines,
    reason = "every key of a connector, in the order of the example"
)]
fn one(
    ground: Ground<'_>,
    table: &Table<'_>,
    outbound: &Outbound,
    hostname: &str,
    own_addresses: &[SocketAddr],
    name: &str,
) -> Option<Settings> {
    table.requires("type", "type = \"smtp\"");
    let Some(At { value: kind, .. }) = table.parsed(
        "type",
        "\"smtp\", \"graph\", \"capture\" or \"discard\"",
        kind_of,
    ) else {
        // Without its type nothing can be said of the other keys.
        table.skip_all();
        return None;
    };
    let proxy = outbound.proxy_for(ground, table);
    let (kind, defaults) = match kind {
        Type::Smtp => {
            let smtp = smtp::read(
                ground,
                table,
                &smtp::Around {
                    outbound,
                    hostname,
                    own_addresses,
                    proxy: &proxy,
                },
            );
            let defaults = Defaults {
                max_concurrent: smtp.as_ref().map_or(4, |smtp| smtp.max_connections as u64),
                max_recipients: 100,
                rate: None,
            };
            (smtp.map(|smtp| Kind::Smtp(Box::new(smtp))), defaults)
        }
        Type::Graph => {
            let way = Way {
                outbound,
                proxy: &proxy,
            };
            (
                graph::read(ground, table, way).map(|graph| Kind::Graph(Box::new(graph))),
                // What Exchange Online allows a mailbox.
                Defaults {
                    max_concurrent: 4,
                    max_recipients: 500,
                    rate: Some(Rate {
                        count: 30,
                        per: seconds(60),
                    }),
                },
            )
        }
        Type::Capture => {
            table.requires("directory", "directory = \"captured\"");
            let directory = table
                .parsed("directory", "a path", files::path)
                .map(|path| ground.path(&path.value));
            (
                directory.map(|directory| Kind::Capture { directory }),
                Defaults {
                    max_concurrent: 4,
                    max_recipients: 1000,
                    rate: None,
                },
            )
        }
        Type::Discard => (
            Some(Kind::Discard),
            Defaults {
                max_concurrent: 16,
                max_recipients: 1000,
                rate: None,
            },
        ),
    };
    let max_concurrent = table.number("max_concurrent", 1..=10_000, defaults.max_concurrent);
    let max_recipients = table.number("max_recipients", 1..=100_000, defaults.max_recipients);
    let quota = kind.as_ref().and_then(Kind::mailbox_quota);
    if let Some((jobs, _)) = quota
        && max_concurrent > jobs
    {
        ground.source.warning(
            &table.place_or_header("max_concurrent"),
            Fault::new(
                "Exchange Online takes 4 requests at once for a mailbox and refuses the fifth",
                "write max_concurrent = 4",
            ),
        );
    }
    let rate = table
        .parsed("rate", "a rate such as \"30/min\"", values::rate)
        .map_or(defaults.rate, |rate| Some(rate.value));
    if let (Some((_, most)), Some(rate)) = (quota, rate)
        && rate.exceeds(most)
    {
        ground.source.warning(
            &table.place_or_header("rate"),
            Fault::new(
                "Exchange Online takes 30 messages a minute of a mailbox and refuses more",
                "write rate = \"30/min\"",
            ),
        );
    }
    let timeout: Duration = table.duration("timeout", ("1s", "1d"), seconds(15 * 60));
    Some(Settings {
        name: ConnectorName::from(name),
        max_concurrent: max_concurrent as usize,
        rate,
        timeout,
        max_recipients: max_recipients as usize,
        kind: kind?,
    })
}

/// The one place where a type becomes known.
fn kind_of(text: &str) -> Result<Type, Fault> {
    match text {
        "smtp" => Ok(Type::Smtp),
        "capture" => Ok(Type::Capture),
        "discard" => Ok(Type::Discard),
        "graph" => Ok(Type::Graph),
        _ => Err(Fault::new(
            format!("there is no connector type \"{}\"", plain(text)),
            "the types are \"smtp\", \"graph\", \"capture\" and \"discard\"",
        )),
    }
}
