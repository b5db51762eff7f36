//! Where the database is, from the words of the configuration to those of the store; its certificates are read here.
//!
//! Connects to nothing, and decides nothing that the store decides.

use std::{path::Path, sync::Arc};

use crate::{
    config::cluster::{
        ClusterSettings, DatabaseDurability, DatabaseHost, DatabaseTls, PostgresSettings,
    },
    connector::{tls_config, tls_trouble},
    mail::tls::TlsVersion,
    queue::postgres::{Durability, Server, Settings},
};

/// The port of PostgreSQL, which is also in the name of its Unix socket.
const PORT: u16 = 5432;

/// What the store of `[postgres]` needs to know. `migrates`: a gateway makes what is missing, a command does not.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub fn settings(
    postgres: &PostgresSettings,
    _: &ClusterSettings,
    data_dir: &Path,
    migrates: bool,
) -> Result<Settings, String> {
    let tls = postgres.tls.as_ref().map(tls).transpose()?;
    let hosts = postgres.hosts.iter().map(|host| match host {
        DatabaseHost::Tcp(host, port) => Server::Host(host.clone(), *port),
        DatabaseHost::Socket(directory) => Server::Socket(directory.clone(), PORT),
    });
    Ok(Settings {
        hosts: hosts.collect(),
        database: postgres.database.clone(),
        username: postgres.username.clone(),
        password: postgres.password.clone(),
        tls,
        schema: postgres.schema.clone(),
        connections: postgres.connections,
        durability: match postgres.durability {
            DatabaseDurability::Primary => Durability::Primary,
            DatabaseDurability::Quorum => Durability::Quorum,
        },
        data_dir: data_dir.to_owned(),
        migrates,
        patience: Settings::PATIENCE,
        tls_words,
        callers_clock: false,
    })
}

/// Why there is no TLS to the database.
fn tls_words(error: &rustls::Error, host: &str) -> String {
    // Where it is said of connectors, what is up the stream is another.
    tls_trouble(error, host).replace("the upstream", "the database")
}

