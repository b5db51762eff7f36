//! `[postgres]`: where the database is that several gateways share, and who asks it. Connects to nothing.

use super::{context::Context, files, outbound, secret};
use crate::{
    config::{
        cluster::{DatabaseDurability, DatabaseHost, DatabaseTls, OnOutage, PostgresSettings},
        table::{Table, bare},
        values::{Fault, fault, plain},
    },
    connector::{Verify, is_loopback},
};

/// Where PostgreSQL listens unless it is told otherwise.
const PORT: u16 = 5432;
/// As long as a name in PostgreSQL may be.
const LONGEST_NAME: usize = 63;

/// The word of `tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsWord {
    Require,
    Off,
}

/// Reads the section, which may be absent; `None` when it is not right.
pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Option<PostgresSettings> {
    let table = root.table("postgres");
    if table.is_present() {
        table.requires("hosts", "hosts = [\"db1.corp.example:5432\"]");
    }
    let hosts = table.list("hosts", |text| host(context, text)).map(|at| {
        if at.value.is_empty() {
            context.error(
                &at.span,
                fault!("`hosts` names no database"; "write hosts = [\"db1.corp.example:5432\"]"),
            );
        }
        bare(at.value)
    });
    let password = secret::read(context, &table, "password");
    let tls = tls(context, &table, hosts.as_deref().unwrap_or_default());
    let name = |key| table.parsed_or_default(key, identifier);
    let (database, username, schema) = (name("database"), name("username"), name("schema"));
    let connections = table.number("connections") as usize;
    let durability = [DatabaseDurability::Primary, DatabaseDurability::Quorum];
    let durability = table.choice("durability", durability);
    let on_outage = table.choice("on_outage", [OnOutage::Spill, OnOutage::Refuse]);
    table.finish();
    Some(PostgresSettings {
        hosts: hosts.filter(|hosts| !hosts.is_empty())?,
        database: database?,
        username: username?,
        password: password.map(|given| given.secret),
        tls,
        schema: schema?,
        connections,
        durability,
        on_outage,
    })
}

/// Whether and how it is spoken to in secret. A password needs that, unless nobody can listen or somebody has said so.
fn tls(context: Context<'_>, table: &Table<'_>, hosts: &[DatabaseHost]) -> Option<DatabaseTls> {
    let given = table.choice_if("tls", [TlsWord::Require, TlsWord::Off]);
    let verify = table.choice("verify", [Verify::Full, Verify::Certificate, Verify::None]);
    let ca_file = files::pem(context, table, "ca_file", files::Pem::Certificate);
    let client_certificate = files::shown_pair(
        context,
        table,
        "client_certificate",
        "client_key",
        "get a new one from whoever runs the database, and name it here",
    );
    let plaintext_credentials = table.flag("plaintext_credentials");
    let is_socket = |host: &DatabaseHost| matches!(host, DatabaseHost::Socket(_));
    let is_local = !hosts.is_empty() && hosts.iter().all(is_socket);
    let word = given.as_ref().map_or(
        if is_local {
            TlsWord::Off
        } else {
            TlsWord::Require
        },
        |given| given.value,
    );
    if word == TlsWord::Require {
        if hosts.iter().any(is_socket) && table.has("tls") {
            table.error(
                "tls",
                fault!("there is no TLS on a Unix socket"; "leave `tls` out, or name hosts and ports only"),
            );
        }
        if verify == Verify::None && table.has("password") {
            table.warning(
                "verify",
                fault!("with verify = \"none\" anybody on the way can be the database, and read the mail";
                    "name the certificate of the server in `ca_file`, or write verify = \"certificate\""),
            );
        }
        return Some(DatabaseTls {
            verify,
            ca_file,
            client_certificate,
        });
    }
    let far = hosts.iter().find_map(|host| match host {
        DatabaseHost::Tcp(host, _) if !is_loopback(host) => Some(host),
        DatabaseHost::Tcp(..) | DatabaseHost::Socket(_) => None,
    });
    if let Some(far) = far
        && table.has("password")
        && !plaintext_credentials
    {
        table.error(
            "tls",
            fault!("the password would go to {} without TLS", plain(far);
                "write tls = \"require\"; or, where there is no other way, plaintext_credentials = true"),
        );
    }
    for key in ["verify", "ca_file", "client_certificate"] {
        if table.has(key) {
            table.error(
                key,
                fault!("`{key}` is for TLS, and there is none"; "write tls = \"require\", or remove `{key}`"),
            );
        }
    }
    None
}

