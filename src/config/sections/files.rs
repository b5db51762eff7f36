//! Files the configuration names: there, readable, of the right kind, and not for everybody's eyes.

use std::{path::PathBuf, time::SystemTime};

use rustls::SignatureAlgorithm;

use super::context::Context;
use crate::{
    config::{
        diagnostic::Span,
        file::{read_bounded, readable_by_others},
        settings::Secrets,
        table::{At, Table},
        values::{Fault, fault, plain},
    },
    connector::keypair::{self, Unfit, Validity, ValidityNow},
    listener::acceptor,
    mail::cause,
    old_tls::OldKey,
};

/// A path that names something.
pub(super) fn path(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(fault!("this is not a path"));
    }
    Ok(text.to_owned())
}

/// What a PEM file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pem {
    Certificate,
    Key,
    RevocationList,
}

/// A PEM file named by `key`.
pub(super) fn pem(
    context: Context<'_>,
    table: &Table<'_>,
    key: &'static str,
    holds: Pem,
) -> Option<PathBuf> {
    let At { value, span } = table.parsed(key, path)?;
    let path = context.path(&value);
    context.files.borrow_mut().push(path.clone());
    if context.secrets == Secrets::Ignore {
        return Some(path);
    }
    let shown = plain(&path.to_string_lossy());
    match read_bounded(&path, 1 << 20) {
        Err(why) => context.error(&span, fault!("{shown} cannot be read: {why}")),
        Ok(octets) => {
            let (mark, what) = match holds {
                Pem::Certificate => ("-----BEGIN CERTIFICATE-----", "certificate"),
                Pem::Key => ("PRIVATE KEY-----", "private key"),
                Pem::RevocationList => ("-----BEGIN X509 CRL-----", "revocation list"),
            };
            if memchr::memmem::find(&octets, mark.as_bytes()).is_none() {
                // A SEQUENCE of ASN.1: DER, or PKCS #12 (.pfx, .p12).
                let is_binary = octets.first() == Some(&0x30);
                context.error(&span, Fault {
                        message: format!("{shown} holds no {what} in PEM form"),
                        hint: is_binary.then(|| {
                            "it looks like DER or PKCS #12 (PFX): convert it with openssl x509, pkey or crl -inform DER, or with openssl pkcs12 -nodes".to_owned()
                        }),
                    });
            }
            if holds == Pem::Key {
                warn_readable(context, &path, &span);
            }
        }
    }
    Some(path)
}

/// `ca_file`, and when the first of its roots ends.
pub(super) fn roots(context: Context<'_>, table: &Table<'_>) -> Option<PathBuf> {
    let path = pem(context, table, "ca_file", Pem::Certificate)?;
    if context.secrets != Secrets::Ignore
        && let Some(said) = keypair::roots(&path).and_then(|first| first.said(SystemTime::now()))
    {
        let shown = plain(&path.to_string_lossy());
        table.warning(
            "ca_file",
            Fault::new(
                format!("a root in {shown} {said}"),
                "put the one that follows it into the file beside it; it is loaded by itself",
            ),
        );
    }
    Some(path)
}

/// A certificate and its key: both or none.
pub(super) fn pair(
    context: Context<'_>,
    table: &Table<'_>,
    certificate: &'static str,
    key: &'static str,
) -> Option<(PathBuf, PathBuf)> {
    let files = (
        pem(context, table, certificate, Pem::Certificate),
        pem(context, table, key, Pem::Key),
    );
    for (one, other) in [(certificate, key), (key, certificate)] {
        if let (Some(span), false) = (table.place(one), table.has(other)) {
            context.error(&span, fault!("`{one}` without `{other}`: both are needed"));
        }
    }
    files.0.zip(files.1)
}