fn tls(settings: &DatabaseTls) -> Result<Arc<rustls::ClientConfig>, String> {
    let pair = settings.client_certificate.as_ref();
    let pair = pair.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let ca_file = settings.ca_file.as_deref();
    tls_config(settings.verify, ca_file, pair, TlsVersion::V1_2)
        .map(Arc::new)
        .map_err(|why| format!("[postgres]: {why}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::Duration};

    use rcgen::{CertificateParams, CertifiedKey, Issuer, KeyPair};
    use rustls::{
        ServerConfig, ServerConnection,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    };
    use tempfile::TempDir;

    use super::*;
    use crate::{config::cluster::OnOutage, connector::Verify, secret::Secret};

    fn postgres(tls: Option<DatabaseTls>) -> PostgresSettings {
        PostgresSettings {
            hosts: vec![
                DatabaseHost::Tcp("db1.corp.example".to_owned(), 6432),
                DatabaseHost::Socket("/run/postgresql".into()),
            ],
            database: "mail".to_owned(),
            username: "relay".to_owned(),
            password: Some(Secret::new("hunter2")),
            tls,
            schema: "queue".to_owned(),
            connections: 12,
            durability: DatabaseDurability::Quorum,
            on_outage: OnOutage::Spill,
        }
    }

    fn made(tls: Option<DatabaseTls>) -> Result<Settings, String> {
        let cluster = ClusterSettings {
            name: "relay-a".to_owned(),
            keys: Vec::new(),
            dead_after: Duration::from_mins(1),
            share_for: Duration::from_hours(1),
            spill_size: 1 << 30,
        };
        settings(&postgres(tls), &cluster, "/var/lib/postern".as_ref(), true)
    }

    fn tls_of(
        verify: Verify,
        ca_file: &Path,
        pair: Option<(&Path, &Path)>,
    ) -> Result<Settings, String> {
        made(Some(DatabaseTls {
            verify,
            ca_file: Some(ca_file.to_owned()),
            client_certificate: pair.map(|(chain, key)| (chain.to_owned(), key.to_owned())),
        }))
    }

    /// A folder with an authority and what a database of this name shows; and another pair.
    struct Files {
        dir: TempDir,
        server: Arc<ServerConfig>,
    }

    impl Files {
        fn of(name: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
            let authority_key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let authority = params.self_signed(&authority_key).unwrap();
            write("ca.pem", authority.pem());
            let key = KeyPair::generate().unwrap();
            let issuer = Issuer::new(params, authority_key);
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let own = params.signed_by(&key, &issuer).unwrap();
            for name in ["one", "other"] {
                let CertifiedKey { cert, signing_key } =
                    rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
                write(&format!("{name}.pem"), cert.pem());
                write(&format!("{name}.key"), signing_key.serialize_pem());
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let server = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![own.der().clone()],
                    PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                )
                .unwrap();
            Self {
                dir,
                server: Arc::new(server),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Whether a client of these settings goes on with the database that it asked for by this name.
        fn is_trusted(&self, settings: &Settings, name: &str) -> bool {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let config = settings.tls.clone().unwrap();
            let mut client = rustls::ClientConnection::new(config, name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
            while client.is_handshaking() {
                let mut octets = Vec::new();
                client.write_tls(&mut octets).unwrap();
                server.read_tls(&mut octets.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                let mut octets = Vec::new();
                server.write_tls(&mut octets).unwrap();
                client.read_tls(&mut octets.as_slice()).unwrap();
                if client.process_new_packets().is_err() {
                    return false;
                }
            }
            true
        }
    }

    #[test]
    fn the_store_is_told_what_the_file_says() {
        let all = made(None).unwrap();
        let hosts: Vec<String> = all.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["db1.corp.example:6432", "/run/postgresql"]);
        assert_eq!(all.hosts[1], Server::Socket("/run/postgresql".into(), 5432));
        let names = [&all.database, &all.username, &all.schema];
        assert_eq!(names, ["mail", "relay", "queue"]);
        assert_eq!(all.password, Some(Secret::new("hunter2")));
        assert_eq!((all.connections, all.durability), (12, Durability::Quorum));
        assert_eq!(all.data_dir, Path::new("/var/lib/postern"));
        assert!(all.tls.is_none() && all.migrates && !all.callers_clock);
        assert_eq!(all.patience, Duration::from_secs(5));
    }

    #[test]
    fn it_is_trusted_as_an_upstream_would_be() {
        let files = Files::of("db1.corp.example");
        let (own, stranger) = (files.path("ca.pem"), files.path("other.pem"));
        for (verify, ca_file, name, is_trusted) in [
            (Verify::Full, &own, "db1.corp.example", true),
            (Verify::Full, &own, "db2.corp.example", false),
            (Verify::Full, &stranger, "db1.corp.example", false),
            (Verify::Certificate, &own, "db2.corp.example", true),
            (Verify::Certificate, &stranger, "db1.corp.example", false),
            (Verify::None, &stranger, "db2.corp.example", true),
        ] {
            let settings = tls_of(verify, ca_file, None).unwrap();
            let found = files.is_trusted(&settings, name);
            assert_eq!(found, is_trusted, "{verify:?} {} {name}", ca_file.display());
        }
    }

    #[test]
    fn what_is_wrong_with_its_certificate_is_said_in_words() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let said = tls_words(&unknown, "db1.corp.example");
        let expected = "the database's certificate is from an unknown issuer, nothing secret was sent; set ca_file to its issuer's certificate";
        assert!(said.starts_with(expected), "{said}");
        assert!(said.contains("that of db1.corp.example itself"), "{said}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let files = Files::of("db1.corp.example");
        let path = |name| files.path(name);
        let (ca, none) = (path("ca.pem"), path("none.pem"));
        let (chain, key) = (path("one.pem"), path("one.key"));
        let fine = tls_of(Verify::Full, &ca, Some((&chain, &key))).unwrap();
        assert!(fine.tls.unwrap().client_auth_cert_resolver.has_certs());
        for (ca_file, pair, words) in [
            (&none, None, ["ca_file", "none.pem"]),
            (&key, None, ["ca_file", "one.key: no certificate"]),
            (&ca, Some((&none, &key)), ["client_certificate", "none.pem"]),
            (&ca, Some((&chain, &none)), ["client_key", "none.pem"]),
            (
                &ca,
                Some((&path("other.pem"), &key)),
                ["client_certificate and client_key", "not"],
            ),
        ] {
            let pair = pair.map(|(chain, key)| (chain.as_path(), key.as_path()));
            let said = tls_of(Verify::Full, ca_file, pair).unwrap_err();
            assert!(said.starts_with("[postgres]: "), "{said}");
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}
