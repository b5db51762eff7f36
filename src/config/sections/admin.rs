//! `[admin]`, `[[admin_user]]`, `[[admin_token]]` to the settings of the window. Opens no socket.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    context::{Context, SectionNames},
    files, secret, user,
};
use crate::{
    admin::settings::{
        AdminToken, AdminUser, Role, ShownContent, WindowPlace, WindowSettings, WriteConfig,
    },
    config::{
        table::{At, Table, bare},
        values::{self, Fault, fault},
    },
    mail::time,
};

/// `None`: there is no `[admin]`.
pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    hostname: &str,
) -> Option<WindowSettings> {
    let (users, tokens) = (users(context, root), tokens(context, root));
    let table = root.table("admin");
    if !table.is_present() {
        for section in ["admin_user", "admin_token"] {
            if root.has(section) {
                root.warning(section, fault!("nobody can log in: there is no [admin]"; "add [admin] with its address"));
            }
        }
        return None;
    }
    let place = table.parsed_or_default("address", place)?;
    let certificate = files::pair(context, &table, "certificate", "key");
    files::look_at_certificate(context, &table, "certificate", certificate.as_ref());
    let hosts = table.list("hosts", |host| {
        if host.contains([':', '/', '@']) || host.is_empty() {
            return Err(fault!("not the name of a host"; "write a name alone, as a browser has it, without a port"));
        }
        Ok(host.to_ascii_lowercase())
    });
    let mut hosts = hosts.map(|list| bare(list.value)).unwrap_or_default();
    hosts.push(hostname.to_ascii_lowercase());
    let proxies = table.list("trusted_proxies", |text| match text {
        "unix" => Ok(None),
        network => values::network(network).map(Some),
    });
    let proxies = proxies.map(|list| list.value).unwrap_or_default();
    let field = |key| {
        table
            .parsed(key, header_name)
            .map(|at| at.value)
            .unwrap_or_default()
    };
    let metrics = bare(table.networks("metrics"));
    let settings = WindowSettings {
        place,
        certificate,
        hosts,
        hostname: hostname.to_owned(),
        trusts_unix: proxies.iter().any(|at| at.value.is_none()),
        trusted_proxies: proxies.iter().filter_map(|at| at.value).collect(),
        user_header: field("user_header"),
        groups_header: field("groups_header"),
        groups: groups(context, &table),
        metrics,
        write_config: table.choice(
            "write_config",
            [WriteConfig::Off, WriteConfig::Propose, WriteConfig::Write],
        ),
        content: table.choice(
            "content",
            [ShownContent::None, ShownContent::Subject, ShownContent::All],
        ),
        session: table.duration("session"),
        keep_audit: table.duration("keep_audit"),
        users,
        tokens,
    };
    judge(context, &table, &settings, &proxies);
    table.finish();
    Some(settings)
}

fn groups(context: Context<'_>, table: &Table<'_>) -> Vec<(String, Role)> {
    let mut groups = Vec::new();
    for (group, At { value, span }) in table.names("groups") {
        match Role::parse(value) {
            Some(role) => groups.push((group, role)),
            None => context.error(
                &span,
                fault!("`groups` gives each group a role"; "write \"metrics\", \"viewer\", \"operator\" or \"admin\""),
            ),
        }
    }
    groups
}

/// What does not go together, and what is worth a thought.
fn judge(
    context: Context<'_>,
    table: &Table<'_>,
    settings: &WindowSettings,
    proxies: &[At<Option<ipnet::IpNet>>],
) {
    let is_trusting = !settings.trusted_proxies.is_empty() || settings.trusts_unix;
    if !settings.is_local() && settings.certificate.is_none() && !is_trusting {
        table.error(
            "address",
            fault!("beyond this machine the page needs TLS: whoever listens could take a login";
            "add `certificate` and `key`, or name the proxy that speaks TLS in `trusted_proxies`"),
        );
    }
    if !settings.user_header.is_empty() && !is_trusting {
        table.error(
            "user_header",
            fault!("`user_header` without `trusted_proxies`: nobody is believed who says it";
            "name the proxy in `trusted_proxies`"),
        );
    }
    if settings.user_header.is_empty() && !settings.groups_header.is_empty() {
        table.warning(
            "groups_header",
            fault!("`groups_header` has no effect without `user_header`"),
        );
    }
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    for proxy in proxies {
        let is_near = |network: ipnet::IpNet| {
            network.network().to_canonical().is_loopback()
                || loopback.iter().any(|ip| network.contains(ip))
        };
        if proxy.value.is_some_and(is_near) {
            context.note(
                &proxy.span,
                fault!(
                    "any user of this machine may claim to be anybody, if he can reach the address"
                ),
            );
        }
    }
    if settings.write_config == WriteConfig::Write {
        let span = table.place_or_header("write_config");
        context.note(&span, fault!("an admin of the page can change this file"));
    }
}

