//! An application's certificate replaced by the gateway itself: the row that says how far that is, what is due, and what an answer makes of it.
//!
//! Each step is on disk before the next is done, so that a crash at any place goes on where it was: at every moment one pair is in use whose
//! certificate is registered. It asks nobody and reads no clock; `directory` has the requests.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    connector::keypair::Validity,
    mail::time::{at, day},
    secret::Secret,
};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// How long a pair of ours is good: as long as the one before, between these.
const LIFE: (i64, i64) = (90, 730);
/// Seconds after which a token is asked for by the new key; then every five minutes.
const PROVING: [i64; 6] = [1, 2, 5, 10, 30, 60];
const PROVING_ON: i64 = 300;
/// What may be over soon is tried again after so many seconds each, then like what refuses.
const PASSING: [i64; 6] = [5, 10, 20, 40, 80, 160];
/// A new key that gives no token for so long is no good yet.
const PROVED_WITHIN: i64 = HOUR;

/// A pair of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedPair {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: Secret,
    /// What the directory calls it, if it said so.
    pub key_id: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotationState {
    /// For half of the life of the pair in use.
    Waiting,
    /// A new one is made, and may be registered.
    Adding(RotatedPair),
    /// It is registered, as far as is known; the token service need not know it yet. Since when, and how often it was asked.
    Proving(RotatedPair, i64, u32),
    /// The new one is in use, and the one before is registered yet.
    Retiring(ReplacedPair, i64),
}

/// The pair that was in use before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedPair {
    /// `None`: the configured one.
    pub pair: Option<RotatedPair>,
    /// When it was replaced by the gateway.
    pub key_id: Option<String>,
}

/// What hinders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationTrouble {
    /// In words.
    pub why: String,
    /// When it is tried again.
    pub again: i64,
    /// It may be over soon, and nobody is needed yet.
    pub is_passing: bool,
}

/// What is kept of one credential, beside the configured certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationRow {
    /// The stamp of this installation, in the names of its certificates.
    pub instance: String,
    /// `None`: the configured pair is in use.
    pub current: Option<RotatedPair>,
    /// How far it is.
    pub state: RotationState,
    /// What hinders it.
    pub trouble: Option<RotationTrouble>,
    /// Failures since a pair was last replaced.
    pub failures: u32,
    /// How often the last step met something that may be over soon.
    pub passing: u32,
    /// What was left to be done.
    pub left: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationDue {
    /// Nothing before that.
    At(i64),
    /// A new pair is made, then registered.
    Make,
    /// Nobody knows whether the new one is registered: that is found out, and else done again.
    Recover,
    /// A token is asked for by the new one.
    Prove,
    /// The one before is removed.
    Remove,
}

/// What the directory said to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryVerdict {
    /// It is done; what it calls the key, if it said so.
    Done(Option<String>),
    /// There is no such key.
    Gone,
    /// Its entries may not be read.
    Unreadable(String),
    /// It is not done, and will not be: 4xx.
    Refused(u16, String),
    /// It asks for patience, or is ill; nobody knows whether it was done.
    Later(String),
    /// Nothing was asked.
    Unasked(String),
    /// It was asked, and the answer was lost.
    Lost(String),
}

impl RotationRow {
    /// Of a credential that was never replaced.
    pub fn new(instance: String) -> Self {
        Self {
            instance,
            current: None,
            state: RotationState::Waiting,
            trouble: None,
            failures: 0,
            passing: 0,
            left: None,
        }
    }

    /// The pairs that may give a token, the likeliest first; `None` is the configured one. A store from a backup may be behind: what was
    /// new then may be in use by now.
    pub fn pairs(&self) -> Vec<Option<&RotatedPair>> {
        let mut all = vec![self.current.as_ref()];
        match &self.state {
            RotationState::Retiring(replaced, _) => all.push(replaced.pair.as_ref()),
            RotationState::Adding(new) | RotationState::Proving(new, ..) => all.push(Some(new)),
            RotationState::Waiting => {}
        }
        if !all.contains(&None) {
            all.push(None);
        }
        all
    }

