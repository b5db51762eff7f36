//! Whom a `[[header]]` or a `[[quota]]` is for: the same keys as in a route.

use super::context::{Context, SectionNames};
use crate::{
    config::{
        table::{Table, bare},
        values::fault,
    },
    policy::scope::Scope,
};

/// What such a section may name.
#[derive(Clone, Copy)]
pub(super) struct ScopeNames<'a> {
    pub(super) listeners: &'a SectionNames,
    pub(super) clients: &'a SectionNames,
    pub(super) users: &'a SectionNames,
}

/// `kind`: what the section is, for people, with its article.
pub(super) fn read(
    context: Context<'_>,
    table: &Table<'_>,
    names: ScopeNames<'_>,
    kind: &str,
) -> Scope {
    let patterns = |key: &'static str| {
        // A list that could not be read is no absent key.
        let list = table
            .patterns(key)
            .or_else(|| table.has(key).then(Vec::new))?;
        if table.is_empty_list(key) {
            context.error(
                &table.place_or_header(key),
                fault!("{kind} with no {key} is for nobody";
                    "leave `{key}` out: an absent key matches anything"),
            );
        }
        Some(list)
    };
    let named = |key: &'static str, names: &SectionNames| {
        let list = bare(table.list(key, |text| names.lookup(text))?.value);
        // All of them misspelt: for nobody, and the mistake is said.
        (!list.is_empty() || !table.is_empty_list(key)).then_some(list)
    };
    Scope {
        senders: patterns("senders"),
        recipients: patterns("recipients"),
        clients: named("clients", names.clients),
        users: named("users", names.users),
        listeners: named("listeners", names.listeners),
    }
}
