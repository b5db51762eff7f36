//! What an operator asks and wishes: lists, searches, verbs.

use std::{collections::BTreeSet, time::Instant};

use super::{
    entries::{Placed, SOME, Sifter, entries, highest},
    fault::DbFault,
    link::DbLink,
    values::{get, octets},
    verbs::{LOCK, PICK_ENTRIES, PickedJob, apply, close_all, count},
};
use crate::{
    mail::{message::MessageId, time::from_micros},
    queue::{
        filter::{Filter, FoundEntries, ListMark, Search},
        operator::{Commanded, Entry, Verb},
    },
};

/// So many places are looked at together, at first and at most: behind each look it is seen whether there is time.
const FEW: i64 = 256;
const MANY: i64 = 8192;
/// Entries whose jobs are picked, and jobs that are acted on, at once.
const STEP: usize = 1000;

/// All of one moment: an entry may become another one meanwhile.
const ONE_MOMENT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// The entries that a filter takes, oldest first.
pub(super) async fn list(link: &mut DbLink, filter: &Filter) -> Result<Vec<Entry>, DbFault> {
    link.begin(&[]).await?;
    link.script(ONE_MOMENT).await?;
    let found = matching(link, filter).await?;
    link.roll_back().await?;
    Ok(found)
}

/// The same, within a transaction.
async fn matching(link: &mut DbLink, filter: &Filter) -> Result<Vec<Entry>, DbFault> {
    let places = Sifter::of(filter).between(link, i64::MIN, i64::MAX).await?;
    let mut found = Vec::new();
    for some in places.chunks(SOME) {
        for (_, entry) in entries(link, some, filter.subjects).await? {
            if filter.limit.is_some_and(|limit| found.len() >= limit) {
                return Ok(found);
            }
            if filter.takes(&entry) {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

/// Newest first, until there is enough or the time is over.
pub(super) async fn search(link: &mut DbLink, search: &Search) -> Result<FoundEntries, DbFault> {
    let mut look = ListLook {
        search,
        found: FoundEntries::default(),
    };
    if search.limit > 0 {
        link.begin(&[]).await?;
        link.script(ONE_MOMENT).await?;
        look.go(link).await?;
        link.roll_back().await?;
    }
    Ok(look.found)
}

struct ListLook<'a> {
    search: &'a Search,
    found: FoundEntries,
}

impl ListLook<'_> {
    async fn go(&mut self, link: &mut DbLink) -> Result<(), DbFault> {
        let mut below = match &self.search.from {
            None => i64::MAX,
            Some(ListMark {
                message,
                behind: None,
            }) => *message,
            Some(ListMark { message, .. }) => message.saturating_add(1),
        };
        let sifter = Sifter::of(&self.search.filter);
        if sifter.has_ids() || sifter.is_by_job() {
            let places = sifter
                .between(link, i64::MIN, below.saturating_sub(1))
                .await?;
            self.is_enough(link, places).await?;
            return Ok(());
        }
        let mut some = FEW;
        while let Some(top) = highest(link, below).await? {
            let low = top.saturating_sub(some - 1).max(0);
            let places = sifter.between(link, low, top).await?;
            if self.is_enough(link, places).await? {
                return Ok(());
            }
            if self.is_over() {
                return self.ends_at(link, low).await;
            }
            (below, some) = (low, (some * 2).min(MANY));
        }
        Ok(())
    }

    /// Takes the entries of messages, the last place first; whether it ends here.
    async fn is_enough(
        &mut self,
        link: &mut DbLink,
        mut places: Vec<Placed>,
    ) -> Result<bool, DbFault> {
        let Search {
            filter,
            from,
            limit,
            ..
        } = self.search;
        places.reverse();
        for some in places.chunks(SOME) {
            for (place, entry) in entries(link, some, filter.subjects).await? {
                let given = from.as_ref().filter(|mark| mark.message == place);
                let given = given.and_then(|mark| mark.behind.as_ref());
                if given.is_some_and(|given| entry.route <= *given) || !filter.takes(&entry) {
                    continue;
                }
                let behind = Some(entry.route.clone());
                self.found.entries.push(entry);
                if self.found.entries.len() >= *limit {
                    self.found.next = Some(ListMark {
                        message: place,
                        behind,
                    });
                    return Ok(true);
                }
            }
            if let (true, Some((place, _))) = (self.is_over(), some.last()) {
                self.ends_at(link, *place).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_over(&self) -> bool {
        let deadline = self.search.deadline;
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    async fn ends_at(&mut self, link: &mut DbLink, place: i64) -> Result<(), DbFault> {
        const ACCEPTED: &str =
            "SELECT accepted FROM message WHERE place >= $1::bigint ORDER BY place LIMIT 1";
        let rows = link.one(ACCEPTED, vec![&place]).await?;
        let accepted = rows.first().map(|row| get::<i64>(row, 0)).transpose()?;
        self.found.next = Some(ListMark {
            message: place,
            behind: None,
        });
        self.found.searched_to = accepted.map(from_micros);
        Ok(())
    }
}

/// Carries out a verb on what the filter takes, all of it in one transaction.
pub(super) async fn command(
    link: &mut DbLink,
    filter: &Filter,
    verb: &Verb,
    expect: Option<u64>,
    at: (i64, i64),
) -> Result<Commanded, DbFault> {
    link.begin(&[]).await?;
    let taken: Vec<(MessageId, String)> = matching(link, filter)
        .await?
        .into_iter()
        .map(|entry| (entry.id, entry.route.to_string()))
        .collect();
    let jobs = picked(link, taken).await?;
    let count = count(&jobs, verb);
    if expect.is_some_and(|expected| expected != count) {
        link.roll_back().await?;
        return Ok(Commanded::Unexpected(count));
    }
    let mut over = BTreeSet::new();
    for some in jobs.chunks(STEP) {
        over.append(&mut apply(link, some, verb, at).await?);
        if over.len() >= STEP {
            close_all(link, &std::mem::take(&mut over), at.0).await?;
        }
    }
    close_all(link, &over, at.0).await?;
    if count > 0 {
        link.script("UPDATE change SET counter = counter + 1")
            .await?;
    }
    link.commit(&[]).await?;
    Ok(Commanded::Taken(count))
}

/// The jobs of entries, locked, in the order of their messages' ids.
async fn picked(
    link: &mut DbLink,
    mut taken: Vec<(MessageId, String)>,
) -> Result<Vec<PickedJob>, DbFault> {
    taken.sort();
    let mut jobs = Vec::new();
    for some in taken.chunks(STEP) {
        let messages = octets(some.iter().map(|(message, _)| message));
        let routes: Vec<&str> = some.iter().map(|(_, route)| route.as_str()).collect();
        let found = link
            .go_on(&[
                (LOCK, vec![&messages]),
                (PICK_ENTRIES, vec![&messages, &routes]),
            ])
            .await?;
        for row in found.iter().skip(1).flatten() {
            jobs.push(PickedJob::read(row)?);
        }
    }
    Ok(jobs)
}
