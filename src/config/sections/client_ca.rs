//! Certificates of clients: what they are held to, and whose they are. Opens no socket.

use std::time::SystemTime;

use super::{
    context::Context,
    files::{self, Pem},
};
use crate::{
    config::{
        settings::Secrets,
        table::{At, Table},
        values::{Fault, fault, plain},
    },
    connector::keypair::Validity,
    listener::{ClientTrustPaths, TlsMode, look_at_client_trust},
    policy::certificate::{CertificatePattern, ClientCertificates},
};

/// What a listener holds clients' certificates to. `None`: nobody is asked for one.
pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    tls: TlsMode,
) -> Option<ClientTrustPaths> {
    let mode = table.choice(
        "client_certificates",
        [
            ClientCertificates::Off,
            ClientCertificates::Optional,
            ClientCertificates::Required,
        ],
    );
    let ca = files::pem(context, table, "client_ca", Pem::Certificate);
    let crl = files::pem(context, table, "client_crl", Pem::RevocationList);
    if mode == ClientCertificates::Off {
        for key in ["client_ca", "client_crl"] {
            if let Some(span) = table.place(key) {
                context.warning(
                    &span,
                    fault!("`{key}` has no effect: nobody is asked for a certificate";
                        "add client_certificates = \"optional\" or client_certificates = \"required\""),
                );
            }
        }
        return None;
    }
    if tls == TlsMode::Off {
        table.error(
            "client_certificates",
            fault!("`client_certificates` without TLS: there is no handshake to show one in";
                "add tls = \"starttls\" or tls = \"implicit\", `certificate` and `key`"),
        );
    }
    if !table.has("client_ca") {
        table.error(
            "client_certificates",
            fault!("`client_certificates` without `client_ca`: no certificate would verify";
                "name the PEM file of the authority that issues them, as in client_ca = \"certs/devices.pem\""),
        );
    }
    let paths = ClientTrustPaths {
        ca: ca?,
        crl,
        is_required: mode == ClientCertificates::Required,
    };
    look_at(context, table, &paths);
    Some(paths)
}

/// Whether the files can be used, and for how long.
fn look_at(context: Context<'_>, table: &Table<'_>, paths: &ClientTrustPaths) {
    let named = std::iter::once(&paths.ca).chain(&paths.crl);
    if context.secrets == Secrets::Ignore || !named.into_iter().all(|path| files::is_pem(path)) {
        // What is not there, or is no PEM, has been said.
        return;
    }
    let ends = match look_at_client_trust(paths) {
        Ok(ends) => ends,
        Err(why) => {
            let names = |path: &std::path::PathBuf| why.contains(&path.display().to_string());
            let key = if paths.crl.as_ref().is_some_and(names) {
                "client_crl"
            } else {
                "client_ca"
            };
            return table.error(key, Fault::from(plain(&why)));
        }
    };
    let now = SystemTime::now();
    for end in ends {
        let shown = plain(&end.file.to_string_lossy());
        let fault = if end.kind == "client_crl" {
            if end.ends > now {
                continue;
            }
            Fault::new(
                format!(
                    "the revocation list in {shown} should have been followed by another on {}",
                    crate::mail::time::day(end.ends)
                ),
                "put the new one into the file; it is loaded by itself. What was revoked since is not known here",
            )
        } else {
            let Some(said) = Validity::between(end.begins, end.ends).said(now) else {
                continue;
            };
            Fault::new(
                format!("an authority in {shown} {said}"),
                "put the one that follows it into the file beside it; it is loaded by itself",
            )
        };
        table.warning(end.kind, fault);
    }
}

/// `certificate` of a user.
pub(super) fn patterns(context: Context<'_>, table: &Table<'_>) -> Vec<At<CertificatePattern>> {
    let found = table.list("certificate", |text| {
        CertificatePattern::parse(text).map_err(|why| {
            Fault::new(
                format!("this is no name of a certificate: {why}"),
                "write it as in certificate = [\"dns:erp.corp.example\"]; `openssl x509 -in FILE -noout -text` shows what a certificate has",
            )
        })
    });
    let found = found.map_or_else(Vec::new, |list| list.value);
    if let (true, Some(span)) = (
        table.is_empty_list("certificate"),
        table.place("certificate"),
    ) {
        context.error(
            &span,
            fault!("no certificate is named"; "write certificate = [\"dns:erp.corp.example\"], or remove the key"),
        );
    }
    found
}
