//! The keys of `type = "smtp"` to `SmtpSettings`: what cannot work, or would show a password, is refused here. Dials nothing.

use std::net::{IpAddr, SocketAddr};

use super::{
    context::Context, dkim::DkimKeys, files, oauth, outbound, secret, smtp_tls, token::Reach,
};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{BACKSLASH, Fault, control_character, fault, is_full_name, is_plain, plain},
        words::nearest,
    },
    connector::{
        Auth, Class, Override, Pipelining, SmtpSettings, Tls, Verify, is_loopback, services,
    },
    mail::{cause, outcome::ObstacleKind},
    secret::Secret,
    smtp::sasl::Mechanism,
};

/// What the rest of the file says that this connector needs.
pub(super) struct SmtpContext<'a> {
    pub(super) reach: Reach<'a>,
    pub(super) hostname: &'a str,
    pub(super) own_addresses: &'a [SocketAddr],
    pub(super) dkim: &'a DkimKeys,
}

/// Where it goes.
struct Target {
    host: String,
    span: Span,
    port: u16,
    tls: Tls,
    auth: Auth,
}

pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    rest: &SmtpContext<'_>,
) -> Option<SmtpSettings> {
    let target = target(context, table);
    let verify = table.choice("verify", [Verify::Full, Verify::Certificate, Verify::None]);
    let ca_file = files::roots(context, table);
    let client_certificate = files::shown_pair(
        context,
        table,
        "client_certificate",
        "client_key",
        "get a new one from whoever runs the upstream, and name it here",
    );
    let auth = table.parsed("auth", auth_of);
    let host = target.as_ref().map(|target| target.host.as_str());
    let oauth = table.inner("oauth", "connector.oauth").and_then(|inner| {
        let oauth = oauth::read(context, &inner, rest.reach, host);
        inner.finish();
        oauth
    });
    check_oauth(context, table, auth.as_ref());
    let login = login(context, table, auth.as_ref());
    let plaintext_credentials = table.flag("plaintext_credentials");
    let max_connections = table.number_if("max_connections");
    let pipelining = table.choice(
        "pipelining",
        [Pipelining::Full, Pipelining::Commands, Pipelining::Off],
    );
    let dsn = table.flag("dsn");
    let tls_resumption = table.flag("tls_resumption");
    let tls_floor = smtp_tls::floor(table);
    let messages_per_connection = table.number("messages_per_connection") as u32;
    let idle_timeout = table.duration("idle_timeout");
    let overrides = overrides(table);
    let helo = helo(table, rest.hostname);
    let signs = table.flag("dkim");
    if signs && !rest.dkim.are_there() {
        table.warning(
            "dkim",
            fault!("there is no [[dkim]], so that nothing is signed";
                "make a key with `postern dkim new DOMAIN --selector NAME`, and add the section that it prints"),
        );
    }

    let target = target?;
    rest.reach
        .outbound
        .check(context, &target.span, &target.host);
    let bearer = match (&oauth, &login) {
        (Some(_), _) => Some("token"),
        (None, Some(_)) => Some("password"),
        (None, None) => None,
    };
    doubt_privacy(context, table, &target, verify, bearer);
    smtp_tls::check(table, tls_floor, target.tls, &target.host, verify, bearer);
    let by_token = oauth.is_some()
        || table.has("oauth")
        || auth.as_ref().is_some_and(|auth| auth.value.bears_token());
    speak_of_exchange(table, &target, login.is_some() && !by_token);
    if rest.reach.proxy.via.is_none() {
        refuse_loop(context, rest.own_addresses, &target);
    }
    let max_connections = connections(table, max_connections, &target.host);
    Some(SmtpSettings {
        host: target.host,
        port: target.port,
        proxy: rest.reach.proxy.clone(),
        tls: target.tls,
        tls_floor,
        verify,
        ca_file,
        client_certificate,
        auth: match auth.map(|auth| auth.value) {
            None | Some(Auth::Auto) if oauth.is_some() => Auth::With(Mechanism::Xoauth2),
            auth => auth.unwrap_or(target.auth),
        },
        login,
        max_connections,
        pipelining,
        dsn,
        tls_resumption,
        messages_per_connection,
        idle_timeout,
        says_address: helo.is_none(),
        helo: helo.unwrap_or_else(|| rest.hostname.to_owned()),
        overrides,
        dkim: signs.then(|| rest.dkim.list()),
        own_addresses: rest.own_addresses.to_vec(),
        oauth,
        plaintext_credentials,
    })
}

