//! Where Postfix listens: `inet_interfaces` times the services of `master.cf` that take mail by SMTP.
//!
//! A service that lets other clients in than the rest, or that asks for a login, stands as a comment: clients are one list in Postern.

use super::{
    super::{
        draft::{ImportDraft, ListenerDraft},
        files::{CERTIFICATE, KEY, NamedFiles},
        note::{NotUnderstood, SourcePlace},
        words,
    },
    left_out::{self, Handling},
    main_cf::MainCf,
    master_cf::MasterService,
    restrictions::{self, Permitted},
};

/// Options of a service by which fewer clients may send.
const STRICTER: [&str; 4] = [
    "smtpd_tls_req_ccert",
    "smtpd_upstream_proxy_protocol",
    "postscreen_upstream_proxy_protocol",
    "smtpd_sender_login_maps",
];
/// No more listeners are written.
const MOST: usize = 64;

/// What a service does about TLS and logins.
struct Manner {
    tls: &'static str,
    require_tls: bool,
    certificate: Option<(String, String)>,
    has_logins: bool,
    asleep: Option<String>,
}

pub(super) fn read(
    main: &MainCf,
    services: Option<&[MasterService]>,
    permitted: &Permitted,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<(), NotUnderstood> {
    let stock = [MasterService {
        name: "smtp".to_owned(),
        kind: "inet".to_owned(),
        command: "smtpd".to_owned(),
        own: Vec::new(),
        place: SourcePlace::default(),
    }];
    let interfaces = interfaces(main, draft)?;
    let mut has_logins = false;
    for service in services.unwrap_or(&stock) {
        if !service.takes_mail() {
            if !service.is_stock() {
                draft.leaves(
                    format!("the service {} ({})", service.name, service.command),
                    Some(service.place.clone()),
                    "only services that take mail by SMTP are carried over",
                );
            }
            continue;
        }
        let service = behind(service, services.unwrap_or_default());
        has_logins |= service_listeners(main, &service, permitted, &interfaces, files, draft)?;
    }
    if has_logins {
        draft.lacks(
            "smtpd_sasl_auth_enable",
            main.place("smtpd_sasl_auth_enable"),
            "users are made anew: a [[user]] each with the hash of `postern hash-password`, and then auth = \"optional\" for the listener",
        );
    }
    if services.is_some_and(|all| !all.iter().any(MasterService::takes_mail)) {
        draft.changes(
            "master.cf",
            None,
            "no service of it takes mail by SMTP; local programs use 127.0.0.1:25 now",
        );
        draft.listeners.push(ListenerDraft {
            name: "this-machine".to_owned(),
            address: "127.0.0.1:25".to_owned(),
            ..ListenerDraft::default()
        });
    }
    Ok(())
}

/// What postscreen lets through is asked by the `smtpd` behind it: its options count.
fn behind(service: &MasterService, all: &[MasterService]) -> MasterService {
    let mut service = service.clone();
    if service.command == "postscreen" {
        let smtpd = all
            .iter()
            .find(|one| one.kind == "pass" && one.command == "smtpd");
        service
            .own
            .extend(smtpd.into_iter().flat_map(|one| one.own.iter().cloned()));
    }
    service
}

/// The addresses of one service. Whether clients may log in there.
fn service_listeners(
    main: &MainCf,
    service: &MasterService,
    permitted: &Permitted,
    interfaces: &[String],
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<bool, NotUnderstood> {
    let own = main.with(&service.own, &service.place);
    let place = Some(service.place.clone()).filter(|place| place.line > 0);
    let Some((bound_to, port)) = service.bound_to() else {
        draft.lacks(
            format!("the service {}", service.name),
            place,
            "its port is not known",
        );
        return Ok(false);
    };
    let mut manner = manner(&own, service, files, draft)?;
    if service
        .own
        .iter()
        .any(|(name, _)| name == "mynetworks" || name.ends_with("_restrictions"))
    {
        let mut aside = ImportDraft::new("Postfix");
        let there = restrictions::permitted(&own, files, &mut aside)?;
        let is_same =
            there == *permitted && own.value("mynetworks")? == main.value("mynetworks")?;
        if !is_same {
            let why = "it lets other clients send than the rest does (or only those that log in)";
            draft.lacks(format!("the service {}", service.name), place.clone(), why);
            manner.asleep = Some(format!("In {}: {why}.", "master.cf"));
        }
        // What only this service asks, and Postern does not.
        let mut usual = ImportDraft::new("Postfix");
        restrictions::permitted(main, files, &mut usual)?;
        let more = aside.notes.weighty().filter(|note| !usual.notes.has(note));
        let more: Vec<_> = more.cloned().collect();
        for note in more {
            draft.lacks(
                format!("{} of the service {}", note.what, service.name),
                place.clone(),
                note.why,
            );
            let why = "it asks more than Postern does";
            manner.asleep = Some(format!("In {}: {why}.", "master.cf"));
        }
    }
    for (name, value) in &service.own {
        if let Handling::Decides(why) = left_out::handling(name)
            && !value.is_empty()
        {
            draft.lacks(
                format!("{name} of the service {}", service.name),
                place.clone(),
                why,
            );
            // A filter judges content; these say who is asked, and by which address.
            if STRICTER.contains(&name.as_str()) && !matches!(value.as_str(), "no") {
                let why = "it lets fewer clients send, or knows them by another address";
                manner.asleep = Some(format!("In {}: {why}.", "master.cf"));
            }
        }
    }
    let hosts = match bound_to {
        Some(host) => named(&host).unwrap_or_else(|| {
            draft.lacks(
                format!("the service {}", service.name),
                place,
                "a listener is bound to an address, not to a name",
            );
            Vec::new()
        }),
        None => interfaces.to_vec(),
    };
    for host in hosts
        .iter()
        .take(MOST.saturating_sub(draft.listeners.len()))
    {
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if draft
            .listeners
            .iter()
            .any(|listener| listener.address == address)
        {
            continue;
        }
        let base = match port {
            25 => "smtp".to_owned(),
            587 => "submission".to_owned(),
            465 => "smtps".to_owned(),
            _ => format!("port-{port}"),
        };
        let name = words::unique(&base, |name| draft.listeners.iter().any(|l| l.name == name));
        draft.listeners.push(ListenerDraft {
            name,
            address,
            tls: manner.tls,
            require_tls: manner.require_tls,
            certificate: manner.certificate.clone(),
            asleep: manner.asleep.clone(),
            ..ListenerDraft::default()
        });
    }
    Ok(manner.has_logins)
}

fn manner(
    own: &MainCf,
    service: &MasterService,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Result<Manner, NotUnderstood> {
    let level = level(own, "smtpd")?;
    let is_implicit = own.flag("smtpd_tls_wrappermode")?;
    let requires = is_implicit || !matches!(level.as_str(), "" | "none" | "may");
    let mut manner = Manner {
        tls: if is_implicit { "implicit" } else { "starttls" },
        require_tls: requires && !is_implicit,
        certificate: None,
        has_logins: own.flag("smtpd_sasl_auth_enable")?,
        asleep: None,
    };
    if matches!(level.as_str(), "" | "none") && !is_implicit {
        return Ok(manner);
    }
    let chain = own.list("smtpd_tls_chain_files")?;
    let (certificate, key) = match chain.first() {
        Some(file) => (file.clone(), file.clone()),
        None => (
            own.value("smtpd_tls_cert_file")?,
            own.value("smtpd_tls_key_file")?,
        ),
    };
    let found = files
        .pem(&certificate, CERTIFICATE)
        .and_then(|certificate| Ok((certificate, files.pem(&key, KEY)?)));
    match found {
        Ok(pair) => manner.certificate = Some(pair),
        Err(why) => {
            let what = if chain.is_empty() {
                "smtpd_tls_cert_file"
            } else {
                "smtpd_tls_chain_files"
            };
            let place = own
                .place(what)
                .or_else(|| Some(service.place.clone()).filter(|place| place.line > 0));
            if requires {
                // Without TLS, those could send who were refused for want of it.
                draft.lacks(
                    what,
                    place,
                    format!("TLS is required there, and its certificate is not to be had: {why}"),
                );
                manner.asleep = Some(
                    "TLS is required there: name a certificate (`postern cert` makes one)."
                        .to_owned(),
                );
                manner.certificate =
                    Some(("certs/relay.pem".to_owned(), "certs/relay.key".to_owned()));
            } else {
                draft.leaves(what, place, format!("the listener offers no TLS: {why}"));
            }
        }
    }
    Ok(manner)
}

/// `smtp_tls_security_level` or `smtpd_…`, and what said so before.
pub(super) fn level(main: &MainCf, side: &str) -> Result<String, NotUnderstood> {
    let level = main
        .value(&format!("{side}_tls_security_level"))?
        .to_ascii_lowercase();
    if !level.is_empty() {
        return Ok(level);
    }
    if main.flag(&format!("{side}_enforce_tls"))? {
        return Ok("encrypt".to_owned());
    }
    let uses = main.flag(&format!("{side}_use_tls"))?;
    Ok(if uses { "may" } else { "" }.to_owned())
}

/// The addresses of `inet_interfaces`, of the protocols that there are.
fn interfaces(main: &MainCf, draft: &mut ImportDraft) -> Result<Vec<String>, NotUnderstood> {
    let protocols = main.value("inet_protocols")?;
    let (four, six) = (
        protocols.contains("all") || protocols.contains("ipv4"),
        protocols.contains("all") || protocols.contains("ipv6"),
    );
    let mut hosts: Vec<String> = Vec::new();
    for word in main.list("inet_interfaces")? {
        match word.to_ascii_lowercase().as_str() {
            "all" => hosts.extend(["0.0.0.0".to_owned(), "::".to_owned()]),
            "loopback-only" => hosts.extend(["127.0.0.1".to_owned(), "::1".to_owned()]),
            bare => match named(bare.trim_matches(['[', ']'])) {
                Some(found) => hosts.extend(found),
                None => draft.lacks(
                    format!("inet_interfaces: {word}"),
                    main.place("inet_interfaces"),
                    "a listener is bound to an address, not to a name",
                ),
            },
        }
    }
    hosts.retain(|host| if host.contains(':') { six } else { four });
    // `[::]` takes IPv4 as well.
    if hosts.iter().any(|host| host == "::") {
        hosts.retain(|host| host != "0.0.0.0");
    }
    let mut seen: Vec<String> = Vec::new();
    for host in hosts {
        if !seen.contains(&host) && seen.len() < MOST {
            seen.push(host);
        }
    }
    Ok(seen)
}

/// An address, or the one name whose addresses everybody knows.
fn named(host: &str) -> Option<Vec<String>> {
    if host == "localhost" {
        return Some(vec!["127.0.0.1".to_owned(), "::1".to_owned()]);
    }
    let ip: std::net::IpAddr = host.parse().ok()?;
    Some(vec![ip.to_string()])
}
