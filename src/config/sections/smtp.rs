//! The keys of `type = "smtp"` to `SmtpSettings`: what cannot work, or would show a password, is refused here. Dials nothing.

use std::net::{IpAddr, SocketAddr};

use super::{
    Ground, files,
    oauth::{self, Way},
    outbound::{self, Outbound},
    seconds, secret,
};
use crate::{
    config::{
        diagnostic::Span,
        source::nearest,
        table::{At, Table},
        values::{BACKSLASH, Fault, control_character, is_full_name, is_plain, plain},
    },
    connector::{Auth, Class, Override, Proxy, SmtpSettings, Tls, Verify, is_loopback, services},
    mail::outcome::ObstacleKind,
    secret::Secret,
};

/// What the rest of the file says that this connector needs.
pub(super) struct Around<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) hostname: &'a str,
    pub(super) own_addresses: &'a [SocketAddr],
    pub(super) proxy: &'a Proxy,
}

/// Where it goes.
struct Target {
    host: String,
    span: Span,
    port: u16,
    tls: Tls,
    auth: Auth,
}

#[expect(
    clippy::too_many_lines,
    reason = "every key of the section, in the order of the example"
)]
pub(super) fn read(
    ground: Ground<'_>,
    table: &Table<'_>,
    around: &Around<'_>,
) -> Option<SmtpSettings> {
    let target = target(ground, table);
    let verify = table
        .choice(
            "verify",
            &[
                ("full", Verify::Full),
                ("certificate", Verify::Certificate),
                ("none", Verify::None),
            ],
        )
        .map_or(Verify::Full, |verify| verify.value);
    let ca_file = files::pem(ground, table, "ca_file", files::Pem::Certificate);
    let client_certificate = files::shown_pair(
        ground,
        table,
        "client_certificate",
        "client_key",
        "get a new one from whoever runs the upstream, and name it here",
    );
    let auth = table.parsed(
        "auth",
        "\"auto\", \"plain\", \"login\", \"xoauth2\", \"oauthbearer\" or \"none\"",
        auth_of,
    );
    let way = Way {
        outbound: around.outbound,
        proxy: around.proxy,
    };
    let host = target.as_ref().map(|target| target.host.as_str());
    let oauth = table.inner("oauth", "connector.oauth").and_then(|inner| {
        let oauth = oauth::table(ground, &inner, way, host);
        inner.finish();
        oauth
    });
    check_oauth(ground, table, auth.as_ref());
    let login = login(ground, table, auth.as_ref());
    let plaintext_credentials = table.flag("plaintext_credentials", false);
    let max_connections = table.number("max_connections", 1..=1000, 4) as usize;
    let messages_per_connection =
        table.number("messages_per_connection", 1..=1_000_000, 100) as u32;
    let idle_timeout = table.duration("idle_timeout", ("1ms", "1h"), seconds(30));
    let helo = table.parsed("helo", "a name", outbound::host);
    let overrides = overrides(table);
    let says_address = !table.has("helo") && !is_full_name(around.hostname);
    if says_address {
        ground.source.warning(
            &table.place_or_header("helo"),
            Fault::new(
                format!(
                    "EHLO says the address of this machine, since its name \"{}\" is no full one; there are servers that want a name",
                    plain(around.hostname)
                ),
                "write hostname = \"relay.corp.example\", a name that DNS knows, or `helo` in this connector",
            ),
        );
    }

    let target = target?;
    around.outbound.check(ground, &target.span, &target.host);
    let loopback = is_loopback(&target.host);
    let is_clear = matches!(target.tls, Tls::Off | Tls::Opportunistic);
    let what = if oauth.is_some() { "token" } else { "password" };
    let has_credentials = login.is_some() || oauth.is_some();
    if is_clear && has_credentials && !loopback && !plaintext_credentials {
        ground.source.error(
            &table.place("tls").unwrap_or(target.span.clone()),
            Fault::new(
                format!("the {what} would go to {} without TLS, or without TLS being certain", plain(&target.host)),
                "write tls = \"starttls\" or tls = \"implicit\"; plaintext_credentials = true if it must be so",
            ),
        );
    }
    if let (Tls::Opportunistic, false, Some(place)) = (target.tls, loopback, table.place("tls"))
        && (!has_credentials || plaintext_credentials)
    {
        ground.source.note(
            &place,
            Fault::new(
                "mail goes out in plain text where the upstream offers no TLS or the handshake fails; only a certificate that is refused stops it",
                "tls = \"starttls\" never does without",
            ),
        );
    }
    if verify == Verify::None && has_credentials && !loopback && !is_clear {
        ground.source.warning(
            &table.place_or_header("verify"),
            Fault::new(
                format!("with verify = \"none\" anybody on the way can read the {what}"),
                "name the certificate of the server in `ca_file`, or write verify = \"certificate\"",
            ),
        );
    }
    let by_token = oauth.is_some()
        || table.has("oauth")
        || auth.as_ref().is_some_and(|auth| bears_token(auth.value));
    speak_of_exchange(ground, table, &target, login.is_some() && !by_token);
    if around.proxy.via.is_none() {
        refuse_loop(ground, around.own_addresses, &target);
    }
    Some(SmtpSettings {
        host: target.host,
        port: target.port,
        proxy: around.proxy.clone(),
        tls: target.tls,
        verify,
        ca_file,
        client_certificate,
        auth: match auth.map(|auth| auth.value) {
            None | Some(Auth::Auto) if oauth.is_some() => Auth::Xoauth2,
            auth => auth.unwrap_or(target.auth),
        },
        login,
        max_connections,
        messages_per_connection,
        idle_timeout,
        says_address,
        helo: helo.map_or_else(
            || around.hostname.to_owned(),
            |helo| match helo.value.parse::<IpAddr>() {
                // RFC 5321 §4.1.3: an address is said as a literal.
                Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
                Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
                Err(_) => helo.value,
            },
        ),
        overrides,
        own_addresses: around.own_addresses.to_vec(),
        oauth,
        plaintext_credentials,
    })
}