fn users(context: Context<'_>, root: &Table<'_>) -> Vec<AdminUser> {
    let mut names = SectionNames::new("admin_user");
    let mut all = Vec::new();
    for table in root.tables("admin_user") {
        let name = names.read(context, &table);
        table.requires(
            "password",
            "password = \"$argon2id$…\", which `postern hash-password` prints",
        );
        table.requires("role", "role = \"viewer\"");
        let password = secret::read(context, &table, "password");
        if let Some(given) = &password
            && given.known
            && let Err(fault) = user::check_hash(given.secret.reveal())
        {
            context.error(&given.span, fault);
        }
        let role = table.choice_if("role", [Role::Viewer, Role::Operator, Role::Admin]);
        all.push(AdminUser {
            name,
            password: password.map(|given| given.secret).unwrap_or_default(),
            role: role.map_or(Role::Viewer, |role| role.value),
        });
        table.finish();
    }
    all
}

fn tokens(context: Context<'_>, root: &Table<'_>) -> Vec<AdminToken> {
    let mut names = SectionNames::new("admin_token");
    let mut all = Vec::new();
    for table in root.tables("admin_token") {
        let name = names.read(context, &table);
        table.requires(
            "hash",
            "hash = \"sha256:…\", which `postern admin token` prints",
        );
        table.requires("role", "role = \"viewer\"");
        let hash = table.parsed("hash", token_hash);
        let expires = table.parsed("expires", |day| {
            let start = time::parsed(&format!("{day}T00:00:00Z"));
            let start = start.ok_or_else(|| fault!("not a day"; "write it as \"2027-12-31\""))?;
            Ok(start + Duration::from_hours(24))
        });
        if !table.has("expires") {
            context.note(
                &table.span,
                fault!("this token has no end: `expires` gives it one"),
            );
        }
        let role = table.choice_if("role", Role::ALL);
        all.push(AdminToken {
            name,
            hash: hash.map(|at| at.value).unwrap_or_default(),
            role: role.map_or(Role::Metrics, |role| role.value),
            networks: bare(table.networks("networks")),
            expires: expires.map(|at| at.value),
        });
        table.finish();
    }
    all
}

fn header_name(text: &str) -> Result<String, Fault> {
    if text
        .bytes()
        .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    {
        return Ok(text.to_owned());
    }
    Err(
        fault!("not the name of a header field"; "write it as the proxy sends it, such as \"Remote-User\""),
    )
}

fn token_hash(text: &str) -> Result<[u8; 32], Fault> {
    let hint = "`postern admin token NAME --role ROLE` makes a token and prints its hash";
    let wrong = || Fault::new("not the hash of a token", hint);
    let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (octet, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

fn place(text: &str) -> Result<WindowPlace, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(
                fault!("the path of a socket is an absolute one"; "write \"unix:/run/postern/admin.sock\""),
            );
        }
        // unix(7): the address has room for 108 octets, the last of them zero.
        if path.as_os_str().len() > 107 {
            return Err(fault!("the path of a socket has at most 107 octets"));
        }
        return Ok(WindowPlace::Unix(path));
    }
    if let Some(name) = text.strip_prefix("socket:") {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return Err(
                fault!("not the name of a socket"; "write \"socket:NAME\", where the socket unit has FileDescriptorName=NAME"),
            );
        }
        return Ok(WindowPlace::Inherited(name.to_owned()));
    }
    text.parse::<SocketAddr>().map(WindowPlace::Tcp).map_err(|_| {
        fault!("not an address with a port"; "write \"127.0.0.1:8025\", \"[::1]:8025\" or \"unix:/run/postern/admin.sock\"")
    })
}
