//! `[[connector]]`: the keys of every type, and which type it is.

use std::{net::SocketAddr, time::Duration};

use super::{Ground, Names, files, outbound::Outbound, seconds, smtp, whole};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{self, Fault, plain},
    },
    connector::{Kind, Settings},
    route::ConnectorName,
};

/// All connectors, with what routes ask of them.
#[derive(Debug)]
pub(super) struct Connectors {
    pub(super) names: Names,
    /// Settings only where the section is right.
    all: Vec<(Span, Option<Settings>)>,
}

impl Connectors {
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
}

/// The type, before its own keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Smtp,
    Capture,
    Discard,
}

/// What the type decides of the keys that all have.
struct Defaults {
    max_concurrent: u64,
    max_recipients: u64,
}

pub(super) fn read(
    ground: Ground<'_>,
    root: &Table<'_>,
    outbound: &Outbound,
    hostname: &str,
    own_addresses: Vec<SocketAddr>,
) -> Connectors {
    let mut connectors = Connectors {
        names: Names::new("connector"),
        all: Vec::new(),
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
        let settings = one(ground, &table, outbound, hostname, &own_addresses, &name);
        connectors.all.push((table.span.clone(), settings));
        table.finish();
    }
    connectors
}

fn one(
    ground: Ground<'_>,
    table: &Table<'_>,
    outbound: &Outbound,
    hostname: &str,
    own_addresses: &[SocketAddr],
    name: &str,
) -> Option<Settings> {
    table.requires("type", "type = \"smtp\"");
    let Some(At { value: kind, .. }) =
        table.parsed("type", "\"smtp\", \"capture\" or \"discard\"", kind_of)
    else {
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
                    proxied: proxy.via.is_some(),
                },
            );
            let defaults = Defaults {
                max_concurrent: smtp.as_ref().map_or(4, |smtp| smtp.max_connections as u64),
                max_recipients: 100,
            };
            (smtp.map(|smtp| Kind::Smtp(Box::new(smtp))), defaults)
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
                },
            )
        }
        Type::Discard => (
            Some(Kind::Discard),
            Defaults {
                max_concurrent: 16,
                max_recipients: 1000,
            },
        ),
    };
    let max_concurrent = table.number("max_concurrent", 1..=10_000, defaults.max_concurrent);
    let max_recipients = table.number("max_recipients", 1..=100_000, defaults.max_recipients);
    let rate = table
        .parsed("rate", "a rate such as \"30/min\"", values::rate)
        .map(|rate| rate.value);
    let timeout: Duration = table.duration("timeout", ("1s", "1d"), seconds(15 * 60));
    Some(Settings {
        name: ConnectorName::from(name),
        max_concurrent: max_concurrent as usize,
        rate,
        timeout,
        max_recipients: max_recipients as usize,
        proxy,
        kind: kind?,
    })
}

/// The one place where a type becomes known.
fn kind_of(text: &str) -> Result<Type, Fault> {
    match text {
        "smtp" => Ok(Type::Smtp),
        "capture" => Ok(Type::Capture),
        "discard" => Ok(Type::Discard),
        "graph" => Err(Fault::new(
            "type = \"graph\" is not in this version yet",
            "use type = \"smtp\" for now",
        )),
        _ => Err(Fault::new(
            format!("there is no connector type \"{}\"", plain(text)),
            "the types are \"smtp\", \"capture\" and \"discard\"",
        )),
    }
}
