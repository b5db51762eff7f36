//! `[[header]]`: which fields of a header go, which come, and what a subject begins with. Which ones no rule may touch is said by `policy`.

use super::{
    context::Context,
    scope::{self, ScopeNames},
};
use crate::{
    config::{
        table::{Table, bare},
        values::{Fault, fault, plain},
    },
    policy::alter::{AddedField, AlterFault, FieldName, HeaderRule, SubjectPrefix},
};

/// Entries of `add` and of `remove`.
const ENTRIES: usize = 50;

pub(super) fn read(
    context: Context<'_>,
    root: &Table<'_>,
    names: ScopeNames<'_>,
) -> Vec<HeaderRule> {
    let mut rules = Vec::new();
    for table in root.tables("header") {
        let scope = scope::read(context, &table, names, "a header rule");
        let add = table.list("add", |text| {
            AddedField::parse(text).map_err(|e| added(&e, text))
        });
        let remove = table.list("remove", |text| {
            FieldName::parse(text).map_err(|error| removed(&error, text))
        });
        let prefix = table.parsed("subject_prefix", |text| {
            SubjectPrefix::parse(text).map_err(|error| prefixed(&error))
        });
        let counts = [
            ("add", add.as_ref().map(|list| list.value.len())),
            ("remove", remove.as_ref().map(|list| list.value.len())),
        ];
        for (key, count) in counts {
            if let Some(count) = count.filter(|count| *count > ENTRIES) {
                table.error(
                    key,
                    fault!("`{key}` has {count} entries; there may be {ENTRIES}"),
                );
            }
        }
        let is_empty = !["add", "remove", "subject_prefix"]
            .iter()
            .any(|key| table.has(key) && !table.is_empty_list(key));
        if is_empty {
            context.error(
                &table.span,
                fault!("this header rule changes nothing";
                    "add subject_prefix = \"[TEST] \", add = [\"X-Environment: staging\"] or remove = [\"X-Originating-IP\"]"),
            );
        }
        table.finish();
        rules.push(HeaderRule {
            scope,
            remove: remove.map(|list| bare(list.value)).unwrap_or_default(),
            add: add.map(|list| bare(list.value)).unwrap_or_default(),
            subject_prefix: prefix.map(|prefix| prefix.value),
        });
    }
    rules
}

/// The sentence for the administrator, whose text is shown as far as it is printable.
fn named(error: &AlterFault) -> Fault {
    match error {
        AlterFault::Forbidden(name) => fault!(
            "a header rule never changes {}", plain(name);
            "who sent it to whom, when, and how its body is read stay as they are: From, Sender, Reply-To, To, Cc, Bcc, Apparently-To, Resent-*, Date, Message-ID, Received, Return-Path, DKIM-Signature, MIME-Version, Content-*"),
        AlterFault::NoName(name) => fault!(
            "\"{}\" is not the name of a header field", plain(name);
            "a name is 1 to 76 printable ASCII characters without blanks and colons"),
        other => Fault::from(other.to_string().as_str()),
    }
}

fn added(error: &AlterFault, text: &str) -> Fault {
    match error {
        AlterFault::NoColon | AlterFault::Empty => fault!(
            "\"{}\" is not a header field: {error}", plain(text);
            "write it as in \"X-Environment: staging\""),
        other => named(other),
    }
}

fn removed(error: &AlterFault, text: &str) -> Fault {
    match text.split_once(':') {
        Some((name, _)) if FieldName::parse(name).is_ok() => fault!(
            "\"{}\" is not the name of a header field", plain(text);
            "name it alone, as in \"{}\": every field of that name goes", plain(name)),
        _ => named(error),
    }
}

fn prefixed(error: &AlterFault) -> Fault {
    match error {
        AlterFault::BlankPrefix => fault!(
            "{error}"; "write it as in \"[TEST] \": a blank at its end stands between it and the subject"),
        other => named(other),
    }
}