/// Connections at once where nobody knows the server: as many as Postfix opens to one destination.
const CONNECTIONS: usize = 20;

fn connections(table: &Table<'_>, given: Option<u64>, host: &str) -> usize {
    let service = services::at(host);
    let Some(given) = given else {
        return service.map_or(CONNECTIONS, services::Service::connections);
    };
    if let Some(known) = service.and_then(services::Service::known_connections)
        && given > known as u64
    {
        table.warning(
            "max_connections",
            fault!(
            "{host} takes {known} connections of a mailbox at once and refuses the others";
            "leave `max_connections` out, or write max_connections = {known}"),
        );
    }
    given as usize
}

/// The name that EHLO says. `None`: this machine has none that a server would take, so that its address is said.
fn helo(table: &Table<'_>, hostname: &str) -> Option<String> {
    if let Some(given) = table.parsed("helo", outbound::host) {
        return Some(match given.value.parse::<IpAddr>() {
            // RFC 5321 §4.1.3: an address is said as a literal.
            Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
            Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
            Err(_) => {
                if !is_full_name(&given.value) {
                    table.warning("helo", fault!(
                        "EHLO says \"{}\", which is not a full name; some servers refuse it", plain(&given.value);
                        "write helo = \"relay.corp.example\", a name that is in DNS"));
                }
                given.value
            }
        });
    }
    if table.has("helo") || is_full_name(hostname) {
        return Some(hostname.to_owned());
    }
    table.warning("helo", fault!(
        "EHLO says the address of this machine, since its name \"{}\" is not a full one; some servers want a name", plain(hostname);
        "write hostname = \"relay.corp.example\", a name that is in DNS, or `helo` in this connector"));
    None
}

/// Who else could read the mail, and what proves who we are: the password or the token.
fn doubt_privacy(
    context: Context<'_>,
    table: &Table<'_>,
    target: &Target,
    verify: Verify,
    bearer: Option<&str>,
) {
    let loopback = is_loopback(&target.host);
    let is_clear = matches!(target.tls, Tls::Off | Tls::Opportunistic);
    let plaintext_credentials = table.flag("plaintext_credentials");
    if let Some(what) = bearer
        && is_clear
        && !loopback
        && !plaintext_credentials
    {
        context.error(&table.place("tls").unwrap_or(target.span.clone()), fault!(
            "the {what} would go to {} without TLS, or without TLS being certain", plain(&target.host);
            "write tls = \"starttls\" or tls = \"implicit\"; or, where there is no other way, plaintext_credentials = true"));
    }
    if let (Tls::Opportunistic, false, Some(place)) = (target.tls, loopback, table.place("tls"))
        && (bearer.is_none() || plaintext_credentials)
    {
        context.note(&place, fault!(
            "mail goes out in plain text where the upstream offers no TLS or the handshake fails; only a certificate that is refused stops it";
            "tls = \"starttls\" never sends without TLS"));
    }
    if let (Verify::None, Some(what)) = (verify, bearer)
        && !loopback
        && !is_clear
    {
        table.warning(
            "verify",
            fault!("with verify = \"none\" anybody on the way can read the {what}";
                "name the certificate of the server in `ca_file`, or write verify = \"certificate\""),
        );
    }
}

/// What does not work with Exchange Online and Outlook.com, or soon will not.
fn speak_of_exchange(table: &Table<'_>, target: &Target, has_password: bool) {
    if !services::is_exchange(&target.host) {
        return;
    }
    if target.port == 465 {
        let key = if table.has("port") { "port" } else { "tls" };
        table.warning(
            key,
            fault!("{} does not answer on port 465", plain(&target.host);
                "write port = 587 and tls = \"starttls\"")
            .of(cause::PORT_465_OFFICE),
        );
    }
    if has_password {
        // Exchange team, techcommunity 4489835 (January 2026); for Outlook.com since September 2024.
        let fault = if target.host.ends_with("outlook.com") {
            fault!("Outlook.com has taken no passwords over SMTP since September 2024";
                "use `oauth` in place of `username` and `password`")
        } else {
            fault!("Exchange Online switches passwords over SMTP off at the end of December 2026 (an administrator can switch them on again for a while)";
                "run `postern setup exchange` for a connector of type \"graph\", or use `oauth` in place of `username` and `password`")
        };
        table.warning("password", fault.of(cause::BASIC_ENDED));
    }
}

