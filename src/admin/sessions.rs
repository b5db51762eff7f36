//! Who is logged in, in memory, as `window.db` has it.
//!
//! How long a login lasts is counted by a clock that nobody sets: a wall clock that is set back lengthens no session and no link. Of
//! a session that an earlier gateway knew, the wall clock says how old it was at the start, and one from the future is over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    caller::{hash, secret},
    settings::{AdminUser, Role, WindowSettings},
};
use crate::window::{
    WindowDb, WindowError,
    sessions::{self as rows, SecretHash, SessionRow},
};

/// A link is good for so long.
const CODE: Duration = Duration::from_mins(5);
/// An admin who does nothing for so long has to log in again.
const IDLE: Duration = Duration::from_mins(30);
/// That somebody was seen is written down so often at most.
const SEEN: Duration = Duration::from_mins(1);

/// One login.
#[derive(Debug, Clone)]
struct SessionState {
    name: String,
    /// Of a link.
    role: Option<Role>,
    proof: Vec<u8>,
    /// How old it was when it came to be known, and when that was.
    age: Duration,
    idle: Duration,
    since: Instant,
    seen: Instant,
    written: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct WindowSessions {
    window: Arc<WindowDb>,
    known: Mutex<HashMap<SecretHash, SessionState>>,
    /// When a link was first seen.
    codes: Mutex<HashMap<SecretHash, Instant>>,
    /// What is read of the file is older than what another task has written since: one at a time, memory and file.
    turn: tokio::sync::Mutex<()>,
}

/// What a password's hash is remembered by, so that another one ends what was begun with it.
fn proof(user: &AdminUser) -> Vec<u8> {
    hash(user.password.reveal()).to_vec()
}

impl WindowSessions {
    pub(super) fn new(window: Arc<WindowDb>) -> Self {
        Self {
            window,
            known: Mutex::default(),
            codes: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SecretHash, SessionState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what others have written: links that were made, sessions that were ended.
    pub(super) async fn look(&self, wall: SystemTime) -> Result<(), WindowError> {
        let look = |tx: &rusqlite::Transaction<'_>| Ok((rows::all(tx)?, rows::codes(tx)?));
        let _turn = self.turn.lock().await;
        let (sessions, codes) = self.window.read(look).await?;
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|hash, _| sessions.iter().any(|row| row.hash == *hash));
        for row in sessions {
            let age = wall.duration_since(row.made);
            let idle = wall.duration_since(row.seen);
            // One from the future: the clock was set back since.
            let (Ok(age), Ok(idle)) = (age, idle) else {
                continue;
            };
            known.entry(row.hash).or_insert_with(|| SessionState {
                name: row.name,
                role: row.role.as_deref().and_then(Role::parse),
                proof: row.proof,
                age,
                idle,
                since: now,
                seen: now,
                written: now,
            });
        }
        drop(known);
        let mut seen = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|hash, _| codes.iter().any(|row| row.hash == *hash));
        for row in codes {
            seen.entry(row.hash).or_insert(now);
        }
        Ok(())
    }

    /// Whose session that is, and what he may do now. `is_used`: by a person, which keeps an admin logged in.
    pub(super) fn find(
        &self,
        of: &SecretHash,
        settings: &WindowSettings,
        is_used: bool,
    ) -> Option<(String, Role)> {
        let now = Instant::now();
        let mut known = self.known();
        let login = known.get_mut(of)?;
        let of_user = || {
            let user = settings.user(&login.name)?;
            (proof(user) == login.proof).then_some(user.role)
        };
        let role = login.role.or_else(of_user);
        let is_old = login.age + now.duration_since(login.since) >= settings.session;
        let idle = login.idle + now.duration_since(login.seen);
        let Some(role) = role.filter(|role| !is_old && (*role != Role::Admin || idle < IDLE))
        else {
            known.remove(of);
            drop(known);
            self.forget(*of);
            return None;
        };
        let found = (login.name.clone(), role);
        if is_used {
            (login.seen, login.idle) = (now, Duration::ZERO);
            if now.duration_since(login.written) >= SEEN {
                login.written = now;
                let of = *of;
                self.later(move |tx| rows::seen(tx, &of, SystemTime::now()));
            }
        }
        Some(found)
    }

    /// Begins one; what the cookie says. `role`: of a link.
    pub(super) async fn begin(
        &self,
        name: &str,
        role: Option<Role>,
        user: Option<&AdminUser>,
    ) -> Result<String, WindowError> {
        let cookie = secret().ok_or_else(WindowError::no_randomness)?;
        let wall = SystemTime::now();
        let row = SessionRow {
            hash: hash(&cookie),
            name: name.to_owned(),
            role: role.map(|role| role.as_str().to_owned()),
            proof: user.map(proof).unwrap_or_default(),
            made: wall,
            seen: wall,
        };
        let (key, proof) = (row.hash, row.proof.clone());
        let _turn = self.turn.lock().await;
        self.window.run(move |tx| rows::add(tx, &row)).await?;
        let now = Instant::now();
        let login = SessionState {
            name: name.to_owned(),
            role,
            proof,
            age: Duration::ZERO,
            idle: Duration::ZERO,
            since: now,
            seen: now,
            written: now,
        };
        self.known().insert(key, login);
        Ok(cookie)
    }

    /// Ends one.
    pub(super) async fn end(&self, of: SecretHash) -> Result<(), WindowError> {
        let _turn = self.turn.lock().await;
        self.known().remove(&of);
        self.window.run(move |tx| rows::end(tx, &of)).await
    }

    /// Uses a link up: whom it was made for, and what he may do.
    pub(super) async fn redeem(&self, code: &str) -> Result<Option<(String, Role)>, WindowError> {
        let of = hash(code);
        let first_seen = {
            let seen = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(&of).copied()
        };
        let row = self.window.run(move |tx| rows::take_code(tx, &of)).await?;
        let is_late = first_seen.is_some_and(|seen| seen.elapsed() >= CODE);
        let row = row.filter(|row| {
            let age = SystemTime::now().duration_since(row.made);
            !is_late && age.is_ok_and(|age| age < CODE)
        });
        Ok(row.and_then(|row| Some((row.name, Role::parse(&row.role)?))))
    }

    fn forget(&self, of: SecretHash) {
        self.later(move |tx| rows::end(tx, &of));
    }

    /// Nobody waits for it: what is not written is found again at the next look.
    fn later<F>(&self, work: F)
    where
        F: FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    {
        self.window.later(work);
    }
}
