//! Which keys hold secrets and where those go, and what only the file itself may say. All of it is asked of `keys`, but the names that
//! no form tells.

use super::keys::{Form, Key, LATER, PATH, SECTIONS, of};

/// Sections that only the file itself may change: who may do what here, and where everything is.
pub(super) const ONLY_IN_FILE: [&str; 6] = [
    "admin",
    "admin_user",
    "admin_token",
    "postgres",
    "cluster",
    "outbound",
];

/// Sections whose secrets are sent to somebody.
pub(super) const OUTGOING: [&str; 2] = ["connector", "notify"];

/// Keys of those that decide to whom, and how safely.
const ENDPOINT: [&str; 15] = [
    "type",
    "service",
    "host",
    "port",
    "tls",
    "verify",
    "proxy",
    "provider",
    "tenant_id",
    "cloud",
    "login_url",
    "token_url",
    "graph_url",
    "url",
    "plaintext_credentials",
];

/// Of one name in a section, whatever its kind.
fn named<'a>(section: &'a str, name: &'a str) -> impl Iterator<Item = &'static Key> + 'a {
    let parts = SECTIONS.iter().filter(move |part| part.name == section);
    parts
        .flat_map(|part| part.keys.iter().copied().flatten())
        .filter(move |key| key.name == name)
}

/// Whether the key decides where a secret beside it goes.
pub(super) fn is_endpoint(name: &str) -> bool {
    ENDPOINT.contains(&name)
}

/// Whether the key holds a secret.
pub(super) fn is_secret(section: &str, name: &str) -> bool {
    named(section, name).any(|key| key.form == Form::Secret)
}

/// Whether a key of that name holds a secret in any section: for text that is not read, such as a comment.
pub(super) fn is_secret_somewhere(name: &str) -> bool {
    SECTIONS.iter().any(|part| is_secret(part.name, name))
}

/// Whether a value that stands behind such a name is a path all the same: in another section the key names a file, and no secret that
/// has that name has a dot in it.
pub(super) fn is_path_all_the_same(name: &str, value: &str) -> bool {
    let may_be = SECTIONS.iter().any(|part| is_path(part.name, name));
    may_be && value.contains('.')
}

/// Whether the value is a path, or a list of them.
pub(super) fn is_path(section: &str, name: &str) -> bool {
    named(section, name)
        .any(|key| matches!(key.form, Form::Text(text) | Form::List(text) | Form::TrueOr(text) if text == PATH))
}

/// Whether only the file itself may set the key.
pub(super) fn is_only_in_file(section: &str, name: &str) -> bool {
    let alone = [("", "data_dir"), ("queue", "store")];
    ONLY_IN_FILE.contains(&section)
        || section.is_empty() && ONLY_IN_FILE.contains(&name)
        || alone.contains(&(section, name))
        || name == "managed_identity"
        || is_path(section, name)
}

/// Whether the key is a credential that stands beside the file, so that no request can bring it.
pub(super) fn is_kept_elsewhere(section: &str, name: &str) -> bool {
    name == "managed_identity"
        || is_path(section, name) && !["ca_file", "directory"].contains(&name)
}

/// Whether the key names a section, so that nothing else can stand at it.
pub(super) fn is_section(name: &str) -> bool {
    let is_one = |key: &Key| matches!(key.form, Form::Section | Form::Sections);
    ONLY_IN_FILE.contains(&name) || LATER.contains(&name) || named("", name).any(is_one)
}

/// Where a key stands in the order of its section, for what is written anew.
pub(super) fn rank(section: &str, kind: &str, name: &str) -> usize {
    let first = ["name", "type", "provider"];
    first
        .iter()
        .position(|key| *key == name)
        .unwrap_or_else(|| {
            let at = of(section, kind).position(|key| key.name == name);
            first.len() + at.unwrap_or(usize::MAX / 2)
        })
}
