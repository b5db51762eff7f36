//! TLS of listeners: PEM files to a configuration, and a socket to an encrypted stream.
//!
//! With `hello.rs` and `choice.rs` the only file in here that names a TLS library. A bad certificate is named before anything is
//! bound. Who may speak an old version is the policy's to say; what of that is used, the client's hello decides.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

mod caller;
mod choice;
mod clients;
mod ends;
mod hello;
mod old;
mod revocation;

use caller::HANDSHAKE;
pub(super) use caller::TlsCaller;
use choice::{Choice, ModernSide, TlsRemedy};
pub(super) use clients::ShownCertificate;
use clients::{CertificateVerdict, ClientTrust, short_key};
pub use clients::{ClientTrustPaths, look_at_client_trust};
pub use ends::CertificateEnd;
use ends::validity;
use hello::{ClientOffer, TlsOpening};
use old::OldSide;

use super::wire::{Prefixed, SecureStream, Wire};

use crate::{
    mail::tls::{TlsFloor, TlsVersion},
    old_tls::OldKey,
    watch::Files,
};

/// A warning is logged when a certificate ends within this time.
pub const EXPIRES_SOON: Duration = Duration::from_hours(30 * 24);

const MODERN: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A client must have said its hello within this.
const HELLO: Duration = Duration::from_secs(10);
/// A hello is read into so much room at first.
const PIECE: usize = 1024;

/// A loaded chain with its key.
#[derive(Debug, Clone)]
pub struct LoadedCertificate {
    /// For the handshake: TLS 1.2 and 1.3.
    pub config: Arc<ServerConfig>,
    /// For clients that are held to TLS 1.3.
    newest: Arc<ServerConfig>,
    /// What of TLS 1.2 goes with the key.
    modern: ModernSide,
    resolver: Arc<dyn ResolvesServerCert>,
    /// When the first certificate of the chain begins to be valid.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl LoadedCertificate {
    /// What its key can do in an old handshake; `None`: nothing.
    pub fn old_key(&self) -> Option<OldKey> {
        self.modern.old_key()
    }
}

/// The files of a listener's certificates: a chain and its key, those for old handshakes, where they are others, and what clients'
/// certificates are held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePaths {
    /// For everybody.
    pub own: (PathBuf, PathBuf),
    /// For old handshakes.
    pub old: Option<(PathBuf, PathBuf)>,
    /// For clients, where they are asked for one.
    pub clients: Option<ClientTrustPaths>,
}

impl CertificatePaths {
    fn all(&self) -> Vec<&PathBuf> {
        let pairs = std::iter::once(&self.own).chain(&self.old);
        let pairs = pairs.flat_map(|(chain, key)| [chain, key]);
        let clients = self.clients.iter();
        let clients = clients.flat_map(|one| std::iter::once(&one.ca).chain(&one.crl));
        pairs.chain(clients).collect()
    }
}

/// The certificates of a listener, the files they come from, and what makes an encrypted stream of a socket.
#[derive(Debug)]
pub struct Acceptor {
    paths: CertificatePaths,
    certificate: LoadedCertificate,
    old: OldSide,
    /// When the one for old handshakes begins and ends, where it is another.
    old_validity: Option<(SystemTime, SystemTime)>,
    /// What clients' certificates are held to, where they are asked for one.
    clients: Option<Arc<ClientTrust>>,
    provider: Arc<CryptoProvider>,
    files: Files,
}

/// A handshake is done.
#[derive(Debug)]
pub(super) struct Encrypted {
    pub(super) wire: Wire,
    /// What the client has shown, where it was asked for a certificate and has one.
    pub(super) certificate: Option<ShownCertificate>,
}

/// Why there is no encrypted stream.
#[derive(Debug)]
pub(super) struct TlsFailure {
    pub(super) error: io::Error,
    /// What it offers and what is to be done, where that is too little.
    pub(super) refused: Option<(String, String)>,
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            refused: None,
        }
    }
}

impl TlsFailure {
    /// For the log.
    pub(super) fn reason(&self) -> String {
        match &self.refused {
            Some((offers, hint)) => format!("it offers {offers}; {hint}"),
            None => reason(&self.error),
        }
    }
}

