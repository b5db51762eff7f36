//! The receiving half of smtp2graph: where it listens, who may connect, who logs in, and which senders they may be.
//!
//! Who could not connect may not send, with a login or without.

use super::{
    super::{
        draft::{ClientDraft, ImportDraft, ListenerDraft, UserDraft},
        files::{CERTIFICATE, KEY, NamedFiles},
        words,
        yaml::YamlNode,
    },
    keys::{MOST, texts, unknown},
};
use crate::secret::Secret;

/// What it takes where the file says nothing.
const SIZE: u64 = 100 << 20;

const RECEIVE: &[&str] = &[
    "port",
    "listenAddress",
    "secure",
    "tlsKeyPath",
    "tlsCertPath",
    "maxSize",
    "ipWhitelist",
    "allowedFrom",
    "allowedRcpt",
    "allowInsecureAuth",
    "requireAuth",
    "users",
    "banner",
    "rateLimit",
    "authLimit",
];

pub(super) fn read(receive: &YamlNode, files: &dyn NamedFiles, draft: &mut ImportDraft) {
    unknown(receive, "receive.", RECEIVE, draft);
    for (key, why) in [
        ("banner", "the greeting says `hostname`"),
        (
            "rateLimit",
            "[limits] has messages_per_minute for each address",
        ),
        (
            "authLimit",
            "whoever guesses passwords is slowed down and then refused",
        ),
    ] {
        if let Some(node) = receive.get(key) {
            draft.leaves(format!("receive.{key}"), node.place(), why);
        }
    }
    draft.message_size = Some(SIZE);
    if let Some(node) = receive.get("maxSize") {
        match node.text().and_then(size) {
            Some(octets) => draft.message_size = Some(octets),
            None => draft.leaves("receive.maxSize", node.place(), "it is no size such as 25m"),
        }
    }
    let requires = receive
        .get("requireAuth")
        .and_then(YamlNode::flag)
        .unwrap_or_default();
    let everybody = patterns(receive.get("allowedFrom"), "receive.allowedFrom", draft);
    draft.allowed_recipients = patterns(receive.get("allowedRcpt"), "receive.allowedRcpt", draft);
    users(receive, everybody.as_ref(), requires, draft);
    let has_users = !draft.users.is_empty();
    if requires && !has_users {
        draft.lacks(
            "receive.requireAuth",
            receive.get("requireAuth").and_then(YamlNode::place),
            "there is no user who could log in: nobody may send",
        );
    }
    listeners(receive, files, requires, draft);
    clients(receive, requires, has_users, draft);
}

/// `25m`, `512k`.
fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "k" => 1 << 10,
        "m" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A list of addresses; absent: anybody. What is no pattern is left out, and admits nobody.
fn patterns(node: Option<&YamlNode>, what: &str, draft: &mut ImportDraft) -> Option<Vec<String>> {
    let node = node?;
    if node.text().is_none() && node.list().is_none() && node.pairs().is_empty() {
        // `allowedFrom:` with nothing behind it.
        return None;
    }
    let mut list: Vec<String> = Vec::new();
    for (text, item) in texts(Some(node)).unwrap_or_default() {
        match words::address(&text) {
            Some(address) if list.contains(&address) => {}
            Some(address) => list.push(address),
            None => draft.lacks(
                format!("{what}: {text}"),
                item.place(),
                "it is no full address",
            ),
        }
    }
    Some(list)
}

fn users(
    receive: &YamlNode,
    everybody: Option<&Vec<String>>,
    requires: bool,
    draft: &mut ImportDraft,
) {
    draft.allowed_senders = everybody.cloned();
    for user in receive
        .get("users")
        .and_then(YamlNode::list)
        .unwrap_or_default()
        .iter()
        .take(MOST)
    {
        unknown(
            user,
            "receive.users.",
            &["username", "password", "allowedFrom"],
            draft,
        );
        let name = user
            .get("username")
            .and_then(YamlNode::text)
            .unwrap_or_default();
        let password = user
            .get("password")
            .and_then(YamlNode::text)
            .unwrap_or_default();
        let what = format!("receive.users: {name}");
        if !words::is_fine(name) || name.len() > 255 {
            draft.lacks(what, user.place(), "it has no name that can be written");
            continue;
        }
        if password.is_empty() || password.contains('\u{fffd}') {
            // The name is not repeated: without its colon, the line of the password is a part of it.
            draft.lacks(
                "receive.users",
                user.place(),
                "a user has no password that could be hashed",
            );
            continue;
        }
        if draft
            .users
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(name))
        {
            draft.lacks(what, user.place(), "there is another user of that name");
            continue;
        }
        let own = patterns(user.get("allowedFrom"), "receive.users.allowedFrom", draft);
        let mut senders = own.clone().or_else(|| everybody.cloned());
        match (&own, everybody) {
            // The list of all must hold what one user may; the others are held to what they might by lists of their own.
            (Some(own), Some(_)) if requires => {
                let all = draft.allowed_senders.get_or_insert_default();
                for address in own {
                    if !all.contains(address) {
                        all.push(address.clone());
                    }
                }
            }
            (Some(own), Some(everybody))
                if own.iter().any(|address| !everybody.contains(address)) =>
            {
                draft.lacks(
                    format!("{what}: allowedFrom"),
                    user.place(),
                    "it holds addresses that receive.allowedFrom does not: whoever does not log in would get them, too",
                );
                senders = Some(
                    own.iter()
                        .filter(|address| everybody.contains(address))
                        .cloned()
                        .collect(),
                );
            }
            _ => {}
        }
        draft.users.push(UserDraft {
            name: name.to_owned(),
            password: Secret::new(password),
            senders,
        });
    }
}

