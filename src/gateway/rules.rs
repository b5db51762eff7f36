//! The rules of a session, from a configuration: for the listeners, and for a session that is only played.

use crate::{config::Config, smtp::server::session::Rules};

/// The rules of the session, from a configuration.
pub fn rules(config: &Config) -> Rules {
    Rules {
        hostname: config.hostname.clone(),
        policy: config.policy.clone(),
        router: config.router.clone(),
        bounce_from: config.bounce_from.clone(),
        message_size: config.message_size,
        recipients: config.recipients,
        session_errors: config.session_errors,
    }
}
