//! AUTH PLAIN and LOGIN inside a session (RFC 4954), CRAM-MD5 where any password will do, and EXTERNAL for who has shown a certificate:
//! offered when, asked how, counted.
//!
//! A dialogue within the dialogue. It checks no password; what a name and password are worth is the driver's answer.

use std::sync::Arc;

use crate::{
    mail::reply::Reply,
    policy::{AuthMode, certificate::ClientCertificates, owner::CertificateOwner},
    secret::Secret,
    smtp::{
        sasl::{self, Malformed},
        server::tolerance::Quirk,
    },
};

use super::{
    Authentication, Credentials, Session, Step,
    state::{Exchange, Phase},
};

/// Failed AUTH in one session, the last answered 421.
const AUTH_FAILURES: u32 = 3;

impl Session {
    /// Any name and password will do, by any mechanism, in any character set.
    pub(super) fn any_credentials(&self) -> bool {
        self.client.as_ref().is_some_and(|c| c.any_credentials)
    }

    /// The line of EHLO about AUTH: only what can be used.
    pub(super) fn mechanisms(&self) -> String {
        let mut names = String::new();
        if self.is_by_certificate && !self.has_authenticated {
            names.push_str(" EXTERNAL");
        }
        if self.offers_auth() {
            names.push_str(" PLAIN LOGIN");
            if self.any_credentials() {
                names.push_str(" CRAM-MD5");
            }
        }
        if names.is_empty() {
            return names;
        }
        format!("\nAUTH{names}")
    }

    /// Whether a name and a password are taken. Who is logged in by a certificate may still be somebody else by his word.
    fn offers_auth(&self) -> bool {
        let covered = self.tls || self.listener.plaintext_auth;
        let tls_first = self.listener.require_tls && !self.tls;
        !self.has_authenticated
            && !tls_first
            && (self.any_credentials() || (self.listener.auth != AuthMode::Off && covered))
    }

    /// The AUTH command. The blob of a refused one is neither looked at nor kept.
    pub(super) fn auth(&mut self, argument: &[u8]) {
        if self.has_authenticated {
            return self.error(Reply::bad_sequence("already logged in"));
        }
        if self.transaction.is_some() {
            return self.error(Reply::bad_sequence("not inside a transaction"));
        }
        let argument = argument.trim_ascii();
        let end = argument
            .iter()
            .position(|b| b" \t".contains(b))
            .unwrap_or(argument.len());
        let (name, initial) = argument.split_at(end);
        let is_external = self.listener.client_certificates != ClientCertificates::Off
            && name.eq_ignore_ascii_case(b"EXTERNAL");
        if is_external && !self.tls {
            let reply = Reply::auth_needs_tls();
            self.rejected("auth", None, &reply);
            return self.error(reply);
        }
        if !is_external && !self.offers_auth() {
            let reply = if self.listener.auth == AuthMode::Off {
                Reply::not_implemented()
            } else {
                Reply::auth_needs_tls()
            };
            self.rejected("auth", None, &reply);
            return self.error(reply);
        }
        if self.helo.is_none() && !self.tolerance.no_helo {
            return self.error(Reply::bad_sequence("say EHLO first"));
        }
        if self.helo.is_none() {
            self.forgiven.add(Quirk::NoHelo);
        }
        let initial = Some(initial.trim_ascii()).filter(|i| !i.is_empty());
        if name.is_empty() {
            return self.error(Reply::bad_argument("the form is AUTH MECHANISM"));
        }
        let (exchange, challenge) = match name.to_ascii_uppercase().as_slice() {
            b"PLAIN" => (Exchange::Plain, String::new()),
            // Two prompts, never standardised, which devices use.
            b"LOGIN" => (Exchange::Name, sasl::LOGIN_USERNAME.to_owned()),
            // Some devices know no other (RFC 2195).
            b"CRAM-MD5" if self.any_credentials() => {
                let challenge = sasl::cram_challenge(&self.conditions.rules.hostname);
                (Exchange::Digest, challenge)
            }
            b"EXTERNAL" if is_external => (Exchange::External, String::new()),
            _ => return self.error(Reply::unknown_mechanism()),
        };
        match initial {
            Some(initial) => self.respond(exchange, initial),
            None => self.ask(exchange, &challenge),
        }
    }

    /// A line inside the exchange.
    pub(super) fn auth_line(&mut self, line: &[u8]) {
        let Phase::Auth(exchange) = std::mem::replace(&mut self.phase, Phase::Command) else {
            return;
        };
        if line.trim_ascii() == b"*" {
            return self.error(Reply::auth_cancelled());
        }
        self.respond(exchange, line);
    }

    fn ask(&mut self, exchange: Exchange, challenge: &str) {
        self.phase = Phase::Auth(exchange);
        self.say(Reply::challenge(challenge));
    }

