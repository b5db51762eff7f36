//! A connector looked at whole, as `postern doctor` does, and the page with one that is not saved yet.

use crate::{
    config::Config,
    connector::{self, ExpectedMail, Services, examine::examine},
    mail::{address::Address, check::Check, pattern::Pattern},
};

/// Senders of one connector that are asked for.
const SENDERS: usize = 5;

/// Its checks in order, each within ten seconds. Nothing is sent.
pub fn examined(
    config: &Config,
    settings: &connector::Settings,
    services: Services,
) -> impl Future<Output = Vec<Check>> + Send + use<> {
    let (senders, largest) = (senders(config, settings), config.message_size);
    let settings = settings.clone();
    async move {
        let mail = ExpectedMail {
            senders: &senders,
            largest,
        };
        examine(&settings, mail, services).await
    }
}

/// The mailbox that all its mail leaves from; else the senders that its routes, or the allowlist, name one by one.
fn senders(config: &Config, settings: &connector::Settings) -> Vec<Address> {
    if let Some(mailbox) = settings.kind.mailbox() {
        return vec![mailbox];
    }
    let allowed = &config.policy.allowlist.senders;
    let login = settings
        .kind
        .login()
        .and_then(|name| Address::parse(name).ok());
    let its_routes = config.router.routes.iter();
    let its_routes = its_routes.filter(|route| route.connectors.contains(&settings.name));
    let named = its_routes.flat_map(|route| route.senders.as_ref().unwrap_or(allowed));
    let mut senders: Vec<Address> = Vec::new();
    for sender in login.into_iter().chain(named.filter_map(Pattern::literal)) {
        if senders.len() < SENDERS && !senders.contains(&sender) {
            senders.push(sender);
        }
    }
    senders
}
