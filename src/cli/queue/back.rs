//! `postern queue move --from-postgres`: the queue of several gateways becomes that of one again. None of them may be at work.

use std::{collections::HashMap, os::unix::fs::MetadataExt as _, time::Duration};

use crate::{
    cli::{
        exit::{CommandError, Ended, Exit},
        output,
        place::QueuePlace,
        prepare,
    },
    config::{
        self, Config, Secrets,
        cluster::{FormerStore, SealingKey, StoreSettings},
    },
    gateway::{RunError, database, tokens},
    mail::text::shown,
    queue::{
        lock,
        spill::{BackFault, BackMove, Copied},
        store::{NodeId, NodeRow, StoreError},
    },
};

/// One that is at work is heard of within this: it beats every second.
const LISTENS: Duration = Duration::from_secs(4);
/// Between two looks at those that are silent.
const LOOKS: Duration = Duration::from_secs(1);
/// Messages that are named one by one.
const NAMED: usize = 20;

pub(super) fn run(place: &QueuePlace) -> Ended {
    let config = settings(place)?;
    let former = config.former.as_ref().ok_or_else(|| {
        CommandError::new(
            Exit::Config,
            "[postgres] is missing, which says where the queue is: leave it in the file until the queue has moved",
        )
    })?;
    is_owner(&config)?;
    let _lock = lock::take(&config.data_dir).map_err(|error| failed(error.into()))?;
    // The connections have tasks of their own.
    prepare::block_on(bring(&config, former))
}

fn settings(place: &QueuePlace) -> Result<Config, CommandError> {
    let (config, _) = config::load(&place.path, Secrets::Resolve)
        .map_err(|problems| CommandError::new(Exit::Config, problems))?;
    let refused = |why: &str| Err(CommandError::new(Exit::Config, why));
    if place.config.is_none() {
        return refused(
            "the file is about another data_dir: name the one whose gateway will have the queue",
        );
    }
    match config.store {
        StoreSettings::Sqlite => Ok(config),
        StoreSettings::Postgres(..) => refused(
            "end every gateway, and write store = \"sqlite\" in [queue] first; leave [postgres] and [cluster] in the file until the queue has moved",
        ),
    }
}

/// What somebody else makes there the gateway could not read.
fn is_owner(config: &Config) -> Result<(), CommandError> {
    let Ok(found) = std::fs::metadata(&config.data_dir) else {
        return Ok(());
    };
    if found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(CommandError::new(
        Exit::Refused,
        format_args!(
            "{} belongs to user {}: run this as that user, who is the gateway's",
            config.data_dir.display(),
            found.uid()
        ),
    ))
}

fn failed(error: RunError) -> CommandError {
    CommandError {
        code: error.code,
        text: error.text,
    }
}

/// 69: the database is away; 74: the disk; 75: it is full, or a gateway is at work; 78: the database does not take us.
fn unmoved(fault: BackFault) -> CommandError {
    match fault {
        BackFault::Store(error) => failed(error.into()),
        BackFault::Database(error) => failed(error.into()),
        BackFault::AtWork => CommandError::new(Exit::Later, fault),
    }
}

fn broken(error: StoreError) -> CommandError {
    unmoved(error.into())
}

