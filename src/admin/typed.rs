//! Secrets that somebody has typed into a form and not saved yet.
//!
//! A form is sent several times: tried, looked at, saved. What was typed as a secret must last from one to the next, and must not
//! stand in a page, where it would be in the browser's history and on the screen. So it stays here, in memory alone: the page has
//! a random name for it, which is good for whoever typed it, for a quarter of an hour, and for a few forms at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::caller::{self, Caller, Proof};
use crate::secret::Secret;

/// How long they last after their form was sent.
const LIFE: Duration = Duration::from_mins(15);
/// Forms whose secrets are kept; one more takes the place of the oldest. A form is no larger than a body, 64 KiB.
const FORMS: usize = 50;

/// By their keys.
pub(super) type SecretsByKey = BTreeMap<String, Secret>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TypedSecrets(Mutex<HashMap<String, TypedForm>>);

#[derive(Debug)]
struct TypedForm {
    whose: (String, Proof),
    until: Instant,
    secrets: SecretsByKey,
}

impl TypedSecrets {
    /// Those of a form of this caller. `None`: there are none of that name any more, or they are somebody else's.
    pub(super) fn find(&self, caller: &Caller, name: &str) -> Option<SecretsByKey> {
        self.find_at(caller, name, Instant::now())
    }

    fn find_at(&self, caller: &Caller, name: &str, now: Instant) -> Option<SecretsByKey> {
        let forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = forms.get(name).filter(|form| form.until > now)?;
        (found.whose == whose(caller)).then(|| found.secrets.clone())
    }

    /// Keeps them, in the place of those of the name `old`; their new name. `None`: there are none, or the machine has no randomness.
    pub(super) fn keep(
        &self,
        caller: &Caller,
        old: Option<&str>,
        secrets: SecretsByKey,
    ) -> Option<String> {
        self.keep_at(caller, old, secrets, Instant::now())
    }

    fn keep_at(
        &self,
        caller: &Caller,
        old: Option<&str>,
        secrets: SecretsByKey,
        now: Instant,
    ) -> Option<String> {
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forms.retain(|name, form| {
            let is_old = old == Some(name) && form.whose == whose(caller);
            form.until > now && !is_old
        });
        if secrets.is_empty() {
            return None;
        }
        if forms.len() >= FORMS {
            let oldest = forms.iter().min_by_key(|(_, form)| form.until);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| forms.remove(&name));
        }
        let name = caller::secret()?;
        let form = TypedForm {
            whose: whose(caller),
            until: now + LIFE,
            secrets,
        };
        forms.insert(name.clone(), form);
        Some(name)
    }
}

fn whose(caller: &Caller) -> (String, Proof) {
    (caller.name.clone(), caller.proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::settings::Role;

    #[test]
    fn they_are_their_owners_for_a_while_and_few() {
        let caller = |name: &str, session: u8| Caller {
            name: name.to_owned(),
            role: Role::Admin,
            proof: Proof::Session([session; 32]),
            from: "127.0.0.1".to_owned(),
        };
        let (kim, lee) = (caller("kim", 1), caller("lee", 2));
        let one = |secret: &str| SecretsByKey::from([("password".to_owned(), Secret::new(secret))]);
        let typed = TypedSecrets::default();
        let now = Instant::now();
        let keep = |old: Option<&str>, secrets| typed.keep_at(&kim, old, secrets, now);
        assert_eq!(keep(None, SecretsByKey::new()), None);
        let first = keep(None, one("hunter2")).unwrap();
        assert_eq!(typed.find_at(&kim, &first, now), Some(one("hunter2")));
        assert_eq!(typed.find_at(&lee, &first, now), None);
        assert_eq!(typed.find_at(&caller("kim", 3), &first, now), None);
        assert_eq!(typed.find_at(&kim, "another", now), None);
        assert_eq!(typed.find_at(&kim, &first, now + LIFE), None);
        // The next time the form is sent it has another name, and nobody else can take it away.
        assert!(typed.keep_at(&lee, Some(&first), one("x"), now).is_some());
        assert!(typed.find_at(&kim, &first, now).is_some());
        let second = keep(Some(&first), one("hunter3")).unwrap();
        assert_eq!(typed.find_at(&kim, &first, now), None);
        assert_eq!(typed.find_at(&kim, &second, now), Some(one("hunter3")));
        for _ in 0..FORMS {
            typed.keep_at(&lee, None, one("x"), now + Duration::from_secs(1));
        }
        assert_eq!(typed.find_at(&kim, &second, now), None);
        let forms = typed.0.lock().unwrap();
        assert_eq!(forms.len(), FORMS);
        assert!(!format!("{forms:?}").contains("hunter"));
    }
}
