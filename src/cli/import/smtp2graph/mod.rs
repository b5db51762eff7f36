//! smtp2graph: `config.yml`, its receiving half as listener, client and users, its sending half as a graph connector.
//!
//! It judged the envelope's sender alone and let a user's own list take the place of the list of all; Postern asks both.

use super::{
    draft::ImportDraft,
    files::{NamedFiles, SourceFile},
    note::{NotUnderstood, NoteKind},
    words,
    yaml::{self, YamlNode, YamlValue},
};
use keys::unknown;

mod keys;
mod receive;
mod send;

const TOP: &[&str] = &["mode", "send", "receive", "httpProxy"];

/// All of it.
pub(super) fn import(
    source: &SourceFile,
    files: &dyn NamedFiles,
) -> Result<ImportDraft, NotUnderstood> {
    let root = yaml::parse(&source.text)?;
    let is_one = TOP.iter().any(|key| root.get(key).is_some());
    if !is_one {
        return Err(NotUnderstood::new(
            root.place(),
            "there is neither `send` nor `receive` in it; the config.yml of smtp2graph is expected",
        ));
    }
    let mut draft = ImportDraft::new("smtp2graph");
    unknown(&root, "", TOP, &mut draft);
    let mode = root.get("mode");
    let word = mode
        .and_then(YamlNode::text)
        .unwrap_or("full")
        .to_ascii_lowercase();
    if word != "full" {
        draft.lacks(
            format!("mode: {word}"),
            mode.and_then(YamlNode::place),
            "Postern receives and sends in one; half of it is carried over as it stands",
        );
    }
    let empty = YamlNode {
        line: 1,
        value: YamlValue::Map(Vec::new()),
    };
    if word == "send" {
        // Nobody could send to it.
    } else {
        receive::read(root.get("receive").unwrap_or(&empty), files, &mut draft);
    }
    if word != "receive" || root.get("send").is_some() {
        send::read(root.get("send").unwrap_or(&empty), files, &mut draft);
    }
    if word == "receive" {
        draft.notes.add(
            NoteKind::NoWayOut,
            "mode: receive",
            mode.and_then(YamlNode::place),
            "it sent nothing itself: a way out has to be named",
        );
    }
    proxy(root.get("httpProxy"), &mut draft);
    Ok(draft)
}

fn proxy(node: Option<&YamlNode>, draft: &mut ImportDraft) {
    let Some(node) = node.filter(|node| !node.pairs().is_empty()) else {
        return;
    };
    unknown(
        node,
        "httpProxy.",
        &["host", "port", "protocol", "username", "password"],
        draft,
    );
    let text = |key: &str| node.get(key).and_then(YamlNode::text);
    let port = text("port")
        .and_then(|port| port.parse::<u16>().ok())
        .filter(|port| *port > 0);
    let (Some(host), Some(port)) = (text("host").and_then(words::host), port) else {
        draft.lacks("httpProxy", node.place(), "it is no host with a port");
        return;
    };
    if text("protocol").is_some_and(|protocol| !protocol.eq_ignore_ascii_case("http")) {
        draft.lacks(
            "httpProxy.protocol",
            node.place(),
            "TLS to the proxy itself is not spoken",
        );
        return;
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    draft.proxy = Some(format!("http://{host}:{port}"));
    if text("username").is_some() || text("password").is_some() {
        draft.leaves(
            "httpProxy.username",
            node.get("username").or(node.get("password")).and_then(YamlNode::place),
            "a password does not stand in what is written here: make it proxy = \"http://USER:PASSWORD@host:port\" in [outbound]",
        );
    }
}
