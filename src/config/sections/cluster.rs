//! `[cluster]`: which gateway this is among those that share the database, and what they seal together.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    connector::Connectors,
    context::{Context, section_name},
    secret,
};
use crate::config::{
    cluster::{ClusterSettings, SealingKey},
    table::Table,
    values::fault,
};

/// Reads the section, which may be absent; `None` when it is not right.
pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Option<ClusterSettings> {
    let table = root.table("cluster");
    let keys = keys(context, &table);
    let given = table.parsed("name", section_name).map(|at| at.value);
    let dead_after = table.duration("dead_after");
    let share_for = table.duration("share_for");
    let spill_size = table.size("spill_size");
    table.finish();
    Some(ClusterSettings {
        name: given.or_else(|| own_name(context))?,
        keys: keys?,
        dead_after,
        share_for,
        spill_size,
    })
}

/// The machine's, up to its first dot.
fn own_name(context: Context<'_>) -> Option<String> {
    let name = context.env.hostname.split('.').next().unwrap_or_default();
    section_name(name).ok()
}

/// Says that this machine has no name to go by, and what is renewed but cannot be shared.
pub(super) fn check(context: Context<'_>, root: &Table<'_>, connectors: &Connectors) {
    let table = root.table("cluster");
    if !table.has("name") && own_name(context).is_none() {
        context.error(&table.span, fault!("the name of this machine cannot be that of a gateway"; "add name = \"relay-a\" to [cluster]"));
    }
    if table.has("key") {
        return;
    }
    for span in connectors.renewing() {
        context.error(
            span,
            fault!("what is renewed is shared through the database: set cluster.key";
                "add key = {{ file = \"secrets/cluster.key\" }} to [cluster]; `openssl rand -base64 32` makes one"),
        );
    }
}

/// One a line. `None`: one of them is none.
fn keys(context: Context<'_>, table: &Table<'_>) -> Option<Vec<SealingKey>> {
    if !table.has("key") {
        return Some(Vec::new());
    }
    let given = secret::read_lines(context, table, "key")?;
    if !given.known {
        return Some(Vec::new());
    }
    let lines = given.secret.reveal().split_ascii_whitespace();
    let keys: Option<Vec<SealingKey>> = lines.map(key).collect();
    let keys = keys.filter(|keys| !keys.is_empty());
    if keys.is_none() {
        context.error(&given.span, fault!("`key` takes 32 octets in base64, one key a line"; "`openssl rand -base64 32` makes one"));
    }
    keys
}

fn key(text: &str) -> Option<SealingKey> {
    let octets = STANDARD.decode(text).ok()?;
    octets.try_into().ok().map(SealingKey)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, path::Path, time::Duration};

    use toml::de::DeTable;

    use super::*;
    use crate::config::{
        settings::{Environment, Secrets},
        source::Source,
    };

    #[test]
    fn a_gateway_goes_by_the_name_of_its_machine_and_the_first_key_seals() {
        let text = "[cluster]\nkey = \"\"\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\nZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\"\"\"\n";
        let (root, _) = DeTable::parse_recoverable(text);
        let source = Source::new(Path::new("config.toml"), text);
        let env = Environment {
            hostname: "relay-a.corp.example".to_owned(),
            ..Environment::default()
        };
        let context = Context {
            source: &source,
            base: Path::new(""),
            secrets: Secrets::Resolve,
            env: &env,
            files: &RefCell::default(),
        };
        let all = read(context, &Table::root(&source, &root)).unwrap();
        assert_eq!(all.name, "relay-a");
        let keys: Vec<&[u8]> = all.keys.iter().map(|key| key.0.as_slice()).collect();
        assert_eq!(
            keys,
            [
                b"0123456789abcdef0123456789abcdef".as_slice(),
                b"fedcba9876543210fedcba9876543210"
            ]
        );
        assert_eq!(format!("{:?}", all.keys), "[***, ***]");
        assert_eq!(
            (all.dead_after, all.share_for, all.spill_size),
            (Duration::from_mins(1), Duration::from_hours(1), 1 << 30)
        );
    }
}