    /// The word for `status`.
    pub fn word(&self) -> &'static str {
        match &self.state {
            _ if self.has_failed() => "failed",
            RotationState::Waiting => "waiting",
            RotationState::Adding(_) => "adding",
            RotationState::Proving(..) => "proving",
            RotationState::Retiring(..) => "retiring",
        }
    }

    /// Whether something hinders it that will not be over soon.
    pub fn has_failed(&self) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| !trouble.is_passing)
    }

    /// What hinders it, or was left to be done.
    pub fn why(&self) -> Option<&str> {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.why.as_str());
        trouble.or(self.left.as_deref())
    }

    /// What is due. `life`: of the pair in use; `is_wanted`: somebody wants it now.
    pub fn due(&self, life: Validity, retire: Duration, now: i64, is_wanted: bool) -> RotationDue {
        if let Some(trouble) = &self.trouble
            && !is_wanted
            // A clock that was set back does not hold it up for ever.
            && (now..=now + DAY).contains(&trouble.again)
            && trouble.again > now
        {
            return RotationDue::At(trouble.again);
        }
        let (at, act) = match &self.state {
            RotationState::Waiting if is_wanted => (now, RotationDue::Make),
            RotationState::Waiting => (life.half(), RotationDue::Make),
            RotationState::Adding(_) => (now, RotationDue::Recover),
            RotationState::Proving(_, since, asked) => {
                (soonest(*since, proving(*asked), now), RotationDue::Prove)
            }
            RotationState::Retiring(_, since) => {
                let retire = i64::try_from(retire.as_secs()).unwrap_or(i64::MAX);
                (soonest(*since, retire, now), RotationDue::Remove)
            }
        };
        if now >= at { act } else { RotationDue::At(at) }
    }

    /// Days that a new pair is good for, after one with this life.
    pub fn days(life: Validity) -> u32 {
        let days = (life.seconds() / DAY).clamp(LIFE.0, LIFE.1);
        u32::try_from(days).unwrap_or(90)
    }

    /// A new pair is made.
    #[must_use]
    pub fn made(&self, new: RotatedPair) -> Self {
        self.to(RotationState::Adding(new))
    }

    /// It was to be registered. `is_first`: never before, so that a refusal says that it is not.
    #[must_use]
    pub fn added(&self, verdict: DirectoryVerdict, is_first: bool, now: i64) -> Self {
        let RotationState::Adding(new) = &self.state else {
            return self.clone();
        };
        let proving = |key_id: Option<String>| {
            let key_id = key_id.or_else(|| new.key_id.clone());
            let new = RotatedPair {
                key_id,
                ..new.clone()
            };
            self.to(RotationState::Proving(new, now, 0))
        };
        match verdict {
            DirectoryVerdict::Done(key_id) => proving(key_id),
            DirectoryVerdict::Lost(_) if is_first => self.clone(),
            // The same certificate a second time is refused as well where the first has arrived.
            DirectoryVerdict::Lost(_) | DirectoryVerdict::Refused(400, _) if !is_first => {
                proving(None)
            }
            DirectoryVerdict::Refused(_, why) | DirectoryVerdict::Unasked(why) if is_first => {
                self.to(RotationState::Waiting).failed(why, now)
            }
            DirectoryVerdict::Refused(_, why)
            | DirectoryVerdict::Unasked(why)
            | DirectoryVerdict::Later(why)
            | DirectoryVerdict::Lost(why)
            | DirectoryVerdict::Unreadable(why) => self.failed(why, now),
            DirectoryVerdict::Gone => {
                self.failed("the directory has no such application".to_owned(), now)
            }
        }
    }

    /// The new pair gave a token: it is in use from now on, and the one before is on its way out.
    #[must_use]
    pub fn proved(&self, now: i64) -> Self {
        let (RotationState::Adding(new) | RotationState::Proving(new, ..)) = &self.state else {
            return self.clone();
        };
        let before = self.current.clone();
        let replaced = ReplacedPair {
            key_id: before.as_ref().and_then(|pair| pair.key_id.clone()),
            pair: before,
        };
        Self {
            current: Some(new.clone()),
            failures: 0,
            left: None,
            ..self.to(RotationState::Retiring(replaced, now))
        }
    }

    /// It gave none.
    #[must_use]
    pub fn unproved(&self, why: &str, now: i64) -> Self {
        match &self.state {
            RotationState::Proving(new, since, asked) => {
                if (0..PROVED_WITHIN).contains(&(now - since)) {
                    let state = RotationState::Proving(new.clone(), *since, asked.saturating_add(1));
                    return self.to(state);
                }
                let why = format!("the new certificate is registered, and gave no token within an hour: {why}");
                self.to(RotationState::Adding(new.clone())).failed(why, now)
            }
            // The one in use is not to be the only one yet.
            RotationState::Retiring(..) => self.hindered(
                format!("the one before stays registered, since the new certificate gives no token: {why}"),
                now,
            ),
            RotationState::Waiting | RotationState::Adding(_) => self.clone(),
        }
    }

    /// The one before was to be removed. `ends`: when it ends by itself.
    #[must_use]
    pub fn removed(&self, verdict: DirectoryVerdict, ends: Option<i64>, now: i64) -> Self {
        match verdict {
            DirectoryVerdict::Done(_) | DirectoryVerdict::Gone => Self {
                failures: 0,
                ..self.to(RotationState::Waiting)
            },
            DirectoryVerdict::Unreadable(why) => {
                let until = ends.map_or_else(|| "it ends".to_owned(), |ends| day(at(ends)));
                let left = format!(
                    "the certificate before this one stays registered until {until}: its key ID is not known, and {why}; remove it by hand, or let it end"
                );
                Self {
                    failures: 0,
                    left: Some(left),
                    ..self.to(RotationState::Waiting)
                }
            }
            DirectoryVerdict::Unasked(why) | DirectoryVerdict::Lost(why) => self.hindered(why, now),
            DirectoryVerdict::Refused(_, why) | DirectoryVerdict::Later(why) => {
                self.failed(why, now)
            }
        }
    }

    /// Something hinders it that may be over soon, unless it has done so often.
    fn hindered(&self, why: String, now: i64) -> Self {
        let Some(wait) = usize::try_from(self.passing)
            .ok()
            .and_then(|at| PASSING.get(at))
        else {
            return self.failed(why, now);
        };
        Self {
            passing: self.passing.saturating_add(1),
            trouble: Some(RotationTrouble {
                why,
                again: now + wait,
                is_passing: true,
            }),
            ..self.clone()
        }
    }

    /// Something else hinders it.
    #[must_use]
    pub fn failed(&self, why: String, now: i64) -> Self {
        let again = if self.failures == 0 { HOUR } else { DAY };
        Self {
            failures: self.failures.saturating_add(1),
            trouble: Some(RotationTrouble {
                why,
                again: now + again,
                is_passing: false,
            }),
            ..self.clone()
        }
    }

    fn to(&self, state: RotationState) -> Self {
        Self {
            state,
            trouble: None,
            passing: 0,
            ..self.clone()
        }
    }

    /// For the store.
    pub fn written(&self) -> Secret {
        let (word, new, since, asked) = match &self.state {
            RotationState::Waiting => ("waiting", None, 0, 0),
            RotationState::Adding(new) => ("adding", Some(new), 0, 0),
            RotationState::Proving(new, since, asked) => ("proving", Some(new), *since, *asked),
            RotationState::Retiring(_, since) => ("retiring", None, *since, 0),
        };
        let replaced = match &self.state {
            RotationState::Retiring(replaced, _) => Some(replaced),
            _ => None,
        };
        let trouble = self.trouble.as_ref();
        let row = json!({
            "instance": self.instance, "state": word, "since": since, "asked": asked,
            "current": self.current.as_ref().map(shown), "new": new.map(shown),
            "replaced": replaced.and_then(|one| one.pair.as_ref()).map(shown),
            "replaced_key_id": replaced.and_then(|one| one.key_id.clone()),
            "why": trouble.map(|one| &one.why), "again": trouble.map(|one| one.again),
            "is_passing": trouble.is_some_and(|one| one.is_passing), "passing": self.passing,
            "failures": self.failures, "left": self.left,
        });
        Secret::new(row.to_string())
    }

    /// From the store. `None`: it is none that this program knows; it must not be written over.
    pub fn read(text: &str) -> Option<Self> {
        let row: Value = serde_json::from_str(text).ok()?;
        let word = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| row.get(key).and_then(Value::as_i64);
        let pair = |key: &str| match row.get(key) {
            None | Some(Value::Null) => Some(None),
            Some(value) => read(value).map(Some),
        };
        let (new, since) = (pair("new")?, number("since")?);
        let asked = u32::try_from(number("asked")?).ok()?;
        let state = match word("state")?.as_str() {
            "waiting" => RotationState::Waiting,
            "adding" => RotationState::Adding(new?),
            "proving" => RotationState::Proving(new?, since, asked),
            "retiring" => {
                let replaced = ReplacedPair {
                    pair: pair("replaced")?,
                    key_id: word("replaced_key_id"),
                };
                RotationState::Retiring(replaced, since)
            }
            _ => return None,
        };
        let trouble = word("why").zip(number("again"));
        let is_passing = row.get("is_passing")?.as_bool()?;
        Some(Self {
            instance: word("instance")?,
            current: pair("current")?,
            state,
            trouble: trouble.map(|(why, again)| RotationTrouble {
                why,
                again,
                is_passing,
            }),
            failures: u32::try_from(number("failures")?).ok()?,
            passing: u32::try_from(number("passing")?).ok()?,
            left: word("left"),
        })
    }
}

