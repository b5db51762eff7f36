//! Passwords and links: how somebody comes in, and how guessing is slowed down.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordVerifier as _, password_hash::phc::PasswordHash};
use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::{
    problem::ApiError,
    settings::{AdminUser, WindowSettings},
};
use crate::{
    listener::limits::{ByNetwork, Forgetful},
    secret::Secret,
};

/// Failed logins in a minute.
const OF_ADDRESS: usize = 8;
const OF_NAME: usize = 60;
/// Tests and drafts in a minute.
const TRIALS: usize = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// Addresses and names that are remembered.
const REMEMBERED: usize = 10_000;
/// Longer names and passwords are refused unlooked.
const LONGEST: usize = 1_024;

/// Times within the last minute.
#[derive(Debug, Clone, Default)]
struct Recent(VecDeque<Instant>);

impl Recent {
    /// Seconds until there is room for one more of `most`. `None`: there is.
    fn wait(&mut self, most: usize, now: Instant) -> Option<u64> {
        while self
            .0
            .front()
            .is_some_and(|first| now.duration_since(*first) >= MINUTE)
        {
            self.0.pop_front();
        }
        let first = self.0.front().filter(|_| self.0.len() >= most)?;
        Some(
            MINUTE
                .saturating_sub(now.duration_since(*first))
                .as_secs()
                .max(1),
        )
    }

    fn add(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

/// Who has failed of late, and the one check at a time.
#[derive(Debug)]
pub(super) struct LoginGuard {
    addresses: ByNetwork<Recent>,
    names: Mutex<Forgetful<String, Recent>>,
    trials: Mutex<Recent>,
    checks: Semaphore,
}

impl Default for LoginGuard {
    fn default() -> Self {
        Self {
            addresses: ByNetwork::new(REMEMBERED),
            names: Mutex::new(Forgetful::new(REMEMBERED)),
            trials: Mutex::default(),
            checks: Semaphore::new(1),
        }
    }
}

/// Who comes by the Unix socket counts as one address.
fn counted(from: Option<IpAddr>) -> IpAddr {
    from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn too_many(seconds: u64, detail: &str) -> ApiError {
    let mut refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail);
    refusal.retry_after = Some(seconds);
    refusal
}

impl LoginGuard {
    /// Whether this address and name may try.
    ///
    /// # Errors
    /// They have failed too often within a minute.
    pub(super) fn may_try(&self, from: Option<IpAddr>, name: &str) -> Result<(), ApiError> {
        let now = Instant::now();
        let wait = |recent: &mut Recent| recent.wait(OF_ADDRESS, now);
        let of_address = self
            .addresses
            .change(counted(from), Recent::default(), wait);
        // A link has no name.
        let of_name = if name.is_empty() {
            None
        } else {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names
                .entry(name.to_owned(), Recent::default())
                .wait(OF_NAME, now)
        };
        match of_address.max(of_name) {
            None => Ok(()),
            Some(seconds) => Err(too_many(
                seconds,
                "too many logins have failed: wait a minute",
            )),
        }
    }

    pub(super) fn failed(&self, from: Option<IpAddr>, name: &str) {
        let now = Instant::now();
        self.addresses
            .change(counted(from), Recent::default(), |recent| recent.add(now));
        if name.is_empty() {
            return;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(name.to_owned(), Recent::default()).add(now);
    }

    /// One more test of a connector, or of a draft.
    ///
    /// # Errors
    /// There were as many as there may be in a minute.
    pub(super) fn trial(&self) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seconds) = trials.wait(TRIALS, now) {
            return Err(too_many(seconds, "there were 10 tests within a minute"));
        }
        trials.add(now);
        Ok(())
    }

    /// Whether the password is this user's; that it is not is counted. Of a name that is not known another one's hash is computed, so
    /// that it takes as long.
    ///
    /// # Errors
    /// As [`LoginGuard::may_try`]: asked when it is his turn, so that many at once try no more than many one after the other.
    pub(super) async fn check<'a>(
        &self,
        settings: &'a WindowSettings,
        from: Option<IpAddr>,
        name: &str,
        password: Secret,
    ) -> Result<Option<&'a AdminUser>, ApiError> {
        let _one = self.checks.acquire().await;
        self.may_try(from, name)?;
        let found = self.look(settings, name, password).await;
        if found.is_none() {
            self.failed(from, name);
        }
        Ok(found)
    }

    async fn look<'a>(
        &self,
        settings: &'a WindowSettings,
        name: &str,
        password: Secret,
    ) -> Option<&'a AdminUser> {
        if name.len() > LONGEST || password.reveal().len() > LONGEST {
            return None;
        }
        let user = settings.user(name);
        let hash = user.or(settings.users.first())?.password.clone();
        let is_right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(hash.reveal()).is_ok_and(|hash| {
                let argon2 = Argon2::default();
                argon2
                    .verify_password(password.reveal().as_bytes(), &hash)
                    .is_ok()
            })
        });
        let is_right = is_right.await.unwrap_or(false);
        user.filter(|_| is_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_guessing_passwords_is_slowed_down() {
        let guard = LoginGuard::default();
        let from = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        for _ in 0..OF_ADDRESS {
            assert!(guard.may_try(from(1), "kim").is_ok());
            guard.failed(from(1), "kim");
        }
        let refused = guard.may_try(from(1), "lee").unwrap_err();
        assert_eq!(refused.status, 429);
        assert!(
            refused
                .retry_after
                .is_some_and(|wait| (1..=60).contains(&wait))
        );
        // Others go on, until the name has been guessed at too often.
        for n in 2..=(OF_NAME / OF_ADDRESS) as u8 + 2 {
            for _ in 0..OF_ADDRESS {
                if guard.may_try(from(n), "kim").is_ok() {
                    guard.failed(from(n), "kim");
                }
            }
        }
        assert!(guard.may_try(from(99), "kim").is_err());
        assert!(guard.may_try(from(99), "lee").is_ok());
    }
}
