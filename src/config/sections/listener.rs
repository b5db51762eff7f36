//! `[[listener]]` to `listener::Settings`: address, TLS and AUTH that fit together. Opens no socket.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    client_ca,
    context::{Context, SectionNames},
    files,
};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{Fault, fault, plain},
    },
    listener::{Bind, Settings, TlsMode},
    policy::AuthMode,
};

/// All listeners, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct ListenerSections {
    pub(super) names: SectionNames,
    pub(super) all: Vec<ListenerSection>,
}

#[derive(Debug)]
pub(super) struct ListenerSection {
    pub(super) settings: Settings,
    pub(super) auth_span: Span,
    pub(super) old_span: Option<Span>,
    /// Whether the key for old handshakes is an RSA key; `None`: it is not known.
    pub(super) is_rsa: Option<bool>,
    /// What asks clients for a certificate.
    pub(super) certificates_span: Option<Span>,
    /// Who may send a PROXY header.
    pub(super) proxies: Vec<At<IpNet>>,
}

impl ListenerSections {
    pub(super) fn list(self) -> Vec<Settings> {
        self.all.into_iter().map(|l| l.settings).collect()
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all
            .iter()
            .filter_map(|l| match l.settings.bind {
                Bind::Address(address) => Some(address),
                Bind::Inherited(_) => None,
            })
            .collect()
    }
}

impl ListenerSection {
    /// Whether only this machine can reach it. A PROXY header brings addresses from anywhere, and a socket from
    /// systemd may be bound to anything.
    pub(super) fn is_loopback(&self) -> bool {
        self.proxies.is_empty() && self.is_bound_to_loopback()
    }

    /// Whether no connection from elsewhere comes in, with or without such a header.
    pub(super) fn is_bound_to_loopback(&self) -> bool {
        matches!(self.settings.bind, Bind::Address(address) if address.ip().to_canonical().is_loopback())
    }
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> ListenerSections {
    let mut names = SectionNames::new("listener");
    let mut all: Vec<ListenerSection> = Vec::new();
    let mut binds: Vec<(Bind, Span)> = Vec::new();
    let tables = root.tables("listener");
    if tables.is_empty() && !root.has("listener") {
        context.whole(
            fault!("there is no [[listener]], so nobody could send anything";
                "add\n[[listener]]\nname = \"local\"\naddress = \"127.0.0.1:25\""),
        );
    }
    for table in tables {
        let proxies = table.networks("proxy_protocol");
        let networks = proxies.iter().map(|at| at.value).collect();
        let (settings, bind_span, is_rsa) = one(context, &mut names, &table, networks);
        if let Some(span) = bind_span {
            if let Some((_, first)) = binds.iter().find(|(bind, _)| collide(bind, &settings.bind)) {
                context.error(
                    &span,
                    fault!(
                        "the listener in line {} already uses this address",
                        context.source.line(first)
                    ),
                );
            }
            binds.push((settings.bind.clone(), span));
        }
        all.push(ListenerSection {
            settings,
            auth_span: table.place_or_header("auth"),
            old_span: table.place("old_certificate"),
            is_rsa,
            certificates_span: table.place("client_certificates"),
            proxies,
        });
        table.finish();
    }
    ListenerSections { names, all }
}

fn one(
    context: Context<'_>,
    names: &mut SectionNames,
    table: &Table<'_>,
    proxy_protocol: Vec<IpNet>,
) -> (Settings, Option<Span>, Option<bool>) {
    let name = names.read(context, table);
    table.requires("address", "address = \"127.0.0.1:25\"");
    let bind = table.parsed("address", bind);
    let tls = table.choice("tls", [TlsMode::Off, TlsMode::StartTls, TlsMode::Implicit]);
    let require_tls = table.flag("require_tls");
    let certificate = files::pair(context, table, "certificate", "key");
    let old_certificate = files::pair(context, table, "old_certificate", "old_key");
    let is_rsa = files::look_at_old_certificate(
        context,
        table,
        certificate.as_ref(),
        old_certificate.as_ref(),
    );
    if table.has("old_certificate") && !table.has("certificate") {
        table.error(
            "old_certificate",
            fault!("`old_certificate` without `certificate`: it is for old handshakes alone";
            "add `certificate` and `key`, for all the others"),
        );
    }
    let has_pair = table.has("certificate") || table.has("key");
    match tls {
        TlsMode::Off if has_pair => table.warning("certificate", fault!("the certificate is not offered: `tls` is \"off\""; "add tls = \"starttls\" or tls = \"implicit\"")),
        TlsMode::StartTls | TlsMode::Implicit if !has_pair => table.error("tls", fault!("TLS needs `certificate` and `key`";
            "name two PEM files; `postern cert` makes a private CA and a certificate")),
        _ => {}
    }
    if require_tls && tls == TlsMode::Off {
        table.error(
            "require_tls",
            fault!("`require_tls` without TLS: nobody could send anything";
                "add tls = \"starttls\", `certificate` and `key`"),
        );
    }
    let auth = table.choice(
        "auth",
        [AuthMode::Off, AuthMode::Optional, AuthMode::Required],
    );
    let plaintext_auth = table.flag("plaintext_auth");
    if plaintext_auth && auth == AuthMode::Off {
        table.warning(
            "plaintext_auth",
            fault!("`plaintext_auth` has no effect: `auth` is \"off\"";
                "add auth = \"optional\" or auth = \"required\""),
        );
    }
    let (bind, span) = match bind {
        Some(At { value, span }) => (value, Some(span)),
        None => (Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0))), None),
    };
    let chunking = table.flag("chunking");
    let smtputf8 = table.flag("smtputf8");
    let clients = client_ca::read(context, table, tls);
    // Who leaves out TLS shows no certificate either.
    let is_required = clients.as_ref().is_some_and(|clients| clients.is_required);
    let require_tls = require_tls || is_required && tls == TlsMode::StartTls;
    let settings = Settings {
        name,
        bind,
        tls,
        require_tls,
        certificate,
        old_certificate,
        auth,
        plaintext_auth,
        chunking,
        smtputf8,
        clients,
        proxy_protocol,
    };
    (settings, span, is_rsa)
}