/// `service`, or `host`, `port` and `tls`.
fn target(context: Context<'_>, table: &Table<'_>) -> Option<Target> {
    let service = table.parsed("service", |text| {
        services::find(text).ok_or_else(|| Fault {
            message: format!("there is no well-known service \"{}\"", plain(text)),
            hint: Some(
                nearest(text, services::all().iter().map(|service| service.name)).map_or_else(
                    || {
                        "`postern services` lists them; without one write `host`, `port` and `tls`"
                            .to_owned()
                    },
                    |name| format!("did you mean \"{name}\"? `postern services` lists them"),
                ),
            ),
        })
    });
    let host = table.parsed("host", outbound::connector_host);
    let port = table.number_if("port").map(|port| port as u16);
    let tls = table.choice_if(
        "tls",
        [Tls::StartTls, Tls::Implicit, Tls::Opportunistic, Tls::Off],
    );
    if table.has("service") {
        for key in ["host", "port", "tls"] {
            if let Some(span) = table.place(key) {
                context.error(
                    &span,
                    fault!("`service` already says `{key}`";
                        "write `service`, or `host`, `port` and `tls`"),
                );
            }
        }
        let At {
            value: service,
            span,
        } = service?;
        return Some(Target {
            host: service.host.to_owned(),
            span,
            port: service.port,
            tls: service.tls,
            auth: service.auth,
        });
    }
    table.requires("host", "host = \"smtp.corp.example\", or service = \"…\"");
    let tls_given = tls.map(|tls| tls.value);
    let tls = tls_given.unwrap_or(if port == Some(465) {
        Tls::Implicit
    } else {
        Tls::StartTls
    });
    let port = port.unwrap_or(match tls {
        Tls::Implicit => 465,
        Tls::StartTls => 587,
        Tls::Opportunistic | Tls::Off => 25,
    });
    let odd = match (port, tls) {
        (465, Tls::StartTls | Tls::Opportunistic) => Some((
            "port 465 speaks TLS from the first octet",
            "write tls = \"implicit\", or port = 587",
        )),
        (587 | 25, Tls::Implicit) => Some((
            "ports 587 and 25 begin without TLS",
            "write tls = \"starttls\", or port = 465",
        )),
        _ => None,
    };
    if let Some((message, hint)) = odd {
        table.warning("tls", Fault::new(message, hint));
    }
    let At { value: host, span } = host?;
    Some(Target {
        host,
        span,
        port,
        tls,
        auth: Auth::Auto,
    })
}

/// The one place where a way to log in becomes known.
fn auth_of(text: &str) -> Result<Auth, Fault> {
    match text {
        "auto" => Ok(Auth::Auto),
        "plain" => Ok(Auth::With(Mechanism::Plain)),
        "login" => Ok(Auth::With(Mechanism::Login)),
        "xoauth2" => Ok(Auth::With(Mechanism::Xoauth2)),
        "oauthbearer" => Ok(Auth::With(Mechanism::OauthBearer)),
        "none" => Ok(Auth::None),
        _ => Err(fault!(
                "`auth` takes \"auto\", \"plain\", \"login\", \"xoauth2\", \"oauthbearer\" or \"none\", not \"{}\"", plain(text);
                "\"auto\" takes the best the upstream offers")),
    }
}

