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
use crate::config::{self, Config, Diagnostic, Environment, Secrets};

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
    let text = draft.whole(&|name| staging.find(name));
    let (config, notes) =
        parse(&text, path).map_err(|why| refused(&staging.plain(&why.to_string())))?;
    check::buildable(path, &config).map_err(|why| refused(&staging.plain(&why.text)))?;
    let note = |note: &Diagnostic| staging.plain(note.to_string().trim_end());
    Ok(SetupProof {
        notes: notes.iter().map(note).collect(),
        route_first: false,
    })
}

/// Checks a connector and its route beside the configuration that is there.
pub(super) fn beside(
    draft: &ConfigDraft,
    staging: &Staging,
    path: &Path,
) -> Result<SetupProof, CommandError> {
    config::load(path, Secrets::CheckOnly).map_err(|why| {
        CommandError::new(
            Exit::Config,
            format_args!(
                "{why}the configuration that is there must be right first; nothing was written"
            ),
        )
    })?;
    let there = std::fs::read_to_string(path).map_err(|why| refused(&why.to_string()))?;
    let there: Table = there.parse().map_err(|_| refused("it is not TOML"))?;
    let added: Table = draft
        .beside(&|name| staging.find(name))
        .parse()
        .map_err(|why| CommandError::new(Exit::Software, why))?;
    let tried = |first: bool| {
        let text = together(there.clone(), &added, first);
        let text = toml::to_string(&text).map_err(|why| why.to_string())?;
        let (config, _) = parse(&text, path).map_err(|why| {
            // The lines of this text are those of no file.
            let problems = why.iter().map(Diagnostic::problem);
            let errors = problems.filter(|problem| problem.severity == "error");
            let said: Vec<String> = errors.map(|problem| problem.message).collect();
            staging.plain(&said.join("; "))
        })?;
        check::buildable(path, &config).map_err(|why| staging.plain(&why.text))
    };
    // Behind one that takes everything it would never be reached.
    let route_first = tried(false).is_err();
    if route_first {
        tried(true).map_err(|why| refused(&why))?;
    }
    Ok(SetupProof {
        notes: Vec::new(),
        route_first,
    })
}

type Parsed = Result<(Config, Vec<Diagnostic>), config::Diagnostics>;

fn parse(text: &str, path: &Path) -> Parsed {
    config::parse(text, path, Secrets::CheckOnly, &Environment::of_process())
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
