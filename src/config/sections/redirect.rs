//! `[[redirect]]`: whose mail for whom goes to somebody else, whom the allowlist must admit.

use super::{
    context::{Context, SectionNames},
    scope::{self, ScopeNames},
};
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table},
        values::{self, Fault, fault},
    },
    mail::{address::Address, pattern::admitting},
    policy::{Allowlist, redirect::Redirect},
};

pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    known: ScopeNames<'_>,
    allowlist: Option<&Allowlist>,
) -> Vec<Redirect> {
    let mut names = SectionNames::new("redirect");
    let mut redirects = Vec::new();
    for table in root.tables("redirect") {
        let name = names.read(context, &table);
        let scope = scope::read(context, &table, known, "a redirect");
        table.requires("to", "to = [\"qa@corp.example\"]");
        let mut to: Vec<Address> = Vec::new();
        for At { value, span } in table
            .list("to", values::address)
            .map_or_else(Vec::new, |list| list.value)
        {
            must_be_admitted(context, allowlist, &value, &span);
            if !to.contains(&value) {
                to.push(value);
            }
        }
        if table.is_empty_list("to") {
            table.error(
                "to",
                fault!("a redirect to nobody would lose mail";
                    "to drop it, write a [[connector]] with type = \"discard\" and a [[route]] to it"),
            );
        }
        let except = table.patterns("except").unwrap_or_default();
        table.finish();
        // Without anybody there is an error already.
        redirects.push(Redirect {
            name: name.as_str().into(),
            scope,
            to,
            except,
        });
    }
    redirects
}

/// What the lists refuse never leaves, whatever a rule says.
pub(super) fn must_be_admitted(
    context: Context<'_>,
    allowlist: Option<&Allowlist>,
    to: &Address,
    span: &Span,
) {
    if let Some(allowlist) = allowlist
        && admitting(&allowlist.recipients, Some(to)).is_none()
    {
        let hint = if to.is_risky() {
            format!(
                "such a local part must be listed literally: add \"{to}\" to `recipients` of [allowlist]"
            )
        } else {
            format!(
                "what the lists refuse never leaves: add \"{to}\" to `recipients` of [allowlist]"
            )
        };
        context.error(
            span,
            Fault {
                message: format!("`recipients` of [allowlist] does not admit <{to}>"),
                hint: Some(hint),
            },
        );
    }
}
