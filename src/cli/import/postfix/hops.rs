//! What Postfix says of all destinations at once: next hops as it writes them, its TLS, and mail that it delivered itself.
//!
//! Which destination there is for whom is known elsewhere.

use super::{
    super::{draft::ImportDraft, note::NotUnderstood, words},
    listeners::level,
    main_cf::MainCf,
};

/// Mail that was delivered on the machine, or taken from strangers for domains of its own.
pub(super) fn local(main: &MainCf, draft: &mut ImportDraft) -> Result<(), NotUnderstood> {
    if main.list("mydestination")?.is_empty() {
    } else if let Some(place) = main.place("mydestination") {
        draft.lacks(
            "mydestination",
            Some(place),
            "local delivery: mail for these domains goes the way of all other mail now",
        );
    } else {
        draft.leaves(
            "mydestination",
            None,
            "by default mail for the machine's own name was delivered there; it goes the way of all other mail now",
        );
    }
    if !main.list("relay_domains")?.is_empty()
        && main.is_set("relay_domains")
        && main.value("relay_domains")? != main.value("mydestination")?
    {
        draft.lacks(
            "relay_domains",
            main.place("relay_domains"),
            "strangers could send to these domains; only clients and users may send now",
        );
    }
    Ok(())
}

pub(super) fn tls(main: &MainCf, draft: &mut ImportDraft) -> Result<&'static str, NotUnderstood> {
    if main.flag("smtp_tls_wrappermode")? {
        return Ok("implicit");
    }
    let level = level(main, "smtp")?;
    let place = [
        "smtp_tls_security_level",
        "smtp_enforce_tls",
        "smtp_use_tls",
    ]
    .into_iter()
    .find_map(|name| main.place(name));
    if matches!(level.as_str(), "may" | "encrypt" | "dane" | "dane-only") {
        draft.changes(
            format!("smtp_tls_security_level = {level}"),
            place,
            "Postfix checks no certificate there, and Postern does: where the smarthost's is none that is trusted, name it in `ca_file`",
        );
    }
    Ok(match level.as_str() {
        "" | "none" => "off",
        "may" | "dane" => "opportunistic",
        _ => "starttls",
    })
}

/// A next hop: `[host]:port`, `host:port`, `host`.
pub(super) fn next_hop(text: &str) -> Option<(String, u16, bool)> {
    let text = text.trim();
    let (host, port, in_brackets) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => words::port_of(port)?,
            None if rest.is_empty() => 25,
            None => return None,
        };
        (host, port, true)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, words::port_of(port)?, false),
            None => (text, 25, false),
        }
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    Some((words::host(host)?, port, in_brackets || is_address))
}
