//! Replaces an application's certificate step by step: what is due is done, and written down before the next is.
//!
//! The row is pure and says what is due (`connector::oauth::rotation`), `directory` asks; here are the store, the clock and the lock: on one machine
//! a lock, so that a command and the gateway never work on one row together, and among gateways a lease of the row. Mail never waits for it:
//! a connector looks the pairs up when it renews its token.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{rotated::RotatedCredential, tokens::StoredTokens};
use crate::{
    config::Config,
    connector::{
        keypair::Validity,
        newpair,
        oauth::{
            self, ApplicationPair, RotationSettings, TokenStore,
            directory::KeyDirectory,
            rotation::{DirectoryVerdict, RotatedPair, RotationDue, RotationRow, RotationState},
        },
    },
    mail::{
        outcome::Obstacle,
        time::{at, day, micros},
    },
    queue::store::Store,
};

/// Steps that are done one behind the other; more are none.
const STEPS: usize = 16;
/// Where nobody knows whether a certificate is registered, tokens are asked for after so many seconds each, half a minute in all.
const RECOVER: [u64; 6] = [0, 1, 2, 5, 9, 13];
/// Where somebody else is at work on it.
const BUSY: Duration = Duration::from_secs(5);
/// Between two looks at most.
const LOOK: Duration = Duration::from_hours(1);
/// No step is begun after this; one is at most some minutes of requests.
const BEGUN: Duration = Duration::from_mins(2);
/// So it is over before somebody else may begin.
const LEASE: Duration = Duration::from_mins(12);
/// The stamp of this installation, which gateways share.
const INSTANCE: &str = "rotation instance";

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationStanding {
    /// `off`, `waiting`, `adding`, `proving`, `retiring`, `failed`.
    pub word: &'static str,
    /// The pair in use, if it is not the configured one.
    pub current: Option<RotatedPair>,
    /// When the pair in use is good. `None`: it cannot be read.
    pub life: Option<Validity>,
    /// What hinders it, or is left to be done.
    pub why: Option<String>,
    /// Whether it has failed.
    pub has_failed: bool,
    /// When there is something to do.
    pub next: Option<i64>,
}

/// A process at work on rows, with what it needs.
pub struct Rotator<'a> {
    config: &'a Config,
    store: &'a Arc<dyn Store>,
    tokens: Arc<dyn TokenStore>,
}

impl<'a> Rotator<'a> {
    /// For this configuration.
    pub fn new(config: &'a Config, store: &'a Arc<dyn Store>) -> Self {
        Self {
            config,
            store,
            tokens: StoredTokens::of(store, config),
        }
    }