fn bind(text: &str) -> Result<Bind, Fault> {
    if let Some(name) = text.strip_prefix("socket:") {
        // systemd.socket(5), FileDescriptorName=: ASCII without control characters and `:`, at most 255.
        if name.is_empty()
            || name.len() > 255
            || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
        {
            return Err(
                fault!("not the name of a socket"; "write \"socket:NAME\", where the socket unit has FileDescriptorName=NAME"),
            );
        }
        return Ok(Bind::Inherited(name.to_owned()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Bind::Address(address));
    }
    let fault = |hint: String| Err(Fault::new("not an address with a port", hint));
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return fault(format!("write \"{}\"", SocketAddr::new(ip, 25)));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
    {
        return match host {
            "" | "*" => fault(format!(
                "write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for every IPv6 address"
            )),
            "localhost" => fault(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
            _ => fault(format!(
                "a listener is bound to an IP address, not to the name \"{}\"; \"0.0.0.0:{port}\" is every address",
                plain(host)
            )),
        };
    }
    fault("write \"127.0.0.1:25\", \"0.0.0.0:25\", \"[::]:25\" or \"socket:NAME\"".to_owned())
}

/// Whether the second could not be bound beside the first. Port 0 takes a free one.
fn collide(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Inherited(one), Bind::Inherited(other)) => one == other,
        (Bind::Address(one), Bind::Address(other)) => {
            one.port() != 0
                && one.port() == other.port()
                && one.is_ipv4() == other.is_ipv4()
                && (one.ip() == other.ip()
                    || one.ip().is_unspecified()
                    || other.ip().is_unspecified())
        }
        _ => false,
    }
}
