//! Where Postfix sends mail: relayhost, transports and relay hosts by sender, as connectors and routes, with their logins and TLS.
//!
//! A destination that DNS would have to name (MX) is none here: there is no connector for it.

use super::{
    super::{
        draft::{ImportDraft, ImportedConnector, LoginDraft, LoginSecret, RouteDraft},
        files::{CERTIFICATE, KEY, NamedFiles},
        note::{NotUnderstood, NoteKind, SourcePlace},
        smarthost::{self, OldSmarthost},
        words,
    },
    hops::{local, next_hop, tls},
    main_cf::MainCf,
    maps::{self, MapEntry},
};
use crate::{mail::unicode, secret::Secret};

/// What all connectors of a Postfix share.
struct Ways<'a> {
    main: &'a MainCf,
    logins: Vec<MapEntry>,
    /// A table of logins that could not be read.
    has_unread_logins: bool,
    tls: &'static str,
    helo: Option<String>,
    ca_file: Option<String>,
    client: Option<(String, String)>,
    /// A table says something else than the relay host of all mail, and it is not carried over.
    has_no_default: bool,
    /// Next hop and login, and the connector that there is for them.
    made: Vec<(String, Option<String>, String)>,
}

pub(super) fn read(
    main: &MainCf,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<(), NotUnderstood> {
    let fallback = main.value("default_database_type")?;
    let mut ways = Ways {
        main,
        logins: Vec::new(),
        has_unread_logins: false,
        tls: tls(main, draft)?,
        helo: None,
        ca_file: None,
        client: None,
        has_no_default: false,
        made: Vec::new(),
    };
    ways.files(files, draft)?;
    if let Some(name) = main.set("smtp_helo_name")? {
        ways.helo = words::host(&name);
    }
    if main.flag("smtp_sasl_auth_enable")? {
        let place = main.place("smtp_sasl_password_maps");
        let (logins, unread) = maps::read(
            &main.list("smtp_sasl_password_maps")?,
            &fallback,
            files,
            place.as_ref(),
        );
        ways.logins = logins;
        ways.has_unread_logins = !unread.is_empty();
        for one in unread {
            draft.leaves(
                format!("smtp_sasl_password_maps: {}", one.map),
                place.clone(),
                format!("the login at the smarthost is not known: {}", one.why),
            );
        }
    }
    local(main, draft)?;
    ways.transports(&fallback, files, draft)?;
    ways.by_sender(&fallback, files, draft)?;
    ways.everything_else(draft)
}

impl Ways<'_> {
    fn files(
        &mut self,
        files: &dyn NamedFiles,
        draft: &mut ImportDraft,
    ) -> Result<(), NotUnderstood> {
        let main = self.main;
        if let Some(file) = main.set("smtp_tls_CAfile")?.filter(|file| !file.is_empty()) {
            match files.pem(&file, CERTIFICATE) {
                Ok(found) => self.ca_file = Some(found),
                Err(why) => draft.leaves(
                    "smtp_tls_CAfile",
                    main.place("smtp_tls_CAfile"),
                    format!("the system's roots are used: {why}"),
                ),
            }
        }
        let directory = main.value("smtp_tls_CApath")?;
        if !directory.is_empty() && directory.trim_end_matches('/') != "/etc/ssl/certs" {
            draft.leaves(
                "smtp_tls_CApath",
                main.place("smtp_tls_CApath"),
                "the system's roots are used; roots of your own belong into one `ca_file`",
            );
        }
        let certificate = main.value("smtp_tls_cert_file")?;
        if !certificate.is_empty() {
            let key = main.value("smtp_tls_key_file")?;
            match files
                .pem(&certificate, CERTIFICATE)
                .and_then(|one| Ok((one, files.pem(&key, KEY)?)))
            {
                Ok(pair) => self.client = Some(pair),
                Err(why) => draft.leaves(
                    "smtp_tls_cert_file",
                    main.place("smtp_tls_cert_file"),
                    format!("no certificate is shown to the smarthost: {why}"),
                ),
            }
        }
        Ok(())
    }

    /// The login for a next hop: Postfix asks for the sender (where it is told to), the next hop as it is written, and its host.
    fn login(&self, sender: Option<&str>, hop: &str, host: &str) -> Option<&MapEntry> {
        let keys = [
            unicode::lower(sender.unwrap_or_default()),
            unicode::lower(hop),
            unicode::lower(host),
        ];
        keys.iter()
            .filter(|key| !key.is_empty())
            .map(|key| &**key)
            .chain([maps::EVERY_KEY])
            .find_map(|key| self.logins.iter().find(|entry| entry.key == key))
    }

    /// The connector for a next hop, made where there is none; `None` where it is no next hop that Postern can reach.
    fn connector(
        &mut self,
        hop: &str,
        sender: Option<&str>,
        what: &str,
        place: Option<&SourcePlace>,
        draft: &mut ImportDraft,
    ) -> Option<String> {
        let Some((host, port, is_host)) = next_hop(hop) else {
            draft.lacks(
                format!("{what}: {}", words::shown_hop(hop)),
                place.cloned(),
                "this is no host with a port",
            );
            return None;
        };
        let login = self.login(sender, hop, &host).cloned();
        let who = login.as_ref().map(|entry| entry.key.clone());
        let known = self
            .made
            .iter()
            .find(|(known, by, _)| *known == format!("{host}:{port}") && *by == who);
        if let Some((_, _, name)) = known {
            return Some(name.clone());
        }
        if !is_host {
            draft.changes(
                format!("{what}: {}", words::shown_hop(hop)),
                place.cloned(),
                "without brackets Postfix asks DNS for its mail servers (MX); Postern takes it as the name of a host",
            );
        }
        let base = if draft.connectors.is_empty() {
            "smarthost".to_owned()
        } else {
            words::section_name(&host, "smarthost")
        };
        let name = words::unique(&base, |name| {
            draft.connectors.iter().any(|c| c.name == name)
        });
        let login = match login {
            Some(entry) => Self::read_login(&entry, draft),
            None => self.has_unread_logins.then(|| LoginDraft {
                beside: Some(("username", "USER".to_owned())),
                key: "password",
                file: "password",
                secret: LoginSecret::Missing,
            }),
        };
        let mut smarthost = OldSmarthost {
            host: host.clone(),
            port,
            tls: self.tls,
            has_login: login.is_some(),
            ca_file: self.ca_file.clone(),
            client: self.client.clone(),
            helo: self.helo.clone(),
            ..OldSmarthost::default()
        };
        smarthost::secure(&mut smarthost, what, place, draft);
        let mut connector: ImportedConnector = smarthost.draft(&name);
        connector.login = login;
        draft.connectors.push(connector);
        self.made
            .push((format!("{host}:{port}"), who, name.clone()));
        Some(name)
    }

    fn read_login(entry: &MapEntry, draft: &mut ImportDraft) -> Option<LoginDraft> {
        // A line that is not understood may be a password, and is named by its place alone.
        let login = entry.value.split_once(':');
        let Some((name, password)) = login.filter(|(name, _)| words::is_fine(name)) else {
            draft.leaves(
                "smtp_sasl_password_maps",
                Some(entry.place.clone()),
                "this is no user name and password with a colon between them",
            );
            return None;
        };
        let secret = if words::is_password(password) {
            LoginSecret::Known(Secret::new(password), Some(entry.place.clone()))
        } else {
            draft.leaves(
                "smtp_sasl_password_maps",
                Some(entry.place.clone()),
                "it holds no password that can be kept in a file",
            );
            LoginSecret::Missing
        };
        Some(LoginDraft {
            beside: Some(("username", name.to_owned())),
            key: "password",
            file: "password",
            secret,
        })
    }

    /// `transport_maps`: routes by recipient.
    fn transports(
        &mut self,
        fallback: &str,
        files: &dyn NamedFiles,
        draft: &mut ImportDraft,
    ) -> Result<(), NotUnderstood> {
        let place = self.main.place("transport_maps");
        let (mut entries, unread) = maps::read(
            &self.main.list("transport_maps")?,
            fallback,
            files,
            place.as_ref(),
        );
        for one in unread {
            draft.lacks(
                format!("transport_maps: {}", one.map),
                place.clone(),
                one.why,
            );
        }
        // As Postfix looks them up: an address, a domain, the domains around it from the nearest, everything.
        entries.sort_by_key(|entry| {
            let rank = match entry.key.as_str() {
                "*" => 3,
                key if key.contains('@') => 0,
                key if key.starts_with('.') => 2,
                _ => 1,
            };
            (rank, std::cmp::Reverse(entry.key.matches('.').count()))
        });
        for entry in entries {
            let recipient = match entry.key.strip_prefix('.') {
                Some(parent) => words::pattern(&format!("*.{parent}")),
                None => words::pattern(&entry.key),
            };
            let (kind, hop) = entry.value.split_once(':').unwrap_or((&entry.value, ""));
            let shown = words::shown_hop(&entry.value);
            let what = format!("transport_maps: {} {shown}", entry.key);
            let Some(recipient) = recipient else {
                draft.lacks(
                    what,
                    Some(entry.place),
                    "this key cannot be said as a pattern",
                );
                continue;
            };
            if draft
                .routes
                .iter()
                .any(|route| route.recipients.contains(&recipient))
            {
                continue;
            }
            let why = match kind {
                "smtp" | "relay" | "" if !hop.is_empty() => None,
                "smtp" | "relay" | "" => {
                    Some("it asks DNS where to (MX), which Postern does not do")
                }
                _ => Some("only the transports smtp and relay are carried over"),
            };
            if let Some(why) = why {
                draft.lacks(what, Some(entry.place.clone()), why);
                self.has_no_default |= recipient == "*";
                continue;
            }
            let Some(connector) =
                self.connector(hop, None, "transport_maps", Some(&entry.place), draft)
            else {
                continue;
            };
            let route = RouteDraft {
                name: words::section_name(&entry.key, "everything"),
                recipients: vec![recipient],
                connectors: vec![connector],
                ..RouteDraft::default()
            };
            Self::add_route(route, draft);
        }
        Ok(())
    }

    fn add_route(mut route: RouteDraft, draft: &mut ImportDraft) {
        let same = draft.routes.iter_mut().find(|same| {
            same.connectors == route.connectors
                && !same.recipients.is_empty()
                && rank(&same.recipients[0]) == rank(&route.recipients[0])
        });
        if let Some(same) = same {
            same.recipients.extend(route.recipients);
            return;
        }
        route.name = words::unique(&route.name, |name| {
            draft.routes.iter().any(|r| r.name == name)
        });
        draft.routes.push(route);
    }

    /// Relay hosts, and logins, by sender.
    fn by_sender(
        &mut self,
        fallback: &str,
        files: &dyn NamedFiles,
        draft: &mut ImportDraft,
    ) -> Result<(), NotUnderstood> {
        let place = self.main.place("sender_dependent_relayhost_maps");
        let maps = self.main.list("sender_dependent_relayhost_maps")?;
        let (mut entries, unread) = maps::read(&maps, fallback, files, place.as_ref());
        for one in unread {
            draft.lacks(
                format!("sender_dependent_relayhost_maps: {}", one.map),
                place.clone(),
                one.why,
            );
        }
        let relayhost = self.main.value("relayhost")?;
        let by_login = self.main.flag("smtp_sender_dependent_authentication")?;
        if by_login {
            // Who logs in by sender has a way of its own, to the same host.
            let senders: Vec<MapEntry> = self
                .logins
                .iter()
                .filter(|entry| entry.key.contains('@'))
                .cloned()
                .collect();
            for login in senders {
                if !relayhost.is_empty() && !entries.iter().any(|entry| entry.key == login.key) {
                    entries.push(MapEntry {
                        key: login.key,
                        value: relayhost.clone(),
                        place: login.place,
                    });
                }
            }
        }
        entries.sort_by_key(|entry| entry.key.starts_with('@'));
        for entry in entries {
            let sender = words::pattern(entry.key.strip_prefix('@').unwrap_or(&entry.key));
            let what = format!(
                "sender_dependent_relayhost_maps: {} {}",
                entry.key,
                words::shown_hop(&entry.value)
            );
            let Some(sender) = sender.filter(|_| entry.key.contains('@')) else {
                draft.lacks(
                    what,
                    Some(entry.place),
                    "this key cannot be said as a pattern",
                );
                continue;
            };
            if entry.value.eq_ignore_ascii_case("dunno")
                || draft
                    .routes
                    .iter()
                    .any(|route| route.senders.contains(&sender))
            {
                continue;
            }
            let as_sender = by_login.then_some(entry.key.as_str());
            let Some(connector) = self.connector(
                &entry.value,
                as_sender,
                "sender_dependent_relayhost_maps",
                Some(&entry.place),
                draft,
            ) else {
                continue;
            };
            let name = words::section_name(&entry.key, "sender");
            let name = words::unique(&name, |name| {
                draft.routes.iter().any(|route| route.name == name)
            });
            draft.routes.push(RouteDraft {
                name,
                senders: vec![sender],
                connectors: vec![connector],
                ..RouteDraft::default()
            });
        }
        Ok(())
    }

    /// `relayhost`, or the next hop of `default_transport`.
    fn everything_else(&mut self, draft: &mut ImportDraft) -> Result<(), NotUnderstood> {
        let has_one =
            |route: &RouteDraft| route.recipients.iter().any(|recipient| recipient == "*");
        if self.has_no_default || draft.routes.iter().any(has_one) {
            return Ok(());
        }
        let transport = self.main.value("default_transport")?;
        let (kind, hop) = transport.split_once(':').unwrap_or((&transport, ""));
        if !matches!(kind, "smtp" | "relay") {
            draft.lacks(
                format!("default_transport = {transport}"),
                self.main.place("default_transport"),
                "only the transports smtp and relay are carried over",
            );
            return Ok(());
        }
        let mut hops = self.main.list("relayhost")?;
        let mut what = "relayhost";
        if hops.is_empty() && !hop.is_empty() {
            hops = vec![hop.to_owned()];
            what = "default_transport";
        }
        if hops.is_empty() {
            let place = self.main.place("relayhost");
            draft.notes.add(
                NoteKind::NoWayOut,
                "delivery by MX",
                place,
                "there is no relayhost: Postfix asked DNS where each mail goes, and Postern hands all of it to a smarthost, which you have to name",
            );
            return Ok(());
        }
        hops.extend(self.main.list("smtp_fallback_relay")?);
        let place = self.main.place(what);
        let mut connectors: Vec<String> = Vec::new();
        for hop in hops {
            let name = self.connector(&hop, None, what, place.as_ref(), draft);
            connectors.extend(name.filter(|name| !connectors.contains(name)));
        }
        if !connectors.is_empty() {
            let name = words::unique("default", |name| {
                draft.routes.iter().any(|route| route.name == name)
            });
            draft.routes.push(RouteDraft {
                name,
                connectors,
                ..RouteDraft::default()
            });
        }
        Ok(())
    }
}

/// The order in which Postfix looks a recipient up.
fn rank(pattern: &str) -> u8 {
    match pattern {
        "*" => 3,
        _ if pattern.contains('@') => 0,
        _ if pattern.starts_with("*.") => 2,
        _ => 1,
    }
}