/// `oauth` and the ways to log in that need it, and those that cannot be meant beside it.
fn check_oauth(context: Context<'_>, table: &Table<'_>, auth: Option<&At<Auth>>) {
    let needs = auth.is_some_and(|auth| auth.value.bears_token());
    let Some(place) = table.place("oauth") else {
        if let Some(At { span, .. }) = auth.filter(|_| needs) {
            context.error(span, fault!("this way to log in needs a token, and nothing says where it comes from";
                "add oauth = {{ provider = \"microsoft\", tenant_id = \"…\", client_id = \"…\", client_secret = {{ … }}, mailbox = \"…\" }}"));
        }
        return;
    };
    for key in ["username", "password"] {
        if let Some(span) = table.place(key) {
            context.error(
                &span,
                fault!("`{key}` beside `oauth`: which of them is meant?";
                    "with a token there is no password; the mailbox is `mailbox` in `oauth`"),
            );
        }
    }
    if auth.is_some_and(|auth| auth.value != Auth::Auto) && !needs {
        context.error(&place, fault!("`oauth` gives a token, and this `auth` does not use one"; "write auth = \"xoauth2\""));
    }
}

fn login(
    context: Context<'_>,
    table: &Table<'_>,
    auth: Option<&At<Auth>>,
) -> Option<(String, Secret)> {
    let username = table.parsed("username", |text| {
        if let Some(found) = control_character(text) {
            return Err(Fault::new(
                format!("this user name holds a control character ({found})"),
                BACKSLASH,
            ));
        }
        if text.is_empty() || text.len() > 1000 || !text.chars().all(is_plain) {
            return Err(fault!("this cannot be a user name"));
        }
        Ok(text.to_owned())
    });
    let password = secret::read(context, table, "password");
    for (one, other) in [("username", "password"), ("password", "username")] {
        if let (Some(span), false) = (table.place(one), table.has(other)) {
            context.error(
                &span,
                fault!("`{one}` without `{other}`: both are needed to log in"),
            );
        }
    }
    if let Some(At { value, span }) = auth {
        let has_login = table.has("username") || table.has("password");
        let fault = match value {
            Auth::None if has_login => {
                Some("auth = \"none\" beside a login: which of them is meant?")
            }
            Auth::With(Mechanism::Plain | Mechanism::Login) if !has_login => {
                Some("this way to log in needs `username` and `password`")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            context.error(span, Fault::from(fault));
        }
    }
    Some((username?.value, password?.secret))
}

fn overrides(table: &Table<'_>) -> Vec<Override> {
    let mut overrides = Vec::new();
    for table in table.inner_tables("overrides", "connector.overrides") {
        table.requires("code", "code = 550");
        table.requires("class", "class = \"deferred\"");
        let code = table.number_if("code");
        let enhanced = table.parsed("enhanced", |text| {
            enhanced(text)
                .ok_or_else(|| fault!("not an enhanced status code"; "write it as in \"5.4.5\""))
        });
        let text = table.parsed("text", |text| Ok::<_, Fault>(text.to_lowercase()));
        let class = table.choice_if(
            "class",
            [
                Class::Deferred,
                Class::Failed,
                Class::Obstacle(ObstacleKind::Down),
                Class::Obstacle(ObstacleKind::Misconfigured),
                Class::Obstacle(ObstacleKind::MailboxRefused),
                Class::Obstacle(ObstacleKind::Throttled),
                Class::Crowded,
            ],
        );
        table.finish();
        if let (Some(code), Some(class)) = (code, class) {
            overrides.push(Override {
                code: code as u16,
                text: text.map(|text| text.value),
                enhanced: enhanced.map(|enhanced| enhanced.value),
                class: class.value,
            });
        }
    }
    overrides
}

/// RFC 3463 §2: class `.` subject `.` detail.
fn enhanced(text: &str) -> Option<(u8, u16, u16)> {
    let mut parts = text.split('.');
    let class = parts.next()?.parse().ok().filter(|c| matches!(c, 4 | 5))?;
    let mut part = || parts.next()?.parse::<u16>().ok().filter(|n| *n < 1000);
    let code = (class, part()?, part()?);
    parts.next().is_none().then_some(code)
}

/// A connector that leads to one of our own listeners. SectionNames are looked up when connecting, not here.
fn refuse_loop(context: Context<'_>, own: &[SocketAddr], target: &Target) {
    let ip = match target.host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical(),
        Err(_) if target.host == "localhost" => IpAddr::from([127, 0, 0, 1]),
        Err(_) => return,
    };
    if own.iter().any(|own| {
        own.port() == target.port
            && (own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback()))
    }) {
        context.error(
            &target.span,
            fault!(
                "{}:{} is a listener of this gateway: mail would go round in circles",
                target.host,
                target.port
            ),
        );
    }
}