/// As [`pair`], of a certificate that is shown to somebody else: it belongs to its key, and is good for a while yet.
pub(super) fn shown_pair(
    context: Context<'_>,
    table: &Table<'_>,
    certificate: &'static str,
    key: &'static str,
    renew: &'static str,
) -> Option<(PathBuf, PathBuf)> {
    let pair = pair(context, table, certificate, key)?;
    if context.secrets == Secrets::Ignore {
        return Some(pair);
    }
    // Of a file that cannot be read as what it should be, `pair` has spoken.
    match keypair::belongs(&pair.0, &pair.1) {
        Err(Unfit::Pair(why)) => table.error(
            key,
            Fault::new(
                plain(&why),
                format!(
                    "`{certificate}` and `{key}` are made together; name the two files of one pair"
                ),
            ),
        ),
        Ok(algorithm) if key == "key" && algorithm != SignatureAlgorithm::RSA => {
            table.error(
                key,
                fault!("the key of an application is an RSA key, and this one is not";
                    "make a pair with openssl req -x509 -newkey rsa:3072 -nodes, and upload its certificate")
                .of(cause::KEY_UNUSABLE),
            );
        }
        Ok(_) | Err(Unfit::File(_)) => {}
    }
    let now = SystemTime::now();
    if let Ok(validity) = keypair::validity(&pair.0)
        && let Some(said) = validity.said(now)
    {
        let shown = plain(&pair.0.to_string_lossy());
        let fault = Fault::new(format!("the certificate in {shown} {said}"), renew);
        let fault = match validity.standing(now) {
            ValidityNow::Expired => fault.of(cause::CERTIFICATE_EXPIRED),
            ValidityNow::NotYet => fault.of(cause::CERTIFICATE_EARLY),
            ValidityNow::Good | ValidityNow::EndsSoon => fault,
        };
        table.warning(certificate, fault);
    }
    Some(pair)
}

/// The certificate of a listener, and the one for old handshakes: whether each goes with its key, and whether it is its time. Returns
/// whether the key for old handshakes is an RSA key; `None`: it is not known.
pub(super) fn look_at_old_certificate(
    context: Context<'_>,
    table: &Table<'_>,
    own: Option<&(PathBuf, PathBuf)>,
    old: Option<&(PathBuf, PathBuf)>,
) -> Option<bool> {
    let own = look_at_certificate(context, table, "certificate", own);
    match old {
        Some(_) => look_at_certificate(context, table, "old_certificate", old),
        None if table.has("old_certificate") => None,
        None => own,
    }
}

/// A listener's certificate: whether it goes with its key, and whether it is its time. Returns whether the key is an RSA key,
/// where that is known.
pub(super) fn look_at_certificate(
    context: Context<'_>,
    table: &Table<'_>,
    named: &'static str,
    pair: Option<&(PathBuf, PathBuf)>,
) -> Option<bool> {
    let (chain, key) = pair.filter(|_| context.secrets != Secrets::Ignore)?;
    // What is not there, or is no PEM, has been said.
    if ![chain, key].iter().all(|path| is_pem(path)) {
        return None;
    }
    let span = table.place_or_header(named);
    let certificate = match acceptor::load(chain, key) {
        Ok(certificate) => certificate,
        Err(why) => {
            context.error(&span, Fault::from(plain(&why)));
            return None;
        }
    };
    let is_rsa = Some(certificate.old_key() == Some(OldKey::Rsa));
    let now = SystemTime::now();
    let (end, shown) = (certificate.not_after, plain(&chain.to_string_lossy()));
    let validity = Validity::between(certificate.not_before, end);
    let Some(said) = validity.said(now) else {
        return is_rsa;
    };
    let message = format!("the certificate in {shown} {said}");
    let hint = "put a new one into the file; it is loaded by itself. If this one should be valid, check this machine's clock";
    context.warning(&span, Fault::new(message, hint));
    is_rsa
}

/// Whether it is one, of whatever kind.
pub(super) fn is_pem(path: &std::path::Path) -> bool {
    read_bounded(path, 1 << 20)
        .is_ok_and(|octets| memchr::memmem::find(&octets, b"-----BEGIN ").is_some())
}

/// Warns of a file with a secret that others may read.
pub(super) fn warn_readable(context: Context<'_>, path: &std::path::Path, span: &Span) {
    if let Some(chmod) = readable_by_others(path) {
        context.warning(
            span,
            Fault::new(
                format!(
                    "every user of this machine can read {}",
                    plain(&path.to_string_lossy())
                ),
                chmod,
            ),
        );
    }
}