async fn bring(config: &Config, former: &FormerStore) -> Ended {
    let remote = database::settings(&former.postgres, &former.cluster, &config.data_dir, false);
    let remote = remote.map_err(|why| CommandError::new(Exit::Config, why))?;
    let opened = BackMove::open(remote, config.queue.clone()).await;
    let moving = opened.map_err(unmoved)?;
    let silent = silent(&moving).await?;
    let kept = moving.write_outcomes().await.map_err(broken)?;
    if kept > 0 {
        output::complain(format_args!(
            "what became of {} cannot be written into the database: some of it may be sent again",
            output::count(kept, "job")
        ));
    }
    let wait = config.delivery.in_doubt_wait;
    let is_over = moving.take_over(&silent, wait, output::now()).await;
    if !is_over.map_err(broken)? {
        return Err(unmoved(BackFault::AtWork));
    }
    let copied = moving.copy(output::now()).await.map_err(unmoved)?;
    if !copied.is_whole() {
        return Err(differs(&copied));
    }
    bring_tokens(&moving, &former.cluster.keys).await?;
    moving.bring_lanes().await.map_err(broken)?;
    let missing = moving.finish(&copied).await.map_err(unmoved)?;
    let host = moving.host();
    if missing > 0 {
        return Err(CommandError::new(
            Exit::Io,
            format_args!(
                "{} at {host} came to be there meanwhile, and are still there: run this again",
                output::count(missing, "message")
            ),
        ));
    }
    output::line(if copied.messages() == 0 {
        format!("there is nothing to move in postgres at {host}")
    } else {
        done(&copied, &host, &config.data_dir.display().to_string())
    })?;
    Ok(Exit::Ok)
}

fn done(copied: &Copied, host: &str, dir: &str) -> String {
    let all = copied.messages();
    format!(
        "moved {} {} ({} waiting, {} held, {} failed, {} history) from postgres at {host} into {dir}",
        grouped(all),
        if all == 1 { "message" } else { "messages" },
        grouped(copied.waiting),
        grouped(copied.held),
        grouped(copied.failed),
        grouped(copied.history)
    )
}

/// `1,234`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn differs(copied: &Copied) -> CommandError {
    let named = copied.broken.iter().take(NAMED);
    let named = named.map(|(id, why)| format!("{id} cannot be read: {}\n", shown(why)));
    let mut text = named.collect::<Vec<_>>().concat();
    if copied.broken.len() > NAMED {
        text = format!("{text}and {} more\n", copied.broken.len() - NAMED);
    }
    CommandError::new(
        Exit::Io,
        format_args!(
            "{text}what is here is not what is there, and nothing was deleted\n  there: {}\n  here:  {}",
            copied.there, copied.here
        ),
    )
}

/// Tokens are kept here as they are: nobody else reads this disk.
async fn bring_tokens(moving: &BackMove, keys: &[SealingKey]) -> Result<(), CommandError> {
    let mut opened = Vec::new();
    for (key, sealed) in moving.tokens().await.map_err(broken)? {
        let token = tokens::opened(keys, &key, &sealed)
            .map_err(|why| CommandError::new(Exit::Config, why))?;
        opened.push((key, token));
    }
    for (key, token) in opened {
        moving.bring_token(&key, token).await.map_err(broken)?;
    }
    Ok(())
}

/// Gateways that never said that they ended, and have been silent for as long as they said before that counts. One that is heard of ends it.
async fn silent(moving: &BackMove) -> Result<Vec<NodeRow>, CommandError> {
    let before = moving.at_work().await.map_err(broken)?;
    let Some(longest) = before.iter().map(|row| row.dead_after).max() else {
        return Ok(before);
    };
    let seen: HashMap<NodeId, i64> = before.iter().map(|row| (row.id, row.seen)).collect();
    let longest = longest.max(LISTENS);
    let begun = tokio::time::Instant::now();
    let mut is_said = false;
    loop {
        tokio::time::sleep(LOOKS).await;
        let now = moving.at_work().await.map_err(broken)?;
        let heard = now.iter().find(|row| seen.get(&row.id) != Some(&row.seen));
        if let Some(row) = heard {
            return Err(CommandError::new(
                Exit::Later,
                format_args!("{} is at work: end it first", shown(&row.name)),
            ));
        }
        let waited = begun.elapsed();
        if now.is_empty() || waited >= longest {
            return Ok(now);
        }
        if !is_said && waited >= LISTENS {
            is_said = true;
            let names: Vec<_> = now.iter().map(|row| shown(&row.name)).collect();
            output::complain(format_args!(
                "{} did not say that it ended: what it was sending is taken over in {} s",
                names.join(", "),
                longest.saturating_sub(waited).as_secs()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_groups() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
