//! Whose clients' certificates are: of one user each, and where somebody asks for them.

use super::{
    context::Context,
    listener::{ListenerSection, ListenerSections},
    user::Users,
};
use crate::{
    config::{
        diagnostic::Span,
        table::At,
        values::{fault, plain},
    },
    policy::certificate::{CertificatePattern, ClientCertificates},
};

/// Users that one certificate could fit, users whose certificate nobody asks for, and listeners that ask for nobody's.
pub(super) fn check(context: Context<'_>, listeners: &ListenerSections, users: &Users) {
    let named: Vec<(&str, &At<CertificatePattern>)> = users
        .certificates
        .iter()
        .map(|(name, at)| (name.as_str(), at))
        .collect();
    for (place, (name, At { value, span })) in named.iter().enumerate() {
        let before = named.iter().take(place);
        let other = before
            .filter(|(other, _)| other != name)
            .find(|(_, at)| at.value.shares(value));
        if let Some((other, at)) = other {
            context.error(
                span,
                fault!("a certificate with {} could be that of the user \"{}\", too (line {})", plain(&value.to_string()), plain(other), context.source.line(&at.span);
                    "a certificate is one user's: name something that only this user's has, as its sha256"),
            );
        }
    }
    let asks = |l: &ListenerSection| l.settings.clients.is_some();
    if let Some((name, At { span, .. })) = named.first()
        && !listeners.all.is_empty()
        && !listeners
            .all
            .iter()
            .any(|l| asks(l) || l.certificates_span.is_some())
    {
        context.warning(
            span,
            fault!("no listener asks for a certificate, so \"{}\" cannot log in with one", plain(name);
                "add client_ca = \"FILE\" and client_certificates = \"optional\" to a [[listener]] with TLS"),
        );
    }
    if named.is_empty() {
        let optional = listeners
            .all
            .iter()
            .filter(|l| l.settings.client_certificates() == ClientCertificates::Optional);
        let spans = optional.filter_map(|l| l.certificates_span.as_ref());
        for span in spans.collect::<Vec<&Span>>() {
            context.warning(
                span,
                fault!("clients are asked for a certificate, and no [[user]] has one: it changes nothing";
                    "add certificate = [\"dns:erp.corp.example\"] to a [[user]]"),
            );
        }
    }
}
