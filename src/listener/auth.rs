//! Whether a password is right: argon2id off the async threads, delays and limits after failures.
//!
//! The session asks and waits. Two checks run at a time, so that a burst of logins cannot take the machine;
//! an unknown name costs as much time as a wrong password. It grants nothing: that is `policy`'s.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordVerifier, password_hash::phc::PasswordHash};
use tokio::sync::Semaphore;

use super::limits::{ByNetwork, Forgetful};
use crate::{
    policy::client::User,
    smtp::server::session::{Authentication, Credentials},
};

/// Failures of one address within [`WINDOW`] after which it is throttled, and for how long they count.
const FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// A refusal takes at least this long.
const DELAY: Duration = Duration::from_secs(1);
/// Addresses and logins that are remembered at most.
const REMEMBERED: usize = 10_000;
/// A password that was right need not be hashed again for so long: devices log in for every message.
const FRESH: Duration = Duration::from_mins(5);
/// Longer names and passwords are refused unlooked.
const LONGEST: usize = 1_024;

/// Checks passwords.
#[derive(Debug)]
pub struct Authenticator {
    permits: Semaphore,
    failures: ByNetwork<Failures>,
    right: Mutex<Forgetful<LoginDigest, Instant>>,
    key: [u8; 32],
    delay: Duration,
}

/// SHA-256 over a random key, name, password and hash: what is kept of a login that was right, never the password.
type LoginDigest = [u8; 32];

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self::new(DELAY)
    }
}