/// What does not work with Exchange Online and Outlook.com, or soon will not.
fn speak_of_exchange(ground: Ground<'_>, table: &Table<'_>, target: &Target, has_password: bool) {
    if !services::is_exchange(&target.host) {
        return;
    }
    if target.port == 465 {
        let key = if table.has("port") { "port" } else { "tls" };
        ground.source.warning(
            &table.place_or_header(key),
            Fault::new(
                format!("{} does not answer on port 465", plain(&target.host)),
                "write port = 587 and tls = \"starttls\"",
            ),
        );
    }
    if has_password {
        // Exchange team, techcommunity 4489835 (January 2026); for Outlook.com since September 2024.
        let message = if target.host.ends_with("outlook.com") {
            "Outlook.com has taken no passwords over SMTP since September 2024"
        } else {
            "Exchange Online switches passwords over SMTP off at the end of December 2026 (an administrator can switch them on again for a while)"
        };
        ground.source.warning(
            &table.place_or_header("password"),
            Fault::new(
                message,
                "use a connector of type \"graph\", or `oauth` in place of `username` and `password`",
            ),
        );
    }
}

/// `service`, or `host`, `port` and `tls`.
fn target(ground: Ground<'_>, table: &Table<'_>) -> Option<Target> {
    let service = table.parsed("service", "the name of a service", |text| {
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
    let host = table.parsed("host", "a name or an address", outbound::connector_host);
    let port = table.number_if("port", 1..=65_535).map(|port| port as u16);
    let tls = table.choice(
        "tls",
        &[
            ("starttls", Tls::StartTls),
            ("implicit", Tls::Implicit),
            ("opportunistic", Tls::Opportunistic),
            ("off", Tls::Off),
        ],
    );
    if table.has("service") {
        for key in ["host", "port", "tls"] {
            if let Some(span) = table.place(key) {
                ground.source.error(
                    &span,
                    Fault::new(
                        format!("`service` already says `{key}`"),
                        "write `service`, or `host`, `port` and `tls`",
                    ),
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
        ground
            .source
            .warning(&table.place_or_header("tls"), Fault::new(message, hint));
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
        "plain" => Ok(Auth::Plain),
        "login" => Ok(Auth::Login),
        "none" => Ok(Auth::None),
        "xoauth2" => Ok(Auth::Xoauth2),
        "oauthbearer" => Ok(Auth::OauthBearer),
        _ => Err(Fault::new(
            format!(
                "`auth` takes \"auto\", \"plain\", \"login\", \"xoauth2\", \"oauthbearer\" or \"none\", not \"{}\"",
                plain(text)
            ),
            "\"auto\" takes the best the upstream offers",
        )),
    }
}

fn bears_token(auth: Auth) -> bool {
    matches!(auth, Auth::Xoauth2 | Auth::OauthBearer)
}

/// `oauth` and the ways to log in that need it, and those that cannot be meant beside it.
fn check_oauth(ground: Ground<'_>, table: &Table<'_>, auth: Option<&At<Auth>>) {
    let needs = auth.is_some_and(|auth| bears_token(auth.value));
    let Some(place) = table.place("oauth") else {
        if let Some(At { span, .. }) = auth.filter(|_| needs) {
            ground.source.error(
                span,
                Fault::new(
                    "this way to log in needs a token, and nothing says where it comes from",
                    "add oauth = { provider = \"microsoft\", tenant_id = \"…\", client_id = \"…\", client_secret = { … }, mailbox = \"…\" }",
                ),
            );
        }
        return;
    };
    for key in ["username", "password"] {
        if let Some(span) = table.place(key) {
            ground.source.error(
                &span,
                Fault::new(
                    format!("`{key}` beside `oauth`: which of them is meant?"),
                    "with a token there is no password; the mailbox is `mailbox` in `oauth`",
                ),
            );
        }
    }
    if auth.is_some_and(|auth| auth.value != Auth::Auto) && !needs {
        ground.source.error(
            &place,
            Fault::new(
                "`oauth` gives a token, and this `auth` does not use one",
                "write auth = \"xoauth2\"",
            ),
        );
    }
}

fn login(
    ground: Ground<'_>,
    table: &Table<'_>,
    auth: Option<&At<Auth>>,
) -> Option<(String, Secret)> {
    let username = table.parsed("username", "a string", |text| {
        if let Some(found) = control_character(text) {
            return Err(Fault::new(
                format!("this user name holds a control character ({found})"),
                BACKSLASH,
            ));
        }
        if text.is_empty() || text.len() > 1000 || !text.chars().all(is_plain) {
            return Err(Fault::from("this cannot be a user name"));
        }
        Ok(text.to_owned())
    });
    let password = secret::read(ground, table, "password");
    for (one, other) in [("username", "password"), ("password", "username")] {
        if let (Some(span), false) = (table.place(one), table.has(other)) {
            ground.source.error(
                &span,
                Fault::from(format!(
                    "`{one}` without `{other}`: both are needed to log in"
                )),
            );
        }
    }
    if let Some(At { value, span }) = auth {
        let has_login = table.has("username") || table.has("password");
        let fault = match value {
            Auth::None if has_login => {
                Some("auth = \"none\" beside a login: which of them is meant?")
            }
            Auth::Plain | Auth::Login if !has_login => {
                Some("this way to log in needs `username` and `password`")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            ground.source.error(span, Fault::from(fault));
        }
    }
    Some((username?.value, password?.secret))
}

fn overrides(table: &Table<'_>) -> Vec<Override> {
    let mut overrides = Vec::new();
    for table in table.inline_tables("overrides", "connector.overrides") {
        table.requires("code", "code = 550");
        table.requires("class", "class = \"deferred\"");
        let code = table.number_if("code", 400..=599);
        let enhanced = table.parsed("enhanced", "a code such as \"5.4.5\"", |text| {
            enhanced(text).ok_or_else(|| {
                Fault::new("not an enhanced status code", "write it as in \"5.4.5\"")
            })
        });
        let class = table.choice(
            "class",
            &[
                ("deferred", Class::Deferred),
                ("failed", Class::Failed),
                ("down", Class::Obstacle(ObstacleKind::Down)),
                (
                    "misconfigured",
                    Class::Obstacle(ObstacleKind::Misconfigured),
                ),
                (
                    "mailbox refused",
                    Class::Obstacle(ObstacleKind::MailboxRefused),
                ),
                ("throttled", Class::Obstacle(ObstacleKind::Throttled)),
            ],
        );
        table.finish();
        if let (Some(code), Some(class)) = (code, class) {
            overrides.push(Override {
                code: code as u16,
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

/// A connector that leads to one of our own listeners. Names are looked up when connecting, not here.
fn refuse_loop(ground: Ground<'_>, own: &[SocketAddr], target: &Target) {
    let ip = match target.host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical(),
        Err(_) if target.host == "localhost" => IpAddr::from([127, 0, 0, 1]),
        Err(_) => return,
    };
    if own.iter().any(|own| {
        own.port() == target.port
            && (own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback()))
    }) {
        ground.source.error(
            &target.span,
            Fault::from(format!(
                "{}:{} is a listener of this gateway: mail would go round in a circle",
                target.host, target.port
            )),
        );
    }
}
