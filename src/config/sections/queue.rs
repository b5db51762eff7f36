//! `[queue]`, and how long a route tries, which `[queue]` says for all.

use std::{path::Path, time::Duration};

use super::context::Context;
use crate::{
    config::{
        diagnostic::Span,
        table::{At, Table, bare},
        values::{self, fault},
    },
    queue,
};

pub(super) struct QueueSection {
    pub(super) settings: queue::Settings,
    /// Where it is said that several gateways share a database.
    pub(super) is_shared: Option<Span>,
    pub(super) in_doubt_wait: Duration,
    pub(super) patience: Patience,
}

/// The word of `store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreWord {
    Sqlite,
    Postgres,
}

/// How long a message is tried.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Waits between attempts; the last one repeats.
    pub(super) retry: Vec<Duration>,
    pub(super) give_up: Duration,
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>, data_dir: &Path) -> QueueSection {
    let table = root.table("queue");
    let store = table.choice_if("store", [StoreWord::Sqlite, StoreWord::Postgres]);
    let is_shared = store.filter(|store| store.value == StoreWord::Postgres);
    let queue = QueueSection {
        settings: queue::Settings {
            data_dir: data_dir.to_owned(),
            keep_failed: table.duration("keep_failed"),
            keep_history: table.duration("keep_history"),
        },
        is_shared: is_shared.map(|store| store.span),
        in_doubt_wait: table.duration("in_doubt_wait"),
        patience: patience(context, &table, None),
    };
    table.finish();
    queue
}

/// `retry` and `give_up` of `[queue]`, or of a route, which inherits them.
pub(super) fn patience(
    context: Context<'_>,
    table: &Table<'_>,
    inherited: Option<&Patience>,
) -> Patience {
    let retry = steps(context, table);
    let patience = match inherited {
        Some(queue) => Patience {
            retry: retry.unwrap_or_else(|| queue.retry.clone()),
            give_up: table.duration_if("give_up").unwrap_or(queue.give_up),
        },
        None => Patience {
            retry: retry.unwrap_or_else(|| table.default_list("retry", values::duration)),
            give_up: table.duration("give_up"),
        },
    };
    let is_hasty = patience
        .retry
        .first()
        .is_some_and(|first| *first >= patience.give_up);
    if let Some(span) = table.place("give_up").or_else(|| table.place("retry"))
        && is_hasty
    {
        context.warning(&span, "`give_up` is not longer than the first step of `retry`: mail is given up after one attempt");
    }
    patience
}

fn steps(context: Context<'_>, table: &Table<'_>) -> Option<Vec<Duration>> {
    let longest = Duration::from_hours(30 * 24);
    let At { value: steps, span } = table.list("retry", |text| {
        let step = values::duration(text)?;
        if step.is_zero() || step > longest {
            return Err("a step of `retry` must be between \"1ms\" and \"30d\"".into());
        }
        Ok(step)
    })?;
    if steps.is_empty() {
        context.error(
            &span,
            fault!("`retry` needs at least one step; the last one repeats";
                "write retry = [\"1m\", \"5m\", \"15m\", \"30m\", \"1h\"]"),
        );
        return None;
    }
    Some(bare(steps))
}
