//! msmtp: accounts of `msmtprc` as connectors, and routes by the senders they are for.
//!
//! It was a program, and not a gateway: who could run it may send, from this machine alone.

use super::{
    draft::{ClientDraft, ImportDraft, ListenerDraft, LoginDraft, LoginSecret, RouteDraft},
    files::{CERTIFICATE, KEY, NamedFiles, SourceFile},
    note::NotUnderstood,
    smarthost::{self, OldSmarthost},
    words,
};
use crate::{mail::unicode, secret::Secret};
use account::Account;

mod account;

/// All of it; a later file's accounts replace those of an earlier one.
pub(super) fn import(
    sources: &[SourceFile],
    files: &dyn NamedFiles,
) -> Result<ImportDraft, NotUnderstood> {
    let mut draft = ImportDraft::new("msmtp");
    let mut accounts: Vec<(String, Account)> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let label = (number > 0).then(|| source.label.clone());
        for (name, account) in account::read(source, label.as_ref(), &mut draft)? {
            accounts.retain(|(known, _)| *known != name);
            accounts.push((name, account));
        }
    }
    if accounts.is_empty() {
        return Err(NotUnderstood::new(
            None,
            "there is no account in it; a msmtprc is expected",
        ));
    }
    draft.listeners.push(ListenerDraft {
        name: "local".to_owned(),
        address: "127.0.0.1:25".to_owned(),
        ..ListenerDraft::default()
    });
    draft.clients.push(ClientDraft {
        name: "this-machine".to_owned(),
        networks: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
        ..ClientDraft::default()
    });
    let mut default = None;
    for (name, account) in &accounts {
        let Some(connector) = connector(name, account, files, &mut draft) else {
            continue;
        };
        route(&connector, account, &mut draft);
        if name == "default" {
            default = Some(connector);
        }
    }
    if let Some(connector) = default {
        let name = words::unique("default", |name| {
            draft.routes.iter().any(|route| route.name == name)
        });
        draft.routes.push(RouteDraft {
            name,
            connectors: vec![connector],
            ..RouteDraft::default()
        });
    } else {
        draft.changes(
            "account default",
            None,
            "there is none: a sender that is no account's `from` is refused",
        );
    }
    Ok(draft)
}

/// The connector of an account, and its name.
fn connector(
    name: &str,
    account: &Account,
    files: &dyn NamedFiles,
    draft: &mut ImportDraft,
) -> Option<String> {
    let what = format!("account {name}");
    let Some(host) = account.text("host").and_then(words::host) else {
        draft.lacks(what, account.place("host"), "it names no host");
        return None;
    };
    if account
        .text("protocol")
        .is_some_and(|protocol| protocol != "smtp")
    {
        draft.lacks(what, account.place("protocol"), "only SMTP is spoken");
        return None;
    }
    let tls = match (
        account.is_on("tls", false),
        account.is_on("tls_starttls", true),
    ) {
        (false, _) => "off",
        (true, true) => "starttls",
        (true, false) => "implicit",
    };
    let port = match account.text("port") {
        None | Some("") => Some(if tls == "implicit" { 465 } else { 25 }),
        Some(text) => words::port_of(text),
    };
    let Some(port) = port else {
        draft.lacks(what, account.place("port"), "its port is not known");
        return None;
    };
    let login = login(&what, account, draft);
    let mut smarthost = OldSmarthost {
        host,
        port,
        tls,
        has_login: login.is_some(),
        verify: (!account.is_on("tls_certcheck", true)).then_some("none"),
        auth: account
            .text("auth")
            .filter(|_| login.is_some())
            .and_then(|auth| match auth {
                "plain" => Some("plain"),
                "login" => Some("login"),
                _ => None,
            }),
        helo: helo(account, draft),
        proxy: proxy(account, draft),
        ..OldSmarthost::default()
    };
    if matches!(
        login,
        Some(LoginDraft {
            secret: LoginSecret::Missing,
            ..
        })
    ) {
        // It stands as a comment, and so does what would need it.
        smarthost.auth = None;
    }
    trust(account, files, &mut smarthost, draft);
    smarthost::secure(&mut smarthost, &what, account.place("host").as_ref(), draft);
    let name = words::section_name(name, "account");
    let name = words::unique(&name, |name| {
        draft.connectors.iter().any(|c| c.name == name)
    });
    let mut connector = smarthost.draft(&name);
    connector.login = login;
    draft.connectors.push(connector);
    Some(name)
}

