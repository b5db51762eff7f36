//! `[[client]]`, `[[user]]`, `[allowlist]` and `[[rewrite]]`.

use argon2::{Params, PasswordHash};
use ipnet::IpNet;

use super::{Ground, Names, secret, whole};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table, bare},
        values::{self, Fault},
    },
    policy::{
        Allowlist,
        client::{Client, ToleranceLevel, User},
        rewrite::{ReplyTo, Rewrite},
    },
};

/// All clients, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) names: Names,
    pub(super) all: Vec<Located>,
}

#[derive(Debug)]
pub(super) struct Located {
    pub(super) client: Client,
    pub(super) networks: Vec<At<IpNet>>,
    /// The header of the section.
    pub(super) span: Span,
}

impl Clients {
    pub(super) fn list(self) -> Vec<Client> {
        self.all.into_iter().map(|located| located.client).collect()
    }
}

pub(super) fn clients(ground: Ground<'_>, root: &Table<'_>) -> Clients {
    let mut names = Names::new("client");
    let mut all: Vec<Located> = Vec::new();
    for table in root.tables("client") {
        let name = names.read(ground, &table);
        table.requires("networks", "networks = [\"10.20.0.0/16\"]");
        let networks = table.networks("networks");
        if let (true, Some(span)) = (table.is_empty_list("networks"), table.place("networks")) {
            ground.source.error(
                &span,
                Fault::new(
                    "a client without networks is nobody",
                    "write networks = [\"10.20.0.0/16\"], or remove the section",
                ),
            );
        }
        let client = Client {
            name,
            networks: networks.iter().map(|at| at.value).collect(),
            senders: table.patterns("senders"),
            recipients: table.patterns("recipients"),
            hide_starttls: table.flag("hide_starttls", false),
            lf_only: table.flag("lf_only", false),
            tolerance: table
                .choice(
                    "tolerance",
                    &[
                        ("strict", ToleranceLevel::Strict),
                        ("standard", ToleranceLevel::Standard),
                        ("device", ToleranceLevel::Device),
                    ],
                )
                .map_or(ToleranceLevel::Standard, |level| level.value),
            require_auth: table.flag("require_auth", false),
            any_credentials: table.flag("any_credentials", false),
            transcript: table.flag("transcript", false),
        };
        if client.require_auth && client.any_credentials {
            ground.source.error(
                &table.place_or_header("any_credentials"),
                Fault::from(
                    "`require_auth` asks for a login that `any_credentials` makes worthless: choose one"
                        .to_owned(),
                ),
            );
        }
        all.push(Located {
            client,
            networks,
            span: table.span.clone(),
        });
        table.finish();
    }
    same_network_twice(ground, &all);
    if !root.has("client") {
        names.known.push(("loopback".to_owned(), 0..0));
        let networks = [
            IpNet::from(std::net::IpAddr::from([127, 0, 0, 0])).addr(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ];
        all.push(Located {
            client: Client {
                name: "loopback".to_owned(),
                networks: networks
                    .into_iter()
                    .zip([8, 128])
                    .filter_map(|(ip, prefix)| IpNet::new(ip, prefix).ok())
                    .collect(),
                ..Client::default()
            },
            networks: Vec::new(),
            span: 0..0,
        });
    }
    Clients { names, all }
}

/// The longest prefix decides; of two equal ones neither would.
fn same_network_twice(ground: Ground<'_>, all: &[Located]) {
    let mut seen: std::collections::BTreeMap<IpNet, (&str, &Span)> =
        std::collections::BTreeMap::new();
    for located in all {
        for At { value, span } in &located.networks {
            if let Some((client, first)) = seen.get(value) {
                ground.source.error(
                    span,
                    Fault::from(format!(
                        "the network {value} is already in the client \"{client}\", line {}",
                        ground.source.line(first)
                    )),
                );
            } else {
                seen.insert(*value, (&located.client.name, span));
            }
        }
    }
}

/// All users.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) names: Names,
    all: Vec<User>,
    /// The first section.
    pub(super) span: Option<Span>,
}

impl Users {
    pub(super) fn list(self) -> Vec<User> {
        self.all
    }
}

