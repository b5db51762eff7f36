//! The old handshake of a listener: the certificate for it, and a server of each policy, made when a client first needs it.
//!
//! A build without the feature `old-tls` has no such server, and no configuration that asks for one.

use std::{fmt, io, path::Path};
#[cfg(feature = "old-tls")]
use std::{sync::OnceLock, time::Duration};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
#[cfg(feature = "old-tls")]
use tokio::time::timeout;
#[cfg(feature = "old-tls")]
use tracing::debug;

#[cfg(feature = "old-tls")]
use super::caller::HANDSHAKE;
use super::caller::TlsCaller;
#[cfg(feature = "old-tls")]
use crate::{
    listener::wire::SecureStream,
    old_tls::{OldServer, OldStream},
};
use crate::{
    listener::wire::{Prefixed, Wire},
    mail::text::pem,
    old_tls::{OldKey, OldPolicy},
    secret::Secret,
};

/// After a fault the library keeps the connection for so long.
#[cfg(feature = "old-tls")]
const PENANCE: Duration = Duration::from_secs(31);

/// See the module.
pub(super) struct OldSide {
    #[cfg_attr(
        not(feature = "old-tls"),
        expect(dead_code, reason = "nobody takes it")
    )]
    chain: Vec<u8>,
    #[cfg_attr(
        not(feature = "old-tls"),
        expect(dead_code, reason = "nobody takes it")
    )]
    private: Secret,
    key: Option<OldKey>,
    #[cfg(feature = "old-tls")]
    servers: [OnceLock<Result<OldServer, String>>; OldPolicy::ALL.len()],
}

impl OldSide {
    /// Reads a chain and its key, which is of this kind.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn read(chain: &Path, key: &Path, kind: Option<OldKey>) -> Result<Self, String> {
        // Written anew: the old library stumbles over whatever else stands in a file, such as the key beside the certificate.
        let cannot =
            |path: &Path, e: &dyn fmt::Display| format!("{} cannot be read: {e}", path.display());
        let mut certificates = String::new();
        for found in CertificateDer::pem_file_iter(chain).map_err(|e| cannot(chain, &e))? {
            let der = found.map_err(|e| cannot(chain, &e))?;
            certificates.push_str(&pem("CERTIFICATE", &der));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| cannot(key, &e))?;
        let label = match &private {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Ok(Self {
            chain: certificates.into_bytes(),
            private: Secret::new(pem(label, private.secret_der())),
            key: kind,
            #[cfg(feature = "old-tls")]
            servers: [const { OnceLock::new() }; OldPolicy::ALL.len()],
        })
    }

    /// What the key can do.
    pub(super) fn key(&self) -> Option<OldKey> {
        self.key
    }

    /// The server's side of an old handshake.
    ///
    /// # Errors
    /// The handshake failed, or took too long.
    #[cfg(feature = "old-tls")]
    pub(super) async fn accept(
        &self,
        policy: OldPolicy,
        stream: Prefixed,
        caller: &TlsCaller,
    ) -> io::Result<Wire> {
        debug!(event = "old tls", peer = %caller.peer, client = caller.client, least = %policy.least(), "old TLS");
        let server = self.server(policy)?;
        let limit = HANDSHAKE + PENANCE;
        match timeout(limit, Box::pin(server.accept(stream))).await {
            Ok(stream) => Ok(Wire::Tls(Box::new(stream?))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// As there is none, nobody is sent here.
    #[cfg(not(feature = "old-tls"))]
    #[expect(clippy::unused_async, reason = "the other one waits")]
    pub(super) async fn accept(
        &self,
        _: OldPolicy,
        _: Prefixed,
        _: &TlsCaller,
    ) -> io::Result<Wire> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(feature = "old-tls")]
    fn server(&self, policy: OldPolicy) -> io::Result<&OldServer> {
        let at = OldPolicy::ALL.iter().position(|one| *one == policy);
        let server = at.and_then(|at| self.servers.get(at));
        let server = server.ok_or(io::ErrorKind::Unsupported)?;
        server
            .get_or_init(|| OldServer::new(policy, &self.chain, self.private.reveal().as_bytes()))
            .as_ref()
            .map_err(|e| io::Error::other(e.clone()))
    }
}

impl fmt::Debug for OldSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldSide")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "old-tls")]
impl SecureStream for OldStream<Prefixed> {
    fn version(&self) -> &'static str {
        OldStream::version(self).as_str()
    }
}

/// Why an old handshake failed. `None`: it was none.
#[cfg(feature = "old-tls")]
pub(super) fn reason(error: &io::Error) -> Option<&'static str> {
    crate::old_tls::reason(error)
}

/// There is none.
#[cfg(not(feature = "old-tls"))]
pub(super) fn reason(_: &io::Error) -> Option<&'static str> {
    None
}

#[cfg(feature = "old-tls")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_all_in_it_does_for_both() {
        let dir = tempfile::TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for text in [
            format!("{certificate}{key}"),
            format!("{key}{certificate}"),
            format!("Bag Attributes\n  friendlyName: relay\n{key}\n{certificate}{certificate}"),
        ] {
            let file = dir.path().join("all.pem");
            std::fs::write(&file, text).unwrap();
            let side = OldSide::read(&file, &file, Some(OldKey::Ecdsa)).unwrap();
            for policy in OldPolicy::ALL {
                assert!(side.server(policy).is_ok(), "{policy:?}");
            }
        }
    }
}
