//! `[[client]]`: whose connection it is, and what it may do. Without any it is this machine alone.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::context::{Context, SectionNames};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{Fault, fault},
    },
    mail::tls::{TlsFloor, TlsVersion},
    policy::client::{Client, ToleranceLevel},
};

/// Who may send where the file names nobody.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// All clients, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) names: SectionNames,
    pub(super) all: Vec<Located>,
}

#[derive(Debug)]
pub(super) struct Located {
    pub(super) client: Client,
    pub(super) networks: Vec<At<IpNet>>,
    /// The header of the section.
    pub(super) span: Span,
    /// What says that old TLS is spoken with it.
    pub(super) old_span: Option<Span>,
    /// `expect_every`.
    expected: Option<Duration>,
}

impl Clients {
    /// Those that send at least so often, by name.
    pub(super) fn expected(&self) -> Vec<(String, Duration)> {
        let expected = self.all.iter();
        expected
            .filter_map(|located| Some((located.client.name.clone(), located.expected?)))
            .collect()
    }

    pub(super) fn list(self) -> Vec<Client> {
        self.all.into_iter().map(|located| located.client).collect()
    }
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Clients {
    let mut names = SectionNames::new("client");
    let mut all: Vec<Located> = Vec::new();
    for table in root.tables("client") {
        let name = names.read(context, &table);
        table.requires("networks", "networks = [\"10.20.0.0/16\"]");
        let networks = table.networks("networks");
        if let (true, Some(span)) = (table.is_empty_list("networks"), table.place("networks")) {
            context.error(
                &span,
                fault!("a client without networks is nobody";
                    "write networks = [\"10.20.0.0/16\"], or remove the section"),
            );
        }
        let client = Client {
            name,
            networks: networks.iter().map(|at| at.value).collect(),
            senders: table.patterns("senders"),
            recipients: table.patterns("recipients"),
            hide_starttls: table.flag("hide_starttls"),
            lf_only: table.flag("lf_only"),
            tolerance: table.choice(
                "tolerance",
                [
                    ToleranceLevel::Strict,
                    ToleranceLevel::Standard,
                    ToleranceLevel::Device,
                ],
            ),
            require_auth: table.flag("require_auth"),
            any_credentials: table.flag("any_credentials"),
            transcript: table.flag("transcript"),
            tls: TlsFloor {
                min: table.choice("min_tls", TlsVersion::ALL),
                old_ciphers: table.flag("old_ciphers"),
            },
        };
        if client.tls.old_ciphers && client.tls.min == TlsVersion::V1_3 {
            table.warning(
                "old_ciphers",
                fault!("`old_ciphers` has no effect: they are of TLS 1.2, and `min_tls` is \"1.3\"";
                    "remove one of the two"),
            );
        }
        if client.require_auth && client.any_credentials {
            table.error("any_credentials", Fault::from(
                    "`require_auth` asks for a login that `any_credentials` makes worthless: choose one"
                        .to_owned(),
                ));
        }
        let client_tls = client.tls;
        all.push(Located {
            client,
            networks,
            span: table.span.clone(),
            old_span: old_span(&table, client_tls),
            expected: table.duration_if("expect_every"),
        });
        table.finish();
    }
    same_network_twice(context, &all);
    if !root.has("client") {
        names.known.push(("loopback".to_owned(), 0..0));
        all.push(Located {
            client: Client {
                name: "loopback".to_owned(),
                networks: LOOPBACK.to_vec(),
                ..Client::default()
            },
            networks: Vec::new(),
            span: 0..0,
            old_span: None,
            expected: None,
        });
    }
    Clients { names, all }
}

/// Where old TLS is asked for.
fn old_span(table: &Table<'_>, tls: TlsFloor) -> Option<Span> {
    let key = if tls.min < TlsVersion::V1_2 {
        "min_tls"
    } else {
        "old_ciphers"
    };
    tls.is_old().then(|| table.place_or_header(key))
}

/// The longest prefix decides; of two equal ones neither would.
fn same_network_twice(context: Context<'_>, all: &[Located]) {
    let mut seen: BTreeMap<IpNet, (&str, &Span)> = BTreeMap::new();
    for located in all {
        for At { value, span } in &located.networks {
            if let Some((client, first)) = seen.get(value) {
                context.error(
                    span,
                    fault!(
                        "the network {value} is already in the client \"{client}\", line {}",
                        context.source.line(first)
                    ),
                );
            } else {
                seen.insert(*value, (&located.client.name, span));
            }
        }
    }
}