/// So long after that; at once where the clock was set back since by more than a day.
fn soonest(since: i64, wait: i64, now: i64) -> i64 {
    if since > now.saturating_add(DAY) {
        return now;
    }
    since.saturating_add(wait)
}

/// After how many seconds in all it is asked for the next time.
fn proving(asked: u32) -> i64 {
    let known = usize::try_from(asked).ok().and_then(|at| PROVING.get(at));
    let beyond = i64::from(asked) - PROVING.len() as i64 + 1;
    known.copied().unwrap_or(beyond * PROVING_ON)
}

fn shown(pair: &RotatedPair) -> Value {
    json!({ "certificate": pair.certificate, "key": pair.key.reveal(), "key_id": pair.key_id })
}

fn read(value: &Value) -> Option<RotatedPair> {
    let word = |key: &str| value.get(key).and_then(Value::as_str);
    Some(RotatedPair {
        certificate: word("certificate")?.to_owned(),
        key: Secret::new(word("key")?),
        key_id: word("key_id").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> RotatedPair {
        RotatedPair {
            certificate: name.to_owned(),
            key: Secret::new(format!("key of {name}")),
            key_id: None,
        }
    }

    fn named(name: &str, key_id: &str) -> RotatedPair {
        RotatedPair {
            key_id: Some(key_id.to_owned()),
            ..pair(name)
        }
    }

    fn life(begins: i64, ends: i64) -> Validity {
        Validity::between(at(begins), at(ends))
    }

    const RETIRE: Duration = Duration::from_secs(100);

    fn due(row: &RotationRow, now: i64) -> RotationDue {
        row.due(life(0, 2_000_000), RETIRE, now, false)
    }

    /// What is written is read again, and what no version of this program wrote is not taken for a row.
    fn kept(row: &RotationRow) -> RotationRow {
        let text = row.written();
        let read = RotationRow::read(text.reveal()).unwrap();
        assert_eq!(read, *row);
        assert!(!format!("{row:?}").contains("key of"), "{row:?}");
        for gone in ["\"state\"", "\"current\"", "\"instance\"", "\"failures\""] {
            let text = text.reveal().replace(gone, "\"x\"");
            let is_optional = gone == "\"current\"";
            assert_eq!(RotationRow::read(&text).is_some(), is_optional, "{gone}");
        }
        read
    }

    #[test]
    fn the_course_of_a_rotation() {
        let row = kept(&RotationRow::new("0123abcd".to_owned()));
        assert_eq!(row.pairs(), [None]);
        assert_eq!(due(&row, 999_999), RotationDue::At(1_000_000));
        assert_eq!(due(&row, 1_000_000), RotationDue::Make);
        assert_eq!(
            row.due(life(0, 2_000_000), RETIRE, 1, true),
            RotationDue::Make
        );
        let row = kept(&row.made(pair("a")));
        assert_eq!((row.word(), due(&row, 0)), ("adding", RotationDue::Recover));
        assert_eq!(row.pairs(), [None, Some(&pair("a"))]);
        let done = DirectoryVerdict::Done(Some("id-a".to_owned()));
        let mut row = kept(&row.added(done, true, 50));
        let a = named("a", "id-a");
        assert_eq!(row.pairs(), [None, Some(&a)]);
        for (asked, wait) in [1, 2, 5, 10, 30, 60, 300, 600, 900].into_iter().enumerate() {
            assert_eq!(due(&row, 50), RotationDue::At(50 + wait), "{asked}");
            assert_eq!(due(&row, 50 + wait), RotationDue::Prove, "{asked}");
            row = kept(&row.unproved("not yet", 50 + wait));
            assert_eq!(row.word(), "proving");
        }
        let row = kept(&row.proved(1_000));
        assert_eq!(
            (row.word(), due(&row, 1_099)),
            ("retiring", RotationDue::At(1_100))
        );
        assert_eq!(due(&row, 1_100), RotationDue::Remove);
        assert_eq!(row.pairs(), [Some(&a), None]);
        let row = kept(&row.removed(DirectoryVerdict::Done(None), None, 1_100));
        assert_eq!((row.word(), row.pairs()), ("waiting", vec![Some(&a), None]));
        // The next one: the one before is known by what the directory calls it.
        let row = row.made(pair("b")).proved(2_000);
        let RotationState::Retiring(replaced, 2_000) = &row.state else {
            panic!("{row:?}");
        };
        assert_eq!(replaced.key_id.as_deref(), Some("id-a"));
        assert_eq!(row.pairs(), [Some(&pair("b")), Some(&a), None]);
        kept(&row);
    }

    #[test]
    fn what_an_answer_to_an_addition_means() {
        use DirectoryVerdict as V;
        let adding = RotationRow::new("i".to_owned()).made(pair("a"));
        let why = || "why".to_owned();
        for (verdict, is_first, word, keeps) in [
            (V::Done(None), true, "proving", true),
            (V::Lost(why()), true, "adding", true),
            (V::Lost(why()), false, "proving", true),
            (V::Refused(400, why()), true, "failed", false),
            (V::Refused(403, why()), true, "failed", false),
            (V::Unasked(why()), true, "failed", false),
            // No verdict: the same certificate may be there already.
            (V::Refused(400, why()), false, "proving", true),
            (V::Refused(403, why()), false, "failed", true),
            (V::Unasked(why()), false, "failed", true),
            (V::Later(why()), true, "failed", true),
            (V::Later(why()), false, "failed", true),
        ] {
            let row = kept(&adding.added(verdict.clone(), is_first, 7));
            assert_eq!(row.word(), word, "{verdict:?} {is_first}");
            let keeps_it = row.pairs().contains(&Some(&pair("a")));
            assert_eq!(keeps_it, keeps, "{verdict:?} {is_first}");
            assert_eq!(row.pairs()[0], None, "the old one goes on");
        }
    }

    #[test]
    fn what_fails_is_tried_after_an_hour_and_then_daily() {
        let wanted = |row: &RotationRow, now| row.due(life(0, 10), RETIRE, now, true);
        let mut row = RotationRow::new("i".to_owned());
        let mut now = 1_000_000;
        for wait in [HOUR, DAY, DAY] {
            row = kept(&row.failed("no".to_owned(), now));
            assert_eq!(row.why(), Some("no"));
            assert_eq!(due(&row, now), RotationDue::At(now + wait));
            assert_eq!(due(&row, now + wait), RotationDue::Make);
            // Somebody wants it; or the clock was set back.
            assert_eq!(wanted(&row, now), RotationDue::Make);
            assert_eq!(
                row.due(life(0, 10), RETIRE, now - 10 * DAY, false),
                RotationDue::Make
            );
            now += wait;
        }
        // A token that never comes.
        let proving = row
            .made(pair("a"))
            .added(DirectoryVerdict::Done(None), true, now);
        let row = kept(&proving.unproved("AADSTS700027", now + HOUR));
        assert_eq!(row.word(), "failed");
        assert!(matches!(row.state, RotationState::Adding(_)));
        assert!(row.why().unwrap().contains("AADSTS700027"));
        assert_eq!(due(&row, now + HOUR), RotationDue::At(now + HOUR + DAY));
        assert_eq!(due(&row, now + HOUR + DAY), RotationDue::Recover);
    }

    #[test]
    fn the_one_before_stays_until_it_is_removed_or_may_not_be_told_from_others() {
        use DirectoryVerdict as V;
        let retiring = RotationRow::new("i".to_owned()).made(pair("a")).proved(0);
        let mut row = retiring.clone();
        for wait in PASSING {
            row = kept(&row.removed(V::Lost("lost".to_owned()), None, 1_000));
            assert_eq!((row.word(), row.has_failed()), ("retiring", false));
            assert_eq!(due(&row, 1_000), RotationDue::At(1_000 + wait));
            assert_eq!(due(&row, 1_000 + wait), RotationDue::Remove);
        }
        let row = row.unproved("no token", 1_000);
        assert_eq!(
            (row.word(), due(&row, 1_000)),
            ("failed", RotationDue::At(1_000 + HOUR))
        );
        let refused = V::Refused(403, "no".to_owned());
        let row = kept(&retiring.removed(refused, None, 1_000));
        assert_eq!(row.word(), "failed");
        assert!(matches!(row.state, RotationState::Retiring(..)));
        let hidden = V::Unreadable("it may not be read".to_owned());
        let row = kept(&retiring.removed(hidden, Some(86_400), 1_000));
        assert_eq!(row.word(), "waiting");
        assert!(row.why().unwrap().contains("until 1970-01-02"), "{row:?}");
        assert!(row.made(pair("b")).proved(5_000).why().is_none());
        assert_eq!(kept(&retiring.removed(V::Gone, None, 1)).word(), "waiting");
    }

    #[test]
    fn a_new_pair_lives_as_long_as_the_one_before() {
        for (days, expected) in [(1, 90), (90, 90), (365, 365), (730, 730), (3_650, 730)] {
            assert_eq!(RotationRow::days(life(0, days * DAY)), expected, "{days}");
        }
    }

    #[test]
    fn what_is_no_row_is_none() {
        for text in ["", "null", "{}", "[]", "{\"state\":\"waiting\"}", "\u{0}"] {
            assert_eq!(RotationRow::read(text), None, "{text}");
        }
        let later = RotationRow::new("i".to_owned()).written();
        let later = later.reveal().replace("waiting", "sealing");
        assert_eq!(RotationRow::read(&later), None);
    }
}
