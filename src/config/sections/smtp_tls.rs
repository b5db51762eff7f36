//! `min_tls` and `old_ciphers` of a connector: the server that knows nothing better, and what cannot go with it.

use super::old_tls::spoken;
use crate::{
    config::{
        table::Table,
        values::{Fault, fault, plain},
    },
    connector::{Tls, Verify, is_loopback},
    mail::tls::{TlsFloor, TlsVersion},
    old_tls,
};

/// The least of TLS that is spoken with the server.
pub(super) fn floor(table: &Table<'_>) -> TlsFloor {
    TlsFloor {
        min: table.choice("min_tls", TlsVersion::ALL),
        old_ciphers: table.flag("old_ciphers"),
    }
}

/// What does not go together. `bearer`: what proves who we are, where something does.
pub(super) fn check(
    table: &Table<'_>,
    floor: TlsFloor,
    tls: Tls,
    host: &str,
    verify: Verify,
    bearer: Option<&str>,
) {
    if tls == Tls::Off {
        let given = ["min_tls", "old_ciphers"].into_iter();
        for key in given.filter(|key| table.has(key) && floor != TlsFloor::default()) {
            table.warning(
                key,
                fault!("`{key}` has no effect: `tls` is \"off\""; "remove it, or write tls = \"starttls\" or tls = \"implicit\""),
            );
        }
        return;
    }
    if floor.old_ciphers && floor.min == TlsVersion::V1_3 {
        table.warning(
            "old_ciphers",
            fault!("`old_ciphers` has no effect: they are of TLS 1.2, and `min_tls` is \"1.3\"";
                "remove one of the two"),
        );
    }
    if !floor.is_old() {
        return;
    }
    let key = if floor.min < TlsVersion::V1_2 {
        "min_tls"
    } else {
        "old_ciphers"
    };
    if !old_tls::IS_BUILT {
        table.error(
            key,
            fault!("this program was built without old TLS";
                "use one that was built with the cargo feature old-tls, as every package is"),
        );
        return;
    }
    if verify == Verify::None {
        table.error(
            "verify",
            fault!("verify = \"none\" does not go with `{key}`: TLS this weak protects nothing where nobody looks at the certificate";
                "pin it: `postern cert fetch HOST:PORT > server.pem` (with --starttls where the server begins in the clear) gets it; compare the SHA-256 that it prints, and write ca_file = \"server.pem\""),
        );
    }
    if table.has("client_certificate") {
        table.error(
            "client_certificate",
            fault!("`client_certificate` does not go with `{key}`: old TLS shows no certificate of ours";
                "log in with `username` and `password`, or have the server speak TLS 1.2 with modern ciphers"),
        );
    }
    if let Some(what) = bearer
        && !is_loopback(host)
    {
        table.warning(
            key,
            Fault::new(
                format!("the {what} travels under {} to {}", spoken(floor), plain(host)),
                "give it a login that is good for nothing else, and keep the way to it inside your own network",
            ),
        );
    }
}
