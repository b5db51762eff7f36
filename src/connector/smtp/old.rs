//! Old TLS towards an upstream: what `tls` does for everybody else, for a connector that is allowed less than TLS 1.2.
//!
//! All of it goes through the old library, also where the upstream would know better; TLS 1.3 is not in it. Nothing is said before the
//! name in the certificate was looked at.

use std::{io, path::Path};

use tokio::net::TcpStream;
use tokio_rustls::rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, ServerName},
};
use x509_parser::parse_x509_certificate;

use super::encrypted::{CLOSED, EncryptedStream, Facts, NoTls, PLAIN, Towards};
use crate::{
    connector::{
        settings::{SmtpSettings, Verify},
        tls::{
            client::{certificates, system_roots},
            trust, words,
        },
    },
    mail::tls::TlsVersion,
    old_tls::{FirstOctet, OldClient, OldFault, OldPolicy, OldStream},
};

/// The TLS side of such a connector.
#[derive(Debug)]
pub(super) struct OldTls {
    client: OldClient,
    policy: OldPolicy,
    verify: Verify,
    /// A certificate in `ca_file` has an address for its common name and no other, and the library takes none such.
    is_address_alone: bool,
}

impl OldTls {
    /// Reads the roots.
    ///
    /// # Errors
    /// A sentence: which file cannot be used.
    pub(super) fn new(policy: OldPolicy, settings: &SmtpSettings) -> Result<Self, String> {
        // Nobody's certificate is taken unseen: the configuration has refused it.
        let ca_file = settings.ca_file.as_deref();
        let roots = match ca_file {
            Some(file) => certificates(file, "ca_file")?,
            None => system_roots()?,
        };
        let client = OldClient::new(policy, roots.iter().map(AsRef::as_ref))
            .map_err(|why| format!("{}: {why}", of_which(ca_file)))?;
        Ok(Self {
            client,
            policy,
            verify: settings.verify,
            is_address_alone: ca_file.is_some() && roots.iter().any(is_address_alone),
        })
    }

    /// A handshake. It has no end of its own.
    pub(super) async fn connect(
        &self,
        towards: &Towards<'_>,
        tcp: TcpStream,
    ) -> Result<(Box<dyn EncryptedStream>, Facts), NoTls> {
        let sni = match &towards.name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        let connected = self.client.connect(sni, tcp).await;
        let stream = connected.map_err(|fault| self.explain(fault, towards))?;
        let own = stream.certificate();
        if self.verify == Verify::Full {
            let named = own.as_deref().unwrap_or_default();
            trust::is_for(named, &towards.name)
                .map_err(|e| NoTls::new(&words::trouble(&e, towards.host, false), true, None))?;
        }
        let version = match stream.version() {
            TlsVersion::V1_0 => "TLSv1",
            TlsVersion::V1_1 => "TLSv1.1",
            TlsVersion::V1_2 => "TLSv1.2",
            TlsVersion::V1_3 => "TLSv1.3",
        };
        let facts = Facts::new(version, &stream.cipher(), own.as_deref());
        Ok((Box::new(stream), facts))
    }

    /// Why a handshake failed, for people.
    fn explain(&self, fault: OldFault, towards: &Towards<'_>) -> NoTls {
        let problem = |e: CertificateError| {
            words::trouble(&Error::InvalidCertificate(e), towards.host, towards.proxied)
        };
        let text = match fault {
            OldFault::Untrusted if self.is_address_alone => ADDRESS.into(),
            OldFault::Untrusted => problem(CertificateError::UnknownIssuer),
            OldFault::Expired => problem(CertificateError::Expired),
            OldFault::NotYet => problem(CertificateError::NotValidYet),
            OldFault::Critical => problem(CertificateError::UnhandledCriticalExtension),
            OldFault::Purpose => problem(CertificateError::InvalidPurpose),
            OldFault::Unreadable => problem(CertificateError::BadEncoding),
            OldFault::Version if self.policy == OldPolicy::From10 => {
                "the upstream speaks nothing newer than SSL 3.0, which is never spoken here: it is to be updated or put behind a newer one [tls-old]".into()
            }
            OldFault::Version => format!(
                "the upstream does not speak {}; min_tls = \"1.0\" if you must [tls-old]",
                self.policy.least()
            ),
            OldFault::Cipher => NOTHING.into(),
            OldFault::Alert => format!(
                "the upstream ended the handshake with an alert: it speaks no version from {} to TLS 1.2, or none of our ciphers (ECDHE or RSA with AES){}, or wants a client certificate, which goes with neither min_tls nor old_ciphers [tls-old]",
                self.policy.least(),
                if self.policy == OldPolicy::From10 { "" } else { "; min_tls = \"1.0\" offers all there is" }
            ),
            OldFault::Closed => CLOSED.into(),
            OldFault::Plain if towards.implicit => PLAIN.into(),
            OldFault::Plain | OldFault::Broken => "what the upstream sends is not TLS, or breaks its rules".into(),
        };
        NoTls {
            is_shut: fault == OldFault::Closed,
            ..NoTls::new(&text, fault.is_of_certificate(), None)
        }
    }
}

impl EncryptedStream for OldStream<FirstOctet<TcpStream>> {
    fn tcp(&self) -> &TcpStream {
        self.below().below()
    }
}

const ADDRESS: &str = "the upstream's certificate is not trusted: one in ca_file has an address for its common name and no other name, which old TLS does not take; have the server's certificate made anew, with a name or with the address as an alternative name [tls-issuer]";
const NOTHING: &str = "the upstream chose a cipher that was not offered: it knows none of ours (ECDHE or RSA with AES); it is to be updated or put behind a newer one [tls-old]";

/// Why an encrypted line was lost. `None`: the fault is not of old TLS.
pub(super) fn loss(error: &io::Error) -> Option<String> {
    let why = match OldFault::of(error)? {
        OldFault::Alert => "the upstream ended the connection with an alert",
        OldFault::Closed => "the upstream closed the connection",
        _ => "what the upstream sent breaks the rules of TLS; was it changed on the way?",
    };
    Some(format!("TLS: {why}"))
}

fn of_which(ca_file: Option<&Path>) -> String {
    ca_file.map_or_else(
        || "the system's root certificates".to_owned(),
        |file| format!("ca_file {}", file.display()),
    )
}

/// It has no alternative name, and its common name is an address.
fn is_address_alone(der: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return false;
    };
    let has_names = certificate.subject_alternative_name().ok().flatten();
    let mut common = certificate.subject().iter_common_name();
    has_names.is_none()
        && common.any(|name| {
            name.as_str()
                .is_ok_and(|name| name.parse::<std::net::IpAddr>().is_ok())
        })
}
