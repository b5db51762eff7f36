//! The sending half of smtp2graph: the application in Entra as a graph connector, and how long mail is tried.
//!
//! Of a certificate only the key is named in its file, so that such a connector stands as a comment until it is whole.

use std::time::Duration;

use super::{
    super::{
        draft::{ImportDraft, ImportedConnector, LoginDraft, LoginSecret, RouteDraft},
        files::{KEY, NamedFiles},
        words,
        yaml::{YamlNode, YamlValue},
    },
    keys::unknown,
};
use crate::secret::Secret;

/// Mail is tried at least so long.
const GIVE_UP: Duration = Duration::from_hours(48);
const SEND: &[&str] = &[
    "appReg",
    "retryLimit",
    "retryInterval",
    "forceMailbox",
    "mode",
];
const APPLICATION: &[&str] = &["tenant", "id", "secret", "certificate"];

pub(super) fn read(send: &YamlNode, files: &dyn NamedFiles, draft: &mut ImportDraft) {
    unknown(send, "send.", SEND, draft);
    let number = |key: &str, otherwise: u64| {
        send.get(key)
            .and_then(YamlNode::text)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(otherwise)
    };
    let minutes = number("retryLimit", 3)
        .saturating_add(1)
        .saturating_mul(number("retryInterval", 5));
    let time = Duration::from_secs(minutes.saturating_mul(60));
    if time > GIVE_UP {
        draft.give_up = Some(time);
    }
    let empty = YamlNode {
        line: send.line,
        value: YamlValue::Map(Vec::new()),
    };
    let application = send.get("appReg").unwrap_or(&empty);
    unknown(application, "send.appReg.", APPLICATION, draft);
    let text = |key: &str| application.get(key).and_then(YamlNode::text);
    let tenant = text("tenant")
        .filter(|text| words::is_fine(text))
        .map(|tenant| {
            let is_whole = tenant.contains('.') || is_guid(tenant);
            if is_whole {
                tenant.to_owned()
            } else {
                format!("{tenant}.onmicrosoft.com")
            }
        });
    let tenant = tenant.filter(|tenant| is_guid(tenant) || words::domain(tenant).is_some());
    let id = text("id").filter(|id| is_guid(id)).map(str::to_owned);
    let mut connector = ImportedConnector {
        name: "exchange".to_owned(),
        ..ImportedConnector::default()
    }
    .with("type", "graph");
    let mut lacks: Vec<&str> = Vec::new();
    match tenant {
        Some(tenant) => connector.set("tenant_id", tenant),
        None => lacks.push("tenant_id, the directory of the application"),
    }
    match id {
        Some(id) => connector.set("client_id", id),
        None => lacks.push("client_id, the ID of the application"),
    }
    if let Some(why) = credential(application, files, &mut connector, draft) {
        lacks.push(why);
    }
    if let Some(node) = send.get("forceMailbox") {
        match node.text().and_then(words::address) {
            Some(mailbox) => connector.set("mailbox", mailbox),
            None if node.text().is_none() => {}
            None => draft.lacks(
                "send.forceMailbox",
                node.place(),
                "it is no full address: each mail goes out by the mailbox of its sender",
            ),
        }
    }
    if !lacks.is_empty() {
        draft.lacks(
            "send.appReg",
            application.place(),
            format!(
                "nothing can be sent before these are there: {}",
                lacks.join("; ")
            ),
        );
        connector.asleep = Some(format!("It needs {}.", lacks.join("; ")));
    }
    draft.connectors.push(connector);
    draft.routes.push(RouteDraft {
        name: "default".to_owned(),
        connectors: vec!["exchange".to_owned()],
        ..RouteDraft::default()
    });
}

/// The secret, or the key; what is missing of it.
fn credential(
    application: &YamlNode,
    files: &dyn NamedFiles,
    connector: &mut ImportedConnector,
    draft: &mut ImportDraft,
) -> Option<&'static str> {
    if let Some(node) = application
        .get("secret")
        .filter(|node| node.text().is_some())
    {
        let secret = node.text().unwrap_or_default();
        if !words::is_password(secret) {
            return Some("client_secret, which cannot be kept in a file");
        }
        connector.login = Some(LoginDraft {
            beside: None,
            key: "client_secret",
            file: "secret",
            secret: LoginSecret::Known(Secret::new(secret), node.place()),
        });
        return None;
    }
    let Some(certificate) = application.get("certificate") else {
        return Some("client_secret, or certificate and key");
    };
    unknown(
        certificate,
        "send.appReg.certificate.",
        &["thumbprint", "privateKeyPath"],
        draft,
    );
    if let Some(node) = certificate.get("thumbprint") {
        draft.leaves(
            "send.appReg.certificate.thumbprint",
            node.place(),
            "only the key is named there: the certificate itself is needed, or a new pair, which `postern setup exchange --renew exchange` makes",
        );
    }
    let key = certificate.get("privateKeyPath");
    connector.set("certificate", "exchange.pem");
    match key
        .and_then(YamlNode::text)
        .map(|path| files.pem(path, KEY))
    {
        Some(Ok(found)) => connector.set("key", found),
        Some(Err(why)) => {
            draft.leaves(
                "send.appReg.certificate.privateKeyPath",
                key.and_then(YamlNode::place),
                why,
            );
            connector.set("key", "exchange.key");
        }
        None => connector.set("key", "exchange.key"),
    }
    Some("the certificate of its key, as a PEM file")
}

fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit())
        })
}
