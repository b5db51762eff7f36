//! Where a virtual server of IIS sends mail: its smarthosts, and those of domains that have one of their own.
//!
//! Without a smarthost it asked DNS; for that there is no connector.

use roxmltree::Document;

use super::{
    super::{
        draft::{ImportDraft, LoginDraft, LoginSecret, RouteDraft},
        note::{NoteKind, SourcePlace},
        smarthost::{self, OldSmarthost},
        words,
    },
    server::{VirtualServer, of_node},
};

/// No more hosts, and no more domains, are read.
const MOST: usize = 100;

/// Smarthosts: of the server, and of domains that have one of their own.
pub(super) fn read(
    server: &VirtualServer<'_, '_>,
    document: &Document<'_>,
    start: &RouteDraft,
    is_used: bool,
    draft: &mut ImportDraft,
) {
    domains(server, document, start, is_used, draft);
    let text = server.text("SmartHost").unwrap_or_default();
    let place = server.place("SmartHost");
    match server.text("SmartHostType") {
        Some("0") => {
            draft.notes.add(
                NoteKind::NoWayOut,
                "SmartHostType 0",
                server.place("SmartHostType"),
                NO_WAY,
            );
            return;
        }
        Some("1") if !text.is_empty() => {
            draft.lacks(
                "SmartHostType 1",
                server.place("SmartHostType"),
                "direct delivery was tried first; all mail goes to the smarthost now",
            );
        }
        _ => {}
    }
    if text.is_empty() {
        draft.notes.add(
            NoteKind::NoWayOut,
            format!("delivery by MX ({})", server.name),
            place,
            NO_WAY,
        );
        return;
    }
    let mut names = Vec::new();
    for host in text
        .split([';', ','])
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .take(MOST)
    {
        match connector(server, host, true, draft) {
            Some(name) if !names.contains(&name) => names.push(name),
            Some(_) => {}
            None => draft.lacks(format!("SmartHost: {host}"), place.clone(), "it is no host"),
        }
    }
    if is_used && !names.is_empty() {
        let name = words::unique("default", |name| {
            draft.routes.iter().any(|route| route.name == name)
        });
        draft.routes.push(RouteDraft {
            name,
            connectors: names,
            ..start.clone()
        });
    }
}

const NO_WAY: &str = "there is no smarthost: the old service asked DNS where each mail goes, and Postern hands all of it to a smarthost, which you have to name";

fn domains(
    server: &VirtualServer<'_, '_>,
    document: &Document<'_>,
    start: &RouteDraft,
    is_used: bool,
    draft: &mut ImportDraft,
) {
    let location = server.node.attribute("Location").unwrap_or_default();
    let below = format!("{location}/domain/").to_ascii_lowercase();
    let all = document
        .descendants()
        .filter(|node| node.tag_name().name().eq_ignore_ascii_case("IIsSmtpDomain"));
    let mut found: Vec<(String, Option<String>, SourcePlace)> = Vec::new();
    for node in all.take(MOST * MOST) {
        let at = node
            .attribute("Location")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let Some(domain) = at.strip_prefix(&below) else {
            continue;
        };
        let hop = of_node(node, "RouteActionString").map(|(text, _)| text.trim().to_owned());
        let place = SourcePlace {
            file: None,
            line: document.text_pos_at(node.range().start).row as usize,
        };
        found.push((
            domain.to_owned(),
            hop.filter(|hop| !hop.is_empty() && *hop != domain),
            place,
        ));
    }
    found.sort_by_key(|(domain, ..)| (domain.starts_with('*'), std::cmp::Reverse(domain.len())));
    for (domain, hop, place) in found.into_iter().take(MOST) {
        let what = format!("IIsSmtpDomain {domain}");
        let recipient = words::pattern(&domain);
        let connector = match (&recipient, &hop) {
            (Some(_), Some(hop)) => connector(server, hop, false, draft),
            _ => None,
        };
        let (Some(recipient), Some(connector)) = (recipient, connector) else {
            draft.lacks(what, Some(place), "it has no smarthost of its own (a local or an alias domain): such mail goes the way of all other mail now");
            continue;
        };
        if !is_used
            || draft.routes.iter().any(|route| {
                route.recipients.contains(&recipient) && route.listeners == start.listeners
            })
        {
            continue;
        }
        let name = words::section_name(&domain, "domain");
        let name = words::unique(&name, |name| {
            draft.routes.iter().any(|route| route.name == name)
        });
        draft.routes.push(RouteDraft {
            name,
            recipients: vec![recipient],
            connectors: vec![connector],
            ..start.clone()
        });
    }
}

/// The connector for a host, made where there is none.
fn connector(
    server: &VirtualServer<'_, '_>,
    host: &str,
    logs_in: bool,
    draft: &mut ImportDraft,
) -> Option<String> {
    let host = words::host(host)?;
    let port = server
        .number("RemoteSmtpPort")
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .unwrap_or(25);
    let user = server
        .text("RouteUserName")
        .filter(|user| logs_in && words::is_fine(user));
    let same = draft.connectors.iter().find(|connector| {
        connector.text("host") == Some(&host)
            && connector
                .pairs
                .iter()
                .any(|(key, value)| *key == "port" && value.as_integer() == Some(port.into()))
            && connector
                .login
                .as_ref()
                .and_then(|login| login.beside.as_ref())
                .map(|(_, name)| name.as_str())
                == user
    });
    if let Some(same) = same {
        return Some(same.name.clone());
    }
    let mut smarthost = OldSmarthost {
        host: host.clone(),
        port,
        tls: if server.is_true("AlwaysUseSsl") {
            "starttls"
        } else {
            "off"
        },
        has_login: user.is_some(),
        ..OldSmarthost::default()
    };
    smarthost::secure(
        &mut smarthost,
        "SmartHost",
        server.place("SmartHost").as_ref(),
        draft,
    );
    let base = if draft.connectors.is_empty() {
        "smarthost".to_owned()
    } else {
        words::section_name(&host, "smarthost")
    };
    let name = words::unique(&base, |name| {
        draft.connectors.iter().any(|c| c.name == name)
    });
    let mut made = smarthost.draft(&name);
    if let Some(user) = user {
        let place = server
            .place("RoutePassword")
            .or_else(|| server.place("RouteUserName"));
        draft.leaves(
            "RoutePassword",
            place,
            format!("it is encrypted for the old machine: put the password of {user} into the file that stands there"),
        );
        made.login = Some(LoginDraft {
            beside: Some(("username", user.to_owned())),
            key: "password",
            file: "password",
            secret: LoginSecret::Missing,
        });
    }
    draft.connectors.push(made);
    Some(name)
}