    /// Its row; none: it was never replaced.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn row(&self, credential: &RotatedCredential) -> Result<Option<RotationRow>, String> {
        oauth::rotation_row(self.tokens.as_ref(), &credential.key).await
    }

    /// How it is, without doing anything.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn standing(
        &self,
        credential: &RotatedCredential,
    ) -> Result<RotationStanding, String> {
        let row = self.row(credential).await?;
        Ok(standing(credential, row.as_ref(), None))
    }

    /// Does what is due. `is_wanted`: somebody wants it replaced now.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn advance(
        &self,
        credential: &RotatedCredential,
        is_wanted: bool,
    ) -> Result<RotationStanding, String> {
        let Some(rotation) = &credential.rotation else {
            return self.standing(credential).await;
        };
        let soon = seconds() + BUSY.as_secs() as i64;
        let row = self.row(credential).await?;
        let is_due = match (
            &row,
            in_use(credential, row.as_ref())
                .ok()
                .and_then(|pair| pair.validity()),
        ) {
            (Some(row), Some(life)) => !matches!(
                row.due(life, rotation.retire, seconds(), is_wanted),
                RotationDue::At(_)
            ),
            (None, Some(life)) => is_wanted || seconds() >= life.half(),
            (_, None) => false,
        };
        if !is_due {
            return Ok(standing(credential, row.as_ref(), None));
        }
        let Some(_lock) = lock(&self.config.data_dir).map_err(|why| why.to_string())? else {
            return Ok(standing(credential, row.as_ref(), Some(soon)));
        };
        let is_ours = self.store.take_note(&credential.key, LEASE).await;
        if !is_ours.map_err(|why| why.to_string())? {
            return Ok(standing(credential, row.as_ref(), Some(soon)));
        }
        let done = self.steps(credential, rotation, is_wanted).await;
        // It is free by itself after a while.
        let _ = self.store.give_note_back(&credential.key).await;
        done
    }

    /// One step after the other, until one is due later.
    async fn steps(
        &self,
        credential: &RotatedCredential,
        rotation: &RotationSettings,
        mut is_wanted: bool,
    ) -> Result<RotationStanding, String> {
        // Somebody else may have been at work on it until now.
        let mut seen = self.tokens.load(&credential.key).await?;
        let mut row = match oauth::rotation_row_in(seen.as_deref())? {
            Some(row) => row,
            None => RotationRow::new(self.instance().await?),
        };
        let directory = KeyDirectory::new(&credential.settings, rotation)?;
        let begun = Instant::now();
        for _ in 0..STEPS {
            if begun.elapsed() > BEGUN {
                break;
            }
            let pair = in_use(credential, Some(&row))?;
            let life = pair
                .validity()
                .ok_or("the certificate in use cannot be read")?;
            let act = row.due(life, rotation.retire, seconds(), is_wanted);
            let next = match act {
                RotationDue::At(next) => return Ok(standing(credential, Some(&row), Some(next))),
                RotationDue::Make => {
                    is_wanted = false;
                    let new = make(&self.config.hostname, RotationRow::days(life)).await?;
                    let made = row.made(new);
                    self.keep(credential, &mut seen, &made).await?;
                    self.add(&directory, &pair, &made, true).await
                }
                RotationDue::Recover => {
                    is_wanted = false;
                    self.recover(&directory, &pair, &row).await
                }
                RotationDue::Prove => prove(&directory, &row).await,
                RotationDue::Remove => self.remove(credential, &directory, &pair, &row).await,
            };
            // Somebody who wants it wants it once.
            is_wanted &= next.trouble.is_none();
            say(credential, &row, &next);
            self.keep(credential, &mut seen, &next).await?;
            row = next;
        }
        Ok(standing(credential, Some(&row), None))
    }

    /// Writes it over what was `seen`; what somebody else has written since stays, and ends the work here.
    async fn keep(
        &self,
        credential: &RotatedCredential,
        seen: &mut Option<String>,
        row: &RotationRow,
    ) -> Result<(), String> {
        let text = row.written().reveal().to_owned();
        let kept = self
            .tokens
            .replace(&credential.key, seen.take(), text.clone());
        if !kept.await? {
            return Err("somebody else has gone on with it meanwhile".to_owned());
        }
        *seen = Some(text);
        Ok(())
    }

    /// Made once.
    async fn instance(&self) -> Result<String, String> {
        if let Some(known) = self.tokens.load(INSTANCE).await? {
            return Ok(known);
        }
        let new = format!("{:08x}", fastrand::u32(..));
        self.tokens.save(INSTANCE, new.clone()).await?;
        Ok(new)
    }

    /// Has the new one registered, with a proof by the pair in use.
    async fn add(
        &self,
        directory: &KeyDirectory,
        pair: &ApplicationPair,
        row: &RotationRow,
        is_first: bool,
    ) -> RotationRow {
        let RotationState::Adding(new) = &row.state else {
            return row.clone();
        };
        let now = seconds;
        let new = match ApplicationPair::of(new) {
            Ok(new) => new,
            Err(why) => return row.failed(why, now()),
        };
        let token = match directory.token(pair).await {
            Ok(token) => token,
            Err(refused) => {
                let why = DirectoryVerdict::Unasked(said(&refused));
                return row.added(why, is_first, now());
            }
        };
        let name = format!("postern {} ({})", row.instance, day(SystemTime::now()));
        let mut verdict = directory
            .add(&token, &new, &name, (pair, directory.client_id()))
            .await;
        // The one reading of the documentation, then the other.
        if let DirectoryVerdict::Refused(..) = verdict
            && let Ok(entry) = directory.entry(&token).await
        {
            verdict = directory
                .add(&token, &new, &name, (pair, &entry.object_id))
                .await;
        }
        row.added(verdict, is_first, now())
    }

    /// It may be registered: whoever gives a token by it knows it.
    async fn recover(
        &self,
        directory: &KeyDirectory,
        pair: &ApplicationPair,
        row: &RotationRow,
    ) -> RotationRow {
        let RotationState::Adding(new) = &row.state else {
            return row.clone();
        };
        let new = match ApplicationPair::of(new) {
            Ok(new) => new,
            Err(why) => return row.failed(why, seconds()),
        };
        for wait in RECOVER {
            sleep(Duration::from_secs(wait)).await;
            if directory.token(&new).await.is_ok() {
                return row.proved(seconds());
            }
        }
        self.add(directory, pair, row, false).await
    }

    /// The new one is asked for a token first: it is to be the only one from then on.
    async fn remove(
        &self,
        credential: &RotatedCredential,
        directory: &KeyDirectory,
        pair: &ApplicationPair,
        row: &RotationRow,
    ) -> RotationRow {
        let RotationState::Retiring(replaced, _) = &row.state else {
            return row.clone();
        };
        let now = seconds;
        let token = match directory.token(pair).await {
            Ok(token) => token,
            Err(refused) => return row.unproved(&said(&refused), now()),
        };
        let old = match &replaced.pair {
            Some(old) => ApplicationPair::of(old),
            None => configured(credential),
        };
        let ends = old.as_ref().ok().and_then(ApplicationPair::validity);
        let ends = ends.map(|life| micros(life.ends()) / 1_000_000);
        let key_id = match (&replaced.key_id, &old) {
            (Some(key_id), _) => key_id.clone(),
            // Nothing but what we hold the key of is removed.
            (None, Err(why)) => {
                let verdict = DirectoryVerdict::Unreadable(why.clone());
                return row.removed(verdict, ends, now());
            }
            (None, Ok(old)) => match directory.entry(&token).await {
                Ok(entry) => match entry.key_id(old) {
                    Some(key_id) => key_id.to_owned(),
                    None if entry.is_whole => {
                        return row.removed(DirectoryVerdict::Gone, ends, now());
                    }
                    None => {
                        let why = "the directory names the thumbprints of some of its keys only";
                        let verdict = DirectoryVerdict::Unreadable(why.to_owned());
                        return row.removed(verdict, ends, now());
                    }
                },
                Err(verdict) => return row.removed(verdict, ends, now()),
            },
        };
        let by = (pair, directory.client_id());
        let mut verdict = directory.remove(&token, &key_id, by).await;
        if let DirectoryVerdict::Refused(..) = verdict
            && let Ok(entry) = directory.entry(&token).await
        {
            let by = (pair, entry.object_id.as_str());
            verdict = directory.remove(&token, &key_id, by).await;
        }
        row.removed(verdict, ends, now())
    }
}

