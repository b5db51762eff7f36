//! What becomes of a certificate that a client has shown: a login, or a line for who wonders why it is none.

use std::net::SocketAddr;

use tracing::info;

use super::{acceptor::ShownCertificate, shared::Shared};
use crate::{
    mail::text::{logged, logged_to},
    smtp::server::session::{CertificateLogin, Session},
    telemetry::{
        counted::{self, CheckedLogin},
        noticed,
    },
};

/// Of the names in a certificate, in the log.
const NAMES: usize = 600;

/// Tells the session. Returns whether somebody is logged in now.
pub(super) fn is_login(
    certificate: Option<ShownCertificate>,
    session: &mut Session,
    listener: &str,
    peer: SocketAddr,
    shared: &Shared,
) -> bool {
    let (why, names) = match certificate {
        None => return false,
        Some(ShownCertificate::Unfit(why)) => (why, None),
        Some(ShownCertificate::Verified(names)) => {
            let shown = names.to_string();
            let why = match session.shown(names) {
                CertificateLogin::User(_) => {
                    counted::login(listener, CheckedLogin::Accepted);
                    noticed::logged_in(true, peer.ip());
                    return true;
                }
                CertificateLogin::Nobody => "no [[user]] has it".to_owned(),
                CertificateLogin::Several(one, two) => {
                    format!("it fits the users {one} and {two}, and so neither")
                }
            };
            (why, Some(shown))
        }
    };
    if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
        let names = names.as_deref().unwrap_or("-");
        info!(event = "client certificate", listener = %listener, client = session.client().unwrap_or("-"), peer = %peer,
            error = %logged(&why), names = %logged_to(names, NAMES), suppressed, "a client certificate is no login");
    }
    false
}