    fn respond(&mut self, exchange: Exchange, line: &[u8]) {
        if matches!(exchange, Exchange::External) {
            return self.external(line);
        }
        if self.any_credentials() {
            return self.accept_any(&exchange);
        }
        let read = sasl::response(line).and_then(|response| match exchange {
            Exchange::Plain => sasl::plain(&response).map(Some),
            Exchange::Name => {
                let user = response.reveal().to_owned();
                self.ask(Exchange::Password { user }, sasl::LOGIN_PASSWORD);
                Ok(None)
            }
            Exchange::Password { user } => Ok(Some((user, response))),
            Exchange::Digest | Exchange::External => Err(Malformed::Never),
        });
        match read {
            Ok(None) => {}
            Ok(Some((user, password))) => self.present(user, password),
            Err(Malformed::Syntax) => self.failed(Reply::malformed_auth()),
            Err(Malformed::Never) => self.failed(Reply::auth_failed()),
        }
    }

    /// A response that nobody reads: it may be ISO-8859-1, name another to act for, or be no base64 at all.
    fn accept_any(&mut self, exchange: &Exchange) {
        if matches!(exchange, Exchange::Name) {
            let user = String::new();
            return self.ask(Exchange::Password { user }, sasl::LOGIN_PASSWORD);
        }
        self.logged_in = true;
        self.has_authenticated = true;
        self.say(Reply::logged_in());
    }

    /// RFC 4422, appendix A: who it is, the certificate has said; the client may say it once more.
    fn external(&mut self, line: &[u8]) {
        let Ok(identity) = sasl::response(line) else {
            return self.failed(Reply::malformed_auth());
        };
        let rules = Arc::clone(&self.conditions.rules);
        let names = self.certificate.as_ref();
        let owner = names.map(|names| rules.policy.owner(names));
        let Some(CertificateOwner::User(user)) = owner else {
            return self.failed(Reply::no_such_certificate());
        };
        let identity = identity.reveal();
        if !identity.is_empty() && identity != user.name {
            return self.failed(Reply::no_such_certificate());
        }
        self.user = Some(user.clone());
        self.logged_in = true;
        self.is_by_certificate = true;
        self.has_authenticated = true;
        self.say(Reply::logged_in());
    }

    /// At once, where the certificate is one user's.
    pub(super) fn log_in_by_certificate(&mut self) {
        let rules = Arc::clone(&self.conditions.rules);
        let names = self.certificate.as_ref();
        let owner = names.map(|names| rules.policy.owner(names));
        if let Some(CertificateOwner::User(user)) = owner {
            self.user = Some(user.clone());
            self.logged_in = true;
            self.is_by_certificate = true;
        }
    }

    /// By new rules: a user that is gone, or has another hash, or whose certificate it is no longer, is logged out. Who has shown a
    /// certificate that has become a user's is logged in.
    pub(super) fn is_still_logged_in(&mut self) -> bool {
        let Some(old) = self.user.take() else {
            if !self.logged_in {
                self.log_in_by_certificate();
            }
            return true;
        };
        let new = self.rules.policy.user(&old.name).filter(|new| {
            if self.is_by_certificate {
                let names = self.certificate.as_ref();
                let owner = names.map(|names| self.rules.policy.owner(names));
                owner == Some(CertificateOwner::User(new))
            } else {
                new.password == old.password
            }
        });
        self.user = new.cloned();
        if self.user.is_none() {
            self.logged_in = false;
            self.is_by_certificate = false;
            self.has_authenticated = false;
        }
        self.user.is_some()
    }

    fn present(&mut self, user: String, password: Secret) {
        if user.is_empty() || password.reveal().is_empty() {
            self.failed(Reply::auth_failed());
        } else {
            self.phase = Phase::Verifying(user.clone());
            self.push(Step::Verify(Credentials { user, password }));
        }
    }

    /// What the driver found.
    pub(super) fn login_result(&mut self, authentication: Authentication) {
        let Phase::Verifying(name) = std::mem::replace(&mut self.phase, Phase::Command) else {
            self.close(None);
            return;
        };
        let user = self.conditions.rules.policy.user(&name).cloned();
        match (authentication, user) {
            (Authentication::Accepted, Some(user)) => {
                self.logged_in = true;
                self.is_by_certificate = false;
                self.has_authenticated = true;
                self.user = Some(user);
                self.say(Reply::logged_in());
            }
            // A reload has just removed the user.
            (Authentication::Accepted, None) | (Authentication::Refused, _) => {
                self.failed(Reply::auth_failed());
            }
            (Authentication::Throttled, _) => self.failed(Reply::auth_throttled()),
        }
    }

    fn failed(&mut self, reply: Reply) {
        self.auth_failures += 1;
        self.rejected("auth", None, &reply);
        if self.auth_failures >= AUTH_FAILURES {
            self.close(Some(Reply::too_many_failures()));
        } else {
            self.error(reply);
        }
    }
}
