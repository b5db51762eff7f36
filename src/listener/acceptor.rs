//! TLS of listeners: PEM files to a configuration, and a socket to an encrypted stream.
//!
//! The only file in here that names a TLS library. A bad certificate is named before anything is bound.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::wire::{Prefixed, SecureStream, Wire};

use crate::watch::Files;

/// A warning is logged when a certificate ends within this time.
pub const EXPIRES_SOON: Duration = Duration::from_hours(30 * 24);

/// A handshake, or a PROXY header, must be finished within this.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(30);

/// A loaded chain with its key.
#[derive(Debug, Clone)]
pub struct LoadedCertificate {
    /// For the handshake: TLS 1.2 and 1.3.
    pub config: Arc<ServerConfig>,
    /// When the first certificate of the chain begins to be valid.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// A certificate of a listener, the files it comes from, and what makes an encrypted stream of a socket.
#[derive(Debug)]
pub struct Acceptor {
    chain: PathBuf,
    key: PathBuf,
    certificate: LoadedCertificate,
    files: Files,
}

impl Acceptor {
    /// Loads both files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn open(chain: &Path, key: &Path) -> Result<Self, String> {
        let files = Files::of(&[chain, key]);
        let certificate = load(chain, key)?;
        Ok(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            certificate,
            files,
        })
    }

    /// When the certificate begins.
    pub fn not_before(&self) -> SystemTime {
        self.certificate.not_before
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.certificate.not_after
    }

    /// The file of the chain.
    pub fn path(&self) -> &Path {
        &self.chain
    }

    /// The server's side of a handshake over a plain socket; `head` was read of it already and comes first.
    ///
    /// # Errors
    /// The handshake failed, or took too long; [`reason`] has words for it.
    pub(super) async fn encrypt(&self, wire: Wire, head: Bytes) -> io::Result<Wire> {
        let Wire::Plain(tcp) = wire else {
            return Err(io::Error::other("encrypted already"));
        };
        let config = Arc::clone(&self.certificate.config);
        let handshake = TlsAcceptor::from(config).accept(Prefixed { head, tcp });
        match timeout(HANDSHAKE, Box::pin(handshake)).await {
            Ok(stream) => Ok(Wire::Tls(Box::new(stream?))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether it comes from these files, and they are as they were. Blocks on the disk.
    pub fn is_still(&self, chain: &Path, key: &Path) -> bool {
        self.chain == chain && self.key == key && self.files == Files::of(&[chain, key])
    }
}

impl SecureStream for TlsStream<Prefixed> {
    fn version(&self) -> &'static str {
        match self.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }
}

/// Reads a PEM chain and its key.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn load(chain: &Path, key: &Path) -> Result<LoadedCertificate, String> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
    };
    let certificates = CertificateDer::pem_slice_iter(&read(chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("{} is not PEM: {e}", chain.display()))?;
    let Some(first) = certificates.first() else {
        return Err(format!(
            "{} holds no certificate (no \"BEGIN CERTIFICATE\" in it)",
            chain.display()
        ));
    };
    let (not_before, not_after) = validity(first).map_err(|e| {
        format!(
            "the first certificate in {} is broken: {e}",
            chain.display()
        )
    })?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| {
        format!(
            "{} holds no private key that can be used (PKCS#8, PKCS#1 or SEC1 in PEM, without a passphrase): {e}",
            key.display()
        )
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => format!(
                "the key in {} does not belong to the first certificate in {}",
                key.display(),
                chain.display()
            ),
            e => format!("{} with {}: {e}", chain.display(), key.display()),
        })?;
    Ok(LoadedCertificate {
        config: Arc::new(config),
        not_before,
        not_after,
    })
}

/// Why a handshake failed, for the log: what it means for the client, not what the library calls it.
pub fn reason(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, Error, PeerMisbehaved};
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return error.to_string();
    };
    let words = match inner {
        Error::AlertReceived(alert) => match alert {
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate => {
                "the client does not trust our certificate: give it the CA that signed it, or a certificate it knows"
            }
            Alert::CertificateExpired => {
                "the client says that our certificate has expired; its clock may be wrong"
            }
            Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
                "the client and this gateway have no version or cipher of TLS in common (1.2 and 1.3 are spoken here)"
            }
            Alert::CloseNotify | Alert::UserCanceled => "the client broke it off",
            other => return format!("the client ended it with TLS alert {}", u8::from(*other)),
        },
        Error::PeerIncompatible(_) => {
            "the client and this gateway have no version or cipher of TLS in common (1.2 and 1.3 are spoken here)"
        }
        Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            "the client asks for a server name (SNI) that no host can have: give it the gateway's host name or address"
        }
        Error::InvalidMessage(_) => "what the client sent is not TLS",
        Error::DecryptError => "what the client sent cannot be decrypted",
        Error::PeerMisbehaved(_) => "the client broke the rules of TLS",
        _ => "it could not be done",
    };
    words.to_owned()
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds.max(0) as u64))
            .ok_or_else(|| "its end is too far in the future".to_owned())
    };
    let validity = parsed.validity();
    Ok((
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (
            dir.join(format!("{name}.pem")),
            dir.join(format!("{name}.key")),
        );
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (chain, key)
    }

    #[test]
    fn reasons_are_sentences() {
        use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};
        for (error, expected) in [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "does not trust our certificate",
            ),
            (
                Error::AlertReceived(AlertDescription::NoRenegotiation),
                "TLS alert 100",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName),
                "(SNI)",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "in common",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "not TLS",
            ),
        ] {
            let said = reason(&std::io::Error::other(error));
            assert!(said.contains(expected), "{said}");
            // No name of a type or variant of a library.
            assert!(
                !said
                    .split(' ')
                    .any(|word| word.chars().skip(1).any(char::is_uppercase)
                        && !matches!(word, "TLS" | "CA" | "(SNI)" | "TLS.")),
                "{said}"
            );
        }
        let broken = std::io::Error::from(std::io::ErrorKind::TimedOut);
        assert_eq!(reason(&broken), "timed out");
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = mint(dir.path(), "a");
        let (_, other) = mint(dir.path(), "b");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(load(&chain, &key).is_ok());
        for (chain, key, expected) in [
            (&chain, &other, "does not belong to"),
            (&empty, &key, "holds no certificate"),
            (&chain, &chain, "holds no private key"),
            (&dir.path().join("none"), &key, "none cannot be read"),
        ] {
            let error = load(chain, key).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn changed_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = mint(dir.path(), "a");
        let tls = Acceptor::open(&chain, &key).unwrap();
        assert!(tls.is_still(&chain, &key));
        assert!(!tls.is_still(&key, &chain));
        std::fs::write(&chain, "rubbish").unwrap();
        assert!(!tls.is_still(&chain, &key));
        assert!(Acceptor::open(&chain, &key).is_err());
    }
}