impl Authenticator {
    /// With another delay after a refusal than one second (tests).
    pub fn new(delay: Duration) -> Self {
        let mut key = [0; 32];
        // Without randomness the key stays all zero and `mark` gives nothing to remember.
        let _ = rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut key);
        Self {
            permits: Semaphore::new(2),
            failures: ByNetwork::new(REMEMBERED),
            right: Mutex::new(Forgetful::new(REMEMBERED)),
            key,
            delay,
        }
    }

    /// Checks one login from `from` against the users of the rules in force.
    pub async fn check(
        &self,
        credentials: &Credentials,
        users: &[User],
        from: IpAddr,
    ) -> Authentication {
        if self.is_throttled(from, Instant::now()) {
            return Authentication::Throttled;
        }
        match self.is_right(credentials, users, from).await {
            Some(true) => return Authentication::Accepted,
            Some(false) => {}
            None => return Authentication::Throttled,
        }
        self.count_failure(from, Instant::now());
        tokio::time::sleep(self.delay).await;
        Authentication::Refused
    }

    /// `None`: while it waited for its turn the address was throttled.
    async fn is_right(
        &self,
        credentials: &Credentials,
        users: &[User],
        from: IpAddr,
    ) -> Option<bool> {
        let (name, password) = (&credentials.user, credentials.password.reveal());
        if name.len() > LONGEST || password.len() > LONGEST {
            return Some(false);
        }
        // Who has none logs in by a certificate alone, and costs as much time as a name that is not there.
        let has_one = |user: &&User| !user.password.reveal().is_empty();
        let user = users.iter().find(|u| u.name == *name).filter(has_one);
        let mark = user.and_then(|u| self.mark(name, password, u.password.reveal()));
        if mark.is_some_and(|m| self.is_fresh(&m, Instant::now())) {
            return Some(true);
        }
        // An unknown name is checked against the first user's hash and refused whatever comes of it.
        let Some(hash) = user
            .or(users.iter().find(has_one))
            .map(|u| u.password.clone())
        else {
            return Some(false);
        };
        let Ok(_permit) = self.permits.acquire().await else {
            return Some(false);
        };
        if self.is_throttled(from, Instant::now()) {
            return None;
        }
        let password = credentials.password.clone();
        let matches = tokio::task::spawn_blocking(move || {
            PasswordHash::new(hash.reveal()).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.reveal().as_bytes(), &hash)
                    .is_ok()
            })
        })
        .await
        .unwrap_or(false);
        if !matches || user.is_none() {
            return Some(false);
        }
        if let Some(mark) = mark {
            let now = Instant::now();
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            *right.entry(mark, now) = now;
        }
        Some(true)
    }

    fn is_fresh(&self, mark: &LoginDigest, now: Instant) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let at = right.get(mark);
        at.is_some_and(|at| now.duration_since(*at) < FRESH)
    }

    /// The hash of the user is part of it, so that a reload with another one forgets.
    fn mark(&self, name: &str, password: &str, hash: &str) -> Option<LoginDigest> {
        if self.key == [0; 32] {
            return None;
        }
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
        let mut text = Vec::with_capacity(64 + name.len() + password.len() + hash.len());
        text.extend_from_slice(&self.key);
        for part in [name, password, hash] {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        let mark = suite.common.hash_provider.hash(&text).as_ref().try_into();
        text.fill(0);
        mark.ok()
    }

    fn is_throttled(&self, from: IpAddr, now: Instant) -> bool {
        self.failures.is(from, |f| {
            f.count >= FAILURES && now.duration_since(f.since) < WINDOW
        })
    }

    fn count_failure(&self, from: IpAddr, now: Instant) {
        let first = Failures {
            since: now,
            count: 0,
        };
        self.failures.change(from, first, |entry| {
            if now.duration_since(entry.since) >= WINDOW {
                *entry = first;
            }
            entry.count += 1;
            if entry.count == FAILURES {
                // The minute of silence begins at the tenth failure.
                entry.since = now;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use argon2::PasswordHasher;

    fn users() -> Vec<User> {
        let cheap = Argon2::from(argon2::Params::new(64, 1, 1, None).unwrap());
        let hash = cheap.hash_password(b"right").unwrap().to_string();
        vec![User {
            name: "erp".to_owned(),
            password: Secret::new(hash),
            certificates: Vec::new(),
            senders: None,
            recipients: None,
        }]
    }

    fn login(user: &str, password: &str) -> Credentials {
        Credentials {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    #[tokio::test]
    async fn right_wrong_unknown_and_changed() {
        let auth = Authenticator::new(Duration::ZERO);
        let ip = IpAddr::from([127, 0, 0, 1]);
        let mut users = users();
        for (user, password, expected) in [
            ("erp", "right", Authentication::Accepted),
            ("erp", "right", Authentication::Accepted),
            ("erp", "wrong", Authentication::Refused),
            ("ERP", "right", Authentication::Refused),
            ("", "", Authentication::Refused),
            ("other", "right", Authentication::Refused),
        ] {
            assert_eq!(
                auth.check(&login(user, password), &users, ip).await,
                expected,
                "{user} {password}"
            );
        }
        assert_eq!(auth.right.lock().unwrap().len(), 1);
        users[0].password =
            Secret::new("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            auth.check(&login("erp", "right"), &users, ip).await,
            Authentication::Refused
        );
        assert_eq!(
            auth.check(&login("erp", "right"), &[], ip).await,
            Authentication::Refused
        );
    }

    #[tokio::test]
    async fn ten_failures_throttle_one_address() {
        let auth = Authenticator::new(Duration::ZERO);
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..FAILURES {
            assert_eq!(
                auth.check(&login("x", "y"), &[], bad).await,
                Authentication::Refused
            );
        }
        let users = users();
        assert_eq!(
            auth.check(&login("erp", "right"), &users, bad).await,
            Authentication::Throttled
        );
        let (one, other) = ("2001:db8::1", "2001:db8::a:b:c:d");
        for _ in 0..FAILURES {
            auth.check(&login("x", "y"), &[], one.parse().unwrap())
                .await;
        }
        assert_eq!(
            auth.check(&login("erp", "right"), &users, other.parse().unwrap())
                .await,
            Authentication::Throttled,
            "a machine has a /64 of addresses"
        );
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(
            auth.check(&login("erp", "right"), &users, mapped).await,
            Authentication::Throttled
        );
        assert_eq!(
            auth.check(&login("erp", "right"), &users, good).await,
            Authentication::Accepted
        );
        assert!(!auth.is_throttled(bad, Instant::now() + WINDOW));
    }

    /// Ten thousand networks that fail once each shall not buy one more of them an unwatched guess.
    #[test]
    fn attack_a_map_filled_with_networks_throttles_all_the_same() {
        let auth = Authenticator::new(Duration::ZERO);
        let now = Instant::now();
        let guesser = IpAddr::from([203, 0, 113, 7]);
        for i in 0..30_000_u32 {
            auth.count_failure(IpAddr::from(i.to_be_bytes()), now);
            if i >= 29_900 && i % 10 == 0 {
                auth.count_failure(guesser, now);
            }
        }
        assert!(auth.is_throttled(guesser, now));
        assert!(auth.failures.len() <= REMEMBERED);
    }
}
