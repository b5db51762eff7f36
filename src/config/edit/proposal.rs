//! A change from the request to the text that is written, and once more on the file as it is later.
//!
//! It writes nothing but the files of secrets, and those last.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{
    keep::{self, Fresh},
    mask::{diff, split_mark},
    model::{Deed, DeedKind, below, look, perform, read, resolve, same},
    place,
    refusal::{EditRefusal, Why},
    rules,
    splice::splice,
};
use crate::{
    config::{
        load::parse,
        settings::{Environment, Secrets},
    },
    view::{Changes, Operation, Problem},
};

/// A change that waits: what is done, and what was seen where it is done. No secret is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// SHA-256 of the file that it was made for, in hex.
    pub base: String,
    /// What it is for.
    pub title: String,
    /// In this order; secrets are named by their files.
    pub changes: Vec<Operation>,
    /// Of each operation: the hash of what stood there.
    pub saw: Vec<String>,
    /// The files of the secrets that came with it, which no other change may name.
    pub secrets: Vec<String>,
}

/// The file as it would be.
#[derive(Debug)]
pub struct Edited {
    /// All of it; secrets are in it.
    pub octets: Vec<u8>,
    /// What becomes of the file, as a unified diff, secrets masked. Empty: nothing.
    pub diff: String,
    /// Warnings and notes of `check`.
    pub problems: Vec<Problem>,
}

/// The file as it is, and what its check needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Where it is; relative paths in it begin there.
    pub path: &'a Path,
    /// What it holds.
    pub octets: &'a [u8],
    /// What the process knows.
    pub env: &'a Environment,
    /// What the check does about the secrets; of a change whose secrets are not written yet nothing but [`Secrets::Ignore`] works.
    pub secrets: Secrets,
}

/// A change that may be proposed. Nothing of it is stored.
#[derive(Debug)]
pub struct Plan {
    /// For the window's database, by [`Plan::keep`].
    proposal: Proposal,
    /// What would become of the file.
    pub edited: Edited,
    fresh: Vec<Fresh>,
}

/// SHA-256 in hex.
pub fn digest(octets: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets);
    let hex = digest.as_ref().iter().map(|octet| format!("{octet:02x}"));
    hex.collect()
}

impl Plan {
    /// Of a request.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn new(
        changes: &Changes,
        ground: Ground<'_>,
        data_dir: &Path,
    ) -> Result<Self, EditRefusal> {
        if !changes.base.eq_ignore_ascii_case(&digest(ground.octets)) {
            let detail = "the file has changed since it was read; read it again";
            return Err(EditRefusal::new(Why::OtherBase, detail));
        }
        let (operations, fresh) = keep::take(&changes.changes, data_dir)?;
        let mut proposal = Proposal {
            base: digest(ground.octets),
            title: changes.title.clone(),
            changes: operations,
            saw: Vec::new(),
            secrets: fresh.iter().map(|one| one.path.clone()).collect(),
        };
        let ground = Ground {
            secrets: Secrets::Ignore,
            ..ground
        };
        let (edited, saw) = proposal.edit(ground, None)?;
        proposal.saw = saw;
        Ok(Self {
            proposal,
            edited,
            fresh,
        })
    }

    /// Writes its secrets to their files; then it may be stored.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep(self, data_dir: &Path) -> io::Result<(Proposal, Edited)> {
        keep::store(&self.fresh, data_dir)?;
        Ok((self.proposal, self.edited))
    }
}

