//! The top level, `[log]`, `[limits]`, `[queue]` and `[bounce]`.

use std::{path::PathBuf, time::Duration};

use super::{Ground, YEAR, seconds};
use crate::{
    config::{
        table::{At, Table, bare},
        values::{self, Fault},
    },
    delivery::BounceSettings,
    listener,
    mail::address::{Address, Domain},
    queue,
    telemetry::{self, Format},
};

pub(super) struct General {
    pub(super) hostname: String,
    pub(super) data_dir: PathBuf,
    pub(super) default_domain: Option<Domain>,
    pub(super) log: telemetry::Settings,
}

pub(super) fn read(ground: Ground<'_>, root: &Table<'_>) -> General {
    let own_name = || {
        // A machine may be named anything; what is said in EHLO may not.
        values::domain(&ground.env.hostname)
            .map_or_else(|_| "localhost".to_owned(), |name| name.to_string())
    };
    let hostname = root
        .parsed("hostname", "a name", values::domain)
        .map_or_else(own_name, |name| name.value.to_string());
    let data_dir = root
        .parsed("data_dir", "a path", super::files::path)
        .map_or_else(
            || PathBuf::from(crate::config::glance::DATA_DIR),
            |dir| ground.path(&dir.value),
        );
    let default_domain = root
        .parsed("default_domain", "a domain", values::domain)
        .map(|domain| domain.value);
    let log = root.table("log", "log");
    let level = log
        .choice(
            "level",
            &["error", "warn", "info", "debug", "trace"].map(|word| (word, word)),
        )
        .map_or("info", |level| level.value);
    let format = log
        .choice(
            "format",
            &[
                ("text", Format::Text),
                ("json", Format::Json),
                ("journald", Format::Journald),
            ],
        )
        .map_or(Format::Text, |format| format.value);
    log.finish();
    General {
        hostname,
        data_dir,
        default_domain,
        log: telemetry::Settings {
            level: level.to_owned(),
            format,
        },
    }
}

pub(super) struct Limits {
    pub(super) listener: listener::Limits,
    pub(super) message_size: u64,
    pub(super) recipients: usize,
    pub(super) session_errors: u32,
    pub(super) received_headers: usize,
}

pub(super) fn limits(root: &Table<'_>) -> Limits {
    let table = root.table("limits", "limits");
    let limits = Limits {
        message_size: table.size("message_size", ("1KiB", "2GiB"), 35 << 20),
        recipients: table.number("recipients", 1..=100_000, 1000) as usize,
        session_errors: table.number("session_errors", 1..=1_000_000, 20) as u32,
        received_headers: table.number("received_headers", 1..=1000, 50) as usize,
        listener: listener::Limits {
            connections: table.number("connections", 1..=100_000, 1000) as usize,
            connections_per_client: table.number("connections_per_client", 1..=100_000, 100)
                as usize,
            messages_per_minute: table.number("messages_per_minute", 0..=1_000_000, 0) as u32,
            command_timeout: table.duration("command_timeout", ("1s", "1d"), seconds(300)),
            data_timeout: table.duration("data_timeout", ("1s", "1d"), seconds(600)),
            free_disk: table.size("free_disk", ("0B", "1000GiB"), 256 << 20),
        },
    };
    table.finish();
    limits
}

pub(super) struct Queue {
    pub(super) settings: queue::Settings,
    pub(super) in_doubt_wait: Duration,
    pub(super) retry: Vec<Duration>,
    pub(super) give_up: Duration,
}

pub(super) fn queue(ground: Ground<'_>, root: &Table<'_>, data_dir: &std::path::Path) -> Queue {
    let table = root.table("queue", "queue");
    table.parsed("store", "\"sqlite\"", |text| match text {
        "sqlite" => Ok(()),
        "postgres" => Err(Fault::new(
            "store = \"postgres\" is not in this version yet",
            "write store = \"sqlite\"",
        )),
        _ => Err(Fault::new(
            "there is no such store",
            "write store = \"sqlite\"",
        )),
    });
    let retry =
        retry(ground, &table).unwrap_or_else(|| [60, 300, 900, 1800, 3600].map(seconds).to_vec());
    let give_up = give_up(&table).unwrap_or(seconds(2 * 86_400));
    warn_hasty(ground, &table, &retry, give_up);
    let queue = Queue {
        settings: queue::Settings {
            data_dir: data_dir.to_owned(),
            keep_failed: table.duration("keep_failed", ("0s", YEAR), seconds(14 * 86_400)),
            keep_history: table.duration("keep_history", ("0s", "3650d"), seconds(30 * 86_400)),
        },
        in_doubt_wait: table.duration("in_doubt_wait", ("1ms", "7d"), seconds(300)),
        retry,
        give_up,
    };
    table.finish();
    queue
}

/// `retry` of `[queue]` or of a route.
pub(super) fn retry(ground: Ground<'_>, table: &Table<'_>) -> Option<Vec<Duration>> {
    let At { value: steps, span } = table.list("retry", |text| {
        let step = values::duration(text)?;
        if step.is_zero() || step > seconds(30 * 86_400) {
            return Err(Fault::from(
                "a step of `retry` must be between \"1ms\" and \"30d\"".to_owned(),
            ));
        }
        Ok(step)
    })?;
    if steps.is_empty() {
        ground.source.error(
            &span,
            Fault::new(
                "`retry` needs at least one step; the last one repeats",
                "write retry = [\"1m\", \"5m\", \"15m\", \"30m\", \"1h\"]",
            ),
        );
        return None;
    }
    Some(bare(steps))
}

/// `give_up` of `[queue]` or of a route.
pub(super) fn give_up(table: &Table<'_>) -> Option<Duration> {
    let given = table.duration("give_up", ("1ms", YEAR), Duration::ZERO);
    (!given.is_zero()).then_some(given)
}

/// A message that is given up before it is tried a second time.
pub(super) fn warn_hasty(
    ground: Ground<'_>,
    table: &Table<'_>,
    retry: &[Duration],
    give_up: Duration,
) {
    let Some(span) = table.place("give_up").or_else(|| table.place("retry")) else {
        return;
    };
    if retry.first().is_some_and(|first| *first >= give_up) {
        ground.source.warning(
            &span,
            Fault::from(
                "`give_up` is not longer than the first step of `retry`: mail is given up after one attempt"
                    .to_owned(),
            ),
        );
    }
}

/// `None` only when no mailbox can be made of the host name, which was checked to be a domain.
pub(super) fn bounce(root: &Table<'_>, hostname: &str) -> Option<BounceSettings> {
    let postmaster = || Address::parse(&format!("postmaster@{hostname}")).ok();
    let table = root.table("bounce", "bounce");
    let from = table
        .parsed("from", "an address", values::address)
        .map(|from| from.value);
    let bounce = BounceSettings {
        to_sender: table.flag("to_sender", true),
        is_from_given: from.is_some(),
        from: from.or_else(postmaster)?,
        copy_to: table
            .list("copy_to", values::address)
            .map(|list| bare(list.value))
            .unwrap_or_default(),
        hostname: hostname.to_owned(),
    };
    table.finish();
    Some(bounce)
}