/// A token by the new one.
async fn prove(directory: &KeyDirectory, row: &RotationRow) -> RotationRow {
    let RotationState::Proving(new, ..) = &row.state else {
        return row.clone();
    };
    let token = match ApplicationPair::of(new) {
        Ok(new) => directory.token(&new).await.map_err(|why| said(&why)),
        Err(why) => Err(why),
    };
    match token {
        Ok(_) => row.proved(seconds()),
        Err(why) => row.unproved(&why, seconds()),
    }
}

async fn make(hostname: &str, days: u32) -> Result<RotatedPair, String> {
    let name = format!("postern {hostname}");
    let made = move || newpair::new_pair(&name, days, SystemTime::now());
    let made = spawn_blocking(made).await;
    let made = made.map_err(|_| "no key was made: a fault of this program".to_owned())??;
    Ok(RotatedPair {
        certificate: made.certificate_pem,
        key: made.key_pem,
        key_id: None,
    })
}

/// The pair in use.
fn in_use(
    credential: &RotatedCredential,
    row: Option<&RotationRow>,
) -> Result<ApplicationPair, String> {
    match row.and_then(|row| row.current.as_ref()) {
        Some(current) => ApplicationPair::of(current),
        None => configured(credential),
    }
}

fn configured(credential: &RotatedCredential) -> Result<ApplicationPair, String> {
    let files = credential.settings.grant.certificate();
    let (certificate, key) = files.ok_or("it has no certificate")?;
    ApplicationPair::of_files(certificate, key)
}

fn standing(
    credential: &RotatedCredential,
    row: Option<&RotationRow>,
    next: Option<i64>,
) -> RotationStanding {
    let life = in_use(credential, row)
        .ok()
        .and_then(|pair| pair.validity());
    let due = match (&credential.rotation, life) {
        (Some(rotation), Some(life)) => match row {
            Some(row) => match row.due(life, rotation.retire, seconds(), false) {
                RotationDue::At(next) => Some(next),
                _ => Some(seconds()),
            },
            None => Some(life.half()),
        },
        _ => None,
    };
    RotationStanding {
        word: match &credential.rotation {
            None => "off",
            Some(_) => row.map_or("waiting", RotationRow::word),
        },
        current: row.and_then(|row| row.current.clone()),
        life,
        why: row.and_then(|row| row.why().map(str::to_owned)),
        has_failed: credential.rotation.is_some() && row.is_some_and(RotationRow::has_failed),
        next: next.or(due),
    }
}

/// How long until there is something to do.
pub(super) fn until(standing: &RotationStanding) -> Duration {
    let Some(next) = standing.next else {
        return LOOK;
    };
    let left = u64::try_from(next.saturating_sub(seconds())).unwrap_or(0);
    Duration::from_secs(left).clamp(Duration::from_millis(500), LOOK)
}

fn said(refused: &Obstacle) -> String {
    refused.reply.text.clone()
}

fn seconds() -> i64 {
    micros(SystemTime::now()) / 1_000_000
}

/// `None`: another process is at work. The directory itself is locked: a file that root's command made would not be the gateway's.
fn lock(data_dir: &Path) -> io::Result<Option<File>> {
    let directory = File::open(data_dir)?;
    match directory.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // Some network disks lock no directory; there is one gateway on it all the same.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(directory)),
    }
}

/// A line for each step.
fn say(credential: &RotatedCredential, before: &RotationRow, now: &RotationRow) {
    let connectors = credential.connectors.join(", ");
    if let Some(trouble) = now.trouble.as_ref().filter(|trouble| !trouble.is_passing) {
        let again = crate::mail::time::rfc3339(at(trouble.again));
        warn!(event = "rotation failed", connector = %connectors, why = %trouble.why, again = %again, "the certificate is not replaced; the one in use stays in use");
    } else if before.word() != now.word() {
        let why = now.why().unwrap_or_default();
        info!(event = "rotation", connector = %connectors, state = now.word(), why = %why, "the certificate is being replaced");
    }
}