pub(super) fn users(ground: Ground<'_>, root: &Table<'_>) -> Users {
    let mut names = Names::new("user");
    let mut all = Vec::new();
    let mut first = None;
    for table in root.tables("user") {
        first.get_or_insert(table.span.clone());
        let name = names.read(ground, &table);
        table.requires(
            "password",
            "password = \"$argon2id$…\", which `postern hash-password` prints",
        );
        let password = secret::read(ground, &table, "password");
        if let Some(given) = &password
            && given.known
            && let Err(fault) = check_hash(given.secret.reveal())
        {
            ground.source.error(&given.span, fault);
        }
        all.push(User {
            name,
            password: password.map(|given| given.secret).unwrap_or_default(),
            senders: table.patterns("senders"),
            recipients: table.patterns("recipients"),
        });
        table.finish();
    }
    Users {
        names,
        all,
        span: first,
    }
}

/// An argon2id hash that this machine can compute for every login.
fn check_hash(text: &str) -> Result<(), Fault> {
    let hint = "`postern hash-password` reads a password and prints the hash to write here";
    if !text.starts_with('$') {
        return Err(Fault::new(
            "this is a password in the clear; the file holds its argon2id hash",
            hint,
        ));
    }
    let hash = PasswordHash::new(text)
        .map_err(|_| Fault::new("this is not a complete password hash", hint))?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(Fault::new(
            format!(
                "hashes of the kind {} are not known, argon2id is",
                values::plain(hash.algorithm.as_str())
            ),
            hint,
        ));
    }
    let params = Params::try_from(&hash)
        .map_err(|_| Fault::new("the parameters of this hash are not valid", hint))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(Fault::new("this is not a complete password hash", hint));
    }
    // Every login pays this; a gigabyte of memory or a minute of time is a slip of the pen.
    if params.m_cost() > 1 << 20 || params.t_cost() > 100 {
        return Err(Fault::new(
            "this hash needs more than 1 GiB of memory or 100 passes for every login",
            hint,
        ));
    }
    Ok(())
}

/// `None`: an error was reported.
pub(super) fn allowlist(ground: Ground<'_>, root: &Table<'_>) -> Option<Allowlist> {
    let table = root.table("allowlist", "allowlist");
    let senders = table.patterns("senders");
    let recipients = table.patterns("recipients");
    let header_recipients = table.flag("header_recipients", false);
    if table.is_present() {
        table.requires(
            "senders",
            "senders = [\"corp.example\"]; [\"*\"] is anybody, [] is nobody",
        );
        table.requires(
            "recipients",
            "recipients = [\"corp.example\"]; [\"*\"] is anybody, [] is nobody",
        );
    } else if !root.has("allowlist") {
        whole(
            ground,
            Fault::new(
                "there is no [allowlist]: it says which mail may pass",
                "add\n[allowlist]\nsenders = [\"corp.example\"]\nrecipients = [\"corp.example\"]",
            ),
        );
    }
    table.finish();
    Some(Allowlist {
        senders: senders?,
        recipients: recipients?,
        header_recipients,
    })
}

pub(super) fn rewrites(ground: Ground<'_>, root: &Table<'_>) -> Vec<Rewrite> {
    let mut rewrites = Vec::new();
    for table in root.tables("rewrite") {
        table.requires("senders", "senders = [\"*@localhost\"]");
        table.requires("to", "to = \"noreply@corp.example\"");
        let senders = table.list("senders", |text| {
            let pattern = values::pattern(text)?;
            if pattern.is_null() {
                return Err(Fault::from(
                    "the null sender is never rewritten: a bounce must stay one".to_owned(),
                ));
            }
            Ok(pattern)
        });
        if let Some(At { span, .. }) = &senders
            && table.is_empty_list("senders")
        {
            ground.source.error(
                span,
                Fault::from("a rewrite without senders rewrites nothing".to_owned()),
            );
        }
        let to = table.parsed("to", "an address", values::address);
        let reply_to = table
            .choice(
                "reply_to",
                &[("original", ReplyTo::Original), ("keep", ReplyTo::Keep)],
            )
            .map_or(ReplyTo::Original, |word| word.value);
        table.finish();
        if let (Some(senders), Some(to)) = (senders, to) {
            rewrites.push(Rewrite {
                senders: bare(senders.value),
                to: to.value,
                reply_to,
            });
        }
    }
    rewrites
}
