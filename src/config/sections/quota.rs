//! `[[quota]]`: how many recipients, of whom, in which time, and what becomes of more.

use super::{
    context::{Context, SectionNames},
    scope::{self, ScopeNames},
};
use crate::{
    config::{
        table::Table,
        values::{self, fault},
    },
    policy::quota::{Beyond, CountedBy, Quota},
};

pub(super) fn read(context: Context<'_>, root: &Table<'_>, known: ScopeNames<'_>) -> Vec<Quota> {
    let mut names = SectionNames::new("quota");
    let mut quotas = Vec::new();
    for table in root.tables("quota") {
        let name = names.read(context, &table);
        let scope = scope::read(context, &table, known, "a quota");
        table.requires("per", "per = \"sender\"");
        table.requires("max", "max = \"200/h\"");
        table.requires("over", "over = \"hold\"");
        let per = table.choice_if("per", CountedBy::ALL).map(|per| per.value);
        let max = table.parsed("max", |text| {
            values::rate(text).map_err(|error| {
                // The same form as a rate; what is counted is another thing.
                let message = error.message.replace("not a rate", "not a quota");
                let message = message.replace("0 would never send anything", "0 would let nothing pass");
                fault!("{message}"; "write recipients and a window, as in \"20/min\", \"200/h\", \"2000/d\"")
            })
        });
        let over = table.choice_if("over", [Beyond::Hold, Beyond::Refuse, Beyond::Alert]);
        let over = over.map(|over| over.value);
        let hold_for = table.duration("hold_for");
        if table.has("hold_for") && over.is_some_and(|over| over != Beyond::Hold) {
            table.error(
                "hold_for",
                fault!("`hold_for` has no meaning here: only over = \"hold\" holds anything"),
            );
        }
        if per == Some(CountedBy::User) && scope.users.is_none() && known.users.known.is_empty() {
            table.error(
                "per",
                fault!("nobody would be counted: there is no [[user]]"; "per = \"sender\" or per = \"client\" counts mail without a login"),
            );
        }
        table.finish();
        if let (Some(per), Some(max), Some(over)) = (per, max, over) {
            quotas.push(Quota {
                name: name.as_str().into(),
                scope,
                per,
                most: max.value.count,
                window: max.value.per,
                over,
                hold_for,
            });
        }
    }
    quotas
}