impl Proposal {
    /// From the database.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<Self, EditRefusal> {
        serde_json::from_str(text).map_err(|error| {
            EditRefusal::new(
                Why::Failed,
                format!("the stored proposal cannot be read: {error}"),
            )
        })
    }

    /// For the database.
    pub fn written(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Does it anew, on the file of now.
    ///
    /// # Errors
    /// `changed` where something else stands than what it saw, and all that a new request may meet.
    pub fn apply(&self, ground: Ground<'_>) -> Result<Edited, EditRefusal> {
        self.edit(ground, Some(&self.saw)).map(|(edited, _)| edited)
    }

    fn edit(
        &self,
        ground: Ground<'_>,
        saw: Option<&[String]>,
    ) -> Result<(Edited, Vec<String>), EditRefusal> {
        let text = std::str::from_utf8(ground.octets).map_err(|_| {
            EditRefusal::not_provable("the file is not UTF-8; save it as UTF-8 first")
        })?;
        let (mark, body) = split_mark(text);
        let before = read(body)?;
        let (after, deeds, seen) = self.meaning(&before, saw)?;
        let mut new = body.to_owned();
        for deed in &deeds {
            new = splice(&new, deed)?;
        }
        let is_so = read(&new).is_ok_and(|meant| same(&meant, &after, 0));
        if !is_so {
            return Err(EditRefusal::not_provable(
                "this cannot be done to the file without changing something else; edit the file itself",
            ));
        }
        let new = format!("{mark}{new}");
        let mut problems = check(&new, ground)?;
        if !self.secrets.is_empty() && is_shared(&after) {
            problems.push(Problem {
                severity: "note",
                line: None,
                column: None,
                message: "its secrets are in files of this gateway alone, and the queue is shared"
                    .to_owned(),
                hint: Some("put the same files on the other gateways".to_owned()),
                place: None,
            });
        }
        let name = ground.path.display().to_string();
        let diff = diff(text, &new, &name).unwrap_or_default();
        let edited = Edited {
            octets: new.into_bytes(),
            diff,
            problems,
        };
        Ok((edited, seen))
    }

    /// What it means to the values, whether it may be, and what it sees. What the rules say goes before what the text says.
    fn meaning(
        &self,
        before: &Value,
        saw: Option<&[String]>,
    ) -> Result<(Value, Vec<Deed>, Vec<String>), EditRefusal> {
        let mut root = before.clone();
        let (mut deeds, mut seen) = (Vec::new(), Vec::new());
        for (number, operation) in self.changes.iter().enumerate() {
            rules::may_change(operation.place().0)?;
            let changed = || {
                let detail = format!(
                    "{} is not as it was when this was proposed",
                    operation.object()
                );
                EditRefusal::new(Why::Changed, detail)
            };
            let deed = resolve(&root, operation)
                .map_err(|why| if saw.is_some() { changed() } else { why })?;
            let sight = sight(&root, operation, &deed);
            if saw.is_some_and(|saw| saw.get(number) != Some(&sight)) {
                return Err(changed());
            }
            let old = root.clone();
            perform(&mut root, &deed)?;
            self.asked(&old, &root, &deed)?;
            deeds.push(deed);
            seen.push(sight);
        }
        rules::nothing_moved(before, &root, &self.secrets)?;
        Ok((root, deeds, seen))
    }

    fn asked(&self, before: &Value, after: &Value, deed: &Deed) -> Result<(), EditRefusal> {
        let fresh = &self.secrets;
        match &deed.what {
            DeedKind::Add(table) => {
                let table = Value::Table(table.clone());
                rules::may_become(&deed.section, None, Some(&table), fresh)
            }
            // One of several goes with all it has; what stands once has defaults where it is not.
            DeedKind::Move(_) => Ok(()),
            DeedKind::Remove if deed.at.len() > 1 => Ok(()),
            DeedKind::Set(..) | DeedKind::Unset(_) | DeedKind::Remove => rules::may_become(
                &deed.section,
                look(before, &deed.at),
                look(after, &deed.at),
                fresh,
            ),
        }
    }
}

/// The hash of what an operation finds in its place. What is found by its number is looked at as a whole: another may stand there.
fn sight(root: &Value, operation: &Operation, deed: &Deed) -> String {
    let section = look(root, &deed.at);
    let is_numbered = operation.place().2.is_some();
    let what = match &deed.what {
        DeedKind::Set(keys, _) | DeedKind::Unset(keys) if !is_numbered => {
            look(root, &below(&deed.at, keys))
        }
        DeedKind::Add(_) => None,
        DeedKind::Move(_) if !is_numbered => None,
        DeedKind::Set(..) | DeedKind::Unset(_) | DeedKind::Remove | DeedKind::Move(_) => section,
    };
    let text = serde_json::to_string(&what).unwrap_or_default();
    digest(text.as_bytes())
}

fn is_shared(root: &Value) -> bool {
    let store = root.get("queue").and_then(|queue| queue.get("store"));
    store.and_then(Value::as_str) == Some("postgres")
}

/// What `check` says of a text: warnings and notes.
fn check(text: &str, ground: Ground<'_>) -> Result<Vec<Problem>, EditRefusal> {
    match parse(text, ground.path, ground.secrets, ground.env) {
        Ok((_, notes)) => Ok(place::problems(notes.iter(), text)),
        Err(found) => {
            let mut refusal = EditRefusal::new(Why::Invalid, "the result is no configuration");
            refusal.problems = place::problems(found.iter(), text);
            Err(refusal)
        }
    }
}

#[cfg(test)]
mod tests;