fn trust(
    account: &Account,
    files: &dyn NamedFiles,
    smarthost: &mut OldSmarthost,
    draft: &mut ImportDraft,
) {
    match account.text("tls_trust_file") {
        None | Some("" | "system" | "/etc/ssl/certs/ca-certificates.crt") => {}
        Some(file) => match files.pem(file, CERTIFICATE) {
            Ok(found) => smarthost.ca_file = Some(found),
            Err(why) => draft.leaves(
                "tls_trust_file",
                account.place("tls_trust_file"),
                format!("the system's roots are used: {why}"),
            ),
        },
    }
    let pair = account
        .text("tls_cert_file")
        .zip(account.text("tls_key_file"));
    if let Some((certificate, key)) = pair.filter(|pair| !pair.0.is_empty() && !pair.1.is_empty()) {
        match files
            .pem(certificate, CERTIFICATE)
            .and_then(|one| Ok((one, files.pem(key, KEY)?)))
        {
            Ok(pair) => smarthost.client = Some(pair),
            Err(why) => draft.leaves(
                "tls_cert_file",
                account.place("tls_cert_file"),
                format!("no certificate is shown: {why}"),
            ),
        }
    }
}

fn helo(account: &Account, draft: &mut ImportDraft) -> Option<String> {
    let text = account.text("domain").filter(|text| !text.is_empty())?;
    let host = words::host(text);
    if host.is_none() {
        draft.leaves("domain", account.place("domain"), "EHLO says `hostname`");
    }
    host
}

/// A SOCKS proxy.
fn proxy(account: &Account, draft: &mut ImportDraft) -> Option<String> {
    let text = account.text("proxy_host").filter(|text| !text.is_empty())?;
    let port = account
        .text("proxy_port")
        .filter(|port| !port.is_empty())
        .unwrap_or("1080");
    match (words::host(text), port.parse::<u16>()) {
        (Some(host), Ok(port)) if port > 0 => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host
            };
            Some(format!("socks5://{host}:{port}"))
        }
        _ => {
            draft.leaves(
                "proxy_host",
                account.place("proxy_host"),
                "it is no host with a port",
            );
            None
        }
    }
}

fn login(what: &str, account: &Account, draft: &mut ImportDraft) -> Option<LoginDraft> {
    let auth = account.text("auth").unwrap_or("off");
    if auth == "off" {
        return None;
    }
    let place = account.place("auth");
    let user = account
        .text("user")
        .filter(|user| words::is_fine(user) && !user.contains(' '));
    let Some(user) = user else {
        draft.leaves(
            format!("{what}: auth"),
            place,
            "it names no user that can be written",
        );
        return None;
    };
    let password = account
        .text("password")
        .filter(|password| !password.is_empty());
    let missing = match auth {
        "" | "on" | "plain" | "login" | "cram-md5" | "digest-md5" | "scram-sha-1"
        | "scram-sha-256" => None,
        "external" | "gssapi" | "ntlm" | "oauthbearer" | "xoauth2" => Some(format!(
            "auth {auth} is not spoken with a password; see docs/exchange-online.md for tokens"
        )),
        // What else stands there may be a password.
        _ => Some("its auth is no method that msmtp has".to_owned()),
    };
    let missing = missing.or_else(|| match password {
        Some(password) if words::is_password(password) => None,
        Some(_) => Some("its password cannot be kept in a file".to_owned()),
        None if account.text("passwordeval").is_some_and(|text| !text.is_empty()) => {
            Some("passwordeval: no command is run; put what it prints into the file that stands there".to_owned())
        }
        None => Some("its password is in a keyring or a .netrc, or was asked for; put it into the file that stands there".to_owned()),
    });
    let secret = match (missing, password) {
        (None, Some(password)) => {
            draft.changes(
                format!("{what}: password"),
                account.place("password"),
                "it was for whoever can read that file; whatever may send by this gateway sends with this login now",
            );
            LoginSecret::Known(Secret::new(password), account.place("password"))
        }
        (why, _) => {
            let place = account.place("passwordeval").or(place);
            draft.leaves(
                format!("{what}: the login of {user}"),
                place,
                why.unwrap_or_default(),
            );
            LoginSecret::Missing
        }
    };
    Some(LoginDraft {
        beside: Some(("username", user.to_owned())),
        key: "password",
        file: "password",
        secret,
    })
}

/// The sender that an account is for.
fn route(connector: &str, account: &Account, draft: &mut ImportDraft) {
    let Some(from) = account.text("from").filter(|from| !from.is_empty()) else {
        return;
    };
    let pattern = if from.contains(['%', '?', '[']) || !from.contains('@') {
        None
    } else {
        words::pattern(&unicode::lower(from))
    };
    let Some(pattern) = pattern else {
        draft.leaves(
            format!("from {from}"),
            account.place("from"),
            "it cannot be said as a pattern; the sender is what the program says",
        );
        return;
    };
    if draft
        .routes
        .iter()
        .any(|route| route.senders.contains(&pattern))
    {
        return;
    }
    let name = words::unique(connector, |name| {
        draft.routes.iter().any(|route| route.name == name)
    });
    draft.routes.push(RouteDraft {
        name,
        senders: vec![pattern],
        connectors: vec![connector.to_owned()],
        ..RouteDraft::default()
    });
}
