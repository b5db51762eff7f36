//! A listener as its connections and `status` see it; a reload puts another one in its place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use bytes::BytesMut;
use tracing::{error, warn};

use super::{
    acceptor::{
        Acceptor, CertificateEnd, CertificatePaths, EXPIRES_SOON, Encrypted, TlsCaller, TlsFailure,
    },
    settings::{Settings, TlsMode},
    wire::Wire,
};
use crate::smtp::server::session::ListenerRules;

/// A listener as it stands, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it really listens.
    pub addresses: Vec<SocketAddr>,
    /// Its TLS.
    pub tls: TlsMode,
    /// When each certificate ends, and what clients' certificates are held to.
    pub certificates: Vec<CertificateEnd>,
}

/// What connections of one listener know of it; a reload puts another one in place.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) settings: Settings,
    pub(super) rules: Arc<ListenerRules>,
    pub(super) acceptor: Option<Arc<Acceptor>>,
}

impl Port {
    /// Whether connections from there begin with a PROXY header.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.settings
            .proxy_protocol
            .iter()
            .any(|network| network.contains(&peer))
    }

    pub(super) fn standing(&self, addresses: Vec<SocketAddr>) -> ListenerStatus {
        ListenerStatus {
            name: self.settings.name.clone(),
            addresses,
            tls: self.settings.tls,
            certificates: self.ends(),
        }
    }

    /// `known` stays in use where its files are the same and have not changed.
    ///
    /// # Errors
    /// What is wrong with the certificate.
    pub(super) fn load(settings: &Settings, known: Option<Arc<Acceptor>>) -> Result<Self, String> {
        let acceptor = match &settings.certificate {
            Some(own) => {
                let paths = CertificatePaths {
                    own: own.clone(),
                    old: settings.old_certificate.clone(),
                    clients: settings.clients.clone(),
                };
                Some(match known.filter(|known| known.is_still(&paths)) {
                    Some(known) => known,
                    None => Arc::new(Acceptor::open(&paths)?),
                })
            }
            None if settings.tls == TlsMode::Off => None,
            None => return Err("TLS needs `certificate` and `key`".to_owned()),
        };
        Ok(Self {
            rules: Arc::new(settings.rules()),
            settings: settings.clone(),
            acceptor,
        })
    }

    /// The server's side of a TLS handshake; `head` was read of the socket already.
    ///
    /// # Errors
    /// There is no encrypted stream.
    pub(super) async fn encrypt(
        &self,
        wire: Wire,
        head: BytesMut,
        caller: &TlsCaller,
    ) -> Result<Encrypted, TlsFailure> {
        match &self.acceptor {
            Some(acceptor) => acceptor.encrypt(wire, head, caller).await,
            None => Err(io::Error::other("no certificate").into()),
        }
    }

    fn ends(&self) -> Vec<CertificateEnd> {
        let acceptor = self.acceptor.as_ref();
        acceptor.map_or_else(Vec::new, |acceptor| acceptor.ends())
    }

    /// Logs that a certificate has expired, ends soon or has not begun.
    pub(super) fn warn_of_end(&self) {
        for end in self.ends() {
            match end.kind {
                "listener" => self.warn_of(&end.file, end.begins, end.ends),
                _ => self.warn_of_trust(&end),
            }
        }
    }

    /// What clients' certificates are held to.
    fn warn_of_trust(&self, end: &CertificateEnd) {
        let (name, file) = (&self.settings.name, end.file.display());
        let CertificateEnd { kind, ends, .. } = end;
        let at = crate::mail::time::logged(*ends);
        match ends.duration_since(SystemTime::now()) {
            Err(_) if *kind == "client_crl" => {
                warn!(event = "crl overdue", listener = %name, file = %file, at = %at, "the next revocation list is due: what was revoked since is not known");
            }
            Err(_) => {
                error!(event = "certificate expired", listener = %name, file = %file, at = %at, "an authority in client_ca has expired: the certificates of its clients verify no more");
            }
            Ok(left) if *kind == "client_ca" && left < EXPIRES_SOON => {
                warn!(event = "certificate ends", listener = %name, file = %file, at = %at, days = left.as_secs() / 86_400, "an authority in client_ca ends soon");
            }
            Ok(_) => {}
        }
    }

    fn warn_of(&self, file: &Path, begins: SystemTime, end: SystemTime) {
        let name = &self.settings.name;
        let Ok(left) = end.duration_since(SystemTime::now()) else {
            error!(event = "certificate expired", listener = %name, file = %file.display(),
            at = %crate::mail::time::logged(end), "certificate expired: clients that check it send nothing");
            return;
        };
        if begins > SystemTime::now() {
            error!(event = "certificate not valid", listener = %name, file = %file.display(),
            at = %crate::mail::time::logged(begins), "certificate is not valid yet: clients that check it send nothing before that");
        }
        if left < EXPIRES_SOON {
            warn!(event = "certificate ends", listener = %name, file = %file.display(),
            at = %crate::mail::time::logged(end), days = left.as_secs() / 86_400, "certificate ends soon");
        }
    }
}

/// Where a reload puts the listener's new settings.
pub(super) type Slot = Arc<RwLock<Arc<Port>>>;

pub(super) fn current(slot: &Slot) -> Arc<Port> {
    Arc::clone(&slot.read().unwrap_or_else(PoisonError::into_inner))
}
