//! Whether what is to be written passes `check`, alone or beside the configuration that is there. It writes nothing.

use std::path::Path;

use toml::{Table, Value};

use super::{
    super::{
        check,
        exit::{CommandError, Exit},
    },
    draft::ConfigDraft,
    staging::Staging,
};
use crate::config::{self, Config, Diagnostic, Environment, Secrets, Severity, values};

/// What there is to say of it all the same.
#[derive(Debug, Default)]
pub(super) struct SetupProof {
    /// Warnings and notes of `check`.
    pub(super) notes: Vec<String>,
    /// Where its route belongs, of one beside a configuration.
    pub(super) route_first: bool,
}

/// Checks a whole configuration. `path`: where it will be.
pub(super) fn whole(
    draft: &ConfigDraft,
    staging: &Staging,
    path: &Path,
) -> Result<SetupProof, CommandError> {
    let note = |note: &Diagnostic| staging.plain(note.to_string().trim_end());
    Ok(SetupProof {
        notes: look(draft, staging, path)?.iter().map(note).collect(),
        route_first: false,
    })
}

/// The configuration that is there, which must be right before anything is put beside it. Its secrets are its own affair.
pub(super) fn there(path: &Path) -> Result<Config, CommandError> {
    let loaded = config::load(path, Secrets::Ignore).map_err(|why| {
        CommandError::new(
            Exit::Config,
            format_args!(
                "{why}the configuration that is there must be right first; nothing was written"
            ),
        )
    });
    loaded.map(|(config, _)| config)
}

/// Checks a connector and its route, by themselves and beside the configuration that is there.
pub(super) fn beside(
    draft: &ConfigDraft,
    staging: &Staging,
    path: &Path,
) -> Result<SetupProof, CommandError> {
    let config = there(path)?;
    let mut alone = draft.clone();
    "127.0.0.1:25".clone_into(&mut alone.site.listen);
    alone.site.hostname = values::is_full_name(&config.hostname).then(|| config.hostname.clone());
    let found = look(&alone, staging, path)?;
    let mut notes: Vec<String> = found.iter().map(|note| sentence(note, staging)).collect();
    notes.extend(
        draft
            .site
            .senders
            .iter()
            .filter_map(|one| unlisted(&config, one)),
    );
    let text = config.text.reveal();
    let there: Table = text
        .trim_start_matches('\u{feff}')
        .parse()
        .map_err(|_| refused("it is not TOML"))?;
    let added: Table = draft
        .beside(&|name| staging.find(name))
        .parse()
        .map_err(|why| CommandError::new(Exit::Software, why))?;
    let tried = |first: bool| {
        let text = together(there.clone(), &added, first);
        let text = toml::to_string(&text).map_err(|why| why.to_string())?;
        parse(&text, path, Secrets::Ignore).map_err(|why| {
            let all = why.iter();
            let errors = all.filter(|one| one.severity == Severity::Error);
            let said: Vec<String> = errors.map(|one| sentence(one, staging)).collect();
            said.join("\n")
        })
    };
    // Behind one that takes everything it would never be reached.
    let route_first = tried(false).is_err();
    if route_first {
        tried(true).map_err(|why| refused(&why))?;
    }
    Ok(SetupProof { notes, route_first })
}

/// What there is to say where the list of senders that is there lets none of these pass.
fn unlisted(config: &Config, pattern: &str) -> Option<String> {
    let address = if pattern.contains('@') {
        pattern.to_owned()
    } else {
        format!("postmaster@{pattern}")
    };
    // Of a pattern with a * nobody is known.
    let address = values::address(&address).ok()?;
    let mut listed = config.policy.allowlist.senders.iter();
    if pattern.contains('*') || listed.any(|known| known.matches(Some(&address))) {
        return None;
    }
    Some(format!(
        "note: {pattern} is not among the senders of [allowlist], so that its mail would be refused: add it there"
    ))
}

/// The warnings and notes of a whole configuration that is right.
fn look(
    draft: &ConfigDraft,
    staging: &Staging,
    path: &Path,
) -> Result<Vec<Diagnostic>, CommandError> {
    let text = draft.whole(&|name| staging.find(name));
    let (config, notes) = parse(&text, path, Secrets::CheckOnly)
        .map_err(|why| refused(&staging.plain(&why.to_string())))?;
    check::buildable(path, &config).map_err(|why| refused(&staging.plain(&why.text)))?;
    Ok(notes)
}

/// Without the place, of a text that is no file.
fn sentence(diagnostic: &Diagnostic, staging: &Staging) -> String {
    let problem = diagnostic.problem();
    let hint = problem.hint.map(|hint| format!("\n  hint: {hint}"));
    staging.plain(&format!(
        "{}: {}{}",
        problem.severity,
        problem.message,
        hint.unwrap_or_default()
    ))
}

type Parsed = Result<(Config, Vec<Diagnostic>), config::Diagnostics>;

fn parse(text: &str, path: &Path, secrets: Secrets) -> Parsed {
    config::parse(text, path, secrets, &Environment::of_process())
}

/// Both, the new route before the others or behind them; what is rewritten stands first.
fn together(mut there: Table, added: &Table, first: bool) -> Table {
    for (section, new) in added {
        let Value::Array(new) = new else { continue };
        let Value::Array(all) = there
            .entry(section.clone())
            .or_insert_with(|| Value::Array(Vec::new()))
        else {
            continue;
        };
        let at = if first || section == "rewrite" {
            0
        } else {
            all.len()
        };
        all.splice(at..at, new.iter().cloned());
    }
    there
}

fn refused(why: &str) -> CommandError {
    CommandError::new(
        Exit::Config,
        format_args!(
            "{}\nthis would not pass `postern check`; nothing was written",
            why.trim_end()
        ),
    )
}