fn listeners(receive: &YamlNode, files: &dyn NamedFiles, requires: bool, draft: &mut ImportDraft) {
    let place = receive.get("listenAddress").and_then(YamlNode::place);
    let port = match receive.get("port") {
        None => Some(25),
        Some(node) => node
            .text()
            .and_then(|text| text.parse::<u16>().ok())
            .filter(|port| *port > 0),
    };
    let Some(port) = port else {
        draft.lacks(
            "receive.port",
            receive.get("port").and_then(YamlNode::place),
            "it is no port",
        );
        return;
    };
    let hosts: Vec<std::net::IpAddr> = match receive.get("listenAddress").and_then(YamlNode::text) {
        // IPv4 as well.
        None => vec![std::net::Ipv6Addr::UNSPECIFIED.into()],
        Some(text) => {
            let Ok(ip) = text.parse() else {
                draft.lacks(
                    format!("receive.listenAddress: {text}"),
                    place,
                    "a listener is bound to an address",
                );
                return;
            };
            vec![ip]
        }
    };
    let is_secure = receive
        .get("secure")
        .and_then(YamlNode::flag)
        .unwrap_or_default();
    let file = |key: &str| receive.get(key).and_then(YamlNode::text);
    let mut certificate = None;
    let mut asleep = None;
    if let Some((chain, key)) = file("tlsCertPath").zip(file("tlsKeyPath")) {
        match files
            .pem(chain, CERTIFICATE)
            .and_then(|chain| Ok((chain, files.pem(key, KEY)?)))
        {
            Ok(pair) => certificate = Some(pair),
            Err(why) => draft.leaves(
                "receive.tlsCertPath",
                receive.get("tlsCertPath").and_then(YamlNode::place),
                format!("the listener offers no TLS: {why}"),
            ),
        }
    }
    if is_secure && certificate.is_none() {
        draft.lacks(
            "receive.secure",
            receive.get("secure").and_then(YamlNode::place),
            "TLS is required there, and there is no certificate for it",
        );
        asleep = Some(
            "TLS is required there: name a certificate (`postern cert` makes one).".to_owned(),
        );
        certificate = Some(("certs/relay.pem".to_owned(), "certs/relay.key".to_owned()));
    }
    let auth = match (draft.users.is_empty(), requires) {
        (true, _) => "off",
        (false, true) => "required",
        (false, false) => "optional",
    };
    // Without a certificate of its own it took passwords in the clear.
    let plaintext_auth = receive
        .get("allowInsecureAuth")
        .and_then(YamlNode::flag)
        .unwrap_or_default()
        || certificate.is_none();
    if plaintext_auth && auth != "off" {
        draft.changes(
            "receive.allowInsecureAuth",
            receive.get("allowInsecureAuth").and_then(YamlNode::place),
            "users log in without TLS, as they did: name a certificate and remove plaintext_auth",
        );
    }
    for host in hosts {
        let name = words::unique("smtp", |name| {
            draft.listeners.iter().any(|l| l.name == name)
        });
        draft.listeners.push(ListenerDraft {
            name,
            address: std::net::SocketAddr::new(host, port).to_string(),
            tls: if is_secure { "implicit" } else { "starttls" },
            certificate: certificate.clone(),
            auth,
            plaintext_auth,
            asleep: asleep.clone(),
            ..ListenerDraft::default()
        });
    }
}

/// Who could connect; nobody else may send now, not with a login either.
fn clients(receive: &YamlNode, requires: bool, has_users: bool, draft: &mut ImportDraft) {
    let whitelist = texts(receive.get("ipWhitelist"));
    if requires && !has_users {
        return;
    }
    let odd = receive
        .get("ipWhitelist")
        .filter(|node| whitelist.is_none() && (node.text().is_some() || !node.pairs().is_empty()));
    if let Some(node) = odd {
        draft.lacks(
            "receive.ipWhitelist",
            node.place(),
            "it is no list, which let nobody in: nobody may send",
        );
        return;
    }
    let Some(list) = whitelist else {
        if requires {
            // Whoever logs in, from anywhere.
            draft.clients.push(ClientDraft {
                name: "this-machine".to_owned(),
                comment: Some("The listener asks everybody for a login."),
                networks: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
                ..ClientDraft::default()
            });
            return;
        }
        let private = [
            "127.0.0.0/8",
            "::1/128",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ];
        draft.clients.push(ClientDraft {
            name: "private".to_owned(),
            networks: private.into_iter().map(str::to_owned).collect(),
            ..ClientDraft::default()
        });
        draft.clients.push(ClientDraft {
            name: "everybody".to_owned(),
            comment: Some("There was no ipWhitelist: name the networks that really send."),
            networks: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            ..ClientDraft::default()
        });
        return;
    };
    let mut networks: Vec<String> = Vec::new();
    for (text, item) in list {
        match words::network(&text).map(|network| network.to_string()) {
            Some(network) if networks.contains(&network) => {}
            Some(network) => networks.push(network),
            None => draft.lacks(
                format!("receive.ipWhitelist: {text}"),
                item.place(),
                "it is no network",
            ),
        }
    }
    if has_users {
        let rest: Vec<String> = ["0.0.0.0/0", "::/0"]
            .into_iter()
            .map(str::to_owned)
            .filter(|everything| !networks.contains(everything))
            .collect();
        if !rest.is_empty() {
            draft.clients.push(ClientDraft {
                name: "everybody-else".to_owned(),
                comment: Some(
                    "Nobody else could connect, and so nobody else may send, logged in or not.",
                ),
                networks: rest,
                is_barred: true,
                ..ClientDraft::default()
            });
        }
    }
    if !networks.is_empty() {
        draft.clients.push(ClientDraft {
            name: "whitelist".to_owned(),
            networks,
            ..ClientDraft::default()
        });
    }
}