/// A host and a port, or the directory of a Unix socket.
fn host(context: Context<'_>, text: &str) -> Result<DatabaseHost, Fault> {
    let wanted = || {
        fault!("\"{}\" is not a host and a port", plain(text);
            "write \"db1.corp.example:5432\", or \"/run/postgresql\" for a Unix socket")
    };
    if text.contains("://") || text.contains('=') {
        return Err(wanted());
    }
    if text.starts_with('/') {
        return Ok(DatabaseHost::Socket(context.path(&files::path(text)?)));
    }
    let (name, port) = match text.rsplit_once(':') {
        // An address of IPv6 without a port has colons of its own.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let port = port.parse().ok().filter(|port| *port > 0);
            (name, port.ok_or_else(wanted)?)
        }
        _ => (text, PORT),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = outbound::host(name).map_err(|_| wanted())?;
    Ok(DatabaseHost::Tcp(name, port))
}

/// What PostgreSQL may be asked for by name.
fn identifier(text: &str) -> Result<String, Fault> {
    let is_name = (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_name {
        return Ok(text.to_owned());
    }
    Err(
        fault!("\"{}\" cannot be a name in PostgreSQL", plain(text); "a name is 1 to {LONGEST_NAME} octets without control characters"),
    )
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, path::Path};

    use toml::de::DeTable;

    use super::*;
    use crate::config::{
        settings::{Environment, Secrets},
        source::Source,
    };

    fn settings(text: &str) -> PostgresSettings {
        let (root, faults) = DeTable::parse_recoverable(text);
        assert!(faults.is_empty(), "{faults:?}");
        let source = Source::new(Path::new("config.toml"), text);
        let context = Context {
            source: &source,
            base: Path::new("/etc/postern"),
            secrets: Secrets::CheckOnly,
            env: &Environment::default(),
            files: &RefCell::default(),
        };
        let settings = read(context, &Table::root(&source, &root)).unwrap();
        let said = source.finish();
        assert!(said.is_empty(), "{said:?}");
        settings
    }

    #[test]
    fn what_is_not_said_is_as_most_want_it() {
        let all = settings(
            "[postgres]\nhosts = [\"DB1.corp.example\", \"[2001:db8::1]:5433\", \"2001:db8::2\"]\npassword = \"hunter2\"\n",
        );
        let host = |name: &str, port| DatabaseHost::Tcp(name.to_owned(), port);
        assert_eq!(
            all.hosts,
            [
                host("db1.corp.example", 5432),
                host("2001:db8::1", 5433),
                host("2001:db8::2", 5432)
            ]
        );
        assert_eq!(
            (all.database.as_str(), all.username.as_str()),
            ("postern", "postern")
        );
        assert_eq!((all.schema.as_str(), all.connections), ("postern", 8));
        let tls = all.tls.clone().unwrap();
        assert_eq!((tls.verify, tls.ca_file), (Verify::Full, None));
        assert_eq!(all.on_outage, OnOutage::Spill);
        assert_eq!(all.durability, DatabaseDurability::Primary);
        assert!(!format!("{all:?}").contains("hunter2"));
    }

    #[test]
    fn a_unix_socket_needs_neither_tls_nor_a_password() {
        let all = settings(
            "[postgres]\nhosts = [\"/run/postgresql\"]\ndurability = \"quorum\"\non_outage = \"refuse\"\n",
        );
        assert_eq!(all.hosts, [DatabaseHost::Socket("/run/postgresql".into())]);
        assert_eq!((all.tls, all.password), (None, None));
        assert_eq!(all.durability, DatabaseDurability::Quorum);
        assert_eq!(all.on_outage, OnOutage::Refuse);
        // To itself a machine may say it aloud, and to others where somebody wants it so.
        let text = "[postgres]\ntls = \"off\"\npassword = \"hunter2\"\n";
        settings(&format!("{text}hosts = [\"127.0.0.1\"]\n"));
        let far = "hosts = [\"db1.corp.example\"]\nplaintext_credentials = true\n";
        settings(&format!("{text}{far}"));
    }
}