impl Acceptor {
    /// Loads all files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn open(paths: &CertificatePaths) -> Result<Self, String> {
        let files = Files::of(&paths.all());
        let (chain, key) = &paths.own;
        let certificate = load(chain, key)?;
        let (old, old_validity) = match &paths.old {
            None => (OldSide::read(chain, key, certificate.old_key())?, None),
            Some((chain, key)) => {
                let other = load(chain, key)?;
                let validity = (other.not_before, other.not_after);
                let side = OldSide::read(chain, key, other.old_key())?;
                (side, Some(validity))
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = paths.clients.as_ref();
        let clients = clients.map(|paths| ClientTrust::read(paths, &provider).map(Arc::new));
        Ok(Self {
            paths: paths.clone(),
            certificate,
            old,
            old_validity,
            clients: clients.transpose()?,
            provider,
            files,
        })
    }

    /// When each certificate ends, and what clients' certificates are held to.
    pub fn ends(&self) -> Vec<CertificateEnd> {
        let one = &self.certificate;
        let of = |(chain, _): &(PathBuf, PathBuf), begins, ends| CertificateEnd {
            kind: "listener",
            file: chain.clone(),
            begins,
            ends,
        };
        let own = of(&self.paths.own, one.not_before, one.not_after);
        let old = self.paths.old.as_ref().zip(self.old_validity);
        let old = old.map(|(pair, (begins, ends))| of(pair, begins, ends));
        let clients = self.clients.iter().flat_map(|trust| trust.ends());
        std::iter::once(own)
            .chain(old)
            .chain(clients.cloned())
            .collect()
    }

    /// The server's side of a handshake over a plain socket; `head` was read of it already and comes first.
    ///
    /// # Errors
    /// The handshake failed, or took too long.
    pub(super) async fn encrypt(
        &self,
        wire: Wire,
        mut head: BytesMut,
        caller: &TlsCaller,
    ) -> Result<Encrypted, TlsFailure> {
        let Wire::Plain(mut tcp) = wire else {
            return Err(io::Error::other("encrypted already").into());
        };
        let opening = timeout(HELLO, opening(&mut tcp, &mut head)).await;
        let opening = opening.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let (choice, offer) = match opening {
            TlsOpening::Hello(offer) => {
                let choice = self.choose(&offer, caller.floor);
                (choice, offer)
            }
            TlsOpening::Endless => {
                return Err(io::Error::other("its hello has no end within 16 KiB").into());
            }
            // The library says no in its own way.
            TlsOpening::Partial | TlsOpening::Other => (Choice::Modern, ClientOffer::default()),
        };
        let stream = Prefixed {
            head: head.freeze(),
            tcp,
        };
        let remedy = match choice {
            Choice::Old(policy) => {
                return Ok(Encrypted {
                    wire: self.old.accept(policy, stream, caller).await?,
                    certificate: None,
                });
            }
            Choice::Modern => None,
            Choice::Refused(remedy) => Some(remedy),
        };
        let verdict = self.clients.as_ref().map(ClientTrust::ask);
        let config = self.config(caller.floor, verdict.clone())?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let error = match timeout(HANDSHAKE, Box::pin(handshake)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let own = shown.and_then(<[_]>::first);
                return Ok(Encrypted {
                    certificate: verdict.and_then(|verdict| verdict.of(own)),
                    wire: Wire::Tls(Box::new(stream)),
                });
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let is_in_client = caller.client.is_some();
        let refused = remedy.map(|remedy| (offer.to_string(), remedy.hint(is_in_client)));
        Err(TlsFailure { error, refused })
    }

    fn config(
        &self,
        floor: TlsFloor,
        verdict: Option<Arc<CertificateVerdict>>,
    ) -> io::Result<Arc<ServerConfig>> {
        let loaded = &self.certificate;
        let is_newest = floor.min == TlsVersion::V1_3;
        if verdict.is_none() {
            let config = if is_newest {
                &loaded.newest
            } else {
                &loaded.config
            };
            return Ok(Arc::clone(config));
        }
        let versions = if is_newest { NEWEST } else { MODERN };
        let made = config(&self.provider, versions, &loaded.resolver, verdict);
        made.map(Arc::new).map_err(io::Error::other)
    }

    fn choose(&self, offer: &ClientOffer, floor: TlsFloor) -> Choice {
        let choice = choice::choose(offer, floor, &self.certificate.modern, self.old.key());
        let asks = self.clients.as_ref().is_some_and(|c| c.is_required());
        match choice {
            // Nobody is asked for a certificate in an old handshake.
            Choice::Old(_) if asks => Choice::Refused(TlsRemedy::Certificate),
            choice => choice,
        }
    }

    /// Whether it comes from these files, and they are as they were. Blocks on the disk.
    pub fn is_still(&self, paths: &CertificatePaths) -> bool {
        self.paths == *paths && self.files == Files::of(&paths.all())
    }
}

/// Reads until it is known what it is. What was read stays in `head`.
async fn opening(tcp: &mut TcpStream, head: &mut BytesMut) -> io::Result<TlsOpening> {
    loop {
        match hello::look(head) {
            TlsOpening::Partial => {}
            other => return Ok(other),
        }
        head.reserve(PIECE);
        if tcp.read_buf(head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
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
    let certified = CertifiedKey::from_der(certificates.clone(), private, &provider);
    let certified = certified.map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => format!(
            "the key in {} does not belong to the first certificate in {}",
            key.display(),
            chain.display()
        ),
        // The library has no words for it.
        _ if short_key(first).is_some() => format!(
            "the RSA key in {} is too short: it needs 2048 bits",
            key.display()
        ),
        e => format!("{} with {}: {e}", chain.display(), key.display()),
    })?;
    let modern = ModernSide::new(&provider, Arc::clone(&certified.key));
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
    let config = |versions| config(&provider, versions, &resolver, None).map(Arc::new);
    Ok(LoadedCertificate {
        config: config(MODERN)?,
        newest: config(NEWEST)?,
        modern,
        resolver,
        not_before,
        not_after,
    })
}

fn config(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    resolver: &Arc<dyn ResolvesServerCert>,
    verdict: Option<Arc<CertificateVerdict>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?;
    let Some(verdict) = verdict else {
        let builder = builder.with_no_client_auth();
        return Ok(builder.with_cert_resolver(Arc::clone(resolver)));
    };
    let builder = builder.with_client_cert_verifier(verdict);
    let mut config = builder.with_cert_resolver(Arc::clone(resolver));
    // A session that is gone on with looks at no certificate: what has been revoked or has ended since would still log in.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Why a handshake failed, for the log: what it means for the client, not what the library calls it.
pub fn reason(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, Error, PeerMisbehaved};
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return old::reason(error).map_or_else(|| error.to_string(), str::to_owned);
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
        Error::InvalidCertificate(_) => return clients::unfit(inner),
        Error::NoCertificatesPresented => {
            "the client showed no certificate, and client_certificates = \"required\""
        }
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
        let own = |chain: &PathBuf, key: &PathBuf| CertificatePaths {
            own: (chain.clone(), key.clone()),
            old: None,
            clients: None,
        };
        let paths = own(&chain, &key);
        let tls = Acceptor::open(&paths).unwrap();
        assert!(tls.is_still(&paths));
        assert!(!tls.is_still(&own(&key, &chain)));
        let (old_chain, old_key) = mint(dir.path(), "old");
        let both = CertificatePaths {
            old: Some((old_chain.clone(), old_key)),
            ..paths.clone()
        };
        assert!(!tls.is_still(&both));
        let tls = Acceptor::open(&both).unwrap();
        assert_eq!(tls.ends().len(), 2);
        std::fs::write(&old_chain, "rubbish").unwrap();
        assert!(!tls.is_still(&both));
        let error = Acceptor::open(&both).unwrap_err();
        assert!(error.contains("old.pem"), "{error}");
        std::fs::write(&chain, "rubbish").unwrap();
        assert!(Acceptor::open(&paths).is_err());
    }
}
